"""Rare positives: what is learned is weighted or sampled, what is answered is a probability."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import linear_model, naive_bayes, preprocessing, tree

import stream_ml as sml
from benchmarks.rare import Figures, events, logistic, run
from stream_ml.errors import DeclarationError
from stream_ml.learners.balanced import corrected
from stream_ml.models.recipes import answer, learn
from stream_ml.testing import Driver, check_learner

if TYPE_CHECKING:
    from collections.abc import Mapping

BINARY = sml.Target("binary")
NAMED = sml.Target("multiclass", ("no", "yes"))


class Shares(sml.Learner):
    """The share of True among the examples that it was taught, and how many they were."""

    def __init__(self) -> None:
        self.yes = self.n = 0
        self.classes: tuple[str, ...] = ()

    def prepare(self, target: Any, features: Any) -> None:  # noqa: ARG002 - the protocol's
        """Keep the classes."""
        self.classes = target.classes

    def predict_one(self, features: Mapping[str, float]) -> Any:  # noqa: ARG002
        """The share."""
        if not self.n:
            return None
        share = self.yes / self.n
        return {"no": 1 - share, "yes": share} if self.classes else share

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:  # noqa: ARG002
        """Count."""
        self.yes, self.n = self.yes + (label in (True, "yes")), self.n + 1

    def dump(self) -> bytes:
        """Both counts."""
        return f"{self.yes} {self.n}".encode()

    def load(self, data: bytes) -> None:
        """Both counts."""
        self.yes, self.n = map(int, data.split())


def tenth(count: int) -> list[tuple[dict[str, float], bool]]:
    """Examples of which every twentieth is a positive."""
    return [({"x": float(n % 3)}, n % 20 == 7) for n in range(count)]


@given(st.floats(0, 1), st.floats(1, 1e6))
def test_the_correction_undoes_the_odds(share: float, odds: float) -> None:
    """Of a share whose odds were multiplied, the share of before comes back."""
    raised = odds * share / (odds * share + 1 - share)
    assert corrected(raised, odds) == pytest.approx(share, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    "estimator",
    [
        sml.Balanced(logistic(), negatives=0.1),
        sml.Balanced(logistic(), positives=10.0),
        sml.Balanced(logistic(), positives=3.0, negatives=0.3),
    ],
    ids=["sampled", "weighted", "both"],
)
def test_one_percent_of_positives_is_calibrated(estimator: Any) -> None:
    """As many positives come as its answers say, within the luck of the sample; and it ranks."""
    plain, balanced = _plain(), run(estimator, events(16_000, seed=5))

    assert abs(balanced.z) < 3
    assert balanced.log_loss < plain.log_loss * 1.06
    # At the top of the list a fifth are positives, as of what learns from all.
    assert balanced.top_precision > 0.7 * plain.top_precision > 0.1


@cache
def _plain() -> Figures:
    return run(logistic(), events(16_000, seed=5))


def test_uncorrected_it_would_be_far_off() -> None:
    """River's own weight gives answers ten times too high: the measure above would see it."""
    assert run(logistic(weight_pos=10.0), events(16_000, seed=5)).z < -20


@pytest.mark.parametrize("target", [BINARY, NAMED])
def test_negatives_are_left_out(target: sml.Target) -> None:
    """A tenth of the negatives is learned from, all positives, and the answer is the true share."""
    learner = sml.BalancedLearner(Shares(), negatives=0.1)
    learner.prepare(target, ("x",))
    for features, label in tenth(20_000):
        learn(learner, target, features, label if target is BINARY else ("no", "yes")[label])
    share = answer(learner, target, {"x": 0.0})

    assert 1_000 == learner.learner.yes  # type: ignore[attr-defined]
    assert abs(learner.learner.n - 2_900) < 4 * math.sqrt(19_000 * 0.09)  # type: ignore[attr-defined]
    assert pytest.approx(0.05, abs=0.005) == (share if target is BINARY else share["yes"])  # type: ignore[index]


def test_the_same_negatives_are_left_out_again() -> None:
    """Two that learn the same are the same; of another seed they are not."""
    counts = []
    for seed in (0, 0, 1):
        learner = sml.BalancedLearner(Shares(), negatives=0.3, seed=seed)
        learner.prepare(BINARY, ("x",))
        taken = []
        for features, label in tenth(200):
            before = learner.dump()[8:]
            learner.learn_one(features, label)
            taken.append(before != learner.dump()[8:])
        counts.append(taken)

    assert counts[0] == counts[1] != counts[2]


