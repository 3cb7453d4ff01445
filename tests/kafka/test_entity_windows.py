"""Windows of merchants over all cards on Apache Kafka, and the topics that they need."""

from __future__ import annotations

from benchmarks.entities import differences, expected, expected_late, on_kafka, payments
from stream_ml.shell.kafka.admin import Demand, Present, compare, configs
from stream_ml.topics import catalogue


def test_killed_amid_its_work_predict_serves_what_an_oracle_says(kafka_broker: str) -> None:
    """Each payment is predicted once, with the features of its merchant over all cards."""
    sent = payments(2, 1_000, cards=50, merchants=10)

    assert [] == differences(expected(sent), on_kafka(sent, kafka_broker, kills=1))


def test_over_three_partitions_it_serves_what_an_oracle_says_of_all_of_them(
    kafka_broker: str,
) -> None:
    """With a delay each payment is predicted once, as of then, though predict is killed."""
    sent = payments(3, 800, cards=50, merchants=10)
    served = on_kafka(sent, kafka_broker, kills=1, partitions=3)

    assert [] == differences(expected_late(sent, 3), served)


def test_their_events_get_one_partition_while_all_else_scales() -> None:
    """`topics apply` makes them so where windows of entities are declared."""
    plan = compare({}, Demand(partitions=4, has_entities=True), catalogue(), 1)
    targets = {change.topic: change.target for change in plan.changes}

    assert {"1 partition"} == {targets["events"], targets["predict-changelog"]}
    assert {"4 partitions"} == {
        targets[name] for name in ("labels", "predictions", "join-changelog")
    }


def test_events_that_lie_in_several_partitions_are_refused_with_the_way_out() -> None:
    """Kafka takes no partition away, so such windows need topics that are new."""
    topic = catalogue()["events"]
    present = {"events": Present(4, 1, configs(topic, 1), topic.key)}
    plan = compare(present, Demand(has_entities=True), {"events": topic}, 1)

    (refusal,) = plan.refusals

    assert (
        "events:partitions: expected at least the 4 that there are, for Kafka cannot take any "
        "away; windows of an entity need a pipeline name whose topics are new, given 1"
    ) == str(refusal)
