"""Standard streams that are closed, full, left by who read them, or of another encoding."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from cli_toy import START_MS, TOY, outputs, stream, toy, write_lines
from processes import DEADLINE_S, STREAM_ML, Terminal, environment

from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.printable import printable
from stream_ml.shell.settings.settings import Settings

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


@pytest.mark.parametrize("output", [">/dev/full 2>/dev/full", ">&- 2>&-"])
def test_a_worker_works_on_without_its_output(lines: Path, output: str) -> None:
    """A worker that cannot say what it does does it all the same, and ends as it is asked to."""
    line = ["/bin/bash", "-c", f"exec {COMMAND} up {output}"]
    variables = environment(STREAM_ML_PIPELINE=TOY)
    with (
        SqliteLog.open(lines / "stream_ml.sqlite") as log,
        subprocess.Popen(line, cwd=lines, env=variables) as up,  # noqa: S603 - our own line
        closing(log.tail("predictions", {0: 0})) as tail,
    ):
        try:
            log.append([output_of(toy, "events", event) for event in stream(12)[0]])
            predicted = 0
            while predicted < 12:
                more = tail.poll(DEADLINE_S)
                assert more, f"nothing in {DEADLINE_S} s after {predicted} predictions"
                predicted += len(more)
            up.terminate()
            assert up.wait(DEADLINE_S) == 0
        finally:
            up.kill()


def test_a_command_is_done_or_refused_whoever_reads(lines: Path) -> None:
    """The answer makes the exit code, printed or not; nobody forges a line by a reason.

    Who reads of the worker and goes does not take it along.
    """
    with Terminal("up", "--pipeline", TOY, folder=lines) as up:
        up.line()
        reason = ("--reason", HOSTILE, "--actor", HOSTILE, "--pipeline", TOY)
        with Terminal("promote", "scaled", "--expect", "plain", *reason, folder=lines) as promote:
            answer = promote.ended()
        said = up.line()
        assert up.process.stdout is not None
        up.process.stdout.close()

        done = shell(lines, "$S promote plain --reason r --expect scaled > /dev/full")
        asking = "$S promote plain --reason r --expect scaled --format json"
        refused = shell(lines, f"{asking} | true; exit ${{PIPESTATUS[0]}}")
        logged = shell(lines, "$S audit log").stdout.decode()
        up.process.terminate()
        ended = up.process.wait(DEADLINE_S)

    assert (answer.code, done.returncode, refused.returncode, ended) == (0, 0, 4, 0)
    assert done.stderr == b"stream-ml: standard output: No space left on device\n"
    for text in (answer.out, said, logged):
        assert SHOWN in text
        assert "\n2023" not in text


# --- special files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "<(cat good.jsonl labels.jsonl)",
        "- < <(cat good.jsonl labels.jsonl)",
        "<(printf '\\xef\\xbb\\xbf'; cat good.jsonl) <(sed 's/$/\\r/' labels.jsonl)",
        "pipe & gzip -c good.jsonl labels.jsonl > pipe; wait %1",
    ],
)
def test_files_of_any_kind(lines: Path, given: str) -> None:
    """A pipe, a packed file, one with a mark of UTF-8 or with other ends of lines is read."""
    ran = shell(lines, f"mkfifo pipe; $S backtest --format json {given}")

    assert (ran.returncode, ran.stderr) == (0, b"")
    found = json.loads(ran.stdout)
    assert (found["published"], found["labels"]["joined"]) == ({"events": 12, "labels": 2}, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["-", "-"], "-: expected the standard input once, given it twice"),
        (["."], ".: expected a file of JSON lines, CSV or Parquet, given a folder"),
        (["zstd"], "zstd: expected a file that can be unpacked, given one packed by zstd; install"),
        (["zip"], "given a zip archive; unpack it"),
        (["parquet"], "parquet: expected pyarrow to read a Parquet file with, given none; install"),
        (["utf16"], "utf16: expected a file of JSON lines, CSV or Parquet, given UTF-16; write"),
    ],
)
@pytest.mark.parametrize("command", [["backtest"], ["publish", "events"]], ids=" ".join)
def test_a_file_of_another_kind_is_named(
    cli: Cli, lines: Path, command: list[str], given: list[str], message: str
) -> None:
    """It is told from one of bad lines, with a way out."""
    (lines / "zstd").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    (lines / "zip").write_bytes(b"PK\x03\x04" + bytes(20))
    (lines / "parquet").write_bytes(b"PAR1" + bytes(20))
    (lines / "utf16").write_text('{"event_id":"e"}\n', encoding="utf-16")

    ran = cli(*command, *given, "--pipeline", TOY)

    assert ran.code == 2
    assert message in ran.err


def test_what_ends_too_soon_or_is_closed_is_named(lines: Path) -> None:
    """What could be unpacked is published, and the exit code says that there was more."""
    packing = "gzip -c bad.jsonl good.jsonl | head -c 100 > cut.gz"

    cut = shell(lines, f"{packing}; $S publish events cut.gz")
    closed = shell(lines, "$S publish events - <&-")

    assert (cut.returncode, closed.returncode) == (1, 2)
    assert b"cut.gz: expected a sound gzip file, given a damaged one" in cut.stderr
    assert b"-: expected a standard input to read, given a closed one" in closed.stderr


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


# --- encodings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "C"],
)
def test_an_output_of_another_encoding(lines: Path, variables: dict[str, str]) -> None:
    """What it does not have is escaped: nobody dies of an id, a reason or a bad line."""
    event = {"event_id": "é→", "ts": START_MS, "user": "日", "x": 1.0}
    write_lines(lines / "one.jsonl", [event], '{"ü":"→"}'.encode())
    asking = "$S promote scaled --expect plain --reason 'Zoë→' --actor Zoë"
    waiting = "until $S predictions --format json > said && [ -s said ]; do :; done; cat said"
    with Terminal("up", "--pipeline", TOY, folder=lines, **variables) as up:
        up.line()
        published = shell(lines, "$S publish events one.jsonl", **variables)
        asked = shell(lines, asking, **variables)
        assert "scaled@0 serves" in up.line()
        as_json = shell(lines, waiting, **variables)
        predicted = shell(lines, "$S predictions", **variables)
        logged = shell(lines, "$S audit log --format json")
        assert up.stopped().code == 0

    assert (published.returncode, asked.returncode, predicted.returncode) == (1, 0, 0)
    assert json.loads(as_json.stdout)["event_id"] == "é→"
    decisions = json.loads(logged.stdout)["decisions"]
    assert (decisions[-1]["reason"], decisions[-1]["actor"]) == ("Zoë→", "Zoë")
    assert b"Traceback" not in published.stderr + asked.stderr + predicted.stderr
