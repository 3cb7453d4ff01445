"""The answers of every model and baseline to the same examples, column by column.

The columns:

    served      the champion of the moment, whichever line it came from
    <line>      a line under its own name, while it challenged and while it served
    first       the champion line's first settled snapshot, never updated
    live        the bound: the last champion's line, had it predicted live (`shell.report.bound`)
    prior, ...  an answer without a model, from the labels known by then

Scores stand beside each other only where they are of the same examples, so a group of examples
counts those that every column with any answer in that group has answered.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.scores import is_scorable, loss
from stream_ml.records import line_of
from stream_ml.shell.report.bound import LIVE
from stream_ml.stages.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_ml.records import Answer, Example, LabelValue
    from stream_ml.shell.report.measures import Pairs

__all__ = ["CHAMPION", "FIRST", "AnswerTable"]

CHAMPION = "served"
FIRST = "first"
PREDECESSOR = "predecessor"


class AnswerTable:
    """Labels and answers of examples, in the order of the log.

    Args:
        task_kind: `binary`, `multiclass` or `regression`.
        horizon_ms: how long after its event a label may come, as declared.
        breadth: how many labels must have come as far for their time to count, as declared.
        classes: the classes of a multiclass task, as declared.

    Attributes:
        times: event time of each example, UTC ms.
        labels: the truth of each example.
        delays: how long after its event each label came, ms.
        baselines: names of the columns without a model.
    """

    def __init__(
        self, task_kind: str, horizon_ms: int, breadth: int, classes: tuple[str, ...]
    ) -> None:
        self.task_kind = task_kind
        self.times: list[int] = []
        self.labels: list[LabelValue] = []
        self.delays: list[int] = []
        self.baselines: list[str] = []
        self._baselines = Baselines(task_kind, classes, horizon_ms)
        self._label_clock = Watermark(breadth)
        # The champion's line at each example.
        self._lines: list[str] = []
        # By column: the answer to each example, None where there was none.
        self._columns: dict[str, list[Answer]] = {CHAMPION: []}
        self._challenger_lines: set[str] = set()
        # By snapshot and predecessor: the differences of their losses.
        self._gains: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, example: Example, extra: Mapping[str, Answer]) -> None:
        """Add a row.

        Args:
            example: the next one, in the order of `examples`.
            extra: by name, the answers of learners that no stage knows.
        """
        prediction, label = example.prediction, example.label
        champion_answer = None if prediction.fallback else prediction.prediction
        baselines = self._baselines.answers(prediction.ts)
        self._label_clock.advance(prediction.event_id, example.label_ts, example.label_ts)
        self._baselines.learn(label, example.label_ts, self._label_clock.ms)
        self.baselines = list(baselines)
        lines = {
            slot: shadow.prediction
            for slot, shadow in prediction.shadows.items()
            if slot != PREDECESSOR
        }
        line = line_of(prediction.model)
        # The champion's own answer is among them where a fallback was served in its place.
        self._challenger_lines.update(lines.keys() - {line})
        row = {CHAMPION: champion_answer, line: champion_answer, **lines, **baselines, **extra}
        for name, answer in row.items():
            self._append(name, answer)
        self._lines.append(line)
        self.times.append(prediction.ts)
        self.labels.append(label)
        self.delays.append(example.label_ts - prediction.ts)
        predecessor = prediction.shadows.get(PREDECESSOR)
        if predecessor is not None and all(
            is_scorable(self.task_kind, answer)
            for answer in (champion_answer, predecessor.prediction)
        ):
            gain = self.loss(label, predecessor.prediction) - self.loss(label, champion_answer)
            self._gains[prediction.model, predecessor.model].append(gain)

    def _append(self, name: str, answer: Answer) -> None:
        column = self._columns.setdefault(name, [])
        # A model that begins late, or pauses for a while, had no answer until now.
        column.extend([None] * (len(self.times) - len(column)))
        column.append(answer if is_scorable(self.task_kind, answer) else None)

    def columns(self) -> list[str]:
        """Names of the columns, in the order shown.

        A line that never challenged is the champion throughout: `served` shows it already.
        """
        references = [name for name in (FIRST, LIVE) if name in self._columns]
        return [CHAMPION, *self.challengers(), *references, *self.baselines]

    def challengers(self) -> list[str]:
        """Lines that challenged at any time, in the order of their first answers."""
        return [name for name in self._columns if name in self._challenger_lines - {FIRST}]

    def champion_lines(self) -> list[str]:
        """Lines that served at any time, in the order of their first examples."""
        return list(dict.fromkeys(self._lines))

    def has(self, *names: str) -> bool:
        """Whether every one of `names` is a column."""
        return set(names) <= self._columns.keys()

    def answers(self, name: str) -> list[Answer]:
        """A column: the answer to each example, None where there was no answer."""
        column = self._columns[name]
        column.extend([None] * (len(self.times) - len(column)))
        return column

    def loss(self, label: LabelValue, answer: Answer) -> float:
        """The loss that the models of this kind of task are compared by.

        Args:
            label: the truth, of the task's type.
            answer: one that can be scored.
        """
        return loss(self.task_kind, label, answer)

    def has_answers(self, name: str, group: Iterable[int]) -> bool:
        """Whether a column has any answer to the examples of a group.

        Args:
            name: the column's.
            group: indexes of examples.
        """
        answers = self.answers(name)
        return any(answers[i] is not None for i in group)

    def common(self, group: Sequence[int], names: Iterable[str]) -> list[int]:
        """The examples of a group that every column with any answer in the group has answered.

        Args:
            group: indexes of examples.
            names: of the columns.
        """
        columns = [self.answers(name) for name in names if self.has_answers(name, group)]
        return [i for i in group if all(column[i] is not None for column in columns)]

    def pairs(self, name: str, group: Iterable[int]) -> Pairs:
        """Labels and the answers of a column, for a group of examples that it has answered.

        Args:
            name: the column's.
            group: indexes of examples.
        """
        answers = self.answers(name)
        return [(self.labels[i], answers[i]) for i in group]

    def renewal_gains(self, model: str, predecessor: str) -> list[float]:
        """How much less a snapshot lost than its predecessor, on each event while it served.

        Args:
            model: the snapshot.
            predecessor: the snapshot before it.
        """
        return self._gains.get((model, predecessor), [])

    def gains_over(self, model: str, predecessor: str) -> Iterator[float]:
        """The gains of `model` and its renewals while `predecessor` was their predecessor.

        Args:
            model: a snapshot.
            predecessor: another one.
        """
        for (newer, older), gains in self._gains.items():
            if older == predecessor and line_of(newer) == line_of(model):
                yield from gains

    def differences(self, champion: str, challenger: str) -> Iterator[tuple[int, float]]:
        """Event times, and by how much the champion lost more, where it served and both answered.

        Args:
            champion: a line.
            challenger: another line.
        """
        if champion == challenger or challenger not in self._columns:
            return
        answers = zip(self._columns[CHAMPION], self.answers(challenger), strict=True)
        for ts, line, label, (own_answer, other_answer) in zip(
            self.times, self._lines, self.labels, answers, strict=True
        ):
            if line == champion and own_answer is not None and other_answer is not None:
                yield ts, self.loss(label, own_answer) - self.loss(label, other_answer)
