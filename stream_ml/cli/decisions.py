"""Decisions as every command shows them: by whom, when, and what holds since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.cli.tables import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.cli.registry import Registry
    from stream_ml.shell.audit import Entry

__all__ = ["HEAD", "as_members", "as_row", "by", "effects", "made_ms", "when"]

HEAD = ["decision", "events at", "made at", "kind", "by", "champion", "reason"]


def by(actor: str, signed_by: str | None) -> str:
    """Who decided: whose key signed, and whom they named if that is somebody else.

    >>> by("evaluate", None), by("ana", "ana"), by("ana", "gus")
    ('evaluate', 'ana', 'gus (says ana)')

    Args:
        actor: whom the command or stage names.
        signed_by: the operator whose key signed; None if no operator's did.
    """
    return actor if signed_by in {None, actor} else f"{signed_by} (says {actor})"


def made_ms(entry: Entry) -> int:
    """When it was made, by a clock: a person's when it was given, else when the log took it in."""
    given_ms = entry.decision.given_ms
    return entry.append_ms if given_ms is None else given_ms


def as_members(entry: Entry) -> dict[str, Any]:
    """For a machine, what a line says."""
    decision = entry.decision
    return {
        "number": decision.number,
        "kind": decision.kind,
        "ts": decision.ts,
        "made_ms": made_ms(entry),
        "actor": decision.actor,
        "signed_by": decision.signed_by,
        "command_id": decision.command_id,
        "champion": decision.serving.champion.model,
        "reason": decision.reason,
    }


def as_row(members: Mapping[str, Any]) -> list[str]:
    """As a row of a table; see `HEAD`."""
    return [
        str(members["number"]),
        moment(members["ts"]),
        moment(members["made_ms"]),
        members["kind"],
        by(members["actor"], members["signed_by"]),
        members["champion"],
        members["reason"],
    ]


def when(members: Mapping[str, Any]) -> str:
    """When it took effect: in the time of events, and a person's decision by the clock."""
    if members["command_id"] is None:
        return moment(members["ts"])
    return f"{moment(members['made_ms'])} (at events of {moment(members['ts'])})"


def effects(registry: Registry) -> str:
    """What the last decisions mean for those to come."""
    if registry.paused is not None:
        return "paused: nothing is renewed, or replaced by itself, until `resume`"
    if registry.frozen is not None:
        return "frozen after a rollback: nothing is renewed until `resume` or the next replacement"
    return "models are renewed, and replaced as the pipeline declares it"
