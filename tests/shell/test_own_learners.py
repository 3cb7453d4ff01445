"""Learners that a user wrote, from the declaration to the audit: as river's own are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cli_toy import outputs, stream
from own_toy import OWN_TOY, Logistic, own
from processes import Terminal

from stream_ml.client import predictions
from stream_ml.shell.embedded.replay import replay
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.reproduce import reproduce
from stream_ml.testing import CRASH, Driver

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

    from stream_ml import Pipeline

KEY = b"testing"
COUNT = 900


def promoted(driver: Driver) -> list[tuple[str, float]]:
    """What was predicted by whom: half, with an operator's promotion between, and the rest."""
    events, labels = stream(COUNT)
    half = COUNT // 2
    rest = events[half:]
    driver.feed(events[:half], labels[:half])
    driver.command("promote", expect="plain", model="own")
    driver.run()
    driver.feed([*rest[:100], CRASH, *rest[100:]], labels[half:])
    return [(each["model"], each["prediction"]) for each in driver.read("predictions")]


def test_a_crash_changes_nothing_of_what_they_say() -> None:
    """Crashes and redelivery leave every answer as it was; who is promoted serves on."""
    with Driver(own, key=KEY) as quiet, Driver(own, key=KEY, seed=11) as crashed:
        expected = promoted(quiet)
        actual = promoted(crashed)
        snapshots = {record.key for record in quiet.records("models") if record.value}
        done = reproduce(quiet.log, own, KEY, list(predictions(quiet.log)))

    assert expected == actual
    assert COUNT == len(expected)
    models = [model for model, _ in expected]
    assert {"plain@0", "plain@400", "own@400", "own@800"} <= set(models)
    assert {"own", "share"} <= {(key or b"").decode().partition("@")[0] for key in snapshots}
    assert (3 * COUNT <= len(done.answers), [], {}, {}) == (
        True, done.different, dict(done.dropped), dict(done.refused),
    )  # fmt: skip


def test_a_worker_takes_them_up_and_an_operator_promotes(cli: Cli, tmp_path: Path) -> None:
    """`up` goes on from their state; `promote` has one serve, and its answers are made again."""
    path = tmp_path / "stream_ml.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log:
        replay(log, own, key, outputs(500))
    with Terminal("up", "--pipeline", OWN_TOY, folder=tmp_path) as up:
        up.line()
        words = ("--expect", "plain", "--reason", "try it", "--pipeline", OWN_TOY)
        with Terminal("promote", "own", *words, folder=tmp_path) as promote:
            answer = promote.ended()
        up.process.terminate()
        up.process.wait(60)

    options = ("--pipeline", OWN_TOY, "--broker", f"sqlite:{path}")
    models = cli("models", *options)
    again = cli("audit", "reproduce", "--sample", "300", *options)

    assert (0, "") == (answer.code, answer.err)
    assert "own@400" in models.out
    assert (0, "") == (again.code, again.err)
    assert "300 predictions" in again.out


class Fragile(Logistic):
    """Raises at its examples from a number on."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.count = most, 0

    def learn_one(self, features: Any, label: Any) -> None:
        """Count, and raise."""
        self.count += 1
        if self.count > self.most:
            raise RuntimeError("boom")
        super().learn_one(features, label)


def test_a_line_that_learns_no_more_is_named_until_it_starts_anew(cli: Cli, tmp_path: Path) -> None:
    """By `models` and `status`: with the reason and the way out; once it is over, no more."""
    path = tmp_path / "stream_ml.sqlite"
    key = Settings().signing_key(str(path))
    broker = ("--broker", f"sqlite:{path}")
    with SqliteLog.create(path) as log:
        replay(log, _fragile(50), key, outputs(500))
    texts = [cli(command, *broker).out for command in ("models", "status")]
    jsons = [cli(command, *broker, "--format", "json").json for command in ("models", "status")]
    with SqliteLog.open(path) as log:
        replay(log, _fragile(10_000), key, outputs(600))
    texts_after = [cli(command, *broker).out for command in ("models", "status")]
    jsons_after = [
        cli(command, *broker, "--format", "json").json for command in ("models", "status")
    ]

    for text in texts:
        [line] = [line for line in text.splitlines() if line.startswith("quarantined: ")]
        assert "'own' learns no more" in line
        assert "RuntimeError" in line
        assert line.endswith("; stream-ml restart own --reason ...")
    for members in jsons:
        assert ["line:own"] == [alert["subject"] for alert in members["quarantines"]]
    assert not any("quarantined: " in text for text in texts_after)
    assert [[], []] == [members["quarantines"] for members in jsons_after]


def _fragile(most: int) -> Pipeline:
    return replace(own, models={**own.models, "own": Fragile(most)})
