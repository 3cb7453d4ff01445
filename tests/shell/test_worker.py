"""A worker that goes on: it works on what comes, tidies up, checkpoints, and stops when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli_toy import outputs, toy

from stream_ml.records import Output
from stream_ml.shell.embedded import follow as worker
from stream_ml.shell.embedded.follow import work_on
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes.stop import Stop
from tests.straight import append_straight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from stream_ml.records import Decision


class _Waits(Stop):
    """Does something each time one would wait, and asks to stop when nothing is left to do."""

    def __init__(self, doings: Iterator[Callable[[], object]]) -> None:
        super().__init__()
        self._doings = doings
        self.waited: list[float] = []

    def wait(self, seconds: float | None, handle: int | None = None) -> bool:
        assert seconds is not None
        assert handle is None
        self.waited.append(seconds)
        next(self._doings, self.ask)()
        return False


def _nothing() -> None:
    pass


def test_it_works_on_what_comes() -> None:
    """What is published while it waits is worked on, and each decision is told in order."""
    told: list[Decision] = []
    with SqliteLog.create(MEMORY) as log, Runner(log, toy, b"key") as runner:
        published = outputs(1_100)
        halves = [lambda: log.append(published[:1_100]), lambda: log.append(published[1_100:])]
        with _Waits(iter([_nothing, *halves])) as stop:
            done = work_on(runner, log, stop, commit_s=60.0, on_decision=told.append)

    assert done == len(published)
    assert [each.serving.champion.model for each in told] == ["plain@500", "plain@1000"]


def test_it_tells_of_no_decision_of_others() -> None:
    """What somebody without the key puts on the registry ends nobody, and is told to nobody."""
    told: list[Decision] = []
    with SqliteLog.create(MEMORY) as log, Runner(log, toy, b"key") as runner:
        ours = log.read("registry", 0, 0, 1)[0].value
        assert ours is not None
        forged = ours.replace(b"plain@0", b"evil0@0")
        assert forged != ours
        foreign = [Output("registry", b"toy", value) for value in (b"{}", b"\xff", None, forged)]
        doings = [lambda: append_straight(log, foreign), lambda: log.append(outputs(100))]
        with _Waits(iter(doings)) as stop:
            work_on(runner, log, stop, commit_s=60.0, on_decision=told.append)

    assert not told


def test_it_looks_less_and_less_often() -> None:
    """An idle worker waits longer each time, up to 50 ms; after work it looks again at once."""
    with SqliteLog.create(MEMORY) as log, Runner(log, toy, b"key") as runner:
        doings = [*[_nothing] * 5, lambda: log.append(outputs(1)), _nothing]
        with _Waits(iter(doings)) as stop:
            work_on(runner, log, stop, commit_s=60.0, on_decision=lambda _: None)

    assert stop.waited == [0.005, 0.01, 0.02, 0.04, 0.05, 0.05, 0.005, 0.01]


def test_it_writes_down_and_tidies_up_while_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and retention fall due by the clock, also while nothing comes."""
    now = [0.0]
    done: list[str] = []

    def tick() -> None:
        now[0] += 10.0

    with SqliteLog.create(MEMORY) as log, Runner(log, toy, b"key") as runner:
        left = iter([7, 3])  # records that retention finds, until it finds none

        def expire(now_ms: int, *, tasks: list[str]) -> int:
            assert now_ms > 10**12
            assert ["refund"] == tasks  # for which events are kept
            done.append("expire")
            return next(left, 0)

        monkeypatch.setattr(log, "expire", expire)
        monkeypatch.setattr(runner, "commit", lambda **_: done.append("commit"))
        with _Waits(iter([tick] * 7)) as stop:
            work_on(
                runner,
                log,
                stop,
                commit_s=25.0,
                on_decision=lambda _: None,
                tasks=["refund"],
                clock=lambda: now[0],
            )

    assert worker.EXPIRE_S == 60.0
    assert done.count("expire") == 3
    assert done.count("commit") >= 2


def test_asked_before_it_began() -> None:
    """A worker that is asked to stop while it starts does no work."""
    with SqliteLog.create(MEMORY) as log, Runner(log, toy, b"key") as runner, Stop() as stop:
        log.append(outputs(10))
        stop.ask()

        assert work_on(runner, log, stop, commit_s=60.0, on_decision=lambda _: None) == 0
