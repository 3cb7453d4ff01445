"""The contract of learners, as laws that are tried: `stream_ml.testing.check_learner` runs them.

A law teaches learners examples that are drawn by a seed, and gives a sentence for each thing that
is not as it has to be. Learners are asked, taught, written and read through the same doors as in a
pipeline (`models.recipes`), so that what holds here holds there. A trainer, which is taught a
window at once, has laws of its own in the place of those about one example after the other.
"""

from __future__ import annotations

import multiprocessing
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_ml.errors import STOPS, brief_error
from stream_ml.models.learner import Learner
from stream_ml.models.recipes import Recipe, answer, learn
from stream_ml.models.retrained import Retrained, Trainer, fit
from stream_ml.models.target import valid_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ml.models.learner import Model
    from stream_ml.models.target import Target
    from stream_ml.records import Answer, LabelValue

    Example = tuple[dict[str, float], LabelValue]

__all__ = [
    "LAWS",
    "TRAINER_LAWS",
    "TrainerTrial",
    "Trial",
    "faults",
    "process_faults",
    "trained_dump",
    "trial_of",
]

EXAMPLES = 60
# One feature in so many is left out, as the features of a pipeline may be.
MISSING_IN = 10
FLIPS = 25
_NO_PROCESS = (
    "it cannot be tried in another process, which ended at once: a script has to call this under "
    '`if __name__ == "__main__":`, for the other process runs the script as well; else leave it '
    "out (`other_process=False`)"
)


class Trial:
    """A learner under trial, with the examples that it is taught.

    Args:
        learner: untrained; it is copied.
        target: what it predicts.
        features: the names of all features.
        seed: of the examples.
        is_complete: no feature is ever missing.
    """

    def __init__(
        self,
        learner: Model,
        target: Target,
        features: Sequence[str] = ("a", "b", "c"),
        seed: int = 0,
        *,
        is_complete: bool = False,
    ) -> None:
        self.target, self.seed, self.is_complete = target, seed, is_complete
        self.recipe = Recipe("line", learner, target, tuple(features))
        rand = random.Random(seed)  # noqa: S311 - a sample
        self.examples = [self._example(rand, is_complete) for _ in range(EXAMPLES)]
        self.other_examples = [self._example(rand, is_complete) for _ in range(EXAMPLES)]
        self.probes = [self._example(rand, is_complete)[0] for _ in range(8)]
        self.random = rand

    def _example(self, rand: random.Random, is_complete: bool) -> Example:
        values = {name: rand.gauss(0.0, 1.0) for name in self.recipe.features}
        score = sum(values.values()) + rand.gauss(0.0, 0.5)
        features = {
            name: value
            for name, value in values.items()
            if is_complete or rand.randrange(MISSING_IN)
        }
        if self.target.kind == "regression":
            return features, score
        if self.target.kind == "binary":
            return features, score > 0
        return features, self.target.classes[int(abs(score)) % len(self.target.classes)]

    def fresh(self) -> Model:
        """An untrained learner."""
        learner: Model = self.recipe.fresh()
        return learner

    def teach(self, learner: Model, examples: Sequence[Example]) -> Model:
        """Teach examples, one by one.

        Args:
            learner: to teach.
            examples: in their order.
        """
        for features, label in examples:
            learn(learner, self.target, features, label)
        return learner

    def trained(self, count: int = EXAMPLES) -> Model:
        """A learner of the first examples.

        Args:
            count: how many.
        """
        return self.teach(self.fresh(), self.examples[:count])

    def answers(self, learner: Model) -> list[Answer]:
        """What it says about rows that it was not taught.

        Args:
            learner: to ask.
        """
        return [answer(learner, self.target, features) for features in self.probes]


