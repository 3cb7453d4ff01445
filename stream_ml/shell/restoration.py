"""What is done about a task's state before it is taken up: believed, made again, or refused.

State that is not what the task has written is never taken up. Where the task's state follows from
its inputs alone, and all of them are still there, it is made again from them (`remade`): what comes
out is what would have come. Else the start is refused, with the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ml.errors import StateRefused, UsageError
from stream_ml.records import is_forgotten
from stream_ml.sealing import MARKER, marker_in
from stream_ml.stages.alarms import Alarms
from stream_ml.stages.positions import Notice
from stream_ml.stages.topology import STAGES, parse_task, readers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.records import Output, Record
    from stream_ml.sealing import Marker, RestoredState

__all__ = [
    "ACCEPT",
    "WAY_OUT",
    "TakenUp",
    "ahead_alert",
    "changed_notice",
    "exclusive_alert",
    "foreign_alert",
    "positions_alert",
    "refuse_forgotten",
    "remade_alert",
    "setback_alert",
    "take_up",
]

ACCEPT = "STREAM_ML_ACCEPT_UNSEALED=1"
WAY_OUT = (
    "way out: put back a copy of the log from before, or begin a new log (or pipeline name) and "
    "publish the events and labels into it again"
)

Positions = dict[tuple[str, int], int]


@dataclass(slots=True)
class TakenUp:
    """What a task starts from.

    Attributes:
        pieces: its state; empty where it has none, or must be made again.
        positions: where the state is valid; None where nothing was ever written.
        remade: why it must be made again from its inputs, up to the positions; None if it need not.
        marker: what was believed, None for a new state.
    """

    pieces: list[tuple[str, bytes]]
    positions: Positions | None
    remade: str | None = None
    marker: Marker | None = None


def take_up(
    task: str,
    state: RestoredState,
    committed_positions: Mapping[tuple[str, int], int],
    begins: Mapping[tuple[str, int], int],
    *,
    accept_unsealed: bool,
) -> TakenUp:
    """What a task starts from.

    Args:
        task: its name, such as `predict-0`.
        state: what lies where its state is kept.
        committed_positions: the next offset of each input, as the log knows it.
        begins: the first offset that is still there, of each input.
        accept_unsealed: whether state that a former release wrote is taken up.

    Raises:
        UsageError: it is of another key, pipeline, log or release.
        StateRefused: it is not what the task has written, and cannot be made again.
    """
    if state.foreign_owner is not None:
        raise UsageError(
            f"{task}: expected state sealed by our key for this pipeline and log, given state "
            f"sealed {state.foreign_owner}; set STREAM_ML_KEY and STREAM_ML_PIPELINE as they were "
            "when it was written, or choose another log"
        )
    if state.plain:
        return _plain(task, state, committed_positions, accept_unsealed=accept_unsealed)
    if state.flaws:
        return _remade_or_refused(task, state, begins)
    if state.marker is None:
        if committed_positions:
            raise StateRefused(
                f"{task}: expected its state beside its positions, given none: it was removed; "
                f"{WAY_OUT}"
            )
        return TakenUp([], None)
    pieces = sorted(state.pieces.items())
    return TakenUp(pieces, dict(state.marker.positions), None, state.marker)


def _plain(
    task: str,
    state: RestoredState,
    committed_positions: Mapping[tuple[str, int], int],
    *,
    accept_unsealed: bool,
) -> TakenUp:
    if not accept_unsealed:
        raise StateRefused(
            f"{task}: expected state with seals, given state without: if a former release wrote "
            f"it, start once with {ACCEPT}, which takes it up as it is and seals it; if not, "
            "somebody else did, and it must not be believed: take it away"
        )
    pieces = dict(state.plain)
    marker = pieces.pop(MARKER.decode(), None)
    try:
        positions = dict(committed_positions) if marker is None else marker_in(marker).positions
    except (ValueError, KeyError, TypeError) as error:
        raise StateRefused(
            f"{task}: expected the marker of a former release, given another: {error!r}; {WAY_OUT}"
        ) from None
    return TakenUp(sorted(pieces.items()), positions)


def _remade_or_refused(
    task: str, state: RestoredState, begins: Mapping[tuple[str, int], int]
) -> TakenUp:
    stage = parse_task(task).stage
    reason = "; ".join(state.flaws[:3])
    if state.marker is None or not STAGES[stage].remade:
        raise StateRefused(
            f"{task}: expected its state as it was written, given: {reason}; {WAY_OUT}"
        )
    trimmed = [f"{topic}-{p}" for (topic, p), first in begins.items() if first > 0]
    if trimmed:
        raise StateRefused(
            f"{task}: expected its state as it was written, given: {reason}; it cannot be made "
            f"again, for retention has removed the beginning of {', '.join(trimmed)}; {WAY_OUT}"
        )
    return TakenUp([], dict(state.marker.positions), reason, state.marker)


def refuse_forgotten(task: str, records: Sequence[Record]) -> None:
    """Refuse to make a state again of records of which some were forgotten.

    Args:
        task: its name.
        records: of one partition of its inputs.

    Raises:
        StateRefused: it would be another state.
    """
    if any(map(is_forgotten, records)):
        raise StateRefused(
            f"{task}: expected its state as it was written, given another; it cannot be made "
            f"again, for records of {records[0].topic}-{records[0].partition} were forgotten; "
            f"{WAY_OUT}"
        )


def changed_notice(changes: Sequence[str]) -> Notice:
    """Tells on the log what of the declaration is another than it was, and was taken up."""
    message = f"the declaration is another than it was: {'; '.join(changes)}"
    return Notice("declaration_changed", message, {"changes": list(changes)})


def foreign_alert(task: str, count: int) -> Output:
    """Tells a person that others write where a task's state lies.

    Args:
        task: `STAGE-PARTITION`.
        count: how many records of others there were.
    """
    return _alert(
        "foreign_state",
        task,
        f"{count} records on the changelog of {task} are not ours, and were passed over: somebody "
        "else may write there",
        {"task": task, "records": count},
    )


def positions_alert(task: str) -> Output:
    """Tells a person that the table of positions does not say what the state does."""
    return _alert(
        "foreign_state",
        task,
        f"the positions of {task} on the log were not those of its sealed state, which it went on "
        "from: somebody else may write there",
        {"task": task},
    )


def remade_alert(task: str, reason: str, records: int) -> Output:
    """Tells a person that a state was not what was written, and was made again.

    Args:
        task: `STAGE-PARTITION`.
        reason: what was wrong with it.
        records: how many were read again.
    """
    return _alert(
        "state_remade",
        task,
        f"the state of {task} was not as it was written ({reason}); it was made again from "
        f"{records} records of its inputs",
        {"task": task, "records": records},
    )


def ahead_alert(record: Record, ahead_ms: int) -> Output:
    """Tells a person that a publisher's clock is ahead of ours, and what was done about it.

    Args:
        record: with the stamp that is ahead.
        ahead_ms: by how much.
    """
    location = f"{record.topic}-{record.partition} offset {record.offset}"
    return _alert(
        "clock_ahead",
        f"{readers_of(record.topic)[0]}-{record.partition}",
        f"the record at {location} was stamped {ahead_ms / 1_000:,.0f} s past the worker's clock: "
        "it and others like it are stamped anew by that; set the clock that is wrong, a "
        "publisher's or the worker's",
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "ahead_ms": ahead_ms,
        },
    )


def setback_alert(setback_ms: int) -> Output:
    """Tells a person that our own clock is behind what it gave before."""
    return _alert(
        "clock_set_back",
        "worker-0",
        f"the worker's clock is {setback_ms / 1_000:,.0f} s behind what it has stamped before: it "
        "is wrong, or was; until it has caught up no publisher's clock is corrected by it",
        {"setback_ms": setback_ms},
    )


def exclusive_alert() -> Output:
    """Tells a person that somebody else writes too often for us to commit beside it."""
    return _alert(
        "foreign_writer",
        "worker-0",
        "somebody else writes again and again where only the worker may: it keeps all others from "
        "writing while it works on a batch, and publishers wait for up to a second; find who it is",
        {},
    )


def _alert(kind: str, task: str, message: str, details: dict[str, str | int]) -> Output:
    stage, partition, _ = parse_task(task)
    # Whoever starts knows of no event's time yet.
    (output,) = Alarms(stage, partition).once(kind, message, -1, details)
    return output
