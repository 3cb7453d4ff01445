"""A client without the key, on the topics that stages own: refused, counted, and nothing else."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.errors import StateRefused
from stream_ml.records import Output
from stream_ml.sealing import SEALED_TOPICS, RecordSeal, Seals, content
from stream_ml.shell.embedded.runner import Runner
from stream_ml.testing import Driver
from tests.simulation.test_crash import outcome
from tests.simulation.world import pipeline, stream

if TYPE_CHECKING:
    from stream_ml.records import Record

# What stages read again at a start, and what they make of it.
READ_AGAIN = ("predictions", "examples")


def undisturbed(world: int) -> dict[str, list[Any]]:
    """What comes out where nobody interferes, published as where somebody does."""
    events, labels = stream(world)
    half = len(events) // 2
    with Driver(pipeline) as driver:
        driver.feed(events[:half], labels)
        driver.crash()
        driver.feed(events[half:])
        return own(driver)


def own(driver: Driver) -> dict[str, list[Any]]:
    """What our own stages wrote, without the letters about what others did.

    Where records lie is left out: what others put between ours moves them on.
    """
    found = outcome(driver)
    seals = Seals(b"testing", pipeline.name, driver.log.identity)
    kept: dict[str, list[Any]] = {}
    for topic in READ_AGAIN:
        believed, seal = [], seals.records(topic)
        for _, value in found[topic]:
            if _ours(seal, value):
                believed.append(_placeless(value))
        # A copy of ours is as genuine, and was refused.
        kept[topic] = list(dict.fromkeys(believed))
    kept["letters"] = [
        letter["reason"] for letter in driver.read("dead-letters") if letter["topic"] == "events"
    ]
    return kept


def _placeless(value: bytes) -> bytes:
    """Without the seal, and without what says where other records lie."""
    members = orjson.loads(value)
    for name in ("seal", "example"):
        members.pop(name, None)
    for shadow in members.get("shadows", {}).values():
        shadow.pop("offset", None)
    return orjson.dumps(members)


def _ours(seal: RecordSeal, value: bytes | None) -> bool:
    try:
        seal.unseal(value)
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return False
    return True


def forgeries(driver: Driver, rand: random.Random, topic: str) -> list[Output]:
    """Records that somebody can put there who has read the log, and other logs, and no key."""
    known = driver.records(topic)
    one: Record = rand.choice(known)
    assert one.value is not None
    body = orjson.loads(one.value)
    seal = body.pop("seal")
    changed = {**body, "event_id": "forged", "prediction": 0.99}
    elsewhere = [
        Seals(b"testing", pipeline.name, "another log"),
        Seals(b"testing", "another pipeline", driver.log.identity),
        Seals(b"a guess", pipeline.name, driver.log.identity),
    ]
    values = [
        orjson.dumps(changed),
        orjson.dumps({**changed, "seal": seal}),
        orjson.dumps({**body, "prediction": None, "fallback": False}),
        *(each.records(topic).seal(orjson.dumps(changed)) for each in elsewhere),
        Seals(b"testing", pipeline.name, driver.log.identity)
        .records("alerts")
        .seal(orjson.dumps(changed)),
        one.value,  # a copy
        None,
        b"",
        b"\xff",
    ]
    rand.shuffle(values)
    return [Output(topic, one.key, value) for value in values[: rand.randint(1, len(values))]]


def write_straight(driver: Driver, outputs: list[Output]) -> None:
    """As one who writes into the file, while no worker is at work."""
    driver.crash()
    with driver.log.session() as session:
        session.stage(outputs)
        session.commit()


@pytest.mark.parametrize("topic", READ_AGAIN)
@pytest.mark.parametrize("world", range(6))
def test_what_others_put_on_the_stages_topics_changes_nothing(world: int, topic: str) -> None:
    """Forged, altered, copied and foreign records become dead letters; all else is as without."""
    rand = random.Random(world)
    events, labels = stream(world)
    half = len(events) // 2
    with Driver(pipeline) as driver:
        # All labels lie there first, as in the undisturbed run.
        driver.feed(events[:half], labels)
        if not driver.records(topic):
            return
        forged = forgeries(driver, rand, topic)
        write_straight(driver, forged)
        driver.feed(events[half:])

        letters = [each for each in driver.read("dead-letters") if each["topic"] == topic]
        reasons = {each["reason"] for each in letters}
        copies = sum(each.value in {r.value for r in driver.records(topic)} for each in forged)
        assert len(forged) == len(letters) or copies, reasons
        assert reasons <= {"forged", "repeated", "duplicate_prediction", "too_late"}
        assert undisturbed(world) == own(driver)


@pytest.mark.parametrize("topic", READ_AGAIN)
def test_a_stage_that_checks_nothing_is_caught(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    """With verification left out of one topic, a forged record gets through, and tests see it."""
    unseal = RecordSeal.unseal

    def trusting(self: RecordSeal, value: bytes | None) -> bytes:
        if self._topic == topic and value is not None:
            return value
        return unseal(self, value)

    monkeypatch.setattr(RecordSeal, "unseal", trusting)
    events, labels = stream(1)
    with Driver(pipeline) as driver:
        driver.feed(events, labels)
        one = driver.records(topic)[-1]
        forged = orjson.dumps({**orjson.loads(one.value or b""), "event_id": "forged"})
        write_straight(driver, [Output(topic, b"forged", forged)])
        driver.run()

        letters = [each for each in driver.read("dead-letters") if each["reason"] == "forged"]
    assert [] == letters


def test_every_sealed_topic_is_sealed() -> None:
    """No record leaves a stage without its seal, whichever stage it is."""
    with Driver(pipeline) as driver:
        driver.feed(*stream(1))
        seals = Seals(b"testing", pipeline.name, driver.log.identity)
        there = SEALED_TOPICS & driver.log.partitions.keys()
        assert {"entities"} == SEALED_TOPICS - there, "which are on clusters alone"
        for topic in there:
            for record in driver.records(topic):
                assert seals.records(topic).unseal(record.value)


@pytest.mark.parametrize("world", range(3))
@pytest.mark.parametrize("other", ["log", "pipeline"])
def test_decisions_and_models_of_another_log_or_pipeline_count_for_nothing(
    world: int, other: str
) -> None:
    """By the same key, newer than ours and with all they name: refused, and ours go on."""
    events, labels = stream(world)
    half = len(events) // 2
    theirs = pipeline if other == "log" else replace(pipeline, name="elsewhere")
    with Driver(theirs, identity="elsewhere") as elsewhere, Driver(pipeline) as driver:
        elsewhere.feed(*stream(world + 10))
        driver.feed(events[:half], labels)
        foreign = [
            Output(topic, each.key, each.value)
            for topic in ("models", "registry")
            for each in elsewhere.records(topic)
            if each.value is not None
        ]
        assert len(elsewhere.records("registry")) > len(driver.records("registry"))
        write_straight(driver, foreign)
        driver.feed(events[half:])

        letters = [
            letter["reason"]
            for letter in driver.read("dead-letters")
            if letter["topic"] in {"models", "registry"}
        ]
        assert ["foreign_log"] * len(foreign) == letters
        assert undisturbed(world) == own(driver)


# --- state at rest ----------------------------------------------------------------------------


def entries(driver: Driver) -> list[tuple[str, str, bytes]]:
    """Everything that is kept as state."""
    tasks = ("predict-0", "join-0", "learn-0", "evaluate-0")
    return [(task, name, piece) for task in tasks for name, piece in driver.log.state(task)]


@pytest.mark.parametrize("seed", range(12))
def test_a_changed_byte_of_state_is_found_at_the_start(seed: int) -> None:
    """It is told, and made again to what it was, or refused with a way out; never passed over."""
    rand = random.Random(seed)
    events, labels = stream(seed % 3)
    half = len(events) // 2
    with Driver(pipeline) as driver:
        driver.feed(events[:half], labels)
        driver.crash()
        kinds = {(task, name[:1]): (task, name, piece) for task, name, piece in entries(driver)}
        task, name, piece = kinds[rand.choice(sorted(kinds))]
        flipped = bytearray(piece)
        flipped[rand.randrange(len(flipped))] ^= 1 << rand.randrange(8)
        with driver.log.session() as session:
            session.commit(state=[(task, name, bytes(flipped))])
        told = ""
        try:
            driver.feed(events[half:])
        except StateRefused as refused:
            told = str(refused)
        if told:
            assert f"{task}: expected its state as it was written" in told
            assert "way out" in told
            return
        alerts = [alert["kind"] for alert in driver.read("alerts")]
        assert "state_remade" in alerts
        assert undisturbed(seed % 3)["predictions"] == own(driver)["predictions"]


def test_state_of_a_former_release_is_taken_up_once_told_so() -> None:
    """Without seals it is refused with the setting to start with, which seals it for good."""
    events, labels = stream(1)
    half = len(events) // 2
    with Driver(pipeline) as driver:
        driver.feed(events[:half], labels)
        driver.crash()
        plain = [
            (task, name, None if name.startswith("\0") else content(piece))
            for task, name, piece in entries(driver)
        ]
        with driver.log.session() as session:
            session.commit(state=plain)

        with pytest.raises(StateRefused, match="STREAM_ML_ACCEPT_UNSEALED=1"):
            driver.run()
        Runner(driver.log, pipeline, b"testing", accept_unsealed=True).close()
        driver.feed(events[half:])

        assert undisturbed(1)["predictions"] == own(driver)["predictions"]
