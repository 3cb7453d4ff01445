"""Seals on the records and the state of stages, which are believed only if they are ours.

Theory of operation:

1. A seal is a keyed BLAKE2b of 16 bytes. Its key is derived from the pipeline's key and from what
   the sealed bytes are bound to: the pipeline's name, the log's identity, and the topic of a
   record or the task whose state it is. What was sealed for one place does not verify in another.
2. A record of a topic that stages own is a JSON object whose last member is `seal`, of fixed
   length, so that checking and taking it off is slicing. Stages see records without it.
3. An entry of state is a head (a mark, the number of the checkpoint that wrote it, the seal) and
   the bytes of the stage. The name is sealed with it. What says that an entry was dropped has a
   seal as well, beside it.
4. A checkpoint ends with its marker, which is sealed: at which positions the state is valid, the
   checkpoint's number, how many entries live, and a digest over all of them (the sum of their
   seals, which no order changes and which is kept up to date as entries come and go). So an entry
   that is missing, altered, older than the newest or too many is noticed, whatever wrote it.
5. On a changelog everybody's records lie one behind the other. Ours come in checkpoints whose
   numbers grow: what does not verify, what comes behind the last marker, or is of a checkpoint
   that had ended before it, is foreign. It is passed over, and where it hides an entry of ours
   from compaction, that is written again.
6. Keys may be rolled: see `signing.RollingKey`. What verifies by the former key only is believed,
   and sealed with the present one at the next checkpoint.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from binascii import hexlify
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import orjson

from stream_ml.errors import BadRecord
from stream_ml.signing import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from hashlib import blake2b

__all__ = [
    "MARKER",
    "SEALED_TOPICS",
    "Marker",
    "RecordSeal",
    "RestoredState",
    "SealedState",
    "Seals",
    "StateEntry",
    "checkpoint_seal",
    "content",
    "marker_in",
    "strip_seal",
]

# The topics whose records are sealed; models, decisions and commands are signed.
SEALED_TOPICS = frozenset(
    {"predictions", "examples", "answers", "evaluations", "alerts", "summaries", "entities"}
)
# No piece of a stage is called so: their names begin with a letter or are empty.
MARKER = b"\x00marker"

SEAL_BYTES = 16
_MEMBER = b',"seal":"'
_LENGTH = len(_MEMBER) + 2 * SEAL_BYTES + 2
_MARK = b"SMS1"
_HEAD = len(_MARK) + 8 + SEAL_BYTES
_MODULUS = 1 << (8 * SEAL_BYTES)
_LIVE, _TOMBSTONE = b"+", b"-"


class StateEntry(NamedTuple):
    """A piece of state as it is written; one that is dropped has a seal beside it."""

    name: bytes
    value: bytes | None
    seal: bytes | None = None


@dataclass(frozen=True, slots=True)
class Marker:
    """The end of a checkpoint.

    Attributes:
        positions: the next offset of each input, by topic and partition.
        number: of the checkpoint, counted from 1.
        entries: how many live.
        digest: over all of them.
        topics: the identity of each input topic, by name, where the log knows one.
        declaration: the declaration under which the state came about, by path.
        manifest: whether something beside it says which checkpoint is the last (on a log where one
            process writes all).
    """

    positions: dict[tuple[str, int], int]
    number: int = 0
    entries: int = 0
    digest: int = 0
    topics: dict[str, str] = field(default_factory=dict)
    declaration: dict[str, str] = field(default_factory=dict)
    manifest: bool = False


@dataclass(slots=True)
class RestoredState:
    """A task's state as it was read, and its flaws.

    Attributes:
        pieces: what is believed, by name.
        marker: of the last checkpoint; None where there is none of ours.
        flaws: what is wrong, a sentence each: then `pieces` are not the whole state.
        foreign: how many records others have put there.
        plain: pieces of a former release, which did not seal, if that is all there is.
        foreign_owner: how the state is sealed, in words, where nothing is sealed with our keys.
    """

    pieces: dict[str, bytes] = field(default_factory=dict)
    marker: Marker | None = None
    flaws: list[str] = field(default_factory=list)
    foreign: int = 0
    plain: dict[str, bytes] = field(default_factory=dict)
    foreign_owner: str | None = None


class Seals:
    """Seals of one pipeline on one log.

    Args:
        key: the pipeline's; a `signing.RollingKey` where there is a former one.
        pipeline: its name.
        log: the log's identity.

    >>> seal = Seals(b"secret", "shop", "a").records("examples")
    >>> seal.unseal(seal.seal(b'{"n":1}'))
    b'{"n":1}'
    """

    def __init__(self, key: bytes, pipeline: str, log: str) -> None:
        self.pipeline = pipeline
        self.log = log
        self._keys = keys_of(key)
        self._records: dict[str, RecordSeal] = {}

    def records(self, topic: str) -> RecordSeal:
        """The seal of a topic's records."""
        if topic not in self._records:
            self._records[topic] = RecordSeal(topic, self._bases("record", topic))
        return self._records[topic]

    def state(self, owner: str) -> SealedState:
        """The state of a task, nothing of it read yet."""
        return SealedState(self, owner, self._bases("state", owner))

    def _bases(self, kind: str, owner: str) -> list[blake2b]:
        return [_base(key, kind, owner, self.pipeline, self.log) for key in self._keys]


