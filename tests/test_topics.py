"""The catalogue says what the code does, and a wrong one is refused as a whole."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from inspect import signature
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from stream_ml.errors import DeclarationError
from stream_ml.features import window
from stream_ml.models.snapshot import SNAPSHOT_BYTES_MAX, Snapshot
from stream_ml.pipeline import Events
from stream_ml.records import (
    Alert,
    Command,
    DeadLetter,
    Decision,
    EntityFacts,
    Evaluation,
    Event,
    EventLabel,
    Example,
    LateEvent,
    Prediction,
    ShadowAnswers,
    Summary,
)
from stream_ml.sealing import SEALED_TOPICS
from stream_ml.topics import catalogue, embedded, load, partition_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_ml.topics import TopicField

RECORDS: dict[str, Any] = {
    "alerts": Alert,
    "answers": ShadowAnswers,
    "commands": Command,
    "dead-letters": DeadLetter,
    "entities": EntityFacts,
    "evaluations": Evaluation,
    "events": Event,
    "examples": Example,
    "labels": EventLabel,
    "late-events": LateEvent,
    "models": Snapshot,
    "predictions": Prediction,
    "registry": Decision,
    "summaries": Summary,
}
# Their signature is sealed around the record, which is absent rather than null without a key.
SIGNED = {"commands", "models", "registry"}
# How Python's types are written in JSON; bytes are base64.
JSON_TYPES: dict[Any, str] = {
    bool: "boolean",
    bytes: "string",
    dict: "object",
    float: "number",
    int: "integer",
    NoneType: "null",
    str: "string",
    tuple: "array",
}


def alternatives(hint: Any) -> list[Any]:
    """The members of a union, or the type alone."""
    return list(get_args(hint)) if get_origin(hint) in {Union, UnionType} else [hint]


def json_type(hint: Any) -> set[str]:
    """The JSON types of what is annotated with `hint`."""
    types = {
        "object" if is_record(kind) else JSON_TYPES[get_origin(kind) or kind]
        for kind in alternatives(hint)
    }
    # A whole number is a number.
    return types - {"integer"} if "number" in types else types


def is_record(kind: Any) -> bool:
    """Whether it is a class of records."""
    return is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, Struct))


def names_of(record: Any) -> tuple[str, ...]:
    """The names of a record's members."""
    if is_dataclass(record):
        return tuple(field.name for field in fields(record))
    return record.__struct_fields__  # type: ignore[no-any-return]


def having_defaults(record: Any) -> set[str]:
    """The members that it need not be given."""
    if record is Example:  # the prediction's members lie beside the label's
        return having_defaults(Prediction) | {
            *("label_from", "number", "implicit", "correction"),
        }
    if is_dataclass(record):
        return {
            field.name
            for field in fields(record)
            if field.default is not MISSING or field.default_factory is not MISSING
        }
    names, defaults = names_of(record), record.__struct_defaults__
    return set(names[len(names) - len(defaults) :])


def inner_dataclass(hint: Any) -> Any:
    """The dataclass in `hint`, be it alone, optional, or the values of a mapping."""
    for kind in alternatives(hint):
        inner = get_args(kind)[1] if get_origin(kind) is dict else kind
        if is_record(inner):
            return inner
    return None


def members(record: Any) -> dict[str, Any]:
    """The annotations of a dataclass's members in their wire form, by name."""
    hints = get_type_hints(record)
    found = {name: hints[name] for name in names_of(record)}
    if record is Example:  # the prediction's members lie beside the label's
        del found["prediction"]
        found = {**members(Prediction), **found}
    if record is Snapshot:
        # The first one lies beside the record, the others are not in it.
        del found["signature"], found["extent"], found["opened"]
        found["model"] = found.pop("name")  # as on the wire
    return found


def is_mapping(hint: Any) -> bool:
    """Whether its keys are a set that grows, of values that have a type."""
    return get_origin(hint) is dict and get_args(hint)[1] is not Any


def hold_equal(described: Mapping[str, TopicField], record: Any, path: str) -> None:
    """Every member is described, nothing else is, and the types agree, at every depth."""
    expected = members(record)
    names = {name.strip("<>") for name in described}
    assert set(expected) == names, path
    for name, field in described.items():
        if name == "<fields>":  # whatever the pipeline declares
            continue
        where = f"{path}.{name}"
        hint = expected[name.strip("<>")]
        assert json_type(hint) == set(field.type.split(" | ")), where
        inner = inner_dataclass(hint)
        if inner is not None:
            hold_equal(field.fields, inner, where)
        if is_mapping(hint) and not field.fields:
            assert field.keyed_by is not None, where


