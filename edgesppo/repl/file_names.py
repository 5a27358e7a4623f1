"""File names in a command line: quoted or escaped as in a shell, several, and with wildcards.

Quotes keep spaces and wildcards as they are. A backslash does so for one character, except on
Windows, where it separates folders. A name that exists exactly as typed needs no quotes.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgesppo.errors import UsageError
from edgesppo.system.validate import quoted

MOST_FILES = 1000  # that one wildcard may match
_ESCAPES = os.name != "nt"
_QUOTES = "\"'" if _ESCAPES else '"'
_WILD = "*?["


@dataclass
class Word:
    """One name: its text without quotes, and the same as a pattern for `glob`."""

    text: str = ""
    pattern: str = ""
    wild: bool = False  # whether the pattern has a wildcard

    def add(self, character: str, *, literal: bool) -> None:
        """Append a character; a literal one is not a wildcard."""
        self.text += character
        self.wild |= character in _WILD and not literal
        self.pattern += glob.escape(character) if literal else character


def split(line: str) -> tuple[list[Word], str]:
    """The words of a line, and the quote that is still open at its end, or "".

    The last word is empty if the line ends with a space.
    """
    words, quote, inside = [Word()], "", False
    characters = iter(line)
    for character in characters:
        if character == "\\" and _ESCAPES and quote != "'":
            following = next(characters, "")
            kept = "\\" if quote and following not in ('"', "\\") else ""
            for one in (kept + following) or "\\":
                words[-1].add(one, literal=True)
            inside = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                words[-1].add(character, literal=True)
        elif character in _QUOTES:
            quote, inside = character, True
        elif character.isspace():
            if inside:
                words.append(Word())
            inside = False
        else:
            words[-1].add(character, literal=False)
            inside = True
    return words, quote


def existing(line: str) -> tuple[list[str], list[str]]:
    """The files that a line names, in order, each once; and what is wrong with the others."""
    words, quote = split(line)
    words = [word for word in words if word.text.strip()]
    several = len(words) > 1 and all(_exists(word.text) for word in words)
    if _exists(line) and not several:
        return [line], []
    if quote:
        raise _unclosed(line, quote)
    files: dict[str, None] = {}
    faults: list[str] = []
    for word in words:
        if not word.wild or _exists(word.text):
            files[word.text] = None
        elif found := _matching(word):
            files.update(dict.fromkeys(found))
        else:
            faults.append(f"no file matches {word.text}")
    return [*files], faults


def _matching(word: Word) -> list[str]:
    """The files, not folders, that a pattern matches, sorted. Raises UsageError for too many."""
    try:
        # Path.glob takes no absolute pattern.
        found = glob.iglob(str(_at_home(word.pattern)), recursive=True)  # noqa: PTH207
        files = [*itertools.islice(filter(os.path.isfile, found), MOST_FILES + 1)]
    except (ValueError, re.error):  # a NUL, or a bad range of characters
        return []
    if len(files) > MOST_FILES:
        raise UsageError(f"more than {MOST_FILES:,} files match {word.text}; name fewer")
    return sorted(files)


def single(line: str, command: str) -> str:
    """The only name in a line, without its quotes. Raises UsageError if there are several."""
    if _exists(line):
        return line
    words, quote = split(line)
    if quote:
        raise _unclosed(line, quote)
    texts = [word.text for word in words if word.text]
    if len(texts) > 1:
        raise UsageError(
            f"{command} takes one name, not {len(texts)}: {quoted(line)}; put a name with spaces"
            " in quotes"
        )
    return texts[0] if texts else ""


def escaped(text: str) -> str:
    """A part of a name as it is typed outside of quotes."""
    return re.sub(r"([\s\\\"'*?\[])", r"\\\1", text) if _ESCAPES else text


def _exists(name: str) -> bool:
    with suppress(OSError, ValueError):  # a name that is too long, a NUL
        return _at_home(name).exists()
    return False


def _at_home(name: str) -> Path:
    """The path with `~` expanded, where there is such a home folder."""
    with suppress(RuntimeError):
        return Path(name).expanduser()
    return Path(name)


def _unclosed(line: str, quote: str) -> UsageError:
    how = f", or write \\{quote} for a quote that is part of a name" if _ESCAPES else ""
    return UsageError(f"the quote {quote} in {quoted(line)} is not closed; close it{how}")
