"""Which commands of an operator were answered: none is carried out twice.

So many ids are known, the newest by the time of their command. Of what is no newer than one
forgotten nobody knows whether it was answered. Each operator has ids of their own: whoever may
command nothing, or commands a great deal, takes none from the others. So are the markers known that
a partition of events has brought (`erasure`): each is of a command, too.
"""

from __future__ import annotations

import hashlib
import heapq

__all__ = ["AnsweredIds"]

# A longer id is known by its hash: state stays small, whatever operators call their commands.
ID_BYTES_MAX = 64


class AnsweredIds:
    """The command ids of one operator that were answered, each with its command's time.

    >>> answered = AnsweredIds({"a": 5})
    >>> answered.add("b", 7); answered.add("c", 6)
    >>> answered.keep(2), "a" in answered, "b" in answered, answered.forgotten_ms
    (1, False, True, 5)
    """

    __slots__ = ("_order", "_times", "forgotten_ms")

    def __init__(self, times: dict[str, int] | None = None, forgotten_ms: int = -1) -> None:
        self._times = dict(times or {})
        self._order = [(ts, name) for name, ts in self._times.items()]
        heapq.heapify(self._order)
        self.forgotten_ms = forgotten_ms

    def __len__(self) -> int:
        return len(self._times)

    def __contains__(self, command_id: str) -> bool:
        return _name(command_id) in self._times

    def add(self, command_id: str, ts: int) -> None:
        """Remember an id that is not known.

        Args:
            command_id: one operator's.
            ts: the command's time, UTC milliseconds.
        """
        name = _name(command_id)
        self._times[name] = ts
        heapq.heappush(self._order, (ts, name))

    def keep(self, count: int) -> int:
        """Forget all but so many, and return how many went."""
        former_count = len(self._times)
        while len(self._times) > count:
            ts, name = heapq.heappop(self._order)
            del self._times[name]
            self.forgotten_ms = max(self.forgotten_ms, ts)
        return former_count - len(self._times)

    def dump(self) -> dict[str, object]:
        """What the constructor takes, as JSON can hold it."""
        return {"times": self._times, "forgotten_ms": self.forgotten_ms}


def _name(command_id: str) -> str:
    if len(command_id.encode()) <= ID_BYTES_MAX:
        return command_id
    return hashlib.sha256(command_id.encode()).hexdigest()
