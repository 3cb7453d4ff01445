"""A small shop for tests of single stages: its declaration, its records, its stages."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from river import linear_model, naive_bayes, preprocessing, tree

import stream_ml as sml
from stream_ml.codec import decode_example, encode_example, encode_prediction
from stream_ml.records import Prediction, Record, Shadow, Source
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output

KEY = b"the key of the house"
START_MS = 1_700_000_000_000


def declare(**changes: Any) -> Pipeline:
    """A small shop; its models are renewed at every 20th example."""
    declared: dict[str, Any] = {
        "name": "shop",
        "events": sml.Events(
            key="shop",
            fields={
                "kind": sml.Enum("visit", "order"),
                "amount": float,
                "note": sml.Optional[str],
            },
            lateness="20s",
            breadth=1,
        ),
        "predict": sml.when(kind="visit"),
        "features": [
            sml.field("amount"),
            sml.window("1m").count(kind="order"),
            sml.window("30s").mean("amount", fill=0.0),
        ],
        "label": sml.Label(bool, horizon="40s"),
        "champion": "logistic",
        "models": {
            "logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
            "bayes": naive_bayes.GaussianNB(),
        },
        "promotion": sml.Promotion(refresh=20, first=30),
    }
    return sml.Pipeline(**declared | changes)


shop = declare()
# Where strays come in heaps, long after what lay right.
patient = declare(
    events=replace(shop.events, lateness="1h"), label=replace(shop.label, horizon="2h")
)
# A patient shop with a second truth, which silence says as well: what was bought comes back.
two_tasks = declare(
    events=patient.events,
    label=patient.label,
    tasks=[
        sml.Task(
            "refund",
            label=sml.Label(bool, window="15s", absent=False, horizon="2h"),
            models={
                "sgd": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
                "bayes": naive_bayes.GaussianNB(),
            },
            champion="sgd",
            promotion=sml.Promotion(refresh=25, first=30),
        )
    ],
)
# With every rule of time as it is by default.
plain = declare(events=sml.Events(key="shop", fields=shop.events.fields))
# With one more feature, another window, and one more line: what the shop is changed into in flight.
wider = declare(
    features=[
        *shop.features[:2],
        sml.window("20s").count(kind="order"),
        sml.window("45s").mean("amount", fill=0.0),
    ],
    retired=shop.features[2:],
    models={**shop.models, "tree": tree.HoeffdingTreeClassifier(grace_period=20, max_depth=3)},
)
# Where silence is an answer, words are corrected, some sources count less or not at all, merchants
# have no list, and what is too late to be predicted still counts in windows.
clicks = declare(
    events=sml.Events(
        key="shop",
        fields={**shop.events.fields, "merchant": str},
        lateness="5s",
        window_lateness="30s",
        breadth=1,
    ),
    features=[*shop.features, sml.hashed("merchant", 16)],
    label=sml.Label(
        bool, window="10s", absent=False, corrections="1h", sources={"bot": 0, "desk": 0.5}
    ),
    models={
        # A pipeline of river takes a step in front into itself: not into the shop's own.
        "logistic": sml.TargetMean("merchant", smoothing=5.0)
        | (preprocessing.StandardScaler() | linear_model.LogisticRegression()),
        "bayes": shop.models["bayes"],
    },
    promotion=sml.Promotion(refresh=90, first=30, block=20),
)
EVENT: dict[str, Any] = {
    "event_id": "hostile",
    "ts": START_MS,
    "shop": "a",
    "kind": "visit",
    "amount": 2.5,
    "note": "n",
}
LABEL: dict[str, Any] = {"event_id": "hostile", "ts": START_MS, "label": True, "source": "desk"}


def stream(seed: int = 1, count: int = 120) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Good events and their labels, 10 s later."""
    world = random.Random(seed)
    events = [
        EVENT
        | {
            "event_id": f"e{number}",
            "ts": START_MS + 500 * number,
            "shop": world.choice("ab"),
            "kind": world.choice(["visit", "visit", "order"]),
            "amount": round(world.expovariate(0.1), 2),
        }
        for number in range(count)
    ]
    labels = [
        {"event_id": e["event_id"], "ts": e["ts"] + 10_000, "label": world.random() < 0.4}
        for e in events
        if e["kind"] == "visit"
    ]
    return events, labels


# --- records of single stages -----------------------------------------------------------------


def event(offset: int, *, append_ms: int = 2**42, **changes: Any) -> Record:
    """An event as it lies on the log, unless changed a visit of amount 2.5 at shop a."""
    members = EVENT | {"event_id": f"e{offset}"} | changes
    return Record("events", 0, offset, None, orjson.dumps(members), append_ms)


def example(
    offset: int,
    label: Any,
    features: dict[str, float],
    *,
    model: str = "logistic@0",
    said: Any = 0.5,
    shadows: dict[str, Any] | None = None,
    ts: int | None = None,
    label_ts: int | None = None,
) -> Record:
    """An example as it lies on the log: by default a second after the one before it."""
    at = START_MS + 1_000 * offset if ts is None else ts
    others = {
        slot: said if isinstance(said, Shadow) else Shadow(f"{slot}@0", said)
        for slot, said in (shadows or {}).items()
    }
    prediction = Prediction(
        f"e{offset}", "a", at, Source(0, offset), model, -1, said, False, features, others
    )
    known = at + 500 if label_ts is None else label_ts
    value = encode_example(encode_prediction(prediction), label, known, Source(0, offset))
    # As from this process: what a test learns from need not be of the shop's own features.
    return Record("examples", 0, offset, None, value, 2**42, decode_example(value))


def written(outputs: Iterable[Output], topic: str, first: int = 0) -> list[Record]:
    """What of the outputs goes to a topic, as the log would hold it from an offset on."""
    values = [(output.key, output.value) for output in outputs if output.topic == topic]
    return [
        Record(topic, 0, offset, key, value, 2**42)
        for offset, (key, value) in enumerate(values, first)
    ]


def started(pipeline: Pipeline) -> tuple[Learn, Evaluate, Serving]:
    """The stages of a pipeline when its first serving set has been loaded."""
    learn, evaluate = Learn(pipeline, KEY), Evaluate(pipeline, Keyring(KEY, {}))
    serving = Serving(pipeline, KEY)
    models = written(learn.start(), "models")
    decisions = written(evaluate.apply(models), "registry")
    serving.apply(models)
    serving.apply(decisions)
    return learn, evaluate, serving
