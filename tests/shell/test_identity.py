"""A log of another key or of another pipeline: said at once, in each command, with the way out."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from cli_toy import TOY, outputs, stream, toy, write_lines

from stream_ml.errors import UsageError
from stream_ml.records import Output
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.keys import check_key, reading_key, working_key
from stream_ml.shell.settings.settings import Settings, key_file
from stream_ml.testing import Driver
from tests.straight import append_straight

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

OTHER = "00" * 32
READING = [
    ("models",),
    ("status",),
    ("audit", "log"),
    ("audit", "verify"),
    ("audit", "at", "2024-01-01"),
    ("audit", "model", "plain"),
    ("audit", "reproduce", "--sample", "1", "--pipeline", TOY),
    ("promote", "scaled", "--expect", "plain", "--reason", "x"),
    ("rollback", "--expect", "plain", "--reason", "x"),
    ("pause", "--reason", "x"),
    ("resume", "--reason", "x"),
    ("up", "--pipeline", TOY),
]


@pytest.fixture
def mine(worked: Path, tmp_path: Path) -> Path:
    """A copy of a log on which the toy has run, with its key beside it."""
    path = tmp_path / "stream_ml.sqlite"
    shutil.copy(worked, path)
    shutil.copy(key_file(str(worked)), key_file(str(path)))
    return path


def decisions(path: Path) -> int:
    """How many lie there."""
    with SqliteLog.open(path) as log:
        return log.end_offset("registry", 0)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_another_key_is_told_from_forgeries(
    cli: Cli, mine: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Whoever set the wrong key is told which setting it is, not that all was forged."""
    monkeypatch.setenv("STREAM_ML_KEY", OTHER)
    ran = cli(*command)

    assert (2, "") == (ran.code, ran.out)
    assert (
        "stream-ml: STREAM_ML_KEY: expected the key that the decisions on stream_ml.sqlite are "
        "signed with, given another one; set STREAM_ML_KEY to the one that its workers have, or "
        "unset it where that lies beside the log\n"
    ) == ran.err
    assert 4 == decisions(mine)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_another_key_beside_the_log_is_named_by_its_file(
    cli: Cli, mine: Path, command: tuple[str, ...]
) -> None:
    """Where the key lies in a file, that is what is named."""
    key_file(str(mine)).write_text(OTHER)
    ran = cli(*command)

    assert 2 == ran.code
    assert (
        "stream-ml: stream_ml.sqlite.key: expected the key that the decisions on stream_ml.sqlite "
        "are signed with, given another one; put the right one there, or set STREAM_ML_KEY to it\n"
    ) == ran.err


def test_no_new_key_is_made_for_a_log_with_decisions(cli: Cli, mine: Path) -> None:
    """A key that was lost is asked for: another one would make all that was decided worthless."""
    file = key_file(str(mine))
    file.unlink()
    ran = cli("up", "--pipeline", TOY)

    assert (2, "") == (ran.code, ran.out)
    assert (
        "stream-ml: stream_ml.sqlite.key: expected the key that the decisions on stream_ml.sqlite "
        "are signed with, given no such file; put it back, or set STREAM_ML_KEY to it\n"
    ) == ran.err
    assert not file.exists()


def test_a_key_is_made_for_a_log_without_decisions(tmp_path: Path) -> None:
    """What others have published before the first worker needs no key."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path) as log:
        log.append(outputs(20))
        key = working_key(Settings(f"sqlite:{path}"), log)

    assert key_file(str(path)).read_text().strip() == key.hex()


def test_what_others_put_on_the_registry_is_no_other_key(mine: Path) -> None:
    """Forgeries, however many, do not make the right key a wrong one."""
    settings = Settings(f"sqlite:{mine}")
    with SqliteLog.open(mine) as log:
        [last] = log.read("registry", 0, 3, 1)
        append_straight(
            log, [Output("registry", b"toy", (last.value or b"")[:-9] + b'00000000"')] * 3
        )

        assert settings.verifying_key(str(mine)) == reading_key(settings, log)
        with pytest.raises(UsageError, match="given another one"):
            check_key(settings, log, b"another")


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("models",),
        ("predictions",),
        ("audit", "verify"),
        ("up",),
        ("audit", "reproduce", "--sample", "1"),
        ("pause", "--reason", "x"),
        ("promote", "scaled", "--expect", "plain", "--reason", "x"),
    ],
    ids=" ".join,
)
def test_the_log_of_another_pipeline_is_refused(
    cli: Cli, mine: Path, command: tuple[str, ...]
) -> None:
    """One file holds one pipeline: neither its state nor its models are taken for another's."""
    ran = cli(*command, "--pipeline", "stream_ml.examples.cards:cards")

    assert (2, "") == (ran.code, ran.out)
    assert (
        "stream-ml: stream_ml.sqlite: expected the pipeline whose log it is, 'toy', given 'cards'; "
        "one file holds one pipeline: name that one with --pipeline, or another file with --broker "
        "sqlite:PATH\n"
    ) == ran.err
    assert 4 == decisions(mine)


def test_publishing_to_the_log_of_another_pipeline_is_refused(cli: Cli, mine: Path) -> None:
    """Events of one pipeline do not land among those of another."""
    events, _ = stream(20)
    lines = write_lines(mine.with_name("events.jsonl"), events)
    with SqliteLog.open(mine) as log:
        before = log.end_offset("events", 0)
    ran = cli("publish", "events", lines, "--pipeline", "stream_ml.examples.cards:cards")

    assert 2 == ran.code
    assert "expected the pipeline whose log it is, 'toy', given 'cards'" in ran.err
    with SqliteLog.open(mine) as log:
        assert before == log.end_offset("events", 0)
    assert toy.name == "toy"


def test_what_others_put_on_the_registry_names_no_pipeline(cli: Cli, tmp_path: Path) -> None:
    """A decision that somebody has put there before any worker came shuts no publisher out."""
    path = tmp_path / "stream_ml.sqlite"
    with Driver(toy) as driver:
        driver.run()
        decided = driver.records("registry")[0].value
    with SqliteLog.create(path) as log:
        append_straight(log, [Output("registry", b"another", decided)])
    events, _ = stream(20)
    lines = write_lines(path.with_name("events.jsonl"), events)

    assert 0 == cli("publish", "events", lines, "--pipeline", TOY).code


def test_copies_of_decisions_are_not_what_serves(cli: Cli, mine: Path) -> None:
    """An old decision that somebody puts there once more is as genuine, and no newer."""
    with SqliteLog.open(mine) as log:
        first = log.read("registry", 0, 0, 1)[0].value
        before = cli("models").out.splitlines()[0]
        at = cli("audit", "at", "now").out
        append_straight(log, [Output("registry", b"toy", first)])
    ran = cli("models")

    assert before == ran.out.splitlines()[0]
    assert "1 records of the registry are copies of earlier ones" in ran.out
    assert at.splitlines()[1:] == cli("audit", "at", "now").out.splitlines()[1 : at.count("\n")]
