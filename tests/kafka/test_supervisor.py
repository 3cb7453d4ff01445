"""Looking after workers: who is started when, given up when, stopped how; and no one is left."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.cli.execution import up
from stream_ml.errors import StreamMLError, UsageError
from stream_ml.shell.processes import supervisor
from stream_ml.shell.processes.supervisor import (
    DEATHS_MAX,
    HEALTHY_S,
    STOP_S,
    WAIT_MIN_S,
    Patience,
    Post,
    Process,
    Relay,
    Supervisor,
    await_broker,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

# Far more than any step takes, even on a machine that is busy with something else.
DEADLINE_S = 60.0
POST = Post("predict", 1)
CODES = st.sampled_from([0, 1, 3, 130, -9, -15])
LIVES = st.floats(0.0, 2 * HEALTHY_S)


# --- patience: a pure state machine ---------------------------------------------------------------


@given(st.lists(st.tuples(CODES, LIVES), max_size=60))
def test_waits_double_in_a_row_and_health_forgets(deaths: list[tuple[int, float]]) -> None:
    """Each death at once in a row doubles the wait; health forgets them, five end it."""
    patience = Patience()
    row = 0
    for code, lived_s in deaths:
        row = 0 if lived_s >= HEALTHY_S else row + 1

        again_s = patience.died(code, lived_s)

        if row == DEATHS_MAX:
            assert again_s is None
            return
        assert again_s == WAIT_MIN_S * 2 ** max(0, row - 1)


@given(st.lists(st.tuples(CODES, st.floats(HEALTHY_S, 1e6)), max_size=2_000))
def test_who_was_healthy_is_never_given_up(deaths: list[tuple[int, float]]) -> None:
    """However often a worker is killed in the middle of its work, it is started again soon."""
    patience = Patience()

    assert {patience.died(code, lived_s) for code, lived_s in deaths} <= {WAIT_MIN_S}


@given(st.lists(st.tuples(CODES, st.floats(HEALTHY_S, 1e6)), max_size=10), LIVES)
def test_a_mistake_is_not_tried_again(deaths: list[tuple[int, float]], lived_s: float) -> None:
    """Exit code 2 says that usage, a setting or the declaration is wrong, and will be again."""
    patience = Patience()
    for code, lived in deaths:
        patience.died(code, lived)

    assert patience.died(2, lived_s) is None


# --- the supervisor, in a world whose time is told ------------------------------------------------


@dataclass
class _Life:
    """How one process will fare: it ends by itself with `code`, unless it is asked before."""

    lasts_s: float
    code: int
    stops_s: float = 0.1


@dataclass
class _World:
    """Time that goes on only where one waits, and processes that live in it."""

    lives: Iterator[_Life]
    now: float = 0.0
    children: list[_Fake] = field(default_factory=list)
    told: list[Mapping[str, Any]] = field(default_factory=list)
    # Until when a standby waits for the place of those who predict.
    standby_s: float = 0.0
    # For how long brokers that are away are waited for, to say so.
    look_s: float = 0.0

    def start(self, post: Post) -> _Fake:
        assert [] == [each for each in self.children if each.post == post and each.lives()]
        self.children.append(_Fake(self, post, next(self.lives), 1_000 + len(self.children)))
        return self.children[-1]

    def is_awaited(self) -> bool:
        self.now += self.look_s
        return self.now < self.standby_s

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def say(self, _: str, members: Mapping[str, Any]) -> None:
        self.told.append(members)

    def run(self, posts: Sequence[Post], asked_s: float) -> StreamMLError | None:
        """Run a supervisor until it is asked to stop, or gives up with what is returned."""
        watched = Supervisor(
            posts,
            self.start,
            say=self.say,
            wait=self.wait,
            clock=lambda: self.now,
            is_last=lambda post: post.stage == "predict",
            goes_on=self.is_awaited,
        )
        try:
            watched.run(lambda: self.now >= asked_s)
        except StreamMLError as error:
            return error
        return None


class _Fake:
    def __init__(self, world: _World, post: Post, life: _Life, pid: int) -> None:
        self.pid = pid
        self.post = post
        self.life = life
        self.began = world.now
        self.ends = world.now + life.lasts_s
        self.asked = self.killed = False
        self._world = world

    def lives(self) -> bool:
        return self._world.now < self.ends and not self.killed

    def exit_code(self) -> int | None:
        return None if self.lives() else -9 if self.killed else 0 if self.asked else self.life.code

    def last_words(self) -> Sequence[str]:
        return ("it broke", "badly")

    def ask(self) -> None:
        if self.lives():
            self.asked = True
            self.ends = min(self.ends, self._world.now + self.life.stops_s)

    def kill(self) -> None:
        self.killed = True


_LIFE = st.builds(_Life, LIVES, CODES, st.one_of(st.floats(0.1, 10.0), st.floats(30.0, 90.0)))
_POSTS = [Post("predict", 1), Post("predict", 2), Post("learn", 1)]


@given(st.lists(_LIFE, min_size=1, max_size=40), st.floats(0.0, 300.0), st.floats(0.0, 400.0))
def test_every_post_is_filled_by_one_and_in_the_end_by_none(
    lives: list[_Life], asked_s: float, standby_s: float
) -> None:
    """Never two at one post, never a post forgotten; afterwards nobody is left, come what may."""

    def faring() -> Iterator[_Life]:
        yield from lives
        while True:
            yield _Life(1e9, 0)

    world = _World(faring(), standby_s=standby_s)

    error = world.run(_POSTS, asked_s)

    assert [] == [child.pid for child in world.children if child.lives()]
    slow = [child for child in world.children if child.killed]
    assert all(child.asked and child.life.stops_s > STOP_S - 1 for child in slow)
    told = [each["worker"] for each in world.told if each["said"] == "killed"]
    assert sorted(str(child.post) for child in slow) == sorted(told)
    for post in _POSTS:
        filled = [child for child in world.children if child.post == post]
        # A death is seen within a tick; the wait for the next start is never cut short.
        for former, later in pairwise(filled):
            assert WAIT_MIN_S <= later.began - former.ends <= 4.0 + 3 * supervisor.TICK_S
    if error is None:
        assert world.now >= asked_s
        assert asked_s == 0 or {child.post for child in world.children} == set(_POSTS)


def test_five_deaths_at_once_stop_everything() -> None:
    """A worker that cannot run is named with its end and its last words; the others are stopped."""

    def faring() -> Iterator[_Life]:
        yield _Life(1e9, 0)
        while True:
            yield _Life(0.1, 1)

    world = _World(faring())

    error = world.run([Post("learn", 1), POST], 1e9)

    assert str(error) == (
        "predict-1 died at once 5 times in a row, the last time by exit code 1; all workers are "
        "stopped. What it said last:\n  it broke\n  badly"
    )
    assert isinstance(error, StreamMLError)
    assert error.exit_code == 1
    assert [each["again_s"] for each in world.told if each["said"] == "died"] == [0.5, 1, 2, 4]
    assert world.children[0].asked


def test_a_worker_that_is_set_up_wrongly_stops_everything_with_its_words() -> None:
    """What it said of the mistake is the message, and the exit code is that of a mistake."""
    error = _World(iter([_Life(0.1, 2)])).run([POST], 1e9)

    assert isinstance(error, UsageError)
    assert str(error) == "predict-1 cannot run as it is set up; it said:\n  it broke\n  badly"


def test_what_the_operator_is_told() -> None:
    """Starts, deaths and those who had to be killed, each with who it is."""
    world = _World(iter([_Life(45.0, -9), _Life(1e9, 0, stops_s=1e9)]))

    assert world.run([POST], 60.0) is None

    assert world.told == [
        {"said": "starts", "worker": "predict-1", "process": 1_000},
        {"said": "died", "worker": "predict-1", "code": -9, "again_s": 0.5},
        {"said": "starts", "worker": "predict-1", "process": 1_001},
        {"said": "killed", "worker": "predict-1"},
    ]
    assert world.now == pytest.approx(60.0 + STOP_S)


@pytest.mark.parametrize(
    ("lasts_s", "standby_s", "asked_s"),
    [
        pytest.param(40.0, 1e9, None, id="it ends by itself"),
        pytest.param(1e9, 50.0, 50.0, id="the standby is gone"),
        pytest.param(1e9, 1e9, 90.0, id="nobody takes over"),
    ],
)
def test_who_predicts_goes_on_while_a_standby_waits_to_take_over(
    lasts_s: float, standby_s: float, asked_s: float | None
) -> None:
    """The others are asked at once, it when nobody is about to take over; and it is told."""
    world = _World(iter([_Life(lasts_s, 2), _Life(1e9, 0)]), standby_s=standby_s)

    assert world.run([POST, Post("learn", 1)], 30.0) is None

    predict, learn = world.children
    assert {"said": "goes_on", "workers": ["predict-1"]} in world.told
    assert learn.ends == pytest.approx(30.0 + learn.life.stops_s)
    assert predict.asked == (asked_s is not None)
    assert predict.ends == pytest.approx(lasts_s if asked_s is None else asked_s + 0.1, abs=0.5)


def test_brokers_that_are_away_keep_nobody_from_stopping() -> None:
    """They are asked once whether somebody waits, however many predict, and others end before."""
    world = _World(iter([_Life(1e9, 0)] * 5), look_s=5.0)

    assert world.run([*(Post("predict", n) for n in range(1, 5)), Post("learn", 1)], 30.0) is None

    *predict, learn = world.children
    assert learn.ends == pytest.approx(30.0 + learn.life.stops_s)
    assert [each.ends for each in predict] == pytest.approx([35.0 + learn.life.stops_s] * 4)


def test_nobody_goes_on_where_all_end_by_a_mistake() -> None:
    """A worker that is set up wrongly ends all the others, whoever waits for their places."""
    world = _World(iter([_Life(1e9, 0), _Life(0.1, 2)]), standby_s=1e9)

    assert isinstance(world.run([POST, Post("learn", 1)], 1e9), UsageError)

    assert world.children[0].asked
    assert world.now < 1.0


def test_asked_twice_it_waits_for_nobody() -> None:
    """A second Ctrl-C ends at once whoever is still there."""
    world = _World(iter([_Life(1e9, 0, stops_s=1e9)]))

    def wait(seconds: float) -> None:
        world.wait(seconds)
        if world.now > 10.0:
            raise KeyboardInterrupt

    watched = Supervisor([POST], world.start, say=world.say, wait=wait, clock=lambda: world.now)
    with pytest.raises(KeyboardInterrupt):
        watched.run(lambda: world.now >= 9.0)

    assert world.children[0].asked
    assert world.children[0].killed
    assert world.now < 11.0


# --- waiting for the broker -----------------------------------------------------------------------


def test_it_waits_for_a_broker_and_says_so_every_ten_seconds() -> None:
    """No broker is no error: it is waited for, with a line every 10 s and no more."""
    world = _World(iter([]))

    def answers(bootstrap: str) -> str | None:
        assert bootstrap == "a:1,b:2"
        return None if world.now > 35.0 else "Connection refused"

    came = await_broker(
        "a:1,b:2",
        is_stopping=lambda: False,
        wait=world.wait,
        say=world.say,
        answers=answers,
        clock=lambda: world.now,
    )

    assert came
    assert 35.0 < world.now < 38.0
    assert [each["waited_s"] // 10 for each in world.told] == [0, 1, 2, 3]
    assert {each["why"] for each in world.told} == {"Connection refused"}


@given(st.floats(0.0, 100.0))
def test_one_may_stop_it_waiting(asked_s: float) -> None:
    """Who waits for a broker can still be asked to stop."""
    world = _World(iter([]))

    came = await_broker(
        "a:1",
        is_stopping=lambda: world.now >= asked_s,
        wait=world.wait,
        say=world.say,
        answers=lambda _: "no",
        clock=lambda: world.now,
    )

    assert not came
    assert world.now < asked_s + 5


def test_a_broker_is_one_that_takes_connections() -> None:
    """Of several addresses one suffices; a closed port, or a name of nobody, is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as open_one, socket.socket() as closed_one:
        closed_one.bind(("127.0.0.1", 0))
        closed, opened = (f"127.0.0.1:{each.getsockname()[1]}" for each in (closed_one, open_one))

        def waits_for(bootstrap: str) -> list[str]:
            whys: list[str] = []
            await_broker(
                bootstrap,
                is_stopping=lambda: bool(whys),
                wait=lambda _: None,
                say=lambda _, members: whys.append(members["why"]),
            )
            return whys

        assert waits_for(f"{closed},{opened}") == []
        assert waits_for(closed) == ["Connection refused"]


