"""Gemma-2 files are refused where llama.cpp would abort, and accepted where it loads them."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edgesppo.errors import BadModelFile
from edgesppo.gguf import gemma2
from tests.support import gguf_maker as make
from tests.support.paths import ROOT

PATH = Path("model.gguf")
BOOLS = make.key(b"gemma2.attention.sliding_window_pattern", 9, make.array(7, [b"\0"]))
MARKED = [b"<pad>", b"<eos>", b"<bos>", b"<unk>", b"<start_of_turn>", b"<end_of_turn>"]
TOKENS = [*MARKED, *make.BYTES]
F16, Q4_K, BF16 = 1, 12, 30


def text(name: bytes, value: bytes) -> bytes:
    return make.key(name, make.STRING, make.string(value))


def parts(n: int) -> bytes:
    return make.key(b"split.count", 2, struct.pack("<H", n))


def of_kind(kind: bytes) -> bytes:
    """A model whose vocabulary claims to be of another kind."""
    own, other = (text(b"tokenizer.ggml.model", name) for name in (b"llama", kind))
    whole = make.model()
    assert whole.count(own) == 1
    return whole.replace(own, other)


def with_norm(name: str, kind: int) -> bytes:
    """A valid file with a norm of this type."""
    return make.file(infos=[make.info(name.encode(), [256], kind, 0)], data=1024)


REFUSED: dict[str, tuple[bytes, str]] = {
    **{
        name: (make.model({name: value}), f"the key 'gemma2.{name}', which Gemma-2 does not have")
        for name, value in {
            "expert_count": 8,
            "expert_used_count": 2,
            "expert_group_count": 2,
            "nextn_predict_layers": 2,
            "rope.dimension_count_swa": 1000,
            "rope.scaling.factor": 2.0,
            "pooling_type": 7,
        }.items()
    },
    "rope scaling": (
        make.model(keys=[text(b"gemma2.rope.scaling.type", b"bogus")]),
        r"the key 'gemma2\.rope\.scaling\.type', which Gemma-2 does not have",
    ),
    "no window": (make.model(keys=[BOOLS]), "the key 'gemma2.attention.sliding_window_pattern'"),
    **{
        f"{size} rotated": (
            make.model({"rope.dimension_count": size}),
            rf"gemma2\.rope\.dimension_count is {size}, expected 16",
        )
        for size in (0, 15, 4096)
    },
    "odd heads": (
        make.model({"attention.key_length": 15, "attention.value_length": 15}),
        "a head size of 15, expected an even number",
    ),
    "no room for heads": (
        make.model({"embedding_length": 1, "attention.key_length": None}),
        "a head size of 0, expected an even number",
    ),
    "other values": (make.model({"attention.value_length": 8}), "value_length is 8, expected 16"),
    "other values than usual": (
        make.model({"attention.value_length": 8, "attention.key_length": None}),
        "value_length is 8, expected 16",
    ),
    "heads that do not divide": (
        make.model({"attention.head_count": 4, "attention.head_count_kv": 3}),
        "3 heads for keys and values, expected a divisor of the 4",
    ),
    "a list of heads": (
        make.model(
            {"attention.head_count": None},
            [make.key(b"gemma2.attention.head_count", 9, make.array(4, [struct.pack("<I", 0)]))],
        ),
        "attention.head_count is an array of 1, expected one number",
    ),
    "a token with a NUL": (make.model(tokens=[*TOKENS, b"a\0b"]), "is empty or contains a NUL"),
    "tokens that are one C string": (
        make.model(tokens=[*TOKENS, b"a\0b", b"a\0c"]),
        "is empty or contains a NUL",
    ),
    "an empty token": (make.model(tokens=[*TOKENS, b""]), "is empty or contains a NUL"),
    "no token at all": (make.model(tokens=[]), "empty or larger than the file|lacks '<0x00>'"),
    **{
        f"no byte {lacking:02X}": (
            make.model(tokens=[token for token in TOKENS if token != b"<0x%02X>" % lacking]),
            f"tokenizer.ggml.tokens lacks '<0x{lacking:02X}>'",
        )
        for lacking in (0x00, 0x0A, 0x7F, 0xFF)
    },
    **{
        f"a vocabulary of {kind}": (
            of_kind(kind.encode()),
            f"tokenizer.ggml.model is '{kind}', expected 'llama'",
        )
        for kind in ("gpt2", "bert", "t5", "rwkv", "no_vocab", "bogus")
    },
    "no kind of vocabulary": (make.file(make.sound_keys()[:-1]), "tokenizer.ggml.model is None"),
    **{
        f"{name} of {label}": (
            with_norm(f"{name}.weight", kind),
            rf"'{name}\.weight' has the type {label}, expected F32",
        )
        for name, kind, label in [
            *((f"blk.0.{norm}", Q4_K, "Q4_K") for norm in make.NORMS),
            ("output_norm", F16, "F16"),
            ("output_norm", BF16, "BF16"),
        ]
    },
    **{
        name: (
            make.model(tensors={name: ([32], 0)}),
            re.escape(f"the tensor {name!r}, which Gemma-2 does not have"),
        )
        for name in (
            "blk.0.attn_q.bias",
            "blk.0.attn_q.scale",
            "blk.0.attn_q.weight\n",
            "rope_freqs.weight",
            "output.weight",
            "t",
        )
    },
    **{
        f"an alignment of {size}": (
            make.model(alignment=size),
            f"alignment is {size}, expected a power of two from 32",
        )
        for size in (1, 2, 8, 16, 48, 131072)
    },
    "the second part": (
        make.model(keys=[parts(2)]),
        "one of 2 parts of a split model; merge them with .*gguf-split --merge",
    ),
}

# Each is accepted, so each must be loaded and asked.
ACCEPTED = {
    "as it is": make.model(),
    **{f"an alignment of {size}": make.model(alignment=size) for size in (64, 128, 4096, 65536)},
    **{
        f"no {name}": make.model({name: None})
        for name in (
            "attention.key_length",
            "attention.value_length",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "attention.sliding_window",
            "rope.freq_base",
        )
    },
    "the whole head rotated": make.model({"rope.dimension_count": 16}),
    "no heads for keys": make.model(
        {"attention.head_count_kv": None},
        tensors={f"blk.0.attn_{name}.weight": ([32, 32], 0) for name in "kv"},
    ),
    "fused": make.model(
        tensors={
            **{f"blk.0.attn_{name}.weight": None for name in "qkv"},
            "blk.0.attn_qkv.weight": ([32, 64], 0),
        }
    ),
    "half": make.model(tensors={"token_embd.weight": ([32, 263], F16)}),
    **{f"the type {kind}": make.of_type(kind) for kind in make.BLOCKS},
    "one part": make.model(keys=[parts(1)]),
    "an importance matrix": make.model(
        keys=[
            text(b"quantize.imatrix.file", b"imatrix.gguf"),
            text(b"quantize.imatrix.dataset", b"calibration.txt"),
            make.number(b"quantize.imatrix.entries_count", 182),
            make.number(b"quantize.imatrix.chunks_count", 128),
        ]
    ),
}

ASK = """
import sys
from pathlib import Path
import edgesppo
for path in sorted(Path(sys.argv[1]).glob("*.gguf")):
    print(path.stem, flush=True)
    with edgesppo.load(path) as model:
        model.ask("Hi \\u00e9", max_tokens=2)
