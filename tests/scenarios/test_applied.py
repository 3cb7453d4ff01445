"""Changed recipes that were applied: a new version of the line learns, and wins or does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from river import dummy, linear_model, naive_bayes, optim, preprocessing

import stream_ml as sml
from stream_ml.errors import UsageError
from stream_ml.generation import FIRST
from stream_ml.records import line_of
from stream_ml.sealing import MARKER, content
from stream_ml.shell.views.plan import read_plan
from stream_ml.shell.views.registry import read_registry, running_pipeline
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.handover import next_generation
from stream_ml.stages.plans import PlannedText, plan_details
from stream_ml.stages.task import Task
from stream_ml.testing import CRASH, Driver
from tests.models.own import Logistic
from tests.stages.test_promotion import DAY, ask, contest, kinds, run, world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline

KEY = b"testing"
LOGISTIC = preprocessing.StandardScaler() | linear_model.LogisticRegression()
alone = replace(contest, models={"plain": dummy.PriorClassifier()})


def recipe(model: Any, pipeline: Pipeline = alone, line: str = "plain") -> Pipeline:
    """The contest with another recipe under a name."""
    return replace(pipeline, models={**pipeline.models, line: model})


@pytest.fixture
def driver() -> Iterator[Driver]:
    """The line that serves is alone, and has learned for a day."""
    with Driver(alone) as driver:
        run(driver, 0, DAY)
        yield driver


def plan(driver: Driver, pipeline: Pipeline) -> list[PlannedText]:
    """All that differs, as a command has it."""
    newest = read_registry(driver.log, KEY, 0).newest
    differences = [e.difference for e in read_plan(driver.log, pipeline, KEY, newest).changes]
    return [PlannedText(each.path, each.old, each.new, each.effect) for each in differences]


def apply(driver: Driver, pipeline: Pipeline, id_: str = "c1") -> dict[str, Any]:
    """Have a changed declaration decided on by the worker that runs, and start it."""
    [decision] = ask(driver, "apply", id_, details=plan_details(plan(driver, pipeline)))
    if decision["kind"] == "applied":
        driver.declare(pipeline)
    return decision


def champions(driver: Driver) -> list[str]:
    """What served, one after the other."""
    names = [each["serving"]["champion"]["model"] for each in driver.read("registry")]
    return list(dict.fromkeys(names))


def snapshots(driver: Driver) -> dict[str, tuple[str, str]]:
    """By model: the recipe and the digest that its snapshot was signed with."""
    return {
        each["model"] + f"@{each['version']}": (each["recipe"], each["digest"])
        for each in driver.read("models")
        if each is not None
    }


def test_a_changed_recipe_is_refused_until_it_was_applied(driver: Driver) -> None:
    """It is no other learner under the name of the one that serves, in silence or not."""
    driver.declare(recipe(LOGISTIC))
    before = driver.records("registry"), driver.log.state("learn-0")

    with pytest.raises(
        UsageError, match=r"(?s)models\.plain: expected dummy.*apply it while.*stream-ml apply"
    ):
        driver.run()

    assert before == (driver.records("registry"), driver.log.state("learn-0"))


def test_a_changed_recipe_wins_by_evidence(driver: Driver) -> None:
    """The champion stays the very snapshot until its line's new version has won the contest."""
    [before] = champions(driver)[-1:]

    decision = apply(driver, recipe(LOGISTIC))
    run(driver, DAY, 5 * DAY)

    assert decision["kind"] == "applied"
    [change] = decision["evidence"]["changes"]
    assert (change["path"], change["effect"]) == ("models.plain", "relearn")
    after = champions(driver)[champions(driver).index(before) :]
    assert after[0] == before
    assert {line_of(each) for each in after} == {"plain", "plain.2"}
    assert after[1].startswith("plain.2@")
    assert ["bootstrap", "applied", "replaced"] == kinds(driver)
    [replaced] = [each for each in driver.read("registry") if each["kind"] == "replaced"]
    assert replaced["evidence"]["e_value"] >= replaced["evidence"]["needed"]
    assert replaced["serving"]["predecessor"]["model"] == before
    assert [] == driver.read("dead-letters")
    # No snapshot of a name bears another recipe than the first one of it.
    recipes = {(line_of(name), each[0]) for name, each in snapshots(driver).items()}
    assert len(recipes) == len({line for line, _ in recipes}) == 2


