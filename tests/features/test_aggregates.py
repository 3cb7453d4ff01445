"""The laws of an aggregate, crossed with every class there is: a new one is tested by existing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from features_oracle import HALF_LIFE_MS, LAG_MS, aggregate, agrees

from stream_ml.features import aggregates
from stream_ml.features.aggregates import (
    Aggregate,
    DecayedMean,
    DistinctApprox,
    Quantile,
    Slope,
    TopK,
    Variance,
)
from stream_ml.features.aggregates.base import UNITS_PER_ONE, exact
from stream_ml.features.aggregates.cardinality import register_code

if TYPE_CHECKING:
    from collections.abc import Iterator

import numpy as np

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "decayed_mean": (HALF_LIFE_MS,),
    "decayed_variance": (HALF_LIFE_MS,),
    "lag": (LAG_MS,),
}


def classes(parent: type[Aggregate] = Aggregate) -> Iterator[type[Aggregate]]:
    """Every public aggregate of the package."""
    for kind in parent.__subclasses__():
        if kind.__module__.startswith(f"{aggregates.__name__}.") and not kind.__name__.startswith(
            "_"
        ):
            yield kind
        yield from classes(kind)


def make(kind: type[Aggregate]) -> Any:
    """A fresh one."""
    return kind(*ARGUMENTS.get(kind.name, ()))


def fed(kind: type[Aggregate], stream: list[tuple[int, float]]) -> list[tuple[int, Any]]:
    """What an aggregate is fed of a stream: the values, or the codes that stand for them."""
    if kind is DistinctApprox:
        return [(t, register_code(x)) for t, x in stream]
    return [*stream]


def random_stream(seed: int, count: int) -> list[tuple[int, float]]:
    """Times and values in order of time, of mixed magnitudes, with repetitions."""
    rand = random.Random(seed)
    t, stream = 0, []
    for _ in range(count):
        t += rand.choice((0, 1, 10, 100, 5_000))
        stream.append((t, rand.choice((1e9, 1.0, 2.0, rand.gauss(0, 1), -1e-7))))
    return stream


# How far an answer may be off. Of the few values in these windows HyperLogLog loses one at most.
RELATIVE_ERRORS = {"quantile": 1 / 128, "median": 1 / 128, "distinct_approx": 0.2}

every_aggregate = pytest.mark.parametrize("kind", sorted(classes(), key=str), ids=lambda k: k.name)
every_seed = pytest.mark.parametrize("seed", range(3))


def test_every_exported_aggregate_is_in_the_matrix() -> None:
    """What the module exports is what the laws are checked for."""
    assert sorted([kind.__name__ for kind in classes()] + ["Aggregate"]) == aggregates.__all__


def agreements(kind: type[Aggregate], seed: int) -> Iterator[bool]:
    """At each step of a sliding window, whether the answer is that of the textbook definition."""
    rand = random.Random(seed)
    running, inside = make(kind), []
    stream = random_stream(seed, 300)
    for (t, x), (_, given) in zip(stream, fed(kind, stream), strict=True):
        running.add(t, given)
        inside.append((t, x, given))
        while inside and rand.random() < 0.5:
            oldest, _, evicted = inside.pop(0)
            running.evict(oldest, evicted)
        times = np.array([t for t, _, _ in inside], dtype=int)
        values = np.array([x for _, x, _ in inside], dtype=float)
        size = float(abs(values).max()) if inside else 0.0
        scale = size * size if "variance" in kind.name else size

        expected, answer = aggregate(kind.name, t, times, values), running.value(t)
        if kind.name == "counts":  # without a category it has nothing to count
            expected, answer = float((values == 1.0).sum()), running.value(t, 1.0)
        if kind.name in RELATIVE_ERRORS and expected is not None and answer is not None:
            scale = RELATIVE_ERRORS[kind.name] * abs(expected) / 1e-12

        yield agrees(expected, answer, scale)


@every_aggregate
@every_seed
def test_it_equals_brute_force(kind: type[Aggregate], seed: int) -> None:
    """At every step of a sliding window the answer is that of the textbook definition."""
    assert all(agreements(kind, seed))


@every_aggregate
@pytest.mark.parametrize("planted", ["forgets nothing", "answers as of the event before"])
def test_a_bug_in_any_of_them_is_seen(
    kind: type[Aggregate], planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brute force tells an aggregate that is wrong in one of these ways, whichever it is."""
    value = kind.value
    former: list[float | None] = [None]

    def value_before(self: Any, t: int, *question: Any) -> float | None:
        former.append(value(self, t, *question))
        return former.pop(0)

    if planted == "forgets nothing":
        monkeypatch.setattr(kind, "evict", lambda *_: None)
    else:
        monkeypatch.setattr(kind, "value", value_before)
    assert not all(agreements(kind, 1))


