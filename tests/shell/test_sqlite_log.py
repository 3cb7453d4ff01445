"""What the embedded log adds to the laws of every log: crashes, neighbours, limits, retention."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from stream_ml.errors import LogError, LogFull, LogLocked
from stream_ml.records import Output, Record
from stream_ml.shell.log import sqlite as sqlite_log
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.log.sqlite_file import PAGE_BYTES
from stream_ml.topics import embedded
from tests.straight import append_straight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

# Forked children start in milliseconds, for they import nothing again. No log is open meanwhile:
# SQLite's connections must not be carried over a fork.
FORK = multiprocessing.get_context("fork")
DEADLINE_S = 30.0
DAY_MS = 86_400_000


class Clock:
    """A clock that shows what it is set to."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        """The time it shows."""
        return self.now_ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log may be made; an awkward name, for paths are not URIs."""
    return tmp_path / "a log?mode=ro#1.db"


@pytest.fixture
def clock() -> Clock:
    """A clock at some moment in 2013."""
    return Clock(1_370_000_000_000)


@pytest.fixture
def log(clock: Clock) -> Iterator[SqliteLog]:
    """A log in memory with a clock of ours."""
    with SqliteLog.create(MEMORY, now_ms=clock) as opened:
        yield opened


def outputs(topic: str, numbers: range) -> list[Output]:
    """Records of `topic`, each with a number for its value."""
    return [Output(topic, b"k%d" % n, b"%d" % n) for n in numbers]


def values(log: SqliteLog, topic: str, partition: int = 0) -> list[bytes | None]:
    """The values of a partition."""
    return [record.value for record in log.read(topic, partition, 0, 1_000_000)]


