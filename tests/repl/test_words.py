"""Lists, the last turn, progress and status lines, and how they fit the terminal."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from edgesppo.chat.messages import Message
from edgesppo.repl import status
from edgesppo.repl.commands.export import to_json, to_markdown
from edgesppo.repl.input import PlainReader
from edgesppo.repl.last_turn import recap
from edgesppo.repl.quotes import is_open, unquoted
from edgesppo.repl.status import longest
from edgesppo.terminal.cells import width
from edgesppo.terminal.columns import format_columns, wrap_words
from edgesppo.terminal.screen import Screen

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = [
    ("temperature", "0.7", "0 always takes the most probable token (0, 0.0001 to 100)"),
    ("日本", "penalties, dry, top_k, typical_p", "what is drawn, in this order"),
    ("stop", "none", "a word"),
]


def test_a_message_that_leaves_no_room_for_an_answer_is_too_long() -> None:
    assert status.long_message(511, 512)[0] == "this message: 511 of 512 tokens"
    assert status.long_message(512, 512)[0].endswith("512 tokens or more, 511 fit")


def test_the_last_column_is_wrapped_beside_the_others() -> None:
    assert format_columns(ITEMS, 60) == [
        "  temperature  0.7   0 always takes the most probable token",
        "                     (0, 0.0001 to 100)",
        "  日本         penalties, dry, top_k, typical_p",
        "                     what is drawn, in this order",
        "  stop         none  a word",
    ]


def test_in_a_narrow_terminal_the_last_column_goes_below() -> None:
    rows = format_columns(ITEMS, 40)
    assert rows[:3] == [
        "  temperature  0.7",
        "      0 always takes the most probable",
        "      token (0, 0.0001 to 100)",
    ]


@pytest.mark.parametrize("columns", [12, 30, 60, 100, 200])
def test_a_list_loses_no_word_and_keeps_to_its_columns(columns: int) -> None:
    rows = format_columns(ITEMS, columns)
    assert " ".join(" ".join(rows).split()) == " ".join(" ".join(item) for item in ITEMS)
    longest_word = max(width(" ".join(item[:2])) for item in ITEMS) + 20
    assert all(width(row) <= max(columns, longest_word) for row in rows)
    assert len(format_columns(ITEMS, None)) == len(ITEMS)


def test_a_word_longer_than_a_row_starts_no_new_row() -> None:
    assert wrap_words("  file  /a/very/long/path to it", 12) == [
        "  file  /a/very/long/path",
        "  to it",
    ]


def test_a_long_turn_is_shortened_and_every_row_is_marked() -> None:
    answer = "\x1b[2J\tfirst\n\n" + "\n".join(f"line {n}" for n in range(40)) + "\n" + "word " * 200
    rows = recap([Message("user", "a\nb"), Message("assistant", answer)] * 2, 60)
    assert rows[:3] == ["(the last of 2 turns)", "  | you: a", "  |      b"]
    assert "\x1b" not in "".join(rows)
    assert any("[... 34 more lines]" in row for row in rows)
    assert rows[-1].endswith("[...]")
    assert all(row.startswith("  | ") and width(row) <= 60 for row in rows[1:])
    assert len(rows) < 24
    assert recap([], 60) == []
    stopped = [Message("user", "a"), Message("assistant", "b", None, "cancelled")]
    assert recap(stopped, 60)[-2:] == ["  | answer: b", "  |         (stopped)"]
    assert "## Answer (stopped)" in to_markdown("t", "m", None, stopped)
    assert '"finish_reason": "cancelled"' in to_json("m", None, {}, stopped)


def test_a_long_prompt_is_reported_in_lines_without_redrawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen, heard, said = Screen(redraws=False, styled=False), threading.Event(), list[str]()
    monkeypatch.setattr(screen, "say", lambda text: (said.append(text), heard.set()))
    monkeypatch.setattr(status, "_LINE_S", 0.001)
    prefill = status.Prefill(screen, 0.0)
    prefill.expect(6000, 1000)
    with prefill:
        assert heard.wait(60)
    assert said[0] == "processing the prompt: 1,000 of 6,000 tokens (Ctrl-C: stop)"
    told = len(said)
    with status.Prefill(screen, 0.0, shows_progress=False) as prefill:
        assert not prefill._thread.is_alive()
    assert len(said) == told


def test_the_longest_version_that_fits_is_shown() -> None:
    lines = ["model | 10 of 512", "10 of 512", "2%"]
    assert [longest(lines, n) for n in (17, 16, 9, 8, 1)] == [*lines[:2], *lines[1:], "2"]


def test_a_program_that_begins_with_a_docstring_can_be_sent() -> None:
    for text in ('"""Doc."""\nimport os', '"""Doc\nof two"""\nx = """y"""'):
        assert not is_open(text)
        assert unquoted(text) == text
    for text in ('"""', '"""a', '""""', '"""a\n"b" """c'):
        assert is_open(text)
    for text, inner in [('"""a\nb"""', "a\nb"), (' """\na\n""" ', "a"), ('""""""', "")]:
        assert not is_open(text)
        assert unquoted(text) == inner


def test_a_damaged_history_does_not_prevent_a_plain_chat(
    fresh_home: Path,
) -> None:
    (fresh_home / "history").write_bytes(b"\n# then\n+a\0b\n\n# now\n+fine\n")
    assert PlainReader(print)
