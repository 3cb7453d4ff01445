"""The processes of a run: started, watched, killed, started again, and never left behind.

A worker is `stream-ml worker STAGE` as an operator would start it. What it says (JSON lines) and
how much memory it holds is kept with the time; what it says on stderr goes to a file. A worker
that ends is started again, as a supervisor would, unless it was removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import parameters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = ["ROOT", "Child", "Fleet", "Worker"]

ROOT = Path(__file__).parents[1]
AGAIN_S = 0.3
STOP_S = 20.0
SAMPLE_S = 0.5
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Child:
    """A process whose JSON lines are kept as [(time, object)], and whose stderr goes to a file."""

    def __init__(self, command: Sequence[str], folder: Path, name: str, **variables: str) -> None:
        ours = {n: v for n, v in os.environ.items() if not n.startswith("STREAM_ML_")}
        self.name = name
        self.stderr = folder / f"{name}.stderr"
        self.start_s = time.time()
        self.messages: list[tuple[float, dict[str, Any]]] = []
        folder.mkdir(parents=True, exist_ok=True)
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
                command,
                cwd=ROOT,
                env={**ours, "PYTHONPATH": str(ROOT), **variables},
                # Held open by us alone: a supervised worker stops when it ends.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self.messages.append((time.time(), json.loads(line)))

    def sayings(self, kind: str) -> list[dict[str, Any]]:
        """What it has said of one kind."""
        return [members for _, members in list(self.messages) if members.get("said") == kind]

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def last_words(self) -> str:
        """The last line that it wrote on stderr."""
        lines = self.stderr.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on stderr"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; harmless where it has ended."""
        if self.lives:
            self.process.send_signal(number)

    def end(self, number: signal.Signals, seconds: float = STOP_S) -> int:
        """End it and wait; killed where it does not end by itself. What it exited with."""
        self.signal(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)
        self._listener.join(STOP_S)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        return int(self.process.returncode)


class Worker(Child):
    """A worker of a stage. `ending` says why it ends, where that is our doing."""

    def __init__(
        self, stage: str, number: int, life: int, command: Sequence[str], folder: Path, **env: str
    ) -> None:
        super().__init__(command, folder, f"{stage}-{number}.{life}", **env)
        self.stage = stage
        self.number = number
        self.life = life
        self.ending = ""
        # Seconds since its start and resident megabytes.
        self.memory: list[tuple[float, float]] = []
        self.cpu_s = 0.0

    def sample(self) -> None:
        """Note how much memory it holds, and how much time it has used."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            used = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            return
        if pages:
            self.memory.append((time.time() - self.start_s, pages * PAGE_BYTES / 2**20))
            self.cpu_s = (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


class Fleet:
    """The workers of a pipeline; as a context manager it leaves none behind.

    Args:
        broker: `host:port`.
        folder: where stderr goes.
        plant: a bug of `chaos.planted_bugs` that every worker is to have.
        variables: of the environment, beside the key.
    """

    def __init__(
        self, broker: str, folder: Path, plant: str | None = None, **variables: str
    ) -> None:
        self._options = ["--broker", f"kafka://{broker}", "--pipeline", "chaos.world:world"]
        self._folder = folder
        self._plant = plant
        self._variables = {"STREAM_ML_KEY": parameters.KEY, **variables}
        self.workers: list[Worker] = []
        self._due: list[tuple[float, str, int, int]] = []
        self._sample_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *arguments: str) -> list[str]:
        """`stream-ml ARGUMENTS`, with the planted bug where there is one."""
        plant = (
            f"from chaos import planted_bugs; planted_bugs.{self._plant}(); " if self._plant else ""
        )
        code = f"{plant}import sys; from stream_ml.cli.main import main; sys.exit(main())"
        return [sys.executable, "-c", code, *arguments, *self._options]

    def set(self, variable: str, value: str) -> None:
        """Set a variable of those that are started from now on."""
        self._variables[variable] = value

    def run(self, *arguments: str) -> None:
        """Run a command of stream-ml to its end.

        Raises:
            CalledProcessError: it failed; what it said is on our stderr.
        """
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self._variables}
        subprocess.run(  # noqa: S603 - our own interpreter and words
            self.command(*arguments),
            cwd=ROOT,
            env=environment,
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )

    def add(self, stage: str) -> Worker:
        """A worker more."""
        numbers = {worker.number for worker in self.workers if worker.stage == stage}
        return self.start(stage, max(numbers, default=0) + 1, 1)

    def start(self, stage: str, number: int, life: int) -> Worker:
        """A worker in its life of this number."""
        options = ("--supervised", "--format", "json", "--instance", f"{stage}-{number}")
        command = self.command("worker", stage, *options)
        worker = Worker(stage, number, life, command, self._folder, **self._variables)
        self.workers.append(worker)
        return worker

    def living(self, stage: str) -> list[Worker]:
        """The workers of a stage that live and are not about to end."""
        return [w for w in self.workers if w.stage == stage and w.lives and not w.ending]

    def kill(self, stage: str, draw: int) -> Worker | None:
        """Kill one of the stage's workers; None if none lives now."""
        return self._finish(stage, draw, "killed", signal.SIGKILL)

    def remove(self, stage: str, draw: int) -> Worker | None:
        """Ask one of the stage's workers to stop; None if none lives now."""
        return self._finish(stage, draw, "removed", signal.SIGTERM)

    def _finish(self, stage: str, draw: int, ending: str, number: signal.Signals) -> Worker | None:
        living = self.living(stage)
        if not living:
            return None
        worker = living[draw % len(living)]
        worker.ending = ending
        worker.signal(number)
        return worker

    def look_after(self) -> list[Worker]:
        """Start again who has ended and is due, take samples; who ended since the last time."""
        now_s = time.time()
        dead = [w for w in self.workers if not w.lives and w.process.stdin is not None]
        dead = [w for w in dead if w.process.stdin is not None and not w.process.stdin.closed]
        for worker in dead:
            worker.end(signal.SIGKILL)
            if worker.ending != "removed":
                worker.ending = worker.ending or "by itself"
                self._due.append((now_s + AGAIN_S, worker.stage, worker.number, worker.life + 1))
        for entry in [entry for entry in self._due if entry[0] <= now_s]:
            self._due.remove(entry)
            self.start(*entry[1:])
        if now_s - self._sample_s >= SAMPLE_S:
            self._sample_s = now_s
            for worker in self.workers:
                if worker.lives:
                    worker.sample()
        return dead

    def stop(self) -> None:
        """Stop every worker, by force where asking does not help."""
        for worker in self.workers:
            worker.ending = worker.ending or "stopped"
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for worker in self.workers:
            if worker.lives or worker.process.returncode is None:
                worker.end(signal.SIGTERM, max(0.1, deadline - time.monotonic()))
        for worker in self.workers:
            if worker.process.stdin is not None and not worker.process.stdin.closed:
                worker.end(signal.SIGKILL)
