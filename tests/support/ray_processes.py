"""The processes of a Ray cluster on this machine that are this test's."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def actors(name: str) -> list[int]:
    """The processes of the actors of this name, that were started by this process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"ray::{name}".encode() in (folder / "cmdline").read_bytes():
                environment = (folder / "environ").read_bytes()
                if f"EDGESPPO_HOME={os.environ['EDGESPPO_HOME']}".encode() in environment:
                    found.append(int(folder.name))
    return found
