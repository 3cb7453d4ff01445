"""Promotion through the whole loop: evidence replaces, the guard undoes, operators decide."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from river import dummy, linear_model, optim, preprocessing

import stream_ml as sml
from stream_ml.codec import decode_example, encode_command
from stream_ml.evaluation.guard import SuccessorGuard
from stream_ml.evaluation.scores import log_loss
from stream_ml.records import Command, Example, Output, Prediction, Shadow, Source
from stream_ml.signing import Operator
from stream_ml.testing import Driver

KEY = b"testing"
MINUTE = 60_000
START = 28_333_440 * MINUTE
DAY = 24 * 60

contest = sml.Pipeline(
    "contest",
    events=sml.Events(key="who", fields={"x": float}, lateness=0, breadth=1),
    features=[sml.field("x")],
    label=sml.Label(bool, horizon="10m"),
    champion="plain",
    models={
        "plain": dummy.PriorClassifier(),
        "better": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    },
    promotion=sml.Promotion(
        refresh="6h",
        block="6h",
        guard_block="2h",
        block_pairs_min=20,
        first=100,
        on_harm="alert",  # the guard would hand over before the evidence suffices
    ),
)


def declared(champion: str = "plain", **promotion: Any) -> sml.Pipeline:
    """The contest with another champion or other rules."""
    return replace(contest, champion=champion, promotion=replace(contest.promotion, **promotion))


def world(first: int, last: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events of minutes [first, last) and the labels that come in them: x tells, mostly."""
    events, labels = [], []
    for minute in range(first, last):
        ts = START + minute * MINUTE
        rand = random.Random(minute)
        x = rand.uniform(-1, 1)
        events.append({"event_id": f"e{minute}", "ts": ts, "who": "all", "x": x})
        label = (x > 0) != (rand.random() < 0.1)
        labels.append({"event_id": f"e{minute}", "ts": ts + 5 * MINUTE, "label": label})
    return events, labels


def run(driver: Driver, first: int, last: int) -> None:
    """Let so many minutes pass."""
    driver.feed(*world(first, last))


def ask(driver: Driver, kind: str, id_: str, **members: Any) -> list[Any]:
    """Put a command on the log, let it be read, and return what was decided of it."""
    driver.command(kind, **{"command_id": id_, "actor": "ada", "reason": "to see", **members})
    driver.run()
    return [d for d in driver.read("registry") if d["command_id"] == id_]


def kinds(driver: Driver) -> list[str]:
    """What was decided, but for the refreshes."""
    return [d["kind"] for d in driver.read("registry") if d["kind"] != "refreshed"]


def test_a_better_challenger_replaces_the_champion_on_evidence() -> None:
    """Nine blocks won in a row suffice; the old champion's line goes on in the winner's slot."""
    driver = Driver(declared())

    run(driver, 0, 4 * DAY)

    assert ["bootstrap", "replaced"] == kinds(driver)
    [decision] = [d for d in driver.read("registry") if d["kind"] == "replaced"]
    assert decision["evidence"]["e_value"] >= decision["evidence"]["needed"] == 60
    assert decision["evidence"]["wins"] >= 9
    serving = decision["serving"]
    assert serving["champion"]["model"].startswith("better@")
    assert ["plain"] == list(serving["challengers"])
    assert serving["predecessor"]["model"].startswith("plain@")
    # The very snapshot that shadowed at that moment.
    before = driver.read("registry")[decision["number"] - 1]["serving"]
    assert before["challengers"]["better"] == serving["champion"]
    driver.close()


def test_manual_mode_leaves_it_to_operators() -> None:
    """However good the evidence, nothing is replaced before somebody says so."""
    driver = Driver(declared(mode="manual"))
    run(driver, 0, 4 * DAY)
    assert ["bootstrap"] == kinds(driver)
    assert ["gross_harm"] == [alert["kind"] for alert in driver.read("alerts")]

    [answer] = ask(driver, "promote", "c1", model="better", expect="plain")

    assert ("replaced", "ada", "to see") == (answer["kind"], answer["actor"], answer["reason"])
    driver.close()


