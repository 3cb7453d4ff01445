"""`promote`, `rollback`, `pause`, `resume`: asked for, answered, trusted, and by whom."""

from __future__ import annotations

import os
import pwd
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import outputs, toy

from stream_ml import client
from stream_ml.cli import operator
from stream_ml.codec import encode_command, encode_decision
from stream_ml.errors import CommandRefused, NoAnswer, StreamMLError
from stream_ml.records import Command, Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.registry import entries
from stream_ml.signing import Operator
from tests.straight import append_straight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli

OWN = b"own." * 8
GOES_ON = "models are renewed, and replaced as the pipeline declares it"
# Commands are carried out while they are new.
NOW_MS = time.time_ns() // 1_000_000
ANA, GUS, OLA = b"ana." * 8, b"gus." * 8, b"ola." * 8
OPERATORS = {
    "ana": Operator(ANA, "operator"),
    "gus": Operator(GUS, "guard"),
    "ola": Operator(OLA, "observer"),
}


@pytest.fixture
def runner() -> Iterator[Runner]:
    """A worker on a log in memory, on which the second set of models serves."""
    with (
        SqliteLog.create(MEMORY) as log,
        Runner(log, toy, OWN, operators=OPERATORS) as runner,
    ):
        log.append(outputs(600))
        runner.run()
        yield runner


def _command(kind: str = "promote", **members: Any) -> Command:
    given = {"operator": "ana", "expect": "plain", "model": "scaled", **members}
    return Command(
        command_id=given.pop("command_id", "c1"),
        kind=kind,
        ts=NOW_MS,
        actor="Ana",
        reason="because",
        **given,
    )


def _ask(runner: Runner, command: Command, key: bytes, **options: Any) -> Any:
    """Ask, while the worker works as long as one waits."""
    given = {"verifying_key": OWN, "wait": lambda _: runner.run(), "timeout_s": 5.0, **options}
    return client.command(runner._log, command, key, **given)


def test_an_operator_promotes(runner: Runner) -> None:
    """The answer is the decision, with who asked and why."""
    decision = _ask(runner, _command(), ANA)

    assert (decision.kind, decision.actor, decision.reason) == ("replaced", "Ana", "because")
    assert decision.serving.champion.model == "scaled@500"
    assert decision.command_id == "c1"


def test_the_same_command_twice(runner: Runner) -> None:
    """The second one is answered with the first one's decision, and nothing more is sent."""
    first = _ask(runner, _command(), ANA)
    second = _ask(runner, _command(), ANA, wait=lambda _: pytest.fail("it has its answer"))

    assert first == second
    assert runner._log.end_offset("commands", 0) == 1


def test_two_who_ask_at_once(runner: Runner) -> None:
    """Where the same command lies there twice before anybody answers, it is carried out once."""
    log = runner._log
    command = _command(pipeline="toy", log=log.identity)
    for _ in range(2):
        log.append([Output("commands", b"toy", encode_command(command, ANA))])

    decision = _ask(runner, _command(), ANA)

    assert decision.kind == "replaced"
    assert [e.decision.kind for e in entries(log, OWN)].count("replaced") == 1


@pytest.mark.parametrize(
    ("command", "key", "reason"),
    [
        (
            _command(expect="scaled"),
            ANA,
            "promote refused: expected scaled to serve, but plain@500 does",
        ),
        (_command(operator="gus"), GUS, "promote refused: gus is guard, which may not promote"),
        (
            _command("pause", operator="ola"),
            OLA,
            "pause refused: ola is observer, which may not pause",
        ),
        (
            _command(model="plain"),
            ANA,
            ("promote refused: expected a challenger that shadows now (scaled@500), given 'plain'"),
        ),
    ],
    ids=["expect", "guard", "observer", "no-challenger"],
)
def test_refused(runner: Runner, command: Command, key: bytes, reason: str) -> None:
    """What may not be done is answered with the reason, and nothing changes."""
    decision = _ask(runner, command, key)

    assert (decision.kind, decision.reason) == ("refused", reason)
    assert decision.serving.champion.model == "plain@500"


@pytest.mark.parametrize(
    ("command", "key", "reason"),
    [
        (_command(operator="eve"), ANA, "unknown_operator at $.operator"),
        (_command(operator="gus"), ANA, "signature at $.signature"),
        (_command(operator="local"), ANA, "signature at $.signature"),
        (_command("shutdown"), ANA, "unknown_command at $.kind"),
    ],
    ids=["unknown-operator", "another's-key", "not-the-own-key", "unknown-command"],
)
def test_not_trusted(runner: Runner, command: Command, key: bytes, reason: str) -> None:
    """What nobody has signed who may is a dead letter, and whoever asked is told at once."""
    with pytest.raises(CommandRefused, match=re.escape(f"refused the command: {reason}")):
        _ask(runner, command, key)

    assert [e.decision.kind for e in entries(runner._log, OWN)][-1] == "refreshed"


