"""Every window feature equals what brute force over all former events gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from features_oracle import (
    HALF_LIFE_MS,
    LATENESS_MS,
    SCHEMA,
    BruteForce,
    aggregate,
    agrees,
    random_events,
)

from stream_ml.features import FeatureSet, window
from stream_ml.features.windows import Buffer

if TYPE_CHECKING:
    from stream_ml.features import Scalar
    from stream_ml.records import Event

DURATIONS_MS = (90, 1_000, 6_000)
VALUED = ("sum", "mean", "variance", "min", "max", "last", "distinct", "decayed_mean")
COUNTED = ("count", "seconds_since_last")
# Series: which field is looked at (None: any event), by carrier or not, and which kinds.
SERIES: dict[str, tuple[str | None, bool, Any, tuple[str, ...], tuple[int, ...]]] = {
    "all": (None, False, None, COUNTED, DURATIONS_MS),
    "x": ("x", False, None, VALUED, DURATIONS_MS),
    "y": ("y", False, None, ("sum", "mean", "last", "min"), (1_000,)),
    "departed": (None, False, "departed", COUNTED, (1_000,)),
    "x departed": ("x", False, ("departed", "weather"), ("mean", "max", "variance"), (1_000,)),
    "carrier": (None, True, None, COUNTED, (6_000,)),
    "x carrier": ("x", True, "departed", ("sum", "min", "decayed_mean"), (6_000,)),
}


def declared(series: str, name: str, duration_ms: int) -> Scalar:
    """The feature under test."""
    field, by, kinds, _, _ = SERIES[series]
    span = window(duration_ms, by="carrier" if by else None)
    filters = {} if kinds is None else {"kind": kinds}
    method = getattr(span, "time_since_last" if name == "seconds_since_last" else name)
    if name == "decayed_mean":
        feature = method(field, half_life=HALF_LIFE_MS, **filters)
    else:
        feature = method(**filters) if field is None else method(field, **filters)
    return feature.named(f"{series}/{name}/{duration_ms}")


FEATURES = [
    declared(series, name, duration_ms)
    for series, (_, _, _, names, durations) in SERIES.items()
    for duration_ms in durations
    for name in names
]


def group_of(series: str, event: Event) -> Any:
    """What an event's windows of a series look at; None for no group."""
    carrier = event.fields["carrier"]
    if not SERIES[series][1]:
        return series, event.key
    return None if carrier is None else (series, event.key, carrier)


def remember(brute: BruteForce, event: Event) -> None:
    """Tell the oracle of an event."""
    for series, (field, _, kinds, _, _) in SERIES.items():
        group = group_of(series, event)
        x = 1.0 if field is None else event.fields[field]
        wanted = (kinds,) if isinstance(kinds, str) else kinds
        if (
            group is not None
            and x is not None
            and (wanted is None or event.fields["kind"] in wanted)
        ):
            brute.insert(group, event.ts, x)


def expected(brute: BruteForce, event: Event) -> dict[str, tuple[float | None, float]]:
    """What every feature must be, and the size of what went into it."""
    answers = {}
    for series, (_, _, _, names, durations) in SERIES.items():
        group = group_of(series, event)
        for duration_ms in durations:
            times, values = brute.window(group, event.ts, duration_ms)
            size = float(abs(values).max()) if len(values) else 0.0
            for name in names:
                answer = None if group is None else aggregate(name, event.ts, times, values)
                scale = size * size if name == "variance" else size
                answers[f"{series}/{name}/{duration_ms}"] = (answer, scale)
    return answers


def disagreements(events: list[Event]) -> list[str]:
    """Where the package and the oracle differ, in words; stops after some."""
    state = FeatureSet(FEATURES, SCHEMA, LATENESS_MS).new_state()
    brute, watermark, found = BruteForce(), 0, []
    for event in events:
        watermark = max(watermark, event.ts)
        state.advance(watermark)
        features = state.features(event)
        for name, (answer, scale) in expected(brute, event).items():
            exact = "count" in name or "distinct" in name or "seconds" in name
            given = features.pop(name, None)
            if answer != given and (exact or not agrees(answer, given, scale)):
                found.append(f"event {event.event_id} at {event.ts}: {name} {given} not {answer}")
        found += [f"event {event.event_id}: unexpected {name}" for name in features]
        if len(found) > 20:
            break
        state.insert(event)
        remember(brute, event)
    return found


def test_every_window_feature_equals_brute_force() -> None:
    """Of 50,000 events, late and simultaneous ones among them, no feature is off by 1e-9."""
    assert disagreements(random_events(seed=20_250_101, count=50_000)) == []


@pytest.mark.parametrize("seed", range(5))
def test_few_keys_with_much_disorder(seed: int) -> None:
    """With one key, where late events meet full windows, the features are those of the oracle."""
    assert disagreements(random_events(seed, count=1_000, keys=1)) == []


def test_the_oracle_sees_an_event_that_sees_its_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked a millisecond later than it should be, the package does not pass."""
    read = Buffer.read
    monkeypatch.setattr(Buffer, "read", lambda buffer, t, answers: read(buffer, t + 1, answers))

    assert disagreements(random_events(seed=1, count=500)) != []


def test_the_oracle_sees_a_late_event_that_is_not_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a late event does not enter its windows' aggregates, the package does not pass."""
    monkeypatch.setattr(Buffer, "_refill", lambda buffer, member, *_: buffer.aggregates[member])

    assert disagreements(random_events(seed=1, count=500)) != []
