"""Learners of anyone's: declared, asked, taught, written and read back as river's are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from learners import BINARY, COLOURS, REGRESSION, examples, trained
from learners import recipe as river_recipe
from own import Counts, Line, Logistic

from stream_ml.errors import SnapshotRefused
from stream_ml.models.checkpoint import pack, unpack
from stream_ml.models.fast import batch_predictor, fast_learner, fast_live_predictor, fast_predictor
from stream_ml.models.recipes import BadAnswer, Recipe, Target, answer, learn
from stream_ml.models.snapshot import decode, open_snapshot, take
from stream_ml.records import ModelRef
from stream_ml.stages.predict import _answers
from stream_ml.stages.serving import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml import Learner

KEY = b"a key of ours"
OWN: list[tuple[Learner, Target]] = [
    (Logistic(), BINARY),
    (Counts(), COLOURS),
    (Line(), REGRESSION),
]
own = pytest.mark.parametrize(("learner", "target"), OWN)


def line(learner: Learner, target: Target, name: str = "own") -> Recipe:
    """The learner as a line is declared."""
    return Recipe(name, learner, target, tuple("abcde"))


def taught(learner: Learner, target: Target) -> Any:
    """A learner of it that has seen examples."""
    fresh = line(learner, target).fresh()
    for features, label in examples(target, 60):
        learn(fresh, target, features, label)
    return fresh


def snapshot_of(learner: Learner, target: Target) -> Any:
    """A snapshot of it after those."""
    golden = [features for features, _ in examples(target, 8, seed=9)]
    return take(
        taught(learner, target), line(learner, target), target, version=60, feature_hash="h",
        key=KEY, golden_features=golden,
    )  # fmt: skip


@own
def test_a_snapshot_gives_the_learner_back(learner: Learner, target: Target) -> None:
    """A learner of a user's own is written as it wrote itself, and answers as it did."""
    snapshot = decode(snapshot_of(learner, target).encode())
    copy = open_snapshot(snapshot, line(learner, target), target, KEY, "h")

    assert ("learner", None) == (snapshot.format, snapshot.library)
    assert taught(learner, target).dump() == copy.dump()
    for features, _ in examples(target, 5, seed=3):
        assert answer(taught(learner, target), target, features) == answer(copy, target, features)


@own
def test_a_checkpoint_goes_on(learner: Learner, target: Target) -> None:
    """A learner goes on from a checkpoint as if it had never stopped."""
    whole, recipe = taught(learner, target), line(learner, target)
    copy = unpack(pack(whole, recipe, KEY), recipe, KEY)
    for features, label in examples(target, 40, seed=3):
        learn(whole, target, features, label)
        learn(copy, target, features, label)

    assert whole.dump() == copy.dump()


@own
def test_equal_learners_have_equal_digests(learner: Learner, target: Target) -> None:
    """A digest is of what was learned, and of nothing else."""
    first, second = snapshot_of(learner, target), snapshot_of(learner, target)
    untrained = take(
        line(learner, target).fresh(), line(learner, target), target, version=0, feature_hash="h",
        key=KEY,
    )  # fmt: skip

    assert first.digest == second.digest != untrained.digest


@own
def test_the_stages_ask_and_teach_it_as_it_is(learner: Learner, target: Target) -> None:
    """What the stages predict and learn with is the learner's own code."""
    model, other = line(learner, target).fresh(), line(learner, target).fresh()
    teach = fast_learner(model, target)
    for features, label in examples(target, 30):
        expected = answer(other, target, features)
        assert expected == fast_predictor(model, target)(features)
        assert expected == fast_live_predictor(model, target)(features)
        teach(features, label)
        learn(other, target, features, label)

    assert other.dump() == model.dump()


def reason(snapshot: Any, recipe: Recipe | None, key: bytes | None = None) -> str:
    """Why a snapshot is not opened."""
    with pytest.raises(SnapshotRefused) as refused:
        open_snapshot(snapshot, recipe, BINARY, key, "h", allow_unsigned=True)
    return refused.value.reason


