"""`status`: how far the stages are, how fresh, how good, and what went wrong."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from stream_ml.cli.colour import StyledText, paint
from stream_ml.cli.commands.alerts import SEVERITY_STYLES, open_counts_text, quarantines_text
from stream_ml.cli.decisions import decider, decision_time, registry_notes
from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.scores import FORMS, evidence_table, scores_table, slices_table
from stream_ml.cli.subcommand import Subcommand, UsageExample, no_arguments
from stream_ml.cli.tables import NO_VALUE, format_counts, format_table, format_time
from stream_ml.shell.printable import printable
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import declared_pipeline
from stream_ml.shell.views.label_sources import LabelSources
from stream_ml.shell.views.stage_backlogs import backlogs_text, read_backlogs
from stream_ml.shell.views.stalled import read_stalled, stages_list, stalled_text
from stream_ml.shell.views.status import held_back, is_empty, read_status
from stream_ml.stages.topology import STAGES

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.label_sources import Agreement
    from stream_ml.shell.views.stage_backlogs import StageBacklog
    from stream_ml.shell.views.stalled import StalledTask
    from stream_ml.shell.views.status import HeldBack, StatusView

__all__ = ["COMMAND"]

CHECKPOINT_NOTE = (
    "counts and times are those of each task's last checkpoint, which is due every "
    "STREAM_ML_CHECKPOINT_SECONDS while records come; positions are of now"
)
UNKNOWN = "not known before a worker's first checkpoint"


def run(arguments: Namespace, settings: Settings) -> None:
    """Print how the pipeline on the log is getting on."""
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        mode = trusted = None
        pipeline = declared_pipeline(settings)
        if pipeline is not None:
            check_name(settings, log, pipeline.name, key)
            mode, trusted = pipeline.promotion.mode, pipeline.label.trusted
        now_ms = time.time_ns() // 1_000_000
        empty, view, at_work = is_empty(log), read_status(log, key), log.stages_at_work()
        transactions = list(held_back(log, now_ms))
        sources = LabelSources(trusted).read(log)
        stalled = read_stalled(
            log, view.stages, at_work, now_ms, checkpoint_s=settings.checkpoint_seconds
        )
        backlogs = read_backlogs(
            log, view.stages, stalled, now_ms, checkpoint_s=settings.checkpoint_seconds
        )
    notes = registry_notes(
        view.registry, settings.unverified_reason(settings.path) if key is None else None
    )
    if settings.on_kafka:
        notes.append(CHECKPOINT_NOTE)
    notes += map(_held_back, transactions)
    if arguments.format == "json":
        members = {"log": settings.path, "empty": empty, "mode": mode, **view.as_dict()}
        members |= {
            "at_work": stages_list(at_work),
            "stalled": [task.as_dict() for task in stalled],
            "sources": [asdict(each) for each in sources],
            "backlogs": [backlog.as_dict() for backlog in backlogs],
        }
        write_json({**members, "notes": notes})
    elif empty:
        qualifier = "that is committed " if transactions else ""
        words = f"an empty log: nothing {qualifier}was published to it, and no worker has run"
        write("\n\n".join([printable(f"{settings.path}: {words}"), *map(_held_back, transactions)]))
    else:
        facts = _facts(view, settings.path, mode, _workers(at_work, stalled, backlogs, now_ms))
        write("\n\n".join([facts, *_blocks(view), *_sources(sources, trusted), *notes]))


# --- as text ----------------------------------------------------------------------------------


def _held_back(transaction: HeldBack) -> str:
    return (
        f"{transaction.topic}-{transaction.partition}: up to {transaction.records:,} records "
        f"are held back by an open transaction since {format_time(transaction.since_ms)}: no lag "
        "shows them; `kafka-transactions.sh find-hanging` names it, and the broker ends it in time"
    )


def _blocks(view: StatusView) -> Iterator[str]:
    rows = [
        [
            progress.task,
            f"{progress.topic}-{progress.partition}",
            *(f"{figure:,}" for figure in (progress.position, progress.end, progress.lag)),
        ]
        for progress in view.stages
    ]
    yield format_table(rows, head=["stage", "reads", "position", "end", "lag"], right=[2, 3, 4])
    if view.models:
        for form, name in FORMS.items():
            yield f"{paint(f'scores {name}', 'heading')}\n{scores_table(view.models, form)}"
    else:
        yield "no scores yet: they are written every 1,000 examples"
    slices = slices_table(view.models)
    if slices is not None:
        yield f"{paint('loss by slice, of the last examples of each', 'heading')}\n{slices}"
    evidence = evidence_table(view.models)
    if evidence is not None:
        caption = "evidence that a challenger is better than the champion"
        yield f"{paint(caption, 'heading')}\n{evidence}"
    if view.quarantines:
        yield quarantines_text(view.quarantines)
    for alert in view.alerts:
        times = f", {alert.count:,} times" if alert.count > 1 else ""
        last = format_time(alert.ts)
        yield printable(f"alert {alert.kind}{times}, last at {last}: {alert.message}")


def _sources(sources: Sequence[Agreement], trusted: str | None) -> Iterator[str]:
    """How far the sources of labels agree; nothing where no label names one."""
    if not sources:
        return
    rows = []
    for each in sources:
        shares = [NO_VALUE] * 2
        if each.low is not None and each.high is not None:
            agreed = f"{each.agreed / each.compared:.1%}"
            shares = [agreed, f"{each.low:.1%} to {each.high:.1%}"]
        name = "(names none)" if each.source is None else printable(each.source)
        rows.append([name, f"{each.labels:,}", f"{each.compared:,}", *shares])
    others = "others" if trusted is None else printable(trusted)
    caption = f"labels by source, and how many say what {others} say last of the same events"
    head = ["source", "events", "compared", "agree", "95 % interval"]
    table = format_table(rows, head=head, right=[1, 2, 3])
    yield f"{paint(caption, 'heading')}\n{table}"


def _workers(
    at_work: frozenset[str] | None,
    stalled: Sequence[StalledTask],
    backlogs: Sequence[StageBacklog],
    now_ms: int,
) -> str:
    """Which stages have a worker, and what waits for those that have none or are behind."""
    behind = backlogs_text(backlogs, now_ms)
    if stalled:
        return StyledText("; ".join(filter(None, [stalled_text(stalled, now_ms), behind])), "bad")
    if behind:
        return StyledText(behind, "warning")
    stages = stages_list(at_work)
    if stages is None:
        return "not known"
    if len(stages) == len(STAGES):
        return "at work"
    if not stages:
        return "none is at work"
    return f"at work are those of {', '.join(stages)}"


def _facts(view: StatusView, path: str, mode: str | None, workers: str) -> str:
    entry, watermarks = view.since, view.watermarks
    serves = "none yet: the log holds no decision that we can believe"
    if entry is not None:
        start = "from the start" if entry.decision.ts < 0 else f"since {decision_time(entry)}"
        serves = f"{view.champion}, {start} (decision {entry.decision.number})"
    return format_table(
        [
            ["log", path],
            ["pipeline", view.pipeline or "not known yet"],
            ["champion", serves],
            ["workers", workers],
            ["mode", _mode(view, mode)],
            ["last day", format_counts(view.decisions_last_day)],
            ["events until", ", ".join(map(format_time, watermarks.events))],
            ["labels until", ", ".join(map(format_time, watermarks.labels))],
            ["scores until", format_time(watermarks.examples)],
            ["last block", _last_block(view)],
            ["events", _counts(view, "predict")],
            ["labels", _counts(view, "join")],
            ["held", format_counts(view.held) if view.held else UNKNOWN],
            *(
                [["idle", f"partitions {idle} of events: they hold up nothing"]]
                if (idle := ", ".join(map(str, view.idle_partitions)))
                else []
            ),
            ["dead letters", _letters(view)],
            ["open alerts", _open_alerts(view)],
        ]
    )


def _open_alerts(view: StatusView) -> str:
    """How many, in the colour of the gravest."""
    text = open_counts_text(view.open_alerts)
    styles = (style for name, style in SEVERITY_STYLES.items() if view.open_alerts.get(name))
    return StyledText(text, next(styles, "good"))


def _last_block(view: StatusView) -> str:
    """The loss of what was served in the last block, and usually."""
    if len(view.blocks) <= 1:
        return "none is over yet, or the pipeline has no monitors"
    usual, last = view.blocks[0], view.blocks[-1]
    now, before = (each["scores"].get("served", {}) for each in (last, usual))
    loss, usual_loss = (each.get("brier", each.get("mae")) for each in (now, before))
    if loss is None:
        return f"{format_time(last['start'])}: nothing that was served has a label"
    words = "" if usual_loss is None else f", usually {usual_loss:.4f}"
    return f"{format_time(last['start'])}: loss of what was served {loss:.4f}{words}"


def _mode(view: StatusView, mode: str | None) -> str:
    states = [mode or "not known: no pipeline is set"]
    for entry, words in (
        (view.paused, "paused"),
        (view.frozen, "renewed no more after a rollback, until `resume`"),
        (view.suspended, "suspended"),
        (view.proposed, "a change is proposed"),
    ):
        if entry is not None:
            decision = entry.decision
            states.append(
                f"{words} since {decision_time(entry)} by "
                f"{decider(decision.actor, decision.signed_by)}: {decision.reason} "
                f"(decision {decision.number})"
            )
    return "; ".join(states)


def _counts(view: StatusView, stage: str) -> str:
    """The outcomes of events or labels, and as of when where that is not now."""
    counts = view.events if stage == "predict" else view.labels
    if not counts:
        return UNKNOWN
    share = ""
    if view.labelled is not None and stage == "join":
        share = f"; {view.labelled:.1%} of predictions have a label"
    times = [ms for task, ms in view.checkpoints.items() if task.startswith(stage) and ms]
    as_of = f" (as of the checkpoint at {format_time(min(times))})" if times else ""
    return format_counts(counts) + share + as_of


def _letters(view: StatusView) -> str:
    read, total = view.dead_letters_read, view.dead_letters_total
    scope = "" if read == total else f" (of the last {read:,}; at most {total:,} in all)"
    return format_counts(view.dead_letters) + scope


COMMAND = Subcommand(
    name="status",
    help="lag, freshness, scores, evidence, dead letters, alerts",
    description=(
        "Shows how the pipeline on a log is getting on: how far each stage has read and how much\n"
        "waits (lag), up to when events and labels are known, how the models score and what\n"
        "speaks for each challenger, what became of labels, what was refused and why (of the last\n"
        "10,000 refusals). A day is one of events. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample("stream-ml status", "of the log that is set"),
        UsageExample("stream-ml --broker sqlite:runs/demo/log.sqlite status", "of the demo's log"),
        UsageExample("stream-ml status --format json", "for a monitor to read"),
    ),
    add_arguments=no_arguments,
    run=run,
    is_view=True,
)
