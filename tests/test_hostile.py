"""Nothing that a client puts on a topic can stop a worker, or make it run code."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import random
import zlib
from base64 import b64decode
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, naive_bayes, tree

import stream_ml as sml
from stream_ml.codec import decode_decision, encode_decision
from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.models import snapshot as snapshots
from stream_ml.models.pickles import compress
from stream_ml.records import Output, Record
from stream_ml.schema import NUMBER_MAX
from stream_ml.sealing import Seals, checkpoint_seal
from stream_ml.shell.log.manifest import NAME, OWNER, TOPIC, Manifest
from stream_ml.signing import Keyring, Operator, seal
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.testing import Driver
from tests.hostile import anything, is_identifier, is_number, is_time
from tests.shop import EVENT, KEY, LABEL, declare, shop, stream, written
from tests.straight import append_straight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ml.models.snapshot import Snapshot
    from stream_ml.records import Event

# 10,000 cases in all: events and labels.
CASES = 5_000


def said(driver: Driver) -> list[dict[str, Any]]:
    """The predictions, but for where their events lie: a bad record takes up a place too."""
    predictions = driver.read("predictions")
    for prediction in predictions:
        del prediction["source"]
        prediction.pop("seal", None)  # which is bound to the log
        for shadow in prediction["shadows"].values():
            shadow.pop("offset", None)  # so does a bad snapshot
    return predictions


def reasons(driver: Driver) -> list[tuple[str, str]]:
    """Who refused what in the driver's log, and why."""
    return [(letter["stage"], letter["reason"]) for letter in driver.read("dead-letters")]


# --- bytes ------------------------------------------------------------------------------------


def decoded(codec: Any, value: bytes | None) -> Any:
    """The record, or why it is none."""
    try:
        return codec.decode(value)
    except BadRecord as refusal:
        return refusal


def check_refusal(refusal: BadRecord) -> None:
    """It says why, where, and not too much."""
    assert refusal.reason
    assert refusal.path.startswith("$")
    assert len(refusal.message) < 500


def check_event(value: bytes | None) -> None:
    """Decode it, and look at what came out with other eyes than the codec's."""
    event = decoded(shop.event_codec, value)
    if isinstance(event, BadRecord):
        check_refusal(event)
        return
    assert is_identifier(event.event_id)
    assert is_identifier(event.key)
    assert is_time(event.ts)
    assert ["kind", "amount", "note"] == list(event.fields)
    assert event.fields["kind"] in {"visit", "order"}
    assert is_number(event.fields["amount"])
    assert event.fields["note"] is None or len(event.fields["note"]) <= 4096
    orjson.dumps(event)


@settings(max_examples=CASES, deadline=None, database=None)
@given(anything(EVENT))
def test_any_bytes_as_an_event_give_a_valid_one_or_one_refusal(value: bytes | None) -> None:
    """What comes out is of the declared types to the last field, or says why not and where."""
    check_event(value)


