"""The server beside a worker on the embedded log, by real requests to real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks, openapi

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shell"))
from cli_toy import APART, START_MS, TOY, outputs, stream, toy
from processes import Terminal

from stream_ml.cli.main import main
from stream_ml.codec import decode_prediction, encode_command
from stream_ml.errors import BadRecord, NotAcknowledged
from stream_ml.records import Command, Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.dead_letters import LATE_EVENTS, letters_in
from stream_ml.web import predictor
from stream_ml.web.access import Access
from stream_ml.web.gate import Limits
from stream_ml.web.log_threads import _outcomes
from stream_ml.web.pace import PredictPace
from stream_ml.web.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

READER, SHOP, ANA = "r" * 40, "s" * 40, "a" * 40
TOKENS = "\n".join(
    f'[tokens.{name}]\ntoken = "{token}"\nroles = {json.dumps(roles)}'
    for name, token, roles in (
        ("reader", READER, ["read"]),
        ("shop", SHOP, ["read", "publish"]),
        ("ana", ANA, ["read", "operate"]),
    )
)
# Examples that are there from the start: two refreshes, so that decisions have a history.
FIRST = 1_100
DEADLINE_S = 60.0
# Events of a test come after those of the ones before, whatever their order.
_numbers = count(1)


class World:
    """A log with a worker at work on it, and a server beside it.

    Args:
        folder: where all of it lies.
        options: of the server.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.path = folder / "log.sqlite"
        self._common = {"STREAM_ML_BROKER": f"sqlite:{self.path}", "STREAM_ML_PIPELINE": APART}
        with SqliteLog.create(self.path) as log:
            log.append(outputs(FIRST))
            key = Settings(broker=f"sqlite:{self.path}").signing_key(str(self.path))
            with Runner(log, toy, key) as runner:
                runner.run()
        tokens = folder / "tokens.toml"
        tokens.write_text(TOKENS)
        tokens.chmod(0o600)
        self.server = self.serve("--metrics", "0", "--tokens", str(tokens), *options)
        self.worker = self.work()
        self.metrics: str = json.loads(self.server.line())["address"]
        self.address: str = json.loads(self.server.line())["address"]

    def serve(self, *options: str) -> Terminal:
        """A server on this log."""
        common = ("--port", "0", "--format", "json")
        return Terminal("serve", *common, *options, folder=self.folder, **self._common)

    def work(self) -> Terminal:
        """A worker, which has worked through what is there."""
        worker = Terminal("up", "--format", "json", folder=self.folder, **self._common)
        worker.line()
        return worker

    def close(self) -> None:
        """End both, however they are."""
        for terminal in (self.server, self.worker):
            terminal.__exit__(None, None, None)

    def http(self, token: str = SHOP) -> httpx.Client:
        """A client with a token."""
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=DEADLINE_S)

    @contextmanager
    def log(self) -> Iterator[SqliteLog]:
        """The log itself."""
        with SqliteLog.open(self.path) as log:
            yield log

    def events_with(self, event_id: str) -> int:
        """How many events lie there under an id."""
        count = 0
        with self.log() as log:
            for record in read_all(log, "events"):
                # Others have put there what is no event.
                with suppress(BadRecord):
                    count += toy.event_codec.decode(record.value).event_id == event_id
        return count


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that tests share; each brings events of its own."""
    world = World(tmp_path_factory.mktemp("world"), "--predict-seconds", "30")
    try:
        yield world
    finally:
        world.close()


def fresh_event(**members: Any) -> dict[str, Any]:
    """An event after all that were before."""
    number = next(_numbers)
    return {
        "event_id": f"h{number}",
        "ts": START_MS + 1_000 * (FIRST + 10 + number),
        "user": f"u{number % 7}",
        "x": round(0.1 * (number % 9), 3),
        **members,
    }


# --- predictions ------------------------------------------------------------------------------


def test_an_event_is_answered_with_the_prediction_on_the_log(world: World) -> None:
    """What a caller gets is what the log has, member by member, and where the event lies."""
    event = fresh_event()

    with world.http() as http:
        answer = http.post("/v1/predict", json=event)
        found = http.get(f"/v1/predictions/{event['event_id']}")
    with world.log() as log:
        [record] = [
            r for r in read_all(log, "predictions") if r.key == answer.json()["event_id"].encode()
        ]
    prediction = decode_prediction(record.value)

    assert 200 == answer.status_code
    assert {
        "event_id": event["event_id"],
        "key": event["user"],
        "ts": event["ts"],
        "prediction": prediction.prediction,
        "fallback": False,
        "model": prediction.model,
        "event": {"partition": prediction.source.partition, "offset": prediction.source.offset},
    } == answer.json()
    assert prediction.features == found.json()["features"]
    assert prediction.prediction == found.json()["prediction"]


def test_an_id_gets_one_prediction_however_often_and_at_once_it_is_asked(world: World) -> None:
    """Twenty requests at once and one later share one event and one answer."""
    event = fresh_event()

    with world.http() as http, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/predict", json=event), range(20)))
        answers.append(http.post("/v1/predict", json=event))

    assert [200] * 21 == [answer.status_code for answer in answers]
    assert 1 == len({answer.json()["prediction"] for answer in answers})
    assert 1 == world.events_with(event["event_id"])


def test_an_event_that_others_have_published_gets_its_first_prediction(world: World) -> None:
    """An id that lies on the log since before the server began is answered from there."""
    with world.http() as http:
        answer = http.post("/v1/predict", json=stream(FIRST)[0][5])
    with world.log() as log:
        first = next(
            decode_prediction(r.value) for r in read_all(log, "predictions") if r.key == b"e5"
        )

    assert (200, first.prediction) == (answer.status_code, answer.json()["prediction"])


def test_an_id_that_is_long_gone_is_answered_from_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only the worker knows that an event came before, its first prediction is looked for."""
    monkeypatch.setattr(predictor, "HISTORY", 0)
    event = fresh_event()

    async def ask() -> Any:
        where = Settings(broker=f"sqlite:{world.path}")
        service = Service(where, toy, Access(), Limits(predict_s=DEADLINE_S))
        service.start()
        try:
            return await service.predictor.predict(json.dumps(event).encode())
        finally:
            service.close()

    with world.http() as http:
        first = http.post("/v1/predict", json=event).json()["prediction"]
    again = asyncio.run(ask())

    assert first == again.prediction.prediction
    # It had to be published to be known for what it is.
    assert 2 == world.events_with(event["event_id"])


