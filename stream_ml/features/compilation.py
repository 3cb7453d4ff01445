"""How window features become series: which share a buffer, which aggregate answers for which."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from stream_ml.features.aggregates import Aggregate
from stream_ml.features.durations import parse_duration
from stream_ml.features.guarded import GuardedAggregate
from stream_ml.features.hashing import Hashed
from stream_ml.features.transforms import FeatureContext, Scalar
from stream_ml.features.windows import Buffer, FramedBuffer, Series, WindowFeature
from stream_ml.features.windows.frames import Sliding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_ml.features.transforms import Feature, Schema
    from stream_ml.features.windows.frames import Frame
    from stream_ml.features.windows.reach import Reach

__all__ = ["Context", "Scope", "compile_scopes", "is_ours", "may_miss", "question"]


# The package that every aggregate of our own lies in.
AGGREGATES = Aggregate.__module__.rpartition(".")[0]


class Context(FeatureContext, Protocol):
    """What window features are compiled against.

    Attributes:
        lateness_ms: how much older than the watermark an event may be.
        window_events_max: how many events a series of one key (and group) holds at most.
    """

    lateness_ms: int
    window_events_max: int


@dataclass(frozen=True, slots=True)
class Scope:
    """The series that share an entity and a sub-group.

    Attributes:
        group_fields: the fields that name them; none: the key alone does.
        is_keyed: whether the key names the entity beside them; else its windows are of all keys.
        delay_ms: how long before the event they end, over all partitions; None: they are of one.
        series: those.
        missing: the answers for an event in no group.
        empty: the answers where there is no buffer.
    """

    group_fields: tuple[str, ...]
    is_keyed: bool
    delay_ms: int | None
    series: tuple[Series, ...]
    missing: tuple[float | None, ...]
    empty: tuple[float | None, ...]


def compile_scopes(windows: Sequence[WindowFeature], context: Context) -> tuple[Scope, ...]:
    """The series that answer these window features, by the entity and sub-group that they share.

    Args:
        windows: the features.
        context: what they are compiled against.
    """
    scopes = []
    shared: dict[Any, list[WindowFeature]] = {}
    for feature in windows:
        delay_ms = None if feature.delay is None else parse_duration(feature.delay)
        shared.setdefault((feature.entity, feature.by, delay_ms), []).append(feature)
    for (entity, by, delay_ms), features in shared.items():
        groups = _shared(features, context.schema)
        series = tuple(_compile_series(group, context) for group in groups)
        empty = tuple(answer for member in series for answer in member.empty)
        missing = (None,) * len(empty)
        scopes.append(Scope((*entity, *by), not entity, delay_ms, series, missing, empty))
    return tuple(scopes)


def _shared(windows: list[WindowFeature], schema: Schema) -> list[list[WindowFeature]]:
    """The window features, put together by the series that can answer them."""
    groups: dict[bytes, list[WindowFeature]] = {}
    for feature in windows:
        if feature.source is not None:
            groups.setdefault(orjson.dumps(feature.series_description()), []).append(feature)
    for feature in windows:
        if feature.source is None:
            groups.setdefault(_host(groups, feature, schema), []).append(feature)
    return [_without_repetition(group) for group in groups.values()]


def _host(
    groups: dict[bytes, list[WindowFeature]], counting: WindowFeature, schema: Schema
) -> bytes:
    """The series of a feature without a value: one that holds every event anyway, if any."""
    description = counting.series_description()
    for name, (first, *_) in groups.items():
        is_same_series = first.series_description()[:2] == description[:2]
        if is_same_series and first.source is not None and first.source.total(schema):
            return name
    return orjson.dumps(description)


def _compile_series(group: list[WindowFeature], context: Context) -> Series:
    makers: list[Callable[[], Aggregate]] = []
    reaches: list[tuple[Reach, tuple[int, ...]]] = []
    readings: list[tuple[Callable[[Any, int], float | None], int]] = []
    features: list[WindowFeature] = []
    identity: list[Any] = [group[0].series_description()]
    by_frame: dict[bytes, list[WindowFeature]] = {}
    for feature in group:
        by_frame.setdefault(orjson.dumps(feature.frame.describe()), []).append(feature)
    window_groups = sorted(by_frame.values(), key=lambda features: _frame_order(features[0].frame))
    frames = [window_group[0].frame for window_group in window_groups]
    for frame, window_group in zip(frames, window_groups, strict=True):
        hosts = _hosts(window_group)
        members = tuple(range(len(makers), len(makers) + len(hosts)))
        reaches.append((frame.reach(), members))
        for feature in window_group:
            member = next(n for n, host in enumerate(hosts) if _answers_for(host, feature))
            readings.append((_reading(feature, hosts[member].kind), members[member]))
            features.append(feature)
        makers += [_maker(host.kind, host.constructor_arguments()) for host in hosts]
        identity.append([frame.describe(), [host.aggregate_description() for host in hosts]])
    source = group[0].source
    fresh = [make() for make in makers]
    return Series(
        id=hashlib.sha256(orjson.dumps(identity)).hexdigest()[:12],
        filters=tuple((name, frozenset(values)) for name, values in group[0].filters),
        evaluate=_constant_one if source is None else source.evaluator(context),
        windows=_sliding_windows(frames, reaches),
        frames=tuple(reaches),
        kind=Buffer if all(map(_is_sliding, frames)) else FramedBuffer,
        makers=tuple(makers),
        readings=tuple(readings),
        features=tuple(features),
        keep_ms=max(frame.horizon_ms for frame in frames) + context.lateness_ms,
        lateness_ms=context.lateness_ms,
        empty=tuple(value(fresh[member], 0) for value, member in readings),
        is_valueless=source is None,
        fallible=source is not None and source.may_raise(),
        window_events_max=context.window_events_max,
    )


def _is_sliding(frame: Frame) -> bool:
    return isinstance(frame, Sliding) and frame.ago is None


def _frame_order(frame: Frame) -> tuple[bool, int, bytes]:
    """Sliding ones come first, by their length."""
    return not _is_sliding(frame), frame.horizon_ms, orjson.dumps(frame.describe())


def _sliding_windows(
    frames: list[Frame], reaches: list[tuple[Reach, tuple[int, ...]]]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The lengths and aggregates of windows that are all sliding; empty where one is not."""
    if not all(map(_is_sliding, frames)):
        return ()
    return tuple(
        (frame.horizon_ms, members) for frame, (_, members) in zip(frames, reaches, strict=True)
    )


