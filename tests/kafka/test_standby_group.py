"""For whom a standby counts, and when it lets go of what it has; no cluster is asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import stream_ml as sml
from stream_ml.examples.cards import cards
from stream_ml.sealing import Seals
from stream_ml.shell.kafka import standby_group
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.standby import Standby, _Changelog
from stream_ml.shell.kafka.standby_group import has_other_standby, has_standby, standby_client_id

if TYPE_CHECKING:
    import pytest

CLUSTER = Cluster("127.0.0.1:1", cards.name)
KEY = bytes(32)
wider = replace(cards, features=[*cards.features, sml.window("5m").mean("amount", fill=0.0)])


def test_a_standby_is_for_its_own_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply goes by those of the same one; workers wait for those of another, not for their own."""
    members: list[dict[str, Any]] = [{"client_id": standby_client_id(wider)}]
    monkeypatch.setattr(standby_group, "described_members", lambda *_: members)

    assert (True, False) == (has_standby(CLUSTER, wider), has_standby(CLUSTER, cards))
    assert (False, True) == (has_other_standby(CLUSTER, wider), has_other_standby(CLUSTER, cards))


def test_what_others_took_over_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it takes no memory, and an old changelog is never read on."""
    monkeypatch.setattr("stream_ml.shell.kafka.standby.HOLD_S", 0.0)
    monkeypatch.setattr("stream_ml.shell.kafka.standby.group_members", lambda *_: frozenset())

    async def run() -> list[bool]:
        standby = Standby(CLUSTER, wider, "predict", KEY, lambda *_, **__: None)
        seals = Seals(KEY, cards.name, "log")
        states = {n: seals.state(f"predict-{n}") for n in range(2)}
        changelog = standby._changelog = _Changelog(CLUSTER, states)
        standby._windows._preparation = object()  # type: ignore[assignment]
        held = [standby.changelog(0) is not None]
        await standby.until_left()
        assert standby._release is not None
        await standby._release
        held += [standby.changelog(1) is not None, standby._windows._preparation is not None]
        standby.stop()
        await changelog.stop()
        return held

    assert [True, False, False] == asyncio.run(run())
