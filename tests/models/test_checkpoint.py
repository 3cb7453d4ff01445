"""Checkpoints: live learners that only whoever has the key can have written."""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learners import LEARNERS, examples, recipe, trained

from stream_ml.errors import SnapshotRefused
from stream_ml.models.checkpoint import pack, unpack
from stream_ml.models.digest import digest
from stream_ml.models.pickles import RIVER_VERSION, compress, dumps
from stream_ml.models.recipes import learn

if TYPE_CHECKING:
    from pathlib import Path

# Time says nothing here, least of all on a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEY = b"a key of ours"
SEALED = pack(trained("bayes"), recipe("bayes"), KEY)


def refusal(sealed: bytes, key: bytes | None = KEY, **options: Any) -> SnapshotRefused:
    """The error that opening it raises."""
    with pytest.raises(SnapshotRefused) as refused:
        unpack(sealed, recipe("bayes"), key, **options)
    return refused.value


def signed(rest: bytes) -> bytes:
    """A checkpoint as whoever has the key could have written it, with a former release."""
    return b"SML1" + hmac.new(KEY, rest, hashlib.sha256).digest() + rest


def test_learning_goes_on() -> None:
    """Learners go on from a checkpoint as if they had never stopped."""
    for name in ("tree", "bayes"):
        learner = unpack(pack(trained(name), recipe(name), KEY), recipe(name), KEY)
        task, _ = LEARNERS[name]
        uninterrupted = trained(name)
        for features, label in examples(task, 100, seed=11):
            learn(learner, task, features, label)
            learn(uninterrupted, task, features, label)

        assert digest(uninterrupted) == digest(learner)


def test_a_snapshot_spares_writing_it_down_again() -> None:
    """With the payload of a snapshot of the same learner a checkpoint is the same, byte by byte."""
    payload = compress(recipe("tree").dump(trained("tree")))
    expected = pack(trained("tree"), recipe("tree"), KEY)

    assert expected == pack(trained("tree"), recipe("tree"), KEY, payload)


def test_a_former_release_is_read() -> None:
    """It put the learner into a dict, by the name of its line."""
    rest = RIVER_VERSION.encode() + b"\n" + compress(dumps({"bayes": trained("bayes")}))
    learner = unpack(signed(rest), recipe("bayes"), KEY)

    assert digest(trained("bayes")) == digest(learner)


def test_no_other_lines_is_taken() -> None:
    """Nor is a genuine one under the sign of a former release."""
    with pytest.raises(SnapshotRefused, match="way out: start a new log"):
        unpack(SEALED, recipe("tree"), KEY)
    assert refusal(b"SML1" + SEALED[4:]).reason == "signature"


def test_unsigned() -> None:
    """A checkpoint without signature opens only where there is no key and that is allowed."""
    unsigned = pack(trained("bayes"), recipe("bayes"), None)

    assert refusal(unsigned).reason == "unsigned"
    assert refusal(unsigned, key=None).reason == "unsigned"
    assert refusal(unsigned, allow_unsigned=True).reason == "unsigned"
    learner = unpack(unsigned, recipe("bayes"), None, allow_unsigned=True)
    assert digest(trained("bayes")) == digest(learner)


@unhurried
@given(at=st.integers(0, len(SEALED) - 1), flip=st.integers(1, 255))
def test_any_flipped_byte(at: int, flip: int) -> None:
    """With any one byte altered a checkpoint is refused."""
    altered = bytearray(SEALED)
    altered[at] ^= flip

    assert refusal(bytes(altered)).reason in {"malformed", "signature"}


@unhurried
@given(st.binary())
def test_any_bytes(sealed: bytes) -> None:
    """Any bytes that we did not write are refused, with a key and without."""
    for value in (sealed, b"SML1" + sealed):
        assert refusal(value).reason in {"malformed", "signature"}
        refusal(value, key=None, allow_unsigned=True)


def test_another_river() -> None:
    """A checkpoint of another release of river is refused with the way out."""
    refused = refusal(signed(b"0.25.0\n" + compress(dumps({}))))

    assert refused.reason == "river_version"
    assert "way out: start a new log" in str(refused)


def test_no_learners() -> None:
    """A signed checkpoint that holds something else, such as another line's, is refused."""
    for content in ([1], {"tree": trained("tree")}):
        rest = RIVER_VERSION.encode() + b"\n" + compress(dumps(content))

        assert refusal(signed(rest)).reason == "malformed"


def test_canary(tmp_path: Path) -> None:
    """Code in a checkpoint does not run, even if it is signed."""

    class Canary:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "mark"),)

    rest = RIVER_VERSION.encode() + b"\n" + compress(pickle.dumps({"line": Canary()}))

    assert refusal(signed(rest)).reason == "class_not_allowed"
    assert not (tmp_path / "mark").exists()
