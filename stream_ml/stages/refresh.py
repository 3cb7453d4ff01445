"""The snapshots that wait for those of the other lines, and those that never served.

Theory of operation:

1. Lines publish at the same instants and are renewed at once, so that what is compared has the same
   age. Each snapshot names the lines that publish with it: others are stale, and not waited for
   until they publish again. Nor is one that is missing `STALE_EXAMPLES` later, for it may have been
   named and yet have failed, or never come to us. One that is still being taught what was there
   before it was declared is named as late: it publishes nothing yet, and that is no fault.
   Where lines are tasks of their own a snapshot speaks for the lines of its task alone. One that
   comes when its instant is over is of a task that is behind: that is no fault either, and its
   line is not waited for until it has caught up.
2. Each line is renewed for itself (`renewal`). One that published nothing, or nothing sound, keeps
   the snapshot that it has in the serving set, and holds up no other. It is a line's own fault, of
   which is told when it begins and when it ends, with a count (`fault`).
3. Challengers' snapshots that never served are kept so many deep, and then given tombstones. They
   come back as input: a tombstone that was not written here is somebody else's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord
from stream_ml.records import ModelRef
from stream_ml.stages.latecomers import due_n

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stream_ml.models.snapshot import Snapshot

__all__ = ["STALE_EXAMPLES", "Arrival", "Fault", "Refresh", "Renewal"]

STALE_EXAMPLES = 1_000
SILENCE = "it published nothing"
# Where a version would be: a line that is to begin anew has published nothing since.
PENDING = -1
# However often a line was started anew, it is again after so many doublings at the latest.
DOUBLINGS_MAX = 10
# Why a refresh comes sooner than due, by what its snapshots say.
CAUSES = {"loss_change": "the loss of what is served has grown"}


@dataclass(slots=True)
class Arrival:
    """A line's snapshot of one instant.

    Attributes:
        ref: its name, and where it lies.
        flaw: what speaks against it, if anything.
        cause: why it came sooner than due, if it did.
    """

    ref: ModelRef
    flaw: str | None
    cause: str | None = None


@dataclass(slots=True)
class Fault:
    """That a line cannot be renewed, for a reason of its own.

    Attributes:
        reason: of the first refresh that passed it by.
        version: the instant of that.
        count: how many refreshes have passed it by.
    """

    reason: str
    version: int
    count: int = 1

    @property
    def is_silence(self) -> bool:
        """Whether the line published nothing, rather than nothing sound."""
        return self.reason == SILENCE


@dataclass(slots=True)
class Renewal:
    """What a refresh makes of each line.

    Attributes:
        refs: by line, the snapshots of the next serving set.
        kept: the lines among them that keep the snapshot that they have.
        begun: by line, the faults that begin with this refresh.
        ended: by line, the faults that end with it.
        cause: why it comes sooner than due, if it does.
    """

    refs: dict[str, ModelRef] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    begun: dict[str, Fault] = field(default_factory=dict)
    ended: dict[str, Fault] = field(default_factory=dict)
    cause: str | None = None

    def hold(self, line: str, ref: ModelRef) -> None:
        """Let a line keep the snapshot that it has, whatever it has published.

        Args:
            line: which.
            ref: of the snapshot.
        """
        self.refs[line] = ref
        if line not in self.kept:
            self.kept.append(line)

    def end_of_fault(self, line: str) -> str:
        """What is said of a line whose fault is over.

        Args:
            line: one of `ended`.
        """
        count = self.ended[line].count
        if line in self.kept:
            return f"publishes what is sound again, after {count} refreshes, and is held as it is"
        return f"is renewed again, after {count} refreshes without it"

    def reason(self, version: int, lines: int) -> str:
        """For the decision that renews.

        Args:
            version: the instant.
            lines: how many are declared.
        """
        is_whole = len(self.refs) - len(self.kept) == lines
        sentences = [f"{'all' if is_whole else 'some'} lines published @{version}"]
        if self.cause is not None:
            sentences.append(f"sooner than due: {CAUSES.get(self.cause, self.cause)}")
        sentences += [f"{self.refs[line].model} stays" for line in self.kept]
        sentences += [f"{line} {self.end_of_fault(line)}" for line in self.ended]
        return "; ".join(sentences)


class Refresh:
    """What the declared lines have published and serves not yet.

    Args:
        lines: the declared lines.
        are_tasks: whether each is a task of its own.

    Attributes:
        version: the newest instant of which all was there; -1 before the first.
    """

    def __init__(self, lines: Collection[str], *, are_tasks: bool = False) -> None:
        self._are_tasks = are_tasks
        # In their order as declared.
        self._lines = dict.fromkeys(lines)
        self.version = -1
        self._waiting: dict[int, dict[str, Arrival]] = {}
        self._stale: set[str] = set()
        # By line: the newest instant at which it was not yet to publish.
        self._late: dict[str, int] = {}
        # Those that have published since the last refresh, but not in time.
        self._behind: set[str] = set()
        self._faults: dict[str, Fault] = {}
        self._newest: dict[str, int] = {}
        # By line that a decision started anew: its first version since; -1: it is to come.
        self._started_anew: dict[str, int] = {}
        # By line: how often that was decided since somebody last asked for it.
        self._restart_counts: dict[str, int] = {}
        self._unserved_models: dict[str, list[str]] = {name: [] for name in lines}
        # What was given a tombstone that has not come back yet.
        self._retired_models: list[str] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def newest(self, line: str) -> int:
        """The newest version that a line published; -1 if none.

        Its successor starts anew if it names no parent.
        """
        return self._newest.get(line, -1)

    def check(self, snapshot: Snapshot) -> None:
        """Refuse what was published before.

        Raises:
            BadRecord: no newer than the newest of its line.
        """
        newest = self.newest(snapshot.name)
        if snapshot.version <= newest:
            raise BadRecord(
                "repeated", "$.version", f"expected above {newest}, given {snapshot.version}"
            )

    def add(self, snapshot: Snapshot, ref: ModelRef, flaw: str | None) -> bool:
        """Take in a snapshot that was checked; whether it waits for others of its instant.

        Args:
            snapshot: the one that came.
            ref: its name, and where it lies.
            flaw: why it may not serve; None if it may.
        """
        name, version = snapshot.name, snapshot.version
        self._newest[name] = version
        if self._started_anew.get(name) == PENDING and "restarted" in snapshot.epoch:
            if snapshot.parent is None:
                self._started_anew[name] = version
            else:  # it goes on from a snapshot that was good
                del self._started_anew[name]
        self._keep_up(snapshot)
        late = snapshot.epoch.get("late", ())
        self._late |= {each: version for each in self._lines if each in late}
        self._unserved_models[name].append(snapshot.model)
        if version <= self.version:
            return False
        cause = snapshot.epoch.get("cause")
        self._waiting.setdefault(version, {})[name] = Arrival(ref, flaw, cause)
        return True

    def _keep_up(self, snapshot: Snapshot) -> None:
        """Tell those that publish as the others do from those that nobody waits for."""
        name, epoch = snapshot.name, snapshot.epoch
        if "task" in epoch and snapshot.version < self.version:
            self._behind.add(name)
            self._stale.add(name)
            return
        publishers = epoch.get("lines")
        if publishers is not None:  # a former release did not name them
            task = self._lines.keys() & epoch.get("task", self._lines)
            self._stale = (self._stale - task) | task.difference(publishers)
        self._stale.discard(name)

    def overdue(self, examples: int) -> int | None:
        """The instant for whose missing lines nobody waits any more; they are stale from now on.

        Args:
            examples: how many came so far.
        """
        version = min(self._waiting)
        if examples < version + STALE_EXAMPLES:
            return None
        self._stale |= self._lines.keys() - self._waiting[version].keys()
        return version

    def complete(self, version: int) -> dict[str, Arrival] | None:
        """The snapshots of an instant, by line, once nothing is missing; older ones go unused."""
        arrivals = self._waiting[version]
        late = {line for line, until in self._late.items() if until >= version}
        if not self._lines.keys() <= arrivals.keys() | self._stale | late:
            return None
        self._waiting = {v: lines for v, lines in self._waiting.items() if v > version}
        self.version = version
        return arrivals

    def renewal(self, arrivals: Mapping[str, Arrival], former: Mapping[str, ModelRef]) -> Renewal:
        """What becomes of each line at the instant that is complete; counts its faults.

        Args:
            arrivals: what was published, as `complete` gave it.
            former: by line, what is in the serving set.
        """
        # Lines publish at one instant for one reason.
        renewal = Renewal(cause=next((each.cause for each in arrivals.values()), None))
        for line in self._lines:
            arrival = arrivals.get(line)
            reason = SILENCE if arrival is None else arrival.flaw
            if arrival is not None and reason is None:
                renewal.refs[line] = arrival.ref
                if line in self._faults:
                    renewal.ended[line] = self._faults.pop(line)
                continue
            if line in former:
                renewal.refs[line] = former[line]
                renewal.kept.append(line)
            if arrival is None and self._is_excused(line):
                continue
            fault = self._faults.get(line)
            if fault is None:
                fault = Fault(reason or SILENCE, self.version)
                self._faults[line] = renewal.begun[line] = fault
            else:
                fault.count += 1
        self._behind.clear()
        return renewal

    def _is_excused(self, line: str) -> bool:
        """Whether it is no fault that a line has published nothing."""
        return self._late.get(line, -1) >= self.version or line in self._behind

    def failed(self, refreshes: int) -> dict[str, Fault]:
        """By line, the faults that last for so many refreshes now; twice as many per restart.

        Args:
            refreshes: how many.
        """
        return {
            line: fault
            for line, fault in self._faults.items()
            if fault.count == refreshes << min(self._restart_counts.get(line, 0), DOUBLINGS_MAX)
        }

    def restart(self, line: str, *, is_asked: bool) -> None:
        """Take note that a line is to begin anew.

        Args:
            line: which.
            is_asked: whether an operator asks for it, or it follows from its faults.
        """
        self._started_anew[line] = PENDING
        if is_asked:
            self._restart_counts.pop(line, None)
        else:
            self._restart_counts[line] = self._restart_counts.get(line, 0) + 1

    def is_young(self, line: str, version: int, examples: int) -> bool:
        """Whether a line that a decision started anew has learned fewer examples since.

        Args:
            line: which.
            version: of the snapshot in question.
            examples: how many it must have learned.
        """
        first = self._started_anew.get(line)
        return first is not None and (first == PENDING or version < first + examples)

    def keeps_up(self, line: str) -> bool:
        """Whether a line publishes as the others do, and what is sound."""
        is_behind = any(line not in arrivals for arrivals in self._waiting.values())
        return line not in self._stale and line not in self._faults and not is_behind

    def serves(self, line: str, model: str) -> None:
        """Keep a snapshot: it serves, or has.

        Args:
            line: of the snapshot.
            model: the snapshot, `name@version`.
        """
        if model in self._unserved_models[line]:
            self._unserved_models[line].remove(model)

    def drop_unserved(self, keep: int, needed_models: Collection[str]) -> list[str]:
        """Forget the oldest snapshots that never served, and return their names.

        Args:
            keep: how many each line keeps.
            needed_models: models that shadow now, and are kept however old.
        """
        dropped_models = [
            model
            for models in self._unserved_models.values()
            for model in models[: max(0, len(models) - keep)]
            if model not in needed_models
        ]
        for line, models in self._unserved_models.items():
            self._unserved_models[line] = [model for model in models if model not in dropped_models]
        self._retired_models += dropped_models
        return dropped_models

    def tombstone(self, model: str) -> None:
        """Take in a tombstone of what was dropped.

        Raises:
            BadRecord: it was not dropped, or its tombstone has come.
        """
        if model not in self._retired_models:
            raise BadRecord(
                "forged",
                "$",
                f"expected a tombstone of a snapshot that was dropped, given one of {model!r}; "
                "only workers write there: see who else may",
            )
        self._retired_models.remove(model)

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "version": self.version,
            "waiting": [
                (version, name, asdict(arrival))
                for version, arrivals in self._waiting.items()
                for name, arrival in arrivals.items()
            ],
            "stale": sorted(self._stale),
            **({"late": self._late} if self._late else {}),
            **({"behind": sorted(self._behind)} if self._behind else {}),
            "faults": {line: asdict(fault) for line, fault in self._faults.items()},
            "newest": self._newest,
            **({"started_anew": self._started_anew} if self._started_anew else {}),
            **({"restarts": self._restart_counts} if self._restart_counts else {}),
            "unserved": self._unserved_models,
            "retired": self._retired_models,
        }

    def load(self, state: dict[str, Any], examples: int) -> None:
        """Take up a dumped state.

        Args:
            state: what `dump` gave.
            examples: how many came so far.
        """
        self.version = state["version"]
        for version, name, arrival in state["waiting"]:
            ref = ModelRef(**arrival["ref"])
            self._waiting.setdefault(version, {})[name] = Arrival(
                ref, arrival["flaw"], arrival.get("cause")
            )
        self._stale, self._newest = set(state["stale"]), state["newest"]
        self._late, self._behind = state.get("late", {}), set(state.get("behind", ()))
        self._started_anew = state.get("started_anew", {})
        self._restart_counts = state.get("restarts", {})
        self._faults = {
            line: Fault(**fault)
            for line, fault in state.get("faults", {}).items()
            if line in self._lines
        }
        if self._are_tasks:
            # Of a task that was not there yet no other one tells that it need not publish.
            added = self._lines.keys() - state["unserved"].keys()
            self._late |= dict.fromkeys(added, due_n(examples) - 1)
        # A line may have been declared since, or be declared no more.
        self._unserved_models |= state["unserved"]
        self._retired_models = state.get("retired", [])