def _base(key: bytes, *context: str) -> blake2b:
    """A hash that is keyed for this place, to be copied for each seal."""
    names = [name.encode() for name in context]
    frames = b"".join(struct.pack(">I", len(name)) + name for name in names)
    subkey = hmac.digest(key, b"stream-ml seal" + frames, "sha256")
    return hashlib.blake2b(key=subkey, digest_size=SEAL_BYTES)


class RecordSeal:
    """Seals the records of one topic, and takes seals off."""

    __slots__ = ("_bases", "_topic")

    def __init__(self, topic: str, bases: Sequence[blake2b]) -> None:
        self._topic = topic
        self._bases = bases

    def seal(self, body: bytes) -> bytes:
        """`body`, a JSON object, with its seal as the last member."""
        mac = self._bases[0].copy()
        mac.update(body)
        return b'%b,"seal":"%b"}' % (body[:-1], hexlify(mac.digest()))

    def unseal(self, value: bytes | None) -> bytes:
        """The body that `seal` was given.

        Raises:
            BadRecord: `value` was not sealed for this topic, of this pipeline and log, by our key.
        """
        if value is None or value[-_LENGTH : 9 - _LENGTH] != _MEMBER:
            raise self._forgery("none")
        body = value[:-_LENGTH] + b"}"
        seal = value[9 - _LENGTH :]
        for base in self._bases:
            mac = base.copy()
            mac.update(body)
            if hmac.compare_digest(seal, hexlify(mac.digest()) + b'"}'):
                return body
        raise self._forgery("another")

    def _forgery(self, actual: str) -> BadRecord:
        return BadRecord(
            "forged",
            "$.seal",
            f"expected the seal of {self._topic}, of this pipeline and this log, by our key, given "
            f"{actual}; only workers write there: see who else may",
        )


def strip_seal(value: bytes | None) -> bytes:
    """A record without its seal, for readers who have no key to check it with.

    >>> strip_seal(b'{"n":1,"seal":"00112233445566778899aabbccddeeff"}'), strip_seal(b'{"n":1}')
    (b'{"n":1}', b'{"n":1}')
    """
    value = value or b""
    return value[:-_LENGTH] + b"}" if value[-_LENGTH : 9 - _LENGTH] == _MEMBER else value


def content(piece: bytes) -> bytes:
    """The bytes of the stage in an entry of state, for readers who have no key.

    >>> content(b"SMS1" + bytes(24) + b"{}"), content(b"{}")
    (b'{}', b'{}')
    """
    return piece[_HEAD:] if piece.startswith(_MARK) else piece


def checkpoint_seal(pieces: Mapping[str, bytes]) -> str:
    """The seal of the marker among the entries of a state, by name; empty where there is none."""
    return pieces.get(MARKER.decode(), b"")[len(_MARK) + 8 : _HEAD].hex()


# --- markers ----------------------------------------------------------------------------------


