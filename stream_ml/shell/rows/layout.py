"""From the rows of files, as `Files` declares them, to events and labels as the log has them."""

from __future__ import annotations

from collections import Counter, deque
from heapq import heappop, heappush
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from stream_ml.codec import check_unique
from stream_ml.errors import BadRecord, StreamMLError
from stream_ml.files import TimeReader, cell_value, column_value
from stream_ml.schema import FieldType
from stream_ml.task_names import task_in

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline

__all__ = ["Row", "RowLayout", "RowTable", "Topic", "check_columns", "name_in_ids"]

Topic = Literal["events", "labels"]
_TEXT = FieldType("str")
# A label is held until so many rows running are past its time, so that no single wrong clock
# has all labels come too soon.
ROWS_PAST = 3
# So many labels wait for their time at most.
LABELS_MAX = 1_000_000
COLUMNS_MAX = 10_000


class Row(NamedTuple):
    """A record to publish, and the line that it is of; or why it is none.

    Attributes:
        number: of the line or row, from 1.
        topic: `events` or `labels`; None where the record itself says.
        value: the record; None where the row holds none.
        error: why there is none.
    """

    number: int
    topic: Topic | None
    value: bytes | None
    error: BadRecord | None = None


class RowLayout:
    """Makes records of the rows of one file.

    Args:
        pipeline: the declaration.
        file: its name, by which rows are named that have no ids.
        topic: which records are wanted; None for all.
    """

    def __init__(self, pipeline: Pipeline, file: str, topic: Topic | None = None) -> None:
        self.pipeline = pipeline
        self.file = file
        self.topic = topic
        files, events = pipeline.files, pipeline.events
        self.files = files
        self._clock = TimeReader(files)
        self._delay_ms = files.label_delay_ms
        self._id_prefix = f"{name_in_ids(file)}:"
        self._other_columns = {*pipeline.other_labels, *pipeline.other_label_times}
        self._label_columns = {files.label, files.label_time, *self._other_columns}
        self._is_task = task_in(pipeline.name) is not None
        # Members of records that are as the log has them are left as they are, to the last byte.
        self._is_plain = (
            files.time_unit == "ms"
            and files.label == "label"
            and not (files.has_rows_of_both or files.row_ids or files.key or pipeline.other_labels)
            and (events.id, events.time) == ("event_id", "ts")
        )
        self._times: deque[int] = deque(maxlen=ROWS_PAST)
        self._waiting: list[tuple[int, int, bytes]] = []

    # --- rows ---------------------------------------------------------------------------------

    def line_rows(self, number: int, text: bytes) -> Iterable[Row]:
        """The records of a JSON line.

        Args:
            number: of the line.
            text: the line, without its end.
        """
        members = None if self._is_plain else _loads(text)
        if not isinstance(members, dict):
            # What is no JSON is refused where every record is.
            return (Row(number, self.topic, text),)
        try:
            check_unique(text, members)
        except BadRecord as error:
            return (Row(number, self.topic, None, error),)
        return self._rows(number, members, text)

    def rows(self, number: int, members: dict[str, Any], *, is_label: bool) -> Iterator[Row]:
        """The records of a row, its values as their declared types.

        Args:
            number: of the row.
            members: the values by column.
            is_label: it is no event; else it is one, also where its key is missing.
        """
        if is_label and self.label_name(members) is None:
            kind = self.pipeline.label_codec.kind
            message = f"expected {kind}, given nothing"
            error = BadRecord("missing_field", f"$.{self.files.label}", message)
            yield Row(number, "labels", None, error)
            return
        yield from self._rows(number, members, None, is_event=not is_label)

    def rest(self) -> Iterator[Row]:
        """The labels that still wait for their time where the file ends."""
        while self._waiting:
            yield self._next_label()

    def _rows(
        self,
        number: int,
        members: dict[str, Any],
        text: bytes | None,
        *,
        is_event: bool = False,
    ) -> Iterator[Row]:
        files, name = self.files, self.label_name(members)
        if name is None and not is_event and self.is_of_others(members):
            yield from self._refuse_of_others(number)
            return
        has_label = name is not None
        has_event = not has_label or (
            files.has_rows_of_both
            and (is_event or files.key is not None or self.pipeline.events.key in members)
        )
        try:
            if name is not None and not has_event:
                if text is not None and self.pipeline.events.key in members:
                    # Both in one line, and nobody has said when the label was known.
                    yield Row(number, self.topic, text)
                    return
                yield Row(number, "labels", self._label(name, members, text))
                return
            event, event_id, ts = self._event(number, members, text)
            if self.topic != "labels":
                yield Row(number, "events", event)
            if self._is_labelled(members, event_id) and self.topic != "events":
                label = self._label_of(event_id, ts, members)
                if label is not None:
                    self._hold(number, *label)
        except BadRecord as error:
            yield Row(number, "events" if has_event else "labels", None, error)
            return
        if files.has_rows_of_both:
            yield from self._due_labels(ts)

    def _is_labelled(self, members: Mapping[str, Any], event_id: Any) -> bool:
        """Whether the label in an event's row can be about it; else the event is refused for it."""
        if members.get(self.files.label) is None or self.topic == "labels":
            return members.get(self.files.label) is not None
        has_key = self.files.key is not None or self.pipeline.events.key in members
        return has_key and event_id is not None and event_id != ""

    def label_name(self, members: Container[str]) -> str | None:
        """The column that is the label: the declared one, or that of the wire beside no event.

        Args:
            members: a row's, or the names of all columns.
        """
        if self.files.label in members:
            return self.files.label
        # The wire calls the labels of all tasks so: in a file of several they are the pipeline's.
        is_ours = not self._is_task or (
            self.topic == "labels" and "label" not in self.pipeline.other_labels
        )
        is_event = self.files.key is not None or self.pipeline.events.key in members
        return "label" if "label" in members and not is_event and is_ours else None

    def is_of_others(self, members: Container[str]) -> bool:
        """Whether a row without a label of ours holds one of another task, and no event.

        Args:
            members: a row's, or the names of all columns.
        """
        is_event = self.files.key is not None or self.pipeline.events.key in members
        return not is_event and any(name in members for name in self.pipeline.other_labels)

    def _refuse_of_others(self, number: int) -> Iterator[Row]:
        """The label of another task is passed over, but where labels of this one are wanted."""
        if self.topic == "labels":
            kind = self.pipeline.label_codec.kind
            message = f"expected {kind}, the label of {self.pipeline.name!r}, given another task's"
            error = BadRecord("missing_field", f"$.{self.files.label}", message)
            yield Row(number, "labels", None, error)

    # --- events and labels --------------------------------------------------------------------

    def _event(
        self, number: int, members: dict[str, Any], text: bytes | None
    ) -> tuple[bytes, Any, Any]:
        """The event in a row, with its id and its time."""
        files, events = self.files, self.pipeline.events
        event = {name: value for name, value in members.items() if name not in self._label_columns}
        if files.row_ids:
            event[events.id] = f"{self._id_prefix}{number}"
        if files.key is not None:
            event[events.key] = files.key
        for name in (events.id, events.key):
            if type(event.get(name)) is int:
                event[name] = str(event[name])
        # Whole milliseconds of a JSON line are judged where every record is.
        if events.time in members and not (text is not None and files.time_unit == "ms"):
            event[events.time] = self._clock.read(events.time, members[events.time])
        value = text if text is not None and event == members else orjson.dumps(event)
        return value, event.get(events.id), event.get(events.time)

    def _label(self, label_name: str, members: dict[str, Any], text: bytes | None) -> bytes:
        """The label in a row of its own."""
        files, events = self.files, self.pipeline.events
        label = {"label": members[label_name]}
        for name in (files.label_time, events.time, "ts"):
            if name is not None and name in members:
                value = members[name]
                is_wire = text is not None and files.time_unit == "ms"
                label["ts"] = value if is_wire else self._clock.read(name, value)
                break
        for name in (events.id, "event_id"):
            if name in members:
                label["event_id"] = members[name]
                break
        used = {label_name, files.label_time, events.time, "ts", events.id, "event_id"}
        # The row may hold the labels of other tasks, one of which may be called as the wire does.
        passed_over = used | self._other_columns | {"label"}
        label |= {name: value for name, value in members.items() if name not in passed_over}
        is_same = text is not None and label == members
        return text if is_same and text is not None else orjson.dumps(label)

    def _label_of(
        self, event_id: Any, ts: Any, members: Mapping[str, Any]
    ) -> tuple[int, bytes] | None:
        """The time and the record of the label in an event's row.

        None where it has no time and is what silence says: nobody ever published it.

        Raises:
            BadRecord: nothing says when it was known.
        """
        files, events = self.files, self.pipeline.events
        if files.label_time is None:
            label_ts = self._wire_time(events.time, ts) + self._delay_ms
        elif files.label_time in members:
            label_ts = self._clock.read(files.label_time, members[files.label_time])
        elif self._truth(members) == self.pipeline.label.absent:
            return None
        else:
            raise BadRecord("missing_field", f"$.{files.label_time}", self._untimed_message())
        truth = self._truth(members)
        label = {"event_id": event_id, "ts": label_ts, "label": truth}
        return label_ts, orjson.dumps(label)

    def _truth(self, members: Mapping[str, Any]) -> Any:
        return column_value(
            self.files.label, self.pipeline.label_codec.kind, members[self.files.label]
        )

    def _untimed_message(self) -> str:
        hint = ""
        if self.pipeline.label.absent is None:
            hint = (
                "; where labels that never came are written so, declare how long they are waited "
                'for, as in Label(bool, window="1d", absent=False), or leave the label empty'
            )
        return f"expected {self._clock.expected} beside the label, given nothing{hint}"

    def _wire_time(self, name: str, ts: Any) -> int:
        if type(ts) is int:
            return ts
        message = f"expected {self._clock.expected}, given {'nothing' if ts is None else ts!r:.40}"
        raise BadRecord("missing_field" if ts is None else "wrong_type", f"$.{name}", message)

    # --- labels in the order of their times ---------------------------------------------------

    def _hold(self, number: int, ts: int, value: bytes) -> None:
        heappush(self._waiting, (ts, number, value))

    def _due_labels(self, ts: Any) -> Iterator[Row]:
        """The labels that are known by the time of the events that come now."""
        if type(ts) is int:
            self._times.append(ts)
        past = min(self._times) if len(self._times) == ROWS_PAST else -1
        while self._waiting and (self._waiting[0][0] <= past or len(self._waiting) > LABELS_MAX):
            yield self._next_label()

    def _next_label(self) -> Row:
        _, number, value = heappop(self._waiting)
        return Row(number, "labels", value)


