"""The label of a declaration: its type, and how long it may be waited for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.checks import are_categories, duration_problems
from stream_ml.errors import Problem
from stream_ml.features import duration_text, parse_duration
from stream_ml.models.recipes import Target
from stream_ml.schema import FieldType, field_type, is_finite_number, is_text, short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_ml.models.recipes import TaskKind

__all__ = ["Label", "fallback_answer", "label_problems", "label_texts", "target_of"]

# Of delays about as long as a window one in a thousand is longer than seven.
HORIZON_WINDOWS = 7


@dataclass(frozen=True, slots=True)
class Label:
    """The truth: `bool`, an `Enum` of classes, or `float`.

    Args:
        type: what a label is.
        horizon: how long after its event a label may still be joined. Default: seven windows.
        fallback: what is served while the champion has no answer, or has not settled
            (`Promotion.settle`): a probability of True, a class, or a number. Default: one half,
            all classes alike, or 0, and nothing has to settle.
        window: how long after its event a label is waited for before it counts as `absent`.
        absent: the label that silence means, such as False where there was no click. It is learned
            and scored as any, and a label that comes after it, within the horizon, corrects it.
        corrections: how long after the first label of an event another one may correct it: the
            last one on the log counts. None: the first one counts, and no other.
        relearn: whether what was corrected is learned again. (What comes in the place of an
            absent label is always learned, for it was not known before.)
        sources: by a label's `source`, from which share of its labels models learn, from 0 to 1;
            with 0 they do not count at all, as if they had not come. Default: all of all.
        trusted: the `source` whose labels those of others are compared with, where how far sources
            agree is shown; of no effect otherwise. None: with the last word of all others.
    """

    type: Any
    horizon: str | int | None = None
    fallback: Any = None
    window: str | int | None = None
    absent: Any = None
    corrections: str | int | None = None
    relearn: bool = False
    sources: Mapping[str, float] | None = None
    trusted: str | None = None

    @property
    def excluded_sources(self) -> frozenset[str]:
        """The sources whose labels do not count."""
        return frozenset(name for name, share in (self.sources or {}).items() if not share)

    @property
    def horizon_ms(self) -> int:
        """How long after its event a label may be joined, in milliseconds."""
        if self.horizon is not None:
            return parse_duration(self.horizon)
        return HORIZON_WINDOWS * parse_duration(self.window or 0)

    @property
    def window_ms(self) -> int | None:
        """After how long silence counts as a label, in milliseconds; None: it never does."""
        return None if self.window is None else parse_duration(self.window)

    @property
    def revisable_ms(self) -> int | None:
        """How long after its horizon a label may be corrected; None: none may, at any time."""
        is_revisable = self.window is not None or self.corrections is not None
        return self.corrections_ms if is_revisable else None

    @property
    def corrections_ms(self) -> int:
        """How long after the first label another one may correct it; 0: it may not."""
        return 0 if self.corrections is None else parse_duration(self.corrections)


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
    problems = list(_time_problems(label))
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
    problems += _absence_problems(label, target)
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


def _time_problems(label: Label) -> Iterator[Problem]:
    if label.horizon is not None or label.window is None:
        yield from duration_problems("label.horizon", label.horizon)
    for name in ("window", "corrections"):
        if getattr(label, name) is not None:
            yield from duration_problems(f"label.{name}", getattr(label, name))
    if type(label.relearn) is not bool:
        yield Problem("label.relearn", "True or False", short_repr(label.relearn))
    yield from _source_problems(label.sources)
    if label.trusted is not None and not is_text(label.trusted):
        yield Problem("label.trusted", "the name of a source", short_repr(label.trusted))


def _source_problems(sources: object) -> Iterator[Problem]:
    if sources is None:
        return
    if not isinstance(sources, Mapping):
        yield Problem(
            "label.sources", 'shares by source, as in {"survey": 0.2}', short_repr(sources)
        )
        return
    for name, share in sources.items():
        if not is_text(name):
            yield Problem("label.sources", "the name of a source", short_repr(name))
        elif not (is_finite_number(share) and 0 <= share <= 1):
            yield Problem(f"label.sources.{name}", "from 0 to 1", short_repr(share))


def _absence_problems(label: Label, target: Target) -> Iterator[Problem]:
    """The mistakes in what silence means."""
    window, absent = label.window, label.absent
    if absent is None:
        if window is not None:
            expected = "the label that silence means, such as False, beside a window"
            yield Problem("label.absent", expected, "None")
        return
    if window is None:
        expected = 'how long a label is waited for, such as "1d", beside `absent`'
        yield Problem("label.window", expected, "None")
    expected_by_kind = {
        "binary": "True or False",
        "multiclass": f"one of {', '.join(target.classes)}",
        "regression": "a finite number",
    }
    is_label_by_kind: dict[str, Callable[[Any], bool]] = {
        "binary": lambda value: type(value) is bool,
        "multiclass": lambda value: type(value) is str and value in target.classes,
        "regression": is_finite_number,
    }
    if not is_label_by_kind[target.kind](absent):
        yield Problem("label.absent", expected_by_kind[target.kind], short_repr(absent))
    with suppress(ValueError, TypeError):
        if label.horizon is not None and parse_duration(window or 0) > label.horizon_ms:
            yield Problem("label.window", "at most the horizon", short_repr(window))


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
    yield "label.horizon", duration_text(label.horizon_ms)
    yield "label.fallback", repr(fallback_answer(label, target))
    yield "label.window", _time_text(label.window)
    absent = label.absent
    is_number = target.kind == "regression" and absent is not None
    yield "label.absent", repr(float(absent) if is_number else absent)
    yield "label.corrections", _time_text(label.corrections)
    yield "label.relearn", str(label.relearn)
    shares = sorted((label.sources or {}).items())
    yield "label.sources", ", ".join(f"{n} {float(share)!r}" for n, share in shares) or "None"
    yield "label.trusted", str(label.trusted)


def _time_text(duration: str | int | None) -> str:
    return "None" if duration is None else duration_text(parse_duration(duration))


def _is_type(value: Any) -> bool:
    return isinstance(value, FieldType)


def _is_fallback(fallback: Any, target: Target) -> bool:
    if target.kind == "multiclass":
        return type(fallback) is str and fallback in target.classes
    if target.kind == "binary":  # True is as good a probability as 1
        return (is_finite_number(fallback) or type(fallback) is bool) and 0 <= fallback <= 1
    return is_finite_number(fallback)
