"""What can be set, what it is set to, and by whom: the only reader of the environment.

A setting is what the command line says, else what the environment says, else its default.

The signing key is one only the log's owner may know: whoever has it can make models that our
workers believe. It comes from the environment, never from the command line, which other users of
a machine can read; where it is unset, a log in a file has one beside it, made on first use. A
cluster has no such place, so there the key has to be set.

The broker is a file or a cluster. On a cluster a pipeline's name is part of what its topics are
called; who has no declaration of it, such as a consumer, names it in the address:

    sqlite:runs/shop.sqlite
    kafka://10.0.0.1:9092,10.0.0.2:9092          the name is the declared pipeline's
    kafka://10.0.0.1:9092/shop

No secret is part of the address: whoever lists processes or reads a shell's history would see it.

Operators may have keys of their own, in a keyring that the worker reads:

    [operators.ana]
    key = "64 hexadecimal digits"
    role = "operator"          # or "guard", or "observer": what each may is `signing.ROLES`
"""

from __future__ import annotations

import difflib
import math
import os
import re
import secrets
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stream_ml.defaults import (
    CHECKPOINT_EXAMPLES,
    CHECKPOINT_S,
    COMMAND_AGE_MS,
    LEARN_BUDGET_S,
    LINE_MEMORY_MB,
    TRAINING_MEMORY_MB,
    TRAINING_S,
)
from stream_ml.errors import UsageError
from stream_ml.routes import is_webhook
from stream_ml.shell.kafka.cluster import Cluster, Security
from stream_ml.shell.log.sqlite import MEMORY
from stream_ml.shell.settings.listening import ListenAddress
from stream_ml.signing import LOCAL, ROLES, Operator, RollingKey
from stream_ml.task_names import (
    MAIN_TASK,
    SEPARATOR,
    PipelineName,
    is_task_name,
    pipeline_in,
    task_in,
)
from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "SETTINGS",
    "TOKEN_LENGTH_MIN",
    "Setting",
    "Settings",
    "environment_of_others",
    "key_file",
    "takes_colour",
    "tokens_text",
]

