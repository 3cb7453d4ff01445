"""The gate of the server: which hosts, pages, tokens, rates and bodies come in; with the extras."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI, Request

from stream_ml.cli.execution.serve import server_names
from stream_ml.cli.main import main
from stream_ml.errors import UsageError
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.web.access import Access, parse_tokens
from stream_ml.web.gate import Gate, Limits
from stream_ml.web.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READER, SHOP, ANA = "r" * 40, "s" * 40, "a" * 40
TOKENS = f"""
[tokens.reader]
token = "{READER}"
roles = ["read"]
[tokens.shop]
token = "{SHOP}"
roles = ["read", "publish"]
[tokens.ana]
token = "{ANA}"
roles = ["read", "operate"]
"""


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


async def _echo(request: Request) -> dict[str, Any]:
    caller = request.state.caller
    return {"caller": caller.name, "length": len(await request.body())}


def application(anonymous: tuple[str, ...] = (), **gate: Any) -> FastAPI:
    """An application that tells who called, behind a gate."""
    app = FastAPI()
    for path in ("/v1/predict", "/v1/commands/promote", "/v1/status", "/healthz", "/readyz"):
        app.add_api_route(path, _echo, methods=["GET", "POST"])
    access = Access(parse_tokens("tokens.toml", TOKENS), frozenset(anonymous))
    app.add_middleware(Gate, **{"access": access, "limits": Limits(), **gate})
    return app


def send(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    """One request as a client on this machine sends it."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return await http.request(method, path, **request)

    return asyncio.run(call())


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/status", {}, 401),
        ("GET", "/v1/status", bearer("x" * 40), 401),
        ("GET", "/v1/status", {"Authorization": f"Basic {READER}"}, 401),
        ("GET", "/v1/status", bearer(READER), 200),
        ("POST", "/v1/predict", bearer(READER), 403),
        ("POST", "/v1/predict", bearer(SHOP), 200),
        ("POST", "/v1/commands/promote", bearer(SHOP), 403),
        ("POST", "/v1/commands/promote", bearer(ANA), 200),
        ("POST", "/v1/predict", bearer(ANA), 403),
        # Orchestrators have no tokens.
        ("GET", "/healthz", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("POST", "/readyz", {}, 401),
        # What nobody has thought of takes the strongest role.
        ("POST", "/v1/status", bearer(SHOP), 403),
    ],
)
def test_each_role_may_what_it_is_for_and_no_more(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """A token reads, publishes or commands as its roles say; without one nothing."""
    assert status == send(application(), method, path, headers=headers).status_code


def test_a_probe_is_a_look_and_nothing_else() -> None:
    """Where all places are taken a probe is answered; what only bears its name waits as others."""
    app = application(limits=Limits(concurrency=0))
    requests = [("GET", "/readyz", {}), ("POST", "/readyz", bearer(ANA)), ("GET", "/", {})]

    assert [200, 503, 503] == [send(app, m, p, headers=h).status_code for m, p, h in requests]


def test_an_answer_that_fails_is_counted() -> None:
    """Of an error within, too, whoever scrapes is told: it is the worst answer of all."""
    traffic = Traffic()
    app = application(traffic=traffic)

    async def fail() -> None:
        raise ValueError("broken")

    app.add_api_route("/v1/status/{name}", fail)
    with pytest.raises(ValueError, match="broken"):
        send(app, "GET", "/v1/status/a", headers=bearer(READER))

    assert {("/v1/status/{name}", "500"): 1} == dict(traffic.requests)
    assert 1 == sum(traffic.seconds["/v1/status/{name}"].counts)


def test_without_tokens_the_roles_are_those_of_anybody() -> None:
    """On loopback whoever is on this machine may have roles; commands are not among them."""
    app = application(anonymous=("read", "publish"))

    answers = [
        send(app, *request).status_code
        for request in (
            ("GET", "/v1/status"),
            ("POST", "/v1/predict"),
            ("POST", "/v1/commands/promote"),
        )
    ]

    assert [200, 200, 401] == answers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_a_page_of_another_site_can_change_nothing(headers: dict[str, str], status: int) -> None:
    """A browser's request that another site has made is refused, token or not."""
    assert (
        status
        == send(application(), "POST", "/v1/predict", headers=bearer(SHOP) | headers).status_code
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("127.0.0.1", 200),
        ("rebound.evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_a_name_that_was_pointed_here_reads_nothing(host: str, status: int) -> None:
    """Where the server is for this machine alone, requests for other names are refused."""
    app = application(anonymous=("read",))

    assert status == send(app, "GET", "/v1/status", headers={"Host": host}).status_code


def test_a_token_in_an_address_is_refused() -> None:
    """A secret that would lie in histories is refused, and where it belongs is said."""
    answer = send(application(), "GET", f"/v1/status?token={READER}", headers=bearer(READER))

    assert (400, "secret_in_address") == (answer.status_code, answer.json()["reason"])
    assert READER not in answer.text


def test_a_caller_may_send_so_many_a_second() -> None:
    """Beyond the rate a caller is told when to come again; other callers are not held up."""
    clock = Clock()
    app = application(limits=Limits(rate=2), clock=clock)

    def statuses(token: str, count: int) -> list[int]:
        return [
            send(app, "GET", "/v1/status", headers=bearer(token)).status_code for _ in range(count)
        ]

    first = statuses(READER, 3)
    other = statuses(SHOP, 1)
    refused = send(app, "GET", "/v1/status", headers=bearer(READER))
    clock.seconds += 0.5

    assert [200, 200, 429] == first
    assert [200] == other
    assert "1" == refused.headers["Retry-After"]
    assert [200, 429] == statuses(READER, 2)


async def _in_parts(*sizes: int) -> Any:
    for size in sizes:
        yield b"x" * size


def test_whoever_tries_tokens_is_held_to_the_rate() -> None:
    """Guesses count for the address that they come from, and hold up no caller with a token."""
    app = application(limits=Limits(rate=2), clock=Clock())

    guesses = [
        send(app, "GET", "/v1/status", headers=bearer(str(number) * 40)).status_code
        for number in range(4)
    ]
    known = send(app, "GET", "/v1/status", headers=bearer(READER)).status_code

    assert ([401, 401, 429, 429], 200) == (guesses, known)


def test_a_token_of_the_environment_takes_no_other_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that has a token of that name is refused, before anything is served."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tokens.toml"
    file.write_text(TOKENS.replace("tokens.ana", "tokens.environment"))
    file.chmod(0o600)
    monkeypatch.setenv("STREAM_ML_HTTP_TOKEN", "e" * 40)
    SqliteLog.create(tmp_path / "stream_ml.sqlite").close()
    pipeline = "stream_ml.examples.cards:cards"

    code = main(["--pipeline", pipeline, "serve", "--port", "0", "--tokens", str(file)])

    assert 2 == code
    said = capsys.readouterr().err
    assert f"{file}: [tokens.environment]: expected another name" in said
    assert "e" * 40 not in said


@pytest.mark.parametrize(
    ("given", "named"),
    [("127.0.0.2", "127.0.0.2"), ("0:0:0:0:0:0:0:1", "[::1]"), ("localhost", "localhost")],
)
def test_the_address_where_it_listens_is_a_name_of_it(given: str, named: str) -> None:
    """A request for the address that `serve` prints is answered."""
    app = application(hosts=server_names(given, []))

    headers = {**bearer(READER), "Host": f"{named}:8000"}
    assert 200 == send(app, "GET", "/v1/status", headers=headers).status_code
    other = {**bearer(READER), "Host": "127.0.0.3:8000"}
    assert 421 == send(app, "GET", "/v1/status", headers=other).status_code


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (lambda: b"x" * 100, 200),
        (lambda: b"x" * 101, 413),
        (lambda: _in_parts(50, 50), 200),
        (lambda: _in_parts(50, 50, 1), 413),
    ],
)
def test_a_body_is_bounded_also_where_nobody_says_how_long_it_is(
    content: Callable[[], Any], status: int
) -> None:
    """A request with more than a bounded body is refused, whatever its headers say."""
    app = application(limits=Limits(body_bytes=100))

    assert (
        status
        == send(app, "POST", "/v1/predict", headers=bearer(SHOP), content=content()).status_code
    )


def test_every_answer_has_the_headers_that_keep_browsers_careful() -> None:
    """No other site may frame, read or keep an answer, also of a refusal."""
    app = application()
    answers = [
        send(app, "GET", "/v1/status", headers=bearer(READER)),
        send(app, "GET", "/v1/status"),
    ]

    for answer in answers:
        assert "nosniff" == answer.headers["X-Content-Type-Options"]
        assert "no-store" == answer.headers["Cache-Control"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "no TOML"),
        ("[others]", "expected tables"),
        ('[tokens.a]\ntoken="short"\nroles=["read"]', "at least 32"),
        (f'[tokens.a]\ntoken="{SHOP}"\nroles=["admin"]', "expected some of"),
        (f'[tokens.a]\ntoken="{SHOP}"\nroles=[]', "expected some of"),
        (f'[tokens.anonymous]\ntoken="{SHOP}"\nroles=["read"]', "another name"),
        (
            "\n".join(f'[tokens.{name}]\ntoken="{SHOP}"\nroles=["read"]' for name in "ab"),
            "given one twice",
        ),
    ],
)
def test_a_wrong_file_of_tokens_is_refused_in_words_that_do_not_repeat_them(
    text: str, words: str
) -> None:
    """A mistake in the file is named by its place; no token is shown."""
    with pytest.raises(UsageError, match=words) as refused:
        parse_tokens("tokens.toml", text)

    assert SHOP not in str(refused.value)
