"""The loop over connections that are encrypted, to brokers that ask who one is."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_ml.errors import LogError, UsageError
from stream_ml.examples.cards import transactions
from stream_ml.shell.kafka import admin as admin_module
from stream_ml.shell.kafka.admin import Plan, apply, plan
from stream_ml.shell.kafka.cluster import Cluster, Security
from stream_ml.shell.kafka.security import async_options, client_options
from tests.kafka_broker import a_name
from tests.shell.processes import Ended, Terminal
from tools.kafka.broker import HOST, QUICK_START, Broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "not-a-secret-of-anybody"  # noqa: S105 - of a broker that lives as long as the test
JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker that lets in who has a password, over TLS; and whose certificates vouch for it."""

    broker: Broker
    ca_file: Path
    others_ca_file: Path

    def security(self, mechanism: str = "SCRAM-SHA-512", username: str = "ana") -> Security:
        """What lets us in."""
        return Security(True, str(self.ca_file), mechanism, username, SECRET)

    def cluster(self, security: Security) -> Cluster:
        """A place of one's own there."""
        return Cluster(self.broker.address, a_name("secured"), security)


def keytool(folder: Path, *arguments: str) -> None:
    """Run the JDK's own tool; wherever a broker runs from its jars, it is."""
    command = ["keytool", *arguments, "-storepass", SECRET, "-storetype", "PKCS12"]
    subprocess.run(  # noqa: S603 - our own words
        command, cwd=folder, check=True, capture_output=True, timeout=60
    )


KEY = ("-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2")
CA = ("-keystore", "ca.p12", "-alias", "ca")
BROKER = ("-keystore", "broker.p12", "-alias", "broker")


def found_authority(folder: Path) -> None:
    """Make one that vouches for brokers; ca.pem is for those who believe it."""
    extensions = ("-ext", "bc:critical=ca:true", "-ext", "ku:critical=keyCertSign")
    keytool(folder, *KEY, *CA, "-dname", "CN=authority of a test", *extensions)
    keytool(folder, "-exportcert", "-rfc", *CA, "-file", "ca.pem")


def vouch(folder: Path) -> None:
    """Make a broker's key in broker.p12, which the authority vouches for."""
    keytool(folder, *KEY, *BROKER, "-dname", "CN=broker")
    keytool(folder, "-certreq", *BROKER, "-file", "request.pem")
    signed = ("-infile", "request.pem", "-outfile", "broker.pem", "-ext", f"SAN=ip:{HOST}")
    keytool(folder, "-gencert", "-rfc", "-validity", "2", *CA, *signed)
    trusted = ("-keystore", "broker.p12", "-alias", "ca", "-file", "ca.pem")
    keytool(folder, "-importcert", "-noprompt", *trusted)
    keytool(folder, "-importcert", "-noprompt", *BROKER, "-file", "broker.pem")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with one listener, SASL_SSL, on which ana has a SCRAM password and bob a plain."""
    ours, others = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("others")
    found_authority(ours)
    vouch(ours)
    found_authority(others)
    properties = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.client.scram-sha-512.sasl.jaas.config": (
            f"{JAAS}.scram.ScramLoginModule required;"
        ),
        "listener.name.client.plain.sasl.jaas.config": (
            f'{JAAS}.plain.PlainLoginModule required user_bob="{SECRET}";'
        ),
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(ours / "broker.p12"),
        "ssl.keystore.password": SECRET,
        "ssl.key.password": SECRET,
    }
    credential = ("--add-scram", f"SCRAM-SHA-512=[name=ana,password={SECRET}]")
    with Broker(
        tmp_path_factory.mktemp("broker"),
        protocol="SASL_SSL",
        properties=properties,
        format_arguments=credential,
        java_options=QUICK_START,
    ) as broker:
        yield Secured(broker, ours / "ca.pem", others / "ca.pem")


async def sent_and_read(cluster: Cluster) -> list[bytes | None]:
    """What an aiokafka producer writes to `commands`, read by an aiokafka consumer."""
    options = {"bootstrap_servers": cluster.bootstrap, **async_options(cluster.security)}
    topic = cluster.topic("commands")
    async with AIOKafkaProducer(**options, acks="all") as producer:
        await producer.send_and_wait(topic, b"over TLS")
    async with AIOKafkaConsumer(topic, **options, auto_offset_reset="earliest") as consumer:
        async with asyncio.timeout(30):
            found = await consumer.getone()
    return [found.value]


@pytest.mark.parametrize(("mechanism", "username"), [("SCRAM-SHA-512", "ana"), ("PLAIN", "bob")])
def test_both_clients_are_let_in(secured: Secured, mechanism: str, username: str) -> None:
    """kafka-python makes the topics, aiokafka writes and reads, each over TLS with a password."""
    cluster = secured.cluster(secured.security(mechanism, username))
    apply(cluster)

    assert asyncio.run(sent_and_read(cluster)) == [b"over TLS"]
    assert plan(cluster) == Plan()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("password", "STREAM_ML_PASSWORD"),
        ("user", "STREAM_ML_SASL"),
        ("authority", "certificate verify failed: self-signed certificate in certificate chain"),
        ("no password", "STREAM_ML_SASL"),
        ("no TLS", "STREAM_ML_TLS_CA"),
    ],
)
def test_whoever_is_not_what_they_say_is_not_let_in(
    secured: Secured, wrong: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password, an unknown user, a broker that nobody we trust vouches for: no way in."""
    monkeypatch.setattr(admin_module, "CONNECT_MS", 3_000)
    right = secured.security()
    security = {
        "password": replace(right, password="guessed"),  # noqa: S106 - the mistake on trial
        "user": replace(right, username="eve"),
        "authority": replace(right, ca_file=str(secured.others_ca_file)),
        "no password": replace(right, mechanism=None),
        "no TLS": replace(right, tls=False),
    }[wrong]

    with warnings.catch_warnings():
        # The client forgets to close sockets that it was refused on.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(
            LogError, match=f"lets us in by {security.protocol}, given no answer.*{said}"
        ):
            plan(secured.cluster(security))
        gc.collect()


