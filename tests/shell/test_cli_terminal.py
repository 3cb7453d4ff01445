"""The command line on a terminal: colours there alone, views that are watched, silence."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cli_toy import TOY

from stream_ml.cli import colour
from stream_ml.cli.output import begin, write_line
from stream_ml.shell.settings.settings import takes_colour

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

COLOUR = re.compile(r"\x1b\[\d+m")
PATIENCE_S = 60.0


class Terminal:
    """A real command line of ours that has a terminal as its output.

    Args:
        arguments: of `stream-ml`.
        environ: beside what it inherits.
    """

    def __init__(self, *arguments: str, **environ: str) -> None:
        self.handle, other = pty.openpty()
        inherited = {
            name: text
            for name, text in os.environ.items()
            if name not in {"NO_COLOR", "FORCE_COLOR"} and not name.startswith("STREAM_ML_")
        }
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "stream_ml", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=other,
            stderr=other,
            env={**inherited, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", **environ},
        )
        os.close(other)
        self.text = ""

    def read_until(self, is_over: str | None = None, times: int = 1) -> str:
        """What was written so far, up to the end or to so many of a text."""
        deadline_s = time.monotonic() + PATIENCE_S
        while is_over is None or self.text.count(is_over) < times:
            left_s = deadline_s - time.monotonic()
            assert select.select([self.handle], [], [], max(0.0, left_s))[0], self.text
            try:
                piece = os.read(self.handle, 65_536)
            except OSError:
                piece = b""  # a terminal's way to say that nobody writes any more
            if not piece:
                break
            self.text += piece.decode()
        return self.text

    def close(self) -> int:
        """Read the rest, and return the exit code."""
        self.read_until()
        os.close(self.handle)
        return self.process.wait(PATIENCE_S)


def of(path: Path) -> tuple[str, str]:
    """The option that names a log."""
    return "--broker", f"sqlite:{path}"


def test_a_terminal_gets_colours_and_a_pipe_the_same_without(worked: Path, cli: Cli) -> None:
    """On a terminal heads and the champion stand out; the text is the one that a pipe gets."""
    terminal = Terminal(*of(worked), "models")

    assert 0 == terminal.close()
    assert COLOUR.search(terminal.text)
    plain = COLOUR.sub("", terminal.text).replace("\r\n", "\n")
    assert cli(*of(worked), "models").out == plain


def test_an_error_is_coloured_on_a_terminal_and_no_color_is_obeyed(tmp_path: Path) -> None:
    """The name of the program is red before an error, and with `NO_COLOR` it is not."""
    coloured, plain = (
        Terminal(*of(tmp_path / "none"), "status", **environ) for environ in ({}, {"NO_COLOR": "1"})
    )

    assert (3, 3) == (coloured.close(), plain.close())
    assert coloured.text.startswith("\x1b[31mstream-ml:\x1b[0m ")
    assert plain.text.startswith("stream-ml: ")
    assert "\x1b" not in plain.text


@pytest.mark.parametrize(
    ("environ", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_the_environment_says_where_colours_are(
    environ: dict[str, str], on_terminal: bool, elsewhere: bool
) -> None:
    """`NO_COLOR` takes them away, `FORCE_COLOR` gives them, a dumb terminal has none."""
    assert on_terminal == takes_colour(is_terminal=True, environ=environ)
    assert elsewhere == takes_colour(is_terminal=False, environ=environ)


def test_json_is_never_coloured(worked: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What machines read holds no colours, wherever it goes."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert "\x1b" not in cli(*of(worked), "models", "--format", "json").out
    assert COLOUR.search(cli(*of(worked), "models").out)
    # And a command leaves no colours behind it, for whoever calls it from Python.
    assert "ours" == colour.paint("ours", "bad")


def test_text_of_others_colours_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colour that somebody put into a record is escaped, beside one of ours that is not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    begin()

    write_line(f"{colour.paint('ours', 'bad')} \x1b[31mtheirs \x1b31;more")

    monkeypatch.undo()
    begin()
    assert capsys.readouterr().out == "\x1b[31mours\x1b[0m \\x1b[31mtheirs \\x1b31;more\n"


def test_a_view_is_watched_in_its_place_until_ctrl_c(worked: Path) -> None:
    """It is drawn again from the corner, ends with code 0, and the last picture stays."""
    terminal = Terminal(*of(worked), "status", "--watch", "0.1", NO_COLOR="1")
    drawn = terminal.read_until("\x1b[H", times=3)
    terminal.process.send_signal(signal.SIGINT)

    assert 0 == terminal.close()
    assert drawn.startswith("\x1b[?1049h\x1b[?25l\x1b[H")
    pictures, _, last = terminal.text.partition("\x1b[?25h\x1b[?1049l")
    assert all(
        each.count("\r\n") < 24 and "champion" in each for each in pictures.split("\x1b[H")[1:3]
    )
    assert "\x1b" not in last
    assert "champion" in last


def test_a_watched_log_may_come_and_go(worked: Path, tmp_path: Path) -> None:
    """What cannot be read for a while is said in the picture, and shown when it is back."""
    path = tmp_path / "log.sqlite"
    path.write_bytes(worked.read_bytes())
    terminal = Terminal(*of(path), "models", "--watch=0.1", NO_COLOR="1")
    terminal.read_until("serves")
    path.rename(tmp_path / "away")
    terminal.read_until("stream-ml: ")
    (tmp_path / "away").rename(path)
    before = terminal.text.count("serves")
    terminal.read_until("serves", times=before + 1)
    terminal.process.send_signal(signal.SIGTERM)

    assert 0 == terminal.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--watch: expected a terminal to draw on, given a file or a pipe"),
        (["--format", "json"], "--watch: expected --format text, given json"),
    ],
)
def test_a_pipe_is_not_watched(cli: Cli, worked: Path, options: list[str], message: str) -> None:
    """Where there is nothing to draw on, it is refused with the way out."""
    ran = cli(*of(worked), "status", "--watch", *options)

    assert (2, "") == (ran.code, ran.out)
    assert f"stream-ml: {message}" in ran.err


def test_quiet_commands_say_errors_alone(worked: Path, cli: Cli, tmp_path: Path) -> None:
    """What acts says nothing with --quiet; what shows something shows it; an error is said."""
    act = (*of(worked), "--pipeline", TOY, "export", "decisions", "--to")
    loud = cli(*act, str(tmp_path / "loud.csv"))
    quiet = cli("--quiet", *act, str(tmp_path / "quiet.csv"))

    assert "loud.csv" in loud.out
    assert (0, "", "") == (quiet.code, quiet.out, quiet.err)
    assert "champion" in cli(*of(worked), "status", "--quiet").out
    assert cli("status", "--quiet", *of(tmp_path / "none")).err.startswith("stream-ml: ")