def start(target: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """A child process that runs `target`, and the end of a pipe from it."""
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def hear(pipe: Connection) -> Any:
    """The next word from a child, which has a while to say it."""
    assert pipe.poll(DEADLINE_S), "the child process said nothing"
    return pipe.recv()


def finish(process: BaseProcess, pipe: Connection) -> None:
    """Waits for a child that has nothing more to do."""
    process.join(DEADLINE_S)
    assert process.exitcode == 0
    process.close()
    pipe.close()


def kill(process: BaseProcess, pipe: Connection) -> None:
    """Kills a child as `kill -9` does."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(DEADLINE_S)
    assert process.exitcode == -signal.SIGKILL
    process.close()
    pipe.close()


# --- killed -----------------------------------------------------------------------------------


def commit_for_ever(path: Path, seed: int, pipe: Connection) -> None:
    """A worker whose position and state are the number of its outputs; says each one committed."""
    rand = random.Random(seed)
    with SqliteLog.open_or_create(path) as log, log.session() as session:
        total = log.end_offset("predictions", 0)
        while True:
            fresh = rand.randint(1, 40)
            for n in range(total, total + fresh):
                session.stage([Output("predictions", b"%d" % n, b"%d" % n * rand.randint(1, 300))])
            total += fresh
            session.commit({"predict": {("events", 0): total}}, [("predict", "n", b"%d" % total)])
            pipe.send(total)


def busy_until(instant_s: float) -> None:
    """Passes less than a few milliseconds, too short a time to sleep."""
    while perf_counter() < instant_s:
        pass


def test_a_worker_killed_at_any_instant_leaves_a_whole_number_of_commits(path: Path) -> None:
    """After each of 20 kills records, positions and state agree, and nothing reported is lost."""
    rand = random.Random(2013)
    reported = 0
    for kill_number in range(20):
        process, pipe = start(commit_for_ever, path, kill_number)
        for _ in range(rand.randint(1, 60)):
            reported = hear(pipe)
        busy_until(perf_counter() + rand.uniform(0, 0.003))
        kill(process, pipe)
        with SqliteLog.open(path) as log:
            end = log.end_offset("predictions", 0)
            assert end >= reported
            assert log.committed("predict") == {("events", 0): end}
            assert log.state("predict") == [("n", b"%d" % end)]
            records = log.read("predictions", 0, 0, end + 1)
            assert [record.offset for record in records] == list(range(end))
            assert [record.key for record in records] == [b"%d" % n for n in range(end)]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def publish_for_ever(path: Path, pipe: Connection) -> None:
    """A publisher that says how many events it has published after each batch."""
    with SqliteLog.open(path) as log:
        total = log.end_offset("events", 0)
        while True:
            total = log.append(outputs("events", range(total, total + 7)))[-1].offset + 1
            pipe.send(total)


def test_a_publisher_killed_at_any_instant_loses_nothing_it_was_told_is_there(path: Path) -> None:
    """Batches are there wholly or not at all, and those reported are there."""
    rand = random.Random(42)
    SqliteLog.create(path).close()
    for _ in range(5):
        process, pipe = start(publish_for_ever, path)
        for _ in range(rand.randint(1, 60)):
            reported = hear(pipe)
        busy_until(perf_counter() + rand.uniform(0, 0.001))
        kill(process, pipe)
        with SqliteLog.open(path) as log:
            end = log.end_offset("events", 0)
            assert end >= reported
            assert end % 7 == 0
            assert values(log, "events") == [b"%d" % n for n in range(end)]


# --- neighbours -------------------------------------------------------------------------------


def publish_some(path: Path, name: bytes, pipe: Connection) -> None:
    """A publisher of 2,000 events in 200 batches."""
    with SqliteLog.open(path) as log:
        for first in range(0, 2000, 10):
            numbers = range(first, first + 10)
            log.append([Output("events", b"%s-%d" % (name, n), name) for n in numbers])
    pipe.send("done")


def test_two_publishers_and_a_worker_do_not_get_in_each_others_way(path: Path) -> None:
    """Two processes publish while a third commits: all is there, each publisher's in its order."""
    SqliteLog.create(path, partitions=2).close()
    children = [start(publish_some, path, name) for name in (b"a", b"b")]
    with SqliteLog.open(path) as log, log.session() as session:
        while log.end_offset("events", 0) + log.end_offset("events", 1) < 4000:
            assert any(process.is_alive() for process, _ in children)
            session.stage(outputs("predictions", range(3)))
            session.commit()
    for process, pipe in children:
        assert hear(pipe) == "done"
        finish(process, pipe)
    with SqliteLog.open(path) as log:
        published: dict[bytes | None, list[int]] = {b"a": [], b"b": []}
        for partition in (0, 1):
            records = log.read("events", partition, 0, 10_000)
            assert [record.offset for record in records] == list(range(len(records)))
            for name in (b"a", b"b"):
                numbers = [int((r.key or b"")[2:]) for r in records if r.value == name]
                assert numbers == sorted(numbers)
                published[name] += numbers
        assert sorted(published[b"a"]) == sorted(published[b"b"]) == list(range(2000))


def open_and_say(path: Path, gate: Barrier, pipe: Connection) -> None:
    """Opens a log that may not be there, publishes one event."""
    gate.wait(DEADLINE_S)
    with SqliteLog.open_or_create(path, partitions=3) as log:
        log.append(outputs("labels", range(1)))
        pipe.send(dict(log.partitions))


@pytest.mark.parametrize("attempt", range(10))
def test_several_processes_may_make_the_log_at_once(path: Path, attempt: int) -> None:
    """Of those that find no log one makes it, and all open the same."""
    del attempt  # a race is not lost each time
    gate = FORK.Barrier(6)
    children = [start(open_and_say, path, gate) for _ in range(6)]
    partitions = [hear(pipe) for _, pipe in children]
    for process, pipe in children:
        finish(process, pipe)
    with SqliteLog.open(path) as log:
        assert [dict(log.partitions)] * 6 == partitions
        assert sum(log.end_offset("labels", partition) for partition in range(3)) == 6


def hold_the_session(path: Path, pipe: Connection) -> None:
    """A worker that does nothing until it is killed."""
    with SqliteLog.open(path) as log, log.session():
        pipe.send(os.getpid())
        signal.pause()


def test_the_workers_place_is_the_file_s_whatever_it_is_called(path: Path, tmp_path: Path) -> None:
    """A second worker is refused through a link to the file, or to a folder above it."""
    link, folder, further = tmp_path / "link", tmp_path / "folder", tmp_path / "further"
    link.symlink_to(path)
    folder.symlink_to(path.parent, target_is_directory=True)
    with SqliteLog.create(path) as log, log.session():
        for name in (link, folder / path.name):
            with SqliteLog.open(name) as other, pytest.raises(LogLocked):
                other.session()
    further.hardlink_to(path)
    with SqliteLog.open(further) as log, pytest.raises(LogError, match="given 2 hard links"):
        log.session()


def test_the_workers_place_is_one_process_s_until_it_dies(path: Path) -> None:
    """A second worker is told which file and process are in its way; a kill frees the place."""
    SqliteLog.create(path).close()
    process, pipe = start(hold_the_session, path)
    pid = hear(pipe)
    with SqliteLog.open(path) as log:
        with pytest.raises(LogLocked) as refused:
            log.session()
        assert f"{path}.worker" in str(refused.value)
        assert f"process {pid}" in str(refused.value)
        log.append(outputs("events", range(1)))
    kill(process, pipe)
    with SqliteLog.open(path) as log, log.session() as session:
        session.stage(outputs("predictions", range(1)))
        session.commit()


def test_a_writer_that_does_not_end_gives_log_locked(path: Path) -> None:
    """Whoever waits for another writer too long gets `LogLocked`, may read, and may try again."""
    with (
        SqliteLog.create(path, busy_timeout_ms=1) as log,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        log.session() as session,
    ):
        session.stage(outputs("predictions", range(2)))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogLocked, match="busy_timeout_ms"):
            log.append(outputs("events", range(1)))
        with pytest.raises(LogLocked, match="busy_timeout_ms"):
            session.commit()
        assert values(log, "predictions") == []
        other.execute("ROLLBACK")
        session.commit()
        assert values(log, "predictions") == [b"0", b"1"]