def test_a_new_version_has_learned_the_recorded_past(driver: Driver) -> None:
    """Its learner equals, to the last bit, that of a line that was declared so from the start."""
    apply(driver, recipe(LOGISTIC))
    run(driver, DAY, 2 * DAY)
    with Driver(recipe(LOGISTIC)) as other:
        run(other, 0, DAY)
        run(other, DAY, 2 * DAY)
        expected, actual = snapshots(other), snapshots(driver)

    versions = [name for name in actual if name.startswith("plain.2@")]
    assert len(versions) >= 3
    assert {n: expected[n.replace(".2", "")] for n in versions} == {n: actual[n] for n in versions}


def test_versions_outlive_a_change_of_what_is_retired() -> None:
    """The decision names them: who starts then goes back to a former recipe without another one."""
    changed = recipe(dummy.PriorClassifier(), contest, "better")
    retired = {"retired": [sml.hour_of_day()]}
    with Driver(contest) as driver:
        run(driver, 0, DAY)
        apply(driver, changed)
        driver.run()
        driver.declare(replace(changed, **retired), apply="to be kept")
        driver.run()
        driver.declare(replace(contest, **retired))
        driver.run()

        [decision] = [
            each["evidence"]
            for each in driver.read("registry")
            if "generation" in (each["evidence"] or {})
        ]
        assert {"better", "better.2"} == {*decision["versions"]["better"].values()}


def test_a_worse_recipe_never_serves(driver: Driver) -> None:
    """It shadows for as long as it is declared, and what serves stays as it is."""
    driver.declare(replace(contest, promotion=replace(contest.promotion, mode="manual")))
    run(driver, DAY, 2 * DAY)
    ask(driver, "promote", "c2", model="better", expect="plain")
    before = champions(driver)[-1]
    assert before.startswith("better@")

    apply(driver, recipe(dummy.PriorClassifier(), contest, "better"))
    run(driver, 2 * DAY, 4 * DAY)

    assert champions(driver)[-1] == before
    newest = driver.read("registry")[-1]["serving"]
    assert set(newest["challengers"]) == {"plain", "better.2"}


def test_it_is_undone_before_the_switch_by_the_former_declaration(driver: Driver) -> None:
    """Declared as before, the line goes on under its name, as one that was never changed."""
    apply(driver, recipe(LOGISTIC))
    run(driver, DAY, DAY + 400)

    driver.declare(alone)
    run(driver, DAY + 400, 3 * DAY)
    with Driver(alone) as other:
        run(other, 0, 3 * DAY)
        expected, actual = snapshots(other), snapshots(driver)

    last = champions(driver)[-1]
    assert last.startswith("plain@")
    assert actual[last] == expected[last]
    assert "replaced" not in kinds(driver)


def test_it_is_rolled_back_after_the_switch(driver: Driver) -> None:
    """The former version serves again, as it was, though it is not declared; `resume` goes on."""
    before = champions(driver)[-1]
    apply(driver, recipe(LOGISTIC))
    run(driver, DAY, DAY + 500)
    [promoted] = ask(driver, "promote", "c4", expect="plain", model="plain.2")
    assert promoted["serving"]["champion"]["model"].startswith("plain.2@")
    # Until the next refresh the former version shadows, in a slot that nobody declares.
    run(driver, DAY + 500, DAY + 600)
    assert "plain" in driver.read("predictions")[-1]["shadows"]

    [decision] = ask(driver, "rollback", "c2", expect="plain.2", model=before)
    driver.crash()
    run(driver, DAY + 600, 2 * DAY)

    assert [] == driver.read("dead-letters")
    assert decision["kind"] == "rolled_back"
    assert decision["serving"]["champion"]["model"] == before
    assert driver.read("predictions")[-1]["model"] == before
    [decision] = ask(driver, "rollback", "c3", expect="plain", model="nobody@3")
    assert decision["kind"] == "refused"


