"""Where the time of one trial goes inside a worker, and that of a whole run, in tables that add up.

    python -m benchmarks.where_time_goes [--trials 64] [--epochs 20] [--repeat 3] [--quick]

The first part trains random networks of the default space on digits in this process, one thread, with a clock around
each kind of call: the clocks themselves take some percent of the time. Learning rates are moderate, so that no network
diverges and ends early. The second part runs the same study with two workers as a whole process, and notes when it says
that the next stage begins.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import product
from benchmarks.report import save, table
from search.space import Space
from search.study_file import data_request, parse_study
from trainer import member, optimizers, pack, stack
from trainer.cost import training_flops
from trainer.data.dataset import Dataset
from trainer.data.load import load
from trainer.settings import Settings
from trainer.work import Metric, TrialWork

STUDY = """\
name: digits
data: {{source: digits}}
space: {{learning_rate: {{low: 0.0001, high: 0.01, log: true}}}}
search: {{sampler: random, pruner: none}}
budget: {{trials: {trials}, epochs: {epochs}}}
workers: {{count: 2}}
"""


class Clocks:
    """Adds up the time inside each labelled call, less that of labelled calls within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = [0.0]

    def around(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*values: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*values, **named)
            finally:
                taken = time.perf_counter() - started
                self.seconds[label] += taken - self._inner.pop()
                self._inner[-1] += taken

        return timed

    def run(self, calls: list[Any]) -> None:
        """A stack's calls, each under its kind."""
        for call in calls:
            label = vars(call).get("label") or vars(call).setdefault("label", _kind(call))
            started = time.perf_counter()
            call()
            taken = time.perf_counter() - started
            self.seconds[label] += taken
            self._inner[-1] += taken


def _kind(call: Any) -> str:
    function = getattr(call, "func", None)
    if function is None or getattr(function, "__name__", "") == "mm":
        return "matrix products"  # those that are no `torch.mm` are functions of their own
    name = str(function)
    if "batch_norm" in name:
        return "batch norm"
    if "index_fill" in name:
        return "rows of ones"
    return "dropout: applying" if getattr(function, "__name__", "") in ("mul", "mul_") else "activations"


def _patched(clocks: Clocks) -> list[tuple[Any, str, Any]]:
    """What to put where, so that every part of a trial is under a clock."""
    inside = [
        (pack.Pack, "_draw_masks", "dropout: drawing"),
        (pack.Pack, "_train", "loop over batches, copies"),
        (pack._Batch, "__init__", "laying out a pack"),
        (pack._Batch, "fill", "taking a batch"),
        (pack._Batch, "learn", "loss gradient, loop over calls"),
        (pack, "figures", "loss and metric of an epoch"),
        (optimizers.Optimizer, "step", "optimizer"),
        (member.Member, "__init__", "initial weights"),
        (member.Member, "note", "keeping the best network"),
    ]
    patches = [(owner, name, clocks.around(label, getattr(owner, name))) for owner, name, label in inside]
    for name in ("forward", "backward"):
        patches.append((stack.DenseStack, name, lambda self, calls=f"_{name}": clocks.run(getattr(self, calls))))
    return patches


def of_a_trial(trials: int, epochs: int) -> tuple[dict[str, float], float]:
    """Milliseconds a trial by part, and the mean GFLOP of a trial."""
    import optuna

    spec = parse_study(STUDY.format(trials=trials, epochs=epochs))
    data = load(data_request(spec))
    space = Space(spec, data.input_shape)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    settings = [space.suggest(study.ask()).settings for _ in range(trials)]
    works = [
        TrialWork(trial=number, settings=each, seed=number, metric=Metric.ERROR, epochs=epochs, until=epochs)
        for number, each in enumerate(settings)
    ]
    trainer = product.trainer_for(data)
    trainer.train(works[:4], lambda: False, lambda trial, epoch: None)
    clocks = Clocks()
    patches = _patched(clocks)
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, timed in patches:
        setattr(owner, name, timed)
    try:
        started = time.perf_counter()
        trainer.train(works, lambda: False, lambda trial, epoch: None)
        whole = time.perf_counter() - started
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
    parts = {**clocks.seconds, "everything else": whole - sum(clocks.seconds.values())}
    flops = statistics.mean(_flops(each, data, epochs) for each in settings)
    return {name: 1000 * seconds / trials for name, seconds in parts.items()}, flops / 1e9


def _flops(settings: Settings, data: Dataset, epochs: int) -> float:
    """A trial's products: the train split forth and back, less the first layer's way back to the inputs, and the
    validation split forth."""
    whole = training_flops(settings, data.input_shape, data.outputs)
    first = 2 * math.prod(data.input_shape) * (settings.neurons[0] if settings.neurons else data.outputs)
    return epochs * (len(data.train) * (whole - first) + len(data.validation) * whole / 3)


def matmul_rate() -> float:
    """GFLOP/s of one thread on a product that fits its cache."""
    import torch

    torch.set_num_threads(1)
    a = torch.randn(512, 512)
    out = torch.empty_like(a)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        times.append(time.perf_counter() - started)
    return 2 * 512**3 / min(times) / 1e9


def of_a_run(trials: int, epochs: int) -> dict[str, float]:
    """Seconds of each stage of `neurosweep run`, from the shell to its end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "study.yaml").write_text(STUDY.format(trials=trials, epochs=epochs))
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "neurosweep", "run", "study.yaml", "--json"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        stages: dict[str, float] = {}
        stage, since = "imports", started
        for line in process.stderr or ():
            _, _, said = line.partition(": ")
            said = said.partition(",")[0].strip()
            if said and said != stage:
                now = time.perf_counter()
                stages[stage] = stages.get(stage, 0.0) + now - since
                stage, since = said, now
        if process.wait():
            raise SystemExit("neurosweep run failed")
        stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - since
        return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition of 4 trials of 2 epochs")
    chosen = parser.parse_args()
    trials, epochs, repeat = (4, 2, 1) if chosen.quick else (chosen.trials, chosen.epochs, chosen.repeat)

    passes = [of_a_trial(trials, epochs) for _ in range(repeat)]
    gflop = passes[0][1]
    # The pass of median length: medians of each part would not add up.
    parts = sorted((each for each, _ in passes), key=lambda each: sum(each.values()))[repeat // 2]
    rows = sorted(parts.items(), key=lambda item: -item[1])
    whole = sum(parts.values())
    shares = [(name, ms, f"{ms / whole:.0%}") for name, ms in rows]
    print(table(("part of a trial", "ms", "share"), [*shares, ("all of it", whole, "100%")]))
    rate = matmul_rate()
    at_best = f"at {rate:.0f} GFLOP/s, the rate of one large product, {1000 * gflop / rate:.1f} ms"
    print(f"\n{gflop:.2f} GFLOP a trial; {at_best}")
    runs = [of_a_run(trials, epochs) for _ in range(repeat)]
    run = sorted(runs, key=lambda each: sum(each.values()))[repeat // 2]
    print()
    print(table(("stage of a run", "seconds"), [*run.items(), ("all of it", sum(run.values()))]))
    figures = {
        "trials": trials,
        "epochs": epochs,
        "milliseconds": parts,
        "gflop": gflop,
        "gflop_per_second": rate,
        "runs": runs,
        "load": os.getloadavg()[0],
    }
    print(f"\n{save('where_time_goes' + ('_quick' if chosen.quick else ''), figures)}")


if __name__ == "__main__":
    main()
