"""How MLflow is reached, and what it means where it is not or refuses. With `storage.publisher` its only door."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import sqlalchemy as sa

from neurosweep.errors import NeurosweepError
from storage.publisher_loop import reason_of

os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # a repeated POST makes a second run
os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds: slow is better than never
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # saves a request as well

import mlflow  # reads the settings above while it is imported

logging.getLogger("mlflow").addHandler(logging.NullHandler())  # without any handler Python prints to the screen


def connect(tracking: str) -> mlflow.MlflowClient:
    """A client of the tracking store. Credentials move from the address to where MLflow's messages don't show them."""
    parts = urlsplit(tracking)
    if parts.scheme in ("http", "https") and parts.username:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        tracking = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    elif parts.scheme.startswith(("sqlite", "postgres", "mysql", "mssql")):
        _check_database(tracking)
        tracking = _spelled_anew(tracking)
    mlflow.set_tracking_uri(tracking)  # artifacts that go through the server find it by this
    return mlflow.MlflowClient(tracking_uri=tracking, registry_uri=tracking)


def why_unreachable(tracking: str) -> str | None:
    """Why MLflow can't be used, in a line; None where it answers, or where its file is still to be made."""
    if tracking.startswith("sqlite") and file_of(tracking) is None:
        return None
    try:
        connect(tracking).search_experiments(max_results=1)
    except Exception as error:
        return reason_of(error, tracking)
    return None


def refuses(error: Exception) -> bool:
    """Whether MLflow answers, but not to this: the fact itself is what is wrong, or what we make of it.

    All else (no answer, a broken server, no right to anything) is no fault of the fact's.
    """
    if isinstance(error, mlflow.MlflowException):
        # MLflow makes "broken" of every status that it has no word for, such as "too large".
        named = re.search(r"failed with error code (\d{3})", error.message)
        status = int(named[1]) if named else error.get_http_status_code()
        elsewhere = error.error_code == "ENDPOINT_NOT_FOUND"  # what answers is no MLflow
        return 400 <= status < 500 and status not in (401, 403, 408, 429) and not elsewhere
    mine = (ArithmeticError, AssertionError, AttributeError, LookupError, NeurosweepError, RuntimeError)
    return isinstance(error, (*mine, TypeError, ValueError))


def _check_database(tracking: str) -> None:
    """Fail now where MLflow would try for 100 seconds."""
    url = sa.make_url(tracking)
    if url.get_backend_name() == "sqlite":
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    timeout = {"connect_timeout": 10} if url.get_backend_name() == "postgresql" else {}
    with sa.create_engine(url, poolclass=sa.NullPool, connect_args=timeout).connect():
        pass


_files: dict[str, tuple[int, int]] = {}  # by address: which file was there, and how often it was another before


def file_of(tracking: str) -> int | None:
    """Which file holds MLflow's store; None where no file does."""
    if not tracking.startswith("sqlite"):
        return None
    try:
        return Path(sa.make_url(tracking).database or "").stat().st_ino
    except FileNotFoundError:
        return None


def _spelled_anew(tracking: str) -> str:
    """MLflow keeps what it has opened, by its address: a file that took another's place needs a new spelling of it."""
    file = file_of(tracking)
    if file is None:
        return tracking
    known, replaced = _files.get(tracking, (file, 0))
    replaced += file != known
    _files[tracking] = file, replaced
    where = Path(sa.make_url(tracking).database or "")
    return f"sqlite:///{where.parent}/{'./' * replaced}{where.name}" if replaced else tracking
