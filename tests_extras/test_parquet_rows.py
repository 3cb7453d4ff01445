"""Parquet files as events and labels; run by `make test`, with the extras."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from river import linear_model

import stream_ml as sml
from stream_ml.errors import StreamMLError
from stream_ml.shell.rows.layout import RowLayout
from stream_ml.shell.rows.reader import check_files, read_rows

if TYPE_CHECKING:
    from pathlib import Path

AT = 1_714_564_800_000
shop = sml.Pipeline(
    "shop",
    events=sml.Events(
        key="customer",
        fields={
            "amount": sml.Optional[float],
            "count": sml.Optional[int],
            "gift": sml.Optional[bool],
        },
    ),
    features=[sml.field("amount", fill=0.0)],
    label=sml.Label(bool, horizon="1d"),
    champion="logistic",
    models={"logistic": linear_model.LogisticRegression()},
    files=sml.Files(label_delay="1h"),
)


def rows_of(path: Path, kind: Any = None) -> list[Any]:
    """The records of a file by their members, or the reason and path of what is none."""
    return [
        (row.error.reason, row.error.path) if row.error else orjson.loads(row.value or b"")
        for row in read_rows(str(path), RowLayout(shop, str(path)), kind)
    ]


def write(path: Path, **columns: Any) -> Path:
    """A file of these columns beside an id and a key."""
    count = len(next(iter(columns.values())))
    ids = {"event_id": [f"e{n}" for n in range(count)], "customer": ["ada"] * count}
    pq.write_table(pa.table({**ids, "ts": [AT] * count, **columns}), path)
    return path


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.integers(0, 2**50),
            st.none() | st.floats(-1e30, 1e30),
            st.none() | st.integers(-(2**53), 2**53),
            st.none() | st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_parquet_and_json_lines_hold_the_same(tmp_path: Path, rows: list[Any]) -> None:
    """Whatever rows there are, each is the same event and label in either form."""
    names = ("event_id", "ts", "amount", "count", "gift")
    records = [dict(zip(names, row, strict=True)) | {"customer": "a"} for row in rows]
    types = [pa.string(), pa.int64(), pa.float64(), pa.int64(), pa.bool_(), pa.string()]
    labelled = [each | {"label": bool(n % 2)} for n, each in enumerate(records)]
    schema = pa.schema([*zip(labelled[0], [*types, pa.bool_()], strict=True)])
    pq.write_table(pa.Table.from_pylist(labelled, schema), tmp_path / "a.parquet")
    lines = [
        {name: value for name, value in each.items() if value is not None} for each in labelled
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))

    expected = [sorted(each.items()) for each in rows_of(tmp_path / "a.jsonl")]
    assert expected == [sorted(each.items()) for each in rows_of(tmp_path / "a.parquet")]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ({"ts": pa.array([AT * 1000 + 999], pa.timestamp("us", "Europe/Oslo"))}, {"ts": AT}),
        ({"ts": pa.array([AT * 10**6 + 1], pa.timestamp("ns", "UTC"))}, {"ts": AT}),
        ({"ts": pa.array([AT // 1000], pa.timestamp("s", "UTC"))}, {"ts": AT}),
        ({"ts": pa.array([AT], pa.timestamp("ms"))}, ("no_time_zone", "$.ts")),
        ({"customer": [7]}, {"customer": "7"}),
        ({"customer": pa.array(["b"]).dictionary_encode()}, {"customer": "b"}),
        ({"count": [3.0]}, {"count": 3}),
        ({"gift": [1]}, {"gift": True}),
        ({"amount": [float("nan")]}, ("not_finite", "$.amount")),
        ({"amount": pa.array([12], pa.decimal128(5, 2))}, {"amount": 12.0}),
        ({"amount": [[1.0]]}, ("wrong_type", "$.amount")),
        ({"amount": [b"1"]}, ("wrong_type", "$.amount")),
        ({"unknown": [[1.0]]}, {}),
    ],
)
def test_a_value_is_read_by_its_declared_type(
    tmp_path: Path, column: dict[str, Any], expected: Any
) -> None:
    """The unit of a timestamp is the file's, and what no record can hold is refused."""
    [found] = rows_of(write(tmp_path / "a.parquet", **column))

    if isinstance(expected, tuple):
        assert expected == found
    else:
        assert {"event_id": "e0", "customer": "ada", "ts": AT} | expected == found


def test_a_pipe_and_another_name(tmp_path: Path) -> None:
    """It is known by how it begins, or by what one says; a pipe is copied first."""
    path = write(tmp_path / "table", label=[True, None, False])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    piped = rows_of(pipe, "parquet")
    writer.join()

    assert rows_of(path) == piped
    assert [True, False] == [each["label"] for each in piped if "label" in each]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Where it is cut or another's, wherever that is."""
    path = write(tmp_path / "a.parquet", amount=[float(n) for n in range(10_000)])
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    (tmp_path / "flipped.parquet").write_bytes(content)
    (tmp_path / "cut.parquet").write_bytes(content[:-100])
    (tmp_path / "text.parquet").write_text("event_id\n")

    for name in ("cut", "text"):
        file = tmp_path / f"{name}.parquet"
        with pytest.raises(StreamMLError, match=f"{name}.parquet: expected a sound Parquet file"):
            rows_of(file)
    # Without checksums of pages another value may come out, and no exception of another kind.
    with suppress(StreamMLError):
        rows_of(tmp_path / "flipped.parquet")
    check_files([str(path)])


def test_rows_are_counted_over_groups(tmp_path: Path) -> None:
    """A refused row is named by its number in the file."""
    amounts = [1.0] * 2_500 + [float("nan")]
    path = write(tmp_path / "a.parquet", amount=amounts)
    layout = RowLayout(shop, str(path))

    [number] = [row.number for row in read_rows(str(path), layout) if row.error]

    assert 2_501 == number
    assert datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp() * 1000 == AT


def test_a_large_text_is_refused_by_its_row_and_fills_no_memory(tmp_path: Path) -> None:
    """A file of some kilobytes whose rows have gigabytes of text is read in few megabytes."""
    texts = pa.DictionaryArray.from_arrays(
        [0] * 1_000 + [1] * 999 + [2], ["x" * 2**21, "a" * 2**20, "b"]
    )
    path = write(tmp_path / "a.parquet", customer=texts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    layout = RowLayout(shop, str(path))
    found = [(row.number, row.error and row.error.reason) for row in read_rows(str(path), layout)]

    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert [(n, "too_large") for n in range(1, 2_001) if n < 2_000] + [(2_000, None)] == found
    assert path.stat().st_size < 1_000_000
    assert grown_mb < 200


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("s"), pa.duration("us")])
def test_a_time_that_no_calendar_has_is_refused_by_its_row(tmp_path: Path, kind: Any) -> None:
    """The other rows are read."""
    ticks = {"date32[day]": 2**30, "date64[ms]": 86_400_000 * 2**30}.get(str(kind), 2**52)
    path = write(tmp_path / "a.parquet", ts=pa.array([ticks], kind), label=[True])

    assert [("wrong_type", "$.ts")] == rows_of(path)