def test_a_recipe_is_changed_again_and_back(driver: Driver) -> None:
    """Each recipe has one version, by its number; one that was applied before has it again."""
    bayes = recipe(naive_bayes.GaussianNB())
    apply(driver, recipe(LOGISTIC))
    run(driver, DAY, DAY + 100)

    decision = apply(driver, bayes, "c2")

    assert list(decision["evidence"]["versions"]) == ["plain"]
    assert len(decision["evidence"]["versions"]["plain"]) == 3
    declarations = (alone, recipe(LOGISTIC), bayes)
    names = [[*running_pipeline(driver.log, each, KEY).recipes] for each in declarations]
    assert names == [["plain"], ["plain.2"], ["plain.3"]]
    driver.run()
    assert [] == plan(driver, bayes)
    assert {"now"} == {each.effect for each in plan(driver, recipe(LOGISTIC))}


@pytest.mark.parametrize("seed", range(4))
def test_whoever_dies_in_between_it_comes_to_the_same(seed: int) -> None:
    """Deaths before, at and after the change, redelivery and batches of any size change nothing."""
    outcomes = []
    for number in (None, seed):
        with Driver(alone, seed=number) as driver:
            events, labels = world(0, 600)
            driver.feed(events if number is None else [*events[:300], CRASH, *events[300:]], labels)
            apply(driver, recipe(LOGISTIC))
            for first in (600, 900, 1_200):
                events, labels = world(first, first + 300)
                dies = first % 7 * 40
                driver.feed(
                    events if number is None else [*events[:dies], CRASH, *events[dies:]], labels
                )
            outcomes.append(
                (
                    snapshots(driver),
                    [each["serving"] for each in driver.read("registry")],
                    [each["model"] for each in driver.read("predictions")],
                )
            )

    assert outcomes[0] == outcomes[1]
    assert any(name.startswith("plain.2@") for name in outcomes[0][0])


BAD_PLANS: list[tuple[list[tuple[Any, ...]], str]] = [
    ([], "a plan with at least one change as `changes`, given none"),
    ([("models.plain", "another", "x", "relearn")], "models.plain is not what the plan was"),
    ([("label.horizon", None, "x", "relearn")], "label.horizon is not what the plan was"),
    ([("label.horizon", "10m", "20m", "relearn")], "label.horizon is no recipe of a line"),
    ([("label.horizon", "10m", "20m", "refused")], "label.horizon is refused"),
    ([("models.other", None, "x", "relearn")], "models.other is no recipe of a line"),
]


def test_a_worker_of_the_former_declaration_knows_the_versions_by_the_state(
    driver: Driver,
) -> None:
    """Evaluate may move to one that started before the plan: it gives no name twice."""
    applied = recipe(LOGISTIC)
    ask(driver, "apply", "c1", details=plan_details(plan(driver, applied)))
    driver.runner.commit(checkpoint=True)
    moved = Evaluate(alone, Keyring(KEY, {}), driver.log.identity)
    pieces = [(name, content(value)) for name, value in driver.log.state("evaluate-0")]
    Task("evaluate-0", moved).restore([each for each in pieces if each[0] != MARKER.decode()])
    changed, known = recipe(dummy.NoChangeClassifier()), moved._decisions.generation
    versions = known.versions_with(applied.declaration(), changed.declaration())

    assert ["plain.3", "plain.2", "plain"] == [*versions["plain"].values()]


def test_a_plan_that_is_none_is_refused(driver: Driver) -> None:
    """An operator's command changes nothing but what was planned from what runs."""
    for number, (changes, reason) in enumerate(BAD_PLANS):
        plans = tuple(PlannedText(*each) for each in changes)

        [decision] = ask(driver, "apply", f"c{number}", details=plan_details(plans))

        assert decision["kind"] == "refused"
        assert reason in decision["reason"]
    assert [] == plan(driver, alone)


def test_what_only_its_recipe_reads_is_not_left_without_it() -> None:
    """A learner of one's own that serves keeps its recipe; the plan and the worker both say so."""
    own = replace(contest, models={"plain": Logistic()})
    with Driver(own) as driver:
        run(driver, 0, 300)
        changed = recipe(LOGISTIC, own)

        [change] = plan(driver, changed)
        forced = replace_effect(change, "relearn")
        [decision] = ask(driver, "apply", "c1", details=plan_details([forced]))

    assert change.effect == "refused"
    assert decision["kind"] == "refused"
    assert "only the code of its recipe reads its learners" in decision["reason"]


def replace_effect(change: PlannedText, effect: str) -> PlannedText:
    """The same change, said to have another effect."""
    return change._replace(effect=effect)


