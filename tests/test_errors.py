"""Errors: whose fault, where, what was expected and what was given."""

from __future__ import annotations

import pytest

from stream_ml import errors
from stream_ml.errors import (
    BadRecord,
    CommandRefused,
    DeclarationError,
    LogFull,
    LogLocked,
    NoAnswer,
    Problem,
    SnapshotRefused,
    StreamMLError,
    UnknownTopic,
    UsageError,
)

CLASSES = [
    cls
    for name in errors.__all__
    if isinstance(cls := getattr(errors, name), type) and issubclass(cls, StreamMLError)
]


@pytest.mark.parametrize("cls", CLASSES, ids=[cls.__name__ for cls in CLASSES])
def test_each_error_says_when_it_is_raised(cls: type[StreamMLError]) -> None:
    """The docstring of an error opens with the condition that raises it."""
    opening = (cls.__doc__ or "").split()[:2]

    assert opening == ["Raised", "when"] or cls is StreamMLError


def test_one_mistake_is_not_called_several() -> None:
    """The headline counts, and each problem has a line of its own."""
    one = Problem("keep", "a whole number above 0", "-1")
    other = Problem("champion", "one of a, b", "'c'")

    assert "pipeline 'p' has 1 problem:\n  keep: expected a whole number above 0, given -1" == str(
        DeclarationError("pipeline 'p'", [one])
    )
    assert (
        "pipeline 'p' has 2 problems:\n"
        "  keep: expected a whole number above 0, given -1\n"
        "  champion: expected one of a, b, given 'c'"
    ) == str(DeclarationError("pipeline 'p'", [one, other]))


def test_a_bad_record_says_what_where_and_why() -> None:
    """Reason and path are for machines, the message for people."""
    error = BadRecord("wrong_type", "$.amount", "expected float, given str 'much'")

    assert "wrong_type at $.amount: expected float, given str 'much'" == str(error)
    assert ("wrong_type", "$.amount") == (error.reason, error.path)


def test_a_refused_snapshot_keeps_its_reason() -> None:
    """What a machine counts by is not mixed into what a person reads."""
    error = SnapshotRefused("signature", "a@1: expected ours, given another")

    assert ("signature", "a@1: expected ours, given another") == (error.reason, str(error))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1, StreamMLError("x")),
        (1, SnapshotRefused("golden", "x")),
        (2, UsageError("x")),
        (2, DeclarationError("x", [])),
        (3, LogFull("x")),
        (3, LogLocked("x")),
        (3, UnknownTopic("x")),
        (4, CommandRefused("x")),
        (5, NoAnswer("x")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes_tell_mistakes_from_failures(code: int, error: StreamMLError) -> None:
    """A script can tell what to correct (2) from what the log (3) or the worker (4, 5) said."""
    assert code == error.exit_code