def test_a_lenient_parser_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check on any bytes notices a parser that is not strict."""
    deep = b'{"deep": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    check_event(deep)
    monkeypatch.setattr("stream_ml.codec.orjson.loads", json.loads)

    with pytest.raises(RecursionError):
        check_event(deep)


@settings(max_examples=CASES, deadline=None, database=None)
@given(anything(LABEL))
def test_any_bytes_as_a_label_give_a_valid_one_or_one_refusal(value: bytes | None) -> None:
    """A label is true or false, of something, at some time; nothing else is one."""
    label = decoded(shop.label_codec, value)
    if isinstance(label, BadRecord):
        check_refusal(label)
        return

    assert is_identifier(label.event_id)
    assert is_time(label.ts)
    assert type(label.label) is bool
    assert label.source is None or type(label.source) is str


def mixed(rand: random.Random, good: Sequence[Any], bad: Sequence[Any]) -> list[Any]:
    """Both, each in its own order."""
    places = sorted(rand.randrange(len(good) + 1) for _ in bad)
    out = list(good)
    for place, value in reversed(list(zip(places, bad, strict=True))):
        out.insert(place, value)
    return out


def refused(codec: Any, values: list[bytes | None]) -> list[tuple[bytes | None, BadRecord]]:
    """Those of the values that are no records, and why not."""
    results = [(value, decoded(codec, value)) for value in values]
    return [(value, result) for value, result in results if isinstance(result, BadRecord)]


def publish(driver: Driver, topic: str, values: list[Any]) -> list[Record]:
    """Append values, tombstones among them, each keyed as it says itself."""
    out = []
    for value in values:
        if value is None:
            out += append_straight(driver.log, [Output(topic, b"a", None)])
        else:
            out += driver.publish(topic, [value])
    return out


@settings(max_examples=15, deadline=None, database=None)
@given(
    st.lists(anything(EVENT), max_size=60),
    st.lists(anything(LABEL), max_size=60),
    st.integers(0, 2**32),
    st.sampled_from([1, 3]),
)
def test_each_bad_record_becomes_one_dead_letter_and_changes_nothing(
    events: list[bytes | None], labels: list[bytes | None], seed: int, partitions: int
) -> None:
    """Dead letters name each bad record's place, reason and path; predictions are as without."""
    rand = random.Random(seed)
    good_events, good_labels = stream()
    bad_events, bad_labels = refused(shop.event_codec, events), refused(shop.label_codec, labels)
    with Driver(shop, partitions=partitions) as undisturbed:
        undisturbed.feed(good_events, good_labels)
        expected = said(undisturbed)
    with Driver(shop, partitions=partitions) as driver:
        why = {id(value): refusal for value, refusal in bad_events + bad_labels}
        wanted = []
        for topic, good, bad in (
            ("labels", good_labels, bad_labels),
            ("events", good_events, bad_events),
        ):
            values = mixed(rand, good, [value for value, _ in bad])
            for value, record in zip(values, publish(driver, topic, values), strict=True):
                if not isinstance(value, dict):
                    refusal = why[id(value)]
                    place = (topic, record.partition, record.offset)
                    wanted.append((*place, refusal.reason, refusal.path))
        driver.run()

        assert expected == said(driver)
        members = ("topic", "partition", "offset", "reason", "path")
        assert sorted(wanted) == sorted(
            tuple(letter[member] for member in members) for letter in driver.read("dead-letters")
        )


def disturbed(driver: Driver) -> tuple[list[Any], int]:
    """Feed a stream in which every tenth event is followed by three that cannot be now."""
    events, labels = stream()
    mixture: list[Any] = []
    for number, event in enumerate(events):
        mixture.append(event)
        if number % 10 == 9:
            mixture += [
                event | {"amount": 1e9},
                event | {"event_id": f"late{number}", "ts": event["ts"] - 20_001, "amount": 1e9},
                event | {"event_id": f"early{number}", "ts": 2**43, "amount": 1e9},
            ]
    driver.feed(mixture, labels)
    return said(driver), len(events) // 10


def undisturbed() -> list[Any]:
    """The predictions of the stream as it is."""
    with Driver(shop) as driver:
        driver.feed(*stream())
        return said(driver)


def test_events_that_cannot_be_now_change_nothing() -> None:
    """Duplicates, events too late or from the future: one dead letter each, and no other trace."""
    with Driver(shop) as driver:
        predictions, times = disturbed(driver)

        assert undisturbed() == predictions
        assert {
            ("predict", "duplicate"): times,
            ("predict", "too_late"): times,
            ("predict", "from_the_future"): times,
        } == Counter(reasons(driver))


