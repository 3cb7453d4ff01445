"""Whether a server is healthy, and ready, asked on its own port or from another thread.

It is *healthy* while its loop and its log answer: starting it again mends nothing else. It is
*ready* when predictions are answered: they can be read and told from forgeries, and predict has a
worker that answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from stream_ml.errors import StreamMLError
from stream_ml.web.access import READ
from stream_ml.web.answers import json_response
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_ml.web.service import Service

__all__ = ["ServiceProbes", "probe_router"]

# How long the log is waited for, and the loop by who asks from another thread.
ANSWER_S, LOOP_S = 5.0, 7.0


class ServiceProbes:
    """Tells whether a server is well; each answer is what is wrong, and empty where nothing is.

    Args:
        service: of the server.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def healthy(self) -> tuple[str, ...]:
        """Whether the log answers."""
        found = await self._look()
        return (found,) if isinstance(found, str) else ()

    async def ready(self) -> tuple[str, ...]:
        """Whether predictions are answered."""
        found = await self._look()
        if isinstance(found, str):
            return (found,)
        problems = [*self._service.predictor.problems()]
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._service.authenticity.require()
        except Refusal as refusal:
            problems.append(refusal.detail)
        except TimeoutError:
            problems.append("the key of predictions has not been read yet")
        if found is not None and "predict" not in found:
            problems.append("no worker of predict is at work")
        return tuple(problems)

    async def _look(self) -> frozenset[str] | str | None:
        """The stages at work, as far as that is known; or why the log cannot be read."""
        if self._service.closing.is_set():
            return "it ends"
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._service.at_work.get()
        except TimeoutError:
            return f"the log has not answered for {ANSWER_S:g} s"
        except StreamMLError as error:
            return f"the log cannot be read: {error}"

    # --- from another thread -------------------------------------------------------------------

    def healthy_now(self) -> tuple[str, ...]:
        """As `healthy`; for any thread but the loop's."""
        return self._ask(self.healthy)

    def ready_now(self) -> tuple[str, ...]:
        """As `ready`; for any thread but the loop's."""
        return self._ask(self.ready)

    def _ask(self, probe: Callable[[], Awaitable[tuple[str, ...]]]) -> tuple[str, ...]:
        loop = self._service.loop
        if loop is None:
            return ("it starts",)

        async def answer() -> tuple[str, ...]:
            return await probe()

        try:
            future = asyncio.run_coroutine_threadsafe(answer(), loop)
        except RuntimeError:
            return ("it has ended",)
        try:
            return future.result(LOOP_S)
        except TimeoutError:
            future.cancel()
            return (f"the server has not answered for {LOOP_S:g} s",)


def probe_router() -> APIRouter:
    """The routes: for anybody, as orchestrators have no tokens; why is told to who may read."""
    router = APIRouter(tags=["probes"])
    for path, endpoint in (("/healthz", _healthz), ("/readyz", _readyz)):
        router.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False)
    return router


async def _healthz(request: Request) -> Response:
    return _answer(request, await request.app.state.probes.healthy())


async def _readyz(request: Request) -> Response:
    return _answer(request, await request.app.state.probes.ready())


def _answer(request: Request, problems: tuple[str, ...]) -> Response:
    members: dict[str, object] = {"ok": not problems}
    if READ in request.state.caller.roles:
        members["problems"] = problems
    return json_response(members, 503 if problems else 200)
