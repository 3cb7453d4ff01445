"""The judge of chaos runs passes a clean log, and finds each fault that is planted in one."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest

from chaos import parameters
from chaos.forger import CHANGELOGS, FORGERY_HEADER, SEALED_TOPICS, SIGNED_TOPICS, Forger, Genuine
from chaos.judge import Verdict, judge
from chaos.reader import Gaps
from chaos.run import flat
from chaos.topics import OUTPUTS, Raw, Topics
from chaos.traffic import Traffic, partition_of
from chaos.world import world
from stream_ml.errors import BadRecord
from stream_ml.sealing import Seals
from stream_ml.testing import Driver

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = bytes.fromhex(parameters.KEY)
NOW_MS = 2**41
PARTITIONS = 2


@functools.cache
def _clean() -> Topics:
    """What an uninterrupted run leaves, on the embedded log."""
    driver = Driver(world, partitions=PARTITIONS, key=KEY, now_ms=NOW_MS)
    sent = list(Traffic(seed=1, seconds=2.0, rate=1_000, partitions=PARTITIONS))
    values = {
        topic: [each.value for each in sent if each.topic == topic]
        for topic in ("events", "labels")
    }
    driver.feed(values["events"], values["labels"])
    topics: Topics = {}
    for topic in ("events", "labels", *OUTPUTS):
        topics[topic] = [[] for _ in range(driver.log.partitions[topic])]
        for each in driver.records(topic):
            raw = Raw(each.partition, each.offset, each.key, each.value, each.append_ms)
            topics[topic][each.partition].append(raw)
    driver.close()
    return topics


def topics() -> Topics:
    """A copy of a clean run to do harm to."""
    return {
        topic: [[replace(record) for record in records] for records in partitions]
        for topic, partitions in _clean().items()
    }


def judged(raw: Topics) -> Verdict:
    """The judgement, with a text that can be printed."""
    verdict = judge(raw, world.feature_set.hash, KEY)
    assert verdict.text()
    return verdict


def failed(raw: Topics) -> set[str]:
    """The names of the checks that fail."""
    return {name for name, failures in judged(raw).failures.items() if failures}


def test_a_clean_run_is_clean_and_holds_what_is_to_be_judged() -> None:
    """An uninterrupted run passes every check, and has predictions, examples and switches."""
    verdict = judged(topics())

    assert verdict.clean, verdict.text()
    assert verdict.figures["predictions"] > 1_000
    assert verdict.figures["examples"] > 1_000
    assert len(_clean()["registry"][0]) > 2
    assert {"too_late", "duplicate", "orphan", "late", "not_json"} <= set(
        verdict.figures["dead letters"]
    )


def _lose(topic: str) -> Callable[[Topics], None]:
    def lose(raw: Topics) -> None:
        del raw[topic][-1][len(raw[topic][-1]) // 2]

    return lose


def _double(topic: str) -> Callable[[Topics], None]:
    def double(raw: Topics) -> None:
        records = raw[topic][-1]
        records.append(replace(records[len(records) // 2], offset=records[-1].offset + 1))

    return double


def _alter(topic: str, old: bytes, new: bytes) -> Callable[[Topics], None]:
    def alter(raw: Topics) -> None:
        for record in raw[topic][-1]:
            if old in (record.value or b""):
                record.value = (record.value or b"").replace(old, new, 1)
                return
        raise AssertionError(f"{old!r} is nowhere in {topic}")

    return alter


def _round_a_feature(raw: Topics) -> None:
    """As a window that was computed again, instead of restored, might have it."""
    for record in raw["predictions"][0]:
        head, mark, tail = (record.value or b"").partition(b'"mean(amount) 3m":')
        number, comma, rest = tail.partition(b",")
        if mark and len(number) > 12:
            last = b"3" if number[-1:] == b"2" else b"2"
            record.value = head + mark + number[:-1] + last + comma + rest
            return
    raise AssertionError("no mean has that many digits")


def _go_back(raw: Topics) -> None:
    """The last prediction of a partition of events is of the models that served first."""
    of_first = [r for p in raw["predictions"] for r in p if b'"source":{"partition":0,' in r.value]  # type: ignore[operator]  # a prediction has a value
    of_first.sort(key=lambda r: int((r.value or b"").split(b'"offset":')[1].split(b"}")[0]))
    early, late = of_first[0], of_first[-1]
    for mark in (b'"model":', b'"shadows":'):
        _, _, tail = (early.value or b"").partition(mark)
        head, _, _ = (late.value or b"").partition(mark)
        end = b',"example"' if mark == b'"model":' else None
        rest = b"" if end is None else end + (late.value or b"").partition(end)[2]
        late.value = head + mark + (tail if end is None else tail.partition(end)[0]) + rest


def _swap_examples(raw: Topics) -> None:
    records = raw["examples"][0]
    first, second = records[100], records[101]
    first.value, second.value = second.value, first.value


def _stray(raw: Topics) -> None:
    shop = next(s for s in ("shop 0", "shop 1", "shop 2") if partition_of(s.encode(), 2) == 1)
    value = b'{"event_id":"s","ts":1,"shop":"%s","kind":"order","city":"oslo"}' % shop.encode()
    records = raw["events"][0]
    records.append(Raw(0, records[-1].offset + 1, shop.encode(), value, NOW_MS))


def _alarm(*states: str) -> Callable[[Topics], None]:
    """An alert that changes so, as nobody who lives through it would tell it."""

    def alarm(raw: Topics) -> None:
        for state in states:
            value = orjson.dumps(
                {
                    "kind": "poison_rate",
                    "stage": "join",
                    "partition": 1,
                    "subject": "labels/planted",
                    "state": state,
                    "details": {},
                }
            )
            raw["alerts"][0].append(Raw(0, len(raw["alerts"][0]), b"poison_rate", value, NOW_MS))

    return alarm


@pytest.mark.parametrize(
    ("harm", "check"),
    [
        (_alarm("open", "resolved", "open", "open"), "each change of an alert told once"),
        (_alarm("open", "resolved", "resolved"), "each change of an alert told once"),
        (_lose("predictions"), "one prediction per valid predicting event"),
        (_double("predictions"), "one prediction per valid predicting event"),
        (_lose("events"), "one prediction per valid predicting event"),
        (_round_a_feature, "features byte for byte"),
        (
            _alter("predictions", b'"count 1m by city":1.0', b'"count 1m by city":2.0'),
            "features byte for byte",
        ),
        (
            _alter("predictions", b'"prediction":0.', b'"prediction":0.0'),
            "each prediction its model's answer",
        ),
        (
            _alter("predictions", b'"example":-1', b'"example":3'),
            "each prediction its model's answer",
        ),
        (_go_back, "versions never go back"),
        (_alter("predictions", b"adagrad@1000", b"adagrad@500"), "versions never go back"),
        (_double("examples"), "each label joined once"),
        (_lose("examples"), "each label joined once"),
        (_alter("examples", b'"label":true', b'"label":false'), "each label joined once"),
        (_alter("examples", b'"amount":', b'"amount": '), "each label joined once"),
        (_double("dead-letters"), "each refused record counted once"),
        (_lose("dead-letters"), "each refused record counted once"),
        (_alter("dead-letters", b"too_late", b"not_json"), "each refused record counted once"),
        (_stray, "each stray forwarded once"),
        (_double("models"), "one snapshot per line and instant"),
        (_lose("models"), "one snapshot per line and instant"),
        (_swap_examples, "models as river alone"),
        (_lose("registry"), "one registry history"),
        (_double("registry"), "one registry history"),
        (_alter("registry", b"published @500", b"published @501"), "one registry history"),
    ],
)
def test_a_planted_fault_is_found(harm: Callable[[Topics], None], check: str) -> None:
    """The check that is there for a fault fails because of it."""
    raw = topics()
    harm(raw)

    assert check in failed(raw)


def test_a_refresh_that_nobody_decided_on_is_found() -> None:
    """Snapshots that neither serve nor are refused are a broken promise."""
    raw = topics()
    del raw["registry"][0][2:]

    assert "every refresh decided" in failed(raw)


@pytest.mark.parametrize(
    ("kind", "members", "renewed", "is_found"),
    [
        ("rolled_back", {"evidence": {"reference": "first"}}, True, False),
        ("rolled_back", {"evidence": {"reference": "first"}}, False, True),
        ("rolled_back", {"evidence": {"reference": "predecessor"}}, True, True),
        ("refused", {"reason": "bayes@700 refused: it has diverged"}, True, False),
        ("refused", {"reason": "adagrad@700 refused: it has diverged"}, True, True),
        ("refreshed", {}, True, True),
    ],
)
def test_a_champion_stays_at_a_refresh_only_where_it_has_to(
    kind: str, members: dict[str, object], *, renewed: bool, is_found: bool
) -> None:
    """After a return to the first model, or a refusal, the others alone are renewed."""
    raw = topics()
    records = raw["registry"][0]
    former, last = [orjson.loads(record.value or b"") for record in records[1:3]]
    serving = last["serving"] | {"champion": former["serving"]["champion"]}
    if not renewed:
        serving["challengers"] = former["serving"]["challengers"]
    cause = former | {"kind": kind} | members
    records[2:] = [
        replace(records[2], value=orjson.dumps(cause)),
        replace(records[2], value=orjson.dumps(last | {"serving": serving})),
    ]

    assert is_found is ("every refresh decided" in failed(raw))


@pytest.mark.parametrize(
    ("topic", "is_tombstone"),
    [
        ("predictions", False),
        ("examples", False),
        ("models", False),
        ("models", True),
        ("registry", False),
    ],
)
def test_what_was_forged_is_to_be_refused_once_and_changes_nothing(
    topic: str, *, is_tombstone: bool
) -> None:
    """Of somebody else's copy or tombstone no trace is left but one dead letter."""
    found = []
    for letters in range(3):
        raw = topics()
        records = raw[topic][0]
        forged = replace(records[-1], offset=records[-1].offset + 1)
        forged.headers = {FORGERY_HEADER: b"junk" if is_tombstone else b"copied"}
        forged.value = None if is_tombstone else forged.value
        records.append(forged)
        letter = {"topic": topic, "partition": 0, "offset": forged.offset, "reason": "forged"}
        last = raw["dead-letters"][0][-1].offset
        raw["dead-letters"][0] += [
            Raw(0, last + 1 + n, None, orjson.dumps(letter)) for n in range(letters)
        ]
        found.append(failed(raw))

    refused = "each refused record counted once"
    assert [{refused}, set(), {refused}] == found


