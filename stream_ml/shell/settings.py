"""What can be set, what it is set to, and by whom: the only reader of the environment.

A setting is what the command line says, else what the environment says, else its default.

The signing key is one only the log's owner may know: whoever has it can make models that our
workers believe. It comes from the environment, never from the command line, which other users of
a machine can read; where it is unset, a log in a file has one beside it, made on first use.
"""

from __future__ import annotations

import difflib
import math
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stream_ml.errors import UsageError
from stream_ml.shell.runner import CHECKPOINT_S
from stream_ml.shell.sqlite_log import MEMORY
from stream_ml.stages.learn import CHECKPOINT_EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SETTINGS", "Setting", "Settings", "key_file"]

PREFIX = "STREAM_ML_"
# What our own tests are told; nothing that a command could do something about.
TEST_PREFIX = "STREAM_ML_TEST_"
SQLITE = "sqlite:"
DEFAULT = "default"
KEY_BYTES = 32
KEY_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set; `parse` makes it of text, or raises ValueError."""

    name: str
    meaning: str
    expected: str
    parse: Callable[[str], Any]
    option: str | None = None

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


def _broker(text: str) -> str:
    if not text.startswith(SQLITE) or text == SQLITE:
        raise ValueError
    return text


def _pipeline(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError
    return text


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != KEY_BYTES:
        raise ValueError
    return key


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError
    return seconds


_KEY_EXPECTED = f"{2 * KEY_BYTES} hexadecimal digits, as `openssl rand -hex {KEY_BYTES}` prints"

SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        setting.name: setting
        for setting in (
            Setting(
                "broker",
                "the log that everything is read from and written to",
                "sqlite:PATH",
                _broker,
                option="--broker",
            ),
            Setting(
                "pipeline",
                "the declaration to run",
                "module:name, such as stream_ml.examples.cards:cards",
                _pipeline,
                option="--pipeline",
            ),
            Setting(
                "key",
                "signs models and decisions; never shown, and no option: others could read it",
                _KEY_EXPECTED,
                _key,
            ),
            Setting(
                "checkpoint_examples",
                "after how many examples a worker writes down its learners at the latest",
                "a whole number from 1",
                _count,
            ),
            Setting(
                "checkpoint_seconds",
                "after how many seconds it does",
                "a number above 0",
                _seconds,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set; `sources` says who set what (an option, a variable), where not by default."""

    broker: str = "sqlite:stream_ml.sqlite"
    pipeline: str | None = None
    key: bytes | None = field(default=None, repr=False)
    checkpoint_examples: int = CHECKPOINT_EXAMPLES
    checkpoint_seconds: float = CHECKPOINT_S
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls, options: Mapping[str, str | None], environ: Mapping[str, str] = os.environ
    ) -> Settings:
        """The settings that a command has.

        Args:
            options: what the command line says, by the name of the setting.
            environ: the environment.

        Raises:
            UsageError: a value is wrong, or a variable of ours sets nothing that there is.
        """
        _refuse_unknown(environ)
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for name, setting in SETTINGS.items():
            option = options.get(name)
            text = environ.get(setting.variable) if option is None else option
            if text is not None:
                source = setting.variable if option is None else f"--{name}"
                values[name] = _parsed(setting, source, text)
                sources[name] = source
        return cls(**values, sources=MappingProxyType(sources))

    def source(self, name: str) -> str:
        """Who set it: an option, a variable, or `default`."""
        return self.sources.get(name, DEFAULT)

    def by_option(self, name: str) -> bool:
        """Whether the command line itself says so, rather than the surroundings."""
        return self.source(name).startswith("--")

    @property
    def path(self) -> str:
        """Where the log is: a file, or `:memory:`."""
        return self.broker.removeprefix(SQLITE)

    def signing_key(self, path: str) -> bytes:
        """The key that whoever writes to the log at `path` signs with; made if there is none.

        Raises:
            UsageError: the file beside the log may be read by others, or holds no key.
        """
        if self.key is not None:
            return self.key
        if path == MEMORY:
            return secrets.token_bytes(KEY_BYTES)
        file = key_file(path)
        if not file.exists():
            _make_key(file)
        return _read_key(file)

    def verifying_key(self, path: str) -> bytes | None:
        """The key that the log at `path` is signed with; None where there is none to be had.

        Raises:
            UsageError: as `signing_key`.
        """
        if self.key is not None:
            return self.key
        file = key_file(path)
        return _read_key(file) if path != MEMORY and file.exists() else None


def key_file(path: str) -> Path:
    """Where the key of the log at `path` lies, unless the environment has it.

    >>> key_file("runs/log.sqlite").name
    'log.sqlite.key'
    """
    return Path(f"{path}.key")


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {name.upper(): setting.variable for name, setting in SETTINGS.items()}
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name in (variable, *known) or variable.startswith(TEST_PREFIX):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(known.values())}"
        )
        raise UsageError(f"{variable}: no setting has this name; {hint}")


def _parsed(setting: Setting, source: str, text: str) -> Any:
    if setting.name == "broker" and text.startswith("kafka://"):
        raise UsageError(
            f"{source}: expected sqlite:PATH, given {text!r}; this version has the embedded log "
            "only, which lies in one file"
        )
    try:
        return setting.parse(text)
    except ValueError:
        given = f"{len(text)} characters" if setting.name == "key" else repr(text)
        raise UsageError(f"{source}: expected {setting.expected}, given {given}") from None


def _make_key(file: Path) -> None:
    # Whole under another name first, so that of two who make it at once both read the same one.
    try:
        with NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.") as made:
            made.write(f"{secrets.token_hex(KEY_BYTES)}\n")
            made.flush()
            os.fchmod(made.fileno(), KEY_MODE)
            os.link(made.name, file)
    except FileExistsError:
        pass
    except OSError as error:
        raise UsageError(
            f"{file}: expected to write the signing key there: {error.strerror}; make the folder "
            f"writable, or set {SETTINGS['key'].variable}"
        ) from error


def _read_key(file: Path) -> bytes:
    try:
        with file.open(encoding="ascii", errors="replace") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read().strip()
    except OSError as error:
        raise UsageError(f"{file}: expected to read the signing key: {error.strerror}") from error
    if mode & ~KEY_MODE:
        raise UsageError(
            f"{file}: expected mode {KEY_MODE:04o}, for whoever reads it can forge models, given "
            f"{mode:04o}; `chmod 600 {file}`, if nobody else has read it"
        )
    return bytes(_parsed(SETTINGS["key"], str(file), text))
