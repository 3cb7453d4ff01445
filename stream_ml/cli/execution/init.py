"""`init`: a declaration drafted from a file, tried, and told about."""

from __future__ import annotations

import importlib.util
import keyword
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_ml.cli.output import write, write_json
from stream_ml.cli.tables import format_table
from stream_ml.errors import DeclarationError, StreamMLError, UsageError
from stream_ml.shell.drafts.roles import ROLES, guess_roles
from stream_ml.shell.drafts.sample import take_sample
from stream_ml.shell.drafts.source import draft
from stream_ml.shell.rows.reader import check_files

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.shell.drafts.source import Draft
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]


def run(arguments: Namespace, _: Settings) -> None:
    """Draft a declaration, and say what was guessed."""
    files = [arguments.file, *([arguments.labels] if arguments.labels else [])]
    check_files(files, arguments.input)
    _check_output(arguments.output)
    sample, *others = [take_sample(file, arguments.input) for file in files]
    labels = others[0] if others else None
    given = {role: getattr(arguments, role) for role in ROLES}
    result = draft(sample, guess_roles(sample, given, labels), labels)
    path = arguments.output or Path(f"{result.name}_pipeline.py")
    _write(path, result)
    if arguments.format == "json":
        write_json(_summary(path, result))
    else:
        write(_text(files, path, result))


def _check_output(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix != ".py" or not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise UsageError(
            f"--output: expected the name of a Python file such as my_pipeline.py, given {path}"
        )
    if not path.parent.is_dir():
        raise UsageError(f"--output: expected a folder {path.parent} to write into, given none")


def _write(path: Path, result: Draft) -> None:
    """Write the file, where there is none, and import it.

    Raises:
        UsageError: there is one, or it cannot be written.
        StreamMLError: the draft is no declaration.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(result.source)
    except FileExistsError:
        raise UsageError(
            f"{path}: expected no file of that name, given one; it is not written over: name "
            "another with --output, or remove it"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: expected a file to write, given {error.strerror}") from None
    try:
        _import(path)
    except DeclarationError as error:
        path.unlink()
        raise StreamMLError(
            f"init: expected columns that a declaration can be drafted from: {error}\nRename those "
            "columns, or write the declaration by hand."
        ) from None


def _import(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"stream_ml_draft_{path.stem}", path)
    assert spec is not None, "a Python file can be imported"
    assert spec.loader is not None, "by a loader"
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _summary(path: Path, result: Draft) -> dict[str, Any]:
    return {
        "written": str(path),
        "pipeline": f"{path.stem}:pipeline",
        "guesses": [
            {"role": role, "column": column, "reason": reason}
            for role, column, reason in result.notes
        ],
        "warnings": result.warnings,
    }


def _text(files: list[str], path: Path, result: Draft) -> str:
    warnings = ["\n".join(f"note: {text}" for text in result.warnings)] if result.warnings else []
    commands = [
        f"export STREAM_ML_PIPELINE={path.stem}:pipeline",
        f"stream-ml check {shlex.join(files)}",
        f"stream-ml backtest {shlex.join(files)}",
    ]
    folder = "" if path.parent == Path() else f" in {path.parent}"
    following = "\n".join([f"Look it over, then{folder}:", *(f"  {each}" for each in commands)])
    guesses = format_table([list(note) for note in result.notes])
    return "\n\n".join([f"wrote {path}, by these guesses:", guesses, *warnings, following])