def test_gated_mode_accepts_only_what_the_evidence_suffices_for() -> None:
    """Too early a promotion is refused with the figures; once it suffices, an alert says so."""
    driver = Driver(declared(mode="gated"))
    run(driver, 0, DAY)
    [early] = ask(driver, "promote", "c1", model="better", expect="plain")
    assert "refused" == early["kind"]
    assert "the evidence for better does not suffice: E is" in early["reason"]

    run(driver, DAY, 4 * DAY)

    assert ["gross_harm", "challenger_ready"] == [alert["kind"] for alert in driver.read("alerts")]
    [late] = ask(driver, "promote", "c2", model="better", expect="plain")
    assert "replaced" == late["kind"]
    driver.close()


def test_a_forced_promotion_of_a_bad_model_is_rolled_back_within_two_blocks() -> None:
    """The guard undoes it, says why, and what serves is the former champion's snapshot."""
    driver = Driver(declared("better", mode="manual"))
    run(driver, 0, DAY)
    former = driver.read("registry")[-1]["serving"]["champion"]
    ask(driver, "promote", "c1", model="plain", expect="better")

    run(driver, DAY, DAY + 2 * 120 + 60)

    assert ["bootstrap", "replaced", "rolled_back"] == kinds(driver)
    undone = driver.read("registry")[-1]
    assert former == undone["serving"]["champion"]
    assert undone["serving"]["predecessor"] is None
    assert ["plain"] == list(undone["serving"]["challengers"])
    assert "guard: plain@" in undone["reason"]
    assert ["guard"] == [alert["kind"] for alert in driver.read("alerts")]
    run(driver, DAY + 300, DAY + 301)
    assert former["model"] == driver.read("predictions")[-1]["model"]
    driver.close()


def test_after_an_operators_rollback_nothing_is_refreshed_until_resume() -> None:
    """What was rolled back to stays, whatever the evidence, until an operator resumes."""
    driver = Driver(declared())
    run(driver, 0, DAY)
    ask(driver, "rollback", "c1", expect="plain")
    frozen = driver.read("registry")[-1]["serving"]

    run(driver, DAY, 3 * DAY)
    assert frozen == driver.read("registry")[-1]["serving"]

    ask(driver, "resume", "c2")
    run(driver, 3 * DAY, 4 * DAY)
    assert "refreshed" == driver.read("registry")[-1]["kind"]
    driver.close()


def test_after_the_guards_rollback_the_next_refresh_goes_on() -> None:
    """One bad switch is undone; nobody has to be woken for the models to be renewed."""
    driver = Driver(declared("better", mode="manual"))
    run(driver, 0, DAY)
    ask(driver, "promote", "c1", model="plain", expect="better")

    run(driver, DAY, 2 * DAY)

    assert ["bootstrap", "replaced", "rolled_back"] == kinds(driver)
    newest = driver.read("registry")[-1]
    assert "refreshed" == newest["kind"]
    assert newest["serving"]["champion"]["model"].startswith("better@")
    driver.close()


def test_a_rollback_returns_to_any_snapshot_that_served() -> None:
    """By its name, signed and answered as any command; it stays until somebody resumes."""
    driver = Driver(declared("better", mode="manual"))
    run(driver, 0, DAY)
    served = [d["serving"]["champion"]["model"] for d in driver.read("registry")]
    oldest, newest = served[0], served[-1]
    assert oldest != served[-2] != newest

    [answer] = ask(driver, "rollback", "c1", expect="better", model=oldest)
    run(driver, DAY, DAY + 400)

    assert ("rolled_back", oldest) == (answer["kind"], answer["serving"]["champion"]["model"])
    assert answer["serving"] == driver.read("registry")[-1]["serving"]
    assert oldest == driver.read("predictions")[-1]["model"]
    [again] = ask(driver, "rollback", "c2", expect="better", model=newest)
    assert ("rolled_back", newest) == (again["kind"], again["serving"]["champion"]["model"]), again
    driver.close()


