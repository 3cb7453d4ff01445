"""Two tasks of one pipeline on one embedded log: each is what it would be alone."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import linear_model

import stream_ml as sml
from stream_ml.client import connect, predictions
from stream_ml.errors import DeclarationError
from stream_ml.records import Output, Record
from stream_ml.sealing import content
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.rows.layout import RowLayout
from stream_ml.shell.rows.reader import read_rows
from stream_ml.stages.erasure import Erasure, Erasures, subject_of
from stream_ml.stages.predict import Predict
from stream_ml.testing import Driver
from tests.shell.processes import Terminal
from tests.shop import KEY, START_MS, declare, event, shop, started, stream, two_tasks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from conftest import Cli

    from stream_ml.pipeline import Pipeline

REFUND = two_tasks.task_pipelines["refund"]
# The second truth, declared by itself.
ALONE = declare(
    name="refund",
    events=two_tasks.events,
    label=REFUND.label,
    models=REFUND.models,
    champion=REFUND.champion,
    promotion=REFUND.promotion,
)
EVENTS, LABELS = stream(count=140)
REFUNDS = [
    {"event_id": e["event_id"], "ts": e["ts"] + 12_000, "label": True}
    for e in EVENTS[::7]
    if e["kind"] == "visit"
]
TOPICS = ("predictions", "examples", "models", "registry", "alerts", "dead-letters", "summaries")
# Of a record: by whom, on which log, and after which other signed one; and the bytes of a snapshot,
# for which its digest stands.
SIGNED = {"seal", "signature", "previous", "pipeline", "log", "payload"}


def outcome(driver: Driver) -> list[Any]:
    """All that stages wrote, but for how it is signed, and the scores at the end."""
    return [
        *(_members(r.value) for topic in TOPICS for r in driver.records(topic)),
        driver.runner.evaluate.report(),
    ]


def _members(value: bytes | None) -> Any:
    plain = content(value or b"{}")
    if not plain.startswith(b"{"):
        return plain
    return {name: m for name, m in orjson.loads(plain).items() if name not in SIGNED}


@pytest.mark.parametrize("seed", [None, 3])
def test_each_task_gives_what_it_gives_when_it_is_declared_alone(
    tmp_path: Path, seed: int | None
) -> None:
    """Predictions, snapshots by digest, scores and decisions; killed now and then, in turns."""
    path = tmp_path / "log.sqlite"
    with ExitStack() as stack:
        main = stack.enter_context(Driver(two_tasks, path=path, seed=seed))
        refund = stack.enter_context(Driver(REFUND, path=path, seed=seed))
        alone = [
            stack.enter_context(Driver(replace(two_tasks, tasks=()))),
            stack.enter_context(Driver(ALONE)),
        ]
        main.publish("labels", LABELS)
        refund.publish("labels", REFUNDS)
        main.publish("events", EVENTS)
        for driver in (refund, main, refund):
            if seed is not None:
                driver.crash()
            driver.run()
        alone[0].feed(EVENTS, LABELS)
        alone[1].feed(EVENTS, REFUNDS)

        assert outcome(alone[0]) == outcome(main)
        assert outcome(alone[1]) == outcome(refund)
        # The same events, and to the last bit the same vectors.
        assert main.records("events") == refund.records("events")
        assert [p["features"] for p in main.read("predictions")] == [
            p["features"] for p in refund.read("predictions")
        ]


def test_a_promotion_is_of_one_task(tmp_path: Path) -> None:
    """The other one's champion, decisions and command topic stay as they are."""
    path = tmp_path / "log.sqlite"
    manual = replace(
        two_tasks, tasks=[replace(two_tasks.tasks[0], promotion=sml.Promotion("manual", 25))]
    )
    with (
        Driver(manual, path=path) as main,
        Driver(manual.task_pipelines["refund"], path=path) as refund,
    ):
        main.publish("labels", LABELS)
        refund.publish("labels", REFUNDS)
        main.feed(EVENTS)
        refund.run()
        before = main.records("registry")
        refund.command("promote", model="bayes", expect="sgd")
        refund.run()
        main.run()

        assert ["bayes"] == [
            orjson.loads(content(r.value or b""))["serving"]["champion"]["model"].split("@")[0]
            for r in refund.records("registry")[-1:]
        ]
        assert (before, []) == (main.records("registry"), main.records("commands"))


def test_events_are_kept_until_every_task_has_read_them(tmp_path: Path) -> None:
    """Retention takes what is old, and nothing that a task is still to predict."""
    path = tmp_path / "log.sqlite"
    with Driver(two_tasks, path=path) as main, Driver(REFUND, path=path) as refund:
        refund.feed([])
        main.publish("events", EVENTS[:50])
        refund.run()
        main.publish("events", EVENTS[50:])
        main.run()
        far_ms = main.now_ms + 10**12
        main.log.expire(far_ms)
        assert 50 == main.log.first_offset("events", 0)
        refund.run()
        visits = [e["event_id"] for e in EVENTS if e["kind"] == "visit"]
        assert visits == [p["event_id"] for p in refund.read("predictions")]


