"""Words for the shell of this system, in the commands that messages advise."""

from __future__ import annotations

import os
import shlex
import subprocess


def shell_word(text: str) -> str:
    """A text as one word of a command line: cmd.exe knows double quotes only."""
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)
