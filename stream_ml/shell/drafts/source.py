"""The Python of a drafted declaration. Nothing of a file becomes code but as a quoted text."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import PurePath
from statistics import median
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord
from stream_ml.evaluation.leakage import filling
from stream_ml.files import Files, TimeReader, cell_flag
from stream_ml.label import HORIZON_WINDOWS
from stream_ml.shell.drafts.silence import CLASSES_MAX, label_texts
from stream_ml.shell.input_files import PACKED_SUFFIXES, STANDARD_INPUT
from stream_ml.shell.processes.progress import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.shell.drafts.roles import Roles
    from stream_ml.shell.drafts.sample import Sample, SampledColumn

__all__ = ["Draft", "draft", "draft_name"]

LADDER_MS = {
    "1m": 60_000,
    "10m": 600_000,
    "1h": 3_600_000,
    "6h": 21_600_000,
    "1d": 86_400_000,
    "7d": 604_800_000,
    "30d": 2_592_000_000,
    "90d": 7_776_000_000,
    "365d": 31_536_000_000,
    "3650d": 315_360_000_000,
}
DAY_MS = 86_400_000
FIELDS_MAX, CATEGORIES_MAX, WINDOW_FIELDS = 100, 20, 3
# Longer texts that hardly come again are words for people.
PROSE_LENGTH = 40
LATENESS_MS_MAX = DAY_MS
# Silence counts when so many labels would have come; the others correct it.
USUAL_PERCENT = 99
# Of hashed columns, and so of what one text adds to each snapshot of a line.
WIDTH_MAX = 4_096
# A number so many times as large as nine of ten has a tail that a scale alone does not tame.
HEAVY_TAIL, HEAVY_ROWS_MIN = 10.0, 20


@dataclass(slots=True)
class Draft:
    """A declaration as Python, and what is to be said about it.

    Attributes:
        name: of the pipeline.
        source: the file.
        notes: of each guess what, which, and why.
        warnings: what somebody has to look at.
    """

    name: str
    source: str
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def draft_name(file: str) -> str:
    """The name of a pipeline about a file.

    Args:
        file: its name.

    >>> draft_name("data/Häuser 2024.csv.gz"), draft_name("-")
    ('h_user_2024', 'events')
    """
    stem = PurePath(file).name.partition(".")[0].lower()
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_").lstrip("0123456789_")
    return name[:40].rstrip("_") or "events"


def draft(sample: Sample, roles: Roles, labels: Sample | None = None) -> Draft:
    """Write the declaration.

    Args:
        sample: of the file.
        roles: of its columns.
        labels: of the file of labels, where they are in one of their own.
    """
    times = _Times(sample, roles, labels)
    fields_ = _Fields(sample, roles, labels)
    target = _target((labels or sample).columns[roles.label], roles)
    return Draft(
        draft_name(sample.file),
        _source(sample, roles, times, fields_, target),
        [*_notes(sample, roles, times, target), *_labels_notes(sample, roles, labels)],
        [*_warnings(sample, roles, times, fields_), *_labels_warnings(sample, roles, labels)],
    )


# --- times ------------------------------------------------------------------------------------


class _Times:
    """What the times of the sample say."""

    def __init__(self, sample: Sample, roles: Roles, labels: Sample | None) -> None:
        reader = TimeReader(Files(time_unit=roles.time_unit, time_zone=roles.time_zone))
        known_by_id = {} if labels is None else _known_by_id(labels, roles)
        self.lag_ms = 0
        first, last, gaps, delays = None, -1, [], []
        last_by_key: dict[str, int] = {}
        is_daily = True
        for row in sample.rows:
            ts = _read(reader, row.get(roles.time))
            if ts is None:
                continue
            first = ts if first is None else min(first, ts)
            self.lag_ms, last = max(self.lag_ms, last - ts), max(last, ts)
            is_daily = is_daily and ts % DAY_MS == 0
            key = str(row.get(roles.key or ""))
            if key in last_by_key and ts > last_by_key[key]:
                gaps.append(ts - last_by_key[key])
            last_by_key[key] = ts
            known = known_by_id.get(str(row.get(roles.id or "")), row.get(roles.label_time or ""))
            if known is not None and (known_ms := _read(reader, known)) is not None:
                delays.append(known_ms - ts)
        self.span_ms = max(last - (first or 0), 1)
        self.is_daily = is_daily
        self.gap_ms = int(median(gaps)) if gaps else None
        self.delay_ms = max(delays, default=0)
        self._delays = sorted(delays)

    @property
    def label_delay(self) -> str:
        """How long after its event a label may be known, where no column says."""
        if self.is_daily or self.span_ms > 60 * DAY_MS:
            return "1d"
        return "1h" if self.span_ms > DAY_MS else "1m"

    def horizon(self, roles: Roles) -> str:
        """Twice as long as labels have taken, or at least as long as they are said to take."""
        if roles.label_time is not None or roles.is_apart:
            return _above(2 * self.delay_ms)
        return _above(LADDER_MS[self.label_delay])

    def wait(self, roles: Roles) -> tuple[str, str | None, str]:
        """How long a label is waited for before silence counts; the horizon, if not the default."""
        if not self._delays:
            return _above(LADDER_MS[self.label_delay]), None, "a guess: no column says how long"
        usual_ms = max(self._delays[(len(self._delays) - 1) * USUAL_PERCENT // 100], 0)
        window = _above(usual_ms)
        is_long = self.delay_ms >= HORIZON_WINDOWS * LADDER_MS[window]
        words = f"{USUAL_PERCENT} % of the labels came within {duration(usual_ms / 1000)}"
        return window, self.horizon(roles) if is_long else None, words

    @property
    def lateness(self) -> str | None:
        """What takes up the disorder of the file; None where the default does."""
        if LADDER_MS["1m"] < self.lag_ms <= LATENESS_MS_MAX:
            return _above(self.lag_ms)
        return None

    @property
    def windows(self) -> list[str]:
        """Two lengths of windows that hold a few events of a key, and many."""
        if self.gap_ms is None:
            return []
        names = list(LADDER_MS)
        short = names.index(_above(2 * self.gap_ms))
        return names[short : short + 2]


def _known_by_id(labels: Sample, roles: Roles) -> dict[str, Any]:
    """When each label was known, by the id of its event."""
    id_name, time = roles.label_id, _label_time(labels, roles)
    return {str(row[id_name]): row[time] for row in labels.rows if id_name in row and time in row}


def _label_time(labels: Sample, roles: Roles) -> str:
    names = (roles.label_time, roles.time, "ts")
    return next(name for name in names if name is not None and name in labels.columns)


def _read(reader: TimeReader, value: Any) -> int | None:
    try:
        return None if value is None else reader.read("", value)
    except BadRecord:
        return None


def _above(ms: int) -> str:
    """The first duration of the ladder that is longer."""
    return next((name for name, length in LADDER_MS.items() if length > ms), "3650d")


# --- fields -----------------------------------------------------------------------------------


class _Fields:
    """The columns that become fields, with their types, and those that do not, with the reason."""

    def __init__(self, sample: Sample, roles: Roles, labels: Sample | None) -> None:
        self._labels = label_texts(sample, roles.label, labels, (roles.id or "", roles.label_id))
        self.types: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.columns: dict[str, SampledColumn] = {}
        self.is_optional: dict[str, bool] = {}
        taken = {roles.time, roles.id, roles.key, roles.label, roles.label_time}
        for name, column in sample.columns.items():
            if name in taken:
                continue
            reason = self._reason(name, column, sample)
            if reason is not None:
                self.left_out[name] = reason
                continue
            self.columns[name] = column
            self.types[name] = _type(column)
            # What is never missing in a part of the file may be missing in the rest.
            self.is_optional[name] = not sample.is_whole or column.present < len(sample.rows)
        self._numbers = {
            name: sorted(sample.numbers(name), key=abs)
            for name, kind in self.types.items()
            if kind == "float"
        }

    def is_heavy(self, name: str) -> bool:
        """Whether few of its numbers are so far out that they would drown the others."""
        numbers = self._numbers.get(name, [])
        common = abs(numbers[len(numbers) * 9 // 10]) if len(numbers) >= HEAVY_ROWS_MIN else 0.0
        return 0.0 < HEAVY_TAIL * common < abs(numbers[-1])

    def typical(self, name: str) -> float:
        """What stands in where a number is missing: the feature's median; of flags 0."""
        if name not in self._numbers:
            return 0.0
        if len(self.columns[name].counts) == 1:
            # With itself in the place of what is missing it would say nothing.
            return 0.0 if self._numbers[name][0] else 1.0
        middle = median(self._numbers[name])
        if self.is_heavy(name):
            middle = math.copysign(math.log1p(abs(middle)), middle)
        return float(f"{middle:.3g}")

    @property
    def hashed(self) -> dict[str, int]:
        """The texts with more categories than are listed, and how many columns they are hashed to.

        Four columns for a category, for few of them to share one.
        """
        return {
            name: min(max(1 << (4 * len(column.counts) - 1).bit_length(), 256), WIDTH_MAX)
            for name, column in self.columns.items()
            if self.types[name] == "str" and len(column.counts) > CATEGORIES_MAX
        }

    def _reason(self, name: str, column: SampledColumn, sample: Sample) -> str | None:
        rows = len(sample.rows)
        reasons = {
            "the name is taken by labels": name == "label",
            "it is empty": not column.present,
            "it has one value alone": len(column.counts) == 1 < column.present == rows,
            "it is another time": column.is_typed_time or column.all_are("time", "local"),
            "it holds what is neither number, text nor flag": column.types["other"] > 0,
            f"there are {FIELDS_MAX} fields already": len(self.types) >= FIELDS_MAX,
            "it is text for people": _is_prose(column),
            "no value of it comes twice": _is_unique_text(column),
            "most of its values come once, so there is little to learn from them": (
                _is_rarely_repeated(sample, column)
            ),
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        return reason or self._leak(name, column, sample)

    def _leak(self, name: str, column: SampledColumn, sample: Sample) -> str | None:
        """Whether it is filled, or empty, for one label alone: then it is hardly known before."""
        if column.present == len(sample.rows):
            return None
        is_number = len(set(self._labels)) > CLASSES_MAX
        texts = ["" if x is None else "a number" if is_number else x for x in self._labels]
        found = filling([row.get(name) for row in sample.rows], texts)
        if found is None:
            return None
        verb = "filled" if found.is_filled else "empty"
        label = f"the label {found.label!r:.40}" if found.label else "no label"
        return (
            f"it is {verb} in {found.n:,} rows, all of them with {label}, and in no other, so it "
            "is probably known only when the label is"
        )

    def declaration(self, name: str) -> str:
        """The type of a field as one declares it."""
        kind = self.types[name]
        return f"sml.Optional[{kind}]" if self.is_optional[name] else kind


def _is_prose(column: SampledColumn) -> bool:
    is_new = len(column.counts) * 2 > column.present or column.is_open
    return _type(column) == "str" and column.length_max > PROSE_LENGTH and is_new


def _is_unique_text(column: SampledColumn) -> bool:
    return _type(column) == "str" and len(column.counts) == column.present > 1


def _is_rarely_repeated(sample: Sample, column: SampledColumn) -> bool:
    if _type(column) != "str" or len(column.counts) <= CATEGORIES_MAX:
        return False
    # Of many values the sample's column counts the first alone.
    return 2 * len({row[column.name] for row in sample.rows if column.name in row}) > column.present


def _type(column: SampledColumn) -> str:
    # A whole number today may have a fraction tomorrow: floats take both.
    if column.all_are("whole", "number"):
        return "float"
    return "bool" if column.all_are("bool") else "str"


def _target(column: SampledColumn, roles: Roles) -> tuple[str, str]:
    """The type of the label as one declares it, and the task."""
    silence = roles.silence
    if silence is not None and silence.category is None:
        return "bool", "binary"
    if column.all_are("bool") or (
        column.all_are("whole", "number", "bool")
        and {cell_flag(text) for text in column.counts} == {True, False}
    ):
        return "bool", "binary"
    if column.all_are("whole", "number"):
        return "float", "regression"
    absent = {silence.category} if silence is not None and silence.category else set()
    classes = ", ".join(_quoted(name) for name in sorted({*column.counts, *absent}))
    return f"sml.Enum({classes})", "multiclass"


# --- Python -----------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    r"""A text as Python has it, in double quotes where that is the same.

    >>> print(_quoted("a"), _quoted('a"b'), _quoted("a\nb"))
    "a" 'a"b' 'a\nb'
    """
    quoted = repr(text)
    return f'"{text}"' if quoted == f"'{text}'" and '"' not in text else quoted


# By task: what river is imported for, the champion, and the lines without what comes first in them.
MODELS = {
    "binary": (
        "linear_model, preprocessing, tree",
        "tree",
        {
            "logistic": ["{scaler} | linear_model.LogisticRegression()"],
            "tree": ["tree.HoeffdingTreeClassifier(max_depth=5)"],
        },
    ),
    "multiclass": (
        "linear_model, optim, preprocessing, tree",
        "tree",
        {
            "softmax": ["{scaler}", "| linear_model.SoftmaxRegression(optim.Adam(0.01))"],
            "tree": ["tree.HoeffdingTreeClassifier(max_depth=5)"],
        },
    ),
    # The label's scale is learned, outliers pull no harder than others, and no leaf extrapolates.
    "regression": (
        "linear_model, optim, preprocessing, tree",
        "linear",
        {
            "linear": [
                "{scaler}",
                "| preprocessing.TargetStandardScaler(",
                "    linear_model.LinearRegression(loss=optim.losses.Huber(), intercept_lr=0.1)",
                ")",
            ],
            "tree": ['tree.HoeffdingTreeRegressor(max_depth=5, leaf_prediction="mean")'],
        },
    ),
}


def _models(task: str, hashed: Iterable[str]) -> tuple[str, str, list[str]]:
    """What river is imported for, the champion, and the lines.

    Of hashed columns a tree would have to try each: it has a mean of the label in their place, and
    a linear line, which learns one weight for each, serves.
    """
    modules, champion, models = MODELS[task]
    means = [f"sml.TargetMean({_quoted(name)})" for name in hashed]
    lines = []
    for name, parts in models.items():
        scaler = "sml.DenseScaler()" if means else "preprocessing.StandardScaler()"
        texts = [part.format(scaler=scaler) for part in parts]
        if means and name == "tree":
            texts = (
                [" | ".join([means[0], *texts])]
                if len(means) == 1
                else [means[0], *(f"| {each}" for each in (*means[1:], *texts))]
            )
        if means:
            champion = next(iter(models))
        lines += [f"{_quoted(name)}: {texts[0]}", *texts[1:]]
        lines[-1] += ","
    if means and task != "regression":
        modules = modules.replace(" preprocessing,", "")
    return modules, champion, lines


def _source(
    sample: Sample,
    roles: Roles,
    times: _Times,
    fields_: _Fields,
    target: tuple[str, str],
) -> str:
    modules, champion, models = _models(target[1], fields_.hashed)
    lines = [
        '"""Drafted by `stream-ml init`: look it over, and change what was guessed wrongly."""',
        "",
        f"from river import {modules}",
        "",
        "import stream_ml as sml",
        "",
        "pipeline = sml.Pipeline(",
        f"    {_quoted(draft_name(sample.file))},",
        "    events=sml.Events(",
        f"        key={_quoted(roles.key or 'series')},  # windows are per key",
        f"        time={_quoted(roles.time)},",
        f"        id={_quoted(roles.id or 'event_id')},",
        "        # Leave out what is known only when the label is: a model must not see it.",
        "        fields={",
        *(f"            {_quoted(n)}: {fields_.declaration(n)}," for n in fields_.types),
        "        },",
        *([f"        lateness={_quoted(times.lateness)},"] if times.lateness else []),
        "    ),",
        "    features=[",
        *(f"        {text}," for text in _features(times, fields_)),
        "    ],",
        *_label(target[0], times, roles),
        f"    champion={_quoted(champion)},",
        "    models={",
        *(f"        {text}" for text in models),
        "    },",
        "    files=sml.Files(",
        *(f"        {text}" for text in _files(sample, roles, times)),
        "    ),",
        ")",
        "",
    ]
    return "\n".join(lines)


def _label(kind: str, times: _Times, roles: Roles) -> list[str]:
    if roles.silence is None:
        return [f"    label=sml.Label({kind}, horizon={_quoted(times.horizon(roles))}),"]
    window, horizon, words = times.wait(roles)
    until = "" if horizon is None else f", horizon={_quoted(horizon)}"
    absent = roles.silence.label
    return [
        f"    # No label within the window counts as {absent}. {words[0].upper()}{words[1:]}.",
        f"    label=sml.Label({kind}, window={_quoted(window)}, absent={absent}{until}),",
    ]


def _files(sample: Sample, roles: Roles, times: _Times) -> list[str]:
    lines = [f"time_unit={_quoted(roles.time_unit)},"]
    if roles.time_zone is not None:
        lines.append(f"time_zone={_quoted(roles.time_zone)},  # a guess: the file names none")
    if sample.kind == "csv" and sample.delimiter not in {",", "\t"}:
        lines.append(f"delimiter={_quoted(sample.delimiter)},")
    if sample.kind == "csv" and sample.delimiter == "\t" and not sample.file.endswith(".tsv"):
        lines.append('delimiter="\\t",')
    lines.append(f"label={_quoted(roles.label)},")
    if roles.is_apart and roles.label_time is None:
        pass  # labels have their times where events have them
    elif roles.label_time is not None:
        lines.append(f"label_time={_quoted(roles.label_time)},")
    else:
        comment = "  # a guess: no column says when a label is known"
        lines.append(f"label_delay={_quoted(times.label_delay)},{comment}")
    if roles.key is None:
        lines.append('key="all",  # one series')
    if roles.id is None:
        lines.append("row_ids=True,")
    return lines


def _features(times: _Times, fields_: _Fields) -> list[str]:
    texts = []
    for name, kind in fields_.types.items():
        column, quoted = fields_.columns[name], _quoted(name)
        fill = f", fill={fields_.typical(name)}" if fields_.is_optional[name] else ""
        if kind in {"float", "bool"}:
            maker = "log" if fields_.is_heavy(name) else "field"
            texts.append(f"sml.{maker}({quoted}{fill})")
        elif len(column.counts) <= CATEGORIES_MAX:
            categories = ", ".join(_quoted(each) for each in sorted(column.counts))
            texts.append(f"sml.one_hot({quoted}, categories=[{categories}])")
        else:
            texts.append(f"sml.hashed({quoted}, {fields_.hashed[name]})")
    if not times.is_daily:
        texts.append("sml.hour_of_day()")
    if times.span_ms > 14 * DAY_MS:
        texts.append("sml.weekday()")
    return texts + _window_features(times, fields_) or ["sml.weekday()"]


def _window_features(times: _Times, fields_: _Fields) -> list[str]:
    windows = times.windows
    if not windows:
        return []
    texts = [f'sml.window("{window}").count()' for window in windows]
    numbers = [
        name
        for name, kind in fields_.types.items()
        if kind == "float" and len(fields_.columns[name].counts) > 1
    ]
    for name in numbers[:WINDOW_FIELDS]:
        number = f"sml.log({_quoted(name)})" if fields_.is_heavy(name) else _quoted(name)
        typical = fields_.typical(name)
        texts.append(f'sml.window("{windows[-1]}").mean({number}, fill={typical})')
    seconds = float(LADDER_MS[windows[-1]] // 1000)
    return [*texts, f'sml.window("{windows[-1]}").time_since_last(fill={seconds})']


# --- words ------------------------------------------------------------------------------------


def _notes(
    sample: Sample, roles: Roles, times: _Times, target: tuple[str, str]
) -> list[tuple[str, str, str]]:
    reasons = {role: reason + _others(roles, role) for role, reason in roles.reasons.items()}
    unit = "ISO 8601" if roles.time_unit == "iso" else f"epoch {roles.time_unit}"
    notes = [
        ("time", roles.time, f"{unit}; {reasons['time']}"),
        ("id", roles.id or "-", reasons["id"]),
        ("key", roles.key or "-", reasons["key"]),
        ("label", roles.label, f"{target[1]}; {reasons['label']}{_share(sample, roles)}"),
    ]
    if roles.silence is not None:
        window, _, words = times.wait(roles)
        reason = f"after {window} without a label, for {roles.silence.reason}; {words}"
        notes.append(("silence", roles.silence.label.strip('"'), reason))
    if roles.is_apart and roles.label_time is None:
        notes.append(("known at", roles.time, "as events have their times"))
    elif roles.label_time is not None:
        notes.append(("known at", roles.label_time, reasons["label_time"]))
    else:
        reason = "after its event: a guess, for no column says when a label is known"
        notes.append(("known", times.label_delay, reason))
    rows = f"{len(sample.rows):,} rows" if sample.is_whole else f"first {len(sample.rows):,} rows"
    return [*notes, ("from", rows, "of " + sample.file)]


def _share(sample: Sample, roles: Roles) -> str:
    """How many events have a label, where not all have."""
    rows = len(sample.rows)
    if roles.labelled == rows or roles.is_apart:
        return ""
    return f"; {roles.labelled:,} of {rows:,} rows have one ({roles.labelled / rows:.1%})"


def _labels_notes(
    sample: Sample, roles: Roles, labels: Sample | None
) -> list[tuple[str, str, str]]:
    """What the file of labels has, where there is one."""
    if labels is None:
        return []
    ids = {str(row[roles.id]) for row in sample.rows if roles.id in row}
    known = sum(str(row.get(roles.label_id)) in ids for row in labels.rows)
    rows = f"{len(labels.rows):,} rows" if labels.is_whole else f"first {len(labels.rows):,} rows"
    return [("and", rows, f"of {labels.file}; by {roles.label_id!r} {known:,} are of events above")]


def _labels_warnings(sample: Sample, roles: Roles, labels: Sample | None) -> list[str]:
    if labels is None:
        return []
    [(_, _, words)] = _labels_notes(sample, roles, labels)
    used = {roles.label_id, _label_time(labels, roles), roles.label}
    found = [f"{n!r:.80} of {labels.file} is not used" for n in labels.columns if n not in used]
    if " 0 are of events" in words:
        found.append(
            f"no label of {labels.file} is of an event of {sample.file}: is {roles.id!r} what both "
            "are known by? Name the column of events with --id"
        )
    if labels.bad:
        found.append(
            f"{labels.bad:,} rows of {labels.file} could not be read: `stream-ml check` says why"
        )
    if {sample.kind, labels.kind} == {"csv"} and sample.delimiter != labels.delimiter:
        found.append(
            f"cells are apart by {sample.delimiter!r} in {sample.file} and by {labels.delimiter!r} "
            f"in {labels.file}, where one delimiter is declared for both: write one of them anew"
        )
    return found


def _others(roles: Roles, role: str) -> str:
    others = roles.others.get(role)
    return f" (or {', '.join(others[:5])}?)" if others else ""


def _warnings(sample: Sample, roles: Roles, times: _Times, fields_: _Fields) -> list[str]:
    found = [f"{name!r:.80} is left out: {why}" for name, why in fields_.left_out.items()]
    if roles.time_zone is not None:
        found.append(
            f"times name no zone: UTC is assumed; change time_zone where {roles.time!r} is not"
        )
    found += _truth_warnings(sample, roles)
    if times.lag_ms > LATENESS_MS_MAX:
        found.append(
            f"rows are not in the order of {roles.time!r}, so most of them would come too late: "
            f"sort the file by it{_sort_command(sample, roles)}"
        )
    if sample.bad:
        found.append(f"{sample.bad:,} rows could not be read: `stream-ml check` says why")
    if not fields_.types:
        found.append("no column is left for a field: models see times and windows alone")
    return found


def _truth_warnings(sample: Sample, roles: Roles) -> list[str]:
    """What is odd about the labels."""
    rows, found = len(sample.rows), []
    if roles.silence is None and 2 * roles.labelled < rows:
        found.append(
            f"{rows - roles.labelled:,} of {rows:,} events ({1 - roles.labelled / rows:.0%}) have "
            "no label: they teach nothing; if that is an answer too, declare which one, as in "
            'Label(bool, window="1d", absent=False)'
        )
    if roles.silence is None and roles.untimed:
        found.append(
            f"{roles.untimed:,} labels have no {roles.label_time!r:.80} beside them, and would be "
            "refused: nothing says when they were known"
        )
    return found


def _sort_command(sample: Sample, roles: Roles) -> str:
    """How to sort a plain CSV file in a shell."""
    packed = PurePath(sample.file).suffix.lower() in PACKED_SUFFIXES
    if sample.kind != "csv" or packed or sample.file == STANDARD_INPUT:
        return ""
    number = sample.header.index(roles.time) + 1
    file, form = shlex.quote(sample.file), "" if roles.time_unit == "iso" else "n"
    options = f"-s -t{shlex.quote(sample.delimiter)} -k{number},{number}{form}"
    command = f"(head -n 1 {file}; tail -n +2 {file} | LC_ALL=C sort {options}) > sorted.csv"
    return f", as in `{command}` where no cell is quoted"
