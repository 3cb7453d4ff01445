"""The cards work, shared by every contestant.

Per event: 12 windowed features over 1 min, 10 min, 1 h (count, sum, mean, max of the amount), 5
plain ones, the champion (scaled logistic regression) and two challengers (another one and a
Hoeffding tree) predict; 1,000 events later the label comes, all three are scored by ROC AUC, log
loss, Brier and accuracy, and learn.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from river import metrics

from stream_ml.examples.cards import cards

__all__ = ["WINDOWS_MS", "Models", "Windows", "plain_features"]

WINDOWS_MS = (60_000, 600_000, 3_600_000)
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


def plain_features(event: dict[str, Any]) -> dict[str, float]:
    """The five that need the event only."""
    ts = event["ts"]
    return {
        "amount": event["amount"],
        "distance": event["distance"],
        "age": event["age"],
        "hour": ts // HOUR_MS % 24,
        "weekday": (ts // DAY_MS + 3) % 7,
    }


class _Card:
    """One card's payments: a buffer, and per window a tail pointer with running sums."""

    __slots__ = ("amounts", "maxima", "sums", "tails", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.amounts: list[float] = []
        self.tails = [0, 0, 0]
        self.sums = [0.0, 0.0, 0.0]
        self.maxima: list[deque[tuple[int, float]]] = [deque(), deque(), deque()]

    def features(self, t: int, target: dict[str, float]) -> None:
        times, amounts = self.times, self.amounts
        for w, width in enumerate(WINDOWS_MS):
            tail, bound = self.tails[w], t - width
            while tail < len(times) and times[tail] < bound:
                self.sums[w] -= amounts[tail]
                tail += 1
            self.tails[w] = tail
            maxima = self.maxima[w]
            while maxima and maxima[0][0] < bound:
                maxima.popleft()
            count = len(times) - tail
            target[f"count {w}"] = count
            target[f"sum {w}"] = self.sums[w]
            target[f"mean {w}"] = self.sums[w] / count if count else 0.0
            target[f"max {w}"] = maxima[0][1] if maxima else 0.0

    def insert(self, t: int, amount: float) -> None:
        self.times.append(t)
        self.amounts.append(amount)
        for w in range(3):
            self.sums[w] += amount
            maxima = self.maxima[w]
            while maxima and maxima[-1][1] <= amount:
                maxima.pop()
            maxima.append((t, amount))


class Windows:
    """The windows of all cards, in memory."""

    def __init__(self) -> None:
        self._cards: dict[str, _Card] = {}

    def features(self, event: dict[str, Any]) -> dict[str, float]:
        """All 17 features of the event, which then counts for later ones."""
        features = plain_features(event)
        card = self._cards.get(event["card"])
        if card is None:
            card = self._cards[event["card"]] = _Card()
        card.features(event["ts"], features)
        card.insert(event["ts"], event["amount"])
        return features


class Models:
    """The three models and their scores."""

    def __init__(self) -> None:
        self._models = [recipe.fresh() for recipe in cards.recipes.values()]
        self._scores = [
            (metrics.ROCAUC(), metrics.LogLoss(), metrics.MSE(), metrics.Accuracy())
            for _ in self._models
        ]
        self.learned_count = 0

    def predict(self, features: dict[str, float]) -> list[float]:
        """What each model says, the champion first."""
        return [model.predict_proba_one(features).get(True, 0.0) for model in self._models]

    def learn(self, features: dict[str, float], answers: list[float], label: bool) -> None:
        """Score what the models said, and let them learn the truth."""
        for model, p, (auc, log_loss, brier, accuracy) in zip(
            self._models, answers, self._scores, strict=True
        ):
            auc.update(label, p)
            log_loss.update(label, p)
            brier.update(float(label), p)
            accuracy.update(label, p > 0.5)
            model.learn_one(features, label)
        self.learned_count += 1

    def report(self) -> dict[str, float]:
        """What was learned so far, and how good the champion's predictions were."""
        return {"learned": self.learned_count, "roc_auc": float(self._scores[0][0].get())}
