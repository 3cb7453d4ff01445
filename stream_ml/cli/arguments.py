"""Types of command-line arguments: of a text, the value; `ArgumentTypeError` if it has none."""

from __future__ import annotations

import math
import re
import time
from argparse import ArgumentTypeError
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.cli.output import as_utf8
from stream_ml.cli.tables import format_time
from stream_ml.shell.input_files import INPUT_KINDS
from stream_ml.shell.settings.listening import ListenAddress
from stream_ml.shell.settings.settings import SETTINGS
from stream_ml.time_units import likely_ms

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

__all__ = [
    "add_input",
    "add_limit",
    "add_log_options",
    "add_metrics",
    "add_report",
    "add_standby",
    "instant",
    "integer",
    "log_options",
    "rate",
    "seconds",
    "utf8",
    "utf8_up_to",
    "whole_number",
]

# As `logging` has them, the one that tells most first.
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
YEAR_DIGITS, DATE_DIGITS = 4, 8
_YEAR, _MONTH = re.compile(r"\d{4}", re.ASCII), re.compile(r"\d{4}-\d{2}", re.ASCII)
# Bare numbers below are taken for seconds, beyond for a finer unit: 1973 to 2100.
FIRST_MS, NUMBER_MS_MAX = 100_000_000_000, 4_102_444_800_000
NUMBER_DIGITS_MAX = 20


def add_input(parser: ArgumentParser) -> None:
    """Let a command line say of which kind files are.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--input",
        choices=INPUT_KINDS,
        help="the kind of the files; by default as their names end: .csv, .tsv, .parquet, .pq, and "
        "else JSON lines, as the standard input",
    )


def add_report(parser: ArgumentParser) -> None:
    """Let a command write what it found as a page.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write a page of HTML with pictures and tables, which asks no other host; wants the "
        "extra `demo`",
    )


def add_log_options(parser: ArgumentParser) -> None:
    """Let a command line choose what is logged, and how.

    Args:
        parser: of a command that runs workers.
    """
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default=LOG_LEVELS[-1],
        help=f"what is logged to standard error: this and what is graver ({LOG_LEVELS[-1]})",
    )
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default=LOG_FORMATS[0],
        help=f"a line of text each, or a JSON object ({LOG_FORMATS[0]})",
    )


def log_options(arguments: Namespace) -> list[str]:
    """The same options, for a worker that is started by us.

    Args:
        arguments: of the command line.
    """
    return ["--log-level", arguments.log_level, "--log-format", arguments.log_format]


def add_limit(parser: ArgumentParser, meaning: str) -> None:
    """Let a command line bound a list.

    Args:
        parser: of the command.
        meaning: of the bound.
    """
    parser.add_argument("--limit", type=whole_number(1), metavar="N", help=meaning)


def add_metrics(parser: ArgumentParser) -> None:
    """Let a command that works until it is stopped be told where to answer scrapes and probes.

    Args:
        parser: of the command.
    """
    setting = SETTINGS["metrics"]
    parser.add_argument(
        "--metrics",
        type=_listen_address,
        metavar="HOST:PORT",
        help=f"{setting.meaning} (else {setting.variable}); PORT alone is this machine's, 0 any "
        "that is free; extra `metrics`",
    )


