"""A challenger that takes too long to answer is asked no more, and holds up nobody for long."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import naive_bayes

from stream_ml.codec import (
    decode_answers,
    decode_decision,
    encode_command,
    encode_example,
    encode_prediction,
)
from stream_ml.models import snapshot as snapshots
from stream_ml.records import Command, Output, Record, Shadow, Source
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.stages.shadows import SLOW_RUNNING, Shadows
from tests.shop import KEY, event, example, shop, written

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from stream_ml.stages.effort import Suspect


class Clock:
    """A stopwatch whose time passes only while a model is asked that lets it pass."""

    budget_s = 1.0

    def __init__(self) -> None:
        self.now_s = 0.0

    def seconds(self) -> float:
        """The time."""
        return self.now_s

    def begin(self, _: int, stage: str = "learn") -> Suspect | None:  # noqa: ARG002
        """Nobody died."""
        return None

    def watch(self) -> AbstractContextManager[object]:
        """Nobody is interrupted."""
        return nullcontext()

    def attend(self, line: str) -> None:
        """Whose turn it is does not matter."""


class World:
    """Evaluate with a clock, and a challenger that takes its time: seconds an answer, by turns."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, taken_s: Sequence[float], *, is_timed: bool = True
    ) -> None:
        self.clock, self.asked = Clock(), 0
        self._is_timed = is_timed
        learn = Learn(shop, KEY)
        taught = [example(n, n % 3 == 0, {"amount": float(n % 7)}) for n in range(60)]
        self.models = written([*learn.start(), *learn.apply(taught)], "models")
        self.evaluate = self._fresh()
        serving = Serving(shop, KEY)
        serving.apply(self.models[:2])
        serving.apply(written(self.evaluate.apply(self.models[:2]), "registry"))
        self._predict = Predict(shop, serving)
        ask = naive_bayes.GaussianNB.predict_proba_one

        def dawdle(*arguments: Any) -> Any:
            self.clock.now_s += taken_s[min(self.asked, len(taken_s) - 1)]
            self.asked += 1
            return ask(*arguments)

        monkeypatch.setattr(naive_bayes.GaussianNB, "predict_proba_one", dawdle)
        self.outputs: list[Output] = []

    def _fresh(self) -> Evaluate:
        return Evaluate(shop, Keyring(KEY, {}), stopwatch=self.clock if self._is_timed else None)

    def feed(self, *numbers: int) -> None:
        """Let examples of these numbers come, in one batch."""
        records = []
        for output in self._predict.apply([event(number) for number in numbers]):
            if output.topic == "predictions":
                value = encode_example(
                    encode_prediction(output.memo), True, output.memo.ts + 1, Source(0, 0)
                )
                offset = int(output.memo.event_id[1:])
                records.append(Record("examples", 0, offset, None, value, 2**42))
        for offset in self.evaluate.wanted(records):
            self.evaluate.supply(offset, self.models[offset].value)
        self.outputs += self.evaluate.apply(records)

    def predict(self, number: int) -> list[Output]:
        """What is said of the event of this number."""
        return self._predict.apply([event(number)])

    def restart(self) -> None:
        """Stop, and go on from the state."""
        pieces = [(name, value or b"") for name, value in self.evaluate.dirty()]
        self.evaluate = self._fresh()
        self.evaluate.restore(pieces)

    def said(self) -> list[str]:
        """What was told of the line, as it changed."""
        alerts = [orjson.loads(o.value or b"") for o in self.outputs if o.topic == "alerts"]
        return [
            a["state"] for a in alerts if (a["kind"], a["subject"]) == ("shadow_slow", "line:bayes")
        ]

    def answered(self) -> int:
        """To how many examples an answer of the line is recorded, be it that it has none."""
        answers = [decode_answers(o.value) for o in self.outputs if o.topic == "answers"]
        return sum("bayes" in each.shadows for each in answers)


