"""Evaluate: when models are renewed, when they are not, and what is said about how they stand."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model

import stream_ml as sml
from stream_ml.codec import decode_decision, encode_command, record_hash
from stream_ml.models import envelope
from stream_ml.models import snapshot as snapshots
from stream_ml.records import Command, Record, Shadow
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import EVALUATE_EVERY, Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.refresh import STALE_EXAMPLES, Arrival, Refresh
from stream_ml.stages.staleness import REFRESHES
from tests.shop import KEY, START_MS, declare, example, shop, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Decision, Output

LINES = ("logistic", "bayes")


class Stage:
    """An evaluate stage, fed with snapshots and examples that say what a test wants them to."""

    def __init__(self, pipeline: Pipeline = shop) -> None:
        self.pipeline = pipeline
        self.evaluate = Evaluate(pipeline, Keyring(KEY, {}))
        self.offsets = {"models": 0, "examples": 0}
        self.outputs: list[Output] = []
        self.days = 0

    def publish(self, *models: str, **options: Any) -> list[Decision]:
        """Let lines publish, `name@version` each, and return what was decided."""
        return self.put(*(self.snapshot(model, **options) for model in models))

    def put(self, *taken: Snapshot) -> list[Decision]:
        """Feed snapshots."""
        records = [
            self._record("models", snapshot.model.encode(), snapshot.encode()) for snapshot in taken
        ]
        return self._fold(records)

    def command(self, kind: str, **members: Any) -> list[Decision]:
        """Let the holder of our own key command something."""
        number = len(self.outputs)
        given = Command(
            f"c{number}", kind, 0, "local", "ada", "to see", pipeline=self.pipeline.name, **members
        )
        return self._fold([Record("commands", 0, number, None, encode_command(given, KEY), 0)])

    def learn(self, count: int, **options: Any) -> list[Decision]:
        """Feed examples."""
        records = []
        for _ in range(count):
            offset = self.offsets["examples"]
            self.offsets["examples"] += 1
            records.append(example(offset, offset % 3 == 0, {"amount": 1.0}, **options))
        return self._fold(records)

    def let_pass(self) -> None:
        """Let days pass, with examples under the newest set: no label can come for others."""
        newest = Shadow("bayes@0", offset=self.offsets["models"])
        for _ in range(2):
            self.days += 1
            for _ in range(4):
                ts = START_MS + 86_400_000 * self.days + self.offsets["examples"]
                self.learn(1, shadows={"bayes": newest}, ts=ts)

    def snapshot(
        self,
        model: str,
        *,
        excess: float = 0.0,
        blocks: int = 0,
        lines: Any = None,
        parent: str | None = "its own",
    ) -> Snapshot:
        """An untrained model that says this of itself: so much worse in each of so many blocks."""
        name, _, version = model.partition("@")
        epoch: dict[str, Any] = {
            "watermark": 0,
            "excess": {
                "blocks": blocks,
                "total": blocks * excess,
                "squares": blocks * excess**2,
            },
        }
        if lines is not None:
            epoch["lines"] = lines
        return snapshots.take(
            self.pipeline.recipes[name].fresh(),
            self.pipeline.recipes[name],
            self.pipeline.target,
            version=int(version),
            feature_hash=self.pipeline.feature_set.hash,
            parent=None if version == "0" or parent is None else f"{name}@0",
            key=KEY,
            epoch=epoch,
            golden_features=[{"amount": 1.0}],
        )

    def dead_letters(self) -> list[str]:
        """Why records were refused."""
        letters = [o.value or b"" for o in self.outputs if o.topic == "dead-letters"]
        return [orjson.loads(letter)["reason"] for letter in letters]

    def tombstones(self) -> list[str]:
        """Which snapshots were given up."""
        gone = [o for o in self.outputs if o.topic == "models" and o.value is None]
        return [(output.key or b"").decode() for output in gone]

    def _record(self, topic: str, key: bytes, value: bytes) -> Record:
        offset = self.offsets[topic]
        self.offsets[topic] += 1
        return Record(topic, 0, offset, key, value, 0)

    def _fold(self, records: list[Record]) -> list[Decision]:
        outputs = []
        for record in records:
            for offset in self.evaluate.wanted([record]):
                self.evaluate.supply(offset, None)
            outputs += self.evaluate.apply([record])
        self.outputs += outputs
        return [decode_decision(r.value, KEY) for r in written(outputs, "registry")]


@pytest.fixture
def stage() -> Stage:
    """A stage that has seen nothing."""
    return Stage()


@pytest.fixture
def serving(stage: Stage) -> Stage:
    """A stage whose first set serves."""
    stage.publish("logistic@0", "bayes@0")
    return stage


def told(decisions: list[Decision]) -> list[tuple[str, str, list[str]]]:
    """Kind, champion and challengers of each decision."""
    return [
        (d.kind, d.serving.champion.model, [ref.model for ref in d.serving.challengers.values()])
        for d in decisions
    ]


# --- renewal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("logistic@0", "bayes@0"), ("bayes@0", "logistic@0")])
def test_the_first_set_waits_for_every_line(stage: Stage, order: tuple[str, str]) -> None:
    """Nothing serves until all lines have published @0, whichever comes first."""
    assert [] == stage.publish(order[0])

    assert [("bootstrap", "logistic@0", ["bayes@0"])] == told(stage.publish(order[1]))


def test_a_refresh_renews_all_lines_at_once(serving: Stage) -> None:
    """One line's new snapshot alone changes nothing: what is compared has the same age."""
    assert [] == serving.publish("logistic@500")
    (decision,) = serving.publish("bayes@500")

    assert [("refreshed", "logistic@500", ["bayes@500"])] == told([decision])
    assert "all lines published @500" == decision.reason


