"""PyTorch's modules as lines; run by `make test-torch`, in an environment of its own."""

from __future__ import annotations

import hashlib
import pickle
import random
import warnings
from functools import partial
from typing import Any

import pytest

with warnings.catch_warnings():
    # Debian's was built for numpy 1, which it is not asked for.
    warnings.simplefilter("ignore")
    import torch

    torch.zeros(1)

from stream_ml import Target
from stream_ml.contract import Trial
from stream_ml.errors import SnapshotRefused
from stream_ml.learners.torch import Torch
from stream_ml.models.recipes import Recipe, answer, learn
from stream_ml.testing import check_learner
from tests.hostile_bytes import ran

BINARY, COLOURS = Target.binary(), Target.multiclass("red", "green", "blue")
REGRESSION = Target.regression()
FEATURES = ("a", "b", "c")


def network(inputs: int, outputs: int) -> Any:
    """A layer of eight."""
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 8), torch.nn.ReLU(), torch.nn.Linear(8, outputs)
    )


def forgetful(inputs: int, outputs: int) -> Any:
    """A layer of eight, some of which are left out as it trains, and a norm with buffers."""
    return torch.nn.Sequential(
        torch.nn.BatchNorm1d(inputs),
        torch.nn.Linear(inputs, 8),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, outputs),
    )


SGD = partial(torch.optim.SGD, lr=0.1)
ADAM = partial(torch.optim.Adam, lr=0.01)
MOMENTUM = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
SOUND: dict[str, tuple[Torch, Target]] = {
    "plain": (Torch(network, SGD, batch=1), BINARY),
    "adam": (Torch(network, ADAM, batch=7), COLOURS),
    "momentum": (Torch(network, MOMENTUM, batch=4, seed=3), REGRESSION),
    "dropout": (Torch(forgetful, ADAM, batch=6), BINARY),
    "own loss": (Torch(network, SGD, loss=torch.nn.functional.l1_loss, batch=5), REGRESSION),
}


@pytest.mark.parametrize("name", SOUND)
def test_it_keeps_the_contract(name: str) -> None:
    """Written and read back at any point, in batches, interleaved: to the last bit the same."""
    learner, target = SOUND[name]
    check_learner(learner, target, other_process=False)
    assert [] == Recipe("line", learner).check(target, "models.line", FEATURES)


def test_it_learns() -> None:
    """Twenty batches of what a line divides leave most of it told rightly."""
    rand, recipe = random.Random(1), Recipe("line", Torch(network, ADAM), BINARY, FEATURES)
    learner, right = recipe.fresh(), 0
    for number in range(2_000):
        features = {name: rand.gauss(0.0, 1.0) for name in FEATURES}
        label = features["a"] + features["b"] > 0
        if number >= 1_500:
            right += (answer(learner, BINARY, features) > 0.5) == label  # type: ignore[operator]
        learn(learner, BINARY, features, label)

    assert right > 450


def test_the_generator_of_all_is_left_as_it_was() -> None:
    """A learner neither draws from PyTorch's own generator nor seeds it."""
    torch.manual_seed(5)
    expected = torch.rand(1).item()
    torch.manual_seed(5)
    Trial(*SOUND["dropout"]).trained(30)

    assert expected == torch.rand(1).item()


class Canary:
    """Raises the alarm where it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("it was run",)


@pytest.mark.parametrize("name", ["adam", "dropout"])
def test_foreign_bytes_are_refused(name: str) -> None:
    """Altered bytes, a pickle, and the weights of another module are refused, and run nothing."""
    trial = Trial(*SOUND[name])
    state = trial.recipe.dump(trial.trained(30))
    rand = random.Random(2)
    foreign = [pickle.dumps(Canary()), b"SMLT1" + pickle.dumps(Canary())]
    foreign += [Trial(*other).recipe.dump(Trial(*other).trained(30)) for other in SOUND.values()]
    for _ in range(50):
        altered = bytearray(state)
        altered[rand.randrange(len(state))] ^= 1 << rand.randrange(8)
        foreign.append(bytes(altered))
    for data in foreign:
        for given in (data, data + hashlib.sha256(data).digest()):
            if given != state:
                with pytest.raises(SnapshotRefused):
                    trial.recipe.load(given)


def test_another_question_is_refused() -> None:
    """A module that has no name, or too few outputs, is refused where it is declared."""
    for module in (lambda inputs, _: torch.nn.Linear(inputs, 1), one_output):
        learner = Torch(module, SGD, batch=1)
        assert len(Recipe("line", learner).check(COLOURS, "models.line", FEATURES)) == 1


def one_output(inputs: int, _: int) -> Any:
    """Too few for three classes."""
    return torch.nn.Linear(inputs, 1)


HOSTILE = """
import warnings
from functools import partial

warnings.simplefilter("ignore")
import torch
from stream_ml import Target
from stream_ml.learners.torch import Torch
from stream_ml.models.recipes import Recipe

def network(inputs, outputs):
    return torch.nn.Linear(inputs, outputs)

learner = Torch(network, partial(torch.optim.SGD, lr=0.1), batch=2)
recipe = Recipe("line", learner, Target.binary(), ("a",))
taught = recipe.fresh()
for number in range(4):
    taught.learn_one({"a": float(number)}, number > 1)
genuine = recipe.dump(taught)
"""


def test_hostile_bytes_run_nothing() -> None:
    """No import, no compilation and no call, by the word of the interpreter of a new process."""
    said, _ = ran(HOSTILE)  # Debian's complains of numpy

    assert said == "[]"
