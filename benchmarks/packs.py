"""Packs against plain PyTorch: many small networks on one device, trained together or one at a time.

    python -m benchmarks.packs [--device cpu] [--mlps 256] [--cnns 64] [--epochs 3] [--repeat 3] [--quick]

Needs PyTorch, NumPy and this repository alone, and makes its own data: 2,048 rows of 64 features and 1,024 images of
28x28, in 10 classes. The MLPs have one to three layers of 16 to 256 neurons, the CNNs one or two convolutions of 8 to
32 filters and a dense layer. The networks of equal shape are for `torch.func`, which stacks no others. Every way
trains the same networks by Adam in batches of 64; only neurosweep's also evaluates them after every epoch, on a quarter
as many rows. One thread on a CPU. Repetitions take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.peers import many_networks
from benchmarks.report import save, spread, table
from trainer.data.dataset import Preprocessing, Split, Task
from trainer.settings import Activation, ConvLayer, Family, OptimizerKind, Pool, Schedule, Settings
from trainer.work import Metric, Outcome, TrialWork
from trainer.worker import Trainer

CLASSES, BATCH = 10, 64
RATES = 1e-4, 1e-2


def mlp(rng: np.random.Generator) -> Settings:
    widths = np.exp(rng.uniform(np.log(16), np.log(256), rng.integers(1, 4))).round()
    return settings_of(Family.MLP, tuple(int(width) for width in widths), (), rng)


def cnn(rng: np.random.Generator) -> Settings:
    layers = tuple(
        ConvLayer(filters=int(rng.integers(8, 33)), filter_size=3, stride=1, pool=Pool(rng.choice(["max", "avg"])))
        for _ in range(rng.integers(1, 3))
    )
    return settings_of(Family.CNN, (int(rng.integers(16, 65)),), layers, rng)


def settings_of(
    family: Family, neurons: tuple[int, ...], layers: tuple[ConvLayer, ...], rng: np.random.Generator
) -> Settings:
    return Settings(
        family=family,
        neurons=neurons,
        convolutions=layers,
        activation=Activation(rng.choice(list(Activation))),
        learning_rate=float(np.exp(rng.uniform(*np.log(RATES)))),
        optimizer=OptimizerKind.ADAM,
        momentum=0.0,
        weight_decay=0.0,
        dropout=0.0,
        batch_norm=bool(rng.integers(2)),
        batch_size=BATCH,
        schedule=Schedule.CONSTANT,
    )


def equal(family: Family, count: int) -> list[Settings]:
    rng = np.random.default_rng(0)
    layers = (ConvLayer(filters=16, filter_size=3, stride=1, pool=Pool.MAX),) if family is Family.CNN else ()
    one = settings_of(family, (64, 64) if family is Family.MLP else (32,), layers, rng).to_json()
    return [Settings.from_json({**one, "activation": "relu", "batch_norm": False})] * count


def rows(shape: tuple[int, ...], count: int, seed: int) -> Split:
    """Overlapping clouds of points, one a class."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % CLASSES
    centres = np.random.default_rng(99).normal(scale=0.2, size=(CLASSES, *shape))
    inputs = (centres[targets] + rng.normal(size=(count, *shape))).astype(np.float32)
    return Split(inputs=inputs, targets=targets, rows=np.arange(count))


def in_packs(chosen: Sequence[Settings], train: Split, validation: Split, epochs: int, device: str) -> list[float]:
    preprocessing = Preprocessing(kind="table", task="classification", classes=tuple(range(CLASSES)))
    trainer = Trainer(
        train, validation, preprocessing, Task.CLASSIFICATION, train.inputs.shape[1:], CLASSES, device=device
    )
    works = [
        TrialWork(trial=number, settings=each, seed=number, metric=Metric.ERROR, epochs=epochs, until=epochs)
        for number, each in enumerate(chosen)
    ]
    results = trainer.train(works, lambda: False, lambda trial, epoch: None)
    assert all(result.outcome is Outcome.FINISHED for result in results)
    return [result.epochs[-1].train_loss for result in results]


def ways(chosen: Sequence[Settings], train: Split, validation: Split, epochs: int, device: str) -> dict[str, Any]:
    """By name: what trains all networks once, and returns their losses."""
    inputs, targets = torch.from_numpy(train.inputs).to(device), torch.from_numpy(train.targets).to(device)

    def plainly(way: Callable[..., list[float]]) -> Callable[[], list[float]]:
        def run() -> list[float]:
            networks = [many_networks.build(each, train.inputs.shape[1:], CLASSES, device) for each in chosen]
            return way(networks, [each.learning_rate for each in chosen], BATCH, inputs, targets, epochs)

        return run

    found: dict[str, Any] = {
        "neurosweep's packs": lambda: in_packs(chosen, train, validation, epochs, device),
        "one at a time": plainly(many_networks.one_at_a_time),
    }
    if len(set(chosen)) == 1 and not chosen[0].batch_norm:
        found["torch.func.vmap"] = plainly(many_networks.stacked)
    if device.startswith("cuda"):
        found["one at a time, CUDA graphs"] = plainly(many_networks.one_at_a_time_from_graphs)
    return found


def measured(runs: dict[str, Any], repeat: int) -> dict[str, Any]:
    """Seconds of each way, repetition by repetition, and the mean loss that it came to."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    losses = {}
    for _ in range(repeat):
        for name, run in runs.items():
            started = time.perf_counter()
            losses[name] = statistics.fmean(run())
            seconds[name].append(time.perf_counter() - started)
    return {name: {"seconds": seconds[name], "loss": losses[name]} for name in runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mlps", type=int, default=256)
    parser.add_argument("--cnns", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition of one epoch of 4 networks of each kind")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.mlps = chosen.cnns = 4
        chosen.epochs = chosen.repeat = 1
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    table_rows = rows((64,), 2048, 1), rows((64,), 512, 2)
    image_rows = rows((1, 28, 28), 1024, 1), rows((1, 28, 28), 256, 2)
    parts = {
        "MLPs of 16 to 256 neurons": ([mlp(rng) for _ in range(chosen.mlps)], table_rows),
        "MLPs of equal shape": (equal(Family.MLP, chosen.mlps), table_rows),
        "CNNs on 28x28": ([cnn(rng) for _ in range(chosen.cnns)], image_rows),
        "CNNs of equal shape": (equal(Family.CNN, chosen.cnns), image_rows),
    }
    figures: dict[str, Any] = {}
    lines = []
    for part, (networks, splits) in parts.items():
        measured(ways(networks[:1], *splits, 1, chosen.device), 1)  # what is loaded at first use
        figures[part] = measured(ways(networks, *splits, chosen.epochs, chosen.device), chosen.repeat)
        alone = figures[part]["one at a time"]["seconds"]
        for way, found in figures[part].items():
            gain = spread([a / b for a, b in zip(alone, found["seconds"], strict=True)])
            lines.append((f"{len(networks)} {part}", way, spread(found["seconds"]), gain, found["loss"]))
    print(table(("what", "how", "seconds", "times as fast as one at a time", "mean loss"), lines))
    device = torch.cuda.get_device_name(chosen.device) if chosen.device.startswith("cuda") else "cpu"
    name = "packs" + ("_cuda" if device != "cpu" else "") + ("_quick" if chosen.quick else "")
    sizes = {key: value for key, value in vars(chosen).items() if key in ("mlps", "cnns", "epochs", "repeat")}
    print(f"\n{save(name, {'device': device, **sizes, 'parts': figures})}")


if __name__ == "__main__":
    main()
