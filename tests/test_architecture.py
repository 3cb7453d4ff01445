"""The house keeps its order: who may import what, what the core may touch, and plain habits.

Every rule is data at the top; every checker is tried on a planted violation at the end.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import stream_ml
from stream_ml import errors
from stream_ml.errors import StreamMLError

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[1]
PACKAGE = "stream_ml"

# Which rooms a room may look into; a room is a module or folder directly below the package. The
# tables of stages and of kinds of alerts, which who only looks at a log may read, are rooms too.
MAY_IMPORT: dict[str, set[str]] = {
    "defaults": set(),
    "errors": set(),
    "records": {"schema"},
    "schema": {"errors"},
    "signing": {"errors"},
    "codec": {"errors", "records", "schema", "signing"},
    "sealing": {"errors", "signing"},
    "summaries": {"errors", "records"},
    "topics": {"errors"},
    "differences": {"errors", "features"},
    "generation": {"records", "schema"},
    "features": {"errors", "records", "schema"},
    "files": {"errors", "features", "schema", "time_units"},
    "time_units": set(),
    "models": {"errors", "features", "records", "signing"},
    "evaluation": {"errors", "records"},
    "monitoring": {"errors", "features", "records", "schema"},
    "pipeline": {
        "checks",
        "codec",
        "errors",
        "evaluation",
        "features",
        "files",
        "generation",
        "label",
        "models",
        "monitoring",
        "records",
        "routes",
        "schema",
        "slices",
        "task_names",
        "tasks",
    },
    "task_names": set(),
    "suggestion": set(),
    "tasks": {"errors", "files", "label", "routes", "schema", "slices", "task_names"},
    "slices": {"errors", "features", "schema"},
    "checks": {"errors", "features", "schema"},
    "label": {"checks", "errors", "features", "models", "schema"},
    "topology": set(),
    "alert_kinds": {"records"},
    "routes": {"alert_kinds", "errors", "schema"},
    "stages": {
        "alert_kinds",
        "generation",
        "topology",
        "codec",
        "defaults",
        "errors",
        "evaluation",
        "features",
        "label",
        "models",
        "monitoring",
        "pipeline",
        "records",
        "sealing",
        "signing",
        "summaries",
        "task_names",
        "time_units",
        "topics",
    },
    "": {
        "features",
        "files",
        "label",
        "learners",
        "models",
        "monitoring",
        "pipeline",
        "routes",
        "schema",
        "slices",
        "tasks",
    },
    "shell": {
        "codec",
        "generation",
        "defaults",
        "errors",
        "evaluation",
        "features",
        "files",
        "label",
        "models",
        "monitoring",
        "pipeline",
        "records",
        "routes",
        "schema",
        "sealing",
        "signing",
        "stages",
        "time_units",
        "topics",
        "alert_kinds",
        "topology",
        "differences",
        "task_names",
        "suggestion",
    },
    # Figures and probes of a process, for Prometheus, over views and meters.
    "metrics": {"", "alert_kinds", "errors", "pipeline", "shell", "topology"},
    # Laws that learners are held to, on examples drawn at random, in another process as well.
    "contract": {"errors", "models", "records"},
    # Learners of other libraries.
    "learners": {"errors", "features", "models", "records", "schema"},
    "testing": {
        "codec",
        "contract",
        "errors",
        "models",
        "pipeline",
        "records",
        "shell",
        "signing",
        "task_names",
    },
    "client": {"codec", "errors", "pipeline", "records", "shell"},
    "cli": {
        "",
        "task_names",
        "suggestion",
        "web",
        "client",
        "codec",
        "errors",
        "evaluation",
        "files",
        "metrics",
        "models",
        "pipeline",
        "records",
        "scenarios",
        "schema",
        "shell",
        "sealing",
        "signing",
        "time_units",
        "topics",
        "alert_kinds",
        "topology",
    },
    # A server over the client and the views; only the command line starts it.
    "web": {
        "",
        "client",
        "codec",
        "errors",
        "pipeline",
        "records",
        "schema",
        "sealing",
        "shell",
        "signing",
        "time_units",
        "topics",
        "topology",
    },
    "__main__": {"cli"},
    # They make records and know nothing of who takes them.
    "scenarios": {"errors", "topics"},
    # They read as what a user writes, so they may touch what a user may.
    "examples": {""},
}

# Rooms outside the core: they touch the world, or play it.
OUTSIDE_THE_CORE = {"__main__", "cli", "client", "examples", "scenarios", "shell", "testing"}
OUTSIDE_THE_CORE |= {"contract", "metrics", "web"}

# What the core does not import: clocks, entropy, the system, the network, threads, files.
BANNED_IN_CORE = {
    "asyncio",
    "importlib",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}
EXCEPTIONS = {
    ("", "importlib"): "a word is loaded when it is first used; its module is one of ours",
    ("routes", "urllib"): "an address is taken apart; nobody is asked",
    ("learners.onnx", "pathlib"): "a frozen model is read from the file that is declared",
    ("topics", "pathlib"): "the catalogue is read from files of the package",
    ("models.pickles", "importlib"): "a name on the allow-list is looked up; nothing else is",
    ("models.pickles", "io"): "pickles are read from bytes",
    ("models.pickles", "random"): "names the class of river's generators; draws nothing",
    ("models.digest", "io"): "as above",
    ("models.digest", "random"): "as above",
}

# Each library from outside, and the only modules that know it.
OWNERS: dict[str, set[str]] = {
    "lightgbm": {"learners.lightgbm"},
    "matplotlib": {"shell.report.chart", "shell.report.plots"},
    "msgspec": {"codec", "records", "summaries", "web.publish_routes"},
    "onnxruntime": {"learners.onnx"},
    "prometheus_client": {"metrics.exposition"},
    "fsspec": {"shell.archive.storage"},
    "pyarrow": {"shell.export.parquet", "shell.rows.parquet_reader"},
    "shtab": {"cli.commands.completion"},
    "sklearn": {"learners.forests", "learners.sklearn"},
    "torch": {"learners.torch"},
    "numpy": {
        "learners.arrays",
        "learners.batches",
        "learners.forests",
        "learners.lightgbm",
        "learners.onnx",
        "learners.sklearn",
        "learners.torch",
        "models.digest",
        "models.retrained",
        "monitoring.sketch",
        "stages.partitioning",
    },
    "river": {
        "examples.cards",
        "examples.flights",
        "examples.payments",
        "learners.balanced",
        "learners.categories",
        "models.fast",
        "models.fast.linear",
        "models.fast.tree",
        "models.digest",
        "models.ordering",
        "models.pickles",
        "models.recipes",
    },
    "fastapi": {
        "web.answers",
        "web.app",
        "web.command_routes",
        "web.direct",
        "web.page.forms",
        "web.page.routes",
        "web.probes",
        "web.publish_routes",
        "web.server",
        "web.stream_routes",
        "web.view_routes",
    },
    "jinja2": {"web.page.render"},
    "markupsafe": {"web.page.charts", "web.page.live", "web.page.render"},
    "pydantic": {"web.schemas"},
    "starlette": {"web.answers", "web.feed", "web.page.forms", "web.page.routes"},
    "uvicorn": {"web.server"},
    "sqlite3": {"shell.log.sqlite_file"},
    "confluent_kafka": {"shell.kafka.native_log", "shell.kafka.transactions"},
    "faust": {"shell.kafka.transport", "shell.kafka.worker"},
    "kafka": {
        f"shell.kafka.{module}"
        for module in ("acls", "admin", "clients", "log", "metadata", "turn")
    },
    "aiokafka": {
        f"shell.kafka.{module}"
        for module in (
            "assignor",
            "backlog",
            "changelog",
            "entity_feed",
            "extents",
            "header_names",
            "partition_reader",
            "serving_feed",
            "snapshots",
            "standby",
            "task",
            "transport",
            "worker",
        )
    },
}
# Libraries that modules import at their top, though not every environment has them.
EXTRAS = {"fastapi", "jinja2", "markupsafe", "pydantic", "starlette", "uvicorn"}
# JSON lies in many hands: records in codec, state in each stage, output in each command.
ANYWHERE = {"orjson"}

# Names that two public classes have still; each should become two names.
SHARED_CLASS_NAMES = {"Refresh", "Task"}

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 900


# --- checkers: from source to violations ------------------------------------------------------


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree; reading each source once keeps this quick."""
    return ast.parse(source)


