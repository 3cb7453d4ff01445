"""Single records in full: a decision, an alert, a dead letter, a prediction made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.shell.views.dead_letters import original_bytes
from stream_ml.shell.views.reproduce import TOLERANCE, reproduce
from stream_ml.shell.views.trace import trace
from stream_ml.web.page.phrases import answer_text, clock, figure, span
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Prediction
    from stream_ml.shell.log.port import Log
    from stream_ml.web.board import BoardSnapshot
    from stream_ml.web.page.recent import RecentReader

__all__ = ["alert", "decision", "event_trace", "letter", "prediction", "reproduction"]

BYTES_SHOWN = 4_000
Rows = list[tuple[str, str]]


def decision(snapshot: BoardSnapshot, number: int) -> dict[str, Any]:
    """A decision, with its evidence.

    Args:
        snapshot: of the views.
        number: of the decision.

    Raises:
        Refusal: there is none.
    """
    for entry in snapshot.status.registry.decisions:
        found = entry.decision
        if found.number == number:
            rows = [
                ("kind", found.kind),
                ("serves", found.serving.champion.model),
                ("by", found.signed_by or found.actor),
                ("named by them", found.actor),
                ("events at", clock(found.ts)),
                ("made at", clock(entry.made_ms)),
                ("previous record", found.previous),
            ]
            groups = [("Decision", rows)]
            if found.evidence:
                groups.append(("Evidence", _rows(found.evidence)))
            return {
                "title": f"Decision {number}",
                "sentence": found.reason,
                "groups": groups,
                "text": _text(entry.as_dict()),
            }
    raise _missing(f"decision {number}")


def alert(snapshot: BoardSnapshot, fingerprint: str) -> dict[str, Any]:
    """An alert as it stands, with its figures.

    Args:
        snapshot: of the views.
        fingerprint: of the alert.

    Raises:
        Refusal: it is not open, and not among the last.
    """
    for found in (*snapshot.alerts.open, *reversed(snapshot.alerts.last)):
        if found.fingerprint == fingerprint:
            rows = [
                ("severity", found.severity),
                ("state", found.state),
                ("about", found.subject or "-"),
                ("raised by", found.task),
                ("since", clock(found.since)),
                ("this change at", clock(found.ts)),
                ("look further with", found.command),
            ]
            return {
                "title": found.kind.replace("_", " ").capitalize(),
                "sentence": found.message,
                "groups": [("Alert", rows), ("Figures", _rows(found.details))],
                "text": _text(found.as_dict()),
            }
    raise _missing("such alert among the last")


def letter(snapshot: BoardSnapshot, log: Log, partition: int, offset: int) -> dict[str, Any]:
    """A dead letter, with the bytes that were refused, as text that does nothing.

    Args:
        snapshot: of the views.
        log: that the refused record lay on.
        partition: of the letter.
        offset: of the letter.

    Raises:
        Refusal: it is not among the last.
    """
    for view in snapshot.letters:
        if (view.partition, view.offset) == (partition, offset):
            found = view.letter
            value = original_bytes(log, found)
            shown = "no longer kept"
            if value is not None:
                shown = value[:BYTES_SHOWN].decode("utf-8", "backslashreplace")
            rows = [
                ("lay on", f"{found.topic} {found.partition}, offset {found.offset}"),
                ("refused by", found.stage),
                ("reason", found.reason),
                ("at", found.path),
                ("refused at", clock(view.append_ms)),
                ("length", f"{found.length:,} bytes"),
                ("SHA-256", found.sha256),
                ("bytes", shown),
            ]
            return {
                "title": "Dead letter",
                "sentence": found.message,
                "groups": [("Refused record", rows)],
                "text": _text(view.as_dict()),
            }
    raise _missing("such dead letter among the last")


def prediction(
    log: Log, reader: RecentReader, topic: str, place: tuple[int, int]
) -> dict[str, Any]:
    """A prediction with its features, its shadows and its label.

    Args:
        log: that it lies on.
        reader: tells ours from others'.
        topic: `predictions` or `examples`.
        place: partition and offset there.

    Raises:
        Refusal: none of ours lies there.
    """
    partition, offset = place
    found, label = reader.stored(log, topic, *place)
    if label is None:
        label = reader.label_of(log, found)
    rows = [
        ("event", found.event_id),
        ("key", found.key),
        ("event at", clock(found.ts)),
        ("answer", answer_text(found.prediction)),
        ("model", found.model),
        ("fallback", "yes" if found.fallback else "no"),
        ("label", "not yet" if label is None else answer_text(label[0])),
    ]
    if label is not None:
        rows.append(("label after", span(label[1])))
    shadows = [
        (f"{slot} ({shadow.model})", answer_text(shadow.prediction))
        if shadow.offset is None
        else (f"{slot} ({shadow.model})", "made when the label is there")
        for slot, shadow in found.shadows.items()
    ]
    features = [(name, figure(value, 6)) for name, value in found.features.items()]
    return {
        "title": "Prediction",
        "sentence": None,
        "links": [
            (f"/page/{topic}/{partition}/{offset}/trace", "The event's trace, to here and on"),
            (
                f"/page/{topic}/{partition}/{offset}/again",
                "Make it again, by the snapshots that it names",
            ),
        ],
        "groups": [("Prediction", rows), ("Features", features), ("Shadows", shadows)],
        "text": _text(_members(found)),
    }


def reproduction(
    log: Log, reader: RecentReader, pipeline: Pipeline, key: bytes, where: tuple[str, int, int]
) -> dict[str, Any]:
    """A prediction made again by the snapshots that it names.

    Args:
        log: that all lies on.
        reader: tells ours from others'.
        pipeline: the declaration.
        key: what snapshots and decisions are signed with.
        where: `predictions` or `examples`, partition and offset there.

    Raises:
        Refusal: none of ours lies there.
    """
    found, _ = reader.stored(log, *where)
    made = reproduce(log, pipeline, key, [found])
    rows = [
        (
            f"{each.slot} ({each.model})",
            f"{answer_text(each.logged_answer)} logged, {answer_text(each.new_answer)} now: "
            + ("the same" if each.equal else f"DIFFERENT by {each.difference:g}"),
        )
        for each in made.answers
    ]
    rows += [(model, "its snapshot is no longer kept") for model in made.dropped]
    rows += [("refused", reason) for reason in made.refused]
    sentence = (
        f"Every answer is the one that was logged, within {TOLERANCE:g}."
        if made.answers and not made.different
        else "Not every answer could be made again as it was logged."
    )
    return {
        "title": f"Made again: {found.event_id}",
        "sentence": sentence,
        "groups": [("Answers", rows)],
        "text": None,
    }


def event_trace(
    log: Log,
    reader: RecentReader,
    pipeline: Pipeline,
    key: bytes | None,
    where: tuple[str, int, int],
) -> dict[str, Any]:
    """The trace of a predicted event: published, predicted, labelled, joined, learned, decided on.

    Args:
        log: that all lies on.
        reader: tells ours from others'.
        pipeline: the declaration.
        key: checks seals; without one all is believed.
        where: `predictions` or `examples`, partition and offset there.

    Raises:
        Refusal: none of ours lies there.
    """
    predicted, _ = reader.stored(log, *where)
    found = trace(log, key, predicted.event_id, declared=pipeline.events)
    rows = [
        (f"published, {clock(each.append_ms)}", f"{each.topic} {each.partition}, {each.offset}")
        for each in found.events
    ]
    if found.predicted is not None:
        step = found.predicted
        late = "" if step.latency_ms is None else f", {span(step.latency_ms)} later"
        text = f"{answer_text(step.prediction)} by {step.model}"
        rows.append((f"predicted, {clock(step.append_ms)}{late}", text))
    rows += [(f"label, {clock(each.append_ms)}", answer_text(each.label)) for each in found.labels]
    if found.joined is not None:
        text = f"{span(found.joined.delay_ms)} after the event"
        if found.joined.implicit:
            text += f", silence taken for {answer_text(found.joined.label)}"
        if found.joined.last_label is not None:
            text += f", corrected since: {answer_text(found.joined.last_label)}"
        rows.append((f"joined, {clock(found.joined.append_ms)}", text))
    rows += [
        (f"learned by {each.line}, {clock(each.append_ms)}", f"first in {each.model}")
        for each in found.learned
    ]
    rows += [
        (f"decision {each.number}, {clock(each.append_ms)}", f"{each.kind}: {each.reason}")
        for each in found.decisions
    ]
    return {
        "title": f"The trace of {predicted.event_id}",
        "sentence": found.ended,
        "groups": [("Way", rows)],
        "text": _text(found.as_dict()),
    }


def _members(found: Prediction) -> dict[str, Any]:
    """A prediction as plain values."""
    return {
        "event_id": found.event_id,
        "key": found.key,
        "ts": found.ts,
        "source": {"partition": found.source.partition, "offset": found.source.offset},
        "model": found.model,
        "example": found.example,
        "prediction": found.prediction,
        "fallback": found.fallback,
        "features": found.features,
        "slices": list(found.slices),
    }


def _rows(members: Mapping[str, Any], prefix: str = "") -> Rows:
    """Members as rows, those of objects within by their path."""
    rows: Rows = []
    for name, value in members.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            rows += _rows(value, f"{path}.")
        elif isinstance(value, float):
            rows.append((path, figure(value, 6)))
        else:
            rows.append((path, _shown(value)))
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _text(members: Mapping[str, Any] | Iterable[Any]) -> str:
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(members, default=str, option=options).decode()


def _missing(subject: str) -> Refusal:
    return Refusal(404, f"there is no {subject}", "not_found")
