"""How good the sampler is, and how long it takes, beside Optuna's.

    python -m benchmarks.sampler [--seeds 40] [--quick]

Quality: the best of 100 values of functions over conditional spaces, asked for one by one and eight at a time, with the
same seeds for each sampler. Time: ask and tell of one trial with 14 settings after 100, 1,000 and 10,000 finished ones,
in memory, and recorded on a PostgreSQL of its own. `rustuna` takes part where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler, TPESampler
from scipy import stats

from benchmarks.databases import postgres
from benchmarks.report import save, spread, table
from search.space import Asked, Space
from search.spec import StudySpec
from search.study import Proposals
from search.tpe import TreeParzen
from storage.facts import trial_ended
from storage.records import Batch, EndedTrial, EpochRow, Fact, NewStudy, ProposedTrial, TrialState

if TYPE_CHECKING:
    from storage.records import Claim
    from storage.store import Store

OURS, UNIVARIATE, DEFAULT, RUSTUNA = "neurosweep", "Optuna, univariate", "Optuna, default", "rustuna"

IMAGES = (1, 8, 8)
EPOCHS = 20


def spec(**keys: Any) -> StudySpec:
    """A study on small images."""
    search = {"sampler": "tpe", "pruner": "none"}
    return StudySpec.from_mapping({"name": "s", "data": {"source": "digits"}, "search": search, **keys})


# The problems: smaller is better, and nought or near it is the best there is.


def layers(trial: Asked) -> float:
    """A depth, and for each layer a width of its own; three layers that narrow are best."""
    depth = trial.suggest_int("layers", 1, 5)
    widths = [math.log2(trial.suggest_int(f"neurons_{k}", 8, 512, log=True)) for k in range(depth)]
    missed = [abs(width - best) for width, best in zip(widths, (8, 7, 5, 5, 5), strict=False)]
    return 0.5 * abs(depth - 3) + sum(missed) / depth


def optimizers(trial: Asked) -> float:
    """Each optimizer has a best learning rate of its own; SGD's depends on its momentum."""
    kind = trial.suggest_categorical("optimizer", ["adam", "adamw", "sgd"])
    rate = math.log10(trial.suggest_float("learning_rate", 1e-5, 1.0, log=True))
    decay = math.log10(trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True))
    batch = trial.suggest_categorical("batch_size", [32, 64, 128, 256])
    if kind == "sgd":
        momentum = trial.suggest_float("momentum", 0.0, 0.99)
        return abs(rate + 2 - math.log10(1 - momentum) / -2) + 3 * (momentum - 0.9) ** 2 + 0.1 * abs(decay + 4)
    best, worse = (-3.0, 0.1) if kind == "adam" else (-2.5, 0.05)
    return worse + abs(rate - best) + 0.1 * abs(decay + (5 if kind == "adam" else 2)) + 0.05 * math.log2(batch / 32)


def families(trial: Asked) -> float:
    """Two families that share few settings; the better one has more of them."""
    rate = math.log10(trial.suggest_float("learning_rate", 1e-4, 0.3, log=True))
    if trial.suggest_categorical("family", ["mlp", "cnn"]) == "mlp":
        width = trial.suggest_int("neurons", 16, 256, step=16)
        return 0.6 + abs(rate + 2.5) + abs(width - 128) / 256
    value = abs(rate + 2)
    for layer in range(trial.suggest_int("conv_layers", 1, 3)):
        filters = trial.suggest_int(f"filters_{layer}", 4, 64, log=True)
        size = trial.suggest_categorical(f"filter_size_{layer}", [3, 5, 7])
        pool = trial.suggest_categorical(f"pool_{layer}", ["none", "max", "avg"])
        gain = 0.5 * 2 ** -abs(math.log2(filters / (8 * 2**layer))) * (1.0, 0.8, 0.6)[(size - 3) // 2]
        value += 0.5 - gain * (1.0 if pool == "max" else 0.8)
    return value


HARTMANN_A = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8]])
HARTMANN_A = np.vstack([HARTMANN_A, [17, 8, 0.05, 10, 0.1, 14]])
HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
HARTMANN_C = np.array([1.0, 1.2, 3.0, 3.2])


