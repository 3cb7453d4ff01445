"""Snapshots: what is written opens again, and nothing else does."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import pickle
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learners import BINARY, LEARNERS, REGRESSION, examples, recipe, trained
from river import linear_model

from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.models import snapshot as module
from stream_ml.models.digest import digest
from stream_ml.models.pickles import PICKLE_BYTES_MAX, RIVER_VERSION, compress, dumps
from stream_ml.models.recipes import Recipe, answer
from stream_ml.models.snapshot import (
    NO_EXAMPLES,
    SNAPSHOT_BYTES_MAX,
    Snapshot,
    decode,
    open_snapshot,
    take,
)

if TYPE_CHECKING:
    from pathlib import Path

# Time says nothing here, least of all on a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEY = b"a key of ours"
HASH = "features of ours"


def snapshot_of(name: str, key: bytes | None = KEY) -> Snapshot:
    """A snapshot of a trained learner."""
    task, _ = LEARNERS[name]
    return take(
        trained(name),
        recipe(name),
        task,
        version=240,
        feature_hash=HASH,
        key=key,
        parent=f"{name}@120",
        examples={"count": 240, "first": 3, "last": 250},
        epoch={"n": 120, "live_loss": 0.25, "served_loss": None},
        golden_features=[features for features, _ in examples(task, 8, seed=9)],
    )


def signed(snapshot: Snapshot) -> Snapshot:
    """The snapshot as whoever has the key could have written it."""
    body = replace(snapshot, signature=None).encode()
    return replace(snapshot, signature=hmac.new(KEY, body, hashlib.sha256).hexdigest())


@pytest.fixture(scope="module")
def logistic() -> Snapshot:
    """A snapshot that nobody alters."""
    return snapshot_of("logistic")


def test_what_this_process_has_taken_it_need_not_read_back_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The learner is the one that take has read back; of what was altered all is checked."""
    taken = snapshot_of("tree")
    read: list[bytes] = []
    load = Recipe.load

    def spy(recipe: Recipe, data: bytes) -> Any:
        read.append(data)
        return load(recipe, data)

    monkeypatch.setattr(Recipe, "load", spy)
    target = LEARNERS["tree"][0]
    assert taken.opened is not None
    ours = taken.opened.recipe
    opened = open_snapshot(taken, ours, target, KEY, HASH)
    assert (opened is taken.opened.learner, read) == (True, [])

    # Equal bytes that came over the log, an equal recipe, other golden answers: read and checked.
    open_snapshot(decode(taken.encode()), ours, target, KEY, HASH)
    open_snapshot(taken, replace(ours), target, KEY, HASH)
    assert len(read) == 2
    # Whoever has the key may have altered it.
    other = snapshot_of("bayes")
    for changed in ({"payload": other.payload}, {"digest": other.digest}):
        with pytest.raises(SnapshotRefused, match="expected digest"):
            open_snapshot(signed(replace(taken, **changed)), ours, target, KEY, HASH)


@pytest.mark.parametrize("name", LEARNERS)
def test_round_trip(name: str) -> None:
    """A snapshot is read as it was written, and gives the learner that was taken."""
    task, _ = LEARNERS[name]
    snapshot = snapshot_of(name)
    found = decode(snapshot.encode())
    learner = open_snapshot(found, recipe(name), task, KEY, HASH)

    assert snapshot == found
    assert f"{name}@240" == found.model
    assert digest(trained(name)) == digest(learner) == found.digest
    features, _ = next(examples(task, 1, seed=10))
    assert answer(trained(name), task, features) == answer(learner, task, features)


def test_of_an_untrained_one() -> None:
    """Version 0 of a line, which has seen nothing, is a snapshot like any other."""
    _, estimator = LEARNERS["tree"]
    snapshot = take(
        estimator.clone(), recipe("tree"), BINARY, version=0, feature_hash=HASH, key=KEY,
        golden_features=[{"a": 1.0}],
    )  # fmt: skip

    assert snapshot.examples == NO_EXAMPLES
    assert snapshot.golden[0].answer is None
    learner = open_snapshot(decode(snapshot.encode()), recipe("tree"), BINARY, KEY, HASH)
    assert digest(estimator) == digest(learner)


def test_taking_changes_nothing() -> None:
    """The learner that a snapshot is taken of goes on unchanged."""
    model = trained("forest")
    before = digest(model, generators=True)
    take(model, recipe("forest"), BINARY, version=1, feature_hash=HASH, key=KEY)

    assert before == digest(model, generators=True)


def refusal(snapshot: Snapshot, key: bytes | None = KEY, **options: Any) -> SnapshotRefused:
    """The error that opening it raises."""
    with pytest.raises(SnapshotRefused) as refused:
        open_snapshot(snapshot, None, BINARY, key, HASH, **options)
    return refused.value


