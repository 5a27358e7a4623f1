"""Notices are warnings of a logger; a command collects and shows them, each once."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.chat.chat import Chat
from edgesppo.cli import main
from edgesppo.system import notices

if TYPE_CHECKING:
    from pathlib import Path


def test_a_python_program_gets_them_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    notices.notify("100 % slow")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("edgesppo", "WARNING")
    assert record.getMessage() == "100 % slow"
    assert notices.take() == []


def test_a_handler_that_fails_does_no_harm() -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError(record)

    logger, handler = logging.getLogger("edgesppo"), Failing()
    logger.addHandler(handler)
    notices.notify("slow")
    logger.removeHandler(handler)


def test_what_is_collected_is_given_once_and_no_longer_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with notices.collected():
        notices.notify("one")
        notices.notify("two")
        assert notices.take() == ["one", "two"]
        assert notices.take() == []
        notices.notify("three")
    with notices.collected():
        assert notices.take() == [], "what an earlier command left is not shown by this one"
    assert not logging.getLogger("edgesppo").handlers
    assert sys.stderr.getvalue() == ""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer of this test gives a notice."""
    stream = Chat.stream

    def noting(chat: Chat, *arguments: object, **options: object) -> object:
        notices.notify("other programs\nare busy")
        return stream(chat, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Chat, "stream", noting)


@pytest.mark.usefixtures("slow")
def test_run_shows_them_on_standard_error_after_the_answer(demo_gguf: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(demo_gguf), "Who are you?"])
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == "edgesppo: other programs are busy"
    assert "busy" not in result.stdout


@pytest.mark.usefixtures("slow")
def test_a_chat_shows_them_after_the_answer(demo_gguf: Path) -> None:
    result = CliRunner().invoke(main, ["chat", str(demo_gguf)], input="Who are you?\n")
    assert result.exit_code == 0
    assert result.stderr.count("(other programs are busy)") == 1
    assert "busy" not in result.stdout