@pytest.mark.parametrize("topic", sorted(RECORDS))
def test_every_member_of_a_record_is_described_and_nothing_else(topic: str) -> None:
    """Names and JSON types in `topics/*.toml` are those of the dataclasses, at every depth."""
    described = dict(catalogue()[topic].fields)
    if topic in SIGNED:
        assert described.pop("signature").optional
    if topic in SEALED_TOPICS:
        assert described.pop("seal").optional
    hold_equal(described, RECORDS[topic], topic)


def test_every_topic_holds_a_record() -> None:
    """No topic is described that no dataclass stands for, and none is left out."""
    assert set(RECORDS) == {*embedded(), "entities"}


def test_clusters_have_a_changelog_for_each_stage_beside() -> None:
    """State that may move to another machine lies on a compacted topic, a partition a task."""
    changelogs = {
        n: t for n, t in catalogue().items() if t.clusters_only and n not in {"layout", "entities"}
    }
    assert set(changelogs) == {f"{s}-changelog" for s in ("predict", "join", "learn", "evaluate")}
    assert {t.cleanup for t in changelogs.values()} == {"compact"}
    tasks = {"predict": "events", "join": "predictions", "learn": "examples", "evaluate": "models"}
    for stage, inputs in tasks.items():
        changelog = changelogs[f"{stage}-changelog"]
        assert (changelog.partitions, changelog.scales) == (
            catalogue()[inputs].partitions,
            catalogue()[inputs].scales,
        )


@pytest.mark.parametrize("topic", sorted(RECORDS))
def test_what_may_be_absent_has_a_default(topic: str) -> None:
    """A member is optional in the catalogue only where the dataclass can do without it."""
    optional = {name for name, field in catalogue()[topic].fields.items() if field.optional}
    dispensable = having_defaults(RECORDS[topic])
    assert optional - {"signature", "seal"} <= dispensable


def test_events_labels_and_predictions_scale() -> None:
    """These have 4 partitions unless a deployment says otherwise, the others 1."""
    scaling = {name: topic.partitions for name, topic in embedded().items() if topic.scales}
    assert scaling == {"events": 4, "labels": 4, "predictions": 4}
    assert {topic.partitions for topic in catalogue().values() if not topic.scales} == {1}


def test_models_and_registry_are_kept_forever() -> None:
    """What served can always be told, and loaded."""
    kept = {name for name, topic in embedded().items() if topic.retention_ms is None}
    assert kept == {"models", "registry"}
    assert {n for n, topic in embedded().items() if topic.cleanup == "compact"} == {"models"}
    assert catalogue()["models"].record_bytes_max == SNAPSHOT_BYTES_MAX


# --- wrong catalogues -------------------------------------------------------------------------

SOUND = """
name = "clicks"
purpose = "Clicks."
key = "user"
partitions = 2
scales = true
retention_ms = 86_400_000
cleanup = "delete"
record_bytes_max = 1000
writers = ["producer"]
readers = ["predict"]
[fields.ts]
type = "integer | null"
meaning = "When."
"""


def test_a_catalogue_of_ones_own_is_read(tmp_path: Path) -> None:
    """Any folder of such files is a catalogue."""
    (tmp_path / "clicks.toml").write_text(SOUND)
    clicks = load(tmp_path)["clicks"]
    assert (clicks.partitions, clicks.retention_ms, clicks.writers) == (
        2,
        86_400_000,
        ("producer",),
    )
    assert clicks.fields["ts"].meaning == "When."


