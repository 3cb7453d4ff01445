"""`topics`: what lies on the log, in what form and for how long; and making a cluster's so."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from stream_ml.cli.arguments import whole_number
from stream_ml.cli.output import complain, write, write_json, write_line
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import NO_VALUE, format_duration, format_table
from stream_ml.errors import TopicsDiffer, UsageError
from stream_ml.shell.settings.loader import declared_pipeline
from stream_ml.task_names import pipeline_in, task_in
from stream_ml.topics import Topic, TopicField, catalogue

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.kafka.admin import Plan
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

INDENT = "  "
# As `shell.kafka.acls` has them, which only clusters need to load.
ROLES = ("producer", "consumer", "operator", "worker")
ON_CLUSTERS = ("plan", "apply")


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the catalogue, or one topic of it; or hold it against a cluster, or make that so."""
    if arguments.name in ON_CLUSTERS:
        _on_cluster(arguments, settings)
        return
    for option in ("partitions", "replication", "acls"):
        if getattr(arguments, option) is not None:
            raise UsageError(f"--{option}: expected `topics plan` or `topics apply` with it")
    _show(arguments)


def _on_cluster(arguments: Namespace, settings: Settings) -> None:
    # The client is slow to load, and most commands, on the embedded log, never need it.
    from stream_ml.shell.kafka import admin  # noqa: PLC0415

    act = admin.plan if arguments.name == "plan" else admin.apply
    plans = []
    for cluster, pipeline in _clusters(settings):
        demand = admin.Demand(
            arguments.partitions,
            arguments.replication,
            None if pipeline is None else pipeline.horizon_ms,
            _principals(arguments.acls, cluster),
            has_entities=pipeline is not None and bool(pipeline.feature_set.entities),
            extra_topics=() if pipeline is None else pipeline.extra_topics,
        )
        plans.append((cluster, act(cluster, demand)))
    if arguments.format == "json":
        write_json(_plans_dict(plans))
    else:
        for cluster, plan in plans:
            _print_plan(arguments, cluster, plan)
    differing = [plan for _, plan in plans if plan.changes or plan.refusals]
    if arguments.name == "plan" and differing:
        raise TopicsDiffer(_differ(plans[0][0], differing))


def _principals(
    pairs: Sequence[tuple[str, str]] | None, cluster: Cluster
) -> tuple[tuple[str, str], ...]:
    """Who has which role; where only `--acls` is said, users whose names say it."""
    if pairs is None:
        return ()
    name = pipeline_in(cluster.pipeline)
    return tuple(pairs) or tuple((role, f"User:{name}-{role}") for role in ROLES)


def _clusters(settings: Settings) -> list[tuple[Cluster, Pipeline | None]]:
    """The places of the pipeline and of its tasks, with their declarations where there are some."""
    pipeline = declared_pipeline(settings)
    if pipeline is None:
        return [(settings.cluster(), None)]
    pipelines = [pipeline]
    if settings.task is None:
        pipelines += pipeline.task_pipelines.values()
    return [(settings.cluster(each.name), each) for each in pipelines]


def _plans_dict(plans: Sequence[tuple[Cluster, Plan]]) -> dict[str, Any]:
    """What is planned of the first pipeline's topics, and of those of its tasks by their names."""
    (_, first), *others = plans
    tasks = {str(task_in(cluster.pipeline)): _plan_dict(plan) for cluster, plan in others}
    return _plan_dict(first) | ({"tasks": tasks} if tasks else {})


def _plan_dict(plan: Plan) -> dict[str, Any]:
    return {
        "changes": [change.as_dict() for change in plan.changes],
        "refused": [problem.as_dict() for problem in plan.refusals],
        "warnings": plan.warnings,
    }


def _differ(cluster: Cluster, plans: Sequence[Plan]) -> str:
    refused_count = sum(len(plan.refusals) for plan in plans)
    count = sum(len(plan.changes) for plan in plans) + refused_count
    differences = "1 difference" if count == 1 else f"{count} differences"
    way_out = (
        f"`topics apply` refuses {refused_count} of them, and does nothing"
        if refused_count
        else "`topics apply` makes them"
    )
    return f"topics plan: {differences} from the catalogue on {cluster.bootstrap}; {way_out}"


def _print_plan(arguments: Namespace, cluster: Cluster, plan: Plan) -> None:
    for warning in plan.warnings:
        complain(f"warning: {warning}")
    if plan.changes:
        plans = arguments.name == "plan"
        head = ["topic", "what", *(["is", "is to be"] if plans else ["was", "is now"])]
        rows = [
            [
                cluster.topic(c.topic),
                c.attribute,
                NO_VALUE if c.present is None else c.present,
                c.target,
            ]
            for c in plan.changes
        ]
        write(format_table(rows, head=head))
    for problem in plan.refusals:
        write_line(f"refused: {problem}")
    if not (plan.changes or plan.refusals):
        write(f"0 changes: {cluster.topic('*')} on {cluster.bootstrap} is as the catalogue says")


