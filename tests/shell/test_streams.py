"""Standard streams that are closed, full, left by who read them, or of another encoding."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_toy import TOY, outputs, stream, toy, write_lines
from processes import DEADLINE_S, STREAM_ML, environment

from stream_ml.shell.printable import printable
from stream_ml.shell.replay import output_of
from stream_ml.shell.runner import Runner
from stream_ml.shell.settings import Settings
from stream_ml.shell.sqlite_log import SqliteLog

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

COMMAND = shlex.join(STREAM_ML)
# The left-to-right override makes "txt.exe" of what ends in "exe.txt".
HOSTILE = "x\n2023 forged\x1b[2J\u202e\u2066\u200b\x9b\x07"
SHOWN = r"x\n2023 forged\x1b[2J\u202e\u2066\u200b\x9b\x07"


def shell(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What bash makes of a line in which $S stands for `stream-ml`."""
    return subprocess.run(  # noqa: S603 - our own line
        ["/bin/bash", "-c", line.replace("$S", COMMAND)],
        cwd=folder,
        env=environment(STREAM_ML_PIPELINE=TOY, **variables),
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
    )


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A folder with an empty log, far more bad lines than a pipe holds, and a few good ones."""
    SqliteLog.create(tmp_path / "stream_ml.sqlite").close()
    events, labels = stream(12)
    write_lines(tmp_path / "bad.jsonl", [], *[b'{"event_id":"b","ts":1}'] * 3_000)
    write_lines(tmp_path / "good.jsonl", events)
    write_lines(tmp_path / "labels.jsonl", labels)
    return tmp_path


# --- who reads us has left, or the disk is full ------------------------------------------------


@pytest.mark.parametrize(
    ("form", "ending"),
    [
        ("text", "2>&1 | head -1; exit ${PIPESTATUS[0]}"),
        ("text", "2>/dev/full"),
        ("text", ">&- 2>&-"),
        ("json", "2>&1 | head -1; exit ${PIPESTATUS[0]}"),
        ("json", ">/dev/full 2>&1"),
    ],
)
def test_good_lines_are_published_whoever_reads_of_bad_ones(
    lines: Path, form: str, ending: str
) -> None:
    """Each good line lies on the log, and the exit code says that others were refused."""
    ran = shell(lines, f"$S publish events bad.jsonl good.jsonl --format {form} {ending}")

    assert ran.returncode == 1
    assert b"Traceback" not in ran.stderr
    with SqliteLog.open(lines / "stream_ml.sqlite") as log:
        assert log.end_offset("events", 0) == 12


@pytest.mark.parametrize("report", ["/dev/full", ">(head -c 1 >/dev/null)"])
def test_a_report_that_nobody_takes(lines: Path, report: str) -> None:
    """Everything is published, and the exit code says that the report is not whole."""
    write_lines(lines / "many.jsonl", stream(5_000)[0])

    ran = shell(lines, f"$S publish events many.jsonl --report {report}")

    assert ran.returncode == 1
    assert b"stream-ml: publish: the report is not whole: " in ran.stderr
    with SqliteLog.open(lines / "stream_ml.sqlite") as log:
        assert log.end_offset("events", 0) == 5_000


READERS = [
    "status",
    "models",
    "predictions",
    "predictions --format json",
    "topics",
    "config",
    "audit log",
    "audit verify",
    "audit at now",
    "audit model plain",
    "audit reproduce --sample 2",
    "backtest good.jsonl labels.jsonl",
    "--help",
]


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log on which the toy has run, and files to test back on."""
    folder = tmp_path_factory.mktemp("looked_at")
    events, labels = stream(12)
    write_lines(folder / "good.jsonl", events)
    write_lines(folder / "labels.jsonl", labels)
    with SqliteLog.create(folder / "stream_ml.sqlite") as log:
        log.append(outputs(40))
        with Runner(log, toy, Settings().signing_key(str(folder / "stream_ml.sqlite"))) as runner:
            runner.run()
    return folder


