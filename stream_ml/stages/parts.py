"""Pieces of state in entries of bounded size: what is larger lies in parts.

A piece of many bytes (the windows of a hot key, the learner of a large forest) is written as

    name        0x00 + how many parts + newline + the first part
    +1 name     the second part, as it is
    +2 name     ...

No piece of a stage is called so: their names begin with a letter or are empty. Where a piece
becomes smaller or goes, the parts that it does not take any more are dropped with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["PART_BYTES", "Parts", "StateEntry", "read_piece"]

# A piece of a task's state: a name, and its bytes or None where it is dropped.
StateEntry = tuple[str, bytes | None]

# Half of what a topic usually takes as one record, so that there is room for names and seals.
PART_BYTES = 512 * 1024
_MARK = b"\x00"
_PART = "+"
# Between two checkpoints there is time enough.
READ_AGAIN = 3


class Parts:
    r"""Which pieces of a task's state lie in parts. One object for the life of a state.

    >>> parts = Parts(limit=4)
    >>> parts.split([("a", b"123456789"), ("b", b"1")])
    [('a', b'\x003\n1234'), ('+1 a', b'5678'), ('+2 a', b'9'), ('b', b'1')]
    >>> parts.split([("a", b"12345")])
    [('a', b'\x002\n1234'), ('+1 a', b'5'), ('+2 a', None)]
    """

    def __init__(self, limit: int = PART_BYTES) -> None:
        self._limit = limit
        # How many parts lie there, of pieces that lie in several.
        self._counts: dict[str, int] = {}

    def split(self, pieces: Iterable[StateEntry]) -> list[StateEntry]:
        """The pieces as entries, none of more than `limit` bytes and a short head."""
        limit, counts = self._limit, self._counts
        entries: list[StateEntry] = []
        for piece in pieces:
            name, value = piece
            if name not in counts and (
                value is None or (len(value) <= limit and value[:1] != _MARK)
            ):
                entries.append(piece)
            else:
                entries += self._parts(name, value)
        return entries

    def _parts(self, name: str, value: bytes | None) -> list[StateEntry]:
        former_count = self._counts.pop(name, 1)
        entries: list[StateEntry] = [(name, value)]
        count = 1
        if value is not None and (len(value) > self._limit or value[:1] == _MARK):
            cuts = range(0, max(1, len(value)), self._limit)
            count = len(cuts)
            head = b"%s%d\n" % (_MARK, count)
            entries = [
                (_name(name, number), value[cut : cut + self._limit])
                for number, cut in enumerate(cuts)
            ]
            entries[0] = (name, head + value[: self._limit])
        if count > 1:
            self._counts[name] = count
        return entries + [(_name(name, number), None) for number in range(count, former_count)]

    def join(self, entries: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """The pieces that `split` was given, of all entries that live."""
        all_entries = list(entries)
        tails = {name: value for name, value in all_entries if name[:1] == _PART}
        return [
            (name, self._assemble(name, value, tails) if value[:1] == _MARK else value)
            for name, value in all_entries
            if name[:1] != _PART
        ]

    def _assemble(self, name: str, first: bytes, tails: dict[str, bytes]) -> bytes:
        head, _, part = first[1:].partition(b"\n")
        count = int(head)
        if count > 1:
            self._counts[name] = count
        missing = [n for n in range(1, count) if _name(name, n) not in tails]
        assert not missing, f"the state lacks parts {missing} of {count} of its piece {name!r}"
        return part + b"".join(tails[_name(name, number)] for number in range(1, count))


def read_piece(name: str, read: Callable[[str], bytes | None]) -> bytes | None:
    """One piece, for a reader of entries beside whom somebody may write; None if there is none.

    Args:
        name: the piece's.
        read: gives an entry by its name, or None.
    """
    for _ in range(READ_AGAIN):
        first = read(name)
        if first is None or first[:1] != _MARK:
            return first
        head, _, part = first[1:].partition(b"\n")
        tails = [read(_name(name, number)) for number in range(1, int(head))]
        if read(name) == first and None not in tails:
            return part + b"".join(tail for tail in tails if tail is not None)
    return None


def _name(piece: str, number: int) -> str:
    return f"{_PART}{number} {piece}" if number else piece
