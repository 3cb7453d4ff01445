"""An event's way as OpenTelemetry has it: a trace of spans, as OTLP writes them in JSON.

They are made of what lies on the log, afterwards, and of nothing else: whoever makes them again
gives each the same id. Times are those at which the log took the records in. No worker knows of it,
and nothing of OpenTelemetry is needed: an OTLP receiver takes the document at `/v1/traces` as
`application/json`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.records import DeadLetter
    from stream_ml.shell.views.dead_letters import LetterView
    from stream_ml.shell.views.trace import Trace

__all__ = ["otlp_spans"]

# Of OTLP: kinds of spans, and the status of one that has failed.
INTERNAL, PRODUCER = 1, 4
FAILED = 2


@dataclass(slots=True)
class _Span:
    """A span; `key` tells it from others of its trace, times are UTC milliseconds."""

    key: str
    name: str
    start_ms: int
    end_ms: int
    kind: int = INTERNAL
    attributes: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None


def otlp_spans(found: Trace, pipeline: str, identity: str, release: str) -> dict[str, Any]:
    """The request to export a trace (`ExportTraceServiceRequest`), for JSON.

    Args:
        found: the event's way.
        pipeline: its name.
        identity: of the log: an id may be another event's on another one.
        release: of this package, which makes the spans.
    """
    trace_id = _digest(32, identity, pipeline, found.event_id)
    spans = list(_spans(found))
    root = _Span(
        "",
        "event",
        min((span.start_ms for span in spans), default=0),
        max((span.end_ms for span in spans), default=0),
        attributes={"stream_ml.event_id": found.event_id},
        failure=_failure(found),
    )
    root_id = _digest(16, trace_id, root.key)
    documents = [_document(root, trace_id, root_id, None)]
    documents += [
        _document(span, trace_id, _digest(16, trace_id, span.key), root_id) for span in spans
    ]
    resource = {"service.name": "stream_ml", "stream_ml.pipeline": pipeline}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [
                    {"scope": {"name": "stream_ml", "version": release}, "spans": documents}
                ],
            }
        ]
    }


def _failure(found: Trace) -> str | None:
    """Why the event came no further; of a copy that was refused beside the one that was used none.

    An event may be sent again, and its label too: that is no failure of the one that counted.
    """
    used = {"events": found.predicted is not None, "labels": found.joined is not None}
    letters = (view.letter for view in found.letters if not used.get(view.letter.topic, False))
    return next((_reason(letter) for letter in letters), None)


def _spans(found: Trace) -> Iterator[_Span]:
    """What was done for it, each from when its last input lay there."""
    for step in (*found.events, *found.labels):
        name = "publish event" if step.topic == "events" else "publish label"
        yield _Span(
            f"{name} {step.partition} {step.offset}",
            name,
            step.append_ms,
            step.append_ms,
            PRODUCER,
            _place(step.topic, step.partition, step.offset),
        )
    first_ms = min((step.append_ms for step in found.events), default=None)
    predicted, joined = found.predicted, found.joined
    if predicted is not None and predicted.append_ms is not None:
        attributes = {
            **_place("predictions", predicted.partition, predicted.offset),
            "stream_ml.model": predicted.model,
            "stream_ml.fallback": predicted.fallback,
            "stream_ml.features_hash": predicted.features_hash,
        }
        start_ms = predicted.append_ms if first_ms is None else first_ms
        yield _Span("predict", "predict", start_ms, predicted.append_ms, attributes=attributes)
    if joined is not None:
        label_ms = max((step.append_ms for step in found.labels), default=joined.append_ms)
        yield _Span(
            "join",
            "join",
            label_ms,
            joined.append_ms,
            attributes=_place("examples", 0, joined.offset),
        )
        yield from _after(found, joined.append_ms)
    for letter in found.letters:
        yield _refusal(letter)


def _after(found: Trace, example_ms: int) -> Iterator[_Span]:
    for step in found.learned:
        attributes = {**_place("models", 0, step.offset), "stream_ml.model": step.model}
        name = f"learn {step.line}"
        yield _Span(name, name, example_ms, step.append_ms, attributes=attributes)
    for decision in found.decisions:
        attributes = {
            "stream_ml.decision": decision.number,
            "stream_ml.decision_kind": decision.kind,
            "stream_ml.champion": decision.champion,
        }
        name = "count in decision" if decision.part == "counted" else "serve by decision"
        yield _Span(name, name, example_ms, decision.append_ms, attributes=attributes)


def _refusal(view: LetterView) -> _Span:
    letter = view.letter
    attributes = {
        **_place(letter.topic, letter.partition, letter.offset),
        "stream_ml.reason": letter.reason,
        "stream_ml.path": letter.path,
    }
    key = f"refuse {letter.topic} {letter.partition} {letter.offset}"
    return _Span(
        key,
        f"{letter.stage} refuses",
        view.append_ms,
        view.append_ms,
        attributes=attributes,
        failure=_reason(letter),
    )


def _reason(letter: DeadLetter) -> str:
    return f"{letter.reason} at {letter.path}: {letter.message}"


def _place(topic: str, partition: int | None, offset: int | None) -> dict[str, Any]:
    """By the names that OpenTelemetry has for messages."""
    return {
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": None if partition is None else str(partition),
        "messaging.kafka.offset": offset,
    }


def _document(span: _Span, trace_id: str, span_id: str, parent_id: str | None) -> dict[str, Any]:
    status = {} if span.failure is None else {"code": FAILED, "message": span.failure}
    return {
        "traceId": trace_id,
        "spanId": span_id,
        **({} if parent_id is None else {"parentSpanId": parent_id}),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": _nanoseconds(span.start_ms),
        # Clocks of several partitions agree but for some milliseconds.
        "endTimeUnixNano": _nanoseconds(max(span.start_ms, span.end_ms)),
        "attributes": _attributes(span.attributes),
        "status": status,
    }


def _nanoseconds(ms: int) -> str:
    return str(ms * 1_000_000)


def _attributes(members: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": _value(value)} for key, value in members.items() if value is not None
    ]


def _value(value: bool | int | str) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"stringValue": value}


def _digest(digits: int, *parts: str) -> str:
    """An id of OpenTelemetry's, as hexadecimal digits; never all zeros but by a wonder."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:digits]
