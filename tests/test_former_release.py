"""What a former release left is taken up, and goes on as that release would have gone on.

`data/former_log.db.gz` is the log of half a run of `tests.simulation.world`, and `former_log.json`
what that release wrote in the other half. `data/former_cluster.json.gz` is what its workers left
on Apache Kafka: the changelogs after half a run, and all topics at the end of it.
"""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.codec import decode_example, decode_prediction
from stream_ml.models.snapshot import decode
from stream_ml.records import Output, Record
from stream_ml.sealing import SEALED_TOPICS, Seals
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.kafka.changelog import SEAL
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.restoration import TakenUp, take_up
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.inputs import open_sealed
from stream_ml.stages.join import Join
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.stages.task import Task
from tests.shop import shop
from tests.simulation.world import START_MS, pipeline, stream

if TYPE_CHECKING:
    from stream_ml.stages.task import Stage

DATA = Path(__file__).parent / "data"
# When that release ran, by the clock it was given.
NOW_MS = START_MS + 3_600_000
CLUSTER_KEY = bytes.fromhex("5a" * 32)


def records(log: SqliteLog, topic: str) -> list[Record]:
    """What lies on a topic of one partition."""
    return log.read(topic, 0, 0, 1_000_000)


def published(events: list[Any], labels: list[Any]) -> list[Output]:
    """Events and labels as producers publish them."""
    outputs = []
    for topic, member, values in (("labels", "event_id", labels), ("events", "shop", events)):
        for value in values:
            key = value[member].encode() if isinstance(value, dict) else None
            text = orjson.dumps(value) if isinstance(value, dict) else value
            outputs.append(Output(topic, key, text))
    return outputs


def outcome(topic: str, record: Record, answers: dict[int, Any]) -> bytes:
    """What a record tells, wherever it tells it.

    That release had shadows answer at event time, and their answers lie in its predictions. Its
    tombstones came sooner, so that snapshots lay elsewhere.
    """
    members = orjson.loads(record.value or b"null")
    if topic == "predictions":
        members["shadows"] = {slot: each["model"] for slot, each in members["shadows"].items()}
    elif topic == "examples":
        members["shadows"] |= answers.get(record.offset, {})
    elif topic == "registry":
        del members["previous"], members["inputs"]["models"], members["signature"]
        serving = members["serving"]
        roles = [serving[role] for role in ("champion", "predecessor", "first")]
        for ref in [*roles, *serving["challengers"].values()]:
            if ref is not None:
                del ref["offset"]
    members.pop("seal", None)
    return orjson.dumps(members)


