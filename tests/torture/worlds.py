"""Worlds from seeds, what is wrong with each, and the smallest that is wrong as well."""

from __future__ import annotations

import random
import traceback
import warnings
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stream_ml.errors import DeclarationError
from tests.torture import declarations, histories
from tests.torture.checks import faults
from tests.torture.run import happen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.torture.declarations import Declaration
    from tests.torture.histories import History, Phase

__all__ = ["Tally", "World", "make", "report", "shrunk", "torture"]

# How many runs of a world shrinking may take.
ATTEMPTS_MAX = 300
FAULTS_SHOWN = 5
ITEMS_SHOWN = 60


@dataclass
class Tally:
    """What has been tried, in figures."""

    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        blocks = [
            ("tried", self.counts),
            ("declarations refused", self.refused),
            ("dead letters", self.letters),
        ]
        return "\n".join(
            f"{title}: {', '.join(f'{name} {n:,}' for name, n in counts.most_common()) or 'none'}"
            for title, counts in blocks
        )


@dataclass(frozen=True)
class World:
    """A declaration and what happens under it; `seed` also says how its workers die."""

    seed: int
    declaration: Declaration
    history: History


def make(seed: int, tally: Tally) -> World:
    """The world of a seed.

    Raises:
        Exception: a declaration was neither taken nor refused as one.
    """
    rand = random.Random(seed)
    while True:
        declaration = declarations.draw(rand)
        try:
            declaration.pipeline()
        except DeclarationError as refusal:
            for problem in refusal.problems:
                tally.refused[f"{problem.path.split('.')[0].split('[')[0]}"] += 1
            continue
        return World(seed, declaration, histories.draw(rand, declaration))


def torture(world: World, tally: Tally, replays: int = 2) -> list[str]:
    """Let a world happen, and again with workers that die; gives what did not hold."""
    with warnings.catch_warnings(), ExitStack() as opened:
        # What river's arithmetic says of large numbers is its own.
        warnings.simplefilter("ignore")
        try:
            first = happen(world.declaration, world.history)
            opened.callback(first.driver.close)
            wrong = [*first.beyond, *faults(first)]
            _count(tally, world, first.driver.read("dead-letters"), first.refused)
            for number in range(replays):
                again = happen(world.declaration, world.history, world.seed + number)
                opened.callback(again.driver.close)
                tally.counts["restarts"] += again.restarts
                wrong += again.beyond
                wrong += [
                    f"run {number} wrote otherwise to {topic}: {_first(written, other)}"
                    for topic, written in first.outcome.items()
                    if written != (other := again.outcome[topic])
                ]
        except Exception:  # noqa: BLE001 - whatever comes out of the loop is what is looked for
            lines = traceback.format_exc(limit=-6)
            return [f"the loop raised:\n{lines}"]
    return wrong


def _count(
    tally: Tally, world: World, letters: list[dict[str, str]], refused: Counter[str]
) -> None:
    tally.counts["declarations"] += 1
    tally.counts["records"] += world.history.size
    tally.counts["changes of declaration refused"] += refused.total()
    tally.letters.update(f"{letter['topic']}/{letter['reason']}" for letter in letters)


def _first(one: list[object], other: list[object]) -> str:
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"record {number}: {a!r:.300} became {b!r:.300}"
    return f"{len(one)} records became {len(other)}"


# --- smaller worlds ---------------------------------------------------------------------------


def shrunk(world: World, wrong: Callable[[World], bool]) -> World:
    """A smaller world with which something is wrong, too."""
    attempts = ATTEMPTS_MAX
    progress = True
    while progress and attempts > 0:
        progress = False
        for smaller in _smaller(world):
            attempts -= 1
            if attempts < 0:
                break
            if _declared(smaller) and wrong(smaller):
                world, progress = smaller, True
                break
    return world


def _declared(world: World) -> bool:
    try:
        for phase in world.history.phases:
            if phase.declares is not None:
                phase.declares.pipeline()
        world.declaration.pipeline()
    except DeclarationError:
        return False
    return True


def _smaller(world: World) -> Iterator[World]:
    history, declaration = world.history, world.declaration
    phases = history.phases
    for number in range(len(phases)):
        if len(phases) > 1:
            yield _with(world, phases[:number] + phases[number + 1 :])
    if any(phase.commands or phase.declares for phase in phases):
        yield _with(world, tuple(replace(each, commands=(), declares=None) for each in phases))
    if history.partitions > 1:
        yield replace(world, history=replace(history, partitions=1))
    yield from _fewer_items(world)
    if not any(phase.declares for phase in phases):
        yield from _less_declared(world, declaration)


def _less_declared(world: World, declaration: Declaration) -> Iterator[World]:
    for number in range(len(declaration.features)):
        kept = declaration.features[:number] + declaration.features[number + 1 :]
        if kept:
            yield replace(world, declaration=replace(declaration, features=kept))
    for name in declaration.models:
        if name != declaration.champion:
            rest = {n: recipe for n, recipe in declaration.models.items() if n != name}
            yield replace(world, declaration=replace(declaration, models=rest))
    if declaration.predict:
        yield replace(world, declaration=replace(declaration, predict={}))


def _fewer_items(world: World) -> Iterator[World]:
    phases = world.history.phases
    longest = max(len(phase.items) for phase in phases)
    size = longest
    while size := size // 2:
        for number, phase in enumerate(phases):
            for start in range(0, len(phase.items), size):
                items = phase.items[:start] + phase.items[start + size :]
                changed = replace(phase, items=items)
                yield _with(world, (*phases[:number], changed, *phases[number + 1 :]))


def _with(world: World, phases: tuple[Phase, ...]) -> World:
    return replace(world, history=replace(world.history, phases=phases))


# --- what is printed --------------------------------------------------------------------------


def report(world: World, wrong: list[str], *, events: bool = True) -> str:
    """A world that is wrong, so that a person can go on with it; its history only if wanted."""
    lines = [f"seed {world.seed}:", *(f"  {fault:.2000}" for fault in wrong[:FAULTS_SHOWN])]
    if len(wrong) > FAULTS_SHOWN:
        lines.append(f"  and {len(wrong) - FAULTS_SHOWN} more")
    if events:
        lines += [world.declaration.code, f"{world.history.partitions} partitions"]
        for phase in world.history.phases:
            lines += _phase_lines(phase)
    lines.append(f"again: python -m tests.torture --seed {world.seed}")
    return "\n".join(lines)


def _phase_lines(phase: Phase) -> Iterator[str]:
    declares = "" if phase.declares is None else f", declared anew:\n{phase.declares.code}"
    yield f"at {phase.now_ms}{declares}"
    for item in phase.items[:ITEMS_SHOWN]:
        yield f"  {item.topic} {item.value.decode('utf-8', 'replace'):.500}"
    if len(phase.items) > ITEMS_SHOWN:
        yield f"  and {len(phase.items) - ITEMS_SHOWN} more"
    for command in phase.commands:
        yield f"  command {command}"
