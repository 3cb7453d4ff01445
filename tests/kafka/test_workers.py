"""A worker of one stage as those who run it meet it: what it says, when it stops, who goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions

from stream_ml.cli.main import main
from stream_ml.client import connect
from stream_ml.errors import DeclarationError, LogError, Problem, StreamMLError, UsageError
from stream_ml.records import Output
from stream_ml.sealing import Seals
from stream_ml.shell.kafka import worker as worker_module
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.transactions import Transactions
from stream_ml.shell.kafka.transport import SESSION_TIMEOUT_MS
from stream_ml.shell.kafka.worker import Worker
from stream_ml.shell.processes.supervisor import Patience
from stream_ml.shell.settings.listening import ListenAddress
from stream_ml.shell.views.trace import trace
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.topics import partition_of
from tests.kafka.world import (
    DEADLINE_S,
    House,
    lying,
    make_anew,
    place,
    publish,
    reader,
    state_of,
    until_said,
)
from tests.kafka_broker import a_name
from tests.metrics.scraping import fetch, figures, until
from tests.shop import shop, stream, written
from tools.kafka.broker import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = bytes.fromhex("5a" * 32)
DECLARATION = """
import dataclasses
from tests.shop import shop
declared = dataclasses.replace(shop, name=name)
"""
PARTITIONS = 4
# Beside the session timeout: the rebalance, and taking over, on a machine that is busy.
MOVED_S_MAX = SESSION_TIMEOUT_MS / 1_000 + 14.0


async def serve(cluster: Cluster) -> None:
    """Let something serve, without learn and evaluate at work."""
    models = Learn(shop, KEY).start()
    decisions = Evaluate(shop, Keyring(KEY, {})).apply(written(models, "models"))
    await publish(cluster, "models", 0, models)
    await publish(cluster, "registry", 0, decisions)


def visits(count: int, prefix: str = "e") -> list[Output]:
    """So many events that ask for a prediction, each of another shop."""
    (event, *_), _ = stream()
    return [
        Output("events", shop_name.encode(), orjson.dumps({**event, **of_its_own}))
        for n in range(count)
        for shop_name in [f"s{n}"]
        for of_its_own in [{"event_id": f"{prefix}{n}", "shop": shop_name, "kind": "visit"}]
    ]


async def publish_by_key(cluster: Cluster, events: list[Output], partitions: int) -> None:
    """Events to the partitions of their keys."""
    for partition in range(partitions):
        ours = [e for e in events if partition_of(e.key or b"", partitions) == partition]
        await publish(cluster, "events", partition, ours)


async def predicted(cluster: Cluster, count: int, isolation: str, partitions: int) -> None:
    """Wait until so many predictions can be read."""
    async with asyncio.timeout(DEADLINE_S), reader(cluster, isolation) as consumer:
        consumer.assign(
            [TopicPartition(cluster.topic("predictions"), p) for p in range(partitions)]
        )
        while count > 0:
            count -= sum(map(len, (await consumer.getmany(timeout_ms=1_000)).values()))


def ids_of(cluster: Cluster, partitions: int) -> list[str]:
    """The ids of all predictions that are committed."""
    places = [("predictions", p) for p in range(partitions)]
    found = asyncio.run(lying(cluster, *places))
    return [orjson.loads(each.value)["event_id"] for at in places for each in found[at]]


# --- what it refuses to begin with ------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs `stream-ml worker` here; its exit code, and what it said on standard error."""

    def running(cluster: Cluster, stage: str, *, key: bool = True) -> tuple[int, str]:
        if key:
            monkeypatch.setenv("STREAM_ML_KEY", KEY.hex())
        else:
            monkeypatch.delenv("STREAM_ML_KEY", raising=False)
        address = f"kafka://{cluster.bootstrap}/{cluster.pipeline}"
        code = main(["--broker", address, "--pipeline", "tests.shop:shop", "worker", stage])
        return code, capsys.readouterr().err

    return running


