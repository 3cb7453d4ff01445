"""What a worker, or whoever has its place, takes from the settings, and holds lines to."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_ml.shell.processes.isolation import Isolation
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from stream_ml.shell.processes.trainings import ProcessTrainings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.settings import Settings

__all__ = ["isolation_of", "line_processes", "runner_options", "stopwatch_of"]


def stopwatch_of(settings: Settings) -> ProcessStopwatch:
    """Measures what lines take; who was at work at a death stands beside the log.

    Args:
        settings: name the log, and how long a line may take.
    """
    return ProcessStopwatch(
        Path(f"{settings.task_path}.learning"), budget_s=settings.learn_budget_seconds
    )


def runner_options(settings: Settings) -> dict[str, Any]:
    """What a runner is told beside its log, pipeline and key.

    Args:
        settings: that say it.

    Raises:
        UsageError: the keyring of operators is none.
    """
    return {
        "operators": settings.operators(),
        "checkpoint_examples": settings.checkpoint_examples,
        "checkpoint_s": settings.checkpoint_seconds,
        "accepted_topics": settings.accept_topics,
        "accept_unsealed": settings.accept_unsealed,
        "restart_lines": settings.restart_lines,
        "command_age_s": settings.command_age_seconds,
    }


def _say_nothing(_line: str, _reason: str) -> None:
    pass


def isolation_of(
    settings: Settings, pipeline: Pipeline, say: Callable[[str, str], None] = _say_nothing
) -> Isolation:
    """The processes of lines for one stage; close it, unless they end with this process.

    Args:
        settings: say which lines have one, and what bounds them.
        pipeline: as it is declared.
        say: tells of a line that has none, and why.
    """
    return Isolation(
        pipeline,
        settings.isolated_lines,
        budget_s=settings.learn_budget_seconds,
        memory_mb=settings.line_memory_mb,
        say=say,
    )


@contextmanager
def line_processes(
    settings: Settings, pipeline: Pipeline, say: Callable[[str, str], None]
) -> Iterator[dict[str, Any]]:
    """Whoever trains, and the processes of lines: of learn and evaluate, each for itself.

    Args:
        settings: say which lines have one, and what bounds them.
        pipeline: as it is declared.
        say: tells of a line that has none, and why.
    """
    with ExitStack() as stack:
        trainings = ProcessTrainings(settings.training_seconds, settings.training_memory_mb)
        stack.callback(trainings.close)
        learn = isolation_of(settings, pipeline, say)
        stack.callback(learn.close)
        evaluate = isolation_of(settings, pipeline)  # of the same lines: all is said
        stack.callback(evaluate.close)
        yield {"trainings": trainings, "isolations": {"learn": learn, "evaluate": evaluate}}
