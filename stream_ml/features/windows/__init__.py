"""Windows of event time: how they are declared, and the buffers that answer them."""

from __future__ import annotations

from stream_ml.features.windows.buffer import Buffer, Clock, Series
from stream_ml.features.windows.window import Window, any_of, window
from stream_ml.features.windows.window_feature import WindowFeature

__all__ = ["Buffer", "Clock", "Series", "Window", "WindowFeature", "any_of", "window"]
