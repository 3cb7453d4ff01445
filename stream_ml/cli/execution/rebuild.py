"""`rebuild`: the work of the command, and its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.tables import NO_VALUE, format_table
from stream_ml.errors import StreamMLError
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import Progress
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.views.rebuild import rebuild

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.rebuild import RebuildView

__all__ = ["run"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Learn the version again, print how it compares, and fail if it differs."""
    pipeline = pipeline_of(settings, "rebuild")
    with existing_log(settings, archive=arguments.archive) as log:
        key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        with Progress("learning") as progress:
            view = rebuild(log, pipeline, key, arguments.model, on_progress=progress)
    if arguments.format == "json":
        write_json({"log": settings.path, **view.as_dict()})
    else:
        write("\n".join(map(printable, _lines(view, is_signed=key is not None))))
    if view.failure is not None:
        raise StreamMLError(f"rebuild {view.model}: {view.failure}")
    if not view.equal:
        raise StreamMLError(f"rebuild {view.model}: what was learned again differs from it")


def _lines(view: RebuildView, *, is_signed: bool) -> Iterator[str]:
    rate = f", {view.examples / view.seconds:,.0f}/s" if view.seconds else ""
    yield f"{view.model}: {view.recipe}"
    yield f"{view.examples:,} examples learned again{rate}"
    if view.digest_again is not None:
        verdict = "equal" if view.digest == view.digest_again else "they differ"
        yield f"digest: recorded {view.digest}, again {view.digest_again}: {verdict}"
        equal_count = sum(each.equal for each in view.golden)
        worst = max((each.difference for each in view.golden), default=0.0)
        yield (
            f"golden predictions: {equal_count} of {len(view.golden)} are equal, the largest "
            f"difference is {worst:g}"
        )
        different = [each for each in view.golden if not each.equal]
        if different:
            rows = [
                [_text(each.logged_answer), _text(each.new_answer), f"{each.difference:g}"]
                for each in different
            ]
            yield from format_table(rows, head=["recorded", "again", "difference"]).split("\n")
    if view.refused is not None:
        yield f"the recorded snapshot is not opened here: {view.refused}"
    yield from view.notes
    if not is_signed:
        yield "no key is at hand: signatures and seals were not checked"


def _text(answer: object) -> str:
    return NO_VALUE if answer is None else str(answer)
