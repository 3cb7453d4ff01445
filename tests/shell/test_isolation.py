"""Lines in processes of their own: the same to the last bit, and harm to nobody but themselves."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cli_toy import outputs, toy
from own_nasty import PATIENCE, Deed, RiverDeed
from own_toy import Logistic
from river import linear_model, tree

import stream_ml as sml
from stream_ml.errors import Halt, SnapshotRefused, UsageError
from stream_ml.generation import FIRST, Generation
from stream_ml.models.learner import Lesson
from stream_ml.models.snapshot import decode, take
from stream_ml.records import Prediction, Shadow, Source
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes.isolation import (
    ALL,
    NONE,
    IsolatedLearner,
    IsolatedRecipe,
    Isolation,
)
from stream_ml.shell.processes.line_process import GRACE_S
from stream_ml.stages.effort import LearnerLost
from stream_ml.stages.shadows import Shadows
from tests.models.own import Counts
from tests.trainers import Bag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from stream_ml.models.recipes import Recipe

KEY = b"isolated." * 4
EVENTS = 700
BUDGET_S = 0.2


def declared(**models: Any) -> sml.Pipeline:
    """The toy with lines beside a plain one."""
    return replace(
        toy,
        champion="plain",
        models={"plain": linear_model.LogisticRegression(), **models},
        promotion=sml.Promotion(refresh=100, first=100, mode="manual", slots=len(models)),
    )


@contextmanager
def isolations(pipeline: sml.Pipeline, *lines: str, **bounds: Any) -> Iterator[Any]:
    """The processes of lines, for learn and for evaluate."""
    learn, evaluate = (Isolation(pipeline, lines or (ALL,), **bounds) for _ in range(2))
    with closing(learn), closing(evaluate):
        yield {"learn": learn, "evaluate": evaluate}


def written(
    pipeline: sml.Pipeline, isolated: Mapping[str, Isolation] | None = None
) -> tuple[dict[str, list[Any]], Runner]:
    """What a worker writes, by topic, and the worker."""
    with SqliteLog.create(MEMORY, identity="isolated", now_ms=lambda: 2**42) as log:
        log.append(outputs(EVENTS))
        with Runner(log, pipeline, KEY, isolations=isolated) as runner:
            runner.run()
        return {
            topic: [(r.key, r.value) for r in log.read(topic, 0, 0, 10_000)]
            for topic in ("predictions", "models", "registry", "answers", "alerts")
        }, runner


@contextmanager
def recipe_of(learner: Any, **bounds: Any) -> Iterator[Recipe]:
    """The recipe of a line that is alone in a process."""
    pipeline = declared(line=learner)
    with closing(Isolation(pipeline, ("line",), **bounds)) as isolation:
        yield isolation.running(pipeline).recipes["line"]


def test_what_is_written_is_the_same_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots, predictions, decisions and answers are those of lines in the worker's process."""
    # On a machine that is busy others are served sooner, by the champion that there is by then.
    monkeypatch.setattr("stream_ml.shell.processes.isolation.PATIENCE_S", math.inf)
    pipeline = declared(
        own=Logistic(),
        river=RiverDeed(),
        tree=tree.HoeffdingTreeClassifier(max_depth=3, grace_period=20),
        bag=sml.Retrained(Bag(), 200),
    )
    expected, _ = written(pipeline)
    with isolations(pipeline) as isolated:
        actual, runner = written(pipeline, isolated)
        processes = [set(isolation.processes) for isolation in isolated.values()]

    assert processes == [set(pipeline.models)] * 2
    assert {} == runner.learn.quarantine_reasons
    assert len(expected["models"]) > 5 * 4
    assert len(expected["answers"]) > EVENTS // 2
    assert expected == actual


def begun_lines(isolation: Isolation) -> set[str]:
    """The lines whose processes have begun."""
    return {name for name, each in isolation.processes.items() if each._process is not None}


