"""Draw `docs/dataflow.svg`: the stages, the topics between them, and who stands outside.

    $ python -m tools.dataflow            # writes docs/dataflow.svg
    $ python -m tools.dataflow --check    # exit code 1 if the file is not what would be written

Which arrows there are is read from `stages/topology.py`, and for people from the catalogue of
topics. The layout is the tables below. An arrow without a route is an error, and so is a route
without an arrow: the picture shows the system that runs.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

from stream_ml.stages.topology import SHARED_OUTPUTS
from stream_ml.stages.topology import STAGES as SPECS
from stream_ml.topics import catalogue

__all__ = ["arrows", "drawing", "main", "route_differences"]

SVG = Path(__file__).parents[1] / "docs" / "dataflow.svg"
WIDTH, HEIGHT = 1040, 464
STAGE_WIDTH, STAGE_HEIGHT = 124, 54
TOPIC_HEIGHT = 28
CORNER = 10


class Node(NamedTuple):
    """Something in the picture: its middle, and a line of small text below its name."""

    x: int
    y: int
    text: str = ""


STAGES = {
    "predict": Node(305, 140, "windows, champion"),
    "join": Node(580, 140, "waits for labels"),
    "learn": Node(865, 140, "a learner per line"),
    "evaluate": Node(865, 318, "scores, decides"),
}
TOPICS = {
    "events": Node(178, 140),
    "predictions": Node(446, 140),
    "labels": Node(580, 225),
    "examples": Node(723, 140),
    "models": Node(865, 230),
    "registry": Node(446, 325),
    "summaries": Node(446, 385),
    "evaluations": Node(865, 408),
    "answers": Node(580, 408),
    "commands": Node(723, 408),
}
PEOPLE = {
    "producer": Node(66, 140, "your systems"),
    "consumer": Node(446, 40, "your application"),
    "operator": Node(992, 408, "you"),
}
# Left out: how evaluate knows its own decisions again; how operators read them, summaries and
# answers; how learn is told of a line that is to start anew.
LEFT_OUT = {
    ("registry", "evaluate"),
    ("registry", "learn"),
    ("registry", "operator"),
    ("summaries", "operator"),
    ("answers", "operator"),
    ("predict", "late-events"),
    ("late-events", "operator"),
}
# By arrow: the points at which it turns. Without any it is straight.
ROUTES: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {
    ("producer", "events"): (),
    ("producer", "labels"): ((66, 225),),
    ("events", "predict"): (),
    ("predict", "predictions"): (),
    ("predict", "summaries"): ((261, 385),),
    ("summaries", "evaluate"): ((680, 385), (680, 320)),
    ("predictions", "consumer"): (),
    ("predictions", "join"): (),
    ("labels", "join"): (),
    ("join", "examples"): (),
    ("examples", "learn"): (),
    ("examples", "evaluate"): ((723, 308),),
    ("learn", "models"): (),
    ("models", "evaluate"): (),
    ("models", "predict"): ((778, 230), (778, 265), (327, 265)),
    ("evaluate", "registry"): ((600, 332),),
    ("registry", "predict"): ((283, 325),),
    ("operator", "commands"): ((992, 443), (723, 443)),
    ("commands", "evaluate"): ((723, 368), (840, 368)),
    ("evaluate", "evaluations"): (),
    ("evaluate", "answers"): ((580, 342),),
    ("evaluations", "operator"): (),
}

STYLE = """
    .paper { fill: #ffffff; stroke: #d0d7de; }
    .stage { fill: #0a5c8a; }
    .stage-name { fill: #ffffff; font-weight: 700; }
    .stage-text { fill: #dcecf7; font-size: 11px; }
    .topic { fill: #eaf3f9; stroke: #0a5c8a; }
    .topic-name { fill: #17354a; }
    .person { fill: #1f2328; font-weight: 700; }
    .small { fill: #57606a; font-size: 12px; }
    .arrow { fill: none; stroke: #57606a; stroke-width: 1.6; }
    .head { fill: #57606a; }
    text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
           font-size: 14px; text-anchor: middle; dominant-baseline: central; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #30363d; }
      .stage { fill: #236f9f; }
      .stage-text { fill: #eef6fb; }
      .topic { fill: #14293a; stroke: #58a6d6; }
      .topic-name { fill: #d6e9f6; }
      .person { fill: #e6edf3; }
      .small { fill: #9aa4ae; }
      .arrow { stroke: #9aa4ae; }
      .head { fill: #9aa4ae; }
    }"""


def arrows() -> set[tuple[str, str]]:
    """Every arrow of the system: from who writes to a topic, from a topic to who reads it."""
    pairs: set[tuple[str, str]] = set()
    for spec in SPECS.values():
        pairs |= {(topic, spec.name) for topic in spec.inputs + spec.feed}
        pairs |= {(spec.name, topic) for topic in spec.outputs}
    for topic in catalogue().values():
        if not topic.clusters_only and topic.name not in SHARED_OUTPUTS:
            pairs |= {(person, topic.name) for person in topic.writers if person in PEOPLE}
            pairs |= {(topic.name, person) for person in topic.readers if person in PEOPLE}
    return pairs - LEFT_OUT


def route_differences() -> set[tuple[str, str]]:
    """Arrows that have no route, and routes of arrows that are none."""
    return arrows() ^ ROUTES.keys()


def drawing() -> str:
    """The picture.

    Raises:
        SystemExit: the table of routes is not of the topics that there are.
    """
    if route_differences():
        raise SystemExit(
            f"dataflow: expected a route for each arrow, differs: {route_differences()}"
        )
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'width="{WIDTH}" height="{HEIGHT}" aria-labelledby="title desc">'
        ),
        '  <title id="title">How data flows through stream_ml</title>',
        f'  <desc id="desc">{escape(_description())}</desc>',
        f"  <style>{STYLE}\n  </style>",
        "  <defs>",
        (
            '    <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse">'
        ),
        '      <path class="head" d="M0 0 10 5 0 10z"/>',
        "    </marker>",
        "  </defs>",
        f'  <rect class="paper" x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="12"/>',
        *(_arrow(*ends, points) for ends, points in ROUTES.items()),
        *(_stage(name, node) for name, node in STAGES.items()),
        *(_topic(name, node) for name, node in TOPICS.items()),
        *(_person(node) for node in PEOPLE.values()),
        *_foot(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Write the picture, or with `--check` say whether it is the one that would be written."""
    if arguments == ["--check"]:
        return int(SVG.read_text(encoding="utf-8") != drawing())
    SVG.write_text(drawing(), encoding="utf-8")
    print(SVG)
    return 0


def _description() -> str:
    return "; ".join(f"{origin} to {target}" for origin, target in sorted(arrows()))


def _box(name: str) -> tuple[int, int, float, float]:
    """The middle of what is called so, and half of its width and height."""
    if name in STAGES:
        return STAGES[name].x, STAGES[name].y, STAGE_WIDTH / 2, STAGE_HEIGHT / 2
    if name in TOPICS:
        return TOPICS[name].x, TOPICS[name].y, _width(name) / 2, TOPIC_HEIGHT / 2
    person = PEOPLE[name]
    return person.x, person.y, _width(person.text) / 2, TOPIC_HEIGHT / 2


def _width(text: str) -> float:
    return 24 + 8 * len(text)


def _arrow(origin: str, target: str, points: tuple[tuple[int, int], ...]) -> str:
    start, end = _box(origin), _box(target)
    first, last = (points[0], points[-1]) if points else ((end[0], end[1]), (start[0], start[1]))
    path = [_edge(start, first), *points, _edge(end, last, gap=3)]
    # A route that ends on the very edge of a box needs no point of its own there.
    path = [point for i, point in enumerate(path) if i == 0 or point != path[i - 1]]
    return f'  <path class="arrow" d="{_round_corners(path)}" marker-end="url(#head)"/>'


def _edge(
    box: tuple[int, int, float, float], towards: tuple[float, float], gap: float = 0
) -> tuple[float, float]:
    """Where a line from `towards`, straight across or straight down, meets a box."""
    x, y, half_width, half_height = box
    if abs(towards[1] - y) < half_height and abs(towards[0] - x) >= half_width - 1:
        side = 1 if towards[0] > x else -1
        return x + side * (half_width + gap), towards[1]
    side = 1 if towards[1] > y else -1
    return towards[0], y + side * (half_height + gap)


def _round_corners(path: list[tuple[float, float]]) -> str:
    """A line through the points, its corners rounded."""
    text = "M{:g} {:g}".format(*path[0])
    for former, corner, following in zip(path, path[1:], path[2:], strict=False):
        start, end = _short_of(corner, former), _short_of(corner, following)
        text += " L{:g} {:g} Q{:g} {:g} {:g} {:g}".format(*start, *corner, *end)
    return text + " L{:g} {:g}".format(*path[-1])


def _short_of(corner: tuple[float, float], neighbour: tuple[float, float]) -> tuple[float, float]:
    dx, dy = neighbour[0] - corner[0], neighbour[1] - corner[1]
    length = max(abs(dx), abs(dy))
    share = min(CORNER, length / 2) / length if length else 0
    return corner[0] + dx * share, corner[1] + dy * share


def _stage(name: str, node: Node) -> str:
    left, top = node.x - STAGE_WIDTH // 2, node.y - STAGE_HEIGHT // 2
    return (
        f'  <rect class="stage" x="{left}" y="{top}" width="{STAGE_WIDTH}" '
        f'height="{STAGE_HEIGHT}" rx="6"/>'
        f'<text class="stage-name" x="{node.x}" y="{node.y - 9}">{name}</text>'
        f'<text class="stage-text" x="{node.x}" y="{node.y + 11}">{node.text}</text>'
    )


def _topic(name: str, node: Node) -> str:
    width = _width(name)
    left, top = node.x - width / 2, node.y - TOPIC_HEIGHT / 2
    return (
        f'  <rect class="topic" x="{left:g}" y="{top:g}" width="{width:g}" '
        f'height="{TOPIC_HEIGHT}" rx="{TOPIC_HEIGHT // 2}"/>'
        f'<text class="topic-name" x="{node.x}" y="{node.y}">{name}</text>'
    )


def _person(node: Node) -> str:
    return f'  <text class="person" x="{node.x}" y="{node.y}">{node.text}</text>'


def _foot() -> list[str]:
    return [
        f'  <text class="small" x="230" y="{y}">{escape(text)}</text>'
        for y, text in (
            (412, "box: a stage; pill: a topic; one log, SQLite or Apache Kafka"),
            (434, "every stage also writes dead-letters and alerts"),
        )
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
