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
   than it can do in time, and when it has answered nothing since a request ran out of time (see
   `pace`). Then one request a second is let through, to see, and none while the log says that
   predict has no worker. It has recovered once it answers one of them, or has come past the events
   that were not answered: a server that is not ready is asked nothing.
6. Where events may feed windows alone, an event without a prediction is no sign of a worker that
   is behind. Once predict has come past such an event, and all that it has written until then was
   read, none will come, and who waits is told so.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.errors import BadRecord, StreamMLError, UnknownTopic
from stream_ml.records import Output
from stream_ml.shell.log.port import read_between
from stream_ml.shell.views.dead_letters import LATE_EVENTS, letters_in
from stream_ml.topics import partition_of
from stream_ml.web.deadlines import Deadlines
from stream_ml.web.hints import hint, late_or_future_hint, other_unit_refusal
from stream_ml.web.log_threads import Follower
from stream_ml.web.pace import RETRY_MAX_S, PredictPace, read_progress
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Event, Prediction, Record, Source
    from stream_ml.shell.log.port import Log
    from stream_ml.web.authenticity import Authenticity
    from stream_ml.web.log_threads import LogPool, Outbox, Position

__all__ = ["Answer", "Predictor", "bad_record"]

_Decode = Callable[["Record"], "Prediction | None"]

LOGGER = logging.getLogger(__name__)

WAITING_MAX = 10_000
# Ids whose place on the log is known.
INDEX_MAX = 100_000
HISTORY = 20_000
LETTERS_MAX = 10_000
LETTERS_S = 0.02
# So far back an id is looked for that is not among them, in chunks.
LOOKBACK, CHUNK = 300_000, 5_000
MONITOR_S = 0.5
# Where events may feed windows alone: how often predict's place is looked at while one waits that
# lies behind others, and how long any other has waited before it is asked where it stays.
MONITOR_SOON_S, SILENCE_S = 0.05, 0.5
REACH_S = 1.0
# Of predictions that nobody waits for the time is looked at so seldom.
TIME_S = 0.25


class _Letter(NamedTuple):
    """A dead letter without the record: there may be many that nobody here asks for."""

    reason: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class _Nothing:
    """Predict has come past an event, and has written nothing of it: it feeds windows alone."""


