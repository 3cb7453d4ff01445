"""The output of this process: text that steers nobody's terminal, to streams that may go away.

Clients and operators write what other people are shown: see `shell.printable`.

A reader of our output may leave, the disk that takes it may be full, and a stream may have been
closed before we began. That ends no work: from then on what is said there goes nowhere, and the
entry point asks `output_error` what to make of it.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Literal

import orjson

from stream_ml.cli.colour import paint, render, set_active
from stream_ml.shell.printable import escape
from stream_ml.shell.settings.settings import takes_colour

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

__all__ = [
    "as_utf8",
    "begin",
    "complain",
    "draw",
    "end",
    "error_stream",
    "fail",
    "flush",
    "gathered",
    "output_error",
    "silence",
    "write",
    "write_bytes",
    "write_json",
    "write_json_line",
    "write_line",
]

Name = Literal["stdout", "stderr"]
_NOWHERE = "it is closed"

# Of each stream that takes no more: why.
_errors: dict[Name, OSError] = {}
_closed_names: set[Name] = set()
# Those that are terminals which take colours.
_coloured_names: set[Name] = set()
# Those that were asked to say nothing, each with the stream that it was.
_silenced: dict[Name, TextIO] = {}
# What is said while a picture is gathered that is drawn at once.
_gathered: list[str] | None = None


# --- text and JSON ---------------------------------------------------------------------------


def _lines(text: str, name: Name = "stdout") -> str:
    return "\n".join(_line(line, name) for line in text.split("\n"))


def _line(text: str, name: Name = "stdout") -> str:
    return render(text, is_coloured=name in _coloured_names)


def as_utf8(text: str) -> str:
    r"""An argument whose bytes are UTF-8 where the locale has taken them for something else.

    >>> as_utf8("Zo\udcc3\udcab"), as_utf8("Zoë")
    ('Zoë', 'Zoë')

    Raises:
        ValueError: it is not UTF-8 either.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape").decode()
    return text


def _as_json(value: Any, option: int = 0) -> str:
    try:
        return orjson.dumps(value, option=option).decode()
    except orjson.JSONEncodeError:
        # A path, say, whose bytes are no text: JSON has no way to hold it as it is.
        return orjson.dumps(_encodable(value), option=option).decode()


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    return value


def _plain_json(text: str) -> str:
    """The same JSON, in characters that the output can hold and that do nothing to a terminal."""
    if text.isascii() and "\x7f" not in text:
        return text
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    must_escape_all = not encoding.startswith("utf")
    return "".join(
        character
        if character in " \n"
        or ((character.isascii() or not must_escape_all) and escape(character) == character)
        else _json_escape(character)
        for character in text
    )


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2))


# --- streams ---------------------------------------------------------------------------------


def begin() -> None:
    """Make sure that there is something to write to, whatever the streams were when we started."""
    end()
    _errors.clear()
    _closed_names.clear()
    _coloured_names.clear()
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            # Else the next file that is opened would take its place, and what we say as well.
            os.open(os.devnull, os.O_RDWR)
    names: tuple[Name, Name] = ("stdout", "stderr")
    for name in names:
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            _closed_names.add(name)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
            continue
        if isinstance(stream, TextIOWrapper):
            # Characters that the encoding lacks are escaped; nothing ends by them.
            stream.reconfigure(errors="backslashreplace")
        with suppress(OSError, ValueError):
            # Somebody who shares it has made it non-blocking: half of a line would be dropped.
            os.set_blocking(stream.fileno(), True)
        if takes_colour(is_terminal=stream.isatty()):
            _coloured_names.add(name)
    set_active(bool(_coloured_names))


def silence(name: Name) -> None:
    """Let what is said there go nowhere, until `end`; only `fail` is heard.

    Args:
        name: of the stream.
    """
    if name not in _silenced:
        _silenced[name] = getattr(sys, name)
        # Progress and other libraries know the stream by this name.
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def end() -> None:
    """Give the streams back that were silenced, and mark no more colours."""
    set_active(False)
    for name in tuple(_silenced):
        nowhere: TextIO = getattr(sys, name)
        setattr(sys, name, _silenced.pop(name))
        nowhere.close()


