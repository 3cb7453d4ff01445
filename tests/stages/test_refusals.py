"""Alerts of refusals: once when much is refused, once when it is over, however it is batched."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.stages.join import Join
from stream_ml.stages.predict import Predict
from stream_ml.stages.refusals import BLOCK_RECORDS, SOURCES_MAX
from tests.shop import START_MS, event, example, shop, started

if TYPE_CHECKING:
    from stream_ml.records import Output, Record


def events(*shares: float) -> list[Record]:
    """A block of events for each share, of which so much is no JSON, evenly spread."""
    records = []
    for share in shares:
        for n in range(BLOCK_RECORDS):
            at = len(records)
            record = event(at, ts=START_MS + at, kind="order")
            if int((n + 1) * share) > int(n * share):
                record.value = b"{"
            records.append(record)
    return records


def alerts(outputs: list[Output]) -> list[tuple[str, str, int, int]]:
    """Of each alert of refusals: state, reason, how many of how many."""
    found = [orjson.loads(o.value or b"") for o in outputs if o.topic == "alerts"]
    return [
        (each["state"], d["reason"], d["refused"], d["records"])
        for each in found
        if each["kind"] == "poison_rate"
        for d in [each["details"]]
    ]


def predicting() -> Predict:
    """A predict stage that is ready."""
    return Predict(shop, started(shop)[2])


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.02, 0.09, 0.0), []),
        ((0.5, 0.9, 0.06, 0.04, 0.0, 0.005, 0.0), [("open", 50, 100), ("resolved", 0, 1_000)]),
        # Of a tenth the fiftieth is refused halfway.
        ((0.1, 0.0, 0.0, 0.0), [("open", 50, 500), ("resolved", 0, 1_000)]),
        # What comes and goes is one episode.
        ((*(0.2, 0.0, 0.0) * 5, 0.0), [("open", 50, 250), ("resolved", 0, 1_000)]),
        # Far more than before, though little of all; then no longer twice and a half as much.
        (
            (0.002, 0.002, 0.03, 0.03, 0.005, 0.002, 0.004),
            [("open", 30, 1_000), ("resolved", 4, 1_000)],
        ),
        ((0.0, 0.021, 0.0, 0.0, 0.0), [("open", 21, 1_000), ("resolved", 0, 1_000)]),
        ((0.01, 0.04), []),
        ((0.03, 0.0), []),
    ],
)
def test_an_episode_is_told_when_it_begins_and_when_it_is_over(
    shares: tuple[float, ...], expected: list[tuple[str, int, int]]
) -> None:
    """Much of a block, or far more than the past knows; not once for each block."""
    found = alerts(predicting().apply(events(*shares)))

    assert [(state, "not_json", *counts) for state, *counts in expected] == found


def test_an_alert_shows_the_first_record_that_was_refused() -> None:
    """Where it lies and what is wrong with it, in words and for machines."""
    outputs = predicting().apply(events(0.5))
    (alert,) = [orjson.loads(o.value or b"") for o in outputs if o.topic == "alerts"]

    assert {"topic": "events", "partition": 0, "offset": 1, "path": "$"} == {
        name: alert["details"]["sample"][name] for name in ("topic", "partition", "offset", "path")
    }
    assert {"events-0": 50} == alert["details"]["sources"]
    assert alert["message"].startswith(
        "50 of 100 events were refused as not_json, 50 of them from events-0, first partition 0"
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_alerts_follow_from_the_log_alone(seed: int) -> None:
    """In any batches, restored or replayed in between: the same bytes, and the same state."""
    rand = random.Random(seed)
    shares = [rand.choice([0.0, 0.002, 0.04, 0.2, 1.0]) for _ in range(5)]
    serving = started(shop)[2]
    whole, cut = Predict(shop, serving), Predict(shop, serving)
    expected = [o.value for o in whole.apply(events(*shares)) if o.topic == "alerts"]
    pieces: dict[str, bytes] = {}
    records, said = events(*shares), []
    while records:
        size = rand.choice([1, 70, 1_000, 2_500])
        said += [o.value for o in cut.apply(records[:size]) if o.topic == "alerts"]
        del records[:size]
        pieces |= {name: piece for name, piece in cut.dirty() if piece is not None}
        if rand.random() < 0.1:
            cut = Predict(shop, serving)
            cut.restore(pieces.items())
    replayed = Predict(shop, serving)
    replayed.replay(events(*shares))

    assert expected == said, f"seed {seed}"
    whole_state, replayed_state = dict(whole.dirty())[""], dict(replayed.dirty())[""]
    assert whole_state == replayed_state
    assert pieces[""] == whole_state


def test_bad_labels_and_bad_examples_are_told_of_too() -> None:
    """By join of labels, by evaluate of examples."""
    labels = [event(n) for n in range(100)]
    for record in labels:
        record.topic, record.value = "labels", b"null"
    evaluate = started(shop)[1]
    examples = [example(n, label=True, features={}) for n in range(100)]
    for record in examples:
        record.value, record.memo = b"null", None

    assert [("open", "not_an_object", 50, 50)] == alerts(Join(shop, 1).apply(labels))
    found: Any = alerts(evaluate.apply(examples))
    assert [("open", 50, 50)] == [(state, *counts) for state, _, *counts in found]


def test_who_sends_what_is_refused_is_named() -> None:
    """Of labels their own `source`, most first, and no more of them than fit: bounded."""
    join, labels = Join(shop, 1), [event(n) for n in range(300)]
    for n, record in enumerate(labels):
        source = "desk" if n % 3 else f"robot {n}"
        record.topic, record.value = "labels", orjson.dumps({"source": source})

    outputs = join.apply(labels)

    (alert,) = [orjson.loads(o.value or b"") for o in outputs if o.topic == "alerts"]
    assert ("open", "labels/missing_field") == (alert["state"], alert["subject"])
    assert ["desk", 33] == list(next(iter(alert["details"]["sources"].items())))
    assert "50 of 50 labels were refused as missing_field, 33 of them from desk" in alert["message"]
    sources = orjson.loads(dict(join.dirty())[""] or b"")["refusals"]["labels"][-1]
    assert (SOURCES_MAX + 1, 300) == (
        len(sources["missing_field"]),
        sum(sources["missing_field"].values()),
    )


def test_what_a_former_release_had_open_is_resolved() -> None:
    """Its state names the reasons that were open, and holds no alarms: the end is told once."""
    former, stage = predicting(), predicting()
    former.apply(events(0.5))
    state = orjson.loads(dict(former.dirty())[""] or b"")
    figures = state["refusals"]
    del state["alarms"], state["quiet"]
    state["refusals"] = [*figures[:3], ["not_json"], *figures[4:6]]
    stage.restore([("", orjson.dumps(state))])

    found = alerts(stage.apply(events(0.5, 0.0, 0.0, 0.0)[BLOCK_RECORDS:]))

    assert [("resolved", "not_json", 0, 1_000)] == found
