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

from benchmarks.peers.spaces import suggest


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
                search_alg=OptunaSearch(suggest, metric="error", mode="min", seed=0),
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
