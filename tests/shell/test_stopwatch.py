"""A worker's stopwatch: what does not return is interrupted; a death leaves whose turn it was."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import outputs, toy

from stream_ml.records import ID_LENGTH_MAX
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.stopwatch import NotReturned, ProcessStopwatch
from stream_ml.shell.views.costs import learn_tasks, read_costs
from stream_ml.shell.views.registry import read_registry
from stream_ml.stages.effort import DEATHS_MAX, TRIAL

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

KEY = b"own." * 8
# How a process exits that dies in the midst of learning.
DIED = 9


def _work(path: Path, stopwatch: ProcessStopwatch) -> dict[str, str]:
    """Work on all that lies in the log; who is quarantined then, and why."""
    with SqliteLog.open(path) as log, Runner(log, toy, KEY, stopwatch=stopwatch) as runner:
        runner.run()
        return runner.learn.quarantine_reasons


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log on which nobody has worked yet."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path) as log:
        log.append(outputs(600))
    return path


def _hang(*_: Any) -> None:
    while True:
        pass


def test_what_does_not_return_is_interrupted_and_the_loop_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion's own learner, in an endless loop: quarantined, while others are renewed."""
    monkeypatch.setattr("stream_ml.stages.teaching.fast_learner", _hanging_for(toy.models["plain"]))
    stopwatch = ProcessStopwatch(hang_s=0.3, tick_s=0.05, clock=time.process_time)
    reasons = _work(path, stopwatch)
    with SqliteLog.open(path) as log:
        newest = read_registry(log, KEY, None).newest
        predictions = log.end_offset("predictions", 0)

    assert ["plain"] == list(reasons)
    assert "NotReturned" in reasons["plain"]
    assert "the line 'plain' has not returned for" in reasons["plain"]
    assert newest is not None
    # The champion's old snapshot goes on serving, and the challenger is renewed beside it.
    assert ("plain@0", "scaled@500") == (
        newest.serving.champion.model,
        newest.serving.challengers["scaled"].model,
    )
    assert 600 == predictions


def _hanging_for(estimator: Any) -> Any:
    """A `fast_learner` whose learners of this estimator's type hang at the first example."""
    from stream_ml.models.fast import fast_learner  # noqa: PLC0415 - the one that is replaced

    def make(learner: Any, target: Any) -> Any:
        return _hang if type(learner) is type(estimator) else fast_learner(learner, target)

    return make


def test_a_sleeper_is_woken() -> None:
    """Waiting for ever is no better than working for ever."""
    stopwatch = ProcessStopwatch(hang_s=0.05, tick_s=0.01)
    started_s = time.perf_counter()

    def wait() -> None:
        with stopwatch.watch():
            stopwatch.attend("forest")
            select.select([], [], [], 60)

    with pytest.raises(NotReturned, match="'forest' has not returned"):
        wait()
    assert time.perf_counter() - started_s < 30


def test_who_gets_on_is_not_interrupted() -> None:
    """However long it takes in all: each call may take its time."""
    stopwatch = ProcessStopwatch(hang_s=0.2, tick_s=0.01, clock=time.process_time)
    with stopwatch.watch():
        stopwatch.attend("forest")
        end_s = time.process_time() + 0.5
        while stopwatch.seconds() < end_s:
            pass


def test_a_death_names_who_was_at_work(tmp_path: Path) -> None:
    """Counted as long as the same line dies from the same example on; a clean end is none."""
    file = tmp_path / "turn"

    def die(line: str) -> None:
        stopwatch = ProcessStopwatch(file)
        with suppress(SystemExit), stopwatch.watch():
            stopwatch.attend(line)
            raise SystemExit

    assert ProcessStopwatch(file).begin(0) is None
    counts = []
    for line, n in (("a", 0), ("a", 0), ("a", 512), ("b", 512), ("b", 512), ("b", 512)):
        die(line)
        suspect = ProcessStopwatch(file).begin(n)
        assert suspect is not None
        counts.append((suspect.line, suspect.deaths))
    with ProcessStopwatch(file).watch():
        pass

    assert [("a", 1), ("a", 2), ("a", 1), ("b", 1), ("b", 2), ("b", 3)] == counts
    assert ProcessStopwatch(file).begin(512) is None


def test_deaths_over_a_command_count_whatever_is_learned_meanwhile(tmp_path: Path) -> None:
    """It is tried wherever the log comes to it, and not from one example on as a lesson is."""
    found = []
    for n in (5, 7, 9):
        stopwatch = ProcessStopwatch(tmp_path / "turn")
        found.append(stopwatch.begin(n))
        with suppress(KeyboardInterrupt), stopwatch.watch():
            stopwatch.attend(f"{TRIAL}steps c1")
            raise KeyboardInterrupt

    assert [None, 1, 2] == [each and each.deaths for each in found]


