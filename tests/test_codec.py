"""The codec: any bytes give a record or one refusal that says why; what is written reads back."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stream_ml as sml
from stream_ml import codec
from stream_ml.codec import (
    EventCodec,
    LabelCodec,
    check_prediction,
    dead_letter,
    decode_command,
    decode_decision,
    decode_example,
    decode_prediction,
    encode_decision,
    encode_example,
    encode_prediction,
)
from stream_ml.errors import BadRecord
from stream_ml.records import (
    Command,
    Correction,
    Event,
    EventLabel,
    Example,
    Prediction,
    Record,
    Shadow,
    Source,
)
from stream_ml.schema import field_type
from stream_ml.signing import Keyring, seal, unseal
from stream_ml.testing import Driver
from tests.simulation.world import pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.records import Answer

events = EventCodec(
    {
        "amount": field_type(float),
        "items": field_type(int),
        "kind": sml.Enum("visit", "order"),
        "note": sml.Optional[str],
        "rate": sml.Optional(float, default=1),
    },
    event_id="event_id",
    time="ts",
    key="shop",
)
VALID: dict[str, Any] = {
    "event_id": "e1",
    "ts": 1_700_000_000_000,
    "shop": "s1",
    "amount": 2.5,
    "items": 3,
    "kind": "visit",
}
ID = "expected a string of 1 to 512 characters"
TIME = "expected UTC milliseconds as a whole number, not negative"


def without(name: str) -> bytes:
    """A valid event that lacks one member."""
    return orjson.dumps({key: value for key, value in VALID.items() if key != name})


def having(**changes: Any) -> bytes:
    """A valid event with some members changed."""
    return json.dumps(VALID | changes).encode()


REFUSED: list[tuple[bytes | None, str]] = [
    (None, "tombstone at $: expected a JSON object, given no value"),
    (b"[1, 2]", "not_an_object at $: expected a JSON object, given list of 2"),
    (b"null", "not_an_object at $: expected a JSON object, given null"),
    (b" " * (1024 * 1024 + 1), "too_large at $: expected at most 1048576 bytes, given 1048577"),
    (without("event_id"), f"missing_field at $.event_id: {ID}, given nothing"),
    (having(event_id=""), f"wrong_type at $.event_id: {ID}, given str ''"),
    (having(event_id=7), f"wrong_type at $.event_id: {ID}, given int 7"),
    (having(event_id=None), f"wrong_type at $.event_id: {ID}, given null"),
    (without("shop"), f"missing_field at $.shop: {ID}, given nothing"),
    (without("ts"), f"missing_field at $.ts: {TIME}, given nothing"),
    (having(ts=-1), f"wrong_type at $.ts: {TIME}, given int -1"),
    (having(ts=1.5), f"wrong_type at $.ts: {TIME}, given float 1.5"),
    (having(ts=True), f"wrong_type at $.ts: {TIME}, given bool True"),
    (having(ts=2**53 + 1), f"wrong_type at $.ts: {TIME}, given int 9007199254740993"),
    (without("amount"), "missing_field at $.amount: expected float, given nothing"),
    (having(amount="2.5"), "wrong_type at $.amount: expected float, given str '2.5'"),
    (having(amount=True), "wrong_type at $.amount: expected float, given bool True"),
    (having(amount=None), "null at $.amount: expected float, given null"),
    (having(amount=[1]), "wrong_type at $.amount: expected float, given list of 1"),
    (having(items=3.0), "wrong_type at $.items: expected int, given float 3.0"),
    (
        having(kind="Visit"),
        "unknown_category at $.kind: expected one of visit, order, given str 'Visit'",
    ),
    (having(kind=1), "wrong_type at $.kind: expected one of visit, order, given int 1"),
    (having(note=5), "wrong_type at $.note: expected str or null, given int 5"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_refusal_says_why_and_where(value: bytes | None, message: str) -> None:
    """Reason, path, what was expected, what was given."""
    with pytest.raises(BadRecord) as refused:
        events.decode(value)

    assert message == str(refused.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"{", "not_json"),
        (b"{} {}", "not_json"),
        (b"\xff", "not_utf8"),
        (having(amount=float("nan")), "not_finite"),
        (having(amount=float("-inf")), "not_finite"),
        (having(amount=10**400), "out_of_range"),
        (having(amount="NaN")[:-1], "not_json"),
        (having(note="\ud800"), "lone_surrogate"),
        (b"[" * 5_000, "too_deep"),
    ],
)
def test_what_is_no_json_is_refused_whole(value: bytes, reason: str) -> None:
    """NaN, endless numbers, broken UTF-8, bottomless nesting: none is JSON."""
    with pytest.raises(BadRecord) as refused:
        events.decode(value)

    assert (reason, "$") == (refused.value.reason, refused.value.path)


def test_absent_null_and_default_are_three_things() -> None:
    """An absent optional field takes its default, a null one is None, whatever the default."""
    absent = events.decode(orjson.dumps(VALID))
    null = events.decode(having(rate=None, note=None))

    assert (1.0, None) == (absent.fields["rate"], absent.fields["note"])
    assert (None, None) == (null.fields["rate"], null.fields["note"])
    assert float is type(absent.fields["rate"])


def test_members_that_are_not_declared_are_passed_over() -> None:
    """A producer may send more than is asked for; features never see it."""
    event = events.decode(having(colour="red", amount=4))

    fields = {"amount": 4.0, "items": 3, "kind": "visit", "note": None, "rate": 1.0}
    assert Event("e1", 1_700_000_000_000, "s1", fields) == event
    assert float is type(event.fields["amount"])


@pytest.mark.parametrize(
    "more",
    [
        b',"amount":9}',
        b',"amount" \n: 9}',
        b',"more":{"a":1,"a":2}}',
        b',"more":[[{"a":1},{"b":1,"b":2}]]}',
        b',"\\\\":1,"\\\\":2}',
        b',"b\\"":":1","amount":1}',
    ],
)
def test_a_member_given_twice_is_refused(more: bytes) -> None:
    """Readers differ in which they take, so none is taken; not in what is passed over either."""
    with pytest.raises(BadRecord) as refused:
        events.decode(orjson.dumps(VALID)[:-1] + more)

    assert ("repeated_member", "$") == (refused.value.reason, refused.value.path)


@given(st.recursive(st.none() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_what_is_given_once_is_never_taken_for_twice(more: Any) -> None:
    """Colons, quotes and backslashes in texts and names do not mislead."""
    try:
        value = orjson.dumps(VALID | {"more": more})
    except orjson.JSONEncodeError:
        return  # a lone surrogate, which is no text

    assert "e1" == events.decode(value).event_id
    assert "e1" == events.decode(json.dumps(orjson.loads(value), indent=1).encode()).event_id


NUMBERS = EventCodec(
    {
        "x": field_type(float),
        "maybe": sml.Optional[float],
        "count": field_type(int),
        "many": sml.Optional[int],
    },
    event_id="event_id",
    time="ts",
    key="shop",
)


@given(
    st.sampled_from(["x", "maybe", "count", "many", "ts"]),
    st.integers(2**53 + 1, 2**53 + 9) | st.integers(2**63 - 3, 2**66) | st.integers(10**20, 10**30),
    st.sampled_from([1, -1]),
    st.booleans(),
)
def test_integers_past_2_to_the_53_are_refused_wherever_a_number_is(
    name: str, number: int, sign: int, compact: bool
) -> None:
    """No integer is rounded in silence, though a parser hands it on as a float."""
    members = {"event_id": "e", "ts": 1, "shop": "s", "x": 0.5, "count": 1} | {name: sign * number}
    value = json.dumps(members, separators=(",", ":") if compact else None).encode()

    with pytest.raises(BadRecord) as refused:
        NUMBERS.decode(value)

    reason = "wrong_type" if name == "ts" else "out_of_range"
    assert (reason, f"$.{name}") == (refused.value.reason, refused.value.path)


@given(st.integers(2**53 + 1, 10**30), st.sampled_from([1, -1]))
def test_a_label_that_is_an_integer_past_2_to_the_53_is_refused(number: int, sign: int) -> None:
    """What is learned from is what was sent, or nothing."""
    value = b'{"event_id":"e","ts":1,"label":%d}' % (sign * number)

    with pytest.raises(BadRecord) as refused:
        LabelCodec(field_type(float)).decode(value)

    assert ("out_of_range", "$.label") == (refused.value.reason, refused.value.path)


@given(st.floats(2.0**53, 1e30), st.sampled_from([1.0, -1.0]))
def test_large_floats_are_taken_as_they_are(number: float, sign: float) -> None:
    """A number with a point or an exponent was no integer: within the bounds it is taken."""
    written = repr(sign * number)
    value = b'{"event_id":"e","ts":1,"shop":"s","count":1,"x":%s}' % written.encode()

    assert sign * number == NUMBERS.decode(value).fields["x"]
    label = b'{"event_id":"e","ts":1,"label":%s}' % written.encode()
    assert sign * number == LabelCodec(field_type(float)).decode(label).label


@pytest.mark.parametrize(
    "more",
    [
        b'"y":100000000000000000000',
        b'"y":{"x":100000000000000000000}',
        b'"y":[{"x":100000000000000000000},"x",{"x":[1]}]',
        b'"y":"\\"x\\":100000000000000000000"',
    ],
)
def test_integers_elsewhere_do_not_make_a_large_float_one(more: bytes) -> None:
    """Members that are not declared are passed over, whatever they hold."""
    value = b'{%s,"event_id":"e","ts":1,"shop":"s","count":1,"\\u0078":1e20}' % more

    assert 1e20 == NUMBERS.decode(value).fields["x"]


def test_a_number_beyond_floats_is_refused() -> None:
    """Neither digits without end nor an exponent make infinity."""
    for number in (b"1e400", b"-1e400", b"1" * 400):
        value = b'{"event_id":"e","ts":1,"shop":"s","count":1,"x":%s}' % number
        with pytest.raises(BadRecord) as refused:
            NUMBERS.decode(value)
        assert "out_of_range" == refused.value.reason


def outcome(decode: Callable[[bytes], Any], value: bytes) -> str | None:
    """Why it is refused, or None."""
    try:
        decode(value)
    except BadRecord as refused:
        return refused.reason
    return None


def padded(length: int, **members: Any) -> bytes:
    """A JSON object of so many bytes."""
    value = json.dumps(members).encode()
    return value[:-1] + b" " * (length - len(value)) + value[-1:]


def test_bounds_are_themselves_allowed_and_nothing_past_them() -> None:
    """Of ids, of events, labels and predictions in bytes, of places and of probabilities."""
    labels = LabelCodec(field_type(bool)).decode
    label = {"event_id": "e", "ts": 5, "label": True}
    prediction: dict[str, Any] = {
        "event_id": "e",
        "key": "k",
        "ts": 5,
        "source": {"partition": 0, "offset": 0},
        "model": "m@0",
        "example": -1,
        "prediction": 1.0,
        "fallback": False,
        "features": {},
        "shadows": {},
    }

    def checked(value: bytes) -> None:
        codec.check_prediction(decode_prediction(value), "binary", frozenset())

    def predicted(**changes: Any) -> bytes:
        return json.dumps(prediction | changes).encode()

    def source(partition: int, offset: int) -> bytes:
        return predicted(source={"partition": partition, "offset": offset})

    bounds: list[tuple[Callable[[bytes], Any], bytes, bytes, str]] = [
        (events.decode, having(event_id="e" * 512), having(event_id="e" * 513), "wrong_type"),
        (events.decode, padded(2**20, **VALID), padded(2**20 + 1, **VALID), "too_large"),
        (labels, padded(2**16, **label), padded(2**16 + 1, **label), "too_large"),
        (
            decode_prediction,
            padded(2**20 - 2**16, **prediction),
            padded(2**20 - 2**16 + 1, **prediction),
            "too_large",
        ),
        (checked, predicted(prediction=1.0), predicted(prediction=1.0000001), "malformed"),
        (checked, predicted(prediction=0), predicted(prediction=-0.0000001), "malformed"),
        (
            checked,
            predicted(shadows={"a": {"model": "m@1", "prediction": 1.0}}),
            predicted(shadows={"a": {"model": "m@1", "prediction": 1.0000001}}),
            "malformed",
        ),
        (decode_prediction, predicted(example=-1), predicted(example=-2), "malformed"),
        (decode_prediction, predicted(example=2**53), predicted(example=2**53 + 2), "malformed"),
        (decode_prediction, source(999_999, 0), source(1_000_000, 0), "malformed"),
        (decode_prediction, source(0, 0), source(-1, 0), "malformed"),
        (decode_prediction, source(0, 2**53), source(0, 2**53 + 2), "malformed"),
        (decode_prediction, source(0, 0), source(0, -1), "malformed"),
        (decode_prediction, predicted(model="m@" + "9" * 15), predicted(model="m@"), "malformed"),
        (
            decode_prediction,
            predicted(model="m" * 510 + "@1"),
            predicted(model="m" * 511 + "@1"),
            "malformed",
        ),
        (decode_prediction, predicted(model="m@1"), predicted(model="@1"), "malformed"),
        (decode_prediction, predicted(fallback=True), predicted(fallback=1), "malformed"),
        (
            decode_prediction,
            predicted(slices=["a"] * 32),
            predicted(slices=["a"] * 33),
            "malformed",
        ),
        (
            decode_prediction,
            predicted(slices=["a" * 512]),
            predicted(slices=["a" * 513]),
            "malformed",
        ),
        (decode_prediction, predicted(slices=[]), predicted(slices=[5]), "malformed"),
        (decode_prediction, predicted(slices=["a"]), predicted(slices="a"), "malformed"),
    ]
    # The quick way, and that of what is unusual: a whole number.
    for answer in (1.0, 1):
        read = decode_prediction(predicted(prediction=answer, slices=["a", "b=c"]))
        assert ("a", "b=c") == read.slices
    for decode, allowed, past, reason in bounds:
        assert (None, reason) == (outcome(decode, allowed), outcome(decode, past)), past[:80]


def test_an_integer_within_another_member_is_not_taken_for_a_field() -> None:
    """A nested member of a field's name, however long its digits, refuses no event."""
    nested = having(amount=1e17).replace(b"}", b', "more": {"x": 1, "amount": 90071992547409931}}')

    assert 1e17 == events.decode(nested).fields["amount"]


