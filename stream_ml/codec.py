"""Bytes to records and back; the one place where JSON is read and written.

Whatever bytes come, the answer is a record or one `BadRecord` with a reason and a `$.path`;
never anything else. orjson refuses NaN, infinity, numbers past a double's range, invalid UTF-8,
lone surrogates and nesting beyond 1,024 levels while it parses; of a member given twice it would
take the last, as other readers take the first, so what comes from outside is refused for it.

Records that must not be forged (registry, commands) are signed: see `signing`.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from contextlib import suppress
from dataclasses import asdict, fields
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import orjson

from stream_ml.errors import BadRecord
from stream_ml.records import (
    ID_LENGTH_MAX,
    PARTITIONS_MAX,
    Alert,
    Answer,
    Command,
    Correction,
    DeadLetter,
    Decision,
    Evaluation,
    Event,
    EventLabel,
    Example,
    ModelRef,
    Natural,
    Number,
    Output,
    Prediction,
    Record,
    ServingSet,
    Shadow,
    ShadowAnswers,
    Slices,
    Source,
)
from stream_ml.schema import (
    BRIEF_LENGTH_MAX,
    FLOAT_NEAR,
    INTEGER_MAX,
    TEXT_LENGTH_MAX,
    FieldType,
    brief,
)
from stream_ml.signing import COMMANDS, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.signing import Keyring

__all__ = [
    "ID_LENGTH_MAX",
    "LABEL_BYTES_MAX",
    "EventCodec",
    "LabelCodec",
    "check_prediction",
    "check_unique",
    "dead_letter",
    "decode_alert",
    "decode_answers",
    "decode_command",
    "decode_decision",
    "decode_example",
    "decode_prediction",
    "encode",
    "encode_answers",
    "encode_command",
    "encode_decision",
    "encode_example",
    "encode_prediction",
    "encode_shadows",
    "record_hash",
    "serving_members",
    "serving_set",
]

# Dead letters keep this much of what was refused; of more, only its length and hash.
DEAD_LETTER_BYTES_MAX = 256 * 1024
# An event or label is small; a larger record is a mistake or an attack, refused unparsed.
RECORD_BYTES_MAX = 1024 * 1024
# A label waits in memory with its bytes, and with others of its id in one piece of state.
LABEL_BYTES_MAX = 64 * 1024
# With its label, and the words for where that comes from, it must still fit the topic of examples.
PREDICTION_BYTES_MAX = RECORD_BYTES_MAX - LABEL_BYTES_MAX


class EventCodec:
    """Reads events of one pipeline: which member is the id, the time, the key; which fields.

    Args:
        schema: the declared fields, the key's own among them.
        event_id, time, key: the members that hold them.
    """

    def __init__(
        self, schema: Mapping[str, FieldType], *, event_id: str, time: str, key: str
    ) -> None:
        self.schema = dict(schema)
        self.event_id = event_id
        self.time = time
        self.key = key
        self._fields = tuple((name, kind, kind.checker()) for name, kind in self.schema.items())

    def decode(self, value: bytes | None) -> Event:
        """The event in `value`; members that are not declared are passed over.

        Raises:
            BadRecord: it holds none.
        """
        members = check_unique(value, _object(value))
        event_id = _identifier(members, self.event_id)
        ts = _time(members, self.time)
        key = _identifier(members, self.key)
        fields: dict[str, Any] = {}
        for name, kind, check in self._fields:
            # A value that is absent, null, wrong or very large goes the long way.
            field_value = check(members.get(name))
            fields[name] = (
                _field(value, members, name, kind) if field_value is None else field_value
            )
        return Event(event_id, ts, key, fields)


def _field(text: bytes | None, members: dict[str, Any], name: str, kind: FieldType) -> Any:
    if name in members:
        return _check_member(text, members, name, kind)
    if kind.optional:
        return kind.default
    raise BadRecord("missing_field", f"$.{name}", f"expected {kind}, given nothing")


def _check_member(text: bytes | None, members: dict[str, Any], name: str, kind: FieldType) -> Any:
    """The member as its type has it; it was read from `text`.

    orjson gives integers past 64 bits as floats, rounded: the text tells them apart.

    Raises:
        BadRecord: it is not of this type, or an integer past what any reader may be trusted with.
    """
    value = members[name]
    if type(value) is float and abs(value) >= FLOAT_NEAR and kind.kind in {"int", "float"}:
        literal = _literals(text or b"").get(name, b"")
        if literal.removeprefix(b"-").isdigit():
            actual = f"the integer {literal[:BRIEF_LENGTH_MAX].decode()}"
            raise BadRecord(
                "out_of_range", f"$.{name}", f"expected {kind} within ±2^53, given {actual}"
            )
    return kind.check(name, value)


_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def _literals(text: bytes) -> dict[str, bytes]:
    """Numbers and words among the members of a JSON object, as they are written."""
    literals: dict[str, bytes] = {}
    depth, name, colon = 0, b"", False
    for token in _TOKEN.findall(text):
        if token in {b"{", b"["}:
            depth += 1
        elif token in {b"}", b"]"}:
            depth -= 1
        elif depth > 1:
            continue
        elif token in {b":", b","}:
            colon = token == b":"
        elif not colon:
            name = token
        elif not token.startswith(b'"'):
            literals[orjson.loads(name)] = token
    return literals


class LabelCodec:
    """Reads labels of one pipeline: members `event_id`, `ts`, `label` and optionally `source`."""

    def __init__(self, kind: FieldType) -> None:
        self.kind = kind

    def decode(self, value: bytes | None) -> EventLabel:
        """The label in `value`.

        Raises:
            BadRecord: it holds none.
        """
        members = check_unique(value, _object(value, LABEL_BYTES_MAX))
        event_id = _identifier(members, "event_id")
        ts = _time(members, "ts")
        if "label" not in members:
            raise BadRecord("missing_field", "$.label", f"expected {self.kind}, given nothing")
        label = _check_member(value, members, "label", self.kind)
        source = members.get("source")
        if source is not None:
            source = _SOURCE.check("source", source)
        return EventLabel(event_id, ts, label, source)


_SOURCE = FieldType("str", optional=True)


def _object(value: bytes | None, bytes_max: int = RECORD_BYTES_MAX) -> dict[str, Any]:
    if value is None:
        raise BadRecord("tombstone", "$", "expected a JSON object, given no value")
    if len(value) > bytes_max:
        raise BadRecord("too_large", "$", f"expected at most {bytes_max} bytes, given {len(value)}")
    if not value:
        raise BadRecord("empty", "$", "expected a JSON object, given no bytes")
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRecord(_flaw(error, value), "$", f"expected a JSON object: {error}") from None
    if type(members) is not dict:
        raise BadRecord("not_an_object", "$", f"expected a JSON object, given {brief(members)}")
    return members


# By what orjson says; all else is plainly no JSON.
_FLAWS = {
    "not valid UTF-8": "not_utf8",
    "depth limit": "too_deep",
    "infinity when parsed": "out_of_range",
    "surrogate in string": "lone_surrogate",
}
_NOT_FINITE = re.compile(rb"-?(NaN|Infinity)")


def _flaw(error: orjson.JSONDecodeError, value: bytes) -> str:
    """The reason why bytes are no JSON, in one word."""
    for phrase, reason in _FLAWS.items():
        if phrase in error.msg:
            return reason
    # The text is known to be UTF-8; the place is given in characters.
    excerpt = value.decode()[max(0, error.pos - 1) : error.pos + 9]
    return "not_finite" if _NOT_FINITE.search(excerpt.encode()) else "not_json"


# A whole string, and the colon behind it where it is a member's name.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r\n]*+(:?)')


def check_unique(value: bytes | None, members: dict[str, Any]) -> dict[str, Any]:
    """`members`, if in `value`, of which they were read, none was given twice.

    Raises:
        BadRecord: one was; readers differ in which they take.
    """
    assert value is not None, "members were read from no value"
    # As many colons as members, and no more can be hidden (the usual case: 0.1 µs).
    if value.count(b":") != len(members) and _STRING.findall(value).count(b":") != _count(members):
        raise BadRecord("repeated_member", "$", "expected each member once, given one twice")
    return members


def _count(value: Any) -> int:
    """How many members there are, on all levels; a stack of our own, for levels may be many."""
    count, stack = 0, [value]
    while stack:
        item = stack.pop()
        if type(item) is dict:
            count += len(item)
            stack += item.values()
        elif type(item) is list:
            stack += item
    return count


def _identifier(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if type(value) is str and 0 < len(value) <= ID_LENGTH_MAX:
        return value
    expected = f"expected a string of 1 to {ID_LENGTH_MAX} characters"
    if name not in members:
        raise BadRecord("missing_field", f"$.{name}", f"{expected}, given nothing")
    raise BadRecord("wrong_type", f"$.{name}", f"{expected}, given {brief(value)}")


def _time(members: dict[str, Any], name: str) -> int:
    return _natural(members, name, "UTC milliseconds as a whole number, not negative")


def _natural(members: dict[str, Any], name: str, description: str) -> int:
    value = members.get(name)
    if type(value) is int and 0 <= value <= INTEGER_MAX:
        return value
    expected = f"expected {description}"
    if name not in members:
        raise BadRecord("missing_field", f"$.{name}", f"{expected}, given nothing")
    raise BadRecord("wrong_type", f"$.{name}", f"{expected}, given {brief(value)}")


# --- predictions and examples: hot, so spelled out -------------------------------------------


def encode_shadows(shadows: Mapping[str, Shadow]) -> bytes:
    """The wire form of a prediction's shadows: where an answer is to be made, none is written."""
    return orjson.dumps(
        {
            slot: {"model": shadow.model, "prediction": shadow.prediction}
            if shadow.offset is None
            else {"model": shadow.model, "offset": shadow.offset}
            for slot, shadow in shadows.items()
        }
    )