class TestRefusals:
    """Each check refuses what it is there for, and says the way out."""

    def test_unsigned(self, logistic: Snapshot) -> None:
        """No signature, no learner."""
        refused = refusal(replace(logistic, signature=None))

        assert refused.reason == "unsigned"
        assert "given no signature" in str(refused)

    def test_no_key(self, logistic: Snapshot) -> None:
        """Without a key nothing is opened, unless unsigned models are allowed."""
        assert refusal(logistic, key=None).reason == "unsigned"

        unsigned = snapshot_of("logistic", key=None)
        assert unsigned.signature is None
        assert open_snapshot(unsigned, None, BINARY, None, HASH, allow_unsigned=True) is not None

    def test_unsigned_where_there_is_a_key(self) -> None:
        """Allowing unsigned models does not switch off a key that is there."""
        unsigned = snapshot_of("logistic", key=None)

        assert refusal(unsigned, allow_unsigned=True).reason == "unsigned"

    def test_another_key(self, logistic: Snapshot) -> None:
        """What another key signed is refused."""
        assert refusal(logistic, key=b"a key of theirs").reason == "signature"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "other"),
            ("version", 241),
            ("recipe", "other"),
            ("river", "0.0"),
            ("features", "other"),
            ("parent", None),
            ("examples", {"count": 240, "first": 4, "last": 250}),
            ("epoch", {"n": 120, "live_loss": 0.2, "served_loss": None}),
            ("golden", ()),
            ("digest", "0" * 64),
            ("payload", compress(dumps(1))),
        ],
    )
    def test_every_member_is_signed(self, logistic: Snapshot, field: str, value: Any) -> None:
        """No member can be altered without the key."""
        altered = decode(replace(logistic, **{field: value}).encode())

        assert refusal(altered).reason == "signature"

    def test_another_river(self, logistic: Snapshot) -> None:
        """A snapshot of another release of river is refused with the way out."""
        refused = refusal(signed(replace(logistic, river="0.25.0")))

        assert refused.reason == "river_version"
        assert (
            f"logistic@240: expected river {RIVER_VERSION}, given 0.25.0; "
            "way out: start a new log, and replay the events and labels into it"
        ) == str(refused)

    def test_other_features(self, logistic: Snapshot) -> None:
        """A snapshot learned on another feature set is refused."""
        assert refusal(signed(replace(logistic, features="other"))).reason == "feature_set"

    def test_another_digest(self, logistic: Snapshot) -> None:
        """A payload that is not the learner that the digest names is refused."""
        payload = compress(dumps(trained("logistic", 239)))

        assert refusal(signed(replace(logistic, payload=payload))).reason == "malformed"

    @pytest.mark.parametrize("off", [1e-9, -1e-9, math.nan, None])
    def test_another_golden_answer(self, logistic: Snapshot, off: float | None) -> None:
        """A learner that answers otherwise than when it was taken is refused."""
        first, *others = logistic.golden
        assert isinstance(first.answer, float)
        wrong = replace(first, answer=None if off is None else first.answer + off)
        altered = replace(logistic, golden=(wrong, *others))

        assert refusal(signed(altered)).reason == "golden"

    def test_rounding(self, logistic: Snapshot) -> None:
        """A golden answer may differ by rounding."""
        first, *others = logistic.golden
        assert isinstance(first.answer, float)
        near = replace(first, answer=first.answer + 1e-14)

        open_snapshot(signed(replace(logistic, golden=(near, *others))), None, BINARY, KEY, HASH)

    def test_answers_that_are_not_finite(self) -> None:
        """No snapshot is taken of a learner whose golden answers are not finite."""
        model = linear_model.LinearRegression(intercept_init=math.inf)
        with pytest.raises(SnapshotRefused) as refused:
            take(
                model, Recipe("l", model), REGRESSION, version=1, feature_hash=HASH, key=KEY,
                golden_features=[{"a": 1.0}],
            )  # fmt: skip

        assert refused.value.reason == "golden"

    def test_zip_bomb(self, logistic: Snapshot) -> None:
        """A payload that unpacks beyond its limit is refused."""
        bomb = zlib.compress(bytes(PICKLE_BYTES_MAX + 1), 9)

        assert refusal(signed(replace(logistic, payload=bomb))).reason == "too_large"

    def test_too_large_to_take(self) -> None:
        """A learner too large for the log is refused with its size when it is taken."""
        noise = {"noise": os.urandom(SNAPSHOT_BYTES_MAX)}
        with pytest.raises(SnapshotRefused) as refused:
            take(noise, Recipe("n", None), BINARY, version=1, feature_hash=HASH, key=KEY)

        assert refused.value.reason == "too_large"
        assert f"at most {SNAPSHOT_BYTES_MAX} bytes, given n@1 with 2" in str(refused.value)

    def test_epoch_figures_that_are_not_finite(self) -> None:
        """A figure that JSON cannot hold is a mistake of ours, never silently null."""
        with pytest.raises(AssertionError, match="live_loss"):
            take(
                trained("logistic", 2), recipe("logistic"), BINARY, version=1,
                feature_hash=HASH, key=KEY, epoch={"live_loss": math.nan},
            )  # fmt: skip


