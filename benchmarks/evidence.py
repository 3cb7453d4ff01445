"""How often an equal challenger replaces the champion, and how soon a better one does.

Three seeded studies; together they are the tables of `docs/promotion.md`.

*Votes*, each won with one chance whatever happened before: after how many E has reached the
threshold, from the start of a reign and after a past that was deservedly lost, with the stake
renewed and without.

*Simulated pairs.* A year of 912 labels a day. The difference of a pair is .04 x, where
x = √r luck + √(1-r) noise + gain, luck and noise standard normal, and luck is shared by all
pairs of an hour, a day, three days or a week, which either start with the blocks or anywhere.
r = 1/30, so that where a day shares its luck, a day's sum varies 31 times as much as independent
pairs would: flights show 12 to 80. Every rule looks after every block it can close (rules by
label: after every day, which is to their advantage). Compared:

- `block`: ours, with blocks of 1, 3 and 7 days;
- `t-test`: the plain two-sided 5 % t-test on all labels so far, the challenger being ahead;
- `discordant`: the same e-value over labels, one vote where exactly one of the two is right:
  here where |x| > 2.05, 4 % of labels;
- `betting`: the mean over λ of Π (1 + λ d) over labels (Waudby-Smith & Ramdas 2024, "Estimating
  means of bounded random variables by betting", JRSS B 86).

The rules by label get the same threshold, slots / alpha = 60. All are right about independent
labels; that is the first row.

*Real learners.* Lines of one recipe, each of which learned from a random 80 % of the flights'
labels, so that none is better by construction. They serve as the system serves: frozen snapshots,
all renewed at the same instants. They are river's scaler and logistic regression with
AdaGrad, written over all lines at once and held against river on a prefix.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from stream_ml.evaluation.evidence import (
    RENEWAL,
    Evidence,
    ready,
    suggested_block,
    threshold,
    variance_ladder,
)
from stream_ml.evaluation.wealth import FACTORS_LOST, FACTORS_WON, GRID
from stream_ml.models.recipes import Target, answer
from stream_ml.records import Event
from stream_ml.stages.refresh_clock import RefreshClock

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DAYS = 365
HOURLY = 38
DAILY = 24 * HOURLY
SLOTS, ALPHA = 3, 0.05
BLOCK_DAYS = (1, 3, 7)
PAIRS_MIN = 50
SIGMA = 0.04
RHO = 1 / 30
VOTES_MAX = 600
YEAR_BLOCKS = 121
# A challenger that deserved to lose for so many blocks won this share of them.
PASTS = (30, 121, 365)
PAST_SHARE = 0.2
PAST_CHANCES = (0.6, 0.7, 0.8, 0.9, 1.0)
DISCORDANT = 2.05
LAMBDAS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.9)
HORIZON_HOURS = 36
NEVER = np.iinfo(np.int32).max
RULES = (*(f"block {days} d" for days in BLOCK_DAYS), "t-test", "discordant", "betting")
MARKS = ("<!-- make evidence: begin -->", "<!-- make evidence: end -->")
LADDER_MS = tuple(h * HOUR_MS for h in (1, 3, 6, 12, 24, 48, 72, 168))


def progress(text: str) -> None:
    """Say on standard error where we are."""
    print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)


# --- the gate, over many runs at once ----------------------------------------------------------


class Bets:
    """`Wealth` for many challengers at once, all with as many votes behind them or none."""

    def __init__(self, runs: int, renewal: int | None = RENEWAL) -> None:
        self._stake = 0.0 if renewal is None else 1.0 / renewal
        self._votes = np.zeros(runs, int)
        self._bets = np.zeros((runs, GRID))

    def vote(self, signs: Any) -> Any:
        """Take in a vote of each (1 won, -1 lost, 0 none) and return its E."""
        won, lost = np.array(FACTORS_WON), np.array(FACTORS_LOST)
        factors = np.where(signs[:, None] > 0, won, lost)
        stakes = np.where(self._votes == 0, 1.0, self._stake)[:, None]
        bets = np.minimum((self._bets + stakes) * factors, GRID * threshold(SLOTS, ALPHA))
        self._bets = np.where(signs[:, None] == 0, self._bets, bets)
        self._votes += signs != 0
        return np.where(self._votes == 0, 1.0, self._bets.mean(axis=1))


def first(hits: Any) -> Any:
    """The first column that is true in each row, or NEVER."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1), NEVER).astype(np.int32)


