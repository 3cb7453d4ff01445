"""What a line's learner takes: time, bytes, and the patience of all the others.

A learner is code of somebody else's. What it takes is measured by a stopwatch that the shell hands
in; a stage that is given none measures nothing, and no line is ever too slow there. So costs are no
part of what follows from the log, and of a quarantine that follows from them the state keeps that
it is so, as of every other one.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ANSWER",
    "DEATHS_MAX",
    "LOST",
    "NO_STOPWATCH",
    "SLOW_RUNNING",
    "SNAPSHOT",
    "SNAPSHOT_BUDGETS",
    "TRIAL",
    "Effort",
    "LearnerLost",
    "Stopwatch",
    "Suspect",
]

# A learner is too slow that takes longer than its budget so often running: once may be the
# machine's fault, which was put to sleep, or short of memory.
SLOW_RUNNING = 3
# So many times its budget of an example a line may take over a snapshot.
SNAPSHOT_BUDGETS = 10
# A line that was at work whenever the worker died, so often from the same example on, learns no
# more.
DEATHS_MAX = 3
# Before the line or the model where evaluate asks it, and before the snapshot that it opens: learn
# is not to answer for those.
ANSWER, SNAPSHOT = "answer of ", "snapshot "
# Before the line, and behind it the id of the command, where evaluate tries what one asks of it.
TRIAL = "trial of "
# Why a snapshot is refused that a learner's own process was lost over.
LOST = "lost"
# With each snapshot what came before counts half: a tree grows dearer as it grows.
FADING = 0.5
_FADING_SUMS = ("answer_s", "answers", "example_s", "examples", "snapshot_s", "snapshots")
_SUMS = (*_FADING_SUMS, "snapshot_bytes")


class LearnerLost(Exception):  # noqa: N818 - says what befell
    """Raised where a learner's own process is there no more: it died, or was ended."""

    def __repr__(self) -> str:
        return str(self)


class Suspect(NamedTuple):
    """The line that was at work when the worker died, and how often running that was so."""

    line: str
    deaths: int


class Stopwatch(Protocol):
    """Time as the shell measures it, and its watch over calls that may never return."""

    @property
    def budget_s(self) -> float:
        """Seconds that a line may take over an example; who takes longer is quarantined."""

    def seconds(self) -> float:
        """Seconds from any start; each call says that the one who is watched gets on."""

    def begin(self, n: int, stage: str = "learn") -> Suspect | None:
        """Take note of a start; stages that start together are told the same.

        Args:
            n: how many examples were learned before it, as committed.
            stage: that starts.

        Returns:
            Who was at work when the worker before this one died, if it did.
        """

    def watch(self) -> AbstractContextManager[object]:
        """Watch over what is called within: what does not return is interrupted with an error."""

    def attend(self, line: str) -> None:
        """Say whose learner is called next within a watch."""


class _NoStopwatch:
    """For who measures nothing: replays, tests."""

    budget_s = math.inf

    def seconds(self) -> float:
        return 0.0

    def begin(self, _: int, stage: str = "learn") -> Suspect | None:  # noqa: ARG002
        return None

    def watch(self) -> AbstractContextManager[object]:
        return nullcontext()

    def attend(self, line: str) -> None:
        pass


NO_STOPWATCH: Stopwatch = _NoStopwatch()


class Effort:
    """What one line took: sums that fade with each snapshot.

    >>> effort = Effort()
    >>> effort.learned(seconds=0.5, examples=1_000)
    >>> effort.example_s / effort.examples
    0.0005
    """

    __slots__ = ("_last_slow", "_slow_answers", "_slow_running", "_slow_snapshots", *_SUMS)

    answer_s: float
    answers: float
    example_s: float
    examples: float
    snapshot_s: float
    snapshots: float
    snapshot_bytes: int

    def __init__(self) -> None:
        self.answer_s = self.example_s = self.snapshot_s = 0.0
        self.answers = self.examples = self.snapshots = 0.0
        self.snapshot_bytes = 0
        self._last_slow, self._slow_running = -1, 0
        self._slow_answers = self._slow_snapshots = 0

    def learned(self, seconds: float, examples: int) -> None:
        """Add what it took to learn so many examples."""
        self.example_s += seconds
        self.examples += examples

    def answered(self, seconds: float, answers: int) -> None:
        """Add what it took to answer so many times."""
        self.answer_s += seconds
        self.answers += answers

    def published(self, seconds: float, size: int) -> None:
        """Add a snapshot of so many bytes; what came before counts half from now on."""
        for name in _FADING_SUMS:
            setattr(self, name, getattr(self, name) * FADING)
        self.snapshot_s += seconds
        self.snapshots += 1
        self.snapshot_bytes = size

    def answers_too_slowly(self, *, is_slow: bool) -> bool:
        """Whether it has now gone over its budget for too many answers running.

        A line that challenges is asked now and then, and so is never slow at examples running.

        Args:
            is_slow: whether its newest answer took longer than the budget.
        """
        self._slow_answers = self._slow_answers + 1 if is_slow else 0
        return self._slow_answers >= SLOW_RUNNING

    def publishes_too_slowly(self, *, is_slow: bool) -> bool:
        """Whether it has now gone over its bound for too many snapshots running.

        Args:
            is_slow: whether its newest one took longer.
        """
        self._slow_snapshots = self._slow_snapshots + 1 if is_slow else 0
        return self._slow_snapshots >= SLOW_RUNNING

    def is_too_slow(self, n: int) -> bool:
        """Whether it has now gone over its budget for too many examples running.

        Args:
            n: the number of the example that took longer than the budget.
        """
        self._slow_running = self._slow_running + 1 if n == self._last_slow + 1 else 1
        self._last_slow = n
        return self._slow_running >= SLOW_RUNNING

    def dump(self) -> dict[str, float]:
        """The sums by name, as JSON can hold them."""
        return {name: getattr(self, name) for name in _SUMS}

    def load(self, state: Mapping[str, float]) -> None:
        """Take up dumped sums."""
        for name in _SUMS:
            setattr(self, name, state[name])
