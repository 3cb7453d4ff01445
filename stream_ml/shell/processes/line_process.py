"""The process of one line: whatever its learners do, they do it here; see `isolation`.

Theory of operation:

1. A nursery imports what all need, once, and forks a process for each line: a line's begins within
   milliseconds, and shares what it has not written. The nursery runs nothing of a user's, has one
   thread, and ends with its parent. It is also who learns of how a process ended.
2. The input of a line's process is a sequence of frames (`encode_frame`). The first one is two
   pickles: the bounds of the process, and the line's recipe. Every later one is a request, as JSON,
   with bytes behind it (a state); each is answered by one frame or, of many lessons, by several.
   Learners are known by numbers that the parent gives them.
3. Nothing that goes back is more than JSON and bytes: the parent reads numbers and texts, and runs
   nothing that this process says.
4. The process bounds its own memory, runs at a low priority and by one thread, and has the system
   end it when a request takes too long: that holds in the midst of a library as well. It ends when
   its input does, that is with its parent.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import SnapshotRefused, brief_error
from stream_ml.models.recipes import BadAnswer, answer, learn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from stream_ml.models.recipes import Recipe

__all__ = ["ANSWER", "GRACE_S", "HEAD", "RAISED", "REFUSED", "START_S", "UNKNOWN", "encode_frame"]

# Before each frame: the lengths of its JSON, or first pickle, and of the bytes behind it.
HEAD = struct.Struct("<II")
# What an error is told as: no answer, a refusal, and whatever else was raised.
ANSWER, REFUSED, RAISED = "answer", "refused", "raised"
# What the nursery says of a process that is none of its own.
UNKNOWN = b"?"
# Of many rows, what has been answered is told so often: the parent sees that we get on.
TELL_S = 0.02
# A process that begins imports the user's module, and with it libraries.
START_S = 120.0
# Where the parent does not end us, the system does, so much later (in seconds).
GRACE_S = 5.0
_NICENESS = 5


def encode_frame(head: bytes, body: bytes = b"") -> bytes:
    """A frame, as either side writes it.

    Args:
        head: JSON, or a pickle.
        body: bytes that go with it.
    """
    return HEAD.pack(len(head), len(body)) + head + body


class _Learners:
    """The learners of a line, by number, and what can be asked of them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._learners: dict[int, Any] = {}

    def answer_request(self, request: dict[str, Any], body: bytes) -> Iterator[bytes]:
        """The frames that answer a request.

        Args:
            request: with the members `op` and `id`, and what the operation takes.
            body: a state.
        """
        for number in request.get("drop", ()):
            self._learners.pop(number, None)
        operations: dict[str, Callable[[dict[str, Any], bytes], Iterator[bytes]]] = {
            "lessons": self._lessons,
            "fresh": self._fresh,
            "load": self._load,
            "batch": self._batch,
            "dump": self._dump,
            "identity": self._identity,
            "digest": self._digest,
        }
        return operations[request["op"]](request, body)

    def _lessons(self, request: dict[str, Any], _: bytes) -> Iterator[bytes]:
        learner, lessons = self._learners[request["id"]], request["lessons"]
        replies: list[Any] = []
        clock = time.perf_counter
        told_s = clock()
        for number, lesson in enumerate(lessons, 1):
            try:
                replies.append(self._lesson(learner, *lesson))
            except BaseException as error:  # noqa: BLE001 - a learner may raise anything
                yield encode_frame(orjson.dumps({"replies": replies, "failure": _told(error)}))
                return
            now_s = clock()
            if number < len(lessons) and now_s - told_s > TELL_S:
                yield encode_frame(orjson.dumps({"replies": replies, "more": True}))
                replies, told_s = [], now_s
        yield encode_frame(orjson.dumps({"replies": replies}))

    def _lesson(
        self, learner: Any, features: dict[str, float], label: Any, is_asked: bool
    ) -> list[Any]:
        """Ask a learner, and then teach it; raises what learning does."""
        target, clock = self._recipe.target, time.perf_counter
        assert target is not None, "the recipes of a pipeline have a target"
        said, told = None, None
        start_s = clock()
        if is_asked:
            try:
                said = answer(learner, target, features)
            except BaseException as error:  # noqa: BLE001 - as above
                told = _told(error)
        asked_s = clock()
        if label is not None:
            learn(learner, target, features, label)
        return [said, told, asked_s - start_s, clock() - asked_s]

    def _fresh(self, request: dict[str, Any], _: bytes) -> Iterator[bytes]:
        self._learners[request["id"]] = self._recipe.fresh()
        yield encode_frame(b"{}")

    def _load(self, request: dict[str, Any], body: bytes) -> Iterator[bytes]:
        self._learners[request["id"]] = self._recipe.load(body)
        yield encode_frame(b"{}")

    def _batch(self, request: dict[str, Any], _: bytes) -> Iterator[bytes]:
        self._recipe.set_batch(self._learners[request["id"]], request["batch"])
        yield encode_frame(b"{}")

    def _dump(self, request: dict[str, Any], _: bytes) -> Iterator[bytes]:
        yield encode_frame(b"{}", self._recipe.dump(self._learners[request["id"]]))

    def _identity(self, request: dict[str, Any], body: bytes) -> Iterator[bytes]:
        digest, size = self._recipe.identity(self._learners[request["id"]], body)
        yield encode_frame(orjson.dumps({"digest": digest, "size": size}))

    def _digest(self, request: dict[str, Any], body: bytes) -> Iterator[bytes]:
        learner = self._learners[request["id"]]
        digest = self._recipe.digest(learner, body, like=request["like"])
        yield encode_frame(orjson.dumps({"digest": digest}))


