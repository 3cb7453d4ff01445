"""The declaration of a user: one `Pipeline`, checked as a whole when it is made.

Every mistake is found at once, each with its path, what was expected and what was given.
Design: the declaration is data. What follows from it (codecs, feature set, target) is made here,
once, and shared by every stage.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stream_ml.checks import (
    are_categories,
    duration_or_zero,
    duration_problems,
)
from stream_ml.codec import EventCodec, LabelCodec
from stream_ml.errors import BadRecord, DeclarationError, Problem
from stream_ml.evaluation.contest import Rules
from stream_ml.evaluation.evidence import RENEWAL
from stream_ml.features import FeatureSet, any_of, duration_text, parse_duration
from stream_ml.features.sparse import name_set
from stream_ml.files import Files, file_problems, file_texts
from stream_ml.generation import FIRST
from stream_ml.label import Label, fallback_answer, label_problems, label_texts, target_of
from stream_ml.models.pickles import RIVER_VERSION
from stream_ml.models.probe import misses
from stream_ml.models.recipes import Recipe, Target
from stream_ml.monitoring.declaration import Monitors, monitor_problems, monitor_texts
from stream_ml.routes import Alerts, alert_problems, route_texts
from stream_ml.schema import (
    FieldType,
    field_type,
    is_finite_number,
    is_text,
    is_whole_number,
    range_problems,
    short_repr,
)
from stream_ml.slices import Slicing, slice_problems, slice_texts
from stream_ml.task_names import PipelineName
from stream_ml.tasks import Task, task_files, task_problems, task_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ml.features import Feature
    from stream_ml.features.feature_view import FeatureView
    from stream_ml.generation import Generation
    from stream_ml.records import Event
    from stream_ml.slices import Slice, SliceBy

__all__ = ["Events", "Pipeline", "Promotion", "When", "when"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# Names that mean something else wherever a line's name is shown.
RESERVED_NAMES = frozenset({"live", "served", "predecessor", "first", "prior", "last", "mean"})
MODES = ("automatic", "ask", "gated", "manual")
ON_CHANGE = ("refresh", "alert")
HARM_ANSWERS = ("switch", "fall back", "ask", "alert")
ON_FAULT = ("pause promotions", "pause refreshes", "pause", "alert")
ON_FAILURE = ("restart", "restore", "alert")
WORDS = {
    "mode": MODES,
    "on_change": ON_CHANGE,
    "on_harm": HARM_ANSWERS,
    "on_fault": ON_FAULT,
    "on_failure": ON_FAILURE,
}
LEARN_TASKS = ("one", "line")
TOO_LATE = ("refused", "topic")
ROLLBACK_LOSS = 0.02
BREADTH_MAX = 64
GUARD_LABELS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Events:
    """The events: which member is the key, the time and the id, and the declared fields.

    Args:
        key: the member that names the entity; events of one key stay in order.
        fields: name to type: `float`, `int`, `str`, `bool`, `Enum(...)`, `Optional[...]`.
        time: the member that holds the event time, in UTC milliseconds.
        id: the member that names the event; a second event of the same id is refused.
        lateness: how much older than its partition's watermark an event may be.
        skew: how much later than its arrival an event's (or label's) time may be.
        breadth: how many keys must have come as far for a watermark to follow (1 to 64): fewer
            wrong clocks than that close nothing for others. The watermark lags by so many keys
            less one; with 1, the newest event alone leads it. See docs/time.md.
        idle: after how long without a prediction a partition of events holds up no more what
            waits in the others' joins (by the time of arrival), nor what waits for it in predict
            with a `delay`.
        window_lateness: how much older than the watermark an event may be that only feeds windows
            and gets no prediction; None: as `lateness`, beyond which all are refused.
        too_late: what becomes of an event that is older than that: it is "refused", as a dead
            letter, or goes to the "topic" `late-events`. See docs/time.md.
    """

    key: str
    fields: Mapping[str, Any]
    time: str = "ts"
    id: str = "event_id"
    lateness: str | int = "1m"
    skew: str | int = "5m"
    breadth: int = 3
    idle: str | int = "1h"
    window_lateness: str | int | None = None
    too_late: str = "refused"


@dataclass(frozen=True, slots=True)
class When:
    """Which events ask for a prediction: those whose fields have these values."""

    equals: dict[str, tuple[Any, ...]]


def when(**equals: Any) -> When:
    """Events whose fields have these values; a tuple (a list, a set) means any of them.

    >>> when(kind="scheduled")
    When(equals={'kind': ('scheduled',)})
    """
    return When({name: any_of(values) for name, values in equals.items()})


@dataclass(frozen=True, slots=True)
class Promotion:
    """How models are renewed, and when a challenger replaces the champion.

    Args:
        mode: `automatic` replaces on evidence; `gated` lets an operator promote, and only what
            the evidence suffices for; `ask` proposes that besides, until it lapses; `manual` lets
            an operator promote any shadow.
        refresh: how often each line publishes a snapshot: event time (`"1d"`) or a number of
            examples. Before that cadence is reached, at 500, 1,000, 2,000, 4,000 ... examples.
        block: the unit of evidence, one vote each: event time (at least as long as luck is
            shared: predictions of one day share its weather) or a number of labels.
        alpha: the chance that an equal challenger ever replaces the champion by what is staked at
            a reign's first vote, however often one looks, divided among `slots` challengers.
        slots: how many challengers there may be.
        renewal: in how many votes of a reign `alpha` may be spent once more, so that what a
            challenger lost long ago does not hold it up for ever; None: once in a reign.
        gain_min: how much better per example (Brier, or absolute error) it must be at least.
        coverage_min: the least share of examples that a challenger must have answered.
        block_pairs_min: a block of time with fewer pairs does not vote.
        maturity: how long after its end a block waits for labels; default the label's horizon.
        rollback_loss: how much worse per example than its predecessor what serves may be in one
            guarded block. Default 0.02 of Brier; none for regression, whose unit is yours.
        guard_block: the block that the guard judges: event time or a number of labels. With a
            refresh shorter than this and `maturity` together, it judges every replacement but only
            some of the refreshes against their predecessors.
        on_harm: the answer to gross harm, two guard blocks running in which what serves lost more
            than `rollback_loss` against one model or baseline: `switch` to the best healthy model,
            `fall back` to the label's fallback, `ask` an operator to switch, or only `alert`.
        slice_margin: what share more than the champion a challenger may lose on a declared slice.
        divergence: the champion's line is not renewed while its live learner is worse than what
            serves, over the same examples, by more than this (Brier, or mean absolute error as a
            share of the served one's) and by more than noise explains. Other lines are.
        on_change: what is done when the loss of what is served has grown: `refresh` renews all
            lines sooner, 100, 200, 400, ... examples after that was detected, until `refresh` is
            reached again; `alert` only tells (the alert `loss_change`, which comes either way).
        on_fault: what stands still while a fault of the pipeline lasts (the alerts `data_fault`,
            `label_outage`, `event_outage`, and much of the events refused): `pause promotions`,
            `pause refreshes`, `pause` for both, or nothing, but the `alert` itself.
        on_failure: what is done with a line that has failed or diverged, or publishes nothing
            sound, at `refusals` refreshes running: `restart` it, from nothing; `restore` it, from
            the snapshot that it has in the serving set (its learners are kept for that, three at
            most); or only `alert`.
        refusals: at how many refreshes; twice as many before each further restart of the line.
        settle: how many labels a line must learn before it may serve; until then, and until it does
            no worse than the prior, `Label(fallback=...)` is served, or else the running prior,
            marked `fallback`. 0: none. Default: until each class was seen 30 times, 5,000 labels at
            most (a number: 100 labels) where a fallback is declared, and 0 where none is.
        first: the champion's snapshot at the first refresh from this many examples on shadows
            for good, never updated: what the models would be worth without learning on.
    """

    mode: str = "automatic"
    refresh: str | int = "1d"
    block: str | int = "3d"
    alpha: float = 0.05
    renewal: int | None = RENEWAL
    slots: int = 3
    gain_min: float = 0.0
    coverage_min: float = 0.9
    block_pairs_min: int = 50
    maturity: str | int | None = None
    rollback_loss: float | None = None
    guard_block: str | int = "1d"
    on_harm: str = "switch"
    slice_margin: float = 0.1
    divergence: float = 0.005
    on_change: str = "refresh"
    on_fault: str = "alert"
    on_failure: str = "alert"
    refusals: int = 3
    settle: int | None = None
    first: int = 500


@dataclass(frozen=True)
class Pipeline:
    """A whole declaration; README has one that runs.

    Args:
        name: of the pipeline; on a cluster the prefix of its topics.
        events: what comes in.
        features: what models see, in the order in which it is logged.
        label: the truth, and how late it may be.
        models: name to river estimator, or `Learner`; each name is a *line* that goes on
            learning.
        champion: the line that serves first; the others are its challengers.
        predict: which events ask for a prediction; default all.
        promotion: how models are renewed.
        alerts: where alerts go, beside the log.
        pending_max: how many predictions (and labels) may wait in a partition for their label
            (prediction); the oldest are dropped, counted and alerted.
        window_events_max: how many events a window's buffer may hold; the oldest are dropped.
        keep: how many snapshots of a line that never served are kept.
        monitors: how the data is watched; None: not at all.
        slices: parts of the events by which models are scored, and may not be worse.
        learn_tasks: `one` task teaches all lines; or each `line` is a task of its own, with a
            state of its own: on a cluster they are spread over the workers of learn.
        files: how files write events and labels.
        retired: features that models of before know, and those that begin now do not: computed as
            long as they are declared. See docs/changes.md.
        tasks: further truths about the same events, each learned by lines of its own. See
            docs/truth.md.

    Raises:
        DeclarationError: something in it is wrong; every problem is listed.
    """

    name: str
    events: Events
    features: Sequence[Feature]
    label: Label
    models: Mapping[str, Any]
    champion: str
    predict: When | None = None
    promotion: Promotion = field(default_factory=Promotion)
    alerts: Alerts = field(default_factory=Alerts)
    pending_max: int = 1_000_000
    window_events_max: int = 100_000
    keep: int = 20
    monitors: Monitors | None = field(default_factory=Monitors)
    slices: Sequence[Slice | SliceBy] = ()
    learn_tasks: str = "one"
    files: Files = field(default_factory=Files)
    retired: Sequence[Feature] = ()
    tasks: Sequence[Task] = ()

    def __post_init__(self) -> None:
        problems = list(_problems(self)) or list(_missing_problems(self))
        if problems:
            raise DeclarationError(f"pipeline {short_repr(self.name)}", problems)
        # Now, not when first asked: what was given may be changed, and models trained, meanwhile.
        _ = self.recipes, self.feature_set, self.rules, self.slicing, self._conditions
        _ = self.task_pipelines

    @cached_property
    def task_pipelines(self) -> Mapping[str, Pipeline]:
        """The pipelines that the tasks are, by the names of the tasks."""
        pipelines = {task.name: _task_pipeline(self, task) for task in self.tasks}
        of_all = [self, *pipelines.values()]
        for each in pipelines.values():
            others = [other for other in of_all if other is not each]
            each.__dict__["other_labels"] = frozenset(other.files.label for other in others)
            each.__dict__["other_label_times"] = _label_times(others)
        return pipelines

    @cached_property
    def other_labels(self) -> frozenset[str]:
        """The columns of files that hold the labels of other tasks of the pipeline."""
        return frozenset(each.files.label for each in self.task_pipelines.values())

    @cached_property
    def other_label_times(self) -> frozenset[str]:
        """The columns of files that hold when the labels of other tasks were known."""
        return _label_times(self.task_pipelines.values())

    @cached_property
    def schema(self) -> dict[str, FieldType]:
        """The declared fields by name."""
        return {name: field_type(kind) for name, kind in self.events.fields.items()}

    @cached_property
    def lateness_ms(self) -> int:
        """How much older than its partition's watermark an event may be."""
        return duration_or_zero(self.events.lateness)

    @cached_property
    def window_lateness_ms(self) -> int:
        """How much older than its partition's watermark an event may be that feeds windows."""
        late = self.events.window_lateness
        return self.lateness_ms if late is None else duration_or_zero(late)

    @property
    def extra_topics(self) -> tuple[str, ...]:
        """The topics that it has beside those of all pipelines, by their names in the catalogue."""
        late = ("late-events",) if self.events.too_late == "topic" else ()
        return late if self.feature_set.delay_ms is None else (*late, "entities")

    @cached_property
    def skew_ms(self) -> int:
        """How much later than its arrival a record's time may be."""
        return duration_or_zero(self.events.skew)

    @cached_property
    def idle_ms(self) -> int:
        """After how long a silent partition of events holds up nothing more."""
        return parse_duration(self.events.idle)

    @cached_property
    def horizon_ms(self) -> int:
        """How long after its event a label may be joined."""
        return self.label.horizon_ms

    @cached_property
    def refresh_ms(self) -> int | None:
        """The refresh cadence in event time; None where it is counted in examples."""
        refresh = self.promotion.refresh
        return None if isinstance(refresh, int) else parse_duration(refresh)

    @cached_property
    def rules(self) -> Rules:
        """The evidence that is asked for, and the harm that is borne."""
        promotion, kind = self.promotion, self.target.kind
        is_count = isinstance(promotion.block, int)
        is_guard_count = isinstance(promotion.guard_block, int)
        bound = promotion.rollback_loss
        if bound is None and kind != "regression":
            bound = ROLLBACK_LOSS
        return Rules(
            kind=kind,
            block_ms=None if is_count else parse_duration(promotion.block),
            block_every=int(promotion.block) if is_count else 0,
            guard_block_ms=None if is_guard_count else parse_duration(promotion.guard_block),
            guard_block_every=int(promotion.guard_block) if is_guard_count else 0,
            maturity_ms=self.horizon_ms
            if promotion.maturity is None
            else duration_or_zero(promotion.maturity),
            pairs_min=promotion.block_pairs_min,
            slots=promotion.slots,
            alpha=promotion.alpha,
            gain_min=promotion.gain_min,
            rollback_loss=bound,
            renewal=promotion.renewal,
            slice_margin=promotion.slice_margin,
        )

    @cached_property
    def slicing(self) -> Slicing:
        """Tells the declared slices of an event."""
        return Slicing(self.slices, self.schema)

    @cached_property
    def target(self) -> Target:
        """The target of the predictions: its kind and its classes."""
        return target_of(field_type(self.label.type))

    @cached_property
    def fallback(self) -> Any:
        """The answer that is served while the champion has none."""
        return fallback_answer(self.label, self.target)

    @cached_property
    def settle_labels(self) -> int | None:
        """How many labels a line must learn before it may serve; None: of each class so many."""
        if self.promotion.settle is None and self.label.fallback is None:
            return 0
        return self.promotion.settle

    @cached_property
    def event_codec(self) -> EventCodec:
        """Reads this pipeline's events."""
        e = self.events
        return EventCodec(self.schema, event_id=e.id, time=e.time, key=e.key)

    @cached_property
    def label_codec(self) -> LabelCodec:
        """Reads this pipeline's labels."""
        return LabelCodec(field_type(self.label.type))

    @cached_property
    def feature_set(self) -> FeatureSet:
        """The features, ready to be computed."""
        return FeatureSet(
            self.features,
            self.schema,
            self.window_lateness_ms,
            self.window_events_max,
            self.retired,
        )

    @cached_property
    def generation(self) -> Generation:
        """What goes on of former declarations, where features were changed in flight."""
        return FIRST

    def running_as(self, generation: Generation) -> Pipeline:
        """This declaration as it runs on a log whose features were changed in flight.

        Args:
            generation: what the registry says.
        """
        if generation.versions:
            generation = generation.with_recipes(self.declaration())
        if generation == self.generation:
            return self
        running = copy.copy(self)
        for name in ("recipes", "_former_views", "_whole_view", "known_features", "former_recipes"):
            running.__dict__.pop(name, None)
        running.__dict__["generation"] = generation
        _ = running.recipes
        return running

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The lines by the names that they run under, the declared champion's first."""
        declared = [self.champion, *(name for name in self.models if name != self.champion)]
        names = self.generation.names
        lines = [(names.get(name, name), name, self.feature_set.view.names) for name in declared]
        # One whose recipe is not declared any more cannot go on: where it serves, that is refused.
        former = [line for line in self.generation.former if line.declared in self.models]
        lines += [(line.name, line.declared, line.features) for line in former]
        return {
            name: Recipe(name, self.models[declared_name], self.target, features)
            for name, declared_name, features in lines
        }

    @cached_property
    def _former_views(self) -> dict[str, FeatureView]:
        """The features that models of former generations know, by their hash."""
        parts = [self.feature_set.part(names) for names in self.generation.views]
        return {
            part.hash: part
            for part in parts
            if part is not None and part.hash != self.feature_set.hash
        }

    def view(self, feature_hash: str) -> FeatureView:
        """The features that a snapshot knows; all of them, where it is of none that are known.

        Args:
            feature_hash: that it names.
        """
        return self._former_views.get(feature_hash, self._whole_view)

    def line_view(self, line: str) -> FeatureView:
        """The features that a line's learner knows.

        Args:
            line: by the name that it runs under.
        """
        names = self.recipes[line].features
        if names == self.feature_set.view.names:
            return self._whole_view
        part = self.feature_set.part(names)
        assert part is not None, f"the line {line!r} knows features that are not declared"
        return part

    @cached_property
    def _whole_view(self) -> FeatureView:
        """All features that are declared; records may have others, of a former generation."""
        view = self.feature_set.view
        is_whole = view.is_whole and self.known_features == self.feature_set.name_set
        return replace(view, is_whole=is_whole)

    def reader(self, line: str, feature_hash: str) -> tuple[Recipe | None, FeatureView]:
        """What reads a snapshot, None where its line is not declared, and the features it knows.

        Args:
            line: of the snapshot.
            feature_hash: that the snapshot names.
        """
        recipe = self.recipes.get(line) or self.former_recipes.get(line)
        view = self.view(feature_hash)
        if recipe is not None and recipe.features != view.names:
            recipe = replace(recipe, features=view.names)
        return recipe, view

    @cached_property
    def former_recipes(self) -> dict[str, Recipe]:
        """The recipes of former versions that are as declared, but for classes that came since."""
        if not self.generation.versions:
            return {}
        target, names = self.target, self.feature_set.view.names
        versions = self.generation.narrower_versions(self.declaration(), target.classes)
        return {
            each.name: Recipe(
                each.name, self.models[each.line], replace(target, classes=each.classes), names
            )
            for each in versions
        }

    @cached_property
    def known_features(self) -> frozenset[str]:
        """The names of all features that records may have, those of former generations too."""
        return name_set(itertools.chain(self.feature_set.names, *self.generation.views))

    @property
    def learn_task_lines(self) -> tuple[str | None, ...]:
        """The line of each task of learn, the champion's first; None: there is one for all."""
        return tuple(self.recipes) if self.learn_tasks == "line" else (None,)

    @cached_property
    def kind_field(self) -> str | None:
        """The field by which `predict` tells kinds of events apart; None where it names none."""
        equals = {} if self.predict is None else self.predict.equals
        return next((name for name in equals if self.schema[name].kind == "enum"), None)

    def wants_prediction(self, event: Event) -> bool:
        """Whether `event` asks for a prediction."""
        for name, values in self._conditions:  # noqa: SIM110 - asked of every event; `all` is slower
            if event.fields[name] not in values:
                return False
        return True

    def declaration(self) -> dict[str, str]:
        """All that matters of the declaration, as text by path: equal for equal declarations.

        It is kept with the state that is made under it; see `differences`.

        >>> from stream_ml.examples.cards import cards
        >>> cards.declaration()["events.key"]
        'card'
        """
        return {path: text for path, text in _declaration_texts(self) if text is not None}

    @cached_property
    def _conditions(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        return () if self.predict is None else tuple(self.predict.equals.items())


def _task_pipeline(p: Any, task: Task) -> Pipeline:
    """The pipeline that a task is.

    Raises:
        DeclarationError: it is declared wrongly.
    """
    name = PipelineName.of(p.name, task.name)
    files = task_files(task, p.files)
    pipeline: Pipeline = replace(p, **task_settings(task), name=name, files=files, tasks=())
    return pipeline


def _label_times(pipelines: Iterable[Pipeline]) -> frozenset[str]:
    times = (each.files.label_time for each in pipelines)
    return frozenset(time for time in times if time is not None)


def _declaration_texts(p: Pipeline) -> Iterator[tuple[str, str | None]]:
    """The texts of the declaration by path; None where there is nothing to say."""
    yield "name", p.name
    yield from _event_texts(p)
    yield "predict", _condition(p.predict)
    yield from p.feature_set.declaration()
    yield from label_texts(p.label, p.target)
    for name in sorted(p.models):
        recipe = p.recipes[p.generation.names.get(name, name)]
        yield f"models.{name}", recipe.description
        yield f"libraries.{name}", recipe.library
        if recipe.has_fixed_classes:
            yield f"classes.{name}", p.label_codec.kind.declaration()
    yield "champion", p.champion
    for member in fields(p.promotion):
        yield f"promotion.{member.name}", _promotion_text(p, member.name)
    yield from route_texts(p.alerts)
    for name in ("pending_max", "window_events_max", "keep"):
        yield name, str(getattr(p, name))
    yield "learn_tasks", p.learn_tasks
    yield from monitor_texts(p.monitors)
    yield from slice_texts(p.slices)
    yield from file_texts(p.files)
    yield from ((f"tasks.{name}", "declared") for name in p.task_pipelines)
    yield "river", RIVER_VERSION


def _event_texts(p: Pipeline) -> Iterator[tuple[str, str | None]]:
    for member in fields(p.events):
        value = getattr(p.events, member.name)
        if member.name == "fields":
            for name, kind in p.schema.items():
                yield f"events.fields.{name}", kind.declaration()
                if kind.range is not None:
                    yield f"events.ranges.{name}", kind.range.declaration()
        elif member.name in {"key", "time", "id"}:
            yield f"events.{member.name}", value
        elif member.name == "too_late":
            yield "events.too_late", None if value == TOO_LATE[0] else value
        else:
            is_count = member.name == "breadth"
            yield (
                f"events.{member.name}",
                None if value is None else _length(value, is_count=is_count),
            )


def _length(value: Any, *, is_count: bool) -> str:
    """A duration, or a number of things, however it was written."""
    if is_count or value == 0:
        return str(value)
    return duration_text(parse_duration(value))


def _condition(condition: When | None) -> str:
    if condition is None:
        return "every event"
    values_by_name = {name: sorted(values, key=repr) for name, values in condition.equals.items()}
    return ", ".join(
        f"{name}={'|'.join(map(repr, values))}" for name, values in sorted(values_by_name.items())
    )


def _promotion_text(p: Pipeline, name: str) -> str:
    value = getattr(p.promotion, name)
    if name in {"refresh", "block", "guard_block"}:
        return f"{value} examples" if isinstance(value, int) else _length(value, is_count=False)
    if name == "maturity":
        return _length(p.rules.maturity_ms, is_count=False)
    if name == "rollback_loss":
        return repr(None if p.rules.rollback_loss is None else float(p.rules.rollback_loss))
    numbers = {"alpha", "gain_min", "coverage_min", "divergence", "slice_margin"}
    return repr(float(value)) if name in numbers else str(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _problems(p: Any) -> Iterator[Problem]:
    """The mistakes in a pipeline, whose members a user may have given any values."""
    if not _is_name(p.name) and not isinstance(p.name, PipelineName):
        yield Problem("name", "lower-case letters, digits, - and _", short_repr(p.name))
    schema: dict[str, FieldType] = {}
    is_schema_valid, names = False, ["x", "y"]
    if isinstance(p.events, Events):
        yield from _schema_problems(p.events.fields, schema)
        field_types: Any = p.events.fields
        is_schema_valid = isinstance(field_types, Mapping) and len(schema) == len(field_types)
        yield from _event_problems(p.events, schema)
    else:
        yield Problem("events", "Events(key=..., fields={...})", short_repr(p.events))
    yield from _when_problems(p.predict, schema)
    yield from slice_problems(p.slices, schema)
    if not isinstance(p.features, list | tuple):
        is_set = isinstance(p.features, set | frozenset)
        expected = "a list of features" + (": a set has no order" if is_set else "")
        yield Problem("features", expected, short_repr(p.features))
    elif not p.features:
        yield Problem("features", "at least one feature", "none")
    elif not isinstance(p.retired, list | tuple):
        yield Problem("retired", "a list of features", short_repr(p.retired))
    elif is_schema_valid:
        problems = FeatureSet.check([*p.features, *p.retired], schema)
        yield from problems
        if not problems:
            names = [name for feature in p.features for name in feature.columns(schema)]
    yield from _model_problems(p, names)
    if isinstance(p.promotion, Promotion):
        challengers = len(p.models) - 1 if isinstance(p.models, Mapping) else 0
        yield from _promotion_problems(p.promotion, challengers)
    else:
        yield Problem("promotion", 'Promotion(refresh="1d", ...)', short_repr(p.promotion))
    yield from alert_problems(p.alerts)
    yield from _task_problems(p)
    yield from monitor_problems(p.monitors)
    yield from file_problems(p.files, p.events, schema)
    yield from _fault_problems(p)
    yield from _further_problems(p)


def _further_problems(p: Any) -> Iterator[Problem]:
    """The mistakes in the tasks: those in what each has for itself, the others are told already."""
    problems = [*task_problems(p.tasks, p.files)]
    yield from problems
    if problems:
        return
    for task in p.tasks:
        own = {*task_settings(task), "files.label" if task.files is None else "files"}
        try:
            _task_pipeline(p, task)
        except DeclarationError as error:
            for problem in error.problems:
                if own & {problem.path, re.split(r"[.\[]", problem.path)[0]}:
                    yield replace(problem, path=f"tasks.{task.name}.{problem.path}")


def _task_problems(p: Any) -> Iterator[Problem]:
    """The mistakes in what tasks hold, and in how they are cut."""
    for name in ("pending_max", "window_events_max", "keep"):
        value = getattr(p, name)
        if not (is_whole_number(value) and value > 0):
            yield Problem(name, "a whole number above 0", short_repr(value))
    if not (isinstance(p.learn_tasks, str) and p.learn_tasks in LEARN_TASKS):
        yield Problem("learn_tasks", f"one of {', '.join(LEARN_TASKS)}", short_repr(p.learn_tasks))


def _schema_problems(field_types: object, schema: dict[str, FieldType]) -> Iterator[Problem]:
    """The mistakes in the fields; those that are right are put into `schema`."""
    if not isinstance(field_types, Mapping):
        yield Problem(
            "events.fields", 'names with their types, as in {"x": float}', short_repr(field_types)
        )
        return
    for name, kind in field_types.items():
        path = f"events.fields.{name}"
        try:
            type_ = field_type(kind)
        except TypeError:
            yield Problem(path, "float, int, str, bool, Enum or Optional", short_repr(kind))
            continue
        problems = list(_field_problems(path, name, type_))
        yield from problems
        if is_text(name) and not (problems and type_.kind == "enum"):
            schema[name] = type_


def _field_problems(path: str, name: Any, kind: FieldType) -> Iterator[Problem]:
    if not is_text(name):
        yield Problem(path, "a name", short_repr(name))
    if kind.kind == "enum" and not are_categories(kind.categories):
        yield Problem(path, "an Enum of different strings", f"Enum{short_repr(kind.categories)}")
    elif kind.range is not None and (problems := list(range_problems(path, kind))):
        yield from problems
    elif kind.default is not None:
        try:
            kind.check(str(name), kind.default)
        except BadRecord:
            yield Problem(path, f"a default that is {kind}", short_repr(kind.default))


def _event_problems(events: Any, schema: Mapping[str, FieldType]) -> Iterator[Problem]:
    members = {name: getattr(events, name) for name in ("key", "time", "id")}
    for name, member in members.items():
        if not is_text(member):
            yield Problem(f"events.{name}", "the name of a member", short_repr(member))
    key = schema.get(events.key) if is_text(events.key) else None
    if key is not None and (key.kind not in {"str", "enum"} or key.optional):
        yield Problem("events.key", "a required field of type str or Enum", f"{events.key}: {key}")
    for name in ("time", "id"):
        if is_text(members[name]) and members[name] in schema:
            expected = "a member that is no declared field"
            yield Problem(f"events.{name}", expected, short_repr(members[name]))
    for name in ("key", "id"):  # they are strings, and a time is a number
        if is_text(members[name]) and is_text(events.time) and members[name] == events.time:
            expected = "another member than the time"
            yield Problem(f"events.{name}", expected, short_repr(members[name]))
    for name in ("lateness", "skew"):
        yield from duration_problems(f"events.{name}", getattr(events, name), duration_or_zero)
    yield from duration_problems("events.idle", events.idle)
    yield from _late_problems(events)
    if not (type(events.breadth) is int and 1 <= events.breadth <= BREADTH_MAX):
        yield Problem(
            "events.breadth", f"a whole number from 1 to {BREADTH_MAX}", repr(events.breadth)
        )


def _late_problems(events: Events) -> Iterator[Problem]:
    if events.too_late not in TOO_LATE:
        expected = f"one of {', '.join(TOO_LATE)}"
        yield Problem("events.too_late", expected, short_repr(events.too_late))
    path, late = "events.window_lateness", events.window_lateness
    if late is None:
        return
    problems = [*duration_problems(path, late, duration_or_zero)]
    yield from problems
    if problems or [*duration_problems(path, events.lateness, duration_or_zero)]:
        return
    if duration_or_zero(late) < duration_or_zero(events.lateness):
        expected = f"no less than lateness={events.lateness!r}"
        yield Problem(path, expected, short_repr(late))


def _when_problems(condition: object, schema: Mapping[str, FieldType]) -> Iterator[Problem]:
    if condition is None:
        return
    if not isinstance(condition, When):
        yield Problem("predict", 'a condition such as when(kind="order")', short_repr(condition))
        return
    for name, values in condition.equals.items():
        kind = schema.get(name)
        if not values:
            yield Problem(f"predict.{name}", "at least one value", "none")
        elif kind is None:
            yield Problem(f"predict.{name}", f"a field of {', '.join(schema)}", short_repr(name))
        else:
            yield from _value_problems(name, values, kind)


def _value_problems(name: str, values: tuple[Any, ...], kind: FieldType) -> Iterator[Problem]:
    for value in values:
        try:
            kind.check(name, value)
        except BadRecord:
            yield Problem(f"predict.{name}", str(kind), short_repr(value))


def _model_problems(p: Any, names: Sequence[str]) -> Iterator[Problem]:
    target, problems = label_problems(p.label)
    yield from problems
    if not isinstance(p.models, Mapping):
        yield Problem("models", "names with their estimators", short_repr(p.models))
        return
    for name, model in p.models.items():
        path = f"models.{name}"
        if not _is_name(name) or name in RESERVED_NAMES:
            expected = (
                f"lower-case letters, digits, - and _, not {', '.join(sorted(RESERVED_NAMES))}"
            )
            yield Problem(path, expected, short_repr(name))
        if target is not None:
            yield from _recipe_problems(name, model, target, (path, names))
    if not p.models:
        yield Problem("models", "at least one model", "none")
    elif not (isinstance(p.champion, str) and p.champion in p.models):
        yield Problem("champion", f"one of {', '.join(map(str, p.models))}", short_repr(p.champion))


def _recipe_problems(
    name: Any, model: Any, target: Target, location: tuple[str, Sequence[str]]
) -> list[Problem]:
    path, names = location
    try:
        return Recipe(name, model).check(target, path, names)
    except Exception as error:  # noqa: BLE001 - a user's object, which is copied, may raise anything
        return [
            Problem(path, "an estimator that can be copied and written down", short_repr(error))
        ]


def _missing_problems(p: Pipeline) -> Iterator[Problem]:
    """The models that cannot cope with missing features; asked where all else is right."""
    names = p.feature_set.view.names
    for name, recipe in p.recipes.items():
        path = f"models.{name}"
        yield from misses(recipe, p.target, names, p.feature_set.missing.intersection(names), path)


def _promotion_problems(promotion: Any, challengers: int) -> Iterator[Problem]:
    path = "promotion"
    yield from _length_problems(promotion, path)
    for name, words in WORDS.items():
        word = getattr(promotion, name)
        if not (isinstance(word, str) and word in words):
            yield Problem(f"{path}.{name}", f"one of {', '.join(words)}", short_repr(word))
    bounds: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "block_pairs_min": ("at least 1 example", lambda n: is_whole_number(n) and n >= 1),
        "first": ("at least 1 example", lambda n: is_whole_number(n) and n >= 1),
        "refusals": ("at least 1 refresh", lambda n: is_whole_number(n) and n >= 1),
        "settle": ("0 labels or more", lambda n: n is None or (is_whole_number(n) and n >= 0)),
        "divergence": ("0 or more", lambda x: is_finite_number(x) and x >= 0),
        "slice_margin": ("0 or more", lambda x: is_finite_number(x) and x >= 0),
        "gain_min": ("0 or more", lambda x: is_finite_number(x) and x >= 0),
        "coverage_min": ("from 0 to 1", lambda x: is_finite_number(x) and 0 <= x <= 1),
        "rollback_loss": ("0 or more", lambda x: x is None or (is_finite_number(x) and x >= 0)),
        "alpha": ("between 0 and 1", lambda x: is_finite_number(x) and 0 < x < 1),
        "renewal": ("at least 1 vote", lambda n: n is None or (is_whole_number(n) and n >= 1)),
        "slots": (
            f"at least {max(1, challengers)}, one for each challenger",
            lambda n: is_whole_number(n) and n >= max(1, challengers),
        ),
    }
    for name, (expected, holds) in bounds.items():
        value = getattr(promotion, name)
        if not holds(value):
            yield Problem(f"{path}.{name}", expected, short_repr(value))


def _fault_problems(p: Any) -> Iterator[Problem]:
    on_fault = getattr(p.promotion, "on_fault", "alert")
    if p.monitors is None and on_fault != "alert":
        expected = "alert, where no monitors are declared: only they see faults"
        yield Problem("promotion.on_fault", expected, short_repr(on_fault))


def _length_problems(promotion: Any, path: str) -> Iterator[Problem]:
    for name in ("refresh", "block", "guard_block"):
        value = getattr(promotion, name)
        if type(value) is not int:  # True is an int to Python, and no number of examples
            yield from duration_problems(f"{path}.{name}", value)
        elif not (is_whole_number(value) and value >= 1):
            yield Problem(f"{path}.{name}", "at least 1 example", short_repr(value))
        elif name == "guard_block" and value > GUARD_LABELS_MAX:
            # Of a former release it was milliseconds: a guard that never judges would be silent.
            expected = f'up to {GUARD_LABELS_MAX:,} labels, or a duration such as "1d"'
            yield Problem(f"{path}.{name}", expected, short_repr(value))
    if promotion.maturity is not None:
        yield from duration_problems(f"{path}.maturity", promotion.maturity, duration_or_zero)
