"""The digits MLP study with Optuna in memory and a training loop: what a practitioner runs before looking for a tool.

Order: `trials`, `epochs`, `seed`. Several of these side by side know nothing of each other.
"""

from __future__ import annotations

import time

import optuna
import torch
from optuna.samplers import RandomSampler, TPESampler

from benchmarks.peers.order import answer, await_start, take_order
from benchmarks.peers.plain import digits, train, warm_up
from benchmarks.peers.spaces import suggest


def main() -> None:
    order = take_order()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    data = digits()

    def objective(trial: optuna.Trial) -> float:
        fixed = suggest(trial)
        return min(train({**trial.params, **fixed}, data, order["epochs"]))

    asked = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    warm_up({**suggest(asked), **asked.params}, data)
    study = optuna.create_study(sampler=TPESampler(seed=order["seed"]))
    await_start()
    began = time.time()
    study.optimize(objective, n_trials=order["trials"])
    answer({"began": began, "ended": time.time(), "trials": len(study.trials), "best": study.best_value})


if __name__ == "__main__":
    main()
