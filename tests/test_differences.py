"""What may be changed in a declaration that has state, and what is refused with the way out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
from river import linear_model, multiclass, naive_bayes, optim, preprocessing, tree

import stream_ml as sml
from stream_ml.differences import (
    RULES,
    LineStanding,
    accepted_changes,
    differences,
    fold_differences,
    planned_differences,
)
from stream_ml.errors import UsageError
from stream_ml.pipeline import Pipeline
from tests.models.own import Counts
from tests.shop import declare, shop, two_tasks
from tests.trainers import Bag


def scaled(rate: float) -> Any:
    """A logistic regression that learns at this rate."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(rate))


def events(**changes: Any) -> dict[str, Any]:
    """The shop's events, with changes."""
    return {"events": replace(shop.events, **changes)}


def fielded(**changes: Any) -> dict[str, Any]:
    """The shop's events, with other fields; None takes one out."""
    given = {**shop.events.fields, **changes}
    return events(fields={name: kind for name, kind in given.items() if kind is not None})


def promotion(**changes: Any) -> dict[str, Any]:
    """The shop's way of renewing models, with changes."""
    return {"promotion": replace(shop.promotion, **changes)}


def lines(**changes: Any) -> dict[str, Any]:
    """The shop's lines, with changes; None takes one out."""
    given = {**shop.models, **changes}
    return {"models": {name: model for name, model in given.items() if model is not None}}


def featured(*features: Any) -> dict[str, Any]:
    """The shop's features, with others behind them."""
    return {"features": [*shop.features, *features]}


def labelled(*classes: str) -> dict[str, Any]:
    """A label of these classes, with a line that meets them as they come and one that does not."""
    label = replace(shop.label, type=sml.Enum(*classes))
    return {"label": label, "models": {**shop.models, "counts": Counts()} | REST}


REST = {"logistic": multiclass.OneVsRestClassifier(linear_model.LogisticRegression())}
ROUTE = sml.Route("oncall", webhook="http://127.0.0.1:9/hook")


def routed(*routes: sml.Route) -> dict[str, Any]:
    """Alerts that go somewhere."""
    return {"alerts": sml.Alerts(routes)}


def doubled(amount: float) -> float:
    """A user's function."""
    return 2 * amount


def tripled(amount: float) -> float:
    """Another."""
    return 3 * amount


