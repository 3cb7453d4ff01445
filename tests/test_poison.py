"""Poison on the embedded log: one dead letter each, and the good go on as if it were not there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.codec import RECORD_BYTES_MAX
from stream_ml.errors import LogError
from stream_ml.records import Output
from stream_ml.sealing import Seals
from stream_ml.testing import Driver
from stream_ml.topics import partition_of
from tests.poison import Poison, all_different, forgeries, letters, of_stages, traffic, unsealed
from tests.shop import KEY, shop
from tests.straight import append_straight

if TYPE_CHECKING:
    from pathlib import Path

PARTITIONS = 2
KEYS = [next(k for k in "abcdefgh" if partition_of(k.encode(), PARTITIONS) == p) for p in (0, 1)]


def publish(driver: Driver, topic: str, records: list[Any]) -> None:
    """Append good and bad alike, as a producer that checks nothing would."""
    for record in records:
        if isinstance(record, Poison) and len(record.value or b"") > RECORD_BYTES_MAX:
            with pytest.raises(LogError, match="expected a record of at most"):
                append_straight(driver.log, [Output(topic, record.key, record.value)])
        elif isinstance(record, Poison):
            append_straight(driver.log, [Output(topic, record.key, record.value)])
        else:
            driver.publish(topic, [record])


def test_every_kind_of_poison_becomes_one_dead_letter_and_nothing_else(tmp_path: Path) -> None:
    """Over forty kinds: each is told from the others, and the good get what they would have got."""
    canary = tmp_path / "sings"
    with Driver(shop, key=KEY, partitions=PARTITIONS) as quiet:
        stream = traffic(quiet.now_ms, KEYS)
        quiet.feed(stream.events, stream.labels)
        quiet.crash()
        quiet.feed(stream.last)
        expected = {p["event_id"]: p for p in quiet.read("predictions")}
        examples = {e["event_id"]: e for e in quiet.read("examples")}
        assert [] == quiet.read("dead-letters")

    with Driver(shop, key=KEY, partitions=PARTITIONS) as driver:
        publish(driver, "labels", stream.mixed_labels)
        publish(driver, "events", stream.mixed_events)
        driver.run()
        driver.crash()
        (model, *_), (decision, *_) = driver.records("models"), driver.records("registry")
        seals = Seals(KEY, shop.name, driver.log.identity)
        inner = [*of_stages(seals), *unsealed()]
        inner += forgeries(model.value or b"", decision.value or b"", str(canary))
        for poison in inner:
            publish(driver, poison.topic, [poison])
        driver.feed(stream.last)
        found = driver.read("dead-letters")
        predictions = {p["event_id"]: p for p in driver.read("predictions")}
        joined = {e["event_id"]: e for e in driver.read("examples") if "label" in e}

    # The embedded log itself refuses what is longer than its topic takes.
    poisons = [p for p in stream.poisons + inner if len(p.value or b"") <= RECORD_BYTES_MAX]
    assert len(poisons) == len(stream.poisons + inner) - 1
    assert len(poisons) > 40
    assert all_different(poisons)
    told = letters(found)
    assert Counter() == Counter(p.expected for p in poisons) - told
    assert Counter() == told - Counter(p.expected for p in poisons)
    assert len(stream.events) <= 10 * len(poisons), "less than one in ten"
    for served in (expected, predictions, examples, joined):
        for each in served.values():
            for place in ("source", "label_source", "seal"):
                each.pop(place, None)
    assert expected == {id_: p for id_, p in predictions.items() if id_ != "forged"}
    assert examples == {id_: e for id_, e in joined.items() if id_ != "forged"}
    assert not canary.exists()


def test_a_letter_about_the_longest_record_fits_its_topic() -> None:
    """However long key and value are, what is written of them is a record that its topic takes."""
    with Driver(shop) as driver:
        for value in (b"x" * 262_144, b"x" * 300_000, b"x" * RECORD_BYTES_MAX):
            driver.log.append([Output("events", b"k" * 1_500_000, value)])
        driver.run()

        for letter in driver.records("dead-letters"):
            assert letter.key == b"k" * 512
            assert len(letter.value or b"") < 400_000
            assert orjson.loads(letter.value or b"")["length"] >= 262_144
