"""Files as people have them: CSV and JSON lines, packed or not, with times as they are declared."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import START_MS, TOY, stream, toy, write_lines
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from river import linear_model

import stream_ml as sml
from stream_ml.errors import BadRecord, DeclarationError, StreamMLError, UsageError
from stream_ml.files import TimeReader
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.line_batches import Line
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.rows.csv_parser import CsvParser
from stream_ml.shell.rows.layout import RowLayout
from stream_ml.shell.rows.reader import check_files, read_rows, row_batches

if TYPE_CHECKING:
    from conftest import Cli

shop = sml.Pipeline(
    "shop",
    events=sml.Events(
        key="customer",
        id="order",
        time="at",
        fields={
            "amount": sml.Optional[float],
            "count": sml.Optional[int],
            "note": sml.Optional[str],
            "gift": sml.Optional[bool],
            "country": sml.Optional(sml.Enum("no", "it")),
        },
    ),
    features=[sml.field("amount", fill=0.0)],
    label=sml.Label(bool, horizon="1d"),
    champion="logistic",
    models={"logistic": linear_model.LogisticRegression()},
    files=sml.Files(time_unit="iso", label="late", label_delay="1h"),
)
HEADER = "order,at,customer,amount,count,note,gift,country,late"
ROW = "o1,2024-05-01T12:00:00Z,ada,1.5,2,hello,true,no,false"
AT = 1_714_564_800_000


def declared(**changes: Any) -> sml.Pipeline:
    """The shop, whose files are of another make."""
    return replace(shop, files=replace(shop.files, **changes))


def rows_of(path: Path, content: str | bytes, pipeline: sml.Pipeline = shop) -> list[Any]:
    """The records of a file by its members, or the reason and path of what is none."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [
        (row.error.reason, row.error.path) if row.value is None and row.error else load(row.value)
        for row in read_rows(str(path), RowLayout(pipeline, str(path)))
    ]


def load(value: bytes | None) -> Any:
    """What a record holds."""
    return orjson.loads(value or b"")


@pytest.mark.parametrize(("index", "path"), [(0, "$.order"), (2, "$.customer")])
def test_a_row_without_its_id_or_key_is_one_event_that_is_refused(
    cli: Cli, tmp_path: Path, index: int, path: str
) -> None:
    """It is no label alone, and is not refused for its label once more."""
    cells = ROW.split(",")
    cells[index] = ""
    file = tmp_path / "history.csv"
    file.write_text("\n".join([HEADER, ROW, ",".join(cells)]))

    checked = cli("check", str(file), "--pipeline", f"{__name__}:shop", "--format", "json")
    for_labels = [row.value for row in read_rows(str(file), RowLayout(shop, "x", "labels"))]

    refused = checked.json["refused"]
    assert (1, {"missing_field": 1}) == (
        checked.code,
        {reason: each["count"] for reason, each in refused.items()},
    )
    assert path in str(refused["missing_field"])
    assert 2 == len(for_labels)


# --- one history in every form ----------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
_CENTURY = datetime.fromisoformat("2000-01-01"), datetime.fromisoformat("2100-01-01")
_TIME = st.datetimes(*_CENTURY, timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"order": _TEXT, "at": _TIME, "customer": _TEXT, "late": st.booleans()},
        optional={
            "amount": st.floats(-1e30, 1e30),
            "count": st.integers(-(2**53), 2**53),
            "note": _TEXT,
            "gift": st.booleans(),
            "country": st.sampled_from(["no", "it"]),
        },
    ),
    max_size=5,
)


def _csv(records: list[dict[str, Any]], **form: Any) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, HEADER.split(","), **form)
    writer.writeheader()
    for record in records:
        values = {
            name: orjson.dumps(value).decode() if type(value) in {bool, float} else value
            for name, value in record.items()
        }
        writer.writerow(values | {"at": record["at"].isoformat()})
    return text.getvalue()


