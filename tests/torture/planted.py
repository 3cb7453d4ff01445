"""Bugs planted on purpose: how soon are they seen? `python -m tests.torture.planted` tells.

Each is small, of a kind that was made before, and changes nothing that a single record shows.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_ml.features.windows import Buffer
from stream_ml.shell.log.sqlite import SqliteSession
from stream_ml.stages.dedup import SeenIds
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.join import Join
from tests.torture.worlds import Tally, make, torture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PLANTED", "caught", "planted"]

# The same worlds for everybody: what is caught, and when, is the same everywhere.
FIRST_SEED = 70_000
MINUTES_MAX = 5


def _horizon_off_by_one(change: int) -> dict[str, Any]:
    begin = Join.__init__

    def planted(self: Join, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        self._horizon += change

    return {"__init__": planted}


def _knows_no_prediction() -> dict[str, Any]:
    begin = Join.__init__

    def planted(self: Join, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        self._prediction_ids.get = lambda _: None  # type: ignore[method-assign]

    return {"__init__": planted}


def _bucket_too_early() -> dict[str, Any]:
    forget = SeenIds.forget_before
    return {"forget_before": lambda self, bound: forget(self, bound + self._width_ms)}


def _sees_its_own_instant() -> dict[str, Any]:
    read = Buffer.read
    return {"read": lambda self, t, answers: read(self, t + 1, answers)}


def _window_too_long() -> dict[str, Any]:
    begin = Buffer.__init__

    def planted(self: Buffer, series: Any, *given: Any) -> None:
        longer = tuple((length + 1, members) for length, members in series.windows)
        begin(self, replace(series, windows=longer), *given)

    return {"__init__": planted}


def _commits_one_too_far() -> dict[str, Any]:
    commit = SqliteSession.commit

    def planted(self: SqliteSession, positions: Any = None, *given: Any, **named: Any) -> Any:
        ahead = {
            task: {place: at + (place[0] == "events") for place, at in places.items()}
            for task, places in (positions or {}).items()
        }
        return commit(self, ahead, *given, **named)

    return {"commit": planted}


def _ages_mixed() -> dict[str, Any]:
    renew = Evaluate._renew

    def planted(self: Evaluate, version: int, renewal: Any) -> Any:
        serving = self._registry.serving
        former = None if serving is None else serving.challengers
        if former:
            name = next(iter(former))
            renewal.refs |= {name: former[name]} if name in renewal.refs else {}
        return renew(self, version, renewal)

    return {"_renew": planted}


def _judged_by_interleaving() -> dict[str, Any]:
    wait = Join._wait

    def planted(self: Join, *given: Any) -> None:
        wait(self, *given)
        for waiting in self._labels._labels.values():
            waiting[:] = [each._replace(watermark=-1) for each in waiting]

    return {"_wait": planted}


# What is planted: where, and what takes whose place.
PLANTED: dict[str, tuple[type, Callable[[], dict[str, Any]]]] = {
    "a horizon one millisecond short": (Join, lambda: _horizon_off_by_one(-1)),
    "the second prediction of an id is taken": (Join, _knows_no_prediction),
    "ids forgotten a bucket too early": (SeenIds, _bucket_too_early),
    "a window that sees its own instant": (Buffer, _sees_its_own_instant),
    "a window one millisecond too long": (Buffer, _window_too_long),
    "a position one too far": (SqliteSession, _commits_one_too_far),
    "models of two ages compared": (Evaluate, _ages_mixed),
    "a label that waits is late for nothing": (Join, _judged_by_interleaving),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The package with a bug in it."""
    where, patches = PLANTED[name]
    former = {}
    for attribute, patch in patches().items():
        former[attribute] = getattr(where, attribute)
        setattr(where, attribute, patch)
    try:
        yield
    finally:
        for attribute, original in former.items():
            setattr(where, attribute, original)


def caught(name: str, worlds: int, until: float = float("inf")) -> tuple[int, str] | None:
    """The seed of the first world that shows a bug, and how; None if none of so many does."""
    with planted(name):
        for seed in range(FIRST_SEED, FIRST_SEED + worlds):
            wrong = torture(make(seed, Tally()), Tally())
            if wrong:
                return seed, wrong[0]
            if time.monotonic() > until:
                break
    return None


def main() -> int:
    """Exit code 0 if each is caught in its time."""
    missed = 0
    for name in PLANTED:
        began = time.monotonic()
        seen = caught(name, 10**6, began + 60 * MINUTES_MAX)
        took = time.monotonic() - began
        if seen is None:
            missed += 1
            print(f"{name}: not caught in {took:.0f} s", flush=True)
        else:
            seed, fault = seen
            worlds = seed - FIRST_SEED + 1
            print(f"{name}: caught in {took:.1f} s by world {worlds}: {fault:.200}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
