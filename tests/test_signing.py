"""Signatures on records that must not be forged, and what each role may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.errors import BadRecord
from stream_ml.signing import LOCAL, ROLES, Keyring, Operator, RollingKey, keys_of, seal, unseal

BODIES = [
    b'{"a":1}',
    b'{"inputs":{"x":1,"signature":"of another record"},"b":2}',
    b'{"a":"\\",\\"signature\\":\\""}',
]


def refused(value: bytes | None, key: bytes | None) -> str:
    """Why it is refused."""
    with pytest.raises(BadRecord) as caught:
        unseal(value, key)
    return caught.value.reason


@pytest.mark.parametrize("body", BODIES)
def test_what_was_sealed_is_given_back(body: bytes) -> None:
    """Whatever the record holds, a member of the signature's name included."""
    sealed = seal(body, b"key")

    assert body == unseal(sealed, b"key") == unseal(sealed, None)
    assert "signature" == refused(sealed, b"another")


@given(st.sampled_from(BODIES), st.data())
def test_no_byte_can_be_altered_added_or_left_out(body: bytes, data: st.DataObject) -> None:
    """A sealed record with any one change is refused."""
    sealed = seal(body, b"key")
    place = data.draw(st.integers(0, len(sealed) - 1))
    other = bytes([data.draw(st.integers(0, 255).filter(lambda byte: byte != sealed[place]))])
    for forged in (
        sealed[:place] + other + sealed[place + 1 :],
        sealed[:place] + other + sealed[place:],
        sealed[:place] + sealed[place + 1 :],
        sealed + other,
        sealed[: place + 1] + sealed,
    ):
        # A byte beside its equal may be put in on either side.
        assert forged == sealed or refused(forged, b"key") in {"signature", "unsigned"}


def test_what_is_not_signed_is_refused_by_name() -> None:
    """No value, no signature and an empty signature are told apart."""
    assert "tombstone" == refused(None, b"key") == refused(None, None)
    assert "unsigned" == refused(b'{"a":1}', b"key")
    assert "signature" == refused(b'{"a":1,"signature":""}', b"key")
    assert "signature" == refused(b'{"a":1,"signature":"', b"key")
    assert b'{"a":1}' == unseal(b'{"a":1}', None)


def test_the_former_key_is_believed_and_signs_nothing() -> None:
    """While keys roll, records under either are good; new ones are the present key's."""
    rolling = RollingKey(b"new", former=b"old")

    assert (b"new", b"old") == keys_of(rolling)
    assert BODIES[0] == unseal(seal(BODIES[0], b"old"), rolling)
    assert BODIES[0] == unseal(seal(BODIES[0], rolling), b"new")
    assert "signature" == refused(seal(BODIES[0], b"older"), rolling)


def test_each_role_may_what_it_says_and_no_more() -> None:
    """An observer nothing, a guard what stops harm, an operator everything."""
    assert {
        "operator": {
            "batch",
            "promote",
            "rollback",
            "pause",
            "resume",
            "restart",
            "redrive",
            "forget",
            "apply",
        },
        "guard": {"rollback", "pause"},
        "observer": set(),
    } == {role: set(kinds) for role, kinds in ROLES.items()}


def test_who_has_the_pipelines_own_key_is_an_operator_of_a_reserved_name() -> None:
    """Nobody can be given that name, and a name that is not known has no key."""
    ring = Keyring(b"own", {"ada": Operator(b"hers", "guard"), LOCAL: Operator(b"x", "observer")})

    assert Operator(b"own", "operator") == ring.operator(LOCAL)
    assert Operator(b"hers", "guard") == ring.operator("ada")
    assert ring.operator("eve") is None
