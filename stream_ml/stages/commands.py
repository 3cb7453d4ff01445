"""Operators' commands in, a decision each: what they change, and why they are refused.

For whom a command is meant, who may give it, and whether it was answered is `operators`' to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.records import line_of
from stream_ml.stages.batches import LineBatch
from stream_ml.stages.command_details import (
    LETTERS,
    batch_size,
    forgotten_evidence,
    letter_ranges,
)
from stream_ml.stages.effort import LOST, NO_STOPWATCH, TRIAL
from stream_ml.stages.operators import CommandRefusal
from stream_ml.stages.plans import planned_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stream_ml.records import Command, ModelRef, Output, Record, ServingSet
    from stream_ml.stages.decisions import Decisions
    from stream_ml.stages.effort import Stopwatch, Suspect
    from stream_ml.stages.operators import Operators, ReceivedCommand
    from stream_ml.stages.plans import PlannedText

__all__ = ["Commands"]

# The parts of a declaration that say what a line's learner is.
RECIPE_PARTS = frozenset({"models", "libraries", "classes"})
FORMER_FEATURES = (
    "what serves knows the features of before, and goes on with the recipe of {line}: change it "
    "when another line serves"
)
FOREIGN_RECIPE = (
    "{line} serves, and only the code of its recipe reads its learners: declare the other recipe "
    "under another name, and take this one out when another line serves"
)


class Commands:
    """What follows from operators' commands.

    Args:
        decisions: what serves, and the evidence.
        operators: who may command what.
        counts: of the stage.
        stopwatch: watches over what a command has a line do.
    """

    def __init__(
        self,
        decisions: Decisions,
        operators: Operators,
        counts: dict[str, int],
        stopwatch: Stopwatch = NO_STOPWATCH,
    ) -> None:
        self._decisions, self._operators, self._counts = decisions, operators, counts
        self._stopwatch = stopwatch
        self._suspect: Suspect | None = None

    def stop(self, suspect: Suspect) -> None:
        """Refuse the command that was tried at one death of the worker after another.

        Args:
            suspect: as the stopwatch has it; one that was at work elsewhere is none of ours.
        """
        self._suspect = suspect

    def parse(self, record: Record) -> Command | BadRecord:
        """The command in `record`, or what is wrong with it; kept as the record's memo."""
        return self._operators.parse(record)

    def answer(self, record: Record, outputs: list[Output]) -> None:
        """Answer a command once.

        Args:
            record: of `commands`.
            outputs: of the stage; the decision that answers is added.

        Raises:
            BadRecord: it is no command for us, or nothing serves yet.
        """
        decisions = self._decisions
        request = self._operators.receive(record)
        if request is None:
            return  # it was answered
        self._counts["commands"] += 1
        serving = decisions.registry.serving
        if serving is None:
            raise BadRecord("not_ready", "$", "nothing serves yet; send it again once it does")
        try:
            self._operators.check(request, serving)
            decision = self._carry_out(request, serving)
        except CommandRefusal as refusal:
            decision = decisions.decide(
                "refused",
                f"{request.command.kind} refused: {refusal}",
                serving,
                evidence=self._operators.figures(request),
                request=request,
            )
        self._counts["commands_forgotten"] += self._operators.remember(request)
        outputs.append(decision)
        if decision.memo.kind in {"replaced", "rolled_back"}:
            outputs += decisions.after_switch()

    def _carry_out(self, request: ReceivedCommand, serving: ServingSet) -> Output:
        decisions = self._decisions
        command = request.command
        reason = command.reason
        if command.kind == "promote":
            line = self._promotable(command, serving)
            return decisions.replace(line, reason, decisions.case(line), request)
        if command.kind == "rollback":
            target = self._returnable(command, serving)
            return decisions.roll_back(reason, None, request, target=target)
        if command.kind in {"restart", "batch"}:
            return self._change_line(request)
        if command.kind in {"redrive", "forget"}:
            return self._write_down(request, serving)
        if command.kind == "apply":
            return decisions.apply(self._applicable(command), reason, request)
        decisions.is_paused = command.kind == "pause"
        if not decisions.is_paused:
            decisions.frozen_line = decisions.held_line = None
            decisions.suspension.override()
        kind = "paused" if decisions.is_paused else "resumed"
        return decisions.decide(kind, reason, serving, request=request)

    def _change_line(self, request: ReceivedCommand) -> Output:
        """The decision about how a line learns."""
        command, decisions = request.command, self._decisions
        if command.kind == "restart":
            line = self._restartable(command)
            return decisions.restart(line, command.reason, request=request)
        return decisions.batch(self._batchable(request), command.reason, request)

    def _write_down(self, request: ReceivedCommand, serving: ServingSet) -> Output:
        """The decision about what changes nothing of what serves."""
        command = request.command
        if command.kind == "forget":
            kind, evidence = "forgotten", forgotten_evidence(command.details)
        else:
            # It lies on the log in one transaction with the records: nothing is left to do.
            kind, evidence = "redriven", {LETTERS: letter_ranges(command.details)}
        reason = command.reason
        return self._decisions.decide(kind, reason, serving, evidence=evidence, request=request)

    def _returnable(self, command: Command, serving: ServingSet) -> ModelRef:
        """The snapshot that a rollback returns to, if there is one."""
        decisions = self._decisions
        present, model = serving.champion.model, command.model
        if model is None:
            if serving.predecessor is None:
                raise CommandRefusal(
                    f"{present} has no predecessor to return to; name one that has served, as "
                    "`--to MODEL@VERSION`"
                )
            return serving.predecessor
        if model == present:
            raise CommandRefusal(f"{model} serves already")
        line, served = line_of(model), decisions.served_models.find(model)
        if not decisions.is_known(line):
            lines = ", ".join(decisions.pipeline.recipes)
            raise CommandRefusal(
                f"expected name@version of a declared line ({lines}), given {model!r}"
            )
        if served is None:
            newest = ", ".join(decisions.served_models.newest(line, 5)) or "none"
            raise CommandRefusal(
                f"{model} has not served: of {line!r} served last {newest} (see `stream-ml audit "
                "log`)"
            )
        return served

    def _restartable(self, command: Command) -> str:
        """The line that a command names, as a line or `name@version`, if it is declared."""
        recipes, model = self._decisions.pipeline.recipes, command.model or ""
        line = line_of(model) if "@" in model else model
        if line not in recipes:
            raise CommandRefusal(
                f"expected a declared line ({', '.join(recipes)}), given {model!r}"
            )
        return line

    def _batchable(self, request: ReceivedCommand) -> LineBatch:
        """The batches that a command asks for, if its line can have them."""
        command = request.command
        line, size = self._restartable(command), batch_size(command.details)
        recipe = self._decisions.pipeline.recipes[line]
        trial = f"{TRIAL}{line} {command.command_id}"
        if self._suspect is not None and self._suspect.line == trial:
            raise CommandRefusal(
                f"expected of the line {line!r} that it takes {size} examples at once, given a "
                f"worker that has died {self._suspect.deaths} times running while it tried: way "
                "out: mend its `set_batch`, or declare the line with `batch`"
            )
        # That is the line's own code, which may not come back.
        with self._stopwatch.watch():
            self._stopwatch.attend(trial)
            try:
                recipe.set_batch(recipe.fresh(), size)
            except SnapshotRefused as refusal:
                if refusal.reason == LOST:
                    raise CommandRefusal(
                        f"{refusal}; that says nothing about {size} examples at once: way out: "
                        f"ask again, `stream-ml batch {line} {size}`"
                    ) from None
                raise CommandRefusal(str(refusal)) from None
        return LineBatch(line, size)

    def _applicable(self, command: Command) -> Sequence[PlannedText]:
        """The plan that a command names, if it is of what runs, and nothing of it is refused."""
        pipeline, line = self._decisions.pipeline, self._decisions.champion_line()
        running = pipeline.declaration()
        changes = planned_texts(command.details)
        # By line that learns anew, the parts of its recipe that are others.
        learned: dict[str, set[str]] = {}
        for change in changes:
            if change.old != running.get(change.path):
                raise CommandRefusal(
                    f"{change.path} is not what the plan was made from: plan it anew, with the "
                    "workers as they run"
                )
            if change.effect not in {"now", "relearn"}:
                raise CommandRefusal(f"{change.path} is {change.effect}")
            if change.effect == "relearn":
                part, _, name = change.path.partition(".")
                if part not in RECIPE_PARTS or name not in pipeline.models:
                    raise CommandRefusal(f"{change.path} is no recipe of a line that runs")
                if name in {former.declared for former in pipeline.generation.former}:
                    raise CommandRefusal(FORMER_FEATURES.format(line=name))
                learned.setdefault(pipeline.generation.names.get(name, name), set()).add(part)
        if line in learned:
            self._expect_orphan(line, learned[line])
        return changes

    def _expect_orphan(self, line: str, parts: Collection[str]) -> None:
        """Make sure that what serves can go on as it is when its line has another recipe.

        Args:
            line: that serves.
            parts: of its recipe that are others.

        Raises:
            CommandRefusal: it cannot.
        """
        pipeline = self._decisions.pipeline
        recipe = pipeline.recipes.get(line)
        if recipe is None:
            return
        if parts != {"classes"} and (recipe.format is not None or recipe.classes):
            raise CommandRefusal(FOREIGN_RECIPE.format(line=line))
        if len(pipeline.models) > pipeline.promotion.slots:
            raise CommandRefusal(
                f"expected promotion.slots of at least {len(pipeline.models)}, for what "
                f"serves is no more one of the lines, given {pipeline.promotion.slots}"
            )

    def _promotable(self, command: Command, serving: ServingSet) -> str:
        """The challenger that a command names, if it may be promoted."""
        decisions = self._decisions
        model = command.model or ""
        for line, ref in serving.challengers.items():
            if model in {line, ref.model}:
                break
        else:
            shadows = ", ".join(ref.model for ref in serving.challengers.values()) or "none"
            raise CommandRefusal(
                f"expected a challenger that shadows now ({shadows}), given {model!r}"
            )
        if not decisions.is_alive(line):
            raise CommandRefusal(
                f"the line {line!r} publishes no more, or nothing sound: it could not be renewed"
            )
        if line in decisions.settling:
            raise CommandRefusal(
                f"the line {line!r} has not settled: it has learned too little, or does worse than "
                "the prior"
            )
        is_gated = decisions.pipeline.promotion.mode in {"ask", "gated"}
        proposal = decisions.proposal
        if proposal is not None and (proposal.command, proposal.model) == ("promote", line):
            is_gated = False  # it was asked for
        objection = decisions.objection(line) if is_gated else None
        if objection is not None:
            verb = "rejected" if objection.kind == "reject" else "held"
            raise CommandRefusal(f"{line} is {verb}: {objection.reason} (the pipeline is gated)")
        if is_gated and not decisions.contest.suffices(line):
            report = decisions.contest.report(line) or {}
            raise CommandRefusal(
                f"the evidence for {line} does not suffice: E is {report['e_value']:.3g} of "
                f"{report['needed']:.3g}, from {report['wins']} blocks won and "
                f"{report['losses']} lost (the pipeline is gated)"
            )
        return line
