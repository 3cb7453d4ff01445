"""Partitioner: what lies in another partition than its key's is forwarded once, and no more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.records import Output, Record, Source
from stream_ml.stages.join import Join
from stream_ml.stages.partitioning import (
    BATCH_MIN,
    REMEMBERED_MAX,
    Partitioner,
    partitions_of_batch,
)
from stream_ml.stages.predict import Predict
from stream_ml.topics import partition_of
from tests.shop import LABEL, declare, event, example, shop, started

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.stages.task import Stage

PARTITIONS = 4


@given(st.lists(st.binary(max_size=80), max_size=200), st.integers(1, 300))
def test_keys_are_placed_alike_one_by_one_and_in_a_batch(keys: list[bytes], number: int) -> None:
    """The batch's hash is Kafka's default partitioner, whatever the keys' lengths."""
    assert [partition_of(key, number) for key in keys] == partitions_of_batch(keys, number)


def test_what_is_remembered_is_bounded_and_never_wrong() -> None:
    """However many keys there are, few are kept, and each is still placed right."""
    partitioner = Partitioner(PARTITIONS)
    keys = [f"k{n % (REMEMBERED_MAX * 2)}" for n in range(REMEMBERED_MAX * 3)]
    for at in range(0, len(keys), 10_000):
        part = keys[at : at + 10_000]
        records = [Record("events", 1, n, None, None, 0) for n in range(len(part))]
        wrong = partitioner.strays(records, part)
        assert len(partitioner._cache) <= REMEMBERED_MAX
        assert all(
            (partition_of(k.encode(), PARTITIONS) != 1) == (n in wrong)
            for n, k in enumerate(part[::97])
            for n in [n * 97]
        )


def _event(offset: int) -> Record:
    return event(offset, shop=f"shop {offset}")


def _label(offset: int) -> Record:
    value = orjson.dumps(LABEL | {"event_id": f"e{offset}"})
    return Record("labels", 0, offset, b"any", value, 2**42)


def _prediction(offset: int) -> Record:
    members = orjson.loads(example(offset, True, {}).value or b"")
    value = orjson.dumps({k: v for k, v in members.items() if not k.startswith("label")})
    return Record("predictions", 0, offset, None, value, 2**42)


def _predict() -> Predict:
    return Predict(shop, started(shop)[2], PARTITIONS)


def _join() -> Join:
    return Join(declare(), 1, PARTITIONS)


KINDS = {
    "events": (_event, _predict, lambda n: f"shop {n}"),
    "labels": (_label, _join, lambda n: f"e{n}"),
    "predictions": (_prediction, _join, lambda n: f"e{n}"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, BATCH_MIN * 3])
def test_a_stray_is_forwarded_with_the_right_key_and_its_origin(kind: str, size: int) -> None:
    """All of partition 0 that belongs elsewhere goes there, unchanged, and leaves only a count."""
    make: Callable[[int], Record]
    start: Callable[[], Stage]
    make, start, key_of = KINDS[kind]
    records = [make(n) for n in range(200)]
    keys = {n: key_of(n).encode() for n in range(200)}
    wrong = [n for n in range(200) if partition_of(keys[n], PARTITIONS) != 0]
    assert 100 < len(wrong) < 200
    disturbed, quiet = start(), start()

    outputs = [
        output for at in range(0, 200, size) for output in disturbed.apply(records[at : at + size])
    ]
    rest = [record for record in records if record.offset not in wrong]
    expected = [output for record in rest for output in quiet.apply([record])]

    strays = [output for output in outputs if output.topic == kind and output.origin is not None]
    assert [Output(kind, keys[n], records[n].value, origin=Source(0, n)) for n in wrong] == strays
    assert [o.value for o in expected] == [o.value for o in outputs if o not in strays]
    assert len(wrong) == disturbed.counts["strays"]  # type: ignore[attr-defined]  # both stages count
    disturbed.counts["strays"] = 0  # type: ignore[attr-defined]  # the only difference
    assert quiet.dirty() == disturbed.dirty()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stray_that_comes_wrong_again_is_refused(kind: str) -> None:
    """It is forwarded once and no more: a second time it becomes a dead letter."""
    make, start, _ = KINDS[kind]
    stage: Stage = start()
    number = next(n for n in range(9) if partition_of(KINDS[kind][2](n).encode(), PARTITIONS))

    (letter,) = stage.apply([replace(make(number), origin=Source(3, 77))])

    assert ("dead-letters", "stray") == (letter.topic, letter.memo.reason)
    assert "partition 3, offset 77" in letter.memo.message


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_can_read_is_refused_where_it_lies(kind: str) -> None:
    """Without a key in its value a record belongs nowhere else."""
    make, start, _ = KINDS[kind]
    stage: Stage = start()

    (letter,) = stage.apply([replace(make(0), value=b"[]")])

    assert ("dead-letters", "not_an_object") == (letter.topic, letter.memo.reason)
