"""A line as learn has it: a live learner, what it learns from, and why it learns no more."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.evaluation.divergence import BlockScores
from stream_ml.evaluation.scores import loss
from stream_ml.models.recipes import BadAnswer
from stream_ml.stages.effort import Effort

if TYPE_CHECKING:
    from stream_ml.models.fast import Predictor
    from stream_ml.models.recipes import Target
    from stream_ml.records import LabelValue

__all__ = ["LiveLine", "Quarantine", "TrainingExample"]


class TrainingExample(NamedTuple):
    """An example to learn from: its number, the watermark there, and which line had served.

    `served_loss` is that of the line's own answer; None if it had none.
    """

    n: int
    watermark_ms: int
    serves: str
    served_loss: float | None
    features: dict[str, float]
    label: LabelValue
    # Whether it lacks features that were declared since.
    is_partial: bool = False
    # What was recorded, where the features were made again.
    logged: dict[str, float] | None = None
    # Whether the same event was learned before, with another label.
    is_repeat: bool = False


class Quarantine(NamedTuple):
    """That a line learns no more: after which example, why, and what its recipe was."""

    n: int
    reason: str
    recipe: str | None


class LiveLine:
    """A live learner and its losses since the last refresh.

    Args:
        learner: as it is before the first example.
        is_relative: whether losses are compared as shares, as those of numbers are.
    """

    __slots__ = (
        "beginnings",
        "blocks",
        "dear",
        "effort",
        "first",
        "learner",
        "live_loss",
        "missed",
        "parent",
        "payload",
        "quarantine",
        "scored_count",
    )

    def __init__(self, learner: Any, *, is_relative: bool) -> None:
        self.learner = learner
        self.effort = Effort()
        self.blocks = BlockScores(is_relative=is_relative)
        self.parent: str | None = None
        # Of its snapshot, as long as it has learned nothing since.
        self.payload: bytes | None = None
        self.quarantine: Quarantine | None = None
        # How many examples it has not learned, as they were gone; its first one, if it is another.
        self.missed = 0
        self.first: int | None = None
        # Of each time that it was started anew, and before the first: after which example, and the
        # two figures as they are from there on.
        self.beginnings: list[tuple[int, int, int | None]] = []
        # Whether it was told that its snapshots cost much.
        self.dear = False
        self.live_loss = 0.0
        self.scored_count = 0

    def begin(self, former: LiveLine, n: int, last: int, version: int | None) -> None:
        """Begin anew: its snapshots count what is inside, and not what came before it.

        Args:
            former: the line as it was.
            n: how many examples there were.
            last: the offset of the last one; -1 before any.
            version: of the snapshot that it goes on from; None: from nothing.
        """
        beginnings = former.beginnings or [(0, former.missed, former.first)]
        self.missed, self.first = n, last + 1
        if version is not None:
            # As they were where that snapshot was taken.
            figures = [each for each in beginnings if each[0] < version] or beginnings[:1]
            _, missed, self.first = figures[-1]
            self.missed = n - version + missed
        self.beginnings = [*beginnings, (n, self.missed, self.first)]

    def score(
        self,
        predict: Predictor,
        target: Target,
        example: TrainingExample,
        *,
        serves: bool,
    ) -> None:
        """Add the learner's loss on an example that it has not learned.

        Args:
            predict: the learner's.
            target: the question.
            example: the next one.
            serves: whether the line had served there, so that both losses are compared.
        """
        with suppress(BadAnswer):
            live = predict(example.features)
            if live is not None:
                live_loss = loss(target.kind, example.label, live)
                self.live_loss += live_loss
                self.scored_count += 1
                if serves and example.served_loss is not None:
                    self.blocks.add(live_loss, example.served_loss)
