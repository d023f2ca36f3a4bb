"""The command that opens MLflow's UI, and what else shows studies in a browser."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
_SECONDS_BETWEEN_LOOKS = 0.5


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
@click.option(
    "--dashboard", is_flag=True, help="Serve optuna-dashboard over the same studies as well, on a port of its own."
)
@json_option
def ui(study: str | None, host: str, port: int, dashboard: bool, as_json: bool) -> None:
    """Show the studies in MLflow's UI, beginning with STUDY and its report.

    Prints the addresses and serves until Control-C. Where --tracking is an MLflow server already, its address is all
    that is printed. Of STUDY the page of its report is named too, once `neurosweep report` has written one.
    optuna-dashboard is no part of neurosweep: pip install optuna-dashboard.

    \b
    Example:
      neurosweep ui
      neurosweep ui digits --port 8080
      neurosweep ui digits --dashboard
    """
    where = places()
    if dashboard and importlib.util.find_spec("optuna_dashboard") is None:
        raise BadInputError("optuna-dashboard is not installed: pip install optuna-dashboard", "--dashboard")
    shown = _Shown(study, where)
    given = click.get_current_context().get_parameter_source("port") is ParameterSource.COMMANDLINE
    tries = 1 if given else _PORTS_TO_TRY
    with end_on_sigterm(), contextlib.ExitStack() as open_servers:
        served: list[_Served] = []
        if where.tracking.startswith(("http://", "https://")):
            address = public_address(where.tracking).rstrip("/")
        else:
            port = free_port(host, port, tries)
            served.append(_serve_mlflow(host, port, where, open_servers))
            address = served[-1].address
        if dashboard:
            served.append(_serve_dashboard(host, free_port(host, port + 1, _PORTS_TO_TRY), where, open_servers))
        _print_addresses(shown, address, served[-1].address if dashboard else None, as_json)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            _wait(served)


@dataclass(frozen=True, kw_only=True)
class _Served:
    """A server that was started here."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path


class _Shown:
    """What of a study is to be seen where: its trials in MLflow, and its report.

    Raises:
        BadInputError: MLflow has not been told of it.
    """

    def __init__(self, label: str | None, where: Places) -> None:
        self.trials = self.report = ""
        self.file: Path | None = None
        if label is None:
            return
        store = open_store(where)
        study = store.find(label)
        run = store.mlflow_run(study.id)
        if run is None:
            raise BadInputError(f"MLflow has not been told of {label} yet; `neurosweep ui` shows what it knows.", label)
        # Without its last part MLflow opens pages for language models.
        self.trials = f"/#/experiments/{run.experiment_id}/runs?workflowType=machine_learning"
        file = where.page_of(study.uid, "report")
        if file.exists():
            self.file = file.absolute()
            self.report = f"/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/pages/report.html"
        else:
            tell(f"{study.label} has no report yet: neurosweep report {study.label}")


def _print_addresses(shown: _Shown, mlflow: str, dashboard: str | None, as_json: bool) -> None:
    if as_json:
        report = {"file": str(shown.file), "address": mlflow + shown.report} if shown.file else None
        print_json({"address": mlflow + shown.trials, "report": report, "dashboard": dashboard})
        return
    say(f"MLflow's UI: {mlflow}{shown.trials}")
    if shown.file:
        say(f"The report:  {mlflow}{shown.report}")
        say(f"  as a file: {shown.file}")
    if dashboard:
        say(f"Optuna's:    {dashboard}")


def _wait(served: Sequence[_Served]) -> None:
    """Until Control-C, or for ever where nothing is served."""
    while served:
        for each in served:
            if each.process.poll() not in (None, 0):
                raise UnreachableError(f"{each.name} has ended by itself; its log says why: {each.log}", each.address)
            if each.process.poll() == 0:
                return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _serve_mlflow(host: str, port: int, where: Places, open_servers: contextlib.ExitStack) -> _Served:
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": where.tracking,  # not an argument: it may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = where.home / "mlflow-ui.log"
    process = open_servers.enter_context(_server(command, environment, where.home, log))
    served = _Served(name="MLflow's server", address=_address(host, port), process=process, log=log)
    _await_answer(served, "/health", "--tracking")
    return served


def _serve_dashboard(host: str, port: int, where: Places, open_servers: contextlib.ExitStack) -> _Served:
    open_store(where)  # brings the schema up to date, or says what is wrong with the address
    code = (
        "import os, sys, optuna, optuna_dashboard\n"
        "storage = optuna.storages.RDBStorage(os.environ['_STUDIES'])\n"  # makes Optuna's tables in an empty database
        "optuna_dashboard.run_server(storage, sys.argv[1], int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, host, str(port)]
    log = where.home / "optuna-dashboard.log"
    process = open_servers.enter_context(_server(command, {"_STUDIES": where.database}, where.home, log))
    served = _Served(name="optuna-dashboard", address=_address(host, port), process=process, log=log)
    _await_answer(served, "/dashboard/", "--database")
    return served


def _address(host: str, port: int) -> str:
    # A server that listens on every address is found on this machine's own.
    reachable = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
    return f"http://{reachable}:{port}"


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
def _server(
    command: list[str], environment: dict[str, str], home: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a session of its own, so that Control-C reaches it through us alone."""
    home.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env={**os.environ, **environment},
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


def _await_answer(served: _Served, path: str, option: str) -> None:
    tell(f"starting {served.name}")
    where = urlsplit(served.address)
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and served.process.poll() is None:
        # http.client, not urllib: a proxy set for the outside must not be asked for this machine's address.
        with (
            contextlib.suppress(OSError, HTTPException),
            contextlib.closing(HTTPConnection(where.hostname or "", where.port, timeout=1)) as http,
        ):
            http.request("GET", path)
            if http.getresponse().status == HTTPStatus.OK:
                return
        time.sleep(0.2)
    raise UnreachableError(f"{served.name} did not start on this store; its log says why: {served.log}", option)
