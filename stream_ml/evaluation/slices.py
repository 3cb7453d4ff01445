"""Slices of the examples: which there are, how models score on each, and which one is harmed.

Theory of operation:

1. A prediction names the slices that its event is in. Of a field with many values the most frequent
   among the first `LEARNED` examples are slices for good, and all others are one.
2. A challenger may be better on the whole and worse for a few. So of each slice it is asked whether
   the challenger loses more than the champion does, by more than the margin, a share of what the
   champion loses. Blocks of time are the units of chance, as in `evidence`; the past fades, so that
   harm of long ago is no debt. Of few pairs, or a single block, nothing is said.
3. Beyond doubt (the 97.5 % point of Student's t) that is a reason to reject the challenger; where
   it is likelier than not by one standard error, to hold it until more is known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stream_ml.evaluation.evidence import Blocks, t_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["SliceDoubt", "SliceLosses", "SliceNames"]

LEARNED = 1_000
# Of a field with more values, the first are counted.
VALUES_MAX = 256
# About twenty blocks are remembered; of pairs, for people to read, a thousand.
FADING = 0.95
FADING_PAIR = 0.999
PAIRS_MIN = 50


class SliceNames:
    """The slices that are scored, out of those that predictions name.

    Args:
        names: those that are known from the start.
        tops: by field, of how many values the most frequent are slices.

    >>> names = SliceNames(["abroad"], {"country": 1})
    >>> for _ in range(LEARNED):
    ...     learned = names.take(("abroad", "country=it"))
    >>> learned, names.take(("country=fr",))
    (['abroad', 'country=it'], ['country=*'])
    """

    def __init__(self, names: Iterable[str], tops: Mapping[str, int]) -> None:
        self._known = set(names)
        self._tops = dict(tops)
        # By field, while its values are learned: examples, and how many of each value.
        self._counts: dict[str, dict[str, int]] = {field: {} for field in tops}
        self._seen = dict.fromkeys(tops, 0)
        # By field, the values that are slices, with the `top` that they were chosen by.
        self._chosen: dict[str, list[Any]] = {}
        # Where labels may be corrected: the newest prediction, and the newest one by field when its
        # values were chosen. What is not newer than that is in none of these slices for good.
        self._newest_ms = -1
        self._since: dict[str, int] = {}

    def take(self, names: Sequence[str], ts: int | None = None) -> list[str]:
        """Take in what a prediction names; the slices that it counts in.

        Args:
            names: of the slices, as the prediction has them.
            ts: its time, UTC milliseconds, where its label may be corrected.
        """
        found = []
        if ts is not None:
            self._newest_ms = max(self._newest_ms, ts)
        for name in names:
            # It is of a value, unless it is known; or of a slice that is declared no more.
            field = name.partition("=")[0]
            if field in self._counts and name not in self._known:
                self._learn(field, name)
                if field in self._chosen and ts is not None:
                    self._since[field] = self._newest_ms
            counted = self._counted(name, field, ts)
            if counted is not None:
                found.append(counted)
        return found

    def _counted(self, name: str, field: str, ts: int | None) -> str | None:
        """The slice that one of these names counts in at a time; None: in none."""
        if ts is not None and ts <= self._since.get(field, -1):
            return None
        if name in self._known:
            return name
        return f"{field}=*" if field in self._chosen else None

    def _learn(self, field: str, name: str) -> None:
        counts = self._counts[field]
        if name in counts or len(counts) < VALUES_MAX:
            counts[name] = counts.get(name, 0) + 1
        self._seen[field] += 1
        if self._seen[field] >= LEARNED:
            ordered = sorted(counts, key=lambda each: (-counts[each], each))
            self._choose(field, ordered[: self._tops[field]])

    def _choose(self, field: str, names: list[str]) -> None:
        self._chosen[field] = [self._tops[field], names]
        self._known |= set(names)
        del self._counts[field], self._seen[field]

    def counted(self, names: Iterable[str], ts: int) -> list[str]:
        """The slices that what a prediction names counts in, without taking it in.

        Args:
            names: of the slices, as the prediction has them.
            ts: its time, UTC milliseconds.
        """
        found = (self._counted(name, name.partition("=")[0], ts) for name in names)
        return list(dict.fromkeys(name for name in found if name is not None))

    def is_counted(self, name: str) -> bool:
        """Whether a slice is scored now.

        Args:
            name: of the slice.
        """
        return name in self._known or name.removesuffix("=*") in self._chosen

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        times = {"newest": self._newest_ms, "since": self._since} if self._newest_ms >= 0 else {}
        return {"counts": self._counts, "seen": self._seen, "chosen": self._chosen, **times}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `dump` gave, of fields that are declared alike."""
        for field, (top, names) in state.get("chosen", {}).items():
            if self._tops.get(field) == top:
                self._choose(field, list(names))
                self._since[field] = state.get("since", {}).get(field, -1)
        self._newest_ms = state.get("newest", -1)
        for field, counts in state.get("counts", {}).items():
            if field in self._counts:
                self._counts[field], self._seen[field] = dict(counts), state["seen"][field]


Losses = tuple[float, float]


class SliceDoubt(NamedTuple):
    """Why a challenger is not to be promoted: `reject` or `hold`, and why, in words."""

    kind: Literal["reject", "hold"]
    reason: str


