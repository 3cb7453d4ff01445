"""Lines in processes of their own: what a learner does there harms its line alone.

Theory of operation:

1. A line that is isolated has a process (`line_process`), in which its learners are made, asked,
   taught, written and read. The stages hold stand-ins (`IsolatedLearner`), which the line's recipe
   (`IsolatedRecipe`) makes: what they answer, and the bytes that are written, are those of the
   learner itself, to the last bit.
2. The process is given the recipe as a pickle, which never lay on a log. What it says is JSON and
   bytes, of bounded size, and is checked as a learner's own words are.
3. Examples that have not got on for as many budgets of one as may be missed running, or any other
   call for `HANG_BUDGETS` of them, end the process, and so does memory beyond its bound, at the
   latest. Whoever called is told by `LearnerLost`.
   Where the machine stands still nobody is held to account: a tick counts no more than it should.
4. The next call begins another process. Snapshots are read again there, from the bytes that
   were read before; what a learner had learned since is gone, with its line's quarantine.
5. What cannot be sent to another process runs in the worker's own, as before, and that is told.
"""

from __future__ import annotations

import atexit
import copy
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.defaults import LEARN_BUDGET_S, LINE_MEMORY_MB
from stream_ml.errors import STOPS, SnapshotRefused, UsageError, brief_error
from stream_ml.models.learner import STATE_BYTES_MAX, Lesson, Model, RemoteLearner, Reply
from stream_ml.models.recipes import BadAnswer, Recipe
from stream_ml.models.retrained import Retrained
from stream_ml.shell.processes.line_process import (
    ANSWER,
    HEAD,
    REFUSED,
    START_S,
    UNKNOWN,
    encode_frame,
)
from stream_ml.stages.effort import LOST, SLOW_RUNNING, LearnerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, LabelValue

__all__ = [
    "ALL",
    "NONE",
    "OWN",
    "IsolatedLearner",
    "IsolatedRecipe",
    "Isolation",
    "Isolations",
    "isolated",
]

# Which lines are isolated: those that are not river's own, all, none.
OWN, ALL, NONE = "own", "all", "none"
# A call may take so many times what an example may: a learner is written, read, made.
HANG_BUDGETS = 10
TICK_S = 0.01
# After so long others go on with what they can; so they do where many short waits come to it.
PATIENCE_S = 0.05
# No honest answer has more JSON than this.
_HEAD_BYTES_MAX = 16 << 20
_READ_BYTES = 1 << 20
# No call takes a day.
_SECONDS_MAX = 86_400
_NONSENSE, _CLOSED = "it said what nobody had asked for", "it was closed"
# One thread adds up in one order. Libraries read it when they are imported.
_ONE_THREAD = ("OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1")
_MODULE = "stream_ml.shell.processes.line_process"


class _Raised(Exception):  # noqa: N818 - it stands for another one
    """What a learner has raised in its process."""

    def __repr__(self) -> str:
        return str(self)