def test_without_its_topics_a_worker_ends_and_tells_how_to_make_them(
    kafka_broker: str, run: Callable[..., tuple[int, str]]
) -> None:
    """Every missing topic is named."""
    code, said = run(Cluster(kafka_broker, "shop"), "predict")

    assert 3 == code
    assert said.startswith(
        f"stream-ml: worker predict: expected the topics of 'shop' on {kafka_broker}, given none "
        "of the name shop.alerts, shop.answers, "
    )
    assert said.endswith("; make them with `stream-ml topics apply`\n")


def a_worker(cluster: Cluster, stage: str, say: Callable[..., None]) -> Worker:
    """A worker in this process."""
    return Worker(
        cluster,
        replace(shop, name=cluster.pipeline),
        stage,
        KEY,
        operators={},
        instance=None,
        commit_s=0.1,
        checkpoint_s=30.0,
        checkpoint_examples=512,
        command_age_s=3_600.0,
        say=say,
    )


def test_topics_that_do_not_fit_together_end_it(kafka_broker: str) -> None:
    """A task reads the same partition of each input: one topic with more of them is a mistake."""
    with place(kafka_broker, 1, "join") as cluster:
        with KafkaAdminClient(bootstrap_servers=kafka_broker) as admin:
            admin.create_partitions({cluster.topic("labels"): NewPartitions(2)})
        with pytest.raises(LogError) as error:
            asyncio.run(a_worker(cluster, "join", lambda *_, **__: None).run())

    name = cluster.pipeline
    assert str(error.value) == (
        "worker join: expected as many partitions of each topic it reads, given "
        f"{name}.predictions 1, {name}.labels 2, {name}.join-changelog 1; "
        "`stream-ml topics plan` tells how they should be"
    )


def test_a_stage_that_is_none_is_refused_with_those_there_are(
    run: Callable[..., tuple[int, str]],
) -> None:
    """As every wrong word on the command line."""
    code, said = run(Cluster("127.0.0.1:1", "shop"), "dance")

    assert 2 == code
    assert "'dance'" in said
    assert "choose from 'predict', 'join', 'learn', 'evaluate'" in said


def test_without_a_key_no_worker_begins(run: Callable[..., tuple[int, str]]) -> None:
    """Nothing is asked of the cluster: what would be signed by no key is not begun."""
    code, said = run(Cluster("127.0.0.1:1", "shop"), "learn", key=False)

    assert 2 == code
    assert "STREAM_ML_KEY: expected the key that signs models and decisions" in said
    assert "`openssl rand -hex 32`" in said


def test_where_no_broker_answers_it_waits_and_says_so_and_can_be_stopped() -> None:
    """A cluster that is down is no failure, and no reason not to obey SIGTERM."""
    cluster = Cluster(f"127.0.0.1:{free_ports(1)[0]}", a_name())
    said = []

    def say(kind: str, **members: Any) -> None:
        said.append((kind, members["for_"]))
        os.kill(os.getpid(), signal.SIGTERM)

    asyncio.run(asyncio.wait_for(a_worker(cluster, "predict", say).run(), DEADLINE_S))

    assert [("waiting", cluster.bootstrap)] == said


# --- stopping and failing ---------------------------------------------------------------------


def test_asked_to_stop_it_commits_all_that_it_has_folded(kafka_broker: str, tmp_path: Path) -> None:
    """What readers of uncommitted records have seen is there for all, with its state, and once."""
    events = visits(300)

    async def begin(cluster: Cluster) -> None:
        await serve(cluster)
        await publish_by_key(cluster, events, 1)

    with place(kafka_broker, 1, "predict") as cluster:
        asyncio.run(begin(cluster))
        house = House(tmp_path, cluster, DECLARATION)
        with house.worker("predict", STREAM_ML_COMMIT_SECONDS="4") as worker:
            until_said(worker, said="recovered", partition=0)
            asyncio.run(predicted(cluster, 300, "read_uncommitted", 1))
            ended = worker.stopped()
        ids = ids_of(cluster, 1)
        with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
            seals = Seals(bytes.fromhex("5a" * 32), cluster.pipeline, log.identity)
        pieces, positions = asyncio.run(state_of(cluster, "predict", 0, seals))

    assert (0, "") == (ended.code, ended.err)
    said = [orjson.loads(line)["said"] for line in ended.out.splitlines()]
    assert ["parked", "stopped"] == said[-2:]
    assert sorted(f"e{n}" for n in range(300)) == sorted(ids)
    assert {("events", 0): 300} == positions
    assert 300 == orjson.loads(pieces[""])["counts"]["events"]