def gate(sums: Any, pairs: Any, gain_min: float = 0.0, renewal: int | None = None) -> Any:
    """The block at which each row's challenger replaces the champion, counted from 0, or NEVER.

    Pairs are put through it with one stake in a reign, for the rules that it is compared with have
    one threshold for ever; `votes_tables` shows what renewal adds.
    """
    # Lines that have learned the same differ by rounding of a matrix product, at the most.
    sums = np.where(np.abs(sums) < 1e-9, 0.0, sums)
    is_judged = pairs >= PAIRS_MIN
    runs, blocks = sums.shape
    bets, lead, run = Bets(runs, renewal), np.zeros(runs, int), np.zeros(runs)
    is_sure = np.zeros((runs, blocks), bool)
    for number in range(blocks):
        signs = np.where(is_judged[:, number], np.sign(sums[:, number]), 0).astype(int)
        e_values = bets.vote(signs)
        lead = np.maximum(0, lead + signs)
        # What was gained since the lead was last at its lowest.
        gained = np.where(is_judged[:, number], sums[:, number] - gain_min * pairs[:, number], 0.0)
        run = np.where(lead > 0, run + gained, 0.0)
        is_sure[:, number] = (e_values >= threshold(SLOTS, ALPHA)) & (lead > 0) & (run >= 0)
    return first(is_sure)


def by_blocks(daily: Any, days: int) -> Any:
    """Sums over blocks of so many days; an unfinished last block never closes."""
    blocks = daily.shape[1] // days
    return daily[:, : blocks * days].reshape(len(daily), blocks, days).sum(axis=2)


def label_rules(n: Any, s: Any, ss: Any, votes: Any, wealth: Any) -> dict[str, Any]:
    """The day at which each rule by label replaces, from daily sums."""
    n, s, ss = (np.cumsum(column, axis=1, dtype=float) for column in (n, s, ss))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = s / np.sqrt(ss - s * s / n)
    wins, losses = np.cumsum(votes, axis=2, dtype=float)
    log_wealth = np.cumsum(wealth, axis=2, dtype=float)
    top = log_wealth.max(axis=0)
    log_e = top + np.log(np.exp(log_wealth - top).mean(axis=0))
    bound = np.log(threshold(SLOTS, ALPHA))
    return {
        "t-test": first(t > 1.96),
        "discordant": first(log_e_votes(wins, losses) >= bound),
        "betting": first(log_e >= bound),
    }


def log_e_votes(wins: Any, losses: Any) -> Any:
    """The logarithm of E for thousands of votes at once."""
    n = wins + losses
    with np.errstate(divide="ignore"):
        half = np.log(special.betaincc(1 + wins, 1 + losses, 0.5))
    return (n + 1) * np.log(2) + special.betaln(1 + wins, 1 + losses) + half


# --- simulated pairs ---------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """How luck is shared, by how much the challenger is better, and how labels come."""

    name: str
    spell_hours: int = 0
    anywhere: bool = False
    gain: float = 0.0
    has_delays: bool = False
    mature: bool = True


EQUAL = (
    World("independent"),
    World("an hour", 1),
    World("a day", 24),
    World("three days", 72),
    World("a week", 168),
    World("a day, from any hour", 24, anywhere=True),
    World("three days, from any hour", 72, anywhere=True),
    World("a week, from any hour", 168, anywhere=True),
    World("a day; labels delayed and missing", 24, has_delays=True),
    World("the same, blocks closed at once", 24, has_delays=True, mature=False),
)
# The share of days that the challenger wins, and the gain it takes, in units of .04 of loss.
WON_DAYS = {0.55: 0.1257, 0.6: 0.2533, 0.7: 0.5244, 0.8: 0.8416, 0.9: 1.2816}


def better() -> list[World]:
    """Challengers that win this share of days, the luck of a day being shared."""
    day_mean = np.sqrt(RHO + (1 - RHO) / DAILY)
    return [World(f"{share:.0%}", 24, gain=z * day_mean) for share, z in WON_DAYS.items()]


def pairs_of(world: World, runs: int, rand: np.random.Generator) -> Any:
    """Every pair's x, by run, day, hour and label."""
    x = rand.standard_normal((runs, DAYS, 24, HOURLY), dtype=np.float32)
    if world.spell_hours:
        length, hours = world.spell_hours, np.arange(DAYS * 24)
        phase = rand.integers(0, length, (runs, 1)) if world.anywhere else np.zeros((runs, 1), int)
        spell = (hours + phase) // length
        luck = rand.standard_normal((runs, spell.max() + 1), dtype=np.float32)
        luck = np.take_along_axis(luck, spell, axis=1).reshape(runs, DAYS, 24, 1)
        x *= np.float32(np.sqrt(1 - RHO))
        x += np.float32(np.sqrt(RHO)) * luck
    x += np.float32(world.gain)
    return x


