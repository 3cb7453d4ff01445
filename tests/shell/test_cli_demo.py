"""`demo`: the folder it works in, what it leaves there, what it will not touch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import TOY, stream

from stream_ml.cli.execution import demo, second_act
from stream_ml.errors import UsageError
from stream_ml.shell import flights_data
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The toy stands in for the flights; which months were asked for."""
    months: list[tuple[int, int]] = []

    def records(first: int, last: int) -> Iterator[tuple[str, dict[str, Any]]]:
        months.append((first, last))
        events, labels = stream(800)
        named = [("events", each) for each in events] + [("labels", each) for each in labels]
        yield from sorted(named, key=lambda each: each[1]["ts"])

    monkeypatch.setattr(demo, "FLIGHTS", TOY)
    monkeypatch.setattr(flights_data, "records", records)
    monkeypatch.setattr(flights_data, "data_file", lambda _: None)
    return months


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take seconds: they are left out where a test is not about what is left behind."""
    monkeypatch.setattr(demo, "draw", lambda *_: [])
    monkeypatch.setattr(demo, "report_page", lambda *_: "")


def test_a_demo(cli: Cli, asked: list[tuple[int, int]], tmp_path: Path) -> None:
    """It prints the report and leaves it, the plots and the log in its folder."""
    ran = cli("demo")

    folder = tmp_path / "runs" / "demo"
    assert (ran.code, ran.err, asked) == (0, "", [(1, 6)])
    text = (folder / "report.txt").read_text()
    assert ran.out.startswith(text)
    assert "refreshes: 1" in text
    assert orjson.loads((folder / "report.json").read_bytes())["examples"] == 790
    for name in ("report.txt", "report.json", "report.html", "plots/story.png"):
        assert f"  runs/demo/{name}" in ran.out.splitlines()
        assert (folder / name).stat().st_size
    look = cli("models", "--broker", "sqlite:runs/demo/log.sqlite")
    assert look.out.startswith("pipeline toy: plain@500 serves since")


@pytest.mark.usefixtures("undrawn")
def test_a_demo_as_json(cli: Cli, asked: list[tuple[int, int]]) -> None:
    """The JSON is the report's, with what was written and how long it took."""
    found = cli("demo", "--all", "--folder", "here", "--format", "json").json

    assert asked == [(1, 12)]
    assert found["examples"] == 790
    assert found["accounting"]["predictions"] == 800
    assert found["accounting"]["waiting predictions"] == 10
    assert found["written"][:2] == ["here/report.txt", "here/report.json"]
    assert set(found["seconds"]) == {"publish", "work", "second_act"}


@pytest.mark.usefixtures("undrawn")
def test_the_second_act(
    cli: Cli, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feature and a line come half way, and all is as the first act has it; it has a log."""
    monkeypatch.setattr(second_act, "SHARE", 1)
    ran = cli("demo", "--folder", "here")
    found = cli("demo", "--folder", "here", "--format", "json").json["second_act"]

    assert len(asked) == 2
    assert "second act: mean(x) 1m and the line scaled came half way through" in ran.out
    assert (found["features"], found["line"]) == (["mean(x) 1m"], "scaled")
    assert (found["champion"], found["lines"]) == ("plain@0", ["plain.2", "scaled.2"])
    assert (found["records"], found["predictions"]) == (1_590, 800)
    assert (found["missing"], found["doubled"]) == (0, 0)
    assert found["later_equal"] == found["later"] == 397
    assert found["snapshots_equal"] == found["snapshots"] == 2
    look = cli("audit", "log", "--broker", "sqlite:here/changed.sqlite")
    assert "two more features and a line may say more" in look.out


@pytest.mark.usefixtures("undrawn")
def test_months(cli: Cli, asked: list[tuple[int, int]]) -> None:
    """Fewer months can be asked for."""
    assert cli("demo", "--months", "2").code == 0
    assert asked == [(1, 2)]


@pytest.mark.usefixtures("undrawn")
def test_each_demo_begins_anew(cli: Cli, asked: list[tuple[int, int]], tmp_path: Path) -> None:
    """A second demo replaces the log of the first, and touches nothing else in the folder."""
    first = cli("demo", "--format", "json").json
    mine = tmp_path / "runs" / "demo" / "notes.txt"
    mine.write_text("mine")

    second = cli("demo", "--format", "json").json

    assert {**second, "seconds": None} == {**first, "seconds": None}
    assert mine.read_text() == "mine"
    assert len(asked) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_log_of_a_former_demo_is_replaced(
    cli: Cli, asked: list[tuple[int, int]], tmp_path: Path
) -> None:
    """What a former demo left may be of any state: it is thrown away all the same."""
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / demo.MARK).touch()
    (folder / "log.sqlite").write_text("no log" * 1_000)

    assert cli("demo").code == 0
    assert asked


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_somebody_is_not_touched(
    cli: Cli, asked: list[tuple[int, int]], tmp_path: Path
) -> None:
    """A folder that no demo has made is refused, whatever is in it, and so is a file."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "log.sqlite").write_text("precious")

    for given in (folder, folder / "log.sqlite"):
        ran = cli("demo", "--folder", str(given))

        assert (ran.code, ran.out, asked) == (2, "", [])
        assert ran.err == (
            f"stream-ml: {given}: expected an empty folder or a former demo's, given something "
            "else; nothing was touched; name another with --folder\n"
        )
    assert [path.name for path in folder.iterdir()] == ["log.sqlite"]
    assert (folder / "log.sqlite").read_text() == "precious"


@pytest.mark.usefixtures("undrawn")
def test_two_demos_at_once(cli: Cli, asked: list[tuple[int, int]], tmp_path: Path) -> None:
    """The log of a demo at work is not taken from under it."""
    assert cli("demo", "--months", "1").code == 0
    path = tmp_path / "runs" / "demo" / "log.sqlite"
    with SqliteLog.open(path) as log, log.session():
        ran = cli("demo")

    assert ran.code == 3
    assert "expected to be the only worker" in ran.err
    assert path.exists()
    assert len(asked) == 1


@pytest.mark.parametrize("option", ["broker", "pipeline"])
def test_options_that_mean_nothing_here(
    cli: Cli, asked: list[tuple[int, int]], option: str
) -> None:
    """An option that a demo cannot follow is refused rather than passed over."""
    ran = cli("demo", f"--{option}", "sqlite:a" if option == "broker" else "a:b")

    assert (ran.code, asked) == (2, [])
    assert ran.err == (
        f"stream-ml: demo: expected no --{option}, for it runs the flights on a log of its own in "
        "--folder; to run anything else, see `stream-ml backtest --help`\n"
    )


@pytest.mark.usefixtures("undrawn")
def test_without_the_data_nothing_is_replaced(
    cli: Cli, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether the data are there is known before the former demo's log is gone."""
    assert cli("demo").code == 0

    def absent(name: str) -> Path:
        raise UsageError(f"the flights data are not installed ({name})")

    monkeypatch.setattr(flights_data, "data_file", absent)

    ran = cli("demo")

    assert (ran.code, len(asked)) == (2, 1)
    assert (tmp_path / "runs" / "demo" / "log.sqlite").exists()
