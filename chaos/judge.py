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

from chaos import parameters
from chaos.expected import ExpectedOutputs, expect
from chaos.forger import FORGERY_HEADER, SEALED_TOPICS, UNSEALED_KINDS
from chaos.topics import Raw, RecordPosition, Topics
from stream_ml.models.recipes import Target
from stream_ml.models.snapshot import decode, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Verdict", "judge"]

FAILURES_MAX = 3
ORIGIN = "stream-ml-origin"
# What stages own, and read; of that, where they forward what lies in another partition.
READ = ("predictions", "examples", "models", "registry", "summaries")
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
            lines += [f"          {failure}" for failure in failures[:FAILURES_MAX]]
            if len(failures) > FAILURES_MAX:
                lines.append(f"          and {len(failures) - FAILURES_MAX} more")
        return "\n".join(lines)


def judge(topics: Topics, feature_hash: str, key: bytes) -> Verdict:
    """Run every check over the raw topics of a run.

    Args:
        topics: as `chaos.topics.read` gives them.
        feature_hash: of the declared features, which a snapshot must name to be opened.
        key: what snapshots and decisions are signed with.
    """
    topics, forgeries = _split_forgeries(topics)
    models = _Models(topics["models"][0], feature_hash, key)
    facts = _Facts(topics, expect(topics), models, key, forgeries)
    verdict = Verdict()
    for name, check in CHECKS.items():
        verdict.failures[name] = list(check(facts))
    verdict.figures = _figures(facts)
    return verdict


class _ForgedRecord(NamedTuple):
    """A record of the forger's: how it was made, and how many dead letters it is to have."""

    kind: str
    letters: int


def _split_forgeries(topics: Topics) -> tuple[Topics, dict[RecordPosition, _ForgedRecord]]:
    """What is ours and what was forged, also where a stage has forwarded that as a stray."""
    forgeries: dict[RecordPosition, _ForgedRecord] = {}
    for topic, partitions in topics.items():
        for record in (
            record
            for records in partitions
            for record in records
            if FORGERY_HEADER in record.headers
        ):
            # Also a tombstone of a model: evaluate knows which it has written itself.
            is_read = topic in READ
            position = RecordPosition(topic, record.partition, record.offset)
            forgeries[position] = _ForgedRecord(
                record.headers[FORGERY_HEADER].decode(), 1 if is_read else 0
            )
    for record in (record for records in topics[STRAYING] for record in records):
        partition, _, offset = record.headers.get(ORIGIN, b"").decode().partition(":")
        origin = RecordPosition(STRAYING, int(partition or -1), int(offset.partition(":")[0] or -1))
        if origin in forgeries:
            forgeries[RecordPosition(STRAYING, record.partition, record.offset)] = forgeries[origin]
            forgeries[origin] = forgeries[origin]._replace(letters=0)
    ours = {
        topic: [
            [
                record
                for record in records
                if RecordPosition(topic, record.partition, record.offset) not in forgeries
            ]
            for records in partitions
        ]
        for topic, partitions in topics.items()
    }
    return ours, forgeries


class _Models:
    """The snapshots, opened when first asked for."""

    def __init__(self, records: list[Raw], feature_hash: str, key: bytes) -> None:
        self.records = [record for record in records if record.value is not None]
        self._values = {record.key.decode(): record.value for record in self.records if record.key}
        self._feature_hash = feature_hash
        self._key = key
        self._learners: dict[str, Any] = {}
        self.by_offset = {record.offset: record for record in self.records}

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
                snapshot, None, Target.binary(), self._key, self._feature_hash
            )
        return self._learners[model]


@dataclass
class _Facts:
    topics: Topics
    expected: ExpectedOutputs
    models: _Models
    key: bytes
    forgeries: dict[RecordPosition, _ForgedRecord]

    def __post_init__(self) -> None:
        self.predictions: dict[RecordPosition, list[Raw]] = defaultdict(list)
        self.members: dict[RecordPosition, dict[str, Any]] = {}
        for records in self.topics["predictions"]:
            for record in records:
                members = orjson.loads(record.value or b"null")
                source = members["source"]
                position = RecordPosition("events", source["partition"], source["offset"])
                self.predictions[position].append(record)
                self.members[position] = members
        self.examples = [record for records in self.topics["examples"] for record in records]
        self.decisions = [orjson.loads(r.value or b"null") for r in self.topics["registry"][0]]


