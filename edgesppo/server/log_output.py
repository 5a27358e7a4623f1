"""Writing the log to standard error, which may be a pipe that nobody reads.

A thread of its own writes. Whoever logs never waits: what does not fit the queue is dropped, and
the number of dropped lines is written once there is room again.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import threading
from typing import TextIO

_MOST_LINES = 4096
_LAST_LINES_S = 1.0  # how long the end waits for somebody to read them


class LogOutput(logging.Handler):
    """Hands lines to a thread that writes them."""

    def __init__(self, stream: TextIO, most_lines: int = _MOST_LINES) -> None:
        super().__init__()
        self._stream = stream
        # An event is set when all lines before it have been written; None ends the thread.
        self._queue: queue.Queue[str | threading.Event | None] = queue.Queue(most_lines)
        self._n_dropped = 0
        threading.Thread(target=self._write_all, name="edgesppo-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. Callers hold the handler's lock."""
        line = self.format(record)
        if self._n_dropped:
            line = f"{self._n_dropped} lines of the log were dropped: nobody read them\n{line}"
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._n_dropped += 1
        else:
            self._n_dropped = 0

    def flush(self) -> None:
        """Wait until what was logged has been written, but not for long."""
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._queue.put(written, timeout=_LAST_LINES_S)
            written.wait(_LAST_LINES_S)

    def close(self) -> None:
        """End the thread, unless it waits for a reader."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        super().close()

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            with contextlib.suppress(OSError, ValueError):  # nobody can read it any more
                _write(self._stream, f"{item}\n")


def _write(stream: TextIO, text: str) -> None:
    """Write past the stream's lock: whoever waits with that keeps the interpreter from ending."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # it is in memory
        stream.write(text)
        stream.flush()
        return
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(descriptor, data) :]
