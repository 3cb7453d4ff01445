"""Histories at random: what is published when, good and bad, and what people do in between.

A history is a list of phases. In each, records are published, then all are worked on. Whatever a
record is made to be wrong in is noted beside it, so that a check need not guess.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.torture.declarations import changed, longest_window, milliseconds

if TYPE_CHECKING:
    import random

    from tests.torture.declarations import Declaration, FieldKind

__all__ = ["History", "Item", "Phase", "draw"]

START_MS = 1_700_000_000_000
INTEGER_MAX = 2**53
KEYS = ("a", "b", "ü", "key with spaces", "e")


@dataclass(frozen=True)
class Item:
    """A record to publish, and what was done to make it bad (None: nothing)."""

    topic: str
    value: bytes
    flaw: str | None = None


@dataclass(frozen=True)
class Phase:
    """What is published at one moment, and the commands given then; `declares` comes before."""

    now_ms: int
    items: tuple[Item, ...]
    commands: tuple[dict[str, Any], ...] = ()
    declares: Declaration | None = None


@dataclass(frozen=True)
class History:
    """All that happens."""

    partitions: int
    phases: tuple[Phase, ...]

    @property
    def size(self) -> int:
        """How many records are published."""
        return sum(len(phase.items) + len(phase.commands) for phase in self.phases)


@dataclass
class _World:
    """What drawing a history remembers."""

    rand: random.Random
    declaration: Declaration
    now: int
    keys: tuple[str, ...]
    huge: bool
    numbers: int = 0
    # Labels still to come: their time, and themselves.
    owed: list[tuple[int, Item]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


def draw(rand: random.Random, declaration: Declaration) -> History:
    """A history for a declaration."""
    keys = KEYS[: rand.randrange(1, 6)]
    world = _World(rand, declaration, START_MS, keys, huge=rand.random() < 0.1)
    count = rand.choice([20, 60, 120, 200])
    phases = []
    for number in range(rand.choice([1, 2, 3, 5])):
        declares = None
        if number and rand.random() < 0.15:
            declares = world.declaration = changed(rand, world.declaration)
        phases.append(replace(_phase(world, count), declares=declares))
        if rand.random() < 0.2:  # nothing happens for long
            world.now += 3 * (milliseconds(declaration.horizon) + longest_window(declaration))
    return History(rand.choice([1, 1, 2, 3, 4]), tuple(phases))


def _phase(world: _World, count: int) -> Phase:
    rand = world.rand
    events: list[Item] = []
    pace = rand.choice([50, 500, 2_000])
    for _ in range(rand.randrange(count // 3, count)):
        world.now += _step(world, pace)
        events += _event(world)
    slack = rand.choice([0, 1_000, 60_000])
    now_ms = world.now + slack
    skew = milliseconds(declaration_skew(world.declaration))
    events += [_early(world, now_ms, skew) for _ in range(rand.choice([0, 0, 1]))]
    rand.shuffle(events[-3:])
    # Some truths are known at once, even before their event is; some only later, or never.
    world.owed.sort(key=lambda owed: owed[0])
    due = [item for at, item in world.owed if at <= now_ms + skew]
    world.owed = [(at, item) for at, item in world.owed if at > now_ms + skew]
    if rand.random() < 0.2:  # these come after their labels
        half = len(events) // 2
        held = [each for each in events[half:] if each.flaw != "from_the_future"]
        events = events[:half] + [each for each in events[half:] if each not in held]
        world.owed += [(now_ms + skew + 1, each) for each in held]
    if rand.random() < 0.3 and due:
        place = rand.randrange(len(due))
        due.insert(rand.randrange(len(due)), due.pop(place))
    commands = tuple(_command(world) for _ in range(rand.choice([0, 0, 0, 1, 3])))
    world.now = now_ms
    return Phase(now_ms, tuple(events + due), commands)


def declaration_skew(declaration: Declaration) -> str | int:
    """How far ahead a time may be."""
    return declaration.events["skew"]  # type: ignore[no-any-return]


def _step(world: _World, pace: int) -> int:
    rand = world.rand
    spans = [1, 1_000, 5_000, 30_000]
    return rand.choice(
        [0, 0, 1, rand.randrange(1, pace), rand.randrange(1, pace), rand.choice(spans)]
    )


def _early(world: _World, now_ms: int, skew: int) -> Item:
    """An event as far ahead as may be, or a little more."""
    ahead = world.rand.choice([0, 0, 1])
    event = _fresh(world) | {"ts": now_ms + skew + ahead}
    return Item("events", _json(event), "from_the_future" if ahead else None)


def _fresh(world: _World) -> dict[str, Any]:
    rand, declaration = world.rand, world.declaration
    event: dict[str, Any] = {"event_id": f"e{world.numbers}"}
    world.numbers += 1
    lateness = milliseconds(declaration.events["lateness"])
    late = rand.choice(
        [0, 0, 0, 0, lateness, lateness + 1, rand.randrange(lateness + 2), 4 * lateness]
    )
    event["ts"] = max(0, world.now - late)
    event["who"] = rand.choice(world.keys)
    for name, kind in declaration.fields.items():
        if kind.optional and rand.random() < 0.2:
            continue
        event[name] = _value(world, kind)
    if "who" in declaration.fields and declaration.fields["who"].kind == "str":
        event["who"] = rand.choice(world.keys)
    return event


def _value(world: _World, kind: FieldKind) -> Any:
    rand = world.rand
    if kind.optional and rand.random() < 0.2:
        return None
    drawn: dict[str, list[Any]] = {
        "enum": list(kind.categories),
        "bool": [True, False],
        "str": ["ash", "birch", "fir", "", "\x00", "ü" * 40],
        "int": [0, 1, -1, 7, rand.randrange(-1_000, 1_000)],
        "float": [0, 0.0, -0.0, 1.5, rand.randrange(-8, 8) / 4, rand.gauss(0, 10)],
    }
    if world.huge and rand.random() < 0.1:
        drawn["float"] = [1e30, -1e30, 5e-324, INTEGER_MAX]
    return rand.choice(drawn[kind.kind])


def _event(world: _World) -> list[Item]:
    """An event, and whatever else comes of it."""
    rand = world.rand
    event = _fresh(world)
    chance = rand.random()
    if chance < 0.08:
        return [_bad_event(world, event)]
    items = [Item("events", _json(event))]
    if chance < 0.13:
        items.append(items[0])
    elif chance < 0.16 and world.events:  # an id that came before, under another key or time
        former = rand.choice(world.events[-30:])
        again = event | {"event_id": former["event_id"]}
        items = [Item("events", _json(again))]
        event = again
    world.events.append(event)
    world.owed += _labels(world, event)
    return items


_BAD_BYTES = (b"", b"null", b"[1]", b'{"event_id": ', b"\xff\xfe", b"{" * 2_000, b'"text"', b"NaN")
_BAD_TIMES = (-1, INTEGER_MAX + 1, 2**70, 1.5, "soon", None, True)


def _bad_event(world: _World, event: dict[str, Any]) -> Item:
    rand = world.rand
    flaw = rand.choice(["bytes", "time", "id", "key", "field", "field"])
    if flaw == "bytes":
        return Item("events", rand.choice(_BAD_BYTES), flaw)
    if flaw == "time":
        return Item("events", _json(event | {"ts": rand.choice(_BAD_TIMES)}), flaw)
    if flaw in {"id", "key"}:
        name = "event_id" if flaw == "id" else "who"
        return Item("events", _json(event | {name: rand.choice([None, 7, "", "x" * 2_000])}), flaw)
    name = rand.choice(list(world.declaration.fields))
    kind = world.declaration.fields[name]
    wrong: dict[str, list[Any]] = {
        "float": ["1.5", True, 1e300, INTEGER_MAX + 2, [1], 2**200],
        "int": ["1", True, 1.0, 2**60, -(2**60), 2**100, {}],
        "str": [1, False, "x" * 5_000, []],
        "bool": [0, 1, "true", 1.0],
        "enum": ["oak", "", 1, ["ash"], "ASH"],
    }
    value = rand.choice(wrong[kind.kind])
    if not kind.optional and rand.random() < 0.3:
        value = None
    if not kind.optional and rand.random() < 0.2:
        return Item("events", _json({k: v for k, v in event.items() if k != name}), "field")
    return Item("events", _json(event | {name: value}), "field")


def _labels(world: _World, event: dict[str, Any]) -> list[tuple[int, Item]]:
    rand, horizon = world.rand, milliseconds(world.declaration.horizon)
    delays = [0, 1, horizon // 2, horizon // 3, horizon - 1, horizon, horizon + 1, 2 * horizon, -1]
    labels: list[tuple[int, Item]] = []
    for _ in range(rand.choice([0, 1, 1, 1, 1, 1, 2, 3])):
        delay = rand.choice(delays[:4] if rand.random() < 0.7 else delays)
        label = {
            "event_id": event["event_id"],
            "ts": max(0, event["ts"] + delay),
            "label": _truth(world, event),
        }
        if rand.random() < 0.1:
            label["source"] = "desk"
        flaw = None
        value = _json(label)
        if rand.random() < 0.04:
            value, flaw = _bad_label(world, label)
        at = label["ts"] + rand.choice([0, 0, 0, 1, horizon, -horizon])
        labels.append((at, Item("labels", value, flaw)))
    if rand.random() < 0.04:
        unknown = {
            "event_id": f"nobody{world.numbers}",
            "ts": event["ts"],
            "label": _truth(world, event),
        }
        labels.append((event["ts"], Item("labels", _json(unknown))))
    if rand.random() < 0.005:  # of one id, more than may wait
        labels += [labels[-1]] * 20 if labels else []
    return labels


def _truth(world: _World, event: dict[str, Any]) -> Any:
    rand, kind = world.rand, world.declaration.kind
    # There is something to learn, and some of it changes as time passes.
    signal = (len(str(event["who"])) + (event["ts"] // 60_000) % 2) % 2
    if kind == "bool":
        return rand.random() < (0.8 if signal else 0.2)
    if kind == "enum":
        classes = world.declaration.classes
        return classes[signal] if rand.random() < 0.7 else rand.choice(classes)
    if world.huge and rand.random() < 0.05:
        return 1e30
    return signal * 3 + rand.gauss(0, 0.5)


def _bad_label(world: _World, label: dict[str, Any]) -> tuple[bytes, str]:
    rand = world.rand
    flaw = rand.choice(["bytes", "time", "id", "label"])
    if flaw == "bytes":
        return rand.choice(_BAD_BYTES), flaw
    if flaw == "time":
        return _json(label | {"ts": rand.choice(_BAD_TIMES)}), flaw
    if flaw == "id":
        return _json(label | {"event_id": rand.choice([None, 7, "", "x" * 2_000])}), flaw
    wrong = {
        "bool": [0, 1, "true", None],
        "enum": ["oak", 1, None, ""],
        "float": ["1", True, None, 1e300],
    }
    return _json(label | {"label": rand.choice(wrong[world.declaration.kind])}), flaw


def _command(world: _World) -> dict[str, Any]:
    rand = world.rand
    world.numbers += 1
    lines = [*world.declaration.models, "nobody"]
    kind = rand.choice(["promote", "promote", "promote", "rollback", "pause", "resume"])
    command: dict[str, Any] = {"command_id": f"c{world.numbers}", "kind": kind}
    if rand.random() < 0.9:
        command["expect"] = rand.choice(lines)
    if kind == "promote":
        command["model"] = rand.choice(lines)
    if rand.random() < 0.15:
        command["forged"] = True
    return command


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
