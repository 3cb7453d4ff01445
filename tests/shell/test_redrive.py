"""`dead-letters redrive`: what a changed declaration can read is published again, each once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import toy

import stream_ml as sml
from stream_ml.codec import encode_command
from stream_ml.errors import UsageError
from stream_ml.records import Command, Output
from stream_ml.shell import redrive
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.redrive import Redrive, RedriveHistory, check_reasons
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.dead_letters import LetterFilter
from stream_ml.stages.command_details import letter_details
from stream_ml.testing import Driver
from stream_ml.topics import partition_of
from tests.shop import EVENT, START_MS, declare, shop, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from conftest import Cli

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Log

KEY = b"testing"
FIELDS = shop.events.fields
WIDER = declare(
    events=replace(shop.events, fields={**FIELDS, "kind": sml.Enum("visit", "order", "return")})
)
ALL = LetterFilter()


def refused(count: int = 6) -> list[dict[str, Any] | bytes]:
    """Events of which some are of a kind that is not declared, one is garbage, one came before."""
    events = [
        {**EVENT, "event_id": f"r{n}", "ts": START_MS + 1_000 + n, "kind": "return"}
        for n in range(count)
    ]
    return [*events, b"{", {**EVENT, "event_id": "twice"}, {**EVENT, "event_id": "twice"}]


def new_redrive(log: Log, pipeline: Pipeline) -> Redrive:
    """Of this declaration, by the operator who has the pipeline's key."""
    history = RedriveHistory(log, pipeline.name, "local", KEY)
    return Redrive(log, pipeline, history, lambda: 2**42)


def commands(log: Log) -> Callable[[], Command]:
    """Makes commands of the pipeline's own operator, one after the other."""
    numbers = iter(range(1_000))
    return lambda: Command(
        f"r-{log.end_offset('commands', 0)}-{next(numbers)}",
        "redrive",
        2**42,
        "local",
        "ana",
        "kinds were added",
        pipeline="shop",
        log=log.identity,
    )


def ids(driver: Driver) -> Counter[str]:
    """How often each event of a kind that came later lies on the log."""
    events = [record.value or b"" for record in driver.records("events")]
    return Counter(orjson.loads(each)["event_id"] for each in events if b'"return"' in each)


def worked() -> Driver:
    """A shop on whose log lie such events, refused."""
    driver = Driver(shop)
    driver.publish("events", refused())
    driver.run()
    return driver


def test_what_a_changed_declaration_reads_is_published_again_once() -> None:
    """It is taken as if it had come now; garbage and copies stay where they are, and are told."""
    with worked() as driver:
        letters = Counter(each["reason"] for each in driver.read("dead-letters"))
        driver.declare(WIDER)
        for _ in range(2):
            again = new_redrive(driver.log, WIDER)
            again.publish(ALL, commands(driver.log), KEY)
        driver.run()
        newest = driver.read("registry")[-1]
        after = Counter(each["reason"] for each in driver.read("dead-letters"))

        assert {"unknown_category": 6, "not_json": 1, "duplicate": 1} == letters == after
        assert dict.fromkeys((f"r{n}" for n in range(6)), 2) == ids(driver)
        assert ({}, 6) == (again.report.published, again.report.former)
        kept = {reason: count for (reason, _), count in again.report.kept.items()}
        assert {"not_json": 1, "duplicate": 1} == kept
        assert ("redriven", "ana", "local") == (
            newest["kind"],
            newest["actor"],
            newest["signed_by"],
        )
        assert letter_details([(0, n) for n in range(6)]) == newest["evidence"]


def test_nothing_is_published_that_the_declaration_cannot_read() -> None:
    """The present declaration judges: under the former one all stays where it is."""
    with worked() as driver:
        again = new_redrive(driver.log, shop)
        again.publish(ALL, commands(driver.log), KEY)

        assert {} == again.report.published
        assert 8 == again.report.kept.total()
        assert [] == driver.records("commands")


class Killed(BaseException):
    """Dies at an instant."""