def test_decisions_are_numbered_and_name_what_was_read(serving: Stage) -> None:
    """An auditor can tell the order, and how far the inputs had been read."""
    serving.learn(3)
    (decision,) = serving.publish("logistic@500", "bayes@500")

    assert (1, "evaluate") == (decision.number, decision.actor)
    assert (3, 4) == (decision.inputs["examples"], decision.inputs["models"])


def test_lines_at_different_instants_are_not_mixed(serving: Stage) -> None:
    """An instant that one line skips is passed over when a later one is complete."""
    assert [] == serving.publish("logistic@500", "logistic@1000")
    decisions = serving.publish("bayes@1000")

    assert [("refreshed", "logistic@1000", ["bayes@1000"])] == told(decisions)
    assert [] == serving.publish("bayes@1001")


def test_a_line_that_stays_away_is_waited_for_1000_examples(serving: Stage) -> None:
    """Then the others are renewed without it, until it publishes again; it stays as it was."""
    serving.learn(500)
    assert [] == serving.publish("logistic@500")
    assert [] == serving.learn(STALE_EXAMPLES - 1)
    (decision,) = serving.learn(1)
    assert [("refreshed", "logistic@500", ["bayes@0"])] == told([decision])
    assert "some lines published @500; bayes@0 stays" == decision.reason

    assert [("refreshed", "logistic@1600", ["bayes@0"])] == told(serving.publish("logistic@1600"))
    assert [] == serving.publish("bayes@1700")
    (decision,) = serving.publish("logistic@1700")
    assert [("refreshed", "logistic@1700", ["bayes@1700"])] == told([decision])
    reason = "all lines published @1700; bayes is renewed again, after 2 refreshes without it"
    assert reason == decision.reason


def test_a_line_that_is_said_to_publish_no_more_is_waited_for_by_nobody(serving: Stage) -> None:
    """Each snapshot names the lines that publish with it: a quarantined one delays no other."""
    alone, both = ["logistic"], ["logistic", "bayes"]
    assert [("refreshed", "logistic@20", ["bayes@0"])] == told(
        serving.publish("logistic@20", lines=alone)
    )

    assert [] == serving.publish("logistic@40", lines=both)
    assert [("refreshed", "logistic@40", ["bayes@40"])] == told(
        serving.publish("bayes@40", lines=both)
    )


