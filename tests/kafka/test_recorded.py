"""What lies on a cluster is exported, archived, learned again and forgotten, as in a file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

import stream_ml as sml
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.export.run import export
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.log.reading import read_all, read_partition
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.shell.views.what_if import what_if
from tests.kafka.test_commands import Place
from tests.shell.cli_toy import START_MS, outputs, toy
from tests.shell.processes import Ended, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.log.port import Log

# `make test` installs what archives need there before it comes to this.
EXTRAS = Path(__file__).parents[2] / ".venv" / "extras"
SHELL = Path(__file__).parents[1] / "shell"
EVENTS, LATER = 320, 10
MODEL = "scaled@200"
HOUR_MS = 3_600_000
DEADLINE_S = 120.0
KEY = bytes.fromhex("5a" * 32)
DECLARED = """
import dataclasses
import stream_ml as sml
from cli_toy import toy
mine = dataclasses.replace(toy, name={name!r}, promotion=sml.Promotion(refresh=200))
"""
REMOVED = ("events", "labels", "predictions", "examples", "answers")
# Runs commands one after another in one process: most of what each takes is its start.
SESSION = """
import os, sys, orjson
from stream_ml.cli.main import main
for number, arguments in enumerate(orjson.loads(sys.argv[1])):
    for stream, name in ((1, "out"), (2, "err")):
        file = os.open(f"{name}-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"code-{number}", "w") as file:
        file.write(str(code))
"""
# Three times lets another process archive that is killed at its n-th write.
KILLER = """
import os, signal
import pyarrow.parquet
from stream_ml.cli.execution import archive
from stream_ml.cli.main import main
from stream_ml.shell.archive.storage import Storage

write = Storage.write

def dying(storage, name, data):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    write(storage, name, data)

for left in (3, 4, 7):
    archiver = os.fork()
    if not archiver:
        Storage.write = dying
        os._exit(main(["archive", "--to", "archive"]))
    _, status = os.waitpid(archiver, 0)
    assert os.WIFSIGNALED(status), "it should have had more to do"
"""
WHOLE = {
    "examples": "export examples --to examples.jsonl",
    "predictions": "export predictions --to predictions.csv --since 2023-11-14T22:15",
    "events": "export events --to events.parquet",
    "rebuild": f"rebuild {MODEL}",
    "what_if": "what-if declared:mine",
    "archive": "archive --to archive",
    "again": "archive --to archive",
    "verify": "archive --to archive --verify",
    "backtest": "backtest --archive archive --predictions backtest.jsonl",
    "reproduce": "audit reproduce --sample 50",
    "written": "forget u1 --only-verify --reason x --ids ids.txt",
}
EMPTIED = {
    "gone": f"rebuild {MODEL}",
    "rebuild": f"rebuild {MODEL} --archive archive",
    "what_if": "what-if declared:mine --archive archive",
    "examples": "export examples --to late.jsonl --archive archive",
    "reproduce": "audit reproduce --sample 50 --archive archive",
    "proof": "forget u1 --only-verify --reason x --ids ids.txt",
}


def session(place: Place, commands: dict[str, str]) -> dict[str, Ended]:
    """How commands end, run one after another, by name."""
    lines = [[*command.split(), "--format", "json"] for command in commands.values()]
    process(place, SESSION, orjson.dumps(lines).decode())
    ended = {}
    for number, name in enumerate(commands):
        files = (place.folder / f"{each}-{number}" for each in ("code", "out", "err"))
        code, out, err = (file.read_text() for file in files)
        ended[name] = Ended(int(code), out, err)
    return ended


def process(place: Place, script: str, *arguments: str) -> None:
    """Run a script that needs the extras, to its end."""
    variables = environment(
        STREAM_ML_BROKER=f"kafka://{place.cluster.bootstrap}",
        STREAM_ML_PIPELINE="declared:mine",
        STREAM_ML_KEY=KEY.hex(),
    )
    ended = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", script, *arguments],
        cwd=place.folder,
        env=variables | {"PYTHONPATH": os.pathsep.join(map(str, (SHELL, EXTRAS)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ended.returncode, ended.stderr


@dataclass
class History:
    """What commands said of a cluster, and a log in a file with the very same records.

    Attributes:
        folder: that commands wrote to.
        pipeline: the declaration.
        file: of the log with the same records.
        counts: records of each topic.
        forgotten: how `forget` ended while workers were at work.
        whole: how commands ended, by name, while all was there.
        emptied: the same once retention had removed what it may.
    """

    folder: Path
    pipeline: Pipeline
    file: Path
    counts: dict[str, int]
    forgotten: Ended
    whole: dict[str, Ended]
    emptied: dict[str, Ended]


def later() -> list[Output]:
    """Events long after the others, when the ids of those refuse no repeats any more."""
    records = []
    for n in range(LATER):
        event_id, ts = f"l{n}", START_MS + (9 + n) * HOUR_MS
        event = {"event_id": event_id, "ts": ts, "user": f"u{2 + n % 5}", "x": 1.0}
        label = {"event_id": event_id, "ts": ts + 10_000, "label": True}
        records += [output_of(toy, "events", event), output_of(toy, "labels", label)]
    return records


def work(place: Place) -> Ended:
    """Have workers learn, and forget a key meanwhile; how forgetting ended."""
    with KafkaLog(place.cluster) as log:
        log.append(outputs(EVENTS))
        # No checkpoint but their first ones and their last: none comes between what is read of it.
        with place.terminal("up", STREAM_ML_CHECKPOINT_SECONDS="3600") as workers:
            until(log, "examples", EVENTS - 10)
            until(log, "models", 4)
            forgotten = place.run(
                *("forget", "u1", "--reason", "asked", "--ids", "ids.txt", "--verify"),
                *("--format", "json"),
            )
            log.append(later())
            until(log, "examples", EVENTS - 10 + LATER)
            assert 0 == workers.stopped().code
    return forgotten


def until(log: Log, topic: str, count: int) -> None:
    """Wait until a topic has so many records."""
    deadline = time.monotonic() + DEADLINE_S
    while (given := sum(1 for _ in read_all(log, topic))) < count:
        assert time.monotonic() < deadline, f"{topic}: {given} of {count}"


def copy(log: Log, path: Path) -> dict[str, int]:
    """Lay the records of a log into a file, as and where they lay; how many of each topic."""
    counts: dict[str, int] = {}
    with SqliteLog.create(path, partitions=2, identity=log.identity):
        pass
    with closing(sqlite3.connect(path)) as file:
        numbers = list(file.execute("SELECT id, topic, number FROM partitions"))
        for number, topic, partition in numbers:
            rows = [
                (each.offset, each.key, each.value, each.append_ms)
                for each in read_partition(log, topic, partition, 0)
            ]
            counts[topic] = counts.get(topic, 0) + len(rows)
            file.executemany(f"INSERT INTO records_{number} VALUES (?, ?, ?, ?)", rows)  # noqa: S608
            file.execute(
                "UPDATE partitions SET next = ? WHERE id = ?",
                (log.end_offset(topic, partition), number),
            )
        file.commit()
    return counts


def empty(place: Place) -> None:
    """Remove all records of topics, as retention does."""
    with KafkaLog(place.cluster) as log:
        ends = {
            TopicPartition(place.cluster.topic(topic), partition): log.end_offset(topic, partition)
            for topic in REMOVED
            for partition in range(log.partitions[topic])
        }
    with KafkaAdminClient(bootstrap_servers=place.cluster.bootstrap) as admin:
        admin.delete_records({tp: end for tp, end in ends.items() if end})


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, kafka_broker: str) -> Iterator[History]:
    """A cluster on which workers have learned, looked at whole, and after retention."""
    assert EXTRAS.is_dir(), "expected pyarrow in .venv/extras; `make .venv/extras` installs it"
    place = Place(tmp_path_factory.mktemp("cluster"), kafka_broker)
    name = place.cluster.pipeline
    (place.folder / "declared.py").write_text(DECLARED.format(name=name))
    pipeline = replace(toy, name=name, promotion=sml.Promotion(refresh=200))
    forgotten = work(place)
    file = place.folder / "log.sqlite"
    with KafkaLog(place.cluster) as log:
        counts = copy(log, file)
    process(place, KILLER)
    whole = session(place, WHOLE)
    empty(place)
    emptied = session(place, EMPTIED)
    yield History(place.folder, pipeline, file, counts, forgotten, whole, emptied)
    with KafkaAdminClient(bootstrap_servers=kafka_broker) as admin:
        ours = place.cluster.topic("")
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(ours)])


@pytest.fixture
def log(history: History) -> Iterator[SqliteLog]:
    """The log in a file, with what lay on the cluster."""
    with SqliteLog.open(history.file) as opened:
        yield opened


def members(ended: Ended) -> Any:
    """What a command said, but for where and how fast."""
    assert 0 == ended.code, ended.err
    return settled(orjson.loads(ended.out))


def settled(told: Any) -> Any:
    """The same, without what depends on the place and the machine."""
    if isinstance(told, dict):
        return {
            name: settled(each)
            for name, each in told.items()
            if not name.endswith(("seconds", "_per_second", "_us")) and name not in {"log", "cost"}
        }
    return [settled(each) for each in told] if isinstance(told, list) else told


def as_json(view: Any) -> Any:
    """A view as its command prints it."""
    return settled(orjson.loads(orjson.dumps(view.as_dict())))


def test_exports_are_those_of_the_same_records_in_a_file(history: History, log: SqliteLog) -> None:
    """To the last byte; a marker of `forget` is no bad event."""
    for subject, name, since in (
        ("examples", "examples.jsonl", None),
        ("predictions", "predictions.csv", 1_700_000_100_000),
    ):
        path = history.folder / f"file-{name}"
        told = export(log, history.pipeline, KEY, subject, path, since=since).as_dict()
        assert path.read_bytes() == (history.folder / name).read_bytes()
        assert {"file": name, **told} == members(history.whole[subject])
    events = members(history.whole["events"])
    assert (EVENTS + LATER, {}, {"markers": 1}) == (
        events["rows"],
        events["refused"],
        events["left_out"],
    )


def test_versions_are_learned_again_from_topics_file_and_archive(
    history: History, log: SqliteLog
) -> None:
    """The same digest and golden predictions, also when the topics are empty."""
    expected = as_json(rebuild(log, history.pipeline, KEY, MODEL))

    assert expected["equal"]
    assert expected == members(history.whole["rebuild"]) == members(history.emptied["rebuild"])
    assert 1 == history.emptied["gone"].code
    assert "way out: an archive that has them (--archive" in history.emptied["gone"].err


def test_what_if_gives_what_was_recorded(history: History, log: SqliteLog) -> None:
    """On the cluster, from its archive, and from a file."""
    lines = history.pipeline.models
    expected = as_json(what_if(log, history.pipeline, KEY, lines))

    assert expected == members(history.whole["what_if"]) == members(history.emptied["what_if"])
    for candidate in expected["candidates"]:
        recorded = candidate["recorded"]
        assert recorded["answers"] == recorded["answers_equal"] > 0


def test_an_archive_has_each_record_once_whoever_dies(history: History) -> None:
    """`kill -9` three times: rows and hashes are those that lie on the cluster."""
    first, again, verified = (
        members(history.whole[name]) for name in ("archive", "again", "verify")
    )
    total = sum(history.counts.values())

    assert 0 < first["rows"] < total
    assert 0 == again["rows"]
    assert (total, [], 0) == (verified["rows"], verified["faults"], verified["remaining"])
    compared = total - history.counts["models"]
    assert compared == verified["compared"] > 1_000


def test_what_was_archived_is_exported_and_answered_again(history: History) -> None:
    """After retention, as before it."""
    before, after = (history.folder / name for name in ("examples.jsonl", "late.jsonl"))
    made_again = [members(each["reproduce"]) for each in (history.whole, history.emptied)]

    assert before.read_bytes() == after.read_bytes()
    assert EVENTS - 10 + LATER == after.read_bytes().count(b"\n")
    assert made_again[0] == made_again[1]
    assert {"made_again": 50, "equal": 50} == made_again[1]["served"]


def test_a_backtest_of_an_archive_takes_all_partitions(history: History) -> None:
    """Loaded partition by partition nothing of it is too late: features are those of the log."""
    told = members(history.whole["backtest"])
    answers = (history.folder / "backtest.jsonl").read_bytes().splitlines()
    features = {each["event_id"]: each["features"] for each in map(orjson.loads, answers)}
    with (history.folder / "examples.jsonl").open("rb") as file:
        examples = [orjson.loads(line) for line in file]

    assert EVENTS + LATER == told["events"]["predictions"] == len(features)
    assert EVENTS - 10 + LATER == told["labels"]["joined"] == len(examples)
    assert {"markers": 3} == told["left_out"]
    for example in examples:
        names = {name for name in example if name.startswith("feature.")}
        assert features[example["event_id"]] == {n[8:]: example[n] for n in names}


def test_a_key_is_forgotten_and_it_is_proved(history: History) -> None:
    """Markers lie on each partition; after retention neither records nor state have any of it."""
    assert 1 == history.forgotten.code
    told = orjson.loads(history.forgotten.out)
    remains = {each["topic"]: each["records"] for each in told["remains"]}
    ids = len((history.folder / "ids.txt").read_text().split())

    # A worker's memory is nobody else's to look at: what it has not written is no proof.
    assert {"predict-0", "join-0", "join-1"} == set(told["unwritten"])
    assert {*remains} == {*told["found"]}
    assert "forget: expected nothing of the key, or of " in history.forgotten.err
    assert 3 == len(told["markers"])
    assert ids == remains["events"] == remains["predictions"] > 40
    assert (["plain", "scaled"], remains["examples"]) == (told["lines"], told["learned"])
    written = orjson.loads(history.whole["written"].out)
    assert [] == written["unwritten"]
    assert {*remains} == {*written["found"]}
    proof = members(history.emptied["proof"])
    assert ({}, []) == (proof["found"], proof["unwritten"])
