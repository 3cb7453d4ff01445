"""The windows of examples that lines are trained anew on, and when that happens.

Theory of operation:

1. Each example is added to the window of every retrained line, as a row of numbers. Rows lie in
   chunks that change only at their end, so that a checkpoint writes the newest chunk and no other.
2. At a refresh instant, first the model that was trained since an earlier one is published, then
   the next training begins, on the window as it is there, where the line's cadence has come. So a
   training has from one instant to the next, and holds nobody up who does not reach the next one
   before it ends. Both instants are functions of the log; a replay trains on the same rows.
3. The state holds the rows of a training until its model is published: after a crash it begins
   anew, to the same bytes.
4. Whoever does the training is handed in (`Trainings`): a process of its own for each, or nobody
   (`TrainingsInPlace`), where a replay is wanted and no haste.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stream_ml.errors import STOPS, SnapshotRefused, brief_error
from stream_ml.features.sparse import expand
from stream_ml.models.pickles import compress, decompress
from stream_ml.models.retrained import CELLS_MAX, Retrained, TrainingJob, encode_row, row_width
from stream_ml.stages.state import ROWS
from stream_ml.stages.task import DirtyKeys

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from stream_ml.models.recipes import Recipe, Target
    from stream_ml.records import LabelValue
    from stream_ml.stages.task import StateEntry

__all__ = ["Retrainings", "Trainings", "TrainingsInPlace"]

CHUNK_ROWS = 256


class Trainings(Protocol):
    """Whoever trains; one training of a line at a time."""

    def begin(self, job: TrainingJob) -> None:
        """Begin a training, in the place of an earlier one of the line."""

    def end(self, line: str) -> bytes:
        """The model of the training that began last, waited for if need be.

        Raises:
            SnapshotRefused: it failed, or took more than it may.
        """

    def stop(self, line: str) -> None:
        """Forget the line's training, if there is one."""


class TrainingsInPlace:
    """Trains when the model is asked for, in the process that asks."""

    def __init__(self) -> None:
        self._jobs: dict[str, TrainingJob] = {}

    def begin(self, job: TrainingJob) -> None:
        """Keep the job until its end."""
        self._jobs[job.line] = job

    def end(self, line: str) -> bytes:
        """Train.

        Raises:
            SnapshotRefused: the trainer raised.
        """
        job = self._jobs.pop(line)
        try:
            return job.run()
        except SnapshotRefused:
            raise
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - a trainer may raise anything
            raise SnapshotRefused("training", f"training failed: {brief_error(error)}") from None

    def stop(self, line: str) -> None:
        """Forget the job."""
        self._jobs.pop(line, None)


class _Pending(NamedTuple):
    """A training that is not published: after which example it began, on which rows."""

    n: int
    first: int
    end: int


