"""`audit reproduce`: logged predictions made again, from their features and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.tables import NO_VALUE, format_table
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
    from stream_ml.shell.views.reproduce import ReproducedAnswer, Reproduction

__all__ = ["run"]

# So many of a kind are shown; the rest is counted.
ROWS_MAX = 10


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Make predictions again, and fail if one is not what was logged."""
    pipeline = pipeline_of(settings, "audit reproduce")
    with existing_log(settings, archive=arguments.archive) as log:
        key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        if key is None:
            location = "" if settings.on_kafka else f" in {key_file(settings.path)}"
            raise UsageError(
                f"audit reproduce: expected the key that snapshots are signed with{location}, "
                f"given none; set {SETTINGS['key'].variable}"
            )
        predictions = _select(arguments, log)
        result = reproduce(log, pipeline, key, predictions)
    if arguments.format == "json":
        write_json(_members(result, len(predictions)))
    else:
        write("\n".join(_lines(result, len(predictions), is_single=arguments.event_id is not None)))
    if result.different or result.refused:
        raise StreamMLError(
            f"audit reproduce: {len(result.different):,} answers are not what was logged, "
            f"{result.refused.total():,} are of snapshots that cannot be believed"
        )


def _select(arguments: argparse.Namespace, log: Log) -> list[Prediction]:
    if arguments.sample is not None:
        return sample(log, arguments.sample, arguments.seed)
    prediction = find(log, arguments.event_id)
    if prediction is None:
        raise StreamMLError(
            f"audit reproduce: no prediction on event {arguments.event_id!r} is on the log"
            f"{'' if arguments.archive else '; an archive may have it (--archive ADDRESS)'}"
        )
    return [prediction]


def _champions(result: Reproduction) -> tuple[int, int]:
    """Of the champions' answers: how many are equal, how many could be made again."""
    champions = [champion for champion in result.answers if champion.slot == "champion"]
    return sum(champion.equal for champion in champions), len(champions)


def _lines(result: Reproduction, count: int, *, is_single: bool) -> Iterator[str]:
    equal, champions = _champions(result)
    total = len(result.answers)
    noun = "prediction" if count == 1 else "predictions"
    yield f"{count:,} {noun}: {equal:,} of {champions:,} served answers are equal"
    yield (
        f"with shadows: {total - len(result.different):,} of {total:,} are equal to {TOLERANCE:g}; "
        f"the largest difference is {result.worst:g}"
    )
    if result.dropped:
        yield (
            f"{result.dropped.total():,} answers cannot be made again, for retention has dropped "
            f"their {len(result.dropped):,} snapshots"
        )
    for reason, count_of_reason in result.refused.most_common(ROWS_MAX):
        yield printable(f"{count_of_reason:,} answers: {reason}")
    rows = result.answers if is_single else result.different[:ROWS_MAX]
    if rows:
        head = ["event", "slot", "model", "logged", "again", "difference"]
        yield format_table([*map(_row, rows)], head=head)


def _row(answer: ReproducedAnswer) -> list[str]:
    texts = [_answer_text(answer.logged_answer), _answer_text(answer.new_answer)]
    return [answer.event_id, answer.slot, answer.model, *texts, f"{answer.difference:g}"]


def _answer_text(answer: Answer) -> str:
    return NO_VALUE if answer is None else str(answer)


def _members(result: Reproduction, count: int) -> dict[str, Any]:
    equal, champions = _champions(result)
    return {
        "predictions": count,
        "served": {"made_again": champions, "equal": equal},
        "answers": {
            "made_again": len(result.answers),
            "equal": len(result.answers) - len(result.different),
        },
        "worst": result.worst if result.worst != float("inf") else None,
        "different": [
            {
                "event_id": answer.event_id,
                "slot": answer.slot,
                "model": answer.model,
                "logged": answer.logged_answer,
                "again": answer.new_answer,
            }
            for answer in result.different
        ],
        "dropped": dict(result.dropped),
        "refused": dict(result.refused),
    }
