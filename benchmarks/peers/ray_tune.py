"""The digits MLP study with Ray Tune and OptunaSearch, as their documentation shows it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

MOST_LAYERS = 4


def space(trial: Any) -> dict[str, Any]:
    """The default search space, define-by-run."""
    for index in range(1, trial.suggest_int("layers", 1, MOST_LAYERS) + 1):
        trial.suggest_int(f"neurons_{index}", 16, 256, log=True)
    trial.suggest_categorical("activation", ["relu", "tanh", "gelu", "silu", "leaky_relu", "elu", "sigmoid"])
    trial.suggest_float("learning_rate", 1e-4, 0.3, log=True)
    trial.suggest_categorical("optimizer", ["adam", "adamw", "sgd"])
    trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    trial.suggest_float("dropout", 0.0, 0.5)
    trial.suggest_categorical("batch_norm", [True, False])
    trial.suggest_categorical("batch_size", [32, 64, 128])
    trial.suggest_categorical("schedule", ["constant", "cosine"])
    return {"momentum": 0.9}


def main() -> None:
    trials, epochs, workers = (int(word) for word in sys.argv[1:4])

    def objective(params: dict[str, Any]) -> None:
        import torch

        from benchmarks.peers.plain import digits, train

        torch.set_num_threads(1)
        for error in train(params, digits(), epochs):
            tune.report({"error": error})

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(objective, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(space, metric="error", mode="min", seed=0),
                num_samples=trials,
                max_concurrent_trials=workers,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        started = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - started
    best = min(result.metrics_dataframe["error"].min() for result in results)
    json.dump({"seconds": seconds, "trials": len(results), "best": float(best)}, sys.stdout)


if __name__ == "__main__":
    main()
