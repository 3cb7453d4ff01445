"""Routes of alerts: nothing is lost, whatever the other side does and whatever is killed when."""

from __future__ import annotations

import random
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import outputs, toy
from processes import Terminal

import stream_ml as sml
from stream_ml.codec import encode
from stream_ml.errors import BadRecord, DeclarationError, UsageError
from stream_ml.records import Alert, Output
from stream_ml.sealing import Seals
from stream_ml.shell.alerting.bookmarks import FileBookmark, Place
from stream_ml.shell.alerting.courier import TRIES_MAX, Address, Courier, Turn
from stream_ml.shell.alerting.recipients import DeliveryError, Program, Webhook
from stream_ml.shell.alerting.setup import addresses
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_ml.shell.alerting.recipients import Recipient

KEY = b"k" * 32
ROUTE = sml.Route("oncall", webhook="http://127.0.0.1:9/hook")
ROUTE_B = sml.Route("b", webhook="http://127.0.0.1:9/hook")
DEADLINE_S = 60.0
Answer = int | str


class Receiver:
    """An HTTP server that answers as it is told: a status, `hangs up`, or `waits` until released.

    Args:
        answers: one for each request, then 200.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.taken: list[dict[str, Any]] = []
        self.requests = 0
        self.released = threading.Event()
        self.asked = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                receiver.requests += 1
                receiver.asked.set()
                answer = receiver.answers.pop(0) if receiver.answers else 200
                if answer == "waits":
                    receiver.released.wait(DEADLINE_S)
                    self.close_connection = True
                elif answer == "hangs up":
                    self.close_connection = True
                elif answer == "takes it and hangs up":
                    receiver.taken.append(orjson.loads(body))
                    self.close_connection = True
                else:
                    if answer == 200:
                        receiver.taken.append(orjson.loads(body))
                    self.send_response(int(answer))
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=secret"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def wait_for(self, count: int) -> None:
        """Wait until so many notifications were taken."""
        deadline = time.monotonic() + DEADLINE_S
        while len(self.taken) < count:
            assert time.monotonic() < deadline, self.taken
            self.asked.wait(0.05)

    def close(self) -> None:
        """End it."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    """A receiver for as long as a test needs it."""
    receiver = Receiver(*answers)
    try:
        yield receiver
    finally:
        receiver.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log without records."""
    with SqliteLog.create(tmp_path / "log.sqlite"):
        return tmp_path / "log.sqlite"


def alert(ts: int, state: str = "once", kind: str = "guard", **members: Any) -> Alert:
    """An alert of evaluate's."""
    return Alert(kind, ts, "evaluate", f"number {ts}", {}, "critical", state, **members)


def write(path: Path, *alerts: Alert) -> None:
    """Have a worker write alerts."""
    with SqliteLog.open(path) as log, log.session() as session:
        seal = Seals(KEY, "toy", log.identity).records("alerts")
        session.stage([Output("alerts", b"k", seal.seal(encode(each))) for each in alerts])
        session.commit()


def begin(path: Path) -> None:
    """Have a route be at work since the log was made."""
    with SqliteLog.open(path) as log:
        bookmark = FileBookmark(str(path), "oncall.webhook", log.identity)
    bookmark.store(Place(0, is_begun=True))


class Killed(BaseException):
    """The process is gone."""


def courier(
    path: Path,
    target: Recipient,
    *,
    stop: threading.Event | None = None,
    said: Callable[[str], object] = str,
    route: sml.Route = ROUTE,
    open_log: Callable[[], SqliteLog] | None = None,
    turn: Turn | None = None,
) -> Courier:
    """A courier that tries again soon."""
    return Courier(
        Address(route, "oncall.webhook", target),
        KEY,
        "toy",
        open_log=open_log or (lambda: SqliteLog.open(path)),
        bookmark=lambda log, name: FileBookmark(str(path), name, log.identity),
        say=said,
        stop=stop or threading.Event(),
        turn=turn,
        retry_min_s=0.001,
    )


class Counted:
    """A recipient that asks to stop when it has delivered enough, and may be killed meanwhile.

    Args:
        recipient: that delivers.
        stop: is set then.
        count: of deliveries.
        last: the number of the alert after which it is enough, where they are not counted.
        kill: whether the process is gone, before a delivery or after it.
    """

    def __init__(
        self,
        recipient: Recipient,
        stop: threading.Event,
        *,
        count: int = 0,
        last: int = -1,
        kill: Callable[[], bool] = lambda: False,
    ) -> None:
        self.recipient, self.stop, self.kill = recipient, stop, kill
        self.left, self.last = count, f'"summary":"number {last}"'.encode()

    def __str__(self) -> str:
        return "recipient"

    def deliver(self, body: bytes) -> None:
        """Deliver, unless the process is gone."""
        if self.kill():
            raise Killed
        self.recipient.deliver(body)
        if self.kill():
            raise Killed
        self.left -= 1
        if self.left == 0 or self.last in body:
            self.stop.set()


