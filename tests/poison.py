"""A catalogue of poison: bad records of every kind, and what must become of each.

Tried on both shells (`test_poison.py` here and under `kafka/`), mixed into the shop's good traffic.
Each kind lies on its topic as a careless or hostile producer would leave it, and must become one
dead letter: of which stage, for which reason, at which path.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import (
    LABEL_BYTES_MAX,
    encode_command,
    encode_decision,
    encode_prediction,
)
from stream_ml.models import snapshot as snapshots
from stream_ml.models.pickles import compress
from stream_ml.records import (
    Command,
    Decision,
    ModelRef,
    Prediction,
    ServingSet,
    Source,
)
from tests.shop import EVENT, START_MS, shop, stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ml.sealing import Seals

THEIR_KEY = b"the key of somebody else"
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Poison:
    """A bad record: its kind in words, where it lies, and what must be said of it."""

    kind: str
    topic: str
    value: bytes | None
    stage: str
    reason: str
    path: str
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    body: bytes | None = None

    @property
    def expected(self) -> tuple[str, str, str, str, int, str]:
        """What its dead letter says."""
        value = self.body or self.value or b""
        return (
            self.topic,
            self.stage,
            self.reason,
            self.path,
            len(value),
            sha256(value).hexdigest(),
        )


def letters(records: Iterable[dict[str, Any]]) -> Counter[tuple[str, str, str, str, int, str]]:
    """Dead letters, as `Poison.expected` names them."""
    return Counter(
        (r["topic"], r["stage"], r["reason"], r["path"], r["length"], r["sha256"]) for r in records
    )


def _json(members: dict[str, Any]) -> bytes:
    # Python's own writer, unlike orjson, writes NaN and huge numbers.
    return json.dumps(members).encode()


def events(shop_key: str, now_ms: int, longest: int) -> list[Poison]:
    """Events that are none; `shop_key` is of a shop whose watermark is at least `START_MS`."""
    good = EVENT | {"shop": shop_key}

    def one(kind: str, value: bytes | None, reason: str, path: str = "$") -> Poison:
        return Poison(kind, "events", value, "predict", reason, path, shop_key.encode())

    def having(kind: str, reason: str, path: str, /, **changes: Any) -> Poison:
        return one(kind, _json(good | {"event_id": kind} | changes), reason, path)

    return [
        one("tombstone", None, "tombstone"),
        one("no bytes", b"", "empty"),
        one("no JSON", b'{"event_id": "cut', "not_json"),
        one("no object", b'["event_id", 1]', "not_an_object"),
        one("no UTF-8", b'{"event_id": "\xff\xfe"}', "not_utf8"),
        one("half a character", b'{"event_id": "\\ud800"}', "lone_surrogate"),
        one("nesting without a bottom", b'{"deep": ' + b"[" * 20_000, "too_deep"),
        one("a member twice", _json(good)[:-1] + b', "amount": 1.0}', "repeated_member"),
        one("a long record", _json(good | {"note": "x" * longest}), "too_large"),
        having("NaN", "not_finite", "$", amount=float("nan")),
        having("a number past a double", "out_of_range", "$", amount=10**400),
        having("a number past all measure", "out_of_range", "$.amount", amount=1e200),
        having("text for a number", "wrong_type", "$.amount", amount="2.5"),
        having("null", "null", "$.amount", amount=None),
        one(
            "no key",
            _json({name: value for name, value in good.items() if name != "shop"}),
            "missing_field",
            "$.shop",
        ),
        having("an endless key", "wrong_type", "$.shop", shop="x" * 100_000),
        having("no id", "wrong_type", "$.event_id", event_id=""),
        having("an unknown category", "unknown_category", "$.kind", kind="theft"),
        having("a long text", "too_long", "$.note", note="x" * 5_000),
        having("a time before time", "wrong_type", "$.ts", ts=-1),
        having("the far future", "from_the_future", "$.ts", ts=now_ms + DAY_MS),
        having("too late", "too_late", "$.ts", ts=START_MS - DAY_MS),
    ]


def repeated(event: dict[str, Any]) -> Poison:
    """An event that came before."""
    return Poison(
        "an id twice", "events", _json(event), "predict", "duplicate", "$.event_id",
        event["shop"].encode(),
    )  # fmt: skip


def labels(now_ms: int) -> list[Poison]:
    """Labels that are none, or of nothing."""

    def one(kind: str, value: bytes, reason: str, path: str) -> Poison:
        return Poison(f"label: {kind}", "labels", value, "join", reason, path, kind.encode())

    def having(kind: str, reason: str, path: str, /, **changes: Any) -> Poison:
        good = {"event_id": kind, "ts": START_MS, "label": True}
        return one(kind, _json(good | changes), reason, path)

    return [
        having("another type", "wrong_type", "$.label", label="yes"),
        one(
            "no label", _json({"event_id": "no label", "ts": START_MS}), "missing_field", "$.label"
        ),
        having("of an unknown event", "orphan", "$.event_id"),
        having("the far future", "from_the_future", "$.ts", ts=now_ms + DAY_MS),
        having("too long", "too_large", "$", source="x" * LABEL_BYTES_MAX),
    ]


def contradictions(event: dict[str, Any], other: dict[str, Any]) -> list[Poison]:
    """Labels of good events: one labelled before (`event`), one not labelled at all (`other`)."""

    def one(kind: str, event_id: str, ts: int, reason: str, path: str) -> Poison:
        value = _json({"event_id": event_id, "ts": ts, "label": True, "source": kind})
        return Poison(f"label: {kind}", "labels", value, "join", reason, path, event_id.encode())

    return [
        one("twice", event["event_id"], event["ts"] + 10_001, "duplicate_label", "$.event_id"),
        one("before", other["event_id"], other["ts"] - 5, "label_before_event", "$.ts"),
    ]


def late(event: dict[str, Any]) -> Poison:
    """A label past the horizon of an event that has none."""
    ts = event["ts"] + shop.horizon_ms + 1
    value = _json({"event_id": event["event_id"], "ts": ts, "label": True, "source": "late"})
    key = event["event_id"].encode()
    return Poison("label: late", "labels", value, "join", "late", "$.ts", key)


def unsealed() -> list[Poison]:
    """Of the right shape on topics that only stages write to, and by none of them."""
    return [
        replace(poison, kind=f"{poison.topic}: unsealed", reason="forged", path="$.seal")
        for poison in _of_stages()[:1] + _of_stages()[-1:]
    ]


def of_stages(seals: Seals) -> list[Poison]:
    """Valid JSON of the wrong shape on topics that only stages write to, under their own seal.

    What is said of them is said of what the seal holds.
    """
    return [
        replace(each, value=seals.records(each.topic).seal(each.value or b""), body=each.value)
        for each in _of_stages()
    ]


def _of_stages() -> list[Poison]:
    genuine = Prediction(
        "forged", "a", START_MS, Source(0, 0), "logistic@0", -1, 0.5, False, {"amount": 1.0}, {}
    )
    prediction = orjson.loads(encode_prediction(genuine))
    truth = {"label": True, "label_ts": START_MS, "label_source": {"partition": 0, "offset": 0}}

    def one(topic: str, kind: str, path: str, **changes: Any) -> Poison:
        good = prediction | (truth if topic == "examples" else {})
        value = _json(good | changes)
        stage = "evaluate" if topic == "examples" else "join"
        return Poison(f"{topic}: {kind}", topic, value, stage, "malformed", path, b"forged")

    return [
        one("predictions", "no features", "$.features", features=[1, 2]),
        one("predictions", "text for a number", "$.features.amount", features={"amount": "much"}),
        replace(
            one("predictions", "another pipeline's", "$.features", features={"height": 1.0}),
            reason="unknown_feature",
        ),
        one("predictions", "no probability", "$.prediction", prediction=2.0),
        one("predictions", "no model", "$.model", model="logistic"),
        one("predictions", "no such partition", "$.source.partition",
            source={"partition": 99, "offset": 0}),
        one("examples", "no prediction", "$.prediction", prediction=[]),
        one("examples", "a truth before its event", "$.label_ts", label_ts=START_MS - 1),
        one("examples", "who never answered", "$.shadows",
            shadows={"mallory": {"model": "mallory@1", "prediction": 0.5}}),
    ]  # fmt: skip


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def forgeries(model: bytes, decision: bytes, canary: str) -> list[Poison]:
    """Snapshots, decisions and commands of who lacks the key.

    Args:
        model: a genuine record of `models`.
        decision: a genuine record of the registry.
        canary: a file that is there once a forged payload has been unpickled.
    """
    import pickle  # noqa: PLC0415 - what is here shall not look like something to copy

    genuine = snapshots.decode(model)
    altered = replace(genuine, version=10**6, payload=compress(pickle.dumps(Canary(canary))))
    unsigned = replace(altered, signature=None)
    champion = ModelRef(genuine.model, genuine.digest, 0)
    decided = Decision(
        10**6, "replaced", START_MS, "mallory", "mine", ServingSet(champion), {}, "0" * 64
    )
    command = Command("forged", "pause", START_MS, "local", "mallory", "no reason")
    mallory = replace(command, operator="mallory")
    bare = orjson.dumps(
        {"command_id": "c", "kind": "pause", "ts": 1, "operator": "local", "actor": "m"}
    )

    def one(topic: str, kind: str, value: bytes, reason: str, path: str = "$") -> Poison:
        return Poison(f"{topic}: {kind}", topic, value, "evaluate", reason, path, b"forged")

    return [
        one("models", "altered", altered.encode(), "snapshot_signature"),
        one("models", "unsigned", unsigned.encode(), "snapshot_unsigned"),
        one("models", "sent again", model, "repeated", "$.version"),
        one("models", "no snapshot", b"{}", "wrong_type", "$.examples"),
        one("registry", "by another key", encode_decision(decided, THEIR_KEY), "signature",
            "$.signature"),
        one("registry", "unsigned", b'{"number": 1000000}', "unsigned", "$.signature"),
        one("registry", "sent again", decision, "repeated", "$.number"),
        one("commands", "unsigned", bare, "unsigned", "$.signature"),
        one("commands", "by another key", encode_command(command, THEIR_KEY), "signature",
            "$.signature"),
        one("commands", "of nobody", encode_command(mallory, THEIR_KEY), "unknown_operator",
            "$.operator"),
    ]  # fmt: skip


def wandering(key: str, partition: int, topic_id: str) -> Poison:
    """An event in another partition than its key's, that says it was forwarded before."""
    return Poison(
        "a stray that was forwarded", "events", _json(EVENT | {"event_id": "stray", "shop": key}),
        "predict", "stray", "$.shop", key.encode(),
        (("stream-ml-origin", b"0:" + b"9" * 6_000 + b":" + topic_id.encode()),), partition,
    )  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """Good events and labels, in two feeds, and the poison that is mixed into them.

    `last` is what is published when all else is done: it moves all watermarks past all else.
    """

    events: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    mixed_events: list[dict[str, Any] | Poison]
    mixed_labels: list[dict[str, Any] | Poison]
    last: list[dict[str, Any]]

    @property
    def poisons(self) -> list[Poison]:
        """All poison that is in it."""
        return [each for each in self.mixed_events + self.mixed_labels if isinstance(each, Poison)]


