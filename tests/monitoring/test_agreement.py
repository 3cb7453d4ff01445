"""How far sources of labels agree with the others, of the same events."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.cli.main import main
from stream_ml.monitoring.agreement import EVENTS_MAX, SOURCES_MAX, SourceAgreement
from stream_ml.records import Output
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.views.label_sources import LabelSources

if TYPE_CHECKING:
    from pathlib import Path

WRONG = {"audit": 0.0, "desk": 0.02, "bot": 0.3}
Labels = list[tuple[str, str | None, Any]]


def labels(seed: int, count: int = 2_000) -> Labels:
    """Labels of three sources, each wrong as often as it is; each knows of half of the events."""
    draw = random.Random(seed)
    found: Labels = []
    for number in range(count):
        truth = draw.random() < 0.3
        names = [name for name in WRONG if draw.random() < 0.5]
        draw.shuffle(names)
        found += [(f"e{number}", name, truth != (draw.random() < WRONG[name])) for name in names]
    return found


def published(said: Labels) -> list[Output]:
    """The same as they lie on the log."""
    return [
        Output("labels", event.encode(), orjson.dumps(_members(event, source, label)))
        for event, source, label in said
    ]


def _members(event: str, source: str | None, label: Any) -> dict[str, Any]:
    members = {"event_id": event, "ts": 1, "label": label}
    return members if source is None else {**members, "source": source}


@pytest.mark.parametrize("trusted", ["audit", None])
def test_a_bad_source_is_seen_and_the_interval_holds_what_it_is(trusted: str | None) -> None:
    """In 19 of 20 worlds or so its share of agreement with a right source is within its bounds."""
    within, lowest = 0, []
    for seed in range(20):
        sources = SourceAgreement(trusted)
        for label in labels(seed):
            sources.add(*label)
        by_name = {each.source: each for each in sources.rows()}
        bot, desk = by_name["bot"], by_name["desk"]
        assert bot.low is not None
        assert bot.high is not None
        assert desk.low is not None
        lowest.append(bot.high < desk.low)
        within += bot.low <= 1 - WRONG["bot"] <= bot.high
        assert (by_name["audit"].compared == 0) == (trusted == "audit")
    assert all(lowest)
    assert within >= 17


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", "z", None]), st.booleans()),
        max_size=40,
    ),
    st.sampled_from(["x", None]),
)
def test_the_last_word_of_a_source_is_held_against_that_of_the_others(
    said: Labels, trusted: str | None
) -> None:
    """By the definition, looked up in the whole history, for every order of labels."""
    sources = SourceAgreement(trusted)
    for label in said:
        sources.add(*label)

    expected = []
    names = {source for _, source, _ in said}
    for name in sorted(names, key=lambda name: (name is None, name or "")):
        events = {event for event, source, _ in said if source == name}
        pairs = []
        for event in events:
            own = [label for e, source, label in said if (e, source) == (event, name)]
            others = [
                label
                for e, source, label in said
                if e == event
                and source != name
                and (trusted is None or (source == trusted and name != trusted))
            ]
            pairs += [(own[-1], others[-1])] if others else []
        agreed = sum(own == other for own, other in pairs)
        expected.append((name, len(events), len(pairs), agreed))
    found = [(each.source, each.labels, each.compared, each.agreed) for each in sources.rows()]
    assert found == (expected if names - {None} else [])


def test_numbers_have_a_mean_difference() -> None:
    """Of sources that measure."""
    sources = SourceAgreement()
    for number in range(4):
        sources.add(f"e{number}", "scale", 10.0)
        sources.add(f"e{number}", "eye", 10.0 + number)

    assert [1.5, 1.5] == [each.difference for each in sources.rows()]
    assert [1, 1] == [each.agreed for each in sources.rows()]


def test_what_is_kept_is_bounded() -> None:
    """Of labels that name a source each, and of events without end."""
    sources = SourceAgreement()
    for number in range(EVENTS_MAX + 200):
        sources.add(f"e{number}", f"s{number}" if number < 200 else "s1", True)

    rows = sources.rows()
    assert len(sources._events) == EVENTS_MAX
    assert len(rows) < len(sources._sources) == SOURCES_MAX


def test_a_log_is_read_on_and_what_is_no_label_is_passed_over() -> None:
    """The same rows as from the beginning; none, and hardly a look, where nobody is named."""
    said, hostile = labels(0, 300), [b"[]", b"{", b'{"event_id":1,"label":true,"source":"x"}', None]
    with SqliteLog.create(MEMORY, partitions=2) as log:
        log.append(published([(event, None, label) for event, _, label in said]))
        view = LabelSources()
        assert view.read(log) == []
        log.append([Output("labels", b"k", value) for value in hostile])
        log.append(published(said[:200]))
        first = view.read(log)
        log.append(published(said[200:]))
        rows = view.read(log)

        assert rows == view.read(log) == LabelSources().read(log)
    assert first != rows
    assert ["audit", "bot", "desk", None] == [each.source for each in rows]


def test_status_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a table, and in JSON; a name that would steer a terminal is escaped."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path) as log:
        log.append(
            published([("e1", "desk", True), ("e1", "b\x1bot", False), ("e2", "desk", True)])
        )
    command = ("--broker", f"sqlite:{path}", "status")

    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "--format", "json"]) == 0
    found = orjson.loads(capsys.readouterr().out)["sources"]

    line = next(line for line in text.splitlines() if line.startswith("desk"))
    assert ["desk", "2", "1", "0.0%", "0.0%", "to", "79.3%"] == line.split()
    assert "\x1b" not in text
    assert [("b\x1bot", 1, 1, 0), ("desk", 2, 1, 0)] == [
        (each["source"], each["labels"], each["compared"], each["agreed"]) for each in found
    ]