def test_what_serves_needs_a_slot_beside_the_lines() -> None:
    """With as many lines as slots, and what serves beside them, `alpha` would not hold."""
    tight = replace(
        contest,
        models={f"{name}": dummy.PriorClassifier() for name in ("plain", "b", "c", "d")},
    )
    with Driver(tight) as driver:
        run(driver, 0, 300)
        changed = recipe(LOGISTIC, tight)
        [change] = plan(driver, changed)
        [decision] = ask(
            driver, "apply", "c1", details=plan_details([replace_effect(change, "relearn")])
        )

    assert change.effect == "refused"
    assert "promotion.slots of at least 4" in decision["reason"]


def test_a_line_that_does_not_serve_goes_on_as_its_new_version() -> None:
    """Evidence for the former recipe speaks for the new one in nothing."""
    with Driver(contest) as driver:
        run(driver, 0, DAY)
        changed = recipe(linear_model.LogisticRegression(optim.SGD(0.5)), contest, "better")
        assert apply(driver, changed)["kind"] == "applied"
        run(driver, DAY, DAY + 700)

        serving = driver.read("registry")[-1]["serving"]

    assert list(serving["challengers"]) == ["better.2"]


def test_a_label_that_is_changed_as_well_is_refused(driver: Driver) -> None:
    """Nothing is applied of a plan of which a part is refused."""
    changed = replace(recipe(LOGISTIC), label=sml.Label(bool, horizon="5m"))

    effects = {each.path: each.effect for each in plan(driver, changed)}
    [decision] = ask(driver, "apply", "c1", details=plan_details(plan(driver, changed)))

    assert effects["label.horizon"] == "refused"
    assert decision["kind"] == "refused"


def test_features_and_recipes_are_changed_one_after_the_other() -> None:
    """Names of versions and of generations never meet, and each line knows what it is of."""
    with Driver(contest) as driver:
        run(driver, 0, 400)
        changed = recipe(linear_model.LogisticRegression(optim.SGD(0.5)), contest, "better")
        assert apply(driver, changed)["kind"] == "applied"
        run(driver, 400, 800)
        assert "better.2" in driver.runner.lines
        wider = replace(changed, features=[sml.field("x"), sml.log("x")])
        driver.declare(wider, apply="more features")
        run(driver, 800, 1_200)
        assert driver.runner.lines == ["plain.3", "better.3", "plain"]

        again = recipe(naive_bayes.GaussianNB(), wider, "better")
        assert apply(driver, again, "c3")["kind"] == "applied"
        run(driver, 1_200, 1_900)

        assert driver.runner.lines == ["plain.3", "better.4", "plain"]
        forced = recipe(LOGISTIC, again, "plain")
        [change] = plan(driver, forced)
        [decision] = ask(
            driver, "apply", "c4", details=plan_details([change._replace(effect="relearn")])
        )
        assert (change.effect, decision["kind"]) == ("refused", "refused")
        assert "goes on with the recipe of plain" in decision["reason"]
        by_name = {line_of(name): each[0] for name, each in snapshots(driver).items()}
        assert by_name["better.4"].startswith("naive_bayes")
        assert by_name["better.3"] == by_name["better.2"]
        assert [] == driver.read("dead-letters")


def test_features_wait_until_a_line_of_today_serves(driver: Driver) -> None:
    """What serves as a former version could not be taught, for its recipe is declared no more."""
    apply(driver, recipe(LOGISTIC))
    run(driver, DAY, DAY + 100)
    driver.declare(replace(recipe(LOGISTIC), features=[sml.field("x"), sml.log("x")]), apply="more")

    with pytest.raises(UsageError, match="promote another line before features are changed"):
        driver.run()


def test_a_version_of_before_that_serves_is_known_as_one_whatever_is_declared_today() -> None:
    """Its recipe is declared again together with features, while another version of it ran."""
    declarations = [alone, recipe(LOGISTIC), recipe(naive_bayes.GaussianNB())]
    texts = [each.declaration() for each in declarations]
    generation = FIRST
    for running, applied in pairwise(texts):
        versions = generation.versions_with(running, applied)
        generation = replace(generation, versions=versions).with_recipes(applied)
    today = replace(recipe(LOGISTIC), features=[sml.field("x"), sml.log("x")])

    assert {"plain": "plain.3"} == generation.names
    with pytest.raises(UsageError, match=r"'plain\.2', a former version.*promote another line"):
        next_generation(today, texts[-1], generation, "plain.2", {0: 5})