def encode_prediction(prediction: Prediction, shadows: bytes | None = None) -> bytes:
    """The wire form of a prediction: the dataclass as a JSON object.

    Args:
        prediction: to be written.
        shadows: its shadows as `encode_shadows` writes them, where that is known.
    """
    p = prediction
    # orjson writes a dict four times as fast as a dataclass (measured: 1.0 against 3.9 µs).
    members = {
        "event_id": p.event_id,
        "key": p.key,
        "ts": p.ts,
        "source": {"partition": p.source.partition, "offset": p.source.offset},
        "model": p.model,
        "example": p.example,
        "prediction": p.prediction,
        "fallback": p.fallback,
        "features": p.features,
        "shadows": orjson.Fragment(encode_shadows(p.shadows) if shadows is None else shadows),
    }
    if p.slices:
        members["slices"] = p.slices
    value = orjson.dumps(members)
    # orjson leaves at least 4 kB behind its answer; a prediction waits long for its label.
    return bytes(memoryview(value))


_BOOLS = (b"false", b"true")


def encode_example(
    prediction_value: bytes,
    label: bool | str | float,
    label_ts: int,
    label_source: Source,
    label_from: str | None = None,
    *,
    number: int | None = None,
    implicit: bool = False,
    correction: Correction | None = None,
) -> bytes:
    """The wire form of an example: the prediction's own bytes with the label put in at the end.

    Args:
        prediction_value: the prediction as it lies on the log, without its seal.
        label: the truth.
        label_ts: when it was known, UTC milliseconds.
        label_source: the partition and offset of the label on `labels`.
        label_from: who knew it, in the producer's words.
        number: counts the examples of a join partition; None for those that are not counted.
        implicit: whether silence was taken for the label.
        correction: what the label takes the place of, if anything.
    """
    optional_members = b"" if label_from is None else b',"label_from":' + orjson.dumps(label_from)
    if number is not None:
        optional_members = b'%b,"number":%d' % (optional_members, number)
    if implicit:
        optional_members += b',"implicit":true'
    if correction is not None:
        optional_members += b',"correction":' + msgspec.json.encode(correction)
    return b'%b,"label":%b,"label_ts":%d,"label_source":{"partition":%d,"offset":%d}%b}' % (
        prediction_value[:-1],
        _BOOLS[label] if type(label) is bool else orjson.dumps(label),
        label_ts,
        label_source.partition,
        label_source.offset,
        optional_members,
    )


