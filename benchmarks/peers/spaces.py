"""The default search space, define-by-run, as the peers' documentation writes one."""

from __future__ import annotations

from typing import Any

MOST_LAYERS = 4
ACTIVATIONS = ["relu", "tanh", "gelu", "silu", "leaky_relu", "elu", "sigmoid"]


def suggest(trial: Any) -> dict[str, Any]:
    """Asks an Optuna trial for every setting of an MLP.

    Returns:
        The fixed settings: what was asked for is in the trial's `params`.
    """
    for index in range(1, trial.suggest_int("layers", 1, MOST_LAYERS) + 1):
        trial.suggest_int(f"neurons_{index}", 16, 256, log=True)
    trial.suggest_categorical("activation", ACTIVATIONS)
    trial.suggest_float("learning_rate", 1e-4, 0.3, log=True)
    trial.suggest_categorical("optimizer", ["adam", "adamw", "sgd"])
    trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    trial.suggest_float("dropout", 0.0, 0.5)
    trial.suggest_categorical("batch_norm", [True, False])
    trial.suggest_categorical("batch_size", [32, 64, 128])
    trial.suggest_categorical("schedule", ["constant", "cosine"])
    return {"momentum": 0.9}