class IsolatedLearner(RemoteLearner):
    """Stands in for a learner that is in another process.

    Args:
        process: where it is.
        data: what it was read from; None: it was made untrained, and is gone with its process.
    """

    def __init__(self, process: _LineProcess, data: bytes | None) -> None:
        self.process, self.data = process, data
        # In the process of this generation it has this number; 0: in none yet.
        self.generation, self.number = 0, 0

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The answer, as the learner gives it.

        Args:
            features: a finite number by name.

        Raises:
            BadAnswer: it is none. Whatever else the learner raises comes through in words.
            LearnerLost: its process is gone.
        """
        (reply,) = self.process.lessons(self, [Lesson(features)])
        if reply.error is not None:
            raise reply.error
        return reply.answer

    def lessons(self, lessons: Sequence[Lesson]) -> Generator[Reply, None, None]:
        """The replies to lessons, as they come; closed sooner, its process ends.

        Args:
            lessons: in their order.

        Raises:
            LearnerLost: its process is gone; what came before stands.
        """
        return self.process.lessons(self, lessons)

    def learn_one(self, features: Mapping[str, float], label: LabelValue) -> None:
        """Teach it an example.

        Args:
            features: a finite number by name.
            label: the truth.
        """
        for _ in self.process.lessons(self, [Lesson(features, label, is_asked=False)]):
            pass

    def set_batch(self, size: int) -> None:
        """Have it fit so many examples at once.

        Args:
            size: examples.
        """
        self.process.call(self, {"op": "batch", "batch": size})

    def dump(self) -> bytes:
        """What it writes."""
        return self.process.call(self, {"op": "dump"})[1]

    def load(self, data: bytes) -> None:
        """Take up a state, in the place of what there is.

        Args:
            data: what `dump` gave.
        """
        self.data, self.generation = data, 0
        self.process.place(self)

    def __del__(self) -> None:
        if self.number:
            self.process.drop(self.generation, self.number)


class IsolatedRecipe(Recipe):
    """A line's recipe whose learners are in another process.

    Args:
        recipe: the line's.
        process: of the line.
    """

    def __init__(self, recipe: Recipe, process: _LineProcess) -> None:
        for name in ("name", "estimator", "target", "features", "classes"):
            object.__setattr__(self, name, getattr(recipe, name))
        object.__setattr__(self, "process", process)

    process: _LineProcess

    def fresh(self) -> Any:
        """An untrained learner; of a retrained line one that has no model, and runs nothing."""
        if isinstance(self.estimator, Retrained):
            return super().fresh()
        return IsolatedLearner(self.process, None)  # it is made when it is first called

    def dump(self, learner: Any) -> bytes:
        """A learner as bytes; see `Recipe.dump`."""
        if not isinstance(learner, IsolatedLearner):
            return super().dump(learner)
        with _refusals(self.name):
            return learner.dump()

    def load(self, data: bytes) -> Any:
        """A learner, read back; see `Recipe.load`."""
        if not data and isinstance(self.estimator, Retrained):
            return super().load(data)
        learner = IsolatedLearner(self.process, data)
        with _refusals(self.name):
            self.process.place(learner)
        return learner

    def set_batch(self, learner: Any, size: int) -> None:
        """Have a learner fit so many examples at once; see `Recipe.set_batch`."""
        if not isinstance(learner, IsolatedLearner):
            super().set_batch(learner, size)
            return
        # The recipe in the process says why a learner has no batches.
        with _refusals(self.name):
            learner.set_batch(size)

    def identity(self, learner: Any, data: bytes) -> tuple[str, int]:
        """The digest of a learner, and of how many bytes it is; see `Recipe.identity`."""
        if isinstance(self.estimator, Model) or not isinstance(learner, IsolatedLearner):
            return super().identity(learner, data)
        with _refusals(self.name):
            said, _ = self.process.call(learner, {"op": "identity"}, digest=str, size=int)
        return said["digest"], said["size"]

    def digest(self, learner: Any, data: bytes, like: str) -> str:
        """The digest of a learner by the scheme of another; see `Recipe.digest`."""
        if isinstance(self.estimator, Model) or not isinstance(learner, IsolatedLearner):
            return super().digest(learner, data, like)
        with _refusals(self.name):
            said, _ = self.process.call(learner, {"op": "digest", "like": like}, digest=str)
        return str(said["digest"])


@contextmanager
def _refusals(line: str) -> Iterator[None]:
    """Let what befell a process, or was raised there, refuse the line's snapshot."""
    try:
        yield
    except LearnerLost as error:
        raise SnapshotRefused(LOST, f"the line {line!r}: {error}") from error
    except (BadAnswer, _Raised) as error:
        raise SnapshotRefused("unreadable", f"the line {line!r}: {error}") from error


class _Forked:
    """A process that the nursery has forked, and the handles that lead there."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        # It says so itself.
        self.pid = 0

    def kill(self) -> None:
        """End it, and what it has begun; whoever reads what it says finds its end."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> int | None:
        """End it for good; how it has ended, where that is known.

        One that never said who it is ends where its input does, or by its alarm.
        """
        self.kill()
        code = _NURSERY.code(self.pid) if self.pid else None
        self.pid = 0
        os.close(self.reader)
        os.close(self.writer)
        return code