# --- real processes -------------------------------------------------------------------------------


class _Heard:
    """Real processes under a supervisor whose time goes on only while none of them lives."""

    def __init__(self, program: str) -> None:
        self.relay = Relay()
        self.lines: list[tuple[str, str]] = []
        self.told: list[Mapping[str, Any]] = []
        self.children: list[Process] = []
        self.now = 0.0
        self._program = program

    def start(self, _: Post) -> Process:
        self.children.append(
            Process(
                [sys.executable, "-c", self._program],
                self.relay,
                on_out=lambda line: self.lines.append(("out", line)),
                on_err=lambda line: self.lines.append(("err", line)),
            )
        )
        return self.children[-1]

    def wait(self, seconds: float) -> None:
        self.relay.pump(0.02)
        if all(child.exit_code() is not None for child in self.children):
            self.now += seconds

    def say(self, _: str, members: Mapping[str, Any]) -> None:
        self.told.append(members)

    def supervisor(self) -> Supervisor:
        return Supervisor([POST], self.start, say=self.say, wait=self.wait, clock=lambda: self.now)


def test_last_words_are_heard_to_the_end() -> None:
    """A worker that dies at once is heard out, also where it ends in the middle of a line."""
    heard = _Heard("import sys; print('hello'); sys.stderr.write('no\\nno mem'); sys.exit(7)")

    with pytest.raises(StreamMLError, match=r"5 times .* exit code 7") as error:
        heard.supervisor().run(lambda: False)

    assert str(error.value).endswith("What it said last:\n  no\n  no mem")
    assert sorted(heard.lines) == sorted([("out", "hello"), ("err", "no"), ("err", "no mem")] * 5)
    heard.relay.close()


