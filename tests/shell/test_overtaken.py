"""Features that begin at an offset which a worker of before has gone past."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from river import tree

from stream_ml.errors import UsageError
from stream_ml.generation import FormerLine, Generation
from stream_ml.sealing import MARKER, Marker, Seals
from stream_ml.shell.handover import Preparation, handover
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.declared import declared_changes
from stream_ml.shell.kafka.handover import cluster_handover
from stream_ml.shell.restoration import TakenUp
from stream_ml.shell.views.plan import read_plan
from stream_ml.stages.learn import Learn
from stream_ml.stages.positions import ResumePoint
from stream_ml.testing import Driver
from tests.kafka.world import Bench
from tests.shop import declare, shop, stream, wider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline

KEY = b"testing"
EVENTS = 60


@pytest.fixture
def overtaken() -> Iterator[Driver]:
    """A log on which features were applied, but for predict, whose state is of before."""
    with Driver(shop) as driver:
        driver.feed(*stream(count=EVENTS))
        driver.runner.commit(checkpoint=True)
        marker = driver.log.piece("predict-0", MARKER.decode())
        driver.declare(wider, apply="orders say more")
        driver.run()
        driver.crash()
        with driver.log.session() as session:
            session.commit({}, [("predict-0", MARKER.decode(), marker)])
        yield driver


def test_predict_goes_on_from_where_features_begin_and_from_nowhere_else(
    overtaken: Driver,
) -> None:
    """Past there it has predicted with its former features: it says so, and what to do."""
    seals = Seals(KEY, wider.name, overtaken.log.identity)
    found = handover(overtaken.log, wider, KEY, seals)

    assert found.generation is None
    assert wider.declaration() == found.applied_texts
    found.expect_begin("predict-0", shop.declaration(), (0, EVENTS))
    found.expect_begin("predict-0", wider.declaration(), (0, EVENTS + 1))
    with pytest.raises(UsageError, match=f"from {EVENTS} of events-0.*given {EVENTS + 1}: a wor"):
        found.expect_begin("predict-0", shop.declaration(), (0, EVENTS + 1))


@pytest.mark.parametrize(("offset", "number"), [(EVENTS, None), (EVENTS + 1, 3)])
def test_features_that_were_overtaken_are_applied_again(
    overtaken: Driver, offset: int, number: int | None
) -> None:
    """All lines begin anew from there; where nobody went past, there is nothing to apply."""
    seals = Seals(KEY, wider.name, overtaken.log.identity)
    found = handover(overtaken.log, wider, KEY, seals, apply="again", offsets={0: offset})

    generation = found.generation
    assert (None if generation is None else generation.number) == number
    if generation is not None:
        assert {0: offset} == generation.offsets
        assert ["logistic.3", "bayes.3", "tree.3"] == generation.begun
        assert ["logistic"] == [line.name for line in generation.former]


def test_lines_change_by_their_own_rules_before_all_tasks_have_taken_features_up(
    overtaken: Driver,
) -> None:
    """A further line is taken up with the features, and planned so; another recipe is refused."""
    seals = Seals(KEY, wider.name, overtaken.log.identity)
    start_state = TakenUp([], {}, None, Marker({}, declaration=shop.declaration()))

    def changes(name: str, depth: int) -> list[str]:
        models = {**wider.models, name: tree.HoeffdingTreeClassifier(max_depth=depth)}
        declared = replace(wider, models=models)
        found = handover(overtaken.log, declared, KEY, seals)
        texts = found.pipeline.declaration()
        context: Any = SimpleNamespace(
            declaration=texts,
            restart_lines=(),
            applied_lines=found.pipeline.generation.applied_lines(texts),
            cluster=Cluster("nowhere:1", "shop"),
            handover=found,
        )
        task: Any = SimpleNamespace(name="learn-0", stage=None)
        if name == "more":
            planned = read_plan(overtaken.log, declared, KEY).changes
            assert {"now"} == {each.difference.effect for each in planned}
        return declared_changes(task, context, start_state, ResumePoint({}, {}, ()))

    paths = [change.partition(": ")[0] for change in changes("more", 2)]
    assert ["models.more", "models.tree"] == sorted(p for p in paths if p.startswith("models."))
    assert any(path.startswith("features.") for path in paths)
    with pytest.raises(UsageError, match=r"models\.bayes: expected .* apply it while"):
        changes("bayes", 2)


def test_learn_of_before_ends_where_it_reads_that_other_features_begin(overtaken: Driver) -> None:
    """Started amid `apply`, it would go on with lines that nobody asks; as applied it reads on."""
    decisions = overtaken.records("registry")
    seals = Seals(KEY, wider.name, overtaken.log.identity)
    begun = handover(overtaken.log, wider, KEY, seals).pipeline

    async def fold(pipeline: Pipeline) -> None:
        place, topics = Cluster("127.0.0.1:1", "shop"), ("examples", "registry")
        task = Bench(place, "learn", topics, lambda _: Learn(pipeline, KEY)).task(0).task
        await task._fold(decisions)
        task._thread.stop()

    asyncio.run(fold(begun))
    with pytest.raises(UsageError, match="given others that were applied since, as shop"):
        asyncio.run(fold(shop))


def test_on_a_cluster_features_are_applied_where_each_line_is_a_task() -> None:
    """As where one task has all lines: each of the lines that begin is a task then."""
    cluster = Cluster("nowhere:1", "shop")
    found = []
    for tasks in ("one", "line"):
        with Driver(replace(shop, learn_tasks=tasks)) as driver:
            driver.feed(*stream(count=EVENTS))
            driver.runner.commit(checkpoint=True)
            log: Any = driver.log
            changed = replace(wider, learn_tasks=tasks)
            planned = cluster_handover(log, cluster, changed, KEY, apply="more")
        assert planned.generation is not None
        found.append((planned.generation.begun, {*planned.pipeline.learn_task_lines}))

    begun = ["logistic.2", "bayes.2", "tree.2"]
    assert [(begun, {None}), (begun, {"logistic", *begun})] == found


def test_a_line_that_goes_on_without_its_recipe_is_no_line() -> None:
    """So it is said that it serves and is not declared, rather than that a name is unknown."""
    former = FormerLine("logistic", "logistic", tuple(shop.feature_set.names))
    names = {name: f"{name}.2" for name in wider.models}
    generation = Generation(2, wider.feature_set.hash, names, (former,))
    less = declare(models={"bayes": shop.models["bayes"]}, champion="bayes")

    assert ["bayes.2"] == [*less.running_as(generation).recipes]


def test_offsets_ahead_of_predict_are_the_decisions_and_nothing_else_is_other() -> None:
    """Where a standby takes over the decision names where features have begun at the latest."""
    with Driver(shop) as driver:
        driver.feed(*stream(count=EVENTS))
        driver.runner.commit(checkpoint=True)
        seals = Seals(KEY, wider.name, driver.log.identity)
        exact, ahead = (
            handover(driver.log, wider, KEY, seals, apply="more", latest=latest).generation
            for latest in (None, {0: 9_000})
        )

    assert exact is not None
    assert ahead is not None
    assert ({0: EVENTS}, {0: 9_000}) == (exact.offsets, ahead.offsets)
    assert exact == replace(ahead, offsets=exact.offsets)


def test_windows_are_filled_step_by_step_and_not_taken_beyond_a_state() -> None:
    """A standby goes on while it is asked, and knows where it has folded more than a state has."""
    with Driver(shop) as driver:
        driver.feed(*stream(count=EVENTS))
        driver.runner.commit(checkpoint=True)
        preparation = Preparation.beside(driver.log, wider, KEY)
        steps = [preparation.advance(40) for _ in range(3)]

        assert [40, EVENTS - 40, 0] == steps
        assert preparation.is_needed
        assert (True, False) == (
            preparation.is_ahead(0, EVENTS - 1),
            preparation.is_ahead(0, EVENTS),
        )
        assert EVENTS == preparation.events(0, EVENTS).counts["events"]
