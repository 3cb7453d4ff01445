"""Write the topics and their fields into `docs/wire.md`, between its two marks.

    $ python -m tools.wire            # writes docs/wire.md
    $ python -m tools.wire --check    # exit code 1 if the page is not what would be written

What there is to say of a topic is in `topics/*.toml`; the page repeats it for people who browse.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.topics import Topic, TopicField

__all__ = ["main", "page", "tables"]

PAGE = Path(__file__).parents[1] / "docs" / "wire.md"
BEGIN = "<!-- topics: begin -->"
END = "<!-- topics: end -->"
DAY_MS = 86_400_000
KIB = 1_024
# As they lie along the dataflow; topics that are not here come last, by name.
ORDER = (
    "events",
    "labels",
    "predictions",
    "examples",
    "answers",
    "models",
    "registry",
    "commands",
    "evaluations",
    "summaries",
    "alerts",
    "dead-letters",
    "late-events",
)


def tables() -> str:
    """A section for each topic, with a table of its fields."""
    topics = catalogue()
    others_by_name = sorted(topics.keys() - set(ORDER))
    return "\n\n".join(_section(topics[name]) for name in (*ORDER, *others_by_name))


def page(text: str) -> str:
    """The page `text` with the topics of today between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    head, begin, remainder = text.partition(BEGIN)
    _, end, tail = remainder.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE}: expected the marks {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{tail}"


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` say whether it is the one that would be written."""
    text = PAGE.read_text(encoding="utf-8")
    if arguments == ["--check"]:
        return int(text != page(text))
    PAGE.write_text(page(text), encoding="utf-8")
    print(PAGE)
    return 0


def _section(topic: Topic) -> str:
    retention = "for ever" if topic.retention_ms is None else f"{topic.retention_ms // DAY_MS} days"
    if topic.cleanup == "compact":
        retention += ", the newest record of each key"
    partitions = f"{topic.partitions}, unless a deployment says otherwise"
    facts = [
        ("key", topic.key),
        ("value", topic.record),
        ("written by", ", ".join(topic.writers)),
        ("read by", ", ".join(topic.readers)),
        ("partitions", partitions if topic.scales else str(topic.partitions)),
        ("kept", retention),
        ("longest value", f"{topic.record_bytes_max // KIB:,} KiB"),
    ]
    if topic.clusters_only:
        facts.append(("on the embedded log", "there is no such topic"))
    if topic.setting is not None:
        facts.append(("there", f"where `{topic.setting}` is declared"))
    lines = [f"### {topic.name}", "", topic.purpose, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in facts]
    fields = list(_rows(topic.fields, ""))
    if fields:
        lines += ["", "| field | type | meaning |", "|---|---|---|", *fields]
    return "\n".join(lines)


def _rows(fields: Mapping[str, TopicField], path: str) -> Iterator[str]:
    for field in fields.values():
        name = f"{path}{field.name}"
        type_ = field.type + (f" by {field.keyed_by}" if field.keyed_by else "")
        absent = " (may be absent)" if field.optional else ""
        yield f"| `{name}` | {_cell(type_)}{absent} | {_cell(field.meaning)} |"
        prefix = f"{name}.<{field.keyed_by}>." if field.keyed_by else f"{name}."
        yield from _rows(field.fields, prefix)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