# --- predictions -------------------------------------------------------------------------------


def _one_prediction_each(facts: _Facts) -> Iterator[str]:
    for position in facts.expected.predictions:
        count = len(facts.predictions.get(position, ()))
        if count != 1:
            yield f"{_text_of(position)}: expected one prediction, found {count}"
    for position in facts.predictions.keys() - facts.expected.predictions.keys():
        yield f"{_text_of(position)}: a prediction, where no valid event asks for one"


def _features_to_the_byte(facts: _Facts) -> Iterator[str]:
    for position, prediction in facts.expected.predictions.items():
        for record in facts.predictions.get(position, ()):
            members, value = facts.members[position], record.value or b""
            actual = (members["event_id"], members["key"], members["ts"])
            if actual != (prediction.event_id, prediction.key, prediction.ts):
                yield f"{_text_of(position)}: expected {prediction[:3]}, found {actual}"
            start = value.index(b'"features":') + len(b'"features":')
            features = value[start : value.index(b',"shadows":', start)]
            if features != prediction.features:
                yield f"{_text_of(position)}: expected {prediction.features!r}, found {features!r}"


def _answers_of_the_named(facts: _Facts) -> Iterator[str]:
    for position, members in facts.members.items():
        answers = [(members["model"], None if members["fallback"] else members["prediction"])]
        answers += [
            (shadow["model"], shadow["prediction"])
            for shadow in members["shadows"].values()
            if "prediction" in shadow
        ]
        for model, actual in answers:
            if model not in facts.models:
                yield f"{_text_of(position)}: {model} answers, which was never published"
                continue
            expected = _answer(facts.models.learner(model), members["features"])
            if not _close(expected, actual, ANSWER_TOLERANCE):
                yield f"{_text_of(position)}: {model} says {expected}, found {actual}"
        if members["fallback"] and members["prediction"] != 0.5:  # noqa: PLR2004 - a coin
            yield f"{_text_of(position)}: expected the fallback 0.5, found {members['prediction']}"
        if members["model"] in facts.models:
            inside = facts.models.snapshot(members["model"]).examples["last"]
            if members["example"] != inside:
                yield f"{_text_of(position)}: expected example {inside}, found {members['example']}"


def _shadows_answer_once(facts: _Facts) -> Iterator[str]:
    """Each example whose shadows had no answers yet has them once, of the snapshots that it names.

    In the order of examples, and evaluate's own: those behind its last commit may be missing.
    """
    records = facts.topics["answers"][0]
    answers = [orjson.loads(record.value or b"null") for record in records]
    expected = []
    for record in facts.examples:
        members = orjson.loads(record.value or b"null")
        shadows = {s: each for s, each in members["shadows"].items() if "prediction" not in each}
        if shadows:
            expected.append((record.offset, members, shadows))
    for (offset, members, shadows), actual in zip(expected, answers, strict=False):
        if (actual["example"], actual["event_id"]) != (offset, members["event_id"]):
            yield f"examples {offset}: expected its answers next, found {actual['example']}'s"
            return
        models = {slot: shadow["model"] for slot, shadow in shadows.items()}
        if models != {slot: shadow["model"] for slot, shadow in actual["shadows"].items()}:
            yield f"examples {offset}: shadowed by {models}, answered by {actual['shadows']}"
            continue
        for shadow in actual["shadows"].values():
            said = shadow["prediction"]
            right = _answer(facts.models.learner(shadow["model"]), members["features"])
            if not _close(right, said, ANSWER_TOLERANCE):
                yield f"examples {offset}: {shadow['model']} says {right}, found {said}"
    if len(answers) != len(expected):
        yield f"expected the answers of {len(expected)} examples, found those of {len(answers)}"


def _answer(learner: Any, features: dict[str, float]) -> float | None:
    probabilities = learner.predict_proba_one(features)
    return float(probabilities.get(True, 0.0)) if probabilities else None