def test_a_rollback_to_another_line_begins_its_evidence_anew() -> None:
    """What was left goes on as a challenger, with nothing that spoke for it before."""
    driver = Driver(declared())
    run(driver, 0, 4 * DAY)
    assert ["bootstrap", "replaced"] == kinds(driver)
    plain = driver.read("registry")[-1]["serving"]["challengers"]["plain"]["model"]
    first = driver.read("registry")[0]["serving"]["champion"]["model"]

    [answer] = ask(driver, "rollback", "c1", expect="better", model=first)

    assert first == answer["serving"]["champion"]["model"] != plain
    assert ["better"] == list(answer["serving"]["challengers"])
    evidence = [e for e in driver.read("evaluations") if e["model"] == "better"][-1]["evidence"]
    assert (0, 0, 1.0) == (evidence["wins"], evidence["losses"], evidence["e_value"])
    driver.close()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("plain@7", "plain@7 has not served: of 'plain' served last plain@"),
        ("better@500", "better@500 has not served: of 'better' served last none"),
        ("nobody@1", "expected name@version of a declared line (plain, better), given 'nobody@1'"),
        ("plain", "expected name@version of a declared line (plain, better), given 'plain'"),
    ],
)
def test_a_rollback_to_what_never_served_is_refused(model: str, reason: str) -> None:
    """The answer names what there is, and nothing is changed."""
    driver = Driver(declared(mode="manual"))
    run(driver, 0, DAY)
    before = driver.read("registry")[-1]["serving"]

    [answer] = ask(driver, "rollback", "c1", expect="plain", model=model)

    assert "refused" == answer["kind"]
    assert reason in answer["reason"]
    assert before == answer["serving"]
    [present] = ask(driver, "rollback", "c2", expect="plain", model=before["champion"]["model"])
    assert "serves already" in present["reason"]
    driver.close()