class TrainerTrial(Trial):
    """A trainer under trial: it is taught all examples at once.

    Args:
        trainer: untrained; it is copied.
        target: what it predicts.
        features: the names of all features.
        seed: of the examples, and of each training.
        is_complete: no feature is ever missing.
    """

    def teach(self, learner: Model, examples: Sequence[Example]) -> Model:
        """Train on a window.

        Args:
            learner: a trainer, untrained.
            examples: the window, the oldest first.
        """
        assert isinstance(learner, Trainer), "only trainers are taught so"
        fit(learner, self.target, examples, self.seed)
        return learner


def trial_of(
    learner: Model, target: Target, features: Sequence[str], seed: int, *, is_complete: bool
) -> Trial:
    """The trial that is for this kind of learner.

    Args:
        learner: untrained; of a line that is trained anew, its trainer is tried.
        target: what it predicts.
        features: the names of all features.
        seed: of the examples.
        is_complete: no feature is ever missing.
    """
    if isinstance(learner, Retrained):
        learner = learner.trainer
    kind = TrainerTrial if isinstance(learner, Trainer) else Trial
    return kind(learner, target, features, seed, is_complete=is_complete)


def trained_dump(
    learner: Model, target: Target, features: Sequence[str], seed: int, *, is_complete: bool
) -> bytes:
    """What a learner writes that was taught a seed's examples: for another process.

    Args:
        learner: untrained.
        target: what it predicts.
        features: the names of all features.
        seed: of the examples.
        is_complete: no feature is ever missing.
    """
    trial = trial_of(learner, target, features, seed, is_complete=is_complete)
    return trial.recipe.dump(trial.trained())


def _equal_at_birth(trial: Trial) -> Iterator[str]:
    """Two learners that were taught nothing are equal."""
    if trial.recipe.dump(trial.fresh()) != trial.recipe.dump(trial.fresh()):
        yield "two untrained ones write other bytes (a generator without a seed?)"


def _equal_in_history(trial: Trial) -> Iterator[str]:
    """Two learners of one history are equal, and are so however often they are written."""
    first, second = trial.trained(), trial.trained()
    data = trial.recipe.dump(first)
    if data != trial.recipe.dump(second):
        yield "two that were taught the same write other bytes (a generator without a seed?)"
    if data != trial.recipe.dump(first):
        yield "one that is written twice writes other bytes the second time"
    if trial.answers(first) != trial.answers(second):
        yield "two that were taught the same answer otherwise"


