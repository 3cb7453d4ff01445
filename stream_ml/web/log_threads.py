"""The threads that touch the log for an event loop: they read on, read at request, and publish.

A log belongs to the thread that opened it, and waits for disks and brokers, which an event loop
must not. So each thread here opens its own, opens it again after an error, and hands what it has
to the loop in batches. Their number is fixed, however many requests come.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stream_ml.errors import LogError, NotAcknowledged, StreamMLError, brief_error
from stream_ml.records import Record
from stream_ml.shell.log.tail import PolledTail
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_ml.records import Output
    from stream_ml.shell.log.port import Log, Tail

__all__ = ["Follower", "LogPool", "Outbox", "stream_ml_error"]

T = TypeVar("T")

WAIT_S = 0.2
# Somebody waits for what comes: the embedded log is looked at so often.
URGENT_S = 0.002
REOPEN_S = 0.5
# Batches on their way to the loop; the thread waits while it is that far behind.
BATCHES_MAX = 4
READERS = 2
# Published in one go; a batch is acknowledged as a whole.
BATCH_RECORDS = 1_000
QUEUE_MAX = 10_000
# A position on `events` or `labels`: where a record lies.
Position = tuple[int, int]
# A record to publish, and who takes what comes of it.
_Item = tuple["Output", "Callable[[Position | StreamMLError], object]"]


class Follower:
    """Reads a topic on in a thread, and hands its records to the loop in their order.

    Args:
        open_log: opens the log, in the thread.
        topic: which one.
        on_records: takes them, in the loop.
        history: how many of each partition's last records to begin with.
        on_begin: takes the offsets, by partition, that it begins from, before any record.
        is_urgent: whether somebody waits for what comes; asked in the thread.
        urgent_s: how often the embedded log is looked at then.
        prepare: what to do with each record in the thread, such as decoding it.

    Attributes:
        topic: which one.
        error: why the topic cannot be read now; None where it can, or nobody knows yet.
    """

    def __init__(
        self,
        open_log: Callable[[], Log],
        topic: str,
        on_records: Callable[[Sequence[Record]], None],
        *,
        history: int = 0,
        on_begin: Callable[[dict[int, int]], None] = lambda _: None,
        is_urgent: Callable[[], bool] = lambda: False,
        urgent_s: float = URGENT_S,
        prepare: Callable[[Record], object] | None = None,
    ) -> None:
        self.error: StreamMLError | None = None
        self._open_log = open_log
        self.topic = topic
        self._on_records = on_records
        self._history = history
        self._on_begin = on_begin
        self._is_urgent = is_urgent
        self._urgent_s = urgent_s
        self._prepare = prepare
        self._offsets: dict[int, int] | None = None
        self._begun: asyncio.Future[dict[int, int]] | None = None
        self._awaited: deque[tuple[Mapping[int, int], asyncio.Future[None]]] = deque()
        self._capacity = threading.Semaphore(BATCHES_MAX)
        self._closing = threading.Event()

    def start(self) -> asyncio.Future[dict[int, int]]:
        """Begin, in the loop; the future has the offsets, by partition, that it began from."""
        if self._begun is None:
            self._loop = asyncio.get_running_loop()
            self._begun = self._loop.create_future()
            threading.Thread(target=self._work, name=f"follow {self.topic}", daemon=True).start()
        return self._begun

    async def reach(self, ends: Mapping[int, int]) -> None:
        """Wait until all before some offsets was handed over, and taken.

        Args:
            ends: by partition.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._awaited.append((ends, future))
        await future

    def close(self) -> None:
        """End soon."""
        self._closing.set()
        if self._begun is not None:
            self._begun.cancel()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                with self._open_log() as log:
                    self._follow(log)
            except Exception as error:  # noqa: BLE001 - reading goes on after any fault
                self.error = stream_ml_error(error)
                self._closing.wait(REOPEN_S)

    def _follow(self, log: Log) -> None:
        if self._offsets is None:
            self._offsets = self._start_offsets(log)
            _call(self._loop, self._announce, dict(self._offsets))
        tail = self._tail(log, self._offsets)
        try:
            while not self._closing.is_set():
                records = tail.poll(WAIT_S)
                self.error = None
                if records:
                    self._pass_on(records, self._offsets)
                if self._awaited:
                    self._tell_reached(tail)
        finally:
            tail.close()

    def _pass_on(self, records: Sequence[Record], offsets: dict[int, int]) -> None:
        if self._prepare is not None:
            for record in records:
                self._prepare(record)
        self._hand_over(records)
        for record in records:
            offsets[record.partition] = record.offset + 1

    def _tell_reached(self, tail: Tail) -> None:
        """Tell who waits for offsets that have been reached, behind what was handed over."""
        for _ in range(len(self._awaited)):
            ends, future = self._awaited.popleft()
            if tail.has_reached(ends):
                _call(self._loop, _settle_one, future, None)
            elif not future.done():
                self._awaited.append((ends, future))

    def _announce(self, offsets: dict[int, int]) -> None:
        if self._begun is not None and not self._begun.done():
            # Here and not when the future is done: its callbacks run behind records that are
            # queued already.
            self._on_begin(offsets)
            self._begun.set_result(offsets)

    def _hand_over(self, records: Sequence[Record]) -> None:
        while not self._capacity.acquire(timeout=WAIT_S):
            if self._closing.is_set():
                return
        _call(self._loop, self._take, records)

    def _take(self, records: Sequence[Record]) -> None:
        self._capacity.release()
        self._on_records(records)

    def _start_offsets(self, log: Log) -> dict[int, int]:
        return {
            partition: max(
                log.first_offset(self.topic, partition),
                log.end_offset(self.topic, partition) - self._history,
            )
            for partition in range(log.partitions[self.topic])
        }

    def _tail(self, log: Log, offsets: dict[int, int]) -> Tail:
        tail = log.tail(self.topic, offsets)
        if isinstance(tail, PolledTail):
            # Nobody tells when a file has more: it is looked at, sooner where somebody waits.
            return PolledTail(log, self.topic, offsets, sleep=self._pause)
        return tail

    def _pause(self, seconds: float) -> None:
        self._closing.wait(min(seconds, self._urgent_s) if self._is_urgent() else seconds)


