"""The server's application in this process, on logs where workers are at work when a test says so.

The clock of these tests are the worker and the server themselves: nothing is waited for but them.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shell"))
from cli_toy import START_MS, outputs, stream, toy

import stream_ml as sml
from stream_ml.codec import encode_command
from stream_ml.errors import BadRecord, LogError
from stream_ml.records import Command, Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.web import pace, probes
from stream_ml.web.access import ROLES, Access
from stream_ml.web.app import create_app
from stream_ml.web.feed import EventStream, Feed
from stream_ml.web.gate import Limits
from stream_ml.web.hints import hint
from stream_ml.web.log_threads import READERS, Follower, LogPool
from stream_ml.web.predictor import Predictor
from stream_ml.web.problems import Refusal
from stream_ml.web.service import COMMANDS_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from fastapi import FastAPI

    from stream_ml.shell.log.port import Log
    from stream_ml.web.service import Service

DEADLINE_S = 60.0
# A follower hands its records over in pieces of so many.
PIECE = 1_000
FIRST = 60
FORGED = 0.123
# One that lies on the log from the start.
FIFTH = stream(FIRST)[0][5]


@pytest.fixture(scope="module")
def first_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log that a worker has worked through, and its key."""
    folder = tmp_path_factory.mktemp("first")
    with SqliteLog.create(folder / "log.sqlite") as log:
        log.append(outputs(FIRST))
    work(folder / "log.sqlite")
    return folder


@pytest.fixture
def path(first_log: Path, tmp_path: Path) -> Path:
    """A log of a test's own, on which a worker was at work."""
    shutil.copytree(first_log, tmp_path / "own")
    return tmp_path / "own" / "log.sqlite"


@pytest.fixture
def new_path(tmp_path: Path) -> Path:
    """A log with events that nobody has worked on, and no key."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path) as log:
        log.append(outputs(FIRST))
    return path


def work(path: Path, pipeline: sml.Pipeline = toy) -> None:
    """Let a worker do what there is to do."""
    key = Settings(broker=f"sqlite:{path}").signing_key(str(path))
    with SqliteLog.open(path) as log, Runner(log, pipeline, key) as runner:
        runner.run()


def event_of(event_id: str, **members: Any) -> dict[str, Any]:
    """An event after all that were before."""
    return {"event_id": event_id, "ts": START_MS + 1_000 * (FIRST + 10), "user": "u1", "x": 0.5} | (
        members
    )


def forge(path: Path, event_id: str, *values: bytes) -> None:
    """Put among predictions what is none of this pipeline's."""
    number = int(event_id.removeprefix("e")) if event_id.startswith("e") else 0
    forged = {
        "event_id": event_id,
        "key": f"u{number % 7}",
        "ts": START_MS + 1_000 * number,
        "source": {"partition": 0, "offset": 0},
        "model": "plain@0",
        "example": -1,
        "prediction": FORGED,
        "fallback": False,
        "features": {},
        "shadows": {},
    }
    with SqliteLog.open(path) as log:
        log._append(
            [
                Output("predictions", event_id.encode(), value)
                for value in (json.dumps(forged).encode(), *values)
            ]
        )


def application(
    path: Path, key: bytes | None = None, pipeline: sml.Pipeline = toy, **options: Any
) -> FastAPI:
    """A server's application, for whoever may do all."""
    settings = Settings(broker=f"sqlite:{path}", key=key)
    return create_app(settings, pipeline, Access({}, frozenset(ROLES)), **options)


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """A client of an application that is at work, and what its routes share."""
    service: Service = app.state.service
    service.start()
    transport = httpx.ASGITransport(app)
    try:
        async with asyncio.timeout(DEADLINE_S):
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                yield http, service
    finally:
        service.close()


async def turn() -> None:
    """Let the loop do what waits: a request that is refused at once holds it."""
    await asyncio.to_thread(int)