def test_evaluations_are_written_daily_where_labels_are_few() -> None:
    """Of 240 labels a day each day's end has one of every model, and none in between."""
    driver = Driver(declared(mode="manual"))
    for first in range(0, 4 * DAY, DAY):
        events, labels = world(first, first + DAY)
        driver.feed(events[::6], labels[::6])

    served = [e for e in driver.read("evaluations") if e["model"] == "served"]
    days = [(evaluation["ts"] - START) // (DAY * MINUTE) for evaluation in served]
    assert [1, 2, 3] == days
    counts = [evaluation["n"] for evaluation in served]
    assert [240, 240] == [counts[1] - counts[0], counts[2] - counts[1]]
    driver.close()


def test_a_line_that_publishes_no_more_cannot_take_over() -> None:
    """Neither evidence nor an operator makes a dead line champion: it could not be renewed."""
    driver = Driver(declared(mode="manual"))
    run(driver, 0, DAY)
    driver.runner.learn._give_up("better", "planted")

    run(driver, DAY, DAY + 400)
    [answer] = ask(driver, "promote", "c1", model="better", expect="plain")

    assert "refused" == answer["kind"]
    assert "the line 'better' publishes no more" in answer["reason"]
    run(driver, DAY + 400, 4 * DAY)
    newest = driver.read("registry")[-1]
    stays = newest["serving"]["challengers"]["better"]["model"]
    assert f"{stays} stays" in newest["reason"]
    driver.close()


def test_a_champion_that_has_diverged_is_served_on_as_it_was_when_it_was_sound() -> None:
    """Told once, within two refreshes; its challengers are renewed as ever."""
    driver = Driver(declared("better", mode="manual"))
    run(driver, 0, 2 * DAY)
    learner = driver.runner.learn._lines["better"].learner["LogisticRegression"]
    learner._weights = dict.fromkeys(["x"], -50.0)

    run(driver, 2 * DAY, 4 * DAY)

    assert ["bootstrap", "refused"] == kinds(driver)
    [refused] = [d for d in driver.read("registry") if d["kind"] == "refused"]
    sound = refused["serving"]["champion"]["model"]
    assert f"{sound} stays, and other lines are renewed" in refused["reason"]
    assert refused["ts"] <= START + (2 * DAY + 2 * 6 * 60 + 30) * MINUTE
    newest = driver.read("registry")[-1]
    assert sound == newest["serving"]["champion"]["model"]
    assert newest["ts"] >= START + (4 * DAY - 6 * 60) * MINUTE
    assert (
        f"plain@{newest['reason'].split('@')[1].split(';')[0]}"
        == (newest["serving"]["challengers"]["plain"]["model"])
    )
    driver.close()


def test_a_champion_that_learns_no_more_is_replaced_when_the_world_changes() -> None:
    """Being fresh is a quality: its old snapshot is compared with what challenges it now."""
    driver = Driver(
        replace(
            declared("better", refresh="2h", block="2h"),
            models={"better": contest.models["better"], "twin": contest.models["better"]},
        )
    )
    run(driver, 0, DAY)
    driver.runner.learn._give_up("better", "planted")
    events, labels = world(DAY, 4 * DAY)
    driver.feed(events, [{**label, "label": not label["label"]} for label in labels])

    assert ["bootstrap", "refused", "replaced"] == kinds(driver)
    [refused] = [d for d in driver.read("registry") if d["kind"] == "refused"]
    # Nobody waits for who is known to publish no more.
    assert refused["ts"] <= START + (DAY + 6 * 60) * MINUTE
    newest = driver.read("registry")[-1]["serving"]
    assert newest["champion"]["model"].startswith("twin@")
    driver.close()


def fraud(first: int, last: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """As `world`, but one in a hundred is true, and x tells of it."""
    events, labels = world(first, last)
    rand = random.Random(first)
    for event, label in zip(events, labels, strict=True):
        label["label"] = rand.random() < 0.01
        event["x"] = rand.gauss(4.0 if label["label"] else 0.0, 1.0)
    return events, labels


def test_until_the_champion_has_settled_the_declared_fallback_is_served() -> None:
    """Fraud at 1 %: over the first 5,000 labels what is served loses no more than the prior."""
    quick = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1))
    pipeline = replace(
        declared("better", refresh="1d"),
        models={"better": quick},
        label=sml.Label(bool, horizon="10m", fallback=0.01),
    )
    driver = Driver(pipeline)
    for first in range(0, 9_000, 1_000):
        driver.feed(*fraud(first, first + 1_000))
        if first == 3_000:
            driver.crash()
    examples = [decode_example(record.value) for record in driver.records("examples")]
    [settled] = [d for d in driver.read("registry") if d["kind"] == "settled"]
    served, prior, trues = 0.0, 0.0, 0
    for n, example in enumerate(examples[:5_000]):
        prior += log_loss(example.label, trues / n if n else 0.5)
        served += log_loss(example.label, example.prediction.prediction)
        trues += example.label is True

    assert served <= prior
    # At first its own answers were no good, and nobody was served them.
    own = [log_loss(e.label, e.prediction.own_answer) for e in examples[:400]]
    assert sum(own) > 10 * sum(log_loss(e.label, 0.01) for e in examples[:400])
    early = [e for e in examples if e.prediction.fallback]
    assert {0.01} == {e.prediction.prediction for e in early}
    assert 3_000 < len(early) < 8_000
    assert not any(e.prediction.fallback for e in examples[len(early) :])
    assert settled["evidence"]["loss"] <= settled["evidence"]["prior_loss"]
    assert settled["serving"].get("fallback") is None
    driver.close()


