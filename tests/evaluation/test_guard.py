"""The guard: when what serves is harmful, and against what."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.evaluation.guard import StandingGuard, SuccessorGuard
from stream_ml.evaluation.scores import absolute_error
from tests.evaluation.test_contest import RULES, example

if TYPE_CHECKING:
    from stream_ml.evaluation.contest import Rules

STANDING = replace(RULES, kind="binary", rollback_loss=0.02)


def guarded(rules: Rules = RULES) -> SuccessorGuard:
    """A guard that watches for a predecessor, `was@3`."""
    guard = SuccessorGuard(rules)
    guard.watch(active=True)
    return guard


def compared(guard: SuccessorGuard, ts: int, mine: float | None, theirs: float | None) -> Any:
    """What the guard says to one comparison with the predecessor, at the watermark of its time."""
    own_loss = None if mine is None else absolute_error(0.0, mine)
    return guard.add(example(ts, mine, predecessor=("was@3", theirs)), own_loss, ts, "was@3")


def test_a_whole_block_in_which_more_is_lost_than_is_borne_is_harm() -> None:
    """The block of the switch judges nothing; the next one does, when its labels are in."""
    guard = guarded()
    for ts in (90, 110, 120):
        assert compared(guard, ts, 9.0, 0.0) is None, "the block of the switch, and too early"
    assert compared(guard, 130, 1.0, 0.0) is None
    assert compared(guard, 249, 9.0, 0.0) is None
    harm = compared(guard, 250, 9.0, 0.0)

    assert {"block_pairs": 3, "block_loss": 19 / 3} == harm.evidence
    assert "lost 6.3333 more than its predecessor" in harm.reason
    assert not guard.watching


@pytest.mark.parametrize(
    ("mine", "theirs"), [(0.5, 0.0), (0.0, 9.0)], ids=["just what is borne", "better"]
)
def test_a_harmless_block_ends_the_watch(mine: float, theirs: float) -> None:
    """What loses no more than is borne has passed, and what comes later is not looked at."""
    guard = guarded()
    for ts in (0, 110, 120, 130, 210, 220, 230):
        assert compared(guard, ts, *((9.0, 0.0) if ts > 200 else (mine, theirs))) is None
    assert compared(guard, 360, 9.0, 0.0) is None
    assert not guard.watching


def test_a_thin_block_is_passed_over_by_the_guard() -> None:
    """Fewer pairs than are asked for judge nothing; the watch goes on."""
    guard = guarded()
    for ts in (0, 110, 120, 210, 220, 230):
        assert compared(guard, ts, 9.0, 0.0) is None
    assert guard.watching
    assert compared(guard, 350, 9.0, 0.0).evidence["block_pairs"] == 3


def test_a_clock_that_is_ahead_does_not_put_the_guard_off() -> None:
    """The first comparison may be dated years ahead: the guard begins by the watermark."""
    guard = guarded()
    ahead = example(10**9, 9.0, predecessor=("was@3", 0.0))
    assert guard.add(ahead, 9.0, 90, "was@3") is None
    for ts in (110, 120, 130, 210, 220, 230):
        assert compared(guard, ts, 9.0, 0.0) is None

    assert compared(guard, 350, 9.0, 0.0).evidence["block_pairs"] == 3


def test_no_answer_where_the_predecessor_has_one_is_harm() -> None:
    """Where neither has an answer nothing is compared, nor with another snapshot."""
    guard = guarded()
    assert compared(guard, 0, None, None) is None
    assert guard.add(example(0, None, predecessor=("was@2", 0.0)), None, 0, "was@3") is None
    assert guard.add(example(0, None), None, 0, "was@3") is None
    harm = compared(guard, 0, None, 0.0)

    assert "old@5 has no answer where was@3 has one" == harm.reason
    unguarded = guarded(replace(RULES, rollback_loss=None))
    assert not unguarded.watching
    assert compared(unguarded, 0, None, 0.0) is None


def test_a_watch_begun_again_passes_over_the_block_of_its_own_switch() -> None:
    """Each switch has a block of its own that judges nothing."""
    guard = guarded()
    compared(guard, 0, 0.0, 0.0)
    guard.watch(active=True)
    for ts in (510, 520, 530):
        assert compared(guard, ts, 9.0, 0.0) is None
    assert compared(guard, 650, 9.0, 0.0) is None
    guard.watch(active=False)
    assert not guard.watching


@pytest.mark.parametrize("pause", range(1, 8))
def test_a_watch_taken_up_goes_on_alike(pause: int) -> None:
    """Dumped and loaded after any example, it says the same."""
    times = (0, 110, 120, 130, 210, 220, 250)
    straight, first, second = guarded(), guarded(), SuccessorGuard(RULES)
    expected = [compared(straight, ts, 9.0, 0.0) for ts in times]
    said = [compared(first, ts, 9.0, 0.0) for ts in times[:pause]]
    second.load(orjson.loads(orjson.dumps(first.dump())))
    said += [compared(second, ts, 9.0, 0.0) for ts in times[pause:]]

    assert expected == said
    assert straight.dump() == second.dump()


def test_a_block_of_examples_begins_with_the_switch() -> None:
    """Counted in examples, the first block judges, whenever its examples are."""
    guard = guarded(replace(RULES, guard_block_ms=None, guard_block_every=4))
    said = [compared(guard, ts, 9.0, 0.0) for ts in (0, 1, 2, 3)]

    assert [None, None, None] == said[:3]
    assert {"block_pairs": 4, "block_loss": 9.0} == said[3].evidence


@pytest.mark.parametrize("pause", range(8))
@pytest.mark.parametrize(
    ("losses", "is_harm"),
    [
        ((9.0, 0.0, 9.0, 0.0, 9.0, 0.0, 9.0, 0.0), False),
        ((9.0, 8.0, 9.0, 8.0, 9.0, 8.0, 9.0, 8.0), True),
        ((0.4, 0.6, 0.4, 0.6, 0.4, 0.6, 0.4, 0.6), False),
    ],
    ids=["over by luck", "over", "within what is borne"],
)
def test_a_block_of_few_examples_is_no_harm_by_luck(
    losses: tuple[float, ...], pause: int, *, is_harm: bool
) -> None:
    """Eight examples of which every other one costs 9 more may cost 4.5 on average by chance.

    A restart amid the block changes nothing.
    """
    rules = replace(RULES, guard_block_ms=None, guard_block_every=8)
    first, second = guarded(rules), SuccessorGuard(rules)
    said = [compared(first, ts, loss, 0.0) for ts, loss in enumerate(losses[:pause])]
    second.load(orjson.loads(orjson.dumps(first.dump())))
    said += [compared(second, ts, losses[ts], 0.0) for ts in range(pause, 8)]

    assert is_harm == (said[-1] is not None)
    assert [None] * 7 == said[:7]
    assert not second.watching


def judged(
    blocks: list[dict[str, float]], rules: Rules = STANDING, served: float = 0.3, **models: str
) -> StandingGuard:
    """A standing guard that has seen the block of a switch, and a whole block of each of these.

    In each what serves loses `served`, and each reference what is said, in five examples.
    """
    guard = StandingGuard(rules, 0.25)
    for number, losses in enumerate([{}, *blocks, {}]):
        for ts in range(number * 100, number * 100 + 50, 10):
            guard.add(ts, served, losses, ts, models)
    guard.add(10**6, served, {}, (len(blocks) + 1) * 100 + 50, models)
    return guard


def found(guard: StandingGuard) -> list[tuple[str, int, bool]]:
    """Against what there is gross harm, over how many blocks, and whether it is healthy."""
    return [(each.reference, each.blocks, each.is_healthy) for each in guard.findings()]


def test_two_whole_blocks_running_are_gross_harm() -> None:
    """One block is luck; the greatest harm is named first, with its figures."""
    assert [] == found(judged([{"line:a": 0.1}]))
    guard = judged([{"line:a": 0.1, "uniform": 0.25}, {"line:a": 0.2, "uniform": 0.25}])

    assert [("line:a", 2, True), ("uniform", 2, True)] == found(guard)
    [first, _] = guard.findings()
    assert {"reference": "line:a", "blocks": 2, "block_pairs": 10} == {
        name: value for name, value in first.figures().items() if name != "block_loss"
    }
    assert first.excess == pytest.approx(0.15)


@pytest.mark.parametrize("between", [0.3, 0.28])
def test_a_block_that_is_not_over_breaks_the_run(between: float) -> None:
    """Equal, or worse by just what is borne: the count begins anew."""
    guard = judged([{"line:a": 0.1}, {"line:a": between}, {"line:a": 0.1}])

    assert [] == found(guard)


def test_a_thin_block_neither_counts_nor_breaks_the_run() -> None:
    """Where a reference had no answers it is as if the block had not been."""
    guard = judged([{"line:a": 0.1}, {}, {"line:a": 0.1}])

    assert [("line:a", 2, True)] == found(guard)


@pytest.mark.parametrize(("few", "expected"), [(0.9, 2), (0.0, 2)], ids=["not over", "over"])
def test_a_block_of_too_few_pairs_judges_nothing(few: float, expected: int) -> None:
    """Two examples are neither harm nor its end, whatever they say."""
    guard = StandingGuard(STANDING, 0.25)
    for number, losses in enumerate([{}, {"line:a": 0.1}, {"line:a": few}, {"line:a": 0.1}]):
        for ts in range(number * 100, number * 100 + 50, 10):
            is_asked = number != 2 or ts < number * 100 + 20
            guard.add(ts, 0.3, losses if is_asked else {}, ts, {})
    guard.add(10**6, 0.3, {}, 450, {})

    assert [("line:a", expected, True)] == found(guard)


def test_what_is_itself_worse_than_the_uniform_answer_is_no_refuge() -> None:
    """It does less harm, and still is not fit to serve."""
    guard = judged([{"line:a": 0.28, "line:b": 0.26}] * 2, served=0.5)

    assert [("line:b", 2, True), ("line:a", 2, False)] == found(guard)


def test_another_snapshot_begins_anew() -> None:
    """What one predecessor did better is not held for the next one."""
    guard = judged([{"predecessor": 0.1}] * 2, predecessor="a@1")
    assert [("predecessor", 2, True)] == found(guard)

    guard.add(450, 0.3, {"predecessor": 0.1}, 450, {"predecessor": "a@2"})
    assert [] == found(guard)


def test_the_first_block_after_a_switch_judges_nothing() -> None:
    """So a whole guard period passes between two switches, and then two blocks must be over."""
    guard = judged([{"line:a": 0.1}] * 2)
    guard.start("b")
    for ts in range(410, 700, 10):
        guard.add(ts, 0.3, {"line:b": 0.1}, ts, {})
        assert [] == found(guard)
    for ts in range(700, 760, 10):
        guard.add(ts, 0.3, {"line:b": 0.1}, ts, {})

    assert [("line:b", 2, True)] == found(guard)
    assert (False, True) == (guard.is_refuge("b"), guard.is_refuge("a"))


def test_a_line_that_was_left_is_a_refuge_again_after_a_block_in_which_it_was_no_better() -> None:
    """A world that turns back later is another matter than a switch that came out bad."""
    guard = StandingGuard(STANDING, 0.25)
    guard.start("b")
    losses = [0.0, 0.3, 0.1, 0.1, 0.1]
    for ts in range(0, 460, 10):
        guard.add(ts, 0.3, {"line:b": losses[ts // 100]}, ts, {})

    assert guard.is_refuge("b")
    assert [("line:b", 2, True)] == found(guard)


def test_small_blocks_of_equal_models_are_no_harm() -> None:
    """Of 400 blocks of 50 independent examples many are over the bound by chance alone."""
    rules = replace(STANDING, guard_block_ms=None, guard_block_every=50)
    guard = StandingGuard(rules, None)
    rand = random.Random(7)
    found_blocks, excesses = 0, []
    for number in range(20_000):
        served, other = rand.random() ** 2, rand.random() ** 2
        excesses.append(served - other)
        guard.add(number, served, {"line:a": other}, number, {})
        found_blocks += guard.has_judged and bool(guard.findings())

    means = [sum(excesses[n : n + 50]) / 50 for n in range(0, 20_000, 50)]
    assert sum(mean > 0.02 for mean in means) > 100
    assert 0 == found_blocks


def test_a_flip_is_found_in_two_blocks_of_examples() -> None:
    """Where what serves is wrong and another is right, a hundred examples suffice."""
    rules = replace(STANDING, guard_block_ms=None, guard_block_every=50)
    guard = StandingGuard(rules, 0.25)
    rand = random.Random(8)
    for number in range(100):
        assert [] == found(guard)
        right = rand.random() < 0.9
        guard.add(number, 0.81 if right else 0.01, {"line:a": 0.01 if right else 0.81}, number, {})

    assert [("line:a", 2, True)] == found(guard)


def test_no_bound_guards_nothing() -> None:
    """Where any loss is borne nothing is judged, and nothing is kept."""
    guard = judged([{"line:a": 0.0}] * 3, replace(STANDING, rollback_loss=None))

    assert [] == found(guard)
    assert [] == guard.dump()["blocks"]


@pytest.mark.parametrize(("bound", "expected"), [(0.02, [("line:a", 2, True)]), (0.9, [])])
def test_another_bound_holds_from_the_block_that_ends_next(
    bound: float, expected: list[tuple[str, int, bool]]
) -> None:
    """Blocks that are open at a restart are judged by what is declared by then."""
    before = StandingGuard(replace(STANDING, rollback_loss=0.5), 0.25)
    guard = StandingGuard(replace(STANDING, rollback_loss=bound), 0.25)
    for ts in range(0, 360, 10):
        if ts == 150:
            guard.load(before.dump())
        (before if ts < 150 else guard).add(ts, 0.3, {"line:a": 0.1}, ts, {})

    assert expected == found(guard)


def test_calm_is_two_blocks_that_are_not_over() -> None:
    """One is not enough for the end of harm either."""
    over, under = {"line:a": 0.1}, {"line:a": 0.3}
    assert not judged([over, over, under]).is_calm()
    guard = judged([over, over, under, under])
    assert guard.is_calm()
    assert guard.is_calm("line:a")
    assert not guard.is_calm("line:b")

    guard = judged([over, over])
    guard.retain(["line:b"])
    assert [] == found(guard)


steps = st.lists(
    st.tuples(
        st.integers(0, 900),
        st.sampled_from([0.0, 0.1, 0.3]),
        st.dictionaries(st.sampled_from(["line:a", "first"]), st.sampled_from([0.0, 0.2])),
        st.sampled_from(["a@1", "a@2"]),
    ),
    max_size=60,
)


@given(steps, st.integers(0, 60), st.booleans())
@settings(max_examples=60)
def test_a_standing_guard_taken_up_goes_on_alike(
    history: list[tuple[int, float, dict[str, float], str]], cut: int, is_counted: bool
) -> None:
    """Dumped as JSON and loaded anywhere, it comes to the same, bit for bit."""
    rules = replace(STANDING, guard_block_ms=None, guard_block_every=3) if is_counted else STANDING
    straight, through = StandingGuard(rules, 0.25), StandingGuard(rules, 0.25)
    straight.start("a")
    through.start("a")
    for number, (ts, served, losses, model) in enumerate(history):
        if number == cut:
            state = orjson.loads(orjson.dumps(through.dump()))
            through = StandingGuard(rules, 0.25)
            through.load(state)
        for guard in (straight, through):
            guard.add(ts, served, losses, ts, {"first": model})
        assert straight.findings() == through.findings()

    assert straight.dump() == through.dump()
