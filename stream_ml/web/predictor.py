"""Predictions at request: an event is published, and its prediction is waited for on the log.

Theory of operation.

1. One reader follows `predictions`, and one the dead letters, for all requests; who waits is found
   by the event's id, or by where the event lies. What is waited for is bounded.
2. The answer is the record on the log, and nothing else: this server predicts nothing. An id that
   has a prediction gets that one again, from the log, and nothing is published. So a request may be
   repeated as often as one likes; of one that was published and not answered in time, a later one
   with the same id gets the answer.
3. What the pipeline refuses is refused in the same words: before it is published where the event
   itself is wrong, else with the dead letter that the worker writes (too late, from the future).
4. Where there is a key, an answer has the seal of this pipeline and log: what others have put on
   `predictions` is none (see `authenticity`).
5. Where predictions would come too late, nothing is published: when the worker has more before it
   than it can do in time, and when it has answered nothing since a request ran out of time. Then
   one request a second is let through, to see. It has recovered once it answers one of them, or
   has come past the events that were not answered: a server that is not ready is asked nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.errors import BadRecord, StreamMLError
from stream_ml.records import Output
from stream_ml.shell.log.port import read_between
from stream_ml.shell.views.dead_letters import LATE_EVENTS, letters_in
from stream_ml.stages.topology import task_name
from stream_ml.topics import partition_of
from stream_ml.web.hints import hint
from stream_ml.web.log_threads import Follower
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Event, Prediction, Record, Source
    from stream_ml.shell.log.port import Log
    from stream_ml.web.authenticity import Authenticity
    from stream_ml.web.log_threads import LogPool, Outbox, Position

__all__ = ["Answer", "Predictor", "bad_record"]

_Decode = Callable[["Record"], "Prediction | None"]

WAITING_MAX = 10_000
# Ids whose place on the log is known.
INDEX_MAX = 100_000
HISTORY = 20_000
LETTERS_MAX = 10_000
LETTERS_S = 0.02
# So far back an id is looked for that is not among them, in chunks.
LOOKBACK, CHUNK = 300_000, 5_000
PROBE_S = 1.0
MONITOR_S = 0.5
RETRY_MAX_S = 60.0
# Offsets that a worker may have before it and yet be at the end: marks of transactions.
LAG_MIN = 100


class _Letter(NamedTuple):
    """A dead letter without the record: there may be many that nobody here asks for."""

    reason: str
    path: str
    message: str


@dataclass(slots=True)
class _Waiter:
    """Who waits for one id: requests that share a future, and where its event lies."""

    event: Event
    partition: int
    future: asyncio.Future[Prediction | _Letter]
    publication: asyncio.Future[Position]
    requests: int = 0
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an event: its prediction, or none where the pipeline asks for none.

    Attributes:
        prediction: as it lies on the log; None where the event asks for none.
        position: of the event, where this request has published it.
    """

    prediction: Prediction | None
    position: Position | None


@dataclass(slots=True)
class _Pace:
    """How far a partition's predict task is behind, how fast it is, and whether it answers.

    Attributes:
        lag: offsets before it.
        rate: offsets a second.
        done: where it was last.
        read_s: when that was.
        silent_s: when a request ran out of time since which none was answered; None: none has.
        unanswered: the offset of the last event whose request ran out of time.
        probe_s: when the last one was let through since.
    """

    lag: int = 0
    rate: float = 0.0
    done: int | None = None
    read_s: float = 0.0
    silent_s: float | None = None
    unanswered: int = -1
    probe_s: float = 0.0

    def update(self, done: int, lag: int, now_s: float) -> None:
        """Take in where the task is at a time."""
        if self.done is not None and now_s > self.read_s:
            rate = max(0, done - self.done) / (now_s - self.read_s)
            self.rate = rate if rate == 0 or self.rate == 0 else (self.rate + rate) / 2
        self.done, self.lag, self.read_s = done, lag, now_s
        # Of one that never came to lie on the log there is nothing to wait for.
        if done > self.unanswered or not lag:
            self.silent_s = None

    def note_silence(self, offset: int | None, now_s: float) -> None:
        """Take note of a request that ran out of time.

        Args:
            offset: of its event; None where nobody knows whether it lies on the log.
            now_s: the time.
        """
        self.silent_s = self.silent_s or now_s
        last = self.done if offset is None else offset
        self.unanswered = max(self.unanswered, -1 if last is None else last)

    @property
    def delay_s(self) -> float:
        """How long a new event has to wait, as far as that can be told."""
        return self.lag / self.rate if self.lag > LAG_MIN and self.rate else 0.0


