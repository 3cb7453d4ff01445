"""What must hold of any history, told from what lies on the log and shared with no stage's code.

Where a rule is about a watermark, what is checked holds for any that does not run ahead of the
newest time: who is refused as late must be late by it, and what it keeps alive must be known.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.records import line_of
from stream_ml.shell.views import audit
from stream_ml.shell.views.reproduce import reproduce, sample
from tests.torture import features as definitions
from tests.torture.declarations import milliseconds
from tests.torture.run import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.declarations import Declaration
    from tests.torture.run import Happened

__all__ = ["faults"]

# A record of which topic is refused by whom; there is nobody else.
REFUSED_BY = {"events": "predict", "labels": "join", "predictions": "join"}
LATE_IN_ORDER = {"too_late", "duplicate", "function_failed", "from_the_future"}
LABEL_REASONS = {
    "late",
    "orphan",
    "duplicate_label",
    "label_before_event",
    "too_many_labels",
    "from_the_future",
}
Place = tuple[str, int, int]


@dataclass
class _Ledger:
    """What lies on the log, looked up by place and by id."""

    declaration: Declaration
    happened: Happened
    letters: dict[Place, dict[str, Any]] = field(default_factory=dict)
    predictions: list[tuple[Place, dict[str, Any]]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    # By join partition the newest prediction, and how far it was past each one that came then.
    newest: dict[int, int] = field(default_factory=dict)
    ahead: dict[Place, int] = field(default_factory=dict)

    def overtaken(self, place: Place, delay: int) -> bool:
        """Whether a label, so long after a prediction's event, may have been an orphan before it.

        One that comes from a partition that was idle finds that others have gone on.
        """
        events = self.declaration.events
        allowed = milliseconds(events["lateness"]) + milliseconds(events["skew"])
        return self.ahead[place] > delay + allowed

    @property
    def exact(self) -> bool:
        """Whether the newest time of all is the watermark."""
        return self.declaration.events.get("breadth", 1) == 1


def faults(happened: Happened) -> Iterator[str]:
    """All that does not hold, in words; nothing, if all does."""
    ledger = _Ledger(happened.declarations[0], happened)
    driver = happened.driver
    for join in driver.runner.joins:
        ledger.counts.update(join.counts)
    yield from _read_letters(ledger)
    for record in driver.records("predictions"):
        place = ("predictions", record.partition, record.offset)
        prediction = json.loads(record.value or b"")
        ledger.predictions.append((place, prediction))
        newest = ledger.newest.get(record.partition, -1)
        ledger.ahead[place] = newest - prediction["ts"]
        ledger.newest[record.partition] = max(newest, prediction["ts"])
    driver.runner.commit(checkpoint=True)  # what shadows said goes with evaluate's state
    ledger.examples, ledger.answers = driver.read("examples"), driver.read("answers")
    ledger.decisions = driver.read("registry")
    for check in CHECKS:
        yield from check(ledger)


def _read_letters(ledger: _Ledger) -> Iterator[str]:
    for letter in ledger.happened.driver.read("dead-letters"):
        place = (letter["topic"], letter["partition"], letter["offset"])
        if place in ledger.letters:
            former = ledger.letters[place]["reason"]
            yield f"two dead letters of {place}: {former}, then {letter['reason']}"
        ledger.letters[place] = letter
        if letter["topic"] in {"events", "labels"} and place not in ledger.happened.published:
            yield f"a dead letter of {place}, where nothing lies"
        allowed = {"commands": None, "predictions": {"duplicate_prediction", "too_late"}}
        if letter["topic"] in {"models", "registry", "examples"}:
            yield f"what we wrote ourselves is a dead letter: {letter}"
        reasons = allowed.get(letter["topic"])
        if reasons is not None and letter["reason"] not in reasons:
            yield f"a prediction is a dead letter: {letter}"
        stage = REFUSED_BY.get(letter["topic"], "evaluate")
        if letter["stage"] != stage:
            yield f"{letter['stage']} refused what {stage} should: {letter}"


# --- events -----------------------------------------------------------------------------------


def _partitions(ledger: _Ledger, topic: str) -> Iterator[list[tuple[Place, dict[str, Any] | None]]]:
    """The published records of a topic by partition, in their order; None where it is no object."""
    by: defaultdict[int, list[tuple[Place, dict[str, Any] | None]]] = defaultdict(list)
    for place, item in sorted(ledger.happened.published.items()):
        if place[0] == topic:
            by[place[1]].append((place, None if item.flaw == "bytes" else json.loads(item.value)))
    yield from by.values()


def _event_faults(ledger: _Ledger) -> Iterator[str]:
    """Each event is a prediction, or in windows only, or a dead letter that had to be one."""
    asked = Counter(
        (p["source"]["partition"], p["source"]["offset"]) for _, p in ledger.predictions
    )
    for records in _partitions(ledger, "events"):
        newest, accepted = -1, dict[str, int]()
        for place, members in records:
            letter = ledger.letters.get(place)
            count = asked.pop(place[1:], 0)
            flaw = ledger.happened.published[place].flaw
            if letter is not None:
                if count:
                    yield f"the event {place} is a dead letter, and predicted"
                yield from _refused_event(ledger, place, letter, members, newest, accepted)
                continue
            if flaw is not None or members is None:
                yield f"the event {place} is bad ({flaw}), and was taken: {members}"
                continue
            if count != _asks(ledger.declaration, members):
                yield f"the event {place} has {count} predictions: {members}"
            yield from _taken_event(ledger, place, members, newest, accepted)
            newest = max(newest, members["ts"])
            accepted[members["event_id"]] = members["ts"]
    for place in asked:
        yield f"a prediction of an event that does not lie at {place}"


def _refused_event(
    ledger: _Ledger,
    place: Place,
    letter: dict[str, Any],
    members: dict[str, Any] | None,
    newest: int,
    accepted: dict[str, int],
) -> Iterator[str]:
    reason, flaw = letter["reason"], ledger.happened.published[place].flaw
    if flaw not in {None, "from_the_future"}:
        if reason in LATE_IN_ORDER - {"from_the_future"}:
            yield f"the event {place} is bad ({flaw}), and refused as {reason}"
        return
    assert members is not None, "only bad bytes are no object"
    lateness = milliseconds(ledger.declaration.events["lateness"])
    if reason not in LATE_IN_ORDER:
        yield f"the event {place} is good, and refused: {letter}"
    if reason == "too_late" and members["ts"] >= newest - lateness:
        yield f"the event {place} at {members['ts']} is no later than may be, the newest {newest}"
    if reason == "duplicate" and members["event_id"] not in accepted:
        yield f"the event {place} is refused as a duplicate, and none of its id came before"
    if reason == "from_the_future" and flaw is None and not _future(ledger, place, members):
        yield f"the event {place} is refused as from the future: {letter}"


def _future(ledger: _Ledger, place: Place, members: dict[str, Any]) -> bool:
    [record] = ledger.happened.driver.log.read(place[0], place[1], place[2], 1)
    skew = milliseconds(ledger.declaration.events["skew"])
    return bool(members["ts"] > record.append_ms + skew)


def _taken_event(
    ledger: _Ledger, place: Place, members: dict[str, Any], newest: int, accepted: dict[str, int]
) -> Iterator[str]:
    lateness = milliseconds(ledger.declaration.events["lateness"])
    former = accepted.get(members["event_id"])
    if former is not None and former >= newest - lateness:
        yield f"the event {place} was taken, though its id was known: {members}"
    if ledger.exact and members["ts"] < newest - lateness:
        yield f"the event {place} at {members['ts']} was taken, too late for {newest}"
    if _future(ledger, place, members):
        yield f"the event {place} was taken, though it is from the future: {members}"


def _asks(declaration: Declaration, members: dict[str, Any]) -> bool:
    values = _fields(declaration, members)
    return all(values[name] in wanted for name, wanted in declaration.predict.items())


def _fields(declaration: Declaration, members: dict[str, Any]) -> dict[str, Any]:
    """What features see of an event: a default stands for what is not there."""
    fields = {}
    for name, kind in declaration.fields.items():
        value = members.get(name, kind.default)
        fields[name] = float(value) if kind.kind == "float" and value is not None else value
    return fields


# --- features ---------------------------------------------------------------------------------


def _feature_faults(ledger: _Ledger) -> Iterator[str]:
    """Each prediction's features are what their definitions give of the events before it."""
    declaration = ledger.declaration
    logged = {
        (p["source"]["partition"], p["source"]["offset"]): p["features"]
        for _, p in ledger.predictions
    }
    full = any(p.counts["window_events_dropped"] for p in ledger.happened.driver.runner.predicts)
    for records in _partitions(ledger, "events"):
        before: list[definitions.Seen] = []
        size = 0.0
        for place, members in records:
            if members is None or place in ledger.letters:
                continue
            event = (members["ts"], members["who"], _fields(declaration, members))
            values = [abs(x) for x in event[2].values() if isinstance(x, int | float)]
            size = max([size, *values])
            if place[1:] in logged:
                given = logged[place[1:]]
                for wrong in _wrong_features(declaration, event, before, given, size, full=full):
                    yield f"the prediction of {place}: {wrong}"
            before.append(event)


