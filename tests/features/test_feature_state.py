"""The state of features: stored in pieces, restored, dropped and bounded, never different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from features_oracle import LATENESS_MS, SCHEMA, random_events
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_ml.errors import BadRecord, UsageError
from stream_ml.features import (
    FeatureSet,
    calendar,
    clip,
    field,
    function,
    hopping,
    lag,
    last_events,
    ratio,
    session,
    tumbling,
    window,
)
from stream_ml.records import Event
from stream_ml.schema import FieldType

if TYPE_CHECKING:
    from stream_ml.features import FeatureState

short, long = window(300), window(2_000)
FEATURES = [
    field("x"),
    *[
        feature
        for span in (short, long, window(1_000, by="carrier"))
        for feature in (
            span.count(),
            span.variance("x"),
            span.mean("y", kind="departed"),
            span.max("x"),
            span.last("x"),
            span.distinct("kind"),
            span.time_since_last(),
            span.decayed_mean("x", half_life=100),
        )
    ],
    ratio(short.mean("x"), long.mean(clip("x", 0, 10))),
]
FEATURE_SET = FeatureSet(FEATURES, SCHEMA, LATENESS_MS, window_events_max=20)
FRAMED = [
    feature
    for span in (
        long,
        window(100, ago=300),
        tumbling(200),
        tumbling(200, previous=True),
        hopping(300, 100),
        session(30, longest=600),
        last_events(5, within=1_000),
        last_events(2, "carrier", within=3_000),
        calendar("hour", "Europe/Rome"),
    )
    for feature in (
        span.count(),
        span.first("x"),
        span.median("x"),
        span.distinct_approx("kind"),
        span.counts("kind"),
        span.decayed_variance("x", half_life=100),
        span.rate("x"),
    )
]
FRAMED.append(lag("x", 500, tolerance=50))
FEATURE_SETS = [
    FEATURE_SET,
    FeatureSet(FRAMED, SCHEMA, LATENESS_MS),
    FeatureSet(FRAMED, SCHEMA, LATENESS_MS, window_events_max=20),
]


class Run:
    """A state, what is stored of it, and what it has answered."""

    def __init__(self, feature_set: FeatureSet = FEATURE_SET) -> None:
        self.feature_set = feature_set
        self.state = feature_set.new_state()
        self.stored: dict[str, bytes] = {}
        self.answers: list[bytes] = []
        self.watermark = 0

    def take(self, event: Event) -> None:
        """An event, as a stage would take it; scheduled ones and the weather ask."""
        self.watermark = max(self.watermark, event.ts)
        self.state.advance(self.watermark)
        if event.fields["kind"] != "departed":
            self.answers.append(orjson.dumps(self.state.features(event)))
        self.state.insert(event)

    def store(self) -> None:
        """A checkpoint."""
        for name, piece in self.state.dirty():
            if piece is None:
                self.stored.pop(name, None)
            else:
                self.stored[name] = piece

    def crash(self) -> None:
        """Lose everything that is not stored, and go on from what is."""
        self.state = self.feature_set.new_state()
        self.state.restore(self.stored.items())


@given(
    feature_set=st.sampled_from(FEATURE_SETS),
    seed=st.integers(0, 10**6),
    keys=st.integers(1, 3),
    interruptions=st.dictionaries(st.integers(0, 149), st.booleans(), max_size=10),
)
@settings(max_examples=60, deadline=None, print_blob=True)
def test_storing_and_restoring_changes_nothing(
    feature_set: FeatureSet, seed: int, keys: int, interruptions: dict[int, bool]
) -> None:
    """With checkpoints and crashes anywhere, answers and stored state are the same bytes."""
    events = random_events(seed, 150, keys, jumps=0.04)
    calm, interrupted = Run(feature_set), Run(feature_set)
    for number, event in enumerate(events):
        calm.take(event)
        interrupted.take(event)
        if number in interruptions:
            interrupted.store()
            if interruptions[number]:
                interrupted.crash()
    calm.store()
    interrupted.store()

    assert calm.answers == interrupted.answers
    assert calm.stored == interrupted.stored
    assert len(calm.state) == len(interrupted.state)


@given(
    feature_set=st.sampled_from(FEATURE_SETS),
    seed=st.integers(0, 10**6),
    batch=st.integers(2, 50),
)
@example(feature_set=FEATURE_SETS[2], seed=539, batch=6)
@settings(max_examples=30, deadline=None)
def test_features_do_not_depend_on_when_the_watermark_is_told(
    feature_set: FeatureSet, seed: int, batch: int
) -> None:
    """Told of the watermark once per batch, the state gives the same features."""
    events = random_events(seed, 150, 2, jumps=0.04)
    each, batched = Run(feature_set), Run(feature_set)
    for number, event in enumerate(events):
        each.take(event)
        if number % batch == 0:
            batched.state.advance(each.watermark)
        if event.fields["kind"] != "departed":
            batched.answers.append(orjson.dumps(batched.state.features(event)))
        batched.state.insert(event)

    assert each.answers == batched.answers


def test_a_question_long_after_is_answered_before_the_watermark_is_told() -> None:
    """A key asked about long after its last event is empty, and dropped when its time has come."""
    state = simple(window("1s").count(), window("1s").max("x"))
    for t in range(200):
        state.insert(event(t))

    assert state.features(event(10**6)) == {"count 1s": 0.0}

    state.advance(10**6)

    assert len(state) == 0


def simple(*features: Any, lateness_ms: int = 0, **options: Any) -> FeatureState:
    """A state over events with a number `x` and a text `g`."""
    schema = {"x": FieldType("float"), "g": FieldType("str", optional=True)}
    return FeatureSet(features, schema, lateness_ms, **options).new_state()


def event(t: int, x: float = 1.0, key: str = "k", g: str | None = "a") -> Event:
    """An event of these."""
    return Event(f"{key}{t}", t, key, {"x": x, "g": g})


def test_a_window_is_open_at_the_asking_event() -> None:
    """[t - w, t): the event exactly w before is in, the one at t is out."""
    #   0    5    10   15
    #   a    b    c         asked at 10, w = 10: [0, 10)  -> a, b
    #   a    b    c    d    asked at 15, w = 10: [5, 15)  -> b, c
    state = simple(window(10).count())
    for t in (0, 5, 10):
        state.insert(event(t))

    assert state.features(event(10)) == {"count 10ms": 2.0}
    assert state.features(event(15)) == {"count 10ms": 2.0}


def test_a_quiet_key_empties() -> None:
    """Without new events of a key its windows empty by the time of who asks."""
    state = simple(window("1s").count(), window("1s").mean("x"))
    state.insert(event(0))

    assert state.features(event(1_000)) == {"count 1s": 1.0, "mean(x) 1s": 1.0}
    assert state.features(event(1_001)) == {"count 1s": 0.0}


def test_a_quiet_key_is_dropped_by_the_watermark() -> None:
    """A key is held while an event that is not too late can ask for it, and not longer."""
    state = simple(window("1s").count(), window("3s", by="g").count(), lateness_ms=500)
    state.insert(event(0, key="quiet"))
    state.insert(event(3_000, key="other"))
    state.dirty()
    state.advance(3_500)

    assert len(state) == 2
    assert state.features(event(3_000, key="quiet")) == {"count 1s": 0.0, "count 3s by g": 1.0}

    state.advance(3_501)

    assert len(state) == 1
    assert [piece for _, piece in state.dirty() if piece is None] == [None, None]


def test_at_most_so_many_events_are_held() -> None:
    """Over `window_events_max` the oldest events are dropped, and counted."""
    state = simple(window("1s").count(), window("1s").sum("x"), window_events_max=3)
    for t in (1, 2, 3, 4, 4):
        state.insert(event(t, x=float(t)))

    assert state.dropped_count == 2
    assert state.features(event(5)) == {"count 1s": 3.0, "sum(x) 1s": 11.0}


def test_even_one_event_may_be_the_limit() -> None:
    """With room for one event, the newest in the log stays."""
    state = simple(window("1s").last("x"), window_events_max=1)
    for x in (1.0, 2.0, 3.0):
        state.insert(event(0, x=x))

    assert state.features(event(1)) == {"last(x) 1s": 3.0}


def test_memory_of_a_busy_key_is_bounded_by_its_window() -> None:
    """A buffer holds the window and the lateness, and little room besides."""
    state = simple(window("1s").count(), lateness_ms=500)
    for t in range(0, 200_000, 10):
        state.advance(t)
        state.insert(event(t))
    (buffer,) = state._buffers[0]["k"]

    assert buffer is not None
    assert len(buffer.times) - buffer.start == 151
    assert len(buffer.times) < 400


def test_no_key_can_imitate_another() -> None:
    """Keys that look like parts of a piece's name stay apart."""
    state = simple(window("1s").count(), window("1s", by="g").count())
    keys = ['a","b', "a", "", "\x00", "ключ 🔑", '["a"]']
    for key in keys:
        state.insert(event(0, key=key, g="b"))
        state.insert(event(0, key=key, g='b","c'))
    pieces = state.dirty()
    again = simple(window("1s").count(), window("1s", by="g").count())
    again.restore([(name, piece) for name, piece in pieces if piece is not None])

    assert len({name for name, _ in pieces}) == len(pieces) == 3 * len(keys)
    assert len(again) == len(keys)
    for key in keys:
        answer = again.features(event(1, key=key, g="b"))

        assert answer == {"count 1s": 2.0, "count 1s by g": 1.0}