def test_a_former_version_that_may_serve_has_a_process_of_its_own() -> None:
    """It is read by the code of its line, and begins when it is asked: learn never asks it."""
    narrow, wide = (
        replace(declared(own=Logistic()), models={"own": Counts()}, champion="own", label=label)
        for label in (sml.Label(sml.Enum(*each), "1h") for each in ("ab", "abc"))
    )
    versions = FIRST.versions_with(narrow.declaration(), wide.declaration())
    running = wide.running_as(replace(FIRST, versions=versions))
    with isolations(wide) as isolated:
        pipeline = isolated["evaluate"].running(running)
        isolated["learn"].running(running)
        read, _ = pipeline.reader("own", pipeline.feature_set.hash)
        begun = [begun_lines(isolation) for isolation in isolated.values()]
        assert read is not None
        read.fresh().dump()

        assert [{"own.2"}] * 2 == begun
        assert {"own", "own.2"} == begun_lines(isolated["evaluate"])
        assert isinstance(read, IsolatedRecipe)
        assert ("a", "b") == (read.target or pipeline.target).classes


# What each does, and where, and what is said of it.
DEEDS = {
    ("hang", "learn"): "its process was lost: it had not returned for 0.6 s, 3 times",
    ("deaf", "learn"): "its process was lost: it had not returned for 0.6 s, 3 times",
    ("hoard", "learn"): "MemoryError()",
    ("crash", "learn"): "its process was lost: it ended with code -11",
    ("exit", "learn"): "SystemExit(3)",
    ("raise", "learn"): "ArithmeticError('no')",
    ("hang", "dump"): "its process was lost: it had not returned for 2 s, 10 times",
    ("unwritable", "dump"): "Deed.dump() to give its state, given TypeError(",
    ("deaf", "load"): "its process was lost: it had not returned for 2 s, 10 times",
    ("nan", "answer"): "expected a finite number, given nan",
}


def test_whatever_a_line_does_is_told_of_it_alone() -> None:
    """Lines that hang, hoard, crash or lie are quarantined; all others are as without them."""
    nasty = {f"{deed}_{place}": Deed(deed, place) for deed, place in DEEDS}
    expected, _ = written(declared(own=Logistic()))
    pipeline = declared(own=Logistic(), **nasty)
    with isolations(pipeline, *nasty, budget_s=BUDGET_S, memory_mb=1_024) as isolated:
        actual, runner = written(pipeline, isolated)
    reasons = runner.learn.quarantine_reasons

    assert list(nasty) == list(reasons)
    for name, reason in zip(nasty, DEEDS.values(), strict=True):
        assert reason in reasons[name]
    assert len(expected["predictions"]) == len(actual["predictions"])
    assert _digests(expected) == [each for each in _digests(actual) if each[0] not in nasty]


def _digests(written: Mapping[str, list[Any]]) -> list[tuple[str, int, str]]:
    """Of each snapshot its line, version and digest."""
    snapshots = [decode(value) for _, value in written["models"]]
    return [(each.name, each.version, each.digest) for each in snapshots]


def test_a_shadow_that_does_not_return_is_asked_no_more() -> None:
    """It is told once, with the reason; its line learns on, and others answer as ever."""
    pipeline = declared(own=Logistic(), nasty=Deed("deaf", "rare"))
    with isolations(pipeline, "nasty", budget_s=BUDGET_S) as isolated:
        # Learn asks it as well, now and then: what it is asked there is the next test's.
        isolated["learn"] = Isolation(declared(own=Logistic(), nasty=Deed()), (NONE,))
        actual, runner = written(pipeline, isolated)

    alerts = [value for _, value in actual["alerts"] if b"shadow_slow" in value]
    assert 1 == len(alerts)
    assert b"it had not returned for 0.6 s" in alerts[0]
    assert {} == runner.learn.quarantine_reasons
    assert EVENTS == len(actual["predictions"])


def test_a_shadow_whose_snapshot_does_not_open_is_asked_no_more() -> None:
    """Whose process does not return from reading it; told as one that does not answer."""
    pipeline = declared(own=Logistic())
    recipe = pipeline.recipes["own"]
    value = take(
        recipe.fresh(),
        recipe,
        pipeline.target,
        version=7,
        feature_hash=pipeline.line_view("own").hash,
        key=KEY,
        golden_features=[],
    ).encode()
    asked = {"own": Shadow("own@7", None, 3)}
    prediction = Prediction("e", "k", 1, Source(0, 0), "plain@7", -1, 0.5, False, {"x": 1.0}, asked)
    with closing(Isolation(pipeline, ("own",), budget_s=0.05)) as isolation:
        shadows = Shadows(isolation.running(pipeline), KEY, None)
        isolation.running(pipeline).recipes["own"].fresh().dump()
        os.kill(isolation.processes["own"].pid, signal.SIGSTOP)
        assert [3] == shadows.wanted([(0, prediction)])
        shadows.supply(3, value)
        answered = shadows.fill(0, prediction)

    assert ["own"] == list(shadows.quarantined) == shadows.end()
    assert "its process was lost: it had not returned for 0.5 s" in shadows.quarantined["own"]
    assert Shadow("own@7", None) == answered.shadows["own"]