def _wrong_features(
    declaration: Declaration,
    event: definitions.Seen,
    before: list[definitions.Seen],
    given: dict[str, float],
    size: float,
    *,
    full: bool,
) -> Iterator[str]:
    rest = dict(given)
    for name, value in given.items():
        if not (isinstance(value, int | float) and math.isfinite(value)):
            yield f"{name} is {value!r}"
    for feature in declaration.features:
        windowed = any(True for _ in definitions.windows_in(feature))
        if full and windowed:
            rest.pop(definitions.name_of(feature), None)
            continue
        try:
            answers = definitions.answers(feature, event, before, declaration.fields)
        except definitions.Unsure:
            rest.pop(definitions.name_of(feature), None)
            continue
        for name, expected in answers.items():
            value = rest.pop(name, None)
            scale = max(size, size * size) if windowed else 0.0
            if not definitions.agree(expected, value, scale):
                yield f"{name} is {value!r}, expected {expected!r}"
    if rest:
        yield f"features of no declaration: {', '.join(rest)}"


# --- answers, and who serves ------------------------------------------------------------------


def _answer_faults(ledger: _Ledger) -> Iterator[str]:
    """Every answer is one of its task, and a fallback is what was declared."""
    declaration = ledger.happened.declarations[-1]
    fallback = json.loads(json.dumps(declaration.pipeline().fallback))
    for place, prediction in ledger.predictions:
        # Of shadows the champion alone has answered, where a fallback was served in its place.
        answers = {
            slot: shadow["prediction"]
            for slot, shadow in prediction["shadows"].items()
            if slot == line_of(prediction["model"])
        }
        if prediction["fallback"] and prediction["prediction"] != fallback:
            yield f"{place}: the fallback {prediction['prediction']!r} is not {fallback!r}"
        answers["champion"] = prediction["prediction"]
        for slot, answer in answers.items():
            if not _is_answer(declaration, answer, may_lack=slot != "champion"):
                yield f"{place}: {slot} answered {answer!r}"
    shadowed = [example for example in ledger.examples if _open_slots(example)]
    if [e["event_id"] for e in shadowed] != [answers["event_id"] for answers in ledger.answers]:
        yield f"{len(ledger.answers)} answers of the shadows of {len(shadowed)} examples"
    for example, answers in zip(shadowed, ledger.answers, strict=False):
        if _open_slots(example) != set(answers["shadows"]):
            yield f"the shadows of {answers['event_id']} are answered as {answers['shadows']}"
        for slot, shadow in answers["shadows"].items():
            if not _is_answer(declaration, shadow["prediction"], may_lack=True):
                yield f"{answers['event_id']}: {slot} answered {shadow['prediction']!r}"


