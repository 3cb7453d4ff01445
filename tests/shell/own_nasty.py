"""Learners that do the worst, each from an example on: of a module, so that processes know them."""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import stat
import struct
import subprocess
from contextlib import suppress
from typing import Any

from river import base

import stream_ml as sml

__all__ = ["PATIENCE", "Deed", "RiverDeed"]

# After so many examples it does what it does.
PATIENCE = 150


class Deed(sml.Learner):
    """Counts, and says a half, until its time has come.

    Args:
        deed: what it does then: `hang`, `deaf` (in C), `babble`, `hoard`, `exit`, `raise`, `nan`,
            `crash`, `unwritable`, `child` (begins another process), `say` (writes a frame),
            `trickle` (writes one by bytes), `slow`, or nothing.
        place: where: `learn`, `answer`, `rare` (at one answer in fifty), `dump` or `load`.
        patience: after how many examples.
        words: what it says for itself, where it does: the JSON of a frame.
    """

    def __init__(
        self, deed: str = "", place: str = "learn", patience: int = PATIENCE, words: str = ""
    ) -> None:
        self.deed, self.place, self.patience, self.words = deed, place, patience, words
        self.count = 0
        self.hoard: list[Any] = []

    def predict_one(self, features: Any) -> Any:
        """A half."""
        x = features.get("x", 0.0)
        answer = self._do("answer", 1 / (2 + self.count % 3 + x**2))
        return answer if int(x * 1_000) % 50 else self._do("rare", answer)

    def learn_one(self, features: Any, label: Any) -> None:  # noqa: ARG002 - the protocol's
        """Count."""
        self.count += 1
        self._do("learn", None)

    def dump(self) -> bytes:
        """The count."""
        return self._do("dump", json.dumps(self.count).encode())  # type: ignore[no-any-return]

    def load(self, data: bytes) -> None:
        """The count."""
        self.count = int(json.loads(data))
        self._do("load", None)

    def _do(self, place: str, value: Any) -> Any:
        if place != self.place or self.count <= self.patience:
            return value
        return getattr(self, f"_{self.deed}")(value)

    def _(self, value: Any) -> Any:
        return value

    def _hang(self, _: Any) -> Any:
        while True:
            pass

    def _slow(self, value: Any) -> Any:
        ctypes.CDLL(None).usleep(50_000)
        return value

    def _deaf(self, value: Any) -> Any:
        # It holds Python's lock, and nothing in Python runs any more.
        ctypes.PyDLL(None).pause()
        return value

    def _hoard(self, _: Any) -> Any:
        while True:
            self.hoard.append(bytes(1 << 26))  # of pages that nobody touches

    def _exit(self, _: Any) -> Any:
        raise SystemExit(3)

    def _raise(self, _: Any) -> Any:
        raise ArithmeticError("no")

    def _crash(self, _: Any) -> Any:
        ctypes.string_at(0)

    def _babble(self, value: Any) -> Any:
        for handle in range(3, 10):
            with suppress(OSError):
                os.write(handle, b"\xff" * 64)
        return value

    def _say(self, value: Any) -> Any:
        head = self.words.encode()
        os.write(_output(), struct.pack("<II", len(head), 0) + head)
        return value

    def _trickle(self, _: Any) -> Any:
        os.write(_output(), struct.pack("<II", 1 << 24, 0))
        while True:
            os.write(_output(), b" ")

    def _child(self, _: Any) -> Any:
        raise ArithmeticError(subprocess.Popen(["/bin/sleep", "600"]).pid)

    def _nan(self, _: Any) -> float:
        return math.nan

    def _unwritable(self, _: Any) -> str:
        return "no bytes"


def _output() -> int:
    """The handle by which a line's process answers: the only pipe that it writes to."""
    for handle in range(3, 100):
        with suppress(OSError):
            is_pipe = stat.S_ISFIFO(os.fstat(handle).st_mode)
            if is_pipe and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                return handle
    raise AssertionError("it is not in a process of its own")


class RiverDeed(base.Classifier):  # type: ignore[misc]
    """A share of True, of a class of river's kind."""

    def __init__(self) -> None:
        self.yes, self.all = 0, 0

    def predict_proba_one(self, x: Any) -> Any:
        """The share."""
        return {True: (self.yes + 1) / (self.all + 2 + x["x"] ** 2)} if self.all else {}

    def learn_one(self, x: Any, y: Any) -> None:  # noqa: ARG002 - river's protocol
        """Count."""
        self.yes, self.all = self.yes + y, self.all + 1