class Mortal:
    """A log that dies before or after its n-th transaction of a client, or inside of it."""

    def __init__(self, log: Log, where: str, n: int) -> None:
        self._log, self._where, self._left = log, where, n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append_whole(self, writer: str, prepare: Callable[[], Sequence[Output]]) -> None:
        """As the log does, up to the instant."""
        self._left -= 1
        if self._left == 0 and self._where == "before":
            raise Killed

        def dying() -> Sequence[Output]:
            outputs = prepare()
            if self._left == 0 and self._where == "inside":
                self._log.append(outputs[: len(outputs) // 2])
                raise Killed
            return outputs

        self._log.append_whole(writer, dying)
        if self._left == 0 and self._where == "after":
            raise Killed


@pytest.mark.parametrize("where", ["before", "inside", "after"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_whoever_dies_in_between_publishes_nothing_twice_and_loses_nothing(
    where: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run again after a death at any transaction, each record lies there once more, and no more."""
    monkeypatch.setattr(redrive, "LETTERS_MAX", 2)
    with worked() as driver:
        mortal: Any = Mortal(driver.log, where, n)
        with pytest.raises(Killed):
            new_redrive(mortal, WIDER).publish(ALL, commands(driver.log), KEY)
        new_redrive(driver.log, WIDER).publish(ALL, commands(driver.log), KEY)

        assert dict.fromkeys((f"r{n}" for n in range(6)), 2) == ids(driver)


def test_two_who_redrive_at_once_publish_each_record_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one has published between the other's look and act, the other leaves out."""
    monkeypatch.setattr(redrive, "LETTERS_MAX", 2)
    with worked() as driver:
        first, second = (new_redrive(driver.log, WIDER) for _ in range(2))
        new_command = commands(driver.log)

        def between() -> Command:
            second.publish(ALL, commands(driver.log), KEY)
            return new_command()

        first.publish(ALL, between, KEY)

        assert dict.fromkeys((f"r{n}" for n in range(6)), 2) == ids(driver)
        assert (0, 6) == (first.report.published.total(), first.report.former)


def test_a_forged_command_keeps_no_record_from_being_published() -> None:
    """Who says that a record was redriven, and has not our key, is not believed.

    Nor does a partition's number that is none end the reading of it.
    """
    with worked() as driver:
        command = replace(commands(driver.log)(), details=letter_details([(0, 0), (0, 1)]))
        endless = replace(command, details={"letters": {"0" * 5_000: [[0, 9]]}}, operator="eve")
        others = [encode_command(endless, b"another key"), b'"redrive"']
        driver.publish("commands", [encode_command(command, b"another key"), *others])
        again = new_redrive(driver.log, WIDER)
        again.preview(ALL)
        driver.publish("commands", [encode_command(command, KEY)])
        later = new_redrive(driver.log, WIDER)
        later.preview(ALL)

        assert {"events": 6} == again.report.published
        assert {"events": 4} == later.report.published


@pytest.mark.parametrize("is_read", [True, False])
def test_what_would_be_too_late_now_is_named_and_not_published(is_read: bool) -> None:
    """Nothing of it is refused again or lost, whether a stage has read what made it late or not."""
    later_ms = START_MS + 86_400_000
    late = [{**EVENT, "event_id": f"v{n}", "shop": f"k{n}", "ts": later_ms} for n in range(20)]
    fresh = [{**late[0], "event_id": f"r{n}", "kind": "return"} for n in (7, 8)]
    with worked() as driver:
        driver.publish("events", [*fresh, *late])
        if is_read:
            driver.run()
        again = new_redrive(driver.log, WIDER)
        again.publish(ALL, commands(driver.log), KEY)
        driver.declare(WIDER)
        driver.run()
        after = Counter(each["reason"] for each in driver.read("dead-letters"))

    assert ({"events": 2} if is_read else {}) == again.report.published
    assert 6 == again.report.kept["unknown_category", redrive.TOO_LATE]
    assert later_ms - START_MS - 1_000 - WIDER.lateness_ms == again.report.excess_ms
    assert 0 == after["too_late"]


@pytest.mark.parametrize("deed", ["repeat", "stray", "neither"])
def test_what_leads_no_watermark_makes_nothing_too_late(
    deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that came shortly before, or a record that is sent on, though no stage has read it."""
    monkeypatch.setattr(SqliteLog, "forwards_strays", deed == "stray")
    count = 3 if deed == "stray" else 1
    key = EVENT["shop"].encode()
    home = partition_of(key, count)
    away = next(
        each for each in "bcdefgh" if partition_of(each.encode(), count) != home or count < 2
    )
    later = {**EVENT, "ts": START_MS + 86_400_000, "event_id": "once"}
    later |= {"repeat": {"event_id": "twice"}, "stray": {"shop": away}}.get(deed, {})
    with Driver(shop, partitions=count) as driver:
        driver.publish("events", refused())
        driver.run()
        [record] = driver.log.append([Output("events", key, orjson.dumps(later))])
        again = new_redrive(driver.log, WIDER)
        again.preview(ALL)

        assert home == record.partition
        assert ({} if deed == "neither" else {"events": 6}) == again.report.published


def test_a_longer_lateness_does_not_promise_what_a_stage_refuses() -> None:
    """What was too late when it was declared still is: ids and windows go back no further."""
    longer = replace(WIDER, events=replace(WIDER.events, lateness="2d"))
    late = [
        {**EVENT, "event_id": f"v{n}", "shop": f"k{n}", "ts": START_MS + 86_400_000}
        for n in range(20)
    ]
    with worked() as driver:
        driver.publish("events", late)
        driver.run()
        driver.declare(longer)
        driver.run()
        again = new_redrive(driver.log, longer)
        again.preview(ALL)

        assert ({}, 6) == (
            again.report.published,
            again.report.kept["unknown_category", redrive.TOO_LATE],
        )


@pytest.mark.parametrize("source", [None, "bot"])
def test_a_label_whose_horizon_is_over_is_kept(source: str | None) -> None:
    """By the watermark of the labels, which those of excluded sources do not lead."""
    declared = declare(label=replace(shop.label, sources={"bot": 0}))
    events, labels = stream(count=2_000)
    (missing, *rest) = (each for each in events if each["kind"] == "visit")
    label = next(each for each in labels if each["event_id"] == missing["event_id"])
    over = [{**each, "ts": each["ts"] + 10 * shop.horizon_ms} for each in labels[-50:]]
    if source is not None:
        over = [{**each, "source": source} for each in over]
    by_name = LetterFilter(frozenset({"orphan"}))
    with Driver(declared) as driver:
        driver.publish("labels", [label])
        driver.publish("events", rest)
        driver.run()
        driver.publish("events", [{**rest[-1], "event_id": "x", "ts": START_MS + 86_400_000}])
        driver.publish("labels", over)
        again = new_redrive(driver.log, declared)
        again.preview(by_name)

    kept = {objection for reason, objection in again.report.kept if reason == "orphan"}
    expected = ({}, {redrive.TOO_LATE}) if source is None else ({"labels": 1}, set())
    assert expected == (again.report.published, kept)


@pytest.mark.parametrize("details", [None, {}, {"letters": []}, {"letters": {"x": [[1, 2]]}},
    {"letters": {"0": [[2, 1]]}}, {"letters": {"0": [1]}}])  # fmt: skip
def test_a_redrive_that_names_no_letters_is_refused(details: Any) -> None:
    """It is answered, with what was expected."""
    with Driver(shop) as driver:
        driver.command("redrive", details=details)
        driver.run()
        newest = driver.read("registry")[-1]
        assert ("refused", True) == (newest["kind"], "expected" in newest["reason"])


def test_a_label_without_a_prediction_is_published_again_only_by_name() -> None:
    """Once its event has come the label may be joined: a person says when."""
    events, labels = stream(count=2_000)
    with Driver(shop) as driver:
        # The first event that is asked about is missing; its label becomes an orphan.
        (missing, *rest) = (each for each in events if each["kind"] == "visit")
        label = next(each for each in labels if each["event_id"] == missing["event_id"])
        driver.publish("labels", [label])
        driver.publish("events", rest)
        driver.run()
        silent, by_name = (new_redrive(driver.log, shop) for _ in range(2))
        silent.preview(ALL)
        by_name.preview(LetterFilter(frozenset({"orphan"})))

        assert {"orphan"} == {each["reason"] for each in driver.read("dead-letters")}
        assert ({}, {"labels": 1}) == (silent.report.published, by_name.report.published)


def test_reasons_that_no_declaration_helps_are_refused_with_why() -> None:
    """Asked for by name they are wrong usage."""
    with pytest.raises(UsageError, match="further past now"):
        check_reasons(frozenset({"not_json", "too_late"}))


def coloured(*colours: str) -> Pipeline:
    """The toy, with a colour beside."""
    fields = {**toy.events.fields, "colour": sml.Enum(*colours)}
    return replace(toy, events=replace(toy.events, fields=fields))


narrow, wide = coloured("red"), coloured("red", "blue")
wider = coloured("red", "blue", "green")


def test_the_command_line_tells_what_it_would_do_and_what_it_did(cli: Cli, tmp_path: Path) -> None:
    """A dry run publishes nothing; a run is told, to machines as well, and is not done again."""
    path = tmp_path / "log.sqlite"
    values = [
        {"event_id": f"e{n}", "ts": START_MS + n, "user": "u", "x": 1.0, "colour": colour}
        for n, colour in enumerate(["red", "blue", "blue"])
    ]
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, narrow, key) as runner:
        log.append([output_of(toy, "events", value) for value in values])
        runner.run()
    command = ("dead-letters", "redrive", "--broker", f"sqlite:{path}", "--format", "json")
    as_wide = ("--pipeline", f"{__name__}:wide")

    ran = [
        cli(*command, *as_wide, "--dry-run").json,
        cli(*command, "--pipeline", f"{__name__}:narrow").json,
        cli(*command, *as_wide, "--actor", "ana", "--note", "blue is a colour").json,
        cli(*command, *as_wide).json,
    ]
    with SqliteLog.open(path) as log, Runner(log, wide, key) as runner:
        runner.run()
    text = cli("audit", "log", "--broker", f"sqlite:{path}").out
    wrong = cli(*command, *as_wide, "--reason", "duplicate")

    hour_later = {**values[0], "event_id": "e9", "ts": START_MS + 3_600_000}
    with SqliteLog.open(path) as log:
        log.append([output_of(toy, "events", {**values[1], "event_id": "e8", "colour": "green"})])
        log.append([output_of(toy, "events", hour_later)])
        with Runner(log, wide, key) as runner:
            runner.run()
    too_late = cli(*command[:-2], "--pipeline", f"{__name__}:wider", "--dry-run").out

    assert [{"events": 2}, {}, {"events": 2}, {}] == [each["published"] for each in ran]
    assert "left alone: 1 unknown_category: it would be too late now" in too_late
    assert "are up to 60m behind" in too_late
    assert 'another name with lateness="60m" takes all events' in too_late
    assert [0, 0, 0, 2] == [each["published_before"] for each in ran]
    assert [0, 0, 1, 0] == [len(each["commands"]) for each in ran]
    assert ("redriven" in text, "blue is a colour" in text) == (True, True)
    assert 3 == len(cli("predictions", "--broker", f"sqlite:{path}").out.splitlines()[-3:])
    assert (2, True) == (wrong.code, "the first counts" in wrong.err)


def test_an_alert_about_what_was_refused_is_told_of_with_its_end(cli: Cli, tmp_path: Path) -> None:
    """Publishing again ends none: it is said what does, where one is open."""
    path = tmp_path / "log.sqlite"
    values = [
        {"event_id": f"e{n}", "ts": START_MS + n, "user": "u", "x": 1.0, "colour": "blue"}
        for n in range(80)
    ]
    key = Settings().signing_key(str(path))
    command = ("dead-letters", "redrive", "--broker", f"sqlite:{path}", "--dry-run")
    with SqliteLog.create(path) as log, Runner(log, narrow, key) as runner:
        log.append([output_of(toy, "events", value) for value in values[:20]])
        runner.run()
        few = cli(*command, "--pipeline", f"{__name__}:wide").out
        log.append([output_of(toy, "events", value) for value in values[20:]])
        runner.run()
    much = cli(*command, "--pipeline", f"{__name__}:wide").out

    assert "the alert" not in few
    assert "the alert poison_rate about events refused as unknown_category is of what was" in much
    assert "when 3 blocks of 1,000 events in a row have had little of it" in much
