"""The contents of each part of the page, from one snapshot of the views: values for templates."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stream_ml.records import line_of
from stream_ml.shell.views.stage_backlogs import backlogs_text
from stream_ml.shell.views.stalled import stalled_text
from stream_ml.stages.topology import STAGES, parse_task
from stream_ml.web.page.charts import Chart, Curve, Mark, pictures
from stream_ml.web.page.phrases import figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.views.alerts import AlertView
    from stream_ml.shell.views.registry import Entry
    from stream_ml.web.board import BoardSnapshot
    from stream_ml.web.page.rates import Pace

__all__ = [
    "LOSSES",
    "champion",
    "confirmation",
    "costs",
    "drift",
    "evidence_chart",
    "flow",
    "health",
    "labels",
    "letters",
    "lines",
    "main_loss",
    "score_chart",
    "styles",
    "timeline",
]

# The losses that a score may have, the one that evidence is weighed in first.
LOSSES = {"brier": "Brier", "mae": "mean absolute error", "log_loss": "log loss"}
STYLES = 6
# Of baselines, and of lines that are not declared any more.
OTHERS = 4
HISTORY_ROWS = 40
LETTER_ROWS = 12
TABLE_ROWS = 12
LABEL_ROWS = 6
# A line that was not scored in so many rounds running has a gap.
GAP_ROUNDS = 3
HARM_KINDS = frozenset({"gross_harm", "guard", "guard_blind"})
SWITCHES = frozenset({"replaced", "rolled_back", "fell_back", "recovered"})
ROUTINE = frozenset({"refreshed"})


def styles(pipeline: Pipeline) -> dict[str, int]:
    """The style that each line is drawn in, the same wherever and whenever it is drawn.

    Args:
        pipeline: the declaration, which has the lines in an order.
    """
    rank = {name: 1 + number % (STYLES - 3) for number, name in enumerate(pipeline.models)}
    return rank | {"served": 0, "first": STYLES - 1}


def champion(snapshot: BoardSnapshot) -> dict[str, Any]:
    """What serves: since when, by whose decision and why, and how good it is."""
    status = snapshot.status
    entry = _enthroned(status.registry.decisions) or status.since
    served = next((each for each in status.models if each["model"] == "served"), None)
    view = next((each for each in snapshot.models.models if each.role == "champion"), None)
    loss = None if served is None else main_loss(served["scores"]["windowed"])
    holds = [
        (name, entry_of.decision.reason)
        for name, entry_of in (
            ("paused", status.paused),
            ("frozen", status.frozen),
            ("suspended", status.suspended),
            ("proposed", status.proposed),
        )
        if entry_of is not None
    ]
    serving = None if status.registry.newest is None else status.registry.newest.serving
    return {
        "model": status.champion,
        "line": None if status.champion is None else line_of(status.champion),
        "view": view,
        "enthroned": entry,
        "refreshed": status.since,
        "loss_name": None if loss is None else LOSSES[loss],
        "scores": None if served is None else served["scores"],
        "loss": loss,
        "n": None if served is None else served["n"],
        "holds": holds,
        "stalled": _stalled_text(snapshot),
        "behind": _behind(snapshot),
        "is_unattended": snapshot.at_work is not None and not snapshot.at_work,
        "has_causes": bool(_untold_causes(snapshot)),
        "has_fallback": serving is not None and serving.fallback is not None,
        "labelled": status.labelled,
        "mode": snapshot.mode,
    }


def _stalled_text(snapshot: BoardSnapshot) -> str:
    """For which stages records wait that nobody takes, in words; empty where all get on."""
    return stalled_text(snapshot.stalled, snapshot.taken_ms) if snapshot.stalled else ""


def _behind(snapshot: BoardSnapshot) -> str:
    """In two words, whether stages that are at work fall behind; empty where none is."""
    growing = [each.is_growing for each in snapshot.backlogs]
    if not growing:
        return ""
    # Predict goes before: where it catches up, what is behind it waits for it.
    return {True: "falls behind", False: "catches up", None: "is behind"}[growing[0]]


def _untold_causes(snapshot: BoardSnapshot) -> list[Any]:
    """What lies behind data that have moved, where no open alert says it already."""
    told = {alert.message for alert in snapshot.alerts.open}
    return [each for each in snapshot.drift.causes if each.message not in told]


def confirmation(snapshot: BoardSnapshot, fields: Mapping[str, str]) -> dict[str, Any]:
    """What a command would do, and what speaks for it, for whoever is to confirm it.

    Args:
        snapshot: of the views.
        fields: of the form: `kind`, and the line as `model`.
    """
    kind, line = fields["kind"], fields.get("model", "")
    newest = snapshot.status.registry.newest
    serving = None if newest is None else newest.serving
    model, predecessor = None, None
    if serving is not None:
        challenger, former = serving.challengers.get(line), serving.predecessor
        model = None if challenger is None else challenger.model
        predecessor = None if former is None else former.model
    learned = next((v.examples for v in snapshot.models.models if line_of(v.model) == line), None)
    return {
        "kind": kind,
        "line": line,
        "champion": snapshot.status.champion,
        "model": model,
        "predecessor": predecessor,
        "evidence": (snapshot.models.evidence or {}).get(line) if kind == "promote" else None,
        "learned": learned,
    }


def _enthroned(decisions: Sequence[Entry]) -> Entry | None:
    """The decision since which the champion's line serves; refreshes of it are none."""
    found, line = None, None
    for entry in decisions:
        here = line_of(entry.decision.serving.champion.model)
        if here != line or entry.decision.kind in SWITCHES:
            found, line = entry, here
    return found


