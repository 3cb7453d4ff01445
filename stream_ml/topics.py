"""The catalogue of topics, read from `topics/*.toml`: what lies where, for how long, in what form.

Nothing repeats these files. The clusters' topics are made from them, the embedded log's too, and
the documentation of the wire format is them.

A file holds one topic:

    name, purpose      what it is called, and what it is for in a sentence
    key                what a record's key is
    partitions         how many it has unless a deployment says otherwise
    scales             whether a deployment may say otherwise
    retention_ms       how long a record is kept after it was appended, or "forever"
    cleanup            "delete" (by age), or "compact" (the newest record of each key is kept)
    record_bytes_max   the longest value it takes
    record             what a value is, where it is not a JSON object alone
    clusters_only      whether only clusters have it; the embedded log keeps such things otherwise
    setting            of a declaration, without which a pipeline has no such topic (`extra`)
    writers, readers   stages, or `producer`, `consumer`, `operator`, `worker` (who runs stages)
    fields             the members of a record: type, meaning; `optional` ones may be absent;
                       `keyed_by` says that an object is a mapping, whose values have `fields`

A type is one of `array`, `boolean`, `integer`, `null`, `number`, `object`, `string`, or several
joined by ` | `. A name in angle brackets stands for names that the pipeline declares.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from struct import unpack_from
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from stream_ml.errors import DeclarationError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["Topic", "TopicField", "catalogue", "embedded", "load", "needed", "partition_of"]


@dataclass(frozen=True, slots=True)
class TopicField:
    """A member of a topic's records: its JSON type and what it means."""

    name: str
    type: str
    meaning: str
    optional: bool
    keyed_by: str | None
    fields: Mapping[str, TopicField]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as its file describes it; a `retention_ms` of None keeps records forever."""

    name: str
    purpose: str
    key: str
    partitions: int
    scales: bool
    retention_ms: int | None
    cleanup: Literal["delete", "compact"]
    record_bytes_max: int
    record: str
    clusters_only: bool
    setting: str | None
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    fields: Mapping[str, TopicField]


@cache
def catalogue() -> Mapping[str, Topic]:
    """All topics by name, as shipped; read once.

    Raises:
        DeclarationError: a file is wrong; every mistake in every file is listed.

    >>> sorted(catalogue())[:3]
    ['alerts', 'answers', 'commands']
    >>> catalogue()["labels"].key
    'event_id, as UTF-8'
    """
    package = Path(__file__).parent
    # A wheel carries the files inside the package; a checkout has them beside it.
    package_folder = package / "catalogue"
    return load(package_folder if package_folder.is_dir() else package.parent / "topics")


@cache
def embedded() -> Mapping[str, Topic]:
    """The topics that the embedded log has.

    >>> sorted(catalogue().keys() - embedded().keys())[:2]
    ['entities', 'evaluate-changelog']
    """
    return MappingProxyType({n: t for n, t in catalogue().items() if not t.clusters_only})


def needed(topics: Mapping[str, Topic], extra: Collection[str] = ()) -> dict[str, Topic]:
    """The topics that every pipeline has, and of the others those that are named.

    >>> sorted(catalogue().keys() - needed(catalogue()))
    ['entities', 'late-events']

    Args:
        topics: the catalogue, or part of it.
        extra: of those that only some declarations have, as `Pipeline.extra_topics` says.
    """
    return {name: t for name, t in topics.items() if t.setting is None or name in extra}


def load(folder: Path) -> Mapping[str, Topic]:
    """All topics that `folder` describes, by name.

    Raises:
        DeclarationError: a file is wrong; every mistake in every file is listed.
    """
    problems: list[Problem] = []
    topics: dict[str, Topic] = {}
    for path in sorted(folder.glob("*.toml")):
        topic = _topic(path, problems)
        if topic is not None:
            topics[topic.name] = topic
    if not topics and not problems:
        problems.append(Problem(str(folder), "a folder with one TOML file per topic", "none"))
    if problems:
        raise DeclarationError(f"the catalogue of topics in {folder}", problems)
    return MappingProxyType(topics)


# --- where a key lies -------------------------------------------------------------------------


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives `key`.

    >>> partition_of(b"JFK", 4)
    1

    Args:
        key: the record's, as bytes.
        partitions: how many the topic has.
    """
    if partitions == 1:
        return 0
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


_M = 0x5BD1E995
_SEED = 0x9747B28C


def _murmur2(data: bytes) -> int:
    # As org.apache.kafka.common.utils.Utils.murmur2, in unsigned 32-bit arithmetic; masks are
    # put off for as long as the numbers stay small, for Python's integers never overflow.
    length = len(data)
    h = _SEED ^ length
    for word in unpack_from(f"<{length >> 2}I", data):
        k = word * _M & 0xFFFFFFFF
        h = (h * _M ^ (k ^ k >> 24) * _M) & 0xFFFFFFFF
    if length & 3:
        h = (h ^ int.from_bytes(data[length & ~3 :], "little")) * _M & 0xFFFFFFFF
    h = (h ^ h >> 13) * _M & 0xFFFFFFFF
    return h ^ h >> 15


