"""The former place of `stream_ml.cli.main`; it answers for one release, with a warning."""

import sys

from stream_ml.shell.moved import moved_names

__all__: list[str] = []

__getattr__ = moved_names(
    "stream_ml.shell.cli",
    "stream_ml.cli.main",
    {"COMMANDS": "COMMANDS", "EXAMPLES": "EXAMPLES", "main": "main", "parser": "parser"},
)

if __name__ == "__main__":
    sys.exit(__getattr__("main")())
