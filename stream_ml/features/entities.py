"""The entity by which windows of an event are kept: its key, its key and group, or of all keys.

One of all keys has None where the others have the key, which no key can imitate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.features.texts import text_digest

if TYPE_CHECKING:
    from stream_ml.features.compilation import Scope
    from stream_ml.features.windows import Buffer
    from stream_ml.records import Event

__all__ = ["GROUP_LENGTH_KEPT", "entity_of", "key_of", "piece_name"]

# A digest stands for longer texts that name a sub-group: the room is the windows' name, in memory
# and at rest.
GROUP_LENGTH_KEPT = 512


def entity_of(event: Event, scope: Scope) -> Any:
    """The entity by which the event's windows are kept in a scope; None if it is in no group."""
    group_fields = scope.group_fields
    if not group_fields:
        return event.key
    fields = event.fields
    group = [fields[name] for name in group_fields]
    if None in group:
        return None
    if any(type(part) is str and len(part) > GROUP_LENGTH_KEPT for part in group):
        group = [
            text_digest(part) if type(part) is str and len(part) > GROUP_LENGTH_KEPT else part
            for part in group
        ]
    return (event.key if scope.is_keyed else None, *group)


def key_of(entity: Any) -> str | None:
    """The key of an entity; None of one of all keys."""
    key = entity[0] if isinstance(entity, tuple) else entity
    return None if key is None else str(key)


def piece_name(buffer: Buffer) -> str:
    """The name under which a buffer's state is stored."""
    entity = buffer.entity
    group = entity if isinstance(entity, tuple) else (entity,)
    return orjson.dumps([buffer.series.id, *group]).decode()