def hartmann(trial: Asked) -> float:
    """Hartmann's function of six numbers in one branch, of three with the others at their middles in the other."""
    whole = trial.suggest_categorical("whole", [True, False])
    x = [trial.suggest_float(f"x_{k}" if whole else f"y_{k}", 0, 1) for k in range(6 if whole else 3)]
    point = np.array([*x, *([0.5] * (6 - len(x)))])
    return 3.32237 - float(HARTMANN_C @ np.exp(-(HARTMANN_A * (point - HARTMANN_P) ** 2).sum(axis=1)))


def branin(trial: Asked) -> float:
    """Branin's function, turned or stretched by branches that have parameters of their own."""
    branch = trial.suggest_categorical("branch", ["plain", "shifted", "stepped"])
    x, y = trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15)
    extra = 0.0
    if branch == "shifted":
        shift = trial.suggest_float("shift", -3, 3)
        x, extra = x + shift, 2 * abs(shift - 1)
    elif branch == "stepped":
        x, extra = float(trial.suggest_int("step", -5, 10)), 1.0
    a = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return a**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.397887 + extra


def rosenbrock(trial: Asked) -> float:
    """Rosenbrock's valley, of two to four numbers, on steps or not."""
    count = trial.suggest_int("count", 2, 4)
    if trial.suggest_categorical("stepped", [True, False]):
        x = [trial.suggest_float(f"step_{k}", -2, 2, step=0.25) for k in range(count)]
    else:
        x = [trial.suggest_float(f"x_{k}", -2, 2) for k in range(count)]
    valley = sum(10 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x))
    return math.log1p(valley) + 0.2 * (4 - count)


NETWORKS = Space(spec(model=["mlp", "cnn"]), IMAGES)


def networks(trial: Asked) -> float:
    """The product's own default space, MLPs and CNNs, and a made-up error."""
    s = NETWORKS.suggest(trial).settings
    rate = abs(math.log10(s.learning_rate) + (1.5 if s.optimizer == "sgd" else 2.5))
    size = sum(abs(math.log2(width) - 6) for width in s.neurons) / len(s.neurons)
    value = 0.4 * rate + 0.1 * size + 0.05 * abs(len(s.neurons) - 2) + 0.3 * abs(s.dropout - 0.2)
    value += 0.1 * (s.activation != "relu") + 0.05 * (s.schedule == "constant") + 0.03 * (not s.batch_norm)
    value += 0.02 * math.log2(s.batch_size / 32)
    if s.family == "cnn":
        kept = sum(0.1 * 2 ** -abs(math.log2(layer.filters / 16)) for layer in s.convolutions[:2])
        return value + 0.02 * len(s.convolutions) - kept + 0.25
    return value + 0.2


PROBLEMS = (layers, optimizers, families, hartmann, branin, rosenbrock, networks)

# Quality


def best_of(problem: Callable[[Any], float], sampler: str, seed: int, trials: int, batch: int) -> float:
    """The smallest value of so many trials, asked for `batch` at a time."""
    study = made_study(sampler, seed)
    values: list[float] = []
    while len(values) < trials:
        asked = [study.ask() for _ in range(min(batch, trials - len(values)))]
        told = [problem(trial) for trial in asked]
        for trial, value in zip(asked, told, strict=True):
            study.tell(trial.number, value)
        values += told
    return min(values)


def made_study(sampler: str, seed: int) -> Any:
    """An empty study in memory, as each library makes it."""
    if sampler == RUSTUNA:
        import rustuna

        return rustuna.create_study(sampler=rustuna.samplers.TPESampler(seed=seed))
    if sampler == OURS:
        return optuna.create_study(sampler=TreeParzen(lambda number: 1_000_000 * seed + number))
    return optuna.create_study(sampler=TPESampler(seed=seed, multivariate=False if sampler == UNIVARIATE else None))


