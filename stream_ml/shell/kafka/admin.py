"""Makes a cluster's topics what the catalogue says, and says what would have to change.

Theory of operation. `plan` compares what the cluster has with what `topics/*.toml` wants, and
`apply` makes the difference go away; where there is none it does nothing. The comparison itself,
`compare`, is a function of both sides and touches nothing.

What is wanted of a topic: its number of partitions, cleanup, retention and longest batch, all from
its file; times of appending rather than of events (retention by old event times would empty a
topic within minutes); and copies that outlive the loss of a broker. Every one is set on the topic
itself, so that no default of a broker's can change it.

**Partitions.** The topics that scale are laid out alike, for a task reads the same partition of
several. How many they have is said by whoever asks, else by what the cluster has, else by the
catalogue. More of them move keys away from where their state lies: allowed, with a warning. Fewer
are refused, for Kafka cannot take any away.

**Keys.** Kafka does not know what a key is, so `apply` writes it down, a record per topic, on the
compacted topic `layout`. A catalogue with another key is refused: records of one entity would lie
in two partitions.

**Rights.** Where principals are named, what their roles need is allowed (`acls`); no right is ever
taken away.

**Retention.** What stages read is kept for as long as workers may be down (`RECOVERY_MS`), and
what waits for labels for the horizon beside; a catalogue that keeps less is refused.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, for_code

from stream_ml.errors import LogError, Problem, UsageError
from stream_ml.shell.kafka import acls
from stream_ml.shell.kafka.clients import admin_client, translated_errors
from stream_ml.shell.kafka.security import client_options
from stream_ml.stages.topology import STAGES
from stream_ml.topics import catalogue, needed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.topics import Topic

__all__ = [
    "Change",
    "Demand",
    "Plan",
    "Present",
    "apply",
    "compare",
    "plan",
    "write_access_warning",
]

CONNECT_MS = 10_000
REQUEST_MS = 30_000
# A change may take so long to show: a broker answers before all of the cluster has learned of it.
SETTLE_S = 15.0
SETTLE_POLL_S = 0.05

# A batch holds keys, headers and framing beside the longest value, or many short records.
BATCH_BYTES_BESIDE = 1_048_576
# Only what lies in closed segments is compacted, and recovery reads all that is not.
COMPACTED_SEGMENT_BYTES = 67_108_864
# A weekend.
RECOVERY_MS = 3 * 86_400_000
# Topics that labels wait on: they are kept for the label's horizon beside the recovery time.
WAITED_FOR = frozenset({"events", "labels", "predictions"})
LAYOUT = "layout"
FOREVER = "-1"  # as Kafka says it
RESHARDS = (
    "more partitions re-shard the state: keys move to partitions where theirs does not lie, and "
    "begin anew there; stop the workers before, and expect the windows of keys that move, and "
    "predictions among them that wait for a label, to be lost"
)

_UNKNOWN_TOPIC = 3
_ALREADY_THERE = 36


# Has as many partitions as the events.
WITH_EVENTS = ("events", "predict-changelog")


@dataclass(frozen=True, slots=True)
class Demand:
    """Requirements on a cluster beside the catalogue.

    Attributes:
        partitions: of the topics that scale; None leaves it to what there is.
        replication: copies of every partition; None leaves it to the cluster.
        horizon_ms: how long a label may come after its event; None where it is not known.
        principals: who has which role, as pairs of a role and a principal, such as
            `("producer", "User:web")`: what the role needs is to be allowed (see `acls`).
        has_entities: whether windows of entities other than the key are declared: all events lie
            in one partition then, whatever scales otherwise.
        extra_topics: of those that only some declarations have, the ones of this one.
    """

    partitions: int | None = None
    replication: int | None = None
    horizon_ms: int | None = None
    principals: tuple[tuple[str, str], ...] = ()
    has_entities: bool = False
    extra_topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """A topic as the cluster has it; `key` is None where nobody has written it down."""

    partitions: int
    replication: int
    configs: Mapping[str, str]
    key: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A difference: `attribute` is `topic`, `partitions`, `key`, `acl`, or a config of Kafka's.

    Attributes:
        topic: its name in the catalogue.
        attribute: of it is to change.
        present: how it is; None where there is nothing.
        target: how it is to be.
    """

    topic: str
    attribute: str
    present: str | None
    target: str

    def as_dict(self) -> dict[str, str | None]:
        """The change as `topics plan --format json` prints it.

        >>> Change("alerts", "retention.ms", None, "60000").as_dict()
        {'topic': 'alerts', 'what': 'retention.ms', 'present': None, 'wanted': '60000'}
        """
        return {
            "topic": self.topic,
            "what": self.attribute,
            "present": self.present,
            "wanted": self.target,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes to make, those that are refused, and warnings to read before."""

    changes: tuple[Change, ...] = ()
    refusals: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


# --- comparing --------------------------------------------------------------------------------


def compare(
    present: Mapping[str, Present], demand: Demand, topics: Mapping[str, Topic], replication: int
) -> Plan:
    """Plan the changes that make `present` what `topics` says.

    Args:
        present: what the cluster has, by name in the catalogue.
        demand: what is asked for beside.
        topics: the catalogue.
        replication: how many copies a new topic gets where `demand` does not say.

    >>> from stream_ml.topics import catalogue
    >>> new = compare({}, Demand(partitions=8), catalogue(), 1)
    >>> [change.target for change in new.changes if change.topic == "events"]
    ['8 partitions']
    """
    draft = _Draft(demand, demand.replication or replication, _scale(present, demand, topics))
    # What was declared once stays, as the catalogue has it.
    for topic in needed(topics, {*demand.extra_topics, *present}).values():
        draft.retention(topic)
        if topic.name in present:
            draft.alter(topic, present[topic.name])
        else:
            draft.create(topic)
    return Plan(tuple(draft.changes), tuple(draft.refusals), tuple(draft.warnings))


def _scale(
    present: Mapping[str, Present], demand: Demand, topics: Mapping[str, Topic]
) -> int | None:
    """The number of partitions of topics that scale; None for the catalogue's number."""
    if demand.partitions is not None:
        return demand.partitions
    had = [present[t.name].partitions for t in topics.values() if t.scales and t.name in present]
    return max(had, default=None)


@dataclass(slots=True)
class _Draft:
    """A plan while it is made."""

    demand: Demand
    replication: int
    scale: int | None
    changes: list[Change] = field(default_factory=list)
    refusals: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def create(self, topic: Topic) -> None:
        count = self.partitions(topic)
        target = "1 partition" if count == 1 else f"{count} partitions"
        self.changes.append(Change(topic.name, "topic", None, target))

    def alter(self, topic: Topic, present: Present) -> None:
        self._alter_partitions(topic, present)
        if self.demand.replication not in (None, present.replication):
            self._refuse(
                topic,
                "replication",
                f"{present.replication}, for Kafka moves copies by kafka-reassign-partitions alone",
                str(self.demand.replication),
            )
        for name, target in configs(topic, present.replication).items():
            if present.configs.get(name) != target:
                self._alter_config(topic, name, present.configs.get(name), target)
        if present.key is None:
            self.changes.append(Change(topic.name, "key", None, topic.key))
        elif present.key != topic.key:
            self._refuse(
                topic,
                "key",
                f"{present.key!r}, by which its records lie in their partitions; another key needs "
                "another pipeline name, whose topics are new",
                repr(topic.key),
            )

    def retention(self, topic: Topic) -> None:
        """Refuse a topic that is kept for less time than stages and recoveries need."""
        if topic.retention_ms is None or STAGES.keys().isdisjoint(topic.readers):
            return
        horizon_ms = (self.demand.horizon_ms or 0) if topic.name in WAITED_FOR else 0
        needed_ms = horizon_ms + RECOVERY_MS
        if topic.retention_ms < needed_ms:
            self._refuse(
                topic,
                "retention_ms",
                f"at least {needed_ms} (the label's horizon of {horizon_ms}, and {RECOVERY_MS} for "
                f"workers to be down); give topics/{topic.name}.toml more, or the label less",
                str(topic.retention_ms),
            )

    def partitions(self, topic: Topic) -> int:
        """The number of partitions that the topic is to have."""
        if self.demand.has_entities and topic.name in WITH_EVENTS:
            return 1
        return topic.partitions if not topic.scales or self.scale is None else self.scale

    def _alter_partitions(self, topic: Topic, present: Present) -> None:
        target = self.partitions(topic)
        if target == present.partitions:
            return
        if target < present.partitions:
            requirement = (
                f"at least the {present.partitions} that there are, for Kafka cannot take any away"
            )
            if self.demand.has_entities and topic.name in WITH_EVENTS:
                requirement += "; windows of an entity need a pipeline name whose topics are new"
            self._refuse(topic, "partitions", requirement, str(target))
            return
        self.changes.append(Change(topic.name, "partitions", str(present.partitions), str(target)))
        if RESHARDS not in self.warnings:
            self.warnings.append(RESHARDS)

    def _alter_config(self, topic: Topic, name: str, present: str | None, target: str) -> None:
        self.changes.append(Change(topic.name, name, present, target))
        if name == "retention.ms" and target != FOREVER and present is not None:
            present_ms = int(present)
            if present_ms < 0 or present_ms > int(target):
                self.warnings.append(f"{topic.name}: what is older than {target} ms is deleted")

    def _refuse(self, topic: Topic, attribute: str, requirement: str, actual: str) -> None:
        self.refusals.append(Problem(f"{topic.name}:{attribute}", requirement, actual))


def configs(topic: Topic, replication: int) -> dict[str, str]:
    """The settings, in Kafka's names, of a topic that has so many copies.

    >>> from stream_ml.topics import catalogue
    >>> configs(catalogue()["predictions"], 3)["min.insync.replicas"]
    '2'

    Args:
        topic: as the catalogue has it.
        replication: how many copies each partition has.
    """
    values = {
        "cleanup.policy": topic.cleanup,
        "retention.ms": FOREVER if topic.retention_ms is None else str(topic.retention_ms),
        "retention.bytes": FOREVER,
        "max.message.bytes": str(topic.record_bytes_max + BATCH_BYTES_BESIDE),
        # The broker stamps (KIP-32): a client's clock could empty a topic, or lead its time.
        "message.timestamp.type": "LogAppendTime",
        # Producers compress as they like, and the broker undoes it: a worker that has no library
        # for a codec could never get past such a record.
        "compression.type": "uncompressed",
        # A record that most copies have is not lost with one of them.
        "min.insync.replicas": str(replication // 2 + 1),
        "unclean.leader.election.enable": "false",
    }
    if topic.cleanup == "compact":
        values["segment.bytes"] = str(COMPACTED_SEGMENT_BYTES)
    return values


# --- on the cluster ---------------------------------------------------------------------------


def plan(
    cluster: Cluster, demand: Demand | None = None, topics: Mapping[str, Topic] | None = None
) -> Plan:
    """Plan the changes that make the pipeline's topics what the catalogue says.

    Args:
        cluster: where they are.
        demand: what is asked for beside the catalogue.
        topics: the catalogue; the one that is shipped by default.

    Raises:
        LogError: the cluster cannot be reached, or refuses us.
    """
    with _TopicManager.connect(cluster, topics) as manager:
        return manager.plan(demand or Demand())


def apply(
    cluster: Cluster, demand: Demand | None = None, topics: Mapping[str, Topic] | None = None
) -> Plan:
    """Make the pipeline's topics what the catalogue says; returns what that took.

    Does nothing where nothing differs. Several may do it at once.

    Args:
        cluster: where they are, or will be.
        demand: what is asked for beside the catalogue.
        topics: the catalogue; the one that is shipped by default.

    Raises:
        UsageError: some of it is refused; nothing was changed.
        LogError: the cluster cannot be reached, or refuses us, or did not do what it was told.
    """
    demand = demand or Demand()
    with _TopicManager.connect(cluster, topics) as manager:
        topic_plan = manager.plan(demand)
        if topic_plan.refusals:
            problems = "\n  ".join(map(str, topic_plan.refusals))
            raise UsageError(f"topics apply: refused, and nothing was changed:\n  {problems}")
        if topic_plan.changes:
            manager.make(topic_plan, demand)
            manager.settle(demand)
        return topic_plan


def write_access_warning(cluster: Cluster) -> str | None:
    """A sentence about who may write what only stages should; None where it is well or not shown.

    Raises:
        LogError: the cluster cannot be reached, or refuses us otherwise.
    """
    with _TopicManager.connect(cluster, None) as manager:
        try:
            grants = acls.present(manager.admin)
        except ClusterAuthorizationFailedError:
            return None
        if grants is None:
            return (
                f"{cluster.bootstrap} lets anyone write to any topic, for it has no authorizer: "
                "what is forged is refused, but only brokers can keep it out; see `topics apply "
                "--acls`"
            )
        open_topics = [
            name
            for name, principals in acls.strangers(grants, cluster, manager.topics, ()).items()
            if acls.ANY_PRINCIPAL in principals
        ]
        if open_topics:
            names = ", ".join(map(cluster.topic, open_topics))
            return f"{cluster.bootstrap} lets anyone write to {names}: take those rules away"
        return None


@dataclass(slots=True)
class _TopicManager:
    """A pipeline's topics on a cluster, over one connection."""

    cluster: Cluster
    topics: Mapping[str, Topic]
    admin: KafkaAdminClient

    @classmethod
    @contextmanager
    def connect(
        cls, cluster: Cluster, topics: Mapping[str, Topic] | None
    ) -> Iterator[_TopicManager]:
        with translated_errors(cluster):
            admin = admin_client(**_options(cluster))
            try:
                yield cls(cluster, topics or catalogue(), admin)
            finally:
                admin.close()

    def plan(self, demand: Demand) -> Plan:
        present = self._present()
        # Only new topics need to know, and asking takes another right.
        missing = needed(self.topics, demand.extra_topics).keys() - present.keys()
        replication = self._replication() if missing and demand.replication is None else 1
        topic_plan = compare(present, demand, self.topics, replication)
        return self._with_rights(topic_plan, demand) if demand.principals else topic_plan

    def _with_rights(self, topic_plan: Plan, demand: Demand) -> Plan:
        """The plan, and what is to be allowed beside."""
        existing = acls.present(self.admin)
        if existing is None:
            flaw = Problem(
                "acls",
                "a cluster with an authorizer (`authorizer.class.name`), which alone keeps others "
                "from writing",
                "one without, on which anybody may write to any topic",
            )
            return replace(topic_plan, refusals=(*topic_plan.refusals, flaw))
        changes = [
            Change("*", "acl", None, str(grant))
            for grant in acls.missing(self._grants(demand), existing)
        ]
        workers = [principal for role, principal in demand.principals if role == "worker"]
        strangers = acls.strangers(existing, self.cluster, self.topics, workers)
        warnings = [
            f"{self.cluster.topic(name)}: {', '.join(principals)} may write there, where only "
            "workers should"
            for name, principals in strangers.items()
        ]
        return Plan(
            (*topic_plan.changes, *changes), topic_plan.refusals, (*topic_plan.warnings, *warnings)
        )

    def _grants(self, demand: Demand) -> list[acls.Grant]:
        topics = needed(self.topics, demand.extra_topics)
        grants = [
            acls.Grant(principal, right)
            for role, principal in demand.principals
            for right in acls.rights(role, self.cluster, topics)
        ]
        return list(dict.fromkeys(grants))

    def make(self, topic_plan: Plan, demand: Demand) -> None:
        """Do what was planned."""
        new_topics = [change.topic for change in topic_plan.changes if change.attribute == "topic"]
        if new_topics:
            self._create(topic_plan, demand)
        extensions = [change for change in topic_plan.changes if change.attribute == "partitions"]
        if extensions:
            counts = {self.cluster.topic(change.topic): int(change.target) for change in extensions}
            self.admin.create_partitions(counts)
        self._alter(topic_plan)
        if any(change.attribute == "acl" for change in topic_plan.changes):
            acls.create(
                self.admin, acls.missing(self._grants(demand), acls.present(self.admin) or [])
            )
        new_keys = [change.topic for change in topic_plan.changes if change.attribute == "key"]
        if new_keys or new_topics:
            self._write_layout([*new_topics, *new_keys])

    def settle(self, demand: Demand) -> None:
        """Wait until the cluster shows what it was told."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            remaining = self.plan(demand).changes
            if not remaining:
                return
            if time.monotonic() > deadline:
                differences = ", ".join(
                    f"{change.topic}:{change.attribute}" for change in remaining
                )
                raise LogError(
                    f"{self.cluster.bootstrap}: expected the cluster to have changed {differences} "
                    f"within {SETTLE_S:.0f} s, given what it was before"
                )
            time.sleep(SETTLE_POLL_S)

    def _present(self) -> dict[str, Present]:
        names = {self.cluster.topic(name): name for name in self.topics}
        partitions_by_name = {}
        for topic in self.admin.describe_topics(list(names)):
            code = topic["error_code"]
            if code == _UNKNOWN_TOPIC:
                continue
            if code:
                raise for_code(code)(topic["name"])
            partitions_by_name[topic["name"]] = topic["partitions"]
        if not partitions_by_name:
            return {}
        configs_by_name = self.admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in partitions_by_name],
            config_filter="all",
        )["topic"]
        keys = self._read_layout() if self.cluster.topic(LAYOUT) in partitions_by_name else {}
        return {
            names[name]: Present(
                partitions=len(partitions),
                replication=len(partitions[0]["replica_nodes"]),
                configs={config: entry["value"] for config, entry in configs_by_name[name].items()},
                key=keys.get(names[name]),
            )
            for name, partitions in partitions_by_name.items()
        }

    def _replication(self) -> int:
        """The number of copies that the cluster gives a topic by default."""
        broker = str(self.admin.describe_cluster()["brokers"][0]["broker_id"])
        default_replication = ConfigResource(
            ConfigResourceType.BROKER, broker, configs={"default.replication.factor": None}
        )
        broker_configs = self.admin.describe_configs([default_replication], config_filter="all")[
            "broker"
        ][broker]
        return int(broker_configs["default.replication.factor"]["value"])

    def _create(self, topic_plan: Plan, demand: Demand) -> None:
        replication = demand.replication or self._replication()
        new_topics = {}
        for change in topic_plan.changes:
            if change.attribute == "topic":
                topic = self.topics[change.topic]
                new_topics[self.cluster.topic(topic.name)] = {
                    "num_partitions": int(change.target.partition(" ")[0]),
                    "replication_factor": replication,
                    "configs": configs(topic, replication),
                }
        response = self.admin.create_topics(new_topics, raise_errors=False)
        for topic in response["topics"]:
            # Another `apply` may have been quicker; whether it meant the same is seen at the end.
            if topic["error_code"] not in (0, _ALREADY_THERE):
                raise for_code(topic["error_code"])(f"{topic['name']}: {topic['error_message']}")
        self.admin.wait_for_topics(list(new_topics), timeout_ms=int(SETTLE_S * 1000))

    def _alter(self, topic_plan: Plan) -> None:
        new_values: dict[str, dict[str, str]] = {}
        for change in topic_plan.changes:
            if change.attribute not in ("topic", "partitions", "key", "acl"):
                new_values.setdefault(self.cluster.topic(change.topic), {})[change.attribute] = (
                    change.target
                )
        if not new_values:
            return
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, name, configs=values)
            for name, values in new_values.items()
        ]
        for name, result in self.admin.alter_configs(resources)["topic"].items():
            if result != "OK":
                raise KafkaError(f"{name}: {result}")

    # --- what the keys are ----------------------------------------------------------------

    def _read_layout(self) -> dict[str, str]:
        tp = TopicPartition(self.cluster.topic(LAYOUT), 0)
        keys: dict[str, str] = {}
        consumer = KafkaConsumer(enable_auto_commit=False, **_options(self.cluster))
        try:
            consumer.assign([tp])
            consumer.seek_to_beginning(tp)
            end = consumer.end_offsets([tp])[tp]
            deadline = time.monotonic() + REQUEST_MS / 1000
            while consumer.position(tp) < end:
                if time.monotonic() > deadline:
                    raise LogError(f"{tp.topic}: expected {end} records, given no end to them")
                for record in consumer.poll(timeout_ms=1_000).get(tp, ()):
                    layout = orjson.loads(record.value)
                    keys[layout["topic"]] = layout["key"]
        finally:
            consumer.close()
        return keys

    def _write_layout(self, names: list[str]) -> None:
        topic = self.cluster.topic(LAYOUT)
        producer = KafkaProducer(acks="all", **_options(self.cluster))
        try:
            futures = [
                producer.send(
                    topic,
                    key=name.encode(),
                    value=orjson.dumps({"topic": name, "key": self.topics[name].key}),
                    partition=0,
                )
                for name in names
            ]
            for future in futures:
                future.get(timeout=REQUEST_MS / 1000)
        finally:
            producer.close(timeout=REQUEST_MS / 1000)


def _options(cluster: Cluster) -> dict[str, Any]:
    return {
        "bootstrap_servers": cluster.bootstrap.split(","),
        "bootstrap_timeout_ms": CONNECT_MS,
        "request_timeout_ms": REQUEST_MS,
        **client_options(cluster.security),
    }