class Predictor:
    """Asks for predictions; see the module. To be used in the event loop.

    Args:
        pipeline: the declaration.
        outbox: publishes events.
        pool: reads single records, for requests that wait for no other ones.
        searches: looks through the log.
        open_log: opens the log, in a thread.
        limit_s: how long a prediction is waited for.
        on_begin: takes the offsets that `predictions` is read from, before any record.
        on_records: takes the records of `predictions` as well, as they come.
        authenticity: tells predictions from forgeries.

    Attributes:
        predictions: follows the topic.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        outbox: Outbox,
        pool: LogPool,
        searches: LogPool,
        *,
        open_log: Callable[[], Log],
        limit_s: float,
        on_begin: Callable[[dict[int, int]], None],
        on_records: Callable[[Sequence[Record]], None],
        authenticity: Authenticity,
    ) -> None:
        self._pipeline = pipeline
        self._outbox = outbox
        self._pool = pool
        self._searches = searches
        self._limit_s = limit_s
        self._on_records = on_records
        self._authenticity = authenticity
        self._waiting: dict[bytes, _Waiter] = {}
        self._positions: dict[Position, _Waiter] = {}
        self._index: OrderedDict[bytes, Position] = OrderedDict()
        self._letters: OrderedDict[Position, _Letter] = OrderedDict()
        # By id, where this server's event lies and what stands for its fields, to know it again.
        self._published: OrderedDict[bytes, tuple[Position, bytes]] = OrderedDict()
        # By partition of events.
        self._paces: dict[int, _Pace] = {0: _Pace()}
        self._asked_s = 0.0
        self._scan = asyncio.Semaphore(1)
        self.predictions = Follower(
            open_log,
            "predictions",
            self._take_predictions,
            history=HISTORY,
            on_begin=on_begin,
            is_urgent=lambda: bool(self._waiting),
            prepare=self._decode_where_waited_for,
        )
        # Of events that are set aside there may be no topic until the first worker has begun.
        self._dead_letters, *self._set_aside = (
            Follower(
                open_log,
                topic,
                self._take_letters,
                is_urgent=lambda: bool(self._waiting),
                # Refusals are seldom, and most waits end without one.
                urgent_s=LETTERS_S,
            )
            for topic in ("dead-letters", *({LATE_EVENTS} & {*pipeline.extra_topics}))
        )
        self._monitor: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        for follower in (self._dead_letters, *self._set_aside):
            follower.start()
        self._monitor = asyncio.create_task(self._watch_pace())
        self.predictions.start()

    def close(self) -> None:
        """End; who waits still is refused."""
        if self._monitor is not None:
            self._monitor.cancel()
        self.predictions.close()
        for follower in (self._dead_letters, *self._set_aside):
            follower.close()
        for waiter in self._waiting.values():
            if not waiter.future.done():
                waiter.future.set_exception(Refusal(503, "the server ends", "ending", retry_s=1))

    @property
    def waiting_count(self) -> int:
        """How many events wait for their predictions. Any thread may ask."""
        return len(self._waiting)

    def problems(self) -> list[str]:
        """Why requests would not be answered, as far as is known; empty where they would."""
        error = self.predictions.error or self._dead_letters.error
        problems = [] if error is None else [f"predictions cannot be read: {error}"]
        if any(pace.silent_s is not None for pace in self._paces.values()):
            problems.append("no prediction has come since a request ran out of time")
        return problems

    # --- asking ---------------------------------------------------------------------------

    async def predict(self, value: bytes) -> Answer:
        """The prediction for an event.

        Args:
            value: the event as it is to lie on the log, a JSON object.

        Raises:
            Refusal: it is a bad event (422), its id is another event's (409), or no prediction
                came in time, or would have come (503).
            TimeoutError: the log has not answered in time.
            LogError: the log cannot be reached.
        """
        try:
            event = self._pipeline.event_codec.decode(value)
        except BadRecord as error:
            raise bad_record(error, value, self._pipeline.events.time) from None
        deadline_s = asyncio.get_running_loop().time() + self._limit_s
        key = event.event_id.encode()
        async with asyncio.timeout_at(deadline_s):
            await self._authenticity.check_setup()
            if key in self._index and key not in self._waiting:
                known = await self._known(key)
                if known is not None:
                    return Answer(await self._of_event(known, event), None)
            output = Output("events", event.key.encode(), value)
            if not self._pipeline.wants_prediction(event):
                return Answer(None, await self._outbox.put(output))
        waiter = self._waiting.get(key)
        if waiter is None:
            waiter = self._publish(key, event, output)
        elif waiter.event != event:
            raise _id_in_use(event)
        return await self._answer(key, waiter, event, deadline_s)

    async def find(self, event_id: str) -> Prediction | None:
        """The prediction for an event of this id; None where there is none, as far as is looked.

        Args:
            event_id: of the event.

        Raises:
            Refusal: others are being looked for, or none can be told from a forgery (503).
            LogError: the log cannot be reached.
        """
        key = event_id.encode()
        known = await self._known(key)
        if known is not None:
            return known
        if self._scan.locked():
            raise Refusal(503, "another old prediction is being looked for", "busy", retry_s=1)
        async with self._scan:
            return await self._searches.run(
                lambda log: _search(log, key, self._authenticity.prediction)
            )

    def _publish(self, key: bytes, event: Event, output: Output) -> _Waiter:
        partition = partition_of(event.key.encode(), len(self._paces))
        self._check_pace(self._paces[partition])
        if len(self._waiting) >= WAITING_MAX:
            raise Refusal(
                503, f"{WAITING_MAX:,} events wait for their predictions", "busy", retry_s=1
            )
        # What comes of it is taken in by this loop, and so not before it is registered.
        publication = self._outbox.put(output)
        future = asyncio.get_running_loop().create_future()
        waiter = _Waiter(event, partition, future, publication)
        publication.add_done_callback(lambda future: self._note_position(waiter, future))
        self._waiting[key] = waiter
        return waiter

    async def _answer(self, key: bytes, waiter: _Waiter, event: Event, deadline_s: float) -> Answer:
        waiter.requests += 1
        try:
            async with asyncio.timeout_at(deadline_s):
                # One who leaves must not take the answer from the others.
                outcome = await asyncio.shield(waiter.future)
        except TimeoutError:
            pace = self._paces[waiter.partition]
            offset = None if waiter.position is None else waiter.position[1]
            pace.note_silence(offset, asyncio.get_running_loop().time())
            raise self._late(waiter, pace) from None
        finally:
            waiter.requests -= 1
            if not waiter.requests:
                self._forget(key, waiter)
        if isinstance(outcome, _Letter):
            async with asyncio.timeout_at(deadline_s):
                return await self._refused(outcome, event, waiter)
        async with asyncio.timeout_at(deadline_s):
            position = waiter.position or await asyncio.shield(waiter.publication)
            return Answer(await self._of_event(outcome, event, position), position)

    async def _of_event(
        self, prediction: Prediction, event: Event, position: Position | None = None
    ) -> Prediction:
        """The prediction, where it is of this event and not of another one with its id.

        Raises:
            Refusal: it is another one's, of another key, time or fields.
        """
        source = prediction.source
        if (source.partition, source.offset) == position:
            return prediction
        published = self._published.get(event.event_id.encode())
        if published == ((source.partition, source.offset), _fingerprint(event)):
            return prediction
        if (prediction.key, prediction.ts) == (event.key, event.ts):
            decode = self._pipeline.event_codec.decode
            first = await self._pool.run(lambda log: _event_at(log, source, decode))
            if first is None or first.fields == event.fields:  # where it is gone, nobody knows
                return prediction
        raise _id_in_use(event)

    async def _refused(self, letter: _Letter, event: Event, waiter: _Waiter) -> Answer:
        """Of an event that came before its first prediction; of any other why it is refused."""
        if letter.reason == "duplicate":
            first = await self.find(event.event_id)
            if first is not None:
                return Answer(await self._of_event(first, event), waiter.position)
        raise Refusal(
            409 if letter.reason == "duplicate" else 422,
            letter.message,
            letter.reason,
            letter.path,
            members=_event_members(waiter.position),
        )

    def _late(self, waiter: _Waiter, pace: _Pace) -> Refusal:
        state = (
            "it is on the log"
            if waiter.position is not None
            else "nobody knows whether the log has it"
        )
        return Refusal(
            503,
            f"no prediction came within {self._limit_s:g} s; {state}: send it again, with the same "
            "id, for the answer",
            "late",
            retry_s=max(1.0, min(pace.delay_s, RETRY_MAX_S)),
            members=_event_members(waiter.position),
        )

    def _forget(self, key: bytes, waiter: _Waiter) -> None:
        if self._waiting.get(key) is waiter:
            del self._waiting[key]
        if waiter.position is not None:
            self._positions.pop(waiter.position, None)

    def _note_position(self, waiter: _Waiter, publication: asyncio.Future[Position]) -> None:
        if publication.cancelled():
            return
        error = publication.exception()
        if error is not None:
            if not waiter.future.done():
                waiter.future.set_exception(error)
                waiter.future.exception()  # who waits raises it; nobody may be left who does
            return
        waiter.position = publication.result()
        self._published[waiter.event.event_id.encode()] = (
            waiter.position,
            _fingerprint(waiter.event),
        )
        if len(self._published) > INDEX_MAX:
            self._published.popitem(last=False)
        letter = self._letters.pop(waiter.position, None)
        if letter is not None and not waiter.future.done():
            waiter.future.set_result(letter)
        elif waiter.requests:
            self._positions[waiter.position] = waiter

    # --- is it worth asking? --------------------------------------------------------------

    def _check_pace(self, pace: _Pace) -> None:
        """Refuse where a prediction would come too late."""
        now_s = asyncio.get_running_loop().time()
        self._asked_s = now_s
        error = self.predictions.error or self._dead_letters.error
        if error is not None:
            raise Refusal(503, f"predictions cannot be read: {error}", "log", retry_s=1)
        delay_s = pace.delay_s
        if delay_s > self._limit_s:
            raise Refusal(
                503,
                f"{pace.lag:,} events wait before this one, for about {delay_s:.0f} s; it "
                "was not published",
                "overloaded",
                retry_s=min(delay_s - self._limit_s, RETRY_MAX_S),
            )
        if pace.silent_s is None:
            return
        if now_s - pace.probe_s < PROBE_S:
            raise Refusal(
                503,
                "no prediction has come since a request ran out of time: no worker runs, or it "
                "recovers; it was not published",
                "recovering",
                retry_s=PROBE_S,
            )
        pace.probe_s = now_s

    async def _watch_pace(self) -> None:
        """See how far predict tasks are: at first, while they are asked, and until they answer."""
        loop = asyncio.get_running_loop()
        self._asked_s = loop.time()
        while True:
            is_silent = any(pace.silent_s is not None for pace in self._paces.values())
            if loop.time() - self._asked_s > RETRY_MAX_S and not is_silent:
                await asyncio.sleep(MONITOR_S)
                continue
            with suppress(StreamMLError):  # whoever publishes is told
                now_s = loop.time()
                for partition, (done, lag) in enumerate(await self._pool.run(_progress)):
                    self._paces.setdefault(partition, _Pace()).update(done, lag, now_s)
            await asyncio.sleep(MONITOR_S)

    # --- what comes -----------------------------------------------------------------------

    def _decode_where_waited_for(self, record: Record) -> None:
        """In the thread that reads: most predictions are nobody's here."""
        if record.key in self._waiting:
            record.memo = self._authenticity.prediction(record)

    def _take_predictions(self, records: Sequence[Record]) -> None:
        index, waiting = self._index, self._waiting
        for record in records:
            if record.key is None or record.value is None:
                continue
            # What others may put behind it under its id takes nothing from it.
            index.setdefault(record.key, (record.partition, record.offset))
            waiter = waiting.get(record.key)
            if waiter is None or waiter.future.done():
                continue
            prediction = record.memo or self._authenticity.prediction(record)
            if prediction is not None:
                waiter.future.set_result(prediction)
                self._paces[waiter.partition].silent_s = None
        while len(index) > INDEX_MAX:
            index.popitem(last=False)
        self._on_records(records)

    def _take_letters(self, records: Sequence[Record]) -> None:
        for view in letters_in(records):
            if view.letter.topic != "events":
                continue
            position = (view.letter.partition, view.letter.offset)
            letter = _Letter(view.letter.reason, view.letter.path, view.letter.message)
            waiter = self._positions.pop(position, None)
            if waiter is None:
                # It may be that of an event whose place is told only now.
                self._letters[position] = letter
            elif not waiter.future.done():
                waiter.future.set_result(letter)
                self._paces[waiter.partition].silent_s = None
        while len(self._letters) > LETTERS_MAX:
            self._letters.popitem(last=False)

    async def _known(self, key: bytes) -> Prediction | None:
        await self._authenticity.require()
        if key not in self._index:
            return None
        partition, offset = self._index[key]
        prediction = await self._pool.run(
            lambda log: _read(log, partition, offset, key, self._authenticity.prediction)
        )
        if prediction is None:
            self._index.pop(key, None)  # it was forgotten, or retention has removed it
        return prediction