def test_labels_have_a_type_too() -> None:
    """A label is of the declared type, and never null."""
    labels = LabelCodec(field_type(bool))

    assert EventLabel("e1", 5, True, "desk") == labels.decode(
        b'{"event_id": "e1", "ts": 5, "label": true, "source": "desk"}'
    )
    for value, message in (
        (b'{"event_id": "e1", "ts": 5}', "missing_field at $.label: expected bool, given nothing"),
        (
            b'{"event_id": "e1", "ts": 5, "label": null}',
            "null at $.label: expected bool, given null",
        ),
        (
            b'{"event_id": "e1", "ts": 5, "label": 1}',
            "wrong_type at $.label: expected bool, given int 1",
        ),
        (
            b'{"event_id": "e1", "ts": 5, "label": true, "source": 1}',
            "wrong_type at $.source: expected str or null, given int 1",
        ),
    ):
        with pytest.raises(BadRecord) as refused:
            labels.decode(value)
        assert message == str(refused.value)


# --- what is written reads back ---------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
answers = st.none() | st.floats(0, 1) | st.dictionaries(text, st.floats(0, 1), max_size=3)
models = st.builds("{}@{}".format, st.text("ab@:", min_size=1), st.integers(0, 9_999))
predictions = st.builds(
    Prediction,
    event_id=text,
    key=text,
    ts=st.integers(0, 2**53),
    source=st.builds(Source, st.integers(0, 9), st.integers(0, 2**40)),
    model=models,
    example=st.integers(-1, 2**40),
    prediction=answers,
    fallback=st.booleans(),
    features=st.dictionaries(text, finite, max_size=4),
    shadows=st.dictionaries(text, st.builds(Shadow, models, answers), max_size=3),
)