def _open_slots(example: dict[str, Any]) -> set[str]:
    return {slot for slot, shadow in example["shadows"].items() if "offset" in shadow}


def _is_answer(declaration: Declaration, answer: Any, *, may_lack: bool) -> bool:
    if answer is None:
        return may_lack
    if declaration.kind == "float":
        return isinstance(answer, int | float) and math.isfinite(answer)
    if declaration.kind == "bool":
        return isinstance(answer, int | float) and 0 <= answer <= 1
    known = isinstance(answer, dict) and answer.keys() <= set(declaration.classes)
    return known and all(0 <= share <= 1 for share in answer.values())


def _serving_faults(ledger: _Ledger) -> Iterator[str]:
    """Who serves never goes back but by a decision, and the registry is whole."""
    verdict = audit.verify(ledger.happened.driver.log, KEY)
    if verdict.flaw is not None:
        yield f"the registry: {verdict.flaw}"
    sets = [decision["serving"] for decision in ledger.decisions]
    at: defaultdict[int, int] = defaultdict(int)
    order = sorted(
        ledger.predictions, key=lambda p: (p[1]["source"]["partition"], p[1]["source"]["offset"])
    )
    for place, prediction in order:
        partition = prediction["source"]["partition"]
        for number in range(at[partition], len(sets)):
            if _stands(sets[number], prediction):
                at[partition] = number
                break
        else:
            first = at[partition]
            yield f"{place}: {prediction['model']} does not serve so from decision {first} on"
    yield from _decision_faults(ledger)


