"""The command line `stream-ml`: parses, calls the command, and says what went wrong.

Errors that were foreseen are one message on standard error and an exit code, without a traceback.
A traceback is a mistake of ours.
"""

from __future__ import annotations

import argparse
import errno
import sys
from typing import TYPE_CHECKING

from stream_ml import __version__
from stream_ml.cli.commands import (
    alerts,
    apply,
    archive,
    audit,
    backtest,
    batch,
    check,
    completion,
    config,
    dead_letters,
    demo,
    drift,
    export,
    forget,
    generate,
    init,
    models,
    pause,
    plan,
    predictions,
    promote,
    publish,
    rebuild,
    restart,
    resume,
    rollback,
    serve,
    status,
    topics,
    trace,
    up,
    what_if,
    worker,
)
from stream_ml.cli.output import begin, end, fail, flush, output_error, silence
from stream_ml.cli.parsing import CommandParser
from stream_ml.cli.subcommand import Group, UsageExample
from stream_ml.cli.watch import add_watch, watch
from stream_ml.errors import StreamMLError
from stream_ml.shell.settings.settings import SETTINGS, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.cli.subcommand import Subcommand

__all__ = ["COMMANDS", "EXAMPLES", "main", "parser"]

COMMANDS: tuple[Subcommand | Group, ...] = (
    demo.COMMAND,
    init.COMMAND,
    check.COMMAND,
    backtest.COMMAND,
    what_if.COMMAND,
    rebuild.COMMAND,
    generate.COMMAND,
    up.COMMAND,
    worker.COMMAND,
    publish.COMMAND,
    predictions.COMMAND,
    serve.COMMAND,
    models.COMMAND,
    status.COMMAND,
    drift.COMMAND,
    alerts.COMMAND,
    export.COMMAND,
    archive.COMMAND,
    dead_letters.COMMAND,
    trace.COMMAND,
    promote.COMMAND,
    rollback.COMMAND,
    pause.COMMAND,
    resume.COMMAND,
    restart.COMMAND,
    batch.COMMAND,
    forget.COMMAND,
    audit.GROUP,
    plan.COMMAND,
    apply.COMMAND,
    topics.COMMAND,
    config.COMMAND,
    completion.COMMAND,
)

EXAMPLES = (
    UsageExample(
        "stream-ml demo", "replay half a year of real flights, and see what learning is worth"
    ),
    UsageExample(
        "stream-ml --pipeline stream_ml.examples.cards:cards backtest cards.jsonl",
        "run a declared pipeline over a file of events and labels",
    ),
    UsageExample(
        "stream-ml --broker sqlite:runs/demo/log.sqlite status --format json",
        "how the pipeline on that log is getting on, for a machine to read",
    ),
)

EXIT_CODES = """\
exit codes:
    0  done
    1  failed, or something was refused: bad lines, an altered registry, an output that is full
    2  wrong usage, setting or declaration; or `plan` or `topics plan` has found a difference
    3  the log refused: not there, locked, full, or not a log
    4  the worker refused the command; nothing was changed
    5  no worker answered the command in time
  130  interrupted
"""
EXIT_INTERRUPTED = 130
EXIT_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: what follows `stream-ml`; by default those of this process.

    Returns:
        The exit code, see `stream-ml --help`.
    """
    begin()
    try:
        return _code_of(arguments)
    finally:
        end()


def _code_of(arguments: Sequence[str] | None) -> int:
    try:
        acts = _run(arguments)
    except StreamMLError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", EXIT_FAILED)
    flush()
    failure = output_error()
    # A reader that left before the end has seen enough.
    if failure is None or failure.errno == errno.EPIPE:
        return 0
    code = _fail(f"standard output: {failure.strerror or failure}", EXIT_FAILED)
    return 0 if acts else code


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    root = CommandParser(
        prog="stream-ml",
        description="Streaming machine learning with continual learning.",
        epilog=_epilog(EXAMPLES) + "\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"stream-ml {__version__}")
    _add_settings(root)
    _add_quiet(root)
    _add_commands(root, COMMANDS)
    return root


def _add_commands(target: argparse.ArgumentParser, commands: Sequence[Subcommand | Group]) -> None:
    parsers = target.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        subparser = parsers.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog="" if isinstance(command, Group) else _epilog(command.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_settings(subparser)
        _add_quiet(subparser)
        if isinstance(command, Group):
            _add_commands(subparser, command.commands)
            continue
        subparser.add_argument(
            "--format", choices=("text", "json"), default="text", help="for people or for machines"
        )
        command.add_arguments(subparser)
        if command.is_view:
            add_watch(subparser)
        subparser.set_defaults(run=command.run, acts=command.acts, parser=subparser)


def _run(arguments: Sequence[str] | None) -> bool:
    """Run it; whether what it does is done, also where nobody can read of it."""
    try:
        root = parser()
        namespace = root.parse_args(arguments)
    except SystemExit:
        return False  # argparse has printed the help or the version
    # A command's own arguments may have the name of a setting that no option sets, such as `key`.
    options = {
        name: getattr(namespace, name, None)
        for name, setting in SETTINGS.items()
        if setting.option is not None
    }
    # The whole command line, which one of its commands prints for shells.
    namespace.root = root
    settings = Settings.load(options)
    if getattr(namespace, "quiet", False):
        silence("stderr")
        if namespace.acts and namespace.format == "text":
            silence("stdout")
    if getattr(namespace, "watch", None) is None:
        namespace.run(namespace, settings)
    else:
        watch(namespace, settings)
    return bool(namespace.acts)


def _add_settings(target: argparse.ArgumentParser) -> None:
    for setting in SETTINGS.values():
        if setting.option is not None:
            target.add_argument(
                setting.option,
                metavar=setting.metavar,
                # Suppressed, so that it may stand before the command or after it.
                default=argparse.SUPPRESS,
                help=f"{setting.meaning} (else {setting.variable})",
            )


def _add_quiet(target: argparse.ArgumentParser) -> None:
    target.add_argument(
        "--quiet",
        action="store_true",
        # As above.
        default=argparse.SUPPRESS,
        help="no progress, warnings or hints, and of commands that act, no text: errors alone",
    )


def _epilog(examples: tuple[UsageExample, ...]) -> str:
    return "\n".join(["examples:", *map(str, examples), ""])


def _fail(message: str, code: int) -> int:
    flush()
    fail(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
