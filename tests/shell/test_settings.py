"""Settings: who wins, what is refused, and the signing key beside a log."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from stream_ml.errors import UsageError
from stream_ml.shell.settings import SETTINGS, Settings
from stream_ml.shell.sqlite_log import MEMORY

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
