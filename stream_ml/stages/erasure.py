"""Markers on `events` and `labels` that a key is to be forgotten, as the stages read them.

Theory of operation. What a stage has folded in of a key goes at a place on its input, so that it
goes wherever the log is read again, and at the same instant: predict drops the key's windows at a
marker on the key's partition of `events`, and join the predictions that wait at a marker on each
partition of `labels`. The second marker names the place of the first: predictions about events
before it, which may come to join later, are not kept either, but for those whose label lay on the
log before the marker. What comes of the key behind the markers is of somebody new.

A marker does not name the key, which would then be on the log for ever, but its *subject*: the
HMAC-SHA256 of it by the pipeline's key. It is signed with that key, for one pipeline and one log.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import BadRecord
from stream_ml.signing import keys_of, seal, unseal
from stream_ml.stages.answered_ids import AnsweredIds
from stream_ml.task_names import pipeline_in

if TYPE_CHECKING:
    from stream_ml.records import Source

__all__ = [
    "ERASURES_MAX",
    "Erasure",
    "Erasures",
    "LateErasure",
    "LateErasures",
    "ObeyedErasures",
    "subject_of",
]

KIND = "forget"
_PREFIX = b'{"kind":"forget","subject":"'
_DOMAIN = b"stream-ml subject\0"
# Of so many at once join remembers which predictions may still come; none is expected to be near.
ERASURES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Erasure:
    """A key that is to be forgotten.

    Attributes:
        subject: of the key, 64 hex digits.
        command_id: of the command that tells of it.
        given_ms: when, by the operator's clock, UTC milliseconds.
        pipeline: whose records they are.
        log: the identity of the log.
        partition: of `events`, that the key belongs into.
        end: one past the last offset there that is forgotten; -1 in the marker there itself.
    """

    subject: str
    command_id: str
    given_ms: int
    pipeline: str
    log: str
    partition: int
    end: int = -1

    @property
    def ts(self) -> int:
        """Before all events: it has no time of its own, and is read at once."""
        return -1


class Erasures:
    """Reads and writes markers, and tells whether a key is meant.

    Args:
        key: the pipeline's.
        pipeline: its name.
        log: the identity of the log.
    """

    def __init__(self, key: bytes, pipeline: str, log: str) -> None:
        self._key, self._pipeline, self._log = key, pipeline, log

    @staticmethod
    def is_marker(value: bytes | None) -> bool:
        """Whether a record that is no event and no label says that it is a marker."""
        return value is not None and value.startswith(_PREFIX)

    def subjects(self, key: str) -> tuple[str, ...]:
        """The subjects of a key: by the pipeline's key, and by its former one."""
        return tuple(subject_of(key, candidate) for candidate in keys_of(self._key))

    def means(self, erasure: Erasure, key: str) -> bool:
        """Whether a key is the one that is to be forgotten."""
        return erasure.subject in self.subjects(key)

    def encode(self, erasure: Erasure) -> bytes:
        """The marker, signed."""
        return seal(orjson.dumps({"kind": KIND, **asdict(erasure)}), self._key)

    def decode(self, value: bytes | None, *, takes_siblings: bool = False) -> Erasure:
        """The marker in a record.

        Args:
            value: of the record.
            takes_siblings: whether it may be meant for another task of the pipeline: on `events`,
                which tasks have in common, each has a marker of its own.

        Raises:
            BadRecord: it is not signed with our key, or meant for another pipeline or log.
        """
        members: dict[str, Any] = orjson.loads(unseal(value, self._key))
        del members["kind"]
        erasure = Erasure(**members)
        is_sibling = pipeline_in(erasure.pipeline) == pipeline_in(self._pipeline)
        if takes_siblings and is_sibling and erasure.pipeline != self._pipeline:
            return erasure
        for member, actual, own in (
            ("pipeline", erasure.pipeline, self._pipeline),
            ("log", erasure.log, self._log),
        ):
            if actual != own:
                raise BadRecord(
                    "foreign_command",
                    f"$.{member}",
                    f"expected this {member}, {own!r}, given {actual!r}: a key was to be forgotten "
                    "there, and not here",
                )
        return erasure


@dataclass(frozen=True, slots=True)
class LateErasure:
    """A marker on `labels` before which predictions of its key may still come to join.

    Attributes:
        subject: of the key.
        partition: of `events`.
        end: one past the last offset there that is forgotten.
        label_offset: of the marker; labels before it may still be joined.
        watermark_ms: the labels watermark at it: what it has passed had expired.
    """

    subject: str
    partition: int
    end: int
    label_offset: int
    watermark_ms: int


class ObeyedErasures:
    """The markers on a partition of `events` that were obeyed, so that no copy of one is again.

    Whoever may write events may put the bytes of a marker there again, signed as they are. The
    newest `ERASURES_MAX` are known, and what was given no later than one before those is refused.
    """

    def __init__(self) -> None:
        self._ids = AnsweredIds()

    def __bool__(self) -> bool:
        return bool(self._ids)

    def take(self, erasure: Erasure) -> None:
        """Take note of a marker that is about to be obeyed.

        Raises:
            BadRecord: it was obeyed before, or nobody knows any more whether it was.
        """
        ids = self._ids
        if erasure.command_id in ids or erasure.given_ms <= ids.forgotten_ms:
            raise BadRecord(
                "duplicate",
                "$.command_id",
                f"expected a marker that was not obeyed before, given that of the command "
                f"{erasure.command_id!r} again; to forget what came of the key since, ask for it "
                "anew: `stream-ml forget`",
            )
        ids.add(erasure.command_id, erasure.given_ms)
        ids.keep(ERASURES_MAX)

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        state = self._ids.dump()
        return [state["forgotten_ms"], state["times"]]

    def load(self, state: list[Any]) -> None:
        """Take up a dumped state."""
        forgotten_ms, times = state
        self._ids = AnsweredIds(times, forgotten_ms)


class LateErasures:
    """The markers on a partition of `labels` that predictions may come late for."""

    def __init__(self) -> None:
        self._items: list[LateErasure] = []

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, item: LateErasure) -> None:
        """Remember one; beyond `ERASURES_MAX` the oldest is let go."""
        self._items = [*self._items[1 - ERASURES_MAX :], item]

    def find(self, key: str, source: Source, erasures: Erasures) -> LateErasure | None:
        """The first marker by which a prediction is forgotten; None if there is none.

        Args:
            key: the prediction's.
            source: of its event.
            erasures: tells which keys are meant.
        """
        subjects = erasures.subjects(key)
        for item in self._items:
            if (
                item.partition == source.partition
                and source.offset < item.end
                and item.subject in subjects
            ):
                return item
        return None

    def see(self, source: Source) -> None:
        """Let go of those that no prediction can come late for, once this one has come."""
        self._items = [
            item
            for item in self._items
            if item.partition != source.partition or source.offset < item.end - 1
        ]

    def dump(self) -> list[list[Any]]:
        """The state, as JSON can hold it."""
        return [list(astuple(item)) for item in self._items]

    def load(self, state: list[list[Any]]) -> None:
        """Take up a dumped state."""
        self._items = [LateErasure(*members) for members in state]


def subject_of(key: str, secret: bytes) -> str:
    """What stands for a key once it is forgotten: nobody without the secret can tell whose it was.

    >>> subject_of("ada", b"secret") == subject_of("ada", b"secret")
    True
    >>> len(subject_of("ada", b"secret"))
    64

    Args:
        key: an entity's.
        secret: the pipeline's key.
    """
    return hmac.new(secret, _DOMAIN + key.encode(), hashlib.sha256).hexdigest()
