"""Blocks are complete over all partitions, whoever is read first; and what is refused is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.monitoring.arrivals import Arrivals
from stream_ml.monitoring.blocks import Layout, OpenBlocks
from stream_ml.monitoring.contrast import Contrast
from stream_ml.monitoring.diagnosis import causes
from stream_ml.monitoring.refused import RefusedShares
from stream_ml.monitoring.sources import SourceLosses

if TYPE_CHECKING:
    from stream_ml.records import Summary

HOUR = 3_600_000
BLOCKS = 6


def summary(partition: int, hour: int, events: int) -> Summary:
    """What a partition tells of an hour: numbers that only it has."""
    blocks = OpenBlocks(Layout(HOUR, {"x": True}, ()), 0)
    for n in range(events):
        blocks.add(hour * HOUR, {"x": float(1 + 10 * partition + n)}, None, hour * HOUR)
    (made,) = blocks.close(2**60, partition)
    return made


@settings(deadline=None, max_examples=40)
@given(st.permutations([partition for partition in range(3) for _ in range(BLOCKS)]))
def test_the_order_in_which_partitions_are_read_changes_no_block(order: list[int]) -> None:
    """Each block has every partition's events, and blocks come in the order of time."""
    arrivals, hours, blocks = Arrivals(HOUR, in_order=False), [0, 0, 0], []
    # Of each a first block, so that all are known.
    for partition in range(3):
        blocks += arrivals.add(summary(partition, 0, 1 + partition), 5)
    first = sum(block.events for block in blocks)
    for partition in order:
        hours[partition] += 1
        blocks += arrivals.add(summary(partition, hours[partition], 1 + partition), 5)

    later = [block for block in blocks if block.start >= HOUR]
    assert [hour * HOUR for hour in range(1, BLOCKS + 1)] == [block.start for block in later]
    assert [6] * BLOCKS == [block.events for block in later]
    assert [6.0] * BLOCKS == [block.columns["field:x"].n for block in later]
    # What was told of the first hour after it was complete without them is counted, no more.
    assert 6 == first + arrivals.late_count


def test_a_night_without_any_events_makes_no_partition_silent_in_the_morning() -> None:
    """Whoever speaks first is no proof that the others do not; one that then stays away is told."""
    arrivals, silent, late = Arrivals(HOUR, in_order=False), [], 0
    for hour in [hour for hour in range(100) if hour % 24 >= 8]:
        for partition in range(3):
            if hour < 90 or partition < 2:
                arrivals.add(summary(partition, hour, 90), (hour + 1) * HOUR)
                found = arrivals.silences((hour + 1) * HOUR)
                silent += [(hour, each.partition) for each in found]
                late = arrivals.late_count if hour < 90 else late
    # Of the very first hour, before it was known that there are others, two thirds.
    assert 2 * 90 == late
    assert {2} == {partition for _, partition in silent}
    assert 91 <= silent[0][0] <= 92


@settings(deadline=None, max_examples=25)
@given(
    stop=st.integers(0, 59),
    hourly=st.integers(5, 200),
    wait=st.sampled_from([0, HOUR // 60, HOUR]),
)
def test_the_silence_of_a_partition_is_not_overstated(stop: int, hourly: int, wait: int) -> None:
    """It is said to have lasted no longer, and to have cost no more events, than it has."""
    arrivals = Arrivals(HOUR, in_order=False, wait_ms=wait)
    open_blocks = [OpenBlocks(Layout(HOUR, {"x": True}, ()), wait) for _ in range(3)]
    stops_ms, found, ts = 30 * HOUR + stop * HOUR // 60, [], 0
    for number in range(60 * hourly):
        ts = number * HOUR // hourly
        for partition, blocks in enumerate(open_blocks):
            if partition < 2 or ts < stops_ms:
                blocks.add(ts, {"x": 1.0}, None, ts)
                for told in blocks.close(ts, partition):
                    arrivals.add(told, told.end)
                    found = found or arrivals.silences(told.end)
        if found:
            break
    (silence,) = found
    assert 2 == silence.partition
    assert silence.since <= stops_ms
    assert 30 <= silence.missed <= (ts - stops_ms) / HOUR * hourly + 1
    # It is told once it has lasted so long that 30 are missing, and two blocks that began since.
    assert ts - stops_ms <= (30 / hourly + 4) * HOUR


def test_a_flood_of_what_is_late_is_a_matter_of_the_pipeline() -> None:
    """Refusals far beyond what is usual are kept, and named by what they are."""
    refused = RefusedShares()
    for hour in range(50):
        refused.take(hour * HOUR, 60, {"too_late $.ts": 1, "null $.age": 0 if hour < 48 else 20})
    monitors = {
        "events": {"episodes": {}},
        "labels": {"episodes": {}},
        "refused": refused.dump(),
        "sources": [{}, {}, {}],
        "outage": [None],
        "contrast": Contrast().report(),
    }
    assert [("nulls", "age", 48 * HOUR)] == [
        (c.kind, c.subject, c.since) for c in causes(monitors, [])
    ]
    refused.take(50 * HOUR, 60, {"too_late $.ts": 40, "duplicate $.event_id": 30})
    found = causes({**monitors, "refused": refused.dump()}, [])
    assert ["nulls", "flood"] == [cause.kind for cause in found]
    assert {"pipeline"} == {cause.origin for cause in found}
    for hour in range(51, 54):
        refused.take(hour * HOUR, 60, {"too_late $.ts": 1})
    assert {} == refused.episodes


def test_names_that_never_come_twice_fill_no_state() -> None:
    """Of sources and refused paths as many as one likes, and as long: state stays small."""
    refused, sources = RefusedShares(), SourceLosses()
    for hour in range(200):
        refused.take(hour * HOUR, 60, {f"not_json $.{hour}{n}{'x' * 4_000}": 1 for n in range(9)})
        for n in range(60):
            sources.add(f"bank{n % 2}" if n < 50 else f"{hour}-{n}{'x' * 4_000}", n % 2)
        sources.close(hour * HOUR)
    assert len(orjson.dumps([refused.dump(), sources.dump()])) < 60_000
    # What comes at each hour is known from the first one on.
    for _ in range(5):
        for n in range(60):
            sources.add(f"bank{n % 2}", 1.0)
        found, _ended = sources.close(0)
        if found:
            break
    assert ["bank0"] == [each.source for each in found]


def test_a_concept_that_turns_loses_its_contrast_and_a_share_that_grows_does_not() -> None:
    """Answers for what turns out true are no higher any more; where only more is true they are."""
    turned, grown = Contrast(), Contrast()
    for n in range(3_000):
        is_changed = n >= 2_000
        label = n % 3 == 0
        answer = 0.8 if label else 0.2
        turned.add(answer, label=label != is_changed, is_changed=is_changed)
        grown.add(
            answer if n % 2 else 0.5,
            label=label or (is_changed and n % 2 == 0),
            is_changed=is_changed,
        )
    reports = [each.report() for each in (turned, grown)]
    lost = [(r["lowest"] or 0.0) < 0.5 * (r["usual"] or 0.0) for r in reports]
    assert [True, False] == lost
