"""What the parts of the live page say: of workers, data, blocks, slices, and calibration."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from stream_ml.client import open_log
from stream_ml.codec import decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.examples.cards import cards, transactions
from stream_ml.monitoring.agreement import Agreement
from stream_ml.monitoring.diagnosis import Cause
from stream_ml.records import Output
from stream_ml.sealing import Seals
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import examples, read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.report.curves import calibration
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.views.alerts import AlertView
from stream_ml.shell.views.stage_backlogs import StageBacklog
from stream_ml.shell.views.stalled import StalledTask
from stream_ml.slices import Slice
from stream_ml.testing import Driver
from stream_ml.web.access import OPERATE, READ, Access
from stream_ml.web.app import create_app
from stream_ml.web.board import Board
from stream_ml.web.page.contents import _verdict_reason, confirmation, timeline
from stream_ml.web.page.recent import Recent, RecentReader
from stream_ml.web.page.render import PARTS, Painter, part_rows, render
from tests.payments_log import publish_payments
from tests.scenarios.test_delayed_clicks import contested, publish, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from stream_ml.records import Prediction, Record
    from stream_ml.web.board import BoardSnapshot

KEY, OTHER = b"k" * 32, b"o" * 32
FORGED_ID, FORGED_EVIDENCE = "forged-1", 1e6


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 3,000 payments, at whose end others have put a prediction and an example."""
    path: Path = tmp_path_factory.mktemp("parts") / "log.sqlite"
    events, labels = transactions(3_000, seed=1)
    with SqliteLog.create(path) as log:
        publish_payments(log, events, labels)
        with Runner(log, cards, KEY) as runner:
            runner.run()
        seals = Seals(OTHER, cards.name, log.identity)
        for topic in ("predictions", "examples"):
            body = orjson.loads([*read_all(log, topic)][-1].value or b"")
            del body["seal"]
            value = seals.records(topic).seal(orjson.dumps({**body, "event_id": FORGED_ID}))
            log._append([Output(topic, b"any", value)])
        body = next(
            each
            for record in reversed([*read_all(log, "evaluations")])
            if (each := orjson.loads(record.value or b"")).get("evidence")
        )
        del body["seal"]
        body["evidence"]["e_value"] = FORGED_EVIDENCE
        value = seals.records("evaluations").seal(orjson.dumps({**body, "n": 10**9}))
        log._append([Output("evaluations", b"any", value)])
    return path


@pytest.fixture(scope="module")
def snapshot(log_path: Path) -> BoardSnapshot:
    """The views of it."""
    settings = Settings(broker=f"sqlite:{log_path}", key=KEY)

    async def run() -> BoardSnapshot:
        board = Board(lambda: open_log(settings, cards.name), settings, "automatic")
        board.start()
        try:
            return await board.snapshot()
        finally:
            board.close()

    return asyncio.run(run())


def parts_of(snapshot: BoardSnapshot, recent: Recent | None = None) -> Mapping[str, str]:
    """Every part, rendered."""
    return Painter(cards).paint(snapshot, recent or Recent())


def alert_of(subject: str, ts: int, append_ms: int, message: str = "told") -> AlertView:
    """An open alert about data."""
    return AlertView(
        kind="data_fault",
        severity="critical",
        state="open",
        stage="evaluate",
        partition=0,
        subject=subject,
        message=message,
        details={},
        ts=ts,
        since=ts,
        append_ms=append_ms,
        since_append_ms=append_ms,
        command="stream-ml drift",
        fingerprint="f",
    )


def pills(html: str) -> list[str]:
    """What stands in pills."""
    return re.findall(r'<span class="pill[^"]*">([^<]*)</span>', html)


def on_desk_and_phone(html: str) -> tuple[str, str]:
    """The two pictures of a chart."""
    desk, phone = re.findall(r'<svg class="chart on-(?:desk|phone)".*?</svg>', html, re.DOTALL)
    return desk, phone


# --- the head, and what needs attention ---------------------------------------------------------