@asynccontextmanager
async def occupied(pool: LogPool) -> AsyncIterator[None]:
    """All threads of a pool are at work until it is left."""
    is_over = threading.Event()
    reads = [
        asyncio.ensure_future(pool.run(lambda _: is_over.wait(DEADLINE_S))) for _ in range(READERS)
    ]
    await turn()
    try:
        yield
    finally:
        is_over.set()
        await asyncio.gather(*reads)


async def known(service: Service, event_id: str) -> None:
    """Wait until a server has seen a prediction for an id, and has looked for the key."""
    with suppress(Refusal):
        await service.authenticity.check_setup()
    while event_id.encode() not in service.predictor._index:
        await turn()


class Stream:
    """A reader of a stream, who leaves when told to.

    Args:
        app: that sends it.
        address: of the stream, with its query.
    """

    def __init__(self, app: FastAPI, address: str) -> None:
        loop = asyncio.get_running_loop()
        self.body = b""
        self.status: asyncio.Future[int] = loop.create_future()
        self.leave = asyncio.Event()
        self._words = b""
        self._has_come = asyncio.Event()
        path, _, query = address.partition("?")
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "http_version": "1.1",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        self.end = asyncio.create_task(app(scope, self._receive, self._send))

    async def body_with(self, words: bytes) -> bytes:
        """What has come, once there are these words in it."""
        self._words = words
        while words not in self.body:
            self._has_come.clear()
            await self._has_come.wait()
        return self.body

    async def _receive(self) -> dict[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status.set_result(message["status"])
        self.body += message.get("body", b"")
        self._has_come.set()


def test_another_event_of_an_id_is_told_from_the_first(path: Path) -> None:
    """However little it differs: another event's prediction is nobody's answer."""

    async def ask() -> list[int]:
        async with started(application(path)) as (http, _):
            found = []
            for x in (-1.0, -2.0, -1.0):
                answer = asyncio.create_task(http.post("/v1/predict", json=event_of("n1", x=x)))
                while not answer.done():
                    await asyncio.to_thread(work, path)
                    await turn()
                found.append(answer.result().status_code)
            return found

    assert [200, 409, 200] == asyncio.run(ask())


# --- predictions ------------------------------------------------------------------------------


def test_without_a_worker_callers_are_told_when_to_come_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is guessed: 503, first after waiting and then at once; later the answer."""
    # A request in between would be let through to see, were nobody known to be at work.
    monkeypatch.setattr(pace, "PROBE_S", 3_600.0)
    event, other = event_of("n1"), event_of("n2")

    async def ask() -> list[httpx.Response]:
        async with started(application(path, limits=Limits(predict_s=1.0))) as (http, _):
            answers = [
                await http.post("/v1/predict", json=each) for each in (event, event, other, other)
            ]
            await asyncio.to_thread(work, path)
            answer = answers[0]
            while answer.status_code != 200:
                await turn()
                answer = await http.post("/v1/predict", json=event)
            return [*answers, answer]

    late, *refused, answered = asyncio.run(ask())

    assert (503, "late") == (late.status_code, late.json()["reason"])
    assert [(503, "recovering")] * 3 == [(a.status_code, a.json()["reason"]) for a in refused]
    assert "1" == late.headers["Retry-After"]
    assert late.json()["event"]["offset"] >= FIRST
    assert "n1" == answered.json()["event_id"]
    with SqliteLog.open(path) as log:
        assert [] == [r for r in log.read("events", 0, 0, 1_000) if b'"n2"' in (r.value or b"")]


def test_while_nobody_is_at_work_nothing_is_published_to_see(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says that predict has no worker: who asks again is refused at once, however often."""
    monkeypatch.setattr(pace, "PROBE_S", 0.0)

    async def ask() -> list[str]:
        async with started(application(path, limits=Limits(predict_s=0.2))) as (http, service):
            answers = [await http.post("/v1/predict", json=event_of("n1"))]
            while service.predictor._is_attended:
                await turn()
            answers += [await http.post("/v1/predict", json=event_of(f"n{n}")) for n in range(2, 5)]
            return [answer.json()["reason"] for answer in answers]

    assert ["late", *["recovering"] * 3] == asyncio.run(ask())
    with SqliteLog.open(path) as log:
        assert FIRST + 1 == log.end_offset("events", 0)


def test_an_event_that_only_feeds_windows_is_answered_once_predict_has_passed_it(
    new_path: Path,
) -> None:
    """It is taken, and told that it gets no prediction and why, long before the limit."""
    lenient = replace(toy, events=replace(toy.events, window_lateness="1h"))
    work(new_path, lenient)
    behind = event_of("n1", ts=START_MS)

    async def ask() -> httpx.Response:
        app = application(new_path, pipeline=lenient, limits=Limits(predict_s=DEADLINE_S))
        async with started(app) as (http, service):
            answer = asyncio.create_task(http.post("/v1/predict", json=behind))
            while not service.predictor._positions:
                await turn()
            await asyncio.to_thread(work, new_path, lenient)
            return await answer

    answer = asyncio.run(ask())

    assert (202, FIRST) == (answer.status_code, answer.json()["event"]["offset"])
    assert "further behind its partition's watermark than lateness=0" in answer.json()["detail"]


def test_a_label_may_have_the_names_that_its_pipeline_declares(path: Path) -> None:
    """As in files: `visit` and `label` of its declaration stand for the names on the log."""
    named = replace(
        toy, events=replace(toy.events, id="visit", time="at"), files=sml.Files(label="clicked")
    )
    labels = [
        {"visit": "e1", "at": START_MS + 9_000_000, "clicked": True},
        {"event_id": "e2", "ts": START_MS + 9_000_000, "label": False, "visit": "other"},
        {"visit": "e3", "at": START_MS + 9_000_000},
    ]

    async def ask() -> tuple[list[httpx.Response], Any]:
        async with started(application(path, pipeline=named)) as (http, _):
            answers = [await http.post("/v1/labels", json=label) for label in labels]
            return answers, (await http.get("/v1/openapi.json")).json()

    answers, document = asyncio.run(ask())

    assert [202, 202, 422] == [answer.status_code for answer in answers]
    with SqliteLog.open(path) as log:
        end = log.end_offset("labels", 0)
        placed = [json.loads(r.value or b"") for r in log.read("labels", 0, end - 2, 2)]
    assert {"event_id": "e1", "ts": START_MS + 9_000_000, "label": True} == placed[0]
    assert labels[1] == placed[1]
    schema = document["paths"]["/v1/labels"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    assert {"event_id", "visit", "ts", "at", "label", "clicked"} <= set(schema["properties"])


def test_before_there_is_a_key_no_prediction_is_believed(new_path: Path) -> None:
    """What others have put there before the first worker is answered to nobody, then or later."""
    forge(new_path, "e5")
    event = FIFTH

    async def ask() -> tuple[list[httpx.Response], httpx.Response]:
        async with started(application(new_path)) as (http, service):
            await known(service, "e5")
            before = [
                await http.get("/v1/predictions/e5"),
                await http.post("/v1/predict", json=event),
            ]
            await asyncio.to_thread(work, new_path)
            after = before[0]
            while after.status_code == 503:
                await turn()
                after = await http.get("/v1/predictions/e5")
            return before, after

    before, after = asyncio.run(ask())

    assert [(503, "key")] * 2 == [(a.status_code, a.json()["reason"]) for a in before]
    assert 200 == after.status_code
    assert FORGED != after.json()["prediction"]


def test_with_a_wrong_key_no_prediction_is_believed(path: Path) -> None:
    """A server that has another key than the workers says so, and answers nobody."""
    forge(path, "forged")

    async def ask() -> list[httpx.Response]:
        async with started(application(path, key=b"another key, of 32 bytes or more")) as (http, _):
            return [
                await http.get("/v1/predictions/forged"),
                await http.post("/v1/predict", json=event_of("n1")),
            ]

    answers = asyncio.run(ask())

    assert [(503, "unavailable")] * 2 == [(a.status_code, a.json()["reason"]) for a in answers]
    assert "key" in answers[0].json()["detail"]


def test_a_server_is_ready_once_predictions_are_answered(new_path: Path) -> None:
    """Without a key, a worker, or an answer in time it is not ready, and healthy; it says why."""

    async def ask() -> list[tuple[httpx.Response, httpx.Response]]:
        async with started(application(new_path, limits=Limits(predict_s=0.2))) as (http, service):

            async def probes() -> tuple[httpx.Response, httpx.Response]:
                service.at_work._made_s = 0.0  # asked anew, though a second is not over
                return await http.get("/readyz"), await http.get("/healthz")

            before = await probes()
            await asyncio.to_thread(work, new_path)
            await service.authenticity.wait()
            gone = await probes()
            key = Settings(broker=f"sqlite:{new_path}").signing_key(str(new_path))
            with SqliteLog.open(new_path) as log, Runner(log, toy, key) as runner:
                during = await probes()
                late = await http.post("/v1/predict", json=event_of("n1"))
                silent = await probes()
                runner.run()
                # A server that is not ready is asked nothing: it sees by itself that all is done.
                again = await probes()
                while again[0].status_code != 200:
                    await turn()
                    again = await probes()
            assert "late" == late.json()["reason"]
            return [before, gone, during, silent]

    before, gone, during, silent = asyncio.run(ask())

    assert [200] * 4 == [healthy.status_code for _, healthy in (before, gone, during, silent)]
    assert [503, 503, 200, 503] == [r.status_code for r, _ in (before, gone, during, silent)]
    assert "expected the key" in before[0].json()["problems"][0]
    assert ["no worker of predict is at work"] == gone[0].json()["problems"]
    assert {"ok": True, "problems": []} == during[0].json()
    assert ["no prediction has come since a request ran out of time"] == (
        silent[0].json()["problems"]
    )


def test_where_the_log_does_not_answer_a_server_is_not_healthy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever probes is told in time, and without a token not why."""
    monkeypatch.setattr(probes, "ANSWER_S", 0.2)

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with started(application(path)) as (http, service), occupied(service._lookups):
            told = await http.get("/healthz")
            service.access.anonymous = frozenset()
            return told, await http.get("/healthz")

    told, untold = asyncio.run(ask())

    assert (503, ["the log has not answered for 0.2 s"]) == (
        told.status_code,
        told.json()["problems"],
    )
    assert (503, {"ok": False}) == (untold.status_code, untold.json())


def test_known_ids_do_not_wait_behind_long_searches(path: Path) -> None:
    """While all that read the log at length are at work, an id that has a prediction gets it."""
    event = FIFTH

    async def ask() -> int:
        async with started(application(path)) as (http, service), occupied(service.pool):
            await known(service, "e5")
            return (await http.post("/v1/predict", json=event)).status_code

    assert 200 == asyncio.run(ask())


def test_no_answer_takes_longer_than_the_limit(path: Path) -> None:
    """Also where the log itself does not answer, a caller hears in time that it does not."""
    event = FIFTH

    async def ask() -> tuple[int, str]:
        async with started(application(path, limits=Limits(predict_s=0.2))) as (http, service):
            await known(service, "e5")
            async with occupied(service._lookups):
                answer = await http.post("/v1/predict", json=event)
            return answer.status_code, answer.json()["reason"]

    assert (503, "late") == asyncio.run(ask())


def test_of_two_events_at_once_with_one_id_the_second_is_a_conflict(path: Path) -> None:
    """While an event waits for its prediction, another one with its id does not wait with it."""

    async def ask() -> list[tuple[int, str]]:
        async with started(application(path, limits=Limits(predict_s=0.5))) as (http, _):
            answers = await asyncio.gather(
                http.post("/v1/predict", json=event_of("n1")),
                http.post("/v1/predict", json=event_of("n1", user="u2")),
            )
            return [(answer.status_code, answer.json()["reason"]) for answer in answers]

    assert [(503, "late"), (409, "id_in_use")] == asyncio.run(ask())


def test_bad_events_of_others_are_not_kept(path: Path) -> None:
    """Of a refused record that nobody here asks for, the reason is kept and not the record."""
    with SqliteLog.open(path) as log:
        log.append([Output("events", b"u1", b"[" + b"1," * 100_000 + b"1]")])

    async def kept() -> int:
        async with started(application(path)) as (_, service):
            # Dead letters are followed from where they end.
            await service.predictor._dead_letters.start()
            await asyncio.to_thread(work, path)
            while not service.predictor._letters:
                await turn()
            return len(pickle.dumps(service.predictor._letters))

    assert asyncio.run(kept()) < 10_000


# --- streams ----------------------------------------------------------------------------------


def test_a_feed_begins_before_its_first_record(tmp_path: Path) -> None:
    """The end of a stream is behind all that has come, also where the loop was busy meanwhile."""
    path, count = tmp_path / "log.sqlite", PIECE + 10
    with SqliteLog.create(path) as log:
        log.append([Output("labels", b"e1", b"{}")] * count)

    def open_log() -> Log:
        return SqliteLog.open(path)

    async def end() -> list[int]:
        pool = LogPool(open_log)
        feed = Feed("labels", pool)
        is_queued = threading.Event()
        follower = Follower(
            open_log,
            "labels",
            feed.add,
            history=count,
            on_begin=feed.begin,
            # Of the second piece: the first one is on its way then.
            prepare=lambda record: is_queued.set() if record.offset >= PIECE else None,
        )
        begun = follower.start()
        assert is_queued.wait(DEADLINE_S)
        await begun
        end = feed.end
        follower.close()
        pool.close()
        return end

    assert asyncio.run(end()) in ([PIECE], [count])


@pytest.mark.parametrize("isolation", ["committed", "uncommitted"])
def test_a_stream_has_no_prediction_but_ours(path: Path, isolation: str) -> None:
    """What others have put among predictions is not sent, be it well made or no JSON."""
    forge(path, "forged", b"{", b"\xff", b"[]")
    with SqliteLog.open(path) as log:
        log.append([Output("events", b"u1", json.dumps(event_of("n1")).encode())])
    work(path)

    async def follow() -> bytes:
        app = application(path, isolation=isolation)
        async with started(app):
            stream = Stream(app, "/v1/stream/predictions?start=beginning")
            body = await stream.body_with(b'"n1"')
            stream.leave.set()
            await stream.end
            return body

    lines = asyncio.run(follow()).split(b"\n")
    ids = [json.loads(line[5:])["event_id"] for line in lines if line.startswith(b"data:")]

    assert [*(f"e{number}" for number in range(FIRST)), "n1"] == ids


def test_no_more_streams_are_open_than_may(path: Path) -> None:
    """Of many that come at once as many are let in as may; who leaves makes room."""

    async def follow() -> tuple[list[int], list[int], int]:
        app = application(path, limits=Limits(streams=2))
        async with started(app) as (http, service):
            refused = [(await http.get("/v1/stream/alerts?start=x")).status_code for _ in range(3)]
            names = ["predictions", "decisions", "alerts"] * 5
            streams = [Stream(app, f"/v1/stream/{name}") for name in names]
            statuses = [await stream.status for stream in streams]
            for stream in streams:
                stream.leave.set()
            await asyncio.gather(*(stream.end for stream in streams))
            return refused, sorted(statuses), service.stream_count

    refused, statuses, left = asyncio.run(follow())

    assert [400] * 3 == refused
    assert [200] * 2 + [503] * 13 == statuses
    assert 0 == left


def test_a_stream_that_fails_ends_and_makes_room() -> None:
    """Where the log cannot be read on, a stream is over and no longer counted among the open."""
    ends: list[str] = []

    async def messages() -> AsyncGenerator[bytes]:
        yield b": begins\n\n"
        raise LogError("the log is gone")

    async def follow() -> None:
        stream = EventStream(
            messages(), closing=asyncio.Event(), on_end=lambda: ends.append("over")
        )

        async def receive() -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(_: Any) -> None:
            pass

        await stream({}, receive, send)

    asyncio.run(follow())

    assert ["over"] == ends


# --- commands ---------------------------------------------------------------------------------


def test_commands_that_anybody_signs_hold_up_none_of_those_who_operate(path: Path) -> None:
    """Signed commands wait in places of their own; all are told at once where the server ends."""

    def signed(number: int) -> bytes:
        command = Command(
            command_id=f"any-{number}",
            kind="pause",
            ts=START_MS,
            operator="local",
            actor="anybody",
            reason="to be in the way",
            pipeline="toy",
            log="any",
        )
        return encode_command(command, b"x" * 32)

    async def ask() -> list[tuple[int, str]]:
        async with started(application(path)) as (http, service):
            waiting = [
                asyncio.create_task(http.post("/v1/commands", content=signed(number)))
                for number in range(COMMANDS_MAX)
            ]
            with SqliteLog.open(path) as log:
                while log.end_offset("commands", 0) < COMMANDS_MAX:
                    await turn()
            body = {"reason": "labels look wrong", "timeout_s": 1.0}
            answers = [
                await http.post("/v1/commands", content=signed(COMMANDS_MAX)),
                await http.post("/v1/commands/pause", json=body),
            ]
            service.closing.set()
            # Long before the 30 seconds that their answers may take.
            async with asyncio.timeout(10):
                answers += await asyncio.gather(*waiting)
            return [(answer.status_code, answer.json()["reason"]) for answer in answers]

    assert [
        (503, "busy"),
        (504, "no_answer"),
        *[(503, "ending")] * COMMANDS_MAX,
    ] == asyncio.run(ask())


def test_a_fault_does_not_end_the_look_at_predict(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a client raises, it is looked at again, and requests are let through meanwhile."""
    looks = 0

    async def run() -> bool:
        predictor = Predictor.__new__(Predictor)
        done = asyncio.Event()

        async def at_work() -> frozenset[str]:
            nonlocal looks
            looks += 1
            if looks == 2:
                done.set()
                return frozenset()
            raise RuntimeError("of a client")

        async def look(_: float) -> None:
            pass

        predictor._at_work, predictor._look = at_work, look  # type: ignore[method-assign]
        predictor._paces, predictor._waiting = {0: pace.PredictPace(silent_s=1.0)}, {}
        predictor._feeds_windows, predictor._is_attended = False, False
        watch = asyncio.create_task(predictor._watch())
        try:
            await asyncio.sleep(0)
            at_first = predictor._is_attended
            async with asyncio.timeout(30):
                await done.wait()
        finally:
            watch.cancel()
        return at_first

    assert asyncio.run(run())
    assert "of a client" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b'{"event_id":"%b","x":[NaN]}' % (b'\\"' * 30_000), id="within a string"),
        pytest.param(b'{"x":[NaN],"%b' % (b'\\"' * 30_000), id="a string without an end"),
        pytest.param(b'{"x":[NaN]%b' % (b'"a" ' * 15_000), id="many strings"),
    ],
)
def test_a_hint_takes_no_longer_for_odd_bytes(value: bytes) -> None:
    """It is looked for while others wait: quotes without end are looked at once, too."""
    began_s = time.process_time()

    assert None is hint(value, BadRecord("not_finite", "$", "no number"), "ts")
    assert time.process_time() - began_s < 1.0


def test_a_hint_names_the_member_that_is_no_number() -> None:
    """Also behind strings that look like one."""
    value = b'{"a":"\\"b\\": NaN","x y" : -Infinity}'

    assert '"x y": JSON has no -Infinity' in str(hint(value, BadRecord("not_finite", "", ""), "ts"))