def _close(expected: float | None, actual: float | None, tolerance: float) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return abs(expected - actual) <= tolerance


def _versions_go_forward(facts: _Facts) -> Iterator[str]:
    """Per partition of events, the lineups in the order of the log are the registry's, in order."""
    lineups = [_lineup_of_set(decision["serving"]) for decision in facts.decisions]
    by_partition: dict[int, list[RecordPosition]] = defaultdict(list)
    for position in facts.members:
        by_partition[position.partition].append(position)
    for positions in by_partition.values():
        number = 0
        former = None
        for position in sorted(positions):
            lineup = _lineup(facts.members[position])
            if lineup == former:
                continue
            former = lineup
            next_number = next(
                (n for n in range(number, len(lineups)) if lineups[n] == lineup), None
            )
            if next_number is None:
                goes_back = lineup in lineups[:number]
                reason = f"served before decision {number}" if goes_back else "was never decided"
                yield f"{_text_of(position)}: {lineup[0]} with {len(lineup[1])} shadows {reason}"
                continue
            number = next_number


def _lineup(members: dict[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    shadows = {slot: shadow["model"] for slot, shadow in members["shadows"].items()}
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
    counts: Counter[RecordPosition] = Counter()
    for record in facts.examples:
        members = orjson.loads(record.value or b"null")
        source = members["label_source"]
        position = RecordPosition("labels", source["partition"], source["offset"])
        counts[position] += 1
        event_id = facts.expected.joins.get(position)
        if event_id != members["event_id"]:
            yield f"{_text_of(position)}: joined with {members['event_id']}, expected {event_id}"
            continue
        label = _find(facts.topics["labels"][position.partition], position.offset)
        if (label["label"], label["ts"]) != (members["label"], members["label_ts"]):
            yield f"{_text_of(position)}: the example has another label than its source"
        event = members["source"]
        predictions = facts.predictions.get(
            RecordPosition("events", event["partition"], event["offset"]), []
        )
        if not any(
            (record.value or b"").startswith(_body(prediction.value)) for prediction in predictions
        ):
            yield f"{_text_of(position)}: the example does not hold the prediction byte for byte"
    for position, event_id in facts.expected.joins.items():
        if counts[position] != 1:
            yield f"{_text_of(position)}: the label of {event_id} makes {counts[position]} examples"


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
    letters: dict[RecordPosition, list[str]] = defaultdict(list)
    for records in facts.topics["dead-letters"]:
        for record in records:
            members = orjson.loads(record.value or b"null")
            position = RecordPosition(members["topic"], members["partition"], members["offset"])
            letters[position].append(members["reason"])
    for position, reasons in facts.expected.refusals.items():
        actual = letters.pop(position, [])
        if len(actual) != 1 or actual[0] not in reasons:
            alternatives = " or ".join(sorted(reasons))
            yield f"{_text_of(position)}: expected one dead letter ({alternatives}), found {actual}"
    for position, forgery in facts.forgeries.items():
        actual = letters.pop(position, [])
        # Whatever else is wrong with it, what is not sealed by us is refused for that.
        is_unsealed = forgery.kind in UNSEALED_KINDS and position.topic in SEALED_TOPICS
        if len(actual) != forgery.letters or (is_unsealed and {*actual} - {"forged"}):
            forger = f"{forgery.kind} by somebody without the key"
            yield f"{_text_of(position)}: {forger}, refused as {actual}"
    for position, actual in letters.items():
        yield f"{_text_of(position)}: refused as {actual}, though nothing is wrong with it"


def _each_stray_forwarded_once(facts: _Facts) -> Iterator[str]:
    for topic in ("events", "labels"):
        origins: Counter[bytes] = Counter(
            record.headers[ORIGIN].rpartition(b":")[0]
            for records in facts.topics[topic]
            for record in records
            if ORIGIN in record.headers
        )
        strays = {
            b"%d:%d" % (position.partition, position.offset): position
            for position in facts.expected.strays
            if position.topic == topic
        }
        for origin, position in strays.items():
            if origins[origin] != 1:
                yield f"{_text_of(position)}: a stray, forwarded {origins[origin]} times"
        for origin in origins.keys() - strays.keys():
            yield f"{topic} {origin.decode()}: forwarded, and was no stray"


# --- models and registry -----------------------------------------------------------------------


def _instants(examples: int) -> list[int]:
    """After how many examples every line publishes."""
    warm, n = [0], parameters.WARM_UP
    while n < parameters.REFRESH:
        warm.append(n)
        n *= 2
    instants = [*warm, *range(parameters.REFRESH, examples + 1, parameters.REFRESH)]
    return [instant for instant in instants if instant <= examples]


def _one_snapshot_each(facts: _Facts) -> Iterator[str]:
    counts = Counter((record.key or b"").decode() for record in facts.models.records)
    models = [f"{line}@{n}" for n in _instants(len(facts.examples)) for line in parameters.lines()]
    for model in models:
        if counts[model] != 1:
            yield f"{model} was published {counts[model]} times"
    for model in counts.keys() - set(models):
        yield f"{model} was published, at no instant of refresh"


def _models_as_river_alone(facts: _Facts) -> Iterator[str]:
    """Each line's learner, at each of its snapshots, against one that river alone has taught."""
    examples = [orjson.loads(record.value or b"null") for record in facts.examples]
    offsets = [record.offset for record in facts.examples]
    for line, learner in parameters.lines().items():
        start = 0
        for instant in _instants(len(examples)):
            for example in examples[start:instant]:
                learner.learn_one(example["features"], example["label"])
            start = instant
            model = f"{line}@{instant}"
            if model not in facts.models:
                continue
            inputs = facts.models.snapshot(model).examples
            inside = (instant, offsets[instant - 1] if instant else -1)
            if (inputs["count"], inputs["last"]) != inside:
                yield f"{model}: expected examples up to {inside}, found {inputs}"
            for example in examples[instant : instant + PROBES] or examples[-PROBES:]:
                expected = _answer(learner, example["features"])
                actual = _answer(facts.models.learner(model), example["features"])
                if not _close(expected, actual, LEARNED_TOLERANCE):
                    yield f"{model}: river alone says {expected}, the snapshot {actual}"
                    break


def _one_history(facts: _Facts) -> Iterator[str]:
    previous = NO_RECORD
    inputs: dict[str, int] = {}
    for number, record in enumerate(facts.topics["registry"][0]):
        value, decision = record.value or b"", facts.decisions[number]
        if decision["number"] != number:
            actual = decision["number"]
            yield f"registry {record.offset}: expected decision {number}, found {actual}"
        if decision["previous"] != previous:
            yield f"registry {record.offset}: decision {number} does not follow the one before it"
        previous = hashlib.sha256(value).hexdigest()
        if not _has_signature(value, facts.key):
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


def _has_signature(value: bytes, key: bytes) -> bool:
    body, _, signature = value.rpartition(b',"signature":"')
    expected = hmac.new(key, body + b"}", hashlib.sha256).hexdigest().encode()
    return signature == expected + b'"}'


def _unknown_snapshots(facts: _Facts, decision: dict[str, Any]) -> Iterator[str]:
    serving = decision["serving"]
    refs = [serving["champion"], *serving["challengers"].values()]
    refs += [serving[slot] for slot in ("predecessor", "first") if serving[slot] is not None]
    for ref in refs:
        record = facts.models.by_offset.get(ref["offset"])
        lies = None if record is None else decode(record.value or b"")
        if lies is None or (lies.model, lies.digest) != (ref["model"], ref["digest"]):
            model = "nothing" if lies is None else lies.model
            yield f"decision {decision['number']} names {ref['model']}, where {model} lies"


def _every_refresh_decided(facts: _Facts) -> Iterator[str]:
    """Every instant at which all lines published was followed by a decision about it."""
    decided = set(_decided_instants(facts.decisions))
    refusals = " ".join(d["reason"] for d in facts.decisions if d["kind"] == "refused")
    for instant in _instants(len(facts.examples)):
        if instant not in decided and f"@{instant} refused" not in refusals:
            yield f"@{instant} was published, and never served nor refused"


def _decided_instants(decisions: Iterable[dict[str, Any]]) -> Iterator[int]:
    """The instants that champions are of, and those at which one that has to stay did.

    After the guard's return to the first model its line is not renewed until another one replaces
    it, and after a refusal not until the line publishes what is sound: all other lines are.
    """
    staying = None
    for decision in decisions:
        serving, kind = decision["serving"], decision["kind"]
        champion = serving["champion"]["model"]
        line, _, version = champion.rpartition("@")
        yield int(version)
        is_returned = kind == "rolled_back" and _reference(decision) == "first"
        is_refused = kind == "refused" and decision["reason"].startswith(f"{line}@")
        if is_returned or is_refused:
            staying = champion
        elif kind == "rolled_back" or champion != staying:
            staying = None
        elif kind == "refreshed":
            challengers = serving["challengers"].values()
            versions = {int(ref["model"].rpartition("@")[2]) for ref in challengers}
            if len(versions) == 1:
                yield from versions


def _reference(decision: dict[str, Any]) -> str | None:
    """What the champion did harm against, where the guard has decided."""
    evidence = decision["evidence"]
    return None if evidence is None else evidence.get("reference")


# --- alerts ------------------------------------------------------------------------------------


def _each_change_told_once(facts: _Facts) -> Iterator[str]:
    """What opens is not open, and what resolves is, whoever died in between."""
    open_alerts: set[tuple[Any, ...]] = set()
    for record in facts.topics["alerts"][0]:
        members = orjson.loads(record.value or b"null")
        subjects = members["details"].get("subjects") or [members["subject"]]
        for subject in subjects:
            place = (members["kind"], members["stage"], members["partition"], subject)
            if members["state"] == "once":
                continue
            if (members["state"] == "open") is (place in open_alerts):
                yield f"alerts offset {record.offset}: {place} is {members['state']} already"
            open_alerts ^= {place}


def _text_of(position: RecordPosition) -> str:
    return f"{position.topic} {position.partition}:{position.offset}"


def _figures(facts: _Facts) -> dict[str, Any]:
    kinds = Counter(decision["kind"] for decision in facts.decisions)
    refusals = Counter(min(reasons) for reasons in facts.expected.refusals.values())
    champions = [decision["serving"]["champion"]["model"] for decision in facts.decisions]
    return {
        "events": sum(map(len, facts.topics["events"])),
        "predictions": len(facts.members),
        "labels": sum(map(len, facts.topics["labels"])),
        "examples": len(facts.examples),
        "dead letters": dict(refusals.most_common()),
        "strays": len(facts.expected.strays),
        "forged": dict(
            Counter(
                f"{position.topic} {forgery.kind}" for position, forgery in facts.forgeries.items()
            )
        ),
        "snapshots": len(facts.models.records),
        "decisions": dict(kinds.most_common()),
        "switches of the champion": sum(a != b for a, b in pairwise(champions)),
        "longest without any appended": _longest_pauses(facts),
    }


def _longest_pauses(facts: _Facts) -> str:
    """Per partition of events, the longest time in which the log took in no prediction of it.

    Of those who read committed records some waited longer: for the transactions of others.
    """
    append_times: dict[int, list[int]] = defaultdict(list)
    for position, records in facts.predictions.items():
        append_times[position.partition].append(records[0].append_ms)
    pauses = {
        partition: max((b - a for a, b in pairwise(sorted(times))), default=0)
        for partition, times in sorted(append_times.items())
    }
    return ", ".join(f"p. {partition} {ms / 1_000:.1f} s" for partition, ms in pauses.items())


CHECKS: dict[str, Callable[[_Facts], Iterable[str]]] = {
    "one prediction per valid predicting event": _one_prediction_each,
    "features byte for byte": _features_to_the_byte,
    "each prediction its model's answer": _answers_of_the_named,
    "each example's shadows answer once": _shadows_answer_once,
    "versions never go back": _versions_go_forward,
    "each label joined once": _each_label_once,
    "each refused record counted once": _each_refusal_once,
    "each stray forwarded once": _each_stray_forwarded_once,
    "one snapshot per line and instant": _one_snapshot_each,
    "models as river alone": _models_as_river_alone,
    "one registry history": _one_history,
    "every refresh decided": _every_refresh_decided,
    "each change of an alert told once": _each_change_told_once,
}
