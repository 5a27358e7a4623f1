"""The converter's output, compared byte for byte with llama.cpp's quantiser and with numpy."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import MODEL_TENSOR

import edgesppo.demo
from edgesppo_convert import Progress, convert
from edgesppo_convert.gemma2.architecture import Weight
from edgesppo_convert.quant import quantize, recipe
from tests.support.checkpoints import (
    SHAPES,
    Shape,
    resized,
    write_checkpoint,
    write_hollow_checkpoint,
)
from tests.support.llama_quantizer import differences, llama_quantize, tensors
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEMO = Path(edgesppo.demo.__file__).parent
KINDS = ("q4_k_m", "q8_0", "f16", "bf16")


@dataclass
class Sources:
    """Checkpoints and their float32 GGUF files, each written once per session."""

    folder: Path

    def checkpoint(self, name: str) -> Path:
        """The demo, one of SHAPES, or "tiny" in another type, such as "tiny.f16"."""
        if name == "demo":
            return DEMO
        folder, (shape, _, dtype) = self.folder / name, name.partition(".")
        if not folder.exists():
            write_checkpoint(folder, SHAPES[shape], dtype=dtype or "bf16", shards=2 if dtype else 1)
        return folder

    def plain(self, name: str) -> Path:
        path = self.folder / f"{name}.f32.gguf"
        if not path.exists():
            convert(self.checkpoint(name), path, type="f32", layout="standard")
        return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in ("demo", "tiny", "odd", "odder")
        for kind in KINDS
        if LONG or name == "tiny" or kind == "q4_k_m"
    ],
)
def test_the_standard_file_is_llama_model_quantizes_own_byte_for_byte(
    sources: Sources, tmp_path: Path, name: str, kind: str
) -> None:
    llama_quantize(sources.plain(name), tmp_path / "theirs.gguf", kind)
    convert(sources.checkpoint(name), tmp_path / "ours.gguf", type=kind, layout="standard")
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.skipif(not LONG, reason="takes ten seconds; set EDGESPPO_LONG=1")
def test_the_full_vocabulary_is_quantised_as_llama_model_quantize_does(
    sources: Sources, tmp_path: Path
) -> None:
    llama_quantize(sources.plain("thin256k"), tmp_path / "theirs.gguf", "q4_k_m")
    convert(sources.checkpoint("thin256k"), tmp_path / "ours.gguf", layout="standard")
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much memory is our own")
@pytest.mark.parametrize(("threads", "most"), [(2, 140), (1024, 460)] if LONG else [(2, 140)])
def test_memory_does_not_grow_with_a_tensor_or_beyond_measure_with_threads(
    tmp_path: Path, threads: int, most: int
) -> None:
    """The embedding alone has 262 MB as float32."""
    shape = Shape(1, 1 << 15, 32, 1, 1, 32, 2000, 256, 64)
    folder, levels = write_hollow_checkpoint(tmp_path / "source", shape), [anonymous_mb()]

    def look(_: Progress) -> None:
        levels.append(anonymous_mb())

    convert(folder, tmp_path / "out.gguf", type="f32", n_threads=threads, on_progress=look)
    assert max(levels) - levels[0] < most


@pytest.mark.parametrize("row", [256, 3584, 1 << 19, (1 << 19) + 256, 1 << 22])
def test_as_many_threads_work_as_fit_into_memory(row: int) -> None:
    weights = [Weight("a", "a", MODEL_TENSOR.FFN_UP, 0, (1000, width)) for width in (256, row)]
    threads = quantize.max_threads(1024, weights)
    chunk = recipe.rows_per_chunk(row) * row
    taken = threads * (4 + 4 + 4) * chunk + quantize.MAX_PENDING
    assert taken <= quantize.MEMORY < taken + 12 * chunk
    assert [quantize.max_threads(n, weights) for n in (1, 2)] == [1, 2]


def anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.parametrize("kind", [*KINDS, "f32"])
def test_the_layout_moves_tensors_and_changes_none(
    sources: Sources, tmp_path: Path, kind: str
) -> None:
    edge, standard = (
        convert(sources.checkpoint("tiny"), tmp_path / layout, type=kind, layout=layout)
        for layout in ("edge", "standard")
    )
    assert differences(edge.output, standard.output) == []
    assert edge.bytes == standard.bytes
    assert edge.sha256 != standard.sha256


def test_the_number_of_threads_does_not_change_the_file(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = convert(sources.checkpoint("tiny"), tmp_path / "first.gguf")
    # Many chunks per tensor, so that they finish out of order.
    monkeypatch.setattr(recipe, "CHUNK", 4096)
    for threads in (1, 2, 7):
        again = convert(sources.checkpoint("tiny"), tmp_path / f"{threads}.gguf", n_threads=threads)
        assert again.sha256 == first.sha256


def stored_tensors(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a checkpoint as float32, read with numpy by the format's definition alone."""
    found = {}
    for path in folder.glob("*.safetensors"):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            raw = data[begin:end]
            if entry["dtype"] == "BF16":
                halves = np.frombuffer(raw, np.uint16)
                values = (halves.astype(np.uint32) << 16).view(np.float32)
            else:
                kind = np.float16 if entry["dtype"] == "F16" else np.float32
                values = np.frombuffer(raw, kind).astype(np.float32)
            found[name] = values.reshape(entry["shape"])
    return found


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        layer, _, rest = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"
    return f"{GGUF_NAMES[stem]}.weight"


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_f32_holds_the_checkpoints_values_with_one_added_to_norms(
    tmp_path: Path, dtype: str, shards: int
) -> None:
    folder = write_checkpoint(tmp_path / "source", SHAPES["odd"], dtype=dtype, shards=shards)
    convert(folder, tmp_path / "out.gguf", type="f32")
    ours = tensors(tmp_path / "out.gguf")
    expected = stored_tensors(folder)
    assert len(ours) == len(expected)
    for name, values in expected.items():
        kind, data = ours[gguf_name(name)]
        assert kind == "F32"
        assert np.array_equal(data, values + np.float32(1) if values.ndim == 1 else values)


