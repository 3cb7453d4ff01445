"""Who may write what on a cluster with an authorizer: the brokers keep others from our topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import TopicAuthorizationFailedError

from stream_ml.errors import UsageError
from stream_ml.examples.cards import transactions
from stream_ml.shell.kafka.acls import ROLES, Grant, Right, create, missing, rights, strangers
from stream_ml.shell.kafka.admin import Demand, apply, plan, write_access_warning
from stream_ml.shell.kafka.cluster import Cluster, Security
from stream_ml.shell.kafka.security import client_options
from stream_ml.topics import catalogue, needed
from tests.kafka_broker import a_name
from tests.shell.processes import Ended, Terminal
from tools.kafka.broker import QUICK_START, Broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "not-a-secret-of-anybody"  # noqa: S105 - of a broker that lives as long as the test
USERS = ("admin", "stranger", *ROLES)
PRINCIPALS = tuple((role, f"User:{role}") for role in ROLES)
HERE = Cluster("127.0.0.1:9092", "shop")
OWNED = (
    "predictions",
    "examples",
    "models",
    "registry",
    "evaluations",
    "summaries",
    "answers",
    "alerts",
    "dead-letters",
)


def test_a_right_is_there_where_a_wider_rule_gives_it() -> None:
    """A rule for all operations, all names, names that begin so, or everybody covers it."""
    wanted = Grant("User:web", Right("topic", "shop.events", False, "write"))
    covering = [
        wanted,
        Grant("User:web", Right("topic", "shop.events", False, "all")),
        Grant("User:web", Right("topic", "shop.", True, "write")),
        Grant("User:web", Right("topic", "*", False, "write")),
        Grant("User:*", Right("topic", "shop.events", False, "write")),
    ]
    others = [
        Grant("User:bi", Right("topic", "shop.events", False, "write")),
        Grant("User:web", Right("topic", "shop.events", False, "read")),
        Grant("User:web", Right("group", "shop.events", False, "write")),
        Grant("User:web", Right("topic", "shop.events.old", True, "write")),
        Grant("User:web", Right("topic", "shop.event", False, "write")),
        Grant("User:web", Right("topic", "shop.events", False, "write"), "10.0.0.7"),
    ]

    assert [missing([wanted], [each]) for each in covering] == [[]] * 5
    assert missing([wanted], others) == [wanted]


@pytest.mark.parametrize("role", ["producer", "consumer", "operator"])
def test_no_role_but_the_workers_may_write_what_stages_own(role: str) -> None:
    """Not by the rights that its role needs."""
    granted = [Grant("User:x", right) for right in rights(role, HERE, catalogue())]

    assert strangers(granted, HERE, catalogue(), []) == {}


def test_whoever_else_may_write_what_stages_own_is_named() -> None:
    """By a rule of any kind; workers, and topics that are for others to write, are not."""
    there = [
        Grant("User:ml", Right("topic", "shop.", True, "all")),
        Grant("User:eve", Right("topic", "shop.examples", False, "write")),
        Grant("User:eve", Right("topic", "shop.examples", False, "write"), "10.0.0.7"),
        Grant("User:web", Right("topic", "shop.events", False, "write")),
    ]

    assert strangers(there, HERE, catalogue(), ["User:ml"]) == {
        "examples": ["User:eve", "User:eve from 10.0.0.7"]
    }


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that asks who one is, and lets do only what is allowed."""
    users = " ".join(f'user_{name}="{SECRET}"' for name in USERS)
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",  # the broker itself does not say who it is
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
    }
    home = tmp_path_factory.mktemp("broker")
    with Broker(
        home, protocol="SASL_PLAINTEXT", properties=properties, java_options=QUICK_START
    ) as started:
        yield started


@pytest.fixture
def name() -> str:
    """A pipeline's name of one's own."""
    return a_name("acls")


def place(broker: Broker, name: str, user: str) -> Cluster:
    """The pipeline's place, as a user comes to it."""
    security = Security(mechanism="PLAIN", username=user, password=SECRET)
    return Cluster(broker.address, name, security)


def write(cluster: Cluster, topic: str) -> str:
    """What becomes of a record that one writes to a topic."""
    options = {"bootstrap_servers": cluster.bootstrap, **client_options(cluster.security)}
    producer = KafkaProducer(**options, enable_idempotence=False, max_block_ms=10_000)
    try:
        producer.send(cluster.topic(topic), b"{}", b"key", partition=0).get(timeout=10)
    except TopicAuthorizationFailedError:
        return "refused"
    finally:
        producer.close(timeout=10)
    return "taken"


def read(cluster: Cluster, topic: str) -> str:
    """Whether one may read a topic."""
    options = {"bootstrap_servers": cluster.bootstrap, **client_options(cluster.security)}
    consumer = KafkaConsumer(**options, enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(cluster.topic(topic), 0)])
        consumer.seek(TopicPartition(cluster.topic(topic), 0), 0)
        consumer.poll(timeout_ms=2_000)
    except TopicAuthorizationFailedError:
        return "refused"
    finally:
        consumer.close()
    return "taken"