def _stands(serving: dict[str, Any], prediction: dict[str, Any]) -> bool:
    if serving["champion"]["model"] != prediction["model"]:
        return False
    slots = {slot: ref["model"] for slot, ref in serving["challengers"].items()}
    slots |= {s: serving[s]["model"] for s in ("predecessor", "first") if serving[s] is not None}
    if serving.get("fallback") is not None:  # the champion shadows then, too
        slots[line_of(prediction["model"])] = prediction["model"]
    return slots == {slot: shadow["model"] for slot, shadow in prediction["shadows"].items()}


def _decision_faults(ledger: _Ledger) -> Iterator[str]:
    if [d["number"] for d in ledger.decisions] != list(range(len(ledger.decisions))):
        yield "decisions are not numbered one by one"
    answered = [d["command_id"] for d in ledger.decisions if d["command_id"] is not None]
    given = [
        command["command_id"]
        for phase in ledger.happened.history.phases
        for command in phase.commands
        if not command.get("forged")
    ]
    refused = sum(1 for place in ledger.letters if place[0] == "commands")
    forged = sum(1 for p in ledger.happened.history.phases for c in p.commands if c.get("forged"))
    if sorted(answered) != sorted(given) or refused != forged:
        yield f"commands {given} were answered as {answered}, and {refused} of {forged} refused"
    modes = {each.promotion["mode"] for each in ledger.happened.declarations}
    for decision in ledger.decisions:
        serving = decision["serving"]
        by_itself = decision["command_id"] is None
        if decision["kind"] == "replaced" and by_itself and "automatic" not in modes:
            yield f"a replacement that nobody may decide: {decision}"
        if decision["kind"] in {"bootstrap", "refreshed"} and "all lines" in decision["reason"]:
            refs = [serving["champion"], *serving["challengers"].values()]
            if len({ref["model"].split("@")[1] for ref in refs}) != 1:
                yield f"models of different ages were made to serve: {decision}"


def _reproduced_faults(ledger: _Ledger) -> Iterator[str]:
    """Predictions are what their snapshots say again."""
    log = ledger.happened.driver.log
    pipeline = ledger.happened.declarations[-1].pipeline()
    if not ledger.predictions:
        return
    done = reproduce(log, pipeline, KEY, sample(log, 12, seed=1))
    for each in done.different:
        said = f"said {each.logged_answer}, and says {each.new_answer}"
        yield f"{each.event_id}: {each.slot} {each.model} {said}"
    for reason in done.refused:
        yield f"a snapshot that was served is refused: {reason}"


# --- labels and examples ----------------------------------------------------------------------


def _label_faults(ledger: _Ledger) -> Iterator[str]:
    """Each label is in one example, or a dead letter that had to be one, or waits."""
    joined = Counter(
        (e["label_source"]["partition"], e["label_source"]["offset"]) for e in ledger.examples
    )
    waiting = sum(join.pending["labels"] for join in ledger.happened.driver.runner.joins)
    for records in _partitions(ledger, "labels"):
        newest = -1
        for place, members in records:
            letter, count = ledger.letters.get(place), joined.pop(place[1:], 0)
            if count > 1 or (count and letter is not None):
                yield f"the label {place} is in {count} examples, and {letter}"
            if ledger.happened.published[place].flaw is not None or members is None:
                if letter is None or letter["reason"] in LABEL_REASONS:
                    yield f"the label {place} is bad, and {letter}: {members}"
                continue
            waiting -= letter is None and not count
            if not _future(ledger, place, members):
                newest = max(newest, members["ts"])
            yield from _judged_label(ledger, place, members, letter, newest)
        if ledger.exact and not ledger.counts["dropped"]:
            yield from _pair_faults(ledger, records)
    if waiting:
        yield f"labels that are nowhere (or {-waiting} too many wait): {waiting}"
    for place in joined:
        yield f"an example with a label that does not lie at {place}"


