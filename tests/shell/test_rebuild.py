"""A version learned again: the same digest and the same golden predictions, or what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cli_toy import TOY
from rebuild_worlds import DRIVER_KEY, WORLDS, snapshots

import stream_ml as sml
from stream_ml import Learner, Retrained
from stream_ml.errors import StreamMLError, UsageError
from stream_ml.models import snapshot as snapshot_module
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.stages.restarts import restart_evidence
from stream_ml.testing import Driver
from tests.shop import declare, stream
from tests.stages.test_latecomers import declared_late, halves, whole
from tests.trainers import Bag

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from conftest import Cli

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.views.rebuild import RebuildView

DAY_MS = 86_400_000


def again(driver: Driver, pipeline: Pipeline, model: str) -> RebuildView:
    """A version of a driver's log, learned again."""
    return rebuild(driver.log, pipeline, DRIVER_KEY, model)


@pytest.mark.parametrize("name", WORLDS)
def test_every_version_of_the_bundled_examples_is_learned_again(name: str) -> None:
    """Each line's every version that is on the log, retrained ones too: to the same learner."""
    pipeline, events, labels = WORLDS[name]()
    with Driver(pipeline) as driver:
        driver.feed(events, labels)
        published = snapshots(driver)
        newest = {each.name: each for each in published}
        views = [again(driver, pipeline, each.model) for each in published]

    assert set(pipeline.models) == set(newest)
    assert all(each.version >= 500 for each in newest.values())
    assert [] == [view.as_dict() for view in views if not view.equal]
    assert all(len(view.golden) == 8 for view in views if view.examples)
    assert [] == [view for view in views if view.refused or view.failure or view.notes]


def test_a_line_that_came_late_is_learned_again() -> None:
    """What it was taught of the past, and what came then, each example once."""
    with declared_late(whole) as driver:
        views = [again(driver, whole, e.model) for e in snapshots(driver) if e.name == "late"]

    assert len(views) > 3
    assert [] == [view.as_dict() for view in views if not view.equal]


def test_a_model_of_rows_is_learned_again_where_columns_are_hashed() -> None:
    """Its window has each column, and 0 where that is absent, as when it was trained."""
    pipeline = declare(
        features=[*declare().features, sml.cross("kind", sml.bucketed("amount", (5, 10)), width=8)],
        models={**declare().models, "bag": Retrained(Bag(), 40)},
    )
    with Driver(pipeline) as driver:
        driver.feed(*stream(count=200))
        published = [each for each in snapshots(driver) if each.name == "bag"]
        views = [again(driver, pipeline, each.model) for each in published]

    assert any("trained" in each.epoch for each in published)
    assert [] == [view.as_dict() for view in views if not view.equal]


def _restarts(driver: Driver, pipeline: Pipeline) -> None:
    """Events and labels, while an operator starts every challenger anew, again and again."""
    events, labels = stream(count=600)
    begin_ms = -1
    # Twice before another refresh, and once after some.
    for first, last in ((0, 200), (200, 212), (212, 400), (400, 600)):
        end_ms = events[last - 1]["ts"]
        known = [label for label in labels if begin_ms < label["ts"] <= end_ms]
        driver.feed(events[first:last], known)
        begin_ms = end_ms
        for line in pipeline.models if last < 600 else ():
            if line != pipeline.champion:
                driver.command("restart", command_id=f"{line}-{last}", model=line)
        driver.run()


def test_a_line_that_was_started_anew_is_learned_again() -> None:
    """Its snapshots say what they have learned since, and where that begins."""
    pipeline = declare(models={**declare().models, "bag": Retrained(Bag(), 40)})
    with Driver(pipeline) as driver:
        _restarts(driver, pipeline)
        published = [each for each in snapshots(driver) if each.name != pipeline.champion]
        views = [again(driver, pipeline, each.model) for each in published]

    since = [each for each in published if "restarted" in each.epoch]
    assert 4 == len(since)
    assert all(each.parent is None and each.examples["count"] < each.version for each in since)
    assert all(each.examples["first"] > 50 for each in since)
    assert [] == [view.as_dict() for view in views if not view.equal]


def test_a_line_that_went_on_from_a_good_snapshot_is_learned_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What that one had learned, and then what came since, however often it went on from it."""
    promotion = replace(declare().promotion, on_failure="restore")
    pipeline = declare(
        promotion=promotion, models={**declare().models, "bag": Retrained(Bag(), 40)}
    )
    with Driver(pipeline) as driver:

        def from_what_serves(line: str, *_: object) -> dict[str, Any]:
            serving = driver.read("registry")[-1]["serving"]["challengers"]
            return restart_evidence(line, model=serving[line]["model"])

        monkeypatch.setattr("stream_ml.stages.decisions.restart_evidence", from_what_serves)
        _restarts(driver, pipeline)
        published = [each for each in snapshots(driver) if each.name != pipeline.champion]
        views = [again(driver, pipeline, each.model) for each in published]

    since = [each for each in published if "restarted" in each.epoch]
    assert 4 == len([each for each in since if each.parent is not None])
    assert all(each.examples["first"] == 0 for each in since)
    assert all(60 < each.examples["count"] < each.version for each in since)
    assert [] == [view.as_dict() for view in views if not view.equal]


def test_what_a_former_release_wrote_of_a_restart_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not write after which example: nothing is proved, and the decision is named."""
    monkeypatch.setattr("stream_ml.stages.lines.LiveLine.begin", lambda *_: None)
    pipeline = declare()
    with Driver(pipeline) as driver:
        _restarts(driver, pipeline)
        newest = [each for each in snapshots(driver) if each.name != pipeline.champion][-1]
        view = again(driver, pipeline, newest.model)

    assert not view.equal
    assert "a former release did not write after which example" in " ".join(view.notes)


