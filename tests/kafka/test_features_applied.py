"""Features that are changed in flight on Apache Kafka, while workers die."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.client import connect
from stream_ml.models.envelope import decode
from stream_ml.records import Output, Record
from stream_ml.sealing import content
from stream_ml.stages.learn import Learn
from stream_ml.testing import Driver
from tests.kafka.shop_world import (
    DEADLINE_S,
    DECLARATION,
    ROOT,
    STAGES,
    Reader,
    alive,
    shop_on,
    started,
    stopped,
)
from tests.shell.processes import Terminal
from tests.shop import KEY, shop, stream, wider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.kafka.cluster import Cluster
    from tests.shell.processes import Ended

EVENTS, FIRST, REFRESH = 400, 240, 20


def publish(
    cluster: Cluster,
    events: list[dict[str, Any]],
    labels: list[dict[str, Any]],
    key: bytes = b"a",
) -> None:
    """Put events and labels on the log, all events where a key belongs."""
    with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
        log.append([Output("events", key, orjson.dumps(each)) for each in events])
        ids = [each["event_id"].encode() for each in labels]
        values = map(orjson.dumps, labels)
        log.append([Output("labels", k, v) for k, v in zip(ids, values, strict=True)])


def terminal(cluster: Cluster, folder: Path, *arguments: str) -> Terminal:
    """A command on the cluster."""
    return Terminal(
        *arguments,
        "--format",
        "json",
        folder=folder,
        STREAM_ML_PIPELINE="declared:mine",
        STREAM_ML_BROKER=f"kafka://{cluster.bootstrap}",
        STREAM_ML_KEY="5a" * 32,
    )


def declare(cluster: Cluster, folder: Path, name: str) -> None:
    """Declare a pipeline of `tests.shop` in the folder."""
    text = DECLARATION.format(root=str(ROOT), name=cluster.pipeline, shop=name)
    (folder / "declared.py").write_text(text)


def killed(cluster: Cluster, folder: Path, stage: str, words: str) -> None:
    """Start a worker, and kill it when it has said some words."""
    with terminal(cluster, folder, "worker", stage) as worker:
        worker.line_with(words)
        worker.process.kill()


def learned(
    pipeline: Pipeline, examples: list[Any], features: dict[str, Any]
) -> dict[tuple[str, int], str]:
    """The digests of what lines publish that were there from the start, by line and version."""
    learn = Learn(pipeline, KEY)
    outputs = learn.start()
    for each in examples:
        body = orjson.loads(content(each.value))
        body["features"] = features[body["event_id"]]
        value = orjson.dumps(body)
        outputs += learn.apply([Record("examples", 0, each.offset, None, value, each.timestamp)])
    return digests([output.value for output in outputs if output.topic == "models"])


def digests(values: list[bytes | None]) -> dict[tuple[str, int], str]:
    """The digests of snapshots, by line and version."""
    found = [decode(value) for value in values if value]
    return {(snapshot.name, snapshot.version): snapshot.digest for snapshot in found}


def until_learned(cluster: Cluster, lines: list[str], version: int, workers: list[Terminal]) -> Any:
    """All snapshots, once these lines have published so late a version."""
    deadline, wanted = time.monotonic() + DEADLINE_S, {(line, version) for line in lines}
    while (
        not wanted
        <= (found := digests([each.value for each in Reader(cluster).raw("models")])).keys()
    ):
        assert time.monotonic() < deadline, sorted(found)
        alive(workers)
    return found


class History(NamedTuple):
    """What lay on the log in the end."""

    predictions: list[dict[str, Any]]
    examples: list[Any]
    models: dict[tuple[str, int], str]
    decision: dict[str, Any]


def apply_while_they_die(cluster: Cluster, folder: Path, workers: list[Terminal]) -> Ended:
    """Have features applied while all are at work, of whom two are killed when it is prepared."""
    declare(cluster, folder, "wider")
    with terminal(cluster, folder, "apply", "--reason", "orders say more") as apply:
        apply.line_with("prepared")
        for worker, stage in zip(workers, STAGES, strict=True):
            if stage in {"predict", "learn"}:
                worker.process.kill()
            else:
                assert 0 == worker.stopped().code
        return apply.ended()


def changed(
    cluster: Cluster, folder: Path, events: list[dict[str, Any]], labels: list[dict[str, Any]]
) -> History:
    """Work on events and labels, with features that are changed half way, and deaths in between."""
    early = [each for each in labels if each["ts"] < events[FIRST]["ts"]]
    with ExitStack() as stack:
        workers = started(cluster, folder, stack)
        publish(cluster, events[:FIRST], early)
        Reader(cluster).until("examples", len(early), workers)
        applied = apply_while_they_die(cluster, folder, workers)
    assert applied.code == 0, applied.err
    said = orjson.loads(applied.out.splitlines()[-1])
    assert ("applied", ["logistic.2", "bayes.2", "tree.2"]) == (said["said"], said["lines"])
    publish(cluster, events[FIRST:], labels[len(early) :])
    killed(cluster, folder, "predict", "recovering")
    killed(cluster, folder, "learn", "recovered")
    with ExitStack() as stack:
        workers = started(cluster, folder, stack)
        Reader(cluster).until("examples", len(labels), workers)
        models = until_learned(cluster, ["tree.2"], len(labels) // REFRESH * REFRESH, workers)
        assert [0] * len(workers) == [ended.code for ended in stopped(workers)]
    reader = Reader(cluster)
    [decision] = [each for each in reader.read("registry") if each["kind"] == "applied"]
    return History(reader.read("predictions"), reader.raw("examples"), models, decision)


def test_features_are_changed_in_flight_while_workers_are_killed(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Later features and learners are those of a shop that was declared so from the start."""
    events, labels = stream(count=EVENTS)
    with shop_on(kafka_broker, tmp_path, 1) as cluster:
        predictions, examples, models, decision = changed(cluster, tmp_path, events, labels)
        with terminal(cluster, tmp_path, "plan") as plan:
            assert 0 == plan.ended().code
        declare(cluster, tmp_path, "shop")
        with terminal(cluster, tmp_path, "worker", "predict") as former:
            refused = former.ended()

    with Driver(wider) as driver:
        driver.feed(events, labels)
        whole = {each["event_id"]: each["features"] for each in driver.read("predictions")}
    assert [*whole] == [each["event_id"] for each in predictions]
    later = [each for each in predictions if each["source"]["offset"] >= FIRST]
    assert {"0": FIRST} == decision["evidence"]["offsets"]
    assert [whole[each["event_id"]] for each in later] == [each["features"] for each in later]
    expected = learned(wider, examples, whole)
    for line in wider.models:
        late = {each[1]: digest for each, digest in models.items() if each[0] == f"{line}.2"}
        assert len(late) > 2
        assert {version: expected[line, version] for version in late} == late
    names = shop.feature_set.names
    known = {
        each["event_id"]: {name: each["features"][name] for name in names} for each in predictions
    }
    served = learned(shop, examples, known)
    actual = {each: digest for each, digest in models.items() if each[0] == "logistic"}
    assert {each: served[each] for each in actual} == actual
    assert ("logistic", len(labels) // REFRESH * REFRESH) in actual
    assert 2 == refused.code
    assert "features.count 20s kind=order: expected " in refused.err


# Up to which event the shop is as it was, has been learned again, is wider, and all.
BEFORE, AGAIN, WIDER, ALL = 80, 130, 170, 200
# Belongs in the partition where none of the shops does.
STRAY = b"d"
SWITCHES = {"applied", "replaced", "promoted", "rolled_back"}


def declare_lines(cluster: Cluster, folder: Path, name: str) -> None:
    """Declare a pipeline of `tests.shop`, each line of which is a task."""
    declare(cluster, folder, name)
    with (folder / "declared.py").open("a") as file:
        file.write("mine = dataclasses.replace(mine, learn_tasks='line')\n")


def done(cluster: Cluster, folder: Path, *arguments: str) -> str:
    """What a command says that succeeds."""
    with terminal(cluster, folder, *arguments) as command:
        ended = command.ended()
    assert ended.code == 0, ended.err
    return ended.out


def begun(cluster: Cluster, folder: Path, reason: str) -> list[str]:
    """The lines that begin with the features that are applied."""
    said = orjson.loads(done(cluster, folder, "apply", "--reason", reason).splitlines()[-1])
    lines: list[str] = said["lines"]
    return lines


def until_challenger(cluster: Cluster, line: str, workers: list[Terminal]) -> None:
    """Wait until a line shadows."""
    deadline = time.monotonic() + DEADLINE_S
    while line not in (serving := Reader(cluster).read("registry")[-1]["serving"])["challengers"]:
        assert time.monotonic() < deadline, serving
        alive(workers)


@contextmanager
def at_work(cluster: Cluster, folder: Path) -> Iterator[list[Terminal]]:
    """A worker of each stage, which are all stopped in order at the end."""
    with ExitStack() as stack:
        workers = started(cluster, folder, stack)
        yield workers
        assert [0] * len(workers) == [ended.code for ended in stopped(workers)]


class Stream:
    """Events and labels of the shop, published a stretch at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.events, self.labels = stream(count=ALL)
        self._sent = self._labelled = 0

    def publish(self, last: int, lines: list[str], workers: list[Terminal]) -> None:
        """Publish up to an event, with the labels that are known by then, and have it learned."""
        ts = self.events[last - 1]["ts"] if last < ALL else self.labels[-1]["ts"]
        labelled = sum(each["ts"] <= ts for each in self.labels)
        labels = self.labels[self._labelled : labelled]
        self.publish_events(last, labels)
        self._labelled = labelled
        Reader(self._cluster).until("examples", labelled, workers)
        until_learned(self._cluster, lines, labelled // REFRESH * REFRESH, workers)

    def publish_events(self, last: int, labels: list[dict[str, Any]] | None = None) -> None:
        """Publish up to an event, and with them some labels."""
        publish(self._cluster, self.events[self._sent : last], labels or [], STRAY)
        self._sent = last


def changed_and_back(cluster: Cluster, folder: Path, shops: Stream) -> None:
    """Features are changed; another line is promoted, and rolled back; the change is undone."""
    declare_lines(cluster, folder, "shop")
    with at_work(cluster, folder) as workers:
        shops.publish(BEFORE, ["logistic", "bayes"], workers)
    declare_lines(cluster, folder, "wider")
    lines = ["logistic.2", "bayes.2", "tree.2"]
    assert lines == begun(cluster, folder, "orders say more")
    with at_work(cluster, folder) as workers:
        shops.publish(AGAIN, ["logistic", *lines], workers)
        shops.publish(WIDER, ["logistic", *lines], workers)
        until_challenger(cluster, "tree.2", workers)
        done(cluster, folder, "promote", "tree.2", "--expect", "logistic", "--reason", "more")
        done(cluster, folder, "rollback", "--expect", "tree.2", "--reason", "no")
    declare_lines(cluster, folder, "shop")
    assert ["bayes.3"] == begun(cluster, folder, "they do not")
    with at_work(cluster, folder) as workers:
        shops.publish(ALL, ["logistic", "bayes.3"], workers)


def test_features_of_lines_that_are_tasks_are_changed_and_that_is_undone(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Each event has one prediction, with the features of its time, and each line learns its own.

    Also where events come in another partition than their key's; and a switch is rolled back.
    """
    with shop_on(kafka_broker, tmp_path, 2) as cluster:
        shops, reader = Stream(cluster), Reader(cluster)
        changed_and_back(cluster, tmp_path, shops)
        predictions, decisions = reader.read("predictions"), reader.read("registry")
        models, examples = digests([r.value for r in reader.raw("models")]), reader.raw("examples")
        strays = sum(bool(record.headers) for record in reader.raw("events"))

    assert ALL == strays
    kinds = [each["kind"] for each in decisions if each["kind"] in SWITCHES]
    assert ["applied", "replaced", "rolled_back", "applied"] == kinds
    begins = [each["evidence"]["offsets"] for each in decisions if each["kind"] == "applied"]
    with Driver(wider) as driver:
        driver.feed(shops.events, shops.labels)
        whole = {each["event_id"]: each["features"] for each in driver.read("predictions")}
    names = shop.feature_set.names
    narrow = {event: {name: each[name] for name in names} for event, each in whole.items()}
    assert sorted(whole) == sorted(each["event_id"] for each in predictions)
    for each in predictions:
        partition, offset = str(each["source"]["partition"]), each["source"]["offset"]
        is_wide = begins[0][partition] <= offset < begins[1][partition]
        assert (whole if is_wide else narrow)[each["event_id"]] == each["features"]
    wide, small = learned(wider, examples, whole), learned(shop, examples, narrow)
    expected = {
        (name, version): (wide if name.endswith(".2") else small)[name.partition(".")[0], version]
        for name, version in models
    }
    assert expected == models
    assert {"logistic", "bayes", "logistic.2", "bayes.2", "tree.2", "bayes.3"} == {
        name for name, _ in models
    }


class Takeover(NamedTuple):
    """What lay on the log after a standby had taken over."""

    predictions: list[dict[str, Any]]
    examples: list[Any]
    models: dict[tuple[str, int], str]
    latest: dict[str, int]
    former: Ended
    said: dict[str, Any]


def asked(events: list[dict[str, Any]]) -> int:
    """How many of these events are predicted on."""
    return sum(each["kind"] == "visit" for each in events)


def standing_by(cluster: Cluster, folder: Path, stack: ExitStack) -> list[Terminal]:
    """A worker of each stage that waits, of predict with its windows filled."""
    standbys = [
        stack.enter_context(terminal(cluster, folder, "worker", stage, "--standby"))
        for stage in STAGES
    ]
    for standby, stage in zip(standbys, STAGES, strict=True):
        standby.line_with("level" if stage == "predict" else "standby")
    return standbys


def taken_over(cluster: Cluster, folder: Path, shops: Stream) -> Takeover:
    """Have a standby take over from who predicts, which ends by itself, while events come."""
    reader = Reader(cluster)
    with ExitStack() as stack:
        predict, *others = workers = started(cluster, folder, stack)
        shops.publish(BEFORE, ["logistic", "bayes"], workers)
        declare(cluster, folder, "wider")
        standbys = standing_by(cluster, folder, stack)
        with terminal(cluster, folder, "apply", "--reason", "orders say more") as apply:
            apply.line_with('"standby":true')
            shops.publish_events(AGAIN)
            reader.until("predictions", asked(shops.events[:AGAIN]), [predict])
            assert [0] * len(others) == [ended.code for ended in stopped(others)]
            applied = apply.ended()
        assert applied.code == 0, applied.err
        former = predict.ended()
        shops.publish(ALL, ["logistic", "bayes.2", "tree.2"], standbys)
        assert [0] * len(standbys) == [ended.code for ended in stopped(standbys)]
    [decision] = [each for each in reader.read("registry") if each["kind"] == "applied"]
    return Takeover(
        reader.read("predictions"),
        reader.raw("examples"),
        digests([each.value for each in reader.raw("models")]),
        decision["evidence"]["offsets"],
        former,
        orjson.loads(applied.out.splitlines()[-1]),
    )


def test_a_standby_goes_on_where_the_worker_before_it_has_ended(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Nobody stops predict, each event has one prediction, and lines learn as if always so."""
    with shop_on(kafka_broker, tmp_path, 2) as cluster:
        shops = Stream(cluster)
        after = taken_over(cluster, tmp_path, shops)

    assert ("applied", ["logistic.2", "bayes.2", "tree.2"]) == (
        after.said["said"],
        after.said["lines"],
    )
    assert 2 == after.former.code
    assert "expected the features that this worker was started with" in after.former.err
    with Driver(wider) as driver:
        driver.feed(shops.events, shops.labels)
        whole = {each["event_id"]: each["features"] for each in driver.read("predictions")}
    names = shop.feature_set.names
    narrow = {event: {name: each[name] for name in names} for event, each in whole.items()}
    assert sorted(whole) == sorted(each["event_id"] for each in after.predictions)
    wide: dict[int, list[int]] = {0: [], 1: []}
    for each in sorted(after.predictions, key=lambda each: each["source"]["offset"]):
        partition, event = each["source"]["partition"], each["event_id"]
        is_wide = each["features"] == whole[event]
        assert is_wide or not wide[partition], "it went back to the features of before"
        assert is_wide or each["features"] == narrow[event]
        assert is_wide or each["source"]["offset"] < after.latest[str(partition)]
        wide[partition] += [each["source"]["offset"]] * is_wide
    assert asked(shops.events[AGAIN:]) == sum(map(len, wide.values()))
    expected = learned(wider, after.examples, whole)
    late = {each: digest for each, digest in after.models.items() if each[0].endswith(".2")}
    assert {"logistic.2", "bayes.2", "tree.2"} == {name for name, _ in late}
    assert {each: expected[each[0].removesuffix(".2"), each[1]] for each in late} == late
    served = learned(shop, after.examples, narrow)
    champion = {each: digest for each, digest in after.models.items() if each[0] == "logistic"}
    assert {each: served[each] for each in champion} == champion
