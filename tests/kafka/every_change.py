"""A shop, and all that can be changed of it: in one declaration what is taken up, in one the rest.

Left out is what cannot be beside others (another name, another cut into tasks), or is of another
shop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from river import linear_model, optim, preprocessing, tree

import stream_ml as sml
from tests.shop import declare, shop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["changed", "former", "refused"]


def doubled(amount: float) -> float:
    """A user's function."""
    return 2 * amount


def tripled(amount: float) -> float:
    """Another."""
    return 3 * amount


def own(function: Callable[[float], float], version: int = 1) -> list[Any]:
    """Features of a user's own."""
    numbered = sml.function(function, "amount", name="f", version=version)
    summed = sml.window("1h").sum(sml.function(function, "amount", name="g"))
    return [*shop.features, numbered, summed.named("sum(f) 1h")]


former = declare(
    events=replace(
        shop.events, fields={**shop.events.fields, "note": str, "amount": sml.Range(0, 1e6)}
    ),
    features=own(doubled),
    retired=[sml.hour_of_day()],
    slices=[sml.Slice("a", kind="order"), sml.slice_by("kind"), sml.Slice("b", kind="visit")],
    alerts=sml.Alerts((sml.Route("night", command=["true"]),)),
    files=sml.Files(label_time="known_at"),
)
changed = replace(
    former,
    events=replace(
        former.events,
        lateness="30s",
        fields={
            "kind": sml.Enum("visit", "order", "gift"),
            "amount": sml.Range(0, 2e6, outside="clipped"),
            "note": sml.Optional[str],
            "colour": sml.Optional[str],
        },
    ),
    predict=None,
    features=own(tripled),
    label=replace(shop.label, horizon="50s", fallback=0.1),
    models={**former.models, "tree": tree.HoeffdingTreeClassifier(max_depth=2)},
    champion="bayes",
    promotion=sml.Promotion(
        mode="manual",
        refresh=10,
        alpha=0.01,
        block=50,
        slots=6,
        coverage_min=0.5,
        renewal=None,
        gain_min=0.1,
        block_pairs_min=9,
        maturity="1h",
        rollback_loss=0.5,
        guard_block="2d",
        on_harm="fall back",
        on_fault="pause",
        on_failure="restart",
        refusals=2,
        divergence=1.0,
        settle=5,
        on_change="alert",
        first=40,
        slice_margin=0.5,
    ),
    slices=[sml.slice_by("kind", top=1), sml.Slice("b", kind="visit")],
    alerts=sml.Alerts((sml.Route("oncall", command=["true"]),)),
    files=sml.Files("iso", "UTC", ";", "truth", None, "1h", "all", row_ids=True),
    monitors=sml.Monitors(block="10m"),
    pending_max=500,
    keep=3,
)
refused = replace(
    former,
    events=replace(
        former.events,
        key="note_id",
        id="number",
        lateness="10s",
        skew="6m",
        breadth=3,
        idle="2h",
        fields={**former.events.fields, "kind": sml.Enum("order", "visit"), "note": int},
    ),
    features=[*own(doubled, 2)[:2], *own(doubled, 2)[3:], sml.hour_of_day()],
    retired=[shop.features[2]],
    label=sml.Label(sml.Enum("a", "b"), horizon="30s"),
    models={
        **former.models,
        "bayes": preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(1)),
    },
    slices=[sml.Slice("a", kind="visit"), *former.slices[1:]],
    window_events_max=9,
)
