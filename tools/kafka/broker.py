"""A single-node Apache Kafka on this machine, from its jars: no Docker, only Java and Maven.

    python -m tools.kafka.broker start     # or stop, or status; `make kafka` calls these

Theory of operation. The server is what Apache publishes on Maven Central; `pom.xml` beside this
file pins it, Maven fetches it once into `.kafka/jars-*`. `Broker` formats a folder for it (KRaft:
no ZooKeeper), starts it on loopback, and knows that it is ready when its log says so and its port
answers. Everything waits a bounded time, and an error names the log to read.

A broker of a test dies with the test, however that dies: a guard holds the reading end of a pipe
whose writing end is ours alone, and kills the broker when the pipe ends. Only `start` above leaves
one running, and writes down its process id, so that `stop` finds it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = [
    "PROPERTIES",
    "VERSION",
    "Broker",
    "BrokerError",
    "answers",
    "free_ports",
    "jars",
    "missing",
]

VERSION = "4.1.1"
HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
HOME = ROOT / ".kafka"
POM = Path(__file__).with_name("pom.xml")

FETCH_S_MAX = 600
START_S_MAX = 90
STOP_S_MAX = 30
FORMAT_S_MAX = 60
POLL_S = 0.05
# Below where systems take the ports of outgoing connections from: nobody gets them while we are
# down between a kill and a restart.
PORTS = range(20_000, 32_000)
READY = "Kafka Server started"
# For a server that is to be there soon, carries little and ends soon: what is compiled is compiled
# once, and memory is swept by one thread. A minute takes a third less CPU.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

# For a machine with little else to do: few partitions of Kafka's own topics, groups that form at
# once, and no topic by a slip of the pen.
PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    # A broker that was killed is let in again when its last session has run out: 9 s by default.
    "broker.heartbeat.interval.ms": "1000",
    "broker.session.timeout.ms": "5000",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # An abandoned transaction is looked for so often; 10 s is the default.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # 128 MiB by default, of a heap of 512.
    "log.cleaner.dedupe.buffer.size": "16777216",
}


class BrokerError(Exception):
    """Raised when a broker cannot be fetched, started or stopped; says why, or which log does."""


# --- what it is made of -----------------------------------------------------------------------


def missing(home: Path = HOME) -> list[str]:
    """The commands that are needed and not there; once the jars are, Maven is not needed."""
    commands = ["java"] if _folder(home).is_dir() else ["java", "mvn"]
    return [command for command in commands if shutil.which(command) is None]


def _folder(home: Path) -> Path:
    return home / f"jars-{VERSION}"


def jars(home: Path = HOME) -> Path:
    """The folder with Kafka's jars, fetched if they are not there.

    Raises:
        BrokerError: Java or Maven is missing, or the jars cannot be fetched.
    """
    folder = _folder(home)
    lacking = missing(home)
    if lacking:
        raise BrokerError(
            "expected the commands java (17 or newer) and mvn, given no "
            f"{' and no '.join(lacking)}; install a JDK and Apache Maven"
        )
    if folder.is_dir():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, should two come at once, or one be interrupted.
    with tempfile.TemporaryDirectory(dir=home) as temporary:
        target = Path(temporary) / "jars"
        log = home / "maven.log"
        command = ["mvn", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies"]
        code = _run([*command, f"-DoutputDirectory={target}"], log, FETCH_S_MAX)
        if code != 0:
            raise BrokerError(
                f"Maven could not fetch Apache Kafka {VERSION}; see {log}, and whether Maven "
                "Central can be reached from here"
            )
        with suppress(FileExistsError, OSError):
            target.rename(folder)
    if not folder.is_dir():
        raise BrokerError(f"expected the jars in {folder}, given nothing; see {log}")
    return folder


def _run(command: Sequence[str], log: Path, seconds_max: float) -> int | None:
    """The exit code of a command that logs to `log`; None if it took too long."""
    with log.open("ab") as stream:
        try:
            process = subprocess.run(  # noqa: S603 - our own words
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=seconds_max,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    return process.returncode


def free_ports(count: int) -> list[int]:
    """Ports of loopback where nobody listens, and where no outgoing connection begins."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with closing(socket.socket()) as candidate, suppress(OSError):
            candidate.bind((HOST, port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise BrokerError(f"expected a free port from {PORTS.start} to {PORTS.stop}, given none")


# --- the broker -------------------------------------------------------------------------------


class Broker:
    """A broker with data and ports of its own, which outlive its process but not its folder.

    As a context manager it is started, and stopped at the end.

    Args:
        home: where its data, settings and log lie; made if there is none.
        port: where clients connect; a free one by default.
        properties: settings of the server beside, or instead of, those here.
        protocol: how clients connect: PLAINTEXT, SASL_SSL and so on.
        format_arguments: what the storage is formatted with beside, such as `--add-scram`.
        heap: how much memory the server gets, as Java says it.
        java_options: of Java's beside, such as `QUICK_START`.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        protocol: str = "PLAINTEXT",
        format_arguments: Sequence[str] = (),
        heap: str = "512m",
        java_options: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.log = home / "kafka.log"
        client, controller, internal = free_ports(3)
        self.port = client if port is None else port
        self._ports = {"CLIENT": self.port, "CONTROLLER": controller}
        if protocol != "PLAINTEXT":  # the broker talks to itself without asking who it is
            self._ports["INTERNAL"] = internal
        self._properties = {**self._listeners(protocol), **(properties or {})}
        self._format_arguments = tuple(format_arguments)
        self._java_options = (f"-Xmx{heap}", *java_options)
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        running = self._server is not None and self._server.poll() is None
        return self._server.pid if self._server is not None and running else None

    def start(self, *, has_guard: bool = True) -> None:
        """Start it and wait until it is ready.

        Args:
            has_guard: whether it dies with this process.

        Raises:
            BrokerError: it runs already, ended at once, or was not ready in time.
        """
        if self.pid is not None:
            raise BrokerError(f"expected a broker that does not run, given process {self.pid}")
        folder = jars()
        self.home.mkdir(parents=True, exist_ok=True)
        self._format(folder)
        # What an earlier start said does not count.
        log_bytes = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as stream:
            self._server = subprocess.Popen(  # noqa: S603 - our own words
                [*self._java(folder), "kafka.Kafka", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # A Ctrl-C is for whoever started us; the broker is stopped in its turn.
                start_new_session=True,
            )
        if has_guard:
            self._guard = _guard(self._server.pid)
        try:
            self._wait(log_bytes)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it in good order; harmless where it does not run."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._server.kill()
        self._bury()

    def kill(self) -> None:
        """End it at once, as `kill -9` does; what it wrote stays."""
        if self._server is not None:
            self._server.kill()
        self._bury()

    def restart(self) -> None:
        """Start it again on the same data and ports; stops it before if it runs."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _bury(self) -> None:
        if self._server is not None:
            self._server.wait(STOP_S_MAX)
            self._server = None
        if self._guard is not None:
            # The server has been waited for: its number may be another's by now.
            self._guard.kill()
            self._guard.wait(STOP_S_MAX)
            assert self._guard.stdin is not None, "a guard reads from us"
            self._guard.stdin.close()
            self._guard = None

    @property
    def _file(self) -> Path:
        return self.home / "server.properties"

    def _listeners(self, protocol: str) -> dict[str, str]:
        listeners = {name: f"{name}://{HOST}:{port}" for name, port in self._ports.items()}
        protocols = {"CLIENT": protocol, "CONTROLLER": "PLAINTEXT", "INTERNAL": "PLAINTEXT"}
        return {
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(
                listener for name, listener in listeners.items() if name != "CONTROLLER"
            ),
            "listener.security.protocol.map": ",".join(f"{n}:{protocols[n]}" for n in listeners),
            "inter.broker.listener.name": "INTERNAL" if "INTERNAL" in listeners else "CLIENT",
            "controller.quorum.voters": f"1@{HOST}:{self._ports['CONTROLLER']}",
        }

    def _format(self, folder: Path) -> None:
        data = self.home / "data"
        values = {**PROPERTIES, **self._properties, "log.dirs": str(data)}
        self._file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        if (data / "meta.properties").exists():
            return
        identity = ["--cluster-id", str(uuid.uuid4()), "--config", str(self._file)]
        command = [*self._java(folder), "kafka.tools.StorageTool", "format", *identity]
        if _run([*command, *self._format_arguments], self.log, FORMAT_S_MAX) != 0:
            raise BrokerError(
                f"the broker's folder {self.home} could not be formatted; see {self.log}"
            )

    def _java(self, folder: Path) -> list[str]:
        return ["java", *self._java_options, "-cp", f"{folder}/*"]

    def _wait(self, log_bytes: int) -> None:
        assert self._server is not None, "what is waited for was started"
        deadline_s = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline_s:
            code = self._server.poll()
            if code is not None:
                raise BrokerError(f"the broker ended at once, with code {code}; see {self.log}")
            if self._ready(log_bytes):
                return
            time.sleep(POLL_S)
        raise BrokerError(f"the broker was not ready within {START_S_MAX} s; see {self.log}")

    def _ready(self, log_bytes: int) -> bool:
        with self.log.open("rb") as log:
            log.seek(log_bytes)
            if READY.encode() not in log.read():
                return False
        return answers(self.address)


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _guard(pid: int) -> subprocess.Popen[bytes]:
    # `read` returns when the last writing end is closed: when we are gone, in whatever way.
    return subprocess.Popen(  # noqa: S603 - our own words
        ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(pid)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


# --- the command ------------------------------------------------------------------------------


def _running(home: Path) -> int | None:
    """The process that `start` has left; None if there is none any more."""
    with suppress(OSError, ValueError):
        pid = int((home / "pid").read_text())
        command = subprocess.run(  # noqa: S603 - our own words
            ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - where `ps` is varies
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if str(home / "server.properties") in command:
            return pid
    return None


def _start(home: Path, port: int) -> None:
    if _running(home) is not None:
        address = (home / "address").read_text()
        print(f"Apache Kafka {VERSION} already runs at {address}; `make kafka-stop` stops it")
        return
    address = f"{HOST}:{port}"
    if answers(address):
        raise BrokerError(
            f"expected port {port} to be free, given another server there; choose one by PORT="
        )
    if not _folder(HOME).is_dir():
        print(f"fetching Apache Kafka {VERSION} from Maven Central (43 MB, once)", flush=True)
    broker = Broker(home, port=port)
    broker.start(has_guard=False)
    (home / "address").write_text(address)
    (home / "pid").write_text(str(broker.pid))
    print(
        f"Apache Kafka {VERSION} runs at {address}: --broker kafka://{address}/PIPELINE\n"
        f"its data and log lie in {home}; `make kafka-stop` stops it"
    )


def _stop(home: Path) -> None:
    pid = _running(home)
    if pid is None:
        print("no Apache Kafka of ours runs")
        return
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_S_MAX
    while _running(home) is not None:
        if time.monotonic() > deadline_s:
            raise BrokerError(f"process {pid} did not stop within {STOP_S_MAX} s; see {home}")
        time.sleep(POLL_S)
    (home / "pid").unlink(missing_ok=True)
    print(f"stopped; its data stay in {home}")


def main() -> int:
    """Start, stop, or look for, a broker that stays."""
    parser = argparse.ArgumentParser(description="A single-node Apache Kafka on loopback.")
    parser.add_argument("what", choices=("start", "stop", "status"))
    parser.add_argument("--port", type=int, default=9092, help="where clients connect (9092)")
    parser.add_argument("--home", type=Path, default=HOME / "broker", help="its data and its log")
    arguments = parser.parse_args()
    home = arguments.home.absolute()
    try:
        if arguments.what == "start":
            _start(home, arguments.port)
        elif arguments.what == "stop":
            _stop(home)
        else:
            pid = _running(home)
            print("does not run" if pid is None else f"runs as process {pid}")
    except BrokerError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