# --- full -------------------------------------------------------------------------------------


def test_a_full_disk_writes_nothing_of_the_transaction(log: SqliteLog) -> None:
    """`LogFull` leaves all as it was; with space again the same commit goes through."""
    (pages,) = log._file.row("PRAGMA page_count")
    with log.session() as session:
        session.commit({"predict": {("events", 0): 1}}, [("predict", "k", b"1")])
        log._file.row(f"PRAGMA max_page_count = {pages + 2}")
        session.stage([Output("predictions", b"k", b"x" * 100_000)])
        with pytest.raises(LogFull, match="free some space"):
            session.commit({"predict": {("events", 0): 2}}, [("predict", "k", b"2")])
        with pytest.raises(LogFull):
            log.append([Output("events", b"k", b"x" * 100_000)])
        assert values(log, "predictions") == values(log, "events") == []
        assert log.committed("predict") == {("events", 0): 1}
        assert log.state("predict") == [("k", b"1")]
        log._file.row("PRAGMA max_page_count = 100000")
        session.commit({"predict": {("events", 0): 2}}, [("predict", "k", b"2")])
    assert values(log, "predictions") == [b"x" * 100_000]
    assert log.committed("predict") == {("events", 0): 2}


def commit_until_full(path: Path, pipe: Connection) -> None:
    """A worker whose files may not grow beyond 2 MB; says how many outputs it committed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    with SqliteLog.open(path) as log, log.session() as session:
        total = 0
        try:
            while True:
                session.stage([Output("predictions", b"k", os.urandom(5000)) for _ in range(10)])
                session.commit({"predict": {("events", 0): total + 10}})
                total += 10
        except LogFull as error:
            pipe.send((total, str(error)))


def test_a_limit_on_the_size_of_files_is_a_full_disk(path: Path) -> None:
    """A write that the operating system refuses is `LogFull`, and what was committed is sound."""
    SqliteLog.create(path).close()
    process, pipe = start(commit_until_full, path)
    total, message = hear(pipe)
    finish(process, pipe)
    assert str(path) in message
    assert total > 0
    with SqliteLog.open(path) as log:
        assert log.end_offset("predictions", 0) == len(values(log, "predictions")) == total
        assert log.committed("predict") == {("events", 0): total}


# --- not a log --------------------------------------------------------------------------------


def not_a_database(path: Path) -> None:
    """A file of something else."""
    path.write_bytes(b"event_id,ts,key\n" * 100)


def empty(path: Path) -> None:
    """A file of nothing."""
    path.touch()


def of_another_program(path: Path) -> None:
    """A sound SQLite file that is not ours."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def of_another_format(path: Path) -> None:
    """A log as a later release may write it."""
    SqliteLog.create(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (not_a_database, "expected a log, given a file that is no SQLite file; choose another"),
        (of_another_program, "expected a log, given another program's SQLite file; choose another"),
        (of_another_format, "expected a log of format 1, given format 99; use the release that"),
    ],
)
def test_what_is_not_a_log_is_refused_and_left_alone(
    path: Path, prepare: Callable[[Path], None], message: str
) -> None:
    """Each way of opening says what was expected, what is there, and the way out."""
    prepare(path)
    before = path.read_bytes()
    for opened in (SqliteLog.open, SqliteLog.open_or_create, SqliteLog.create):
        with pytest.raises(LogError, match=message) as refused:
            opened(path)
        assert str(path) in str(refused.value)
    assert before == path.read_bytes()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [(lambda _: None, "given no file; make one"), (empty, "given an empty file; make one")],
)
def test_open_makes_nothing(path: Path, prepare: Callable[[Path], None], message: str) -> None:
    """Opening what is not there says so; making it then works."""
    prepare(path)
    with pytest.raises(LogError, match=message):
        SqliteLog.open(path)
    SqliteLog.create(path).close()
    SqliteLog.open(path).close()


