"""The shapes of requests and answers, as the OpenAPI document tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from stream_ml.records import ID_LENGTH_MAX
from stream_ml.schema import INTEGER_MAX, FieldType
from stream_ml.web.label_names import declared_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.pipeline import Pipeline

__all__ = [
    "BatchAnswer",
    "BatchCommand",
    "CommandAnswer",
    "LabelAnswer",
    "LabelBatchAnswer",
    "LineCommand",
    "PlainCommand",
    "PredictAnswer",
    "ProblemDetails",
    "PromoteCommand",
    "PublishedAnswer",
    "RollbackCommand",
    "View",
    "event_schema",
    "label_schema",
    "refusals",
]

Text = Annotated[str, Field(min_length=1, max_length=ID_LENGTH_MAX, pattern=r"\S")]
# A probability, a number, or a probability by class.
AnswerValue = float | dict[str, float] | None
# A command that nobody waits for is carried out all the same.
TIMEOUT_S, TIMEOUT_MIN_S, TIMEOUT_MAX_S = 30.0, 1.0, 60.0
PROBLEM = "application/problem+json"


class Position(BaseModel):
    """The place of a record: a partition of its topic, and the offset there."""

    partition: int
    offset: int


class ProblemDetails(BaseModel):
    """A refusal (RFC 9457): what was expected, what was given, the way out."""

    model_config = ConfigDict(extra="allow")

    title: str
    status: int
    reason: str = Field(description="one word for machines, as dead letters have it")
    detail: str
    path: str | None = Field(None, description="where in the record, as `$.field`")


class PredictAnswer(BaseModel):
    """A prediction as it was served, and as it lies on the log."""

    event_id: str
    key: str
    ts: int = Field(description="the event's time, UTC milliseconds")
    prediction: AnswerValue = Field(
        description="a probability of True, a number, or a probability by class"
    )
    fallback: bool = Field(
        description="whether this is the declared fallback, in place of the model's answer"
    )
    model: str = Field(description="`name@version` of the model that served")
    event: Position | None = Field(
        description="where the event lies; null where it lay there before this request"
    )


class PublishedAnswer(BaseModel):
    """An event that was published and gets no prediction: `detail` says why."""

    event_id: str
    event: Position
    detail: str


class BatchAnswer(BaseModel):
    """Of each event, in their order, what it would have been answered alone, with its status."""

    results: list[dict[str, Any]]


class LabelAnswer(BaseModel):
    """Where a label lies now; whether it joins is told by `labels` of the status."""

    event_id: str
    label: Position


class LabelBatchAnswer(BaseModel):
    """Of each label, in their order, what it would have been answered alone, with its status."""

    results: list[dict[str, Any]]


class PlainCommand(BaseModel):
    """A command: why, and maybe in whose name."""

    model_config = ConfigDict(extra="forbid", str_max_length=ID_LENGTH_MAX)

    reason: Text = Field(description="why, for whoever reads the audit")
    id: Text | None = Field(
        None, description="names the command: given twice, it is carried out once"
    )
    actor: Text | None = Field(
        None, description="who asks for it; with a token that is the token's name"
    )
    timeout_s: Annotated[float, Field(ge=TIMEOUT_MIN_S, le=TIMEOUT_MAX_S)] = Field(
        TIMEOUT_S, description="how long to wait for the answer"
    )


class LineCommand(PlainCommand):
    """A command about a line."""

    model: Text = Field(description="a declared line")


class BatchCommand(LineCommand):
    """A command about how many examples a line fits at once."""

    batch: Annotated[int, Field(ge=1, le=INTEGER_MAX)] = Field(
        description="how many make a batch, from the line's next snapshot on"
    )


class RollbackCommand(PlainCommand):
    """A command that lets what served before serve again."""

    expect: Text = Field(
        description="what serves now, as a line or `name@version`: where another does, nothing "
        "is done"
    )
    model: Text | None = Field(
        None, description="`name@version` of what has served; else the predecessor"
    )


class PromoteCommand(PlainCommand):
    """A command that lets a challenger serve."""

    expect: Text = Field(
        description="what serves now, as a line or `name@version`: where another does, nothing "
        "is done"
    )
    model: Text = Field(description="a challenger: its line, or `name@version`")


class CommandAnswer(BaseModel):
    """How a command was answered, as the command line prints it."""

    accepted: bool
    decision: dict[str, Any]
    effect: str = Field(description="the meaning of the last decisions for those to come")
    checked: bool = Field(description="whether the answer's signature was checked")


class View(BaseModel):
    """A view as the command of that name prints it with `--format json`."""

    model_config = ConfigDict(extra="allow")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that are refusals, for its `responses`.

    Args:
        statuses: beside those that the gate gives any request.
    """
    meanings = {
        400: "a wrong request",
        401: "no token, or none that is known",
        403: "a token without the role, or a page of another site",
        404: "there is none",
        408: "the body did not arrive in time",
        409: "it does not fit what is there",
        413: "the body is too large",
        421: "another server's name",
        422: "a bad record or parameter, with reason and path",
        429: "too many requests; `Retry-After` says when to come again",
        503: "overloaded, recovering, or the log cannot be reached; `Retry-After` says when to "
        "come again",
        504: "no worker has answered in time",
    }
    return {
        status: {
            "description": meanings[status],
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status in sorted({400, 401, 403, 421, 429, 503, *statuses})
    }


# --- the pipeline's own records ---------------------------------------------------------------


def _identifier() -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": ID_LENGTH_MAX}


def _time() -> dict[str, Any]:
    return {
        "type": "integer",
        "minimum": 0,
        "maximum": INTEGER_MAX,
        "description": "UTC milliseconds",
    }


def _member(kind: FieldType) -> dict[str, Any]:
    types: Mapping[str, dict[str, Any]] = {
        "float": {"type": "number"},
        "int": {"type": "integer", "minimum": -INTEGER_MAX, "maximum": INTEGER_MAX},
        "str": {"type": "string", "maxLength": 4096},
        "bool": {"type": "boolean"},
        "enum": {"type": "string", "enum": list(kind.categories)},
    }
    schema = dict(types[kind.kind])
    if kind.range is not None and kind.range.outside == "refused":
        schema |= {"minimum": kind.range.low, "maximum": kind.range.high}
    return {"anyOf": [schema, {"type": "null"}]} if kind.optional else schema


def event_schema(pipeline: Pipeline) -> dict[str, Any]:
    """The JSON schema of a pipeline's events.

    Args:
        pipeline: the declaration.
    """
    codec = pipeline.event_codec
    members = {name: _member(kind) for name, kind in codec.schema.items()}
    required = [name for name, kind in codec.schema.items() if not kind.optional]
    members |= {
        codec.event_id: _identifier(),
        codec.time: _time(),
        codec.key: _identifier() | members.get(codec.key, {}),
    }
    return {
        "type": "object",
        "title": "Event",
        "description": f"An event of {pipeline.name}; members beside these are passed over.",
        "properties": members,
        "required": sorted({codec.event_id, codec.time, codec.key, *required}),
    }


def label_schema(pipeline: Pipeline) -> dict[str, Any]:
    """The JSON schema of a pipeline's labels.

    Args:
        pipeline: the declaration.
    """
    members = {
        "event_id": _identifier(),
        "ts": _time() | {"description": "when it was known, UTC milliseconds"},
        "label": _member(pipeline.label_codec.kind),
    }
    names = declared_names(pipeline)
    schema = {
        "type": "object",
        "title": "Label",
        "description": f"The truth about an event of {pipeline.name}.",
        "properties": {
            **members,
            **{name: members[member] for member, of in names.items() for name in of},
            "source": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
    if not names:
        return schema | {"required": list(members)}
    # Each by the name that it has on the log, or by the declared one.
    return schema | {
        "allOf": [
            {"anyOf": [{"required": [name]} for name in (member, *names.get(member, ()))]}
            for member in members
        ]
    }
