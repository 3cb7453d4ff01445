"""The keys of a stage's state entries: a prefix of one letter for the kind, then a name.

The entry without a key holds what there is one of (watermarks, counts). Keys lie on disk: a prefix
is never given another meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BLOCKS",
    "COMMAND_IDS",
    "CORRECTIONS",
    "DELAYED",
    "EVENT_IDS",
    "EXPIRED_IDS",
    "EXTRA_PREDICTIONS",
    "JOINED_IDS",
    "KEPT",
    "KEYLESS",
    "LABELS",
    "LEARNERS",
    "MONITORS",
    "PREDICTIONS",
    "PREDICTION_IDS",
    "ROWS",
    "SCORES",
    "SERVED",
    "WINDOWS",
    "split_by_prefix",
]

KEYLESS = ""
# Of predict.
WINDOWS, EVENT_IDS, BLOCKS = "w", "i", "b"
DELAYED = "d"
# Of join.
PREDICTIONS, EXTRA_PREDICTIONS, LABELS = "p", "o", "l"
JOINED_IDS, EXPIRED_IDS, PREDICTION_IDS = "j", "e", "t"
CORRECTIONS = "c"
# Of learn.
LEARNERS, KEPT, ROWS = "l", "k", "r"
# Of evaluate.
SCORES, COMMAND_IDS, MONITORS, SERVED = "s", "c", "m", "v"


def split_by_prefix(
    entries: Iterable[tuple[str, bytes]], *prefixes: str
) -> dict[str, list[tuple[str, bytes]]]:
    """The entries by prefix, under their names without it, in their order; `KEYLESS` is one, too.

    >>> split_by_prefix([("", b"1"), ("wJFK", b"2")], WINDOWS, EVENT_IDS)
    {'': [('', b'1')], 'w': [('JFK', b'2')], 'i': []}

    Args:
        entries: of one stage.
        prefixes: the stage's.

    Raises:
        KeyError: an entry has a prefix that the stage does not have.
    """
    by_prefix: dict[str, list[tuple[str, bytes]]] = {prefix: [] for prefix in (KEYLESS, *prefixes)}
    for key, value in entries:
        by_prefix[key[:1]].append((key[1:], value))
    return by_prefix
