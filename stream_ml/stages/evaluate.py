"""Examples and snapshots in, decisions out: the only writer of the registry.

Theory of operation:

1. Scores come from the predictions that were made, never from predicting again: the served one,
   each challenger's, the never-updated first model's, and baselines that know no more.
2. Lines publish at the same instants, and are renewed together: a set is written when every
   line's snapshot of that instant is there, so that what is compared has the same age. A line
   still missing `STALE_EXAMPLES` later is stale and is not waited for until it publishes again.
3. The champion's snapshot must be sound (signed, loadable, its golden predictions made again and
   finite) and its live learner not have diverged; if it is refused, none is renewed.
4. The snapshot that the new champion follows goes on as `predecessor`; the champion's first one
   from `promotion.first` examples on is kept as `first`.
5. Challengers' snapshots that never served are kept `keep` deep and then given tombstones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import dead_letter, decode_example, encode, encode_decision, serving_set
from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.scores import Delays, Scores
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import (
    Answer,
    Decision,
    Evaluation,
    Example,
    LabelValue,
    ModelRef,
    Output,
    ServingSet,
    line_of,
)
from stream_ml.stages.watermark import ExamplesWatermark

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.stages.task import Piece

__all__ = ["EVALUATE_EVERY", "STALE_EXAMPLES", "Evaluate"]

EVALUATE_EVERY = 1_000
STALE_EXAMPLES = 1_000
# Fewer examples between two refreshes say nothing about divergence.
DIVERGENCE_EXAMPLES_MIN = 50
ACTOR = "evaluate"


@dataclass(slots=True)
class _Arrival:
    """A line's snapshot of one instant; `flaw` is what speaks against it, if anything."""

    ref: ModelRef
    flaw: str | None


