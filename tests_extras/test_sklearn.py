"""scikit-learn's estimators as lines; run by `make test`, where the extras are installed."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    Perceptron,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from stream_ml import Target
from stream_ml.contract import Trial
from stream_ml.errors import SnapshotRefused
from stream_ml.learners.sklearn import ScikitLearn
from stream_ml.models.recipes import Recipe
from stream_ml.testing import check_learner

BINARY, COLOURS = Target.binary(), Target.multiclass("red", "green", "blue")
REGRESSION = Target.regression()
FEATURES = ("a", "b", "c")

SMALL: Any = {"hidden_layer_sizes": (4,), "random_state": 1}
SOUND: dict[str, tuple[ScikitLearn, Target]] = {
    "logistic": (ScikitLearn(SGDClassifier(loss="log_loss", random_state=1)), BINARY),
    "averaged": (
        ScikitLearn(SGDClassifier(loss="log_loss", average=10, random_state=1), batch=4),
        BINARY,
    ),
    "scaled": (
        ScikitLearn(
            make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=1)),
            batch=7,
        ),
        COLOURS,
    ),
    "hinge": (ScikitLearn(Perceptron(random_state=1), batch=4), COLOURS),
    "bayes": (ScikitLearn(make_pipeline(MinMaxScaler(), GaussianNB()), batch=6), COLOURS),
    "network": (
        ScikitLearn(MLPClassifier(**SMALL), batch=5),
        COLOURS,
    ),
    "regression": (
        ScikitLearn(make_pipeline(StandardScaler(), SGDRegressor(random_state=1)), batch=3),
        REGRESSION,
    ),
    "regression network": (
        ScikitLearn(MLPRegressor(**SMALL), batch=5),
        REGRESSION,
    ),
    "one against the rest": (
        ScikitLearn(OneVsRestClassifier(SGDClassifier(loss="log_loss", random_state=1)), batch=5),
        COLOURS,
    ),
}
sound = pytest.mark.parametrize("name", SOUND)


@sound
def test_it_keeps_the_contract(name: str) -> None:
    """Written and read back at any point, in batches, interleaved: to the last bit the same."""
    learner, target = SOUND[name]
    check_learner(learner, target, other_process=False)
    assert [] == Recipe("line", learner).check(target, "models.line", FEATURES)


def test_another_process_makes_the_same() -> None:
    """What scikit-learn learns is the same in another process."""
    check_learner(*SOUND["network"])


def state(name: str, count: int = 30) -> tuple[Recipe, bytes]:
    """A recipe and what a learner of it writes after so many examples."""
    learner, target = SOUND[name]
    trial = Trial(learner, target, FEATURES)
    return trial.recipe, trial.recipe.dump(trial.trained(count))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("name", ["averaged", "network"])
def test_altered_bytes_are_refused(name: str, data: Any) -> None:
    """A state with a byte altered, cut off or added is refused; with a right digest, what fits."""
    recipe, state_bytes = STATES[name]
    place = data.draw(st.integers(0, len(state_bytes) - 1))
    altered = bytearray(state_bytes)
    altered[place] ^= data.draw(st.integers(1, 255))
    body = bytes(altered[:-32])
    for given_bytes in (bytes(altered), state_bytes[:place], state_bytes + b"\0"):
        with pytest.raises(SnapshotRefused) as refused:
            recipe.load(given_bytes)
        assert "unreadable" == refused.value.reason
    try:
        learner = recipe.load(body + hashlib.sha256(body).digest())
    except SnapshotRefused as refusal:
        assert "unreadable" == refusal.reason  # noqa: PT017 - many are taken: they are numbers
    else:
        assert recipe.dump(learner)[: len(body)] == body


STATES = {name: state(name) for name in ("averaged", "network")}


def test_a_state_of_another_shape_is_refused() -> None:
    """Weights for more features, classes or neurons than are declared are not taken up."""
    recipe, _ = STATES["network"]
    wide = MLPClassifier(hidden_layer_sizes=(5,), random_state=1)
    others = [
        Trial(ScikitLearn(wide, batch=5), COLOURS, FEATURES),
        Trial(SOUND["network"][0], COLOURS, (*FEATURES, "d")),
        Trial(SOUND["network"][0], Target.multiclass("red", "green"), FEATURES),
        Trial(SOUND["scaled"][0], COLOURS, FEATURES),
    ]
    for other in others:
        with pytest.raises(SnapshotRefused):
            recipe.load(other.recipe.dump(other.trained(30)))


HOSTILE = """
import hashlib, pickle, sys
from sklearn.linear_model import SGDClassifier
from stream_ml import Target
from stream_ml.learners.sklearn import ScikitLearn
from stream_ml.models.recipes import Recipe

class Canary:
    def __reduce__(self):
        return exec, ("import this",)

recipe = Recipe("line", ScikitLearn(SGDClassifier(random_state=1)), Target.binary(), ("a",))
learner = recipe.fresh()
learner.learn_one({"a": 1.0}, True)
genuine = learner.dump()
recipe.load(genuine)  # all that is imported at first use is now
payload = pickle.dumps(Canary())
bodies = [payload, genuine[:42] + payload, genuine[:-32] + payload, b"SMLS1\\x01" + payload * 9]
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
for body in bodies:
    for data in (body, body + hashlib.sha256(body).digest()):
        try:
            recipe.load(data)
        except Exception as error:
            assert type(error).__name__ == "SnapshotRefused", error
        else:
            raise SystemExit("taken")
print(sorted({"exec", "compile", "import", "os.system", "pickle.find_class"} & set(seen)))
"""


def test_hostile_bytes_run_nothing() -> None:
    """No import, no compilation and no call, by the word of the interpreter of a new process."""
    run = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False
    )

    assert ("[]", "") == (run.stdout.strip(), run.stderr.strip())


@pytest.mark.parametrize(
    ("learner", "target", "message"),
    [
        (
            ScikitLearn(RandomForestClassifier(random_state=1)),
            BINARY,
            "that have partial_fit",
        ),
        (ScikitLearn(SGDClassifier()), BINARY, "expected a seed, given random_state=None"),
        (ScikitLearn(SGDRegressor(random_state=1)), BINARY, "expected a classifier"),
        (ScikitLearn(SGDClassifier(random_state=1)), REGRESSION, "expected a regressor"),
        (ScikitLearn(SGDClassifier(loss="squared", random_state=1)), BINARY, "squared"),
    ],
)
def test_what_cannot_be_a_line_is_refused(
    learner: ScikitLearn, target: Target, message: str
) -> None:
    """An estimator that cannot learn so, or from such labels, is refused where it is declared."""
    (problem,) = Recipe("line", learner).check(target, "models.line", FEATURES)

    assert message in str(problem)


def test_a_description_has_every_parameter() -> None:
    """Two estimators that differ in a parameter are two recipes, whatever their repr shows."""
    first = ScikitLearn(make_pipeline(StandardScaler(), SGDClassifier(random_state=1)))
    second = ScikitLearn(make_pipeline(StandardScaler(), SGDClassifier(random_state=2)))

    assert first.description != second.description
    assert "random_state=1" in first.description
    assert first.library.startswith("scikit-learn 1.")


def test_the_manual_s_examples_run() -> None:
    """What the manual shows of scikit-learn is code that runs."""
    text = (Path(__file__).parents[1] / "docs" / "learners.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    for block in re.findall(r"```py\n(.*?sklearn.*?)```", text, flags=re.DOTALL):
        exec(block, namespace)  # noqa: S102 - our own page

    check = Recipe("sgd", namespace["models"]["sgd"]).check(BINARY, "models.sgd", FEATURES)
    assert [] == check
