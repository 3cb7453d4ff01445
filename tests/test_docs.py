"""README and the manual are true: their code runs, commands parse, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stream_ml.cli.main import EXIT_CODES, main
from stream_ml.shell.settings.settings import SETTINGS, Settings
from tests.test_architecture import FUNCTION_LINES_MAX, MODULE_LINES_MAX
from tools import dataflow, docstrings, wire
from tools.doctest_fences import with_fences

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
README_WORDS_MAX = 1_200
# Of the public functions of two or more parameters, how many in a hundred explain them.
EXPLAINED_MIN = 90


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT[page], flags=re.DOTALL)


def _names(pages: list[Path]) -> list[str]:
    return [page.name for page in pages]


WITH_PYTHON = [page for page in PAGES if _blocks(page, "python")]
COMMANDS = [
    (page, re.sub(r"^(STREAM_ML_\w+=\S+ )+", "", line.removeprefix("$ ")).partition("  #")[0])
    for page in PAGES
    for block in _blocks(page, "console")
    for line in block.splitlines()
    if re.match(r"\$ (STREAM_ML_\w+=\S+ )*stream-ml", line)
]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=_names(WITH_PYTHON))
def test_its_python_runs_from_top_to_bottom(page: Path) -> None:
    """Each block of a page runs after the ones before it, asserts and all."""
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in _blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)  # noqa: S102 - our own pages


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_its_commands_parse(page: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every `stream-ml` command shown is one that the command line knows."""
    words = shlex.split(command)[1:]

    code = main([*words, "--help"])

    assert code == 0, page.name
    assert "usage: stream-ml" in capsys.readouterr().out


def test_the_files_that_pages_name_exist() -> None:
    """No guarantee points at a test that is not there."""
    found = re.compile(r"`((?:tests|topics|stream_ml|benchmarks|tools|chaos)/[\w./*-]*)`")
    named = {(page.name, path) for page in PAGES for path in found.findall(TEXT[page])}

    assert {"README.md", "guarantees.md"} <= {page for page, _ in named}
    assert [] == sorted((page, path) for page, path in named if not list(ROOT.glob(path)))


def test_make_targets_that_pages_name_exist() -> None:
    """Each `make` command shown is a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    shown = {
        name for text in TEXT.values() for name in re.findall(r"(?:`|\$ )make ([a-z-]+)", text)
    }

    assert {"demo", "test", "docs"} <= shown
    assert set() == shown - targets


def test_readme_is_short_and_begins_with_two_commands() -> None:
    """Who has never seen it reads it in five minutes, and finds what to type at once."""
    assert len(TEXT[README].split()) <= README_WORDS_MAX
    first = _blocks(README, "console")[0].splitlines()

    assert ["make demo", "make test"] == [line[2:].split("  ")[0].rstrip() for line in first]


def test_readme_shows_the_picture_and_leads_to_every_page() -> None:
    """Nothing of the manual is out of reach from the first page."""
    local = _links(README)

    assert "docs/dataflow.svg" in local
    assert [] == sorted(link for link in local | _links(CONTRIBUTING) if not (ROOT / link).exists())
    assert {"docs/index.md"} == {str(page.relative_to(ROOT)) for page in PAGES[1:]} - local


def _links(page: Path) -> set[str]:
    """The files that a page at the top leads to."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT[page])
    return {link for link in links if "://" not in link}


def test_the_limits_of_contributing_are_those_that_are_held() -> None:
    """Who contributes is told the numbers that the test of the architecture will say."""
    numbers = set(re.findall(r"\b\d+\b", TEXT[CONTRIBUTING]))

    assert {str(FUNCTION_LINES_MAX), str(MODULE_LINES_MAX)} == numbers


