"""Settings: who wins, what is refused, and the signing key beside a log."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from stream_ml.errors import UsageError
from stream_ml.shell.settings import SETTINGS, Settings
from stream_ml.shell.sqlite_log import MEMORY
from stream_ml.signing import Operator

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ab" * 32


def test_defaults() -> None:
    """With nothing set, there is a log file and no pipeline."""
    settings = Settings.load({}, {})

    assert settings == Settings()
    assert (settings.path, settings.pipeline) == ("stream_ml.sqlite", None)
    assert settings.source("broker") == "default"


def test_an_option_comes_before_the_environment() -> None:
    """The command line wins over the environment, which wins over the default."""
    environ = {
        "STREAM_ML_BROKER": "sqlite:env.sqlite",
        "STREAM_ML_PIPELINE": "shop:fraud",
        "STREAM_ML_CHECKPOINT_SECONDS": "2.5",
    }
    settings = Settings.load({"broker": "sqlite:option.sqlite", "pipeline": None}, environ)

    assert (settings.broker, settings.source("broker")) == ("sqlite:option.sqlite", "--broker")
    assert (settings.pipeline, settings.source("pipeline")) == ("shop:fraud", "STREAM_ML_PIPELINE")
    assert settings.checkpoint_seconds == 2.5
    assert settings.by_option("broker")
    assert not settings.by_option("pipeline")


def test_every_setting_is_a_field() -> None:
    """What is described is what there is."""
    assert [*SETTINGS, "sources"] == list(Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"STREAM_ML_BROKR": "sqlite:a"},
            "STREAM_ML_BROKR: no setting has this name; did you mean STREAM_ML_BROKER?",
        ),
        (
            {"STREAM_ML_X": "1"},
            (
                "STREAM_ML_X: no setting has this name; there are STREAM_ML_BROKER, "
                "STREAM_ML_PIPELINE, STREAM_ML_KEY, STREAM_ML_CHECKPOINT_EXAMPLES, "
                "STREAM_ML_CHECKPOINT_SECONDS, STREAM_ML_KEYRING, STREAM_ML_OPERATOR, "
                "STREAM_ML_OPERATOR_KEY"
            ),
        ),
        (
            {"STREAM_ML_BROKER": "kafka://localhost:9092"},
            (
                "STREAM_ML_BROKER: expected sqlite:PATH, given 'kafka://localhost:9092'; this "
                "version has the embedded log only, which lies in one file"
            ),
        ),
        (
            {"STREAM_ML_BROKER": "log.sqlite"},
            "STREAM_ML_BROKER: expected sqlite:PATH, given 'log.sqlite'",
        ),
        (
            {"STREAM_ML_PIPELINE": "shop"},
            (
                "STREAM_ML_PIPELINE: expected module:name, such as stream_ml.examples.cards:cards, "
                "given 'shop'"
            ),
        ),
        (
            {"STREAM_ML_CHECKPOINT_EXAMPLES": "0"},
            "STREAM_ML_CHECKPOINT_EXAMPLES: expected a whole number from 1, given '0'",
        ),
        (
            {"STREAM_ML_CHECKPOINT_SECONDS": "inf"},
            "STREAM_ML_CHECKPOINT_SECONDS: expected a number above 0, given 'inf'",
        ),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], message: str) -> None:
    """A wrong variable is refused with what was expected, what was given and the way out."""
    with pytest.raises(UsageError) as refused:
        Settings.load({}, environ)

    assert str(refused.value) == message


def test_what_tests_are_told_is_no_setting() -> None:
    """The variables of the project's own tests do not stand in a command's way."""
    assert Settings.load({}, {"STREAM_ML_TEST_BROKER": "x"}) == Settings()


def test_a_wrong_key_is_not_repeated() -> None:
    """The message about a key that is none does not show it."""
    with pytest.raises(UsageError) as refused:
        Settings.load({}, {"STREAM_ML_KEY": "hunter2"})

    assert str(refused.value) == (
        "STREAM_ML_KEY: expected 64 hexadecimal digits, as `openssl rand -hex 32` prints, "
        "given 7 characters"
    )


def test_the_key_is_not_shown() -> None:
    """Printing the settings does not print the key."""
    settings = Settings.load({}, {"STREAM_ML_KEY": KEY})

    assert settings.key == bytes.fromhex(KEY)
    assert KEY not in repr(settings)
    assert repr(settings.key) not in repr(settings)


def test_a_key_is_made_on_first_use(tmp_path: Path) -> None:
    """A log in a file gets a key of its own, which only its owner may read and which stays."""
    path = str(tmp_path / "log.sqlite")
    settings = Settings()

    assert settings.verifying_key(path) is None
    key = settings.signing_key(path)

    assert len(key) == 32
    assert settings.signing_key(path) == settings.verifying_key(path) == key
    file = tmp_path / "log.sqlite.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert bytes.fromhex(file.read_text()) == key
    assert [each.name for each in tmp_path.iterdir()] == ["log.sqlite.key"]


def test_the_environments_key_goes_before_the_files(tmp_path: Path) -> None:
    """Where the environment has a key, none is made or read."""
    path = str(tmp_path / "log.sqlite")
    settings = Settings.load({}, {"STREAM_ML_KEY": KEY})

    assert settings.signing_key(path) == settings.verifying_key(path) == bytes.fromhex(KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_log_in_memory_has_a_key_of_the_moment() -> None:
    """What nobody can come back to is signed with a key that nobody keeps."""
    settings = Settings()

    assert settings.signing_key(MEMORY) != settings.signing_key(MEMORY)
    assert settings.verifying_key(MEMORY) is None


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Whoever can read the key can forge models, so such a key is not used."""
    path = tmp_path / "log.sqlite"
    Settings().signing_key(str(path))
    file = tmp_path / "log.sqlite.key"
    file.chmod(0o640)

    with pytest.raises(UsageError) as refused:
        Settings().verifying_key(str(path))

    assert str(refused.value) == (
        f"{file}: expected mode 0600, for whoever reads it can forge models, given 0640; "
        f"`chmod 600 {file}`, if nobody else has read it"
    )


