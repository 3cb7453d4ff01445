"""Scores against river, against their own formulae, and across a restart."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import metrics

from stream_ml.evaluation.scores import (
    Delays,
    Scores,
    absolute_error,
    brier,
    is_scorable,
    log_loss,
    loss,
    r_squared,
    roc_auc,
)

KINDS = ("binary", "multiclass", "regression")
CLASSES = ("a", "b", "c", "d")
EXACT = {"rel": 1e-9, "abs": 1e-9}


def binary(rand: random.Random, n: int) -> list[tuple[Any, Any]]:
    """Pairs with ties, certain answers and answers on river's thresholds among them."""
    special = [0.0, 1.0, 0.5, 1 / 9, 4 / 9, 8 / 9, 1e-17, 1 - 1e-16]
    answers = [rand.choice(special) if rand.random() < 0.3 else rand.random() for _ in range(n)]
    return [(rand.random() < 0.2 + 0.6 * answer, answer) for answer in answers]


def multiclass(rand: random.Random, n: int) -> list[tuple[Any, Any]]:
    """Pairs over all classes in any order, with tied and with certain classes among them."""
    pairs: list[tuple[Any, Any]] = []
    for _ in range(n):
        weights = [rand.choice([0.0, 1.0, 1.0, rand.random()]) for _ in CLASSES]
        total = sum(weights) or 1.0
        names = rand.sample(CLASSES, len(CLASSES))
        shares = [weight / total for weight in weights]
        pairs.append((rand.choice(CLASSES), dict(zip(names, shares, strict=True))))
    return pairs


def regression(rand: random.Random, n: int) -> list[tuple[Any, Any]]:
    """Pairs far from zero, where a careless variance cancels."""
    labels = [rand.gauss(1_000, 10) for _ in range(n)]
    return [(label, label + rand.gauss(1, 5)) for label in labels]


PAIRS = {"binary": binary, "multiclass": multiclass, "regression": regression}


def scored(kind: str, pairs: list[tuple[Any, Any]], **config: Any) -> Scores:
    """Scores that have seen the pairs."""
    scores = Scores(kind, CLASSES if kind == "multiclass" else (), **config)
    for label, answer in pairs:
        scores.update(label, answer)
    return scores


def losses_of(kind: str, label: Any, answer: Any) -> dict[str, float]:
    """Each loss of one pair, written out from its definition."""
    if kind == "regression":
        return {"mae": abs(label - answer), "rmse": (label - answer) ** 2}
    by_class = answer if kind == "multiclass" else {False: 1 - answer, True: answer}
    p = min(max(by_class[True if kind == "binary" else label], 1e-15), 1 - 1e-15)
    if kind == "binary" and not label:
        p = 1 - p
    squares = sum((p - (name == label)) ** 2 for name, p in by_class.items())
    return {
        "log_loss": -math.log(p),
        "brier": squares / (2 if kind == "binary" else 1),
        "accuracy": float(max(by_class, key=by_class.get) == label),
    }


def auc_by_counting(pairs: list[tuple[bool, float]]) -> float:
    """Every positive against every negative."""
    positives = [answer for label, answer in pairs if label]
    negatives = [answer for label, answer in pairs if not label]
    won = sum((p > q) + (p == q) / 2 for p in positives for q in negatives)
    return won / (len(positives) * len(negatives))