def test_a_learner_of_any_library_keeps_the_contract() -> None:
    """Wrapped, it is equal after any restart, in batches and in another process."""
    check_learner(sml.BalancedLearner(Shares(), negatives=0.5), BINARY, other_process=False)


def test_named_classes_are_balanced_too() -> None:
    """Of two named classes the second is the rare one, also for what knows any classes."""
    for inner in (naive_bayes.GaussianNB(), tree.HoeffdingTreeClassifier(grace_period=50)):
        balanced = sml.Balanced(inner, negatives=0.2)
        for features, label in tenth(3_000):
            learn(balanced, NAMED, features, ("no", "yes")[label])
        share = answer(balanced, NAMED, {"x": 1.0})
        assert isinstance(share, dict)
        assert pytest.approx(0.05, abs=0.02) == share["yes"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"positives": 0.5}, "positives: expected a number from 1 to 1e+06, given 0.5"),
        ({"positives": math.nan}, "positives: expected a number"),
        ({"negatives": 0.0}, "negatives: expected a share above 0, up to 1, given 0.0"),
        ({"negatives": 1.5}, "negatives: expected a share"),
        ({"seed": -1}, "seed: expected a whole number"),
    ],
)
def test_mistakes_are_told(arguments: Any, expected: str) -> None:
    """A wrong weight, share or seed is refused where it is written."""
    with pytest.raises(ValueError, match=expected.replace("+", r"\+")):
        sml.Balanced(logistic(), **arguments)


def test_what_takes_no_weight_says_so() -> None:
    """River's pipelines would pass over a weight that no step takes: it is refused, with a way."""
    estimator = preprocessing.StandardScaler() | naive_bayes.GaussianNB()
    with pytest.raises(ValueError, match=r"given GaussianNB; way out: .* negatives=0.2"):
        sml.Balanced(estimator, positives=5.0)


def test_what_is_no_classifier_says_so() -> None:
    """A regressor, and a `Learner` in the place of an estimator of river, is refused."""
    for given_ in (linear_model.LinearRegression(), Shares()):
        with pytest.raises(ValueError, match=f"given {type(given_).__name__}; of a "):
            sml.Balanced(given_, negatives=0.5)
    with pytest.raises(ValueError, match=r"take sml\.Balanced"):
        sml.BalancedLearner(logistic(), negatives=0.5)


def declare(**models: Any) -> sml.Pipeline:
    """A pipeline of these lines."""
    return sml.Pipeline(
        "rare",
        events=sml.Events(key="key", fields={"x0": float, "x1": float}),
        features=[sml.field("x0"), sml.field("x1")],
        label=sml.Label(bool, horizon="1h"),
        champion=next(iter(models)),
        models=models,
    )


def test_three_classes_are_refused() -> None:
    """What is balanced has two classes."""
    with pytest.raises(DeclarationError, match="more than two classes"):
        sml.Pipeline(
            "three",
            events=sml.Events(key="key", fields={"x": float}),
            features=[sml.field("x")],
            label=sml.Label(sml.Enum("a", "b", "c"), horizon="1h"),
            champion="line",
            models={"line": sml.Balanced(tree.HoeffdingTreeClassifier(), negatives=0.1)},
        )


def test_lines_go_on_after_a_crash() -> None:
    """A crash changes no answer and no snapshot: which negatives are left out is in the state."""
    pipeline = declare(
        sampled=sml.Balanced(
            preprocessing.StandardScaler() | linear_model.LogisticRegression(), negatives=0.3
        ),
        shares=sml.BalancedLearner(Shares(), negatives=0.3),
    )
    outcomes = []
    for crashes in (False, True):
        with Driver(pipeline) as driver:
            for start in range(0, 1_200, 300):
                made = [
                    ({"event_id": f"e{n}", "ts": n * 1_000, "key": f"k{n % 5}", **x}, y)
                    for n, (x, y) in enumerate(events(1_200, 1)[start : start + 300], start)
                ]
                driver.publish("events", [event for event, _ in made])
                labels = [
                    {"event_id": e["event_id"], "ts": e["ts"] + 1, "label": y or n % 25 == 0}
                    for n, (e, y) in enumerate(made)
                ]
                driver.publish("labels", labels)
                driver.run()
                if crashes:
                    driver.crash()
            digests = [each["digest"] for each in driver.read("models")]
            outcomes.append((driver.read("predictions"), sorted(digests)))

    assert outcomes[0] == outcomes[1]
