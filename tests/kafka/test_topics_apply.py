"""A cluster's topics become what the catalogue says, and nothing is taken away on the way."""

from __future__ import annotations

import gc
import time
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from stream_ml.cli.main import main
from stream_ml.errors import LogError, UsageError
from stream_ml.shell.kafka import admin as admin_module
from stream_ml.shell.kafka.admin import Demand, Plan, Present, apply, compare, configs, plan
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.topics import catalogue, needed
from tests.kafka_broker import a_name
from tools.kafka.broker import HOST, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from stream_ml.topics import Topic

DAY_MS = 86_400_000
TOPICS = needed(catalogue())
SCALING = {name: 4 for name, topic in TOPICS.items() if topic.scales}


@pytest.fixture
def cluster(kafka_broker: str) -> Iterator[Cluster]:
    """A place of this test's own on the broker, which has no topics yet."""
    place = Cluster(kafka_broker, a_name("topics"))
    yield place
    with KafkaAdminClient(bootstrap_servers=kafka_broker) as admin:
        ours = [name for name in admin.list_topics() if name.startswith(f"{place.pipeline}.")]
        if ours:
            admin.delete_topics(ours)


def described(cluster: Cluster, topic: str) -> dict[str, str]:
    """What Kafka itself says of a topic's configs."""
    asked = ConfigResource(ConfigResourceType.TOPIC, cluster.topic(topic))
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        found = admin.describe_configs([asked], config_filter="all")["topic"][asked.name]
    return {name: each["value"] for name, each in found.items()}


def altered(cluster: Cluster, topic: str, values: Mapping[str, str]) -> None:
    """Change a topic's configs by hand."""
    asked = ConfigResource(ConfigResourceType.TOPIC, cluster.topic(topic), configs=dict(values))
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        assert admin.alter_configs([asked])["topic"] == {asked.name: "OK"}


def partitions(cluster: Cluster) -> dict[str, int]:
    """How many partitions Kafka itself counts, by name in the catalogue."""
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        found = admin.describe_topics([cluster.topic(name) for name in TOPICS])
    prefix = f"{cluster.pipeline}."
    return {topic["name"].removeprefix(prefix): len(topic["partitions"]) for topic in found}


def changed(plan: Plan) -> set[tuple[str, str]]:
    """Topic and what of it changes."""
    return {(change.topic, change.attribute) for change in plan.changes}


def differing(cluster: Cluster) -> Plan:
    """The plan, once the broker shows what it was told: it answers before it has learned of it."""
    ends = time.monotonic() + admin_module.SETTLE_S
    while not (found := plan(cluster)).changes and time.monotonic() < ends:
        pass
    return found


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `stream-ml topics`, on this test's place."""

    def run(*arguments: str, broker: str | None = None) -> Ran:
        place = broker or f"kafka://{cluster.bootstrap}/{cluster.pipeline}"
        code = main(["--broker", place, "topics", *arguments])
        return Ran(code, *capsys.readouterr())

    return run


# --- on the broker ----------------------------------------------------------------------------


def test_topics_are_made_as_the_catalogue_says_and_a_second_time_nothing_is(
    cluster: Cluster,
) -> None:
    """All topics are planned, then made, with every config; applying again changes nothing."""
    wanted = {(name, "topic") for name in TOPICS}
    assert changed(plan(cluster)) == wanted

    assert changed(apply(cluster)) == wanted

    assert plan(cluster) == Plan()
    assert apply(cluster) == Plan()
    assert partitions(cluster) == {name: topic.partitions for name, topic in TOPICS.items()}
    for name, topic in TOPICS.items():
        found = described(cluster, name)
        assert {**found, **configs(topic, 1)} == found, name
        assert found["message.timestamp.type"] == "LogAppendTime"
        assert int(found["max.message.bytes"]) > topic.record_bytes_max


@pytest.mark.parametrize(
    ("topic", "values"),
    [
        ("events", {"retention.ms": "3600000"}),
        ("registry", {"retention.ms": "3600000", "message.timestamp.type": "CreateTime"}),
        ("models", {"cleanup.policy": "delete", "max.message.bytes": "1000"}),
    ],
)
def test_what_was_altered_by_hand_is_named_and_put_right(
    cluster: Cluster, topic: str, values: dict[str, str]
) -> None:
    """A plan names topic, config and both values; applying sets what the catalogue says."""
    apply(cluster)
    altered(cluster, topic, values)

    found = differing(cluster)

    assert changed(found) == {(topic, name) for name in values}
    assert {change.attribute: change.present for change in found.changes} == values
    assert apply(cluster).changes == found.changes
    assert plan(cluster) == Plan()
    assert {**described(cluster, topic), **configs(catalogue()[topic], 1)} == described(
        cluster, topic
    )