@pytest.mark.parametrize("seed", range(5))
class TestCumulativeIsRivers:
    """Cumulative scores equal river's metrics fed the same pairs, at every step."""

    def test_binary(self, seed: int) -> None:
        """ROC AUC, log loss and accuracy are river's, ties and clipping included."""
        auc, likelihood, right = metrics.ROCAUC(), metrics.LogLoss(), metrics.Accuracy()
        squared = metrics.MSE()
        scores = Scores("binary")
        for i, (label, answer) in enumerate(binary(random.Random(seed), 600)):
            by_class = {False: 1 - answer, True: answer}
            auc.update(label, answer)
            likelihood.update(label, answer)
            right.update(label, max(by_class, key=by_class.get))
            squared.update(float(label), answer)
            scores.update(label, answer)
            if i % 50 == 49:
                expected = {
                    "log_loss": likelihood.get(),
                    "brier": squared.get(),
                    "accuracy": right.get(),
                    "roc_auc": auc.get(),
                }

                assert scores.report()["cumulative"] == pytest.approx(expected, **EXACT)

    def test_multiclass(self, seed: int) -> None:
        """Cross-entropy and accuracy are river's; of tied classes the first named is meant."""
        likelihood, right = metrics.CrossEntropy(), metrics.Accuracy()
        scores = Scores("multiclass", CLASSES)
        for label, answer in multiclass(random.Random(seed), 300):
            likelihood.update(label, answer)
            right.update(label, max(answer, key=answer.get))
            scores.update(label, answer)
            cumulative = scores.report()["cumulative"]

            assert cumulative["log_loss"] == pytest.approx(likelihood.get(), **EXACT)
            assert cumulative["accuracy"] == pytest.approx(right.get(), **EXACT)

    def test_regression(self, seed: int) -> None:
        """MAE, RMSE and R² are river's from the second pair on."""
        rivers = {"mae": metrics.MAE(), "rmse": metrics.RMSE(), "r2": metrics.R2()}
        scores = Scores("regression")
        for i, (label, answer) in enumerate(regression(random.Random(seed), 300)):
            for metric in rivers.values():
                metric.update(label, answer)
            scores.update(label, answer)
            if i:
                expected = {name: metric.get() for name, metric in rivers.items()}

                assert scores.report()["cumulative"] == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
class TestForms:
    """The three forms against the sums that define them."""

    def test_fading(self, kind: str) -> None:
        """Fading means are the sums of a^age times loss over the sums of a^age."""
        pairs = PAIRS[kind](random.Random(7), 400)
        weights = [0.99 ** (len(pairs) - 1 - i) for i in range(len(pairs))]
        rows = [losses_of(kind, label, answer) for label, answer in pairs]
        expected = {
            name: sum(w * row[name] for w, row in zip(weights, rows, strict=True)) / sum(weights)
            for name in rows[0]
        }
        if kind == "regression":
            expected["rmse"] **= 0.5

        assert scored(kind, pairs, fading=0.99).report()["fading"] == pytest.approx(expected)

    @pytest.mark.parametrize("n", [40, 100, 250])
    def test_windowed(self, kind: str, n: int) -> None:
        """Windowed scores are those of the last pairs alone, also before the window is full."""
        pairs = PAIRS[kind](random.Random(n), n)
        last = pairs[-100:]
        rows = [losses_of(kind, label, answer) for label, answer in last]
        expected = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        if kind == "binary":
            expected["roc_auc"] = auc_by_counting(last)
        if kind == "regression":
            expected["rmse"] **= 0.5
            r2 = metrics.R2()
            for label, answer in last:
                r2.update(label, answer)
            expected["r2"] = r2.get()

        assert scored(kind, pairs, window=100).report()["windowed"] == pytest.approx(expected)

    def test_no_answer(self, kind: str) -> None:
        """Silence lowers the coverage and leaves every score as it was."""
        pairs = PAIRS[kind](random.Random(1), 90)
        silent = [(label, None) for label, _ in pairs[:10]]
        scores = scored(kind, pairs[:45] + silent + pairs[45:])

        assert scores.report() == scored(kind, pairs).report()
        assert (scores.n, scores.unanswered_count, scores.coverage) == (90, 10, 0.9)

    def test_nothing_seen(self, kind: str) -> None:
        """Before the first answer there are no scores, and the coverage is 0."""
        for scores in (Scores(kind), scored(kind, [(True, None)])):
            assert scores.report() == {"cumulative": {}, "fading": {}, "windowed": {}}
            assert scores.coverage == 0.0

    @pytest.mark.parametrize("seed", range(8))
    def test_restart(self, kind: str, seed: int) -> None:
        """Dumped and loaded at any points, scores go on to byte-identical reports and dumps."""
        rand = random.Random(seed)
        pairs = PAIRS[kind](rand, 300)
        pairs = [(label, None if rand.random() < 0.1 else answer) for label, answer in pairs]
        expected = scored(kind, pairs, window=80)
        cuts = [0, *sorted(rand.sample(range(300), 4)), 300]
        scores = Scores(kind, window=80)
        for start, end in pairwise(cuts):
            state = json.dumps(scores.dump())
            scores = Scores(kind, window=80)
            scores.load(json.loads(state))
            for label, answer in pairs[start:end]:
                scores.update(label, answer)

        assert json.dumps(scores.report()) == json.dumps(expected.report())
        assert json.dumps(scores.dump()) == json.dumps(expected.dump())
        assert scores.coverage == expected.coverage

    def test_load_replaces(self, kind: str) -> None:
        """Loading leaves nothing of what the scores had seen before."""
        pairs = PAIRS[kind](random.Random(4), 60)
        expected, scores = scored(kind, pairs[:20]), scored(kind, pairs[20:])
        scores.load(expected.dump())

        assert scores.report() == expected.report()
        assert scores.dump() == expected.dump()

    def test_dump_is_a_copy(self, kind: str) -> None:
        """A dump taken does not change when scoring goes on, nor after it was loaded."""
        pairs = PAIRS[kind](random.Random(2), 20)
        scores = scored(kind, pairs)
        dump = scores.dump()
        before = json.dumps(dump)
        other = Scores(kind)
        other.load(dump)
        for label, answer in pairs:
            scores.update(label, answer)
            other.update(label, answer)

        assert json.dumps(dump) == before