def test_unsigned_and_altered_commands(runner: Runner) -> None:
    """No byte of a signed command can be changed, and none can be sent without a signature."""
    signed = encode_command(_command(), ANA)
    unsigned = signed[: signed.rfind(b',"signature"')] + b"}"
    altered = [
        signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :] for at in range(len(signed))
    ]
    log = runner._log
    log.append([Output("commands", b"toy", value) for value in [unsigned, *altered]])

    runner.run()

    assert [e.decision.kind for e in entries(log, OWN)] == ["bootstrap", "refreshed"]
    assert log.end_offset("dead-letters", 0) == len(signed) + 1


def test_nobody_answers(runner: Runner) -> None:
    """After the time that was given one is told so; the command stays, and may be asked again."""
    now = iter(range(100))

    with pytest.raises(NoAnswer, match=r"pause: no answer within 3 s; .* --id c1, which"):
        _ask(
            runner,
            _command("pause"),
            ANA,
            wait=lambda _: None,
            clock=lambda: float(next(now)),
            timeout_s=3.0,
        )

    assert _ask(runner, _command("pause"), ANA).kind == "paused"


def test_an_answer_that_the_worker_did_not_give(runner: Runner) -> None:
    """A decision that is not signed with the worker's key answers nothing."""
    log = runner._log
    forged = replace(list(entries(log, OWN))[-1].decision, command_id="c1", reason="trust me")
    with SqliteLog.create(MEMORY) as other:
        append_straight(other, [Output("registry", b"toy", encode_decision(forged, b"mine"))])

        with pytest.raises(NoAnswer):
            client.command(other, _command(), ANA, verifying_key=OWN, timeout_s=0.0)
        assert (
            client.command(other, _command(), ANA).reason == "trust me"
        )  # without a key, nothing is checked


def test_nothing_to_command() -> None:
    """Where nothing serves yet, one is told how to start."""
    with (
        SqliteLog.create(MEMORY) as log,
        pytest.raises(StreamMLError, match="nothing serves on this log yet"),
    ):
        client.command(log, _command(), ANA)


# --- the command line -------------------------------------------------------------------------


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A log in a file whose worker works whenever a command line waits."""
    path = tmp_path / "stream_ml.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, toy, key) as runner:
        log.append(outputs(600))
        runner.run()

    command_of_client = client.command

    def command_and_work(
        log: SqliteLog, command: Command, signing_key: bytes, **options: Any
    ) -> Any:
        with SqliteLog.open(path) as own:
            operators = {"gus": Operator(GUS, "guard")}
            with Runner(own, toy, key, operators=operators) as runner:
                return command_of_client(
                    log, command, signing_key, wait=lambda _: runner.run(), **options
                )

    monkeypatch.setattr(client, "command", command_and_work)
    return path


def test_a_decision_is_one_object_wherever_it_is_shown(cli: Cli, answered: Path) -> None:
    """A program that reads one output of ours reads the decisions of every other."""
    broker = ("--broker", f"sqlite:{answered}", "--format", "json")

    given = cli("pause", "--reason", "hold on", *broker).json["decision"]

    history = cli("audit", "log", *broker).json["decisions"]
    models = cli("models", *broker).json
    status = cli("status", *broker).json
    assert given == {name: history[-1][name] for name in given}
    assert {"append_ms", "made_ms"} == history[-1].keys() - given.keys()
    assert history == models["decisions"]
    assert status["paused"] == history[-1]
    assert status["since"] == models["since"] == cli("audit", "at", "now", *broker).json["decision"]
    about = cli("audit", "model", "plain", *broker).json["decisions"]
    assert history[0] == {name: about[0][name] for name in about[0].keys() - {"roles"}}


@pytest.mark.usefixtures("answered")
def test_a_walk_of_commands(cli: Cli) -> None:
    """Each is printed with its decision; the actor is the system's user where none is named."""
    user = pwd.getpwuid(os.getuid()).pw_name
    promoted = cli("promote", "scaled@500", "--expect", "plain@500", "--reason", "try it")
    paused = cli("pause", "--reason", "hold on", "--actor", "ana")
    back = cli("rollback", "--expect", "scaled", "--reason", "no good", "--format", "json")
    resumed = cli("resume", "--reason", "go on")

    assert (promoted.code, promoted.out) == (
        0,
        f"replaced: scaled@500 serves (decision 2, by local (says {user}): try it)\n{GOES_ON}\n",
    )
    assert paused.out == (
        "paused: scaled@500 serves (decision 3, by local (says ana): hold on)\n"
        "paused: nothing is renewed, or replaced by itself, until `resume`\n"
    )
    decision = back.json["decision"]
    assert (back.code, back.json["accepted"], decision["kind"], decision["champion"]) == (
        0,
        True,
        "rolled_back",
        "plain@500",
    )
    assert (decision["signed_by"], decision["actor"]) == ("local", user)
    assert abs(decision["received_ms"] - decision["given_ms"]) < 600_000
    assert back.json["effect"].startswith("paused: ")
    assert resumed.out == (
        f"resumed: plain@500 serves (decision 5, by local (says {user}): go on)\n{GOES_ON}\n"
    )


