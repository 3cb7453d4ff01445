"""Archives: each record once whoever dies when, and read back as the log is; with the extras."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shell"))
from cli_toy import START_MS, TOY, outputs, toy
from rebuild_worlds import DRIVER_KEY, WORLDS, snapshots

from stream_ml.cli.main import main
from stream_ml.errors import LogError, LogLocked, UsageError
from stream_ml.records import Output, Record, Source
from stream_ml.shell.archive import writing
from stream_ml.shell.archive.manifests import HOUR_MS
from stream_ml.shell.archive.reading import Archive, JoinedLog, verify
from stream_ml.shell.archive.storage import Storage
from stream_ml.shell.archive.writing import Archiver
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.export.parquet import records_file
from stream_ml.shell.log.reading import read_all, read_partition
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.shell.views.what_if import what_if
from stream_ml.stages.erasure import Erasure, Erasures
from stream_ml.testing import Driver
from stream_ml.topics import partition_of
from tests.stages.test_generations import applied, wider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.log.port import Log

EVENTS = 1_100
# Long after every record that a test writes, those of a `Driver` too.
LATER_MS = 2**42 + 10 * HOUR_MS
DAY_MS = 24 * HOUR_MS
DECADE_MS = 3_650 * DAY_MS


NUMBERS = count_from(1)


def now_ms() -> int:
    """A clock by which all is over."""
    return LATER_MS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test has the power fail, so none waits for a disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log file on which the toy has run, a hundred records in each hour."""
    path = tmp_path_factory.mktemp("worked") / "log.sqlite"
    key = Settings().signing_key(str(path))
    clock_ms = START_MS
    events_and_labels = outputs(EVENTS)
    events, labels = events_and_labels[:EVENTS], events_and_labels[EVENTS:]
    with (
        SqliteLog.create(path, now_ms=lambda: clock_ms) as log,
        Runner(log, toy, key, checkpoint_examples=200) as runner,
    ):
        for begin in range(0, EVENTS, 100):
            log.append(events[begin : begin + 100])
            log.append(labels[begin : begin + 100])
            runner.run()
            clock_ms += HOUR_MS
    return path


@pytest.fixture
def log(worked: Path) -> Iterator[SqliteLog]:
    """That log, to be read."""
    with SqliteLog.open(worked) as opened:
        yield opened


@pytest.fixture
def emptied(worked: Path, tmp_path: Path) -> Iterator[tuple[Log, Path]]:
    """A copy of the log, archived, from which retention has then removed all that it may."""
    path = tmp_path / "log.sqlite"
    for ending in ("", ".key"):
        shutil.copy(f"{worked}{ending}", f"{path}{ending}")
    with SqliteLog.open(path) as log:
        archived(log, str(tmp_path / "archive"))
        while log.expire(LATER_MS + DECADE_MS):
            pass
        yield log, tmp_path / "archive"


def archived(log: Log, address: str) -> Archive:
    """An archive of all that lies on a log."""
    Archiver(log, Storage(address), now_ms).run()
    return Archive(Storage(address))


def joined(log: Log, address: Path | str) -> JoinedLog:
    """The log behind its archive."""
    return JoinedLog(log, Archive(Storage(str(address))))


def whole(log: Log) -> list[Record]:
    """All records of all topics."""
    return [record for topic in log.partitions for record in read_all(log, topic)]


def hours(records: list[Record]) -> dict[str, tuple[int, str]]:
    """By topic, partition and hour: how many records, and a hash over them, made here."""
    lines: dict[str, list[bytes]] = defaultdict(list)
    for record in records:
        hour = datetime.fromtimestamp(record.append_ms / 1000, UTC).strftime("%Y-%m-%dT%H")
        line = (record.offset, record.append_ms, record.key, record.value)
        lines[f"{record.topic}/{record.partition}/{hour}"].append(repr(line).encode())
    return {
        hour: (len(rows), hashlib.sha256(b"\n".join(rows)).hexdigest())
        for hour, rows in lines.items()
    }


