"""The live page as the server makes it: parts, charts, hostile texts, the stream."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import replace
from html.parser import HTMLParser
from threading import Event
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import httpx
import orjson
import pytest

from stream_ml.client import Publisher, open_log
from stream_ml.examples.cards import cards, transactions
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.web.access import OPERATE, READ, Access
from stream_ml.web.app import create_app
from stream_ml.web.board import Board
from stream_ml.web.page.charts import Chart, Curve, draw, log_ticks, ticks
from stream_ml.web.page.live import Live
from stream_ml.web.page.recent import Recent
from stream_ml.web.page.render import PARTS, Painter
from stream_ml.web.page.routes import SEARCHES_MAX
from tests.payments_log import publish_payments

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from stream_ml.web.board import BoardSnapshot

KEY = b"k" * 32
HOSTILE = '<img src=x onerror="alert(1)">\u202e</script><script>alert(2)</script>'
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log on which 1,500 payments were worked on, and an event of a hostile client refused."""
    path: Path = tmp_path_factory.mktemp("page") / "log.sqlite"
    events, labels = transactions(1_500, seed=1)
    with SqliteLog.create(path) as log:
        publish_payments(log, events, labels)
        hostile = {**events[0], "event_id": HOSTILE, HOSTILE: 1, "amount": HOSTILE}
        log.append([Output("events", b"any", orjson.dumps(hostile))])
        with Runner(log, cards, KEY) as runner:
            runner.run()
    return path


def settings_of(path: Path) -> Settings:
    """The settings of a server on a log."""
    return Settings(broker=f"sqlite:{path}", key=KEY)


async def no_predictions() -> Recent:
    """No single predictions."""
    return Recent()


def snapshot_of(path: Path) -> BoardSnapshot:
    """The views of a log."""
    return with_board(path, lambda board: board.snapshot())


def with_board(path: Path, use: Callable[[Board], Awaitable[Any]]) -> Any:
    """What is made of a board on a log, in a loop of its own."""
    settings = settings_of(path)

    async def run() -> Any:
        board = Board(lambda: open_log(settings, cards.name), settings, "automatic", 0.0)
        board.start()
        try:
            return await use(board)
        finally:
            board.close()

    return asyncio.run(run())


def get(
    path: Path, address: str, roles: frozenset[str] = frozenset({READ}), **request: Any
) -> httpx.Response:
    """What the server answers on a log; to a form where there is one."""

    async def run() -> httpx.Response:
        app = create_app(settings_of(path), cards, Access({}, roles))
        app.state.service.start()
        transport = httpx.ASGITransport(app)
        try:
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                return await client.request("POST" if request else "GET", address, **request)
        finally:
            app.state.service.close()

    return asyncio.run(run())


# --- the page ---------------------------------------------------------------------------------


def test_page_shows_what_serves(log_path: Path) -> None:
    """The champion, who decided it and why, every line, and a heading for every part."""
    page = get(log_path, "/page")
    assert (200, "text/html; charset=utf-8") == (page.status_code, page.headers["content-type"])
    registry = snapshot_of(log_path).status.registry
    assert f'data-line="logistic">{registry.champion}</p>' in page.text
    assert registry.newest is not None
    for model in registry.newest.serving.challengers.values():
        assert f"{model.model}</th>" in page.text
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page.text)
    assert [part.title for part in PARTS] == headings
    assert "/page/predictions/0/" in page.text


def test_page_takes_nothing_from_elsewhere(log_path: Path) -> None:
    """The policy allows this server's own files alone; the page has no script or style in it."""
    page = get(log_path, "/page")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    elements = elements_of(page.text)
    assert [] == [at for tag, at in elements if tag == "script" and "src" not in at]
    names = {name for _, attributes in elements for name in attributes}
    assert set() == {name for name in names if name == "style" or name.startswith("on")}
    assert "style" not in {tag for tag, _ in elements}
    addresses = [at[name] for _, at in elements for name in ("src", "href", "action") if name in at]
    assert [] == [each for each in addresses if not str(each).startswith(("/page", "/v1/", "#"))]


def test_texts_of_clients_stay_text(log_path: Path) -> None:
    """What a hostile client wrote is shown, and is neither an element nor turns the writing."""
    page = get(log_path, "/page").text
    assert "&lt;img src=x onerror=" in page
    assert "\u202e" not in page
    assert ["/page/static/icon.svg"] == [at["src"] for tag, at in elements_of(page) if tag == "img"]
    assert 2 == sum(tag == "script" for tag, _ in elements_of(page))


def test_page_of_an_empty_log(tmp_path: Path) -> None:
    """Before anything was published every part says so."""
    path = tmp_path / "log.sqlite"
    SqliteLog.create(path).close()
    page = get(path, "/page")
    assert 200 == page.status_code
    assert "Nothing serves yet" in page.text
    assert "The log is empty" in page.text


def test_who_may_not_read_is_asked_to_log_in(log_path: Path) -> None:
    """Without the role nothing is shown, and the stream is refused."""
    page = get(log_path, "/page", frozenset())
    assert (303, "/page/login") == (page.status_code, page.headers["location"])
    assert 401 == get(log_path, "/v1/stream/page", frozenset()).status_code


