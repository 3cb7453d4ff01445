"""`check`: what is in files, and what of it would be refused, before anything is published."""

from __future__ import annotations

import gzip
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cli_toy import START_MS, TOY, stream, toy, write_lines
from processes import environment
from river import linear_model

import stream_ml as sml

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

tabled = replace(toy, files=sml.Files(time_unit="s", label_delay="10s"))
TABLED = f"{__name__}:tabled"
numeric = replace(
    toy,
    label=sml.Label(float, horizon="1h"),
    champion="line",
    models={"line": linear_model.LinearRegression()},
)
NUMERIC = f"{__name__}:numeric"
silent = replace(toy, label=sml.Label(bool, window="1h", absent=False))
CLICKS = f"{__name__}:silent"
AS_JSON = ("--format", "json")


def test_good_files_are_told_of(cli: Cli, tmp_path: Path) -> None:
    """How many there are, of what time; nothing is made, and the exit code is 0."""
    events, labels = stream(50)
    files = [write_lines(tmp_path / "e", events), write_lines(tmp_path / "l", labels)]

    text = cli("check", *files, "--pipeline", TOY)
    ran = cli("check", *files, "--pipeline", TOY, *AS_JSON)

    assert (text.code, text.err, ran.code) == (0, "", 0)
    assert "read             50 events, 40 labels\n" in text.out
    assert (ran.json["events"], ran.json["labels"], ran.json["keys"]) == (50, 40, 7)
    assert ran.json["times"] == [START_MS, START_MS + 49_000]
    assert ran.json["label_times"] == [START_MS + 10_000, START_MS + 49_000]
    assert sum(ran.json["classes"].values()) == 40
    assert {"e", "l"} == {path.name for path in tmp_path.iterdir()}


def test_labels_are_described(cli: Cli, tmp_path: Path) -> None:
    """Numbers by their quantiles; and labels of no event, wherever they stand, are counted."""
    events, _ = stream(50)
    # Two of them of one id: labels are counted, not ids.
    strange = [{"event_id": f"z{n // 2}", "ts": START_MS, "label": 1e6} for n in range(5)]
    labels = [
        {"event_id": each["event_id"], "ts": each["ts"], "label": float(n)}
        for n, each in enumerate(events)
    ]
    files = [
        write_lines(tmp_path / "l", [*labels[:9], *strange]),
        write_lines(tmp_path / "e", [*events, *labels[9:]]),
    ]

    ran = cli("check", *files, "--pipeline", NUMERIC, *AS_JSON)
    text = cli("check", *files, "--pipeline", NUMERIC)

    assert (0, 5) == (ran.code, ran.json["labels_without_event"])
    quantiles = {"min": 0.0, "p10": 5.0, "p50": 27.0, "p90": 49.0, "max": 1e6}
    assert quantiles == ran.json["label_quantiles"]
    assert "labels           min 0, 10% 5, median 27, 90% 49, max 1,000,000" in text.out
    assert "5 of 55 labels are of an id that no event here has, and would be joined" in text.out


def test_labels_of_one_class_are_named(cli: Cli, tmp_path: Path) -> None:
    """Clicks alone teach nothing: it is said, unless silence is declared to be a label as well."""
    events, labels = stream(50)
    clicks = [{**label, "label": True} for label in labels]
    files = [write_lines(tmp_path / "e", events), write_lines(tmp_path / "l", clicks)]

    alone = cli("check", *files, "--pipeline", TOY)
    beside_silence = cli("check", *files, "--pipeline", CLICKS)

    assert "all 40 labels are True: nothing can be told apart by them" in alone.out
    assert "are True: nothing" not in beside_silence.out


