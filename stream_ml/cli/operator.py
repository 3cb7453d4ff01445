"""The common part of commands such as `promote`: a command and its answer."""

from __future__ import annotations

import os
import pwd
import time
import uuid
from typing import TYPE_CHECKING, Any

from stream_ml import client, records
from stream_ml.cli.arguments import seconds, utf8_up_to
from stream_ml.cli.decisions import decider, names_in, reason_text
from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json, write_line
from stream_ml.errors import CommandRefused
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import declared_pipeline
from stream_ml.shell.views.registry import effects, read_registry
from stream_ml.signing import LOCAL
from stream_ml.suggestion import suggestion

if TYPE_CHECKING:
    import argparse

    from stream_ml.records import Decision
    from stream_ml.shell.settings.settings import Settings

__all__ = ["add_arguments", "add_expect", "give", "new_command"]

TIMEOUT_S = 30.0
TEXT_LENGTH_MAX = 512
SIGNATURE_UNCHECKED = (
    "the answer's signature was not checked: no key is set, and none lies by the log"
)


def give(
    arguments: argparse.Namespace,
    settings: Settings,
    kind: str,
    details: dict[str, Any] | None = None,
) -> None:
    """Give the command, and print how it was answered.

    Args:
        arguments: of the command line.
        settings: which log, and who signs.
        kind: `promote`, `rollback`, `pause`, `resume`, `restart`, `batch` or `apply`.
        details: that belong to the kind.

    Raises:
        CommandRefused: it was refused.
        NoAnswer: it was not answered in time.
    """
    with existing_log(settings) as log:
        command = new_command(
            arguments,
            settings,
            kind,
            expect=getattr(arguments, "expect", None),
            model=getattr(arguments, "model", None),
            details=details,
        )
        key = reading_key(settings, log)
        pipeline = None if settings.on_kafka else declared_pipeline(settings)
        if pipeline is not None:
            check_name(settings, log, pipeline.name, key)
        decision = client.command(
            log,
            command,
            settings.commanding_key(settings.path),
            verifying_key=key,
            timeout_s=arguments.timeout,
        )
        effect = effects(read_registry(log, key, recent=0))
    _print(decision, effect, as_json=arguments.format == "json", is_checked=key is not None)
    if decision.kind == "refused":
        present = decision.serving.champion.model
        serves = "" if present in decision.reason else f"; {present} serves"
        raise CommandRefused(f"{decision.reason}{serves}{_like(arguments, decision)}")


def _like(arguments: argparse.Namespace, decision: Decision) -> str:
    """A question after the model that was meant by one that there is not."""
    names = names_in([decision.serving])
    for option in ("model", "expect"):
        given = getattr(arguments, option, None)
        if given is not None and given not in names:
            return suggestion(given, names)
    return ""


def new_command(
    arguments: argparse.Namespace, settings: Settings, kind: str, **members: Any
) -> records.Command:
    """The command that a command line asks for, given now.

    Args:
        arguments: of the command line: `reason`, and maybe `id` and `actor`.
        settings: which operator gives it.
        kind: such as `promote`.
        members: others of `records.Command`.
    """
    return records.Command(
        **{
            "command_id": getattr(arguments, "id", None) or str(uuid.uuid4()),
            "reason": arguments.reason,
            **members,
        },
        kind=kind,
        ts=time.time_ns() // 1_000_000,
        operator=settings.operator,
        actor=arguments.actor or _name(settings),
    )


def _print(decision: Decision, effect: str, *, as_json: bool, is_checked: bool) -> None:
    champion = decision.serving.champion.model
    if as_json:
        write_json(
            {
                "accepted": decision.kind != "refused",
                "decision": decision.as_dict(),
                "effect": effect,
                "checked": is_checked,
            }
        )
    elif decision.kind != "refused":
        write_line(
            f"{decision.kind.replace('_', ' ')}: {champion} serves (decision {decision.number}, "
            f"by {decider(decision.actor, decision.signed_by)}: {reason_text(decision)})"
        )
        write(effect)
        if not is_checked:
            write(SIGNATURE_UNCHECKED)


def _name(settings: Settings) -> str:
    return _user() if settings.operator == LOCAL else settings.operator


def _user() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"  # a container may know its user by number only


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that every command has."""
    options: dict[str, dict[str, Any]] = {
        "--reason": {"required": True, "help": "why, for whoever reads the audit"},
        "--actor": {"help": "who asks for it (default: the operator, or this system's user)"},
        "--id": {"help": "names the command: given twice, it is carried out once (default: new)"},
    }
    for option, keywords in options.items():
        parser.add_argument(option, type=utf8_up_to(TEXT_LENGTH_MAX), metavar="TEXT", **keywords)
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long to wait for the answer (default {TIMEOUT_S:g})",
    )


def add_expect(parser: argparse.ArgumentParser) -> None:
    """For those that change what serves."""
    parser.add_argument(
        "--expect",
        type=utf8_up_to(TEXT_LENGTH_MAX),
        required=True,
        metavar="CHAMPION",
        help="what serves now, as a line or name@version: where another does, nothing is done",
    )
