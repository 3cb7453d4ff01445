"""Answers that are broken by themselves are told before any label, and once."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

import stream_ml as sml
from stream_ml.records import Prediction, Source
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.answer_watch import AnswerWatch
from stream_ml.testing import CRASH, Driver
from tests.stages.test_promotion import DAY, contest, world


def predicted(answer: float | None, model: str = "a@500") -> Prediction:
    """A prediction with this answer of the champion's; a fallback stands in for none."""
    served = 0.5 if answer is None else answer
    return Prediction("e", "k", 0, Source(0, 0), model, -1, served, answer is None, {}, {})


def told(answers: list[float | None], watch: AnswerWatch | None = None) -> list[tuple[str, str]]:
    """Kind and state of what is told of these answers."""
    watch = watch or AnswerWatch(Alarms("join"))
    outputs = [output for answer in answers for output in watch.add(predicted(answer), 7)]
    return [(output.memo.kind, output.memo.state) for output in outputs]


def varied(count: int) -> list[float | None]:
    """Answers that are all different."""
    return [number / 10_000 for number in range(count)]


def test_missing_answers_open_one_alarm_and_resolve_it() -> None:
    """Most of 200 events without an answer, until hardly one is."""
    assert [] == told([*varied(90), *[None] * 90, *varied(20)])
    assert [("answers_missing", "open")] == told([None] * 1_000)
    assert [("answers_missing", "open"), ("answers_missing", "resolved")] == told(
        [*[None] * 400, *varied(200)]
    )


def test_one_answer_for_ever_opens_an_alarm_and_variety_resolves_it() -> None:
    """Three hundred alike, where no two were."""
    assert [] == told([*varied(500), *[0.3] * 299])
    assert [("answers_constant", "open")] == told([*varied(500), *[0.3] * 5_000])
    assert [("answers_constant", "open"), ("answers_constant", "resolved")] == told(
        [*varied(500), *[0.3] * 400, *varied(500)]
    )


def test_what_never_varied_is_left_in_peace() -> None:
    """A constant model's answer changes with its snapshots, and a tree's may do so rarely."""
    assert [] == told([0.3] * 10_000)
    assert [] == told([0.1 + (n // 900) / 100 for n in range(40_000)])
    rand = random.Random(1)
    assert [] == told([0.3 if rand.random() < 0.99 else rand.random() for _ in range(50_000)])


def test_nights_in_which_all_is_alike_are_no_fault() -> None:
    """Runs as long as those before them are usual, however seldom they are."""
    night: list[float | None] = [0.2] * 280
    assert [] == told([*varied(700), *night, *varied(700), *night, *varied(700), *[0.2] * 500])


def test_a_model_that_has_learned_nothing_owes_no_answer() -> None:
    """What serves on the first day is no fault, whatever it says."""
    watch = AnswerWatch(Alarms("join"))

    assert [] == [o for _ in range(900) for o in watch.add(predicted(None, "a@0"), 7)]


def test_another_line_begins_anew() -> None:
    """What is open of one that serves no more is resolved."""
    watch = AnswerWatch(Alarms("join"))
    assert [("answers_missing", "open")] == told([None] * 200, watch)
    [output] = watch.add(predicted(0.5, "b@500"), 9)

    assert ("answers_missing", "resolved", "line:a") == (
        output.memo.kind,
        output.memo.state,
        output.memo.subject,
    )


@pytest.mark.parametrize("cut", [0, 100, 500, 650, 900])
def test_a_state_goes_on_alike(cut: int) -> None:
    """Dumped as JSON and taken up anywhere, the same is told."""
    answers: list[float | None] = [*varied(500), *[0.3] * 400, None, *varied(100)]
    alarms = Alarms("join")
    watch = AnswerWatch(alarms)
    straight = told(answers)
    first = told(answers[:cut], watch)
    restored = Alarms("join")
    restored.load(json.loads(json.dumps(alarms.dump())))
    again = AnswerWatch(restored)
    again.load(json.loads(json.dumps(watch.dump())))

    assert straight == first + told(answers[cut:], again)


def broken_after(minutes: int) -> sml.Pipeline:
    """A pipeline in which a feature is stuck from a minute on, and all answers with it."""

    def stuck(x: float, minute: float) -> float:
        return x if minute < minutes else 0.25

    return sml.Pipeline(
        "stuck",
        events=sml.Events(key="who", fields={"x": float, "minute": float}, lateness=0, breadth=1),
        features=[sml.function(stuck, "x", "minute", name="stuck")],
        label=contest.label,
        champion="better",
        models={"better": contest.models["better"]},
        promotion=contest.promotion,
    )


@pytest.mark.parametrize("seed", [None, 5])
def test_a_stuck_input_is_told_before_any_label(seed: int | None) -> None:
    """Through the whole loop, and the same where the worker dies."""
    events, labels = world(0, DAY + 100)
    for event in events:
        event["minute"] = float(event["event_id"][1:])
    with Driver(broken_after(1_100), seed=seed) as driver:
        crashes: list[Any] = [] if seed is None else [CRASH]
        driver.feed([*events[:1_300], *crashes, *events[1_300:]], labels[:900])
        said = [a for a in driver.read("alerts") if a["kind"] == "answers_constant"]

        assert [("open", "line:better")] == [(a["state"], a["subject"]) for a in said]
        assert said[0]["details"]["run"] == 300
