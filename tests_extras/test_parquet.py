"""Exports as Parquet; run by `make test`, with the extras."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_ml.examples.cards import cards, transactions
from stream_ml.examples.payments import payments
from stream_ml.shell.export import parquet
from stream_ml.shell.export.run import export
from stream_ml.shell.export.tables import SUBJECTS, table_of
from stream_ml.testing import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    """A log on which the cards have run."""
    with Driver(cards) as driver:
        driver.feed(*transactions(3_000, seed=1))
        yield driver


@pytest.mark.parametrize("subject", SUBJECTS)
def test_parquet_has_the_rows_of_json_lines(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subject: str
) -> None:
    """The same values in the same order, however the rows lie in groups."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 700)
    for ending in ("parquet", "jsonl"):
        export(driver.log, cards, None, subject, tmp_path / f"a.{ending}")

    table = pq.read_table(tmp_path / "a.parquet")
    lines = [orjson.loads(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    columns = table_of(subject, cards, None).columns
    for column in columns:
        values = table[column.name].to_pylist()
        if column.type == "json":
            values = [None if value is None else orjson.loads(value) for value in values]
        elif column.type == "time":
            epoch = datetime(1970, 1, 1, tzinfo=UTC)
            values = [v and round((v - epoch).total_seconds() * 1_000) for v in values]
        assert [line[column.name] for line in lines] == values, column.name
    assert len(lines) > 0
    assert [column.name for column in columns] == table.column_names


def test_columns_are_of_the_types_that_are_declared(driver: Driver, tmp_path: Path) -> None:
    """Numbers are doubles, times are in UTC, truth is true or false."""
    export(driver.log, cards, None, "examples", tmp_path / "a.parquet")

    schema = pq.read_schema(tmp_path / "a.parquet")
    types = {field.name: field.type for field in schema}
    expected: dict[str, Any] = {
        "ts": pa.timestamp("ms", tz="UTC"),
        "label": pa.bool_(),
        "prediction": pa.float64(),
        "feature.amount": pa.float64(),
        "key": pa.string(),
        "log_offset": pa.int64(),
    }
    assert expected == {name: types[name] for name in expected}


def test_an_empty_topic_is_a_file_of_no_rows(tmp_path: Path) -> None:
    """Its columns are there all the same."""
    with Driver(payments) as quiet:
        export(quiet.log, payments, None, "examples", tmp_path / "a.parquet")

    table = pq.read_table(tmp_path / "a.parquet")
    assert 0 == table.num_rows
    assert "label" in table.column_names