def modules() -> dict[str, str]:
    """The source of every module of the package, by name below the package."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path.read_text()
    return found


def imported(sources: dict[str, str], module: str) -> set[str]:
    """Every module that `module` imports, wherever in it: in a function, for types only."""
    found = set()
    for node in ast.walk(parsed(sources[module])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                inner = name.removeprefix(f"{PACKAGE}.") in sources
                found.add(name if inner else node.module)
    return found


def inner(sources: dict[str, str], module: str) -> set[str]:
    """The modules of ours that `module` imports, by name below the package."""
    names = {name for name in imported(sources, module) if name.split(".")[0] == PACKAGE}
    return {name.removeprefix(PACKAGE).removeprefix(".") for name in names}


def outer(sources: dict[str, str], module: str) -> set[str]:
    """The libraries that `module` imports, by top-level name."""
    return {name.split(".")[0] for name in imported(sources, module)} - {PACKAGE, "__future__"}


def room(module: str) -> str:
    """The room that a module is in."""
    if module in {"stages.topology", "stages.alert_kinds"}:
        return module.removeprefix("stages.")
    return module.split(".", maxsplit=1)[0]


def misdirected(sources: dict[str, str]) -> list[str]:
    """Imports that go against `MAY_IMPORT`."""
    return [
        f"{module} imports {target}"
        for module in sources
        for target in sorted(inner(sources, module))
        if room(target) not in MAY_IMPORT[room(module)] | {room(module)}
    ]


def cycle(sources: dict[str, str]) -> list[str]:
    """The modules of one cycle of imports; none if there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done or module not in sources:
            return []
        for target in sorted(inner(sources, module) - {module}):
            found = visit(target, [*path, module])
            if found:
                return found
        done.add(module)
        return []

    return next((found for module in sources if (found := visit(module, []))), [])


