"""Check that a GGUF file is a Gemma-2 model that can be run, before native code reads it.

`reader` checks what holds for every GGUF file. This adds the keys and tensors of Gemma-2, with
their bounds, and refuses all others: llama.cpp reads keys and tensors of any architecture from any
file, and some of them abort the process. The converter checks its output against the same bounds.
"""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile
from edgesppo.gguf.arrays import read_array, same_array
from edgesppo.gguf.foreign_keys import changes_model
from edgesppo.gguf.reader import (
    ArrayInfo,
    Summary,
    TensorEntry,
    read,
    read_head,
)
from edgesppo.system.sanitize import one_line
from edgesppo.system.shell import shell_word
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ARCHITECTURE",
    "NUMBERS",
    "ArrayInfo",
    "Summary",
    "TensorEntry",
    "check_head",
    "check_number",
    "load_summary",
    "notes",
    "read_array",
    "same_array",
]

ARCHITECTURE = "gemma2"
TEMPLATE = "tokenizer.chat_template"  # named ones are called TEMPLATE.NAME
# Values of general.type -> what such a file is.
_NO_MODEL = {
    "adapter": "a LoRA adapter in GGUF's form",
    "imatrix": "an importance matrix",
    "mmproj": "a projector for images",
}
_TURN = ("<start_of_turn>", "<end_of_turn>")
_MAX_TEMPLATE = 1 << 16  # bytes; Gemma-2's has 600
_SHOWN = 80  # characters of a name in a message
_LISTED = 5  # names in a message
# Hyper-parameter -> the smallest and the largest valid value.
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
_ROTATED = "rope.dimension_count"  # converters do not write it: the whole head is rotated
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")  # as llama-gguf-split names them
_TENSOR = re.compile(
    r"token_embd\.weight|output_norm\.weight|blk\.[0-9]{1,3}\.(?:attn_(?:q|k|v|qkv|output|norm)"
    r"|post_attention_norm|post_ffw_norm|ffn_(?:gate|up|down|norm))\.weight"
)
_MODEL, _SPM = "tokenizer.ggml.model", "llama"
_TOKENS, TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
TOKEN_ID = re.compile(r"tokenizer\.ggml\.\w+_token_id")  # keys that give a token a role
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
# Without a token for each byte, llama.cpp aborts at the first text that needs it.
_VOCABULARY = {_TOKENS: tuple(text.encode() for text in BYTE_TOKENS)}
# Arrays with one item per token -> the valid types of their elements, by GGUF's numbers. llama.cpp
# reads them as these without looking at the type in the file.
_PER_TOKEN = {
    _TOKENS: (8,),  # strings
    "tokenizer.ggml.scores": (6, 5),  # float32, or whole numbers
    TOKEN_TYPES: (5,),  # 32-bit whole numbers
}


def load_summary(path: Path) -> Summary:
    """Check a file's structure against its real size, and its architecture; reads the header only.

    Raises ModelNotFound when there is no such file and BadModelFile when it is not a complete GGUF
    file of a Gemma-2 model.
    """
    path = Path(path)
    return _check_tensors(read(path, partial(_fault, path), _VOCABULARY))


def check_head(head: bytes, size: int, path: Path) -> Summary:
    """Like `load_summary`, for a file of `size` bytes yet to be written that begins with `head`."""
    check_keys = partial(_fault, path)
    return _check_tensors(read_head(head, size, path, check_keys, _VOCABULARY))


def check_number(name: str, value: Any) -> str | None:
    """What is wrong with the value of a hyper-parameter; None if nothing is."""
    low, high = NUMBERS[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value)):
        return "expected a number"
    return None if low <= value <= high else f"expected {low:g} to {high:g}"


def _fault(path: Path, keys: Mapping[str, Any], arrays: Mapping[str, ArrayInfo]) -> str | None:
    kind = keys.get("general.type")
    if isinstance(kind, str) and kind in _NO_MODEL:
        raise BadModelFile(f"{path}: {_NO_MODEL[kind]}, expected a model")
    value = keys.get("general.architecture")
    if value != ARCHITECTURE:
        raise BadModelFile(
            f"{path}: a GGUF file of the architecture {quoted(value)}, expected {ARCHITECTURE!r}: "
            "edgesppo runs Gemma-2 models"
        )
    if keys.get("split.count", 0) not in (0, 1):
        raise _split(path, keys["split.count"])
    return (
        _number_fault(path, keys, arrays)
        or _head_fault(keys)
        or _token_fault(path, keys, arrays)
        or _template_fault(path, keys)
    )


def _split(path: Path, count: Any) -> BadModelFile:
    name = _PART.fullmatch(path.name)
    first, whole = "FIRST_PART", "MERGED"
    if name is not None:
        first = shell_word(f"{name[1]}-00001-of-{name[2]}.gguf")
        whole = shell_word(f"{name[1]}.gguf")
    return BadModelFile(
        f"{path}: one of {quoted(count)} parts of a split model; merge them with llama.cpp's"
        f" llama-gguf-split --merge {first} {whole}"
    )


