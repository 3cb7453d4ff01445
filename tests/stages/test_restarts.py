"""A line is started anew by a decision: an operator's, or one that follows from its faults."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from river import naive_bayes

import stream_ml as sml
from stream_ml.codec import decode_decision
from stream_ml.errors import StateRefused
from stream_ml.models.snapshot import decode
from stream_ml.records import ModelRef, Record, ServingSet, version_of
from stream_ml.stages.learn import Learn
from stream_ml.stages.registry import Registry
from stream_ml.stages.restarts import RESTARTED, restart_evidence
from stream_ml.testing import Driver
from tests.shop import KEY, declare, shop, stream
from tests.stages.test_learn import alerts, published, quarantined, world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.models.snapshot import Snapshot

LOG = "here"
SERVING = ServingSet(ModelRef("logistic@0", "d", 0), {"bayes": ModelRef("bayes@0", "d", 1)}, None)


def decision(
    kind: str = RESTARTED,
    *,
    line: str = "bayes",
    model: str | None = None,
    key: bytes = KEY,
    log: str = LOG,
    number: int = 0,
) -> Record:
    """A decision as it lies on the registry, after so many others."""
    registry = Registry(shop.name, key, log)
    bayes = ModelRef(model or "bayes@0", "d", 1)
    serving = replace(SERVING, challengers={"bayes": bayes})
    for _ in range(number + 1):
        output = registry.decide(
            kind,
            "try again",
            serving,
            ts=5,
            inputs={},
            evidence=restart_evidence(line, model=model),
        )
    return Record("registry", 0, number, b"shop", output.value, 2**42)


def state_of(learn: Learn) -> list[tuple[str, bytes]]:
    """What is written down of it."""
    return [(name, piece) for name, piece in learn.dirty() if piece is not None]


def test_a_quarantined_line_starts_anew_by_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with its number and reason; its next snapshot names it, and has no parent."""
    learn = Learn(shop, KEY, log=LOG)
    learn.restore(quarantined(monkeypatch))

    (told,) = alerts(learn.apply([decision()]))

    assert learn.must_checkpoint()
    assert ("line_quarantined", "resolved", "line:bayes") == (
        told["kind"],
        told["state"],
        told["subject"],
    )
    assert "starts anew, from nothing, after example 15: decision 0 by evaluate" in told["message"]
    again = Learn(shop, KEY, log=LOG)
    again.restore(state_of(learn))
    for stage in (learn, again):
        first, second, *_ = published(stage.apply(world(60)[15:]), "bayes")
        assert ("bayes@20", None, 0) == (first.model, first.parent, first.epoch["restarted"])
        assert ("bayes@20", False) == (second.parent, "restarted" in second.epoch)
        # Of its own examples: those before it began it has not learned.
        assert {"count": 5, "first": 15, "last": 19} == first.examples
        assert {"count": 25, "first": 15, "last": 39} == second.examples


@pytest.mark.parametrize(
    "record",
    [
        decision(key=b"somebody else's"),
        decision(log="elsewhere"),
        decision("refreshed"),
        decision(line="nobody"),
        Record("registry", 0, 0, None, b"{}", 2**42),
    ],
    ids=["forged", "of another log", "another kind", "another line", "no decision"],
)
def test_what_starts_no_line_anew_changes_nothing(record: Record) -> None:
    """Neither the learners nor what is published."""
    expected = Learn(shop, KEY, log=LOG)
    learn = Learn(shop, KEY, log=LOG)
    expected.apply(world(10))
    learn.apply(world(10))

    assert [] == learn.apply([record])
    for stage in (expected, learn):
        stage.dirty()
    assert [s.digest for s in published(expected.apply(world(40)[10:]), "bayes")] == [
        s.digest for s in published(learn.apply(world(40)[10:]), "bayes")
    ]


