"""Generated worlds are what their truth says, to the byte; no record says what the truth is."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from stream_ml.evaluation.scores import brier
from stream_ml.examples import payments as declared
from stream_ml.scenarios import SCENARIOS, generate
from stream_ml.testing import Driver

DIGESTS = """
import hashlib, json
from stream_ml.scenarios import SCENARIOS, generate
for name in SCENARIOS:
    run = generate(name, seed=3, events=300)
    records = [[topic, record] for topic, record in run]
    print(name, hashlib.sha256(json.dumps([records, run.truth()]).encode()).hexdigest())
"""
EVENT_MEMBERS = {"event_id", "ts", *declared.payments.schema, "card"}
LABEL_MEMBERS = {"event_id", "ts", "label", "source"}


def _made(name: str, seed: int = 1, events: int = 2_000) -> tuple[dict[str, list[Any]], Any]:
    run = generate(name, seed=seed, events=events)
    records: dict[str, list[Any]] = {"events": [], "labels": []}
    for topic, record in run:
        records[topic].append(record)
    return records, run.truth()


def test_equal_seeds_give_equal_bytes_in_every_process() -> None:
    """Whoever makes a world anew, in a process that hashes texts in another way, has the same."""
    digests = [
        subprocess.run(  # noqa: S603 - our own interpreter and words
            [sys.executable, "-c", DIGESTS],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert digests[0] == digests[1]
    assert len(SCENARIOS) == len(set(digests[0].split()[1::2]))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_truth_stands_beside_the_records_and_not_in_them(name: str) -> None:
    """A record has the members that a producer would send, and no other."""
    records, truth = _made(name)

    assert all(EVENT_MEMBERS == event.keys() for event in records["events"])
    assert all(LABEL_MEMBERS == label.keys() for label in records["labels"])
    assert all(label["source"] in {"a", "b"} for label in records["labels"])
    assert len(records["labels"]) == truth["labels"]
    assert name == truth["scenario"]
    first = next(e["ts"] for e in records["events"])
    assert first == truth["first_ms"] < truth["last_ms"]
    for change in truth["changes"]:
        assert 0 < change["event"] < truth["events"]
        assert truth["first_ms"] < change["ts"] < truth["last_ms"]
        assert change["field"] in {None, *declared.payments.schema}
        assert change["origin"] in {"world", "pipeline"}
    for moment in truth["serves"]:
        line = moment["line"]
        assert line is None or line in getattr(declared, truth["pipeline"].split(":")[1]).recipes


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_declared_pipeline_takes_it(name: str) -> None:
    """Of each scenario every record is read; what is late or double in a flood is counted."""
    records, truth = _made(name, events=900)
    pipeline = getattr(declared, truth["pipeline"].split(":")[1])
    with Driver(pipeline, partitions=truth["partitions"]) as driver:
        driver.feed(records["events"], records["labels"])
        refused = Counter(letter["reason"] for letter in driver.read("dead-letters"))
        predictions, examples = driver.read("predictions"), driver.read("examples")

    if name == "flood":
        # What comes too late, its copies, and the labels of what came too late.
        assert {"duplicate", "too_late", "orphan"} == set(refused)
        assert 850 < len(predictions) < 900
    else:
        assert {} == refused
        assert 900 == len(predictions)
        # What is known by the end; of labels that stopped, none came.
        assert truth["labels"] * 0.9 < len(examples) <= truth["labels"]


# Those in which what is sent is what was made.
OPEN = [name for name in SCENARIOS if name not in {"units", "frozen", "nulls", "label_source"}]


@pytest.mark.parametrize("name", OPEN)
def test_the_best_loss_is_that_of_who_knows_each_chance(name: str) -> None:
    """Answers by the very chances lose what `best` says, up to luck, in each period."""
    run = generate(name, seed=2, events=6_000)
    chances: dict[str, float] = {}
    losses: dict[int, list[float]] = {}
    labels: dict[str, bool] = {}
    for topic, record in run:
        if topic == "events":
            n = int(record["event_id"][1:])
            chances[record["event_id"]] = 1 / (1 + math.exp(-run.logit(record, n / run.events)))
        else:
            labels[record["event_id"]] = record["label"]
    truth = run.truth()
    starts = [period["event"] for period in truth["periods"]]
    for event_id, label in labels.items():
        start = max(start for start in starts if start <= int(event_id[1:]))
        losses.setdefault(start, []).append(brier(label, chances[event_id]))

    for period in truth["periods"]:
        found = losses.get(period["event"])
        if found:
            error = statistics.stdev(found) / math.sqrt(len(found))
            assert statistics.fmean(found) == pytest.approx(period["brier"], abs=4 * error)
    assert 0 < truth["best"]["brier"] < 0.25


def _halves(name: str, member: str) -> tuple[list[Any], list[Any]]:
    """A member of the events just before a change, and while it is on."""
    records, truth = _made(name, events=4_000)
    [change, *_] = truth["changes"]
    end = change["until_event"] or truth["events"]
    numbered = [(int(event["event_id"][1:]), event[member]) for event in records["events"]]
    return (
        [value for n, value in numbered if n < change["event"]],
        [value for n, value in numbered if change["event"] <= n < end],
    )


def test_what_a_change_says_of_a_field_is_so() -> None:
    """Units, what stands still, nulls, a category and a shift can be seen where they are said."""
    before, after = _halves("units", "amount")
    assert statistics.median(after) / statistics.median(before) == pytest.approx(100, rel=0.2)
    before, after = _halves("frozen", "distance")
    assert 1 == len(set(after)) < 100 < len(set(before))
    before, after = _halves("nulls", "amount")
    assert 0 == before.count(None)
    assert after.count(None) / len(after) == pytest.approx(0.6, abs=0.1)
    before, after = _halves("category", "channel")
    assert "wallet" not in before
    assert after.count("wallet") / len(after) == pytest.approx(0.25, abs=0.05)
    before, after = _halves("inputs", "amount")
    assert statistics.median(after) / statistics.median(before) == pytest.approx(3, rel=0.2)


def test_what_a_change_says_of_labels_is_so() -> None:
    """They stop, come a day later, or are told the wrong way round by one source only."""
    records, truth = _made("label_outage")
    [change] = truth["changes"]
    numbers = {int(label["event_id"][1:]) for label in records["labels"]}
    assert numbers.isdisjoint(range(change["event"], change["until_event"]))
    assert truth["events"] - (change["until_event"] - change["event"]) == len(numbers)

    records, truth = _made("label_delay")
    made = {event["event_id"]: event["ts"] for event in records["events"]}
    delays_h = [(label["ts"] - made[label["event_id"]]) / 3_600_000 for label in records["labels"]]
    assert max(delays_h) < 24
    assert 0.2 == pytest.approx(sum(delay > 18 for delay in delays_h) / len(delays_h))

    records, truth = _made("label_source", events=6_000)
    run = generate("label_source", seed=1, events=6_000)
    # High amounts are mostly fraud: who says the opposite is to be seen in them.
    high = {e["event_id"] for e in records["events"] if run.logit(e, 0.0) > 3}
    late = f"{truth['changes'][0]['event']}"
    shares = {
        source: statistics.fmean(
            label["label"]
            for label in records["labels"]
            if label["event_id"] in high
            and label["source"] == source
            and int(label["event_id"][1:]) >= int(late)
        )
        for source in "ab"
    }
    assert shares["a"] > 0.9
    assert shares["b"] < 0.1


def test_a_share_of_fraud_that_grows_leaves_its_look_as_it_was() -> None:
    """The odds are fourfold, and the amounts of what is fraud, and of what is not, as before."""
    records, truth = _made("label_share", events=12_000)
    [change] = truth["changes"]
    labels = {label["event_id"]: label["label"] for label in records["labels"]}
    amounts: dict[tuple[bool, bool], list[float]] = {}
    for event in records["events"]:
        fraud, late = labels[event["event_id"]], int(event["event_id"][1:]) >= change["event"]
        amounts.setdefault((late, fraud), []).append(math.log(event["amount"]))

    counts = {kind: len(found) for kind, found in amounts.items()}
    odds = {late: counts[late, True] / counts[late, False] for late in (False, True)}
    assert odds[True] / odds[False] == pytest.approx(4, rel=0.2)
    for fraud in (False, True):
        before, after = amounts[False, fraud], amounts[True, fraud]
        assert statistics.fmean(before) == pytest.approx(statistics.fmean(after), abs=0.08)


def test_a_flood_comes_late_and_more_than_once() -> None:
    """Events of a backlog lie behind younger ones, and some lie there three times."""
    records, truth = _made("flood")
    [change] = truth["changes"]
    copies = Counter(event["event_id"] for event in records["events"])
    newest, late = 0, 0
    for event in records["events"]:
        late += event["ts"] < newest - 60_000
        newest = max(newest, event["ts"])

    flooded = {n for n in range(truth["events"]) if copies[f"p{n}"] > 1}
    assert flooded <= set(range(change["event"], change["until_event"]))
    assert {3} == {copies[f"p{n}"] for n in flooded}
    assert late > 100


def test_a_silent_partition_has_no_events() -> None:
    """Nothing of partition 2 of 4 lies between the two times; before and after it has its share."""
    records, truth = _made("silence")
    [change] = truth["changes"]
    with Driver(declared.payments, partitions=4) as driver:
        driver.publish("events", records["events"])
        times = [record.partition for record in driver.records("events")]
        numbers = [int(event["event_id"][1:]) for event in driver.read("events")]

    of_two = [n for n, partition in zip(numbers, times, strict=True) if partition == 2]
    assert not [n for n in of_two if change["event"] <= n < change["until_event"]]
    assert min(of_two) < change["event"] <= change["until_event"] < max(of_two)


def test_equal_lines_are_equal_by_construction() -> None:
    """What one line sees and what the other sees tell as much: each has the other's law."""
    records, _ = _made("equal", events=20_000)
    labels = {label["event_id"]: label["label"] for label in records["labels"]}
    means = {
        field: statistics.fmean(
            math.log(event[field]) for event in records["events"] if labels[event["event_id"]]
        )
        for field in ("amount", "distance")
    }

    assert means["amount"] == pytest.approx(means["distance"], abs=0.03)


def test_an_unknown_scenario_is_named() -> None:
    """The message has what was given, and all that there are."""
    with pytest.raises(ValueError, match=r"expected one of steady, .*, given 'nosuch'"):
        generate("nosuch")
    with pytest.raises(ValueError, match="events: expected at least 1, given 0"):
        generate("steady", events=0)