def test_pieces_are_small() -> None:
    """A change in one group is one piece, whatever other groups the key has."""
    state = simple(window("1s", by="g").count())
    for number in range(100):
        state.insert(event(0, g=f"g{number}"))
    state.dirty()
    state.insert(event(1, g="g7"))

    assert len(state.dirty()) == 1
    assert state.dirty() == []


def test_state_of_another_declaration_is_refused() -> None:
    """A piece whose series is not declared is refused by name."""
    state = simple(window("1s").count())
    state.insert(event(0))
    pieces = [(name, piece) for name, piece in state.dirty() if piece is not None]

    with pytest.raises(UsageError, match="the declaration has only count 2s"):
        simple(window("2s").count()).restore(pieces)


def test_an_event_in_no_group_is_left_out() -> None:
    """A null `by` field puts an event in no group: it counts nowhere, and gets no answer."""
    state = simple(window("1s", by="g").count(), window("1s").count())
    state.insert(event(0, g=None))

    assert state.features(event(1, g=None)) == {"count 1s": 1.0}
    assert state.features(event(1, g="a")) == {"count 1s by g": 0.0, "count 1s": 1.0}


def test_a_function_that_raises_changes_nothing() -> None:
    """Where a user's function raises, the event is bad and no window has taken it in."""
    inverse = function(lambda x: 1 / x, "x", name="inverse")
    state = simple(window("1s").count(), window("1s").sum(inverse))
    state.insert(event(0, x=2.0))

    with pytest.raises(BadRecord, match=r"inverse\(x\) raised ZeroDivisionError"):
        state.insert(event(1, x=0.0))

    assert state.features(event(2)) == {"count 1s": 1.0, "sum(inverse) 1s": 0.5}


