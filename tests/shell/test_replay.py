"""Replays: everything is published in order, worked on to the end, and accounted for."""

from __future__ import annotations

import io

import pytest
from cli_toy import outputs, stream, toy

from stream_ml.errors import BadRecord
from stream_ml.shell.embedded.replay import output_of, publish_all, replay
from stream_ml.shell.log.reading import decisions, evaluations, examples, read_all, tally
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes.progress import Progress
from stream_ml.testing import Driver

KEY = b"k" * 32


def silent() -> Progress:
    """A progress that nobody sees."""
    return Progress("testing", stream=io.StringIO())


def test_records_are_keyed_as_their_topics_are() -> None:
    """An event is keyed by its entity, a label by its event; what is no object has no key."""
    event = output_of(toy, "events", {"event_id": "e", "user": "u", "x": 1.0})
    label = output_of(toy, "labels", {"event_id": "e", "label": True}, b"as it came")

    assert (event.key, event.value) == (b"u", b'{"event_id":"e","user":"u","x":1.0}')
    assert (label.key, label.value) == (b"e", b"as it came")
    assert output_of(toy, "events", {"user": 7}).key is None
    assert output_of(toy, "events", None, b"{").key is None


def test_everything_is_published_in_order() -> None:
    """What is published in chunks lies on the log in the order it came in, and is counted."""
    records = outputs(6_000)
    progress = silent()
    with SqliteLog.create(MEMORY) as log:
        published = publish_all(log, iter(records), progress)

        assert published == {"events": 6_000, "labels": 5_990}
        assert progress.count == 11_990
        values = [r.value for topic in ("events", "labels") for r in read_all(log, topic)]
    assert values == [output.value for output in records]


def test_a_replay_is_what_a_worker_would_have_done() -> None:
    """A replay leaves the predictions, examples and decisions that feeding the pipeline does."""
    events, labels = stream(700)
    driver = Driver(toy, key=KEY)
    driver.feed(events, labels)
    with SqliteLog.create(MEMORY, identity=driver.log.identity) as log:
        done = replay(log, toy, KEY, outputs(700))

        for topic in ("predictions", "examples", "registry"):
            there = [record.value for record in driver.records(topic)]
            assert [record.value for record in read_all(log, topic)] == there
        assert [d.kind for d in decisions(log, KEY)] == ["bootstrap", "refreshed"]
        assert len(list(examples(log))) == 690
        # A last checkpoint was written.
        assert log.committed("learn-0") == {("examples", 0): 690, ("registry", 0): 2}
    driver.close()
    assert done.published == {"events": 700, "labels": 690}
    counted = {name: count for name, count in done.events.items() if count}
    assert counted == {"events": 700, "predictions": 700}
    assert done.joins["joined"] == 690
    assert done.joins["waiting_predictions"] == 10
    assert [each.model for each in done.evaluations][:2] == ["served", "scaled"]
    assert all(seconds > 0 for seconds in done.seconds.values())


def test_what_was_refused_is_tallied() -> None:
    """Dead letters are counted by reason."""
    records = [output_of(toy, "events", None, value) for value in (b"{", b"[]", b"[1]")]
    with SqliteLog.create(MEMORY) as log:
        replay(log, toy, KEY, records)

        assert tally(log, "dead-letters", "reason") == {"not_an_object": 2, "not_json": 1}
        assert tally(log, "alerts", "kind") == {}


def test_decisions_are_believed_only_with_their_signature() -> None:
    """A registry signed with another key is not read as if it were ours."""
    with SqliteLog.create(MEMORY) as log:
        replay(log, toy, KEY, [])

        with pytest.raises(BadRecord, match="signature"):
            list(decisions(log, b"another"))
        assert [d.number for d in decisions(log, None)] == [0]


def test_how_models_stood_is_read_back() -> None:
    """The evaluations come as the nouns that they are, evidence and all."""
    with SqliteLog.create(MEMORY) as log:
        replay(log, toy, KEY, outputs(1_100))
        found = list(evaluations(log))

    assert [each.model for each in found][:2] == ["served", "scaled"]
    assert found[0].n == 1_000
    assert found[0].evidence is None
    assert found[1].evidence is not None
    assert found[1].evidence["e_value"] > 0


def test_how_models_stood_is_read_from_what_was_sealed() -> None:
    """An evaluation is its members, whatever else a record holds beside them."""
    with Driver(toy, key=KEY) as driver:
        driver.feed(*stream(1_050))
        found = list(evaluations(driver.log))

    assert {1_000} == {each.n for each in found if each.model == "served"}
    assert {"served", "scaled", "prior"} <= {each.model for each in found}