def test_readme_takes_its_figures_from_the_table_of_all() -> None:
    """A figure that was measured again is not left behind on the first page."""
    figures = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    table = TEXT[README].partition("## Figures")[2].partition("##")[0]
    cells = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]

    numbers = {number for cell in cells for number in re.findall(r"\d[\d.,]*\d|\d", cell)}
    assert len(numbers) > len(cells)
    assert set() == {n for n in numbers if not re.search(rf"(?<![\d.,]){re.escape(n)}", figures)}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every page is in the navigation; every link and anchor, of the API's pages too, is there."""
    build = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert build.returncode == 0, build.stderr
    assert "Pipeline" in (tmp_path / "api" / "declaration.html").read_text(encoding="utf-8")
    # It is read without the network: no page fetches a script, a style or a font from elsewhere.
    fetched = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="?https?://(?!127)')
    assert [] == [
        page.name for page in tmp_path.rglob("*.html") if fetched.search(page.read_text())
    ]


def test_the_picture_is_of_the_stages_that_there_are() -> None:
    """The arrows drawn are the topology's, and the file is the one that the script draws."""
    assert set() == dataflow.route_differences()
    assert dataflow.main(["--check"]) == 0, "python -m tools.dataflow"


def test_a_picture_of_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that no stage takes is noticed."""
    monkeypatch.setitem(dataflow.ROUTES, ("labels", "learn"), ())

    assert {("labels", "learn")} == dataflow.route_differences()
    with pytest.raises(SystemExit, match="labels"):
        dataflow.drawing()


def test_the_wire_is_the_catalogue() -> None:
    """Every topic and field is on the page, as `topics/*.toml` has it."""
    assert wire.main(["--check"]) == 0, "python -m tools.wire"


def test_every_setting_is_in_the_manual() -> None:
    """Who runs it finds each variable, and no variable that there is not."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.partition("## Settings")[2].partition("\n## ")[0]
    rows = "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))

    assert {s.variable for s in SETTINGS.values()} == set(re.findall(r"STREAM_ML_[A-Z_]+", rows))


def test_defaults_of_settings_are_the_true_ones() -> None:
    """A number or address that the manual gives for a setting is what a command would use."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| `STREAM_ML_")]
    told = {row[0].split("`")[1]: row[2].strip("`| ") for row in cells}
    unset = Settings()

    for setting in SETTINGS.values():
        default = getattr(unset, setting.name)
        if isinstance(default, bool):
            assert told[setting.variable] == str(int(default))
        elif isinstance(default, int | float):
            assert told[setting.variable] == f"{default:g}"
    assert told["STREAM_ML_BROKER"] == unset.broker


def test_every_exit_code_is_in_the_manual() -> None:
    """Whoever writes a script around a command finds what each code means."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.partition("## Exit codes")[2].partition("\n## ")[0]

    codes = re.findall(r"^ +(\d+)  ", EXIT_CODES, flags=re.MULTILINE)
    assert codes == re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)


def test_examples_of_docstrings_are_code_on_the_site() -> None:
    """An example stands between fences, and the words around it do not."""
    assert "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nOr:" == with_fences(
        "Adds.\n\n>>> 1 + 1\n2\n\nOr:"
    )


def test_every_room_is_on_the_map() -> None:
    """Whoever opens the package's folder finds each name in it explained."""
    package = ROOT / "stream_ml"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    inside = {path.name for path in (package / "shell").iterdir() if path.is_dir()}
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table, _, shell = (
        text.partition("## Rooms")[2].partition("\n## ")[0].partition("Inside `shell`")
    )

    assert {room for room in rooms if not room.startswith("__")} == _first_column(table)
    assert {room for room in inside if not room.startswith("__")} == _first_column(shell)


def _first_column(table: str) -> set[str]:
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_functions_explain_their_parameters() -> None:
    """A reader of another module learns what to give a function without reading its body."""
    counted = [
        c for path in (ROOT / "stream_ml").rglob("*.py") for c in docstrings.count_functions(path)
    ]
    explained = [each for each in counted if not each.unexplained]

    assert len(explained) * 100 >= EXPLAINED_MIN * len(counted), "python -m tools.docstrings"


def test_a_parameter_that_nothing_explains_is_counted(tmp_path: Path) -> None:
    """The count has teeth: what neither a line nor the text names is found."""
    module = tmp_path / "module.py"
    lines = ['    """Does `a`.', "", "    Args:", "        b: a number.", '    """']
    module.write_text("\n".join(["def f(a: int, b: int, c: int) -> None:", *lines]))

    assert [("c",)] == [each.unexplained for each in docstrings.count_functions(module)]