def _expected(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both records of each row, in no order."""
    found = []
    for record in records:
        ms = (record["at"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        event = {name: value for name, value in record.items() if name != "late"}
        found.append(event | {"at": ms})
        found.append({"event_id": record["order"], "ts": ms + 3_600_000, "label": record["late"]})
    return sorted(found, key=repr)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=_RECORDS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_csv_and_json_lines_hold_the_same(
    tmp_path: Path, records: list[dict[str, Any]], quoting: Any
) -> None:
    """Whatever rows there are, each is the same event and label in either form."""
    lines = b"".join(
        orjson.dumps(record | {"at": record["at"].isoformat()}) + b"\n" for record in records
    )

    as_json = rows_of(tmp_path / "a.jsonl", lines)
    as_csv = rows_of(tmp_path / "a.csv", _csv(records, quoting=quoting))

    key = _sorted_members
    expected = [key(each) for each in _expected(records)]
    assert sorted(expected) == sorted(map(key, as_json)) == sorted(map(key, as_csv))


def _sorted_members(record: dict[str, Any]) -> str:
    return repr(sorted(record.items()))


@settings(max_examples=100)
@given(
    # Python 3.11 writes a lone \r without quotes.
    rows=st.lists(
        st.lists(_TEXT.filter(lambda text: "\r" not in text), min_size=2, max_size=3), max_size=5
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_what_python_writes_as_csv_is_read(rows: list[list[str]], ending: str) -> None:
    """Quotes, delimiters and ends of lines within cells are what they were."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending).writerows(rows)

    assert rows == [cells for _, cells in _parsed(text.getvalue().encode())]


def _parsed(content: bytes, bytes_max: int = 1000) -> list[tuple[int, Any]]:
    parser = CsvParser(",", bytes_max)
    found = []
    for number, text in enumerate(content.split(b"\n"), 1):
        found += parser.feed(Line(number, text))
    return [*found, *parser.end()]


@settings(max_examples=200)
@given(content=st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\xff", b"\0"])))
@example(content=[b'"', b"\n"] * 300)
def test_no_bytes_end_the_reading_of_csv(content: list[bytes]) -> None:
    """Each line is in a row or refused, in order, and once."""
    numbers = [number for number, _ in _parsed(b"".join(content), bytes_max=50)]

    assert numbers == sorted(set(numbers))


def test_an_open_quote_spoils_its_own_line_alone() -> None:
    """What follows is read as if it had not been, at the end of a file and far from it."""
    rows = [b"a,b", b'c,"d', *(b"e,%d" % n for n in range(200))]

    near = _parsed(b"\n".join(rows[:5]), bytes_max=1_000)
    far = _parsed(b"\n".join(rows), bytes_max=200)

    for found, count in ((near, 3), (far, 200)):
        assert [["a", "b"]] + [["e", str(n)] for n in range(count)] == [
            cells for _, cells in found if type(cells) is list
        ]
        [(number, refused)] = [each for each in found if type(each[1]) is BadRecord]
        assert (2, "not_csv") == (number, refused.reason)


# --- cells ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("o1,2024-05-01T12:00:00Z,ada,,,,,,", {}),
        ('o1,2024-05-01T14:00:00+02:00,ada,"1e3",,,,,', {"amount": 1000.0}),
        ("o1,20240501T120000Z,ada, 7 ,,,,,", {"amount": 7}),
        ("o1,2024-05-01T12:00:00.0009Z,ada,,12.0,,,,", {"count": 12}),
        ("o1,2024-05-01T12:00:00Z,ada,,,007,,,", {"note": "007"}),
        ('o1,2024-05-01T12:00:00Z,ada,,,"a ""b"", c",,,', {"note": 'a "b", c'}),
        ('o1,2024-05-01T12:00:00Z,ada,,,5" pipe,,,', {"note": '5" pipe'}),
        ("o1,2024-05-01T12:00:00Z,ada,,,,FALSE,,", {"gift": False}),
        ("o1,2024-05-01T12:00:00Z,ada,,,, Yes,,", {"gift": True}),
        ("o1,2024-05-01T12:00:00Z,ada,,,,1.0,,", {"gift": True}),
    ],
)
def test_a_cell_is_read_by_its_declared_type(
    tmp_path: Path, row: str, expected: dict[str, Any]
) -> None:
    """What is empty is missing; an id stays a text; no type is guessed."""
    found = rows_of(tmp_path / "a.csv", f"{HEADER}\n{row}\n")

    assert [{"order": "o1", "at": AT, "customer": "ada", **expected}] == found
    assert shop.event_codec.decode(orjson.dumps(found[0])).ts == AT


