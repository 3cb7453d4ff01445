"""Bounds: what clients can make grow stops growing, is counted, and has an outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest

import stream_ml as sml
from stream_ml.codec import encode_command, encode_decision
from stream_ml.errors import UsageError
from stream_ml.records import Command, Output, Record
from stream_ml.signing import Keyring
from stream_ml.stages import operators
from stream_ml.stages import serving as servings
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.join import Join
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from tests.shop import KEY, LABEL, START_MS, declare, event, example, shop, started, written

if TYPE_CHECKING:
    from stream_ml.stages.task import Stage


def refusals(outputs: list[Output]) -> list[tuple[str, str]]:
    """What was refused: reason and path."""
    return [(o.memo.reason, o.memo.path) for o in outputs if o.topic == "dead-letters"]


def keyless(stage: Stage) -> dict[str, dict[str, int]]:
    """The piece of state in which whoever looks on finds the counts."""
    found: dict[str, dict[str, int]] = orjson.loads(dict(stage.dirty())[""] or b"")
    return found


def test_a_window_that_is_full_forgets_its_oldest_and_says_so() -> None:
    """At `window_events_max` the oldest event leaves; one alert, and one when that is over."""
    pipeline = declare(window_events_max=5)
    stage = Predict(pipeline, started(pipeline)[2])
    orders = [event(n, kind="order", ts=START_MS + n) for n in range(25)]
    alerts = [o.memo for batch in (orders[:15], orders[15:]) for o in stage.apply(batch)]

    counts = stage.counts["window_events_dropped"]
    assert 2 * 20 == counts, "two windows hold each event"
    assert [("window_overflow", 2)] == [(a.kind, a.details["dropped"]) for a in alerts]
    held = keyless(stage)
    assert counts == held["counts"]["window_events_dropped"]
    assert {"keys": 1, "ids": 25} == held["held"]
    again = Predict(pipeline, started(pipeline)[2])
    again.restore([("", orjson.dumps({"watermark": -1, **held}))])
    assert counts == again.counts["window_events_dropped"]
    for each in (stage, again):
        later = [event(n, kind="order", ts=START_MS + 60_000 * n) for n in range(25, 11_025)]
        ends = [o.memo for o in each.apply(later) if o.topic == "alerts"]
        assert [("window_overflow", "resolved")] == [(a.kind, a.state) for a in ends]


def test_state_of_other_windows_is_refused_with_the_way_out() -> None:
    """Whoever changes windows under a running pipeline is told what, and what to do."""
    stage = Predict(shop, started(shop)[2])
    stage.apply([event(0)])
    pieces = [(name, piece) for name, piece in stage.dirty() if piece is not None]
    other = declare(features=shop.features[:1])

    with pytest.raises(UsageError, match="has only none: other windows were declared"):
        Predict(other, Serving(other, KEY)).restore(pieces)


def test_labels_that_wait_are_refused_under_another_declaration() -> None:
    """A label of another type than it waited as is told, not taken for a broken invariant."""
    join = Join(shop, 1)
    join.apply([Record("labels", 0, 0, None, orjson.dumps(LABEL), START_MS * 2)])
    pieces = [(name, piece) for name, piece in join.dirty() if piece is not None]
    other = declare(label=sml.Label(sml.Enum("yes", "no"), horizon="40s"))

    with pytest.raises(UsageError, match=r"offset 0, is none under this declaration: wrong_type"):
        Join(other, 1).restore(pieces)


def test_snapshots_that_no_set_names_are_let_go_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is renewed, predict holds the newest snapshots, and forgeries not at all."""
    models = written(Learn(shop, KEY).start(), "models")
    genuine = models[0].value or b""
    monkeypatch.setattr(servings, "HELD_MAX", 10)
    serving = Serving(shop, KEY)
    serving.apply([Record("models", 0, n, None, genuine, 0) for n in range(15)])
    assert (list(range(5, 15)), 5) == (list(serving._snapshots), serving.dropped_count)

    monkeypatch.setattr(servings, "HELD_BYTES_MAX", 3 * len(genuine))
    serving.apply([Record("models", 0, 15, None, genuine, 0)])
    assert [13, 14, 15] == list(serving._snapshots)
    serving.apply([Record("models", 0, 16, None, b"{" + b" " * 10**6, 0)])
    assert 3 * len(genuine) == serving._bytes


def test_an_old_decision_sent_again_changes_nothing() -> None:
    """A genuine record of the registry is believed once, where it belongs in the order."""
    learn, evaluate = Learn(shop, KEY), Evaluate(shop, Keyring(KEY, {}))
    examples = [example(n, n % 3 == 0, {"amount": float(n % 7)}) for n in range(60)]
    models = written([*learn.start(), *learn.apply(examples)], "models")
    registry = written(evaluate.apply(models), "registry")
    serving = Serving(shop, KEY)
    serving.apply(models)
    serving.apply(registry)
    loaded = serving.current()
    assert loaded is not None
    serving.apply([replace(registry[0], offset=99)])

    assert loaded is serving.current()
    assert [] == evaluate.apply(registry)
    again = evaluate.apply([replace(registry[0], offset=99)])
    assert [("repeated", "$.number")] == refusals(again)
    assert evaluate.must_checkpoint()


def test_a_forged_decision_is_told_by_evaluate() -> None:
    """Who else writes to the registry, unsigned or by another key, finds it in a dead letter."""
    evaluate = Evaluate(shop, Keyring(KEY, {}))
    models = written(Learn(shop, KEY).start(), "models")
    (decision,) = (o for o in evaluate.apply(models) if o.topic == "registry")
    values = [None, b"{}", encode_decision(decision.memo, b"theirs")]

    outputs = evaluate.apply([Record("registry", 0, n, None, v, 0) for n, v in enumerate(values)])

    assert [
        ("tombstone", "$"),
        ("unsigned", "$.signature"),
        ("signature", "$.signature"),
    ] == refusals(outputs)
    assert 3 == keyless(evaluate)["counts"]["refused"]


def test_a_command_older_than_what_is_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id may have been answered and forgotten, so it is not carried out a second time."""
    monkeypatch.setattr(operators, "ANSWERED_MAX", 3)
    evaluate = Evaluate(shop, Keyring(KEY, {}))
    evaluate.apply(written(Learn(shop, KEY).start(), "models"))

    def ask(number: int, ts: int) -> str | None:
        command = Command(f"c{number}", "pause", ts, "local", "ada", "a look", pipeline="shop")
        value = encode_command(command, KEY)
        outputs = evaluate.apply([Record("commands", 0, number, None, value, 1_000)])
        return outputs[0].memo.kind if outputs else None

    assert ["paused"] * 5 == [ask(n, 100 + n) for n in range(5)]
    assert 3 == evaluate.sizes["commands_answered"]
    assert None is ask(4, 104), "it is known still"
    assert "refused" == ask(0, 100), "it was answered, and forgotten"
    assert "refused" == ask(9, 101), "it could have been"
    assert "paused" == ask(10, 200)
    assert evaluate.counts["commands_forgotten"] >= 2
    again = Evaluate(shop, Keyring(KEY, {}))
    again.restore([(n, p) for n, p in evaluate.dirty() if p is not None])
    evaluate = again
    assert "refused" == ask(11, 101)
