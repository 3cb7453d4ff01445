"""Alarms: one record for each change of what is open, whatever flaps, crashes or is replayed."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.records import Alert
from stream_ml.stages.alarms import QUIET_BLOCKS, Alarms, Recurrence
from stream_ml.stages.alert_kinds import ALERT_KINDS, SEVERITIES, subjects_of
from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from stream_ml.records import Output

PACKAGE = Path(__file__).parents[2] / "stream_ml"
KIND = "poison_rate"
SUBJECTS = ("a", "b", "c")
Step = tuple[bool, set[str]]
STEPS = st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from(SUBJECTS), max_size=3)))


def took(alarms: Alarms, step: Step, ts: int) -> list[Alert]:
    """The alerts of one step: open these subjects, or resolve them."""
    act = alarms.open_group if step[0] else alarms.resolve_group
    return memos(act(KIND, step[1], "words", ts))


def memos(outputs: list[Output]) -> list[Alert]:
    """The alerts that are written."""
    return [output.memo for output in outputs]


@given(STEPS, st.integers(0, 20))
def test_every_record_is_a_change_and_every_change_a_record(steps: list[Step], crash: int) -> None:
    """Folded, the records say what is open; none says what was so already, also after a crash."""
    alarms, folded = Alarms("learn"), set[str]()
    for ts, step in enumerate(steps):
        if ts == crash:
            state = orjson.loads(orjson.dumps(alarms.dump()))
            alarms = Alarms("learn")
            alarms.load(state)
        for alert in took(alarms, step, ts):
            subjects = set(subjects_of(alert))
            is_open = alert.state == "open"
            assert subjects.isdisjoint(folded) if is_open else subjects <= folded
            folded = folded | subjects if is_open else folded - subjects
        expected = {subject for subject in SUBJECTS if alarms.is_open(KIND, subject)}
        assert sorted(expected) == alarms.subjects(KIND)
        assert expected == folded


def test_what_has_one_cause_is_one_record() -> None:
    """Many subjects at once: one record that lists them; each resolves by itself."""
    alarms = Alarms("predict", 3)

    [opened] = took(alarms, (True, {"b", "a"}), 5)
    [ended] = took(alarms, (False, {"b", "c"}), 9)

    assert ("open", "", {"subjects": ["a", "b"]}) == (opened.state, opened.subject, opened.details)
    assert ("resolved", "b", {"since": 5}) == (ended.state, ended.subject, ended.details)
    assert ("predict", 3, ALERT_KINDS[KIND].severity) == (
        ended.stage,
        ended.partition,
        ended.severity,
    )
    assert ["a"] == alarms.subjects(KIND)


def test_what_comes_now_and_then_is_one_episode() -> None:
    """It comes in every other block, for long: one alert; ten whole blocks without it end it."""
    alarms = Alarms("predict")
    overflow, said = Recurrence(alarms, "window_overflow"), list[Alert]()
    for block in range(200):
        if block % 2 == 0 and block < 100:
            said += memos(overflow.happen("full", block, {}))
        said += memos(overflow.end_block("over", block))
        again = Recurrence(alarms, "window_overflow")
        again.load(overflow.dump())
        overflow = again

    assert [("open", 0), ("resolved", 98 + QUIET_BLOCKS)] == [
        (alert.state, alert.ts) for alert in said
    ]


@pytest.mark.parametrize("kind", ["guard", "nothing"])
def test_a_kind_is_raised_as_its_row_says(kind: str) -> None:
    """A happening does not open, a condition is not said once, and a kind without a row is none."""
    alarms = Alarms("evaluate")
    with pytest.raises(AssertionError, match=kind):
        alarms.open(kind, "", "words", 1)
    with pytest.raises(AssertionError, match=f"{KIND} cannot be once"):
        alarms.once(KIND, "words", 1)


# --- the table --------------------------------------------------------------------------------


def words_of(source: str) -> set[str]:
    """Every text that a module writes down."""
    return {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_the_catalogue_names_the_kinds_that_there_are() -> None:
    """`topics/alerts.toml` and the table have the same kinds, in the same order."""
    meaning = catalogue()["alerts"].fields["kind"].meaning

    assert list(ALERT_KINDS) == re.findall(r"`(\w+)`", meaning)


def test_every_kind_is_raised_somewhere() -> None:
    """No kind is promised that nothing raises."""
    modules = [
        path
        for room in ("stages", "shell", "monitoring")
        for path in (PACKAGE / room).rglob("*.py")
        if path.name != "alert_kinds.py"
    ]
    raised = set().union(*(words_of(path.read_text()) for path in modules))

    assert set() == ALERT_KINDS.keys() - raised


def test_the_manual_has_every_kind() -> None:
    """The table in `docs/alerts.md` is the table that raisers and routes go by."""
    page = (PACKAGE.parent / "docs" / "alerts.md").read_text(encoding="utf-8")
    expected = [
        (kind, row.severity, "opens, resolves" if row.ends else "once", row.meaning)
        for kind, row in ALERT_KINDS.items()
    ]

    assert expected == re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\w, ]+) \| (.*) \|$", page, re.MULTILINE
    )


def test_every_kind_says_how_grave_it_is_and_where_to_look() -> None:
    """One of three severities, a sentence, and a command of ours."""
    for kind, row in ALERT_KINDS.items():
        assert row.severity in SEVERITIES, kind
        assert row.meaning.endswith("."), kind
        assert row.command.startswith("stream-ml "), kind