def bad_record(error: BadRecord, value: bytes, time_member: str = "ts") -> Refusal:
    """The refusal of a bad record, in the words of its dead letter, and maybe what was meant.

    Args:
        error: why it is refused.
        value: the record.
        time_member: the member that has its time.
    """
    meant = hint(value, error, time_member)
    members = {} if meant is None else {"hint": meant}
    return Refusal(422, error.message, error.reason, error.path, members=members)


def _event_members(position: Position | None) -> dict[str, Any]:
    if position is None:
        return {}
    return {"event": {"partition": position[0], "offset": position[1]}}


def _fingerprint(event: Event) -> bytes:
    """Stands for an event's key, time and fields; to Python's `hash` -1 and -2 are one."""
    members = repr((event.key, event.ts, sorted(event.fields.items())))
    return hashlib.blake2b(members.encode(), digest_size=16).digest()


def _id_in_use(event: Event) -> Refusal:
    return Refusal(
        409,
        f"expected an id of its own for each event: {event.event_id!r} was given to another one, "
        "of another key or time, or with other fields",
        "id_in_use",
    )


def _progress(log: Log) -> list[tuple[int, int]]:
    """By partition, how far the predict task has read, and how many offsets lie before it."""
    progress = []
    for partition in range(log.partitions["events"]):
        position = log.committed(task_name("predict", partition)).get(("events", partition), 0)
        progress.append((position, max(0, log.end_offset("events", partition) - position)))
    return progress


