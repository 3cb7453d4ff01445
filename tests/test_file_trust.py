"""The embedded log's file: clocks that are wrong, and who writes into it without the key."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.codec import decode_decision
from stream_ml.errors import LogLocked, StateRefused
from stream_ml.records import Output
from stream_ml.sealing import Seals, strip_seal
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.manifest import NAME, OWNER
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.testing import Driver
from tests.scenarios.test_one_record import COUNT, LIVE_MS, YEAR_MS, honest, outcome, quiet, watched
from tests.simulation.world import pipeline, stream
from tests.straight import append_straight
from tests.test_forgery import own, undisturbed

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.records import Record
    from stream_ml.shell.log.port import OwnWrites

TASKS = ("predict-0", "join-0", "learn-0", "evaluate-0")
HOUR_MS = 3_600_000


# --- clocks -----------------------------------------------------------------------------------


def fast(count: int, ahead_ms: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events of as many keys, and labels, dated by a clock that is ahead."""
    events = [
        {
            "event_id": f"fast{n}",
            "ts": LIVE_MS + ahead_ms + n,
            "shop": f"f{n}",
            "kind": "visit",
            "amount": 9.0,
        }
        for n in range(count)
    ]
    labels = [{"event_id": e["event_id"], "ts": e["ts"], "label": True} for e in events]
    return events, labels


