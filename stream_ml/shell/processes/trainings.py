"""Trains retrained lines, each training in a process of its own, bounded in time and memory.

Theory of operation:

1. What is to be trained is written to a file without a name, which the process has for its input;
   its output is another one. So nobody waits for a pipe. Both are ours from end to end: what the
   process is given never lay on a log.
2. The process bounds its own memory, runs at a low priority and by one thread, and ends when its
   time is up, or when the worker that began it is gone.
3. A worker asks for the model when its instant has come, and waits until then no moment. What has
   not ended in time is killed, and its line alone is told of that.
"""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from stream_ml.defaults import TRAINING_MEMORY_MB, TRAINING_S
from stream_ml.errors import STOPS, SnapshotRefused, brief_error

if TYPE_CHECKING:
    from stream_ml.models.retrained import TrainingJob

__all__ = ["ProcessTrainings"]

# What the output begins with: a model, or why there is none.
_MODEL, _FAILURE = b"+", b"-"
# A worker's death is noticed within a second.
ORPHAN_CHECK_S = 1.0
# The process ends by itself where nobody does that for it.
GRACE_S = 10.0
_NICENESS = 5
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(slots=True)
class _Running:
    """A training at work; `failure` says why it never began."""

    process: subprocess.Popen[bytes] | None
    output: IO[bytes] | None
    deadline_s: float
    failure: str = ""


class ProcessTrainings:
    """Whoever trains for a worker; see `stages.retraining.Trainings`.

    Args:
        seconds: how long a training may take.
        memory_mb: how many megabytes of address space its process may have.
    """

    def __init__(self, seconds: float = TRAINING_S, memory_mb: int = TRAINING_MEMORY_MB) -> None:
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._running: dict[str, _Running] = {}

    def begin(self, job: TrainingJob) -> None:
        """Begin a training, in the place of an earlier one of the line.

        Args:
            job: what to do.
        """
        self.stop(job.line)
        running = _Running(None, None, time.monotonic() + self._seconds)
        self._running[job.line] = running
        try:
            # It is open until the training has ended.
            running.output = tempfile.TemporaryFile()  # noqa: SIM115
            with tempfile.TemporaryFile() as file:
                pickle.dump((sys.path, os.getpid(), self._seconds, self._memory_mb), file)
                pickle.dump(job, file)
                file.seek(0)
                running.process = subprocess.Popen(
                    [sys.executable, "-m", "stream_ml.shell.processes.trainings"],
                    stdin=file,
                    stdout=running.output,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - a trainer's parts may raise anything
            running.failure = f"it cannot be handed to another process: {brief_error(error)}"

    def end(self, line: str) -> bytes:
        """The model of the line's training, waited for if need be.

        Args:
            line: whose training began.

        Raises:
            SnapshotRefused: it failed, or took more than it may.
        """
        running = self._running.pop(line)
        with running.output or nullcontext() as output:
            if running.process is None or output is None:
                raise _failed(running.failure)
            try:
                code = running.process.wait(max(0.0, running.deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
                raise _failed(
                    f"it took longer than {self._seconds:g} s (STREAM_ML_TRAINING_SECONDS)"
                ) from None
            output.seek(0)
            kind, data = output.read(1), output.read()
        if kind == _MODEL:
            return data
        if kind == _FAILURE:
            raise _failed(data.decode(errors="replace"))
        raise _failed(
            f"its process ended with code {code}; it may have {self._memory_mb} MB "
            "(STREAM_ML_TRAINING_MEMORY_MB)"
        )

    def stop(self, line: str) -> None:
        """End the line's training, if there is one.

        Args:
            line: of any name.
        """
        running = self._running.pop(line, None)
        if running is not None:
            if running.output is not None:
                running.output.close()
            if running.process is not None:
                running.process.kill()
                running.process.wait()

    def close(self) -> None:
        """End all trainings."""
        for line in list(self._running):
            self.stop(line)


def _failed(reason: str) -> SnapshotRefused:
    return SnapshotRefused("training", f"training failed: {reason}")


# --- the process -----------------------------------------------------------------------------


def _main() -> None:
    """Train what lies in the input, and write the model to the output."""
    for name in _THREADS:
        # Before any library that would read it: one thread adds up in one order.
        os.putenv(name, "1")
    # What libraries print goes elsewhere.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    path, parent, seconds, memory_mb = pickle.load(sys.stdin.buffer)
    _watch(parent, seconds + GRACE_S)
    os.nice(_NICENESS)
    memory = memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sys.path[:] = path
    try:
        job: Any = pickle.load(sys.stdin.buffer)
        answer = _MODEL + job.run()
    except SnapshotRefused as refusal:
        answer = _FAILURE + str(refusal).encode()
    except MemoryError:
        reason = f"it takes more than {memory_mb} MB of memory (STREAM_ML_TRAINING_MEMORY_MB)"
        answer = _FAILURE + reason.encode()
    except BaseException as error:  # noqa: BLE001 - a trainer may raise anything
        answer = _FAILURE + brief_error(error).encode()
    output.write(answer)
    output.flush()
    # Whatever threads or hooks a library has left need not end.
    os._exit(0)


def _watch(parent: int, seconds: float) -> None:
    """End this process when its time is up, or its parent gone."""
    deadline_s = time.monotonic() + seconds

    def watch() -> None:
        while os.getppid() == parent and time.monotonic() < deadline_s:
            time.sleep(ORPHAN_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _main()
