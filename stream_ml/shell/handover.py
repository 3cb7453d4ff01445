"""Taking the worker's place under a declaration with other features: as it runs, and what begins.

Theory of operation:

1. The registry says which generation of features runs (`stream_ml.generation`); the state of the
   tasks, under which declaration it was made. Where the features of today are others, and that is
   to be brought about, the next generation begins with a commit of evaluate's, or not at all.
2. On the embedded log all tasks change with that commit. On a cluster each does by itself, when it
   is next taken over. The features that evaluate's state was made under were applied
   (`Handover.applied_texts`), so others take them up, with the lines as they were then, and nobody
   takes up any others, not even those that they were made under.
3. The offsets that the decision names were committed by predict before, and nobody is at work: its
   tasks go on from exactly there. One that was at work all the same, and is past them, is refused
   (`Handover.expect_begin`), and so is each of predict and learn that sees the decision while it
   works. Join knows no features: what it does is the same before and after.
4. Where a standby waits for predict's place (`stream_ml.shell.kafka.standby`), predict is at work
   when it is decided, and the decision names offsets that it has not come to: it ends as soon as it
   sees it, and the standby goes on from there. What lies between has the features of today already,
   and learn makes those again, to the same bits: what lines learn is the same, wherever it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson

from stream_ml.differences import accepted_changes
from stream_ml.errors import UsageError
from stream_ml.generation import FIRST, generation_after
from stream_ml.records import line_of
from stream_ml.sealing import MARKER, Seals
from stream_ml.shell.log.port import whole_piece
from stream_ml.shell.regeneration import READ_RECORDS, event_fold
from stream_ml.shell.views.registry import entries
from stream_ml.stages.erasure import Erasures
from stream_ml.stages.handover import (
    features_changed,
    features_differ,
    has_delay,
    is_applied,
    next_generation,
)
from stream_ml.stages.lateness import Lateness, declared_lateness_ms
from stream_ml.stages.topology import parse_task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from stream_ml.generation import Generation
    from stream_ml.pipeline import Pipeline
    from stream_ml.sealing import Marker, RestoredState
    from stream_ml.shell.log.port import Log
    from stream_ml.stages.lateness import LatenessChange
    from stream_ml.stages.predict import Predict

__all__ = ["BEGIN_ANEW", "Handover", "Preparation", "check_whole", "handover"]

BEGIN_ANEW = "begin anew in another file (--broker sqlite:PATH)"
# A partition of events, and the offset there.
EventOffset = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Handover:
    """What a worker takes up.

    Attributes:
        pipeline: the declaration, as it runs.
        generation: the generation that begins now; None where the one that runs goes on.
        reason: why, in the words of whoever applies it.
        erasures: reads markers that keys are to be forgotten, among the events.
        former: the declaration that evaluate's state was made under, text by path; empty where
            there is none.
    """

    pipeline: Pipeline
    generation: Generation | None = None
    reason: str = ""
    erasures: Erasures | None = None
    former: Mapping[str, str] = field(default_factory=dict)

    @property
    def applied_texts(self) -> Mapping[str, str]:
        """The declaration that today's features begin with now, or that a decision began.

        Text by path; empty where others are declared than were applied.
        """
        if self.generation is not None:
            return self.pipeline.declaration()
        return self.former if is_applied(self.former, self.pipeline) else {}

    def expect_begin(self, task: str, declaration: Mapping[str, str], source: EventOffset) -> None:
        """Make sure that predict goes on where other features begin.

        Args:
            task: its name.
            declaration: that its state was made under.
            source: the partition of events, and the offset there, that it goes on from.

        Raises:
            UsageError: it has predicted with its former features past there.
        """
        partition, offset = source
        begin = self.pipeline.generation.offsets.get(partition, 0)
        if offset > begin and features_changed(declaration, self.pipeline):
            raise UsageError(
                f"{task}: expected to go on from {begin} of events-{partition}, where other "
                f"features begin, given {offset}: a worker was at work while they were applied; "
                "stop all workers, and run `stream-ml apply` again: they begin anew from there"
            )

    def expect_former(self, declaration: Mapping[str, str]) -> None:
        """Make sure that evaluate's state is the one that the change was planned from.

        Args:
            declaration: that it was made under.

        Raises:
            UsageError: it is another by now.
        """
        if declaration != self.former:
            raise UsageError(
                "apply: expected the declaration that ran when it began, given another that has "
                "been taken up since: nothing was changed; look at `stream-ml plan`, and run it "
                "again"
            )

    def is_outdated(self, task: str, state: RestoredState) -> bool:
        """Whether a task's state is of a line that was taken out since, and is declared again.

        Args:
            task: its name.
            state: that lies there; one that is not sound is for others to refuse.
        """
        line = parse_task(task).line
        if line is None or not self.former or state.marker is None or state.flaws:
            return False
        return f"models.{self.pipeline.generation.declared(line)}" not in self.former


def handover(
    log: Log,
    pipeline: Pipeline,
    key: bytes,
    seals: Seals,
    *,
    apply: str | None = None,
    log_name: str = "the log",
    restart_advice: str = BEGIN_ANEW,
    offsets: Mapping[int, int] | None = None,
    latest: Mapping[int, int] | None = None,
) -> Handover:
    """What a worker takes up that starts now.

    Args:
        log: whose place it has.
        pipeline: as it is declared.
        key: verifies decisions.
        seals: verify state.
        apply: why other features are to be brought about; None: they are not.
        log_name: what messages call the log.
        restart_advice: how one begins anew there.
        offsets: by partition of events, the next offset to predict on, where it is not in the state
            of predict that one has to look.
        latest: by partition of events, the offset that the decision names, where predict is at work
            and a standby goes on in its place before it comes there; None: those are the offsets.

    Raises:
        UsageError: other features are declared, and are not to be brought about, or cannot be.
    """
    erasures = Erasures(key, pipeline.name, log.identity)
    current, serving = FIRST, None
    for entry in entries(log, key):
        current = generation_after(current, entry.decision)
        serving = entry.decision.serving
    marker = _marker(log, seals, "evaluate-0")
    former: Mapping[str, str] = {} if marker is None else marker.declaration
    before = former
    if apply is not None and not features_differ(former, pipeline):
        before = _declaration_ahead(log, pipeline, seals, current, offsets or {})
    if serving is None or not features_differ(before, pipeline):
        return Handover(pipeline.running_as(current), erasures=erasures, former=former)
    if apply is None:
        texts = pipeline.declaration()
        applied_lines = current.applied_lines(texts)
        accepted_changes(former, texts, log_name, restart_advice, applied_lines=applied_lines)
        return Handover(pipeline.running_as(current), erasures=erasures, former=former)
    _expect_no_delay(pipeline, before)
    given = offsets or {}
    offsets = {
        p: given[p] if p in given else _event_offset(log, seals, p)
        for p in range(log.partitions["events"])
    }
    for partition in offsets:
        check_whole(log, partition)
    champion_line = line_of(serving.champion.model)
    current = current.with_recipes(before)
    begins = offsets if latest is None else latest
    generation = next_generation(pipeline, before, current, champion_line, begins)
    changes = {p: _lateness_changes(log, pipeline, seals, p) for p in offsets}
    generation = replace(generation, lateness={p: each for p, each in changes.items() if each})
    return Handover(pipeline.running_as(generation), generation, apply, erasures, former)


def _expect_no_delay(pipeline: Pipeline, former: Mapping[str, str]) -> None:
    """Make sure that no window, of then or of today, is over all partitions.

    Raises:
        UsageError: one is: its answers cannot be made again, and events may wait for those of then.
    """
    if not has_delay(pipeline.declaration()) and not has_delay(former):
        return
    raise UsageError(
        "apply: expected features of windows that one partition of events gives, given windows "
        "with a `delay`, whose answers depend on when other partitions were silent: they cannot "
        "be made again from the events. Leave the features as they were, or give the pipeline "
        "another name, which begins anew"
    )


def _declaration_ahead(
    log: Log,
    pipeline: Pipeline,
    seals: Seals,
    current: Generation,
    offsets: Mapping[int, int],
) -> Mapping[str, str]:
    """The declaration of a task of predict that went on by it past where another had begun."""
    for partition, offset in offsets.items():
        marker = _marker(log, seals, f"predict-{partition}")
        declaration = {} if marker is None else marker.declaration
        begin = current.offsets.get(partition, 0)
        if offset > begin and features_changed(declaration, pipeline):
            return declaration
    return {}


def _marker(log: Log, seals: Seals, task: str) -> Marker | None:
    """The marker of a task's last checkpoint; whether its state is whole, its start looks at."""
    value = log.piece(task, MARKER.decode())
    return None if value is None else seals.state(task).opened_marker(value)