def test_plan_says_what_is_missing_and_apply_allows_it_once(broker: Broker, name: str) -> None:
    """Every right of every role is missing, then none is; nothing is done twice."""
    cluster, demand = place(broker, name, "admin"), Demand(principals=PRINCIPALS)
    topics = needed(catalogue())
    wanted = {
        f"User:{role} may {right}" for role in ROLES for right in rights(role, cluster, topics)
    }

    planned = {c.target for c in plan(cluster, demand).changes if c.attribute == "acl"}
    applied = {c.target for c in apply(cluster, demand).changes if c.attribute == "acl"}

    # Rights that no topic is named in may have been given to another pipeline's workers before.
    assert (wanted - planned, planned - wanted) in [
        (set(), set()),
        ({"User:worker may describe cluster kafka-cluster"}, set()),
    ]
    assert applied == planned
    assert plan(cluster, demand).changes == ()


def test_nobody_but_workers_may_write_what_stages_own(broker: Broker, name: str) -> None:
    """Producers write events and labels, operators commands; a stranger nothing."""
    apply(place(broker, name, "admin"), Demand(principals=PRINCIPALS))

    def may(user: str, *topics: str) -> set[str]:
        return {write(place(broker, name, user), topic) for topic in topics}

    assert may("producer", "events", "labels") == {"taken"}
    assert may("producer", "commands", *OWNED) == {"refused"}
    assert may("operator", "commands") == {"taken"}
    assert may("operator", "events", "registry", "examples") == {"refused"}
    assert may("consumer", "events", "predictions") == {"refused"}
    assert may("stranger", "events", "labels", "commands", "predict-changelog") == {"refused"}
    assert may("worker", "examples", "predict-changelog") == {"taken"}
    assert read(place(broker, name, "consumer"), "predictions") == "taken"
    assert read(place(broker, name, "consumer"), "events") == "refused"


def test_who_else_may_write_is_told(
    broker: Broker, name: str, kafka_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster without an authorizer says so; one with it, whom its rules let in."""
    del monkeypatch
    cluster = place(broker, name, "admin")
    apply(cluster, Demand(principals=PRINCIPALS))
    assert write_access_warning(cluster) is None
    # Who may not look is told nothing.
    assert write_access_warning(place(broker, name, "producer")) is None

    with KafkaAdminClient(
        bootstrap_servers=broker.address, **client_options(cluster.security)
    ) as admin:
        right = Right("topic", cluster.topic("registry"), False, "write")
        create(admin, [Grant("User:eve", right, "10.0.0.7")])
    (warning,) = plan(cluster, Demand(principals=PRINCIPALS)).warnings
    assert f"{name}.registry: User:eve from 10.0.0.7 may write there" in warning
    assert write_access_warning(cluster) is None

    wide = Demand(principals=(*PRINCIPALS, ("worker", "User:*")))
    apply(cluster, wide)
    assert f"lets anyone write to {name}.alerts" in (write_access_warning(cluster) or "")

    trial = Cluster(kafka_broker, name)
    assert "lets anyone write to any topic" in (write_access_warning(trial) or "")
    with pytest.raises(UsageError, match="acls: expected a cluster with an authorizer"):
        apply(trial, Demand(principals=PRINCIPALS))


def jsonl(records: list[dict[str, Any]]) -> bytes:
    """Lines to publish."""
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def test_the_loop_runs_with_the_rights_of_each_role(broker: Broker, tmp_path: Path) -> None:
    """Workers, a producer, a consumer and an operator, each by its own name, miss nothing."""
    events, labels = transactions(1_700, seed=1)

    def terminal(user: str, *arguments: str) -> Terminal:
        variables = {
            "STREAM_ML_BROKER": f"kafka://{broker.address}",
            "STREAM_ML_PIPELINE": "stream_ml.examples.cards:cards",
            "STREAM_ML_KEY": "5a" * 32,
            "STREAM_ML_SASL": f"PLAIN:{user}",
            "STREAM_ML_PASSWORD": SECRET,
        }
        return Terminal(*arguments, folder=tmp_path, **variables)

    def run(user: str, *arguments: str, given: bytes = b"") -> Ended:
        with terminal(user, *arguments) as command:
            if given:
                command.write(given)
            return command.ended()

    acls = [f"{role}=User:{role}" for role in ROLES]
    assert run("admin", "topics", "plan", "--acls", *acls).code == 2
    applied = run("admin", "topics", "apply", "--partitions", "1", "--acls", *acls)
    assert (applied.code, applied.err) == (0, "")
    assert run("admin", "topics", "plan", "--acls", *acls).code == 0
    with terminal("worker", "up") as workers:
        assert run("producer", "publish", "events", "-", given=jsonl(events)).code == 0
        assert run("producer", "publish", "labels", "-", given=jsonl(labels)).code == 0
        follow = ("predictions", "--follow", "--from", "beginning", "--format", "json")
        with terminal("consumer", *follow) as reader:
            told = [orjson.loads(reader.line())["event_id"] for _ in events]
        workers.line_with("model logistic@500")
        status = run("operator", "status")
        promoted = run("operator", "promote", "tree", "--expect", "logistic", "--reason", "a walk")
        assert workers.stopped().code == 0

    assert sorted(told) == sorted(event["event_id"] for event in events)
    assert (status.code, promoted.code) == (0, 0), (status, promoted)
    assert run("operator", "audit", "verify").code == 0
