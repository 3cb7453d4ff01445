"""Forgets a key: what lies of it where, markers for the stages, records, and the proof.

Theory of operation. A person asks for what is theirs to be forgotten. Of that

1. stages hold windows and predictions that wait: they drop them at signed markers on `events` and
   `labels` (`stages.erasure`), once the command for it was answered on the registry;
2. records lie on the log. The embedded log takes their keys and values away, where they lie, and
   the file is written anew, so that no byte is left in it. A cluster has no way to do so: there
   they lie until retention ends;
3. models have learned. Nothing can be taken out of them: who learned, and from how many examples,
   is told.

Whose records they are follows from the events on the log, which name key and id: who has no event
there any more has no ids to look for.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import BadRecord, NoAnswer, UsageError
from stream_ml.records import Output
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.tail import Backoff
from stream_ml.shell.views.costs import learn_tasks
from stream_ml.shell.views.dead_letters import LATE_EVENTS, letters_in, original_bytes
from stream_ml.stages.erasure import Erasure, Erasures
from stream_ml.stages.topology import STAGES
from stream_ml.topics import catalogue, partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Command, DeadLetter, Record
    from stream_ml.shell.log.port import Log, PartitionId

__all__ = [
    "Traces",
    "append_markers",
    "await_stages",
    "erasures_of",
    "find_on_log",
    "find_traces",
    "is_marker",
    "unwritten_tasks",
    "verify",
]

# Records that are about a single event, or may name one.
TOPICS = (
    "events",
    "labels",
    "predictions",
    "examples",
    "answers",
    "dead-letters",
    "late-events",
    "alerts",
)
LETTER_TOPICS = ("dead-letters", LATE_EVENTS)
CHUNK_BYTES = 8 * 1024 * 1024
# A shorter key stands by chance in any file: it is looked for where JSON would have it alone.
BARE_LENGTH_MIN = 8
_SEPARATORS = re.compile(rb"[\s'\",;:=(){}\[\]\\]+")


@dataclass(slots=True)
class Traces:
    """The records on a log that are of a key, or about its events.

    Attributes:
        key: an entity's.
        ids: of its events that lie on the log.
        offsets: where records lie, by topic and partition.
        newest_ms: when the log took in the last of them, by topic, UTC milliseconds.
        words: key and ids as JSON has them, once all events are read.
    """

    key: str
    ids: set[str] = field(default_factory=set)
    offsets: dict[PartitionId, list[int]] = field(default_factory=dict)
    newest_ms: dict[str, int] = field(default_factory=dict)
    words: frozenset[bytes] = frozenset()

    def add(self, record: Record) -> None:
        """Take note of a record."""
        position = (record.topic, record.partition)
        self.offsets.setdefault(position, []).append(record.offset)
        self.newest_ms[record.topic] = max(self.newest_ms.get(record.topic, 0), record.append_ms)

    def take(self, other: Traces) -> None:
        """Take in what was found later, too."""
        self.ids |= other.ids
        for position, offsets in other.offsets.items():
            known = self.offsets.setdefault(position, [])
            known += sorted(set(offsets).difference(known))
        for topic, ms in other.newest_ms.items():
            self.newest_ms[topic] = max(self.newest_ms.get(topic, 0), ms)

    @property
    def counts(self) -> dict[str, int]:
        """How many records there are, by topic."""
        counts: Counter[str] = Counter()
        for (topic, _), offsets in self.offsets.items():
            counts[topic] += len(offsets)
        return dict(counts)

    def until_ms(self, topic: str) -> int | None:
        """When retention will have removed the last of them; None: never by itself."""
        retention_ms = catalogue()[topic].retention_ms
        return None if retention_ms is None else self.newest_ms[topic] + retention_ms


def find_traces(log: Log, pipeline: Pipeline, key: str, ids: Iterable[str] = ()) -> Traces:
    """Read a log for all that is of a key, or about its events.

    Args:
        log: to read.
        pipeline: says which members of an event are its key and id.
        key: an entity's.
        ids: of events of it that may lie on the log no more.
    """
    traces = Traces(key, set(ids))
    for record in read_all(log, "events"):
        members = _members(record.value)
        if members.get(pipeline.events.key) == key or record.key == key.encode():
            traces.add(record)
            event_id = members.get(pipeline.events.id)
            if isinstance(event_id, str):
                traces.ids.add(event_id)
        elif members.get(pipeline.events.id) in traces.ids:
            traces.add(record)
    traces.words = frozenset().union(*map(_escaped, (key, *traces.ids)))
    for topic in TOPICS[1:]:
        if topic in log.partitions:
            for record in read_all(log, topic):
                if _is_about(log, record, traces, pipeline):
                    traces.add(record)
    return traces


def _is_about(log: Log, record: Record, traces: Traces, pipeline: Pipeline) -> bool:
    if record.topic in LETTER_TOPICS:
        return any(
            _is_letter_about(original_bytes(log, view.letter), view.letter, traces, pipeline)
            or _has_key(record.key, traces)
            for view in letters_in([record])
        )
    if record.topic == "alerts":
        texts = list(_texts(record.value)) or [(record.value or b"").decode(errors="replace")]
        return any(_has_word(text, word) for word in (traces.key, *traces.ids) for text in texts)
    return _names(record.value, traces, pipeline)


def _is_letter_about(
    value: bytes | None, letter: DeadLetter, traces: Traces, pipeline: Pipeline
) -> bool:
    """Whether what was refused is of the key, be it in members of members, or in no JSON at all.

    What names another key where it is declared is that one's.
    """
    if _names(value, traces, pipeline) or _has_key(_decoded(letter.key), traces):
        return True
    if pipeline.events.key in _members(value):
        return False
    is_named = any(text == traces.key or text in traces.ids for text in _texts(value))
    return is_named or _has_words(value or b"", traces.key, traces.words)


def _has_words(data: bytes, key: str, escaped: frozenset[bytes]) -> bool:
    """Whether a word stands between quotation marks, or a long one anywhere by itself."""
    quoted = data.split(b'"')
    # A backslash is before the mark where JSON lies in a text of JSON.
    if not escaped.isdisjoint(quoted) or not escaped.isdisjoint(
        token.removesuffix(b"\\") for token in quoted
    ):
        return True
    alone = {token for token in _SEPARATORS.split(data) if len(token) >= BARE_LENGTH_MIN}
    return not escaped.isdisjoint(alone) or any(
        len(key) >= BARE_LENGTH_MIN and each in data for each in _escaped(key)
    )


def _escaped(word: str) -> frozenset[bytes]:
    """A word as JSON has it, in UTF-8 and in ASCII; the latter only differs beyond ASCII."""
    return frozenset((orjson.dumps(word)[1:-1], json.dumps(word)[1:-1].encode()))


def _has_word(text: str, word: str) -> bool:
    """Whether a word, which may have blanks and points itself, stands in a text by itself."""
    if word not in text:
        return False
    pattern = rf"(?<![\w-])(?<!\w\.){re.escape(word)}(?![\w-]|\.\w)"
    return re.search(pattern, text) is not None


def _texts(value: bytes | None) -> Iterator[str]:
    """All texts in a value of JSON, and in JSON that is a text of it; names of members too."""
    waiting = _parsed(value or b"")
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
            waiting += _parsed(item) if item[:1] in ("{", "[") else ()
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item


def _parsed(value: bytes | str) -> list[Any]:
    try:
        return [orjson.loads(value)]
    except orjson.JSONDecodeError:
        return []


def _decoded(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except ValueError:
        return b""


def _has_key(key: bytes | None, traces: Traces) -> bool:
    word = (key or b"").decode(errors="replace")
    return word == traces.key or word in traces.ids


def _names(value: bytes | None, traces: Traces, pipeline: Pipeline) -> bool:
    """Whether a record names the key, or an event of it: under the wire's names, or declared."""
    members = _members(value)
    keys = {members.get("key"), members.get(pipeline.events.key)}
    ids = [members.get(name) for name in ("event_id", pipeline.events.id)]
    return traces.key in keys or any(isinstance(each, str) and each in traces.ids for each in ids)


