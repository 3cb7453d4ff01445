"""How often Python looks for rings of objects that nobody holds."""

from __future__ import annotations

import gc

__all__ = ["YOUNG_MAX", "collect_less_often"]

# Python looks through new objects whenever there are 700 more of them than before: in the middle of
# a round, most of whose records are gone at its end, so that each is looked at for nothing
# (measured: 6 % of a worker's time). So many are some 10 MB of memory, and looked at in 5 ms.
YOUNG_MAX = 50_000


def collect_less_often() -> None:
    """Let new objects come together until there are `YOUNG_MAX`; for a process that is a worker.

    It leaves a process alone that has told Python to look still less often, or not at all.
    """
    young, *older = gc.get_threshold()
    if 0 < young < YOUNG_MAX:
        gc.set_threshold(YOUNG_MAX, *older)