def _check_tensors(summary: Summary) -> Summary:
    """The summary again. Raises BadModelFile for tensors that Gemma-2 does not have."""
    for tensor in summary.tensors:
        if not _TENSOR.fullmatch(tensor.name):
            raise BadModelFile(
                f"{summary.path}: has the tensor {quoted(tensor.name)}, which Gemma-2 does not have"
                " and llama.cpp does not load; convert the checkpoint again with edgesppo convert"
            )
        if "norm." in tensor.name and tensor.type != "F32":
            raise BadModelFile(
                f"{summary.path}: {tensor.name!r} has the type {tensor.type}, expected F32 for "
                "a norm; convert the checkpoint again"
            )
    return summary


def _foreign_key(path: Path, key: str, value: Any) -> BadModelFile:
    return BadModelFile(
        f"{path}: has the key {quoted(key)}, which Gemma-2 does not have and which changes the"
        f" model with its value {quoted(value)}; edgesppo runs only plain Gemma-2 models: run this"
        " one with another program"
    )


def _number_fault(
    path: Path, keys: Mapping[str, Any], arrays: Mapping[str, ArrayInfo]
) -> str | None:
    """What is wrong with the hyper-parameters; raises for one that makes another model of it."""
    prefix = f"{ARCHITECTURE}."
    numbers = {key.removeprefix(prefix): keys[key] for key in keys if key.startswith(prefix)}
    for key, value in keys.items():
        name = key.removeprefix(prefix)
        if name == key:
            continue
        if name not in (*NUMBERS, _ROTATED):
            if changes_model(name, value, numbers, is_array=key in arrays):
                raise _foreign_key(path, key, value)
            continue
        if key in arrays:
            return f"{key} is an array of {value}, expected one number"
        fault = check_number(name, value) if name in NUMBERS else None
        if fault:
            return f"{key} is {quoted(value)}, {fault}"
    return None


def _head_fault(keys: Mapping[str, Any]) -> str | None:
    """What is wrong with the numbers and sizes of the attention heads, as far as they are given."""
    get = {name: keys.get(f"{ARCHITECTURE}.{name}") for name in (*NUMBERS, _ROTATED)}.get
    heads, width = get("attention.head_count"), get("embedding_length")
    kv_heads = get("attention.head_count_kv")
    if heads and kv_heads and heads % kv_heads:
        return f"{kv_heads} heads for keys and values, expected a divisor of the {heads} heads"
    default = width // heads if heads and width else None
    size = get("attention.key_length") or default
    if size is not None and (size < 2 or size % 2):
        return f"a head size of {size}, expected an even number for rotary positions"
    values = get("attention.value_length") or default
    if None not in (size, values) and values != size:
        return f"{ARCHITECTURE}.attention.value_length is {values}, expected {size} as for keys"
    rotated = get(_ROTATED)
    if rotated is not None and rotated != size:
        return (
            f"{ARCHITECTURE}.{_ROTATED} is {quoted(rotated)}, expected {size}, the size of a head"
        )
    return None


def _token_fault(
    path: Path, keys: Mapping[str, Any], arrays: Mapping[str, ArrayInfo]
) -> str | None:
    """What is wrong with the vocabulary; raises for one of another kind than Gemma-2's."""
    for name, types in _PER_TOKEN.items():
        array, n_tokens = arrays.get(name), keys.get(_TOKENS)
        if array is None:
            return f"no array {name}, expected one with an item for each token"
        if array.element_type not in types:
            return f"{name} has elements of the type {array.element_type}, expected {types[0]}"
        if array.length != n_tokens:
            return f"{name} has {array.length} items, expected {n_tokens}"
    if keys.get(_MODEL) != _SPM:
        raise BadModelFile(
            f"{path}: {_MODEL} is {quoted(keys.get(_MODEL))}, expected {_SPM!r} as for "
            "Gemma-2; run this model with another program"
        )
    return None


def _template_fault(path: Path, keys: Mapping[str, Any]) -> str | None:
    """What is wrong with the chat template: it must have the turns that edgesppo prompts with.

    Templates with a name of their own, as for tools, are for other programs.
    """
    template = keys.get(TEMPLATE)
    if template in (None, ""):
        return None
    if not isinstance(template, str):
        return f"{TEMPLATE} is not a string, expected a chat template"
    size = len(template.encode())
    if size > _MAX_TEMPLATE:
        return f"{TEMPLATE} has {size:,} bytes, expected at most {_MAX_TEMPLATE:,}"
    missing = next((mark for mark in _TURN if mark not in template), None)
    if missing is not None:
        raise BadModelFile(
            f"{path}: {TEMPLATE} is not Gemma-2's: it has no {missing!r} in {quoted(template)};"
            " edgesppo prompts in Gemma-2's turns, which this model does not know; run it with"
            " another program"
        )
    return None


def notes(summary: Summary) -> list[str]:
    """What a file has that has no effect here, one line each: foreign keys, further templates."""
    prefix = f"{ARCHITECTURE}."
    own = {f"{prefix}{name}" for name in (*NUMBERS, _ROTATED)}
    foreign = [key for key in summary.keys if key.startswith(prefix) and key not in own]
    templates = [key for key in summary.keys if key.startswith(f"{TEMPLATE}.")]
    found = []
    if foreign:
        found.append(f"{_listed(foreign)}: not of Gemma-2, and without effect")
    if templates:
        found.append(f"{_listed(templates)}: not used; edgesppo prompts in Gemma-2's turns")
    return found


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(one_line(key, _SHOWN) for key in keys[:_LISTED]) + more
