"""Random Gemma-2 checkpoints of any shape, written to disk in bounded memory.

Needs only numpy: the tokenizer.model is encoded as protobuf by hand. As a program it writes one of
the named shapes: python -m tests.support.checkpoints 2b FOLDER
"""

from __future__ import annotations

import functools
import io
import json
import struct
import sys
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 1 << 20  # weights generated at a time
_REMEMBERED = 4 << 20  # weights of a shard whose bytes are kept
WIDTH = {"bf16": 2, "f16": 2, "f32": 4}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
START_OF_TURN, END_OF_TURN = 106, 107
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\\n' +"
    " m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int = 256_000
    context: int = 8192
    window: int = 4096


SHAPES = {
    "0.15b": Shape(8, 1024, 4096, 4, 2, 256, 32_000),
    "0.5b": Shape(12, 1024, 4096, 4, 2, 256),
    "2b": Shape(26, 2304, 9216, 8, 4, 256),
    "9b": Shape(42, 3584, 14336, 16, 8, 256),
    "27b": Shape(46, 4608, 36864, 32, 16, 128),
    "tiny": Shape(2, 256, 512, 4, 2, 64, 600, 256, 64),
    "odd": Shape(3, 288, 416, 4, 2, 72, 600, 256, 64),  # rows that 256 does not divide
    "odder": Shape(2, 250, 266, 2, 1, 126, 600, 256, 64),  # nor does 32
    # Gemma's whole vocabulary; 65 million weights in rows of 256 take ggml half a minute.
    "thin256k": Shape(1, 256 if LONG else 64, 256, 2, 1, 64, 256_000, 256, 64),
}
SMALL = Shape(1, 64, 64, 2, 1, 32, 600, 256, 64)  # one layer, made in no time
# A README.md whose header names another licence than its text, as the real model's does.
CARD = """---
license: gemma
datasets: [openbmb/UltraFeedback]
base_model: google/gemma-2-9b-it
---
- License: Apache-2.0
"""


def tensor_shapes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the checkpoint and its shape."""
    width, queries = shape.hidden, shape.heads * shape.head_dim
    keys = shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocabulary, width)
    for layer in range(shape.layers):
        block = f"model.layers.{layer}"
        yield f"{block}.input_layernorm.weight", (width,)
        yield f"{block}.mlp.down_proj.weight", (width, shape.ffn)
        yield f"{block}.mlp.gate_proj.weight", (shape.ffn, width)
        yield f"{block}.mlp.up_proj.weight", (shape.ffn, width)
        yield f"{block}.post_attention_layernorm.weight", (width,)
        yield f"{block}.post_feedforward_layernorm.weight", (width,)
        yield f"{block}.pre_feedforward_layernorm.weight", (width,)
        yield f"{block}.self_attn.k_proj.weight", (keys, width)
        yield f"{block}.self_attn.o_proj.weight", (width, queries)
        yield f"{block}.self_attn.q_proj.weight", (queries, width)
        yield f"{block}.self_attn.v_proj.weight", (keys, width)
    yield "model.norm.weight", (width,)


def write_checkpoint(
    folder: Path, shape: Shape, *, seed: int = 0, dtype: str = "bf16", shards: int = 1
) -> Path:
    """Write a complete checkpoint of normal random weights: deviation 0.02, of norms 0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config(shape))
    write_json(folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": [1, 107]})
    write_json(folder / "tokenizer_config.json", tokenizer_config())
    (folder / "tokenizer.model").write_bytes(_tokenizer_of(shape.vocabulary))
    tensors = list(tensor_shapes(shape))
    if shards == 1:
        _write_shard(folder / "model.safetensors", tensors, dtype, seed)
        return folder
    weight_map = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = tensors[len(tensors) * number // shards : len(tensors) * (number + 1) // shards]
        _write_shard(folder / name, part, dtype, seed + number)
        weight_map.update(dict.fromkeys((tensor for tensor, _ in part), name))
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return folder


def write_endless_checkpoint(folder: Path, shape: Shape) -> Path:
    """One whose answers have no end, and consist of words: no other token is ever the best.

    Its embedding is small but for the words', so that the logits of all others are about zero.
    """
    write_checkpoint(folder, shape)
    first_word = [kind for _, _, kind in pieces(shape.vocabulary)].index(NORMAL)
    with (folder / "model.safetensors").open("r+b") as file:  # the embedding is the first tensor
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start)
        halves = np.frombuffer(file.read(2 * first_word * shape.hidden), np.uint16)
        values = (halves.astype(np.uint32) << 16).view(np.float32) / np.float32(64)
        file.seek(start)
        file.write(stored(values, "bf16").tobytes())
    return folder


def write_hollow_checkpoint(folder: Path, shape: Shape) -> Path:
    """Write a checkpoint of zero weights in a sparse file, which takes almost no disk space.

    Most rows of a large embedding have no token.
    """
    vocabulary = min(shape.vocabulary, SHAPES["tiny"].vocabulary)
    write_checkpoint(folder, resized(shape, layers=0, hidden=1, vocabulary=vocabulary))
    write_json(folder / "config.json", config(shape))
    tensors = list(tensor_shapes(shape))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header(tensors, "bf16"))
        file.truncate(file.tell() + sum(prod(sizes) * WIDTH["bf16"] for _, sizes in tensors))
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def config(shape: Shape) -> dict[str, Any]:
    scale = shape.hidden // shape.heads if shape.layers == 46 else shape.head_dim
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "attention_bias": False,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scale,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "sliding_window": shape.window,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }


