"""Examples are numbered by the join partition that writes them: none counts twice, none is missed.

A genuine example that somebody copies is sealed as well as before, and its number was met. One
that somebody took away leaves a gap in the numbers.
"""

from __future__ import annotations

from stream_ml.errors import BadRecord

__all__ = ["Numbers"]


class Numbers:
    """Which example comes next, of each join partition.

    >>> numbers = Numbers()
    >>> numbers.take(0, 7), numbers.take(0, 8), numbers.take(0, 11)
    (0, 0, 2)
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: dict[int, int] = {}

    def has(self, partition: int) -> bool:
        """Whether an example of a partition of join was met."""
        return partition in self._next

    def take(self, partition: int, number: int | None) -> int:
        """Note an example; how many are missing before it.

        The first of a partition may have any number: what retention removed is nobody's fault. One
        of a former release has none.

        Args:
            partition: of the join task that wrote the example.
            number: the example's, one more than that before; None for one of a former release.

        Raises:
            BadRecord: it was met before.
        """
        if number is None:
            return 0
        next_number = self._next.get(partition, number)
        if number < next_number:
            raise BadRecord(
                "repeated",
                "$.number",
                f"expected {next_number} or more of join's partition {partition}, given {number}: "
                "it is a copy of one that came before; only workers write there: see who else may",
            )
        self._next[partition] = number + 1
        return number - next_number

    def dump(self) -> list[tuple[int, int]]:
        """The state, as JSON can hold it."""
        return list(self._next.items())

    def load(self, state: list[tuple[int, int]]) -> None:
        """Take up a dumped state."""
        self._next = {int(partition): int(number) for partition, number in state}
