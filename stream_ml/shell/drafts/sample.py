"""The first rows of a file, whatever kind it is, and what each of its columns holds."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import RECORD_BYTES_MAX
from stream_ml.errors import BadRecord, StreamMLError
from stream_ml.files import DELIMITERS, Files, TimeReader, cell_flag, cell_value
from stream_ml.schema import FieldType, is_text
from stream_ml.shell.input_files import open_file
from stream_ml.shell.processes.line_batches import every_line
from stream_ml.shell.rows.csv_parser import CsvParser
from stream_ml.shell.rows.layout import check_columns
from stream_ml.shell.rows.parquet_reader import ParquetReader
from stream_ml.shell.rows.reader import delimiter_of, kind_of
from stream_ml.time_units import likely_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.input_files import Kind

__all__ = ["Sample", "SampledColumn", "take_sample"]

SAMPLE_ROWS, SAMPLE_CHARACTERS = 20_000, 64 * 1024 * 1024
DISTINCT_MAX = 1_000
TEXT_LENGTH_MAX = 4_096
# What is known of each takes memory.
COLUMNS_MAX = 2_000
_FLOAT, _INT = FieldType("float"), FieldType("int")
_ISO = TimeReader(Files(time_unit="iso", time_zone="UTC"))
_ISO_WITH_ZONE = TimeReader(Files(time_unit="iso"))


@dataclass(slots=True)
class SampledColumn:
    """What the sampled rows have in one column.

    Attributes:
        name: of the column.
        present: in how many rows it has a value.
        counts: how often each of the first different values came, as texts.
        types: how many values are `number`, `whole`, `bool`, `time` (ISO 8601), `local` (the same
            without a zone), `text` or `other`.
        length_max: of the longest text.
        units: the units by which numbers are times of this century.
        is_typed_time: the file itself says that these are times.
        texts: whether values are texts in the file, as all are in CSV.
    """

    name: str
    present: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    length_max: int = 0
    units: Counter[str] = field(default_factory=Counter)
    is_typed_time: bool = False
    texts: bool = True

    @property
    def is_open(self) -> bool:
        """Whether there are more different values than were kept."""
        return len(self.counts) >= DISTINCT_MAX

    def all_are(self, *types: str) -> bool:
        """Whether every value is one of these types, and there is one.

        Args:
            types: as in `types`.
        """
        return 0 < self.present == sum(self.types[each] for each in types)

    def add(self, value: Any, *, is_cell: bool) -> int:
        """Take one value, and return how many characters it has.

        Args:
            value: as the file has it, not None.
            is_cell: it is a text that may stand for anything.
        """
        self.present += 1
        text = value if isinstance(value, str) else str(value)
        self.length_max = max(self.length_max, len(text))
        if text in self.counts or len(self.counts) < DISTINCT_MAX:
            self.counts[text] += 1
        self.texts = self.texts and isinstance(value, str)
        if isinstance(value, date):
            self.is_typed_time = True
            self.types["time" if getattr(value, "tzinfo", None) else "local"] += 1
        elif isinstance(value, str):
            self._text(value, is_cell=is_cell)
        elif isinstance(value, bool):
            self.types["bool"] += 1
        elif isinstance(value, int | float | Decimal):
            self._number(value)
        else:
            self.types["other"] += 1
        return len(text)

    def _text(self, text: str, *, is_cell: bool) -> None:
        number = _number(text) if is_cell else None
        if number is not None:
            self._number(number)
            return
        if is_cell and cell_flag(text) is not None:
            self.types["bool"] += 1
            return
        self.types[_time_type(text)] += 1

    def _number(self, value: float | Decimal) -> None:
        number = Decimal(str(value))
        if not number.is_finite():
            self.types["other"] += 1
            return
        self.types["whole" if number == number.to_integral_value() else "number"] += 1
        unit = likely_unit(number)
        if unit is not None:
            self.units[unit] += 1


def _number(text: str) -> float | int | None:
    for kind in (_INT, _FLOAT):
        try:
            value = cell_value("", kind, text)
        except BadRecord:
            return float(text)
        if not isinstance(value, str):
            return float(value) if kind is _FLOAT else int(value)
    return None


def _time_type(text: str) -> str:
    try:
        _ISO.read("", text)
    except BadRecord:
        return "text"
    try:
        _ISO_WITH_ZONE.read("", text)
    except BadRecord:
        return "local"
    return "time"


@dataclass(slots=True)
class Sample:
    """The first rows of a file.

    Attributes:
        file: its name.
        kind: of file.
        delimiter: of CSV.
        columns: by name, in their order.
        rows: the values by column; what is missing is left out.
        is_whole: there are no more rows than these.
        bad: how many rows could not be read.
        header: of CSV, all names as they stand in the first row.
    """

    file: str
    kind: Kind
    delimiter: str
    columns: dict[str, SampledColumn]
    rows: list[dict[str, Any]]
    is_whole: bool
    bad: int
    header: list[str] = field(default_factory=list)

    def numbers(self, name: str) -> list[float]:
        """The values of a column of numbers, in the order of the rows.

        Args:
            name: of the column.
        """
        return [float(row[name]) for row in self.rows if name in row]


def take_sample(file: str, kind: Kind | None = None) -> Sample:
    """Read the first rows of a file.

    Args:
        file: its name.
        kind: what somebody says that it is.

    Raises:
        UsageError: it is of a kind that is not read.
        StreamMLError: it is damaged, has no rows, or too many columns.
    """
    found = kind_of(file, kind)
    sample = Sample(file, found, delimiter_of(file, ","), {}, [], is_whole=True, bad=0)
    with open_file(file) as handle:
        rows = _READERS[found](handle, sample)
        room = SAMPLE_CHARACTERS
        for row in islice(rows, SAMPLE_ROWS):
            if row is None:
                sample.bad += 1
                continue
            sample.rows.append(row)
            for name, value in row.items():
                if name not in sample.columns:
                    sample.columns[name] = SampledColumn(name)
                    _check_count(file, len(sample.columns))
                room -= len(name) + sample.columns[name].add(value, is_cell=found == "csv")
            if room < 0:
                break
        sample.is_whole = next(rows, _NONE) is _NONE
    if not sample.rows:
        actual = f"{sample.bad:,} that are none{_WAYS_OUT[found]}" if sample.bad else "none"
        raise StreamMLError(f"{file}: expected rows to draft a declaration from, given {actual}")
    return sample


def _check_count(file: str, count: int) -> None:
    if count > COLUMNS_MAX:
        raise StreamMLError(
            f"{file}: expected at most {COLUMNS_MAX:,} columns, given more; take out members whose "
            "names are data, or those that are not needed"
        )


_NONE: Any = object()
_WAYS_OUT = {
    "jsonl": "; write each row as a JSON object in a line, as `jq -c '.[]'` does of a list, or say "
    "what it is with --input",
    "csv": ": each as many cells as the first row, in UTF-8",
    "parquet": "",
}


def _json_rows(handle: int, sample: Sample) -> Iterator[dict[str, Any] | None]:
    for line in every_line(handle, bytes_max=RECORD_BYTES_MAX, file=sample.file):
        try:
            members = None if line.text is None else orjson.loads(line.text)
        except orjson.JSONDecodeError:
            members = None
        if not isinstance(members, dict):
            yield None
            continue
        yield {name: value for name, value in members.items() if value is not None}


def _csv_rows(handle: int, sample: Sample) -> Iterator[dict[str, Any] | None]:
    header: list[str] | None = None
    parser: CsvParser | None = None
    for line in every_line(handle, bytes_max=RECORD_BYTES_MAX, file=sample.file, is_raw=True):
        if parser is None:
            sample.delimiter = _delimiter(line.text or b"", sample.delimiter)
            parser = CsvParser(sample.delimiter, RECORD_BYTES_MAX)
        for _, cells in parser.feed(line):
            if header is None:
                header = _header(sample, cells)
            else:
                yield _cells(header, cells)
    for _, cells in parser.end() if parser is not None else ():
        if header is not None:
            yield _cells(header, cells)


def _delimiter(first_line: bytes, expected: str) -> str:
    """What cuts the first line into the most columns."""
    text = first_line.decode(errors="replace")
    counts = {each: _width(text, each) for each in (expected, *DELIMITERS)}
    return max(counts, key=lambda each: counts[each])


def _width(text: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([text], delimiter=delimiter), []))
    except csv.Error:  # the header goes on in the next line, say
        return 0


def _header(sample: Sample, cells: list[str] | BadRecord) -> list[str]:
    if isinstance(cells, BadRecord):
        raise StreamMLError(f"{sample.file}:1: expected the names of columns: {cells.message}")
    names = [name.strip() for name in cells]
    check_columns(f"{sample.file}:1", names, COLUMNS_MAX)
    sample.header = names
    sample.columns.update({name: SampledColumn(name) for name in names if is_text(name)})
    return names


def _cells(header: list[str], cells: list[str] | BadRecord) -> dict[str, Any] | None:
    if isinstance(cells, BadRecord) or len(cells) != len(header):
        return None
    return {n: cell for n, cell in zip(header, cells, strict=True) if cell and is_text(n)}


def _parquet_rows(handle: int, sample: Sample) -> Iterator[dict[str, Any] | None]:
    reader = ParquetReader(handle, sample.file)
    check_columns(f"{sample.file}:1", reader.names, COLUMNS_MAX)
    names = [name for name in reader.names if is_text(name)]
    sample.columns.update({name: SampledColumn(name) for name in names})
    for rows in reader.rows(names):
        yield from (None if isinstance(row, BadRecord) else row for row in rows)


_READERS = {"jsonl": _json_rows, "csv": _csv_rows, "parquet": _parquet_rows}