def _judged_label(
    ledger: _Ledger,
    place: Place,
    members: dict[str, Any],
    letter: dict[str, Any] | None,
    newest: int,
) -> Iterator[str]:
    reason = None if letter is None else letter["reason"]
    future = _future(ledger, place, members)
    if future != (reason == "from_the_future"):
        yield f"the label {place} is {'' if future else 'not '}from the future, and {letter}"
    if reason not in {None, *LABEL_REASONS}:
        yield f"the label {place} is good, and refused: {letter}"
    if reason is not None and not future:
        yield from _late_faults(ledger, place, members, reason, newest)


def _late_faults(
    ledger: _Ledger, place: Place, members: dict[str, Any], reason: str, newest: int
) -> Iterator[str]:
    horizon = milliseconds(ledger.declaration.horizon)
    about = [
        (at, p["ts"])
        for at, p in ledger.predictions
        if p["event_id"] == members["event_id"] and at not in ledger.letters
    ]
    if reason == "late" and not any(newest > ts + horizon for _, ts in about):
        yield f"the label {place} is refused as late, at {newest} for predictions at {about}"
    if reason == "label_before_event" and not any(members["ts"] < ts for _, ts in about):
        yield f"the label {place} is not before its event at {about}: {members}"
    if reason == "duplicate_label" and not any(
        e["event_id"] == members["event_id"] for e in ledger.examples
    ):
        yield f"the label {place} is refused as a duplicate, and none of its id was joined"
    if reason == "orphan" and not ledger.counts["dropped"]:
        in_time = [
            ts
            for at, ts in about
            if ts <= members["ts"] <= newest <= ts + horizon
            and not ledger.overtaken(at, members["ts"] - ts)
        ]
        if in_time:
            yield f"the label {place} is an orphan, and predictions at {in_time} waited for it"


def _pair_faults(
    ledger: _Ledger, records: list[tuple[Place, dict[str, Any] | None]]
) -> Iterator[str]:
    """The one prediction of an id has the first label that is in time and not before it."""
    horizon = milliseconds(ledger.declaration.horizon)
    made: defaultdict[str, list[tuple[Place, int]]] = defaultdict(list)
    for at, prediction in ledger.predictions:
        if at not in ledger.letters:
            made[prediction["event_id"]].append((at, prediction["ts"]))
    joined = {
        (e["label_source"]["partition"], e["label_source"]["offset"]) for e in ledger.examples
    }
    newest, over = -1, set[str]()
    for place, members in records:
        flaw, letter = ledger.happened.published[place].flaw, ledger.letters.get(place)
        reason = None if letter is None else letter["reason"]
        if flaw is not None or members is None or reason == "from_the_future":
            continue
        newest = max(newest, members["ts"])
        name = members["event_id"]
        if reason == "too_many_labels":
            over.add(name)
        if name in over or len(made[name]) != 1:
            continue
        [(at, ts)] = made[name]
        if reason == "orphan" and ledger.overtaken(at, members["ts"] - ts):
            continue
        expected = ts <= members["ts"] and newest <= ts + horizon
        if expected != (place[1:] in joined):
            what = "should be joined" if expected else "should not be joined"
            yield f"the label {place} {what} with {ts}, at {newest}: {members}, {letter}"
        if expected:
            over.add(name)