@given(predictions)
def test_a_prediction_reads_back_as_it_was(prediction: Prediction) -> None:
    """Every feature and answer to the last bit: models learn from what was logged."""
    assert prediction == decode_prediction(encode_prediction(prediction))


labels = st.booleans() | finite | text
corrections = st.builds(Correction, labels, st.integers(0, 2**53), st.booleans())


@given(predictions, labels, st.none() | text, st.booleans(), st.none() | corrections)
def test_an_example_is_the_prediction_and_the_truth(
    prediction: Prediction,
    label: Any,
    label_from: str | None,
    implicit: bool,
    correction: Correction | None,
) -> None:
    """Joining adds the label to the prediction's own bytes and changes none of them."""
    value, source = encode_prediction(prediction), Source(2, 7)
    optional = {"number": 3, "implicit": implicit, "correction": correction}
    example = encode_example(value, label, 8, source, label_from, **optional)

    expected = Example(prediction, label, 8, source, label_from, 3, implicit, correction)
    assert decode_example(example) == expected
    assert example.startswith(value[:-1])


def members_of(value: bytes) -> list[tuple[Any, ...]]:
    """Every place in a JSON document, as a path of names."""
    paths: list[tuple[Any, ...]] = [()]
    for path in paths:
        inner = at(orjson.loads(value), path)
        if isinstance(inner, dict):
            paths += [(*path, name) for name in inner]
    return paths[1:]


