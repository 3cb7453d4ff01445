"""Payments of the example of cards, published on a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.client import Publisher
from stream_ml.examples.cards import cards

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Log

__all__ = ["publish_payments"]


def publish_payments(
    log: Log,
    events: Iterable[dict[str, Any]],
    labels: Iterable[dict[str, Any]],
    pipeline: Pipeline = cards,
) -> None:
    """Publish all events, then all labels, as a client does.

    Args:
        log: where they go.
        events: payments.
        labels: of some of them.
        pipeline: that declares them.
    """
    with Publisher(log, pipeline) as publisher:
        for event in events:
            publisher.post_event(event)
        for label in labels:
            publisher.post_label(label)
