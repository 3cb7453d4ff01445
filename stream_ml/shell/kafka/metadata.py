"""Questions of a worker to the cluster beside its work: rivals of its name, ids of its topics."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kafka.admin import MemberToRemove
from kafka.errors import GroupIdNotFoundError, KafkaError

from stream_ml.errors import UsageError
from stream_ml.shell.kafka.clients import admin_client, translated_errors
from stream_ml.shell.kafka.cluster import topic_id
from stream_ml.shell.kafka.member_data import first_join_ms
from stream_ml.shell.kafka.security import client_options
from stream_ml.stages.topology import STAGES
from stream_ml.task_names import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from kafka.admin import KafkaAdminClient

    from stream_ml.shell.kafka.cluster import Cluster

__all__ = [
    "described_members",
    "group_members",
    "group_names",
    "leave_group",
    "members_since_ms",
    "rival",
    "stages_at_work",
    "stages_with_members",
    "tasks_with_topics",
    "topic_ids",
]


# A worker that asks for rivals is about to end, or to join anew: neither may take long.
ANSWER_MS = 5_000
# The states of a group that is shared out anew.
REBALANCES = frozenset({"PreparingRebalance", "CompletingRebalance"})


def rival(cluster: Cluster, stage: str, instance: str, member: str) -> UsageError | None:
    """The error to end with where another has our place in the group; None where none is seen.

    A name is the group's `group.instance.id` (static membership, KIP-345): of two workers of one
    name the one that joined last goes on.

    Args:
        cluster: the pipeline's place.
        stage: whose group it is.
        instance: our name.
        member: as whom the group knew us.
    """
    group = cluster.group(stage)
    try:
        with _admin(cluster) as admin:
            members = admin.describe_groups([group])[group]["members"]
    except (KafkaError, KeyError):
        return None  # whoever has our name is told of by the brokers again, once they answer
    if not any(m["group_instance_id"] == instance and m["member_id"] != member for m in members):
        return None
    return UsageError(
        f"--instance {instance}: expected to be the only worker of that name in {group}, given "
        "another that took its place; it goes on, and this one ends: give each worker a name of "
        "its own, or none"
    )


def stages_at_work(cluster: Cluster) -> frozenset[str] | None:
    """The stages whose groups have members; see `log.port.Log.stages_at_work`.

    Args:
        cluster: the pipeline's place.

    Raises:
        LogError: the brokers do not answer, or refuse.
    """
    with translated_errors(cluster), _admin(cluster) as admin:
        return stages_with_members(cluster, admin.describe_groups(group_names(cluster)))


def group_members(cluster: Cluster, name: str) -> frozenset[str] | None:
    """The ids of a group's members; None where the brokers do not say.

    Args:
        cluster: the pipeline's place.
        name: of a stage.
    """
    members = described_members(cluster, name)
    return None if members is None else frozenset(each["member_id"] for each in members)


def described_members(cluster: Cluster, name: str) -> Sequence[Mapping[str, Any]] | None:
    """A group's members, as the brokers describe them; None where they do not say.

    Args:
        cluster: the pipeline's place.
        name: of a stage, or of the standbys.
    """
    group = cluster.group(name)
    try:
        with _admin(cluster) as admin:
            description = admin.describe_groups([group])[group]
    except (KafkaError, KeyError):
        return None
    return (description["members"] or ()) if _is_told(description) else None


def leave_group(cluster: Cluster, stage: str, instance: str) -> None:
    """Give up a place that is kept for a name, which its client would keep until it runs out.

    Args:
        cluster: the pipeline's place.
        stage: whose group it is.
        instance: the name.
    """
    group = cluster.group(stage)
    with suppress(KafkaError), _admin(cluster) as admin:
        admin.remove_group_members(group, [MemberToRemove(group_instance_id=instance)])


def tasks_with_topics(cluster: Cluster) -> list[str]:
    """The tasks of a pipeline that have topics which we may see, declared or not, in order.

    Args:
        cluster: the pipeline's place.

    Raises:
        LogError: the brokers do not answer, or refuse.
    """
    prefix = f"{cluster.pipeline}{SEPARATOR}"
    with translated_errors(cluster), _admin(cluster) as admin:
        names = [name for name in admin.list_topics() if name.startswith(prefix)]
    rests = [name.removeprefix(prefix) for name in names]
    return sorted({rest.partition(SEPARATOR)[0] for rest in rests if SEPARATOR in rest})


def group_names(cluster: Cluster) -> list[str]:
    """The names of the stages' groups.

    Args:
        cluster: the pipeline's place.
    """
    return [cluster.group(stage) for stage in STAGES]


def stages_with_members(
    cluster: Cluster, groups: Mapping[str, Mapping[str, Any]]
) -> frozenset[str] | None:
    """The stages whose groups have members; None where the brokers do not say so of each.

    Args:
        cluster: the pipeline's place.
        groups: by name, as the brokers describe them: those of all stages.
    """
    if not all(map(_is_told, groups.values())):
        return None  # we may not look, or the group's coordinator moves
    return frozenset(stage for stage in STAGES if groups[cluster.group(stage)]["members"])


def _is_told(group: Mapping[str, Any]) -> bool:
    """Whether the brokers say who is in a group; in one that was never made is nobody."""
    error = group["error"]
    return error is None or GroupIdNotFoundError.__name__ in error


def members_since_ms(group: Mapping[str, Any], now_ms: int) -> int | None:
    """Since when a group has members without a break (UTC ms); None where none of them tells.

    The first of them counts, for a stuck worker is not excused by another that joins it. While a
    group is shared out anew nobody has his place yet, so nobody has been silent on it.

    Args:
        group: as the brokers describe it.
        now_ms: the time (UTC ms).
    """
    if group["group_state"] in REBALANCES:
        return now_ms
    times = [
        first_join_ms(metadata.get("user_data") or b"")
        for member in group["members"]
        if isinstance(metadata := member["member_metadata"], dict)
    ]
    return min((each for each in times if each is not None), default=None)


def topic_ids(cluster: Cluster, names: Iterable[str]) -> dict[str, str]:
    """The id of each of these topics that there is, by name in the catalogue.

    A topic that was deleted and made anew under its name has another one (KIP-516).

    Args:
        cluster: the pipeline on its brokers.
        names: of topics, as the catalogue has them.

    Raises:
        LogError: the brokers do not answer, or refuse.
    """
    ours = {cluster.topic(name): name for name in names}
    with translated_errors(cluster), _admin(cluster) as admin:
        return {
            ours[description["name"]]: topic_id(str(description["topic_id"]))
            for description in admin.describe_topics(list(ours))
            if not description["error_code"]
        }


@contextmanager
def _admin(cluster: Cluster) -> Iterator[KafkaAdminClient]:
    admin = admin_client(
        bootstrap_servers=cluster.bootstrap.split(","),
        bootstrap_timeout_ms=ANSWER_MS,
        request_timeout_ms=ANSWER_MS,
        **client_options(cluster.security),
    )
    try:
        yield admin
    finally:
        admin.close()