def _event_offset(log: Log, seals: Seals, partition: int) -> int:
    """The next event to predict on, as the state says."""
    marker = _marker(log, seals, f"predict-{partition}")
    return 0 if marker is None else marker.positions.get(("events", partition), 0)


def _lateness_changes(
    log: Log, pipeline: Pipeline, seals: Seals, partition: int
) -> tuple[LatenessChange, ...]:
    """Where a longer lateness was declared, by the state of predict, and where it is now."""
    marker = _marker(log, seals, f"predict-{partition}")
    value = whole_piece(log, f"predict-{partition}", "")
    if marker is None or value is None:
        return ()
    lateness = Lateness(pipeline.window_lateness_ms)
    lateness.load(orjson.loads(value), 0, declared_lateness_ms(marker.declaration))
    lateness.begin(marker.positions.get(("events", partition), 0), 0)
    return lateness.changes


def check_whole(log: Log, partition: int) -> None:
    """Make sure that all events of a partition are still there.

    Args:
        log: that they lie on.
        partition: of the events.

    Raises:
        UsageError: retention has removed some.
    """
    first = log.first_offset("events", partition)
    if first > 0:
        raise UsageError(
            f"events-{partition}: expected all events since the first, to fill windows from, given "
            f"a log that begins at {first}: retention has removed those before; begin anew in "
            "another log, and publish to both while the new one learns"
        )


