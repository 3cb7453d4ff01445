"""`models`, `status`, `topics` and `config`: what they show, and that they only look."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
from cli_toy import TOY, outputs, toy

from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views import status
from stream_ml.shell.views.status import labelled_share
from stream_ml.topics import catalogue
from tests.straight import append_straight

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A log to which nothing was published."""
    path = tmp_path / "empty.sqlite"
    SqliteLog.create(path).close()
    return path


# --- models -----------------------------------------------------------------------------------


def test_models_of_a_log(cli: Cli, worked: Path) -> None:
    """Every model of the serving set is there with its version, examples and age."""
    found = cli("models", "--broker", f"sqlite:{worked}", "--format", "json").json

    assert [(each["role"], each["model"], each["examples"]) for each in found["models"]] == [
        ("champion", "plain@2000", 2_000),
        ("challenger", "scaled@2000", 2_000),
        ("predecessor", "plain@500", 500),
        ("first", "plain@500", 500),
    ]
    # Events come a second apart, and labels ten seconds after them: at the last event, e2499, the
    # 2,000th example is 2,499 - 1,999 - 10 seconds old.
    assert found["models"][0]["age_ms"] == 490_000
    assert (found["pipeline"], found["notes"]) == ("toy", [])
    assert (found["since"]["number"], found["since"]["kind"]) == (3, "refreshed")
    assert [each["champion"] for each in found["decisions"]] == [
        "plain@0",
        "plain@500",
        "plain@1000",
        "plain@2000",
    ]


def test_models_as_text(cli: Cli, worked: Path) -> None:
    """The text leads with what serves, and since when."""
    ran = cli("models", "--broker", f"sqlite:{worked}", "--decisions", "1")

    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == (
        "pipeline toy: plain@2000 serves since 2023-11-14 22:46:49Z "
        "(decision 3, refreshed by evaluate)"
    )
    champion = next(line for line in lines if line.startswith("champion"))
    assert re.split(r"  +", champion) == [
        "champion",
        "plain@2000",
        "2,000",
        "2023-11-14 22:46:49Z",
        "8 min 10 s",
    ]
    [decision] = [line for line in lines if line.strip().startswith("3 ")]
    number, events_at, made_at, *rest = re.split(r"  +", decision.strip())
    assert (number, events_at) == ("3", "2023-11-14 22:46:49Z")
    assert made_at > "2024", "by the clock, and not in the time of events"
    assert rest == ["refreshed", "evaluate", "plain@2000", "all lines published @2000"]


def test_models_that_are_not_signed_with_our_key(cli: Cli, worked: Path, tmp_path: Path) -> None:
    """A decision that anybody could have written is not shown as what serves."""
    path = tmp_path / "log.sqlite"
    shutil.copy(worked, path)
    shutil.copy(f"{worked}.key", f"{path}.key")
    with SqliteLog.open(path) as log:
        [last] = log.read("registry", 0, 3, 1)
        forged = (last.value or b"").replace(b"plain@2000", b"plain@9999")
        append_straight(log, [Output("registry", last.key, forged)])

    ran = cli("models", "--broker", f"sqlite:{path}")

    assert ran.code == 0
    assert "plain@9999" not in ran.out
    assert ran.out.splitlines()[-1] == (
        "1 records of the registry are not signed with our key, and count for nothing"
    )


def test_models_of_an_empty_log(cli: Cli, empty: Path) -> None:
    """An empty log is no error: nothing serves yet, and no key is made by looking."""
    ran = cli("models", "--broker", f"sqlite:{empty}")

    assert ran.code == 0
    assert ran.out.splitlines()[0] == (
        f"{empty}: nothing serves yet: the log holds no decision that we can believe"
    )
    assert not empty.with_name("empty.sqlite.key").exists()


# --- status -----------------------------------------------------------------------------------