def label_arrivals(x: Any, rand: np.random.Generator) -> tuple[Any, Any]:
    """Which labels come at all (1 or 0), and after how many hours.

    3 % go missing, and on one day in twenty all of them. A label that speaks for the challenger
    takes 3 hours in the median, one against it 5.
    """
    came = rand.random(x.shape, dtype=np.float32) >= 0.03
    came &= rand.random((len(x), DAYS, 1, 1)) >= 0.05
    delay = np.where(x > 0, np.float32(3), np.float32(5))
    delay *= np.exp(0.8 * rand.standard_normal(x.shape, dtype=np.float32))
    return came, np.minimum(delay, HORIZON_HOURS)


def replacement_days(world: World, runs: int, rand: np.random.Generator) -> dict[str, Any]:
    """By rule, the day after which each run's challenger has replaced the champion, or NEVER."""
    x = pairs_of(world, runs, rand)
    came, delay = (
        label_arrivals(x, rand) if world.has_delays else (np.ones((1, 1, 1, 1), bool), np.zeros(1))
    )
    d = np.float32(SIGMA) * x * came
    n = np.broadcast_to(came, x.shape).sum(axis=(2, 3))
    s = d.sum(axis=(2, 3), dtype=float)
    days: dict[str, Any] = {}
    for length in BLOCK_DAYS:
        sums, pairs = s, n
        if not world.mature:
            hours = np.arange(DAYS * 24).reshape(DAYS, 24, 1) % (24 * length) + 0.5
            is_known = hours + delay <= 24 * length
            sums, pairs = (d * is_known).sum(axis=(2, 3)), (came & is_known).sum(axis=(2, 3))
        block = gate(by_blocks(sums, length), by_blocks(pairs, length))
        days[f"block {length} d"] = np.where(block == NEVER, NEVER, (block + 1) * length)
    votes = np.stack([((sign * x > DISCORDANT) & came).sum(axis=(2, 3)) for sign in (1, -1)])
    ss = np.square(d).sum(axis=(2, 3), dtype=float)
    wealth = np.stack([np.log(1 + np.float32(bet) * d).sum(axis=(2, 3)) for bet in LAMBDAS])
    rules = label_rules(n, s, ss, votes, wealth)
    return days | {name: np.where(day == NEVER, NEVER, day + 1) for name, day in rules.items()}


def simulate(worlds: list[World], runs: int, seed: int, chunk: int = 10) -> dict[str, Any]:
    """`replacement_days` for every world, in chunks that fit into memory."""
    results = {}
    for number, world in enumerate(worlds):
        rand = np.random.default_rng([seed, number])
        parts = []
        for start in range(0, runs, chunk):
            progress(f"luck shared by {world.name}, {number + 1} of {len(worlds)}: {start}/{runs}")
            parts.append(replacement_days(world, min(chunk, runs - start), rand))
        results[world.name] = {rule: np.concatenate([p[rule] for p in parts]) for rule in RULES}
    return results


