"""Baselines against brute force: what one who kept every label could have said at the time."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.evaluation.baselines import Baselines

CLASSES = ("a", "b", "c")
LABELS: dict[str, st.SearchStrategy[Any]] = {
    "binary": st.booleans(),
    "multiclass": st.sampled_from(CLASSES),
    "regression": st.integers(-8, 8).map(float),
}


@dataclass
class Hoard:
    """The judge: keeps every label with the time from which it counts as known."""

    kind: str
    labels: list[tuple[int, Any]]

    def learn(self, label: Any, label_ts: int) -> None:
        """Keep one more label, known at the newest label time so far."""
        self.labels.append((max([label_ts, *(ts for ts, _ in self.labels)]), label))

    def answers(self, ts: int) -> dict[str, Any]:
        """What each baseline says, from a pass over all labels."""
        known = [label for label_ts, label in self.labels if label_ts <= ts]
        if self.kind == "regression":
            if not known:
                return {"last": None, "mean": None}
            return {"last": known[-1], "mean": sum(known) / len(known)}
        if not known:
            return {"prior": None}
        if self.kind == "binary":
            return {"prior": sum(known) / len(known)}
        return {"prior": {name: known.count(name) / len(known) for name in CLASSES}}


def steps(kind: str) -> st.SearchStrategy[list[tuple[int, Any, int]]]:
    """Examples as (how far the clock moved, label, how far behind the newest its time lies)."""
    step = st.tuples(st.integers(0, 4), LABELS[kind], st.sampled_from([0, 0, 0, 1, 3, 9]))
    return st.lists(step, max_size=60)


@pytest.mark.parametrize("kind", list(LABELS))
class TestBruteForce:
    """Answers are those of the hoard wherever the horizon reaches."""

    @given(data=st.data())
    def test_answers(self, kind: str, data: st.DataObject) -> None:
        """With ties, gaps and labels out of order, every moment in the horizon is answered right.

        Restarts in between change nothing.
        """
        horizon_ms = data.draw(st.integers(0, 12))
        baselines, hoard, newest = Baselines(kind, CLASSES, horizon_ms), Hoard(kind, []), -3
        for moved, label, behind in data.draw(steps(kind)):
            newest += moved
            baselines.learn(label, newest - behind, newest)
            hoard.learn(label, newest - behind)
            watermark = hoard.labels[-1][0]
            for ts in range(watermark - horizon_ms, watermark + 2):
                assert baselines.answers(ts) == hoard.answers(ts)
            if moved == 4:
                state = json.dumps(baselines.dump())
                baselines = Baselines(kind, CLASSES, horizon_ms)
                baselines.load(json.loads(state))

                assert json.dumps(baselines.dump()) == state

    @given(data=st.data())
    def test_merged_moments(self, kind: str, data: st.DataObject) -> None:
        """Where moments had to be merged, an answer is one that was right a little earlier."""
        horizon_ms, most = 40, 8
        baselines = Baselines(kind, CLASSES, horizon_ms, moments_max=most)
        hoard, newest = Hoard(kind, []), 100
        for moved, label, behind in data.draw(steps(kind)):
            newest += moved
            baselines.learn(label, newest - behind, newest)
            hoard.learn(label, newest - behind)
            watermark = hoard.labels[-1][0]

            assert len(baselines.dump()["moments"]) <= most
            for ts in range(watermark - horizon_ms, watermark + 1):
                late = baselines.dump()["grain_ms"] - 1
                earlier = [hoard.answers(t) for t in range(ts - late, ts + 1)]

                assert baselines.answers(ts) in earlier

    def test_restart(self, kind: str) -> None:
        """Dumped and loaded at any point, baselines go on to byte-identical dumps and answers."""
        rand = random.Random(11)
        values: list[Any] = {
            "binary": [False, True],
            "multiclass": list(CLASSES),
            "regression": [0.1, 0.2, 1e16, -3.3],
        }[kind]
        examples = [(rand.choice(values), 3 * i - rand.randrange(20)) for i in range(300)]
        through = Baselines(kind, CLASSES, 90, moments_max=16)
        restarted = Baselines(kind, CLASSES, 90, moments_max=16)
        for label, label_ts in examples:
            ts = label_ts - rand.randrange(60)
            through.learn(label, label_ts, label_ts)
            restarted.learn(label, label_ts, label_ts)
            if rand.random() < 0.2:
                state = json.loads(json.dumps(restarted.dump()))
                restarted = Baselines(kind, CLASSES, 90, moments_max=16)
                restarted.load(state)

            assert json.dumps(restarted.answers(ts)) == json.dumps(through.answers(ts))

        assert json.dumps(restarted.dump()) == json.dumps(through.dump())


class TestBounds:
    """What is kept, and what is answered beyond it."""

    def test_memory(self) -> None:
        """History ends at the horizon however long the stream, and is not dumped beyond it."""
        baselines = Baselines("binary", (), horizon_ms=1_000)
        for ts in range(0, 200_000, 10):
            baselines.learn(True, ts, ts)

        assert len(baselines.dump()["moments"]) == 101
        assert len(baselines._moments) <= 2 * 101 + 2

    def test_beyond_the_horizon(self) -> None:
        """A moment before the horizon has no answer, rather than one that knows too much."""
        baselines = Baselines("binary", (), horizon_ms=10)
        for ts in (0, 50, 100):
            baselines.learn(True, ts, ts)

        assert baselines.answers(89) == {"prior": None}
        assert baselines.answers(90) == {"prior": 1.0}

    def test_majority(self) -> None:
        """Of classes seen equally often the one declared first is the majority."""
        baselines = Baselines("multiclass", CLASSES, horizon_ms=10)
        for name in ("c", "b"):
            baselines.learn(name, 0, 0)
        prior: Any = baselines.answers(0)["prior"]

        assert prior == {"a": 0.0, "b": 0.5, "c": 0.5}
        assert max(prior, key=prior.get) == "b"

    def test_finite(self) -> None:
        """Labels near the largest double leave the mean and the dump finite."""
        baselines = Baselines("regression", (), horizon_ms=10)
        for ts in range(100):
            baselines.learn(1e308, ts, ts)

        assert json.dumps([baselines.answers(100), baselines.dump()], allow_nan=False)

    def test_unknown_kind(self) -> None:
        """A kind of task that does not exist is refused by name."""
        with pytest.raises(ValueError, match="given 'ranking'"):
            Baselines("ranking", (), horizon_ms=10)