def at(document: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for name in path:
        document = document[name]
    return document


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.sampled_from([2**53 + 1, 2**64, -(2**70), 2**70]),
    st.floats(),
    text,
    st.just({}),
    st.just([]),
    st.just({"a": 1}),
    st.just({"a": "1"}),
    st.just("x" * 600),
    st.just("name@"),
    st.just("a\nb@7"),
)


def decoded_by(read: Callable[[bytes], Any], value: bytes) -> Any:
    """The record with its types told apart (1 and 1.0 are equal), or what is wrong with it."""
    try:
        return repr(read(value))
    except BadRecord as error:
        return error.reason, error.path, str(error)


@given(predictions, st.booleans() | finite | text, st.integers(0, 2**53), st.data())
def test_the_short_way_reads_what_the_long_way_reads(
    prediction: Prediction, label: Any, label_ts: int, data: st.DataObject
) -> None:
    """Whatever one member is changed to, taken out or added: the same record or refusal."""
    value = encode_prediction(prediction)
    correction = Correction(label, label_ts, implicit=True)
    optional = {"number": 3, "implicit": True, "correction": correction}
    example = encode_example(value, label, label_ts, Source(2, 7), "me", **optional)
    document = orjson.loads(example)
    path = data.draw(st.sampled_from(members_of(example)))
    *where, name = path
    kind = data.draw(st.sampled_from(["change", "remove", "add"]))
    if kind == "change":
        at(document, tuple(where))[name] = data.draw(ODD)
    elif kind == "remove":
        del at(document, tuple(where))[name]
    else:
        at(document, tuple(where))[data.draw(text)] = data.draw(ODD)
    # `json` writes what orjson cannot: NaN, integers past 64 bits, surrogates.
    changed = json.dumps(document).encode()

    with pytest.MonkeyPatch.context() as patch:
        short = decoded_by(decode_prediction, changed), decoded_by(decode_example, changed)
        patch.setattr(codec, "_has_usual_answers", lambda _: False)
        long = decoded_by(decode_prediction, changed), decoded_by(decode_example, changed)
    assert long == short


