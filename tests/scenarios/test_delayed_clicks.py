"""Clicks that come late: silence is a no until then, and what is learned and scored comes right."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from river import naive_bayes, preprocessing

import stream_ml as sml
from stream_ml.codec import decode_prediction
from stream_ml.evaluation.contest import Contest
from stream_ml.evaluation.scores import Scores
from stream_ml.models.snapshot import decode
from stream_ml.shell.log.reading import examples as last_words
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.stages.lessons import Lessons
from stream_ml.testing import CRASH, Driver

if TYPE_CHECKING:
    from collections.abc import Iterable

START_MS = 1_700_000_000_000
WINDOW_MS = 60_000
RATE = 0.3
COUNT = 2_400

clicks = sml.Pipeline(
    "clicks",
    events=sml.Events(key="user", fields={"x": float}, breadth=1),
    features=[sml.field("x")],
    label=sml.Label(bool, window=WINDOW_MS, absent=False),
    models={"bayes": naive_bayes.GaussianNB()},
    champion="bayes",
    promotion=sml.Promotion(refresh=250, first=250),
    monitors=None,
)


def world(seed: int) -> Iterable[tuple[int, str, dict[str, Any]]]:
    """Events, one a second, and clicks with a delay whose mean is one window, in their order."""
    rand = random.Random(seed)
    records = []
    for n in range(COUNT):
        ts = START_MS + 1_000 * n
        event = {"event_id": f"e{n}", "ts": ts, "user": f"u{n % 50}", "x": rand.gauss(0, 1)}
        records.append((ts, "events", event))
        if rand.random() < RATE:
            at = ts + round(rand.expovariate(1 / WINDOW_MS))
            label = {"event_id": f"e{n}", "ts": at, "label": True}
            records.append((at, "labels", label))
    end = START_MS + 1_000 * COUNT + 8 * WINDOW_MS
    records.append((end, "labels", {"event_id": "nothing", "ts": end, "label": True}))
    return sorted(records, key=lambda record: record[0])


def run(pipeline: sml.Pipeline) -> Driver:
    """All of it, as time goes: what is served at a time knows no later click."""
    driver = Driver(pipeline)
    publish(driver, list(world(seed=7)))
    return driver


def publish(driver: Driver, records: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Hundreds of records at a time."""
    bounds = range(0, len(records) + 100, 100)
    for start, end in pairwise(bounds):
        for topic in ("events", "labels"):
            driver.publish(topic, [each for _, of, each in records[start:end] if of == topic])
        driver.run()


