"""The command line as a whole: help that holds, errors with a way out, exit codes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_toy import stream, write_lines

from stream_ml import __version__
from stream_ml.cli.commands import status
from stream_ml.cli.main import COMMANDS, EXAMPLES, main, parser
from stream_ml.cli.subcommand import Group

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

    from stream_ml.cli.subcommand import Subcommand, UsageExample

# By what one types after `stream-ml`.
EACH = {
    name: command
    for one in COMMANDS
    for name, command in (
        {f"{one.name} {command.name}": command for command in one.commands}
        if isinstance(one, Group)
        else {one.name: one}
    ).items()
}
ALL_EXAMPLES = [*EXAMPLES, *(example for command in EACH.values() for example in command.examples)]


@pytest.mark.parametrize("example", ALL_EXAMPLES, ids=lambda example: example.line)
def test_examples_in_the_help_parse(example: UsageExample) -> None:
    """Every example that a help text shows is a command line that is understood."""
    ours = [part for part in example.line.split("|") if part.split()[0] == "stream-ml"]
    assert ours
    _, *arguments = shlex.split(ours[-1])

    parser().parse_args(arguments)


def test_each_commands_examples_are_of_itself() -> None:
    """A command teaches by two or three examples of its own use."""
    for name, command in EACH.items():
        assert 2 <= len(command.examples) <= 3
        assert all(f" {name}" in example.line for example in command.examples)


def test_help_names_commands_and_exit_codes(cli: Cli) -> None:
    """The help lists every command, what it exits with, and examples."""
    ran = cli("--help")

    assert ran.code == 0
    assert all(f"    {command.name} " in ran.out for command in COMMANDS)
    assert all(f"{code:>5}  " in ran.out for code in (0, 1, 2, 3, 4, 5, 130))
    assert EXAMPLES[0].line in ran.out


@pytest.mark.parametrize(("name", "command"), EACH.items(), ids=EACH)
def test_help_of_a_command(cli: Cli, name: str, command: Subcommand) -> None:
    """Each command's help shows its examples and takes both formats."""
    ran = cli(*name.split(), "--help")

    assert ran.code == 0
    assert "--format {text,json}" in ran.out
    assert all(example.line in ran.out for example in command.examples)


def test_version(cli: Cli) -> None:
    """The version is the package's."""
    assert cli("--version").out == f"stream-ml {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; see `stream-ml --help`"),
        (
            ["config", "--form", "json"],
            (
                "unrecognized arguments: --form json; did you mean --format? See `stream-ml config "
                "--help`"
            ),
        ),
        (
            ["demo", "--months", "13"],
            "argument --months: expected 1 to 12, given '13'; see `stream-ml demo --help`",
        ),
        (
            ["config", "--broker", "kafka:host:9092"],
            (
                "--broker: expected sqlite:PATH or kafka://HOST:PORT[,HOST:PORT][/PIPELINE], given "
                "'kafka:host:9092'"
            ),
        ),
        (
            ["backtest", "events.jsonl"],
            (
                "backtest: expected a pipeline, given none; name one with --pipeline module:name "
                "or STREAM_ML_PIPELINE, such as stream_ml.examples.cards:cards"
            ),
        ),
    ],
)
def test_wrong_usage_exits_with_2(cli: Cli, arguments: list[str], message: str) -> None:
    """Wrong usage is one message with the way out, and exit code 2."""
    ran = cli(*arguments)

    assert (ran.code, ran.out, ran.err) == (2, "", f"stream-ml: {message}\n")