def test_an_id_that_another_event_has_is_a_conflict(world: World) -> None:
    """One event's prediction is never given for another one."""
    event = fresh_event()

    with world.http() as http:
        http.post("/v1/predict", json=event)
        answers = [
            http.post("/v1/predict", json=event | {"ts": event["ts"] + 1}),
            http.post("/v1/predict", json=event | {"user": "another"}),
            http.post("/v1/predict", json=event | {"x": event["x"] + 1}),
        ]

    assert [(409, "id_in_use")] * 3 == [(a.status_code, a.json()["reason"]) for a in answers]


BAD_EVENTS = [
    b"",
    b"[]",
    b'{"event_id": "b1"',
    b'{"event_id":"b1","event_id":"b2","ts":1,"user":"u","x":1}',
    b'{"event_id":"b1","ts":1,"user":"u","x":"high"}',
    b'{"event_id":"b1","ts":1,"user":"u","x":null}',
    b'{"event_id":"b1","ts":1,"user":"u"}',
    b'{"event_id":"b1","ts":-1,"user":"u","x":1}',
    b'{"event_id":"b1","ts":1.5,"user":"u","x":1}',
    b'{"event_id":"","ts":1,"user":"u","x":1}',
    b'{"event_id":"b1","ts":1,"user":7,"x":1}',
    b'{"event_id":"b1","ts":1,"user":"u","x":1e400}',
    b"\xff\xfe",
    # Too late, and from the future: only the worker knows.
    b'{"event_id":"b1","ts":1,"user":"u","x":1}',
    b'{"event_id":"b1","ts":9000000000000000,"user":"u","x":1}',
]