def test_long_texts_are_told_apart_by_a_digest() -> None:
    """A window over texts of any length holds little of each, and still counts them right."""
    state = simple(window("1m").distinct("g"))
    names = ["x" * 4_000 + end for end in "abcab"] + ["short", "short"]
    for number, name in enumerate(names):
        state.insert(event(number, g=name))
    ((_, piece),) = state.dirty()

    assert {"distinct(g) 1m": 4.0} == state.features(event(1_000))
    assert piece is not None
    assert len(piece) < 1_000


def test_categories_that_are_long_texts_are_counted() -> None:
    """Of a category that the window holds as a digest, and of one that is not there."""
    long_name = "x" * 4_000
    state = simple(window("1m").counts("g", [long_name, "y"]).named("g"))
    for number in range(3):
        state.insert(event(number, g=long_name))

    assert state.features(event(1_000)) == {f"g={long_name}": 3.0, "g=y": 0.0}


def test_of_the_last_events_few_more_are_held() -> None:
    """Of the last 20 events within a month, a busy key holds those and what the lateness asks."""
    state = simple(last_events(20).mean("x"), lateness_ms=50)
    held = []
    for t in range(0, 20_000, 10):
        state.advance(t)
        state.insert(event(t))
        (buffer,) = state._buffers[0]["k"]
        assert buffer is not None
        held.append(len(buffer.times) - buffer.start)

    assert max(held) < 32
    assert state.features(event(20_000, x=0.0)) == {"mean(x) last 20": 1.0}


def test_a_day_that_begins_holds_nothing_of_the_day_before() -> None:
    """At midnight in New York, when its clocks were set forward that night, today is empty."""
    state = simple(calendar("day", "America/New_York").count())
    midnight = 1_741_579_200_000  # 10 March 2025, 0:00 in New York, a day of 23 hours behind it
    for hour in range(-24, 0):
        state.insert(event(midnight + hour * 3_600_000))

    assert state.features(event(midnight - 1)) == {"count this day America/New_York": 23.0}
    assert state.features(event(midnight)) == {"count this day America/New_York": 0.0}


def test_a_late_event_joins_two_sessions() -> None:
    """Who asks after it came finds one session, who asked before found two."""
    state = simple(session("10s").count(), session("10s").time_since_first(), lateness_ms=60_000)
    for second in (0, 8, 24):
        state.insert(event(second * 1_000))
    state.advance(30_000)

    assert state.features(event(30_000)) == {
        "count session 10s": 1.0,
        "seconds_since_first session 10s": 6.0,
    }

    state.insert(event(16_000))

    assert state.features(event(30_000)) == {
        "count session 10s": 4.0,
        "seconds_since_first session 10s": 30.0,
    }


def test_windows_of_one_source_share_their_events() -> None:
    """One more kind of window of the same values is an aggregate, not one more copy of events."""
    windows = (window("1h"), tumbling("1h"), session("5m"), last_events(9), calendar("day"))
    series = FeatureSet([each.mean("x") for each in windows], SCHEMA, 0).series_ids()

    assert len(series) == 1
