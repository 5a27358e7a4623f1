"""Words for the shell of this system, in the commands that messages advise."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

_PLAIN = re.compile(r"[\w.:/\\@#$*?-]+")  # what cmd.exe takes as part of a word


def shell_word(text: str) -> str:
    """A text as one word of a command line: cmd.exe knows double quotes only."""
    return _cmd_word(text) if os.name == "nt" else shlex.quote(text)


def _cmd_word(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    # With a space in front it is quoted in any case: an & alone would end the command.
    return '"' + subprocess.list2cmdline([f" {text}"]).removeprefix('" ')
