"""Scenarios about who should serve: a challenger as good, a better one, and nothing to learn."""

from __future__ import annotations

from typing import Any

from stream_ml.scenarios.world import Scenario, amount_score

__all__ = ["LINES"]

EXAMPLES = "stream_ml.examples.payments"


class _Equal(Scenario):
    """Amount and distance are drawn and weighed alike; one line sees the one, one the other."""

    name = "equal"
    summary = "the challenger is as good as the champion: it sees as much, but not the same"
    pipeline = f"{EXAMPLES}:equal"
    serves = ((0.0, None),)

    def draw(self, at: float, ts: int) -> dict[str, Any]:
        del at, ts
        return {**self.fields(), "distance": self.fields()["amount"]}

    def logit(self, event: dict[str, Any], at: float) -> float:
        del at
        return 1.6 * amount_score(event["amount"]) + 1.6 * amount_score(event["distance"]) - 0.4


class _Better(Scenario):
    name = "better"
    summary = "the challenger sees all that matters, the champion only the age and the channel"
    pipeline = f"{EXAMPLES}:better"
    serves = ((0.0, "all"),)


class _Noise(Scenario):
    name = "noise"
    summary = "labels depend on nothing: there is nothing to learn, and nobody to promote"
    serves = ((0.0, None),)

    def logit(self, event: dict[str, Any], at: float) -> float:
        del event, at
        return -1.0


LINES: tuple[type[Scenario], ...] = (_Equal, _Better, _Noise)
