"""The contest: which pairs are evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream_ml.evaluation.contest import Comparison, Contest, Rules
from stream_ml.evaluation.guard import SuccessorGuard
from stream_ml.records import Example, Prediction, Shadow, Source

RULES = Rules(
    kind="regression",
    block_ms=None,
    block_every=1,
    guard_block_ms=100,
    maturity_ms=50,
    pairs_min=3,
    slots=2,
    alpha=0.05,
    gain_min=0.0,
    rollback_loss=0.5,
)


def example(ts: int, mine: float | None, model: str = "old@5", **shadows: Any) -> Example:
    """An example whose truth is 0, so that what a model answers is what it loses."""
    answers = {slot: Shadow(*given) for slot, given in shadows.items()}
    fallback = mine is None
    prediction = Prediction("e", "k", ts, Source(0, 0), model, -1, mine, fallback, {}, answers)
    return Example(prediction, 0.0, ts, Source(0, 0))


def begun(rules: Rules = RULES, *challengers: str) -> Contest:
    """A contest under the snapshot `old@5`."""
    contest = Contest(rules)
    contest.start("old@5", challengers or ("new",))
    return contest


def figures(contest: Contest, line: str = "new") -> tuple[int, int]:
    """Blocks won and lost."""
    report = contest.report(line)
    assert report is not None
    return report["wins"], report["losses"]


@pytest.mark.parametrize(
    ("model", "shadow"),
    [
        ("old@4", "new@4"),
        ("other@6", "new@6"),
        ("old@6", "new@5"),
        ("old@5", "new@6"),
    ],
    ids=["an earlier reign", "another line's reign", "a stale challenger", "a stale champion"],
)
def test_a_pair_of_another_reign_or_age_is_no_evidence(model: str, shadow: str) -> None:
    """Only what the present champion's line said, beside a challenger of the same age, counts."""
    contest = begun()
    contest.add(example(0, 1.0, model, new=(shadow, 0.0)), 0)
    assert ((0, 0), False) == (figures(contest), contest.has_new_vote)

    contest.add(example(0, 1.0, "old@5", new=("new@5", 0.0)), 0)
    contest.add(example(0, 1.0, "old@9", new=("new@9", 2.0)), 0)
    assert ((1, 1), True) == (figures(contest), contest.has_new_vote)


def test_who_could_not_be_renewed_by_its_own_fault_is_compared_all_the_same() -> None:
    """What a line published is its quality, too: its old snapshot counts against the new one."""
    contest = begun()
    for mine, other, fault in (("old@9", "new@5", "new@5"), ("old@9", "new@12", "old@9")):
        contest.refresh(max(int(model[4:]) for model in (mine, other)), [fault])
        contest.add(example(0, 1.0, mine, new=(other, 0.0)), 0)
    assert (2, 0) == figures(contest)

    # Of none of these was it offered to be renewed: a rollback, say, has them stand so.
    for mine, other in (("old@9", "new@13"), ("old@8", "new@12"), ("old@12", "new@9")):
        contest.add(example(0, 1.0, mine, new=(other, 0.0)), 0)
    assert (2, 0) == figures(contest)


def test_a_fault_that_is_over_spares_nothing_that_came_after_it() -> None:
    """A snapshot that is returned to is compared with those of its faults, and not with newer."""
    contest = begun()
    contest.refresh(6, ["old@5"])
    contest.refresh(7, ["old@5"])
    contest.refresh(8, [])
    contest.refresh(9, ["old@5"])
    state = orjson.loads(orjson.dumps(contest.dump()))
    restored = begun()
    restored.load(state)

    for each in (contest, restored):
        comparable = [n for n in range(5, 12) if each.is_comparable("old@5", f"new@{n}")]
        assert [5, 6, 7, 9] == comparable
        assert comparable == [n for n in range(5, 12) if each.is_comparable(f"new@{n}", "old@5")]
    assert state == restored.dump()


def test_of_faults_only_the_newest_are_remembered() -> None:
    """However often a line fails, what is kept of it stays small."""
    contest = begun()
    for version in range(0, 100, 2):
        contest.refresh(version, [f"new@{version - 1}"] if version else [])
        contest.refresh(version + 1, [])

    assert len(orjson.dumps(contest.dump()["stays"])) < 200
    assert contest.is_comparable("new@97", "old@98")
    assert not contest.is_comparable("new@1", "old@2")


def test_what_was_not_answered_is_no_evidence() -> None:
    """A fallback is no answer of the champion's, and None none of the challenger's."""
    contest = begun()
    contest.add(replace(example(0, None, new=("new@5", 0.0))), 0)
    contest.add(example(0, 1.0, new=("new@5", None)), 0)
    spoken = example(0, 1.0, new=("new@5", 0.0))
    spoken.prediction.fallback = True
    contest.add(spoken, 0)

    assert (0, 0) == figures(contest)


def test_a_champion_behind_a_fallback_is_judged_by_its_own_answers() -> None:
    """Its answer as a shadow counts as if it served, for evidence and for the guard."""
    contest, guard = begun(), SuccessorGuard(RULES)
    guard.watch(active=True)
    for ts in (0, 110, 120, 130, 260):
        shadows = {"old": ("old@5", 1.0), "new": ("new@5", 0.0), "predecessor": ("was@3", 0.0)}
        shadowed = example(ts, None, **shadows)
        comparison = contest.add(shadowed, ts)
        assert comparison == Comparison(1.0, {"new": 0.0})
        harm = guard.add(shadowed, comparison.own_loss, ts, "was@3")

    assert (5, 0) == figures(contest)
    assert harm is not None
    assert 1.0 == harm.evidence["block_loss"]


