"""The laws that every log keeps; see `stream_ml.shell.log.port` for the promises themselves."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from stream_ml.errors import LogChanged, LogError, LogLocked, UnknownTopic
from stream_ml.records import Output, Record
from stream_ml.shell.log.reading import read_all
from stream_ml.topics import catalogue, embedded, needed, partition_of
from tests.straight import append_straight

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.shell.log.port import Log, WorkerLog

KEYS = [b"JFK", b"LGA", b"EWR", b"BOS", b"", "Zürich".encode()]


def events(numbers: range) -> list[Output]:
    """Events under a handful of keys, each with a value of its own."""
    return [Output("events", KEYS[n % len(KEYS)], b'{"n":%d}' % n) for n in numbers]


def predictions(numbers: range) -> list[Output]:
    """Predictions under a key of their own each."""
    return [Output("predictions", b"e%d" % n, b'{"n":%d}' % n) for n in numbers]


def everything(log: Log, topic: str) -> list[Record]:
    """All records of `topic`, partition by partition."""
    return list(read_all(log, topic))


def ends(log: Log, topic: str) -> list[int]:
    """The end of each partition of `topic`."""
    return [log.end_offset(topic, partition) for partition in range(log.partitions[topic])]


def by_place(records: list[Record]) -> list[Record]:
    """`records` in the order of partitions and offsets."""
    return sorted(records, key=lambda record: (record.partition, record.offset))


# --- all or nothing ---------------------------------------------------------------------------


def test_what_a_client_appends_whole_lies_there_whole_or_not_at_all(log: Log) -> None:
    """Records of several topics are there together; where preparing them fails, none is."""
    batch = [*events(range(8)), Output("commands", b"shop", b"{}")]

    def fail() -> list[Output]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.append_whole("redrive", fail)
    log.append_whole("redrive", list)
    with pytest.raises(LogError, match="examples"):
        log.append_whole("redrive", lambda: [*batch, Output("examples", b"k", b"{}")])
    assert [] == everything(log, "events") == everything(log, "commands")
    seen: list[int] = []

    def look() -> list[Output]:
        seen.append(len(everything(log, "events")))
        return batch

    log.append_whole("redrive", look)
    log.append_whole("redrive", look)

    assert [0, 8] == seen
    assert sorted([each.value for each in batch[:8]] * 2) == sorted(
        record.value for record in everything(log, "events")
    )
    assert 2 == len(everything(log, "commands"))


# --- what there is ----------------------------------------------------------------------------


def test_a_log_keeps_its_identity_however_often_it_is_opened(
    open_log: Callable[[], Log],
) -> None:
    """What was signed for a log is of that log after a restart too."""
    with closing(open_log()) as log:
        identity = log.identity
    with closing(open_log()) as log:
        assert (log.identity, bool(identity)) == (identity, True)


def test_a_new_log_has_every_topic_of_the_catalogue_and_no_records(log: Log) -> None:
    """A new log has all topics but those to declare, and each partition begins and ends at 0."""
    assert set(needed(embedded())) == set(log.partitions)
    for topic, partitions in log.partitions.items():
        assert ends(log, topic) == [0] * partitions
        assert log.first_offset(topic, 0) == 0
        assert everything(log, topic) == []
    assert log.committed("predict-0") == {}
    assert log.state("predict-0") == []
    assert log.piece("predict-0", "") is None


@pytest.mark.parametrize(("topic", "partition"), [("evnets", 0), ("events", 4), ("events", -1)])
def test_an_unknown_topic_or_partition_is_refused(log: Log, topic: str, partition: int) -> None:
    """Whoever asks for what the log does not have is told so, by name."""
    asking: list[Callable[[], object]] = [
        lambda: log.read(topic, partition, 0, 1),
        lambda: log.first_offset(topic, partition),
        lambda: log.end_offset(topic, partition),
    ]
    for ask in asking:
        with pytest.raises(UnknownTopic, match=topic):
            ask()


@pytest.mark.parametrize(("topic", "partition"), [("evnets", 0), ("events", 4), ("events", -1)])
def test_no_position_in_what_is_unknown_is_committed(
    worker_log: WorkerLog, topic: str, partition: int
) -> None:
    """A worker whose positions name what the log does not have commits nothing."""
    with worker_log.session() as session, pytest.raises(UnknownTopic, match=topic):
        session.commit({"predict": {(topic, partition): 1}})
    assert worker_log.committed("predict") == {}


def test_nothing_is_taken_of_a_batch_with_an_unknown_topic(log: Log) -> None:
    """An output for an unknown topic keeps the whole batch out, waited for or posted."""
    batch = [*events(range(3)), Output("evnets", b"k", b"{}")]
    for publish in (log.append, log.post):
        with pytest.raises(UnknownTopic, match="evnets"):
            publish(batch)
    log.flush()
    assert everything(log, "events") == []


@pytest.mark.parametrize(
    "topic", sorted(needed(embedded()).keys() - {"events", "labels", "commands", "layout"})
)
def test_a_client_writes_none_of_the_stages_topics(log: Log, topic: str) -> None:
    """It is told whose topic that is and which ones are its own; nothing of the batch is taken."""
    batch = [*events(range(3)), Output(topic, b"k", b"{}")]
    expected = (
        rf"{topic}: expected a topic that clients write \(commands, events, labels\), given one "
        rf"that only {', '.join(embedded()[topic].writers)} may"
    )
    for publish in (log.append, log.post):
        with pytest.raises(LogError, match=expected):
            publish(batch)
    log.flush()
    assert everything(log, "events") == []
    assert everything(log, topic) == []


def test_nothing_is_staged_of_a_batch_with_an_unknown_topic(worker_log: WorkerLog) -> None:
    """An output for an unknown topic keeps the whole batch out of the commit."""
    with worker_log.session() as session:
        with pytest.raises(UnknownTopic, match="evnets"):
            session.stage([*predictions(range(3)), Output("evnets", b"k", b"{}")])
        assert session.staged_count == 0
        session.commit()
    assert everything(worker_log, "predictions") == []


def test_nothing_is_taken_of_a_batch_with_a_record_that_is_too_long(log: Log) -> None:
    """A record longer than its topic takes keeps the whole batch out, and the error says both."""
    longest = catalogue()["events"].record_bytes_max
    batch = [*events(range(3)), Output("events", b"k", b"x" * (longest + 1))]
    with pytest.raises(LogError, match=rf"events: .* {longest} bytes, given {longest + 1}"):
        log.append(batch)
    assert everything(log, "events") == []
    assert len(log.append([Output("events", b"k", b"x" * longest)])) == 1


def test_a_compacted_topic_takes_no_record_without_a_key(worker_log: WorkerLog) -> None:
    """A topic that is compacted by key refuses a record that has none."""
    with worker_log.session() as session, pytest.raises(LogError, match="models: expected a key"):
        session.stage([Output("models", None, b"{}")])


# --- appending and reading --------------------------------------------------------------------


def test_what_is_appended_is_read_back_in_order(log: Log) -> None:
    """Reading gives what `append` returned: keys, values, tombstones and places."""
    batches = [
        events(range(100)),
        [Output("events", b"JFK", None), Output("events", None, b"no key")],
        events(range(100, 130)),
    ]
    placed = [record for batch in batches for record in log.append(batch)]
    outputs = [output for batch in batches for output in batch]
    assert [(o.topic, o.key, o.value) for o in outputs] == [
        (r.topic, r.key, r.value) for r in placed
    ]
    assert by_place(placed) == everything(log, "events")


def test_offsets_grow_from_0_within_a_partition(log: Log) -> None:
    """Each partition begins at 0, only grows, and ends one past its last record."""
    for start in range(0, 60, 10):
        log.append(events(range(start, start + 10)))
    for partition, end in enumerate(ends(log, "events")):
        offsets = [record.offset for record in log.read("events", partition, 0, 1000)]
        assert offsets == sorted(set(offsets))
        assert offsets[:1] == [0][: len(offsets)]
        assert end == (offsets[-1] + 1 if offsets else 0)


def test_a_key_decides_the_partition(log: Log) -> None:
    """One key is one partition, the one that Kafka's default partitioner gives it."""
    placed = log.append(events(range(200)))
    partitions = log.partitions["events"]
    assert [partition_of(r.key or b"", partitions) for r in placed] == [r.partition for r in placed]
    assert len({record.partition for record in placed}) > 1
    assert {record.partition for record in log.append([Output("events", None, b"{}")])} == {0}


