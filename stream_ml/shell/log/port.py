"""The port: what a log of records promises to those who drive the stages, and what it does not.

A log has topics, a topic has partitions, and a partition is a sequence of records that is only
ever appended to.

The port has two parts. What clients use, who publish, read and command, is `Log`: every log has
it. What the embedded runner needs beyond that, a `Session` that writes what stages write, is
`WorkerLog`: on a cluster workers are processes of another kind, which write in transactions of
their own, so a cluster's log is a `Log` and no more.

Every log promises:

- **Order.** Within a partition offsets start at 0 and only grow, and reading follows them. Between
  partitions there is no order.
- **One key, one partition.** A record's partition is `topics.partition_of` its key; a record
  without a key goes to partition 0.
- **Append time.** The log stamps a record when it takes it in. Within a partition stamps do not
  fall, but where a clock that stamps was ahead of the next one by more than a minute: the one is
  then wrong, or the other, and a log that went on from the greater would let one client's clock
  stamp all that follows. So no stamp is good for more than the record that bears it. (On the
  embedded log, where publishers' clocks stamp, the worker stamps anew what lies more than a minute
  past its own clock, once, before it works on it. What a worker writes there has stamps that never
  fall, whoever writes between.)
- **Durable when reported.** What `append` has returned, and what `commit` has returned from,
  outlives the death of every process, at any instant. (A log may add what it outlives beyond that,
  such as a loss of power.)
- **All or nothing.** What a worker commits, outputs, positions and state, is seen as a whole or
  not at all, and of what it does not commit nothing is ever seen. (Who asks a cluster's log for
  uncommitted records gives this up.)

A log that workers have a session on promises as well:

- **One worker.** At most one live session writes; a second is refused with `LogLocked`. The death
  of a worker, however sudden, gives up its place.

No log promises:

- *Offsets without gaps.* Retention, compaction and the marks that some logs keep between records
  leave gaps; go on from one past the last offset read, and never count records by offsets. (The
  embedded log leaves no gaps but those of retention and compaction.)
- *Time across partitions*, or that a stamp equals the publisher's clock.
- *Exactly once for publishers.* A publisher that dies before `append` returns does not know what
  was taken, and publishes again: ids make duplicates harmless, not the log.
- *That an `append` is seen at once*, or all taken if it fails. (The embedded log's is. A cluster's
  error says how many records were not acknowledged; the others lie there.)
- *A barrier against whoever can write to where the log lives.* `append` and `post` refuse what
  only stages write, which stops a slip. A cluster's access rules stop everybody else; the embedded
  log is a file, and its rules are the file's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from stream_ml.errors import LogError
from stream_ml.sealing import content
from stream_ml.stages.parts import read_piece
from stream_ml.topics import embedded

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Hashable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from stream_ml.records import Output, Record
    from stream_ml.topics import Topic

__all__ = [
    "CLIENTS",
    "Isolation",
    "Log",
    "OwnWrites",
    "PartitionId",
    "Range",
    "Session",
    "Tail",
    "WorkerLog",
    "is_of_clients",
    "not_of_clients",
    "read_between",
    "whole_piece",
]

# Whether a reader sees what transactions have committed, or all that is written.
Isolation = Literal["committed", "uncommitted"]
# What the catalogue calls those who are no stage and write; all else is the stages' own.
CLIENTS = frozenset({"producer", "operator"})
# A partition of a topic.
PartitionId = tuple[str, int]
# Offsets from the first one to before the second.
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class OwnWrites:
    """What the worker of a log knows that it has written itself.

    Attributes:
        stamp_ms: the newest append time it has given.
        ends: of each partition that only it writes, the next offset after its last record.
        ranges: of those that are compacted, which offsets are its own.
    """

    stamp_ms: int
    ends: Mapping[PartitionId, int]
    ranges: Mapping[PartitionId, Sequence[Range]]


class _Closing(Protocol):
    """A context manager that closes itself at the end, committing nothing."""

    def close(self) -> None:
        """Lets go of everything."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Log(_Closing, Protocol):
    """A log of records as clients have it; a context manager that closes it.

    Attributes:
        forwards_strays: whether what lies in another partition than its key's is sent on to that.
    """

    forwards_strays: bool = False

    @property
    def identity(self) -> str:
        """Which log this is: no other has the same, whatever it is called or where it lies.

        A copy of the embedded log's file is the same log; a cluster's topics made anew are another
        one. Empty where nobody knows: a file of a former release that we may not write to.
        """

    @property
    def partitions(self) -> Mapping[str, int]:
        """How many partitions each topic has, by topic."""

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """Appends `outputs` in their order and returns where each one lies now.

        For publishers and operators, who write `events`, `labels` and `commands`; the other
        topics are the worker's own (see `Session`).

        Raises:
            UnknownTopic: an output is for a topic that the log does not have.
            LogError: an output is for a topic that only stages write; none was appended.
            NotAcknowledged: some of them may not have been appended; it says which were.
            LogError: they could not be appended, `LogFull` and `LogLocked` among the reasons.
        """

    def post(self, outputs: Sequence[Output]) -> None:
        """Takes `outputs`, to append them soon; `flush` says whether they were.

        Waits only while too much of what was posted before is still on its way.

        Raises:
            UnknownTopic: as `append`.
            LogError: as `append`, also for what was posted before.
        """

    def flush(self) -> None:
        """Returns when all that was posted is acknowledged.

        Raises:
            NotAcknowledged: some of it was not; it says how many records, and why.
        """

    def append_whole(self, writer: str, prepare: Callable[[], Sequence[Output]]) -> None:
        """Appends what `prepare` returns, all of it or nothing, if that is anything.

        No two writers of a name come between each other: `prepare` is called once all that former
        ones have appended can be read, and what it returns is appended only if none has begun
        since. So who looks in it whether something was done, and does it, does it once.

        Args:
            writer: a name for those who must not come between each other.
            prepare: gives the outputs; called once, and quick, for others may wait.

        Raises:
            UnknownTopic: as `append`.
            LogError: as `append`; or another writer of the name has begun. Nothing was appended,
                but where the answer was lost: then the next one's `prepare` sees what became of it.
        """

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset` on, in order; none at the end. Does not wait.

        Fewer than `limit` need not mean the end: a log may bound the bytes it reads at once.

        Args:
            topic: one of the catalogue.
            partition: from 0.
            offset: of the first record; where there is none, the next one.
            limit: how many at most.

        Raises:
            UnknownTopic: the log does not have it.
        """

    def first_offset(self, topic: str, partition: int) -> int:
        """The offset before which retention has removed everything.

        Args:
            topic: one of the catalogue.
            partition: from 0.
        """

    def end_offset(self, topic: str, partition: int) -> int:
        """One past the offset of the last record; what the next record's will be at least.

        Args:
            topic: one of the catalogue.
            partition: from 0.
        """

    def held_back(self, topic: str, partition: int) -> tuple[int, int] | None:
        """How many offsets at the end open transactions hold back, and since when (UTC ms).

        None where none is open, or the log has no such transactions.

        Args:
            topic: one of the catalogue.
            partition: from 0.
        """
        del topic, partition
        return None

    def offset_at(self, topic: str, partition: int, append_ms: int) -> int:
        """The offset of the first record that was appended then or later; the end, if none was.

        Args:
            topic: one of the catalogue.
            partition: from 0.
            append_ms: UTC milliseconds.
        """

    def tail(self, topic: str, offsets: Mapping[int, int]) -> Tail:
        """Reads on from `offsets`, by partition, what is there and what comes.

        Args:
            topic: one of the catalogue.
            offsets: by partition, where to begin.
        """

    def version(self) -> Hashable:
        """A token that differs from an earlier one if anything was appended in between.

        It costs far less than asking each partition, so a loop that finds it unchanged need not
        look for records. It may change without cause.
        """

    def committed(self, group: str) -> dict[PartitionId, int]:
        """Where `group` (a task, such as `predict-0`) goes on: the next offset per partition."""

    def state(self, group: str) -> list[tuple[str, bytes]]:
        """The state pieces of `group`, as last committed, by key in order."""

    def piece(self, group: str, key: str) -> bytes | None:
        """One of the state pieces of `group`, without reading all of them; None if it has none.

        Args:
            group: the task that wrote it, `STAGE-PARTITION`.
            key: the piece's name.
        """

    def written_ms(self, group: str) -> int | None:
        """When the state of `group` was written down; None if never, or with every commit."""

    def stages_at_work(self) -> frozenset[str] | None:
        """The stages that have a worker; None where that cannot be told.

        One that was killed may be thought at work for as long as its cluster waits for it.
        """

    def worker_since_ms(self, stage: str) -> int | None:
        """Since when somebody works on a stage without a break (UTC ms); None: that is not known.

        Args:
            stage: that has a worker, or had one last.
        """

    def close(self) -> None:
        """Lets go of everything; what was not committed is gone."""


class Tail(Protocol):
    """Reads partitions of a topic from some offsets on, as records come; close it at the end."""

    def poll(self, wait_s: float) -> list[Record]:
        """What has come, in the order in which the log took it in, as far as that can be told.

        Args:
            wait_s: how long to wait for the first record; none may come.
        """

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before `ends`, by partition, was given out."""

    def close(self) -> None:
        """Lets go of everything."""


class WorkerLog(Log, Protocol):
    """A log that a worker of this process can have a session on."""

    def session(self, extra_topics: Collection[str] = ()) -> Session:
        """Becomes the worker.

        Args:
            extra_topics: of those that only some declarations have, the ones that it writes.

        Raises:
            LogLocked: there is one already.
        """


class Session(_Closing, Protocol):
    """The worker's hold on the log; a context manager that gives it up at the end.

    The worker is the only writer of what its stages write: predictions, examples, models,
    registry, evaluations, alerts and dead letters. So a record's offset is known when it is
    staged, and a later stage in the same process can have the record before it is committed.
    """

    # The first record of others that was stamped anew, and how far ahead it was, in ms.
    ahead: tuple[Record, int] | None

    @property
    def setback_ms(self) -> int:
        """How far the clock is behind what the worker has stamped before; 0 up to a minute.

        If by more, it is wrong, or was: by it no publisher's stamp is judged, and none stamped
        anew.
        """

    def resume(self, own_writes: OwnWrites | None) -> None:
        """Goes on from what the worker has written before; None where all there is may be its own.

        Before, stamps may follow those of others by up to a minute, and all supersedes.
        """

    def own_writes(self) -> OwnWrites:
        """What the worker will have written with the next commit."""

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """As `Log.read`, of records that are worked on for the first time.

        What is stamped more than a minute past the clock, others' clocks have stamped: it is
        stamped anew, on the log, before anybody works on it. So whoever reads it again reads the
        same.
        """

    def exclusive(self) -> AbstractContextManager[list[tuple[PartitionId, int, int]]]:
        """Keeps all others from writing until it is left, with all that is committed inside.

        Publishers wait meanwhile: be quick. For where somebody else writes where only the worker
        may, so often that no commit succeeds.

        Returns:
            Of each partition that others have written to, from which offset to before which.
        """

    @property
    def staged_count(self) -> int:
        """How many outputs wait for a commit."""

    def stage(self, outputs: Sequence[Output]) -> list[Record]:
        """Takes `outputs` into the next commit and returns them as the records they will be.

        Nobody else sees them before.

        Raises:
            UnknownTopic: an output is for a topic that the log does not have.
            LogError: an output cannot be a record of its topic; none of `outputs` was taken.
        """

    def commit(
        self,
        positions: Mapping[str, Mapping[PartitionId, int]] | None = None,
        state: Iterable[tuple[str, str, bytes | None]] = (),
    ) -> None:
        """Writes what was staged, `positions` and `state` in one transaction.

        After an error nothing of it was written, what was staged is still staged, and `commit` may
        be tried again.

        Args:
            positions: by group, the next offset of each partition it reads; others stay.
            state: group, key and piece; None removes the piece. Others stay.

        Raises:
            LogError: it could not be written, `LogFull` and `LogLocked` among the reasons.
            LogChanged: somebody else has appended to a partition that was staged to, which breaks
                the rule that makes staged offsets right.
        """

    def close(self) -> None:
        """Gives up the worker's place; what was not committed is gone."""


def is_of_clients(topic: Topic) -> bool:
    """Whether clients write it.

    >>> [name for name, topic in sorted(embedded().items()) if is_of_clients(topic)]
    ['commands', 'events', 'labels']
    """
    return not CLIENTS.isdisjoint(topic.writers)


def not_of_clients(topic: Topic) -> LogError:
    """What to tell a client that would write a topic of the stages' own."""
    client_topics = [
        name for name, definition in sorted(embedded().items()) if is_of_clients(definition)
    ]
    return LogError(
        f"{topic.name}: expected a topic that clients write ({', '.join(client_topics)}), given "
        f"one that only {', '.join(topic.writers)} may"
    )


def read_between(log: Log, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
    """The records of a partition from one offset to before another, whatever gaps lie between.

    Args:
        log: to read from.
        topic: one of the catalogue.
        partition: from 0.
        start: the first offset.
        end: one past the last.
    """
    while start < end and (records := log.read(topic, partition, start, end - start)):
        yield from (record for record in records if record.offset < end)
        start = records[-1].offset + 1


def whole_piece(log: Log, task: str, name: str) -> bytes | None:
    """A piece of a task's state, in however many entries it lies; None if there is none.

    Args:
        log: to read from.
        task: `STAGE-PARTITION`.
        name: the piece's.
    """

    def read(entry: str) -> bytes | None:
        value = log.piece(task, entry)
        return None if value is None else content(value)

    return read_piece(name, read)
