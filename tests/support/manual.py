"""The README and the help pages as what can be run: blocks of code, and commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.help.pages import FOLDER
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The generated pages quote docstrings, and have no commands.
GENERATED = ("commands", "python-reference")
PAGES = {path.stem: path for path in sorted(FOLDER.glob("*.md")) if path.stem not in GENERATED}
MANUAL = {"README of the project": ROOT / "README.md", **PAGES}
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PUNCTUATION = "|<>"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page that it begins on."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A line for a shell, without its comment."""

    text: str

    @property
    def words(self) -> list[str]:
        """The line's words; pipes and redirections are words of their own."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars=_PUNCTUATION)
        lexer.whitespace_split = True
        lexer.commenters = ""
        return list(lexer)


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCED.finditer(text):
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block of shell lines; a backslash joins a line with the next."""
    for line in re.sub(r" *\\\n *", " ", block.text).splitlines():
        if text := _without_comment(line):
            yield Command(text)


def _without_comment(line: str) -> str:
    """A line up to the mark of its comment, which is outside of quotes."""
    quote = ""
    for at, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (at == 0 or line[at - 1] == " "):
            return line[:at].strip()
    return line.strip()