@pytest.mark.parametrize(
    ("row", "reason", "path"),
    [
        (b"o1,2024-05-01T12:00:00Z,ada,1.5", "column_count", "$"),
        (b"o1,2024-05-01T12:00:00Z,ada,1.5,2,a,b,true,no,false", "column_count", "$"),
        (b"o1,2024-05-01T12:00:00Z,ada,1,2,\xe9,true,no,false", "not_utf8", "$"),
        (b"o1,2024-05-01T12:00:00Z,ada,1,2,a\0b,true,no,false", "not_csv", "$"),
        (b'o1,2024-05-01T12:00:00Z,ada,1,2,"a"b,true,no,false', "not_csv", "$"),
        (b"o1,2024-05-01T12:00:00Z,ada,1,2,a\rb,true,no,false", "not_csv", "$"),
        (b"o1,2024-05-01T12:00:00,ada,1,2,a,true,no,false", "no_time_zone", "$.at"),
        (b"o1,2024-05-32T12:00:00Z,ada,1,2,a,true,no,false", "wrong_type", "$.at"),
        (b"o1,1714564800,ada,1,2,a,true,no,false", "wrong_type", "$.at"),
        (b"o1,1912-05-01T12:00:00Z,ada,1,2,a,true,no,false", "out_of_range", "$.at"),
        (b"o1,2024-05-01T12:00:00Z,ada,1,99999999999999999999,a,t,no,f", "out_of_range", "$.count"),
        (b"o1,2024-05-01T12:00:00Z,ada,1," + b"x" * 2_000_000, "too_large", "$"),
    ],
)
def test_a_row_that_is_none_is_refused_alone(
    tmp_path: Path, row: bytes, reason: str, path: str
) -> None:
    """The rows around it are read, whatever is in it."""
    content = b"\xef\xbb\xbf" + b"\r\n".join([HEADER.encode(), ROW.encode(), row, ROW.encode()])

    found = rows_of(tmp_path / "a.csv", content)

    assert [(reason, path)] == [each for each in found if type(each) is tuple]
    assert 5 == len(found)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('o1,2024-05-01T12:00:00Z,ada,"1,5",,,,,', "expected float or null, given str '1,5'"),
        ("o1,2024-05-01T12:00:00Z,ada,NaN,,,,,", "expected float or null, given str 'NaN'"),
        ("o1,2024-05-01T12:00:00Z,ada,,1.5,,,,", "expected int or null, given str '1.5'"),
        ("o1,2024-05-01T12:00:00Z,ada,,,,2,,", "expected bool or null, given str '2'"),
        ("o1,2024-05-01T12:00:00Z,ada,,,,,fr,", "expected one of no, it or null, given str 'fr'"),
        ("o1,2024-05-01T12:00:00Z,,,,,,,", "expected a string of 1 to 512 characters, given noth"),
    ],
)
def test_a_cell_of_another_type_is_refused_as_any_record(
    tmp_path: Path, row: str, message: str
) -> None:
    """It is published as it is where it must be, and refused in the words of the declared type."""
    [found] = rows_of(tmp_path / "a.csv", f"{HEADER}\n{row}\n")

    with pytest.raises(BadRecord) as refused:
        shop.event_codec.decode(orjson.dumps(found))
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("order,at", "a.csv:1: expected the columns customer, given 'order', 'at'"),
        ("order;at;customer", "given 'order;at;customer'; is another delimiter declared"),
        ("order,at,customer,at", "a.csv:1: expected each column once, given 'at' twice"),
    ],
)
def test_columns_that_are_not_those_declared_are_named(
    tmp_path: Path, header: str, message: str
) -> None:
    """Before any row is read, for each would be wrong."""
    with pytest.raises(StreamMLError) as refused:
        rows_of(tmp_path / "a.csv", f"\n{header}\n{ROW}\n".lstrip())
    assert message in str(refused.value)