def decode_prediction(value: bytes | None) -> Prediction:
    """The prediction in `value`; whether a pipeline can have made it is not looked at.

    Raises:
        BadRecord: it holds none.
    """
    if value is not None and len(value) <= PREDICTION_BYTES_MAX:
        with suppress(*_UNUSUAL):
            prediction = _read_prediction(value)
            if _has_usual_answers(prediction):
                return prediction
    return _prediction(_object(value, PREDICTION_BYTES_MAX))


def decode_example(value: bytes | None) -> Example:
    """The example in `value`; whether a pipeline can have made it is not looked at.

    Raises:
        BadRecord: it holds none.
    """
    if value is not None and len(value) <= RECORD_BYTES_MAX:
        with suppress(*_UNUSUAL):
            flat = _read_example(value)
            prediction = Prediction(
                flat.event_id,
                flat.key,
                flat.ts,
                flat.source,
                flat.model,
                flat.example,
                flat.prediction,
                flat.fallback,
                flat.features,
                flat.shadows,
                flat.slices,
            )
            if _has_usual_answers(prediction):
                return Example(
                    prediction,
                    flat.label,
                    flat.label_ts,
                    flat.label_source,
                    flat.label_from,
                    flat.number,
                    flat.implicit,
                    flat.correction,
                )
    members = _object(value)
    prediction = _prediction(members)
    label: Any = members.get("label")
    if type(label) not in _LABEL_TYPES:
        raise _malformed_member("$.label", "true, false, a string or a number", label)
    source = _source(members, "label_source")
    label_from = members.get("label_from")
    if label_from is not None:
        label_from = _SOURCE.check("label_from", label_from)
    number = members.get("number")
    if number is not None:
        number = _natural(members, "number", "a whole number")
    implicit, correction = members.get("implicit", False), members.get("correction")
    if type(implicit) is not bool:
        raise _malformed_member("$.implicit", "true or false", implicit)
    if correction is not None:
        correction = _correction(correction)
    label_ts = _time(members, "label_ts")
    return Example(prediction, label, label_ts, source, label_from, number, implicit, correction)