def elements_of(text: str) -> list[tuple[str, dict[str, str | None]]]:
    """The elements of a page, as a browser reads it, each with its attributes."""
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Reader().feed(text)
    return found


def test_a_prediction_is_made_again_and_followed(log_path: Path) -> None:
    """Its record opens with features and label; its answers are made again; its way is told."""
    snapshot_text = get(log_path, "/page").text
    href = re.findall(r'href="(/page/examples/0/\d+)"', snapshot_text)[0]
    record = get(log_path, href).text
    assert "<dt>label after</dt>" in record
    assert re.search(r"<h2>Features</h2><dl class=\"rows\"><div>", record)
    again = get(log_path, f"{href}/again").text
    assert "Every answer is the one that was logged" in again
    trace = get(log_path, f"{href}/trace").text
    steps = re.findall(r"<dt>(published|predicted|label|joined)", trace)
    assert ["published", "predicted", "label", "joined"] == steps
    assert 404 == get(log_path, "/page/examples/0/999999").status_code
    assert 401 == get(log_path, href, frozenset()).status_code


def test_form_of_another_page_is_refused(log_path: Path) -> None:
    """A command needs the token of a page of ours, and a page of another site sends none."""
    form = {"kind": "pause", "reason": "theirs", "form_token": "x"}
    roles = frozenset({READ, OPERATE})
    refused = get(log_path, "/page/command", roles, data=form)
    assert (403, True) == (refused.status_code, "load the page again" in refused.text)
    foreign = {"origin": "http://elsewhere.example"}
    refused = get(log_path, "/page/command", roles, data=form, headers=foreign)
    assert (403, "cross_site") == (refused.status_code, refused.json()["reason"])
    assert snapshot_of(log_path).status.paused is None


def test_few_searches_wait_for_each_other(log_path: Path) -> None:
    """However many search at once, few are at work or wait, and the others are refused at once."""
    snapshot_text = get(log_path, "/page").text
    href = re.findall(r'href="(/page/examples/0/\d+)"', snapshot_text)[0]
    addresses = [href, f"{href}/again", f"{href}/trace", "/page/keys?of=any"] * 5

    async def search() -> tuple[list[int], list[int]]:
        app = create_app(settings_of(log_path), cards, Access({}, frozenset({READ})))
        service, release = app.state.service, Event()
        service.start()
        transport = httpx.ASGITransport(app)
        try:
            # Every thread that reads is held, so that no search ends before it may.
            held = [asyncio.create_task(service.pool.run(lambda _: release.wait())) for _ in "ab"]
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                asked = [asyncio.create_task(client.get(each)) for each in addresses]
                async with asyncio.timeout(20):
                    while sum(task.done() for task in asked) < len(asked) - SEARCHES_MAX:
                        left = [task for task in asked if not task.done()]
                        await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                left = [task for task in asked if not task.done()]
                refused = [task.result().status_code for task in asked if task.done()]
                release.set()
                found = [(await task).status_code for task in left]
            await asyncio.gather(*held)
            return refused, found
        finally:
            release.set()
            service.close()

    refused, found = asyncio.run(search())
    assert ([503] * (len(addresses) - SEARCHES_MAX), [200] * SEARCHES_MAX) == (refused, found)


# --- the stream -------------------------------------------------------------------------------


def test_stream_tells_changes_alone(log_path: Path) -> None:
    """A viewer gets every part once; one who has seen them gets nothing until something changes."""

    async def watch(board: Board) -> tuple[list[str], list[str]]:
        closing = asyncio.Event()
        live = Live(board, cards, no_predictions, closing, refresh_s=0.01)
        await live.parts()
        seen = live.seen
        firsts, seconds = [], []
        async with aclosing(live.stream("")) as stream:
            await anext(stream)
            firsts = names_in(await anext(stream))
        async with aclosing(live.stream(seen)) as stream:
            await anext(stream)
            waiting = asyncio.ensure_future(anext(stream))
            publish(log_path, "later")
            seconds = names_in(await waiting)
        closing.set()
        return firsts, seconds

    firsts, seconds = with_board(log_path, watch)
    assert sorted([*(part.name for part in PARTS), "state", "choices"]) == sorted(firsts)
    assert ["flow"] == seconds


def names_in(messages: bytes) -> list[str]:
    """The parts that a message of the stream renews."""
    parts = re.findall(rb"event: part\ndata: (.*)\n", messages)
    return [orjson.loads(part)["name"] for part in parts]


def publish(path: Path, event_id: str) -> None:
    """One more event, which nobody works on."""
    [event], _ = transactions(1, seed=2)
    with SqliteLog.open(path) as log, Publisher(log, cards) as publisher:
        publisher.publish_event({**event, "event_id": event_id})


