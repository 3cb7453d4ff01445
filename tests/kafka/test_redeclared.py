"""Workers on Kafka that are started under another declaration: told, or refused with code 2."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.client import connect
from stream_ml.differences import accepted_changes, differences
from stream_ml.errors import UsageError
from stream_ml.records import Output
from stream_ml.shell.views.plan import read_plan, running_declarations
from stream_ml.shell.views.registry import read_registry
from tests.kafka import every_change
from tests.kafka.shop_world import DEADLINE_S, Reader, alive, shop_on, started, stopped
from tests.shell.processes import Terminal
from tests.shop import EVENT, START_MS, stream
from tests.shop import declare as a_shop
from tests.test_differences import CHANGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster

SETTINGS = {"STREAM_ML_PIPELINE": "declared:mine", "STREAM_ML_KEY": "5a" * 32}
FEATURE = "features=[*shop.features, sml.hour_of_day()]"
RENAMED = (
    "champion='logit', models={'logit': shop.models['logistic'], 'bayes': shop.models['bayes']}"
)
LABEL = "label=dataclasses.replace(shop.label, type=sml.Enum('a', 'b'))"
KEY = "events=dataclasses.replace(shop.events, key='note_id')"
RECIPE = "models={**shop.models, 'bayes': tree.HoeffdingTreeClassifier()}"
MODE = "promotion=dataclasses.replace(shop.promotion, mode='manual')"
ASKS = "predict=None"
# Each part that can be changed, and whether that is taken up.
EACH = {change for _, _, expected in CHANGES for change in expected}
# What `up` says, once it has told what was changed; and where there is nothing to tell.
TOLD = ({"changed", "serves"}, {"serves"})
# What is changed, a stage that is started with it, and a part that is named.
REFUSED = [
    (FEATURE, "predict", "features.hour_of_day: expected nothing, given "),
    (LABEL, "join", "label.type: expected bool, given Enum('a', 'b'); "),
    (RECIPE, "learn", "models.bayes: expected naive_bayes.GaussianNB(), given tree.Hoeffding"),
    (LABEL, "evaluate", "label.type: expected bool, given Enum('a', 'b'); "),
]


def declare(cluster: Cluster, folder: Path, change: str) -> None:
    """Declare the shop in the folder with a change."""
    source = (folder / "declared.py").read_text().partition("mine = ")[0]
    changed = f"mine = dataclasses.replace(shop, name={cluster.pipeline!r}, {change})\n"
    imports = "import stream_ml as sml\nfrom river import tree\n"
    (folder / "declared.py").write_text(f"{source}{imports}{changed}")


def declare_every(cluster: Cluster, folder: Path, name: str) -> None:
    """Declare in the folder one of `tests.kafka.every_change`, by name."""
    source = (folder / "declared.py").read_text().partition("mine = ")[0]
    text = f"mine = dataclasses.replace(every_change.{name}, name={cluster.pipeline!r})\n"
    (folder / "declared.py").write_text(f"{source}from tests.kafka import every_change\n{text}")


def until_said(up: Terminal, kinds: set[str]) -> list[dict[str, Any]]:
    """What `up` says until it has said each of these, in whatever order."""
    said: list[dict[str, Any]] = []
    while not kinds <= {each.get("said") for each in said}:
        said.append(orjson.loads(up.line()))
    return said


def until_predicted(cluster: Cluster, event_id: str, up: Terminal) -> None:
    """Wait until an event has its prediction, while `up` works."""
    deadline = time.monotonic() + DEADLINE_S
    while event_id not in {each["event_id"] for each in Reader(cluster).read("predictions")}:
        assert time.monotonic() < deadline, event_id
        alive([up])


@pytest.fixture(scope="module")
def worked(
    kafka_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Path]]:
    """A cluster on which the shop has worked, for whoever leaves it as it is."""
    folder = tmp_path_factory.mktemp("changed")
    with stopped_shop(kafka_broker, folder) as cluster:
        yield cluster, folder


@pytest.fixture
def own_worked(kafka_broker: str, tmp_path: Path) -> Iterator[tuple[Cluster, Path]]:
    """Another one, for whoever changes what its state was made under."""
    with stopped_shop(kafka_broker, tmp_path) as cluster:
        yield cluster, tmp_path


@contextmanager
def stopped_shop(kafka_broker: str, folder: Path, name: str | None = None) -> Iterator[Cluster]:
    """A cluster on which the shop has worked, and its workers were stopped in order.

    Or one of `tests.kafka.every_change` has, by name.
    """
    with shop_on(kafka_broker, folder, 1) as cluster:
        if name is not None:
            declare_every(cluster, folder, name)
        events, labels = stream(count=60)
        with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
            log.append([Output("events", b"a", orjson.dumps(each)) for each in events])
            ids = [each["event_id"].encode() for each in labels]
            values = map(orjson.dumps, labels)
            log.append([Output("labels", k, v) for k, v in zip(ids, values, strict=True)])
        with ExitStack() as stack:
            workers = started(cluster, folder, stack)
            Reader(cluster).until("examples", 30, workers)
            assert [0] * len(workers) == [ended.code for ended in stopped(workers)]
        yield cluster


def terminal(cluster: Cluster, folder: Path, *arguments: str) -> Terminal:
    """A command on the cluster."""
    broker = {"STREAM_ML_BROKER": f"kafka://{cluster.bootstrap}"}
    return Terminal(*arguments, "--format", "json", folder=folder, **SETTINGS, **broker)


@pytest.mark.parametrize(("change", "stage", "part"), REFUSED, ids=[p for _, _, p in REFUSED])
def test_a_worker_under_another_declaration_ends_with_what_differs(
    worked: tuple[Cluster, Path], change: str, stage: str, part: str
) -> None:
    """Exit code 2, no traceback: what the state was made under, what is declared, the way out."""
    cluster, folder = worked
    declare(cluster, folder, change)
    with terminal(cluster, folder, "worker", stage) as worker:
        ended = worker.ended()

    assert 2 == ended.code, ended.err
    assert "Traceback" not in ended.err
    assert f"the state of {stage}-0 on {cluster.topic(f'{stage}-changelog')} was made " in ended.err
    assert part in ended.err
    assert "Declare it as it was" in ended.err
    assert ended.err.endswith("or begin anew under another name of the pipeline.\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (FEATURE, "features.hour_of_day: expected nothing"),
        (RENAMED, "the line 'logistic' serves, but the declaration has only logit, bayes"),
    ],
    ids=["stateless feature", "renamed champion"],
)
def test_up_ends_at_once_under_another_declaration(
    worked: tuple[Cluster, Path], change: str, said: str
) -> None:
    """It neither waits for models that never come, nor starts its workers time and again."""
    cluster, folder = worked
    declare(cluster, folder, change)
    with terminal(cluster, folder, "up") as up:
        ended = up.ended()

    assert 2 == ended.code, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err


def paths(refusal: str) -> str:
    """The part of the declaration that is refused."""
    return refusal.partition(": expected ")[0]


def test_each_kind_of_difference_is_planned_on_a_cluster(worked: tuple[Cluster, Path]) -> None:
    """What the plan finds on Kafka is what it finds on a file, and what a start there does."""
    cluster, _ = worked
    key = bytes.fromhex(SETTINGS["STREAM_ML_KEY"])
    with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
        newest = read_registry(log, key, 0).newest
        declarations = running_declarations(log, a_shop(name=cluster.pipeline), key)
        assert sorted(declarations) == ["evaluate-0", "join-0", "learn-0", "predict-0"]
        for was, now, expected in CHANGES:
            if was or "name" in now:
                continue
            pipeline = a_shop(**now, name=cluster.pipeline)
            changes = [each.difference for each in read_plan(log, pipeline, key, newest).changes]

            assert expected == [(each.path, each.is_accepted) for each in changes]
            refusals = [str(each) for each in changes if not each.is_accepted]
            for declaration in declarations.values():
                if refusals:
                    with pytest.raises(UsageError) as refused:
                        accepted_changes(declaration, pipeline.declaration(), "it", "do")
                    lines = [each.strip() for each in str(refused.value).splitlines()[1:-1]]
                    # The plan knows what serves, and may refuse for more than a start does.
                    assert list(map(paths, refusals)) == list(map(paths, lines))
                else:
                    told = accepted_changes(declaration, pipeline.declaration(), "it", "do")
                    assert told == list(map(str, changes))
        assert newest == read_registry(log, key, 0).newest


def test_a_plan_on_a_cluster_from_the_command_line(worked: tuple[Cluster, Path]) -> None:
    """As on a file: each difference, exit code 2; of another name there are no topics."""
    cluster, folder = worked
    declare(cluster, folder, f"{MODE}, {KEY}")
    with terminal(cluster, folder, "plan") as plan:
        ended = plan.ended()

    assert ended.code == 2
    effects = {each["path"]: each["effect"] for each in orjson.loads(ended.out)["changes"]}
    assert effects == {"events.key": "refused", "promotion.mode": "now"}
    other = (folder / "declared.py").read_text().replace(cluster.pipeline, f"{cluster.pipeline}-x")
    (folder / "declared.py").write_text(other)
    with terminal(cluster, folder, "plan") as plan:
        ended = plan.ended()
    assert ended.code == 3
    assert "Traceback" not in ended.err


def test_features_are_not_applied_with_what_is_refused(worked: tuple[Cluster, Path]) -> None:
    """It says so, with the way out, before anything is waited for or done."""
    cluster, folder = worked
    declare(cluster, folder, f"{FEATURE}, {KEY}")
    with terminal(cluster, folder, "apply", "--reason", "hours say more") as apply:
        ended = apply.ended()

    assert ended.code == 2
    assert "" == ended.out
    assert "events.key: expected shop, given note_id; " in ended.err
    assert "Traceback" not in ended.err


def test_each_kind_of_difference_is_refused_at_once_or_told_once(
    kafka_broker: str, tmp_path: Path
) -> None:
    """By `up`: those that cannot be taken up end it; the others an alert tells, and it goes on.

    The state knows them from then on, so the next start has nothing to tell.
    """
    former = every_change.former.declaration()
    taken = differences(former, every_change.changed.declaration())
    not_taken = differences(former, every_change.refused.declaration())
    with stopped_shop(kafka_broker, tmp_path, "former") as cluster:
        declare_every(cluster, tmp_path, "refused")
        with terminal(cluster, tmp_path, "up") as up:
            refused = up.ended()
        declare_every(cluster, tmp_path, "changed")
        messages = []
        for number in range(2):
            with terminal(cluster, tmp_path, "up") as up:
                said = until_said(up, TOLD[number])
                messages += [each["message"] for each in said if each.get("said") == "changed"]
                event = EVENT | {"event_id": f"n{number}", "ts": START_MS + 60_000 + number}
                with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
                    log.append([Output("events", b"a", orjson.dumps(event))])
                until_predicted(cluster, event["event_id"], up)
                ended = up.stopped()
                assert (0, 0) == (ended.code, ended.out.count('"changed"'))
        alerts = [a for a in Reader(cluster).read("alerts") if a["kind"] == "declaration_changed"]

    assert 2 == refused.code
    assert "events.key: expected shop, given note_id; " in refused.err
    refusals = [each.path for each in not_taken if not each.is_accepted]
    assert len(refusals) > 15
    assert [] == [path for path in refusals if f"{path}: expected " not in refused.err]
    assert [] == [each.path for each in taken if str(each) not in messages[0]]
    assert "Traceback" not in refused.err
    assert messages == [each["message"] for each in alerts]


def test_most_kinds_of_difference_are_started_under_on_a_cluster() -> None:
    """Of all that can be changed, most is what `up` is started under above."""
    former = every_change.former.declaration()
    found = {
        (each.path, each.is_accepted)
        for pipeline in (every_change.changed, every_change.refused)
        for each in differences(former, pipeline.declaration())
    }

    assert len(EACH & found) >= 60


def test_a_changed_recipe_is_applied_on_a_cluster(own_worked: tuple[Cluster, Path]) -> None:
    """Refused before; decided on while the workers run; then the line goes on as its version."""
    cluster, folder = own_worked
    declare(cluster, folder, f"{MODE}, {ASKS}")
    with ExitStack() as stack:
        workers = started(cluster, folder, stack)
        declare(cluster, folder, f"{MODE}, {ASKS}, {RECIPE}")
        with terminal(cluster, folder, "apply", "--reason", "a tree") as apply:
            applied = apply.ended()
        assert [0] * len(workers) == [ended.code for ended in stopped(workers)]
    assert applied.code == 0, applied.err
    decision = orjson.loads(applied.out)["decision"]
    assert [each["path"] for each in decision["evidence"]["changes"]] == ["models.bayes"]

    with ExitStack() as stack:
        workers = started(cluster, folder, stack)
        events, labels = stream(seed=2, count=120)
        with connect(f"kafka://{cluster.bootstrap}/{cluster.pipeline}") as log:
            for each in (*events, *labels):
                each |= {"event_id": f"f{each['event_id']}", "ts": each["ts"] + 60_000}
            log.append([Output("events", b"a", orjson.dumps(each)) for each in events])
            ids = [each["event_id"].encode() for each in labels]
            values = map(orjson.dumps, labels)
            log.append([Output("labels", k, v) for k, v in zip(ids, values, strict=True)])
        deadline = time.monotonic() + DEADLINE_S
        serving: dict[str, Any] = {}
        while "bayes.2" not in serving.get("challengers", {}):
            assert time.monotonic() < deadline, serving
            alive(workers)
            serving = Reader(cluster).read("registry")[-1]["serving"]
        for worker in workers:
            ended = worker.stopped()
            assert 0 == ended.code, ended.err

    models = {each["model"]: each["recipe"] for each in Reader(cluster).read("models")}
    assert models["bayes"] == "naive_bayes.GaussianNB()"
    assert models["bayes.2"].startswith("tree.HoeffdingTreeClassifier(")
    assert serving["champion"]["model"].startswith("logistic@")
