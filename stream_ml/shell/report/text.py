"""A report as a terminal shows it: tables, changes, and how long luck lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.evaluation.evidence import RUNG_BLOCKS_MIN
from stream_ml.records import line_of
from stream_ml.shell.printable import printable
from stream_ml.shell.report.comparisons import BLOCK_LENGTHS, HOUR_MS, REFRESH_PAIRS_MIN, TOTAL
from stream_ml.shell.report.measures import GAP_MEASURES, LOSS_NAMES, MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ml.evaluation.evidence import Rung
    from stream_ml.shell.report.comparisons import Gap, Switch
    from stream_ml.shell.report.run import Report

__all__ = [
    "NOTHING_TO_SCORE",
    "changes_text",
    "luck_text",
    "report_text",
    "slices_text",
    "tables_text",
]

NOTHING_TO_SCORE = "no label met its prediction: nothing to score"


def report_text(report: Report) -> str:
    """The whole report."""
    if not report.table.times:
        return f"{NOTHING_TO_SCORE}\n"
    parts = [
        tables_text(report),
        changes_text(report),
        slices_text(report),
        luck_text(report),
        "\n".join(_coverage_lines(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- scores by month ----------------------------------------------------------------------------


def tables_text(report: Report) -> str:
    """The scores by month, a table for each measure."""
    if not report.table.times:
        return NOTHING_TO_SCORE
    tables = [_score_table(report, measure) for measure in MEASURES[report.task_kind]]
    return "\n\n".join([_headline(report), *tables])


def _headline(report: Report) -> str:
    times = report.table.times
    first, last = report.local_time(min(times)), report.local_time(max(times))
    total = report.months()[-1]
    return (
        f"{len(times):,} examples, {first:%Y-%m-%d} to {last:%Y-%m-%d} ({report.zone}); "
        f"{total.n:,} answered by all, and scored here"
    )


def _score_table(report: Report, measure: str) -> str:
    is_binary = report.task_kind == "binary"
    columns = report.table.columns()
    share_title = [f"share {report.positive}"] if is_binary else []
    lines = [[measure, "examples", *share_title, *columns]]
    for row in report.months():
        share = "-" if row.true_share is None else f"{row.true_share:.1%}"
        values = [row.scores.get(name, {}).get(measure) for name in columns]
        cells = [share] if is_binary else []
        lines.append([row.month, f"{row.n:,}", *cells, *map(_score, values)])
    return _align(lines)


# --- refreshes, switches and the gap ------------------------------------------------------------


def changes_text(report: Report) -> str:
    """The worth of learning on, and each switch; nothing where there was none."""
    changes = "\n".join([*_refresh_lines(report), *_decision_lines(report)])
    return "\n\n".join(part for part in [_gap_text(report), changes] if part)


def _refresh_lines(report: Report) -> list[str]:
    summary = report.refresh_summary()
    if not summary["scored"]:
        return [f"refreshes: {summary['count']}"]
    worst = summary["worst"]
    head = (
        f"refreshes: {summary['count']}; of {summary['scored']} with at least "
        f"{REFRESH_PAIRS_MIN} labels, {summary['better']} beat their predecessor "
        "while they served"
    )
    gain = (
        f"  {LOSS_NAMES[report.task_kind]} gained against the predecessor: "
        f"mean {summary['mean_gain']:+.4f}, worst {worst['gain']:+.4f} "
        f"({worst['model']}, {worst['n']:,} labels)"
    )
    return [head, gain]


def _decision_lines(report: Report) -> list[str]:
    switches = {switch.ts: switch for switch in report.switches()}
    lines = []
    for decision in report.decisions:
        if decision.kind in {"bootstrap", "refreshed"}:
            continue
        lines.append(
            printable(
                f"{decision.kind} on {report.local_time(decision.ts):%Y-%m-%d %H:%M} by "
                f"{decision.actor}: {decision.serving.champion.model} serves "
                f"({decision.reason})"
            )
        )
        switch = switches.get(decision.ts)
        if switch is not None and decision.kind == switch.kind:
            lines += [f"  {line}" for line in _switch_lines(switch, LOSS_NAMES[report.task_kind])]
    return lines


def _switch_lines(switch: Switch, loss_name: str) -> list[str]:
    """A switch's evidence, and its worth."""
    lines = []
    evidence = switch.evidence or {}
    if "e_value" in evidence:
        lines.append(
            f"evidence: E {evidence['e_value']:.1f} of {evidence['needed']:.0f}, from "
            f"{evidence['wins']} blocks won and {evidence['losses']} lost"
        )
    if switch.gain is not None:
        comparison = f"gained against {switch.former} while that was its predecessor"
        if switch.kind == "rolled_back":
            comparison = "that its successors had cost against it"
        lines.append(f"{loss_name} {comparison}: {switch.gain:+.4f} ({switch.n:,} labels)")
    if switch.line_gain is not None:
        lines.append(
            f"{loss_name} gained, {line_of(switch.model)} against {line_of(switch.former)} over "
            f"refreshes, until another line served: {switch.line_gain:+.4f} "
            f"({switch.line_n:,} labels)"
        )
    return lines


