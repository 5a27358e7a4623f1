"""The header of any file is read in less than 50 MB of memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgesppo.gguf import reader
from tests.support import gguf_maker as make
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_MEMORY = 50_000_000
KEYS = make.sound_keys()

# What a process takes while it looks at a file, and its complaint; as the system counts it, which
# is ten times faster than to trace every allocation.
PEAK = """
import sys, tracemalloc
from pathlib import Path
from edgesppo import errors
from edgesppo.gguf import gemma2
status = Path("/proc/self/status")
def memory(key):
    if not status.exists():
        return tracemalloc.get_traced_memory()[key == "VmHWM"]
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024
if not status.exists():
    tracemalloc.start()
before, found = memory("VmRSS"), ""
try:
    gemma2.load_summary(Path(sys.argv[1]))
except errors.BadModelFile as error:
    found = str(error)
print(memory("VmHWM") - before, found)
"""


def _many_tokens() -> bytes:
    n = reader.MAX_DISTINCT
    numbered = (b"%d" % i for i in range(n - len(make.BYTES)))
    text = b"".join(make.string(token) for token in [*make.BYTES, *numbered])
    listed = make.key(b"tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, n) + text)
    scores = make.key(b"tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, n) + b"\0" * 4 * n)
    types = make.key(b"tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, n) + b"\0" * 4 * n)
    blank = make.array(0, [])
    lists = [make.key(b"k%d" % i, 9, blank) for i in range(reader.MAX_KEYS - 7)]
    return make.file([*_texts(), *lists, KEYS[0], listed, scores, types, KEYS[-1]])


def _texts() -> list[bytes]:
    """As many string bytes as are kept, in the form that takes the most memory."""
    value = make.string(b"x" * 1_000_000 + "\U0001f642".encode())
    return [make.key(b"text %d" % i, 8, value) for i in range(2)]


def _many_keys() -> bytes:
    n = reader.MAX_KEYS - len(KEYS)
    value = make.string("\U0001f642".encode() * 50)
    return make.file([*KEYS, *(make.key(b"key %d" % i, 8, value) for i in range(n))])


def _many_tensors() -> bytes:
    infos = [make.info(b"t" * 50 + b"%d" % i, [8], 0, 32 * i) for i in range(8192)]
    return make.file(infos=infos, data=32 * len(infos))


def _long_texts() -> bytes:
    values = [make.key(b"k%d" % i, 8, make.string(b"x" * 1_000_000)) for i in range(4)]
    return make.file([*KEYS, *values])


def _wide_apart() -> bytes:
    """Keys that each lie in pages of memory of their own."""
    blank = make.array(10, [], n=500) + b"\0" * 4_000
    return make.file([*KEYS, *(make.key(b"k%d" % i, 9, blank) for i in range(8_000))])


def _empty_texts(n: int, *sizes: int) -> bytes:
    """Four arrays of `n` empty strings each, and an array of long ones."""
    empty = struct.pack("<IQ", 8, n) + b"\0" * 8 * n
    long = make.array(8, [make.string(b"x" * size) for size in sizes])
    keys = [make.key(b"k%d" % i, 9, empty) for i in range(4 if n else 0)]
    return make.file([*KEYS, *keys, make.key(b"long", 9, long)])


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (_many_tokens, None),
        (_many_keys, None),
        (_many_tensors, "which Gemma-2 does not have"),
        (_long_texts, "more than 2097152 bytes"),
        (_wide_apart, None),
        (partial(_empty_texts, 4_194_304), "more than 4194304 items"),
        (partial(_empty_texts, 400_000), None),
        (partial(_empty_texts, 0, 16_000_000, 16_000_000), "a string of 16000000 bytes in 'long'"),
        (partial(_empty_texts, 0, *[1_000_000] * 60), None),
        (partial(_empty_texts, 0, *[1_000_000] * 80), "header takes more than 67108864 bytes"),
    ],
)
def test_the_largest_head_that_is_read_takes_less_than_50_megabytes(
    data: Callable[[], bytes], complaint: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data())
    words = [sys.executable, "-c", PEAK, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    peak, _, found = done.stdout.strip().partition(" ")
    assert 0 < int(peak) < MAX_MEMORY
    assert complaint in found if complaint else not found
