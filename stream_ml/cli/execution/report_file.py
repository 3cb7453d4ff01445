"""`--report`: whether a page can be written, before the work is done; and written whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import UsageError
from stream_ml.shell.report.plots import require_matplotlib
from stream_ml.shell.whole_files import output_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_report", "write_report"]


def check_report(path: Path | None) -> None:
    """Find out now what would else end it after minutes.

    Args:
        path: of the page; None: none is asked for.

    Raises:
        UsageError: there is no such folder, it is one, or matplotlib is not installed.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        given = "a folder" if path.is_dir() else f"{path.parent}, which is no folder"
        raise UsageError(
            f"--report: expected a file such as report.html in a folder that is there, given "
            f"{path}: {given}"
        )
    require_matplotlib()


def write_report(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Args:
        path: as `check_report` has found it good.
        page: of HTML.

    Raises:
        OSError: it could not be written.
    """
    with output_file(path) as file:
        file.write(page.encode())
