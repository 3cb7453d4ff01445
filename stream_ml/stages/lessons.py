"""Which examples are learned from: of silence, of corrections, of sources that are less trusted.

Theory of operation:

1. Where silence is taken for a label, some of it is *fake*: the label comes after the window. It is
   learned then, as a new example, beside the silence that was learned before (Ktena et al. 2019,
   "Addressing delayed feedback for continuous training with neural networks in CTR prediction",
   RecSys). So of an event with a chance p of another label than silence's, of which a share c is
   late, p of 1 + p c examples have it, and what learns them answers less than p.
2. Their remedy is a weight for each silence: the chance that it is not fake,
   (1 - p) / (1 - p + p c), by the answer that was served. Not every learner knows weights, so
   silence is passed over with the chance that it is fake instead, by a hash of its event's id: the
   same for every line.
3. The answer that was served may be wrong in its level, or there is none. So one silence is passed
   over for each that was found to be fake, neither more nor less, over about `RESPONSE` silences;
   which ones is by (2), where the answer says anything.
4. What takes the place of somebody's word is learned where that is declared (`relearn`).

5. Of a source with a declared share (`sources`) that share of labels is learned, by another hash of
   the event's id: a weight that every learner knows. All of them are scored.

The shares fade, over about `MEMORY` silences: how late labels are may change.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.label import Label
    from stream_ml.records import Answer, Example

__all__ = ["Lessons", "fake_share"]

MEMORY = 100_000
FADING = 1.0 - 1.0 / MEMORY
RESPONSE = 100.0


def fake_share(chance: float, late: float) -> float:
    """The chance that silence is fake, by the chance of another label and the share that is late.

    >>> round(fake_share(0.02, 0.37), 5), fake_share(0.5, 1.0), fake_share(0.0, 1.0)
    (0.00749, 0.5, 0.0)

    Args:
        chance: of another label than silence's, from 0 to 1.
        late: the share of these that comes after the window.
    """
    fake = chance * late
    return fake / (1.0 - chance + fake) if fake > 0.0 else 0.0


@dataclass(slots=True)
class Lessons:
    """What was learned of silence so far, which tells what to pass over of the next.

    Attributes:
        prompt: labels other than silence's that came within their window.
        late: those that came after it.
        silences: how many there were.
        expected: how many of them the served answers took for fake.
        owed: how many were found to be fake, less those that were passed over.
    """

    prompt: float = 0.0
    late: float = 0.0
    silences: float = 0.0
    expected: float = 0.0
    owed: float = 0.0

    def takes(self, example: Example, label: Label) -> bool:
        """Whether an example is learned from; asked once of each, in their order.

        Args:
            example: the next one.
            label: as it is declared.
        """
        is_lesson = True
        if label.absent is not None or example.implicit or example.correction is not None:
            is_lesson = self._is_lesson(example, label)
        if not label.sources or example.label_from is None:
            return is_lesson
        share = label.sources.get(example.label_from, 1.0)
        return is_lesson and (share >= 1.0 or _lot(example.prediction.event_id, b"source") < share)

    def _is_lesson(self, example: Example, label: Label) -> bool:
        correction = example.correction
        if correction is not None:
            self.late += correction.implicit
            self.owed += correction.implicit
            return correction.implicit or label.relearn
        if not example.implicit:
            self.prompt += example.label != label.absent
            return True
        share = self._relative_chance(example.prediction.own_answer, label)
        share *= min(1.0, self.owed / RESPONSE)
        if share <= 0.0 or _lot(example.prediction.event_id) >= share:
            return True
        self.owed -= 1.0
        return False

    def _relative_chance(self, answer: Answer, label: Label) -> float:
        """The chance that a silence is fake, beside the mean of all; it is counted."""
        known = self.late + self.prompt
        chance = _chance_of_another(answer, label)
        mean = self.expected / self.silences if self.silences else 0.0
        fake = mean if chance is None else fake_share(chance, self.late / known if known else 0.0)
        self.silences = 1.0 + FADING * self.silences
        self.expected = fake + FADING * self.expected
        self.late, self.prompt = FADING * self.late, FADING * self.prompt
        return fake / mean if mean > 0.0 else 1.0

    def dump(self) -> list[float]:
        """The state, as JSON can hold it; empty where silence means nothing."""
        state = list(astuple(self))
        return state if any(state) else []

    @classmethod
    def of(cls, state: Sequence[float]) -> Lessons:
        """Take up a dumped state.

        Args:
            state: what `dump` gave; empty of a former release.
        """
        return cls(*state)


def _chance_of_another(answer: Answer, label: Label) -> float | None:
    """The chance of another label than silence's, by an answer; None where it says nothing."""
    if isinstance(answer, dict):
        return min(1.0, max(0.0, 1.0 - answer.get(str(label.absent), 0.0)))
    if answer is None or type(label.absent) is not bool:
        return None
    return min(1.0, max(0.0, 1.0 - answer if label.absent else float(answer)))


def _lot(event_id: str, purpose: bytes = b"silence") -> float:
    """A number from 0 to 1 that is an event's alone."""
    digest = hashlib.blake2b(event_id.encode(), digest_size=8, person=purpose).digest()
    return int.from_bytes(digest) / 2**64