def test_a_line_that_publishes_again_is_waited_for_again(serving: Stage) -> None:
    """Stale is who is silent: with its next snapshot a line is one of all lines as before."""
    serving.learn(500)
    serving.publish("logistic@500")
    serving.learn(STALE_EXAMPLES)
    serving.publish("bayes@1600")

    assert [] == serving.publish("logistic@1700")
    assert [("refreshed", "logistic@1700", ["bayes@1700"])] == told(serving.publish("bayes@1700"))


@pytest.mark.parametrize("line", LINES)
def test_what_is_not_signed_with_our_key_never_serves_nor_shadows(
    serving: Stage, line: str
) -> None:
    """A snapshot of either line that somebody altered or signed is a dead letter, not a model."""
    other = next(name for name in LINES if name != line)
    genuine = serving.snapshot(f"{line}@20")

    assert [] == serving.put(replace(genuine, signature="0" * 64), replace(genuine, signature=None))
    assert [] == serving.publish(f"{other}@20")

    assert ["snapshot_signature", "snapshot_unsigned"] == serving.dead_letters()


def test_a_champion_that_stays_away_keeps_serving_as_it_is(serving: Stage) -> None:
    """The others are renewed without it, and a decision says why, once."""
    serving.learn(500)
    serving.publish("bayes@500")
    refused, refreshed = serving.learn(STALE_EXAMPLES)

    assert [("refused", "logistic@0", ["bayes@0"]), ("refreshed", "logistic@0", ["bayes@500"])] == (
        told([refused, refreshed])
    )
    assert (
        "logistic@500 refused: it published nothing; logistic@0 stays, and other lines are "
        "renewed; promote a challenger to go on"
    ) == refused.reason
    assert "some lines published @500; logistic@0 stays" == refreshed.reason
    assert [("refreshed", "logistic@0", ["bayes@520"])] == told(serving.publish("bayes@520"))


def test_a_champion_that_has_diverged_is_told_once_and_holds_up_nobody(serving: Stage) -> None:
    """One decision and one alert when it begins, a count when it ends; the others are renewed."""
    decisions = []
    for version in range(20, 120, 20):
        decisions += serving.publish(f"bayes@{version}")
        excess = 0.3 if 40 <= version <= 80 else 0.0
        decisions += serving.publish(f"logistic@{version}", excess=excess, blocks=4)

    assert [
        ("refreshed", "logistic@20", ["bayes@20"]),
        ("refused", "logistic@20", ["bayes@20"]),
        ("refreshed", "logistic@20", ["bayes@40"]),
        ("refreshed", "logistic@20", ["bayes@60"]),
        ("refreshed", "logistic@20", ["bayes@80"]),
        ("refreshed", "logistic@100", ["bayes@100"]),
    ] == told(decisions)
    assert (
        "logistic@40 refused: its learner has diverged: it loses 0.3000 more than what serves on "
        "the newest 200 examples, where 0.005 is borne; logistic@20 stays, and other lines are "
        "renewed; promote a challenger to go on"
    ) == decisions[1].reason
    reason = "all lines published @100; logistic is renewed again, after 3 refreshes without it"
    assert reason == decisions[-1].reason
    alerts = [orjson.loads(o.value or b"") for o in serving.outputs if o.topic == "alerts"]
    assert [
        ("line_refused", "open", "line:logistic"),
        ("line_refused", "resolved", "line:logistic"),
    ] == [(alert["kind"], alert["state"], alert["subject"]) for alert in alerts]
    # What the champion was switched from stays what the guard compares it with.
    assert ["logistic@0"] * 5 + ["logistic@20"] == [
        d.serving.predecessor and d.serving.predecessor.model for d in decisions
    ]