def archived_hours(archive: Archive) -> dict[str, tuple[int, str]]:
    """The same of an archive, each file read by itself."""
    records: list[Record] = []
    for file in archive.files:
        rows = archive.load(file)
        assert {file.hour} == {
            datetime.fromtimestamp(row.append_ms / 1000, UTC).strftime("%Y-%m-%dT%H")
            for row in rows
        }
        records += rows
    return hours(records)


# --- written once, whoever dies when -----------------------------------------------------------

# A process that lets another one begin to archive, ten times, and kills it at a random instant.
KILLER = """
import os, random, signal, sys, time
from stream_ml.shell.archive.manifests import Manifests
from stream_ml.shell.archive.storage import Storage
from stream_ml.shell.archive.writing import Archiver
from stream_ml.shell.export.parquet import records_file
from stream_ml.shell.log.sqlite import SqliteLog

records_file([])  # what it loads, it loads once
os.fsync = lambda _: None  # of no use to one who is killed
rand, path, address = random.Random(1), sys.argv[1], sys.argv[2]
told, tell = os.pipe()

class Telling(Storage):
    def write(self, name, data):
        os.write(tell, b".")
        super().write(name, data)

for _ in range(10):
    archiver = os.fork()
    if not archiver:
        storage = Telling(address)
        with SqliteLog.open(path) as log, storage.only_writer():
            Archiver(log, storage, lambda: 2**42 + 2**30).run()
        os._exit(0)
    for _ in range(rand.randrange(1, 16)):
        os.read(told, 1)
    time.sleep(rand.uniform(0.0, 0.01))
    os.kill(archiver, signal.SIGKILL)
    _, status = os.waitpid(archiver, 0)
    assert os.WIFSIGNALED(status), "it should have had more to do"
    print(sum(map(len, Manifests.read(Storage(address)).files.values())))
"""