@given(predictions, st.data())
def test_bytes_that_are_no_json_are_refused_alike(
    prediction: Prediction, data: st.DataObject
) -> None:
    """A byte changed anywhere, a document cut short: the same record or refusal either way."""
    value = bytearray(encode_prediction(prediction))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] = data.draw(st.integers(0, 255))
    changed = bytes(value[: data.draw(st.sampled_from([len(value), place]))])

    with pytest.MonkeyPatch.context() as patch:
        short = decoded_by(decode_prediction, changed)
        patch.setattr(codec, "_has_usual_answers", lambda _: False)
        long = decoded_by(decode_prediction, changed)
    assert long == short


def test_predictions_are_written_as_they_have_always_been() -> None:
    """The wire format is a promise to consumers in any language: these very bytes."""
    prediction = Prediction(
        "e1", "s1", 5, Source(0, 3), "a@7", 6, 0.25, False, {"x": 1.0}, {"b": Shadow("b@7", None)}
    )
    value = encode_prediction(prediction)

    assert (
        b'{"event_id":"e1","key":"s1","ts":5,"source":{"partition":0,"offset":3},"model":"a@7",'
        b'"example":6,"prediction":0.25,"fallback":false,"features":{"x":1.0},'
        b'"shadows":{"b":{"model":"b@7","prediction":null}}}'
    ) == value
    assert value[:-1] + (
        b',"label":true,"label_ts":9,"label_source":{"partition":1,"offset":2}}'
    ) == encode_example(value, True, 9, Source(1, 2))


