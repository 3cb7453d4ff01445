"""Everything that `stream_ml` raises, in one tree.

    StreamMLError
    ├── DeclarationError     a pipeline declaration is wrong (every problem listed)
    ├── UsageError           a command or setting is wrong
    │   └── StateRefused     a task's state is not what the task has written
    ├── BadRecord            a record from outside is wrong; becomes a dead letter, never a crash
    ├── SnapshotRefused      a model snapshot is not what it claims to be, or cannot run here
    ├── BadAnswer            what a model says is no answer (`models.recipes`, where it is caught)
    ├── CommandRefused       an operator's command was answered with a refusal
    ├── NoAnswer             an operator's command was not answered in time
    ├── TopicsDiffer         a cluster's topics are not what the catalogue says
    ├── DeclarationDiffers   a declaration is another than the one that runs on a log
    └── LogError             the log cannot do what it was asked
        ├── Fenced           another has taken over, and nothing more may be written
        ├── LogChanged       somebody else wrote where only the worker may
        ├── LogFull          no space is left where the log lives
        ├── LogLocked        another process holds what was asked for
        ├── NotAcknowledged  of some records nobody knows whether the log took them
        └── UnknownTopic     the log has no such topic or partition

A bad record is data; a broken invariant of our own is a crash (a plain `AssertionError`).

Code that is not ours (river's learners, a user's functions) may raise anything, `SystemExit` and
the panics of Rust included, which are no `Exception`s. At its calls all of that is contained
but what is meant for the process: `STOPS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "STOPS",
    "BadRecord",
    "CommandRefused",
    "DeclarationDiffers",
    "DeclarationError",
    "Fenced",
    "Halt",
    "LogChanged",
    "LogError",
    "LogFull",
    "LogLocked",
    "NoAnswer",
    "NotAcknowledged",
    "Problem",
    "SnapshotRefused",
    "StateRefused",
    "StreamMLError",
    "TopicsDiffer",
    "UnknownTopic",
    "UsageError",
    "brief_error",
]

ERROR_LENGTH_MAX = 300


class Halt(BaseException):
    """Ends the process where it is raised, whatever runs there; raised by tests of crashes."""


STOPS: tuple[type[BaseException], ...] = (KeyboardInterrupt, Halt)


def brief_error(error: BaseException) -> str:
    """An error of code that is not ours, in words that any record can hold.

    >>> brief_error(KeyError("amount"))
    "KeyError('amount')"
    """
    try:
        words = repr(error)
    except STOPS:
        raise
    except BaseException:  # noqa: BLE001 - it is not ours, nor is what it makes of itself
        words = type(error).__name__
    if len(words) > ERROR_LENGTH_MAX:
        words = f"{words[:ERROR_LENGTH_MAX]}..."
    return words.encode("utf-8", "backslashreplace").decode()


class StreamMLError(Exception):
    """The root: catch this to catch everything that `stream_ml` raises on purpose.

    `exit_code` is what the command line exits with when the error reaches the top.
    """

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a declaration: where, what was expected there, what was given."""

    path: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, given {self.actual}"

    def as_dict(self) -> dict[str, str]:
        """The mistake as commands print it.

        >>> Problem("label.type", "bool", "int").as_dict()
        {'path': 'label.type', 'expected': 'bool', 'given': 'int'}
        """
        return {"path": self.path, "expected": self.expected, "given": self.actual}


class DeclarationError(StreamMLError):
    """Raised when a pipeline declaration is loaded and is wrong; lists every problem at once."""

    exit_code = 2

    def __init__(self, subject: str, problems: list[Problem]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{subject} has {count}:", *map(str, problems)]))


class UsageError(StreamMLError):
    """Raised when a command, flag or setting is wrong; the message says the way out."""

    exit_code = 2


class BadRecord(StreamMLError):  # noqa: N818 - it is data about a record, and reads so where raised
    """Raised when bytes from outside are not the record that their topic holds.

    Attributes:
        reason: one word for machines, such as `not_json` or `wrong_type`.
        path: where in the record, as `$.field`.
    """

    def __init__(self, reason: str, path: str, message: str) -> None:
        self.reason = reason
        self.path = path
        self.message = message
        super().__init__(f"{reason} at {path}: {message}")


class SnapshotRefused(StreamMLError):  # noqa: N818 - as BadRecord
    """Raised when a model snapshot is forged, altered, of another library, or answers differently.

    Attributes:
        reason: one word for machines: `unsigned`, `signature`, `river_version`, `feature_set`,
            `class_not_allowed`, `golden`, `malformed` or `too_large`; of learners of other
            libraries also `format`, `library`, `undeclared` or `unreadable`.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class StateRefused(UsageError):  # noqa: N818 - as BadRecord
    """Raised when a task's state was altered, or is not all there, and cannot be made again."""


class CommandRefused(StreamMLError):  # noqa: N818 - it is an answer, and no fault of the program
    """Raised when a command was refused; nothing was changed, and the message says why."""

    exit_code = 4


class NoAnswer(StreamMLError):  # noqa: N818 - says what there was
    """Raised when a command was not answered in time; it stays on the log, and may be yet."""

    exit_code = 5


class TopicsDiffer(StreamMLError):  # noqa: N818 - it is an answer, and no fault of the program
    """Raised when a cluster's topics are not what the catalogue says, for scripts to see."""

    exit_code = 2


class DeclarationDiffers(StreamMLError):  # noqa: N818 - as TopicsDiffer
    """Raised when a declaration is another than the one that runs on a log, for scripts to see."""

    exit_code = 2


class LogError(StreamMLError):
    """Raised when the log cannot do what it was asked."""

    exit_code = 3


class Fenced(LogError):  # noqa: N818 - says what befell
    """Raised when another has taken over, and nothing more may be written."""


class LogChanged(LogError):  # noqa: N818 - says what befell
    """Raised when somebody else wrote where only the worker may; a worker starts anew after it."""


class LogFull(LogError):  # noqa: N818 - names the state of the log
    """Raised when no space is left where the log lives; nothing of the transaction was written."""


class LogLocked(LogError):  # noqa: N818 - names the state of the log
    """Raised when another process holds what was asked for, after waiting for it."""


class NotAcknowledged(LogError):  # noqa: N818 - names the state of the records
    """Raised when records were sent, and not all of them were acknowledged.

    Attributes:
        positions: of each record, in the order given, its partition and offset; None if it was not
            acknowledged. Such a record may lie on the log nevertheless.
    """

    def __init__(self, message: str, positions: Sequence[tuple[int, int] | None]) -> None:
        self.positions = tuple(positions)
        super().__init__(message)


class UnknownTopic(LogError):  # noqa: N818 - names what is unknown
    """Raised when a topic or partition is asked for that the log does not have."""
