"""Windows of events: how they are declared, and the buffers that answer them."""

from __future__ import annotations

from stream_ml.features.windows.buffer import Buffer, Clock, Series
from stream_ml.features.windows.declaration import (
    Window,
    any_of,
    calendar,
    hopping,
    lag,
    last_events,
    session,
    tumbling,
    window,
)
from stream_ml.features.windows.framed_buffer import FramedBuffer
from stream_ml.features.windows.window_columns import WindowColumns
from stream_ml.features.windows.window_feature import WindowFeature

__all__ = [
    "Buffer",
    "Clock",
    "FramedBuffer",
    "Series",
    "Window",
    "WindowColumns",
    "WindowFeature",
    "any_of",
    "calendar",
    "hopping",
    "lag",
    "last_events",
    "session",
    "tumbling",
    "window",
]