# --- what must not be forged ------------------------------------------------------------------

KEY = b"k" * 32


@pytest.fixture(scope="module")
def registry() -> bytes:
    """A decision as a worker wrote it."""
    with Driver(pipeline, key=KEY) as driver:
        driver.run()
        (record,) = driver.records("registry")
    assert record.value is not None
    return record.value


def test_a_signed_decision_reads_back_as_it_was(registry: bytes) -> None:
    """Whoever has the key reads the decision that was written."""
    decision = decode_decision(registry, KEY)

    assert ("bootstrap", "logistic@0") == (decision.kind, decision.serving.champion.model)
    assert registry == encode_decision(decision, KEY)


@pytest.mark.parametrize("value", [[], {}, 1e300, True, 1 << 60])
def test_who_has_no_key_is_given_no_other_thing_than_a_decision(
    registry: bytes, value: object
) -> None:
    """What anybody may have put there has the types of a decision, or is none."""
    members = orjson.loads(unseal(registry, KEY))
    champion = members["serving"]["champion"]
    wrong = [{**members, name: value} for name in members if type(value) is not type(members[name])]
    wrong += [
        {**members, "serving": {**members["serving"], "champion": {**champion, name: value}}}
        for name in champion
        if type(value) is not int
    ]

    assert decode_decision(registry, None) == decode_decision(registry, KEY)
    for each in wrong:
        if each.get("evidence") == {}:
            continue
        with pytest.raises(BadRecord):
            decode_decision(orjson.dumps(each), None)


@pytest.mark.parametrize("fallback", [None, 0.25, 3, {"a": 0.5, "b": 0.5}])
def test_a_serving_sets_fallback_reads_back_as_it_was(registry: bytes, fallback: Answer) -> None:
    """A number, a number per class, or none."""
    decision = decode_decision(registry, KEY)
    decision = replace(decision, serving=replace(decision.serving, fallback=fallback))

    assert decision == decode_decision(encode_decision(decision, KEY), KEY)