def test_bad_events_are_refused_as_their_dead_letters_would_say(world: World) -> None:
    """Reason, path and words of a 422 are those that the pipeline itself has for such an event."""
    with world.http() as http:
        answers = [http.post("/v1/predict", content=value) for value in BAD_EVENTS]
    with world.log() as log:
        records = log.append([Output("events", b"u", value) for value in BAD_EVENTS])
        offsets = [record.offset for record in records]
        by_offset: dict[int, Any] = {}
        while not by_offset.keys() >= set(offsets):
            by_offset = {
                view.letter.offset: view.letter
                for topic in ("dead-letters", LATE_EVENTS)
                for view in letters_in(read_all(log, topic))
            }
    letters = [by_offset[offset] for offset in offsets]

    assert [422] * len(BAD_EVENTS) == [answer.status_code for answer in answers]
    assert [(letter.reason, letter.path) for letter in letters] == [
        (answer.json()["reason"], answer.json()["path"]) for answer in answers
    ]
    # That of the last one names when it arrived.
    assert [letter.message for letter in letters[:-1]] == [a.json()["detail"] for a in answers[:-1]]


def test_a_batch_answers_each_as_if_it_had_come_alone(world: World) -> None:
    """Good and bad events of one request are answered in their order, each with its status."""
    events = [fresh_event() for _ in range(30)]
    events[7]["x"] = "high"

    with world.http() as http:
        batch = http.post("/v1/predict/batch", json={"events": events}).json()["results"]
        alone = [http.post("/v1/predict", json=event).json() for event in events]

    assert [422 if n == 7 else 200 for n in range(30)] == [result["status"] for result in batch]
    assert [result.get("prediction") for result in batch] == [a.get("prediction") for a in alone]
    assert ("wrong_type", "$.x") == (batch[7]["reason"], batch[7]["path"])


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/v1/predict/batch", b"[]", "not_json"),
        ("/v1/predict/batch", b'{"events": []}', "too_many"),
        ("/v1/predict/batch", b'{"events": [' + b"1," * 500 + b"1]}", "too_many"),
        ("/v1/labels/batch", b'{"events": []}', "not_json"),
        ("/v1/labels/batch", b"\xff", "not_json"),
    ],
)
def test_a_batch_that_is_none_is_refused(world: World, path: str, body: bytes, reason: str) -> None:
    """A request whose body is no list of so many is refused as a whole."""
    with world.http() as http:
        answer = http.post(path, content=body)

    assert (422, reason) == (answer.status_code, answer.json()["reason"])


def test_an_event_that_came_too_late_is_refused_from_its_own_topic(world: World) -> None:
    """Where late events have a topic, whoever sent one is told so, as by a dead letter."""
    late = fresh_event(ts=START_MS)

    with world.http() as http:
        before = http.post("/v1/predict", json=fresh_event())
        answer = http.post("/v1/predict", json=late)
    with world.log() as log:
        *_, letter = letters_in(read_all(log, "late-events"))

    assert 200 == before.status_code
    assert (422, "too_late") == (answer.status_code, answer.json()["reason"])
    assert answer.json()["event"]["offset"] == letter.letter.offset


