"""Changes of a declaration under which a log has state: which are allowed, and their effects.

State, models and decisions were made under one declaration. Going on under another one is right
where nothing that is kept depends on what was changed (it is taken up, and told), and wrong where
something does: then nothing is touched, and whoever changed it is told what differs and the way
out. `RULES` says which, of every part, and why; `docs/changes.md` is the same for people.

Both declarations are compared as `Pipeline.declaration` gives them: text by path. A path that only
one release of this package knows is no difference, and what was written before declarations were
kept with state has none to compare with.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from stream_ml.errors import UsageError
from stream_ml.features.durations import parse_duration
from stream_ml.features.words import feature_words

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

__all__ = [
    "CLASSES_PATH",
    "RULES",
    "Difference",
    "Effect",
    "LineStanding",
    "accepted_changes",
    "as_applied",
    "differences",
    "fold_differences",
    "planned_differences",
]

# A change holds from the next start on, or from when it is applied (`relearn`: that of a line,
# which has to learn what is recorded), or it is refused.
Effect = Literal["now", "apply", "relearn", "refused"]

# The paths of the classes that lines have learned, of lines that learn no others.
CLASSES_PATH = "classes."

# Values of paths may be long (a tree has twenty parameters); of those the part that differs.
TEXT_LENGTH_MAX = 160
TEXT_LENGTH_BEFORE = 40
TEXT_LENGTH_AFTER = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One part of a declaration that is another than it was; None where it is not declared.

    Attributes:
        path: of the part.
        old: its text under the declaration that the state was made under.
        new: its text now.
        effect: what a start under the new one does about it.
        reason: why, or what that means.
    """

    path: str
    old: str | None
    new: str | None
    effect: Effect
    reason: str

    @property
    def is_accepted(self) -> bool:
        """Whether it is taken up at a start."""
        return self.effect == "now"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "was": self.old,
            "is": self.new,
            "effect": self.effect,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        old, new = (_readable(self.path, text) for text in (self.old, self.new))
        if old == new:  # what differs is in no words
            old, new = self.old, self.new
        old, new = _excerpts(old, new)
        if self.is_accepted:
            return f"{self.path}: was {old}, is {new}; {self.reason}"
        return f"{self.path}: expected {old}, given {new}; {self.reason}"


@dataclass(frozen=True, slots=True)
class Rule:
    """The meaning of a change of some part: whether it is taken up, and what that does.

    Attributes:
        accepts: whether a start takes it up.
        reason: why, or what it means.
        effect: its effect where it is taken up.
        otherwise: its effect where it is not.
    """

    accepts: Callable[[str | None, str | None], bool]
    reason: str
    effect: Effect = "now"
    otherwise: Effect = "refused"


def _accept_any(_old: str | None, _new: str | None) -> bool:
    return True


def _accept_none(_old: str | None, _new: str | None) -> bool:
    return False


def _is_addition(old: str | None, _new: str | None) -> bool:
    return old is None


def _is_retrained_addition(old: str | None, new: str | None) -> bool:
    return old is None and new is not None and new.startswith("stream_ml.Retrained(")


def _is_removal(_old: str | None, new: str | None) -> bool:
    return new is None


def _is_increase(old: str | None, new: str | None) -> bool:
    return old is not None and new is not None and int(new) >= int(old)


def _is_longer(old: str | None, new: str | None) -> bool:
    """Whether a length of time is no shorter than it was."""
    if old is None or new is None:
        return False
    old_ms, new_ms = (0 if text == "0" else parse_duration(text) for text in (old, new))
    return new_ms >= old_ms


def _is_widening(old: str | None, new: str | None) -> bool:
    """Whether every value that the former type of a field took is taken by the present one."""
    if old is None or new is None:
        return False
    return new == f"Optional({old})" or (
        old.startswith("Enum(") and new.startswith(f"{old.removesuffix(')')}, ")
    )


def _classes(text: str | None) -> list[str]:
    """The classes of a label; none where it is no `Enum`.

    >>> _classes("Enum('a', 'b')"), _classes("bool")
    (['a', 'b'], [])
    """
    if text is None or not text.startswith("Enum("):
        return []
    return [*ast.literal_eval(f"[{text.removeprefix('Enum(').removesuffix(')')}]")]


def _has_more_classes(old: str | None, new: str | None) -> bool:
    """Whether a label has its former classes first, in their order, and others behind them."""
    former, present = _classes(old), _classes(new)
    return bool(former and present) and present[: len(former)] == former