def test_it_is_ready_once_it_has_recovered_and_counts_what_it_commits(
    kafka_broker: str, tmp_path: Path
) -> None:
    """While nothing serves its tasks recover: 503; then 200, and the figures are the log's."""
    events = visits(300)
    with place(kafka_broker, 2, "predict") as cluster:
        house = House(tmp_path, cluster, DECLARATION)
        with house.worker("predict", STREAM_ML_METRICS="0") as worker:
            address = ListenAddress.parse(until_said(worker, said="metrics")["address"])
            until_said(worker, said="recovering")
            until_said(worker, said="recovering")
            recovering = fetch(address, "/readyz")
            asyncio.run(serve(cluster))
            asyncio.run(publish_by_key(cluster, events, 2))
            until_said(worker, said="recovered")
            until_said(worker, said="recovered")
            families = until(address, "stream_ml_records_out_total", "topic", {"predictions": 300})
            probes = fetch(address, "/readyz"), fetch(address, "/healthz")
            ended = worker.stopped()
        with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
            traces = [trace(log, None, each) for each in ("e7", "e700")]
        found = asyncio.run(lying(cluster, ("predictions", 0), ("predictions", 1), ("events", 0)))

    assert (0, "") == (ended.code, ended.err)
    problems = ["predict-0 is recovering", "predict-1 is recovering"]
    assert (503, problems) == (recovering[0], orjson.loads(recovering[1])["problems"])
    assert ((200, b'{"ok":true,"problems":[]}\n'),) * 2 == probes
    first = len(found["events", 0])
    assert 300 == sum(len(found["predictions", p]) for p in (0, 1))
    assert {
        ("0", "events"): first,
        ("1", "events"): 300 - first,
    } == figures(families, "stream_ml_records_in_total", "partition", "topic")
    assert 300 == figures(families, "stream_ml_answer_seconds_count")[()]
    recoveries = figures(families, "stream_ml_recoveries_total", "partition")
    assert {("0",): 1, ("1",): 1} == recoveries
    assert "stream_ml_score" not in families
    assert ["its label has not come", False] == [traces[0].ended, traces[1].is_found]
    assert traces[0].predicted is not None


class _Exited(BaseException):
    """The process would have ended, with this code."""


async def never(*_: Any, **__: Any) -> None:
    """What does not come."""
    await asyncio.get_running_loop().create_future()


async def at_once(*_: Any, **__: Any) -> None:
    """What is there already."""


def stopped_unheard(
    monkeypatch: pytest.MonkeyPatch,
    park: Callable[..., Any],
    join: Callable[..., Any] = at_once,
    stop_after: str = "started",
) -> tuple[list[str], int | None]:
    """What a worker says that is asked to stop when no broker answers any more, and its code."""

    def exited(code: int) -> None:
        raise _Exited(code)

    app = SimpleNamespace(
        start=join,
        stop=never,
        wait_until_stopped=never,
        crash_reason=None,
        consumer=SimpleNamespace(stop_flow=lambda: None, epoch=1),
    )
    monkeypatch.setattr(Worker, "_find_topics", at_once)
    monkeypatch.setattr(Transactions, "start", at_once)
    monkeypatch.setattr(Worker, "_application", lambda *_: app)
    monkeypatch.setattr(worker_module, "_spare_collector", lambda: None)
    monkeypatch.setattr(worker_module, "STOP_S", 0.1)
    monkeypatch.setattr(worker_module, "CLOSE_S", 0.1)
    monkeypatch.setattr(os, "_exit", exited)
    said: list[str] = []

    def say(kind: str, **_: Any) -> None:
        said.append(kind)
        if kind == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    worker = a_worker(Cluster("127.0.0.1:1", "gone"), "join", say)
    worker._tasks[0] = SimpleNamespace(suspend=park)
    with pytest.raises(_Exited) as ended:
        asyncio.run(asyncio.wait_for(worker.run(), DEADLINE_S))
    return said, ended.value.args[0]


