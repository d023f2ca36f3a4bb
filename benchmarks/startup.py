"""How long the small commands take, as whole processes.

python -m benchmarks.startup [--repeat 9] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.report import save, spread, table, timed

COMMANDS = (["--help"], ["version"], ["list"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one repetition")
    chosen = parser.parse_args()
    repeat = 1 if chosen.quick else chosen.repeat
    program = [sys.executable, "-m", "neurosweep"]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # The first call compiles the modules and makes the database.
        timed([*program, "list"], Path(folder))
        for command in COMMANDS:
            runs = [timed([*program, *command], Path(folder))[0] for _ in range(repeat)]
            seconds["neurosweep " + " ".join(command)] = runs
    print(table(("command", "seconds"), [(name, spread(runs)) for name, runs in seconds.items()]))
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    print(f"\n{save('startup' + ('_quick' if chosen.quick else ''), {'seconds': seconds, 'medians': medians})}")


if __name__ == "__main__":
    main()
