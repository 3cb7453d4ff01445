"""What a line takes is measured, and one that takes too long or kills the worker learns no more."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import naive_bayes

import stream_ml as sml
from stream_ml.stages import learn as learning
from stream_ml.stages.effort import DEATHS_MAX, Suspect
from stream_ml.stages.learn import Learn
from stream_ml.stages.teaching import LIVE_LOSS_EVERY
from tests.shop import KEY, declare, example, shop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.records import Output, Record


class FakeStopwatch:
    """Time that tests set, and a suspect that they name."""

    budget_s = 1.0

    def __init__(self, suspect: Suspect | None = None) -> None:
        self.now_s = 0.0
        self.suspect = suspect
        self.begun_at: int | None = None
        self.attended: list[str] = []

    def seconds(self) -> float:
        """What the test says that it is."""
        return self.now_s

    def begin(self, n: int, stage: str = "learn") -> Suspect | None:  # noqa: ARG002
        """Whom the test suspects."""
        self.begun_at = n
        return self.suspect

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Nothing is interrupted."""
        yield

    def attend(self, line: str) -> None:
        """Keep it."""
        self.attended.append(line)


def world(count: int) -> list[Record]:
    """Examples, a second apart."""
    features = dict.fromkeys(shop.feature_set.names, 1.0)
    return [
        example(n, n % 3 == 0, {**features, "amount": float(n % 7)}, shadows={"bayes": 0.5})
        for n in range(count)
    ]


