"""What a worker tells of itself where it joins its group, and whoever looks at the group reads."""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["FIRST_JOIN", "first_join_ms", "told_items"]

# What a member has told beside what it held; an object, which a former release passes over.
FIRST_JOIN = "first_join_ms"


def first_join_ms(user_data: bytes | str) -> int | None:
    """When a member says that it joined first (UTC ms); None where it does not say.

    Args:
        user_data: of its metadata, or as text, as an admin client describes it.

    >>> first_join_ms(b'[0, 2, {"first_join_ms": 1700000000000}]'), first_join_ms(b"[0, 2]")
    (1700000000000, None)
    """
    told = [each.get(FIRST_JOIN) for each in told_items(user_data) if type(each) is dict]
    return next((time_ms for time_ms in told if type(time_ms) is int), None)


def told_items(user_data: bytes | str) -> list[Any]:
    """What a member tells; nothing of one that is none of ours.

    Args:
        user_data: as of `first_join_ms`.
    """
    try:
        items = orjson.loads(user_data or b"[]")
    except orjson.JSONDecodeError:
        return []
    return items if type(items) is list else []