def test_a_process_that_talks_nonsense_is_ended() -> None:
    """What is no answer of ours ends the process, and nothing of it is believed or run."""
    with recipe_of(Deed("babble", "answer")) as recipe:
        learner = recipe.load(b"1000")
        with pytest.raises(LearnerLost, match=r"its process was lost: it (gave|said)"):
            learner.predict_one({"x": 1.0})


def test_one_that_gets_on_within_its_bounds_may_take_long_over_many_examples() -> None:
    """Its time is that of an example, however many come at once."""
    lessons = [Lesson({"x": 1.0}, True)] * round((10 * 0.06 + GRACE_S) / 0.05 + 5)
    with recipe_of(Deed("slow", patience=-1), budget_s=0.06) as recipe:
        learner = recipe.fresh()

        assert len(lessons) == len(list(learner.lessons(lessons)))


# What a process says beside what it was asked, and where.
_NONSENSE = "it said what nobody had asked for"
WORDS = [
    ('{"error":1}', "answer", _NONSENSE),
    ('{"error":"abc"}', "answer", _NONSENSE),
    ('{"replies":[]}', "answer", _NONSENSE),
    ('{"replies":[],"more":true}', "answer", _NONSENSE),
    ('{"replies":[[0.5,null,"nan",0]]}', "answer", _NONSENSE),
    ('{"replies":[[0.5,null,0,0],[0.5,null,0,0]]}', "answer", _NONSENSE),
    ('{"replies":[],"failure":{}}', "answer", _NONSENSE),
    ("[]", "answer", "it said what is no JSON object"),
    ('{"error":["answer","","bad words"]}', "dump", "bad words"),
    ('{"error":[]}', "dump", _NONSENSE),
    ('{"more":true}', "dump", _NONSENSE),
]


@pytest.mark.parametrize(("words", "place", "expected"), WORDS)
def test_malformed_words_of_a_process_are_its_loss(words: str, place: str, expected: str) -> None:
    """Whatever a process says of itself is told as its loss, or refuses its snapshot."""
    with recipe_of(Deed("say", place, words=words)) as recipe:
        learner = recipe.load(b"1000")
        with pytest.raises((LearnerLost, SnapshotRefused), match=expected):
            learner.predict_one({"x": 1.0}) if place == "answer" else recipe.dump(learner)


def test_a_shadow_that_says_malformed_words_is_asked_no_more() -> None:
    """The worker goes on, and tells of it once; every event has its prediction."""
    nasty = Deed("say", "rare", words='{"error":["raised","","no"]}')
    pipeline = declared(nasty=nasty)
    with isolations(pipeline, "nasty", budget_s=BUDGET_S) as isolated:
        isolated["learn"] = Isolation(declared(nasty=Deed()), (NONE,))
        actual, runner = written(pipeline, isolated)

    assert 1 == len([value for _, value in actual["alerts"] if b"shadow_slow" in value])
    assert {} == runner.learn.quarantine_reasons
    assert EVENTS == len(actual["predictions"])


def test_a_process_that_keeps_talking_does_not_get_on() -> None:
    """Bytes that are no frame yet do not put off the end of a call."""
    with recipe_of(Deed("trickle", "answer"), budget_s=0.02) as recipe:
        learner = recipe.load(b"1000")
        with pytest.raises(LearnerLost, match=r"it had not returned for 0\.06 s"):
            learner.predict_one({"x": 1.0})