OWN = featured(sml.function(doubled, "amount", name="f"))
Change = tuple[dict[str, Any], dict[str, Any], list[tuple[str, bool]]]
# What was declared and what is now, beside the shop; what differs, and whether it is taken up.
CHANGES: list[Change] = [
    ({}, {"name": "other"}, [("name", False)]),
    ({}, {"learn_tasks": "line"}, [("learn_tasks", False)]),
    ({}, events(key="note_id"), [("events.key", False)]),
    ({}, events(time="at"), [("events.time", True)]),
    ({}, events(id="number"), [("events.id", False)]),
    ({}, events(lateness="30s"), [("events.lateness", True)]),
    ({}, events(lateness="10s"), [("events.lateness", False)]),
    (events(lateness=0), events(lateness="1s"), [("events.lateness", True)]),
    ({}, events(window_lateness="30s"), [("events.window_lateness", True)]),
    (events(window_lateness="30s"), {}, [("events.window_lateness", False)]),
    ({}, events(too_late="topic"), [("events.too_late", True)]),
    (events(too_late="topic"), {}, [("events.too_late", True)]),
    ({}, events(skew="6m"), [("events.skew", False)]),
    ({}, events(breadth=3), [("events.breadth", False)]),
    ({}, events(idle="2h"), [("events.idle", False)]),
    ({}, fielded(colour=sml.Optional[str]), [("events.fields.colour", True)]),
    ({}, fielded(note=None), [("events.fields.note", True)]),
    ({}, fielded(kind=sml.Enum("visit", "order", "gift")), [("events.fields.kind", True)]),
    ({}, fielded(kind=sml.Enum("order", "visit")), [("events.fields.kind", False)]),
    ({}, fielded(note=sml.Optional[int]), [("events.fields.note", False)]),
    ({}, fielded(note=sml.Optional(str, default="x")), [("events.fields.note", False)]),
    ({}, fielded(note=str), [("events.fields.note", False)]),
    ({}, fielded(amount=sml.Range(0, 10)), [("events.ranges.amount", True)]),
    (
        fielded(amount=sml.Range(0, 10)),
        fielded(amount=sml.Range(0, 20, outside="clipped")),
        [("events.ranges.amount", True)],
    ),
    (fielded(note=str), {}, [("events.fields.note", True)]),
    ({}, {"predict": sml.when(kind="order")}, [("predict", True)]),
    ({}, {"predict": None}, [("predict", True)]),
    ({}, {"predict": sml.when(kind=("order", "visit"))}, [("predict", True)]),
    ({}, featured(sml.hour_of_day()), [("features.hour_of_day", False)]),
    ({}, {"retired": [sml.hour_of_day()]}, [("retired.hour_of_day", False)]),
    ({"retired": [sml.hour_of_day()]}, {}, [("retired.hour_of_day", False)]),
    (
        {},
        {"features": list(shop.features)[:2], "retired": list(shop.features)[2:]},
        [("retired.mean(amount) 30s", False), ("features.mean(amount) 30s", False)],
    ),
    ({}, {"features": list(shop.features)[:2]}, [("features.mean(amount) 30s", False)]),
    ({}, {"features": list(shop.features)[::-1]}, [("features", False)]),
    (
        featured(sml.function(doubled, "amount", name="f")),
        featured(sml.function(doubled, "amount", name="f", version=2)),
        [("features.f", False)],
    ),
    (
        featured(sml.function(doubled, "amount", name="f")),
        featured(sml.function(tripled, "amount", name="f")),
        [("code.f", True)],
    ),
    (
        featured(sml.window("1h").sum(sml.function(doubled, "amount", name="f"))),
        featured(sml.window("1h").sum(sml.function(tripled, "amount", name="f"))),
        [("code.sum(f) 1h", True)],
    ),
    (
        {},
        {"label": replace(shop.label, type=sml.Enum("a", "b"))} | lines(logistic=scaled(1)),
        [("label.type", False), ("label.fallback", True), ("models.logistic", False)],
    ),
    (
        labelled("a", "b"),
        labelled("a", "b", "c"),
        [("label.type", True), ("label.fallback", True), ("classes.counts", False)],
    ),
    (
        labelled("a", "b"),
        labelled("b", "a", "c"),
        [("label.type", False), ("label.fallback", True), ("classes.counts", False)],
    ),
    (
        {},
        {"label": replace(shop.label, horizon="50s")},
        [("label.horizon", True), ("promotion.maturity", True)],
    ),
    (
        {},
        {"label": replace(shop.label, window="10s", absent=False)},
        [("label.window", True), ("label.absent", True)],
    ),
    ({}, {"label": replace(shop.label, corrections="1h")}, [("label.corrections", True)]),
    ({}, {"label": replace(shop.label, relearn=True)}, [("label.relearn", True)]),
    ({}, {"label": replace(shop.label, trusted="desk")}, [("label.trusted", True)]),
    ({}, {"label": replace(shop.label, sources={"bot": 0})}, [("label.sources", True)]),
    (
        {},
        {"label": replace(shop.label, horizon="30s")},
        [("label.horizon", False), ("promotion.maturity", True)],
    ),
    ({}, {"label": replace(shop.label, fallback=0.1)}, [("label.fallback", True)]),
    ({}, lines(logistic=scaled(0.5)), [("models.logistic", False)]),
    ({}, lines(bayes=scaled(0.5)), [("models.bayes", False)]),
    ({}, lines(tree=tree.HoeffdingTreeClassifier()), [("models.tree", True)]),
    ({}, lines(bayes=None), [("models.bayes", True)]),
    (
        lines(tree=tree.HoeffdingTreeClassifier()),
        lines(tree=tree.HoeffdingTreeClassifier(leaf_prediction="mc")),
        [("models.tree", False)],
    ),
    ({}, {"champion": "bayes"}, [("champion", True)]),
    ({}, {"files": sml.Files(label_time="known_at")}, [("files.label_time", True)]),
    (
        {},
        {"files": sml.Files("iso", "UTC", ";", "truth", None, "1h", "all", row_ids=True)},
        [
            (f"files.{name}", True)
            for name in ("time_unit", "time_zone", "delimiter", "label", "label_delay")
        ]
        + [("files.key", True), ("files.row_ids", True)],
    ),
    ({}, routed(ROUTE), [("alerts.routes.oncall", True)]),
    (routed(ROUTE), {}, [("alerts.routes.oncall", True)]),
    *(
        (routed(ROUTE), routed(replace(ROUTE, **change)), [("alerts.routes.oncall", True)])
        for change in ({"severity": "info"}, {"command": ["x"]}, {"kinds": ["guard"]})
    ),
    (routed(ROUTE), routed(replace(ROUTE, webhook=None)), [("alerts.routes.oncall", True)]),
    ({}, promotion(mode="manual"), [("promotion.mode", True)]),
    ({}, promotion(refresh="1d"), [("promotion.refresh", True)]),
    ({}, promotion(block=50), [("promotion.block", True)]),
    ({}, promotion(alpha=0.01), [("promotion.alpha", True)]),
    ({}, promotion(slots=4), [("promotion.slots", True)]),
    ({}, promotion(coverage_min=0.5), [("promotion.coverage_min", True)]),
    ({}, promotion(renewal=None), [("promotion.renewal", True)]),
    ({}, promotion(gain_min=0.1), [("promotion.gain_min", True)]),
    ({}, promotion(block_pairs_min=9), [("promotion.block_pairs_min", True)]),
    ({}, promotion(maturity="1h"), [("promotion.maturity", True)]),
    ({}, promotion(rollback_loss=0.5), [("promotion.rollback_loss", True)]),
    ({}, promotion(guard_block="2d"), [("promotion.guard_block", True)]),
    ({}, promotion(guard_block=50), [("promotion.guard_block", True)]),
    ({}, promotion(on_harm="fall back"), [("promotion.on_harm", True)]),
    ({}, promotion(on_fault="pause"), [("promotion.on_fault", True)]),
    ({}, promotion(on_failure="restart"), [("promotion.on_failure", True)]),
    ({}, promotion(refusals=2), [("promotion.refusals", True)]),
    ({}, promotion(divergence=1.0), [("promotion.divergence", True)]),
    ({}, promotion(settle=5), [("promotion.settle", True)]),
    ({}, promotion(on_change="alert"), [("promotion.on_change", True)]),
    ({}, promotion(first=40), [("promotion.first", True)]),
    ({}, {"pending_max": 5}, [("pending_max", True)]),
    ({}, {"window_events_max": 200_000}, [("window_events_max", True)]),
    ({}, {"window_events_max": 9}, [("window_events_max", False)]),
    ({}, {"keep": 3}, [("keep", True)]),
    ({}, {"tasks": two_tasks.tasks}, [("tasks.refund", True)]),
    ({"tasks": two_tasks.tasks}, {}, [("tasks.refund", True)]),
    ({}, {"monitors": sml.Monitors(block="10m")}, [("monitors.block", True)]),
    ({}, {"monitors": None}, [("monitors.block", True)]),
    ({}, {"slices": [sml.Slice("a", kind="order")]}, [("slices.a", True)]),
    ({"slices": [sml.Slice("a", kind="order")]}, {}, [("slices.a", True)]),
    (
        {"slices": [sml.Slice("a", kind="order")]},
        {"slices": [sml.Slice("a", kind="visit")]},
        [("slices.a", False)],
    ),
    (
        {"slices": [sml.slice_by("kind")]},
        {"slices": [sml.slice_by("kind", top=1)]},
        [("slices.kind=*", True)],
    ),
    ({}, promotion(slice_margin=0.5), [("promotion.slice_margin", True)]),
]


