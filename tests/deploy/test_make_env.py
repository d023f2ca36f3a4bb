"""deploy/make-env: fresh secrets, for their owner's eyes only, and never over an .env that is in use."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.deploy.compose_file import COMPOSE_FILE, ROOT, VARIABLE, MissingVariableError, read_compose, read_env

EXAMPLE = ROOT / "deploy/.env.example"
SECRETS = {name for name in read_env(EXAMPLE) if re.search("PASSWORD|TOKEN", name)}


def make_env(target: Path) -> subprocess.CompletedProcess[str]:
    # A caller's umask must not matter.
    return subprocess.run(
        ["sh", "-c", f'umask 000; "{ROOT}/deploy/make-env" "$1"', "sh", str(target)], capture_output=True, text=True
    )


def test_what_it_writes_is_all_that_the_compose_file_asks_for(tmp_path: Path) -> None:
    assert make_env(tmp_path / ".env").returncode == 0

    written = read_env(tmp_path / ".env")
    assert read_compose(written)["services"].keys() >= {"postgres", "mlflow", "ray-head", "worker", "dispatcher"}
    assert {found["name"] for found in VARIABLE.finditer(COMPOSE_FILE.read_text())} == written.keys()


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_no_secret_has_a_default(secret: str, tmp_path: Path) -> None:
    make_env(tmp_path / ".env")
    written = read_env(tmp_path / ".env")

    with pytest.raises(MissingVariableError, match=f"{secret}: run deploy/make-env first"):
        read_compose(written | {secret: ""})


def test_secrets_are_long_and_never_the_same(tmp_path: Path) -> None:
    secrets: list[str] = []
    for n in range(3):
        make_env(tmp_path / f"{n}.env")
        written = read_env(tmp_path / f"{n}.env")
        secrets += [written[name] for name in SECRETS]

    assert len(set(secrets)) == 3 * len(SECRETS) == 15
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in secrets)


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    make_env(tmp_path / ".env")

    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_an_env_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=in-use\n")

    said = make_env(tmp_path / ".env")

    assert said.returncode == 1
    assert "is there already and stays as it is" in said.stderr
    assert (tmp_path / ".env").read_text() == "POSTGRES_PASSWORD=in-use\n"
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_secrets_are_never_printed(tmp_path: Path) -> None:
    said = make_env(tmp_path / ".env")

    assert not any(read_env(tmp_path / ".env")[name] in said.stdout + said.stderr for name in SECRETS)


def test_the_example_holds_no_secret() -> None:
    example = read_env(EXAMPLE)

    assert SECRETS
    assert {name: example[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")


def test_git_and_the_image_leave_env_out() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    # What the image may see is listed; all else is not sent to the builder.
    listed = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in listed
    assert not any(line.startswith("!") and ".env" in line for line in listed)