def quality(samplers: Sequence[str], seeds: int, trials: int, batch: int) -> dict[str, Any]:
    """The best values of every sampler on every problem.

    Returns:
        Of each problem, and of all: each sampler's values or, of all, nothing; and of each peer, the p-value of
        Wilcoxon's test, paired by seed, against 'ours are not larger'. Over all problems, differences are divided by
        the problem's interquartile range.
    """
    figures: dict[str, Any] = {}
    scaled: dict[str, list[float]] = {peer: [] for peer in samplers if peer != OURS}
    for problem in PROBLEMS:
        best = {s: [best_of(problem, s, seed, trials, batch) for seed in range(seeds)] for s in samplers}
        low, high = np.percentile([value for values in best.values() for value in values], [25, 75])
        worse = {}
        for peer, differences in scaled.items():
            apart = np.array(best[OURS]) - np.array(best[peer])
            worse[peer] = p_worse(apart)
            differences += list(apart / max(high - low, 1e-12))
        figures[problem.__name__] = {"best": best, "p_worse": worse}
        print(f"{problem.__name__}, {batch} at a time: done", file=sys.stderr)
    figures["all"] = {"p_worse": {peer: p_worse(np.array(differences)) for peer, differences in scaled.items()}}
    return figures


def p_worse(differences: Any) -> float:
    """The chance of such differences, or larger ones, where ours are no larger than the peer's."""
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, alternative="greater").pvalue)


def quality_table(figures: dict[str, Any], samplers: Sequence[str]) -> str:
    """Medians, and the p-values against each peer."""
    peers = [sampler for sampler in samplers if sampler != OURS]
    rows = []
    for name, found in figures.items():
        medians = [statistics.median(found["best"][s]) if "best" in found else "" for s in samplers]
        rows.append([name, *medians, *(f"{found['p_worse'][peer]:.2f}" for peer in peers)])
    return table(["problem", *samplers, *(f"p, worse than {peer}" for peer in peers)], rows)


# Time in memory


def fourteen() -> StudySpec:
    """A study whose trials have 14 settings, and with SGD a 15th."""
    return spec(model="cnn", space={"layers": 1, "conv_layers": 1}, budget={"epochs": EPOCHS})


def made_up(params: dict[str, Any]) -> float:
    """A metric that a sampler can learn from."""
    rate = abs(math.log10(float(params["learning_rate"])) + 2)
    return rate + float(params["activation"] != "relu") + float(params["dropout"])