def _lacks_classes(old: str | None, new: str | None) -> bool:
    former, present = _classes(old), _classes(new)
    return bool(former and present) and not {*present} >= {*former}


def _has_other_order(old: str | None, new: str | None) -> bool:
    former, present = _classes(old), _classes(new)
    return bool(former and present) and {*present} >= {*former}


def _is_count(old: str | None, new: str | None) -> bool:
    """Whether only another number of values of a field is told apart."""
    return all(text is not None and text.endswith(" most frequent values") for text in (old, new))


WINDOW_LATENESS_PATH = "events.window_lateness"
TOO_LATE_PATH = "events.too_late"
_RETENTION = "what waits and the ids that are known were kept by it"
_APPLIED = (
    "all lines begin anew, are taught what is recorded, and shadow then",
    "lines that begin anew do not know it",
)
_BY_APPLY = "`stream-ml apply` brings it about"

# By path, of which the first that fits holds; of several of one path the first that is so. `*`
# stands for a name.
RULES: tuple[tuple[str, Rule], ...] = (
    ("name", Rule(_accept_none, "a log is one pipeline's")),
    ("events.key", Rule(_accept_none, "windows are kept, and partitions chosen, by key")),
    ("events.time", Rule(_accept_any, "events from now on have their time there")),
    ("events.id", Rule(_accept_none, "the ids that are known are of that member")),
    ("events.fields.*", Rule(_is_addition, "events from now on have it")),
    ("events.fields.*", Rule(_is_removal, "it is passed over from now on")),
    ("events.fields.*", Rule(_is_widening, "events from now on may have more values in it")),
    (
        "events.fields.*",
        Rule(_accept_none, "windows, and what models have learned, are of that type"),
    ),
    ("events.ranges.*", Rule(_accept_any, "events from now on are judged by it")),
    (
        "events.lateness",
        Rule(
            _is_longer,
            "events from now on may be so late; those that were too late already still are",
        ),
    ),
    ("events.lateness", Rule(_accept_none, _RETENTION)),
    (
        "events.window_lateness",
        Rule(
            _is_longer,
            "events from now on may be so late and feed windows; those that were too late already "
            "still are",
        ),
    ),
    ("events.window_lateness", Rule(_accept_none, _RETENTION)),
    (TOO_LATE_PATH, Rule(_accept_any, "events that come too late from now on go there")),
    ("events.*", Rule(_accept_none, _RETENTION)),
    ("predict", Rule(_accept_any, "predictions from now on are about these events")),
    ("code.*", Rule(_accept_any, "if its answers changed, raise its `version`")),
    ("features", Rule(_accept_any, f"{_BY_APPLY}: all lines begin anew", "apply")),
    ("features.*", Rule(_is_addition, f"{_BY_APPLY}: all lines begin anew with it", "apply")),
    (
        "features.*",
        Rule(_accept_any, f"{_BY_APPLY}, once no line that serves has learned from it", "apply"),
    ),
    ("retired.*", Rule(_is_addition, f"{_BY_APPLY}: only what serves knows it", "apply")),
    (
        "retired.*",
        Rule(_accept_any, f"{_BY_APPLY}, once no line that serves has learned from it", "apply"),
    ),
    ("windows", Rule(_accept_none, "the events in windows were kept by it")),
    (
        "label.type",
        Rule(
            _has_more_classes,
            "labels from now on may be of more classes; those that came before are dead letters, "
            "which `stream-ml dead-letters redrive` publishes again",
        ),
    ),
    (
        "label.type",
        Rule(
            _lacks_classes,
            "labels, scores and what models have learned are of the classes that it had: leave "
            "them declared, which costs nothing where none comes any more",
            effect="refused",
        ),
    ),
    (
        "label.type",
        Rule(
            _has_other_order,
            "scores and learners know classes by their place: leave those that it had in their "
            "order, and declare others behind them",
            effect="refused",
        ),
    ),
    ("label.type", Rule(_accept_none, "models, scores and labels that wait are of that type")),
    (
        "classes.*",
        Rule(
            _accept_none,
            "the line's learner has one output for each class: a new version of it has to learn "
            "what is recorded: apply it while the workers run as they did",
            otherwise="relearn",
        ),
    ),
    ("label.fallback", Rule(_accept_any, "it is served from now on")),
    (
        "label.horizon",
        Rule(
            _is_longer,
            "predictions that wait now, and from now on, wait so long; what has waited its time "
            "does not wait again",
        ),
    ),
    ("label.horizon", Rule(_accept_none, _RETENTION)),
    (
        "label.window",
        Rule(_accept_any, "predictions that wait now, and from now on, wait so long for a label"),
    ),
    ("label.absent", Rule(_accept_any, "it is what silence means from now on")),
    (
        "label.corrections",
        Rule(_accept_any, "labels may be corrected for so long, those that stand too"),
    ),
    ("label.relearn", Rule(_accept_any, "it holds from the next correction on")),
    ("label.sources", Rule(_accept_any, "it holds from the next label on")),
    ("label.trusted", Rule(_accept_any, "sources are compared with its labels, former ones too")),
    ("label.*", Rule(_accept_none, _RETENTION)),
    (
        "models.*",
        Rule(
            _is_retrained_addition,
            "its window begins empty: it is trained on what comes from now on, and shadows then",
        ),
    ),
    ("models.*", Rule(_is_addition, "it is taught what is recorded, and shadows then")),
    (
        "models.*",
        Rule(
            _is_removal,
            "it learns no more, and shadows until the next refresh",
        ),
    ),
    (
        "models.*",
        Rule(
            _accept_none,
            "a new version of the line has to learn what is recorded: apply it while the workers "
            "run as they did",
            otherwise="relearn",
        ),
    ),
    (
        "tasks.*",
        Rule(_is_addition, "it begins with the first event that is kept, as a new pipeline does"),
    ),
    (
        "tasks.*",
        Rule(
            _accept_any,
            "it predicts and learns no more; its topics and state stay, and no events are kept "
            "for it",
        ),
    ),
    (
        "champion",
        Rule(_accept_any, "it says who serves first; what serves now stays until it is replaced"),
    ),
    ("promotion.mode", Rule(_accept_any, "it holds from the next decision on")),
    ("promotion.refresh", Rule(_accept_any, "it holds from the next example on")),
    ("promotion.on_change", Rule(_accept_any, "it holds from the next change on")),
    ("promotion.block", Rule(_accept_any, "evidence starts anew, in blocks of it")),
    ("promotion.maturity", Rule(_accept_any, "the blocks that are open close by it")),
    ("promotion.slice_margin", Rule(_accept_any, "what is known of slices starts anew by it")),
    ("promotion.guard_block", Rule(_accept_any, "the guard begins anew, with a block of it")),
    (
        "promotion.first",
        Rule(_accept_any, "it holds where no snapshot shadows as `first` yet, and for the guard"),
    ),
    ("promotion.renewal", Rule(_accept_any, "it holds from the next vote on")),
    ("promotion.settle", Rule(_accept_any, "it holds from the next label on")),
    ("promotion.on_fault", Rule(_accept_any, "it holds from now on, also of what is a fault now")),
    ("promotion.on_failure", Rule(_accept_any, "it holds from the next refresh on")),
    ("promotion.refusals", Rule(_accept_any, "it holds from the next refresh on")),
    ("promotion.on_harm", Rule(_accept_any, "it holds from the next guard block on")),
    (
        "promotion.rollback_loss",
        Rule(_accept_any, "it holds from the guard block that ends next on"),
    ),
    ("promotion.*", Rule(_accept_any, "it holds from the next decision on")),
    ("alerts.routes.*", Rule(_accept_any, "alerts go there from now on")),
    ("pending_max", Rule(_accept_any, "it holds from the next record on")),
    ("window_events_max", Rule(_is_increase, "windows may hold more from now on")),
    ("window_events_max", Rule(_accept_none, "windows hold up to so many already")),
    (
        "learn_tasks",
        Rule(_accept_none, "learners are kept, and taken over, task by task"),
    ),
    ("keep", Rule(_accept_any, "it holds from the next refresh on")),
    ("slices.*", Rule(_is_addition, "predictions from now on are told apart by it")),
    ("slices.*", Rule(_is_removal, "its scores are dropped")),
    ("slices.*", Rule(_is_count, "the values that are told apart are chosen anew")),
    ("slices.*", Rule(_accept_none, "its scores are of what it was; give it another name")),
    ("files.*", Rule(_accept_any, "files are read so from now on")),
    ("monitors.*", Rule(_accept_any, "it holds from the next block on")),
    (
        "libraries.*",
        Rule(
            _accept_none,
            "another release reads no learners of this one: install it again, or apply a new "
            "version of the line, which has to learn what is recorded",
            otherwise="relearn",
        ),
    ),
    (
        "river",
        Rule(_accept_none, "another release reads no learners of this one: install it again"),
    ),
)

