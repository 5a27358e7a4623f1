"""Owns the check of a model's GGUF file before native code sees it: is it one that we can run?

What every GGUF file must be, `gguf_reader` checks; here stands what a Gemma-2 model must say of
itself, and that it says no more: llama.cpp reads keys and tensors of any architecture from any
file, and some of them abort the process. The one home of those bounds: the converter refuses by
them, too. Calls nothing of llama.cpp.
"""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile
from edgesppo.gguf.reader import (
    ArrayPlace,
    Summary,
    TensorEntry,
    read,
    read_array,
    read_head,
)
from edgesppo.system.sanitize import one_line
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ARCHITECTURE",
    "NUMBERS",
    "ArrayPlace",
    "Summary",
    "TensorEntry",
    "check_head",
    "check_number",
    "load_summary",
    "read_array",
]

ARCHITECTURE = "gemma2"
TEMPLATE = "tokenizer.chat_template"  # others are called TEMPLATE.NAME
_TURN = ("<start_of_turn>", "<end_of_turn>")
_MAX_TEMPLATE, _SHOWN = 1 << 16, 80  # bytes, of which Gemma-2's has 600; letters
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
_ROTATED = "rope.dimension_count"  # no converter writes it, and all of a head is rotated
_TENSOR = re.compile(
    r"token_embd\.weight|output_norm\.weight|blk\.[0-9]{1,3}\.(?:attn_(?:q|k|v|qkv|output|norm)"
    r"|post_attention_norm|post_ffw_norm|ffn_(?:gate|up|down|norm))\.weight"
)
_MODEL, _SPM = "tokenizer.ggml.model", "llama"
_TOKENS, TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
TOKEN_ID = re.compile(r"tokenizer\.ggml\.\w+_token_id")  # keys that give a token a part to play
# Without a token for each byte llama.cpp aborts at the first text that needs it.
_VOCABULARY = {_TOKENS: tuple(b"<0x%02X>" % byte for byte in range(256))}
# What llama.cpp reads one of each token: array -> its types, by GGUF's numbers. It reads them as
# these without a look at the type that stands in the file.
_PER_TOKEN = {
    _TOKENS: (8,),  # texts
    "tokenizer.ggml.scores": (6,),  # float32
    TOKEN_TYPES: (5,),  # 32-bit whole numbers
}


def load_summary(path: Path, architecture: str = ARCHITECTURE) -> Summary:
    """Check the file's structure against its real size, and its architecture.

    Raises ModelNotFound when there is no such file and BadModelFile when it is not a whole GGUF
    of this architecture. Reads the header only, never the tensors.
    """
    path = Path(path)
    return _with_tensors(read(path, partial(_complaint, path, architecture), _VOCABULARY))


def check_head(head: bytes, size: int, path: Path) -> Summary:
    """What `check` would say of a file of `size` bytes that begins so, before it is written."""
    judge = partial(_complaint, path, ARCHITECTURE)
    return _with_tensors(read_head(head, size, path, judge, _VOCABULARY))


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
            f"{path}: a GGUF of the architecture {quoted(found)}, expected {architecture!r}: "
            "edgesppo runs Gemma-2 models"
        )
    if keys.get("split.count", 0) not in (0, 1):
        raise BadModelFile(
            f"{path}: one of {quoted(keys['split.count'])} parts of a model, expected a whole one; "
            "merge them with llama.cpp's llama-gguf-split --merge FIRST_PART MERGED"
        )
    return (
        _number_complaint(path, keys, arrays)
        or _head_complaint(keys)
        or _token_complaint(path, keys, arrays)
        or _template_complaint(path, keys)
    )


def _with_tensors(summary: Summary) -> Summary:
    """The summary of a file whose tensors are Gemma-2's, and its norms of the type they must be."""
    for tensor in summary.tensors:
        if not _TENSOR.fullmatch(tensor.name):
            raise _foreign(summary.path, f"the tensor {quoted(tensor.name)}")
        if "norm." in tensor.name and tensor.type != "F32":
            raise BadModelFile(
                f"{summary.path}: {tensor.name!r} is of the type {tensor.type}, expected F32, as "
                "every converter writes norms; convert the checkpoint again"
            )
    return summary


