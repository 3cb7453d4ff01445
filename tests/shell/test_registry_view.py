"""The registry as operators see it: what keeps that which serves from being renewed."""

from __future__ import annotations

import pytest

from stream_ml.records import ModelRef, ServingSet
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.views.registry import effects, read_registry
from stream_ml.stages.registry import Registry, serving_after_rollback

KEY = b"k" * 32


@pytest.mark.parametrize(("reference", "is_frozen"), [("first", True), ("predecessor", False)])
def test_a_return_to_the_first_model_is_shown_until_somebody_resumes(
    reference: str, *, is_frozen: bool
) -> None:
    """Its line is not renewed, as after an operator's rollback; after the guard's others it is."""
    first = ModelRef("a@500", "digest", 1)
    serving = ServingSet(ModelRef("a@900", "digest", 2), {}, ModelRef("a@800", "digest", 3), first)
    registry = Registry("p", KEY, None)
    outputs = [registry.decide("bootstrap", "to see", serving, ts=0, inputs={})]
    back = serving_after_rollback(serving, first if reference == "first" else None)
    figures = {"reference": reference}
    outputs.append(
        registry.decide("rolled_back", "guard: harm", back, ts=1, inputs={}, evidence=figures)
    )
    with SqliteLog.create(MEMORY) as log, log.session() as session:
        session.stage(outputs)
        session.commit()
        assert is_frozen == (read_registry(log, KEY, None).frozen is not None)

        session.stage([registry.decide("resumed", "seen", back, ts=2, inputs={})])
        session.commit()
        assert read_registry(log, KEY, None).frozen is None
    assert ("a@500" if is_frozen else "a@800") == back.champion.model


@pytest.mark.parametrize("end", ["continued", "resumed"])
def test_a_pause_for_a_fault_is_shown_until_it_is_over_or_somebody_resumes(end: str) -> None:
    """With the fault, beside an operator's pause, which it neither hides nor ends."""
    serving = ServingSet(ModelRef("a@900", "digest", 2), {}, None)
    registry = Registry("p", KEY, None)
    with SqliteLog.create(MEMORY) as log, log.session() as session:
        for kind in ("bootstrap", "paused", "suspended"):
            session.stage([registry.decide(kind, f"for {kind}", serving, ts=0, inputs={})])
        session.commit()
        view = read_registry(log, KEY, None)
        assert [
            "paused: nothing is renewed, or replaced by itself, until `resume`",
            "suspended: for suspended; it goes on by itself, or by `resume`",
        ] == effects(view).splitlines()

        session.stage([registry.decide(end, "seen", serving, ts=2, inputs={})])
        session.commit()
        view = read_registry(log, KEY, None)
        assert (None, end == "continued") == (view.suspended, view.paused is not None)


@pytest.mark.parametrize("end", ["lapsed", "replaced", "rolled_back"])
def test_a_proposal_is_shown_while_it_stands(end: str) -> None:
    """With its command, until it lapses or another model serves."""
    serving = ServingSet(ModelRef("a@900", "digest", 2), {}, None)
    registry = Registry("p", KEY, None)
    with SqliteLog.create(MEMORY) as log, log.session() as session:
        session.stage([registry.decide("proposed", "do `it`", serving, ts=0, inputs={})])
        session.commit()
        assert "proposed: do `it`" == effects(read_registry(log, KEY, None))

        session.stage([registry.decide(end, "seen", serving, ts=2, inputs={})])
        session.commit()
        assert read_registry(log, KEY, None).proposed is None
