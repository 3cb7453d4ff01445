"""A griffe extension: examples in docstrings (`>>>`) are shown as code on the site.

The site reads docstrings as Markdown, where `>>>` would be a quotation. Pytest runs them as they
stand in the source (`--doctest-modules`), so the source is left as it is.
"""

from __future__ import annotations

from typing import Any

import griffe

__all__ = ["DoctestFences", "with_fences"]


class DoctestFences(griffe.Extension):  # type: ignore[misc]  # griffe is no dependency of the package
    """Puts each example of a docstring between fences."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute as it is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = with_fences(obj.docstring.value)


def with_fences(text: str) -> str:
    """The text with each example between fences; an example ends at an empty line."""
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        begins = line.lstrip().startswith(">>> ")
        if begins and not inside:
            lines.append("```pycon")
        elif inside and not line.strip():
            lines.append("```")
        inside = begins or (inside and bool(line.strip()))
        lines.append(line)
    return "\n".join(lines[:-1])
