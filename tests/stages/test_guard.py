"""The standing guard through the whole loop: gross harm is answered at once, as is declared."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from river import dummy, linear_model, preprocessing

from stream_ml.evaluation.contest import Comparison
from stream_ml.records import Example, ModelRef, Prediction, ServingSet, Shadow, Source
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.guard import ComparedExample, Guard
from stream_ml.testing import CRASH, Driver
from tests.stages.test_promotion import DAY, MINUTE, START, ask, contest

if TYPE_CHECKING:
    import stream_ml as sml
    from stream_ml.records import Output
    from stream_ml.stages.guard import GuardAction

HOUR = 60
# Just after a refresh, so that six hours pass before a learner that has followed can serve.
FLIP = 2 * DAY + 30
LEARNER = preprocessing.StandardScaler() | linear_model.LogisticRegression()


def declared(**promotion: Any) -> sml.Pipeline:
    """A learner champion and a challenger that no flip harms, guarded by blocks of two hours."""
    rules = {"on_harm": "switch", "block": "3d", **promotion}
    return replace(
        contest,
        champion="better",
        models={"better": LEARNER, "plain": dummy.PriorClassifier()},
        promotion=replace(contest.promotion, **rules),
    )


def alone(**promotion: Any) -> sml.Pipeline:
    """The same without a challenger."""
    pipeline = declared(**promotion)
    return replace(pipeline, models={"better": LEARNER})


def world(first: int, last: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events of minutes [first, last) and their labels: x tells, from `FLIP` on the other way."""
    events, labels = [], []
    for minute in range(first, last):
        rand = random.Random(minute)
        x = rand.uniform(-1, 1)
        label = ((x > 0) != (rand.random() < 0.1)) != (minute >= FLIP)
        ts, id_ = START + minute * MINUTE, f"e{minute}"
        events.append({"event_id": id_, "ts": ts, "who": "all", "x": x})
        labels.append({"event_id": id_, "ts": ts + 5 * MINUTE, "label": label})
    return events, labels


def switches(driver: Driver) -> list[dict[str, Any]]:
    """What was decided, but for refreshes and what is refused."""
    kinds = {"refreshed", "refused", "bootstrap"}
    return [d for d in driver.read("registry") if d["kind"] not in kinds]


def alerts(driver: Driver, kind: str) -> list[tuple[str, str]]:
    """State and subject of the alerts of a kind, in their order."""
    return [(a["state"], a["subject"]) for a in driver.read("alerts") if a["kind"] == kind]


def minute_of(decision: dict[str, Any]) -> int:
    """The minute at which something was decided."""
    return (decision["ts"] - START) // MINUTE


def test_a_flip_hands_over_within_two_whole_blocks() -> None:
    """The healthy challenger serves, by a decision with its figures, long before evidence could."""
    with Driver(declared()) as driver:
        driver.feed(*world(0, FLIP))
        assert [] == switches(driver)
        driver.feed(*world(FLIP, FLIP + 7 * HOUR))

        decision, *_ = switches(driver)
        assert ("replaced", "evaluate") == (decision["kind"], decision["actor"])
        assert decision["serving"]["champion"]["model"].startswith("plain@")
        assert decision["reason"].startswith("guard: better@")
        assert "in 2 guard blocks running" in decision["reason"]
        figures = decision["evidence"]
        assert ("line:plain", 2) == (figures["reference"], figures["blocks"])
        assert figures["block_loss"] > 0.2
        # The block of the flip itself, two whole ones, and the labels' ten minutes.
        assert minute_of(decision) - FLIP <= 3 * 2 * HOUR + 15
        assert [("once", f"model:{_left(driver, decision)}")] == alerts(driver, "guard")
        assert [] == alerts(driver, "gross_harm")


def _left(driver: Driver, decision: dict[str, Any]) -> str:
    former = driver.read("registry")[decision["number"] - 1]
    return former["serving"]["champion"]["model"]


def test_after_a_switch_a_guard_period_passes_and_the_healed_line_comes_back() -> None:
    """It does not flap: each switch is a block and two whole ones after the one before."""
    with Driver(declared()) as driver:
        driver.feed(*world(0, FLIP + DAY))

        minutes = [minute_of(decision) for decision in switches(driver)]
        served = [line(decision) for decision in switches(driver)]
        assert ["plain", "better"] == served
        assert minutes[1] - minutes[0] >= 2 * 2 * HOUR


def line(decision: dict[str, Any]) -> str:
    """Whose snapshot serves by a decision."""
    return str(decision["serving"]["champion"]["model"].partition("@")[0])


@pytest.mark.parametrize("rules", [{"on_harm": "alert"}, {"mode": "manual"}, {"mode": "gated"}])
def test_where_nobody_may_switch_an_alert_is_open_while_the_harm_lasts(rules: Any) -> None:
    """It opens once, names what would be better, and resolves when the line has healed."""
    with Driver(declared(**rules)) as driver:
        driver.feed(*world(0, FLIP + DAY))

        assert [] == switches(driver)
        assert [("open", "line:better"), ("resolved", "line:better")] == alerts(
            driver, "gross_harm"
        )
        opened = next(a for a in driver.read("alerts") if a["kind"] == "gross_harm")
        references = {finding["reference"] for finding in opened["details"]["findings"]}
        assert {"line:plain", "uniform"} <= references


