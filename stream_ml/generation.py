"""Generations of a declaration's features: what goes on where features were changed in flight.

Theory of operation:

1. A model knows the features that it began with, and is never asked about, or taught, any others.
   So where features are changed on a running log, all lines begin anew, as a new *generation*:
   `logistic` goes on as `logistic.2`, and learns the recorded past with its features as they would
   have been served. What serves goes on beside them, under its own name, with the features that it
   knows, until one of them has won by evidence.
2. A generation is a decision on the registry (`applied`). From there on, whoever runs the pipeline
   runs it as that decision says (`Pipeline.running_as`): nothing else says it.
3. The decision names the offsets of the events at which the features were changed. Predictions
   from before them were logged without the features that are new.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.records import Decision, Source

__all__ = ["APPLIED", "FIRST", "FormerLine", "Generation", "generation_in", "newest_generation"]

# The kind of decision.
APPLIED = "applied"


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
    """

    number: int = 1
    feature_hash: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    former: tuple[FormerLine, ...] = ()
    views: tuple[tuple[str, ...], ...] = ()
    offsets: Mapping[int, int] = field(default_factory=dict)

    def is_before(self, source: Source) -> bool:
        """Whether an event was predicted on with the features of a former generation.

        Args:
            source: where the event lies.
        """
        return source.offset < self.offsets.get(source.partition, 0)

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
        }


FIRST = Generation()


def generation_in(decision: Decision) -> Generation | None:
    """The generation that a decision begins; None if it begins none.

    Args:
        decision: that is believed.
    """
    evidence = decision.evidence
    if decision.kind != APPLIED or evidence is None:
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
    )


def newest_generation(decisions: Iterable[Decision]) -> Generation:
    """The generation that runs after these decisions.

    Args:
        decisions: in their order, all of which are believed.
    """
    newest = FIRST
    for decision in decisions:
        newest = generation_in(decision) or newest
    return newest
