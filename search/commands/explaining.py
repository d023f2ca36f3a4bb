"""The command that shows a study's network at work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, tell
from search.commands.studies import open_store
from search.publishing import drain

if TYPE_CHECKING:
    from search.places import Places
    from storage.records import StudyRecord
    from storage.store import Store

PAGE = "explain"


@click.command(cls=Command)
@click.argument("study")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page here as well.",
)
@json_option
def explain(study: str, output: Path | None, as_json: bool) -> None:
    """Write a page that shows STUDY's best network at work.

    One HTML file with the whole network inside, for any browser: it needs no server and no network. For images you draw
    or pick one and see what every layer makes of it. For a table you see which columns matter, how the answer moves
    with each, and what it becomes when you change a row.

    The page is kept in the study's folder and with its run in MLflow. Its rows come from the test split, once the study
    has opened that.

    \b
    Example:
      neurosweep explain digits
      neurosweep explain wine -o wine.html
    """
    where = places()
    store = open_store(where)
    record = store.find(study)
    from search.insight.page_file import write_page

    kept = write_page(where, record, PAGE, _page(where, store, record))
    if output is not None:
        output.write_bytes(kept.read_bytes())
    store.publish_page(record.id, PAGE)
    tell(f"{record.label}: publishing to MLflow")
    if late := drain(where, record.id):
        tell(late)
    page = (output or kept).absolute()
    if as_json:
        print_json({"page": str(page)})
    else:
        say(str(page))


def _page(where: Places, store: Store, study: StudyRecord) -> str:
    """The page of the study's winner, with rows of the test split once that is open, until then of the validation
    split."""
    from search.explain.image_page import image_page
    from search.explain.table_page import table_page
    from search.insight.reporting import is_open
    from search.insight.winner import answers_to, load_winner, make_trainer, outputs_of, studied_data, winning_trial
    from search.sampler import Stream, derived_seed
    from search.spec import data_request
    from trainer.data.load import raw_columns
    from trainer.work import Metric

    trial = winning_trial(study, store.trials(study.id))
    tell(f"{study.label}: reading the data")
    spec, dataset = studied_data(study)
    metric = Metric(spec.metric or Metric.ERROR)
    trainer = make_trainer(dataset)
    tell(f"{study.label}: loading the winner")  # or training it again
    winner = load_winner(where, study, trial, spec, dataset, trainer=trainer)
    tell(f"{study.label}: asking the network")
    split = "test" if is_open(study) else "validation"
    if split == "test":
        store.record_opening(study.id, trial.number, PAGE)
    told = outputs_of(winner, dataset, getattr(dataset, split), metric, trainer=trainer)
    if dataset.preprocessing.kind == "image":
        return image_page(
            study=study.label,
            metric=str(metric),
            settings=winner.settings,
            weights=winner.weights,
            dataset=dataset,
            split=split,
            outputs=told.outputs,
            truth=told.truth,
        )
    return table_page(
        study=study.label,
        metric=metric,
        settings=winner.settings,
        weights=winner.weights,
        dataset=dataset,
        columns=raw_columns(data_request(spec), dataset.preprocessing),
        split=split,
        outputs=told.outputs,
        truth=told.truth,
        ask=lambda inputs: answers_to(winner, dataset, inputs, trainer=trainer),
        seed=derived_seed(spec.seed, Stream.EXPLAIN),
    )
