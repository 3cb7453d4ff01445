"""Refusals of learners where they are declared: each with the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from river import naive_bayes

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.models.recipes import Recipe
from stream_ml.models.target import Target
from tests.models.own import Line
from tests.trainers import Bag

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Lacking(sml.Learner):
    """Works with a package that is not there."""

    def __init__(self, package: str) -> None:
        self.package = package

    def predict_one(self, features: Mapping[str, float]) -> Any:  # noqa: ARG002
        raise ModuleNotFoundError(f"No module named {self.package!r}", name=self.package)

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:
        pass

    def dump(self) -> bytes:
        return b""

    def load(self, data: bytes) -> None:
        pass


def _problem(estimator: Any) -> str:
    [problem] = Recipe("own", estimator).check(Target("binary"), "models['own']")
    return str(problem)


def test_a_trainer_alone_is_refused_with_what_to_write() -> None:
    """A trainer is no line before it is told of its window."""
    actual = _problem(Bag())

    assert "expected sml.Retrained(Bag(...), window=...), given the trainer alone" in actual


@pytest.mark.parametrize(
    ("package", "extra"), [("onnxruntime", "onnx"), ("sklearn", "sklearn"), ("torch", "torch")]
)
def test_a_missing_package_is_told_with_its_extra(package: str, extra: str) -> None:
    """What to install stands behind the error."""
    assert _problem(_Lacking(package)).endswith(f"; way out: pip install 'stream_ml[{extra}]'")


def test_a_package_of_nobody_has_no_extra() -> None:
    """What the user's own learner lacks is no extra of ours."""
    assert "way out" not in _problem(_Lacking("elsewhere"))


def test_too_few_slots_are_refused_with_how_many_there_must_be() -> None:
    """One for each challenger."""
    with pytest.raises(
        DeclarationError, match=r"slots: expected at least 4, one for each challenger, given 3"
    ):
        sml.Pipeline(
            "slots",
            events=sml.Events(key="user", fields={"user": str, "x": float}),
            features=[sml.field("x")],
            label=sml.Label(bool, horizon="1h"),
            champion="m0",
            models={f"m{n}": naive_bayes.GaussianNB() for n in range(5)},
            promotion=sml.Promotion(slots=3),
        )


class Asked(Line):
    """Counts how often any of its kind is asked."""

    count = 0

    def predict_one(self, features: Mapping[str, float]) -> float:  # noqa: ARG002 - the protocol's
        """The answer."""
        Asked.count += 1
        return 0.5


def test_a_declaration_asks_each_learner_twelve_times() -> None:
    """One that takes long over an answer keeps no command waiting for longer than that."""
    assert [] == Recipe("line", Asked()).check(Target.regression(), "models.line", ("x",))
    assert 12 == Asked.count
