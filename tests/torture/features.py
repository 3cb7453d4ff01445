"""Features at random: as data, as code, and by their definition, which shares nothing with ours.

A feature is a tuple that begins with its kind:

    ("field", name, fill)              ("log", source, fill)      ("clip", source, lo, hi, fill)
    ("ratio", a, b, fill)              ("difference", a, b, fill)
    ("function", function, name, fill) ("one_hot", name, categories)
    ("hour_of_day" or "weekday", encode)
    ("window", aggregate, duration, by, source, filters, fill)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "FUNCTIONS",
    "Feature",
    "Seen",
    "Unsure",
    "agree",
    "answers",
    "code",
    "draw_feature",
    "name_of",
    "windows_in",
]

Feature = tuple[Any, ...]


class Unsure(Exception):  # noqa: N818 - no mistake of anybody
    """Raised where rounding decides: dividing by what is next to nothing."""


VALUED = ("sum", "mean", "variance", "min", "max", "last", "decayed_mean")
COUNTED = ("count", "time_since_last")
SPANS = ("1s", "5s", "30s", "2m", 1, 1_500)
HALF_LIFE = "3s"
HALF_LIFE_MS = 3_000
NEXT_TO_NOTHING = 1e-2
NUMBERS = ("float", "int", "bool")


def half(x: Any) -> float | None:
    """Half of a number; nothing of nothing."""
    return None if x is None else float(x) / 2


def fragile(x: Any) -> float:
    """Raises for nothing, and for what begins with a b."""
    if x is None or str(x).startswith("b"):
        raise ValueError(x)
    return float(len(str(x)))


FUNCTIONS = {"half": half, "fragile": fragile}


def draw_feature(rand: random.Random, fields: Mapping[str, Any], depth: int = 0) -> Feature | None:
    """A feature of these fields; None where the kind that was drawn has no field to look at."""
    numbers = [name for name, kind in fields.items() if kind.kind in NUMBERS]
    fill = rand.choice([None, None, 0.0, -1.5])
    kind = rand.choice(["field", "log", "clip", "ratio", "function", "calendar", "one_hot"])
    if depth < 2 and rand.random() < 0.55:
        return _window(rand, fields, numbers, fill)
    if kind == "calendar" and not depth:
        encode = rand.choice(["number", "cycle", "one_hot"])
        return (rand.choice(["hour_of_day", "weekday"]), encode)
    if kind == "one_hot" and not depth:
        return _one_hot(rand, fields)
    if kind == "function":
        name = rand.choice(list(fields))
        return ("function", "half" if name in numbers else "fragile", name, fill)
    if kind in {"log", "clip", "ratio"} and depth < 2:
        return _formula(rand, fields, kind, fill, depth)
    return ("field", rand.choice(numbers), fill) if numbers else None


def _formula(
    rand: random.Random, fields: Mapping[str, Any], kind: str, fill: float | None, depth: int
) -> Feature | None:
    first, other = (_scalar(rand, fields, depth) for _ in range(2))
    if first is None or other is None:
        return None
    if kind == "log":
        return ("log", first, fill)
    if kind == "clip":
        return ("clip", first, -1, rand.choice([0, 3.5]), fill)
    return (rand.choice(["ratio", "difference"]), first, other, fill)


def _scalar(rand: random.Random, fields: Mapping[str, Any], depth: int) -> Feature | None:
    return draw_feature(rand, fields, depth + 1)


def _one_hot(rand: random.Random, fields: Mapping[str, Any]) -> Feature | None:
    names = [name for name, kind in fields.items() if kind.kind != "float"]
    if not names:
        return None
    name = rand.choice(names)
    kind = fields[name].kind
    categories = {"str": ("ash", "fir"), "int": (0, 1, 7)}.get(kind)
    return ("one_hot", name, categories)


def _window(
    rand: random.Random, fields: Mapping[str, Any], numbers: list[str], fill: float | None
) -> Feature:
    by = [name for name, kind in fields.items() if kind.kind != "float"]
    group = rand.choice(by) if by and rand.random() < 0.3 else None
    filters = {}
    enums = [name for name, kind in fields.items() if kind.kind == "enum"]
    if enums and rand.random() < 0.3:
        name = rand.choice(enums)
        filters[name] = tuple(rand.sample(fields[name].categories, 1))
    span = rand.choice(SPANS)
    if rand.random() < 0.3 or not numbers:
        if rand.random() < 0.3:
            return ("window", "distinct", span, group, rand.choice(list(fields)), filters, fill)
        return ("window", rand.choice(COUNTED), span, group, None, filters, fill)
    source: Feature = ("field", rand.choice(numbers), None)
    shape = rand.random()
    if shape < 0.15:
        source = ("log", source, None)
    elif shape < 0.3:
        source = ("clip", source, -2, 2, None)
    elif shape < 0.4:
        source = ("function", "half", source[1], None)
    return ("window", rand.choice(VALUED), span, group, source, filters, fill)


def windows_in(feature: Feature) -> Iterator[Feature]:
    """The windows that a feature is, or is made from."""
    if feature[0] == "window":
        yield feature
    elif feature[0] in {"log", "clip", "ratio", "difference"}:
        for part in feature[1:]:
            if isinstance(part, tuple):
                yield from windows_in(part)


def name_of(feature: Feature) -> str:
    """What we name it; equal features have equal names, and are declared once."""
    return code(feature, named=False).replace("sml.", "")


def code(feature: Feature, *, named: bool = True) -> str:
    """The feature as a user would write it."""
    kind, *rest = feature
    if kind in {"hour_of_day", "weekday"}:
        text = f"sml.{kind}(encode={rest[0]!r})"
    elif kind == "one_hot":
        name, categories = rest
        text = f"sml.one_hot({name!r}" + (f", {categories!r})" if categories else ")")
    elif kind == "window":
        text = _window_code(*rest)
    else:
        *parts, fill = rest
        if kind == "function":
            function, field = parts
            inner = f"{function}, {field!r}, name={function!r}"
        else:
            inner = ", ".join(
                code(part, named=False) if isinstance(part, tuple) else repr(part) for part in parts
            )
        text = f"sml.{kind}({inner}{_fill(fill)})"
    return f"{text}.named({name_of(feature)!r})" if named else text


def _fill(fill: float | None) -> str:
    return "" if fill is None else f", fill={fill!r}"


def _window_code(
    aggregate: str,
    span: str | int,
    by: str | None,
    source: Any,
    filters: dict[str, Any],
    fill: float | None,
) -> str:
    given = (
        []
        if source is None
        else [repr(source) if isinstance(source, str) else code(source, named=False)]
    )
    if aggregate == "decayed_mean":
        given.append(f"half_life={HALF_LIFE!r}")
    given += [f"{name}={wanted!r}" for name, wanted in filters.items()]
    if fill is not None:
        given.append(f"fill={fill!r}")
    group = "" if by is None else f", by={by!r}"
    return f"sml.window({span!r}{group}).{aggregate}({', '.join(given)})"


# --- by definition ----------------------------------------------------------------------------

# An event as features see it: its time, its key, and its fields.
Seen = tuple[int, str, dict[str, Any]]


def answers(
    feature: Feature, event: Seen, before: Sequence[Seen], fields: Mapping[str, Any]
) -> dict[str, float | None]:
    """The numbers of a feature, by name; None where one is left out.

    Args:
        feature: which.
        event: the one that asks.
        before: those that came before it in its partition, in the order of the log.
        fields: as declared.
    """
    ts, _, values = event
    name = name_of(feature)
    if feature[0] == "one_hot":
        return _one_hot_answers(name, feature, values, fields)
    if feature[0] in {"hour_of_day", "weekday"}:
        hour = feature[0] == "hour_of_day"
        number = ts // 3_600_000 % 24 if hour else (ts // 86_400_000 + 3) % 7
        size = 24 if hour else 7
        if feature[1] == "number":
            return {name: float(number)}
        if feature[1] == "cycle":
            angle = 2 * math.pi * number / size
            return {f"{name} sin": math.sin(angle), f"{name} cos": math.cos(angle)}
        return {f"{name}={n}": float(n == number) for n in range(size)}
    return {name: _value(feature, event, before)}


def _one_hot_answers(
    name: str, feature: Feature, values: dict[str, Any], fields: Mapping[str, Any]
) -> dict[str, float | None]:
    kind = fields[feature[1]]
    known: tuple[Any, ...] = feature[2] or ()
    if kind.kind == "enum":
        known = kind.categories
    elif kind.kind == "bool":
        known = (False, True)
    value = values[feature[1]]
    columns: dict[str, float | None] = {
        f"{name}={str(each).lower() if kind.kind == 'bool' else each}": float(each == value)
        for each in known
    }
    if kind.kind in {"str", "int"}:
        columns[f"{name}=other"] = float(value is not None and value not in known)
    if kind.optional:
        columns[f"{name}=null"] = float(value is None)
    return columns


def _value(feature: Feature, event: Seen, before: Sequence[Seen]) -> float | None:
    kind, *rest, fill = feature
    value: float | None
    if kind == "field":
        given = event[2][rest[0]]
        value = None if given is None else float(given)
    elif kind == "function":
        value = FUNCTIONS[rest[0]](event[2][rest[1]])
    elif kind == "window":
        value = _windowed(feature, event, before)
    else:
        parts = [_value(p, event, before) if isinstance(p, tuple) else float(p) for p in rest]
        rounded = any(True for _ in windows_in(feature))
        if kind == "ratio" and rounded and None not in parts and abs(parts[1]) < NEXT_TO_NOTHING:
            raise Unsure
        value = None if None in parts else _compute(kind, parts)
    if value is None or not math.isfinite(value):
        value = fill
    return value


def _compute(kind: str, parts: list[Any]) -> float | None:
    if kind == "log":
        return math.copysign(math.log1p(abs(parts[0])), parts[0])
    if kind == "clip":
        x, lo, hi = parts
        return float(lo if x < lo else min(x, hi))
    a, b = parts
    return float(a - b) if kind == "difference" else None if b == 0 else float(a / b)


def _windowed(feature: Feature, event: Seen, before: Sequence[Seen]) -> float | None:
    _, aggregate, span, by, source, filters, _ = feature
    ts, key, values = event
    if by is not None and values[by] is None:
        return None
    length = span if isinstance(span, int) else int(span[:-1]) * {"s": 1_000, "m": 60_000}[span[-1]]
    inside: list[tuple[int, Any]] = []
    for at, whose, fields in before:
        if whose != key or not ts - length <= at < ts:
            continue
        # True and 1 are one group as they are one key of a dict, and so are they to `by`.
        if by is not None and fields[by] != values[by]:
            continue
        if any(fields[name] not in wanted for name, wanted in filters.items()):
            continue
        x = 1.0
        if isinstance(source, str):
            x = fields[source]
        elif source is not None:
            x = _value(source, (at, whose, fields), ())
        if x is not None:
            inside.append((at, x))
    return _aggregated(aggregate, ts, inside)


def _aggregated(aggregate: str, ts: int, inside: list[tuple[int, Any]]) -> float | None:
    values = [x for _, x in inside]
    if aggregate in {"count", "distinct"}:
        return float(len(values) if aggregate == "count" else len(set(values)))
    if aggregate == "sum":
        return _total(values)
    if len(values) < (2 if aggregate == "variance" else 1):
        return None
    newest = max(range(len(inside)), key=lambda n: (inside[n][0], n))
    mean = _total(values) / len(values)
    # The newest has the weight 1, or all of them together may have none.
    weights = [0.5 ** ((inside[newest][0] - at) / HALF_LIFE_MS) for at, _ in inside]
    weighed = _total([w * x for w, x in zip(weights, values, strict=True)])
    return {
        "time_since_last": lambda: (ts - inside[newest][0]) / 1000,
        "last": lambda: float(values[newest]),
        "min": lambda: float(min(values)),
        "max": lambda: float(max(values)),
        "mean": lambda: mean,
        "decayed_mean": lambda: weighed / _total(weights),
        "variance": lambda: _total([(x - mean) ** 2 for x in values]) / (len(values) - 1),
    }[aggregate]()


def _total(values: Sequence[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def agree(expected: float | None, given: float | None, scale: float) -> bool:
    """Whether two numbers are the same to 1e-9; `scale` is the largest that went in."""
    if expected is None or given is None:
        return expected is given
    return abs(expected - given) <= 1e-9 * max(1.0, abs(expected)) + 1e-12 * scale
