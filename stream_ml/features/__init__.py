"""Features: what a model is given about an event, from its own fields and from windows before it.

`transforms` declares features of an event's fields, `windows` those over time, `aggregates` says
what a window can compute; `hashing` takes categories without a list, and `sparse` names their
columns; `feature_set` compiles a declaration and keeps its state.

>>> from stream_ml.records import Event
>>> from stream_ml.schema import FieldType
>>> features = FeatureSet(
...     [field("amount"), window("1h").mean("amount"), window("1h").count()],
...     schema={"amount": FieldType("float")},
...     lateness_ms=0,
... )
>>> state = features.new_state()
>>> state.insert(Event("a", 0, "card 1", {"amount": 8.0}))
>>> state.features(Event("b", 60_000, "card 1", {"amount": 5.0}))
{'amount': 5.0, 'mean(amount) 1h': 8.0, 'count 1h': 1.0}
"""

from __future__ import annotations

from stream_ml.features.aggregates import Aggregate
from stream_ml.features.durations import duration_text, parse_duration
from stream_ml.features.feature_set import WINDOW_EVENTS_MAX, FeatureSet, FeatureState
from stream_ml.features.hashing import bucketed, cross, hashed
from stream_ml.features.transforms import (
    Feature,
    Scalar,
    clip,
    difference,
    field,
    function,
    hour_of_day,
    log,
    one_hot,
    ratio,
    weekday,
)
from stream_ml.features.windows import (
    Window,
    any_of,
    calendar,
    hopping,
    lag,
    last_events,
    session,
    tumbling,
    window,
)

__all__ = [
    "WINDOW_EVENTS_MAX",
    "Aggregate",
    "Feature",
    "FeatureSet",
    "FeatureState",
    "Scalar",
    "Window",
    "any_of",
    "bucketed",
    "calendar",
    "clip",
    "cross",
    "difference",
    "duration_text",
    "field",
    "function",
    "hashed",
    "hopping",
    "hour_of_day",
    "lag",
    "last_events",
    "log",
    "one_hot",
    "parse_duration",
    "ratio",
    "session",
    "tumbling",
    "weekday",
    "window",
]
