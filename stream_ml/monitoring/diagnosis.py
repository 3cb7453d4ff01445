"""What lies behind what has moved: the world, or a fault of the pipeline.

A diagnosis rests on the state of the monitors alone, and says which figures it rests on:

- Signs that no world gives are faults: another unit, a column that stands still, values that are
  missing, one source of labels against the others, labels or a partition that stop, a flood of
  records that are late or come twice. A new category is a thing of the world.
- Inputs that move, while answers still tell true from false, are `inputs`.
- A loss that has grown is a `concept` where answers have lost their contrast, that is, are no
  higher any more for what turns out true; where they have kept it, and labels are other ones than
  answers say, it is `label_share`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.monitoring.sources import BLOCKS_RUNNING
from stream_ml.monitoring.story import column_message, move_phrase
from stream_ml.monitoring.watch import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Cause", "Moved", "causes", "moved"]

_FAULTS = {"frozen": "frozen", "missing": "nulls", "units": "units", "category": "category"}
_WORLD = frozenset({"category", "inputs", "concept", "label_share"})
_FLOOD = frozenset({"too_late", "duplicate"})
# A contrast of less than this share of the usual one is lost.
CONTRAST_KEPT = 0.5
SURPLUS_MIN = 0.1
# Characters of figures in a table: names of categories may be long.
CHANGE_MAX = 80


@dataclass(frozen=True, slots=True)
class Moved:
    """A column that is not as usual.

    Attributes:
        column: its kind and name.
        since: the start of the first block that said so, UTC milliseconds.
        sign: `frozen`, `missing`, `units`, `category` or `shift`.
        horizon: `block` or `day`.
        distance: from what is usual, 0 to 1.
        message: a sentence.
        figures: now and usually.
    """

    column: str
    since: int
    sign: str
    horizon: str
    distance: float
    message: str
    figures: dict[str, Any]

    @property
    def change(self) -> str:
        """The figures in short, for a table: without the column and the sign."""
        now, usual = self.figures["now"], self.figures["usual"]
        if self.sign == "missing" or self.figures.get("of") == "missing":
            text = f"{now['missing']:.0%} missing, usually {usual['missing']:.1%}"
        elif self.sign == "category":
            text = f"{self.figures['category']!r} is new"
        elif self.sign == "frozen":
            text = f"one value in all {now['values']}"
        else:
            text = move_phrase(now, usual)
        return text if len(text) <= CHANGE_MAX else f"{text[: CHANGE_MAX - 3]}..."

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Cause:
    """What lies behind what has moved.

    Attributes:
        kind: `units`, `frozen`, `nulls`, `category`, `schema`, `flood`, `silence`, `label_outage`,
            `label_delay`, `label_source`, `label_share`, `concept` or `inputs`.
        origin: `world`, or `pipeline` where it looks like a fault on the way to us.
        subject: the field, partition or source that it shows in; None: in none alone.
        since: UTC milliseconds.
        message: why, with the figures.
        figures: behind it.
    """

    kind: str
    subject: str | None
    since: int
    message: str
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where it looks to come from."""
        return "world" if self.kind in _WORLD else "pipeline"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "origin": self.origin}


def moved(monitors: Mapping[str, Any]) -> list[Moved]:
    """The columns that have moved beyond doubt, the earliest first.

    Args:
        monitors: the state of the monitors, as their `dump` gives it.
    """
    found = []
    for watch in ("events", "labels"):
        for name, episode in monitors[watch]["episodes"].items():
            if episode["is_open"]:
                finding = Finding(**episode["finding"])
                message = column_message(finding)
                found.append(
                    Moved(
                        name,
                        episode["since"],
                        finding.sign,
                        finding.horizon,
                        finding.distance,
                        message,
                        finding.figures,
                    )
                )
    return sorted(found, key=lambda each: (each.since, each.column))


def causes(monitors: Mapping[str, Any], alarms: Iterable[Sequence[Any]]) -> list[Cause]:
    """What lies behind what has moved, the earliest first.

    Args:
        monitors: the state of the monitors, as their `dump` gives it.
        alarms: what evaluate has open: kind, subject, and since when (UTC ms).
    """
    columns = moved(monitors)
    open_since = {(kind, subject): since for kind, subject, since in alarms}
    faults = [*_column_faults(columns), *_refused(monitors), *_sources(monitors)]
    faults += _outages(monitors, open_since)
    faulty = {cause.kind for cause in faults} - {"category"}
    found = faults if faulty else [*faults, *_world(monitors, columns, open_since)]
    return sorted(found, key=lambda cause: (cause.since, cause.kind))


