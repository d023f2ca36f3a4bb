"""MLPs with Syne Tune's ASHA until a deadline, as its documentation shows it; its spaces can't be conditional.

Told in its argument: `data`, a file of splits, `epochs`, `seed` and `deadline`, in seconds of `time.time`. Each trial
is a process of its own, `syne_trial.py`. Syne Tune looks at them every 0.2 s here, not every 5 s as by default.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.peers.order import answer
from benchmarks.peers.spaces import ACTIVATIONS, MOST_LAYERS


def main() -> None:
    order = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SYNETUNE_FOLDER"] = folder  # read when it is imported
        from syne_tune import StoppingCriterion, Tuner
        from syne_tune.backend import LocalBackend
        from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform
        from syne_tune.experiments import load_experiment
        from syne_tune.optimizer.baselines import ASHA

        space = {
            "layers": randint(1, MOST_LAYERS),
            **{f"neurons_{index}": lograndint(16, 256) for index in range(1, MOST_LAYERS + 1)},
            "activation": choice(ACTIVATIONS),
            "learning_rate": loguniform(1e-4, 0.3),
            "optimizer": choice(["adam", "adamw", "sgd"]),
            "weight_decay": loguniform(1e-6, 1e-2),
            "dropout": uniform(0.0, 0.5),
            "batch_norm": choice([0, 1]),
            "batch_size": choice([32, 64, 128]),
            "schedule": choice(["constant", "cosine"]),
            "epochs": order["epochs"],
            "data": order["data"],
        }
        scheduler = ASHA(
            space,
            metric="error",
            time_attr="epoch",
            max_t=order["epochs"],
            random_seed=order["seed"],
            grace_period=1,
            reduction_factor=3,
        )
        tuner = Tuner(
            trial_backend=LocalBackend(entry_point=str(Path(__file__).with_name("syne_trial.py"))),
            scheduler=scheduler,
            stop_criterion=StoppingCriterion(max_wallclock_time=max(1.0, order["deadline"] - time.time())),
            n_workers=2,
            sleep_time=0.2,
        )
        tuner.run()
        results = load_experiment(tuner.name).results
    print()
    answer({"trials": int(results["trial_id"].nunique()), "curve": results[["at", "error"]].to_numpy().tolist()})


if __name__ == "__main__":
    main()
