"""The monitors that evaluate hosts: outages, sources of labels, alarms that end by themselves."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

import stream_ml as sml
from stream_ml.monitoring.blocks import Layout, OpenBlocks
from stream_ml.monitoring.diagnosis import causes, moved
from stream_ml.records import Example, Prediction, Record, Source
from stream_ml.signing import Keyring
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.monitor import Monitor
from stream_ml.stages.state import MONITORS
from stream_ml.stages.suspension import Suspension
from stream_ml.summaries import encode_summary
from tests.shop import KEY, shop
from tests.stages.test_evaluate import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output, Summary

HOUR = 3_600_000
FIRST = 1_704_067_200_000  # a Monday
PIPELINE = replace(shop, monitors=sml.Monitors(block="1h"))
LAYOUT = Layout(HOUR, {"amount": True}, ())


def summary(partition: int, hour: int, amounts: Sequence[float | None]) -> Summary:
    """What a partition tells of an hour."""
    blocks = OpenBlocks(LAYOUT, 0)
    for amount in amounts:
        blocks.add(FIRST + hour * HOUR, {"amount": amount}, None, FIRST + hour * HOUR)
    (made,) = blocks.close(2**60, partition)
    return made


def example(hour: int, n: int, answer: float, label: bool, source: str) -> Example:
    """An example whose label was known in an hour, half an hour after its event."""
    ts = FIRST + hour * HOUR + 1_000 * n
    prediction = Prediction(
        f"e{hour}-{n}", "ada", ts - HOUR // 2, Source(0, n), "a@1", 0, answer, False, {}, {}
    )
    return Example(prediction, label, ts, Source(0, n), source, n)


class Watched:
    """A monitor that is fed by the hour, with an alarm at each hour that says something."""

    def __init__(self) -> None:
        self.alarms = Alarms("evaluate")
        self.monitor = Monitor(PIPELINE, self.alarms, in_order=True)
        self.rand = random.Random(7)
        self.said: list[tuple[int, str, str, str]] = []
        self.messages: list[str] = []

    def hour(
        self,
        number: int,
        *,
        partitions: int = 2,
        labels: bool = True,
        wrong: str = "",
        factor: float = 1.0,
        nulls: float = 0.0,
    ) -> None:
        """An hour of 60 events a partition, and of 40 labels of two sources."""
        if labels:
            self.labels(number, wrong)
        outputs: list[Output] = []
        for partition in range(partitions):
            amounts = [factor * self.rand.gauss(50, 9) for _ in range(60)]
            given = [None if n < nulls * 60 else each for n, each in enumerate(amounts)]
            made_of = summary(partition, number, given)
            outputs += self.monitor.summary(made_of, made_of.end)
        self.take(number, outputs)

    def labels(self, number: int, wrong: str = "") -> None:
        """Forty labels of an hour, of two sources."""
        outputs: list[Output] = []
        for n in range(40):
            answer = self.rand.choice((0.1, 0.9))
            label = self.rand.random() < answer
            source = "b" if n % 2 else "a"
            made = example(number, n, answer, label != (source in wrong), source)
            outputs += self.monitor.example(made, made.label_ts, made.label_ts)
        self.take(number, outputs)

    def take(self, number: int, outputs: list[Output]) -> None:
        """What was said in an hour."""
        for output in outputs:
            alert = output.memo
            self.said.append((number, alert.kind, alert.state, alert.subject))
            self.messages.append(alert.message)

    def diagnosis(self) -> list[tuple[str, str, str | None]]:
        """Kind, origin and subject of what lies behind what has moved."""
        state = orjson.loads(orjson.dumps(self.monitor.dump()))
        return [(e.kind, e.origin, e.subject) for e in causes(state, self.alarms.dump())]

    def restart(self) -> None:
        """Write the state down, and take it up with another monitor."""
        state: dict[str, Any] = orjson.loads(orjson.dumps(self.monitor.dump()))
        entries = {name: value for name, value in self.monitor.dirty() if value is not None}
        self.entries = {**getattr(self, "entries", {}), **entries}
        self.monitor = Monitor(PIPELINE, self.alarms, in_order=True)
        self.monitor.load(state, self.entries)


def test_labels_that_stop_are_told_once_and_once_more_when_they_come_again() -> None:
    """Within hours, where labels came each hour; and nothing before, between or after."""
    watched = Watched()
    for number in range(140):
        watched.hour(number, labels=not 100 <= number < 112)
        if number in {99, 104}:
            watched.restart()
        if number == 110:
            assert [("label_outage", "pipeline", None)] == watched.diagnosis()
    assert [] == watched.diagnosis()
    (opened, resolved) = [each for each in watched.said if each[1] == "label_outage"]
    assert ("open", "resolved") == (opened[2], resolved[2])
    assert 101 <= opened[0] <= 106
    assert resolved[0] == 112
    assert [] == [each for each in watched.said if each[1] == "drift"]


def test_a_partition_that_falls_silent_is_told_while_the_others_go_on() -> None:
    """It is named, and the others' blocks are complete without it."""
    watched = Watched()
    for number in range(60):
        watched.hour(number, partitions=1 if 30 <= number < 40 else 2)
        if number == 38:
            assert [("silence", "pipeline", "partition:1")] == watched.diagnosis()
    assert [("open", "partition:1"), ("resolved", "partition:1")] == [
        (state, subject) for _, kind, state, subject in watched.said if kind == "event_outage"
    ]
    assert 31 <= watched.said[0][0] <= 33
    assert watched.said[1][0] == 40


