"""Check that llama.cpp loads a model file and that it can chat, as a run of it would.

The library is loaded in a separate process, so that a file that ends the process ends only that
one; in this process if it is loaded here already.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from edgesppo import errors
from edgesppo.errors import BadModelFile, EdgesppoError, NativeError
from edgesppo.llama import build_info

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """\
import json, pathlib, sys
from edgesppo.errors import EdgesppoError
from edgesppo.llama.load_check import load
try:
    load(pathlib.Path(sys.argv[1]))
    print("[]")
except EdgesppoError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def check_loads(path: Path) -> None:
    """Raise what loading the file raises: BadModelFile or OutOfMemory; NativeError for no library.

    The header must have been checked.
    """
    if build_info.LIBRARY in sys.modules:
        load(path)
        return
    # Loading reads the whole file, which takes minutes from a slow disk.
    status, reply = build_info.run_program(_PROGRAM, str(path), timeout=None)
    if status == 0:
        _raise_again(path, reply)
        return
    if not build_info.library()[0]:
        raise NativeError(
            f"llama.cpp cannot be loaded, so {path} cannot be checked; edgesppo doctor says why"
        )
    raise BadModelFile(
        f"{path}: llama.cpp ends the process that loads it (status {status}); download or convert"
        " it again"
    )


def load(path: Path) -> None:
    """Load the weights, as they lie in the file, and the vocabulary, and let go of them again."""
    from edgesppo.llama.model import Model

    with closing(Model(path, gpu="off", repack=False)):
        pass


def _raise_again(path: Path, reply: str) -> None:
    """Raise the error that the other process has written, if it has written one."""
    try:
        kind, message = json.loads(reply) or ("", "")
    except ValueError:
        raise NativeError(f"{path}: the check of it wrote {reply[:80]!r}; try again") from None
    if kind:
        raised = getattr(errors, kind, EdgesppoError)
        raise raised(message)
