"""Text piped into the chat: UTF-8 in any locale, without a byte order mark, or refused."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import main
from edgesppo.errors import UsageError
from edgesppo.repl import piped
from edgesppo.repl.quotes import unquoted

if TYPE_CHECKING:
    from pathlib import Path

BOM = b"\xef\xbb\xbf"


def _messages(data: bytes, encoding: str = "utf-8") -> list[tuple[str, str | None]]:
    stream = io.TextIOWrapper(io.BytesIO(data), encoding=encoding)
    return [(message.text, message.fault) for message in piped.messages(stream)]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize(
    "data",
    [
        "é\n/help\n".encode(),
        BOM + "é\r\n/help\r\n".encode(),
        BOM + '"""\né\n"""\n'.encode() + BOM + b"/help",
    ],
)
def test_a_byte_order_mark_goes_in_any_locale(data: bytes, encoding: str) -> None:
    assert [(unquoted(text), why) for text, why in _messages(data, encoding)] == [
        ("é", None),
        ("/help", None),
    ]


@pytest.mark.parametrize(
    "data",
    [
        "Who are you?\nAnd I?\n".encode("utf-16"),
        b"\xfe\xff" + "Who?\n".encode("utf-16-be"),
        "Who are you?\n".encode("utf-16-le"),
        "Who are you?\n".encode("utf-16-be"),
        "Who are you?\n".encode("utf-32"),
    ],
)
def test_utf_16_and_32_are_refused_as_a_whole_by_chat_and_run(demo_gguf: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^standard input is not UTF-8 .*; save it as UTF-8$"):
        _messages(data)
    for words in (["run", str(demo_gguf)], ["chat", str(demo_gguf)]):
        said = CliRunner().invoke(main, words, input=data)
        assert (said.exit_code, said.stdout) == (1, "")
        encoding = "UTF-32" if data.startswith(b"\xff\xfe\0\0") else "UTF-16"
        assert encoding in said.stderr
        assert "save it as UTF-8" in said.stderr


def test_an_invalid_byte_is_named_with_its_line_and_position() -> None:
    text = b'one\ncaf\xe9\n/system \xff\n"""\nb\xfcr\n"""\ntwo\n'
    faults = [fault for _, fault in _messages(text)]
    assert faults == [
        None,
        r"line 2 of standard input is not UTF-8 text: byte b'\xe9' at position 3; save it as UTF-8",
        r"line 3 of standard input is not UTF-8 text: byte b'\xff' at position 8; save it as UTF-8",
        r"line 5 of standard input is not UTF-8 text: byte b'\xfc' at position 1; save it as UTF-8",
        None,
    ]


def test_a_message_longer_than_any_context_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(piped, "MAX_BYTES", 100)
    for data in (b"x" * 5000, b'"""\n' + b"x\n" * 5000):
        with pytest.raises(UsageError, match=r"more than 100 characters.*shorten it"):
            _messages(data)


def test_an_answer_comes_before_the_next_line_is_written() -> None:
    class Waiting(io.BytesIO):
        """A pipe whose other end writes the second line only after the first answer."""

        answered = False

        def read1(self, _size: int | None = -1) -> bytes:
            return b"second\n" if self.answered else b"first\n"

    pipe = Waiting()
    messages = iter(piped.messages(io.TextIOWrapper(pipe, encoding="utf-8")))
    assert next(messages).text == "first"
    pipe.answered = True
    assert next(messages).text == "second"
