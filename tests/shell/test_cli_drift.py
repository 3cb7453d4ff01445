"""`drift`: what has moved is told with what lies behind it, and nothing where nothing has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from river import dummy, stats

import stream_ml as sml
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

HOUR = 3_600_000
FIRST = 1_704_067_200_000
metered = sml.Pipeline(
    "metered",
    events=sml.Events(key="meter", fields={"load": float}, lateness=0),
    features=[sml.field("load")],
    label=sml.Label(float, horizon="1h"),
    champion="average",
    models={"average": dummy.StatisticRegressor(stats.Mean())},
)


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """Two days of 40 events an hour, then a load that stands still for four hours."""
    path = tmp_path / "log.db"
    events: list[dict[str, Any]] = [
        {
            "event_id": f"e{n}",
            "ts": FIRST + n * HOUR // 40,
            "meter": f"m{n % 7}",
            "load": 5.0 if n >= 48 * 40 else 1.0 + n * 37 % 101,
        }
        for n in range(52 * 40 + 10)
    ]
    key = Settings().signing_key(str(path))
    with SqliteLog.open_or_create(path) as log, Runner(log, metered, key) as runner:
        log.append([output_of(metered, "events", event) for event in events])
        runner.run()
        runner.commit(checkpoint=True)
    return path


def test_what_has_moved_is_told_with_what_lies_behind_it(cli: Cli, frozen: Path) -> None:
    """The field, since when, and that it looks like a fault; for people and for machines."""
    broker = ("--broker", f"sqlite:{frozen}")
    found = cli("drift", *broker, "--format", "json").json

    (cause,) = found["causes"]
    assert ("frozen", "pipeline", "load") == (cause["kind"], cause["origin"], cause["subject"])
    assert FIRST + 48 * HOUR == cause["since"]
    assert not found["has_reference"]
    text = cli("drift", *broker).out
    assert (
        "frozen      the pipeline  load  2024-01-03 00:00:00Z  the field load stands still" in text
    )
    # The sentence is beside the cause alone, and the figures beside what has moved.
    assert 1 == text.count("stands still")
    assert "  one value in all 40" in text.split("\nmoved")[1]
    assert max(map(len, text.split("\nmoved")[1].splitlines())) <= 100
    assert 0 == found["late"]
    assert "there is no week before to compare with: only faults would be told" in text


def test_events_after_the_end_of_their_blocks_are_counted(cli: Cli, tmp_path: Path) -> None:
    """Meters whose partitions come when the others are days ahead are compared with nothing."""
    path = tmp_path / "late.db"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path, partitions=3) as log, Runner(log, metered, key) as runner:
        for meters in (range(1), range(1, 9)):
            for n in range(400):
                event = {"event_id": f"{meters}{n}", "ts": FIRST + n * HOUR // 40, "load": 1.0}
                event["meter"] = f"m{meters[n % len(meters)]}"
                log.append([output_of(metered, "events", event)])
            runner.run()
        runner.commit(checkpoint=True)
    late = cli("drift", "--broker", f"sqlite:{path}", "--format", "json").json["late"]
    assert late > 0
    text = cli("drift", "--broker", f"sqlite:{path}").out
    assert f"; {late} events came after their block was over, and are not compared" in text


def test_a_log_on_which_nothing_is_watched_says_so(cli: Cli, worked: Path) -> None:
    """A pipeline whose first hour is not over has nothing to compare."""
    text = cli("drift", "--broker", f"sqlite:{worked}").out
    assert text.startswith(("nothing is watched yet: ", "nothing has moved"))


def test_the_last_blocks_are_shown_of_models_slices_and_labels(cli: Cli, tmp_path: Path) -> None:
    """By `drift`, in short by `status` and `models`; what a field holds writes no escapes."""
    path = tmp_path / "zones.db"
    fields = {"load": float, "zone": str}
    zones = replace(
        metered,
        events=sml.Events(key="meter", fields=fields, lateness=0, breadth=1),
        slices=[sml.Slice("near", zone="near"), sml.slice_by("zone", top=1)],
    )
    outputs = []
    for n in range(48 * 40):
        zone = ("near", "\x1b[31mfar")[n % 4 == 0]
        body = {"event_id": f"e{n}", "ts": FIRST + n * HOUR // 40, "meter": "m"}
        outputs.append(output_of(zones, "events", {**body, "load": 1.0 + n % 7, "zone": zone}))
        known = {"event_id": f"e{n}", "ts": body["ts"] + HOUR // 2, "label": 1.0 + n % 7}
        outputs.append(output_of(zones, "labels", known))
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, zones, key) as runner:
        log.append(outputs)
        runner.run()
        runner.commit(checkpoint=True)
    broker = ("--broker", f"sqlite:{path}")
    drift, status, models = (cli(name, *broker).out for name in ("drift", "status", "models"))
    assert "\x1b" not in drift + status + models

    losses, slices, labels = (
        drift.partition(head)[2].partition("\n\n")[0].splitlines()
        for head in ("loss by block", "served loss by slice", "labels by block")
    )
    assert 8 == len(losses)
    assert losses[-1].startswith("usually")
    assert ["near", "zone=*", "zone=near"] == [row.split()[0] for row in slices[1:]]
    assert "100.0%" in labels[1]
    assert "30 min" in labels[-2]
    assert "loss of what was served" in status
    for text in (status, models):
        rows = text.partition("loss by slice")[2].partition("\n\n")[0].splitlines()[2:]
        assert ["near", "zone=*", "zone=near"] == [row.split()[0] for row in rows]