class _Nursery:
    """Whoever forks processes for lines, one for all in this process; see `line_process`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def fork(self) -> _Forked:
        """A new process.

        Raises:
            OSError: there cannot be one.
        """
        requests, writer = os.pipe()
        reader, output = os.pipe()
        try:
            with self._lock:
                self._send_fds([requests, output])
        except OSError:
            os.close(writer)
            os.close(reader)
            raise
        finally:
            os.close(requests)
            os.close(output)
        for handle in (reader, writer):
            os.set_blocking(handle, False)
        return _Forked(reader, writer)

    def code(self, pid: int) -> int | None:
        """How a process has ended that was killed, or has died; None: nobody knows.

        Args:
            pid: of one that was forked here, and asked about once.
        """
        with self._lock:
            try:
                nursery = self._connected()
                nursery.send(str(pid).encode())
                said = nursery.recv(64)
                return None if said == UNKNOWN else int(said)
            except (OSError, ValueError):
                self._end()  # its late answer is not to be taken for that about another
        return None

    def close(self) -> None:
        """Let it end, where it was begun."""
        with self._lock:
            self._end()

    def _send_fds(self, handles: list[int]) -> None:
        """Hand over the handles of a process; to another nursery, where this one has failed."""
        try:
            socket.send_fds(self._connected(), [b"."], handles)
        except OSError:
            self._end()
            try:
                socket.send_fds(self._connected(), [b"."], handles)
            except OSError:
                self._end()
                raise

    def _end(self) -> None:
        """End it; the lines' processes live on."""
        process, self._process = self._process, None
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.wait()

    def _connected(self) -> socket.socket:
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self._end()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    ["/usr/bin/env", *_ONE_THREAD, sys.executable, "-m", _MODULE],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            ours.settimeout(START_S)
            self._socket = ours
        return self._socket


_NURSERY = _Nursery()
atexit.register(_NURSERY.close)


