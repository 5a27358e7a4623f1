"""Make text from files, models and networks safe to show: a terminal must not obey it, or hide it.

Shown as what they are, such as \\x1b or \\u202e: control characters, surrogates, and characters
that reorder or hide text (bidirectional controls, invisible characters, line and paragraph
separators, tags). Joiners and selectors stay where emoji and scripts need them.
"""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 control characters except \t and \n; surrogates, which stand for the bytes of a file's
# name that are not text; and everything that Unicode calls a format character or ignorable, but
# for those with a shape (Arabic, Syriac, Kaithi and Egyptian signs).
_DOUBTFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# What a line has a single space for; other separators are shown as what they are.
_BLANK = " \t\n\r\f\v"
_BLANKS = re.compile(f"[{_BLANK}]+")
_NON_JOINER, _JOINER = "\u200c", "\u200d"
_WORD_BREAK = "\u200b"
_MARKS = "\u200e\u200f\u061c"  # each gives its neighbours a direction, and no more
_LAST = "\ufe0f"  # selects the emoji, as its text is U+FE0E
_FLAG = "\U0001f3f4"  # what follows in tags is a country's part, up to the end tag
_REGIONS = ("gbeng", "gbsct", "gbwls")  # the flags that Unicode recommends
_TAGS = ["".join(chr(0xE0000 + ord(c)) for c in name) + "\U000e007f" for name in _REGIONS]
_KEYS = "0123456789#*"
# Blocks whose letters are joined, or kept apart, by joiners: Arabic to N'Ko, Mandaic to Sinhala,
# Tibetan, Myanmar, Khmer and Mongolian, the Brahmic scripts, and the newer ones beyond U+FFFF.
_JOINING = (
    *((0x0600, 0x077F), (0x07C0, 0x07FF), (0x0840, 0x0DFF), (0x0F00, 0x109F), (0x1700, 0x18AF)),
    *((0x1900, 0x1CFF), (0xA800, 0xAADF), (0xABC0, 0xABFF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    *((0x10A00, 0x10FFF), (0x11000, 0x11FFF), (0x1E900, 0x1E95F)),
)
# Thai and Lao, Tibetan, Myanmar, Khmer, Tai Le to Tai Tham: words without spaces between them.
_UNSPACED = ((0x0E00, 0x109F), (0x1780, 0x17FF), (0x1950, 0x1AAF))
_MONGOLIAN, _HANGUL_JAMO = ((0x1800, 0x18AF),), ((0x1100, 0x11FF), (0xA960, 0xD7FF))
_CONTEXT = 16  # characters at the end of a part that what follows may depend on
# The end of a part that the next one decides about.
_UNDECIDED = re.compile(
    f"(?:[{_WORD_BREAK}{_JOINER}{_MARKS}\u115f\u1160]|(?<={_FLAG})[\U000e0020-\U000e007e]{{1,6}})\\Z"
)


class Printable:
    """Makes a text that comes in parts safe to show: `decode` each part, then `flush`.

    The last characters may have to wait for the next part, which decides whether they are needed.
    """

    def __init__(self) -> None:
        self._before = ""  # what was decoded last
        self._held = ""

    def decode(self, text: str) -> str:
        """The next part, as it is to be shown."""
        text = self._held + text
        waiting = _UNDECIDED.search(self._before[-1:] + text)
        end = len(text) - (len(waiting[0]) if waiting else 0)
        text, self._held = text[:end], text[end:]
        return self._shown(text, self._held)

    def flush(self) -> str:
        """The text that was held back, as it is to be shown at the end."""
        held, self._held = self._held, ""
        return self._shown(held, "")

    def _shown(self, text: str, after: str) -> str:
        before, whole = len(self._before), self._before + text + after
        self._before = (self._before + text)[-_CONTEXT:]
        if not _DOUBTFUL.search(text):
            return text

        def show(match: re.Match[str]) -> str:
            at = before + match.start()
            return match[0] if _is_needed(whole, at) else _escaped(match[0])

        return _DOUBTFUL.sub(show, text)


def printable(text: str) -> str:
    """The text with what a terminal would obey or hide escaped, such as \\x1b."""
    if not _DOUBTFUL.search(text):
        return text
    parts = Printable()
    return parts.decode(text) + parts.flush()


def one_line(text: str, limit: int | None = None) -> str:
    """Like `printable`, on one line: single spaces, cut to `limit` characters."""
    joined = " ".join(_BLANKS.split(text.strip(_BLANK)))
    if limit is None:
        return printable(joined)
    shown = printable(joined[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _escaped(letter: str) -> str:
    """The escape of a character; a surrogate stands for a byte of a file's name."""
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        code &= 0xFF
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def _is_needed(text: str, at: int) -> bool:
    """Whether the doubtful character at this place has a work to do there."""
    letter = text[at]
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    if letter in (_JOINER, _NON_JOINER):
        if letter == _JOINER and _is_symbol(after):
            return _is_symbol(before) or (before == _LAST and _is_needed(text, at - 1))
        return _is_letter_of(before, _JOINING) or (
            letter == _JOINER and not before.strip() and _is_letter_of(after, _JOINING)
        )
    if letter == _WORD_BREAK:
        return _is_letter_of(before, _UNSPACED) and _is_letter_of(after, _UNSPACED)
    if letter in _MARKS:
        return _is_right_to_left(before) or _is_right_to_left(after)
    if "\ufe00" <= letter <= _LAST:
        return _can_vary(before, letter)
    if "\U000e0100" <= letter <= "\U000e01ef":
        return unicodedata.category(before or " ") == "Lo" and before > "\u2e7f"  # an ideograph
    if "\u180b" <= letter <= "\u180f":
        return _is_letter_of(before, _MONGOLIAN)
    if letter in "\u115f\u1160":  # fillers of a syllable that lacks a part
        return _is_letter_of(before, _HANGUL_JAMO) or _is_letter_of(after, _HANGUL_JAMO)
    return "\U000e0020" <= letter <= "\U000e007f" and _is_in_flag(text, at)


def _is_in_flag(text: str, at: int) -> bool:
    """Whether a tag belongs to one of the flags that are spelled in tags."""
    start = text.rfind(_FLAG, 0, at) + 1
    return start > 0 and any(
        text.startswith(tags, start) and at < start + len(tags) for tags in _TAGS
    )


def _is_symbol(letter: str) -> bool:
    """Whether it is a pictograph, or what changes the colour of one."""
    return letter > "\u2100" and unicodedata.category(letter) in ("So", "Sm", "Sk")


def _can_vary(letter: str, selector: str) -> bool:
    """Whether a character has variants: keys and pictographs two, letters and signs others."""
    if not letter or letter.isascii():
        return letter != "" and letter in _KEYS
    kind = unicodedata.category(letter)
    return kind[0] in "LNP" or kind == "Sm" or (kind[0] == "S" and selector >= "\ufe0e")


def _is_letter_of(letter: str, blocks: tuple[tuple[int, int], ...]) -> bool:
    """Whether it is a letter or mark of one of the blocks."""
    return (
        letter != ""
        and unicodedata.category(letter)[0] in "LM"
        and any(first <= ord(letter) <= last for first, last in blocks)
    )


def _is_right_to_left(letter: str) -> bool:
    is_letter = letter != "" and letter not in _MARKS
    return is_letter and unicodedata.bidirectional(letter) in ("R", "AL")