@every_aggregate
@every_seed
def test_it_goes_on_from_its_dump(kind: type[Aggregate], seed: int) -> None:
    """Stored as JSON and loaded at any moment, it goes on bit for bit."""
    rand = random.Random(seed)
    running, inside = make(kind), []
    resumed = make(kind)
    for t, x in fed(kind, random_stream(seed, 200)):
        inside.append((t, x))
        for each in (running, resumed):
            each.add(t, x)
        while inside and rand.random() < 0.5:
            oldest = inside.pop(0)
            for each in (running, resumed):
                each.evict(*oldest)
        dump = orjson.dumps(resumed.dump())
        resumed = make(kind)
        resumed.load(orjson.loads(dump))

        assert orjson.dumps(running.dump()) == dump
        assert running.value(t) == resumed.value(t)


@every_aggregate
def test_it_empties_to_the_initial_value(kind: type[Aggregate]) -> None:
    """After everything is evicted, state and answer are those of a fresh one."""
    running, stream = make(kind), fed(kind, random_stream(7, 500))
    for t, x in stream:
        running.add(t, x)
    for t, x in stream:
        running.evict(t, x)

    assert make(kind).dump() == running.dump()
    assert make(kind).value(0) == running.value(0)


@every_aggregate
@every_seed
def test_filling_is_adding(kind: type[Aggregate], seed: int) -> None:
    """Filled at once it is what it is after adding one by one."""
    stream = fed(kind, random_stream(seed, 100))
    added, filled = make(kind), make(kind)
    for t, x in stream:
        added.add(t, x)
    filled.fill([t for t, _ in stream], [x for _, x in stream])

    assert added.dump() == filled.dump()


@pytest.mark.parametrize("kind", [kind for kind in classes() if kind.any_order], ids=str)
@every_seed
def test_any_order_means_any_order(kind: type[Aggregate], seed: int) -> None:
    """One that says so has the same state whatever the order of adding and evicting."""
    stream = fed(kind, random_stream(seed, 60))
    shuffled = random.Random(seed).sample(stream, len(stream))
    gone = random.Random(seed + 1).sample(stream, 30)
    states = []
    for order in (stream, shuffled):
        running = make(kind)
        for t, x in order:
            running.add(t, x)
        for t, x in gone if order is stream else reversed(gone):
            running.evict(t, x)
        states.append(running.dump())

    assert states[0] == states[1]


@every_aggregate
def test_a_subclass_answers_for_its_parents(kind: type[Aggregate]) -> None:
    """A parent's question to a subclass has the answer that the parent itself would give."""
    parents = [each for each in kind.__mro__[1:] if each in set(classes())]
    stream = random_stream(3, 50)
    for parent in parents:
        own, other = make(kind), make(parent)
        for t, x in stream:
            own.add(t, x)
            other.add(t, x)

        assert parent.value(own, 0) == other.value(0)


def test_variance_far_from_zero_is_right() -> None:
    """Around 1e9, after values near 0 have come and gone, the variance is right to the bit."""
    variance = Variance()
    for _ in range(1_000):
        variance.add(0, 0.001)
    for x in (1e9 - 1, 1e9, 1e9 + 1):
        variance.add(1, x)
    for _ in range(1_000):
        variance.evict(0, 0.001)

    assert variance.value(2) == 1.0


def test_a_huge_value_leaves_no_trace() -> None:
    """A value of 1e308 that came and went leaves the sum of the others as it was."""
    for kind in (aggregates.Sum, aggregates.Mean, Variance):
        running, untouched = kind(), kind()
        for t, x in ((0, 0.1), (1, 0.2), (2, -1e-30)):
            running.add(t, x)
            untouched.add(t, x)
        running.add(3, 1e308)
        running.add(3, 1e308)

        assert running.value(3) is None or kind is aggregates.Mean

        running.evict(3, 1e308)
        running.evict(3, 1e308)

        assert untouched.dump() == running.dump()