@pytest.mark.parametrize("kind", ["q4_k_m", "q8_0", "bf16"])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_other_sources_are_quantised_as_llama_model_quantize_does(
    sources: Sources, tmp_path: Path, dtype: str, kind: str
) -> None:
    name = f"tiny.{dtype}"
    llama_quantize(sources.plain(name), tmp_path / "theirs.gguf", kind)
    convert(sources.checkpoint(name), tmp_path / "ours.gguf", type=kind)
    assert differences(tmp_path / "ours.gguf", tmp_path / "theirs.gguf") == []


EVERY_HALF: Shape = resized(SHAPES["tiny"], layers=1)


@pytest.mark.parametrize(("dtype", "infinity"), [("bf16", 0x7F80), ("f16", 0x7C00)])
def test_every_finite_half_keeps_its_bits(tmp_path: Path, dtype: str, infinity: int) -> None:
    folder = write_checkpoint(tmp_path / "source", EVERY_HALF, dtype=dtype)
    patterns = np.arange(1 << 16, dtype=np.uint16)
    finite = patterns[(patterns & infinity) != infinity]
    size = EVERY_HALF.vocabulary * EVERY_HALF.hidden
    embedding = np.resize(finite, size)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:  # the embedding is the first tensor
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        file.write(embedding.tobytes())
    convert(folder, tmp_path / "out.gguf", type=dtype)
    kind, data = tensors(tmp_path / "out.gguf")["token_embd.weight"]
    assert kind == dtype.upper()
    assert np.array_equal(data.reshape(-1).view(np.uint16), embedding)


def test_f16_from_f32_rounds_as_numpy_does(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "source", SHAPES["odd"], dtype="f32")
    convert(folder, tmp_path / "out.gguf", type="f16")
    ours = tensors(tmp_path / "out.gguf")
    for name, values in stored_tensors(folder).items():
        if values.ndim == 2:
            assert np.array_equal(ours[gguf_name(name)][1], values.astype(np.float16))