@pytest.mark.parametrize("letter", ["c", "\0", "字", "😀"])
def test_a_command_is_told_whole_however_long_its_id(tmp_path: Path, letter: str) -> None:
    """In any script: one that is cut short would be tried, and kill, for ever."""
    trial = f"{TRIAL}{letter * ID_LENGTH_MAX} {letter * ID_LENGTH_MAX}"
    found = []
    for line in (trial, trial, "", "short"):
        stopwatch = ProcessStopwatch(tmp_path / "turn")
        found.append(stopwatch.begin(0))
        with suppress(KeyboardInterrupt), stopwatch.watch():
            stopwatch.attend(line)
            raise KeyboardInterrupt
    found.append(ProcessStopwatch(tmp_path / "turn").begin(0))

    assert [None, (trial, 1), (trial, 2), None, ("short", 1)] == found


def test_where_there_is_no_place_for_the_file_nobody_is_suspected(tmp_path: Path) -> None:
    """It works without."""
    stopwatch = ProcessStopwatch(tmp_path / "no" / "folder")
    with stopwatch.watch():
        stopwatch.attend("a")

    assert stopwatch.begin(0) is None


def test_a_line_that_kills_the_worker_again_and_again_is_left_out(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the system, for want of memory: at the fourth start the others learn on without it."""

    def kill(*_: Any) -> None:
        os._exit(DIED)

    def make(learner: Any, target: Any) -> Any:
        from stream_ml.models.fast import fast_learner  # noqa: PLC0415 - the one replaced

        is_plain = type(learner) is type(toy.models["plain"])
        return kill if is_plain else fast_learner(learner, target)

    monkeypatch.setattr("stream_ml.stages.teaching.fast_learner", make)
    codes = []
    for _ in range(DEATHS_MAX):
        child = os.fork()
        if not child:
            _work(path, ProcessStopwatch(tmp_path / "turn"))
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    reasons = _work(path, ProcessStopwatch(tmp_path / "turn"))

    assert [DIED] * DEATHS_MAX == codes
    assert ["plain"] == list(reasons)
    assert "the worker has died 3 times running" in reasons["plain"]


@pytest.mark.parametrize("where", ["shadows.fast_predictor", "renewals.open_snapshot"])
def test_a_challenger_whose_answer_kills_the_worker_is_asked_no_more(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Where it shadows, and where its snapshot is opened: that is told, and learn teaches it on."""
    from stream_ml.stages import renewals, shadows  # noqa: PLC0415 - what is replaced

    parts: dict[str, Any] = {"shadows": shadows, "renewals": renewals}
    module, name = where.split(".")
    opened = getattr(parts[module], name)

    def make(subject: Any, *rest: Any) -> Any:
        if getattr(subject, "name", "") == "scaled":
            os._exit(DIED)
        if type(subject) is type(toy.models["scaled"]):
            return lambda _: os._exit(DIED)
        return opened(subject, *rest)

    monkeypatch.setattr(f"stream_ml.stages.{where}", make)
    codes = []
    for _ in range(DEATHS_MAX):
        child = os.fork()
        if not child:
            _work(path, ProcessStopwatch(tmp_path / "turn"))
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    reasons = _work(path, ProcessStopwatch(tmp_path / "turn"))
    with SqliteLog.open(path) as log:
        alerts = [orjson.loads(r.value or b"") for r in read_all(log, "alerts")]
        predictions = log.end_offset("predictions", 0)
    told = [alert for alert in alerts if alert["kind"] == "shadow_slow"]

    assert [DIED] * DEATHS_MAX == codes
    assert {} == reasons
    assert ["line:scaled"] == [alert["subject"] for alert in told]
    assert "the worker has died 3 times running while it was asked" in told[0]["message"]
    assert 600 == predictions


def test_models_shows_what_lines_cost(path: Path, cli: Cli) -> None:
    """As text and as JSON, where a worker has measured; else nothing is said of it."""
    assert not cli("models", "--broker", f"sqlite:{path}").out.count("µs an example")
    _work(path, ProcessStopwatch())
    with SqliteLog.open(path) as log:
        costs = read_costs(log, learn_tasks(log, ["plain", "scaled"]))
    text = cli("models", "--broker", f"sqlite:{path}").out
    json = cli("models", "--broker", f"sqlite:{path}", "--format", "json").json
    status = cli("status", "--broker", f"sqlite:{path}", "--format", "json").json

    assert "µs an example" in text
    assert json["costs"] == status["costs"] == {k: v.as_dict() for k, v in costs.items()}
    for line in ("plain", "scaled"):
        cost = json["costs"][line]
        assert 0.1 < cost["answer_us"] < 100_000
        assert 0.1 < cost["example_us"] < 100_000
        assert 0 < cost["snapshot_s"] < 10
        assert cost["snapshot_bytes"] > 100


def test_what_does_not_return_is_interrupted_in_any_thread() -> None:
    """A worker that has to be heard by the brokers meanwhile has shadows answer in a thread."""
    stopwatch = ProcessStopwatch(hang_s=0.1, tick_s=0.02)
    ended: list[type[BaseException]] = []

    def work() -> None:
        with stopwatch.watch():
            try:
                _hang()
            except NotReturned as error:
                ended.append(type(error))

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:  # one after the other, as the stages of a worker
        thread.start()
        thread.join(20.0)

    assert [NotReturned] * 2 == ended


def test_a_machine_that_stands_still_is_nobodys_fault() -> None:
    """A frozen machine is forgiven, once; who goes on not to return is interrupted all the same."""
    now_s = [0.0]
    stopwatch = ProcessStopwatch(hang_s=60.0, tick_s=5.0, clock=lambda: now_s[0])

    def ticks(gaps_s: list[float]) -> int:
        """How many ticks go by without an error."""
        passed = 0
        with suppress(NotReturned), stopwatch.watch():
            stopwatch.attend("forest")
            for gap_s in gaps_s:
                now_s[0] += gap_s
                signal.raise_signal(signal.SIGALRM)
                passed += 1
        return passed

    assert 4 == ticks([5.0, 3_600.0, 5.0, 5.0])
    assert 11 == ticks([5.0] * 99)
    # Frozen at the third tick: of that no more than a tick counts.
    assert 11 == ticks([5.0, 5.0, 600.0, *[5.0] * 99])
    # In one long call of C after another no tick is on time: interrupted later, but interrupted.
    assert 11 == ticks([15.0] * 99)


def test_a_thread_on_a_machine_that_stands_still_is_not_interrupted() -> None:
    """As the main one: the clock leaps while it works, and it goes on."""
    leap_s = [0.0]
    stopwatch = ProcessStopwatch(
        hang_s=20.0, tick_s=0.01, clock=lambda: time.perf_counter() + leap_s[0]
    )
    ended: list[str] = []

    def work() -> None:
        with stopwatch.watch():
            leap_s[0] = 60.0
            end_s = time.perf_counter() + 0.3
            while time.perf_counter() < end_s:
                pass
        ended.append("returned")

    thread = Thread(target=work)
    thread.start()
    thread.join(20.0)

    assert ["returned"] == ended


def test_an_alarm_that_comes_late_finds_nobody_at_work() -> None:
    """A call that fails just before it would be interrupted: its caller is not interrupted."""
    now_s = [0.0]
    stopwatch = ProcessStopwatch(hang_s=60.0, tick_s=40.0, clock=lambda: now_s[0])
    with suppress(ValueError), stopwatch.watch():
        now_s[0] = 70.0
        raise ValueError
    signal.raise_signal(signal.SIGALRM)

    assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)


def test_timers_run_on_from_call_to_call_and_end_with_the_last() -> None:
    """Whoever comes next is watched over, whether they still run or not, by its own stopwatch."""
    former, latter = (ProcessStopwatch(hang_s=0.05, tick_s=0.01) for _ in range(2))

    def hang_as(line: str) -> None:
        with latter.watch():
            latter.attend(line)
            _hang()

    with former.watch():
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[1]
    with pytest.raises(NotReturned, match="'forest'"):
        hang_as("forest")
    signal.raise_signal(signal.SIGALRM)
    assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)
    with pytest.raises(NotReturned, match="'bayes'"):
        hang_as("bayes")


def test_a_process_whose_timers_still_run_ends_as_it_means_to() -> None:
    """No alarm of ours kills a worker that is on its way out."""
    script = """
import time
from stream_ml.shell.processes.stopwatch import ProcessStopwatch

class Slow:
    def __del__(self, wait=time.sleep):
        wait(0.3)

slow = Slow()
with ProcessStopwatch(tick_s=0.1).watch():
    pass
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)  # noqa: S603

    assert ended.returncode == 0
