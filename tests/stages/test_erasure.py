"""A key that is to be forgotten: what stages hold of it goes, at a place on the log."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.codec import decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.records import Command, Record
from stream_ml.shell.forget import append_markers, erasures_of
from stream_ml.signing import RollingKey
from stream_ml.stages.erasure import (
    ERASURES_MAX,
    Erasure,
    Erasures,
    LateErasures,
    ObeyedErasures,
    subject_of,
)
from stream_ml.stages.join import Join
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.testing import Driver
from tests.shop import KEY, START_MS, event, shop, started, stream
from tests.stages.test_generations import former, wider
from tests.stages.test_replay import (
    EVENT_PARTITIONS,
    Inputs,
    _between,
    _cut,
    _declared,
    _events,
    _inputs,
    _interleaved,
    _label,
    _meaning,
    _prediction,
    _unnumbered,
    write_down,
)

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

SEEDS = st.integers(0, 2**32)
ERASURES = Erasures(KEY, "shop", "log")


def marker(key: str, *, partition: int = 0, end: int = -1, **members: Any) -> Erasure:
    """That a key is to be forgotten, up to an offset of its partition of events."""
    members = {"pipeline": "shop", "log": "log", **members}
    return Erasure(subject_of(key, KEY), "f", START_MS, partition=partition, end=end, **members)


def at(topic: str, offset: int, erasure: Erasure, erasures: Erasures = ERASURES) -> Record:
    """A marker as it lies on the log, of a command of its own."""
    erasure = replace(erasure, command_id=f"{erasure.command_id}{offset}")
    return Record(topic, 0, offset, None, erasures.encode(erasure), START_MS * 2)


def a_join(pipeline: Pipeline = shop) -> Join:
    """One that reads markers."""
    return Join(pipeline, EVENT_PARTITIONS, erasures=ERASURES)


def a_predict(serving: Serving) -> Predict:
    """One that reads markers."""
    return Predict(shop, serving, erasures=ERASURES)


def pieces_of(stage: Join | Predict) -> dict[str, bytes]:
    """All that it would write down."""
    pieces: dict[str, bytes] = {}
    write_down(stage, pieces)
    return pieces


# --- predict ----------------------------------------------------------------------------------


def test_the_windows_of_a_key_go_at_the_marker_and_others_stay() -> None:
    """What comes of the key later sees nothing of what was before; nothing written names it."""
    predict = a_predict(started(shop)[2])
    before = [
        event(n, ts=START_MS + n, shop=key, kind="order", amount=5.0)
        for n, key in enumerate(["ada", "bob", "ada"])
    ]
    predict.apply(before)
    written = dict(predict.dirty())
    predict.apply([at("events", 3, marker("ada"))])
    gone = {name for name, value in predict.dirty() if value is None}
    later = [event(4 + n, ts=START_MS + 10, shop=key) for n, key in enumerate(["ada", "bob"])]
    counts = [
        decode_prediction(output.value).features["count_1m_kind=order"]
        if "count_1m_kind=order" in decode_prediction(output.value).features
        else sum(decode_prediction(output.value).features.values())
        for output in predict.apply(later)
        if output.topic == "predictions"
    ]

    assert {name for name in written if '"ada"' in name} == gone
    assert 2 == len(gone)
    assert counts[0] < counts[1]
    assert 1 == predict.counts["keys_forgotten"]


def test_a_copy_of_a_marker_forgets_nothing_also_after_a_restart() -> None:
    """Whoever may write events may repeat its bytes; it becomes a dead letter, and windows stay."""
    predict, copy = a_predict(started(shop)[2]), ERASURES.encode(marker("ada"))
    predict.apply([Record("events", 0, 0, None, copy, START_MS * 2)])
    later = a_predict(started(shop)[2])
    later.restore(pieces_of(predict).items())
    later.apply([event(1, ts=START_MS, shop="ada", kind="order", amount=5.0)])
    outputs = later.apply([Record("events", 0, 2, None, copy, START_MS * 2)])

    assert ["dead-letters"] == [output.topic for output in outputs]
    assert ["duplicate"] == [orjson.loads(outputs[0].value or b"")["reason"]]
    assert 0 == later.counts["keys_forgotten"]


def test_of_many_markers_the_newest_are_known_and_none_is_obeyed_twice() -> None:
    """What was let go is told by when it was given."""
    obeyed = ObeyedErasures()
    markers = [replace(marker("a"), command_id=str(n), given_ms=n) for n in range(ERASURES_MAX + 5)]
    for each in markers:
        obeyed.take(each)
    restored = ObeyedErasures()
    restored.load(orjson.loads(orjson.dumps(obeyed.dump())))
    refused = 0
    for each in markers:
        with pytest.raises(BadRecord):
            restored.take(each)
        refused += 1

    assert len(markers) == refused
    assert ERASURES_MAX == len(restored.dump()[1])


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_predict_forgets_alike_in_any_batches_and_after_a_checkpoint(seed: int) -> None:
    """Restored and replayed in other batches it holds the same, byte for byte, and not the key."""
    rand = random.Random(seed)
    events = _events(rand, 120)
    for place in rand.sample(range(120), 3):
        events[place] = at("events", place, marker(rand.choice("abc")))
    events[110] = at("events", 110, marker("a"))
    checkpoint, end = rand.randrange(1, 111), 111
    applied, pieces = a_predict(started(shop)[2]), dict[str, bytes]()
    applied.apply(events[:checkpoint])
    write_down(applied, pieces)
    applied.apply(events[checkpoint:end])

    replayed = a_predict(Serving(shop, KEY))
    replayed.restore(pieces.items())
    for batch in _cut(rand, events[checkpoint:end]):
        replayed.replay(batch)
    write_down(applied, pieces)

    assert pieces == pieces | dict(each for each in replayed.dirty() if each[1] is not None)
    assert not [name for name in pieces if '"a"' in name]
    assert b'"a"' not in pieces[""]


# --- join -------------------------------------------------------------------------------------


def with_markers(rand: random.Random, inputs: Inputs) -> Inputs:
    """The same inputs with markers among the labels."""
    predictions, labels = inputs
    for _ in range(rand.choice([1, 2, 4])):
        erasure = marker(
            f"k{rand.randrange(5)}",
            partition=rand.randrange(EVENT_PARTITIONS),
            end=rand.randrange(len(predictions) + 5),
        )
        labels.insert(rand.randint(0, len(labels)), at("labels", 0, erasure))
    return predictions, [replace(record, offset=n) for n, record in enumerate(labels)]


@settings(max_examples=120, deadline=None)
@given(SEEDS)
def test_what_a_join_forgets_follows_from_its_positions(seed: int) -> None:
    """Whatever the interleaving of predictions, labels and markers: same state, same outputs."""
    rand = random.Random(seed)
    inputs = with_markers(rand, _inputs(rand))
    end = (rand.randint(0, len(inputs[0])), rand.randint(0, len(inputs[1])))
    found, pipeline = [], _declared(rand)
    for _ in range(4):
        join, said = a_join(pipeline), Counter[Any]()
        for batch in _interleaved(rand, _between(inputs, (0, 0), end)):
            said.update(_unnumbered(join.apply(batch)))
            if rand.random() < 0.1:
                pieces = pieces_of(join)
                assert pieces_of(join).keys() <= pieces.keys()
        if join.needs_checkpoint():
            return
        found.append((_meaning(join), said))

    assert all(found[0] == other for other in found[1:]), f"seed {seed}"


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_a_join_that_is_restored_forgets_on(seed: int) -> None:
    """Markers that predictions may come late for are written down with the state."""
    rand = random.Random(seed)
    inputs = with_markers(rand, _inputs(rand))
    batches = list(_interleaved(rand, inputs))
    through, pieces, restored = a_join(), dict[str, bytes](), a_join()
    outputs: list[list[Any]] = [[], []]
    for batch in batches:
        outputs[0] += _unnumbered(through.apply(batch))
        outputs[1] += _unnumbered(restored.apply(batch))
        if rand.random() < 0.2:
            write_down(restored, pieces)
            restored = a_join()
            restored.restore(pieces.items())

    assert outputs[0] == outputs[1], f"seed {seed}"


def test_a_join_that_minds_no_late_predictions_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of interleavings finds a join that only forgets what waits."""
    monkeypatch.setattr(LateErasures, "add", lambda *_: None)
    with pytest.raises(AssertionError, match="seed"):
        test_what_a_join_forgets_follows_from_its_positions()