def test_a_line_that_is_slow_so_often_running_is_asked_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even within the batch in which it was found out; that is told once, and kept."""
    world = World(monkeypatch, [1.5])
    world.feed(*range(10))
    assert (SLOW_RUNNING, 10, ["open"]) == (world.asked, world.answered(), world.said())

    world.feed(10, 11)
    world.restart()
    world.feed(12, 13)
    assert (SLOW_RUNNING, 14, ["open"]) == (world.asked, world.answered(), world.said())


@pytest.mark.parametrize(
    ("taken_s", "asked"),
    [
        ([0.0, 1.5, 1.5, 0.5, 1.5, 1.5, 0.0], 10),
        ([0.0, 3_600.0, 0.0], 10),
        ([1.0], 10),
    ],
    ids=["never three running", "asleep once", "within the budget"],
)
def test_what_may_be_the_machines_fault_is_no_lines(
    monkeypatch: pytest.MonkeyPatch, taken_s: list[float], asked: int
) -> None:
    """One hiccup is forgiven, however long: the machine may have been put to sleep."""
    world = World(monkeypatch, taken_s)
    world.feed(*range(10))

    assert (asked, ["open"] if asked < 10 else []) == (world.asked, world.said())


def test_a_slow_predecessor_is_asked_once_and_answers_for_itself_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In two places it answers once; its line, which may be the champion's, is asked as before."""
    world = World(monkeypatch, [1.5])
    (made,) = [o.memo for o in world.predict(0) if o.topic == "predictions"]
    slots = {"predecessor": Shadow("bayes@0", None, 1), "first": Shadow("bayes@0", None, 1)}
    shadows = Shadows(shop, KEY, None, world.clock)
    questions = [(n, made.with_shadows(slots)) for n in range(SLOW_RUNNING)]
    for offset in shadows.wanted(questions):
        shadows.supply(offset, world.models[offset].value)
    filled = shadows.fill(0, questions[0][1])

    assert SLOW_RUNNING == world.asked
    assert ["bayes@0"] == list(shadows.quarantined)
    assert filled.shadows["first"].prediction == filled.shadows["predecessor"].prediction


def test_without_a_stopwatch_nobody_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay and a backtest say what would have come, on whatever machine."""
    world = World(monkeypatch, [1_000.0], is_timed=False)
    world.feed(*range(10))

    assert (10, []) == (world.asked, world.said())


def test_a_slow_line_is_not_renewed_nor_promoted_until_it_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its snapshots are refused unopened; the first of a learner that began anew is taken."""
    world = World(monkeypatch, [20.0])
    world.feed(*range(SLOW_RUNNING))
    assert ["open"] == world.said()
    command = Command(
        "c1", "promote", 0, "local", "ada", "to see", "logistic", "bayes", pipeline=shop.name
    )
    asked = world.asked
    told = [
        *world.evaluate.apply([Record("commands", 0, 0, None, encode_command(command, KEY), 0)]),
        *world.evaluate.apply(world.models[2:4]),
    ]
    decided = [decode_decision(o.value, KEY) for o in told if o.topic == "registry"]

    assert asked == world.asked, "its snapshot was opened, and asked its golden answers"
    assert "refused" == decided[0].kind
    assert decided[1].reason.startswith("bayes@20 refused: its line is asked no more")
    assert {"bayes": "bayes@0"} == {
        line: ref.model for line, ref in decided[-1].serving.challengers.items()
    }
    taken = snapshots.take(
        shop.recipes["bayes"].fresh(),
        shop.recipes["bayes"],
        shop.target,
        version=40,
        feature_hash=shop.feature_set.hash,
        key=KEY,
        epoch={"watermark": 0},
    )
    anew = Record("models", 0, 9, taken.model.encode(), taken.encode(), 2**42)
    world.outputs += world.evaluate.apply([anew])
    world.feed(*range(3, 3 + SLOW_RUNNING))

    assert ["open", "resolved", "open"] == world.said(), "it was asked, and is as slow as it was"