def test_no_events_are_kept_for_a_task_that_was_taken_out(tmp_path: Path) -> None:
    """Neither from retention nor from erasure, once it has no worker; back again it goes on."""
    path = tmp_path / "log.sqlite"
    fewer = replace(two_tasks, tasks=())
    with Driver(two_tasks, path=path) as main, Driver(REFUND, path=path) as refund:
        main.publish("events", EVENTS[:50])
        main.run()
        refund.run()
        main.publish("events", EVENTS[50:])
        main.run()
        far_ms = main.now_ms + 10**12
        main.log.expire(far_ms, tasks=fewer.task_pipelines)
        assert 50 == main.log.first_offset("events", 0)  # its worker is there
    with Driver(fewer, path=path) as main:
        main.run()
        assert 0 == main.log.erase({("events", 0): [60]}, "s", two_tasks.task_pipelines)
        assert 1 == main.log.erase({("events", 0): [60]}, "s", fewer.task_pipelines)
        main.log.expire(far_ms, tasks=two_tasks.task_pipelines)
        assert 50 == main.log.first_offset("events", 0)
        main.log.expire(far_ms, tasks=fewer.task_pipelines)
        assert len(EVENTS) == main.log.first_offset("events", 0)
    with Driver(REFUND, path=path) as refund:
        refund.run()
        assert any("events-0" in str(alert) for alert in refund.read("alerts"))


def test_a_log_shows_each_task_its_own_topics(tmp_path: Path) -> None:
    """Whoever opens the file sees one task, and no name of a topic is another than ever."""
    path = tmp_path / "log.sqlite"
    with SqliteLog.create(path, partitions=2) as log:
        topics = log.partitions
        log.append([Output("events", b"a", b"{}"), Output("labels", b"e1", b"{}")])
    with SqliteLog.open_or_create(path, task="refund") as log:
        assert topics == log.partitions
        assert [1, 0] == [len(list(read_all(log, topic))) for topic in ("events", "labels")]
        log.append([Output("labels", b"e1", b"refunded")])
    with SqliteLog.open(path) as log:
        assert [b"{}"] == [record.value for record in read_all(log, "labels")]
        assert topics == log.partitions


def test_what_lies_wrong_is_forwarded_by_the_pipelines_own_task_alone() -> None:
    """Else each task would put a copy of the event onto the log, for all to refuse but one."""
    records = [event(n, shop=name) for n, name in enumerate("abcdefgh")]
    forwarded = [_outputs(pipeline, records, partitions=4) for pipeline in (two_tasks, REFUND)]

    assert (8, 8) == tuple(counts["events"] + counts["strays"] for _, counts in forwarded)
    assert (forwarded[0][1]["strays"], 0) == tuple(
        sum(output.topic == "events" for output in outputs) for outputs, _ in forwarded
    )
    assert forwarded[0][1] == forwarded[1][1]


def _outputs(
    pipeline: Pipeline, records: Sequence[Any], partitions: int
) -> tuple[list[Output], dict[str, int]]:
    *_, serving = started(pipeline)
    stage = Predict(pipeline, serving, partitions)
    return stage.apply(records), stage.counts


def test_a_marker_for_another_task_is_passed_over() -> None:
    """Each task forgets a key at a marker of its own; that of the other is no bad event."""
    *_, serving = started(REFUND)
    stage = Predict(REFUND, serving, erasures=Erasures(KEY, REFUND.name, "log"))
    stage.apply([event(0)])

    def marked(offset: int, name: str) -> tuple[list[Output], int]:
        erasure = Erasure(subject_of("a", KEY), "f", START_MS, name, "log", 0)
        marker = Erasures(KEY, name, "log").encode(erasure)
        outputs = stage.apply([Record("events", 0, offset, b"any", marker, 2**42)])
        return outputs, stage.sizes["keys"]

    assert ([], 1) == marked(1, "shop")
    assert ([], 0) == marked(2, "shop.refund")
    ([letter], _) = marked(3, "market")
    assert "foreign_command" == orjson.loads(letter.value or b"")["reason"]


