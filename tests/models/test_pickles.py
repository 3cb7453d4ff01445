"""Pickles: what may be read back, and that nothing else runs."""

from __future__ import annotations

import functools
import os
import pickle
import sys
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learners import LEARNERS, examples, trained
from river import compose, linear_model, preprocessing, stats

from stream_ml.errors import SnapshotRefused
from stream_ml.models.pickles import PICKLE_BYTES_MAX, compress, decompress, dumps, loads
from stream_ml.models.recipes import answer, learn

if TYPE_CHECKING:
    from pathlib import Path


# Time says nothing here, least of all on a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", LEARNERS)
def test_learning_goes_on(name: str) -> None:
    """A learner that was read back answers and learns as the one that was written."""
    task, _ = LEARNERS[name]
    one = trained(name, 120)
    other = loads(dumps(one))
    for features, label in examples(task, 120, seed=8):
        expected, found = answer(one, task, features), answer(other, task, features)
        assert expected == pytest.approx(found, rel=1e-12, abs=1e-12)
        learn(one, task, features, label)
        learn(other, task, features, label)


class Canary:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_canary(tmp_path: Path) -> None:
    """What the standard library would run is refused before it runs."""
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    pickle.loads(pickle.dumps(Canary(plain)))
    with pytest.raises(SnapshotRefused) as refused:
        loads(pickle.dumps(Canary(ours)))

    assert (plain.exists(), ours.exists()) == (True, False)
    assert refused.value.reason == "class_not_allowed"


def named(module: str, name: str) -> bytes:
    """A pickle that asks for a name, dots and all."""
    return b"".join(
        [b"\x80\x04", *(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)), b"\x93."]
    )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "__import__"),
        ("builtins", "dict.fromkeys"),
        ("builtins", "int.from_bytes"),
        ("functools", "reduce"),
        ("functools", "partial.__new__"),
        ("river.base.base", "sys.modules"),
        ("river.base.base", "inspect.os.system"),
        ("river.utils.pandas", "importlib.import_module"),
        ("river.tree.hoeffding_tree", "functools.partial"),
        ("river.preprocessing.scale", "StandardScaler.__init__.__globals__"),
        ("river.preprocessing.scale", "StandardScaler.learn_one"),
        ("river.preprocessing.scale", "StandardScaler.__class__"),
        ("river.preprocessing", "StandardScaler"),
        ("river.preprocessing.scale", "Base"),
        ("river.linear_model.log_reg", "optim.losses.Log"),
        ("river.datasets.phishing", "Phishing"),
        ("river.drift.datasets.apple", "Apple"),
        ("river.stream.cache", "Cache"),
        ("river.active.entropy", "EntropySampler"),
        ("river.compat.river_to_sklearn", "River2SKLClassifier"),
        ("river.naive_bayes.gaussian", "GaussianNB._make_gaussian.__globals__"),
        ("river", "api"),
        ("", ""),
        ("river.stats.mean", "Mean\0"),
        ("stream_ml.models.pickles", "loads"),
    ],
)
def test_names_off_the_list(module: str, name: str) -> None:
    """No name outside the list is handed out, by whatever path it could be reached."""
    with pytest.raises(SnapshotRefused) as refused:
        loads(named(module, name))

    assert refused.value.reason == "class_not_allowed"
    assert f"given {module}.{name}" in str(refused.value)


def test_modules_off_the_list() -> None:
    """A module outside the list is not even imported."""
    with pytest.raises(SnapshotRefused):
        loads(named("this", "s"))

    assert "this" not in sys.modules


def test_a_name_on_the_list() -> None:
    """The form of those pickles is not what is refused."""
    found = loads(named("river.preprocessing.scale", "StandardScaler"))

    assert preprocessing.StandardScaler is found


@pytest.mark.parametrize("attribute", ["__class__", "__init__", "learn_one", "__reduce__", "steps"])
def test_getattr(attribute: str) -> None:
    """`getattr` gives the methods that river keeps as state, and no other attribute."""
    reach = functools.partial(getattr, linear_model.PAClassifier(), attribute)

    class Reach:
        def __reduce__(self) -> Any:
            return reach.func, reach.args

    with pytest.raises(SnapshotRefused) as refused:
        loads(pickle.dumps(Reach()))

    assert refused.value.reason == "class_not_allowed"


def test_patched_class() -> None:
    """A pickle that sets an attribute on a class is refused, and the class is as it was."""
    before = dict(vars(stats.Mean))
    patch = b"\x80\x04criver.stats.mean\nMean\nN}(\x8c\x03getN\x8c\x03newK\x01u\x86b."
    with pytest.raises(SnapshotRefused) as refused:
        loads(patch)

    assert refused.value.reason == "class_not_allowed"
    assert "alters river.stats.mean.Mean" in str(refused.value)
    assert before == dict(vars(stats.Mean))


@unhurried
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes that are no pickle are refused, whatever they are."""
    try:
        loads(b"\x80\x04" + data)
    except SnapshotRefused as refused:
        assert refused.reason in {"malformed", "class_not_allowed"}  # noqa: PT017 - many succeed


def test_functions_of_users() -> None:
    """A learner that holds a lambda is refused when it is written, with the way out."""
    with pytest.raises(SnapshotRefused) as refused:
        dumps(compose.FuncTransformer(lambda x: x) | linear_model.LogisticRegression())

    assert refused.value.reason == "class_not_allowed"
    assert "as a declared feature" in str(refused.value)


def test_nested_too_deep() -> None:
    """What is nested too deep for pickle is refused, not a crash."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SnapshotRefused) as refused:
        dumps(deep)
    while deep:  # freeing it at once would recurse as deep
        deep = deep.pop()  # type: ignore[assignment]  # lists all the way down

    assert refused.value.reason == "too_large"


class TestDecompress:
    """Decompression is bounded."""

    def test_round_trip(self) -> None:
        """What was compressed comes back."""
        assert decompress(compress(b"learner" * 99)) == b"learner" * 99

    def test_zip_bomb(self) -> None:
        """A payload that holds more than the limit is refused before it is unpacked."""
        bomb = zlib.compress(bytes(3 * PICKLE_BYTES_MAX), 9)
        tracemalloc.start()
        try:
            with pytest.raises(SnapshotRefused) as refused:
                decompress(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert refused.value.reason == "too_large"
        assert peak < 2.5 * PICKLE_BYTES_MAX

    @pytest.mark.parametrize(
        "broken", [b"", b"no zlib", compress(b"x")[:-1], compress(b"x") + b"y"]
    )
    def test_broken(self, broken: bytes) -> None:
        """What does not end where its pickle ends is refused."""
        with pytest.raises(SnapshotRefused) as refused:
            decompress(broken)

        assert refused.value.reason == "malformed"
