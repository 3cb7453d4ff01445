"""Access rules of a pipeline's topics: rights by role, as Kafka's authorizer keeps them.

Theory of operation. Seals and signatures make what others write to our topics harmless; that they
cannot write there at all is for the brokers to see to, which need an authorizer for it. Which role
writes and reads a topic stands in its file of the catalogue (`writers`, `readers`); the stages are
the role `worker`. Beside that, everybody may see what topics there are; operators read all that is
the pipeline's, which `status` and `audit` do; workers hold its groups and transactional ids; and a
consumer's groups begin with `PIPELINE.consumer`.

What is missing is what no rule of the cluster allows yet, be it by another pattern or for all
operations; from any host, for a role may move. Nothing is ever taken away: a rule that lets
somebody else write to what stages own, be it from a single host, is told instead. Rules that deny
are the cluster's own business, and not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import SecurityDisabledError

from stream_ml.errors import LogError
from stream_ml.stages.topology import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kafka.admin import KafkaAdminClient

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.topics import Topic

__all__ = ["ROLES", "Grant", "Right", "create", "missing", "present", "rights", "strangers"]

# Whose transactions put records and the command that tells of them on the log at once.
REDRIVE = "redrive"
ROLES = ("producer", "consumer", "operator", "worker")
# Topics that any client may write: what lies there is checked record by record, sealed or not.
OPEN_TOPICS = frozenset({"events", "labels", "commands", "layout"})
# The one name of the cluster itself, as Kafka has it.
KAFKA_CLUSTER = "kafka-cluster"
ANY_PRINCIPAL = "User:*"
ANY_HOST = "*"


class Right(NamedTuple):
    """One operation on a resource, or on all whose names begin with its name (KIP-290).

    Attributes:
        kind: topic, group, transactional_id or cluster.
        name: of the resource.
        is_prefix: whether it stands for all names that begin so.
        operation: read, write, describe and so on.
    """

    kind: str
    name: str
    is_prefix: bool
    operation: str

    def __str__(self) -> str:
        name = f"{self.name}*" if self.is_prefix else self.name
        return f"{self.operation} {self.kind} {name}"


class Grant(NamedTuple):
    """A right of a principal, such as `User:web`, from one host or from any."""

    principal: str
    right: Right
    host: str = ANY_HOST

    @property
    def subject(self) -> str:
        """The principal, and its host where it is a single one."""
        return self.principal if self.host == ANY_HOST else f"{self.principal} from {self.host}"

    def __str__(self) -> str:
        return f"{self.subject} may {self.right}"


def rights(role: str, cluster: Cluster, topics: Mapping[str, Topic]) -> list[Right]:
    """List the rights that a role needs.

    >>> from stream_ml.shell.kafka.cluster import Cluster
    >>> from stream_ml.topics import catalogue
    >>> for right in rights("producer", Cluster("127.0.0.1:9092", "shop"), catalogue()):
    ...     print(right)
    describe topic shop.*
    write topic shop.events
    write topic shop.labels

    Args:
        role: `producer`, `consumer`, `operator` or `worker`.
        cluster: the pipeline on its brokers.
        topics: the catalogue.
    """
    everything = cluster.topic("")
    role_rights = [Right("topic", everything, True, "describe")]
    for topic in topics.values():
        name = cluster.topic(topic.name)
        if role in _roles(topic.writers):
            role_rights.append(Right("topic", name, False, "write"))
        is_own = name.startswith(everything)  # the events of a task are the pipeline's
        if role in _roles(topic.readers) and not (role == "operator" and is_own):
            role_rights.append(Right("topic", name, False, "read"))
    if role == "consumer":
        role_rights.append(Right("group", f"{everything}consumer", True, "read"))
    if role == "operator":
        role_rights.append(Right("topic", everything, True, "read"))
        role_rights.append(Right("topic", everything, True, "describe_configs"))
        role_rights.append(Right("group", everything, True, "describe"))
        role_rights.append(Right("transactional_id", cluster.group(REDRIVE), False, "write"))
    if role == "worker":
        role_rights.append(Right("group", everything, True, "read"))
        role_rights.append(Right("transactional_id", everything, True, "write"))
        # To say once where anybody may write.
        role_rights.append(Right("cluster", KAFKA_CLUSTER, False, "describe"))
    return role_rights


def _roles(names: Iterable[str]) -> set[str]:
    return {"worker" if name in STAGES else name for name in names}


def missing(targets: Iterable[Grant], existing: Sequence[Grant]) -> list[Grant]:
    """The grants that nothing there allows yet.

    Args:
        targets: grants that there should be.
        existing: grants that the cluster has.
    """
    return [target for target in targets if not any(_covers(grant, target) for grant in existing)]


def _covers(existing: Grant, target: Grant) -> bool:
    return (
        existing.principal in (target.principal, ANY_PRINCIPAL)
        and existing.host in (target.host, ANY_HOST)
        and existing.right.operation in (target.right.operation, "all")
        and _includes(existing.right, target.right)
    )


def _includes(existing: Right, target: Right) -> bool:
    """Whether a resource is another one, or one of those that it stands for."""
    if existing.kind != target.kind:
        return False
    if existing.is_prefix:
        return target.name.startswith(existing.name)
    return existing.name == "*" or (existing.name == target.name and not target.is_prefix)


def strangers(
    existing: Sequence[Grant], cluster: Cluster, topics: Mapping[str, Topic], workers: Iterable[str]
) -> dict[str, list[str]]:
    """Of each topic that only stages should write, who else may.

    Args:
        existing: grants that the cluster has.
        cluster: the pipeline on its brokers.
        topics: the catalogue.
        workers: principals that may write, such as `User:ml`.
    """
    worker_principals = set(workers)
    strangers_by_topic: dict[str, list[str]] = {}
    for name in topics:
        if name in OPEN_TOPICS:
            continue
        write = Right("topic", cluster.topic(name), False, "write")
        other_writers = {
            grant.subject
            for grant in existing
            if grant.principal not in worker_principals
            and _covers(grant, Grant(grant.principal, write, grant.host))
        }
        if other_writers:
            strangers_by_topic[name] = sorted(other_writers)
    return strangers_by_topic


# --- on the cluster ---------------------------------------------------------------------------


def present(admin: KafkaAdminClient) -> list[Grant] | None:
    """Ask for all that the cluster allows; None where it has no authorizer.

    Raises:
        KafkaError: we may not see it.
    """
    any_allowed = ACLFilter(
        principal=None,
        host=None,
        operation=ACLOperation.ANY,
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
    )
    try:
        acls, _ = admin.describe_acls(any_allowed)
    except SecurityDisabledError:
        return None
    return list(_grants(acls))


def _grants(acls: Iterable[Any]) -> Iterator[Grant]:
    for acl in acls:
        pattern = acl.resource_pattern
        right = Right(
            pattern.resource_type.name.lower(),
            pattern.resource_name,
            pattern.pattern_type == ACLResourcePatternType.PREFIXED,
            acl.operation.name.lower(),
        )
        yield Grant(acl.principal, right, acl.host)


def create(admin: KafkaAdminClient, grants: Sequence[Grant]) -> None:
    """Have the cluster allow these.

    Args:
        admin: a client that may alter the cluster.
        grants: those that are missing.

    Raises:
        LogError: it refused some.
        KafkaError: it refused to be asked.
    """
    response = admin.create_acls([_acl(grant) for grant in grants])
    if response["failed"]:
        reasons = ", ".join(sorted({error.__name__ for error in response["failed"]}))
        raise LogError(
            f"topics apply: expected the cluster to take {len(grants)} access rules, given "
            f"{len(response['failed'])} refusals: {reasons}; whoever applies them needs the right "
            "to alter the cluster"
        )


def _acl(grant: Grant) -> ACL:
    right = grant.right
    kind = ACLResourcePatternType.PREFIXED if right.is_prefix else ACLResourcePatternType.LITERAL
    return ACL(
        grant.principal,
        grant.host,
        ACLOperation[right.operation.upper()],
        ACLPermissionType.ALLOW,
        ResourcePattern(ResourceType[right.kind.upper()], right.name, kind),
    )
