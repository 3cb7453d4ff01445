"""`audit reproduce`: logged predictions made again, from their features and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.tables import NOTHING, aligned
from stream_ml.errors import StreamMLError, UsageError
from stream_ml.shell.printable import printable
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.settings.settings import SETTINGS, key_file
from stream_ml.shell.views.reproduce import TOLERANCE, find, reproduce, sample

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from stream_ml.records import Answer, Prediction
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.reproduce import Again, Reproduced

__all__ = ["run"]

# So many of a kind are shown; the rest is counted.
SHOWN = 10


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Make predictions again, and fail if one is not what was logged."""
    pipeline = pipeline_of(settings, "audit reproduce")
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        if key is None:
            where = "" if settings.on_kafka else f" in {key_file(settings.path)}"
            raise UsageError(
                f"audit reproduce: expected the key that snapshots are signed with{where}, given "
                f"none; set {SETTINGS['key'].variable}"
            )
        chosen = _chosen(arguments, log)
        done = reproduce(log, pipeline, key, chosen)
    if arguments.format == "json":
        write_json(_members(done, len(chosen)))
    else:
        write("\n".join(_lines(done, len(chosen), each=arguments.event_id is not None)))
    if done.different or done.refused:
        raise StreamMLError(
            f"audit reproduce: {len(done.different):,} answers are not what was logged, "
            f"{done.refused.total():,} are of snapshots that cannot be believed"
        )


def _chosen(arguments: argparse.Namespace, log: Log) -> list[Prediction]:
    if arguments.sample is not None:
        return sample(log, arguments.sample, arguments.seed)
    found = find(log, arguments.event_id)
    if found is None:
        raise StreamMLError(
            f"audit reproduce: no prediction on event {arguments.event_id!r} is on the log"
        )
    return [found]


def _champions(done: Reproduced) -> tuple[int, int]:
    """Of the champions' answers: how many are equal, how many could be made again."""
    served = [each for each in done.answers if each.slot == "champion"]
    return sum(each.equal for each in served), len(served)


def _lines(done: Reproduced, count: int, *, each: bool) -> Iterator[str]:
    equal, served = _champions(done)
    total = len(done.answers)
    noun = "prediction" if count == 1 else "predictions"
    yield f"{count:,} {noun}: {equal:,} of {served:,} served answers are equal"
    yield (
        f"with shadows: {total - len(done.different):,} of {total:,} are equal to {TOLERANCE:g}; "
        f"the largest difference is {done.worst:g}"
    )
    if done.dropped:
        yield (
            f"{done.dropped.total():,} answers cannot be made again, for retention has dropped "
            f"their {len(done.dropped):,} snapshots"
        )
    for reason, n in done.refused.most_common(SHOWN):
        yield printable(f"{n:,} answers: {reason}")
    shown = done.answers if each else done.different[:SHOWN]
    if shown:
        head = ["event", "slot", "model", "logged", "again", "difference"]
        yield aligned([head, *map(_row, shown)])


def _row(again: Again) -> list[str]:
    said = [_said(again.logged), _said(again.again)]
    return [again.event_id, again.slot, again.model, *said, f"{again.difference:g}"]


def _said(answer: Answer) -> str:
    return NOTHING if answer is None else str(answer)


def _members(done: Reproduced, count: int) -> dict[str, Any]:
    equal, served = _champions(done)
    return {
        "predictions": count,
        "served": {"made_again": served, "equal": equal},
        "answers": {
            "made_again": len(done.answers),
            "equal": len(done.answers) - len(done.different),
        },
        "worst": done.worst if done.worst != float("inf") else None,
        "different": [
            {
                "event_id": each.event_id,
                "slot": each.slot,
                "model": each.model,
                "logged": each.logged,
                "again": each.again,
            }
            for each in done.different
        ],
        "dropped": dict(done.dropped),
        "refused": dict(done.refused),
    }
