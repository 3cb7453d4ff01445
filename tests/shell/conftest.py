"""The command line run in process, and a log on which a pipeline has run."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import pytest
from cli_toy import outputs, toy

from stream_ml.cli.main import main
from stream_ml.shell.embedded.replay import replay
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes import progress
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, as JSON."""
        return orjson.loads(self.out)


class Cli(Protocol):
    """Runs a command line."""

    def __call__(self, *arguments: str) -> Ran:
        """Run it; the arguments are what follows `stream-ml`."""


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs command lines in an empty folder, with nothing of ours in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in os.environ if name.startswith("STREAM_ML_")]:
        monkeypatch.delenv(name)
    # On a busy machine any work may last long enough to tell how it gets on.
    for name in ("QUIET_S", "LINE_S"):
        monkeypatch.setattr(progress, name, math.inf)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log file on which the toy has run over 2,500 events; the key lies beside it."""
    path = tmp_path_factory.mktemp("worked") / "log.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log:
        replay(log, toy, key, outputs(2_500))
    return path
