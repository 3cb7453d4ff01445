"""The details of commands that change no model: dead letters redriven, a key forgotten."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from stream_ml.records import PARTITIONS_MAX
from stream_ml.stages.operators import CommandRefusal

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "LETTERS",
    "LETTERS_MAX",
    "batch_size",
    "forgotten_evidence",
    "letter_details",
    "letter_ranges",
]

# The member of a redrive's details, and of the evidence of its decision, that names the letters.
LETTERS = "letters"
_SUBJECT = re.compile(r"[0-9a-f]{64}")
# In one command: their ranges must fit a record of the registry, together with what serves.
LETTERS_MAX = 1_000
# Of thousands of digits Python makes no integer.
_DIGITS_MAX = len(str(PARTITIONS_MAX))


def letter_details(letters: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """The details of a command that these dead letters were redriven with.

    >>> letter_details([(0, 4), (0, 5), (0, 9), (1, 2)])
    {'letters': {'0': [[4, 5], [9, 9]], '1': [[2, 2]]}}

    Args:
        letters: the partition and offset of each.
    """
    ranges: dict[str, list[list[int]]] = {}
    for partition, offset in sorted(letters):
        of_partition = ranges.setdefault(str(partition), [])
        if of_partition and of_partition[-1][1] == offset - 1:
            of_partition[-1][1] = offset
        else:
            of_partition.append([offset, offset])
    return {LETTERS: ranges}


def letter_ranges(details: dict[str, Any] | None) -> dict[str, list[list[int]]]:
    """The ranges of offsets, both ends included, by partition, that a command's details name.

    Raises:
        CommandRefusal: they are none.
    """
    ranges = (details or {}).get(LETTERS)
    if not isinstance(ranges, dict) or not ranges:
        raise CommandRefusal(
            f"expected in `details` the dead letters as `{LETTERS}`, by partition, given {details}"
        )
    for partition, of_partition in ranges.items():
        if not _is_partition(partition) or not isinstance(of_partition, list):
            raise CommandRefusal(f"expected a partition's ranges of offsets, given {partition!r}")
        if len(of_partition) > LETTERS_MAX or not all(map(_is_range, of_partition)):
            raise CommandRefusal(
                f"expected up to {LETTERS_MAX} ranges of offsets, as [first, last], of partition "
                f"{partition}, given others"
            )
    return ranges


def forgotten_evidence(details: dict[str, Any] | None) -> dict[str, Any]:
    """What a command to forget a key says of it: never the key itself.

    Raises:
        CommandRefusal: it says something else.
    """
    subject, records = (details or {}).get("subject"), (details or {}).get("records")
    is_subject = isinstance(subject, str) and _SUBJECT.fullmatch(subject) is not None
    if not is_subject or not isinstance(records, bool):
        raise CommandRefusal(
            "expected in `details` what stands for the key (`subject`, 64 hex digits) and whether "
            "`records` go, given others"
        )
    return {"subject": subject, "records": records}


def batch_size(details: dict[str, Any] | None) -> int:
    """How many examples a batch shall have, as a command's details say it.

    Raises:
        CommandRefusal: they say something else.
    """
    size = (details or {}).get("batch")
    if type(size) is not int or size < 1:
        raise CommandRefusal(
            f"expected in `details` how many examples make a batch (`batch`, from 1 on), given "
            f"{details}"
        )
    return size


def _is_partition(text: str) -> bool:
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    return is_number and int(text) < PARTITIONS_MAX


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list)
        and [type(item) for item in value] == [int, int]
        and 0 <= value[0] <= value[1]
    )
