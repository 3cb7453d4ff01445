"""What a line would have done: taught, frozen and judged on a log as if it had challenged there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cli_toy import TOY
from river import linear_model, naive_bayes, optim, preprocessing

from stream_ml import Retrained
from stream_ml.client import what_if
from stream_ml.errors import DeclarationError
from stream_ml.shell.views.what_if import what_if as timed
from stream_ml.testing import Driver
from tests.stages.test_promotion import DAY, START, ask, contest, run
from tests.stages.test_slices import countries
from tests.stages.test_slices import run as in_countries
from tests.trainers import Bag

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli

    from stream_ml.shell.views.what_if import CandidateView


@pytest.fixture(scope="module")
def promoted() -> Iterator[Driver]:
    """A log on which evidence promoted `better`, and an operator rolled back and promoted again."""
    with Driver(contest) as driver:
        run(driver, 0, 3 * DAY)
        [first] = {d["serving"]["first"]["model"] for d in _replacements(driver)}
        ask(driver, "rollback", "c1", expect="better", model=first)
        run(driver, 3 * DAY, 3 * DAY + 700)
        ask(driver, "resume", "c2", expect="plain")
        run(driver, 3 * DAY + 700, 4 * DAY)
        ask(driver, "promote", "c3", model="better", expect="plain")
        run(driver, 4 * DAY, 5 * DAY)
        yield driver


def _one(driver: Driver, name: str, estimator: Any, **options: Any) -> CandidateView:
    [candidate] = what_if(driver.log, contest, {name: estimator}, **options).candidates
    return candidate


def _replacements(driver: Driver) -> list[dict[str, Any]]:
    return [d for d in driver.read("registry") if d["kind"] == "replaced"]


@pytest.mark.parametrize("line", contest.models)
def test_a_line_that_ran_gives_what_was_recorded_of_it(promoted: Driver, line: str) -> None:
    """Every answer to the last bit, and each evaluation with its evidence, over all reigns."""
    candidate = _one(promoted, line, contest.models[line])
    recorded = candidate.recorded
    written = [e for e in promoted.read("evaluations") if e["model"] == line]

    assert recorded is not None
    assert (recorded.answers, recorded.worst, recorded.different) == (5 * DAY, 0.0, None)
    assert recorded.answers_equal == recorded.answers
    assert (recorded.evaluations, recorded.evaluations_equal) == (len(written), len(written))
    assert len(written) >= 5
    assert ["plain", "better", "plain", "better"] == [
        reign.champion.partition("@")[0] for reign in candidate.reigns
    ]


def test_a_retrained_line_that_ran_gives_what_was_recorded_of_it() -> None:
    """It is trained when and on what it was trained then, and answers the same to the last bit."""
    bag = Retrained(Bag(), 300, every=500)
    retrained = replace(contest, models=contest.models | {"bag": bag})
    with Driver(retrained) as driver:
        run(driver, 0, 3_000)
        [ran, twin] = what_if(driver.log, retrained, {"bag": bag, "twin": bag}).candidates
        trained = [
            model["epoch"].get("trained", {}).get("n")
            for model in driver.read("models")
            if model and model["model"] == "bag"
        ]

    assert len(set(trained)) > 3
    assert ran.recorded is not None
    assert (3_000, 3_000, 0.0) == (
        ran.recorded.answers,
        ran.recorded.answers_equal,
        ran.recorded.worst,
    )
    assert ran.scores is not None
    assert twin.scores is not None
    assert ran.scores.scores["cumulative"] == twin.scores.scores["cumulative"]


def test_another_recipe_under_the_name_of_a_line_is_no_line_that_ran(promoted: Driver) -> None:
    """It gets a name of its own, and is compared with nothing recorded."""
    candidate = _one(promoted, "better", linear_model.LogisticRegression(l2=0.5))

    assert ("better-what-if", None) == (candidate.name, candidate.recorded)


def test_a_recorded_answer_that_is_altered_is_told() -> None:
    """The count, the difference and the event: a comparison that cannot fail shows nothing."""
    with Driver(contest) as driver:
        run(driver, 0, 600)
        other = preprocessing.StandardScaler() | linear_model.LogisticRegression(l2=0.1)
        weaker = replace(contest, models=contest.models | {"better": other})
        [candidate] = what_if(driver.log, weaker, {"better": weaker.models["better"]}).candidates

    recorded = candidate.recorded
    assert recorded is not None
    assert 0 < recorded.answers_equal < recorded.answers
    assert recorded.worst > 0.0
    assert recorded.different is not None
    assert recorded.different.startswith("e")


def test_the_day_on_which_it_would_have_been_promoted(promoted: Driver) -> None:
    """A copy of the line that won is promotable at the very instant, on the very evidence."""
    twin = _one(promoted, "twin", contest.models["better"])
    [won, _] = _replacements(promoted)

    assert won["ts"] == twin.promotable
    assert won["evidence"]["e_value"] == (twin.reigns[0].evidence or {})["e_value"]
    # Against itself it wins nothing.
    assert (twin.reigns[1].evidence or {})["wins"] == 0
    assert twin.reigns[1].promotable is None


def test_what_a_gate_rejects_is_not_promotable() -> None:
    """Better than a bad champion is not good: what does worse than the prior is promoted never."""
    liars = {
        name: preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(rate))
        for name, rate in (("bad", -0.01), ("half", -0.003))
    }
    worse = replace(contest, champion="bad", models={"bad": liars["bad"]})
    with Driver(worse) as driver:
        run(driver, 0, 4 * DAY)
        view = what_if(driver.log, worse, {"half": liars["half"]})
    [candidate] = view.candidates
    evidence = candidate.reigns[0].evidence

    assert evidence is not None
    assert evidence["e_value"] >= evidence["needed"]
    assert candidate.promotable is None


def test_who_is_worse_on_a_slice_is_not_promotable() -> None:
    """Though the evidence suffices; scores by slice are the recorded ones, too."""
    with in_countries(countries, "it fr") as driver:
        estimators = {"better": countries.models["better"]}
        [candidate] = what_if(driver.log, countries, estimators).candidates
    evidence, recorded = candidate.reigns[0].evidence, candidate.recorded

    assert evidence is not None
    assert evidence["e_value"] >= evidence["needed"]
    assert candidate.promotable is None
    assert candidate.scores is not None
    assert candidate.scores.slices is not None
    assert "abroad" in candidate.scores.slices
    assert recorded is not None
    assert recorded.evaluations_equal == recorded.evaluations > 0


def test_losses_by_month_are_of_what_both_answered(promoted: Driver) -> None:
    """Each month has the mean loss of what served and of the candidate on the same examples."""
    view = what_if(promoted.log, contest, {"plain": contest.models["plain"]})
    [candidate] = view.candidates
    [month] = candidate.months

    assert view.served is not None
    assert (month.month, month.pairs) == ("2023-11", view.served.n)
    assert month.served == pytest.approx(view.served.scores["cumulative"]["brier"])
    assert month.served < month.candidate


def test_since_scores_a_stretch_and_teaches_all(promoted: Driver) -> None:
    """What is scored begins there; the answers are those of a learner that knows all before."""
    since = START + 4 * DAY * 60_000
    whole = _one(promoted, "better", contest.models["better"])
    view = what_if(promoted.log, contest, {"better": contest.models["better"]}, since=since)
    [part] = view.candidates
    assert part.recorded is not None
    assert whole.recorded is not None

    assert (view.examples, view.scored, part.recorded.answers) == (5 * DAY, DAY, DAY)
    assert (part.recorded.worst, part.recorded.evaluations) == (0.0, 0)
    assert whole.recorded.answers == 5 * DAY


def test_a_candidate_that_fails_is_told_and_stops_no_other(
    promoted: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last snapshot goes on answering; the others are as without it."""
    learn_one = naive_bayes.GaussianNB.learn_one
    counts = [0]

    def fail(self: Any, x: Any, y: Any) -> None:
        counts[0] += 1
        if counts[0] > 900:
            raise RecursionError
        learn_one(self, x, y)

    frail_estimator = naive_bayes.GaussianNB()
    with monkeypatch.context() as patch:
        patch.setattr(naive_bayes.GaussianNB, "learn_one", fail)
        view = what_if(
            promoted.log,
            contest,
            {"frail": frail_estimator, "better": contest.models["better"]},
        )
    frail, better = view.candidates

    assert frail.failure is not None
    assert "learning failed: RecursionError()" in frail.failure
    assert frail.scores is not None
    assert frail.scores.n > 5 * DAY - 900
    assert int(frail.scores.version.partition("@")[2]) < 900
    assert better.recorded is not None
    assert better.recorded.worst == 0.0