def _foreign(path: Path, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path}: has {what}, which is none of Gemma-2's; edgesppo runs Gemma-2 models as "
        "llama.cpp's converter and its own write them, use another program"
    )


def _number_complaint(
    path: Path, keys: Mapping[str, Any], arrays: Mapping[str, ArrayPlace]
) -> str | None:
    """What is wrong with a hyper-parameter; one that Gemma-2 does not have is refused."""
    for key, value in keys.items():
        name = key.removeprefix(f"{ARCHITECTURE}.")
        if name == key:
            continue
        if name not in (*NUMBERS, _ROTATED):
            raise _foreign(path, f"the key {quoted(key)}")
        if key in arrays:
            return f"{key} is a list of {value}, expected one number"
        wrong = check_number(name, value) if name in NUMBERS else None
        if wrong:
            return f"{key} is {quoted(value)}, {wrong}"
    return None


def _head_complaint(keys: Mapping[str, Any]) -> str | None:
    """What is wrong between the sizes and the numbers of the heads, where the file gives them."""
    get = {name: keys.get(f"{ARCHITECTURE}.{name}") for name in (*NUMBERS, _ROTATED)}.get
    heads, width = get("attention.head_count"), get("embedding_length")
    kv_heads = get("attention.head_count_kv")
    if heads and kv_heads and heads % kv_heads:
        return f"{kv_heads} heads for keys and values, expected a divisor of the {heads} heads"
    usual = width // heads if heads and width else None
    size = get("attention.key_length") or usual
    if size is not None and (size < 2 or size % 2):
        return f"heads of {size}, expected an even number, as rotary positions need"
    values = get("attention.value_length") or usual
    if None not in (size, values) and values != size:
        return f"{ARCHITECTURE}.attention.value_length is {values}, expected {size} as for keys"
    rotated = get(_ROTATED)
    if rotated is not None and rotated != size:
        return (
            f"{ARCHITECTURE}.{_ROTATED} is {quoted(rotated)}, expected {size}, the size of a head"
        )
    return None


def _token_complaint(
    path: Path, keys: Mapping[str, Any], arrays: Mapping[str, ArrayPlace]
) -> str | None:
    """What is wrong with the vocabulary, of which llama.cpp knows several kinds."""
    for name, kinds in _PER_TOKEN.items():
        place, n_tokens = arrays.get(name), keys.get(_TOKENS)
        if place is None:
            return f"no list of all tokens in {name}"
        if place.kind not in kinds:
            return f"{name} has elements of the type {place.kind}, expected {kinds[0]}"
        if place.n != n_tokens:
            return f"{place.n} entries in {name}, expected {n_tokens}"
    if keys.get(_MODEL) != _SPM:
        raise BadModelFile(
            f"{path}: {_MODEL} is {quoted(keys.get(_MODEL))}, expected {_SPM!r}, the kind of "
            "Gemma-2's vocabulary; use another program"
        )
    return None


def _template_complaint(path: Path, keys: Mapping[str, Any]) -> str | None:
    """What is wrong with a chat template; the turns are ours, so they must be the file's, too."""
    for name, template in keys.items():
        if name != TEMPLATE and not name.startswith(f"{TEMPLATE}."):
            continue
        if not isinstance(template, str):
            return f"{one_line(name, _SHOWN)} is no text, expected a chat template"
        size = len(template.encode())
        if size > _MAX_TEMPLATE:
            return (
                f"{one_line(name, _SHOWN)} has {size:,} bytes, expected at most {_MAX_TEMPLATE:,}"
            )
        lacking = next((mark for mark in _TURN if mark not in template), None)
        if lacking is not None:
            raise BadModelFile(
                f"{path}: {one_line(name, _SHOWN)} is not Gemma-2's: no {lacking!r} in "
                f"{quoted(template)}; edgesppo would ask in turns that this model does not know; "
                "use another program"
            )
    return None
