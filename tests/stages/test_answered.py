"""Commands: carried out once, where and when they were meant to be, whatever others send."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.codec import encode_command
from stream_ml.defaults import COMMAND_AGE_MS
from stream_ml.records import Command, Output, Record
from stream_ml.signing import Keyring, Operator
from stream_ml.stages import operators
from stream_ml.stages.answered_ids import AnsweredIds
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.testing import Driver
from tests.shop import KEY, shop, written

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

LOG = "this log"
NOW_MS = 2**41
OPERATORS = {
    "ana": Operator(b"a" * 32, "operator"),
    "gus": Operator(b"g" * 32, "guard"),
    "ola": Operator(b"o" * 32, "observer"),
    "orm": Operator(b"r" * 32, "observer"),
}
KEYRING = Keyring(KEY, OPERATORS)
# What is told of a decision: by whose key, of which command, and how.
Told = tuple[str | None, str | None, str]


def judge(log: str = LOG, pipeline: Pipeline = shop) -> Evaluate:
    """An evaluate stage on a log, where the first models serve."""
    evaluate = Evaluate(pipeline, KEYRING, log)
    evaluate.apply(written(Learn(pipeline, KEY).start(), "models"))
    return evaluate


def command(operator: str = "ana", command_id: str = "c", **members: Any) -> Command:
    """A command for here and now."""
    given = {"kind": "pause", "ts": NOW_MS, "actor": operator, "reason": "to see", **members}
    return Command(
        command_id=command_id, operator=operator, **{"pipeline": "shop", "log": LOG, **given}
    )


def signed(asked: Command) -> bytes:
    """As its operator signs it."""
    return encode_command(asked, OPERATORS[asked.operator].key)


def answers(evaluate: Evaluate, *values: tuple[bytes, int]) -> list[Any]:
    """What becomes of these commands, each with when the log took it in."""
    outputs: list[Any] = []
    for offset, (value, append_ms) in enumerate(values):
        outputs += evaluate.apply([Record("commands", 0, offset, None, value, append_ms)])
    return [output.memo for output in outputs]


def told(decisions: list[Any]) -> list[Told]:
    """Of the decisions among what became of commands, by whose key, of which, and how."""
    return [
        (each.signed_by, each.command_id, each.kind)
        for each in decisions
        if hasattr(each, "signed_by")
    ]


def restarted(evaluate: Evaluate, pieces: dict[str, bytes]) -> Evaluate:
    """The stage that takes over from one that has written down its state."""
    for name, piece in evaluate.dirty():
        assert piece is not None
        pieces[name] = piece
    again = Evaluate(shop, KEYRING, LOG)
    again.restore(pieces.items())
    return again


# --- where ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "path", "given_"),
    [
        ({"pipeline": "another"}, "$.pipeline", "given 'another'; it was signed for another one"),
        ({"log": "another"}, "$.log", "given 'another'; it was signed for another one"),
        ({"log": None}, "$.log", "given None; commands of former releases could be sent again"),
        ({"pipeline": None}, "$.pipeline", "given None; commands of former releases"),
    ],
)
def test_a_command_for_another_place_is_a_dead_letter(
    members: dict[str, Any], path: str, given_: str
) -> None:
    """It is not carried out, its id stays free, and the letter says what to do."""
    evaluate = judge()

    letter, decision = answers(
        evaluate, (signed(command(**members)), NOW_MS), (signed(command()), NOW_MS)
    )

    assert (letter.reason, letter.path) == ("foreign_command", path)
    assert given_ in letter.message
    assert "give it" in letter.message
    assert ("paused", "ana", "c") == (decision.kind, decision.signed_by, decision.command_id)


@given(st.integers(0, 2**32))
def test_no_command_of_another_log_or_pipeline_changes_anything(seed: int) -> None:
    """What was signed elsewhere with the same keys, sent here in between, is as if it were not."""
    rand = random.Random(seed)
    ours = [(signed(_any(rand)), NOW_MS + n) for n in range(10)]
    theirs = [
        (signed(_any(rand, **rand.choice([{"log": "x"}, {"pipeline": "x"}]))), NOW_MS + n)
        for n in range(10)
    ]
    mixed = sorted(ours + theirs, key=lambda each: each[1])

    assert told(answers(judge(), *ours)) == told(answers(judge(), *mixed))


def test_a_command_replayed_to_another_driver_is_refused() -> None:
    """Through the whole worker: the copy of a promotion promotes nothing on another's log."""
    declared = [replace(shop, name=name) for name in ("a", "b")]
    with (
        Driver(declared[0], key=KEY) as one,
        Driver(declared[1], key=KEY) as other,
        Driver(declared[0], key=KEY, identity="another") as staging,
    ):
        for driver in (one, other, staging):
            driver.run()
        one.command("promote", model="bayes", expect="logistic", actor="ana")
        one.run()
        copy = one.records("commands")[0].value
        assert copy is not None
        for driver in (other, staging):
            driver.log.append([Output("commands", b"c", copy)])
            driver.run()

        assert "replaced" == one.read("registry")[-1]["kind"]
        for driver in (other, staging):
            assert ["bootstrap"] == [each["kind"] for each in driver.read("registry")]
            assert ["foreign_command"] == [e["reason"] for e in driver.read("dead-letters")]


