"""`dead-letters`: the records that were refused, counted and shown with their bytes."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_ml.cli.arguments import instant, utf8, utf8_up_to, whole_number
from stream_ml.cli.log import existing_log
from stream_ml.cli.operator import TEXT_LENGTH_MAX
from stream_ml.cli.output import flush, write, write_bytes, write_json, write_line
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import format_duration, format_table, format_time
from stream_ml.errors import UsageError
from stream_ml.records import LateEvent
from stream_ml.shell.printable import printable
from stream_ml.shell.views.dead_letters import (
    LATE_EVENTS,
    TOPIC,
    LetterFilter,
    LetterTally,
    LetterView,
    original_bytes,
    read_letters,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable

    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

LIMIT = 10
NOTE = "the declaration reads them now"
# So much of a refused record is shown to people; --raw gives all of it.
SHOWN_BYTES = 300
# Reasons are words of others: no more of them are named where the chosen one is of none.
REASONS_SHOWN = 10


def run(arguments: Namespace, settings: Settings) -> None:
    """Print how many there are of each reason and the last ones, or publish records again.

    Raises:
        UsageError: an option is of the other action.
    """
    _check_options(arguments)
    if arguments.action == "redrive":
        # It loads what stages read, which a look at the log need not wait for.
        from stream_ml.cli.execution.redrive import redrive  # noqa: PLC0415

        redrive(arguments, settings, _filter(arguments), arguments.note or NOTE)
    else:
        _list(arguments, settings)


def _check_options(arguments: Namespace) -> None:
    """Refuse what the action would pass over: a limit that is none publishes everything."""
    of_list = {
        "--limit": arguments.limit is not None,
        "--summary": arguments.summary,
        "--raw": arguments.raw,
        "--late": arguments.late,
    }
    of_redrive = {
        "--dry-run": arguments.dry_run,
        "--note": arguments.note is not None,
        "--actor": arguments.actor is not None,
    }
    redrives = arguments.action == "redrive"
    other, options = ("list", of_list) if redrives else ("redrive", of_redrive)
    wrong = [option for option, is_given in options.items() if is_given]
    if wrong:
        raise UsageError(
            f"dead-letters {arguments.action}: expected options of {arguments.action}, given "
            f"{', '.join(wrong)}, of `dead-letters {other}` alone; leave it out, or choose "
            "letters by --reason, --topic and --since"
        )


def _topic(arguments: Namespace) -> str:
    return LATE_EVENTS if arguments.late else TOPIC


def _filter(arguments: Namespace) -> LetterFilter:
    return LetterFilter(frozenset(arguments.reason), arguments.topic, arguments.since)


def _list(arguments: Namespace, settings: Settings) -> None:
    limit = LIMIT if arguments.limit is None else arguments.limit
    tally = LetterTally(0 if arguments.summary else limit)
    if arguments.raw:
        _refuse_terminal()
    with existing_log(settings) as log:
        views = read_letters(log, _filter(arguments), tally.add_foreign, _topic(arguments))
        if arguments.raw and arguments.limit is None:
            _print_raw(log, views)  # one by one: there may be millions
            return
        for view in views:
            tally.add(view)
        others = {} if tally.count else _reasons(log, arguments)
        if arguments.raw:
            _print_raw(log, tally.last)
        elif arguments.format == "json":
            write_json(_members(tally))
        else:
            _print(log, tally, _absence(arguments, others))


def _refuse_terminal() -> None:
    if sys.stdout.isatty():
        raise UsageError(
            "--raw: expected a file or a pipe as standard output, given a terminal, which bytes "
            "of others could steer; add `> FILE`, or leave --raw out"
        )


def _print_raw(log: Log, views: Iterable[LetterView]) -> None:
    for view in views:
        value = original_bytes(log, view.letter)
        if value is not None:
            write_bytes(value + b"\n")
        if not flush():
            return


# --- output -----------------------------------------------------------------------------------


def _members(tally: LetterTally) -> dict[str, Any]:
    return {
        "count": tally.count,
        "groups": [
            {
                "topic": topic,
                "reason": reason,
                "path": path,
                "count": group.count,
                "first_ms": group.first_ms,
                "last_ms": group.last_ms,
            }
            for (topic, reason, path), group in sorted(tally.groups.items())
        ],
        "last": [view.as_dict() for view in tally.last],
        "foreign": tally.foreign,
    }


def _reasons(log: Log, arguments: Namespace) -> dict[str, int]:
    """How many there are of other reasons, where one was chosen of which there is none."""
    if not arguments.reason:
        return {}
    wanted = replace(_filter(arguments), reasons=frozenset())
    views = read_letters(log, wanted, topic=_topic(arguments))
    counts = Counter(view.letter.reason for view in views)
    return dict(counts.most_common(REASONS_SHOWN))


def _absence(arguments: Namespace, others: dict[str, int]) -> str:
    if not others:
        return "no late events" if arguments.late else "no dead letters"
    counts = ", ".join(f"{reason} {count:,}" for reason, count in others.items())
    return f"none of reason {', '.join(arguments.reason)}; there are {counts}"


def _print(log: Log, tally: LetterTally, absence: str) -> None:
    note = f"{tally.foreign:,} records there are no dead letters, and are passed over"
    if not tally.count:
        write_line(absence)
        if tally.foreign:
            write(note)
        return
    head, rows = ["topic", "reason", "path", "count", "first", "last"], []
    groups = sorted(tally.groups.items(), key=lambda item: (-item[1].count, item[0]))
    for name, group in groups:
        times = [format_time(group.first_ms), format_time(group.last_ms)]
        rows.append([*name, f"{group.count:,}", *times])
    write(format_table(rows, head=head, right=[3]))
    for view in tally.last:
        write("")
        write_line(_line(view))
        write_line(f"  {_bytes_text(log, view)}")
        if not flush():
            return  # nobody reads on
    if tally.foreign:
        write(f"\n{note}")


def _line(view: LetterView) -> str:
    letter = view.letter
    behind = (
        f" ({format_duration(letter.behind_ms)} behind)" if isinstance(letter, LateEvent) else ""
    )
    return (
        f"{view.partition}:{view.offset} {format_time(view.append_ms)} {letter.topic}-"
        f"{letter.partition} offset {letter.offset} refused by {letter.stage}: {letter.reason} at "
        f"{letter.path}: {letter.message}{behind}"
    )


def _bytes_text(log: Log, view: LetterView) -> str:
    letter = view.letter
    value = original_bytes(log, letter)
    if value is None:
        kept = "a tombstone" if not letter.length else "not kept"
        return f"{letter.length:,} bytes, {kept}, SHA-256 {printable(letter.sha256)}"
    text = printable(value[:SHOWN_BYTES].decode(errors="backslashreplace"))
    rest = len(value) - SHOWN_BYTES
    return f"{text} ... and {rest:,} bytes more" if rest > 0 else text


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "redrive"),
        default="list",
        help="show them (default), or publish again what the declaration can read now",
    )
    parser.add_argument(
        "--reason",
        type=utf8,
        action="append",
        default=[],
        metavar="REASON",
        help="only those of this reason, such as not_json; may be given again",
    )
    parser.add_argument(
        "--topic", type=utf8, metavar="TOPIC", help="only records that lay on this topic"
    )
    parser.add_argument(
        "--since", type=instant, metavar="TIME", help="only what was refused then or later"
    )
    parser.add_argument(
        "--limit",
        type=whole_number(0),
        metavar="N",
        help=f"of list: how many of the last ones to show ({LIMIT}; with --raw all)",
    )
    parser.add_argument("--summary", action="store_true", help="of list: only the counts")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="of list: only the refused bytes, as they were, each record followed by a line's end",
    )
    parser.add_argument(
        "--late",
        action="store_true",
        help="of list: the events that came too late, where these have a topic of their own",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="of redrive: only say what it would publish"
    )
    parser.add_argument(
        "--note",
        type=utf8_up_to(TEXT_LENGTH_MAX),
        metavar="TEXT",
        help=f"of redrive: why, for whoever reads the audit (default: {NOTE})",
    )
    parser.add_argument(
        "--actor",
        type=utf8_up_to(TEXT_LENGTH_MAX),
        metavar="TEXT",
        help="of redrive: who asks for it (default: the operator, or this system's user)",
    )


COMMAND = Subcommand(
    name="dead-letters",
    help="the records that were refused: how many, why, and their bytes",
    description=(
        "Counts dead letters by topic, reason and path, with the times of the first and the last,\n"
        "and shows the last ones with the bytes that were refused. What would steer a terminal is\n"
        "escaped; --raw gives the bytes as they were, to a file or a pipe. Only reads, also while\n"
        "a worker runs. With --late the same of `late-events`: where events that come too late\n"
        "have a topic of their own, they are no dead letters.\n\n"
        "With redrive it publishes again, byte for byte, the events and labels that the present\n"
        "declaration can read: each once, however often it is run or killed, with a signed\n"
        "command that names their dead letters. A record keeps its id and its time: what would be\n"
        "too late by now is named, with --dry-run as well, and stays a dead letter."
    ),
    examples=(
        UsageExample(
            "stream-ml dead-letters --reason wrong_type --since 2026-11-01 --limit 100",
            "those of one reason, with their bytes",
        ),
        UsageExample(
            "stream-ml dead-letters --topic events --raw",
            "the bytes, to send into a file, mend and publish again",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud dead-letters redrive --topic events --dry-run",
            "what a widened declaration would take",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    is_view=True,
)