def test_the_declaration_says_what_reads_a_snapshot() -> None:
    """Bytes of another kind, another library's release, or no line's, are refused unread."""

    class Strict(Logistic):
        def load(self, data: bytes) -> None:
            """Take it up."""
            raise AssertionError(data)

    snapshot = replace(snapshot_of(Logistic(), BINARY), signature=None)
    strict, tree = line(Strict(), BINARY), river_recipe("tree")
    river = take(trained("tree"), tree, BINARY, version=1, feature_hash="h", key=None)

    assert "undeclared" == reason(snapshot, None)
    assert "format" == reason(snapshot, tree)
    assert "format" == reason(river, strict)
    assert "format" == reason(replace(snapshot, format="pickle"), strict)
    assert "library" == reason(replace(snapshot, library="numbers 2.0"), strict)
    assert "unreadable" == reason(snapshot, strict)
    assert "signature" == reason(replace(snapshot, signature="0" * 64), strict, KEY)
    assert open_snapshot(river, None, BINARY, None, "h", allow_unsigned=True) is not None


def test_a_checkpoint_is_one_line_s() -> None:
    """The checkpoint of a line is no other line's, and no other kind of learner's."""
    recipe = line(Logistic(), BINARY)
    data = pack(recipe.fresh(), recipe, KEY)
    river = pack(trained("tree"), river_recipe("tree"), KEY)

    for given, other in (
        (data, line(Logistic(), BINARY, name="other")),
        (data, river_recipe("tree")),
        (river, recipe),
        (river, river_recipe("bayes")),
    ):
        with pytest.raises(SnapshotRefused) as refused:
            unpack(given, other, KEY)
        assert refused.value.reason in {"library", "river_version"}


def test_a_checkpoint_of_another_library_is_refused() -> None:
    """A line whose library is of another release does not read what it wrote before."""

    class Newer(Logistic):
        library = "numbers 2.0"

    recipe, newer = line(Logistic(), BINARY), line(Newer(), BINARY)
    with pytest.raises(SnapshotRefused, match="way out: start a new log"):
        unpack(pack(recipe.fresh(), recipe, KEY), newer, KEY)


