"""A pipeline's features as one thing: checked, compiled, asked per event, stored in pieces.

A `FeatureSet` is the declaration, compiled: it never changes. A `FeatureState` is what the
events of one partition have left behind, and changes only in `insert`, `features` (which moves
windows on to the present), `advance` and `restore`. For each event, in the order of the log:

    state.advance(watermark_ms)          # the partition's, this event already counted
    features = state.features(event)     # as of event.ts; only if it asks for a prediction
    state.insert(event)                  # every event

The state is a function of these calls, nothing else: not of when `dirty` is called, nor of the
process they are made in. So a replay has to make the same calls; in particular an event that
asks must ask again, even if nobody wants the answer.

The unit of storage is a *piece*: one series of one key and group. Its name is a JSON list of
the series' id, the key and the group's values, which no key from outside can imitate.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import DeclarationError, Problem, UsageError
from stream_ml.features.aggregates import Aggregate
from stream_ml.features.feature_view import FeatureView
from stream_ml.features.fingerprint import fingerprint
from stream_ml.features.guarded import GuardedAggregate
from stream_ml.features.transforms import Columns, Feature, FunctionFeature, Scalar
from stream_ml.features.windows import Buffer, Clock, Series, WindowFeature
from stream_ml.schema import FieldType, brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from stream_ml.records import Event

__all__ = ["WINDOW_EVENTS_MAX", "FeatureSet", "FeatureState"]

# About 8 MB of memory per buffer, and a piece of some 4 MB, which is stored in parts.
WINDOW_EVENTS_MAX = 100_000

# Of longer texts a window keeps a digest as long: else one key could hold all memory there is.
TEXT_LENGTH_KEPT = 32

# And of longer texts that name a sub-group: the room is the windows' name, in memory and at rest.
GROUP_LENGTH_KEPT = 512

# One of three, told apart without a call: a scalar's name and what computes it; or what writes
# several columns; or the names, slots and fills of window features that follow each other.
_Step = tuple[str, Any, tuple[tuple[str, int, float | None], ...]]


@dataclass(frozen=True, slots=True)
class _Scope:
    """The series that share a sub-group. `missing` is the answers for an event in no group."""

    group_fields: tuple[str, ...]
    series: tuple[Series, ...]
    missing: tuple[float | None, ...]
    empty: tuple[float | None, ...]


class FeatureSet:
    """The features that a pipeline computes from its events.

    Args:
        features: the declared features.
        schema: the events' fields.
        lateness_ms: how much older than the watermark an event may be.
        window_events_max: how many events a series of one key (and group) holds at most.
        retired: features that are computed besides, for models of before.

    Attributes:
        names: the names of all numbers it may give, in order; `name_set` is the same as a set.
        missing: those of them that an event may leave without a value.
        view: the features without the retired ones: what models see that begin now.
        hash: SHA-256 of what these see, under which names: equal for equal declarations.
        horizon_ms: the longest window; 0 without one.

    Raises:
        DeclarationError: the declaration is wrong.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        schema: Mapping[str, FieldType],
        lateness_ms: int,
        window_events_max: int = WINDOW_EVENTS_MAX,
        retired: Sequence[Feature] = (),
    ) -> None:
        self._present, self._retired = tuple(features), tuple(retired)
        features = self._features = (*self._present, *self._retired)
        problems = self.check(features, schema)
        if problems:
            raise DeclarationError("features", problems)
        self.schema = schema
        self.lateness_ms = lateness_ms
        self.window_events_max = window_events_max
        self.names = tuple(name for feature in features for name in feature.columns(schema))
        self.name_set = frozenset(self.names)
        self.missing = frozenset(
            feature.name
            for feature in features
            if isinstance(feature, Scalar) and _may_miss(feature, schema)
        )
        present_names = tuple(name for each in self._present for name in each.columns(schema))
        self.hash = self._hash(self._present)
        self.view = FeatureView(present_names, self.hash, is_whole=not retired)
        windows = [window for feature in features for window in _windows_in(feature)]
        self.horizon_ms = max((window.duration_ms for window in windows), default=0)
        self.scopes = self._compile_scopes(windows)
        self._slots = {
            _question(feature): slot
            for slot, feature in enumerate(
                feature
                for scope in self.scopes
                for series in scope.series
                for feature in series.features
            )
        }
        self.steps = _merge_steps(map(self._compile_step, features))
        self.fallible = tuple(
            series for scope in self.scopes for series in scope.series if series.fallible
        )
        self.functions = tuple(
            function.evaluator(self) for feature in features for function in _functions_in(feature)
        )

    @staticmethod
    def check(
        features: Sequence[Feature], schema: Mapping[str, FieldType], path: str = "features"
    ) -> list[Problem]:
        """Every mistake in the declaration; none if it is right.

        Args:
            features: as they were declared, of any type.
            schema: the events' fields.
            path: of the features in the declaration; problems are named below it.
        """
        problems = []
        paths_by_name: dict[str, str] = {}
        for number, feature in enumerate(features):
            feature_path = f"{path}[{number}]"
            if not isinstance(feature, Feature):
                actual = brief(feature)
                problems.append(Problem(feature_path, "a feature, such as field('amount')", actual))
                continue
            mistakes = [*feature.mistakes(schema), *feature.label_mistakes()]
            problems += [Problem(feature_path, expected, actual) for expected, actual in mistakes]
            for name in () if mistakes else feature.columns(schema):
                if name in paths_by_name:
                    actual = f"`{name}`, the name of {paths_by_name[name]}"
                    problems.append(
                        Problem(feature_path, "a name of its own (use `.named`)", actual)
                    )
                else:
                    paths_by_name[name] = feature_path
        return problems

    def declaration(self) -> Iterator[tuple[str, str]]:
        """The features as text by path: equal for equal declarations, in every process."""
        yield "features", ", ".join(self.view.names)
        name_counts: dict[str, int] = {}
        for number_of_all, feature in enumerate(self._features):
            number = name_counts[feature.name] = name_counts.get(feature.name, 0) + 1
            name = feature.name if number == 1 else f"{feature.name} ({number})"
            description = [feature.columns(self.schema), feature.describe()]
            part = "features" if number_of_all < len(self._present) else "retired"
            yield f"{part}.{name}", orjson.dumps(description).decode()
            code = [fingerprint(code_part) for code_part in _code_in(feature)]
            if code:
                yield f"code.{name}", " ".join(code)
        yield "windows", " ".join(sorted(self.series_ids()))

    def _hash(self, features: Sequence[Feature]) -> str:
        descriptions = [[feature.columns(self.schema), feature.describe()] for feature in features]
        return hashlib.sha256(orjson.dumps(descriptions)).hexdigest()

    def part(self, names: Sequence[str]) -> FeatureView | None:
        """The features that give these numbers, in this order; None where some are not declared.

        Args:
            names: of the numbers.
        """
        if tuple(names) == self.view.names:
            return self.view
        columns_of = {
            columns[0]: (feature, columns)
            for feature in self._features
            if (columns := [*feature.columns(self.schema)])
        }
        chosen: list[Feature] = []
        rest = [*names]
        while rest:
            feature, columns = columns_of.get(rest[0], (None, []))
            if feature is None or rest[: len(columns)] != columns:
                return None
            chosen.append(feature)
            rest = rest[len(columns) :]
        return FeatureView(tuple(names), self._hash(chosen))

    def series_ids(self) -> list[str]:
        """The ids of the series, by which the pieces of its state are named."""
        return [series.id for scope in self.scopes for series in scope.series]

    def new_state(self) -> FeatureState:
        """The state before any event."""
        return FeatureState(self)

    def slot(self, feature: WindowFeature) -> int:
        """The index of a window feature's answer among the answers."""
        return self._slots[_question(feature)]

    def _compile_scopes(self, windows: list[WindowFeature]) -> tuple[_Scope, ...]:
        scopes = []
        for group_fields in dict.fromkeys(feature.window.by for feature in windows):
            groups = self._shared(
                [feature for feature in windows if feature.window.by == group_fields]
            )
            series = tuple(map(self._compile_series, groups))
            empty = tuple(answer for member in series for answer in member.empty)
            scopes.append(_Scope(group_fields, series, (None,) * len(empty), empty))
        return tuple(scopes)

    def _shared(self, windows: list[WindowFeature]) -> list[list[WindowFeature]]:
        """The window features, put together by the series that can answer them."""
        groups: dict[bytes, list[WindowFeature]] = {}
        for feature in windows:
            if feature.source is not None:
                groups.setdefault(orjson.dumps(feature.series_description()), []).append(feature)
        for feature in windows:
            if feature.source is None:
                groups.setdefault(self._host(groups, feature), []).append(feature)
        return [_without_repetition(group) for group in groups.values()]

    def _host(self, groups: dict[bytes, list[WindowFeature]], counting: WindowFeature) -> bytes:
        """The series of a feature without a value: one that holds every event anyway, if any."""
        description = counting.series_description()
        for name, (first, *_) in groups.items():
            is_same_series = first.series_description()[:2] == description[:2]
            if is_same_series and first.source is not None and first.source.total(self.schema):
                return name
        return orjson.dumps(description)

    def _compile_series(self, group: list[WindowFeature]) -> Series:
        makers: list[Callable[[], Aggregate]] = []
        windows: list[tuple[int, tuple[int, ...]]] = []
        readings: list[tuple[Callable[[Any, int], float | None], int]] = []
        features: list[WindowFeature] = []
        identity: list[Any] = [group[0].series_description()]
        for duration_ms in sorted({feature.duration_ms for feature in group}):
            window_group = [feature for feature in group if feature.duration_ms == duration_ms]
            hosts = _hosts(window_group)
            windows.append((duration_ms, tuple(range(len(makers), len(makers) + len(hosts)))))
            for feature in window_group:
                member = next(n for n, host in enumerate(hosts) if _answers_for(host, feature))
                readings.append((_reading(feature.kind, hosts[member].kind), len(makers) + member))
                features.append(feature)
            makers += [_maker(host.kind, host.constructor_arguments()) for host in hosts]
            identity.append([duration_ms, [host.aggregate_description() for host in hosts]])
        source = group[0].source
        fresh = [make() for make in makers]
        return Series(
            id=hashlib.sha256(orjson.dumps(identity)).hexdigest()[:12],
            filters=tuple((name, frozenset(values)) for name, values in group[0].filters),
            evaluate=_constant_one if source is None else source.evaluator(self),
            windows=tuple(windows),
            makers=tuple(makers),
            readings=tuple(readings),
            features=tuple(features),
            keep_ms=windows[-1][0] + self.lateness_ms,
            empty=tuple(value(fresh[member], 0) for value, member in readings),
            is_valueless=source is None,
            fallible=source is not None and source.may_raise(),
            window_events_max=self.window_events_max,
        )

    def _compile_step(self, feature: Feature) -> _Step:
        if isinstance(feature, Columns):
            return "", feature.compile_columns(self.schema), ()
        if isinstance(feature, WindowFeature):
            fill = None if feature.fill is None else float(feature.fill)
            return "", None, ((feature.name, self.slot(feature), fill),)
        if isinstance(feature, Scalar):
            return feature.name, feature.evaluator(self), ()
        raise AssertionError(feature)


