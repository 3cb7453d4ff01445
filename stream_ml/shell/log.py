"""The port: what a log of records promises to those who drive the stages, and what it does not.

A log has topics, a topic has partitions, and a partition is a sequence of records that is only
ever appended to.

Every log promises:

- **Order.** Within a partition offsets start at 0 and only grow, and reading follows them. Between
  partitions there is no order.
- **One key, one partition.** A record's partition is `topics.partition_of` its key; a record
  without a key goes to partition 0.
- **Append time.** The log stamps a record when it takes it in; within a partition stamps never
  fall.
- **Durable when reported.** What `append` has returned, and what `commit` has returned from,
  outlives the death of every process, at any instant. (A log may add what it outlives beyond that,
  such as a loss of power.)
- **All or nothing.** A `commit` writes outputs, positions and state together. A reader sees all of
  it or nothing, and of a session that ends without a commit, nothing is ever seen.
- **One worker.** At most one live session writes; a second is refused with `LogLocked`. The death
  of a worker, however sudden, gives up its place.

No log promises:

- *Offsets without gaps.* Retention, compaction and the marks that some logs keep between records
  leave gaps; go on from one past the last offset read, and never count records by offsets. (The
  embedded log leaves no gaps but those of retention and compaction.)
- *Time across partitions*, or that a stamp equals the publisher's clock.
- *Exactly once for publishers.* A publisher that dies before `append` returns does not know what
  was taken, and publishes again: ids make duplicates harmless, not the log.
- *That an `append` to several partitions is seen at once.* (The embedded log's is.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from stream_ml.records import Output, Record

__all__ = ["Log", "Place", "Session"]

# A partition of a topic.
Place = tuple[str, int]


class Log(Protocol):
    """A log of records: appended to by publishers and one worker, read by anyone."""

    @property
    def partitions(self) -> Mapping[str, int]:
        """How many partitions each topic has, by topic."""

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """Appends `outputs` in their order and returns where each one lies now.

        For publishers and operators, who write `events`, `labels` and `commands`; the other
        topics are the worker's own (see `Session`).

        Raises:
            UnknownTopic: an output is for a topic that the log does not have.
            LogError: they could not be appended, `LogFull` and `LogLocked` among the reasons.
        """

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset` on, in order; none at the end. Does not wait.

        Fewer than `limit` need not mean the end: a log may bound the bytes it reads at once.

        Raises:
            UnknownTopic: the log does not have it.
        """

    def first_offset(self, topic: str, partition: int) -> int:
        """The offset before which retention has removed everything."""

    def end_offset(self, topic: str, partition: int) -> int:
        """One past the offset of the last record; what the next record's will be at least."""

    def version(self) -> Hashable:
        """A token that differs from an earlier one if anything was appended in between.

        It costs far less than asking each partition, so a loop that finds it unchanged need not
        look for records. It may change without cause.
        """

    def committed(self, group: str) -> dict[Place, int]:
        """Where `group` goes on: the next offset per partition, as last committed."""

    def state(self, group: str) -> list[tuple[str, bytes]]:
        """The state pieces of `group`, as last committed, by key in order."""

    def session(self) -> Session:
        """Becomes the worker.

        Raises:
            LogLocked: there is one already.
        """

    def close(self) -> None:
        """Lets go of everything; what was not committed is gone."""


class Session(Protocol):
    """The worker's hold on the log; a context manager that gives it up at the end.

    The worker is the only writer of what its stages write: predictions, examples, models,
    registry, evaluations, alerts and dead letters. So a record's offset is known when it is
    staged, and a later stage in the same process can have the record before it is committed.
    """

    @property
    def staged(self) -> int:
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
        positions: Mapping[str, Mapping[Place, int]] | None = None,
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
            AssertionError: another writer has appended to a partition that was staged to, which
                breaks the rule that makes staged offsets right.
        """

    def close(self) -> None:
        """Gives up the worker's place; what was not committed is gone."""

    def __enter__(self) -> Self:
        """The session itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes it, committing nothing."""
