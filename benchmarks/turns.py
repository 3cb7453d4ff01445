"""Contestants that take turns: what one costs of the other, on a noisy machine.

Two whole runs, one after the other, meet different neighbours, and their CPU times differ by a
tenth for nothing. So here all run at once, a piece of the work each in turn on the same core, while
the others wait: what disturbs meets all alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

__all__ = ["Turns", "in_turns"]

LAST = "last"


class Turns:
    """One of those that take turns: it works while the others wait, and waits while they work."""

    def __init__(self) -> None:
        print("ready", flush=True)
        self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit("nobody gives turns any more")
        self._start_s = time.process_time()

    def end_piece(self, *, is_last: bool = False) -> None:
        """Tell the CPU seconds since the turn began, and wait for the next one."""
        cost_s = time.process_time() - self._start_s
        print(cost_s, LAST if is_last else "", flush=True)
        if not is_last:
            self._wait()


def in_turns(
    commands: Sequence[Sequence[str]], environ: dict[str, str] | None = None
) -> list[list[float]]:
    """Run contestants by turns on one core; for each the CPU seconds of its pieces.

    Args:
        commands: what starts each; it must use `Turns`.
        environ: the environment's additions, for all of them.

    Raises:
        RuntimeError: one of them has failed.
    """
    cost_s: list[list[float]] = [[] for _ in commands]
    with ExitStack() as stack:
        processes = [stack.enter_context(_contestant(command, environ)) for command in commands]
        at_work = [i for i, process in enumerate(processes) if _line(process) == "ready"]
        while at_work:
            # There and back: who comes first has no other turn than who comes second.
            at_work.reverse()
            for i in list(at_work):
                cost, is_last = _turn(processes[i])
                cost_s[i].append(cost)
                if is_last:
                    at_work.remove(i)
        for command, process in zip(commands, processes, strict=True):
            if process.wait():
                raise RuntimeError(f"{' '.join(command)}: ended with {process.returncode}")
    return cost_s


def _contestant(command: Sequence[str], environ: dict[str, str] | None) -> subprocess.Popen[str]:
    core = max(os.sched_getaffinity(0))
    process = subprocess.Popen(  # noqa: S603 - our own contestants
        command,
        env=os.environ | (environ or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, {core})
    return process


def _turn(process: subprocess.Popen[str]) -> tuple[float, bool]:
    """What a piece took in CPU seconds, and whether it was the last one."""
    stdin = _pipe(process.stdin)
    stdin.write("next\n")
    stdin.flush()
    cost, *last = _line(process).split() or ["nan", LAST]
    return float(cost), bool(last)


def _line(process: subprocess.Popen[str]) -> str:
    return _pipe(process.stdout).readline().strip()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
