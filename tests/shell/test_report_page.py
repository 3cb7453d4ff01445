"""Pictures and pages of a report: figures by hand, and a page that holds all it needs."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import random
import stat
import subprocess
import sys
from datetime import datetime
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from cli_toy import TOY, stream, write_lines
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from test_report import (
    DAY_MS,
    HOUR_MS,
    JANUARY_MS,
    decision,
    evaluation,
    example,
    run_of_weeks,
)

from stream_ml.shell.report.chart import LIGHT, PAGE_THEMES, focus
from stream_ml.shell.report.curves import (
    average_precision,
    calibration,
    class_scores,
    confusion,
    precision_recall,
    top_shares,
)
from stream_ml.shell.report.page import report_page
from stream_ml.shell.report.periods import Periods
from stream_ml.shell.report.plots import pictures
from stream_ml.shell.report.run import Report
from stream_ml.shell.whole_files import output_file

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

UTC = ZoneInfo("UTC")
PAIRS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8])), min_size=1, max_size=60
)


# --- periods --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "name"),
    [
        (0.2, "10 minutes"),
        (2, "hour"),
        (10, "6 hours"),
        (45, "day"),
        (180, "week"),
        (900, "4 weeks"),
    ],
)
def test_periods_fit_the_length_of_a_run(days: float, name: str) -> None:
    """A run of hours is shown by minutes, one of weeks by day, one of years by weeks."""
    times = [JANUARY_MS + round(days * DAY_MS * i / 20_000) for i in range(20_001)]

    assert name == Periods(times, UTC).period.name


def test_periods_are_full_enough() -> None:
    """A few hundred examples of a month are no curve of thirty days."""
    times = [JANUARY_MS + i * 30 * DAY_MS // 300 for i in range(300)]

    assert "4 weeks" == Periods(times, UTC).period.name


def test_days_begin_at_midnight_of_the_zone() -> None:
    """A day is a day of the zone's, and its mean is of what lies in it."""
    zone = ZoneInfo("America/New_York")
    times = [JANUARY_MS + i * HOUR_MS // 5 for i in range(24 * 5 * 20)]
    periods = Periods(times, zone)
    days = periods.means([float(i) for i in range(len(times))])

    assert "day" == periods.period.name
    # The first one has the five hours until midnight, 25 examples, which are too few.
    assert "2012-12-31" == periods.label(0)
    assert [1, 2] == [*days][:2]
    assert sum(range(25, 145)) / 120 == days[1]


@pytest.mark.parametrize("name", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe"])
def test_days_stay_days_after_the_clocks_are_changed(name: str) -> None:
    """In spring and in autumn each day has its date, once, and what happened in it."""
    zone = ZoneInfo(name)
    begin_ms = JANUARY_MS + 270 * DAY_MS
    for first in (begin_ms, begin_ms + 150 * DAY_MS):
        times = [first + i * HOUR_MS for i in range(24 * 40)]
        periods = Periods(times, zone, full=20)
        days = {
            n: f"{datetime.fromtimestamp(round(ms) / 1000, zone):%Y-%m-%d}"
            for n, ms in periods.figures(times, lambda of: float(of[len(of) // 2])).items()
        }

        assert "day" == periods.period.name
        assert list(days.values()) == [periods.label(n) for n in days]
        assert list(days.values()) == [f"{periods.middle(n):%Y-%m-%d}" for n in days]
        assert len(days) == len(set(days.values()))


def test_an_hour_that_the_clocks_show_twice_is_two() -> None:
    """Hours are as long as they are: the one that is shown again has a place of its own."""
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2013, 10, 26, 12, tzinfo=zone)
    times = [round(begin.timestamp() * 1000) + i * HOUR_MS // 10 for i in range(10 * 24)]
    periods = Periods(times, zone, full=5)
    hours = periods.figures(times, len)

    assert "hour" == periods.period.name
    assert [10] * 24 == [*hours.values()]
    assert ["2013-10-27 02:00"] * 2 == [periods.label(n) for n in (14, 15)]


# --- curves ---------------------------------------------------------------------------------------


@given(PAIRS)
def test_precision_and_recall_are_those_of_counting(pairs: list[tuple[bool, float]]) -> None:
    """At each threshold they are what counting those at or above it gives."""
    total = sum(label for label, _ in pairs)
    points = precision_recall(pairs)

    assert bool(total) == bool(points)
    for point in points:
        above = [label for label, answer in pairs if answer >= point.threshold]
        assert (len(above), sum(above) / len(above), sum(above) / total) == (
            point.count,
            point.precision,
            point.recall,
        )
    assert average_precision(points) <= 1.0 + 1e-12


def test_the_top_of_a_list_takes_in_equal_answers() -> None:
    """The best hundredth holds all that were answered alike, and says how many."""
    pairs = [(i < 10, 0.9 if i < 20 else 0.1) for i in range(2_000)]

    (part, point), *_ = top_shares(precision_recall(pairs))

    assert (0.01, 20, 0.5, 1.0) == (part, point.count, point.precision, point.recall)


def test_calibration_has_tenths_of_the_examples() -> None:
    """Each point is a tenth of the answers, its truth their mean, within its interval."""
    pairs = [(float(i % 4 == 0), i / 1_000) for i in range(1_000)]

    points = calibration(pairs)

    assert [100] * 10 == [point.count for point in points]
    assert pytest.approx(0.0495) == points[0].answer
    assert pytest.approx(0.25) == points[0].truth
    assert all(point.low < 0.25 < point.high for point in points)


def test_calibration_of_rare_positives_is_within_luck() -> None:
    """Answers of 1 % that are right are not called wrong for the tenths in which none was true."""
    rand = random.Random(5)
    pairs = [(float(rand.random() < 0.01), 0.01) for _ in range(20 * 2_000)]
    within = [
        sum(point.low <= point.answer <= point.high for point in calibration(pairs[n : n + 2_000]))
        for n in range(0, len(pairs), 2_000)
    ]

    assert min(within) >= 8


def test_classes_have_precision_and_recall() -> None:
    """Scores of classes come from who was taken for whom."""
    a, b = {"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}
    counts = confusion([("a", a), ("a", b), ("b", b), ("b", b), ("b", b)])

    first, second = class_scores(counts)

    assert ("b", 3, 0.75, 1.0) == (first.name, first.count, first.precision, first.recall)
    assert ("a", 2, 1.0, 0.5) == (second.name, second.count, second.precision, second.recall)


# --- pictures -------------------------------------------------------------------------------------


def test_a_warm_up_does_not_flatten_the_rest() -> None:
    """An axis shows what comes after the first points, and says how far those go."""
    axes = Figure().subplots()

    focus(axes, [[9.0, *([0.2, 0.3] * 15)]], LIGHT.paper)

    low, high = axes.get_ylim()
    assert 0.15 < low < 0.2
    assert 0.3 < high < 0.35
    assert ["▲ warm-up, up to 9.0000"] == [text.get_text() for text in axes.texts]


def _report(kind: str) -> Report:
    report = Report(
        kind,
        run_of_weeks(kind),
        [decision(0, "bootstrap", "sgd@0"), decision(700, "replaced", "tree@4")],
        {"events": 3},
        horizon_ms=DAY_MS,
        classes=("a", "b") if kind == "multiclass" else (),
        pipeline="<b>shop</b>",
    )
    for hour, votes, e_value in ((10, 0, 1.0), (20, 1, 1.5), (21, 1, 1.5), (40, 2, 3.0)):
        evidence = {"wins": votes, "losses": 0, "e_value": e_value, "needed": 60.0}
        report.evaluate(evaluation("tree", hour, evidence))
    return report


def test_evidence_has_a_point_for_each_block() -> None:
    """Evaluations between two blocks add nothing, and what is needed is on the axis."""
    [picture] = [each for each in pictures(_report("binary")) if each.name == "evidence"]
    figure = Figure()
    picture.paint(figure, LIGHT)

    assert ["0", "1", "2"] == [row[2] for row in picture.rows]
    [axes] = figure.axes
    assert "log" == axes.get_yscale()
    [legend] = figure.legends
    assert "needed to replace: 60" in [text.get_text() for text in legend.get_texts()]
    assert [15_706.0, 15_775.3] == pytest.approx(axes.get_xlim(), abs=1.0)
    assert "<b>shop</b>: " + picture.title == figure.get_suptitle()
    assert "2013-01-01 to 2013-03-11 (UTC), 2,000 examples" == axes.get_title(loc="left")


def test_a_line_is_not_drawn_where_it_says_nothing() -> None:
    """What was silent for days has a gap there, and what answered on one day alone is a dot."""
    hours = range(24 * 60)
    shadows = {hour: {"young": 0.4} if hour // 24 not in {20, 21, 22, 24} else {} for hour in hours}
    run = [
        example(JANUARY_MS + hour * HOUR_MS + i, i % 2 > 0, 0.5, **shadows[hour])
        for hour in hours
        for i in range(5)
    ]
    [story] = [p for p in pictures(Report("binary", run, horizon_ms=DAY_MS)) if p.name == "story"]
    figure = Figure()
    story.paint(figure, LIGHT)

    [young] = [line for line in figure.axes[1].lines if line.get_label() == "line young"]
    heights = [float(each) for each in young.get_ydata()]
    assert [20, 21, 22, 24] == [n for n, each in enumerate(heights) if math.isnan(each)]
    assert [23] == young.get_markevery()


# --- files ----------------------------------------------------------------------------------------


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Where writing fails, the page of before is there still, and nothing half written beside."""
    path = tmp_path / "page.html"
    path.write_text("before")

    with pytest.raises(BufferError), output_file(path) as file:
        file.write(_failing())
    with output_file(tmp_path / "new.html") as file:
        file.write(b"new")

    assert {"page.html": "before", "new.html": "new"} == {
        each.name: each.read_text() for each in tmp_path.iterdir()
    }


def test_a_file_that_is_written_anew_stays_as_open_as_it_was(tmp_path: Path) -> None:
    """What only its owner may read is read by nobody else for being written again."""
    modes = (0o600, 0o640, 0o604)
    for mode in modes:
        path = tmp_path / f"{mode:o}.html"
        path.write_text("before")
        path.chmod(mode)
        with output_file(path) as file:
            file.write(b"new")

    assert {f"{mode:o}.html": ("new", mode) for mode in modes} == {
        each.name: (each.read_text(), stat.S_IMODE(each.stat().st_mode))
        for each in tmp_path.iterdir()
    }


# As nobody where we are root, whom no folder keeps out; from within, for ours may be closed to him.
WRITE_IN_PLACE = """
import os, pathlib, sys
from stream_ml.shell.whole_files import output_file
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)
with output_file(pathlib.Path("page.html")) as file:
    file.write(b"page")
"""


def test_a_file_in_a_folder_that_takes_no_other_is_written_in_place(tmp_path: Path) -> None:
    """Whoever may write a file, and nothing beside it, writes it as ever."""
    (tmp_path / "page.html").write_text("a longer one than what comes")
    if os.geteuid() == 0:
        os.chown(tmp_path / "page.html", 65534, 65534)
    tmp_path.chmod(0o555)
    try:
        subprocess.run([sys.executable, "-c", WRITE_IN_PLACE, tmp_path], check=True)  # noqa: S603
    finally:
        tmp_path.chmod(0o700)

    assert {"page.html": "page"} == {each.name: each.read_text() for each in tmp_path.iterdir()}


def _failing() -> bytes:
    raise BufferError


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    """A link, and standard output, stay what they are, and get the page."""
    (tmp_path / "to").write_text("a longer one than what comes")
    (tmp_path / "link").symlink_to(tmp_path / "to")
    program = (
        "import sys, pathlib; from stream_ml.shell.whole_files import output_file\n"
        "with output_file(pathlib.Path(sys.argv[1])) as file: file.write(b'page')"
    )
    for place in ("link", "/dev/stdout"):
        ran = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", program, place], cwd=tmp_path, check=True, capture_output=True
        )

    assert b"page" == ran.stdout
    assert "page" == (tmp_path / "to").read_text()
    assert (tmp_path / "link").is_symlink()


# --- pages ----------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a page asks for, and what it holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_page_holds_all_it_needs(kind: str) -> None:
    """No address, no script, a policy that allows neither, and words beside each picture."""
    text = report_page(_report(kind), "backtest")
    page = _Page(text)

    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert [] == page.all("script") + page.all("iframe")
    [policy] = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in (policy or "")
    assert "default-src 'none'" in (policy or "")
    images = page.all("img")
    assert len(pictures(_report(kind))) == len(images) == len(page.all("source"))
    assert all(len(image["alt"] or "") > 20 for image in images)
    assert len(images) <= len(page.all("details"))
    drawn = pictures(_report(kind))
    for picture in drawn:
        title = escape(picture.title[:1].upper() + picture.title[1:])
        assert 1 == text.count(f">{title}<")
    figure = Figure()
    drawn[0].paint(figure, PAGE_THEMES[0])
    # The heading has said it.
    assert "" == figure.get_suptitle()
    assert [{"lang": "en"}] == page.all("html")
    # What a pipeline is called is text, and no tag.
    assert "<h1>&lt;b&gt;shop&lt;/b&gt;: backtest</h1>" in text
    assert [] == page.all("b")


@pytest.mark.parametrize("examples", [0, 1])
def test_a_short_run_has_a_page(examples: int) -> None:
    """A run in which hardly a label met its prediction is no error."""
    run = [example(JANUARY_MS + i, True, 0.5) for i in range(examples)]

    page = _Page(report_page(Report("binary", run, horizon_ms=DAY_MS), "backtest"))

    assert 2 * examples == len(page.all("img"))


def test_a_backtest_writes_its_page(cli: Cli, tmp_path: Path) -> None:
    """`backtest --report` writes the page, and says where; a bad place is refused at once."""
    events, labels = stream(600)
    write_lines(tmp_path / "all.jsonl", [*events, *labels])
    arguments = ("backtest", "all.jsonl", "--pipeline", TOY, "--report")

    ran = cli(*arguments, "page.html")
    refused = cli(*arguments, "none/page.html")

    assert 0 == ran.code, ran.err
    assert "  page.html" in ran.out.splitlines()
    assert "<h1>toy: backtest</h1>" in (tmp_path / "page.html").read_text()
    assert 2 == refused.code
    assert "stream-ml: --report: expected a file such as report.html" in refused.err


def test_what_if_writes_its_page(cli: Cli, worked: Path, tmp_path: Path) -> None:
    """`what-if --report` shows each candidate beside what served."""
    ran = cli(
        *("--broker", f"sqlite:{worked}", "--pipeline", TOY, "what-if", TOY),
        *("--report", str(tmp_path / "what.html")),
    )

    assert 0 == ran.code, ran.err
    text = (tmp_path / "what.html").read_text()
    assert "<h1>toy: what if</h1>" in text
    assert 1 == len(_Page(text).all("img"))