def health(snapshot: BoardSnapshot) -> dict[str, Any]:
    """What is wrong: open alerts, transactions that hold records back, refused signatures."""
    registry = snapshot.status.registry
    return {
        "open": snapshot.alerts.open,
        "counts": snapshot.status.open_alerts,
        "transactions": snapshot.transactions,
        "stalled": _stalled_text(snapshot),
        "behind": _behind(snapshot),
        "backlogs": backlogs_text(snapshot.backlogs, snapshot.taken_ms),
        "is_workerless": any(not each.has_worker for each in snapshot.stalled),
        "causes": _untold_causes(snapshot),
        "unsigned": registry.unsigned_count,
        "copies": registry.copy_count,
        "foreign": snapshot.alerts.foreign,
        "is_checked": snapshot.is_checked,
        "is_empty": snapshot.is_empty,
    }


def flow(snapshot: BoardSnapshot, pace: Pace) -> dict[str, Any]:
    """Each stage with its rate, what waits before it, and up to when it is done."""
    watermarks = snapshot.status.watermarks
    known = {
        "predict": min(watermarks.events, default=-1),
        "join": min(watermarks.labels, default=-1),
        "learn": watermarks.examples,
        "evaluate": watermarks.examples,
    }
    absent = {parse_task(each.task).stage for each in snapshot.stalled if not each.has_worker}
    late = {each.stage for each in snapshot.backlogs}
    rows: dict[str, dict[str, Any]] = {}
    for name, spec in STAGES.items():
        rows[name] = {"name": name, "inputs": spec.inputs, "until": known.get(name, -1)}
        tasks = [each for each in snapshot.status.stages if parse_task(each.task).stage == name]
        primary = [each for each in tasks if each.topic == spec.inputs[0]]
        # A stage has read the newest decision, often its own, before it says so on the log.
        lag = sum(each.lag for each in tasks if each.topic != "registry")
        rate = pace.rate(name)
        rows[name] |= {
            "tasks": len({each.task for each in tasks}),
            "records": sum(each.position for each in primary),
            "lag": lag,
            "rate": rate,
            "wait_s": lag / rate if rate and lag >= rate else None,
            "is_stuck": pace.is_stuck(name),
            "has_no_worker": name in absent,
            "is_behind": name in late,
        }
    counts = snapshot.status.events
    return {
        "stages": list(rows.values()),
        "tasks": snapshot.status.stages,
        "checkpoints": snapshot.status.checkpoints,
        "events": counts,
        "labels": snapshot.status.labels,
        "held": snapshot.status.held,
    }


