"""Serving: a set is applied whole or not at all, and only what is signed is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import dummy

from stream_ml.codec import decode_decision, decode_prediction, encode_decision
from stream_ml.generation import APPLIED, Generation
from stream_ml.records import Output, Record, ServingSet, Shadow
from stream_ml.signing import Keyring
from stream_ml.stages import serving as serving_module
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from tests.shop import KEY, declare, event, example, shop, written

if TYPE_CHECKING:
    from collections.abc import Callable


class World:
    """What lies on `models` and `registry` after 60 examples: four instants, four sets."""

    def __init__(self, log: str | None = None) -> None:
        learn, evaluate = Learn(shop, KEY, log=log), Evaluate(shop, Keyring(KEY, {}), log)
        examples = [example(n, n % 3 == 0, {"amount": float(n % 7)}) for n in range(60)]
        self.models = written([*learn.start(), *learn.apply(examples)], "models")
        self.registry = written(evaluate.apply(self.models), "registry")

    def decision(self, number: int, serving: ServingSet | None = None, key: bytes = KEY) -> Record:
        """A decision of the registry, or one like it about another set."""
        record = self.registry[number]
        decision = decode_decision(record.value, KEY)
        value = encode_decision(replace(decision, serving=serving or decision.serving), key)
        return Record("registry", 0, record.offset, None, value, record.append_ms)

    def applied(self, generation: Generation) -> Record:
        """A decision behind the others that begins other features."""
        record = self.registry[-1]
        last = decode_decision(record.value, KEY)
        evidence = generation.as_dict()
        number = last.number + generation.number
        decision = replace(last, number=number, kind=APPLIED, evidence=evidence)
        value = encode_decision(decision, KEY)
        return Record("registry", 0, record.offset + 1, None, value, record.append_ms)

    def set_of(self, number: int) -> ServingSet:
        """The serving set of a decision."""
        return decode_decision(self.registry[number].value, KEY).serving


@pytest.fixture(scope="module")
def world() -> World:
    """Made once: nothing in it changes."""
    return World()


@pytest.fixture
def serving(world: World) -> Serving:
    """Serves the first set."""
    serving = Serving(shop, KEY)
    serving.apply(world.models[:2])
    serving.apply(world.registry[:1])
    assert serving.current() is not None
    return serving


def serves(serving: Serving) -> dict[str, str] | None:
    """Who serves and shadows, by slot."""
    loaded = serving.current()
    if loaded is None:
        return None
    shadows = {slot: shadow.model for slot, shadow in loaded.shadows.items()}
    return {"champion": loaded.champion.ref.model} | shadows


def written_values(outputs: list[Output]) -> list[bytes | None]:
    """Predictions as they are written."""
    return [output.value for output in outputs if output.topic == "predictions"]


BOOTSTRAP = {"champion": "logistic@0", "bayes": "bayes@0"}
AT_20 = {"champion": "logistic@20", "bayes": "bayes@20", "predecessor": "logistic@0"}


def test_nothing_serves_before_the_first_set(world: World) -> None:
    """Snapshots alone are not enough, nor is a set without its champion's snapshot."""
    serving = Serving(shop, KEY)
    assert serves(serving) is None
    serving.apply(world.models[1:2])
    assert serves(serving) is None
    serving.apply(world.registry[:1])
    assert (None, [0]) == (serves(serving), serving.missing())

    serving.apply(world.models[:1])
    assert (BOOTSTRAP, []) == (serves(serving), serving.missing())


def test_a_set_is_applied_whole_or_not_at_all(world: World, serving: Serving) -> None:
    """While its champion's snapshot is missing every slot stays as it was; no other is needed."""
    serving.apply(world.registry[1:2])
    assert BOOTSTRAP == serves(serving)
    serving.apply(world.models[3:4])
    assert (BOOTSTRAP, [2]) == (serves(serving), serving.missing())

    serving.apply(world.models[2:3])
    assert AT_20 == serves(serving)


