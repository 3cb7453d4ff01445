"""The world of the chaos runs as a user declares it; workers run `chaos.world:world`."""

from __future__ import annotations

import stream_ml as sml
from chaos import parameters

_short = f"{parameters.SHORT_MS // 1_000}s"
_long = f"{parameters.LONG_MS // 1_000}s"

world = sml.Pipeline(
    parameters.NAME,
    events=sml.Events(
        key="shop",
        fields={
            "kind": sml.Enum(*parameters.KINDS),
            "amount": sml.Optional[float],
            "city": sml.Enum(*parameters.CITIES),
        },
        lateness=parameters.LATENESS_MS,
        skew=parameters.SKEW_MS,
        breadth=parameters.BREADTH,
    ),
    predict=sml.when(kind=parameters.ASKING),
    features=[
        sml.field("amount", fill=0.0),
        sml.one_hot("city"),
        sml.window(_short).count(kind="order"),
        sml.window(_short).mean("amount", fill=0.0),
        sml.window(_long).mean("amount", fill=0.0),
        sml.window(_long).variance("amount", fill=0.0),
        sml.window(_short, by="city").count(),
        sml.window(_long).max("amount", fill=0.0),
    ],
    label=sml.Label(bool, horizon=parameters.HORIZON_MS),
    champion=parameters.CHAMPION,
    models=parameters.lines(),
    # So little is asked for that luck alone replaces and rolls back: switches are what is wanted.
    promotion=sml.Promotion(
        refresh=parameters.REFRESH,
        first=parameters.FIRST,
        block="20s",
        slots=2,
        alpha=0.5,
        maturity=0,
        guard_block="40s",
        divergence=1.0,
    ),
)