def test_the_lines_that_stay_do_so_across_a_restart(serving: Stage) -> None:
    """Neither is it told again, nor is the count lost, nor what speaks for the divergence."""
    serving.publish("bayes@20")
    serving.publish("logistic@20", excess=0.3, blocks=4)
    restarted = Stage()
    restarted.offsets = serving.offsets
    restarted.evaluate.restore([(n, value or b"") for n, value in serving.evaluate.dirty()])

    restarted.publish("bayes@40")
    assert ["refreshed"] == [d.kind for d in restarted.publish("logistic@40")]
    (decision,) = [
        *restarted.publish("bayes@60"),
        *restarted.publish("logistic@60", excess=0.0, blocks=1),
    ]
    assert "logistic is renewed again, after 2 refreshes without it" in decision.reason


def test_a_learner_that_starts_anew_is_not_held_to_what_has_diverged(serving: Stage) -> None:
    """Its snapshot names none before it: nothing speaks against it yet, and it is renewed."""
    serving.publish("bayes@20")
    serving.publish("logistic@20", excess=0.3, blocks=4)
    serving.publish("bayes@40")
    assert "logistic@40" not in str(told(serving.publish("logistic@40")))
    anew = serving.snapshot("logistic@60", parent=None)
    serving.publish("bayes@60")

    assert [("refreshed", "logistic@60", ["bayes@60"])] == told(serving.put(anew))


def test_a_challenger_that_has_diverged_goes_on_shadowing(serving: Stage) -> None:
    """Only what serves is guarded; a challenger is judged by its evidence."""
    serving.publish("bayes@500", excess=0.9, blocks=9)

    assert [("refreshed", "logistic@500", ["bayes@500"])] == told(serving.publish("logistic@500"))


@pytest.mark.parametrize("line", LINES)
def test_a_model_that_answers_otherwise_than_it_says_is_not_renewed(
    serving: Stage, line: str
) -> None:
    """Signed as it is, its golden predictions are made again and must agree; the other goes on."""
    other = next(name for name in LINES if name != line)
    taken = serving.snapshot(f"{line}@500")
    lying = replace(taken, golden=(replace(taken.golden[0], answer=0.9),), signature=None)
    signature = envelope.sign(lying.encode(), KEY)
    serving.publish(f"{other}@500")
    refused, refreshed = serving.put(replace(lying, signature=signature))

    assert ("refused", "refreshed") == (refused.kind, refreshed.kind)
    assert "expected golden answer 0 0.9, given" in refused.reason
    models = {name: ref.model for name, ref in refreshed.serving.lines.items()}
    assert {line: f"{line}@0", other: f"{other}@500"} == models


def test_a_line_whose_snapshots_are_refused_cannot_take_over(serving: Stage) -> None:
    """It could not be renewed as champion; once it is sound again, it may."""
    taken = serving.snapshot("bayes@500")
    lying = replace(taken, golden=(replace(taken.golden[0], answer=0.9),), signature=None)
    serving.put(replace(lying, signature=envelope.sign(lying.encode(), KEY)))
    serving.publish("logistic@500")
    (decision,) = serving.command("promote", model="bayes", expect="logistic")
    assert "the line 'bayes' publishes no more, or nothing sound" in decision.reason

    serving.publish("bayes@520", "logistic@520")
    (decision,) = serving.command("promote", model="bayes", expect="logistic")
    assert ("replaced", "bayes@520") == (decision.kind, decision.serving.champion.model)


def test_an_alert_about_a_line_that_was_taken_out_resolves_after_the_start(serving: Stage) -> None:
    """Nobody renews it any more, so nothing else could; a crash before it is told loses nothing."""
    taken = serving.snapshot("bayes@500")
    lying = replace(taken, golden=(replace(taken.golden[0], answer=0.9),), signature=None)
    serving.put(replace(lying, signature=envelope.sign(lying.encode(), KEY)))
    serving.publish("logistic@500")
    without = declare(models={"logistic": shop.models["logistic"]})

    states: list[list[str]] = []
    stage = serving
    for pipeline in (shop, without, without):
        pieces = [(name, piece) for name, piece in stage.evaluate.dirty() if piece is not None]
        Stage(pipeline).evaluate.restore(pieces)  # stopped before it has read anything
        stage = Stage(pipeline)
        stage.offsets = serving.offsets
        stage.evaluate.restore(pieces)
        stage.learn(1)
        alerts = [o.memo for o in stage.outputs if o.topic == "alerts"]
        states.append([f"{alert.kind} {alert.subject} {alert.state}" for alert in alerts])

    assert [[], ["line_refused line:bayes resolved"], []] == states


