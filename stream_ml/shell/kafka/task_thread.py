"""A thread of a task's own, in which it has done what would keep the loop of its worker waiting.

Theory of operation: calls run one after another, so two never are at work on one stage. Each task
has a thread to itself: what keeps one waiting (a learner that hangs) takes none of the threads that
others share with the clients' look-ups, restorations and checkpoints.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TaskThread"]

P = ParamSpec("P")
T = TypeVar("T")


class TaskThread:
    """Begins with the first call, and again with the first one after `stop`.

    Args:
        name: of the thread, for whoever looks at a process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    async def call(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """The result of a call; cancelled, it raises at once, and the call goes on.

        Args:
            call: what is to be done.
            arguments: of the call.
            options: of the call.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, self._name)
        work = partial(call, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def call_to_end(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """The result of a call; cancelled, it raises once the call has ended, and not before.

        Args:
            call: what is to be done.
            arguments: of the call.
            options: of the call.
        """
        work = asyncio.ensure_future(self.call(call, *arguments, **options))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    def stop(self, last: Callable[[], None] | None = None) -> None:
        """Let go of the thread, once what is under way has ended.

        Args:
            last: what is done in it then; nothing where no thread has begun.
        """
        executor, self._executor = self._executor, None
        if executor is not None:
            if last is not None:
                executor.submit(last)
            executor.shutdown(wait=False)
