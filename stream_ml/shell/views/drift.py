"""What has moved in the data of a pipeline, by the state of its monitors as last written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.evaluation.block_scores import block_reports
from stream_ml.monitoring.diagnosis import causes, moved
from stream_ml.shell.log.port import whole_piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.monitoring.diagnosis import Cause, Moved
    from stream_ml.shell.log.port import Log

__all__ = ["DriftView", "read_drift"]

WEEK_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class DriftView:
    """What has moved, and what lies behind it.

    Attributes:
        since: the start of the first block (UTC ms); None where nothing was watched yet.
        until: up to when blocks were compared (UTC ms).
        causes: the earliest first.
        moved: the columns, the earliest first.
        recent: what has ended, the newest last: kind, subject, since, until (UTC ms).
        late: how many events were told of after their block was complete: they are not compared.
        blocks: how every model did in the last blocks, behind what is usual: see `block_reports`.
        labels: of the last blocks, the oldest first, behind what is usual: `start` (None: usual),
            and as far as they are known `predictions`, `labelled` (their share), `labels`, and in
            how many ms half (`p50`) and 90 % (`p90`) of these came.
    """

    since: int | None
    until: int | None
    causes: tuple[Cause, ...]
    moved: tuple[Moved, ...]
    recent: tuple[Mapping[str, Any], ...]
    late: int = 0
    blocks: tuple[Mapping[str, Any], ...] = ()
    labels: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_reference(self) -> bool:
        """Whether there are weeks to compare with."""
        if self.since is None or self.until is None:
            return False
        return self.until - self.since > WEEK_MS

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "since": self.since,
            "until": self.until,
            "has_reference": self.has_reference,
            "causes": [each.as_dict() for each in self.causes],
            "moved": [each.as_dict() for each in self.moved],
            "late": self.late,
            "blocks": [dict(each) for each in self.blocks],
            "labels": [dict(each) for each in self.labels],
            "recent": [dict(each) for each in self.recent],
        }


def read_drift(log: Log) -> DriftView:
    """What has moved, as evaluate's last checkpoint has it.

    Args:
        log: to look at; a worker may be at work on it.
    """
    value = whole_piece(log, "evaluate-0", "")
    state: dict[str, Any] = {} if value is None else orjson.loads(value)
    monitors = state.get("monitors")
    if monitors is None or monitors["first"] < 0:
        return DriftView(None, None, (), (), ())
    return DriftView(
        monitors["first"],
        monitors["end"],
        tuple(causes(monitors, state.get("alarms", ()))),
        tuple(moved(monitors)),
        tuple(monitors["recent"]),
        monitors["arrivals"]["late"],
        tuple(block_reports(state["blocks"])) if "blocks" in state else (),
        tuple(_labels(monitors)) if "coverage" in monitors else (),
    )


def _labels(monitors: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    coverage = monitors["coverage"]
    predictions, labelled = coverage["usual"]
    yield {"start": None, "labelled": labelled / predictions if predictions else None}
    rows: dict[int, dict[str, Any]] = {}
    for start, predictions, labelled in coverage["recent"]:
        rows[start] = {"predictions": predictions, "labelled": labelled / predictions}
    for start, labels, half, most in monitors["delays"]:
        rows.setdefault(start, {}).update({"labels": labels, "p50": half, "p90": most})
    yield from ({"start": start, **row} for start, row in sorted(rows.items()))