class _LineProcess:
    """The process of a line, begun anew where it has ended.

    Args:
        recipe: the line's, as a pickle.
        budget_s: how long an example may take.
        memory_mb: how much address space it may have.
    """

    def __init__(self, recipe: bytes, budget_s: float, memory_mb: int) -> None:
        self._recipe, self._budget_s, self._memory_mb = recipe, budget_s, memory_mb
        self._process: _Forked | None = None
        self._is_ready = self._is_closed = False
        self._generation = self._newest = 0
        self._dropped: deque[tuple[int, int]] = deque()
        self._unsent, self._read = bytearray(), bytearray()
        self._lock = threading.RLock()
        # For how long the present call has not got on, for how long all have been waited for since
        # others went on, and what is to be done meanwhile.
        self._waited_s = self._unserved_s = 0.0
        self.on_wait: Callable[[], None] | None = None

    # --- learners ------------------------------------------------------------------------------

    def place(self, learner: IsolatedLearner) -> None:
        """Have a learner be in the process: fresh, or read from its bytes.

        Args:
            learner: that is in none, or in one that is gone.

        Raises:
            SnapshotRefused: it does not take the bytes.
            LearnerLost: the process is gone.
        """
        with self._lock:
            self._begin()
            self._newest += 1
            number = self._newest
            op = "fresh" if learner.data is None else "load"
            self._one({"op": op, "id": number}, learner.data or b"")
            learner.generation, learner.number = self._generation, number

    def drop(self, generation: int, number: int) -> None:
        """Let go of a learner, with the next call."""
        self._dropped.append((generation, number))

    def call(
        self, learner: IsolatedLearner, request: dict[str, Any], **members: type
    ) -> tuple[Any, bytes]:
        """What the process says to a request about a learner.

        Args:
            learner: that the stand-in is for.
            request: with `op`.
            members: what it has to say at least, by name, each of a type.

        Raises:
            LearnerLost: the process is gone. What the learner raises comes through in words.
        """
        with self._lock:
            self._find(learner)
            said, data = self._one({**request, "id": learner.number})
            if not all(isinstance(said.get(name), kind) for name, kind in members.items()):
                raise self._end(_NONSENSE)
            return said, data

    def lessons(
        self, learner: IsolatedLearner, lessons: Sequence[Lesson]
    ) -> Generator[Reply, None, None]:
        """Of each lesson what it says, and the seconds that it took."""
        with self._lock:
            self._find(learner)
            left = len(lessons)
            words = [[*lesson] for lesson in lessons]
            request = {"op": "lessons", "id": learner.number, "lessons": words}
            try:
                for said, _ in self._all(request, budgets=SLOW_RUNNING):
                    for reply in self._replies(said, left):
                        left -= 1
                        yield reply
                    if "failure" in said:
                        left = 0
                        raise self._error(said["failure"])
            finally:
                # Nobody is to take what still comes for something else; nor is more to be done.
                if left and self._process is not None:
                    self._end("what it was asked is wanted no more")

    def _replies(self, said: dict[str, Any], left: int) -> list[Reply]:
        """What the process says to the lessons that are left, as it has to be."""
        try:
            replies = [
                Reply(answer, None if error is None else self._error(error), *map(_seconds, took))
                for answer, error, *took in said["replies"]
            ]
        except (LookupError, TypeError, ValueError):
            raise self._end(_NONSENSE) from None
        # Each frame gets on, and no more is said than was asked for.
        if "more" in said:
            is_sound = 0 < len(replies) < left
        elif "failure" in said:
            is_sound = len(replies) < left
        else:
            is_sound = len(replies) == left
        if not is_sound:
            raise self._end(_NONSENSE)
        return replies

    def _find(self, learner: IsolatedLearner) -> None:
        """Make sure that a learner is in the process that there is."""
        self._begin()
        if learner.generation == self._generation:
            return
        if learner.data is None and learner.generation:
            raise LearnerLost("what it had learned is gone with its process")
        self.place(learner)

    # --- the process ---------------------------------------------------------------------------

    def spawn(self) -> None:
        """Have the system begin the process, without waiting for it."""
        with self._lock:
            self._generation += 1
            self._is_ready = self._is_closed = False
            self._read = bytearray()
            hang_s = HANG_BUDGETS * self._budget_s
            bounds = pickle.dumps((sys.path, self._memory_mb, hang_s))
            self._unsent = bytearray(encode_frame(bounds, self._recipe))
            self._process = _NURSERY.fork()

    def close(self) -> None:
        """End the process; whoever waits for it is told that it is lost."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                if self._process is not None:
                    self._end(_CLOSED)
            finally:
                self._lock.release()
            return
        # Another thread waits for it, and ends it for good.
        process = self._process
        if process is not None:
            process.kill()

    @property
    def pid(self) -> int:
        """Of the process, where there is one that has begun; else 0."""
        return 0 if self._process is None else self._process.pid

    def _begin(self) -> None:
        """Have the process be there, and ready."""
        try:
            if self._process is None:
                self.spawn()
            if not self._is_ready:
                # It says who it is, takes what it was sent, and says so.
                said, _ = self._sole(self._frames(None))
                assert self._process is not None, "it has just been heard of"
                self._process.pid = int(said["pid"])
                self._sole(self._frames(None))
                self._is_ready = True
        except OSError as error:
            raise LearnerLost(f"its process cannot begin: {brief_error(error)}") from None
        except (BadAnswer, SnapshotRefused, _Raised) as error:
            raise self._end(f"it cannot begin: {error}") from None

    def _one(self, request: dict[str, Any], body: bytes = b"") -> tuple[Any, bytes]:
        return self._sole(self._all(request, body))

    def _sole(self, frames: Iterator[tuple[Any, bytes]]) -> tuple[Any, bytes]:
        """The one frame that there has to be."""
        said, data = next(frames)
        if "more" in said:
            raise self._end(_NONSENSE)
        for _ in frames:
            raise AssertionError("frames go on only after `more`")
        return said, data

    def _all(
        self, request: dict[str, Any], body: bytes = b"", budgets: int = HANG_BUDGETS
    ) -> Iterator[tuple[Any, bytes]]:
        """What the process says to a request, to its end; it gets on within so many budgets."""
        dropped = []
        while self._dropped:
            generation, number = self._dropped.popleft()
            if generation == self._generation:
                dropped.append(number)
        if dropped:
            request["drop"] = dropped
        try:
            head = orjson.dumps(request)
        except TypeError as error:
            raise AssertionError(f"a request is no JSON: {error}") from None
        if self._is_unasked():
            raise self._end(_NONSENSE)
        self._unsent += encode_frame(head, body)
        yield from self._frames(budgets)

    def _frames(self, budgets: int | None) -> Iterator[tuple[Any, bytes]]:
        while True:
            head, body = self._frame(budgets)
            try:
                said = orjson.loads(head)
            except orjson.JSONDecodeError:
                said = None
            if not isinstance(said, dict):
                raise self._end("it said what is no JSON object")
            if "error" in said:
                raise self._error(said["error"])
            yield said, body
            if "more" not in said:
                return

    def _frame(self, budgets: int | None) -> tuple[bytes, bytes]:
        """The next frame, within so many budgets, or a start's time; sends what is unsent."""
        hang_s, told = START_S, "its time to begin"
        if budgets is not None:
            hang_s = budgets * self._budget_s
            told = f"{budgets} times STREAM_ML_LEARN_BUDGET_SECONDS"
        self._waited_s = 0.0
        try:
            while True:
                frame = self._take_frame()
                if frame is not None:
                    return frame
                if self._waited_s > hang_s:
                    raise self._end(f"it had not returned for {hang_s:g} s, {told}")
                busy_s = self._serve_others()
                known = len(self._read)
                if not self._pump():
                    raise self._end(
                        "it ended with code {code}; it may have "
                        f"{self._memory_mb} MB (STREAM_ML_LINE_MEMORY_MB)"
                    )
                if self._is_closed:
                    raise self._end(_CLOSED)
                # One that has said something meanwhile is not held to account for it.
                if len(self._read) == known:
                    self._waited_s += busy_s
        finally:
            self._waited_s = 0.0

    def _serve_others(self) -> float:
        """Do what cannot wait, where a call does not get on; the seconds that it took."""
        # What is asked for is sent first: nobody is held to account for what they were not asked.
        waited_s = self._waited_s if self._unsent else max(self._waited_s, self._unserved_s)
        if self.on_wait is None or waited_s <= PATIENCE_S:
            return 0.0
        self._unserved_s = 0.0
        start_s = time.monotonic()
        self.on_wait()
        return time.monotonic() - start_s

    def _take_frame(self) -> tuple[bytes, bytes] | None:
        if len(self._read) < HEAD.size:
            return None
        head_bytes, body_bytes = HEAD.unpack_from(self._read)
        if head_bytes > _HEAD_BYTES_MAX or body_bytes > STATE_BYTES_MAX:
            raise self._end(f"it gave {head_bytes + body_bytes} bytes at once")
        end = HEAD.size + head_bytes + body_bytes
        if len(self._read) < end:
            return None
        head = bytes(self._read[HEAD.size : HEAD.size + head_bytes])
        body = bytes(self._read[HEAD.size + head_bytes : end])
        del self._read[:end]
        return head, body

    def _pump(self) -> bool:
        """Send and read what can be, for a tick at most; whether the process is there."""
        process = self._process
        if process is None:
            return False
        reader, writer = process.reader, process.writer
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        try:
            if self._unsent:
                del self._unsent[: os.write(writer, self._unsent[:_READ_BYTES])]
        except BlockingIOError:
            poll.register(writer, select.POLLOUT)
        except BrokenPipeError:
            return False
        start_s = time.monotonic()
        events = poll.poll(TICK_S * 1_000)
        # A machine that stood still has had no time for the process either. Bytes alone are no
        # progress: only a frame is.
        tick_s = time.monotonic() - start_s
        self._waited_s += min(tick_s, 2 * TICK_S)
        self._unserved_s += tick_s
        if any(handle == reader for handle, _ in events):
            chunk = os.read(reader, _READ_BYTES)
            self._read += chunk
            return bool(chunk)
        return True

    def _is_unasked(self) -> bool:
        """Whether the process has said something before it was asked."""
        if self._read or self._process is None:
            return bool(self._read)
        poll = select.poll()
        poll.register(self._process.reader, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))

    def _error(self, said: Any) -> Exception:
        """An error, raised again."""
        if not (isinstance(said, list) and len(said) == 3 and all(type(x) is str for x in said)):  # noqa: PLR2004
            raise self._end(_NONSENSE)
        kind, reason, text = said
        if kind == ANSWER:
            return BadAnswer(text)
        if kind == REFUSED:
            return SnapshotRefused(reason, text)
        return _Raised(text)

    def _end(self, reason: str) -> LearnerLost:
        """End the process; the error that says why."""
        process, self._process = self._process, None
        self._is_ready = False
        code = None if process is None else process.end()
        return LearnerLost(f"its process was lost: {reason.replace('{code}', str(code))}")


