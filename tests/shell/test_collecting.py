"""How often a worker's process looks for rings of objects."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from stream_ml.shell.embedded.garbage import YOUNG_MAX, collect_less_often

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    former = gc.get_threshold()
    yield
    gc.set_threshold(*former)


def test_a_worker_looks_less_often_than_python_does_by_itself() -> None:
    """New objects come together until there are so many; the old ones are looked at as before."""
    gc.set_threshold(700, 9, 8)
    collect_less_often()
    assert (YOUNG_MAX, 9, 8) == gc.get_threshold()


@pytest.mark.parametrize("young", [0, 2 * YOUNG_MAX])
def test_who_has_told_python_otherwise_is_left_alone(young: int) -> None:
    """Neither a collector that is off nor one that is still rarer is touched."""
    gc.set_threshold(young, 9, 8)
    collect_less_often()
    assert gc.get_threshold() == (young, 9, 8)
