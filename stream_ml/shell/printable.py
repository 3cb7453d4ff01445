"""Text that steers nobody's terminal: what would not show, or would do something, is escaped.

Clients and operators write what other people are shown. So nothing of it may end a line, move the
cursor, turn the direction of writing or hide.
"""

from __future__ import annotations

import re

__all__ = ["escape", "printable"]

# Printable by Unicode's book, and yet not to be seen: fillers, joiners, selectors of variants.
_INVISIBLE = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef"
)
_UNSEEN = re.compile(f"[{_INVISIBLE}]")


def printable(text: str) -> str:
    r"""A text in a line, with what would not show, or would do something, as escapes.

    >>> printable("Zoë"), printable("a\nb\x1b[2J\u202e")
    ('Zoë', 'a\\nb\\x1b[2J\\u202e')
    """
    if text.isprintable() and (text.isascii() or not _UNSEEN.search(text)):
        return text
    return "".join(map(escape, text))


def escape(character: str) -> str:
    """One character, as an escape where it would not show or would do something."""
    if character.isprintable() and not _UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode("ascii")
