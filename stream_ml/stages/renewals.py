"""Snapshots in: the lines are renewed, each for itself and all at one instant.

1. A set is written when every line's snapshot of an instant is there (`refresh`), so that what is
   compared has the same age.
2. A snapshot must be sound (signed, loadable, its golden predictions made again and finite), and
   the live learner of the champion's not have diverged (`evaluation.divergence`). A line whose
   snapshot is refused, or that published none, stays as it is, and all others are renewed.
3. Challengers' snapshots that never served are kept `keep` deep and then given tombstones, but
   not before all that they shadowed has met its label, or can meet none (`superseded`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import ModelRef, Output, ServingSet, version_of
from stream_ml.stages.staleness import Staleness

if TYPE_CHECKING:
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.records import Record
    from stream_ml.stages.decisions import Decisions
    from stream_ml.stages.refresh import Renewal
    from stream_ml.stages.shadows import Shadows

__all__ = ["Renewals"]

# The kind of alert that is open while a line cannot be renewed.
REFUSED = "line_refused"


class Renewals:
    """What follows from the snapshots that lines publish.

    Args:
        decisions: what serves, and what bears on it.
        shadows: is given what was opened, for it may shadow soon.

    Attributes:
        staleness: whether what serves is renewed.
    """

    def __init__(self, decisions: Decisions, shadows: Shadows) -> None:
        self._decisions = decisions
        self._shadows = shadows
        self.staleness = Staleness(decisions.alarms)

    def add(self, record: Record, outputs: list[Output]) -> None:
        """Take in a snapshot, or a tombstone of one.

        Args:
            record: of `models`.
            outputs: of the stage; what is decided is added.

        Raises:
            BadRecord: it is not genuine, of no declared line, or was there before.
        """
        decisions = self._decisions
        if record.value is None:
            decisions.refresh.tombstone((record.key or b"").decode(errors="replace"))
            return
        snapshot: Snapshot = record.memo or decode(record.value)
        name = snapshot.name
        if name not in decisions.pipeline.recipes:
            lines = ", ".join(decisions.pipeline.recipes)
            raise BadRecord("unknown_line", "$.model", f"expected one of {lines}, given {name!r}")
        decisions.registry.check_log(snapshot.log)
        try:
            snapshot.verify(decisions.key)
        except SnapshotRefused as refusal:
            raise BadRecord(f"snapshot_{refusal.reason}", "$", str(refusal)) from None
        decisions.refresh.check(snapshot)
        flaw = self._flaw(snapshot, record.offset)
        if snapshot.parent is None and decisions.refresh.newest(name) >= 0:
            # It started anew: what spoke for its namesake must not speak for it.
            decisions.contest.renew([line for line in decisions.contest.lines if line != name])
            decisions.gates.retain([line for line in decisions.pipeline.recipes if line != name])
            decisions.settling.restart(name)
            self._shadow_again(name, outputs)
        ref = ModelRef(snapshot.model, snapshot.digest, record.offset)
        if decisions.refresh.add(snapshot, ref, flaw):
            self._renew_if_complete(snapshot.version, outputs)

    def _shadow_again(self, line: str, outputs: list[Output]) -> None:
        """Let a line answer again that has started anew."""
        if self._shadows.renew(line):
            message = f"the line {line!r} has started anew, and is asked again"
            ts = self._decisions.watermark.ms
            outputs += self._decisions.alarms.resolve("shadow_slow", f"line:{line}", message, ts)

    def _flaw(self, snapshot: Snapshot, offset: int) -> str | None:
        """Why a genuine snapshot should not serve."""
        decisions = self._decisions
        p = decisions.pipeline
        quarantined = self._shadows.quarantined
        slow = quarantined.get(snapshot.name)
        if slow is not None and (snapshot.parent is not None or snapshot.model in quarantined):
            return f"its line is asked no more: {slow}"
        recipe, view = p.reader(snapshot.name, snapshot.features)
        with self._shadows.watch(snapshot.model):
            try:
                learner = open_snapshot(snapshot, recipe, p.target, decisions.key, view.hash)
            except SnapshotRefused as refusal:
                return str(refusal)
        self._shadows.keep(offset, snapshot, learner)
        if snapshot.name != decisions.champion_line():
            return None
        if snapshot.parent is None:
            decisions.divergence.restart()
        diverged = decisions.divergence.judge(snapshot.epoch.get("excess"))
        return None if diverged is None else f"its learner has diverged: {diverged}"

    def give_up_on_stale(self, n: int, outputs: list[Output]) -> None:
        """Wait no more for lines that have been missing for too long.

        Args:
            n: how many examples came so far.
            outputs: of the stage; what is decided is added.
        """
        version = self._decisions.refresh.overdue(n)
        if version is not None:
            self._renew_if_complete(version, outputs)

    def _renew_if_complete(self, version: int, outputs: list[Output]) -> None:
        decisions = self._decisions
        arrivals = decisions.refresh.complete(version)
        if arrivals is None:
            return
        former, champion_line = decisions.registry.serving, decisions.champion_line()
        # Else an operator, or the declaration for as long as a fault lasts, has it stay.
        is_held = decisions.is_paused or decisions.suspension.holds_refreshes
        if not is_held and decisions.frozen_line != champion_line:
            refs = {} if former is None else former.lines
            renewal = decisions.refresh.renewal(arrivals, refs)
            stays = decisions.held_line == champion_line or decisions.is_young(version)
            stays |= champion_line not in decisions.pipeline.recipes
            if stays and champion_line in refs:
                renewal.hold(champion_line, refs[champion_line])
            self._tell_faults(renewal, version, outputs)
            self._restart_failed(outputs)
            if former is not None:
                kept_models = [renewal.refs[line].model for line in renewal.kept]
                decisions.contest.refresh(version, kept_models)
            if len(renewal.refs) > len(renewal.kept) and champion_line in renewal.refs:
                outputs.append(self._renew(version, renewal))
        self._drop_unserved(outputs)
        serving = decisions.registry.serving
        if serving is not None:
            reason = decisions.stay_reason()
            outputs += self.staleness.refresh(version, serving, reason, decisions.watermark.ms)

    def _tell_faults(self, renewal: Renewal, version: int, outputs: list[Output]) -> None:
        """Say once that a line is not renewed any more, and once that its fault is over.

        Args:
            renewal: what becomes of each line.
            version: the instant.
            outputs: of the stage; alerts, and a decision for each fault that begins, are added.
        """
        decisions = self._decisions
        serving, ts = decisions.registry.serving, decisions.watermark.ms
        for line, fault in renewal.begun.items():
            is_champion = line == decisions.champion_line()
            if serving is None or (fault.is_silence and not is_champion):
                continue  # learn has said why it publishes no more, and nothing hangs on it
            ref = serving.lines.get(line)
            stays = "" if ref is None else f"; {ref.model} stays, and other lines are renewed"
            way_out = "; promote a challenger to go on" if is_champion else ""
            reason = f"{line}@{fault.version} refused: {fault.reason}{stays}{way_out}"
            figures = {"version": fault.version, "stays": None if ref is None else ref.model}
            outputs += decisions.alarms.open(REFUSED, f"line:{line}", reason, ts, figures)
            outputs.append(decisions.decide("refused", reason, serving))
        for line, fault in renewal.ended.items():
            reason = f"the line {line!r} {renewal.end_of_fault(line)} (@{version})"
            figures = {"refreshes": fault.count}
            outputs += decisions.alarms.resolve(REFUSED, f"line:{line}", reason, ts, figures)

    def _restart_failed(self, outputs: list[Output]) -> None:
        """Start the lines anew that have been refused too often, where that is declared."""
        decisions = self._decisions
        promotion, serving = decisions.pipeline.promotion, decisions.registry.serving
        if promotion.on_failure == "alert" or serving is None:
            return
        for line, fault in decisions.refresh.failed(promotion.refusals).items():
            cause = {
                "alert": REFUSED,
                "subject": f"line:{line}",
                "refreshes": fault.count,
                "reason": fault.reason,
            }
            # A line that is asked no more is asked again only once it has begun from nothing.
            is_restored = promotion.on_failure == "restore" and line not in decisions.slow_lines
            ref = serving.lines.get(line) if is_restored else None
            origin = "from nothing" if ref is None else f"from {ref.model}"
            reason = (
                f"{line} starts anew, {origin}: {fault.count} refreshes running went by "
                f"without it, the first because {fault.reason}"
            )
            model = None if ref is None else ref.model
            outputs.append(decisions.restart(line, reason, cause, model=model))

    def _renew(self, version: int, renewal: Renewal) -> Output:
        """The decision that renews all lines that can be; the champion may not be one of them."""
        decisions = self._decisions
        pipeline, former = decisions.pipeline, decisions.registry.serving
        line, refs = decisions.champion_line(), dict(renewal.refs)
        champion, first_version = refs.pop(line), pipeline.promotion.first
        reason = renewal.reason(version, len(pipeline.recipes))
        if former is None:
            first = champion if version >= first_version else None
            decisions.refresh.serves(line, champion.model)
            decisions.contest.start(champion.model, refs)
            serving = decisions.settling.cover(ServingSet(champion, refs, None, first))
            return decisions.decide("bootstrap", reason, serving)
        decisions.contest.renew(refs)
        serving = replace(former, champion=champion, challengers=refs)
        if line not in renewal.kept:
            decisions.refresh.serves(line, champion.model)
            if line in decisions.settling and former.fallback is None:  # it has started anew
                serving = decisions.settling.cover(serving)
            if former.first is None and version >= first_version:
                serving = replace(serving, first=champion)
            if not decisions.guard.watching:
                serving = replace(serving, predecessor=former.champion)
                is_mature = version_of(former.champion.model) >= first_version
                decisions.guard.watch(active=is_mature)
        return decisions.decide("refreshed", reason, serving)

    def _drop_unserved(self, outputs: list[Output]) -> None:
        decisions = self._decisions
        serving = decisions.registry.serving
        # What shadows now is needed, however old, and so is what has still to answer.
        needed_models = decisions.superseded.models
        if serving is not None:
            needed_models |= {ref.model for ref in serving.challengers.values()}
        dropped_models = decisions.refresh.drop_unserved(decisions.pipeline.keep, needed_models)
        outputs += [Output("models", model.encode(), None) for model in dropped_models]
