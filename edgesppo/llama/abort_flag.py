"""`AbortFlag`: stops a decode from any thread."""

from __future__ import annotations

import ctypes
import sys

from edgesppo.llama.library import C


class AbortFlag:
    """A flag that llama.cpp's compute threads can read without running Python.

    They call the abort callback at every graph node, and a Python callback would take the
    interpreter lock each time. libc's strlen has the callback's signature: for an empty string it
    returns 0 (go on), for a string of one byte 1 (stop).
    """

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)
        runtime = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        self.callback = ctypes.cast(runtime.strlen, C.ggml_abort_callback)
        self.data = ctypes.cast(self._bytes, ctypes.c_void_p)

    def set(self) -> None:
        """Stop the running decode, or the next one if none is running."""
        self._bytes[0] = b"\x01"

    @property
    def is_set(self) -> bool:
        """Whether decodes are to stop."""
        return self._bytes[0] != b"\x00"

    def clear(self) -> None:
        """Allow decodes again."""
        self._bytes[0] = b"\x00"