def test_no_snapshot_is_waited_for_or_opened_but_the_champions(
    monkeypatch: pytest.MonkeyPatch, world: World, serving: Serving
) -> None:
    """Challengers, predecessor and first model cost predict nothing, however large they are."""
    opened: list[str] = []
    open_snapshot = serving_module.open_snapshot

    def spy(snapshot: Any, *arguments: Any) -> Any:
        opened.append(snapshot.model)
        return open_snapshot(snapshot, *arguments)

    monkeypatch.setattr(serving_module, "open_snapshot", spy)
    serving.apply(world.models[2:3])
    serving.apply(world.registry[1:2])

    assert (AT_20, ["logistic@20"]) == (serves(serving), opened)
    loaded = serving.current()
    assert loaded is not None
    assert Shadow("bayes@20", None, 3) == loaded.shadows["bayes"]


def test_a_shadow_that_is_promoted_is_brought_again(world: World, serving: Serving) -> None:
    """Its snapshot was read before, and is wanted from where it lies."""
    serving.apply(world.models[2:4])
    serving.apply(world.registry[1:2])
    assert AT_20 == serves(serving)
    of = world.set_of(1)
    promoted = replace(of, champion=of.challengers["bayes"], challengers={}, predecessor=None)
    serving.apply([world.decision(2, promoted)])
    assert (AT_20, [3]) == (serves(serving), serving.forgotten())

    serving.apply(world.models[3:4])

    assert {"champion": "bayes@20"} == serves(serving)


def test_of_several_sets_at_once_the_newest_counts(world: World, serving: Serving) -> None:
    """A worker that has fallen behind does not go through every set that was."""
    serving.apply(world.models[2:])
    serving.apply(world.registry[1:])

    slots = serves(serving) or {}
    assert ("logistic@60", "bayes@60", "logistic@40") == (
        slots["champion"],
        slots["bayes"],
        slots["first"],
    )


def test_what_is_loaded_is_not_loaded_again(
    monkeypatch: pytest.MonkeyPatch, world: World, serving: Serving
) -> None:
    """A champion that stays while others shadow is not opened a second time."""
    assert BOOTSTRAP == serves(serving)
    opened: list[str] = []
    open_snapshot = serving_module.open_snapshot

    def spy(snapshot: Any, *arguments: Any) -> Any:
        opened.append(snapshot.model)
        return open_snapshot(snapshot, *arguments)

    monkeypatch.setattr(serving_module, "open_snapshot", spy)
    serving.apply(world.models[2:4])
    stays = replace(world.set_of(1), champion=world.set_of(0).champion)
    serving.apply([world.decision(1, stays)])

    assert AT_20 | {"champion": "logistic@0"} == serves(serving)
    assert [] == opened


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b'{"kind":"refreshed"}'])
def test_what_is_no_decision_is_passed_over(value: bytes | None, serving: Serving) -> None:
    """A registry record that is not ours changes nothing and raises no alert here."""
    serving.apply([Record("registry", 0, 9, None, value, 0)])

    assert (BOOTSTRAP, []) == (serves(serving), serving.refusals)


def test_a_decision_signed_by_another_is_passed_over(world: World, serving: Serving) -> None:
    """Who lacks the key cannot say what serves."""
    serving.apply(world.models[2:4])
    serving.apply([world.decision(1, key=b"theirs")])

    assert (BOOTSTRAP, []) == (serves(serving), serving.refusals)


def wrong_digest(world: World) -> tuple[list[Record], Record]:
    """A set that names another digest than the snapshot's."""
    of = world.set_of(1)
    champion = replace(of.champion, digest="0" * 64)
    return world.models[2:4], world.decision(1, replace(of, champion=champion))


def wrong_place(world: World) -> tuple[list[Record], Record]:
    """A set that names the place of another model."""
    of = world.set_of(1)
    champion = replace(of.champion, offset=of.challengers["bayes"].offset)
    return world.models[2:4], world.decision(1, replace(of, champion=champion))


def altered(world: World) -> tuple[list[Record], Record]:
    """A set whose champion's snapshot was altered on the way."""
    first, second = world.models[2:4]
    members = orjson.loads(first.value or b"")
    value = orjson.dumps(members | {"recipe": "another"})
    return [replace(first, value=value), second], world.decision(1)


