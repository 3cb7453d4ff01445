"""Measures what lines take, and ends what does not return: see `stages.effort`.

Theory of operation:

1. Time is the machine's monotonic clock. Reading it is all that is done for each example.
2. While learners are at work a timer interrupts the process every `TICK_S`. If the one whose turn
   it is has not got on for `HANG_S`, and is still at work, an error is raised in the midst of what
   it does, for whoever called it to contain. The timer goes on between the calls, for setting it
   costs more than many a learner takes; it ends when it finds nobody at work.
3. That does not reach into a library that never comes back from C. So a second timer counts the
   processor's time, is wound up again whenever the first one finds that the process answers, and
   ends the process where it does not for `DEAF_S`: the system does that, no code of ours need run.
4. Whose turn it is stands in a small file, mapped into memory, so that writing it costs nothing and
   a process that is killed leaves it as it was. At the next start it says who was at work, and how
   often running that was so, from the same example on. Where there is no place for such a file,
   nobody is suspected.
5. Where an interrupt is late, and the process has not worked meanwhile, the machine has stood
   still, or has had no time for us: nobody at work has to answer for that. No more than one tick of
   it counts.

Signals reach the main thread alone. In another one a thread of ours looks every `TICK_S`, has
Python raise the error there, and winds up the second timer: it does not come to that where Python's
lock is never given back.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from stream_ml.defaults import LEARN_BUDGET_S
from stream_ml.stages.effort import TRIAL, Suspect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType
    from typing import Self

__all__ = ["NotReturned", "ProcessStopwatch"]

TICK_S = 5.0
HANG_S = 60.0
DEAF_S = 300.0
# The file: whose turn it is, after the length of that, and behind it, from when and how often
# running it was that one's. A command's id has room in any script: cut short, it is nobody's.
LENGTH_BYTES = 4
NAME_BYTES = 8_192
FILE_BYTES = 65_536
# Our own modules that run only when a learner is asked, taught or written down.
_OF_LEARNERS = ("stream_ml.models.", "stream_ml.learners.")


class NotReturned(BaseException):
    """Raised in the midst of a call that does not return."""


class ProcessStopwatch:
    """The stopwatch of a worker's process.

    Args:
        path: of the file that outlives the process; None for none.
        budget_s: how long a line may take over an example.
        hang_s: after how many seconds without getting on a call is interrupted.
        tick_s: how often that is looked at, in seconds.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        budget_s: float = LEARN_BUDGET_S,
        hang_s: float = HANG_S,
        tick_s: float = TICK_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.budget_s = budget_s
        self._clock = clock
        self._hang_s, self._tick_s = hang_s, tick_s
        self._last_s = clock()
        self._line = ""
        # When it was last looked at, and the time of the processor then.
        self._tick = clock(), time.process_time()
        self._is_watching = False
        self._main = threading.main_thread().ident
        # The thread that is watched where it is not the main one, and who watches it.
        self._thread: int | None = None
        self._lock = threading.Lock()
        self._guard: threading.Thread | None = None
        self._file = None if path is None else _mapped(path)
        # Who was at work at the last death, and the stages that were told so since the start.
        self._suspect: Suspect | None = None
        self._told: set[str] = set()

    def seconds(self) -> float:
        """Seconds from any start; see `Stopwatch`."""
        self._last_s = now_s = self._clock()
        return now_s

    def attend(self, line: str) -> None:
        """Say whose learner is called next."""
        self._line = line
        self._last_s = self._clock()
        if self._file is not None:
            name = line.encode()[: NAME_BYTES - LENGTH_BYTES]
            self._file[: LENGTH_BYTES + len(name)] = b"%04d%b" % (len(name), name)

    def begin(self, n: int, stage: str = "learn") -> Suspect | None:
        """Who was at work when the worker before died, if it did; see `Stopwatch`.

        Args:
            n: how many examples were learned, as committed.
            stage: that starts; the first one of a start has the count.
        """
        if self._file is None:
            return None
        if stage in self._told:  # started again, within one process
            self._told.clear()
        if not self._told:
            self._suspect = self._read_suspect(self._file, n)
        self._told.add(stage)
        return self._suspect

    def _read_suspect(self, file: mmap.mmap, n: int) -> Suspect | None:
        length = file[:LENGTH_BYTES]
        end = LENGTH_BYTES + (int(length) if length.isdigit() else 0)  # new, or a former release's
        line = file[LENGTH_BYTES:end].decode(errors="replace")
        former: Any = None
        with suppress(orjson.JSONDecodeError):
            former = orjson.loads(file[NAME_BYTES:].rstrip(b"\0"))
        suspect = None
        if line:
            # A command is tried at whatever example: beside it others may have been committed.
            known = 1 if line.startswith(TRIAL) else 2
            is_same = isinstance(former, list) and former[:known] == [line, n][:known]
            suspect = Suspect(line, 1 + (former[2] if is_same else 0))
        note = b"" if suspect is None else orjson.dumps([line, n, suspect.deaths])
        file[NAME_BYTES:] = note.ljust(FILE_BYTES - NAME_BYTES, b"\0")
        self.attend("")
        return suspect

    def watch(self) -> Self:
        """Watch over what is called within; see `Stopwatch`.

        Of what ends the process by an error, or because it is asked to, nothing is wiped out: the
        next start finds whose turn it was.
        """
        return self

    def __enter__(self) -> Self:
        self._last_s = self._clock()
        # Before the timers are looked at: a tick in between may end them.
        self._is_watching = True
        if threading.get_ident() == self._main:
            if _Timers.owner is not self:
                self._arm()
        else:
            self._thread = threading.get_ident()
            if self._guard is None:
                self._tick = self._last_s, time.process_time()
                _wind_up()
                self._guard = threading.Thread(target=self._keep_watch, daemon=True)
                self._guard.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_watching = False
        if self._thread is not None:
            with self._lock:
                self._thread = None
        if kind is None:
            self.attend("")

    def _arm(self) -> None:
        self._tick = self._last_s, time.process_time()
        _wind_up()
        signal.signal(signal.SIGALRM, self._on_tick)
        signal.setitimer(signal.ITIMER_REAL, self._tick_s, self._tick_s)
        _Timers.owner = self

    def _on_tick(self, _: int, frame: FrameType | None) -> None:
        if not self._is_watching:
            _disarm()
            return
        signal.setitimer(signal.ITIMER_VIRTUAL, DEAF_S)
        waited_s = self._waited_s()
        if waited_s < self._hang_s or not _is_with_learner(frame):
            return
        self._last_s = self._clock()
        raise NotReturned(f"the line {self._line!r} has not returned for {waited_s:.0f} s")

    def _waited_s(self) -> float:
        """For how long whoever is at work has not got on, but for a machine that stood still."""
        now_s, worked_s = self._clock(), time.process_time()
        last_s, last_worked_s = self._tick
        self._tick = now_s, worked_s
        gap_s = now_s - last_s
        if gap_s > 2 * self._tick_s:
            still_s = max(0.0, gap_s - max(self._tick_s, worked_s - last_worked_s))
            self._last_s = min(now_s, self._last_s + still_s)
        return now_s - self._last_s

    def _keep_watch(self) -> None:
        """Interrupt the thread that is watched, if it does not return; for a thread of its own."""
        while True:
            time.sleep(self._tick_s)
            signal.setitimer(signal.ITIMER_VIRTUAL, DEAF_S)
            with self._lock:
                waited_s = self._waited_s()
                if self._thread is None or waited_s < self._hang_s:
                    continue
                if _is_with_learner(sys._current_frames().get(self._thread)):  # noqa: SLF001
                    self._last_s = self._clock()
                    _raise_in(self._thread, NotReturned)


