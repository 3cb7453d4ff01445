"""Publishes refused records again that a changed declaration can read, each once.

Theory of operation. The records of a batch and a signed command that names their dead letters are
appended as one (`Log.append_whole`): whoever dies in between has published nothing, and whoever
comes next, or at the same time, finds in the commands which letters were redriven before, and
leaves them out. Evaluate answers the command on the registry, where the audit shows it. The record
is published byte for byte as it came, under the key that it has by the present declaration, so it
keeps its id and its time, and what was taken meanwhile is a duplicate. What would be too late now
is not published: it would only be refused again, and is named in the place of that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING

import orjson

from stream_ml.codec import decode_command, encode_command
from stream_ml.errors import BadRecord, UsageError
from stream_ml.records import Output
from stream_ml.shell.log.reading import read_partition
from stream_ml.shell.views.dead_letters import original_bytes, read_letters
from stream_ml.shell.watermarks import InputWatermarks
from stream_ml.signing import Keyring, Operator
from stream_ml.stages.command_details import LETTERS_MAX, letter_details, letter_ranges
from stream_ml.stages.operators import CommandRefusal
from stream_ml.stages.refusals import BLOCK_RECORDS, CALM_BLOCKS
from stream_ml.stages.refusals import KIND as REFUSALS_ALERT
from stream_ml.task_names import task_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Command
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.alerts import AlertView
    from stream_ml.shell.views.dead_letters import LetterFilter, LetterView

__all__ = ["NEVER", "Redrive", "RedriveHistory", "RedriveReport", "check_reasons", "refusal_notes"]

WRITER = "redrive"
# A batch is one transaction and one command.
BATCH_BYTES = 8 * 1024 * 1024
# Reasons for which no declaration can help: why.
NEVER = {
    "forged": "it was not written by the stage whose topic it lay on, and would not be again",
    "duplicate": "an event of its id was taken; the first counts",
    "duplicate_prediction": "a prediction of its id was taken; the first counts",
    "duplicate_label": "a label of its id was joined; the first counts",
    "late_correction": "the time in which its event's label may be corrected was over",
    "too_many_labels": "other labels of its id waited; the first of those counts",
    "repeated": "another of its id or number came before",
    "too_late": "its time was past, and is further past now",
    "late": "its event's horizon was over, and is over now",
    "label_before_event": "its time is before its event's, as before",
    "tombstone": "there is nothing in it",
}
# Publishing these again helps only once something else was: a person must ask for it by name.
BY_NAME = {
    "orphan": "its event's prediction may be there by now; --reason orphan tries it, and says what "
    "would be too late"
}
TOPICS = ("events", "labels")
OF_ALL_TASKS = "all tasks read the event: it is published again for all, with --task main"
TOO_LATE = "it would be too late now, and refused again: it is kept as a dead letter"


def refusal_notes(alerts: Iterable[AlertView]) -> list[str]:
    """When open alerts about what was refused end, for what is published again does not end them.

    Args:
        alerts: that are open.
    """
    notes = []
    for alert in alerts:
        topic, _, reason = alert.subject.partition("/")
        if alert.kind == REFUSALS_ALERT:
            notes.append(
                f"the alert {alert.kind} about {topic} refused as {reason} is of what was read "
                f"then: it ends by itself when {CALM_BLOCKS} blocks of {BLOCK_RECORDS:,} {topic} "
                "in a row have had little of it"
            )
    return notes


def check_reasons(reasons: frozenset[str]) -> None:
    """Refuse reasons of which nothing may be published again.

    Raises:
        UsageError: there is one among them.
    """
    for reason in sorted(reasons):
        if reason in NEVER:
            raise UsageError(
                f"--reason {reason}: expected a reason of which a record may be published again, "
                f"given one of which none is: {NEVER[reason]}"
            )


class RedriveHistory:
    """The dead letters that were redriven, by the commands on a log.

    A command whose operator's key is at hand must be signed with it; others, which only the worker
    can check, are believed: better that a record is left out than that it comes twice.

    Args:
        log: that the commands lie on.
        pipeline: the name that they must name.
        operator: whose key is at hand; None if none is.
        key: that one.
    """

    def __init__(self, log: Log, pipeline: str, operator: str | None, key: bytes | None) -> None:
        self._log, self._pipeline = log, pipeline
        self._keyring = Keyring(b"")
        if key is not None and operator is not None:
            self._keyring = Keyring(key, {operator: Operator(key, "operator")})
        self._is_local_known = operator == "local" and key is not None
        self._next_offset: int | None = None
        # By partition, in order and apart.
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    def refresh(self) -> None:
        """Take in the commands that have come since."""
        for record in read_partition(self._log, "commands", 0, self._next_offset):
            self._next_offset = record.offset + 1
            for name, ranges in self._ranges_in(record.value).items():
                partition = int(name)
                pairs = [(first, last) for first, last in ranges]
                self._ranges[partition] = _merged([*self._ranges.get(partition, ()), *pairs])

    def _ranges_in(self, value: bytes | None) -> dict[str, list[list[int]]]:
        if b'"redrive"' not in (value or b""):
            return {}
        try:
            members = orjson.loads(value or b"")
            if (members["kind"], members["pipeline"]) != ("redrive", self._pipeline):
                return {}
            if members["log"] != self._log.identity:
                return {}
            if members["operator"] in self._keyring.operators or self._is_local(members):
                decode_command(value, self._keyring)
            return letter_ranges(members["details"])
        except (BadRecord, CommandRefusal, orjson.JSONDecodeError, KeyError, TypeError):
            return {}

    def _is_local(self, members: dict[str, object]) -> bool:
        return members["operator"] == "local" and self._is_local_known

    def __contains__(self, position: tuple[int, int]) -> bool:
        """Whether the letter at a partition and offset was redriven."""
        partition, offset = position
        ranges = self._ranges.get(partition, [])
        index = bisect_right(ranges, offset, key=itemgetter(0))
        return index > 0 and offset <= ranges[index - 1][1]


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same offsets as ranges in order and apart."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


@dataclass(slots=True)
class RedriveReport:
    """What became of the dead letters that were looked at.

    Attributes:
        published: how many records were published again, by topic; of a dry run, would be.
        former: how many had been before.
        kept: how many were not, by reason and why.
        commands: the ids of the commands that name them.
        excess_ms: by how much the latest event of those that would be too late now is, beyond
            `lateness`; 0 where none would be.
    """

    published: Counter[str] = field(default_factory=Counter)
    former: int = 0
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    commands: list[str] = field(default_factory=list)
    excess_ms: int = 0


@dataclass(slots=True)
class _Candidate:
    position: tuple[int, int]
    output: Output


class Redrive:
    """Publishes again what a declaration can read.

    Args:
        log: with dead letters, which the records go to.
        pipeline: the declaration that judges them.
        history: what was redriven before.
        now_ms: the clock, by which nothing may be from the future.
    """

    def __init__(
        self, log: Log, pipeline: Pipeline, history: RedriveHistory, now_ms: Callable[[], int]
    ) -> None:
        self._log, self._pipeline = log, pipeline
        self._history, self._now_ms = history, now_ms
        self._watermarks = InputWatermarks(log, pipeline)
        self.report = RedriveReport()

    def preview(self, wanted: LetterFilter) -> None:
        """Report what `publish` would do."""
        self._history.refresh()
        for batch in self._batches(wanted):
            self._count(batch)

    def publish(self, wanted: LetterFilter, new_command: Callable[[], Command], key: bytes) -> None:
        """Publish again, batch by batch; dying in between, or beside another, does nothing twice.

        Args:
            wanted: the letters to look at.
            new_command: makes the command that tells of a batch, with an id of its own.
            key: of its operator.

        Raises:
            LogError: a batch was not taken; those before it were.
        """
        for batch in self._batches(wanted):
            self._publish(batch, new_command(), key)

    def _publish(self, batch: Sequence[_Candidate], command: Command, key: bytes) -> None:
        remaining: list[_Candidate] = []

        def prepare() -> Sequence[Output]:
            self._history.refresh()
            remaining.extend(each for each in batch if each.position not in self._history)
            if not remaining:
                return []
            details = letter_details(each.position for each in remaining)
            value = encode_command(replace(command, details=details), key)
            told = Output("commands", self._pipeline.name.encode(), value)
            return [*(each.output for each in remaining), told]

        self._log.append_whole(WRITER, prepare)
        self._count(remaining)
        self.report.former += len(batch) - len(remaining)
        if remaining:
            self.report.commands.append(command.command_id)

    def _count(self, batch: Sequence[_Candidate]) -> None:
        self.report.published.update(each.output.topic for each in batch)

    def _batches(self, wanted: LetterFilter) -> Iterator[list[_Candidate]]:
        """What can be published again, in the order of the letters, as of now."""
        self._history.refresh()
        batch: list[_Candidate] = []
        size = 0
        # What is refused again meanwhile is for another time.
        ends = {
            partition: self._log.end_offset("dead-letters", partition)
            for partition in range(self._log.partitions["dead-letters"])
        }
        for view in read_letters(self._log, wanted):
            if view.offset >= ends[view.partition]:
                continue
            candidate = self._judge(view, wanted)
            if candidate is None:
                continue
            batch.append(candidate)
            size += len(candidate.output.value or b"")
            if len(batch) >= LETTERS_MAX or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _judge(self, view: LetterView, wanted: LetterFilter) -> _Candidate | None:
        """The record to publish; None where it was before, or must not be, or cannot."""
        position = (view.partition, view.offset)
        if position in self._history:
            self.report.former += 1
            return None
        letter = view.letter
        objection = self._objection(view, wanted)
        if letter.topic == "events" and task_in(self._pipeline.name) is not None:
            objection = OF_ALL_TASKS
        value = None if objection is not None else original_bytes(self._log, letter)
        if objection is None and value is None:
            objection = "its bytes are kept nowhere any more"
        if value is not None:
            try:
                return _Candidate(position, self._examine(letter.topic, value))
            except BadRecord as error:
                objection = f"it is refused as before: {error.reason} at {error.path}"
            except _TooLateError:
                objection = TOO_LATE
        assert objection is not None, "what is not published has a reason"
        self.report.kept[letter.reason, objection] += 1
        return None

    @staticmethod
    def _objection(view: LetterView, wanted: LetterFilter) -> str | None:
        letter = view.letter
        if letter.topic not in TOPICS:
            return f"only {' and '.join(TOPICS)} are published again, and it lay on {letter.topic}"
        if letter.reason in NEVER:
            return NEVER[letter.reason]
        return None if letter.reason in wanted.reasons else BY_NAME.get(letter.reason)

    def _examine(self, topic: str, value: bytes) -> Output:
        """The record under its key, once the declaration can read it."""
        pipeline, now_ms = self._pipeline, self._now_ms()
        if topic == "events":
            event = pipeline.event_codec.decode(value)
            key, ts, member = event.key, event.ts, pipeline.events.time
        else:
            label = pipeline.label_codec.decode(value)
            key, ts, member = label.event_id, label.ts, "ts"
        if ts > now_ms + pipeline.skew_ms:
            raise BadRecord("from_the_future", f"$.{member}", f"its time, {ts}, is still to come")
        if topic == "events":
            excess_ms = self._watermarks.excess_of_event(key, ts)
            self.report.excess_ms = max(self.report.excess_ms, excess_ms)
            if excess_ms <= 0:
                self._watermarks.add_event(key, ts, now_ms)
        else:
            excess_ms = self._watermarks.excess_of_label(key, ts)
        if excess_ms > 0:
            raise _TooLateError
        return Output(topic, key.encode(), value)


class _TooLateError(Exception):
    """A record's time is past by now."""