def test_a_model_that_answers_nan_is_never_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is quarantined where it learns, so that evaluate has nothing to refuse."""
    monkeypatch.setattr(
        linear_model.LogisticRegression, "predict_proba_one", lambda *_: {True: float("nan")}
    )
    records = [example(n, n % 2 == 0, {"amount": 1.0}) for n in range(20)]
    outputs = Learn(shop, KEY).apply(records)

    assert [b"bayes@20"] == [output.key for output in outputs if output.topic == "models"]
    (alert,) = [orjson.loads(o.value or b"") for o in outputs if o.topic == "alerts"]
    assert "expected a finite number, given nan" in alert["message"]


def test_the_former_snapshot_and_the_first_one_go_on_as_shadows(serving: Stage) -> None:
    """The predecessor shows what the switch was worth, the first what learning on is worth."""
    sets = [
        decision.serving
        for version in (20, 40, 60)
        for decision in serving.publish(f"logistic@{version}", f"bayes@{version}")
    ]

    assert [None, "logistic@40", "logistic@40"] == [s.first and s.first.model for s in sets]
    assert sets[0].predecessor is not None
    assert "logistic@0" == sets[0].predecessor.model


def test_a_predecessor_stays_until_the_guard_has_judged_it() -> None:
    """Refreshes meanwhile change what serves, not what it is held against; too young is none."""
    stage = Stage(declare(promotion=sml.Promotion(refresh=20, first=1)))
    sets = [
        decision.serving
        for version in (0, 20, 40, 60)
        for decision in stage.publish(f"logistic@{version}", f"bayes@{version}")
    ]

    assert [None, "logistic@0", "logistic@20", "logistic@20"] == [
        each.predecessor and each.predecessor.model for each in sets
    ]


def test_after_a_replacement_the_former_champion_stays_as_predecessor() -> None:
    """Refreshes do not take from the guard what it returns to, were the switch harmful."""
    stage = Stage(declare(promotion=sml.Promotion(refresh=20, first=1)))
    stage.publish("logistic@0", "bayes@0", "logistic@20", "bayes@20")
    stage.command("promote", model="bayes", expect="logistic")

    (decision,) = stage.publish("logistic@40", "bayes@40")

    assert ("refreshed", "bayes@40") == (decision.kind, decision.serving.champion.model)
    assert decision.serving.predecessor is not None
    assert "logistic@20" == decision.serving.predecessor.model


def test_a_replacement_ends_what_an_operators_rollback_froze() -> None:
    """Who promotes by hand after a rollback has models renewed again, whichever line serves."""
    stage = Stage(declare(promotion=sml.Promotion(refresh=20, first=1)))
    stage.publish("logistic@0", "bayes@0", "logistic@20", "bayes@20")
    stage.command("rollback", expect="logistic")
    stage.command("promote", model="bayes", expect="logistic")
    stage.command("promote", model="logistic", expect="bayes")

    decisions = stage.publish("logistic@40", "bayes@40")

    assert [("refreshed", "logistic@40", ["bayes@40"])] == told(decisions)


@pytest.mark.parametrize("kind", ["promote", "rollback"])
def test_who_switches_says_what_is_believed_to_serve(serving: Stage, kind: str) -> None:
    """A command that changes what serves and names no champion is refused with its name."""
    model = "bayes" if kind == "promote" else None

    (decision,) = serving.command(kind, model=model)

    assert [("refused", "logistic@0", ["bayes@0"])] == told([decision])
    assert "expected the present champion in `expect`; it is logistic@0" in decision.reason


def test_each_decision_names_the_record_before_it(serving: Stage) -> None:
    """By its hash, the first one by none: what is altered or taken out shows in the next."""
    serving.publish("logistic@20", "bayes@20")
    serving.command("pause")
    values = [output.value or b"" for output in serving.outputs if output.topic == "registry"]

    assert ["0" * 64, *map(record_hash, values[:-1])] == [
        decode_decision(value, KEY).previous for value in values
    ]


# --- what is kept -----------------------------------------------------------------------------


def test_challengers_snapshots_are_given_up_beyond_keep() -> None:
    """Of snapshots that never served the newest `keep` stay; what served stays for good."""
    stage = Stage(declare(keep=2))
    for version in range(0, 100, 20):
        stage.publish(f"logistic@{version}", f"bayes@{version}")
        stage.let_pass()

    assert ["bayes@0", "bayes@20", "bayes@40"] == stage.tombstones()


def test_a_snapshot_that_has_still_to_answer_is_not_given_up() -> None:
    """Until the label of all that it shadowed has come, or can come no more; also over a restart.

    However many sets predict is behind: not before an example has named a later set.
    """
    stage = Stage(declare(keep=1))
    for version in range(0, 100, 20):
        stage.publish(f"logistic@{version}", f"bayes@{version}")
    for number in range(20):
        stage.learn(
            1, ts=START_MS + 86_400_000 + number, shadows={"bayes": Shadow("bayes@0", None, 1)}
        )
    stage.publish("logistic@100", "bayes@100")
    assert [] == stage.tombstones()
    pieces = [(name, value or b"") for name, value in stage.evaluate.dirty()]
    stage.evaluate = Evaluate(stage.pipeline, Keyring(KEY, {}))
    stage.evaluate.restore(pieces)
    stage.let_pass()
    stage.publish("logistic@120", "bayes@120")

    assert ["bayes@0", "bayes@20", "bayes@40", "bayes@60", "bayes@80"] == stage.tombstones()


def test_only_our_own_tombstones_pass() -> None:
    """Each comes back once, also behind a restart; any other is a dead letter."""
    stage = Stage(declare(keep=2))
    for version in range(0, 80, 20):
        stage.publish(f"logistic@{version}", f"bayes@{version}")
        stage.let_pass()
    assert ["bayes@0", "bayes@20"] == stage.tombstones()

    def come_back(evaluate: Evaluate, *models: bytes) -> list[str]:
        records = [Record("models", 0, 90, model, None, 0) for model in models]
        return [output.topic for output in evaluate.apply(records)]

    assert [] == come_back(stage.evaluate, b"bayes@0")
    assert ["dead-letters"] == come_back(stage.evaluate, b"logistic@60")
    restarted = Stage(declare(keep=2)).evaluate
    restarted.restore([(name, value or b"") for name, value in stage.evaluate.dirty()])
    assert [] == come_back(restarted, b"bayes@20")
    assert ["dead-letters"] * 2 == come_back(restarted, b"bayes@0", b"bayes@20")


def test_a_challenger_that_was_promoted_is_not_given_up() -> None:
    """What has served stays for good, also where a command made it serve."""
    stage = Stage(declare(keep=1))
    stage.publish("logistic@0", "bayes@0", "logistic@20", "bayes@20")
    stage.command("promote", model="bayes", expect="logistic")
    stage.command("promote", model="logistic", expect="bayes")
    for version in (40, 60, 80, 100):
        stage.publish(f"logistic@{version}", f"bayes@{version}")
        stage.let_pass()

    assert ["bayes@0", "bayes@40", "bayes@60"] == stage.tombstones()


def test_what_shadows_now_is_not_given_up_however_old_it_is() -> None:
    """While a line publishes nothing the set that serves can be loaded again after a restart."""
    models = ("logistic", "bayes", "steady")
    stage = Stage(declare(keep=2, models=dict.fromkeys(models, shop.models["logistic"])))
    stage.publish("logistic@0", "bayes@0", "steady@0")
    for version in range(20, 200, 20):
        stage.publish(f"steady@{version}", lines=["logistic", "steady"])
        stage.publish(f"logistic@{version}", lines=["logistic", "steady"])
        stage.let_pass()
    assert "bayes@0" not in stage.tombstones()
    assert "steady@0" in stage.tombstones()

    stage.publish(*(f"{name}@200" for name in models))
    for version in (220, 240):
        stage.publish(*(f"{name}@{version}" for name in models))
        stage.let_pass()
    assert "bayes@0" in stage.tombstones()


def test_a_snapshot_published_again_is_refused(serving: Stage) -> None:
    """A line's versions only grow: an old snapshot, genuine as it is, is not taken twice."""
    old = serving.snapshot("logistic@0")
    assert [] == serving.put(old)

    assert ["repeated"] == serving.dead_letters()


