"""What a caller probably meant by a record that is refused: files may say it otherwise than a log.

Files have times as ISO 8601 and labels as 0 and 1, and `publish` reads them as declared. What comes
by HTTP is put on the log as it is, where a time is a number and a label of yes or no a boolean.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from stream_ml.errors import BadRecord

__all__ = ["hint"]

BOOLEANS = {0: "false", 1: "true", "0": "false", "1": "true", "no": "false", "yes": "true"}
EXAMPLE = '"2013-01-01T11:00:00Z" is 1357038000000'


def hint(value: bytes, error: BadRecord, time_member: str) -> str | None:
    """How to say it right; None where nobody can guess.

    Args:
        value: the record.
        error: why it is refused.
        time_member: the member that has its time.
    """
    member = error.path.removeprefix("$.")
    if error.reason != "wrong_type" or member not in {time_member, "label"}:
        return None
    try:
        given: Any = orjson.loads(value)[member]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    if member == time_member:
        return _time_hint(given)
    if "expected bool" in error.message and isinstance(given, str | int) and given in BOOLEANS:
        return (
            f"a label is true or false here: for {orjson.dumps(given).decode()} send "
            f"{BOOLEANS[given]}; 0 and 1 are read from files (`stream-ml publish`)"
        )
    return None


def _time_hint(given: Any) -> str | None:
    if not isinstance(given, str):
        return None
    try:
        time = datetime.fromisoformat(given.strip())
    except ValueError:
        example = EXAMPLE
    else:
        ms = round(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1_000)
        zone = "" if time.tzinfo else ", where it is of UTC"
        example = f"this one is {ms}{zone}"
    return (
        f"a time is a number here, UTC milliseconds since 1970: {example}; times as text are read "
        "from files (`stream-ml publish`)"
    )
