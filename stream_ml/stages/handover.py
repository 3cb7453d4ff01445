"""From one generation of features to the next: what runs on, what begins anew, and what cannot be.

Theory of operation:

1. What serves goes on as it is until another line has won. So its features must still be declared,
   as they were, and so must its estimator: it is computed and taught with exactly these.
2. All declared lines begin anew, under a name with the number of the generation. Only where what
   serves knows exactly the features that are declared now (a change was taken back, or has won) it
   is the declared line itself.
3. Other lines of former generations learn no more, as lines that are declared no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from stream_ml.errors import UsageError
from stream_ml.generation import FormerLine, Generation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.pipeline import Pipeline

__all__ = ["features_differ", "next_generation"]

_FEATURES = "features."


def features_differ(former: Mapping[str, str], pipeline: Pipeline) -> bool:
    """Whether other features are declared than those that the state of a log was made with.

    Args:
        former: the declaration that the state was made under; empty where it is not known.
        pipeline: the declaration of today.
    """
    old = {path: text for path, text in former.items() if path.startswith(_FEATURES)}
    new = {path: text for path, text in pipeline.declaration().items() if path in old}
    names = former.get("features", "")
    return bool(old) and (old != new or names != pipeline.declaration()["features"])


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
        current: the generation that runs.
        champion_line: the line that serves, by the name that it runs under.
        offsets: by partition of events, the next offset to predict on.

    Raises:
        UsageError: what serves cannot go on under this declaration.
    """
    former_names = _former_names(former)
    declared_names = {running: declared for declared, running in current.names.items()}
    line = next((line for line in current.former if line.name == champion_line), None)
    if line is None:
        declared = declared_names.get(champion_line, champion_line)
        line = FormerLine(champion_line, declared, former_names)
    _check(pipeline, former, line)
    number = current.number + 1
    names = {name: f"{name}.{number}" for name in pipeline.models}
    former_lines: tuple[FormerLine, ...] = (line,)
    if line.features == pipeline.feature_set.names:
        names[line.declared] = line.name
        former_lines = ()
    views = dict.fromkeys((*current.views, former_names))
    return Generation(
        number, pipeline.feature_set.hash, names, former_lines, tuple(views), dict(offsets)
    )


def _former_names(former: Mapping[str, str]) -> tuple[str, ...]:
    texts = [text for path, text in former.items() if path.startswith(_FEATURES)]
    return tuple(name for text in texts for name in orjson.loads(text)[0])


def _check(pipeline: Pipeline, former: Mapping[str, str], line: FormerLine) -> None:
    """Make sure that what serves can go on."""
    present = pipeline.declaration()
    changed = [
        path
        for path, text in former.items()
        if path.startswith(_FEATURES)
        and present.get(path) != text
        and set(orjson.loads(text)[0]) & set(line.features)
    ]
    if changed:
        raise UsageError(
            f"expected the features that the line {line.name!r} knows, which serves, given a "
            f"declaration in which {', '.join(changed)} is another or missing: leave it as it was "
            "until a line without it serves, and declare what is new beside it, under another name"
        )
    path = f"models.{line.declared}"
    if present.get(path) != former.get(path):
        raise UsageError(
            f"{path}: expected the recipe of the line {line.name!r}, which serves, "
            f"{former.get(path)}, given {present.get(path)}: leave it as it was until another "
            "line serves"
        )
