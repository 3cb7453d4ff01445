"""The parser of command lines: its errors are ours, one message each, with the way out."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, Never

from stream_ml.errors import UsageError
from stream_ml.suggestion import suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CommandParser"]

_OPTION = re.compile(r"--[a-z][a-z-]*")


class CommandParser(argparse.ArgumentParser):
    """A parser that says what was probably meant, and where to look it up.

    It takes what `argparse.ArgumentParser` does.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._given: list[str] = []

    def error(self, message: str) -> Never:
        """Refuse it.

        Raises:
            UsageError: always.
        """
        # What is missing may be there, mistyped; argparse looks at that last.
        hint = self._hint(self._given) if message.startswith("the following") else ""
        raise UsageError(f"{message}{hint}{self._way_out(message + hint)}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments as a namespace, whose `parser` is the command's.

        Raises:
            UsageError: they are not understood.
        """
        given, remaining = self.parse_known_args(args, namespace)
        if remaining:
            parser: CommandParser = getattr(given, "parser", self)
            options = parser._long_options()
            like = suggestion(remaining[0].partition("=")[0], options)
            message = f"unrecognized arguments: {' '.join(remaining)}{like}"
            raise UsageError(f"{message}{parser._way_out(message)}")
        return given

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """The arguments as a namespace, and those that are not understood."""
        self._given = [*(sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of the choices, as argparse does, and say which one is like it."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            names = [str(choice) for choice in action.choices or ()]
            like = _command_below(action, str(value)) or suggestion(str(value), names)
            if action.dest == argparse.SUPPRESS:
                # Thirty commands in one line are no help; the way out has them in a list.
                hint = like or self._hint(self._given)
                message = f"expected a command, given {value!r}{hint}"
                raise UsageError(f"{message}{self._way_out(message)}") from None
            error.message += like
            raise

    def _hint(self, arguments: Sequence[str]) -> str:
        """The first option that there is not, and a question after the one that was meant."""
        options = self._long_options()
        for argument in arguments:
            match = _OPTION.match(argument)
            if match is not None and match[0] not in options:
                return f"; there is no {match[0]}{suggestion(match[0], options)}"
        return ""

    def _long_options(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]

    def _way_out(self, message: str) -> str:
        return f"{' See' if message.endswith('?') else '; see'} `{self.prog} --help`"


def _command_below(action: argparse.Action, name: str) -> str:
    """A question after the command that has one of this name below it; empty where none has."""
    if isinstance(action.choices, dict):
        for above, parser in action.choices.items():
            for each in getattr(parser, "_actions", ()):
                if each.choices and not each.option_strings and name in each.choices:
                    return f"; did you mean {above} {name}?"
    return ""
