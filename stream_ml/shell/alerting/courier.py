"""Delivers alerts: one courier for each recipient of a route, at its own pace, at least once each.

Theory of operation:

1. A courier is a thread beside the worker (on a cluster beside who looks after the workers): it
   waits for the other side nearly all of its time, needs nothing of a stage's, and is gone with
   the process. It reads the topic `alerts` with a log of its own, so a stage never waits for it,
   and what is not delivered yet waits on the log, not in memory.
2. The place is kept after each delivery, so whatever is killed when, nothing is left out. What was
   delivered just before may be delivered again, with the same fingerprint and times.
3. What is not taken is tried again, less and less often, for as long as it takes; the alerts behind
   it wait, for their order says what is so. Only what the receiver has read and will never take
   (400, 413, ...) is given up after some tries, and told. Whatever keeps a courier from the log, or
   from its place there, is told and tried again too.
4. A new route begins with what is open, and goes on with what changes; what was over before it was
   declared is nobody's alert any more.
5. Where several processes could deliver (several `up` on a cluster), one has the turn, and the
   others wait for it. Who gets it goes on from the place that was kept.
6. Records that are not sealed with the pipeline's key are passed over.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stream_ml.errors import StreamMLError
from stream_ml.sealing import Seals
from stream_ml.shell.alerting.bookmarks import BookmarkError, Place
from stream_ml.shell.alerting.notification import notification
from stream_ml.shell.alerting.recipients import DeliveryError
from stream_ml.shell.log.port import read_between
from stream_ml.shell.views.alerts import AlertFold, alerts_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from stream_ml.routes import Route
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.alerting.bookmarks import Bookmark
    from stream_ml.shell.alerting.recipients import Recipient
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.alerts import AlertView

__all__ = ["Address", "Courier", "Couriers", "Turn"]

RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
# Of what the receiver will never take.
TRIES_MAX = 5
# How long a courier waits for records before it sees whether it was asked to stop.
WAIT_S = 0.5
# A cluster forgets the offsets of a group that nobody keeps, after a week by default.
KEEP_S = 3_600.0
# How long couriers are waited for: the try that is under way may be done again at the next start.
STOP_S = 2.0


class Turn(Protocol):
    """Whose turn it is to deliver, where several processes could."""

    def is_ours(self) -> bool:
        """Whether this process has the turn."""

    def run(self, stop: threading.Event) -> None:
        """Take part until asked to stop."""


@dataclass(frozen=True, slots=True)
class Address:
    """A route and one of its recipients; `name` is what the place is kept under."""

    route: Route
    name: str
    recipient: Recipient


class Courier:
    """Delivers to one address.

    Args:
        address: where to.
        key: what alerts are sealed with.
        pipeline: whose alerts they are.
        open_log: opens the log that they lie on.
        bookmark: where the place is kept, of that log.
        say: tells the operator.
        stop: set when it is to end.
        turn: whether this process is to deliver now; None: it is the only one.
        retry_min_s: how long to wait after a first failure.
    """

    def __init__(
        self,
        address: Address,
        key: bytes,
        pipeline: str,
        *,
        open_log: Callable[[], Log],
        bookmark: Callable[[Log, str], Bookmark],
        say: Callable[[str], object],
        stop: threading.Event,
        turn: Turn | None = None,
        retry_min_s: float = RETRY_MIN_S,
    ) -> None:
        self._address = address
        self._key = key
        self._pipeline = pipeline
        self._open_log = open_log
        self._bookmark = bookmark
        self._say = say
        self._stop = stop
        self._turn = turn
        self._retry_min_s = retry_min_s

    def run(self) -> None:
        """Deliver until asked to stop, whatever becomes of the log meanwhile."""
        wait_s = self._retry_min_s
        while not self._stop.is_set():
            if not self._is_at_work():
                self._stop.wait(WAIT_S)
                continue
            started_s = time.monotonic()
            try:
                with self._open_log() as log:
                    self._follow(log)
            # Whatever it is: a courier that has ended would deliver nothing before the next start.
            except Exception as error:  # noqa: BLE001
                if time.monotonic() - started_s > RETRY_MAX_S:
                    wait_s = self._retry_min_s
                if wait_s == self._retry_min_s:
                    self._tell(f"{_trouble(error)}; alerts wait on the log, and it is tried again")
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)

    def _is_at_work(self) -> bool:
        """Whether to deliver now: not asked to stop, and it is our turn."""
        return not self._stop.is_set() and (self._turn is None or self._turn.is_ours())

    def _follow(self, log: Log) -> None:
        seal = Seals(self._key, self._pipeline, log.identity).records("alerts")
        bookmark = self._bookmark(log, self._address.name)
        place = bookmark.load()
        if place is None:
            place = Place(log.end_offset("alerts", 0), is_begun=False)
            bookmark.store(place)
        first = log.first_offset("alerts", 0)
        fold = AlertFold()
        for record, alert in alerts_in(
            read_between(log, "alerts", 0, first, max(first, place.offset)), seal
        ):
            if alert is not None:
                fold.add(record, alert)
        if not place.is_begun:
            for alert_view in sorted(fold.open(), key=lambda each: each.append_ms):
                if not self._deliver([alert_view]):
                    return
            place = Place(place.offset, is_begun=True)
            bookmark.store(place)
        self._go_on(log, seal, bookmark, fold, max(first, place.offset))

    def _go_on(
        self, log: Log, seal: RecordSeal, bookmark: Bookmark, fold: AlertFold, offset: int
    ) -> None:
        kept, kept_s = offset, time.monotonic()
        with closing(log.tail("alerts", {0: offset})) as tail:
            while self._is_at_work():
                for record, alert in alerts_in(tail.poll(WAIT_S), seal):
                    views = [] if alert is None else fold.add(record, alert)
                    if not self._deliver(views):
                        return
                    offset = record.offset + 1
                    if self._taken(views):
                        bookmark.store(Place(offset, is_begun=True))
                        kept, kept_s = offset, time.monotonic()
                if offset > kept or time.monotonic() - kept_s > KEEP_S:
                    bookmark.store(Place(offset, is_begun=True))
                    kept, kept_s = offset, time.monotonic()

    def _taken(self, views: Sequence[AlertView]) -> list[AlertView]:
        route = self._address.route
        return [view for view in views if route.takes(view.kind, view.severity)]

    def _deliver(self, views: Sequence[AlertView]) -> bool:
        """Deliver a record's alerts as far as they go here; False where it is to do no more."""
        taken = self._taken(views)
        if not taken:
            return self._is_at_work()
        body = notification(self._address.route.name, self._pipeline, taken)
        wait_s, tries = self._retry_min_s, 0
        while self._is_at_work():
            tries += 1
            try:
                self._address.recipient.deliver(body)
            except DeliveryError as error:
                if error.is_final and tries >= TRIES_MAX:
                    self._tell(f"{taken[0].kind} is given up after {tries} tries: {error}")
                    return True
                if tries == 1:
                    self._tell(f"{error}; alerts wait on the log, and it is tried again")
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
            else:
                if tries > 1:
                    self._tell(f"it takes alerts again, after {tries} tries")
                return True
        return False

    def _tell(self, text: str) -> None:
        self._say(f"route {self._address.route.name}, {self._address.recipient}: {text}")


def _trouble(error: Exception) -> str:
    if isinstance(error, BookmarkError):
        return str(error)
    if isinstance(error, (StreamMLError, OSError)):
        return f"the log cannot be read: {error}"
    return f"it has failed: {error!r}"


class Couriers:
    """A courier for each address, from `start` until it is left; a context manager.

    Args:
        couriers: makes each courier, given what asks it to stop.
        turn: that they go by, where other processes could deliver as well.
    """

    def __init__(
        self, couriers: Sequence[Callable[[threading.Event], Courier]], turn: Turn | None = None
    ) -> None:
        self._stop = threading.Event()
        self._couriers = [make(self._stop) for make in couriers]
        self._turn = turn
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Set them to work, if they are not yet: whoever holds the worker's place delivers."""
        if self._threads:
            return
        if self._turn is not None:
            turn = threading.Thread(
                target=self._turn.run, args=(self._stop,), name="turn", daemon=True
            )
            self._threads.append(turn)
        self._threads += [
            threading.Thread(target=courier.run, name="courier", daemon=True)
            for courier in self._couriers
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        deadline = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