def _told(error: BaseException) -> list[str]:
    """An error as the parent raises it again."""
    if isinstance(error, BadAnswer):
        return [ANSWER, "", str(error)]
    if isinstance(error, SnapshotRefused):
        return [REFUSED, error.reason, str(error)]
    return [RAISED, "", brief_error(error)]


def _read(file: BinaryIO) -> tuple[bytes, bytes]:
    """The next frame; the process ends where there is none."""
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        os._exit(0)
    head_bytes, body_bytes = HEAD.unpack(head)
    return file.read(head_bytes), file.read(body_bytes)


def _work(requests: BinaryIO, output: BinaryIO) -> None:
    """Answer requests until there are no more."""
    output.write(encode_frame(orjson.dumps({"pid": os.getpid()})))
    output.flush()
    first, second = _read(requests)
    path, memory_mb, seconds = pickle.loads(first)
    _bound(memory_mb)
    sys.path[:] = path
    learners: Any = None
    head, body = b"", second
    while True:
        _set_alarm(seconds if learners else START_S)
        try:
            if learners is None:
                learners = _Learners(pickle.loads(body))
                last = encode_frame(b"{}")
            else:
                last = b""
                for frame in learners.answer_request(orjson.loads(head), body):
                    output.write(frame)
                    output.flush()
                    # It gets on: who asks counts from here as well.
                    _set_alarm(seconds)
        except BaseException as error:  # noqa: BLE001 - a user's code may raise anything
            last = encode_frame(orjson.dumps({"error": _told(error)}))
        output.write(last)
        output.flush()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        head, body = _read(requests)


def _set_alarm(seconds: float) -> None:
    """Have the system end this process, for nobody handles the alarm."""
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)


def _bound(memory_mb: int) -> None:
    """Bound what this process may have."""
    os.nice(_NICENESS)
    memory = memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _be_line(handles: list[int]) -> None:
    """Become the process of a line, which reads and writes there."""
    requests, output = handles
    os.dup2(requests, 0)
    os.close(requests)
    os.setsid()
    gc.enable()
    with suppress(BaseException):
        _work(os.fdopen(0, "rb"), os.fdopen(output, "wb"))
    # Whatever threads or hooks a library has left need not end.
    os._exit(1)


def _main() -> None:
    """Fork a process for each pair of handles that is sent, and say how those ended."""
    # What libraries print goes elsewhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    parent = socket.socket(fileno=os.dup(0))
    gc.collect()
    gc.freeze()
    children: set[int] = set()
    while True:
        message, handles, _, _ = socket.recv_fds(parent, 64, 2)
        if not message:
            os._exit(0)
        _reap(children)
        if handles:
            pid = os.fork()
            if not pid:
                parent.close()
                _be_line(handles)
            children.add(pid)
            for handle in handles:
                os.close(handle)
            continue
        code = UNKNOWN
        with suppress(ChildProcessError):
            code = str(os.waitstatus_to_exitcode(os.waitpid(int(message), 0)[1])).encode()
        children.discard(int(message))
        parent.send(code)


def _reap(children: set[int]) -> None:
    """Take leave of those that have ended since nobody was there any more, and are not asked for.

    Any other keeps its number until it is asked for: whoever ends it ends no stranger.
    """
    for pid in sorted(children):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0):
            os.waitpid(pid, 0)
            children.discard(pid)


if __name__ == "__main__":
    _main()