def test_head_says_that_no_worker_answers(snapshot: BoardSnapshot) -> None:
    """Where records wait and nobody takes them, it does not say that something serves."""
    since_ms = snapshot.taken_ms - 120_000
    dead = (StalledTask("predict-0", "events", 0, 7, since_ms, has_worker=False),)
    parts = parts_of(replace(snapshot, at_work=frozenset(), stalled=dead))

    assert ["no worker answers"] == pills(parts["state"])
    assert "no worker answers: 7 records wait for predict, for 2 min" in parts["health"]
    assert "No alert is open" not in parts["health"]
    assert "stream-ml up" in parts["health"]
    assert ["no worker answers"] == pills(parts["flow"])
    stuck = (replace(dead[0], has_worker=True),)
    parts = parts_of(replace(snapshot, at_work=frozenset({"predict"}), stalled=stuck))
    assert "a worker is stuck: 7 records wait for predict, for 2 min" in parts["health"]
    assert "stream-ml up" not in parts["health"]  # there is one, which has its place
    idle = parts_of(replace(snapshot, at_work=frozenset(), stalled=()))
    assert ["no worker is at work", "no alert"] == pills(idle["state"])
    busy = parts_of(replace(snapshot, at_work=frozenset({"predict"}), stalled=()))
    assert ["serving", "no alert"] == pills(busy["state"])


def test_head_says_that_a_worker_falls_behind(snapshot: BoardSnapshot) -> None:
    """Where more comes than is done the page is not plain green, and says since when."""
    backlog = StageBacklog("predict", 128_014, snapshot.taken_ms - 322_000, 850.0, 400.0)
    painter, look = Painter(cards), replace(snapshot, at_work=frozenset({"predict"}))
    parts = painter.paint(replace(look, backlogs=(backlog,)), Recent())
    words = (
        "predict falls behind: 128,014 records wait, the first for 5 min 22 s; 850 came a second"
    )

    assert ["serving", "falls behind"] == pills(parts["state"])
    assert f"{words}, 400 are done" in parts["health"]
    assert "No alert is open" not in parts["health"]
    assert ["behind"] == pills(parts["flow"])
    caught = replace(look, number=look.number + 1, backlogs=(replace(backlog, rate=1_000.0),))
    assert ["serving", "catches up"] == pills(painter.paint(caught, Recent())["state"])
    # Where nothing is written the wait grows all the same.
    later = replace(caught, taken_ms=look.taken_ms + 36_000_000)
    assert "the first for 10 h 5 min" in painter.paint(later, Recent())["health"]


@pytest.mark.parametrize(("task", "patience_s"), [("predict-0", 10), ("learn-0", 130)])
def test_a_stage_is_red_once_records_have_waited_for_longer_than_it_takes_to_say(
    snapshot: BoardSnapshot, task: str, patience_s: int
) -> None:
    """Learn says where it is with a checkpoint; a quiet stage is not stuck as something comes."""
    painter, number, came_s = Painter(cards, checkpoint_s=60.0), 0, 1_001.0
    stages = [each for each in snapshot.status.stages if each.task == task]

    def look(after_s: float, lag: int) -> list[str]:
        nonlocal number
        number += 1
        since_ms = snapshot.taken_ms + round(1_000 * came_s) if lag else None
        seen = [replace(each, lag=lag, waiting_since_ms=since_ms) for each in stages]
        status = replace(snapshot.status, stages=seen)
        now_ms = snapshot.taken_ms + round(1_000 * after_s)
        at_look = replace(snapshot, number=number, taken_ms=now_ms, status=status, stalled=())
        return pills(painter.paint(at_look, Recent())["flow"])

    assert [] == look(0, 0) + look(1_002, 3) + look(1_001 + patience_s, 3)
    assert ["waiting, and nothing moves"] == look(1_002 + patience_s, 3)
    assert [] == look(1_003 + patience_s, 0)