def filled(count: int) -> optuna.Study:
    """A study in memory with so many finished trials of random settings."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    space = Space(fourteen(), IMAGES)
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, made_up(space.suggest(trial).params))
    return study


def time_ours(proposals: Proposals, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds of ask and tell, one by one, and a trial in packs of 64."""
    alone, packed = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        trial = proposals.ask()
        assert trial is not None
        proposals.tell(trial.number, TrialState.COMPLETE, made_up(trial.params))
        alone.append(1000 * (time.perf_counter() - started))
    for _ in range(max(3, repeats // 16)):
        started = time.perf_counter()
        for trial in proposals.ask_batch(64):
            proposals.tell(trial.number, TrialState.COMPLETE, made_up(trial.params))
        packed.append(1000 * (time.perf_counter() - started) / 64)
    return alone, packed


def time_peer(study: Any, repeats: int) -> list[float]:
    """Milliseconds of ask and tell, one by one."""
    space, times = Space(fourteen(), IMAGES), []
    for _ in range(repeats):
        started = time.perf_counter()
        trial = study.ask()
        study.tell(trial.number, made_up(space.suggest(trial).params))
        times.append(1000 * (time.perf_counter() - started))
    return times


def times_in_memory(counts: Sequence[int], peers: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Of each number of finished trials, every sampler's milliseconds."""
    figures: dict[str, dict[str, list[float]]] = {}
    for count in counts:
        trials = filled(count).trials
        alone, packed = time_ours(Proposals(fourteen(), IMAGES, "s", trials), 64)
        found = {OURS: alone, f"{OURS}, packs of 64": packed}
        for peer in peers:
            study = made_study(peer, 0)
            if peer == RUSTUNA:
                time_peer(study, count)  # it has no bulk way in
            else:
                study.add_trials(trials)
            found[peer] = time_peer(study, 3 if count > 1000 else 10)
        figures[str(count)] = found
        print(f"after {count} trials: done", file=sys.stderr)
    return figures


# Time on PostgreSQL


def epoch_rows(number: int, value: float) -> tuple[EpochRow, ...]:
    now = datetime.now(UTC)
    figures: dict[str, Any] = {"train_loss": 0.5, "train_metric": 0.5, "validation_loss": 0.5, "seconds": 0.1}
    return tuple(
        EpochRow(trial=number, epoch=e, validation_metric=value + 1 / e, at=now, **figures)
        for e in range(1, EPOCHS + 1)
    )


def ended(number: int, value: float, attrs: dict[str, Any]) -> EndedTrial:
    return EndedTrial(
        number=number,
        state=TrialState.COMPLETE,
        value=value,
        train=0.5,
        validation=value,
        epochs=EPOCHS,
        best_epoch=EPOCHS,
        seconds=2.0,
        weights=1000,
        worker="worker-0",
        attrs=attrs,
        ended_at=datetime.now(UTC),
    )


def work(store: Store, claim: Claim, proposals: Proposals, count: int) -> None:
    """Asks for so many trials at once, records them, and tells and records their ends, epochs and all."""
    trials: list[ProposedTrial] = proposals.ask_batch(count)
    assigned = {trial.number: "worker-0" for trial in trials}
    store.record(claim, Batch(proposed=tuple(trials), assigned=assigned))
    ends: list[EndedTrial] = []
    epochs: list[EpochRow] = []
    facts: list[Fact] = []
    for trial in trials:
        value = made_up(trial.params)
        ends.append(ended(trial.number, value, proposals.tell(trial.number, TrialState.COMPLETE, value)))
        epochs += epoch_rows(trial.number, value)
        facts.append(trial_ended(claim.study, trial.number))
    store.record(claim, Batch(epochs=tuple(epochs), ended=tuple(ends), facts=tuple(facts)))


def times_recorded(url: str, finished: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds a trial of ask and tell, recorded, with so many finished trials in the database."""
    from storage.store import Store

    store = Store.open(url)
    study = store.submit(NewStudy(name="s", spec=fourteen().to_mapping(), text="", trials=finished))
    claim = store.claim("benchmark", lease_seconds=3600.0, study_id=study.id)
    assert claim is not None
    proposals = Proposals(fourteen(), IMAGES, "s")
    for _ in range(0, finished, 250):
        work(store, claim, proposals, min(250, finished))
    figures: dict[str, list[float]] = {}
    for size in (1, 8, 64):
        times = figures[f"{OURS}, {size} at a time"] = []
        for _ in range(4 * repeats if size == 1 else repeats):
            started = time.perf_counter()
            work(store, claim, proposals, size)
            times.append(1000 * (time.perf_counter() - started) / size)
    print("recorded by neurosweep: done", file=sys.stderr)
    address = url.replace("postgresql://", "postgresql+psycopg://")
    theirs = optuna.load_study(study_name="s", storage=address, sampler=TPESampler(seed=0, multivariate=False))
    time_peer(theirs, 1)  # its storage reads all trials once
    figures["Optuna, RDBStorage, without epochs"] = time_peer(theirs, repeats)
    store.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="few trials, no PostgreSQL")
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    peers = [UNIVARIATE, DEFAULT, *([RUSTUNA] if importlib.util.find_spec("rustuna") else [])]
    samplers = [OURS, *peers]
    seeds, trials = (2, 14) if chosen.quick else (chosen.seeds, 100)
    figures: dict[str, Any] = {"seeds": seeds, "trials": trials}
    tables = []
    for batch in (1, 8):
        found = figures[f"quality, {batch} at a time"] = quality(samplers, seeds, trials, batch)
        tables.append(quality_table(found, samplers))
    times = figures["milliseconds in memory"] = times_in_memory((30,) if chosen.quick else (100, 1000, 10_000), peers)
    names = list(next(iter(times.values())))
    tables.append(
        table(
            ["finished trials", *names], [[n, *(spread(found[name]) for name in names)] for n, found in times.items()]
        )
    )
    if not chosen.quick:
        with postgres() as url:
            recorded = figures["milliseconds recorded"] = times_recorded(url, 10_000, 5)
        head = ["recorded on PostgreSQL, 10,000 finished trials", "ms a trial"]
        tables.append(table(head, [[name, spread(found)] for name, found in recorded.items()]))
    print("\n\n".join(tables))
    print(f"\n{save('sampler' + ('_quick' if chosen.quick else ''), figures)}")


if __name__ == "__main__":
    main()