def test_others_are_served_where_many_short_waits_come_to_a_long_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line that is slow, and never so slow that anybody is served within a call, keeps none."""
    monkeypatch.setattr("stream_ml.shell.processes.isolation.PATIENCE_S", 1.0)
    served = []
    with recipe_of(Deed("slow", "answer", patience=-1)) as recipe:
        learner = recipe.fresh()
        learner.process.on_wait = lambda: served.append(learner.process._waited_s)
        for _ in range(50):  # of 50 ms each
            learner.predict_one({"x": 1.0})

    assert 2 <= len(served)
    assert max(served) < 1.0


def test_an_answer_that_came_while_others_were_served_counts() -> None:
    """A line is not held to account for how long the worker did something else."""
    with recipe_of(Logistic(), budget_s=0.02) as recipe:
        learner = recipe.load(recipe.dump(recipe.fresh()))
        process = learner.process
        process.on_wait = lambda: select.select([process._process.reader], [], [], 60) and None
        process._waited_s = 0.0
        os.kill(process.pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (process.pid, signal.SIGCONT)).start()

        assert learner.predict_one({"x": 1.0}) is not None


def test_what_a_process_has_begun_ends_with_it() -> None:
    """Processes of a learner's own are ended with the process of its line."""
    with recipe_of(Deed("child")) as recipe:
        learner = recipe.load(b"1000")
        with pytest.raises(Exception, match="ArithmeticError") as raised:
            learner.learn_one({"x": 1.0}, True)
        pid = int(str(raised.value).removeprefix("ArithmeticError(").removesuffix(")"))
        assert _lives(pid)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and _lives(pid):
        os.sched_yield()

    assert not _lives(pid)


def test_processes_that_were_never_asked_end_where_they_are_closed() -> None:
    """Nothing is left of a process that nobody has called."""
    pipeline = declared(line=Logistic())
    isolation = Isolation(pipeline, ("line",))
    isolation.running(pipeline)
    process = isolation.processes["line"]._process
    assert process is not None
    handle = os.dup(process.reader)
    isolation.close()
    said = [b"..."]
    while said[-1] and select.select([handle], [], [], 60)[0]:
        said.append(os.read(handle, 4_096))
    os.close(handle)

    # It has said who it was, and its output has ended.
    assert b'"pid"' in b"".join(said)
    assert said[-1] == b""


def test_snapshots_are_read_again_where_a_process_ended() -> None:
    """What was read from bytes answers on; what was taught since is gone, and says so."""
    with recipe_of(Logistic()) as recipe:
        taught = recipe.fresh()
        for number in range(20):
            taught.learn_one({"x": float(number)}, number > 10)
        copy = recipe.load(recipe.dump(taught))
        expected = copy.predict_one({"x": 3.0})
        os.kill(taught.process.pid, signal.SIGKILL)
        with pytest.raises(LearnerLost):
            copy.predict_one({"x": 3.0})

        assert expected == copy.predict_one({"x": 3.0})
        with pytest.raises(LearnerLost, match="is gone with its process"):
            taught.predict_one({"x": 3.0})
        with pytest.raises(SnapshotRefused, match="is gone with its process"):
            recipe.dump(taught)


def test_learners_that_nobody_has_are_let_go() -> None:
    """A process keeps no more learners than the worker does."""
    with recipe_of(Logistic()) as recipe:
        learner = recipe.fresh()
        data = recipe.dump(learner)
        numbers = set()
        for _ in range(5):
            copy = recipe.load(data)
            copy.predict_one({"x": 1.0})
            numbers.add(copy.number)
        assert isinstance(learner, IsolatedLearner)
        learner.process.drop(learner.generation, copy.number)
        learner.predict_one({"x": 1.0})
        with pytest.raises(Exception, match="KeyError"):
            copy.predict_one({"x": 1.0})

    assert 5 == len(numbers)


def test_a_line_that_cannot_be_sent_runs_where_it_did() -> None:
    """A class within a function cannot be pickled: it is told, and the line is not isolated."""

    class Local(Logistic):
        pass

    told: list[tuple[str, str]] = []
    pipeline = declared(local=Local(), own=Logistic())
    with closing(Isolation(pipeline, say=lambda *words: told.append(words))) as isolation:
        isolation.running(pipeline)
        assert ["own"] == list(isolation.processes)
    assert ["local"] == [line for line, _ in told]
    assert "Local" in told[0][1]


