"""Declarations at random: as data that shrinks, as code that can be read, and as a pipeline."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import stream_ml as sml
from tests.torture.features import FUNCTIONS, code, draw_feature, windows_in
from tests.torture.recipes import CLASSIFIERS, REGRESSORS

if TYPE_CHECKING:
    import random

    from stream_ml.pipeline import Pipeline
    from tests.torture.features import Feature

__all__ = ["Declaration", "FieldKind", "changed", "draw"]

_ROOMS = [
    "active",
    "bandit",
    "compose",
    "conf",
    "drift",
    "dummy",
    "ensemble",
    "facto",
    "feature_extraction",
    "feature_selection",
    "forest",
    "imblearn",
    "linear_model",
    "metrics",
    "model_selection",
    "multiclass",
    "naive_bayes",
    "neighbors",
    "optim",
    "preprocessing",
    "rules",
    "stats",
    "tree",
]
# What recipes known to be wrong contain: not drawn until they are mended.
KNOWN: tuple[str, ...] = ()
CLASSES_MIN = 2
NAMES = ("ash", "birch", "cedar", "ebony", "fir")


@dataclass(frozen=True)
class FieldKind:
    """A declared field: its kind, an `Enum`'s members, whether it may be null, its default."""

    kind: str
    categories: tuple[str, ...] = ()
    optional: bool = False
    default: Any = None

    @property
    def code(self) -> str:
        """How a user would write it."""
        inner = self.kind
        if self.kind == "enum":
            inner = f"sml.Enum({', '.join(map(repr, self.categories))})"
        if not self.optional:
            return inner
        return f"sml.Optional({inner}, default={self.default!r})"