@dataclass(slots=True)
class _Waiter:
    """Requests that wait for one id, and where its event lies.

    What comes of it is told once its event's place is known, by which a prediction is known to be
    its own.
    """

    event: Event
    digest: bytes
    partition: int
    begun_s: float
    futures: list[asyncio.Future[Prediction | _Letter | _Nothing]] = field(default_factory=list)
    position: Position | None = None
    outcome: Prediction | _Letter | _Nothing | None = None
    # Whether it lies so far behind others that it may feed windows alone.
    is_behind: bool = False

    def fail(self, error: Exception) -> None:
        """Tell all who wait why nothing comes."""
        for future in self.futures:
            if not future.done():
                future.set_exception(error)

    def release(self) -> None:
        """Tell all who wait what has come."""
        assert self.outcome is not None, "something has come"
        for future in self.futures:
            if not future.done():
                future.set_result(self.outcome)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an event: its prediction, or none where it gets none.

    Attributes:
        prediction: as it lies on the log; None where the event gets none.
        position: of the event, where this request has published it.
        detail: why it gets none.
    """

    prediction: Prediction | None
    position: Position | None
    detail: str = ""


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
        at_work: tells the stages that have a worker; None where nobody knows.

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
        at_work: Callable[[], Awaitable[frozenset[str] | None]],
    ) -> None:
        self._pipeline = pipeline
        self._outbox = outbox
        self._pool = pool
        self._searches = searches
        self._limit_s = limit_s
        self._on_records = on_records
        self._authenticity = authenticity
        self._at_work = at_work
        self._is_attended = True
        self._deadlines = Deadlines(limit_s)
        self._feeds_windows = pipeline.window_lateness_ms > pipeline.lateness_ms
        # By partition of events, the newest time of a prediction; and when one was looked at.
        self._newest_ms: dict[int, int] = {}
        self._newest_record: Record | None = None
        self._timed_s = 0.0
        self._waiting: dict[bytes, _Waiter] = {}
        self._positions: dict[Position, _Waiter] = {}
        self._index: OrderedDict[bytes, Position] = OrderedDict()
        self._letters: OrderedDict[Position, _Letter] = OrderedDict()
        # By id, where this server's event lies and what stands for its fields, to know it again.
        self._published: OrderedDict[bytes, tuple[Position, bytes]] = OrderedDict()
        # By partition of events.
        self._paces: dict[int, PredictPace] = {0: PredictPace()}
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
        self._monitor = asyncio.create_task(self._watch())
        self.predictions.start()

    def close(self) -> None:
        """End; who waits still is refused."""
        if self._monitor is not None:
            self._monitor.cancel()
        self.predictions.close()
        for follower in (self._dead_letters, *self._set_aside):
            follower.close()
        self._deadlines.close()
        for waiter in self._waiting.values():
            waiter.fail(Refusal(503, "the server ends", "ending", retry_s=1))

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
        key = event.event_id.encode()
        if not self._authenticity.is_set_up:
            async with asyncio.timeout(self._limit_s):
                await self._authenticity.check_setup()
        if key in self._index and key not in self._waiting:
            async with asyncio.timeout(self._limit_s):
                known = await self._known(key)
                if known is not None:
                    return Answer(await self._of_event(known, event, _digest(value)), None)
        output = Output("events", event.key.encode(), value)
        if not self._pipeline.wants_prediction(event):
            async with asyncio.timeout(self._limit_s):
                position = await self._outbox.put(output)
            return Answer(None, position, "the pipeline asks for no prediction of such an event")
        waiter = self._waiting.get(key)
        if waiter is None:
            waiter = self._publish(key, event, output)
        elif waiter.event != event:
            raise _id_in_use(event)
        return await self._answer(key, waiter)

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
        partition = partition_of(output.key or b"", len(self._paces))
        now_s = asyncio.get_running_loop().time()
        self._asked_s = now_s
        error = self.predictions.error or self._dead_letters.error
        if error is not None:
            raise Refusal(503, f"predictions cannot be read: {error}", "log", retry_s=1)
        self._paces[partition].check(self._limit_s, now_s, is_attended=self._is_attended)
        if len(self._waiting) >= WAITING_MAX:
            raise Refusal(
                503, f"{WAITING_MAX:,} events wait for their predictions", "busy", retry_s=1
            )
        newest_ms = self._newest_time(partition, now_s)
        refusal = other_unit_refusal(event.ts, newest_ms, self._pipeline.events.time)
        if refusal is not None:
            raise refusal
        assert output.value is not None, "an event has a value"
        waiter = _Waiter(event, _digest(output.value), partition, now_s)
        if self._feeds_windows and newest_ms is not None:
            waiter.is_behind = event.ts < newest_ms - self._pipeline.lateness_ms
        # What comes of it is taken in by this loop, and so not before it is registered.
        self._outbox.send(output, partial(self._note_position, key, waiter))
        self._waiting[key] = waiter
        return waiter

    def check_label_time(self, ts: int) -> None:
        """Look at a label's time, for what other systems stamp may be in their unit.

        Args:
            ts: that it has.

        Raises:
            Refusal: it is none of this log's, but is by another unit.
        """
        self._newest_time(0, asyncio.get_running_loop().time())
        newest_ms = max(self._newest_ms.values(), default=None)
        refusal = other_unit_refusal(ts, newest_ms, "ts")
        if refusal is not None:
            raise refusal

    async def _answer(self, key: bytes, waiter: _Waiter) -> Answer:
        future = self._deadlines.future()
        waiter.futures.append(future)
        try:
            outcome = await future
        except TimeoutError:
            pace = self._pace_of(waiter)
            offset = None if waiter.position is None else waiter.position[1]
            pace.note_silence(offset, asyncio.get_running_loop().time())
            raise self._late(waiter, pace) from None
        finally:
            waiter.futures.remove(future)
            if not waiter.futures:
                self._forget(key, waiter)
        if isinstance(outcome, _Nothing):
            return Answer(None, waiter.position, self._lateness_detail())
        async with asyncio.timeout(self._limit_s):
            if isinstance(outcome, _Letter):
                return await self._refused(outcome, waiter)
            answered = await self._of_event(outcome, waiter.event, waiter.digest, waiter.position)
            return Answer(answered, waiter.position)

    def _lateness_detail(self) -> str:
        return (
            "it came too late for a prediction, further behind its partition's watermark than "
            f"lateness={self._pipeline.events.lateness!r}, and counts in windows alone; declare a "
            "longer lateness where such events are to be predicted"
        )

    async def _of_event(
        self, prediction: Prediction, event: Event, digest: bytes, position: Position | None = None
    ) -> Prediction:
        """The prediction, where it is of this event and not of another one with its id.

        Raises:
            Refusal: it is another one's, of another key, time or fields.
        """
        source = prediction.source
        if (source.partition, source.offset) == position:
            return prediction
        published = self._published.get(event.event_id.encode())
        if published == ((source.partition, source.offset), digest):
            return prediction
        if (prediction.key, prediction.ts) == (event.key, event.ts):
            decode = self._pipeline.event_codec.decode
            first = await self._pool.run(lambda log: _event_at(log, source, decode))
            if first is None or first.fields == event.fields:  # where it is gone, nobody knows
                return prediction
        raise _id_in_use(event)

    async def _refused(self, letter: _Letter, waiter: _Waiter) -> Answer:
        """Of an event that came before its first prediction; of any other why it is refused."""
        event = waiter.event
        if letter.reason == "duplicate":
            first = await self.find(event.event_id)
            if first is not None:
                answered = await self._of_event(first, event, waiter.digest)
                return Answer(answered, waiter.position)
        meant = late_or_future_hint(
            self._pipeline, letter.reason, event.ts, self._newest_ms.get(waiter.partition)
        )
        raise Refusal(
            409 if letter.reason == "duplicate" else 422,
            letter.message,
            letter.reason,
            letter.path,
            members=_event_members(waiter.position) | ({} if meant is None else {"hint": meant}),
        )

    def _late(self, waiter: _Waiter, pace: PredictPace) -> Refusal:
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

    def _note_position(
        self, key: bytes, waiter: _Waiter, outcome: Position | StreamMLError
    ) -> None:
        if isinstance(outcome, StreamMLError):
            self._forget(key, waiter)
            waiter.fail(outcome)
            return
        # Before the first look at the log nobody knew how many partitions there are.
        waiter.position, waiter.partition = outcome, outcome[0]
        self._published[key] = (outcome, waiter.digest)
        if len(self._published) > INDEX_MAX:
            self._published.popitem(last=False)
        waiter.outcome = waiter.outcome or self._letters.pop(outcome, None)
        if waiter.outcome is not None:
            self._end_wait(key, waiter)
        elif waiter.futures:
            self._positions[outcome] = waiter

    def _settle(self, waiter: _Waiter, outcome: Prediction | _Letter | _Nothing) -> None:
        """Take in what has come of an event; who waits is told once its place is known."""
        waiter.outcome = waiter.outcome or outcome
        if not isinstance(outcome, _Nothing):
            self._pace_of(waiter).silent_s = None
        if waiter.position is not None:
            self._end_wait(waiter.event.event_id.encode(), waiter)

    def _pace_of(self, waiter: _Waiter) -> PredictPace:
        """Of the partition of its event; one that nobody asks where it was not looked at yet."""
        return self._paces.get(waiter.partition) or PredictPace()

    def _end_wait(self, key: bytes, waiter: _Waiter) -> None:
        self._forget(key, waiter)
        waiter.release()

    # --- is it worth asking? --------------------------------------------------------------

    async def _watch(self) -> None:
        """See how far predict tasks are: at first, while they are asked, and until they answer."""
        loop = asyncio.get_running_loop()
        self._asked_s = loop.time()
        while True:
            is_silent = any(pace.silent_s is not None for pace in self._paces.values())
            if loop.time() - self._asked_s <= RETRY_MAX_S or is_silent:
                try:
                    if is_silent:
                        self._is_attended = await self._has_worker()
                    await self._look(loop.time())
                except (StreamMLError, TimeoutError):
                    pass  # whoever publishes is told
                except Exception:  # a fault must not end it: requests go by what it has seen
                    self._is_attended = True
                    LOGGER.exception("how far predict is could not be seen; it is tried again")
            is_behind = self._feeds_windows and any(w.is_behind for w in self._waiting.values())
            await asyncio.sleep(MONITOR_SOON_S if is_behind else MONITOR_S)

    async def _has_worker(self) -> bool:
        """Whether predict has one; True where that cannot be told."""
        try:
            stages = await self._at_work()
        except (StreamMLError, TimeoutError):
            return True
        return stages is None or "predict" in stages

    async def _look(self, now_s: float) -> None:
        """See how far predict tasks are, and tell who waits for what will not come."""
        progress = await self._pool.run(read_progress)
        for partition, (done, lag) in enumerate(progress):
            self._paces.setdefault(partition, PredictPace()).update(done, lag, now_s)
        if not self._feeds_windows:
            return
        passed = [
            waiter
            for waiter in self._waiting.values()
            if (waiter.is_behind or now_s - waiter.begun_s >= SILENCE_S)
            and waiter.position is not None
            and waiter.position[1] < progress[waiter.position[0]][0]
        ]
        if not passed:
            return
        # What predict has written before it came so far lies before these.
        followers = (self._dead_letters, *self._set_aside, self.predictions)
        ends = await self._pool.run(partial(_ends, [follower.topic for follower in followers]))
        async with asyncio.timeout(REACH_S):
            for follower in followers:
                await follower.reach(ends[follower.topic])
        for waiter in passed:
            if waiter.outcome is None:
                self._settle(waiter, _Nothing())

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
            if waiter is None or waiter.outcome is not None:
                continue
            prediction = record.memo or self._authenticity.prediction(record)
            if prediction is not None:
                self._note_time(prediction)
                self._settle(waiter, prediction)
        self._newest_record = records[-1]
        while len(index) > INDEX_MAX:
            index.popitem(last=False)
        self._on_records(records)

    def _note_time(self, prediction: Prediction) -> None:
        partition, ts = prediction.source.partition, prediction.ts
        self._newest_ms[partition] = max(ts, self._newest_ms.get(partition, ts))

    def _newest_time(self, partition: int, now_s: float) -> int | None:
        """The time of the newest prediction about a partition, as far as one was looked at."""
        record = self._newest_record
        if record is not None and now_s - self._timed_s > TIME_S:
            self._timed_s = now_s
            prediction = self._authenticity.prediction(record)
            if prediction is not None:
                self._note_time(prediction)
        return self._newest_ms.get(partition)

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
            else:
                self._settle(waiter, letter)
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


def _digest(value: bytes) -> bytes:
    """Stands for an event as it was sent."""
    return hashlib.blake2b(value, digest_size=16).digest()


def _id_in_use(event: Event) -> Refusal:
    return Refusal(
        409,
        f"expected an id of its own for each event: {event.event_id!r} was given to another one, "
        "of another key or time, or with other fields",
        "id_in_use",
    )


def _ends(topics: Sequence[str], log: Log) -> dict[str, dict[int, int]]:
    """Where topics end, by partition.

    Raises:
        UnknownTopic: one is not there yet, or was not when the log was opened.
    """
    for topic in topics:
        if topic not in log.partitions:
            raise UnknownTopic(f"expected the topic {topic}, which the first worker makes")
    return {
        topic: {p: log.end_offset(topic, p) for p in range(log.partitions[topic])}
        for topic in topics
    }


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
