"""`trace`: an event's way is told as it lies on the log, and where it ended, and why."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from cli_toy import stream, toy

from stream_ml import __version__
from stream_ml.codec import decode_example, decode_prediction
from stream_ml.models.envelope import decode
from stream_ml.records import Output, line_of
from stream_ml.sealing import strip_seal
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.registry import entries
from stream_ml.shell.views.spans import otlp_spans
from stream_ml.shell.views.trace import trace
from stream_ml.testing import Driver
from tests.scenarios.test_delayed_clicks import START_MS, WINDOW_MS, clicks
from tests.straight import append_straight

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

EVENTS, LABELS = stream(2_500)


def keyed(log: SqliteLog, topic: str, event_id: str) -> list:
    """The records of a topic with an event's id as their key, looked for one by one."""
    return [record for record in read_all(log, topic) if record.key == event_id.encode()]


@pytest.mark.parametrize("number", [0, 499, 500, 501, 1_234, 2_489])
def test_each_step_is_where_it_lies(worked: Path, number: int) -> None:
    """Event, prediction, label, example, snapshots and decisions, as a search of all finds."""
    event_id = f"e{number}"
    with SqliteLog.open(worked) as log:
        found = trace(log, None, event_id)
        (prediction_record,) = keyed(log, "predictions", event_id)
        (example_record,) = keyed(log, "examples", event_id)
        (label_record,) = keyed(log, "labels", event_id)
        snapshots = [
            (record.offset, decode(strip_seal(record.value)))
            for record in read_all(log, "models")
            if record.value is not None
        ]
        decisions = [entry.decision for entry in entries(log, None)]
    prediction = decode_prediction(strip_seal(prediction_record.value))
    example = decode_example(strip_seal(example_record.value))
    offset = example_record.offset
    first: dict[str, int] = {}
    for place, snapshot in snapshots:
        if snapshot.examples["last"] >= offset:
            first.setdefault(snapshot.name, place)
    counting = [d for d in decisions if d.inputs.get("examples", 0) > offset]

    assert found.predicted is not None
    assert found.joined is not None
    assert [(0, prediction.source.offset, EVENTS[number]["ts"], True)] == [
        (each.partition, each.offset, each.ts, each.is_read) for each in found.events
    ]
    assert (prediction_record.offset, prediction.model, prediction.prediction) == (
        found.predicted.offset,
        found.predicted.model,
        found.predicted.prediction,
    )
    assert prediction.features == found.predicted.features
    assert prediction_record.append_ms - found.events[0].append_ms == found.predicted.latency_ms
    assert [label_record.offset] == [each.offset for each in found.labels]
    assert (offset, example.label, 10_000) == (
        found.joined.offset,
        found.joined.label,
        found.joined.delay_ms,
    )
    assert first == {step.line: step.offset for step in found.learned}
    by_part = {each.part: each.number for each in found.decisions}
    assert counting[:1] == [d for d in decisions if d.number == by_part.get("counted")]
    served = [
        d.number
        for d in counting
        for line in [line_of(d.serving.champion.model)]
        if line in first and d.serving.champion.offset >= first[line]
    ]
    assert served[:1] == [n for part, n in by_part.items() if part == "served"]
    assert ("learned" if first else "no snapshot that has learned it is on the log yet") == (
        found.ended or "learned"
    )
    assert (True, ()) == (found.is_found, found.letters)


def test_shadows_have_what_they_said(worked: Path) -> None:
    """Their answers come from `answers`, where they were made once the label was there."""
    with SqliteLog.open(worked) as log:
        found = trace(log, None, "e1500").predicted
        said = [
            orjson.loads(record.value or b"")["shadows"]
            for record in keyed(log, "answers", "e1500")
        ]

    assert found is not None
    assert all(shadow.offset is None for shadow in found.shadows.values())
    (answers,) = said
    assert (
        answers.items()
        <= {
            slot: {"model": shadow.model, "prediction": shadow.prediction}
            for slot, shadow in found.shadows.items()
        }.items()
    )
    assert answers


def on_a_log(path: Path, published: list[Output], later: list[Output] = []) -> str:  # noqa: B006
    """A log on which a worker has done what is published, and has not seen what came later."""
    key = Settings().signing_key(str(path))
    with SqliteLog.open_or_create(path) as log:
        log.append(published)
        with Runner(log, toy, key) as runner:
            runner.run()
        log.append(later)
    return f"sqlite:{path}"


def event(number: int, **members: object) -> Output:
    """The toy's event of this number, with other members."""
    value = orjson.dumps({**EVENTS[number], **members})
    return Output("events", EVENTS[number]["user"].encode(), value)


