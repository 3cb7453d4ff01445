"""One record of a wrong clock, of each kind and anywhere: nobody else's is refused for it."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest

import stream_ml as sml
from stream_ml.testing import CRASH, Driver
from tests.shop import START_MS, declare, shop

YEAR_MS = 365 * 86_400_000
COUNT = 240
SKEW_MS = 300_000
# All of it lies in the log at once, a moment after the last of it; or a decade later.
LIVE_MS, REPLAY_MS = START_MS + 1_000 * COUNT + 20_000, START_MS + 10 * YEAR_MS
SHOPS = 40

# The rules of time as they are by default.
watched = declare(
    events=sml.Events(key="shop", fields=shop.events.fields),
    label=sml.Label(bool, horizon="2m"),
    promotion=sml.Promotion(refresh="1m", first=30),
)

BREADTH = watched.events.breadth

Members = dict[str, Any]


def honest() -> tuple[list[Members], list[Members]]:
    """Events a second apart and their labels ten seconds later, in the order of their time."""
    events = [
        {
            "event_id": f"h{n}",
            "ts": START_MS + 1_000 * n,
            "shop": f"s{n % SHOPS}",
            "kind": "visit",
            "amount": float(n % 7),
        }
        for n in range(COUNT)
    ]
    labels = [
        {"event_id": e["event_id"], "ts": e["ts"] + 10_000, "label": e["amount"] > 3}
        for e in events
    ]
    return events, labels


def outcome(driver: Driver) -> tuple[dict[str, Any], set[str], Counter[str]]:
    """Honest features by id, honest ids joined, and why what was honest was refused."""
    served = {p["event_id"]: p["features"] for p in driver.read("predictions")}
    joined = {e["event_id"] for e in driver.read("examples")}
    refused = Counter[str]()
    for letter in driver.read("dead-letters"):
        (record,) = driver.log.read(letter["topic"], letter["partition"], letter["offset"], 1)
        if b'"h' in (record.value or b""):
            refused[letter["reason"]] += 1
    return (
        {id_: features for id_, features in served.items() if id_.startswith("h")},
        {id_ for id_ in joined if id_.startswith("h")},
        refused,
    )


@functools.cache
def quiet(partitions: int, now_ms: int) -> tuple[dict[str, Any], int]:
    """Features, and how often models are renewed, where no clock is wrong."""
    with Driver(watched, partitions=partitions, now_ms=now_ms) as driver:
        driver.feed(*honest())
        features, joined, refused = outcome(driver)
        assert (COUNT, COUNT, Counter()) == (len(features), len(joined), refused)
        kinds = Counter(decision["kind"] for decision in driver.read("registry"))
        assert kinds["refreshed"] > 1
        return features, kinds["refreshed"]


@pytest.mark.parametrize(("partitions", "crashes"), [(1, False), (3, True)])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("times", [1, 20])
@pytest.mark.parametrize("kind", ["event", "label", "own label", "event and label"])
@pytest.mark.parametrize("ahead", ["near the skew", "a year in a replay"])
def test_a_wrong_clock_shuts_nobody_out(
    ahead: str, kind: str, times: int, where: str, partitions: int, *, crashes: bool
) -> None:
    """Once or in a burst with repetitions: all that is honest is served, joined and learned."""
    now_ms = REPLAY_MS if ahead == "a year in a replay" else LIVE_MS
    features, refreshed = quiet(partitions, now_ms)
    events, labels = honest()
    place = {"first": 0, "middle": COUNT // 2, "last": COUNT}[where]
    near = START_MS + 1_000 * place
    ts = near + YEAR_MS if now_ms == REPLAY_MS else now_ms + SKEW_MS - 1
    # One device may send many events; of labels, each id counts as one who says so.
    ids = [f"fast{n % (10 if kind == 'event' else BREADTH - 1)}" for n in range(times)]
    if kind in {"event", "event and label"}:
        events[place:place] = [
            {"event_id": id_, "ts": ts, "shop": "s0", "kind": "visit", "amount": 9.0} for id_ in ids
        ]
    if kind in {"label", "event and label"}:
        labels[place:place] = [{"event_id": id_, "ts": ts, "label": True} for id_ in ids]
    if kind == "own label":
        # Beside the right one, of a labeller whose clock is wrong.
        labels[place:place] = [{"event_id": "h100", "ts": ts, "label": False}] * times
    feed: list[Any] = list(events)
    if crashes:
        feed[len(feed) // 3 : len(feed) // 3] = [CRASH]
        feed[2 * len(feed) // 3 : 2 * len(feed) // 3] = [CRASH]
    seed = 1 if crashes else None
    with Driver(watched, partitions=partitions, seed=seed, now_ms=now_ms) as driver:
        driver.feed(feed, labels)
        served, joined, refused = outcome(driver)
        kinds = Counter(decision["kind"] for decision in driver.read("registry"))

    if kind == "own label":
        assert set(refused) <= {"late", "orphan", "too_many_labels", "duplicate_label"}
    else:
        assert Counter() == refused
    assert features == served
    assert features.keys() - joined <= ({"h100"} if times > 1 and kind == "own label" else set())
    if "label" not in kind:
        assert refreshed == kinds["refreshed"]
    assert kinds["refreshed"] > 1