def _correction(members: Any) -> Correction:
    try:
        return msgspec.convert(members, Correction)
    except msgspec.ValidationError as error:
        raise BadRecord("malformed", "$.correction", f"this is no correction: {error}") from None


class _FlatExample(Prediction, forbid_unknown_fields=True, kw_only=True):
    """An example as it lies on the wire: the label's members beside the prediction's."""

    label: bool | str | Number
    label_ts: Natural
    label_source: Source
    label_from: Annotated[str, msgspec.Meta(max_length=TEXT_LENGTH_MAX)] | None = None
    number: Natural | None = None
    implicit: bool = False
    correction: Correction | None = None


# Twice as fast as looking at member by member; all that these do not take at once is looked at so,
# which says what is wrong with it, or that it is unusual and right.
_read_prediction = msgspec.json.Decoder(Prediction).decode
_read_example = msgspec.json.Decoder(_FlatExample).decode
_read_alert = msgspec.json.Decoder(Alert).decode
_read_answers = msgspec.json.Decoder(ShadowAnswers).decode
_UNUSUAL = (msgspec.MsgspecError, ValueError, RecursionError)


def _has_usual_answers(prediction: Prediction) -> bool:
    if not _is_model(prediction.model) or type(prediction.prediction) is int:
        return False
    for shadow in prediction.shadows.values():
        if type(shadow.prediction) is int or not _is_model(shadow.model):
            return False
        if shadow.offset is not None and shadow.prediction is not None:
            return False
    return True


# orjson's numbers are finite, so types say it all.
_NUMBERS = frozenset({float, int})
_LABEL_TYPES = frozenset({bool, str, float, int})


def _prediction(members: dict[str, Any]) -> Prediction:
    example, fallback = members.get("example"), members.get("fallback")
    if type(example) is not int or not -1 <= example <= INTEGER_MAX:
        raise _malformed_member("$.example", "an offset, or -1", example)
    if type(fallback) is not bool:
        raise _malformed_member("$.fallback", "true or false", fallback)
    features = members.get("features")
    if type(features) is not dict:
        raise _malformed_member("$.features", "an object of numbers", features)
    if not _NUMBERS.issuperset(map(type, features.values())):
        name = next(name for name, value in features.items() if type(value) not in _NUMBERS)
        path = f"$.features.{name[:ID_LENGTH_MAX]}"
        raise _malformed_member(path, "a number", features[name])
    shadows = members.get("shadows")
    if type(shadows) is not dict:
        raise _malformed_member("$.shadows", "an object of answers", shadows)
    return Prediction(
        _identifier(members, "event_id"),
        _identifier(members, "key"),
        _time(members, "ts"),
        _source(members, "source"),
        _model(members, "$.model"),
        example,
        _answer(members, "$.prediction"),
        fallback,
        features,
        _shadows(shadows),
        _slices(members),
    )


