"""The nouns: what travels between the stages, decoded.

Times are UTC milliseconds as integers (`ts`: event time; `append_ms`: when the log took the
record in). A record's wire form is plain JSON; `topics/*.toml` describes each field, `codec`
turns bytes into these and back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Meta, Struct

from stream_ml.schema import INTEGER_MAX

__all__ = [
    "FORGOTTEN",
    "ID_LENGTH_MAX",
    "NO_RECORD",
    "OUT_OF_TIME",
    "PARTITIONS_MAX",
    "Alert",
    "Answer",
    "ColumnSummary",
    "Command",
    "Correction",
    "DeadLetter",
    "Decision",
    "EntityEvent",
    "EntityFacts",
    "Evaluation",
    "Event",
    "EventLabel",
    "Example",
    "LabelValue",
    "LateEvent",
    "ModelRef",
    "Natural",
    "Number",
    "Output",
    "Prediction",
    "Record",
    "ServingSet",
    "Shadow",
    "ShadowAnswer",
    "ShadowAnswers",
    "Slices",
    "Source",
    "Summary",
    "is_forgotten",
    "line_of",
    "version_of",
]

# In the evidence of a command that was refused for its time: the age that was allowed.
OUT_OF_TIME = "command_age_ms"
# The first decision names this as the hash of the record before it.
NO_RECORD = "0" * 64

# A longer id could not be a Kafka key for long, and is held in memory while it may repeat.
ID_LENGTH_MAX = 512
# Kafka has no clusters beyond; who says more would fill memory with partitions that are none.
PARTITIONS_MAX = 1_000_000

# The types of the wire: `codec` reads records by them. A whole number stays one.
# Past a double's whole numbers the long way decides.
Number = float | Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Answer = Number | dict[str, Number] | None
LabelValue = bool | str | float
Identifier = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX)]
Slices = Annotated[tuple[Annotated[str, Meta(max_length=ID_LENGTH_MAX)], ...], Meta(max_length=32)]
Natural = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Partition = Annotated[int, Meta(ge=0, lt=PARTITIONS_MAX)]
Place = Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
ExampleOffset = Annotated[int, Meta(ge=-1, le=INTEGER_MAX)]


@dataclass(slots=True)
class Record:
    """A record as the log holds it. `memo` is its decoded form, where somebody already has it.

    The memo spares decoding what this process has just encoded; it is never more than what
    decoding `value` would give. `key` and `value` are raw; a `value` of None is a tombstone.
    `origin` is where a record lay that was forwarded to the partition of its key.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    append_ms: int
    memo: Any = None
    origin: Source | None = None


# The key of a record that was forgotten, whose value is gone, begins so; a subject follows.
FORGOTTEN = b"forgotten:"


def is_forgotten(record: Record) -> bool:
    """Whether the record was forgotten: it is a tombstone that says for whom."""
    return record.value is None and record.key is not None and record.key.startswith(FORGOTTEN)


