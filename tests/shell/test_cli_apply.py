"""`apply`: features are changed on a log that has been worked on, beside a worker and without."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from urllib.request import urlopen

import orjson
import pytest
from cli_toy import TOY, outputs, toy
from processes import DEADLINE_S, Terminal

from stream_ml.cli.execution.standby import until_applied
from stream_ml.errors import LogLocked
from stream_ml.sealing import content
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

COUNT = 1_500
DECLARED = """
import dataclasses
import stream_ml as sml
from cli_toy import toy
wider = dataclasses.replace(toy, features=[*toy.features, sml.window("5m").mean("x", fill=0.0)])
other = dataclasses.replace(toy, label=sml.Label(bool, horizon="30m"))
"""


@pytest.fixture
def log(cli: Cli, tmp_path: Path) -> Path:
    """A log that was worked on, and a module of declarations beside it."""
    del cli
    (tmp_path / "changed.py").write_text(DECLARED)
    path = tmp_path / "toy.sqlite"
    key = Settings.load({"broker": f"sqlite:{path}"}).signing_key(str(path), new=True)
    with SqliteLog.create(path) as made:
        made.append(outputs(COUNT))
        with Runner(made, toy, key) as runner:
            runner.run()
    return path


def test_it_says_what_begins_and_what_goes_on(cli: Cli, log: Path) -> None:
    """A start under the declaration is refused before, with the way out, and goes on after."""
    broker = ("--broker", f"sqlite:{log}")
    planned = cli(*broker, "plan", "changed:wider")
    ran = cli(*broker, "apply", "changed:wider", "--reason", "longer windows", "--format", "json")
    after = cli(*broker, "plan", "changed:wider")
    audit = cli(*broker, "--pipeline", "changed:wider", "audit", "log", "--format", "json")

    assert (planned.code, ran.code, after.code) == (2, 0, 0), ran.err
    assert planned.out.startswith("apply    features.mean(x) 5m: expected nothing, given ")
    assert "`stream-ml apply` brings all about" in planned.err
    prepared, changed, applied = map(orjson.loads, ran.out.splitlines())
    assert {"said": "prepared", "events": COUNT} == prepared
    assert changed["what"].startswith("features.mean(x) 5m: was nothing, is ")
    assert {
        "said": "applied",
        "generation": 2,
        "lines": ["plain.2", "scaled.2", "plain"],
        "champion": "plain@1000",
    } == applied
    assert "longer windows" in audit.out


def test_lines_are_measured_while_it_has_the_place(cli: Cli, log: Path) -> None:
    """As by a worker: what they took is in the state that it leaves, and bounds them."""
    ran = cli("--broker", f"sqlite:{log}", "apply", "changed:wider", "--reason", "longer")
    with SqliteLog.open(log) as opened:
        state = orjson.loads(content(opened.piece("learn-0", "") or b""))

    assert 0 == ran.code
    assert {"plain", "plain.2", "scaled.2"} == state["efforts"].keys()


def test_what_differs_in_nothing_is_not_applied(cli: Cli, log: Path) -> None:
    """It is said, and no decision is written."""
    ran = cli("--broker", f"sqlite:{log}", "--pipeline", TOY, "apply", "--reason", "none")

    assert ran.code == 0
    assert "nothing to apply: what runs is declared like this; plain@1000 serves\n" in ran.out


def test_what_cannot_be_is_refused(cli: Cli, log: Path) -> None:
    """As at a start, and nothing is written."""
    before = log.read_bytes()
    ran = cli("--broker", f"sqlite:{log}", "apply", "changed:other", "--reason", "longer")

    assert ran.code == 2
    assert "label.horizon: expected 1h, given 30m" in ran.err
    assert before == log.read_bytes()


@pytest.mark.parametrize("option", ["--actor", "--id"])
def test_features_are_changed_by_no_command_that_could_be_named(
    cli: Cli, log: Path, option: str
) -> None:
    """A name that the audit would not show is refused, and nothing is written."""
    before = log.read_bytes()
    command = ("apply", "changed:wider", "--reason", "longer", option, "ana")
    ran = cli("--broker", f"sqlite:{log}", *command)

    assert (2, before) == (ran.code, log.read_bytes())
    assert f"neither --actor nor --id, given {option}: " in ran.err


def test_a_declaration_without_a_module_is_refused_in_words(cli: Cli, log: Path) -> None:
    """The form of a declaration's name is said, and no error of Python's."""
    ran = cli("--broker", f"sqlite:{log}", "plan", "wider")

    assert ran.code == 2
    assert "pipeline wider: expected module:name, such as shop:fraud" in ran.err


def test_it_waits_prepared_for_the_worker_to_be_stopped(cli: Cli, log: Path) -> None:
    """Beside the worker all is prepared; while that has its place, nothing is changed."""
    broker = ("--broker", f"sqlite:{log}")
    key = Settings.load({"broker": f"sqlite:{log}"}).signing_key(str(log))
    with SqliteLog.open(log) as opened:
        worker = Runner(opened, toy, key)
        late = cli(*broker, "apply", "changed:wider", "--reason", "longer", "--wait", "0")
        stopped = threading.Timer(0.5, worker.close)
        stopped.start()
        ran = cli(*broker, "apply", "changed:wider", "--reason", "longer", "--wait", "30")
        stopped.join()

    assert late.code == LogLocked.exit_code
    assert "prepared: 1,500 events folded" in late.out
    assert "given one that works on: nothing was changed; run it again" in late.err
    assert ran.code == 0
    assert "plain@1000 serves on, with the features that it knows" in ran.out


def test_an_up_that_stands_by_goes_on_once_it_is_applied(
    cli: Cli, log: Path, tmp_path: Path
) -> None:
    """Until then it holds no place; from then on it predicts, with the features of today."""
    options = ("--broker", f"sqlite:{log}", "--pipeline", "changed:wider")
    key = Settings.load({"broker": f"sqlite:{log}"}).signing_key(str(log))
    words = ("up", "--standby", "--format", "json", "--metrics", "0")
    with Terminal(*options, *words, folder=tmp_path) as up:
        address = orjson.loads(up.line_with("metrics"))["address"]
        up.line_with("standby")
        with urlopen(f"http://{address}/healthz") as healthy:
            assert 200 == healthy.status
        with SqliteLog.open(log) as opened:
            with Runner(opened, toy, key) as runner:
                opened.append(outputs(COUNT + 200)[COUNT : COUNT + 100])
                runner.run()
            ran = cli(*options, "apply", "--reason", "longer windows")
            up.line_with("started")
            opened.append(outputs(COUNT + 200)[COUNT + 100 : COUNT + 200])
            deadline = time.monotonic() + DEADLINE_S
            while len(made := [*read_all(opened, "predictions")]) < COUNT + 200:
                assert time.monotonic() < deadline, len(made)
        ended = up.stopped()

    assert (0, 0) == (ran.code, ended.code)
    wide = ["mean(x) 5m" in orjson.loads(each.value or b"")["features"] for each in made]
    assert [False] * (COUNT + 100) + [True] * 100 == wide


def test_an_up_that_stands_by_sees_what_is_applied_as_it_begins_to_wait(
    cli: Cli, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever that is: before it has said that it waits, too."""
    options = ("--broker", f"sqlite:{log}", "--pipeline", "changed:wider")
    key = Settings.load({"broker": f"sqlite:{log}"}).signing_key(str(log))
    monkeypatch.chdir(tmp_path)
    wider = pipeline_of(Settings.load({"broker": f"sqlite:{log}", "pipeline": "changed:wider"}), "")
    codes = []

    def apply() -> None:
        codes.append(cli(*options, "apply", "--reason", "longer windows").code)

    with SqliteLog.open(log) as opened, Stop() as stop:
        monkeypatch.setattr(stop, "wait", lambda _: pytest.fail("it would wait for ever"))
        until_applied(opened, wider, key, stop, apply)
        monkeypatch.undo()

    assert [0] == codes


def test_an_up_that_stands_by_for_nothing_works(cli: Cli, log: Path, tmp_path: Path) -> None:
    """Where nothing is to be applied it is as any, and what cannot be is refused at once."""
    options = ("--broker", f"sqlite:{log}", "--pipeline")
    refused = cli(*options, "changed:other", "up", "--standby")
    with Terminal(*options, TOY, "up", "--standby", "--format", "json", folder=tmp_path) as up:
        said = orjson.loads(up.line())["said"]
        ended = up.stopped()

    assert (2, "started", 0) == (refused.code, said, ended.code)
    assert "label.horizon: expected 1h, given 30m" in refused.err