def test_create_refuses_where_a_log_is(path: Path) -> None:
    """A log is never made anew over another."""
    with SqliteLog.create(path) as log:
        log.append(outputs("events", range(3)))
        with pytest.raises(LogError, match="expected no log there yet, given one"):
            SqliteLog.create(path)
        assert len(values(log, "events")) == 3


@pytest.mark.parametrize("opened", [SqliteLog.create, SqliteLog.open_or_create])
def test_a_folder_that_does_not_exist_is_named(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[SqliteLog]]
) -> None:
    """A log in a folder that is not there gives the path and what to look at."""
    with pytest.raises(LogError, match=r"nowhere/log\.db: .* see that its folder exists"):
        opened(tmp_path / "nowhere" / "log.db")


def test_a_file_that_may_not_be_written_is_said_to_be_so(path: Path) -> None:
    """Writing where one may only read names the file and the cause; reading goes on."""
    with SqliteLog.create(path) as log:
        log._file.row("PRAGMA query_only = ON")
        with pytest.raises(LogError, match="read-only file or folder"):
            log.append(outputs("events", range(1)))
        assert values(log, "events") == []


def test_a_damaged_file_is_said_to_be_so(path: Path) -> None:
    """Bytes overwritten inside the file give an error with the way out, not garbage."""
    with SqliteLog.create(path) as log:
        log.append([Output("events", b"k", b"x" * 3000) for _ in range(500)])
    with path.open("r+b") as file:
        file.seek(40 * PAGE_BYTES)
        file.write(b"\x5a" * 100 * PAGE_BYTES)
    with SqliteLog.open(path) as log, pytest.raises(LogError, match="given a damaged one"):
        values(log, "events")


def test_wrong_settings_are_refused(path: Path) -> None:
    """A setting that means nothing is an error before there is a file."""
    with pytest.raises(LogError, match="expected at least 1 partition, given 0"):
        SqliteLog.create(MEMORY, partitions=0)
    with pytest.raises(LogError, match="expected 'normal' or 'full', given 'off'"):
        SqliteLog.create(path, synchronous="off")  # type: ignore[arg-type] # the mistake on trial
    assert not path.exists()


# --- what the file holds ----------------------------------------------------------------------


def test_only_scaling_topics_have_the_partitions_asked_for(path: Path) -> None:
    """The number is chosen when the log is made, and stored in it."""
    SqliteLog.create(path, partitions=3).close()
    with SqliteLog.open_or_create(path, partitions=9) as log:
        scaling = {name for name, topic in embedded().items() if topic.scales}
        assert scaling == {topic for topic, number in log.partitions.items() if number == 3}
        assert {1, 3} == set(log.partitions.values())
    with SqliteLog.create(MEMORY) as log:
        assert set(log.partitions.values()) == {1}


@pytest.mark.parametrize(("setting", "stored"), [("normal", 1), ("full", 2)])
def test_synchronous_is_what_was_asked_for(path: Path, setting: Any, stored: int) -> None:
    """The choice reaches SQLite, in WAL mode."""
    with SqliteLog.create(path, synchronous=setting) as log:
        assert log._file.row("PRAGMA synchronous") == (stored,)
        assert log._file.row("PRAGMA journal_mode") == ("wal",)


def test_append_times_never_fall_when_the_clock_is_set_back(log: SqliteLog, clock: Clock) -> None:
    """A partition's stamps stay where they were until the clock has caught up."""
    stamps: list[Record] = []
    with log.session() as session:
        for now_ms in (1000, 3000, 2000, 4000):
            clock.now_ms = now_ms
            stamps += log.append(outputs("events", range(1)))
            session.stage(outputs("predictions", range(1)))
        session.commit()
    assert [record.append_ms for record in stamps] == [1000, 3000, 3000, 4000]
    staged = log.read("predictions", 0, 0, 10)
    assert [record.append_ms for record in staged] == [1000, 3000, 3000, 4000]


