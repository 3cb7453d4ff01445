"""The former place of `shell.log.sqlite`; it answers for one release, with a warning."""

from stream_ml.shell.moved import moved_names

__all__: list[str] = []

__getattr__ = moved_names(
    "stream_ml.shell.sqlite_log",
    "stream_ml.shell.log.sqlite",
    {"MEMORY": "MEMORY", "SqliteLog": "SqliteLog"},
)
