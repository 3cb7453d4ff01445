"""Settling in: when a line that has just begun may be believed.

Theory of operation:

1. A learner that has seen little knows less than the share of each class does. Until a line has
   *settled*, its answers are not served as champion, and it replaces nobody.
2. It must have learned so many labels: as many as are declared, or until each class was seen
   `CLASS_LABELS` times, whether it is one in two or one in a hundred, but `LABELS_MAX` at most
   (regression: `VALUE_LABELS`).
3. From then on its answers, by snapshots that have learned as many, are compared with the running
   prior's, which knows what was known then: over *windows* that saw each class `CLASS_PAIRS` times
   (`PAIRS_MAX` pairs at most), for in one without any fraud who never expects fraud does best. It
   has settled with the first window over which it loses no more, neither in Brier nor in log loss
   (regression: absolute error). After each that it fails the next one is twice as long, up to
   `FAILURES_MAX`: who tries often enough must not pass by luck.
4. The running prior that is served meanwhile, where no fallback is declared, is each class's share
   with one label of each more (Laplace's rule), or the mean. It is told anew each time that twice
   as many labels are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.scores import (
    absolute_error,
    brier,
    clamp,
    is_scorable,
    log_loss,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.records import Answer, LabelValue

__all__ = ["Settling"]

CLASS_LABELS = 30
LABELS_MAX = 5_000
VALUE_LABELS = 100
CLASS_PAIRS = 10
PAIRS_MAX = 1_000
VALUE_PAIRS = 100
FAILURES_MAX = 5
# The running prior is told from so many labels on.
PRIOR_FIRST = 10


class _Counts:
    """How many labels, and how many of each class; for regression their sum."""

    __slots__ = ("by_class", "n", "total")

    def __init__(self, classes: Iterable[str]) -> None:
        self.n = 0
        self.by_class = dict.fromkeys(classes, 0)
        self.total = 0.0

    def add(self, label: LabelValue) -> None:
        self.n += 1
        if self.by_class:
            self.by_class[str(label)] += 1
        else:
            self.total += clamp(float(label))

    def reach(self, per_class: int, most: int) -> bool:
        """Whether each class was seen so often, or there are as many as there need be at most."""
        if not self.by_class:
            return self.n >= most
        return self.n >= most or min(self.by_class.values()) >= per_class

    def dump(self) -> list[Any]:
        return [self.n, self.by_class, self.total]

    def load(self, state: list[Any]) -> None:
        self.n, by_class, self.total = state
        self.by_class |= by_class


class _Line:
    """A line that has not settled: what it has learned, and how its present window stands."""

    __slots__ = ("failures", "learned", "losses", "prior_losses", "reached", "window")

    def __init__(self, classes: Iterable[str]) -> None:
        self.learned = _Counts(classes)
        # From this version on its snapshots have learned enough; None while it has not.
        self.reached: int | None = None
        self.failures = 0
        self.window = _Counts(classes)
        self.losses = [0.0, 0.0]
        self.prior_losses = [0.0, 0.0]

    def fail(self) -> None:
        self.failures = min(self.failures + 1, FAILURES_MAX)
        self.window = _Counts(self.window.by_class)
        self.losses, self.prior_losses = [0.0, 0.0], [0.0, 0.0]

    def dump(self) -> list[Any]:
        learned, window = self.learned.dump(), self.window.dump()
        return [learned, self.reached, self.failures, window, self.losses, self.prior_losses]

    def load(self, state: list[Any]) -> None:
        learned, self.reached, self.failures, window, self.losses, self.prior_losses = state
        self.learned.load(learned)
        self.window.load(window)


class Settling:
    """The lines of a pipeline that have not settled.

    Args:
        kind: of the task: `binary`, `multiclass` or `regression`.
        classes: of a multiclass task.
        labels: how many labels a line must have learned; None: by the rule above; 0: none ever has
            to settle.

    Attributes:
        serves_fallback: whether a fallback is served, for the champion's line has not settled.

    >>> settling = Settling("binary", (), labels=2)
    >>> settling.begin(["quick"])
    >>> for n in range(1, 3):
    ...     settling.learn(n % 2 == 0, n)
    >>> [
    ...     settling.compare("quick", 2, n % 2 == 0, 0.9 if n % 2 == 0 else 0.1, 0.5) is not None
    ...     for n in range(20)
    ... ].index(True)
    19
    >>> "quick" in settling
    False
    """

    def __init__(self, kind: str, classes: tuple[str, ...], labels: int | None) -> None:
        self._kind = kind
        self._classes = {"binary": ("False", "True"), "multiclass": classes}.get(kind, ())
        self._labels = labels
        self._unsettled: dict[str, _Line] = {}
        self._known: set[str] = set()
        self._all = _Counts(self._classes)
        self._prior_next = PRIOR_FIRST
        self.serves_fallback = False

    def __contains__(self, line: str) -> bool:
        return line in self._unsettled

    @property
    def is_over(self) -> bool:
        """Whether every line has settled, and that was said of the one that serves."""
        return not self._unsettled and not self.serves_fallback

    def begin(self, lines: Iterable[str]) -> None:
        """Take in declared lines; those that are new begin to settle."""
        for line in lines:
            if line not in self._known:
                self.restart(line)

    def restart(self, line: str) -> None:
        """Let a line begin anew, from nothing."""
        self._known.add(line)
        if self._labels != 0:
            self._unsettled[line] = _Line(self._classes)

    def learn(self, label: LabelValue, n: int) -> None:
        """Take in a label, which every line learns.

        Args:
            label: the truth.
            n: the number of the example, from 1: a snapshot of this version has learned it.
        """
        self._all.add(label)
        for line in self._unsettled.values():
            line.learned.add(label)
            if line.reached is None and self._has_learned(line.learned):
                line.reached = n

    def _has_learned(self, learned: _Counts) -> bool:
        if self._labels is not None:
            return learned.n >= self._labels
        return learned.reach(CLASS_LABELS, LABELS_MAX if self._classes else VALUE_LABELS)

    def compare(
        self, line: str, version: int, label: LabelValue, answer: Answer, prior: Answer
    ) -> dict[str, Any] | None:
        """Take in what a line answered, and the prior; the figures if it has settled with that.

        Args:
            line: whose answer it is.
            version: of the snapshot that answered.
            label: the truth.
            answer: the line's, None if it had none.
            prior: the running prior's, or mean's, of that moment.
        """
        state = self._unsettled.get(line)
        if state is None or state.reached is None or version < state.reached:
            return None
        if not (is_scorable(self._kind, answer) and is_scorable(self._kind, prior)):
            return None
        for i, (loss, prior_loss) in enumerate(
            zip(self._losses(label, answer), self._losses(label, prior), strict=True)
        ):
            state.losses[i] += loss
            state.prior_losses[i] += prior_loss
        state.window.add(label)
        pairs_max = PAIRS_MAX if self._classes else VALUE_PAIRS
        if not state.window.reach(CLASS_PAIRS << state.failures, pairs_max << state.failures):
            return None
        if any(loss > prior for loss, prior in zip(state.losses, state.prior_losses, strict=True)):
            state.fail()
            return None
        del self._unsettled[line]
        pairs = state.window.n
        return {
            "labels": state.learned.n,
            "pairs": pairs,
            "loss": state.losses[0] / pairs,
            "prior_loss": state.prior_losses[0] / pairs,
        }

    def _losses(self, label: Any, answer: Any) -> tuple[float, float]:
        if self._kind == "regression":
            error = min(absolute_error(label, answer), 1e100)
            return error, error
        return brier(label, answer), log_loss(label, answer)

    @property
    def prior(self) -> Answer:
        """The running prior of all labels so far; None before the first of them to be told."""
        if self._all.n < PRIOR_FIRST:
            return None
        if self._kind == "regression":
            return self._all.total / self._all.n
        total = self._all.n + len(self._classes)
        shares = {name: (count + 1) / total for name, count in self._all.by_class.items()}
        return shares["True"] if self._kind == "binary" else shares

    def is_prior_due(self) -> bool:
        """Whether the running prior is to be told; it is then due at twice as many labels."""
        if self._all.n < self._prior_next:
            return False
        self._prior_next *= 2
        return True

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "known": sorted(self._known),
            "unsettled": {line: state.dump() for line, state in self._unsettled.items()},
            "all": self._all.dump(),
            "next": self._prior_next,
            "serves": self.serves_fallback,
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Take up a dumped state.

        Lines of a former release, which had none, have served before: they have settled.
        """
        if state is None:
            self._unsettled = {}
            return
        for line in state["known"]:
            figures = state["unsettled"].get(line)
            if figures is None:
                self._unsettled.pop(line, None)
            elif line in self._unsettled:
                self._unsettled[line].load(figures)
        self._all.load(state["all"])
        self._prior_next, self.serves_fallback = state["next"], state["serves"]
