"""Takes the seals off records that are read again, and tells what bears none of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.sealing import SEALED_TOPICS, Seals, strip_seal

if TYPE_CHECKING:
    from stream_ml.records import Record

__all__ = ["Unsealing", "unsealing_of"]


class Unsealing:
    """Takes the seals off the records of one partition, in their order.

    A former release wrote without seals: what it wrote is believed up to the first record that has
    one.

    Args:
        seal: what they must be sealed with; None: no seal is looked at.
    """

    def __init__(self, seal: Seals | None, topic: str) -> None:
        is_sealed = seal is not None and topic in SEALED_TOPICS
        self._seal = seal.records(topic) if seal is not None and is_sealed else None
        self._has_met_seals = False

    def body(self, record: Record) -> bytes | None:
        """The record's value as its stage wrote it; None of a tombstone.

        Args:
            record: the next one.

        Raises:
            BadRecord: `forged`, as it does not bear our seal.
        """
        if record.value is None:
            return None
        body = strip_seal(record.value)
        if self._seal is None:
            return body
        if len(body) == len(record.value) and not self._has_met_seals:
            return body
        body = self._seal.unseal(record.value)
        self._has_met_seals = True
        return body


def unsealing_of(key: bytes | None, pipeline: str, log: str, topic: str) -> Unsealing:
    """What takes the seals off a topic's records.

    Args:
        key: the pipeline's; without one no seal is looked at.
        pipeline: its name.
        log: the identity of the log.
        topic: of the records.
    """
    return Unsealing(None if key is None else Seals(key, pipeline, log), topic)