def is_ours(kind: type[Aggregate]) -> bool:
    """Whether an aggregate is one of the package's own, which raises on no event."""
    return kind.__module__.rpartition(".")[0] == AGGREGATES


def _maker(kind: type[Aggregate], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    return (
        partial(kind, *arguments) if is_ours(kind) else partial(GuardedAggregate, kind, *arguments)
    )


def _reading(feature: WindowFeature, host: type[Aggregate]) -> Callable[[Any, int], float | None]:
    """The function that asks an aggregate, which may be of a subclass, for a feature's answer."""
    kind, question = feature.kind, feature.question_arguments()
    method: Callable[..., float | None] = kind.value
    if is_ours(host):
        return method if not question else lambda aggregate, t: method(aggregate, t, *question)

    def read(aggregate: Any, t: int) -> float | None:
        answer: float | None = aggregate.ask(method, t, *question)
        return answer

    return read


def _constant_one(fields: Mapping[str, Any], t: int, answers: Sequence[float | None]) -> float:  # noqa: ARG001 - an `Evaluator`
    return 1.0


def may_miss(feature: Feature, schema: Schema) -> bool:
    """Whether an event may leave a feature without a value.

    Args:
        feature: of any kind.
        schema: the events' fields.
    """
    if not isinstance(feature, Scalar):
        return isinstance(feature, Hashed)
    if not isinstance(feature, WindowFeature) or feature.fill is not None:
        return not feature.total(schema)
    if any(schema[name].optional for name in (*feature.entity, *feature.by)):
        return True
    fresh = _maker(feature.kind, feature.constructor_arguments())()
    return _reading(feature, feature.kind)(fresh, 0) is None


def question(feature: WindowFeature) -> bytes:
    """The question to a window: the same for features that differ in name and `fill` only."""
    return orjson.dumps(feature.describe()[:-1])


def _without_repetition(group: list[WindowFeature]) -> list[WindowFeature]:
    return list({question(feature): feature for feature in group}.values())


def _hosts(features: list[WindowFeature]) -> list[WindowFeature]:
    """The fewest aggregates that answer all that one window is asked."""
    hosts: list[WindowFeature] = []
    # A subclass answers for its parents, so the deepest come first.
    for feature in sorted(features, key=lambda feature: -len(feature.kind.__mro__)):
        if not any(_answers_for(host, feature) for host in hosts):
            hosts.append(feature)
    return hosts


def _answers_for(host: WindowFeature, feature: WindowFeature) -> bool:
    same_arguments = host.constructor_arguments() == feature.constructor_arguments()
    return issubclass(host.kind, feature.kind) and same_arguments
