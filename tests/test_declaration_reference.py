"""The declaration reference has every argument, with its default, and no other."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import stream_ml as sml
from stream_ml.features import Window

PAGE = (Path(__file__).parents[1] / "docs" / "declaration.md").read_text(encoding="utf-8")
DECLARED = {"Pipeline": sml.Pipeline, "Events": sml.Events, "Label": sml.Label}
DECLARED |= {"Promotion": sml.Promotion, "Monitors": sml.Monitors}
DECLARED |= {"Alerts": sml.Alerts, "Route": sml.Route}
DECLARED |= {"Files": sml.Files, "Task": sml.Task}


def _section(title: str) -> str:
    found = re.search(rf"^##+ {title}\n(.*?)(?=^##? |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def _rows(text: str) -> list[list[str]]:
    """The cells of each row of a table whose first cell is code."""
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{str(field.type).partition(' |')[0]}()`"
    return "required"


@pytest.mark.parametrize("name", DECLARED)
def test_every_argument_is_there_with_its_default(name: str) -> None:
    """Whoever declares finds each argument in its order, and what it is unless set."""
    rows = _rows(_section(name).partition("\n### ")[0])

    declared = [(f"`{f.name}`", _default(f)) for f in dataclasses.fields(DECLARED[name])]
    assert declared == [(row[0], row[2]) for row in rows]
    assert all(row[3] for row in rows)


def _signature(function: Any) -> str:
    """A function's name and parameters, without types and without `self`."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    ]
    shown = str(inspect.Signature(parameters))
    return f"{function.__name__}{shown}"


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


# What is explained once, above the tables.
EXPLAINED = {"source", "fill", "x", "filters", "by", "entity"}


# Those of the package's words that make a feature, or a window to take one of.
FEATURES = [
    each
    for each in (getattr(sml, name) for name in sml.__all__)
    if inspect.isfunction(each)
    and inspect.signature(each).return_annotation in {"Feature", "Scalar", "Window"}
]


@pytest.mark.parametrize("feature", FEATURES, ids=[each.__name__ for each in FEATURES])
def test_every_feature_is_there_with_its_arguments(feature: Any) -> None:
    """Each is shown as it is called, and each of its arguments is told of."""
    if feature is sml.window:
        told = PAGE[PAGE.index(f"`{_signature(feature)}`") :].partition("```")[0]
    else:
        rows = {row[0]: row[1] for row in _rows(PAGE)}
        told = rows[f"`{_signature(feature)}`"]

    words = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]*`", told))))
    assert set() == _parameters(feature) - words - EXPLAINED


def test_the_words_that_make_features_are_known() -> None:
    """The list above is of all of them: a feature under another type would not be looked for."""
    assert {"field", "one_hot", "clip", "hour_of_day", "function", "window"} <= {
        each.__name__ for each in FEATURES
    }


def test_every_aggregate_is_there_with_its_arguments() -> None:
    """Each method of a window is a row, in the order of the code."""
    methods = [each for name, each in vars(Window).items() if inspect.isfunction(each)]
    public = [each for each in methods if not each.__name__.startswith("_")]
    table = _section("Of a window")

    assert [f"`{_signature(each)}`" for each in public] == [row[0] for row in _rows(table)]
    for each in public:
        row = next(row for row in _rows(table) if row[0] == f"`{_signature(each)}`")
        words = set(re.findall(r"\w+", " ".join(row[1:])))
        assert set() == _parameters(each) - words - EXPLAINED, row


def test_what_is_explained_once_is_explained() -> None:
    """The names that rows leave out stand above them."""
    above = _section("Features").partition("| feature |")[0]
    above += _section("Of a window").partition("| aggregate |")[0]

    assert EXPLAINED <= set(re.findall(r"`\*{0,2}(\w+)`", above))