def test_how_long_records_wait_is_told_anew_at_each_look(snapshot: BoardSnapshot) -> None:
    """Where nothing is written, too, as after a night without a worker."""
    since_ms = snapshot.taken_ms - 120_000
    dead = (StalledTask("predict-0", "events", 0, 7, since_ms, has_worker=False),)
    painter, look = Painter(cards), replace(snapshot, at_work=frozenset(), stalled=dead)
    painter.paint(look, Recent())
    parts = painter.paint(replace(look, taken_ms=look.taken_ms + 36_000_000), Recent())

    assert "7 records wait for predict, for 10 h 2 min" in parts["health"]


def test_head_says_that_data_have_moved(snapshot: BoardSnapshot) -> None:
    """A fault in the data is told at the top though no alert is open, and once where one is."""
    cause = Cause("nulls", "amount", 1, "the field amount is missing in 72%")
    moved = replace(snapshot, drift=replace(snapshot.drift, until=5, causes=(cause,)))
    parts = parts_of(moved)

    assert "data have moved" in pills(parts["state"])
    assert "no alert" not in pills(parts["state"])
    assert "missing in 72%" in parts["health"]
    assert () == tuple(snapshot.alerts.open)
    told = alert_of("amount", 1, 1, cause.message)
    parts = parts_of(replace(moved, alerts=replace(moved.alerts, open=(told,))))
    assert 1 == parts["health"].count("missing in 72%")


# --- evidence and scores ------------------------------------------------------------------------


@pytest.mark.parametrize(("e_value", "share"), [(0.5, 0.0), (1, 0.0), (60**0.5, 0.5), (70, 1.0)])
def test_evidence_bar_is_empty_without_evidence(
    snapshot: BoardSnapshot, e_value: float, share: float
) -> None:
    """E of 1 says nothing, and fills nothing; half of the powers of ten fill half."""
    evidence = {"adagrad": {"e_value": e_value, "needed": 60.0, "wins": 1, "losses": 0}}
    evidence["adagrad"] |= {"verdict": "hold", "verdict_reason": "-"}
    models = replace(snapshot.models, evidence=evidence)
    lines = parts_of(replace(snapshot, models=models))["lines"]

    assert f"{share:.3f}" in re.findall(r'<meter min="0" max="1" value="([0-9.]+)"', lines)


def test_chart_has_a_gap_while_a_line_was_champion(snapshot: BoardSnapshot) -> None:
    """A line that was not scored by itself for some rounds is two pieces, and others are one."""
    rounds = [
        {"model": model, "ts": ts * 1_000, "n": ts, "scores": {"windowed": {"brier": 0.1}}}
        for ts in range(1, 21)
        for model in ("served", "tree")
        if model == "served" or not 8 <= ts <= 14
    ]
    scores = parts_of(replace(snapshot, evaluations=tuple(rounds)))["scores"]

    desk, phone = on_desk_and_phone(scores)
    styles = re.findall(r'<polyline class="line s(\d)"', desk)
    assert styles == re.findall(r'<polyline class="line s(\d)"', phone)
    assert (1, 2) == (styles.count("0"), len(styles) - styles.count("0"))
    assert "Brier, mean of each model" in scores


def test_time_line_is_in_the_order_that_it_shows(snapshot: BoardSnapshot) -> None:
    """An alert that was written after a decision, and is of before it, stands below it."""
    [*_, last] = snapshot.status.registry.decisions
    alerts = tuple(
        alert_of("amount", last.decision.ts + ms, last.append_ms + later_ms)
        for ms, later_ms in ((-60_000, 1), (5_000, 2), (-30_000, 3), (1_000, 4))
    )
    timeline = parts_of(replace(snapshot, alerts=replace(snapshot.alerts, last=alerts)))["timeline"]

    times = re.findall(r'<p class="quiet"><time datetime="([^"]+)">', timeline)
    assert 5 == len(times)
    assert sorted(times, reverse=True) == times


# --- blocks, slices, calibration ----------------------------------------------------------------


def bold(html: str) -> list[str]:
    """What stands out in a table."""
    return re.findall(r'<td class="n"><strong>([^<]*)</strong>', html)