def _seconds(said: Any) -> float:
    """How long something took, in seconds, as a process says it."""
    if type(said) not in (int, float) or not 0 <= said <= _SECONDS_MAX:
        raise ValueError(said)
    return float(said)


class Isolation:
    """The processes of the lines of a pipeline, which begin with `running`; close it.

    Args:
        pipeline: the declaration.
        lines: which are isolated: `own`, `all`, `none`, or names.
        budget_s: how long a line may take over an example.
        memory_mb: how much address space a process may have.
        say: told of each line that cannot be isolated, and why.

    Raises:
        UsageError: a name is that of no line.

    Attributes:
        processes: by line, as it runs.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        lines: Collection[str] = (OWN,),
        *,
        budget_s: float = LEARN_BUDGET_S,
        memory_mb: int = LINE_MEMORY_MB,
        say: Callable[[str, str], None] = lambda _line, _why: None,
    ) -> None:
        unknown = set(lines) - {OWN, ALL, NONE, *pipeline.models}
        if unknown:
            raise UsageError(
                f"STREAM_ML_ISOLATED_LINES: expected {OWN}, {ALL}, {NONE} or lines "
                f"({', '.join(pipeline.models)}), given {', '.join(sorted(unknown))}"
            )
        self._lines, self._say = lines, say
        self._limits = budget_s, memory_mb
        self.processes: dict[str, _LineProcess] = {}
        # What they were begun for, and the same with stand-ins.
        self._recipes: Mapping[str, Recipe] = {}
        self._pipeline = pipeline

    def running(self, pipeline: Pipeline) -> Pipeline:
        """The declaration as it runs on a log, whose recipes make stand-ins.

        Its processes begin, where they have not: what lines are called there the log says.

        Args:
            pipeline: the one that this was made for, as the log has it.
        """
        if pipeline.recipes != self._recipes:
            self.close()
            self._begin(pipeline)
        return self._pipeline

    def _begin(self, pipeline: Pipeline) -> None:
        self._recipes = pipeline.recipes
        self.processes = {}
        # What serves may be a former version of a line, whose code is as much one's own.
        for name, recipe in {**pipeline.recipes, **pipeline.former_recipes}.items():
            if not _is_meant(recipe, self._lines):
                continue
            try:
                data = pickle.dumps(recipe)
            except STOPS:
                raise
            except BaseException as error:  # noqa: BLE001 - a learner's parts may raise anything
                self._say(name, f"it cannot be handed to another process: {brief_error(error)}")
                continue
            self.processes[name] = _LineProcess(data, *self._limits)
        self._pipeline = self._isolated(pipeline)

    def _isolated(self, pipeline: Pipeline) -> Pipeline:
        if not self.processes:
            return pipeline
        # A former version's begins with the first call: learn has none, and evaluate calls it only
        # while it serves.
        for name, process in self.processes.items():
            if name in pipeline.recipes:
                process.spawn()
        isolated = copy.copy(pipeline)
        vars(isolated)["recipes"] = self._stand_ins(pipeline.recipes)
        vars(isolated)["former_recipes"] = self._stand_ins(pipeline.former_recipes)
        return isolated

    def _stand_ins(self, recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
        """The recipes, those that have a process in its place."""
        return {
            name: IsolatedRecipe(recipe, self.processes[name]) if name in self.processes else recipe
            for name, recipe in recipes.items()
        }

    def on_wait(self, call: Callable[[], None]) -> None:
        """Have something done again and again while a call does not get on.

        Args:
            call: does what cannot wait, raises nothing, and asks no line's process.
        """
        for process in self.processes.values():
            process.on_wait = call

    def close(self) -> None:
        """End all processes; what is being called is lost."""
        for process in self.processes.values():
            process.close()


def _is_meant(recipe: Recipe, lines: Collection[str]) -> bool:
    if NONE in lines:
        return False
    is_own = isinstance(recipe.estimator, Model) or bool(recipe.classes)
    declared_name = recipe.name.partition(".")[0]
    return ALL in lines or declared_name in lines or (OWN in lines and is_own)


Isolations = dict[str, Isolation]


def isolated(pipeline: Pipeline, isolations: Isolations | None) -> tuple[Pipeline, Pipeline]:
    """The declaration as learn and as evaluate have it.

    Args:
        pipeline: as it was declared.
        isolations: by those stages; None: as it was declared.
    """
    if isolations is None:
        return pipeline, pipeline
    return isolations["learn"].running(pipeline), isolations["evaluate"].running(pipeline)
