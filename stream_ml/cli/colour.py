"""Colours of a terminal: marked in the text, and made of the marks where it is written.

A mark holds a token drawn for this process, so no text from outside can hold one: what others wrote
colours nothing. Where no stream is a terminal that takes colours, there are no marks at all.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Literal

from stream_ml.shell.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["Style", "StyledText", "paint", "render", "set_active"]

Style = Literal["heading", "name", "good", "warning", "bad", "faint"]

# Of the eight colours that every terminal has, which its owner has chosen to be readable.
CODES: dict[Style, int] = {
    "heading": 1,
    "name": 36,
    "good": 32,
    "warning": 33,
    "bad": 31,
    "faint": 2,
}
PLAIN = 0

_TOKEN = secrets.token_hex(8)
_MARK = re.compile(f"\x1b{_TOKEN}(\\d+);")
_active = False


class StyledText(str):
    """The text of a cell, and how it looks; everywhere else it is a text like others.

    Args:
        text: of the cell.
        style: its look.
    """

    __slots__ = ("style",)

    style: Style

    def __new__(cls, text: str, style: Style) -> Self:
        """The text, with its look."""
        self = super().__new__(cls, text)
        self.style = style
        return self


def set_active(is_active: bool) -> None:
    """Mark from now on, or no more.

    Args:
        is_active: whether any stream takes colours.
    """
    global _active  # noqa: PLW0603 - what the streams of this process are
    _active = is_active


def paint(text: str, style: Style) -> str:
    """A text that can be printed, marked with a style; unmarked where no stream takes colours.

    >>> paint("ready", "good")
    'ready'

    Args:
        text: without anything that would steer a terminal: see `printable`.
        style: its look.
    """
    return f"\x1b{_TOKEN}{CODES[style]};{text}\x1b{_TOKEN}{PLAIN};" if _active and text else text


def render(text: str, *, is_coloured: bool) -> str:
    r"""A line as it goes to a stream: escaped, but for our marks: colours, or nothing.

    >>> render("a\x1b[31mb", is_coloured=True)
    'a\\x1b[31mb'

    Args:
        text: a line.
        is_coloured: whether the stream takes colours.
    """
    return "".join(_pieces(text, is_coloured)) if "\x1b" in text else printable(text)


def _pieces(text: str, is_coloured: bool) -> Iterator[str]:
    for index, piece in enumerate(_MARK.split(text)):
        # Odd ones are what the mark captures: a code.
        if index % 2 == 0:
            yield printable(piece)
        elif is_coloured:
            yield f"\x1b[{piece}m"