def test_a_topic_that_is_gone_comes_back_as_the_others_are(cluster: Cluster) -> None:
    """What scales gets as many partitions as what is there, though the catalogue has another."""
    apply(cluster, Demand(partitions=3))
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.delete_topics([cluster.topic("labels")])
    differing(cluster)

    assert changed(apply(cluster)) == {("labels", "topic")}

    assert {partitions(cluster)[name] for name in SCALING} == {3}


def test_more_partitions_are_made_with_a_warning_and_fewer_never(cluster: Cluster) -> None:
    """Growing all that scales re-shards state, which is said; shrinking is refused as a whole."""
    apply(cluster, Demand(partitions=2))
    altered(cluster, "events", {"retention.ms": "3600000"})

    with pytest.raises(UsageError, match="events:partitions: expected at least the 2 that there"):
        apply(cluster, Demand(partitions=1))
    assert changed(differing(cluster)) == {("events", "retention.ms")}  # as it was

    grown = apply(cluster, Demand(partitions=4))

    assert {name for name, what in changed(grown) if what == "partitions"} == set(SCALING)
    assert ["more partitions re-shard the state" in warning for warning in grown.warnings] == [True]
    assert {name: n for name, n in partitions(cluster).items() if n > 1} == SCALING
    assert plan(cluster, Demand(partitions=4)) == Plan()


def test_another_key_is_refused(cluster: Cluster) -> None:
    """What the keys are is remembered on the cluster; a catalogue that has others is refused."""
    apply(cluster)
    wrong: dict[str, Topic] = {
        **catalogue(),
        "labels": replace(catalogue()["labels"], key="the customer"),
    }

    with pytest.raises(UsageError, match="labels:key: expected 'event_id, as UTF-8', by which"):
        apply(cluster, topics=wrong)

    assert plan(cluster) == Plan()


def test_topics_that_others_made_are_adopted(cluster: Cluster) -> None:
    """Configs are put right, and what the keys are is written down."""
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.create_topics(
            {cluster.topic("events"): {"num_partitions": 2}}, wait_for_metadata=True
        )

    done = apply(cluster)

    assert {("events", "key"), ("events", "message.timestamp.type")} <= changed(done)
    assert {partitions(cluster)[name] for name in SCALING} == {2}
    assert plan(cluster) == Plan()


def test_a_cluster_that_does_not_answer_is_told_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody there is an error that names the address, after as long as is waited for one."""
    monkeypatch.setattr(admin_module, "CONNECT_MS", 500)
    (port,) = free_ports(1)

    with warnings.catch_warnings():
        # The client forgets to close sockets that nobody answered on.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(LogError, match=f"{HOST}:{port}: expected a Kafka cluster that answers"):
            plan(Cluster(f"{HOST}:{port}", "x"))
        gc.collect()


# --- the command ------------------------------------------------------------------------------


def test_the_command_plans_applies_and_finds_nothing_more(command: Any, cluster: Cluster) -> None:
    """Exit code 2 says that something differs, and 0 that nothing does."""
    planned = command("plan", "--partitions", "2")
    assert planned.code == 2
    assert f"{cluster.topic('events')} " in planned.out
    assert f"{len(TOPICS)} differences from the catalogue" in planned.err

    applied = command("apply", "--partitions", "2")
    assert (applied.code, applied.err) == (0, "")

    again = command("apply")
    assert (again.code, again.out) == (
        0,
        f"0 changes: {cluster.topic('*')} on {cluster.bootstrap} is as the catalogue says\n",
    )
    assert command("plan").code == 0


def test_the_command_tells_a_program_what_differs(command: Any, cluster: Cluster) -> None:
    """As JSON a change has its topic, what it is, and both values."""
    command("apply")
    altered(cluster, "alerts", {"retention.ms": "3600000"})
    differing(cluster)

    planned = command("plan", "--format", "json")

    assert planned.code == 2
    assert orjson.loads(planned.out) == {
        "changes": [
            {
                "topic": "alerts",
                "what": "retention.ms",
                "present": "3600000",
                "wanted": str(365 * DAY_MS),
            }
        ],
        "refused": [],
        "warnings": [],
    }
    refused = command("plan", "--format", "json", "--partitions", "1")
    assert {each["path"] for each in orjson.loads(refused.out)["refused"]} == {
        f"{name}:partitions" for name in SCALING
    }
    assert refused.code == 2


@pytest.mark.parametrize(
    ("arguments", "broker", "said"),
    [
        (("--partitions", "2"), None, "--partitions: expected `topics plan` or `topics apply`"),
        (("plan", "--partitions", "0"), None, "expected a whole number from 1, given '0'"),
        (("plan",), "sqlite:x.sqlite", "expected a cluster, kafka://HOST:PORT, given 'sqlite:x"),
        (("plan",), "kafka://127.0.0.1:9", "expected to know the pipeline"),
    ],
)
def test_a_wrong_use_is_told(
    command: Any, arguments: tuple[str, ...], broker: str | None, said: str
) -> None:
    """What was expected, what was given, before anything is asked of a cluster."""
    ran = command(*arguments, broker=broker)

    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


LONG = """
import dataclasses
import stream_ml as sml
from stream_ml.examples.cards import cards
patient = dataclasses.replace(cards, name={name!r}, label=sml.Label(bool, horizon="12d"))
"""


def test_a_declared_horizon_is_held_against_what_is_kept(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A pipeline whose labels outlast the predictions on the log is refused, and no topic made."""
    (tmp_path / "outlasting.py").write_text(LONG.format(name=cluster.pipeline))
    monkeypatch.syspath_prepend(tmp_path)
    declared = ("--broker", f"kafka://{cluster.bootstrap}", "--pipeline", "outlasting:patient")

    assert main([*declared, "topics", "apply"]) == 2

    refused = capsys.readouterr().err
    assert "topics apply: refused, and nothing was changed" in refused
    assert f"predictions:retention_ms: expected at least {15 * DAY_MS}" in refused
    assert partitions(cluster) == dict.fromkeys(TOPICS, 0)


