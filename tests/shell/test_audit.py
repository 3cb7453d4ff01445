"""The audit: what served when and why, every alteration found, predictions made again."""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import TOY, outputs, toy

from stream_ml.client import predictions
from stream_ml.codec import encode_command
from stream_ml.examples.cards import cards, transactions
from stream_ml.records import Command, Output, Shadow
from stream_ml.sealing import strip_seal
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all, shadow_answers
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.audit import verify
from stream_ml.shell.views.reproduce import find, reproduce, sample
from stream_ml.testing import Driver
from tests.straight import append_straight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli

OWN = b"own." * 8


def _command(log: SqliteLog, kind: str, number: int, **members: Any) -> Command:
    now_ms = time.time_ns() // 1_000_000
    members |= {"pipeline": "toy", "log": log.identity}
    return Command(f"c{number}", kind, now_ms, "local", "ana", f"reason {number}", **members)


@pytest.fixture(scope="session")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log on which an operator has promoted, been refused, and rolled back."""
    path = tmp_path_factory.mktemp("decided") / "log.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, toy, key) as runner:
        log.append(outputs(1_100))
        runner.run()
        for command in (
            _command(log, "promote", 1, expect="plain", model="scaled"),
            _command(log, "promote", 2, expect="plain", model="scaled"),
            _command(log, "rollback", 3, expect="scaled"),
        ):
            log.append([Output("commands", b"toy", encode_command(command, key))])
            runner.run()
    return path


# --- what served, and why ---------------------------------------------------------------------


def test_what_served_at_a_time(cli: Cli, decided: Path) -> None:
    """By the time of events: before the first refresh, after it, and after the last decision."""
    broker = ("--broker", f"sqlite:{decided}", "--format", "json")

    def served(time: str) -> Any:
        return cli("audit", "at", time, *broker).json["decision"]

    before = served("2023-11-14T22:20:00Z")
    refreshed = served("2023-11-14T22:24:00Z")
    last = served("2024-01-01")

    assert (before["kind"], before["serving"]["champion"]["model"]) == ("bootstrap", "plain@0")
    assert (refreshed["kind"], refreshed["serving"]["champion"]["model"]) == (
        "refreshed",
        "plain@500",
    )
    assert (last["kind"], last["actor"], last["command_id"]) == ("rolled_back", "ana", "c3")
    assert last["serving"]["champion"]["model"] == "plain@1000"
    assert served("0")["number"] == 0  # a bootstrap was before any time


def test_what_served_as_text(cli: Cli, decided: Path) -> None:
    """Since when, by whom, why, on what evidence; by the log's clock, nothing served long ago."""
    broker = ("--broker", f"sqlite:{decided}")
    text = cli("audit", "at", "2024-01-01", *broker).out
    long_ago = cli("audit", "at", "2024-01-01", "--clock", "log", *broker)

    facts = dict(line.split("  ", maxsplit=1) for line in text.splitlines())
    assert facts["served"].strip() == "plain@1000"
    assert facts["decision"].strip() == "5, rolled_back"
    assert (facts["by"].strip(), facts["reason"].strip()) == ("local (says ana)", "reason 3")
    assert facts["given"].strip() > "2024", "by the operator's clock"
    assert ", on the log at " in facts["given"]
    assert facts["rests on"].strip() == "1,090 examples, 6 models, 3 commands"
    assert (long_ago.code, long_ago.out) == (
        0,
        "at 2024-01-01 00:00:00Z nothing served yet\n",
    )


def test_what_serves_now(cli: Cli, decided: Path) -> None:
    """`now` is the last decision, by either clock, whatever the time of events."""
    for clock in ("events", "log"):
        ran = cli("audit", "at", "now", "--clock", clock, "--broker", f"sqlite:{decided}")
        assert ran.code == 0
        assert re.search(r"^decision +5, rolled_back$", ran.out, re.MULTILINE)
        assert ran.out.startswith(f"at             {datetime.now(UTC):%Y-%m}")