# --- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("s", "1714564800"),
        ("s", 1_714_564_800),
        ("s", 1714564800.0),
        ("s", "1714564800.0009"),
        ("ms", "1714564800000"),
        ("ms", "1714564800000.9"),
        ("us", 1_714_564_800_000_999),
        ("ns", "1714564800000999999"),
        ("iso", "2024-05-01T12:00:00Z"),
        ("iso", "2024-05-01 12:00:00+00:00"),
        ("iso", "2024-05-01t12:00:00.000999z"),
        ("iso", datetime(2024, 5, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_time_is_of_the_declared_unit(unit: str, value: Any) -> None:
    """To the millisecond, and what is finer is cut off."""
    assert AT == TimeReader(sml.Files(time_unit=unit)).read("at", value)


@pytest.mark.parametrize(
    ("unit", "value", "hint"),
    [
        ("iso", "1714564800", 'if it is in seconds, declare files=sml.Files(time_unit="s")'),
        ("us", "1714564800.5e3", "expected a time in microseconds since 1970, as declared, given"),
        ("s", "1714564800000000000", "if it is in nanoseconds, declare files=sml.Files(time_unit"),
        ("ms", "2024-05-01", 'if it is ISO 8601, declare files=sml.Files(time_unit="iso")'),
        ("iso", "2024-05-01", 'declare files=sml.Files(time_zone="UTC"), or the zone that'),
        ("s", "1e999999999", "given str '1e999999999'"),
        ("s", float("inf"), "given float inf"),
        ("ns", True, "given bool True"),
    ],
)
def test_a_time_of_another_unit_is_never_guessed(unit: str, value: Any, hint: str) -> None:
    """It is refused, with what it probably is."""
    with pytest.raises(BadRecord) as refused:
        TimeReader(sml.Files(time_unit=unit)).read("at", value)
    assert hint in refused.value.message


def test_a_time_without_a_zone_is_of_the_declared_one() -> None:
    """Summer time included; of an hour that comes twice the first is meant."""
    oslo = TimeReader(sml.Files(time_unit="iso", time_zone="Europe/Oslo"))

    assert AT == oslo.read("at", "2024-05-01 14:00")
    assert AT == oslo.read("at", "2024-05-01T12:00:00Z")
    assert oslo.read("at", "2024-10-27T02:30") == oslo.read("at", "2024-10-27T02:30+02:00")


@settings(max_examples=100)
@given(ms=st.integers(0, 2**50), rest=st.integers(0, 999))
def test_every_millisecond_is_read_back(ms: int, rest: int) -> None:
    """As a text with a fraction, and as the nearest number that JSON has."""
    readers = {unit: TimeReader(sml.Files(time_unit=unit)) for unit in ("s", "ms", "us")}
    text = f"{ms // 1000}.{ms % 1000:03}"

    assert ms == readers["s"].read("at", text)
    assert ms == readers["s"].read("at", orjson.loads(text))
    assert ms == readers["ms"].read("at", f"{ms}.{rest:03}")
    assert ms == readers["us"].read("at", ms * 1_000 + rest)


# --- labels -----------------------------------------------------------------------------------


def test_labels_of_rows_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Each when the events have come as far, and those that are missing do not."""
    rows = []
    for n, delay in enumerate([30, 10, None, 5, 20] * 6):
        known = ",2024-05-01" if delay is None else f"true,2024-05-01T12:{n + delay:02}:00Z"
        rows.append(f"o{n},2024-05-01T12:{n:02}:00Z,ada,{known}")
    pipeline = declared(label_delay=None, label_time="known")

    found = rows_of(
        tmp_path / "a.csv", "\n".join(["order,at,customer,late,known", *rows]), pipeline
    )

    labels = [each for each in found if "label" in each]
    times = [each["ts"] for each in labels]
    assert (24, times) == (len(labels), sorted(times))
    events = [each["order"] for each in found if "order" in each]
    assert [f"o{n}" for n in range(30)] == events
    assert not any({"late", "known"} & set(each) for each in found)
    # A label that is known at 12:08 comes soon after the events of then, and not at the end.
    first = next(index for index, each in enumerate(found) if "label" in each)
    assert {"event_id": "o3", "ts": AT + 480_000, "label": True} == found[first]
    assert "o10" == found[first - 1]["order"]


def test_labels_in_a_file_of_their_own(tmp_path: Path) -> None:
    """They have the declared names of id and time, or those of the wire."""
    pipeline = declared(label_delay=None)

    own = rows_of(tmp_path / "a.csv", "order,at,late\no1,2024-05-01T12:00Z,true\n", pipeline)
    wire = rows_of(tmp_path / "b.csv", "event_id,ts,late\no1,2024-05-01T12:00Z,1\n", pipeline)
    line = {"order": "o1", "at": "2024-05-01T12:00Z", "late": True}
    lines = rows_of(tmp_path / "c.jsonl", orjson.dumps(line), pipeline)
    missing = rows_of(tmp_path / "d.csv", "order,at,late\no1,2024-05-01T12:00Z,\n", pipeline)

    names = rows_of(tmp_path / "e.csv", "event_id,ts,label\no1,2024-05-01T12:00Z,t\n")
    members = {"event_id": "o1", "ts": "2024-05-01T12:00Z", "label": True}
    line_names = rows_of(tmp_path / "f.jsonl", orjson.dumps(members))

    assert own == wire == lines == [{"label": True, "ts": AT, "event_id": "o1"}]
    assert own == names == line_names
    # An event and its label in one line: whoever has not said when it was known is told.
    both = {**line, "customer": "ada"}
    assert [both] == rows_of(tmp_path / "g.jsonl", orjson.dumps(both), pipeline)
    assert missing == [("missing_field", "$.late")]


def test_files_without_ids_and_without_a_key(tmp_path: Path) -> None:
    """An event is named by its file and line, and all are of one key."""
    pipeline = declared(row_ids=True, key="all")
    content = 'at,late,note\n2024-05-01T12:00Z,true,"a\nb"\n2024-05-01T12:00Z,,c\n'

    assert [
        {"at": AT, "note": "a\nb", "order": "a.csv:2", "customer": "all"},
        {"at": AT, "note": "c", "order": "a.csv:4", "customer": "all"},
        {"event_id": "a.csv:2", "ts": AT + 3_600_000, "label": True},
    ] == rows_of(tmp_path / "a.csv", content, pipeline)


def test_files_whose_rows_would_have_the_same_ids_are_refused(tmp_path: Path) -> None:
    """Else the events of the second one would all be taken for repeats of the first one's."""
    files = [tmp_path / month / "data.csv" for month in ("jan", "feb")]
    for file in files:
        file.parent.mkdir()
        file.write_text(f"{HEADER}\n{ROW}\n")
    jan, feb = map(str, files)

    check_files([jan, feb])
    check_files([jan], row_ids=True)
    for same in ([jan, feb], [jan, jan]):
        with pytest.raises(UsageError, match=r"expected another name than that of .*jan/data.csv"):
            check_files(same, row_ids=True)


def test_a_file_of_too_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    """As many as a line has room for cost no minutes."""
    header = ",".join(map(str, range(100_000)))

    with pytest.raises(
        StreamMLError, match=r"a\.csv:1: expected at most 10,000 columns, given 100,"
    ):
        rows_of(tmp_path / "a.csv", header)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"time_unit": "minutes"}, "files.time_unit: expected one of s, ms, us, ns, iso"),
        ({"time_unit": ["s"]}, "files.time_unit"),
        ({"time_zone": "UTC"}, "files.time_zone: expected None where times are numbers"),
        ({"time_unit": "iso", "time_zone": "Mars/Base"}, "files.time_zone"),
        ({"delimiter": "x"}, "files.delimiter"),
        ({"label": "amount"}, "files.label: expected a column that is no field of events"),
        ({"label_time": "amount"}, "files.label_time: expected a column that is no field"),
        ({"label": "customer"}, "files.label: expected another column than the key"),
        ({"label_time": "a", "label_delay": "1h"}, "files.label_delay: expected None where"),
        ({"label_delay": "soon"}, "files.label_delay: expected a duration"),
        ({"key": ""}, "files.key"),
        ({"row_ids": "yes"}, "files.row_ids: expected True or False"),
    ],
)
def test_mistakes_in_how_files_are_declared(files: dict[str, Any], problem: str) -> None:
    """Each is named by its path; a label that were a field would be given to the models."""
    with pytest.raises(DeclarationError) as refused:
        replace(shop, files=sml.Files(**files))
    assert problem in str(refused.value)