class _Timers:
    """There is one of each kind for the whole process."""

    # The stopwatch for which they run, if they do.
    owner: ClassVar[ProcessStopwatch | None] = None


def _wind_up() -> None:
    """Have the system end this process where no code of Python's runs for `DEAF_S` of its time."""
    # An interpreter that ends takes its handlers away: an alarm then would kill the process.
    atexit.unregister(_disarm)
    atexit.register(_disarm)
    signal.setitimer(signal.ITIMER_VIRTUAL, DEAF_S)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    _Timers.owner = None


def _is_with_learner(frame: FrameType | None) -> bool:
    """Whether a learner is at work in what is interrupted, and not the stage that has called it.

    Back in the stage it has returned, if late, and nobody there expects the error.
    """
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("stream_ml.stages."):
            return False
        if not module.startswith("stream_ml.") or module.startswith(_OF_LEARNERS):
            return True
        frame = frame.f_back
    return False


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Have Python raise an error in another thread, as soon as that gets back to Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _mapped(path: Path) -> mmap.mmap | None:
    """The file, mapped; None where there cannot be one."""
    with suppress(OSError, ValueError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(handle).st_uid != os.geteuid():
                return None  # in a folder where others may write, it must be our own
            os.ftruncate(handle, FILE_BYTES)
            return mmap.mmap(handle, FILE_BYTES)
        finally:
            os.close(handle)
    return None
