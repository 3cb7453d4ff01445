"""`init` of files in which positives alone have a label, and of columns that cannot be fields."""

from __future__ import annotations

import csv
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cli_toy import START_MS, stream, toy, write_lines

import stream_ml as sml
from stream_ml.shell.drafts.roles import guess_roles
from stream_ml.shell.drafts.sample import take_sample
from stream_ml.shell.drafts.source import draft
from stream_ml.shell.settings.loader import load_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from conftest import Cli

COUNT = 600
AS_JSON = ("--format", "json")
TRUTH = ("clicked", "clicked_at", "landing_ms")
Row = dict[str, Any]
dated = replace(toy, files=sml.Files(label="clicked", label_time="known"))
silent = replace(dated, label=sml.Label(bool, window="1h", absent=False))


def impressions() -> list[Row]:
    """Ads of many campaigns; who clicks does so within the hour, but for one in a hundred."""
    world, at = random.Random(4), datetime(2024, 5, 1, tzinfo=UTC)
    rows = []
    for n in range(COUNT):
        at += timedelta(seconds=world.randrange(30, 300))
        is_click = world.random() < 0.15
        known = at + timedelta(seconds=world.uniform(1, 1_500))
        rows.append(
            {
                "impression_id": f"i{n}",
                "shown_at": at.isoformat(),
                "user": f"u{world.randrange(40)}",
                "campaign": f"c{world.randrange(60)}",
                "device": world.choice(["phone", "pc"]),
                "is_new": world.choice(["1", ""]),
                "clicked": "1" if is_click else "",
                "clicked_at": known.isoformat() if is_click else "",
                "landing_ms": world.randrange(200, 3_000) if is_click else "",
            }
        )
    return rows


CLICKS = sum(row["clicked"] == "1" for row in impressions())


def write(path: Path, rows: Iterable[Row]) -> str:
    """Write a CSV file."""
    given = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(given[0]))
        writer.writeheader()
        writer.writerows(given)
    return str(path)


def marked(row: Row) -> Row:
    """1 or empty."""
    return row


def zeros(row: Row) -> Row:
    """0 for whoever did not click, of course without a time."""
    return {**row, "clicked": row["clicked"] or "0"}


def renamed(row: Row) -> Row:
    """A label that no list of names has, with its time beside it."""
    names = {"clicked": "called_us", "clicked_at": "called_us_on"}
    return {names.get(name, name): value for name, value in row.items()}


@pytest.mark.parametrize("form", [marked, zeros, renamed])
def test_a_file_whose_positives_alone_have_a_label_is_begun(
    cli: Cli, tmp_path: Path, form: Callable[[Row], Row]
) -> None:
    """What has no label counts as False after the wait that the file's delays suggest."""
    # Modules are known by their names, and each has one of its own.
    file = write(tmp_path / f"{form.__name__}.csv", map(form, impressions()))

    drafted = cli("init", file, *AS_JSON)
    spec = drafted.json["pipeline"]
    label = load_pipeline(spec).label
    checked = cli("check", file, "--pipeline", spec, *AS_JSON)

    assert (bool, "1h", False) == (label.type, label.window, label.absent)
    assert (checked.code, checked.json["hints"], checked.json["leaks"]) == (0, [], [])
    assert (COUNT, {"True": CLICKS}) == (checked.json["events"], checked.json["classes"])
    guesses = {each["role"]: each for each in drafted.json["guesses"]}
    assert guesses["silence"]["column"] == "False"
    assert "99 % of the labels came within 2" in guesses["silence"]["reason"]
    assert "counts as False. 99 % of the labels came within" in (
        tmp_path / f"{form.__name__}_pipeline.py"
    ).read_text(encoding="utf-8")


def test_what_is_drafted_so_learns_from_silence(cli: Cli, tmp_path: Path) -> None:
    """Labels of a file of their own: clicks are joined, all else is False or waits still."""
    rows = impressions()
    events = write(
        tmp_path / "shown.csv", ({n: x for n, x in row.items() if n not in TRUTH} for row in rows)
    )
    labels = [
        {name: row[name] for name in ("impression_id", "clicked_at", "clicked")}
        for row in rows
        if row["clicked"]
    ]
    truth = write(tmp_path / "l.csv", sorted(labels, key=lambda row: str(row["clicked_at"])))

    drafted = cli("init", events, "--labels", truth, *AS_JSON)
    tested = cli("backtest", events, truth, "--pipeline", drafted.json["pipeline"], *AS_JSON)

    counts = Counter(tested.json["labels"])
    assert (0, CLICKS) == (tested.code, counts["joined"])
    # Those of the last hour wait still.
    assert COUNT - CLICKS - 40 < counts["absent"] < COUNT - CLICKS
    assert tested.json["hints"] == []


def test_a_class_of_one_name_has_silence_for_the_other(tmp_path: Path) -> None:
    """Where the label is a text, a class is added for what came of no row."""
    rows = [{**row, "clicked": "click" if row["clicked"] else ""} for row in impressions()]
    sample = take_sample(write(tmp_path / "ads.csv", rows))

    source = draft(sample, guess_roles(sample, {"label": "clicked"})).source

    assert 'sml.Label(sml.Enum("click", "none"), window="1h", absent="none")' in source


