"""Bugs to plant in workers from outside, for the judge to find: production code has no hooks.

A worker that has one is started by
`python -c "from chaos import planted_bugs; planted_bugs.NAME(); ..."`.
"""

from __future__ import annotations

import hmac
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from stream_ml import sealing
from stream_ml.sealing import RecordSeal, strip_seal
from stream_ml.shell.kafka.task import KafkaTask
from stream_ml.shell.kafka.transactions import Transactions
from stream_ml.stages.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.records import Output, Record
    from stream_ml.shell.log.port import PartitionId
    from stream_ml.stages.task import Positions

__all__ = [
    "offset_too_far",
    "trusting_join",
    "trusting_learn",
    "trusting_state",
    "unsuppressed_replay",
]

# Of an entry of state; records have theirs in hexadecimal.
STATE_SEAL_BYTES = 16


def offset_too_far() -> None:
    """Commit the offset after the next one: a record is passed over by whoever takes over."""
    write = Transactions.write

    def too_far(self: Transactions, records: Any, positions: Mapping[PartitionId, int]) -> None:
        write(self, records, {partition: offset + 1 for partition, offset in positions.items()})

    Transactions.write = too_far  # type: ignore[method-assign]  # that is the bug


def _trust(topic: str) -> None:
    genuine = RecordSeal.unseal

    def trusting(self: RecordSeal, value: bytes | None) -> bytes:
        if self._topic == topic and value is not None:
            return strip_seal(value)
        return genuine(self, value)

    RecordSeal.unseal = trusting  # type: ignore[method-assign]  # that is the bug


def trusting_join() -> None:
    """Take every prediction for one of ours."""
    _trust("predictions")


def trusting_learn() -> None:
    """Take every example for one of ours."""
    _trust("examples")


def trusting_state() -> None:
    """Take every entry of state for one of ours, if it looks like one."""

    def equal(actual: bytes, expected: bytes) -> bool:
        return len(actual) == STATE_SEAL_BYTES or hmac.compare_digest(actual, expected)

    vars(sealing)["hmac"] = SimpleNamespace(compare_digest=equal, digest=hmac.digest)


def unsuppressed_replay() -> None:
    """Write again what a replay gives."""
    replay = KafkaTask._replay  # noqa: SLF001 - a bug has no manners
    outputs: list[Output] = []

    def apply(self: Task, records: Sequence[Record]) -> None:
        outputs.extend(self.apply(records))

    async def replay_aloud(self: KafkaTask, end_offsets: Positions) -> int:
        await self._spec.ready()
        replay_count = await replay(self, end_offsets)
        copy, outputs[:] = list(outputs), []
        await self._context.transactions.wait_until_writable()
        self._pending_outputs += copy
        self._send()
        return replay_count

    Task.replay = apply  # type: ignore[method-assign]  # that is the bug
    KafkaTask._replay = replay_aloud  # type: ignore[method-assign]  # noqa: SLF001 - as above