def _members(value: bytes | None) -> dict[str, Any]:
    try:
        members = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(members, dict):
        return {}
    return {name: each for name, each in members.items() if isinstance(each, str)}


# --- the stages -------------------------------------------------------------------------------


def erasures_of(log: Log, pipeline: Pipeline, key: bytes) -> Erasures:
    """What signs and reads markers on a log.

    Args:
        log: that they lie on.
        pipeline: the declaration.
        key: the pipeline's.
    """
    return Erasures(key, pipeline.name, log.identity)


def append_markers(
    log: Log, pipeline: Pipeline, erasures: Erasures, key: str, command: Command
) -> dict[PartitionId, int]:
    """Put the markers on the log, at which stages forget; where they lie.

    Args:
        log: that workers work on.
        pipeline: the declaration.
        erasures: signs them.
        key: an entity's.
        command: that was answered.

    Raises:
        UsageError: the pipeline would take a marker for an event or a label.
    """
    count = log.partitions["events"]
    partition = partition_of(key.encode(), count)
    subject = erasures.subjects(key)[0]
    members = (subject, command.command_id, command.ts, pipeline.name, log.identity, partition)
    marker = erasures.encode(Erasure(*members))
    _check_unlike(pipeline, marker)
    [event] = log.append([Output("events", _key_into(partition, count), marker)])
    positions = {("events", partition): event.offset}
    value = erasures.encode(Erasure(*members, event.offset))
    labels = log.partitions["labels"]
    for record in log.append(
        [Output("labels", _key_into(number, labels), value) for number in range(labels)]
    ):
        positions["labels", record.partition] = record.offset
    return positions


