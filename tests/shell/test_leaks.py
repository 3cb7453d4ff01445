"""Leaks: what nobody can know when an event comes is found in files, and nothing else is."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model

import stream_ml as sml
from stream_ml.evaluation.leakage import filling, strength
from stream_ml.examples.cards import cards, transactions
from stream_ml.examples.flights import extended
from stream_ml.examples.payments import payments
from stream_ml.scenarios import generate
from stream_ml.shell import flights_data
from stream_ml.shell.rows import leaks
from stream_ml.shell.rows.leaks import Leak, LeakSearch
from stream_ml.stages.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from conftest import Cli

AT = 1_700_000_000_000
HOUR = 3_600_000
TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"

orders = sml.Pipeline(
    "orders",
    events=sml.Events(
        key="customer",
        fields={
            "kind": sml.Enum("order", "refund"),
            "amount": sml.Optional[float],
            "status": sml.Optional[str],
            "refunded": sml.Optional[bool],
            "reason": sml.Optional[str],
            "closed_at": sml.Optional[int],
        },
        lateness="1h",
    ),
    predict=sml.when(kind="order"),
    features=[
        sml.field("amount", fill=0.0),
        sml.one_hot("status", categories=["paid", "open", "lost"]),
        sml.window("7d").count(kind="refund"),
        sml.window("7d").mean("amount", fill=0.0),
    ],
    label=sml.Label(bool, horizon="7d"),
    champion="line",
    models={"line": linear_model.LogisticRegression()},
)
minutes = replace(
    orders,
    label=sml.Label(float, horizon="7d"),
    models={"line": linear_model.LinearRegression()},
)
PIPELINE = f"{__name__}:orders"

Records = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def world(count: int = 2_000, *, share: float = 0.2, kind: type = bool) -> Records:
    """Orders of which a fifth are refunded; the amount tells a little, and so does the status."""
    draw = random.Random(7)
    events, labels = [], []
    for n in range(count):
        label = draw.random() < share
        ts = AT + n * HOUR + draw.randrange(HOUR)
        events.append(
            {
                "event_id": f"o{draw.randrange(10**9):09d}",
                "ts": ts,
                "customer": f"c{n % 400}",
                "kind": "order",
                "amount": draw.gauss(60 + 20 * label, 20),
                "status": draw.choice(["paid", "open"]) if draw.random() < 0.9 else None,
            }
        )
        late = ts + 2 * HOUR
        value = label if kind is bool else draw.gauss(events[-1]["amount"] or 0.0, 40)
        labels.append({"event_id": events[-1]["event_id"], "ts": late, "label": value})
    return events, labels


def look(pipeline: sml.Pipeline, events: Iterable[Any], labels: Iterable[Any]) -> list[Leak]:
    """The leaks in records."""
    search, watermark = LeakSearch(pipeline), Watermark(pipeline.events.breadth)
    for value in events:
        event = pipeline.event_codec.decode(orjson.dumps(value))
        if event.ts >= watermark.ms - pipeline.lateness_ms:
            watermark.advance(event.key, event.ts, sys.maxsize)
            search.event(event, watermark.ms)
    for value in labels:
        search.label(pipeline.label_codec.decode(orjson.dumps(value)))
    return search.leaks()


def _copy(event: dict[str, Any], label: dict[str, Any], _: int) -> None:
    event["refunded"] = label["label"]


def _contrary(event: dict[str, Any], label: dict[str, Any], _: int) -> None:
    event["refunded"] = not label["label"]


def _too_good(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    event["amount"] = label["label"] * 80.0 + n % 90


def _status(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    if label["label"] and event["status"] is not None:
        event["status"] = ("lost", "gone")[n % 2]


def _filled(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    event["reason"] = f"because {n}" if label["label"] and n % 3 else None


def _taken_away(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    event["amount"] = None if label["label"] and n % 3 else event["amount"]


def _joined_later(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    # In seconds, of what was closed; whether it was refunded does not show in it.
    event["closed_at"] = (label["ts"] + n) // 1000 if n % 2 else None


def _id(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    event["event_id"] = label["event_id"] = f"o{n + 1_000_000 * label['label']}"


def _letters(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    event["event_id"] = label["event_id"] = f"{'r' if label['label'] else 'o'}{n * 7919 % 2_003}"


def _time(event: dict[str, Any], label: dict[str, Any], _: int) -> None:
    event["ts"] -= event["ts"] % 60_000 if label["label"] else 0


def _early(event: dict[str, Any], label: dict[str, Any], n: int) -> None:
    label["ts"] = event["ts"] - 1 if n % 50 == 0 else label["ts"]


PLANTED: dict[str, tuple[Callable[[Any, Any, int], None], str, str, str]] = {
    "copy": (
        _copy,
        "equals_label",
        "refunded",
        "equals the label in 2,000 of 2,000 events (100.0%)",
    ),
    "contrary": (_contrary, "equals_label", "refunded", "is the contrary of the label in 2,000"),
    "too good": (_too_good, "too_good", "amount", "alone tells the label (AUC 0.9"),
    "category": (_status, "too_good", "status", "alone tells the label (AUC 1.0"),
    "filled": (_filled, "filled_for_one_class", "reason", "is filled in 2"),
    "taken away": (_taken_away, "filled_for_one_class", "amount", "is missing in 2"),
    "joined later": (_joined_later, "later_time", "closed_at", "in 1,000 of 1,000 events (100.0%)"),
    "id": (_id, "telling_id", "number in the id", "AUC 1.0"),
    "letters": (_letters, "telling_id", "letters of the id", "AUC 1.0"),
    "time": (_time, "telling_time", "second of the event's time", "AUC 1.0"),
    "early": (_early, "label_before_event", "label", "40 of 2,000 labels (2.0%)"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found(name: str) -> None:
    """Of each kind of leak the field is named, with the figure; and nothing else is."""
    plant, kind, column, words = PLANTED[name]
    events, labels = world()
    for n, (event, label) in enumerate(zip(events, labels, strict=True)):
        plant(event, label, n)

    found = look(orders, events, labels)

    assert [(kind, column)] == [(leak.kind, leak.column) for leak in found]
    assert words in found[0].message


def test_a_window_that_looks_ahead_is_found() -> None:
    """Refunds that were joined under the time of the order are seen in the window behind them."""
    events, labels = world()
    refunds = [
        {**event, "event_id": f"r{n}", "ts": event["ts"] - 1, "kind": "refund"}
        for n, (event, label) in enumerate(zip(events, labels, strict=True))
        if label["label"]
    ]
    sorted_events = sorted([*events, *refunds], key=lambda event: event["ts"])

    found = look(replace(orders, features=[*orders.features, LAST]), sorted_events, labels)

    # The second: whoever has a mean has had a refund, for customers come every sixteen days.
    assert ["count 7d kind=refund", "mean(amount) 7d", LAST.name] == [leak.column for leak in found]


LAST = sml.window("1h").time_since_last(kind="refund", fill=3600.0)


@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["equal", "twice"])
def test_a_number_that_is_the_label_is_found(scale: float) -> None:
    """Of labels that are numbers too: what equals them, and what tells them but for a scale."""
    events, labels = world(kind=float)
    for event, label in zip(events, labels, strict=True):
        event["amount"] = label["label"] * scale

    (leak,) = look(minutes, events, labels)

    assert ("equals_label" if scale == 1 else "too_good", "amount") == (leak.kind, leak.column)


def test_a_rare_class_is_told_by_name() -> None:
    """Of three classes the one is named that a category tells."""
    kinds = replace(
        orders,
        label=sml.Label(sml.Enum("kept", "late", "lost"), horizon="7d"),
        models={"line": linear_model.SoftmaxRegression()},
    )
    events, labels = world()
    for n, (event, label) in enumerate(zip(events, labels, strict=True)):
        label["label"] = ("kept", "late", "lost", "kept", "late")[n % 5]
        event["status"] = "gone" if n % 5 == 2 else event["status"]

    (leak,) = look(kinds, events, labels)

    assert ("too_good", "status") == (leak.kind, leak.column)
    assert "tells the label lost" in leak.message


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.03, 0.2, 0.8]))
def test_luck_is_no_leak(seed: int, share: float) -> None:
    """Labels by luck, beside fields and ids of all kinds, are never said to leak."""
    draw = random.Random(seed)
    events, labels = world(800, share=share)
    for n, (event, label) in enumerate(zip(events, labels, strict=True)):
        label["label"] = draw.random() < share
        # A text that comes once tells its own label, and no other.
        event["reason"] = draw.choice([None, f"y{n}"])
        event["refunded"] = draw.choice([None, True, False])

    assert [] == look(orders, events, labels)


@pytest.mark.parametrize(("n", "is_found"), [(20, False), (30, True)])
def test_a_few_of_one_class_are_luck(n: int, is_found: bool) -> None:
    """Of a class that six in ten have, twenty in a row come once in 27,000, thirty hardly ever."""
    labels = [number % 5 < 3 for number in range(1_000)]
    chosen = [number for number, label in enumerate(labels) if label][:n]
    values = [1.0 if number in chosen else None for number in range(1_000)]

    assert is_found == (filling(values, labels) is not None)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 3.0]), st.booleans()), min_size=100, max_size=140
    )
)
def test_the_area_is_that_of_all_pairs(rows: list[tuple[float, bool]]) -> None:
    """An AUC is the share of pairs in the right order, ties counted half."""
    values, labels = [x for x, _ in rows], [y for _, y in rows]
    found = strength(values, labels)
    high, low = ([x for x, y in rows if y is truth] for truth in (True, False))
    if min(len(high), len(low)) < 20:
        assert found is None
        return
    pairs = [(a > b) + (a == b) / 2 for a in high for b in low]
    area = sum(pairs) / len(pairs)

    assert found is not None
    assert pytest.approx(max(area, 1 - area)) == found.value
    assert found.low <= found.value


def test_the_bundled_examples_leak_nothing(tmp_path: Path) -> None:
    """Nothing is said of the flights, the cards, the payments and the tutorial's deliveries."""
    real: dict[str, list[Any]] = {"events": [], "labels": []}
    for number, (topic, value) in enumerate(flights_data.records(1, 1)):
        real[topic].append(value)
        if number > 6_000:
            break
    made: dict[str, list[Any]] = {"events": [], "labels": []}
    for topic, value in generate("steady", seed=3, events=3_000):
        made[topic].append(value)

    # All that the flights have, and two features more.
    assert [] == look(extended, real["events"], real["labels"])
    assert [] == look(cards, *transactions(4_000, seed=1))
    assert [] == look(payments, made["events"], made["labels"])
    assert [] == _deliveries(tmp_path)


