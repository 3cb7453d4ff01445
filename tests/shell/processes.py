"""Processes of ours, as terminals run them: started, read line by line, stopped, never left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Far more than any step takes, even on a machine that is busy with something else.
DEADLINE_S = 60.0
STREAM_ML = [
    sys.executable,
    "-c",
    "import sys; from stream_ml.cli.main import main; sys.exit(main())",
]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """What the environment has without any of ours, and what is added."""
    ours = {name: value for name, value in os.environ.items() if name[:10] != "STREAM_ML_"}
    ours["PYTHONPATH"] = str(Path(__file__).parent)
    return {**ours, **variables}


class Terminal:
    """A `stream-ml` command in a process of its own; a context manager that leaves none behind.

    Args:
        arguments: what follows `stream-ml`.
        folder: where it runs.
        variables: beside what the environment has without any of ours.
    """

    def __init__(self, *arguments: str, folder: Path, **variables: str) -> None:
        # What it says beside its output is read when it has ended, however much that is.
        self._said = (folder / f"said-{time.monotonic_ns()}").open("w+b")
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
            [*STREAM_ML, *arguments],
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        self._out = b""

    def write(self, text: bytes) -> None:
        """Type something."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def line(self) -> str:
        """Its next line, waited for."""
        deadline = time.monotonic() + DEADLINE_S
        while b"\n" not in self._out:
            assert self._more(deadline - time.monotonic()), (
                f"ended after {self._out!r}; said beside: {self._heard()}"
            )
        line, _, self._out = self._out.partition(b"\n")
        return line.decode()

    def line_with(self, words: str) -> str:
        """Its next line with these words; those before it are passed over."""
        while words not in (line := self.line()):
            pass
        return line

    def ended(self) -> Ended:
        """How it ends by itself, its input being over."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        deadline = time.monotonic() + DEADLINE_S
        while self._more(deadline - time.monotonic()):
            pass
        code = self.process.wait(DEADLINE_S)
        return Ended(code, self._out.decode(), self._heard())

    def stopped(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """How it ends when it is asked to."""
        self.process.send_signal(number)
        return self.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stdout, self._said):
            if stream is not None and not stream.closed:
                stream.close()

    def _heard(self) -> str:
        self._said.seek(0)
        return self._said.read().decode()

    def _more(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, seconds))
        assert ready, (
            f"nothing for {DEADLINE_S} seconds after {self._out!r}; said beside: {self._heard()}"
        )
        chunk = os.read(self.process.stdout.fileno(), 65_536)
        self._out += chunk
        return bool(chunk)
