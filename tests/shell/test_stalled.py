"""Workers that are gone or stuck, as a log tells of them by itself."""

from __future__ import annotations

import fcntl
import json
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from cli_toy import outputs, toy

from stream_ml.cli.main import main
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log import lease
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.views.stalled import ABSENT_MS, SILENT_MS, read_stalled
from stream_ml.shell.views.status import read_status
from stream_ml.stages.topology import STAGES

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(32)
COUNT = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log on which a worker has done all there was, before more was published."""
    path = tmp_path / "log.sqlite"
    first_ms = time.time_ns() // 1_000_000 - 60_000
    with SqliteLog.create(path, now_ms=lambda: first_ms) as log:
        with Runner(log, toy, KEY) as runner:
            runner.run()
        log.append(outputs(COUNT))
    return path


def test_records_that_nobody_works_on_are_told_at_the_next_look(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status` names the stages for which records wait without a worker, and since when."""
    common = ["--broker", f"sqlite:{path}", "status"]

    main([*common, "--format", "json"])
    members = json.loads(capsys.readouterr().out)
    main(common)
    text = capsys.readouterr().out

    assert [] == members["at_work"]
    assert [("predict-0", "events", COUNT, False), ("join-0", "labels", COUNT - 10, False)] == [
        (each["task"], each["topic"], each["lag"], each["has_worker"])
        for each in members["stalled"]
    ]
    assert "no worker answers: 20 records wait for predict, for 1 min" in text


def test_a_worker_at_work_is_stuck_only_when_it_is_silent_for_long(path: Path) -> None:
    """Who holds the worker's place is given minutes; who does not, no more than a start takes."""
    with SqliteLog.open(path) as log, SqliteLog.open(path) as own:
        stages = read_status(log, KEY).stages
        since_ms = next(each.waiting_since_ms for each in stages if each.lag)
        assert since_ms is not None

        def has_workers(
            at_work: frozenset[str] | None, after_ms: int, *, checkpoint_s: float = 0.0
        ) -> list[bool]:
            # A worker answers for what came since it took its place.
            first_ms = since_ms if at_work == frozenset() else log.worker_since_ms("predict")
            assert first_ms is not None
            now_ms = first_ms + after_ms
            stalled = read_stalled(log, stages, at_work, now_ms, checkpoint_s=checkpoint_s)
            return [each.has_worker for each in stalled]

        before = log.stages_at_work()
        with own.session():  # one that has its place, and does nothing
            os.utime(f"{path}.worker", ns=(0, (since_ms + 600_000) * 1_000_000))
            during = log.stages_at_work()
        after = log.stages_at_work()

        assert (frozenset(), frozenset(STAGES), frozenset()) == (before, during, after)
        assert [] == has_workers(before, ABSENT_MS)
        assert [False, False] == has_workers(before, ABSENT_MS + 1)
        assert [] == has_workers(during, SILENT_MS)
        assert [True, True] == has_workers(during, SILENT_MS + 1)
        # One that writes seldom is silent for as long, where little comes.
        assert [] == has_workers(during, SILENT_MS + 1, checkpoint_s=600.0)
        assert [True, True] == has_workers(during, 1_200_001, checkpoint_s=600.0)
        assert [] == has_workers(None, SILENT_MS)


def test_what_was_worked_on_since_is_not_held_against_anybody(path: Path) -> None:
    """An older status accuses nobody of what is done by now."""
    with SqliteLog.open(path) as log:
        stages = read_status(log, KEY).stages
        with Runner(log, toy, KEY) as runner:
            runner.run()

        stalled = read_stalled(log, stages, frozenset(), time.time_ns() // 1_000_000)

    assert () == stalled


def test_a_look_at_the_worker_s_place_keeps_no_worker_from_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts while somebody looks waits that instant, and has the place then."""
    handle = os.open(f"{path}.worker", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    # Of this module alone: threads of others sleep as well.
    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=lambda _: os.close(handle)))

    with SqliteLog.open(path) as log, Runner(log, toy, KEY):
        at_work = log.stages_at_work()

    assert frozenset(STAGES) == at_work