class Raises(Logistic):
    """Fails in one of its methods."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        setattr(self, method, self._fail)

    def _fail(self, *_: Any) -> Any:
        raise RuntimeError(f"no {self.method}")


class Says(Logistic):
    """Gives one answer to everything."""

    def __init__(self, said: Any) -> None:
        super().__init__()
        self.said = said

    def predict_one(self, features: Mapping[str, float]) -> Any:  # noqa: ARG002 - the protocol's
        """The answer."""
        return self.said


class Drifts(Logistic):
    """Counts the learners that were ever made, and learns from that."""

    made = 0

    def prepare(self, target: Any, features: Any) -> None:  # noqa: ARG002 - the protocol's
        """Learn the classes."""
        Drifts.made += 1
        self.rate = 0.1 / Drifts.made


class Forgets(Logistic):
    """Writes its weights, and does not take them up."""

    def load(self, data: bytes) -> None:
        """Take it up."""
        assert data


class Asked(Logistic):
    """Counts the questions."""

    def predict_one(self, features: Mapping[str, float]) -> float:
        """Answer, and count."""
        self.state["asked"] = self.state.get("asked", 0.0) + 1.0
        return super().predict_one(features)


class Secret(Logistic):
    """Keeps a parameter where nobody sees it."""

    def __init__(self, rate: float, depth: int = 1) -> None:  # noqa: ARG002 - the plant
        super().__init__(rate)


@pytest.mark.parametrize(
    ("learner", "target", "message"),
    [
        (Counts(), BINARY, "expected classes, given a binary target"),
        (Raises("learn_one"), BINARY, "which raised RuntimeError('no learn_one')"),
        (Raises("dump"), BINARY, "no dump"),
        (Raises("load"), BINARY, "no load"),
        (Says(2.0), BINARY, "expected a probability, given 2.0"),
        (Says("0.5"), BINARY, "expected an answer for binary, given str"),
        (Says(float("nan")), REGRESSION, "expected a finite number, given nan"),
        (Says({"pink": 1.0}), COLOURS, "expected one of red, green, blue, given 'pink'"),
        (Drifts(), BINARY, "equal histories leave with equal bytes"),
        (Forgets(), BINARY, "is what it was when it is read back"),
        (Asked(), BINARY, "a learner that `predict_one` does not change"),
        (Secret(0.1), BINARY, "expected an attribute 'depth'"),
    ],
)
def test_what_cannot_be_a_line_is_refused_where_it_is_declared(
    learner: Learner, target: Target, message: str
) -> None:
    """The problem names the line, and what its learner does."""
    (problem,) = Recipe("own", learner).check(target, "models.own")

    assert str(problem).startswith("models.own: expected a learner")
    assert message in str(problem)


@own
def test_what_can_be_one_has_no_problems(learner: Learner, target: Target) -> None:
    """A sound learner is taken, and what was given is not changed by trying it."""
    before = learner.dump()

    assert [] == Recipe("own", learner).check(target, "models.own")
    assert before == learner.dump()


def test_a_description_is_of_the_parameters() -> None:
    """The declaration of a learner is its class with its parameters."""
    assert "own.Logistic(rate=0.5)" == Recipe("own", Logistic(0.5)).description


def test_what_it_says_is_judged_at_each_answer() -> None:
    """An answer that is none raises, as river's would, and is then no answer."""
    with pytest.raises(BadAnswer):
        answer(Says([1.0]), COLOURS, {})
    assert answer(Says(None), BINARY, {}) is None


class Batches(Logistic):
    """Answers several at once, and knows how many they were at most; one by one where one fails."""

    offset, most = 0.0, 0

    def predict_many(self, rows: Any) -> list[Any]:
        """All answers."""
        Batches.most = max(Batches.most, len(rows))
        if any(features["amount"] > 40 for features in rows if "amount" in features):
            raise SystemExit
        return [self.predict_one(features) + self.offset for features in rows]


def test_batches_are_asked_where_they_are_as_one_by_one() -> None:
    """A model's own way to answer several is used, unless it gives other answers."""
    rows = [features for features, _ in examples(BINARY, 8)]
    sound, false, short = taught(Batches(), BINARY), taught(Batches(), BINARY), Batches()
    false.offset = 1e-16 + 1e-9
    short.predict_many = lambda rows: []  # type: ignore[method-assign]  # noqa: ARG005

    predict_many = batch_predictor(sound, BINARY, rows)
    assert predict_many is not None
    assert [answer(sound, BINARY, features) for features in rows] == predict_many(rows)
    assert batch_predictor(false, BINARY, rows) is None
    assert batch_predictor(short, BINARY, rows) is None
    assert batch_predictor(Logistic(), BINARY, rows) is None
    assert batch_predictor(trained("tree"), BINARY, rows) is None


def test_the_champion_is_asked_for_a_batch_at_once() -> None:
    """A champion that answers batches is asked for all; one by one where that fails."""
    model = taught(Batches(), BINARY)
    one_by_one = fast_predictor(model, BINARY)
    ref = ModelRef("own@1", "d", 0)
    champion = LoadedModel(ref, one_by_one, 0, batch_predictor(model, BINARY))
    sound = [features for features, _ in examples(BINARY, 12)]
    for rows in (sound, [*sound, {"amount": 50.0}]):
        requests: Any = [(None, None, features) for features in rows]
        Batches.most = 0

        assert [one_by_one(features) for features in rows] == _answers(champion, requests)
        assert len(rows) == Batches.most