@dataclass(slots=True)
class Output:
    """A record that a stage wants written. Its partition follows from its key and topic.

    `origin` is where a record lies that is forwarded, unchanged, to the partition of its key.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    memo: Any = None
    origin: Source | None = None


class Source(Struct, forbid_unknown_fields=True, gc=False):
    """The position of a record: a partition of its topic and the offset there."""

    partition: Partition
    offset: Natural


@dataclass(slots=True)
class Event:
    """Something that happened to an entity (`key`) at event time `ts`.

    `fields` holds exactly the declared fields, the key's own among them; an optional field
    that was absent or null is None.
    """

    event_id: str
    ts: int
    key: str
    fields: dict[str, Any]


@dataclass(slots=True)
class EventLabel:
    """The truth about an event, known at `ts` (not the event's time)."""

    event_id: str
    ts: int
    label: LabelValue
    source: str | None = None


class Shadow(Struct, forbid_unknown_fields=True):
    """A model that does not serve, at event time. `model` is `name@version`.

    `offset` is the place of its snapshot on `models` where its answer is still to be made: evaluate
    does, when the label is there, from the features that were logged. Otherwise `prediction` is its
    answer, None if it had none.
    """

    model: str
    prediction: Answer = None
    offset: Natural | None = None


class Prediction(Struct, forbid_unknown_fields=True):
    """A served prediction with all that is needed to make it again.

    `model` is `name@version` of the champion and `example` the offset on `examples` of the
    newest example inside it (-1: none). Where the champion had no answer, `prediction` is the
    declared fallback and `fallback` is true; where the serving set has a fallback it is that one,
    and the champion's own answer is a shadow. `source` is the event's place on `events`.
    `shadows` is keyed by slot: a line, `predecessor` or `first`; but for the champion's own they
    have no answers yet. (Those of former releases have.) `slices` names those that the event is in,
    where any are declared.
    """

    event_id: Identifier
    key: Identifier
    ts: Natural
    source: Source
    model: str
    example: ExampleOffset
    prediction: Answer
    fallback: bool
    features: dict[str, Number]
    shadows: dict[str, Shadow]
    slices: Slices = ()

    @property
    def own_answer(self) -> Answer:
        """The champion's own answer, also where a fallback was served; None if it had none."""
        if not self.fallback:
            return self.prediction
        shadow = self.shadows.get(line_of(self.model))
        return None if shadow is None else shadow.prediction

    def with_shadows(self, shadows: dict[str, Shadow]) -> Prediction:
        """The same prediction, with other shadows.

        Args:
            shadows: by slot.
        """
        # Three times as fast as `msgspec.structs.replace`, on the way of every example.
        return Prediction(
            self.event_id,
            self.key,
            self.ts,
            self.source,
            self.model,
            self.example,
            self.prediction,
            self.fallback,
            self.features,
            shadows,
            self.slices,
        )


class Correction(Struct, forbid_unknown_fields=True, gc=False):
    """The label that another one takes the place of, its time, and whether it was silence.

    `first_ts` is the time of the event's first label, by which it was scored; None in records of
    before it was kept, in which it is `ts`.
    """

    label: bool | str | Number
    ts: Natural
    implicit: bool = False
    first_ts: Natural | None = None

    @property
    def scored_ms(self) -> int:
        """The time of the label that the example was scored by, UTC milliseconds."""
        return self.ts if self.first_ts is None else self.first_ts


@dataclass(slots=True)
class Example:
    """A prediction and the truth about it.

    `label_source` is the label's place on `labels`; `label_from` is who knew it, as the label's own
    member `source` says. `number` counts the examples of a join partition, from the offset of the
    first label that it read (None in those of former releases). `implicit` says that there was no
    label: silence was taken for one, and `label_source` is the beginning of the partition. Where
    the label takes the place of another one of the same event, `correction` says of which.
    """

    prediction: Prediction
    label: LabelValue
    label_ts: int
    label_source: Source
    label_from: str | None = None
    number: int | None = None
    implicit: bool = False
    correction: Correction | None = None


class ShadowAnswer(Struct, forbid_unknown_fields=True):
    """What a snapshot, `name@version`, said in a slot; None where it had no answer."""

    model: str
    prediction: Answer


class ShadowAnswers(Struct, forbid_unknown_fields=True):
    """What the shadows of a prediction said, made when its label was there.

    `event_id` is the event's, and `example` the offset of the example on `examples`. `shadows` is
    keyed by slot, as the prediction's own are.
    """

    event_id: Identifier
    example: Natural
    shadows: dict[str, ShadowAnswer]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A snapshot by name, with its canonical digest and its offset on `models`."""

    model: str
    digest: str
    offset: int


@dataclass(frozen=True, slots=True)
class ServingSet:
    """The models that predict: applied whole, or not at all.

    `challengers` is keyed by line. `predecessor` is what the champion replaced; `first` is the
    champion line's first settled snapshot, never updated, kept to show what updating is worth.
    `fallback` is the answer that is served in place of the champion's; None: the champion serves.
    While there is one, predictions are marked so, and the champion's own answers are shadows under
    the name of its line, so that it is judged as if it served.
    """

    champion: ModelRef
    challengers: dict[str, ModelRef] = field(default_factory=dict)
    predecessor: ModelRef | None = None
    first: ModelRef | None = None
    fallback: Answer = None

    @property
    def lines(self) -> dict[str, ModelRef]:
        """The snapshot of each line that serves or challenges."""
        return {line_of(self.champion.model): self.champion, **self.challengers}


@dataclass(frozen=True, slots=True)
class Decision:
    """One record of the registry: what was decided, by whom, why, on what evidence.

    `kind`: bootstrap, settling, settled, refreshed, refused, replaced, rolled_back, fell_back,
    recovered, paused, resumed, suspended, continued, proposed, lapsed, restarted, batched,
    redriven, applied or forgotten.
    `number` counts decisions from 0. `previous` is the SHA-256 of the registry's record before it,
    so that none can be left out. `ts` is the examples watermark at the decision (-1: before any).
    `inputs` are the offsets, one past the last record read, per input topic of evaluate. A decision
    with a `command_id` answers that command: `signed_by` is the operator whose key signed it, while
    `actor` is who is named in it; `given_ms` is the command's own time, and `received_ms` when the
    log took it in. `log` is the identity of the log that it was written to. (None of these is in
    records of former releases.)
    """

    number: int
    kind: str
    ts: int
    actor: str
    reason: str
    serving: ServingSet
    inputs: dict[str, int]
    previous: str
    evidence: dict[str, Any] | None = None
    command_id: str | None = None
    log: str | None = None
    signed_by: str | None = None
    given_ms: int | None = None
    received_ms: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The decision as every JSON output has it: its members, and `champion` by name."""
        return {**asdict(self), "champion": self.serving.champion.model}


@dataclass(frozen=True, slots=True)
class Command:
    """An operator's wish, such as promote, rollback, restart or forget.

    `expect` is the champion that the operator believes to serve, as a line or `name@version`;
    where another serves, nothing is done. `model` is what to promote, likewise, or the line to
    restart, or whose batches change. `operator` names the key that signs. `pipeline` and the
    identity `log` say where it may be carried out, and nowhere else (None in commands of former
    releases, which are carried out nowhere). `details` belong to a kind: of a redrive, the dead
    letters whose records were published again with it; of a forget, what stands for the key; of an
    apply, the plan; of a batch, how many examples it has (`batch`).
    """

    command_id: str
    kind: str
    ts: int
    operator: str
    actor: str
    reason: str
    expect: str | None = None
    model: str | None = None
    pipeline: str | None = None
    log: str | None = None
    details: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model stands: scores from stored predictions, coverage, delay, evidence.

    `model` is a line, `served`, `first` or a baseline; `version` the snapshot that answered last.
    `scores` maps `cumulative`, `fading` and `windowed` to scores by name. `coverage` is the
    share of this model's predictions that had an answer; `delay_ms` has p50, p90 and p99. `slices`
    has the same by slice, where any are declared, but for the windowed scores and delays.
    """

    model: str
    version: str
    ts: int
    n: int
    scores: dict[str, dict[str, float]]
    coverage: float
    delay_ms: dict[str, int]
    evidence: dict[str, Any] | None = None
    slices: dict[str, Any] | None = None


class ColumnSummary(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a block of time says of one column: a field, or a feature.

    `n` values were there, `missing` were not. Of numbers: the range, and a sketch of them, how
    many (`counts`) lie at which `places`, which stand in the order of the numbers, at a `level` of
    resolution (see `monitoring.sketch`). Of other values: how often each of the first came, and
    how many were none of these (`others`). `missing_by` has how many of those missing are of events
    of which kind, where the pipeline tells kinds apart.
    """

    n: Natural
    missing: Natural
    low: Number | None = None
    high: Number | None = None
    level: Natural = 0
    places: tuple[Place, ...] = ()
    counts: tuple[Natural, ...] = ()
    categories: dict[str, Natural] | None = None
    others: Natural = 0
    missing_by: dict[str, Natural] | None = None


class Summary(Struct, forbid_unknown_fields=True):
    """What came in one partition of events in one block of event time, `start` up to `end`.

    `events` were taken, of which `predictions` asked for one; `refused` counts the records that
    were not, by reason and path.
    """

    partition: Partition
    start: Natural
    end: Natural
    events: Natural
    predictions: Natural
    refused: dict[str, Natural]
    fields: dict[str, ColumnSummary]
    features: dict[str, ColumnSummary]


class EntityEvent(Struct, forbid_unknown_fields=True):
    """What an event puts into windows of entities over all partitions."""

    offset: Natural
    ts: Natural
    fields: dict[str, str | int | float | bool | None]


class EntityFacts(Struct, forbid_unknown_fields=True):
    """How far one partition of events has come, and what was taken of it.

    All events below `offset` were judged; of those that were taken `events` are the newest. None
    will be taken that is older than `frontier`, and those that ask were answered where their time
    less the delay is at most `answered`. `oldest` is the least of these times that still waits.
    """

    partition: Partition
    offset: Natural
    frontier: Natural
    answered: Natural
    oldest: int | None
    events: tuple[EntityEvent, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should know: one change of what is open, or a happening.

    `kind` names it for machines. `severity` is critical, warning or info. `state` is `open`,
    `resolved`, or `once` of what has no end. `subject` is what it is about (`line:quick`,
    `events/not_json`), empty if nothing more than the kind says; the subjects of a group are in its
    details. `partition` is that of the task which raised it. (Former releases wrote none of these.)
    """

    kind: str
    ts: int
    stage: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    severity: str = "warning"
    state: str = "once"
    subject: str = ""
    partition: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was refused: where it lay, who refused it, why, and its bytes.

    `value` is base64 up to 256 KiB; of a longer one only `length` and `sha256` are kept.
    """

    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    path: str
    message: str
    key: str | None
    value: str | None
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LateEvent(DeadLetter):
    """An event that came too late, where these have a topic of their own: as a dead letter.

    `behind_ms` is how far behind its partition's watermark it lay, in milliseconds.
    """

    behind_ms: int


# A handful of names are asked for with every example.
@lru_cache(maxsize=1_024)
def line_of(model: str) -> str:
    """The line of a snapshot's name.

    >>> line_of("logistic@4000")
    'logistic'
    """
    return model.rpartition("@")[0]


@lru_cache(maxsize=1_024)
def version_of(model: str) -> int:
    """The version of a snapshot's name: how many examples it had learned.

    >>> version_of("logistic@4000")
    4000
    """
    return int(model.rpartition("@")[2])
