"""Scores of a block are those of its examples alone, whatever came before."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from stream_ml.evaluation.block_scores import FADING, RECENT_MAX, ScoresByBlock, block_reports
from stream_ml.evaluation.scores import Scores, described

CLASSES = ("a", "b", "c", "d")
TASKS = {"binary": (), "multiclass": CLASSES, "regression": ()}
HOUR = 3_600_000


def pair(kind: str, rand: random.Random) -> tuple[Any, Any]:
    """A label with an answer, or none."""
    if rand.random() < 0.1:
        return ("a" if kind == "multiclass" else rand.random() < 0.3), None
    if kind == "binary":
        return rand.random() < 0.3, rand.random()
    if kind == "regression":
        return rand.gauss(0, 1), rand.gauss(0, 1)
    shares = [rand.random() for _ in CLASSES]
    return rand.choice(CLASSES), {c: p / sum(shares) for c, p in zip(CLASSES, shares, strict=True)}


def blocks_of(kind: str, stop: int = -1) -> tuple[ScoresByBlock, list[list[tuple[Any, Any]]]]:
    """Blocks of some pairs of two models, and the pairs of one; the state is taken up in one."""
    rand = random.Random(4)
    classes = TASKS[kind]
    blocks = ScoresByBlock(HOUR, kind, classes)
    scores = {name: Scores(kind, classes, by_class=True) for name in ("served", "prior")}
    parts: list[list[tuple[Any, Any]]] = []
    for number in range(12):
        count = 0 if number == 5 else rand.randrange(30, 200)
        part = [pair(kind, rand) for _ in range(count)]
        parts += [part] if part else []
        for n, (label, answer) in enumerate(part):
            watermark = number * HOUR + n
            if blocks.is_over(watermark):
                blocks.close(watermark, scores)
            scores["served"].update(label, answer)
            scores["prior"].update(label, None)
            if (number, n) == (stop, 7):
                state = orjson.loads(orjson.dumps([blocks.dump(), scores["served"].dump()]))
                blocks = ScoresByBlock(HOUR, kind, classes)
                blocks.load(state[0])
                scores["served"] = Scores(kind, classes, by_class=True)
                scores["served"].load(state[1])
    blocks.close(12 * HOUR, scores)
    return blocks, parts


@pytest.mark.parametrize("kind", TASKS)
def test_the_scores_of_a_block_are_those_of_its_examples(kind: str) -> None:
    """Means, ranks, classes and the first answers, as if scored alone; hours of none are none."""
    blocks, parts = blocks_of(kind)
    usual, *reports = block_reports(orjson.loads(orjson.dumps(blocks.dump())))
    assert RECENT_MAX == len(reports)
    for report, part in zip(reports, parts[-RECENT_MAX:], strict=True):
        alone = Scores(kind, TASKS[kind], by_class=True)
        for label, answer in part:
            alone.update(label, answer)
        expected = described(kind, TASKS[kind], alone.totals())
        actual = report["scores"]["served"]
        assert alone.n == actual["n"]
        by_class, other = expected.pop("by_class", {}), actual.pop("by_class", {})
        assert expected == pytest.approx(actual)
        assert alone.report()["cumulative"].get("roc_auc") == pytest.approx(actual.get("roc_auc"))
        for name, figures in by_class.items():
            assert figures == pytest.approx(other[name])
        assert {"n": 0, "coverage": 0.0} == report["scores"]["prior"]
    assert ("top_3" in actual) is (kind == "multiclass")
    older = [sum(answer is not None for _, answer in part) for part in parts[:-RECENT_MAX]]
    expected_n = sum(n * FADING**age for age, n in enumerate(reversed(older)))
    assert usual["scores"]["served"]["n"] == pytest.approx(expected_n, abs=1)


@pytest.mark.parametrize("kind", TASKS)
def test_blocks_go_on_alike_from_their_state(kind: str) -> None:
    """Written down and taken up within a block, they come to the same."""
    assert orjson.dumps(blocks_of(kind)[0].dump()) == orjson.dumps(blocks_of(kind, 7)[0].dump())
