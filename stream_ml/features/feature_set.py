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
the series' id, the key (null of a window of all keys) and the group's values, which no key from
outside can imitate.
"""

from __future__ import annotations

import hashlib
import heapq
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import DeclarationError, Problem, UsageError
from stream_ml.features.compilation import compile_scopes, may_miss, question
from stream_ml.features.durations import parse_duration
from stream_ml.features.entities import entity_of, key_of, piece_name
from stream_ml.features.feature_view import FeatureView
from stream_ml.features.fingerprint import fingerprint
from stream_ml.features.hashing import Hashed
from stream_ml.features.parts import code_in, fields_in, functions_in, parts_of, windows_in
from stream_ml.features.sparse import common_prefix, is_common, name_set
from stream_ml.features.texts import TEXT_LENGTH_KEPT, text_digest
from stream_ml.features.transforms import Columns, Feature, Scalar
from stream_ml.features.windows import Buffer, Clock, WindowColumns, WindowFeature
from stream_ml.records import Event
from stream_ml.schema import FieldType, brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["WINDOW_EVENTS_MAX", "FeatureSet", "FeatureState"]

# About 8 MB of memory per buffer, and a piece of some 4 MB, which is stored in parts.
WINDOW_EVENTS_MAX = 100_000

# One of three, told apart without a call: a scalar's name and what computes it; or what writes
# several columns; or the names, slots and fills of window features that follow each other.
_Step = tuple[str, Any, tuple[tuple[str, int, float | None], ...]]


class FeatureSet:
    """The features that a pipeline computes from its events.

    Args:
        features: the declared features.
        schema: the events' fields.
        lateness_ms: how much older than the watermark an event may be.
        window_events_max: how many events a series of one key (and group) holds at most.
        retired: features that are computed besides, for models of before.

    Attributes:
        names: the names of all numbers it may give, in order, many columns under one
            (`sparse`); `name_set` is the same as a set, in which columns are.
        missing: those of them that an event may leave without a value.
        view: the features without the retired ones: what models see that begin now.
        hash: SHA-256 of what these see, under which names: equal for equal declarations.
        horizon_ms: the longest window; 0 without one.
        entities: the fields that name entities whose windows are of all keys of a partition, in
            order.
        delay_ms: how long before the event windows of entities end that are over all partitions;
            None where there are none.
        delayed_fields: the fields that those are made from, in order.
        delayed_names: the names of the numbers that those are in.

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
        self.name_set = name_set(self.names)
        self.missing = frozenset(
            name
            for feature in features
            for part in parts_of(feature, schema)
            if may_miss(part, schema)
            for name in part.columns(schema)
        )
        present_names = tuple(name for each in self._present for name in each.columns(schema))
        self.hash = self._hash(self._present)
        self.view = FeatureView(present_names, self.hash, is_whole=not retired)
        windows = [window for feature in features for window in windows_in(feature, schema)]
        self.horizon_ms = max((window.frame.horizon_ms for window in windows), default=0)
        self.entities = tuple(
            dict.fromkeys(name for each in windows if each.delay is None for name in each.entity)
        )
        delayed = [each for each in windows if each.delay is not None]
        delays = [parse_duration(each.delay) for each in delayed if each.delay is not None]
        self.delay_ms = delays[0] if delays else None
        self.delayed_fields = tuple(
            dict.fromkeys(name for each in delayed for name in fields_in(each, schema))
        )
        self.delayed_names = frozenset(
            name
            for feature in features
            if any(each.delay is not None for each in windows_in(feature, schema))
            for name in feature.columns(schema)
        )
        self.scopes = compile_scopes(windows, self)
        self._slots = {
            question(feature): slot
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
            function.evaluator(self) for feature in features for function in functions_in(feature)
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
        # Of hashed features: of two of one prefix an event's columns could not be told apart.
        paths_by_prefix: dict[str, str] = {}
        delays: dict[int, str] = {}
        for number, feature in enumerate(features):
            feature_path = f"{path}[{number}]"
            if not isinstance(feature, Feature):
                actual = brief(feature)
                problems.append(Problem(feature_path, "a feature, such as field('amount')", actual))
                continue
            mistakes = [*feature.mistakes(schema), *feature.label_mistakes()]
            problems += [Problem(feature_path, expected, actual) for expected, actual in mistakes]
            if not mistakes:
                delays |= {
                    parse_duration(each.delay): str(each.delay)
                    for each in windows_in(feature, schema)
                    if each.delay is not None
                }
                if len(delays) > 1:
                    actual = " and ".join(f"`{delay}`" for delay in delays.values())
                    problems.append(Problem(feature_path, "one `delay` for all windows", actual))
                    delays.popitem()
            for name in () if mistakes else feature.columns(schema):
                prefix = common_prefix(name)
                former_path = paths_by_name.get(name)
                if prefix is not None:
                    former_path = paths_by_prefix.setdefault(prefix, feature_path)
                if former_path not in {None, feature_path}:
                    kind = "the name" if prefix is None else f"whose columns `{prefix}#` are those"
                    actual = f"`{name}`, {kind} of {former_path}"
                    problems.append(
                        Problem(feature_path, "a name of its own (use `.named`)", actual)
                    )
                elif is_common(name) and not isinstance(feature, Hashed):
                    expected = "a name that does not end as that of many columns, `#0..N`"
                    problems.append(Problem(feature_path, expected, f"`{name}`"))
                else:
                    paths_by_name[name] = feature_path
        known = name_set(name for name in paths_by_name if is_common(name))
        problems += [
            Problem(feature_path, "a name that is no column of a hashed feature", f"`{name}`")
            for name, feature_path in paths_by_name.items()
            if name in known
        ]
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
            code = [fingerprint(code_part) for code_part in code_in(feature)]
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

    def new_state(self, *, delayed: bool = False) -> FeatureState:
        """The state before any event.

        Args:
            delayed: whether it is that of the windows over all partitions; else of all others.
        """
        return FeatureState(self, delayed=delayed)

    def slot(self, feature: WindowFeature) -> int:
        """The index of a window feature's answer among the answers."""
        return self._slots[question(feature)]

    def _compile_step(self, feature: Feature) -> _Step:
        if isinstance(feature, Columns):
            return "", feature.compile_columns(self.schema), ()
        if isinstance(feature, WindowFeature):
            return "", None, (self._window_column(feature),)
        if isinstance(feature, WindowColumns):
            return "", None, tuple(map(self._window_column, feature.members(self.schema)))
        if isinstance(feature, Scalar):
            return feature.name, feature.evaluator(self), ()
        raise AssertionError(feature)

    def _window_column(self, feature: WindowFeature) -> tuple[str, int, float | None]:
        fill = None if feature.fill is None else float(feature.fill)
        return feature.name, self.slot(feature), fill


def _merge_steps(steps: Iterable[_Step]) -> tuple[_Step, ...]:
    """The same steps, with window features that follow each other in one."""
    merged_steps: list[_Step] = []
    for step in steps:
        if step[2] and merged_steps and merged_steps[-1][2]:
            merged_steps[-1] = ("", None, merged_steps[-1][2] + step[2])
        else:
            merged_steps.append(step)
    return tuple(merged_steps)


class FeatureState:
    """The state that events of one partition left behind; the header of this module has the rules.

    Attributes:
        dropped_count: how many events `window_events_max` has dropped since this was set to 0.
        failures: what users' aggregates have raised since this was emptied.
    """

    def __init__(self, feature_set: FeatureSet, *, delayed: bool = False) -> None:
        self.feature_set = feature_set
        self.dropped_count = 0
        self.failures: list[str] = []
        self._clock = Clock()
        self._scopes = feature_set.scopes
        self._steps = feature_set.steps
        # In windows over all partitions there is nothing that raises.
        self._fallible = () if delayed else feature_set.fallible
        self._functions = feature_set.functions
        # Per scope, per entity (a key, or a tuple of the key and its group), per series.
        self._buffers: tuple[dict[Any, list[Buffer | None]], ...] = tuple({} for _ in self._scopes)
        # The scopes that this state holds; of others there is no buffer, so no answer.
        self._held = [
            (scope, entities)
            for scope, entities in zip(self._scopes, self._buffers, strict=True)
            if (scope.delay_ms is not None) == delayed
        ]
        whole = [*zip(self._scopes, self._buffers, strict=True)]
        self._asked = self._held if delayed else whole
        self._series = {
            series.id: (number, index)
            for number, scope in enumerate(self._scopes)
            for index, series in enumerate(scope.series)
        }
        # Per key; under None those of all keys.
        self._buffers_of: dict[str | None, int] = {}
        self._dirty_buffers: list[Buffer] = []
        # When to look at a buffer again; the number keeps buffers from being compared.
        self._due: list[tuple[int, int, Buffer]] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many keys it holds anything of."""
        return len(self._buffers_of) - (None in self._buffers_of)

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
        return self.vector(event, self._answers(event))

    def vector(self, event: Event, answers: Sequence[float | None]) -> dict[str, float]:
        """The features of an event whose windows answer so.

        Args:
            event: that asks.
            answers: of the windows, as `answers` gives them.
        """
        fields, t = event.fields, event.ts
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
        for scope, entities in self._asked:
            entity = entity_of(event, scope) if scope.group_fields else event.key
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

    def answers(self, event: Event) -> list[float | None]:
        """The answers of all windows: of those that this state does not hold, as if empty.

        Raises:
            BadRecord: a user's function raised on the event; nothing was changed.
        """
        self._try_fallible(event)
        for function in self._functions:
            function(event.fields, event.ts, ())
        return self._answers(event)

    def fill(self, event: Event, t: int, answers: list[float | None]) -> None:
        """Put the answers of the windows over all partitions, which this state holds, among all.

        Args:
            event: that asks.
            t: as of when, UTC milliseconds.
            answers: of all windows, which is changed.
        """
        own = self._answers(Event(event.event_id, t, event.key, event.fields))
        slot = first = 0
        for scope in self._scopes:
            count = len(scope.empty)
            if scope.delay_ms is not None:
                answers[slot : slot + count] = own[first : first + count]
                first += count
            slot += count

    def insert(self, event: Event) -> None:
        """Take an event in.

        Raises:
            BadRecord: a user's function raised on it; nothing was changed.
        """
        fields, t = event.fields, event.ts
        self._try_fallible(event)
        for scope, entities in self._held:
            entity = entity_of(event, scope) if scope.group_fields else event.key
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
                    x = text_digest(x)
                buffer = None if buffers is None else buffers[index]
                if buffer is None:
                    buffer = series.kind(series, entity, t, self._clock)
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

    def forget(self, is_meant: Callable[[str], bool], name: str) -> int:
        """Drop all that is held of the keys that are meant; of how many keys that was.

        Windows of all keys keep what those put into them, which does not say whose it was; but
        they go where the entity is called so, and another name stands for a value that is.

        Args:
            is_meant: whether a key is.
            name: for those.
        """
        keys = {key for key in self._buffers_of if key is not None and is_meant(key)}
        held: list[Buffer] = []
        for scope, entities in zip(self._scopes, self._buffers, strict=True):
            for entity, buffers in entities.items():
                present = [buffer for buffer in buffers if buffer is not None]
                if key_of(entity) in keys or (not scope.is_keyed and _is_named(entity, is_meant)):
                    held += present
                elif not scope.is_keyed:
                    self._mark(buffer for buffer in present if buffer.rename(is_meant, name))
        for buffer in held:
            self._drop(buffer)
        if held:
            self._due = [item for item in self._due if item[2].live]
            heapq.heapify(self._due)
        return len(keys)

    def _mark(self, buffers: Iterable[Buffer]) -> None:
        """Have them stored once more."""
        for buffer in buffers:
            if not buffer.is_dirty:
                buffer.is_dirty = True
                self._dirty_buffers.append(buffer)

    def dirty(self) -> list[tuple[str, bytes | None]]:
        """The pieces that changed since the last call, by name; None for a dropped one."""
        pieces: dict[str, bytes | None] = {}
        for buffer in self._dirty_buffers:
            buffer.is_dirty = False
            name = piece_name(buffer)
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
            self._hold(series.kind.load(series, entity, orjson.loads(piece), self._clock))

    def _hold(self, buffer: Buffer) -> None:
        number, index = self._series[buffer.series.id]
        buffer.listen(self.failures)
        entities = self._buffers[number]
        if buffer.entity not in entities:
            entities[buffer.entity] = [None] * len(self._scopes[number].series)
        entities[buffer.entity][index] = buffer
        key = key_of(buffer.entity)
        self._buffers_of[key] = self._buffers_of.get(key, 0) + 1
        heapq.heappush(self._due, (buffer.keep_until, next(self._numbers), buffer))

    def _drop(self, buffer: Buffer) -> None:
        number, index = self._series[buffer.series.id]
        buffers = self._buffers[number][buffer.entity]
        buffers[index] = None
        if all(sibling is None for sibling in buffers):
            del self._buffers[number][buffer.entity]
        key = key_of(buffer.entity)
        self._buffers_of[key] -= 1
        if not self._buffers_of[key]:
            del self._buffers_of[key]
        buffer.live = False
        self._mark([buffer])


def _is_named(entity: tuple[Any, ...], is_meant: Callable[[str], bool]) -> bool:
    return any(type(part) is str and is_meant(part) for part in entity)