@pytest.mark.usefixtures("answered")
def test_a_line_is_started_anew_by_a_command_line(cli: Cli) -> None:
    """Answered with the line, as every view shows it; a line that is not declared is refused."""
    started = cli("restart", "scaled", "--reason", "odd", "--actor", "ana", "--id", "c1")
    again = cli("restart", "scaled", "--reason", "odd", "--actor", "ana", "--id", "c1")
    views = (("models",), ("audit", "log"), ("audit", "model", "scaled"))
    texts = [cli(*command).out for command in views]
    refused = cli("restart", "nobody", "--reason", "odd")
    log = cli("audit", "log", "--format", "json")

    reason = "scaled starts anew: odd"
    words = f"restarted: plain@500 serves (decision 2, by local (says ana): {reason})\n{GOES_ON}\n"
    assert (0, words) == (started.code, started.out)
    assert (0, words) == (again.code, again.out)
    assert 4 == refused.code
    assert "expected a declared line (plain, scaled), given 'nobody'" in refused.err
    kinds = [(d["kind"], d["evidence"]) for d in log.json["decisions"]]
    assert ("restarted", {"line": "scaled"}) == kinds[2]
    assert ("odd", [1] * len(views)) == (
        log.json["decisions"][2]["reason"],
        [text.count(reason) for text in texts],
    )


@pytest.mark.usefixtures("answered")
def test_batches_of_a_line_that_has_none_are_refused_by_a_command_line(cli: Cli) -> None:
    """With the reason, and the exit code of a refusal; a size of none is a wrong usage."""
    refused = cli("batch", "scaled", "32", "--reason", "odd")
    wrong = cli("batch", "scaled", "0", "--reason", "odd")

    assert 4 == refused.code
    assert "river's learn from each example as it comes, and have no batches" in refused.err
    assert 2 == wrong.code


@pytest.mark.usefixtures("answered")
def test_a_rollback_says_that_nothing_is_renewed(cli: Cli) -> None:
    """Its answer, `models` and `status` alike, and until when; by what clock it was given, too."""
    cli("promote", "scaled", "--expect", "plain", "--reason", "try it")
    back = cli("rollback", "--expect", "scaled", "--reason", "no good", "--actor", "bob")
    models, status = cli("models"), cli("status")
    promoted = cli("promote", "scaled", "--expect", "plain", "--reason", "try again")

    frozen = "frozen after a rollback: nothing is renewed until `resume` or the next replacement"
    assert back.out.splitlines()[1] == frozen
    assert models.out.splitlines()[1] == frozen
    today = f"{datetime.now(UTC):%Y-%m-}"
    by_whom = r" \(decision 3, rolled_back by local \(says bob\)\)"
    served = rf"since {today}\d\d [0-9:]{{8}}Z \(at events of 2023-11-14 [0-9:]{{8}}Z\){by_whom}"
    assert re.search(served, models.out.splitlines()[0])
    assert "renewed no more after a rollback, until `resume` since" in status.out
    assert "by local (says bob): no good (decision 3)" in status.out
    assert promoted.out.splitlines()[1] == GOES_ON


def test_models_after_a_replacement_by_hand(tmp_path: Path, cli: Cli) -> None:
    """Evidence is about who challenges now; of the new champion's own challenge none is left."""
    path = tmp_path / "stream_ml.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, toy, key) as runner:
        log.append(outputs(1_100))
        runner.run()
        before = cli("models", "--format", "json").json["evidence"]
        shown = cli("status", "--format", "json").json["models"]
        command = _command(operator="local", pipeline="toy", log=log.identity)
        log.append([Output("commands", b"toy", encode_command(command, key))])
        runner.run()
        after = cli("models", "--format", "json").json
        status = cli("status", "--format", "json").json["models"]

    assert list(before) == [each["model"] for each in shown if each["evidence"]] == ["scaled"]
    assert [] == [each["model"] for each in status if each["evidence"]]
    assert after["since"]["champion"].startswith("scaled@")
    assert after["evidence"] == {}, "nothing speaks for the former champion yet"


