"""Learn: when lines publish, what they have learned by then, and what becomes of one that fails."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import example as explicit
from hypothesis import given
from hypothesis import strategies as st
from river import linear_model, naive_bayes, neighbors, optim, preprocessing, tree

import stream_ml as sml
from stream_ml.models import snapshot as snapshots
from stream_ml.models.recipes import Recipe
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.refresh_clock import RefreshClock
from stream_ml.stages.teaching import LIVE_LOSS_EVERY
from tests.shop import KEY, START_MS, declare, example, shop, written

if TYPE_CHECKING:
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.records import Output, Record

WARM_UP = [500 * 2**step for step in range(20)]


# --- when -------------------------------------------------------------------------------------


def instants_counted(count: int, every: int) -> list[int]:
    """Rule 3 again, plainly: doublings below the cadence, and multiples of it."""
    return [n for n in range(1, count + 1) if (n in WARM_UP and n < every) or n % every == 0]


def instants_of_time(watermarks: list[int], refresh_ms: int) -> list[int]:
    """Rule 3 again, plainly: doublings until one step takes the cadence, and new periods."""
    struck = []
    warming, warmed_at = True, watermarks[0]
    for n, watermark in enumerate(watermarks, 1):
        strikes = n > 1 and watermark // refresh_ms > watermarks[n - 2] // refresh_ms
        if warming and n in WARM_UP:
            strikes = True
            warming = watermark - warmed_at < refresh_ms
            warmed_at = watermark
        if strikes:
            struck.append(n)
    return struck


@given(st.integers(1, 9_000))
@explicit(500)
@explicit(501)
@explicit(1_000)
def test_counted_refreshes_double_until_the_cadence_and_keep_it(every: int) -> None:
    """500, 1,000, 2,000 ... while below the cadence; then its multiples."""
    clock = RefreshClock(None, every)

    assert instants_counted(9_000, every) == [n for n in range(1, 9_001) if clock.strikes(n, n)]


@given(st.integers(0, 2**32))
def test_refreshes_in_time_double_until_the_cadence_and_keep_it(seed: int) -> None:
    """Doublings until one step of them spans the cadence; and each first pass of a multiple."""
    rand = random.Random(seed)
    pace = rand.choice([1, 30, 300, 3_000])
    watermark, watermarks = START_MS, []
    for _ in range(6_000):
        watermark += rand.randrange(pace + 1)
        watermarks.append(watermark)
    refresh_ms = rand.choice([1_000, 50_000, 1_000_000])
    clock = RefreshClock(refresh_ms)

    struck = [n for n, ms in enumerate(watermarks, 1) if clock.strikes(n, ms)]
    assert instants_of_time(watermarks, refresh_ms) == struck, f"seed {seed}"


def test_a_clock_that_forgets_its_period_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain re-statement notices a clock that strikes at the first example already."""
    strikes = RefreshClock.strikes

    def eager(self: RefreshClock, n: int, watermark: int) -> bool:
        self.period = max(self.period, 0)
        return strikes(self, n, watermark)

    monkeypatch.setattr(RefreshClock, "strikes", eager)
    watermarks = [START_MS + n for n in range(600)]
    clock = RefreshClock(50_000)
    struck = [n for n, ms in enumerate(watermarks, 1) if clock.strikes(n, ms)]
    assert instants_of_time(watermarks, 50_000) != struck


@given(st.integers(1, 9_000), st.integers(1, 9_000), st.integers(1, 2_000))
def test_a_change_brings_instants_soon_after_it(every: int, changed_at: int, cut: int) -> None:
    """100, 200, 400 ... after it until the cadence is reached, beside what is due."""
    clock = RefreshClock(None, every)
    struck, sooner = [], []
    for n in range(1, 12_001):
        if clock.strikes(n, n):
            struck.append(n)
            sooner += [n] if clock.is_sooner else []
        if n == changed_at:
            clock.hasten(n)
        if n == changed_at + cut:
            former, clock = clock, RefreshClock(None, every)
            clock.load(former.dump(), n)

    due = set(instants_counted(12_000, every))
    if changed_at < max(WARM_UP):  # the warm-up ends where another begins
        due = {n for n in due if n <= changed_at or n % every == 0}
    steps = [100 * 2**k for k in range(10) if 100 * 2**k < every]
    expected = {changed_at + step for step in steps if changed_at + step <= 12_000}
    assert sorted(due | expected) == struck
    assert sorted(expected - set(range(every, 12_001, every))) == sooner


# --- what -------------------------------------------------------------------------------------


