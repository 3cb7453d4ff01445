"""`init`: from a file of one's own to a first result, without writing a declaration."""

from __future__ import annotations

import ast
import csv
import io
import math
import random
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_ml.errors import DeclarationError, StreamMLError, UsageError
from stream_ml.pipeline import Pipeline
from stream_ml.shell.drafts.roles import guess_roles
from stream_ml.shell.drafts.sample import take_sample
from stream_ml.shell.drafts.source import draft
from stream_ml.shell.settings.loader import load_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Cli

COUNT = 400
TRUTH = {"outcome", "delivered_at"}


def rows() -> Iterator[dict[str, Any]]:
    """A made-up history: orders that are late where they are far."""
    world, at = random.Random(1), datetime(2024, 5, 1, tzinfo=UTC)
    for n in range(COUNT):
        at += timedelta(minutes=world.randrange(5, 60))
        km = round(world.uniform(0.5, 9), 1)
        yield {
            "n": n,
            "at": at,
            "km": km,
            "kitchen": f"k{world.randrange(12)}",
            "rider": world.choice(["bike", "car", "van"]),
            "minutes": round(10 + 4 * km + world.gauss(0, 4), 2),
        }


def payments() -> Iterator[dict[str, Any]]:
    """With ids, ISO times with a zone, and the label in the row."""
    for row in rows():
        yield {
            "order_id": f"o{row['n']}",
            "ordered_at": row["at"].isoformat(),
            "kitchen": row["kitchen"],
            "km": row["km"] if row["n"] % 9 else "",
            "rider": row["rider"],
            "is_late": str(row["minutes"] > 30).lower(),
        }


def seconds() -> Iterator[dict[str, Any]]:
    """Without ids, epoch seconds, 0 and 1, and prose."""
    for row in rows():
        yield {
            "ts": int(row["at"].timestamp()),
            "driver": row["n"] % 11,
            "km": row["km"],
            "note": f"please ring at door number {row['n']}, and then once more",
            "delayed": int(row["minutes"] > 30),
        }


def series() -> Iterator[dict[str, Any]]:
    """One series, local times, and a number to be predicted."""
    for row in rows():
        time = row["at"].strftime("%Y-%m-%d %H:%M:%S")
        yield {"time": time, "km": row["km"], "wind": row["n"] % 7, "target": row["minutes"]}


def outcomes() -> Iterator[dict[str, Any]]:
    """Classes, whole numbers as keys, and a column of when the label was known."""
    for row in rows():
        known = row["at"] + timedelta(minutes=row["minutes"])
        yield {
            "id": row["n"],
            "created": int(row["at"].timestamp() * 1_000),
            "customer": row["n"] % 13,
            "km": row["km"],
            "outcome": "early" if row["minutes"] < 20 else "late" if row["minutes"] > 35 else "ok",
            "delivered_at": int(known.timestamp() * 1_000),
        }