def test_ten_kills_leave_each_hour_as_it_lies_on_the_log(
    worked: Path, log: SqliteLog, tmp_path: Path
) -> None:
    """`kill -9` at random instants: rows and hashes of every hour are those of the log."""
    address = tmp_path / "archive"
    killer = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", KILLER, str(worked), str(address)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == killer.returncode, killer.stderr
    files = list(map(int, killer.stdout.split()))
    archive = archived(log, str(address))

    assert 10 == len(files)
    assert sorted(files) == files
    assert len(set(files)) > 3, "the kills should fall into the work"
    assert hours(whole(log)) == archived_hours(archive)
    result = verify(archive, log)
    assert ([], len(whole(log))) == (result.faults, result.rows)


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("seed", range(6))
def test_a_death_between_any_two_files_loses_and_doubles_nothing(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A file without its manifest is no part of the archive; the next archiver writes it again."""
    rand = random.Random(seed)
    write, steps = Storage.write, 0

    def write_or_die(storage: Storage, name: str, data: bytes) -> None:
        nonlocal steps
        steps -= 1
        if steps == 0:
            if rand.random() < 0.5:
                write(storage, f"{name}.part", data[: len(data) // 2])
            raise Died
        write(storage, name, data)

    monkeypatch.setattr(Storage, "write", write_or_die)
    monkeypatch.setattr(writing, "FILE_RECORDS", rand.choice([45, 60, 10_000]))
    monkeypatch.setattr(writing, "READ_RECORDS", rand.choice([33, 5_000]))
    storage = Storage(f"memory://deaths/{seed}")
    for _ in range(6):
        steps = rand.randrange(1, 30)
        with pytest.raises(Died):
            Archiver(log, storage, now_ms).run()
    steps = -1
    archive = archived(log, storage.address)

    assert hours(whole(log)) == archived_hours(archive)
    assert [] == verify(archive, log).faults


def test_what_has_come_since_is_added(worked: Path, tmp_path: Path) -> None:
    """A run goes on where the archive ends, and writes nothing where nothing has come."""
    path = tmp_path / "log.sqlite"
    path.write_bytes(worked.read_bytes())
    with SqliteLog.open(path, now_ms=now_ms) as log:
        address = str(tmp_path / "archive")
        archived(log, address)
        again = Archiver(log, Storage(address), now_ms)
        again.run()
        log.append(outputs(30))
        more = Archiver(log, Storage(address), now_ms)
        more.run()

        assert (0, 0) == (again.written.files, again.written.rows)
        assert (2, 50) == (more.written.files, more.written.rows)
        assert hours(whole(log)) == archived_hours(Archive(Storage(address)))


def test_an_hour_that_is_not_over_is_left_for_later(log: SqliteLog, tmp_path: Path) -> None:
    """Who follows writes each hour once, and not in pieces."""
    clock_ms = START_MS + 5 * HOUR_MS
    archiver = Archiver(log, Storage(str(tmp_path)), lambda: clock_ms)
    archiver.run(only_past=True)
    first = archived_hours(Archive(Storage(str(tmp_path))))
    ahead = archiver.written.ahead
    clock_ms = LATER_MS
    archiver.run(only_past=True)

    events = sorted(hour for hour in first if hour.startswith("events/"))
    assert 5 == len(events)
    assert all("is dated ahead" in words for words in ahead)
    assert hours(whole(log)) == archived_hours(Archive(Storage(str(tmp_path))))
    files = [file for file in Archive(Storage(str(tmp_path))).files if file.topic == "events"]
    assert EVENTS // 100 == len(files)


def test_it_lies_at_any_address_that_fsspec_knows(log: SqliteLog) -> None:
    """The same in memory as in a folder."""
    archive = archived(log, "memory://somewhere/else")

    assert hours(whole(log)) == archived_hours(archive)
    again = Archiver(log, Storage("memory://somewhere/else"), now_ms)
    assert 0 == again.remaining


def test_only_one_archives_at_a_time(log: SqliteLog, tmp_path: Path) -> None:
    """A second archiver of the same folder is refused, and told why."""
    del log
    with (
        Storage(str(tmp_path)).only_writer(),
        pytest.raises(LogLocked, match="nobody else to archive"),
        Storage(str(tmp_path)).only_writer(),
    ):
        pass


def test_others_can_read_the_files(log: SqliteLog, tmp_path: Path) -> None:
    """They are plain Parquet: offset, time, key and the record's own bytes."""
    archived(log, str(tmp_path))
    [first, *_] = sorted((tmp_path / "events" / "0").rglob("*.parquet"))
    rows = pq.read_table(first).to_pylist()

    assert "events/0/2023-11-14/22-0000000000000000-0000000000000100.parquet" == str(
        first.relative_to(tmp_path)
    )
    assert [record.value for record in log.read("events", 0, 0, 100)] == [r["value"] for r in rows]
    assert datetime.fromtimestamp(START_MS / 1000, UTC) == rows[0]["append_time"]


# --- read back ---------------------------------------------------------------------------------


def test_after_retention_all_is_read_as_before(log: SqliteLog, emptied: tuple[Log, Path]) -> None:
    """Every topic, from its first record on, as the log had it when it was whole."""
    rest, address = emptied

    assert 0 == len(list(read_all(rest, "events")))
    assert whole(log) == whole(joined(rest, address))


@given(data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_wherever_the_log_begins_no_record_is_missing_or_doubled(data: st.DataObject) -> None:
    """However much retention has removed, and however many records are read at once."""
    count = data.draw(st.integers(1, 40))
    cut = data.draw(st.integers(0, count))
    clock_ms = START_MS
    with SqliteLog.create(MEMORY, now_ms=lambda: clock_ms, identity="a") as log:
        for number in range(count):
            clock_ms += data.draw(st.sampled_from([0, 1_000, HOUR_MS]), label="later by")
            log.append([Output("events", b"k", b"%d" % number)])
        archive = archived(log, f"memory://{next(NUMBERS)}")
        log._file.write("UPDATE partitions SET first = ? WHERE topic = 'events'", [(cut,)])
        table = log._layout.partition("events", 0)
        expected = log.read("events", 0, 0, 1_000)
        log._file.write(f"DELETE FROM records_{table.id} WHERE at < ?", [(cut,)])  # noqa: S608
        both = JoinedLog(log, archive)
        records: list[Record] = []
        offset = both.first_offset("events", 0)
        while batch := both.read("events", 0, offset, data.draw(st.integers(1, 90))):
            records += batch
            offset = batch[-1].offset + 1
        since = data.draw(st.integers(START_MS, clock_ms + 1))

        assert expected == records
        assert both.offset_at("events", 0, since) == next(
            (record.offset for record in expected if record.append_ms >= since), count
        )


def test_what_if_reads_an_archive_as_the_log(log: SqliteLog, emptied: tuple[Log, Path]) -> None:
    """The same answers, scores and evidence, though the examples are gone from the log."""
    rest, address = emptied
    key = Settings().verifying_key(log.path)
    on_log = what_if(log, toy, key, toy.models).as_dict()
    in_archive = what_if(joined(rest, address), toy, key, toy.models).as_dict()

    for view in (on_log, in_archive):
        view.pop("seconds")
        view.pop("examples_per_second")
        for candidate in view["candidates"]:
            candidate.pop("cost")
    assert EVENTS - 10 == on_log["examples"]
    assert on_log == in_archive


@pytest.mark.parametrize("name", WORLDS)
def test_every_version_of_the_bundled_examples_is_learned_again_from_an_archive(
    name: str,
) -> None:
    """The topics emptied between: each newest version of a line has its digest again."""
    pipeline, events, labels = WORLDS[name]()
    with Driver(pipeline) as driver:
        driver.feed(events, labels)
        newest = {each.name: each.model for each in snapshots(driver)}
        driver.runner.commit(checkpoint=True)
        archive = archived(driver.log, f"memory://{name}")
        while driver.log.expire(driver.now_ms + DECADE_MS):
            pass
        left = list(read_all(driver.log, "examples"))
        both = JoinedLog(driver.log, archive)
        views = [rebuild(both, pipeline, DRIVER_KEY, model) for model in newest.values()]

    assert [] == left
    assert set(pipeline.models) == set(newest)
    assert [] == [view.as_dict() for view in views if not view.equal]


def test_a_backtest_of_an_archive_is_one_of_the_log(
    log: SqliteLog, emptied: tuple[Log, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All events and labels that the log ever took in give the predictions that it has."""
    _, address = emptied
    target = tmp_path / "predictions.jsonl"
    base = ["--pipeline", TOY, "backtest"]
    code = main([*base, "--archive", str(address), "--predictions", str(target)])
    neither = main(base)

    expected = [orjson.loads(record.value or b"") for record in read_all(log, "predictions")]
    lines = [orjson.loads(line) for line in target.read_bytes().splitlines()]
    assert (0, 2) == (code, neither)
    assert "or an archive (--archive ADDRESS), given neither" in capsys.readouterr().err
    assert [each["features"] for each in expected] == [each["features"] for each in lines]
    assert [each["event_id"] for each in expected] == [each["event_id"] for each in lines]


def test_partitions_are_merged_in_the_order_in_which_the_log_took_them_in() -> None:
    """A backtest of four partitions reads their events as they came, those of a key in order."""
    clock_ms = START_MS
    with SqliteLog.create(MEMORY, partitions=4, now_ms=lambda: clock_ms, identity="a") as log:
        for number in range(40):
            clock_ms += 60_000 * (number % 3 > 0)
            log.append([Output("events", b"%d" % (number % 7), b"%d" % number)])
        records = list(archived(log, f"memory://{next(NUMBERS)}").in_order("events"))

    assert 4 == len({record.partition for record in records})
    assert sorted(record.append_ms for record in records) == [r.append_ms for r in records]
    for key in range(7):
        values = [int(r.value or b"") for r in records if r.key == b"%d" % key]
        assert list(range(key, 40, 7)) == values


def test_features_that_were_added_are_made_again_from_archived_events() -> None:
    """A line of a later generation is learned again, though its events have left the log."""
    with applied() as driver:
        driver.runner.commit(checkpoint=True)
        newest = {each.name: each.model for each in snapshots(driver)}
        archive = archived(driver.log, f"memory://{next(NUMBERS)}")
        while driver.log.expire(driver.now_ms + DECADE_MS):
            pass
        events = list(read_all(driver.log, "events"))
        both = JoinedLog(driver.log, archive)
        view = rebuild(both, wider, DRIVER_KEY, newest["tree.2"])

    assert [] == events
    assert view.examples > 300
    assert view.equal, view.as_dict()


def test_the_mark_of_a_transaction_behind_the_last_record_is_no_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cluster's logs end with one; once retention has passed it, nothing is missing."""
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        placed = log.append([Output("events", b"k", b"%d" % number) for number in range(9)])
        monkeypatch.setattr(log, "end_offset", lambda topic, _: 10 if topic == "events" else 0)
        archive = archived(log, f"memory://{next(NUMBERS)}")
        monkeypatch.setattr(log, "first_offset", lambda topic, _: 10 if topic == "events" else 0)
        monkeypatch.setattr(log, "read", lambda *_: [])
        again = Archiver(log, Storage(archive.address), now_ms)
        again.run()
        records = list(read_partition(JoinedLog(log, archive), "events", 0))

    assert placed == records
    assert ([], 0) == (again.written.gaps, again.remaining)


def test_a_stretch_that_is_nowhere_is_named(worked: Path, tmp_path: Path) -> None:
    """What retention removed before it was archived is told when archiving, and when reading."""
    path = tmp_path / "log.sqlite"
    for ending in ("", ".key"):
        shutil.copy(f"{worked}{ending}", f"{path}{ending}")
    address = str(tmp_path / "archive")
    later_ms = START_MS + 100 * DAY_MS
    with SqliteLog.open(path, now_ms=lambda: later_ms) as log:
        clock_ms = START_MS + 3 * HOUR_MS
        Archiver(log, Storage(address), lambda: clock_ms).run(only_past=True)
        log._append([Output("examples", b"e", b"{}")])
        while log.expire(START_MS + 400 * DAY_MS):  # examples are kept for a year
            pass
        first = log.first_offset("examples", 0)
        with pytest.raises(LogError, match=r"examples-0: expected offsets \d+ to \d+ in the arch"):
            list(read_partition(joined(log, address), "examples", 0))
    ran = main(["--broker", f"sqlite:{path}", "archive", "--to", address, "--format", "json"])
    with SqliteLog.open(path) as log:
        archive = Archive(Storage(address))
        faults = verify(archive, log).faults
        with pytest.raises(LogError, match=f"to {first} in the archive or on the log"):
            list(read_partition(JoinedLog(log, archive), "examples", 0))

    assert 1 == ran
    assert [f"to {first} are missing" in fault for fault in faults if "examples-0" in fault] == [
        True
    ]


def test_a_file_that_was_altered_is_not_read(
    log: SqliteLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bit is enough; which file it is is said, and the check fails."""
    archived(log, str(tmp_path))
    path = next(iter(sorted((tmp_path / "labels").rglob("*.parquet"))))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    archive = Archive(Storage(str(tmp_path)))

    with pytest.raises(LogError, match=r"labels/0/.*expected SHA-256 .* altered or damaged"):
        archive.read("labels", 0, 0, 10)
    arguments = ["--broker", f"sqlite:{log.path}", "archive", "--to", str(tmp_path), "--verify"]
    assert 1 == main(arguments)
    assert "altered or damaged" in capsys.readouterr().err


def test_what_is_not_ours_is_not_believed_in_an_archive_either(
    emptied: tuple[Log, Path], tmp_path: Path
) -> None:
    """Whoever writes a record and its checksums anew has no key: its seal is wrong, and is told."""
    rest, address = emptied
    storage = Storage(str(address))
    file = next(file for file in Archive(storage).files if file.topic == "examples")
    records = Archive(storage).load(file)
    records[3].value = (records[3].value or b"").replace(b'"label":true', b'"label":false')
    records[4].value = (records[4].value or b"").replace(b'"label":false', b'"label":true')
    data = records_file(records)
    (address / file.name).write_bytes(data)
    manifest = (address / file.name).parent / "manifest.json"
    text = manifest.read_text().replace(file.sha256, hashlib.sha256(data).hexdigest())
    manifest.write_text(text)
    arguments = ["--broker", f"sqlite:{rest.path}", "--pipeline", TOY]  # type: ignore[attr-defined]
    target = tmp_path / "examples.jsonl"
    code = main([*arguments, "export", "examples", "--to", str(target), "--archive", str(address)])

    lines = [orjson.loads(line) for line in target.read_bytes().splitlines()]
    assert (0, EVENTS - 10 - 1) == (code, len(lines))


def test_an_archive_of_another_log_is_refused(log: SqliteLog, tmp_path: Path) -> None:
    """Neither is it written to, nor read beside this one; nor is a folder without one."""
    with SqliteLog.create(MEMORY, identity="another") as other:
        archived(other, str(tmp_path / "other"))

    with pytest.raises(UsageError, match="expected an archive of the log"):
        archived(log, str(tmp_path / "other"))
    with pytest.raises(UsageError, match="expected an archive of the log"):
        joined(log, tmp_path / "other")
    with pytest.raises(LogError, match="expected an archive, given none"):
        joined(log, tmp_path / "nothing")
    with pytest.raises(UsageError, match="an address that fsspec knows"):
        Storage("nosuch://place")


def test_the_commands_archive_check_and_read_back(
    emptied: tuple[Log, Path], tmp_path: Path, capsys: pytest.CaptureFixture[Any]
) -> None:
    """`archive`, `archive --verify`, and `--archive` of those that read what is recorded."""
    rest, address = emptied
    base = ["--broker", f"sqlite:{rest.path}", "--pipeline", TOY]  # type: ignore[attr-defined]
    codes = [
        main([*base, *words.split()])
        for words in (
            f"archive --to {address}",
            f"archive --to {address} --verify",
            f"rebuild scaled@1000 --archive {address}",
            f"export events --to {tmp_path / 'e.csv'} --archive {address}",
            f"what-if {TOY} --archive {address}",
        )
    ]
    out = capsys.readouterr().out
    alone = main([*base, "rebuild", "scaled@1000"])

    assert [0] * 5 == codes
    assert "golden predictions: 8 of 8 are equal" in out
    assert "1,100 events written" in out
    assert "1,090 of 1,090 recorded answers again" in out
    assert 1 == alone
    assert "--archive ADDRESS" in capsys.readouterr().err


# --- what is lost, and what is forgotten ---------------------------------------------------------


@pytest.mark.parametrize("lost", ["topic", "beginning", "end"])
def test_a_part_that_is_gone_from_an_archive_is_missed(tmp_path: Path, lost: str) -> None:
    """A topic, its first day or its last one: `--verify` names what is there no more."""
    clock_ms = START_MS
    with SqliteLog.create(MEMORY, now_ms=lambda: clock_ms, identity="a") as log:
        for number in range(3):
            log.append([Output("events", b"k", b"%d" % number)])
            clock_ms += DAY_MS
        whole_one = verify(archived(log, str(tmp_path)), log)
        log.append([Output("events", b"k", b"3"), Output("labels", b"k", b"4")])
        days = sorted((tmp_path / "events" / "0").iterdir())
        for day in {"topic": days, "beginning": days[:1], "end": days[2:]}[lost]:
            shutil.rmtree(day)
        while lost == "end" and log.expire(clock_ms + DECADE_MS):
            pass
        archive = Archive(Storage(str(tmp_path)))
        result = verify(archive, log)

    words = {
        "topic": ["events-0: nothing is there of what was archived"],
        "beginning": ["events-0: offsets 0 to 1 are missing"],
        "end": ["events-0: offsets 2 to 4 are missing, and on the log no more"],
    }
    assert ([], 0) == (whole_one.faults, whole_one.remaining)
    assert words[lost] == result.faults
    assert {"topic": 5, "beginning": 2, "end": 0}[lost] == result.remaining


def test_what_the_log_has_forgotten_since_is_told_and_is_no_fault(tmp_path: Path) -> None:
    """The other records of its file are compared; what was archived before stays, and is told."""
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        log.append([Output("events", b"k", b"%d" % number) for number in range(5)])
        archive = archived(log, str(tmp_path))
        table = log._layout.partition("events", 0)
        erase = f"UPDATE records_{table.id} SET key = ?, value = NULL WHERE at = 2"  # noqa: S608
        log._file.write(erase, [(b"forgotten:ab",)])
        result = verify(archive, log)
        other = f"UPDATE records_{table.id} SET value = ? WHERE at = 3"  # noqa: S608
        log._file.write(other, [(b"another",)])
        altered = verify(archive, log)

    assert ([], 1) == (result.faults, result.forgotten)
    assert ["its rows are not those that lie on the log"] == [
        fault.split(": ")[1] for fault in altered.faults
    ]


def test_a_backtest_leaves_out_what_was_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markers and forgotten records of an archive are counted, and are no refused lines."""
    erasures = Erasures(b"k" * 32, toy.name, "a")
    marker = erasures.encode(Erasure("0" * 64, "c", START_MS, toy.name, "a", 0))
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        log.append(outputs(30))
        log.append([Output("events", b"f", marker), Output("labels", b"f", marker)])
        log.append([Output("events", b"forgotten:ab", None)])
        archived(log, str(tmp_path))
    base = ["--pipeline", TOY, "backtest", "--archive", str(tmp_path)]
    codes = [main([*base, "--format", "json"])]
    view = orjson.loads(capsys.readouterr().out)
    codes.append(main(base))
    text = capsys.readouterr().out

    assert [0, 0] == codes
    assert {"forgotten": 1, "markers": 2} == view["left_out"]
    assert {} == view["dead_letters"]
    assert "2 markers, 1 forgotten" in text


def test_a_backtest_takes_partitions_that_were_loaded_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is too late that was in time in its partition."""
    with SqliteLog.create(MEMORY, partitions=4, now_ms=lambda: START_MS, identity="a") as log:
        log.append(sorted(outputs(100), key=lambda each: partition_of(each.key or b"", 4)))
        archived(log, str(tmp_path))
    code = main(["--pipeline", TOY, "backtest", "--archive", str(tmp_path), "--format", "json"])
    view = orjson.loads(capsys.readouterr().out)

    assert (0, {}) == (code, view["dead_letters"])
    assert (100, 90) == (view["events"]["predictions"], view["labels"]["joined"])


class Moved:
    """A log on which records of some offsets were moved there from elsewhere, as clusters do."""

    def __init__(self, log: SqliteLog, origins: dict[int, Source]) -> None:
        self._log, self._origins = log, origins

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """As the log does, with where events came from."""
        records = self._log.read(topic, partition, offset, limit)
        for record in records if topic == "events" else ():
            record.origin = self._origins.get(record.offset)
        return records


def test_a_backtest_takes_a_record_that_was_moved_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it came to, unless that is not archived: then where it was moved to."""
    *events, last = outputs(21)[:21]
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        log.append([*events, events[0], last])
        moved: Any = Moved(log, {20: Source(0, 0), 21: Source(9, 0)})
        archived(moved, str(tmp_path))
    code = main(["--pipeline", TOY, "backtest", "--archive", str(tmp_path), "--format", "json"])
    view = orjson.loads(capsys.readouterr().out)

    assert (0, {}, 21) == (code, view["dead_letters"], view["events"]["predictions"])


# --- what others made of an archive --------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"topic": "events"', '"topic": "zz"'),
        ('"partition": 0', '"partition": -1'),
        ('"hour": "2023-11-14T22"', '"hour": "../../../../x"'),
    ],
)
def test_a_manifest_that_names_what_there_is_not_is_refused(
    tmp_path: Path, old: str, new: str
) -> None:
    """A topic, a partition or an hour that is none: which manifest it is, and no traceback."""
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        log.append([Output("events", b"k", b"1")])
        archived(log, str(tmp_path))
    [manifest] = tmp_path.rglob("manifest.json")
    manifest.write_text(manifest.read_text().replace(old, new))

    with pytest.raises(LogError, match=r"events/0/2023-11-14/manifest.json"):
        Archive(Storage(str(tmp_path)))


def test_a_file_that_is_no_parquet_is_a_fault_of_the_archive(tmp_path: Path) -> None:
    """Though its manifest has its hash."""
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        log.append([Output("events", b"k", b"1")])
        [file] = archived(log, str(tmp_path)).files
        (tmp_path / file.name).write_bytes(b"no Parquet")
        manifest = next(tmp_path.rglob("manifest.json"))
        digest = hashlib.sha256(b"no Parquet").hexdigest()
        manifest.write_text(manifest.read_text().replace(file.sha256, digest))
        [fault] = verify(Archive(Storage(str(tmp_path))), log).faults

    assert "expected a file of records, given another" in fault


@pytest.mark.parametrize(
    "address", ["ftp://ada:hunter2@127.0.0.1:1/x?token=t0k", "nosuch://a:hunter2@x?t0k"]
)
def test_no_password_of_an_address_is_told(
    log: SqliteLog, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    """Of an archive that cannot be reached: its address, what went wrong, and an exit code."""
    code = main(["--broker", f"sqlite:{log.path}", "archive", "--to", address])

    err = capsys.readouterr().err
    assert code == (3 if address.startswith("ftp") else 2)
    assert address.partition("@")[2].partition("?")[0] in err
    assert "hunter2" not in err
    assert "t0k" not in err


def test_retention_between_question_and_reading_loses_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the log has dropped since it said where it begins comes from the archive."""
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        placed = log.append([Output("events", b"k", b"%d" % number) for number in range(9)])
        both = JoinedLog(log, archived(log, f"memory://{next(NUMBERS)}"))
        read, firsts = log.read, iter([0])
        monkeypatch.setattr(log, "first_offset", lambda *_: next(firsts, 5))
        monkeypatch.setattr(
            log, "read", lambda topic, n, offset, limit: read(topic, n, max(5, offset), limit)
        )

        assert placed == both.read("events", 0, 0, 5) + both.read("events", 0, 5, 9)


def test_two_archivers_at_once_are_told_what_to_remove(tmp_path: Path) -> None:
    """Of overlapping files the message names the shorter one; without its entry all is whole."""
    storage = Storage(str(tmp_path))
    with SqliteLog.create(MEMORY, now_ms=lambda: START_MS, identity="a") as log:
        log.append([Output("events", b"k", b"0")])
        other = Archiver(log, storage, now_ms)
        archived(log, str(tmp_path))
        log.append([Output("events", b"k", b"1")])
        other.run()
        manifest = next(tmp_path.rglob("manifest.json"))
        longer = orjson.loads(manifest.read_bytes())
        [shorter] = [f for f in tmp_path.rglob("*.parquet") if f.name.endswith("01.parquet")]
        entry = longer["files"][0]
        files = [entry, {**entry, "end": 1, "name": shorter.name}]
        manifest.write_bytes(orjson.dumps({**longer, "files": files}))
        with pytest.raises(LogError, match=rf"Way out: .*{shorter.name}, out of `files`"):
            Archive(storage)
        manifest.write_bytes(orjson.dumps(longer))
        result = verify(Archive(storage), log)

    assert ([], 2) == (result.faults, result.rows)
