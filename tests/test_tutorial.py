"""The tutorial, typed as it stands: files are written, commands run, output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.shell.processes import environment

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r'```(python title="(?P<file>[\w.]+)"|console|text)\n(?P<text>.*?)```', re.DOTALL
)
# Once started these run on; `tests/shell/test_walk.py` walks through them.
LIVE = ("up", "publish", "status", "models")
REFUSED = 1


def _typed(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command line, run by a shell as a reader's would."""
    commands = Path(sys.executable).parent
    return subprocess.run(  # noqa: S602 - a line of our own page
        line,
        shell=True,
        cwd=folder,
        env=environment(PATH=f"{commands}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=False,
    )


def _missing(shown: str, output: str) -> list[str]:
    """Lines shown that the output has not, in their order; `...` stands for any."""
    rest = output.splitlines()
    missing = []
    for line in shown.splitlines():
        if line == "...":
            continue
        if line in rest:
            rest = rest[rest.index(line) + 1 :]
        else:
            missing.append(line)
    return missing


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    """Three pipelines, from data to scores: what a reader types gives what the page shows."""
    output, ran = "", []
    for block in BLOCK.finditer(TUTORIAL):
        text = block["text"]
        if block["file"] is not None:
            with (tmp_path / block["file"]).open("a", encoding="utf-8") as file:
                file.write(text)
        elif block[1] == "text":
            assert [] == _missing(text, output), output
        else:
            lines = [line.removeprefix("$ ") for line in text.splitlines()]
            lines = [line for line in lines if not re.search(rf" ({'|'.join(LIVE)})\b", line)]
            done = [_typed(line, tmp_path) for line in lines]
            output = "".join(each.stdout for each in done)
            ran += lines
            for line, each in zip(lines, done, strict=True):
                assert each.returncode == REFUSED * ("wrong" in line and "backtest" in line), each

    tasks = [re.search(r"deliveries:(\w+) backtest events", line) for line in ran]
    assert ["late", "outcome", "minutes"] == [task[1] for task in tasks if task]


def test_the_first_use_of_readme_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    """Who has just read it gets scores from its first four lines."""
    uses = README.partition("## Three uses")[2]
    lines = re.findall(r"^\$ (.*)$", uses.partition("**2.")[0], flags=re.MULTILINE)

    done = _typed("\n".join(lines).replace("20000", "1500"), tmp_path)

    assert "backtest" in lines[-1]
    assert (0, "") == (done.returncode, re.sub(r"(published|work).*\n", "", done.stderr)), done
    assert "events        1,500 events, 1,500 predictions" in done.stdout.splitlines()


def test_an_output_that_changed_is_noticed() -> None:
    """A page that shows what no longer comes fails."""
    assert [] == _missing("a\n...\nc\n", "a\nb\nc\n")
    assert ["x"] == _missing("a\nx\n", "a\nb\n")
    assert ["a"] == _missing("c\na\n", "a\nb\nc\n")
