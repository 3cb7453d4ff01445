"""Whether an estimator copes with features that may be missing: tried out, at declaration.

A feature without a value is left out of the dict (see `stream_ml.features.transforms`). Most of
river's estimators take that as it comes; some raise at the first such example (`StatImputer`, which
is there for missing values, looks for a None), and their line would be quarantined by one event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import STOPS, Problem, brief_error
from stream_ml.features.sparse import trial_names
from stream_ml.models.recipes import answer, learn
from stream_ml.models.retrained import Retrained, trial

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stream_ml.models.recipes import Recipe, Target
    from stream_ml.records import LabelValue

__all__ = ["misses"]

ROUNDS = 3
# One at a time are left out of so many features at most: what fails, fails at the first.
ALONE_MAX = 8
NAMED_MAX = 3


def misses(
    recipe: Recipe, target: Target, names: Sequence[str], missing: Collection[str], path: str
) -> list[Problem]:
    """What is wrong with a recipe where some features may be missing.

    Args:
        recipe: it has passed its own checks.
        target: what it is for.
        names: of all features.
        missing: of those that may be missing.
        path: where the recipe is declared.
    """
    if not missing:
        return []
    names, missing = trial_names(names), trial_names(sorted(missing))
    missing_names = list(missing)
    gaps: list[Collection[str]] = [missing, *((name,) for name in missing_names[:ALONE_MAX])]
    # What fails on complete examples too (made up as they are) fails for another reason.
    if _failure(recipe, target, names, [()] * len(gaps)) is not None:
        return []
    for order in (gaps, [*([()] * ROUNDS), *gaps, ()]):
        failure = _failure(recipe, target, names, order)
        if failure is not None:
            examples = ", ".join(missing_names[:NAMED_MAX]) + (
                ", ..." if len(missing_names) > NAMED_MAX else ""
            )
            expected = (
                f"an estimator that copes with a feature that is missing, as {examples} may be; "
                "or give each of these a `fill`"
            )
            return [Problem(path, expected, f"one that raises {failure}")]
    return []


def _failure(
    recipe: Recipe, target: Target, names: Sequence[str], gaps: Sequence[Collection[str]]
) -> str | None:
    """What a fresh learner raises where these features are left out, an example each; or None."""
    examples = [
        (
            {
                name: float((number + 2 * index) % 5)
                for index, name in enumerate(names)
                if name not in gap
            },
            _label(target, number),
        )
        for number, gap in enumerate(gaps)
    ]
    try:
        learner = recipe.fresh()
        if isinstance(learner, Retrained):
            learner.load(trial(learner, target, examples))
        for features, label in examples:
            answer(learner, target, features)
            if not isinstance(learner, Retrained):
                learn(learner, target, features, label)
    except STOPS:
        raise
    except BaseException as error:  # noqa: BLE001 - an estimator may raise anything
        return brief_error(error)
    return None


def _label(target: Target, number: int) -> LabelValue:
    if target.kind == "binary":
        return number % 2 == 0
    if target.kind == "multiclass":
        return target.classes[number % len(target.classes)]
    return float(number % 3)