class _SliceRecord:
    """What the two lost on one slice."""

    __slots__ = ("blocks", "losses", "moments", "pairs")

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.pairs = 0
        # The fading sums of pairs, of what the challenger lost, and of what the champion did.
        self.losses = [0.0, 0.0, 0.0]
        # Over closed blocks of n pairs, whose excess is s: the fading sums of 1, n, s, and of the
        # squares of their weights with 1, s², s n, n².
        self.moments = [0.0] * 7

    def close(self, watermark_ms: int) -> None:
        for block in self.blocks.close(watermark_ms):
            n, s = float(block.pairs), block.total
            self.pairs += block.pairs
            for i, value in enumerate((1.0, n, s)):
                self.moments[i] = FADING * self.moments[i] + value
            for i, value in enumerate((1.0, s * s, s * n, n * n), 3):
                self.moments[i] = FADING * FADING * self.moments[i] + value

    def excess(self) -> tuple[float, float, float] | None:
        """The mean excess with its standard error and the factor of certainty; None: unknown."""
        weight, n, s, weights, ss, sn, nn = self.moments
        blocks = weight * weight / weights if weights else 0.0
        # A hair less than two are two whose weights differ a little.
        if self.pairs < PAIRS_MIN or blocks < 1.9:  # noqa: PLR2004
            return None
        mean = s / n
        # The ratio estimate of cluster sampling, see `Evidence.gain`.
        squares = max(0.0, ss - 2 * mean * sn + mean * mean * nn)
        error = math.sqrt(squares * blocks / (blocks - 1)) / n
        return mean, error, t_quantile(max(1, round(blocks) - 1))


class SliceLosses:
    """What a challenger and the champion lost on each slice, in the present reign.

    Args:
        margin: what share more than the champion a challenger may lose on a slice.
        block_ms: a block, as of `Blocks`.
        pairs_per_block: likewise.
        maturity_ms: likewise.
    """

    def __init__(
        self, margin: float, block_ms: int | None, pairs_per_block: int, maturity_ms: int
    ) -> None:
        self._margin = margin
        self._lengths = block_ms, pairs_per_block, maturity_ms
        self._records: dict[str, _SliceRecord] = {}

    def add(self, ts: int, slices: Iterable[str], loss: float, own_loss: float) -> None:
        """Take in a pair.

        Args:
            ts: of the prediction, UTC milliseconds.
            slices: that it is in.
            loss: of the challenger.
            own_loss: of the champion.
        """
        for name in slices:
            record = self._records.get(name)
            if record is None:
                record = self._records[name] = self._new()
            record.blocks.add(ts, loss - (1.0 + self._margin) * own_loss)
            for i, value in enumerate((1.0, loss, own_loss)):
                record.losses[i] = FADING_PAIR * record.losses[i] + value

    def revise(
        self, ts: int, slices: Iterable[str], former: Losses, losses: Losses, watermark_ms: int
    ) -> None:
        """Correct a pair in the blocks that are open.

        Args:
            ts: of the prediction, UTC milliseconds.
            slices: that it is in.
            former: what the challenger and the champion lost by the former label.
            losses: what they did.
            watermark_ms: of the examples.
        """
        share = 1.0 + self._margin
        before, after = (own[0] - share * own[1] for own in (former, losses))
        for name in slices:
            record = self._records.get(name)
            if record is not None:
                record.blocks.revise(ts, before, after, watermark_ms)

    def _new(self) -> _SliceRecord:
        block_ms, pairs_per_block, maturity_ms = self._lengths
        return _SliceRecord(Blocks(block_ms, pairs_per_block, maturity_ms=maturity_ms))

    def close(self, watermark_ms: int) -> None:
        """End the blocks that a watermark has passed.

        Args:
            watermark_ms: of the examples.
        """
        for record in self._records.values():
            record.close(watermark_ms)

    def doubt(self) -> SliceDoubt | None:
        """What is to be said against the challenger, the gravest first; None: nothing."""
        doubts = []
        for name, record in sorted(self._records.items()):
            excess = record.excess()
            if excess is None:
                continue
            mean, error, factor = excess
            if mean > error:
                kind: Literal["reject", "hold"] = "reject" if mean > factor * error else "hold"
                doubts.append((kind != "reject", -mean, name, kind))
        if not doubts:
            return None
        *_, name, kind = min(doubts)
        return SliceDoubt(kind, self._reason(name, kind))

    def _reason(self, name: str, kind: str) -> str:
        record = self._records[name]
        weight, loss, own_loss = record.losses
        words = (
            f"slice {name}: {loss / weight:.4f} against the champion's {own_loss / weight:.4f} per "
            "example"
        )
        if kind == "hold":
            words += f", of {record.pairs} pairs, which may be chance"
        return f"{words}; {self._margin:.0%} more is borne"

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            name: [record.blocks.dump(), record.pairs, record.losses, record.moments]
            for name, record in sorted(self._records.items())
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `dump` gave."""
        self._records = {}
        for name, (blocks, pairs, losses, moments) in state.items():
            record = self._records[name] = self._new()
            record.blocks.load(blocks)
            record.pairs, record.losses, record.moments = pairs, list(losses), list(moments)
