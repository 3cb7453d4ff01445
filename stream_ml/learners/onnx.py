"""ONNX: a frozen model from a file, which shadows and may serve, and learns nothing.

    models={"frozen": Onnx("model.onnx", sha256="9f86d0...")}

The file is pinned: its SHA-256 is part of the declaration, and another file is refused. What is on
the log of such a line is that digest alone, so that no record can bring another model.

The model has one input, of rank 2, with a column for each declared feature in their order, of
`float32` or `float64`; its answers are one of its outputs. It runs on one thread of the processor,
so that sums are added up in one order.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ml.models.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.models.target import Target
    from stream_ml.records import Answer, LabelValue

__all__ = ["FILE_BYTES_MAX", "Onnx"]

# ONNX itself ends at 2 GiB; a model that answers each event is far smaller.
FILE_BYTES_MAX = 512 * 1024 * 1024
_MAGIC = b"SMLX1 "
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
# Sessions that a process keeps: they learn nothing, so that copies of a learner share one.
_SESSIONS_MAX = 16


class Onnx(Learner):
    """A frozen model of a file.

    Args:
        path: of the file, relative to the working directory.
        sha256: of its bytes, in hexadecimal.
        output: the name of the output that holds the answers; default the last one. For a bool
            label it is the probability of True, or of False and True; for an `Enum` one for each
            class in the order of the declaration; for a float label the number.
        missing: what stands in for a feature that is missing.
    """

    def __init__(
        self, path: str, sha256: str, *, output: str | None = None, missing: float = 0.0
    ) -> None:
        self.path, self.sha256 = str(path), sha256.lower()
        self.output, self.missing = output, float(missing)
        self._features: tuple[str, ...] = ()
        self._classes: tuple[Any, ...] = ()

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Open the file, and make sure that it fits the question.

        Args:
            target: what is predicted.
            features: the columns, in their order.

        Raises:
            ValueError: the file is another one, or its inputs or outputs do not fit.
            OSError: it cannot be read.
        """
        self._features = tuple(features)
        self._classes = (False, True) if target.kind == "binary" else target.classes
        session = _session(self.path, self.sha256)
        inputs = [(each.type, list(each.shape)) for each in session.get_inputs()]
        columns = len(self._features)
        if len(inputs) != 1 or inputs[0][0] not in _TYPES or len(inputs[0][1]) != 2:  # noqa: PLR2004
            raise ValueError(f"{self.path}: expected one input of rows of floats, given {inputs}")
        if inputs[0][1][1] != columns and isinstance(inputs[0][1][1], int):
            raise ValueError(f"{self.path}: expected {columns} columns, given {inputs[0][1][1]}")
        outputs = {each.name: each.type for each in session.get_outputs()}
        name = self.output or list(outputs)[-1]
        if outputs.get(name) not in _TYPES:
            raise ValueError(
                f"{self.path}: expected an output of floats, given {name!r} of {outputs}; way out: "
                "name one with `output`, and convert classifiers with zipmap=False"
            )

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The model's answer.

        Args:
            features: a finite number by name.

        Raises:
            ValueError: it gives another number of figures than there are classes.
        """
        session = _session(self.path, self.sha256)
        (source,) = session.get_inputs()
        row = [features.get(name, self.missing) for name in self._features]
        name = self.output or session.get_outputs()[-1].name
        given = session.run([name], {source.name: np.array([row], _TYPES[source.type])})[0]
        shares = [float(share) for share in given.flat[: len(self._classes) + 1]]
        if given.size == 1 and len(self._classes) in {0, 2}:
            if self._classes == (False, True) or not self._classes:
                return shares[0]
            shares = [1.0 - shares[0], shares[0]]
        if given.size != len(self._classes):
            raise ValueError(f"expected {len(self._classes) or 1} figures, given {given.size}")
        if self._classes == (False, True):
            return shares[1]
        return {name: _rounded(share) for name, share in zip(self._classes, shares, strict=True)}

    def learn_one(self, features: Mapping[str, float], label: LabelValue) -> None:
        """Learn nothing: the model is frozen.

        Args:
            features: a finite number by name.
            label: the truth.
        """

    def dump(self) -> bytes:
        """The digest of the file, and no more."""
        return _MAGIC + self.sha256.encode()

    def load(self, data: bytes) -> None:
        """Make sure that a state is of this very file.

        Args:
            data: what `dump` gave.

        Raises:
            ValueError: it is of another one.
        """
        if data != self.dump():
            raise ValueError(f"expected the state of a model of SHA-256 {self.sha256}")

    @property
    def description(self) -> str:
        """The digest of the file, wherever it lies, and the other parameters."""
        return f"onnx(sha256={self.sha256!r}, output={self.output!r}, missing={self.missing})"

    @property
    def library(self) -> str:
        """The release of onnxruntime, whose sums are no other's."""
        import onnxruntime  # noqa: PLC0415 - an extra

        return f"onnxruntime {onnxruntime.__version__}"


def _rounded(share: float) -> float:
    """A share of single precision, where it passes 1 by its rounding."""
    return min(share, 1.0) if share < 1.0 + float(np.finfo(np.float32).eps) else share


@lru_cache(maxsize=_SESSIONS_MAX)
def _session(path: str, sha256: str) -> Any:
    """A session of the file's model, where its digest is this one.

    Raises:
        ValueError: it is another one.
        OSError: it cannot be read.
    """
    import onnxruntime  # noqa: PLC0415 - an extra

    with Path(path).open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"{path}: expected at most {FILE_BYTES_MAX} bytes, given more")
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise ValueError(f"{path}: expected SHA-256 {sha256}, given {actual}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