def test_the_mistakes_in_tasks_are_told_all_at_once() -> None:
    """Each with its path, beside those of the pipeline itself."""
    task = two_tasks.tasks[0]
    with pytest.raises(DeclarationError) as refused:
        declare(
            champion="none",
            tasks=[
                replace(task, champion="x", label=sml.Label(int, horizon="1d")),
                replace(task, name="b", files=sml.Files(label="amount")),
            ],
        )
    assert [
        "champion: expected one of logistic, bayes, given 'none'",
        "tasks.refund.label.type: expected bool, Enum or float, given int",
        "tasks.refund.champion: expected one of sgd, bayes, given 'x'",
        "tasks.b.files.label: expected a column that is no field of events, given 'amount'",
    ] == [str(problem) for problem in refused.value.problems]
    for tasks, problem in (
        (task, "tasks: expected a list such as"),
        ([task, task], "tasks[1].name: expected another name than the tasks before"),
        ([replace(task, name="main")], "tasks[0].name: expected lower-case letters"),
        ([replace(task, name="consumers")], "tasks[0].name: expected lower-case letters"),
        ([replace(task, label=None)], "tasks.refund.label: expected Label"),
        ([replace(task, models=None)], "tasks.refund.models: expected names"),
        ([replace(task, champion=None)], "tasks.refund.champion: expected one of"),
        ([replace(task, files=shop.files)], "tasks.refund.files.label: expected another column"),
    ):
        with pytest.raises(DeclarationError) as refused:
            declare(tasks=tasks)
        assert problem in str(refused.value)
    with pytest.raises(DeclarationError, match="name: expected lower-case letters"):
        declare(name="shop.refund")


# --- files ----------------------------------------------------------------------------------------

TOLD = sml.Files(label_time="told_at")
REFUNDED = sml.Files(label="refund", label_time="refunded_at")
BOTH = {"label": True, "refund": False, "refunded_at": START_MS + 9}