class LogPool:
    """Answers from the log, each read in one of a few threads that have it open.

    Args:
        open_log: opens the log, in a thread.
        threads: how many.
    """

    def __init__(self, open_log: Callable[[], Log], threads: int = READERS) -> None:
        self._open_log = open_log
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="log")
        self._local = threading.local()

    async def run(self, read: Callable[[Log], T]) -> T:
        """What `read` makes of the log.

        Args:
            read: called in a thread, with the log.

        Raises:
            StreamMLError: as `read` does, or the log cannot be opened.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, read)

    def close(self) -> None:
        """End, once what is at work is done."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, read: Callable[[Log], T]) -> T:
        log: Log | None = getattr(self._local, "log", None)
        if log is None:
            log = self._local.log = self._open_log()
        try:
            return read(log)
        except LogError:
            self._local.log = None
            with suppress(StreamMLError):
                log.close()
            raise


class Outbox:
    """Publishes what requests bring, in one thread and in batches, in the order in which it came.

    Args:
        open_log: opens the log, in the thread.
    """

    def __init__(self, open_log: Callable[[], Log]) -> None:
        self._open_log = open_log
        # A queue of this kind costs a fifth of `queue.Queue`, which has conditions in Python.
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin, in the loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="publish", daemon=True).start()

    def close(self) -> None:
        """End, once what is queued is published."""
        self._queue.put(None)

    def send(self, output: Output, settle: Callable[[Position | StreamMLError], object]) -> None:
        """Publish a record soon.

        Args:
            output: as `Publisher.check` gives it.
            settle: takes its partition and offset, once the log has it, or why it has not; called
                in the loop.

        Raises:
            Refusal: too much waits to be published.
        """
        if self._queue.qsize() >= QUEUE_MAX:
            raise Refusal(503, f"{QUEUE_MAX:,} records wait to be published", "busy", retry_s=1)
        self._queue.put((output, settle))

    def put(self, output: Output) -> asyncio.Future[Position]:
        """Publish a record soon; the future has its partition and offset, once the log has it.

        Args:
            output: as `Publisher.check` gives it.

        Raises:
            Refusal: too much waits to be published.
        """
        future: asyncio.Future[Position] = self._loop.create_future()
        self.send(output, partial(_settle_one, future))
        return future

    def _work(self) -> None:
        log: Log | None = None
        while True:
            batch, is_last = self._next_batch()
            if batch:
                outcomes: list[Position | StreamMLError]
                try:
                    log = log or self._open_log()
                    records = log.append([output for output, _ in batch])
                    outcomes = [(record.partition, record.offset) for record in records]
                except Exception as error:  # noqa: BLE001 - whoever waits is told of any fault
                    outcomes = _outcomes(error, len(batch))
                    if log is not None:
                        with suppress(StreamMLError):
                            log.close()
                    log = None
                _call(self._loop, _settle, [settle for _, settle in batch], outcomes)
            if is_last:
                break
        if log is not None:
            with suppress(StreamMLError):
                log.close()

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """What waits, once there is something; and whether it is the last."""
        batch = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) >= BATCH_RECORDS:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True


def _outcomes(error: Exception, count: int) -> list[Position | StreamMLError]:
    if isinstance(error, NotAcknowledged) and len(error.positions) == count:
        return [error if position is None else position for position in error.positions]
    return [stream_ml_error(error)] * count


def _settle(
    settlers: Sequence[Callable[[Position | StreamMLError], object]],
    outcomes: Sequence[Position | StreamMLError],
) -> None:
    for settle, outcome in zip(settlers, outcomes, strict=True):
        settle(outcome)


def _settle_one(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return  # who waited has left
    if isinstance(outcome, StreamMLError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def stream_ml_error(error: Exception) -> StreamMLError:
    """An error of ours as it is; of any other one, that it was the log's.

    Args:
        error: that a thread has met.
    """
    return error if isinstance(error, StreamMLError) else LogError(brief_error(error))


def _call(
    loop: asyncio.AbstractEventLoop, function: Callable[..., object], *values: object
) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(function, *values)
