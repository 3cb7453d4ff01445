"""The judge: whether what lies on the broker is what should have come out of the events and labels.

Each check gives the failures that it finds, worst first and few of a kind; none means that the
promise held. Nothing of the stages is used: windows and verdicts are those of `expected`, models
learn and answer as river's own, and only the envelope of a snapshot is opened by our own code.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from chaos import ground
from chaos.expected import Expected, expect
from chaos.forger import FORGED
from chaos.topics import Place, Raw, Topics
from stream_ml.models.recipes import Target
from stream_ml.models.snapshot import decode, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Verdict", "judge"]

SHOWN = 3
ORIGIN = "stream-ml-origin"
# What stages own, and read; of that, where they forward what lies in another partition.
READ = ("predictions", "examples", "models", "registry")
STRAYING = "predictions"
ANSWER_TOLERANCE = 1e-12
LEARNED_TOLERANCE = 1e-9
# A learner is compared on so many examples that it has not learned.
PROBES = 5
NO_RECORD = "0" * 64


@dataclass
class Verdict:
    """What was found: failures by the name of the check, and figures for the summary."""

    failures: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        return not any(self.failures.values())

    def text(self) -> str:
        """A table for a person."""
        lines = [f"  {name:<28} {value}" for name, value in self.figures.items()]
        for name, failures in self.failures.items():
            lines.append(f"  {'FAIL' if failures else 'ok':<5} {name}")
            lines += [f"          {failure}" for failure in failures[:SHOWN]]
            if len(failures) > SHOWN:
                lines.append(f"          and {len(failures) - SHOWN} more")
        return "\n".join(lines)


def judge(topics: Topics, feature_hash: str, key: bytes) -> Verdict:
    """Run every check over the raw topics of a run.

    Args:
        topics: as `chaos.topics.read` gives them.
        feature_hash: of the declared features, which a snapshot must name to be opened.
        key: what snapshots and decisions are signed with.
    """
    topics, forged = _parted(topics)
    models = _Models(topics["models"][0], feature_hash, key)
    facts = _Facts(topics, expect(topics), models, key, forged)
    verdict = Verdict()
    for name, check in CHECKS.items():
        verdict.failures[name] = list(check(facts))
    verdict.figures = _figures(facts)
    return verdict


class _Forged(NamedTuple):
    """A record of the forger's: how it was made, and how many dead letters it is to have."""

    kind: str
    letters: int


def _parted(topics: Topics) -> tuple[Topics, dict[Place, _Forged]]:
    """What is ours and what was forged, also where a stage has forwarded that as a stray."""
    forged: dict[Place, _Forged] = {}
    for topic, partitions in topics.items():
        for each in (each for records in partitions for each in records if FORGED in each.headers):
            # A tombstone of a model, as evaluate's own, is nothing to be believed or not.
            silent = topic not in READ or (topic == "models" and each.value is None)
            place = Place(topic, each.partition, each.offset)
            forged[place] = _Forged(each.headers[FORGED].decode(), 0 if silent else 1)
    for each in (each for records in topics[STRAYING] for each in records):
        partition, _, offset = each.headers.get(ORIGIN, b"").decode().partition(":")
        origin = Place(STRAYING, int(partition or -1), int(offset.partition(":")[0] or -1))
        if origin in forged:
            forged[Place(STRAYING, each.partition, each.offset)] = forged[origin]
            forged[origin] = forged[origin]._replace(letters=0)
    ours = {
        topic: [
            [each for each in records if Place(topic, each.partition, each.offset) not in forged]
            for records in partitions
        ]
        for topic, partitions in topics.items()
    }
    return ours, forged


class _Models:
    """The snapshots, opened when first asked for."""

    def __init__(self, records: list[Raw], feature_hash: str, key: bytes) -> None:
        self.records = [record for record in records if record.value is not None]
        self._values = {record.key.decode(): record.value for record in self.records if record.key}
        self._feature_hash = feature_hash
        self._key = key
        self._learners: dict[str, Any] = {}
        self.at = {record.offset: record for record in self.records}

    def __contains__(self, model: str) -> bool:
        return model in self._values

    def snapshot(self, model: str) -> Any:
        """The envelope."""
        return decode(self._values[model])

    def learner(self, model: str) -> Any:
        """River's own learner inside."""
        if model not in self._learners:
            snapshot = self.snapshot(model)
            self._learners[model] = open_snapshot(
                snapshot, Target.binary(), self._key, self._feature_hash
            )
        return self._learners[model]