PREFIX = "STREAM_ML_"
# What our own tests are told; nothing that a command could do something about.
TEST_PREFIX = "STREAM_ML_TEST_"
SQLITE = "sqlite:"
KAFKA = "kafka://"
DEFAULT = "default"
KEY_BYTES = 32
KEY_MODE = 0o600
NAME_LENGTH_MAX = 512
TOKEN_LENGTH_MIN = 32
# Settings whose value is nobody's to see.
SECRETS = frozenset(
    {"alert_webhooks", "http_token", "key", "key_before", "operator_key", "password"}
)
# How often Kafka's workers commit: a read_committed reader sees a prediction that much later.
COMMIT_S = 0.1
SYSTEM = "system"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}"
_CLUSTER = re.compile(rf"kafka://(?P<bootstrap>{_HOST}(,{_HOST})*)(/(?P<pipeline>[a-z0-9_-]+)?)?")


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set; `parse` makes it of text, or raises ValueError."""

    name: str
    meaning: str
    expected: str
    parse: Callable[[str], Any]
    option: str | None = None

    @property
    def metavar(self) -> str:
        """What stands for its value in a help text."""
        return self.expected.split(", ")[0]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


def _broker(text: str) -> str:
    if _CLUSTER.fullmatch(text) is None and (not text.startswith(SQLITE) or text == SQLITE):
        raise ValueError
    return text


def _pipeline(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError
    return text


def _task(text: str) -> str:
    if not is_task_name(text):
        raise ValueError
    return text


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != KEY_BYTES:
        raise ValueError
    return key


def _yes_or_no(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError
    return text == "1"


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


def _sasl(text: str) -> str:
    mechanism, _, user = text.partition(":")
    if mechanism not in MECHANISMS or not user:
        raise ValueError
    return text


def _topics(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not catalogue().keys() >= set(names):
        raise ValueError
    return names


def _name(text: str) -> str:
    if not 0 < len(text) <= NAME_LENGTH_MAX:
        raise ValueError
    return text


def _token(text: str) -> str:
    if len(text) < TOKEN_LENGTH_MIN or not text.isascii() or not text.isprintable():
        raise ValueError
    return text


def _webhooks(text: str) -> Mapping[str, str]:
    """Addresses by the name of their route, with spaces between: those may hold anything else."""
    webhooks = {}
    for word in text.split():
        name, _, url = word.partition("=")
        if not name or not is_webhook(url):
            raise ValueError
        webhooks[name] = url
    return MappingProxyType(webhooks)


def _lines(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError
    return names


_KEY_EXPECTED = f"{2 * KEY_BYTES} hexadecimal digits, as `openssl rand -hex {KEY_BYTES}` prints"

SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        setting.name: setting
        for setting in (
            Setting(
                "broker",
                "the log that everything is read from and written to",
                "sqlite:PATH or kafka://HOST:PORT[,HOST:PORT][/PIPELINE]",
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
                "task",
                f"one of the pipeline's tasks, `{MAIN_TASK}` for its own; default: its own, or all",
                "a name, as Task(...) has it",
                _task,
                option="--task",
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
            Setting(
                "commit_seconds",
                "how often workers on Kafka commit: how late a reader of committed records sees",
                "a number above 0",
                _seconds,
            ),
            Setting(
                "learn_budget_seconds",
                "how long a line may take over an example; one that takes longer three times "
                "running learns no more",
                "a number above 0",
                _seconds,
            ),
            Setting(
                "isolated_lines",
                "the lines whose learners run in processes of their own",
                "own (those that are not river's), all, none, or names of lines, with commas "
                "between them",
                _lines,
            ),
            Setting(
                "line_memory_mb",
                "how much memory such a process may have, in megabytes of address space",
                "a whole number from 1",
                _count,
            ),
            Setting(
                "training_seconds",
                "how long the training of a retrained line may take",
                "a number above 0",
                _seconds,
            ),
            Setting(
                "training_memory_mb",
                "how much memory its process may have, in megabytes of address space",
                "a whole number from 1",
                _count,
            ),
            Setting(
                "restart_lines",
                "quarantined lines that a worker starts anew, from nothing; set it for one start",
                "names of lines, with commas between them",
                _lines,
            ),
            Setting(
                "command_age_seconds",
                "how far a command's time may be from its arrival on the log, or it is refused",
                "a number above 0",
                _seconds,
            ),
            Setting(
                "keyring",
                "operators' keys and roles: whose commands a worker obeys, beside the key's own",
                "the path of a TOML file that only its owner may read",
                _name,
            ),
            Setting(
                "operator",
                f"in whose name commands are signed; {LOCAL} is whoever has the key itself",
                "a name, as the keyring has it",
                _name,
            ),
            Setting(
                "operator_key",
                "signs that operator's commands, where no keyring here holds it; never shown",
                _KEY_EXPECTED,
                _key,
            ),
            Setting(
                "key_before",
                "the key before that: what it sealed and signed is believed still; never shown",
                _KEY_EXPECTED,
                _key,
            ),
            Setting(
                "accept_unsealed",
                "whether what a former release wrote, without seals, is believed; for one start",
                "1 or 0",
                _yes_or_no,
            ),
            Setting(
                "accept_topics",
                "topics that workers take for what they are now, for one start: made anew, cut off",
                "names of topics with commas between, as `stream-ml topics` lists them",
                _topics,
            ),
            Setting(
                "alert_webhooks",
                "where routes of alerts post to, in place of what is declared; never shown",
                "NAME=URL of routes, with spaces between",
                _webhooks,
            ),
            Setting(
                "metrics",
                "where `up`, `serve` and each worker answer Prometheus and probes; else nowhere",
                "HOST:PORT, or PORT for this machine alone",
                ListenAddress.parse,
            ),
            Setting(
                "http_tokens",
                "who may do what by HTTP: tokens with roles, for `serve`",
                "the path of a TOML file that only its owner may read",
                _name,
            ),
            Setting(
                "http_token",
                "one token more, with every role; never shown",
                f"at least {TOKEN_LENGTH_MIN} ASCII characters, as `openssl rand -hex 32` prints",
                _token,
            ),
            Setting(
                "tls_ca",
                "who vouches for Kafka's brokers; switches TLS on",
                f"the path of a PEM file, or `{SYSTEM}` for this system's certificates",
                _name,
            ),
            Setting(
                "sasl",
                "who we are to Kafka's brokers, and how that is proved",
                f"MECHANISM:USER, of {', '.join(MECHANISMS)}; PLAIN wants TLS, or all can read it",
                _sasl,
            ),
            Setting(
                "password",
                "proves that; never shown, and no option: others could read it",
                "a password",
                _name,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set; `sources` says who set what (an option, a variable), where not by default."""

    broker: str = "sqlite:stream_ml.sqlite"
    pipeline: str | None = None
    task: str | None = None
    key: bytes | None = field(default=None, repr=False)
    checkpoint_examples: int = CHECKPOINT_EXAMPLES
    checkpoint_seconds: float = CHECKPOINT_S
    commit_seconds: float = COMMIT_S
    learn_budget_seconds: float = LEARN_BUDGET_S
    isolated_lines: tuple[str, ...] = ("own",)
    line_memory_mb: int = LINE_MEMORY_MB
    training_seconds: float = TRAINING_S
    training_memory_mb: int = TRAINING_MEMORY_MB
    restart_lines: tuple[str, ...] = ()
    command_age_seconds: float = COMMAND_AGE_MS / 1_000
    keyring: str | None = None
    operator: str = LOCAL
    operator_key: bytes | None = field(default=None, repr=False)
    key_before: bytes | None = field(default=None, repr=False)
    accept_unsealed: bool = False
    accept_topics: tuple[str, ...] = ()
    alert_webhooks: Mapping[str, str] = field(default_factory=dict, repr=False)
    metrics: ListenAddress | None = None
    http_tokens: str | None = None
    http_token: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    sasl: str | None = None
    password: str | None = field(default=None, repr=False)
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
                values[name] = _parse(setting, source, text)
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
        """Where the log is: a file, `:memory:`, or the address of a cluster."""
        return self.broker.removeprefix(SQLITE)

    @property
    def task_path(self) -> str:
        """What the files beside the log begin with that each task has for itself.

        >>> Settings(broker="sqlite:shop.sqlite", task="purchase").task_path
        'shop.sqlite.purchase'
        """
        task = self.task_of(None)
        return self.path if task is None else f"{self.path}{SEPARATOR}{task}"

    @property
    def on_kafka(self) -> bool:
        """Whether the log is on a cluster, rather than in a file or in memory."""
        return self.broker.startswith(KAFKA)

    def task_of(self, pipeline: str | None) -> str | None:
        """The task whose part of the log is meant; None for the pipeline's own.

        Args:
            pipeline: its name as declared, where a declaration is known.
        """
        task = self.task if pipeline is None else task_in(pipeline)
        return None if task == MAIN_TASK else task

    def cluster(self, pipeline: str | None = None) -> Cluster:
        """The pipeline's place on the cluster that is set.

        Args:
            pipeline: its name as declared, where a declaration is known.

        Raises:
            UsageError: no cluster is set, the pipeline's name is not known, or is another than the
                address has, or what is set for TLS and SASL does not fit together.
        """
        address = _CLUSTER.fullmatch(self.broker)
        source = self._setter("broker")
        if address is None:
            raise UsageError(
                f"{source}: expected a cluster, kafka://HOST:PORT, given {self.broker!r}"
            )
        address_name = address["pipeline"]
        declared = None if pipeline is None else pipeline_in(pipeline)
        if address_name is not None and declared is not None and address_name != declared:
            raise UsageError(
                f"{source}: expected the pipeline that is declared, {declared!r}, given "
                f"{address_name!r}; leave the name out of the address"
            )
        name = pipeline or address_name
        if pipeline is None and name is not None and self.task_of(None) is not None:
            name = PipelineName.of(name, self.task)
        if name is None:
            raise UsageError(
                f"{source}: expected to know the pipeline, given {self.broker!r}; name it there, "
                f"as in {self.broker.rstrip('/')}/shop, or its declaration with --pipeline "
                "module:name"
            )
        return Cluster(address["bootstrap"], name, self._security())

    def _security(self) -> Security:
        sasl, password = SETTINGS["sasl"].variable, SETTINGS["password"].variable
        if (self.sasl is None) != (self.password is None):
            present, missing = (sasl, password) if self.password is None else (password, sasl)
            raise UsageError(
                f"{missing}: expected to be set where {present} is, given nothing; set both, or "
                "neither"
            )
        ca_file = None if self.tls_ca == SYSTEM else self.tls_ca
        if ca_file is not None and not Path(ca_file).is_file():
            raise UsageError(
                f"{SETTINGS['tls_ca'].variable}: expected a file with certificates, or `{SYSTEM}`, "
                f"given {ca_file!r}, which is none"
            )
        mechanism, _, user = (self.sasl or "").partition(":")
        return Security(
            self.tls_ca is not None, ca_file, mechanism or None, user or None, self.password
        )

    def _setter(self, name: str) -> str:
        """Who set it, as messages name it: by default there is still a variable that could."""
        source = self.source(name)
        return SETTINGS[name].variable if source == DEFAULT else source

    def signing_key(self, path: str, *, new: bool = True) -> bytes:
        """The key that whoever writes to the log at `path` signs with; made if there is none.

        Args:
            path: of the log.
            new: whether one may be made: with another key than before, nothing on a log counts.

        Raises:
            UsageError: the file beside the log may be read by others, holds no key, or is gone; or
                the log is on a cluster, where there is no such file, and no key is set.
        """
        if self.key is not None:
            return self._rolling(self.key)
        if path.startswith(KAFKA):
            raise UsageError(
                f"{SETTINGS['key'].variable}: expected the key that signs models and decisions on "
                f"{path}, given none; make one with `openssl rand -hex {KEY_BYTES}`, keep it, and "
                "set the same for every worker"
            )
        if path == MEMORY:
            return secrets.token_bytes(KEY_BYTES)
        file = key_file(path)
        if not file.exists():
            if not new:
                raise UsageError(
                    f"{file}: expected the key that the decisions on {path} are signed with, given "
                    f"no such file; put it back, or set {SETTINGS['key'].variable} to it"
                )
            _make_key(file)
        return self._rolling(_read_key(file))

    def _rolling(self, key: bytes) -> bytes:
        """The present key, and the former one beside it where there is one."""
        return key if self.key_before is None else RollingKey(key, former=self.key_before)

    def verifying_key(self, path: str) -> bytes | None:
        """The key that the log at `path` is signed with; None where there is none to be had.

        A file that this user may not read is as none: who only looks needs no secret.

        Raises:
            UsageError: as `signing_key`.
        """
        key = self.key
        if key is None and path != MEMORY and not path.startswith(KAFKA):
            file = key_file(path)
            key = _read_key(file) if os.access(file, os.R_OK) else None
        return None if key is None else self._rolling(key)

    def unverified_reason(self, path: str) -> str:
        """Why signatures on the log at `path` cannot be checked, where there is no key for it."""
        file = key_file(path)
        if self.key is None and not path.startswith(KAFKA) and file.exists():
            return f"signatures were not checked: this user may not read {file}"
        return "signatures were not checked: no key is set, and none lies by the log"

    def operators(self) -> Mapping[str, Operator]:
        """The operators that the keyring holds, by name; none where there is no keyring.

        Raises:
            UsageError: it is not there, others may read it, or it holds something else.
        """
        return {} if self.keyring is None else _read_keyring(Path(self.keyring))

    def commanding_key(self, path: str) -> bytes:
        """The key that signs the operator's commands to the log at `path`.

        Raises:
            UsageError: there is none to be had.
        """
        if self.operator_key is not None:
            return self.operator_key
        variable = SETTINGS["operator_key"].variable
        if self.operator == LOCAL:
            key = self.verifying_key(path)
            if key is None:
                location = path if path.startswith(KAFKA) else key_file(path)
                if isinstance(location, Path) and location.exists():
                    return _read_key(location)  # it says why it cannot be read
                raise UsageError(
                    f"{location}: expected its signing key, given none; set "
                    f"{SETTINGS['key'].variable}, or {SETTINGS['operator'].variable} and {variable}"
                )
            return key
        operator = self.operators().get(self.operator)
        if operator is None:
            raise UsageError(
                f"operator {self.operator}: expected a key of theirs, given none; set {variable}, "
                f"or {SETTINGS['keyring'].variable} to a keyring that holds it"
            )
        return operator.key