def jsonl(records: list[dict[str, Any]]) -> bytes:
    """Lines to publish."""
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def test_the_whole_loop_runs_over_tls_with_scram(secured: Secured, tmp_path: Path) -> None:
    """Topics, workers of every stage, publishers and readers: settings are all that it takes."""
    variables = {
        "STREAM_ML_BROKER": f"kafka://{secured.broker.address}",
        "STREAM_ML_PIPELINE": "stream_ml.examples.cards:cards",
        "STREAM_ML_KEY": "5a" * 32,
        "STREAM_ML_TLS_CA": str(secured.ca_file),
        "STREAM_ML_SASL": "SCRAM-SHA-512:ana",
        "STREAM_ML_PASSWORD": SECRET,
    }

    def terminal(*arguments: str) -> Terminal:
        return Terminal(*arguments, folder=tmp_path, **variables)

    def run(*arguments: str, given: bytes = b"") -> Ended:
        with terminal(*arguments) as command:
            if given:
                command.write(given)
            return command.ended()

    # The learners publish after 500 examples; labels are known 1,000 events later.
    events, labels = transactions(1_700, seed=1)
    applied = run("topics", "apply", "--partitions", "2")
    assert (applied.code, applied.err) == (0, "")
    with terminal("up", "--predict", "2") as workers:
        assert run("publish", "events", "-", given=jsonl(events)).code == 0
        assert run("publish", "labels", "-", given=jsonl(labels)).code == 0
        follow = ("predictions", "--follow", "--from", "beginning", "--format", "json")
        with terminal(*follow) as reader:
            told = [orjson.loads(reader.line())["event_id"] for _ in events]
        workers.line_with("model logistic@500")
        assert workers.stopped().code == 0

    assert sorted(told) == sorted(event["event_id"] for event in events)
    assert run("audit", "verify").code == 0


@pytest.mark.parametrize(("file", "why"), [("absent.pem", "No such file"), ("empty.pem", "")])
def test_a_ca_file_that_is_none_is_told(tmp_path: Path, file: str, why: str) -> None:
    """The file is named, and what it should hold."""
    (tmp_path / "empty.pem").write_text("")
    path = str(tmp_path / file)

    for options in (client_options, async_options):
        with pytest.raises(UsageError, match=f"{path}: expected the certificates, in PEM.*{why}"):
            options(Security(tls=True, ca_file=path))
