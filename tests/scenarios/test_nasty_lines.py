"""Nothing that one line does stops another: estimators that do the worst, in every role."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from river import base, linear_model, preprocessing

import stream_ml as sml
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from stream_ml.shell.views.registry import read_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.records import Output

KEY = b"nasty.ones.............".ljust(32, b".")
START_MS = 1_700_000_000_000
EVENTS = 1_200
REFRESH = 100
# From this example on each does what it does.
PATIENCE = 150
TOO_MUCH = 70 << 20


class Nasty(base.Classifier):
    """Counts, and says one half; what makes it nasty begins after a while."""

    def __init__(self) -> None:
        self.count = 0
        self.state: Any = None

    def learn_one(self, x: dict[str, float], y: bool) -> None:  # noqa: ARG002 - river's own
        """Count an example."""
        self.count += 1
        if self.count > PATIENCE:
            self.turn()

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:  # noqa: ARG002 - as above
        """One half."""
        return {True: 0.5, False: 0.5}

    def turn(self) -> None:
        """Do the worst."""


class Raising(Nasty):
    """Raises at every tenth question."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """A third, or an error."""
        if int(x["x"] * 1_000) % 10 == 0:
            raise ValueError("not this one")
        return {True: 0.3, False: 0.7}


class Nameless(Nasty):
    """Says what is no number."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """No number."""
        return {True: math.nan, False: math.nan} if x["x"] > 0 else {True: 0.5, False: 0.5}


class Unwritable(Nasty):
    """Holds what no pickle can hold."""

    def turn(self) -> None:
        """Take hold of it."""
        self.state = lambda: self


class Deep(Nasty):
    """Nests itself deeper than any stack."""

    def turn(self) -> None:
        """One deeper, a thousand times."""
        for _ in range(1_000):
            self.state = [self.state]


class Recursive(Nasty):
    """Calls itself for ever."""

    def turn(self) -> None:
        """Call itself."""
        self.turn()


class Greedy(Nasty):
    """Outgrows every bound."""

    def turn(self) -> None:
        """Take too much."""
        self.state = bytes(TOO_MUCH)


class Starving(Nasty):
    """Asks for more memory than there is."""

    def turn(self) -> None:
        """Ask."""
        self.state = bytearray(1 << 62)


class Hanging(Nasty):
    """Does not come back."""

    def turn(self) -> None:
        """Stay."""
        while True:
            pass


class Leaving(Nasty):
    """Ends the process, as it thinks."""

    def turn(self) -> None:
        """Leave."""
        raise SystemExit(3)


NASTY = (Raising, Nameless, Unwritable, Deep, Recursive, Greedy, Starving, Hanging, Leaving)


def plain() -> Any:
    """An honest one."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def declared(champion: str, models: dict[str, Any]) -> sml.Pipeline:
    """Lines that are renewed at every hundredth example; nobody is replaced by itself."""
    return sml.Pipeline(
        "nasty",
        events=sml.Events(key="key", fields={"x": float}, lateness=0, breadth=1),
        features=[sml.field("x")],
        label=sml.Label(bool, horizon="1h"),
        champion=champion,
        models=models,
        promotion=sml.Promotion(
            mode="manual", refresh=REFRESH, first=REFRESH, slots=len(NASTY), on_harm="alert"
        ),
    )


def outputs(pipeline: sml.Pipeline) -> Iterator[Output]:
    """Events a second apart, each label half a second later."""
    for number in range(EVENTS):
        ts, x = START_MS + 1_000 * number, (number * 37 % 200 - 100) / 100
        event = {"event_id": f"e{number}", "ts": ts, "key": "k", "x": x}
        yield output_of(pipeline, "events", event)
        label = {"event_id": f"e{number}", "ts": ts + 500, "label": x > (number % 3 - 1) / 10}
        yield output_of(pipeline, "labels", label)


def work(pipeline: sml.Pipeline) -> tuple[dict[str, str], list[str], SqliteLog]:
    """Work on all; who is quarantined and why, and the digests of the honest line's snapshots."""
    log = SqliteLog.create(MEMORY)
    log.append(list(outputs(pipeline)))
    # By the processor's time: a busy machine makes nobody hang.
    stopwatch = ProcessStopwatch(hang_s=1.0, tick_s=0.1, clock=time.process_time)
    with Runner(log, pipeline, KEY, stopwatch=stopwatch) as runner:
        runner.run()
        reasons = runner.learn.quarantine_reasons
    digests = []
    for entry in read_registry(log, KEY, None).decisions:
        ref = entry.decision.serving.lines.get("plain")
        if ref is not None and ref.model not in {model for model, _ in digests}:
            digests.append((ref.model, ref.digest))
    assert len([*read_all(log, "predictions")]) == EVENTS
    return reasons, [f"{model} {digest}" for model, digest in digests], log


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """The honest line's snapshots without any other."""
    _, digests, log = work(declared("plain", {"plain": plain()}))
    log.close()
    return digests


def test_challengers_that_do_the_worst_harm_nobody_but_themselves(alone: list[str]) -> None:
    """Each that fails is quarantined with the reason; the champion is what it is without them."""
    models = {cls.__name__.lower(): cls() for cls in NASTY}
    reasons, digests, log = work(declared("plain", {"plain": plain(), **models}))
    with log:
        examples = len([*read_all(log, "examples")])

    assert digests == alone
    assert len(digests) == EVENTS // REFRESH + 1
    assert examples == EVENTS
    assert reasons.keys() == models.keys()


@pytest.mark.parametrize("cls", NASTY, ids=lambda cls: cls.__name__)
def test_a_champion_that_does_the_worst_stops_nothing(cls: Any, alone: list[str]) -> None:
    """What served goes on serving, every event is answered, and challengers are renewed."""
    name = cls.__name__.lower()
    reasons, digests, log = work(declared(name, {name: cls(), "plain": plain()}))
    with log:
        newest = read_registry(log, KEY, None).newest

    assert digests == alone
    assert newest is not None
    champion, version = newest.serving.champion.model.split("@")
    assert (champion, [*reasons]) == (name, [name])
    assert int(version) <= PATIENCE + REFRESH
