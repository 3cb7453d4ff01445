"""The story is true: seven weeks of real flights, from the first to a replacement that pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_ml.examples.flights import flights
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import decisions
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.report.bound import bound_answers
from stream_ml.shell.report.run import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.records import Output

KEY = b"k" * 32
# Ten days after the replacement: enough to see what it is worth.
END_MS = 1_361_232_000_000  # 2013-02-19 00:00 UTC


@pytest.fixture(scope="module")
def report() -> Report:
    """What a replay of the flights of 1 January to 18 February comes to."""
    with SqliteLog.create(MEMORY) as log:
        replay(log, flights, KEY, _outputs())
        decided = list(decisions(log, KEY))
        found = Report("binary", (), decided, horizon_ms=flights.horizon_ms, zone=flights_data.ZONE)
        for example, said in bound_answers(log, flights, decided):
            found.add(example, said)
    return found


def _outputs() -> Iterator[Output]:
    for topic, body in flights_data.records(1, 2):
        if body["ts"] < END_MS:
            yield output_of(flights, topic, body)


def test_the_deserving_challenger_wins_and_the_tree_never_serves(report: Report) -> None:
    """Of two challengers the one that is better replaces the champion, for good; it paid."""
    [replaced] = [switch for switch in report.switches() if switch.kind == "replaced"]

    assert (replaced.model.partition("@")[0], replaced.former.partition("@")[0]) == (
        "adagrad",
        "sgd",
    )
    assert replaced.evidence is not None
    assert replaced.evidence["e_value"] >= replaced.evidence["needed"]
    assert replaced.line_gain is not None
    assert replaced.line_gain > 0
    assert replaced.line_n > 5_000
    served = {decision.serving.champion.model.partition("@")[0] for decision in report.decisions}
    assert served == {"sgd", "adagrad"}


def test_what_serves_after_the_replacement_is_nearly_live(report: Report) -> None:
    """At least 95 % of the log loss between never updated and live is closed from then on."""
    _, since = report.gaps()

    assert since.since.startswith("adagrad@")
    assert since.n > 5_000
    assert since.closed is not None
    assert since.closed >= 0.95
    assert since.losses["first"] - since.losses["live"] > 0.03


def test_the_bound_bounds(report: Report) -> None:
    """Who learned every label at once is beaten by no one who waits for the next renewal."""
    total = report.months()[-1]

    log_loss = {name: scores["log loss"] for name, scores in total.scores.items()}
    assert log_loss["live"] == min(log_loss.values())