def world(count: int, seed: int = 1, task: str = "binary") -> list[Record]:
    """Examples of a made-up truth."""
    rand = random.Random(seed)
    records = []
    for offset in range(count):
        x = {"a": rand.gauss(0, 1), "b": rand.gauss(5, 3)}
        score = x["a"] + 0.2 * x["b"] + rand.gauss(0, 1)
        label: Any = {"binary": score > 1, "regression": score}.get(task)
        if label is None:
            label = "low" if score < 0 else "mid" if score < 2 else "high"
        said = {"binary": 0.5, "regression": 0.0}.get(task, {"low": 0.2, "mid": 0.5, "high": 0.3})
        records.append(example(offset, label, x, said=said))
    return records


def published(outputs: list[Output], name: str) -> list[Snapshot]:
    """The snapshots of a line, read back from their bytes."""
    found = [snapshots.decode(record.value or b"") for record in written(outputs, "models")]
    return [snapshot for snapshot in found if snapshot.name == name]


def alerts(outputs: list[Output]) -> list[dict[str, Any]]:
    """What was alerted."""
    return [orjson.loads(output.value or b"") for output in outputs if output.topic == "alerts"]


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "binary": (
        bool,
        {
            "linear": preprocessing.StandardScaler()
            | linear_model.LogisticRegression(optim.AdaGrad(0.02)),
            "tree": tree.HoeffdingAdaptiveTreeClassifier(grace_period=50, seed=1),
            "bayes": naive_bayes.GaussianNB(),
        },
    ),
    "multiclass": (
        sml.Enum("low", "mid", "high"),
        {"linear": linear_model.SoftmaxRegression(), "bayes": naive_bayes.GaussianNB()},
    ),
    "regression": (
        float,
        {
            "linear": preprocessing.StandardScaler() | linear_model.LinearRegression(),
            "tree": tree.HoeffdingTreeRegressor(grace_period=50),
        },
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_after_n_examples_a_model_is_what_river_alone_would_be(task: str) -> None:
    """Opened from its snapshot, it predicts what river does after the same examples, to 1e-9."""
    type_, models = TASKS[task]
    pipeline = declare(
        label=sml.Label(type_, horizon="40s"),
        models=models,
        champion="linear",
        promotion=sml.Promotion(refresh=300),
    )
    records = world(600, task=task)
    outputs = Learn(pipeline, KEY).apply(records)

    for name, model in models.items():
        alone = model.clone()
        for record in records[:300]:
            members = orjson.loads(record.value or b"")
            alone.learn_one(members["features"], members["label"])
        at_300, at_600 = published(outputs, name)
        assert (f"{name}@300", f"{name}@600") == (at_300.model, at_600.model)
        learner = snapshots.open_snapshot(
            at_300, pipeline.recipes[name], pipeline.target, KEY, pipeline.feature_set.hash
        )
        ask = "predict_one" if task == "regression" else "predict_proba_one"
        for record in records[300:400]:
            features = orjson.loads(record.value or b"")["features"]
            expected, given_ = getattr(alone, ask)(features), getattr(learner, ask)(features)
            assert pytest.approx(expected, abs=1e-9) == given_


def test_refreshes_are_counted_in_examples_and_not_by_their_offsets() -> None:
    """Where offsets have gaps, as on a cluster, lines publish at the same examples."""
    dense, sparse = world(60), world(60)
    for record in sparse:
        record.offset *= 3

    expected, given_gaps = (
        published(Learn(shop, KEY).apply(records), "logistic") for records in (dense, sparse)
    )

    assert [20, 40, 60] == [snapshot.version for snapshot in given_gaps]
    assert [s.digest for s in expected] == [s.digest for s in given_gaps]
    assert [(0, 57), (0, 117), (0, 177)] == [
        (s.examples["first"], s.examples["last"]) for s in given_gaps
    ]


def test_a_snapshot_says_what_is_inside() -> None:
    """How many examples, from which offset to which, after which snapshot, how it fared."""
    records = world(60)
    first, second, third = published(Learn(shop, KEY).apply(records), "logistic")

    assert ["logistic@20", "logistic@40", "logistic@60"] == [
        s.model for s in (first, second, third)
    ]
    assert [None, "logistic@20", "logistic@40"] == [s.parent for s in (first, second, third)]
    assert {"count": 40, "first": 0, "last": 39} == second.examples
    assert 20 == second.epoch["n"]
    assert 0.25 == second.epoch["served_loss"]  # of one half, in Brier, whatever the truth
    assert orjson.loads(records[39].value or b"")["label_ts"] == second.epoch["watermark"]
    assert 8 == len(second.golden)


def test_the_live_loss_is_that_of_answers_given_before_learning() -> None:
    """Test, then train: the champion at every example, a challenger at every eighth."""
    records = world(60)
    outputs = Learn(shop, KEY).apply(records)

    for name, every in (("logistic", 1), ("bayes", LIVE_LOSS_EVERY)):
        alone = shop.models[name].clone()
        losses = []
        for n, record in enumerate(records[:20], 1):
            members = orjson.loads(record.value or b"")
            said = alone.predict_proba_one(members["features"]).get(True)
            if said is not None and n % every == 0:
                losses.append((said - members["label"]) ** 2)
            alone.learn_one(members["features"], members["label"])
        (snapshot, *_) = published(outputs, name)
        assert pytest.approx(sum(losses) / len(losses), abs=1e-12) == snapshot.epoch["live_loss"]


def test_a_learner_is_written_down_once_for_its_snapshot_and_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that has learned since is written down as it is now."""
    dump, dumped = Recipe.dump, list[str]()

    def spy(recipe: Recipe, learner: Any) -> bytes:
        dumped.append(recipe.name)
        return dump(recipe, learner)

    monkeypatch.setattr(Recipe, "dump", spy)
    learn, records = Learn(shop, KEY), world(25)
    learn.apply(records[:20])
    first = learn.dirty()
    assert ["bayes", "logistic"] == sorted(dumped)
    assert first == learn.dirty()
    learn.apply(records[20:])
    second = learn.dirty()

    assert 4 == len(dumped)
    assert dict(first)["lbayes"] != dict(second)["lbayes"]


# --- failure ----------------------------------------------------------------------------------


class Planted(Exception):  # noqa: N818 - it is one
    """What a user's estimator may raise."""


@pytest.mark.parametrize("method", ["learn_one", "predict_proba_one"])
def test_a_line_that_raises_is_quarantined_once_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """It is alerted, learns and publishes no more; the other line is what it would have been."""
    records = world(80)
    expected = published(Learn(shop, KEY).apply(records), "logistic")
    learn = Learn(shop, KEY)
    outputs = learn.apply(records[:30])

    def fail(*_: object) -> None:
        raise Planted

    monkeypatch.setattr(naive_bayes.GaussianNB, method, fail)
    outputs += learn.apply(records[30:])

    (alert,) = alerts(outputs)
    assert ("line_quarantined", "open", "line:bayes") == (
        alert["kind"],
        alert["state"],
        alert["subject"],
    )
    assert "Planted()" in alert["message"]
    assert ["bayes@20"] == [snapshot.model for snapshot in published(outputs, "bayes")]
    assert [s.digest for s in expected] == [s.digest for s in published(outputs, "logistic")]


class Panic(BaseException):
    """As Rust's panics come to Python: no `Exception`."""


class MumblingError(Exception):
    """Cannot even be printed."""

    def __repr__(self) -> str:
        raise RecursionError


ANYTHING = [
    SystemExit(1),
    Panic("x" * 10_000),
    RecursionError(),
    MemoryError(),
    MumblingError(),
    GeneratorExit(),
]


@pytest.mark.parametrize("raised", ANYTHING, ids=lambda raised: type(raised).__name__)
@pytest.mark.parametrize(
    "method", ["learn_one", "predict_proba_one", "__reduce_ex__", "__setstate__"]
)
def test_whatever_a_learner_raises_is_contained_in_its_line(
    monkeypatch: pytest.MonkeyPatch, method: str, raised: BaseException
) -> None:
    """While it learns, answers, is written down or read back: one alert, and the other goes on."""
    records = world(40)
    expected = published(Learn(shop, KEY).apply(records), "logistic")
    learn, other = Learn(shop, KEY), Learn(shop, KEY)
    outputs = learn.apply(records[:10])

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(naive_bayes.GaussianNB, method, fail, raising=False)
    outputs += learn.apply(records[10:])
    pieces = [(name, piece) for name, piece in learn.dirty() if piece is not None]
    other.restore(pieces)

    (alert,) = alerts(outputs)
    assert ("line_quarantined", "bayes") == (alert["kind"], alert["details"]["line"])
    assert len(alert["message"]) < 1_000
    assert [s.digest for s in expected] == [s.digest for s in published(outputs, "logistic")]


def test_an_interrupt_is_not_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of learning stops the process, and quarantines nothing."""
    learn = Learn(shop, KEY)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(naive_bayes.GaussianNB, "learn_one", interrupt)
    with pytest.raises(KeyboardInterrupt):
        learn.apply(world(1))
    assert {} == learn.quarantine_reasons


def quarantined(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """The state in which `bayes` has failed at example 11."""

    def fail(*_: object) -> None:
        raise Planted

    learn = Learn(shop, KEY)
    learn.apply(world(10))
    with monkeypatch.context() as patch:
        patch.setattr(naive_bayes.GaussianNB, "learn_one", fail)
        learn.apply(world(15)[10:])
    return [(name, piece) for name, piece in learn.dirty() if piece is not None]


def test_a_quarantined_line_says_why_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start too: until when it learned, what it raised, and the three ways out."""
    learn = Learn(shop, KEY)
    learn.restore(quarantined(monkeypatch))

    assert ["bayes"] == list(learn.quarantine_reasons)
    why = learn.quarantine_reasons["bayes"]
    assert "'bayes' learns no more after example 11: learning failed: Planted()" in why
    assert "declare another recipe" in why
    assert "`stream-ml restart bayes --reason ...`" in why
    assert "STREAM_ML_RESTART_LINES=bayes" in why


@pytest.mark.parametrize("way", ["recipe", "setting"])
def test_a_quarantined_line_starts_anew_when_it_is_repaired(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """With another recipe, or where the start says so: from nothing, under its name, and told."""
    state = quarantined(monkeypatch)
    bayes = naive_bayes.GaussianNB()
    repaired = declare(models={**shop.models, "bayes": preprocessing.StandardScaler() | bayes})
    learn = Learn(repaired, KEY) if way == "recipe" else Learn(shop, KEY, restart={"bayes"})
    learn.restore(state)
    assert learn.must_checkpoint()
    again = Learn(repaired if way == "recipe" else shop, KEY)
    again.restore([(name, piece) for name, piece in learn.dirty() if piece is not None])

    for stage in (learn, again):
        outputs = stage.apply(world(60)[15:])
        (alert,) = alerts(outputs)
        assert ("line_quarantined", "resolved", "line:bayes") == (
            alert["kind"],
            alert["state"],
            alert["subject"],
        )
        assert "the line 'bayes' starts anew, from nothing" in alert["message"]
        assert {} == stage.quarantine_reasons
        first, *_ = published(outputs, "bayes")
        assert ("bayes@20", None) == (first.model, first.parent)
        assert {"count": 5, "first": 15, "last": 19} == first.examples


def test_a_line_that_is_well_is_not_restarted() -> None:
    """The setting that restarts a line does nothing to one that still learns."""
    learn = Learn(shop, KEY)
    learn.apply(world(10))
    state = [(name, piece) for name, piece in learn.dirty() if piece is not None]
    expected = published(learn.apply(world(20)[10:]), "bayes")

    other = Learn(shop, KEY, restart={"bayes", "nobody"})
    other.restore(state)
    assert [s.digest for s in expected] == [
        s.digest for s in published(other.apply(world(20)[10:]), "bayes")
    ]


def test_snapshots_that_cost_more_than_learning_are_told_of_once() -> None:
    """A large learner that is renewed after each few examples is alerted, with the figures."""
    pipeline = declare(
        champion="large",
        models={"large": neighbors.KNNClassifier(engine=neighbors.LazySearch(window_size=3_000))},
        promotion=sml.Promotion(refresh=1),
    )
    learn = Learn(pipeline, KEY)
    outputs = learn.apply(world(700))
    (alert,) = alerts(outputs)

    assert "snapshot_dear" == alert["kind"]
    assert alert["details"]["bytes"] > 16 * 1024 * alert["details"]["since"]
    assert "a longer `refresh`" in alert["message"]


def test_a_line_that_outgrows_a_snapshot_is_quarantined_with_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others publish at the same instant; a later checkpoint of them can be written."""
    learn = Learn(shop, KEY)
    learn.start()
    take = snapshots.take

    def limited(learner: Any, recipe: Recipe, *arguments: Any, **options: Any) -> Snapshot:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snapshots, "SNAPSHOT_BYTES_MAX", 100 if recipe.name == "bayes" else 2**24)
            return take(learner, recipe, *arguments, **options)

    monkeypatch.setattr("stream_ml.stages.learn.take", limited)
    outputs = learn.apply(world(40))

    (alert,) = alerts(outputs)
    assert "expected a snapshot of at most 100 bytes, given bayes@20 with" in alert["message"]
    assert [] == published(outputs, "bayes")
    assert 2 == len(published(outputs, "logistic"))


class Unpicklable:
    """What no snapshot can hold."""


def spoil_bayes(learn: Learn, extra: Any = None) -> None:
    """Let the learner of a challenger hold what nothing may."""
    learn._lines["bayes"].learner.extra = extra or Unpicklable()


def test_a_quarantined_line_does_not_stop_checkpoints() -> None:
    """What cannot be in a snapshot cannot be in a checkpoint either: the others' is written."""
    learn = Learn(shop, KEY)
    learn.apply(world(10))
    spoil_bayes(learn)
    outputs = learn.apply(world(40)[10:])
    assert ["bayes"] == [alert["details"]["line"] for alert in alerts(outputs)]

    pieces = learn.dirty()

    other = Learn(shop, KEY)
    other.restore([(name, piece) for name, piece in pieces if piece is not None])
    more = world(80)[40:]
    expected = published(learn.apply(more), "logistic")
    assert [s.digest for s in expected] == [
        s.digest for s in published(other.apply(more), "logistic")
    ]
    assert [] == published(other.apply(world(120)[80:]), "bayes")


@pytest.mark.parametrize("extra", [Unpicklable(), lambda: None], ids=["unreadable", "unwritable"])
def test_a_line_that_cannot_be_written_down_does_not_stop_the_others(extra: Any) -> None:
    """Found at a checkpoint or after it, it is quarantined, and alerted when next can be."""
    learn = Learn(shop, KEY)
    learn.apply(world(10))
    spoil_bayes(learn, extra)

    pieces = [(name, piece) for name, piece in learn.dirty() if piece is not None]

    other = Learn(shop, KEY)
    other.restore(pieces)
    for stage in (learn, other):
        outputs = stage.apply(world(20)[10:])
        assert ["bayes"] == [alert["details"]["line"] for alert in alerts(outputs)]
        assert ["logistic@20"] == [s.model for s in published(outputs, "logistic")]


def test_an_alert_is_not_raised_again_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written asks for a checkpoint, so that it is not written a second time."""
    learn = Learn(shop, KEY)
    learn.start()
    learn.dirty()
    assert not learn.must_checkpoint()

    def fail(*_: object) -> None:
        raise Planted

    monkeypatch.setattr(naive_bayes.GaussianNB, "learn_one", fail)
    outputs = learn.apply(world(1))

    assert ["line_quarantined"] == [alert["kind"] for alert in alerts(outputs)]
    assert learn.must_checkpoint()


def test_a_bad_example_is_left_to_evaluate() -> None:
    """One bad record, one dead letter: of the two stages that read examples, one writes it."""
    bad = world(1)[0]
    bad.value = b"{"

    assert [] == Learn(shop, KEY).apply([bad])


# --- state ------------------------------------------------------------------------------------


def test_checkpoints_are_due_when_published_and_every_so_many_examples() -> None:
    """What a crash costs is bounded; between checkpoints nothing is written."""
    pipeline = declare(promotion=sml.Promotion(refresh=1_000))
    learn = Learn(pipeline, KEY, checkpoint_examples=64)
    records = world(600)
    learn.start()
    due = []
    for n, record in enumerate(records, 1):
        learn.apply([record])
        if learn.must_checkpoint():
            due.append(n)
            learn.dirty()

    assert [1, 65, 129, 193, 257, 321, 385, 449, 500, 564] == due


def test_state_written_and_taken_up_learns_on_alike() -> None:
    """Restored at any point, the stage publishes the very snapshots that it would have."""
    records = world(120)
    expected = Learn(shop, KEY).apply(records)
    learn, outputs = Learn(shop, KEY), list[Any]()
    for cut in range(0, 120, 30):
        outputs += learn.apply(records[cut : cut + 30])
        pieces = [(name, piece) for name, piece in learn.dirty() if piece is not None]
        learn = Learn(shop, KEY)
        learn.restore(pieces)

    def canonical(outputs: list[Output]) -> list[Any]:
        both = published(outputs, "logistic") + published(outputs, "bayes")
        return [(s.model, s.digest, s.parent, s.epoch, s.examples, s.golden) for s in both]

    assert canonical(expected) == canonical(outputs)


def test_an_example_that_was_answered_with_nothing_is_refused() -> None:
    """Only a fallback may be no answer: such an example stops nobody, and evaluate refuses it."""
    record = example(0, True, {"amount": 1.0}, said=None)
    record.memo = None

    assert [] == Learn(shop, KEY).apply([record])
    (output,) = Evaluate(shop, Keyring(KEY, {})).apply([record])
    letter = orjson.loads(output.value or b"")
    assert ("malformed", "$.prediction") == (letter["reason"], letter["path"])
