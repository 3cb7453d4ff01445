"""Retrained lines: on which examples each model is trained, when it is published, what is kept."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.features.durations import parse_duration
from stream_ml.models.retrained import encode_row
from stream_ml.models.snapshot import decode
from stream_ml.records import Output
from stream_ml.shell.log.reading import decisions
from stream_ml.shell.report.bound import bound_answers
from stream_ml.shell.views.reproduce import reproduce, sample
from stream_ml.stages import retraining
from stream_ml.stages.learn import Learn
from stream_ml.stages.refresh_clock import RefreshClock
from stream_ml.stages.watermark import ExamplesWatermark
from stream_ml.testing import CRASH, Driver
from tests.shop import KEY, declare, example, shop, written
from tests.simulation import world
from tests.trainers import Bag, Failing, Forgetful, Idle, window_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record

NAMES = shop.feature_set.names


def shop_with(line: Any, **changes: Any) -> Pipeline:
    """The shop with a retrained line beside its own."""
    return declare(models={**shop.models, "bag": line}, **changes)


def examples(count: int, seed: int) -> list[Record]:
    """Examples of which some lack features."""
    rand = random.Random(seed)
    records = []
    for offset in range(count):
        features = {name: rand.gauss(0, 1) for name in NAMES if rand.random() < 0.9}
        records.append(example(offset, rand.random() < 0.3, features))
    return records


def restarted(learn: Learn, pieces: dict[str, bytes], pipeline: Pipeline) -> Learn:
    """The stage as the next worker takes it up, from the entries that live."""
    for name, piece in learn.dirty():
        if piece is None:
            pieces.pop(name, None)
        else:
            pieces[name] = piece
    restored = Learn(pipeline, KEY)
    restored.restore(pieces.items())
    return restored


# --- when, and on what ------------------------------------------------------------------------


def trained_models(records: list[Record], line: sml.Retrained) -> Iterator[Any]:
    """What is published at each instant, plainly: rows of the window, and the window's digest."""
    clock, rows = RefreshClock(None, 20), list[list[float]]()
    watermarks = ExamplesWatermark(shop.horizon_ms, shop.events.breadth)
    pending, newest, last = None, None, None
    for n, record in enumerate(records, 1):
        prediction, label = record.memo.prediction, record.memo.label
        watermarks.advance(0, prediction.event_id, record.memo.label_ts, record.append_ms)
        watermark = watermarks.ms
        rows.append(encode_row(watermark, label, prediction.features, shop.target, NAMES))
        if not clock.strikes(n, watermark):
            continue
        newest, pending = pending or newest, None
        yield newest
        if isinstance(line.window, int):
            window = rows[-line.window :]
        else:
            window = [r for r in rows if r[0] > watermark - parse_duration(line.window)]
        is_due = last is None or line.every is None
        if not is_due and isinstance(line.every, int):
            is_due = n - last[0] >= line.every
        elif not is_due:
            every = parse_duration(str(line.every))
            is_due = watermark // every != last[1] // every
        if is_due:
            last = n, watermark
            pending = len(window), window_digest([r[2:] for r in window], [r[1] for r in window])


lines = st.builds(
    sml.Retrained,
    st.just(Bag()),
    st.sampled_from([1, 7, 20, 33, 150, "1s", "25s", "3m"]),
    every=st.sampled_from([None, 1, 20, 45, "1s", "50s"]),
)


@settings(max_examples=25, deadline=None)
@given(lines, st.integers(0, 2**32))
def test_models_are_trained_on_the_window_of_the_instant_before(
    line: sml.Retrained, seed: int
) -> None:
    """Each instant publishes what was begun at the one before, however often the worker dies."""
    rand = random.Random(seed)
    records = examples(130, seed)
    pipeline = shop_with(line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining, "CHUNK_ROWS", rand.choice([1, 8, 256]))
        learn, outputs, pieces = Learn(pipeline, KEY), list[Output](), dict[str, bytes]()
        start = 0
        while start < len(records):
            end = start + rand.randrange(1, 30)
            outputs += learn.apply(records[start:end])
            start = end
            if rand.random() < 0.5:
                learn = restarted(learn, pieces, pipeline)
    models = [decode(record.value or b"") for record in written(outputs, "models")]
    actual = []
    for snapshot in models:
        if snapshot.name == "bag":
            state = pipeline.recipes["bag"].load(retraining.decompress(snapshot.payload)).dump()
            newest = orjson.loads(state) if state else None
            actual.append(newest and (newest["rows"], newest["window"]))

    assert list(trained_models(records, line)) == actual