def check_gate(runs: int = 2) -> None:
    """Hold the gate above against `Evidence` itself, label by label, in the order of labels."""
    rand = np.random.default_rng(0)
    world = World("check", 24, gain=0.25)
    x = pairs_of(world, runs, rand)[:, :60]
    d = np.float32(SIGMA) * x
    ts = (np.arange(60 * 24) * HOUR_MS).reshape(60, 24, 1) + np.arange(HOURLY) * 60_000
    for run in range(runs):
        arrival = ts + rand.integers(0, HORIZON_HOURS * HOUR_MS, ts.shape)
        order = np.argsort(arrival, axis=None)
        for length in BLOCK_DAYS:
            maturity = HORIZON_HOURS * HOUR_MS
            evidence = Evidence(length * DAY_MS, maturity_ms=maturity, pairs_min=PAIRS_MIN)
            actual = NEVER
            flat = zip(
                ts.ravel()[order], d[run].ravel()[order], arrival.ravel()[order], strict=True
            )
            for time_ms, difference, known_ms in flat:
                evidence.add(int(time_ms), float(difference))
                blocks = evidence.close(int(known_ms))
                if blocks and ready(evidence, SLOTS, ALPHA):
                    actual = blocks[-1].number
                    break
            sums = d[run : run + 1].sum(axis=(2, 3), dtype=float)
            # The last blocks may be unripe when the labels end.
            pairs = np.full((1, 60 // length), 1_000)
            expected = gate(by_blocks(sums, length), pairs, renewal=RENEWAL)[0]
            ripe = expected == NEVER or (expected + 1) * length + 1.5 < 59.5
            assert not ripe or actual == expected, (run, length, actual, expected)


# --- real learners -----------------------------------------------------------------------------

UNITS = ("label", "day", "week")
SHARE = 0.8
# By then lines that saw different labels differ little: see the tables.
SETTLED_DAYS = 63
GAIN_MIN = 0.0005


@dataclass(frozen=True)
class Flights:
    """What the flights asked and what came of it: features by prediction, then labels."""

    names: tuple[str, ...]
    x: Any  # by prediction and feature; NaN where there is none
    ts: Any
    label_ts: Any
    rows: Any  # by label, in the order in which they came: which prediction it belongs to
    label: Any


def flights_log(months: int) -> Flights:
    """Run the real feature set over the year's events."""
    from stream_ml.examples.flights import flights  # noqa: PLC0415 - needs the data
    from stream_ml.shell.flights_data import records  # noqa: PLC0415 - needs the data

    state, names = flights.feature_set.new_state(), flights.feature_set.names
    rows, labels = [], []
    ts: list[int] = []
    row_numbers: dict[str, int] = {}
    for topic, body in records(1, months):
        if topic == "labels":
            labels.append((body["ts"], row_numbers[body["event_id"]], body["label"]))
            continue
        fields = {name: body.get(name) for name in flights.schema}
        event = Event(body["event_id"], body["ts"], body["origin"], fields)
        if flights.wants_prediction(event):
            row_numbers[event.event_id] = len(ts)
            features = state.features(event)
            rows.append([features.get(name, np.nan) for name in names])
            ts.append(event.ts)
            if len(ts) % 5_000 == 0:
                progress(f"features of flights: {len(ts):,}")
        state.insert(event)
        state.advance(event.ts)
    label_ts, label_rows, truth = (np.array(column) for column in zip(*labels, strict=True))
    return Flights(names, np.array(rows), np.array(ts), label_ts, label_rows, truth)


class Lines:
    """Many lines of scaler | logistic regression (AdaGrad .02, intercept .003), at once.

    Args:
        lines: how many.
        features: how many columns there are.
        columns: by line and column, 1 where the line sees it, else 0; None: each sees all.
    """

    def __init__(self, lines: int, features: int, columns: Any = None) -> None:
        shape = (lines, features)
        self.columns = 1.0 if columns is None else columns
        self.count, self.mean, self.var = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.weight, self.g2, self.intercept = np.zeros(shape), np.zeros(shape), np.zeros(lines)

    def learn(self, x: Any, label: bool, mask: Any) -> None:
        """One example, for the lines that see it."""
        present = ~np.isnan(x)
        x = np.where(present, x, 0.0)
        # A column that is never seen stays without variance, and its input 0.
        sees = mask[:, None] * present * self.columns
        self.count += sees
        step = sees / np.maximum(self.count, 1.0)
        deviation = x - self.mean
        self.mean += deviation * step
        deviation *= x - self.mean
        self.var += (deviation - self.var) * step
        inputs = (x - self.mean) * self._scale() * present
        self._descend(inputs, (1 / (1 + np.exp(-self._raw(inputs))) - label) * mask)

    def _raw(self, inputs: Any) -> Any:
        return np.einsum("ij,ij->i", self.weight, inputs) + self.intercept

    def _descend(self, inputs: Any, slope: Any) -> None:
        self.intercept -= 0.003 * slope
        inputs *= slope[:, None]
        self.g2 += inputs * inputs
        self.weight -= 0.02 * inputs / np.sqrt(self.g2 + 1e-8)

    def _scale(self) -> Any:
        return np.where(self.var > 0, 1 / np.sqrt(np.where(self.var > 0, self.var, 1.0)), 0.0)

    def snapshot(self) -> Snapshot:
        """What each line would say from now on, if it learned no more."""
        weight = self.weight * self._scale()
        return Snapshot(weight.T, (weight * self.mean).T, self.intercept.copy())


@dataclass(frozen=True)
class Snapshot:
    """All lines, frozen: weights and offsets by feature and line, and intercepts."""

    weight: Any
    offset: Any
    intercept: Any

    def answers(self, x: Any) -> Any:
        """What each line says to each row: by row and line."""
        present = (~np.isnan(x)).astype(float)
        raw = np.nan_to_num(x) @ self.weight - present @ self.offset + self.intercept
        return 1 / (1 + np.exp(-raw))


def check_lines(log: Flights, examples: int = 3_000) -> float:
    """The most by which `Lines` and river differ after a prefix, lines seeing different labels."""
    from stream_ml.examples.flights import flights  # noqa: PLC0415 - needs the data

    rand = np.random.default_rng(5)
    mask = rand.random((examples, 2)) < SHARE
    lines = Lines(2, len(log.names))
    rivers = [flights.recipes["adagrad"].fresh() for _ in range(2)]
    difference = 0.0
    for n in range(examples):
        x, label = log.x[log.rows[n]], bool(log.label[n])
        features = {name: v for name, v in zip(log.names, x.tolist(), strict=True) if v == v}  # noqa: PLR0124
        if n % 7 == 0:
            ours = lines.snapshot().answers(x[None])[0]
            theirs = [answer(model, Target.binary(), features) for model in rivers]
            difference = max(difference, float(np.abs(ours - np.array(theirs)).max()))
        lines.learn(x, label, mask[n].astype(float))
        for model, sees in zip(rivers, mask[n], strict=True):
            if sees:
                model.learn_one(features, label)
    assert difference < 1e-8, f"not river's learner: answers differ by {difference}"
    return difference


def losses(log: Flights, mask: Any, pairs: list[tuple[int, int]]) -> tuple[Any, Any, Any]:
    """Brier loss of every line summed by day; the pairs of each day; watched lines' differences.

    Served as the system serves: snapshots of the refresh instants, each answering what is asked
    until the next.

    Args:
        log: the flights.
        mask: by label and line, whether the line learns from the label.
        pairs: pairs of lines whose differences are wanted label by label.
    """
    lines = Lines(mask.shape[1], len(log.names))
    clock, serving = RefreshClock(DAY_MS), lines.snapshot()
    truth = np.full(len(log.ts), np.nan)
    truth[log.rows] = log.label
    day = log.ts // DAY_MS - log.ts[0] // DAY_MS
    sums = np.zeros((day[-1] + 1, mask.shape[1]))
    first_line, second_line = np.array(pairs).T
    differences = np.full((len(log.ts), len(pairs)), np.nan)
    start = 0
    for n, (ts, row) in enumerate(zip(log.label_ts.tolist(), log.rows.tolist(), strict=True), 1):
        lines.learn(log.x[row], bool(log.label[n - 1]), mask[n - 1])
        last = n == len(log.label)
        if clock.strikes(n, ts) or last:
            end = len(log.ts) if last else int(np.searchsorted(log.ts, ts))
            rows = np.arange(start, end)
            rows = rows[~np.isnan(truth[rows])]
            loss = (serving.answers(log.x[rows]) - truth[rows, None]) ** 2
            np.add.at(sums, day[rows], loss)
            differences[rows] = loss[:, first_line] - loss[:, second_line]
            start, serving = end, lines.snapshot()
        if n % 5_000 == 0:
            progress(f"{mask.shape[1]} lines learn from flights: {n:,} of {len(log.label):,}")
    return sums.T, np.bincount(day[~np.isnan(truth)], minlength=len(sums)), differences


def draw(log: Flights, unit: str, lines: int, rand: np.random.Generator) -> Any:
    """By label and line: whether it is among the 80 %, drawn by label, day or week."""
    if unit == "label":
        return rand.random((len(log.label), lines)) < SHARE
    number = log.ts[log.rows] // ({"day": 1, "week": 7}[unit] * DAY_MS)
    number -= number.min()
    return (rand.random((number.max() + 1, lines)) < SHARE)[number]


@dataclass(frozen=True)
class Duels:
    """What came of every ordered pair of equal lines, over all days at which blocks may start.

    Attributes:
        share: of the challengers that replaced the champion, and its standard error over lines.
        gains: for each of those, what the winner gained per example afterwards, in Brier loss.
        persistence: the correlation of neighbouring votes.
    """

    share: float
    error: float
    gains: Any
    persistence: float


def duels(sums: Any, pairs: Any, days: int, start: int = 0, gain_min: float = 0.0) -> Duels:
    """Let every line challenge every other, in blocks of so many days, from day `start` on."""
    lines = len(sums)
    champion, challenger = np.nonzero(~np.eye(lines, dtype=bool))
    daily = (sums[champion] - sums[challenger])[:, start:]
    pairs = pairs[start:]
    hits = np.zeros((lines, lines))
    gains = []
    for phase in range(days):
        sides = ((0, 0), (phase, 0))
        counts = by_blocks(np.pad(pairs[None], sides), days)
        block = gate(by_blocks(np.pad(daily, sides), days), counts, gain_min)
        won = block < NEVER
        hits[champion, challenger] += won / days
        for index in np.nonzero(won)[0]:
            # The labels of a block's last day take 36 hours to come.
            next_day = (block[index] + 1) * days - phase + 2
            if next_day < len(pairs):
                gains.append(daily[index, next_day:].sum() / pairs[next_day:].sum())
    # Leaving one line out at a time: the duels of one line are not independent of each other.
    without = hits.sum() - hits.sum(axis=0) - hits.sum(axis=1)
    shares = without / ((lines - 1) * (lines - 2))
    error = np.sqrt((lines - 1) / lines * np.square(shares - shares.mean()).sum())
    votes = np.sign(by_blocks(daily, days))
    persistence = (votes[:, 1:] * votes[:, :-1]).mean()
    return Duels(hits.sum() / len(daily), error, np.array(gains), persistence)


# --- tables ------------------------------------------------------------------------------------


def votes_needed(runs: int, p: float, past: int, renewal: int | None, seed: int) -> Any:
    """After how many votes, each won with chance p, E suffices, or NEVER; by run.

    Args:
        runs: how many.
        p: the chance of a vote from now on.
        past: how many votes came before, of which a fifth were won; E did not suffice in them.
        renewal: of the stake.
        seed: of the votes; of all renewals alike.
    """
    rand = np.random.default_rng([seed, past, round(100 * p)])
    bets = Bets(runs, renewal)
    votes, has_reached = np.full(runs, NEVER), np.zeros(runs, bool)
    for number in range(-past, VOTES_MAX):
        chance = p if number >= 0 else PAST_SHARE
        is_sure = bets.vote(np.where(rand.random(runs) < chance, 1, -1)) >= threshold(SLOTS, ALPHA)
        if number < 0:
            has_reached |= is_sure
        votes = np.where(is_sure & (votes == NEVER) & (number >= 0), number + 1, votes)
    return np.sort(votes[~has_reached])


def quantile_votes(votes: Any) -> str:
    """Votes to half of all replacements, and to 90 %."""
    values = [votes[int(np.ceil(q * len(votes))) - 1] for q in (0.5, 0.9)]
    return "/".join("-" if value == NEVER else str(value) for value in values)


def votes_tables(runs: int, seed: int) -> list[str]:
    """Independent votes: how soon, what a lost past costs, how often an equal one is through."""
    return [
        *fresh_table(runs, seed),
        *past_table(runs // 5, seed),
        *equal_votes_table(runs, seed),
    ]


def fresh_table(runs: int, seed: int) -> list[str]:
    """From the first vote of a reign on."""
    rows = []
    for p in (0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0):
        progress(f"votes won with chance {p}")
        votes = votes_needed(runs, p, 0, RENEWAL, seed)
        within = [f"{(votes <= 365 // days).mean():.3f}" for days in reversed(BLOCK_DAYS)]
        once = votes_needed(runs, p, 0, None, seed)
        rows.append([f"{p:.0%}", *within, quantile_votes(votes), quantile_votes(once)])
    counts = [f"replaced within {365 // days} votes" for days in reversed(BLOCK_DAYS)]
    text = (
        f"Votes to half of all replacements, and to 90 %; `-`: not within {VOTES_MAX}. A year has "
        "365, 121 or 52 blocks of 1, 3 or 7 days. The last column is without renewal."
    )
    head = ["votes won", *counts, f"votes, renewal {RENEWAL}", "votes, once in a reign"]
    title = f"### Independent votes from the start of a reign, simulated: {runs:,} reigns each"
    return [title, "", text, "", *table(head, rows)]


def past_table(runs: int, seed: int) -> list[str]:
    """After blocks that were deservedly lost."""
    rows = []
    for past in PASTS:
        for renewal in (RENEWAL, None):
            progress(f"after {past} blocks of deserved loss, renewal {renewal}")
            votes = [votes_needed(runs, p, past, renewal, seed) for p in PAST_CHANCES]
            name = "once in a reign" if renewal is None else f"every {renewal} votes"
            rows.append([str(past), name, *map(quantile_votes, votes)])
    text = (
        f"The challenger first won only {PAST_SHARE:.0%} of so many blocks, and deserved to lose; "
        "then it wins as many as the columns say. Blocks from then on to half of all replacements, "
        f"and to 90 %; `-`: not within {VOTES_MAX}."
    )
    head = ["blocks lost before", "stake renewed", *(f"now wins {p:.0%}" for p in PAST_CHANCES)]
    title = f"### After a past that was lost, simulated: {runs:,} reigns each"
    return [title, "", text, "", *table(head, rows)]


def equal_votes_table(runs: int, seed: int) -> list[str]:
    """How often an equal challenger gets through in years of blocks of three days."""
    rows = []
    for renewal in (RENEWAL, None):
        bets, reached, cells = Bets(runs, renewal), np.zeros(runs, bool), []
        rand = np.random.default_rng([seed, 50])
        for number in range(1, 5 * YEAR_BLOCKS + 1):
            signs = np.where(rand.random(runs) < 0.5, 1, -1)
            reached |= bets.vote(signs) >= threshold(SLOTS, ALPHA)
            if number in {YEAR_BLOCKS, 2 * YEAR_BLOCKS, 5 * YEAR_BLOCKS}:
                stakes = 1 + (0 if renewal is None else (number - 1) / renewal)
                cells.append(f"{reached.mean():.4f} (≤ {stakes / threshold(SLOTS, ALPHA):.4f})")
        rows.append(["once in a reign" if renewal is None else f"every {renewal} votes", *cells])
    text = (
        "Share of reigns in which one challenger, no better, replaced the champion within 1, 2 and "
        f"5 years of blocks of three days ({YEAR_BLOCKS} votes a year), and the bound."
    )
    head = ["stake renewed", "1 year", "2 years", "5 years"]
    title = f"### Fair coins, simulated: {runs:,} reigns each"
    return [title, "", text, "", *table(head, rows)]


def share_text(days: Any) -> str:
    """The share of runs in which the challenger replaced, with its standard error."""
    p = float((days < NEVER).mean())
    return f"{p:.3f} ± {np.sqrt(max(p * (1 - p), 1e-9) / len(days)):.3f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(cells) + " |" for cells in lines), ""]


def equal_table(runs: int, seed: int) -> list[str]:
    """How often a challenger that is equal to the champion replaces it within a year."""
    results = simulate(list(EQUAL), runs, seed)
    rows = [[name, *(share_text(days[rule]) for rule in RULES)] for name, days in results.items()]
    text = (
        "Share of years in which the equal challenger replaced the champion, ± standard error; "
        f"nominal {ALPHA / SLOTS:.3f}, for the t-test .05."
    )
    title = f"### Equal models, simulated: {runs:,} years each"
    return [title, "", text, "", *table(["luck shared by", *RULES], rows)]


def quantile_text(days: Any, q: float, length: int | None) -> str:
    """When the share `q` of all runs had replaced: blocks (where there are any) and labels."""
    day = np.sort(days)[int(np.ceil(q * len(days))) - 1]
    if day == NEVER:
        return "-"
    labels = f"{day * DAILY / 1000:,.0f} k"
    return labels if length is None else f"{day // length} / {labels}"


def better_table(runs: int, seed: int) -> list[str]:
    """How soon a better challenger replaces the champion."""
    worlds = better()
    results = simulate(worlds, runs, seed + 1)
    text = (
        "When half (and 90 %) of the challengers had replaced the champion: blocks / labels, or "
        "days / labels for the rules by label. Labels of a block are complete 36 hours after its "
        "end; that wait is not counted. `-`: not within the year."
    )
    lines = [
        f"### Better models, simulated: {runs:,} years each, luck shared by a day",
        "",
        text,
        "",
    ]
    rows = []
    for world in worlds:
        days = results[world.name]
        cells = [world.name, f"{SIGMA * world.gain:.5f}"]
        for rule in RULES:
            length = int(rule.split()[1]) if rule.startswith("block") else 1
            half, ninth = (quantile_text(days[rule], q, length) for q in (0.5, 0.9))
            cells.append(f"{half} ({ninth})")
        rows.append(cells)
    return lines + table(["days it wins", "gain", *RULES], rows)


def flights_tables(months: int, count: int, seed: int) -> tuple[list[str], dict[str, Any]]:
    """Real learners: false replacements and what they cost; and pairs for the ladder."""
    log = flights_log(months)
    difference = check_lines(log)
    rand = np.random.default_rng(seed)
    mask = np.concatenate([draw(log, unit, count, rand) for unit in UNITS], axis=1)
    line_pairs = [(n * count, n * count + 1) for n in range(len(UNITS))]
    sums, pairs, differences = losses(log, mask, line_pairs)
    rows = []
    for number, unit in enumerate(UNITS):
        group = sums[number * count : (number + 1) * count]
        for days in BLOCK_DAYS:
            progress(f"duels: drawn by {unit}, blocks of {days} days")
            now = duels(group, pairs, days)
            later = duels(group, pairs, days, SETTLED_DAYS)
            worth = duels(group, pairs, days, gain_min=GAIN_MIN)
            cells = ["-", "-"]
            if len(now.gains):
                low, mid, high = np.quantile(now.gains * 1e4, [0.05, 0.5, 0.95])
                cells = [
                    f"{mid:+.1f} ({low:+.1f} to {high:+.1f})",
                    f"{(now.gains > 0).mean():.0%}",
                ]
            shares = [f"{d.share:.3f} ± {d.error:.3f}" for d in (now, later, worth)]
            persistence = f"{now.persistence:.2f}"
            rows.append([unit, f"{days} d", *shares, *cells, persistence])
    head = ["80 % drawn by", "block", "replaced", f"from day {SETTLED_DAYS}", "gain_min"]
    head += ["gained after", "better after", "neighbours"]
    ladders = {}
    for unit, column in zip(UNITS, differences.T, strict=True):
        progress(f"variance ladder: drawn by {unit}")
        is_present = ~np.isnan(column)
        ladders[f"flights: two lines, 80 % by {unit}"] = [
            list(zip(log.ts[is_present].tolist(), column[is_present].tolist(), strict=True))
        ]
    text = (
        f"{count} lines each that learned from 80 % of the labels, drawn by {', by '.join(UNITS)}; "
        "every line challenges every other, all renewed daily. Share of challengers that replaced "
        "their champion (mean over the days at which blocks may start; ± jackknife standard error "
        f"over lines; all live in the same year; nominal {ALPHA / SLOTS:.3f}), with evidence from "
        f"the first day, with evidence from day {SETTLED_DAYS} on, and with a `gain_min` of "
        f"{GAIN_MIN}; what the winners of the first kind gained on the examples after, in units of "
        ".0001 Brier per example (median, 5 % and 95 %), and how many gained at all; and the "
        "correlation of neighbouring votes. "
        f"Against river on a prefix, answers differ by at most {difference:.0e}."
    )
    lines = [
        f"### Equal models, real learners: {pairs.sum():,} flights of {months} months",
        "",
        text,
        "",
        *table(head, rows),
    ]
    return lines, ladders


def simulated_ladders(runs: int, seed: int) -> dict[str, Any]:
    """A few years of pairs for each way of sharing luck."""
    ts = ((np.arange(DAYS * 24) * HOUR_MS)[:, None] + np.arange(HOURLY) * 60_000).ravel().tolist()
    years = {}
    for number, world in enumerate(EQUAL[:5]):
        rand = np.random.default_rng([seed, number])
        x = SIGMA * pairs_of(world, runs, rand).reshape(runs, -1)
        years[f"simulated: {world.name}"] = [list(zip(ts, row, strict=True)) for row in x.tolist()]
    return years


def ladder_table(years: dict[str, list[Any]]) -> list[str]:
    """How much the variance of sums exceeds independence, block by block."""
    head = ["luck", *(brief(length) for length in LADDER_MS), "suggests (years)"]
    rows = []
    for name, samples in years.items():
        progress(f"variance ladder: {name}")
        ladders = [variance_ladder(sample, LADDER_MS) for sample in samples]
        inflation = np.mean([[rung.inflation for rung in rungs] for rungs in ladders], axis=0)
        lengths = [suggested_block(rungs) or 0 for rungs in ladders]
        texts = [f"{brief(b)} ({lengths.count(b)})" if b else "-" for b in sorted(set(lengths))]
        rows.append([name, *(f"{value:.1f}" for value in inflation), ", ".join(texts)])
    text = "By how much the variance of block sums exceeds what independent pairs would give."
    return ["### The variance ladder", "", text, "", *table(head, rows)]


def brief(length_ms: int) -> str:
    """A length in hours or days."""
    return f"{length_ms // HOUR_MS} h" if length_ms < DAY_MS else f"{length_ms // DAY_MS} d"


def write(path: Path, text: str) -> None:
    """Put the tables between the file's marks; without marks they are the file."""
    begin, end = MARKS
    former = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin in former and end in former:
        head, tail = former.split(begin)[0], former.split(end)[1]
        text = f"{head}{begin}\n\n{text}\n{end}{tail}"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Make the tables and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="40 runs, 12 lines, four months")
    parser.add_argument(
        "--out", type=Path, help="write them there too; between the marks, if it has them"
    )
    options = parser.parse_args()
    runs, lines, months, years = (40, 12, 4, 1) if options.quick else (options.runs, 150, 12, 4)
    start_s = time.monotonic()
    check_gate()
    tables = (
        votes_tables(20 * runs, options.seed)
        + equal_table(runs, options.seed)
        + better_table(runs, options.seed)
    )
    real, ladders = flights_tables(months, lines, options.seed)
    tables += real + ladder_table(simulated_ladders(years, options.seed) | ladders)
    progress("")
    print(file=sys.stderr)
    text = "\n".join(tables)
    print(text)
    if options.out:
        write(options.out, text)
    print(f"{time.monotonic() - start_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
