"""The command that opens MLflow's UI."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from neurosweep.errors import BadInputError, UnreachableError
from search.commands.options import Command, json_option, places
from search.commands.output import print_json, say, tell
from search.commands.stopping import end_on_sigterm
from search.commands.studies import open_store
from storage.secrecy import public_address

if TYPE_CHECKING:
    from search.places import Places

_PORTS_TO_TRY = 20
_SECONDS_TO_START = 120
_SECONDS_TO_STOP = 5


@click.command(cls=Command)
@click.argument("study", required=False)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port to listen on; the next free one where the default is taken.",
)
@json_option
def ui(study: str | None, host: str, port: int, as_json: bool) -> None:
    """Show the studies in MLflow's UI, beginning with STUDY.

    Prints the address and serves the UI until Control-C. Where --tracking is an MLflow server already, its address is
    all that is printed.

    \b
    Example:
      neurosweep ui
      neurosweep ui digits --port 8080
    """
    where = places()
    page = _page(study, where) if study else ""
    if where.tracking.startswith(("http://", "https://")):
        _print_address(public_address(where.tracking).rstrip("/") + page, as_json)
        return
    given = click.get_current_context().get_parameter_source("port") is ParameterSource.COMMANDLINE
    port = free_port(host, port, tries=1 if given else _PORTS_TO_TRY)
    where.home.mkdir(parents=True, exist_ok=True)
    log = where.home / "mlflow-ui.log"
    # A server that listens on every address is found on this machine's own.
    reachable = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
    address = f"http://{reachable}:{port}"
    with end_on_sigterm(), _server(host, port, where.tracking, where.home, log) as server:
        _await_health(reachable, port, server, log)
        _print_address(address + page, as_json)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            if server.wait() != 0:
                raise UnreachableError(f"MLflow's server has ended by itself; its log says why: {log}", address)


def _page(label: str, where: Places) -> str:
    """Where the UI shows a study's trials; without its last part MLflow opens pages for language models."""
    store = open_store(where)
    run = store.mlflow_run(store.find(label).id)
    if run is None:
        raise BadInputError(f"MLflow has not been told of {label} yet; `neurosweep ui` shows what it knows.", label)
    return f"/#/experiments/{run.experiment_id}/runs?workflowType=machine_learning"


def _print_address(address: str, as_json: bool) -> None:
    if as_json:
        print_json({"address": address})
    else:
        say(f"MLflow's UI: {address}")


def free_port(host: str, first: int, tries: int) -> int:
    for port in range(first, min(first + tries, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if isinstance(error, socket.gaierror):
                    raise BadInputError(f"{host} is not an address of this machine.", "--host") from error
                continue
        return port
    last = f" to {first + tries - 1} are" if tries > 1 else " is"
    raise BadInputError(f"Port {first}{last} in use or not allowed on {host}; name another with --port.", "--port")


@contextlib.contextmanager
def _server(host: str, port: int, store: str, home: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server over a store, in a session of its own, so that Control-C reaches it through us alone."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,  # not an argument: it may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            cwd=home,  # MLflow may put a folder for artifacts where it is started
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)
            server.wait()


def _await_health(host: str, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    tell("starting MLflow's server")
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        # http.client, not urllib: a proxy set for the outside must not be asked for this machine's address.
        with (
            contextlib.suppress(OSError, HTTPException),
            contextlib.closing(HTTPConnection(host, port, timeout=1)) as http,
        ):
            http.request("GET", "/health")
            if http.getresponse().status == HTTPStatus.OK:
                return
        time.sleep(0.2)
    raise UnreachableError(f"MLflow's server did not start on this store; its log says why: {log}", "--tracking")