@pytest.mark.parametrize("fallback", [True, "0.5", [0.5], {"a": None}, {"a": {"b": 1.0}}])
def test_a_serving_sets_fallback_is_an_answer(registry: bytes, fallback: Any) -> None:
    """What no consumer could take for an answer is no decision, with a key and without one."""
    decision = decode_decision(registry, KEY)
    value = encode_decision(
        replace(decision, serving=replace(decision.serving, fallback=fallback)), KEY
    )
    for key in (KEY, None):
        with pytest.raises(BadRecord, match="fallback: expected a number"):
            decode_decision(value, key)


def test_decisions_and_commands_of_former_releases_are_read(registry: bytes) -> None:
    """What they did not write down is None, and nothing else of them is lost."""
    members = orjson.loads(unseal(registry, KEY))
    for name in ("log", "signed_by", "given_ms", "received_ms"):
        del members[name]
    assert "fallback" not in members["serving"]
    command = (
        b'{"command_id":"c","kind":"pause","ts":5,"operator":"local","actor":"a","reason":"r"}'
    )

    decision = decode_decision(seal(orjson.dumps(members), KEY), KEY)
    asked = decode_command(seal(command, KEY), Keyring(KEY))

    assert {**members, "serving": None} == {
        name: None if name == "serving" else value
        for name, value in asdict(decision).items()
        if name in members
    }
    assert (None,) * 5 == (
        decision.serving.fallback,
        decision.log,
        decision.signed_by,
        decision.given_ms,
        decision.received_ms,
    )
    assert Command("c", "pause", 5, "local", "a", "r") == asked


def test_a_decision_altered_in_any_byte_is_refused(registry: bytes) -> None:
    """No byte of a decision can be changed without the key."""
    for at in range(len(registry)):
        altered = registry[:at] + bytes([registry[at] ^ 1]) + registry[at + 1 :]
        with pytest.raises(BadRecord):
            decode_decision(altered, KEY)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"null", b'{"signature":"00"}'])
def test_what_is_not_signed_is_no_decision(value: bytes | None) -> None:
    """Without our signature nothing is believed, however it looks."""
    with pytest.raises(BadRecord):
        decode_decision(value, KEY)


def test_a_decision_signed_with_another_key_is_refused(registry: bytes) -> None:
    """Knowing the format is not enough."""
    forged = encode_decision(decode_decision(registry, KEY), b"other" * 8)

    with pytest.raises(BadRecord, match="signature"):
        decode_decision(forged, KEY)


# --- what a pipeline of ours can have said ------------------------------------------------------


def answering(prediction: Any, *, fallback: bool = False, **shadows: Any) -> Prediction:
    """A prediction with these answers, from one feature `x`."""
    return Prediction(
        event_id="e1",
        key="s1",
        ts=5,
        source=Source(0, 0),
        model="line@1",
        example=-1,
        prediction=prediction,
        fallback=fallback,
        features={"x": 1.0},
        shadows={slot: Shadow(f"{slot}@1", answer) for slot, answer in shadows.items()},
    )


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("binary", 0.0), ("binary", 1), ("multiclass", {"a": 1.0}), ("regression", -7.5)],
)
def test_answers_of_the_kind_of_task_pass(kind: str, answer: Any) -> None:
    """Served or a shadow's; a shadow may have none, and so may who served the fallback."""
    check_prediction(answering(answer, other=answer, silent=None), kind, frozenset({"x", "y"}))
    check_prediction(answering(None, fallback=True), kind, frozenset({"x"}))


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("binary", 1.5, "expected a probability, given float 1.5"),
        ("binary", -1, "expected a probability, given int -1"),
        ("binary", {"a": 1.0}, "expected the answer of a binary model, given dict of 1"),
        ("multiclass", 0.5, "expected the answer of a multiclass model, given float 0.5"),
        ("regression", {"a": 1.0}, "expected the answer of a regression model, given dict of 1"),
    ],
)
def test_an_answer_of_another_kind_of_task_is_refused_where_it_stands(
    kind: str, answer: Any, expected: str
) -> None:
    """As the served one and as a shadow's, each under its own path."""
    right: Any = {"a": 1.0} if kind == "multiclass" else 0.5
    for record, path in (
        (answering(answer), "$.prediction"),
        (answering(right, other=answer), "$.shadows.other.prediction"),
    ):
        with pytest.raises(BadRecord) as refused:
            check_prediction(record, kind, frozenset({"x"}))
        assert f"malformed at {path}: {expected}" == str(refused.value)


