"""Streamed answers as rendered Markdown, independent of the pieces in which they arrive."""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesppo.terminal import cells, markdown, style
from edgesppo.terminal.highlight import Highlighter
from edgesppo.terminal.screen import Screen
from edgesppo.terminal.stream import PlainText, StyledText
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER = """\
# A `heading`

Some *italic* and **bold text**, and a sentence that is long enough to be broken between two rows.

- **First**: an item that is long enough to be broken as well, and hangs.
1. `snake_case` and 2 * 3 * 4 = 24

> a quote

| Name | n |
|:--|--:|
| 日本 | 1.5 |
| b | 22 |

```python
def f(x):
    return "a  b"  # why
```
The end, with [a link](https://example.org)."""
PIECES = st.lists(st.text(alphabet=" \n*_`#-|>ab1.日é👍", max_size=8), max_size=12)


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class Shown:
    """A screen whose output goes to a terminal emulator."""

    def __init__(self, columns: int = 60, lines: int = 40) -> None:
        self.display = pyte.Screen(columns, lines)
        self.display.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self.display)
        self.written = ""
        self.screen = Screen(redraws=True, styled=True)
        self.columns, self.lines = columns, lines

    def patch(self, patch: pytest.MonkeyPatch) -> Shown:
        size = property(lambda _: os.terminal_size((self.columns, self.lines)))
        patch.setattr(Screen, "size", size)
        patch.setattr(Screen, "utf8", True)
        patch.setattr(self.screen, "write", self._write)
        return self

    def _write(self, text: str) -> None:
        self.written += text
        self._stream.feed(text)

    def rows(self) -> list[str]:
        return "\n".join(row.rstrip() for row in self.display.display).rstrip().split("\n")


def _shown(pieces: Sequence[str], columns: int = 60, lines: int = 40) -> Shown:
    with pytest.MonkeyPatch.context() as patch:
        shown = Shown(columns, lines).patch(patch)
        renderer = StyledText(shown.screen)
        for piece in pieces:
            renderer.feed(piece)
        renderer.finish()
    return shown


def test_an_answer_is_rendered() -> None:
    assert _shown([ANSWER]).rows() == [
        "A heading",
        "",
        "Some italic and bold text, and a sentence that is long",
        "enough to be broken between two rows.",
        "",
        "• First: an item that is long enough to be broken as well,",
        "  and hangs.",
        "1. snake_case and 2 * 3 * 4 = 24",
        "",
        "│ a quote",
        "",
        "Name     n",
        "──────────",
        "日本   1.5",
        "b       22",
        "",
        "```python",
        "def f(x):",
        '    return "a  b"  # why',
        "```",
        "The end, with a link (https://example.org).",
    ]


@pytest.mark.parametrize("text", ["2*3*4", "a*b*c", "*.py and *.md", "x**2 + y**2", "f(*a, *b)"])
def test_a_literal_star_is_kept(text: str) -> None:
    assert _shown([text]).rows() == [text]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rendering_does_not_depend_on_the_pieces(size: int) -> None:
    pieces = [ANSWER[at : at + size] for at in range(0, len(ANSWER), size)]
    whole, cut = _shown([ANSWER]), _shown(pieces)
    assert cut.rows() == whole.rows()
    assert cut.display.buffer == whole.display.buffer, "the styles differ"


def test_each_block_is_overwritten_at_most_once() -> None:
    shown = _shown(list(ANSWER))
    rendered = shown.written.count("\x1b[?2026h")
    assert rendered <= len(ANSWER.split("\n"))
    plain = _shown(list("Nothing to render here.\nNor here.\n"))
    assert "\x1b" not in plain.written