def test_a_waiting_prediction_of_the_key_goes_and_others_stay() -> None:
    """A label that comes later is about nothing; one that lay there before is joined."""
    join = a_join()
    join.apply([_prediction(f"e{n}", START_MS + n, 0, n, key) for n, key in enumerate("abab")])
    join.apply([_label("e0", START_MS + 5, 0), at("labels", 1, marker("a", end=4))])
    outputs = join.apply([_label(f"e{n}", START_MS + 6, 1 + n) for n in (1, 2, 3)])

    assert ["e1", "e3"] == [o.key.decode() for o in outputs if o.key and o.topic == "examples"]
    assert 1 == join.counts["forgotten"]
    assert {"predictions": 0, "labels": 1} == join.pending
    assert not [name for name, value in join.dirty() if b'"key":"a"' in (value or b"")]


# --- markers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("erasure", "erasures", "reason"),
    [
        (marker("a"), Erasures(b"another key", "shop", "log"), "signature"),
        (marker("a", pipeline="other"), ERASURES, "foreign_command"),
        (marker("a", log="other"), ERASURES, "foreign_command"),
    ],
)
def test_a_marker_that_is_not_ours_forgets_nothing(
    erasure: Erasure, erasures: Erasures, reason: str
) -> None:
    """Signed with another key, or for another pipeline or log, it is a dead letter."""
    predict = a_predict(started(shop)[2])
    predict.apply([event(0, ts=START_MS, shop="a", kind="order")])
    [letter] = predict.apply([at("events", 1, erasure, erasures)])
    [other] = a_join().apply([at("labels", 1, erasure, erasures)])

    assert [reason, reason] == [
        orjson.loads(each.value or b"")["reason"] for each in (letter, other)
    ]
    assert 1 == predict.sizes["keys"]


