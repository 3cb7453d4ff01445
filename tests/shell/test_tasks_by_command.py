"""Commands about one of a pipeline's tasks, by `--task`: each tells of that one alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from river import naive_bayes

import stream_ml as sml
from stream_ml.errors import UsageError
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from tests.shop import stream, two_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

SHOP = ("--pipeline", "tests.shop:two_tasks")
WIDER = ("--pipeline", f"{__name__}:wider")
EVENT_ID = stream(count=110)[1][0]["event_id"]
wider = replace(two_tasks, features=[*two_tasks.features, sml.window("2m").count()])
more_lines = replace(
    two_tasks,
    tasks=[
        replace(two_tasks.tasks[0], models={"naive": naive_bayes.GaussianNB()}, champion="naive")
    ],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with an event and a label of the second task that are none."""
    path = tmp_path / "log.sqlite"
    events, labels = stream(count=110)
    refunds = [label | {"ts": label["ts"] + 2_000, "label": True} for label in labels[::5]]
    key = Settings().signing_key(str(path))
    for task, lines in ((None, labels), ("refund", refunds)):
        with SqliteLog.open_or_create(path, task=task) as log:
            log.append([Output("labels", b"e", orjson.dumps(line)) for line in lines])
            if task is None:
                log.append([Output("events", b"a", orjson.dumps(event)) for event in events])
                log.append([Output("events", b"a", b'{"broken"')])
            else:
                log.append([Output("labels", b"e", b'{"broken"')])
    for task, pipeline in ((None, two_tasks), *two_tasks.task_pipelines.items()):
        with SqliteLog.open(path, task=task) as log, Runner(log, pipeline, key) as runner:
            runner.run()
    return path


def test_each_command_tells_of_the_task_that_is_named(cli: Cli, path: Path, tmp_path: Path) -> None:
    """Its lines, labels, dead letters and decisions; nothing of the pipeline's own."""
    log = ("--broker", f"sqlite:{path}", "--task", "refund")
    shop = (*SHOP, *log)
    files = [tmp_path / "events.csv", tmp_path / "labels.csv"]
    for subject, file in zip(("events", "labels"), files, strict=True):
        assert 0 == cli("export", subject, "--to", str(file), *shop).code
    status = cli("status", *log, "--format", "json")
    version = status.json["champion"]

    wrong = []
    for words, expected in (
        (("trace", EVENT_ID, *shop), "by sgd@0"),
        (("drift", *shop), "nothing is watched yet"),
        (("alerts", *shop), "open: none"),
        (("audit", "log", *log), "sgd@0"),
        (("audit", "verify", *log), "are as they were written"),
        (("audit", "reproduce", EVENT_ID, *shop), "1 of 1 served answers are equal"),
        (("rebuild", version, *shop), "8 of 8 are equal"),
        (("what-if", f"{__name__}:more_lines", *shop), "naive: would never have been promoted"),
        (("dead-letters", *shop), "labels  not_json"),
        (("dead-letters", "redrive", *shop), "with --task main"),
        (("plan", *shop), "0 differences"),
    ):
        ran = cli(*words)
        if (0, True, False) != (ran.code, expected in ran.out, "logistic@" in ran.out):
            wrong.append((words[0], expected, ran))
    assert [] == wrong
    assert [111, 17] == [len(file.read_text().splitlines()) for file in files]


def test_features_are_applied_to_each_task_and_what_is_left_is_told(cli: Cli, path: Path) -> None:
    """A task that does not have them yet is named, and is not started with what it has not."""
    log = (*WIDER, "--broker", f"sqlite:{path}")
    first = cli("apply", "--reason", "wider", *log, "--task", "refund")
    key = Settings().signing_key(str(path))
    with SqliteLog.open(path) as opened, pytest.raises(UsageError, match=r"features\.count 2m"):
        Runner(opened, wider, key)
    left = cli("plan", *log, "--task", "main")
    second = cli("apply", "--reason", "wider", *log, "--task", "main")
    plans = [cli("plan", *log, "--task", task).code for task in ("main", "refund")]

    assert (0, 0) == (first.code, second.code)
    assert "not yet applied to: main; " in first.out
    assert "not yet applied" not in second.out
    assert (2, True) == (left.code, left.out.startswith("apply    features.count 2m"))
    assert [0, 0] == plans
