"""Workers that are at work and do not keep up, as a log tells of them in one look."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cli_toy import outputs, toy

from stream_ml.cli.main import main
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.views.stage_backlogs import StageBacklog, backlogs_text, read_backlogs
from stream_ml.shell.views.stalled import ABSENT_MS, StalledTask
from stream_ml.shell.views.status import read_status

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.records import Output

KEY = bytes(32)
START_MS = time.time_ns() // 1_000_000 - 40_000
DONE, COUNT = 100, 300


class Clock:
    """The log's time, which passes when told to."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        """What it shows."""
        return self.now_ms


def events() -> list[Output]:
    """Events without labels."""
    return [each for each in outputs(DONE + COUNT) if each.topic == "events"]


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    """One on which 100 events were predicted, while 300 more came in 40 s."""
    clock, ours = Clock(), events()
    log = SqliteLog.create(tmp_path / "log.sqlite", now_ms=clock)
    with Runner(log, toy, KEY) as runner:
        log.append(ours[:DONE])
        runner.run()
    for number, each in enumerate(ours[DONE:]):
        clock.now_ms = START_MS + 40_000 * number // COUNT
        log.append([each])
    return log


def test_what_was_done_before_a_quiet_day_is_no_rate_of_today(tmp_path: Path) -> None:
    """What was predicted since the first of those that wait came is counted, from then on."""
    clock, ours = Clock(), events()
    clock.now_ms = START_MS - 86_400_000
    with SqliteLog.create(tmp_path / "log.sqlite", now_ms=clock) as log:
        with Runner(log, toy, KEY) as runner:
            log.append(ours[:50])
            runner.run()
            clock.now_ms = START_MS
            log.append(ours[50:])
            runner.run()
        [predict] = [each for each in read_status(log, KEY).stages if each.topic == "events"]
        behind = replace(predict, position=300, lag=100, waiting_since_ms=START_MS)
        [found] = read_backlogs(log, [behind], (), START_MS + 20_000)

    assert (5.0, (300 - 50 - 1) / 20) == (found.arrival_rate, found.rate)


def backlogs_of(
    log: SqliteLog, after_s: float, stalled: tuple[StalledTask, ...] = ()
) -> list[StageBacklog]:
    """What is found so long after the first record was taken in."""
    now_ms = START_MS + round(after_s * 1_000)
    return list(read_backlogs(log, read_status(log, KEY).stages, stalled, now_ms))


def test_a_worker_that_falls_behind_is_told_of_with_its_rates(log: SqliteLog) -> None:
    """How many wait, for how long the first has, how many came a second and how many are done."""
    [backlog] = backlogs_of(log, 40)

    assert ("predict", COUNT, START_MS) == (backlog.stage, backlog.lag, backlog.since_ms)
    # The first of those that were done is where the measuring begins.
    assert (7.5, 2.475) == (backlog.arrival_rate, backlog.rate)
    grown = StageBacklog("predict", 128_014, START_MS, 850.4, 400.2)
    words = (
        "predict falls behind: 128,014 records wait, the first for 5 min 22 s; 850 came a second"
    )
    assert f"{words}, 400 are done" == backlogs_text([grown], START_MS + 322_000)
    caught = StageBacklog("predict", 1, START_MS, 2.0, 9.0)
    assert (
        "predict catches up: 1 record waits, the first for 20 s; 2.0 came a second, 9.0 are done"
        == (backlogs_text([caught], START_MS + 20_000))
    )
    unmeasured = StageBacklog("learn", 7, START_MS, 2.0, None)
    assert "learn is behind: 7 records wait, the first for 20 s" == (
        backlogs_text([unmeasured], START_MS + 20_000)
    )
    assert [True, False, None] == [each.is_growing for each in (grown, caught, unmeasured)]


def test_what_waits_for_an_instant_is_no_backlog(log: SqliteLog) -> None:
    """Nor is what stands still, which is told of as that; a worker that writes seldom has time."""
    stages = read_status(log, KEY).stages
    stalled = (StalledTask("predict-0", "events", 0, COUNT, START_MS, has_worker=False),)

    assert [] == backlogs_of(log, ABSENT_MS / 1_000)
    assert ["predict"] == [each.stage for each in backlogs_of(log, ABSENT_MS / 1_000 + 0.001)]
    assert [] == backlogs_of(log, 40, stalled)
    waiting = [
        each.__class__("learn-0", "examples", 0, 0, 5, 5, START_MS)
        for each in stages
        if each.task == "learn-0" and each.topic == "examples"
    ]
    now_ms = START_MS + 60_000
    assert ["learn"] == [each.stage for each in read_backlogs(log, waiting, (), now_ms)]
    assert () == read_backlogs(log, waiting, (), now_ms, checkpoint_s=60.0)


def test_status_says_that_a_worker_falls_behind(
    log: SqliteLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the line of the workers, and as JSON; where it has a worker."""
    common = ["--broker", f"sqlite:{tmp_path / 'log.sqlite'}", "status"]
    with log.session():  # one that has its place, and does nothing for now
        main(common)
        text = capsys.readouterr().out
        main([*common, "--format", "json"])
        members = json.loads(capsys.readouterr().out)

    assert {"predict"} == {each["stage"] for each in members["backlogs"]}
    assert "predict falls behind: 300 records wait, the first for " in text