def test_a_key_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    """A damaged key is not quietly replaced: what was signed with it would be lost."""
    file = tmp_path / "log.sqlite.key"
    file.write_text("not a key")
    file.chmod(0o600)

    with pytest.raises(UsageError) as refused:
        Settings().signing_key(str(tmp_path / "log.sqlite"))

    assert str(refused.value) == (
        f"{file}: expected 64 hexadecimal digits, as `openssl rand -hex 32` prints, "
        "given 9 characters"
    )


def test_a_key_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Where no file can be made beside the log, the message says what else to do."""
    path = tmp_path / "nowhere" / "log.sqlite"

    with pytest.raises(UsageError) as refused:
        Settings().signing_key(str(path))

    assert str(refused.value) == (
        f"{path}.key: expected to write the signing key there: No such file or directory; make "
        "the folder writable, or set STREAM_ML_KEY"
    )


# --- operators ----------------------------------------------------------------------------------


def _keyring(path: Path, text: str, mode: int = 0o600) -> Settings:
    path.write_text(text)
    path.chmod(mode)
    return Settings.load({}, {"STREAM_ML_KEYRING": str(path), "STREAM_ML_OPERATOR": "ana"})


ANA = f'[operators.ana]\nkey = "{KEY}"\nrole = "operator"\n'


def test_a_keyring(tmp_path: Path) -> None:
    """Operators have a key and a role; who is named signs with theirs, and no key is shown."""
    settings = _keyring(tmp_path / "ring.toml", ANA)

    assert settings.operators() == {"ana": Operator(bytes.fromhex(KEY), "operator")}
    assert settings.commanding_key("log.sqlite") == bytes.fromhex(KEY)
    assert KEY not in repr(settings.operators())
    assert Settings().operators() == {}


def test_an_operators_own_key_needs_no_keyring() -> None:
    """An operator who has only their own key signs with it."""
    environ = {"STREAM_ML_OPERATOR": "ana", "STREAM_ML_OPERATOR_KEY": KEY}
    settings = Settings.load({}, environ)

    assert settings.commanding_key("log.sqlite") == bytes.fromhex(KEY)
    assert KEY not in repr(settings)


def test_the_logs_own_key_commands_too(tmp_path: Path) -> None:
    """Who has the key of the log, and names no operator, signs with it."""
    path = str(tmp_path / "log.sqlite")

    own = Settings().signing_key(path)

    assert own == Settings().commanding_key(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml", ": expected TOML: "),
        ("", ": expected tables [operators.NAME] and nothing else, given nothing"),
        (
            "x = 1\n" + ANA,
            ": expected tables [operators.NAME] and nothing else, given operators, x",
        ),
        (
            ANA.replace('operator"', 'boss"'),
            ": operators.ana.role: expected one of operator, guard, observer, given 'boss'",
        ),
        (
            ANA.replace(KEY, "hunter2"),
            (
                ": operators.ana.key: expected 64 hexadecimal digits, as `openssl rand -hex 32` "
                "prints, given 7 characters"
            ),
        ),
        ("[operators.ana]\nkey = 'x'", ": operators.ana: expected a key and a role, given key"),
        ("[operators]\nana = 1", ": operators.ana: expected a key and a role, given no table"),
        (
            ANA.replace("ana", "local"),
            ": operators.local: expected another name, for local is the key's own",
        ),
    ],
    ids=["toml", "nothing", "more", "role", "key", "no-role", "no-table", "local"],
)
def test_a_keyring_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong with a keyring is named, and no key of it is repeated."""
    path = tmp_path / "ring.toml"

    with pytest.raises(UsageError) as refused:
        _keyring(path, text).operators()

    assert str(refused.value).startswith(f"{path}{message}")


def test_a_keyring_that_others_can_read(tmp_path: Path) -> None:
    """Whoever reads a keyring can command in another's name, so it is not used."""
    path = tmp_path / "ring.toml"
    settings = _keyring(path, ANA, mode=0o644)

    with pytest.raises(UsageError) as refused:
        settings.operators()

    assert str(refused.value) == (
        f"{path}: expected mode 0600, for whoever reads it can command, given 0644; "
        f"`chmod 600 {path}`, if nobody else has read it"
    )


def test_a_keyring_that_is_not_there(tmp_path: Path) -> None:
    """A keyring that is named has to be there: without it nobody's command would be obeyed."""
    path = tmp_path / "absent.toml"
    settings = Settings.load({}, {"STREAM_ML_KEYRING": str(path)})

    with pytest.raises(UsageError) as refused:
        settings.operators()

    assert str(refused.value) == (
        f"{path}: expected to read the keyring: No such file or directory"
    )


def test_an_operator_without_a_key(tmp_path: Path) -> None:
    """An operator whom the keyring does not hold is told what to set."""
    settings = _keyring(tmp_path / "ring.toml", ANA.replace("ana", "bo"))

    with pytest.raises(UsageError) as refused:
        settings.commanding_key("log.sqlite")

    assert str(refused.value) == (
        "operator ana: expected a key of theirs, given none; set STREAM_ML_OPERATOR_KEY, or "
        "STREAM_ML_KEYRING to a keyring that holds it"
    )