def _as_members(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _show(arguments: Namespace) -> None:
    topics = catalogue()
    if arguments.name is None:
        document: Any = {name: _as_dict(topic) for name, topic in topics.items()}
        text = _table(topics)
    elif arguments.name in topics:
        document = _as_dict(topics[arguments.name])
        text = _description(topics[arguments.name])
    else:
        choices = ", ".join([*topics, *ON_CLUSTERS])
        raise UsageError(f"topics: expected one of {choices}, given {arguments.name!r}")
    if arguments.format == "json":
        write_json(document)
    else:
        write(text)


def _as_dict(instance: Any) -> dict[str, Any]:
    values = _as_members(instance)
    members = {name: _as_dict(field) for name, field in instance.fields.items()}
    return {**values, "fields": members}


def _table(topics: Mapping[str, Topic]) -> str:
    head = ["topic", "partitions", "kept", "key", "purpose"]
    rows = [
        [t.name, _partitions(t), _retention(t), t.key.partition(",")[0], t.purpose]
        for t in topics.values()
    ]
    return format_table(rows, head=head)


def _partitions(topic: Topic) -> str:
    return f"{topic.partitions} by default" if topic.scales else str(topic.partitions)


def _retention(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "newest per key"
    return "forever" if topic.retention_ms is None else format_duration(topic.retention_ms)


def _description(topic: Topic) -> str:
    facts = [
        ["key", topic.key],
        ["partitions", _partitions(topic)],
        ["kept", _retention(topic)],
        ["record", f"{topic.record} of at most {topic.record_bytes_max:,} bytes"],
        ["written by", ", ".join(topic.writers)],
        ["read by", ", ".join(topic.readers)],
    ]
    if topic.setting is not None:
        facts.append(["there", f"where {topic.setting} is declared"])
    members = format_table([*_members(topic.fields, "")], head=["member", "type", "meaning"])
    return f"{topic.name}: {topic.purpose}\n\n{format_table(facts)}\n\n{members}"


def _members(members: Mapping[str, TopicField], indent: str) -> Iterator[list[str]]:
    for member in members.values():
        kind = f"{member.type}, optional" if member.optional else member.type
        key_note = "" if member.keyed_by is None else f" By {member.keyed_by}."
        yield [indent + member.name, kind, member.meaning + key_note]
        yield from _members(member.fields, indent + INDENT)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME|plan|apply",
        help="a topic, to see its records; or what to do about a cluster's",
    )
    parser.add_argument(
        "--partitions",
        type=whole_number(1),
        metavar="N",
        help="of the topics that scale; what there is, or what the catalogue says, else",
    )
    parser.add_argument(
        "--replication",
        type=whole_number(1),
        metavar="N",
        help="copies of each partition; as many as the cluster gives by default, else",
    )
    parser.add_argument(
        "--acls",
        type=_principal,
        nargs="*",
        metavar="ROLE=PRINCIPAL",
        help=(
            "also what is to be allowed on a cluster with an authorizer, such as "
            f"producer=User:web; roles are {', '.join(ROLES)}; alone, users called PIPELINE-ROLE"
        ),
    )


def _principal(text: str) -> tuple[str, str]:
    role, equals, principal = text.partition("=")
    kind, colon, name = principal.partition(":")
    if not (role in ROLES and equals and kind and colon and name):
        raise ArgumentTypeError(
            f"expected a role ({', '.join(ROLES)}), = and a principal, such as "
            f"producer=User:web, given {text!r}"
        )
    return role, principal


COMMAND = Subcommand(
    name="topics",
    help="the topics and what their records hold; on a cluster, making them so",
    description=(
        "Shows the catalogue of topics, or one topic with the members of its records.\n\n"
        "On a cluster `plan` says what differs from the catalogue, and exits with 2 if anything\n"
        "does; `apply` makes what is missing and alters what differs, and does nothing where\n"
        "nothing does. Neither takes partitions away, changes what keys are, or keeps records for\n"
        "less than the pipeline's labels and a recovery need: such a difference is refused. The\n"
        "pipeline is declared (--pipeline), or named by the broker's address."
    ),
    examples=(
        UsageExample("stream-ml topics predictions", "what a prediction holds, member by member"),
        UsageExample(
            "stream-ml --broker kafka://127.0.0.1:9092 --pipeline shop:fraud topics apply "
            "--partitions 8",
            "make the topics of a declared pipeline",
        ),
        UsageExample(
            "stream-ml --broker kafka://127.0.0.1:9092/shop topics apply "
            "--acls worker=User:ml producer=User:web consumer=User:web",
            "let workers, producers and consumers do what each must, and no more",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
