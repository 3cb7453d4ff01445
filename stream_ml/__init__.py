"""Streaming machine learning with continual learning.

    events ──▶ predict ──▶ predictions ──┐
                  ▲                      ├──▶ join ──▶ examples ──┬──▶ learn ──▶ models
                  │          labels ─────┘                        └──▶ evaluate
                  └───────────────── registry ◀────────────────────────────┘

Every arrow is a topic, every stage a pure fold over its topics. What predicts is a frozen
snapshot; what learns does not predict. Here are the words that a pipeline is declared with;
`stream_ml.testing` runs one without a broker, `stream-ml --help` runs one for real.
"""

from stream_ml.features import (
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
    window,
)
from stream_ml.pipeline import Events, Label, Pipeline, Promotion, when
from stream_ml.schema import Enum, Optional

__version__ = "0.1.0"

__all__ = [
    "Enum",
    "Events",
    "Feature",
    "Label",
    "Optional",
    "Pipeline",
    "Promotion",
    "Scalar",
    "clip",
    "difference",
    "field",
    "function",
    "hour_of_day",
    "log",
    "one_hot",
    "ratio",
    "weekday",
    "when",
    "window",
]