def test_one_who_is_slow_skips(log_path: Path) -> None:
    """Of what changes twice while a viewer takes nothing, they get the newest once."""

    async def watch(board: Board) -> list[str]:
        closing = asyncio.Event()
        live = Live(board, cards, no_predictions, closing, refresh_s=0.01)
        async with aclosing(live.stream("")) as stream:
            await anext(stream)
            await anext(stream)
            versions = []
            for number in range(2):
                before = live.seen
                publish(log_path, f"slow-{number}")
                while live.seen == before:
                    await live.parts()
                versions.append(live.seen)
            text = (await anext(stream)).decode()
        closing.set()
        return [str(text.count("event: part")), re.findall("id: (.*)", text)[0], versions[-1]]

    count, told, newest = with_board(log_path, watch)
    assert ("1", newest) == (count, told)


def test_a_fault_of_ours_is_told_and_passes(log_path: Path) -> None:
    """Where the page cannot be made, viewers are told why; the stream goes on once it can."""
    faults = [ValueError("<once>")]

    async def recent() -> Recent:
        if faults:
            raise faults.pop()
        return Recent()

    async def watch(board: Board) -> list[bytes]:
        closing = asyncio.Event()
        live = Live(board, cards, recent, closing, refresh_s=0.01)
        async with asyncio.timeout(10), aclosing(live.stream("")) as stream:
            await anext(stream)
            messages = [await anext(stream)]
            while b"event: part" not in messages[-1]:
                messages.append(await anext(stream))
            if b"event: trouble" not in messages[-1]:
                messages.append(await anext(stream))
        closing.set()
        return messages

    messages = with_board(log_path, watch)
    told = [
        orjson.loads(each)
        for message in messages
        for each in re.findall(rb"event: trouble\ndata: (.*)\n", message)
    ]
    assert ["this is old, and the page cannot be made anew: ValueError('<once>')", ""] == told


# --- rendering --------------------------------------------------------------------------------


def test_same_content_is_rendered_once(log_path: Path) -> None:
    """Of two snapshots that say the same, the second one's parts are the very same objects."""
    snapshot, painter = snapshot_of(log_path), Painter(cards)
    first = painter.paint(snapshot, Recent())
    second = painter.paint(replace(snapshot, taken_ms=snapshot.taken_ms + 1_000), Recent())
    assert [] == [name for name in first if name != "flow" and first[name] is not second[name]]
    third = painter.paint(replace(snapshot, number=snapshot.number + 1), Recent())
    assert first["scores"] is third["scores"]


def test_what_could_not_be_rendered_is_rendered_again(log_path: Path) -> None:
    """A snapshot that failed once is not taken as shown: next time every part is made."""
    snapshot, painter = snapshot_of(log_path), Painter(cards)
    broken: Any = None
    with pytest.raises(TypeError):
        painter.paint(replace(snapshot, evaluations=broken), Recent())
    parts = painter.paint(snapshot, Recent())
    assert {*(part.name for part in PARTS), "state", "choices"} == parts.keys()


def test_rate_and_stillness(log_path: Path) -> None:
    """A stage's rate is of the time between looks; one that has to read and does not is told of."""
    snapshot, painter = snapshot_of(log_path), Painter(cards)
    painter.paint(snapshot, Recent())
    stages = tuple(
        replace(each, position=each.position + 500, lag=7) for each in snapshot.status.stages
    )
    status = replace(snapshot.status, stages=stages)
    moved = replace(snapshot, status=status, taken_ms=snapshot.taken_ms + 10_000)
    assert "50<span" in painter.paint(moved, Recent())["flow"]
    still = replace(moved, taken_ms=moved.taken_ms + 11_000)
    assert "nothing moves" in painter.paint(still, Recent())["flow"]


# --- charts -----------------------------------------------------------------------------------


def test_chart_is_drawn_to_scale() -> None:
    """Higher values lie higher, later ones further right; a log axis has powers at equal steps."""
    curve = Curve("e", 1, [(0.0, 1.0), (1_000.0, 10.0), (2_000.0, 100.0)])
    root = ET.fromstring(draw(Chart("c", "t", "d", [curve], logarithmic=True)))  # noqa: S314
    [line] = root.iterfind("polyline")
    points = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert ["t", "d"] == [root.findtext("title"), root.findtext("desc")]


def test_chart_bears_any_values() -> None:
    """No value or name that a log can hold breaks the picture."""
    values = [0.0, float("nan"), 1e-320, 1e308, -1.0, float("inf")]
    curve = Curve(HOSTILE, 1, [(float(at), value) for at, value in enumerate(values)])
    for logarithmic in (True, False):
        ET.fromstring(draw(Chart("c", HOSTILE, "d", [curve], logarithmic)))  # noqa: S314
    assert "" == draw(Chart("c", "t", "d", [Curve("none", 0, [])]))


def test_ticks_are_round_and_few() -> None:
    """A person can read every tick of an axis."""
    assert [0.0, 20.0, 40.0, 60.0, 80.0, 100.0] == ticks(0, 100)
    assert [-0.4, -0.2, 0.0, 0.2, 0.4] == ticks(-0.5, 0.5)
    assert len(log_ticks(1e-30, 1e30)) <= 7
