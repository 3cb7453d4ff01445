"""`dead-letters`: what was refused is counted, and shown with its bytes, which steer nobody."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from cli_toy import TOY, outputs, toy

from stream_ml.cli.main import main
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

GOOD = [output for output in outputs(40) if output.topic == "events"]
HOSTILE = b'{"\x1b[2J\xc2\x9b\xe2\x80\xae":\n1'
LONG = b'{"x":"' + b"y" * 300_000 + b'"'


def work(path: Path, published: list[Output]) -> None:
    """Have a worker do all that is published."""
    key = Settings().signing_key(str(path))
    with SqliteLog.open_or_create(path) as log, Runner(log, toy, key) as runner:
        log.append(published)
        runner.run()


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    """A log of which three events and a label were refused."""
    path = tmp_path / "log.sqlite"
    values = [HOSTILE, LONG]
    work(path, [*GOOD, *(Output("events", None, value) for value in values), GOOD[-1]])
    work(path, [Output("labels", None, b"[]")])
    return path


def test_refusals_are_counted_by_topic_reason_and_path(cli: Cli, refused: Path) -> None:
    """A person sees how many of each there are, and a machine the same figures."""
    broker = ("--broker", f"sqlite:{refused}")

    text = cli("dead-letters", *broker, "--summary").out.splitlines()
    found = cli("dead-letters", *broker, "--format", "json").json

    assert ["events", "not_json", "$", "2"] == text[1].split()[:4]
    counts = {(g["topic"], g["reason"]): g["count"] for g in found["groups"]}
    assert {
        ("events", "not_json"): 2,
        ("events", "duplicate"): 1,
        ("labels", "not_an_object"): 1,
    } == counts
    assert (4, 0) == (found["count"], found["foreign"])
    assert all(0 < g["first_ms"] <= g["last_ms"] for g in found["groups"])
    assert [0, 1, 2, 3] == [letter["letter_offset"] for letter in found["last"]]


def test_bytes_of_others_do_not_reach_a_terminal_and_are_exact_in_a_file(
    refused: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Escapes and turns of the direction are shown as such; --raw gives what was sent, all of it.

    A record beyond what a dead letter keeps is taken from where it lies.
    """
    command = ("dead-letters", "--broker", f"sqlite:{refused}", "--reason", "not_json")
    assert 0 == main(command)
    shown = capsysbinary.readouterr().out
    assert 0 == main((*command, "--raw"))
    raw = capsysbinary.readouterr().out

    assert rb'{"\x1b[2J\x9b\u202e":\n1' in shown
    assert b"\x1b" not in shown
    assert b"bytes more" in shown
    assert HOSTILE + b"\n" + LONG + b"\n" == raw


def test_raw_bytes_are_not_put_on_a_terminal(
    cli: Cli, refused: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where standard output is a terminal --raw is refused, with the way out."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ran = cli("dead-letters", "--broker", f"sqlite:{refused}", "--raw")
    assert (2, True) == (ran.code, "add `> FILE`" in ran.err)


def test_only_the_letters_asked_for_are_shown(cli: Cli, refused: Path) -> None:
    """By reason, topic and time of refusal, the last so many."""
    command = ("dead-letters", "--broker", f"sqlite:{refused}", "--format", "json")

    def offsets(*arguments: str) -> list[int]:
        return [each["letter_offset"] for each in cli(*command, *arguments).json["last"]]

    assert [0, 1, 2] == offsets("--topic", "events")
    assert [2, 3] == offsets("--reason", "duplicate", "--reason", "not_an_object")
    assert [3] == offsets("--limit", "1")
    assert [] == offsets("--since", "2100-01-01") == offsets("--reason", "nothing")


def test_what_is_no_dead_letter_is_counted_and_passed_over(cli: Cli, refused: Path) -> None:
    """Whatever others write to the topic ends no reader."""
    with SqliteLog.open(refused) as log, log.session() as session:
        names = ("topic", "stage", "reason", "path", "message", "sha256")
        far = {"partition": 0, "offset": 2**63, "length": 9, **dict.fromkeys(names, "events")}
        values = (b"", b"[]", b"{}", b'{"topic":1}', None, b"\xff", orjson.dumps(far))
        session.stage([Output("dead-letters", b"k", value) for value in values])
        session.commit()

    found = cli("dead-letters", "--broker", f"sqlite:{refused}", "--format", "json").json

    assert (4, 7) == (found["count"], found["foreign"])


def test_a_reason_of_which_there_is_none_names_those_that_there_are(
    cli: Cli, refused: Path
) -> None:
    """A misspelt reason does not look like a log without refusals."""
    ran = cli("dead-letters", "--broker", f"sqlite:{refused}", "--reason", "not-json")

    expected = "none of reason not-json; there are not_json 2, duplicate 1, not_an_object 1\n"
    assert expected == ran.out


@pytest.mark.parametrize(
    ("action", "option"),
    [
        ("redrive", ("--limit", "1")),
        ("redrive", ("--summary",)),
        ("redrive", ("--raw",)),
        ("list", ("--dry-run",)),
        ("list", ("--note", "why")),
        ("list", ("--actor", "ana")),
    ],
)
def test_an_option_of_the_other_action_is_refused(
    cli: Cli, refused: Path, action: str, option: tuple[str, ...]
) -> None:
    """A limit that nobody looks at would publish everything."""
    before = refused.read_bytes()
    ran = cli("dead-letters", action, *option, "--broker", f"sqlite:{refused}", "--pipeline", TOY)

    assert (2, before) == (ran.code, refused.read_bytes())
    assert f"expected options of {action}, given {option[0]}" in ran.err