@contextmanager
def gathered() -> Iterator[list[str]]:
    """Gather what is said on either stream in a list of texts, rather than write it."""
    global _gathered  # noqa: PLW0603 - the streams are this process's, and so is this
    texts: list[str] = []
    _gathered = texts
    try:
        yield texts
    finally:
        _gathered = None


def draw(text: str) -> None:
    """Write what steers the terminal, and lines that `gathered` has made safe, as they are.

    Args:
        text: of our own.
    """
    _put("stdout", text)
    flush()


def write(text: str) -> None:
    """Print lines to standard output, and the end of the last one."""
    _put("stdout", f"{_lines(text)}\n")


def write_line(text: str) -> None:
    """Print one line to standard output, whatever it holds."""
    _put("stdout", f"{_line(text)}\n")


def write_bytes(value: bytes) -> None:
    """Put bytes on standard output as they are: to a file or a pipe, for a terminal obeys them."""
    flush()
    stream = sys.stdout
    if "stdout" in _errors or stream.closed:
        return
    try:
        stream.buffer.write(value)
    except OSError as error:
        _lose("stdout", stream, error)


def write_json(value: Any) -> None:
    """Print one JSON document to standard output."""
    _put("stdout", f"{_plain_json(_as_json(value, orjson.OPT_INDENT_2))}\n")


def write_json_line(value: Any) -> None:
    """Print one JSON object in a line to standard output; bytes are JSON already."""
    text = value.decode() if isinstance(value, bytes) else _as_json(value)
    _put("stdout", f"{_plain_json(text)}\n")


def complain(text: str, *, is_error: bool = False) -> None:
    """Print a line to standard error; what follows a line's end there is set in.

    Args:
        text: for people.
        is_error: whether it is told also where the stream is silenced.
    """
    first, *continuation = _lines(text, "stderr").split("\n")
    _put(
        "stderr",
        "\n".join([first, *(f"  {line.removeprefix('  ')}" for line in continuation)]) + "\n",
        is_error=is_error,
    )
    flush("stderr", is_error=is_error)


def fail(text: str) -> None:
    """Print the error at which a command ends, to standard error, silenced or not.

    Args:
        text: with the way out.
    """
    complain(f"{paint('stream-ml:', 'bad')} {text}", is_error=True)


def error_stream() -> TextIO:
    """Standard error, silenced or not: for logs, which have levels of their own."""
    return _stream("stderr", is_error=True)


def _stream(name: Name, *, is_error: bool) -> TextIO:
    stream: TextIO = getattr(sys, name)
    return _silenced.get(name, stream) if is_error else stream


def flush(name: Name = "stdout", *, is_error: bool = False) -> bool:
    """Hand on what was written; whether anybody takes it."""
    stream = _stream(name, is_error=is_error)
    if name not in _errors and not stream.closed:
        try:
            stream.flush()
        except OSError as error:
            _lose(name, stream, error)
    return name not in _errors


def output_error(name: Name = "stdout") -> OSError | None:
    """Why something that was said there was not taken; None where all was."""
    return _errors.get(name)


def _put(name: Name, text: str, *, is_error: bool = False) -> None:
    if _gathered is not None:
        _gathered.append(text)
        return
    stream = _stream(name, is_error=is_error)
    if name in _closed_names or stream.closed:
        _errors.setdefault(name, OSError(errno.EBADF, _NOWHERE))
    if name in _errors:
        return
    try:
        stream.write(text)
    except OSError as error:
        _lose(name, stream, error)


def _lose(name: Name, stream: TextIO, error: OSError) -> None:
    _errors[name] = error
    # The rest of the buffer goes nowhere, lest the interpreter complain of it at exit.
    with suppress(OSError, ValueError):
        handle = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, handle)
        os.close(nowhere)
