"""A run: a broker, workers, traffic, faults as planned, and the judgement of what came out."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import parameters, topics
from chaos.fleet import Child, Fleet
from chaos.forger import CHANGELOGS, SEALED_TOPICS, SIGNED_TOPICS
from chaos.judge import Verdict, judge
from tools.kafka.broker import QUICK_START, Broker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.fleet import Worker
    from chaos.schedule import Fault

__all__ = ["Run", "Story", "figures", "flat", "run"]

READY_S = 90.0
SETTLE_S = 120.0
TICK_S = 0.1
PROGRESS_S = 5.0
PUBLISH_EXTRA_S = 150.0
# It has to hand over all that it has sent, to a broker that may have just come back.
FORGER_STOP_S = 150.0
LINE_MAX = 160
# A worker that lives for less is still working off what lay there when it started.
MEMORY_LIFE_S = 40.0
GROWTH_MAX = 1.15
GROWTH_SPARE_MB = 12.0


@dataclass(frozen=True)
class Run:
    """What is to happen.

    Attributes:
        seed: of the traffic.
        faults: what befalls the workers.
        seconds, rate: how long events come, and how many a second.
        partitions: of the topics that scale.
        predict: how many workers predict at first.
        plant: a bug of `chaos.planted_bugs` that every worker has.
        forgeries: how many times a second a client without the key puts something on topics that
            only stages should write; never by default.
        shops: how many keys the events have.
        should_judge: whether what came out is read and judged at the end.
        folder: where everything that was said is kept; nowhere by default.
        variables: settings of the workers, as environment variables.
    """

    seed: int
    faults: Sequence[Fault]
    seconds: float = 60.0
    rate: int = 2_000
    partitions: int = 4
    predict: int = 2
    plant: str | None = None
    forgeries: float = 0.0
    shops: int = parameters.SHOPS
    should_judge: bool = True
    folder: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class Story:
    """What happened, with times of the clock."""

    faults: list[tuple[float, str]] = field(default_factory=list)
    began: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)
    workers: list[Worker] = field(default_factory=list)
    stalls: dict[str, list[list[float]]] = field(default_factory=dict)
    silences: dict[str, list[list[float]]] = field(default_factory=dict)
    forgery_counts: dict[str, int] = field(default_factory=dict)

    def faults_in(self, began: float, seconds: float) -> str:
        """What befell the workers shortly before or in a time."""
        end_s = began + seconds
        fell = [event.split(":")[0] for at_s, event in self.faults if began - 1.0 <= at_s <= end_s]
        return ", ".join(fell) or "nothing"

    def worst(self, *, broker: bool) -> str:
        """The longest time without a committed prediction on a partition: where, amid what.

        Args:
            broker: whether the broker's own death and what followed from it counts.
        """
        gaps = [
            (gap_s, start_s, name, self.faults_in(start_s, gap_s))
            for name, longest in self.stalls.items()
            for gap_s, start_s in longest
        ]
        gaps = [entry for entry in gaps if broker or "broker" not in entry[3]]
        if not gaps:
            return "none"
        gap_s, start_s, name, events = max(gaps)
        return (
            f"{gap_s:.1f} s (partition {name}, from {start_s - self.began:.1f} s, amid: {events})"
        )


def run(plan: Run, say: Callable[[str], None]) -> Story:
    """Carry it out, in bounded time; nothing is left running, whatever happens."""
    with ExitStack() as stack:
        folder = plan.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        broker = stack.enter_context(Broker(folder / "broker", java_options=QUICK_START))
        say(f"broker at {broker.address}; what workers say lies in {folder}")
        fleet = stack.enter_context(Fleet(broker.address, folder, plan.plant, **plan.variables))
        scene = _Scene(plan, broker, fleet, folder, say)
        scene.set_up()
        say(f"all partitions are predicted on; {plan.rate} events/s for {plan.seconds:.0f} s")
        scene.play()
        remaining = topics.wait_until_settled(broker.address, parameters.NAME, SETTLE_S)
        scene.wind_up()
        say("all is worked off" if remaining is None else remaining)
        if plan.should_judge:
            _judge(scene.story, broker.address)
        scene.story.verdict.failures |= _further_failures(scene.story, remaining, plan.seconds)
        if plan.forgeries:
            scene.story.verdict.failures["forgeries were tried"] = _topics_without_forgery(
                scene.story
            )
        return scene.story


@dataclass
class _Scene:
    """A run under way."""

    plan: Run
    broker: Broker
    fleet: Fleet
    folder: Path
    say: Callable[[str], None]
    story: Story = field(default_factory=Story)
    restarts: list[threading.Thread] = field(default_factory=list)

    def set_up(self) -> None:
        """Make the topics, start the workers, and wait until they predict."""
        partitions = self.plan.partitions
        self.fleet.run("topics", "apply", "--partitions", str(partitions))
        for stage in ("predict",) * self.plan.predict + ("join", "learn", "evaluate"):
            self.fleet.add(stage)
        deadline = time.monotonic() + READY_S
        while self._recovered_count() < partitions:
            self._notice()
            if time.monotonic() > deadline:
                words = "\n".join(f"  {w.name}: {w.last_words()}" for w in self.fleet.workers)
                raise TimeoutError(f"the workers were not ready within {READY_S:.0f} s:\n{words}")
            time.sleep(TICK_S)

    def _recovered_count(self) -> int:
        """How many partitions are predicted on."""
        workers = [worker for worker in self.fleet.workers if worker.stage == "predict"]
        return len({m["partition"] for worker in workers for m in worker.sayings("recovered")})

    def play(self) -> None:
        """Publish and read, while what is planned happens."""
        plan, story = self.plan, self.story
        destination = ["--broker", self.broker.address, "--partitions", str(plan.partitions)]
        values = {"seed": plan.seed, "seconds": plan.seconds, "rate": plan.rate}
        values["shops"] = plan.shops
        options = [word for name, value in values.items() for word in (f"--{name}", str(value))]
        reading = Child([sys.executable, "-m", "chaos.reader", *destination], self.folder, "reader")
        command = [sys.executable, "-m", "chaos.traffic", *destination, *options]
        publishing = Child(command, self.folder, "traffic")
        forging = self._forger(destination[:2]) if plan.forgeries else None
        try:
            self._await_begin(reading)
            if forging is not None:
                self._await_begin(forging)
            self._await_begin(publishing)
            story.began = time.time()
            self._befall(publishing, reading)
            for restart in self.restarts:
                restart.join()
        finally:
            publishing.end(signal.SIGTERM)
            reading.end(signal.SIGTERM)
            if forging is not None:
                forging.end(signal.SIGTERM, FORGER_STOP_S)
        if forging is not None:
            reports = forging.sayings("forged")
            if not reports:
                raise RuntimeError(f"forging failed: {forging.last_words()}")
            story.forgery_counts = reports[0]["count"]
            self.say(f"forged {sum(story.forgery_counts.values())} records")
        answers = publishing.sayings("published")
        if not answers or answers[0]["failed"] or not answers[0]["acknowledged"]:
            raise RuntimeError(f"publishing failed: {answers or publishing.last_words()}")
        answer = answers[0]
        self.say(f"published {answer['acknowledged']} records in {answer['seconds']} s")
        for read in reading.sayings("read"):
            story.stalls, story.silences = read["stalls"], read["silences"]

    def _forger(self, destination: list[str]) -> Child:
        command = [sys.executable, "-m", "chaos.forger", *destination]
        command += ["--seed", str(self.plan.seed), "--rate", str(self.plan.forgeries)]
        return Child(command, self.folder, "forger")

    def _await_begin(self, child: Child) -> None:
        """Wait until it has found the broker, before that is killed."""
        deadline = time.monotonic() + READY_S
        while not child.sayings("begins"):
            self._notice()
            if not child.lives or time.monotonic() > deadline:
                raise RuntimeError(f"{child.name} did not begin: {child.last_words()}")
            time.sleep(TICK_S)

    def _befall(self, publishing: Child, reading: Child) -> None:
        faults, reported_s, is_reading = sorted(self.plan.faults), 0.0, True
        while publishing.lives:
            elapsed_s = time.time() - self.story.began
            if elapsed_s > self.plan.seconds + PUBLISH_EXTRA_S:
                raise TimeoutError(f"publishing took more than {elapsed_s:.0f} s")
            # Where nobody lives whom it could befall, it does as soon as somebody does.
            while faults and faults[0].at_s <= elapsed_s and self._carry_out(faults[0]):
                faults.pop(0)
            self._notice()
            if elapsed_s - reported_s >= PROGRESS_S:
                reported_s = elapsed_s
                living = sum(worker.lives for worker in self.fleet.workers)
                self.say(f"{elapsed_s:5.1f} s  {living} workers live")
            if is_reading and elapsed_s >= self.plan.seconds:
                # No more events come, so that there is nothing more to wait for.
                reading.signal(signal.SIGTERM)
                is_reading = False
            time.sleep(TICK_S)

    def _carry_out(self, fault: Fault) -> bool:
        """Whether it could be done."""
        if fault.kind == "broker":
            self.broker.kill()
            self._tell("broker killed")
            self.restarts.append(threading.Thread(target=self._restart))
            self.restarts[-1].start()
        elif fault.kind == "add":
            self._tell(f"{self.fleet.add(fault.stage).name} added")
        else:
            doing = {"kill": self.fleet.kill, "remove": self.fleet.remove}[fault.kind]
            worker = doing(fault.stage, fault.draw)
            if worker is None:
                return False
            self._tell(f"{worker.name} {worker.ending}")
        return True

    def _restart(self) -> None:
        self.broker.start()
        self._tell("broker back")

    def _tell(self, event: str) -> None:
        now_s = time.time()
        self.story.faults.append((now_s, event))
        self.say(f"{now_s - self.story.began:5.1f} s  {event}")

    def _notice(self) -> None:
        """Look after the workers, and tell who ended by itself."""
        for worker in self.fleet.look_after():
            if worker.ending == "by itself":
                self._tell(f"{worker.name} ended by itself: {worker.last_words()[:LINE_MAX]}")

    def wind_up(self) -> None:
        """Stop the workers, and keep what they said."""
        for worker in self.fleet.workers:
            if worker.ending == "by itself":
                last = {"said": "last words", "words": worker.last_words()}
                worker.messages.append((time.time(), last))
        self.fleet.stop()
        self.story.workers = self.fleet.workers
        if self.plan.folder is not None:
            _write_down(self.story, self.plan.folder / "said.jsonl")


def _judge(story: Story, broker: str) -> None:
    from chaos.world import world  # noqa: PLC0415 - the declaration is the workers'; only its hash

    raw = topics.read(broker, parameters.NAME)
    story.verdict = judge(raw, world.feature_set.hash, bytes.fromhex(parameters.KEY))


def _topics_without_forgery(story: Story) -> list[str]:
    """Topics that nothing was forged on."""
    attempts = {name.split()[0] for name in story.forgery_counts}
    return sorted({*SEALED_TOPICS, *SIGNED_TOPICS, *CHANGELOGS} - attempts)


def _further_failures(story: Story, remaining: str | None, seconds: float) -> dict[str, list[str]]:
    """What does not lie in the topics."""
    # In a run that is shorter a worker lives so long only where the machine is slow.
    workers = story.workers if seconds >= MEMORY_LIFE_S else []
    growths = [(worker, flat(worker.memory)) for worker in workers]
    words = [(w, m["words"]) for w in story.workers for m in w.sayings("last words")]
    return {
        "all worked off": [] if remaining is None else [remaining],
        "memory flat": [f"{worker.name}: {reason}" for worker, reason in growths if reason],
        # A worker that is fenced, or finds no broker, is to end; one that is wrong is not to be.
        "none ends for a bug": [
            f"{w.name}: {last_words}" for w, last_words in words if "Assertion" in last_words
        ],
    }


def _write_down(story: Story, file: Path) -> None:
    """Everything that was said and that befell, in the order of time."""
    lines = [(at_s, "fault", {"what": event}) for at_s, event in story.faults]
    lines += [
        (at_s, worker.name, members)
        for worker in story.workers
        for at_s, members in worker.messages
    ]
    with file.open("w") as stream:
        for at_s, name, members in sorted(lines, key=lambda line: line[0]):
            stream.write(f"{at_s - story.began:8.2f} {name:<14} {json.dumps(members)}\n")


def flat(memory: Sequence[tuple[float, float]]) -> str | None:
    """Why a worker's memory is not flat; None if it is, or if it lived too briefly to say."""
    if not memory or memory[-1][0] < MEMORY_LIFE_S:
        return None
    end_s = memory[-1][0]
    middle = [mb for at_s, mb in memory if end_s * 0.5 <= at_s < end_s * 0.7]
    last = [mb for at_s, mb in memory if at_s >= end_s * 0.85]
    if not middle or not last:
        return None
    middle_mb, last_mb = sum(middle) / len(middle), sum(last) / len(last)
    if last_mb > middle_mb * GROWTH_MAX + GROWTH_SPARE_MB:
        return f"grew from {middle_mb:.0f} to {last_mb:.0f} MB in the last half of {end_s:.0f} s"
    return None


def figures(story: Story) -> dict[str, Any]:
    """What is worth knowing beside the verdict."""
    peaks: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for worker in story.workers:
        peak = max((mb for _, mb in worker.memory), default=0.0)
        peaks[worker.stage] = max(peaks.get(worker.stage, 0.0), peak)
        cpu[worker.stage] = cpu.get(worker.stage, 0.0) + worker.cpu_s
    recoveries = [m["seconds"] for w in story.workers for m in w.sayings("recovered")]
    return {
        "worst stall of readers": story.worst(broker=True),
        "worst, broker alive": story.worst(broker=False),
        "ended by themselves": sum(worker.ending == "by itself" for worker in story.workers),
        "take-overs": f"{len(recoveries)}, the longest {max(recoveries, default=0):.1f} s",
        "peak memory, MB": {stage: round(mb) for stage, mb in peaks.items()},
        "CPU, s": {stage: round(s, 1) for stage, s in cpu.items()},
    }
