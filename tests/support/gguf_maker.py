"""Small GGUF files, valid or damaged, built byte by byte."""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadModelFile
from edgesppo.gguf import gemma2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

U32, I32, F32, STRING, ARRAY = 4, 5, 6, 8, 9
BYTES = [b"<0x%02X>" % byte for byte in range(256)]
_MARKS = [b"<pad>", b"<eos>", b"<bos>", b"<unk>", b"<start_of_turn>", b"<end_of_turn>"]
_TYPES = [3, 3, 3, 2, 3, 3, *[6] * 256, 1]
# Hyper-parameters of a Gemma-2 model of one block; the keys lack the prefix "gemma2.".
NUMBERS: dict[str, int | float] = {
    "context_length": 64,
    "embedding_length": 32,
    "block_count": 1,
    "feed_forward_length": 32,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "attention.key_length": 16,
    "attention.value_length": 16,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "attention.sliding_window": 32,
    "rope.freq_base": 10000.0,
}
# Type -> the weights and the bytes of a block, as in ggml's own header.
BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    30: (1, 2),
    2: (32, 18),
    8: (32, 34),
    12: (256, 144),
    13: (256, 176),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
    42: (64, 18),
}
NORMS = ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def array(kind: int, items: list[bytes], n: int | None = None) -> bytes:
    return struct.pack("<IQ", kind, len(items) if n is None else n) + b"".join(items)


def info(name: bytes, dims: list[int], kind: int, offset: int) -> bytes:
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return string(name) + shape + struct.pack("<IQ", kind, offset)


def number(name: bytes, value: float) -> bytes:
    """A key with an unsigned 32-bit or a float32 value."""
    kind, form = (F32, "<f") if isinstance(value, float) else (U32, "<I")
    return key(name, kind, struct.pack(form, value))


def vocabulary(tokens: list[bytes], types: list[int] | None = None) -> list[bytes]:
    """The keys of a vocabulary: tokens, scores and types."""
    kinds = [struct.pack("<i", kind) for kind in types or [1] * len(tokens)]
    return [
        key(b"tokenizer.ggml.tokens", ARRAY, array(STRING, [string(token) for token in tokens])),
        key(b"tokenizer.ggml.scores", ARRAY, array(F32, [struct.pack("<f", 0.0)] * len(tokens))),
        key(b"tokenizer.ggml.token_type", ARRAY, array(I32, kinds)),
    ]


def sound_keys() -> list[bytes]:
    """The fewest keys with which a Gemma-2 file passes the preflight check."""
    return [
        key(b"general.architecture", STRING, string(b"gemma2")),
        *vocabulary([b"a", b"b", *BYTES]),
        key(b"tokenizer.ggml.model", STRING, string(b"llama")),
    ]


def sound_infos() -> list[bytes]:
    return [
        info(b"blk.0.attn_q.weight", [32, 2], 0, 0),
        info(b"blk.0.attn_k.weight", [256], 12, 256),
    ]


def model(
    numbers: dict[str, Any] | None = None,
    keys: list[bytes] | None = None,
    tensors: dict[str, tuple[list[int], int] | None] | None = None,
    *,
    tokens: list[bytes] | None = None,
    more_tokens: Sequence[bytes] = (),
    alignment: int = 32,
) -> bytes:
    """A complete F32 model that llama.cpp loads; the arguments replace parts of it.

    A number or tensor that is None is left out. A tensor is (dims, type), where the type is one of
    BLOCKS. `tokens` must begin with the six special tokens. `more_tokens` are normal ones.
    """
    hyper = {**NUMBERS, **(numbers or {})}
    tokens = [*_MARKS, *BYTES, b"a", *more_tokens] if tokens is None else tokens
    types = [*_TYPES, *[1] * len(more_tokens)]
    marks = {b"bos": 2, b"eos": 1, b"unknown": 3, b"padding": 0}
    head = [
        key(b"general.architecture", STRING, string(b"gemma2")),
        *(number(b"gemma2." + k.encode(), v) for k, v in hyper.items() if v is not None),
        *vocabulary(tokens, types if len(tokens) == len(types) else None),
        key(b"tokenizer.ggml.model", STRING, string(b"llama")),
        *(number(b"tokenizer.ggml.%s_token_id" % mark, at) for mark, at in marks.items()),
        *(keys or []),
    ]
    if alignment != 32:
        head.append(number(b"general.alignment", alignment))
    infos, size = list[bytes](), 0
    for name, given in {**_tensors(len(tokens)), **(tensors or {})}.items():
        if given is not None:
            infos.append(info(name.encode(), given[0], given[1], size))
            n_weights, n_bytes = BLOCKS[given[1]]
            size += -(-prod(given[0]) // n_weights * n_bytes // alignment) * alignment
    return file(head, infos, data=size, alignment=alignment)


def of_type(kind: int) -> bytes:
    """A complete model whose matrices have this type, with rows of 256."""
    width = 256
    names = ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up", "ffn_down")
    rows = {"attn_q": 256, "attn_k": 128, "attn_v": 128}
    matrices = {f"blk.0.{name}.weight": ([width, rows.get(name, width)], kind) for name in names}
    return model(
        {
            "embedding_length": width,
            "feed_forward_length": width,
            "attention.key_length": 128,
            "attention.value_length": 128,
        },
        tensors={
            "token_embd.weight": ([width, 263], kind),
            "output_norm.weight": ([width], 0),
            **matrices,
            "blk.0.attn_output.weight": ([width, width], kind),
            **{f"blk.0.{norm}.weight": ([width], 0) for norm in NORMS},
        },
    )


def _tensors(n_tokens: int) -> dict[str, tuple[list[int], int] | None]:
    sizes = {"attn_q": [32, 32], "attn_k": [32, 16], "attn_v": [32, 16], "attn_output": [32, 32]}
    sizes |= {"ffn_gate": [32, 32], "ffn_up": [32, 32], "ffn_down": [32, 32]}
    sizes |= {norm: [32] for norm in NORMS}
    named = {f"blk.0.{name}.weight": (dims, 0) for name, dims in sizes.items()}
    return {"token_embd.weight": ([32, n_tokens], 0), "output_norm.weight": ([32], 0), **named}


def file(
    keys: list[bytes] | None = None,
    infos: list[bytes] | None = None,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    data: int = 256 + 144,
    alignment: int = 32,
    **counts: Any,
) -> bytes:
    """A complete file; `counts` can set wrong values for n_tensors and n_keys."""
    keys = sound_keys() if keys is None else keys
    infos = sound_infos() if infos is None else infos
    n_tensors = counts.get("n_tensors", len(infos))
    n_keys = counts.get("n_keys", len(keys))
    head = magic + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(keys + infos)
    return head + b"\0" * (-len(head) % alignment) + b"\1" * data


def assert_refused(path: Path, data: bytes, complaint: str) -> None:
    """Assert that a file of these bytes is refused by one line that names the file and fault."""
    path.write_bytes(data)
    with pytest.raises(BadModelFile, match=complaint) as caught:
        gemma2.load_summary(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