def test_blocks_and_slices_show_every_line(snapshot: BoardSnapshot) -> None:
    """Each has the loss of what serves and of challengers: new blocks first, the least in bold."""
    scores = {"served": {"n": 9, "brier": 0.3}, "tree": {"n": 9, "brier": 0.2}}
    blocks = (
        {"start": None, "end": None, "scores": scores},
        {"start": 3_600_000, "end": 7_200_000, "scores": scores},
        {"start": 7_200_000, "end": 9_000_000, "scores": {"served": {"n": 4, "brier": 0.1}}},
    )
    part = {"n": 9, "scores": {"fading": {"brier": 0.25}}}
    models = tuple(
        {**each, "slices": {"old <b>": part | {"scores": {"fading": {"brier": value}}}}}
        for each, value in zip(snapshot.status.models, (0.25, 0.5, 0.125, 0.5, 0.5), strict=False)
    )
    status = replace(snapshot.status, blocks=blocks, models=models)
    parts = parts_of(replace(snapshot, status=status))

    heads = re.findall(r"<th scope=\"row\">(?:<time[^>]*>)?([^<]*)<", parts["blocks"])
    assert ["1970-01-01 02:00Z", "1970-01-01 01:00Z", "usually"] == heads
    assert ["0.2", "0.2"] == bold(parts["blocks"])
    names = [each["model"] for each in models if each["model"] in {"served", "adagrad", "tree"}]
    assert 3 == len(names)
    declared = Painter(replace(cards, slices=(Slice("old", age=70),)))
    slices = declared.paint(replace(snapshot, status=status), Recent())["slices"]
    assert "old &lt;b&gt;" in slices
    assert 3 + 2 == slices.count('scope="col"')
    assert 1 == len(bold(slices))


def reader(log: SqliteLog) -> RecentReader:
    """A reader with our key, as the server has it."""
    seal = Seals(KEY, cards.name, log.identity).records("predictions")

    def prediction(record: Record) -> Prediction | None:
        with suppress(BadRecord):
            return decode_prediction(seal.unseal(record.value))
        return None

    return RecentReader(cards.name, lambda _: KEY, prediction)


def test_calibration_is_of_what_was_said_and_came(log_path: Path) -> None:
    """Tenths of the last answers of what serves and of challengers, without what others forged."""
    with SqliteLog.open(log_path) as log:
        recent = reader(log).read(log)
        own = [each for each in examples(log) if each.prediction.event_id != FORGED_ID]
    pairs: dict[str, list[tuple[float, float]]] = {"served": [], "adagrad": [], "tree": []}
    # Of the last 2,000 records one is forged.
    for each in own[-1_999:]:
        shadows = {line: shadow.prediction for line, shadow in each.prediction.shadows.items()}
        for line, of in pairs.items():
            answer = {"served": each.prediction.prediction, **shadows}.get(line)
            if isinstance(answer, float) and not isinstance(each.label, str):
                of.append((float(each.label), answer))

    assert recent.calibration is not None
    assert {line: calibration(of) for line, of in pairs.items()} == {
        line: recent.calibration[line] for line in pairs
    }
    assert len(pairs["served"]) == recent.calibrated > 1_000


def test_a_corrected_label_counts_once(tmp_path: Path) -> None:
    """By its last word, in the list of labelled ones as well."""
    declared = replace(cards, label=replace(cards.label, corrections="30d"))
    events, labels = transactions(1_040, seed=1)
    later = max(each["ts"] for each in labels)
    wrong = [{**each, "label": not each["label"], "ts": later + 1} for each in labels[-4:]]
    with SqliteLog.create(tmp_path / "log.sqlite") as log:
        publish_payments(log, events, [*labels, *wrong], declared)
        with Runner(log, declared, KEY) as runner:
            runner.run()
        recent = reader(log).read(log)
        count = len([*read_all(log, "examples")])
        own = [*examples(log, declared.label)]
    said = {each.prediction.event_id: each.label for each in own}

    assert count == len(own) + 4
    assert len(own) == recent.calibrated + sum(each.prediction.fallback for each in own)
    shown = [each.prediction.event_id for each in recent.labelled]
    assert len(shown) == len(set(shown)) > 3
    assert [said[event_id] for event_id in shown] == [each.label for each in recent.labelled]


