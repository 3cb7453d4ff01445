"""Seals: what is not ours, or not as we wrote it, is never believed, whatever was done to it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.errors import BadRecord
from stream_ml.sealing import MARKER, SEALED_TOPICS, SealedState, Seals, StateEntry
from stream_ml.signing import RollingKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.sealing import RestoredState

KEY = b"the pipeline's own key"
OURS = Seals(KEY, "shop", "log-1")
BODY = b'{"event_id":"e1","number":3}'
STRANGERS = {
    "another key": Seals(b"another", "shop", "log-1"),
    "another pipeline": Seals(KEY, "shop2", "log-1"),
    "another log": Seals(KEY, "shop", "log-2"),
    "names that run together": Seals(KEY, "shoplog", "-1"),
}
SEEDS = st.integers(0, 2**32)


# --- records ----------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", sorted(SEALED_TOPICS))
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_record_sealed_elsewhere_is_not_believed(stranger: str, topic: str) -> None:
    """A record of another key, pipeline or log is forged here."""
    theirs = STRANGERS[stranger].records(topic).seal(BODY)
    with pytest.raises(BadRecord, match="forged at"):
        OURS.records(topic).unseal(theirs)


def test_a_record_of_one_topic_is_none_of_another() -> None:
    """A genuine example is no genuine prediction, and so on for each pair."""
    for one in SEALED_TOPICS:
        value = OURS.records(one).seal(BODY)
        assert BODY == OURS.records(one).unseal(value)
        for other in SEALED_TOPICS - {one}:
            with pytest.raises(BadRecord, match="forged at"):
                OURS.records(other).unseal(value)


@settings(deadline=None)
@given(SEEDS)
def test_no_byte_of_a_record_can_change(seed: int) -> None:
    """Whichever byte is altered, put in or taken away, the record is not believed."""
    rand = random.Random(seed)
    seal, value = OURS.records("examples"), bytearray(OURS.records("examples").seal(BODY))
    at = rand.randrange(len(value))
    match rand.choice(["alter", "insert", "delete", "cut"]):
        case "alter":
            value[at] ^= 1 << rand.randrange(8)
        case "insert":
            value.insert(at, rand.randrange(256))
        case "delete":
            del value[at]
        case _:
            del value[at:]
    if bytes(value) == seal.seal(BODY):
        return  # a byte like its neighbour was put in beside it, or taken away
    with pytest.raises(BadRecord, match="forged at"):
        seal.unseal(bytes(value))


def test_a_key_is_rolled() -> None:
    """What the former key sealed is believed beside it, and what is written has the present one."""
    rolling = Seals(RollingKey(b"new", former=KEY), "shop", "log-1").records("alerts")
    alone = Seals(b"new", "shop", "log-1").records("alerts")
    assert BODY == rolling.unseal(OURS.records("alerts").seal(BODY))
    assert BODY == alone.unseal(rolling.seal(BODY))
    with pytest.raises(BadRecord, match="forged at"):
        alone.unseal(OURS.records("alerts").seal(BODY))


# --- state on a changelog -----------------------------------------------------------------------


def written(rand: random.Random, checkpoints: int) -> tuple[list[StateEntry], dict[str, bytes]]:
    """What a task writes in so many checkpoints, and what its state is then."""
    state, entries, pieces = OURS.state("join-0"), list[StateEntry](), dict[str, bytes]()
    for number in range(checkpoints):
        changed: dict[str, bytes | None] = {"": b'{"n":%d}' % number}
        for _ in range(rand.randrange(4)):
            name = f"p{rand.randrange(6)}"
            gone = name in pieces and rand.random() < 0.4
            changed[name] = None if gone else b"%d" % rand.randrange(1_000)
        for name, body in changed.items():
            if body is None:
                pieces.pop(name, None)
            else:
                pieces[name] = body
        entries += state.write(changed.items(), {("labels", 0): number})
    return entries, pieces


def compacted(rand: random.Random, entries: list[StateEntry]) -> list[StateEntry]:
    """What compaction leaves of a log: of its older part the newest of each name."""
    upto = rand.randrange(len(entries) + 1)
    newest = {entry.name: at for at, entry in enumerate(entries)}
    return [e for at, e in enumerate(entries) if at >= upto or newest[e.name] == at]


def read(entries: Iterable[StateEntry], seals: Seals = OURS) -> tuple[RestoredState, SealedState]:
    """What a successor reads of it."""
    state = seals.state("join-0")
    for entry in entries:
        state.take(*entry)
    return state.result(), state


def foreign(rand: random.Random, entries: list[StateEntry]) -> StateEntry:
    """A record that somebody without the key can put there."""
    known = rand.choice(entries)
    theirs = STRANGERS[rand.choice(list(STRANGERS))].state(rand.choice(["join-0", "join-1"]))
    return rand.choice(
        [
            known,  # a copy of ours
            StateEntry(known.name, None),
            StateEntry(known.name, b'{"positions":[["labels",0,1000000]]}'),
            StateEntry(MARKER, b'{"positions":[["labels",0,1000000]]}'),
            StateEntry(b"p9", b"unheard of"),
            StateEntry(b"\xff\xfe", b"no name at all"),
            StateEntry(known.name, (known.value or b"") + b" "),
            StateEntry(b"p0", known.value, known.seal),
            *theirs.write([("p0", b"1")], {("labels", 0): 99}),
            *OURS.state("join-1").write([("p0", b"1")], {("labels", 0): 99}),
        ]
    )


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_what_others_put_on_a_changelog_changes_nothing(seed: int) -> None:
    """Between, amid or after our checkpoints: passed over, counted, and mended by the next one."""
    rand = random.Random(seed)
    entries, pieces = written(rand, rand.randint(1, 5))
    attacked = list(entries)
    put = rand.randint(1, 6)
    for _ in range(put):
        at = rand.randint(1, len(attacked))
        # A copy can only be of what lay there already.
        known = [each for each in attacked[:at] if each in entries]
        attacked.insert(at, foreign(rand, known))

    restored, state = read(attacked)

    assert ([], pieces) == (restored.flaws, restored.pieces), f"seed {seed}"
    # A copy of an entry beside it, in the checkpoint that is being written, is as good as it.
    assert restored.foreign <= put, f"seed {seed}"
    marker = restored.marker
    assert marker is not None
    mended = [*attacked, *state.write([], marker.positions)]
    again, _ = read(compacted(rand, mended))
    assert ([], pieces) == (again.flaws, again.pieces), f"seed {seed}"


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_what_compaction_took_of_ours_is_missed(seed: int) -> None:
    """Where a foreign record made compaction remove one of ours, that is found."""
    rand = random.Random(seed)
    entries, pieces = written(rand, rand.randint(1, 5))
    attacked = [*entries, foreign(rand, entries)]
    newest = {entry.name: at for at, entry in enumerate(attacked)}
    left = [entry for at, entry in enumerate(attacked) if newest[entry.name] == at]

    restored, _ = read(left)

    if restored.marker is not None and not restored.flaws:
        assert pieces == restored.pieces, f"seed {seed}"


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_an_altered_state_is_found_wherever_it_was_altered(seed: int) -> None:
    """A byte of an entry, an entry taken away, one put back as it was: found at the next start."""
    rand = random.Random(seed)
    entries, _ = written(rand, rand.randint(2, 5))
    rows = {e.name.decode(): e.value for e in entries}
    rows = {name: value for name, value in rows.items() if value is not None}
    old = {e.name.decode(): e.value for e in entries[: -len(rows)] if e.value is not None}
    name = rand.choice(sorted(rows))
    match rand.choice(["flip", "drop", "put back"]):
        case "flip":
            value = bytearray(rows[name] or b"")
            value[rand.randrange(len(value))] ^= 1 << rand.randrange(8)
            rows[name] = bytes(value)
        case "drop":
            del rows[name]
        case _:
            if old.get(name, rows[name]) == rows[name]:
                return
            rows[name] = old[name]

    state = OURS.state("join-0")
    restored = state.restore((name, value) for name, value in rows.items() if value is not None)

    assert restored.flaws, f"seed {seed}"


def test_state_of_another_key_is_said_to_be() -> None:
    """Who has lost the key is told so, and who has another pipeline's log is told which."""
    entries, _ = written(random.Random(1), 2)
    for seals, words in (
        (Seals(b"another", "shop", "log-1"), "by another key"),
        (Seals(KEY, "shop2", "log-1"), "for the pipeline 'shop'"),
        (Seals(KEY, "shop", "log-2"), "for the log 'log-1'"),
    ):
        restored, _ = read(entries, seals)
        assert restored.foreign_owner is not None
        assert words in restored.foreign_owner


def test_a_state_is_sealed_again_when_the_key_is_rolled() -> None:
    """The next checkpoint seals all of it with the present key, which then suffices."""
    entries, pieces = written(random.Random(2), 3)
    rolling = Seals(RollingKey(b"new", former=KEY), "shop", "log-1")
    restored, state = read(entries, rolling)
    assert (pieces, True) == (restored.pieces, state.must_write)
    again = [*entries, *state.write([], {("labels", 0): 9})]

    alone, _ = read(again, Seals(b"new", "shop", "log-1"))

    assert ([], pieces) == (alone.flaws, alone.pieces)


def test_what_others_put_before_a_task_ever_began_does_not_hold_it_up() -> None:
    """A new task begins, and its first checkpoint clears what lay there."""
    restored, state = read([StateEntry(b"w1", b"junk"), StateEntry(b"", b"{}")])
    assert (2, None, {}, {}) == (
        restored.foreign,
        restored.marker,
        restored.pieces,
        restored.plain,
    )
    entries = [StateEntry(b"w1", b"junk"), StateEntry(b"", b"{}"), *state.write([("", b"{1}")], {})]
    again, _ = read(entries)
    assert {"": b"{1}"} == again.pieces