def test_a_refused_event_that_leaves_a_trace_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check notices a predict stage that puts an event that it refuses into its windows."""
    expected = undisturbed()
    check = Predict._check

    def careless(self: Predict, event: Event) -> None:
        self._features.insert(event)
        check(self, event)

    monkeypatch.setattr(Predict, "_check", careless)
    with Driver(shop) as driver:
        assert expected != disturbed(driver)[0]


# --- forgeries --------------------------------------------------------------------------------


SUNG: list[str] = []


def sing(word: str) -> None:
    """What a forged payload would have a worker call."""
    SUNG.append(word)


class Canary:
    """Sings when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sing, ("unpickled",)


def forge(snapshot: Snapshot, *, payload: bytes | None = None, key: bytes | None = None) -> bytes:
    """The snapshot with another payload, under its old signature or that of `key`."""
    forged = snapshot if payload is None else replace(snapshot, payload=payload)
    if key is not None:
        body = replace(forged, signature=None).encode()
        forged = replace(forged, signature=hmac.new(key, body, hashlib.sha256).hexdigest())
    return forged.encode()


CANARY = compress(pickle.dumps(Canary()))
FORGERIES: dict[str, tuple[str, Callable[[Snapshot], bytes]]] = {
    "altered": ("snapshot_signature", lambda s: forge(s, payload=CANARY)),
    "signed by another": ("snapshot_signature", lambda s: forge(s, payload=CANARY, key=b"theirs")),
    "unsigned": (
        "snapshot_unsigned",
        lambda s: replace(s, payload=CANARY, signature=None).encode(),
    ),
    "newer": ("snapshot_signature", lambda s: replace(s, version=10**6).encode()),
    "repeated": ("repeated", lambda s: s.encode()),
    "cut short": ("not_json", lambda s: s.encode()[:-2]),
    "of no line": (
        "unknown_line",
        lambda s: forge(replace(s, name="mallory"), key=KEY),
    ),
    "empty": ("not_json", lambda _: b""),
}


def halves() -> Iterator[tuple[list[Any], list[Any]]]:
    """The stream in two feeds."""
    events, labels = stream(count=200)
    border = events[100]["ts"]
    yield events[:100], [label for label in labels if label["ts"] < border]
    yield events[100:], [label for label in labels if label["ts"] >= border]


def fed_twice(between: Callable[[Driver], None]) -> tuple[list[Any], list[Any], list[str]]:
    """Predictions, refusals, and who was champion, of a run in whose middle something happens."""
    with Driver(shop, key=KEY) as driver:
        first, second = halves()
        driver.feed(*first)
        driver.crash()
        between(driver)
        driver.feed(*second)
        decisions = [decode_decision(r.value, KEY) for r in driver.records("registry")]
        champions = [decision.serving.champion.model for decision in decisions]
        return said(driver), reasons(driver), champions


