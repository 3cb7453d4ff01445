"""Files of events and labels, as people have them, and how a declaration says to read them.

On the log events and labels are always as `docs/wire.md` has them: times in UTC milliseconds,
labels in records of their own. Files are of many makes. How times are written, which column is the
label, and when a label was known are declared here, once, and never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from stream_ml.errors import BadRecord, Problem
from stream_ml.features import parse_duration
from stream_ml.schema import INTEGER_MAX, FieldType, brief, is_text, short_repr
from stream_ml.time_units import MS_PER_UNIT, UNIT_NAMES, likely_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import tzinfo

__all__ = [
    "TIME_UNITS",
    "Files",
    "TimeReader",
    "cell_flag",
    "cell_value",
    "column_value",
    "file_problems",
    "file_texts",
]

TIME_UNITS = (*MS_PER_UNIT, "iso")
DELIMITERS = (",", ";", "\t", "|")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of times that name no zone
MILLISECOND = timedelta(milliseconds=1)

# Bounded, so that no text makes a number of a million digits, and each is exact as a Decimal.
_DECIMAL = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,9})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}(?:\.0{1,20})?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_ISO = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}(?:[Tt ][0-9].*)?", re.ASCII)
NUMBER_LENGTH_MAX = 64
# In any case; some libraries write a flag that may be missing as 1.0.
_BOOLS = dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True)
_BOOLS |= dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False)


@dataclass(frozen=True, slots=True)
class Files:
    """How files write events and labels; see docs/files.md.

    Args:
        time_unit: of all times in files: `s`, `ms`, `us` or `ns` since 1970 in UTC, or `iso` for
            ISO 8601. A Parquet column of type timestamp has its unit in the file.
        time_zone: of ISO 8601 times that name none, such as `UTC`; None: these are refused.
        delimiter: between the columns of a CSV file.
        label: the column, or member, that is the label.
        label_time: where event and label are one row: the column of when the label was known.
        label_delay: the same as a duration after the event, for files that do not tell.
        key: the key of every row, for files of one series, which have no such column.
        row_ids: the files have no ids: the id of an event is its file's name and line.
    """

    time_unit: str = "ms"
    time_zone: str | None = None
    delimiter: str = ","
    label: str = "label"
    label_time: str | None = None
    label_delay: str | int | None = None
    key: str | None = None
    row_ids: bool = False

    @property
    def has_rows_of_both(self) -> bool:
        """Whether an event and its label may be one row."""
        return self.label_time is not None or self.label_delay is not None

    @property
    def label_delay_ms(self) -> int:
        """How long after its event a label is known, where no column says."""
        return parse_duration(self.label_delay) if self.label_delay else 0


# --- the declaration --------------------------------------------------------------------------


def file_problems(files: Any, events: Any, schema: Mapping[str, FieldType]) -> Iterator[Problem]:
    """The mistakes in how files are declared.

    Args:
        files: what was declared, which may be anything.
        events: the declared events, likewise.
        schema: the declared fields.
    """
    if not isinstance(files, Files):
        yield Problem("files", 'Files(time_unit="iso", ...)', short_repr(files))
        return
    yield from _time_problems(files)
    if not (type(files.delimiter) is str and files.delimiter in DELIMITERS):
        expected = f"one of {', '.join(map(repr, DELIMITERS))}"
        yield Problem("files.delimiter", expected, short_repr(files.delimiter))
    yield from _column_problems(files, events, schema)
    if files.label_time is not None and files.label_delay is not None:
        yield Problem("files.label_delay", "None where label_time is declared", "both")
    if files.key is not None and not is_text(files.key):
        yield Problem("files.key", "a text, or None", short_repr(files.key))
    if type(files.row_ids) is not bool:
        yield Problem("files.row_ids", "True or False", short_repr(files.row_ids))


def _time_problems(files: Files) -> Iterator[Problem]:
    if not (type(files.time_unit) is str and files.time_unit in TIME_UNITS):
        expected = f"one of {', '.join(TIME_UNITS)}"
        yield Problem("files.time_unit", expected, short_repr(files.time_unit))
    if files.time_zone is not None:
        expected = "a time zone such as 'UTC' or 'Europe/Oslo'"
        if zone_of(files.time_zone) is None:
            yield Problem("files.time_zone", expected, short_repr(files.time_zone))
        elif files.time_unit != "iso":
            expected = "None where times are numbers, which are in UTC"
            yield Problem("files.time_zone", expected, short_repr(files.time_zone))
    delay: Any = files.label_delay
    if delay is not None and not (type(delay) is int and delay == 0):
        try:
            parse_duration(delay)
        except (ValueError, TypeError):
            expected = 'a duration such as "10m", or whole milliseconds'
            yield Problem("files.label_delay", expected, short_repr(delay))


def _column_problems(
    files: Files, events: Any, schema: Mapping[str, FieldType]
) -> Iterator[Problem]:
    for name in ("label", "label_time"):
        column: Any = getattr(files, name)
        if column is None and name == "label_time":
            continue
        if not is_text(column):
            yield Problem(f"files.{name}", "the name of a column", short_repr(column))
        elif column in schema and (name == "label_time" or files != Files()):
            # What is known only later would be given to the models at once.
            yield Problem(f"files.{name}", "a column that is no field of events", repr(column))
        elif column in [each for each in _event_columns(events) if isinstance(each, str)]:
            yield Problem(f"files.{name}", "another column than the key, time or id", repr(column))


def _event_columns(events: Any) -> Iterator[Any]:
    """The columns that every event has; what was declared may be of any type."""
    for name in ("key", "time", "id"):
        yield getattr(events, name, None)


def file_texts(files: Files) -> Iterator[tuple[str, str | None]]:
    """The declaration as text by path; None where it is as by default.

    Args:
        files: as declared.
    """
    for member in fields(files):
        value = getattr(files, member.name)
        yield f"files.{member.name}", None if value == member.default else repr(value)


def zone_of(name: object) -> tzinfo | None:
    """The time zone of that name; None where there is none."""
    if name == "UTC":
        return UTC  # needs no database of zones
    try:
        return ZoneInfo(name) if type(name) is str else None
    except (
        OSError,
        ValueError,
        KeyError,
    ):  # none of that name, or a name that leads out of the database
        return None


# --- times ------------------------------------------------------------------------------------


class TimeReader:
    """Reads times as one declaration has them, to UTC milliseconds.

    Args:
        files: says the unit, and the zone of what names none.

    >>> TimeReader(Files(time_unit="iso")).read("ts", "2024-02-29T12:00:00.250+01:00")
    1709204400250
    >>> TimeReader(Files(time_unit="s")).read("ts", 1709204400.25)
    1709204400250
    """

    def __init__(self, files: Files) -> None:
        self.unit = files.time_unit
        self._factor = MS_PER_UNIT.get(files.time_unit)
        self._zone = None if files.time_zone is None else zone_of(files.time_zone)

    @property
    def expected(self) -> str:
        """The form of a time, for messages."""
        if self.unit != "iso":
            return f"a time in {UNIT_NAMES[self.unit]} since 1970, as declared"
        return "a time in ISO 8601 such as 2024-05-01T12:00:00Z, as declared"

    def read(self, name: str, value: Any) -> int:
        """The time in UTC milliseconds; what is finer is cut off.

        Args:
            name: of the column, for the path in the error.
            value: a text, a number, or a date of Python's.

        Raises:
            BadRecord: it is no time of the declared unit.
        """
        if isinstance(value, date):
            return self._within(name, self._of_date(name, value), value)
        if self._factor is None:
            if type(value) is str and _ISO.fullmatch(text := value.strip()):
                try:
                    found = datetime.fromisoformat(text.upper())
                except ValueError as error:
                    message = f"expected {self.expected}, given {brief(value)}: {error}"
                    raise BadRecord("wrong_type", f"$.{name}", message) from None
                return self._within(name, self._of_date(name, found), value)
            raise self._refusal(name, value)
        number = _decimal(value)
        if number is None:
            raise self._refusal(name, value)
        # What is finer than a millisecond is cut off, before 1970 as well.
        return self._within(name, int((number * self._factor).__floor__()), value)

    def _of_date(self, name: str, value: date) -> int:
        moment = value if isinstance(value, datetime) else datetime(*value.timetuple()[:3])  # noqa: DTZ001 - the zone is the declared one
        if moment.tzinfo is not None:
            return (moment - EPOCH) // MILLISECOND
        if self._zone is None:
            message = (
                f"expected a time with its zone, such as 2024-05-01T12:00:00Z, given {brief(value)}"
                '; declare files=sml.Files(time_zone="UTC"), or the zone that it is of'
            )
            raise BadRecord("no_time_zone", f"$.{name}", message)
        if self._zone is UTC:
            return (moment - NAIVE_EPOCH) // MILLISECOND
        return (moment.replace(tzinfo=self._zone) - EPOCH) // MILLISECOND

    def _within(self, name: str, ms: int, value: Any) -> int:
        if 0 <= ms <= INTEGER_MAX:
            return ms
        message = f"expected {self.expected}, given {brief(value)}{self.hint(value)}"
        raise BadRecord("out_of_range", f"$.{name}", message)

    def _refusal(self, name: str, value: Any) -> BadRecord:
        message = f"expected {self.expected}, given {brief(value)}{self.hint(value)}"
        return BadRecord("wrong_type", f"$.{name}", message)

    def hint(self, value: Any) -> str:
        """Which unit it is probably of, as the end of a message; nothing where it is none.

        Args:
            value: that was given for a time.
        """
        if self.unit != "iso" and type(value) is str and _ISO.fullmatch(value.strip()):
            return '; if it is ISO 8601, declare files=sml.Files(time_unit="iso")'
        number = _decimal(value)
        unit = None if number is None else likely_unit(number)
        if unit is None or unit == self.unit:
            return ""
        return f'; if it is in {UNIT_NAMES[unit]}, declare files=sml.Files(time_unit="{unit}")'


def _decimal(value: Any) -> Decimal | None:
    """A number as it was written, to the last digit."""
    if type(value) is int:
        value = str(value)
    if type(value) is float:
        value = repr(value)
    if type(value) is Decimal:
        value = str(value)
    if type(value) is str and _DECIMAL.fullmatch(text := value.strip()):
        return Decimal(text)
    return None


# --- values -----------------------------------------------------------------------------------


def cell_flag(text: str) -> bool | None:
    """The flag that a CSV cell is; None where it is none.

    Args:
        text: what the cell holds.

    >>> cell_flag("Yes"), cell_flag("0"), cell_flag("maybe")
    (True, False, None)
    """
    return _BOOLS.get(text.strip().lower())


def cell_value(name: str, kind: FieldType, text: str) -> Any:
    """The value of a CSV cell by the declared type; the text itself where it is none of that type.

    What is none is refused where every record is, which says what was expected.

    Args:
        name: of the column, for the path in the error.
        kind: the declared type.
        text: what the cell holds, not empty.

    Raises:
        BadRecord: it is a whole number that is too large for any record.

    >>> cell_value("a", FieldType("float"), "1e3"), cell_value("a", FieldType("float"), "1,5")
    (1000.0, '1,5')
    """
    if kind.kind in {"str", "enum"}:
        return text
    word = text.strip()
    if kind.kind == "bool":
        flag = cell_flag(text)
        return text if flag is None else flag
    if len(word) > NUMBER_LENGTH_MAX:
        return text
    if _WHOLE.fullmatch(word):
        whole = int(word.partition(".")[0])
        if kind.kind == "int" or "." not in word:
            # JSON may not hold it.
            return whole if abs(whole) <= INTEGER_MAX else kind.check(name, whole)
    if kind.kind == "float" and _NUMBER.fullmatch(word):
        number = float(word)
        return number if abs(number) < float("inf") else text
    return text


def column_value(name: str, kind: FieldType, value: Any) -> Any:
    """The value of a typed column, such as Parquet's, by the declared type.

    Args:
        name: of the column, for the path in the error.
        kind: the declared type.
        value: as Python has it; not None.

    Raises:
        BadRecord: it is what no record can hold.
    """
    if type(value) is Decimal:
        value = float(value)
    if type(value) is float:
        if value - value != 0.0:  # NaN or infinite
            message = f"expected {kind}, given {value}; leave out what is missing"
            raise BadRecord("not_finite", f"$.{name}", message)
        if kind.kind == "int" and value.is_integer() and abs(value) <= INTEGER_MAX:
            return int(value)
    if type(value) in {float, int} and kind.kind == "bool" and value in {0, 1}:
        return bool(value)
    if type(value) not in {bool, int, float, str}:
        raise BadRecord("wrong_type", f"$.{name}", f"expected {kind}, given {brief(value)}")
    return value
