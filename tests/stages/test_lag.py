"""Late answers are told once, where they came at once before; a history that is read is no lag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.codec import encode_prediction
from stream_ml.records import Prediction, Record, Source
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.join import Join
from stream_ml.stages.lag import BLOCK_PREDICTIONS, LATE_MS, LIVE_MS, Lag
from tests.shop import START_MS, shop

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW, LATE = LIVE_MS, LATE_MS + 1
HALF = LATE_MS // 2


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        ((LATE, LATE, NOW, LATE, LATE, HALF, LATE, NOW), ["open 3", "resolved 7"]),
        ((LATE, LIVE_MS + 1, LATE), []),
        ((NOW, LATE, HALF, HALF - 1, LATE), ["open 1", "resolved 3", "open 4"]),
    ],
)
def test_an_episode_is_told_when_it_begins_and_when_it_is_over(
    delays: tuple[int, ...], expected: list[str]
) -> None:
    """Of blocks with this least delay each: what is said, at which block."""
    alarms = Alarms("join")
    lag, said = Lag(alarms, 2), []
    for block, delay in enumerate(delays):
        for n in range(BLOCK_PREDICTIONS):
            said += [o.memo for o in lag.add(delay + (n % 7) * 1_000_000, block)]
        again = Lag(alarms, 2)
        again.load(orjson.loads(orjson.dumps(lag.dump())))
        lag = again

    assert expected == [f"{alert.state} {alert.ts}" for alert in said]
    assert {"events-2"} >= {alert.subject for alert in said}


def predictions(delays: list[int]) -> Iterator[Record]:
    """A block of predictions with each of these delays."""
    for n in range(len(delays) * BLOCK_PREDICTIONS):
        ts, place = START_MS + n, Source(0, n)
        prediction = Prediction(f"e{n}", "k", ts, place, "m@0", -1, 0.5, False, {"amount": 1.0}, {})
        value = encode_prediction(prediction)
        yield Record("predictions", 0, n, None, value, ts + delays[n // BLOCK_PREDICTIONS])


@given(st.lists(st.sampled_from([5, NOW, HALF, LATE]), max_size=8), st.integers(1, 250))
def test_a_join_tells_it_by_the_log_alone(delays: list[int], batch: int) -> None:
    """In whatever batches predictions come, and also where a former release had the state."""
    records = list(predictions(delays))
    whole, cut = Join(shop, 1), Join(shop, 1)
    expected = [o.value for o in whole.apply(records)] if records else []
    said = []
    for first in range(0, len(records), batch):
        said += [o.value for o in cut.apply(records[first : first + batch])]

    assert expected == said
    keyless = orjson.loads(dict(cut.dirty())[""] or b"")
    assert keyless == orjson.loads(dict(whole.dirty())[""] or b"")
    del keyless["lags"]
    Join(shop, 1).restore([("", orjson.dumps(keyless))])