def test_a_challenger_is_compared_also_where_the_champion_has_no_answer() -> None:
    """That is no evidence; the guard holds what was served in its place against it."""
    contest = begun()

    assert Comparison(None, {"new": 0.0}) == contest.add(example(0, None, new=("new@5", 0.0)), 0)
    assert contest.add(example(0, 1.0, "other@6", new=("new@6", 0.0)), 0) is None
    assert (0, 0) == figures(contest)


def test_evidence_in_blocks_of_time_waits_for_labels_and_needs_pairs() -> None:
    """A block votes when the watermark has passed its end by the maturity, if it has the pairs."""
    contest = begun(replace(RULES, block_ms=1_000))
    for ts in (10, 20, 30, 1_010, 1_020):
        contest.add(example(ts, 1.0, new=("new@5", 0.0)), ts)
    contest.add(example(1_030, 1.0), 1_049)
    assert (0, 0) == figures(contest)
    contest.add(example(1_040, 1.0), 1_050)
    assert ((1, 0), True) == (figures(contest), contest.has_new_vote)
    contest.add(example(1_050, 1.0), 1_051)
    assert not contest.has_new_vote
    contest.add(example(2_000, 1.0), 3_000)

    report = contest.report("new")
    assert report is not None
    assert (1, 1, 3, 2 / 0.05) == (
        report["wins"],
        report["thin"],
        report["pairs"],
        report["needed"],
    )


def test_the_challenger_with_the_most_evidence_wins() -> None:
    """Of several for whom the evidence suffices, and of those that may take over."""
    contest = begun(RULES, "new", "newer", "worse")
    for number in range(14):
        newer = 0.0 if number else 2.0
        shadows = {"new": ("new@5", 0.0), "newer": ("newer@5", newer), "worse": ("worse@5", 2.0)}
        contest.add(example(number, 1.0, **shadows), 0)

    assert (True, True, False) == tuple(map(contest.suffices, ("new", "newer", "worse")))
    assert "new" == contest.winner(["worse", "newer", "new"])
    assert "newer" == contest.winner(["worse", "newer"])
    assert contest.winner(["worse", "nobody"]) is None


def test_a_renewal_keeps_the_evidence_of_who_stays() -> None:
    """Who is new begins with nothing, who dropped out is forgotten, and a switch begins anew."""
    contest = begun(RULES, "new", "gone")
    contest.add(example(0, 1.0, new=("new@5", 0.0), gone=("gone@5", 0.0)), 0)
    contest.renew(["new", "fresh"])
    assert (["new", "fresh"], (1, 0), (0, 0)) == (
        contest.lines,
        figures(contest),
        figures(contest, "fresh"),
    )
    assert contest.report("gone") is None

    contest.start("new@9", ["old"])
    assert (["old"], (0, 0)) == (contest.lines, figures(contest, "old"))


@pytest.mark.parametrize("pause", range(1, 12))
def test_a_contest_taken_up_goes_on_alike(pause: int) -> None:
    """Dumped and loaded after any example, also before any block was closed, it says the same."""

    def lesson(contest: Contest, number: int) -> Any:
        ts = (0, 110, 120, 130, 140, 150, 160, 170, 210, 220, 230, 350)[number]
        said = contest.add(example(ts, 1.0, new=("new@5", number % 3 / 2)), ts)
        return said, contest.has_new_vote, contest.report("new")

    rules = replace(RULES, block_ms=100)
    straight, begun_anew = begun(rules), Contest(rules)
    expected = [lesson(straight, number) for number in range(12)]
    first = begun(rules)
    said = [lesson(first, number) for number in range(pause)]
    begun_anew.load(orjson.loads(orjson.dumps(first.dump())))
    said += [lesson(begun_anew, number) for number in range(pause, 12)]

    assert expected == said
    assert straight.dump() == begun_anew.dump()


BY_TIME = replace(RULES, block_ms=1_000, block_every=0, maturity_ms=0, pairs_min=1)


def revisable() -> Contest:
    """A contest by time, in which labels may be corrected."""
    contest = Contest(BY_TIME, revisable=True)
    contest.start("old@5", ["new"])
    return contest


@pytest.mark.parametrize("is_between", [False, True])
def test_a_correction_is_late_for_a_block_that_its_own_time_has_closed(is_between: bool) -> None:
    """Whether another example came between changes nothing, nor does a restart."""
    contest = revisable()
    contest.add(example(100, 1.0, new=("new@5", 2.0)), 100)
    if is_between:
        contest.add(example(4_900, None, new=("new@5", 0.0)), 4_900)
    corrected = replace(example(100, 1.0, new=("new@5", 2.0)), label=3.0)
    contest.revise(corrected, 0.0, 5_000)
    assert not contest.has_new_vote
    state = contest.dump()
    contest = revisable()
    contest.load(state)
    assert state == contest.dump()
    contest.add(example(5_100, None, new=("new@5", 0.0)), 5_100)

    assert (0, 1) == figures(contest)
    report = contest.report("new")
    assert report is not None
    assert 1 == report["late_corrections"]


def test_a_pair_of_a_former_reign_is_corrected_in_none_of_a_later_one() -> None:
    """A snapshot that serves again has the evidence of its new reign alone."""
    contest = revisable()
    contest.add(example(100, 1.0, new=("new@5", 2.0)), 100)
    for champion, challenger in (("new@6", "old"), ("old@5", "new")):
        contest.start(champion, [challenger])
    contest.add(example(300, 1.0, new=("new@5", 1.0)), 300)
    open_before = contest.dump()["evidence"]["new"]["blocks"]["open"]
    contest.revise(replace(example(100, 1.0, new=("new@5", 2.0)), label=3.0), 0.0, 400)

    assert open_before == contest.dump()["evidence"]["new"]["blocks"]["open"]
