"""Pieces in parts: whatever a stage writes is read back, in entries that a log can take."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stream_ml as sml
from stream_ml.records import Record
from stream_ml.stages.parts import Parts, read_piece
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.stages.task import Task
from tests.shop import KEY, START_MS, declare

if TYPE_CHECKING:
    from stream_ml.stages.task import StateEntry

names = st.sampled_from(["", "a", "wkey", 'w["k",1]'])
pieces = st.lists(
    st.tuples(names, st.one_of(st.none(), st.binary(max_size=40))),
    max_size=4,
    unique_by=lambda p: p[0],
)


def write(log: dict[str, bytes], entries: list[StateEntry]) -> None:
    """What a log does with entries."""
    for name, value in entries:
        if value is None:
            log.pop(name, None)
        else:
            log[name] = value


@given(st.lists(pieces, max_size=6), st.integers(1, 9), st.data())
def test_what_was_written_is_read_back(
    checkpoints: list[list[StateEntry]], limit: int, data: st.DataObject
) -> None:
    """In bounded entries, over many checkpoints and starts between them; nothing is left behind."""
    parts, log, expected = Parts(limit), {}, {}
    for changed in checkpoints:
        if data.draw(st.booleans()):
            parts = Parts(limit)
            parts.join(sorted(log.items()))
        entries = parts.split(changed)
        assert all(len(value or b"") <= limit + 8 for _, value in entries)
        write(log, entries)
        write(expected, changed)

        assert expected == dict(Parts(limit).join(log.items()))
        assert expected == {
            name: read_piece(name, log.get) for name in ("", "a", "wkey", 'w["k",1]') if name in log
        }
        # No part of what went or shrank lies there.
        again = Parts(limit)
        whole = again.join(sorted(log.items()))
        assert log == {
            name: value for name, value in Parts(limit).split(whole) if value is not None
        }


def test_a_missing_part_is_noticed() -> None:
    """A state that lacks a part is not taken up as if it were whole."""
    entries = [(name, value or b"") for name, value in Parts(2).split([("a", b"12345")])]

    with pytest.raises(AssertionError, match=r"lacks parts \[1\] of 3 of its piece 'a'"):
        Parts(2).join([entries[0], entries[2]])
    assert read_piece("a", dict([entries[0], entries[2]]).get) is None


def test_a_hot_key_lies_in_entries_that_a_log_can_take() -> None:
    """100,000 events of one key, in five windows: written, taken up again, and as it was."""
    busy = declare(
        events=sml.Events(key="shop", fields={"merchant": str}, lateness="10s"),
        predict=sml.when(),
        features=[sml.window(w).distinct("merchant") for w in ("10m", "1h", "6h", "1d", "7d")],
        window_events_max=90_000,
    )
    rand = random.Random(1)

    def event(offset: int, t: int) -> Record:
        value = b'{"event_id":"e%d","ts":%d,"shop":"a","merchant":"%030x"}' % (
            offset,
            START_MS + t,
            rand.getrandbits(120),
        )
        return Record("events", 0, offset, b"a", value, 2**42)

    records = [event(n, n // 10) for n in range(100_000)]
    task = Task("predict-0", Predict(busy, Serving(busy, KEY)))
    task.replay(records)
    entries = task.dirty()
    log: dict[str, bytes] = {}
    write(log, entries)
    other = Task("predict-0", Predict(busy, Serving(busy, KEY)), dict(task.positions))
    other.restore(sorted(log.items()))

    assert max(len(value or b"") for _, value in entries) <= 512 * 1024 + 16
    # What takes room is the events, once, and not once more for each window.
    assert sum(len(value or b"") for _, value in entries) < 90_000 * 40 + 100_000 * 30
    new = [event(100_000 + n, t) for n, t in enumerate([9_000, 10_000, 9_500, 10_001])]
    for each in (task, other):
        each.replay(new)
    assert sorted(task.dirty()) == sorted(other.dirty())
    assert {"window_events_dropped": 10_004} == {
        name: n for name, n in other.stage.counts.items() if name == "window_events_dropped"
    }