def test_sources_of_labels_are_shown_where_there_are_some(snapshot: BoardSnapshot) -> None:
    """With the share that agrees and its interval; a name of others does nothing."""
    rows = (
        Agreement("<b>bot", 1_000, 200, 140, 0.633, 0.759, None),
        Agreement(None, 30, 0, 0, None, None, None),
    )
    part = parts_of(replace(snapshot, sources=rows))["labels"]
    text = " ".join(re.sub("<[^>]*>", " ", part).split())

    assert "&lt;b&gt;bot" in part
    assert "1,000 200 70 % 63.3 % to 75.9 %" in text
    assert "(names none) 30 0" in text
    assert snapshot.sources == ()
    assert "By source" not in parts_of(snapshot)["labels"]


def test_calibration_is_drawn(log_path: Path, snapshot: BoardSnapshot) -> None:
    """A dot for each tenth of what serves, and the table says the same."""
    with SqliteLog.open(log_path) as log:
        recent = reader(log).read(log)
    part = parts_of(snapshot, recent)["calibration"]

    assert recent.calibration is not None
    tenths = len(recent.calibration["served"])
    for picture in on_desk_and_phone(part):
        dots, ranges = (
            picture.count(f'<{x} s0"') for x in ('circle class="dot', 'line class="range')
        )
        assert tenths == dots == ranges
    assert tenths == part.count('<th scope="row">served</th>')
    assert "Too few labels yet" in parts_of(snapshot)["calibration"]


# --- what others have put there, and what is asked once more ------------------------------------


