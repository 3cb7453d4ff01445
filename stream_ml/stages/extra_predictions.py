"""Predictions that are not the only one of their id, or come from behind the others."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

__all__ = ["ExtraPrediction", "dump_extras", "load_extras"]


@dataclass(slots=True)
class ExtraPrediction:
    """A prediction that is not alone, or behind M; its value is None where it waits no more.

    `floor_ms` is the time before which no label is about it (rule 3).
    """

    ts: int
    value: bytes | None
    is_joined: bool
    floor_ms: int = -1


def dump_extras(extras: list[ExtraPrediction]) -> bytes:
    """The predictions of an id, as they are written down."""
    # JSON that is valid UTF-8 stays itself.
    return orjson.dumps(
        [
            (
                extra.ts,
                None if extra.value is None else extra.value.decode(),
                extra.is_joined,
                extra.floor_ms,
            )
            for extra in extras
        ]
    )


def load_extras(value: bytes) -> list[ExtraPrediction]:
    """Those that an entry holds."""
    return [
        # What was written before partitions could be idle has no bound.
        ExtraPrediction(ts, None if text is None else text.encode(), is_joined, *floor_ms)
        for ts, text, is_joined, *floor_ms in orjson.loads(value)
    ]
