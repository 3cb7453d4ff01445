"""The former place of `stream_ml.client`; it answers for one release, with a warning."""

from stream_ml.shell.moved import moved_names

__all__: list[str] = []

__getattr__ = moved_names(
    "stream_ml.shell.client",
    "stream_ml.client",
    {
        "Publisher": "Publisher",
        "ask": "command",
        "connect": "connect",
        "open_log": "open_log",
        "predictions": "predictions",
        "read_on": "read_batches",
    },
)
