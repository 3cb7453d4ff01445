"""What the world of the chaos runs is, in plain values, for those who make it and who judge it."""

from __future__ import annotations

from typing import Any

from river import linear_model, naive_bayes, optim, preprocessing

NAME = "chaos"
KEY = "5f" * 32

SHOPS = 120
CITIES = ("oslo", "rome", "lima")
KINDS = ("visit", "order")
ASKING = "visit"

START_MS = 1_700_000_000_000
LATENESS_MS = 20_000
HORIZON_MS = 60_000
SKEW_MS = 300_000
# How many keys have to have come as far for a watermark to follow, and for how long one is known.
BREADTH = 3
KEYS_KEPT = 64

MINUTE_MS = 60_000
SHORT_MS = MINUTE_MS
LONG_MS = 3 * MINUTE_MS

# Every so many examples all lines publish; before that at 500 examples, doubled until there.
REFRESH = 2_000
WARM_UP = 500
# The champion line's first snapshot from so many examples shadows on for good.
FIRST = 500
CHAMPION = "bayes"


def lines() -> dict[str, Any]:
    """A fresh learner per line."""
    return {
        "logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        "adagrad": preprocessing.StandardScaler()
        | linear_model.LogisticRegression(optim.AdaGrad(0.05)),
        "bayes": naive_bayes.GaussianNB(),
    }
