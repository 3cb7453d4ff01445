"""Events that come too late have a topic of their own, where it is declared."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.cli.main import main
from stream_ml.errors import DeclarationError
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.forget import find_traces
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.views.status import read_status
from stream_ml.shell.views.trace import trace
from stream_ml.stages.watermark import PredictionsWatermark
from stream_ml.testing import Driver
from tests.shop import EVENT, KEY, START_MS, shop
from tests.stages.test_window_lateness import disorder, worked

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.pipeline import Pipeline

apart = replace(shop, events=replace(shop.events, too_late="topic"))


def outcome(
    pipeline: Pipeline, events: list[dict[str, Any]], *, crashes: bool = False
) -> tuple[list[Any], list[Any], list[Any], dict[str, int]]:
    """The predictions, the dead letters, the late events, and what `status` counts."""
    with worked(pipeline, events, crashes=crashes) as driver:
        late = driver.read("late-events") if "late-events" in driver.log.partitions else []
        letters = driver.read("dead-letters")
        driver.runner.commit(checkpoint=True)
        return driver.read("predictions"), letters, late, dict(read_status(driver.log, None).events)


@pytest.mark.parametrize("seed", range(2))
def test_each_lies_there_once_with_its_bytes_and_how_late_it_was(seed: int) -> None:
    """In the place of a dead letter, whatever dies; all else is as if it were refused."""
    events = disorder(seed)
    predictions, letters, none, counts = outcome(shop, events)
    found = outcome(apart, events)

    too_late = [each for each in letters if each["reason"] == "too_late"]
    assert (len(too_late) > 10, none) == (True, [])
    assert found[0] == predictions
    assert found[1] == [each for each in letters if each["reason"] != "too_late"]
    behind = [each.pop("behind_ms") for each in found[2]]
    assert found[2] == too_late
    sent = {each["event_id"]: each for each in events}
    newest = 0
    # With a breadth of 1 the watermark is the newest time before it.
    watermarks = [newest := max(newest, each["ts"]) for each in events]
    for record, behind_ms in zip(found[2], behind, strict=True):
        own = orjson.loads(base64.b64decode(record["value"]))
        assert sent[own["event_id"]] == own
        assert watermarks[record["offset"]] - own["ts"] == behind_ms > 20_000
    late = {"refused": counts["refused"] - len(too_late), "too_late": len(too_late)}
    assert counts | late == found[3]
    crashed = outcome(apart, events, crashes=True)
    for record, behind_ms in zip(found[2], behind, strict=True):
        record["behind_ms"] = behind_ms
    assert found == crashed


def test_it_may_be_declared_and_undeclared_at_a_start() -> None:
    """From then on; a log that was made without the topic gets it."""
    events = disorder(0)
    _, letters, _, _ = outcome(shop, events)
    with Driver(shop) as driver:
        for pipeline, first, end in ((shop, 0, 90), (apart, 90, 180), (shop, 180, len(events))):
            if pipeline != shop or first:
                driver.declare(pipeline)
            driver.publish("events", events[first:end])
            driver.run()
        late = [each["offset"] for each in driver.read("late-events")]
        refused = [each["offset"] for each in driver.read("dead-letters")]

    reasons = {each["offset"]: each["reason"] for each in letters}
    expected = [n for n, why in reasons.items() if why == "too_late" and 90 <= n < 180]
    assert (len(expected) > 2, expected) == (True, late)
    assert [n for n in reasons if n not in late] == refused


def test_another_word_is_refused() -> None:
    """With what it may be."""
    with pytest.raises(DeclarationError, match=r"events\.too_late: expected one of refused, topic"):
        replace(shop, events=replace(shop.events, too_late=["topic"]))


def test_people_read_them_as_dead_letters(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """By their reason, with their bytes, and how late; `forget` and `trace` find them."""
    path = tmp_path / "log.sqlite"
    values = [{**EVENT, "event_id": f"e{n}", "ts": START_MS + 30_000 * n} for n in range(3)]
    values.append({**EVENT, "event_id": "late", "ts": START_MS + 1_000, "shop": "zoe"})
    with SqliteLog.open_or_create(path) as log, Runner(log, apart, KEY) as runner:
        log.append([Output("events", b"zoe", orjson.dumps(each)) for each in values])
        runner.run()
        traces = find_traces(log, apart, "zoe")
        found = trace(log, KEY, "late")
    command = ("--broker", f"sqlite:{path}", "dead-letters", "--late")

    assert main([*command, "--format", "json"]) == 0
    document = orjson.loads(capsysbinary.readouterr().out)
    assert main(command) == 0
    text = capsysbinary.readouterr().out.decode()
    assert main([*command, "--raw"]) == 0
    raw = capsysbinary.readouterr().out

    assert [59_000] == [each["behind_ms"] for each in document["last"]]
    assert [("too_late", 1)] == [(g["reason"], g["count"]) for g in document["groups"]]
    assert "(59 s behind)" in text
    assert orjson.dumps(values[-1]) + b"\n" == raw
    assert [0] == traces.offsets["late-events", 0]
    assert [("events", 3)] == [(v.letter.topic, v.letter.offset) for v in found.letters]


# --- partitions that are silent ---------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 20, 60])), max_size=60))
def test_what_holds_up_nothing_is_told(steps: list[tuple[int, int]]) -> None:
    """The partitions without a prediction for so long, also of a state that was taken up again."""
    watermark = PredictionsWatermark(4, 1, 60)
    append_ms, last = 0, dict[int, int]()
    for partition, passed in steps:
        # A time counts when the next one is as late: one clock alone makes nobody silent.
        former_ms, append_ms = append_ms, append_ms + passed
        watermark.advance(partition, "k", append_ms, append_ms)
        last[partition] = former_ms if last else append_ms
        last = dict.fromkeys(range(4), append_ms) | last

    restored = PredictionsWatermark(4, 1, 60)
    restored.load(watermark.dump())
    silent = [p for p, ms in sorted(last.items()) if max(last.values()) - ms > 60]
    assert silent == watermark.idle == restored.idle
