"""Owns the check of a model's GGUF file before native code sees it: is it one that we can run?

What every GGUF file must be, `gguf_reader` checks; here stands what a Gemma-2 model must say of
itself. The one home of those bounds: the converter refuses by them, too. Knows nothing of
llama.cpp.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile
from edgesppo.gguf_reader import (
    ArrayPlace,
    Summary,
    TensorEntry,
    read,
    read_array,
    read_head,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ARCHITECTURE",
    "NUMBERS",
    "ArrayPlace",
    "Summary",
    "TensorEntry",
    "check",
    "check_head",
    "check_number",
    "read_array",
]

ARCHITECTURE = "gemma2"
TEMPLATE = "tokenizer.chat_template"  # others are called TEMPLATE.NAME
_TURN = ("<start_of_turn>", "<end_of_turn>")
_MAX_TEMPLATE, _SHOWN = 1 << 16, 60  # bytes, of which Gemma-2's has 600; letters
# Hyper-parameter -> the least and the most that makes sense.
NUMBERS = {
    "context_length": (16, 2**27),
    "embedding_length": (1, 2**20),
    "block_count": (1, 512),
    "feed_forward_length": (1, 2**22),
    "attention.head_count": (1, 4096),
    "attention.head_count_kv": (1, 4096),
    "attention.key_length": (1, 2**16),
    "attention.value_length": (1, 2**16),
    "attention.sliding_window": (1, 2**27),
    "attention.layer_norm_rms_epsilon": (1e-12, 1),
    "attn_logit_softcapping": (1e-6, 1e9),
    "final_logit_softcapping": (1e-6, 1e9),
    "rope.freq_base": (1, 1e9),
}
_TOKENS = "tokenizer.ggml.tokens"
# What llama.cpp reads one of each token: array -> its types, by GGUF's numbers. It reads them as
# these without a look at the type that stands in the file.
_PER_TOKEN = {
    _TOKENS: (8,),  # texts
    "tokenizer.ggml.scores": (6,),  # float32
    "tokenizer.ggml.token_type": (4, 5),  # 32-bit whole numbers
}


def check(path: Path, architecture: str = ARCHITECTURE) -> Summary:
    """Check the file's structure against its real size, and its architecture.

    Raises ModelNotFound when there is no such file and BadModelFile when it is not a whole GGUF
    of this architecture. Reads the header only, never the tensors.
    """
    path = Path(path)
    return read(path, partial(_complaint, path, architecture), distinct=(_TOKENS,))


def check_head(head: bytes, size: int, path: Path) -> Summary:
    """What `check` would say of a file of `size` bytes that begins so, before it is written."""
    judge = partial(_complaint, path, ARCHITECTURE)
    return read_head(head, size, path, judge, distinct=(_TOKENS,))


def check_number(name: str, value: Any) -> str | None:
    """What is wrong with a hyper-parameter of this name, if anything."""
    low, high = NUMBERS[name]
    sensible = isinstance(value, int | float) and not isinstance(value, bool)
    if not (sensible and math.isfinite(value)):
        return "expected a number"
    return None if low <= value <= high else f"expected {low:g} to {high:g}"


def _complaint(
    path: Path, architecture: str, keys: Mapping[str, Any], arrays: Mapping[str, ArrayPlace]
) -> str | None:
    found = keys.get("general.architecture")
    if found != architecture:
        raise BadModelFile(
            f"{path}: a GGUF of the architecture {found!r}, expected {architecture!r}: "
            "edgesppo runs Gemma-2 models"
        )
    for name in NUMBERS:
        value = keys.get(f"{ARCHITECTURE}.{name}")
        wrong = None if value is None else check_number(name, value)
        if wrong:
            return f"{ARCHITECTURE}.{name} is {value!r}, {wrong}"
    for name, kinds in _PER_TOKEN.items():
        place, n_tokens = arrays.get(name), keys.get(_TOKENS)
        if place is None:
            return f"no list of all tokens in {name}"
        if place.kind not in kinds:
            return f"{name} has elements of the type {place.kind}, expected {kinds[0]}"
        if place.n != n_tokens:
            return f"{place.n} entries in {name}, expected {n_tokens}"
    return _template_complaint(path, keys)


def _template_complaint(path: Path, keys: Mapping[str, Any]) -> str | None:
    """What is wrong with a chat template; the turns are ours, so they must be the file's, too."""
    for name, template in keys.items():
        if name != TEMPLATE and not name.startswith(f"{TEMPLATE}."):
            continue
        if not isinstance(template, str):
            return f"{name} is no text, expected a chat template"
        size = len(template.encode())
        if size > _MAX_TEMPLATE:
            return f"{name} has {size:,} bytes, expected at most {_MAX_TEMPLATE:,}"
        lacking = next((mark for mark in _TURN if mark not in template), None)
        if lacking is not None:
            raise BadModelFile(
                f"{path}: {name} is not Gemma-2's: no {lacking!r} in {template[:_SHOWN]!r};"
                " edgesppo would ask in turns that this model does not know; use another program"
            )
    return None