# --- when -------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [-COMMAND_AGE_MS - 1, COMMAND_AGE_MS + 1])
def test_a_command_out_of_its_time_is_refused_with_both_times(away: int) -> None:
    """Too old, or from a clock that is ahead: answered once, and its id serves for another."""
    late = signed(command(ts=NOW_MS + away))
    evaluate = judge()

    refused, *rest = answers(evaluate, (late, NOW_MS), (late, NOW_MS + 1), (late, NOW_MS + away))

    assert [] == rest, "answered once, also where it would be in time by now"
    assert "refused" == refused.kind
    assert f"{NOW_MS + away}, and when the log took it in, {NOW_MS}" in refused.reason
    assert (NOW_MS + away, NOW_MS) == (refused.given_ms, refused.received_ms)
    again = answers(restarted(evaluate, {}), (late, NOW_MS), (signed(command()), NOW_MS))
    assert [("ana", "c", "paused")] == told(again)


@pytest.mark.parametrize("away", [-COMMAND_AGE_MS, 0, COMMAND_AGE_MS])
def test_a_command_that_waited_on_the_log_is_in_time(away: int) -> None:
    """What counts is when the log took it in, not when a worker came to read it."""
    [decision] = answers(judge(), (signed(command(ts=NOW_MS + away)), NOW_MS))

    assert "paused" == decision.kind
    assert (NOW_MS + away, NOW_MS) == (decision.given_ms, decision.received_ms)


# --- whose ------------------------------------------------------------------------------------


def _any(rand: random.Random, **members: Any) -> Command:
    """A command of one of a few ids, by one of a few operators, in its time or out of it."""
    kind = rand.choice(["pause", "resume", "promote", "rollback"])
    asked = {
        "kind": kind,
        "ts": NOW_MS + rand.choice([0, 0, 0, 1, 2, -2 * COMMAND_AGE_MS, 2 * COMMAND_AGE_MS]),
        "model": rand.choice(["logistic", "bayes"]) if kind == "promote" else None,
        "expect": rand.choice([None, "logistic", "bayes"]),
        **members,
    }
    operator = asked.pop("operator", None) or rand.choice(["ana", "gus", "ola", "orm"])
    return command(operator, rand.choice(["c1", "c2", "c3", "x" * 500]), **asked)