@pytest.mark.parametrize(
    ("was", "now", "expected"), CHANGES, ids=[", ".join(p for p, _ in e) for _, _, e in CHANGES]
)
def test_whatever_is_changed_is_known_by_its_path(
    was: dict[str, Any], now: dict[str, Any], expected: list[tuple[str, bool]]
) -> None:
    """Each part that can be changed is named, and is either taken up or refused."""
    found = differences(declare(**was).declaration(), declare(**now).declaration())

    assert expected == [(each.path, each.is_accepted) for each in found]


def test_each_part_of_a_declaration_is_changed_above() -> None:
    """A member that is added to the declaration cannot be left out of the comparison."""
    changed = {path for _, _, expected in CHANGES for path, _ in expected}
    # Each route is a path, and each of its members a part of its text.
    changed |= {"routes", "name", "webhook", "command", "severity", "kinds"}
    members = {
        "Events": {f"events.{each.name}" for each in fields(sml.Events)} - {"events.fields"},
        "Label": {f"label.{each.name}" for each in fields(sml.Label)},
        "Promotion": {f"promotion.{each.name}" for each in fields(sml.Promotion)},
        "Pipeline": {each.name for each in fields(Pipeline)}
        - {"alerts", "events", "label", "promotion", "models", "monitors", "slices", "files"}
        - {"retired", "tasks"},
        "Alerts": {each.name for each in fields(sml.Alerts)},
        "Files": {f"files.{each.name}" for each in fields(sml.Files)},
        "Route": {each.name for each in fields(sml.Route)},
        "Monitors": {f"monitors.{each.name}" for each in fields(sml.Monitors)},
    }

    assert {name: set() for name in members} == {k: v - changed for k, v in members.items()}