def alerts(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    """Those among the outputs."""
    return [orjson.loads(output.value or b"") for output in outputs if output.topic == "alerts"]


def digests(outputs: Sequence[Output], line: str) -> list[str]:
    """Of the snapshots that a line has published."""
    snapshots = [output.memo for output in outputs if output.topic == "models"]
    return [each.digest for each in snapshots if each.name == line]


def slow_at(monkeypatch: pytest.MonkeyPatch, stopwatch: FakeStopwatch, slow: set[int]) -> None:
    """Let `bayes` take five seconds over these examples, by their number from 1."""
    learn_one, count = naive_bayes.GaussianNB.learn_one, [0]

    def learn(self: Any, x: Any, y: Any) -> None:
        count[0] += 1
        stopwatch.now_s += 5.0 if count[0] in slow else 0.001
        learn_one(self, x, y)

    monkeypatch.setattr(naive_bayes.GaussianNB, "learn_one", learn)


def test_a_line_that_is_too_slow_three_times_running_is_quarantined_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its figures; the other one is what it would have been."""
    expected = Learn(shop, KEY).apply(world(40))
    stopwatch = FakeStopwatch()
    slow_at(monkeypatch, stopwatch, {11, 12, 13})

    outputs = Learn(shop, KEY, stopwatch=stopwatch).apply(world(40))

    (alert,) = alerts(outputs)
    assert ("line_quarantined", "line:bayes") == (alert["kind"], alert["subject"])
    assert "after example 13: it takes 5.0 s over an example" in alert["message"]
    assert "longer than its budget of 1.0 s" in alert["message"]

    assert digests(expected, "logistic") == digests(outputs, "logistic")
    assert 2 == len(digests(outputs, "logistic"))


def test_a_line_that_is_slow_to_answer_is_quarantined_though_it_is_asked_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The third answer running is one too many, however quickly it learns in between."""
    stopwatch, asked = FakeStopwatch(), [0]
    ask = naive_bayes.GaussianNB.predict_proba_one

    def dawdle(*arguments: Any) -> Any:
        asked[0] += 1
        stopwatch.now_s += 0.5 if asked[0] == 2 else 1.5
        return ask(*arguments)

    monkeypatch.setattr(naive_bayes.GaussianNB, "predict_proba_one", dawdle)
    quick = declare(promotion=sml.Promotion(refresh=1_000, mode="manual"))
    learn = Learn(quick, KEY, stopwatch=stopwatch)
    learn.start()
    asked[0] = 0

    (alert,) = alerts(learn.apply(world(60)))

    assert 5 == asked[0]
    assert f"after example {5 * LIVE_LOSS_EVERY}: it takes 1.5 s" in alert["message"]


@pytest.mark.parametrize(("slow", "count"), [({2, 3, 4}, 1), ({1, 2, 4, 5}, 0)])
def test_a_line_whose_snapshots_take_too_long_three_times_running_is_quarantined(
    slow: set[int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its figures, alone, and it publishes the third no more; twice is chance."""
    stopwatch, taken = FakeStopwatch(), [0]
    take = learning.take

    def dawdle(learner: Any, recipe: Any, *arguments: Any, **others: Any) -> Any:
        if recipe.name == "bayes":
            taken[0] += 1
            stopwatch.now_s += 11.0 if taken[0] in slow else 1.0
        return take(learner, recipe, *arguments, **others)

    monkeypatch.setattr(learning, "take", dawdle)
    outputs = Learn(shop, KEY, stopwatch=stopwatch).apply(world(120))

    told = [alert["message"] for alert in alerts(outputs)]
    assert count == len(told)
    assert all("its snapshot took 11 s, longer than 10 s" in message for message in told)
    assert 6 == len(digests(outputs, "logistic"))
    assert (3 if count else 6) == len(digests(outputs, "bayes"))


def test_a_pause_of_the_machine_quarantines_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice is chance, and so is now and then."""
    stopwatch = FakeStopwatch()
    slow_at(monkeypatch, stopwatch, {5, 6, 11, 12, 14, 30})

    outputs = Learn(shop, KEY, stopwatch=stopwatch).apply(world(40))

    assert [] == alerts(outputs)


def test_costs_are_kept_with_the_state_where_they_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By line, over a restart; a stage without a stopwatch keeps none, and measures nothing."""
    stopwatch = FakeStopwatch()
    slow_at(monkeypatch, stopwatch, set())
    learn = Learn(shop, KEY, stopwatch=stopwatch)
    learn.apply(world(25))
    pieces = [(name, value) for name, value in learn.dirty() if value is not None]
    state = orjson.loads(dict(pieces)[""])
    other, silent = Learn(shop, KEY, stopwatch=FakeStopwatch()), Learn(shop, KEY)
    other.restore(pieces)
    silent.restore(pieces)

    bayes, logistic = (state["efforts"][name] for name in ("bayes", "logistic"))
    assert pytest.approx(0.001) == bayes["example_s"] / bayes["examples"]
    assert (0.0, 0.0) == (logistic["example_s"], logistic["snapshot_s"])
    # Of the 20 examples before the last snapshot half are left.
    assert 20 * 0.5 + 5 == bayes["examples"]
    assert bayes["snapshot_bytes"] > 100
    assert state["efforts"] == orjson.loads(dict(other.dirty())[""] or b"")["efforts"]
    assert "efforts" not in orjson.loads(dict(silent.dirty())[""] or b"")


@pytest.mark.parametrize("deaths", [DEATHS_MAX - 1, DEATHS_MAX])
def test_a_line_at_whose_work_the_worker_dies_again_and_again_learns_no_more(deaths: int) -> None:
    """It is named at the next start with the count; the others learn on, and a death is borne."""
    first = Learn(shop, KEY)
    first.apply(world(10))
    pieces = [(name, value) for name, value in first.dirty() if value is not None]
    stopwatch = FakeStopwatch(Suspect("bayes", deaths))
    learn = Learn(shop, KEY, stopwatch=stopwatch)
    learn.restore(pieces)
    outputs = learn.apply(world(30)[10:])

    assert 10 == stopwatch.begun_at
    if deaths < DEATHS_MAX:
        assert ([], {}) == (alerts(outputs), learn.quarantine_reasons)
        return
    (alert,) = alerts(outputs)
    assert "the worker has died 3 times running while the line was at work" in alert["message"]
    assert ["bayes"] == list(learn.quarantine_reasons)
    assert (1, 0) == (len(digests(outputs, "logistic")), len(digests(outputs, "bayes")))


def test_who_is_at_work_is_said_before_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it learns, is published, is written down, and is read back."""
    stopwatch = FakeStopwatch()
    learn = Learn(shop, KEY, stopwatch=stopwatch)
    seen: list[str] = []
    learn_one = naive_bayes.GaussianNB.learn_one

    def spy(self: Any, x: Any, y: Any) -> None:
        seen.append(stopwatch.attended[-1])
        learn_one(self, x, y)

    monkeypatch.setattr(naive_bayes.GaussianNB, "learn_one", spy)
    learn.apply(world(5))

    assert ["bayes"] * 5 == seen