@pytest.mark.parametrize(
    ("sound", "wrong", "problem"),
    [
        ('name = "clicks"', 'name = "click"', "clicks.toml:name: expected the file's name, 'cli"),
        ('name = "clicks"', "name = 3", "clicks.toml:name: expected the file's name without"),
        ('key = "user"', "", "clicks.toml:key: expected a phrase, given nothing"),
        ("partitions = 2", "partitions = 0", "expected a whole number from 1, given 0"),
        ("partitions = 2", "partitions = true", "expected a whole number from 1, given True"),
        ("scales = true", 'scales = "yes"', "expected true or false, given 'yes'"),
        ("86_400_000", "86_400", "milliseconds from 3600000, or 'forever', given 86400"),
        ("86_400_000", '"never"', "milliseconds from 3600000, or 'forever', given 'never'"),
        ('"delete"', '"delete"\nclusters_only = 1', "clusters_only: expected true or false, given"),
        ('"delete"', '["delete"]', "expected 'delete' or 'compact', given ['delete']"),
        ('["producer"]', "[]", "clicks.toml:writers: expected a list of names, given []"),
        ('"integer | null"', '"int"', "clicks.toml:fields.ts:type: expected one of array, bool"),
        ('meaning = "When."', "", "clicks.toml:fields.ts:meaning: expected a sentence, given not"),
        ('meaning = "When."', 'meaning="W"\nmean = "x"', "fields.ts:mean: expected one of type,"),
        ("[fields.ts]", "[fields.ts]\nfields = 3", "fields.ts:fields: expected a table of fields"),
        ("[fields.ts]", "[fields]\nx = 3\n[fields.ts]", "fields.x: expected a table with type"),
        ("[fields.ts]", "[fields.ts", "clicks.toml: expected TOML, given"),
        ("partitions = 2", "partitions = 2\npartition = 3", "clicks.toml:partition: expected one"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, sound: str, wrong: str, problem: str
) -> None:
    """Each mistake is told with its file and member, what was expected, what was given."""
    assert sound in SOUND
    (tmp_path / "clicks.toml").write_text(SOUND.replace(sound, wrong))
    with pytest.raises(DeclarationError) as refused:
        load(tmp_path)
    assert problem in str(refused.value)
    assert len(refused.value.problems) == 1


def test_every_mistake_in_every_file_is_listed(tmp_path: Path) -> None:
    """One reading finds them all."""
    (tmp_path / "a.toml").write_text(SOUND.replace("partitions = 2", "partitions = 0"))
    (tmp_path / "b.toml").write_text("[")
    (tmp_path / "clicks.toml").write_text(SOUND)
    with pytest.raises(DeclarationError) as refused:
        load(tmp_path)
    paths = [problem.path for problem in refused.value.problems]
    assert paths == ["a.toml:partitions", "a.toml:name", "b.toml"]


def test_a_folder_without_topics_is_refused(tmp_path: Path) -> None:
    """An empty catalogue is a mistake of whoever packed it, and said to be one."""
    with pytest.raises(DeclarationError, match="expected a folder with one TOML file per topic"):
        load(tmp_path)


# --- the partitioner --------------------------------------------------------------------------

# From the tests of Apache Kafka's own `Utils.murmur2` (UtilsTest.testMurmur2), signed 32-bit.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), MURMUR2.items())
def test_keys_lie_where_kafka_puts_them(key: bytes, hashed: int) -> None:
    """Kafka's own test vectors, at the largest number of partitions and at small ones."""
    positive = hashed & 0x7FFFFFFF
    for partitions in (2, 3, 4, 100, 2**31 - 1):
        assert positive % partitions == partition_of(key, partitions)


@given(st.binary(max_size=64), st.integers(1, 1000))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    """Whatever the bytes, the partition is one that there is; of one partition, that one."""
    assert 0 <= partition_of(key, partitions) < partitions
    assert partition_of(key, 1) == 0


def murmur2_by_the_book(data: bytes) -> int:
    """Austin Appleby's MurmurHash2 with Kafka's seed, a byte at a time."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for at in range(0, whole, 4):
        k = data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24
        k = k * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    for shift, byte in reversed(list(enumerate(data[whole:]))):
        h ^= byte << 8 * shift
    if whole < len(data):
        h = h * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@given(st.binary(max_size=64))
def test_the_partitioner_is_murmur2(key: bytes) -> None:
    """The fast form gives what the plain one gives, at every length."""
    partitions = 2**31 - 1
    assert partition_of(key, partitions) == (murmur2_by_the_book(key) & 0x7FFFFFFF) % partitions


def test_a_topic_names_the_setting_that_it_is_there_for() -> None:
    """As it is written: a member of the events that are declared, or of a window."""
    members = {f"events.{member.name}" for member in fields(Events)} | {
        *signature(window).parameters
    }
    settings = {topic.setting.partition("=")[0] for topic in catalogue().values() if topic.setting}
    assert settings <= members