def test_a_snapshot_says_what_its_model_was_trained_on() -> None:
    """Which examples are in a retrained model, and that until then the line has no answer."""
    line = sml.Retrained(Bag(), 30)
    outputs = Learn(shop_with(line), KEY).apply(examples(60, 1))
    models = [decode(record.value or b"") for record in written(outputs, "models")]
    bags = [snapshot for snapshot in models if snapshot.name == "bag"]

    assert [None, {"n": 20, "rows": 20}, {"n": 40, "rows": 30}] == [
        snapshot.epoch.get("trained") for snapshot in bags
    ]
    assert {None} == {golden.answer for golden in bags[0].golden}
    assert None not in {golden.answer for golden in bags[1].golden}


def test_the_state_keeps_what_the_window_and_a_training_need_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks that have left the window are dropped, and those that are full are written once."""
    monkeypatch.setattr(retraining, "CHUNK_ROWS", 10)
    pipeline = shop_with(sml.Retrained(Bag(), 25))
    learn, pieces, writes = Learn(pipeline, KEY), dict[str, bytes](), list[str]()
    for record in examples(200, 1):
        learn.apply([record])
        for name, piece in learn.dirty():
            if name.startswith("r") and piece is not None:
                writes.append(name)
            pieces.pop(name, None)
            pieces |= {} if piece is None else {name: piece}

    kept = sorted(name for name in pieces if name.startswith("r"))
    # The training that began at example 200 is on examples 176 to 200.
    assert ["r17/bag", "r18/bag", "r19/bag"] == kept
    assert [10] * 20 == [writes.count(f"r{number}/bag") for number in range(20)]


def test_a_model_that_stays_is_not_written_again() -> None:
    """A checkpoint holds a retrained model only where it is another than before."""
    learn = Learn(shop_with(sml.Retrained(Bag(), 30)), KEY)
    learn.start()
    written_at = []
    for n, record in enumerate(examples(70, 1), 1):
        learn.apply([record])
        if "lbag" in [name for name, _ in learn.dirty()]:
            written_at.append(n)

    assert [1, 40, 60] == written_at


# --- failures ---------------------------------------------------------------------------------


def test_a_training_that_fails_ends_its_own_line_only() -> None:
    """One alert says why, the others publish on, and the window is dropped from the state."""
    pipeline = shop_with(sml.Retrained(Failing(30), 100))
    learn, pieces = Learn(pipeline, KEY), dict[str, bytes]()
    records = examples(120, 1)
    outputs = learn.apply(records[:50])
    learn = restarted(learn, pieces, pipeline)
    outputs += learn.apply(records[50:])
    learn = restarted(learn, pieces, pipeline)
    alerts = [orjson.loads(output.value or b"") for output in outputs if output.topic == "alerts"]
    models = [decode(record.value or b"").model for record in written(outputs, "models")]

    (message,) = [alert["message"] for alert in alerts]
    failure = "training failed: ArithmeticError('40 are too many')"
    assert f"the line 'bag' learns no more after example 60: {failure}" == message
    assert ["bag@20", "bag@40"] == [model for model in models if model.startswith("bag")]
    assert 6 == sum(model.startswith("bayes") for model in models)
    assert [] == [name for name in pieces if name.startswith("r")]


def test_a_line_that_starts_anew_has_an_empty_window() -> None:
    """A restart keeps nothing of what was learned before it."""
    pipeline = shop_with(sml.Retrained(Failing(30), 100))
    learn, pieces = Learn(pipeline, KEY), dict[str, bytes]()
    records = examples(120, 1)
    learn.apply(records[:70])
    restarted(learn, pieces, pipeline)
    learn = Learn(pipeline, KEY, restart=["bag"])
    learn.restore(pieces.items())
    outputs = learn.apply(records[70:75])
    learn = restarted(learn, pieces, pipeline)
    outputs += learn.apply(records[75:])
    models = [decode(record.value or b"") for record in written(outputs, "models")]

    assert [None, {"n": 80, "rows": 10}, {"n": 100, "rows": 30}] == [
        snapshot.epoch.get("trained") for snapshot in models if snapshot.name == "bag"
    ]


def test_a_line_that_an_operator_starts_anew_has_an_empty_window() -> None:
    """A command drops what the line had learned, and the examples that it was to be trained on."""
    line = sml.Retrained(Bag(), 100)
    declared = replace(world.pipeline, models={**world.pipeline.models, "bag": line})
    events, labels = world.stream(3, 400)
    with Driver(declared) as driver:
        driver.publish("labels", labels)
        driver.feed(events[:200])
        former_count = len(driver.records("examples"))
        driver.command("restart", model="bag")
        driver.feed(events[200:])
        bags = [model for model in driver.read("models") if model and model["model"] == "bag"]

    (restart,) = [n for n, model in enumerate(bags) if "restarted" in model["epoch"]]
    first, second = (model["epoch"].get("trained") for model in bags[restart : restart + 2])
    assert (None, second["n"] - former_count) == (first, second["rows"])


def test_a_line_that_is_declared_no_more_leaves_nothing() -> None:
    """Its rows are dropped from the state."""
    pipeline = shop_with(sml.Retrained(Bag(), 100))
    learn, pieces = Learn(pipeline, KEY), dict[str, bytes]()
    learn.apply(examples(50, 1))
    learn = restarted(learn, pieces, pipeline)
    assert [name for name in pieces if name.startswith("r")]
    learn = restarted(learn, pieces, shop)
    restarted(learn, pieces, shop)

    assert [] == [name for name in pieces if "bag" in name]


def test_a_faulty_declaration_is_refused_with_the_reason() -> None:
    """Arguments, and trainers that cannot be a line, are told where they are declared."""
    bad: list[Any] = [
        sml.Retrained(Bag(), 0),
        sml.Retrained(Bag(), 10**9),
        sml.Retrained(Bag(), "3 days"),
        sml.Retrained(Bag(), True),
        sml.Retrained(Bag(), "1d", every=0),
        sml.Retrained(Bag(), "1d", seed=-1),
        sml.Retrained(print, "1d"),  # type: ignore[arg-type]  # planted
        sml.Retrained(Forgetful(), "1d"),
        sml.Retrained(Idle(), "1d"),
    ]
    problems = []
    for line in bad:
        with pytest.raises(DeclarationError) as refused:
            shop_with(line)
        problems += [str(problem) for problem in refused.value.problems]

    equal = "a trainer that makes equal bytes of equal examples and seeds"
    failure = "raised ValueError('expected a number for a label')"
    length = 'expected a duration such as "30d", or from 1 to 800,000 examples, given'
    assert [
        f"models.bag.window: {length} 0",
        f"models.bag.window: {length} 1000000000",
        f"models.bag.window: {length} '3 days'",
        f"models.bag.window: {length} True",
        f"models.bag.every: {length} 0",
        "models.bag.seed: expected from 0 to 2147483647, given -1",
        "models.bag.trainer: expected a stream_ml.Trainer, given <built-in function print>",
        f"models.bag: expected {equal}, given tests.trainers.Forgetful",
        f"models.bag: expected a trainer for binary, given tests.trainers.Idle, which {failure}",
    ] == problems


def test_features_that_may_be_missing_are_tried() -> None:
    """A trainer that cannot train on gaps is refused where there may be some."""
    changes = {
        "features": [sml.field("amount"), sml.window("30s").mean("amount")],
        "label": sml.Label(float, horizon="40s"),
        "champion": "bag",
    }
    with pytest.raises(DeclarationError) as refused:
        declare(**changes, models={"bag": sml.Retrained(Idle(), "1d")})

    assert "expected no gaps" in str(refused.value)
    assert declare(**changes, models={"bag": sml.Retrained(Bag(), "1d")}).recipes


# --- the whole system -------------------------------------------------------------------------

TOPICS = ("predictions", "examples", "registry", "evaluations", "alerts")


def run(seed: int, crashes: int) -> dict[str, list[Any]]:
    """What comes out of a world with a retrained line, where the worker dies so often."""
    line = sml.Retrained(Bag(), "90s", every=30)
    declared = replace(world.pipeline, models={**world.pipeline.models, "bag": line})
    events, labels = world.stream(3, 400)
    with Driver(declared, seed=seed or None) as driver:
        driver.publish("labels", labels)
        driver.publish("events", events)
        driver.feed([CRASH] * crashes)
        result = {topic: [(r.key, r.value) for r in driver.records(topic)] for topic in TOPICS}
        result["models"] = [model and model["digest"] for model in driver.read("models")]
    return result


def test_crashes_change_nothing() -> None:
    """Ten deaths of the worker at random places leave what none leaves, byte for byte."""
    expected = run(0, 0)

    assert 3 < len({digest for digest in expected["models"] if digest and "dump" in digest})
    for seed in range(1, 5):
        assert expected == run(seed, 10), f"seed {seed}"


def test_a_retrained_line_is_promoted_serves_and_is_reproduced() -> None:
    """It shadows, is promoted by command, answers events, and every answer can be made again."""
    line = sml.Retrained(Bag(), 100)
    declared = replace(world.pipeline, models={**world.pipeline.models, "bag": line})
    events, labels = world.stream(3, 600)
    with Driver(declared) as driver:
        driver.publish("labels", labels)
        driver.feed(events[:400])
        driver.command("promote", model="bag", expect="logistic")
        driver.run()
        driver.feed(events[400:])
        served = [p["model"] for p in driver.read("predictions")]
        done = reproduce(driver.log, declared, b"testing", sample(driver.log, 200, seed=1))
        slots = {answer.slot for answer in done.answers}
        bound = list(bound_answers(driver.log, declared, list(decisions(driver.log, b"testing"))))
        assert len(driver.read("examples")) == len(bound)

    assert "logistic" == served[0].split("@")[0]
    assert "bag" == served[-1].split("@")[0]
    assert {"champion", "bag"} <= slots
    assert (0.0, []) == (done.worst, done.different)
