"""Generations of a declaration's features: what goes on where features were changed in flight.

Theory of operation:

1. A model knows the features that it began with, and is never asked about, or taught, any others.
   So where features are changed on a running log, all lines begin anew, as a new *generation*:
   `logistic` goes on as `logistic.2`, and learns the recorded past with its features as they would
   have been served. What serves goes on beside them, under its own name, with the features that it
   knows, until one of them has won by evidence.
2. A generation is a decision on the registry (`applied`). From there on, whoever runs the pipeline
   runs it as that decision says (`Pipeline.running_as`): nothing else says it.
3. Another recipe under the name of a line is a *version* of it, which begins anew as well, as
   `trees.2`: so no snapshot of one recipe bears the name of another's. A decision of that kind,
   too, says which recipes have one. What can learn no other classes than it began with is of
   another recipe where the label has more. Where a former version serves, it does as it is,
   unrenewed, until another line has won. A new generation in which all lines begin anew has no
   versions.
4. The decision names the offsets of the events at which the features were changed. Predictions
   from before them were logged without the features that are new.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.schema import Enum

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from stream_ml.records import Decision, Source

__all__ = [
    "APPLIED",
    "FIRST",
    "VERSIONS",
    "FormerLine",
    "Generation",
    "NarrowerVersion",
    "generation_after",
    "newest_generation",
    "recipe_digest",
]

# The kind of decision.
APPLIED = "applied"
# The member of its evidence where recipes were changed.
VERSIONS = "versions"
_NUMBER = re.compile(r"\.([1-9][0-9]*)$")
DIGEST_LENGTH = 16
# A label has no fewer classes.
CLASSES_MIN = 2


@dataclass(frozen=True, slots=True)
class FormerLine:
    """A line of a former generation that goes on.

    Attributes:
        name: that it runs under.
        declared: the name of the declared line whose estimator it is of.
        features: the names of what it knows, in order.
    """

    name: str
    declared: str
    features: tuple[str, ...]


class NarrowerVersion(NamedTuple):
    """A former version of a line, from before its label had more classes.

    Attributes:
        name: that it ran under.
        line: the declared line that it is of.
        classes: that it knows.
    """

    name: str
    line: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """What runs where features were changed.

    Attributes:
        number: of the generation; the first, 1, has no decision.
        feature_hash: of the features that are declared from then on, as snapshots name it.
        names: the names that declared lines run under, where they are others.
        former: lines of former generations that go on.
        views: the features, in order, of all former generations, which records may still have.
        offsets: by partition of events, the first offset that was predicted with these features.
        versions: by declared line whose recipe was changed since, the names that it runs under, by
            the digest of the recipe.
        lateness: by partition of events, where a longer lateness was declared: the first offset
            that it holds for, and the milliseconds that it was before.
    """

    number: int = 1
    feature_hash: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    former: tuple[FormerLine, ...] = ()
    views: tuple[tuple[str, ...], ...] = ()
    offsets: Mapping[int, int] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lateness: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @property
    def version_names(self) -> set[str]:
        """The names of all versions of the lines that have several."""
        return {name for names in self.versions.values() for name in names.values()}

    def declared(self, name: str) -> str:
        """The declared line that a line is of, by the name that it runs under, or ran.

        Args:
            name: of a line; one that was never renamed is its own.
        """
        lines = {running: line for line, running in self.names.items()}
        lines |= {former.name: former.declared for former in self.former}
        lines |= {each: line for line, names in self.versions.items() for each in names.values()}
        return lines.get(name, name)

    def is_version(self, name: str, models: Collection[str]) -> bool:
        """Whether a line, present or former, is a version of one that is declared.

        Args:
            name: of the line, by which it runs, or ran.
            models: the declared lines.
        """
        return name in self.version_names and self.declared(name) in models

    def narrower_versions(
        self, texts: Mapping[str, str], classes: Sequence[str]
    ) -> Iterator[NarrowerVersion]:
        """The former versions of lines that differ from them in nothing but their classes.

        Classes are only ever added behind the others: those of before are the first of today's.

        Args:
            texts: the declaration, text by path.
            classes: of the label.
        """
        for count in range(CLASSES_MIN, len(classes)):
            kind = Enum(*classes[:count]).declaration()
            former = {
                path: kind if path.startswith("classes.") else text for path, text in texts.items()
            }
            for line, versions in sorted(self.versions.items()):
                name = versions.get(recipe_digest(former, line))
                if name is not None and f"classes.{line}" in former:
                    yield NarrowerVersion(name, line, tuple(classes[:count]))

    @property
    def next_number(self) -> int:
        """The number of what begins next: no name was given with it before."""
        matches = [_NUMBER.search(name) for name in self.version_names]
        return 1 + max([self.number, *(int(match[1]) for match in matches if match)])

    def with_recipes(self, texts: Mapping[str, str]) -> Generation:
        """The generation as a declaration runs in it, whose recipes say which versions these are.

        Args:
            texts: the declaration, text by path.
        """
        names = dict(self.names)
        for line, versions in self.versions.items():
            name = versions.get(recipe_digest(texts, line))
            if name is not None:
                names[line] = name
        return self if names == self.names else replace(self, names=names)

    def applied_lines(self, texts: Mapping[str, str]) -> list[str]:
        """The declared lines whose recipes were applied.

        Args:
            texts: the declaration, text by path.
        """
        return [
            line
            for line, versions in self.versions.items()
            if recipe_digest(texts, line) in versions
        ]

    def versions_with(self, running: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, Any]:
        """The versions of the lines that have another recipe than the one that runs.

        Args:
            running: the declaration that runs, text by path.
            texts: the one to be applied, of the same lines.
        """
        number, found = self.next_number, {}
        for path in running:
            line = path.removeprefix("models.")
            if line == path:
                continue
            present, digest = recipe_digest(running, line), recipe_digest(texts, line)
            if present != digest:
                names = self.versions.get(line, {present: self.names.get(line, line)})
                found[line] = {digest: f"{line}.{number}", **names}
        return found

    def is_before(self, source: Source) -> bool:
        """Whether an event was predicted on with the features of a former generation.

        Args:
            source: where the event lies.
        """
        return source.offset < self.offsets.get(source.partition, 0)

    @property
    def begun(self) -> list[str]:
        """The lines that began with it, by the names that they run under."""
        return [name for name in self.names.values() if name.endswith(f".{self.number}")]

    def as_dict(self) -> dict[str, Any]:
        """The generation as the evidence of its decision has it."""
        return {
            "generation": self.number,
            "hash": self.feature_hash,
            "lines": dict(self.names),
            "former": [
                {"line": line.name, "declared": line.declared, "features": [*line.features]}
                for line in self.former
            ],
            "features": [[*names] for names in self.views],
            "offsets": {str(partition): offset for partition, offset in self.offsets.items()},
            **(
                {VERSIONS: {line: dict(names) for line, names in self.versions.items()}}
                if self.versions
                else {}
            ),
            **({"lateness": self._lateness_by_name()} if self.lateness else {}),
        }

    def _lateness_by_name(self) -> dict[str, list[list[int]]]:
        return {
            str(partition): [[offset, ms] for offset, ms in changes]
            for partition, changes in self.lateness.items()
        }


FIRST = Generation()


def _generation_in(decision: Decision) -> Generation | None:
    """The generation that a decision begins; None if it begins none.

    Args:
        decision: that is believed.
    """
    evidence = decision.evidence
    if decision.kind != APPLIED or evidence is None or "generation" not in evidence:
        return None
    return Generation(
        number=evidence["generation"],
        feature_hash=evidence["hash"],
        names=evidence["lines"],
        former=tuple(
            FormerLine(line["line"], line["declared"], tuple(line["features"]))
            for line in evidence["former"]
        ),
        views=tuple(tuple(names) for names in evidence["features"]),
        offsets={int(partition): offset for partition, offset in evidence["offsets"].items()},
        versions=evidence.get(VERSIONS, {}),
        lateness={
            int(partition): tuple((offset, ms) for offset, ms in changes)
            for partition, changes in evidence.get("lateness", {}).items()
        },
    )


def newest_generation(decisions: Iterable[Decision]) -> Generation:
    """The generation that runs after these decisions.

    Args:
        decisions: in their order, all of which are believed.
    """
    newest = FIRST
    for decision in decisions:
        newest = generation_after(newest, decision)
    return newest


def generation_after(current: Generation, decision: Decision) -> Generation:
    """The generation that runs after a decision.

    Args:
        current: the one before it.
        decision: that is believed.
    """
    begun = _generation_in(decision)
    if begun is not None:
        return begun
    versions = (decision.evidence or {}).get(VERSIONS)
    if decision.kind != APPLIED or not isinstance(versions, dict):
        return current
    return replace(current, versions={**current.versions, **versions})


def recipe_digest(texts: Mapping[str, str], line: str) -> str:
    """A digest of all that makes learners of two recipes different.

    Args:
        texts: a declaration, text by path.
        line: one of its lines; another one has a digest that no recipe has.
    """
    recipe = f"{texts.get(f'models.{line}', '')}\n{texts.get(f'libraries.{line}', '')}"
    classes = texts.get(f"classes.{line}")
    if classes is not None:
        recipe = f"{recipe}\n{classes}"
    return hashlib.sha256(recipe.encode()).hexdigest()[:DIGEST_LENGTH]
