"""How a space is shown before anything is spent: as JSON, and as a table with a few sentences."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from search.commands import tables
from search.commands.anatomy_tables import bytes_text, count
from search.commands.output import say, show
from search.commands.words import duration, network, plain

if TYPE_CHECKING:
    from search.preview import Network
    from search.spec import StudySpec
    from trainer.data.dataset import Dataset

Document = dict[str, Any]


def preview_document(spec: StudySpec, dataset: Dataset) -> Document:
    """What is known of a study before it runs.

    Raises:
        BadInputError: The workers that the study asks for do not fit on this machine.
    """
    from search import preview as previewed
    from search.forecast import forecast

    ahead = previewed.preview(spec, dataset.input_shape, dataset.outputs, len(dataset.train))
    time = forecast(spec, dataset, ahead.draws)
    return {
        "networks": {name: _network(getattr(ahead, name)) for name in ("smallest", "median", "largest")},
        "draws": len(ahead.draws),
        "repaired": ahead.repaired,
        "repairs": ahead.repairs,
        "rule": previewed.RULE,
        "combinations": ahead.combinations,
        "different": ahead.different,
        "continuous": ahead.continuous,
        "seconds": dataclasses.astuple(time.seconds),
        "worker_hours": dataclasses.astuple(time.worker_hours),
        "gpu_hours": dataclasses.astuple(time.gpu_hours),
        "workers": dataclasses.asdict(time.workers),
        "epochs_per_trial": time.epochs,
        "measured": time.measured,
        "limited_by_minutes": time.limited,
    }


def show_preview(spec: StudySpec, document: Document) -> None:
    """All of it on stdout."""
    budget = spec.budget
    say(f"{spec.name} would run: {budget.trials:,} trials of at most {budget.epochs:,} epochs")
    say()
    _show_networks(document["networks"])
    for sentence in (*_of_the_space(spec, document), *_of_the_time(spec, document)):
        say()
        say(textwrap.fill(plain(sentence), tables.WIDTH, break_on_hyphens=False))


def _network(of: Network) -> Document:
    return {"weights": of.weights, "memory": of.memory, "multiply_adds": of.multiply_adds, "params": of.params}


def _show_networks(networks: dict[str, Document]) -> None:
    table = tables.new_table("network", "weights", "multiply-adds", "memory")
    table.add_column("layers", overflow="fold")
    for name, each in networks.items():
        costs = count(each["weights"]), count(each["multiply_adds"]), bytes_text(each["memory"])
        table.add_row(name, *costs, network(each["params"]))
    show(table)


def _of_the_space(spec: StudySpec, document: Document) -> Iterator[str]:
    if document["repaired"]:
        (often, share), *_ = document["repairs"]
        yield (
            f"Of {document['draws']:,} random draws no image could pass {document['repaired']:.1%} as they are drawn; "
            f"most often ({share:.1%}), {often}. The rule: {document['rule']}."
        )
    combinations, different = document["combinations"], document["different"]
    continuous = (
        f"; {', '.join(document['continuous'])} can have any value of a range" if document["continuous"] else ""
    )
    if combinations is None:
        yield f"There are more than 10,000 combinations of settings{continuous}."
        return
    same = f", {different:,} of them different once repaired" if different < combinations else ", all different"
    yield f"There are {combinations:,} combinations of settings{same}{continuous}."
    if not continuous and different < spec.budget.trials:
        yield f"That is less than the budget's {spec.budget.trials:,} trials: a network is trained once only."


def _of_the_time(spec: StudySpec, document: Document) -> Iterator[str]:
    seconds, low, high = document["seconds"]
    workers, cores = document["workers"], f"{document['workers']['cpus']:g} CPU"
    each = cores if not workers["gpus"] else f"{cores} and {workers['gpus']:g} GPU"
    hours = _hours(document["gpu_hours"], "GPU") if workers["gpus"] else _hours(document["worker_hours"], "worker")
    yield (
        f"Time: about {duration(seconds)} ({duration(low)} to {duration(high)}) on this machine as busy as it is now, "
        f"with {workers['count']} workers of {each} each; {hours}."
    )
    ends = "budget.minutes ends it. " if document["limited_by_minutes"] else ""
    early = spec.budget.target is not None or spec.budget.stop_when is not None
    target = "It ends sooner where budget.target or budget.stop_when says so. " if early else ""
    pruned = f", as the pruner {spec.search.pruner} ends most early" if spec.search.pruner != "none" else ""
    yield (
        f"{ends}{target}Told from {document['measured']} networks that were trained for a moment. A trial gets "
        f"{document['epochs_per_trial']:.3g} epochs on average{pruned}."
    )


def _hours(span: tuple[float, float, float], what: str) -> str:
    value, low, high = span
    return f"{value:.2g} {what}-hours ({low:.2g} to {high:.2g})"
