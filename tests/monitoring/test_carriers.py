"""A value is missing only where events of its kind have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.monitoring.arrivals import Arrivals, Block
from stream_ml.monitoring.blocks import Layout, OpenBlocks
from stream_ml.monitoring.carriers import Carriers

if TYPE_CHECKING:
    from stream_ml.records import Summary

HOUR = 3_600_000
FIRST = 1_704_067_200_000
LAYOUT = Layout(HOUR, {"kind": False, "delay": True, "gate": False}, (), "kind")
Row = dict[str, Any]
ASKED: Row = {"kind": "asked", "delay": None, "gate": "a"}
LEFT: Row = {"kind": "left", "delay": 5.0, "gate": None}
NULL: Row = {"kind": "left", "delay": None, "gate": None}


def summary(partition: int, hour: int, rows: list[Row]) -> Summary:
    """What a partition tells of an hour, in the middle of which its state was taken up."""
    ts, middle = FIRST + hour * HOUR, len(rows) // 2
    blocks, again = OpenBlocks(LAYOUT, 0), OpenBlocks(LAYOUT, 0)
    for row in rows[:middle]:
        blocks.add(ts, row, None, ts)
    again.restore(blocks.dump(), [(n, value) for n, value in blocks.dirty() if value is not None])
    for row in rows[middle:]:
        again.add(ts, row, None, ts)
    (made,) = again.close(2**60, partition)
    return made


def missing(carriers: Carriers, hour: int, rows: list[Row]) -> tuple[float, float]:
    """How many delays and gates are missing in an hour, which two partitions tell of."""
    arrivals, found = Arrivals(HOUR, in_order=True), list[Block]()
    for number in (hour - 1, hour):
        for partition in (0, 1):
            told = summary(partition, number, rows[partition::2])
            found = arrivals.add(told, told.end)
            state = orjson.loads(orjson.dumps(arrivals.dump()))
            arrivals = Arrivals(HOUR, in_order=True)
            arrivals.load(state)
    (block,) = found
    carriers.take(block)
    return block.columns["field:delay"].missing, block.columns["field:gate"].missing


def test_what_a_kind_of_events_never_has_is_not_missing_in_it() -> None:
    """However many of each kind come; but where the kind has it else, it is, and be it in all."""
    carriers = Carriers("kind")
    assert (0, 0) == missing(carriers, 1, [ASKED] * 40 + [LEFT] * 40)
    again = Carriers("kind")
    again.load(orjson.loads(orjson.dumps(carriers.dump())))
    assert (0, 0) == missing(again, 2, [ASKED] * 70 + [LEFT] * 10)
    assert (12, 0) == missing(again, 3, [ASKED] * 40 + [LEFT] * 28 + [NULL] * 12)
    assert (40, 0) == missing(again, 4, [ASKED] * 40 + [NULL] * 40)


def test_an_event_without_a_kind_counts_alone_as_one_that_misses_what_it_has_not() -> None:
    """What is known of the others holds, in a block with it and after."""
    carriers = Carriers("kind")
    bare: Row = {"kind": None, "delay": 5.0, "gate": None}
    assert (0, 0) == missing(carriers, 1, [ASKED] * 40 + [LEFT] * 40)
    assert (0, 1) == missing(carriers, 2, [ASKED] * 70 + [LEFT] * 9 + [bare])
    assert (12, 2) == missing(carriers, 3, [ASKED] * 40 + [LEFT] * 28 + [NULL] * 12 + [bare] * 2)


def test_without_kinds_all_that_is_not_there_is_missing() -> None:
    """Of a pipeline that asks about all its events, or does not say by an Enum about which."""
    assert (52, 40) == missing(Carriers(None), 1, [ASKED] * 40 + [LEFT] * 28 + [NULL] * 12)