def test_what_was_declared_alike_is_no_difference() -> None:
    """Other words for the same (a list, a duration in milliseconds, other order) are equal."""
    same = declare(
        events=replace(shop.events, lateness=20_000, skew="300s"),
        predict=sml.when(kind=["visit"]),
        label=replace(shop.label, horizon=40_000, fallback=0.5),
        models=dict(reversed(shop.models.items())),
    )

    assert [] == differences(shop.declaration(), same.declaration())


def test_a_line_that_comes_late_is_told_by_what_it_begins_with() -> None:
    """A retrained one has an empty window; any other is taught all that is recorded."""
    retrained = sml.Retrained(Bag(), window="30d")
    now = declare(**lines(boost=retrained, slow=scaled(0.001)))

    reasons = {
        each.path: each.reason for each in differences(shop.declaration(), now.declaration())
    }

    assert reasons == {
        "models.boost": (
            "its window begins empty: it is trained on what comes from now on, and shadows then"
        ),
        "models.slow": "it is taught what is recorded, and shadows then",
    }


def test_a_path_that_only_another_release_knows_is_no_difference() -> None:
    """After an upgrade nothing is refused for what could not be declared before."""
    declared = shop.declaration()
    former = {path: text for path, text in declared.items() if path != "events.skew"}

    assert [] == differences(former, declared)
    assert [] == differences(declared | {"events.colour": "red"}, declared)
    assert [] == differences({}, declared)


def test_former_releases_taught_all_lines_in_one_task() -> None:
    """They did not say so, and their state is not taken for that of a task a line."""
    former = {path: text for path, text in shop.declaration().items() if path != "learn_tasks"}

    [change] = differences(former, declare(learn_tasks="line").declaration())
    assert ("learn_tasks", "one", "line", "refused") == (
        change.path,
        change.old,
        change.new,
        change.effect,
    )


def test_former_releases_did_not_say_whose_classes_are_fixed() -> None:
    """After an upgrade a learner that has one output for each class is given no more in silence."""
    former = declare(**labelled("a", "b")).declaration()
    del former["classes.counts"]
    now = declare(**labelled("a", "b", "c")).declaration()

    found = {each.path: each.effect for each in differences(former, now)}

    assert {"label.type": "now", "label.fallback": "now", "classes.counts": "relearn"} == found
    assert [] == differences(former, declare(**labelled("a", "b")).declaration())


def test_what_was_joined_with_fewer_classes_is_folded_again_with_those() -> None:
    """Labels of the class that came since were dead letters then."""
    former, now = (declare(**labelled(*classes)).declaration() for classes in ("ab", "abc"))

    assert ["label.type"] == fold_differences(former, now)


def test_a_line_without_a_learner_begins_anew_as_a_version_where_it_has_more_classes() -> None:
    """A quarantined one, too: what its snapshots say is of the classes that it had."""
    former, now = (declare(**labelled(*classes)).declaration() for classes in ("ab", "abc"))
    now["models.counts"] = "another"
    standing = LineStanding(quarantined=["counts"])

    effects = {each.path: each.effect for each in planned_differences(former, now, standing)}

    assert "relearn" == effects["models.counts"] == effects["classes.counts"]


