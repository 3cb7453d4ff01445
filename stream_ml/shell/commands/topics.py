"""`topics`: what lies on the log, in what form and for how long."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from stream_ml.errors import UsageError
from stream_ml.shell.commands.command import Command, Example
from stream_ml.shell.commands.output import aligned, span, write, write_json
from stream_ml.topics import Topic, TopicField, catalogue

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Mapping

    from stream_ml.shell.settings import Settings

__all__ = ["COMMAND"]

INDENT = "  "


def run(arguments: Namespace, _: Settings) -> None:
    """Print the catalogue, or one topic of it."""
    known = catalogue()
    if arguments.name is None:
        shown: Any = {name: _as_dict(topic) for name, topic in known.items()}
        text = _table(known)
    elif arguments.name in known:
        shown = _as_dict(known[arguments.name])
        text = _described(known[arguments.name])
    else:
        raise UsageError(f"topics: expected one of {', '.join(known)}, given {arguments.name!r}")
    if arguments.format == "json":
        write_json(shown)
    else:
        write(text)


def _as_dict(described: Any) -> dict[str, Any]:
    values = {field.name: getattr(described, field.name) for field in fields(described)}
    members = {name: _as_dict(field) for name, field in described.fields.items()}
    return {**values, "fields": members}


def _table(topics: Mapping[str, Topic]) -> str:
    head = ["topic", "partitions", "kept", "key", "purpose"]
    rows = [
        [t.name, _partitions(t), _kept(t), t.key.partition(",")[0], t.purpose]
        for t in topics.values()
    ]
    return aligned([head, *rows])


def _partitions(topic: Topic) -> str:
    return f"{topic.partitions} by default" if topic.scales else str(topic.partitions)


def _kept(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "newest per key"
    return "forever" if topic.retention_ms is None else span(topic.retention_ms)


def _described(topic: Topic) -> str:
    facts = [
        ["key", topic.key],
        ["partitions", _partitions(topic)],
        ["kept", _kept(topic)],
        ["record", f"{topic.record} of at most {topic.record_bytes_max:,} bytes"],
        ["written by", ", ".join(topic.writers)],
        ["read by", ", ".join(topic.readers)],
    ]
    members = [["member", "type", "meaning"], *_members(topic.fields, "")]
    return f"{topic.name}: {topic.purpose}\n\n{aligned(facts)}\n\n{aligned(members)}"


def _members(members: Mapping[str, TopicField], indent: str) -> Iterator[list[str]]:
    for member in members.values():
        kind = f"{member.type}, optional" if member.optional else member.type
        by = "" if member.keyed_by is None else f" By {member.keyed_by}."
        yield [indent + member.name, kind, member.meaning + by]
        yield from _members(member.fields, indent + INDENT)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a topic, to see its records")


COMMAND = Command(
    name="topics",
    help="the topics, and what their records hold",
    description="Shows the catalogue of topics, or one topic with the members of its records.",
    examples=(
        Example("stream-ml topics", "all of them"),
        Example("stream-ml topics predictions", "what a prediction holds, member by member"),
        Example("stream-ml topics --format json", "the whole catalogue, for a program"),
    ),
    add_arguments=_add_arguments,
    run=run,
)