print("all")
"""


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_would_abort_on_is_refused_with_its_name(case: str, tmp_path: Path) -> None:
    data, complaint = REFUSED[case]
    make.assert_refused(tmp_path / "model.gguf", data, complaint)


def test_what_is_accepted_is_loaded_and_answers(tmp_path: Path) -> None:
    for name, data in ACCEPTED.items():
        (tmp_path / f"{name}.gguf").write_bytes(data)
    words = [sys.executable, "-c", ASK, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["all"]), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([text(b"general.architecture", b"\n" * 1_000_000)], "architecture '.*, expected 'gemma2'"),
        ([text(b"general.architecture", b"x" * 4_000_000)], "value of 'general.architecture' is"),
        ([text(b"gemma2.block_count", b"1" * 900_000)], "gemma2.block_count is '1+'?[.]{3}, exp"),
        ([text(b"gemma2.rope.scaling.type", b"k" * 60_000)], "the key 'gemma2.rope.scal"),
        ([text(b"k\n" * 32_000, b"")] * 2, r"the key 'k\\nk.* occurs twice"),
        ([make.key(b"k" * 64_000, 99, b"")], "the key 'kk.* has the unknown type 99"),
        ([text(b"k" * 64_000, b"\xff")], "the value of 'kk.* is not UTF-8"),
        ([make.key(b"k" * 64_000, 9, make.array(9, []))], "'kk.* has elements of the type 9"),
        ([text(b"tokenizer.chat_template", b"k\n" * 20_000)], "it has no '<start"),
        ([text(b"tokenizer.ggml.model", b"\n" * 900_000)], "tokenizer.ggml.model is '"),
    ],
)
def test_no_message_quotes_a_long_value_in_full(keys: list[bytes], complaint: str) -> None:
    named = b"general.architecture", b"tokenizer.ggml.model"
    given = b"".join(key[:64] for key in keys)
    own = [key for key in make.sound_keys() if not any(n in key[:64] and n in given for n in named)]
    data = make.file([*own, *keys])
    with pytest.raises(BadModelFile, match=complaint) as caught:
        gemma2.check_head(data, len(data), PATH)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