@pytest.mark.usefixtures("answered")
def test_a_refusal_names_the_champion(cli: Cli) -> None:
    """It exits with 4 and says what serves; a machine is told the same on standard output."""
    rollback = ("rollback", "--expect", "scaled", "--reason", "no good")
    text = cli(*rollback, "--id", "r1")
    json = cli(*rollback, "--id", "r1", "--format", "json")

    message = "rollback refused: expected scaled to serve, but plain@500 does"
    assert (text.code, text.out, text.err) == (4, "", f"stream-ml: {message}\n")
    assert (json.code, json.err) == (4, f"stream-ml: {message}\n")
    decision = json.json["decision"]
    assert (json.json["accepted"], decision["champion"], decision["reason"]) == (
        False,
        "plain@500",
        message,
    )


@pytest.mark.usefixtures("answered")
def test_an_operator_with_a_key_of_their_own(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The role decides what they may; where it does not suffice, the champion is named."""
    monkeypatch.setenv("STREAM_ML_OPERATOR", "gus")
    monkeypatch.setenv("STREAM_ML_OPERATOR_KEY", ANA.hex())
    wrong = cli("pause", "--reason", "x")
    monkeypatch.setenv("STREAM_ML_OPERATOR_KEY", GUS.hex())
    paused = cli("pause", "--reason", "x")
    refused = cli("resume", "--reason", "x")

    assert wrong.code == 4
    assert "the worker refused the command: signature at $.signature" in wrong.err
    assert paused.code == 0
    assert (refused.code, refused.err) == (
        4,
        "stream-ml: resume refused: gus is guard, which may not resume; plain@500 serves\n",
    )


def test_without_a_key(cli: Cli, answered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no key to sign with is told where to get one; who has their own need no other."""
    answered.with_name("stream_ml.sqlite.key").unlink()
    keyless = cli("pause", "--reason", "x")
    monkeypatch.setenv("STREAM_ML_OPERATOR", "gus")
    monkeypatch.setenv("STREAM_ML_OPERATOR_KEY", GUS.hex())
    own = cli("pause", "--reason", "x")

    assert (keyless.code, keyless.err) == (
        2,
        (
            "stream-ml: stream_ml.sqlite.key: expected its signing key, given none; set "
            "STREAM_ML_KEY, or STREAM_ML_OPERATOR and STREAM_ML_OPERATOR_KEY\n"
        ),
    )
    assert own.code == 0
    assert own.out.splitlines()[-1] == operator.SIGNATURE_UNCHECKED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "a", "--reason", "x"], "the following arguments are required: --expect"),
        (["pause"], "the following arguments are required: --reason"),
        (["pause", "--reason", " "], "argument --reason: expected 1 to 512 characters, given 0"),
        (
            ["pause", "--reason", "x" * 513],
            "argument --reason: expected 1 to 512 characters, given 513",
        ),
        (
            ["pause", "--reason", "x", "--timeout", "soon"],
            "argument --timeout: expected seconds from 0, given 'soon'",
        ),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], message: str) -> None:
    """A command without its reason, or what it expects, is not sent."""
    ran = cli(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"stream-ml: {message}")


def test_evidence_that_does_not_suffice(tmp_path: Path, cli: Cli) -> None:
    """`status` and `models` show what speaks for each challenger, and what is paused."""
    path = tmp_path / "log.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, toy, key) as runner:
        log.append(outputs(1_100))
        runner.run()
        command = _command("pause", operator="local", model=None, expect=None)
        command = replace(command, pipeline="toy", log=log.identity)
        log.append([Output("commands", b"toy", encode_command(command, key))])
        runner.run()
    broker = ("--broker", f"sqlite:{path}")

    text = cli("status", *broker).out
    found = cli("status", *broker, "--format", "json", "--pipeline", "cli_toy:toy").json
    models = cli("models", *broker, "--format", "json").json

    assert (found["mode"], found["frozen"]) == ("automatic", None)
    paused = found["paused"]
    assert (paused["number"], paused["actor"], paused["reason"]) == (3, "Ana", "because")
    assert (paused["signed_by"], paused["made_ms"]) == ("local", NOW_MS)
    assert found["decisions_last_day"] == {"refreshed": 2, "paused": 1}
    [scaled] = [each for each in found["models"] if each["model"] == "scaled"]
    assert models["evidence"] == {"scaled": scaled["evidence"]}
    assert scaled["evidence"]["needed"] == 60.0
    assert "mode          not known: no pipeline is set; paused since " in text
    assert "evidence that a challenger is better than the champion\nchallenger  blocks won" in text
    assert orjson.dumps(found)