def _encode_marker(marker: Marker, seals: Seals) -> bytes:
    return orjson.dumps(
        {
            # In clear, so that who has another key can be told what this is.
            "pipeline": seals.pipeline,
            "log": seals.log,
            "positions": [
                (topic, partition, offset)
                for (topic, partition), offset in marker.positions.items()
            ],
            "number": marker.number,
            "entries": marker.entries,
            "digest": f"{marker.digest:032x}",
            "topics": marker.topics,
            "declared": marker.declaration,
            "manifest": marker.manifest,
        }
    )


def marker_in(body: bytes) -> Marker:
    """The marker in its body, also in one of a former release.

    >>> marker_in(b'{"positions":[["events",3,40]]}').positions
    {('events', 3): 40}
    """
    members = orjson.loads(body)
    return Marker(
        {(topic, partition): offset for topic, partition, offset in members["positions"]},
        members.get("number", 0),
        members.get("entries", 0),
        int(members.get("digest", "0"), 16),
        members.get("topics", {}),
        members.get("declared", {}),
        members.get("manifest", False),
    )


def _foreign_owner(value: bytes | None, seals: Seals) -> str:
    """The origin of a marker that is not sealed with our keys, by its own words."""
    try:
        members = orjson.loads(strip_seal(content(value or b"")))
        pipeline, log = members["pipeline"], members["log"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "by another key"
    if pipeline != seals.pipeline:
        return f"for the pipeline {pipeline!r}, which is not {seals.pipeline!r}"
    if log != seals.log:
        return f"for the log {log!r}, which is not this one, {seals.log!r}"
    return "by another key"


# --- state ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _VerifiedEntry:
    """An entry of ours: the number of its checkpoint, its seal, its bytes; by which key."""

    number: int
    seal: int
    body: bytes | None
    has_current_key: bool


class SealedState:
    """The state of one task, as it lies on a log: got by `Seals.state`, read once, then written.

    On a changelog: `take` each record in order, then `result`. Of a log that keeps the newest of
    each piece by itself: `restore`.
    """

    def __init__(self, seals: Seals, owner: str, bases: Sequence[blake2b]) -> None:
        self._seals = seals
        self.owner = owner
        self._bases = bases
        self.number = 0
        # The seals of what lives, and what is to be written again with the next checkpoint.
        self._live: dict[bytes, int] = {}
        self._digest = 0
        self._rewrites: dict[bytes, bytes | None] = {}
        # While a changelog is read.
        self._marker: Marker | None = None
        self._highest = 0
        self._checkpoint_entries: dict[bytes, _VerifiedEntry] = {}
        self._pending: dict[bytes, _VerifiedEntry] = {}
        self._hidden_names: set[bytes] = set()
        self._plain: dict[bytes, bytes] = {}
        self._foreign = 0
        self._foreign_marker: bytes | None = None
        self._names: set[bytes] = set()

    @property
    def must_write(self) -> bool:
        """Whether something of ours should be written again soon, lest it be lost."""
        return bool(self._rewrites)

    # --- writing -------------------------------------------------------------------------------

    def write(
        self,
        pieces: Iterable[tuple[str, bytes | None]],
        positions: Mapping[tuple[str, int], int],
        *,
        topics: Mapping[str, str] | None = None,
        declaration: Mapping[str, str] | None = None,
        manifest: bool = False,
    ) -> list[StateEntry]:
        """A checkpoint: the pieces that changed as entries, and the marker behind them.

        Args:
            pieces: names with their bytes; None takes a piece away.
            positions: by topic and partition, up to which the state has read.
            topics: the ids of the topics that were read, by name.
            declaration: the declaration, as `Pipeline.declaration` gives it.
            manifest: whether something beside it says which checkpoint is the last.
        """
        rewrites, self._rewrites = self._rewrites, {}
        changes = {**rewrites, **{name.encode(): body for name, body in pieces}}
        number = self.number + 1
        entries = self._write(changes, number)
        self.number = number
        marker = Marker(
            dict(positions),
            number,
            len(self._live),
            self._digest,
            dict(topics or {}),
            dict(declaration or {}),
            manifest,
        )
        body = _encode_marker(marker, self._seals)
        entries.append(StateEntry(MARKER, self._seal_entry(MARKER, body, number)[0]))
        return entries

    def _write(self, changes: Mapping[bytes, bytes | None], number: int) -> list[StateEntry]:
        """As `_seal`, of many at once: what all have in common is hashed and packed once."""
        number_bytes = struct.pack(">Q", number)
        base, head = self._bases[0].copy(), _MARK + number_bytes
        base.update(number_bytes)
        live, digest = self._live, self._digest
        entries = []
        for name, body in changes.items():
            digest -= live.pop(name, 0)
            mac = base.copy()
            if body is None:
                mac.update(struct.pack(">I", len(name)) + _TOMBSTONE + name)
                entries.append(StateEntry(name, None, number_bytes + mac.digest()))
                continue
            mac.update(b"%b%b%b%b" % (struct.pack(">I", len(name)), _LIVE, name, body))
            seal = mac.digest()
            live[name] = number_of_seal = int.from_bytes(seal)
            digest += number_of_seal
            entries.append(StateEntry(name, head + seal + body))
        self._digest = digest % _MODULUS
        return entries

    def _seal_entry(self, name: bytes, body: bytes, number: int) -> tuple[bytes, int]:
        seal = self._seal(self._bases[0], name, body, number)
        return _MARK + struct.pack(">Q", number) + seal + body, int.from_bytes(seal)

    @staticmethod
    def _seal(base: blake2b, name: bytes, body: bytes | None, number: int) -> bytes:
        mac = base.copy()
        kind = _TOMBSTONE if body is None else _LIVE
        mac.update(struct.pack(">QI", number, len(name)) + kind + name)
        if body is not None:
            mac.update(body)
        return mac.digest()

    def _verify(
        self, name: bytes, value: bytes | None, seal: bytes | None
    ) -> _VerifiedEntry | None:
        """The entry, if it is ours."""
        if value is not None:
            if not value.startswith(_MARK) or len(value) < _HEAD:
                return None
            head, body = value[len(_MARK) : _HEAD], value[_HEAD:]
        elif seal is not None and len(seal) == 8 + SEAL_BYTES:
            head, body = seal, None
        else:
            return None
        number, actual = int.from_bytes(head[:8]), head[8:]
        for base in self._bases:
            if hmac.compare_digest(actual, self._seal(base, name, body, number)):
                return _VerifiedEntry(number, int.from_bytes(actual), body, base is self._bases[0])
        return None

    def opened_marker(self, value: bytes) -> Marker | None:
        """The marker in an entry as it lies there, if it is sealed for this state by our key.

        That it is the newest one of ours, and that the state is whole, only a start can tell.
        """
        entry = self._verify(MARKER, value, None)
        return None if entry is None or entry.body is None else marker_in(entry.body)

    def adopt(self, pieces: Mapping[str, bytes]) -> None:
        """Seal with the next checkpoint what lies there without seals."""
        self._rewrites = {name.encode(): body for name, body in pieces.items()}

    def begin_anew(self) -> None:
        """Drop what lies there with the next checkpoint, but for what that writes."""
        self._rewrites = dict.fromkeys(self._names)
        self._live, self._digest = {}, 0

    # --- reading -------------------------------------------------------------------------------

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> RestoredState:
        """The state of a log that keeps the newest of each piece, and nothing beside."""
        entries: dict[bytes, _VerifiedEntry] = {}
        bad_names: list[bytes] = []
        values = {name.encode(): value for name, value in pieces}
        for name, value in values.items():
            entry = self._verify(name, value, None)
            if entry is None:
                bad_names.append(name)
                self._plain[name] = value
            else:
                entries[name] = entry
        marker = entries.pop(MARKER, None)
        self._foreign_marker = values.get(MARKER)
        if marker is not None and marker.body is not None:
            self._marker = marker_in(marker.body)
            self._reseal(MARKER, marker)
        return self._check_whole(
            entries, [f"{_display_name(name)} is not what was written" for name in bad_names]
        )

    def take(self, key: bytes | None, value: bytes | None, seal: bytes | None) -> None:
        """A record of a changelog: its key, its value, and what its header says is its seal.

        Args:
            key: the record's.
            value: the record's; None for a tombstone.
            seal: as its header has it.
        """
        if key is None:
            self._foreign += 1
            return
        entry = self._verify(key, value, seal)
        last_number = 0 if self._marker is None else self._marker.number
        if entry is None or entry.number <= last_number or entry.number < self._highest:
            self._pass_over(key, value)
            return
        self._highest = entry.number
        self._hidden_names.discard(key)
        if key != MARKER or entry.body is None:
            self._pending[key] = entry
            return
        self._marker = marker_in(entry.body)
        self._rewrites.pop(MARKER, None)
        self._reseal(MARKER, entry)
        self._checkpoint_entries |= self._pending
        self._pending = {}

    def _pass_over(self, key: bytes, value: bytes | None) -> None:
        self._foreign += 1
        self._hidden_names.add(key)
        if key == MARKER:
            self._foreign_marker = value
        if value is None:
            self._plain.pop(key, None)
        elif self._marker is None:
            self._plain[key] = value

    def result(self) -> RestoredState:
        """The state that the records of the changelog come to."""
        if self._has_no_checkpoint():
            # Entries that others put there before we began go with our first checkpoint.
            self._rewrites = dict.fromkeys(self._hidden_names - {MARKER})
            return RestoredState(foreign=self._foreign)
        self._foreign += len(self._pending)
        self._hidden_names |= self._pending.keys()
        flaws = [
            f"{_display_name(name)} was put there by somebody else, where there is none of ours"
            for name in sorted(self._hidden_names)
            if self._marker is None or (name not in self._checkpoint_entries and name != MARKER)
        ]
        live = {
            name: entry
            for name, entry in self._checkpoint_entries.items()
            if entry.body is not None
        }
        result = self._check_whole(live, flaws)
        if not result.flaws:
            for name in self._hidden_names:
                if name == MARKER:
                    self._rewrites.setdefault(b"", live[b""].body if b"" in live else None)
                else:
                    self._rewrites[name] = live[name].body if name in live else None
        return result

    def _has_no_checkpoint(self) -> bool:
        """Whether no checkpoint was ever written here, by this release or a former one."""
        has_begun = self._marker is not None or self._pending or MARKER in self._plain
        return not has_begun and not any(value.startswith(_MARK) for value in self._plain.values())

    def _check_whole(self, entries: dict[bytes, _VerifiedEntry], flaws: list[str]) -> RestoredState:
        """Whether what was found is the state of the marker, and nothing but that."""
        marker, foreign = self._marker, self._foreign
        plain, self._plain = self._plain, {}
        self._checkpoint_entries, self._pending = {}, {}
        self._names = {*entries, *plain, *self._hidden_names} - {MARKER}
        if marker is None:
            if not entries and not plain and not foreign:
                return RestoredState()
            return self._without_marker(entries, plain, flaws)
        self.number = marker.number
        self._live = {name: entry.seal for name, entry in entries.items()}
        self._digest = sum(self._live.values()) % _MODULUS
        for name, entry in entries.items():
            self._reseal(name, entry)
        if (len(entries), self._digest) == (marker.entries, marker.digest):
            flaws = []
        elif not flaws and len(entries) != marker.entries:
            flaws = [f"expected {marker.entries} entries, given {len(entries)}"]
        elif not flaws:
            flaws = ["an entry is an older one of ours, put back"]
        pieces = {name.decode(): entry.body or b"" for name, entry in entries.items()}
        return RestoredState(pieces, marker, flaws, foreign)

    def _without_marker(
        self, entries: dict[bytes, _VerifiedEntry], plain: dict[bytes, bytes], flaws: list[str]
    ) -> RestoredState:
        if entries:
            return RestoredState(flaws=[*flaws, "the marker of the last checkpoint is missing"])
        if not any(value.startswith(_MARK) for value in plain.values()):
            pieces = {name.decode(errors="replace"): value for name, value in plain.items()}
            return RestoredState(plain=pieces, foreign=self._foreign)
        return RestoredState(
            flaws=[*flaws, "nothing is sealed with our key"],
            foreign=self._foreign,
            foreign_owner=_foreign_owner(self._foreign_marker, self._seals),
        )

    def _reseal(self, name: bytes, entry: _VerifiedEntry) -> None:
        if not entry.has_current_key and name != MARKER:
            self._rewrites[name] = entry.body


def _display_name(name: bytes) -> str:
    return "the marker" if name == MARKER else f"the entry {name.decode(errors='replace')!r}"