def _check_unlike(pipeline: Pipeline, marker: bytes) -> None:
    for name, codec in (("event", pipeline.event_codec), ("label", pipeline.label_codec)):
        try:
            codec.decode(marker)
        except BadRecord:
            continue
        raise UsageError(
            f"forget: expected a declaration under which a marker is no {name}, given one with the "
            "same members (kind, subject, command_id): nothing can be forgotten under it"
        )


def is_marker(pipeline: Pipeline, record: Record) -> bool:
    """Whether a record is to have the stages forget a key, and is no event and no label.

    Args:
        pipeline: the declaration.
        record: of `events` or `labels`.
    """
    if not Erasures.is_marker(record.value):
        return False
    codec = pipeline.event_codec if record.topic == "events" else pipeline.label_codec
    try:
        codec.decode(record.value)
    except BadRecord:
        return True
    return False


def _key_into(partition: int, count: int) -> bytes:
    """A key of a record that belongs into a partition, and is nobody's."""
    number = 0
    while partition_of(key := b"forget-%d" % number, count) != partition:
        number += 1
    return key


def await_stages(
    log: Log,
    positions: dict[PartitionId, int],
    timeout_s: float,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Wait until predict and join have read the markers.

    Args:
        log: with workers on it.
        positions: of the markers.
        timeout_s: how long.
        wait: what to wait with.

    Raises:
        NoAnswer: they have not in time.
    """
    deadline, backoff = time.monotonic() + timeout_s, Backoff()
    remaining = dict(positions)
    while remaining:
        for (topic, partition), offset in list(remaining.items()):
            task = f"{'predict' if topic == 'events' else 'join'}-{partition}"
            if log.committed(task).get((topic, partition), 0) > offset:
                del remaining[topic, partition]
        if remaining and time.monotonic() >= deadline:
            waiting = ", ".join(f"{topic}-{partition}" for topic, partition in sorted(remaining))
            raise NoAnswer(
                f"forget: no stage has read the markers on {waiting} within {timeout_s:g} s; is a "
                "worker running? They stay on the log and are obeyed when they are read: then ask "
                "again, which does no harm"
            )
        if remaining:
            wait(backoff.next())


def unwritten_tasks(log: Log, erasures: Erasures, key: str) -> list[str]:
    """The tasks of a cluster whose state was last written before they were to forget a key.

    State in a worker's memory is nobody else's to look at: of these `verify` sees an older one.

    Args:
        log: with the markers.
        erasures: reads them.
        key: an entity's.
    """
    subjects = set(erasures.subjects(key))
    marked_ms: dict[str, int] = {}
    for topic, stage in (("events", "predict"), ("labels", "join")):
        for record in read_all(log, topic):
            if not Erasures.is_marker(record.value):
                continue
            try:
                erasure = erasures.decode(record.value)
            except BadRecord:
                continue
            if erasure.subject in subjects:
                marked_ms[f"{stage}-{record.partition}"] = record.append_ms
    return [task for task, ms in marked_ms.items() if (log.written_ms(task) or -1) < ms]


# --- the proof --------------------------------------------------------------------------------


def verify(log: Log, pipeline: Pipeline, key: str, ids: Collection[str]) -> dict[str, int]:
    """Look for a key and ids in all records, all state and the files; how often, by where.

    Args:
        log: to look through.
        pipeline: the declaration.
        key: an entity's.
        ids: of its events.
    """
    found = Counter(find_on_log(log, pipeline, key, ids))
    words = _words(key, ids)
    path = getattr(log, "path", None)
    for file in [] if path is None else [Path(path), Path(f"{path}-wal")]:
        if file.exists():
            found[f"file {file.name}"] += _find_words(file, words, key)
    return {where: count for where, count in found.items() if count}


def find_on_log(log: Log, pipeline: Pipeline, key: str, ids: Collection[str]) -> dict[str, int]:
    """Look for a key and ids in all records and all state; how often, by where.

    Args:
        log: to look through.
        pipeline: the declaration; of a task that is declared no more, the pipeline's own.
        key: an entity's.
        ids: of its events.
    """
    found = Counter(find_traces(log, pipeline, key, ids).counts)
    words = _words(key, ids)
    for task in _tasks(log, pipeline):
        count = sum(
            name[1:].encode() in words
            or _count(name.encode() + b'"' + piece, words) > 0
            or _has_bare(piece, key)
            for name, piece in log.state(task)
        )
        found[f"state of {task}"] += count
    return {where: count for where, count in found.items() if count}


def _words(key: str, ids: Iterable[str]) -> frozenset[bytes]:
    return frozenset(orjson.dumps(word)[1:-1] for word in (key, *ids))


def _tasks(log: Log, pipeline: Pipeline) -> Iterator[str]:
    for stage in STAGES.values():
        if stage.name == "learn":
            yield from learn_tasks(log, pipeline.recipes)
            continue
        for partition in range(log.partitions.get(stage.inputs[0], 0)):
            yield f"{stage.name}-{partition}"


def _find_words(file: Path, words: frozenset[bytes], key: str) -> int:
    """How often words stand in a file as JSON has them, and a long key anywhere.

    Args:
        file: of any kind.
        words: without quotation marks.
        key: one of them.
    """
    count, rest = 0, b""
    with file.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            data = rest + chunk
            end = data.rfind(b'"') + 1
            count += _count(data[:end], words) or _has_bare(data, key)
            # A word of JSON is no longer than a key may be.
            rest = data[end:][-CHUNK_BYTES:]
    return count + _count(rest, words)


def _count(data: bytes, words: frozenset[bytes]) -> int:
    return sum(token in words for token in data.split(b'"'))


def _has_bare(data: bytes, key: str) -> bool:
    return len(key) >= BARE_LENGTH_MIN and key.encode() in data