def test_only_the_last_words_are_kept() -> None:
    """Whatever a worker says, what is kept of it has a bound: in lines, and in their length."""
    heard = _Heard(
        "import sys\n"
        "for n in range(1000): print(n, file=sys.stderr)\n"
        "sys.stdout.write('x' * 300_000)\n"
        "sys.exit(2)"
    )

    with pytest.raises(UsageError) as error:
        heard.supervisor().run(lambda: False)

    said = str(error.value).splitlines()[1:]
    assert said == [f"  {n}" for n in range(980, 1000)]
    pieces = [line for stream, line in heard.lines if stream == "out"]
    assert "".join(pieces) == "x" * 300_000
    assert max(map(len, pieces)) <= supervisor.LINE_BYTES_MAX + supervisor.READ_BYTES
    heard.relay.close()


def test_an_heir_of_its_output_holds_nobody_up() -> None:
    """A dead worker's own child may still hold its output: the death is seen all the same."""
    heard = _Heard(
        "import subprocess, sys\n"
        "heir = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print(heir.pid, flush=True); import os; os._exit(2)"
    )
    # The heir's input ends with the worker, so that it does not outlive this test by much.
    with pytest.raises(UsageError):
        heard.supervisor().run(lambda: False)

    assert len(heard.lines) >= 1
    heard.relay.close()