@dataclass
class _Facts:
    topics: Topics
    expected: Expected
    models: _Models
    key: bytes
    forged: dict[Place, _Forged]

    def __post_init__(self) -> None:
        self.predictions: dict[Place, list[Raw]] = defaultdict(list)
        self.decoded: dict[Place, dict[str, Any]] = {}
        for records in self.topics["predictions"]:
            for record in records:
                members = orjson.loads(record.value or b"null")
                source = members["source"]
                place = Place("events", source["partition"], source["offset"])
                self.predictions[place].append(record)
                self.decoded[place] = members
        self.examples = [record for records in self.topics["examples"] for record in records]
        self.decisions = [orjson.loads(r.value or b"null") for r in self.topics["registry"][0]]


# --- predictions -------------------------------------------------------------------------------


def _one_prediction_each(facts: _Facts) -> Iterator[str]:
    for place in facts.expected.served:
        found = len(facts.predictions.get(place, ()))
        if found != 1:
            yield f"{_at(place)}: expected one prediction, found {found}"
    for place in facts.predictions.keys() - facts.expected.served.keys():
        yield f"{_at(place)}: a prediction, where no valid event asks for one"


def _features_to_the_byte(facts: _Facts) -> Iterator[str]:
    for place, served in facts.expected.served.items():
        for record in facts.predictions.get(place, ()):
            members, value = facts.decoded[place], record.value or b""
            named = (members["event_id"], members["key"], members["ts"])
            if named != (served.event_id, served.key, served.ts):
                yield f"{_at(place)}: expected {served[:3]}, found {named}"
            start = value.index(b'"features":') + len(b'"features":')
            found = value[start : value.index(b',"shadows":', start)]
            if found != served.features:
                yield f"{_at(place)}: expected {served.features!r}, found {found!r}"


def _answers_of_the_named(facts: _Facts) -> Iterator[str]:
    for place, members in facts.decoded.items():
        said = [(members["model"], None if members["fallback"] else members["prediction"])]
        said += [(each["model"], each["prediction"]) for each in members["shadows"].values()]
        for model, given in said:
            if model not in facts.models:
                yield f"{_at(place)}: {model} answers, which was never published"
                continue
            wanted = _answer(facts.models.learner(model), members["features"])
            if not _close(wanted, given, ANSWER_TOLERANCE):
                yield f"{_at(place)}: {model} says {wanted}, found {given}"
        if members["fallback"] and members["prediction"] != 0.5:  # noqa: PLR2004 - a coin
            yield f"{_at(place)}: expected the fallback 0.5, found {members['prediction']}"
        if members["model"] in facts.models:
            inside = facts.models.snapshot(members["model"]).examples["last"]
            if members["example"] != inside:
                yield f"{_at(place)}: expected example {inside}, found {members['example']}"


def _answer(learner: Any, features: dict[str, float]) -> float | None:
    said = learner.predict_proba_one(features)
    return float(said.get(True, 0.0)) if said else None


def _close(wanted: float | None, given: float | None, tolerance: float) -> bool:
    if wanted is None or given is None:
        return wanted is given
    return abs(wanted - given) <= tolerance


def _versions_go_forward(facts: _Facts) -> Iterator[str]:
    """Per partition of events, the lineups in the order of the log are the registry's, in order."""
    lineups = [_lineup_of_set(decision["serving"]) for decision in facts.decisions]
    by_partition: dict[int, list[Place]] = defaultdict(list)
    for place in facts.decoded:
        by_partition[place.partition].append(place)
    for places in by_partition.values():
        at = 0
        former = None
        for place in sorted(places):
            lineup = _lineup(facts.decoded[place])
            if lineup == former:
                continue
            former = lineup
            after = next((n for n in range(at, len(lineups)) if lineups[n] == lineup), None)
            if after is None:
                back = lineup in lineups[:at]
                why = f"served before decision {at}" if back else "was never decided"
                yield f"{_at(place)}: {lineup[0]} with {len(lineup[1])} shadows {why}"
                continue
            at = after