def score_chart(snapshot: BoardSnapshot, pipeline: Pipeline) -> dict[str, Any]:
    """The mean loss of each model over its last examples, over time."""
    rank = styles(pipeline)
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    loss = None
    for each in _progress(snapshot.evaluations):
        scores = _windowed(each)
        loss = loss or main_loss(scores)
        if loss is not None and isinstance(scores.get(loss), int | float):
            points[each["model"]].append((float(each["ts"]), float(scores[loss])))
    name = LOSSES[loss] if loss else "loss"
    chart = Chart(
        "scores",
        f"Loss over time ({name})",
        _described(points, "the mean loss of the last examples"),
        _curves(points, snapshot.evaluations, rank),
        marks=_marks(snapshot.status.registry.decisions),
        unit=f"{name}, mean of each model's last labelled examples",
    )
    return {
        "svg": pictures(chart),
        "table": _table(points),
        "loss_name": None if loss is None else LOSSES[loss],
    }


def evidence_chart(snapshot: BoardSnapshot, pipeline: Pipeline) -> dict[str, Any]:
    """The evidence for each challenger over time, with what a replacement needs."""
    rank = styles(pipeline)
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    needed = None
    for each in _progress(snapshot.evaluations):
        evidence = each.get("evidence")
        if isinstance(evidence, dict) and isinstance(evidence.get("e_value"), int | float):
            points[each["model"]].append((float(each["ts"]), float(evidence["e_value"])))
            needed = evidence.get("needed", needed)
    is_known = isinstance(needed, int | float) and needed > 0
    chart = Chart(
        "evidence",
        "Evidence for each challenger (log scale)",
        _described(points, "the evidence E for replacing the champion"),
        _curves(points, snapshot.evaluations, rank),
        logarithmic=True,
        threshold=(float(needed), f"{figure(needed)} needed") if is_known and needed else None,
        marks=_marks(snapshot.status.registry.decisions),
        unit="evidence E, in powers of ten (1: none)",
    )
    return {"svg": pictures(chart), "table": _table(points), "needed": needed}


def _curves(
    points: Mapping[str, Sequence[tuple[float, float]]],
    evaluations: Iterable[Mapping[str, Any]],
    rank: Mapping[str, int],
) -> list[Curve]:
    """Lines with a gap where others were scored, and they were not: while they served, say."""
    times = sorted({each["ts"] for each in evaluations if isinstance(each.get("ts"), int)})
    rounds = {float(ts): number for number, ts in enumerate(times)}
    curves = []
    for name in sorted(points):
        drawn: list[tuple[float, float]] = []
        for ts, value in points[name]:
            if drawn and rounds[ts] - rounds[drawn[-1][0]] > GAP_ROUNDS:
                drawn.append((drawn[-1][0], math.nan))
            drawn.append((ts, value))
        curves.append(Curve(name, rank.get(name, OTHERS), drawn))
    return curves