def test_the_environment_is_read(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in a variable's name is an error, for it would else be passed over in silence."""
    monkeypatch.setenv("STREAM_ML_PIPELNE", "shop:fraud")

    ran = cli("config")

    assert (ran.code, ran.err) == (
        2,
        (
            "stream-ml: STREAM_ML_PIPELNE: no setting has this name; "
            "did you mean STREAM_ML_PIPELINE?\n"
        ),
    )


def test_options_stand_before_or_after_the_command(cli: Cli) -> None:
    """A global option means the same on either side of the command."""
    before = cli("--broker", "sqlite:a.sqlite", "config", "--format", "json")
    after = cli("config", "--format", "json", "--broker", "sqlite:a.sqlite")

    assert before.json == after.json
    assert before.json[0]["value"] == "sqlite:a.sqlite"


def test_interrupted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with one line and exit code 130."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "existing_log", interrupt)

    ran = cli("status")

    assert (ran.code, ran.out, ran.err) == (130, "", "stream-ml: interrupted\n")


def test_a_failing_system_call_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system refuses is named, without a traceback."""

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/root/x")

    monkeypatch.setattr(status, "existing_log", fail)

    ran = cli("status")

    assert (ran.code, ran.err) == (1, "stream-ml: /root/x: Permission denied\n")


def test_a_mistake_of_ours_keeps_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken invariant is not dressed up as a message."""

    def broken(*_: object) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(status, "existing_log", broken)

    with pytest.raises(AssertionError, match="ours"):
        cli("status")


def test_a_reader_that_has_seen_enough() -> None:
    """Output into a closed pipe is no error and leaves no complaint."""
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(PIPED)}"
    ran = subprocess.run(  # noqa: S602 - a shell makes the pipe; the command is our own
        f"{command} | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert (ran.returncode, ran.stderr) == (0, b"")


# Far more output than a pipe holds, so that the reader is gone before it is all written.
PIPED = """
import sys
from stream_ml.cli.main import main
sys.exit(max(main(["topics", "--format", "json"]) for _ in range(20)))
"""

TOY_FILE = """
import stream_ml as sml
from cli_toy import toy as known
other = 7
class inside:
    pipeline = known
"""


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        (
            TOY_FILE,
            "absent:known",
            (
                "pipeline absent:known: expected a module 'absent', given none of that name in "
                "{here} or among the installed ones"
            ),
        ),
        (
            TOY_FILE,
            "{name}.py:known",
            (
                "pipeline {name}.py:known: expected the name of a module, given that of a file; "
                "name it {name}:known"
            ),
        ),
        (
            TOY_FILE,
            "src/{name}.py:known",
            (
                "pipeline src/{name}.py:known: expected the name of a module, given that of a "
                "file; name it src.{name}:known"
            ),
        ),
        (
            TOY_FILE,
            "{file}:known",
            (
                "pipeline {file}:known: expected the name of a module, given that of a file; name "
                "it {name}:known, in the folder {here}"
            ),
        ),
        (
            TOY_FILE,
            "{name}:knwon",
            "pipeline {name}:knwon: expected 'knwon' in {file}, given the pipelines known",
        ),
        (
            TOY_FILE,
            "{name}:other",
            (
                "pipeline {name}:other: expected a stream_ml.Pipeline, given int; {file} has the "
                "pipelines known"
            ),
        ),
        (
            "import no_such_thing",
            "{name}:p",
            "pipeline {name}:p: {name} imports 'no_such_thing', which is not installed here",
        ),
        (
            "a = 1\n1 / 0",
            "{name}:p",
            (
                "pipeline {name}:p: importing {name} failed at {file}:2: ZeroDivisionError: "
                "division by zero"
            ),
        ),
        (
            "x = = 1",
            "{name}:p",
            (
                "pipeline {name}:p: importing {name} failed at {file}:1: SyntaxError: invalid "
                "syntax ({name}.py, line 1)"
            ),
        ),
    ],
    ids=[
        "no-module",
        "file",
        "folder",
        "path",
        "no-name",
        "no-pipeline",
        "no-import",
        "raises",
        "no-python",
    ],
)
def test_pipelines_that_cannot_be_found(
    cli: Cli, tmp_path: Path, request: pytest.FixtureRequest, text: str, spec: str, message: str
) -> None:
    """What is wrong with module:name is said, with what is there instead."""
    name = f"made_{request.node.callspec.id.replace('-', '_')}"
    file = tmp_path / f"{name}.py"
    file.write_text(text)

    ran = cli("--pipeline", spec.format(name=name, file=file), "backtest", "events.jsonl")

    expected = message.format(name=name, file=file, here=tmp_path)
    assert (ran.code, ran.err) == (2, f"stream-ml: {expected}\n")


def test_a_wrong_declaration_is_printed_whole(cli: Cli, tmp_path: Path) -> None:
    """Every problem of a declaration is listed, not only the first."""
    (tmp_path / "made_wrong.py").write_text(WRONG)

    ran = cli("--pipeline", "made_wrong:wrong", "backtest", "events.jsonl")

    head, *problems = ran.err.splitlines()
    assert (ran.code, head) == (2, "stream-ml: pipeline 'wrong' has 2 problems:")
    assert [problem.partition(":")[0].strip() for problem in problems] == [
        "label.horizon",
        "champion",
    ]


WRONG = """
from river import linear_model
import stream_ml as sml
wrong = sml.Pipeline(
    "wrong", events=sml.Events(key="user", fields={"user": str, "x": float}),
    features=[sml.field("x")], label=sml.Label(bool, horizon="soon"),
    models={"plain": linear_model.LogisticRegression()}, champion="fancy",
)
"""


def test_pipelines_in_the_working_directory_are_found(cli: Cli, tmp_path: Path) -> None:
    """As uvicorn does, a module is looked for where one stands, attributes of attributes too."""
    (tmp_path / "made_here.py").write_text(TOY_FILE)
    file = write_lines(tmp_path / "some.jsonl", stream(1)[0])

    for name in ("known", "inside.pipeline"):
        ran = cli("--pipeline", f"made_here:{name}", "backtest", file, "--format", "json")

        assert ran.code == 0, ran.err
        assert ran.json["pipeline"] == "toy"


def test_without_arguments_those_of_the_process_are_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The entry point reads the command line of its process."""
    monkeypatch.setattr(sys, "argv", ["stream-ml", "--version"])

    assert main() == 0
    assert capsys.readouterr().out == f"stream-ml {__version__}\n"
