"""A label with more classes on Kafka: taken up at a start, and by whoever runs on not at all."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.client import connect
from stream_ml.records import Output
from stream_ml.shell.views.rebuild import rebuild
from tests.kafka.shop_world import DEADLINE_S, ROOT, Reader, alive, shop_on, started
from tests.models.own import Counts
from tests.shell.processes import Terminal
from tests.shop import declare, shop, stream

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.kafka.cluster import Cluster

KEY = "5a" * 32
SOURCE = """
import sys
sys.path.insert(0, {root!r})
from tests.kafka.test_more_classes import labelled
mine = labelled({name!r}, {classes!r})
"""


def labelled(name: str, classes: str) -> Pipeline:
    """The shop with a label of these classes: one line meets them as they come, one does not."""
    import stream_ml as sml  # noqa: PLC0415 - a declaration's own

    label = sml.Label(sml.Enum(*classes), horizon=shop.label.horizon)
    models = {"bayes": shop.models["bayes"], "counts": Counts()}
    return declare(name=name, label=label, models=models, champion="bayes")


def write(cluster: Cluster, folder: Path, classes: str) -> None:
    """Declare it in the folder."""
    source = SOURCE.format(root=str(ROOT), name=cluster.pipeline, classes=classes)
    (folder / "declared.py").write_text(source)


def publish(cluster: Cluster, seed: int, classes: str, shift_ms: int) -> int:
    """Events and their labels, each class in turn; how many labels."""
    events, labels = stream(seed=seed, count=120)
    for number, each in enumerate(labels):
        each["label"] = classes[number % len(classes)]
    for each in (*events, *labels):
        each |= {"event_id": f"{seed}-{each['event_id']}", "ts": each["ts"] + shift_ms}
    with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
        log.append([Output("events", b"a", orjson.dumps(each)) for each in events])
        ids = [each["event_id"].encode() for each in labels]
        values = map(orjson.dumps, labels)
        log.append([Output("labels", k, v) for k, v in zip(ids, values, strict=True)])
    return len(labels)


def test_a_label_gets_another_class_on_a_cluster(kafka_broker: str, tmp_path: Path) -> None:
    """Who runs on as before ends at the first example of it; the next has every line learn it."""
    with shop_on(kafka_broker, tmp_path, 1) as cluster, ExitStack() as stack:
        settings = {"STREAM_ML_PIPELINE": "declared:mine", "STREAM_ML_KEY": KEY}
        settings |= {"STREAM_ML_BROKER": f"kafka://{cluster.bootstrap}"}
        write(cluster, tmp_path, "ab")
        before = started(cluster, tmp_path, stack)
        count = publish(cluster, 1, "ab", 0)
        Reader(cluster).until("examples", count, before)
        write(cluster, tmp_path, "abc")
        arguments = ("apply", "--format", "json", "--reason", "c came")
        with Terminal(*arguments, folder=tmp_path, **settings) as apply:
            applied = apply.ended()
        assert 0 == applied.code, applied.err
        changes = orjson.loads(applied.out)["decision"]["evidence"]["changes"]
        predict, join, learn, evaluate = before
        assert [0, 0] == [each.stopped().code for each in (predict, join)]

        after = started(cluster, tmp_path, stack, ("predict", "join"))
        total = count + publish(cluster, 2, "abc", 60_000)
        Reader(cluster).until("examples", total, after)
        ended = [each.ended() for each in (learn, evaluate)]
        after += started(cluster, tmp_path, stack, ("learn", "evaluate"))
        deadline, serving = time.monotonic() + DEADLINE_S, dict[str, Any]()
        while "counts.2" not in serving.get("challengers", {}):
            assert time.monotonic() < deadline, serving
            alive(after)
            serving = Reader(cluster).read("registry")[-1]["serving"]
        assert [0, 0, 0, 0] == [each.stopped().code for each in after]

        assert ["label.type", "label.fallback", "classes.counts"] == [e["path"] for e in changes]
        assert [2, 2] == [each.code for each in ended]
        for each in ended:
            assert "expected labels of one of a, b, given 'c' for the event '2-" in each.err
            assert "Traceback" not in each.err
        assert [] == Reader(cluster).read("dead-letters")
        assert {"a", "b", "c"} == {each["label"] for each in Reader(cluster).read("examples")}
        models = [serving["champion"]["model"], serving["challengers"]["counts.2"]["model"]]
        with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
            pipeline = labelled(cluster.pipeline, "abc")
            rebuilt = [rebuild(log, pipeline, bytes.fromhex(KEY), model) for model in models]
        assert [True, True] == [each.equal for each in rebuilt]
        assert rebuilt[1].examples > count