def label(number: int, **members: object) -> Output:
    """Its label."""
    value = {**LABELS[number], **members}
    return Output("labels", value["event_id"].encode(), orjson.dumps(value))


def test_a_way_is_told_in_spans_of_opentelemetry(cli: Cli, worked: Path) -> None:
    """One trace with an id of the event's own: a span a step, from its input to its output."""
    command = ("trace", "e50", "--broker", f"sqlite:{worked}")
    documents = [cli(*command, "--spans").json for _ in range(2)]
    with SqliteLog.open(worked) as log:
        found = trace(log, None, "e50")
        identity = log.identity
    (resource,) = documents[0]["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    spans = {span["name"]: span for span in scope["spans"]}
    root = spans.pop("event")
    assert found.predicted is not None
    assert found.joined is not None

    assert documents[0] == documents[1]
    assert documents[0] != otlp_spans(found, "toy", "another log", __version__)
    assert documents[0] == otlp_spans(found, "toy", identity, __version__)
    assert {"service.name": "stream_ml", "stream_ml.pipeline": "toy"} == {
        each["key"]: each["value"]["stringValue"] for each in resource["resource"]["attributes"]
    }
    lines = [f"learn {step.line}" for step in found.learned]
    assert {"publish event", "publish label", "predict", "join", *lines} <= set(spans)
    assert {(root["traceId"], root["spanId"])} == {
        (span["traceId"], span["parentSpanId"]) for span in spans.values()
    }
    assert "parentSpanId" not in root
    ids = [root["traceId"] + root["spanId"], *(s["traceId"] + s["spanId"] for s in spans.values())]
    assert len(ids) == len({each for each in ids if re.fullmatch(r"[0-9a-f]{48}", each)})
    nanoseconds = [
        (int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])) for span in spans.values()
    ]
    assert all(start <= end for start, end in nanoseconds)
    assert (min(s for s, _ in nanoseconds), max(e for _, e in nanoseconds)) == (
        int(root["startTimeUnixNano"]),
        int(root["endTimeUnixNano"]),
    )
    assert (found.events[0].append_ms * 1_000_000, found.predicted.append_ms) == (
        int(spans["predict"]["startTimeUnixNano"]),
        int(spans["predict"]["endTimeUnixNano"]) // 1_000_000,
    )
    assert {
        "key": "stream_ml.model",
        "value": {"stringValue": found.predicted.model},
    } in spans["predict"]["attributes"]


def test_a_copy_that_was_refused_is_no_failure_of_what_was_used(cli: Cli, tmp_path: Path) -> None:
    """Whoever sends an event or its label again, and worse, finds the refusals at their spans."""
    copies = [event(3, x="high"), label(3, label="no")]
    broker = on_a_log(tmp_path / "log.sqlite", [event(3), label(3), *copies])
    (resource,) = cli("trace", "e3", "--broker", broker, "--spans").json["resourceSpans"]
    statuses = {s["name"]: s["status"] for s in resource["scopeSpans"][0]["spans"]}

    assert {} == statuses["event"]
    assert 2 == statuses["predict refuses"]["code"] == statuses["join refuses"]["code"]


def test_what_came_no_further_says_why(cli: Cli, tmp_path: Path) -> None:
    """Refused, not read yet, not labelled yet, labelled too far away, without an event: why."""
    late = 3_600_000 + EVENTS[3]["ts"] + 10_000_000
    broker = on_a_log(
        tmp_path / "log.sqlite",
        [
            *(event(n) for n in range(4)),
            event(4, x="high"),
            label(1, label="no"),
            label(2),
            label(3, ts=late),
            label(6, event_id="nobody"),
        ],
        [event(5), label(0), label(7, event_id="nobody-yet")],
    )

    def ended(number: int | str) -> str:
        event_id = f"e{number}" if isinstance(number, int) else number
        found = cli("trace", event_id, "--broker", broker, "--format", "json")
        assert 0 == found.code
        return str(found.json["ended"])

    assert "join has not read its label yet" == ended(0)
    assert ended(1).startswith("refused by join: ")
    assert "no snapshot that has learned it is on the log yet" == ended(2)
    assert ended(3).startswith(
        "its label was not joined: its time is 3 h 46 min after the event's. "
    )
    assert "no event of this id is on the log; its label waits for one" == ended("nobody")
    assert "no event of this id is on the log, and join has not read its label yet" == (
        ended("nobody-yet")
    )
    assert ended(4).startswith("refused by predict: ")
    assert "$.x" in ended(4)
    assert "predict has not read it yet" == ended(5)
    (resource,) = cli("trace", "e4", "--broker", broker, "--spans").json["resourceSpans"]
    statuses = {s["name"]: s["status"] for s in resource["scopeSpans"][0]["spans"]}
    assert 2 == statuses["event"]["code"] == statuses["predict refuses"]["code"]
    assert "$.x" in statuses["event"]["message"]
    text = cli("trace", "e4", "--broker", broker).out
    assert "refused by predict  events-0 4" in text
    assert "so far: refused by predict: " in text