def no_snapshot(world: World) -> tuple[list[Record], Record]:
    """A set whose champion's snapshot is no snapshot at all."""
    first, second = world.models[2:4]
    return [replace(first, value=b"{}"), second], world.decision(1)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (wrong_digest, "where logistic@20"),
        (wrong_place, "where bayes@20"),
        (altered, "expected a signature by our key, given another"),
        (no_snapshot, "wrong_type"),
    ],
)
def test_a_set_that_cannot_be_loaded_leaves_the_former_serving_and_says_so(
    world: World,
    serving: Serving,
    damage: Callable[[World], tuple[list[Record], Record]],
    why: str,
) -> None:
    """One alert with the reason, written by the next predict task; the next set is applied."""
    models, decision = damage(world)
    serving.apply(models)
    serving.apply([decision])
    stage, other = Predict(shop, serving), Predict(shop, serving)
    outputs = [*stage.apply([event(0)]), *other.apply([event(1)]), *stage.apply([event(2)])]

    alerts = [orjson.loads(o.value or b"") for o in outputs if o.topic == "alerts"]
    assert ["serving_set_refused"] == [alert["kind"] for alert in alerts]
    assert why in alerts[0]["message"]
    said = [orjson.loads(o.value or b"")["model"] for o in outputs if o.topic == "predictions"]
    assert ["logistic@0"] * 3 == said
    serving.apply(world.models[4:6])
    assert BOOTSTRAP == serves(serving)
    serving.apply([world.decision(2, replace(world.set_of(2), predecessor=None, first=None))])
    assert {"champion": "logistic@40", "bayes": "bayes@40"} == serves(serving)


def test_a_fallback_of_the_serving_set_is_served_in_the_champions_place(
    world: World, serving: Serving
) -> None:
    """It is marked as one, and what the champion says itself stands beside it, under its line."""
    stage = Predict(shop, serving)
    serving.apply(world.models[2:6])
    serving.apply([world.decision(1, replace(world.set_of(1), fallback=0.125))])
    (fallback,) = map(decode_prediction, written_values(stage.apply([event(0, amount=3.0)])))
    serving.apply([world.decision(2, replace(world.set_of(1), fallback=None))])
    (own,) = map(decode_prediction, written_values(stage.apply([event(1, amount=3.0)])))

    assert (0.125, True, "logistic@20") == (fallback.prediction, fallback.fallback, fallback.model)
    assert Shadow("logistic@20", own.prediction) == fallback.shadows["logistic"]
    assert (False, "logistic@20") == (own.fallback, own.model)
    assert own.shadows == {s: a for s, a in fallback.shadows.items() if s != "logistic"}
    assert own.prediction == own.own_answer == fallback.own_answer
    assert 0 == stage.counts["no_answer"]


def test_a_fallback_is_served_also_where_the_champion_has_no_answer() -> None:
    """Its shadow then has none either, and that is counted as ever."""
    pipeline = declare(champion="bayes")
    learn, evaluate = Learn(pipeline, KEY), Evaluate(pipeline, Keyring(KEY))
    models = written(learn.start(), "models")
    (record,) = written(evaluate.apply(models), "registry")
    decision = decode_decision(record.value, KEY)
    value = encode_decision(replace(decision, serving=replace(decision.serving, fallback=0.0)), KEY)
    serving = Serving(pipeline, KEY)
    serving.apply(models)
    serving.apply([replace(record, value=value)])
    stage = Predict(pipeline, serving)
    (said,) = map(decode_prediction, written_values(stage.apply([event(0)])))

    assert (0.0, True, None) == (said.prediction, said.fallback, said.own_answer)
    assert Shadow("bayes@0", None) == said.shadows["bayes"]
    assert 1 == stage.counts["no_answer"]


def test_snapshots_that_no_set_wants_any_more_are_let_go(world: World, serving: Serving) -> None:
    """Memory holds the snapshots in use and what came after them, not all that ever were."""
    serving.apply(world.models[2:])
    serving.apply(world.registry[1:])
    serves(serving)

    assert {} == serving._snapshots


def test_an_older_decision_never_serves_again(world: World, serving: Serving) -> None:
    """A genuine record of the registry, read again with all it names, takes nothing back."""
    serving.apply(world.models[2:4])
    serving.apply(world.registry[1:2])
    assert AT_20 == serves(serving)

    serving.apply([replace(world.registry[0], offset=99)])

    assert [] == serving.missing()
    serving.apply(world.models[:2])
    assert AT_20 == serves(serving)