def test_a_copy_of_a_decision_starts_nothing_anew() -> None:
    """Whoever puts an old decision on the registry again has no line begin again."""
    learn = Learn(shop, KEY, log=LOG)
    learn.apply(world(10))
    learn.apply([decision(number=3)])
    learn.apply(world(30)[10:])
    again = Learn(shop, KEY, log=LOG)
    again.restore(state_of(learn))
    expected = published(learn.apply(world(60)[30:]), "bayes")

    again.apply([decision(number=3)])
    again.apply([decision(number=2)])

    assert [s.digest for s in expected] == [
        s.digest for s in published(again.apply(world(60)[30:]), "bayes")
    ]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_line_goes_on_from_a_snapshot_that_is_kept(*, is_kept: bool) -> None:
    """Its learner is that of the snapshot, also after a start; else it begins with nothing."""
    promotion = replace(shop.promotion, on_failure="restore" if is_kept else "alert")
    pipeline = declare(promotion=promotion)
    learn = Learn(pipeline, KEY, log=LOG)
    learn.start()
    learn.apply(world(20))
    learn.apply([decision("refreshed", model="bayes@20")])
    learn.apply(world(80)[20:])
    again = Learn(pipeline, KEY, log=LOG)
    again.restore(sorted(state_of(learn)))
    alike = Learn(pipeline, KEY, log=LOG)
    alike.apply(world(20))
    expected, *_ = published(alike.apply(world(100)[80:]), "bayes")

    for stage in (learn, again):
        stage.apply([decision(number=1, model="bayes@20")])
        first, *_ = published(stage.apply(world(100)[80:]), "bayes")
        assert ("bayes@20" if is_kept else None) == first.parent
        assert is_kept == (expected.digest == first.digest)
        assert (40 if is_kept else 20) == first.examples["count"]


def test_a_state_with_a_restart_is_not_made_again() -> None:
    """After which example it was stands nowhere but in the state: refused, with the way out."""
    learn = Learn(shop, KEY, log=LOG)
    learn.replay(world(10))
    learn.replay([decision("refreshed")])

    with pytest.raises(StateRefused, match="decisions have started bayes anew"):
        learn.replay([decision(number=1)])


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Has `bayes` fail at its n-th example, and no more once that was set to 0."""
    state = {"at": 30, "learned": 0}
    teach = naive_bayes.GaussianNB.learn_one

    def learn_one(self: Any, *args: Any, **named: Any) -> None:
        state["learned"] += 1
        if state["at"] and state["learned"] >= state["at"]:
            raise ValueError(state["learned"])
        teach(self, *args, **named)

    monkeypatch.setattr(naive_bayes.GaussianNB, "learn_one", learn_one)
    return state


def test_an_operator_starts_a_line_anew(failing: dict[str, int]) -> None:
    """The answer names the line; it publishes again and is renewed again, and once told so."""
    events, labels = stream(count=400)
    with Driver(shop) as driver:
        driver.feed(events[:200], labels[:200])
        failing["at"] = 0
        driver.command("restart", model="bayes")
        driver.command("restart", model="nobody")
        driver.feed(events[200:], labels[200:])
        registry = [decode_decision(r.value, b"testing") for r in driver.records("registry")]
        told = [
            (a["stage"], a["kind"], a["state"])
            for a in driver.read("alerts")
            if a["subject"] == "line:bayes"
        ]

    accepted, refused = [d for d in registry if d.command_id is not None]
    assert (RESTARTED, {"line": "bayes"}, "local") == (
        accepted.kind,
        accepted.evidence,
        accepted.signed_by,
    )
    assert "refused: expected a declared line (logistic, bayes), given 'nobody'" in refused.reason
    assert [
        ("learn", "line_quarantined", "open"),
        ("learn", "line_quarantined", "resolved"),
    ] == told
    stuck = accepted.serving.challengers["bayes"].model
    renewal = next(d for d in registry if "bayes is renewed again, after" in d.reason)
    assert accepted.number < renewal.number
    assert stuck != renewal.serving.challengers["bayes"].model


def snapshots_of(driver: Driver) -> list[Snapshot]:
    """Those on the log that are still there."""
    return [decode(record.value) for record in driver.records("models") if record.value]


def test_a_champion_that_is_started_anew_serves_as_it_was_until_it_is_of_age() -> None:
    """Nothing is served that has learned fewer examples than `first`; challengers go on."""
    events, labels = stream(count=900)
    with Driver(declare(promotion=sml.Promotion(refresh=20, first=100))) as driver:
        driver.feed(events[:300], labels[:300])
        driver.command("restart", model="logistic")
        driver.feed(events[300:], labels[300:])
        registry = [decode_decision(r.value, b"testing") for r in driver.records("registry")]
        first = next(s for s in snapshots_of(driver) if "restarted" in s.epoch)

    at = next(d for d in registry if d.kind == RESTARTED)
    later = [d.serving for d in registry if d.number > at.number]
    stuck = [s for s in later if s.champion == at.serving.champion]
    renewed = [version_of(s.champion.model) for s in later if s.champion != at.serving.champion]
    assert ("logistic", at.number) == (first.name, first.epoch["restarted"])
    assert first.version + 100 <= renewed[0] < first.version + 120
    assert len({s.challengers["bayes"].model for s in stuck}) > 3
