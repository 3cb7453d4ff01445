"""What shadows say: made when the label is there, and what it would have been at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import naive_bayes

import stream_ml as sml
from stream_ml.codec import decode_answers, decode_example, encode_example, encode_prediction
from stream_ml.records import Source
from stream_ml.sealing import strip_seal
from stream_ml.shell.log.reading import examples
from stream_ml.shell.views.reproduce import reproduce
from stream_ml.signing import Keyring
from stream_ml.stages import shadows as shadows_module
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.testing import Driver
from tests.shop import KEY, declare, event, example, shop, started, stream, written

if TYPE_CHECKING:
    from stream_ml.records import Record

# Labels come 10 s, 20 events and several sets later.
PROMPT = declare(promotion=sml.Promotion(refresh=5, mode="manual", first=20))


class World:
    """Examples with four shadows that have still to answer, and the snapshots that they name."""

    def __init__(self) -> None:
        with Driver(PROMPT, key=KEY) as driver:
            driver.feed(*stream(count=150))
            driver.runner.commit(checkpoint=True)
            self.examples = driver.records("examples")
            self.models = driver.records("models")
            self.registry = driver.records("registry")
            self.said = {
                record.key: decode_answers(strip_seal(record.value))
                for record in driver.records("answers")
            }
            self.log = driver.log.identity

    def fed(self, cuts: list[int], *, supplies: bool = True) -> dict[bytes | None, Any]:
        """What an evaluate stage answers for the examples, fed in batches that end at the cuts."""
        evaluate = Evaluate(PROMPT, Keyring(KEY, {}), self.log)
        bare = [
            replace(record, value=strip_seal(record.value), memo=None) for record in self.examples
        ]
        evaluate.apply(self.models[:2])
        said = {}
        ends = sorted({*cuts, len(bare)})
        for start, end in zip([0, *ends], ends, strict=False):
            if start == end:
                continue
            for offset in evaluate.wanted(bare[start:end]) if supplies else ():
                evaluate.supply(offset, self.models[offset].value)
            for output in evaluate.apply(bare[start:end]):
                if output.topic == "answers":
                    said[output.key] = decode_answers(output.value)
        return said


@pytest.fixture(scope="module")
def world() -> World:
    """Made once: nothing in it changes."""
    return World()


def test_shadows_answer_what_their_snapshots_say_on_the_logged_features(world: World) -> None:
    """One record for each example, in their order, of the snapshots that shadowed at event time."""
    bare = [decode_example(record.value) for record in world.examples]
    shadowed = [each for each in bare if each.prediction.shadows]
    assert [each.prediction.event_id.encode() for each in shadowed] == list(world.said)
    slots = set()
    for each in shadowed:
        answers = world.said[each.prediction.event_id.encode()].shadows
        named = {slot: shadow.model for slot, shadow in each.prediction.shadows.items()}
        assert named == {slot: answer.model for slot, answer in answers.items()}
        slots |= set(named)
    assert {"bayes", "predecessor", "first"} == slots
    with Driver(PROMPT, key=KEY) as driver:
        driver.feed(*stream(count=150))
        driver.runner.commit(checkpoint=True)
        predictions = [each.prediction for each in bare]
        again = reproduce(driver.log, PROMPT, KEY, predictions)
        filled = list(examples(driver.log))
    assert ([], {}, {}) == (again.different, again.dropped, again.refused)
    assert sum(map(len, (answers.shadows for answers in world.said.values()))) == sum(
        answer.slot != "champion" for answer in again.answers
    )
    assert [
        {slot: answer.prediction for slot, answer in world.said[e.key].shadows.items()}
        for e in world.examples
        if e.key in world.said
    ] == [
        {slot: shadow.prediction for slot, shadow in e.prediction.shadows.items()}
        for e in filled
        if e.prediction.shadows
    ]


@given(st.lists(st.integers(0, 100), max_size=8), st.sampled_from([1, 3, 1_000]))
@settings(max_examples=15, deadline=None)
def test_answers_depend_neither_on_batches_nor_on_what_is_held(cuts: list[int], held: int) -> None:
    """Whether a snapshot is still open, or has to be read again, changes no bit."""
    world = _once()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shadows_module, "LOADED_MAX", held)
        assert world.said == world.fed(cuts)


_WORLDS: list[World] = []


def _once() -> World:
    if not _WORLDS:
        _WORLDS.append(World())
    return _WORLDS[0]


def test_a_snapshot_that_is_gone_has_no_answer(world: World) -> None:
    """Compaction may take it before its last label comes: that is no answer, and stops nothing."""
    kept = list(world.models)
    gone = next(n for n, record in enumerate(kept) if n > 2 and b"bayes@" in (record.key or b""))
    world.models[gone] = replace(world.models[gone], value=None)
    try:
        said = world.fed([50])
    finally:
        world.models[:] = kept
    changed = [key for key, answers in said.items() if answers != world.said[key]]
    lost = (kept[gone].key or b"").decode()

    assert changed
    for key in changed:
        for slot, answer in said[key].shadows.items():
            former = world.said[key].shadows[slot]
            expected = None if answer.model == lost else former.prediction
            assert (former.model, expected) == (answer.model, answer.prediction)


def test_no_example_is_judged_without_what_its_shadows_say(world: World) -> None:
    """Whoever drives the stage and brings no snapshots is stopped, for evidence would be lost."""
    with pytest.raises(AssertionError, match="was not supplied"):
        world.fed([50], supplies=False)


def test_answers_of_a_former_release_stay_as_they_were_given() -> None:
    """Its predictions carry them: nothing is wanted, and nothing recorded again."""
    _, evaluate, _ = started(shop)
    given = [example(n, n % 2 == 0, {"amount": 1.0}, shadows={"bayes": 0.75}) for n in range(9)]

    assert [] == evaluate.wanted(given)
    assert [] == written(evaluate.apply(given), "answers")
    (bayes,) = [each for each in evaluate.report() if each.model == "bayes"]
    assert (9, 1.0) == (bayes.n, bayes.coverage)


def test_a_shadow_that_raises_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an estimator does when it is asked, its example counts for all others."""
    learn, evaluate = Learn(shop, KEY), Evaluate(shop, Keyring(KEY, {}))
    models = written(learn.start(), "models")
    evaluate.apply(models)
    asked = []

    def refuse(*_: object) -> None:
        asked.append(1)
        raise SystemExit("no")

    monkeypatch.setattr(naive_bayes.GaussianNB, "predict_proba_one", refuse)
    record = _asking(0)
    assert [] == evaluate.wanted([record])
    (answers,) = [decode_answers(o.value) for o in evaluate.apply([record]) if o.topic == "answers"]

    assert [1] == asked
    assert {"bayes": ("bayes@0", None)} == {
        slot: (answer.model, answer.prediction) for slot, answer in answers.shadows.items()
    }


def _asking(number: int) -> Record:
    """An example of the shop whose challenger, at its place on `models`, has still to answer."""
    (prediction,) = _predicted(number)
    value = encode_example(encode_prediction(prediction), True, prediction.ts + 1, Source(0, 0))
    return replace(event(number), topic="examples", value=value, memo=None)


def _predicted(number: int) -> list[Any]:
    outputs = Predict(shop, started(shop)[2]).apply([event(number)])
    return [output.memo for output in outputs if output.topic == "predictions"]


def test_what_is_named_must_be_what_lies_there() -> None:
    """A place where another snapshot lies gives no answer in its name."""
    _, evaluate, _ = started(shop)
    record = _asking(0)
    members = orjson.loads(record.value or b"")
    members["shadows"]["bayes"]["offset"] = 0  # the champion's
    moved = replace(record, value=orjson.dumps(members))
    evaluate.wanted([moved])
    (answers,) = [decode_answers(o.value) for o in evaluate.apply([moved]) if o.topic == "answers"]

    assert (None, "bayes@0") == (
        answers.shadows["bayes"].prediction,
        answers.shadows["bayes"].model,
    )
