"""Dead letters as they lie on their topic: counted, chosen, and with the bytes that were refused.

Events that came too late may have a topic of their own, whose records are read here likewise.

Anybody who may write the topic writes what is read here, so each record is checked, and one that
is no dead letter is counted and passed over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import UnknownTopic
from stream_ml.records import DeadLetter, LateEvent
from stream_ml.schema import INTEGER_MAX
from stream_ml.shell.log.reading import read_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log

__all__ = [
    "LATE_EVENTS",
    "TOPIC",
    "LetterFilter",
    "LetterGroup",
    "LetterTally",
    "LetterView",
    "letters_in",
    "original_bytes",
    "read_letters",
]

TOPIC = "dead-letters"
LATE_EVENTS = "late-events"
# Groups are named by what others wrote; beyond so many they are counted together.
GROUPS_MAX = 1_000
OTHERS = "(others)"
_STRINGS = frozenset({"topic", "stage", "reason", "path", "message", "sha256"})
_NUMBERS = frozenset({"partition", "offset", "length", "behind_ms"})


@dataclass(frozen=True, slots=True)
class LetterView:
    """A dead letter, and where it lies.

    Attributes:
        partition: of `dead-letters`, or of `late-events`.
        offset: there.
        append_ms: when the log took it in, UTC milliseconds.
        letter: what was refused, by whom and why.
    """

    partition: int
    offset: int
    append_ms: int
    letter: DeadLetter

    def as_dict(self) -> dict[str, Any]:
        """For JSON: its own position as `letter_partition` and `letter_offset`."""
        return {
            "letter_partition": self.partition,
            "letter_offset": self.offset,
            "refused_ms": self.append_ms,
            **asdict(self.letter),
        }


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """The dead letters that are asked for; what is None is not looked at.

    Attributes:
        reasons: in one word, such as `not_json`; empty for all.
        topic: that the refused records lay on.
        since_ms: refused then or later, by the log's clock, UTC milliseconds.
    """

    reasons: frozenset[str] = frozenset()
    topic: str | None = None
    since_ms: int | None = None

    def takes(self, view: LetterView) -> bool:
        """Whether it is one of them."""
        letter = view.letter
        return (
            (not self.reasons or letter.reason in self.reasons)
            and self.topic in (None, letter.topic)
            and (self.since_ms is None or view.append_ms >= self.since_ms)
        )


@dataclass(slots=True)
class LetterGroup:
    """How many dead letters have the same topic, reason and path, and the first and last of them.

    Attributes:
        count: how many.
        first_ms: when the log took in the first one, UTC milliseconds.
        last_ms: when it took in the last one.
    """

    count: int = 0
    first_ms: int = 0
    last_ms: int = 0


class LetterTally:
    """Counts by topic, reason and path, and the last letters, in bounded memory.

    Args:
        last: how many of the last letters to keep.

    Attributes:
        groups: by topic, reason and path.
        last: the last letters, in their order.
        count: of all letters.
        foreign: how many records there are no dead letters.
    """

    def __init__(self, last: int) -> None:
        self.groups: dict[tuple[str, str, str], LetterGroup] = {}
        self.last: deque[LetterView] = deque(maxlen=last)
        self.count = self.foreign = 0

    def add(self, view: LetterView) -> None:
        """Count a letter."""
        letter = view.letter
        name = (letter.topic, letter.reason, letter.path)
        if name not in self.groups and len(self.groups) >= GROUPS_MAX:
            name = (OTHERS, OTHERS, OTHERS)
        group = self.groups.setdefault(name, LetterGroup(0, view.append_ms))
        group.count += 1
        group.first_ms = min(group.first_ms, view.append_ms)
        group.last_ms = max(group.last_ms, view.append_ms)
        self.count += 1
        self.last.append(view)

    def add_foreign(self, _record: Record) -> None:
        """Count a record that is no dead letter."""
        self.foreign += 1


def read_letters(
    log: Log,
    wanted: LetterFilter,
    on_foreign: Callable[[Record], object] | None = None,
    topic: str = TOPIC,
) -> Iterator[LetterView]:
    """The dead letters of a log that a filter takes, partition by partition, in their order.

    Args:
        log: that they lie on.
        wanted: which of them.
        on_foreign: is told of each record there that is no dead letter.
        topic: `dead-letters`, or `late-events`, which not every log has.
    """
    for partition in range(log.partitions.get(topic, 0)):
        start = None
        if wanted.since_ms is not None:
            start = log.offset_at(topic, partition, wanted.since_ms)
        records = read_partition(log, topic, partition, start)
        yield from (view for view in letters_in(records, on_foreign) if wanted.takes(view))


def letters_in(
    records: Iterable[Record], on_foreign: Callable[[Record], object] | None = None
) -> Iterator[LetterView]:
    """The dead letters among records of `dead-letters` or `late-events`.

    Args:
        records: as they lie on the log.
        on_foreign: is told of each that is none.
    """
    for record in records:
        kind = LateEvent if record.topic == LATE_EVENTS else DeadLetter
        letter = _decode(record.value, kind)
        if letter is not None:
            yield LetterView(record.partition, record.offset, record.append_ms, letter)
        elif on_foreign is not None:
            on_foreign(record)


def _decode(value: bytes | None, kind: type[DeadLetter]) -> DeadLetter | None:
    try:
        members = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(members, dict):
        return None
    given: dict[str, Any] = {field.name: members.get(field.name) for field in fields(kind)}
    for name, member in given.items():
        if name in _NUMBERS:
            # A log cannot even be asked for an offset beyond.
            if type(member) is not int or not 0 <= member <= INTEGER_MAX:
                return None
        elif not isinstance(member, str) and (name in _STRINGS or member is not None):
            return None
    return kind(**given)


def original_bytes(log: Log, letter: DeadLetter) -> bytes | None:
    """The value that was refused, byte for byte: from its letter, else from where it lay.

    None where neither has it: a tombstone, or a long record that retention has removed. What does
    not have the length and hash that the letter names is not it.

    Args:
        log: that it lay on.
        letter: that tells of it.
    """
    if letter.value is not None:
        try:
            value: bytes | None = base64.b64decode(letter.value, validate=True)
        except (binascii.Error, ValueError):
            return None
    else:
        value = _as_it_lies(log, letter)
    if value is None or len(value) != letter.length:
        return None
    return value if hashlib.sha256(value).hexdigest() == letter.sha256 else None


def _as_it_lies(log: Log, letter: DeadLetter) -> bytes | None:
    if letter.topic not in log.partitions or letter.offset < 0 or not letter.length:
        return None
    try:
        records = log.read(letter.topic, letter.partition, letter.offset, 1)
    except UnknownTopic:
        return None
    if not records or records[0].offset != letter.offset:
        return None
    return records[0].value
