"""Sketches of numbers say what the numbers say, however these came."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.monitoring.columns import NumberColumn
from stream_ml.monitoring.distance import distance
from stream_ml.monitoring.sketch import BUCKETS_MAX, LEVEL_MAX, QuantileSketch

NUMBERS = st.lists(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-100, 100)
    | st.sampled_from([0.0, -0.0, 0, 7]),
    max_size=300,
)


def sketch(*batches: list[float]) -> QuantileSketch:
    """A sketch of what came in batches."""
    made = QuantileSketch()
    for batch in batches:
        made.add(batch)
    return made


@given(NUMBERS, st.data())
def test_a_sketch_depends_on_the_numbers_alone(numbers: list[float], data: st.DataObject) -> None:
    """Another order, other batches and a merge of parts come to the same bytes."""
    shuffled = data.draw(st.permutations(numbers))
    cut = data.draw(st.integers(0, len(numbers)))
    merged = sketch(shuffled[:cut])
    merged.merge(sketch(shuffled[cut:]))

    expected = orjson.dumps(sketch(numbers).dump())
    assert expected == orjson.dumps(sketch(shuffled[:cut], shuffled[cut:]).dump())
    assert expected == orjson.dumps(merged.dump())
    assert expected == orjson.dumps(QuantileSketch.load(merged.dump()).dump())


@given(NUMBERS.filter(bool), st.floats(0, 1))
def test_a_quantile_is_as_exact_as_its_bucket(numbers: list[float], share: float) -> None:
    """It is within a bucket's width of the number that stands at that rank."""
    made = sketch(numbers)
    rank = next(n for n in range(1, len(numbers) + 1) if n >= share * len(numbers))
    exact = sorted(numbers)[rank - 1]

    # At level L a bucket spans 2^L of 256 parts of an octave.
    factor = 2.0 ** min((1 << made.level) / 256 + 0.1, 900)
    if exact == 0 or abs(exact) < 1e-290 or abs(exact) > 1e290:
        return
    assert abs(exact) / factor <= abs(made.quantile(share)) <= abs(exact) * factor


@given(NUMBERS)
def test_a_sketch_stays_small(numbers: list[float]) -> None:
    """However many numbers of whatever size: no more buckets than allowed, none lost."""
    made = sketch(numbers)
    assert len(made.counts) <= BUCKETS_MAX
    assert made.level <= LEVEL_MAX
    assert len(numbers) == made.n == sum(count for _, count in made.weights())


def test_no_numbers_have_no_quantiles() -> None:
    """An empty sketch says so."""
    with pytest.raises(ValueError, match="no numbers"):
        sketch().quantile(0.5)


def test_close_numbers_are_told_apart() -> None:
    """A temperature that moves by a degree of 290 moves in the sketch."""
    cold, warm = (
        sketch([288.0 + i / 100 for i in range(50)]),
        sketch([291.5 + i / 100 for i in range(50)]),
    )
    assert set() == cold.counts.keys() & warm.counts.keys()


def test_a_restart_in_each_week_of_two_years_changes_no_bit() -> None:
    """Counts that are halved each week fill all bits of a number, and are summed alike still."""
    rand = random.Random(8)
    lasting, restarted = NumberColumn(), NumberColumn()
    for _ in range(110):
        numbers = [rand.choice((10.0, 1.0, 4.0, 2.5, 7.0)) * rand.choice((1, 3)) for _ in range(99)]
        block = NumberColumn()
        block.add([*numbers[:50], rand.lognormvariate(0, 3)])
        state = orjson.loads(orjson.dumps(restarted.dump()))
        restarted = NumberColumn()
        restarted.load(state)
        for each in (lasting, restarted):
            for first in range(0, 99, 33):
                each.add(numbers[first : first + 33])
            each.merge(block)
            each.halve()
        assert lasting.dump() == restarted.dump()
        assert distance(block, lasting) == distance(block, restarted)
