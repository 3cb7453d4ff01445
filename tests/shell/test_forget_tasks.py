"""`forget` of a pipeline with tasks, while their workers have much before them."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from tests.shop import patient, stream, two_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from conftest import Cli

    from stream_ml.pipeline import Pipeline

KEY = "a-person-of-our-own"
DAY_MS = 86_400_000
TASKS: Mapping[str | None, Pipeline] = {None: two_tasks, **two_tasks.task_pipelines}


def _publish(path: Path, day: int, *keys: str) -> None:
    """Events of two keys, on a day of their own, and the labels of both tasks."""
    events, labels = stream(seed=day + 1, count=60)
    names = dict(zip("ab", keys, strict=True))
    for record in (*events, *labels):
        record["event_id"] += f".of-day-{day}"
        record["ts"] += day * DAY_MS
    for event in events:
        event["shop"] = names[event["shop"]]
    visits = [event for event in events[::7] if event["kind"] == "visit"]
    refunds = [label | {"ts": label["ts"] + 2_000} for label in labels[:: len(visits)]]
    with SqliteLog.open_or_create(path) as log:
        log.append([Output("events", e["shop"].encode(), orjson.dumps(e)) for e in events])
    for task, lines in ((None, labels), ("refund", refunds)):
        with SqliteLog.open_or_create(path, task=task) as log:
            log.append([_label(line) for line in lines])


def _label(members: dict[str, Any]) -> Output:
    return Output("labels", members["event_id"].encode(), orjson.dumps(members))


@contextmanager
def _workers(path: Path, tasks: Mapping[str | None, Pipeline] = TASKS) -> Iterator[None]:
    """A worker of each task, in a thread of its own, until all is done and they may end."""
    over = threading.Event()
    key = Settings().signing_key(str(path))

    def work(task: str | None) -> None:
        with SqliteLog.open(path, task=task) as log, Runner(log, tasks[task], key) as runner:
            while not over.is_set():
                runner.run()
                over.wait(0.01)
            runner.run()

    with ExitStack() as stack:
        threads = [threading.Thread(target=work, args=(task,)) for task in tasks]
        stack.callback(lambda: [thread.join() for thread in threads])
        stack.callback(over.set)
        for thread in threads:
            thread.start()
        yield


def test_what_workers_write_meanwhile_is_forgotten_and_no_score_keeps_an_id(
    cli: Cli, tmp_path: Path
) -> None:
    """Predictions and answers that came after the first look go; later nothing is found anywhere.

    Labels of the second task may be corrected, for which its scores know the last pairs.
    """
    path, ids = tmp_path / "log.sqlite", tmp_path / "ids.txt"
    options = ("--pipeline", "tests.shop:two_tasks", "--broker", f"sqlite:{path}")
    command = ("forget", KEY, *options, "--reason", "asked for", "--format", "json", "--records")
    proved = (*command, "--verify", "--ids", str(ids))

    _publish(path, 0, KEY, "bob")
    with _workers(path):
        first = cli(*proved)
    known = ids.read_text().splitlines()
    _publish(path, 1, "eve", "joe")
    with _workers(path):
        pass
    with _workers(path):
        again = cli(*proved)

    assert 1 == first.code  # ids refuse repeats yet
    remains = [first.json["remains"], first.json["tasks"]["refund"]["remains"]]
    assert [set(), set()] == [
        {each["topic"] for each in part} - {"examples", "answers"} for part in remains
    ]
    assert min(first.json["learned"], first.json["tasks"]["refund"]["learned"]) > 5
    assert len(known) > 20
    assert (0, "", {}, {}) == (
        again.code,
        again.err,
        again.json["found"],
        again.json["tasks"]["refund"]["found"],
    )


def test_a_task_that_was_taken_out_and_has_something_of_the_key_is_named(
    cli: Cli, tmp_path: Path
) -> None:
    """Nothing is changed then; what it has nothing of is forgotten as ever."""
    path = tmp_path / "log.sqlite"
    _publish(path, 0, KEY, "bob")
    with _workers(path):
        pass
    options = ("--pipeline", "tests.shop:patient", "--broker", f"sqlite:{path}", "--reason", "r")
    refused = cli("forget", KEY, *options, "--records")
    looked = cli("forget", KEY, *options, "--only-verify")
    with _workers(path, {None: patient}):
        other = cli("forget", "somebody-else", *options, "--verify")

    assert [2, 1, 0] == [refused.code, looked.code, other.code]
    assert "given of refund, " in refused.err
    assert "Declare refund again" in looked.err
    with SqliteLog.open(path) as log:
        commands = [orjson.loads(r.value or b"{}") for r in log.read("commands", 0, 0, 10)]
    assert 1 == len(commands)


def test_a_task_that_never_started_has_nothing_to_forget(cli: Cli, tmp_path: Path) -> None:
    """The pipeline's own task forgets all the same."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path):
        pass
    options = ("--pipeline", "tests.shop:two_tasks", "--broker", f"sqlite:{path}", "--reason", "r")
    with _workers(path, {None: two_tasks}):
        result = cli("forget", KEY, *options, "--verify", "--format", "json")

    assert (0, "", {}) == (result.code, result.err, result.json["found"])
    assert "tasks" not in result.json
