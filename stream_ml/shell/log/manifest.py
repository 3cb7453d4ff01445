"""The manifest of an embedded log: which checkpoint of each task is its last, and what is ours.

Theory of operation:

1. A task's marker says that its state is whole, and not that it is the newest: all of it, put back
   as it was yesterday, verifies. One process writes all of an embedded log, so with each of its
   commits goes one more entry, the manifest: of each task the number, the seal and the positions of
   its last checkpoint. A marker that is not the one it names is an older one, put back.
2. The manifest could be put back with them. It says where the partitions end that only the worker
   writes, and nothing is committed without it: what lies behind those ends is somebody else's. Only
   if it bears our seal and is about records that this state has yet to read, the state is older
   than it, and all of it was put back.
3. It says which records on compacted partitions are ours (only those supersede others), and the
   newest append time that the worker has given (so that it follows nobody else's).

A marker that was written without a manifest says so: a log of a former release is taken up as it
is, once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import decode_example, decode_prediction
from stream_ml.errors import BadRecord, StateRefused
from stream_ml.sealing import checkpoint_seal
from stream_ml.shell.log.port import OwnWrites
from stream_ml.shell.restoration import WAY_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.records import Record
    from stream_ml.sealing import RecordSeal, RestoredState
    from stream_ml.shell.log.port import PartitionId

__all__ = ["NAME", "OWNER", "TOPIC", "Manifest", "refuse_unread"]

# Where it lies among the states, and what its seal is bound to in place of a topic.
OWNER, NAME, TOPIC = "worker", "manifest", "manifest"


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """The last one of a task: its number, its marker's seal, its positions."""

    number: int
    seal: str
    positions: dict[PartitionId, int]
    # As it stands in the manifest, which is written far more often than any one of these.
    encoded_json: bytes


class Manifest:
    """What the worker has written, as it was with its last commit.

    Args:
        value: what lies on the log; None where there is none.
        seal: what it must be sealed with.

    Attributes:
        own_writes: what the worker has written itself; None where that is not known.
    """

    def __init__(self, value: bytes | None, seal: RecordSeal) -> None:
        self._seal = seal
        self._exists = value is not None
        self._flaw: str | None = None
        self._tasks: dict[str, _Checkpoint] = {}
        self.own_writes: OwnWrites | None = None
        if value is not None:
            try:
                self._decode(orjson.loads(seal.unseal(value)))
            except BadRecord as error:
                self._flaw = str(error)

    def _decode(self, members: Any) -> None:
        for task, number, seal, positions in members["tasks"]:
            self.note(task, number, seal, {(topic, p): offset for topic, p, offset in positions})
        self.own_writes = OwnWrites(
            members["stamp_ms"],
            {(topic, p): end for topic, p, end in members["ends"]},
            {
                (topic, p): [(start, end) for start, end in ranges]
                for topic, p, ranges in members["ranges"]
            },
        )

    def compare(self, task: str, state: RestoredState, pieces: Mapping[str, bytes]) -> None:
        """Hold a task's state against its last checkpoint, and note what is wrong with it.

        Args:
            task: its name.
            state: what lies there. An older one of ours gets a flaw, and the positions up to
                which it must be made again.
            pieces: the same, as it lies there.

        Raises:
            StateRefused: nobody can tell which checkpoint was the last, or there is none.
        """
        marker, last = state.marker, self._tasks.get(task)
        if state.foreign_owner is not None or state.plain:
            return
        if marker is None:
            if last is not None and not state.flaws:
                raise _refusal(
                    task, f"checkpoint {last.number} to lie there", "none: it was removed"
                )
            return
        if not self._exists and not marker.manifest:
            return
        if self._flaw is not None or not self._exists:
            raise _refusal(task, "the worker's manifest", self._flaw or "none: it was removed")
        actual = f"checkpoint {marker.number}, which is genuine"
        if last is None or marker.number > last.number:
            last_name = "none" if last is None else f"checkpoint {last.number}"
            raise _refusal(
                task, f"{last_name}, by the worker's manifest", f"{actual}: one was put back"
            )
        if checkpoint_seal(pieces) == last.seal:
            return
        state.flaws.append(f"all of it is {actual}, and an older one than {last.number}: put back")
        state.marker = replace(marker, number=last.number, positions=dict(last.positions))

    def note(self, task: str, number: int, seal: str, positions: Mapping[PartitionId, int]) -> None:
        """Take note of the checkpoint of a task that goes with the next commit.

        Args:
            task: `STAGE-PARTITION`.
            number: of the checkpoint.
            seal: of its marker.
            positions: by topic and partition.
        """
        next_offsets = [
            (topic, partition, next_offset) for (topic, partition), next_offset in positions.items()
        ]
        encoded_json = orjson.dumps((task, number, seal, next_offsets))
        self._tasks[task] = _Checkpoint(number, seal, dict(positions), encoded_json)

    def encode_sealed(self, own_writes: OwnWrites) -> bytes:
        """The manifest that goes with a commit, and says what the worker has then written."""
        self._exists, self._flaw, self.own_writes = True, None, own_writes
        members = {
            "stamp_ms": own_writes.stamp_ms,
            "ends": [
                (topic, partition, offset) for (topic, partition), offset in own_writes.ends.items()
            ],
            "ranges": [
                (topic, partition, ranges)
                for (topic, partition), ranges in own_writes.ranges.items()
            ],
        }
        tasks = b",".join([checkpoint.encoded_json for checkpoint in self._tasks.values()])
        return self._seal.seal(b'{"tasks":[' + tasks + b"]," + orjson.dumps(members)[1:])


def refuse_unread(
    records: Iterable[Record], read: Mapping[PartitionId, int], ends: Mapping[PartitionId, int]
) -> None:
    """Refuse a state that has yet to read what was made of it.

    Args:
        records: predictions and examples behind the last commit, without their seals, or with what
            is wrong with them.
        read: up to where the state has read events and labels.
        ends: where the partitions of events and labels end; what names a record past it was made
            of none, and is the stages' to refuse.

    Raises:
        StateRefused: one of them is genuine and about an event or label that was not read yet.
    """
    for record in records:
        if record.memo is not None:
            continue
        try:
            if record.topic == "predictions":
                topic, source = "events", decode_prediction(record.value).source
            else:
                topic, source = "labels", decode_example(record.value).label_source
        except BadRecord:
            continue
        next_offset = read.get((topic, source.partition), 0)
        if next_offset <= source.offset < ends.get((topic, source.partition), 0):
            raise _refusal(
                "the worker",
                f"state that has read {topic}-{source.partition} up to {source.offset + 1}, as "
                f"{record.topic}-{record.partition} offset {record.offset} has",
                f"state that has read it up to {next_offset}: all of it is an older one, put back",
            )


def _refusal(task: str, requirement: str, actual: str) -> StateRefused:
    return StateRefused(f"{task}: expected {requirement}, given {actual}; {WAY_OUT}")