def answered(driver: Driver) -> float:
    """The mean of what was served, of the last quarter."""
    records = driver.records("predictions")[-COUNT // 4 :]
    return fmean(float(decode_prediction(each.value).prediction or 0.0) for each in records)  # type: ignore[arg-type]


def test_answers_are_of_the_true_rate_though_clicks_come_late() -> None:
    """Three in ten click, one of them after the window: three in ten are answered, and scored."""
    with run(clicks) as driver:
        answer = answered(driver)
        baselines = driver.runner.evaluate._decisions.scoreboard._baselines
        prior = baselines.answers(START_MS + 1_000 * COUNT + 7 * WINDOW_MS)["prior"]
        examples = driver.read("examples")
        corrections = driver.runner.evaluate.counts["corrections"]
        model = driver.runner.evaluate.champion
        assert model is not None
        rebuilt = rebuild(driver.log, clicks, b"testing", model)
        reported = [each.label for each in last_words(driver.log, clicks.label)]
    said = {each["event_id"]: each["label"] for each in examples}
    rate = fmean(map(float, said.values()))
    late = sum("correction" in each for each in examples)

    assert rate == pytest.approx(RATE, abs=0.015)
    assert answer == pytest.approx(rate, abs=0.015)
    assert late == pytest.approx(COUNT * RATE * math.exp(-1), rel=0.1)
    assert (COUNT + late, late) == (len(examples), corrections)
    assert prior == pytest.approx(rate, abs=0.005)
    # A report has each event once, with its last word.
    assert (COUNT, rate) == (len(reported), fmean(map(float, reported)))
    # Learned again of the log alone, with the same silence passed over.
    assert (model, True) == (rebuilt.model, rebuilt.equal)


def test_a_line_that_learns_all_silence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned as it comes, silence leaves less than is true, however many clicks come after."""
    monkeypatch.setattr(Lessons, "takes", lambda *_: True)
    with run(clicks) as driver:
        said = {each["event_id"]: each["label"] for each in driver.read("examples")}
        answer = answered(driver)

    assert answer != pytest.approx(fmean(map(float, said.values())), abs=0.015)


class Constant(sml.Learner):
    """Answers the same whatever it learns."""

    def __init__(self, answer: float) -> None:
        self.answer = answer

    def predict_one(self, features: dict[str, float]) -> float:
        """The same, but for what is seen."""
        return self.answer + 0.01 * (features["x"] > 0)

    def learn_one(self, features: dict[str, float], label: Any) -> None:
        """Nothing."""

    def dump(self) -> bytes:
        """Its answer."""
        return repr(self.answer).encode()

    def load(self, data: bytes) -> None:
        """What it answers."""
        self.answer = float(data)


contested = replace(
    clicks,
    models={"low": Constant(0.2), "high": Constant(0.35)},
    champion="low",
    promotion=sml.Promotion(mode="manual", refresh=250, block="30d", block_pairs_min=1),
    monitors=sml.Monitors(block="10m"),
)


def prompt(label: dict[str, Any], events: dict[str, int]) -> dict[str, Any]:
    """The same label, as if it had come within its window."""
    ts = events.get(label["event_id"], label["ts"])
    return {**label, "ts": min(label["ts"], ts + WINDOW_MS)}


def open_blocks(driver: Driver) -> dict[str, list[tuple[int, int, float]]]:
    """By challenger, number, pairs and sum of each open block of evidence."""
    evidence = driver.runner.evaluate._decisions.contest._evidence
    return {
        line: [(n, each.n, math.fsum(each.partials)) for n, each in of._blocks._open.items()]
        for line, of in evidence.items()
    }


def standing(driver: Driver) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cumulative scores of whoever answers without learning, and the evidence."""
    report = driver.runner.evaluate.report()
    scores = {each.model: each.scores["cumulative"] for each in report}
    # When a line is renewed, and so what the first snapshot saw, goes by the number of examples.
    scores = {model: scores[model] for model in ("served", "high")}
    return scores, open_blocks(driver)


@pytest.mark.parametrize("revises", [True, False])
def test_scores_and_open_evidence_are_as_if_the_last_word_had_come_first(
    revises: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What clicks correct is scored, and weighed, as if they had come in time; else it is not."""
    if not revises:
        monkeypatch.setattr(Contest, "revise", lambda *_: None)
        monkeypatch.setattr(Scores, "revise", lambda *_: None)
    records = list(world(seed=11))[:1_200]
    end = records[-1][0] + 8 * WINDOW_MS
    records.append((end, "labels", {"event_id": "nothing", "ts": end, "label": True}))
    events = {each["event_id"]: each["ts"] for _, of, each in records if of == "events"}
    found = []
    for in_time in (False, True):
        with Driver(contested) as driver:
            dated = [
                (prompt(each, events)["ts"], of, prompt(each, events))
                if in_time and of == "labels"
                else (ts, of, each)
                for ts, of, each in records
            ]
            publish(driver, sorted(dated, key=lambda record: record[0]))
            found.append((standing(driver), driver.runner.evaluate.counts["examples"]))
    ((late, late_evidence), late_n), ((prompt_, prompt_evidence), prompt_n) = found
    are_equal = late_evidence == prompt_evidence and all(
        scores == pytest.approx(prompt_[model], abs=1e-9) for model, scores in late.items()
    )

    assert len(events) == prompt_n < late_n
    assert revises == are_equal


def test_a_worker_that_dies_again_and_again_says_the_same() -> None:
    """Killed at random, with batches and checkpoints of any size: the same examples and answers."""
    records = list(world(seed=3))[:400]
    events = [each for _, of, each in records if of == "events"]
    labels = [each for _, of, each in records if of == "labels"]
    labels.append({"event_id": "nothing", "ts": records[-1][0] + 10 * WINDOW_MS, "label": True})
    both = replace(
        clicks,
        label=sml.Label(bool, window=WINDOW_MS, absent=False, corrections="1h", relearn=True),
        models={"bayes": naive_bayes.GaussianNB(), "high": Constant(0.35)},
        promotion=sml.Promotion(refresh=50, first=50),
    )
    labels += [{**each, "label": False, "ts": each["ts"] + 1} for each in labels[:30:3]]
    labels.sort(key=lambda each: each["ts"])
    found = []
    for seed in (None, 1, 2):
        with Driver(both, seed=seed) as driver:
            fed: list[Any] = list(events)
            if seed is not None:
                for place in (300, 200, 90):
                    fed.insert(place, CRASH)
            driver.feed(fed, labels)
            driver.runner.commit(checkpoint=True)
            examples = driver.read("examples")
            stood = sorted(
                (each["event_id"], each["label"], each["label_ts"], "correction" in each)
                for each in examples
            )
            models = [decode(each.value) for each in driver.records("models") if each.value]
            found.append((examples, stood, {each.model: each.digest for each in models}))

    assert found[0] == found[1] == found[2]
    assert len(found[0][2]) > 10
    assert any(is_correction for *_, is_correction in found[0][1])


def test_a_line_that_comes_late_passes_over_the_same_silence() -> None:
    """It is taught what the others have learned, with silence and clicks as they have."""
    records = list(world(seed=5))[:1_000]
    line = {"late": preprocessing.StandardScaler() | naive_bayes.GaussianNB()}
    promotion = sml.Promotion(refresh=100, first=100)
    early = replace(clicks, promotion=promotion)
    whole = replace(early, models={**clicks.models, **line})
    with Driver(early) as driver:
        publish(driver, records[:500])
        driver.declare(whole)
        publish(driver, records[500:])
        found = [decode(each.value) for each in driver.records("models") if each.value]
        late = [each.model for each in found if each.name == "late"]
        views = [rebuild(driver.log, whole, b"testing", model) for model in late[-2:]]

    assert 2 == len(views)
    assert [True, True] == [view.equal for view in views]