def _column_faults(columns: Iterable[Moved]) -> Iterator[Cause]:
    for each in columns:
        kind, _, name = each.column.partition(":")
        if kind == "field" and each.sign in _FAULTS:
            yield Cause(_FAULTS[each.sign], name, each.since, each.message, each.figures)


def _refused(monitors: Mapping[str, Any]) -> Iterator[Cause]:
    _, _, episodes = monitors["refused"]
    floods = [(r, e) for r, e in sorted(episodes.items()) if r.partition(" ")[0] in _FLOOD]
    if floods:
        reasons = ", ".join(f"{e['share']:.0%} {r.partition(' ')[0]}" for r, e in floods)
        since = min(e["since"] for _, e in floods)
        yield Cause("flood", None, since, f"many records are late or come twice: {reasons}")
    for reason, episode in sorted(episodes.items()):
        word, _, path = reason.partition(" ")
        if word not in _FLOOD:
            kind = {"unknown_category": "category", "null": "nulls"}.get(word, "schema")
            message = (
                f"{episode['share']:.0%} of the events of a block are refused as {word} at {path}, "
                f"usually {episode['usual']:.1%}"
            )
            yield Cause(kind, path.removeprefix("$.") or None, episode["since"], message, episode)


def _sources(monitors: Mapping[str, Any]) -> Iterator[Cause]:
    _, _, suspects = monitors["sources"]
    for source, (blocks, since, _) in sorted(suspects.items()):
        if blocks >= BLOCKS_RUNNING:
            message = (
                f"labels of the source {source} contradict what is served, and those of the others "
                "do not"
            )
            yield Cause("label_source", source, since, message)


def _outages(
    monitors: Mapping[str, Any], open_since: Mapping[tuple[str, str], int]
) -> Iterator[Cause]:
    for kind, subject in open_since:
        if kind == "event_outage":
            message = f"{subject.replace(':', ' ')} of events is silent, while the others go on"
            if not subject:
                message = "labels go on, and no events come"
            yield Cause("silence", subject or None, open_since[kind, subject], message)
    if ("label_outage", "") in open_since:
        since = monitors["outage"][-1] or open_since["label_outage", ""]
        yield Cause("label_outage", None, since, "events go on, and no labels come")
        return
    for each in moved(monitors):
        if each.column == "label_delay":
            yield Cause("label_delay", None, each.since, each.message, each.figures)


def _world(
    monitors: Mapping[str, Any],
    columns: Sequence[Moved],
    open_since: Mapping[tuple[str, str], int],
) -> Iterator[Cause]:
    fields = [each for each in columns if each.column.startswith("field:") and each.sign == "shift"]
    labels = [each for each in columns if each.column == "label"]
    contrast = monitors["contrast"]
    has_lost_contrast = (
        contrast["lowest"] is not None and contrast["lowest"] < CONTRAST_KEPT * contrast["usual"]
    )
    loss_since = open_since.get(("loss_change", ""))
    if loss_since is not None and has_lost_contrast:
        message = (
            "the loss of what is served has grown, and its answers tell true from false no longer: "
            f"they differed by {contrast['usual']:.3f}, and by {contrast['lowest']:.3f} since"
        )
        yield Cause("concept", None, loss_since, message, contrast)
    elif labels and (loss_since is not None or contrast["surplus"] >= SURPLUS_MIN or not fields):
        message = f"{labels[0].message}; the answers still tell true from false"
        yield Cause("label_share", None, labels[0].since, message, labels[0].figures)
        return
    elif loss_since is not None and not fields:
        message = "the loss of what is served has grown, while inputs and labels are as usual"
        yield Cause("concept", None, loss_since, message, contrast)
    for each in fields:
        name = each.column.partition(":")[2]
        message = f"{each.message}; in no known unit"
        yield Cause("inputs", name, each.since, message, each.figures)
