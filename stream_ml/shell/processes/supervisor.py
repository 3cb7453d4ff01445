"""Keeps a pipeline's workers running: starts them, passes on what they say, starts the dead again.

Theory of operation:

1. A post is a stage and a number, such as `predict-2`; a process of its own fills it. Whoever of
   them ends unasked, for whatever reason, has died: workers do not end by themselves.
2. `Patience` judges each death, from the exit code and how long the process had lived: start again
   after a wait that doubles with every death in a row, or give up. It reads no clock.
3. A death before `HEALTHY_S` is one at once: also where a busy machine takes long over a start.
   Who has lived longer had nothing wrong with it when it started, and what was counted against its
   post is forgotten. Waiting for the broker is living; workers do that inside.
4. Five deaths at once, in a row: whatever it is, starting again does not mend it. Exit code 2:
   usage, a setting or the declaration is wrong, and stays so. Then everything is stopped, for a
   loop without one of its stages is none, and whoever watches us should know.
5. Each process leads a group of its own, so that Ctrl-C in a terminal reaches us alone, and each
   of them is asked to stop once: who is asked twice ends in the middle of what it does.
6. Each one's standard input is a pipe that nobody writes to and whose other end only we hold.
   However we die, it ends; then the process stops, see `stop_when_input_ends`. So none is left.
7. There is one thread. All waiting is in `Relay.pump`, which ends early when somebody speaks.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Any, Protocol

from stream_ml.errors import StreamMLError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "GOES_ON_S",
    "STOP_S",
    "Child",
    "Patience",
    "Post",
    "Process",
    "Relay",
    "Say",
    "Supervisor",
    "await_broker",
    "hear_supervisor",
    "stop_when_input_ends",
]

WAIT_MIN_S = 0.5
HEALTHY_S = 30.0
DEATHS_MAX = 5
# A worker ends the batch it is at, commits and leaves its group; it gives itself 20 s for that, and
# says why where it has not done.
STOP_S = 25.0
# As long as `stream-ml apply` waits for workers to be stopped.
GOES_ON_S = 60.0
# How often one looks whether somebody is still about to take over.
LOOK_S = 2.0
# How long a death may go unnoticed: a process that ends closes its output, which we notice at once,
# unless it gave that to somebody else.
TICK_S = 0.25
BROKER_WAIT_MAX_S = 2.0
BROKER_SAY_S = 10.0
CONNECT_S = 2.0
WRONG_USAGE = UsageError.exit_code
LAST_LINES = 20
LINE_BYTES_MAX = 65_536
READ_BYTES = 65_536

# Tells the operator something: in words, and as members of a JSON object.
Say = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Post:
    """What one process is to do; the number is 0 where it does all of that.

    >>> str(Post("predict", 2)), str(Post("purchase", 0))
    ('predict-2', 'purchase')
    """

    stage: str
    number: int

    def __str__(self) -> str:
        return f"{self.stage}-{self.number}" if self.number else self.stage


class Patience:
    """How one post's deaths are answered.

    >>> patience = Patience()
    >>> [patience.died(1, lived_s=0.1) for _ in range(5)]
    [0.5, 1.0, 2.0, 4.0, None]

    Attributes:
        deaths: how many there were at once, in a row.
    """

    def __init__(self) -> None:
        self.deaths = 0

    def died(self, code: int, lived_s: float) -> float | None:
        """How many seconds to wait until it is started again; None to give up.

        Args:
            code: what it exited with; -n where signal n ended it.
            lived_s: seconds from its start to its end.
        """
        if code == WRONG_USAGE:
            return None
        if lived_s >= HEALTHY_S:
            self.deaths = 0
            return WAIT_MIN_S
        self.deaths += 1
        return None if self.deaths >= DEATHS_MAX else float(WAIT_MIN_S * 2 ** (self.deaths - 1))


class Child(Protocol):
    """A process that fills a post."""

    @property
    def pid(self) -> int:
        """Its id."""

    def exit_code(self) -> int | None:
        """What it exited with, -n where signal n ended it; None while it lives."""

    def last_words(self) -> Sequence[str]:
        """The last lines of its standard error, once it has ended."""

    def ask(self) -> None:
        """Ask it to stop."""

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""


@dataclass(slots=True)
class _Watch:
    """A post, who fills it, and since when; or when it is to be filled again."""

    post: Post
    patience: Patience
    child: Child | None = None
    started_s: float = 0.0
    due_s: float = 0.0


class Supervisor:
    """Fills posts with processes until it is asked to stop.

    Args:
        posts: what is to be done, by one process each.
        start: starts a process for a post.
        say: tells the operator.
        wait: waits for so many seconds, or until something happens.
        clock: seconds, from any start.
        stop_s: how many seconds a process has to stop.
        is_last: whether a post is asked to stop after the others.
        goes_on: whether those posts are to be filled for a while longer, since they end by
            themselves; asked again and again, and it may take some seconds.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        start: Callable[[Post], Child],
        *,
        say: Say,
        wait: Callable[[float], object],
        clock: Callable[[], float] = time.monotonic,
        stop_s: float = STOP_S,
        is_last: Callable[[Post], bool] = lambda _: False,
        goes_on: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stop_s = stop_s
        self._watches = [_Watch(post, Patience(), due_s=clock()) for post in posts]
        self._start = start
        self._say = say
        self._wait = wait
        self._clock = clock
        self._is_last = is_last
        self._goes_on = goes_on

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Keep every post filled until `is_stopping`; then stop all, also after an error.

        Raises:
            UsageError: a process found usage, a setting or the declaration wrong.
            StreamMLError: one died at once too often.
        """
        is_asked = False
        try:
            while not is_stopping():
                for watch in self._watches:
                    self._look_after(watch)
                self._wait(TICK_S)
            is_asked = True
        finally:
            self._stop_all(is_asked=is_asked)

    def _look_after(self, watch: _Watch) -> None:
        now_s = self._clock()
        if watch.child is None:
            if now_s >= watch.due_s:
                self._fill(watch, now_s)
            return
        code = watch.child.exit_code()
        if code is None:
            return
        words = watch.child.last_words()
        watch.child = None
        again_s = watch.patience.died(code, now_s - watch.started_s)
        if again_s is None:
            raise _failure(watch, code, words)
        watch.due_s = now_s + again_s
        self._say(
            f"{watch.post} died ({_ending(code)}); it is started again in {again_s:g} s",
            {"said": "died", "worker": str(watch.post), "code": code, "again_s": again_s},
        )

    def _fill(self, watch: _Watch, now_s: float) -> None:
        watch.child = self._start(watch.post)
        watch.started_s = now_s
        self._say(
            f"{watch.post} starts (process {watch.child.pid})",
            {"said": "starts", "worker": str(watch.post), "process": watch.child.pid},
        )

    def _stop_all(self, *, is_asked: bool) -> None:
        """Ask every process to stop, and end those that do not.

        Asked impatiently (a second Ctrl-C), it ends at once those that are left.
        """
        left = [(watch.post, watch.child) for watch in self._watches if watch.child is not None]
        try:
            self._ask(left, is_asked=is_asked)
            deadline = self._clock() + self._stop_s
            while (left := [entry for entry in left if entry[1].exit_code() is None]) and (
                self._clock() < deadline
            ):
                self._wait(TICK_S)
        finally:
            for _, child in left:
                child.kill()
        for post, _ in left:
            self._say(
                f"{post} did not stop within {self._stop_s:g} s and was killed; what it had not "
                "committed is done again at the next start",
                {"said": "killed", "worker": str(post)},
            )

    def _ask(self, children: Sequence[tuple[Post, Child]], *, is_asked: bool) -> None:
        """Ask every process to stop, last those that others are about to take over from."""
        waiting = []
        for post, child in reversed(children):
            if is_asked and self._is_last(post):
                waiting.append((post, child))
            else:
                child.ask()
        if waiting and self._goes_on():
            waiting = self._await_successors(waiting)
        for _, child in waiting:
            child.ask()

    def _await_successors(self, waiting: list[tuple[Post, Child]]) -> list[tuple[Post, Child]]:
        """Wait until processes have ended by themselves; those that have not in time."""
        posts = ", ".join(str(post) for post, _ in waiting)
        self._say(
            f"{posts} goes on until a standby takes over, for {GOES_ON_S:g} s at most",
            {"said": "goes_on", "workers": [str(post) for post, _ in waiting]},
        )
        deadline = self._clock() + GOES_ON_S
        look_s = self._clock() + LOOK_S
        while (now_s := self._clock()) < deadline:
            waiting = [entry for entry in waiting if entry[1].exit_code() is None]
            if now_s >= look_s:
                look_s = now_s + LOOK_S
                if not self._goes_on():
                    break
            if not waiting:
                break
            self._wait(TICK_S)
        return waiting


def _failure(watch: _Watch, code: int, words: Sequence[str]) -> StreamMLError:
    output = "".join(f"\n  {line}" for line in words) or " nothing"
    if code == WRONG_USAGE:
        return UsageError(f"{watch.post} cannot run as it is set up; it said:{output}")
    return StreamMLError(
        f"{watch.post} died at once {watch.patience.deaths} times in a row, the last time by "
        f"{_ending(code)}; all workers are stopped. What it said last:{output}"
    )


def _ending(code: int) -> str:
    """How a process ended, for people.

    >>> _ending(1), _ending(-9)
    ('exit code 1', 'signal 9, Killed')
    """
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code}, {signal.strsignal(-code) or 'unknown'}"


# --- processes, and what they say -----------------------------------------------------------------


class _Line:
    """Puts what is read from one stream together to lines."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._partial = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))
        if len(self._partial) > LINE_BYTES_MAX:
            self.end()

    def end(self) -> None:
        """What was begun is all there will be."""
        partial, self._partial = self._partial, b""
        if partial:
            self._on_line(partial.decode(errors="replace"))