def publish_ahead(driver: Driver, place: int, ahead_ms: int, count: int = 20) -> None:
    """Publish what is honest, and at some place in it what one publisher's wrong clock stamps."""
    events, labels = honest()
    wrong_events, wrong_labels = fast(count, ahead_ms)
    driver.publish("labels", labels[:place])
    driver.publish("events", events[:place])
    driver.now_ms = LIVE_MS + ahead_ms
    driver.publish("labels", wrong_labels)
    driver.publish("events", wrong_events)
    driver.now_ms = LIVE_MS
    driver.publish("labels", labels[place:])
    driver.publish("events", events[place:])


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("place", [0, COUNT // 2])
@pytest.mark.parametrize("ahead_ms", [YEAR_MS, HOUR_MS])
def test_a_publishers_clock_that_is_ahead_leads_nobody(
    ahead_ms: int, place: int, seed: int | None
) -> None:
    """Of many keys, stamped and dated ahead: its own is refused, and nothing honest; it is told."""
    features, refreshed = quiet(1, LIVE_MS)
    with Driver(watched, seed=seed, now_ms=LIVE_MS) as driver:
        publish_ahead(driver, place, ahead_ms)
        if seed is not None:
            driver.crash()
        driver.run()
        served, joined, refused = outcome(driver)
        kinds = Counter(decision["kind"] for decision in driver.read("registry"))
        letters = Counter(each["reason"] for each in driver.read("dead-letters"))
        alerts = {each["kind"]: each for each in driver.read("alerts")}

        assert (features, features.keys(), Counter()) == (served, joined, refused)
        assert refreshed == kinds["refreshed"]
        assert Counter(from_the_future=40) == letters
        assert max(r.append_ms for r in driver.records("events")) <= LIVE_MS + 60_000
        if seed is None:  # who dies between may have stamped anew without having told
            assert ahead_ms == alerts["clock_ahead"]["details"]["ahead_ms"]


def test_what_was_stamped_anew_is_replayed_as_it_was() -> None:
    """The new stamp lies on the log: whenever it is read again, the same comes out."""
    topics = ("predictions", "examples", "dead-letters", "registry")
    with Driver(watched, now_ms=LIVE_MS) as driver, Driver(watched, now_ms=LIVE_MS) as again:
        publish_ahead(driver, COUNT // 2, YEAR_MS)
        driver.run()
        for topic in ("labels", "events"):
            for record in driver.records(topic):
                again.now_ms = record.append_ms
                again.log.append([Output(topic, record.key, record.value)])
        again.now_ms = LIVE_MS + 10 * YEAR_MS
        again.run()

        for topic in topics:
            assert [r.value for r in driver.records(topic)] == [
                r.value for r in again.records(topic)
            ]


def test_a_worker_whose_own_clock_was_set_back_corrects_nobody() -> None:
    """What honest publishers stamp past it is neither stamped anew nor refused; it is told."""
    features, _ = quiet(1, LIVE_MS)
    events, labels = honest()
    with Driver(watched, now_ms=LIVE_MS) as driver:
        driver.publish("labels", labels[:100])
        driver.publish("events", events[:100])
        driver.crash()
        driver.now_ms = LIVE_MS + 600_000
        driver.publish("labels", labels[100:])
        driver.publish("events", events[100:])
        driver.now_ms = LIVE_MS - 2 * HOUR_MS
        driver.run()
        served, joined, refused = outcome(driver)

        assert (features, features.keys(), Counter()) == (served, joined, refused)
        assert "clock_set_back" in [each["kind"] for each in driver.read("alerts")]
        stamps = [record.append_ms for record in driver.records("predictions")]
        assert {LIVE_MS} == set(stamps)


@pytest.mark.parametrize("topic", ["predictions", "examples", "alerts", "registry", "models"])
def test_a_foreign_stamp_moves_no_stamp_of_ours(topic: str) -> None:
    """What somebody stamps a year ahead among what stages write has its stamp for itself."""
    events, labels = honest()
    with Driver(watched, now_ms=LIVE_MS) as driver:
        driver.feed(events[:120], labels[:120])
        driver.crash()
        driver.now_ms = LIVE_MS + YEAR_MS
        (foreign,) = append_straight(driver.log, [Output(topic, b"k", b"{}")])
        driver.now_ms = LIVE_MS
        driver.feed(events[120:], labels[120:])

        own_stamps = [
            each.append_ms
            for name in ("predictions", "examples", "alerts", "registry", "models", "dead-letters")
            for each in driver.records(name)
            if (name, each.offset) != (topic, foreign.offset)
        ]
        assert {LIVE_MS} == set(own_stamps)
        assert len(driver.records("predictions")) >= COUNT


# --- state that was put back ------------------------------------------------------------------


def put_back(driver: Driver, owner: str, then: list[tuple[str, bytes]]) -> None:
    """All of an owner's state as it was then, and nothing that came since."""
    now = {name: None for name, _ in driver.log.state(owner)}
    with driver.log.session() as session:
        session.commit(
            state=[(owner, name, piece) for name, piece in {**now, **dict(then)}.items()]
        )


def halfway(driver: Driver, world: int) -> dict[str, list[tuple[str, bytes]]]:
    """Work on two thirds of a stream; all states as they were after one third."""
    events, labels = stream(world)
    third = len(events) // 3
    driver.feed(events[:third], labels)
    driver.runner.commit(checkpoint=True)
    driver.crash()
    then = {owner: driver.log.state(owner) for owner in (*TASKS, OWNER)}
    driver.feed(events[third : 2 * third])
    driver.runner.commit(checkpoint=True)
    driver.crash()
    return then


@pytest.mark.parametrize("world", range(3))
@pytest.mark.parametrize("task", TASKS)
def test_a_state_put_back_with_its_marker_is_found(task: str, world: int) -> None:
    """It is made again to what it was, and told; or refused with a way out: nothing comes twice."""
    events, _ = stream(world)
    with Driver(pipeline) as driver:
        then = halfway(driver, world)
        put_back(driver, task, then[task])
        rest = events[2 * (len(events) // 3) :]
        if task == "evaluate-0":
            with pytest.raises(StateRefused, match=r"evaluate-0: .*put back; way out: "):
                driver.feed(rest)
            return
        driver.feed(rest)

        alerts = [each for each in driver.read("alerts") if each["kind"] == "state_remade"]
        assert [task] == [each["details"]["task"] for each in alerts]
        ids = [each["event_id"] for each in driver.read("predictions")]
        assert len(ids) == len(set(ids))
        with Driver(pipeline) as quiet_driver:
            halfway(quiet_driver, world)
            quiet_driver.feed(rest)
            assert own(quiet_driver) == own(driver)


@pytest.mark.parametrize("owners", [(*TASKS, OWNER), (OWNER,), ("predict-0", OWNER)])
def test_a_manifest_put_back_too_is_found(owners: tuple[str, ...]) -> None:
    """Behind the ends it names lies what this state has yet to do: the start is refused."""
    with Driver(pipeline) as driver:
        then = halfway(driver, 1)
        for owner in owners:
            put_back(driver, owner, then[owner])
        with pytest.raises(StateRefused, match="put back; way out: "):
            driver.run()


@pytest.mark.parametrize("value", [None, b"", b"{}", b'{"tasks":[]}'])
def test_a_manifest_taken_away_or_altered_is_found(value: bytes | None) -> None:
    """Without it nobody can tell which checkpoint was the last: the start is refused."""
    with Driver(pipeline) as driver:
        halfway(driver, 1)
        with driver.log.session() as session:
            session.commit(state=[(OWNER, NAME, value)])
        with pytest.raises(StateRefused, match="expected the worker's manifest"):
            driver.run()


def without_manifest(driver: Driver) -> None:
    """The state as the release before wrote it: whole, and no manifest beside it."""
    state: list[tuple[str, str, bytes | None]] = [(OWNER, NAME, None)]
    for task in TASKS:
        sealed = Seals(b"testing", pipeline.name, driver.log.identity).state(task)
        marker = sealed.restore(driver.log.state(task)).marker
        assert marker is not None
        sealed.number = marker.number - 1
        for name, piece, _ in sealed.write([], marker.positions, declaration=marker.declaration):
            state.append((task, name.decode(), piece))
    with driver.log.session() as session:
        session.commit(state=state)


def test_a_log_of_the_release_before_is_taken_up_once() -> None:
    """Without a manifest it goes on as it is; from then on there must be one."""
    events, labels = stream(1)
    half = len(events) // 2
    with Driver(pipeline) as driver:
        driver.feed(events[:half], labels)
        driver.runner.commit(checkpoint=True)
        driver.crash()
        without_manifest(driver)
        driver.feed(events[half:])
        assert undisturbed(1) == own(driver)
        driver.crash()
        with driver.log.session() as session:
            session.commit(state=[(OWNER, NAME, None)])
        with pytest.raises(StateRefused, match="manifest"):
            driver.run()


# --- snapshots that serve ---------------------------------------------------------------------


def snapshots(log: SqliteLog) -> dict[int, bytes | None]:
    """What lies on `models`, by offset."""
    return {record.offset: record.value for record in log.read("models", 0, 0, 10_000)}


@pytest.mark.parametrize("value", [None, b"{}", "a copy"])
@pytest.mark.parametrize("running", [False, True])
def test_nobody_elses_record_has_a_snapshot_compacted_away(
    value: bytes | str | None, *, running: bool
) -> None:
    """A tombstone or record under the name of what serves removes nothing, and is a dead letter."""
    events, labels = stream(1)
    half = len(events) // 2
    with Driver(pipeline) as driver:
        driver.feed(events[:half], labels)
        serving = decode_decision(driver.records("registry")[-1].value, b"testing").serving
        driver.crash()
        given = snapshots(driver.log)[serving.champion.offset] if value == "a copy" else value
        assert not isinstance(given, str)
        foreign = Output("models", serving.champion.model.encode(), given)
        append_straight(driver.log, [foreign])
        driver.run()
        if running:
            append_straight(driver.log, [foreign])
        driver.log.expire(driver.now_ms)
        driver.crash()
        driver.log.expire(driver.now_ms)

        assert serving.champion.offset in snapshots(driver.log)
        driver.feed(events[half:])
        letters = [each for each in driver.read("dead-letters") if each["topic"] == "models"]
        reasons = {None: "forged", "a copy": "repeated"}
        assert 1 + running == len(letters)
        if value in reasons:
            assert {reasons[value]} == {each["reason"] for each in letters}
        with Driver(pipeline) as quiet_driver:
            quiet_driver.feed(events[:half], labels)
            quiet_driver.crash()
            quiet_driver.feed(events[half:])
            assert [placeless(r.value) for r in quiet_driver.records("predictions")] == [
                placeless(r.value) for r in driver.records("predictions")
            ]


def test_our_own_tombstones_still_compact() -> None:
    """What evaluate has retired goes, also after a restart and behind what others wrote."""
    events, labels = stream(1)
    half = len(events) // 2
    with Driver(pipeline) as driver, Driver(pipeline) as other:
        other.feed(events[:half], labels)
        other.feed(events[half:])
        other.crash()
        retired = [r.key for r in other.records("models") if r.value is None]
        other.log.expire(other.now_ms)
        kept = {r.key for r in other.records("models")}
        driver.feed(events[:half], labels)
        driver.crash()
        append_straight(driver.log, [Output("models", b"x", b"{}")])
        driver.feed(events[half:])
        driver.crash()
        driver.run()
        driver.log.expire(driver.now_ms)

        assert retired
        assert kept | {b"x"} == {r.key for r in driver.records("models")}


def test_what_is_ours_is_known_by_stretches() -> None:
    """The worker's own records on a compacted partition, with what others wrote left out."""
    with Driver(pipeline) as driver:
        driver.runner.commit()
        first = driver.log.end_offset("models", 0)
        driver.crash()
        append_straight(driver.log, [Output("models", b"x", b"{}")])
        driver.feed(*stream(1))
        session = driver.runner._session
        written: OwnWrites = session.own_writes()
        end = driver.log.end_offset("models", 0)

        assert [(0, first), (first + 1, end)] == list(written.ranges["models", 0])


# --- who writes without end -------------------------------------------------------------------


def test_a_worker_that_keeps_others_waiting_gets_on(tmp_path: Path) -> None:
    """Somebody writes before each batch and would during it: each is committed, and it is told."""
    events, labels = stream(1)
    foreign = [Output(topic, b"x", b"{}") for topic in ("predictions", "examples", "models")]
    refused: list[LogLocked] = []
    with (
        SqliteLog.create(tmp_path / "log", identity="testing") as log,
        SqliteLog.open(tmp_path / "log", busy_timeout_ms=0) as other,
        Driver(pipeline) as driver,
    ):
        log.append([Output(r.topic, r.key, r.value) for r in published(driver, events, labels)])

        def intrude(step: str) -> None:
            if step == "events":
                with pytest.raises(LogLocked) as error:
                    append_straight(other, foreign)
                refused.append(error.value)

        with Runner(log, pipeline, b"testing", exclusive=True, step=intrude) as runner:
            rounds = 0
            append_straight(other, foreign)
            while runner.poll(20):
                append_straight(other, foreign)
                rounds += 1
        letters = [orjson.loads(r.value or b"") for r in log.read("dead-letters", 0, 0, 10_000)]
        alerts = [orjson.loads(r.value or b"")["kind"] for r in log.read("alerts", 0, 0, 1_000)]
        ours = [r.value for r in log.read("predictions", 0, 0, 10_000) if r.key != b"x"]

        assert rounds > 3
        assert refused
        assert "foreign_writer" in alerts
        assert len(ours) > 50
        counts = Counter(each["topic"] for each in letters)
        assert rounds + 1 <= counts["predictions"]
        quiet_ones = [record.value for record in driver.records("predictions")]
        assert [placeless(value) for value in quiet_ones] == [placeless(value) for value in ours]


def test_a_foreign_clock_is_told_by_a_worker_that_keeps_others_waiting(tmp_path: Path) -> None:
    """A stamp that is ahead on a stage's topic is told, also where there is nothing to work on."""
    events, labels = stream(1, 40)
    now_ms = LIVE_MS
    with (
        SqliteLog.create(tmp_path / "log", identity="testing", now_ms=lambda: now_ms) as log,
        Driver(pipeline) as driver,
    ):
        log.append([Output(r.topic, r.key, r.value) for r in published(driver, events, labels)])
        with Runner(log, pipeline, b"testing") as runner:
            runner.run()
        now_ms += HOUR_MS
        append_straight(log, [Output("predictions", b"x", b"{}")])
        now_ms -= HOUR_MS
        with Runner(log, pipeline, b"testing", exclusive=True) as runner:
            while runner.poll():
                pass
        alerts = [orjson.loads(r.value or b"")["kind"] for r in log.read("alerts", 0, 0, 1_000)]

    assert 1 == alerts.count("clock_ahead")


def placeless(value: bytes | None) -> dict[str, Any]:
    """A prediction without its seal, and without what says where other records lie."""
    members = orjson.loads(strip_seal(value))
    for shadow in members["shadows"].values():
        shadow.pop("offset", None)
    return {**members, "example": None}


def published(driver: Driver, events: list[Any], labels: list[Any]) -> list[Record]:
    """What clients wrote on a log where nobody interferes, which was worked on to its end."""
    driver.feed(events, labels)
    return [*driver.records("labels"), *driver.records("events")]
