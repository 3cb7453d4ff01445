"""Help where one types: what was meant, completion, lists of a length, logs of workers."""

from __future__ import annotations

import logging
import subprocess
from argparse import Namespace
from typing import TYPE_CHECKING

import orjson
import pytest

from stream_ml.cli.logs import begin_logs, log_event
from stream_ml.cli.main import COMMANDS
from stream_ml.cli.output import begin, end, silence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["stauts"],
            "expected a command, given 'stauts'; did you mean status? See `stream-ml --help`",
        ),
        (
            ["--brokr", "x", "status"],
            (
                "expected a command, given 'x'; there is no --brokr; did you mean --broker? See "
                "`stream-ml --help`"
            ),
        ),
        (
            ["redrive"],
            (
                "expected a command, given 'redrive'; did you mean dead-letters redrive? See "
                "`stream-ml --help`"
            ),
        ),
        (["xyzzy"], "expected a command, given 'xyzzy'; see `stream-ml --help`"),
        (
            ["audit", "lgo"],
            "expected a command, given 'lgo'; did you mean log? See `stream-ml audit --help`",
        ),
        (
            ["status", "--fromat=json"],
            (
                "unrecognized arguments: --fromat=json; did you mean --format? See "
                "`stream-ml status --help`"
            ),
        ),
        (
            ["promote", "tree", "--expct", "a", "--reason", "b"],
            (
                "the following arguments are required: --expect; there is no --expct; did you mean "
                "--expect? See `stream-ml promote --help`"
            ),
        ),
    ],
)
def test_what_was_meant_is_asked(cli: Cli, arguments: list[str], message: str) -> None:
    """A mistyped command or option is answered with the likeliest one, where there is one."""
    ran = cli(*arguments)

    assert (2, "", f"stream-ml: {message}\n") == (ran.code, ran.out, ran.err)


def test_a_mistyped_choice_is_answered_with_the_right_one(cli: Cli) -> None:
    """So is a choice of an option."""
    ran = cli("status", "--format", "jsno")

    assert 2 == ran.code
    assert ran.err.endswith("; did you mean json? See `stream-ml status --help`\n")


def test_a_mistyped_line_is_answered_with_the_right_one(worked: Path, cli: Cli) -> None:
    """A line that no decision is about may be another one."""
    log = f"sqlite:{worked}"
    [name] = {each["roles"]["champion"] for each in _decisions(cli, log)[:1]}
    line = name.partition("@")[0]

    ran = cli("--broker", log, "audit", "model", line + "x")

    assert f"no decision is about {line}x; did you mean {line}?\n" == ran.out


def _decisions(cli: Cli, log: str) -> list[dict[str, dict[str, str]]]:
    members = cli("--broker", log, "audit", "log", "--format", "json").json["decisions"]
    name = members[0]["serving"]["champion"]["model"].partition("@")[0]
    found: list[dict[str, dict[str, str]]] = cli(
        "--broker", log, "audit", "model", name, "--format", "json"
    ).json["decisions"]
    return found


def test_lists_have_the_length_that_is_asked_for(worked: Path, cli: Cli) -> None:
    """`--limit` gives the last decisions, and the first predictions."""
    log = ("--broker", f"sqlite:{worked}")
    everything = cli(*log, "audit", "log", "--format", "json").json["decisions"]
    limited = cli(*log, "audit", "log", "--limit", "2", "--format", "json").json["decisions"]
    predictions = cli(*log, "predictions").out.splitlines()

    assert len(everything) > 2
    assert everything[-2:] == limited
    assert predictions[:3] == cli(*log, "predictions", "--limit", "3").out.splitlines()
    assert 1 == len(cli(*log, "models", "--limit", "1", "--format", "json").json["decisions"])


def _completed(script: Path, *words: str) -> list[str]:
    """The candidates of a real bash for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f"source '{script}'; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        "$(complete -p stream-ml | sed -E 's/.*-F ([^ ]+).*/\\1/') stream-ml; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(  # noqa: S603 - the shell that users have
        ["/bin/bash", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return [word.strip() for word in ran.stdout.split("\n") if word.strip()]


def test_bash_completes_commands_options_and_choices(cli: Cli, tmp_path: Path) -> None:
    """A real bash offers what the parser knows, of commands in a group as well."""
    script = tmp_path / "stream-ml.bash"
    script.write_text(cli("completion", "bash").out)

    assert ["status"] == _completed(script, "stream-ml", "stat")
    assert ["reproduce"] == _completed(script, "stream-ml", "audit", "rep")
    assert "--watch" in _completed(script, "stream-ml", "status", "--")
    assert ["json"] == _completed(script, "stream-ml", "status", "--format", "j")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(cli: Cli, shell: str) -> None:
    """Each shell's script names every command, and its options."""
    script = cli("completion", shell).out

    assert all(command.name in script for command in COMMANDS)
    assert "expect" in script


@pytest.fixture
def untouched_logs() -> Iterator[None]:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _fail() -> None:
    raise ValueError("it\x1b[31m is\nwrong")


def _logged(capsys: pytest.CaptureFixture[str], level: str, form: str) -> list[str]:
    begin_logs(Namespace(log_level=level, log_format=form), {"stage": "predict"})
    log_event("serves", "serves: model a@1", {"model": "a@1"})
    log_event("quarantined", "quarantined: line b", {"line": "b"})
    try:
        _fail()
    except ValueError:
        logging.getLogger("aiokafka").exception("a broker")
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("untouched_logs")
def test_logs_of_workers_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is an object: when, how grave, by whom, what, and of which worker."""
    lines = [orjson.loads(line) for line in _logged(capsys, "info", "json")]

    assert ["info", "warning", "error"] == [line["level"] for line in lines]
    assert {"predict"} == {line["stage"] for line in lines}
    assert ("serves", "a@1") == (lines[0]["event"], lines[0]["model"])
    assert ("aiokafka", "a broker") == (lines[2]["logger"], lines[2]["message"])
    assert lines[2]["traceback"].endswith("wrong")


@pytest.mark.usefixtures("untouched_logs")
def test_logs_are_heard_of_a_quiet_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs have levels of their own, so `--quiet` leaves them."""
    begin()
    silence("stderr")
    begin_logs(Namespace(log_level="info", log_format="json"), {})
    log_event("serves", "serves: model a@1", {})
    end()

    assert "serves: model a@1" in capsys.readouterr().err


@pytest.mark.usefixtures("untouched_logs")
def test_logs_have_levels(capsys: pytest.CaptureFixture[str]) -> None:
    """What is less grave than the level is not logged, and text steers no terminal."""
    warnings, errors = (_logged(capsys, level, "text") for level in ("warning", "error"))

    assert "Z warning stream_ml.worker: quarantined: line b" in warnings[0]
    assert "Z error aiokafka: a broker" in warnings[1]
    assert "Z error aiokafka: a broker" in errors[0]
    assert not any("\x1b" in line for line in errors)