def test_an_empty_batch_appends_nothing(log: Log) -> None:
    """No outputs, no records."""
    assert log.append([]) == []
    assert ends(log, "events") == [0, 0, 0, 0]


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_reading_on_from_the_last_offset_gives_each_record_once(log: Log, limit: int) -> None:
    """Reads are bounded by their limit, and follow each other without gap or overlap."""
    placed = log.append([Output("labels", b"same", b"%d" % n) for n in range(50)])
    partition = placed[0].partition
    seen: list[Record] = []
    while batch := log.read("labels", partition, seen[-1].offset + 1 if seen else 0, limit):
        assert len(batch) <= limit
        seen += batch
    assert placed == seen


def test_append_times_never_fall(log: Log) -> None:
    """Within a partition each record's stamp is at least that of the one before."""
    for n in range(20):
        log.append([Output("labels", b"same", b"%d" % n)])
    stamps = [record.append_ms for record in everything(log, "labels")]
    assert all(earlier <= later for earlier, later in pairwise(stamps))
    assert stamps[0] > 0


def test_the_version_differs_after_every_write(log: Log) -> None:
    """The token that saves looking for records changes with each append."""
    versions = [log.version()]
    log.append(events(range(1)))
    versions.append(log.version())
    log.append([Output("commands", b"c", b"{}")])
    versions.append(log.version())
    assert len(set(versions)) == 3


