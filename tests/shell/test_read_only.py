"""Who only looks: without the signing key, in a folder or on a file that may not be written to."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_toy import TOY, outputs, toy
from processes import DEADLINE_S, environment

from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

# As nobody, whom modes of files bind: they do not bind the user who runs tests in a container.
AS_NOBODY = """
import importlib, os, pkgutil, sys
import cli_toy, stream_ml
from stream_ml.cli import main as cli
from stream_ml.topics import embedded
# Before it is nobody, to whom the folder of the package itself may be closed.
for found in pkgutil.walk_packages(stream_ml.__path__, "stream_ml."):
    if ".kafka" not in found.name and ".examples" not in found.name:
        importlib.import_module(found.name)
embedded()
if os.getuid() == 0:
    os.setuid(65534)
for command in sys.argv[1:]:
    print(cli.main(command.split()), command, flush=True)
"""
LOOKING = [
    "status",
    "models",
    "predictions",
    "audit log",
    "audit verify",
    "audit at now",
    "audit model plain",
]
UNREADABLE = "signatures were not checked: this user may not read log.sqlite.key"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a log on which the toy has run, and its key."""
    path = tmp_path / "kept" / "log.sqlite"
    path.parent.mkdir()
    with SqliteLog.create(path) as log:
        log.append(outputs(40))
        with Runner(log, toy, Settings().signing_key(str(path))) as runner:
            runner.run()
    for each in [tmp_path, *tmp_path.parents]:
        if each.name.startswith(("test_", "popen-", "pytest-")):
            each.chmod(0o755)
    return path.parent


def run(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """What commands come to for a user who is nobody in particular."""
    return subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", AS_NOBODY, *commands],
        cwd=folder,
        env=environment(STREAM_ML_BROKER="sqlite:log.sqlite", HOME="/nowhere"),
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_S,
    )


def _locked(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o400 if file.suffix == ".key" else 0o444)
        if os.getuid() == 0 and file.suffix == ".key":
            os.chown(file, 0, 0)
        elif file.suffix == ".key":
            file.chmod(0)
    folder.chmod(0o555)


def test_everything_that_looks_works_where_nothing_may_be_written(folder: Path) -> None:
    """A backup is read without its key; it is said once that signatures were not checked."""
    _locked(folder)
    names = sorted(path.name for path in folder.iterdir())

    ran = run(folder, *LOOKING)

    assert ran.stderr == ""
    said = ran.stdout.splitlines()
    assert [line for line in said if line in {f"0 {each}" for each in LOOKING}] == [
        f"0 {each}" for each in LOOKING
    ]
    # Predictions are not signed.
    assert said.count(UNREADABLE) == len(LOOKING) - 1
    assert "e39" in ran.stdout
    assert sorted(path.name for path in folder.iterdir()) == names


def test_what_a_killed_worker_left_is_read_as_well(folder: Path, tmp_path: Path) -> None:
    """What lies in the write-ahead log alone counts, in a copy without the index beside it."""
    kept = tmp_path / "copy"
    kept.mkdir()
    with SqliteLog.open(folder / "log.sqlite") as log:
        log.append(outputs(50)[40:50])
        for end in ("", "-wal", ".key"):
            shutil.copy(folder / f"log.sqlite{end}", kept / f"log.sqlite{end}")
    assert (kept / "log.sqlite-wal").stat().st_size > 0
    _locked(kept)

    ran = run(kept, "status --format json", "predictions")

    assert ran.stderr == ""
    assert '"end": 50' in ran.stdout
    assert "e39" in ran.stdout


def test_a_folder_that_others_may_write_to(folder: Path) -> None:
    """Beside a log that is somebody else's nothing is left that its owner could not write to."""
    folder.chmod(0o777)
    (folder / "log.sqlite").chmod(0o644 if os.getuid() == 0 else 0o444)
    names = sorted(path.name for path in folder.iterdir())

    ran = run(folder, *LOOKING)

    assert (ran.stderr, ran.stdout.count(UNREADABLE)) == ("", len(LOOKING) - 1 if _root() else 0)
    assert sorted(path.name for path in folder.iterdir()) == names


def _root() -> bool:
    return os.getuid() == 0


def test_what_writes_says_what_it_needs(folder: Path) -> None:
    """A command or a record is refused in words, with the way out."""
    (folder / "one.jsonl").write_text(
        '{"event_id":"n","ts":1700000000000,"user":"u","x":1.0}\n', encoding="utf-8"
    )
    _locked(folder)

    ran = run(
        folder,
        "pause --reason r",
        f"--pipeline {TOY} publish events one.jsonl",
        f"--pipeline {TOY} up",
        f"--pipeline {TOY} audit reproduce --sample 1",
    )

    assert [line[0] for line in ran.stdout.splitlines() if line[1:2] == " "] == ["2", "3", "3", "2"]
    assert "log.sqlite.key: expected to read the signing key: Permission denied; be a" in ran.stderr
    assert "log.sqlite: expected to write, given a read-only file or folder" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_file_that_is_changed_while_it_is_read_as_it_lies(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows a log that its owner alone may write to sees what the owner adds."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with SqliteLog.open(folder / "log.sqlite") as looking:
        before = looking.version(), looking.end_offset("events", 0)
        with sqlite3.connect(folder / "log.sqlite"):
            pass
        monkeypatch.undo()
        with SqliteLog.open(folder / "log.sqlite") as owner:
            owner.append(outputs(50)[40:50])
            during = looking.version(), looking.end_offset("events", 0)
        after = looking.version(), looking.end_offset("events", 0)

    assert (before[1], during[1], after[1]) == (40, 50, 50)
    assert before[0] != during[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/null", "/dev/null: expected a file, given a device; choose another path"),
        (".", ".: expected a file, given a folder; choose another path"),
        ("pipe", "pipe: expected a file, given a device; choose another path"),
    ],
)
def test_a_log_that_is_no_file(folder: Path, name: str, message: str) -> None:
    """A folder, a device or a pipe is named, and nobody waits for it."""
    os.mkfifo(folder / "pipe")

    ran = run(folder, f"--broker sqlite:{name} status")

    assert ran.stderr == f"stream-ml: {message}\n"
    assert ran.stdout.startswith("3 ")