def test_labels_are_on_the_log_when_they_are_answered(world: World) -> None:
    """A label lies where the answer says, byte for byte; a bad one is refused."""
    label = b'{"event_id": "h0",  "ts": 1700001500000, "label": true}'

    with world.http() as http:
        answer = http.post("/v1/labels", content=label)
        batch = http.post("/v1/labels/batch", content=b'{"labels": [' + label + b', {"ts": 1}]}')
    with world.log() as log:
        [record] = log.read("labels", 0, answer.json()["label"]["offset"], 1)

    assert (202, label) == (answer.status_code, record.value)
    assert [202, 422] == [result["status"] for result in batch.json()["results"]]
    assert "$.event_id" == batch.json()["results"][1]["path"]


def test_what_others_put_among_predictions_answers_nobody(world: World) -> None:
    """A record without this pipeline's seal is no prediction, whatever id it bears."""
    event = fresh_event()
    forged = {
        "event_id": event["event_id"],
        "key": event["user"],
        "ts": event["ts"],
        "source": {"partition": 0, "offset": 0},
        "model": "plain@0",
        "example": -1,
        "prediction": 0.123,
        "fallback": False,
        "features": {},
        "shadows": {},
    }
    with world.log() as log:
        log._append(
            [Output("predictions", event["event_id"].encode(), json.dumps(forged).encode())]
        )

    with world.http() as http:
        before = http.get(f"/v1/predictions/{event['event_id']}")
        answer = http.post("/v1/predict", json=event)

    assert 404 == before.status_code
    assert 200 == answer.status_code
    assert 0.123 != answer.json()["prediction"]


def test_a_server_that_is_asked_to_end_leaves_nobody_who_follows(world: World) -> None:
    """Who follows gets the end of the stream, and the server ends as one that was asked to."""
    server = world.serve()
    try:
        address = json.loads(server.line())["address"]
        with (
            httpx.Client(base_url=address, timeout=DEADLINE_S) as http,
            http.stream("GET", "/v1/stream/predictions") as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines).startswith(":")
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        ended = server.ended()
    finally:
        server.__exit__(None, None, None)

    assert [""] == rest
    assert (0, "") == (ended.code, ended.err)


def test_what_a_worker_cannot_do_in_time_is_known_beforehand() -> None:
    """A lag is told in seconds by the pace of the last moments; a few marks are no lag."""
    pace = PredictPace()
    pace.update(done=0, lag=10_000, now_s=0.0)
    unknown_s = pace.delay_s
    pace.update(done=1_000, lag=9_000, now_s=1.0)
    busy_s = pace.delay_s
    pace.update(done=10_000, lag=3, now_s=2.0)

    assert (0.0, 9.0, 0.0) == (unknown_s, busy_s, pace.delay_s)


def test_of_a_batch_that_was_taken_in_part_each_record_has_its_own_fate() -> None:
    """Where a broker acknowledges some records, whoever sent these is not told to try again."""
    error = NotAcknowledged("one was not", [(0, 1), None])

    assert [(0, 1), error] == _outcomes(error, 2)


# --- streams ----------------------------------------------------------------------------------


