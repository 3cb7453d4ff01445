"""Finds the pipeline that `module:name` means, as `uvicorn module:app` finds an application."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from stream_ml.errors import StreamMLError, UsageError
from stream_ml.suggestion import suggestion
from stream_ml.task_names import MAIN_TASK

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.settings import Settings

__all__ = ["declared_pipeline", "load_estimators", "load_pipeline", "pipeline_of"]


def declared_pipeline(settings: Settings) -> Pipeline | None:
    """The pipeline that is set, or the one that its set task is; None where no pipeline is set.

    Args:
        settings: which one is set.

    Raises:
        UsageError: it is not to be found, or has no such task.
        DeclarationError: it is wrong.
    """
    if settings.pipeline is None:
        return None
    pipeline = load_pipeline(settings.pipeline)
    if settings.task is None or settings.task == MAIN_TASK:
        return pipeline
    tasks = pipeline.task_pipelines
    if settings.task not in tasks:
        names = [MAIN_TASK, *tasks]
        raise UsageError(
            f"--task: expected a task of the pipeline {pipeline.name!r}, one of "
            f"{', '.join(names)}, given {settings.task!r}{suggestion(settings.task, names)}"
        )
    return tasks[settings.task]


def pipeline_of(settings: Settings, command: str) -> Pipeline:
    """The pipeline that is set, or the one that its set task is.

    Args:
        settings: which one is set.
        command: that needs it, for the message.

    Raises:
        UsageError: none is set, or it is not to be found, or has no such task.
        DeclarationError: it is wrong.
    """
    pipeline = declared_pipeline(settings)
    if pipeline is None:
        raise UsageError(
            f"{command}: expected a pipeline, given none; name one with --pipeline module:name or "
            "STREAM_ML_PIPELINE, such as stream_ml.examples.cards:cards"
        )
    return pipeline


def load_pipeline(spec: str) -> Pipeline:
    """The pipeline at `module:name`; modules of the working directory are found too.

    Raises:
        UsageError: there is no such module, it cannot be imported, or has no such pipeline.
        DeclarationError: the pipeline is declared wrongly.

    >>> load_pipeline("stream_ml.examples.cards:cards").name
    'cards'
    """
    # A declaration brings learners, which whoever only reads a log need not wait for.
    from stream_ml.pipeline import Pipeline  # noqa: PLC0415

    module, target = _load(f"pipeline {spec}", spec, _pipelines_in)
    if not isinstance(target, Pipeline):
        raise UsageError(
            f"pipeline {spec}: expected a stream_ml.Pipeline, given {type(target).__name__}; "
            f"{_origin(module)} has {_pipelines_in(module)}"
        )
    return target


def load_estimators(spec: str, task: str | None = None) -> dict[str, Any]:
    """The untrained estimators at `module:name`, by the name of the line that each would be.

    Args:
        spec: of an estimator, whose line is called as it is there; of a dict of them by name; or of
            a pipeline, whose lines they are.
        task: of the pipeline, whose lines they are then, where it has it.

    Raises:
        UsageError: there is no such module, it cannot be imported, or has nothing of that name.

    >>> sorted(load_estimators("stream_ml.examples.cards:cards"))
    ['adagrad', 'logistic', 'tree']
    """
    from stream_ml.pipeline import Pipeline  # noqa: PLC0415

    _, target = _load(f"estimator {spec}", spec, _names_in)
    if isinstance(target, Pipeline):
        return dict(target.task_pipelines.get(task or MAIN_TASK, target).models)
    if isinstance(target, dict):
        if target and all(type(name) is str for name in target):
            return target
        raise UsageError(
            f"estimator {spec}: expected estimators by the name of a line, given a dict of "
            f"{len(target)} with other keys than that; write {{'name': estimator}}"
        )
    return {spec.rpartition(".")[2].rpartition(":")[2]: target}


def _load(subject: str, spec: str, names_in: Callable[[ModuleType], str]) -> tuple[ModuleType, Any]:
    """The module, and what it has under the name."""
    module_name, _, name = spec.rpartition(":")
    if not module_name or not name:
        raise UsageError(
            f"{subject}: expected module:name, such as shop:fraud for `fraud` in shop.py, given "
            f"{spec!r}"
        )
    _refuse_file(subject, module_name, name)
    module = _import(subject, module_name)
    target: Any = module
    for part in name.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            raise UsageError(
                f"{subject}: expected {name!r} in {_origin(module)}, given {names_in(module)}"
            ) from None
    return module, target


def _refuse_file(subject: str, file_name: str, name: str) -> None:
    if not file_name.endswith(".py") and not {"/", "\\"} & set(file_name):
        return
    path = PurePath(file_name.replace("\\", "/")).with_suffix("")
    within = not path.is_absolute() and ".." not in path.parts
    module = ".".join(path.parts) if within else path.name
    folder_hint = "" if within else f", in the folder {path.parent}"
    raise UsageError(
        f"{subject}: expected the name of a module, given that of a file; name it "
        f"{module}:{name}{folder_hint}"
    )


def _import(subject: str, name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except StreamMLError:
        raise  # a declaration error lists its problems itself
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if name == missing or name.startswith(f"{missing}."):
            raise UsageError(
                f"{subject}: expected a module {name!r}, given none of that name in {folder} "
                "or among the installed ones"
            ) from None
        raise UsageError(
            f"{subject}: {name} imports {missing!r}, which is not installed here"
        ) from None
    except Exception as error:  # importing runs a user's file, which may raise anything
        raise UsageError(
            f"{subject}: importing {name} failed at {_location(error)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _location(error: Exception) -> str:
    if isinstance(error, SyntaxError):  # it is about a file that never ran
        return f"{error.filename}:{error.lineno}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def _origin(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _pipelines_in(module: ModuleType) -> str:
    from stream_ml.pipeline import Pipeline  # noqa: PLC0415

    names = [name for name, value in vars(module).items() if isinstance(value, Pipeline)]
    return f"the pipelines {', '.join(sorted(names))}" if names else "no pipeline there"


def _names_in(module: ModuleType) -> str:
    names = sorted(name for name in vars(module) if not name.startswith("_"))
    return f"the names {', '.join(names)}" if names else "no name there"