@pytest.mark.parametrize("value", [b"", b"{}", b"null", b'{"model": "logistic"}'])
def test_what_is_no_snapshot_becomes_one_dead_letter(serving: Stage, value: bytes) -> None:
    """A bad record on `models` changes nothing."""
    outputs = serving.evaluate.apply([Record("models", 0, 9, b"logistic@9", value, 0)])
    assert ["dead-letters"] == [output.topic for output in outputs]


def test_what_is_no_example_becomes_one_dead_letter(serving: Stage) -> None:
    """A bad record on `examples` is counted by nobody."""
    outputs = serving.evaluate.apply([Record("examples", 0, 0, None, b"{", 0)])

    assert [("dead-letters", "not_json")] == [
        (output.topic, orjson.loads(output.value or b"")["reason"]) for output in outputs
    ]


# --- scores -----------------------------------------------------------------------------------


def test_evaluations_are_published_every_1000_examples(serving: Stage) -> None:
    """One per model: what served, each challenger, and the baselines."""
    serving.learn(EVALUATE_EVERY - 1, said=0.75, shadows={"bayes": None})
    assert [] == written(serving.outputs, "evaluations")
    serving.learn(1, said=0.75, shadows={"bayes": None})
    reports = [orjson.loads(r.value or b"") for r in written(serving.outputs, "evaluations")]

    models = [report["model"] for report in reports]
    assert ["served", "bayes"] == models[:2]
    assert {EVALUATE_EVERY} == {report["n"] for report in reports if report["model"] == "served"}
    served = reports[0]
    positives = sum(n % 3 == 0 for n in range(EVALUATE_EVERY))
    brier = (positives * 0.25**2 + (EVALUATE_EVERY - positives) * 0.75**2) / EVALUATE_EVERY
    assert pytest.approx(brier, abs=1e-12) == served["scores"]["cumulative"]["brier"]
    assert {"p50": 500, "p90": 500, "p99": 500} == served["delay_ms"]