def test_decayed_mean_over_many_half_lives() -> None:
    """Where the window is thousands of half-lives long, the newest value is all that counts."""
    decayed, stream = DecayedMean(1), [(t * 1_000, float(t)) for t in range(1_000)]
    for number, (t, x) in enumerate(stream):
        decayed.add(t, x)
        if number >= 10:
            decayed.evict(*stream[number - 10])

        assert decayed.value(t) == x


def test_numbers_are_exact() -> None:
    """The integer that stands for a double is the double itself."""
    rand = random.Random(5)
    for _ in range(1_000):
        x = rand.gauss(0, 1) * 10.0 ** rand.randrange(-20, 300)

        assert exact(x) / UNITS_PER_ONE == x


def test_quantiles_are_within_their_error_in_a_thousand_runs() -> None:
    """Of whatever size and sign values are, and whatever came and went, none is off by 1/128."""
    for seed in range(1_000):
        rand = random.Random(seed)
        stairs = 10.0 ** rand.choice((0, 2, 40, 290))
        values = [rand.gauss(0, 1) * stairs ** rand.uniform(-1, 1) for _ in range(60)]
        sketch, q = Quantile(), rand.random()
        for x in values:
            sketch.add(0, x)
        for x in values[:20]:
            sketch.evict(0, x)
        right, answer = sorted(values[20:])[int(q * 39)], sketch.value(0, q)

        assert answer is not None
        assert abs(answer - right) <= abs(right) / 128


def test_approximate_counts_are_within_their_error_in_a_thousand_runs() -> None:
    """Of 1 to 1,600 values, half as many gone again, the standard error is below 3.3 %."""
    errors = []
    for seed in range(1_000):
        rand = random.Random(seed)
        n = round(10 ** rand.uniform(0, 3.2))
        sketch = DistinctApprox()
        for number in range(n + n // 2):
            sketch.add(0, register_code(f"{seed} {number}"))
        for number in range(n // 2):
            sketch.evict(0, register_code(f"{seed} {number}"))
        answer = sketch.value(0)

        assert answer is not None
        assert abs(answer - n) <= max(2, 4 * 0.033 * n)  # of a few, two may lie in one register
        errors.append(answer / n - 1)

    assert sum(error * error for error in errors) / len(errors) < 0.033**2
    assert abs(sum(errors)) / len(errors) < 0.033 / 10


def test_a_slope_long_after_1970_is_exact() -> None:
    """A rise of 1e-9 an hour on top of a million, at the end of the century, is what is found."""
    slope, begin = Slope(), 4_000_000_000_000
    for hour in range(10):
        slope.add(begin + hour * 3_600_000, 1e6 + hour * 2**-30)

    assert slope.value(0, 3_600_000) == 2**-30


class _Doubled(TopK):
    """A user's, which counts by itself."""

    def add(self, t: int, x: Any) -> None:  # noqa: ARG002 - as every aggregate
        self.counts[x] = self.counts.get(x, 0) + 2


@pytest.mark.parametrize("kind", [TopK, _Doubled])
@pytest.mark.parametrize("values", [6, 400])
def test_ranks_are_those_of_the_counts_at_any_moment(kind: type[TopK], values: int) -> None:
    """Whatever was asked before, of few values and of many, and after a restart."""
    rand, top = random.Random(values), kind()
    kept: list[str] = []
    for t in range(600):
        kept.append(f"v{int(values * rand.random() ** 2)}")
        top.add(t, kept[-1])
        top.value(t, rand.choice([1, 10, 100]))
        if kind is TopK and rand.random() < 0.3:
            top.evict(t, kept.pop(rand.randrange(len(kept))))
        if rand.random() < 0.02:
            state = orjson.loads(orjson.dumps(top.dump()))
            top.load(state)
        counts = sorted(map(kept.count, set(kept)), reverse=True)
        step = 1 if kind is TopK else 2
        for rank in rand.sample([1, 2, 3, 9, 10, 11, 40, 100], 3):
            expected = float(step * counts[rank - 1]) if rank <= len(counts) else 0.0
            assert expected == top.value(t, rank), (t, rank)
