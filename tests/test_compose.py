"""`compose.yaml` says what there is: pinned images, commands of ours, an order, a way to stop.

No Docker is needed for that; `docker compose config` says whether Compose reads it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_ml import __version__
from stream_ml.cli.main import parser
from stream_ml.shell.settings.settings import Settings
from tools.kafka.broker import VERSION

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OBSERVERS = {"prometheus", "grafana"}
OURS = {name: each for name, each in SERVICES.items() if name not in {"kafka", *OBSERVERS}}
WORKERS = {"predict", "join", "learn", "evaluate"}


def waits_for(name: str) -> dict[str, str]:
    """What a service waits for, and until when."""
    return {n: each["condition"] for n, each in SERVICES[name].get("depends_on", {}).items()}


def test_every_part_of_the_loop_is_there() -> None:
    """A broker, its topics, every stage, and someone to publish."""
    assert {"kafka", "topics", "producer", "ask", *WORKERS, *OBSERVERS} == set(SERVICES)
    assert {name: SERVICES[name].get("deploy", {}).get("replicas", 1) for name in WORKERS} == {
        "predict": 2,
        "join": 1,
        "learn": 1,
        "evaluate": 1,
    }


def test_images_are_pinned() -> None:
    """The broker is the one that the tests run on; ours has the version of the package."""
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{VERSION}"
    assert {service["image"] for service in OURS.values()} == {f"stream-ml:{__version__}"}
    for name in OBSERVERS:
        assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"]), name
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert bases
    assert [base for base in bases if not re.search(r":\d+\.\d+\.\d+-", base)] == []


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"producer"}))
def test_every_command_is_one_of_ours(name: str) -> None:
    """What a container is told to do, the command line understands."""
    given = parser().parse_args(SERVICES[name]["command"])

    assert callable(given.run)


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_is_a_setting(name: str) -> None:
    """What the environment says is read; the key has to be given, and has no default."""
    environment = dict(SERVICES[name]["environment"])
    assert environment["STREAM_ML_KEY"].startswith("${STREAM_ML_KEY:?")

    settings = Settings.load({}, {**environment, "STREAM_ML_KEY": "ab" * 32})

    assert settings.cluster("flights").bootstrap == "kafka:19092"


def test_one_waits_for_the_other() -> None:
    """Topics for a healthy broker, workers for topics, and what is published for workers."""
    assert "healthcheck" in SERVICES["kafka"]
    assert waits_for("topics") == {"kafka": "service_healthy"}
    for name in WORKERS:
        assert waits_for(name) == {"topics": "service_completed_successfully"}
    assert waits_for("producer") == dict.fromkeys(WORKERS, "service_started")


def test_whatever_works_is_given_time_to_stop() -> None:
    """Signals arrive, and a transaction that was begun can be ended."""
    for name in {*WORKERS, "producer"}:
        assert SERVICES[name]["init"] is True
        assert SERVICES[name]["stop_grace_period"] == "30s"
    assert SERVICES["kafka"]["stop_grace_period"] == "60s"


def test_the_image_holds_what_its_build_takes() -> None:
    """Every file that the Dockerfile copies is there, and not kept out of the build."""
    copied = re.findall(r"^COPY (?!--from)(.+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()[:-1]}
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }

    assert sources == kept
    assert [source for source in sources if not (ROOT / source).exists()] == []
