"""Ray itself, for the worker pool: connected to or started, looked after, and ended. Imported by `search.pool` alone,
which says first what Ray reads when it is imported."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from typing import Any

import ray
import ray._private.utils
import ray.exceptions
from tenacity import retry, retry_if_not_exception_type, stop_after_attempt

from neurosweep.errors import InterruptedStudyError, UnreachableError
from search.placement import Node

OBJECT_STORE_BYTES = 512 * 1024**2
"""Least size of our own Ray's object store; it holds the datasets and nothing else."""

CONNECT_SECONDS = 5.0

STARTS = 2
"""Ray gives itself 30 s to start, which a machine that is busy with other things may overrun."""


class RaySession:
    """
    Args:
        address: A cluster's; None for a Ray of our own, which ends with the thread that connects.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._vital: list[str] = []

    @property
    def own(self) -> bool:
        """Whether this is a Ray of our own."""
        return self._address is None

    def connect(self) -> None:
        """
        Raises:
            UnreachableError: There is no such cluster, or it wants another token.
        """
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what fails is told by us
        address = self._address
        if address is not None:
            _check_listens(address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        with warnings.catch_warnings(), _own_signal_handlers():
            warnings.simplefilter("ignore")
            try:
                if address is None:
                    _start(quiet)
                else:
                    ray.init(address=address, **quiet)
            except InterruptedStudyError:
                raise
            except Exception as exc:  # Ray raises all kinds, bare ones among them
                if address is None:
                    raise UnreachableError(f"Ray could not be started on this machine: {first_line(exc)}") from exc
                raise UnreachableError(
                    f"No Ray cluster answers at {address}, or it wants another token (RAY_AUTH_TOKEN): "
                    f"{first_line(exc)}",
                    "--ray",
                ) from exc
        self._vital = _vital_addresses()

    def nodes(self) -> list[Node]:
        """The machines that Ray has at this moment."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [Node(cpus=has.get("CPU", 0.0), gpus=has.get("GPU", 0.0)) for has in alive]

    def lives(self) -> bool:
        """Whether Ray's head listens, and so does this machine's part of it."""
        for address in self._vital:
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Leaves the cluster, or ends our own Ray."""
        ray.shutdown()


@retry(stop=stop_after_attempt(STARTS), retry=retry_if_not_exception_type(InterruptedStudyError), reraise=True)
def _start(quiet: dict[str, Any]) -> None:
    ray.shutdown()  # what is left of an attempt before
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        **quiet,
    )


def _vital_addresses() -> list[str]:
    """Of Ray's head and of this machine's part of it: where one of them is gone, Ray soon ends this process."""
    try:
        context = ray.get_runtime_context()
        here = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
        return [context.gcs_address, *(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}" for node in here)]
    except AttributeError:  # a client of a cluster has neither
        return []


def _check_listens(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # `auto`, or something that Ray knows better
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as exc:
        raise UnreachableError(f"No Ray cluster answers at {address}: {first_line(exc)}", "--ray") from exc


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Ray takes SIGTERM for itself while it starts, and would end this process with it; that is ours to answer.

    Its `init` has no option for this: the function with which it does so is put aside.
    """
    theirs = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    # A terminal that is closed tells its whole group. Ray's processes would end at once, and this one with them before
    # it can answer; what is blocked stays so in all that they start. Here it is only put off.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ray._private.utils.set_sigterm_handler = theirs


def first_line(exc: BaseException) -> str:
    """The telling line of an error: Ray puts the remote traceback first and the cause last."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if not lines:
        return type(exc).__name__
    return lines[-1] if isinstance(exc, ray.exceptions.RayTaskError) else lines[0]
