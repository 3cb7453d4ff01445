"""Replay: what was folded before is folded to the same state, however the inputs alternate."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.codec import LABEL_BYTES_MAX, encode_prediction
from stream_ml.records import Prediction, Record, Source
from stream_ml.stages.join import Join
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.stages.waiting import LABELS_PER_ID_MAX
from tests.shop import KEY, START_MS, declare, event, shop, started
from tests.stages.test_join import pipeline_with_pending_max

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.stages.task import Stage

HORIZON = shop.horizon_ms
LATENESS = shop.lateness_ms
SKEW = shop.skew_ms
EVENT_PARTITIONS = 2
SEEDS = st.integers(0, 2**32)
YEAR_MS = 365 * 86_400_000
_NUMBER = re.compile(rb',"number":\d+')


def write_down(stage: Stage, pieces: dict[str, bytes]) -> None:
    """A checkpoint of the stage, over the former ones."""
    for name, piece in stage.dirty():
        if piece is None:
            pieces.pop(name, None)
        else:
            pieces[name] = piece


# --- predict ----------------------------------------------------------------------------------


def _events(rand: random.Random, number: int) -> list[Record]:
    """Good and bad events: late, repeated, of several kinds, some no JSON."""
    records = [
        event(
            offset,
            ts=START_MS + 700 * offset - rand.choice([0, 0, LATENESS, LATENESS + 5_000]),
            event_id=f"e{rand.randrange(number)}",
            kind=rand.choice(["visit", "order", "nothing"]),
            shop=rand.choice("abc"),
            amount=rand.random(),
        )
        for offset in range(number)
    ]
    for record in rand.sample(records, number // 10):
        record.value = rand.choice([None, b"", b"[]", b"{"])
    return records


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_predict_replays_to_the_very_same_pieces_without_any_model(seed: int) -> None:
    """From any checkpoint, in any batches: windows, ids, watermark and counts, byte for byte."""
    rand = random.Random(seed)
    events = _events(rand, 120)
    checkpoint, end = sorted(rand.sample(range(1, 120), 2))
    applied, pieces = Predict(shop, started(shop)[2], 2), dict[str, bytes]()
    applied.apply(events[:checkpoint])
    write_down(applied, pieces)
    applied.apply(events[checkpoint:end])

    replayed = Predict(shop, Serving(shop, KEY), 2)
    replayed.restore(pieces.items())
    for batch in _cut(rand, events[checkpoint:end]):
        replayed.replay(batch)

    assert applied.dirty() == replayed.dirty(), f"seed {seed}"
    replayed._serving = applied._serving
    assert _values(applied.apply(events[end:])) == _values(replayed.apply(events[end:]))


# --- join -------------------------------------------------------------------------------------


def _prediction(
    event_id: str,
    ts: int,
    partition: int,
    offset: int,
    key: str = "k",
    append_ms: int = START_MS * 2,
) -> Record:
    prediction = Prediction(
        event_id, key, ts, Source(partition, offset), "m@0", -1, 0.5, False, {"amount": 1.0}, {}
    )
    return Record("predictions", 0, offset, None, encode_prediction(prediction), append_ms)


def _label(event_id: str, ts: int, offset: int) -> Record:
    value = orjson.dumps({"event_id": event_id, "ts": ts, "label": True})
    return Record("labels", 0, offset, None, value, START_MS * 2)


def _declared(rand: random.Random) -> Pipeline:
    """Watermarks led by one or by several; partitions that are soon idle, or not at all."""
    breadth, idle = rand.choice([1, 1, 2, 3]), rand.choice(["1h", "1m"])
    return declare(events=replace(shop.events, breadth=breadth, idle=idle))


Inputs = tuple[list[Record], list[Record]]


def _inputs(rand: random.Random) -> Inputs:
    """Predictions and labels with all that can go wrong.

    Ids that come again, soon and late; partitions of events that lag, or are silent for a while or
    for good; clocks that are ahead; labels early, late, repeated, about nothing; bad records.
    """
    number, ids = rand.choice([30, 60]), rand.choice([8, 20, 60])
    lag = rand.choice([0, 0, HORIZON, 10 * HORIZON])
    step = rand.choice([100, 3_000, 20_000])
    partitions = rand.choice([(0,), (0, 1), (0, 1)])
    silent = range(*sorted(rand.sample(range(number + 1), 2)))
    slow, ahead = rand.choice([1, 2_000, 20_000]), rand.choice([0, 0, HORIZON, YEAR_MS])
    ts, append_ms, predictions, asked = START_MS, START_MS * 2, [], []
    for offset in range(number):
        ts += rand.randrange(step)
        append_ms += rand.randrange(slow)
        partition = 0 if offset in silent else rand.choice(partitions)
        at = ts - partition * lag - rand.choice([0, 0, 0, LATENESS // 2, LATENESS, 2 * LATENESS])
        at += ahead * (rand.random() < 0.05)
        event_id, key = f"e{rand.randrange(ids)}", f"k{rand.randrange(5)}"
        predictions.append(_prediction(event_id, at, partition, offset, key, append_ms))
        asked.append((at, event_id))
    delays = [-2 * SKEW, -SKEW - 1, -5_000, -1, 0, 10, HORIZON // 2, HORIZON, HORIZON + 1]
    delays += [2 * HORIZON, 2 * HORIZON + 1, 5 * HORIZON]
    truths = [
        (at + rand.choice(delays), event_id)
        for at, event_id in asked
        for _ in range(rand.choice([0, 1, 1, 2]))
    ]
    truths += [(START_MS + rand.randrange(100_000), f"unknown-{i}") for i in range(5)]
    truths += [(START_MS + rand.randrange(100_000) + ahead, f"ahead-{i}") for i in range(2)]
    truths.sort(key=lambda truth: truth[0] + rand.randrange(rand.choice([1, 10_000, 200_000])))
    labels = [_label(event_id, at, offset) for offset, (at, event_id) in enumerate(truths)]
    for record in rand.sample(predictions, 2) + rand.sample(labels, min(2, len(labels))):
        record.value = rand.choice([None, b"", b"[]", b"{}"])
    return predictions, labels


def _cut(rand: random.Random, records: list[Record]) -> Iterator[list[Record]]:
    rest = list(records)
    while rest:
        size = rand.choice([1, 1, 3, 20])
        yield rest[:size]
        del rest[:size]


def _interleaved(rand: random.Random, inputs: Inputs) -> Iterator[list[Record]]:
    """Both topics in random alternation and random batches, each in its own order."""
    topics = [list(records) for records in inputs]
    bias = rand.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    while any(topics):
        topic = topics[rand.random() < bias] or topics[0] or topics[1]
        size = rand.choice([1, 1, 3, 20])
        yield topic[:size]
        del topic[:size]


def _between(inputs: Inputs, start: tuple[int, int], end: tuple[int, int]) -> Inputs:
    predictions, labels = (
        records[first:last] for records, first, last in zip(inputs, start, end, strict=True)
    )
    return predictions, labels


def _values(outputs: list[Output]) -> list[tuple[str, bytes | None, bytes | None]]:
    return [(output.topic, output.key, output.value) for output in outputs]


def _unnumbered(outputs: list[Output]) -> list[tuple[str, bytes | None, bytes | None]]:
    """What was said, in whatever order: examples are numbered as they come."""
    return [
        (topic, key, _NUMBER.sub(b"", value or b"") if topic == "examples" else value)
        for topic, key, value in _values(outputs)
    ]


def _meaning(join: Join) -> dict[str, Any]:
    """All that a join's future depends on, in a form without order."""
    bound = join._labels_watermark.ms - 2 * HORIZON
    known = [(id_, ts, value, False) for id_, (ts, value) in join._predictions.items()]
    for seen, joined in ((join._joined_ids, True), (join._expired_ids, False)):
        known += [(id_, ts, None, joined) for id_, ts in seen._ts.items() if ts >= bound]
    known += [
        (id_, each.ts, each.value, each.is_joined)
        for id_, others in join._extras.items()
        for each in others
    ]
    newest = join._sources.newest_ms - join._prediction_ids_ms
    return {
        "known": Counter(each for each in known if each[1] >= bound),
        "waiting": {
            id_: [(each.record.offset, each.watermark) for each in waiting]
            for id_, waiting in join._labels._labels.items()
        },
        "taken": {(id_, ts) for id_, ts in join._prediction_ids._ts.items() if ts >= newest},
        "watermarks": (join._labels_watermark.dump(), join._sources.dump()),
        "counts": join.counts,
        "number": join._number,
        "pending": join.pending,
    }


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_where_a_join_stands_and_what_it_has_said_follow_from_its_positions(seed: int) -> None:
    """Whatever the interleaving up to two positions: the same state, the same set of outputs."""
    rand = random.Random(seed)
    inputs = _inputs(rand)
    end = (rand.randint(0, len(inputs[0])), rand.randint(0, len(inputs[1])))
    found, pipeline = [], _declared(rand)
    for _ in range(4):
        join, said = Join(pipeline, EVENT_PARTITIONS), Counter[Any]()
        for batch in _interleaved(rand, _between(inputs, (0, 0), end)):
            said.update(_unnumbered(join.apply(batch)))
        if join.needs_checkpoint():
            return  # too many labels of one id waited: what is said of that is another test
        found.append((_meaning(join), said))

    assert all(found[0] == other for other in found[1:]), f"seed {seed}"


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_a_join_replays_to_the_same_state_however_its_inputs_alternate(seed: int) -> None:
    """Restored from a checkpoint, replayed another way round: it goes on to say the same."""
    rand = random.Random(seed)
    inputs = _inputs(rand)
    sizes = len(inputs[0]), len(inputs[1])
    end = (rand.randint(0, sizes[0]), rand.randint(0, sizes[1]))
    start = (rand.randint(0, end[0]), rand.randint(0, end[1]))
    pipeline = _declared(rand)
    applied, pieces = Join(pipeline, EVENT_PARTITIONS), dict[str, bytes]()
    for batch in _interleaved(rand, _between(inputs, (0, 0), start)):
        applied.apply(batch)
        if rand.random() < 0.2:
            write_down(applied, pieces)
    write_down(applied, pieces)
    again, alike = Join(pipeline, EVENT_PARTITIONS), Join(pipeline, EVENT_PARTITIONS)
    again.restore(pieces.items())
    alike.restore(pieces.items())

    for batch in _interleaved(rand, _between(inputs, start, end)):
        applied.apply(batch)
        alike.replay(batch)
    for batch in _interleaved(rand, _between(inputs, start, end)):
        again.replay(batch)
    if applied.needs_checkpoint():
        return  # as above

    assert _meaning(applied) == _meaning(again), f"seed {seed}"
    assert applied.dirty() == alike.dirty(), f"seed {seed}"
    said, rest = [Counter[Any](), Counter[Any]()], _between(inputs, end, sizes)
    for join, counter in ((applied, said[0]), (again, said[1])):
        for batch in _interleaved(rand, rest):
            counter.update(_unnumbered(join.apply(batch)))
        if join.needs_checkpoint():
            return  # as above: of two ways round only one may have too many labels wait
    assert said[0] == said[1], f"seed {seed}"