def test_nothing_begins_under_a_name_that_no_line_runs_under() -> None:
    """Where a log calls lines otherwise, one process a line begins, and each is told once."""

    class Local(Logistic):
        pass

    told: list[str] = []
    pipeline = declared(local=Local(), own=Logistic())
    names = {name: f"{name}.2" for name in pipeline.models}
    running = pipeline.running_as(Generation(number=2, names=names))
    with closing(Isolation(pipeline, say=lambda line, _: told.append(line))) as isolation:
        assert {} == isolation.processes
        first = isolation.running(running)
        processes = dict(isolation.processes)

        assert first is isolation.running(running)
        assert ["own.2"] == list(processes)
        assert processes == isolation.processes
    assert ["local.2"] == told


def test_a_name_of_no_line_is_refused() -> None:
    """The refusal names what there is."""
    with pytest.raises(UsageError, match=r"lines \(plain, own\), given onw"):
        Isolation(declared(own=Logistic()), ("onw",))


def test_a_process_ends_with_its_worker() -> None:
    """A worker that is killed leaves no process behind, not even one that hangs in C."""
    code = (
        f"import os, sys; sys.path[:0] = {sys.path}\n"
        "from tests.shell import test_isolation as own\n"
        "with own.recipe_of(own.Deed('deaf', 'learn'), budget_s=0.05) as recipe:\n"
        "    learner = recipe.load(b'1000')\n"
        "    print(learner.process.pid, flush=True)\n"
        "    import threading, time\n"
        "    threading.Timer(0.1, lambda: os.kill(os.getpid(), 9)).start()\n"
        "    learner.learn_one({}, True)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert -signal.SIGKILL == done.returncode
    pid = int(done.stdout)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and _lives(pid):
        os.sched_yield()

    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - of the system
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


assert PATIENCE < EVENTS


# --- what is served meanwhile -----------------------------------------------------------------


def test_predictions_wait_for_no_line_that_hangs(tmp_path: Path) -> None:
    """While a line hangs, what comes is predicted and committed; all of it is learned after."""
    count = 2_000
    pipeline = declared(own=Logistic(), nasty=Deed("hang"))
    with SqliteLog.create(tmp_path / "log", now_ms=lambda: time.time_ns() // 1_000_000) as log:
        log.append(outputs(count))
        with (
            isolations(pipeline, "nasty", budget_s=5 / 3) as isolated,
            Runner(log, pipeline, KEY, isolations=isolated) as runner,
        ):
            runner.run()
            judged = runner.evaluate.counts["examples"]
        predictions = log.read("predictions", 0, 0, 10_000)
        examples = len(log.read("examples", 0, 0, 10_000))
        alerts = log.read("alerts", 0, 0, 10_000)
    (told_ms,) = [a.append_ms for a in alerts if b"line_quarantined" in (a.value or b"")]
    served = [prediction for prediction in predictions if prediction.append_ms < told_ms - 1_000]

    assert count == len({prediction.key for prediction in predictions}) == len(predictions)
    # It hangs for five seconds, which is longer than all the rest takes.
    assert len(served) > count // 2
    assert examples == judged > count - 100


@pytest.mark.parametrize("step", [40, 55, 70, 90, 120])
def test_a_death_while_a_line_hangs_loses_nothing(step: int, tmp_path: Path) -> None:
    """Every event has one prediction, every example is judged once, wherever the worker dies."""
    pipeline = declared(own=Logistic(), nasty=Deed("hang"))
    left = [step]

    def die(_: str) -> None:
        left[0] -= 1
        if not left[0]:
            raise Halt

    with (
        SqliteLog.create(tmp_path / "log", now_ms=lambda: 2**42) as log,
        isolations(pipeline, "nasty", budget_s=BUDGET_S) as isolated,
    ):
        log.append(outputs(EVENTS))
        with suppress(Halt), Runner(log, pipeline, KEY, isolations=isolated, step=die) as runner:
            runner.run()
        assert left[0] <= 0
        with Runner(log, pipeline, KEY, isolations=isolated) as runner:
            runner.run()
            judged, reasons = runner.evaluate.counts["examples"], runner.learn.quarantine_reasons
        predictions = [record.key for record in log.read("predictions", 0, 0, 10_000)]
        models = [record.key for record in log.read("models", 0, 0, 10_000)]
        examples = len(log.read("examples", 0, 0, 10_000))

    assert (EVENTS, EVENTS) == (len(predictions), len(set(predictions)))
    assert len(models) == len(set(models))
    assert examples == judged
    assert ["nasty"] == list(reasons)
