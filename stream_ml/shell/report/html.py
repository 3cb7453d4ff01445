"""A page of HTML that holds all it needs: its style, its pictures, and what they show in tables.

It asks no other host, runs no script, and says so in its content security policy. It reads in the
dark and on a phone; each picture has words and a table beside it.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from stream_ml.shell.printable import printable
from stream_ml.shell.report.chart import PAGE_THEMES
from stream_ml.shell.report.plots import as_png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.shell.report.chart import Picture

__all__ = ["Page", "PageTable"]

# Rows beyond these are nobody's to read; the JSON has all.
ROWS_MAX = 500
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--faint:#5c6370;--line:#d9dce1;
--soft:#f4f5f7;--accent:#005a94}
@media(prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e8e8e8;--faint:#a3aab4;
--line:#353b44;--soft:#1e2329;--accent:#7cc4ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:66rem;padding:1.5rem 1rem 4rem;background:var(--paper);
color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.5rem 0 .5rem}
p{margin:.25rem 0}
.span,figcaption,dt{color:var(--faint)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;
margin:1.25rem 0}
dl div{background:var(--soft);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
dd{margin:0;font-size:1.15rem;font-weight:600;overflow-wrap:anywhere}
figure{margin:.5rem 0}
img{display:block;width:100%;height:auto;border:1px solid var(--line);border-radius:.5rem}
figcaption{font-size:.9rem;margin:.4rem 0}
.wide{overflow-x:auto}
.wide:focus-visible,summary:focus-visible,a:focus-visible{outline:3px solid var(--accent)}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);text-align:right;
white-space:nowrap}
th:first-child,td:first-child{text-align:left}
.prose td{text-align:left;white-space:normal;min-width:7rem}
figure .wide img{min-width:36rem}
.prose th{text-align:left}
thead th{position:sticky;top:0;background:var(--paper)}
summary{cursor:pointer;color:var(--accent);padding:.35rem 0}
pre{overflow-x:auto;background:var(--soft);border:1px solid var(--line);border-radius:.5rem;
padding:.75rem;font-size:.8rem}
"""


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table under a heading.

    Attributes:
        title: the heading.
        head: names of the columns.
        rows: of texts; the first one names the row.
        is_prose: whether its cells are sentences rather than figures.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_prose: bool = False


@dataclass(slots=True)
class Page:
    """A page, filled from the top to the bottom.

    Attributes:
        title: of the page.
        subtitle: the line below it.
        facts: names and figures that are seen first.
    """

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]] = ()
    _parts: list[str] = field(default_factory=list)

    def add_picture(self, picture: Picture) -> None:
        """Add a picture in both themes, its words, and its figures as a table.

        Args:
            picture: of a report.
        """
        light, dark = (_data_address(as_png(picture, theme)) for theme in PAGE_THEMES)
        width, height = (round(96 * inches) for inches in picture.size)
        title = picture.title[:1].upper() + picture.title[1:]
        table = _table(picture.head, picture.rows, label=title)
        self._parts.append(
            f"<section><h2>{_text(title)}</h2><figure>"
            f'<div class="wide" tabindex="0" role="region" aria-label="{_text(title)}"><picture>'
            f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{_text(picture.alt)}" width="{width}" height="{height}">'
            f"</picture></div><figcaption>{_text(picture.alt)}</figcaption></figure>"
            f"<details><summary>The same as a table</summary>{table}</details></section>"
        )

    def add_table(self, table: PageTable) -> None:
        """Add a table under its heading; nothing where it has no rows.

        Args:
            table: of texts.
        """
        if table.rows:
            body = _table(table.head, table.rows, is_prose=table.is_prose, label=table.title)
            self._parts.append(f"<section><h2>{_text(table.title)}</h2>{body}</section>")

    def add_text(self, title: str, text: str) -> None:
        """Add lines as they are, folded up; nothing where there are none.

        Args:
            title: over them.
            text: the lines.
        """
        if text:
            lines = "\n".join(map(_text, text.split("\n")))
            self._parts.append(
                f"<section><details><summary>{_text(title)}</summary>"
                f'<pre tabindex="0">{lines}</pre></details></section>'
            )

    def render(self) -> str:
        """The page."""
        digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
            "form-action 'none'"
        )
        facts = "".join(
            f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
            for name, value in self.facts
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
            f"<title>{_text(self.title)}</title><style>{STYLE}</style></head>\n<body><main>"
            f'<h1>{_text(self.title)}</h1><p class="span">{_text(self.subtitle)}</p>'
            f"{f'<dl>{facts}</dl>' if facts else ''}\n" + "\n".join(self._parts) + "</main></body>"
            "</html>\n"
        )


def _text(text: str) -> str:
    """What others wrote is text: no tag, and nothing that hides or turns the writing."""
    return escape(printable(text))


def _data_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    label: str,
    is_prose: bool = False,
) -> str:
    columns = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows[:ROWS_MAX]
    )
    rest = len(rows) - ROWS_MAX
    note = f"<p>... and {rest:,} more rows</p>" if rest > 0 else ""
    return (
        f'<div class="wide{" prose" if is_prose else ""}" tabindex="0" role="region" '
        f'aria-label="{_text(label)}"><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>{note}"
    )