class TestHostile:
    """What whoever writes to the topic may try."""

    class Canary:
        """Leaves a mark where it is unpickled."""

        def __init__(self, mark: Path) -> None:
            self.mark = mark

        def __reduce__(self) -> Any:
            return os.mkdir, (str(self.mark),)

    @pytest.mark.parametrize(
        ("how", "reason"),
        [
            ((KEY, False), "signature"),
            ((KEY, True), "class_not_allowed"),
            ((None, False), "class_not_allowed"),
        ],
        ids=["forged", "key leaked", "unsigned"],
    )
    def test_canary(
        self, logistic: Snapshot, tmp_path: Path, how: tuple[bytes | None, bool], reason: str
    ) -> None:
        """Code in a payload does not run: not forged, not even signed, not unsigned."""
        key, sign = how
        pickled = pickle.dumps(self.Canary(tmp_path / "mark"))
        hostile = replace(logistic, payload=compress(pickled))
        hostile = signed(hostile) if sign else hostile

        assert reason == refusal(decode(hostile.encode()), key, allow_unsigned=key is None).reason
        assert not (tmp_path / "mark").exists()
        pickle.loads(pickled)
        assert (tmp_path / "mark").exists()


ENCODED = snapshot_of("logistic").encode()


@unhurried
@given(at=st.integers(0, len(ENCODED) - 1), flip=st.integers(1, 255))
def test_any_flipped_byte(at: int, flip: int) -> None:
    """With any one byte altered a snapshot is refused before its pickle is read."""
    altered = bytearray(ENCODED)
    altered[at] ^= flip
    read: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "loads", read.append)
        with pytest.raises((BadRecord, SnapshotRefused)):
            open_snapshot(decode(bytes(altered)), None, BINARY, KEY, HASH)

    assert read == []


def test_bits_that_base64_ignores() -> None:
    """The one spelling of a payload is the one that we write."""
    payload = orjson.loads(ENCODED)["payload"]
    assert payload.endswith("="), "choose a payload with unused bits"
    last = payload.rstrip("=")[-1]
    other = payload.rstrip("=")[:-1] + chr(ord(last) + 1) + "=" * payload.count("=")
    with pytest.raises(BadRecord) as refused:
        decode(ENCODED.replace(payload.encode(), other.encode()))

    assert refused.value.reason == "not_canonical"


@unhurried
@given(st.binary())
def test_any_bytes(value: bytes) -> None:
    """Any bytes are a snapshot or one bad record, and nothing else."""
    with pytest.raises(BadRecord):
        decode(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@unhurried
@given(st.dictionaries(st.sampled_from(sorted(orjson.loads(ENCODED))), JSON, max_size=4))
def test_any_members(members: dict[str, Any]) -> None:
    """Whatever the members hold, the answer is a snapshot or one bad record."""
    value = orjson.dumps({**orjson.loads(ENCODED), **members})
    try:
        found = decode(value)
    except BadRecord:
        return

    assert found.encode() == value


@pytest.mark.parametrize(
    ("value", "reason", "path"),
    [
        (b"", "not_json", "$"),
        (b"[]", "wrong_type", "$"),
        (b"{}", "wrong_type", "$.examples"),
        (b'{"other":1}', "unknown_field", "$.other"),
        (b" " + ENCODED, "not_canonical", "$"),
        (ENCODED.replace(b'"version":240', b'"version":true'), "wrong_type", "$.version"),
        (ENCODED.replace(b'"first":3', b'"first":null'), "wrong_type", "$.examples.first"),
        (ENCODED.replace(b'"payload":"', b'"payload":"!'), "not_base64", "$.payload"),
        (ENCODED.replace(b'"golden":[', b'"golden":[1,'), "wrong_type", "$.golden"),
        (
            ENCODED.replace(b'"epoch":{', b'"epoch":{"x":' + b"[" * 400 + b"]" * 400 + b","),
            "not_canonical",
            "$",
        ),
        (bytes(SNAPSHOT_BYTES_MAX + 1), "too_large", "$"),
    ],
    ids=range(11),
)
def test_bad_records(value: bytes, reason: str, path: str) -> None:
    """A bad record says what is wrong and where."""
    with pytest.raises(BadRecord) as refused:
        decode(value)

    assert (reason, path) == (refused.value.reason, refused.value.path)