def _example_faults(ledger: _Ledger) -> Iterator[str]:
    """An example is a prediction as it was made, with a label that may be its own; once."""
    made: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for place, prediction in ledger.predictions:
        if place not in ledger.letters:
            made[prediction["event_id"]].append(_body(prediction))
    used: Counter[str] = Counter()
    for example in ledger.examples:
        body = {name: value for name, value in _body(example).items() if name in PREDICTED}
        if body not in made[example["event_id"]]:
            yield f"an example of a prediction that was not made: {example}"
        source = example["label_source"]
        item = ledger.happened.published["labels", source["partition"], source["offset"]]
        label = json.loads(item.value)
        same = (example["event_id"], example["label"], example["label_ts"])
        if same != (label["event_id"], label["label"], label["ts"]):
            yield f"an example with another label than {label}: {example}"
        if example["label_ts"] < example["ts"]:
            yield f"an example whose label is before its event: {example}"
        used[json.dumps(body["source"], sort_keys=True)] += 1
    for source, count in used.items():
        if count > 1:
            yield f"the prediction of {source} is in {count} examples"


PREDICTED = (
    "event_id", "key", "ts", "source", "model", "example", "prediction", "fallback", "features",
    "shadows",
)  # fmt: skip


def _body(members: dict[str, Any]) -> dict[str, Any]:
    return {name: members[name] for name in PREDICTED}


def _prediction_faults(ledger: _Ledger) -> Iterator[str]:
    """Each prediction is in an example, or refused as the second of its id, or waits or is over."""
    declaration, counts = ledger.declaration, ledger.counts
    span = milliseconds(declaration.horizon) + milliseconds(declaration.events["lateness"])
    newest: defaultdict[int, int] = defaultdict(lambda: -1)
    taken: dict[tuple[int, str], int] = {}
    refused = 0
    for place, prediction in ledger.predictions:
        letter, ts = ledger.letters.get(place), prediction["ts"]
        newest[place[1]] = max(newest[place[1]], ts)
        name = (place[1], prediction["event_id"])
        known = name in taken and taken[name] >= newest[place[1]] - span
        refused += letter is not None
        if letter is None:
            if known:
                yield f"{place} is the second prediction of {name[1]!r}, and was taken"
            taken[name] = ts
        elif letter["reason"] == "duplicate_prediction" and name not in taken:
            yield f"{place} is refused as the second of {name[1]!r}, and there is no first"
    waiting = sum(join.pending["predictions"] for join in ledger.happened.driver.runner.joins)
    over = counts["joined"] + counts["expired"] + waiting + refused
    lost = len(ledger.predictions) - over
    if counts["joined"] != len(ledger.examples) or not 0 <= lost <= counts["dropped"]:
        yield f"predictions that are nowhere: {lost}, {waiting} wait, {counts}"
    alerts = [alert["kind"] for alert in ledger.happened.driver.read("alerts")]
    if bool(counts["dropped"]) != ("pending_overflow" in alerts):
        yield f"{counts['dropped']} were dropped, and the alerts are {alerts}"


def _learning_faults(ledger: _Ledger) -> Iterator[str]:
    """Lines publish where they should, and all examples are scored and learned from."""
    runner, total = ledger.happened.driver.runner, len(ledger.examples)
    if runner.evaluate.counts["examples"] != total:
        yield f"{runner.evaluate.counts['examples']} of {total} examples were scored"
    refresh = ledger.declaration.promotion["refresh"]
    alerts = ledger.happened.driver.read("alerts")
    out = {a["details"].get("line") for a in alerts if a["kind"] == "line_quarantined"}
    published: defaultdict[str, list[int]] = defaultdict(list)
    for record in ledger.happened.driver.records("models"):
        if record.value is not None:
            name, _, version = (record.key or b"").decode().partition("@")
            published[name].append(int(version))
    gone = {
        (r.key or b"").decode() for r in ledger.happened.driver.records("models") if r.value is None
    }
    for name in ledger.declaration.models:
        versions = published[name]
        if versions != sorted(set(versions)) or versions[-1:] > [total]:
            yield f"{name} published {versions}, of {total} examples"
        if isinstance(refresh, int) and name not in out and not gone:
            expected = [n for n in range(total + 1) if n % refresh == 0]
            if versions != expected:
                yield f"{name} published {versions}, of {total} examples, at every {refresh}"


CHECKS = (
    _event_faults,
    _feature_faults,
    _answer_faults,
    _serving_faults,
    _reproduced_faults,
    _label_faults,
    _example_faults,
    _prediction_faults,
    _learning_faults,
)