def test_a_source_of_labels_that_contradicts_the_others_is_named() -> None:
    """One of two sources turns its labels round: it is a fault, and no change of the world."""
    watched = Watched()
    for number in range(60):
        watched.hour(number, wrong="b" if 30 <= number < 45 else "")
        if number == 40:
            assert [("label_source", "pipeline", "b")] == watched.diagnosis()
    faults = [each for each in watched.said if each[3].startswith("label_source")]
    assert [("open", "label_source:b"), ("resolved", "label_source:b")] == [
        each[2:] for each in faults
    ]
    assert 33 <= faults[0][0] <= 34


def test_where_all_sources_change_no_source_is_at_fault() -> None:
    """A concept that turns round is told of by all sources alike."""
    watched = Watched()
    for number in range(45):
        watched.hour(number, wrong="ab" if number >= 30 else "")
    assert [] == [each for each in watched.said if each[3].startswith("label_source")]


def test_what_is_over_says_whether_it_is_as_before_or_has_stayed() -> None:
    """Amounts in cents for six hours are as usual again; those that stay are usual in a week."""
    passing, staying = Watched(), Watched()
    for number in range(36 + 170):
        if number < 60:
            passing.hour(number, labels=False, factor=100.0 if 36 <= number < 42 else 1.0)
        staying.hour(number, labels=False, factor=100.0 if number >= 36 else 1.0)
    assert [
        ("open", "resolved", "the field amount is as usual again"),
        (
            "open",
            "resolved",
            "the field amount has been so for a week, which is usual from now on",
        ),
    ] == [(each.said[0][2], each.said[1][2], each.messages[1]) for each in (passing, staying)]


def test_another_unit_is_a_fault_with_its_field_and_a_concept_is_the_world() -> None:
    """What moved is told with its figures; where only the loss has, the concept has."""
    watched = Watched()
    for number in range(40):
        watched.hour(number, factor=100.0 if number >= 36 else 1.0)
    (cause,) = causes(watched.monitor.dump(), watched.alarms.dump())
    assert ("units", "pipeline", "amount") == (cause.kind, cause.origin, cause.subject)
    assert FIRST + 36 * HOUR == cause.since
    assert "100 times as large as usual" in cause.message
    assert ["field:amount"] == [each.column for each in moved(watched.monitor.dump())]

    small = Watched()
    for number in range(40):
        small.hour(number, factor=0.025 if number >= 36 else 1.0)
    (cause,) = causes(small.monitor.dump(), small.alarms.dump())
    assert re.search(r"the field amount is \d\d(\.\d)? times as small as usual", cause.message)

    turned = Watched()
    for number in range(40):
        if number == 36:
            turned.alarms.open("loss_change", "", "as the alarm of the loss says", FIRST, {})
        turned.hour(number, wrong="ab" if number >= 36 else "")
    assert [("concept", "world", None)] == turned.diagnosis()


