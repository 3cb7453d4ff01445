"""The live page in a real Chromium: it updates by itself, acts, refuses, and can be read by all."""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from stream_ml.client import Publisher
from stream_ml.examples.cards import cards, transactions
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.web.access import OPERATE, READ, Access, token_with_roles
from stream_ml.web.app import create_app
from stream_ml.web.listening import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import FastAPI
    from playwright.sync_api import Browser, BrowserContext, Page

KEY = b"k" * 32
READER, ANA = "r" * 40, "a" * 40
HOSTILE = "<img src=x onerror=document.title='hostile'>"
EVENTS, LABELS = transactions(2_400, seed=1)
FIRST = 1_500
WAIT_MS = 20_000
# What reaches beyond the screen, but for what scrolls by itself.
WIDER = """() => [...document.querySelectorAll("body *")]
    .filter((each) => !each.closest(".scroll, .jump, .skip, .hidden"))
    .filter((each) => each.getBoundingClientRect().right > window.innerWidth + 1)
    .map((each) => each.outerHTML.slice(0, 80))"""
# Texts of charts that are hard to read.
SMALL = """() => [...document.querySelectorAll(".chart text")]
    .filter((each) => each.getBoundingClientRect().height > 0)
    .map((each) => each.getScreenCTM().a * parseFloat(getComputedStyle(each).fontSize))
    .filter((pixels) => pixels < 9)"""
LIST_FITS = """() => {
    const list = document.querySelector(".jump ul");
    return list.scrollWidth <= list.clientWidth;
}"""
PHONE = 560
# A browser in a container, which is to ask nobody for anything.
CHROMIUM = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
]


