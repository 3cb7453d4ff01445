"""The bound: what a learner that predicts live would have said, against one that really does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cli_toy import START_MS, outputs, stream, toy

from stream_ml.models.recipes import answer, learn
from stream_ml.records import ModelRef, ServingSet
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import decisions
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.report.bound import LIVE, bound_answers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.records import Answer, Decision, Example, Output

KEY = b"k" * 32
Lived = list[tuple["Example", dict[str, "Answer"]]]


def worked(records: Iterable[Output]) -> tuple[Lived, list[Decision]]:
    """What came of the toy on these records, as it was decided."""
    with SqliteLog.create(MEMORY) as log:
        replay(log, toy, KEY, records)
        decided = list(decisions(log, KEY))
        return list(bound_answers(log, toy, decided)), decided


def at_its_time(found: Lived, line: str) -> dict[str, Answer]:
    """The slow way: for each question, a learner of its own that learns all that was known."""
    examples = [example for example, _ in found]
    expected = {}
    for asked in examples:
        learner = toy.recipes[line].fresh()
        ts = asked.prediction.ts
        for known in examples:
            if known.label_ts <= ts and known.prediction.ts < ts:
                learn(learner, toy.target, known.prediction.features, known.label)
        expected[asked.prediction.event_id] = answer(learner, toy.target, asked.prediction.features)
    return expected


@pytest.mark.parametrize("delay_ms", [0, 1_000, 2_500, 90_000])
def test_it_has_learned_every_label_that_was_known(delay_ms: int) -> None:
    """Each answer is that of a learner that was taught all labels due by then, and no other."""
    events, _ = stream(150)
    labels = [
        {"event_id": e["event_id"], "ts": e["ts"] + delay_ms, "label": e["x"] > 0} for e in events
    ]

    found, _ = worked(
        [output_of(toy, "events", event) for event in events]
        + [output_of(toy, "labels", label) for label in labels]
    )

    said = {example.prediction.event_id: answers[LIVE] for example, answers in found}
    assert len(said) == 150
    assert said == at_its_time(found, "plain")


@pytest.mark.parametrize("relearn", [False, True])
def test_a_label_is_learned_as_it_was_known_then(*, relearn: bool) -> None:
    """A later correction is learned when it comes, where it is declared, and never before."""
    declared = replace(toy, label=replace(toy.label, corrections="1h", relearn=relearn))
    events, labels = stream(120)
    wrong = [{**each, "label": not each["label"], "ts": each["ts"] + 30_000} for each in labels]
    records = sorted([*labels, *wrong[::2]], key=lambda each: each["ts"])
    with SqliteLog.create(MEMORY) as log:
        outputs = [output_of(declared, "events", event) for event in events]
        outputs += [output_of(declared, "labels", label) for label in records]
        replay(log, declared, KEY, outputs)
        found = list(bound_answers(log, declared, list(decisions(log, KEY))))

    learner, expected = declared.recipes["plain"].fresh(), {}
    features = {example.prediction.event_id: example.prediction.features for example, _ in found}
    lessons = [each for each in records if relearn or each not in wrong]
    for event in events:
        while lessons and lessons[0]["ts"] <= event["ts"]:
            lesson = lessons.pop(0)
            learn(learner, declared.target, features[lesson["event_id"]], lesson["label"])
        if event["event_id"] in features:
            asked = features[event["event_id"]]
            expected[event["event_id"]] = answer(learner, declared.target, asked)
    assert expected == {example.prediction.event_id: said[LIVE] for example, said in found}
    last = {each["event_id"]: each["label"] for each in records}
    assert last == {example.prediction.event_id: example.label for example, _ in found}


def test_what_has_no_label_and_comes_late_holds_nothing_up() -> None:
    """Questions without an answer are passed over; labels that come out of order are learned."""
    events, labels = stream(120)
    labels = [
        {**label, "ts": label["ts"] + 7_000 * (number % 3)}
        for number, label in enumerate(labels)
        if number % 5
    ]
    labels.sort(key=lambda label: label["ts"])

    found, _ = worked(
        [output_of(toy, "events", event) for event in events]
        + [output_of(toy, "labels", label) for label in labels]
    )

    assert len(found) == len(labels)
    said = {example.prediction.event_id: answers[LIVE] for example, answers in found}
    assert said == pytest.approx(at_its_time(found, "plain"), abs=1e-9)


def test_copies_learn_no_more() -> None:
    """A copy of the last champion's line stops where `first` and the replacement stopped."""
    with SqliteLog.create(MEMORY) as log:
        replay(log, toy, KEY, outputs(700))
        before = list(decisions(log, KEY))[-1]
        scaled, plain = ModelRef("scaled@300", "d", 0), ModelRef("plain@100", "d", 0)
        after: Any = replace(
            before, kind="replaced", serving=ServingSet(scaled, {}, None, first=plain)
        )
        found = list(bound_answers(log, toy, [before, after]))

    learner = toy.recipes["scaled"].fresh()
    for number, (example, _) in enumerate(found[:300]):
        if number == 100:
            at_100 = answer(learner, toy.target, found[-1][0].prediction.features)
        learn(learner, toy.target, example.prediction.features, example.label)
    assert [set(answers) - {LIVE} for _, answers in (found[0], found[200], found[-1])] == [
        set(),
        {"scaled@100"},
        {"scaled@100", "scaled@300"},
    ]
    assert found[-1][1]["scaled@100"] == at_100
    assert found[-1][1]["scaled@300"] == answer(
        learner, toy.target, found[-1][0].prediction.features
    )
    assert found[-1][0].prediction.ts > START_MS