def test_what_cannot_be_a_line_is_refused(promoted: Driver) -> None:
    """With what was expected, as a declaration would be."""
    with pytest.raises(DeclarationError, match="expected a classifier"):
        _one(promoted, "wrong", linear_model.LinearRegression())


def test_costs_are_by_the_clock_that_is_given(promoted: Driver) -> None:
    """So many microseconds an answer and an example, and so many bytes a snapshot."""
    ticks = iter(range(10**9))
    view = timed(
        promoted.log, contest, None, {"twin": contest.models["better"]}, clock=lambda: next(ticks)
    )
    [candidate] = view.candidates
    cost = candidate.cost

    assert cost.snapshot_s == 1.0
    assert cost.answer_us is not None
    # A batch takes one tick of a second.
    assert 1e6 / 1_000 <= cost.answer_us <= 1e6
    assert cost.snapshot_bytes is not None
    assert cost.snapshot_bytes > 100


def test_the_command(cli: Cli, worked: Path) -> None:
    """As text for people, and as JSON the same figures for machines."""
    broker = ("--broker", f"sqlite:{worked}", "--pipeline", TOY)
    text = cli("what-if", TOY, *broker)
    json = cli("what-if", TOY, *broker, "--format", "json").json

    assert (text.code, text.err) == (0, "")
    assert "2,490 examples taught" in text.out
    assert text.out.count("it ran: 2,490 of 2,490 recorded answers again") == 2
    assert ["plain", "scaled"] == [candidate["name"] for candidate in json["candidates"]]
    for candidate in json["candidates"]:
        recorded = candidate["recorded"]
        assert recorded["answers_equal"] == recorded["answers"] == 2_490
        assert recorded["evaluations_equal"] == recorded["evaluations"]


def test_the_command_says_what_is_not_there(cli: Cli, worked: Path) -> None:
    """No such name in the module is a mistake in use, told with those that there are."""
    broker = ("--broker", f"sqlite:{worked}", "--pipeline", TOY)
    ran = cli("what-if", f"{TOY}s", *broker)

    assert ran.code == 2
    assert "expected 'toys' in" in ran.err
    assert "toy" in ran.err.partition("given the names")[2]