def write(path: Path, records: Iterator[dict[str, Any]], delimiter: str = ",") -> Path:
    """Write them as CSV, or as JSON lines, by the name of the file."""
    given_rows = list(records)
    if path.suffix == ".jsonl":
        path.write_bytes(b"\n".join(map(orjson.dumps, given_rows)))
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(given_rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(given_rows)
    return path


SHAPES: dict[str, tuple[Callable[[], Iterator[dict[str, Any]]], str, dict[str, str]]] = {
    "first.csv": (
        payments,
        ",",
        {"time": "ordered_at", "id": "order_id", "key": "kitchen", "label": "is_late"},
    ),
    "second.csv": (seconds, ";", {"time": "ts", "id": "-", "key": "driver", "label": "delayed"}),
    "third.tsv": (series, "\t", {"time": "time", "id": "-", "key": "-", "label": "target"}),
    "fourth.jsonl": (
        outcomes,
        "",
        {"id": "id", "key": "customer", "label": "outcome", "known at": "delivered_at"},
    ),
    "fifth.csv": (outcomes, "|", {"id": "id", "key": "customer", "label": "outcome"}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_from_a_file_to_a_first_result(cli: Cli, tmp_path: Path, name: str) -> None:
    """What is drafted reads the file whole, and learns from it, as it stands."""
    records, delimiter, expected = SHAPES[name]
    file = str(write(tmp_path / name, records(), delimiter))

    drafted = cli("init", file, "--format", "json")
    spec = drafted.json["pipeline"]
    checked = cli("check", file, "--pipeline", spec, "--format", "json")
    tested = cli("backtest", file, "--pipeline", spec, "--format", "json")

    guesses = {each["role"]: each["column"] for each in drafted.json["guesses"]}
    assert expected == {role: guesses[role] for role in expected}
    assert (checked.code, checked.json["hints"]) == (0, [])
    assert (checked.json["events"], checked.json["labels"]) == (COUNT, COUNT)
    assert (tested.code, tested.json["labels"]["joined"]) == (0, COUNT)
    assert len(tested.json["models"]) >= 3


@pytest.mark.parametrize("time", ["created", "known_at"])
def test_labels_in_a_file_of_their_own(cli: Cli, tmp_path: Path, time: str) -> None:
    """They are read beside the events, whatever their time is called."""
    both = list(outcomes())
    events = [{n: v for n, v in each.items() if n not in TRUTH} for each in both]
    labels = [{"id": e["id"], time: e["delivered_at"], "outcome": e["outcome"]} for e in both]
    labels.sort(key=lambda each: each[time])
    files = [
        str(write(tmp_path / f"{time}.csv", iter(events))),
        str(write(tmp_path / "truth.csv", iter(labels))),
    ]

    drafted = cli("init", files[0], "--labels", files[1], "--format", "json")
    spec = drafted.json["pipeline"]
    checked = cli("check", *files, "--pipeline", spec, "--format", "json")
    tested = cli("backtest", *files, "--pipeline", spec, "--format", "json")

    assert {"km"} == set(load_pipeline(spec).schema)
    assert (checked.code, checked.json["hints"]) == (0, [])
    assert (checked.json["events"], checked.json["labels"]) == (COUNT, COUNT)
    assert (tested.code, tested.json["labels"]["joined"]) == (0, COUNT)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("number,created,outcome", "--labels: expected a column 'id' or 'event_id', whose label"),
        ("id,day,outcome", "--labels: expected a column of when each label was known, with times"),
    ],
)
def test_a_file_of_labels_that_cannot_be_joined(
    cli: Cli, tmp_path: Path, header: str, message: str
) -> None:
    """What is missing in it is named."""
    file = str(write(tmp_path / "e.csv", outcomes()))
    (tmp_path / "l.csv").write_text(f"{header}\n1,today,a\n2,today,b\n")

    ran = cli("init", file, "--labels", "l.csv")

    assert (ran.code, message in ran.err) == (2, True), ran.err


def test_a_file_of_labels_is_told_of(cli: Cli, tmp_path: Path) -> None:
    """How many rows, by which column, how many are of the events, and what of it is not used."""
    events = [{n: v for n, v in each.items() if n not in TRUTH} for each in outcomes()]
    labels = [
        {"id": e["id"] + 100, "known": e["delivered_at"], "by": e["km"], "outcome": e["outcome"]}
        for e in outcomes()
    ]
    write(tmp_path / "e.csv", iter(events))
    write(tmp_path / "l.csv", iter(labels), ";")
    write(tmp_path / "other.csv", ({**each, "id": f"x{each['id']}"} for each in labels))

    ran = cli("init", "e.csv", "--labels", "l.csv", "--label", "outcome")
    other = cli("init", "e.csv", "--labels", "other.csv", "--output", "other.py")

    assert "400 rows of l.csv; by 'id' 300 are of events above" in " ".join(ran.out.split())
    assert "note: 'by' of l.csv is not used" in ran.out
    assert "note: cells are apart by ',' in e.csv and by ';' in l.csv, where one" in ran.out
    assert "note: no label of other.csv is of an event of e.csv: is 'id' what both" in other.out


def odd() -> Iterator[dict[str, Any]]:
    """No name says what time and id are; prices have a tail, and times to deliver have outliers."""
    world = random.Random(2)
    for row in rows():
        price = math.exp(world.gauss(3, 1)) * (1_000 if row["n"] % 97 == 5 else 1)
        yield {
            "": row["n"],
            "pickup": int(row["at"].timestamp()),
            "code": f"{row['n'] + 0xE000:x}",
            "kitchen": row["kitchen"],
            "price": round(price, 2) if row["n"] % 7 else "",
            "km": row["km"],
            "minutes": 1_000_000 if row["n"] % 50 == 9 else row["minutes"],
        }


def test_columns_that_no_name_tells_are_known_by_their_values(cli: Cli, tmp_path: Path) -> None:
    """Times that hardly fall, codes and counts that come once: they are time and id."""
    write(tmp_path / "odd.csv", ({**e, "grid": "north"} for e in odd()))
    write(tmp_path / "counted.csv", ({"row": e.pop(""), **e, "code": "x"} for e in odd()))

    found = [
        {
            each["role"]: each["column"]
            for each in cli("init", *file.split(), "--format", "json").json["guesses"]
        }
        for file in ("odd.csv --label minutes", "counted.csv")
    ]

    assert [("pickup", "code"), ("pickup", "row")] == [(e["time"], e["id"]) for e in found]
    # What never changes says nothing.
    assert '"grid"' not in (tmp_path / "odd_pipeline.py").read_text()


def test_a_drafted_regression_bears_outliers(cli: Cli, tmp_path: Path) -> None:
    """What serves errs less than the mean does, tails are drawn in, what is missing is usual."""
    write(tmp_path / "odd.csv", ({**e, "at": e.pop("pickup")} for e in odd()))
    cli("init", "odd.csv", "--label", "minutes")
    spec = "odd_pipeline:pipeline"

    tested = cli("backtest", "odd.csv", "--pipeline", spec, "--format", "json").json
    source = (tmp_path / "odd_pipeline.py").read_text()

    errors = {each["model"]: each["scores"]["cumulative"]["mae"] for each in tested["models"]}
    assert errors["served"] < errors["mean"]
    assert errors["served"] < 2 * 1_000_000 / 50
    assert 'sml.log("price", fill=' in source
    assert 'mean(sml.log("price"), fill=' in source
    assert 'sml.field("km")' in source
    assert "fill=0.0" not in source


def test_the_last_column_is_taken_where_none_is_called_a_label(cli: Cli, tmp_path: Path) -> None:
    """And that is said, with the way to name another."""
    records = (
        {**each, "is_late": (each["is_late"] == "true" and "yes") or "no"} for each in payments()
    )
    renamed = ({n if n != "is_late" else "called_us": v for n, v in e.items()} for e in records)
    file = str(write(tmp_path / "last.csv", renamed))

    ran = cli("init", file)

    label = next(line for line in ran.out.splitlines() if line.startswith("label"))
    assert "called_us" in label
    assert "binary; it is the last column: name another with --label" in label


def test_what_was_guessed_is_said_with_the_next_commands(cli: Cli, tmp_path: Path) -> None:
    """To look over: each column, why, what was left out, and what no file says."""
    write(tmp_path / "my orders.csv", seconds(), ";")

    ran = cli("init", "my orders.csv")

    assert (ran.code, ran.err) == (0, "")
    assert "wrote my_orders_pipeline.py, by these guesses:" in ran.out
    lines = [line.split(maxsplit=2) for line in ran.out.splitlines() if line]
    assert ["time", "ts", "epoch s; all of its values are times"] in lines
    assert ["id", "-", "no column names each row: an event is named by its file and line"] in lines
    assert "a guess, for no column says when a label is known" in ran.out
    assert "note: 'note' is left out: it is text for people" in ran.out
    assert "  stream-ml backtest 'my orders.csv'" in ran.out
    pipeline = load_pipeline("my_orders_pipeline:pipeline")
    assert {"km"} == set(pipeline.schema)
    assert (";", True) == (pipeline.files.delimiter, pipeline.files.row_ids)


def test_what_is_there_is_not_written_over(cli: Cli, tmp_path: Path) -> None:
    """Neither a draft that somebody has changed, nor what another command may have made."""
    file = str(write(tmp_path / "kept.csv", payments()))
    path = tmp_path / "kept_pipeline.py"
    path.write_text("mine")

    ran = cli("init", file)
    elsewhere = cli("init", file, "--output", "other.py")
    odd = cli("init", file, "--output", "not-a-name.py")
    nowhere = cli("init", file, "--output", "no/other.py")

    assert (ran.code, path.read_text()) == (2, "mine")
    assert "kept_pipeline.py: expected no file of that name, given one; it is not" in ran.err
    assert (elsewhere.code, (tmp_path / "other.py").exists()) == (0, True)
    assert (odd.code, nowhere.code) == (2, 2)
    assert "--output: expected the name of a Python file such as my_pipeline.py" in odd.err


@pytest.mark.parametrize(
    ("content", "arguments", "code", "message"),
    [
        ("a,b\n1,2\n", (), 2, "expected a column of times, in ISO 8601 or as seconds"),
        ("ts,b\n2024-05-01,\n", (), 2, "expected a column that is the label, what is to be"),
        ("ts,b\n2024-05-01,2\n", ("--label", "c"), 2, "--label: expected a column of o.csv, given"),
        ("ts,b\n2024-05-01,2\n", ("--label", "b"), 2, "--label: expected a column of numbers, of"),
        ("ts,b\n2024-05-01,2\n", ("--time", "b"), 2, "--time: expected a column whose values all"),
        ("ts,b,b\n", (), 1, "o.csv:1: expected each column once, given 'b' twice"),
        ("ts,b\n", (), 1, "o.csv: expected rows to draft a declaration from, given none"),
        ("ts,late\n1/2/2024,1\n", (), 2, "of which 'ts' has values such as '1/2/2024'; name it"),
        ("ts,late\n1\n", (), 1, "given 1 that are none: each as many cells as the first row"),
        ("", (), 1, "o.csv: expected rows to draft a declaration from, given none"),
        ("ts,late\n2024-05-01,0\n2024-05-02,1\n", ("--label-time", "late"), 2, "--label-time: exp"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(
    cli: Cli, tmp_path: Path, content: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """With the columns that there are, and nothing is written."""
    (tmp_path / "o.csv").write_text(content)

    ran = cli("init", "o.csv", *arguments)

    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert ["o.csv"] == [path.name for path in tmp_path.iterdir()]


def test_a_file_in_another_order_is_to_be_sorted(cli: Cli, tmp_path: Path) -> None:
    """And the command that is given does it: then nothing comes too late."""
    newest_first = ({"": n} | each for n, each in enumerate(list(payments())[::-1]))
    file = str(write(tmp_path / "newest first.csv", newest_first))

    drafted = cli("init", file, "--format", "json")
    spec = drafted.json["pipeline"]
    before = cli("check", file, "--pipeline", spec, "--format", "json")
    [warning] = [each for each in drafted.json["warnings"] if "sort the file" in each]
    command = warning.partition("`")[2].partition("`")[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)  # noqa: S603, S607 - ours
    after = cli("check", "sorted.csv", "--pipeline", spec, "--format", "json")

    assert before.json["too_late"] > COUNT / 2
    assert (after.json["too_late"], after.json["events"]) == (0, COUNT)


def test_one_may_say_what_columns_are(tmp_path: Path) -> None:
    """A column that was named is that, whatever its name and its values suggest."""
    sample = take_sample(str(write(tmp_path / "a.csv", outcomes())))

    roles = guess_roles(sample, {"label": "km", "key": "outcome", "id": "customer"})

    assert ("km", "outcome", "customer") == (roles.label, roles.key, roles.id)
    with pytest.raises(UsageError, match="--key: expected a column of"):
        guess_roles(sample, {"key": "absent"})


# --- what comes from outside never becomes code ---------------------------------------------------

HOSTILE = [
    '"); import os; os.system("x") #',
    "'''",
    '"""\nimport os\n"""',
    "a\\",
    "{0}",
    "\u202eevil",
    "a\tb",
    "__import__('os')",
    "\x00",
    "ä ö",
]
WORDS = {
    "sml",
    "preprocessing",
    "linear_model",
    "optim",
    "tree",
    "pipeline",
    "float",
    "bool",
    "str",
}
ATTRIBUTES = {
    *("Pipeline", "Events", "Label", "Files", "Enum", "Optional", "StandardScaler"),
    *("field", "one_hot", "hour_of_day", "weekday", "window", "count", "mean", "time_since_last"),
    *("LogisticRegression", "LinearRegression", "SoftmaxRegression"),
    *("HoeffdingTreeClassifier", "HoeffdingTreeRegressor"),
    *("log", "TargetStandardScaler", "losses", "Huber", "Adam"),
    *("hashed", "TargetMean", "DenseScaler"),
}
_NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"])))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(_NAMES.map(str.strip), min_size=3, max_size=5, unique=True),
    values=st.lists(_NAMES, min_size=2, max_size=4, unique=True),
)
def test_no_name_or_value_becomes_code(tmp_path: Path, names: list[str], values: list[str]) -> None:
    """Columns and values of any name are quoted texts in the draft, or it is refused."""
    names = [name.replace("\0", "") or "x" for name in names]
    values = [value.replace("\0", "") or "x" for value in values]
    if len({*names, "ts", "late"}) < len(names) + 2 or len(set(values)) < 2:
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["ts", "late", *names])
    for n in range(20):
        cells = [values[(n + index) % len(values)] for index in range(len(names))]
        writer.writerow([1_700_000_000 + 60 * n, n % 2, *cells])
    path = tmp_path / "a.csv"
    path.write_bytes(text.getvalue().encode())

    sample = take_sample(str(path))
    drafted = draft(sample, guess_roles(sample, {}))

    tree = ast.parse(drafted.source)
    assert WORDS >= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert ATTRIBUTES >= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert 2 == len(imports)
    assert not [c for c in drafted.source if c != "\n" and not c.isprintable()]
    namespace: dict[str, Any] = {}
    try:
        exec(compile(tree, "draft", "exec"), namespace)  # noqa: S102 - it was looked at above
    except DeclarationError:
        return  # two features of one name, say; the command says so
    assert isinstance(namespace["pipeline"], Pipeline)
    assert set(namespace["pipeline"].schema) <= set(names)


def test_members_whose_names_are_data_end_it_with_a_message(tmp_path: Path) -> None:
    """Each line with names of its own would else fill the memory."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps({f"m{n}": 1}) for n in range(3_000)))
    with pytest.raises(StreamMLError, match=r"a\.jsonl: expected at most 2,000 columns"):
        take_sample(str(path))

    path.with_suffix(".csv").write_text(",".join(map(str, range(3_000))))
    with pytest.raises(StreamMLError, match=r"a\.csv:1: expected at most 2,000 columns"):
        take_sample(str(path.with_suffix(".csv")))