def test_who_does_not_stop_is_killed() -> None:
    """A worker that passes over SIGTERM is killed, and that is said."""
    heard = _Heard(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
        "while True: signal.pause()"
    )

    def wait(_: float) -> None:
        heard.relay.pump(0.02)
        heard.now += STOP_S if heard.lines else 0.0

    watched = Supervisor([POST], heard.start, say=heard.say, wait=wait, clock=lambda: heard.now)
    watched.run(lambda: bool(heard.lines))

    assert [each["said"] for each in heard.told] == ["starts", "killed"]
    assert heard.children[0].exit_code() == -signal.SIGKILL
    heard.relay.close()


def test_ctrl_c_in_a_terminal_reaches_the_supervisor_alone() -> None:
    """A worker is asked to stop once, by its supervisor: it is in no group of a terminal's."""
    heard = _Heard("import os; print(os.getpgid(0) == os.getpid(), flush=True); input()")
    heard.supervisor().run(lambda: bool(heard.lines))

    assert heard.lines == [("out", "True")]
    assert [each["said"] for each in heard.told] == ["starts"]
    assert heard.children[0].exit_code() == -signal.SIGTERM
    heard.relay.close()


_CHILD = """
import os, signal, sys
from stream_ml.shell.processes.supervisor import stop_when_input_ends

def stop(*_):
    print("a last word", flush=True)
    os.write({kept}, b"stopped in order")
    sys.exit()

signal.signal(signal.SIGTERM, signal.SIG_IGN if {deaf} else stop)
stop_when_input_ends(grace_s=0.2)
os.write({kept}, b"works")
while True:
    signal.pause()
"""
_PARENT = """
import signal, subprocess, sys
kept = int(sys.argv[1])
command = [sys.executable, "-c", sys.argv[2]]
subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, pass_fds=[kept]
)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("deaf", "last"), [(False, b"stopped in order"), (True, b"")])
def test_no_worker_outlives_its_supervisor(deaf: bool, last: bytes) -> None:
    """After `kill -9` of who started it a worker stops in order, and one that is deaf at once."""
    read, kept = os.pipe()
    child = _CHILD.format(deaf=deaf, kept=kept)
    parent = subprocess.Popen(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", _PARENT, str(kept), child], pass_fds=[kept]
    )
    # Whoever lives holds the pipe's other end: reading it to its end is seeing all of them dead.
    os.close(kept)
    try:
        assert _read(read) == b"works"
        parent.kill()
        parent.wait(DEADLINE_S)

        assert _read(read) == last
        assert last == b"" or _read(read) == b""
    finally:
        parent.kill()
        parent.wait(DEADLINE_S)
        os.close(read)


def _read(handle: int) -> bytes:
    ready, _, _ = select.select([handle], [], [], DEADLINE_S)
    assert ready, f"nothing for {DEADLINE_S} seconds"
    return os.read(handle, 1_000)


# --- the command ----------------------------------------------------------------------------------

_UP = [sys.executable, "-m", "stream_ml.cli.main", "up"]
_CARDS = ["--pipeline", "stream_ml.examples.cards:cards"]


def _environment(**variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name[:10] != "STREAM_ML_"}
    return {**ours, **variables}


def _fails(*arguments: str, folder: Path, **variables: str) -> tuple[int, str]:
    ended = subprocess.run(  # noqa: S603 - our own interpreter and words
        [*_UP, *_CARDS, *arguments],
        cwd=folder,
        env=_environment(**variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_what_is_set_wrongly_is_said_before_anything_is_started(tmp_path: Path) -> None:
    """Workers of their own need a cluster, a cluster needs a key, and a count is one from 1."""
    kafka = ("--broker", "kafka://127.0.0.1:1")

    code, said = _fails("--predict", "2", folder=tmp_path)
    assert code == 2
    assert said.startswith("stream-ml: --predict: expected a broker kafka://HOST:PORT, given sqli")
    code, said = _fails(*kafka, folder=tmp_path)
    assert code == 2
    assert said.startswith("stream-ml: STREAM_ML_KEY: expected the key")
    code, said = _fails(*kafka, "--join", "0", folder=tmp_path)
    assert code == 2
    assert "expected a whole number from 1, given '0'" in said


def test_up_waits_for_its_broker_and_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    """Where no broker answers it says so, starts nothing, and ends well when asked."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with subprocess.Popen(  # noqa: S603 - our own interpreter and words
            [*_UP, *_CARDS, "--broker", f"kafka://{address}", "--format", "json"],
            cwd=tmp_path,
            env=_environment(STREAM_ML_KEY="ab" * 32),
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            try:
                waiting = orjson.loads(_read(process.stdout.fileno()))
                process.send_signal(signal.SIGTERM)
                rest, _ = process.communicate(timeout=DEADLINE_S)
            finally:
                process.kill()

    assert (waiting["said"], waiting["broker"]) == ("waiting", address)
    assert (waiting["why"], process.returncode) == ("Connection refused", 0)
    assert orjson.loads(rest) == {"said": "stopped"}


