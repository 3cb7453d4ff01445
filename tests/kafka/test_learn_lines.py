"""Lines that are tasks of their own on Kafka: spread, taken over, and the same in each bit."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson
from river import tree

from stream_ml.client import connect
from stream_ml.models.envelope import decode
from stream_ml.records import Output
from stream_ml.sealing import Seals
from stream_ml.shell.kafka.records import to_records
from stream_ml.stages.inputs import open_sealed
from stream_ml.stages.learn import Learn
from tests.kafka.shop_world import DEADLINE_S, Reader, alive, shop_on, started, stopped
from tests.shell.processes import Terminal
from tests.shop import declare, stream

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster

LINES = """
from river import tree
late = {{"late": tree.HoeffdingTreeClassifier(grace_period=20, max_depth=3)}}
models = {{**mine.models, **({late})}}
mine = dataclasses.replace(mine, learn_tasks="line", models=models)
"""
EVENTS = 400


def declare_lines(folder: Path, late: str = "{}") -> None:
    """Declare the shop with a task a line; of those that come late none, or `late`."""
    source = (folder / "declared.py").read_text().partition("\nfrom river")[0]
    (folder / "declared.py").write_text(source + LINES.format(late=late))


def published(cluster: Cluster, first: int, last: int) -> None:
    """Some of the stream's events, and all labels by the last of them."""
    events, labels = stream(count=EVENTS)
    begin, end = events[first]["ts"] if first else 0, events[last - 1]["ts"]
    with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
        log.append([Output("events", b"a", orjson.dumps(each)) for each in events[first:last]])
        due = [each for each in labels if begin < each["ts"] <= end]
        ids = [each["event_id"].encode() for each in due]
        log.append([Output("labels", k, orjson.dumps(v)) for k, v in zip(ids, due, strict=True)])


def digests(reader: Reader, lines: set[str]) -> dict[str, str]:
    """What lines have published so far: the digest of each snapshot."""
    found = [decode(record.value) for record in reader.raw("models") if record.value]
    return {snapshot.model: snapshot.digest for snapshot in found if snapshot.name in lines}


def by_one_task(cluster: Cluster, reader: Reader, **models: Any) -> dict[str, str]:
    """What one task with all lines publishes, of the very same examples."""
    pipeline = declare(name=cluster.pipeline, models={**declare().models, **models})
    records = to_records("examples", reader.raw("examples"))
    with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
        identity = log.identity
    seals = Seals(bytes.fromhex("5a" * 32), cluster.pipeline, identity)
    open_sealed(records, seals.records("examples"))
    learn = Learn(pipeline, b"key", log=identity)
    outputs = [*learn.start(), *learn.apply(records)]
    snapshots = [decode(output.value) for output in outputs if output.topic == "models"]
    return {snapshot.model: snapshot.digest for snapshot in snapshots}


def until_equal(cluster: Cluster, reader: Reader, workers: list[Terminal], **models: Any) -> None:
    """Wait until the lines have published all that one task does; none of it is otherwise."""
    deadline = time.monotonic() + DEADLINE_S
    lines = {*declare().models, *models}
    while True:
        alive(workers)
        actual = digests(reader, lines)
        expected = by_one_task(cluster, reader, **models)
        assert actual == {model: expected[model] for model in actual}
        if actual == expected:
            return
        assert time.monotonic() < deadline, expected.keys() - actual.keys()


def test_lines_are_spread_taken_over_and_equal_those_of_one_task(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Two workers share the lines; one is killed, and a line comes late: digest by digest."""
    with shop_on(kafka_broker, tmp_path, 1) as cluster:
        declare_lines(tmp_path)
        reader = Reader(cluster)
        with ExitStack() as stack:
            stages = ("predict", "join", "learn", "learn", "evaluate")
            workers = started(cluster, tmp_path, stack, stages)
            for learn in workers[2:4]:  # each has a line
                assert orjson.loads(learn.line_with('"recovered"'))["line"] in declare().models
            published(cluster, 0, 150)
            reader.until("examples", 60, workers)
            until_equal(cluster, reader, workers)
            killed = workers.pop(2)
            killed.process.send_signal(signal.SIGKILL)
            killed.process.wait()
            published(cluster, 150, 250)
            reader.until("examples", 110, workers)
            until_equal(cluster, reader, workers)
            assert [0] * len(workers) == [ended.code for ended in stopped(workers)]
        assert {b"logistic/\x00marker", b"bayes/\x00marker"} == {
            record.key for record in reader.raw("learn-changelog") if b"marker" in record.key
        }

        declared = (tmp_path / "declared.py").read_text()
        (tmp_path / "declared.py").write_text(declared.replace('"line"', '"one"'))
        variables = {"STREAM_ML_PIPELINE": "declared:mine", "STREAM_ML_KEY": "5a" * 32}
        broker = {"STREAM_ML_BROKER": f"kafka://{cluster.bootstrap}"}
        with Terminal("worker", "learn", folder=tmp_path, **variables, **broker) as worker:
            refused = worker.ended()
        assert 2 == refused.code
        assert "declare learn_tasks='line' again" in refused.err

        declare_lines(tmp_path, "late")
        late = tree.HoeffdingTreeClassifier(grace_period=20, max_depth=3)
        with ExitStack() as stack:
            workers = started(cluster, tmp_path, stack)
            published(cluster, 250, EVENTS)
            reader.until("examples", 180, workers)
            until_equal(cluster, reader, workers, late=late)
            sets = [decision["serving"] for decision in reader.read("registry")]
            assert "late" in sets[-1]["challengers"]
            assert [0] * len(workers) == [ended.code for ended in stopped(workers)]
