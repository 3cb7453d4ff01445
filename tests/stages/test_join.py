"""Join: the set of examples is a function of the logs, whatever order they are read in."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.codec import decode_example, encode_prediction
from stream_ml.records import Prediction, Record, Source
from stream_ml.stages.join import Join
from stream_ml.testing import Driver
from tests.simulation.world import START_MS, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

HORIZON = pipeline.horizon_ms
LATENESS = pipeline.lateness_ms
EVENT_PARTITIONS = 2


def _prediction(event_id: str, ts: int, partition: int, offset: int) -> Record:
    prediction = Prediction(
        event_id, "k", ts, Source(partition, offset), "m@0", -1, 0.5, False, {"amount": 1.0}, {}
    )
    return Record("predictions", 0, offset, None, encode_prediction(prediction), START_MS * 2)


def _label(event_id: str, ts: int, offset: int) -> Record:
    value = orjson.dumps({"event_id": event_id, "ts": ts, "label": True})
    return Record("labels", 0, offset, None, value, START_MS * 2)


def _world(rand: random.Random) -> tuple[list[Record], list[Record]]:
    """Predictions and labels of one join partition, each in its partition's order."""
    asked = []
    ts = START_MS
    for number in range(60):
        ts += rand.randrange(3_000)
        asked.append((f"e{number}", ts - rand.choice([0, 0, 0, LATENESS // 2])))
    predictions = [
        _prediction(event_id, at, rand.randrange(EVENT_PARTITIONS), offset)
        for offset, (event_id, at) in enumerate(asked)
    ]
    truths = [
        (at + rand.choice([-5_000, 0, 10, HORIZON // 2, HORIZON, HORIZON + 1, 3 * HORIZON]), e)
        for e, at in asked
        for _ in range(rand.choice([0, 1, 1, 2]))
    ]
    truths += [(START_MS + rand.randrange(100_000), f"unknown-{i}") for i in range(5)]
    truths.sort(key=lambda truth: truth[0] + rand.randrange(10_000))
    labels = [_label(event_id, at, offset) for offset, (at, event_id) in enumerate(truths)]
    return predictions, labels


def _interleaved(
    rand: random.Random, predictions: list[Record], labels: list[Record]
) -> Iterator[list[Record]]:
    """Both topics in random alternation and random batches, each in its own order."""
    topics = [list(predictions), list(labels)]
    bias = rand.random()
    while any(topics):
        topic = topics[rand.random() < bias] or topics[0] or topics[1]
        size = rand.choice([1, 1, 3, 20])
        yield topic[:size]
        del topic[:size]


def _joined(join: Join, batches: Iterator[list[Record]]) -> set[tuple[str, int, int]]:
    outputs = itertools.chain.from_iterable(map(join.apply, batches))
    examples = [output.memo for output in outputs if output.topic == "examples"]
    pairs = [(e.prediction.event_id, e.prediction.ts, e.label_source.offset) for e in examples]
    assert len(pairs) == len(set(pairs)), "a pair was joined twice"
    return set(pairs)


def _by_definition(predictions: list[Record], labels: list[Record]) -> set[tuple[str, int, int]]:
    """Rule 2 spelled out over whole logs: the first label in time whose watermark is in time."""
    asked = {}
    for record in predictions:
        members = orjson.loads(record.value or b"")
        asked[members["event_id"]] = members["ts"]
    pairs = {}
    watermark = -1
    for record in labels:
        members = orjson.loads(record.value or b"")
        event_id, at = members["event_id"], members["ts"]
        watermark = max(watermark, at)
        if event_id in asked and event_id not in pairs:
            ts = asked[event_id]
            if ts <= at and watermark <= ts + HORIZON:
                pairs[event_id] = (event_id, ts, record.offset)
    return set(pairs.values())


@given(st.integers(0, 2**32))
def test_any_interleaving_joins_the_pairs_that_the_definition_names(seed: int) -> None:
    """Labels first, predictions first, or any mixture: the same examples."""
    rand = random.Random(seed)
    predictions, labels = _world(rand)
    expected = _by_definition(predictions, labels)

    for _ in range(4):
        join = Join(pipeline, EVENT_PARTITIONS)
        assert expected == _joined(join, _interleaved(rand, predictions, labels))
        counts = join.counts
        judged = sum(
            counts[name]
            for name in ("joined", "late", "orphan", "duplicate_label", "label_before_event")
        )
        assert len(labels) == judged + join.pending["labels"]
        assert len(predictions) == (
            counts["joined"] + counts["expired"] + join.pending["predictions"]
        )


def test_a_label_judged_when_its_prediction_turns_up_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check notices a join that judges a label by interleaving instead of by its offset."""
    judge = Join._judge

    def by_interleaving(self: Join, label: Any, ts: int, _: int, *, is_joined: bool) -> None:
        judge(self, label, ts, self._labels_watermark.ms, is_joined=is_joined)

    monkeypatch.setattr(Join, "_judge", by_interleaving)
    rand = random.Random(1)
    caught = 0
    for _ in range(50):
        predictions, labels = _world(rand)
        join = Join(pipeline, EVENT_PARTITIONS)
        joined = _joined(join, _interleaved(rand, predictions, labels))
        caught += joined != _by_definition(predictions, labels)
    assert caught > 0


@given(st.integers(0, 2**32))
def test_state_written_and_taken_up_goes_on_alike(seed: int) -> None:
    """A join restored from its pieces at any point emits what the one that went on emits."""
    rand = random.Random(seed)
    predictions, labels = _world(rand)
    batches = list(_interleaved(rand, predictions, labels))
    expected = Join(pipeline, EVENT_PARTITIONS)
    join, pieces = Join(pipeline, EVENT_PARTITIONS), dict[str, bytes]()

    for batch in batches:
        if rand.random() < 0.3:
            for name, piece in join.dirty():
                if piece is None:
                    pieces.pop(name, None)
                else:
                    pieces[name] = piece
            join = Join(pipeline, EVENT_PARTITIONS)
            join.restore(pieces.items())
        assert [o.value for o in expected.apply(batch)] == [o.value for o in join.apply(batch)]

    assert expected.counts == join.counts
    assert expected.pending == join.pending


def test_without_labels_the_oldest_predictions_give_way_and_an_alert_is_raised() -> None:
    """At `pending_max` the oldest waiting prediction is dropped, counted and alerted."""
    small = pipeline_with_pending_max(10)
    join = Join(small, 1)
    predictions = [_prediction(f"e{i}", START_MS + i, 0, i) for i in range(25)]

    outputs = join.apply(predictions)

    assert {"predictions": 10, "labels": 0} == join.pending
    assert 15 == join.counts["dropped"]
    assert ["alerts"] == [output.topic for output in outputs]
    assert [] == join.apply([_label("e3", START_MS + 100, 0)])
    kept = join.apply([_label("e20", START_MS + 100, 1)])
    assert ["examples"] == [output.topic for output in kept]
    (orphan,) = join.apply([_prediction("z", START_MS + 10 * HORIZON, 0, 25)])
    assert ("orphan", 0) == (orphan.memo.reason, orphan.memo.offset)


def test_labels_for_nothing_give_way_at_pending_max() -> None:
    """At `pending_max` the oldest waiting label becomes an orphan; nothing vanishes unsaid."""
    join = Join(pipeline_with_pending_max(10), 1)

    outputs = join.apply([_label(f"u{i}", START_MS + i, i) for i in range(25)])

    assert {"predictions": 0, "labels": 10} == join.pending
    assert 15 == join.counts["orphan"]
    assert Counter({"dead-letters": 15, "alerts": 1}) == Counter(o.topic for o in outputs)


def test_ids_that_come_again_are_forgotten_in_their_time() -> None:
    """What is held of ids that are used again goes as time passes, also where it was restored."""
    ids, times = 50, 4
    begins = [START_MS + n * (HORIZON + LATENESS + ids) for n in range(times)]
    join = Join(pipeline, 1)
    for n, begin in enumerate(begins):
        for i in range(ids):
            join.apply([_prediction(f"e{i}", begin + i, 0, ids * n + i)])
    restored = Join(pipeline, 1)
    restored.restore((name, value) for name, value in join.dirty() if value is not None)
    for each in (join, restored):
        assert each.pending["predictions"] == ids * times
        each.apply([_label("unknown", begins[1] + HORIZON + ids, 0)])
        assert each.pending["predictions"] == ids * (times - 2)
        each.apply([_label("unknown", begins[-1] + 2 * HORIZON + ids, 1)])
        assert each.pending["predictions"] == 0
    left, left_restored = (
        {(name, value) for name, value in each.dirty() if name.startswith(("p", "o"))}
        for each in (join, restored)
    )
    assert left == left_restored
    assert {value for _, value in left} == {None}


def test_each_refused_label_says_why() -> None:
    """Late, duplicate, before its event and unknown are told apart."""
    join = Join(pipeline, 1)
    join.apply([_prediction("a", START_MS, 0, 0), _prediction("b", START_MS + 10, 0, 1)])
    labels = [
        _label("b", START_MS, 0),
        _label("a", START_MS + 5, 1),
        _label("a", START_MS + 6, 2),
        _label("nobody", START_MS + 7, 3),
        _label("b", START_MS + 11 + HORIZON, 4),
    ]

    outputs = join.apply(labels)
    outputs += join.apply([_prediction("z", START_MS + 10 * HORIZON, 0, 2)])

    reasons = [output.memo.reason for output in outputs if output.topic == "dead-letters"]
    assert ["label_before_event", "duplicate_label", "late", "orphan"] == reasons


@pytest.mark.parametrize("label_first", [False, True], ids=["prediction-first", "label-first"])
def test_a_label_past_its_own_horizon_is_late_though_nobody_leads_the_watermark(
    *, label_first: bool
) -> None:
    """A label is judged by its own time where that is later than the time others support."""
    events = replace(pipeline.events, breadth=3)
    join = Join(replace(pipeline, events=events), 1)
    predictions = [_prediction("a", START_MS, 0, 0), _prediction("b", START_MS, 0, 1)]
    labels = [_label("a", START_MS + HORIZON + 1, 0), _label("b", START_MS + HORIZON, 1)]

    first, second = (labels, predictions) if label_first else (predictions, labels)
    outputs = join.apply(first) + join.apply(second)

    assert {"dead-letters": ["late"], "examples": ["b"]} == {
        "dead-letters": [o.memo.reason for o in outputs if o.topic == "dead-letters"],
        "examples": [o.memo.prediction.event_id for o in outputs if o.topic == "examples"],
    }


@pytest.mark.parametrize("label_first", [False, True], ids=["prediction-first", "label-first"])
@pytest.mark.parametrize(
    ("after", "reasons"),
    [
        (HORIZON, []),
        (HORIZON + 1, ["late"]),
        (2 * HORIZON, ["late"]),
        (2 * HORIZON + 1, ["orphan"]),
    ],
)
def test_a_label_is_late_up_to_twice_the_horizon_and_then_about_nothing(
    *, after: int, reasons: list[str], label_first: bool
) -> None:
    """To the millisecond, whichever of the two is read first."""
    join = Join(pipeline, 1)
    topics = [[_prediction("a", START_MS, 0, 0)], [_label("a", START_MS + after, 0)]]
    outputs = [each for topic in topics[:: -1 if label_first else 1] for each in join.apply(topic)]
    outputs += join.apply([_prediction("z", START_MS + 20 * HORIZON, 0, 1)])

    assert reasons == [o.memo.reason for o in outputs if o.topic == "dead-letters"]
    assert (not reasons) == any(o.topic == "examples" for o in outputs)


@pytest.mark.parametrize("label_first", [False, True], ids=["prediction-first", "label-first"])
@pytest.mark.parametrize("restarts", [False, True], ids=["going-on", "restarted"])
@pytest.mark.parametrize("partitions", [None, 1], ids=["embedded", "cluster"])
def test_an_example_says_who_knew_the_truth(
    *, label_first: bool, restarts: bool, partitions: int | None
) -> None:
    """A label's `source` is in its example, whichever came first and wherever the worker died."""
    label = _label("a", START_MS + 5, 0)
    label.value = (label.value or b"")[:-1] + b',"source":"charge\\"back \xc3\xb8"}'
    first, second = [label], [_prediction("a", START_MS, 0, 0)]
    if not label_first:
        first, second = second, first
    join = Join(pipeline, 1, partitions, keep_decoded=partitions is None)
    assert [] == join.apply(first)
    if restarts:
        pieces = [(name, value) for name, value in join.dirty() if value is not None]
        join = Join(pipeline, 1, partitions, keep_decoded=partitions is None)
        join.restore(pieces)

    (example,) = join.apply(second)

    assert 'charge"back \u00f8' == orjson.loads(example.value or b"")["label_from"]
    decoded = decode_example(example.value)
    assert 'charge"back \u00f8' == decoded.label_from
    assert example.memo == (decoded if partitions is None else None)


@given(st.integers(0, 2**32))
def test_a_second_prediction_of_an_id_leaves_no_example(seed: int) -> None:
    """An event given twice, under another key and in another partition, counts once, the first."""
    rand = random.Random(seed)
    predictions, labels = _world(rand)
    again = rand.randrange(len(predictions))
    # Soon after, as long as its id is known, and in its own partition's order.
    at = rand.randrange(again + 1, min(again + 10, len(predictions)) + 1)
    twin = orjson.loads(predictions[again].value or b"")
    newest = max(orjson.loads(each.value or b"")["ts"] for each in predictions[:at])
    second = _prediction(twin["event_id"], newest, 1 - twin["source"]["partition"], 0)
    twice = [*predictions[:at], second, *predictions[at:]]
    for offset, record in enumerate(twice):
        record.offset = offset
    join = Join(pipeline, EVENT_PARTITIONS)

    assert _by_definition(predictions, labels) == _joined(join, _interleaved(rand, twice, labels))
    assert 1 == join.counts["duplicate_prediction"]


def _lagging(rand: random.Random) -> list[Record]:
    """Predictions of two partitions of events, of which one is far behind all the time."""
    behind = 4 * (HORIZON + LATENESS)
    times = [START_MS + behind, START_MS]
    records = []
    for number in range(60):
        partition = rand.randrange(EVENT_PARTITIONS)
        times[partition] += rand.randrange(3_000)
        records.append(_prediction(f"e{number}", times[partition], partition, number))
    return records


@given(st.integers(0, 2**32))
def test_a_copy_is_refused_however_long_ago_its_id_was_forgotten(seed: int) -> None:
    """Also one of a source far behind the others, at any place, in any batches, over restarts."""
    rand = random.Random(seed)
    predictions = _lagging(rand)
    labels = [
        _label(orjson.loads(each.value or b"")["event_id"], START_MS + 1_000_000, offset)
        for offset, each in enumerate(predictions)
    ]
    mixed = list(predictions)
    for _ in range(rand.randrange(1, 10)):
        copied = rand.randrange(len(mixed))
        mixed.insert(rand.randrange(copied + 1, len(mixed) + 1), replace(mixed[copied]))
    copies = len(mixed) - len(predictions)
    for offset, record in enumerate(mixed):
        record.offset = offset
    undisturbed = Join(pipeline, EVENT_PARTITIONS)
    undisturbed.apply(predictions)
    undisturbed.apply(labels)

    join, pieces = Join(pipeline, EVENT_PARTITIONS), dict[str, bytes]()
    refused = Counter[str]()
    for batch in [*_interleaved(rand, mixed, []), labels]:
        if rand.random() < 0.5:
            for name, piece in join.dirty():
                if piece is None:
                    pieces.pop(name, None)
                else:
                    pieces[name] = piece
            join = Join(pipeline, EVENT_PARTITIONS)
            join.restore(pieces.items())
        for output in join.apply(batch):
            if output.topic == "dead-letters":
                refused[orjson.loads(output.value or b"")["reason"]] += 1

    assert {**undisturbed.counts, "duplicate_prediction": copies} == join.counts
    assert copies == refused["duplicate_prediction"]


def test_a_source_that_begins_anew_goes_on_to_be_joined() -> None:
    """Where events were made anew their offsets begin again: nothing of now is taken for a copy."""
    join = Join(pipeline, EVENT_PARTITIONS)
    join.apply([_prediction("before", START_MS, 0, 5_000)])
    join.apply([_prediction(f"e{n}", START_MS + n, 0, n) for n in range(3)])

    assert 0 == join.counts["duplicate_prediction"]
    assert {"predictions": 4, "labels": 0} == join.pending


def test_an_id_under_two_keys_is_learned_from_once() -> None:
    """Predicted in both partitions, as the manual says: the first counts, the other is refused."""
    event = {"event_id": "twice", "ts": START_MS, "kind": "visit", "amount": 1.0, "city": "oslo"}
    label = {"event_id": "twice", "ts": START_MS + 1_000, "label": True}
    with Driver(pipeline, partitions=4) as driver:
        driver.feed([event | {"shop": "a"}, event | {"shop": "c"}], [label])
        predicted, examples = driver.read("predictions"), driver.read("examples")
        refused = [letter["reason"] for letter in driver.read("dead-letters")]

    assert 2 == len({each["source"]["partition"] for each in predicted}), "or this shows nothing"
    assert ["duplicate_prediction"] == refused
    assert [predicted[0]["source"]] == [each["source"] for each in examples]


def pipeline_with_pending_max(pending_max: int) -> Any:
    """The world's pipeline with a small bound."""
    return replace(pipeline, pending_max=pending_max)


MINUTE_MS = 60_000


def _spoken(event_id: str, ts: int, partition: int, offset: int, append_ms: int) -> Record:
    record = _prediction(event_id, ts, partition, offset)
    record.append_ms = append_ms
    return record


def _with_a_silent_partition(idle: str = "1m") -> tuple[Join, list[str]]:
    """A join where one partition of events goes on, and what it says of three labels of nothing."""
    declared = replace(pipeline, events=replace(pipeline.events, idle=idle))
    join, orphans = Join(declared, 2), []
    join.apply([_label(f"nothing-{n}", START_MS + n, n) for n in range(3)])
    for n in range(20):
        ts, append_ms = START_MS + n * 10 * MINUTE_MS, 2 * START_MS + n * 10_000
        outputs = join.apply([_spoken(f"e{n}", ts, 0, n, append_ms)])
        orphans += [f"{o.memo.reason} {append_ms - 2 * START_MS}" for o in outputs]
    return join, orphans


def test_a_partition_that_never_spoke_holds_up_no_orphan_for_longer_than_declared() -> None:
    """By the time of arrival: whatever event times the others have come to meanwhile."""
    join, orphans = _with_a_silent_partition()
    waiting, none = _with_a_silent_partition(idle="1h")

    assert ["orphan 80000"] * 3 == orphans  # an append time counts with the next one
    assert ([], 3) == (none, waiting.pending["labels"])
    assert 0 == join.pending["labels"]


def test_a_partition_that_comes_back_is_served_and_joined() -> None:
    """From behind the others: by labels that wait and that come, but by none that was an orphan."""
    join, _ = _with_a_silent_partition()
    now_ms = START_MS + 190 * MINUTE_MS  # where the others are
    join.apply([_label("waits", now_ms, 3)])
    late = 2 * START_MS + 200_000
    behind = [("waits", now_ms - HORIZON), ("comes", now_ms - HORIZON), ("nothing-1", START_MS)]
    outputs = join.apply([_spoken(e, ts, 1, 20 + n, late) for n, (e, ts) in enumerate(behind)])
    outputs += join.apply([_label("comes", now_ms, 4), _label("nothing-1", START_MS + 5, 5)])

    joined = [o.memo.prediction.event_id for o in outputs if o.topic == "examples"]
    refused = [(o.memo.reason, o.memo.offset) for o in outputs if o.topic == "dead-letters"]
    assert ["waits", "comes"] == joined
    assert [("orphan", 5)] == refused


def test_a_partition_is_not_idle_for_one_append_time_that_is_ahead() -> None:
    """A worker whose clock was ahead for one record makes no silence."""
    declared = replace(pipeline, events=replace(pipeline.events, idle="1m"))
    join = Join(declared, 2)
    join.apply([_label("nothing", START_MS, 0)])
    ahead = [0, 1_000, 10 * MINUTE_MS, 3_000, 4_000]
    for n, ms in enumerate(ahead):
        outputs = join.apply(
            [_spoken(f"e{n}", START_MS + n * 10 * MINUTE_MS, 0, n, 2 * START_MS + ms)]
        )
        assert [] == outputs

    assert 1 == join.pending["labels"]