def test_what_has_committed_ends_though_no_broker_hears_its_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Soon, and with success: nothing is lost with the connections."""

    async def park(*_: Any, **__: Any) -> bool:
        return True

    assert (["started", "parked", "stopped"], 0) == stopped_unheard(monkeypatch, park)


def test_who_waits_for_a_place_in_the_group_says_so_and_may_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A group that is not shared out, as one of its members hangs, is told, and holds nobody."""

    async def park(*_: Any, **__: Any) -> bool:
        return True

    monkeypatch.setattr(worker_module, "REPORT_EVERY_S", 0.05)

    expected = (["waiting", "parked", "stopped"], 0)
    assert expected == stopped_unheard(monkeypatch, park, join=never, stop_after="waiting")


def test_what_cannot_commit_gives_up_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a while, and with failure: what is not committed is worked on again."""

    async def park(*_: Any, **__: Any) -> bool:
        await asyncio.get_running_loop().create_future()
        return True

    assert (["started"], 1) == stopped_unheard(monkeypatch, park)
    assert "asked to stop, it could not commit within 0.1 s" in capsys.readouterr().err


def shares(cluster: Cluster) -> list[int]:
    """How many partitions each member of the group has."""
    group = cluster.group("predict")
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        members = admin.describe_groups([group])[group]["members"]
    given = [each["member_assignment"] for each in members]
    return [
        sum(len(topic["partitions"]) for topic in each["assigned_partitions"]) if each else 0
        for each in given
    ]


def until_shared(cluster: Cluster, *wanted: int) -> None:
    """Wait until the members of the group have so many partitions each."""
    deadline = time.monotonic() + DEADLINE_S
    while sorted(found := shares(cluster)) != sorted(wanted):
        assert time.monotonic() < deadline, found


def test_those_of_a_killed_worker_move(kafka_broker: str, tmp_path: Path) -> None:
    """Two share; one is killed, and soon the other has all."""
    with place(kafka_broker, PARTITIONS, "predict") as cluster:
        asyncio.run(serve(cluster))
        house = House(tmp_path, cluster, DECLARATION)
        with house.worker("predict"), house.worker("predict") as second:
            until_shared(cluster, PARTITIONS // 2, PARTITIONS // 2)
            asyncio.run(publish_by_key(cluster, visits(200), PARTITIONS))
            asyncio.run(predicted(cluster, 200, "read_committed", PARTITIONS))

            killed = time.monotonic()
            second.process.kill()
            asyncio.run(publish_by_key(cluster, visits(200, "f"), PARTITIONS))
            asyncio.run(predicted(cluster, 400, "read_committed", PARTITIONS))
            moved_s = time.monotonic() - killed
        ids = ids_of(cluster, PARTITIONS)

    assert moved_s < MOVED_S_MAX
    assert sorted(f"{prefix}{n}" for prefix in "ef" for n in range(200)) == sorted(ids)


def test_a_worker_that_slept_while_another_took_over_writes_nothing_more(
    kafka_broker: str, tmp_path: Path
) -> None:
    """It wakes with an open transaction, in a group that has gone on: refused, it ends."""
    with place(kafka_broker, 1, "predict") as cluster:
        asyncio.run(serve(cluster))
        house = House(tmp_path, cluster, DECLARATION)
        # Far longer than it sleeps: no clock of the brokers' ends its transaction before it wakes.
        with house.worker("predict", STREAM_ML_COMMIT_SECONDS="60") as sleeper:
            asyncio.run(publish_by_key(cluster, visits(100), 1))
            asyncio.run(predicted(cluster, 100, "read_uncommitted", 1))
            sleeper.process.send_signal(signal.SIGSTOP)
            with house.worker("predict") as heir:
                until_said(heir, said="recovered")
                asyncio.run(publish_by_key(cluster, visits(50, "f"), 1))
                asyncio.run(predicted(cluster, 250, "read_uncommitted", 1))
                sleeper.process.send_signal(signal.SIGCONT)
                ended = sleeper.ended()
                # It has ended its transaction, or this would wait for a minute.
                asyncio.run(predicted(cluster, 150, "read_committed", 1))
        ids = ids_of(cluster, 1)

    assert sorted([*(f"e{n}" for n in range(100)), *(f"f{n}" for n in range(50))]) == sorted(ids)
    assert 1 == ended.code
    assert "Fenced: " in ended.err
    assert "expected to be who may write, given another that has taken over" in ended.err
    assert ended.err.endswith(
        "; what is not committed is worked on again when it is started again\n"
    )


@pytest.mark.parametrize(
    "error", [UsageError("shop: wrong"), DeclarationError("shop", [Problem("key", "a", "b")])]
)
def test_what_is_set_up_wrong_is_a_sentence_and_not_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: StreamMLError
) -> None:
    """Also from amid a restore: no trace, and the exit code at which `up` gives up at once."""

    def exited(code: int) -> None:
        raise _Exited(code)

    monkeypatch.setattr(os, "_exit", exited)
    with pytest.raises(_Exited) as ended:
        a_worker(Cluster("127.0.0.1:1", "gone"), "join", lambda *_, **__: None).fail(error)

    assert 2 == ended.value.args[0]
    assert f"stream-ml: worker join: {error}\n" == capsys.readouterr().err
    assert None is Patience().died(2, lived_s=60.0)


# --- what it ends for -------------------------------------------------------------------------


def test_of_two_workers_of_one_name_one_ends_and_says_why(
    kafka_broker: str, tmp_path: Path
) -> None:
    """The one that came last goes on; who looks after the other need not start it again."""
    with place(kafka_broker, 1, "join") as cluster:
        house = House(tmp_path, cluster, DECLARATION)
        named = ("worker", "join", "--format", "json", "--instance", "same")
        with house.terminal(*named) as first:
            until_said(first, said="recovered")
            with house.terminal(*named) as second:
                until_said(second, said="recovered")
                ended = first.ended()
                last = second.stopped()

    assert 2 == ended.code
    assert (
        "stream-ml: worker join: --instance same: expected to be the only worker of that name in "
        f"{cluster.group('join')}, given another that took its place; it goes on, and this one "
        "ends: give each worker a name of its own, or none"
    ) == ended.err.splitlines()[-1]
    assert 0 == last.code


def test_a_named_worker_that_was_killed_gets_its_place_back(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Its own former self is no other worker of its name."""
    with place(kafka_broker, 1, "join") as cluster:
        house = House(tmp_path, cluster, DECLARATION)
        named = ("worker", "join", "--format", "json", "--instance", "same")
        with house.terminal(*named) as first:
            until_said(first, said="recovered")
            first.process.kill()
        with house.terminal(*named) as second:
            until_said(second, said="recovered")
            ended = second.stopped()

    assert (0, "") == (ended.code, ended.err)


def test_models_made_anew_end_a_predictor_at_once(kafka_broker: str, tmp_path: Path) -> None:
    """It does not wait for snapshots that are gone, and says which, and what to do."""
    with place(kafka_broker, 1, "predict") as cluster:
        asyncio.run(serve(cluster))
        make_anew(cluster, "models")
        with House(tmp_path, cluster, DECLARATION).worker("predict") as worker:
            ended = worker.ended()

    assert 2 == ended.code
    assert 1 == len(ended.err.splitlines())
    assert f"{cluster.topic('models')}: expected the snapshots at 0" in ended.err
    assert "given a topic that begins at 0 and ends at 0: it was made anew or emptied" in ended.err
