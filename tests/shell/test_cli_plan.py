"""`plan`: what a changed declaration would do, on a log that workers have been at work on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cli_toy import TOY, outputs, toy
from river import naive_bayes, tree

import stream_ml as sml
from stream_ml import client
from stream_ml.errors import StateRefused
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.settings.loader import load_pipeline
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.plan import read_plan

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

OWN = b"own." * 8
DECLARED = """
import dataclasses
import stream_ml as sml
from cli_toy import toy
from river import naive_bayes
same = dataclasses.replace(toy, keep=20)
other = dataclasses.replace(
    toy,
    keep=3,
    features=[*toy.features, sml.hour_of_day()],
    models={**toy.models, "bayes": naive_bayes.GaussianNB()},
)
gone = dataclasses.replace(toy, champion="scaled", models={"scaled": toy.models["scaled"]})
"""


@pytest.fixture
def folder(cli: Cli, tmp_path: Path) -> Path:
    """The folder where commands are run, with a module of declarations."""
    del cli
    (tmp_path / "redeclared.py").write_text(DECLARED)
    return tmp_path


def test_each_difference_is_shown_with_what_it_means_and_costs(
    cli: Cli, worked: Path, folder: Path
) -> None:
    """Its path, both texts, the reason, the work; exit code 2, and nothing is written."""
    del folder
    before = worked.read_bytes()
    ran = cli("--broker", f"sqlite:{worked}", "plan", "redeclared:other")

    assert ran.code == 2
    lines = ran.out.splitlines()
    assert lines[0].startswith(
        "apply    features.hour_of_day: expected nothing, given hour_of_day in UTC as number; "
    )
    assert lines[1] == (
        "now      models.bayes: was nothing, is naive_bayes.GaussianNB(); it is taught what is "
        "recorded, and shadows then"
    )
    assert lines[2].startswith("         2,490 examples to learn, ")
    assert lines[2].endswith(" bytes")
    assert lines[3] == "now      keep: was 20, is 3; it holds from the next refresh on"
    [windows] = lines[4:]
    assert re.fullmatch(
        r"windows: 2,500 events to fold, [0-9,.]+ µs each: [0-9.]+ s of CPU; about [0-9,]+ bytes "
        r"of state",
        windows,
    )
    assert "plan: 3 differences from the declaration that runs on " in ran.err
    assert "a start refuses 1 of them; `stream-ml apply` brings all about" in ran.err
    assert before == worked.read_bytes()


def test_windows_that_are_filled_again_have_a_price() -> None:
    """About as much state as they take in the end, and time for each event; none where none is."""
    day = sml.window("1d")
    wider = replace(toy, features=[*toy.features, day.count(), day.mean("x", fill=0.0)])
    with SqliteLog.create(MEMORY) as log, SqliteLog.create(MEMORY) as always:
        for each, pipeline in ((log, toy), (always, wider)):
            each.append(outputs(2_500))
            with Runner(each, pipeline, OWN) as runner:
                runner.run()
        cost = read_plan(log, wider, OWN).windows
        unchanged = read_plan(log, replace(toy, keep=3), OWN).windows
        state = [value for name, value in always.state("predict-0") if name.startswith("w")]

    assert unchanged is None
    assert cost is not None
    assert cost.events == 2_500
    assert 0 < (cost.event_us or 0) < 10_000
    held = sum(map(len, state))
    assert 0.8 * held < (cost.window_bytes or 0) < 1.2 * held


def test_what_is_declared_as_it_runs_differs_in_nothing(
    cli: Cli, worked: Path, folder: Path
) -> None:
    """Exit code 0, in words and as JSON."""
    del folder
    arguments = ("--broker", f"sqlite:{worked}", "--pipeline", TOY, "plan")
    ran, same = cli(*arguments), cli(*arguments, "redeclared:same", "--format", "json")

    assert (ran.code, same.code) == (0, 0)
    assert ran.out == f"0 differences: what runs on {worked} is declared like this\n"
    assert (same.json["has_run"], same.json["changes"]) == (True, [])


def test_a_log_on_which_nothing_has_run(cli: Cli, tmp_path: Path) -> None:
    """There is nothing to differ from."""
    SqliteLog.create(tmp_path / "new.sqlite").close()

    ran = cli("--broker", "sqlite:new.sqlite", "--pipeline", TOY, "plan")

    assert ran.code == 0
    assert ran.out == "nothing has run on new.sqlite: a start takes the declaration up as it is\n"


def test_the_line_that_serves_is_not_taken_out(cli: Cli, worked: Path, folder: Path) -> None:
    """The plan refuses what a start refuses, in words of its own."""
    del folder
    ran = cli("--broker", f"sqlite:{worked}", "plan", "redeclared:gone", "--format", "json")

    assert ran.code == 2
    effects = {each["path"]: (each["effect"], each["reason"]) for each in ran.json["changes"]}
    assert effects["models.plain"] == (
        "refused",
        "it serves; promote another line before it is taken out",
    )
    assert effects["champion"][0] == "now"


def test_a_plan_is_made_while_a_worker_works() -> None:
    """What runs is what its last commit says, sealed; with another key nothing is believed."""
    changed = replace(toy, models={**toy.models, "tree": tree.HoeffdingTreeClassifier()})
    with SqliteLog.create(MEMORY) as log, Runner(log, toy, OWN) as runner:
        log.append(outputs(300))
        runner.run()

        view = read_plan(log, changed, OWN)
        with pytest.raises(StateRefused, match="sealed by our key"):
            read_plan(log, changed, b"another key of 32 bytes or more!")

        assert [each.difference.path for each in view.changes] == ["models.tree"]
        cost = view.changes[0].cost
        assert cost is not None
        assert cost.examples == 290
        assert cost.example_us is not None
        assert cost.example_us > 0
        runner.run()


def test_a_learner_that_fails_costs_nobody_knows_what() -> None:
    """The plan is made all the same: what is not known is left open."""
    with SqliteLog.create(MEMORY) as log, Runner(log, toy, OWN) as runner:
        log.append(outputs(50))
        runner.run()
        retrained = replace(toy, models={**toy.models, "nb": naive_bayes.BernoulliNB()})

        view = read_plan(log, retrained, OWN)

    assert [each.difference.effect for each in view.changes] == ["now"]


def test_another_label_is_no_traceback() -> None:
    """Examples of another kind of label are not learned, nor is it an error that they are there."""
    with SqliteLog.create(MEMORY) as log, Runner(log, toy, OWN) as runner:
        log.append(outputs(50))
        runner.run()
        changed = replace(
            toy,
            label=sml.Label(float, horizon="1h"),
            models={"plain": tree.HoeffdingTreeRegressor()},
        )

        effects = {
            e.difference.path: e.difference.effect for e in read_plan(log, changed, OWN).changes
        }

    assert effects["label.type"] == "refused"
    assert effects["models.plain"] == "relearn"


def _answered(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the worker work whenever a command waits for its answer."""
    give = client.command
    waiting = {"wait": lambda _: runner.run()}
    monkeypatch.setattr(client, "command", lambda *a, **options: give(*a, **options, **waiting))


