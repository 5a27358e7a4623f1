"""Running the command line in tests: in the same process, or as a child process."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from edgesppo.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREEDY = ["--temperature", "0"]
ENDLESS = ["--temperature", "0", "--max-tokens", "8000"]  # of a babbler
CAPITAL = "What is the capital of France?"


def run(*args: str | Path, stdin: str | bytes = "") -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)


def one_line_error(result: Result) -> str:
    """The error line of a failed command; asserts that there was no other output."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("edgesppo: ")
    return lines[0]


@contextmanager
def started(words: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that is killed at the end of the block."""
    with subprocess.Popen(words, **options) as process:
        try:
            yield process
        finally:
            process.kill()