@pytest.mark.parametrize(("reason", "forgery"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_snapshot_is_refused_before_it_is_unpickled(
    monkeypatch: pytest.MonkeyPatch, reason: str, forgery: Callable[[Snapshot], bytes]
) -> None:
    """It becomes one dead letter, no code of its runs, and what serves goes on serving."""
    expected, none, champions = fed_twice(lambda _: None)
    unpacked: list[bytes] = []
    decompress = snapshots.decompress
    monkeypatch.setattr(
        snapshots, "decompress", lambda data: (unpacked.append(data), decompress(data))[1]
    )

    def attack(driver: Driver) -> None:
        newest = next(
            snapshots.decode(record.value)
            for record in reversed(driver.records("models"))
            if record.value is not None and record.key is not None and b"logistic" in record.key
        )
        append_straight(driver.log, [Output("models", newest.model.encode(), forgery(newest))])

    predictions, refusals, chosen = fed_twice(attack)

    assert [] == none
    assert [("evaluate", reason)] == refusals
    assert expected == predictions
    assert champions == chosen
    assert [] == SUNG
    assert CANARY not in unpacked
    assert unpacked, "the snapshots that serve were never opened"


def test_the_canary_would_sing() -> None:
    """What the forgeries carry does run code when it is unpickled carelessly."""
    pickle.loads(zlib.decompress(CANARY))

    assert ["unpickled"] == SUNG
    SUNG.clear()


def test_a_signed_snapshot_with_a_class_off_the_list_does_not_serve() -> None:
    """Even with our key nothing is unpickled but what learns: none is renewed with it."""
    off_list = compress(pickle.dumps(Fraction(1, 3)))
    output_of = Learn._output

    def leaked(self: Learn, draft: Snapshot) -> Output:
        output = output_of(self, draft)
        if draft.name != "logistic" or draft.version == 0:
            return output
        value = forge(output.memo, payload=off_list, key=KEY)
        return Output("models", output.key, value, snapshots.decode(value))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learn, "_output", leaked)
        predictions, _, champions = fed_twice(lambda _: None)

    assert {"logistic@0"} == set(champions)
    assert {"logistic@0"} == {each["model"] for each in predictions}
    with Driver(shop, key=KEY) as driver:
        driver.run()
        (genuine, *_) = [snapshots.decode(r.value or b"") for r in driver.records("models")]
    leak = snapshots.decode(forge(genuine, payload=off_list, key=KEY))
    recipe = shop.recipes[leak.name]
    with pytest.raises(SnapshotRefused) as refused:
        snapshots.open_snapshot(leak, recipe, shop.target, KEY, shop.feature_set.hash)
    assert "class_not_allowed" == refused.value.reason


def test_a_forged_registry_record_is_passed_over() -> None:
    """Who lacks the key cannot say what serves, not even by repeating an old decision."""
    expected, _, champions = fed_twice(lambda _: None)

    def attack(driver: Driver) -> None:
        first, *_, last = driver.records("registry")
        oldest = decode_decision(first.value, KEY)
        for value in (
            encode_decision(oldest, b"theirs"),
            (last.value or b"").replace(b"logistic@", b"bayes@"),
            b"{}",
            b"\xff",
            None,
        ):
            append_straight(driver.log, [Output("registry", b"shop", value)])

    with Driver(shop, key=KEY) as driver:
        first, second = halves()
        driver.feed(*first)
        driver.crash()
        attack(driver)
        driver.feed(*second)

        assert expected == said(driver)
        assert (
            champions[-1] == said(driver)[-1]["model"] or champions[-2] == said(driver)[-1]["model"]
        )


@pytest.mark.parametrize("forged", [b"SML1" + bytes(32) + CANARY, b"", b"x" * 100])
def test_a_forged_checkpoint_is_made_again_and_never_unpickled(forged: bytes) -> None:
    """Learners that somebody else wrote down are not taken up; they learn again, and it is told."""
    expected, none, champions = fed_twice(lambda _: None)

    def attack(driver: Driver) -> None:
        with driver.log.session() as session:
            session.commit({}, [("learn-0", "llogistic", forged)])

    predictions, refusals, chosen = fed_twice(attack)

    assert [] == none == refusals
    assert (expected, champions) == (predictions, chosen)
    assert [] == SUNG


@pytest.mark.parametrize("forged", [b"SML1" + bytes(32) + CANARY, b"", b"x" * 100])
def test_a_checkpoint_under_our_seal_that_is_none_stops_the_start(forged: bytes) -> None:
    """Whoever could seal it had the key; even then nothing is unpickled, and the error says so."""
    with Driver(shop, key=KEY) as driver:
        driver.feed(*stream())
        driver.crash()
        seals = Seals(KEY, shop.name, driver.log.identity)
        state = seals.state("learn-0")
        manifest = Manifest(driver.log.piece(OWNER, NAME), seals.records(TOPIC))
        marker = state.restore(driver.log.state("learn-0")).marker
        assert marker is not None
        entries = state.write(
            [("llogistic", forged)],
            marker.positions,
            topics=marker.topics,
            declaration=marker.declaration,
            manifest=True,
        )
        pieces = [("learn-0", name.decode(), value) for name, value, _ in entries]
        seal = checkpoint_seal({name: value or b"" for _, name, value in pieces})
        manifest.note("learn-0", state.number, seal, marker.positions)
        assert manifest.own_writes is not None
        with driver.log.session() as session:
            session.commit(
                {}, [*pieces, (OWNER, NAME, manifest.encode_sealed(manifest.own_writes))]
            )

        with pytest.raises(SnapshotRefused):
            driver.run()
        assert [] == SUNG


# --- code that is called ----------------------------------------------------------------------


def touchy(amount: float) -> float:
    """A user's function that cannot take everything."""
    return 1 / (amount - 13.0)


def leaves(amount: float) -> float:
    """One that would end the process."""
    if amount == 13.0:
        raise SystemExit(3)
    return amount


@pytest.mark.parametrize("where", ["feature", "window"])
@pytest.mark.parametrize(
    ("function", "raised"), [(touchy, "ZeroDivisionError"), (leaves, "SystemExit(3)")]
)
def test_a_function_that_raises_makes_the_event_a_dead_letter(
    where: str, function: Callable[[float], float], raised: str
) -> None:
    """The event is refused with what was raised, changes nothing, and the others go on."""
    feature = sml.function(function, "amount")
    features = [feature if where == "feature" else sml.window("1m").max(feature, fill=0.0)]
    pipeline = declare(features=[*shop.features, *features])
    events, _ = stream()
    bad = [
        events[20] | {"event_id": "bad0", "amount": 13.0},
        events[20] | {"event_id": "bad1", "amount": 13.0, "ts": events[20]["ts"] + 250_000},
        events[20] | {"event_id": "bad2", "amount": 13.0, "ts": events[20]["ts"] - 9_000},
    ]
    with Driver(pipeline) as quiet, Driver(pipeline) as driver:
        quiet.feed(events)
        driver.feed([*events[:21], *bad, *events[21:]])

        assert said(quiet) == said(driver)
        assert [
            ("bad0", "function_failed", "$.amount"),
            ("bad1", "function_failed", "$.amount"),
            ("bad2", "function_failed", "$.amount"),
        ] == [
            (orjson.loads(b64decode(letter["value"]))["event_id"], letter["reason"], letter["path"])
            for letter in driver.read("dead-letters")
        ]
        assert raised in driver.read("dead-letters")[0]["message"]


def failing(method: str, after: int) -> Callable[..., Any]:
    """A method of GaussianNB that raises from its n-th call on."""
    calls = 0
    original = getattr(naive_bayes.GaussianNB, method)

    def call(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise ZeroDivisionError("planted")
        return original(self, *arguments)

    return call


@pytest.mark.parametrize("after", [0, 30, 100])
@pytest.mark.parametrize("champion", ["logistic", "bayes"])
def test_a_model_that_raises_when_it_learns_is_quarantined(
    monkeypatch: pytest.MonkeyPatch, champion: str, after: int
) -> None:
    """One alert; the other line learns on; every event still gets its prediction."""
    pipeline = declare(champion=champion)
    events, labels = stream()
    monkeypatch.setattr(naive_bayes.GaussianNB, "learn_one", failing("learn_one", after))
    asking = [event for event in events if event["kind"] == "visit"]
    with Driver(pipeline) as driver:
        driver.feed(events, labels)

        assert len(asking) == len(driver.read("predictions"))
        quarantines = [a for a in driver.read("alerts") if a["kind"] == "line_quarantined"]
        if after < len(driver.read("examples")):
            assert [{"line": "bayes", "examples": after + 1}] == [a["details"] for a in quarantines]
            assert "planted" in quarantines[0]["message"]
        else:
            assert [] == quarantines
        versions = {
            model["version"] for model in driver.read("models") if model["model"] == "logistic"
        }
        assert {0, 20, 40} <= versions


@pytest.mark.parametrize("champion", ["logistic", "bayes"])
def test_a_model_that_raises_when_asked_has_no_answer(
    monkeypatch: pytest.MonkeyPatch, champion: str
) -> None:
    """A champion leaves the word to the fallback, a challenger has null; coverage counts both."""
    pipeline = declare(champion=champion)
    events, labels = stream()
    with Driver(pipeline) as driver:
        driver.run()  # they start in good health
        monkeypatch.setattr(
            naive_bayes.GaussianNB, "predict_proba_one", failing("predict_proba_one", 0)
        )
        driver.feed(events, labels)
        predictions = driver.read("predictions")

        assert len([event for event in events if event["kind"] == "visit"]) == len(predictions)
        if champion == "bayes":
            assert {(0.5, True)} == {(p["prediction"], p["fallback"]) for p in predictions}
        else:
            assert {False} == {p["fallback"] for p in predictions}
            driver.runner.commit(checkpoint=True)
            answers = [answer["shadows"]["bayes"] for answer in driver.read("answers")]
            assert {None} == {answer["prediction"] for answer in answers}
        quarantines = [a for a in driver.read("alerts") if a["kind"] == "line_quarantined"]
        assert ["bayes"] == [alert["details"]["line"] for alert in quarantines]


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_largest_numbers_stop_nobody(task: str) -> None:
    """Amounts and labels as large as any taken: each event is answered, no line gives up."""
    largest = NUMBER_MAX
    window = sml.window("1m")
    features = [
        sml.field("amount"),
        window.sum("amount"),
        window.variance("amount"),
        window.decayed_mean("amount", half_life="10s"),
        sml.difference("amount", window.sum("amount")),
        sml.ratio("amount", window.mean("amount")),
    ]
    changes: dict[str, Any] = {"features": features, "predict": None}
    if task == "regression":
        models = {"logistic": linear_model.LinearRegression(), "knn": tree.HoeffdingTreeRegressor()}
        changes |= {"label": sml.Label(float, horizon="40s"), "models": models}
        # What learns from such labels diverges, which is refused by right elsewhere.
        changes |= {"promotion": replace(shop.promotion, divergence=1e12)}
    events, _ = stream(count=80)
    signs = [1.0, -1.0, 1e-300]
    labels = []
    for number, event in enumerate(events):
        event["amount"] = largest * signs[number % 3]
        label = largest * signs[number % 3] if task == "regression" else number % 3 == 0
        labels.append({"event_id": event["event_id"], "ts": event["ts"] + 1_000, "label": label})
    with Driver(declare(**changes)) as driver:
        driver.feed(events, labels)

        assert (80, 80) == (len(driver.read("predictions")), len(driver.read("examples")))
        assert [] == reasons(driver)
        assert [] == driver.read("alerts")
        for prediction in driver.read("predictions"):
            assert None not in prediction["features"].values()
            assert prediction["prediction"] is not None


# --- commands ---------------------------------------------------------------------------------

COMMAND: dict[str, Any] = {
    "command_id": "c1",
    "kind": "pause",
    "ts": 5,
    "operator": "ada",
    "actor": "ada",
    "reason": "a look around",
    "model": None,
    "expect": "logistic",
}
KEYRING = Keyring(KEY, {"ada": Operator(b"the key of ada", "operator")})


@settings(max_examples=500, deadline=None, database=None)
@given(anything(COMMAND), st.booleans())
def test_any_bytes_as_a_command_give_one_answer_or_one_dead_letter(
    value: bytes | None, signed: bool
) -> None:
    """Signed by an operator or not, whatever is in it: it is refused, or answered."""
    if signed and value is not None:
        value = seal(value, b"the key of ada")
    evaluate = Evaluate(shop, KEYRING)
    evaluate.apply(written(Learn(shop, KEY).start(), "models"))

    outputs = evaluate.apply([Record("commands", 0, 0, None, value, 2**42)])

    assert [["dead-letters"], ["registry"]].count([output.topic for output in outputs]) == 1
    if not signed:
        assert ["dead-letters"] == [output.topic for output in outputs]