def test_without_a_declared_fallback_the_running_prior_is_served_until_it_has_settled() -> None:
    """A few decisions tell it; the champion's own answers stand beside it, and are judged."""
    driver = Driver(declared("better", settle=300, refresh="2h", mode="manual"))
    run(driver, 0, 200)
    [early] = ask(driver, "promote", "c1", model="plain", expect="better")
    assert "refused" == early["kind"]
    assert "the line 'plain' has not settled" in early["reason"]
    run(driver, 200, DAY)

    assert ["bootstrap", *["settling"] * 5, "refused"] == kinds(driver)[:7]
    assert [*["settling"] * 6, "settled"] == [k for k in kinds(driver) if k.startswith("settl")]
    predictions = driver.read("predictions")
    fallbacks = [p for p in predictions if p["fallback"]]
    assert 300 < len(fallbacks) < 800
    assert 0.5 == fallbacks[0]["prediction"]
    assert 2 <= len({p["prediction"] for p in fallbacks}) <= 7
    assert all(p["shadows"]["better"]["model"] == p["model"] for p in fallbacks)
    assert not any("better" in p["shadows"] for p in predictions if not p["fallback"])
    [late] = ask(driver, "promote", "c2", model="plain", expect="better")
    assert "replaced" == late["kind"]
    driver.close()


def test_a_command_that_expects_another_champion_is_refused() -> None:
    """The answer names the champion that does serve; nothing is switched."""
    driver = Driver(declared(mode="manual"))
    run(driver, 0, 200)

    [answer] = ask(driver, "promote", "c1", model="better", expect="better")

    present = answer["serving"]["champion"]["model"]
    assert f"promote refused: expected better to serve, but {present} does" == answer["reason"]
    assert present.startswith("plain@")
    driver.close()


def test_the_same_command_twice_changes_things_once() -> None:
    """Of a command id that was answered nothing more is said."""
    driver = Driver(declared(mode="manual"))
    run(driver, 0, 200)

    first = ask(driver, "promote", "c1", model="better", expect="plain")
    second = ask(driver, "promote", "c1", model="better", expect="plain")

    assert first == second
    assert ["bootstrap", "replaced"] == kinds(driver)
    driver.close()


def test_what_no_known_operator_signed_is_a_dead_letter() -> None:
    """Unsigned, altered and strangers' commands are refused unread."""
    driver = Driver(declared(mode="manual"))
    run(driver, 0, 200)
    command = Command("c1", "promote", START, "local", "ada", "to see", "plain", "better")
    signed = encode_command(command, KEY)
    unsigned = signed[: signed.rindex(b',"signature"')] + b"}"
    altered = signed.replace(b'"ada"', b'"eve"')
    stranger = encode_command(replace(command, operator="eve"), b"eve's")

    driver.log.append([Output("commands", b"c", v) for v in (unsigned, altered, stranger)])
    driver.run()

    reasons = [letter["reason"] for letter in driver.read("dead-letters")]
    assert ["unsigned", "signature", "unknown_operator"] == reasons
    assert ["bootstrap"] == kinds(driver)
    driver.close()


def test_a_role_may_do_what_it_says_and_no_more() -> None:
    """A guard may pause and not promote; the refusal says so."""
    driver = Driver(declared(mode="manual"), operators={"gus": Operator(b"gus's", "guard")})
    run(driver, 0, 200)

    [promote] = ask(driver, "promote", "c1", operator="gus", model="better", expect="plain")
    [pause] = ask(driver, "pause", "c2", operator="gus")

    assert "promote refused: gus is guard, which may not promote" == promote["reason"]
    assert "paused" == pause["kind"]
    driver.close()


def test_pause_stops_renewing_and_replacing_until_resume() -> None:
    """While paused what serves stays as it is, whatever the evidence."""
    driver = Driver(declared())
    run(driver, 0, DAY)
    ask(driver, "pause", "c1")
    run(driver, DAY, 5 * DAY)
    assert "paused" == driver.read("registry")[-1]["kind"]

    ask(driver, "resume", "c2")
    run(driver, 5 * DAY, 6 * DAY)

    assert "replaced" in kinds(driver)
    driver.close()