class RowTable:
    """Reads the rows of a file that has columns.

    Args:
        layout: of the file.
        names: of the columns, in their order.
        line: where they are named.

    Attributes:
        names: the columns that are read; others are passed over.

    Raises:
        StreamMLError: they are not those that are declared.
    """

    def __init__(self, layout: RowLayout, names: Sequence[str], line: int = 1) -> None:
        self._layout = layout
        self._position = f"{layout.file}:{line}"
        self._width = len(names)
        pipeline, files = layout.pipeline, layout.files
        events = pipeline.events
        self._header = [name.strip() for name in names]
        check_columns(self._position, self._header)
        label_name = layout.label_name(self._header)
        # A file of another task's labels, among files of all.
        self._is_foreign = (
            label_name is None and layout.topic is None and layout.is_of_others(self._header)
        )
        has_label, has_key = label_name is not None, events.key in self._header
        if has_label and has_key and not files.has_rows_of_both:
            raise self._error(
                "expected events or labels, given both in one row; declare when a label is known, "
                'as in files=sml.Files(label_delay="1h") or label_time=COLUMN'
            )
        # A file of labels alone may have the same columns as rows of both have.
        is_apart = not files.has_rows_of_both or not (has_key or files.key is not None)
        self._is_labels = is_labels = has_label and is_apart
        if not self._is_foreign:
            self._check_missing(is_labels=is_labels)
        texts = (
            {events.key, events.id, "event_id", "source"} if is_labels else {events.key, events.id}
        )
        kinds: dict[str, FieldType | None] = dict(pipeline.schema) if not is_labels else {}
        kinds |= {name: _TEXT for name in texts if name not in kinds}
        kinds |= dict.fromkeys(filter(None, (files.label_time, events.time)))
        if is_labels:
            kinds["ts"] = None
        kinds[label_name or files.label] = pipeline.label_codec.kind
        self._columns = [
            (index, name, kinds[name]) for index, name in enumerate(self._header) if name in kinds
        ]
        self.names = [names[index] for index, _, _ in self._columns]
        self._identifiers = {events.key, events.id, "event_id"}

    def _check_missing(self, *, is_labels: bool) -> None:
        layout, header = self._layout, set(self._header)
        files, events = layout.files, layout.pipeline.events
        if is_labels:
            wanted = [
                {events.id, "event_id"},
                {n for n in (files.label_time, events.time, "ts") if n is not None},
            ]
        else:
            wanted = [{events.time}]
            wanted += [] if files.row_ids else [{events.id}]
            wanted += [] if files.key is not None else [{events.key}]
            wanted += [{name} for name, kind in layout.pipeline.schema.items() if not kind.optional]
            wanted += [{files.label}] if layout.topic == "labels" else []
        missing = [" or ".join(sorted(names)) for names in wanted if not names & header]
        if missing:
            given = ", ".join(repr(name)[:80] for name in self._header[:20])
            hint = ""
            if len(self._header) == 1 and any(d in self._header[0] for d in ";\t|,"):
                hint = (
                    "; is another delimiter declared than it has (files=sml.Files(delimiter=...))?"
                )
            raise self._error(
                f"expected the columns {', '.join(missing)}, given {given or 'none'}{hint}"
            )
        if is_labels and layout.topic == "events":
            raise self._error("expected events, given labels; publish them as labels")

    def _error(self, message: str) -> StreamMLError:
        return StreamMLError(f"{self._position}: {message}")

    def cell_rows(self, number: int, cells: Sequence[str]) -> Iterator[Row]:
        """The records of a row of texts, of which an empty one is missing.

        Args:
            number: of the row's first line.
            cells: the row.
        """
        if len(cells) != self._width:
            message = f"expected {self._width} columns, given {len(cells)}"
            yield Row(number, self._layout.topic, None, BadRecord("column_count", "$", message))
            return
        texts = ((name, kind, cells[index]) for index, name, kind in self._columns)
        yield from self._typed_rows(number, ((n, k, t) for n, k, t in texts if t != ""), cell_value)

    def value_rows(self, number: int, values: Mapping[str, Any]) -> Iterator[Row]:
        """The records of a row of values, from which missing ones are left out.

        Args:
            number: of the row.
            values: by column.
        """
        found = (
            (name, kind, self._identifier(name, value))
            for (_, name, kind), column in zip(self._columns, self.names, strict=True)
            if (value := values.get(column)) is not None
        )
        yield from self._typed_rows(number, found, column_value)

    def _identifier(self, name: str, value: Any) -> Any:
        return str(value) if name in self._identifiers and type(value) is int else value

    def _typed_rows(
        self,
        number: int,
        found: Iterator[tuple[str, FieldType | None, Any]],
        typed: Callable[[str, FieldType, Any], Any],
    ) -> Iterator[Row]:
        if self._is_foreign:
            return
        try:
            # Times are read by the declared unit, later.
            members = {
                name: value if kind is None else typed(name, kind, value)
                for name, kind, value in found
            }
        except BadRecord as error:
            yield Row(number, self._layout.topic, None, error)
            return
        yield from self._layout.rows(number, members, is_label=self._is_labels)


def name_in_ids(file: str) -> str:
    """What a file is called in the ids of its rows, wherever it lies.

    Args:
        file: its path.
    """
    return PurePath(file).name.encode(errors="backslashreplace").decode()


def check_columns(position: str, names: Sequence[str], count_max: int = COLUMNS_MAX) -> None:
    """Make sure that columns can be told apart, and are not too many.

    Args:
        position: where they are named, for the message.
        names: of the columns; empty ones may be repeated.
        count_max: of columns.

    Raises:
        StreamMLError: they are not.
    """
    if len(names) > count_max:
        raise StreamMLError(
            f"{position}: expected at most {count_max:,} columns, given {len(names):,}; "
            "take out those that are not needed"
        )
    counts = Counter(filter(None, names))
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise StreamMLError(f"{position}: expected each column once, given {repeated!r:.80} twice")


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