def deliver(path: Path, receiver: Receiver, count: int, **options: Any) -> None:
    """Deliver so many notifications, and stop."""
    stop = threading.Event()
    courier(path, Counted(Webhook(receiver.url), stop, count=count), stop=stop, **options).run()


def summaries(receiver: Receiver) -> list[str]:
    """What was taken, in words."""
    return [each["commonAnnotations"]["summary"] for each in receiver.taken]


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_whatever_fails_and_dies(path: Path, seed: int) -> None:
    """Each alert arrives, in order; what arrives twice is the same to the last bit."""
    rand = random.Random(seed)
    worst = [500, 503, 429, 404, 302, "hangs up", "takes it and hangs up"]
    answers = [rand.choice([*worst, *[200] * 5]) for _ in range(60)]
    with receiving(*answers) as receiver:
        begin(path)
        written, is_killed = 0, False
        while written < 40 or is_killed:
            # Whatever was lost before, there is always one more to come.
            write(path, *(alert(n) for n in range(written, written + 5)))
            written += 5
            stop = threading.Event()
            target = Counted(
                Webhook(receiver.url), stop, last=written - 1, kill=lambda: rand.random() < 0.03
            )
            try:
                courier(path, target, stop=stop).run()
            except Killed:
                is_killed = True
            else:
                is_killed = False

    distinct = list({orjson.dumps(each): each for each in receiver.taken}.values())
    assert [f"number {n}" for n in range(written)] == [
        each["commonAnnotations"]["summary"] for each in distinct
    ]
    assert written == len({each["alerts"][0]["fingerprint"] for each in distinct})


class Given:
    """The turn of whoever holds it."""

    def __init__(self) -> None:
        self.holder = threading.Event()

    def is_ours(self) -> bool:
        """Whether it is held."""
        return self.holder.is_set()

    def run(self, stop: threading.Event) -> None:
        """Nothing: a test gives it."""


def test_who_has_not_the_turn_delivers_nothing_and_goes_on_where_it_was_left(path: Path) -> None:
    """Of two couriers one delivers; when the turn passes, nothing is left out and none repeated."""
    begin(path)
    with SqliteLog.open(path) as log:
        kept = FileBookmark(str(path), "oncall.webhook", log.identity)
    turns, stop = [Given(), Given()], threading.Event()
    with receiving() as first, receiving() as second:
        threads = [
            threading.Thread(target=courier(path, Webhook(each.url), stop=stop, turn=turn).run)
            for each, turn in zip((first, second), turns, strict=True)
        ]
        turns[0].holder.set()
        for thread in threads:
            thread.start()
        write(path, alert(1), alert(2))
        first.wait_for(2)
        while kept.load() != Place(2, is_begun=True):
            first.asked.wait(0.01)
        turns[0].holder.clear()
        write(path, alert(3))
        turns[1].holder.set()
        second.wait_for(1)
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_S)

        assert (["number 1", "number 2"], ["number 3"]) == (summaries(first), summaries(second))


def test_a_new_route_begins_with_what_is_open(path: Path) -> None:
    """What was over, or has happened before it was declared, is nobody's alert any more."""
    overflow: dict[str, Any] = {"kind": "window_overflow"}
    with receiving() as receiver:
        write(
            path,
            alert(1),
            alert(2, "open", subject="a", **overflow),
            alert(3, "open", subject="b", **overflow),
            alert(4, "resolved", subject="b", **overflow),
        )
        deliver(path, receiver, 1)
        write(path, alert(5), alert(6, "resolved", subject="a", **overflow))
        deliver(path, receiver, 2)

    assert ["number 2", "number 5", "number 6"] == summaries(receiver)
    opened, _, resolved = (each["alerts"][0] for each in receiver.taken)
    assert ("firing", "resolved") == (opened["status"], resolved["status"])
    assert (opened["fingerprint"], opened["startsAt"]) == (
        resolved["fingerprint"],
        resolved["startsAt"],
    )