@pytest.mark.parametrize("ahead_ms", [60_010, 365 * DAY_MS])
def test_a_publisher_whose_clock_is_ahead_stamps_only_its_own(
    log: SqliteLog, clock: Clock, ahead_ms: int
) -> None:
    """The records after its own have the stamps of their own clock, also from another process."""
    began = clock.now_ms
    stamps: list[Record] = []
    for now_ms in (began, began + ahead_ms, began + 1, began + 2, began + 1):
        clock.now_ms = now_ms
        stamps += log.append(outputs("events", range(1)))

    expected = [began, began + ahead_ms, began + 1, began + 2, began + 2]
    assert expected == [record.append_ms for record in stamps]
    assert expected == [record.append_ms for record in log.read("events", 0, 0, 10)]
    assert 1 == log.offset_at("events", 0, began + 3)


def test_a_stamp_that_is_still_to_come_keeps_nothing_from_going(
    log: SqliteLog, clock: Clock
) -> None:
    """One record of a clock that was a year ahead does not stop retention for a year."""
    aged(log, clock, "events", [400, 380, -365, 370, 1])
    with log.session() as session:
        session.commit({"w": {("events", 0): 5}})

    assert 4 == log.expire(clock.now_ms)
    assert 4 == log.first_offset("events", 0)


