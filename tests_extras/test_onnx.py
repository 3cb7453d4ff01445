"""ONNX models as lines; run by `make test`, where the extras are installed."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from stream_ml import Target
from stream_ml.errors import SnapshotRefused
from stream_ml.learners.onnx import Onnx
from stream_ml.models.recipes import Recipe, answer
from stream_ml.testing import check_learner
from tests.hostile_bytes import ran

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = ("a", "b", "c")
BINARY, COLOURS = Target.binary(), Target.multiclass("red", "green", "blue")
REGRESSION = Target.regression()
# Three columns times weights; made with `onnx.helper`, of a hundred bytes each.
LOGISTIC = (
    "CAg6ZgoRCgF4CgF3EgFzIgZNYXRNdWwKDwoBcxIBcCIHU2lnbW9pZBIBZyoXCAMIARABQgF3SgwAAAA/AACgvwAA"
    "AEBaEQoBeBIMCgoIARIGCgAKAggDYhEKAXASDAoKCAESBgoACgIIAUIECgAQDQ=="
)
SOFTMAX = (
    "CAg60AEKEQoBeAoBdxIBcyIGTWF0TXVsChwKAXMSAXAiB1NvZnRtYXgqCwoEYXhpcxgBoAECCjAKAXMSBWxhYmVs"
    "IgZBcmdNYXgqCwoEYXhpcxgBoAECKg8KCGtlZXBkaW1zGACgAQISAWcqLwgDCAMQAUIBd0okAAAAPwAAgL8AAAAA"
    "AACAPwAAgD4AAAC/AAAAAAAAgD8AAABAWhEKAXgSDAoKCAESBgoACgIIA2IRCgVsYWJlbBIICgYIBxICCgBiEQoB"
    "cBIMCgoIARIGCgAKAggDQgQKABAN"
)
LINEAR = (
    "CAg6VQoRCgF4CgF3EgFzIgZNYXRNdWwSAWcqFwgDCAEQAUIBd0oMAAAAPwAAoL8AAABAWhEKAXgSDAoKCAESBgoA"
    "CgIIA2IRCgFzEgwKCggBEgYKAAoCCAFCBAoAEA0="
)
MODELS = {"logistic": LOGISTIC, "softmax": SOFTMAX, "linear": LINEAR}
ROW = {"a": 1.0, "b": 0.5, "c": -0.25}


def frozen(folder: Path, name: str, **options: Any) -> Onnx:
    """A model, from a file."""
    data = base64.b64decode(MODELS[name])
    path = folder / f"{name}.onnx"
    path.write_bytes(data)
    return Onnx(str(path), **{"sha256": hashlib.sha256(data).hexdigest()} | options)


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("logistic", BINARY, 0.3486451),
        ("softmax", COLOURS, {"red": 0.7733, "green": 0.0924, "blue": 0.1344}),
        ("linear", REGRESSION, -0.625),
    ],
)
def test_a_frozen_model_answers(tmp_path: Path, name: str, target: Target, expected: Any) -> None:
    """It keeps the contract, and says what its weights say; what is missing is 0."""
    learner = frozen(tmp_path, name)
    recipe = Recipe("line", learner, target, FEATURES)
    check_learner(learner, target, other_process=False)

    assert [] == recipe.check(target, "models.line", FEATURES)
    assert pytest.approx(expected, abs=1e-3) == answer(recipe.fresh(), target, ROW)
    assert answer(recipe.fresh(), target, {"a": 1.0}) == answer(
        recipe.fresh(), target, {"a": 1.0, "b": 0.0, "c": 0.0}
    )


def test_another_process_answers_the_same(tmp_path: Path) -> None:
    """What is written in one process is read in another."""
    check_learner(frozen(tmp_path, "logistic"), BINARY)


@pytest.mark.parametrize(
    ("name", "target", "options", "message"),
    [
        ("logistic", BINARY, {"sha256": "00"}, "expected SHA-256 00, given "),
        ("logistic", BINARY, {"output": "q"}, "way out: name one with `output`"),
        ("softmax", COLOURS, {"output": "label"}, "way out: name one with `output`"),
        ("logistic", COLOURS, {}, "expected 3 figures, given 1"),
        ("softmax", REGRESSION, {}, "expected 1 figures, given 3"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, name: str, target: Target, options: dict[str, Any], message: str
) -> None:
    """Another file than was pinned, or another question than its own, is refused where declared."""
    learner = frozen(tmp_path, name, **options)
    (problem,) = Recipe("line", learner).check(target, "models.line", FEATURES)

    assert message in str(problem)


def test_a_file_that_is_none_or_of_other_columns_is_refused(tmp_path: Path) -> None:
    """No file, one that holds no model, and one for other features: a problem, and no crash."""
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    noise = Onnx(str(tmp_path / "noise.onnx"), hashlib.sha256(b"noise").hexdigest())
    for learner, features in (
        (Onnx(str(tmp_path / "none.onnx"), "00"), FEATURES),
        (noise, FEATURES),
        (frozen(tmp_path, "logistic"), ("a", "b")),
    ):
        assert len(Recipe("line", learner).check(BINARY, "models.line", features)) == 1


def test_no_record_brings_another_model(tmp_path: Path) -> None:
    """A state that names another file, or holds a model, is refused."""
    recipe = Recipe("line", frozen(tmp_path, "logistic"), BINARY, FEATURES)
    state = recipe.dump(recipe.fresh())
    other = Recipe("line", frozen(tmp_path, "linear"), REGRESSION, FEATURES)
    for data in (b"", state[:-1], state + b"0", other.dump(other.fresh()), b"SMLX1 " + b"0" * 64):
        with pytest.raises(SnapshotRefused):
            recipe.load(data)

    assert 70 == len(state)
    assert other.description != recipe.description


def test_hostile_bytes_run_nothing(tmp_path: Path) -> None:
    """No import, no compilation and no call, by the word of the interpreter of a new process."""
    learner = frozen(tmp_path, "linear")
    setup = f"""
from stream_ml import Target
from stream_ml.learners.onnx import Onnx
from stream_ml.models.recipes import Recipe

learner = Onnx({learner.path!r}, sha256={learner.sha256!r})
recipe = Recipe("line", learner, Target.regression(), ("a", "b", "c"))
genuine = recipe.dump(recipe.fresh())
"""

    assert ("[]", "") == ran(setup)
