"""The stream of changes: rendered once a second for all, and each viewer at their own pace.

A viewer is told the newest content of each part that has changed since they were told last. So
there is no queue: one who is slow, or whose connection is, skips what they missed, and costs and
holds up nobody. While nobody looks, nothing is read and nothing is rendered.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from stream_ml.errors import StreamMLError, brief_error
from stream_ml.web.page.recent import Recent
from stream_ml.web.page.render import Painter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from markupsafe import Markup

    from stream_ml.pipeline import Pipeline
    from stream_ml.web.board import Board, BoardSnapshot

__all__ = ["Live"]

REFRESH_S = 1.0
# Proxies and browsers close what says nothing for long.
HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class _Part:
    """The content of a part, since which version, and as a message."""

    version: int
    html: Markup
    message: bytes


class Live:
    """What the page shows now, and who waits for more.

    Args:
        board: the views of the log.
        pipeline: the declaration.
        recent: reads single predictions.
        closing: set when the server ends.
        refresh_s: between two refreshes, in seconds.
        checkpoint_s: how often learn and evaluate write down where they are, in seconds.
    """

    def __init__(
        self,
        board: Board,
        pipeline: Pipeline,
        recent: Callable[[], Awaitable[Recent]],
        closing: asyncio.Event,
        refresh_s: float = REFRESH_S,
        *,
        checkpoint_s: float = 0.0,
    ) -> None:
        self._board = board
        self._read_recent = recent
        self._painter = Painter(pipeline, checkpoint_s)
        self._refresh_s = refresh_s
        # Another server counts anew: what a viewer has seen of it says nothing here.
        self._boot = secrets.token_hex(4)
        self._parts: dict[str, _Part] = {}
        self._version = 0
        self._shown: BoardSnapshot | None = None
        self._recent = Recent()
        self._error: str | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._painting = asyncio.Lock()
        self._viewers = 0
        self._closing = closing

    @property
    def seen(self) -> str:
        """Names the newest version, for `stream`."""
        return f"{self._boot}-{self._version}"

    async def parts(self) -> Mapping[str, Markup]:
        """The content of every part now.

        Raises:
            StreamMLError: the log cannot be read.
        """
        await self._refresh()
        return {name: told.html for name, told in self._parts.items()}

    async def stream(self, seen: str) -> AsyncGenerator[bytes]:
        """Server-sent events: what has changed since a version, and then what changes.

        Args:
            seen: as `seen` was; of another server, or anything else, all is told.
        """
        boot, _, number = seen.rpartition("-")
        told = int(number) if boot == self._boot and number.isdecimal() else -1
        self._viewers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        error: str | None = None
        try:
            yield b"retry: 2000\n\n"
            while not self._closing.is_set():
                changed = self._changed
                news = [each.message for each in self._parts.values() if each.version > told]
                if self._error != error:
                    error = self._error
                    news.append(_message("trouble", error or ""))
                if news:
                    told = self._version
                    yield b"".join([*news, f"id: {self.seen}\nevent: seen\ndata:\n\n".encode()])
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await changed.wait()
                except TimeoutError:
                    yield b": alive\n\n"
        finally:
            self._viewers -= 1

    async def _work(self) -> None:
        """Refresh for as long as anybody looks."""
        while self._viewers and not self._closing.is_set():
            error = None
            try:
                await self._refresh()
            except StreamMLError as trouble:
                error = str(trouble)
            except Exception as trouble:  # noqa: BLE001 - whoever looks is told of any fault
                error = f"this is old, and the page cannot be made anew: {brief_error(trouble)}"
            if error != self._error:
                self._error = error
                self._wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._refresh_s):
                    await self._closing.wait()

    async def _refresh(self) -> None:
        async with self._painting:
            snapshot = await self._board.snapshot()
            if snapshot is self._shown:
                return
            if self._shown is None or snapshot.number != self._shown.number:
                self._recent = await self._read_recent()
            # Rendering holds the interpreter but for a few ms in a second.
            bodies = await asyncio.to_thread(self._painter.paint, snapshot, self._recent)
            self._shown = snapshot
            changed = [
                name
                for name, html in bodies.items()
                if name not in self._parts or self._parts[name].html != html
            ]
            if not changed:
                return
            self._version += 1
            for name in changed:
                html = bodies[name]
                self._parts[name] = _Part(
                    self._version, html, _message("part", {"name": name, "html": html})
                )
            self._wake()

    def _wake(self) -> None:
        former, self._changed = self._changed, asyncio.Event()
        with suppress(RuntimeError):  # the loop has ended
            former.set()


def _message(event: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))
