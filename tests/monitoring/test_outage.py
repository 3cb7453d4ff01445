"""Labels that stay away: what they do each week is no outage, and a backlog teaches none."""

from __future__ import annotations

import pytest

from stream_ml.monitoring.outage import LabelOutage

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
FIRST = 1_704_067_200_000  # a Monday


def label_hour(outage: LabelOutage, start: int, append_ms: int) -> None:
    """Six labels of an hour."""
    for n in range(6):
        outage.label(start + n * 10 * MINUTE, append_ms + n * 10 * MINUTE)


@pytest.mark.parametrize("block", [15 * MINUTE, HOUR, 6 * HOUR])
def test_a_weekly_rest_is_told_at_most_once(block: int) -> None:
    """Five weeks of labels on six days of seven; a stop of days is told all the same."""
    outage = LabelOutage(block, in_order=True)
    told: list[int] = []
    was_out = False
    for start in range(FIRST, FIRST + 5 * WEEK + 5 * DAY, block):
        at = start - FIRST
        rests = at % WEEK >= 6 * DAY or at >= 5 * WEEK + 2 * DAY
        for n in range(0 if rests else block // (10 * MINUTE) + 1):
            outage.label(start + n * 10 * MINUTE, start)
        is_out = outage.block(start + block, start + block)
        if is_out and not was_out:
            told.append(at)
        was_out = is_out
    assert [6] == [at // DAY for at in told if at < 5 * WEEK]
    (late,) = [at // DAY for at in told if at >= 5 * WEEK]
    assert 38 <= late <= 40


@pytest.mark.parametrize("batch", [1, 24, 72])
def test_a_backlog_that_is_read_in_large_batches_teaches_no_gap(batch: int) -> None:
    """Whether events or labels are read first, by hours or days, a real stop is told as soon."""
    outage = LabelOutage(HOUR, in_order=False)
    hours = 6 * 24
    for first in range(0, hours, batch):
        starts = [FIRST + hour * HOUR for hour in range(first, first + batch)]
        for start in starts:
            outage.block(start + HOUR, start + HOUR)
        for start in starts:
            label_hour(outage, start, start)
    assert outage.figures(0)["usual_ms_max"] <= HOUR
    stopped = [FIRST + hour * HOUR for hour in range(hours, hours + 8)]
    assert True in [outage.block(start + HOUR, start + HOUR) for start in stopped]