def _lineup(members: dict[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    shadows = {slot: each["model"] for slot, each in members["shadows"].items()}
    return members["model"], tuple(sorted(shadows.items()))


def _lineup_of_set(serving: dict[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    shadows = {line: ref["model"] for line, ref in serving["challengers"].items()}
    for slot in ("predecessor", "first"):
        if serving[slot] is not None:
            shadows[slot] = serving[slot]["model"]
    return serving["champion"]["model"], tuple(sorted(shadows.items()))


def _body(value: bytes | None) -> bytes:
    """A record as far as its seal, which is its last member."""
    return (value or b"").rpartition(b',"seal":"')[0]


# --- labels and refused records ----------------------------------------------------------------


def _each_label_once(facts: _Facts) -> Iterator[str]:
    found: Counter[Place] = Counter()
    for record in facts.examples:
        members = orjson.loads(record.value or b"null")
        source = members["label_source"]
        place = Place("labels", source["partition"], source["offset"])
        found[place] += 1
        wanted = facts.expected.joined.get(place)
        if wanted != members["event_id"]:
            yield f"{_at(place)}: joined with {members['event_id']}, expected {wanted}"
            continue
        label = _find(facts.topics["labels"][place.partition], place.offset)
        if (label["label"], label["ts"]) != (members["label"], members["label_ts"]):
            yield f"{_at(place)}: the example has another label than its source"
        event = members["source"]
        made = facts.predictions.get(Place("events", event["partition"], event["offset"]), [])
        if not any((record.value or b"").startswith(_body(each.value)) for each in made):
            yield f"{_at(place)}: the example does not hold the prediction byte for byte"
    for place, event_id in facts.expected.joined.items():
        if found[place] != 1:
            yield f"{_at(place)}: the label of {event_id} makes {found[place]} examples"


def _find(records: list[Raw], offset: int) -> dict[str, Any]:
    # Offsets have gaps where transactions end, so a record lies at or before its offset.
    low, high = 0, len(records)
    while low < high:
        middle = (low + high) // 2
        if records[middle].offset < offset:
            low = middle + 1
        else:
            high = middle
    return dict(orjson.loads(records[low].value or b"{}"))


def _each_refusal_once(facts: _Facts) -> Iterator[str]:
    found: dict[Place, list[str]] = defaultdict(list)
    for records in facts.topics["dead-letters"]:
        for record in records:
            letter = orjson.loads(record.value or b"null")
            place = Place(letter["topic"], letter["partition"], letter["offset"])
            found[place].append(letter["reason"])
    for place, reasons in facts.expected.refused.items():
        given = found.pop(place, [])
        if len(given) != 1 or given[0] not in reasons:
            wanted = " or ".join(sorted(reasons))
            yield f"{_at(place)}: expected one dead letter ({wanted}), found {given}"
    for place, each in facts.forged.items():
        given = found.pop(place, [])
        if len(given) != each.letters:
            yield f"{_at(place)}: {each.kind} by somebody without the key, refused as {given}"
    for place, given in found.items():
        yield f"{_at(place)}: refused as {given}, though nothing is wrong with it"


def _each_stray_forwarded_once(facts: _Facts) -> Iterator[str]:
    for topic in ("events", "labels"):
        origins: Counter[bytes] = Counter(
            record.headers[ORIGIN].rpartition(b":")[0]
            for records in facts.topics[topic]
            for record in records
            if ORIGIN in record.headers
        )
        strays = {
            b"%d:%d" % (place.partition, place.offset): place
            for place in facts.expected.strays
            if place.topic == topic
        }
        for origin, place in strays.items():
            if origins[origin] != 1:
                yield f"{_at(place)}: a stray, forwarded {origins[origin]} times"
        for origin in origins.keys() - strays.keys():
            yield f"{topic} {origin.decode()}: forwarded, and was no stray"


# --- models and registry -----------------------------------------------------------------------


def _instants(examples: int) -> list[int]:
    """After how many examples every line publishes."""
    warm, n = [0], ground.WARM_UP
    while n < ground.REFRESH:
        warm.append(n)
        n *= 2
    instants = [*warm, *range(ground.REFRESH, examples + 1, ground.REFRESH)]
    return [instant for instant in instants if instant <= examples]


def _one_snapshot_each(facts: _Facts) -> Iterator[str]:
    found = Counter((record.key or b"").decode() for record in facts.models.records)
    wanted = [f"{line}@{n}" for n in _instants(len(facts.examples)) for line in ground.lines()]
    for model in wanted:
        if found[model] != 1:
            yield f"{model} was published {found[model]} times"
    for model in found.keys() - set(wanted):
        yield f"{model} was published, at no instant of refresh"


def _models_as_river_alone(facts: _Facts) -> Iterator[str]:
    """Each line's learner, at each of its snapshots, against one that river alone has taught."""
    learned = [orjson.loads(record.value or b"null") for record in facts.examples]
    offsets = [record.offset for record in facts.examples]
    for line, learner in ground.lines().items():
        at = 0
        for instant in _instants(len(learned)):
            for each in learned[at:instant]:
                learner.learn_one(each["features"], each["label"])
            at = instant
            model = f"{line}@{instant}"
            if model not in facts.models:
                continue
            examples = facts.models.snapshot(model).examples
            inside = (instant, offsets[instant - 1] if instant else -1)
            if (examples["count"], examples["last"]) != inside:
                yield f"{model}: expected examples up to {inside}, found {examples}"
            for each in learned[instant : instant + PROBES] or learned[-PROBES:]:
                wanted = _answer(learner, each["features"])
                given = _answer(facts.models.learner(model), each["features"])
                if not _close(wanted, given, LEARNED_TOLERANCE):
                    yield f"{model}: river alone says {wanted}, the snapshot {given}"
                    break


def _one_history(facts: _Facts) -> Iterator[str]:
    previous = NO_RECORD
    inputs: dict[str, int] = {}
    for number, record in enumerate(facts.topics["registry"][0]):
        value, decision = record.value or b"", facts.decisions[number]
        if decision["number"] != number:
            given = decision["number"]
            yield f"registry {record.offset}: expected decision {number}, found {given}"
        if decision["previous"] != previous:
            yield f"registry {record.offset}: decision {number} does not follow the one before it"
        previous = hashlib.sha256(value).hexdigest()
        if not _signed(value, facts.key):
            yield f"registry {record.offset}: decision {number} is not signed with the key"
        if (decision["kind"] == "bootstrap") != (number == 0):
            yield f"registry {record.offset}: decision {number} is {decision['kind']}"
        for topic, offset in decision["inputs"].items():
            if offset < inputs.get(topic, 0):
                yield f"registry {record.offset}: {topic} goes back to {offset}"
        inputs = decision["inputs"]
        yield from _unknown_snapshots(facts, decision)
    if not facts.decisions:
        yield "the registry is empty"


def _signed(value: bytes, key: bytes) -> bool:
    body, _, signature = value.rpartition(b',"signature":"')
    wanted = hmac.new(key, body + b"}", hashlib.sha256).hexdigest().encode()
    return signature == wanted + b'"}'


def _unknown_snapshots(facts: _Facts, decision: dict[str, Any]) -> Iterator[str]:
    serving = decision["serving"]
    named = [serving["champion"], *serving["challengers"].values()]
    named += [serving[slot] for slot in ("predecessor", "first") if serving[slot] is not None]
    for ref in named:
        record = facts.models.at.get(ref["offset"])
        lies = None if record is None else decode(record.value or b"")
        if lies is None or (lies.model, lies.digest) != (ref["model"], ref["digest"]):
            found = "nothing" if lies is None else lies.model
            yield f"decision {decision['number']} names {ref['model']}, where {found} lies"


def _every_refresh_decided(facts: _Facts) -> Iterator[str]:
    """Every instant at which all lines published was followed by a decision about it."""
    versions = {
        int(decision["serving"]["champion"]["model"].rpartition("@")[2])
        for decision in facts.decisions
    }
    refused = " ".join(d["reason"] for d in facts.decisions if d["kind"] == "refused")
    for instant in _instants(len(facts.examples)):
        if instant not in versions and f"@{instant} refused" not in refused:
            yield f"@{instant} was published, and never served nor refused"


def _at(place: Place) -> str:
    return f"{place.topic} {place.partition}:{place.offset}"


def _figures(facts: _Facts) -> dict[str, Any]:
    kinds = Counter(decision["kind"] for decision in facts.decisions)
    refused = Counter(min(reasons) for reasons in facts.expected.refused.values())
    champions = [decision["serving"]["champion"]["model"] for decision in facts.decisions]
    return {
        "events": sum(map(len, facts.topics["events"])),
        "predictions": len(facts.decoded),
        "labels": sum(map(len, facts.topics["labels"])),
        "examples": len(facts.examples),
        "dead letters": dict(refused.most_common()),
        "strays": len(facts.expected.strays),
        "forged": dict(Counter(f"{at.topic} {each.kind}" for at, each in facts.forged.items())),
        "snapshots": len(facts.models.records),
        "decisions": dict(kinds.most_common()),
        "switches of the champion": sum(a != b for a, b in pairwise(champions)),
        "longest without any appended": _longest_pauses(facts),
    }


def _longest_pauses(facts: _Facts) -> str:
    """Per partition of events, the longest time in which the log took in no prediction of it.

    Of those who read committed records some waited longer: for the transactions of others.
    """
    appended: dict[int, list[int]] = defaultdict(list)
    for place, records in facts.predictions.items():
        appended[place.partition].append(records[0].append_ms)
    pauses = {
        partition: max((b - a for a, b in pairwise(sorted(times))), default=0)
        for partition, times in sorted(appended.items())
    }
    return ", ".join(f"p. {partition} {ms / 1_000:.1f} s" for partition, ms in pauses.items())


CHECKS: dict[str, Callable[[_Facts], Iterable[str]]] = {
    "one prediction per valid predicting event": _one_prediction_each,
    "features byte for byte": _features_to_the_byte,
    "each prediction its model's answer": _answers_of_the_named,
    "versions never go back": _versions_go_forward,
    "each label joined once": _each_label_once,
    "each refused record counted once": _each_refusal_once,
    "each stray forwarded once": _each_stray_forwarded_once,
    "one snapshot per line and instant": _one_snapshot_each,
    "models as river alone": _models_as_river_alone,
    "one registry history": _one_history,
    "every refresh decided": _every_refresh_decided,
}