def test_a_notification_is_as_alertmanager_has_it(path: Path) -> None:
    """The members of its webhook's version 4, an alert for each subject of a group."""
    with receiving() as receiver:
        begin(path)
        write(
            path,
            Alert(
                "poison_rate",
                1_700_000_000_000,
                "join",
                "much",
                {"subjects": ["labels/a", "labels/b"]},
                "warning",
                "open",
            ),
        )
        deliver(path, receiver, 1)

    [told] = receiver.taken
    assert ("4", "firing", "oncall", 0) == tuple(
        told[name] for name in ("version", "status", "receiver", "truncatedAlerts")
    )
    expected = (
        "version groupKey truncatedAlerts status receiver groupLabels commonLabels "
        "commonAnnotations externalURL alerts"
    )
    assert expected == " ".join(told)
    first, second = told["alerts"]
    assert "status labels annotations startsAt endsAt generatorURL fingerprint" == " ".join(first)
    assert ("poison_rate", "warning", "toy", "labels/a") == tuple(
        first["labels"][name] for name in ("alertname", "severity", "pipeline", "subject")
    )
    assert first["fingerprint"] != second["fingerprint"]
    assert all(type(text) is str for text in [*first["labels"].values()])
    assert "stream-ml dead-letters" == told["commonAnnotations"]["command"]
    assert "subject" not in told["commonLabels"]


def test_a_route_takes_what_it_is_for_from_us_alone(path: Path) -> None:
    """Less grave alerts, other kinds, and what is not sealed with our key go nowhere."""
    route = sml.Route("oncall", severity="critical", kinds=["guard", "records_lost"])
    with receiving() as receiver:
        begin(path)
        forged = encode(Alert("guard", 1, "evaluate", "forged", severity="critical"))
        with SqliteLog.open(path) as log, log.session() as session:
            session.stage([Output("alerts", b"k", forged)])
            session.commit()
        write(
            path,
            Alert("guard", 2, "evaluate", "less grave", severity="warning"),
            alert(3, kind="state_lost"),
            alert(3, "open", kind="window_overflow"),
            alert(4),
        )
        deliver(path, receiver, 1, route=route)

    assert ["number 4"] == summaries(receiver)


def test_what_the_receiver_will_never_take_is_told_and_given_up(path: Path) -> None:
    """It does not hold up for ever what comes behind it; no address is shown, it may be secret."""
    said: list[str] = []
    with receiving(*[400] * TRIES_MAX) as receiver:
        begin(path)
        write(path, alert(1), alert(2))
        deliver(path, receiver, 1, said=said.append)

    assert ["number 2"] == summaries(receiver)
    assert [
        "route oncall, recipient: it answered 400; alerts wait on the log, and it is tried again",
        f"route oncall, recipient: guard is given up after {TRIES_MAX} tries: it answered 400",
    ] == said
    assert "webhook at 127.0.0.1" == str(Webhook(receiver.url))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UsageError("no key"), "the log cannot be read: no key"),
        (
            BadRecord("malformed", "$", "no alert"),
            "the log cannot be read: malformed at $: no alert",
        ),
        (KeyError("offset"), "it has failed: KeyError('offset')"),
    ],
)
def test_a_courier_goes_on_whatever_it_met(path: Path, error: Exception, told: str) -> None:
    """It says so once, tries again, and delivers what waited meanwhile."""
    said: list[str] = []
    errors = [error, error]

    def open_log() -> SqliteLog:
        if errors:
            raise errors.pop()
        return SqliteLog.open(path)

    with receiving() as receiver:
        begin(path)
        write(path, alert(1))
        deliver(path, receiver, 1, said=said.append, open_log=open_log)

    assert ["number 1"] == summaries(receiver)
    end = "; alerts wait on the log, and it is tried again"
    assert [f"route oncall, recipient: {told}{end}"] == said


def test_a_place_that_cannot_be_read_is_no_new_routes(path: Path) -> None:
    """It is told, and what waits is delivered once it can be read; a new route passes it over."""
    said: list[str] = []
    place = path.with_name(f"{path.name}.route-oncall.webhook")
    with receiving() as receiver:
        begin(path)
        write(path, alert(1))
        kept = place.rename(path.with_name("kept"))
        place.mkdir()  # nobody reads a folder, whatever rights he has

        def tell(text: str) -> None:
            said.append(text)
            place.rmdir()
            kept.rename(place)

        deliver(path, receiver, 1, said=tell)

    assert ["number 1"] == summaries(receiver)
    [text] = said
    assert f"how far it was served cannot be read from {place}: Is a directory" in text


# --- commands ---------------------------------------------------------------------------------


def python(code: str) -> tuple[str, ...]:
    """A command that runs some Python."""
    return (sys.executable, "-c", code)


