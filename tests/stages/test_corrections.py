"""What silence is taken for, and labels that are corrected: a function of the logs as all else."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model

import stream_ml as sml
from stream_ml.codec import decode_example
from stream_ml.stages.corrections import Corrections, StandingLabel
from stream_ml.stages.join import Join
from stream_ml.stages.lessons import Lessons
from stream_ml.stages.task import DirtyKeys
from tests.shop import START_MS, shop
from tests.stages.test_erasure import a_join, pieces_of, with_markers
from tests.stages.test_join import _world
from tests.stages.test_replay import (
    EVENT_PARTITIONS,
    HORIZON,
    _between,
    _declared,
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
    from stream_ml.records import Example, Output, Record

SEEDS = st.integers(0, 2**32)
WINDOW = HORIZON // 4


def corrected(pipeline: Pipeline, **label: Any) -> Pipeline:
    """The same pipeline, where labels are waited for, and corrected, otherwise."""
    return replace(pipeline, label=replace(pipeline.label, **label))


SILENT = {"window": WINDOW, "absent": False}


def drawn(rand: random.Random) -> Pipeline:
    """One that declares one of the two, or both."""
    corrections = {"corrections": rand.choice([HORIZON // 8, HORIZON, 3 * HORIZON])}
    declared = rand.choice([SILENT, corrections, SILENT | corrections])
    return corrected(_declared(rand), **declared)


def told(rand: random.Random, labels: list[Record]) -> list[Record]:
    """The same labels, of which some say False."""
    for record in labels:
        if rand.random() < 0.4 and record.value:
            record.value = record.value.replace(b'"label":true', b'"label":false')
    return labels


def examples(outputs: list[Output]) -> list[Example]:
    """Those among what was written."""
    return [decode_example(each.value) for each in outputs if each.topic == "examples"]


def standing(join: Join) -> dict[str, Any]:
    """What may still be corrected."""
    corrections = join._corrections
    assert corrections is not None
    watermark = join._labels_watermark.ms
    return {
        name: each
        for name, each in corrections._standing.items()
        if corrections.end_ms(each) >= watermark
    }


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_silence_and_corrections_follow_from_positions_whatever_the_interleaving(seed: int) -> None:
    """Predictions, labels and markers in any alternation: same state, same set of outputs."""
    rand = random.Random(seed)
    inputs = _inputs(rand)
    inputs = inputs[0], told(rand, inputs[1])
    if rand.random() < 0.5:
        inputs = with_markers(rand, inputs)
    end = (rand.randint(0, len(inputs[0])), rand.randint(0, len(inputs[1])))
    found, pipeline = [], drawn(rand)
    for _ in range(4):
        join, said = a_join(pipeline), Counter[Any]()
        for batch in _interleaved(rand, _between(inputs, (0, 0), end)):
            said.update(_unnumbered(join.apply(batch)))
        if join.needs_checkpoint():
            return
        found.append((_meaning(join), standing(join), said))

    assert all(found[0] == other for other in found[1:]), f"seed {seed}"


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_join_that_is_restored_corrects_on(seed: int) -> None:
    """What may be corrected is written down with the state, and dropped from it when it may not."""
    rand = random.Random(seed)
    inputs, pipeline = _inputs(rand), drawn(rand)
    through, pieces = Join(pipeline, EVENT_PARTITIONS, keep_decoded=False), dict[str, bytes]()
    restored = a_join(pipeline)
    outputs: list[list[Any]] = [[], []]
    for batch in _interleaved(rand, (inputs[0], told(rand, inputs[1]))):
        outputs[0] += _unnumbered(through.apply(batch))
        outputs[1] += _unnumbered(restored.apply(batch))
        if rand.random() < 0.2:
            write_down(restored, pieces)
            restored = a_join(pipeline)
            restored.restore(pieces.items())
    write_down(restored, pieces)

    assert outputs[0] == outputs[1], f"seed {seed}"
    corrections = restored._corrections
    assert corrections is not None
    assert set(corrections._standing) == {name[1:] for name in pieces if name.startswith("c")}


def test_a_correction_that_is_judged_by_interleaving_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test of interleavings notices a join that lets go of what may be corrected too soon."""
    drop_before = Corrections.drop_before
    monkeypatch.setattr(
        Corrections, "drop_before", lambda self, ms: drop_before(self, ms + HORIZON // 8)
    )
    with pytest.raises(AssertionError, match="seed"):
        test_silence_and_corrections_follow_from_positions_whatever_the_interleaving()


def _last_words(
    predictions: list[Record], labels: list[Record], window: int, span: int
) -> dict[str, list[tuple[bool, bool]]]:
    """By event id, each label that stood, with whether silence said it: over whole logs."""
    asked = {}
    for record in predictions:
        members = orjson.loads(record.value or b"")
        asked[members["event_id"]] = members["ts"]
    stood: dict[str, list[tuple[bool, bool]]] = {event_id: [] for event_id in asked}
    first: dict[str, int] = {}
    watermark = -1
    horizon = corrected(shop).horizon_ms
    for record in labels:
        members = orjson.loads(record.value or b"")
        event_id, at, label = members["event_id"], members["ts"], members["label"]
        watermark = max(watermark, at)
        if event_id not in asked or at < asked[event_id]:
            continue
        ts, words = asked[event_id], stood[event_id]
        end = first[event_id] + span if event_id in first else ts + horizon
        if watermark > end:
            continue
        if not words and watermark > ts + window:
            words.append((False, True))
        first.setdefault(event_id, at)
        if not words or words[-1][0] != label:
            words.append((label, False))
    for event_id, words in stood.items():
        if not words and watermark > asked[event_id] + window:
            words.append((False, True))
    return {event_id: words for event_id, words in stood.items() if words}


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_labels_that_stand_are_those_of_the_definition(seed: int) -> None:
    """Silence counts after the window, and the last word on the log after that."""
    rand = random.Random(seed)
    predictions, labels = _world(rand)
    labels, span = told(rand, labels), HORIZON // 2
    pipeline = corrected(_declared_alone(), **SILENT, corrections=span)
    join, stood = Join(pipeline, EVENT_PARTITIONS), dict[str, list[tuple[bool, bool]]]()
    for batch in _interleaved(rand, (predictions, labels)):
        for example in examples(join.apply(batch)):
            words = stood.setdefault(example.prediction.event_id, [])
            correction = example.correction
            former = None if correction is None else correction.label
            assert former == (words[-1][0] if words else None)
            words.append((bool(example.label), example.implicit))

    assert _last_words(predictions, labels, WINDOW, span) == stood


def _declared_alone() -> Pipeline:
    return replace(shop, events=replace(shop.events, breadth=1))


def test_a_later_label_takes_the_place_of_silence_and_says_so() -> None:
    """No click within the window is a no; a click after it is a yes, about the same prediction."""
    join = Join(corrected(_declared_alone(), **SILENT), 1)
    join.apply([_prediction("a", START_MS, 0, 0), _prediction("b", START_MS + 1, 0, 1)])
    silence = examples(join.apply([_label("b", START_MS + WINDOW + 1, 0)]))
    click = examples(join.apply([_label("a", START_MS + WINDOW + 2, 1)]))

    assert [("a", False, START_MS + WINDOW, True)] == [
        (e.prediction.event_id, e.label, e.label_ts, e.implicit) for e in silence[:1]
    ]
    [yes] = click
    assert (True, START_MS + WINDOW + 2, False) == (yes.label, yes.label_ts, yes.implicit)
    assert yes.correction is not None
    assert (False, START_MS + WINDOW, True) == (
        yes.correction.label,
        yes.correction.ts,
        yes.correction.implicit,
    )
    assert yes.prediction == silence[0].prediction


def test_a_join_that_begins_anew_gives_no_number_twice() -> None:
    """However rare positives are: learn and evaluate would take new examples for former ones."""
    declared = replace(corrected(_declared_alone(), **SILENT), pending_max=10_000)
    former, anew = Join(declared, 1), Join(declared, 1)
    former.apply([_prediction(f"e{n}", START_MS + n, 0, n) for n in range(3_000)])
    given = examples(former.apply([_label("e2999", START_MS + WINDOW + 2_999, 0)]))
    anew.apply([_prediction(f"e{n}", START_MS + n, 0, n) for n in range(2_990, 3_000)])
    later = examples(anew.apply([_label("e2999", START_MS + WINDOW + 2_999, 1)]))

    assert 2_999 <= len(given)
    assert max(e.number or 0 for e in given) < min(e.number or 0 for e in later)


def test_a_correction_after_its_time_is_a_dead_letter_with_its_reason() -> None:
    """What comes later than declared is counted, and changes nothing."""
    join = Join(corrected(_declared_alone(), corrections=10), 1)
    join.apply([_prediction("a", START_MS, 0, 0)])
    outputs = join.apply([_label("a", START_MS + 1, 0)])
    late = told(random.Random(3), [_label("a", START_MS + 12, 1)])
    late[0].value = (late[0].value or b"").replace(b"true", b"false")
    outputs += join.apply(late)

    assert ["late_correction"] == [o.memo.reason for o in outputs if o.topic == "dead-letters"]
    assert (1, 1, 0) == tuple(
        join.counts[name] for name in ("joined", "late_correction", "corrected")
    )


def test_no_more_predictions_are_kept_for_corrections_than_may_wait() -> None:
    """Those whose time is over soonest go first, counted and alerted, with the next commit."""
    join = Join(replace(corrected(_declared_alone(), corrections=HORIZON), pending_max=5), 1)
    for n in range(8):
        join.apply([_prediction(f"e{n}", START_MS + n, 0, n)])
        outputs = join.apply([_label(f"e{n}", START_MS + n, n)])

    assert (5, 3) == (join.sizes["correctable"], join.counts["dropped"])
    assert join.needs_checkpoint()
    assert not [o for o in outputs if o.topic == "dead-letters"]


def test_silence_of_a_number_is_the_same_in_memory_as_on_the_log() -> None:
    """A learner is given a float for it, whether it has read the example or was handed it."""
    pipeline = sml.Pipeline(
        "orders",
        events=sml.Events(key="customer", fields={"amount": float}, breadth=1),
        features=[sml.field("amount")],
        label=sml.Label(float, window="1h", absent=0),
        champion="line",
        models={"line": linear_model.LinearRegression()},
    )
    join = Join(pipeline, 1)
    join.apply([_prediction("a", START_MS, 0, 0)])
    label = _label("b", START_MS + 3_600_001, 0)
    label.value = (label.value or b"").replace(b"true", b"1.5")
    [output] = [each for each in join.apply([label]) if each.topic == "examples"]
    read = decode_example(output.value)

    assert output.memo is not None
    assert ("0.0", "0.0") == (repr(output.memo.label), repr(read.label))


def test_a_click_whose_silence_is_kept_no_more_is_told_so() -> None:
    """It is refused for what it would correct, and the alert names what grew too many."""
    join = Join(replace(corrected(_declared_alone(), **SILENT), pending_max=2), 1)
    outputs = []
    for n in range(2):
        for i in (2 * n, 2 * n + 1):
            outputs += join.apply([_prediction(f"e{i}", START_MS + i, 0, i)])
        outputs += join.apply([_label(f"x{n}", START_MS + WINDOW + 5 + n, n)])
    outputs += join.apply([_label("e0", START_MS + WINDOW + 10, 2)])

    [letter] = [o.memo for o in outputs if o.topic == "dead-letters"]
    assert "duplicate_label" == letter.reason
    assert "silence was joined for it and is kept no more" in letter.message
    [alert] = [o.memo for o in outputs if o.topic == "alerts"]
    assert "more than 2 labels may be corrected" in alert.message


def test_a_label_that_is_corrected_again_and_again_takes_no_more_memory() -> None:
    """One label stands, and its end is kept once, though its value never rests."""
    corrections = Corrections(corrected(_declared_alone(), corrections="30d"), DirtyKeys[str]())
    for n in range(100):
        corrections.put("e", StandingLabel(0, b"{}", n % 2 == 0, n, None if n == 0 else 1, 0))

    assert [(1, 2)] == [(len(corrections), len(corrections._ends))]


def test_what_is_not_declared_any_more_is_dropped_from_the_state() -> None:
    """A pipeline that corrects no more goes on from the state, and keeps nothing of it."""
    join = a_join(corrected(shop, corrections=HORIZON))
    join.apply([_prediction("a", START_MS, 0, 0)])
    join.apply([_label("a", START_MS, 0)])
    pieces = pieces_of(join)
    later = a_join(shop)
    later.restore(pieces.items())
    write_down(later, pieces)

    assert not [name for name in pieces if name.startswith("c")]


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (sml.Label(bool), "label.horizon"),
        (sml.Label(bool, "1d", window="1h"), "label.absent"),
        (sml.Label(bool, "1d", absent=False), "label.window"),
        (sml.Label(bool, "1d", window="2d", absent=False), "label.window"),
        (sml.Label(bool, "1d", window="1h", absent=0), "label.absent"),
        (sml.Label(float, "1d", window="1h", absent="none"), "label.absent"),
        (sml.Label(sml.Enum("a", "b"), "1d", window="1h", absent="c"), "label.absent"),
        (sml.Label(bool, "1d", corrections="soon"), "label.corrections"),
        (sml.Label(bool, "1d", relearn="yes"), "label.relearn"),  # type: ignore[arg-type]
        (sml.Label(bool, "1d", sources=["bot"]), "label.sources"),  # type: ignore[arg-type]
        (sml.Label(bool, "1d", sources={"bot": 2}), "label.sources.bot"),
        (sml.Label(bool, "1d", sources={3: 0.5}), "label.sources"),  # type: ignore[dict-item]
    ],
)
def test_what_silence_means_is_declared_whole_or_refused(label: sml.Label, problem: str) -> None:
    """Each mistake is named by its path, and nothing runs."""
    with pytest.raises(sml.errors.DeclarationError) as refused:
        replace(shop, label=label)

    assert problem in {each.path for each in refused.value.problems}