class Step(Learner):
    """Counts labels, by a step that is no parameter."""

    step = 1.0

    def __init__(self) -> None:
        self.total = 0.0

    def predict_one(self, features: Mapping[str, float]) -> float:
        """A share of what was counted."""
        return min(1.0, abs(self.total) / 1e4 + 0.0 * len(features))

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:
        """Count."""
        self.total += self.step * float(label) + 0.0 * len(features)

    def dump(self) -> bytes:
        """The sum."""
        return repr(self.total).encode()

    def load(self, data: bytes) -> None:
        """The sum."""
        self.total = float(data)


def test_a_learner_that_has_changed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the code learns otherwise under the same name, digest and answers tell, with both."""
    pipeline = declare(models={**declare().models, "step": Step()})
    with Driver(pipeline) as driver:
        driver.feed(*stream(200))
        newest = [each for each in snapshots(driver) if each.name == "step"][-1]
        same = again(driver, pipeline, newest.model)
        monkeypatch.setattr(Step, "step", 2.0)
        other = again(driver, pipeline, newest.model)

    assert (True, newest.examples["count"]) == (same.equal, same.examples)
    assert not other.equal
    assert other.digest_again not in {None, other.digest}
    assert {False} == {each.equal for each in other.golden}


def test_under_another_release_of_river_it_is_compared_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The snapshot is refused unread, and that is said; what is learned again is the same."""
    pipeline = declare()
    with Driver(pipeline) as driver:
        driver.feed(*stream(200))
        newest = snapshots(driver)[-1]
        monkeypatch.setattr(snapshot_module, "RIVER_VERSION", "9.9.9")
        view = again(driver, pipeline, newest.model)

    assert view.equal
    assert view.refused is not None
    assert "expected river 9.9.9" in view.refused


def test_what_retention_has_taken_is_said() -> None:
    """Nothing is learned of half a past; of a retrained line the window is enough."""
    pipeline = replace(whole, models={**whole.models, "bag": Retrained(Bag(), 30)})
    (first, first_labels), (second, second_labels) = halves()
    with Driver(pipeline) as driver:
        driver.feed(first, first_labels)
        driver.now_ms += 400 * DAY_MS
        driver.feed(second, second_labels)
        driver.crash()
        while driver.log.expire(driver.now_ms):
            pass
        begin = driver.log.first_offset("examples", 0)
        newest = {each.name: each.model for each in snapshots(driver)}
        bag = again(driver, pipeline, newest["bag"])
        with pytest.raises(StreamMLError) as refusal:
            again(driver, pipeline, newest["bayes"])

    assert begin > 30
    assert bag.equal
    assert 30 == bag.examples
    assert f"the first of them lies at offset 0, before {begin}" in str(refusal.value)
    assert "--archive" in str(refusal.value)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("nobody@40", StreamMLError, "its line has none at all"),
        ("bayes@41", StreamMLError, "the newest of its line are bayes@"),
        ("bayes", UsageError, "expected MODEL@VERSION"),
    ],
)
def test_what_is_not_there_is_said(model: str, error: type[StreamMLError], words: str) -> None:
    """A name that is none, and a version that was never published, with those that there are."""
    with Driver(declare()) as driver:
        driver.feed(*stream(100))
        with pytest.raises(error) as refusal:
            again(driver, declare(), model)

    assert words in str(refusal.value)


def test_another_declaration_is_refused() -> None:
    """It would prove nothing: the recipe and the features must be those of the snapshot."""
    with Driver(declare()) as driver:
        driver.feed(*stream(100))
        model = snapshots(driver)[-1].model
        line = model.partition("@")[0]
        others = [
            declare(models={**declare().models, line: Step()}),
            declare(features=[*declare().features, *declare().features[:0]][:-1]),
        ]
        words = []
        for other in others:
            with pytest.raises(UsageError) as refusal:
                again(driver, other, model)
            words.append(str(refusal.value))

    assert "expected the recipe that it was learned by" in words[0]
    assert "expected the features that it was learned on" in words[1]


def test_the_command_says_what_it_proves(cli: Cli, worked: Path) -> None:
    """Digests, golden predictions, exit code 0; as JSON the same."""
    base = ("--broker", f"sqlite:{worked}", "--pipeline", TOY)
    ran = cli(*base, "rebuild", "scaled@2000")
    found = cli(*base, "rebuild", "scaled@2000", "--format", "json").json

    assert 0 == ran.code
    assert "2,000 examples learned again" in ran.out
    assert "golden predictions: 8 of 8 are equal" in ran.out
    assert (True, 2_000) == (found["equal"], found["examples"])
    assert found["digest"]["recorded"] == found["digest"]["again"]


def test_the_command_fails_where_it_differs(
    cli: Cli, worked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, and what differs."""
    from stream_ml.shell.views import rebuild as module  # noqa: PLC0415 - what is planted in it

    monkeypatch.setattr(module, "fast_learner", lambda *_: lambda *_: None)
    base = ("--broker", f"sqlite:{worked}", "--pipeline", TOY)
    ran = cli(*base, "rebuild", "scaled@2000")

    assert 1 == ran.code
    assert "they differ" in ran.out
    assert "golden predictions: 0 of 8 are equal" in ran.out
    assert "what was learned again differs" in ran.err
