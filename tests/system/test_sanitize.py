"""What a terminal would obey or hide is shown as what it is; emoji and scripts stay as written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesppo.system.sanitize import Printable, one_line, printable

WALES = "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbwls") + "\U000e007f"
KEPT = [
    "👩\u200d💻 🏳\ufe0f\u200d🌈 👁\ufe0f\u200d🗨\ufe0f ⛹🏿\u200d♂\ufe0f 1\ufe0f\u20e3 ☺\ufe0e",
    f"{WALES} won",
    "می\u200cخواهم ه\u200d \u200dه",
    "क\u094d\u200dष ക\u0d4d\u200d ශ\u0dca\u200dර",
    "ไทย\u200bภาษา ខ្មែរ\u200bភាសា",
    "\u1820\u180b \u845b\U000e0100 \u2229\ufe00",
    "שלום\u200f! (\u061cعربي)",
    "tabs\tand\nlines, é, ﷺ, 日本",
]
SHOWN = {
    "\x1b[2J": "\\x1b[2J",
    "a\rb\x9b": "a\\x0db\\x9b",
    "\udcff": "\\xff",
    "exe.\u202egpj": "exe.\\u202egpj",
    "\u202a\u202b\u202c\u202d": "\\u202a\\u202b\\u202c\\u202d",
    "\u2066a\u2067b\u2068c\u2069": "\\u2066a\\u2067b\\u2068c\\u2069",
    "a\u2028b\u2029": "a\\u2028b\\u2029",
    "a\u200bb\u200cc\u200dd": "a\\u200bb\\u200cc\\u200dd",
    "a\u2060\u2063\ufeff\xad\u3164": "a\\u2060\\u2063\\ufeff\\xad\\u3164",
    "hi\U000e0048\U000e0049": "hi\\U000e0048\\U000e0049",
    "\U0001f3f4\U000e0067x": "\U0001f3f4\\U000e0067x",
    "a\u200eb\u200f": "a\\u200eb\\u200f",
    "a\ufe0f 😀\ufe01\ufe0f\ufe0f": "a\\ufe0f 😀\\ufe01\\ufe0f\\ufe0f",
    "😀\u200da": "😀\\u200da",
    "ab\U000e0100": "ab\\U000e0100",
    "ש\u200f\u200f\u200f": "ש\u200f\\u200f\\u200f",
}


@pytest.mark.parametrize("text", KEPT)
def test_what_emoji_and_scripts_need_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", SHOWN)
def test_what_a_terminal_would_obey_or_hide_is_shown(text: str) -> None:
    assert printable(text) == SHOWN[text]
    assert one_line(f"file {text}!").isascii() or not text.isascii()


def test_separators_in_one_line_are_shown_and_blanks_are_joined() -> None:
    assert one_line("\u2028" * 9, 20) == "\\u2028\\u2028\\u202..."
    assert one_line(" a\t\nb\u2028c\u2029d\x85e\x1cf ") == "a b\\u2028c\\u2029d\\x85e\\x1cf"


@given(st.lists(st.sampled_from([*"".join([*KEPT, *SHOWN])]), max_size=30), st.integers(1, 4))
def test_a_text_in_parts_is_shown_like_the_whole(letters: list[str], n: int) -> None:
    text, parts = "".join(letters), Printable()
    shown = [parts.decode(text[at : at + n]) for at in range(0, len(text), n)]
    assert "".join(shown) + parts.flush() == printable(text)


@given(st.text())
def test_what_is_shown_is_shown_the_same_again(text: str) -> None:
    assert printable(printable(text)) == printable(text)
