"""The cards work by hand on aiokafka: one loop, state in memory, and no guarantee.

    python -m benchmarks.by_hand BROKER PREFIX

What a good programmer writes in an afternoon: batches are fetched and answered, offsets are
committed by a timer. A crash loses the windows, the predictions that wait and the models, and
answers some events twice or never. It prints how much it has learned, every 1,000 labels.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.work import Models, Windows

__all__ = ["main"]

REPORT = 1_000


class _Loop:
    """The state of the one process, and what each record does to it."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str) -> None:
        self._producer = producer
        self._predictions = f"{prefix}.predictions"
        self._windows = Windows()
        self._models = Models()
        self._waiting: dict[str, tuple[dict[str, float], list[float]]] = {}
        self._early: dict[str, bool] = {}

    async def event(self, event: dict[str, Any]) -> None:
        features = self._windows.features(event)
        answers = self._models.predict(features)
        event_id = event["event_id"]
        prediction = {
            "event_id": event_id,
            "key": event["card"],
            "ts": event["ts"],
            "prediction": answers[0],
            "features": features,
            "shadows": answers[1:],
        }
        await self._producer.send(
            self._predictions, orjson.dumps(prediction), key=event_id.encode()
        )
        label = self._early.pop(event_id, None)
        if label is None:
            self._waiting[event_id] = features, answers
        else:
            self._learn(features, answers, label)

    def label(self, label: dict[str, Any]) -> None:
        pair = self._waiting.pop(label["event_id"], None)
        if pair is None:
            self._early[label["event_id"]] = label["label"]
        else:
            self._learn(*pair, label["label"])

    def _learn(self, features: dict[str, float], answers: list[float], label: bool) -> None:
        self._models.learn(features, answers, label)
        if self._models.learned_count % REPORT == 0:
            print(json.dumps(self._models.report()), flush=True)


async def _run(broker: str, prefix: str) -> None:
    events, labels = f"{prefix}.events", f"{prefix}.labels"
    stop_event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop_event.set)
    gc.freeze()
    consumer = AIOKafkaConsumer(
        events,
        labels,
        bootstrap_servers=broker,
        group_id=prefix,
        auto_offset_reset="earliest",
    )
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer, consumer:
        loop = _Loop(producer, prefix)
        while not stop_event.is_set():
            batches = await consumer.getmany(timeout_ms=100, max_records=1_000)
            for tp, records in batches.items():
                for record in records:
                    if tp.topic == events:
                        await loop.event(orjson.loads(record.value))
                    else:
                        loop.label(orjson.loads(record.value))


def main() -> None:
    """Run until SIGTERM."""
    broker, prefix = sys.argv[1:]
    asyncio.run(_run(broker, prefix))


if __name__ == "__main__":
    main()