def test_a_feature_that_the_pipeline_has_not_is_refused_by_name() -> None:
    """Nothing is learned from what was never computed here."""
    with pytest.raises(BadRecord) as refused:
        check_prediction(answering(0.5), "binary", frozenset({"y"}))

    assert (
        "unknown_feature at $.features: expected features of this pipeline, given str 'x'"
        == str(refused.value)
    )


def test_no_answer_and_no_fallback_is_refused() -> None:
    """Somebody was served something."""
    with pytest.raises(BadRecord) as refused:
        check_prediction(answering(None), "binary", frozenset({"x"}))

    assert (
        "malformed at $.prediction: expected an answer, as no fallback was served, given null"
        == str(refused.value)
    )


# --- commands ---------------------------------------------------------------------------------

UNKNOWN = (
    "unknown_command at $.kind: expected one of promote, rollback, pause, resume, restart, batch, "
    "redrive, forget, apply, given "
)
COMMAND = b'"command_id":"c","ts":5,"actor":"a","reason":"r"'


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            b'"operator":"local","kind":"delete",' + COMMAND,
            UNKNOWN + "'delete'",
        ),
        (
            b'"operator":"local",' + COMMAND,
            UNKNOWN + "None",
        ),
        (
            b'"operator":"eve","kind":"pause",' + COMMAND,
            "unknown_operator at $.operator: no key is known for 'eve'",
        ),
        (
            b'"operator":"local","kind":"pause","kind":"resume",' + COMMAND,
            "repeated_member at $: expected each member once, given one twice",
        ),
    ],
)
def test_a_command_that_is_none_is_refused_though_it_is_signed(
    members: bytes, expected: str
) -> None:
    """Unknown kinds, unknown operators, and a member that two readers could take for two things."""
    with pytest.raises(BadRecord) as refused:
        decode_command(seal(b"{" + members + b"}", KEY), Keyring(KEY))

    assert expected == str(refused.value)


# --- dead letters -----------------------------------------------------------------------------


def test_a_dead_letter_holds_what_is_needed_to_find_and_mend_the_record() -> None:
    """Where it lay, who refused it, why, and its bytes."""
    record = Record("events", 2, 41, b"\xff", b"{", 9)
    output = dead_letter(record, "predict", BadRecord("not_json", "$", "expected JSON"))

    assert ("dead-letters", b"\xff") == (output.topic, output.key)
    assert {
        "topic": "events",
        "partition": 2,
        "offset": 41,
        "stage": "predict",
        "reason": "not_json",
        "path": "$",
        "message": "expected JSON",
        "key": "/w==",
        "value": "ew==",
        "length": 1,
        "sha256": "021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96",
    } == orjson.loads(output.value or b"")


def test_of_a_long_record_only_length_and_hash_are_kept() -> None:
    """Refusing large records does not fill the log with them."""
    value = b"x" * (256 * 1024 + 1)
    output = dead_letter(
        Record("events", 0, 0, None, value, 9), "predict", BadRecord("a", "$", "b")
    )

    letter = orjson.loads(output.value or b"")
    assert (None, len(value)) == (letter["value"], letter["length"])
    assert len(output.value or b"") < 1_000