def tokenizer_config() -> dict[str, Any]:
    special = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 106: "<start_of_turn>"}
    special[107] = "<end_of_turn>"
    plain = {4: "<mask>", 5: "<2mass>", 6: "[@BOS@]", 7: "<unused0>", 108: "\n", 139: "\u2581" * 2}
    tokens = {**special, **plain}
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "added_tokens_decoder": {
            str(index): {"content": text, "special": index in special}
            for index, text in sorted(tokens.items())
        },
        "chat_template": TEMPLATE,
    }


def pieces(size: int) -> list[tuple[str, float, int]]:
    """(text, score, type) of every piece; the special ones have Gemma's ids."""
    found: list[tuple[str, float, int]] = [
        (text, 0.0, CONTROL) for text in ("<pad>", "<eos>", "<bos>")
    ]
    found.append(("<unk>", 0.0, UNKNOWN))
    plain = ["<mask>", "<2mass>", "[@BOS@]", *(f"<unused{i}>" for i in range(99))]
    plain += ["<start_of_turn>", "<end_of_turn>"]
    plain += ["\n" * n for n in range(1, 32)] + ["\u2581" * n for n in range(2, 32)]
    plain += ["<table>", "</table>", "<h1>"]
    found += [(text, 0.0, USER_DEFINED) for text in plain]
    found += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    fillers = islice(_words(), size - len(found))
    return found + [(text, -float(rank), NORMAL) for rank, text in enumerate(fillers)]


def _words() -> Iterator[str]:
    """Distinct texts: the space, single letters, then pairs, triples, and so on."""
    letters = "etaoinshrdlcumwfgypbvkjxqzETAOINSHRDL0123456789.,?!'"
    yield "\u2581"
    for length in count(1):
        for number in range(len(letters) ** length):
            digits = (number // len(letters) ** place % len(letters) for place in range(length))
            yield "".join(letters[digit] for digit in digits)


@functools.lru_cache(maxsize=8)
def _tokenizer_of(size: int) -> bytes:
    return tokenizer_model(pieces(size))


def tokenizer_model(vocabulary: list[tuple[str, float, int]]) -> bytes:
    """A SentencePiece ModelProto: BPE, identity normaliser, byte fallback, no dummy prefix."""
    encoded = bytearray()
    for text, score, kind in vocabulary:
        data = text.encode("utf-8")
        piece = b"\x0a" + varint(len(data)) + data + b"\x15" + struct.pack("<f", score)
        piece += b"\x18" + varint(kind)
        encoded += b"\x0a" + varint(len(piece)) + piece
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # model_type BPE, byte_fallback
    normalizer = b"\x0a\x08identity" + b"\x18\x00" + b"\x20\x00"
    encoded += b"\x12" + varint(len(trainer)) + trainer
    return bytes(encoded + b"\x1a" + varint(len(normalizer)) + normalizer)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def header(tensors: list[tuple[str, tuple[int, ...]]], dtype: str) -> bytes:
    """A safetensors header, preceded by its length."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors:
        begin, end = end, end + prod(shape) * WIDTH[dtype]
        entries[name] = {"dtype": dtype.upper(), "shape": shape, "data_offsets": [begin, end]}
    data = json.dumps(entries).encode()
    return struct.pack("<Q", len(data)) + data


def _write_shard(
    path: Path, tensors: list[tuple[str, tuple[int, ...]]], dtype: str, seed: int
) -> None:
    if sum(prod(shape) for _, shape in tensors) <= _REMEMBERED:
        path.write_bytes(_shard(tuple(tensors), dtype, seed))
        return
    with path.open("wb") as file:
        _write_tensors(file, tensors, dtype, seed)


@functools.lru_cache(maxsize=24)
def _shard(tensors: tuple[tuple[str, tuple[int, ...]], ...], dtype: str, seed: int) -> bytes:
    """The bytes of a shard, which many tests want: to make them takes longer than to use them."""
    file = io.BytesIO()
    _write_tensors(file, [*tensors], dtype, seed)
    return file.getvalue()


def _write_tensors(
    file: BinaryIO, tensors: list[tuple[str, tuple[int, ...]]], dtype: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    file.write(header(tensors, dtype))
    for _, shape in tensors:
        _write_weights(file, prod(shape), 0.1 if len(shape) == 1 else 0.02, dtype, random)


def _write_weights(
    file: BinaryIO, size: int, width: float, dtype: str, random: np.random.Generator
) -> None:
    for first in range(0, size, BLOCK):
        values = random.standard_normal(min(BLOCK, size - first), np.float32)
        file.write(stored(values * np.float32(width), dtype).tobytes())


def stored(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The values as the checkpoint stores them; bfloat16 by truncation."""
    if dtype == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16 if dtype == "f16" else np.float32)


def resized(shape: Shape, **changes: int) -> Shape:
    return replace(shape, **changes)


def main() -> None:
    name, folder = sys.argv[1:]
    write_checkpoint(Path(folder), SHAPES[name], shards=4)
    sys.stdout.write(f"{folder}: {json.dumps(asdict(SHAPES[name]))}\n")


if __name__ == "__main__":
    main()
