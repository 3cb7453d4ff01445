"""The label of a declaration: its type, and how long it may be waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.checks import are_categories, duration_problems, is_finite_number
from stream_ml.errors import Problem
from stream_ml.features import duration_text, parse_duration
from stream_ml.models.recipes import Target
from stream_ml.schema import FieldType, field_type, short_repr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.models.recipes import TaskKind

__all__ = ["Label", "fallback_answer", "label_problems", "label_texts", "target_of"]


@dataclass(frozen=True, slots=True)
class Label:
    """The truth: `bool`, an `Enum` of classes, or `float`.

    Args:
        type: what a label is.
        horizon: how long after its event a label may still be joined.
        fallback: what is served while the champion has no answer, or has not settled
            (`Promotion.settle`): a probability of True, a class, or a number. Default: one half,
            all classes alike, or 0, and nothing has to settle.
    """

    type: Any
    horizon: str | int
    fallback: Any = None


def target_of(label: FieldType) -> Target:
    """The target of the predictions, by the type of their labels.

    Raises:
        KeyError: labels cannot be of that type.
    """
    # A label that may be null is no truth, so an optional kind is none either; nor is what is
    # cut at a bound.
    kinds: dict[str, TaskKind] = {"bool": "binary", "enum": "multiclass", "float": "regression"}
    is_truth = not label.optional and label.range is None
    return Target(kinds[label.kind if is_truth else ""], label.categories)


def label_problems(label: object) -> tuple[Target | None, list[Problem]]:
    """The target, where that is clear, and the mistakes in the label."""
    if not isinstance(label, Label):
        return None, [Problem("label", 'Label(bool, horizon="1d")', short_repr(label))]
    problems = list(duration_problems("label.horizon", label.horizon))
    try:
        target = target_of(field_type(label.type))
    except (TypeError, KeyError):
        kind = label.type
        actual = kind.__name__ if isinstance(kind, type) else str(kind) if _is_type(kind) else None
        expected = "bool, Enum or float"
        return None, [*problems, Problem("label.type", expected, actual or short_repr(kind))]
    if target.kind == "multiclass" and not are_categories(target.classes, count_min=2):
        actual = f"Enum{short_repr(target.classes)}"
        return None, [*problems, Problem("label.type", "an Enum of two different strings", actual)]
    fallback = label.fallback
    if fallback is not None and not _is_fallback(fallback, target):
        expected_by_kind = {
            "binary": "a probability",
            "multiclass": f"one of {', '.join(target.classes)}",
            "regression": "a finite number",
        }
        problems.append(
            Problem("label.fallback", expected_by_kind[target.kind], short_repr(fallback))
        )
    return target, problems


def fallback_answer(label: Label, target: Target) -> Any:
    """The answer that is served while the champion has none."""
    fallback = label.fallback
    if target.kind == "multiclass":
        if fallback is not None:
            return {name: float(name == fallback) for name in target.classes}
        return dict.fromkeys(target.classes, 1 / len(target.classes))
    if fallback is not None:
        return float(fallback)
    return 0.5 if target.kind == "binary" else 0.0


def label_texts(label: Label, target: Target) -> Iterator[tuple[str, str]]:
    """The texts of the declaration by path."""
    yield "label.type", field_type(label.type).declaration()
    yield "label.horizon", duration_text(parse_duration(label.horizon))
    yield "label.fallback", repr(fallback_answer(label, target))


def _is_type(value: Any) -> bool:
    return isinstance(value, FieldType)


def _is_fallback(fallback: Any, target: Target) -> bool:
    if target.kind == "multiclass":
        return type(fallback) is str and fallback in target.classes
    if target.kind == "binary":  # True is as good a probability as 1
        return (is_finite_number(fallback) or type(fallback) is bool) and 0 <= fallback <= 1
    return is_finite_number(fallback)
