"""What a scrape of a process that works gets: read by the official parser, and true of its log."""

from __future__ import annotations

import re
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import orjson
import pytest

from stream_ml.cli.commands.up import COMMAND as UP
from stream_ml.cli.execution.up import _posts, _worker, _worker_addresses
from stream_ml.cli.main import main, parser
from stream_ml.metrics.endpoint import REQUESTS_MAX, Endpoint
from stream_ml.metrics.families import FAMILIES
from stream_ml.metrics.health import ProbeAnswer
from stream_ml.metrics.pipeline import read_figures
from stream_ml.metrics.setup import serving_metrics
from stream_ml.sealing import strip_seal
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.metering.meter import Meter
from stream_ml.shell.metering.runner import MeasuredRunner
from stream_ml.shell.settings.listening import ListenAddress
from tests.metrics.scraping import FREE, fetch, figures, scrape, until
from tests.shell.cli_toy import outputs, stream, toy
from tests.shell.processes import DEADLINE_S, Terminal

DOCS = Path(__file__).parents[2] / "docs/observability.md"
BOUNDED = {
    "route",
    "status",
    "form",
    "kind",
    "line",
    "origin",
    "outcome",
    "partition",
    "percentile",
    "pipeline",
    "reason",
    "role",
    "score",
    "severity",
    "sign",
    "stage",
    "state",
    "topic",
    "version",
}


def test_a_scrape_of_up_is_true_of_its_log(tmp_path: Path) -> None:
    """Records in and out, refusals and what serves, as they lie on the log afterwards."""
    events, labels = stream(1_100)
    variables = {"STREAM_ML_PIPELINE": "cli_toy:toy", "STREAM_ML_METRICS": "0"}
    wanted = {"predictions": len(events), "examples": len(labels), "dead-letters": 2}
    with Terminal("up", "--format", "json", folder=tmp_path, **variables) as worker:
        said = orjson.loads(worker.line_with('"metrics"'))
        address = ListenAddress.parse(said["address"])
        worker.line_with('"started"')
        with SqliteLog.open(tmp_path / "stream_ml.sqlite") as log:
            log.append(outputs(1_100))
            log.append([bad(b"{"), bad(b'{"event_id": "x"}')])
        families = until(address, "stream_ml_records_out_total", "topic", wanted)
        ready, healthy = fetch(address, "/readyz"), fetch(address, "/healthz")
        ended = worker.stopped()

    assert (0, "") == (ended.code, ended.err)
    assert [(200, b'{"ok":true,"problems":[]}\n')] * 2 == [ready, healthy]
    with SqliteLog.open(tmp_path / "stream_ml.sqlite") as log:
        lying = {topic: sum(1 for _ in read_all(log, topic)) for topic in log.partitions}
        letters = Counter(
            (letter["stage"], letter["reason"])
            for record in read_all(log, "dead-letters")
            for letter in [orjson.loads(record.value or b"")]
        )
    out = figures(families, "stream_ml_records_out_total", "topic")
    # Answers come with the checkpoint at the end.
    topics = ("predictions", "examples", "models", "registry", "evaluations", "dead-letters")
    assert {topic: lying[topic] for topic in topics} == {topic: out[topic,] for topic in topics}
    assert letters == figures(families, "stream_ml_dead_letters_total", "stage", "reason")
    folded = figures(families, "stream_ml_records_in_total", "stage", "topic")
    assert 1_102 == folded["predict", "events"]
    assert len(labels) == folded["learn", "examples"] == folded["join", "labels"]
    assert 1_100 == figures(families, "stream_ml_answer_seconds_count")[()]


def bad(value: bytes) -> object:
    """An event that is none."""
    (event, *_) = outputs(1)
    event.value = value
    return event


def test_figures_of_the_pipeline_are_those_of_its_views(tmp_path: Path) -> None:
    """What serves, how far each stage is and how each line does, by a reader beside the worker."""
    path = tmp_path / "log.sqlite"
    meter = Meter()
    with SqliteLog.create(path) as log:
        log.append(outputs(1_100))
        with MeasuredRunner(meter, log, toy, b"key") as runner:
            runner.run()
        with serving_metrics(
            FREE, meter, lambda: SqliteLog.open(path), pipeline=toy, key=b"key"
        ) as address:
            families = scrape(address)

    versions = figures(families, "stream_ml_serving_version", "role", "line")
    assert 1_000 == versions["champion", "plain"] == versions["challenger", "scaled"]
    assert {("toy",): 1.0} == figures(families, "stream_ml_pipeline_info", "pipeline")
    assert {0.0} == set(figures(families, "stream_ml_lag_records", "stage", "topic").values())
    assert 1_090 / 1_100 == pytest.approx(figures(families, "stream_ml_labelled_ratio")[()])
    scored = figures(families, "stream_ml_scored_examples_total", "line")
    assert {"served", "scaled"} <= {line for (line,) in scored}
    assert (
        10.0
        == figures(families, "stream_ml_label_delay_seconds", "line", "percentile")["served", "50"]
    )
    assert 0 == figures(families, "stream_ml_view_failures_total")[()]


def test_what_is_held_is_bounded_by_all_partitions_together() -> None:
    """Its figure is a sum over partitions, and so is the bound that an alert compares it with."""
    with SqliteLog.create(MEMORY, partitions=2) as log:
        read = list(read_figures(log, toy, b"key"))

    limits = {each.labels: each.value for each in read if each.name == "stream_ml_held_limit"}
    assert {(kind,): 2 * toy.pending_max for kind in ("predictions", "labels")} == limits