_FOLD_PATHS = (
    "events.",
    "label.horizon",
    "label.type",
    "label.window",
    "label.absent",
    "label.corrections",
    "label.sources",
    "predict",
    "code.",
    "pending_max",
    "window_events_max",
)

# A part that is one of several by name may be missing on one side; anywhere else a path
# that only one side has is of another release of this package.
_COLLECTIONS = (
    "events.fields.",
    "events.ranges.",
    "features.",
    "retired.",
    "code.",
    "models.",
    "alerts.routes.",
    "slices.",
    "tasks.",
    "files.",
)


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    """The parts of a declaration that were changed, in the order in which they are declared now.

    >>> [str(change) for change in differences({"keep": "20"}, {"keep": "5"})]
    ['keep: was 20, is 5; it holds from the next refresh on']

    Args:
        old: what the state was made under: text by path, as `Pipeline.declaration` gives it.
        new: the declaration of today, likewise.
    """
    if not old:
        return []
    # Former releases knew one way only, and did not say so.
    old = {"learn_tasks": "one", **_implied_classes(old, new), **old}
    if WINDOW_LATENESS_PATH in old or WINDOW_LATENESS_PATH in new:
        old, new = _with_window_lateness(old), _with_window_lateness(new)
    if TOO_LATE_PATH in old or TOO_LATE_PATH in new:
        refused = {TOO_LATE_PATH: "refused"}
        old, new = {**refused, **old}, {**refused, **new}
    paths = [*new, *(path for path in old if path not in new)]
    changes = [
        _difference(path, old.get(path), new.get(path))
        for path in paths
        if old.get(path) != new.get(path)
        if (path in old and path in new) or path.startswith(_COLLECTIONS)
    ]
    features = {
        change.path for change in changes if change.path.startswith(("features.", "retired."))
    }
    # They say it better than the list of all names, what is kept for their sake, or their code.
    implied_paths = {
        "features",
        "windows",
        *(f"code.{path.partition('.')[2]}" for path in features),
    }
    return [change for change in changes if not features or change.path not in implied_paths]


