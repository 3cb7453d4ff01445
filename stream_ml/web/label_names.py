"""Labels by the names that a pipeline declares, as its files have them.

On the log a label has the members `event_id`, `ts` and `label`, whatever the events of its pipeline
call their ids and times. Who sends both by HTTP knows one set of names, the declared one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from stream_ml.codec import check_unique

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

__all__ = ["declared_names", "wire_label"]


def declared_names(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """By member of a label on the log, the other names that the pipeline has for it.

    Args:
        pipeline: the declaration.
    """
    events, files = pipeline.events, pipeline.files
    names = {
        "event_id": (events.id,),
        "ts": (events.time,) if files.label_time is None else (files.label_time, events.time),
        "label": (files.label,),
    }
    others = {m: tuple(name for name in of if name != m) for m, of in names.items()}
    return {member: of for member, of in others.items() if of}


def wire_label(value: bytes, pipeline: Pipeline) -> bytes:
    """A label as it is to lie on the log; what is none is left as it is.

    Args:
        value: the label, by either set of names.
        pipeline: the declaration.

    Raises:
        BadRecord: a member is given twice.
    """
    names = declared_names(pipeline)
    if not names:
        return value
    try:
        given = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    if type(given) is not dict:
        return value
    renamed = {
        next(name for name in of if name in given): member
        for member, of in names.items()
        if member not in given and not given.keys().isdisjoint(of)
    }
    if not renamed:
        return value
    check_unique(value, given)
    return orjson.dumps({renamed.get(name, name): given[name] for name in given})