def test_a_command_reads_the_notification_and_none_of_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the JSON on its input; the signing key is not in its environment."""
    monkeypatch.setenv("STREAM_ML_KEY", "5ec3e7")
    monkeypatch.setenv("OTHER", "there")
    code = "import os, sys; open(sys.argv[1], 'w').write(sys.stdin.read() + str(dict(os.environ)))"

    Program([*python(code), str(tmp_path / "told")]).deliver(b'{"version":"4"}')

    told = (tmp_path / "told").read_text(encoding="utf-8")
    assert told.startswith('{"version":"4"}')
    assert "'OTHER': 'there'" in told
    assert "5ec3e7" not in told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("no-such-program-of-ours",), "it does not start: .*no-such-program-of-ours"),
        (python("raise SystemExit(7)"), "it ended with exit code 7"),
        (python("import time; time.sleep(600)"), "it took more than 0.5 s"),
    ],
)
def test_a_command_that_fails_is_tried_again(words: tuple[str, ...], problem: str) -> None:
    """Whatever is wrong with it is said, and none holds a route up for ever."""
    with pytest.raises(DeliveryError, match=problem):
        Program(words, timeout_s=0.5).deliver(b"x" * 1_000_000)


# --- declared and set -------------------------------------------------------------------------


def test_routes_are_checked_where_they_are_declared() -> None:
    """Every mistake at once, each with its path; no address is shown, it may be a secret."""
    routes: Any = [
        sml.Route("On Call", webhook="ftp://secret"),
        sml.Route("a", severity="grave", kinds=["drifts"], command=[""]),
        sml.Route("a"),
        "http://127.0.0.1:9/hook",
    ]
    with pytest.raises(DeclarationError) as raised:
        declared(*routes)

    assert [
        "alerts.routes[0].name",
        "alerts.routes[0].webhook",
        "alerts.routes[1].command",
        "alerts.routes[1].severity",
        "alerts.routes[1].kinds",
        "alerts.routes[2].name",
        "alerts.routes[3]",
    ] == [problem.path for problem in raised.value.problems]
    assert "secret" not in str(raised.value)


def declared(*routes: sml.Route) -> sml.Pipeline:
    """The toy with routes."""
    return replace(toy, alerts=sml.Alerts(routes))


def settings(webhooks: str) -> Settings:
    """What is set."""
    return Settings.load({}, {"STREAM_ML_ALERT_WEBHOOKS": webhooks})


def test_an_address_may_come_from_the_environment() -> None:
    """It takes the place of the declared one, and a route needs one or the other."""
    pipeline = declared(sml.Route("oncall"), ROUTE_B, sml.Route("c", command=["notify"]))

    found = addresses(pipeline.alerts, settings("oncall=http://a.test/x?y=1,2 b=https://b.test"))

    assert [
        ("oncall.webhook", "webhook at a.test"),
        ("b.webhook", "webhook at b.test"),
        ("c.command", "command notify"),
    ] == [(address.name, str(address.recipient)) for address in found]
    with pytest.raises(UsageError, match="webhook or a command of the route 'oncall', given nei"):
        addresses(pipeline.alerts, Settings())
    with pytest.raises(UsageError, match=r"expected routes that are declared \(none\), given 'd'"):
        addresses(toy.alerts, settings("d=http://a.test"))
    with pytest.raises(UsageError, match="ALERT_WEBHOOKS: expected NAME=URL of routes") as raised:
        settings("oncall=secret")
    assert "secret" not in str(raised.value)


# --- beside a worker --------------------------------------------------------------------------


def test_a_receiver_that_does_not_answer_delays_no_stage(tmp_path: Path) -> None:
    """Predictions go on while it waits; the worker is killed, and what it had not told is told."""
    module = tmp_path / "routed.py"
    module.write_text(
        "from dataclasses import replace\nimport stream_ml as sml\nfrom cli_toy import toy\n"
        "routed = replace(toy, alerts=sml.Alerts([sml.Route('oncall')]))\n",
        encoding="utf-8",
    )
    garbage = [Output("events", None, b"{")] * 100
    good = [output for output in outputs(300) if output.topic == "events"]
    with receiving("waits") as receiver:
        variables = {
            "STREAM_ML_PIPELINE": "routed:routed",
            "STREAM_ML_BROKER": "sqlite:log.sqlite",
            "STREAM_ML_ALERT_WEBHOOKS": f"oncall={receiver.url}",
        }
        with Terminal("up", folder=tmp_path, **variables) as worker:
            worker.line_with("serves")
            with SqliteLog.open(tmp_path / "log.sqlite") as log:
                log.append([*garbage, *good[:150]])
                assert receiver.asked.wait(DEADLINE_S)
                log.append(good[150:])
                with closing(log.tail("predictions", {0: 0})) as tail:
                    served = 0
                    while served < 300:
                        served += len(tail.poll(DEADLINE_S))
            worker.process.kill()
        assert [] == receiver.taken
        with Terminal("up", folder=tmp_path, **variables) as worker:
            receiver.wait_for(1)
            ended = worker.stopped()

    assert 0 == ended.code
    assert ["poison_rate"] == [each["commonLabels"]["alertname"] for each in receiver.taken]