def test_the_version_differs_after_every_commit(worker_log: WorkerLog) -> None:
    """The token changes with what a worker commits."""
    before = worker_log.version()
    with worker_log.session() as session:
        session.stage(predictions(range(1)))
        session.commit()
    assert before != worker_log.version()


def test_what_is_posted_is_there_after_a_flush(log: Log) -> None:
    """Posted records are taken in order, partition by partition, once `flush` returns."""
    for start in range(0, 3_000, 500):
        log.post(events(range(start, start + 500)))
    log.flush()
    log.flush()
    found = everything(log, "events")
    assert sorted(o.value or b"" for o in events(range(3_000))) == sorted(
        record.value or b"" for record in found
    )
    for key in KEYS:
        numbers = [int((r.value or b"")[5:-1]) for r in found if r.key == key]
        assert numbers == sorted(numbers)


def test_an_offset_is_found_by_time(log: Log) -> None:
    """The first record appended at a time or later is found; the end, where there is none."""
    placed = [
        record for n in range(20) for record in log.append([Output("labels", b"k", b"%d" % n)])
    ]
    partition = placed[0].partition
    for record in placed:
        first = next(r.offset for r in placed if r.append_ms >= record.append_ms)
        assert log.offset_at("labels", partition, record.append_ms) == first
    assert log.offset_at("labels", partition, 0) == 0
    later = placed[-1].append_ms + 3_600_000
    assert log.offset_at("labels", partition, later) == log.end_offset("labels", partition) == 20


def test_a_tail_gives_what_is_there_and_what_comes(log: Log) -> None:
    """From its offsets on, over all partitions, each record once and in order."""
    partitions = range(log.partitions["events"])
    placed = log.append(events(range(30)))
    begin = {p: min(3, log.end_offset("events", p)) for p in partitions}
    with closing(log.tail("events", begin)) as tail:
        ends = {p: log.end_offset("events", p) for p in partitions}
        seen: list[Record] = []
        while not tail.has_reached(ends):
            seen += tail.poll(1.0)
        assert tail.poll(0.0) == []
        placed += log.append(events(range(30, 60)))
        while len(seen) < sum(record.offset >= begin[record.partition] for record in placed):
            seen += tail.poll(1.0)
    assert by_place(seen) == by_place([r for r in placed if r.offset >= begin[r.partition]])
    assert [r for r in seen if r.partition == placed[0].partition] == by_place(
        [r for r in seen if r.partition == placed[0].partition]
    )