def test_what_is_known_with_the_label_alone_is_no_field(tmp_path: Path) -> None:
    """It is said why; and a flag that is 1 or empty has another number where it is empty."""
    sample = take_sample(write(tmp_path / "ads.csv", impressions()))

    drafted = draft(sample, guess_roles(sample, {}))

    [left_out] = [text for text in drafted.warnings if "landing_ms" in text]
    assert f"it is filled in {CLICKS} rows, all of them with the label '1'" in left_out
    assert '"landing_ms"' not in drafted.source
    assert 'sml.field("is_new", fill=0.0)' in drafted.source


def test_texts_of_many_categories_are_features(cli: Cli, tmp_path: Path) -> None:
    """They are hashed; the tree has their means of the label, and the linear line serves."""
    rows = [{**row, "note": f"n{n * 7 % 400}"} for n, row in numbered()]
    file = write(tmp_path / "texts.csv", rows)

    drafted = cli("init", file, *AS_JSON)
    pipeline = load_pipeline(drafted.json["pipeline"])
    source = (tmp_path / "texts_pipeline.py").read_text(encoding="utf-8")

    assert pipeline.champion == "logistic"
    assert 'sml.hashed("campaign", 256)' in source
    assert '"logistic": sml.DenseScaler() | linear_model.LogisticRegression(),' in source
    assert 'sml.TargetMean("campaign") | tree.HoeffdingTreeClassifier(max_depth=5),' in source
    [note] = [text for text in drafted.json["warnings"] if "'note'" in text]
    assert "'note' is left out: most of its values come once" in note


def numbered() -> Iterable[tuple[int, Row]]:
    """Impressions with the number of each."""
    return enumerate(impressions())


def test_missing_labels_are_told_of(tmp_path: Path) -> None:
    """Where both classes came, nobody but you knows what the others mean."""
    rows = [{**r, "clicked": str(n % 2) if n % 9 == 0 else ""} for n, r in numbered()]
    untimed = [
        {**r, "clicked": str((n + 1) % 2), "clicked_at": r["shown_at"] if n else ""}
        for n, r in numbered()
    ]
    samples = [
        take_sample(write(tmp_path / f"{name}.csv", each))
        for name, each in (("rare", rows), ("untimed", untimed))
    ]
    given = [{"label": "clicked"}, {"label": "clicked", "label_time": "clicked_at"}]

    first, second = (
        draft(sample, guess_roles(sample, roles)).warnings
        for sample, roles in zip(samples, given, strict=True)
    )

    assert [f"{COUNT - 67:,} of {COUNT} events (89%) have no label: they teach nothing"] == [
        text.partition(";")[0] for text in first if "teach nothing" in text
    ]
    assert "1 labels have no 'clicked_at' beside them, and would be refused" in " ".join(second)


def test_labels_that_are_all_the_same_are_told_of(cli: Cli, tmp_path: Path) -> None:
    """By `init`, which can draft nothing of them, and by `backtest`, whose scores look perfect."""
    rows = write(tmp_path / "all.csv", ({**row, "clicked": "1"} for row in impressions()))
    events, labels = stream(50)
    lines = write_lines(tmp_path / "e", [*events, *({**each, "label": True} for each in labels)])

    drafted = cli("init", rows, "--label", "clicked")
    tested = cli("backtest", lines, "--pipeline", "cli_toy:toy")

    assert drafted.code == 2
    assert "nothing can be told apart by labels that are all the same; where other" in drafted.err
    assert "all 40 labels are True: nothing can be told apart by them" in tested.out


def test_a_row_that_says_what_silence_says_has_no_label(cli: Cli, tmp_path: Path) -> None:
    """Negatives need no time where silence is declared; elsewhere the refusal says so."""
    events, _ = stream(40)
    rows = [
        {**each, "clicked": n % 4 == 0, **({"known": START_MS + 90_000} if n % 4 == 0 else {})}
        for n, each in enumerate(events)
    ]
    file = write_lines(tmp_path / "rows", rows)

    silent = cli("check", file, "--pipeline", f"{__name__}:silent", *AS_JSON)
    strict = cli("check", file, "--pipeline", f"{__name__}:dated")

    assert (0, 40, {"True": 10}) == (silent.code, silent.json["events"], silent.json["classes"])
    assert strict.code == 1
    assert 'as in Label(bool, window="1d", absent=False), or leave the label empty' in strict.out


def test_a_file_is_about_what_it_is_called_after(tmp_path: Path) -> None:
    """The column is the key whose plural the file has for a name, though others look like keys."""
    rows = [{**row, "pump": f"P{n % 50}", "site": "s"[: n % 2] or "t"} for n, row in numbered()]
    samples = [take_sample(write(tmp_path / name, rows)) for name in ("pumps.csv", "visits.csv")]

    assert ["pump", "user"] == [guess_roles(sample, {}).key for sample in samples]
