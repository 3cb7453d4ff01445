"""What a runner does while a line's process does not answer: it serves on.

Theory of operation:

1. Whatever learn and evaluate have written is committed with the states that it follows from,
   before they are asked for more (`settle`). So what is staged within a wait is of predict and join
   alone, and may be committed with their states.
2. What goes wrong while it serves is raised behind the wait (`end`): raised within, the line that
   is waited for would have to answer for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_ml.errors import STOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_ml.records import Record
    from stream_ml.shell.embedded.cursor import Cursor
    from stream_ml.stages.task import Stage

__all__ = ["INBOX_RECORDS", "SERVE_S", "Wait"]

# For how long is served before the process is looked at again, and how much may wait for learn and
# evaluate meanwhile.
SERVE_S = 0.1
INBOX_RECORDS = 50_000


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Wait:
    """The waits of a runner; until `begin` there are none.

    Attributes:
        may_serve: whether what is staged may be committed without learn's and evaluate's states.
        served_count: how much of the input was worked on within waits, since it was last asked.
        rest: what is left of a round.
    """

    may_serve: bool = False
    served_count: int = 0
    rest: list[tuple[Cursor, list[Record]]] = field(default_factory=list)
    _is_isolated: bool = False
    _error: BaseException | None = None
    _stages: Sequence[Stage] = ()
    _commit: Callable[[], None] = _nothing
    _serve: Callable[[], None] = _nothing

    def begin(
        self, stages: Sequence[Stage], commit: Callable[[], None], serve: Callable[[], None]
    ) -> None:
        """Let there be waits from now on.

        Args:
            stages: learn's and evaluate's.
            commit: commits all.
            serve: works on what comes, but for learn and evaluate, and commits that.
        """
        self._is_isolated = True
        self._stages, self._commit, self._serve = stages, commit, serve

    def _must_settle(self) -> bool:
        return any(stage.must_checkpoint() for stage in self._stages)

    @property
    def is_settled(self) -> bool:
        """Whether there are waits, and nothing that learn or evaluate has written is staged."""
        return self._is_isolated and not self._must_settle()

    def settle(self, *, exclusive: bool) -> None:
        """Let whoever is asked next be waited for.

        Args:
            exclusive: whether a batch is one transaction, in which nobody serves on.
        """
        if self._is_isolated and not exclusive:
            if self._must_settle():
                self._commit()
            self.may_serve = True

    def end(self) -> None:
        """Nobody is waited for any more.

        Raises:
            BaseException: what went wrong meanwhile.
        """
        self.may_serve = False
        if self._error is not None:
            raise self._error

    def serve(self) -> None:
        """Serve on, within a wait."""
        if not self.may_serve:
            return
        self.may_serve = False
        try:
            self._serve()
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            self._error = error
        else:
            self.may_serve = True
