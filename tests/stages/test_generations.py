"""Features that are declared on a running log: what was there before them is learned with them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import linear_model, preprocessing, tree

import stream_ml as sml
from stream_ml.errors import StreamMLError, UsageError
from stream_ml.models.envelope import decode
from stream_ml.records import Command, Record
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.forget import append_markers, erasures_of
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.shell.views.reproduce import reproduce, sample
from stream_ml.shell.views.what_if import what_if
from stream_ml.stages.backfill import Vectors
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.testing import CRASH, Crash, Driver
from tests.shop import KEY, START_MS, declare, stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline

EVENTS = 900
WHY = "orders say more"
LINES = ("tree", "tree.2")
DRIVER_KEY = b"testing"
DAY_MS = 86_400_000
END_MS = START_MS + 500 * (EVENTS // 2 + 200)
models: dict[str, Any] = {
    "logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    "tree": tree.HoeffdingTreeClassifier(grace_period=20, max_depth=3),
}
former = declare(models=models)
added = [
    sml.window("20s").count(kind="order"),
    sml.window("2m").mean("amount", fill=0.0),
    sml.session("4s").count(),
    sml.calendar("hour", "Asia/Kolkata", previous=True).sum("amount"),
    sml.last_events(5).median("amount", fill=0.0),
    sml.log("amount"),
]
wider = declare(models=models, features=[*former.features[:1], *added, *former.features[1:]])


def halves() -> Iterator[tuple[list[Any], list[Any]]]:
    """The events before features are added and those after, each with their labels."""
    events, labels = stream(count=EVENTS)
    end = events[EVENTS // 2]["ts"]
    yield events[: EVENTS // 2], [label for label in labels if label["ts"] <= end]
    yield events[EVENTS // 2 :], [label for label in labels if label["ts"] > end]


def snapshots(driver: Driver, line: str) -> dict[int, Any]:
    """What a line has published, by version."""
    found = [decode(record.value) for record in driver.records("models") if record.value]
    return {snapshot.version: snapshot for snapshot in found if snapshot.name == line}


def published(driver: Driver) -> list[dict[str, Any]]:
    """All of what lines have published but the bytes of learners, of which there is the digest."""
    found = [orjson.loads(record.value) for record in driver.records("models") if record.value]
    return [
        {name: each[name] for name in each if name not in {"payload", "signature"}}
        for each in found
    ]


def applied(later: Pipeline = wider, *, seed: int | None = None, crash: bool = False) -> Driver:
    """A log on which features were added half way."""
    (first, first_labels), (second, second_labels) = halves()
    driver = Driver(former, seed=seed)
    driver.feed(first, first_labels)
    driver.declare(later, apply=WHY)
    driver.feed([*second[:100], *([CRASH] if crash else []), *second[100:]], second_labels)
    return driver


@pytest.fixture(scope="module")
def quiet() -> Iterator[Driver]:
    """A log on which features were added half way, with no crash."""
    with applied() as driver:
        yield driver


@pytest.fixture(scope="module")
def from_the_start() -> Iterator[Driver]:
    """A log on which all features were there from the start."""
    with Driver(wider) as driver:
        for events, labels in halves():
            driver.feed(events, labels)
        yield driver


def test_later_features_equal_those_of_a_log_that_had_them_from_the_start(
    from_the_start: Driver, quiet: Driver
) -> None:
    """Every vector, to the last bit; and no event has two predictions, or none."""
    predictions = quiet.read("predictions")
    expected = from_the_start.read("predictions")

    assert [each["event_id"] for each in expected] == [each["event_id"] for each in predictions]
    vectors = [list(each["features"].items()) for each in predictions]
    wide = [len(vector) for vector in vectors].index(len(wider.feature_set.names))
    assert 0 < wide < len(vectors)
    assert [list(each["features"].items()) for each in expected][wide:] == vectors[wide:]


def test_new_lines_equal_those_that_had_the_features_from_the_start(
    from_the_start: Driver, quiet: Driver
) -> None:
    """By digest, from their first snapshot on: the recorded past is learned with them."""
    for line in models:
        late, always = snapshots(quiet, f"{line}.2"), snapshots(from_the_start, line)
        assert len(late) > 3
        assert {v: always[v].digest for v in late} == {v: s.digest for v, s in late.items()}
        assert [*late] == [s.examples["count"] for s in late.values()]


def test_what_serves_goes_on_as_if_nothing_had_been_added(quiet: Driver) -> None:
    """Its line learns on with the features that it knows, to the same digests; it still serves."""
    with Driver(former) as unchanged:
        for events, labels in halves():
            unchanged.feed(events, labels)
        expected = snapshots(unchanged, "logistic")
        answers = [(each["model"], each["prediction"]) for each in unchanged.read("predictions")]

    actual = snapshots(quiet, "logistic")
    assert {v: s.digest for v, s in expected.items()} == {v: s.digest for v, s in actual.items()}
    assert answers == [(each["model"], each["prediction"]) for each in quiet.read("predictions")]


def test_a_signed_decision_says_what_was_applied(quiet: Driver) -> None:
    """Why, which lines begin, what goes on with what it knows, and from which offset on."""
    [decision] = [each for each in quiet.read("registry") if each["kind"] == "applied"]

    assert WHY == decision["reason"]
    assert {
        "generation": 2,
        "hash": wider.feature_set.hash,
        "lines": {"logistic": "logistic.2", "tree": "tree.2"},
        "former": [
            {
                "line": "logistic",
                "declared": "logistic",
                "features": [*former.feature_set.names],
            }
        ],
        "features": [[*former.feature_set.names]],
        "offsets": {"0": EVENTS // 2},
    } == decision["evidence"]
    assert ["declaration_changed"] == [alert["kind"] for alert in quiet.read("alerts")]


@pytest.mark.parametrize("seed", range(3))
def test_what_comes_out_hangs_on_no_batch_and_no_crash(quiet: Driver, seed: int) -> None:
    """Random batches, redelivery and a death in between: the same models and predictions."""
    with applied(seed=seed, crash=True) as crashed:
        assert published(quiet) == published(crashed)
        for topic in ("predictions", "examples"):
            expected = [record.value for record in quiet.records(topic)]
            assert expected == [record.value for record in crashed.records(topic)]


def test_a_worker_may_die_at_any_step_of_it(quiet: Driver) -> None:
    """Then nothing was changed, or all was: the next one comes to the same."""
    (first, first_labels), (second, second_labels) = halves()
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        driver.declare(wider, apply=WHY)
        deaths = 0
        while died_at_start(driver, deaths):
            deaths += 1
        driver.feed(second, second_labels)
        actual = published(driver)

    assert deaths > 2
    assert published(quiet) == actual


@pytest.mark.parametrize("later", [wider, declare(models={"logistic": models["logistic"]})])
def test_what_waits_for_its_first_label_is_judged_after_a_change(later: Pipeline) -> None:
    """Predictions that name a line of before are no bad records, though it was never scored."""
    (first, first_labels), (second, second_labels) = halves()
    with Driver(former) as driver:
        driver.feed(first[:60], [])
        driver.declare(later, apply=WHY if later is wider else None)
        driver.feed(first[60:], first_labels)
        driver.feed(second, second_labels)

        assert [] == driver.read("dead-letters")
        assert len(driver.read("examples")) == driver.runner.evaluate.counts["examples"] > 500


def test_what_named_a_line_is_judged_when_its_label_comes_after_the_next_refresh() -> None:
    """A line that came, shadowed and was taken out before its first label makes no bad records."""
    events, labels = stream(count=240)
    ids = [{each["event_id"] for each in events[n : n + 80]} for n in (0, 80, 160)]
    early, middle, late = ([each for each in labels if each["event_id"] in part] for part in ids)
    alone = declare(models={"logistic": models["logistic"]})
    patient = {"label": replace(former.label, horizon="1h")}
    with Driver(replace(alone, **patient)) as driver:
        driver.feed(events[:160], [])
        driver.declare(replace(former, **patient))
        driver.feed([], early)
        driver.feed(events[160:], [])
        driver.declare(replace(alone, **patient))
        driver.feed([], middle)
        before = driver.read("registry")[-1]["serving"]["challengers"]
        driver.feed([], late)

        named = [each for each in driver.read("predictions") if "tree" in each["shadows"]]
        assert named
        assert {} == before
        assert [] == driver.read("dead-letters")
        assert len(labels) == driver.runner.evaluate.counts["examples"]


def died_at_start(driver: Driver, steps: int) -> bool:
    """Whether a worker that dies after so many steps does so while it takes its place."""
    left = iter(range(steps))

    def step(_: str) -> None:
        if next(left, None) is None:
            raise Crash

    try:
        Runner(driver.log, wider, b"testing", apply=WHY, step=step).close()
    except Crash:
        return True
    return False


@pytest.mark.parametrize("seed", range(5))
def test_features_made_again_know_nothing_of_later_events(seed: int) -> None:
    """Whatever comes after an event, the features it would have been served with are the same."""
    events, _ = stream(seed, count=120)
    cut = 60 + seed
    changed = [{**each, "amount": 1e9, "kind": "order"} for each in events]
    asking = [n for n, each in enumerate(events[:cut]) if each["kind"] == "visit"]

    expected = vectors(events, asking)
    assert expected == vectors([*events[:cut], *changed[cut:]], asking)
    late = [n for n in asking if n > cut // 2]
    assert expected[-len(late) :] != vectors([*changed[: cut // 2], *events[cut // 2 :]], late)


def vectors(events: list[dict[str, Any]], offsets: list[int]) -> list[Any]:
    """The features of some events, made again from all of them."""
    records = [
        Record("events", 0, n, None, orjson.dumps(each), 2**42) for n, each in enumerate(events)
    ]
    serving = Serving(wider, KEY)
    made = Vectors(
        lambda: Predict(wider, serving), lambda offset, end: [records[offset:end]], keep_ms=1_000
    )
    # The last first: all others were let go by then, and are made again.
    last = made.take(offsets[-1:], newest_ms=2**41)
    found = [*(made.take([n], newest_ms=2**41)[n] for n in offsets[:-1]), *last.values()]
    assert None not in found
    return found


def test_it_is_taken_back_before_a_switch() -> None:
    """The declaration of before is applied again: as if nothing had been, but for other lines."""
    (first, first_labels), (second, second_labels) = halves()
    with Driver(former) as driver, Driver(former) as unchanged:
        for each in (driver, unchanged):
            each.feed(first, first_labels)
        driver.declare(wider, apply=WHY)
        driver.feed(second[:100], [])
        driver.declare(former, apply="it was too dear")
        for each, rest in ((driver, second[100:]), (unchanged, second)):
            each.feed(rest, second_labels)
        names = [*driver.read("predictions")[-1]["features"]]
        line = snapshots(driver, "logistic"), snapshots(unchanged, "logistic")
        again = snapshots(driver, "tree.3")
        always = snapshots(unchanged, "tree")

    assert [*former.feature_set.names] == names
    assert {v: s.digest for v, s in line[1].items()} == {v: s.digest for v, s in line[0].items()}
    assert len(again) > 3
    assert {v: always[v].digest for v in again} == {v: s.digest for v, s in again.items()}


def test_a_new_line_is_promoted_and_rolled_back() -> None:
    """It serves with all features; the former champion challenges, and can be returned to."""
    events, _ = stream(seed=3, count=200)
    more = [
        {**each, "event_id": f"m{each['event_id']}", "ts": each["ts"] + 450_000} for each in events
    ]
    with applied() as driver:
        driver.command("promote", model="logistic.2", expect="logistic")
        driver.feed(more[:100], [])
        promoted = driver.read("predictions")[-1]
        driver.command("rollback", expect="logistic.2")
        driver.feed(more[100:], [])
        returned = driver.read("predictions")[-1]
        answers = [
            each["evidence"] or each["reason"]
            for each in driver.read("registry")
            if each["command_id"] is not None
        ]
        driver.runner.commit(checkpoint=True)
        made_again = reproduce(driver.log, wider, b"testing", sample(driver.log, 200, 1))

    assert ["logistic.2", "logistic"] == [
        each["model"].partition("@")[0] for each in (promoted, returned)
    ], answers
    assert {"logistic", "tree.2"} == promoted["shadows"].keys() - {"predecessor", "first"}
    assert len(made_again.answers) > 300
    assert [] == made_again.different
    assert {} == made_again.refused


def test_other_features_are_refused_where_nobody_applies_them() -> None:
    """A start says the way out, and changes nothing."""
    (first, first_labels), _ = halves()
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        driver.declare(wider)
        with pytest.raises(UsageError, match=r"features\.log\(amount\).*`stream-ml apply`"):
            driver.run()


def test_a_feature_that_serves_is_not_taken_out() -> None:
    """What serves knows it: it has to be declared until another line serves."""
    (first, first_labels), _ = halves()
    fewer = declare(models=models, features=[*added, *former.features[1:]])
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        driver.declare(fewer, apply=WHY)
        with pytest.raises(UsageError, match=r"'logistic'.*without amount"):
            driver.run()


def test_a_window_is_changed_and_the_old_one_taken_out() -> None:
    """It is retired until a line without it serves; nothing begins anew when it goes."""
    (first, first_labels), (second, second_labels) = halves()
    old, kept = former.features[2], former.features[:2]
    features = [*kept, sml.window("45s").mean("amount", fill=0.0)]
    changed = declare(models=models, features=features, retired=[old])
    final = declare(models=models, features=features)
    with Driver(former) as driver, Driver(final) as always:
        for events, labels in ((first, first_labels), (second, second_labels)):
            always.feed(events, labels)
        driver.feed(first, first_labels)
        driver.declare(changed, apply="too short")
        driver.feed(second[:200], [each for each in second_labels if each["ts"] < END_MS])
        driver.command("promote", model="logistic.2", expect="logistic")
        driver.run()
        driver.declare(final, apply="nobody serves with it any more")
        driver.feed(second[200:], [each for each in second_labels if each["ts"] >= END_MS])
        newest = driver.read("predictions")[-1], always.read("predictions")[-1]
        lines = {line: snapshots(driver, line) for line in ("logistic", "logistic.2", "tree.2")}
        expected = {line: snapshots(always, line) for line in models}
        registry = driver.read("registry")

    assert newest[0]["features"] == newest[1]["features"]
    assert newest[0]["model"].partition("@")[0] == "logistic.2"
    for line in models:
        late = lines[f"{line}.2"]
        assert max(late) == max(expected[line])
        assert {v: expected[line][v].digest for v in late} == {v: s.digest for v, s in late.items()}
    assert max(lines["logistic"]) < max(lines["logistic.2"])
    assert [2, 3] == [d["evidence"]["generation"] for d in registry if d["kind"] == "applied"]


def test_a_feature_is_made_again_where_another_was_logged_under_its_name(
    from_the_start: Driver,
) -> None:
    """It is redefined while an older line serves: what begins then learns no former values."""
    (first, first_labels), (second, second_labels) = halves()
    name = next(n for n in wider.feature_set.names if n not in former.feature_set.names)
    size = sml.window("20s").count(kind="visit").named(name)
    other = replace(wider, features=[size if each is added[0] else each for each in wider.features])
    with Driver(former) as driver:
        driver.feed(first[:200], [])
        driver.declare(other, apply="a first try")
        driver.feed(first[200:], first_labels)
        driver.declare(wider, apply=WHY)
        driver.feed(second, second_labels)
        late, always = snapshots(driver, "tree.3"), snapshots(from_the_start, "tree")

    assert len(late) > 3
    assert {v: always[v].digest for v in late} == {v: s.digest for v, s in late.items()}


def test_what_serves_keeps_its_recipe() -> None:
    """Its estimator is asked and taught until another line serves."""
    (first, first_labels), _ = halves()
    other = replace(wider, models={**models, "logistic": linear_model.LogisticRegression()})
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        driver.declare(other, apply=WHY)
        with pytest.raises(UsageError, match=r"models\.logistic.*which serves"):
            driver.run()


def test_recipes_are_not_changed_with_what_is_retired_alone() -> None:
    """No line begins anew then, and none goes on under the name of another recipe."""
    (first, first_labels), _ = halves()
    retired = {"retired": [sml.window("40s").count(kind="order")]}
    other = {**models, "tree": tree.HoeffdingTreeClassifier(grace_period=50, max_depth=1)}
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        driver.declare(declare(models=other, **retired), apply=WHY)
        with pytest.raises(UsageError, match=r"models\.tree: expected.*recipes by themselves"):
            driver.run()
        driver.declare(declare(models=models, **retired), apply=WHY)
        driver.run()

        assert ["applied"] == [each["kind"] for each in driver.read("registry")][-1:]


@pytest.mark.parametrize("line", ["logistic", "logistic.2", "tree.2", "tree"])
def test_versions_are_learned_again_with_what_they_know(quiet: Driver, line: str) -> None:
    """Of what serves, of lines that began anew, and of those that learn no more since."""
    model = f"{line}@{max(snapshots(quiet, line))}"
    view = rebuild(quiet.log, wider, b"testing", model)

    assert (True, None, None) == (view.equal, view.refused, view.failure)
    assert view.examples > 200


def test_a_line_that_learns_no_more_is_learned_again_as_it_was_declared(quiet: Driver) -> None:
    """The declaration of before makes it again too; one without its recipe is named as that."""
    model = f"tree@{max(snapshots(quiet, 'tree'))}"
    view = rebuild(quiet.log, former, b"testing", model)
    other = replace(wider, models={"logistic": models["logistic"]})
    with pytest.raises(UsageError, match="expected a declared line 'tree', given logistic; name"):
        rebuild(quiet.log, other, b"testing", model)

    assert (True, None, None) == (view.equal, view.refused, view.failure)


def test_features_are_made_again_without_what_was_forgotten_meanwhile() -> None:
    """Windows that a marker has emptied are empty to rebuild and what-if as they were to lines."""
    (first, first_labels), (second, second_labels) = halves()
    half_ms = first[len(first) // 2]["ts"]
    with Driver(former) as driver:
        driver.feed(
            *([each for each in some if each["ts"] < half_ms] for some in (first, first_labels))
        )
        command = Command("c", "forget", driver.now_ms, "local", "ana", "asked for")
        erasures = erasures_of(driver.log, former, DRIVER_KEY)
        append_markers(driver.log, former, erasures, "a", command)
        driver.feed(
            *([each for each in some if each["ts"] >= half_ms] for some in (first, first_labels))
        )
        driver.declare(wider, apply=WHY)
        driver.feed(second, second_labels)
        driver.crash()
        model = f"logistic.2@{max(snapshots(driver, 'logistic.2'))}"
        view = rebuild(driver.log, wider, DRIVER_KEY, model)
        recipe = {"logistic.2": models["logistic"]}
        [candidate] = what_if(driver.log, wider, DRIVER_KEY, recipe).candidates
        [unaware] = what_if(driver.log, wider, None, recipe).candidates

    assert view.equal, view.as_dict()
    assert candidate.recorded is not None
    assert unaware.recorded is not None
    assert 200 < candidate.recorded.answers == candidate.recorded.answers_equal
    assert unaware.recorded.answers > unaware.recorded.answers_equal


def test_features_are_not_made_of_what_retention_has_left() -> None:
    """Windows would lack their beginning: examples without features are passed over, and told.

    By a line that comes late, by who learns it again, and by who asks what a recipe would have
    done; each of the others stays beside what served.
    """
    (first, first_labels), (second, second_labels) = halves()
    recipes = {"tree.2": models["tree"], "other": models["tree"]}
    later = replace(wider, models={**models, "late": models["tree"]})
    with Driver(former) as driver:
        driver.publish("events", first[:200])
        driver.run()
        driver.now_ms += 200 * DAY_MS
        driver.feed(first[200:], first_labels)
        driver.declare(wider, apply=WHY)
        driver.feed(second[:200], second_labels)
        driver.crash()
        before = what_if(driver.log, wider, DRIVER_KEY, recipes)
        driver.now_ms += 200 * DAY_MS
        while driver.log.expire(driver.now_ms):
            pass
        begins = [driver.log.first_offset(topic, 0) for topic in ("events", "examples")]
        after = what_if(driver.log, wider, DRIVER_KEY, recipes)
        model = f"tree.2@{max(snapshots(driver, 'tree.2'))}"
        with pytest.raises(StreamMLError) as refusal:
            rebuild(driver.log, wider, DRIVER_KEY, model)
        driver.declare(later)
        driver.feed(second[200:], [])
        late = snapshots(driver, "late")
        view = rebuild(driver.log, later, DRIVER_KEY, f"late@{max(late)}")

    assert [200, 0] == begins
    assert (0, 0) == (before.missed, after.examples + after.missed - before.examples)
    assert 200 < after.missed < before.examples
    assert before.scored == after.scored
    # Whatever is passed over, each prediction is compared with its own.
    answers = [
        [each.recorded and each.recorded.answers for each in v.candidates] for v in (before, after)
    ]
    assert answers[0] == answers[1]
    assert f"of {after.missed:,} the features that were declared since cannot be made again" in str(
        refusal.value
    )
    assert [version - after.missed for version in late] == [
        snapshot.examples["count"] for snapshot in late.values()
    ]
    assert view.equal, view.as_dict()


def test_lines_are_added_and_recipes_changed_with_the_features(from_the_start: Driver) -> None:
    """All of them begin anew; of a changed recipe no snapshot has the name of the one before."""
    more = replace(
        wider,
        models={
            "logistic": models["logistic"],
            "tree": tree.HoeffdingTreeClassifier(grace_period=10, max_depth=2),
            "second": models["tree"],
        },
    )
    with applied(more) as driver:
        second, always = snapshots(driver, "second.2"), snapshots(from_the_start, "tree")
        recipes = {line: {s.recipe for s in snapshots(driver, line).values()} for line in LINES}

    assert len(second) > 3
    assert {v: always[v].digest for v in second} == {v: s.digest for v, s in second.items()}
    assert {
        "tree": {wider.recipes["tree"].description},
        "tree.2": {more.recipes["tree"].description},
    } == recipes