def test_a_line_may_be_declared_later() -> None:
    """A worker started with one more model goes on, and the newcomer can win the place."""
    alone = replace(contest, models={"plain": contest.models["plain"]})
    driver = Driver(alone)
    run(driver, 0, DAY)

    driver.declare(contest)
    run(driver, DAY, 5 * DAY)

    assert "better@" in driver.read("registry")[-1]["serving"]["champion"]["model"]
    driver.close()


def _example(offset: int, *, fallback: bool) -> Example:
    prediction = Prediction(
        f"e{offset}",
        "k",
        START,
        Source(0, offset),
        "better@20",
        19,
        0.5,
        fallback,
        {"x": 1.0},
        {"predecessor": Shadow("plain@10", 0.4)},
    )
    return Example(prediction, label=True, label_ts=START, label_source=Source(0, offset))


def test_no_answer_where_the_predecessor_has_one_is_harm_at_once() -> None:
    """NaN, or a score out of range, is no answer: the guard does not wait for a block."""
    guard = SuccessorGuard(contest.rules)
    guard.watch(active=True)

    assert guard.add(_example(0, fallback=False), 0.1, START, "plain@10") is None
    harm = guard.add(_example(1, fallback=True), None, START, "plain@10")

    assert harm is not None
    assert "better@20 has no answer where plain@10 has one" == harm.reason


def constant(intercept: float) -> Any:
    """A model that learns nothing and says one thing."""
    return linear_model.LogisticRegression(
        optimizer=optim.SGD(0.0), intercept_lr=0.0, intercept_init=intercept
    )


def rare(mode: str) -> sml.Pipeline:
    """One label in ten is true; the champion says a half, and its challenger three tenths."""
    return replace(
        contest,
        champion="half",
        models={"half": constant(0.0), "tenths": constant(-0.85)},
        promotion=replace(contest.promotion, mode=mode),
    )


def feed_rare(driver: Driver, minutes: int) -> None:
    """So many minutes with an event and its label each."""
    rand = random.Random(5)
    events, labels = world(0, minutes)
    driver.feed(events, [{**label, "label": rand.random() < 0.1} for label in labels])


def test_better_than_the_champion_is_not_good_enough() -> None:
    """Evidence suffices, and a gate rejects: what does worse than the prior is not promoted."""
    with Driver(rare("automatic")) as driver:
        feed_rare(driver, 5 * DAY)

        assert ["bootstrap"] == kinds(driver)
        evidence = [e for e in driver.read("evaluations") if e["model"] == "tenths"]
        newest = evidence[-1]["evidence"]
        assert newest["e_value"] >= newest["needed"]
        assert "reject" == newest["verdict"]
        assert newest["verdict_reason"].startswith("worse than prior: ")


def test_a_gated_operator_is_told_which_gate_rejects() -> None:
    """The command is refused with the gate's figures."""
    with Driver(rare("gated")) as driver:
        feed_rare(driver, 2 * DAY)
        [answer] = ask(driver, "promote", "c1", model="tenths", expect="half")

        assert "refused" == answer["kind"]
        assert "tenths is rejected: worse than prior: " in answer["reason"]


def test_each_challenger_has_a_verdict_with_its_reason() -> None:
    """Held while evidence is missing, then to be promoted, and gone once it has been."""
    with Driver(declared(mode="gated")) as driver:
        run(driver, 0, 4 * DAY)

        evidence = [e["evidence"] for e in driver.read("evaluations") if e["model"] == "better"]
        verdicts = list(dict.fromkeys(figures["verdict"] for figures in evidence))
        assert ["hold", "promote"] == verdicts
        held = next(figures for figures in evidence if figures["verdict"] == "hold")
        assert f"E is {held['e_value']:.3g} of 60" == held["verdict_reason"]
        [answer] = ask(driver, "promote", "c1", model="better", expect="plain")
        assert "promote" == answer["evidence"]["verdict"]
