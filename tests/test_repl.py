"""The chat on a real terminal: a pseudo-terminal with a person's keys."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time

import pytest

from edgesppo_convert import convert
from tests.checkpoints import SHAPES, resized, write_checkpoint

if os.name == "nt":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

import fcntl
import pty
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|[=>]|\][^\x07]*\x07)")
PATIENCE_S = 60


class Terminal:
    """A child on a pseudo-terminal: type keys, wait for text."""

    def __init__(self, command: list[str]) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            # Its own terminal: so that Ctrl-C typed there is a signal here.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.screen = b""
        self._seen = 0

    def expect(self, text: str) -> None:
        """Wait until `text` appears after what was last waited for."""
        deadline = time.monotonic() + PATIENCE_S
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
        self._answer_queries(data)
        self.screen += data

    def wait_for_more(self, n_bytes: int) -> None:
        """Wait until so much more has been written, whatever it is."""
        wanted = len(self.screen) + n_bytes
        while len(self.screen) < wanted:
            self._read(PATIENCE_S, f"{n_bytes} more bytes")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def _plain(self) -> bytes:
        return ESCAPES.sub(b"", self.screen)

    def _answer_queries(self, data: bytes) -> None:
        if b"\x1b[6n" in data:  # a terminal tells where its cursor is
            os.write(self._master, b"\x1b[1;1R")

    def close(self) -> int:
        code = self.process.wait(PATIENCE_S)
        os.close(self._master)
        return code


@pytest.fixture
def chat(demo_gguf: Path) -> Terminal:
    command = [sys.executable, "-m", "edgesppo", "chat", str(demo_gguf), "--temperature", "0"]
    return Terminal(command)


def test_a_chat_of_two_turns_and_ctrl_d(chat: Terminal) -> None:
    chat.expect("context")
    chat.expect("Ctrl-D leaves")
    chat.expect(">>>")
    chat.type("My name is Ada.\r")
    chat.expect("t/s")
    chat.type("What is my name?\r")
    chat.expect("What is my name?")
    chat.expect("Ada")
    chat.expect("t/s")
    chat.expect(">>>")
    chat.type("\x04")
    assert chat.close() == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave(chat: Terminal) -> None:
    chat.expect(">>>")
    chat.type("half a thought\x03")
    chat.expect("(Ctrl-D or /exit leaves)")
    chat.type("/help\r")
    chat.expect("/regen")
    chat.type("/exit\r")
    assert chat.close() == 0


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(tmp_path: Path) -> None:
    """Random weights babble on, and have a context long enough for a person to lose patience."""
    shape = resized(SHAPES["tiny"], context=8192)
    model = convert(write_checkpoint(tmp_path / "babbler", shape), tmp_path / "babbler.gguf").output
    command = [sys.executable, "-m", "edgesppo", "chat", str(model), "--temperature", "0"]
    chat = Terminal([*command, "--max-tokens", "8000"])
    chat.expect(">>>")
    chat.type("Hello\r")
    chat.expect("Hello")
    chat.wait_for_more(500)
    chat.type("\x03")
    chat.expect("(stopped)")
    chat.expect("t/s")
    chat.expect(">>>")
    chat.type("/exit\r")
    assert chat.close() == 0
