"""Policies that act: pause for a fault of the pipeline, restart a failed line, ask a person."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import naive_bayes

from stream_ml.errors import DeclarationError
from stream_ml.records import Output, line_of
from stream_ml.sealing import strip_seal
from stream_ml.shell.views.registry import read_registry
from stream_ml.stages.guard import GuardAction
from stream_ml.testing import CRASH, Driver
from tests.shop import declare, shop, stream
from tests.simulation.test_crash import outcome
from tests.stages import test_guard, test_promotion
from tests.stages.test_evaluate import Stage
from tests.stages.test_guard import FLIP, HOUR
from tests.stages.test_promotion import DAY, MINUTE, START, declared

if TYPE_CHECKING:
    import stream_ml as sml

# For half a day of the third day on, what measures x speaks another unit.
STUMBLE = 123.25
FAULT = (2 * DAY + 30, 2 * DAY + 12 * HOUR)


def broken(
    first: int, last: int, fault: tuple[int, int] = FAULT
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The world of `test_promotion`, with a fault of the pipeline."""
    events, labels = test_promotion.world(first, last)
    for minute, event in enumerate(events, first):
        event["x"] = 100 + event["x"]
        if fault[0] <= minute < fault[1]:
            event["x"] *= 1_000
    return events, labels


def decisions(driver: Driver, *kinds: str) -> list[dict[str, Any]]:
    """Those of these kinds, in their order."""
    return [d for d in driver.read("registry") if d["kind"] in kinds]


def open_faults(driver: Driver) -> list[tuple[str, str, str]]:
    """The alerts of faults, with their subjects and states."""
    return [
        (a["kind"], a["state"], a["subject"])
        for a in driver.read("alerts")
        if a["kind"] == "data_fault"
    ]


def minute_of(decision: dict[str, Any]) -> int:
    """The minute of events at which something was decided."""
    return (decision["ts"] - START) // MINUTE


# --- a fault of the pipeline ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_fault", "is_promoting", "is_renewing"),
    [
        ("alert", True, True),
        ("pause promotions", False, True),
        ("pause refreshes", True, False),
        ("pause", False, False),
    ],
)
def test_what_is_declared_stands_still_while_a_fault_lasts(
    on_fault: str, is_promoting: bool, is_renewing: bool
) -> None:
    """From the decision that says why to the one that says that it is over, and no longer."""
    with Driver(declared(on_fault=on_fault, mode="automatic", alpha=0.05)) as driver:
        driver.feed(*broken(0, 4 * DAY))

        assert ("data_fault", "open", "field:x") in open_faults(driver)
        framed = decisions(driver, "suspended", "continued")
        assert ([] if on_fault == "alert" else ["suspended", "continued"]) == [
            d["kind"] for d in framed
        ]
        first, last = [minute_of(d) for d in framed] or FAULT
        assert FAULT[0] <= first <= FAULT[0] + 4 * HOUR
        inside = [d for d in decisions(driver, "refreshed") if first < minute_of(d) < last]
        after = [d for d in decisions(driver, "refreshed") if minute_of(d) >= last]
        assert is_renewing == bool(inside)
        assert after
        for decision in framed:
            assert ("evaluate", None) == (decision["actor"], decision["command_id"])
            assert {"alert": "data_fault", "subject": "field:x"} in decision["evidence"]["cause"]
        promoted = [minute_of(d) for d in decisions(driver, "replaced")]
        assert is_promoting or not [m for m in promoted if first < m < last]


def test_an_operator_has_all_go_on_though_the_fault_lasts() -> None:
    """`resume` undoes what the policy did, for this fault."""
    with Driver(declared(on_fault="pause")) as driver:
        driver.feed(*broken(0, FAULT[0] + 5 * HOUR))
        assert ["suspended"] == [d["kind"] for d in decisions(driver, "suspended", "continued")]
        driver.command("resume")
        driver.feed(*broken(FAULT[0] + 5 * HOUR, FAULT[1]))

        resumed = decisions(driver, "resumed")[0]
        after = [d for d in decisions(driver, "refreshed") if d["number"] > resumed["number"]]
        assert after
        assert ["suspended"] == [d["kind"] for d in decisions(driver, "suspended", "continued")]