@settings(max_examples=100, deadline=None)
@given(PIECES)
def test_any_text_in_any_pieces_ends_on_the_same_screen(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert _shown(pieces, lines=80).rows() == _shown([text], lines=80).rows()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab *_`[]()~\\日👍", max_size=60))
def test_rendering_loses_no_letter(text: str) -> None:
    found = cells.text_of(markdown.line(text, markdown.ASCII, 80).cells)
    letters = re.sub(r"[^ab日👍]", "", text)
    assert re.sub(r"[^ab日👍]", "", found) == letters


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abc  日👍é", max_size=120), st.integers(2, 30))
def test_wrapping_keeps_to_the_width_and_loses_no_word(text: str, columns: int) -> None:
    rows = [cells.text_of(row) for row in cells.wrap(cells.cells(text), columns)]
    assert all(cells.width(row) <= columns for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")


HOSTILE = [
    *("`", " `", "` ``", "*a ", "**a ", "***a ", "_a ", "[", "[a](", ">  ", "> ", "- ", "# "),
    *("#", " ", "~~~", "~", "|", "| -", "\t", "\\", "`**"),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_endless_repetitions_are_rendered_without_losing_text(piece: str) -> None:
    many = piece * (1000 if LONG else 300)
    for source in (many + "x", "# " + many + "x", "```" + many + "x`"):
        shown = _shown([source + "\n"], lines=400)
        assert shown.rows()[-1].endswith(("x", "x`")), "the end is missing"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`a` and ``b`c``", "a and b`c"),
        ("``a` b", "``a` b"),
        ("\\`a `b`", "`a b"),
        ("**a `b` c**", "a b c"),
        ("# C# #", "C#"),
        ("# On C#", "On C#"),
        ("> > deep", "│ │ deep"),
        ("> " * 20 + "x", "│ " * 8 + "> " * 12 + "x"),
    ],
)
def test_backticks_headings_and_quotes_end_where_they_should(text: str, found: str) -> None:
    assert cells.text_of(markdown.line(text, markdown.Symbols(), 80).cells) == found


def test_a_bug_in_rendering_does_not_lose_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RecursionError

    for name in ("line", "table"):
        monkeypatch.setattr(markdown, name, fails)
    monkeypatch.setattr(Highlighter, "_highlighted", fails)
    answer = "**bold**\n| a |\n|---|\n\n```python\nx = 1\n```"
    assert _shown([answer]).rows() == answer.split("\n")


def test_code_is_not_wrapped() -> None:
    code = "```c\nint main(void) { return 0; } // " + "long " * 30 + "\n\tx\n```\n"
    shown = _shown(list(code), columns=40)
    assert shown.written.count("\n") == code.count("\n"), "code must not be wrapped"
    assert "│" not in shown.written


@pytest.mark.parametrize("language", ["python", "c", "json", "html", "no-such-language", ""])
def test_highlighting_loses_no_character(language: str) -> None:
    highlighter = Highlighter(language)
    for line in [
        "def f(x):",
        '    """doc',
        "",
        "  # c <b>&amp;</b>\t",
        '{"a": [1, "é"]} // x',
        "🙂",
    ]:
        assert cells.text_of(highlighter.line(line)) == line


def test_an_endless_lexer_is_stopped() -> None:
    assert Highlighter("mcschema").line("<!--") == [("<!--", "")]


def test_only_colours_readable_on_light_and_dark_are_used() -> None:
    answer = (
        ANSWER + "\n```json\n" + '{"a": [1, null, "b"]}\n```\n```html\n<b class="x">&amp;</b>\n```'
    )
    codes = set(";".join(re.findall(r"\x1b\[([0-9;]+)m", _shown([answer]).written)).split(";"))
    assert codes <= {"0", "1", "2", "3", "4", "9", style.GREEN, style.MAGENTA}


def test_a_block_that_no_longer_fits_or_whose_screen_changed_stays_plain() -> None:
    tall = _shown(["**bold** " + "word " * 200], columns=20, lines=8)
    assert "\x1b[?2026h" not in tall.written
    with pytest.MonkeyPatch.context() as patch:
        shown = Shown().patch(patch)
        renderer = StyledText(shown.screen)
        renderer.feed("**bold")
        shown.columns = 40
        renderer.feed("** here")
        renderer.finish()
    assert shown.rows() == ["**bold** here"]


@pytest.mark.parametrize("renderer", [StyledText, PlainText])
def test_an_answer_cannot_control_the_terminal(
    renderer: type[StyledText | PlainText], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Shown().patch(monkeypatch)
    monkeypatch.setattr("sys.stdout", _Tty())
    made = renderer(shown.screen)
    for piece in ["\x1b]0;title\x07", "\x9b2J", "`\x1b", "[2J`\r", "```\n\x1b[31mred\n```\n"]:
        made.feed(piece)
    made.finish()
    own = re.compile(r"\x1b\[(\?2026[hl]|[0-9]*[AJK]|[0-9;]*m)")
    assert not re.search("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]", own.sub("", shown.written))
    assert "\\x1b[31mred" in "\n".join(shown.rows())


def test_a_terminal_without_utf8_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    monkeypatch.setattr("sys.stdout", out)
    renderer = StyledText(Screen(redraws=True, styled=True))
    renderer.feed("- é\n")
    renderer.finish()
    assert b"* ?\n" in out.buffer.getvalue()  # type: ignore[attr-defined]