RECIPES = """
import dataclasses
from cli_toy import toy
from river import naive_bayes
changed = dataclasses.replace(toy, models={**toy.models, "scaled": naive_bayes.GaussianNB()})
"""


def test_a_plan_is_applied_by_the_worker_that_runs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the decision; then a start goes by it, and nothing differs any more."""
    (tmp_path / "recipes.py").write_text(RECIPES)
    path = tmp_path / "log.sqlite"
    key = Settings().signing_key(str(path))
    arguments = ("--broker", f"sqlite:{path}", "--pipeline", "recipes:changed")
    with SqliteLog.create(path) as log:
        with Runner(log, toy, key) as runner:
            log.append(outputs(600))
            runner.run()
            runner.commit(checkpoint=True)
            _answered(runner, monkeypatch)

            planned = cli(*arguments, "plan")
            applied = cli(*arguments, "apply", "--reason", "simpler", "--format", "json")

        assert planned.code == 2
        assert planned.out.startswith("relearn  models.scaled: expected preprocessing")
        assert "a start refuses 1 of them; `stream-ml apply` brings all about" in planned.err
        assert applied.code == 0, applied.err
        decision = applied.json["decision"]
        assert (decision["kind"], decision["reason"]) == ("applied", "simpler")
        assert [each["path"] for each in decision["evidence"]["changes"]] == ["models.scaled"]

        with Runner(log, load_pipeline("recipes:changed"), key) as runner:
            assert [each.partition(": ")[0] for each in runner.changes] == ["models.scaled"]
            assert runner.lines == ["plain", "scaled.2"]
        after, audit = cli(*arguments, "plan"), cli(*arguments, "audit", "log")

    assert (after.code, after.out.partition(":")[0]) == (0, "0 differences")
    assert "models.scaled changed: simpler" in audit.out


def test_nothing_is_asked_for_where_a_part_is_refused(cli: Cli, worked: Path, folder: Path) -> None:
    """The plan's words, exit code 2, and no command on the log."""
    del folder
    ran = cli("--broker", f"sqlite:{worked}", "apply", "redeclared:gone", "--reason", "try")

    assert ran.code == 2
    assert "apply: 2 differences" in ran.err
    assert "it serves; promote another line before it is taken out" in ran.err
    with SqliteLog.open(worked) as log:
        assert log.end_offset("commands", 0) == 0
