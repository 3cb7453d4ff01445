"""Settings: who wins, what is refused, and the signing key beside a log."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from stream_ml.errors import UsageError
from stream_ml.shell.kafka.cluster import Cluster, Security
from stream_ml.shell.log.sqlite import MEMORY
from stream_ml.shell.settings.settings import SETTINGS, Settings
from stream_ml.signing import Operator

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ab" * 32
BROKER = "STREAM_ML_BROKER: expected sqlite:PATH or kafka://HOST:PORT[,HOST:PORT][/PIPELINE]"


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
                "STREAM_ML_PIPELINE, STREAM_ML_TASK, STREAM_ML_KEY, STREAM_ML_CHECKPOINT_EXAMPLES, "
                "STREAM_ML_CHECKPOINT_SECONDS, STREAM_ML_COMMIT_SECONDS, "
                "STREAM_ML_LEARN_BUDGET_SECONDS, STREAM_ML_ISOLATED_LINES, "
                "STREAM_ML_LINE_MEMORY_MB, "
                "STREAM_ML_TRAINING_SECONDS, STREAM_ML_TRAINING_MEMORY_MB, "
                "STREAM_ML_RESTART_LINES, STREAM_ML_COMMAND_AGE_SECONDS, STREAM_ML_KEYRING, "
                "STREAM_ML_OPERATOR, STREAM_ML_OPERATOR_KEY, STREAM_ML_KEY_BEFORE, "
                "STREAM_ML_ACCEPT_UNSEALED, STREAM_ML_ACCEPT_TOPICS, "
                "STREAM_ML_ALERT_WEBHOOKS, STREAM_ML_METRICS, STREAM_ML_HTTP_TOKENS, "
                "STREAM_ML_HTTP_TOKEN, STREAM_ML_TLS_CA, "
                "STREAM_ML_SASL, STREAM_ML_PASSWORD"
            ),
        ),
        ({"STREAM_ML_BROKER": "kafka://localhost"}, f"{BROKER}, given 'kafka://localhost'"),
        ({"STREAM_ML_BROKER": "kafka://"}, f"{BROKER}, given 'kafka://'"),
        ({"STREAM_ML_BROKER": "kafka://h:9092/a/b"}, f"{BROKER}, given 'kafka://h:9092/a/b'"),
        ({"STREAM_ML_BROKER": "kafka://h:1,/a"}, f"{BROKER}, given 'kafka://h:1,/a'"),
        ({"STREAM_ML_BROKER": "kafka://ana:hunter2@h:9092"}, f"{BROKER}, given 26 characters"),
        ({"STREAM_ML_BROKER": "log.sqlite"}, f"{BROKER}, given 'log.sqlite'"),
        (
            {"STREAM_ML_SASL": "ana:hunter2"},
            (
                "STREAM_ML_SASL: expected MECHANISM:USER, of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; "
                "PLAIN wants TLS, or all can read it, given 11 characters"
            ),
        ),
        (
            {"STREAM_ML_COMMIT_SECONDS": "0"},
            "STREAM_ML_COMMIT_SECONDS: expected a number above 0, given '0'",
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


# --- a cluster ---------------------------------------------------------------------------------


def on_kafka(broker: str, **environ: str) -> Settings:
    """The settings of who works with a cluster."""
    return Settings.load({"broker": broker}, environ)


@pytest.mark.parametrize(
    ("broker", "declared", "bootstrap", "pipeline"),
    [
        ("kafka://10.0.0.1:9092", "shop", "10.0.0.1:9092", "shop"),
        ("kafka://10.0.0.1:9092/", "shop", "10.0.0.1:9092", "shop"),
        ("kafka://a:1,b-c.example:2/shop", None, "a:1,b-c.example:2", "shop"),
        ("kafka://[::1]:9092/shop-2_b", "shop-2_b", "[::1]:9092", "shop-2_b"),
    ],
)
def test_a_cluster(broker: str, declared: str | None, bootstrap: str, pipeline: str) -> None:
    """The address of a cluster says where it is, and may say whose topics are meant."""
    settings = on_kafka(broker)

    assert settings.on_kafka
    assert settings.path == broker
    assert settings.cluster(declared) == Cluster(bootstrap, pipeline)


def test_a_file_is_no_cluster() -> None:
    """What works on a cluster only says so where the log lies in a file."""
    settings = Settings()

    assert not settings.on_kafka
    with pytest.raises(UsageError) as refused:
        settings.cluster("shop")
    assert str(refused.value) == (
        "STREAM_ML_BROKER: expected a cluster, kafka://HOST:PORT, given 'sqlite:stream_ml.sqlite'"
    )


def test_a_pipeline_on_a_cluster_has_to_be_known() -> None:
    """Without a name no topic can be found, and two names are one too many."""
    with pytest.raises(UsageError) as unknown:
        on_kafka("kafka://h:9092/").cluster()
    with pytest.raises(UsageError) as another:
        on_kafka("kafka://h:9092/shop").cluster("shops")

    assert str(unknown.value) == (
        "--broker: expected to know the pipeline, given 'kafka://h:9092/'; name it there, as in "
        "kafka://h:9092/shop, or its declaration with --pipeline module:name"
    )
    assert str(another.value) == (
        "--broker: expected the pipeline that is declared, 'shops', given 'shop'; leave the name "
        "out of the address"
    )


def test_how_to_connect(tmp_path: Path) -> None:
    """TLS with a file or the system's certificates, SASL with a password that is never shown."""
    ca_file = tmp_path / "ca.pem"
    ca_file.touch()
    given = {"STREAM_ML_SASL": "SCRAM-SHA-512:ana:b", "STREAM_ML_PASSWORD": "hunter2"}
    settings = on_kafka("kafka://h:9092/shop", STREAM_ML_TLS_CA=str(ca_file), **given)
    system = on_kafka("kafka://h:9092/shop", STREAM_ML_TLS_CA="system")

    security = settings.cluster().security
    assert security == Security(True, str(ca_file), "SCRAM-SHA-512", "ana:b", "hunter2")
    assert system.cluster().security == Security(tls=True)
    assert "hunter2" not in repr(settings) + repr(security)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"STREAM_ML_SASL": "PLAIN:ana"},
            (
                "STREAM_ML_PASSWORD: expected to be set where STREAM_ML_SASL is, given nothing; "
                "set both, or neither"
            ),
        ),
        (
            {"STREAM_ML_PASSWORD": "hunter2"},
            (
                "STREAM_ML_SASL: expected to be set where STREAM_ML_PASSWORD is, given nothing; "
                "set both, or neither"
            ),
        ),
        (
            {"STREAM_ML_TLS_CA": "nowhere.pem"},
            (
                "STREAM_ML_TLS_CA: expected a file with certificates, or `system`, given "
                "'nowhere.pem', which is none"
            ),
        ),
    ],
    ids=["no-password", "no-user", "no-certificates"],
)
def test_how_not_to_connect(environ: dict[str, str], message: str) -> None:
    """What does not fit together is refused before anybody connects."""
    with pytest.raises(UsageError) as refused:
        on_kafka("kafka://h:9092/shop", **environ).cluster()

    assert str(refused.value) == message


def test_the_key_of_a_cluster_is_set_or_there_is_none() -> None:
    """Who signs on a cluster is told how to make a key; who reads goes without."""
    bare = on_kafka("kafka://h:9092/shop")
    keyed = on_kafka("kafka://h:9092/shop", STREAM_ML_KEY=KEY)

    with pytest.raises(UsageError) as refused:
        bare.signing_key(bare.path)
    with pytest.raises(UsageError) as commanding:
        bare.commanding_key(bare.path)
    assert str(refused.value) == (
        "STREAM_ML_KEY: expected the key that signs models and decisions on kafka://h:9092/shop, "
        "given none; make one with `openssl rand -hex 32`, keep it, and set the same for every "
        "worker"
    )
    assert str(commanding.value) == (
        "kafka://h:9092/shop: expected its signing key, given none; set STREAM_ML_KEY, or "
        "STREAM_ML_OPERATOR and STREAM_ML_OPERATOR_KEY"
    )
    assert bare.verifying_key(bare.path) is None
    assert keyed.signing_key(keyed.path) == keyed.verifying_key(keyed.path) == keyed.key


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
        ("not toml", ": this is no TOML: "),
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
