"""A client of MLflow's that tries a call again after a moment, where that is harmless. Without mlflow.

A server that fails now and then, such as one call in three, would else never get through what takes many calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

ONCE = frozenset(
    {
        *("create_experiment", "create_run", "create_registered_model", "create_logged_model", "create_model_version"),
        *("log_outputs", "delete_run", "restore_run", "restore_experiment", "delete_tag"),
    }
)
"""Calls that make another one of something, or are refused, when they have gone through before."""

TRIES = 3
PATIENCE = 45.0
"""Seconds after which nothing is tried again: a server that lets one wait is asked twice."""


class PatientClient:
    """Has the methods of a client; those that are not in `ONCE` are tried again.

    Args:
        refuses: Whether an error says that the same call will fail again.
    """

    def __init__(self, client: Any, refuses: Callable[[Exception], bool]) -> None:
        self._client = client
        self._again = retry(
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and not refuses(error)),
            stop=stop_after_attempt(TRIES) | stop_after_delay(PATIENCE),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            reraise=True,
        )

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        return call if name in ONCE else self._again(call)

    def find_or_make(self, find: Callable[[], Any], make: Callable[[], Any]) -> Any:
        """What is found, or else made; looked for once more where the making failed, as it may have gone through."""
        return self._again(lambda: find() or make())()