def _gap_text(report: Report) -> str:
    gaps = report.gaps()
    if not gaps:
        return ""
    names = list(gaps[-1].losses)
    lines = [[f"{GAP_MEASURES[report.task_kind]} since", "examples", *names, "gap closed"]]
    for gap in gaps:
        cells = [_score(gap.losses.get(name)) for name in names]
        share = "-" if gap.closed is None else f"{gap.closed:.1%}"
        lines.append([gap.since, f"{gap.n:,}", *cells, share])
    return "\n".join(
        [
            "the gap between a first model that is never updated and a learner that predicts",
            "live (names with @: copies of that learner, frozen after so many labels)",
            _align(lines),
            *map(_gap_sentence, gaps),
            "(tuning: another recipe on the labels that the first model had; youth: more",
            "labels before it was frozen, too; learning on: the rest, the only part that",
            "can be drift)",
        ]
    )


def _gap_sentence(gap: Gap) -> str:
    period = "over all of it" if gap.since == TOTAL else f"since {gap.since}"
    share = "there is no gap" if gap.closed is None else f"serving closed {gap.closed:.1%}"
    parts = [f"{name.replace('_', ' ')} {part:.4f}" for name, part in gap.parts.items()]
    return f"{period} {share}; made of {', '.join(parts)}"


def slices_text(report: Report) -> str:
    """The loss of each model by declared slice; nothing where none is declared."""
    names = sorted({name for slices in report.slices.values() for name in slices})
    if not names:
        return ""
    lines = [["slice", "examples", *report.slices]]
    for name in names:
        parts = [slices.get(name) for slices in report.slices.values()]
        scores = [{} if part is None else part["scores"]["cumulative"] for part in parts]
        losses = [_score(each.get("brier", each.get("mae"))) for each in scores]
        lines.append([name, f"{max(part['n'] for part in parts if part):,}", *losses])
    return f"{LOSS_NAMES[report.task_kind]} by slice, over all of it\n{_align(lines)}"


# --- how long luck lasts ------------------------------------------------------------------------


def luck_text(report: Report) -> str:
    """The variance ladders and the blocks that they suggest; nothing without challengers."""
    ladders = [ladder for ladder in report.ladders() if _reliable_rungs(ladder.rungs)]
    if not ladders:
        return ""
    lengths = [
        name
        for name, length_ms in BLOCK_LENGTHS.items()
        if any(
            rung.block_ms == length_ms
            for ladder in ladders
            for rung in _reliable_rungs(ladder.rungs)
        )
    ]
    lines = [["champion", "challenger", "examples", *lengths, "suggested block"]]
    for ladder in ladders:
        inflations = {
            rung.block_ms: f"{rung.inflation:.1f}" for rung in _reliable_rungs(ladder.rungs)
        }
        cells = [inflations.get(BLOCK_LENGTHS[name], "-") for name in lengths]
        block = next((name for name, ms in BLOCK_LENGTHS.items() if ms == ladder.block_ms), "-")
        lines.append([ladder.champion, ladder.challenger, f"{ladder.pairs:,}", *cells, block])
    return (
        "how long luck lasts: by how much blocks of time differ more in who did better\n"
        "than they would if every example were luck of its own (1: no more)\n"
        f"{_align(lines, left_columns=2)}\n"
        "While this grows with the length, luck lasts longer than a block, and shorter\n"
        "blocks count the same luck twice. Suggested is the shortest from which it grows\n"
        "by a quarter at most. That is coarse: in doubt take the longer one, which costs\n"
        f"days, not truth. Lengths with fewer than {RUNG_BLOCKS_MIN} blocks say nothing (-)."
    )


def _reliable_rungs(rungs: Iterable[Rung]) -> list[Rung]:
    return [rung for rung in rungs if rung.blocks >= RUNG_BLOCKS_MIN]


# --- delays, coverage and counts ----------------------------------------------------------------


def _coverage_lines(report: Report) -> list[str]:
    delays = {name: f"{ms / HOUR_MS:.1f} h" for name, ms in report.delays_ms().items()}
    shares = report.coverage()
    delay_line = (
        f"labels came {delays['p50']} after the event (median), 90% within {delays['p90']}, "
        f"99% within {delays['p99']}, the last after {delays['max']}"
    )
    lines = [delay_line, f"the champion answered {shares['answered']:.2%} of the examples"]
    if "labelled" in shares:
        lines.append(f"{shares['labelled']:.2%} of the predictions got a label")
    if report.accounting:
        counts = [f"{count:,} {name}" for name, count in report.accounting.items()]
        lines.append(f"counted: {', '.join(counts)}")
    return lines


# --- cells --------------------------------------------------------------------------------------


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _align(lines: Sequence[Sequence[str]], left_columns: int = 1) -> str:
    """Columns as wide as their widest cell: the first ones to the left, the others to the right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
