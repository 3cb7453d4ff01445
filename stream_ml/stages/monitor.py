"""The monitors that evaluate hosts: blocks of events and of labels in, alarms out.

Theory of operation:

1. Predict tells what came in each block of event time, partition by partition. A block that is
   complete is compared with what is usual (`monitoring.watch`): fields by each block, fields and
   features by each day.
2. What labels say (their share, their delay, the answers that were served to them) is summed up
   here, in blocks of the labels' time, by the watermark of the examples, and watched likewise.
3. Whatever has moved is alarmed about once, and again when it is as usual; fields before features,
   which follow them. A feature moves alone where no field does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.scores import loss
from stream_ml.features.durations import HOUR_MS
from stream_ml.monitoring.arrivals import Arrivals
from stream_ml.monitoring.blocks import Layout, OpenBlocks
from stream_ml.monitoring.carriers import Carriers
from stream_ml.monitoring.columns import NumberColumn, column
from stream_ml.monitoring.contrast import Contrast
from stream_ml.monitoring.coverage import LabelCoverage
from stream_ml.monitoring.outage import EventOutage, LabelOutage
from stream_ml.monitoring.refused import RefusedShares
from stream_ml.monitoring.sources import SourceLosses
from stream_ml.monitoring.story import group_message, sign_phrase
from stream_ml.monitoring.watch import Watch
from stream_ml.stages.inputs import parse_once
from stream_ml.summaries import decode_summary

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stream_ml.errors import BadRecord
    from stream_ml.monitoring.arrivals import Block
    from stream_ml.monitoring.columns import Column
    from stream_ml.monitoring.watch import Finding
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example, Output, Record, Summary
    from stream_ml.stages.alarms import Alarms

__all__ = ["Monitor", "end_unwatched"]

EVENTS, LABELS, OPEN = "e", "l", "o"
DRIFT, FAULT, POISON = "drift", "data_fault", "poison_rate"
LABELS_OUT, EVENTS_OUT = "label_outage", "event_outage"
# The subject where it is not a partition of events that is silent, but all are.
ALL = ""
RECENT_MAX = 20
DELAYS_MAX, DELAY_SHARES = 6, (0.5, 0.9)
# Of all events, as the alert `poison_rate` has it.
POISON_SHARE = 0.1
# Where all is read in order by one process, that is in rounds of 256 records, unless models are
# renewed by a count of examples.
ROUND_EVENTS = 300


class Monitor:
    """The monitors of a pipeline.

    Args:
        pipeline: the declaration; it has monitors.
        alarms: the stage's.
        in_order: whether all inputs are read in the order of event time, by one process.
    """

    def __init__(self, pipeline: Pipeline, alarms: Alarms, *, in_order: bool) -> None:
        assert pipeline.monitors is not None, "a pipeline without monitors has none"
        self._alarms = alarms
        self._kind = pipeline.target.kind
        # Before the longest window has passed since the first event, features are of less.
        self._settle_ms = pipeline.feature_set.horizon_ms
        self._first_ms = -1
        width = self._width = pipeline.monitors.block_ms
        round_events = 0 if pipeline.refresh_ms is None else ROUND_EVENTS
        self._arrivals = Arrivals(
            width,
            in_order=in_order,
            round_events=round_events,
            wait_ms=min(pipeline.lateness_ms, width),
        )
        self._carriers = Carriers(pipeline.kind_field)
        self._events = Watch(width, EVENTS)
        self._labels = Watch(width, LABELS)
        label_columns = {"label": self._kind == "regression", "label_delay": True}
        label_columns["answer"] = self._kind != "multiclass"
        self._blocks = OpenBlocks(Layout(width, label_columns, ()), 0)
        self._outage = LabelOutage(width, in_order=in_order)
        self._event_outage = EventOutage(width, in_order=in_order)
        self._coverage = LabelCoverage(width, pipeline.horizon_ms)
        # Of the last blocks of labels: start, how many, and how long half and 90 % of them took.
        self._delays: list[list[Any]] = []
        self._sources = SourceLosses()
        self._contrast = Contrast()
        self._refused = RefusedShares()
        # What has ended, the newest last.
        self._recent: list[dict[str, Any]] = []
        self._end = -1
        # Entries of state that were not taken up, and are to be deleted.
        self._stale: set[str] = set()

    # --- events --------------------------------------------------------------------------------

    @staticmethod
    def parse(record: Record) -> Summary | BadRecord:
        """The summary in `record`, or what is wrong with it; kept as the record's memo."""
        return parse_once(record, lambda each: decode_summary(each.value))

    def summary(self, summary: Summary, append_ms: int) -> list[Output]:
        """Take in what a partition tells of a block; what is to be said.

        Args:
            summary: as predict wrote it.
            append_ms: when the log took it in.
        """
        if summary.end - summary.start != self._width:
            return []  # of a declaration before
        outputs: list[Output] = []
        if summary.predictions:
            self._coverage.predict(summary.start, summary.predictions)
        for block in self._arrivals.add(summary, append_ms):
            self._end = block.start + self._width
            outputs += self._block(block)
            outputs += self._label_outage(append_ms)
        self._event_outage.events(self._arrivals.newest_end, append_ms)
        outputs += self._alarms.resolve(EVENTS_OUT, ALL, "events come again", summary.end)
        outputs += self._silences(append_ms)
        return outputs

    def _block(self, block: Block) -> list[Output]:
        self._carriers.take(block)
        fields = [name for name in block.columns if name.startswith("field:")]
        if self._first_ms < 0:
            self._first_ms = block.start
        if block.start < self._first_ms + self._settle_ms:
            block.columns = {name: block.columns[name] for name in fields}
        found, ended = self._events.take(block.start, block.columns, fields)
        self._refused.take(block.start, block.events, block.refused)
        moved = [finding for finding in found if not self._follows(finding)]
        return self._tell(moved, self._end) + self._resolve(ended, self._end, self._events.adopted)

    def _follows(self, finding: Finding) -> bool:
        """Whether it is of a feature, while a field has moved."""
        is_feature = finding.column.startswith("feature:")
        return is_feature and any(
            name.startswith("field:") and episode.is_open
            for name, episode in self._events.episodes.items()
        )

    def _silences(self, append_ms: int) -> list[Output]:
        outputs: list[Output] = []
        silent = {}
        for silence in self._arrivals.silences(append_ms):
            subject = f"partition:{silence.partition}"
            silent[subject] = silence
            message = (
                f"partition {silence.partition} of events has brought none for a block and more, "
                f"where {silence.missed:.0f} would be usual; the others go on"
            )
            details = {"since": silence.since, "missed": round(silence.missed)}
            outputs += self._alarms.open(EVENTS_OUT, subject, message, self._end, details)
        for subject in self._alarms.subjects(EVENTS_OUT):
            if subject != ALL and subject not in silent and not self._arrivals.is_behind(subject):
                message = f"{subject.replace(':', ' ')} of events brings events again"
                outputs += self._alarms.resolve(EVENTS_OUT, subject, message, self._end)
        return outputs

    def _label_outage(self, append_ms: int) -> list[Output]:
        is_out = self._outage.block(self._end, append_ms)
        figures = self._outage.figures(self._end)
        if is_out:
            message = (
                f"no label for {figures['behind_ms'] / HOUR_MS:.1f} hours of events, where "
                f"{figures['usual_ms_max'] / HOUR_MS:.1f} was the most: scores are old"
            )
            return self._alarms.open(LABELS_OUT, "", message, self._end, figures)
        message = "labels come again"
        return self._alarms.resolve(LABELS_OUT, "", message, self._end, figures)

    def _tell_event_outage(self, end: int, append_ms: int) -> list[Output]:
        if not self._event_outage.labels(end, append_ms):
            return []
        figures = self._event_outage.figures(end)
        message = (
            f"no block of events for {figures['behind_ms'] / HOUR_MS:.1f} hours of labels, where "
            f"{figures['usual_ms_max'] / HOUR_MS:.1f} was the most: nothing is predicted"
        )
        return self._alarms.open(EVENTS_OUT, ALL, message, end, figures)

    # --- labels --------------------------------------------------------------------------------

    def example(self, example: Example, watermark_ms: int, append_ms: int) -> list[Output]:
        """Take in an example; what is to be said.

        Args:
            example: the newest one.
            watermark_ms: of the examples, with it.
            append_ms: when the log took it in.
        """
        prediction, label = example.prediction, example.label
        outputs: list[Output] = []
        self._coverage.label(prediction.ts)
        if watermark_ms >= self._blocks.due_ms:
            self._coverage.close(watermark_ms)
            for summary in self._blocks.close(watermark_ms, 0):
                outputs += self._label_block(summary)
                outputs += self._tell_event_outage(summary.end, append_ms)
        self._outage.label(example.label_ts, append_ms)
        answer: Any = prediction.own_answer
        if answer is not None and self._kind != "regression" and example.label_from is not None:
            self._sources.add(example.label_from, loss(self._kind, label, answer))
        if self._kind == "binary" and answer is not None:
            is_changed = self._alarms.is_open("loss_change", "")
            self._contrast.add(answer, label=bool(label), is_changed=is_changed)
        if type(answer) is dict:
            answer = max(sorted(answer), key=answer.__getitem__) if answer else None
        row = {
            "label": label,
            "label_delay": example.label_ts - prediction.ts,
            "answer": answer,
        }
        self._blocks.add(example.label_ts, row, None, watermark_ms)
        return outputs

    def _label_block(self, summary: Summary) -> list[Output]:
        columns = {}
        for name, each in summary.fields.items():
            columns[name] = column(is_number=each.categories is None)
            columns[name].take(each)
        self._take_delays(summary.start, columns["label_delay"])
        found, ended = self._labels.take(summary.start, columns, list(columns))
        # Answers follow inputs, labels and every renewal; what serves is the guard's to judge.
        told = [each for each in found if each.column != "answer"]
        outputs = self._tell(told, summary.end)
        outputs += self._resolve(ended, summary.end, self._labels.adopted)
        wrong, right = self._sources.close(summary.start)
        for source, now, usual, since in wrong:
            subject = f"label_source:{source}"
            message = (
                f"labels of the source {source} have come to contradict what is served: loss "
                f"{now:.3f} against {usual:.3f} before; those of other sources have not"
            )
            details = {"since": since, "loss": now, "usual": usual, "sign": "label_source"}
            outputs += self._alarms.open(FAULT, subject, message, summary.end, details)
        return outputs + self._resolve([f"label_source:{source}" for source in right], summary.end)

    def _take_delays(self, start: int, delays: Column) -> None:
        assert isinstance(delays, NumberColumn), "delays are numbers"
        if delays.n:
            quantiles = (delays.sketch.quantile(share) for share in DELAY_SHARES)
            self._delays.append([start, round(delays.n), *map(round, quantiles)])
            del self._delays[:-DELAYS_MAX]

    # --- alarms --------------------------------------------------------------------------------

    def _tell(self, findings: Iterable[Finding], ts: int) -> list[Output]:
        """One alert of each kind about all that has moved with a block."""
        groups: dict[str, list[Finding]] = {}
        for finding in findings:
            groups.setdefault(DRIFT if finding.sign == "shift" else FAULT, []).append(finding)
        outputs: list[Output] = []
        for kind, group in groups.items():
            subjects = [finding.column for finding in group]
            details = _figures(group[0])
            if len(group) > 1:
                since = min(finding.at for finding in group)
                columns = {finding.column: _figures(finding) for finding in group}
                details = {"since": since, "columns": columns}
            outputs += self._alarms.open_group(kind, subjects, group_message(group), ts, details)
        return outputs

    def _resolve(
        self, subjects: Sequence[str], ts: int, adopted: Collection[str] = ()
    ) -> list[Output]:
        outputs: list[Output] = []
        for kind in (DRIFT, FAULT):
            ended = [subject for subject in subjects if self._alarms.is_open(kind, subject)]
            staying = [subject for subject in ended if subject in adopted]
            passing = [subject for subject in ended if subject not in adopted]
            stay = f"{_names(staying, 'has', 'have')} been so for a week"
            for group, message in (
                (passing, f"{_names(passing, 'is', 'are')} as usual again"),
                (staying, f"{stay}, which is usual from now on"),
            ):
                self._recent += [
                    {
                        "kind": kind,
                        "subject": subject,
                        "since": self._alarms.since(kind, subject),
                        "until": ts,
                    }
                    for subject in group
                ]
                outputs += self._alarms.resolve_group(kind, group, message, ts)
        del self._recent[:-RECENT_MAX]
        return outputs

    def faults(self) -> list[list[str]]:
        """The faults that there are now, and of which no alarm is open: alert and subject, sorted.

        Much of the events is refused; or what was told before has come again.
        """
        refused = self._refused.episodes.items()
        known = [
            name
            for watch in (self._events, self._labels)
            for name, each in watch.episodes.items()
            if each.is_open and each.is_known and each.finding.sign != "shift" and name != "answer"
        ]
        return [
            *([FAULT, name] for name in sorted(known) if not self._alarms.is_open(FAULT, name)),
            *(
                [POISON, f"events/{reason}"]
                for reason, each in sorted(refused)
                if each["share"] >= POISON_SHARE
            ),
        ]

    def watched(self) -> dict[str, list[str]]:
        """What each kind of alarm may be open about now: nothing else would ever resolve."""
        columns = [
            name
            for watch in (self._events, self._labels)
            for name, episode in watch.episodes.items()
            if episode.is_open
        ]
        sources = [f"label_source:{source}" for source in self._sources.suspects()]
        return {
            DRIFT: columns,
            FAULT: [*columns, *sources],
            LABELS_OUT: [] if self._outage.since is None else [""],
            EVENTS_OUT: [ALL, *self._partitions()],
        }

    def _partitions(self) -> list[str]:
        return [f"partition:{number}" for number in self._arrivals.partitions()]

    # --- state ---------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """The state but what `dirty` gives, as JSON can hold it."""
        return {
            "width": self._width,
            "end": self._end,
            "first": self._first_ms,
            "arrivals": self._arrivals.dump(),
            "carriers": self._carriers.dump(),
            "events": self._events.dump(),
            "labels": self._labels.dump(),
            "blocks": self._blocks.dump(),
            "outage": self._outage.dump(),
            "event_outage": self._event_outage.dump(),
            "coverage": self._coverage.dump(),
            "delays": self._delays,
            "sources": self._sources.dump(),
            "contrast": self._contrast.report(),
            "contrast_state": self._contrast.dump(),
            "refused": self._refused.dump(),
            "recent": self._recent,
        }

    def dirty(self) -> list[tuple[str, bytes | None]]:
        """The entries of state that changed since the last call."""
        entries: list[tuple[str, bytes | None]] = [
            *self._events.dirty(),
            *self._labels.dirty(),
            *((f"{OPEN}{name}", value) for name, value in self._blocks.dirty()),
        ]
        stale, self._stale = self._stale - {name for name, _ in entries}, set()
        return [*((name, None) for name in sorted(stale)), *entries]

    def load(self, state: Mapping[str, Any], entries: Mapping[str, bytes]) -> None:
        """Take up what `dump` and `dirty` gave; of blocks of another length nothing stays.

        Args:
            state: what `dump` gave.
            entries: of state, by name.
        """
        if not state or state["width"] != self._width:
            self._stale = set(entries)
            return
        self._end, self._first_ms = state["end"], state["first"]
        self._recent = state["recent"]
        self._arrivals.load(state["arrivals"])
        if "carriers" in state:  # a former release did not tell kinds of events apart
            self._carriers.load(state["carriers"])
        self._events.load(state["events"], entries)
        self._labels.load(state["labels"], entries)
        own = [(name[1:], value) for name, value in entries.items() if name[:1] == OPEN]
        self._blocks.restore(state["blocks"], own)
        self._outage.load(state["outage"])
        if "coverage" in state:  # a former release kept none of these
            self._event_outage.load(state["event_outage"])
            self._coverage.load(state["coverage"])
            self._delays = state["delays"]
        self._sources.load(state["sources"])
        self._contrast.load(state["contrast_state"])
        self._refused.load(state["refused"])


def _figures(finding: Finding) -> dict[str, Any]:
    return {
        "since": finding.at,
        "sign": finding.sign,
        "horizon": finding.horizon,
        "distance": finding.distance,
        **finding.figures,
    }


def _names(columns: Sequence[str], verb: str, plural: str) -> str:
    """The columns with their verb, as the beginning of a sentence."""
    names = ", ".join(sign_phrase(column) for column in sorted(columns))
    return f"{names} {verb if len(columns) == 1 else plural}"


def end_unwatched(monitor: Monitor | None, alarms: Alarms, ts: int) -> list[Output]:
    """After a start: end the alarms of which nothing is known any more, for it is declared anew.

    Args:
        monitor: with the state that it has taken up; None where none is declared.
        alarms: the stage's.
        ts: the stage's watermark, UTC milliseconds.
    """
    watched = {} if monitor is None else monitor.watched()
    message = "no monitors are declared any more"
    if monitor is not None:
        message = "blocks have another length since a start: all is watched anew"
    outputs: list[Output] = []
    for kind in (DRIFT, FAULT, LABELS_OUT, EVENTS_OUT):
        outputs += alarms.retain(kind, watched.get(kind, []), message, ts)
    return outputs
