"""Watches columns, block by block, and says which have moved, since when, and by how much.

Theory of operation:

1. Each block is compared with what is usual at its hours of the week, and each day with its day of
   the week (`reference`); nothing of that is claimed before the first such reference exists, a
   week after the start. What no hour explains is told from the second day on: a column that stands
   still, values that are missing, a factor on all numbers, a new category.
2. How far days are apart anyway is learned (`_Gauge`): a distance counts only if it is beyond what
   chance explains, times how much more than that the past varied, and beyond the largest of the
   past; and if it is large enough to matter. Of many columns, false discoveries are bounded
   (Benjamini and Hochberg).
3. A column has moved when two blocks running say so, or one by a lot. It is as usual again when
   `QUIET_BLOCKS` blocks running show nothing, by a bound that is lower than that. In between
   nothing is learned of it, so that what is wrong does not become what is usual; but after a week
   it does: then the world is what has changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.features.durations import DAY_MS, HOUR_MS
from stream_ml.monitoring.columns import CategoryColumn, NumberColumn
from stream_ml.monitoring.distance import (
    Distance,
    discoveries,
    distance,
    largest_share,
    missing_distance,
    new_category,
)
from stream_ml.monitoring.recurrence import Recurrences
from stream_ml.monitoring.reference import (
    WEEK_MS,
    Common,
    Slots,
    merge_columns,
    packed_columns,
    unpacked,
)
from stream_ml.monitoring.units import unit_factor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.monitoring.columns import Column

__all__ = ["Episode", "Finding", "Watch", "figures"]

VALUES_MIN = 15
DAY_VALUES_MIN = 200
COMMON_VALUES_MIN = 300
# By horizon: the least distance that matters, and the share of false discoveries.
_BOUNDS = {"block": (0.2, 1e-3), "day": (0.1, 1e-6)}
# The least that matters where the past has not yet shown how it varies.
_FIRST_EFFECTS = {"block": 0.3, "day": 0.2}
MISSING_EFFECT = 0.05
# One block is enough where a distance is this large, and chance as good as nothing.
GROSS_EFFECT, GROSS_SCORE = 0.5, 12.0
# What keeps open what is open: a score that chance alone exceeds in one block of 200.
SCORE_OPEN = 3.0
GAUGED_MIN = 5
GAUGED_MAX = 50.0
BEYOND_PAST = 1.25
FADING = 0.99
# What squares of scores are on average where nothing has moved: the Kolmogorov distribution's.
SCORE_USUAL = 0.822
MISSING_FAULT, FROZEN_SHARE, NEW_SHARE = 0.3, 0.5, 0.02
NEW_VALUES_MIN = 3
QUIET_BLOCKS = 3
# What comes and goes with the weather, or with a station that is often silent. Other signs are told
# each time.
_RECURRING = ("shift", "missing")
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
CATEGORIES_SHOWN = 5
# Of the names of entries of state, behind the prefix.
COMMON, TODAY, HOURS, DAYS = "c", "t", "h", "d"


@dataclass(slots=True)
class Finding:
    """What a block says of a column that has moved.

    Attributes:
        column: its name.
        sign: `frozen`, `missing`, `units`, `category`, or `shift`.
        horizon: `block` or `day`, whatever was compared.
        distance: from what is usual, 0 to 1.
        score: of the distance (see `distance`).
        at: the start of the block or day, UTC milliseconds.
        figures: what they are now and usually, by name.
    """

    column: str
    sign: str
    horizon: str
    at: int
    distance: float
    score: float
    figures: dict[str, Any]


@dataclass(slots=True)
class Episode:
    """The time in which a column is not as usual.

    Attributes:
        since: the start of the first block that said so, UTC milliseconds.
        finding: the block's that speaks loudest.
        is_open: whether it is beyond doubt.
        quiet: how many blocks running have said nothing since.
        ends_day: whether only a day can end it, for only a day has begun it.
        is_known: whether it is one of many alike, of which nothing is told.
    """

    since: int
    finding: Finding
    is_open: bool = False
    quiet: int = 0
    ends_day: bool = False
    is_known: bool = False


class _Gauge:
    """How much a distance varies where nothing has moved."""

    __slots__ = ("count", "largest", "mean")

    def __init__(self, count: float = 0.0, mean: float = 0.0, largest: float = 0.0) -> None:
        self.count = count
        self.mean = mean
        self.largest = largest

    def weighted(self, found: Distance) -> float:
        """A score, in units of what is usual."""
        factor = max(1.0, self.mean / SCORE_USUAL) if self.count >= GAUGED_MIN else 1.0
        return found.score / factor

    def is_far(self, found: Distance, effect: float, first_effect: float) -> bool:
        """Whether a distance matters, and is beyond those of the past.

        Args:
            found: the distance.
            effect: the least that matters.
            first_effect: the least while the past has not shown how it varies.
        """
        if self.count < GAUGED_MIN:
            effect = max(effect, first_effect)
        return found.value >= max(effect, BEYOND_PAST * self.largest)

    def is_apart(self, found: Distance, effect: float) -> bool:
        """Whether a distance keeps open what is open: it is none that was usual before.

        Args:
            found: the distance.
            effect: the least that matters.
        """
        return found.score >= SCORE_OPEN and found.value >= max(effect, self.largest)

    def learn(self, found: Distance) -> None:
        """Take in a distance that is usual."""
        self.count = min(self.count + 1, GAUGED_MAX)
        self.mean += (found.score - self.mean) / self.count
        self.largest = max(self.largest * FADING, found.value)

    def learn_span(self, found: Distance) -> None:
        """Take in how far two days are apart: no more than that is unusual a week later."""
        self.largest = max(self.largest * FADING, found.value)


class Watch:
    """What is usual of some columns, and which have moved.

    Args:
        block_ms: the length of a block.
        prefix: of the names of its entries of state.
    """

    def __init__(self, block_ms: int, prefix: str) -> None:
        self._block_ms = block_ms
        self._prefix = prefix
        # The hours beside one are like it; what is longer is not.
        self._around = 1 if block_ms <= HOUR_MS else 0
        self._common = Common()
        self._hours = Slots(max(block_ms, HOUR_MS))
        self._days = Slots(DAY_MS)
        self._day = -1
        # What came of the present day so far, and the columns of which not all of it is counted.
        self._today: dict[str, Column] = {}
        self._partial: set[str] = set()
        # By what is compared, and the column.
        self._gauges: dict[str, _Gauge] = {}
        self.episodes: dict[str, Episode] = {}
        self._recurrences = Recurrences()
        # Of those that ended with the last block, which have lasted a week, and are usual now.
        self.adopted: set[str] = set()
        self._has_changed = False

    def take(
        self, start: int, columns: Mapping[str, Column], hourly: Iterable[str]
    ) -> tuple[list[Finding], list[str]]:
        """Take in a block; what has moved with it, and what is as usual again.

        Args:
            start: of the block, UTC milliseconds; later than all before.
            columns: what came in it.
            hourly: the columns that each block is compared by; all are compared by each day.
        """
        day = start // DAY_MS
        found: list[Finding] = []
        if self._day >= 0 and day > self._day:
            found = self._compare_day()
            self._today, self._partial = {}, set()
        self._day = day
        names = [name for name in hourly if name in columns]
        found += self._compare_block(start, {name: columns[name] for name in names})
        opened, closed = self._episodes(start, found, columns)
        self._learn(start, columns, names)
        self._has_changed = True
        return opened, closed

    # --- comparing -----------------------------------------------------------------------------

    def _compare_block(self, start: int, columns: Mapping[str, Column]) -> list[Finding]:
        usual = self._hours.near(start, around=self._around)
        self._learn_spans("block", columns, usual, start)
        found = [
            finding
            for name, values in columns.items()
            if (finding := self._fault(start, name, values)) is not None
        ]
        faulty = {finding.column for finding in found}
        pairs = {
            name: (values, usual[name])
            for name, values in columns.items()
            if name in usual and name not in faulty and values.n + values.missing >= VALUES_MIN
        }
        return found + self._shifts(pairs, "block", start)

    def _compare_day(self) -> list[Finding]:
        usual = self._days.near(self._day * DAY_MS, around=0)
        self._learn_spans("day", self._today, usual, self._day * DAY_MS)
        pairs = {
            name: (values, usual[name])
            for name, values in self._today.items()
            if name in usual and values.n + values.missing >= DAY_VALUES_MIN
        }
        found = self._shifts(pairs, "day", self._day * DAY_MS)
        moved = {finding.column for finding in found} | self.episodes.keys()
        self._days.learn(
            self._day * DAY_MS,
            {name: values for name, values in self._today.items() if name not in moved},
        )
        return found

    def _learn_spans(
        self, horizon: str, columns: Mapping[str, Column], usual: Mapping[str, Column], start: int
    ) -> None:
        """Where there is no week before: learn how far a block, or a day, is from the day before.

        That is further than two Mondays are apart, where there is a weekly cycle. Weather, which
        stays for days, has no other measure.
        """
        new = [name for name in columns if name not in usual and name not in self.episodes]
        if not new:
            return
        slots = self._hours if horizon == "block" else self._days
        before = slots.near(start - DAY_MS, around=self._around if horizon == "block" else 0)
        for name in new:
            if name in before and columns[name].n + columns[name].missing >= VALUES_MIN:
                gauge = self._gauges.setdefault(f"{horizon} shift {name}", _Gauge())
                gauge.learn_span(distance(columns[name], before[name]))

    def _shifts(
        self, pairs: Mapping[str, tuple[Column, Column]], horizon: str, at: int
    ) -> list[Finding]:
        (effect, chance), first_effect = _BOUNDS[horizon], _FIRST_EFFECTS[horizon]
        compared: list[tuple[str, str, _Gauge, Distance, float]] = []
        for name, (values, usual) in pairs.items():
            for sign, least, found in (
                ("shift", effect, distance(values, usual)),
                ("missing", MISSING_EFFECT, missing_distance(values, usual)),
            ):
                gauge = self._gauges.setdefault(f"{horizon} {sign} {name}", _Gauge())
                compared.append((name, sign, gauge, found, least))
        bound = discoveries([gauge.weighted(found) for _, _, gauge, found, _ in compared], chance)
        findings: dict[str, Finding] = {}
        for name, sign, gauge, found, least in compared:
            if (self._is_open(name) and gauge.is_apart(found, least)) or (
                gauge.weighted(found) >= bound and gauge.is_far(found, least, first_effect)
            ):
                values, usual = pairs[name]
                told = figures(values, usual)
                if sign == "missing" and told["now"]["missing"] <= told["usual"]["missing"]:
                    # More values than usual are no fault.
                    sign, told["of"] = "shift", "missing"  # noqa: PLW2901 - as it is told
                finding = Finding(name, sign, horizon, at, found.value, found.score, told)
                if found.category is not None:
                    finding.figures["category"] = found.category
                findings.setdefault(name, finding)
            elif name not in self.episodes:
                gauge.learn(found)
        return list(findings.values())

    def _is_open(self, name: str) -> bool:
        episode = self.episodes.get(name)
        return episode is not None and episode.is_open

    def _fault(self, start: int, name: str, values: Column) -> Finding | None:
        """What no hour explains, compared with all that was before."""
        usual = self._common.columns.get(name)
        rows = values.n + values.missing
        if usual is None or type(usual) is not type(values) or rows < VALUES_MIN:
            return None
        if self._common.age_ms(name, start) < DAY_MS or usual.n < COMMON_VALUES_MIN:
            return None
        missing = missing_distance(values, usual)
        gauge = self._gauges.setdefault(f"fault missing {name}", _Gauge())
        if (
            values.missing / rows > usual.missing / (usual.n + usual.missing)
            and missing.value >= max(MISSING_FAULT, BEYOND_PAST * gauge.largest)
            and missing.score >= GROSS_SCORE / 2
        ):
            return _block_finding("missing", start, name, missing, (values, usual))
        if name not in self.episodes:
            gauge.learn(missing)
        if values.n < VALUES_MIN:
            return None
        if isinstance(values, NumberColumn) and isinstance(usual, NumberColumn):
            return self._number_fault(start, name, values, usual)
        assert isinstance(values, CategoryColumn), "columns are of numbers or of categories"
        assert isinstance(usual, CategoryColumn), "they are of one kind"
        return self._category_fault(start, name, values, usual)

    def _number_fault(
        self, start: int, name: str, values: NumberColumn, usual: NumberColumn
    ) -> Finding | None:
        if values.sketch.low == values.sketch.high and largest_share(usual) < FROZEN_SHARE:
            found = distance(values, usual)
            return _block_finding("frozen", start, name, found, (values, usual))
        found = distance(values, usual)
        gauge = self._gauges.setdefault(f"fault shift {name}", _Gauge())
        if gauge.is_far(found, GROSS_EFFECT, GROSS_EFFECT) and found.score >= GROSS_SCORE / 2:
            factor = unit_factor(values, usual)
            if factor is not None:
                finding = _block_finding("units", start, name, found, (values, usual))
                finding.figures["factor"] = factor
                return finding
        elif name not in self.episodes:
            gauge.learn(found)
        return None

    def _category_fault(
        self, start: int, name: str, values: CategoryColumn, usual: CategoryColumn
    ) -> Finding | None:
        if len(values.counts) == 1 and not values.others and largest_share(usual) < FROZEN_SHARE:
            found = distance(values, usual)
            return _block_finding("frozen", start, name, found, (values, usual))
        new = new_category(values, usual)
        gauge = self._gauges.setdefault(f"fault new {name}", _Gauge())
        share = 0.0 if new is None else new[1]
        if (
            new is not None
            and share >= max(NEW_SHARE, 2 * gauge.largest)
            and share * values.n >= NEW_VALUES_MIN
        ):
            found = Distance(share, GROSS_SCORE)
            finding = _block_finding("category", start, name, found, (values, usual))
            finding.figures["category"] = new[0]
            return finding
        if name not in self.episodes:
            gauge.learn(Distance(share, 0.0))
        return None

    # --- episodes ------------------------------------------------------------------------------

    def _episodes(
        self, start: int, findings: list[Finding], columns: Mapping[str, Column]
    ) -> tuple[list[Finding], list[str]]:
        opened: list[Finding] = []
        seen: dict[str, Finding] = {}
        for finding in findings:
            seen.setdefault(finding.column, finding)
        for name, finding in seen.items():
            episode, is_new = self.episodes.get(name), False
            if episode is None:
                ends_day = finding.horizon == "day"
                episode = Episode(finding.at, finding, ends_day=ends_day)
                self.episodes[name] = episode
                is_sure = finding.horizon == "day" or _is_gross(finding)
            else:
                is_sure = True
                # A block that is just far enough is one of many: three without it show nothing.
                if finding.horizon == "block" and (finding.sign != "shift" or _is_gross(finding)):
                    episode.ends_day = False
                if _rank(finding) > _rank(episode.finding):
                    is_new = episode.finding.sign == "shift" != finding.sign
                    episode.finding = finding
            episode.quiet = 0
            if is_sure and (is_new or not episode.is_open or episode.is_known):
                episode.is_open = True
                episode.is_known = self._is_known(name, episode, start)
                if not episode.is_known:
                    opened.append(episode.finding)
        return opened, self._closed(start, seen, columns)

    def _closed(
        self, start: int, seen: Mapping[str, Finding], columns: Mapping[str, Column]
    ) -> list[str]:
        closed = []
        self.adopted = set()
        for name, episode in list(self.episodes.items()):
            if start - episode.since >= WEEK_MS:
                self._adopt(name)
                self.adopted.add(name)
            elif name in seen or not self._says_enough(columns.get(name)):
                continue
            else:
                episode.quiet += 1
                quiet = DAY_MS // self._block_ms if episode.ends_day else QUIET_BLOCKS
                if episode.quiet < (quiet if episode.is_open else 1):
                    continue
            del self.episodes[name]
            if episode.is_open:
                closed.append(name)
                if episode.finding.sign in _RECURRING and name not in self.adopted:
                    self._recurrences.end(
                        f"{episode.finding.sign} {name}", episode.finding.distance, start
                    )
        return closed

    def _is_known(self, name: str, episode: Episode, now: int) -> bool:
        """Whether it is one of many alike: then nobody is told."""
        finding = episode.finding
        key = f"{finding.sign} {name}"
        return finding.sign in _RECURRING and self._recurrences.is_known(key, finding.distance, now)

    @staticmethod
    def _says_enough(values: Column | None) -> bool:
        return values is not None and values.n + values.missing >= VALUES_MIN

    def _adopt(self, name: str) -> None:
        """Take a column for what it has become: its past is another's."""
        self._recurrences.forget(f"{self.episodes[name].finding.sign} {name}")
        self._common.forget(name)
        self._hours.forget(name)
        self._days.forget(name)
        self._today.pop(name, None)
        for key in [key for key in self._gauges if key.endswith(f" {name}")]:
            del self._gauges[key]

    def _learn(self, start: int, columns: Mapping[str, Column], hourly: Iterable[str]) -> None:
        # Of what only days are compared by, hours need not be known.
        usual = {name: columns[name] for name in hourly if name not in self.episodes}
        self._common.learn(start, usual)
        self._hours.learn(start, usual)
        # What a block has told of a column its day need not tell again.
        self._partial |= {
            n for n, each in self.episodes.items() if each.is_open and not each.ends_day
        }
        # A part of a day is not like a whole one.
        for name in self._partial:
            self._today.pop(name, None)
        counted = {name: each for name, each in columns.items() if name not in self._partial}
        merge_columns(self._today, counted)

    # --- state ---------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """The state but the slots, as JSON can hold it."""
        return {
            "day": self._day,
            "partial": sorted(self._partial),
            "hours": self._hours.dump(),
            "days": self._days.dump(),
            "gauges": {k: [g.count, g.mean, g.largest] for k, g in self._gauges.items()},
            "recurrences": self._recurrences.dump(),
            "episodes": {name: asdict(episode) for name, episode in self.episodes.items()},
        }

    def dirty(self) -> list[tuple[str, bytes]]:
        """The entries of state that changed since the last call, by name."""
        if not self._has_changed:
            return []
        self._has_changed = False
        return [
            (f"{self._prefix}{COMMON}", orjson.dumps(self._common.dump())),
            (f"{self._prefix}{TODAY}", packed_columns(self._today)),
            *((f"{self._prefix}{HOURS}{slot}", value) for slot, value in self._hours.dirty()),
            *((f"{self._prefix}{DAYS}{slot}", value) for slot, value in self._days.dirty()),
        ]

    def load(self, state: Mapping[str, Any], entries: Mapping[str, bytes]) -> None:
        """Take up what `dump` and `dirty` gave.

        Args:
            state: what `dump` gave.
            entries: of state, by name; those of another prefix are passed over.
        """
        own = {
            name.removeprefix(self._prefix): value
            for name, value in entries.items()
            if name.startswith(self._prefix)
        }
        self._day = state["day"]
        self._common.load(orjson.loads(own[COMMON]) if COMMON in own else [{}, {}, -1])
        self._today = unpacked(own[TODAY]) if TODAY in own else {}
        for slots, sign, name in ((self._hours, HOURS, "hours"), (self._days, DAYS, "days")):
            slots.load(state[name], [(n[1:], v) for n, v in own.items() if n[:1] == sign])
        self._gauges = {key: _Gauge(*each) for key, each in state["gauges"].items()}
        # A former release kept neither.
        self._partial = set(state.get("partial", ()))
        self._recurrences.load(state.get("recurrences", {}))
        self.episodes = {
            name: Episode(**{**each, "finding": Finding(**each["finding"])})
            for name, each in state["episodes"].items()
        }