def events_of(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and data of each event of a stream, as they come."""
    position = ""
    for line in answer.iter_lines():
        name, _, text = line.partition(": ")
        if name == "id":
            position = text
        elif name == "data":
            yield position, json.loads(text)


def stream_of(world: World, name: str, number: int, **request: Any) -> list[tuple[str, Any]]:
    """The first events of a stream."""
    with (
        world.http() as http,
        http.stream("GET", f"/v1/stream/{name}", **request) as answer,
    ):
        return list(islice(events_of(answer), number))


def test_a_stream_goes_on_after_the_last_event_that_was_received(world: World) -> None:
    """From the beginning and from any place, no prediction is missed and none comes twice."""
    with world.log() as log:
        ids = [(r.key or b"").decode() for r in read_all(log, "predictions")][:FIRST]

    whole = stream_of(world, "predictions", FIRST, params={"start": "beginning"})
    parts = []
    position = None
    for number in (1, 499, 1, FIRST - 501):
        headers = {} if position is None else {"Last-Event-ID": position}
        parts += stream_of(
            world, "predictions", number, params={"start": "beginning"}, headers=headers
        )
        position = parts[-1][0]

    assert ids == [data["event_id"] for _, data in whole]
    assert whole == parts


def test_a_stream_has_what_comes_while_it_is_open(world: World) -> None:
    """A prediction comes to those who follow when it is made."""
    event = fresh_event()
    with world.http() as http, http.stream("GET", "/v1/stream/predictions") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        http.post("/v1/predict", json=event)
        # Those of other tests may be late; of what was there before it was opened none comes.
        ids: list[str] = []
        while event["event_id"] not in ids:
            data = next(line for line in lines if line.startswith("data:"))
            ids.append(json.loads(data.removeprefix("data: "))["event_id"])

    assert [] == [event_id for event_id in ids if event_id.startswith("e")]


def test_decisions_stream_as_the_audit_has_them(world: World) -> None:
    """A decision that is followed is the one that is looked up."""
    with world.http() as http:
        decisions = http.get("/v1/audit").json()["decisions"][:2]

    streamed = stream_of(world, "decisions", 2, params={"start": "beginning"})

    assert decisions == [data for _, data in streamed]


def test_a_reader_that_takes_nothing_holds_up_nobody(world: World) -> None:
    """Beside streams that are never read, predictions are answered and streams go on."""
    host, port = world.address.removeprefix("http://").split(":")
    request = (
        "GET /v1/stream/predictions?start=beginning HTTP/1.1\r\n"
        f"Host: {host}:{port}\r\nAuthorization: Bearer {READER}\r\n\r\n"
    )
    dead = []
    try:
        for _ in range(30):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            reader.connect((host, int(port)))
            reader.sendall(request.encode())
            dead.append(reader)
        events = [fresh_event() for _ in range(5)]
        with world.http() as http:
            statuses = [http.post("/v1/predict", json=event).status_code for event in events]
        streamed = stream_of(world, "predictions", FIRST, params={"start": "beginning"})
    finally:
        for reader in dead:
            reader.close()

    assert [200] * 5 == statuses
    assert FIRST == len(streamed)


def test_a_place_that_is_none_of_the_stream_is_refused(world: World) -> None:
    """An id of another stream, or no id, is named as such."""
    with world.http() as http:
        answers = [
            http.get("/v1/stream/predictions", params={"start": start})
            for start in ("1.2", "x", "-1", "9" * 30)
        ]

    assert [400] * 4 == [answer.status_code for answer in answers]


# --- views and commands -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["status", "models", "drift", "alerts"])
def test_views_are_what_the_commands_of_their_names_print(
    world: World, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By HTTP one reads what one reads in a terminal."""
    monkeypatch.chdir(world.folder)
    options = ["--pipeline", TOY] if name == "status" else []

    def pair() -> tuple[dict[str, Any], dict[str, Any]]:
        with world.http(READER) as http:
            served = http.get(f"/v1/{name}").json()
        main(["--broker", f"sqlite:{world.path}", *options, name, "--format", "json"])
        return json.loads(capsys.readouterr().out), served

    deadline = time.monotonic() + DEADLINE_S
    while True:
        printed, served = pair()
        printed.pop("notes", None)
        if printed == {member: served.get(member) for member in printed}:
            break
        # What was read up to a second ago may be older than what is printed now.
        assert time.monotonic() < deadline, (printed, served)


def test_the_audit_tells_what_served_and_that_the_registry_is_whole(world: World) -> None:
    """What served at a time, which decisions were made before, and that none was altered."""
    with world.http(READER) as http:
        at_start = http.get("/v1/audit/at", params={"ts": START_MS}).json()
        now = http.get("/v1/audit/at").json()
        status = http.get("/v1/status").json()
        first = http.get("/v1/audit", params={"before": 1}).json()
        verdict = http.get("/v1/audit/verify").json()

    assert "plain@0" == at_start["decision"]["champion"]
    assert status["champion"] == now["decision"]["champion"]
    assert ["bootstrap"] == [decision["kind"] for decision in first["decisions"]]
    assert (None, True) == (verdict["flaw"], verdict["signatures"])


def test_a_command_is_carried_out_once_and_named_after_its_token(world: World) -> None:
    """A pause by HTTP is a decision of whose token it was, signed as by the command line."""
    body = {"reason": "labels look wrong", "id": "pause-1", "actor": "somebody else"}

    with world.http(ANA) as http:
        http.post("/v1/commands/resume", json={"reason": "whatever was before"})
        answers = [http.post("/v1/commands/pause", json=body).json() for _ in range(2)]
        resumed = http.post("/v1/commands/resume", json={"reason": "they are right"}).json()

    decision = answers[0]["decision"]
    assert ("paused", "ana", "local") == (
        decision["kind"],
        decision["actor"],
        decision["signed_by"],
    )
    assert answers[0]["decision"] == answers[1]["decision"]
    assert answers[0]["accepted"]
    assert answers[0]["checked"]
    assert "paused" in answers[0]["effect"]
    assert "resumed" == resumed["decision"]["kind"]


def test_a_refused_command_is_answered_with_its_decision(world: World) -> None:
    """Where another champion serves than was expected, nothing is done, and that is on record."""
    body = {"reason": "better", "model": "scaled", "expect": "nobody"}

    with world.http(ANA) as http:
        answer = http.post("/v1/commands/promote", json=body)
        number = answer.json()["decision"]["number"]
        deadline = time.monotonic() + DEADLINE_S
        # The audit is up to a second old.
        while number not in {
            decision["number"] for decision in http.get("/v1/audit").json()["decisions"]
        }:
            assert time.monotonic() < deadline

    assert (409, False) == (answer.status_code, answer.json()["accepted"])
    assert "expected nobody to serve" in answer.json()["detail"]
    assert "refused" == answer.json()["decision"]["kind"]


def test_a_line_without_mini_batches_is_refused_another_size_of_them(world: World) -> None:
    """The size goes with the signed command: the worker answers about it, and about the line."""
    body = {"reason": "it cannot keep up", "model": "plain", "batch": 64}

    with world.http(ANA) as http:
        answer = http.post("/v1/commands/batch", json=body)

    assert (409, "refused") == (answer.status_code, answer.json()["decision"]["kind"])
    assert "have no batches" in answer.json()["detail"]


def test_a_command_that_its_operator_has_signed_needs_no_token_that_operates(world: World) -> None:
    """With a key of one's own one commands through a server that could not do so itself."""
    key = Settings(broker=f"sqlite:{world.path}").commanding_key(str(world.path))
    with world.http(SHOP) as http:
        status = http.get("/v1/status").json()
        command = Command(
            command_id="own-1",
            kind="resume",
            ts=time.time_ns() // 1_000_000,
            operator="local",
            actor="gus",
            reason="with a key of my own",
            pipeline=status["pipeline"],
            log=status["identity"],
        )
        forged = http.post("/v1/commands", content=encode_command(command, b"x" * 32))
        answer = http.post("/v1/commands", content=encode_command(command, key))
        nothing = http.post("/v1/commands", content=b"{}")

    assert (422, "not_believed") == (forged.status_code, forged.json()["reason"])
    assert ("gus", "resumed") == (
        answer.json()["decision"]["actor"],
        answer.json()["decision"]["kind"],
    )
    assert (422, "$.command_id") == (nothing.status_code, nothing.json()["path"])


def test_all_that_is_wrong_with_a_command_is_told_at_once(world: World) -> None:
    """What is missing, what is too much and what is out of bounds, each by its name."""
    with world.http(ANA) as http:
        answer = http.post("/v1/commands/promote", json={"line": "scaled", "timeout_s": 0})

    paths = ["$.reason", "$.timeout_s", "$.expect", "$.model", "$.line"]
    assert sorted(paths) == sorted(each["path"] for each in answer.json()["mistakes"])
    assert "$.line: expected no such member" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "members", "words"),
    [
        ("predict", {"ts": "2013-01-01T11:00:00Z"}, "this one is 1357038000000;"),
        ("predict", {"ts": "2013-01-01"}, "this one is 1356998400000, where it is of UTC;"),
        ("predict", {"ts": "noon"}, '"2013-01-01T11:00:00Z" is 1357038000000;'),
        ("labels", {"ts": "2013-01-01T12:00:00+01:00", "label": True}, "is 1357038000000;"),
        ("labels", {"label": 1}, "for 1 send true;"),
        ("labels", {"label": "no"}, 'for "no" send false;'),
        ("predict", {"ts": START_MS // 1_000}, "as seconds it is 2023-11-14T22:13:20.000Z: send "),
        ("predict", {"ts": START_MS * 1_000}, "as microseconds it is 2023-11-14T22:13:20.000Z: "),
        ("labels", {"ts": START_MS // 1_000, "label": True}, "as seconds it is 2023-11-14T22:"),
        ("labels", {"ts": START_MS * 1_000, "label": True}, "as microseconds it is 2023-11-14T"),
        ("predict", {"x": "high"}, ""),
        ("labels", {"label": 7}, ""),
    ],
)
def test_what_a_file_may_say_otherwise_is_told_as_it_is_said_here(
    world: World, path: str, members: dict[str, Any], words: str
) -> None:
    """A time as text, or a label as 1, is refused with the number, or the word, that was meant."""
    with world.http() as http:
        answer = http.post(f"/v1/{path}", json=fresh_event() | members)

    assert 422 == answer.status_code
    assert bool(words) == ("hint" in answer.json())
    assert words in answer.json().get("hint", "")


def test_an_event_that_was_overtaken_is_told_what_to_declare(world: World) -> None:
    """Said of what is behind by a moment; not of what is by hours, which nothing overtook."""
    with world.http() as http:
        first = fresh_event()
        assert 200 == http.post("/v1/predict", json=first).status_code
        moment, hours = (
            http.post("/v1/predict", json=fresh_event(ts=first["ts"] - behind_ms)).json()
            for behind_ms in (1, 7_200_000)
        )

    assert ("too_late", "too_late") == (moment["reason"], hours["reason"])
    assert "such as Events(lateness='10s'); now it is 0" in moment["hint"]
    assert "hint" not in hours


def test_a_number_that_json_has_not_is_told_by_its_field(world: World) -> None:
    """NaN is no JSON: the refusal says which member has it, and how to leave it out."""
    body = json.dumps(fresh_event(x=float("nan"), y="x: NaN"))
    with world.http() as http:
        answer = http.post("/v1/predict", content=body.encode())

    assert (422, "not_finite") == (answer.status_code, answer.json()["reason"])
    assert answer.json()["hint"].startswith('"x": JSON has no NaN: leave it out')


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pause", {}),
        ("pause", {"reason": " "}),
        ("pause", {"reason": "x", "force": True}),
        ("promote", {"reason": "x", "expect": "plain"}),
        ("rollback", {"reason": "x"}),
        ("restart", {"reason": "x", "model": 7}),
        ("batch", {"reason": "x", "model": "plain", "batch": 0}),
        ("batch", {"reason": "x", "model": "plain"}),
    ],
)
def test_a_command_without_what_it_takes_is_refused(
    world: World, path: str, body: dict[str, Any]
) -> None:
    """What is missing or too much is named, and nothing is given to the worker."""
    with world.http(ANA) as http:
        answer = http.post(f"/v1/commands/{path}", json=body)

    assert 422 == answer.status_code
    assert answer.json()["path"].startswith("$.")


# --- the process ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "options", "words"),
    [
        (0o600, ["--host", "0.0.0.0"], "expected --tokens FILE"),  # noqa: S104 - refused
        (0o644, ["--tokens", "tokens.toml"], "expected mode 0600"),
        (0o600, ["--host", "192.0.2.1", "--tokens", "tokens.toml"], "expected to listen there"),
    ],
)
def test_a_server_that_would_let_anybody_in_does_not_start(
    world: World,
    tmp_path: Path,
    mode: int,
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond this machine it wants tokens, and tokens that only their owner can read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokens.toml").write_text(TOKENS)
    (tmp_path / "tokens.toml").chmod(mode)

    code = main(["--broker", f"sqlite:{world.path}", "--pipeline", TOY, "serve", *options])

    assert 2 == code
    assert words in capsys.readouterr().err


def test_prometheus_and_probes_are_answered_beside_it(world: World) -> None:
    """At an address of their own: the server is ready while predictions are answered."""
    with world.http() as http:
        for event_id in ("nobody's 1", "nobody's 2"):
            http.get(f"/v1/predictions/{event_id}")
        http.get("/v1/status", headers={"Authorization": "Bearer nobody's"})
    with httpx.Client(base_url=f"http://{world.metrics}", timeout=DEADLINE_S) as client:
        probes = [client.get(path) for path in ("/readyz", "/healthz")]
        scraped = client.get("/metrics")

    assert [(200, {"ok": True, "problems": []})] * 2 == [
        (each.status_code, each.json()) for each in probes
    ]
    assert "\nstream_ml_ready 1.0\n" in scraped.text
    # What it has answered itself, by the path as it is declared.
    found = 'stream_ml_http_requests_total{route="/v1/predictions/{event_id:path}",status="404"} '
    assert 2.0 <= _value(scraped.text, found)
    refused = 'stream_ml_http_requests_total{route="",status="401"} '
    assert 1.0 <= _value(scraped.text, refused)
    seconds = 'stream_ml_http_request_seconds_count{route="/v1/predictions/{event_id:path}"} '
    assert 2.0 <= _value(scraped.text, seconds)
    assert "\nstream_ml_http_waiting 0.0\n" in scraped.text
    assert "\nprocess_cpu_seconds_total " in scraped.text
    assert "stream_ml_lag_records" not in scraped.text


def _value(text: str, sample: str) -> float:
    return float(text.partition(f"\n{sample}")[2].partition("\n")[0])


# --- as the API describes itself --------------------------------------------------------------

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
# Streams have no end that a request could wait for.
COMMANDS, ALL_BUT_STREAMS = "^/v1/commands/", "^/v1/(?!stream/|commands/)"
EXAMPLES = 4


@pytest.mark.parametrize(
    ("token", "paths", "least"), [(SHOP, ALL_BUT_STREAMS, 14), (ANA, COMMANDS, 6)]
)
def test_whatever_the_document_allows_or_not_is_answered_as_it_says(
    world: World, token: str, paths: str, least: int
) -> None:
    """Right and wrong requests made from the API's own document: no 500, nothing undocumented."""
    headers = {"Authorization": f"Bearer {token}"}
    document = openapi.from_url(f"{world.address}/v1/openapi.json", headers=headers)
    document = document.include(path_regex=paths)
    count = 0
    for result in document.get_all_operations():
        for mode in GenerationMode:
            _try_operation(result.ok(), mode, headers)
            count += 1

    assert count >= 2 * least


def _try_operation(operation: Any, mode: Any, headers: dict[str, str]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        answer = case.call(headers=headers, timeout=DEADLINE_S)
        # Overload and a worker that does not answer are told so, with when to come again.
        if answer.status_code in {503, 504}:
            assert int(answer.headers["retry-after"][0]) > 0
            return
        case.validate_response(answer, checks=CHECKS, headers=headers)

    with suppress(Unsatisfiable):  # nothing wrong can be sent to some operations
        attempt()