def impure(sources: dict[str, str]) -> list[str]:
    """Imports by which the core would touch the world."""
    return [
        f"{module} imports {name}"
        for module in sources
        if room(module) not in OUTSIDE_THE_CORE
        for name in sorted(outer(sources, module) & BANNED_IN_CORE)
        if (module, name) not in EXCEPTIONS
    ]


def trespassing(sources: dict[str, str]) -> list[str]:
    """Imports of outside libraries by modules that do not own them."""
    known = sys.stdlib_module_names - OWNERS.keys()
    return [
        f"{module} imports {name}"
        for module in sources
        for name in sorted(outer(sources, module) - known - ANYWHERE)
        if module not in OWNERS.get(name, set())
    ]


def reading_the_environment(sources: dict[str, str]) -> list[str]:
    """Modules that mention `environ` or `getenv`."""
    return [
        module
        for module, source in sources.items()
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]


def badly_exported(sources: dict[str, str]) -> list[str]:
    """Modules whose `__all__` is unsorted, or leaves out what another room takes from them."""
    found = []
    for module, source in sources.items():
        exported = _exported(source)
        if exported is None:
            continue
        # As ruff sorts: constants, classes, then the rest.
        if exported != sorted(exported, key=_export_order):
            found.append(f"{module}: not sorted")
        found += [
            f"{module}: without {name}, which {reader} takes"
            for reader in sources
            if room(reader) != room(module)
            for origin, name in _taken(sources[reader])
            if origin == f"{PACKAGE}.{module}"
            if name in _defined(source) and name not in exported
        ]
    return found


