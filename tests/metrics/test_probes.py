"""Whether `/readyz` and `/healthz` tell the truth about a worker on the embedded log."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import orjson
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.errors import LogError
from stream_ml.metrics import health
from stream_ml.metrics.endpoint import Endpoint
from stream_ml.metrics.health import (
    STALLED_S,
    Backlog,
    ProbeAnswer,
    WorkerProbes,
    WorkersProbes,
    stuck,
)
from stream_ml.metrics.reader import WAITING_MAX, LogReader
from stream_ml.metrics.setup import serving_metrics
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.metering.meter import Meter
from stream_ml.shell.metering.runner import MeasuredRunner
from stream_ml.stages.topology import TaskName
from tests.metrics.scraping import FREE, fetch, figures, scrape
from tests.shell.cli_toy import outputs, toy
from tools.kafka.broker import free_ports

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PREDICT = TaskName("predict", 0, None)


def test_a_worker_that_recovers_is_not_ready(tmp_path: Path) -> None:
    """Until all tasks have taken over, 503; then 200, and 503 once it ends."""
    path = tmp_path / "log.sqlite"
    meter = Meter()
    told: list[tuple[int, list[str]]] = []
    with SqliteLog.create(path) as log, ExitStack() as stack:
        log.append(outputs(300))
        with MeasuredRunner(Meter(), log, toy, b"key") as runner:
            runner.run()
        address = stack.enter_context(serving_metrics(FREE, meter, lambda: SqliteLog.open(path)))

        def ask(_: str = "") -> None:
            status, body = fetch(address, "/readyz")
            told.append((status, orjson.loads(body)["problems"]))

        ask()
        # Each step of taking over is an instant at which somebody may ask.
        runner = MeasuredRunner(meter, log, toy, b"key", step=ask)
        starting, *recovering = told
        told.clear()
        runner._step = lambda _: None
        ask()
        ready = scrape(address)
        recovered = fetch(address, "/healthz")
        runner.close()
        ask()

    assert (503, ["it starts: it is not known yet which tasks are its own"]) == starting
    tasks = ["evaluate-0", "join-0", "learn-0", "predict-0"]
    assert recovering
    assert [(503, [f"{task} is recovering" for task in tasks])] * len(recovering) == recovering
    assert [(200, []), starting] == told
    assert 200 == recovered[0]
    assert {(task.rsplit("-")[0], "running"): 1.0 for task in tasks} == {
        labels: figure
        for labels, figure in figures(ready, "stream_ml_task_state", "stage", "state").items()
        if figure
    }
    assert {1.0} == set(figures(ready, "stream_ml_recoveries_total", "stage").values())


def test_a_worker_that_stands_still_while_records_wait_is_not_healthy(tmp_path: Path) -> None:
    """What waits for longer than it has done nothing; once it works again, it is well."""
    path = tmp_path / "log.sqlite"
    ahead_s = [0.0]
    meter = Meter(clock=lambda: time.monotonic() + ahead_s[0])
    reader = LogReader(lambda: SqliteLog.open(path))
    probes = WorkerProbes(meter, reader, lambda: time.time() + ahead_s[0])
    with SqliteLog.create(path) as log, MeasuredRunner(meter, log, toy, b"key") as runner:
        log.append(outputs(100))
        fresh = probes.healthy()
        ahead_s[0] += STALLED_S + 1
        stalled = probes.healthy()
        runner.run()
        working = probes.healthy()
        ahead_s[0] += 100 * STALLED_S
        idle = probes.healthy()
    reader.close()

    assert [ProbeAnswer(), ProbeAnswer(), ProbeAnswer()] == [fresh, working, idle]
    assert [
        "predict-0: records of events wait for 181 s, and none was worked on for 181 s",
        "join-0: records of labels wait for 181 s, and none was worked on for 181 s",
    ] == list(stalled.problems)


def test_what_nobody_waits_for_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that stands still gathers no probes: those that gave up are skipped, others refused."""
    monkeypatch.setattr(health, "ANSWER_S", 0.001)
    SqliteLog.create(tmp_path / "log.sqlite").close()
    release = threading.Event()
    read: list[str] = []

    def count(_: object) -> list[Backlog]:
        read.append("probe")
        return []

    reader = LogReader(lambda: SqliteLog.open(tmp_path / "log.sqlite"))
    held = reader.ask(lambda _: release.wait())
    probes = WorkerProbes(Meter(), reader, time.time)
    probes._backlogs = count
    told = {problem for _ in range(3 * WAITING_MAX) for problem in probes.healthy().problems}
    release.set()
    after = reader.ask(lambda _: list(read)) if held.result() else None
    while after is not None and isinstance(after.exception(), LogError):
        after = reader.ask(lambda _: list(read))
    reader.close()

    assert {
        "the log has not answered for 0.001 s",
        "the log cannot be read: it does not answer: 16 others have asked before; try later",
    } == told
    assert after is not None
    assert [] == after.result()


@given(waited_s=st.floats(0, 1_000), idle_s=st.floats(0, 1_000))
def test_stuck_is_who_has_done_nothing_for_long_while_something_waits_for_long(
    waited_s: float, idle_s: float
) -> None:
    """Neither a fresh record after a quiet hour, nor a backlog that is worked off, is a problem."""
    verdict = stuck([Backlog(PREDICT, "events", 1_000 - waited_s)], lambda _: idle_s, 1_000)

    is_long = 1_000 - (1_000 - waited_s) > STALLED_S
    assert (is_long and idle_s > STALLED_S) == bool(verdict.problems)
    assert not stuck([], lambda _: idle_s, 1_000).problems


def test_who_looks_after_workers_is_as_they_are() -> None:
    """Each worker with a problem is named, also one that does not answer."""
    gone = FREE.with_port(free_ports(1)[0])
    recovering = ProbeAnswer(("predict-0 is recovering",))
    with ExitStack() as stack:
        well, ill = (
            stack.enter_context(
                Endpoint(FREE, write_metrics=lambda _: (b"", ""), healthy=ProbeAnswer, ready=ready)
            )
            for ready in (ProbeAnswer, lambda: recovering)
        )
        workers = WorkersProbes({"join-1": well.address, "predict-1": ill.address})
        probes = workers.ready(), workers.healthy()
        lost = WorkersProbes({"learn-1": gone, "join-1": well.address}).healthy()

    assert (ProbeAnswer(("predict-1: predict-0 is recovering",)), ProbeAnswer()) == probes
    assert [f"learn-1: it does not answer on {gone}: "] == [
        problem[: len(f"learn-1: it does not answer on {gone}: ")] for problem in lost.problems
    ]