def _deliveries(folder: Path) -> list[Leak]:
    """The leaks in the tutorial's data, by its own declaration."""
    blocks = re.findall(
        r'```python title="([\w.]+)"\n(.*?)```', TUTORIAL.read_text(encoding="utf-8"), re.DOTALL
    )
    made = next(text for name, text in blocks if name == "make_data.py")
    declared = "".join(text for name, text in blocks if name == "deliveries.py")
    names: dict[str, Any] = {}
    exec(made.replace('open(f"{name}', f'open(f"{folder}/{{name}}'), {})  # noqa: S102 - our own page
    exec(declared, names)  # noqa: S102 - our own page

    def records(name: str) -> list[Any]:
        return [orjson.loads(line) for line in (folder / name).read_bytes().splitlines()]

    events = records("events.jsonl")
    kinds = [each for each in names.values() if isinstance(each, sml.Pipeline)]
    assert {"late", "outcome", "minutes"} <= {each.name for each in kinds}
    return [
        leak
        for pipeline in kinds
        if pipeline.name in {"late", "outcome", "minutes"}
        for leak in look(pipeline, events[:2_500], records(f"{pipeline.name}.jsonl"))
    ]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many events some are kept, the same ones whichever comes first, and leaks are found."""
    monkeypatch.setattr(leaks, "ROWS_MAX", 500)
    events, labels = world()
    for n, (event, label) in enumerate(zip(events, labels, strict=True)):
        _copy(event, label, n)
    found = []
    for labels_first in (False, True):
        search = LeakSearch(orders)
        decoded = [orders.event_codec.decode(orjson.dumps(event)) for event in events]
        truths = [orders.label_codec.decode(orjson.dumps(label)) for label in labels]
        for label_ in truths if labels_first else ():
            search.label(label_)
        for event_ in decoded:
            search.event(event_, event_.ts)
            assert len(search._rows) + len(search._waiting) <= 1_001
        for label_ in () if labels_first else truths:
            search.label(label_)
        found.append([leak.message for leak in search.leaks()])

    assert found[0] == found[1]
    assert 1 == len(found[0])


def test_check_tells_of_leaks(cli: Cli, tmp_path: Path) -> None:
    """The command shows the sentence, with the features that are made of the field; code 0."""
    events, labels = world(400)
    for event, label in zip(events, labels, strict=True):
        event["status"] = "lost" if label["label"] else "paid"
    file = tmp_path / "orders.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, [*events, *labels])))

    text = cli("check", str(file), "--pipeline", PIPELINE)
    ran = cli("check", str(file), "--pipeline", PIPELINE, "--format", "json")

    assert (0, 0) == (text.code, ran.code)
    (leak,) = ran.json["leaks"]
    assert ("too_good", "status", 1.0) == (leak["kind"], leak["column"], leak["figure"])
    assert leak["message"].endswith("; made of it: status")
    assert leak["message"] in text.out


def test_labels_that_are_early_are_counted_among_those_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many events were let go of, all of all labels is all."""
    monkeypatch.setattr(leaks, "ROWS_MAX", 500)
    events, labels = world()
    search = LeakSearch(orders)
    for event, label in zip(events, labels, strict=True):
        decoded = orders.event_codec.decode(orjson.dumps(event))
        search.event(decoded, decoded.ts)
        early = {**label, "ts": decoded.ts - 1}
        search.label(orders.label_codec.decode(orjson.dumps(early)))
    [figure] = [leak.figure for leak in search.leaks() if leak.kind == "label_before_event"]

    assert 1.0 == figure