def test_a_log_of_a_former_release_goes_on_as_it_would_have(tmp_path: Path) -> None:
    """Every prediction, example, decision and refusal, every answer, every model to its digest."""
    file = tmp_path / "log.db"
    file.write_bytes(gzip.decompress((DATA / "former_log.db.gz").read_bytes()))
    expected = orjson.loads((DATA / "former_log.json").read_bytes())
    events, labels = stream(5, 240)

    with SqliteLog.open(file, now_ms=lambda: NOW_MS) as log:
        before = {topic: len(records(log, topic)) for topic in expected["outputs"]}
        log.append(published(events[len(events) // 2 :], labels[len(labels) // 2 :]))
        with Runner(log, pipeline, b"testing") as runner:
            while runner.poll():
                pass
        answers = {
            each["example"]: each["shadows"]
            for each in (
                orjson.loads(record.value or b"null") for record in records(log, "answers")
            )
        }
        written = {
            topic: [outcome(topic, record, answers) for record in records(log, topic)[count:]]
            for topic, count in before.items()
        }
        snapshots = [decode(each.value) for each in records(log, "models") if each.value]

    assert expected["models"] == [[snapshot.model, snapshot.digest] for snapshot in snapshots]
    assert expected["outputs"] == {
        topic: {"count": len(values), "sha256": hashlib.sha256(b"\n".join(values)).hexdigest()}
        for topic, values in written.items()
    }


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


class Cluster:
    """What workers of a former release left on Apache Kafka."""

    def __init__(self) -> None:
        left = orjson.loads(gzip.decompress((DATA / "former_cluster.json.gz").read_bytes()))
        self.pipeline = replace(shop, name=left["pipeline"])
        self.identity: str = left["identity"]
        self.seals = Seals(CLUSTER_KEY, self.pipeline.name, self.identity)
        self._changelogs, self._topics, self._first = (
            left["changelogs"],
            left["inputs"],
            left["first"],
        )

    def taken_up(self, stage: str) -> TakenUp:
        """The state on the changelog of a stage's only task."""
        state = self.seals.state(f"{stage}-0")
        for key, value, headers in self._changelogs[stage]:
            seals = [_bytes(text) for name, text in headers if name == SEAL]
            state.take(_bytes(key), _bytes(value), seals[0] if seals else None)
        return take_up(f"{stage}-0", state.result(), {}, {}, accept_unsealed=False)

    def task(self, name: str, stage: Stage) -> Task:
        """A task that goes on from the state on its changelog."""
        taken = self.taken_up(name)
        assert taken.positions is not None
        task = Task(f"{name}-0", stage, dict(taken.positions))
        task.restore(taken.pieces)
        return task

    def records(self, topic: str, *, later: bool = False) -> list[Record]:
        """What lies on a topic at the end; or only what was written in the second half."""
        records = [
            Record(topic, partition, offset, _bytes(key), _bytes(value), append_ms)
            for partition, offset, append_ms, key, value in self._topics[topic]
        ]
        if topic in SEALED_TOPICS:
            open_sealed(records, self.seals.records(topic))
        return records[self._first[topic] :] if later else records


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """What the workers left."""
    return Cluster()


def test_learners_of_a_former_release_learn_on(cluster: Cluster) -> None:
    """From the changelog on, every snapshot has the digest that the former release gave it."""
    learn = Learn(cluster.pipeline, CLUSTER_KEY, log=cluster.identity)
    outputs = cluster.task("learn", learn).apply(cluster.records("examples"))
    snapshots = [decode(each.value) for each in outputs if each.topic == "models"]
    expected = [decode(each.value) for each in cluster.records("models", later=True) if each.value]

    assert expected
    assert [(s.model, s.digest) for s in expected] == [(s.model, s.digest) for s in snapshots]


def test_windows_of_a_former_release_go_on(cluster: Cluster) -> None:
    """From the changelog on, every event has the features that the former release gave it."""
    serving = Serving(cluster.pipeline, CLUSTER_KEY, cluster.identity)
    serving.apply(cluster.records("models"))
    serving.apply(cluster.records("registry"))
    outputs = cluster.task("predict", Predict(cluster.pipeline, serving)).apply(
        cluster.records("events")
    )
    expected = [
        decode_prediction(each.value) for each in cluster.records("predictions", later=True)
    ]
    features = [decode_prediction(e.value).features for e in outputs if e.topic == "predictions"]

    assert expected
    assert [each.features for each in expected] == features


def test_pending_predictions_of_a_former_release_are_joined(cluster: Cluster) -> None:
    """From the changelog on, every label finds the prediction that it found then."""
    task = cluster.task("join", Join(cluster.pipeline, 1, 1))
    outputs = task.apply(cluster.records("predictions")) + task.apply(cluster.records("labels"))
    examples = [decode_example(each.value) for each in outputs if each.topic == "examples"]
    expected = [decode_example(each.value) for each in cluster.records("examples", later=True)]

    assert expected
    assert {e.prediction.event_id: e.label for e in expected} == {
        e.prediction.event_id: e.label for e in examples
    }


def test_scores_and_evidence_of_a_former_release_are_kept(cluster: Cluster) -> None:
    """What evaluate takes up is what it would write down again."""
    evaluate = Evaluate(cluster.pipeline, Keyring(CLUSTER_KEY, {}), cluster.identity)
    cluster.task("evaluate", evaluate)
    pieces = {name: orjson.loads(value) for name, value in cluster.taken_up("evaluate").pieces}
    written = {name: orjson.loads(value or b"null") for name, value in evaluate.dirty()}

    # Who is ready to be promoted is among the open alarms now.
    assert pieces[""].pop("announced") is None
    # The bets of evidence, which follow from votes that it kept, are among its state now.
    former = pieces[""]["contest"]["evidence"]
    written[""]["contest"]["evidence"] = {
        line: {member: evidence[member] for member in former[line]}
        for line, evidence in written[""]["contest"]["evidence"].items()
    }
    # It did not say by which blocks, for it started with no others.
    del written[""]["contest"]["rules"], written[""]["guard"]["successor"]["block"]
    # So is what has served, which it did not keep; and the guard has left the contest.
    served = [model for model, _, _ in written.pop("vlogistic")]
    assert served == [pieces[""]["serving"][role]["model"] for role in ("predecessor", "champion")]
    written[""]["contest"] |= written[""]["guard"]["successor"]
    # It read no summaries, and its shadows had answered at event time.
    del written[""]["refusals"]["summaries"], written[""]["held"]["sets_waiting"]
    assert {name: pieces[name] for name in written} == {
        name: {member: value[member] for member in pieces[name]} for name, value in written.items()
    }