# --- the worker's session ---------------------------------------------------------------------


def test_staged_records_are_known_at_once_and_seen_after_the_commit(worker_log: WorkerLog) -> None:
    """What `stage` returns is, record for record, what others read once it is committed."""
    with worker_log.session() as session:
        memo = object()
        outputs = predictions(range(30))
        outputs[0].memo = memo
        staged = session.stage(outputs)
        assert staged[0].memo is memo
        staged += session.stage(predictions(range(30, 60)))
        assert session.staged_count == 60
        assert everything(worker_log, "predictions") == []
        session.commit()
        assert session.staged_count == 0
        assert len(everything(worker_log, "predictions")) == 60
        staged += session.stage(predictions(range(60, 90)))
        session.commit()
    for record in staged:
        record.memo = None
    assert by_place(staged) == everything(worker_log, "predictions")


def test_publishers_append_between_commits(worker_log: WorkerLog) -> None:
    """A session holds nobody up: appends go through while outputs are staged."""
    with worker_log.session() as session:
        for n in range(10):
            session.stage(predictions(range(n, n + 1)))
            worker_log.append(events(range(n, n + 1)))
        assert sum(ends(worker_log, "events")) == 10
        session.commit()
    assert sum(ends(worker_log, "predictions")) == 10


def test_a_commit_writes_outputs_positions_and_state_together(worker_log: WorkerLog) -> None:
    """After a commit all three are there; what it did not name stays as it was."""
    with worker_log.session() as session:
        session.stage(predictions(range(2)))
        session.commit(
            {"predict": {("events", 0): 5, ("events", 1): 7}, "join": {("labels", 0): 1}},
            [("predict", "b", b"2"), ("predict", "a", b"1"), ("join", "a", b"other")],
        )
        session.commit(
            {"predict": {("events", 1): 8}},
            [("predict", "a", None), ("predict", "c", b""), ("predict", "b", b"two")],
        )
    assert worker_log.committed("predict") == {("events", 0): 5, ("events", 1): 8}
    assert worker_log.committed("join") == {("labels", 0): 1}
    assert worker_log.state("predict") == [("b", b"two"), ("c", b"")]
    assert (worker_log.piece("predict", "b"), worker_log.piece("predict", "a")) == (b"two", None)
    assert worker_log.state("join") == [("a", b"other")]
    assert sum(ends(worker_log, "predictions")) == 2


def test_of_a_state_piece_given_twice_the_last_counts(worker_log: WorkerLog) -> None:
    """Within one commit the pieces of one key are taken in their order."""
    with worker_log.session() as session:
        session.commit(state=[("g", "k", b"1"), ("g", "k", None), ("g", "l", None)])
        assert worker_log.state("g") == []
        session.commit(state=[("g", "k", None), ("g", "k", b"2")])
    assert worker_log.state("g") == [("k", b"2")]


def test_an_abandoned_session_leaves_nothing(worker_log: WorkerLog) -> None:
    """What was staged and not committed is never seen, and its offsets are given again."""
    with worker_log.session() as session:
        first = session.stage(predictions(range(5)))
        session.commit({"predict": {("events", 0): 5}}, [("predict", "k", b"5")])
    with worker_log.session() as session:
        abandoned = session.stage(predictions(range(5, 9)))
    assert by_place(first) == everything(worker_log, "predictions")
    assert worker_log.committed("predict") == {("events", 0): 5}
    assert worker_log.state("predict") == [("k", b"5")]
    with worker_log.session() as session:
        again = session.stage(predictions(range(5, 9)))
        places = [(r.partition, r.offset) for r in again]
        assert [(r.partition, r.offset) for r in abandoned] == places