def test_what_memory_dropped_must_be_written_down_at_once() -> None:
    """After an overflow the state is not a function of positions: the next commit must hold it."""
    join = Join(pipeline_with_pending_max(10), 1)
    join.apply([_prediction(f"e{i}", START_MS + i, 0, i) for i in range(10)])
    assert not join.needs_checkpoint()
    join.apply([_prediction("e10", START_MS + 10, 0, 10)])

    assert join.needs_checkpoint()
    join.dirty()
    assert not join.needs_checkpoint()


def test_too_many_labels_of_one_id_must_be_written_down_at_once() -> None:
    """So many wait for one prediction, and no more: the next is refused, and that is remembered."""
    join = Join(shop, 1)
    outputs = join.apply([_label("e", START_MS, n) for n in range(LABELS_PER_ID_MAX + 2)])

    assert ["too_many_labels"] * 2 == [output.memo.reason for output in outputs]
    assert (LABELS_PER_ID_MAX, 2) == (join.pending["labels"], join.counts["too_many_labels"])
    assert join.needs_checkpoint()


def test_long_labels_give_way_before_there_are_many() -> None:
    """Labels that wait are bounded in bytes too: the oldest of too many bytes is an orphan."""
    join = Join(pipeline_with_pending_max(100), 1)
    limit = join._labels.bytes_max
    size = LABEL_BYTES_MAX // 2
    labels = []
    for n in range(limit // size + 2):
        value = orjson.dumps({"event_id": f"e{n}", "ts": START_MS, "label": True, "x": "y" * size})
        labels.append(Record("labels", 0, n, None, value, START_MS * 2))
    outputs = join.apply(labels)

    assert {"orphan"} == {o.memo.reason for o in outputs if o.topic == "dead-letters"}
    assert 0 < join.sizes["label_bytes"] <= limit
    assert join.needs_checkpoint()


def test_a_replay_drops_nothing_for_memory_that_was_not_dropped_then() -> None:
    """Predictions first, though their labels came in between: more wait than may, for a while."""
    pipeline = pipeline_with_pending_max(10)
    predictions = [_prediction(f"e{i}", START_MS + i, 0, i) for i in range(25)]
    labels = [_label(f"e{i}", START_MS + 100, i) for i in range(25)]
    applied, replayed = Join(pipeline, 1), Join(pipeline, 1)
    for prediction, label in zip(predictions, labels, strict=True):
        applied.apply([prediction])
        applied.apply([label])

    replayed.replay(predictions)
    replayed.replay(labels)

    assert 25 == applied.counts["joined"]
    assert _meaning(applied) == _meaning(replayed)


@pytest.mark.parametrize("fault", ["orphans", "ids", "watermark", "behind", "idle"])
def test_a_join_that_looks_at_interleaving_is_caught(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The check notices labels dropped too early, ids known by the labels' time, judging late.

    And a prediction from behind the watermark that takes labels which had been orphans, and a
    partition that is idle by what of the labels was read.
    """
    if fault == "orphans":
        monkeypatch.setattr(Join, "_is_about", lambda *_: True)
    elif fault == "ids":
        taken = Join._knows
        monkeypatch.setattr(
            Join, "_knows", lambda self, id_: bool(self._extras) and taken(self, id_)
        )
    elif fault == "behind":
        about = Join._is_about
        monkeypatch.setattr(Join, "_is_about", lambda *args: about(*args[:4]))
    elif fault == "idle":
        orphans = Join._orphans_before
        monkeypatch.setattr(
            Join, "_orphans_before", lambda self: orphans(self) + 30_000 * bool(self._labels)
        )
    else:
        judge = Join._judge

        def by_interleaving(self: Join, label: Any, ts: int, _: int, *, is_joined: bool) -> None:
            judge(self, label, ts, self._labels_watermark.ms, is_joined=is_joined)

        monkeypatch.setattr(Join, "_judge", by_interleaving)

    with pytest.raises(AssertionError):
        test_where_a_join_stands_and_what_it_has_said_follow_from_its_positions()
