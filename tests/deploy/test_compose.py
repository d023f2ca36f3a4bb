"""docker-compose.yml and the image: of the right form, and as closed as deploy/README.md promises."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from compose_spec import PyCompose

import neurosweep
from tests.deploy.compose_file import COMPOSE_FILE, ROOT, VARIABLE, read_compose, read_env

EXAMPLE = read_env(ROOT / "deploy/.env.example")
# Each secret's value is its own name, so that what a service was given can be read back.
VALUES = {name: value or f"the-{name}" for name, value in EXAMPLE.items()}
COMPOSE = read_compose(VALUES)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_RUNNING = sorted(set(SERVICES) - {"migrate"})
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def test_it_has_the_parts_that_a_team_needs() -> None:
    assert sorted(SERVICES) == ["dispatcher", "migrate", "mlflow", "postgres", "ray-head", "worker"]


def test_the_compose_specification_accepts_it() -> None:
    PyCompose.from_json(json.dumps(COMPOSE))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("healthcheck:", "healthchek:"),
        ("condition: service_healthy", "condition: healthy"),
        ("retries: 6", "retries: often"),
        ("interval: 30s", "interval: soon"),
        ("read_only: true", "read_only: perhaps"),
    ],
)
def test_the_compose_specification_refuses_slips(right: str, wrong: str) -> None:
    text = COMPOSE_FILE.read_text()
    slipped = read_compose(VALUES, text.replace(right, wrong, 1))
    assert slipped != COMPOSE

    with pytest.raises(ValueError, match=wrong.split(":")[0] if wrong.endswith(":") else wrong.split()[-1]):
        PyCompose.from_json(json.dumps(slipped))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_container_is_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]

    assert service["user"] in ("neurosweep", "postgres")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"}
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


def test_only_mlflow_is_published_and_only_on_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "mlflow": ["127.0.0.1:5000:5000"]
    }


def test_workers_reach_neither_the_database_nor_mlflow() -> None:
    for name in ("worker", "ray-head"):
        assert SERVICES[name]["networks"] == ["cluster"]
    assert "cluster" not in SERVICES["postgres"]["networks"] + SERVICES["mlflow"]["networks"]
    assert COMPOSE["networks"]["cluster"]["internal"] is True
    assert COMPOSE["networks"]["data"]["internal"] is True


def test_each_service_holds_the_secrets_that_it_needs_and_no_more() -> None:
    held = {
        name: {secret for secret in VALUES if any(f"the-{secret}" in str(v) for v in service["environment"].values())}
        for name, service in SERVICES.items()
    }

    assert held == {
        "postgres": {
            "POSTGRES_PASSWORD",
            "NEUROSWEEP_OWNER_PASSWORD",
            "NEUROSWEEP_SERVICE_PASSWORD",
            "MLFLOW_PASSWORD",
        },
        "migrate": {"NEUROSWEEP_OWNER_PASSWORD"},
        "mlflow": {"MLFLOW_PASSWORD"},
        "ray-head": {"RAY_AUTH_TOKEN"},
        "worker": {"RAY_AUTH_TOKEN"},
        "dispatcher": {"NEUROSWEEP_SERVICE_PASSWORD", "RAY_AUTH_TOKEN"},
    }


def test_secrets_are_in_no_command_line() -> None:
    for service in SERVICES.values():
        said = " ".join([*service["command"], *service["healthcheck"].get("test", [])])
        assert not re.search("PASSWORD|TOKEN", said)


def test_every_secret_must_be_given() -> None:
    used = [
        found for found in VARIABLE.finditer(COMPOSE_FILE.read_text()) if re.search("PASSWORD|TOKEN", found["name"])
    ]

    assert len(used) == 8
    assert {found["operator"] for found in used} == {"?"}


@pytest.mark.parametrize("name", ["ray-head", "worker", "dispatcher"])
def test_ray_asks_for_the_token(name: str) -> None:
    assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"


def test_mlflow_answers_to_its_names_runs_no_jobs_and_loads_no_pickles() -> None:
    environment = SERVICES["mlflow"]["environment"]

    assert environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",") == ["mlflow:5000", "127.0.0.1:*", "localhost:*"]
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_images_are_pinned_and_ours_is_of_this_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images = {service["image"] for service in SERVICES.values()}

    assert images == {"postgres:18.1-bookworm", f"neurosweep:{neurosweep.__version__}"}
    assert bases
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-slim-bookworm", base) for base in bases)


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_service_says_how_it_is_and_comes_back(name: str) -> None:
    health = SERVICES[name]["healthcheck"]

    assert health["test"][0] == "CMD"
    assert health.keys() >= {"interval", "timeout", "retries", "start_period"}
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_nothing_starts_before_what_it_needs_is_ready() -> None:
    waits = {
        name: {needed: how["condition"] for needed, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }

    assert waits == {
        "postgres": {},
        "migrate": {"postgres": "service_healthy"},
        "mlflow": {"postgres": "service_healthy"},
        "ray-head": {},
        "worker": {"ray-head": "service_healthy"},
        "dispatcher": {
            "migrate": "service_completed_successfully",
            "mlflow": "service_healthy",
            "worker": "service_healthy",
        },
    }


def test_what_is_kept_is_on_named_volumes() -> None:
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if not v.startswith((".", "/"))}

    assert used == COMPOSE["volumes"].keys() == {"postgres", "mlflow", "neurosweep"}


def test_the_image_runs_as_the_user_of_the_services_with_the_tested_torch() -> None:
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    [torch] = [line for line in constraints if line.startswith("torch==")]

    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["neurosweep"]
    assert re.findall(r"^ARG TORCH=(\S+)", DOCKERFILE, re.MULTILINE) == [torch]
    assert EXAMPLE["TORCH"] == torch
    assert SERVICES["dispatcher"]["build"]["args"]["TORCH"] == torch


def test_what_the_image_copies_is_there_and_let_through_to_the_builder() -> None:
    copied = [source for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]
    let_through = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()

    assert len(copied) == 9
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_through