class Evaluate:
    """The evaluate stage of a pipeline.

    Args:
        pipeline: the declaration.
        key: signs the registry; snapshots must be signed with it.
    """

    def __init__(self, pipeline: Pipeline, key: bytes) -> None:
        self._pipeline = pipeline
        self._key = key
        task = pipeline.task
        self._scores: dict[str, Scores] = {}
        self._versions: dict[str, str] = {}
        self._baselines = Baselines(task.kind, task.classes, pipeline.horizon_ms)
        self._delays = Delays()
        self._watermark = ExamplesWatermark(pipeline.horizon_ms)
        self._n = 0
        self._number = 0
        self._serving: ServingSet | None = None
        self._version = -1
        self._waiting: dict[int, dict[str, _Arrival]] = {}
        self._stale: set[str] = set()
        self._unserved: dict[str, list[str]] = {name: [] for name in pipeline.recipes}
        self._inputs = {"examples": 0, "models": 0}
        self._must_checkpoint = False

    def start(self) -> list[Output]:
        """Nothing: the first decision follows from the lines' first snapshots."""
        return []

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in examples or snapshots."""
        outputs: list[Output] = []
        fold = self._model if records[0].topic == "models" else self._example
        for record in records:
            self._inputs[record.topic] = record.offset + 1
            try:
                fold(record, outputs)
            except BadRecord as error:
                outputs.append(dead_letter(record, "evaluate", error))
        self._must_checkpoint |= bool(outputs)
        return outputs

    # --- examples ------------------------------------------------------------------------------

    def _example(self, record: Record, outputs: list[Output]) -> None:
        example: Example = record.memo or decode_example(record.value)
        prediction, label = example.prediction, example.label
        self._n += 1
        self._watermark.advance(example.label_source.partition, example.label_ts)
        self._delays.update(example.label_ts - prediction.ts)
        served = None if prediction.fallback else prediction.prediction
        self._score("served", prediction.model, label, served)
        for slot, shadow in prediction.shadows.items():
            if slot != "predecessor":
                self._score(slot, shadow.model, label, shadow.prediction)
        for name, said in self._baselines.answers(prediction.ts).items():
            self._score(name, name, label, said)
        self._baselines.learn(label, example.label_ts)
        if self._n % EVALUATE_EVERY == 0:
            outputs += [
                Output("evaluations", each.model.encode(), encode(each), each)
                for each in self.report()
            ]
        if self._waiting:
            self._give_up_on_stale(outputs)

    def _score(self, name: str, version: str, label: LabelValue, said: Answer) -> None:
        scores = self._scores.get(name)
        if scores is None:
            task = self._pipeline.task
            scores = self._scores[name] = Scores(task.kind, task.classes)
        self._versions[name] = version
        scores.update(label, said)

    def report(self) -> list[Evaluation]:
        """How every model stands now, the served one first."""
        delays = self._delays.report()
        return [
            Evaluation(
                model=name,
                version=self._versions[name],
                ts=self._watermark.ms,
                n=scores.n,
                scores=scores.report(),
                coverage=scores.coverage,
                delay_ms=delays,
            )
            for name, scores in self._scores.items()
        ]

    # --- snapshots -----------------------------------------------------------------------------

    def _model(self, record: Record, outputs: list[Output]) -> None:
        if record.value is None:
            return  # our own tombstone
        snapshot: Snapshot = record.memo or decode(record.value)
        name = snapshot.name
        if name not in self._pipeline.recipes:
            lines = ", ".join(self._pipeline.recipes)
            raise BadRecord("unknown_line", "$.name", f"expected one of {lines}, given {name!r}")
        try:
            flaw = self._flaw(snapshot)
        except SnapshotRefused as refusal:
            raise BadRecord(f"snapshot_{refusal.reason}", "$", str(refusal)) from None
        ref = ModelRef(snapshot.model, snapshot.digest, record.offset)
        self._stale.discard(name)
        self._unserved[name].append(snapshot.model)
        if snapshot.version > self._version:
            self._waiting.setdefault(snapshot.version, {})[name] = _Arrival(ref, flaw)
            self._renew_if_complete(snapshot.version, outputs)

    def _flaw(self, snapshot: Snapshot) -> str | None:
        """Why the champion's snapshot should not serve; other lines' need only be genuine."""
        if snapshot.name != self._champion_line():
            snapshot.verify(self._key)
            return None
        p = self._pipeline
        snapshot.verify(self._key)
        try:
            open_snapshot(snapshot, p.task, self._key, p.feature_set.hash)
        except SnapshotRefused as refusal:
            return str(refusal)
        return self._divergence(snapshot.epoch)

    def _divergence(self, epoch: dict[str, Any]) -> str | None:
        live, served = epoch["live_loss"], epoch["served_loss"]
        if epoch["n"] < DIVERGENCE_EXAMPLES_MIN or live is None or served is None:
            return None
        bound = self._pipeline.promotion.divergence
        excess = live - served
        if self._pipeline.task.kind == "regression":
            excess /= served or 1.0
        if excess <= bound:
            return None
        return (
            f"its learner has diverged: loss {live:.4f} live against {served:.4f} served over the "
            f"same {epoch['n']} examples, more than {bound} worse"
        )

    def _champion_line(self) -> str:
        if self._serving is None:
            return self._pipeline.champion
        return line_of(self._serving.champion.model)

    def _give_up_on_stale(self, outputs: list[Output]) -> None:
        version = min(self._waiting)
        if self._n >= version + STALE_EXAMPLES:
            self._stale |= self._pipeline.recipes.keys() - self._waiting[version].keys()
            self._renew_if_complete(version, outputs)

    def _renew_if_complete(self, version: int, outputs: list[Output]) -> None:
        arrived = self._waiting[version]
        if not self._pipeline.recipes.keys() <= arrived.keys() | self._stale:
            return
        self._waiting = {v: lines for v, lines in self._waiting.items() if v > version}
        self._version = version
        line = self._champion_line()
        flaw = arrived[line].flaw if line in arrived else f"the line {line!r} published nothing"
        if flaw is None:
            self._renew(version, {name: arrival.ref for name, arrival in arrived.items()}, outputs)
        elif self._serving is not None:
            reason = f"{line}@{version} refused, none is renewed: {flaw}"
            outputs.append(self._decide("refused", reason, self._serving))
        self._drop_unserved(outputs)

    def _renew(self, version: int, refs: dict[str, ModelRef], outputs: list[Output]) -> None:
        champion = refs.pop(self._champion_line())
        former = self._serving
        first = None if former is None else former.first
        if first is None and version >= self._pipeline.promotion.first:
            first = champion
        serving = ServingSet(champion, refs, None if former is None else former.champion, first)
        self._unserved[line_of(champion.model)].remove(champion.model)
        kind = "bootstrap" if former is None else "refreshed"
        lines = "all lines" if len(refs) + 1 == len(self._pipeline.recipes) else "some lines"
        outputs.append(self._decide(kind, f"{lines} published @{version}", serving))

    def _decide(self, kind: str, reason: str, serving: ServingSet) -> Output:
        decision = Decision(
            number=self._number,
            kind=kind,
            ts=self._watermark.ms,
            actor=ACTOR,
            reason=reason,
            serving=serving,
            inputs=dict(self._inputs),
        )
        self._number += 1
        self._serving = serving
        value = encode_decision(decision, self._key)
        return Output("registry", self._pipeline.name.encode(), value, decision)

    def _drop_unserved(self, outputs: list[Output]) -> None:
        for models in self._unserved.values():
            while len(models) > self._pipeline.keep:
                outputs.append(Output("models", models.pop(0).encode(), None))

    # --- state ---------------------------------------------------------------------------------

    def must_checkpoint(self) -> bool:
        """When something was written since: a decision must not be made twice."""
        return self._must_checkpoint

    def dirty(self) -> list[Piece]:
        """Everything: the scores by name, and the rest."""
        self._must_checkpoint = False
        rest = {
            "baselines": self._baselines.dump(),
            "delays": self._delays.dump(),
            "watermark": self._watermark.dump(),
            "n": self._n,
            "number": self._number,
            "serving": None if self._serving is None else asdict(self._serving),
            "version": self._version,
            "waiting": [
                (version, name, asdict(arrival))
                for version, lines in self._waiting.items()
                for name, arrival in lines.items()
            ],
            "stale": sorted(self._stale),
            "unserved": self._unserved,
            "inputs": self._inputs,
            "versions": self._versions,
        }
        return [
            ("", orjson.dumps(rest)),
            *((f"s{name}", orjson.dumps(each.dump())) for name, each in self._scores.items()),
        ]

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state."""
        state = {name: orjson.loads(value) for name, value in pieces}
        rest = state.pop("")
        task = self._pipeline.task
        self._versions = rest["versions"]
        for name in self._versions:  # in the order in which they were first scored
            self._scores[name] = Scores(task.kind, task.classes)
            self._scores[name].load(state[f"s{name}"])
        self._baselines.load(rest["baselines"])
        self._delays.load(rest["delays"])
        self._watermark.load(rest["watermark"])
        self._n, self._number = rest["n"], rest["number"]
        self._serving = None if rest["serving"] is None else serving_set(rest["serving"])
        self._version = rest["version"]
        for version, name, arrival in rest["waiting"]:
            ref = ModelRef(**arrival["ref"])
            self._waiting.setdefault(version, {})[name] = _Arrival(ref, arrival["flaw"])
        self._stale = set(rest["stale"])
        self._unserved, self._inputs = rest["unserved"], rest["inputs"]
