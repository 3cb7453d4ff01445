"""The former place of `shell.embedded.runner`; it answers for one release, with a warning."""

from stream_ml.shell.moved import moved_names

__all__: list[str] = []

__getattr__ = moved_names(
    "stream_ml.shell.runner", "stream_ml.shell.embedded.runner", {"Runner": "Runner"}
)