class Preparation:
    """The windows of other features, filled beside a worker that is at work.

    Folding what is on the log takes long, and needs no place: what has come meanwhile is folded by
    whoever has the place then (`events`).

    Args:
        log: that the worker is at work on; it is only read.
        planned: what is to be taken up.

    Attributes:
        is_needed: whether other features begin.
    """

    def __init__(self, log: Log, planned: Handover) -> None:
        self._log = log
        self.is_needed = planned.generation is not None
        self._pipeline, self._erasures = planned.pipeline, planned.erasures
        self._stages: dict[int, Predict] = {}
        self._next: dict[int, int] = {}

    @classmethod
    def beside(cls, log: Log, pipeline: Pipeline, key: bytes) -> Self:
        """A preparation by who has no place there yet.

        Args:
            log: that a worker is at work on.
            pipeline: the declaration to be brought about.
            key: verifies decisions and state.

        Raises:
            UsageError: it cannot be.
        """
        seals = Seals(key, pipeline.name, log.identity)
        planned = handover(log, pipeline, key, seals, apply="to be prepared")
        return cls(log, planned)

    def advance(self, events_max: int | None = None) -> int:
        """Fold what is on the log and was not yet; how many events that were.

        Args:
            events_max: so many of each partition at most; None: all.
        """
        if not self.is_needed:
            return 0
        count = 0
        for partition in range(self._log.partitions["events"]):
            end = self._log.committed(f"predict-{partition}").get(("events", partition), 0)
            if events_max is not None:
                end = min(end, self._next.get(partition, 0) + events_max)
            if end:
                count += self._fold(partition, min(self._log.end_offset("events", partition), end))
        return count

    def is_ahead(self, partition: int, offset: int) -> bool:
        """Whether more was folded of a partition than lies before an offset.

        Args:
            partition: of the events.
            offset: there.
        """
        return self._next.get(partition, 0) > offset

    def _fold(self, partition: int, end: int) -> int:
        if partition not in self._stages:
            self._stages[partition] = event_fold(
                self._log, self._pipeline, partition, self._erasures
            )
        stage = self._stages[partition]
        count = 0
        begin = self._next.get(partition, 0)
        while begin < end and (
            records := self._log.read("events", partition, begin, min(READ_RECORDS, end - begin))
        ):
            records = [record for record in records if record.offset < end]
            if not records:
                break
            stage.replay(records)
            begin = self._next[partition] = records[-1].offset + 1
            count += len(records)
        return count

    def events(self, partition: int, end: int) -> Predict:
        """A stage that has folded the events before an offset, and no others.

        Args:
            partition: of the events.
            end: the offset, no lower than any that were folded.
        """
        assert not self.is_ahead(partition, end), "more was folded than is to be taken up"
        self._fold(partition, end)
        return self._stages.pop(partition)
