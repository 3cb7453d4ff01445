"""Count the functions whose docstrings explain their parameters.

    $ python -m tools.docstrings                     # one line for each room
    $ python -m tools.docstrings stream_ml/features  # and each function that does not

Counted are public functions and methods of two or more parameters (beside `self`): those that a
reader of another module meets. A method without a docstring is an override, explained where it is
declared; one that says "see `...`" or "as `...`" is explained there, and a command's `run` at
`Subcommand`. A parameter is explained if it has a line of its own under `Args:`, or is named in
backticks in the text.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CountedFunction", "count_functions", "main"]

ROOT = Path(__file__).parents[1]
PARAMETERS_MIN = 2
COMMAND = ["arguments", "settings"]
# Where to look instead: what this one has in common with another is said once.
ELSEWHERE = re.compile(r"\b(?:see|[Aa]s) `[\w.]+`")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class CountedFunction(NamedTuple):
    """A function that was counted, and the parameters of it that nothing explains."""

    path: Path
    name: str
    line: int
    unexplained: tuple[str, ...]


def count_functions(path: Path) -> list[CountedFunction]:
    """The functions of a module that count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return list(_functions(tree, path, ""))


def main(arguments: list[str]) -> int:
    """Print what was counted; with paths, what is missing there as well."""
    total: Counter[str] = Counter()
    explained_count: Counter[str] = Counter()
    for path in sorted((ROOT / "stream_ml").rglob("*.py")):
        room = path.relative_to(ROOT / "stream_ml").parts[0].removesuffix(".py")
        for function in count_functions(path):
            total[room] += 1
            explained_count[room] += not function.unexplained
            if function.unexplained and any(
                str(path).startswith(str(ROOT / prefix)) for prefix in arguments
            ):
                relative_path = path.relative_to(ROOT)
                missing = ", ".join(function.unexplained)
                print(f"{relative_path}:{function.line}: {function.name}: {missing}")
    for room in sorted(total):
        print(f"{room:14} {explained_count[room]:4} of {total[room]:4}")
    share = 100 * explained_count.total() / total.total()
    print(f"{'all':14} {explained_count.total():4} of {total.total():4}, {share:.0f} %")
    return 0


def _functions(node: ast.AST, path: Path, prefix: str) -> Iterator[CountedFunction]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            if not child.name.startswith("_"):
                yield from _functions(child, path, f"{prefix}{child.name}.")
        elif isinstance(child, Function) and not child.name.startswith("_"):
            names = _parameters(child)
            doc = ast.get_docstring(child)
            if len(names) >= PARAMETERS_MIN and doc is not None and names != COMMAND:
                is_local = not ELSEWHERE.search(doc)
                missing = tuple(name for name in names if is_local and not _explains(doc, name))
                yield CountedFunction(path, f"{prefix}{child.name}", child.lineno, missing)


def _parameters(function: Function) -> list[str]:
    parameters = function.args
    names = [
        parameter.arg
        for parameter in [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs]
    ]
    names += [
        parameter.arg
        for parameter in (parameters.vararg, parameters.kwarg)
        if parameter is not None
    ]
    return [name for name in names if name not in {"self", "cls"} and not name.startswith("_")]


def _explains(doc: str, name: str) -> bool:
    word = re.escape(name)
    return bool(re.search(rf"^\s+\*{{0,2}}{word}:", doc, flags=re.MULTILINE)) or bool(
        re.search(rf"`[^`]*\b{word}\b[^`]*`", doc)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