def test_members_are_called_as_they_are_declared(tmp_path: Path) -> None:
    """An event whose id and time have names of their own is found, also before it is predicted."""
    declared = replace(toy, events=replace(toy.events, id="order", time="at"))
    members = {"event_id": "order", "ts": "at"}
    renamed = [{members.get(n, n): v for n, v in EVENTS[i].items()} for i in range(3)]
    first, second, decoy = (
        Output("events", each["user"].encode(), orjson.dumps(each)) for each in renamed
    )
    decoy.value = orjson.dumps({**renamed[2], "user": "e1"})
    with SqliteLog.create(tmp_path / "log.sqlite") as log:
        log.append([first])
        with Runner(log, declared, b"key") as runner:
            runner.run()
        log.append([second, decoy])
        told = [
            [(step.offset, step.ts) for step in trace(log, b"key", each, declared=events).events]
            for events in (declared.events, None)
            for each in ("e0", "e1")
        ]

    times = [event["at"] for event in renamed]
    assert [(0, times[0])] == told[0]
    assert [(1, times[1])] == told[1]
    assert [[(0, None)], [(1, None), (2, None)]] == told[2:]


def test_a_record_that_is_no_json_is_found_by_the_id_in_it(cli: Cli, tmp_path: Path) -> None:
    """Its dead letter keeps the bytes, so it is told though no event of the id can be read."""
    broken = Output("events", b"u1", b'{"event_id": "lost-1", "ts": ')
    broker = on_a_log(tmp_path / "log.sqlite", [event(0), broken])

    found = cli("trace", "lost-1", "--broker", broker, "--format", "json").json

    assert [] == found["events"]
    assert ["not_json"] == [each["reason"] for each in found["dead_letters"]]
    assert found["ended"].startswith("refused by predict: not_json at $: ")


def test_what_is_not_there_is_said_with_an_exit_code(cli: Cli, worked: Path) -> None:
    """Also where it lies before the time from which on it is looked for."""
    missing = cli("trace", "nobody", "--broker", f"sqlite:{worked}")
    before = cli("trace", "e7", "--broker", f"sqlite:{worked}", "--since", "2100")

    assert (1, "") == (missing.code, missing.out)
    assert missing.err.startswith("stream-ml: trace: nothing with the id 'nobody' is on the log: ")
    assert 1 == before.code
    assert "is on the log since 2100-01-01 00:00:00Z: " in before.err


def test_another_events_records_are_not_told(cli: Cli, worked: Path) -> None:
    """An id that begins as another one is another one."""
    found = cli("trace", "e12", "--broker", f"sqlite:{worked}", "--format", "json").json

    assert EVENTS[12]["ts"] == found["predicted"]["ts"]
    assert [EVENTS[12]["ts"]] == [each["ts"] for each in found["events"]]


def test_a_forged_prediction_is_not_told(tmp_path: Path) -> None:
    """With the key, what is not sealed with it counts for nothing; without one it is believed."""
    path = tmp_path / "log.sqlite"
    on_a_log(path, [event(0)])
    with SqliteLog.open(path) as log:
        (ours,) = keyed(log, "predictions", "e0")
        value = strip_seal(ours.value).replace(b'"e0"', b'"ghost"')
        append_straight(log, [Output("predictions", b"ghost", value)])
        key = Settings().signing_key(str(path))
        told = [trace(log, each, "ghost").is_found for each in (key, None)]

    assert [False, True] == told


def test_silence_that_a_click_has_corrected_is_told_with_the_click() -> None:
    """What was joined was silence; what stands is the label that came after it."""
    with Driver(clicks) as driver:
        body = {"user": "u", "x": 0.0}
        events = [{"event_id": f"e{n}", "ts": START_MS + n, **body} for n in range(3)]
        late = [
            {"event_id": name, "ts": START_MS + WINDOW_MS + wait, "label": True}
            for name, wait in (("n", 1_000), ("e0", 2_000))
        ]
        for topic, records in (("events", events), ("labels", late)):
            driver.publish(topic, records)
            driver.run()
        found = [trace(driver.log, None, name).joined for name in ("e0", "e1")]

    assert [(False, True, True), (False, True, None)] == [
        (each.label, each.implicit, each.last_label) for each in found if each is not None
    ]
