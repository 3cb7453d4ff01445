"""A user's aggregate, called so that whatever it raises ends its own window and nothing else.

What it raises at one event it would raise again at each start: the event lies on the log. So the
aggregate of that key and window has no answer from then on, until the window is forgotten or
filled anew, and a person is told. An answer that is no finite number counts
as if it had raised.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import STOPS, brief_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_ml.features.aggregates import Aggregate

__all__ = ["GuardedAggregate"]

# The one member of what is stored of an aggregate that has failed.
_FAILURE = "failed, and has no answer"


class GuardedAggregate:
    """Stands for an aggregate in a buffer.

    Attributes:
        failures: where it says what was raised; None where nobody listens.
    """

    __slots__ = ("_failure", "_inner", "_untold", "any_order", "failures", "refilled")

    def __init__(self, kind: type[Aggregate], *arguments: Any) -> None:
        self._inner = kind(*arguments)
        self._failure: str | None = None
        self._untold = False
        self.any_order = kind.any_order
        self.refilled = kind.refilled
        self.failures: list[str] | None = None

    def add(self, t: int, x: Any) -> None:
        """As `Aggregate.add`.

        Args:
            t: the event's time in milliseconds.
            x: its value.
        """
        self._call(self._inner.add, t, x)

    def evict(self, t: int, x: Any) -> None:
        """As `Aggregate.evict`.

        Args:
            t: the event's time in milliseconds.
            x: its value.
        """
        self._call(self._inner.evict, t, x)

    def fill(self, times: Sequence[int], values: Sequence[Any]) -> None:
        """As `Aggregate.fill`.

        Args:
            times: of the events in milliseconds, ascending.
            values: of the events, as many.
        """
        self._call(self._inner.fill, times, values)

    def ask(self, method: Callable[..., Any], t: int, *question: Any) -> float | None:
        """The answer of one of the aggregate's methods; None where it has failed.

        Args:
            method: of the aggregate's class; it gets the aggregate, the time, and the question.
            t: the time of the question in milliseconds.
            question: what is asked besides, such as the quantile.
        """
        answer = self._call(method, self._inner, t, *question)
        if answer is None:
            return None
        if isinstance(answer, int | float) and math.isfinite(answer):
            return float(answer)
        self._fail("gave no finite number")
        return None

    def listen(self, failures: list[str]) -> None:
        """Say there what is raised, and what nobody may have heard of before a start."""
        self.failures = failures
        if self._untold and self._failure is not None:
            failures.append(self._failure)

    def dump(self) -> Any:
        """As `Aggregate.dump`; of one that has failed, why, and whether nobody heard of it yet."""
        former_failure = self._failure
        state = self._call(self._inner.dump)
        self._call(orjson.dumps, state)
        if self._failure is None:
            return state
        return {_FAILURE: self._failure, "untold": former_failure is None}

    def load(self, state: Any) -> None:
        """As `Aggregate.load`."""
        if isinstance(state, dict) and _FAILURE in state:
            self._failure, self._untold = state[_FAILURE], state["untold"]
        else:
            self._call(self._inner.load, state)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        if self._failure is not None:
            return None
        try:
            return method(*arguments)
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's aggregate may raise anything
            self._fail(f"raised {brief_error(error)}")
            return None

    def _fail(self, description: str) -> None:
        self._failure = f"{type(self._inner).name} {description}"
        if self.failures is not None:
            self.failures.append(self._failure)
