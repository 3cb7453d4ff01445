"""From one generation of features to the next: what runs on, what begins anew, and what cannot be.

Theory of operation:

1. What serves goes on as it is until another line has won. So its features must still be declared,
   as they were, and so must its estimator: it is computed and taught with exactly these.
2. All declared lines begin anew, under a name with the number of the generation. Only where what
   serves knows exactly the features that are declared now (a change was taken back, or has won) it
   is the declared line itself.
3. Other lines of former generations learn no more, as lines that are declared no more.
4. Where only what is retired is another, no line begins anew: so their recipes stay as they were.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from stream_ml.errors import UsageError
from stream_ml.generation import FormerLine, Generation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.pipeline import Pipeline

__all__ = ["features_changed", "features_differ", "has_delay", "is_applied", "next_generation"]

_FEATURES, _RETIRED, _CLASSES = "features.", "retired.", "classes."
_APPLIED_PATHS = ("features", _RETIRED)
# As a window describes it.
_DELAY = re.compile(r'\["delay",\d+\]')


def features_differ(former: Mapping[str, str], pipeline: Pipeline) -> bool:
    """Whether other features are declared than those that the state of a log was made with.

    Args:
        former: the declaration that the state was made under; empty where it is not known.
        pipeline: the declaration of today.
    """
    present = pipeline.declaration()
    return features_changed(former, pipeline) or (
        bool(former) and [*_texts(former, _RETIRED).items()] != [*_texts(present, _RETIRED).items()]
    )


def features_changed(former: Mapping[str, str], pipeline: Pipeline) -> bool:
    """As `features_differ`, of those that lines know which begin now: without what is retired.

    Args:
        former: see `features_differ`.
        pipeline: see `features_differ`.
    """
    present = _texts(pipeline.declaration(), _FEATURES)
    return bool(former) and [*_texts(former, _FEATURES).items()] != [*present.items()]


def has_delay(declaration: Mapping[str, str]) -> bool:
    """Whether windows of entities are over all partitions, and predictions wait for them.

    Args:
        declaration: text by path.
    """
    return any(
        path.startswith((_FEATURES, _RETIRED)) and _DELAY.search(text)
        for path, text in declaration.items()
    )


def is_applied(judged: Mapping[str, str], pipeline: Pipeline) -> bool:
    """Whether the features are those that a decision has begun.

    Lines may have been changed since: those that are not as they were judged go by the rules that
    hold for every start (`stream_ml.differences.as_applied`).

    Args:
        judged: the declaration that evaluate's state was made under, which the decision goes with;
            empty where it is not known.
        pipeline: the declaration of today, as it runs.
    """
    present = pipeline.declaration()
    return pipeline.generation.number > 1 and all(
        judged.get(path) == present.get(path)
        for path in (*judged, *present)
        if path.startswith(_APPLIED_PATHS)
    )


def next_generation(
    pipeline: Pipeline,
    former: Mapping[str, str],
    current: Generation,
    champion_line: str,
    offsets: Mapping[int, int],
) -> Generation:
    """The generation that begins with other features.

    Args:
        pipeline: the declaration of today.
        former: the one that the state of the log was made under: text by path.
        current: the generation that runs, as the former declaration ran in it.
        champion_line: the line that serves, by the name that it runs under.
        offsets: by partition of events, the next offset to predict on.

    Raises:
        UsageError: what serves cannot go on under this declaration.
    """
    present = pipeline.declaration()
    former_texts = _texts(former, _FEATURES)
    former_names = tuple(name for text in former_texts.values() for name in _names(text))
    champion = next((line for line in current.former if line.name == champion_line), None)
    is_former_version = champion_line not in pipeline.running_as(current).recipes
    if champion is None:
        champion = FormerLine(champion_line, current.declared(champion_line), former_names)
        is_former_version |= champion_line != current.names.get(champion.declared, champion_line)
    if is_former_version:
        raise UsageError(
            f"expected a line to serve that is declared, given {champion_line!r}, a former version "
            "of one: promote another line before features are changed"
        )
    _check(pipeline, former, champion)
    number = current.next_number
    if former_texts == _texts(present, _FEATURES):  # what is retired alone is another
        _check_recipes(present, former)
        going_on = tuple(line for line in current.former if not _changed(pipeline, former, line))
        return replace(current, number=number, former=going_on)
    names = {name: f"{name}.{number}" for name in pipeline.models}
    former_lines: tuple[FormerLine, ...] = (champion,)
    if champion.features == pipeline.feature_set.view.names:
        names[champion.declared] = champion.name
        former_lines = ()
    views = dict.fromkeys((*current.views, former_names))
    return Generation(
        number, pipeline.feature_set.hash, names, former_lines, tuple(views), dict(offsets)
    )


def _texts(declaration: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The features of a declaration, by name, in their order."""
    return {
        path.removeprefix(prefix): text
        for path, text in declaration.items()
        if path.startswith(prefix)
    }


def _names(text: str) -> list[str]:
    """The names of the numbers that a feature gives."""
    names: list[str] = orjson.loads(text)[0]
    return names


def _changed(pipeline: Pipeline, former: Mapping[str, str], line: FormerLine) -> list[str]:
    """The features that a line knows and that are not computed any more as they were."""
    present = pipeline.declaration()
    computed = {*_texts(present, _FEATURES).values(), *_texts(present, _RETIRED).values()}
    known = {**_texts(former, _RETIRED), **_texts(former, _FEATURES)}
    return [
        name
        for name, text in known.items()
        if text not in computed and set(_names(text)) & set(line.features)
    ]


def _check(pipeline: Pipeline, former: Mapping[str, str], line: FormerLine) -> None:
    """Make sure that what serves can go on."""
    if changed := _changed(pipeline, former, line):
        raise UsageError(
            f"expected the features that the line {line.name!r} knows, which serves, given a "
            f"declaration without {', '.join(changed)}, or with others of that name: until a line "
            "that does not know them serves, declare them as they were under `retired`, and what "
            "takes their place under other names"
        )
    present = pipeline.declaration()
    former = _with_classes(former, present)
    for path in (f"models.{line.declared}", f"{_CLASSES}{line.declared}"):
        if present.get(path) != former.get(path):
            raise UsageError(
                f"{path}: expected the recipe of the line {line.name!r}, which serves, "
                f"{former.get(path)}, given {present.get(path)}: leave it as it was until another "
                "line serves"
            )


def _with_classes(former: Mapping[str, str], present: Mapping[str, str]) -> Mapping[str, str]:
    """A declaration with the classes of its lines, where a former release did not say whose.

    Args:
        former: it, text by path.
        present: the declaration of today, which says so of those that learn no others.
    """
    paths = [path for path in present if path.startswith(_CLASSES)]
    return {**dict.fromkeys(paths, former.get("label.type", "")), **former}


def _check_recipes(present: Mapping[str, str], former: Mapping[str, str]) -> None:
    """Make sure that lines which do not begin anew are declared as they were."""
    former = _with_classes(former, present)
    changed = [
        path
        for path, text in former.items()
        if path.startswith(("models.", "libraries.", _CLASSES)) and present.get(path, text) != text
    ]
    if changed:
        path = changed[0]
        raise UsageError(
            f"{', '.join(changed)}: expected recipes as they were, since no line begins anew where "
            f"only `retired` is another, given {present[path]} for {path}, in the place of "
            f"{former[path]}: apply this change of `retired` first, with the recipes as they were, "
            "and then the recipes by themselves"
        )
