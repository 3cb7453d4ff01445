"""The demo of the live page as a terminal runs it: Ctrl-C ends it, and twice leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from cli_toy import outputs, toy

from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.stop import Stop
from tools.replay_flights import lag, wait_for_worker

# A process that says it is there, and at SIGTERM what it was asked; it ends then, or does not.
CHILD = r"""
import json, os, signal, sys
def on_signal(number, frame):
    os.write(2, f"asked {os.getpid()}\n".encode())
    if sys.argv[1] == "polite":
        os._exit(0)
signal.signal(signal.SIGTERM, on_signal)
print(json.dumps({"address": "here"}), flush=True)
os.write(2, f"started {os.getpid()}\n".encode())
while True:
    signal.pause()
"""
DEMO = """
import os, sys
from tools.live import run
sys.exit(run(*([sys.executable, "-c", sys.argv[1], sys.argv[2]] for _ in range(3)), os.environ))
"""


@pytest.mark.parametrize("children", ["polite", "stubborn"])
def test_all_end_when_asked(children: str) -> None:
    """One Ctrl-C ends all that end; a second one, while some do not, ends these, without a word."""
    demo = subprocess.Popen(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", DEMO, CHILD, children],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    started, asked, others = list[int](), list[int](), list[str]()
    try:
        for line in demo.stderr:
            word, _, number = line.strip().partition(" ")
            if word == "started":
                started.append(int(number))
                if len(started) == 3:
                    demo.send_signal(signal.SIGINT)
            elif word == "asked":
                asked.append(int(number))
                if len(asked) == 3 and children == "stubborn":
                    demo.send_signal(signal.SIGINT)
            else:
                others.append(line)
        assert ("", 0) == ("".join(others), demo.wait(30))
        assert sorted(started) == sorted(asked)
        for process in started:
            with pytest.raises(ProcessLookupError):
                os.kill(process, 0)
    finally:
        for process in started if demo.poll() is None else ():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        demo.kill()
        demo.stderr.close()
        demo.wait()


class _Pause(Stop):
    """Begins a worker with the first wait, so that it is not done before."""

    worker: threading.Thread | None = None

    def wait(self, seconds: float | None, handle: int | None = None) -> bool:
        """As any does."""
        if self.worker is not None and self.worker.ident is None:
            self.worker.start()
        return super().wait(seconds, handle)


def test_replay_waits_for_a_worker_that_is_behind(tmp_path: Path) -> None:
    """It publishes no more while too many events wait, and goes on when they are done."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path) as log, _Pause() as stop:
        log.append(outputs(20))

        def work() -> None:
            with SqliteLog.open(path) as own, Runner(own, toy, bytes(32)) as runner:
                runner.run()

        assert (20, 0.0) == (lag(log), wait_for_worker(log, stop, 20))
        stop.worker = threading.Thread(target=work)
        waited_s = wait_for_worker(log, stop, 5)
        stop.worker.join()
        assert (True, 0) == (waited_s > 0.0, lag(log))
        stop.ask()
        log.append(outputs(20))
        assert wait_for_worker(log, stop, 0) == 0.0
