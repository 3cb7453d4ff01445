"""Summaries of blocks hold each event once, whatever is written down and taken up between."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.errors import BadRecord
from stream_ml.monitoring.blocks import Layout, OpenBlocks
from stream_ml.summaries import decode_summary, encode_summary

if TYPE_CHECKING:
    from stream_ml.records import Summary

MINUTE = 60_000
LAYOUT = Layout(MINUTE, {"amount": True, "city": False}, ("double",))


def rows(
    seed: int, count: int = 1_500
) -> list[tuple[int, dict[str, Any], dict[str, float] | None]]:
    """Events over some minutes, a little out of order, some without a request."""
    rand = random.Random(seed)
    made = []
    for number in range(count):
        amount = rand.choice([None, round(rand.expovariate(0.1), 2)])
        fields = {"amount": amount, "city": rand.choice(["oslo", "rome", f"town {number}"])}
        features = {"double": 2.0} if amount is None else {"double": 2 * amount}
        ts = 600_000 + 400 * number - rand.randrange(20_000)
        made.append((ts, fields, features if rand.random() < 0.7 else None))
    return made


def fold(seed: int, stops: frozenset[int] = frozenset()) -> list[Summary]:
    """The summaries of the rows; where it stops, the state is written down and taken up."""
    blocks, state = OpenBlocks(LAYOUT, 20_000), {}
    summaries: list[Summary] = []
    watermark = -1
    for number, (ts, fields, features) in enumerate(rows(seed)):
        if number in stops:
            state.update(blocks.dirty())
            held = [(name, value) for name, value in state.items() if value is not None]
            once = orjson.loads(orjson.dumps(blocks.dump()))
            blocks = OpenBlocks(LAYOUT, 20_000)
            blocks.restore(once, held)
        if number % 50 == 49:
            blocks.refuse("null $.city", watermark)
        blocks.add(ts, fields, features, watermark)
        watermark = max(watermark, ts)
        if watermark >= blocks.due_ms:
            summaries += blocks.close(watermark, 3)
    return summaries + blocks.close(2**60, 3)


def test_each_event_counts_once_in_the_block_of_its_time() -> None:
    """Counts of the blocks are those of the events in them, field by field."""
    summaries = fold(1)
    for summary in summaries:
        own = [row for row in rows(1) if summary.start <= row[0] < summary.end]
        amounts = [fields["amount"] for _, fields, _ in own if fields["amount"] is not None]
        amount, city = summary.fields["amount"], summary.fields["city"]
        assert (len(own), len(amounts)) == (summary.events, amount.n)
        assert len(own) == amount.n + amount.missing == city.n
        assert (min(amounts), max(amounts)) == (amount.low, amount.high)
        assert city.categories is not None
        assert len(own) == sum(city.categories.values()) + city.others
        requests = [features for _, _, features in own if features is not None]
        assert len(requests) == summary.predictions == summary.features["double"].n
    assert len(rows(1)) == sum(summary.events for summary in summaries)
    assert len(summaries) == len({summary.start for summary in summaries}) > 5
    assert len(rows(1)) // 50 == sum(summary.refused.get("null $.city", 0) for summary in summaries)


@pytest.mark.parametrize("seed", range(5))
def test_summaries_do_not_depend_on_when_state_is_written_down(seed: int) -> None:
    """A state that is taken up anywhere, however often, goes on to the same summaries."""
    stops = frozenset(random.Random(seed).sample(range(1_500), 40))
    assert fold(seed) == fold(seed, stops)


def test_a_clock_that_is_wrong_opens_no_block_far_ahead() -> None:
    """An event dated a year ahead counts near the watermark, and keeps nothing open."""
    blocks = OpenBlocks(LAYOUT, 0)
    fields = {"amount": 1.0, "city": "oslo"}
    blocks.add(600_000, fields, None, 600_000)
    blocks.add(600_000 + 365 * 86_400_000, fields, None, 600_000)
    assert [600_000, 720_000] == [each.start for each in blocks.close(1_000_000, 0)]


def test_another_length_of_blocks_begins_anew() -> None:
    """Blocks that were open under another length are left behind, and dropped from the state."""
    blocks = OpenBlocks(LAYOUT, 0)
    blocks.add(600_000, {"amount": 1.0, "city": "oslo"}, None, 600_000)
    entries, once = blocks.dirty(), blocks.dump()
    longer = OpenBlocks(Layout(2 * MINUTE, {}, ()), 0)
    longer.restore(once, [(name, value or b"") for name, value in entries])
    assert (0, [("600000", None)]) == (len(longer), longer.dirty())


def test_a_summary_is_read_as_it_was_written() -> None:
    """The wire form holds all of it; what is none is refused with its path."""
    for summary in fold(2):
        assert summary == decode_summary(encode_summary(summary))
    members = orjson.loads(encode_summary(fold(2)[0]))
    for path, wrong in {
        "$": {**members, "events": -1},
        "$.end": {**members, "end": 0},
        "$.fields.amount": {
            **members,
            "fields": {"amount": {**members["fields"]["amount"], "counts": [1]}},
        },
    }.items():
        with pytest.raises(BadRecord) as refused:
            decode_summary(orjson.dumps(wrong))
        assert path == refused.value.path
