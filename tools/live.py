"""Real flights through the whole loop, to be watched on the live page.

    python -m tools.live

Starts a worker on a log of its own (runs/live), the server, and a replay of the flights out of New
York at a day in some four seconds, or as fast as the worker is, and says where the page is. Ctrl-C
ends all of them, and once more ends them at once. Whoever is on this machine may act on the page
too: it is a demo.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson

from stream_ml.shell.processes.stop import SIGNALS, Stop

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

__all__ = ["run"]

FLIGHTS = "stream_ml.examples.flights:flights"
# Its presence says that the log beside it is ours, to be made anew.
MARK = "this-is-a-demo"
RATE = 850.0
# Where the machine does less than that, the replay is slowed down to what it does.
LAG_S = 4.0
PORT = 8_000
POLL_S = 0.3
END_S = 15.0
STREAM_ML = [sys.executable, "-P", "-m", "stream_ml.cli.main"]
REPLAY = "replay"


def main() -> int:
    """Run until Ctrl-C, or until one of the processes ends that should not."""
    parser = argparse.ArgumentParser(description="Real flights on the live page.")
    parser.add_argument("--folder", type=Path, default=Path("runs/live"), help="of the log")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the page ({PORT})")
    parser.add_argument("--rate", type=float, default=RATE, help=f"records a second ({RATE:g})")
    parser.add_argument("--months", type=int, default=6, help="January to month N (6)")
    arguments = parser.parse_args()
    if not _clear(arguments.folder):
        print(f"{arguments.folder}: expected a folder of this demo, or none", file=sys.stderr)
        return 2
    environment = {
        **os.environ,
        "STREAM_ML_BROKER": f"sqlite:{arguments.folder / 'log.sqlite'}",
        "STREAM_ML_PIPELINE": FLIGHTS,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    months = ["--months", "1", str(arguments.months)]
    replay = [sys.executable, "-m", "tools.replay_flights", "--rate", str(arguments.rate), *months]
    replay += ["--lag-max", str(round(LAG_S * arguments.rate))]
    serve = ["serve", "--port", str(arguments.port), "--format", "json"]
    serve += ["--anonymous", "read", "publish", "operate"]
    return run([*STREAM_ML, "up", "--format", "json"], [*STREAM_ML, *serve], replay, environment)


def run(
    worker: list[str], server: list[str], replay: list[str], environment: Mapping[str, str]
) -> int:
    """Run until asked to stop, or until one of the processes ends that should not.

    Args:
        worker: the command of the worker, whose first line is JSON.
        server: the command of the server, whose first line is JSON and has its `address`.
        replay: the command of what publishes, which may end.
        environment: of all three.

    Returns:
        The exit code.
    """
    # In this order: whoever asks again while the processes end is heard too.
    with _Processes(environment) as processes, Stop() as stop:
        for name, command in (("worker", worker), ("server", server)):
            if not processes.start(name, command, stop):
                return processes.exit_code()
        processes.start(REPLAY, replay)
        address = processes.said["server"]["address"]
        print(
            f"\n  the live page: {address}/page\n\nflights of 2013 go by; Ctrl-C ends it",
            flush=True,
        )
        while not stop.is_requested and not processes.ended():
            stop.wait(POLL_S)
        return 0 if stop.is_requested else processes.exit_code()


def _clear(folder: Path) -> bool:
    """Make room for a new log; False where the folder is somebody else's."""
    if folder.exists():
        if not (folder / MARK).exists():
            return False
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("`make live` made this folder, and replaces it each time.\n")
    return True


class _Processes:
    """The processes of the demo; a context manager that ends them.

    Whoever asks for the end while they end already has them killed, with all of their own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._is_killed = False
        self._former: dict[int, Any] = {}
        # The first line of each that says JSON.
        self.said: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._kill) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            with suppress(OSError):
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._kill()
                process.wait()
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _kill(self, _: int = 0, __: FrameType | None = None) -> None:
        self._is_killed = True
        for process in list(self._running.values()):
            # The number of one that was waited for may be another group's by now.
            if process.returncode is None:
                with suppress(OSError):
                    # Each leads a group of its own, in which its own processes are.
                    os.killpg(process.pid, signal.SIGKILL)

    def start(self, name: str, command: list[str], stop: Stop | None = None) -> bool:
        """Start one; with `stop`, wait for its first line, and tell whether it came."""
        out = None if stop is None else subprocess.PIPE
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
            command, env=self._environment, stdout=out, process_group=0
        )
        self._running[name] = process
        if self._is_killed:  # while it was started
            self._kill()
        if stop is None or process.stdout is None:
            return True
        heard = threading.Event()
        threading.Thread(target=self._hear, args=(name, process, heard), daemon=True).start()
        while not heard.is_set() and process.poll() is None and not stop.is_requested:
            stop.wait(POLL_S)
        return heard.is_set()

    def _hear(self, name: str, process: subprocess.Popen[bytes], heard: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if name not in self.said:
                self.said[name] = orjson.loads(line)
                heard.set()

    def ended(self) -> list[str]:
        """Those that ended and should not have."""
        found = []
        for name, process in self._running.items():
            code = process.poll()
            if code is not None and (name != REPLAY or code):
                found.append(name)
        return found

    def exit_code(self) -> int:
        """Of the first that ended and should not have; 0 if none did."""
        for name in self.ended():
            print(f"the {name} has ended with {self._running[name].returncode}", file=sys.stderr)
            return self._running[name].returncode or 1
        return 0


if __name__ == "__main__":
    sys.exit(main())