def test_an_error_in_the_worker_commits_nothing(worker_log: WorkerLog) -> None:
    """Leaving the session by an exception is leaving it without a commit."""

    def work() -> None:
        with worker_log.session() as session:
            session.stage(predictions(range(3)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert everything(worker_log, "predictions") == []
    worker_log.session().close()


def test_a_second_session_is_refused_until_the_first_is_closed(worker_log: WorkerLog) -> None:
    """There is one worker at a time."""
    with worker_log.session(), pytest.raises(LogLocked):
        worker_log.session()
    with worker_log.session() as session:
        session.close()
        session.close()


def test_a_closed_session_commits_nothing(worker_log: WorkerLog) -> None:
    """Once its place is given up a session cannot write."""
    session = worker_log.session()
    session.close()
    with pytest.raises(LogError, match="open session"):
        session.commit({"predict": {("events", 0): 1}})
    assert worker_log.committed("predict") == {}


def test_a_foreign_append_where_only_the_worker_may_stops_the_commit(worker_log: WorkerLog) -> None:
    """Staged offsets that have been taken by another writer are never written."""
    with worker_log.session() as session:
        session.stage(predictions(range(8)))
        foreign = append_straight(worker_log, predictions(range(1)))
        with pytest.raises(LogChanged, match="only the worker to write to predictions-"):
            session.commit({"predict": {("events", 0): 1}})
    assert everything(worker_log, "predictions") == foreign
    assert worker_log.committed("predict") == {}


# --- what lasts -------------------------------------------------------------------------------


def test_what_was_published_survives_closing_and_opening(open_log: Callable[[], Log]) -> None:
    """Records and ends are the same in a log that is opened again."""
    with open_log() as log:
        published = log.append(events(range(40)))
        before = ends(log, "events")
    with open_log() as log:
        assert by_place(published) == everything(log, "events")
        assert before == ends(log, "events")
        assert sorted(r.offset for r in log.append(events(range(1)))) == [
            before[published[0].partition]
        ]


def test_what_was_committed_survives_closing_and_opening(
    open_worker_log: Callable[[], WorkerLog],
) -> None:
    """Records, ends, positions and state are the same in a log that is opened again."""
    with closing(open_worker_log()) as log:
        published = log.append(events(range(40)))
        session = log.session()
        committed = session.stage(predictions(range(30)))
        session.commit({"predict": {("events", 1): 9}}, [("predict", "k", b"piece")])
        session.stage(predictions(range(30, 60)))
        before = ends(log, "predictions")
    with closing(open_worker_log()) as log:
        assert by_place(published) == everything(log, "events")
        assert by_place(committed) == everything(log, "predictions")
        assert before == ends(log, "predictions")
        assert log.committed("predict") == {("events", 1): 9}
        assert log.state("predict") == [("k", b"piece")]
        with log.session() as session:
            for record in session.stage(predictions(range(30, 60))):
                assert record.offset >= before[record.partition]


def test_one_log_sees_what_another_object_publishes(open_log: Callable[[], Log]) -> None:
    """Two that opened the same log read each other's records, and notice them."""
    with open_log() as reader, open_log() as publisher:
        assert everything(reader, "events") == []
        for start in (0, 10):
            before = reader.version()
            publisher.append(events(range(start, start + 10)))
            assert before != reader.version()
            assert everything(publisher, "events") == everything(reader, "events")
        assert len(everything(reader, "events")) == 20


def test_one_log_sees_what_another_object_writes(
    open_worker_log: Callable[[], WorkerLog],
) -> None:
    """Two that opened the same log read each other's commits, and notice them."""
    with closing(open_worker_log()) as worker, closing(open_worker_log()) as publisher:
        before = worker.version()
        published = publisher.append(events(range(10)))
        assert before != worker.version()
        assert by_place(published) == everything(worker, "events")
        with worker.session() as session:
            with pytest.raises(LogLocked):
                publisher.session()
            staged = session.stage(predictions(range(10)))
            session.commit({"predict": {("events", 0): 3}})
        assert by_place(staged) == everything(publisher, "predictions")
        assert publisher.committed("predict") == {("events", 0): 3}