@given(st.integers(0, 2**32))
def test_equal_ids_of_several_operators_are_each_answered_once(seed: int) -> None:
    """As a reference that keeps every operator's ids apart says, wherever the worker restarts."""
    rand = random.Random(seed)
    evaluate, pieces = judge(), dict[str, bytes]()
    answered: set[tuple[str, str]] = set()
    refused: set[tuple[str, str, int]] = set()
    sent: list[Command] = []
    for offset in range(30):
        asked = rand.choice(sent) if sent and rand.random() < 0.3 else _any(rand)
        sent.append(asked)
        append_ms = NOW_MS + offset * rand.choice([1, COMMAND_AGE_MS // 10])
        name, exact = (
            (asked.operator, asked.command_id),
            (asked.operator, asked.command_id, asked.ts),
        )
        expected = [] if name in answered or exact in refused else [name]
        if abs(append_ms - asked.ts) <= COMMAND_AGE_MS:
            answered |= set(expected)
        elif expected:
            refused.add(exact)
        if rand.random() < 0.3:
            evaluate = restarted(evaluate, pieces)

        decided = answers(evaluate, (signed(asked), append_ms))

        assert expected == [(each.signed_by, each.command_id) for each in decided]
        if decided and asked.operator in {"ola", "orm"}:
            assert "refused" == decided[0].kind
        if exact in refused and decided:
            assert "refused" == decided[0].kind


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_whoever_may_nothing_takes_nothing_from_the_others(seed: int, known: int) -> None:
    """With observers' floods of any ids in between, what others ask for is answered just so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "ANSWERED_MAX", known)
        rand = random.Random(seed)
        asked = [_any(rand, operator=rand.choice(["ana", "gus"])) for _ in range(15)]
        ours = [(signed(each), NOW_MS + 10 * n) for n, each in enumerate(asked)]
        floods = [
            (signed(_any(rand, operator=rand.choice(["ola", "orm"]))), NOW_MS + rand.randrange(150))
            for _ in range(60)
        ]
        mixed = sorted(ours + floods, key=lambda each: each[1])

        alone, among = told(answers(judge(), *ours)), told(answers(judge(), *mixed))

    assert alone == [each for each in among if each[0] in {"ana", "gus"}]
    assert {"refused"} >= {each[2] for each in among if each[0] in {"ola", "orm"}}


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_what_was_answered_is_never_carried_out_again(seed: int, known: int) -> None:
    """Whatever of a log is sent again, whenever, and however few ids are known: nothing changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "ANSWERED_MAX", known)
        rand = random.Random(seed)
        first = [
            (
                signed(
                    command("ana", f"c{n}", kind=rand.choice(["pause", "resume"]), ts=NOW_MS + n)
                ),
                NOW_MS + n,
            )
            for n in range(12)
        ]
        again = [(value, at + rand.randrange(2 * COMMAND_AGE_MS)) for value, at in first]
        rand.shuffle(again)
        evaluate = judge()
        answers(evaluate, *first)

        decided = answers(evaluate, *again)

    assert {"refused"} >= {each.kind for each in decided if hasattr(each, "kind")}
    assert {"repeated"} >= {each.reason for each in decided if not hasattr(each, "kind")}


def test_an_observer_who_guesses_an_id_blocks_nobody() -> None:
    """The refusal is the observer's own; the operator's command of that id is carried out."""
    values = [(signed(command(name, "deploy-42")), NOW_MS) for name in ("ola", "ana", "ola", "ana")]

    assert [("ola", "deploy-42", "refused"), ("ana", "deploy-42", "paused")] == told(
        answers(judge(), *values)
    )


def test_ids_that_a_former_release_has_answered_stay_answered() -> None:
    """State of before operators were told apart is taken up, and kept by the next checkpoint."""
    pieces = {name: piece for name, piece in judge().dirty() if piece is not None}
    rest = orjson.loads(pieces[""])
    rest |= {"answered": {"c": 5}, "forgotten_ms": -1}
    pieces[""] = orjson.dumps(rest)
    evaluate = Evaluate(shop, KEYRING, LOG)
    evaluate.restore(pieces.items())

    for each in (evaluate, restarted(evaluate, pieces)):
        assert [] == answers(each, (signed(command()), NOW_MS))
        assert 1 == each.sizes["commands_answered"]


@given(st.lists(st.tuples(st.text(min_size=1, max_size=80), st.integers(0, 99)), max_size=40))
def test_what_is_forgotten_is_never_newer_than_what_is_known(ids: list[tuple[str, int]]) -> None:
    """So that a command is either known, or no newer than the newest that is not."""
    answered = AnsweredIds()
    times: dict[str, int] = {}
    for name, ts in ids:
        if name in answered:
            continue
        answered.add(name, ts)
        times[name] = ts
        answered.keep(5)
        assert len(answered) <= 5
    again = AnsweredIds(**answered.dump())  # type: ignore[arg-type]
    for each in (answered, again):
        assert all(name in each or ts <= each.forgotten_ms for name, ts in times.items())