class TestUndefined:
    """What is not defined is left out; what would overflow is held finite."""

    @pytest.mark.parametrize("label", [False, True])
    def test_one_class(self, label: bool) -> None:
        """With labels of one class only there is no ROC AUC in any form."""
        report = scored("binary", [(label, 0.2), (label, 0.7)]).report()

        assert all("roc_auc" not in scores for scores in report.values())

    def test_one_class_lately(self) -> None:
        """A window of one class has no ROC AUC although the whole stream has."""
        report = scored("binary", [(False, 0.1), (True, 0.9), (True, 0.8)], window=2).report()

        assert report["cumulative"]["roc_auc"] == 1.0
        assert "roc_auc" not in report["windowed"]

    def test_constant_labels(self) -> None:
        """Labels that never vary give no R², although their mean is no exact number."""
        report = scored("regression", [(0.1, 0.2)] * 3).report()

        assert all("r2" not in scores for scores in report.values())
        assert r_squared([]) is None

    @pytest.mark.parametrize(
        ("kind", "answer"),
        [
            ("binary", math.nan),
            ("binary", 1.5),
            ("binary", -0.1),
            ("multiclass", {}),
            ("multiclass", {"a": math.nan, "b": 0.5}),
            ("regression", math.nan),
            ("regression", math.inf),
        ],
    )
    def test_what_cannot_be_scored(self, kind: str, answer: Any) -> None:
        """What is no probability or no number counts as no answer."""
        scores = scored(kind, [("a" if kind == "multiclass" else 1.0, answer)])

        assert (scores.n, scores.unanswered_count) == (0, 1)
        assert not is_scorable(kind, answer)

    def test_an_ulp_past_one(self) -> None:
        """A probability that rounding carried past 1 is still one."""
        report = scored("binary", [(True, 1.0000000000000002), (False, 0.5)]).report()

        assert report["cumulative"]["roc_auc"] == 1.0

    def test_diverged(self) -> None:
        """Answers and labels near the largest double leave reports and dumps finite."""
        pairs = [(-1e308, 1e308), (1e308, -1e308), (0.0, 1.0)] * 1_000
        scores = scored("regression", pairs)

        assert json.dumps([scores.report(), scores.dump()], allow_nan=False)
        assert set(scores.report()["cumulative"]) == {"mae", "rmse", "r2"}

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (
                {"kind": "ranking"},
                "kind: expected one of binary, multiclass, regression, given 'ranking'",
            ),
            ({"kind": "binary", "window": 0}, "window: expected at least 1, given 0"),
            ({"kind": "binary", "fading": 1.5}, "fading: expected within (0, 1], given 1.5"),
        ],
    )
    def test_wrong_configuration(self, config: dict[str, Any], message: str) -> None:
        """A wrong configuration is refused with what was expected and what was given."""
        with pytest.raises(ValueError, match="expected") as caught:
            Scores(**config)

        assert str(caught.value) == message


