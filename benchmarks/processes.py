"""Contestants as processes: started, watched and stopped, with what they cost (Linux: /proc)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

__all__ = ["Running", "cpu_seconds", "peak_mib"]

TICKS = os.sysconf("SC_CLK_TCK")
STOP_S = 60.0


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, user and system, all threads.

    Raises:
        FileNotFoundError: it has ended.
    """
    return sum(int(text) for text in _stat(pid)[11:13]) / TICKS


def peak_mib(pid: int) -> float:
    """The most memory that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib) / 1024


def _stat(pid: int) -> list[str]:
    # The name of the program stands in brackets and may hold blanks; what follows does not.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


class Running:
    """A contestant that runs: one process and those that it starts.

    Args:
        command: what to run.
        environ: the environment's additions.
        log: where it writes its errors.
    """

    def __init__(self, command: Sequence[str], environ: dict[str, str], log: IO[bytes]) -> None:
        self._log = log
        self._process = subprocess.Popen(  # noqa: S603 - our own contestants
            command,
            env=os.environ | environ,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        # What it has printed, a JSON object a line, and when (monotonic seconds).
        self.reports: list[tuple[float, dict[str, Any]]] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                self.reports.append((time.monotonic(), json.loads(line)))

    def pids(self) -> list[int]:
        """The process, and all that descend from it."""
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    parent = int(_stat(int(folder.name))[1])
                except (FileNotFoundError, ProcessLookupError):
                    continue
                children.setdefault(parent, []).append(int(folder.name))
        pids, queue = [], [self._process.pid]
        while queue:
            pids.append(queue.pop())
            queue.extend(children.get(pids[-1], ()))
        return sorted(pids)

    def cpu(self) -> dict[int, float]:
        """CPU seconds so far of each of its processes.

        Raises:
            RuntimeError: the contestant has ended by itself.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"ended with {self._process.returncode}; see {self._log.name}")
        return {pid: cpu_seconds(pid) for pid in self.pids()}

    def name(self, pid: int) -> str:
        """What a process of it does: the word after `worker`, else `main`."""
        words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
        return words[words.index("worker") + 1] if "worker" in words[:-2] else "main"

    def stop(self) -> None:
        """End it by SIGTERM.

        Raises:
            subprocess.TimeoutExpired: it does not end; it has been killed.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._listener.join(STOP_S)

    def kill(self) -> None:
        """End it at once, with all that it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()