@contextmanager
def worker(path: Path) -> Iterator[None]:
    """A worker on a log, in a thread."""
    stop = threading.Event()

    def work() -> None:
        with SqliteLog.open(path) as log, Runner(log, cards, KEY) as runner:
            while not stop.is_set():
                if not runner.run():
                    stop.wait(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def publish(path: Path, first: int, end: int) -> None:
    """Publish so many of the events, with all of their labels."""
    ids = {event["event_id"] for event in EVENTS[first:end]}
    with SqliteLog.open(path) as log, Publisher(log, cards) as publisher:
        for event in EVENTS[first:end]:
            publisher.post_event(event)
        for label in LABELS:
            if label["event_id"] in ids:
                publisher.post_label(label)


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A log with a worker on it, and a record of a hostile client."""
    path: Path = tmp_path_factory.mktemp("browser") / "log.sqlite"
    SqliteLog.create(path).close()
    publish(path, 0, FIRST)
    hostile = {**EVENTS[0], "event_id": HOSTILE, HOSTILE: HOSTILE, "amount": HOSTILE}
    with SqliteLog.open(path) as log:
        log.append([Output("events", b"any", orjson.dumps(hostile))])
    with worker(path):
        yield path


@pytest.fixture(scope="module")
def address(log_path: Path) -> Iterator[str]:
    """A server on it, which lets nobody in without a token."""
    access = Access(
        {
            "reader": token_with_roles(READER, [READ]),
            "ana": token_with_roles(ANA, [READ, OPERATE]),
        }
    )
    settings = Settings(broker=f"sqlite:{log_path}", key=KEY)
    app = create_app(settings, cards, access)
    with bind("127.0.0.1", 0) as listener, serving(app, listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def serving(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    """The application at work in a thread."""
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    program = shutil.which("chromium")
    assert program is not None, (
        "no chromium: `apt-get install chromium`, as `make test-extras` does"
    )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield chromium
        chromium.close()


class Visit:
    """A page that is looked at, and all that its browser complained of and asked for."""

    def __init__(self, context: BrowserContext, address: str, token: str) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.goto(f"{address}/")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.locator("#link")).to_have_text("live", timeout=WAIT_MS)


@contextmanager
def visit(browser: Browser, address: str, token: str, **options: Any) -> Iterator[Visit]:
    """A visit by whoever has a token; it must end without complaints, and stay on this server."""
    with browser.new_context(**options) as context:
        found = Visit(context, address, token)
        yield found
        assert [] == found.complaints
        assert [] == [each for each in found.addresses if not each.startswith(address)]


def test_page_updates_by_itself(browser: Browser, address: str, log_path: Path) -> None:
    """What is published shows without a load; what is open stays open, and focus stays."""
    with visit(browser, address, READER) as seen:
        page = seen.page
        page.get_by_text("Each task", exact=True).click()
        page.get_by_label("Of one key").fill("half a w")
        before = page.locator("#body-flow tbody tr").first.inner_text()
        loads = sum(each.endswith("/page") for each in seen.addresses)
        publish(log_path, FIRST, 1_900)
        first_task = page.locator("#body-flow tbody tr").first
        expect(first_task).not_to_have_text(before, timeout=WAIT_MS)
        expect(page.locator("#flow-tasks")).to_have_attribute("open", "")
        expect(page.get_by_label("Of one key")).to_be_focused()
        expect(page.get_by_label("Of one key")).to_have_value("half a w")
        assert loads == sum(each.endswith("/page") for each in seen.addresses)


def test_operator_promotes_and_sees_it(browser: Browser, address: str) -> None:
    """The worker's answer shows at once, and so does the new champion; a second try is refused."""
    with visit(browser, address, ANA) as seen:
        page = seen.page
        [cookie] = page.context.cookies()
        assert (True, "Strict") == (cookie["httpOnly"], cookie["sameSite"])
        line = str(page.locator("#body-choices option").first.get_attribute("value"))
        page.get_by_label("Reason").fill("it looks better")
        page.get_by_role("combobox", name="Line").select_option(line)
        page.get_by_role("button", name="Promote the line").click()
        confirm = page.get_by_role("button", name=f"Yes, promote {line}")
        expect(confirm).to_be_focused(timeout=WAIT_MS)
        expect(page.locator("#confirm-form")).to_contain_text("would serve in the place of")
        expect(page.locator("#confirm-form q")).to_have_text("it looks better")
        page.get_by_role("link", name="No, leave it").click()
        expect(page.locator("#answer")).to_be_empty()
        page.get_by_role("button", name="Promote the line").click()
        confirm.press("Enter", timeout=WAIT_MS)
        expect(page.locator("#answer")).to_contain_text("carried out", timeout=WAIT_MS)
        champion = page.locator(f'#body-champion [data-line="{line}"]')
        expect(champion).to_be_visible(timeout=WAIT_MS)
        expect(page.locator("#body-champion q")).to_have_text("it looks better")
        page.locator("#answer a.record").click()
        expect(page.get_by_role("dialog")).to_contain_text("it looks better")
        page.keyboard.press("Escape")
        page.get_by_role("combobox", name="Line").select_option(line)
        page.get_by_label("Reason").fill("once more")
        page.get_by_role("button", name="Promote the line").click()
        page.get_by_role("button", name=f"Yes, promote {line}").click(timeout=WAIT_MS)
        expect(page.locator("#answer")).to_contain_text("refused", timeout=WAIT_MS)
        # The browser itself tells of an answer that is none of 2xx.
        seen.complaints = [each for each in seen.complaints if "409" not in each]


def test_reader_may_not_act(browser: Browser, address: str) -> None:
    """Whoever has no role sees no form, and one that they make up is refused."""
    with visit(browser, address, READER) as seen:
        page = seen.page
        expect(page.locator("#act")).to_have_count(0)
        champion = page.locator("#body-champion .big").inner_text()
        answer = page.request.post(
            f"{address}/page/command", form={"kind": "pause", "reason": "mine", "form_token": "x"}
        )
        assert 403 == answer.status
        assert "operate" in answer.text()
        expect(page.locator("#body-champion .big")).to_have_text(champion)


def test_hostile_texts_do_nothing(browser: Browser, address: str) -> None:
    """What a client wrote is read as text, in the part and in the record that it opens."""
    with visit(browser, address, READER) as seen:
        page = seen.page
        expect(page.locator("#body-letters")).to_contain_text("<img src=x")
        page.locator("#body-letters a.record").first.click()
        expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
        assert 0 == page.locator("dialog img").count()
        assert "hostile" != page.title()


def test_a_refused_record_is_told_in_words(browser: Browser, address: str) -> None:
    """A refusal is read as text, whatever it says, and not as the data that it came in."""
    with visit(browser, address, READER) as seen:
        page = seen.page
        hostile = quote(HOSTILE, safe="")
        for place, words in (("0/999999999", "there is no"), (f"0/{hostile}", "valid integer")):
            anchor = page.locator("#body-letters a.record").first
            anchor.evaluate("(each, to) => each.href = to", f"/page/predictions/{place}")
            anchor.click()
            expect(page.get_by_role("dialog")).to_contain_text(words)
            assert "{" not in page.locator("#record-body").inner_text()
            assert 0 == page.locator("dialog img").count()
            page.keyboard.press("Escape")
        # The browser itself tells of an answer that is none of 2xx.
        seen.complaints = [each for each in seen.complaints if "status of 4" not in each]


@pytest.mark.parametrize(("width", "scheme"), [(1_280, "light"), (390, "light"), (1_280, "dark")])
def test_page_can_be_read_by_all(browser: Browser, address: str, width: int, scheme: str) -> None:
    """Axe finds no serious fault, nothing is wider than the screen, and the verdicts are on it."""
    options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    with visit(browser, address, ANA, **options) as seen:
        page = seen.page
        violations = Axe().run(page).response["violations"]
        grave = [
            (each["id"], each["nodes"][0]["html"])
            for each in violations
            if each["impact"] in {"serious", "critical"}
        ]
        assert [] == grave
        assert [] == page.evaluate(WIDER)
        assert width == page.evaluate("document.documentElement.scrollWidth")
        [desk, phone] = (page.locator(f"#body-scores .on-{form}") for form in ("desk", "phone"))
        assert (width > PHONE, width <= PHONE) == (desk.is_visible(), phone.is_visible())
        verdict = page.locator("#body-lines td:nth-of-type(1) .pill").last.bounding_box()
        assert verdict is not None
        assert verdict["x"] + verdict["width"] < width
        assert [] == page.evaluate(SMALL)
        # On a desk the list of parts needs no scrolling.
        assert width <= PHONE or page.evaluate(LIST_FITS)