def test_rows_of_a_pipe_come_as_they_are_written() -> None:
    """Nobody waits for the end of a file that is still being written, nor for more of it."""
    reading, writing = os.pipe()
    with Stop() as stop:
        layout = RowLayout(shop, "-", "events")
        found = row_batches(f"/dev/fd/{reading}", layout, stop, "csv")
        os.write(writing, f"{HEADER}\n{ROW}\n{ROW[:20]}".encode())
        first = next(found)
        os.write(writing, f"{ROW[20:]}\n".encode())
        second = next(found)
        os.close(writing)
        rest = list(found)
    os.close(reading)

    assert [[2], [3]] == [[row.number for row in batch] for batch in (first, second)]
    assert [] == [row for batch in rest for row in batch]


# --- commands ---------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> str:
    """The toy's events and labels in one CSV file, and one row among them that is none."""
    events, labels = stream(600)
    known = {label["event_id"]: label for label in labels}
    rows = ["event_id,ts,user,x,label,known"]
    for event in events:
        label = known.get(event["event_id"])
        truth = "," if label is None else f"{label['label']},{iso(label['ts'])}"
        rows.append(f"{event['event_id']},{iso(event['ts'])},{event['user']},{event['x']},{truth}")
    rows.insert(300, "bad,soon,u1,1.0,,")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows))
    return str(path)