def add_standby(parser: ArgumentParser) -> None:
    """Let what works until it is stopped wait, ready, until its declaration is applied.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--standby",
        action="store_true",
        help="wait, ready, beside those who work under the declaration of before, until "
        "`stream-ml apply` has brought this one about; then take their place",
    )


def _listen_address(text: str) -> ListenAddress:
    try:
        return ListenAddress.parse(text)
    except ValueError:
        raise ArgumentTypeError(
            f"expected {SETTINGS['metrics'].expected}, given {text!r}"
        ) from None


def whole_number(first: int, last: int | None = None) -> Callable[[str], int]:
    """The type of a whole number from `first` on, up to `last` where there is one.

    Args:
        first: the smallest; not below 0.
        last: the largest; None for no end.

    >>> whole_number(1)("12")
    12
    """
    expectation = f"a whole number from {first}" if last is None else f"{first} to {last}"

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < NUMBER_DIGITS_MAX:
            number = int(text)
            if first <= number and (last is None or number <= last):
                return number
        raise ArgumentTypeError(f"expected {expectation}, given {text!r}")

    return parse


def integer(text: str) -> int:
    """A whole number of either sign."""
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"expected a whole number, given {text!r}") from None


def rate(text: str) -> float:
    """A finite number above 0."""
    number = _number(text)
    if number > 0:
        return number
    raise ArgumentTypeError(f"expected a number above 0, given {text!r}")


def seconds(text: str) -> float:
    """A finite length of time, 0 included."""
    number = _number(text)
    if number >= 0:
        return number
    raise ArgumentTypeError(f"expected seconds from 0, given {text!r}")


def _number(text: str) -> float:
    """The finite number that it is; -1 if it is none."""
    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number):
            return number
    return -1.0


def utf8(text: str) -> str:
    """A text whose bytes are UTF-8, whatever the locale takes them for."""
    with suppress(ValueError):
        return as_utf8(text)
    raise ArgumentTypeError(f"expected UTF-8, given {text!r}")


def utf8_up_to(length: int) -> Callable[[str], str]:
    """The type of a text in UTF-8 of at most `length` characters that says something."""

    def parse(text: str) -> str:
        text = utf8(text)
        if 0 < len(text.strip()) <= length >= len(text):
            return text
        raise ArgumentTypeError(f"expected 1 to {length} characters, given {len(text.strip())}")

    return parse


def instant(text: str) -> int:
    """A time as one types it: as `format_time` shows it, in ISO 8601, in milliseconds, or `now`.

    Where no zone is named, it is UTC. A year, a month or a day is where it begins.

    >>> instant("2013-01-01 11:00:00Z"), instant("2013-01-01T12:00+01:00"), instant("2013-01-01")
    (1357038000000, 1357038000000, 1356998400000)
    >>> instant("2013"), instant("2013-01"), instant("20130101"), instant("1356998400000")
    (1356998400000, 1356998400000, 1356998400000, 1356998400000)

    Raises:
        ArgumentTypeError: it is none, for a command line to say so.
    """
    if text == "now":
        return time.time_ns() // 1_000_000
    if text.isascii() and text.isdigit() and len(text) not in {YEAR_DIGITS, DATE_DIGITS}:
        return _milliseconds(text)
    date_text = f"{text}-01-01" if _YEAR.fullmatch(text) else text
    date_text = f"{text}-01" if _MONTH.fullmatch(text) else date_text
    with suppress(ValueError, OverflowError):
        value = datetime.fromisoformat(date_text)
        ms = math.floor((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
        if ms >= 0:
            return ms
    raise ArgumentTypeError(
        f"expected a time such as 2013-05-01T12:00Z or UTC milliseconds, given {text!r}"
    )


def _milliseconds(text: str) -> int:
    """A bare number, where it can hardly be anything else."""
    ms = int(text) if len(text) < NUMBER_DIGITS_MAX else NUMBER_MS_MAX + 1
    if ms == 0 or (FIRST_MS <= ms <= NUMBER_MS_MAX and not _is_written_out(text)):
        return ms
    raise ArgumentTypeError(
        f"expected a time such as 2013-05-01T12:00Z or UTC milliseconds, given {text!r}"
        f"{_other_unit(ms)}"
    )


def _is_written_out(text: str) -> bool:
    """Whether it may be a date and a time without signs between: 202611271200."""
    with suppress(ValueError):
        return 1_900 <= datetime.strptime(text, "%Y%m%d%H%M").year < 2_100  # noqa: DTZ007, PLR2004
    return False


def _other_unit(number: int) -> str:
    guess = likely_ms(number)
    if guess is None:
        return ""
    unit, ms = guess
    return f"; if these are {unit}, it is {format_time(ms)}: write {ms}"
