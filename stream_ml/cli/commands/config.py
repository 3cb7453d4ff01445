"""`config`: every setting, its value, who set it, and what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample, no_arguments
from stream_ml.cli.tables import NO_VALUE, format_table
from stream_ml.shell.log.sqlite import MEMORY
from stream_ml.shell.printable import printable
from stream_ml.shell.settings.listening import ListenAddress
from stream_ml.shell.settings.settings import (
    DEFAULT,
    SECRETS,
    SETTINGS,
    Setting,
    Settings,
    key_file,
)

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the settings as they are for a command called like this one."""
    operators = {name: member.role for name, member in sorted(settings.operators().items())}
    members = [_setting_members(setting, settings, operators) for setting in SETTINGS.values()]
    if arguments.format == "json":
        write_json(members)
        return
    blocks = [
        f"{member['name']} = "
        f"{NO_VALUE if member['value'] is None else printable(str(member['value']))}\n"
        + "\n".join(
            f"    {line}"
            for line in format_table(
                [
                    ["from", member["source"]],
                    ["set by", " or ".join(filter(None, (member["option"], member["variable"])))],
                    ["takes", member["expected"]],
                    ["means", member["meaning"]],
                    *([f"{role}", name] for name, role in member.get("operators", {}).items()),
                ]
            ).splitlines()
        )
        for member in members
    ]
    write("\n\n".join(blocks))


def _setting_members(
    setting: Setting, settings: Settings, operators: dict[str, str]
) -> dict[str, Any]:
    name = setting.name
    return {
        "name": name,
        "value": None if name in SECRETS else _value(getattr(settings, name)),
        "source": _key_source(settings) if name == "key" else settings.source(name),
        "option": setting.option,
        "variable": setting.variable,
        "expected": setting.expected,
        "meaning": setting.meaning,
        **({"operators": operators} if name == "keyring" else {}),
    }


def _value(value: Any) -> Any:
    return str(value) if isinstance(value, ListenAddress) else value


def _key_source(settings: Settings) -> str:
    source = settings.source("key")
    if source != DEFAULT:
        return source
    if settings.on_kafka:
        return "nowhere: a cluster's workers need it set"
    if settings.path == MEMORY:
        return "made for each run, as the log is"
    file = key_file(settings.path)
    return f"{file}" if file.exists() else f"{file}, made on first use"


COMMAND = Subcommand(
    name="config",
    help="every setting, its value and where it came from",
    description=(
        "Shows every setting: what it is, who says so, what it takes and means. An option comes\n"
        "before the environment, the environment before the default. Keys are never shown; of\n"
        "operators, names and roles are."
    ),
    examples=(
        UsageExample("stream-ml config", "what a command run here would use"),
        UsageExample(
            "stream-ml --broker sqlite:other.sqlite config --format json", "with an option"
        ),
    ),
    add_arguments=no_arguments,
    run=run,
)