def _block_finding(
    sign: str, start: int, name: str, found: Distance, pair: tuple[Column, Column]
) -> Finding:
    return Finding(name, sign, "block", start, found.value, found.score, figures(*pair))


def _is_gross(finding: Finding) -> bool:
    return finding.distance >= GROSS_EFFECT and finding.score >= GROSS_SCORE


def _rank(finding: Finding) -> tuple[bool, float]:
    """A fault says more than a shift, and a larger one more than a smaller."""
    return finding.sign != "shift", finding.distance


def figures(now: Column, usual: Column) -> dict[str, Any]:
    """What a column is like, and what it usually is like, for people.

    Args:
        now: a block's, or a day's.
        usual: what it is compared with.
    """
    return {"now": _likeness(now), "usual": _likeness(usual)}


def _likeness(values: Column) -> dict[str, Any]:
    rows = values.n + values.missing
    found: dict[str, Any] = {
        "values": round(values.n),
        "missing": values.missing / rows if rows else 0.0,
    }
    if not values.n:
        return found
    if isinstance(values, NumberColumn):
        sketch = values.sketch
        quantiles = {name: sketch.quantile(share) for name, share in QUANTILES.items()}
        return {**found, "low": sketch.low, **quantiles, "high": sketch.high}
    top = sorted(values.counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES_SHOWN]
    return {**found, "shares": {name: count / values.n for name, count in top}}
