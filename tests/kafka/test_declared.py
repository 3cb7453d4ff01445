"""What a task on Kafka makes of a state that was made under another declaration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream_ml.errors import UsageError
from stream_ml.sealing import Marker
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.declared import declared_changes
from stream_ml.shell.restoration import TakenUp
from stream_ml.stages.positions import ResumePoint
from tests.shop import declare, shop

LEARNT = [("", b'{"quarantined":{"bayes":"it failed"}}')]
REPAIRED = {"models": {**shop.models, "bayes": shop.models["logistic"]}}


def changes(stage: str, read: int = 0, **changed: Any) -> list[str]:
    """What a task says that starts from the shop's state, having read so much since."""
    task: Any = SimpleNamespace(name=f"{stage}-0", stage=None)
    home: Any = SimpleNamespace(
        declaration=declare(**changed).declaration(),
        restart_lines=(),
        applied_lines=frozenset(),
        cluster=Cluster("nowhere:1", "shop"),
        handover=None,
    )
    taken = TakenUp(list(LEARNT), {}, None, Marker({}, declaration=shop.declaration()))
    going_on = ResumePoint({("events", 0): 0}, {("events", 0): read}, ())
    return declared_changes(task, home, taken, going_on)


@pytest.mark.parametrize("stage", ["predict", "join", "learn", "evaluate"])
def test_each_stage_refuses_what_its_state_was_not_made_under(stage: str) -> None:
    """The words name the part, what it was, what is given, where the state lies, the way out."""
    with pytest.raises(UsageError) as refused:
        changes(stage, label=shop.label.__class__(bool, horizon="30s"))

    first, horizon, last = str(refused.value).splitlines()
    assert (
        f"the state of {stage}-0 on shop.{stage}-changelog was made under another declaration, in "
        "1 part:"
    ) == first
    assert horizon.startswith("  label.horizon: expected 40s, given 30s; ")
    assert "Declare it as it was, or begin anew under another name of the pipeline." == last


def test_what_is_taken_up_is_not_taken_up_amid_what_was_committed() -> None:
    """What was folded as it was declared is not folded again as it is declared now."""
    assert ["predict: was kind='visit', is every event"] == [
        each.partition(";")[0] for each in changes("predict", predict=None)
    ]
    assert ["keep: was 20, is 3"] == [
        each.partition(";")[0] for each in changes("predict", read=5, keep=3)
    ]
    with pytest.raises(UsageError, match="given another predict; declare it as it was, start, "):
        changes("predict", read=5, predict=None)


def test_a_quarantined_line_may_be_repaired() -> None:
    """What learns knows which lines have no learner any more; nobody else takes its word."""
    assert 1 == len(changes("learn", **REPAIRED))
    with pytest.raises(UsageError, match="a new version of the line has to learn what is recorded"):
        changes("evaluate", **REPAIRED)