def environment_of_others(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a program that is not ours: without our variables, secrets among them.

    >>> environment_of_others({"STREAM_ML_KEY": "0a", "HOME": "/root"})
    {'HOME': '/root'}
    """
    return {name: text for name, text in environ.items() if not name.startswith(PREFIX)}


def takes_colour(*, is_terminal: bool, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream is written to in colours, by the habits of https://no-color.org.

    >>> takes_colour(is_terminal=True, environ={}), takes_colour(is_terminal=False, environ={})
    (True, False)
    >>> takes_colour(is_terminal=True, environ={"NO_COLOR": "1", "FORCE_COLOR": "1"})
    False

    Args:
        is_terminal: whether the stream is one.
        environ: the environment: `NO_COLOR`, then `FORCE_COLOR`, then `TERM` says so.
    """
    if environ.get("NO_COLOR"):
        return False
    forced = environ.get("FORCE_COLOR", "")
    return forced != "0" and (bool(forced) or (is_terminal and environ.get("TERM") != "dumb"))


def tokens_text(path: str) -> str:
    """The text of a file of tokens, which only its owner may read.

    Args:
        path: of the file.

    Raises:
        UsageError: others may as well, or it cannot be read.
    """
    return _read_secret(Path(path), "tokens", "command")


def key_file(path: str) -> Path:
    """Where the key of the log at `path` lies, unless the environment has it.

    >>> key_file("runs/log.sqlite").name
    'log.sqlite.key'
    """
    return Path(f"{path}.key")


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    variables = {name.upper(): setting.variable for name, setting in SETTINGS.items()}
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name in (variable, *variables) or variable.startswith(TEST_PREFIX):
            continue
        near = difflib.get_close_matches(name, variables, n=1)
        hint = (
            f"did you mean {variables[near[0]]}?"
            if near
            else f"there are {', '.join(variables.values())}"
        )
        raise UsageError(f"{variable}: no setting has this name; {hint}")


def _parse(setting: Setting, source: str, text: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError:
        actual = f"{len(text)} characters" if _is_secret(setting, text) else repr(text)
        raise UsageError(f"{source}: expected {setting.expected}, given {actual}") from None


def _is_secret(setting: Setting, text: str) -> bool:
    """Whether a value is not to be repeated: somebody may have put a password in it."""
    if setting.name == "broker":
        return "@" in text
    return setting.name == "sasl" or setting.name in SECRETS


def _make_key(file: Path) -> None:
    # Whole under another name first, so that of two who make it at once both read the same one.
    try:
        with NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.") as temporary:
            temporary.write(f"{secrets.token_hex(KEY_BYTES)}\n")
            temporary.flush()
            os.fchmod(temporary.fileno(), KEY_MODE)
            os.link(temporary.name, file)
    except FileExistsError:
        pass
    except OSError as error:
        raise UsageError(
            f"{file}: expected to write the signing key there: {error.strerror}; make the folder "
            f"writable, or set {SETTINGS['key'].variable}"
        ) from error


def _read_key(file: Path) -> bytes:
    way_out = f"; be a user who may, or set {SETTINGS['key'].variable}"
    text = _read_secret(file, "signing key", "forge models", way_out).strip()
    return bytes(_parse(SETTINGS["key"], str(file), text))


def _read_secret(file: Path, content_kind: str, harm: str, way_out: str = "") -> str:
    """What only its owner may read.

    Raises:
        UsageError: others may as well, or it cannot be read.
    """
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            text = stream.read()
    except OSError as error:
        raise UsageError(
            f"{file}: expected to read the {content_kind}: {error.strerror}{way_out}"
        ) from error
    if mode & ~KEY_MODE:
        raise UsageError(
            f"{file}: expected mode {KEY_MODE:04o}, for whoever reads it can {harm}, given "
            f"{mode:04o}; `chmod 600 {file}`, if nobody else has read it"
        )
    return text


def _read_keyring(file: Path) -> dict[str, Operator]:
    text = _read_secret(file, "keyring", "command")
    try:
        members = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: this is no TOML: {error}") from None
    tables = members.get("operators")
    if set(members) != {"operators"} or not isinstance(tables, dict):
        raise UsageError(
            f"{file}: expected tables [operators.NAME] and nothing else, given "
            f"{', '.join(sorted(members)) or 'nothing'}"
        )
    return {name: _operator(f"{file}: operators.{name}", name, t) for name, t in tables.items()}


def _operator(location: str, name: str, table: object) -> Operator:
    if name == LOCAL:
        raise UsageError(f"{location}: expected another name, for {LOCAL} is the key's own")
    if not isinstance(table, dict) or set(table) != {"key", "role"}:
        actual = ", ".join(sorted(table)) if isinstance(table, dict) else "no table"
        raise UsageError(f"{location}: expected a key and a role, given {actual or 'nothing'}")
    if table["role"] not in ROLES:
        raise UsageError(
            f"{location}.role: expected one of {', '.join(ROLES)}, given {table['role']!r}"
        )
    key = _parse(SETTINGS["operator_key"], f"{location}.key", str(table["key"]))
    return Operator(key, table["role"])