def _with_window_lateness(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts, where none is said with the lateness of all events as that of windows."""
    return {WINDOW_LATENESS_PATH: texts.get("events.lateness", "0"), **texts}


def _implied_classes(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The classes of lines of a former release, which did not say whose they are."""
    label = old.get("label.type", "")
    return {
        path: label
        for path in new
        if path.startswith(CLASSES_PATH) and f"models.{path.removeprefix(CLASSES_PATH)}" in old
        if _classes(label)
    }


def _difference(path: str, old: str | None, new: str | None) -> Difference:
    fitting = next((pattern for pattern, _ in RULES if _fits(pattern, path)), None)
    assert fitting is not None, f"no rule says what a change of {path} means"
    rules = [rule for pattern, rule in RULES if pattern == fitting]
    # The last rule of a pattern holds whatever was changed.
    rule = next((rule for rule in rules if rule.accepts(old, new)), rules[-1])
    effect: Effect = rule.effect if rule.accepts(old, new) else rule.otherwise
    return Difference(path, old, new, effect, rule.reason)


def _fits(pattern: str, path: str) -> bool:
    prefix, star, suffix = pattern.partition("*")
    if not star:
        return pattern == path
    return path.startswith(prefix) and path.endswith(suffix)


def fold_differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The parts that differ of those that say what events, predictions and labels lead to.

    What was folded under the one cannot be folded again under the other.

    >>> old = {"predict": "every event", "keep": "3"}
    >>> fold_differences(old, {"predict": "kind='visit'", "keep": "4"})
    ['predict']

    Args:
        old: what the state was made under: text by path, as `Pipeline.declaration` gives it.
        new: the declaration of today, likewise.
    """
    paths = [change.path for change in differences(old, new)]
    return [path for path in paths if path.startswith(_FOLD_PATHS)]


@dataclass(frozen=True, slots=True)
class LineStanding:
    """How the declared lines stand on a log.

    Attributes:
        quarantined: those that learn no more, whose recipes may be repaired.
        applied: those whose recipe of today was applied.
        serving: the one that serves, or a version of which does; None: nothing serves yet.
    """

    quarantined: Collection[str] = ()
    applied: Collection[str] = ()
    serving: str | None = None


def planned_differences(
    old: Mapping[str, str], new: Mapping[str, str], standing: LineStanding
) -> list[Difference]:
    """As `differences`, with what follows from how the lines stand on the log.

    Args:
        old: the declaration that the state was made under.
        new: the present one.
        standing: of the declared lines.
    """
    changes = differences(old, new)
    # A line that has to have more classes begins anew as a version, whatever befell it.
    widened = {each.path.removeprefix(CLASSES_PATH) for each in changes if _is_of_classes(each)}
    quarantined = [line for line in standing.quarantined if line not in widened]
    standing = replace(standing, quarantined=quarantined)
    return [_on_log(change, standing) for change in changes]


def _is_of_classes(change: Difference) -> bool:
    return change.path.startswith(CLASSES_PATH)


def _on_log(change: Difference, standing: LineStanding) -> Difference:
    part, _, line = change.path.partition(".")
    if part not in {"models", "libraries", "classes"}:
        return change
    if change.new is None and line == standing.serving:
        reason = "it serves; promote another line before it is taken out"
        return replace(change, effect="refused", reason=reason)
    if change.effect == "relearn" and line in standing.quarantined:
        reason = "its line was quarantined, and starts anew, from nothing"
        return replace(change, effect="now", reason=reason)
    if change.effect == "relearn" and line in standing.applied:
        reason = "its version of that recipe is taught what is recorded, and shadows then"
        return replace(change, effect="now", reason=reason)
    return change


def as_applied(changes: Iterable[Difference], applied_texts: Mapping[str, str]) -> list[Difference]:
    """Differences where a generation of features begins, or has begun, which brings them about.

    Args:
        changes: from the declaration that ran before it.
        applied_texts: the declaration that it begins with, text by path: a part that is another
            today was changed since, and goes by its own rule.
    """
    return [
        replace(change, effect="now", reason=_APPLIED[change.path.startswith("retired.")])
        if change.path.startswith(("features", "models.", CLASSES_PATH, "retired."))
        and change.new == applied_texts.get(change.path)
        else change
        for change in changes
    ]


def accepted_changes(
    old: Mapping[str, str],
    new: Mapping[str, str],
    log_name: str,
    restart_advice: str,
    quarantined_lines: Collection[str] = (),
    *,
    applied_texts: Mapping[str, str] | None = None,
    applied_lines: Collection[str] = (),
) -> list[str]:
    """The changes that are taken up, a sentence each.

    Args:
        old: the declaration that the state of `log_name` was made under.
        new: the present one.
        log_name: what messages call the log.
        restart_advice: how one begins anew there.
        quarantined_lines: lines that learn no more, whose recipes may be repaired.
        applied_texts: the declaration that a generation of features (`stream_ml.generation`)
            begins with, or has begun with; None or empty: there is none.
        applied_lines: lines whose recipes of today were applied.

    Raises:
        UsageError: something differs that cannot be taken up; all of it is listed.
    """
    standing = LineStanding(quarantined_lines, applied_lines)
    changes = planned_differences(old, new, standing)
    if applied_texts:
        changes = as_applied(changes, applied_texts)
    refusals = [str(change) for change in changes if not change.is_accepted]
    if refusals:
        count = "1 part" if len(refusals) == 1 else f"{len(refusals)} parts"
        is_applicable = "refused" not in {change.effect for change in changes}
        way_out = ", bring it about with `stream-ml apply`" if is_applicable else ""
        raise UsageError(
            "\n  ".join([f"{log_name} was made under another declaration, in {count}:", *refusals])
            + f"\nDeclare it as it was{way_out}, or {restart_advice}."
        )
    return [str(change) for change in changes]


def _readable(path: str, text: str | None) -> str | None:
    """A text as messages show it: features in words."""
    if text is None or not path.startswith(("features.", "retired.")):
        return text
    return feature_words(text)


def _excerpts(old: str | None, new: str | None) -> tuple[str, str]:
    """Both as messages show them: whole where they are short, else from where they differ."""
    first, second = ("nothing" if text is None else text for text in (old, new))
    common_length = next(
        (n for n, (x, y) in enumerate(zip(first, second, strict=False)) if x != y),
        min(len(first), len(second)),
    )
    begin = max(0, common_length - TEXT_LENGTH_BEFORE)
    return _excerpt(first, begin), _excerpt(second, begin)


def _excerpt(text: str, begin: int) -> str:
    if len(text) <= TEXT_LENGTH_MAX:
        return text
    end = begin + TEXT_LENGTH_BEFORE + TEXT_LENGTH_AFTER
    return f"{'...' if begin else ''}{text[begin:end]}{'...' if end < len(text) else ''}"