def test_scores_are_of_answers_and_of_those_who_may_serve(stage: Stage) -> None:
    """A fallback is scored of nobody, and what was switched from is judged by the guard alone."""
    for offset in range(10):
        record = example(offset, True, {"amount": 1.0}, said=0.75)
        members = orjson.loads(record.value or b"")
        members["fallback"] = offset % 2 == 0
        members["shadows"] = {
            slot: {"model": f"{slot}@0", "prediction": 0.5} for slot in ("bayes", "predecessor")
        }
        stage.evaluate.apply([replace(record, value=orjson.dumps(members), memo=None)])

    reports = {report.model: report for report in stage.evaluate.report()}
    assert {"served", "bayes"} == reports.keys() - {"prior", "last", "mean"}
    assert (0.5, 1.0) == (reports["served"].coverage, reports["bayes"].coverage)
    brier = reports["served"].scores["cumulative"]["brier"]
    assert pytest.approx(0.25**2, abs=1e-12) == brier


def test_no_label_is_part_of_its_own_baseline(stage: Stage) -> None:
    """Even where truth comes without delay, the prior of its event does not know it."""
    for offset in range(4):
        at = START_MS + offset
        stage.evaluate.apply([example(offset, True, {"amount": 1.0}, ts=at, label_ts=at)])

    (prior,) = (report for report in stage.evaluate.report() if report.model == "prior")
    assert 0.75 == prior.coverage


# --- order and state --------------------------------------------------------------------------