class _Retraining:
    """The window of one line, and its trainings.

    Args:
        recipe: the line's.
        target: the question.
        trainings: whoever trains.
    """

    def __init__(self, recipe: Recipe, target: Target, trainings: Trainings) -> None:
        self._name = recipe.name
        self._learner: Retrained = recipe.fresh()
        self._names = expand(recipe.features)
        self._width = row_width(self._names)
        self._target = target
        self._trainings = trainings
        self._rows_max = CELLS_MAX // self._width
        self._window_ms = self._learner.window_ms
        if self._window_ms is None:
            self._rows_max = int(self._learner.window)
        self._chunks: dict[int, array[float]] = {}
        self._dirty = DirtyKeys[int]()
        # Rows are counted from the line's first: of the window the first, and behind the last.
        self._first = self._end = 0
        self._pending: _Pending | None = None
        # Of the newest training that began: the example's number and the period of the cadence.
        self._last_n: int | None = None
        self._last_period: int | None = None
        # Of the newest model that was published: after which example it began, on how many rows.
        self.trained: tuple[int, int] | None = None
        # Whether the model is another than the state holds.
        self.has_new_model = True

    def add(self, watermark_ms: int, features: Mapping[str, float], label: LabelValue) -> None:
        """Add an example to the window, and let go of what has left it.

        Args:
            watermark_ms: of the examples there.
            features: by name.
            label: the truth.
        """
        number, place = divmod(self._end, CHUNK_ROWS)
        if not place:
            self._chunks[number] = array("d")
        self._dirty.put(number, new=not place)
        self._chunks[number].extend(
            encode_row(watermark_ms, label, features, self._target, self._names)
        )
        self._end += 1
        self._first = max(self._first, self._end - self._rows_max)
        if self._window_ms is not None:
            oldest_ms = watermark_ms - self._window_ms
            while self._first < self._end and self._row_ms(self._first) <= oldest_ms:
                self._first += 1
        self._drop()

    def publish(self) -> bytes | None:
        """The model that is due at this instant; None where none was in training.

        Raises:
            SnapshotRefused: the training failed.
        """
        if self._pending is None:
            return None
        pending, self._pending = self._pending, None
        data = self._trainings.end(self._name)
        self.trained = pending.n, pending.end - pending.first
        self.has_new_model = True
        self._drop()
        return data

    def begin(self, n: int, watermark_ms: int, *, is_sooner: bool) -> None:
        """Begin the next training where it is due.

        Args:
            n: the newest example's number.
            watermark_ms: of the examples.
            is_sooner: whether the instant came sooner than the cadence, after a change.
        """
        every, every_ms = self._learner.every, self._learner.every_ms
        period = None if every_ms is None else watermark_ms // every_ms
        is_due = is_sooner or every is None or self._last_n is None
        if every_ms is not None:
            is_due |= period != self._last_period
        elif isinstance(every, int) and self._last_n is not None:
            is_due |= n - self._last_n >= every
        if is_due and self._first < self._end:
            self._last_n, self._last_period = n, period
            self._pending = _Pending(n, self._first, self._end)
            self._trainings.begin(self._job(self._pending))

    def clear(self) -> None:
        """Forget everything, as where the line learns no more."""
        self._trainings.stop(self._name)
        self._pending = self._last_n = self._last_period = self.trained = None
        for number in self._chunks:
            self._dirty.delete(number)
        self._chunks = {}
        self._first = self._end = 0
        self.has_new_model = True

    def dirty(self) -> list[StateEntry]:
        """The chunks that changed since the last call."""
        return [
            (
                f"{ROWS}{number}/{self._name}",
                compress(self._chunks[number].tobytes()) if number in self._chunks else None,
            )
            for number in self._dirty.drain()
        ]

    def dump(self) -> list[Any]:
        """All but the rows, as JSON can hold it."""
        return [
            self._first,
            self._end,
            None if self._pending is None else [*self._pending],
            self._last_n,
            self._last_period,
            self.trained,
        ]

    def load(self, state: list[Any], chunks: Mapping[int, bytes]) -> None:
        """Take up a dumped state, and begin again what was in training.

        Args:
            state: what `dump` gave.
            chunks: by number, as `dirty` gave them.
        """
        self._first, self._end, pending, self._last_n, self._last_period, trained = state
        self.trained = None if trained is None else (trained[0], trained[1])
        for number, data in sorted(chunks.items()):
            self._chunks[number] = array("d", decompress(data))
        self.has_new_model = False
        if pending is not None:
            self._pending = _Pending(*pending)
            self._trainings.begin(self._job(self._pending))

    def _job(self, pending: _Pending) -> TrainingJob:
        rows = bytearray()
        for number in range(pending.first // CHUNK_ROWS, -(-pending.end // CHUNK_ROWS)):
            start = number * CHUNK_ROWS
            first, end = max(pending.first - start, 0), min(pending.end - start, CHUNK_ROWS)
            rows += self._chunks[number][first * self._width : end * self._width].tobytes()
        return TrainingJob(self._name, self._learner, pending.n, bytes(rows))

    def _row_ms(self, index: int) -> float:
        number, place = divmod(index, CHUNK_ROWS)
        return self._chunks[number][place * self._width]

    def _drop(self) -> None:
        """Let go of the chunks whose rows all have left the window, and are in no training."""
        first = self._first if self._pending is None else min(self._first, self._pending.first)
        while self._chunks:
            number = next(iter(self._chunks))  # the oldest
            if (number + 1) * CHUNK_ROWS > first:
                return
            del self._chunks[number]
            self._dirty.delete(number)


class Retrainings:
    """The retrained lines of a pipeline.

    Args:
        recipes: of all lines, by name.
        target: the question.
        trainings: whoever trains; None: this process, in its turn.
    """

    def __init__(
        self, recipes: Mapping[str, Recipe], target: Target, trainings: Trainings | None
    ) -> None:
        trainings = TrainingsInPlace() if trainings is None else trainings
        self._lines = {
            name: _Retraining(recipe, target, trainings)
            for name, recipe in recipes.items()
            if isinstance(recipe.estimator, Retrained)
        }
        # Entries of lines that are declared no more, which are still to be dropped.
        self._stale_entries: list[StateEntry] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._lines)

    def __contains__(self, name: str) -> bool:
        """Whether the line is a retrained one."""
        return name in self._lines

    def add(
        self,
        active: Collection[str],
        watermark_ms: int,
        features: Mapping[str, float],
        label: LabelValue,
    ) -> None:
        """Add an example to all windows.

        Args:
            active: the lines that learn.
            watermark_ms: of the examples there.
            features: by name.
            label: the truth.
        """
        for name, line in self._lines.items():
            if name in active:
                line.add(watermark_ms, features, label)

    def publish(self, active: Collection[str]) -> tuple[dict[str, bytes], dict[str, str]]:
        """The models that are due at this instant, and why trainings failed, by line.

        Args:
            active: the lines that learn.
        """
        models: dict[str, bytes] = {}
        failures: dict[str, str] = {}
        for name, line in self._lines.items():
            try:
                data = line.publish() if name in active else None
            except SnapshotRefused as error:
                failures[name] = str(error)
            else:
                models |= {} if data is None else {name: data}
        return models, failures

    def begin(self, active: Collection[str], n: int, watermark_ms: int, *, is_sooner: bool) -> None:
        """Begin the trainings that are due at this instant.

        Args:
            active: the lines that learn.
            n: the newest example's number.
            watermark_ms: of the examples.
            is_sooner: whether the instant came sooner than the cadence, after a change.
        """
        for name, line in self._lines.items():
            if name in active:
                line.begin(n, watermark_ms, is_sooner=is_sooner)

    def figures(self, name: str) -> dict[str, Any]:
        """Of a retrained line, which examples its model was trained on.

        Args:
            name: of any line.
        """
        trained = self._lines[name].trained if name in self._lines else None
        return {} if trained is None else {"trained": {"n": trained[0], "rows": trained[1]}}

    def clear(self, name: str) -> None:
        """Forget the line's window, if it has one.

        Args:
            name: of any line.
        """
        if name in self._lines:
            self._lines[name].clear()

    def has_new_model(self, name: str) -> bool:
        """Whether the line's learner is another than the state holds, as any other's may be.

        Args:
            name: of any line.
        """
        return name not in self._lines or self._lines[name].has_new_model

    def dirty(self) -> list[StateEntry]:
        """The rows that changed since the last call."""
        entries, self._stale_entries = self._stale_entries, []
        for line in self._lines.values():
            entries += line.dirty()
            line.has_new_model = False
        return entries

    def dump(self) -> dict[str, Any]:
        """All but the rows, as a member of JSON; none where there is no such line."""
        if not self._lines:
            return {}
        return {"retrainings": {name: line.dump() for name, line in self._lines.items()}}

    def load(
        self,
        state: Mapping[str, Any],
        entries: Iterable[tuple[str, bytes]],
        active: Collection[str],
        kept: Collection[str],
    ) -> None:
        """Take up what was dumped, and forget the windows of lines that go on no more.

        Args:
            state: that `dump` is a member of.
            entries: the rows, under their keys without the prefix.
            active: the lines that learn.
            kept: the lines whose learners the state holds: one that starts anew is none of them.
        """
        chunks: dict[str, dict[int, bytes]] = {}
        for key, data in entries:
            number, _, name = key.partition("/")
            if name in self._lines:
                chunks.setdefault(name, {})[int(number)] = data
            else:
                self._stale_entries.append((f"{ROWS}{key}", None))
        for name, line_state in state.get("retrainings", {}).items():
            if name in self._lines:
                self._lines[name].load(line_state, chunks.get(name, {}))
                self._lines[name].has_new_model = name not in kept
                if name not in active:
                    self._lines[name].clear()