@dataclass(frozen=True)
class Declaration:
    """Everything that a pipeline is made of; texts are code."""

    fields: dict[str, FieldKind]
    key: str
    events: dict[str, Any]
    predict: dict[str, tuple[Any, ...]]
    features: tuple[Feature, ...]
    label: str
    horizon: str | int
    fallback: Any
    models: dict[str, str]
    champion: str
    promotion: dict[str, Any]
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The declaration as a user would write it."""
        fields = ", ".join(f"{name!r}: {kind.code}" for name, kind in self.fields.items())
        asks = ", ".join(f"{name}={values!r}" for name, values in self.predict.items())
        fallback = "" if self.fallback is None else f", fallback={self.fallback!r}"
        lines = [
            'sml.Pipeline(\n    "torture",',
            f"    events=sml.Events(key={self.key!r}, fields={{{fields}}}, {_given(self.events)}),",
            f"    predict=sml.when({asks})," if asks else "",
            "    features=[",
            *(f"        {code(feature)}," for feature in self.features),
            "    ],",
            f"    label=sml.Label({self.label}, horizon={self.horizon!r}{fallback}),",
            f"    champion={self.champion!r},",
            "    models={",
            *(f"        {name!r}: {recipe}," for name, recipe in self.models.items()),
            "    },",
            f"    promotion=sml.Promotion({_given(self.promotion)}),",
            f"    {_given(self.limits)},\n)" if self.limits else ")",
        ]
        return "\n".join(line for line in lines if line)

    def pipeline(self) -> Pipeline:
        """What the code declares.

        Raises:
            DeclarationError: it is refused.
        """
        names = {room: importlib.import_module(f"river.{room}") for room in _ROOMS}
        namespace = names | {"sml": sml} | FUNCTIONS
        return eval(self.code, namespace)  # type: ignore[no-any-return]  # noqa: S307 - made here

    @property
    def kind(self) -> str:
        """What is predicted: `bool`, `enum` or `float`."""
        return "enum" if "Enum" in self.label else self.label

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of an `Enum` label."""
        return NAMES[: self.label.count("'") // 2] if self.kind == "enum" else ()


def _given(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def draw(rand: random.Random) -> Declaration:
    """A declaration that is mostly right."""
    fields = {f"f{n}": _field(rand) for n in range(rand.randrange(1, 5))}
    key = "who"
    if rand.random() < 0.2:
        fields["who"] = FieldKind("str")
    elif rand.random() < 0.2:
        fields["who"] = FieldKind("enum", NAMES[:3])
    label = rand.choice(["bool", "bool", "enum", "float"])
    if label == "enum":
        label = f"sml.Enum({', '.join(map(repr, NAMES[: rand.randrange(CLASSES_MIN, 6)]))})"
    models = _models(rand, label)
    return Declaration(
        fields=fields,
        key=key,
        events=_times(rand),
        predict=_asks(rand, fields),
        features=_features(rand, fields),
        label=label,
        horizon=rand.choice([1, "3s", "30s", "5m", "1h"]),
        fallback=_fallback(rand, label),
        models=models,
        champion=rand.choice(list(models)),
        promotion=_promotion(rand, len(models) - 1),
        limits={
            "pending_max": rand.choice([1, 5, 50, 1_000_000]),
            "window_events_max": rand.choice([1, 3, 20, 100_000, 100_000]),
            "keep": rand.choice([1, 2, 20]),
        },
    )


def _times(rand: random.Random) -> dict[str, Any]:
    settings = {
        "lateness": rand.choice([0, 1, "1s", "5s", "20s", "2m"]),
        "skew": rand.choice([0, "2s", "5m"]),
    }
    optional = {"breadth": rand.choice([1, 1, 1, 2, 3]), "idle": rand.choice(["10s", "1h"])}
    known = {each.name for each in dataclasses.fields(sml.Events)}
    return settings | {name: value for name, value in optional.items() if name in known}


def _field(rand: random.Random) -> FieldKind:
    kind = rand.choice(["float", "float", "int", "str", "bool", "enum"])
    categories = NAMES[: rand.randrange(1, 6)] if kind == "enum" else ()
    if rand.random() < 0.6:
        return FieldKind(kind, categories)
    defaults: dict[str, Any] = {
        "float": rand.choice([0.0, -2.5]),
        "int": 7,
        "str": "ash",
        "bool": True,
        "enum": categories[-1] if categories else None,
    }
    default = rand.choice([None, defaults[kind]])
    return FieldKind(kind, categories, optional=True, default=default)


def _asks(rand: random.Random, fields: dict[str, FieldKind]) -> dict[str, tuple[Any, ...]]:
    choices = {
        name: (kind.categories[0], kind.categories[-1]) if kind.kind == "enum" else (True,)
        for name, kind in fields.items()
        if kind.kind in {"enum", "bool"}
    }
    if not choices or rand.random() < 0.5:
        return {}
    name = rand.choice(list(choices))
    return {name: tuple(dict.fromkeys(choices[name]))}


def _features(rand: random.Random, fields: dict[str, FieldKind]) -> tuple[Feature, ...]:
    drawn = (draw_feature(rand, fields) for _ in range(rand.randrange(1, 8)))
    features = tuple(each for each in drawn if each is not None)
    return features or (("window", "count", "10s", None, None, {}, None),)


def _fallback(rand: random.Random, label: str) -> Any:
    if rand.random() < 0.7:
        return None
    return {"bool": 0.25, "float": -1.5}.get(label, NAMES[0])


def _models(rand: random.Random, label: str) -> dict[str, str]:
    pool = [
        recipe
        for recipe in (REGRESSORS if label == "float" else CLASSIFIERS)
        if not any(known in recipe for known in KNOWN)
    ]
    quick = pool[:4] if label != "float" else pool[:2]
    count = rand.choice([1, 2, 2, 3, 4])
    names = ("alpha", "beta", "gamma", "delta")[:count]
    return {name: rand.choice(quick if rand.random() < 0.4 else pool) for name in names}


def _promotion(rand: random.Random, challengers: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "mode": rand.choice(["automatic", "automatic", "gated", "manual"]),
        "refresh": rand.choice([5, 20, 20, 37, "10s", "1m", "1h"]),
        "first": rand.choice([1, 30, 100]),
        "block": rand.choice([4, 10, "10s", "1m"]),
        "guard_block": rand.choice(["5s", "15s", "2m", 3, 8]),
        "slots": max(1, challengers + rand.randrange(2)),
    }
    optional = {
        "maturity": rand.choice([0, "2s"]),
        "block_pairs_min": rand.choice([1, 3]),
        "rollback_loss": rand.choice([0, 0.03, 0.5]),
        "alpha": rand.choice([0.05, 0.6]),
        "gain_min": rand.choice([0, 0.01]),
        "renewal": rand.choice([None, 2, 600]),
        "coverage_min": rand.choice([0, 0.5]),
        "on_harm": rand.choice(["switch", "fall back", "ask", "alert"]),
        "on_failure": rand.choice(["restart", "restore", "alert"]),
        "refusals": rand.choice([1, 2]),
        "divergence": rand.choice([0, 0.005, 10]),
    }
    return settings | {name: value for name, value in optional.items() if rand.random() < 0.7}


def changed(rand: random.Random, declaration: Declaration) -> Declaration:
    """A declaration that may follow: another challenger, other limits."""
    promotion = declaration.promotion | {
        "mode": rand.choice(["automatic", "manual"]),
        "divergence": rand.choice([0.005, 1.0]),
    }
    models = dict(declaration.models)
    if rand.random() < 0.7:
        models["newcomer"] = rand.choice(list(models.values()))
    promotion["slots"] = max(promotion["slots"], len(models) - 1)
    limits = declaration.limits | {"keep": rand.choice([1, 5])}
    return replace(declaration, models=models, promotion=promotion, limits=limits)


def milliseconds(duration: str | int) -> int:
    """A duration as declared, in milliseconds."""
    if isinstance(duration, int):
        return duration
    units = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    return int(duration[:-1]) * units[duration[-1]]


def longest_window(declaration: Declaration) -> int:
    """The longest window, in milliseconds."""
    spans = [each[2] for feature in declaration.features for each in windows_in(feature)]
    return max(map(milliseconds, spans), default=0)