def test_status_of_a_log(cli: Cli, worked: Path) -> None:
    """Positions, freshness, scores and accounts are those of the run."""
    found = cli("status", "--broker", f"sqlite:{worked}", "--format", "json").json

    assert [
        (each["task"], each["topic"], each["position"], each["end"], each["lag"])
        for each in found["stages"]
    ] == [
        ("predict-0", "events", 2_500, 2_500, 0),
        ("join-0", "predictions", 2_500, 2_500, 0),
        ("join-0", "labels", 2_490, 2_490, 0),
        ("learn-0", "examples", 2_490, 2_490, 0),
        ("learn-0", "registry", 4, 4, 0),
        ("evaluate-0", "examples", 2_490, 2_490, 0),
        ("evaluate-0", "models", 8, 8, 0),
        ("evaluate-0", "commands", 0, 0, 0),
        ("evaluate-0", "registry", 4, 4, 0),
        ("evaluate-0", "summaries", 0, 0, 0),
    ]
    last_ms = 1_700_000_000_000 + 2_499_000
    assert found["watermarks"]["events"] == [last_ms]
    assert found["watermarks"]["labels"] == [last_ms]
    assert (found["champion"], found["pipeline"]) == ("plain@2000", "toy")
    assert [each["model"] for each in found["models"]] == ["served", "scaled", "prior", "first"]
    assert found["events"]["predictions"] == 2_500
    assert found["labels"]["joined"] == 2_490
    assert (found["dead_letters"], found["alerts"]) == ({}, [])
    assert (found["held"]["predictions"], found["held"]["labels"]) == (10, 0)
    assert not found["empty"]


def test_status_as_text(cli: Cli, worked: Path) -> None:
    """The text shows the same, with the share of predictions that have a label."""
    ran = cli("status", "--broker", f"sqlite:{worked}")

    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert "labels        2,490 joined; 99.6% of predictions have a label" in lines
    assert "dead letters  none" in lines
    assert "join-0      labels-0          2,490  2,490    0" in lines
    assert "scores over everything" in lines


def test_status_beside_a_worker(cli: Cli, tmp_path: Path) -> None:
    """It looks while a worker holds its place, and sees what waits and what was refused."""
    path = tmp_path / "log.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, toy, key):
        log.append(outputs(30))
        found = cli("status", "--broker", f"sqlite:{path}", "--format", "json").json

    assert [(each["topic"], each["lag"]) for each in found["stages"]][:3] == [
        ("events", 30),
        ("predictions", 0),
        ("labels", 20),
    ]
    assert found["champion"] == "plain@0"
    assert found["watermarks"] == {"events": [-1], "labels": [-1], "examples": -1}
    assert found["models"] == []


def test_status_of_an_empty_log(cli: Cli, empty: Path) -> None:
    """An empty log is said to be empty; for machines every member is there all the same."""
    text = cli("status", "--broker", f"sqlite:{empty}")
    found = cli("status", "--broker", f"sqlite:{empty}", "--format", "json").json

    assert (text.code, text.out) == (
        0,
        f"{empty}: an empty log: nothing was published to it, and no worker has run\n",
    )
    assert found["empty"]
    assert found["champion"] is None
    assert {each["lag"] for each in found["stages"]} == {0}


