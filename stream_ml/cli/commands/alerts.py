"""`alerts`: what is open now, what changed last, and what changes from now on."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import whole_number
from stream_ml.cli.colour import paint
from stream_ml.cli.log import existing_log
from stream_ml.cli.output import flush, write, write_json, write_json_line, write_line
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import format_time
from stream_ml.shell.log.port import read_between
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.alerts import AlertFold, alert_seal, alerts_in, read_alerts

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Iterator, Mapping

    from stream_ml.cli.colour import Style
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.alerts import AlertsView, AlertView

__all__ = ["COMMAND", "SEVERITY_STYLES", "alert_line", "open_counts_text", "quarantines_text"]

LAST = 20
SEVERITY_STYLES: Mapping[str, Style] = {"critical": "bad", "warning": "warning", "info": "name"}
WAIT_S = 0.2


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the alerts that are open and the last changes; with --follow, those that come."""
    as_json = arguments.format == "json"
    with ExitStack() as stack:
        log = stack.enter_context(existing_log(settings))
        stop = stack.enter_context(Stop()) if arguments.follow else None
        key = reading_key(settings, log)
        if stop is None:
            view = read_alerts(log, key, 0 if arguments.open else arguments.last)
            notes = _notes(view, settings.unverified_reason(settings.path) if key is None else None)
            if as_json:
                write_json(_members(view, notes, with_last=not arguments.open))
            else:
                write("\n\n".join([*_blocks(view, with_last=not arguments.open), *notes]))
            return
        for alert in _followed(log, key, stop):
            if arguments.open and alert.state == "once":
                continue
            if as_json:
                write_json_line(alert.as_dict())
            else:
                write_line(alert_line(alert))
            if not flush():
                return  # nobody reads on


def _followed(log: Log, key: bytes | None, stop: Stop) -> Iterator[AlertView]:
    """What is open, and each change that comes."""
    seal, fold = alert_seal(log, key), AlertFold()
    ends = {p: log.end_offset("alerts", p) for p in range(log.partitions["alerts"])}
    for partition, end in ends.items():
        first = log.first_offset("alerts", partition)
        for record, alert in alerts_in(read_between(log, "alerts", partition, first, end), seal):
            if alert is not None:
                fold.add(record, alert)
    yield from fold.open()
    with closing(log.tail("alerts", ends)) as tail:
        while not stop.is_requested:
            records = tail.poll(WAIT_S)
            # A worker may have begun only now.
            seal = seal or alert_seal(log, key)
            for record, alert in alerts_in(records, seal):
                if alert is not None:
                    yield from fold.add(record, alert)


# --- output -----------------------------------------------------------------------------------


def alert_line(alert: AlertView) -> str:
    """One alert in a line.

    >>> from stream_ml.shell.views.alerts import AlertView
    >>> alert_line(AlertView("guard", "critical", "once", "evaluate", 0, "model:a@5", "It harms.",
    ...     {}, 1, 1, 1, 1, "stream-ml models", "f"))
    'critical once 1970-01-01 00:00:00Z guard model:a@5 (evaluate-0): It harms.; stream-ml models'
    """
    ts = alert.since if alert.state == "open" else alert.ts
    # What was raised before the first event has no time of events.
    at = format_time(ts) if ts >= 0 else "the start"
    state = {"open": "open since "}.get(alert.state, f"{alert.state} {'' if ts >= 0 else 'at '}")
    subject = f" {alert.subject}" if alert.subject else ""
    style = "good" if alert.state == "resolved" else SEVERITY_STYLES.get(alert.severity, "faint")
    text = f"{state}{at} {alert.kind}{subject} ({alert.task}): {alert.message}; {alert.command}"
    return f"{paint(printable(alert.severity), style)} {printable(text)}"


def open_counts_text(counts: Mapping[str, int]) -> str:
    """How many alerts are open, by severity.

    >>> open_counts_text({"critical": 1, "warning": 0, "info": 2})
    '1 critical, 2 info'
    """
    return ", ".join(f"{n:,} {severity}" for severity, n in counts.items() if n) or "none"


def quarantines_text(alerts: Iterable[AlertView]) -> str:
    """Lines that learn no more, or are asked no more: why, and the way out.

    >>> from stream_ml.shell.views.alerts import AlertView
    >>> quarantines_text([AlertView("line_quarantined", "warning", "open", "learn", 0, "line:a",
    ...     "the line a learns no more: it raised", {}, 1, 1, 1, 1, "", "f")])
    'quarantined: the line a learns no more: it raised; stream-ml restart a --reason ...'
    """
    return "\n".join(map(_quarantine, alerts))


def _quarantine(alert: AlertView) -> str:
    command = f"stream-ml restart {alert.subject.removeprefix('line:')}"
    way_out = "" if command in alert.message else f"; {command} --reason ..."
    return f"{paint('quarantined:', 'bad')} {printable(f'{alert.message}{way_out}')}"


def _members(view: AlertsView, notes: list[str], *, with_last: bool) -> dict[str, object]:
    last = {"last": [alert.as_dict() for alert in view.last]} if with_last else {}
    return {
        "open_counts": view.open_counts,
        "open": [alert.as_dict() for alert in view.open],
        **last,
        "notes": notes,
    }


def _blocks(view: AlertsView, *, with_last: bool) -> Iterator[str]:
    reach = f", by the last {view.read:,} records" if view.read < view.total else ""
    counts = open_counts_text(view.open_counts)
    yield "\n".join([f"open: {counts}{reach}", *map(alert_line, view.open)])
    # What is open is there already.
    last = [alert for alert in view.last if alert not in view.open]
    if with_last and last:
        yield "\n".join(["the last changes besides:", *map(alert_line, last)])


def _notes(view: AlertsView, unverified_reason: str | None) -> list[str]:
    notes = [] if unverified_reason is None else [unverified_reason]
    if view.foreign:
        notes.append(f"{view.foreign:,} records are no alerts of ours, and count for nothing")
    if view.read < view.total:
        notes.append(
            f"the last {view.read:,} records were read, of at most {view.total:,}: what opened "
            "before them and is open still is not shown; --follow begins with all that is open"
        )
    return notes


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--open", action="store_true", help="only what is open, and its changes")
    parser.add_argument(
        "--follow", action="store_true", help="go on with each change that comes, until Ctrl-C"
    )
    parser.add_argument(
        "--limit",
        "--last",
        dest="last",
        type=whole_number(0),
        default=LAST,
        metavar="N",
        help=f"how many of the last changes to show ({LAST})",
    )


COMMAND = Subcommand(
    name="alerts",
    help="what is open now, what changed, and what changes",
    description=(
        "Shows the alerts that are open, the gravest first, each with the command to look\n"
        "further, and the last changes: what opened, resolved, or happened once. With --follow it\n"
        "goes on with each change that comes; with --format json these are JSON lines. Times are\n"
        "of events. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample("stream-ml alerts", "what is open, and the last 20 changes"),
        UsageExample(
            "stream-ml alerts --open --format json", "what is open, for a monitor to read"
        ),
        UsageExample("stream-ml alerts --follow", "as they come"),
    ),
    add_arguments=_add_arguments,
    run=run,
    is_view=True,
)
