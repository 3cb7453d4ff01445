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
from stream_ml.shell.kafka.clients import admin_client, told
from stream_ml.shell.kafka.security import client_options
from stream_ml.stages.topology import STAGES
from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.topics import Topic

__all__ = ["Change", "Demand", "Plan", "Present", "apply", "compare", "plan", "who_may_write"]

CONNECT_MS = 10_000
REQUEST_MS = 30_000
# How long a broker may take to show what it was told: it answers before all of it has learned.
SETTLE_S = 15.0
SETTLE_POLL_S = 0.05

# A batch holds keys, headers and framing beside the longest value, or many short records.
BATCH_BYTES_BESIDE = 1_048_576
# Only what lies in closed segments is compacted, and recovery reads all that is not.
COMPACTED_SEGMENT_BYTES = 67_108_864
# A weekend.
RECOVERY_MS = 3 * 86_400_000
# What a label may still be joined with, and what joins it.
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


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a cluster beside the catalogue.

    Attributes:
        partitions: of the topics that scale; None leaves it to what there is.
        replication: copies of every partition; None leaves it to the cluster.
        horizon_ms: how long a label may come after its event; None where it is not known.
        principals: who has which role, as pairs of a role and a principal, such as
            `("producer", "User:web")`: what the role needs is to be allowed (see `acls`).
    """

    partitions: int | None = None
    replication: int | None = None
    horizon_ms: int | None = None
    principals: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """A topic as the cluster has it; `key` is None where nobody has written it down."""

    partitions: int
    replication: int
    configs: Mapping[str, str]
    key: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What differs: `what` is `topic`, `partitions`, `key`, `acl`, or a config of Kafka's.

    Attributes:
        topic: its name in the catalogue.
        what: of it is to change.
        present: how it is; None where there is nothing.
        wanted: how it is to be.
    """

    topic: str
    what: str
    present: str | None
    wanted: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to change, what is refused, and what one should know before."""

    changes: tuple[Change, ...] = ()
    refusals: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


# --- comparing --------------------------------------------------------------------------------


def compare(
    present: Mapping[str, Present], demand: Demand, topics: Mapping[str, Topic], replication: int
) -> Plan:
    """What it takes to make `present` what `topics` says.

    Args:
        present: what the cluster has, by name in the catalogue.
        demand: what is asked for beside.
        topics: the catalogue.
        replication: how many copies a new topic gets where `demand` does not say.

    >>> from stream_ml.topics import catalogue
    >>> new = compare({}, Demand(partitions=8), catalogue(), 1)
    >>> [change.wanted for change in new.changes if change.topic == "events"]
    ['8 partitions']
    """
    draft = _Draft(demand, demand.replication or replication, _scale(present, demand, topics))
    for topic in topics.values():
        draft.retention(topic)
        if topic.name in present:
            draft.alter(topic, present[topic.name])
        else:
            draft.create(topic)
    return Plan(tuple(draft.changes), tuple(draft.refusals), tuple(draft.warnings))


def _scale(
    present: Mapping[str, Present], demand: Demand, topics: Mapping[str, Topic]
) -> int | None:
    """How many partitions the topics that scale have; None for what the catalogue says."""
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
        wanted = "1 partition" if count == 1 else f"{count} partitions"
        self.changes.append(Change(topic.name, "topic", None, wanted))

    def alter(self, topic: Topic, present: Present) -> None:
        self._alter_partitions(topic, present)
        if self.demand.replication not in (None, present.replication):
            self._refuse(
                topic,
                "replication",
                f"{present.replication}, for Kafka moves copies by kafka-reassign-partitions alone",
                str(self.demand.replication),
            )
        for name, wanted in configs(topic, present.replication).items():
            if present.configs.get(name) != wanted:
                self._alter_config(topic, name, present.configs.get(name), wanted)
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
        """Whether it keeps what stages and recoveries need."""
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
        """How many are wanted."""
        return topic.partitions if not topic.scales or self.scale is None else self.scale

    def _alter_partitions(self, topic: Topic, present: Present) -> None:
        wanted = self.partitions(topic)
        if wanted == present.partitions:
            return
        if wanted < present.partitions:
            self._refuse(
                topic,
                "partitions",
                f"at least the {present.partitions} that there are, for Kafka cannot take any away",
                str(wanted),
            )
            return
        self.changes.append(Change(topic.name, "partitions", str(present.partitions), str(wanted)))
        if RESHARDS not in self.warnings:
            self.warnings.append(RESHARDS)

    def _alter_config(self, topic: Topic, name: str, present: str | None, wanted: str) -> None:
        self.changes.append(Change(topic.name, name, present, wanted))
        if name == "retention.ms" and wanted != FOREVER and present is not None:
            was = int(present)
            if was < 0 or was > int(wanted):
                self.warnings.append(f"{topic.name}: what is older than {wanted} ms is deleted")

    def _refuse(self, topic: Topic, what: str, expected: str, given: str) -> None:
        self.refusals.append(Problem(f"{topic.name}:{what}", expected, given))


def configs(topic: Topic, replication: int) -> dict[str, str]:
    """What Kafka is told of a topic that has so many copies.

    >>> from stream_ml.topics import catalogue
    >>> configs(catalogue()["predictions"], 3)["min.insync.replicas"]
    '2'

    Args:
        topic: as the catalogue has it.
        replication: how many copies each partition has.
    """
    found = {
        "cleanup.policy": topic.cleanup,
        "retention.ms": FOREVER if topic.retention_ms is None else str(topic.retention_ms),
        "retention.bytes": FOREVER,
        "max.message.bytes": str(topic.record_bytes_max + BATCH_BYTES_BESIDE),
        "message.timestamp.type": "LogAppendTime",
        # Producers compress as they like, and the broker undoes it: a worker that has no library
        # for a codec could never get past such a record.
        "compression.type": "uncompressed",
        # What most copies have is not lost with one of them.
        "min.insync.replicas": str(replication // 2 + 1),
        "unclean.leader.election.enable": "false",
    }
    if topic.cleanup == "compact":
        found["segment.bytes"] = str(COMPACTED_SEGMENT_BYTES)
    return found


# --- on the cluster ---------------------------------------------------------------------------


def plan(
    cluster: Cluster, demand: Demand | None = None, topics: Mapping[str, Topic] | None = None
) -> Plan:
    """What would have to change for the pipeline's topics to be what the catalogue says.

    Args:
        cluster: where they are.
        demand: what is asked for beside the catalogue.
        topics: the catalogue; the one that is shipped by default.

    Raises:
        LogError: the cluster cannot be reached, or refuses us.
    """
    with _Topics.at(cluster, topics) as there:
        return there.plan(demand or Demand())


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
    with _Topics.at(cluster, topics) as there:
        planned = there.plan(demand)
        if planned.refusals:
            listed = "\n  ".join(map(str, planned.refusals))
            raise UsageError(f"topics apply: refused, and nothing was changed:\n  {listed}")
        if planned.changes:
            there.make(planned, demand)
            there.settle(demand)
        return planned


def who_may_write(cluster: Cluster) -> str | None:
    """A sentence about who may write what only stages should; None where it is well or not shown.

    Raises:
        LogError: the cluster cannot be reached, or refuses us otherwise.
    """
    with _Topics.at(cluster, None) as there:
        try:
            grants = acls.present(there.admin)
        except ClusterAuthorizationFailedError:
            return None
        if grants is None:
            return (
                f"{cluster.bootstrap} lets anyone write to any topic, for it has no authorizer: "
                "what is forged is refused, but only brokers can keep it out; see `topics apply "
                "--acls`"
            )
        anybody = [
            name
            for name, who in acls.strangers(grants, cluster, there.topics, ()).items()
            if acls.ANYBODY in who
        ]
        if anybody:
            named = ", ".join(map(cluster.topic, anybody))
            return f"{cluster.bootstrap} lets anyone write to {named}: take those rules away"
        return None


@dataclass(slots=True)
class _Topics:
    """A pipeline's topics on a cluster, over one connection."""

    cluster: Cluster
    topics: Mapping[str, Topic]
    admin: KafkaAdminClient

    @classmethod
    @contextmanager
    def at(cls, cluster: Cluster, topics: Mapping[str, Topic] | None) -> Iterator[_Topics]:
        with told(cluster):
            admin = admin_client(**_options(cluster))
            try:
                yield cls(cluster, topics or catalogue(), admin)
            finally:
                admin.close()

    def plan(self, demand: Demand) -> Plan:
        present = self._present()
        # Only new topics need to know, and asking takes another right.
        missing = self.topics.keys() - present.keys()
        replication = self._replication() if missing and demand.replication is None else 1
        planned = compare(present, demand, self.topics, replication)
        return self._with_rights(planned, demand) if demand.principals else planned

    def _with_rights(self, planned: Plan, demand: Demand) -> Plan:
        """The plan, and what is to be allowed beside."""
        there = acls.present(self.admin)
        if there is None:
            flaw = Problem(
                "acls",
                "a cluster with an authorizer (`authorizer.class.name`), which alone keeps others "
                "from writing",
                "one without, on which anybody may write to any topic",
            )
            return replace(planned, refusals=(*planned.refusals, flaw))
        changes = [
            Change("*", "acl", None, str(grant))
            for grant in acls.missing(self._grants(demand), there)
        ]
        workers = [principal for role, principal in demand.principals if role == "worker"]
        others = acls.strangers(there, self.cluster, self.topics, workers)
        warnings = [
            f"{self.cluster.topic(name)}: {', '.join(who)} may write there, where only workers "
            "should"
            for name, who in others.items()
        ]
        return Plan((*planned.changes, *changes), planned.refusals, (*planned.warnings, *warnings))

    def _grants(self, demand: Demand) -> list[acls.Grant]:
        wanted = [
            acls.Grant(principal, right)
            for role, principal in demand.principals
            for right in acls.rights(role, self.cluster, self.topics)
        ]
        return list(dict.fromkeys(wanted))

    def make(self, planned: Plan, demand: Demand) -> None:
        """Do what was planned."""
        new = [change.topic for change in planned.changes if change.what == "topic"]
        if new:
            self._create(planned, demand)
        grown = [change for change in planned.changes if change.what == "partitions"]
        if grown:
            counts = {self.cluster.topic(c.topic): int(c.wanted) for c in grown}
            self.admin.create_partitions(counts)
        self._alter(planned)
        if any(change.what == "acl" for change in planned.changes):
            acls.create(
                self.admin, acls.missing(self._grants(demand), acls.present(self.admin) or [])
            )
        keyed = [change.topic for change in planned.changes if change.what == "key"]
        if keyed or new:
            self._write_layout([*new, *keyed])

    def settle(self, demand: Demand) -> None:
        """Wait until the cluster shows what it was told."""
        ends = time.monotonic() + SETTLE_S
        while True:
            left = self.plan(demand).changes
            if not left:
                return
            if time.monotonic() > ends:
                listed = ", ".join(f"{change.topic}:{change.what}" for change in left)
                raise LogError(
                    f"{self.cluster.bootstrap}: expected the cluster to have changed {listed} "
                    f"within {SETTLE_S:.0f} s, given what it was before"
                )
            time.sleep(SETTLE_POLL_S)

    def _present(self) -> dict[str, Present]:
        names = {self.cluster.topic(name): name for name in self.topics}
        found = {}
        for topic in self.admin.describe_topics(list(names)):
            code = topic["error_code"]
            if code == _UNKNOWN_TOPIC:
                continue
            if code:
                raise for_code(code)(topic["name"])
            found[topic["name"]] = topic["partitions"]
        if not found:
            return {}
        described = self.admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in found], config_filter="all"
        )["topic"]
        keys = self._read_layout() if self.cluster.topic(LAYOUT) in found else {}
        return {
            names[name]: Present(
                partitions=len(partitions),
                replication=len(partitions[0]["replica_nodes"]),
                configs={config: each["value"] for config, each in described[name].items()},
                key=keys.get(names[name]),
            )
            for name, partitions in found.items()
        }

    def _replication(self) -> int:
        """How many copies the cluster gives a topic that does not say."""
        broker = str(self.admin.describe_cluster()["brokers"][0]["broker_id"])
        asked = ConfigResource(
            ConfigResourceType.BROKER, broker, configs={"default.replication.factor": None}
        )
        described = self.admin.describe_configs([asked], config_filter="all")["broker"][broker]
        return int(described["default.replication.factor"]["value"])

    def _create(self, planned: Plan, demand: Demand) -> None:
        replication = demand.replication or self._replication()
        wanted = {}
        for change in planned.changes:
            if change.what == "topic":
                topic = self.topics[change.topic]
                wanted[self.cluster.topic(topic.name)] = {
                    "num_partitions": int(change.wanted.partition(" ")[0]),
                    "replication_factor": replication,
                    "configs": configs(topic, replication),
                }
        answered = self.admin.create_topics(wanted, raise_errors=False)
        for topic in answered["topics"]:
            # Another `apply` may have been quicker; whether it meant the same is seen at the end.
            if topic["error_code"] not in (0, _ALREADY_THERE):
                raise for_code(topic["error_code"])(f"{topic['name']}: {topic['error_message']}")
        self.admin.wait_for_topics(list(wanted), timeout_ms=int(SETTLE_S * 1000))

    def _alter(self, planned: Plan) -> None:
        altered: dict[str, dict[str, str]] = {}
        for change in planned.changes:
            if change.what not in ("topic", "partitions", "key", "acl"):
                altered.setdefault(self.cluster.topic(change.topic), {})[change.what] = (
                    change.wanted
                )
        if not altered:
            return
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, name, configs=values)
            for name, values in altered.items()
        ]
        for name, result in self.admin.alter_configs(resources)["topic"].items():
            if result != "OK":
                raise KafkaError(f"{name}: {result}")

    # --- what the keys are ----------------------------------------------------------------

    def _read_layout(self) -> dict[str, str]:
        place = TopicPartition(self.cluster.topic(LAYOUT), 0)
        keys: dict[str, str] = {}
        consumer = KafkaConsumer(enable_auto_commit=False, **_options(self.cluster))
        try:
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            ends = consumer.end_offsets([place])[place]
            until = time.monotonic() + REQUEST_MS / 1000
            while consumer.position(place) < ends:
                if time.monotonic() > until:
                    raise LogError(f"{place.topic}: expected {ends} records, given no end to them")
                for record in consumer.poll(timeout_ms=1_000).get(place, ()):
                    layout = orjson.loads(record.value)
                    keys[layout["topic"]] = layout["key"]
        finally:
            consumer.close()
        return keys

    def _write_layout(self, names: list[str]) -> None:
        topic = self.cluster.topic(LAYOUT)
        producer = KafkaProducer(acks="all", **_options(self.cluster))
        try:
            sent = [
                producer.send(
                    topic,
                    key=name.encode(),
                    value=orjson.dumps({"topic": name, "key": self.topics[name].key}),
                    partition=0,
                )
                for name in names
            ]
            for each in sent:
                each.get(timeout=REQUEST_MS / 1000)
        finally:
            producer.close(timeout=REQUEST_MS / 1000)


def _options(cluster: Cluster) -> dict[str, Any]:
    return {
        "bootstrap_servers": cluster.bootstrap.split(","),
        "bootstrap_timeout_ms": CONNECT_MS,
        "request_timeout_ms": REQUEST_MS,
        **client_options(cluster.security),
    }
