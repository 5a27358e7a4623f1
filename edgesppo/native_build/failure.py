"""How a build ends before its end: interrupted, or by a child that failed, and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# What pip says when it has downloaded all it needs.
UNPACKING = re.compile(r"^\s*Installing collected packages")
_NO_VERSION = ("No matching distribution found", "conflicting dependencies")
_FULL = re.compile("No space left on device|Disk quota exceeded|NoSpaceLeft")
_TAIL = 25
_MOST = 300  # letters: a command of a compiler has thousands
_HINTS = {
    "Killed signal|Cannot allocate memory|out of memory|OutOfMemory": "too little memory; "
    "CMAKE_BUILD_PARALLEL_LEVEL=1 compiles one file at a time",
    "NewConnectionError|NameResolutionError|connection broken by|Max retries exceeded": "the "
    "package index was not reached; PIP_INDEX_URL names another, HTTPS_PROXY a proxy",
    "from versions: none": "the package index was not reached, or it lacks this package",
}


class CutShort(Exception):
    """Something did not come to its end; `lines` are the last ones that a child printed."""

    lines: Sequence[str] = ()

    def changed_packages(self) -> bool:
        """Whether pip had downloaded all it needs, and had begun to install it."""
        return any(map(UNPACKING.match, self.lines))


class Interrupted(CutShort):
    """Somebody wants it to end."""


class Failed(CutShort):
    """A child failed at what its text says."""

    def tail(self) -> str:
        """Its last lines; empty if all they say is that the disk is full."""
        text = "\n".join(self.lines[-_TAIL:])
        return "" if _FULL.search(text) else text

    def summary(self, folder: Path) -> str:
        """One line that sums it up; `folder` is where it wrote."""
        text = "\n".join(self.lines[-_TAIL:])
        if _FULL.search(text):
            return f"the disk of {folder} is full"
        hints = [hint for signs, hint in _HINTS.items() if re.search(signs, text)]
        return [*hints, self.reason()][0]

    def reason(self) -> str:
        """Its first line that calls itself an error, else its last lines, as one that is short."""
        told = [line.strip() for line in self.lines if line.strip()]
        errors = [line for line in told if line.startswith("ERROR") or " error: " in line]
        reason = " ".join(errors[:1] or told[-4:])
        return reason if len(reason) <= _MOST else f"{reason[:_MOST]} ..."

    def has_no_wheel_of(self, packages: Sequence[str]) -> bool:
        """Whether pip found no version of one of these packages that it may install."""
        errors = "\n".join(self.lines).partition("ERROR: ")[2]
        return any(sign in errors for sign in _NO_VERSION) and any(p in errors for p in packages)
