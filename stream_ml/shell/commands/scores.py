"""Scores as a table, for every command that shows how models stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.shell.commands.output import NOTHING, aligned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FORMS", "scores_table"]

# By the form that the record has, what people call it.
FORMS = {"cumulative": "over everything", "windowed": "over the last 1,000"}


def scores_table(evaluations: Sequence[Mapping[str, Any]], form: str) -> str:
    """A line per model, a column per score.

    Args:
        evaluations: records of the topic `evaluations`.
        form: `cumulative`, `fading` or `windowed`.
    """
    names = list(dict.fromkeys(name for each in evaluations for name in each["scores"][form]))
    head = ["model", "version", "examples", "answered", *names]
    rows = [
        [
            each["model"],
            NOTHING if each["version"] == each["model"] else each["version"],
            f"{each['n']:,}",
            f"{each['coverage']:.1%}",
            *(_figure(each["scores"][form].get(name)) for name in names),
        ]
        for each in evaluations
    ]
    return aligned([head, *rows], right=range(2, len(head)))


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