def _event_at(log: Log, source: Source, decode: Callable[[bytes | None], Event]) -> Event | None:
    """The event at a place; None where retention has taken it, or it can be read no more."""
    for record in log.read("events", source.partition, source.offset, 1):
        if record.offset == source.offset:
            with suppress(BadRecord):
                return decode(record.value)
    return None


def _read(log: Log, partition: int, offset: int, key: bytes, decoded: _Decode) -> Prediction | None:
    for record in log.read("predictions", partition, offset, 1):
        if record.offset == offset and record.key == key:
            return decoded(record)
    return None


def _search(log: Log, key: bytes, decoded: _Decode) -> Prediction | None:
    """The first prediction with a key among the last of its partition."""
    partition = partition_of(key, log.partitions["predictions"])
    for start, end in _chunks(log, partition):
        for record in read_between(log, "predictions", partition, start, end):
            match = decoded(record) if record.key == key else None
            if match is not None:
                return match
    return None


def _chunks(log: Log, partition: int) -> Iterator[tuple[int, int]]:
    """Ranges of offsets, the newest first."""
    first = log.first_offset("predictions", partition)
    end = log.end_offset("predictions", partition)
    first = max(first, end - LOOKBACK)
    while end > first:
        start = max(first, end - CHUNK)
        yield start, end
        end = start