def traffic(
    now_ms: int, keys: Sequence[str], longest: int = 10_000_000, count: int = 400
) -> Traffic:
    """The shop's stream over shops of these names, with about a bad record to ten good ones."""
    good_events, good_labels = stream(seed=7, count=count)
    for event in good_events:
        event["shop"] = keys["ab".index(event["shop"])]
    by_id = {event["event_id"]: event for event in good_events}
    twice, early, tardy = (good_labels[n] for n in (40, 60, 80))
    good_labels = [label for label in good_labels if label not in (early, tardy)]
    again, before = contradictions(by_id[twice["event_id"]], by_id[early["event_id"]])
    mixed_labels: list[dict[str, Any] | Poison] = list(good_labels)
    mixed_labels.insert(mixed_labels.index(twice) + 1, again)
    mixed_events: list[dict[str, Any] | Poison] = list(good_events)
    mixed_events.insert(151, repeated(good_events[150]))
    for number, poison in enumerate(events(keys[0], now_ms, longest)):
        mixed_events.insert(30 + number * 12, poison)
    for number, poison in enumerate(labels(now_ms)):
        mixed_labels.insert(20 + number * 20, poison)
    for poison in (before, late(by_id[tardy["event_id"]])):
        ts = orjson.loads(poison.value or b"")["ts"]
        place = next(n for n, each in enumerate(mixed_labels) if _later(each, ts))
        mixed_labels.insert(place, poison)
    # Enough of each shop for each partition of predictions to hear of it.
    last = [
        EVENT | {"event_id": f"last {n} of {key}", "ts": START_MS + 10**6, "shop": key}
        for key in keys
        for n in range(16)
    ]
    return Traffic(good_events, good_labels, mixed_events, mixed_labels, last)


def _later(label: dict[str, Any] | Poison, ts: int) -> bool:
    return not isinstance(label, Poison) and label["ts"] >= ts


def all_different(poisons: Sequence[Poison]) -> bool:
    """Whether no two kinds would be told alike."""
    return len({poison.expected[:-2] for poison in poisons}) == len(poisons)
