"""What may be changed in a declaration under which a log has state, and what becomes of it.

State, models and decisions were made under one declaration. Going on under another one is right
where nothing that is kept depends on what was changed (it is taken up, and told), and wrong where
something does: then nothing is touched, and whoever changed it is told what differs and the way
out. `RULES` says which, of every part, and why; `docs/changes.md` is the same for people.

Both declarations are compared as `Pipeline.declared` gives them: text by path. A path that only
one release of this package knows is no difference, and what was written before declarations were
kept with state has none to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_ml.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["RULES", "Difference", "agreed", "differences", "folded"]

# Values of paths may be long (a tree has twenty parameters); of those the part that differs.
TEXT_LENGTH_MAX = 160
TEXT_LENGTH_BEFORE = 40
TEXT_LENGTH_AFTER = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One part of a declaration that is another than it was; None where it is not declared."""

    path: str
    was: str | None
    now: str | None
    taken: bool
    why: str

    def __str__(self) -> str:
        was, now = _excerpts(self.was, self.now)
        if self.taken:
            return f"{self.path}: was {was}, is {now}; {self.why}"
        return f"{self.path}: expected {was}, given {now}; {self.why}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a change of some part means: whether it is taken up, and what that does or would do."""

    taken: Callable[[str | None, str | None], bool]
    why: str


def _always(_was: str | None, _now: str | None) -> bool:
    return True


def _never(_was: str | None, _now: str | None) -> bool:
    return False


def _added(was: str | None, _now: str | None) -> bool:
    return was is None


def _removed(_was: str | None, now: str | None) -> bool:
    return now is None


def _grown(was: str | None, now: str | None) -> bool:
    return was is not None and now is not None and int(now) >= int(was)


def _widened(was: str | None, now: str | None) -> bool:
    """Whether every value that the former type of a field took is taken by the present one."""
    if was is None or now is None:
        return False
    return now == f"Optional({was})" or (
        was.startswith("Enum(") and now.startswith(f"{was.removesuffix(')')}, ")
    )


_KEPT = "what waits and the ids that are known were kept by it"
_EVIDENCE = "the blocks of evidence that are open were begun with it"
_FEATURES = "models have learned from the features as they were"

# By path, of which the first that fits holds; of several of one path the first that is so. `*`
# stands for a name.
RULES: tuple[tuple[str, Rule], ...] = (
    ("name", Rule(_never, "a log is one pipeline's")),
    ("events.key", Rule(_never, "windows are kept, and partitions chosen, by key")),
    ("events.time", Rule(_always, "events from now on have their time there")),
    ("events.id", Rule(_never, "the ids that are known are of that member")),
    ("events.fields.*", Rule(_added, "events from now on have it")),
    ("events.fields.*", Rule(_removed, "it is passed over from now on")),
    ("events.fields.*", Rule(_widened, "events from now on may have more values in it")),
    ("events.fields.*", Rule(_never, "windows, and what models have learned, are of that type")),
    ("events.*", Rule(_never, _KEPT)),
    ("predict", Rule(_always, "predictions from now on are about these events")),
    ("code.*", Rule(_always, "if its answers changed, raise its `version`")),
    ("features", Rule(_never, _FEATURES)),
    ("features.*", Rule(_never, _FEATURES)),
    ("windows", Rule(_never, "the events in windows were kept by it")),
    ("label.type", Rule(_never, "models, scores and labels that wait are of that type")),
    ("label.fallback", Rule(_always, "it is served from now on")),
    ("label.*", Rule(_never, _KEPT)),
    ("models.*", Rule(_added, "it learns from now on, and shadows from the next refresh on")),
    ("models.*", Rule(_removed, "it learns no more, and shadows until the next refresh")),
    (
        "models.*",
        Rule(_never, "its learner is of that recipe; declare the other one under another name"),
    ),
    (
        "champion",
        Rule(_always, "it says who serves first; what serves now stays until it is replaced"),
    ),
    ("promotion.mode", Rule(_always, "it holds from the next decision on")),
    ("promotion.refresh", Rule(_always, "it holds from the next example on")),
    ("promotion.block", Rule(_never, _EVIDENCE)),
    ("promotion.maturity", Rule(_never, _EVIDENCE)),
    ("promotion.guard_block", Rule(_never, "the block that is being guarded was begun with it")),
    (
        "promotion.first",
        Rule(_always, "it holds where no snapshot shadows as `first` yet, and for the guard"),
    ),
    ("promotion.rollback_loss", Rule(_always, "it holds from the next replacement on")),
    ("promotion.*", Rule(_always, "it holds from the next decision on")),
    ("pending_max", Rule(_always, "it holds from the next record on")),
    ("window_events_max", Rule(_grown, "windows may hold more from now on")),
    ("window_events_max", Rule(_never, "windows hold up to so many already")),
    ("keep", Rule(_always, "it holds from the next refresh on")),
    ("river", Rule(_never, "another release reads no learners of this one: install it again")),
)

