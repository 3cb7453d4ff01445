"""Lines as they come: cut right wherever chunks end, batched by number and time, paced."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from stream_ml.shell.processes import line_batches as lines
from stream_ml.shell.processes.line_batches import Line, batches, pace
from stream_ml.shell.processes.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def _file(path: Path, content: bytes) -> Iterator[int]:
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1_000])
def test_lines_wherever_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Numbers count every line; empty ones are left out, the last needs no end, one is too long."""
    monkeypatch.setattr(lines, "READ_BYTES", chunk)
    content = b'{"a":1}\r\n\n  \nfar too long a line\n  {"b":2}  \nlast'
    with _file(tmp_path / "lines", content) as handle, Stop() as stop:
        found = [line for batch in batches(handle, stop, bytes_max=11) for line in batch]

    assert found == [Line(1, b'{"a":1}'), Line(4, None), Line(5, b'{"b":2}'), Line(6, b"last")]


def test_a_batch_has_a_thousand_lines_at_most(tmp_path: Path) -> None:
    """A large file comes in pieces."""
    with _file(tmp_path / "lines", b"x\n" * 2_500) as handle, Stop() as stop:
        sizes = [len(batch) for batch in batches(handle, stop, bytes_max=10, clock=lambda: 0.0)]

    assert sizes == [1_000, 1_000, 500]


def test_a_pipe_that_falls_silent(tmp_path: Path) -> None:
    """What has come is given out after 50 ms, and a line that is not whole yet is waited for."""
    reading, writing = os.pipe()
    with Stop() as stop:
        found = batches(reading, stop, bytes_max=10)
        os.write(writing, b"a\nb\nc")
        first = next(found)
        os.write(writing, b"d\n")
        os.close(writing)
        rest = list(found)
    os.close(reading)

    assert first == [Line(1, b"a"), Line(2, b"b")]
    assert rest == [[Line(3, b"cd")]]
    assert list(tmp_path.iterdir()) == []


def test_asked_to_stop_while_waiting() -> None:
    """A signal ends the wait for more, and what was read whole is still given out."""
    reading, writing = os.pipe()
    with Stop() as stop:
        os.write(writing, b"a\nunfinished")
        times = iter([0.0, 0.0, 0.0])

        def clock() -> float:
            # The third look at it is the one before the wait: the signal comes while waiting.
            now = next(times, None)
            if now is None:
                signal.raise_signal(signal.SIGTERM)
            return 0.0

        found = list(batches(reading, stop, bytes_max=10, clock=clock))
    os.close(reading)
    os.close(writing)

    assert found == [[Line(1, b"a")]]


def test_pace() -> None:
    """Ten lines at four a second take as long as that takes, by the clock that is given."""
    now = [100.0]
    batch = [Line(n, b"x") for n in range(10)]

    class Waits(Stop):
        """Lets time pass instead of waiting."""

        def wait(self, seconds: float | None, handle: int | None = None) -> bool:
            assert handle is None
            now[0] += max(0.0, seconds or 0.0)
            return False

    with Waits() as stop:
        pieces = pace(iter([batch]), 4.0, stop, clock=lambda: now[0])
        given = [(now[0], len(piece)) for piece in pieces]

    assert given == [(100.0 + 0.25 * n, 1) for n in range(10)]


def test_pace_ends_when_asked() -> None:
    """Nobody waits for lines that shall not be sent."""
    with Stop() as stop:
        stop.ask()
        assert list(pace(iter([[Line(1, b"x")]]), 0.001, stop)) == []


def test_the_second_signal_does_what_it_always_did() -> None:
    """Whoever asks twice does not wait for what was begun."""
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
