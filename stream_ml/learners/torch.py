"""PyTorch: a module, a loss and an optimizer, taught in mini-batches, as a line.

    def network(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))

    models={"network": Torch(network, partial(torch.optim.Adam, lr=0.01))}

The state is numbers (`arrays`): the weights, the buffers and what the optimizer keeps, in the
places that a fresh module has for them after a first step. Nothing is unpickled.

Weights, and what is drawn as a module trains (dropout), come from the seed and the number of the
step, and leave PyTorch's own generator as it was. PyTorch is set to one thread, for sums depend on
how many there are; equal bits on another processor or release are not promised.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stream_ml.learners.batches import BatchLearner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_ml.models.target import Target

__all__ = ["Torch"]

# Seeds of steps lie so far apart for two seeds of learners.
_STEPS = 1_000_003


class Torch(BatchLearner):
    """A module of PyTorch that learns by gradient descent.

    Args:
        module: makes the module, given how many inputs and outputs it has: an output for a bool or
            a float label, one for each class of an `Enum`; logits for what is a class. A function
            of a module of yours, so that it has a name.
        optimizer: makes the optimizer, given the parameters, such as
            `partial(torch.optim.SGD, lr=0.1)`.
        loss: of outputs and truths; default cross entropy, or the squared error for a number.
        batch: so many examples make a step; those that wait are part of the state.
        seed: of the weights, and of what is drawn in training.
        missing: what stands in for a feature that is missing.
    """

    magic: ClassVar[bytes] = b"SMLT1"

    def __init__(
        self,
        module: Callable[[int, int], Any],
        optimizer: Callable[[Any], Any],
        *,
        loss: Callable[[Any, Any], Any] | None = None,
        batch: int = 32,
        seed: int = 0,
        missing: float = 0.0,
    ) -> None:
        super().__init__(batch, missing)
        self.module, self.optimizer, self.loss, self.seed = module, optimizer, loss, seed
        self._kind = ""
        self._network: Any = None
        self._descent: Any = None
        self._step = 0

    def _begin(self, target: Target) -> None:
        import torch  # noqa: PLC0415 - an extra

        torch.set_num_threads(1)
        self._kind, self._step = target.kind, 0
        with self._drawing():
            self._network = self.module(len(self._features), self._outputs)
        self._descent = self.optimizer(self._network.parameters())
        self._network.eval()

    @property
    def _outputs(self) -> int:
        return len(self._classes) if self._kind == "multiclass" else 1

    def _predict(self, row: list[float]) -> list[float]:
        import torch  # noqa: PLC0415 - an extra

        with torch.no_grad():
            given = self._network(torch.tensor([row], dtype=torch.float32))
            if given.shape != (1, self._outputs):
                raise ValueError(f"expected {self._outputs} outputs, given {tuple(given.shape)}")
            if self._kind == "binary":
                given = torch.sigmoid(given)
            elif self._kind == "multiclass":
                given = torch.softmax(given, dim=1)
            shares: list[float] = given[0].tolist()
        if self._kind == "multiclass":  # rounding of single precision
            return [min(share, 1.0) for share in shares]
        return shares

    def _fit(self, rows: list[list[float]], labels: list[float]) -> None:
        import torch  # noqa: PLC0415 - an extra

        loss = self.loss or _losses()[self._kind]
        if self._kind == "multiclass":
            truths = torch.tensor(labels, dtype=torch.int64)
        else:
            truths = torch.tensor(labels, dtype=torch.float32)[:, None]
        self._step += 1
        self._network.train()
        with self._drawing():
            self._descent.zero_grad()
            loss(self._network(torch.tensor(rows, dtype=torch.float32)), truths).backward()
            self._descent.step()
        self._network.eval()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Draw by the seed and the step, and leave PyTorch's generator as it was."""
        import torch  # noqa: PLC0415 - an extra

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * _STEPS + self._step) % 2**63)
            yield

    def _state(self) -> dict[str, Any]:
        kept = self._descent.state_dict()["state"]
        return {
            "step": self._step,
            "module": [_numbers(each) for each in self._network.state_dict().values()],
            "optimizer": [
                [number, [[name, _numbers(each)] for name, each in sorted(kept[number].items())]]
                for number in sorted(kept)
            ],
        }

    def _template(self) -> dict[str, Any]:
        other = copy.copy(self)
        other.__dict__["_step"] = 0
        with other._drawing():  # noqa: SLF001 - it is one of ours
            other.__dict__["_network"] = self.module(len(self._features), self._outputs)
        other.__dict__["_descent"] = self.optimizer(other._network.parameters())  # noqa: SLF001
        other._fit(*self._trial())  # noqa: SLF001
        return other._state()  # noqa: SLF001

    def _restore(self, state: dict[str, Any]) -> None:
        # What has no number in the template (None, a text) is the same in both.
        module = self._network.state_dict()
        values = zip(module.items(), state["module"], strict=True)
        self._network.load_state_dict({name: _tensor(x, like) for (name, like), x in values})
        groups = self._descent.state_dict()["param_groups"]
        kept = {
            number: {name: _tensor(each) for name, each in items}
            for number, items in state["optimizer"]
        }
        self._descent.load_state_dict({"state": kept, "param_groups": groups})
        self._step = state["step"]

    @property
    def description(self) -> str:
        """The names of the functions, and the other parameters."""
        loss = "default" if self.loss is None else _name(self.loss)
        return (
            f"torch({_name(self.module)}, {_name(self.optimizer)}, loss={loss}, "
            f"batch={self.batch}, seed={self.seed}, missing={self.missing})"
        )

    @property
    def library(self) -> str:
        """The release of PyTorch, whose sums are no other's."""
        import torch  # noqa: PLC0415 - an extra

        return f"torch {torch.__version__}"


def _losses() -> dict[str, Any]:
    from torch.nn import functional  # noqa: PLC0415 - an extra

    return {
        "binary": functional.binary_cross_entropy_with_logits,
        "multiclass": functional.cross_entropy,
        "regression": functional.mse_loss,
    }


def _numbers(value: Any) -> Any:
    """A tensor as an array, not by PyTorch's own way: that needs the numpy it was built for."""
    if not hasattr(value, "tolist"):
        return value
    kinds = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "bool": "|b1"}
    kind = str(value.dtype).removeprefix("torch.")
    if kind not in kinds:
        raise ValueError(f"expected tensors of {', '.join(kinds)}, given {kind}")
    return np.array(value.detach().tolist(), kinds[kind]).reshape(tuple(value.shape))


def _tensor(value: Any, like: Any = None) -> Any:
    """The tensor of an array; what is none is what it is."""
    import torch  # noqa: PLC0415 - an extra

    if not isinstance(value, np.ndarray):
        return value
    kind = {"f4": "float32", "f8": "float64", "i8": "int64", "b1": "bool"}[value.dtype.str[1:]]
    tensor = torch.tensor(value.tolist(), dtype=getattr(torch, kind))
    return tensor.reshape(value.shape if like is None else like.shape)


def _name(value: Any) -> str:
    """A function by its name, with what `partial` has bound to it.

    Raises:
        ValueError: it has none.
    """
    if isinstance(value, partial):
        bound = [*map(repr, value.args), *(f"{k}={v!r}" for k, v in value.keywords.items())]
        return f"{_name(value.func)}({', '.join(bound)})"
    name = getattr(value, "__qualname__", None)
    if name is None or "<" in name:
        raise ValueError(f"expected a function of a module, which has a name, given {value!r}")
    return f"{value.__module__}.{name}"