_FOLDED = ("events.", "predict", "code.", "pending_max", "window_events_max")

# Where a part is one of several by name, it may be missing on one side; anywhere else a path
# that only one side has is of another release of this package.
_COLLECTIONS = ("events.fields.", "features.", "code.", "models.")


def differences(was: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """What of a declaration is another than it was, in the order in which it is declared now.

    >>> [str(each) for each in differences({"keep": "20"}, {"keep": "5"})]
    ['keep: was 20, is 5; it holds from the next refresh on']

    Args:
        was: what the state was made under: text by path, as `Pipeline.declared` gives it.
        now: the declaration of today, likewise.
    """
    if not was:
        return []
    paths = [*now, *(path for path in was if path not in now)]
    found = [
        _difference(path, was.get(path), now.get(path))
        for path in paths
        if was.get(path) != now.get(path)
        if (path in was and path in now) or path.startswith(_COLLECTIONS)
    ]
    features = {each.path for each in found if each.path.startswith("features.")}
    # They say it better than the list of all names, what is kept for their sake, or their code.
    implied = {"features", "windows", *(path.replace("features.", "code.", 1) for path in features)}
    return [each for each in found if not features or each.path not in implied]


def _difference(path: str, was: str | None, now: str | None) -> Difference:
    fitting = next((pattern for pattern, _ in RULES if _fits(pattern, path)), None)
    assert fitting is not None, f"no rule says what a change of {path} means"
    rules = [rule for pattern, rule in RULES if pattern == fitting]
    # The last rule of a pattern holds whatever was changed.
    rule = next((rule for rule in rules if rule.taken(was, now)), rules[-1])
    return Difference(path, was, now, rule.taken(was, now), rule.why)


def _fits(pattern: str, path: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == path
    return path.startswith(before) and path.endswith(after)


def folded(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The parts that differ of those that say what events, predictions and labels lead to.

    What was folded under the one cannot be folded again under the other.

    >>> folded({"predict": "every event", "keep": "3"}, {"predict": "kind='visit'", "keep": "4"})
    ['predict']

    Args:
        was: what the state was made under: text by path, as `Pipeline.declared` gives it.
        now: the declaration of today, likewise.
    """
    paths = [each.path for each in differences(was, now)]
    return [path for path in paths if path.startswith(_FOLDED)]


def agreed(
    was: Mapping[str, str],
    now: Mapping[str, str],
    place: str,
    anew: str,
    quarantined: Collection[str] = (),
) -> list[str]:
    """What differs and is taken up, a sentence each.

    Args:
        was: the declaration that the state at `place` was made under.
        now: the present one.
        place: what messages call the log.
        anew: how one begins anew there.
        quarantined: lines that learn no more, whose recipes may be repaired.

    Raises:
        UsageError: something differs that cannot be taken up; all of it is listed.
    """
    repaired = {f"models.{name}" for name in quarantined}
    found = [
        replace(each, taken=True, why="its line was quarantined, and starts anew, from nothing")
        if each.path in repaired and not each.taken
        else each
        for each in differences(was, now)
    ]
    refused = [str(each) for each in found if not each.taken]
    if refused:
        count = "1 part" if len(refused) == 1 else f"{len(refused)} parts"
        raise UsageError(
            "\n  ".join([f"{place} was made under another declaration, in {count}:", *refused])
            + f"\nDeclare it as it was, or {anew}."
        )
    return [str(each) for each in found]


def _excerpts(was: str | None, now: str | None) -> tuple[str, str]:
    """Both as messages show them: whole where they are short, else from where they differ."""
    first, second = ("nothing" if text is None else text for text in (was, now))
    same = next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    begin = max(0, same - TEXT_LENGTH_BEFORE)
    return _excerpt(first, begin), _excerpt(second, begin)


def _excerpt(text: str, begin: int) -> str:
    if len(text) <= TEXT_LENGTH_MAX:
        return text
    end = begin + TEXT_LENGTH_BEFORE + TEXT_LENGTH_AFTER
    return f"{'...' if begin else ''}{text[begin:end]}{'...' if end < len(text) else ''}"