@pytest.mark.parametrize("command", ["models", "status"])
def test_a_log_that_is_not_there(cli: Cli, tmp_path: Path, command: str) -> None:
    """Looking at a log that is not there is refused, and makes none."""
    ran = cli(command)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err == (
        "stream-ml: stream_ml.sqlite: expected a log, given no file; name another with --broker, "
        "or make one with `stream-ml up` or `stream-ml demo`\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_log(cli: Cli, tmp_path: Path) -> None:
    """A file of another kind is refused by the log, with exit code 3."""
    (tmp_path / "notes.txt").write_text("not a log, but long enough to look into" * 100)

    ran = cli("status", "--broker", "sqlite:notes.txt")

    assert ran.code == 3
    assert ran.err.startswith(
        "stream-ml: notes.txt: expected a log, given a file that is no SQLite file; "
        "choose another path"
    )


def test_alerts_and_refusals_are_told(cli: Cli, tmp_path: Path) -> None:
    """What was refused is counted by reason, what a person should know is said in words."""
    import stream_ml as sml  # noqa: PLC0415 - only this test declares a pipeline

    tight = sml.Pipeline(
        "tight",
        events=toy.events,
        features=toy.features,
        label=toy.label,
        models=toy.models,
        champion="plain",
        pending_max=5,
    )
    path = tmp_path / "log.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, tight, key) as runner:
        log.append([*outputs(20)[:20], *outputs(1)])
        runner.run()

    text = cli("status", "--broker", f"sqlite:{path}").out
    found = cli("status", "--broker", f"sqlite:{path}", "--format", "json").json

    assert found["dead_letters"] == {"too_late": 1}
    assert [(each["kind"], each["count"]) for each in found["alerts"]] == [("pending_overflow", 1)]
    assert "dead letters  1 too late" in text.splitlines()
    assert "alert pending_overflow, last at -: more than 5 predictions wait" in text


def test_status_with_more_dead_letters_than_it_reads(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reasons are of the last ones, how many there are in all is told, and it takes no longer."""
    monkeypatch.setattr(status, "LETTERS_READ", 100)
    path = tmp_path / "log.sqlite"
    with (
        SqliteLog.create(path) as log,
        Runner(log, toy, Settings().signing_key(str(path))) as runner,
    ):
        log.append([Output("events", None, value) for value in [b"{}"] * 150 + [b"nope"] * 60])
        runner.run()
    broker = ("--broker", f"sqlite:{path}")

    found, text = cli("status", *broker, "--format", "json").json, cli("status", *broker).out

    assert found["dead_letters"] == {"missing_field": 40, "not_json": 60}
    assert (found["dead_letters_read"], found["dead_letters_total"]) == (100, 210)
    expected = "40 missing field, 60 not json (of the last 100; at most 210 in all)"
    assert f"dead letters  {expected}" in text.splitlines()


def test_status_of_what_others_put_where_stages_write(tmp_path: Path, cli: Cli) -> None:
    """Whatever lies among dead letters and alerts, what is known is shown."""
    path = tmp_path / "log.sqlite"
    junk = [
        b"nope",
        b"[]",
        b"{}",
        b'{"kind":7,"reason":[]}',
        b'{"kind":"odd","reason":"odd"}',
        None,
    ]
    with SqliteLog.create(path) as log, log.session() as session:
        for topic in ("dead-letters", "alerts", "evaluations", "predictions", "registry"):
            session.stage([Output(topic, None, each) for each in junk])
        session.commit()

    ran = cli("status", "--broker", f"sqlite:{path}")

    assert (ran.code, ran.err) == (0, "")
    assert "dead letters  1 odd" in ran.out.splitlines()
    assert cli("models", "--broker", f"sqlite:{path}").code == 0
    assert cli("audit", "log", "--broker", f"sqlite:{path}").code == 0


def test_status_before_anything_was_written_down(tmp_path: Path, cli: Cli) -> None:
    """What is not known is not told as none, and what is divided was counted at one instant."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path) as log:
        log.append(outputs(20))

    lines = cli("status", "--broker", f"sqlite:{path}").out.splitlines()

    for name in ("events", "labels", "held"):
        assert f"{name:<12}  not known before a worker's first checkpoint" in lines
    one = {"counts": {"joined": 6, "expired": 1, "dropped": 1}, "held": {"predictions": 2}}
    other = {"counts": {"joined": 4, "expired": 0}, "held": {"predictions": 6}}
    assert labelled_share([one, other, {}]) == 0.5
    assert labelled_share([{}]) is None


# --- topics and config ------------------------------------------------------------------------


def test_topics(cli: Cli) -> None:
    """The catalogue is listed whole."""
    ran = cli("topics")

    assert [line.split()[0] for line in ran.out.splitlines()] == ["topic", *catalogue()]
    assert list(cli("topics", "--format", "json").json) == list(catalogue())


def test_one_topic(cli: Cli) -> None:
    """A topic is shown with every member of its records, those within others too."""
    text = cli("topics", "predictions").out
    found = cli("topics", "predictions", "--format", "json").json

    members = [line.split()[0] for line in text.splitlines() if line]
    assert {"event_id", "source", "partition", "offset", "shadows"} <= set(members)
    assert found["fields"]["source"]["fields"]["offset"]["type"] == "integer"
    assert found["readers"] == ["join", "consumer"]


def test_no_such_topic(cli: Cli) -> None:
    """A topic that is none is answered with those that are."""
    ran = cli("topics", "prediction")

    known = ", ".join([*catalogue(), "plan", "apply"])
    assert (ran.code, ran.err) == (
        2,
        f"stream-ml: topics: expected one of {known}, given 'prediction'\n",
    )


def test_config_says_who_set_what(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is shown with its value and where that came from."""
    monkeypatch.setenv("STREAM_ML_CHECKPOINT_EXAMPLES", "64")

    found = cli("config", "--pipeline", TOY, "--format", "json").json

    assert [(each["name"], each["value"], each["source"]) for each in found] == [
        ("broker", "sqlite:stream_ml.sqlite", "default"),
        ("pipeline", TOY, "--pipeline"),
        ("task", None, "default"),
        ("key", None, "stream_ml.sqlite.key, made on first use"),
        ("checkpoint_examples", 64, "STREAM_ML_CHECKPOINT_EXAMPLES"),
        ("checkpoint_seconds", 60.0, "default"),
        ("commit_seconds", 0.1, "default"),
        ("learn_budget_seconds", 1.0, "default"),
        ("isolated_lines", ["own"], "default"),
        ("line_memory_mb", 4_096, "default"),
        ("training_seconds", 120.0, "default"),
        ("training_memory_mb", 4_096, "default"),
        ("restart_lines", [], "default"),
        ("command_age_seconds", 3_600.0, "default"),
        ("keyring", None, "default"),
        ("operator", "local", "default"),
        ("operator_key", None, "default"),
        ("key_before", None, "default"),
        ("accept_unsealed", False, "default"),
        ("accept_topics", [], "default"),
        ("alert_webhooks", None, "default"),
        ("metrics", None, "default"),
        ("http_tokens", None, "default"),
        ("http_token", None, "default"),
        ("tls_ca", None, "default"),
        ("sasl", None, "default"),
        ("password", None, "default"),
    ]
    assert all(each["meaning"] and each["expected"] for each in found)


def test_config_never_shows_the_key(
    cli: Cli, worked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the key comes from is shown, wherever that is."""
    file = worked.with_name("log.sqlite.key")
    beside = cli("config", "--broker", f"sqlite:{worked}").out
    monkeypatch.setenv("STREAM_ML_KEY", "ab" * 32)
    given = cli("config").out

    assert f"    from    {file}" in beside.splitlines()
    assert file.read_text().strip() not in beside
    assert "    from    STREAM_ML_KEY" in given.splitlines()
    assert "abab" not in given


def test_config_of_a_cluster(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no key beside a cluster, and no password is shown."""
    monkeypatch.setenv("STREAM_ML_SASL", "SCRAM-SHA-512:ana")
    monkeypatch.setenv("STREAM_ML_PASSWORD", "hunter2")

    ran = cli("config", "--broker", "kafka://10.0.0.1:9092/shop")

    assert "broker = kafka://10.0.0.1:9092/shop" in ran.out
    assert "    from    nowhere: a cluster's workers need it set" in ran.out.splitlines()
    assert "sasl = SCRAM-SHA-512:ana" in ran.out
    assert "hunter2" not in ran.out


def test_config_names_operators_and_no_key(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of operators, names and roles are shown."""
    ring = tmp_path / "ring.toml"
    ring.write_text(f'[operators.gus]\nkey = "{"ab" * 32}"\nrole = "guard"\n')
    ring.chmod(0o600)
    monkeypatch.setenv("STREAM_ML_KEYRING", str(ring))
    monkeypatch.setenv("STREAM_ML_OPERATOR_KEY", "cd" * 32)

    text = cli("config").out
    found = {each["name"]: each for each in cli("config", "--format", "json").json}

    assert found["keyring"]["operators"] == {"gus": "guard"}
    assert found["operator_key"]["value"] is None
    assert "    guard   gus" in text.splitlines()
    assert "abab" not in text
    assert "cdcd" not in text