class Relay:
    """Passes on, line by line, what is written to streams; waiting for that is the only waiting."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def listen(self, stream: IO[bytes], on_line: Callable[[str], None]) -> None:
        """From now on call `on_line` with each line of `stream`, without its end."""
        os.set_blocking(stream.fileno(), False)
        self._selector.register(stream, selectors.EVENT_READ, _Line(on_line))

    def pump(self, seconds: float) -> None:
        """Pass on what there is; wait for so long at most where there is nothing."""
        for key, _ in self._selector.select(seconds):
            if not self._read(key):
                self._drop(key)

    def finish(self, stream: IO[bytes]) -> None:
        """Pass on what is left in `stream`, and listen to it no more."""
        key = self._selector.get_map().get(stream)
        if key is None:
            return
        try:
            while self._read(key):
                pass
        except BlockingIOError:
            pass  # somebody else holds its other end; whom we listened to is dead
        self._drop(key)

    def close(self) -> None:
        """Listen to nobody any more."""
        self._selector.close()

    @staticmethod
    def _read(key: selectors.SelectorKey) -> bool:
        chunk = os.read(key.fd, READ_BYTES)
        key.data.feed(chunk)
        return bool(chunk)

    def _drop(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        key.data.end()


class Process:
    """A child process that is heard through a relay.

    Args:
        command: the program and its arguments.
        relay: passes on what it says.
        on_out: is called with each line of its standard output.
        on_err: is called with each line of its standard error.
    """

    def __init__(
        self,
        command: Sequence[str],
        relay: Relay,
        *,
        on_out: Callable[[str], None],
        on_err: Callable[[str], None],
    ) -> None:
        self._relay = relay
        self._words: deque[str] = deque(maxlen=LAST_LINES)
        self._err = on_err
        self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and words
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        relay.listen(self._popen.stdout, on_out)
        relay.listen(self._popen.stderr, self._hear)

    @property
    def pid(self) -> int:
        """Its id."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """What it exited with; None while it lives. Once it has ended, all it said is passed on."""
        code = self._popen.poll()
        if code is not None:
            self._close()
        return code

    def last_words(self) -> Sequence[str]:
        """The last lines of its standard error, once it has ended."""
        return tuple(self._words)

    def ask(self) -> None:
        """Ask it to stop."""
        self._popen.terminate()

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""
        self._popen.kill()
        self._popen.wait()
        self._close()

    def _hear(self, line: str) -> None:
        self._words.append(line)
        self._err(line)

    def _close(self) -> None:
        streams = (self._popen.stdout, self._popen.stderr)
        for stream in streams:
            if stream is not None and not stream.closed:
                self._relay.finish(stream)
                stream.close()
        if self._popen.stdin is not None:
            self._popen.stdin.close()


# --- the child's side -----------------------------------------------------------------------------


def hear_supervisor() -> None:
    """Be a process that another one looks after: stop when it is dead, and speak UTF-8 to it."""
    # The process that started us reads UTF-8, whatever the locale.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    stop_when_input_ends()


def stop_when_input_ends(grace_s: float = STOP_S) -> None:
    """Stop this process when its standard input ends, as it does when who started it is dead.

    It is asked as a signal would ask it, and ended where that does not suffice. From then on what
    it says goes nowhere.

    Args:
        grace_s: how many seconds it has between the two.
    """
    watching = threading.Thread(target=_watch_input, args=(grace_s,), name="input", daemon=True)
    watching.start()


def _watch_input(grace_s: float) -> None:
    handle = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
    while os.read(handle, READ_BYTES):
        pass
    # Who heard us is dead as well; a last word to nobody must not keep us from stopping in order.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(grace_s)
    os._exit(1)  # who cannot be asked any more is not to stay for ever


# --- the broker -----------------------------------------------------------------------------------


def await_broker(
    bootstrap: str,
    *,
    is_stopping: Callable[[], bool],
    wait: Callable[[float], object],
    say: Say,
    answers: Callable[[str], str | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait until a broker takes connections, however long that is; say so every 10 seconds.

    Args:
        bootstrap: `host:port` of some brokers, with commas between.
        is_stopping: whether to stop waiting.
        wait: waits for so many seconds at most.
        say: tells the operator.
        answers: why none of them answers; None where one does.
        clock: seconds, from any start.

    Returns:
        Whether one answered, rather than being asked to stop.
    """
    answers = answers or _unreachable
    began = clock()
    report_count = 0
    wait_s = WAIT_MIN_S
    while not is_stopping():
        reason = answers(bootstrap)
        if reason is None:
            return True
        waited_s = clock() - began
        if waited_s >= report_count * BROKER_SAY_S:
            report_count = int(waited_s // BROKER_SAY_S) + 1
            say(
                f"waiting for a broker at {bootstrap}: {reason} ({waited_s:.0f} s so far)",
                {
                    "said": "waiting",
                    "broker": bootstrap,
                    "why": reason,
                    "waited_s": round(waited_s, 1),
                },
            )
        wait(wait_s)
        wait_s = min(2 * wait_s, BROKER_WAIT_MAX_S)
    return False


def _unreachable(bootstrap: str) -> str | None:
    """Why none of the brokers can be connected to; None where one can."""
    reason = None
    for address in bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return None
    return reason
