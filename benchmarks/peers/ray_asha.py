"""MLPs with Ray Tune, OptunaSearch and ASHA until a deadline, as their documentation shows it.

Told in its argument: `data`, a file of splits, `epochs`, `seed` and `deadline`, in seconds of `time.time`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.order import answer
from benchmarks.peers.spaces import suggest


def main() -> None:
    order = json.loads(sys.argv[1])

    def objective(params: dict[str, Any]) -> None:
        import torch

        from benchmarks.peers.plain import from_file, training

        torch.set_num_threads(1)
        for error in training(params, from_file(order["data"]), order["epochs"]):
            tune.report({"error": error, "at": time.time()})

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(objective, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(suggest, metric="error", mode="min", seed=order["seed"]),
                scheduler=ASHAScheduler(
                    metric="error", mode="min", max_t=order["epochs"], grace_period=1, reduction_factor=3
                ),
                num_samples=-1,
                max_concurrent_trials=2,
                time_budget_s=max(1.0, order["deadline"] - time.time()),
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        frames = [result.metrics_dataframe for result in results]
    known = [frame for frame in frames if frame is not None and "error" in frame]
    print()
    answer(
        {
            "trials": len(frames),
            "curve": [pair for frame in known for pair in frame[["at", "error"]].to_numpy().tolist()],
        }
    )


if __name__ == "__main__":
    main()