def test_a_fault_that_is_watched_no_more_holds_up_nothing() -> None:
    """A start without the policy, or without monitors, goes on and says so once."""
    with Driver(declared(on_fault="pause")) as driver:
        driver.feed(*broken(0, FAULT[0] + 5 * HOUR))
        driver.declare(declared())
        driver.feed(*broken(FAULT[0] + 5 * HOUR, FAULT[1]))

        assert ["suspended", "continued"] == [
            d["kind"] for d in decisions(driver, "suspended", "continued")
        ]


def test_a_pause_for_faults_needs_monitors() -> None:
    """Who declares it without them is told at once."""
    with pytest.raises(DeclarationError, match="on_fault: expected alert, where no monitors"):
        replace(declared(on_fault="pause"), monitors=None)


# --- a line that fails ------------------------------------------------------------------------


def test_a_line_that_is_refused_too_often_starts_anew_and_waits_twice_as_long_each_time() -> None:
    """At the third refresh without it, the sixth, the twelfth; each time with cause and figures."""
    stage = Stage(declare(promotion=replace(shop.promotion, on_failure="restart", refusals=3)))
    stage.publish("logistic@0", "bayes@0")
    restarted = []
    for version in range(20, 20 * 14, 20):
        decided = stage.publish(f"logistic@{version}", excess=0.3, blocks=10)
        decided += stage.publish(f"bayes@{version}")
        restarted += [(version // 20, d) for d in decided if d.kind == "restarted"]

    assert [3, 6, 12] == [count for count, _ in restarted]
    _, decision = restarted[0]
    assert ("evaluate", "logistic", "logistic@0") == (
        decision.actor,
        decision.evidence["line"],
        decision.serving.champion.model,
    )
    cause = decision.evidence["cause"]
    assert ("line_refused", "line:logistic", 3) == (
        cause["alert"],
        cause["subject"],
        cause["refreshes"],
    )
    assert "its learner has diverged" in cause["reason"]


def test_only_what_is_declared_starts_a_line_anew() -> None:
    """By default it is told, and left to a person, whose command has it count from the start."""
    stage = Stage()
    stage.publish("logistic@0", "bayes@0")
    for version in range(20, 20 * 14, 20):
        decided = stage.publish(f"logistic@{version}", excess=0.3, blocks=10)
        assert "restarted" not in {d.kind for d in decided + stage.publish(f"bayes@{version}")}


def history(seed: int | None, pipeline: sml.Pipeline, *batches: Any) -> dict[str, list[Any]]:
    """All that comes out; with a seed, of a worker that dies again and again."""
    rand = random.Random(seed)
    driver = Driver(pipeline, seed=seed)
    for events, labels, command in batches:
        driver.publish("labels", labels)
        driver.publish("events", events)
        driver.feed([CRASH] * (0 if seed is None else rand.randrange(1, 4)))
        if command:
            driver.command(**command)
            driver.feed([CRASH] * (0 if seed is None else rand.randrange(2)))
    result = outcome(driver)
    result["decisions"] = driver.read("registry")
    driver.close()
    return result


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `bayes` raise at a certain amount, which only one example has."""
    teach = naive_bayes.GaussianNB.learn_one

    def learn_one(self: Any, x: dict[str, float], y: Any) -> None:
        if x["amount"] == STUMBLE:
            raise ValueError(x["amount"])
        teach(self, x, y)

    monkeypatch.setattr(naive_bayes.GaussianNB, "learn_one", learn_one)


@pytest.mark.usefixtures("stumbling")
@pytest.mark.parametrize("on_failure", ["restart", "restore"])
def test_a_quarantined_line_starts_anew_by_itself_whatever_dies(on_failure: str) -> None:
    """From nothing, or from what it has in the serving set: told once, and the same if one dies."""
    promotion = replace(shop.promotion, on_failure=on_failure, refusals=2)
    pipeline = declare(promotion=promotion)
    events, labels = stream(count=300)
    visits = [event for event in events if event.get("kind") == "visit"]
    visits[40]["amount"] = STUMBLE
    expected = history(None, pipeline, (events, labels, None))

    made = expected["decisions"]
    (restarted,) = [d for d in made if d["kind"] == "restarted"]
    assert ("line_refused", "it published nothing", 2) == (
        restarted["evidence"]["cause"]["alert"],
        restarted["evidence"]["cause"]["reason"],
        restarted["evidence"]["cause"]["refreshes"],
    )
    stuck = restarted["serving"]["challengers"]["bayes"]["model"]
    assert stuck != made[-1]["serving"]["challengers"]["bayes"]["model"]
    origin = stuck if on_failure == "restore" else None
    assert origin == restarted["evidence"].get("from")
    told = [orjson.loads(strip_seal(value) or b"") for _, value in expected["alerts"]]
    about = [a["state"] for a in told if a["kind"] == "line_quarantined"]
    assert ["open", "resolved"] == about
    assert (f"from {stuck}" if origin else "from nothing") in next(
        a["message"] for a in told if (a["kind"], a["state"]) == ("line_quarantined", "resolved")
    )
    for seed in range(4):
        assert history(seed, pipeline, (events, labels, None)) == expected, f"seed {seed}"


# --- asking a person --------------------------------------------------------------------------


def test_evidence_that_suffices_is_proposed_and_carried_out_by_its_command() -> None:
    """A decision holds the command and the figures; the champion serves until somebody gives it."""
    with Driver(declared(mode="ask")) as driver:
        driver.feed(*test_promotion.world(0, 3 * DAY + 12 * HOUR))
        driver.declare(declared(mode="ask"))  # a start asks nothing a second time
        driver.feed(*test_promotion.world(3 * DAY + 12 * HOUR, 4 * DAY))
        (proposed,) = decisions(driver, "proposed", "replaced", "lapsed")
        assert {
            "command": "promote",
            "model": "better",
            "expect": "plain",
            "cause": "challenger_ready",
        } == proposed["evidence"]["proposal"]
        assert proposed["evidence"]["e_value"] >= proposed["evidence"]["needed"]
        assert "`stream-ml promote better --expect plain --reason ...`" in proposed["reason"]
        view = read_registry(driver.log, b"testing", None)
        assert view.proposed is not None
        assert proposed["number"] == view.proposed.decision.number

        driver.command("promote", model="better", expect="plain")
        driver.run()

        (replaced,) = decisions(driver, "replaced", "lapsed")
        assert "better" == line_of(replaced["serving"]["champion"]["model"])
        assert read_registry(driver.log, b"testing", None).proposed is None


def test_a_proposal_lapses_when_nothing_speaks_for_it_any_more() -> None:
    """A challenger that starts anew has no evidence: said once, and the alert resolves."""
    with Driver(declared(mode="ask")) as driver:
        driver.feed(*test_promotion.world(0, 4 * DAY))
        driver.command("restart", model="better")
        driver.feed(*test_promotion.world(4 * DAY, 5 * DAY))

        kinds = [d["kind"] for d in decisions(driver, "proposed", "replaced", "lapsed")]
        assert ["proposed", "lapsed"] == kinds
        ready = [a["state"] for a in driver.read("alerts") if a["kind"] == "challenger_ready"]
        assert ["open", "resolved"] == ready
        driver.command("promote", model="better", expect="plain", command_id="late")
        driver.run()
        assert "refused" == driver.read("registry")[-1]["kind"]


def test_gross_harm_is_answered_by_whom_it_is_asked() -> None:
    """The guard proposes the switch, with its figures; evidence is not asked for then."""
    with Driver(test_guard.declared(on_harm="ask", mode="gated")) as driver:
        driver.feed(*test_guard.world(0, FLIP + 7 * HOUR))
        (proposed,) = decisions(driver, "proposed", "replaced", "rolled_back", "lapsed")
        assert {
            "command": "promote",
            "model": "plain",
            "expect": "better",
            "cause": "gross_harm",
        } == proposed["evidence"]["proposal"]
        assert proposed["evidence"]["block_loss"] > 0.2
        assert [("open", "line:better")] == test_guard.alerts(driver, "gross_harm")

        driver.command("promote", model="plain", expect="better")
        driver.run()

        assert "replaced" == driver.read("registry")[-1]["kind"]
        assert [("open", "line:better"), ("resolved", "line:better")] == test_guard.alerts(
            driver, "gross_harm"
        )


def test_what_was_asked_for_opens_no_gate_once_nobody_is_asked() -> None:
    """The proposal lapses at the start with another declaration, and the gates hold again."""
    with Driver(test_guard.declared(on_harm="ask", mode="gated")) as driver:
        driver.feed(*test_guard.world(0, FLIP + 7 * HOUR))
        driver.declare(test_guard.declared(on_harm="alert", mode="gated"))
        driver.command("promote", model="plain", expect="better")
        driver.run()

        kinds = [d["kind"] for d in decisions(driver, "proposed", "replaced", "lapsed", "refused")]
        assert ["proposed", "lapsed", "refused"] == kinds


def test_another_target_of_the_guard_takes_the_place_of_the_former_once_that_has_lapsed() -> None:
    """A newer snapshot of the line to return to is no other question, however often it comes."""
    stage = Stage(declare(promotion=replace(shop.promotion, on_harm="ask")))
    stage.publish("logistic@0", "bayes@0")
    evaluate, outputs = stage.evaluate, list[Output]()
    serving = evaluate._decisions.registry.serving
    assert serving is not None
    switch = GuardAction("switch", "harm", {}, "bayes")
    back = GuardAction("roll back", "harm", {}, "predecessor")
    newer = replace(serving.champion, model="logistic@9")
    for action, predecessor in ((switch, None), (back, serving.champion), (back, newer)):
        evaluate._promotions._ask(action, replace(serving, predecessor=predecessor), outputs)

    assert ["proposed", "lapsed", "proposed"] == [output.memo.kind for output in outputs]
    assert "logistic@0" in outputs[-1].memo.reason


def test_a_proposal_of_the_guard_lapses_when_the_harm_is_over() -> None:
    """Nobody has answered, and the champion has healed."""
    with Driver(test_guard.declared(on_harm="ask", mode="gated")) as driver:
        driver.feed(*test_guard.world(0, FLIP + DAY))

        kinds = [d["kind"] for d in decisions(driver, "proposed", "replaced", "lapsed")]
        assert ["proposed", "lapsed"] == kinds
        assert [("open", "line:better"), ("resolved", "line:better")] == test_guard.alerts(
            driver, "gross_harm"
        )


def test_policies_are_the_same_whatever_dies() -> None:
    """A pause for a fault, a question and its answer: deaths around them change not a byte."""
    pipeline = declared(mode="ask", on_fault="pause")
    command = {"kind": "promote", "model": "better", "expect": "plain"}
    # Asked for on the third day, while the fault of the fourth lasts somebody answers.
    days = [0, 2 * DAY, 3 * DAY + 15 * HOUR, 4 * DAY]
    fault = (3 * DAY + 10 * HOUR, 3 * DAY + 20 * HOUR)
    batches = [(*broken(*each, fault), None) for each in itertools.pairwise(days)]
    batches[1] = (*batches[1][:2], command)
    expected = history(None, pipeline, *batches)

    kinds = {d["kind"] for d in expected["decisions"]}
    assert {"suspended", "continued", "proposed", "replaced"} <= kinds
    for seed in range(1):
        assert history(seed, pipeline, *batches) == expected, f"seed {seed}"
