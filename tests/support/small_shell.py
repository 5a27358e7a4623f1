"""A shell for the commands of the manual: pipes, redirections, and edgesppo in this process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from edgesppo.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = ("edgesppo", ".venv/bin/edgesppo")
DIFF = b"--- a/hello.py\n+++ b/hello.py\n-print('helo')\n+print('hello')\n"


def run(words: Sequence[str], stdin: bytes = b"") -> bytes:
    """Run a line in the working folder; what it writes to standard output.

    `git diff` prints a diff, whatever folder this is. A failure is an AssertionError.
    """
    piped = stdin
    for part in _split(list(words), "|"):
        target = None
        if ">" in part:
            part, (target,) = _split(part, ">")
        if "<" in part:
            part, (source,) = _split(part, "<")
            piped = Path(source).read_bytes()
        piped = _run(part, piped)
        if target is not None:
            Path(target).write_bytes(piped)
            piped = b""
    return piped


def _split(words: list[str], at: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == at:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _run(words: list[str], piped: bytes) -> bytes:
    program, *arguments = words
    if program in OURS:
        done = CliRunner().invoke(main, arguments, input=piped)
        assert done.exit_code == 0, f"{' '.join(words)}: {done.output}"
        return done.stdout_bytes
    if words == ["git", "diff"]:
        return DIFF
    assert shutil.which(program), f"there is no {program} here"
    finished = subprocess.run(words, input=piped, capture_output=True, check=False)
    assert finished.returncode == 0, f"{' '.join(words)}: {finished.stderr.decode()}"
    return finished.stdout