class Restarts:
    """An evaluate stage with its entries of state, started again under other declarations."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.stage = Evaluate(PIPELINE, Keyring(KEY, {}))
        publisher = Stage(PIPELINE)
        publisher.evaluate = self.stage
        publisher.publish("logistic@0", "bayes@0")

    def start(self, pipeline: Pipeline) -> None:
        """Start again from what is written down."""
        self.save()
        self.stage = Evaluate(pipeline, Keyring(KEY, {}))
        self.stage.restore(sorted(self.entries.items()))

    def save(self) -> None:
        """Write down what has changed; what is told to be gone must be there."""
        for name, value in self.stage.dirty():
            if value is None:
                del self.entries[name]
            else:
                self.entries[name] = value

    def watched(self) -> list[str]:
        """The entries of monitors."""
        return [name for name in self.entries if name.startswith(MONITORS)]

    def tell(self, hour: int, factor: float = 1.0) -> list[tuple[str, str, str]]:
        """Sixty events of an hour; which alerts follow."""
        rand = random.Random(hour)
        made = summary(0, hour, [factor * rand.gauss(50, 9) for _ in range(60)])
        record = Record("summaries", 0, hour, b"0", encode_summary(made), made.end)
        alerts = [o.memo for o in self.stage.apply([record]) if o.topic == "alerts"]
        return [(alert.kind, alert.state, alert.subject) for alert in alerts]


@pytest.mark.parametrize("monitors", [sml.Monitors(block="2h"), None])
def test_monitors_declared_anew_leave_no_alert_open_and_no_state_behind(
    monitors: sml.Monitors | None,
) -> None:
    """What was watched before is resolved with the first records, and never comes back."""
    restarts = Restarts()
    factors = [1.0] * 36 + [100.0] * 4
    said = [each for hour, factor in enumerate(factors) for each in restarts.tell(hour, factor)]
    assert [("data_fault", "open", "field:amount")] == said
    restarts.start(PIPELINE)
    assert [] == restarts.tell(40, 100.0)
    restarts.save()
    assert len(restarts.watched()) > 40

    restarts.start(replace(PIPELINE, monitors=monitors))
    assert [("data_fault", "resolved", "field:amount")] == restarts.tell(41)
    restarts.save()
    assert [] == restarts.watched()
    restarts.start(replace(PIPELINE, monitors=monitors))
    assert [] == restarts.tell(42)
    restarts.start(PIPELINE)
    assert [] == [alert for hour in range(43, 60) for alert in restarts.tell(hour, 100.0)]


def test_what_moves_at_once_is_one_alert_with_all_that_moved_and_ends_in_one() -> None:
    """Two fields in another unit are one record, of which each is a subject."""
    layout = Layout(HOUR, {"amount": True, "age": True}, ())
    alarms = Alarms("evaluate")
    monitor, rand = Monitor(PIPELINE, alarms, in_order=True), random.Random(3)
    said = []
    for hour in range(50):
        factor = 100.0 if 36 <= hour < 42 else 1.0
        blocks, ts = OpenBlocks(layout, 0), FIRST + hour * HOUR
        for _ in range(60):
            row = {name: factor * rand.gauss(50, 9) for name in ("amount", "age")}
            blocks.add(ts, row, None, ts)
        (made,) = blocks.close(2**60, 0)
        said += [output.memo for output in monitor.summary(made, made.end)]
    both = ["field:age", "field:amount"]
    assert [("data_fault", "open", both), ("data_fault", "resolved", both)] == [
        (alert.kind, alert.state, alert.details["subjects"]) for alert in said
    ]
    assert both == sorted(said[0].details["columns"])
    assert said[0].message.startswith("2 columns have moved: the field ")
    assert "the field age, the field amount are as usual again" == said[1].message
    ended = [each["subject"] for each in monitor.dump()["recent"]]
    assert both == sorted(ended)


def test_events_that_stop_in_all_partitions_are_told_while_labels_of_former_ones_come() -> None:
    """Once, after hours, where both came each hour; and once more when events come again."""
    watched = Watched()
    for number in range(130):
        if 100 <= number < 112:
            watched.labels(number)
        else:
            watched.hour(number)
        if number in {99, 104}:
            watched.restart()
        if number == 110:
            assert [("silence", "pipeline", None)] == watched.diagnosis()
    said = [each for each in watched.said if each[1] in {"event_outage", "label_outage"}]
    assert [("event_outage", "open", ""), ("event_outage", "resolved", "")] == [
        each[1:] for each in said
    ]
    assert 102 <= said[0][0] <= 106
    assert said[1][0] == 112


def test_a_fault_that_comes_again_is_told_once_and_pauses_each_time() -> None:
    """Nulls for some hours of two days: one alert, two pauses; a restart within changes nothing."""
    watched = Watched()
    suspension = Suspension("pause", watched.alarms)
    framed = []
    for hour in range(24 * 13):
        is_off = hour // 24 in (9, 11) and 6 <= hour % 24 < 12
        watched.hour(hour, nulls=0.6 if is_off else 0.0)
        if hour == 24 * 11 + 8:
            watched.restart()
        kind = suspension.step(watched.monitor.faults())
        if kind is not None:
            framed.append((hour // 24, kind, suspension.evidence()["cause"]))

    cause = [{"alert": "data_fault", "subject": "field:amount"}]
    assert [(day, kind, cause) for day in (9, 11) for kind in ("suspended", "continued")] == framed
    faults = [(hour // 24, state) for hour, kind, state, _ in watched.said if kind == "data_fault"]
    assert [(9, "open"), (9, "resolved")] == faults
