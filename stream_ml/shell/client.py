"""What producers, consumers and operators do with a log that a worker is at work on.

None of it takes the worker's place or needs its key: publishing validates with the pipeline's own
codec, reading follows the log, and a command is signed by whoever gives it and answered by the
worker on the registry.
"""

from __future__ import annotations

import heapq
import math
import time
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import decode_decision, decode_prediction, encode_command
from stream_ml.errors import BadRecord, CommandRefused, NoAnswer, StreamMLError
from stream_ml.records import Output
from stream_ml.shell.replay import read_all
from stream_ml.shell.tailing import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Command, Decision, Prediction, Record
    from stream_ml.shell.log import Log
    from stream_ml.shell.stopping import Stop

__all__ = ["Publisher", "ask", "follow", "predictions"]

READ_RECORDS = 1_000


class Publisher:
    """Publishes events and labels that their pipeline can read.

    Args:
        log: where they go.
        pipeline: says what an event and a label are, and which member is the key.

    >>> from stream_ml.examples.cards import cards, transactions
    >>> from stream_ml.shell.sqlite_log import MEMORY, SqliteLog
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
        return self.send([self.check("events", _encoded(members))])[0]

    def publish_label(self, members: Mapping[str, Any]) -> Record:
        """Publish one label, and return where it lies; raises as `publish_event` does."""
        return self.send([self.check("labels", _encoded(members))])[0]

    def check(self, topic: str, value: bytes) -> Output:
        """The record to send, once it is known to be one of `events` or `labels`.

        Raises:
            BadRecord: the pipeline would refuse it.
        """
        if topic == "events":
            key = self._pipeline.event_codec.decode(value).key
        else:
            key = self._pipeline.label_codec.decode(value).event_id
        return Output(topic, key.encode(), value)

    def send(self, outputs: Sequence[Output]) -> list[Record]:
        """Publish what was checked, all of it or nothing, and return where each one lies."""
        return self._log.append(outputs)


def _encoded(members: Mapping[str, Any]) -> bytes:
    for name, value in members.items():
        # It would be written as null, which may mean something else.
        if isinstance(value, float) and not math.isfinite(value):
            raise BadRecord("wrong_type", f"$.{name}", f"expected a finite number, given {value}")
    try:
        return orjson.dumps(dict(members))
    except TypeError as error:
        raise BadRecord("not_json", "$", f"expected what JSON can hold: {error}") from None


def follow(
    log: Log, topic: str, *, from_end: bool = False, stop: Stop | None = None
) -> Iterator[list[Record]]:
    """The records of a topic in batches, each in the order in which the log took them in.

    Args:
        log: where they lie.
        topic: whose they are.
        from_end: leave out what lies there already.
        stop: go on with what comes until asked to stop; without it, end where the log does.
    """
    partitions = range(log.partitions[topic])
    place = log.end_offset if from_end else log.first_offset
    at = [place(topic, partition) for partition in partitions]
    backoff = Backoff()
    while stop is None or not stop.asked:
        version = log.version()
        read = [log.read(topic, partition, at[partition], READ_RECORDS) for partition in partitions]
        if any(read):
            backoff.reset()
            for records in filter(None, read):
                at[records[0].partition] = records[-1].offset + 1
            yield list(heapq.merge(*read, key=lambda record: record.append_ms))
        elif stop is None:
            return
        elif log.version() == version:
            stop.wait(backoff.next())


def predictions(
    log: Log,
    *,
    from_end: bool = False,
    since_ms: int | None = None,
    key: str | None = None,
    stop: Stop | None = None,
) -> Iterator[Prediction]:
    """The predictions on a log, one by one.

    Args:
        log: where they lie.
        from_end: only those that come from now on.
        since_ms: only those about events of this time or later.
        key: only those of this entity.
        stop: go on with those that come until asked to stop; without it, end where the log does.

    >>> from stream_ml.examples.cards import cards, transactions
    >>> from stream_ml.testing import Driver
    >>> with Driver(cards) as driver:
    ...     driver.feed(*transactions(100, seed=1))
    ...     len(list(predictions(driver.log)))
    100
    """
    for records in follow(log, "predictions", from_end=from_end, stop=stop):
        for record in records:
            prediction = decode_prediction(record.value)
            if key is not None and prediction.key != key:
                continue
            if since_ms is None or prediction.ts >= since_ms:
                yield prediction


def ask(
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
        command: what is asked for.
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
    answer, at = _answer(log, 0, command.command_id, verifying_key)
    if answer is not None:
        return answer
    refused_from = log.end_offset("dead-letters", 0)
    value = encode_command(command, signing_key)
    [placed] = log.append([Output("commands", _pipeline_name(log), value)])
    deadline, backoff = clock() + timeout_s, Backoff()
    while True:
        answer, at = _answer(log, at, command.command_id, verifying_key)
        if answer is not None:
            return answer
        refused_from = _raise_if_refused(log, refused_from, placed)
        if clock() >= deadline:
            raise NoAnswer(
                f"{command.kind}: no answer within {timeout_s:g} s; is a worker running? The "
                "command stays on the log and may still be answered: ask again with "
                f"--id {command.command_id}, which does nothing twice"
            )
        wait(backoff.next())


def _answer(log: Log, at: int, command_id: str, key: bytes | None) -> tuple[Decision | None, int]:
    """The decision that answers a command, if there is one from `at` on; and where to go on."""
    while records := log.read("registry", 0, at, READ_RECORDS):
        for record in records:
            at = record.offset + 1
            try:
                decision = decode_decision(record.value, key)
            except BadRecord:
                continue  # not the worker's word
            if decision.command_id == command_id:
                return decision, at
    return None, at


def _pipeline_name(log: Log) -> bytes:
    """Whose commands they are, as its registry says."""
    for record in read_all(log, "registry"):
        return record.key or b""
    raise StreamMLError(
        "nothing serves on this log yet, so there is nothing to command; start a worker with "
        "`stream-ml up`"
    )


def _raise_if_refused(log: Log, at: int, placed: Record) -> int:
    while letters := log.read("dead-letters", 0, at, READ_RECORDS):
        for letter in letters:
            at = letter.offset + 1
            members = orjson.loads(letter.value or b"{}")
            if (members["topic"], members["offset"]) == ("commands", placed.offset):
                raise CommandRefused(
                    f"the worker refused the command: {members['reason']} at {members['path']}: "
                    f"{members['message']}"
                )
    return at