def test_without_topics_no_worker_is_started(
    kafka_broker: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, and how to make them."""
    monkeypatch.setenv("STREAM_ML_KEY", "ab" * 32)

    assert _main("up", *_CARDS, "--broker", f"kafka://{kafka_broker}") == 3

    told = capsys.readouterr()
    assert "" == told.out
    assert 1 == told.err.count("\n")
    assert "expected topics of the pipeline cards, given none that we may see" in told.err
    assert "stream-ml topics apply" in told.err


class _Stub:
    """A supervisor that starts each post once, and is done."""

    def __init__(self, posts: list[Post], start: Callable[[Post], object], **_: object) -> None:
        self._posts, self._start = posts, start

    def run(self, _: object) -> None:
        for post in self._posts:
            self._start(post)


@pytest.mark.parametrize("shape", ["text", "json"])
def test_each_post_has_its_command_and_its_lines(
    shape: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers are set as we are; people are told who speaks, machines are given the line."""
    commands = []

    def process(
        command: list[str],
        _: Relay,
        *,
        on_out: Callable[[str], None],
        on_err: Callable[[str], None],
    ) -> None:
        commands.append(command)
        on_out('{"said":"started"}')
        on_err("oh")

    monkeypatch.setattr(up, "Supervisor", _Stub)
    monkeypatch.setattr(up, "Process", process)
    monkeypatch.setattr(up, "await_broker", lambda *_, **__: True)
    monkeypatch.setattr(up, "open_log", lambda *_: nullcontext())
    for looked_at in ("working_key", "running_pipeline", "check_serving", "_warn_of_open_topics"):
        monkeypatch.setattr(up, looked_at, lambda *_: None)
    monkeypatch.setenv("STREAM_ML_KEY", "ab" * 32)
    broker = "kafka://127.0.0.1:1"

    assert _main("up", *_CARDS, "--broker", broker, "--predict", "2", "--format", shape) == 0

    names = ["predict-1", "predict-2", "join-1", "learn-1", "evaluate-1"]
    python = [sys.executable, "-P", "-m", "stream_ml.cli.main"]
    us = f"{socket.gethostname()}-{os.getpid()}"
    logs = ["--log-level", "error", "--log-format", "text"]
    rest = ["--format", shape, "--broker", broker, *_CARDS, *logs]
    assert commands == [
        [*python, "worker", name[:-2], "--supervised", "--instance", f"{us}-{name}", *rest]
        for name in names
    ]
    told = capsys.readouterr()
    assert told.err.splitlines() == [f"{name:<10} | oh" for name in names]
    passed = told.out.splitlines()[1:-1]
    if shape == "json":
        assert passed == ['{"said":"started"}'] * 5
        assert orjson.loads(told.out.splitlines()[0]) == {
            "said": "started",
            "pipeline": "cards",
            "workers": 5,
        }
    else:
        assert passed == [f'{name:<10} | {{"said":"started"}}' for name in names]
        assert told.out.startswith(f"cards works on {broker} with 5 workers; Ctrl-C stops them\n")


def _main(*arguments: str) -> int:
    from stream_ml.cli.main import main  # noqa: PLC0415 - as the rest of it is patched by now

    return main(arguments)
