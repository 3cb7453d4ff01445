"""Lines that are declared on a running log, and are taught what was there before them.

Theory of operation:

1. A latecomer starts from nothing and learns the examples of the log in their order, a stretch at
   a time, between what is worked on anyway: nobody waits for it. When it has learned all that the
   others have, it is *level*, and learns on with them.
2. When it becomes level hangs on how busy the machine is, and nothing may follow from that. So it
   contends, which is when it first publishes, from an instant that follows from the log: the first
   refresh at which an eighth as many examples have come as there were, or a day of event time has
   passed. Who is not level by then is made so before that instant, while the others wait.
3. So it is what a line that was there from the start is, to the last bit, if all examples are still
   on the log. Of one that retention has left only the rest the number of examples is its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord
from stream_ml.features.durations import DAY_MS
from stream_ml.stages.inputs import example_in
from stream_ml.stages.lessons import Lessons
from stream_ml.stages.numbering import Numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example, Record

__all__ = ["PACE", "Latecomer", "due_n"]

# In the time in which one example comes eight are caught up with.
PACE = 8
PATIENCE_MS = DAY_MS


def due_n(n: int) -> int:
    """The number of examples from which on a line contends that is declared after so many.

    >>> due_n(800)
    901
    """
    return n + n // PACE + 1


@dataclass(slots=True)
class Latecomer:
    """How far a latecomer is.

    Attributes:
        due_n: the number of examples from which on it contends.
        due_ms: the examples watermark from which on it does, whatever their number.
        next: the offset on `examples` from which on it has learned nothing.
        learned: how many examples it has learned.
        first: the offset of the first one; -1: none.
        is_level: whether it learns with the others.
    """

    due_n: int
    due_ms: int
    next: int = 0
    learned: int = 0
    first: int = -1
    is_level: bool = False
    _numbers: Numbers = field(default_factory=Numbers)
    _lessons: Lessons = field(default_factory=Lessons)

    @classmethod
    def begin(cls, n: int, watermark_ms: int) -> Latecomer:
        """One that is declared now.

        Args:
            n: how many examples the others have learned.
            watermark_ms: of the examples.
        """
        return cls(due_n(n), watermark_ms + PATIENCE_MS)

    def is_due(self, n: int, watermark_ms: int) -> bool:
        """Whether it contends from this instant on.

        Args:
            n: how many examples there are.
            watermark_ms: of the examples.
        """
        return n >= self.due_n or watermark_ms >= self.due_ms

    def take(
        self, records: Sequence[Record], last: int, pipeline: Pipeline
    ) -> Iterator[tuple[int, Example]]:
        """The examples among the next records that the others have learned, too, by their number.

        Args:
            records: from `next` on; none, or later ones alone, where nothing is left there.
            last: the offset of the last example that the others have learned.
            pipeline: the declaration.
        """
        if not records or records[0].offset > last:
            self.next = last + 1
        for record in records:
            if not self.next <= record.offset <= last:
                continue
            self.next = record.offset + 1
            example = example_in(record, pipeline)
            if isinstance(example, BadRecord):
                continue
            try:
                self._numbers.take(example.label_source.partition, example.number)
            except BadRecord:
                continue
            self.learned += 1
            if self.first < 0:
                self.first = record.offset
            if self._lessons.takes(example, pipeline.label):
                yield self.learned, example

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "due": [self.due_n, self.due_ms],
            "next": self.next,
            "learned": self.learned,
            "first": self.first,
            "level": self.is_level,
            "numbers": self._numbers.dump(),
            **({"lessons": lessons} if (lessons := self._lessons.dump()) else {}),
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Latecomer:
        """Take up a dumped state."""
        due_n, due_ms = state["due"]
        latecomer = cls(due_n, due_ms, state["next"], state["learned"], state["first"])
        latecomer.is_level = state["level"]
        latecomer._numbers.load(state["numbers"])
        latecomer._lessons = Lessons.of(state.get("lessons", ()))
        return latecomer