@pytest.mark.parametrize(("kind", "is_told"), [("made", True), ("copied", False)])
def test_what_no_seal_of_ours_vouches_for_is_to_be_refused_as_forged(
    kind: str, *, is_told: bool
) -> None:
    """A second check that happens to refuse it too must not hide that the first is gone."""
    raw = topics()
    records = raw["predictions"][0]
    forged = replace(records[-1], offset=records[-1].offset + 1)
    forged.headers = {FORGERY_HEADER: kind.encode()}
    records.append(forged)
    letter = {
        "topic": "predictions",
        "partition": 0,
        "offset": forged.offset,
        "reason": "duplicate_prediction",
    }
    offset = raw["dead-letters"][0][-1].offset + 1
    raw["dead-letters"][0].append(Raw(0, offset, None, orjson.dumps(letter)))

    assert ({"each refused record counted once"} if is_told else set()) == failed(raw)


def test_every_kind_of_forgery_is_made_of_what_lies_there() -> None:
    """Of records and of state; what is altered, made up or foreign has no seal of ours."""
    seals = Seals(KEY, parameters.NAME, "here")
    records = seals.records("predictions")
    known = [
        Genuine("predictions", 0, b"e", records.seal(b'{"event_id":"e%d"}' % n), None)
        for n in range(5)
    ]
    entries = seals.state("join-0").write([("pa", b"1"), ("pb", None)], {})
    state = [Genuine("join-changelog", 0, each.name, each.value, each.seal) for each in entries]
    forger = Forger(1, dict.fromkeys((*SEALED_TOPICS, *SIGNED_TOPICS, *CHANGELOGS), PARTITIONS))
    made = [each for _ in range(300) for some in (known, state) for each in forger.forgeries(some)]

    kinds = {"copied", "reordered", "moved", "altered", "made", "foreign", "junk"}
    for topic in ("predictions", "join-changelog"):
        assert kinds == {each.kind for each in made if each.topic == topic}
    for each in made:
        if each.topic == "predictions" and each.kind in {"altered", "made", "foreign", "junk"}:
            copy = each.value in {one.value for one in known}
            with nullcontext() if copy else pytest.raises(BadRecord, match="expected the seal"):
                records.unseal(each.value)


def test_memory_is_flat_or_grows() -> None:
    """Growth in the last half of a life is told; in the first, where windows fill, it is not."""
    settling = [(float(s), 100.0 + min(s, 20) * 5) for s in range(60)]
    growing = [(float(s), 100.0 + s * 5) for s in range(60)]

    assert flat(settling) is None
    assert flat(growing) is not None
    assert flat(growing[:30]) is None


def test_the_longest_silences_are_kept_also_the_one_at_the_end() -> None:
    """What did not come back before the end was silent until then."""
    gaps = Gaps()
    for at in (1.0, 2.0, 7.0, 8.0):
        gaps.note_arrival("0", at)
    gaps.end(20.0)

    assert gaps.longest()["0"][:2] == [[12.0, 8.0], [5.0, 2.0]]
