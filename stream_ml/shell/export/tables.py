"""Which columns the records of a topic have as a table, and how a record becomes a row.

The columns follow from the declaration alone, so that files of different days have the same ones:
a column for each field of an event and each feature of a prediction, and of more than two classes
one for the probability of each. What has no fixed members (shadows, evidence) is one column of
JSON. Where a record lies comes last, under names that no column of the declaration has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import orjson

from stream_ml.codec import check_prediction, decode_decision, decode_example, decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.features.sparse import is_common, sparse_columns
from stream_ml.records import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Prediction, Record

__all__ = ["SUBJECTS", "Column", "ColumnType", "Row", "Table", "table_of"]

ColumnType = Literal["text", "integer", "number", "boolean", "time", "json"]
# The values of the columns, in their order; times are UTC milliseconds.
Row = tuple[Any, ...]

_TYPES: dict[str, ColumnType] = {
    "float": "number",
    "int": "integer",
    "str": "text",
    "enum": "text",
    "bool": "boolean",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name and the type of its values, all of which may be missing."""

    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Table:
    """The records of a topic as rows.

    Attributes:
        topic: of the records.
        columns: those of a row, in their order; the last three say where the record lies.
        row: the values of a record and its own time (UTC ms; -1: none); it raises `BadRecord` for
            what is no such record. It is given the record, and its value without a seal.
    """

    topic: str
    columns: tuple[Column, ...]
    row: Callable[[Record, bytes | None], tuple[Row, int]]


_Values = tuple[list[Any], int]


def _with_place(
    topic: str,
    columns: list[tuple[str, ColumnType]],
    values: Callable[[Record, bytes | None], _Values],
) -> Table:
    """The table whose rows also say where their records lie, and when the log took them in."""
    names = {name for name, _ in columns}
    place: list[tuple[str, ColumnType]] = [
        ("log_partition", "integer"),
        ("log_offset", "integer"),
        ("log_time", "time"),
    ]
    for name, kind in place:
        free_name = name
        while free_name in names:
            free_name += "_"
        columns = [*columns, (free_name, kind)]

    def row(record: Record, body: bytes | None) -> tuple[Row, int]:
        cells, ts = values(record, body)
        return (*cells, record.partition, record.offset, record.append_ms), ts

    return Table(topic, tuple(Column(*column) for column in columns), row)


# --- events and labels -------------------------------------------------------------------------


def _events(pipeline: Pipeline, _key: bytes | None) -> Table:
    events, codec = pipeline.events, pipeline.event_codec
    # Another declared field may be what the id or the time is taken from.
    names = [name for name in pipeline.schema if name not in {events.id, events.time}]
    columns: list[tuple[str, ColumnType]] = [(events.id, "text"), (events.time, "time")]
    columns += [(name, _TYPES[pipeline.schema[name].kind]) for name in names]

    def values(_record: Record, body: bytes | None) -> _Values:
        event = codec.decode(body)
        return [event.event_id, event.ts, *(event.fields[name] for name in names)], event.ts

    return _with_place("events", columns, values)


def _labels(pipeline: Pipeline, _key: bytes | None) -> Table:
    codec = pipeline.label_codec
    columns: list[tuple[str, ColumnType]] = [
        ("event_id", "text"),
        ("ts", "time"),
        ("label", _TYPES[codec.kind.kind]),
        ("source", "text"),
    ]

    def values(_record: Record, body: bytes | None) -> _Values:
        label = codec.decode(body)
        return [label.event_id, label.ts, label.label, label.source], label.ts

    return _with_place("labels", columns, values)


# --- predictions and examples ------------------------------------------------------------------


def _prediction_columns(pipeline: Pipeline) -> list[tuple[str, ColumnType]]:
    classes = pipeline.target.classes
    answers: list[tuple[str, ColumnType]] = [(f"prediction.{name}", "number") for name in classes]
    return [
        ("event_id", "text"),
        ("key", "text"),
        ("ts", "time"),
        ("source_partition", "integer"),
        ("source_offset", "integer"),
        ("model", "text"),
        ("example", "integer"),
        *(answers or [("prediction", "number")]),
        ("fallback", "boolean"),
        *(_feature_column(name) for name in _feature_names(pipeline)),
        ("slices", "json"),
        ("shadows", "json"),
    ]


@lru_cache(maxsize=8)
def _names(declared: tuple[str, ...], known: frozenset[str]) -> tuple[str, ...]:
    return (*declared, *sorted(known.difference(declared)))


def _feature_names(pipeline: Pipeline) -> tuple[str, ...]:
    """The declared features, and behind them those of former declarations that records have."""
    return _names(pipeline.feature_set.names, pipeline.known_features)


def _feature_column(name: str) -> tuple[str, ColumnType]:
    return f"feature.{name}", "text" if is_common(name) else "number"


def _feature_cell(features: Mapping[str, float], name: str) -> float | str | None:
    """A number; of many columns the number of the one that is there, with the value's sign."""
    if not is_common(name):
        return features.get(name)
    columns = sparse_columns(features, name).items()
    texts = [f"{'-' if x < 0 else '+'}{column.rpartition('#')[2]}" for column, x in columns]
    return " ".join(texts) or None


def _answer_cells(answer: Answer, classes: tuple[str, ...]) -> list[Any]:
    if not classes:
        return [answer]
    return [answer.get(name) if isinstance(answer, dict) else None for name in classes]


