"""The entity by which windows of an event are kept: its key, or its key and group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.features.texts import text_digest

if TYPE_CHECKING:
    from stream_ml.features.windows import Buffer
    from stream_ml.records import Event

__all__ = ["entity_of", "key_of", "piece_name"]

# A digest stands for longer texts that name a sub-group: the room is the windows' name, in memory
# and at rest.
GROUP_LENGTH_KEPT = 512


def entity_of(event: Event, group_fields: tuple[str, ...]) -> Any:
    """The entity by which the event's windows are kept; None if it is in no group."""
    fields = event.fields
    entity = (event.key, *[fields[name] for name in group_fields])
    if None in entity:
        return None
    if any(type(part) is str and len(part) > GROUP_LENGTH_KEPT for part in entity[1:]):
        group = [
            text_digest(part) if type(part) is str and len(part) > GROUP_LENGTH_KEPT else part
            for part in entity[1:]
        ]
        return (event.key, *group)
    return entity


def key_of(entity: Any) -> str:
    """The key of an entity."""
    return str(entity[0] if isinstance(entity, tuple) else entity)


def piece_name(buffer: Buffer) -> str:
    """The name under which a buffer's state is stored."""
    entity = buffer.entity
    group = entity if isinstance(entity, tuple) else (entity,)
    return orjson.dumps([buffer.series.id, *group]).decode()
