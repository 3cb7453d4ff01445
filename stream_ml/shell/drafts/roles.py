"""Guesses at what each column of a file is for, each with its reason, for somebody to look over."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord, UsageError
from stream_ml.files import Files, TimeReader, cell_flag
from stream_ml.shell.drafts.silence import (
    CLASSES_MAX,
    SilentLabel,
    can_be_label,
    find_silence,
    is_mark,
    is_named_for,
    label_texts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.shell.drafts.sample import Sample, SampledColumn

__all__ = ["ROLES", "Roles", "guess_roles"]

# What somebody may say that a column is.
ROLES = ("time", "id", "key", "label", "label_time")

_ANY_CASE = re.IGNORECASE
TIME_NAMES = re.compile(
    r"ts|t|time|timestamp|date|datetime|event_?time|occurred.*|created.*", _ANY_CASE
)
TIME_ENDS = re.compile(r".*(_at|_on|_ts|_time|_date|time|date|At|Time|Date)")
ID_NAMES = re.compile(
    r"(event|row|record|transaction|order|payment|trip|flight|session)?_?id", _ANY_CASE
)
ID_ENDS = re.compile(r".*(_id|_uuid|_guid|_no|_nr|_number|_ref)|id|uuid|guid|no|nr|ref", _ANY_CASE)
KEY_NAMES = re.compile(
    r"(customer|user|client|member|account|card|device|machine|sensor|station|store|shop|merchant"
    r"|patient|vehicle|car|driver|rider|product|item|sku|symbol|ticker|host|site|kitchen|player"
    r"|tail|plane|route|origin|meter)(_?(id|no|nr|number|name|key|code|num))?",
    _ANY_CASE,
)
LABEL_NAMES = re.compile(
    r"(label|target|y|truth|outcome|class|result|response)"
    r"|((is|was|has|did)_?)?(fraud|fraudulent|late|delayed|churn|churned|default|defaulted|click"
    r"|clicked|converted|conversion|cancelled|canceled|returned|failed|failure|spam|won|survived)",
    _ANY_CASE,
)
KNOWN_TIME = re.compile(
    r".*(label|known|settle|resolve|close|deliver|outcome|end|finish).*", _ANY_CASE
)
NAMES_SHOWN, NAME_LENGTH_MAX, CODE_LENGTH_MAX = 30, 512, 64
# What comes in fewer rows than this for each key has windows that are empty.
ROWS_PER_KEY = 2


@dataclass(slots=True)
class Roles:
    """What columns are for; None where no column is.

    Attributes:
        time, id, key, label, label_time: columns.
        time_unit: of times.
        time_zone: of times that name none.
        is_apart: labels are in a file of their own.
        label_id: what events are called by there.
        silence: what events without a label have for one.
        labelled: how many of the sampled events have a label.
        untimed: how many labels stand in the row of their event without the time of `label_time`.
        reasons: why, by role.
        others: which columns may be it as well, by role.
    """

    time: str = ""
    time_unit: str = "ms"
    time_zone: str | None = None
    id: str | None = None
    key: str | None = None
    label: str = ""
    label_time: str | None = None
    is_apart: bool = False
    label_id: str = ""
    silence: SilentLabel | None = None
    labelled: int = 0
    untimed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)


def guess_roles(
    sample: Sample, given: Mapping[str, str | None], labels: Sample | None = None
) -> Roles:
    """Guess what the columns of a file are for.

    Args:
        sample: of the file.
        given: the columns that somebody has named: `time`, `id`, `key`, `label`, `label_time`.
        labels: of the file of labels, where they are in one of their own.

    Raises:
        UsageError: a column that was named is not there or cannot be it, or none can be found that
            has to be.
    """
    for role, name in given.items():
        file = labels if labels is not None and role.startswith("label") else sample
        if name is not None and name not in file.columns:
            raise UsageError(
                f"--{role.replace('_', '-')}: expected a column of {file.file}, given {name!r}; "
                f"it has {_names(file)}"
            )
    roles = Roles(is_apart=labels is not None)
    _guess_time(roles, sample, given.get("time"))
    if labels is None:
        _guess_label(roles, sample, given.get("label"))
        _guess_id(roles, sample, given.get("id"))
        _guess_label_time(roles, sample, given.get("label_time"))
    else:
        _guess_id(roles, sample, given.get("id"))
        _guess_labels(roles, labels, given, len(sample.rows))
    _guess_key(roles, sample, given.get("key"))
    _guess_silence(roles, sample, labels)
    return roles


def _guess_silence(roles: Roles, sample: Sample, labels: Sample | None) -> None:
    """Guess what it means that an event has no label."""
    texts = label_texts(sample, roles.label, labels, (roles.id or "", roles.label_id))
    roles.labelled = len(texts) - texts.count(None)
    time = "" if labels is not None else roles.label_time or ""
    roles.silence = find_silence(
        (labels or sample).columns[roles.label], texts, iter(sample.rows), time
    )
    if time:
        roles.untimed = sum(roles.label in row and time not in row for row in sample.rows)


def _guess_labels(
    roles: Roles, labels: Sample, given: Mapping[str, str | None], events: int
) -> None:
    """Guess the columns of a file of labels, which has ids and times as that of events has them.

    Raises:
        UsageError: it has not.
    """
    if roles.id is None:
        raise UsageError(
            "--labels: expected events with ids, by which labels are known, given no column that "
            "is called so and has no value twice; name it with --id"
        )
    if not {roles.id, "event_id"} & labels.columns.keys():
        raise UsageError(
            f"--labels: expected a column {roles.id!r} or 'event_id', whose label each is, given "
            f"{_names(labels)}; rename it, or name another column of events with --id"
        )
    roles.label_id = roles.id if roles.id in labels.columns else "event_id"
    times = [name for name, each in labels.columns.items() if _unit(each) == roles.time_unit]
    usual = [name for name in (roles.time, "ts") if name in times]
    found = given.get("label_time") or next(iter([*usual, *times]), None)
    if found is None or found not in times:
        raise UsageError(
            "--labels: expected a column of when each label was known, with times as "
            f"{roles.time!r} has them, given {_names(labels)}; name it with --label-time"
        )
    roles.label_time = None if found in {roles.time, "ts"} else found
    roles.reasons["label_time"] = "as asked" if given.get("label_time") else "its values are times"
    others = {roles.id, "event_id", found}
    columns = {name: each for name, each in labels.columns.items() if name not in others}
    _guess_label(roles, replace(labels, columns=columns), given.get("label"), events)


def _names(sample: Sample) -> str:
    names = [repr(name)[:80] for name in sample.columns]
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


def _choose(roles: Roles, role: str, scores: dict[str, int]) -> str | None:
    """The best column, the first of those that are as good."""
    if not scores:
        return None
    best = max(scores, key=lambda name: scores[name])
    roles.others[role] = [name for name in scores if name != best]
    return best


# --- times ------------------------------------------------------------------------------------


def _unit(column: SampledColumn) -> str | None:
    """The unit by which all of its values are times; None where it is no column of times."""
    if column.all_are("time", "local"):
        return "iso"
    if column.all_are("whole", "number"):
        for unit, count in column.units.items():
            if count == column.present:
                return unit
    return None


def _guess_time(roles: Roles, sample: Sample, given: str | None) -> None:
    scores = {}
    for name, column in sample.columns.items():
        unit = _unit(column)
        is_named = bool(TIME_NAMES.fullmatch(name) or TIME_ENDS.fullmatch(name))
        if unit is not None and (is_named or unit == "iso"):
            is_full = column.present == len(sample.rows)
            scores[name] = 4 * is_full + 2 * bool(TIME_NAMES.fullmatch(name)) + is_named
    is_named = bool(scores)
    if not is_named:
        rising = [name for name, each in sample.columns.items() if _rises(sample, name, each)]
        scores = dict.fromkeys(rising, 0)
    found = given if given is not None else _choose(roles, "time", scores)
    if found is None:
        raise UsageError(
            f"{sample.file}: expected a column of times, in ISO 8601 or as seconds, milliseconds, "
            f"microseconds or nanoseconds since 1970, given {_names(sample)}"
            f"{_other_times(sample)}; name it with --time, or write its values so"
        )
    column = sample.columns[found]
    unit = _unit(column)
    if unit is None:
        raise UsageError(
            f"--time: expected a column whose values all are times, given {found!r}, such as "
            f"{next(iter(column.counts), 'nothing')!r:.60}"
        )
    roles.time, roles.time_unit = found, unit
    if unit == "iso" and column.types["local"]:
        roles.time_zone = "UTC"
    if column.is_typed_time:
        roles.time_unit = "iso"
    reason = "all of its values are times" + ("" if is_named else ", and hardly one falls")
    roles.reasons["time"] = "as asked" if given else reason


def _rises(sample: Sample, name: str, column: SampledColumn) -> bool:
    """Whether numbers that may be times hardly ever fall from row to row, as times do."""
    if _unit(column) is None or column.present < max(len(sample.rows), ROWS_PER_KEY):
        return False
    values = sample.numbers(name)
    falls = sum(after < before for before, after in pairwise(values))
    return falls * 10 <= len(values) and values[-1] > values[0]


def _other_times(sample: Sample) -> str:
    """What columns hold that are called times and are none that is read."""
    for name, column in sample.columns.items():
        if column.counts and (TIME_NAMES.fullmatch(name) or TIME_ENDS.fullmatch(name)):
            return f", of which {name!r:.80} has values such as {next(iter(column.counts))!r:.60}"
    return ""


def _guess_label_time(roles: Roles, sample: Sample, given: str | None) -> None:
    if given is not None:
        if _unit(sample.columns[given]) != roles.time_unit:
            raise UsageError(
                f"--label-time: expected a column of times as {roles.time!r} has them, given "
                f"{given!r}, such as {next(iter(sample.columns[given].counts), 'nothing')!r:.60}"
            )
        roles.label_time = given
        roles.reasons["label_time"] = "as asked"
        return
    named = [name for name in sample.columns if is_named_for(name, roles.label)]
    for name in (*named, *(each for each in sample.columns if KNOWN_TIME.fullmatch(each))):
        if name != roles.label and _is_later(roles, sample, roles.label, name):
            roles.label_time = name
            roles.reasons["label_time"] = f"it is never before {roles.time!r}"
            return


def _is_later(roles: Roles, sample: Sample, label: str, name: str) -> bool:
    """Whether each label has a time there, after its event; of flags each that is true."""
    if name == roles.time or _unit(sample.columns[name]) != roles.time_unit:
        return False
    reader = TimeReader(Files(time_unit=roles.time_unit, time_zone=roles.time_zone))
    for row in sample.rows:
        if label not in row:
            continue
        if name not in row and cell_flag(str(row[label])) is False:
            continue
        try:
            if name not in row or reader.read("", row[name]) < reader.read("", row[roles.time]):
                return False
        except (BadRecord, KeyError):
            return False
    return True


# --- label, id and key ------------------------------------------------------------------------


def _guess_label(
    roles: Roles, sample: Sample, given: str | None, events: int | None = None
) -> None:
    rows = len(sample.rows) if events is None else events
    columns = {n: c for n, c in sample.columns.items() if n != roles.time and can_be_label(c, rows)}
    scores = {name: _label_score(roles, sample, name, rows) for name in columns}
    scores = {name: score for name, score in scores.items() if score}
    last = list(sample.columns)[-1] if sample.columns else roles.time
    is_last = not scores and last in columns and not is_mark(columns[last], rows)
    if is_last:
        scores[last] = 0
    found = given if given is not None else _choose(roles, "label", scores)
    if found is None:
        raise UsageError(
            f"{sample.file}: expected a column that is the label, what is to be predicted, given "
            f"{_names(sample)}; name it with --label"
        )
    column = sample.columns[found]
    if not can_be_label(column, rows):
        raise UsageError(
            f"--label: expected a column of numbers, of true and false, or of two to {CLASSES_MAX} "
            f"texts, given {found!r} with {len(column.counts):,} different values, "
            f"such as {next(iter(column.counts), 'none')!r:.60}{_remedy(column)}"
        )
    roles.label = found
    reason = "it is the last column: name another with --label" if is_last else "by its name"
    roles.reasons["label"] = "as asked" if given else reason


def _label_score(roles: Roles, sample: Sample, name: str, rows: int) -> int:
    """How much says that a column is the label: its name, and a time beside it."""
    column = sample.columns[name]
    is_flag = column.all_are("bool") or is_mark(column, rows)
    score = 8 * bool(LABEL_NAMES.fullmatch(name)) + 4 * (name.lower() in {"label", "target"})
    score += is_flag and re.match(r"(is|was|has|did)_", name) is not None
    if len(column.counts) > CLASSES_MAX:
        return score
    times = [each for each in sample.columns if is_named_for(each, name)]
    return score + 2 * any(_is_later(roles, sample, name, each) for each in times)


def _remedy(column: SampledColumn) -> str:
    if len(column.counts) != 1:
        return ""
    return (
        ": nothing can be told apart by labels that are all the same; where other rows mean the "
        "contrary, give them too, with that cell empty"
    )


def _taken(roles: Roles) -> set[str | None]:
    return {roles.time, roles.label, roles.id, roles.key}


def _is_name(sample: Sample, column: SampledColumn) -> bool:
    """Whether its values may name things: texts, or whole numbers."""
    if column.present < len(sample.rows) or column.length_max > NAME_LENGTH_MAX:
        return False
    return column.all_are("text", "bool", "whole") and not column.is_typed_time


def _guess_id(roles: Roles, sample: Sample, given: str | None) -> None:
    scores = {}
    for name, column in sample.columns.items():
        if name in _taken(roles) or not _is_unique(sample, name):
            continue
        is_named = ID_NAMES.fullmatch(name) or ID_ENDS.fullmatch(name)
        if is_named and _is_name(sample, column):
            scores[name] = 1 + bool(ID_NAMES.fullmatch(name))
        elif _is_code(sample, column) or _is_count(sample, name, column):
            scores[name] = 0
    roles.id = given if given is not None else _choose(roles, "id", scores)
    if given is not None:
        roles.reasons["id"] = "as asked"
    elif roles.id is not None:
        roles.reasons["id"] = "no value of it comes twice"
    else:
        roles.reasons["id"] = "no column names each row: an event is named by its file and line"


def _is_code(sample: Sample, column: SampledColumn) -> bool:
    """Whether its values are short texts without blanks, as codes are; some may look like numbers.

    Those of hexadecimal digits are such: 12e7 is one.
    """
    return (
        column.present == len(sample.rows)
        and column.texts
        and column.types["text"] * 10 >= column.present * 8
        and column.length_max <= CODE_LENGTH_MAX
        and not any(" " in text for text in column.counts)
    )


def _is_count(sample: Sample, name: str, column: SampledColumn) -> bool:
    """Whether its values count the rows, as the index does that a data frame is written with."""
    if column.present < len(sample.rows) or not column.all_are("whole") or _unit(column):
        return False
    return all(after == before + 1 for before, after in pairwise(sample.numbers(name)))


def _is_unique(sample: Sample, name: str) -> bool:
    return len({str(row.get(name)) for row in sample.rows}) == len(sample.rows)


def _guess_key(roles: Roles, sample: Sample, given: str | None) -> None:
    scores, subject = {}, PurePath(sample.file).name.partition(".")[0].lower()
    for name, column in sample.columns.items():
        if name in _taken(roles) or not _is_name(sample, column):
            continue
        # A file of pumps is about each `pump`.
        is_subject = name.lower() in {subject, subject.removesuffix("s")}
        is_named = bool(KEY_NAMES.fullmatch(name) or ID_ENDS.fullmatch(name)) or is_subject
        distinct = len({str(row.get(name)) for row in sample.rows})
        if distinct > 1 and distinct * ROWS_PER_KEY <= len(sample.rows) and is_named:
            scores[name] = 4 * is_subject + 2 * bool(KEY_NAMES.fullmatch(name)) + 1
    roles.key = given if given is not None else _choose(roles, "key", scores)
    if given is not None:
        roles.reasons["key"] = "as asked"
    elif roles.key is not None:
        roles.reasons["key"] = "by its name, and for its values come again"
    else:
        roles.reasons["key"] = "no column names what events are about: all are one series"
