"""A world that turns over: it is told once, models follow sooner, and a restart changes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from stream_ml.examples.payments import payments
from stream_ml.scenarios import generate
from stream_ml.testing import CRASH, Driver

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

EVENTS = 4_000
CHANGED = replace(payments, name="flip")
TOLD_ONLY = replace(payments, name="flip", promotion=replace(payments.promotion, on_change="alert"))


@cache
def _records(name: str) -> tuple[list[Any], list[Any], dict[str, Any]]:
    run = generate(name, seed=1, events=EVENTS)
    records: dict[str, list[Any]] = {"events": [], "labels": []}
    for topic, record in run:
        records[topic].append(record)
    return records["events"], records["labels"], run.truth()


class Run:
    """What a run over a scenario wrote."""

    def __init__(self, pipeline: Pipeline, name: str, *, seed: int | None = None) -> None:
        events, labels, self.truth = _records(name)
        crashes: list[Any] = [] if seed is None else [CRASH]
        middle = len(events) * 5 // 8
        with Driver(pipeline, seed=seed) as driver:
            driver.feed([*events[:middle], *crashes, *events[middle:]], labels)
            self.alerts = [a for a in driver.read("alerts") if a["kind"] == "loss_change"]
            self.versions = [m["version"] for m in driver.read("models") if m["model"] == "sgd"]
            self.causes = {
                m["version"]: m["epoch"].get("cause") for m in driver.read("models") if m
            }
            self.refreshed = [
                d["reason"] for d in driver.read("registry") if d["kind"] == "refreshed"
            ]
            self.examples = driver.read("examples")

    @property
    def first_changed(self) -> int:
        """The number of the first example of the changed world."""
        [change] = self.truth["changes"]
        of = (int(each["event_id"][1:]) for each in self.examples)
        return next(number for number, n in enumerate(of, 1) if n >= change["event"])


@cache
def _run(kind: str) -> Run:
    return {
        "sudden": lambda: Run(CHANGED, "sudden"),
        "steady": lambda: Run(CHANGED, "steady"),
        "told": lambda: Run(TOLD_ONLY, "sudden"),
        "crashed": lambda: Run(CHANGED, "sudden", seed=3),
    }[kind]()


def test_a_flip_is_told_once_with_its_figures() -> None:
    """Whoever is on call hears within 200 labels how much worse it is, and since which example."""
    run = _run("sudden")
    opened = run.alerts[0]

    assert ["open"] == [alert["state"] for alert in run.alerts if alert["state"] != "resolved"]
    details = opened["details"]
    assert details["usual"] < 0.2
    assert details["loss"] > 0.35
    assert abs(details["since_example"] - run.first_changed) < 60
    assert details["labels"] < 200
    assert "critical" == opened["severity"]


def test_all_lines_are_renewed_soon_after_a_flip() -> None:
    """100, 200 and 400 labels after it was detected, beside each 500; the snapshots say why."""
    run = _run("sudden")
    details = run.alerts[0]["details"]
    detected = details["since_example"] + details["labels"] - 1

    sooner = [version for version, cause in run.causes.items() if cause == "loss_change"]
    assert [detected + 100, detected + 200, detected + 400] == sooner
    assert {*range(0, run.versions[-1] + 1, 500)} | {*sooner} == {*run.versions}
    said = [reason for reason in run.refreshed if "sooner than due" in reason]
    expected = "sooner than due: the loss of what is served has grown"
    assert [f"all lines published @{n}; {expected}" for n in sooner] == said


def test_what_is_only_to_be_told_changes_no_instant() -> None:
    """With `on_change="alert"` the alert comes, and lines are renewed each 500 as ever."""
    run = _run("told")

    assert run.alerts[0]["details"] == _run("sudden").alerts[0]["details"]
    assert [*range(0, run.versions[-1] + 1, 500)] == run.versions


def test_a_world_that_stays_is_told_of_nothing() -> None:
    """No alert, and no instant but the usual ones."""
    run = _run("steady")

    assert [] == run.alerts
    assert [*range(0, run.versions[-1] + 1, 500)] == run.versions


def test_a_crash_after_a_flip_changes_nothing() -> None:
    """Killed and redelivered around the change, alerts and instants are the same."""
    assert _run("sudden").alerts == _run("crashed").alerts
    assert _run("sudden").causes == _run("crashed").causes


def test_challengers_go_on_while_a_line_is_held_after_harm() -> None:
    """The first model serves after harm, alone not renewed; who follows the world takes over."""
    run = generate("recurring", seed=1, events=4_500)
    records: dict[str, list[Any]] = {"events": [], "labels": []}
    for topic, record in run:
        records[topic].append(record)
    with Driver(CHANGED) as driver:
        driver.feed(records["events"], records["labels"])
        decided = driver.read("registry")

    index = next(n for n, d in enumerate(decided) if d["kind"] == "rolled_back")
    first = decided[index]["serving"]["champion"]
    assert first == decided[index]["serving"]["first"]
    since = decided[index + 1 :]
    end = next((n for n, d in enumerate(since) if d["kind"] == "replaced"), len(since))
    held = [d["serving"] for d in since[:end] if d["kind"] == "refreshed"]
    assert [first] * len(held) == [serving["champion"] for serving in held]
    challengers = [serving["challengers"]["sgd"]["model"] for serving in held]
    assert len(set(challengers)) == len(challengers) > 3