def homonyms(sources: dict[str, str]) -> set[str]:
    """Names that more than one public class has."""
    names = [
        node.name
        for source in sources.values()
        for node in parsed(source).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    return {name for name in names if names.count(name) > 1}


def _exported(source: str) -> list[str] | None:
    for node in parsed(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def _defined(source: str) -> set[str]:
    """Classes and functions; types that only checkers see are nobody's to export."""
    kinds = ast.ClassDef | ast.FunctionDef
    return {node.name for node in parsed(source).body if isinstance(node, kinds)}


@cache
def _taken(source: str) -> list[tuple[str, str]]:
    """Module and name of all that is imported by name."""
    return [
        (node.module or "", alias.name)
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def _export_order(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def too_long(sources: dict[str, str]) -> list[str]:
    """Functions and modules that nobody reads in one go."""
    found = []
    for module, source in sources.items():
        if len(source.splitlines()) > MODULE_LINES_MAX:
            found.append(module)
        found += [
            f"{module}.{node.name}"
            for node in ast.walk(parsed(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
        ]
    return found


def untold(sources: dict[str, str]) -> list[str]:
    """Test functions that do not say in a sentence what they show."""
    return [
        f"{module}.{node.name}"
        for module, source in sources.items()
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) or "").strip()
    ]


def sleeping(sources: dict[str, str]) -> list[str]:
    """Tests that wait instead of knowing."""
    return [
        f"{module}:{node.lineno}"
        for module, source in sources.items()
        for node in ast.walk(parsed(source))
        if (isinstance(node, ast.Attribute) and node.attr == "sleep")
        or (isinstance(node, ast.Name) and node.id == "sleep")
    ]


def unfinished(sources: dict[str, str]) -> list[str]:
    """Lines that somebody meant to come back to."""
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    return [
        f"{module}:{number}"
        for module, source in sources.items()
        for number, line in enumerate(source.splitlines(), 1)
        if any(mark in line for mark in marks)
    ]


def module_called(name: str) -> ModuleType | None:
    """The module, imported; None where it needs an extra that is not installed here."""
    try:
        return importlib.import_module(f"{PACKAGE}.{name}".rstrip("."))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRAS:
            raise
        return None


def sources_of_tests() -> dict[str, str]:
    """The source of every test module."""
    return {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("tests/**/*.py")}


# --- the house as it is -----------------------------------------------------------------------


def test_importing_the_package_loads_no_broker_client_and_no_plots() -> None:
    """A user who only declares a pipeline pays for neither Kafka nor matplotlib nor SQLite."""
    code = (
        "import sys; from stream_ml import *; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    unwanted = {"faust", "kafka", "aiokafka", "matplotlib", "sqlite3", "pandas", "asyncio"}
    assert set() == unwanted & set(run.stdout.split())


def test_every_room_has_a_rule() -> None:
    """A new module belongs to a room whose imports have been thought about."""
    assert set(MAY_IMPORT) == {room(module) for module in modules()}


def test_imports_point_one_way() -> None:
    """Nothing reaches up: the core never imports a shell, a shell never a door."""
    assert [] == misdirected(modules())


def test_no_imports_go_in_a_circle() -> None:
    """No module needs itself, not even for its types."""
    assert [] == cycle(modules())


def test_the_core_touches_no_world() -> None:
    """Outside the shell nothing reads a clock, entropy, the system, a file or the network."""
    assert [] == impure(modules())


def test_every_exception_is_needed() -> None:
    """An exception to the rule that nobody needs any more is taken off the list."""
    sources = modules()

    assert [] == [key for key in EXCEPTIONS if key[1] not in outer(sources, key[0])]


def test_libraries_have_owners() -> None:
    """Each outside library is known to few modules, so that replacing it means changing few."""
    assert [] == trespassing(modules())


def test_no_two_public_classes_have_one_name() -> None:
    """A class's name tells which class is meant, in whatever room one reads it."""
    assert SHARED_CLASS_NAMES >= homonyms(modules())


def test_one_module_reads_the_environment() -> None:
    """Settings come from one place."""
    assert {"shell.settings.settings"} == set(reading_the_environment(modules()))


def test_what_is_exported_is_there_and_in_order() -> None:
    """Each `__all__` is sorted, true, and has all that other rooms take."""
    assert [] == badly_exported(modules())
    for name in modules():
        module = module_called(name)
        for exported in getattr(module, "__all__", ()):
            assert hasattr(module, exported), f"{name} has no {exported}"


def test_the_public_names_are_what_a_user_sees() -> None:
    """`stream_ml.<Tab>` shows the words of a declaration, and rooms; nothing that slipped in."""
    seen = {name for name in vars(stream_ml) if not name.startswith("_")}
    rooms = {info.name for info in pkgutil.iter_modules(stream_ml.__path__)}

    assert set() == seen - set(stream_ml.__all__) - rooms


def test_every_module_says_what_it_is_for() -> None:
    """A reader who opens a file is told in its first line what it is."""
    sources = modules() | sources_of_tests()
    empty = {name for name, source in sources.items() if not source.strip()}

    assert [] == [
        n for n in sources if n not in empty and not ast.get_docstring(parsed(sources[n]))
    ]
    assert {True} == {name.endswith("__init__.py") for name in empty}


def test_nothing_is_too_long_to_read() -> None:
    """No function passes 70 lines and no module 900."""
    assert [] == too_long(modules())


def test_every_test_says_its_behaviour() -> None:
    """A test that fails says in a sentence what a user would miss."""
    assert [] == untold(sources_of_tests())


def test_no_test_waits() -> None:
    """Tests know when something has happened; they never sleep on it."""
    assert [] == sleeping(sources_of_tests())


def test_nothing_is_left_for_later() -> None:
    """What was worth a note to come back to has been done, or is not in the code."""
    assert [] == unfinished(modules() | sources_of_tests())


def _errors_below(cls: type[StreamMLError], depth: int = 0) -> list[tuple[int, str]]:
    below = sorted(cls.__subclasses__(), key=lambda each: each.__name__)
    return [(depth, cls.__name__), *(e for each in below for e in _errors_below(each, depth + 1))]


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    """Whoever reads `errors` before writing an `except` finds every class, and where it hangs."""
    for name in modules():
        module_called(name)
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        mark, _, rest = line.rpartition("── ")
        if mark or line.strip() == "StreamMLError":
            name = (rest or line).split()[0]
            drawn.append((len(mark.removeprefix("    ")) // 4 + bool(mark), name))

    assert sorted(_errors_below(StreamMLError)) == sorted(drawn)


# --- planted violations -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checker", "sources"),
    [
        (misdirected, {"codec": "from stream_ml.stages.learn import Learn\n", "stages.learn": ""}),
        (misdirected, {"stages.learn": "import stream_ml.shell.log.port\n"}),
        (
            misdirected,
            {"features.x": "if TYPE_CHECKING:\n    from stream_ml.pipeline import Pipeline\n"},
        ),
        (
            misdirected,
            {
                "shell.embedded.runner": "def f():\n    from stream_ml.cli import main\n",
                "cli.main": "",
            },
        ),
        (
            cycle,
            {
                "a": "from stream_ml import b\n",
                "b": "import stream_ml.c\n",
                "c": "import stream_ml.a\n",
            },
        ),
        (impure, {"stages.learn": "import time\n"}),
        (impure, {"features.x": "def f():\n    from random import random\n"}),
        (impure, {"topics": "import os.path\n"}),
        (trespassing, {"shell.embedded.runner": "import sqlite3\n"}),
        (trespassing, {"stages.learn": "from river import drift\n"}),
        (trespassing, {"shell.log.port": "import kafka\n"}),
        (homonyms, {"a": "class A: ...\n", "b": "class A: ...\n"}),
        (reading_the_environment, {"cli.main": "import os\nos.environ['HOME']\n"}),
        (badly_exported, {"a": "__all__ = ['b', 'A']\nclass A: ...\ndef b(): ...\n"}),
        (
            badly_exported,
            {"a": "__all__ = ['b']\ndef d(): ...\n", "c": "from stream_ml.a import d\n"},
        ),
        (too_long, {"a": "def f():\n" + "    x = 1\n" * 71}),
        (too_long, {"a": "x = 1\n" * 901}),
        (untold, {"a": "def test_a():\n    assert True\n"}),
        (sleeping, {"a": "import time\ntime.sleep(1)\n"}),
        (unfinished, {"a": "x = 1  # TO" + "DO: more\n"}),
    ],
)
def test_a_planted_violation_is_caught(checker: object, sources: dict[str, str]) -> None:
    """Each checker finds what it is there to find."""
    assert callable(checker)

    assert checker(sources)
