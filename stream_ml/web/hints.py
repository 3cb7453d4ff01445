"""What a caller probably meant by a record that is refused: files may say it otherwise than a log.

Files have times as ISO 8601 and labels as 0 and 1, and `publish` reads them as declared. What comes
by HTTP is put on the log as it is, where a time is a number and a label of yes or no a boolean.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.time_units import YEAR_2000_MS, YEAR_2100_MS, likely_ms, time_text
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from stream_ml.errors import BadRecord
    from stream_ml.pipeline import Pipeline

__all__ = ["hint", "late_or_future_hint", "other_unit_refusal"]

# A string, up to its end or that of all, and the number that it is the name of. Each is looked at
# once, whatever is in it: a search that began anew within one would take the square of its length.
_STRING = re.compile(
    rb'("[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z))\s*+(?::\s*+(-?(?:NaN|Infinity)))?+', re.DOTALL
)
# What lies further behind was not overtaken on its way.
OVERTAKEN_MS = 600_000
BOOLEANS = {0: "false", 1: "true", "0": "false", "1": "true", "no": "false", "yes": "true"}
EXAMPLE = '"2013-01-01T11:00:00Z" is 1357038000000'


def hint(value: bytes, error: BadRecord, time_member: str) -> str | None:
    """How to say it right; None where nobody can guess.

    Args:
        value: the record.
        error: why it is refused.
        time_member: the member that has its time.
    """
    if error.reason == "not_finite":
        return _not_finite_hint(value)
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


def late_or_future_hint(
    pipeline: Pipeline, reason: str, ts: int, newest_ms: int | None
) -> str | None:
    """How an event would have been taken that its time was refused for; None of other reasons.

    Args:
        pipeline: the declaration.
        reason: of its dead letter.
        ts: the event's time.
        newest_ms: that of the newest prediction, where one is known.
    """
    if reason not in {"too_late", "from_the_future"}:
        return None
    guess = likely_ms(ts)
    if guess is not None:
        return f"as {guess[0]} it is {time_text(guess[1])}: send {guess[1]}"
    behind_ms = 0 if newest_ms is None else newest_ms - ts
    if reason == "from_the_future" or behind_ms > OVERTAKEN_MS:
        return None
    enough_s = max(10, 2 * max(pipeline.lateness_ms, behind_ms) // 1_000)
    return (
        "requests that are under way at once overtake each other: declare a lateness that covers "
        f"by how much, such as Events(lateness='{enough_s}s'); now it is "
        f"{pipeline.events.lateness!r}"
    )


def other_unit_refusal(ts: int, newest_ms: int | None, time_member: str) -> Refusal | None:
    """Why a time is none of this log's, but is by another unit; None where it may be one.

    Args:
        ts: of an event or a label.
        newest_ms: that of the newest prediction; None where none is known, and so nothing is told.
        time_member: the member that has it.
    """
    guess = likely_ms(ts)
    if guess is None or newest_ms is None or not YEAR_2000_MS <= newest_ms < YEAR_2100_MS:
        return None
    unit, ms = guess
    return Refusal(
        422,
        f"expected UTC milliseconds near those of before, {time_text(newest_ms)}, given {ts}, "
        f"{time_text(ts)}; it was not published",
        "wrong_unit",
        f"$.{time_member}",
        members={"hint": f"as {unit} it is {time_text(ms)}: send {ms}"},
    )


def _not_finite_hint(value: bytes) -> str | None:
    found = next((each for each in _STRING.finditer(value) if each[2] is not None), None)
    if found is None:
        return None
    member, number = (part.decode("utf-8", "replace") for part in found.groups())
    return (
        f"{member}: JSON has no {number}: leave it out, or send null, where the field is declared "
        "Optional[...]"
    )


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