def test_seven_windows_are_the_horizon_where_none_is_declared() -> None:
    """`Label(bool, window="1d", absent=False)` is enough."""
    label = sml.Label(bool, window="1d", absent=False)

    assert (7 * 86_400_000, 86_400_000) == (label.horizon_ms, label.window_ms)


def by(source: str, event_id: str, offset: int, label: str = "true") -> Record:
    """A label of a source."""
    record = _label(event_id, START_MS + offset, offset)
    told_by = b'"label":%b,"source":"%b"' % (label.encode(), source.encode())
    record.value = (record.value or b"").replace(b'"label":true', told_by)
    return record


def test_labels_of_an_excluded_source_are_as_if_they_had_not_come() -> None:
    """They join and correct nothing, lead no watermark, and are counted."""
    declared = corrected(_declared_alone(), sources={"bot": 0}, corrections=HORIZON)
    join = Join(declared, 1)
    join.apply([_prediction("a", START_MS, 0, 0)])
    labels = [by("bot", "a", 0), by("person", "a", 1), by("bot", "a", 2, "false")]
    labels.append(by("bot", "a", 10 * HORIZON, "false"))
    outputs = join.apply(labels)

    assert [("person", True)] == [(e.label_from, e.label) for e in examples(outputs)]
    assert (3, 1) == (join.counts["excluded"], join.counts["joined"])
    assert START_MS + 1 == join._labels_watermark.ms
    assert not [o for o in outputs if o.topic == "dead-letters"]


def test_a_share_of_a_source_is_learned_and_the_same_by_every_line() -> None:
    """About as many as declared; of others, and of nobody's, all; twice asked, the same ones."""
    label = sml.Label(bool, "1d", sources={"survey": 0.2})
    join = Join(_declared_alone(), 1)
    count = 1_000
    join.apply([_prediction(f"e{n}", START_MS, 0, n) for n in range(count)])
    sources = ["survey", "person"]
    joined = examples(join.apply([by(sources[n % 2], f"e{n}", n) for n in range(count)]))
    taken = [
        {
            source: [
                each.prediction.event_id
                for each in joined
                if lessons.takes(each, label) and each.label_from == source
            ]
            for source in sources
        }
        for lessons in (Lessons(), Lessons())
    ]

    assert taken[0] == taken[1]
    assert count // 2 == len(taken[0]["person"])
    assert len(taken[0]["survey"]) == pytest.approx(0.2 * count // 2, abs=30)
