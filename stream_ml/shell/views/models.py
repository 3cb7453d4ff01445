"""The models that answer: the serving set with ages, and how each stood when last scored."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.codec import decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.models.envelope import decode
from stream_ml.sealing import Seals, strip_seal
from stream_ml.shell.log.reading import last_records
from stream_ml.shell.views.alerts import read_alerts
from stream_ml.shell.views.costs import learn_tasks, read_costs
from stream_ml.shell.views.newcomers import read_newcomers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.records import ModelRef, ServingSet
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.alerts import AlertView
    from stream_ml.shell.views.costs import LineCost
    from stream_ml.shell.views.newcomers import Newcomer
    from stream_ml.shell.views.registry import RegistryView

__all__ = ["ModelView", "ModelsView", "last_evaluations", "newest_evaluations", "read_models"]

# The forms of a score that are shown of every model.
FORMS = ("cumulative", "windowed")
# The members of an evaluation that are shown of every model.
EVALUATION_MEMBERS = {
    "model": str,
    "version": str,
    "ts": int,
    "n": int,
    "scores": dict,
    "coverage": float,
}
EVIDENCE = {"wins", "losses", "ties", "thin", "e_value", "needed", "gain", "gain_low", "gain_high"}
# Enough for the newest evaluation of every model: they are written together.
EVALUATIONS = 200


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model of the serving set.

    Attributes:
        role: champion, challenger, predecessor or first.
        model: `name@version`.
        examples: how many its snapshot has learned; None where that is no longer kept.
        taken_ts: the time of events that it was taken at (UTC ms).
        age_ms: how long before the newest prediction that was, in the time of events.
        digest: the canonical digest of its learner.
        batch: how many examples its line fits at once, where a command has changed that.
    """

    role: str
    model: str
    examples: int | None
    taken_ts: int | None
    age_ms: int | None
    digest: str
    batch: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ModelsView:
    """All that answer.

    Attributes:
        models: the serving set, the champion first.
        evidence: what speaks for each challenger, by line, as its newest evaluation has it.
        costs: of each line, where a worker has measured them.
        evaluations: the newest of each model.
        quarantines: the open alerts about lines that learn no more, or are asked no more.
        newcomers: lines that are taught what is recorded, and do not contend yet.
    """

    models: tuple[ModelView, ...] = ()
    evidence: Mapping[str, Mapping[str, Any]] | None = None
    costs: Mapping[str, LineCost] = field(default_factory=dict)
    evaluations: tuple[Mapping[str, Any], ...] = ()
    quarantines: tuple[AlertView, ...] = ()
    newcomers: tuple[Newcomer, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; of the evaluations only the slices."""
        return {
            "models": [model.as_dict() for model in self.models],
            "quarantines": [alert.as_dict() for alert in self.quarantines],
            "newcomers": [newcomer.as_dict() for newcomer in self.newcomers],
            "evidence": self.evidence or {},
            "costs": {line: cost.as_dict() for line, cost in self.costs.items()},
            "slices": {e["model"]: e["slices"] for e in self.evaluations if e.get("slices")},
        }


def read_models(log: Log, registry: RegistryView, key: bytes | None) -> ModelsView:
    """The serving set of the newest decision.

    Args:
        log: that snapshots and evaluations lie on.
        registry: as it was read from it.
        key: checks the seals of alerts and evaluations; without one all are believed.
    """
    quarantines = read_alerts(log, key).quarantines
    newest = registry.newest
    if newest is None:
        return ModelsView(quarantines=quarantines)
    evaluations = newest_evaluations(log, registry.pipeline, key)
    evidence = {
        evaluation["model"]: evaluation["evidence"]
        for evaluation in evaluations
        # Evidence for the champion, from when it challenged, is history.
        if evaluation.get("evidence")
        if evaluation["model"] in newest.serving.challengers
    }
    models = tuple(_models(log, newest.serving))
    tasks = learn_tasks(log, newest.serving.lines)
    costs, newcomers = read_costs(log, tasks), read_newcomers(log, tasks)
    return ModelsView(models, evidence, costs, tuple(evaluations), quarantines, newcomers)


def _models(log: Log, serving: ServingSet) -> Iterator[ModelView]:
    now_ms = _newest_prediction_ms(log)
    for role, ref in _roles(serving):
        examples, taken_ms, batch = _snapshot_facts(log, ref)
        age_ms = None
        if now_ms is not None and taken_ms is not None and taken_ms >= 0:
            age_ms = max(0, now_ms - taken_ms)
        yield ModelView(role, ref.model, examples, taken_ms, age_ms, ref.digest, batch)


def _roles(serving: ServingSet) -> Iterator[tuple[str, ModelRef]]:
    yield "champion", serving.champion
    for ref in serving.challengers.values():
        yield "challenger", ref
    if serving.predecessor is not None:
        yield "predecessor", serving.predecessor
    if serving.first is not None:
        yield "first", serving.first


def _snapshot_facts(log: Log, ref: ModelRef) -> tuple[int | None, int | None, int | None]:
    """How many examples are in a snapshot, the time of events it was taken at, and its batch."""
    for record in log.read("models", 0, ref.offset, 1):
        # Compaction may have left only later records.
        if record.offset == ref.offset and record.value is not None:
            with suppress(BadRecord):
                snapshot = decode(record.value)
                epoch = snapshot.epoch
                return snapshot.examples["count"], epoch.get("watermark"), epoch.get("batch")
    return None, None, None


def _newest_prediction_ms(log: Log) -> int | None:
    times = []
    for record in last_records(log, "predictions", 1):
        with suppress(BadRecord):  # not one of ours
            times.append(decode_prediction(record.value).ts)
    return max(times, default=None)


def newest_evaluations(log: Log, pipeline: str | None, key: bytes | None) -> list[dict[str, Any]]:
    """How each model stood when that was last written down, the served one first.

    Args:
        log: that they lie on.
        pipeline: its name; None where nobody has been at work.
        key: checks seals; without one all are believed.
    """
    newest = {}
    for evaluation in last_evaluations(log, pipeline, key, EVALUATIONS):
        if _is_evaluation(evaluation):
            newest[evaluation["model"]] = evaluation
    return list(newest.values())


def last_evaluations(
    log: Log, pipeline: str | None, key: bytes | None, count: int
) -> Iterator[dict[str, Any]]:
    """The last evaluations, the newest last; what others have put there is passed over.

    Args:
        log: that they lie on.
        pipeline: its name; None where nobody has been at work.
        key: checks seals; without one all are believed.
        count: of how many records.
    """
    body = strip_seal
    if key is not None and pipeline is not None:
        body = Seals(key, pipeline, log.identity).records("evaluations").unseal
    for record in last_records(log, "evaluations", count):
        with suppress(orjson.JSONDecodeError, BadRecord):
            members = orjson.loads(body(record.value) or b"null")
            if isinstance(members, dict):
                yield members


def _is_evaluation(members: Any) -> bool:
    """Whether it has the members of one that are shown, each of its type."""
    if not isinstance(members, dict):
        return False
    evidence = members.get("evidence")
    return (
        all(isinstance(members.get(name), kind) for name, kind in EVALUATION_MEMBERS.items())
        and all(isinstance(members["scores"].get(form), dict) for form in FORMS)
        and all(
            isinstance(figure, int | float)
            for form in FORMS
            for figure in members["scores"][form].values()
        )
        and (evidence is None or (isinstance(evidence, dict) and evidence.keys() >= EVIDENCE))
        and _are_slices(members.get("slices"))
    )


def _are_slices(slices: Any) -> bool:
    return slices is None or (
        isinstance(slices, dict)
        and all(
            isinstance(part, dict)
            and isinstance(part.get("n"), int)
            and isinstance(part.get("scores"), dict)
            and isinstance(part["scores"].get("fading"), dict)
            and all(isinstance(each, int | float) for each in part["scores"]["fading"].values())
            for part in slices.values()
        )
    )