@pytest.mark.parametrize(
    ("own", "task", "is_event"),
    [(sml.Files(), None, False), (TOLD, REFUNDED, True), (TOLD, REFUNDED, False)],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_row_with_the_labels_of_all_tasks_gives_each_its_own(
    tmp_path: Path, suffix: str, own: sml.Files, task: sml.Files | None, *, is_event: bool
) -> None:
    """And all of them the same event, without what was known of it later."""
    both = declare(files=own, tasks=[replace(two_tasks.tasks[0], files=task)])
    visit: dict[str, Any] = orjson.loads(event(0).value or b"")
    row: dict[str, Any] = {"event_id": "e1", "ts": START_MS, "told_at": START_MS + 5, **BOTH}
    if is_event:
        row |= visit
    file = tmp_path / f"rows.{suffix}"
    cells = ("" if cell is None else str(cell).lower() for cell in row.values())
    lines = [",".join(row), ",".join(cells)] if suffix == "csv" else [orjson.dumps(row).decode()]
    file.write_text("".join(f"{line}\n" for line in lines))

    found = [
        [(row.topic, orjson.loads(row.value or b"{}")) for row in read_rows(str(file), layout)]
        for layout in (RowLayout(p, str(file)) for p in (both, *both.task_pipelines.values()))
    ]

    labels = [[members["label"] for topic, members in rows if topic != "events"] for rows in found]
    assert [[True], [False]] == labels
    events = [[members for topic, members in rows if topic == "events"] for rows in found]
    assert [[visit] if is_event else []] * 2 == events
    known = {"event_id", "ts", "label", "told_at", "refunded_at"}
    assert all(members.keys() <= known for rows in found for t, members in rows if t != "events")


# --- the command line -----------------------------------------------------------------------------

clicks = sml.Pipeline(
    "clicks",
    events=sml.Events(key="user", fields={"user": str, "x": float}, lateness=0, breadth=1),
    features=[sml.field("x"), sml.window("1m").count()],
    label=sml.Label(bool, window="10m", absent=False),
    champion="plain",
    models={"plain": linear_model.LogisticRegression()},
    tasks=[
        sml.Task(
            "purchase",
            label=sml.Label(bool, window="1h", absent=False),
            champion="plain",
            models={"plain": linear_model.LogisticRegression()},
        )
    ],
)
CLICKS = ("--pipeline", f"{__name__}:clicks")


def _files(folder: Path, count: int = 400) -> list[str]:
    """Views, clicks on every third and purchases of every ninth, each in a file of its own."""
    start_ms = 1_700_000_000_000
    times = {f"e{n}": start_ms + 30_000 * n for n in range(count)}
    files = {
        "events.jsonl": [
            {"event_id": name, "ts": ts, "user": f"u{n % 7}", "x": n % 3 / 2}
            for n, (name, ts) in enumerate(times.items())
        ],
        "clicks.jsonl": [
            {"event_id": f"e{n}", "ts": times[f"e{n}"] + 5_000, "label": True}
            for n in range(0, count, 3)
        ],
        "purchases.jsonl": [
            {"event_id": f"e{n}", "ts": times[f"e{n}"] + 900_000, "purchase": True}
            for n in range(0, count, 9)
        ],
    }
    return [_write(folder / name, lines) for name, lines in files.items()]


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> str:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return str(path)


def test_backtest_gives_a_table_for_each_task(cli: Cli, tmp_path: Path) -> None:
    """Of files of all labels each task takes its own; a log that is kept has the events once."""
    files = _files(tmp_path)
    path = tmp_path / "log.sqlite"
    ran = cli("backtest", *files, *CLICKS, "--format", "json", "--broker", f"sqlite:{path}")

    assert (ran.code, ran.err) == (0, "")
    found = [ran.json, ran.json["tasks"]["purchase"]]
    assert ["clicks", "clicks.purchase"] == [each["pipeline"] for each in found]
    assert [
        {"events": 400, "labels": 134},
        {"events": 0, "labels": 45},
    ] == [each["published"] for each in found]
    assert [400, 400] == [each["events"]["predictions"] for each in found]
    assert [134, 45] == [each["labels"]["joined"] for each in found]
    for task, labels in (((), 134), (("--task", "purchase"), 45)):
        shown = cli("status", "--broker", f"sqlite:{path}", *task, "--format", "json")
        assert labels == shown.json["labels"]["joined"]
    refused = cli("backtest", *files, *CLICKS, "--predictions", str(tmp_path / "p"))
    assert (2, True) == (refused.code, "expected --task with it, one of main," in refused.err)


def test_labels_are_published_to_the_task_that_is_named(cli: Cli, tmp_path: Path) -> None:
    """Those of another task are refused there, and one that there is not is asked about."""
    events, main_labels, purchases = _files(tmp_path, 90)
    path = tmp_path / "log.sqlite"
    for task in (None, "purchase"):
        SqliteLog.open_or_create(path, task=task).close()
    to = (*CLICKS, "--broker", f"sqlite:{path}")
    assert 0 == cli("publish", "events", events, *to).code
    assert 0 == cli("publish", "labels", main_labels, *to).code
    assert 0 == cli("publish", "labels", purchases, "--task", "purchase", *to).code
    wrong = cli("publish", "labels", main_labels, "--task", "purchase", *to)
    typo = cli("publish", "labels", purchases, "--task", "purchas", *to)
    unknown = cli("status", "--task", "refunds", "--broker", f"sqlite:{path}")

    assert (1, True) == (wrong.code, "published 0 labels" in wrong.err)
    assert "expected bool, the label of 'clicks.purchase', given another task's" in wrong.err
    assert (2, True) == (typo.code, typo.err.endswith("did you mean purchase?\n"))
    assert (2, True) == (unknown.code, "one of the tasks main, purchase, given" in unknown.err)
    with SqliteLog.open(path) as log, SqliteLog.open(path, task="purchase") as other:
        counts = [len(list(read_all(each, "labels"))) for each in (log, other)]
    assert [30, 10] == counts


def test_up_works_on_all_tasks_and_starts_one_again_that_dies(tmp_path: Path) -> None:
    """One command; what a killed worker has not committed its successor does, and none other."""
    folder = Path(__file__).parent
    (tmp_path / "declared.py").write_text(
        f"import sys\nsys.path.insert(0, {str(folder.parents[1])!r})\n"
        "from tests.shop import two_tasks\n"
    )
    path = tmp_path / "log.sqlite"
    variables = {
        "STREAM_ML_PIPELINE": "declared:two_tasks",
        "STREAM_ML_BROKER": f"sqlite:{path}",
    }
    with Terminal("up", "--format", "json", folder=tmp_path, **variables) as up:
        victim = _said(up, said="starts", worker="refund")
        _said(up, said="started", pipeline="shop.refund", task="refund")
        os.kill(victim["process"], signal.SIGKILL)
        with connect(f"sqlite:{path}", two_tasks) as log:
            log.append([Output("events", e["shop"].encode(), orjson.dumps(e)) for e in EVENTS])
        _said(up, said="died", worker="refund", code=-9)
        visits = [e["event_id"] for e in EVENTS if e["kind"] == "visit"]
        with connect(f"sqlite:{path}", REFUND) as log:
            found = [p.event_id for p in islice(predictions(log, follow=True), len(visits))]
        ended = up.stopped()

    assert (0, "") == (ended.code, ended.err)
    assert visits == found
    with SqliteLog.open(path) as log:
        assert len(visits) == len(list(read_all(log, "predictions")))


def _said(terminal: Terminal, **members: object) -> dict[str, Any]:
    """The next thing said with these members."""
    while True:
        said: dict[str, Any] = orjson.loads(terminal.line())
        if members.items() <= said.items():
            return said
