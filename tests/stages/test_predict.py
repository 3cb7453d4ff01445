"""Predict: which events are taken, what windows see, and what is said when a model says nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, naive_bayes, preprocessing

import stream_ml as sml
from stream_ml.stages.dedup import SeenIds
from stream_ml.stages.predict import Predict
from stream_ml.stages.state import BLOCKS
from stream_ml.testing import Driver
from tests.shop import START_MS, declare, event, shop, started, stream

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output

LATENESS = shop.lateness_ms


def predict_stage(pipeline: Pipeline = shop) -> Predict:
    """A predict stage that is ready."""
    return Predict(pipeline, started(pipeline)[2])


def refusals(outputs: list[Output]) -> list[tuple[int, str, str]]:
    """What was refused: offset, reason, path."""
    letters = [orjson.loads(o.value or b"") for o in outputs if o.topic == "dead-letters"]
    return [(letter["offset"], letter["reason"], letter["path"]) for letter in letters]


def predictions(outputs: list[Output]) -> list[dict[str, Any]]:
    """What was predicted."""
    return [orjson.loads(o.value or b"") for o in outputs if o.topic == "predictions"]


def test_an_event_of_a_known_id_is_a_duplicate_whatever_else_it_says() -> None:
    """The first event of an id counts; the second gets no prediction."""
    outputs = predict_stage().apply(
        [event(0), event(1, event_id="e0", amount=9.0, ts=START_MS + 5)]
    )

    assert [(1, "duplicate", "$.event_id")] == refusals(outputs)
    assert ["e0"] == [p["event_id"] for p in predictions(outputs)]


def test_lateness_includes_its_bound() -> None:
    """An event exactly as late as allowed is taken, one millisecond later it is not."""
    outputs = predict_stage().apply(
        [
            event(0),
            event(1, ts=START_MS - LATENESS),
            event(2, ts=START_MS - LATENESS - 1),
        ]
    )

    assert [(2, "too_late", "$.ts")] == refusals(outputs)
    assert ["e0", "e1"] == [p["event_id"] for p in predictions(outputs)]


def test_more_lateness_after_an_upgrade_takes_no_id_for_a_new_one() -> None:
    """State of a former release does not say its lateness: its ids say how far back they go."""
    wider = declare(events=replace(shop.events, lateness="1h"))
    states = []
    for pipeline in (shop, wider):
        stage, former = predict_stage(pipeline), predict_stage()
        former.apply([event(0), event(1, ts=START_MS + 100_000)])
        pieces = {name: value or b"" for name, value in former.dirty()}
        keyless = orjson.loads(pieces[""])
        del keyless["lateness"]
        stage.restore({**pieces, "": orjson.dumps(keyless)}.items())
        states.append(stage)

    same, longer = states

    assert [] == refusals(same.apply([event(2, ts=START_MS + 90_000)]))
    late = [event(2, event_id="e0"), event(3, ts=START_MS + 99_999), event(4, event_id="e1")]
    assert [(2, "too_late"), (3, "too_late"), (4, "too_late")] == [
        each[:2] for each in refusals(longer.apply(late))
    ]
    assert [] == refusals(longer.apply([event(5, ts=START_MS + 100_000)]))


def test_skew_includes_its_bound() -> None:
    """An event may be as much ahead of its arrival as is declared, and no more."""
    skew = shop.skew_ms
    outputs = predict_stage().apply(
        [
            event(0, append_ms=START_MS - skew),
            event(1, ts=START_MS + 1, append_ms=START_MS - skew),
        ]
    )

    assert [(1, "from_the_future", "$.ts")] == refusals(outputs)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_no_duplicate_slips_through_however_long_it_waits(seed: int) -> None:
    """A repeated event is a duplicate as long as it is not too late, and too late after that."""
    rand = random.Random(seed)
    stage = predict_stage()
    past: list[tuple[str, int]] = []
    ts = START_MS
    for offset in range(300):
        ts += rand.choice([0, 10, 1_000, LATENESS // 3])
        if past and rand.random() < 0.5:
            event_id, at = rand.choice(past[-30:])
            outputs = stage.apply([event(offset, event_id=event_id, ts=at)])
            ((_, reason, _),) = refusals(outputs)
            watermark = max(at for _, at in past)
            expected = "too_late" if at < watermark - LATENESS else "duplicate"
            assert expected == reason, f"seed {seed}, offset {offset}"
        else:
            assert not refusals(stage.apply([event(offset, ts=ts)]))
            past.append((f"e{offset}", ts))


def test_ids_forgotten_too_early_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check on duplicates notices ids that are forgotten a bucket too early."""
    forget = SeenIds.forget_before
    monkeypatch.setattr(
        SeenIds, "forget_before", lambda self, bound: forget(self, bound + LATENESS // 2)
    )

    with pytest.raises((AssertionError, ValueError)):
        test_no_duplicate_slips_through_however_long_it_waits()


def test_windows_never_see_the_event_itself_nor_its_own_instant() -> None:
    """A window ends before the event: what else happened at the same millisecond is out."""
    stage = predict_stage()
    (first,) = predictions(stage.apply([event(0, amount=10.0)]))
    (same,) = predictions(stage.apply([event(1, amount=99.0)]))
    (next_,) = predictions(stage.apply([event(2, ts=START_MS + 1, amount=1.0)]))
    (late,) = predictions(stage.apply([event(3, amount=1.0)]))
    (gone,) = predictions(stage.apply([event(4, ts=START_MS + 30_001, amount=1.0)]))

    mean = "mean(amount) 30s"
    assert [0.0, 0.0, 54.5, 0.0, 1.0] == [
        p["features"][mean] for p in (first, same, next_, late, gone)
    ]


def test_what_is_refused_leaves_no_mark_on_what_follows() -> None:
    """Bad, early, late and repeated events change no window, no id and no watermark."""
    skew = shop.skew_ms
    refused = [
        event(101, amount="2.5"),
        event(102, ts=START_MS + 10_000 + skew + 1, append_ms=START_MS + 10_000),
        event(103, ts=START_MS - LATENESS - 1, amount=77.0),
        event(104, event_id="e0", ts=START_MS + 9_000, amount=77.0),
    ]
    good = [event(n, ts=START_MS + 1_000 * n, amount=float(n)) for n in range(10)]
    disturbed, quiet = predict_stage(), predict_stage()
    reasons = []

    for each in good:
        before = dict(quiet.apply([each]) and quiet.dirty())
        disturbed.apply([each])
        reasons = [reason for _, reason, _ in refusals(disturbed.apply(refused))]
        after = dict(disturbed.dirty())
        assert before.keys() == after.keys()
        # A block counts what was refused in it.
        kept = {name: value for name, value in before.items() if name and name[:1] != BLOCKS}
        assert [name for name, value in kept.items() if value != after[name]] == []
    # What was refused may come rightly later.
    (again,) = predictions(disturbed.apply([event(101, ts=START_MS + 9_500)]))

    assert ["wrong_type", "from_the_future", "too_late", "duplicate"] == reasons
    assert sum(range(10)) / 10 == again["features"]["mean(amount) 30s"]


def test_a_full_window_answers_before_the_asking_event_takes_a_place_in_it() -> None:
    """Where a window holds one event, each event is told of the one before it."""
    stage = predict_stage(declare(window_events_max=1))
    events = [event(n, ts=START_MS + n, amount=float(n)) for n in range(4)]

    means = [p["features"]["mean(amount) 30s"] for p in predictions(stage.apply(events))]

    assert [0.0, 0.0, 1.0, 2.0] == means


def test_events_that_do_not_ask_only_feed_windows() -> None:
    """An order gets no prediction, and the next visit knows of it; other shops' visits do not."""
    stage = predict_stage()
    assert [] == stage.apply([event(0, kind="order")])
    here, there = predictions(
        stage.apply([event(1, ts=START_MS + 1), event(2, ts=START_MS + 1, shop="b")])
    )

    count = "count 1m kind=order"
    assert (1.0, 0.0) == (here["features"][count], there["features"][count])


def test_a_prediction_names_where_it_came_from_and_who_said_it() -> None:
    """Source, champion, newest example inside, features in their declared order, shadows."""
    (said,) = predictions(predict_stage().apply([event(7)]))

    assert {
        "event_id": "e7",
        "key": "a",
        "ts": START_MS,
        "source": {"partition": 0, "offset": 7},
        "model": "logistic@0",
        "example": -1,
        "prediction": 0.5,
        "fallback": False,
        "features": {"amount": 2.5, "count 1m kind=order": 0.0, "mean(amount) 30s": 0.0},
        "shadows": {"bayes": {"model": "bayes@0", "offset": 1}},
    } == said
    assert list(shop.feature_set.names) == list(said["features"])


def test_champion_and_shadows_answer_from_the_same_features() -> None:
    """A challenger that learns as the champion does gives the champion's answer each time."""
    twins = declare(
        models={
            name: preprocessing.StandardScaler() | linear_model.LogisticRegression()
            for name in ("logistic", "twin")
        },
        promotion=sml.Promotion(refresh=10, mode="manual"),
    )
    with Driver(twins) as driver:
        driver.feed(*stream(count=80))
        driver.runner.commit(checkpoint=True)
        answers = [
            (p["prediction"], a["shadows"]["twin"]["prediction"])
            for p, a in zip(driver.read("examples"), driver.read("answers"), strict=True)
        ]

    assert len({served for served, _ in answers}) > 20
    assert [] == [pair for pair in answers if pair[0] != pair[1]]


def test_without_an_answer_the_fallback_is_served_and_said_to_be_one() -> None:
    """Bayes knows nothing before its first example: the declared fallback serves instead."""
    pipeline = declare(champion="bayes", label=sml.Label(bool, horizon="40s", fallback=0.25))
    stage = predict_stage(pipeline)
    (said,) = predictions(stage.apply([event(0)]))

    assert (0.25, True, "bayes@0") == (said["prediction"], said["fallback"], said["model"])
    assert {"model", "offset"} == set(said["shadows"]["logistic"])
    assert {"model": "bayes@0", "prediction": None} == said["shadows"]["bayes"]
    assert 1 == stage.counts["no_answer"]


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -0.5, 1.5, "yes"])
def test_an_answer_that_is_none_is_not_written(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """NaN, infinity and what is no probability count as no answer; they never reach a consumer."""
    stage = predict_stage(declare(champion="bayes"))
    monkeypatch.setattr(
        naive_bayes.GaussianNB, "predict_proba_one", lambda *_: {True: answer, False: 0.5}
    )
    (said,) = predictions(stage.apply([event(0)]))

    assert (0.5, True) == (said["prediction"], said["fallback"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_how_events_are_batched_does_not_matter(seed: int) -> None:
    """One by one, all at once, or interrupted by checkpoints and restarts: the same bytes."""
    rand = random.Random(seed)
    events = [
        event(
            offset,
            ts=START_MS + 700 * offset - rand.choice([0, 0, LATENESS, LATENESS + 5_000]),
            event_id=f"e{rand.randrange(80)}",
            kind=rand.choice(["visit", "order"]),
            shop=rand.choice("ab"),
            amount=rand.random(),
        )
        for offset in range(80)
    ]
    serving = started(shop)[2]
    expected = [output.value for output in Predict(shop, serving).apply(events)]

    stage, pieces, values = Predict(shop, serving), dict[str, bytes](), []
    while events:
        size = rand.choice([1, 1, 5, 30])
        values += [output.value for output in stage.apply(events[:size])]
        del events[:size]
        if rand.random() < 0.3:
            for name, piece in stage.dirty():
                if piece is None:
                    pieces.pop(name, None)
                else:
                    pieces[name] = piece
            stage = Predict(shop, serving)
            stage.restore(pieces.items())

    assert expected == values, f"seed {seed}"