def test_an_older_snapshot_of_the_harmful_line_ends_no_harm() -> None:
    """Rolled back within its line it does the same harm: the alert stays open."""
    with Driver(declared(on_harm="alert")) as driver:
        driver.feed(*world(0, FLIP + 5 * HOUR + 30))
        assert [("open", "line:better")] == alerts(driver, "gross_harm")
        served = [d["serving"]["champion"]["model"] for d in driver.read("registry")]
        driver.command("rollback", model=served[-3], expect="better")
        driver.feed(*world(FLIP + 5 * HOUR + 30, FLIP + 12 * HOUR))

        assert served[-3] == driver.read("registry")[-1]["serving"]["champion"]["model"]
        assert [("open", "line:better")] == alerts(driver, "gross_harm")
        driver.command("promote", model="plain", expect="better")
        driver.run()
        assert [("open", "line:better"), ("resolved", "line:better")] == alerts(
            driver, "gross_harm"
        )


def test_a_flip_falls_back_and_recovers_where_that_is_declared() -> None:
    """The fallback is served and marked, until the champion is no worse in two blocks running."""
    with Driver(alone(on_harm="fall back")) as driver:
        driver.feed(*world(0, FLIP + DAY))

        assert ["fell_back", "recovered"] == [d["kind"] for d in switches(driver)]
        fell_back, recovered = switches(driver)
        assert (0.5, None) == (
            fell_back["serving"]["fallback"],
            recovered["serving"].get("fallback"),
        )
        assert minute_of(fell_back) - FLIP <= 3 * 2 * HOUR + 15
        assert [("open", "line:better"), ("resolved", "line:better")] == alerts(
            driver, "gross_harm"
        )
        marked = [p for p in driver.read("predictions") if p["fallback"]]
        assert {0.5} == {p["prediction"] for p in marked}
        assert all("better" in p["shadows"] for p in marked)
        during = {(p["ts"] - START) // MINUTE for p in marked}
        assert (max(during) - min(during)) == len(during) - 1


def measured(fallback: float | None = 0.0, **promotion: Any) -> sml.Pipeline:
    """A champion alone whose labels are numbers, first what x is and then the contrary."""
    rules = {"on_harm": "fall back", "first": 50, "rollback_loss": 0.05, **promotion}
    return replace(
        contest,
        champion="better",
        label=replace(contest.label, type=float, fallback=fallback),
        models={"better": preprocessing.StandardScaler() | linear_model.LinearRegression()},
        promotion=replace(contest.promotion, **rules),
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"rollback_loss": None}, ["fell_back", "recovered"]),
        ({}, {"fallback": None}, ["fell_back", "recovered"]),
        ({}, {}, ["fell_back"]),
        ({"on_harm": "alert"}, {"on_harm": "alert", "rollback_loss": None}, []),
    ],
    ids=["no bound", "no fallback", "as it was", "only an alert"],
)
def test_what_the_guard_has_done_ends_where_it_stands_no_more(
    before: dict[str, Any], after: dict[str, Any], expected: list[str]
) -> None:
    """Without a bound, or what it compares with, nothing is judged, so nothing would end it."""

    def numbers(first: int, last: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        events, labels = world(first, last)
        for event, label in zip(events, labels, strict=True):
            is_over = event["ts"] >= START + FLIP * MINUTE
            label["label"] = -event["x"] if is_over else event["x"]
        return events, labels

    def decided() -> list[str]:
        return [d["kind"] for d in switches(driver) if d["kind"] != "settled"]

    with Driver(measured(**before)) as driver:
        driver.feed(*numbers(FLIP - 10 * HOUR, FLIP + 5 * HOUR))
        assert expected[:1] == decided()
        assert [("open", "line:better")] == alerts(driver, "gross_harm")
        driver.declare(measured(**after))
        for minute in (0, 10):
            driver.feed(*numbers(FLIP + 5 * HOUR + minute, FLIP + 5 * HOUR + minute + 10))

        assert expected == decided()
        is_as_before = after == {}
        assert is_as_before == (len(alerts(driver, "gross_harm")) == 1)
        assert is_as_before == driver.read("predictions")[-1]["fallback"]


def test_without_an_alternative_the_harm_is_told() -> None:
    """A champion that is alone cannot be switched from: half and half would be better."""
    with Driver(alone(rollback_loss=0.05)) as driver:
        driver.feed(*world(0, FLIP + 8 * HOUR))

        harmful = [a for a in driver.read("alerts") if a["kind"] == "gross_harm"]
        assert "more than the answer 'uniform' per example" in harmful[0]["message"]


def test_a_paused_pipeline_is_not_switched() -> None:
    """What serves shall stay, an operator has said; the alert is open all the same."""
    with Driver(declared()) as driver:
        driver.feed(*world(0, FLIP))
        ask(driver, "pause", "c1")
        driver.feed(*world(FLIP, FLIP + 7 * HOUR))

        assert ["paused"] == [d["kind"] for d in switches(driver)]
        assert [("open", "line:better")] == alerts(driver, "gross_harm")


@pytest.mark.parametrize("on_harm", ["switch", "fall back", "alert"])
def test_a_crash_changes_nothing_about_it(on_harm: str) -> None:
    """Killed at any moment, the same is decided and told."""
    pipeline = declared(on_harm=on_harm, first=50, on_change="alert")
    events, labels = world(FLIP - 10 * HOUR, FLIP + 9 * HOUR)
    told = []
    for seed in (None, 3, 4):
        with Driver(pipeline, seed=seed) as driver:
            crashes: list[Any] = [] if seed is None else [CRASH]
            driver.feed(
                [*events[:-150], *crashes, *events[-150:-20], *crashes, *events[-20:]], labels
            )
            told.append(
                [[r.value for r in driver.records(topic)] for topic in ("registry", "alerts")]
            )

    assert told[0] == told[1] == told[2]
    assert any(
        b"gross_harm" in value or b"replaced" in value for value in [*told[0][0], *told[0][1]]
    )


def test_a_block_of_labels_finds_a_flip_sooner() -> None:
    """Blocks of 50 labels, where labels are independent: a hundred labels after the flip."""
    with Driver(declared(guard_block=50)) as driver:
        driver.feed(*world(0, FLIP))
        assert [] == switches(driver)
        driver.feed(*world(FLIP, FLIP + 4 * HOUR))

        decision, *_ = switches(driver)
        assert "plain" == line(decision)
        assert minute_of(decision) - FLIP <= 160


# --- the guard by itself -----------------------------------------------------------------------


def refs(**models: str) -> dict[str, ModelRef]:
    """References to snapshots, by role or line."""
    return {name: ModelRef(model, "digest", 0) for name, model in models.items()}


def answered(
    answers: dict[str, float], on_harm: str = "switch", *, may_switch: bool = True
) -> GuardAction | None:
    """What the guard asks for when `better@900` has said the contrary of the truth for two blocks.

    Args:
        answers: what others said meanwhile, by `predecessor`, `first` or the line `plain`.
        on_harm: as declared.
        may_switch: whether a challenger may take over.
    """
    guard = Guard(declared(on_harm=on_harm, guard_block=20), Alarms("evaluate"))
    known = refs(predecessor="better@800", first="better@500", plain="plain@900")
    serving = ServingSet(
        ModelRef("better@900", "digest", 0),
        {"plain": known["plain"]} if "plain" in answers else {},
        known["predecessor"] if "predecessor" in answers else None,
        known["first"] if "first" in answers else None,
    )
    outputs: list[Output] = []
    action = None
    for number in range(40):
        shadows = {name: Shadow(known[name].model, said) for name, said in answers.items()}
        prediction = Prediction(
            f"e{number}", "k", number, Source(0, number), "better@900", -1, 0.0, False, {}, shadows
        )
        example = Example(prediction, True, number, Source(0, number))
        losses = {"plain": (1 - answers["plain"]) ** 2} if "plain" in answers else {}
        comparison = Comparison(1.0, losses)
        compared = ComparedExample(example, comparison, {}, number, serving)
        assert guard.judge(compared) is None
        if guard.has_judged:
            action = guard.answer(serving, number, lambda _: may_switch, outputs)
    assert (action is None) == bool(outputs)
    return action


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"plain": 0.6, "predecessor": 0.9, "first": 0.99}, ("switch", "plain")),
        ({"predecessor": 0.6, "first": 0.99}, ("roll back", "predecessor")),
        ({"first": 0.99}, ("roll back", "first")),
        ({"plain": 0.3, "first": 0.99}, ("roll back", "first")),
        ({"plain": 0.3}, None),
        ({}, None),
    ],
    ids=[
        "a challenger goes on learning",
        "the predecessor before the first",
        "the first model, last",
        "a challenger that is worse than the uniform answer",
        "nobody healthy",
        "nobody",
    ],
)
def test_the_best_healthy_model_is_turned_to(
    answers: dict[str, float], expected: tuple[str, str] | None
) -> None:
    """Lines that go on learning before the predecessor, and that before the first model."""
    action = answered(answers)

    assert expected == (None if action is None else (action.kind, action.target))


def test_where_no_challenger_may_take_over_what_served_before_does() -> None:
    """Promotions that somebody keeps to themselves are no reason to serve what does harm."""
    action = answered({"plain": 0.9, "predecessor": 0.8}, may_switch=False)

    assert action is not None
    assert ("roll back", "predecessor") == (action.kind, action.target)


def test_what_is_declared_is_done() -> None:
    """Fall back where the uniform answer is better, and only an alert where that is declared."""
    action = answered({"plain": 0.9}, "fall back")
    assert action is not None
    assert "fall back" == action.kind
    assert "uniform" == action.evidence["reference"]
    assert answered({"plain": 0.9}, "alert") is None