def test_a_read_is_bounded_in_bytes(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large records come a few at a time, but always at least one."""
    append_straight(log, [Output("models", b"m@%d" % n, b"x" * 1000) for n in range(10)])
    monkeypatch.setattr(sqlite_log, "READ_BYTES_MAX", 2500)
    assert len(log.read("models", 0, 0, 10)) == 3
    monkeypatch.setattr(sqlite_log, "READ_BYTES_MAX", 1)
    assert len(log.read("models", 0, 4, 10)) == 1


def test_a_mistake_in_our_use_of_sqlite_is_not_dressed_up(log: SqliteLog) -> None:
    """Using a closed log is a mistake of the program, and reads as one."""
    log.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        log.end_offset("events", 0)


# --- retention --------------------------------------------------------------------------------


def aged(log: SqliteLog, clock: Clock, topic: str, ages_days: list[int]) -> None:
    """Appends a record per age, oldest first, and leaves the clock at now."""
    now_ms = clock.now_ms
    for age in ages_days:
        clock.now_ms = now_ms - age * DAY_MS
        append_straight(log, [Output(topic, b"k", b"%d" % age)])
    clock.now_ms = now_ms


def test_what_is_older_than_the_catalogue_says_goes(log: SqliteLog, clock: Clock) -> None:
    """Records go by their age since the append; offsets and what follows stay."""
    aged(log, clock, "alerts", [400, 366, 365, 10])
    aged(log, clock, "registry", [4000])
    assert log.expire(clock.now_ms) == 2
    assert log.first_offset("alerts", 0) == 2
    assert [record.offset for record in log.read("alerts", 0, 0, 10)] == [2, 3]
    assert values(log, "registry") == [b"4000"]
    assert log.expire(clock.now_ms) == 0
    assert log.expire(clock.now_ms + 10_000 * DAY_MS) == 2
    assert (log.first_offset("alerts", 0), log.end_offset("alerts", 0)) == (4, 4)
    (placed,) = append_straight(log, [Output("alerts", b"k", b"new")])
    assert placed.offset == 4


def test_nothing_goes_that_a_group_has_yet_to_consume(clock: Clock) -> None:
    """The slowest group of a topic holds it up, also where it has read nothing of a partition."""
    with SqliteLog.create(MEMORY, partitions=2, now_ms=clock) as log:
        keys = {0: b"k3", 1: b"k0"}
        for partition, key in keys.items():
            placed = log.append([Output("events", key, b"") for _ in range(10)])
            assert {record.partition for record in placed} == {partition}
        later = clock.now_ms + 10_000 * DAY_MS
        with log.session() as session:
            session.commit({"predict": {("events", 0): 7}, "other": {("events", 0): 4}})
            assert log.expire(later) == 4
            session.commit({"predict": {("events", 1): 2}, "other": {("events", 0): 10}})
            assert log.expire(later) == 3
            session.commit({"predict": {("events", 1): 9}, "other": {("events", 1): 8}})
            assert log.expire(later) == 8
        assert (log.first_offset("events", 0), log.first_offset("events", 1)) == (7, 8)


def test_the_work_of_one_call_is_bounded(log: SqliteLog, clock: Clock) -> None:
    """A call looks at so many records of a partition and no more; calls add up."""
    log.append(outputs("labels", range(25)))
    append_straight(log, outputs("alerts", range(5)))
    later = clock.now_ms + 10_000 * DAY_MS
    assert [log.expire(later, records_max=10) for _ in range(4)] == [15, 10, 5, 0]


def model(name: str, value: bytes | None) -> Output:
    """A record on the compacted topic."""
    return Output("models", name.encode(), value)


def test_a_compacted_topic_keeps_the_newest_of_each_key(log: SqliteLog, clock: Clock) -> None:
    """Superseded records and tombstones go, at whatever age; offsets stay."""
    versions = [("a", b"1"), ("b", b"1"), ("a", b"2"), ("c", b"1"), ("b", None), ("c", None)]
    append_straight(log, [model(name, value) for name, value in [*versions, ("c", b"2")]])
    removed = sum(log.expire(clock.now_ms, records_max=2) for _ in range(10))
    assert removed == 5
    kept = [(record.key, record.value, record.offset) for record in log.read("models", 0, 0, 10)]
    assert kept == [(b"a", b"2", 2), (b"c", b"2", 6)]
    append_straight(log, [model("a", b"3")])
    assert log.expire(clock.now_ms) == 1
    assert [record.offset for record in log.read("models", 0, 0, 10)] == [6, 7]


def test_compaction_waits_for_who_reads_the_topic(log: SqliteLog, clock: Clock) -> None:
    """A record supersedes others once every group has read it, and a tombstone stays until then."""
    append_straight(log, [model("a", b"1"), model("a", b"2"), model("b", b"1"), model("b", None)])
    with log.session() as session:
        session.commit({"evaluate": {("models", 0): 1}})
        assert log.expire(clock.now_ms) == 0
        session.commit({"evaluate": {("models", 0): 3}})
        assert log.expire(clock.now_ms) == 1
        session.commit({"evaluate": {("models", 0): 4}})
        assert log.expire(clock.now_ms) == 2
    assert values(log, "models") == [b"2"]


def test_a_worker_goes_on_while_records_expire(log: SqliteLog, clock: Clock) -> None:
    """Retention moves no end: what is staged before is committed after, where it was to be."""
    with log.session() as session:
        session.stage(outputs("predictions", range(3)))
        session.commit()
        staged = session.stage(outputs("predictions", range(3, 5)))
        assert log.expire(clock.now_ms + 100 * DAY_MS) == 3
        session.commit()
    assert log.read("predictions", 0, 0, 10) == staged
    assert log.first_offset("predictions", 0) == 3


# --- identity ---------------------------------------------------------------------------------


def test_no_two_logs_have_one_identity(tmp_path: Path) -> None:
    """Two logs of one name, or of none, are two; a copy of a file is the same one."""
    with SqliteLog.create(MEMORY) as one, SqliteLog.create(tmp_path / "a") as other:
        assert one.identity != other.identity
        kept = other.identity
    shutil.copy(tmp_path / "a", tmp_path / "b")
    with SqliteLog.open(tmp_path / "b") as copy:
        assert copy.identity == kept


def test_a_file_of_a_former_release_gets_an_identity_once(tmp_path: Path) -> None:
    """A log that was made before logs had identities has one from its first opening on."""
    with SqliteLog.create(tmp_path / "a"):
        pass
    with sqlite3.connect(tmp_path / "a") as file:
        file.execute("DROP TABLE identity")
    file.close()
    with SqliteLog.open(tmp_path / "a") as first, SqliteLog.open(tmp_path / "a") as second:
        assert (first.identity, bool(first.identity)) == (second.identity, True)


def test_the_first_offset_never_falls(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another task's worker removes more of the events between two steps of one."""
    with SqliteLog.create(path, now_ms=clock) as made:
        aged(made, clock, "events", [400, 380, 1])
        with made.session() as session:
            session.commit({"w": {("events", 0): 3}})
    bounds, others = sqlite_log._bounds, [SqliteLog.open(path, now_ms=clock)]

    def bounds_before_another_one(*arguments: Any) -> tuple[int, int, int]:
        found = bounds(*arguments)
        if others and arguments[1].topic == "events":
            with others.pop() as other:
                assert 3 == other.expire(clock.now_ms + 10_000 * DAY_MS)
        return found

    monkeypatch.setattr(sqlite_log, "_bounds", bounds_before_another_one)
    with SqliteLog.open(path, now_ms=clock) as log:
        log.expire(clock.now_ms, records_max=1)
        assert 3 == log.first_offset("events", 0)