def test_what_a_backtest_would_refuse_is_named(cli: Cli, tmp_path: Path) -> None:
    """The same lines for the same reasons in the same words, the first three of each."""
    events, labels = stream(20)
    bad = [b'{"event_id": "a", "ts": 5}'] * 5 + [b"[1]", b"x", b'{"label": true}']
    file = write_lines(tmp_path / "all", [*events, *labels], *bad)

    checked = cli("check", file, "--pipeline", TOY, *AS_JSON)
    tested = cli("backtest", file, "--pipeline", TOY, *AS_JSON)
    text = cli("check", file, "--pipeline", TOY)

    assert (checked.code, tested.code) == (1, 1)
    told = [
        {reason: each["count"] for reason, each in ran.json["refused"].items()}
        for ran in (tested, checked)
    ]
    assert [{"missing_field": 6, "not_an_object": 1, "not_json": 1}] * 2 == told
    for reason in ("not_an_object", "not_json"):
        assert tested.json["refused"][reason] == checked.json["refused"][reason]
    assert "stream-ml: check: 8 of 38 would be refused\n" == checked.err
    assert f"  {file}:31: missing_field at $.user: expected a string of 1 to" in text.out
    assert "  ... and 3 more: missing_field" in text.out


def test_what_a_backtest_would_find_too_late_or_twice(cli: Cli, tmp_path: Path) -> None:
    """A file that is not in the order of its times says so, and how many would be lost."""
    events, _ = stream(100)
    file = write_lines(tmp_path / "e", [*events[50:], *events[:50], events[99]])

    checked = cli("check", file, "--pipeline", TOY, *AS_JSON)
    tested = cli("backtest", file, "--pipeline", TOY, *AS_JSON)

    assert tested.json["refused"]["too_late"]["count"] == 50 == checked.json["too_late"]
    assert tested.json["refused"]["duplicate"]["count"] == 1 == checked.json["repeated_ids"]
    late, twice, no_labels = checked.json["hints"]
    assert (
        f"50 of 101 events lie more than lateness=0 behind others before them (first at {file}"
        in late
    )
    assert "1 of 101 events have an id that another one had" in twice
    assert no_labels.startswith("there are no labels among them")


@pytest.mark.parametrize(
    ("pipeline", "factor", "hint"),
    [
        (
            TOY,
            0.001,
            "write 1700000000000, which is 2023-11-14 22:13:20Z, or declare files=sml.Files(",
        ),
        (TABLED, 1, 'is it another unit? If so, declare files=sml.Files(time_unit="ms") for files'),
    ],
)
def test_times_of_another_unit_are_named(
    cli: Cli, tmp_path: Path, pipeline: str, factor: float, hint: str
) -> None:
    """With the declaration that would read them; most of them being so is a failure."""
    events, _ = stream(5)
    rows = [f"{e['event_id']},{int(e['ts'] * factor)},{e['user']},{e['x']},true" for e in events]
    file = tmp_path / "e.csv"
    header = "event_id,ts,user,x" + (",label" if pipeline == TABLED else "")
    end = None if pipeline == TABLED else -5
    file.write_text("\n".join([header, *(row[:end] for row in rows)]))

    ran = cli("check", str(file), "--pipeline", pipeline, *AS_JSON)

    assert (ran.code, ran.json["refused"]) == (1, {})
    assert hint in ran.json["hints"][0]
    assert "stream-ml: check: most times are probably of another unit than declared" in ran.err


@pytest.mark.skipif(sys.platform != "linux", reason="memory is asked of Linux")
def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    """Twice as many rows take no more of it, packed or not, from a file or a pipe."""
    sizes = [_peak_kib(tmp_path, count) for count in (10_000, 30_000)]

    assert sizes[1] < sizes[0] + 12_000


def _peak_kib(folder: Path, count: int) -> int:
    path = folder / f"{count}.csv.gz"
    note = b"x" * 1_600
    rows = (b"e%d,%d,u%d,1.5,true,%b\n" % (n, 17 * 10**8 + n, n % 9, note) for n in range(count))
    path.write_bytes(gzip.compress(b"event_id,ts,user,x,label,note\n" + b"".join(rows), 1))
    code = "import re, sys; from stream_ml.cli.main import main; assert main() == 0; "
    code += "print(re.search('VmHWM.*?([0-9]+)', open('/proc/self/status').read())[1], "
    code += "file=sys.stderr)"
    words = [sys.executable, "-c", code, "check", str(path), "--pipeline", TABLED, *AS_JSON]
    ran = subprocess.run(words, env=environment(), capture_output=True, check=True)  # noqa: S603 - ours
    assert b'"events": %d' % count in ran.stdout
    return int(ran.stderr.split()[-1])
