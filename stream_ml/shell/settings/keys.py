"""Whether a log is the one that is meant: signed with the key, of the pipeline, that are set.

A log that was made with another key would look as if all on it were forged, and one of another
pipeline as if it were empty or wrong. Both are mistakes of whoever set things up, so they are said
at once, with what sets it and the way out.

What others put on the registry without our key is no sign of another key: one decision that is
signed with ours is enough to know that the key is right.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from stream_ml.errors import BadRecord, UsageError
from stream_ml.records import line_of
from stream_ml.sealing import MARKER, content
from stream_ml.shell.log.reading import registry_records
from stream_ml.shell.settings.settings import SETTINGS, key_file

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings

__all__ = ["check_key", "check_name", "check_serving", "reading_key", "working_key"]


def reading_key(settings: Settings, log: Log) -> bytes | None:
    """The key that the decisions on `log` are checked with; None where there is none to be had.

    Args:
        settings: which keys are set.
        log: whose decisions are to be checked.

    Raises:
        UsageError: they are signed with another one.
    """
    key = settings.verifying_key(settings.path)
    if key is not None:
        check_key(settings, log, key)
    return key


def working_key(settings: Settings, log: Log) -> bytes:
    """The key that a worker on `log` signs with; made only where nothing is signed yet.

    Args:
        settings: which keys are set.
        log: that the worker writes to.

    Raises:
        UsageError: there is none, or what lies there is signed with another one.
    """
    used = _is_used(log)
    key = settings.signing_key(settings.path, new=not used)
    if used:
        check_key(settings, log, key)
    return key


def _is_used(log: Log) -> bool:
    """Whether a worker has been at work there."""
    return log.piece("evaluate-0", "") is not None


def check_key(settings: Settings, log: Log, key: bytes) -> None:
    """Refuse a key that is not the one that the decisions on `log` are signed with.

    Args:
        settings: who set the key, for the message.
        log: whose decisions are looked at.
        key: to check them with.

    Raises:
        UsageError: none of them is signed with it.
    """
    foreign = 0
    for _, decision in registry_records(log, key):
        if not isinstance(decision, BadRecord):
            return
        foreign += decision.reason == "signature"
    if not foreign:
        return
    variable = SETTINGS["key"].variable
    if settings.key is not None or settings.on_kafka:
        source, way_out = variable, f"set {variable} to the one that its workers have"
        if not settings.on_kafka:
            way_out += ", or unset it where that lies beside the log"
    else:
        file = key_file(settings.path)
        source, way_out = str(file), f"put the right one there, or set {variable} to it"
    raise UsageError(
        f"{source}: expected the key that the decisions on {settings.path} are signed with, given "
        f"another one; {way_out}"
    )


def check_serving(log: Log, key: bytes, pipeline: Pipeline) -> None:
    """Refuse a declaration without the line that serves, before any of its state is let go.

    Args:
        log: the log.
        key: what its decisions are signed with.
        pipeline: the declaration, as it runs there.

    Raises:
        UsageError: the line that the newest decision names is not among them.
    """
    newest = None
    for _, decision in registry_records(log, key):
        if not isinstance(decision, BadRecord):
            newest = decision
    if newest is None:
        return
    line = line_of(newest.serving.champion.model)
    lines, models = pipeline.recipes, pipeline.models
    if line not in lines and not pipeline.generation.is_version(line, models):
        raise UsageError(
            f"the line {line!r} serves, but the declaration has only {', '.join(lines)}: declare "
            "it, or promote another line before it is taken out"
        )


def check_name(settings: Settings, log: Log, pipeline: str, key: bytes | None = None) -> None:
    """Refuse a pipeline that is not the one whose decisions lie on `log`.

    On a cluster each pipeline has topics of its own, called after it.

    Args:
        settings: say where the log is.
        log: the log.
        pipeline: as it is declared.
        key: what its decisions are signed with; without it the worker's state is believed.

    Raises:
        UsageError: it is another one's.
    """
    if settings.on_kafka:
        return
    owner = _worked_on(log) if key is None else _decided_on(log, key)
    if owner not in {None, pipeline}:
        raise UsageError(
            f"{settings.path}: expected the pipeline whose log it is, {owner!r}, given "
            f"{pipeline!r}; one file holds one pipeline: name that one with --pipeline, or "
            "another file with --broker sqlite:PATH"
        )


def _decided_on(log: Log, key: bytes) -> str | None:
    """The pipeline whose decisions lie there, as the first that is signed with `key` says."""
    for record, decision in registry_records(log, key):
        if not isinstance(decision, BadRecord):
            return (record.key or b"").decode(errors="replace")
    return None


def _worked_on(log: Log) -> str | None:
    """The pipeline whose worker has state there, which no publisher can put beside it."""
    marker = log.piece("evaluate-0", MARKER.decode())
    with suppress(orjson.JSONDecodeError, KeyError, TypeError):
        return str(orjson.loads(content(marker or b""))["pipeline"])
    return None