def test_a_former_key_of_the_pipeline_still_stands_for_its_subjects() -> None:
    """After the pipeline's key was changed, markers under the former one are read as before."""
    rolled = Erasures(RollingKey(b"new", former=KEY), "shop", "log")
    erasure = rolled.decode(ERASURES.encode(marker("a")))
    assert (rolled.means(erasure, "a"), rolled.means(erasure, "b")) == (True, False)
    with pytest.raises(BadRecord):
        Erasures(b"new", "shop", "log").decode(ERASURES.encode(marker("a")))


def test_windows_that_are_filled_from_the_log_hold_nothing_of_a_forgotten_key() -> None:
    """Features that are added in flight are made of the events again: of those behind a marker."""
    events, labels = stream(count=300)
    with Driver(former) as driver:
        driver.feed(events, labels)
        before = {name for name, _ in driver.log.state("predict-0") if '"a"' in name}
        log = driver.log
        command = Command("f", "forget", driver.now_ms, "local", "ana", "asked for")
        append_markers(log, former, erasures_of(log, former, b"testing"), "a", command)
        driver.run()
        driver.declare(wider, apply="orders say more")
        driver.run()
        names = {name for name, _ in driver.log.state("predict-0")}

    assert 0 < len(before)
    assert {name for name in names if '"b"' in name}
    assert not {name for name in names if '"a"' in name}