# One process tries them all, each with an output of its own: to start one takes a second.
EACH = """
import os, sys
from stream_ml.cli.main import main
for command in sys.argv[2:]:
    if sys.argv[1] == "closed":
        sys.stdout = None
        os.close(1)
    else:
        os.dup2(os.open(sys.argv[1], os.O_WRONLY), 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
    os.write(2, b"%d " % main(command.split()))
    os.write(2, command.encode() + b"\\n")
"""


@pytest.mark.parametrize(
    ("output", "why", "commands"),
    [
        ("/dev/full", "No space left on device", READERS),
        ("closed", "it is closed", [each for each in READERS if each != "--help"]),
    ],
)
def test_an_output_that_takes_nothing(
    looked_at: Path, output: str, why: str, commands: list[str]
) -> None:
    """Whoever only shows something fails where that could not be written, in words."""
    ran = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", EACH, output, *commands],
        cwd=looked_at,
        env=environment(STREAM_ML_PIPELINE=TOY),
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
    )

    told = f"stream-ml: standard output: {why}"
    assert ran.stderr.decode().splitlines() == [
        line for command in commands for line in (told, f"1 {command}")
    ]


def test_a_verdict_that_nobody_reads(looked_at: Path) -> None:
    """What was found wrong makes the exit code, also where the words of it were not read."""
    key = "0" * 64
    ran = shell(looked_at, "$S audit verify | true; exit ${PIPESTATUS[0]}", STREAM_ML_KEY=key)
    reproduced = shell(looked_at, "$S audit reproduce nobody > /dev/full")

    assert ran.returncode == 2  # another key than the log's
    assert reproduced.returncode == 1


# --- special files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "<(cat good.jsonl labels.jsonl)",
        "- < <(cat good.jsonl labels.jsonl)",
    ],
)
def test_files_of_any_kind(lines: Path, given: str) -> None:
    """A pipe, a packed file, one with a mark of UTF-8 or with other ends of lines is read."""
    ran = shell(lines, f"mkfifo pipe; $S backtest --format json {given}")

    assert (ran.returncode, ran.stderr) == (0, b"")
    found = json.loads(ran.stdout)
    assert (found["published"], found["labels"]["joined"]) == ({"events": 12, "labels": 2}, 2)


# --- what clients and operators write ----------------------------------------------------------


def test_what_others_wrote_is_shown_escaped(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No id, key, label, reason, actor or name of a file moves a cursor or forges a line."""
    assert printable(HOSTILE) == SHOWN
    events, labels = stream(12)
    events[0] |= {"event_id": HOSTILE, "user": HOSTILE}
    with SqliteLog.create(tmp_path / "stream_ml.sqlite") as log:
        log.append([output_of(toy, "events", event) for event in events])
        log.append([output_of(toy, "labels", label) for label in labels])
        log.append([output_of(toy, "labels", {HOSTILE: HOSTILE})])
        key = Settings().signing_key(str(tmp_path / "stream_ml.sqlite"))
        with Runner(log, toy, key) as runner:
            runner.run()
    capsys.readouterr()
    file = write_lines(tmp_path / HOSTILE.replace("/", ""), [], b"nope")

    for command in [
        ["predictions"],
        ["predictions", "--key", HOSTILE],
        ["status"],
        ["models"],
        ["audit", "log"],
        ["audit", "model", HOSTILE],
        ["audit", "reproduce", HOSTILE, "--pipeline", TOY],
        ["audit", "reproduce", f"{HOSTILE}?", "--pipeline", TOY],
        ["publish", "events", file, "--pipeline", TOY],
        ["publish", "events", f"{file}?", "--pipeline", TOY],
        ["backtest", file, "--pipeline", TOY],
        ["status", "--broker", f"sqlite:{HOSTILE}?"],
        ["config", "--broker", f"sqlite:{HOSTILE}"],
        ["topics", HOSTILE],
        [HOSTILE],
    ]:
        for form in ([], ["--format", "json"]):
            ran = cli(*command, *form)

            said = ran.out + ran.err
            assert not set(said) & set(HOSTILE) - set("x\n2023 forged[J"), command
            assert not any(line.startswith("2023 forged") for line in said.splitlines()), command
