"""The bundled examples at work on some hundred labels each, for tests of what is learned again."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from stream_ml import Retrained
from stream_ml.examples.cards import cards, transactions
from stream_ml.examples.flights import flights
from stream_ml.examples.payments import payments
from stream_ml.models.snapshot import Snapshot, decode
from stream_ml.scenarios import generate
from stream_ml.shell import flights_data
from tests.trainers import Bag

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.testing import Driver

__all__ = ["DRIVER_KEY", "WORLDS", "snapshots"]

# What a `Driver` signs with.
DRIVER_KEY = b"testing"
Records = list[dict[str, Any]]


def _cards() -> tuple[Pipeline, Records, Records]:
    return (cards, *transactions(1_700, seed=1))


def _payments() -> tuple[Pipeline, Records, Records]:
    events: Records = []
    labels: Records = []
    for topic, record in generate("sudden", seed=3, events=1_150):
        (events if topic == "events" else labels).append(record)
    bag = Retrained(Bag(), 400)
    return replace(payments, models={**payments.models, "bag": bag}), events, labels


def _flights() -> tuple[Pipeline, Records, Records]:
    events: Records = []
    labels: Records = []
    for topic, record in islice(flights_data.records(1, 1), 3_500):
        (events if topic == "events" else labels).append(record)
    return flights, events, labels


# By the name of the example: its declaration (with a retrained line in one), events and labels.
WORLDS = {"cards": _cards, "payments": _payments, "flights": _flights}


def snapshots(driver: Driver) -> list[Snapshot]:
    """All that are on the log, in the order in which they were published."""
    return [decode(record.value) for record in driver.records("models") if record.value]