@pytest.mark.parametrize(("offset", "is_begun"), [(1_299, False), (1_300, True), (1_301, True)])
def test_who_predicts_knows_whether_other_features_begin_behind_it(
    world: World, serving: Serving, offset: int, is_begun: bool
) -> None:
    """Before the offset that the decision names it may end in order, and others go on there."""
    assert not serving.is_outdated
    applied = Generation(2, "other", offsets={0: 2_000, 1: 1_300})
    serving.apply([world.applied(applied)])

    assert serving.is_outdated
    assert is_begun == serving.has_begun({0: 10, 1: offset})
    # What is retired alone is another: no features begin.
    serving.apply([world.applied(replace(applied, number=3, offsets={}))])
    assert not serving.has_begun({0: 10, 1: offset})


def test_a_decision_of_another_log_never_serves() -> None:
    """Genuine, newer, with all it names beside it, and yet of another log: ours goes on."""
    ours, theirs = World("ours"), World("theirs")
    serving = Serving(shop, KEY, "ours")
    serving.apply(theirs.models[:2])
    serving.apply(theirs.registry[:1])
    assert (None, []) == (serves(serving), serving.missing())

    serving.apply(ours.models[:2])
    serving.apply(ours.registry[:1])
    assert BOOTSTRAP == serves(serving)
    serving.apply(theirs.models[2:])
    serving.apply(theirs.registry[1:])
    assert (BOOTSTRAP, []) == (serves(serving), serving.missing())

    # Nor does one that names no log, from before they were named, once ours have named it.
    nameless = World()
    serving.apply(nameless.models[2:4])
    serving.apply(nameless.registry[1:2])
    assert BOOTSTRAP == serves(serving)

    serving.apply(ours.models[2:4])
    serving.apply(ours.registry[1:2])
    assert AT_20 == serves(serving)


def test_a_snapshot_of_another_log_never_serves() -> None:
    """In the place that a genuine decision names, of the same name and digest: it is refused."""
    ours, theirs = World("ours"), World("theirs")
    serving = Serving(shop, KEY, "ours")
    serving.apply(ours.models[:2])
    serving.apply(ours.registry[:1])
    assert BOOTSTRAP == serves(serving)

    serving.apply(theirs.models[2:4])
    serving.apply(ours.registry[1:2])

    assert BOOTSTRAP == serves(serving)
    assert "expected a snapshot of this log, ours, given a genuine one of theirs" in str(
        serving.refusals
    )


def test_snapshots_that_came_early_wait_for_their_set(world: World, serving: Serving) -> None:
    """What is newer than the set that was applied is kept, however late the next decision."""
    serving.apply(world.models[2:6])
    serving.apply(world.registry[1:2])
    assert AT_20 == serves(serving)

    serving.apply(world.registry[2:3])

    assert [] == serving.missing()
    assert "logistic@40" == (serves(serving) or {})["champion"]


def test_forged_snapshots_take_no_room_from_ours(
    world: World, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much somebody without the key puts on `models`, what waits for its set stays."""
    monkeypatch.setattr(
        serving_module, "HELD_BYTES_MAX", sum(len(r.value or b"") for r in world.models[2:4])
    )
    serving.apply(world.models[2:4])
    for offset in range(100, 110):
        forged = (world.models[2].value or b"").replace(b'"version":20', b'"version":99')
        assert forged != world.models[2].value
        serving.apply([replace(world.models[2], offset=offset, value=forged)])

    serving.apply(world.registry[1:2])

    assert (AT_20, 0) == (serves(serving), serving.dropped_count)


def test_an_equal_learner_of_more_examples_is_not_taken_for_the_former_one() -> None:
    """What a prediction says of the newest example inside is the same after a restart."""
    same = declare(models={"logistic": dummy.NoChangeClassifier()})
    learn, evaluate = Learn(same, KEY), Evaluate(same, Keyring(KEY, {}))
    examples = [example(n, True, {"amount": 1.0}) for n in range(40)]
    models = written([*learn.start(), *learn.apply(examples)], "models")
    registry = written(evaluate.apply(models), "registry")
    going_on, restarted = Serving(same, KEY), Serving(same, KEY)

    inside = []
    for published, decided in zip(models, registry, strict=True):
        going_on.apply([published])
        going_on.apply([decided])
        loaded = going_on.current()
        assert loaded is not None
        inside.append(loaded.champion.example)
    restarted.apply(models[-1:])
    restarted.apply(registry[-1:])
    while missing := restarted.missing():
        restarted.apply([models[offset] for offset in missing])
    loaded = restarted.current()
    assert loaded is not None

    assert [-1, 19, 39] == inside
    assert 39 == loaded.champion.example
