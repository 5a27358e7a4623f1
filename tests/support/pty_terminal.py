"""A child process on a pseudo-terminal: typing keys, waiting for output, reading the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from pathlib import Path

ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|[=>]|\][^\x07]*\x07)")
PATIENCE_S = 60
AGAIN_S = 5  # more than the second within which two Ctrl-C leave a chat


class Terminal:
    """Runs a command on a pseudo-terminal.

    `screen` holds all bytes that were written, `display` the screen as pyte emulates it.
    """

    def __init__(
        self,
        command: list[str],
        *,
        columns: int = 80,
        lines: int = 24,
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        self._master, slave = pty.openpty()
        self.display = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream = pyte.ByteStream(self.display)
        self.resize(columns, lines)
        own = {"TERM": "xterm-256color", **environment}
        usual = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**usual, **own},
            start_new_session=True,
            # Make it the controlling terminal, so that Ctrl-C typed there raises SIGINT.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.screen = b""
        self._seen = 0

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.display.resize(lines, columns)

    def expect(self, text: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until `text` appears after the text that was last waited for."""
        deadline = time.monotonic() + patience_s
        while (at := self._plain().find(text.encode(), self._seen)) < 0:
            self._read(max(0, deadline - time.monotonic()), repr(text))
        self._seen = at + len(text.encode())

    def _read(self, patience_s: float, wanted: str) -> None:
        ready, _, _ = select.select([self._master], [], [], patience_s)
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:
            data = b""
        assert data, f"{wanted} did not come; last was {self._plain()[-300:]!r}"
        self.screen += data
        self._stream.feed(data)
        if b"\x1b[6n" in data:  # answer the request for the cursor position
            cursor = self.display.cursor
            os.write(self._master, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())

    def wait_for_more(self, n_bytes: int) -> None:
        """Wait until at least `n_bytes` more have been written."""
        wanted = len(self.screen) + n_bytes
        while len(self.screen) < wanted:
            self._read(PATIENCE_S, f"{n_bytes} more bytes")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode("utf-8", "surrogateescape"))

    def interrupt(self, text: str) -> None:
        """Press Ctrl-C at a question or a plain prompt, and wait for `text`.

        Python misses a Ctrl-C that comes between its prompt and its first wait for a key: a
        person presses it again, and so does this.
        """
        for _ in range(PATIENCE_S // AGAIN_S):
            self.type("\x03")
            with suppress(AssertionError):
                return self.expect(text, AGAIN_S)
        raise AssertionError(f"{text!r} did not come; last was {self._plain()[-300:]!r}")

    def rows(self) -> list[str]:
        """The rows on the screen, and those that have scrolled off."""
        above = [
            "".join(line[x].data for x in range(self.display.columns))
            for line in self.display.history.top
        ]
        rows = [row.rstrip() for row in [*above, *self.display.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _plain(self) -> bytes:
        return ESCAPES.sub(b"", self.screen)

    def close(self) -> int:
        """Read the output to its end; return the exit code."""
        while True:
            try:
                self._read(PATIENCE_S, "the end")
            except AssertionError:
                break
        code = self.process.wait(PATIENCE_S)
        os.close(self._master)
        return code

    def __del__(self) -> None:
        if self.process.poll() is None:  # a test that failed
            self.process.kill()
            self.process.wait()

    def abandon(self) -> int:
        """Close the terminal as when its window is closed; return the exit code."""
        os.close(self._master)
        return self.process.wait(PATIENCE_S)
