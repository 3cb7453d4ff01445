"""The front door is light: whoever reads, commands or asks for help waits for no model and stage.

Held by what is imported, in a process of its own, not by a clock.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from processes import environment

import stream_ml
from stream_ml.cli.main import COMMANDS
from stream_ml.cli.subcommand import Group

if TYPE_CHECKING:
    from pathlib import Path

# What a stage takes, and a log in a file does not.
LIBRARIES = {"aiokafka", "asyncio", "confluent_kafka", "faust", "kafka", "numpy", "river", "scipy"}
# Of ours, the declaration and all that a model needs; beside them every stage.
HEAVY = {
    "stream_ml.features",
    "stream_ml.models.digest",
    "stream_ml.models.pickles",
    "stream_ml.models.recipes",
    "stream_ml.pipeline",
    "stream_ml.shell.embedded.runner",
}
# In the folder of stages, yet none: the table of them, and the form of state in entries.
LIGHT_STAGES = {
    "stream_ml.stages.alert_kinds",
    "stream_ml.stages",
    "stream_ml.stages.parts",
    "stream_ml.stages.topology",
}

HELP = [
    ["--help"],
    ["--version"],
    *(
        [*words, "--help"]
        for one in COMMANDS
        for words in (
            [[one.name, command.name] for command in one.commands]
            if isinstance(one, Group)
            else [[one.name]]
        )
    ),
]
READS = [
    ["status"],
    ["models"],
    ["alerts"],
    ["dead-letters"],
    ["predictions"],
    ["predictions", "--from", "2023-11-15", "--format", "json"],
    ["audit", "log"],
    ["audit", "at", "now"],
    ["audit", "verify"],
    ["audit", "model", "plain"],
    ["topics"],
    ["config"],
]
# Nobody is at work there, so there is no answer.
COMMANDING = [
    ["promote", "plain", "--expect", "plain", "--reason", "why not", "--timeout", "0"],
    ["rollback", "--expect", "plain", "--reason", "why not", "--timeout", "0"],
    ["pause", "--reason", "why not", "--timeout", "0"],
    ["resume", "--reason", "why not", "--timeout", "0"],
    ["restart", "plain", "--reason", "why not", "--timeout", "0"],
]


def _loaded(code: str, *arguments: str, folder: Path) -> set[str]:
    """The modules that a process has loaded at its end; what it prints itself goes elsewhere."""
    ran = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", f"{code}\nprint(*sys.modules, file=sys.stderr)", *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=environment(),
    )
    return set(ran.stderr.splitlines()[-1].split())


def _loaded_by(lines: list[list[str]], code: int, *, folder: Path) -> set[str]:
    """The modules that these command lines load together; each must end with this exit code."""
    program = (
        "import sys\nfrom stream_ml.cli.main import main\n"
        f"for line in {lines!r}:\n    code = main(line)\n    assert code == {code}, (line, code)"
    )
    return _loaded(program, folder=folder)


def _heavy(modules: set[str]) -> set[str]:
    stages = {name for name in modules if name.startswith("stream_ml.stages")} - LIGHT_STAGES
    return stages | (modules & (LIBRARIES | HEAVY))


def test_the_package_itself_loads_none_of_its_modules(tmp_path: Path) -> None:
    """`import stream_ml` costs nothing until a word of it is used."""
    loaded = _loaded("import sys, stream_ml", folder=tmp_path)

    assert {"stream_ml"} == {name for name in loaded if name.split(".")[0] == "stream_ml"}


def test_the_client_loads_no_model(tmp_path: Path) -> None:
    """A program that publishes or reads waits for neither river nor a stage."""
    assert set() == _heavy(_loaded("import sys, stream_ml.client", folder=tmp_path))


def test_reading_predictions_loads_no_model(worked: Path, tmp_path: Path) -> None:
    """A program that reads predictions off a log needs nothing that makes them."""
    code = (
        "import sys\nfrom stream_ml.client import connect, predictions\n"
        "with connect(sys.argv[1]) as log: assert len(list(predictions(log))) == 2500"
    )

    assert set() == _heavy(_loaded(code, f"sqlite:{worked}", folder=tmp_path))


def test_a_cluster_is_reached_by_its_own_client_alone(tmp_path: Path) -> None:
    """Whoever reads from a cluster waits for Kafka's client, and for no worker's or model's."""
    code = "import sys, stream_ml.cli.main, stream_ml.shell.kafka.log"

    assert {"kafka"} == _heavy(_loaded(code, folder=tmp_path)) - {"asyncio"}


def test_help_loads_no_model(tmp_path: Path) -> None:
    """Help, of every command, is there at once."""
    assert set() == _heavy(_loaded_by(HELP, 0, folder=tmp_path))


def test_looking_at_a_log_loads_no_model(worked: Path, tmp_path: Path) -> None:
    """A command that only shows what lies on a log needs nothing that made it."""
    lines = [["--broker", f"sqlite:{worked}", *arguments] for arguments in READS]

    assert set() == _heavy(_loaded_by(lines, 0, folder=tmp_path))


def test_commanding_loads_no_model(worked: Path, tmp_path: Path) -> None:
    """A command is given at once, also by whoever has no declaration."""
    copy = shutil.copytree(worked.parent, tmp_path / "copy") / worked.name
    lines = [["--broker", f"sqlite:{copy}", *arguments] for arguments in COMMANDING]

    assert set() == _heavy(_loaded_by(lines, 5, folder=tmp_path))


def test_a_stage_that_is_loaded_is_noticed(tmp_path: Path) -> None:
    """What loads a model or a stage is told from what does not."""
    heavy = _heavy(_loaded("import sys, stream_ml.shell.embedded.runner", folder=tmp_path))

    assert {"river", "numpy", "stream_ml.stages.evaluate"} <= heavy


def test_the_words_are_there_for_people_and_tools() -> None:
    """`dir` lists every word, and each is the one of its own module."""
    assert set(stream_ml.__all__) <= set(dir(stream_ml))
    for name in stream_ml.__all__:
        word = getattr(stream_ml, name)
        assert word is getattr(sys.modules[word.__module__], name)


def test_a_word_that_is_none_is_an_attribute_error() -> None:
    """A misspelt word fails as in any module, and `from stream_ml import` names it."""
    with pytest.raises(AttributeError, match="module 'stream_ml' has no attribute 'Pipelines'"):
        _ = stream_ml.Pipelines
    with pytest.raises(ImportError, match="cannot import name 'Pipelines'"):
        from stream_ml import Pipelines  # noqa: F401, PLC0415