def _prediction_cells(prediction: Prediction, pipeline: Pipeline) -> list[Any]:
    check_prediction(prediction, pipeline.target.kind, pipeline.known_features)
    features = prediction.features
    shadows = {
        slot: {"model": shadow.model}
        if shadow.offset is not None
        else {"model": shadow.model, "prediction": shadow.prediction}
        for slot, shadow in prediction.shadows.items()
    }
    return [
        prediction.event_id,
        prediction.key,
        prediction.ts,
        prediction.source.partition,
        prediction.source.offset,
        prediction.model,
        prediction.example,
        *_answer_cells(prediction.prediction, pipeline.target.classes),
        prediction.fallback,
        *(_feature_cell(features, name) for name in _feature_names(pipeline)),
        list(prediction.slices),
        shadows,
    ]


def _predictions(pipeline: Pipeline, _key: bytes | None) -> Table:
    def values(_record: Record, body: bytes | None) -> _Values:
        prediction = decode_prediction(body)
        return _prediction_cells(prediction, pipeline), prediction.ts

    return _with_place("predictions", _prediction_columns(pipeline), values)


def _examples(pipeline: Pipeline, _key: bytes | None) -> Table:
    kind = pipeline.label_codec.kind
    columns: list[tuple[str, ColumnType]] = [
        *_prediction_columns(pipeline),
        ("label", _TYPES[kind.kind]),
        ("label_ts", "time"),
        ("label_partition", "integer"),
        ("label_offset", "integer"),
        ("label_from", "text"),
        ("implicit", "boolean"),
        ("former_label", _TYPES[kind.kind]),
        ("former_label_ts", "time"),
    ]

    def values(record: Record, body: bytes | None) -> _Values:
        # Who reads examples with the answers of their shadows has decoded them already.
        example = decode_example(body) if record.memo is None else record.memo
        correction = example.correction
        cells = [
            *_prediction_cells(example.prediction, pipeline),
            kind.check("label", example.label),
            example.label_ts,
            example.label_source.partition,
            example.label_source.offset,
            example.label_from,
            example.implicit,
            None if correction is None else kind.check("label", correction.label),
            None if correction is None else correction.ts,
        ]
        return cells, example.prediction.ts

    return _with_place("examples", columns, values)


# --- decisions and evaluations -----------------------------------------------------------------

_DECISION_COLUMNS: dict[str, ColumnType] = {
    "number": "integer",
    "kind": "text",
    "ts": "time",
    "actor": "text",
    "reason": "text",
    "champion": "text",
    "previous": "text",
    "command_id": "text",
    "signed_by": "text",
    "given_ms": "time",
    "received_ms": "time",
    "log": "text",
    "serving": "json",
    "inputs": "json",
    "evidence": "json",
}


def _decisions(_pipeline: Pipeline, key: bytes | None) -> Table:
    def values(record: Record, body: bytes | None) -> _Values:
        members = decode_decision(body, key).as_dict()
        cells = [members[name] for name in _DECISION_COLUMNS]
        cells[list(_DECISION_COLUMNS).index("ts")] = _known(members["ts"])
        # Of no event's time: what came before the first example has none.
        return cells, record.append_ms

    return _with_place("registry", list(_DECISION_COLUMNS.items()), values)


_EVALUATION_COLUMNS: dict[str, ColumnType] = {
    "model": "text",
    "version": "text",
    "ts": "time",
    "n": "integer",
    "coverage": "number",
    "scores": "json",
    "delay_ms": "json",
    "evidence": "json",
    "slices": "json",
}
_EVALUATION_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "version": (str,),
    "ts": (int,),
    "n": (int,),
    "coverage": (int, float),
}


def _evaluations(_pipeline: Pipeline, _key: bytes | None) -> Table:
    def values(_record: Record, body: bytes | None) -> _Values:
        members = _evaluation_members(body)
        cells = [members.get(name) for name in _EVALUATION_COLUMNS]
        cells[list(_EVALUATION_COLUMNS).index("ts")] = _known(members["ts"])
        return cells, members["ts"]

    return _with_place("evaluations", list(_EVALUATION_COLUMNS.items()), values)


def _evaluation_members(body: bytes | None) -> Mapping[str, Any]:
    try:
        members = orjson.loads(body or b"")
    except orjson.JSONDecodeError as error:
        raise BadRecord("not_json", "$", f"expected an evaluation: {error}") from None
    for name, types in _EVALUATION_TYPES.items():
        given = members.get(name) if isinstance(members, dict) else None
        if type(given) not in types:
            expected = f"expected a {' or a '.join(each.__name__ for each in types)}"
            raise BadRecord("malformed", f"$.{name}", f"{expected} of {Evaluation.__name__}")
    return members  # type: ignore[no-any-return]  # an object, as was checked


def _known(ts: int) -> int | None:
    """A time; -1 stands for none."""
    return None if ts < 0 else ts


# What can be asked for, by the name that people have for it.
SUBJECTS: dict[str, Callable[[Pipeline, bytes | None], Table]] = {
    "examples": _examples,
    "predictions": _predictions,
    "events": _events,
    "labels": _labels,
    "decisions": _decisions,
    "evaluations": _evaluations,
}


def table_of(subject: str, pipeline: Pipeline, key: bytes | None) -> Table:
    """The table of what is asked for.

    Args:
        subject: one of `SUBJECTS`.
        pipeline: the declaration that the log was written under.
        key: checks the signatures of decisions; without one all are believed.
    """
    return SUBJECTS[subject](pipeline, key)
