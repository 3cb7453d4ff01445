"""The client of a log that workers are at work on: for producers, consumers and operators.

None of it takes a worker's place or needs its key: publishing validates with the pipeline's own
codec, reading follows the log, and a command is signed by whoever gives it and answered by the
worker on the registry. A log is a file or a cluster, by its address:

    with connect("kafka://127.0.0.1:9092", shop) as log, Publisher(log, shop) as publisher:
        publisher.post_event({"event_id": "e1", "ts": 1_700_000_000_000, "user": "ana", "x": 0.5})

    with connect("kafka://127.0.0.1:9092/shop") as log:
        for prediction in predictions(log, from_end=True, follow=True):
            print(prediction.event_id, prediction.prediction)
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.codec import decode_decision, encode_command
from stream_ml.errors import (
    BadRecord,
    CommandRefused,
    LogError,
    NoAnswer,
    StreamMLError,
    UsageError,
)
from stream_ml.records import OUT_OF_TIME, Command, Output
from stream_ml.shell.log.reading import predictions_in, registry_records
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.log.tail import Backoff
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Decision, Prediction, Record
    from stream_ml.shell.log.port import Isolation, Log
    from stream_ml.shell.processes.stop import Stop
    from stream_ml.shell.views.what_if import WhatIfView

__all__ = [
    "Publisher",
    "command",
    "connect",
    "open_log",
    "predictions",
    "read_batches",
    "signed_command",
    "what_if",
]

READ_RECORDS = 1_000
# How long a follower waits for records before it sees whether it was asked to stop.
WAIT_S = 0.2
# By how much the clocks of brokers that stamp events and predictions may differ, and more.
CLOCKS_MS = 86_400_000
# The members of a signed command that its answer is found by, and others that it must have.
COMMAND_TEXTS = ("command_id", "kind", "operator", "actor", "reason", "signature")
# Since when what is meant as seconds would be, and until when: 1973 to 5138.
SECONDS = range(100_000_000, 100_000_000_000)


def connect(
    broker: str | None = None,
    pipeline: Pipeline | None = None,
    *,
    isolation: Isolation = "committed",
) -> Log:
    """The log at an address; use it as a context manager, in the thread that opened it.

    How to connect to a cluster (TLS, SASL) is set in the environment, as for every command.

    Args:
        broker: `sqlite:PATH`, `kafka://HOST:PORT` or `kafka://HOST:PORT/PIPELINE`; by default what
            STREAM_ML_BROKER says.
        pipeline: whose topics they are, where the address does not name it.
        isolation: of a cluster, whether to read what transactions have committed, or also what
            they are about to: milliseconds sooner, and maybe never true.

    Raises:
        UsageError: the address or another setting is wrong.
        LogError: there is no such log, or it cannot be reached.
    """
    settings = Settings.load({"broker": broker})
    return open_log(settings, None if pipeline is None else pipeline.name, isolation=isolation)


def open_log(
    settings: Settings,
    pipeline: str | None,
    *,
    isolation: Isolation = "committed",
    is_native: bool = False,
) -> Log:
    """The log that is set, which must be there; see `connect`.

    Args:
        settings: which log, and how to reach it.
        pipeline: its name as declared, where a declaration is known; else the address has to have
            it.
        isolation: on Kafka, whether only what is committed is read; the embedded log has nothing
            else.
        is_native: on Kafka, whether librdkafka appends and follows: for a tenth of the CPU where
            records come a few at a time.
    """
    if settings.on_kafka and is_native:
        # A user of the embedded log need not wait for its clients to be loaded.
        from stream_ml.shell.kafka.native_log import NativeLog  # noqa: PLC0415

        return NativeLog(settings.cluster(pipeline), isolation=isolation)
    if settings.on_kafka:
        from stream_ml.shell.kafka.log import KafkaLog  # noqa: PLC0415

        return KafkaLog(settings.cluster(pipeline), isolation=isolation)
    if not Path(settings.path).exists():
        raise LogError(
            f"{settings.path}: expected a log, given no file; name another with --broker, or make "
            "one with `stream-ml up` or `stream-ml demo`"
        )
    return SqliteLog.open(settings.path, task=settings.task_of(pipeline))


class Publisher:
    """Publishes events and labels that their pipeline can read; a context manager.

    `publish_event` waits until the log has the event, and says where it lies. `post_event` does
    not wait, which is ten times as fast on a cluster; that all was taken is known when `flush`
    returns, or when the `with` block is left without an error.

    Args:
        log: where they go.
        pipeline: says what an event and a label are, and which member is the key.

    >>> from stream_ml.examples.cards import cards, transactions
    >>> from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
    >>> events, labels = transactions(1_001, seed=1)
    >>> with SqliteLog.create(MEMORY) as log:
    ...     publisher = Publisher(log, cards)
    ...     publisher.publish_event(events[0]).offset, publisher.publish_label(labels[0]).topic
    (0, 'labels')
    """

    def __init__(self, log: Log, pipeline: Pipeline) -> None:
        self._log = log
        self._pipeline = pipeline

    def publish_event(self, members: Mapping[str, Any]) -> Record:
        """Publish one event, and return where it lies.

        Raises:
            BadRecord: the pipeline would refuse it; nothing was published.
            LogError: the log did not take it.
        """
        return self.send([self.check("events", _encode(members))])[0]

    def publish_label(self, members: Mapping[str, Any]) -> Record:
        """Publish one label, and return where it lies; raises as `publish_event` does."""
        return self.send([self.check("labels", _encode(members))])[0]

    def post_event(self, members: Mapping[str, Any]) -> None:
        """Publish one event soon; it is taken when `flush` returns.

        Raises:
            BadRecord: the pipeline would refuse it; it was not published.
            LogError: the log did not take it, or something that was posted before.
        """
        self._log.post([self.check("events", _encode(members))])

    def post_label(self, members: Mapping[str, Any]) -> None:
        """Publish one label soon; raises as `post_event` does."""
        self._log.post([self.check("labels", _encode(members))])

    def flush(self) -> None:
        """Wait until all that was posted is taken.

        Raises:
            LogError: some of it was not; it says how many records, and why.
        """
        self._log.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        except LogError as lost:
            if error is None:
                raise
            error.add_note(str(lost))  # what went wrong first is what to look at first

    def check(self, topic: str, value: bytes) -> Output:
        """The record to send, once it is known to be one of `events` or `labels`.

        Args:
            topic: `events` or `labels`.
            value: a JSON object as bytes.

        Raises:
            BadRecord: the pipeline would refuse it.
        """
        return self.examine(topic, value)[0]

    def examine(self, topic: str, value: bytes) -> tuple[Output, int]:
        """As `check`, with the record's time.

        Args:
            topic: `events` or `labels`.
            value: a JSON object as bytes.
        """
        if topic == "events":
            event = self._pipeline.event_codec.decode(value)
            return Output(topic, event.key.encode(), value), event.ts
        label = self._pipeline.label_codec.decode(value)
        return Output(topic, label.event_id.encode(), value), label.ts

    def send(self, outputs: Sequence[Output]) -> list[Record]:
        """Publish what was checked, and return where each one lies.

        Raises:
            NotAcknowledged: of some nobody knows whether they were taken.
            LogError: the log did not take any.
        """
        return self._log.append(outputs)


def _encode(members: Mapping[str, Any]) -> bytes:
    for name, value in members.items():
        # It would be written as null, which may mean something else.
        if isinstance(value, float) and not math.isfinite(value):
            raise BadRecord("wrong_type", f"$.{name}", f"expected a finite number, given {value}")
    try:
        return orjson.dumps(dict(members))
    except TypeError as error:
        for name, value in members.items():
            _refuse_unwritable(name, value)
        raise BadRecord("not_json", "$", f"expected what JSON can hold: {error}") from None


def _refuse_unwritable(name: Any, value: Any) -> None:
    """Name the member that JSON cannot hold.

    Raises:
        BadRecord: it is this one.
    """
    try:
        orjson.dumps(value)
    except TypeError:
        kind = type(value)
        description = (
            f"{kind.__module__.removeprefix('builtins')} {kind.__qualname__} {value!r:.40}".strip()
        )
        if isinstance(value, int):
            raise BadRecord(
                "out_of_range", f"$.{name}", f"expected a number within ±2^53, given {description}"
            ) from None
        raise BadRecord(
            "wrong_type",
            f"$.{name}",
            f"expected what JSON can hold, such as a float, int, bool or str, given {description}",
        ) from None


def read_batches(
    log: Log,
    topic: str,
    *,
    from_end: bool = False,
    since_ms: int | None = None,
    skew_ms: int | None = None,
    follow: bool = False,
    stop: Stop | None = None,
) -> Generator[list[Record]]:
    """The records of a topic in batches, each in the order in which the log took them in.

    Args:
        log: where they lie.
        topic: whose they are.
        from_end: leave out what lies there already.
        since_ms: leave out what cannot be about events of this time or later.
        skew_ms: by how much an event's time may be later than its arrival, as declared. Where
            nobody knows it, nothing can be left out before it is read.
        follow: go on with what comes; without it, end where the log does.
        stop: go on with what comes until asked to stop.
    """
    partitions = range(log.partitions[topic])
    goes_on = follow or stop is not None
    ends = {} if goes_on else {p: log.end_offset(topic, p) for p in partitions}
    if from_end:
        first_ms = None
    elif since_ms is None or skew_ms is None:
        first_ms = 0
    else:
        first_ms = max(0, since_ms - skew_ms - CLOCKS_MS)
    begin = {p: _start(log, topic, p, first_ms) for p in partitions}
    with closing(log.tail(topic, begin)) as tail:
        while goes_on or not tail.has_reached(ends):
            records = tail.poll(WAIT_S)
            if records:
                yield records
            if stop is not None and stop.is_requested:
                return


def _start(log: Log, topic: str, partition: int, first_ms: int | None) -> int:
    """The offset of what was appended then or later; the end, if None."""
    if first_ms is None:
        return log.end_offset(topic, partition)
    if first_ms == 0:
        return log.first_offset(topic, partition)
    return log.offset_at(topic, partition, first_ms)


def predictions(
    log: Log,
    *,
    from_end: bool = False,
    since_ms: int | None = None,
    skew_ms: int | None = None,
    key: str | None = None,
    follow: bool = False,
    stop: Stop | None = None,
) -> Iterator[Prediction]:
    """The predictions on a log, one by one; closing the iterator lets go of what it holds.

    Records that are no predictions are passed over; join refuses it.

    Args:
        log: where they lie.
        from_end: only those that come from now on.
        since_ms: only those about events of this time or later.
        skew_ms: the pipeline's `skew_ms`, which spares reading all that is older.
        key: only those of this entity.
        follow: go on with those that come; without it, end where the log does.
        stop: go on with those that come until asked to stop.

    >>> from stream_ml.examples.cards import cards, transactions
    >>> from stream_ml.testing import Driver
    >>> with Driver(cards) as driver:
    ...     driver.feed(*transactions(100, seed=1))
    ...     len(list(predictions(driver.log)))
    100
    """
    if since_ms is not None and since_ms in SECONDS:
        raise UsageError(
            f"since_ms: expected UTC milliseconds, given {since_ms}; if these are seconds, it is "
            f"{since_ms * 1000}"
        )
    batches = read_batches(
        log,
        "predictions",
        from_end=from_end,
        since_ms=since_ms,
        skew_ms=skew_ms,
        follow=follow,
        stop=stop,
    )
    with closing(batches):
        for _, prediction in predictions_in(chain.from_iterable(batches)):
            if key is not None and prediction.key != key:
                continue
            if since_ms is None or prediction.ts >= since_ms:
                yield prediction


def command(
    log: Log,
    command: Command,
    signing_key: bytes,
    *,
    verifying_key: bytes | None = None,
    timeout_s: float = 30.0,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Decision:
    """Give a command, and wait for its answer; one whose id was answered is not given again.

    Args:
        log: with a worker on it.
        command: what is asked for; where it does not say of which pipeline and log, it is of those
            that are here.
        signing_key: of the operator that the command names.
        verifying_key: what answers are signed with; without it they are not checked.
        timeout_s: how long to wait.
        wait: what to wait with.
        clock: seconds, from any start.

    Returns:
        The decision that answers it: of kind `refused`, or what was asked for.

    Raises:
        CommandRefused: it was no command that the worker could read or trust.
        NoAnswer: none came in time.
    """
    pipeline = _pipeline_name(log, verifying_key)
    command = replace(
        command,
        pipeline=command.pipeline or pipeline,
        log=command.log or log.identity,
    )
    value = encode_command(command, signing_key)
    patience = _Patience(timeout_s, wait, clock)
    return _give(log, pipeline, command, value, verifying_key=verifying_key, patience=patience)


def signed_command(
    log: Log,
    value: bytes,
    *,
    verifying_key: bytes | None = None,
    timeout_s: float = 30.0,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Decision:
    """Give a command that its operator has signed elsewhere, and wait for its answer.

    Args:
        log: with a worker on it, which checks the signature.
        value: as `codec.encode_command` makes it.
        verifying_key: what answers are signed with; without it they are not checked.
        timeout_s: how long to wait.
        wait: what to wait with.
        clock: seconds, from any start.

    Returns:
        As `command` does, and raises as it does.

    Raises:
        BadRecord: it is no command.
    """
    command, pipeline = _command_in(value), _pipeline_name(log, verifying_key)
    patience = _Patience(timeout_s, wait, clock)
    return _give(log, pipeline, command, value, verifying_key=verifying_key, patience=patience)


class _Patience(NamedTuple):
    """How long to wait for an answer, with what, and by which clock."""

    timeout_s: float
    wait: Callable[[float], object]
    clock: Callable[[], float]


def _command_in(value: bytes) -> Command:
    """The command in a signed record, whose signature the worker checks.

    Raises:
        BadRecord: it is none.
    """
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRecord("not_json", "$", f"expected a signed command: {error}") from None
    if not isinstance(members, dict):
        raise BadRecord("wrong_type", "$", "expected a JSON object, given another value")
    for name, kind in (*dict.fromkeys(COMMAND_TEXTS, str).items(), ("ts", int)):
        if type(members.get(name)) is not kind:
            raise BadRecord(
                "wrong_type", f"$.{name}", f"expected a signed command with a {kind.__name__}"
            )
    return Command(ts=members["ts"], **{name: members[name] for name in COMMAND_TEXTS[:-1]})


def _give(
    log: Log,
    pipeline: str,
    command: Command,
    value: bytes,
    *,
    verifying_key: bytes | None,
    patience: _Patience,
) -> Decision:
    answer, next_offset = _answer(log, 0, command, verifying_key)
    if answer is not None:
        return answer
    refused_from = log.end_offset("dead-letters", 0)
    [record] = log.append([Output("commands", pipeline.encode(), value)])
    deadline, backoff = patience.clock() + patience.timeout_s, Backoff()
    while True:
        answer, next_offset = _answer(log, next_offset, command, verifying_key)
        if answer is not None:
            return answer
        refused_from = _raise_if_refused(log, refused_from, record)
        if patience.clock() >= deadline:
            raise NoAnswer(
                f"{command.kind}: no answer within {patience.timeout_s:g} s; is a worker running? "
                "The command stays on the log and may still be answered: ask again with "
                f"--id {command.command_id}, which does nothing twice"
            )
        patience.wait(backoff.next())


def _answer(
    log: Log, next_offset: int, command: Command, key: bytes | None
) -> tuple[Decision | None, int]:
    """The decision that answers a command, if one lies from an offset on; and the next offset."""
    while records := log.read("registry", 0, next_offset, READ_RECORDS):
        for record in records:
            next_offset = record.offset + 1
            try:
                decision = decode_decision(record.value, key)
            except BadRecord:
                continue  # not the worker's word
            if _answers(decision, command):
                return decision, next_offset
    return None, next_offset


def _answers(decision: Decision, command: Command) -> bool:
    """Whether it is about this operator's command of that id.

    One that was out of its time has used up no id, and its answer is no later one's. Former
    releases did not tell operators apart.
    """
    return (
        decision.command_id == command.command_id
        and decision.signed_by in {command.operator, None}
        and (OUT_OF_TIME not in (decision.evidence or {}) or decision.given_ms == command.ts)
    )


def _pipeline_name(log: Log, key: bytes | None) -> str:
    """The pipeline that commands are for, by its registry; rather by a record of the worker."""
    name: str | None = None
    for record, decision in registry_records(log, key):
        record_pipeline = (record.key or b"").decode(errors="replace")
        name = record_pipeline if name is None else name
        if not isinstance(decision, BadRecord):
            return record_pipeline
    if name is not None:
        return name
    raise StreamMLError(
        "nothing serves on this log yet, so there is nothing to command; start a worker with "
        "`stream-ml up`"
    )


def _raise_if_refused(log: Log, next_offset: int, record: Record) -> int:
    while letters := log.read("dead-letters", 0, next_offset, READ_RECORDS):
        for letter in letters:
            next_offset = letter.offset + 1
            members = orjson.loads(letter.value or b"{}")
            if (members["topic"], members["offset"]) == ("commands", record.offset):
                raise CommandRefused(
                    f"the worker refused the command: {members['reason']} at {members['path']}: "
                    f"{members['message']}"
                )
    return next_offset


def what_if(
    log: Log,
    pipeline: Pipeline,
    estimators: Mapping[str, Any],
    *,
    since: int | None = None,
    key: bytes | None = None,
) -> WhatIfView:
    """How lines would have done on a log that is there, beside what served; only reads.

    Args:
        log: with examples, a registry and snapshots.
        pipeline: the declaration that it was made under.
        estimators: untrained, by the name of the line that each would be.
        since: only predictions from then on are scored (UTC ms), though all examples are taught.
        key: checks the decisions; without one all are believed.

    Raises:
        DeclarationError: an estimator cannot be a line of this pipeline.

    >>> from stream_ml.examples.cards import cards, transactions
    >>> from stream_ml.testing import Driver
    >>> events, labels = transactions(1_500, seed=1)
    >>> with Driver(cards) as driver:
    ...     driver.feed(events, labels)
    ...     view = what_if(driver.log, cards, {"tree": cards.models["tree"]})
    >>> [candidate] = view.candidates
    >>> candidate.recorded.answers > 0, candidate.recorded.worst
    (True, 0.0)
    """
    from stream_ml.shell.views import what_if as trial  # noqa: PLC0415 - loads stages and models

    return trial.what_if(log, pipeline, key, estimators, since=since)
