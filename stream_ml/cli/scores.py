"""Scores and evidence as tables, for every command that shows how models stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.cli.colour import StyledText
from stream_ml.cli.tables import NO_VALUE, format_table
from stream_ml.shell.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.cli.colour import Style

__all__ = ["FORMS", "evidence_line", "evidence_table", "scores_table", "slices_table"]

# By the form that the record has, what people call it.
FORMS = {"cumulative": "over everything", "windowed": "over the last 1,000"}
VERDICT_STYLES: Mapping[str, Style] = {"promote": "good", "reject": "bad"}


def scores_table(evaluations: Sequence[Mapping[str, Any]], form: str) -> str:
    """A line per model, a column per score.

    Args:
        evaluations: records of the topic `evaluations`.
        form: `cumulative`, `fading` or `windowed`.
    """
    names = list(
        dict.fromkeys(name for evaluation in evaluations for name in evaluation["scores"][form])
    )
    head = ["model", "version", "examples", "answered", *names]
    rows = [
        [
            evaluation["model"],
            NO_VALUE if evaluation["version"] == evaluation["model"] else evaluation["version"],
            f"{evaluation['n']:,}",
            f"{evaluation['coverage']:.1%}",
            *(_figure(evaluation["scores"][form].get(name)) for name in names),
        ]
        for evaluation in evaluations
    ]
    return format_table(rows, head=head, right=range(2, len(head)))


def slices_table(evaluations: Sequence[Mapping[str, Any]]) -> str | None:
    """A line per slice, a column per model with its loss; None where no slice is scored.

    Args:
        evaluations: records of the topic `evaluations`.
    """
    sliced = {each["model"]: each["slices"] for each in evaluations if each.get("slices")}
    names = sorted({name for slices in sliced.values() for name in slices})
    if not names:
        return None
    rows = []
    for name in names:
        parts = [slices.get(name) for slices in sliced.values()]
        examples = max(part["n"] for part in parts if part)
        rows.append([printable(name), f"{examples:,}", *map(_slice_loss, parts)])
    head = ["slice", "examples", *sliced]
    return format_table(rows, head=head, right=range(1, len(head)))


def _slice_loss(part: Mapping[str, Any] | None) -> str:
    scores = {} if part is None else part["scores"]["fading"]
    return _figure(scores.get("brier", scores.get("mae")))


def evidence_table(evaluations: Sequence[Mapping[str, Any]]) -> str | None:
    """A line per challenger: what speaks for it; None where nothing challenges.

    Args:
        evaluations: records of the topic `evaluations`.
    """
    challengers = [evaluation for evaluation in evaluations if evaluation.get("evidence")]
    if not challengers:
        return None
    head = ["challenger", "blocks won", "lost", "tied", "thin", "E", "needed", "gain", "95 %"]
    head.append("verdict")
    rows = [[evaluation["model"], *_evidence(evaluation["evidence"])] for evaluation in challengers]
    return format_table(rows, head=head, right=range(1, len(head)))


def _evidence(evidence: Mapping[str, Any]) -> list[str]:
    low, high = evidence["gain_low"], evidence["gain_high"]
    interval = NO_VALUE if low is None or high is None else f"{low:.4f} to {high:.4f}"
    return [
        *(f"{evidence[name]:,}" for name in ("wins", "losses", "ties", "thin")),
        f"{evidence['e_value']:.3g}",
        f"{evidence['needed']:.3g}",
        _figure(evidence["gain"]),
        interval,
        _verdict(evidence),
    ]


def _verdict(evidence: Mapping[str, Any]) -> str:
    """What is to be done with a challenger, and why; records of former releases do not say."""
    kind, reason = evidence.get("verdict"), evidence.get("verdict_reason")
    if kind is None:
        return NO_VALUE
    return StyledText(printable(f"{kind}: {reason}"), VERDICT_STYLES.get(kind, "faint"))


def evidence_line(evidence: Mapping[str, Any] | None) -> str:
    """What a decision rested on, in a line.

    >>> evidence_line({"wins": 9, "losses": 0, "e_value": 102.3, "needed": 60.0, "gain": 0.01})
    '9 blocks won, 0 lost: E 102 of 60; gain 0.0100 per example'
    """
    if not evidence:
        return "none"
    if "e_value" not in evidence:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in evidence.items())
    gain, low, high = (evidence.get(name) for name in ("gain", "gain_low", "gain_high"))
    effect = "" if gain is None else f"; gain {gain:.4f} per example"
    interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
    return (
        f"{evidence['wins']} blocks won, {evidence['losses']} lost: E {evidence['e_value']:.3g} of "
        f"{evidence['needed']:.3g}{effect}{interval}"
    )


def _figure(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.4f}"
