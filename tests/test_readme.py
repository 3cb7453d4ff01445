"""README is true: its code runs, its commands parse, its words and files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stream_ml.shell.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_its_python_runs_from_top_to_bottom() -> None:
    """Each block runs after the ones before it, asserts and all."""
    assert len(_blocks("python")) > 3
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README


@pytest.mark.parametrize(
    "command",
    [
        line.removeprefix("$ ").partition("#")[0]
        for block in _blocks("console")
        for line in block.splitlines()
        if line.startswith("$ stream-ml")
    ],
)
def test_its_commands_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every `stream-ml` command shown is one that the command line knows."""
    words = shlex.split(command)[1:]

    code = main([*words, "--help"])

    assert code == 0
    assert "usage: stream-ml" in capsys.readouterr().out


def test_the_files_that_it_names_exist() -> None:
    """No guarantee points at a test that is not there."""
    named = re.findall(r"`((?:tests|topics|stream_ml|benchmarks)/[\w./*-]+)`", README)

    assert named
    assert [] == [path for path in named if not list(ROOT.glob(path))]


def test_make_targets_that_it_names_exist() -> None:
    """Each `make` command shown is a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))

    assert set(re.findall(r"make ([a-z]+)", README)) <= targets
