"""Stands between a client and a real MLflow server, and makes requests and answers go wrong."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one request.

    Attributes:
        before: Seconds until MLflow gets it.
        passed_on: Whether MLflow gets it at all.
        then: What is done once MLflow has answered.
        after: Seconds until the client gets the answer.
        status: What the client gets in place of MLflow's answer.
        cut: The connection ends without an answer.
    """

    before: float = 0.0
    passed_on: bool = True
    then: Callable[[], None] = lambda: None
    after: float = 0.0
    status: int | None = None
    cut: bool = False


Plan = Callable[[str, str, int], Fault | None]
"""Given the method, the path, and how many requests to that path there have been, this one included."""


class MlflowProxy(ThreadingHTTPServer):
    """Passes requests on to MLflow; `plan` says which of them go wrong, and `struck` has their paths."""

    daemon_threads = True

    def __init__(self, mlflow_port: int, plan: Plan) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mlflow_port = mlflow_port
        self.plan = plan
        self.struck: list[str] = []
        self.seen: dict[str, int] = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, method: str, path: str) -> Fault:
        with self.lock:
            self.seen[path] = count = self.seen.get(path, 0) + 1
            fault = self.plan(method, path, count)
            if fault is not None:
                self.struck.append(path)
            return fault or Fault()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: MlflowProxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, self.path.partition("?")[0])
        time.sleep(fault.before)
        try:
            status, kind, content = self._ask_mlflow(body) if fault.passed_on else (500, None, b"")
        except OSError:  # MLflow is away
            fault = Fault(cut=True)
        fault.then()
        time.sleep(fault.after)
        if fault.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault.status is not None:
            status, kind, content = fault.status, "text/plain", b"upstream went away"
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client has not waited
            self.close_connection = True

    def _ask_mlflow(self, body: bytes) -> tuple[int, str | None, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.mlflow_port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type"), answer.read()
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is not a server's log."""