def test_decisions_about_a_model(cli: Cli, decided: Path) -> None:
    """Those that changed what it is, or speak of it, with what it was from then on."""
    broker = ("--broker", f"sqlite:{decided}", "--format", "json")

    line = cli("audit", "model", "scaled", *broker).json["decisions"]
    one = cli("audit", "model", "scaled@1000", *broker).json["decisions"]
    none = cli("audit", "model", "absent", "--broker", f"sqlite:{decided}").out

    assert [(each["number"], each["kind"], each["roles"]) for each in line] == [
        (0, "bootstrap", {"challenger": "scaled@0"}),
        (1, "refreshed", {"challenger": "scaled@500"}),
        (2, "refreshed", {"challenger": "scaled@1000"}),
        (3, "replaced", {"champion": "scaled@1000"}),
        (4, "refused", {"champion": "scaled@1000"}),
        (5, "rolled_back", {"challenger": "scaled@1000"}),
    ]
    assert [each["number"] for each in one] == [2, 3, 4, 5]
    assert none == "no decision is about absent\n"


def test_the_log_of_decisions(cli: Cli, decided: Path) -> None:
    """All of them, a line each."""
    lines = cli("audit", "log", "--broker", f"sqlite:{decided}").out.splitlines()

    assert [line.split()[0] for line in lines] == ["decision", *"012345"]
    assert lines[-1].endswith("rolled_back  local (says ana)  plain@1000   reason 3")


def test_decisions_of_another_key(cli: Cli, decided: Path, tmp_path: Path) -> None:
    """What is not signed with our key is not told as a decision, and that is said."""
    path = tmp_path / "log.sqlite"
    shutil.copy(decided, path)
    shutil.copy(f"{decided}.key", f"{path}.key")
    with SqliteLog.open(path) as log:
        [last] = log.read("registry", 0, 5, 1)
        append_straight(
            log, [Output("registry", last.key, (last.value or b"").replace(b"ana", b"eve"))] * 2
        )

    ran = cli("audit", "log", "--broker", f"sqlite:{path}")

    note = "2 records of the registry are missing, or not signed with our key, and count for "
    assert ran.out.splitlines()[7:] == [note + "nothing; see `stream-ml audit verify`"]


# --- is it whole? -----------------------------------------------------------------------------


