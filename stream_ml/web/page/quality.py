"""What the page says of how good answers are: what they meant, by block of time, and by slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.web.page.charts import Chart, Curve, pictures
from stream_ml.web.page.contents import LOSSES, main_loss, styles
from stream_ml.web.page.phrases import figure
from stream_ml.web.page.recent import SERVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.web.board import BoardSnapshot
    from stream_ml.web.page.recent import Recent

__all__ = ["blocks", "calibration", "slices"]

SLICE = "slice "
SLICES_MAX = 40
WORDS = {
    "binary": ("mean answer", "share that was true"),
    "multiclass": ("mean answer", "share that was right"),
    "regression": ("mean answer", "mean of the truth"),
}


def calibration(recent: Recent, pipeline: Pipeline) -> dict[str, Any]:
    """Whether answers mean what they say, by tenths of the last labelled examples.

    Args:
        recent: single predictions, and what they meant.
        pipeline: the declaration.
    """
    found = recent.calibration or {}
    points = {name: found[name] for name in (SERVED, *pipeline.models) if name in found}
    served, rank = points.get(SERVED, ()), styles(pipeline)
    within = sum(each.low <= each.answer <= each.high for each in served)
    along, unit = WORDS[pipeline.target.kind]
    chart = Chart(
        "calibration",
        "What answers meant",
        f"Of {len(served)} groups of answers of what serves, {within} lie beside the diagonal.",
        [
            Curve(
                name,
                rank.get(name, 0),
                [(each.answer, each.truth) for each in of],
                [(each.low, each.high) for each in of] if name == SERVED else (),
            )
            for name, of in points.items()
        ],
        unit=unit,
        along=along,
    )
    return {
        "svg": pictures(chart) if served else "",
        "points": points,
        "within": within,
        "groups": len(served),
        "number": recent.calibrated,
        "along": along,
        "unit": unit,
    }


def blocks(snapshot: BoardSnapshot, pipeline: Pipeline) -> dict[str, Any]:
    """The loss of each model in the last blocks of time, with what is usual.

    Args:
        snapshot: of the views.
        pipeline: the declaration.
    """
    usual, *last = snapshot.status.blocks or ({"start": None, "scores": {}},)
    present = {name for block in last for name in block["scores"]}
    names = [n for n in (SERVED, *pipeline.models) if n in present]
    names += sorted(n for n in present - {*names} if not n.startswith(SLICE))
    loss = _loss_of(block["scores"].get(name) for block in last for name in names)
    rows = [
        {
            "start": block["start"],
            "n": (block["scores"].get(SERVED) or {}).get("n"),
            "cells": _cells([_value(block["scores"].get(name), loss) for name in names]),
        }
        for block in (*reversed(last), usual)
    ]
    return {
        "names": names,
        "rows": rows if last else [],
        "loss_name": LOSSES[loss] if loss else "loss",
    }


def slices(snapshot: BoardSnapshot, pipeline: Pipeline) -> dict[str, Any]:
    """The loss of what serves and of each challenger by declared slice.

    Args:
        snapshot: of the views.
        pipeline: the declaration.
    """
    parts = {each["model"]: each.get("slices") or {} for each in snapshot.status.models}
    newest = snapshot.status.registry.newest
    challengers = () if newest is None else newest.serving.challengers
    names = [n for n in (SERVED, *challengers) if parts.get(n)]
    served = parts.get(SERVED, {})
    loss = _loss_of(part["scores"]["fading"] for part in served.values())
    rows = [
        {
            "slice": name,
            "n": served[name]["n"],
            "cells": _cells(
                [
                    _value((parts[line].get(name) or {}).get("scores", {}).get("fading"), loss)
                    for line in names
                ]
            ),
        }
        for name in sorted(served)[:SLICES_MAX]
    ]
    return {
        "names": names,
        "rows": rows,
        "hidden": max(0, len(served) - SLICES_MAX),
        "is_declared": bool(pipeline.slices),
        "loss_name": LOSSES[loss] if loss else "loss",
    }


def _loss_of(scores: Iterable[Mapping[str, Any] | None]) -> str | None:
    return next((name for each in scores if each and (name := main_loss(each)) is not None), None)


def _value(scores: Mapping[str, Any] | None, loss: str | None) -> float | None:
    value = None if scores is None or loss is None else scores.get(loss)
    return float(value) if isinstance(value, int | float) else None


def _cells(values: Sequence[float | None]) -> list[tuple[str, bool]]:
    """Each value as text, and whether it is the least of them."""
    known = [value for value in values if value is not None]
    least = min(known) if len(known) > 1 else None
    return [(figure(value), value is not None and value == least) for value in values]
