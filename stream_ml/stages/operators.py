"""Operators' commands: for whom they are meant, who may give them, and which were answered.

A command is meant for one pipeline on one log, which it names; elsewhere it is a dead letter.
There it is answered once, by a decision that names it and whose key signed it; of an operator's
command id that was answered nothing more is said, whatever other operators have called theirs. A
command whose time and arrival on the log are further apart than the age allowed is refused, and
its id stays free for another: whoever kept it from the log, or sends an old one, must not use it
up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.codec import decode_command
from stream_ml.defaults import COMMAND_AGE_MS
from stream_ml.errors import BadRecord
from stream_ml.records import OUT_OF_TIME, Command, line_of
from stream_ml.signing import ROLES
from stream_ml.stages.answered_ids import AnsweredIds
from stream_ml.stages.inputs import parse_once

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.records import Record, ServingSet
    from stream_ml.signing import Keyring

__all__ = ["ANSWERED_MAX", "CommandRefusal", "Operators", "ReceivedCommand"]

# An operator's command ids are remembered so many deep; what is older than one forgotten is
# refused, for it may have been answered.
ANSWERED_MAX = 1_000
# Whose ids those are that were answered when operators were not told apart: no operator's name.
UNKNOWN_OPERATOR = ""
_NONE_ANSWERED = AnsweredIds()


class CommandRefusal(Exception):  # noqa: N818 - as the decision that it becomes
    """Raised where a command cannot be carried out, with the reason to answer."""


class ReceivedCommand(NamedTuple):
    """A command, and when the log took it in, in ms."""

    command: Command
    received_ms: int


class Operators:
    """Who may command what, and what was answered.

    Args:
        pipeline: the name of the pipeline that commands must name.
        log: the identity of the log that they must name.
        keyring: the operators' keys and roles.
        age_ms: how far a command's time may be from its arrival on the log.
    """

    def __init__(
        self,
        pipeline: str,
        log: str | None,
        keyring: Keyring,
        age_ms: int = COMMAND_AGE_MS,
    ) -> None:
        self._pipeline, self._log = pipeline, log
        self._keyring = keyring
        self._age_ms = age_ms
        # By operator, the command ids that were answered; and those that changed since written.
        self._answered_ids: dict[str, AnsweredIds] = {}
        self._changed_operators: set[str] = set()

    def __len__(self) -> int:
        """How many answered commands are remembered."""
        return sum(map(len, self._answered_ids.values()))

    def parse(self, record: Record) -> Command | BadRecord:
        """The command in `record`, or what is wrong with it; kept as the record's memo."""
        return parse_once(record, lambda record: decode_command(record.value, self._keyring))

    def receive(self, record: Record) -> ReceivedCommand | None:
        """The command in `record` that is to be answered; None if it was.

        Raises:
            BadRecord: it is no command of ours, or nobody knows whether it was answered.
        """
        command = self.parse(record)
        if isinstance(command, BadRecord):
            raise command
        self._check_meant_here(command)
        request = ReceivedCommand(command, record.append_ms)
        return None if self._was_answered(request) else request

    def _check_meant_here(self, command: Command) -> None:
        """Refuse what was signed for another place: who has seen it there could send it here."""
        for member, actual, own in (
            ("pipeline", command.pipeline, self._pipeline),
            ("log", command.log, self._log),
        ):
            if actual != own:
                way_out = (
                    "it was signed for another one: give it there"
                    if actual is not None
                    else "commands of former releases could be sent again anywhere: give it anew, "
                    "with this release"
                )
                raise BadRecord(
                    "foreign_command",
                    f"$.{member}",
                    f"expected this {member}, {own!r}, given {actual!r}; {way_out}",
                )

    def _was_answered(self, request: ReceivedCommand) -> bool:
        answered_ids = self._answered_ids.get(request.command.operator, _NONE_ANSWERED)
        command_id = request.command.command_id
        if command_id in answered_ids or command_id in self._answered_ids.get(
            UNKNOWN_OPERATOR, _NONE_ANSWERED
        ):
            return True
        if _dated_id(request.command) in answered_ids:
            return True  # then it was out of its time, and stays refused
        if self._is_out_of_time(request) and request.command.ts <= answered_ids.forgotten_ms:
            raise BadRecord("repeated", "$.ts", f"{self._out_of_time(request)}; give it anew")
        return False

    def _is_out_of_time(self, request: ReceivedCommand) -> bool:
        return abs(request.received_ms - request.command.ts) > self._age_ms

    def _out_of_time(self, request: ReceivedCommand) -> str:
        return (
            f"expected at most {self._age_ms} ms between when it was given, "
            f"{request.command.ts}, and when the log took it in, {request.received_ms}"
        )

    def figures(self, request: ReceivedCommand) -> dict[str, Any] | None:
        """The evidence of a refusal: of a command out of its time, whose id is free, the age."""
        return {OUT_OF_TIME: self._age_ms} if self._is_out_of_time(request) else None

    def remember(self, request: ReceivedCommand) -> int:
        """Keep that it was answered; how many others are forgotten for it."""
        command = request.command
        answered_ids = self._answered_ids.setdefault(command.operator, AnsweredIds())
        late = self._is_out_of_time(request)
        answered_ids.add(_dated_id(command) if late else command.command_id, command.ts)
        self._changed_operators.add(command.operator)
        return answered_ids.keep(ANSWERED_MAX)

    def check(self, request: ReceivedCommand, serving: ServingSet) -> None:
        """Whether the command is in time, its operator may give it, and its sight is the present.

        Args:
            request: the command, and when the log took it in.
            serving: what serves now.

        Raises:
            CommandRefusal: with the reason to answer.
        """
        command = request.command
        if self._is_out_of_time(request):
            raise CommandRefusal(f"{self._out_of_time(request)}; is a clock wrong? Give it anew")
        forgotten_ms = self._answered_ids.get(command.operator, _NONE_ANSWERED).forgotten_ms
        if command.ts <= forgotten_ms:
            raise CommandRefusal(
                f"it is of {command.ts}, and of commands up to {forgotten_ms} it is known "
                "no more which were answered; send it anew"
            )
        operator = self._keyring.operator(command.operator)
        role = "nobody" if operator is None else operator.role
        if command.kind not in ROLES.get(role, ()):
            raise CommandRefusal(f"{command.operator} is {role}, which may not {command.kind}")
        present = serving.champion.model
        if command.expect is None and command.kind in {"promote", "rollback"}:
            raise CommandRefusal(f"expected the present champion in `expect`; it is {present}")
        if command.expect is not None and command.expect not in {present, line_of(present)}:
            raise CommandRefusal(f"expected {command.expect} to serve, but {present} does")

    def dirty(self) -> dict[str, dict[str, object]]:
        """By operator, the answered commands, where they changed since the last call."""
        names, self._changed_operators = sorted(self._changed_operators), set()
        return {name: self._answered_ids[name].dump() for name in names}

    def load(self, states: Iterable[tuple[str, dict[str, Any]]], former: Any = None) -> None:
        """Take up what was answered.

        Args:
            states: by operator.
            former: the ids that a release answered which did not tell operators apart.
        """
        self._answered_ids = {name: AnsweredIds(**state) for name, state in states}
        if former:
            self._answered_ids[UNKNOWN_OPERATOR] = AnsweredIds(former)
            self._changed_operators.add(UNKNOWN_OPERATOR)


def _dated_id(command: Command) -> str:
    """What a command out of its time is known by: its id stays free for one that is in time."""
    return f"{command.ts} {command.command_id}"