def story(seed: int) -> Iterator[tuple[str, Any]]:
    """What happens on both topics: examples, and every line's snapshots of each instant."""
    rand = random.Random(seed)
    learn = Learn(shop, KEY)
    yield "models", written(learn.start(), "models")
    offset = 2
    for start in range(0, 100, 20):
        examples = [
            example(n, rand.random() < 0.4, {"amount": rand.random()})
            for n in range(start, start + 20)
        ]
        yield "examples", examples
        models = written(learn.apply(examples), "models", offset)
        offset += len(models)
        yield "models", models


def renewed(outputs: list[Output]) -> list[tuple[str, Any]]:
    """Which sets were written."""
    decisions = [decode_decision(r.value, KEY) for r in written(outputs, "registry")]
    return [(decision.kind, decision.serving) for decision in decisions]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_how_snapshots_and_examples_interleave_does_not_matter(seed: int) -> None:
    """Read in any alternation and any batches, the same sets are written in the same order."""
    rand = random.Random(seed)
    told_ = list(story(seed))
    in_order = Evaluate(shop, Keyring(KEY, {}))
    expected = renewed([o for _, records in told_ for o in in_order.apply(records)])
    queues = {
        topic: [record for each, records in told_ if each == topic for record in records]
        for topic in ("models", "examples")
    }
    evaluate, outputs = Evaluate(shop, Keyring(KEY, {})), list[Any]()
    while any(queues.values()):
        topic = rand.choice([topic for topic, queue in queues.items() if queue])
        size = rand.choice([1, 1, 5, 50])
        outputs += evaluate.apply(queues[topic][:size])
        del queues[topic][:size]

    assert 6 == len(expected)
    assert expected == renewed(outputs), f"seed {seed}"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_state_written_and_taken_up_goes_on_alike(seed: int) -> None:
    """Restored at any point, the stage writes the very bytes that it would have written."""
    rand = random.Random(seed)
    batches = [
        records[start : start + 7]
        for _, records in story(seed)
        for start in range(0, len(records), 7)
    ]
    whole, evaluate = Evaluate(shop, Keyring(KEY, {})), Evaluate(shop, Keyring(KEY, {}))
    for batch in batches:
        if rand.random() < 0.5:
            pieces = [(name, piece) for name, piece in evaluate.dirty() if piece is not None]
            evaluate = Evaluate(shop, Keyring(KEY, {}))
            evaluate.restore(pieces)
        expected = [output.value for output in whole.apply(batch)]
        assert expected == [output.value for output in evaluate.apply(batch)], f"seed {seed}"


def test_serving_something_else_than_was_published_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check on interleaving notices a stage that renews a line as soon as it publishes."""

    def hasty(self: Refresh, version: int) -> dict[str, Arrival]:
        return self._waiting[version]

    monkeypatch.setattr(Refresh, "complete", hasty)
    stage = Stage()
    assert [] != stage.publish("logistic@0")


def test_a_forgotten_pause_is_told_once_and_until_it_is_over() -> None:
    """Five refreshes without what serves are an alert; the one that renews it resolves it."""
    stage = Stage()
    stage.publish("logistic@0", "bayes@0")
    stage.command("pause")
    for version in range(20, 20 * (REFRESHES + 3), 20):
        stage.publish(f"logistic@{version}", f"bayes@{version}")
        pieces = [(name, piece) for name, piece in stage.evaluate.dirty() if piece is not None]
        stage.evaluate = Evaluate(shop, Keyring(KEY, {}))
        stage.evaluate.restore(pieces)
    stage.command("resume")
    stage.publish("logistic@200", "bayes@200")

    alerts = [o.memo for o in stage.outputs if o.topic == "alerts"]
    assert [("staleness", "open", "line:logistic"), ("staleness", "resolved", "line:logistic")] == [
        (alert.kind, alert.state, alert.subject) for alert in alerts
    ]
    assert (
        f"logistic@0 was not renewed at the last {REFRESHES} refreshes, up to @{20 * REFRESHES}: "
        "an operator has paused, until `resume`"
    ) == alerts[0].message
