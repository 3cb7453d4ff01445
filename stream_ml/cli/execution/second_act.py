"""The demo's second act: the declaration is changed in flight, beside the log that had it at once.

The first records are worked on once more, on a log of their own, under a declaration with fewer
features and one line less. Half way the whole declaration is applied. What comes out from then on
has to be what the first act made of the same records, which had all of it from the start.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.models.envelope import decode
from stream_ml.shell.embedded.replay import CHECKPOINT_EXAMPLES
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import decisions, read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.progress import Progress, duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.log.port import Log

__all__ = ["RECORDS_MAX", "SHARE", "SecondAct", "act", "text"]

# One record in so many of the first act's is worked on again, and no more than this: of half a year
# of flights two weeks, which take about an eighth of the time of the demo.
SHARE, RECORDS_MAX = 12, 60_000
# So many features come half way.
FEATURES = 2
REASON = "two more features and a line may say more"


@dataclass(frozen=True, slots=True)
class SecondAct:
    """What came of the change.

    Attributes:
        records: how many were worked on.
        features: the names of those that came half way.
        line: that came half way.
        champion: that served when they came, and served on.
        lines: that began anew.
        predictions: how many there are.
        missing: events of the first act that have none.
        doubled: events that have several.
        later: predictions since the change.
        later_equal: those whose features equal the first act's, to the last bit.
        snapshots: of the lines that began anew.
        snapshots_equal: those that equal the first act's by digest.
    """

    records: int
    features: list[str]
    line: str
    champion: str
    lines: list[str]
    predictions: int
    missing: int
    doubled: int
    later: int
    later_equal: int
    snapshots: int
    snapshots_equal: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def former(pipeline: Pipeline) -> tuple[Pipeline, str]:
    """The declaration of before the change, and the line that it lacks.

    Args:
        pipeline: with at least two features and two lines.
    """
    line = next(name for name in pipeline.models if name != pipeline.champion)
    features = [*pipeline.features]
    kept = features[: max(1, len(features) - FEATURES)]
    models = {name: model for name, model in pipeline.models.items() if name != line}
    return replace(pipeline, features=kept, models=models), line


def act(
    path: Path, pipeline: Pipeline, key: bytes, first: Log, outputs: Sequence[Output]
) -> SecondAct:
    """Work on the first records again, with the change half way.

    Args:
        path: of the log that is made for it.
        pipeline: the declaration of the first act.
        key: signs snapshots and decisions.
        first: the first act's log.
        outputs: the first records that were published there, in their order.
    """
    before, line = former(pipeline)
    half = len(outputs) // 2
    options: Any = {"checkpoint_examples": CHECKPOINT_EXAMPLES}
    with SqliteLog.create(path) as log, Progress("second act", len(outputs)) as progress:
        log.append(outputs[:half])
        with Runner(log, before, key, **options) as runner:
            runner.run(progress)
        former_count = sum(1 for _ in read_all(log, "predictions"))
        with Runner(log, pipeline, key, apply=REASON, **options) as runner:
            log.append(outputs[half:])
            runner.run(lambda count: progress(half + count))
            lines = runner.generation.begun
        [champion] = [
            each.serving.champion.model for each in decisions(log, key) if each.reason == REASON
        ]
        features = [*_features(log)]
        actual = dict(features)
        expected = dict(islice(_features(first), len(actual)))
        names = pipeline.feature_set.names
        later = [event_id for event_id, _ in features[former_count:]]
        made = {name: digest for name, digest in _digests(log) if _line(name) in lines}
        whole = dict(_decided_digests(first, key))
    return SecondAct(
        records=len(outputs),
        features=[name for name in names if name not in before.feature_set.name_set],
        line=line,
        champion=champion,
        lines=lines,
        predictions=len(features),
        missing=len(expected.keys() - actual.keys()),
        doubled=len(features) - len(actual),
        later=len(later),
        later_equal=sum(
            expected.get(each) == {n: actual[each][n] for n in names if n in actual[each]}
            for each in later
        ),
        snapshots=len(made),
        snapshots_equal=sum(
            whole.get(name.replace(".2@", "@")) == digest for name, digest in made.items()
        ),
    )


def text(act: SecondAct, seconds: float) -> str:
    """The act in words.

    Args:
        act: as it went.
        seconds: how long it took.
    """
    began = f"{', '.join(act.lines)} began anew, and were taught what was recorded"
    features = f"features of {act.later_equal:,} of {act.later:,} predictions since"
    snapshots = f"{act.snapshots_equal:,} of {act.snapshots:,} snapshots by digest"
    return (
        f"second act: {', '.join(act.features)} and the line {act.line} came half way through the "
        f"first {act.records:,} records, once more, on a log of their own\n"
        f"  {act.champion} served on with the features that it knows; {began}\n"
        f"  predictions: {act.predictions:,}, {act.missing:,} missing, {act.doubled:,} doubled\n"
        f"  equal to the first act, which had all from the start: {features}, {snapshots}\n"
        f"  took {duration(seconds)}"
    )


def _features(log: Log) -> Iterator[tuple[str, dict[str, float]]]:
    """The features of each prediction, by event, as they were logged."""
    for record in read_all(log, "predictions"):
        members = orjson.loads(record.value or b"{}")
        yield members["event_id"], members["features"]


def _digests(log: Log) -> Iterator[tuple[str, str]]:
    """The snapshots on a log, by name, with their digests."""
    for record in read_all(log, "models"):
        if record.value:
            envelope = decode(record.value)
            yield f"{envelope.name}@{envelope.version}", envelope.digest


def _decided_digests(log: Log, key: bytes) -> Iterator[tuple[str, str]]:
    """The same as decisions name them: of snapshots that were let go of since, too."""
    for decision in decisions(log, key):
        refs: Iterable[Any] = [decision.serving.champion, *decision.serving.challengers.values()]
        yield from ((ref.model, ref.digest) for ref in refs)


def _line(name: str) -> str:
    return name.partition("@")[0]