# --- comparing, without a broker --------------------------------------------------------------


def present(replication: int = 1) -> dict[str, Present]:
    """What a cluster has that is as the catalogue says."""
    return {
        name: Present(topic.partitions, replication, configs(topic, replication), topic.key)
        for name, topic in TOPICS.items()
    }


def test_a_horizon_that_outlasts_the_records_is_refused() -> None:
    """What waits for labels is kept for the horizon and for workers to be down."""
    assert compare(present(), Demand(horizon_ms=11 * DAY_MS), catalogue(), 1) == Plan()

    refused = compare(present(), Demand(horizon_ms=12 * DAY_MS), catalogue(), 1).refusals

    assert [problem.path for problem in refused] == ["predictions:retention_ms"]
    assert f"at least {15 * DAY_MS}" in refused[0].expected
    assert refused[0].actual == str(14 * DAY_MS)


def test_a_shorter_retention_warns_of_what_is_deleted() -> None:
    """What goes is said before it goes."""
    longer = present()
    kept = {**longer["alerts"].configs, "retention.ms": "-1"}
    longer["alerts"] = replace(longer["alerts"], configs=kept)

    assert compare(longer, Demand(), catalogue(), 1).warnings == (
        f"alerts: what is older than {365 * DAY_MS} ms is deleted",
    )


@pytest.mark.parametrize(
    ("replication", "in_sync"), [(1, "1"), (2, "2"), (3, "2"), (4, "3"), (5, "3")]
)
def test_most_copies_have_what_is_acknowledged(replication: int, in_sync: str) -> None:
    """What a majority of copies has is not lost with a minority of them."""
    assert configs(catalogue()["events"], replication)["min.insync.replicas"] == in_sync
    assert compare(present(replication), Demand(), catalogue(), 1) == Plan()


def test_copies_are_not_moved() -> None:
    """Another replication than there is needs Kafka's own tool, and is refused by its name."""
    refused = compare(present(1), Demand(replication=3), catalogue(), 1).refusals

    assert {problem.path for problem in refused} == {f"{name}:replication" for name in TOPICS}
    assert "kafka-reassign-partitions" in refused[0].expected


def test_a_topic_of_some_declarations_is_made_for_these_and_stays() -> None:
    """Late events have a topic where it is declared; it is kept once it is no more."""
    late = Demand(extra_topics=("late-events",))
    kept = catalogue()["late-events"]
    had = {**present(), kept.name: Present(kept.partitions, 1, configs(kept, 1), kept.key)}
    former = {**had[kept.name].configs, "retention.ms": "60000000"}
    other = {**had, kept.name: replace(had[kept.name], configs=former)}

    assert compare(present(), Demand(), catalogue(), 1) == Plan()
    planned = compare(present(), late, catalogue(), 1).changes
    assert [(each.topic, each.attribute) for each in planned] == [("late-events", "topic")]
    assert compare(had, late, catalogue(), 1) == compare(had, Demand(), catalogue(), 1) == Plan()
    assert changed(compare(other, Demand(), catalogue(), 1)) == {("late-events", "retention.ms")}
