"""What whoever looks after processes of ours starts, and how it passes on what they say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from stream_ml.cli.arguments import log_options
from stream_ml.cli.logs import log_event
from stream_ml.cli.output import complain, flush, write_json_line, write_line
from stream_ml.shell.printable import printable
from stream_ml.shell.settings.settings import SETTINGS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from stream_ml.shell.processes.supervisor import Post

__all__ = ["SupervisorMessages", "repeated_command"]


def repeated_command(arguments: Namespace, words: Sequence[str], **instead: str) -> list[str]:
    """A command of ours, set as we are: it inherits the environment; the options are repeated.

    Args:
        arguments: of our command line.
        words: the command, and options of its own.
        instead: settings that are another, by name.
    """
    values = {name: getattr(arguments, name, None) for name in SETTINGS} | instead
    options = [
        word
        for name, setting in SETTINGS.items()
        if setting.option is not None and (value := values[name]) is not None
        for word in (setting.option, value)
    ]
    # -P: the folder where we stand is searched for the declaration only, as `stream-ml` does.
    python = [sys.executable, "-P", "-m", "stream_ml.cli.main"]
    options += log_options(arguments)
    return [*python, *words, "--format", arguments.format, *options]


class SupervisorMessages:
    """Output of the processes, and ours: for people with the post, for machines as it is.

    Args:
        posts: those that are filled.
        as_json: whether it is for machines.
        has_json_logs: whether an error line may be a log entry as JSON, which says itself whose it
            is.
    """

    def __init__(self, posts: Sequence[Post], *, as_json: bool, has_json_logs: bool) -> None:
        self._as_json = as_json
        self._has_json_logs = has_json_logs
        self._width = max(len(str(post)) for post in posts)

    def print(self, text: str, members: Mapping[str, Any]) -> None:
        """Say something of our own.

        Args:
            text: for people.
            members: the same for machines.
        """
        if self._as_json:
            write_json_line(members)
        else:
            write_line(text)
        log_event(members["said"], text, members)
        flush()

    def print_output(self, post: Post, line: str) -> None:
        """Pass on a line of a process.

        Args:
            post: that it fills.
            line: as it was written.
        """
        if self._as_json:
            write_json_line(self._record(post, line))
        else:
            write_line(self._with_post(post, line))
        flush()

    def print_error(self, post: Post, line: str) -> None:
        """Pass on a line that a process has written to its standard error.

        Args:
            post: that it fills.
            line: as it was written.
        """
        if self._has_json_logs and line.startswith("{"):
            complain(printable(line), is_error=True)
            return
        complain(printable(self._with_post(post, line)), is_error=True)

    def _record(self, post: Post, line: str) -> Any:  # noqa: ARG002 - of who adds the post
        """A line of a process, for machines."""
        return line.encode()

    def _with_post(self, post: Post, line: str) -> str:
        return f"{post!s:<{self._width}} | {line}"