def _slices(members: dict[str, Any]) -> tuple[str, ...]:
    slices = members.get("slices", ())
    try:
        return msgspec.convert(slices, Slices)
    except msgspec.ValidationError:
        raise _malformed_member("$.slices", "a list of names of slices", slices) from None


def _shadows(members: dict[str, Any]) -> dict[str, Shadow]:
    shadows = {}
    for slot, shadow in members.items():
        # The usual answer at once, for a path that nobody will read costs as much as the rest.
        try:
            model, answer = shadow["model"], shadow["prediction"]
        except (KeyError, TypeError):
            model = answer = None
        if type(answer) is float and type(model) is str and _is_model(model):
            shadows[slot] = Shadow(model, answer)
        else:
            shadows[slot] = _shadow(slot, shadow)
    return shadows


def _shadow(slot: str, shadow: Any) -> Shadow:
    path = f"$.shadows.{slot[:ID_LENGTH_MAX]}"
    if type(shadow) is not dict:
        raise _malformed_member(path, "an object with model and prediction", shadow)
    model, offset = _model(shadow, f"{path}.model"), shadow.get("offset")
    if offset is None:
        return Shadow(model, _answer(shadow, f"{path}.prediction"))
    if "prediction" in shadow:
        raise _malformed_member(path, "a prediction or an offset", shadow)
    if type(offset) is not int or not 0 <= offset <= INTEGER_MAX:
        raise _malformed_member(f"{path}.offset", "an offset", offset)
    return Shadow(model, None, offset)


def _answer(members: dict[str, Any], path: str) -> Answer:
    answer: Any = members.get("prediction")
    if type(answer) is float or answer is None:
        return answer
    if type(answer) is int and -INTEGER_MAX <= answer <= INTEGER_MAX:
        return answer
    if type(answer) is dict and _NUMBERS.issuperset(map(type, answer.values())):
        return answer
    raise _malformed_member(path, "a number, a number per class, or null", answer)


def _model(members: dict[str, Any], path: str) -> str:
    model = members.get("model")
    if type(model) is str and _is_model(model):
        return model
    raise _malformed_member(path, "name@version", model)


# A handful of names come with every record.
@lru_cache(maxsize=1_024)
def _is_model(model: str) -> bool:
    return len(model) <= ID_LENGTH_MAX and _MODEL.fullmatch(model) is not None


_MODEL = re.compile(r".+@[0-9]{1,15}")


def _source(members: dict[str, Any], name: str) -> Source:
    source = members.get(name)
    if type(source) is dict:
        partition, offset = source.get("partition"), source.get("offset")
        if (
            type(partition) is int
            and type(offset) is int
            and 0 <= partition < PARTITIONS_MAX
            and 0 <= offset <= INTEGER_MAX
        ):
            return Source(partition, offset)
    raise _malformed_member(f"$.{name}", "a partition and an offset", source)


def _malformed_member(path: str, expected: str, actual: Any) -> BadRecord:
    return BadRecord("malformed", path, f"expected {expected}, given {brief(actual)}")


def check_prediction(record: Prediction, kind: str, names: frozenset[str]) -> None:
    """Make sure that a pipeline can have made this prediction.

    Args:
        record: as decoded.
        kind: of the pipeline's task.
        names: of all its features.

    Raises:
        BadRecord: it has a feature that the pipeline has not, or another kind of answer.
    """
    if not names.issuperset(record.features):
        unknown = brief(next(name for name in record.features if name not in names))
        raise BadRecord(
            "unknown_feature", "$.features", f"expected features of this pipeline, given {unknown}"
        )
    if record.prediction is None and not record.fallback:
        raise _malformed_member("$.prediction", "an answer, as no fallback was served", None)
    _check_answer(record.prediction, kind, None)
    for slot, shadow in record.shadows.items():
        answer = shadow.prediction
        # The usual answer of the usual task at once, as above.
        if kind != "binary" or type(answer) is not float or not 0.0 <= answer <= 1.0:
            _check_answer(answer, kind, slot)