def _progress(evaluations: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Those that rest on more examples than the one before: of a line that serves none is new."""
    counts: dict[str, int] = {}
    for each in evaluations:
        model, number = each["model"], each.get("n")
        if isinstance(number, int) and isinstance(each.get("ts"), int):
            if number != counts.get(model):
                yield each
            counts[model] = number


def _windowed(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    scores = evaluation.get("scores")
    windowed = scores.get("windowed") if isinstance(scores, dict) else None
    return windowed if isinstance(windowed, dict) else {}


def main_loss(scores: Mapping[str, Any]) -> str | None:
    """The loss among the scores that evidence is weighed in; None where there is none.

    Args:
        scores: by name.
    """
    return next((name for name in LOSSES if name in scores), None)


def _described(points: Mapping[str, Sequence[tuple[float, float]]], subject: str) -> str:
    last = ", ".join(f"{name} {figure(of[-1][1])}" for name, of in sorted(points.items()))
    return f"Lines of {subject}; at the end: {last or 'nothing yet'}."


def _marks(decisions: Iterable[Entry]) -> list[Mark]:
    return [
        Mark(entry.decision.ts, f"{entry.decision.kind}: {entry.decision.serving.champion.model}")
        for entry in decisions
        if entry.decision.kind in SWITCHES and entry.decision.ts >= 0
    ]


def _table(points: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """The last values of a chart as a table: a row for each time."""
    names = sorted(points)
    values = {name: dict(points[name]) for name in names}
    times = sorted({ts for of in values.values() for ts in of})[-TABLE_ROWS:]
    return {
        "names": names,
        "rows": [(int(ts), [values[name].get(ts) for name in names]) for ts in reversed(times)],
    }


def lines(snapshot: BoardSnapshot, pipeline: Pipeline) -> dict[str, Any]:
    """Champion and challengers: scores, votes, evidence, verdict; and the guard."""
    by_model = {each["model"]: each for each in snapshot.status.models}
    served = by_model.get("served")
    rows = []
    for view in snapshot.models.models:
        slot = {"champion": "served", "first": "first"}.get(view.role, line_of(view.model))
        evaluation = by_model.get(slot)
        if view.role == "predecessor":
            evaluation = None
        scores = None if evaluation is None else evaluation["scores"]["windowed"]
        loss = None if scores is None else main_loss(scores)
        evidence = (snapshot.models.evidence or {}).get(line_of(view.model))
        evidence = evidence if view.role == "challenger" else None
        rows.append(
            {
                "role": view.role,
                "model": view.model,
                "line": line_of(view.model),
                "examples": view.examples,
                "age_ms": view.age_ms,
                "loss": None if scores is None or loss is None else scores[loss],
                "auc": None if scores is None else scores.get("roc_auc"),
                "evidence": evidence,
                "reason": _verdict_reason(evidence),
                "quarantine": _quarantine(snapshot.models.quarantines, line_of(view.model)),
            }
        )
    loss = None if served is None else main_loss(served["scores"]["windowed"])
    return {
        "rows": rows,
        "loss_name": LOSSES[loss] if loss else "loss",
        "has_auc": any(row["auc"] is not None for row in rows),
        "mode": snapshot.mode,
        "guard": {
            "on_harm": pipeline.promotion.on_harm,
            "block": pipeline.promotion.guard_block,
            "alerts": [each for each in snapshot.alerts.open if each.kind in HARM_KINDS],
        },
    }


def _verdict_reason(evidence: Mapping[str, Any] | None) -> str:
    """Why a challenger is not promoted, or that it is; where evidence is too weak, in words."""
    if evidence is None:
        return ""
    reason = str(evidence.get("verdict_reason") or "")
    value, needed = evidence.get("e_value", 0.0), evidence.get("needed", 0.0)
    if not reason.startswith("E is ") or value >= needed:
        return reason
    if value <= 1:
        return "so far nothing speaks for it"
    return "luck may do as much: not enough evidence yet"


def _quarantine(alerts: Iterable[AlertView], line: str) -> str | None:
    return next((each.message for each in alerts if each.subject == line), None)


def timeline(snapshot: BoardSnapshot) -> dict[str, Any]:
    """Decisions and changes of alerts, the newest first; refreshes in a row are one entry."""
    rows: list[dict[str, Any]] = []
    for entry in snapshot.status.registry.decisions:
        decision = entry.decision
        if decision.kind in ROUTINE and rows and rows[-1]["kind"] in ROUTINE:
            rows[-1] = {**_decision_row(entry), "count": rows[-1]["count"] + 1}
        else:
            rows.append(_decision_row(entry))
    rows += [_alert_row(alert) for alert in snapshot.alerts.last]
    rows.sort(key=lambda row: (row["ts"], row["append_ms"], row["order"]), reverse=True)
    return {"rows": rows[:HISTORY_ROWS], "total": len(rows)}


def _decision_row(entry: Entry) -> dict[str, Any]:
    decision = entry.decision
    return {
        "what": "decision",
        "id": f"decision-{decision.number}",
        "href": f"/page/decisions/{decision.number}",
        "kind": decision.kind,
        "ts": decision.ts,
        "append_ms": entry.append_ms,
        "order": decision.number,
        "by": decision.signed_by or decision.actor,
        "actor": decision.actor,
        "text": decision.reason,
        "model": decision.serving.champion.model,
        "is_switch": decision.kind in SWITCHES,
        "severity": "",
        "state": "",
        "count": 1,
    }


def _alert_row(alert: AlertView) -> dict[str, Any]:
    return {
        "what": "alert",
        "id": f"alert-{alert.fingerprint}-{alert.append_ms}-{alert.state}",
        "href": f"/page/alerts/{alert.fingerprint}",
        "kind": alert.kind,
        "ts": alert.ts,
        "append_ms": alert.append_ms,
        "order": -1,
        "by": alert.task,
        "text": alert.message,
        "is_switch": False,
        "severity": alert.severity,
        "state": alert.state,
        "count": 1,
    }


def drift(snapshot: BoardSnapshot) -> dict[str, Any]:
    """What has moved, and what lies behind it."""
    view = snapshot.drift
    return {
        "view": view,
        "moved": view.moved,
        "causes": view.causes,
        "recent": list(reversed(view.recent))[:6],
    }


def labels(snapshot: BoardSnapshot) -> dict[str, Any]:
    """How long labels take, and how many predictions get one."""
    served = next((each for each in snapshot.status.models if each["model"] == "served"), None)
    counts = snapshot.status.labels
    return {
        "delay": None if served is None else served.get("delay_ms"),
        "labelled": snapshot.status.labelled,
        "coverage": None if served is None else served["coverage"],
        "joined": counts.get("joined", 0),
        "waiting": snapshot.status.held.get("predictions", 0),
        "lost": {
            name: number
            for name, number in counts.items()
            if number and name not in {"joined", "expired", "absent", "confirmed", "corrected"}
        },
        "expired": counts.get("expired", 0),
        "blocks": _label_blocks(snapshot.drift.labels),
        "sources": [
            {**asdict(each), "share": each.agreed / each.compared if each.compared else None}
            for each in snapshot.sources
        ],
    }


def _label_blocks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last blocks, the newest first, and what is usual; nothing before the first block."""
    names = ("start", "predictions", "labelled", "labels", "p50", "p90")
    usual, *last = rows or ({},)
    shown = [*reversed(last[-LABEL_ROWS:]), usual] if last else []
    return [{name: row.get(name) for name in names} for row in shown]


def letters(snapshot: BoardSnapshot) -> dict[str, Any]:
    """Refused records: how many for each reason, and the last of each."""
    last: dict[str, Any] = {}
    for view in snapshot.letters:
        last[view.letter.reason] = view
    status = snapshot.status
    return {
        "total": status.dead_letters_total,
        "read": status.dead_letters_read,
        "reasons": sorted(status.dead_letters.items(), key=lambda each: (-each[1], each[0])),
        "last": last,
        "samples": list(reversed(snapshot.letters))[:LETTER_ROWS],
    }


def costs(snapshot: BoardSnapshot) -> dict[str, Any]:
    """What each line costs where it learns."""
    return {"costs": dict(sorted(snapshot.status.costs.items()))}
