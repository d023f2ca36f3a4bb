"""What people read on stdout, made from the documents: a study's result, the list of studies, a study's trials."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from search.commands.documents import Document
from search.commands.output import say, show
from search.commands.words import duration, figure, in_short, plain, setting

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80
_SPLITS = (("train", "to learn from"), ("validation", "to choose by"), ("test", "to judge the winner"))


def show_result(document: Document) -> None:
    """A study's outcome: trials, leaders, the best one's settings and errors, what it is worth, where its model is."""
    say(headline(document))
    if document["splits"]:
        say(", ".join(f"{document['splits'][name]:,} rows {use}" for name, use in _SPLITS))
    best = document["best"]
    if best is None:
        return
    if document["leader"]:
        say()
        _show_leaders(document)
    say()
    _show_best(document, best)
    if document["worth"]:
        say()
    for sentence in document["worth"]:
        say(textwrap.fill(plain(sentence), WIDTH))
    say()
    _show_next_steps(document, best)


def headline(document: Document) -> str:
    """``digits finished: 100 of 100 trials in 41 s (24 complete, 76 pruned, 0 failed)``."""
    trials = document["trials"]
    ended = trials["complete"] + trials["pruned"] + trials["failed"]
    took = f" in {duration(document['seconds'])}" if document["seconds"] is not None else ""
    return (
        f"{document['study']} {document['state']}: {ended} of {trials['total']} trials{took}"
        f" ({trials['complete']} complete, {trials['pruned']} pruned, {trials['failed']} failed)"
    )


def show_list(documents: Sequence[Document], ages: Sequence[str]) -> None:
    """The studies, one line each."""
    table = _table()
    for name in ("study", "state"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "best", "metric", "age"):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for document, old in zip(documents, ages, strict=True):
        trials, best = document["trials"], document["best"]
        table.add_row(
            document["study"],
            document["state"],
            f"{trials['complete'] + trials['pruned'] + trials['failed']}/{trials['total']}",
            figure(best["validation"] if best else None),
            plain(str(document["metric"] or "-")),
            old,
        )
    show(table)


def show_trials(trials: Iterable[Document], metric: str) -> None:
    """One study's trials, one line each; a failed one shows its reason in place of its settings."""
    table = _table()
    for name in ("trial", "state", metric, "epochs", "time"):
        table.add_column(plain(name), justify="left" if name == "state" else "right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for trial in trials:
        table.add_row(
            str(trial["trial"]),
            trial["state"],
            figure(trial["validation"]),
            str(trial["epochs"]),
            duration(trial["seconds"]),
            plain(trial["error"]) if trial["error"] else in_short(trial["params"]),
        )
    show(table)


def show_rounds(rounds: Sequence[Document], metric: str) -> None:
    """The rounds of one study, one line each."""
    table = _table()
    for name in ("round", "study", "trials", f"best {metric}", "verdict"):
        table.add_column(plain(name), justify="left" if name in ("study", "verdict") else "right", no_wrap=True)
    table.add_column("changed before it", overflow="fold")
    for each in rounds:
        table.add_row(
            str(each["round"]),
            each["study"],
            str(each["trials"]),
            figure(each["validation"]),
            str(each["verdict"] or "-").replace("_", " "),
            ", ".join(change["key"].rpartition(".")[2] for change in each["changes"]) or "-",
        )
    show(table)
    say()


def _show_leaders(document: Document) -> None:
    table = _table()
    for name in ("trial", "validation", "train", "epochs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for leader in document["leader"]:
        table.add_row(
            str(leader["trial"]),
            figure(leader["validation"]),
            figure(leader["train"]),
            str(leader["epochs"]),
            in_short(leader["params"]),
        )
    say(f"The best trials by validation {document['metric']} (smaller is better)")
    show(table)


def _show_best(document: Document, best: dict[str, Any]) -> None:
    if best["trial"] is not None:
        size = f", {best['weights']:,} weights" if best["weights"] is not None else ""
        say(f"The best: trial {best['trial']}{size}, as it was after epoch {best['best_epoch']} of {best['epochs']}")
    _show_settings(best["params"] or {})
    say()
    low_high = best["test_interval"]
    interval = f"   95 % interval {figure(low_high[0])} to {figure(low_high[1])}" if low_high else ""
    for split in ("train", "validation", "test"):
        if best[split] is not None:
            say(f"  {document['metric']} on {split:<12}{figure(best[split])}{interval if split == 'test' else ''}")
    if best["test"] is None:
        say("  The test split has not been read: that happens once, for the winner, at the very end.")


def _show_settings(params: dict[str, Any]) -> None:
    """The settings in two columns, read downwards."""
    cells = [f"{plain(name):<16}{setting(value)}" for name, value in params.items()]
    rows = (len(cells) + 1) // 2
    for left, right in zip(cells[:rows], [*cells[rows:], ""], strict=False):
        say(f"  {left:<38}{right}".rstrip())


def _show_next_steps(document: Document, best: dict[str, Any]) -> None:
    study = document["study"]
    if best["model"]:
        say(f"Model              {best['model']}")
        say(f"Predict new rows   neurosweep predict {study} FILE")
    elif document["unpublished"] and document["state"] == "finished":
        say("Model              not in MLflow yet: `neurosweep sync` takes it there")
    if document["state"] == "finished":
        say(f"What to try next   neurosweep report {study}")
    say(f"See it in MLflow   neurosweep ui {study}")


def new_table(first: str, *others: str) -> Table:
    """A table with a column of names and columns of numbers."""
    table = _table()
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