def _check_answer(answer: Any, kind: str, slot: str | None) -> None:
    if answer is None:
        return
    path = "$.prediction" if slot is None else f"$.shadows.{slot[:ID_LENGTH_MAX]}.prediction"
    if (type(answer) is dict) != (kind == "multiclass"):
        raise _malformed_member(path, f"the answer of a {kind} model", answer)
    if kind == "binary" and not 0.0 <= answer <= 1.0:
        raise _malformed_member(path, "a probability", answer)


# --- the rest ---------------------------------------------------------------------------------


def encode(record: Evaluation | Alert | DeadLetter) -> bytes:
    """The wire form of a record that is its dataclass as a JSON object."""
    if type(record) is Evaluation and record.slices is None:
        members = {each.name: getattr(record, each.name) for each in fields(record)}
        del members["slices"]
        return orjson.dumps(members)
    return orjson.dumps(record)


def decode_alert(value: bytes | None) -> Alert:
    """The alert in `value`, also one of a former release; its seal is not looked at.

    Raises:
        BadRecord: it holds none.
    """
    try:
        alert = _read_alert(value or b"")
    except _UNUSUAL as error:
        raise BadRecord("malformed", "$", f"this is no alert: {error}") from None
    if not -1 <= alert.ts <= INTEGER_MAX or not 0 <= alert.partition < PARTITIONS_MAX:
        raise BadRecord("malformed", "$", "expected an alert, with a time and a partition")
    return alert


def encode_answers(event_id: str, example: int, shadows: Mapping[str, Shadow]) -> bytes:
    """The wire form of what shadows said: of `ShadowAnswers`.

    Args:
        event_id: of the event.
        example: the offset of the example on `examples`.
        shadows: with their answers, by slot.
    """
    return orjson.dumps(
        {
            "event_id": event_id,
            "example": example,
            "shadows": {
                slot: {"model": shadow.model, "prediction": shadow.prediction}
                for slot, shadow in shadows.items()
            },
        }
    )


def decode_answers(value: bytes | None) -> ShadowAnswers:
    """What shadows said, in `value`, which is without its seal.

    Raises:
        BadRecord: it holds no such thing.
    """
    try:
        return _read_answers(value or b"")
    except _UNUSUAL as error:
        raise BadRecord("malformed", "$", f"these are no answers of shadows: {error}") from None


def encode_decision(decision: Decision, key: bytes) -> bytes:
    """The wire form of a decision, signed with `key`.

    Args:
        decision: what was decided.
        key: the pipeline's.
    """
    members = {**asdict(decision), "serving": serving_members(decision.serving)}
    return seal(orjson.dumps(members), key)


def decode_decision(value: bytes | None, key: bytes | None) -> Decision:
    """The decision in `value`, its signature checked before anything in it is believed.

    Without a key, for readers who have none, it is not checked.

    Raises:
        BadRecord: it holds none, or it is not signed with `key`.
    """
    members = _object(unseal(value, key))
    try:
        serving = serving_set(members.pop("serving"))
        decision = Decision(**members, serving=serving)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRecord("malformed", "$", f"expected a decision: {error!r}") from None
    if key is None:
        _check_decision(decision)
    return decision


_DECISION_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("number", "ts"), (int,)),
    **dict.fromkeys(("kind", "actor", "reason", "previous"), (str,)),
    **dict.fromkeys(("command_id", "log", "signed_by"), (str, NoneType)),
    **dict.fromkeys(("given_ms", "received_ms"), (int, NoneType)),
    "inputs": (dict,),
    "evidence": (dict, NoneType),
}


def _check_decision(decision: Decision) -> None:
    """Refuse what no stage can have written: whoever has no key may be given anything."""
    serving = decision.serving
    refs = [serving.champion, *serving.challengers.values(), serving.predecessor, serving.first]
    for name, types in _DECISION_TYPES.items():
        value = getattr(decision, name)
        if type(value) not in types or (type(value) is int and not -1 <= value <= INTEGER_MAX):
            raise _malformed_member(f"$.{name}", "what a decision has there", value)
    for ref in refs:
        if ref is not None and (type(ref.model), type(ref.digest), type(ref.offset)) != (
            str,
            str,
            int,
        ):
            raise _malformed_member("$.serving", "snapshots by name, digest and offset", ref.model)


