"""Names that have moved answer for one release, with a warning that says where they are now."""

from __future__ import annotations

import importlib

import pytest

from stream_ml import client
from stream_ml.cli import main
from stream_ml.shell.embedded import runner
from stream_ml.shell.log import sqlite

MOVED = [
    ("stream_ml.shell.client", "Publisher", "stream_ml.client", "Publisher", client.Publisher),
    ("stream_ml.shell.client", "ask", "stream_ml.client", "command", client.command),
    ("stream_ml.shell.client", "connect", "stream_ml.client", "connect", client.connect),
    ("stream_ml.shell.client", "open_log", "stream_ml.client", "open_log", client.open_log),
    (
        "stream_ml.shell.client",
        "predictions",
        "stream_ml.client",
        "predictions",
        client.predictions,
    ),
    ("stream_ml.shell.client", "read_on", "stream_ml.client", "read_batches", client.read_batches),
    (
        "stream_ml.shell.runner",
        "Runner",
        "stream_ml.shell.embedded.runner",
        "Runner",
        runner.Runner,
    ),
    (
        "stream_ml.shell.sqlite_log",
        "SqliteLog",
        "stream_ml.shell.log.sqlite",
        "SqliteLog",
        sqlite.SqliteLog,
    ),
    ("stream_ml.shell.cli", "main", "stream_ml.cli.main", "main", main.main),
    ("stream_ml.shell.cli", "parser", "stream_ml.cli.main", "parser", main.parser),
]


@pytest.mark.parametrize(("former", "name", "present", "new_name", "value"), MOVED)
def test_a_former_name_answers_and_names_the_new_one(
    former: str, name: str, present: str, new_name: str, value: object
) -> None:
    """Code of the last release goes on, and is told once more what to write instead."""
    with pytest.warns(
        DeprecationWarning, match=rf"^{former}\.{name} is now {present}\.{new_name};"
    ):
        found = getattr(importlib.import_module(former), name)

    assert value is found


def test_what_never_was_there_is_not_there_now() -> None:
    """A misspelt name of a former module fails as in any module."""
    former = importlib.import_module("stream_ml.shell.client")

    with pytest.raises(
        AttributeError, match=r"'stream_ml\.shell\.client' has no attribute 'prediction'"
    ):
        _ = former.prediction
