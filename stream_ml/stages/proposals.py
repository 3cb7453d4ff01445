"""What a person is asked to do: a change of what serves, held with its evidence until it lapses.

Where the declaration says `ask`, nobody is replaced by itself, but for the return to the
predecessor in the first block after a switch or a refresh: a decision `proposed` has the command
that would carry it out, the cause and the figures. It is carried out by that command, which names
what it expects to serve as every other, or lapses, by a decision `lapsed`, once nothing speaks for
it any more. Any switch ends it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from stream_ml.records import line_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HARM", "READY", "Proposal"]

# The kinds of alerts that a proposal goes with.
HARM: Literal["gross_harm"] = "gross_harm"
READY: Literal["challenger_ready"] = "challenger_ready"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that a person is asked for.

    Attributes:
        command: that carries it out.
        model: a challenger's line to promote, or the snapshot to roll back to.
        expect: the line that serves.
        cause: the kind of alert that it goes with.
    """

    command: Literal["promote", "rollback"]
    model: str
    expect: str
    cause: Literal["challenger_ready", "gross_harm"]

    @property
    def line(self) -> str:
        """The line that would serve."""
        return self.model if self.command == "promote" else line_of(self.model)

    @property
    def command_line(self) -> str:
        """The command, for a person to type.

        >>> Proposal("rollback", "tree@500", "tree", "gross_harm").command_line
        'stream-ml rollback --to tree@500 --expect tree --reason ...'
        """
        target = self.model if self.command == "promote" else f"--to {self.model}"
        return f"stream-ml {self.command} {target} --expect {self.expect} --reason ..."

    def evidence(self, figures: Mapping[str, Any] | None) -> dict[str, Any]:
        """The evidence of the decision that asks for it.

        Args:
            figures: those that speak for it.
        """
        return {**(figures or {}), "proposal": asdict(self)}