# --- reading a file ---------------------------------------------------------------------------

_MISSING = object()
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_NAME = re.compile(r"[a-z][a-z0-9-]*")
# Less than an hour is a slip of the unit: 86400 are the seconds of a day.
_RETENTION_MS_MIN = 3_600_000


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_text, value))


def _is_retention(value: object) -> bool:
    return value == "forever" or (type(value) is int and value >= _RETENTION_MS_MIN)


def _is_type(value: object) -> bool:
    return isinstance(value, str) and set(value.split(" | ")) <= _TYPES


_TOPIC_RULES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "name": ("the file's name without .toml", _is_text),
    "purpose": ("a sentence", _is_text),
    "key": ("a phrase", _is_text),
    "partitions": ("a whole number from 1", _is_count),
    "scales": ("true or false", _is_flag),
    "retention_ms": (f"milliseconds from {_RETENTION_MS_MIN}, or 'forever'", _is_retention),
    "cleanup": ("'delete' or 'compact'", lambda value: value in ("delete", "compact")),
    "record_bytes_max": ("a whole number from 1", _is_count),
    "record": ("a phrase", _is_text),
    "clusters_only": ("true or false", _is_flag),
    "setting": ("a setting of a declaration", _is_text),
    "writers": ("a list of names", _is_names),
    "readers": ("a list of names", _is_names),
    "fields": ("a table of fields", lambda value: isinstance(value, dict) and value != {}),
}
_TOPIC_DEFAULTS: dict[str, Any] = {
    "record": "a JSON object",
    "clusters_only": False,
    "setting": None,
}

_FIELD_RULES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "type": (f"one of {', '.join(sorted(_TYPES))}, or several joined by ' | '", _is_type),
    "meaning": ("a sentence", _is_text),
    "optional": ("true or false", _is_flag),
    "keyed_by": ("a word for what the keys are", _is_text),
    "fields": ("a table of fields", lambda value: isinstance(value, dict)),
}
_FIELD_DEFAULTS: dict[str, Any] = {"optional": False, "keyed_by": None, "fields": {}}


def _topic(path: Path, problems: list[Problem]) -> Topic | None:
    try:
        members = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(Problem(path.name, "TOML", str(error)))
        return None
    problem_count = len(problems)
    _check(members, _TOPIC_RULES, _TOPIC_DEFAULTS, path.name, problems)
    name = members.get("name")
    if _is_text(name) and (name != path.stem or not _NAME.fullmatch(path.stem)):
        problems.append(Problem(f"{path.name}:name", f"the file's name, {path.stem!r}", repr(name)))
    tables = members.get("fields")
    fields = _fields(tables, f"{path.name}:fields", problems) if isinstance(tables, dict) else {}
    if len(problems) > problem_count:
        return None
    retention = members["retention_ms"]
    return Topic(
        **{
            **_TOPIC_DEFAULTS,
            **members,
            "retention_ms": None if retention == "forever" else retention,
            "writers": tuple(members["writers"]),
            "readers": tuple(members["readers"]),
            "fields": MappingProxyType(fields),
        }
    )


def _fields(
    tables: dict[str, Any], table_path: str, problems: list[Problem]
) -> Mapping[str, TopicField]:
    fields = {}
    for name, table in tables.items():
        path = f"{table_path}.{name}"
        if not isinstance(table, dict):
            problems.append(Problem(path, "a table with type and meaning", repr(table)))
            continue
        problem_count = len(problems)
        _check(table, _FIELD_RULES, _FIELD_DEFAULTS, path, problems)
        inner = table.get("fields", {})
        subfields = _fields(inner, f"{path}.fields", problems) if isinstance(inner, dict) else {}
        if len(problems) == problem_count:
            members = {**_FIELD_DEFAULTS, **table, "fields": subfields}
            fields[name] = TopicField(name=name, **members)
    return MappingProxyType(fields)


def _check(
    members: dict[str, Any],
    rules: dict[str, tuple[str, Callable[[object], bool]]],
    defaults: dict[str, Any],
    path: str,
    problems: list[Problem],
) -> None:
    for name, (expected, holds) in rules.items():
        value = members.get(name, defaults.get(name, _MISSING))
        if value is _MISSING:
            problems.append(Problem(f"{path}:{name}", expected, "nothing"))
        elif name in members and not holds(value):
            problems.append(Problem(f"{path}:{name}", expected, repr(value)))
    problems.extend(
        Problem(f"{path}:{name}", f"one of {', '.join(rules)}", "a name that means nothing here")
        for name in members
        if name not in rules
    )
