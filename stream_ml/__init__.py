"""Streaming machine learning with continual learning.

    events ──▶ predict ──▶ predictions ──┐
                  ▲                      ├──▶ join ──▶ examples ──┬──▶ learn ──▶ models
                  │          labels ─────┘                        └──▶ evaluate
                  └───────────────── registry ◀────────────────────────────┘

Every arrow is a topic, every stage a pure fold over its topics. What predicts is a frozen
snapshot; what learns does not predict. Here are the words that a pipeline is declared with;
`stream_ml.testing` runs one without a broker, `stream-ml --help` runs one for real, and
`stream_ml.client` publishes to it and reads from it.

A word is loaded when it is first used (PEP 562): whoever only reads predictions waits for no model.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from stream_ml.features import (
        Feature,
        Scalar,
        bucketed,
        calendar,
        clip,
        cross,
        difference,
        field,
        function,
        hashed,
        hopping,
        hour_of_day,
        lag,
        last_events,
        log,
        one_hot,
        ratio,
        session,
        tumbling,
        weekday,
        window,
    )
    from stream_ml.files import Files
    from stream_ml.label import Label
    from stream_ml.learners.balanced import Balanced, BalancedLearner
    from stream_ml.learners.categories import DenseScaler, TargetMean
    from stream_ml.models.learner import Learner
    from stream_ml.models.retrained import Retrained, Trainer
    from stream_ml.models.target import Target
    from stream_ml.monitoring.declaration import Monitors
    from stream_ml.pipeline import Events, Pipeline, Promotion, when
    from stream_ml.routes import Alerts, Route
    from stream_ml.schema import Enum, Optional, Range
    from stream_ml.slices import Slice, slice_by
    from stream_ml.tasks import Task

__version__ = "0.1.0"

__all__ = [
    "Alerts",
    "Balanced",
    "BalancedLearner",
    "DenseScaler",
    "Enum",
    "Events",
    "Feature",
    "Files",
    "Label",
    "Learner",
    "Monitors",
    "Optional",
    "Pipeline",
    "Promotion",
    "Range",
    "Retrained",
    "Route",
    "Scalar",
    "Slice",
    "Target",
    "TargetMean",
    "Task",
    "Trainer",
    "bucketed",
    "calendar",
    "clip",
    "cross",
    "difference",
    "field",
    "function",
    "hashed",
    "hopping",
    "hour_of_day",
    "lag",
    "last_events",
    "log",
    "one_hot",
    "ratio",
    "session",
    "slice_by",
    "tumbling",
    "weekday",
    "when",
    "window",
]

# The module that each word is of; all others are of `features`.
_MODULES = {
    **dict.fromkeys(("Alerts", "Route"), "stream_ml.routes"),
    **dict.fromkeys(("Balanced", "BalancedLearner"), "stream_ml.learners.balanced"),
    **dict.fromkeys(("DenseScaler", "TargetMean"), "stream_ml.learners.categories"),
    **dict.fromkeys(("Enum", "Optional", "Range"), "stream_ml.schema"),
    "Label": "stream_ml.label",
    **dict.fromkeys(("Events", "Pipeline", "Promotion", "when"), "stream_ml.pipeline"),
    **dict.fromkeys(("Slice", "slice_by"), "stream_ml.slices"),
    "Files": "stream_ml.files",
    "Learner": "stream_ml.models.learner",
    **dict.fromkeys(("Retrained", "Trainer"), "stream_ml.models.retrained"),
    "Monitors": "stream_ml.monitoring.declaration",
    "Target": "stream_ml.models.target",
    "Task": "stream_ml.tasks",
}


def __getattr__(name: str) -> _typing.Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(_MODULES.get(name, "stream_ml.features")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
