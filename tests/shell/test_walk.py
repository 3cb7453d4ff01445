"""The manual's walk (docs/running.md) with four terminals, each a real process, on one log."""

from __future__ import annotations

import multiprocessing
import signal
from typing import TYPE_CHECKING

import orjson
from processes import Ended, Terminal

from stream_ml.examples.cards import transactions
from stream_ml.records import Output
from stream_ml.shell.log.sqlite import SqliteLog
from tests.straight import write_into_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

CARDS = {"STREAM_ML_PIPELINE": "stream_ml.examples.cards:cards"}
# The learners publish at 500, 1,000 and 2,000 examples; labels are known 1,000 events later.
EVENTS = 3_100


def _lines(records: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def _run(folder: Path, *arguments: str, given: bytes = b"") -> Ended:
    with Terminal(*arguments, folder=folder, **CARDS) as terminal:
        if given:
            terminal.write(given)
        return terminal.ended()


def test_four_terminals(tmp_path: Path) -> None:
    """A worker, a publisher, a reader and an operator meet on one log, and each ends as asked."""
    events, labels = transactions(EVENTS, seed=1)
    with Terminal("up", folder=tmp_path, **CARDS) as worker:
        assert worker.line() == (
            "cards works on stream_ml.sqlite: logistic@0 serves; Ctrl-C stops it"
        )
        follow = ("predictions", "--follow", "--from", "beginning", "--format", "json")
        with (
            Terminal("publish", "events", "-", folder=tmp_path, **CARDS) as publisher,
            Terminal(*follow, folder=tmp_path) as reader,
        ):
            # The publisher's pipe stays open: what it was given is out before more comes.
            publisher.write(_lines(events[:1]))
            assert orjson.loads(reader.line())["event_id"] == "t0"
            publisher.write(_lines(events[1:-1]))
            assert orjson.loads(reader.line_with(f'"t{EVENTS - 2}"'))["model"] == "logistic@0"
            published = _run(tmp_path, "publish", "labels", "-", given=_lines(labels))
            assert (published.code, published.out) == (0, "")
            assert published.err.startswith(f"published {len(labels):,} labels in ")
            worker.line_with("logistic@2000 serves: decision 3, refreshed by evaluate")

            _operate(tmp_path, worker)

            publisher.write(_lines(events[-1:]))
            assert orjson.loads(reader.line())["model"] == "adagrad@2000"
            assert publisher.ended().code == 0
            assert reader.stopped(signal.SIGINT) == Ended(0, "", "")
        stopped = worker.stopped()

    total = EVENTS + len(labels) + 2
    last = f"stopped: {total:,} records were worked on, and all is written down\n"
    assert stopped == Ended(0, last, "")
    with SqliteLog.open(tmp_path / "stream_ml.sqlite") as log, log.session():
        # The worker's place is free again, and it left its learners as they were at the end.
        assert log.committed("learn-0")["examples", 0] == len(labels)


def _operate(folder: Path, worker: Terminal) -> None:
    """Promote wrongly, then rightly, then the same once more."""
    promote = ("promote", "adagrad", "--reason", "a walk", "--actor", "ana")

    refused = _run(folder, *promote, "--expect", "tree")
    once = _run(folder, *promote, "--expect", "logistic", "--id", "walk-1")
    worker.line_with("adagrad@2000 serves: decision 5, replaced by local (says ana): a walk")
    again = _run(folder, *promote, "--expect", "logistic", "--id", "walk-1")

    message = "promote refused: expected tree to serve, but logistic@2000 does"
    assert refused == Ended(4, "", f"stream-ml: {message}\n")
    answer = (
        "replaced: adagrad@2000 serves (decision 5, by local (says ana): a walk)\n"
        "models are renewed, and replaced as the pipeline declares it\n"
    )
    assert once == again == Ended(0, answer, "")
    log = orjson.loads(_run(folder, "audit", "log", "--format", "json").out)
    assert [(each["kind"], each["command_id"]) for each in log["decisions"][5:]] == [
        ("replaced", "walk-1")
    ]
    assert _run(folder, "audit", "verify").code == 0


def test_a_second_worker_is_told_who_works(tmp_path: Path) -> None:
    """One log has one worker: another `up` ends at once, naming the process that holds it."""
    with Terminal("up", folder=tmp_path, **CARDS) as worker:
        worker.line()
        second = _run(tmp_path, "up")

        assert second.code == 3
        assert f"another one (process {worker.process.pid})" in second.err
        assert worker.stopped(signal.SIGINT).code == 0


def test_a_worker_that_was_killed_goes_on(tmp_path: Path) -> None:
    """After `kill -9` another `up` goes on from the last commit, and answers once."""
    events, _ = transactions(200, seed=2)
    (tmp_path / "events.jsonl").write_bytes(_lines(events))
    with Terminal("up", "--format", "json", folder=tmp_path, **CARDS) as worker:
        assert orjson.loads(worker.line())["said"] == "started"
        assert _run(tmp_path, "publish", "events", "events.jsonl").code == 0
        with Terminal("predictions", "--follow", "--from", "beginning", folder=tmp_path) as reader:
            reader.line_with("  t99  ")
        worker.process.kill()
        worker.process.wait()
    with Terminal("up", folder=tmp_path, **CARDS) as worker:
        worker.line()
        with Terminal("predictions", "--follow", "--from", "beginning", folder=tmp_path) as reader:
            reader.line_with("  t199  ")
        worker.stopped()

    told = _run(tmp_path, "predictions", "--format", "json").out.splitlines()
    assert [orjson.loads(line)["event_id"] for line in told] == [f"t{n}" for n in range(200)]


def test_who_writes_into_the_file_does_not_stop_the_worker(tmp_path: Path) -> None:
    """`up` says whose topic was written to, goes on by itself, and refuses what lies there."""
    events, labels = transactions(200, seed=2)
    with Terminal("up", folder=tmp_path, **CARDS) as worker:
        worker.line()
        assert _run(tmp_path, "publish", "events", "-", given=_lines(events[:100])).code == 0
        with Terminal("predictions", "--follow", "--from", "beginning", folder=tmp_path) as reader:
            reader.line_with("  t99  ")
        path = tmp_path / "stream_ml.sqlite"
        own = ("predictions", "examples", "evaluations", "alerts", "registry", "models")
        write_into_file(path, [Output(topic, b"forged", b'{"a":1}') for topic in own])
        assert _run(tmp_path, "publish", "events", "-", given=_lines(events[100:])).code == 0
        line = worker.line_with("expected only the worker to write to")
        assert "given another writer, straight into the file" in line
        worker.line_with("logistic@0 serves")
        assert _run(tmp_path, "publish", "labels", "-", given=_lines(labels[:50])).code == 0
        with Terminal("predictions", "--follow", "--from", "beginning", folder=tmp_path) as reader:
            reader.line_with("  t199  ")
        ended = worker.stopped()

    assert (ended.code, ended.err) == (0, "")
    with SqliteLog.open(path) as log:
        letters = [orjson.loads(each.value or b"") for each in log.read("dead-letters", 0, 0, 100)]
        examples = log.read("examples", 0, 0, 1_000)
        predictions = log.read("predictions", 0, 0, 1_000)
    refused = {(each["topic"], each["reason"]) for each in letters}
    assert {("predictions", "forged"), ("examples", "forged")} <= refused
    honest = [
        orjson.loads(each.value or b"")["event_id"] for each in predictions if each.key != b"forged"
    ]
    assert [f"t{n}" for n in range(200)] == honest
    assert len({each.key for each in examples} - {b"forged"}) == len(labels[:50])
    told = _run(tmp_path, "predictions")
    assert (told.code, len(told.out.splitlines())) == (0, 200)
    assert "predictions-0 offset 100: passed over, for it is no prediction" in told.err


def write_on(path: Path, begun: Any, stop: Any) -> None:
    """Somebody who writes hundreds of records a second straight into the file, until stopped."""
    while not stop.wait(0.001):
        write_into_file(path, [Output("predictions", b"forged", b'{"a":1}')])
        begun.set()


def test_who_writes_into_the_file_without_end_holds_nobody_up(tmp_path: Path) -> None:
    """Publishers and the worker get on beside that writer, and nothing of ours is lost."""
    events, labels = transactions(200, seed=2)
    path = tmp_path / "stream_ml.sqlite"
    context = multiprocessing.get_context("spawn")
    begun, stop = context.Event(), context.Event()
    with Terminal("up", folder=tmp_path, **CARDS) as worker:
        worker.line()
        assert _run(tmp_path, "publish", "events", "-", given=_lines(events[:100])).code == 0
        with Terminal("predictions", "--follow", "--from", "beginning", folder=tmp_path) as reader:
            reader.line_with("  t99  ")
            writer = context.Process(target=write_on, args=(path, begun, stop), daemon=True)
            writer.start()
            try:
                assert begun.wait(60), "the writer has not begun within 60 s"
                published = _run(tmp_path, "publish", "events", "-", given=_lines(events[100:]))
                reader.line_with("  t199  ")
                labelled = _run(tmp_path, "publish", "labels", "-", given=_lines(labels[:50]))
            finally:
                stop.set()
                writer.join()
        ended = worker.stopped()

    assert (0, 0, 0, "") == (published.code, labelled.code, ended.code, ended.err)
    with SqliteLog.open(path) as log:
        predictions = log.read("predictions", 0, 0, 100_000)
    assert [f"t{n}" for n in range(200)] == [
        orjson.loads(each.value or b"")["event_id"] for each in predictions if each.key != b"forged"
    ]


def test_a_command_without_a_worker(tmp_path: Path) -> None:
    """Nobody answers: exit code 5 and what to do; once a worker runs, the same id is answered."""
    with Terminal("up", folder=tmp_path, **CARDS) as worker:
        worker.line()
        worker.stopped()
    pause = ("pause", "--reason", "nobody there", "--id", "p1")

    unanswered = _run(tmp_path, *pause, "--timeout", "0")
    with Terminal("up", folder=tmp_path, **CARDS) as worker:
        worker.line()
        answered = _run(tmp_path, *pause, "--format", "json")
        worker.stopped()

    assert (unanswered.code, unanswered.out) == (5, "")
    assert unanswered.err == (
        "stream-ml: pause: no answer within 0 s; is a worker running? The command stays on the "
        "log and may still be answered: ask again with --id p1, which does nothing twice\n"
    )
    assert answered.code == 0
    assert orjson.loads(answered.out)["decision"]["kind"] == "paused"