class Tampered:
    """A copy of a log, and its registry as somebody with the file alone could change it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = sqlite3.connect(path, isolation_level=None)
        self.file.execute("PRAGMA synchronous = OFF")  # no harm done is worth a disk's wait
        [(number,)] = self.file.execute("SELECT id FROM partitions WHERE topic = 'registry'")
        self._table = f"records_{number}"

    def values(self) -> list[bytes]:
        """The records, in order."""
        return [v for (v,) in self.file.execute(f"SELECT value FROM {self._table} ORDER BY at")]  # noqa: S608 - a table of our own

    def put(self, at: int, value: bytes) -> None:
        """Put a record in the place of another."""
        self.file.execute(f"UPDATE {self._table} SET value = ? WHERE at = ?", (value, at))  # noqa: S608 - as above

    def drop(self, at: int) -> None:
        """Take a record away."""
        self.file.execute(f"DELETE FROM {self._table} WHERE at = ?", (at,))  # noqa: S608 - as above


@pytest.fixture
def tampered(decided: Path, tmp_path: Path) -> Iterator[Tampered]:
    """A copy of a log whose worker has stopped, to do harm to."""
    for file in decided.parent.iterdir():
        shutil.copy(file, tmp_path / file.name)
    found = Tampered(tmp_path / decided.name)
    yield found
    found.file.close()


@pytest.mark.parametrize("with_key", [True, False], ids=["with-key", "without-key"])
def test_every_flipped_byte_is_found(tmp_path: Path, *, with_key: bool) -> None:
    """Whichever byte of whichever record: it is found, and with the key its record is named."""
    path = tmp_path / "log.sqlite"
    own = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, toy, own) as runner:
        for number, kind in enumerate(("pause", "resume")):
            command = encode_command(_command(log, kind, number), own)
            log.append([Output("commands", b"toy", command)])
            runner.run()
    tampered = Tampered(path)
    values = tampered.values()
    key = own if with_key else None
    missed = []
    with SqliteLog.open(path) as log:
        assert verify(log, key).flaw is None
        for number, value in enumerate(values):
            for at in range(len(value)):
                tampered.put(number, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
                flaw = verify(log, key).flaw or ""
                named = f"record {number} " if with_key else "record"
                if not flaw.startswith(named):
                    missed.append((number, at, flaw))
            tampered.put(number, value)
        assert verify(log, key).flaw is None
    tampered.file.close()

    assert (len(values), missed) == (3, [])


def test_a_record_that_is_gone(tampered: Tampered, cli: Cli) -> None:
    """The one after a gap is named; of the last one the worker remembers that there was one."""
    for number in reversed(range(6)):
        tampered.drop(number)
        ran = cli("audit", "verify", "--broker", f"sqlite:{tampered.path}")

        assert ran.code == 1
        if number == 5:
            flaw = "record 5: missing, for the worker remembers 6 decisions"
            assert ran.err == f"stream-ml: the registry is not as it was written: {flaw}\n"
            assert ran.out == (
                "5 decisions are as they were written, by signature, number and chain\n"
            )


def test_a_gap_is_named(tampered: Tampered) -> None:
    """The first record whose number does not follow is the one that is wrong."""
    tampered.drop(2)
    with SqliteLog.open(tampered.path) as log:
        flaw = verify(log, None).flaw

    assert flaw == (
        "record 2 (offset 3): expected decision 2, given 3: one is missing or misplaced"
    )


def test_a_swapped_pair(tampered: Tampered) -> None:
    """Two genuine records in the wrong order are found by their numbers."""
    values = tampered.values()
    tampered.put(2, values[3])
    tampered.put(3, values[2])
    with SqliteLog.open(tampered.path) as log:
        flaw = verify(log, Settings().verifying_key(str(tampered.path))).flaw

    assert flaw == (
        "record 2 (offset 2): expected decision 2, given 3: one is missing or misplaced"
    )


def test_a_genuine_record_of_another_history(tampered: Tampered, cli: Cli) -> None:
    """A record that we signed ourselves, but in another run, does not fit into the chain."""
    key = Settings().signing_key(str(tampered.path))
    with SqliteLog.create(MEMORY) as other, Runner(other, toy, key) as runner:
        for number, kind in enumerate(("pause", "resume")):
            command = encode_command(_command(other, kind, number), key)
            other.append([Output("commands", b"toy", command)])
            runner.run()
        [foreign] = other.read("registry", 0, 2, 1)
    assert foreign.value is not None
    tampered.put(2, foreign.value)

    ran = cli("audit", "verify", "--broker", f"sqlite:{tampered.path}", "--format", "json")

    assert (ran.code, ran.json["sound"], ran.json["signatures"]) == (1, 2, True)
    assert ran.json["flaw"] == (
        "record 2 (offset 2): it does not follow the record before it: one of the two was altered"
    )


def test_verified_without_a_key(tampered: Tampered, cli: Cli) -> None:
    """Who has no key is told that signatures were not checked; number and chain were."""
    tampered.path.with_name("log.sqlite.key").unlink()

    ran = cli("audit", "verify", "--broker", f"sqlite:{tampered.path}")

    assert ran.code == 0
    assert ran.out.splitlines() == [
        "6 decisions are as they were written, by number and chain",
        "signatures were not checked: no key is set, and none lies by the log",
    ]


# --- made again -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def paid() -> Iterator[SqliteLog]:
    """A log in memory on which the cards have run, signed with `OWN`."""
    events, labels = transactions(4_000, seed=3)
    with SqliteLog.create(MEMORY) as log:
        outputs = [
            *(output_of(cards, "events", event) for event in events),
            *(output_of(cards, "labels", label) for label in labels),
        ]
        replay(log, cards, OWN, outputs)
        yield log


def test_a_thousand_predictions_are_made_again(paid: SqliteLog) -> None:
    """A thousand drawn at random are what was logged, and so is every answer of their shadows.

    Shadows have answered where a label has come.
    """
    drawn = sample(paid, 1_000, seed=7)
    done = reproduce(paid, cards, OWN, drawn)

    assert len({each.event_id for each in drawn}) == 1_000
    assert drawn == sample(paid, 1_000, seed=7) != sample(paid, 1_000, seed=8)
    answered = {answers.event_id: len(answers.shadows) for answers in shadow_answers(paid)}
    answer_counts = [answered[e.event_id] for e in drawn if e.event_id in answered]
    assert len(answer_counts) > 600
    assert len(done.answers) == len(drawn) + sum(answer_counts)
    assert (done.different, done.dropped, done.refused) == ([], {}, {})
    assert done.worst <= 1e-12
    assert {each.model for each in done.answers} >= {"logistic@2000", "adagrad@1000", "tree@0"}


def test_what_others_say_of_shadows_is_not_believed() -> None:
    """An answer of a shadow that bears no seal of ours takes the place of none that does."""
    events, labels = transactions(1_500, seed=4)
    with SqliteLog.create(MEMORY) as log:
        records = [("events", event) for event in events] + [("labels", each) for each in labels]
        replay(log, cards, OWN, [output_of(cards, *record) for record in records])
        genuine = [*read_all(log, "answers")][-1]
        members = orjson.loads(strip_seal(genuine.value))
        for shadow in members["shadows"].values():
            shadow["prediction"] = 0.99
        append_straight(log, [Output("answers", genuine.key, orjson.dumps(members))])
        asked = [
            each for each in sample(log, 1_500, seed=1) if each.event_id.encode() == genuine.key
        ]
        done = reproduce(log, cards, OWN, asked)

    assert {each.slot for each in done.answers} == {"champion", *members["shadows"]}
    assert done.different == []


def test_an_altered_prediction_is_found(paid: SqliteLog) -> None:
    """An answer that the model did not give is shown, whether too high, too low or none."""
    [one] = sample(paid, 1, seed=1)
    assert isinstance(one.prediction, float)
    one.prediction += 1e-9
    one.shadows["adagrad"] = Shadow(one.shadows["adagrad"].model, None)

    done = reproduce(paid, cards, OWN, [one])

    assert [(each.slot, each.equal) for each in done.answers][:2] == [
        ("champion", False),
        ("adagrad", False),
    ]
    assert done.worst == float("inf")


def test_an_answer_behind_a_fallback_is_made_again(paid: SqliteLog) -> None:
    """Where the serving set's fallback was served, the champion's own answer is compared."""
    [one] = sample(paid, 1, seed=1)
    one.shadows["logistic"] = Shadow(one.model, one.prediction)
    one.prediction, one.fallback = 0.25, True

    done = reproduce(paid, cards, OWN, [one])

    assert {"adagrad", "tree", "logistic"} <= {each.slot for each in done.answers}
    assert not done.different


def test_snapshots_that_are_gone_are_counted() -> None:
    """What retention has dropped cannot be made again, and is not passed over in silence."""
    with Driver(toy, key=OWN) as driver:
        driver.log.append(outputs(1_100))
        driver.run()
        gone = Output("models", b"scaled@500", None)
        driver.runner._deliver([gone])
        driver.runner._flow()
        driver.runner.commit(checkpoint=True)
        made = list(predictions(driver.log))
        driver.log.expire(driver.now_ms)
        done = reproduce(driver.log, toy, OWN, made)

    dropped = sum(each.shadows["scaled"].model == "scaled@500" for each in made)
    assert dropped > 100
    assert dict(done.dropped) == {"scaled@500": dropped}
    assert not done.different


def test_a_snapshot_of_another_key_is_refused(paid: SqliteLog) -> None:
    """With another key nothing on the registry is believed, so nothing can be looked up."""
    done = reproduce(paid, cards, b"other", sample(paid, 2, seed=1))

    assert not done.answers
    assert all("the registry never named such a snapshot" in reason for reason in done.refused)


def test_a_prediction_that_lives_on_with_its_label(paid: SqliteLog) -> None:
    """A prediction is found by its event; where it is gone, the example has it whole."""
    found = find(paid, "t17")
    with SqliteLog.create(MEMORY) as log:
        [example] = paid.read("examples", 0, 17, 1)
        append_straight(log, [Output("examples", example.key, example.value)])
        kept = find(log, (example.key or b"").decode())

        assert found is not None
        assert kept is not None
        assert (found.event_id, kept.event_id) == ("t17", (example.key or b"").decode())
        assert find(log, "absent") is None


def test_one_prediction_on_the_command_line(cli: Cli, decided: Path) -> None:
    """One is shown answer by answer; one that is not there is said not to be."""
    options = ("--broker", f"sqlite:{decided}", "--pipeline", TOY)

    one = cli("audit", "reproduce", "e700", *options)
    absent = cli("audit", "reproduce", "e9999", *options)
    many = cli("audit", "reproduce", "--sample", "100", "--seed", "3", *options, "--format", "json")

    lines = one.out.splitlines()
    assert (one.code, lines[0]) == (0, "1 prediction: 1 of 1 served answers are equal")
    assert [line.split()[:3] for line in lines[3:]] == [
        ["e700", "champion", "plain@500"],
        ["e700", "scaled", "scaled@500"],
        ["e700", "predecessor", "plain@0"],
        ["e700", "first", "plain@500"],
    ]
    absence = "no prediction on event 'e9999' is on the log"
    way_out = "an archive may have it (--archive ADDRESS)"
    expected = f"stream-ml: audit reproduce: {absence}; {way_out}\n"
    assert (absent.code, absent.err) == (1, expected)
    assert (many.code, many.json["predictions"], many.json["served"]) == (
        0,
        100,
        {"made_again": 100, "equal": 100},
    )


def test_made_again_under_another_declaration(cli: Cli, decided: Path, tmp_path: Path) -> None:
    """Snapshots learned on other features are refused, counted, and end with exit code 1."""
    (tmp_path / "made_otherwise.py").write_text(
        "from dataclasses import replace\n"
        "import stream_ml as sml\n"
        "from cli_toy import toy\n"
        "toy = replace(toy, features=[sml.field('x')])\n"
    )
    pipeline = ("--pipeline", "made_otherwise:toy")

    ran = cli("audit", "reproduce", "e700", "--broker", f"sqlite:{decided}", *pipeline)

    assert ran.code == 1
    assert "expected feature set" in ran.out
    assert ran.err == (
        "stream-ml: audit reproduce: 0 answers are not what was logged, 4 are of snapshots that "
        "cannot be believed\n"
    )


def test_made_again_without_a_key(cli: Cli, tampered: Tampered) -> None:
    """A snapshot that cannot be checked is not opened, and one is told what to set."""
    tampered.path.with_name("log.sqlite.key").unlink()

    ran = cli("audit", "reproduce", "e1", "--broker", f"sqlite:{tampered.path}", "--pipeline", TOY)

    assert ran.code == 2
    assert ran.err.endswith("given none; set STREAM_ML_KEY\n")


@pytest.mark.parametrize(
    "arguments", [[], ["e1", "--sample", "3"], ["--sample", "0"], ["--sample", "1", "--seed", "x"]]
)
def test_what_to_make_again(cli: Cli, arguments: list[str]) -> None:
    """Either one event or so many at random."""
    assert cli("audit", "reproduce", *arguments).code == 2