def _equal_when_read_back(trial: Trial) -> Iterator[str]:
    """A learner that is written and read back at any point goes on as if it had not been."""
    whole = trial.recipe.dump(trial.trained())
    for cut in sorted({0, 1, 7, EXAMPLES // 2, EXAMPLES - 1, trial.random.randrange(EXAMPLES)}):
        learner = trial.trained(cut)
        data = trial.recipe.dump(learner)
        copy = trial.recipe.load(data)
        if trial.recipe.dump(copy) != data:
            yield f"one that is read back after {cut} examples writes other bytes than it was read"
        if trial.answers(copy) != trial.answers(learner):
            yield f"one that is read back after {cut} examples answers otherwise"
        if trial.recipe.dump(trial.teach(copy, trial.examples[cut:])) != whole:
            yield f"one that is read back after {cut} examples learns otherwise from then on"


def _equal_in_batches(trial: Trial) -> Iterator[str]:
    """Batches are no more than one example after the other, to the last bit."""
    one_by_one = trial.trained()
    for size in (2, 7, EXAMPLES):
        learner = trial.fresh()
        for start in range(0, EXAMPLES, size):
            part = trial.examples[start : start + size]
            assert isinstance(learner, Learner), "only learners are taught so"
            learner.learn_many([dict(x) for x, _ in part], [y for _, y in part])
        if trial.recipe.dump(learner) != trial.recipe.dump(one_by_one):
            yield f"`learn_many` of {size} at once learns otherwise than `learn_one` of each"
    expected = trial.answers(one_by_one)
    for size in (1, 3, len(trial.probes)):
        actual: list[Answer] = []
        for start in range(0, len(trial.probes), size):
            rows = [dict(row) for row in trial.probes[start : start + size]]
            answers = one_by_one.predict_many(rows)
            actual += [valid_answer(each, trial.target) for each in answers]
        if actual != expected:
            yield f"`predict_many` of {size} at once answers otherwise than `predict_one` of each"


def _shares_nothing(trial: Trial) -> Iterator[str]:
    """Two learners that are taught in turns are what each would be alone."""
    first, second = trial.fresh(), trial.fresh()
    for one, other in zip(trial.examples, trial.other_examples, strict=True):
        trial.teach(first, [one])
        trial.teach(second, [other])
    alone = trial.teach(trial.fresh(), trial.other_examples)
    if trial.recipe.dump(first) != trial.recipe.dump(trial.trained()) or (
        trial.recipe.dump(second) != trial.recipe.dump(alone)
    ):
        yield "two that are taught in turns are not what each is alone (state that they share?)"


def _learns_nothing_when_asked(trial: Trial) -> Iterator[str]:
    """Asking changes nothing that shows."""
    learner = trial.fresh()
    for features, label in trial.examples:
        trial.answers(learner)
        answer(learner, trial.target, features)
        learn(learner, trial.target, features, label)
    data = trial.recipe.dump(learner)
    first = trial.answers(learner)
    if data != trial.recipe.dump(learner) or data != trial.recipe.dump(trial.trained()):
        yield "one that is asked writes other bytes than one that is not"
    if first != trial.answers(learner):
        yield "one that is asked the same again answers otherwise"


class _Canary:
    """What calls a function of this module where it is unpickled."""

    def __reduce__(self) -> Any:
        return _sing, ()


_songs: list[str] = []


def _sing() -> None:
    _songs.append("")


def _refuses_foreign_bytes(trial: Trial) -> Iterator[str]:
    """What it never wrote is refused, or taken up as just that; nothing in it is run."""
    data = trial.recipe.dump(trial.trained())
    cuts = {0, 1, len(data) // 2, len(data) - 1, trial.random.randrange(max(1, len(data)))}
    foreign = {
        "nothing": b"",
        "a text": b"not a state",
        "noise": trial.random.randbytes(64),
        "zeros": bytes(64),
        "its bytes and more": data + b"\0",
        **{f"the first {cut} of {len(data)} bytes": data[:cut] for cut in cuts if cut < len(data)},
    }
    for name, given in foreign.items():
        taken = _taken(trial, given)
        if taken is not None and given not in {taken, data}:
            yield f"`load` takes {name} for a state; it has to raise ValueError"
    if data:
        for _ in range(FLIPS):
            altered = bytearray(data)
            altered[trial.random.randrange(len(data))] ^= 1 << trial.random.randrange(8)
            taken = _taken(trial, bytes(altered))
            if taken is not None and _taken(trial, taken) != taken:
                yield "`load` takes bytes with a bit flipped, and is not equal when read back"
    _songs.clear()
    _taken(trial, pickle.dumps(_Canary()))
    if _songs:
        yield "`load` runs what a pickle says; read numbers and texts instead"


def _taken(trial: Trial, data: bytes) -> bytes | None:
    """What a learner writes that has taken these bytes up; None where it refuses them."""
    learner = trial.fresh()
    try:
        learner.load(data)
    except STOPS:
        raise
    except Exception:  # noqa: BLE001 - however it refuses them
        return None
    return trial.recipe.dump(learner)


def _has_a_description(trial: Trial) -> Iterator[str]:
    """Its description and its library are texts that learning does not change."""
    texts = (trial.recipe.description, trial.recipe.library)
    if type(texts[0]) is not str or type(texts[1]) not in {str, type(None)}:
        yield "its `description` or `library` is no text"
    learner = trial.trained()
    if (learner.description, learner.library) != texts:
        yield "its `description` or `library` changes as it learns"


def _model_equal_when_read_back(trial: Trial) -> Iterator[str]:
    """A model that is written and read back is what it was, whatever it was trained on."""
    for count in (EXAMPLES // 2, EXAMPLES):
        model = trial.trained(count)
        data = trial.recipe.dump(model)
        copy = trial.recipe.load(data)
        if trial.recipe.dump(copy) != data:
            yield "one that is read back writes other bytes than it was read"
        if trial.answers(copy) != trial.answers(model):
            yield "one that is read back answers otherwise"


def _answers_equal_in_batches(trial: Trial) -> Iterator[str]:
    """Answers to several rows are those to each, to the last bit."""
    model = trial.trained()
    answers = model.predict_many([dict(row) for row in trial.probes])
    if [valid_answer(each, trial.target) for each in answers] != trial.answers(model):
        yield "`predict_many` answers otherwise than `predict_one` of each"


def _trainings_share_nothing(trial: Trial) -> Iterator[str]:
    """A training changes no other model, and depends on none before it."""
    model = trial.trained()
    data = trial.recipe.dump(model)
    trial.teach(trial.fresh(), trial.other_examples)
    if trial.recipe.dump(model) != data or trial.recipe.dump(trial.trained()) != data:
        yield "one is not what it is alone when another is trained (state that they share?)"


def _model_learns_nothing_when_asked(trial: Trial) -> Iterator[str]:
    """Asking changes nothing that shows."""
    model = trial.trained()
    data, first = trial.recipe.dump(model), trial.answers(model)
    if data != trial.recipe.dump(model):
        yield "one that is asked writes other bytes than one that is not"
    if first != trial.answers(model):
        yield "one that is asked the same again answers otherwise"


LAWS: tuple[Callable[[Trial], Iterator[str]], ...] = (
    _equal_at_birth,
    _equal_in_history,
    _equal_when_read_back,
    _equal_in_batches,
    _shares_nothing,
    _learns_nothing_when_asked,
    _refuses_foreign_bytes,
    _has_a_description,
)
TRAINER_LAWS: tuple[Callable[[Trial], Iterator[str]], ...] = (
    _equal_in_history,
    _model_equal_when_read_back,
    _answers_equal_in_batches,
    _trainings_share_nothing,
    _model_learns_nothing_when_asked,
    _refuses_foreign_bytes,
    _has_a_description,
)


def faults(trial: Trial) -> list[str]:
    """A sentence for each thing that is not as it has to be; none of a sound learner.

    Args:
        trial: of the learner.
    """
    found: list[str] = []
    for law in TRAINER_LAWS if isinstance(trial, TrainerTrial) else LAWS:
        try:
            found += law(trial)
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's code may raise anything
            purpose = (law.__doc__ or "").partition(";")[0].rstrip(".")
            found.append(f"it raised {brief_error(error)}, where this was tried: {purpose}")
    return list(dict.fromkeys(found))


def process_faults(learner: Model, trial: Trial) -> list[str]:
    """Whether another process, with another order of sets of texts, makes the same learner.

    Args:
        learner: as it was given to the trial; it has to be one that can be pickled.
        trial: of the learner.
    """
    context = multiprocessing.get_context("spawn")
    call = partial(
        trained_dump,
        learner,
        trial.target,
        trial.recipe.features,
        trial.seed,
        is_complete=trial.is_complete,
    )
    try:
        with ProcessPoolExecutor(1, context) as pool:
            data = pool.submit(call).result()
    except BrokenProcessPool:
        return [_NO_PROCESS]
    except Exception as error:  # noqa: BLE001 - what cannot be sent, or fails there
        return [f"it cannot be tried in another process: {brief_error(error)}"]
    if data != trial.recipe.dump(trial.trained()):
        return ["another process, taught the same, writes other bytes (the order of a set?)"]
    return []