def test_whoever_measures_changes_nothing() -> None:
    """Predictions, examples and evaluations are those of a worker without a meter."""
    lying = []
    for make in (Runner, lambda *given: MeasuredRunner(Meter(), *given)):
        with SqliteLog.create(MEMORY) as log:
            log.append(outputs(700))
            with make(log, toy, b"key") as runner:
                runner.run()
            topics = ("predictions", "examples", "evaluations", "answers")
            lying.append([strip_seal(each.value) for t in topics for each in read_all(log, t)])

    assert lying[0] == lying[1]
    assert len(lying[0]) > 2_000


def test_a_log_that_cannot_be_read_costs_the_figures_of_the_pipeline_alone(tmp_path: Path) -> None:
    """The process still tells its own, and that reading failed."""
    with serving_metrics(
        FREE, Meter(), lambda: SqliteLog.open(tmp_path / "gone"), pipeline=toy, key=b"key"
    ) as address:
        families = scrape(address)
        status, body = fetch(address, "/healthz")

    assert 1 == figures(families, "stream_ml_view_failures_total")[()]
    assert "stream_ml_commit_seconds_count" in families
    assert "stream_ml_score" not in families
    assert 503 == status
    assert orjson.loads(body)["problems"][0].startswith("the log cannot be read: ")


def test_who_asks_and_never_listens_is_refused_and_holds_up_nobody() -> None:
    """Requests that say nothing take all places; once they leave, a scrape is answered."""
    with serving_metrics(FREE, Meter(), lambda: SqliteLog.create(MEMORY)) as address:
        silent = [socket.create_connection(address, DEADLINE_S) for _ in range(REQUESTS_MAX)]
        with closing(socket.create_connection(address, DEADLINE_S)) as refused:
            assert b"" == refused.recv(1)
        for each in silent:
            each.close()
        deadline = time.monotonic() + DEADLINE_S
        status = 0
        while status != 200:
            assert time.monotonic() < deadline
            try:
                status, _ = fetch(address, "/readyz")[0] and fetch(address, "/metrics")
            except OSError:
                continue


def test_who_sends_a_little_now_and_then_is_ended() -> None:
    """However slowly requests come, their places are free after the bound of time."""
    endpoint = Endpoint(
        FREE,
        write_metrics=lambda _: (b"", ""),
        healthy=ProbeAnswer,
        ready=ProbeAnswer,
        request_s=0.3,
    )
    with endpoint, ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(endpoint.address, DEADLINE_S))
            for _ in range(REQUESTS_MAX)
        ]
        deadline = time.monotonic() + DEADLINE_S
        while slow:
            assert time.monotonic() < deadline
            # What can be read of them is their end.
            ended, _, _ = select.select(slow, (), (), 0.02)
            slow = [each for each in slow if each not in ended]
            for each in slow:
                with suppress(OSError):
                    each.send(b"x")
        status = 0
        while status != 200:
            assert time.monotonic() < deadline
            with suppress(OSError):
                status, _ = fetch(endpoint.address, "/healthz")


def test_a_place_that_is_taken_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers cannot answer at one address; it is no traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "shell"))
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        code = main(["--pipeline", "cli_toy:toy", "up", "--metrics", address])

    assert 2 == code
    said = capsys.readouterr().err
    assert f"stream-ml: metrics: expected to listen on {address}: " in said
    assert said.endswith("name another address with --metrics HOST:PORT\n")


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """As every wrong word on the command line."""
    assert 2 == main(["up", "--metrics", "everywhere"])
    assert "expected HOST:PORT, or PORT for this machine alone, given 'everywhere'" in (
        capsys.readouterr().err
    )


def test_workers_of_a_cluster_answer_behind_up() -> None:
    """One port each, in the order of the stages, by an option: the environment yields to it."""
    arguments = parser().parse_args(["up", "--predict", "2", "--metrics", "9464"])
    posts = _posts(arguments)
    addresses = _worker_addresses(posts, arguments.metrics)
    command = _worker(posts[1], arguments, addresses[posts[1]])

    assert ["9465", "9466", "9467", "9468", "9469"] == [
        str(address.port) for address in addresses.values()
    ]
    assert "127.0.0.1:9466" == command[command.index("--metrics") + 1]
    assert UP.name not in command[4:]
    assert sys.executable == command[0]


# --- names ------------------------------------------------------------------------------------


def test_names_and_labels_are_as_prometheus_has_them() -> None:
    """Base units, `_total` for what only grows, and no label that could grow without bound."""
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"stream_ml_[a-z_]+", name)
        assert (family.kind == "counter") == name.endswith("_total"), name
        assert BOUNDED >= set(family.labels), name
        assert not name.endswith(("_ms", "_ratio_total", "_milliseconds")), name
        assert family.meaning.endswith("."), name


def test_every_metric_is_described() -> None:
    """The manual's tables have each metric with its labels, and no others."""
    rows = re.findall(r"^\| `(stream_ml_\w+)` \| ([^|]*) \|", DOCS.read_text(), re.MULTILINE)
    described = {name: re.findall(r"`(\w+)`", labels) for name, labels in rows}

    assert {name: list(family.labels) for name, family in FAMILIES.items()} == described


def test_nothing_is_loaded_where_nobody_asks() -> None:
    """A worker without metrics has no HTTP server of ours, and no client of Prometheus."""
    code = (
        "import sys; from stream_ml.cli.execution import up; "
        "print(*(n for n in sys.modules if n.startswith(('prometheus', 'stream_ml.metrics'))))"
    )
    run = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "" == run.stdout.strip()
