"""The commands that train: run, resume and serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from neurosweep.errors import BadInputError, StudyTakenError
from search.commands.files import pinned, read_new_study
from search.commands.looking import follow
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, tell
from search.commands.stopping import INTERRUPTED, heeding_signals
from search.commands.studies import open_store, resume_hint, show_end
from storage.records import StudyRecord, StudyState, TrialState
from storage.secrecy import public_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.commands.screen import Screen
    from search.insight.findings import Report
    from search.places import Places
    from search.progress import Progress
    from search.stop import Stop
    from storage.store import Store


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--rounds", metavar="N", type=click.IntRange(2, 100), help="Search, diagnose and refine the space, up to N times."
)
@json_option
def run(file: Path, rounds: int | None, as_json: bool) -> int:
    """Search with the study in FILE until it ends.

    Puts the study in the queue and works on it in this process: progress on stderr, the result on stdout. Control-C
    stops it; what is done is kept, and `neurosweep resume` goes on.

    With --rounds the file's budget is shared among up to N searches, each in the space that the diagnosis of the one
    before it leads to. Only the winner of all of them meets the test split.

    \b
    Example:
      neurosweep run study.yaml
      neurosweep run study.yaml --json > result.json
      neurosweep run study.yaml --rounds 3
    """
    from search.validation import lines_of

    new = read_new_study(file)
    where = places()
    store = open_store(where)
    if rounds is not None:
        from search.insight.rounds import first_round

        first = first_round(new, rounds)
        with lines_of(file):
            return _work_on_rounds(store, lambda: store.submit(pinned(store, first)), where, as_json)
    with heeding_signals() as (screen, stop):
        study = store.submit(pinned(store, new))
        try:
            with lines_of(file):
                ended = _work_on(store, study, where, screen, stop)
        except StudyTakenError:
            ended = None
    if ended is None:
        tell(f"a `neurosweep serve` on this database has taken {study.label}; Control-C leaves it to that one")
        return follow(store, study, where, as_json)
    return show_end(store, ended, where, as_json)


@click.command(cls=Command)
@click.argument("study")
@click.option("--trials", metavar="N", type=click.IntRange(min=1), help="How many trials the study is to have in all.")
@json_option
def resume(study: str, trials: int | None, as_json: bool) -> int:
    """Go on with STUDY after a stop, or give it more trials.

    Works in this process, as `neurosweep run` does. Trials that are done are kept. Of several rounds any one can be
    named: the others are gone on with as well, unless it is to have more trials.

    \b
    Example:
      neurosweep resume digits
      neurosweep resume digits --trials 200
    """
    where = places()
    store = open_store(where)
    record = store.find(study)
    if trials is None and record.tree is not None:
        from search.insight.rounds import last_round

        last = last_round(store, record)
        if last is not None:
            return _work_on_rounds(
                store, lambda: store.requeue(last.id) if last.result is None else last, where, as_json
            )
    _refuse_if_done(store, record, trials)
    with heeding_signals() as (screen, stop):
        ended = _work_on(store, store.requeue(record.id, trials), where, screen, stop)
    return show_end(store, ended, where, as_json)


@click.command(cls=Command)
@json_option
def serve(as_json: bool) -> int:
    """Work on queued studies until stopped.

    Takes the oldest study in the queue, works on it, takes the next. Control-C or SIGTERM stops it; what is done is
    kept.

    \b
    Example:
      neurosweep serve --database postgresql://neurosweep@db/neurosweep
    """
    from search.engine import serve as work

    where = places()
    store = open_store(where)
    served: dict[str, None] = {}  # in the order in which they came
    tell(f"working on the studies of {public_address(where.database)}; Control-C stops")
    with heeding_signals() as (screen, stop):
        stop.last_words = "ended at once; another `neurosweep serve` goes on"

        def show(progress: Progress) -> None:
            served.setdefault(progress.label)
            screen.show(progress)

        work(store, where, show, stop)
    if as_json:
        print_json({"served": list(served)})
    else:
        say(f"stopped after {len(served)} {'study' if len(served) == 1 else 'studies'}")
    return 0


def _refuse_if_done(store: Store, study: StudyRecord, trials: int | None) -> None:
    ended = sum(number for state, number in store.summary(study.id).counts.items() if state is not TrialState.RUNNING)
    if study.state is StudyState.FINISHED and ended >= (trials or study.trials):
        raise BadInputError(f"All {ended} trials are done; ask for more with --trials.", study.label)


def _work_on(store: Store, study: StudyRecord, where: Places, screen: Screen, stop: Stop) -> StudyRecord:
    stop.last_words = f"ended at once; {resume_hint(store, study)}"
    from search.engine import run_study

    return run_study(store, study.id, where, screen.show, stop)


def _work_on_rounds(store: Store, study: Callable[[], StudyRecord], where: Places, as_json: bool) -> int:
    """Works on all rounds of a study, of which `study` gives one, once signals are heeded; prints their result."""
    from search.insight.reporting import make_report
    from search.insight.rounds import Rounds, rounds_document

    with heeding_signals() as (screen, stop):
        one = study()
        stop.last_words = f"ended at once; {resume_hint(store, one)}"

        def report(finished: StudyRecord) -> Report:
            return make_report(store, finished, where, thorough=False, on_progress=screen.show, stop=stop)

        ended = Rounds(store, one, where, screen.show, stop, report).work()
    status = show_end(store, ended.study, where, as_json, rounds_document(store, str(one.tree)))
    if status == 0 and not ended.complete:
        tell(resume_hint(store, ended.study))
        return INTERRUPTED
    return status
