"""What a finding is, in words: for alerts, and for who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.monitoring.watch import Finding

__all__ = ["column_message", "group_message", "move_phrase", "sign_phrase"]

# So many columns of a group are told of with their figures.
TOLD_MAX = 3
_NAMES = {
    "label": "the label",
    "label_delay": "the time that labels take",
    "answer": "the champion's answer",
}


def sign_phrase(column: str) -> str:
    """A column as people say it.

    >>> sign_phrase("field:amount"), sign_phrase("label")
    ('the field amount', 'the label')
    """
    kind, _, name = column.partition(":")
    return f"the {kind.replace('_', ' of ')} {name}" if name else _NAMES.get(kind, kind)


def column_message(finding: Finding) -> str:
    """What has moved, in a sentence with its figures.

    Args:
        finding: what a block or a day has said.
    """
    now, usual = finding.figures["now"], finding.figures["usual"]
    name = sign_phrase(finding.column)
    if finding.sign == "frozen":
        return f"{name} stands still: {_value(now)} in all {now['values']} values of a block"
    if finding.sign == "missing" or finding.figures.get("of") == "missing":
        return (
            f"{name} is missing in {now['missing']:.0%} of the records of a {finding.horizon}, "
            f"usually in {usual['missing']:.1%}"
        )
    if finding.sign == "units":
        return (
            f"{name} is {_times(finding.figures['factor'])} as usual, in the same shape: "
            f"{move_phrase(now, usual)}; another unit?"
        )
    if finding.sign == "category":
        return (
            f"{name} has a category that never came before: {finding.figures['category']!r}, in "
            f"{finding.distance:.0%} of the values of a block"
        )
    moved = f"{name} has moved by {finding.distance:.2f} of 1 in a {finding.horizon}"
    return f"{moved}: {move_phrase(now, usual)}"


def group_message(findings: Sequence[Finding]) -> str:
    """What has moved in the same block, in a sentence: the first with figures, the others by name.

    Args:
        findings: of one kind, one at least.
    """
    if len(findings) == 1:
        return column_message(findings[0])
    # What is furthest off is told first.
    ordered = sorted(findings, key=lambda each: (-each.distance, each.column))
    text = "; ".join(column_message(each) for each in ordered[:TOLD_MAX])
    others = ", ".join(each.column.partition(":")[2] for each in ordered[TOLD_MAX:])
    end = f"; and {others}" if others else ""
    return f"{len(findings)} columns have moved: {text}{end}"


def _times(factor: float) -> str:
    """A factor as people say it.

    >>> _times(100.2), _times(0.0250488)
    ('100 times as large', '39.9 times as small')
    """
    return f"{factor:.3g} times as large" if factor >= 1 else f"{1 / factor:.3g} times as small"


def _value(now: dict[str, Any]) -> str:
    return f"{now['low']:g}" if "low" in now else repr(next(iter(now.get("shares", {})), None))


def move_phrase(now: dict[str, Any], usual: dict[str, Any]) -> str:
    """Where a column has moved, and where it is usually.

    >>> move_phrase({"p50": 5.0}, {"p50": 51.0})
    'median 5, usually 51'

    Args:
        now: figures of a block or a day.
        usual: of the weeks before.
    """
    if "p50" in now and "p50" in usual:
        return f"median {now['p50']:.4g}, usually {usual['p50']:.4g}"
    shares, usual_shares = now.get("shares", {}), usual.get("shares", {})
    changes = sorted(
        {*shares, *usual_shares},
        key=lambda name: -abs(shares.get(name, 0.0) - usual_shares.get(name, 0.0)),
    )
    return ", ".join(
        f"{name} {shares.get(name, 0.0):.1%}, usually {usual_shares.get(name, 0.0):.1%}"
        for name in changes[:2]
    )