def serving_members(serving: ServingSet) -> dict[str, Any]:
    """A serving set as JSON members; without a fallback as former releases wrote it."""
    members = asdict(serving)
    if serving.fallback is None:
        del members["fallback"]
    return members


def serving_set(members: dict[str, Any]) -> ServingSet:
    """The serving set that JSON members hold; raises KeyError or TypeError where they do not."""
    predecessor, first, fallback = members["predecessor"], members["first"], members.get("fallback")
    answers = (
        fallback.values() if type(fallback) is dict else () if fallback is None else [fallback]
    )
    if not _NUMBERS.issuperset(map(type, answers)):
        raise TypeError(f"fallback: expected a number, a number per class, or null: {fallback!r}")
    return ServingSet(
        ModelRef(**members["champion"]),
        {line: ModelRef(**ref) for line, ref in members["challengers"].items()},
        None if predecessor is None else ModelRef(**predecessor),
        None if first is None else ModelRef(**first),
        fallback,
    )


def encode_command(command: Command, key: bytes) -> bytes:
    """The wire form of a command, signed with its operator's key.

    Args:
        command: what is to be done.
        key: its operator's.
    """
    members = asdict(command)
    if command.details is None:
        del members["details"]
    return seal(orjson.dumps(members), key)


def decode_command(value: bytes | None, keyring: Keyring) -> Command:
    """The command in `value`, signed by the operator that it names.

    Whether the operator's role allows it is not looked at: that deserves an answer. Nor is where
    it was meant for.

    Args:
        value: the record's, as it lies on the log.
        keyring: the operators' keys by name.

    Raises:
        BadRecord: it holds none, its operator is unknown, or it was not signed with their key.
    """
    name = _identifier(check_unique(value, _object(value)), "operator")
    operator = keyring.operator(name)
    if operator is None:
        raise BadRecord("unknown_operator", "$.operator", f"no key is known for {name!r}")
    members = _object(unseal(value, operator.key))
    kind = members.get("kind")
    if kind not in COMMANDS:
        raise BadRecord(
            "unknown_command", "$.kind", f"expected one of {', '.join(COMMANDS)}, given {kind!r}"
        )
    return Command(
        command_id=_identifier(members, "command_id"),
        kind=kind,
        ts=_time(members, "ts"),
        operator=name,
        actor=_identifier(members, "actor"),
        reason=_identifier(members, "reason"),
        expect=_optional_text(members, "expect"),
        model=_optional_text(members, "model"),
        pipeline=_optional_text(members, "pipeline"),
        log=_optional_text(members, "log"),
        details=_optional_object(members, "details"),
    )


def _optional_text(members: dict[str, Any], name: str) -> str | None:
    return None if members.get(name) is None else _identifier(members, name)


def _optional_object(members: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = members.get(name)
    if value is None or type(value) is dict:
        return value
    raise BadRecord("wrong_type", f"$.{name}", f"expected an object, given {brief(value)}")


def record_hash(value: bytes | None) -> str:
    """The hash by which the next decision names a registry record."""
    return hashlib.sha256(value or b"").hexdigest()


def dead_letter(record: Record, stage: str, error: BadRecord) -> Output:
    """The dead letter of a record that `stage` refused.

    Args:
        record: what was refused; its key and value go into the dead letter, up to a length.
        stage: the name of the stage that refused it.
        error: why: reason, path and words.
    """
    value = record.value
    is_small = value is not None and len(value) <= DEAD_LETTER_BYTES_MAX
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stage=stage,
        reason=error.reason,
        path=error.path,
        message=error.message[:TEXT_LENGTH_MAX],
        key=None if record.key is None else b64encode(record.key[:ID_LENGTH_MAX]).decode(),
        value=b64encode(value).decode() if is_small and value is not None else None,
        length=len(value or b""),
        sha256=hashlib.sha256(value or b"").hexdigest(),
    )
    # A key may be as long as any record, and the letter must fit its topic.
    key = None if record.key is None else record.key[:ID_LENGTH_MAX]
    return Output("dead-letters", key, encode(letter), letter)
