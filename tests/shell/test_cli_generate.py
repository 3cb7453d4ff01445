"""`generate`: files that a backtest takes, the same each time, or records on a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from cli_toy import TOY

from stream_ml.examples.payments import payments
from stream_ml.scenarios import SCENARIOS
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

PAYMENTS = "stream_ml.examples.payments:payments"
FILES = ("events.jsonl", "labels.jsonl", "truth.json")


def test_every_scenario_is_listed(cli: Cli) -> None:
    """`--list` names each with what happens in it, for people and for machines."""
    listed, as_json = cli("generate", "--list"), cli("generate", "--list", "--format", "json")

    assert [*SCENARIOS] == [line.split()[0] for line in listed.out.splitlines()]
    assert {n: s.summary for n, s in SCENARIOS.items()} == orjson.loads(as_json.out)


def test_a_world_in_files_is_backtested(cli: Cli, tmp_path: Path) -> None:
    """Three files in a folder; the two of records are what a backtest takes, whole."""
    made = cli("generate", "sudden", "--events", "600", "--out", "flip")
    ran = cli(
        "backtest", "flip/events.jsonl", "flip/labels.jsonl", "--pipeline", PAYMENTS,
        "--format", "json",
    )  # fmt: skip

    assert (made.code, made.out) == (0, "")
    assert PAYMENTS in made.err
    truth = orjson.loads((tmp_path / "flip" / "truth.json").read_bytes())
    assert ("sudden", 600) == (truth["scenario"], truth["events"])
    assert 0 == ran.code, ran.err


def test_the_same_seed_gives_the_same_files(cli: Cli, tmp_path: Path) -> None:
    """Byte for byte, and another seed gives others."""
    for folder, seed in [("a", "5"), ("b", "5"), ("c", "6")]:
        assert (
            0 == cli("generate", "cycle", "--seed", seed, "--events", "300", "--out", folder).code
        )
    read = {f: [(tmp_path / f / name).read_bytes() for name in FILES] for f in "abc"}

    assert read["a"] == read["b"]
    assert all(a != c for a, c in zip(read["a"], read["c"], strict=True))


def test_a_world_is_published_straight(cli: Cli, tmp_path: Path) -> None:
    """The log gets what the files would hold; only the truth is written, and never published."""
    with SqliteLog.create(tmp_path / "stream_ml.sqlite") as log:
        made = cli("generate", "units", "--events", "300", "--publish", "--pipeline", PAYMENTS)
        files = cli("generate", "units", "--events", "300", "--out", "files")
        assert (0, 0) == (made.code, files.code), made.err

        for topic in ("events", "labels"):
            lines = (tmp_path / "files" / f"{topic}.jsonl").read_bytes().splitlines()
            assert lines == [record.value for record in log.read(topic, 0, 0, 1_000)]
    assert ["truth.json"] == [file.name for file in (tmp_path / "units-1").iterdir()]


def test_a_pipeline_of_other_payments_refuses_them(cli: Cli, tmp_path: Path) -> None:
    """What another declaration would refuse is not published: it says why, and what fits."""
    SqliteLog.create(tmp_path / "stream_ml.sqlite").close()
    made = cli("generate", "units", "--events", "10", "--publish", "--pipeline", TOY)

    assert 2 == made.code
    assert PAYMENTS in made.err


def test_what_is_no_scenario_is_refused(cli: Cli) -> None:
    """None, and one that there is not, are wrong usage, with the way out."""
    none, unknown = cli("generate"), cli("generate", "nosuch")

    assert (2, 2) == (none.code, unknown.code)
    assert "generate --list" in none.err
    assert "expected one of steady" in unknown.err


def test_the_example_is_of_the_scenarios() -> None:
    """Each scenario's pipeline is there to be loaded."""
    names = {scenario.pipeline.split(":")[1] for scenario in SCENARIOS.values()}

    assert {"payments", "equal", "better"} == names
    assert "payments" == payments.name