def _is_ours(kind: type[Aggregate]) -> bool:
    return kind.__module__ == Aggregate.__module__


def _maker(kind: type[Aggregate], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    return (
        partial(kind, *arguments) if _is_ours(kind) else partial(GuardedAggregate, kind, *arguments)
    )


def _reading(kind: type[Aggregate], host: type[Aggregate]) -> Callable[[Any, int], float | None]:
    """The function that asks an aggregate, which may be of a subclass, as one of this kind."""
    if _is_ours(host):
        return kind.value

    def read(aggregate: Any, t: int) -> float | None:
        answer: float | None = aggregate.ask(kind.value, t)
        return answer

    return read


def _merge_steps(steps: Iterable[_Step]) -> tuple[_Step, ...]:
    """The same steps, with window features that follow each other in one."""
    merged_steps: list[_Step] = []
    for step in steps:
        if step[2] and merged_steps and merged_steps[-1][2]:
            merged_steps[-1] = ("", None, merged_steps[-1][2] + step[2])
        else:
            merged_steps.append(step)
    return tuple(merged_steps)


def _constant_one(fields: Mapping[str, Any], t: int, answers: Sequence[float | None]) -> float:  # noqa: ARG001 - an `Evaluator`
    return 1.0


def _may_miss(feature: Scalar, schema: Mapping[str, FieldType]) -> bool:
    if not isinstance(feature, WindowFeature) or feature.fill is not None:
        return not feature.total(schema)
    if any(schema[name].optional for name in feature.window.by):
        return True
    fresh = _maker(feature.kind, feature.constructor_arguments())()
    return _reading(feature.kind, feature.kind)(fresh, 0) is None


def _windows_in(feature: Feature) -> Iterator[WindowFeature]:
    """The window features in a feature: itself, or what it is made from."""
    if isinstance(feature, WindowFeature):
        yield feature
    elif isinstance(feature, Scalar):
        for source in feature.inputs:
            yield from _windows_in(source)


def _code_in(feature: Feature) -> Iterator[Any]:
    """The users' own functions and aggregates in a feature."""
    if isinstance(feature, WindowFeature):
        if feature.kind.__module__ != Aggregate.__module__:
            yield feature.kind
        if isinstance(feature.source, Feature):
            yield from _code_in(feature.source)
    elif isinstance(feature, FunctionFeature):
        yield feature.function
    elif isinstance(feature, Scalar):
        for source in feature.inputs:
            yield from _code_in(source)


def _functions_in(feature: Feature) -> Iterator[Scalar]:
    """The user's functions that are called when an event asks, windows apart."""
    if isinstance(feature, Scalar) and not isinstance(feature, WindowFeature):
        if feature.may_raise() and not feature.inputs:
            yield feature
        for source in feature.inputs:
            yield from _functions_in(source)


def _question(feature: WindowFeature) -> bytes:
    """The question to a window: the same for features that differ in name and `fill` only."""
    return orjson.dumps(feature.describe()[:-1])


def _without_repetition(group: list[WindowFeature]) -> list[WindowFeature]:
    return list({_question(feature): feature for feature in group}.values())


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


class FeatureState:
    """The state that events of one partition left behind; the header of this module has the rules.

    Attributes:
        dropped_count: how many events `window_events_max` has dropped since this was set to 0.
        failures: what users' aggregates have raised since this was emptied.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        self.feature_set = feature_set
        self.dropped_count = 0
        self.failures: list[str] = []
        self._clock = Clock()
        self._scopes = feature_set.scopes
        self._steps = feature_set.steps
        self._fallible = feature_set.fallible
        self._functions = feature_set.functions
        # Per scope, per entity (a key, or a tuple of the key and its group), per series.
        self._buffers: tuple[dict[Any, list[Buffer | None]], ...] = tuple({} for _ in self._scopes)
        self._series = {
            series.id: (number, index)
            for number, scope in enumerate(self._scopes)
            for index, series in enumerate(scope.series)
        }
        self._buffers_of: dict[str, int] = {}
        self._dirty_buffers: list[Buffer] = []
        # When to look at a buffer again; the number keeps buffers from being compared.
        self._due: list[tuple[int, int, Buffer]] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many keys it holds anything of."""
        return len(self._buffers_of)

    def features(self, event: Event) -> dict[str, float]:
        """The features of an event as of its time; it is not taken in.

        Raises:
            BadRecord: a user's function raised on it; nothing was changed.
        """
        fields, t = event.fields, event.ts
        # Asking moves windows on: let a user's function raise before.
        self._try_fallible(event)
        for function in self._functions:
            function(fields, t, ())
        answers = self._answers(event)
        features: dict[str, float] = {}
        for name, compute, window_columns in self._steps:
            if window_columns:
                for column, slot, fill in window_columns:
                    value = answers[slot]
                    if value is None:
                        value = fill
                    if value is not None:
                        features[column] = value
            elif name:
                value = compute(fields, t, answers)
                if value is not None:
                    features[name] = value
            else:
                compute(fields, t, features)
        return features

    def _answers(self, event: Event) -> list[float | None]:
        """The answers of the windows, in the order of slots."""
        t = event.ts
        answers: list[float | None] = []
        dirty_buffers = self._dirty_buffers
        for scope, entities in zip(self._scopes, self._buffers, strict=True):
            entity = _entity(event, scope.group_fields) if scope.group_fields else event.key
            buffers = entities.get(entity)
            if buffers is None:
                answers += scope.missing if entity is None else scope.empty
                continue
            for index, buffer in enumerate(buffers):
                if buffer is None:
                    answers += scope.series[index].empty
                    continue
                if not buffer.is_dirty:
                    buffer.is_dirty = True
                    dirty_buffers.append(buffer)
                buffer.read(t, answers)
        return answers

    def insert(self, event: Event) -> None:
        """Take an event in.

        Raises:
            BadRecord: a user's function raised on it; nothing was changed.
        """
        fields, t = event.fields, event.ts
        self._try_fallible(event)
        for scope, entities in zip(self._scopes, self._buffers, strict=True):
            entity = _entity(event, scope.group_fields) if scope.group_fields else event.key
            if entity is None:
                continue
            buffers = entities.get(entity)
            for index, series in enumerate(scope.series):
                if series.filters and not series.admits(fields):
                    continue
                x: Any = series.evaluate(fields, t, ())
                if x is None:
                    continue
                if type(x) is str and len(x) > TEXT_LENGTH_KEPT:
                    x = _digest(x)
                buffer = None if buffers is None else buffers[index]
                if buffer is None:
                    buffer = Buffer(series, entity, t, self._clock)
                    buffer.insert(t, x)
                    self._hold(buffer)
                    buffers = entities[entity]
                else:
                    self.dropped_count += buffer.insert(t, x)
                if not buffer.is_dirty:
                    buffer.is_dirty = True
                    self._dirty_buffers.append(buffer)

    def _try_fallible(self, event: Event) -> None:
        """Call the user's functions in windows, that they raise before anything is changed."""
        for series in self._fallible:
            if series.admits(event.fields):
                series.evaluate(event.fields, event.ts, ())

    def advance(self, watermark_ms: int) -> None:
        """Drop what no event that is not too late can ask for any more.

        To be told after `restore`, too: a watermark is no part of the pieces.
        """
        self._clock.watermark_ms = watermark_ms
        due = self._due
        while due and due[0][0] < watermark_ms:
            _, _, buffer = heapq.heappop(due)
            if not buffer.live:
                continue
            if buffer.keep_until < watermark_ms:
                self._drop(buffer)
            else:
                heapq.heappush(due, (buffer.keep_until, next(self._numbers), buffer))

    def forget(self, is_meant: Callable[[str], bool]) -> int:
        """Drop all that is held of the keys that are meant; of how many keys that was.

        Args:
            is_meant: whether a key is.
        """
        keys = {key for key in self._buffers_of if is_meant(key)}
        if keys:
            held = [
                buffer
                for entities in self._buffers
                for entity, buffers in entities.items()
                if _key(entity) in keys
                for buffer in buffers
                if buffer is not None
            ]
            for buffer in held:
                self._drop(buffer)
            self._due = [item for item in self._due if item[2].live]
            heapq.heapify(self._due)
        return len(keys)

    def dirty(self) -> list[tuple[str, bytes | None]]:
        """The pieces that changed since the last call, by name; None for a dropped one."""
        pieces: dict[str, bytes | None] = {}
        for buffer in self._dirty_buffers:
            buffer.is_dirty = False
            name = _piece_name(buffer)
            if buffer.live:
                pieces[name] = orjson.dumps(buffer.dump())
            else:
                # A piece may have come to life again: the order of changes must not matter.
                pieces.setdefault(name, None)
        self._dirty_buffers = []
        return sorted(pieces.items())

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take over pieces that `dirty` gave; what they do not name stays as it is.

        Raises:
            UsageError: a piece belongs to another declaration.
        """
        for name, piece in items:
            series_id, key, *group = orjson.loads(name)
            if series_id not in self._series:
                windows = ", ".join(
                    feature.name
                    for scope in self._scopes
                    for series in scope.series
                    for feature in series.features
                )
                raise UsageError(
                    f"the state that is kept holds the window series {series_id} of key {key!r}, "
                    f"but the declaration has only {windows or 'none'}: other windows were "
                    "declared when it was written. Declare them again, or give the pipeline "
                    "another name, under which it begins anew"
                )
            number, index = self._series[series_id]
            entity = (key, *group) if group else key
            buffers = self._buffers[number].get(entity)
            former = None if buffers is None else buffers[index]
            if former is not None:
                self._drop(former)
            series = self._scopes[number].series[index]
            self._hold(Buffer.load(series, entity, orjson.loads(piece), self._clock))

    def _hold(self, buffer: Buffer) -> None:
        number, index = self._series[buffer.series.id]
        buffer.listen(self.failures)
        entities = self._buffers[number]
        if buffer.entity not in entities:
            entities[buffer.entity] = [None] * len(self._scopes[number].series)
        entities[buffer.entity][index] = buffer
        key = _key(buffer.entity)
        self._buffers_of[key] = self._buffers_of.get(key, 0) + 1
        heapq.heappush(self._due, (buffer.keep_until, next(self._numbers), buffer))

    def _drop(self, buffer: Buffer) -> None:
        number, index = self._series[buffer.series.id]
        buffers = self._buffers[number][buffer.entity]
        buffers[index] = None
        if all(sibling is None for sibling in buffers):
            del self._buffers[number][buffer.entity]
        key = _key(buffer.entity)
        self._buffers_of[key] -= 1
        if not self._buffers_of[key]:
            del self._buffers_of[key]
        buffer.live = False
        if not buffer.is_dirty:
            buffer.is_dirty = True
            self._dirty_buffers.append(buffer)


def _digest(x: str) -> str:
    """A digest of a long text, of which a window only has to know whether it is another."""
    return "\0" + hashlib.sha256(x.encode()).hexdigest()[:TEXT_LENGTH_KEPT]


def _entity(event: Event, group_fields: tuple[str, ...]) -> Any:
    """The entity by which the event's windows are kept; None if it is in no group."""
    fields = event.fields
    entity = (event.key, *[fields[name] for name in group_fields])
    if None in entity:
        return None
    if any(type(part) is str and len(part) > GROUP_LENGTH_KEPT for part in entity[1:]):
        group = [
            _digest(part) if type(part) is str and len(part) > GROUP_LENGTH_KEPT else part
            for part in entity[1:]
        ]
        return (event.key, *group)
    return entity


def _key(entity: Any) -> str:
    return str(entity[0] if isinstance(entity, tuple) else entity)


def _piece_name(buffer: Buffer) -> str:
    entity = buffer.entity
    group = entity if isinstance(entity, tuple) else (entity,)
    return orjson.dumps([buffer.series.id, *group]).decode()
