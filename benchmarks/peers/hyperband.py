"""MLPs with Optuna's HyperbandPruner until a deadline, one of several processes that share a study in a journal file.

Told in its argument: `data`, a file of splits, `epochs`, `seed`, `journal` and `deadline`, in seconds of `time.time`.
"""

from __future__ import annotations

import json
import sys
import time

import optuna
import torch
from optuna.pruners import HyperbandPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.peers.order import answer
from benchmarks.peers.plain import from_file, training
from benchmarks.peers.spaces import suggest


def main() -> None:
    order = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    data = from_file(order["data"])
    curve = []
    trials = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal trials
        trials += 1
        fixed = suggest(trial)
        best = 1.0
        for epoch, error in enumerate(training({**trial.params, **fixed}, data, order["epochs"]), start=1):
            curve.append((time.time(), error))
            best = min(best, error)
            trial.report(error, epoch)
            if trial.should_prune() or time.time() > order["deadline"]:
                raise optuna.TrialPruned
        return best

    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(order["journal"])),
        study_name="peer",
        load_if_exists=True,
        sampler=TPESampler(seed=order["seed"]),
        pruner=HyperbandPruner(min_resource=1, max_resource=order["epochs"], reduction_factor=3),
    )
    study.optimize(objective, timeout=max(0.1, order["deadline"] - time.time()))
    answer({"trials": trials, "curve": curve})


if __name__ == "__main__":
    main()
