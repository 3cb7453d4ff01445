"""Flagged card payments: is it fraud? Declared for the made-up worlds of `stream_ml.scenarios`.

    $ stream-ml generate sudden --seed 1 --events 20000 --out sudden
    $ stream-ml --pipeline stream_ml.examples.payments:payments backtest sudden/*.jsonl

Labels are independent of each other there, so evidence is counted in blocks of 50 labels, the guard
judges each 100, and models are renewed each 500: quick to watch, and wrong for most real streams
(see Promotion).
"""

from __future__ import annotations

from river import compose, linear_model, optim, preprocessing

import stream_ml as sml

__all__ = ["better", "equal", "payments"]

CHANNELS = ("chip", "online", "phone")

events = sml.Events(
    key="card",
    fields={
        "amount": sml.Optional[float],
        "distance": sml.Optional[float],
        "age": sml.Optional[float],
        "channel": sml.Optional[str],
    },
    lateness="1h",
)
features = [
    sml.log("amount", fill=3.5),
    sml.log("distance", fill=2.0),
    sml.field("age", fill=1_825.0),
    sml.one_hot("channel", categories=CHANNELS),
    sml.window("1d").count(),
]
label = sml.Label(bool, horizon="1d")
promotion = sml.Promotion(refresh=500, block=50, guard_block=100)


def _logistic(optimizer: optim.base.Optimizer, *names: str) -> compose.Pipeline:
    """A logistic regression, of these features only where there are any."""
    scaled = preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer)
    return compose.Select(*names) | scaled if names else scaled


payments = sml.Pipeline(
    "payments",
    events=events,
    features=features,
    label=label,
    champion="adagrad",
    models={
        # Learns ever more slowly: good while nothing changes.
        "adagrad": _logistic(optim.AdaGrad(0.1)),
        # Learns at one pace for ever: a little worse, and soon there where something changes.
        "sgd": _logistic(optim.SGD(0.05)),
    },
    promotion=promotion,
)

# Two lines that see half each of what there is to see.
equal = sml.Pipeline(
    "equal",
    events=events,
    features=features,
    label=label,
    champion="amount",
    models={
        "amount": _logistic(optim.AdaGrad(0.1), "log(amount)"),
        "distance": _logistic(optim.AdaGrad(0.1), "log(distance)"),
    },
    promotion=promotion,
)

# A champion that does not see what matters most, and a challenger that does.
better = sml.Pipeline(
    "better",
    events=events,
    features=features,
    label=label,
    champion="few",
    models={
        "few": _logistic(optim.AdaGrad(0.1), "age", "channel=online"),
        "all": _logistic(optim.AdaGrad(0.1)),
    },
    promotion=promotion,
)
