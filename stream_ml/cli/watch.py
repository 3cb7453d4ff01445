"""`--watch`: a view drawn over and over in its place, until Ctrl-C."""

from __future__ import annotations

import re
import shutil
import sys
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import rate
from stream_ml.cli.colour import paint
from stream_ml.cli.output import complain, draw, flush, gathered
from stream_ml.errors import LogError, UsageError
from stream_ml.shell.processes.stop import Stop

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["add_watch", "picture", "watch"]

WATCH_S = 2.0
# A screen of its own, so that what was there before comes back; and no cursor that jumps.
BEGIN, END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
# To the corner; to the end of a line, and of the screen, nothing is left of the picture before.
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
PLAIN = "\x1b[0m"
_COLOUR = re.compile(r"(\x1b\[\d+m)")


def add_watch(parser: ArgumentParser) -> None:
    """Let a view be watched.

    Args:
        parser: of its command.
    """
    parser.add_argument(
        "--watch",
        nargs="?",
        type=rate,
        const=WATCH_S,
        metavar="SECONDS",
        help=f"draw it again in its place every so often ({WATCH_S:g}), until Ctrl-C; a terminal's",
    )


def watch(arguments: Namespace, settings: Settings) -> None:
    """Draw the view until the process is asked to stop; its last picture is left behind.

    Args:
        arguments: of the view, `watch` among them.
        settings: as the view takes them.

    Raises:
        UsageError: standard output is no terminal, or the view is asked for as JSON, or raw.
    """
    for option in ("raw", "follow"):
        if getattr(arguments, option, False):
            raise UsageError(f"--watch: expected no --{option} with it, given both; leave one out")
    if arguments.format == "json":
        raise UsageError(
            "--watch: expected --format text, given json; ask for it again and again instead"
        )
    if not sys.stdout.isatty():
        raise UsageError(
            "--watch: expected a terminal to draw on, given a file or a pipe; leave it out, and "
            "ask for the view again and again instead"
        )
    # What is wrong with the command is said at once, where it can be read.
    text = _view(arguments, settings)
    with Stop() as stop:
        draw(BEGIN)
        try:
            while not stop.is_requested:
                draw(HOME + picture(text, *shutil.get_terminal_size()) + CLEAR_BELOW)
                if not flush():
                    break
                stop.wait(arguments.watch)
                if not stop.is_requested:
                    text = _next_view(arguments, settings)
        finally:
            draw(END)
    draw(text)


def picture(text: str, columns: int, lines: int) -> str:
    r"""As much of a view as fits on the screen, each line cut at its end.

    >>> picture("abc\n\x1b[1mabc\x1b[0m\n", 2, 2)
    'ab\x1b[K\r\n\x1b[1mab\x1b[0m\x1b[0m\x1b[K'

    Args:
        text: of the view; safe, with colours.
        columns: of the terminal.
        lines: of the terminal.
    """
    rows = text.rstrip("\n").split("\n")
    hidden = len(rows) - lines
    if hidden > 0:
        rows = [*rows[: max(1, lines - 1)], f"... {hidden + 1:,} more lines: enlarge the terminal"]
    return "\r\n".join(_cut(row, columns) + CLEAR_LINE for row in rows[:lines])


def _cut(row: str, columns: int) -> str:
    """The first columns of a row; colours take no room."""
    parts, room = [], columns
    for index, part in enumerate(_COLOUR.split(row)):
        parts.append(part if index % 2 else part[:room])
        room -= 0 if index % 2 else len(parts[-1])
    if room > 0:
        return row
    # Without colours, as `NO_COLOR` asks for, nothing is to be ended.
    return "".join(parts) + (PLAIN if len(parts) > 1 else "")


def _view(arguments: Namespace, settings: Settings) -> str:
    with gathered() as texts:
        arguments.run(arguments, settings)
    return "".join(texts)


def _next_view(arguments: Namespace, settings: Settings) -> str:
    """The view as it is now, or why the log does not show it: it may be back the next time."""
    try:
        return _view(arguments, settings)
    except LogError as error:
        with gathered() as texts:
            complain(f"{paint('stream-ml:', 'bad')} {error}")
        return "".join(texts)
