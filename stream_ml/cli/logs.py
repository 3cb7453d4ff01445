"""Logs of workers: what happens, and what libraries say, by level, as text or as JSON lines.

They go to standard error; what a command has to tell (`started`, `serves`, ...) is its output, and
is in the logs as well, so that one stream has it all in order.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.output import error_stream
from stream_ml.shell.printable import printable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping

__all__ = ["AGAIN_S", "Seldom", "begin_logs", "log_event"]

# Of what the clients say again and again; while a broker is gone that is 70 times a second.
AGAIN_S = 10.0
# A broker that has just started is asked again until it is ready; that is nothing to hear of.
NOT_READY = "GroupCoordinatorNotAvailableError"
# What is said of these has to be looked at.
WARNINGS = frozenset(
    {"anyone_may_write", "disturbed", "died", "not_isolated", "parked", "quarantined", "waiting"}
)

_LOG = logging.getLogger("stream_ml.worker")


def begin_logs(arguments: Namespace, context: Mapping[str, Any]) -> None:
    """Send the logs of this process to standard error.

    Args:
        arguments: of the command line: `log_level`, `log_format`.
        context: what every line of JSON says: which worker this is.
    """
    handler = logging.StreamHandler(error_stream())
    handler.addFilter(Seldom())
    handler.setFormatter(_JsonLines(context) if arguments.log_format == "json" else _TextLines())
    # Clients mend what they warn of (a broker that is gone, say), or a task ends with it.
    level = logging.getLevelNamesMapping()[arguments.log_level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)


def log_event(event: str, text: str, members: Mapping[str, Any]) -> None:
    """Log what a command tells.

    Args:
        event: what happened, in a word.
        text: for people.
        members: for machines.
    """
    level = logging.WARNING if event in WARNINGS else logging.INFO
    _LOG.log(level, "%s", text, extra={"event": event, "members": members})


class _TextLines(logging.Formatter):
    """A line of text for each record, and its traceback after it."""

    def format(self, record: logging.LogRecord) -> str:
        lines = [record.getMessage(), *_traceback(self, record)]
        text = "\n".join(printable(line) for line in "\n".join(lines).split("\n"))
        return f"{_time(record)} {record.levelname.lower()} {record.name}: {text}"


class _JsonLines(logging.Formatter):
    """A JSON object for each record, in a line."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context,
        }
        if hasattr(record, "event"):
            members |= {"event": record.event, **getattr(record, "members", {})}
        for text in _traceback(self, record):
            members["traceback"] = text
        return orjson.dumps(members, default=str).decode()


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    return [formatter.formatException(record.exc_info)] if record.exc_info else []


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1_000:03}Z"


class Seldom(logging.Filter):
    """Lets what one line of code says through, and again when `AGAIN_S` has passed.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed_at_s: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be heard."""
        # What we tell is told once, each by the same line of code.
        if record.name == _LOG.name:
            return True
        if NOT_READY in record.getMessage():
            return False
        now_s, line = self._clock(), (record.pathname, record.lineno)
        if now_s - self._passed_at_s.get(line, -AGAIN_S) < AGAIN_S:
            return False
        self._passed_at_s[line] = now_s
        return True