class TestLosses:
    """The losses that are shared with the rest of the evaluation."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_mean_of_loss_is_the_score(self, kind: str) -> None:
        """What models are compared by averages to what the report shows."""
        pairs = PAIRS[kind](random.Random(3), 50)
        mean = sum(loss(kind, label, answer) for label, answer in pairs) / len(pairs)
        name = "mae" if kind == "regression" else "brier"

        assert scored(kind, pairs).report()["cumulative"][name] == pytest.approx(mean)

    def test_a_class_left_out(self) -> None:
        """A class that the answer leaves out has probability 0."""
        assert brier("c", {"a": 1.0}) == brier("c", {"a": 1.0, "c": 0.0}) == 2.0
        assert log_loss("c", {"a": 1.0}) == log_loss("c", {"a": 1.0, "c": 0.0})

    def test_order_of_classes(self) -> None:
        """The order in which a record names the classes does not change a loss by a bit."""
        rand = random.Random(5)
        for label, answer in multiclass(rand, 200):
            names = rand.sample(CLASSES, len(CLASSES))

            assert brier(label, answer) == brier(label, {name: answer[name] for name in names})

    def test_certain_mistake(self) -> None:
        """A certain mistake costs the same finite log loss either way."""
        assert log_loss(False, 1.0) == pytest.approx(log_loss(True, 0.0), rel=1e-2)
        assert math.isfinite(log_loss(False, 1.0))

    def test_absolute_error(self) -> None:
        """The absolute error is the distance, whichever side it lies on."""
        assert absolute_error(3.0, 5.0) == absolute_error(5.0, 3.0) == 2.0

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))))
    def test_roc_auc(self, pairs: list[tuple[bool, float]]) -> None:
        """ROC AUC is the share of pairs ranked rightly, ties half, whatever the sample."""
        both = len({label for label, _ in pairs}) == 2
        expected = auc_by_counting(pairs) if both else None

        assert roc_auc(pairs) == (expected if expected is None else pytest.approx(expected))


class TestDelays:
    """Quantiles of label delays."""

    @pytest.mark.parametrize("n", [1, 2, 10, 999, 1_000, 2_500])
    def test_quantiles(self, n: int) -> None:
        """Each quantile is the least recent delay that its share of delays does not exceed."""
        rand = random.Random(n)
        delays = Delays()
        seen = [rand.randrange(10_000) for _ in range(n)]
        for delay_ms in seen:
            delays.update(delay_ms)
        recent = sorted(seen[-1_000:])

        assert delays.report() == {
            f"p{q}": next(d for d in recent if sum(x <= d for x in recent) * 100 >= q * len(recent))
            for q in (50, 90, 99)
        }

    def test_restart(self) -> None:
        """Dumped and loaded, delays go on as if nothing had happened."""
        delays, restarted = Delays(window=5), Delays(window=5)
        for delay_ms in range(7):
            delays.update(delay_ms)
        restarted.load(json.loads(json.dumps(delays.dump())))
        for either in (delays, restarted):
            either.update(100)

        assert restarted.report() == delays.report() == {"p50": 5, "p90": 100, "p99": 100}

    def test_nothing_seen(self) -> None:
        """Before the first delay there are no quantiles."""
        assert Delays().report() == {}