def iso(ms: int) -> str:
    """A time as a text."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


tabled = replace(toy, files=sml.Files(time_unit="iso", label_time="known"))


def test_a_table_gives_the_scores_of_json_lines(cli: Cli, tmp_path: Path, table: str) -> None:
    """The same history, to the last bit; what was refused is named by line, and ends with 1."""
    events, labels = stream(600)
    files = [
        write_lines(tmp_path / "e.jsonl", events),
        write_lines(tmp_path / "l.jsonl", labels),
    ]

    usual = cli("backtest", *files, "--pipeline", TOY, "--format", "json")
    ran = cli("backtest", table, "--pipeline", f"{__name__}:tabled", "--format", "json")

    assert (usual.code, ran.code) == (0, 1)
    assert usual.json["models"] == ran.json["models"]
    assert usual.json["published"] == ran.json["published"]
    refused = ran.json["refused"]["wrong_type"]["first"]
    assert [
        {
            "place": f"{table}:301",
            "path": "$.ts",
            "message": "expected a time in ISO 8601 such as 2024-05-01T12:00:00Z, as declared, "
            "given str 'soon'",
        }
    ] == refused
    assert "backtest: 1 of 1,191 were refused" in ran.err


@pytest.mark.parametrize(
    ("pack", "ending"), [(gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz")]
)
def test_packed_files_are_published(
    cli: Cli, tmp_path: Path, table: str, pack: Any, ending: str
) -> None:
    """The events of the rows as events, the labels as labels, however they are packed."""
    path = tmp_path / f"table.csv.{ending}"
    content = Path(table).read_bytes()
    path.write_bytes(pack(content[:20_000]) + pack(content[20_000:]))
    arguments = ("--pipeline", f"{__name__}:tabled", "--format", "json")
    with SqliteLog.create(tmp_path / "stream_ml.sqlite") as log:
        events = cli("publish", "events", str(path), *arguments)
        labels = cli("publish", "labels", str(path), *arguments)
        stored = [load(record.value) for record in read_all(log, "labels")]

    assert (events.code, events.json["events"], events.json["refused"]) == (
        1,
        600,
        {"wrong_type": 1},
    )
    assert f"{path}:301: wrong_type at $.ts: expected a time in ISO 8601" in events.err
    assert (labels.code, labels.json["labels"]) == (1, 590)
    assert stream(600)[1] == stored


def test_a_packed_file_that_is_cut_is_named(cli: Cli, tmp_path: Path) -> None:
    """What there is of it is read, and the exit code says that there was more."""
    for ending, pack in (("bz2", bz2.compress), ("xz", lzma.compress), ("gz", gzip.compress)):
        path = tmp_path / f"cut.jsonl.{ending}"
        path.write_bytes(pack(b"x" * 100_000)[:-12])

        ran = cli("backtest", str(path), "--pipeline", TOY)

        assert (ran.code, f"{path}: expected a sound" in ran.err) == (1, True)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_small_file_that_unpacks_to_a_large_one(tmp_path: Path, pack: Any) -> None:
    """It is handed on in pieces, and a line of it that is too long is refused."""
    path = tmp_path / "bomb.csv.packed"
    path.write_bytes(pack(f"{HEADER}\n".encode() + bytes(30_000_000) + b"\n" + ROW.encode()))

    found = rows_of(tmp_path / "bomb.csv", path.read_bytes())

    assert [("too_large", "$")] == [each for each in found if type(each) is tuple]
    assert 3 == len(found)


def test_start_is_the_toys() -> None:
    """The table above has the times of the toy."""
    assert iso(START_MS) == "2023-11-14T22:13:20+00:00"