def test_all_that_is_refused_is_said_at_once_with_the_way_out() -> None:
    """One message has every part: what the log was made with, what is declared, and what to do."""
    now = declare(**events(key="other"), champion="bayes", **lines(bayes=scaled(0.5)))

    with pytest.raises(UsageError) as raised:
        accepted_changes(
            shop.declaration(), now.declaration(), "the log shop.sqlite", "begin anew elsewhere"
        )

    first, key, model, last = str(raised.value).splitlines()
    assert "the log shop.sqlite was made under another declaration, in 2 parts:" == first
    assert (
        "  events.key: expected shop, given other; windows are kept, and partitions chosen, by key"
    ) == key
    assert model.startswith("  models.bayes: expected naive_bayes.GaussianNB(), given preproc")
    assert model.endswith("what is recorded: apply it while the workers run as they did")
    assert "Declare it as it was, or begin anew elsewhere." == last


def test_what_is_taken_up_is_told() -> None:
    """Nothing is taken up in silence."""
    told = accepted_changes(
        shop.declaration(), declare(keep=3).declaration(), "the log", "begin anew"
    )

    assert ["keep: was 20, is 3; it holds from the next refresh on"] == told


def test_of_long_texts_the_part_that_differs_is_shown() -> None:
    """Whoever changed one of twenty parameters sees that one."""
    was = declare(**lines(tree=tree.HoeffdingTreeClassifier()))
    now = declare(**lines(tree=tree.HoeffdingTreeClassifier(merit_preprune=False)))

    [difference] = differences(was.declaration(), now.declaration())

    assert "merit_preprune=True)" in str(difference)
    assert "merit_preprune=False)" in str(difference)
    assert len(str(difference)) < 600


def test_a_declaration_is_the_same_text_in_every_process() -> None:
    """No order of a set and no address in memory is in it."""
    code = (
        "import tests.test_differences as t; "
        "print(sorted(t.declare(**t.OWN, **t.lines(t=t.tree.HoeffdingTreeClassifier("
        "nominal_attributes=['b', 'a', 'c'])), predict=t.sml.when(kind=('order', 'visit')))"
        ".declaration().items()))"
    )
    printed = {
        subprocess.run(  # noqa: S603 - our own interpreter and words
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }

    assert 1 == len(printed)
    assert "code.f" in printed.pop()


def test_every_rule_says_why() -> None:
    """No part of a declaration is refused or taken up without a word."""
    assert [] == [pattern for pattern, rule in RULES if not rule.reason]


def test_recipes_differ_in_every_parameter() -> None:
    """What one declares of an estimator is in its description, property or not."""
    default = naive_bayes.GaussianNB()
    recipes = [
        shop,
        *(
            declare(**lines(tree=tree.HoeffdingTreeClassifier(**given)))
            for given in (
                {},
                {"max_size": 50.0},
                {"leaf_prediction": "nb"},
                {"split_criterion": "gini"},
            )
        ),
        declare(**lines(tree=default)),
    ]

    texts = [recipe.declaration().get("models.tree") for recipe in recipes]
    assert len(set(texts)) == len(texts)


def test_a_quarantined_line_may_be_repaired() -> None:
    """Its learner learns no more, so another recipe begins anew under its name; no other line's."""
    repaired = {**shop.models, "bayes": preprocessing.StandardScaler() | naive_bayes.GaussianNB()}
    now = declare(models=repaired).declaration()

    (told,) = accepted_changes(shop.declaration(), now, "the log", "begin anew", ["bayes"])
    assert told.endswith("its line was quarantined, and starts anew, from nothing")
    with pytest.raises(UsageError, match=r"models\.bayes"):
        accepted_changes(shop.declaration(), now, "the log", "begin anew", ["logistic"])


def test_another_release_of_a_learner_s_library_is_refused() -> None:
    """What one release of a library wrote another need not read; a line quarantined starts anew."""
    old, new = {"libraries.net": "torch 1.13"}, {"libraries.net": "torch 2.4"}

    with pytest.raises(UsageError, match="install it again"):
        accepted_changes(old, new, "the log", "begin anew")
    assert accepted_changes(old, new, "the log", "begin anew", ["net"])
    assert [] == differences(old, {"libraries.other": "torch 2.4"})