@asynccontextmanager
async def server(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server on the log, which lets anybody act."""
    settings = Settings(broker=f"sqlite:{path}", key=KEY)
    app = create_app(settings, cards, Access({}, frozenset({READ, OPERATE})))
    app.state.service.start()
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client
    finally:
        app.state.service.close()


@pytest.mark.parametrize("topic", ["predictions", "examples"])
def test_what_others_forged_is_not_shown(log_path: Path, topic: str) -> None:
    """A record that does not bear our seal is in no list, and opens as what it is: none of ours."""
    with SqliteLog.open(log_path) as log:
        place = f"/page/{topic}/0/{log.end_offset(topic, 0) - 1}"

    async def ask() -> list[httpx.Response]:
        async with server(log_path) as client:
            return [
                await client.get(address)
                for address in ("/page", place, f"{place}/again", f"{place}/trace")
            ]

    page, *records = asyncio.run(ask())
    assert f'href="/page/{topic}/0/' in page.text
    assert f'href="{place}"' not in page.text
    assert [(404, "forged")] * 3 == [(each.status_code, each.json()["reason"]) for each in records]


def test_forged_evidence_is_none(snapshot: BoardSnapshot) -> None:
    """An evaluation that does not bear our seal speaks for nobody, in no table and no chart."""
    evidence = [each["e_value"] for each in (snapshot.models.evidence or {}).values()]

    assert evidence
    assert FORGED_EVIDENCE not in evidence
    for evaluations in (snapshot.evaluations, snapshot.models.evaluations, snapshot.status.models):
        assert max(each["n"] for each in evaluations) <= 3_000


@pytest.mark.parametrize(
    ("verdict", "e_value", "words"),
    [
        ("promote", 70.0, "it has earned it"),
        ("reject", 70.0, "it is held back"),
        ("continue", 50.0, "not enough to tell it from luck"),
    ],
)
def test_evidence_is_told_with_the_verdict_on_it(
    snapshot: BoardSnapshot, verdict: str, e_value: float, words: str
) -> None:
    """Whoever confirms a promotion reads what the judge said, and why."""
    [line, *_] = snapshot.models.evidence or {}
    figures = {**(snapshot.models.evidence or {})[line], "needed": 60.0, "e_value": e_value}
    evidence = {line: {**figures, "verdict": verdict, "verdict_reason": "answers only 43.7%"}}
    looked = replace(snapshot, models=replace(snapshot.models, evidence=evidence))
    values = confirmation(looked, {"kind": "promote", "model": line})
    fields = {"kind": "promote", "reason": "better"}
    html = render("confirm", form_token="", **values, fields=fields)

    assert [words] == pills(html)
    assert ("answers only 43.7%" in html) == (verdict != "promote")


def test_a_promotion_is_asked_once_more(log_path: Path) -> None:
    """Without a script, too: the form comes back with what it would do, and nothing is done yet."""
    form = {"kind": "promote", "model": "tree", "expect": "x", "reason": "<because>"}

    async def ask() -> httpx.Response:
        async with server(log_path) as client:
            page = await client.get("/page")
            [token, *_] = re.findall(r'name="form_token" value="(\w+)"', page.text)
            return await client.post("/page/command", data={**form, "form_token": token})

    before = read_registry_of(log_path)
    asked = asyncio.run(ask())
    assert 200 == asked.status_code
    assert re.search(r"<strong>tree@\d+</strong> would serve in the place of", asked.text)
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    assert {**form, "reason": "&lt;because&gt;", "confirmed": "yes"}.items() <= hidden.items()
    assert before == read_registry_of(log_path)


def read_registry_of(path: Path) -> list[object]:
    """The decisions and commands on a log."""
    with SqliteLog.open(path) as log:
        return [*read_all(log, "registry"), *read_all(log, "commands")]


def test_calibration_counts_an_event_once_by_its_last_word() -> None:
    """Where a click came late its answer is held against the click, and not against silence too."""
    with Driver(contested) as driver:
        publish(driver, list(world(seed=11))[:600])
        found = RecentReader(contested.name, lambda _: None, lambda _: None).read(driver.log)
        said = driver.read("examples")
    last = {each["event_id"]: each for each in said if not each["fallback"]}
    pairs = [(float(each["label"]), each["prediction"]) for each in last.values()]

    assert len(said) > len(last) == found.calibrated > 0
    assert found.calibration is not None
    assert calibration(pairs) == found.calibration["served"]


def test_weak_evidence_is_told_in_words() -> None:
    """Not by a figure of which one has to know what it is out of; other reasons as they are."""
    reasons = {
        name: _verdict_reason({"verdict_reason": reason, "e_value": value, "needed": 60.0})
        for name, reason, value in (
            ("none", "E is 0.0913 of 60", 0.0913),
            ("some", "E is 12 of 60", 12.0),
            ("gain", "its gain is not 0.01 per example", 80.0),
        )
    }

    assert reasons == {
        "none": "so far nothing speaks for it",
        "some": "luck may do as much: not enough evidence yet",
        "gain": "its gain is not 0.01 per example",
    }
    assert _verdict_reason(None) == ""


def test_refreshes_in_a_row_are_called_so(snapshot: BoardSnapshot) -> None:
    """One entry says of how many it is the last."""
    row = {**timeline(snapshot)["rows"][-1], "kind": "refreshed", "count": 45}

    html = render("timeline", rows=[row], total=1)

    assert "the last of 45 refreshes in a row: " in html


@pytest.mark.parametrize(
    ("within", "pill", "words"),
    [
        (10, "as it says", "In all 10 groups what came is what was said, but for luck."),
        (9, "off in 1 of 10 groups", "by more than luck explains (luck alone does so in one of"),
        (3, "off in 7 of 10 groups", "There what came differs from what was said, by more than"),
    ],
)
def test_calibration_and_its_badge_agree(within: int, pill: str, words: str) -> None:
    """What is said in a word is what the sentence says."""
    html = render(
        "calibration", svg="x", within=within, groups=10, number=2_000, points={}, along="", unit=""
    )

    assert [pill] == pills(html)
    assert words in html


def test_parts_lie_in_two_columns_of_which_none_is_empty() -> None:
    """A part is beside others, or as wide as the page: no half of a row is left empty."""
    rows = part_rows(PARTS)

    assert list(PARTS) == [part for left, right in rows for part in (*left, *right)]
    assert all(right or left[0].column == "wide" for left, right in rows)
    assert all(left for left, _ in rows)
