"""What is refused is gone once its dead letter is written."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from stream_ml.records import Record
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.join import Join
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from tests.shop import KEY, shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BAD = (b"{", b"[]", b"{}", b'{"event_id":1}', b'{"event_id":"a","ts":99999999999999}')


def bad(topic: str) -> list[Record]:
    """Records that no stage can take."""
    return [Record(topic, 0, n, None, value, 0) for n, value in enumerate(BAD)]


@contextmanager
def without_collector() -> Iterator[None]:
    """Rings of objects stay until we look for them."""
    while gc.collect():  # what other tests left may leave something in its turn
        pass
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


FOLDS: dict[str, Callable[[], object]] = {
    "predict": lambda: Predict(shop, Serving(shop, KEY), 1).replay(bad("events")),
    "join": lambda: Join(shop, 1, 1).apply(bad("labels")),
    "join predictions": lambda: Join(shop, 1, 1).apply(bad("predictions")),
    "evaluate": lambda: Evaluate(shop, Keyring(KEY)).apply(bad("commands")),
    "evaluate examples": lambda: Evaluate(shop, Keyring(KEY)).apply(bad("examples")),
}


@pytest.mark.parametrize("fold", FOLDS)
def test_what_is_refused_holds_nothing_back(fold: str) -> None:
    """An error kept with its record has no frames, or batches would wait for the collector."""
    FOLDS[fold]()  # what is made once and kept is made now
    with without_collector():
        FOLDS[fold]()

        assert 0 == gc.collect()
