"""Every type, with and without an importance matrix, compared with llama.cpp's quantiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.gguf import reader
from edgesppo_convert import convert
from edgesppo_convert.quant.recipe import OVERRIDES, RECIPES
from tests.convert.test_bytes import gguf_name
from tests.support.checkpoints import SHAPES, resized, tensor_shapes, write_checkpoint
from tests.support.imatrix_files import means, random_sums, write_dat, write_gguf
from tests.support.llama_quantizer import FILE_TYPES, differences, llama_quantize
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SMALL = {
    # enough layers for every rule on layers; four heads to a KV head
    "deep": resized(SHAPES["tiny"], layers=17 if LONG else 9, ffn=256, head_dim=64 if LONG else 16),
    "shared": resized(SHAPES["tiny"], layers=9 if LONG else 3, ffn=256, kv_heads=1),
    "shallow": resized(SHAPES["tiny"], layers=2, ffn=256, head_dim=16),
    # rows that 256 does not divide
    "odd": SHAPES["odd"] if LONG else resized(SHAPES["odd"], hidden=96, ffn=160, head_dim=24),
    "odder": SHAPES["odder"],  # nor does 32
}


@dataclass
class Models:
    """Checkpoints, their float32 GGUF files and importance matrices, each written once."""

    folder: Path

    def checkpoint(self, name: str) -> Path:
        folder = self.folder / name
        return folder if folder.exists() else write_checkpoint(folder, SMALL[name])

    def plain(self, name: str) -> Path:
        path = self.folder / f"{name}.f32.gguf"
        if not path.exists():
            convert(self.checkpoint(name), path, type="f32", layout="standard")
        return path

    def sums(self, name: str) -> dict[str, NDArray[np.float32]]:
        """Importances as llama-imatrix measures them: for the layers' matrices only."""
        shapes = dict(tensor_shapes(SMALL[name]))
        return random_sums(
            {
                gguf_name(tensor): shape[-1]
                for tensor, shape in shapes.items()
                if len(shape) == 2 and "layers" in tensor
            }
        )


# Every type with enough layers for every rule, and a sample of the rest.
SHAPED = [name for name in SMALL if name != "shallow"]
CASES = [
    (name, kind, calibrated)
    for at, kind in enumerate(FILE_TYPES)
    for n, name in enumerate(SHAPED)
    for calibrated in (False, True)
    if LONG or (calibrated == (at % 2 == 0) and (name == "deep" or at % (len(SHAPED) - 1) == n - 1))
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


def test_every_type_is_held_against_llama_cpp() -> None:
    assert set(RECIPES) == set(FILE_TYPES)


@pytest.mark.parametrize(("name", "kind", "calibrated"), CASES)
def test_every_tensor_is_llama_cpps_in_type_and_bytes(
    models: Models, tmp_path: Path, name: str, kind: str, calibrated: bool
) -> None:
    sums, imatrix = models.sums(name), None
    if calibrated:
        write = write_dat if name == "odd" else write_gguf
        imatrix = write(tmp_path / "imatrix", sums)
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    importance = means(sums) if calibrated else None
    llama_quantize(models.plain(name), theirs, kind, importance=importance)
    convert(models.checkpoint(name), ours, type=kind, imatrix=imatrix)
    assert differences(ours, theirs) == []
    found = {reader.read(path).keys["general.file_type"] for path in (ours, theirs)}
    assert found == {FILE_TYPES[kind]}


@pytest.mark.parametrize(
    ("wanted", "calibrated"),
    [
        (wanted, calibrated)
        for at, wanted in enumerate(OVERRIDES)
        for calibrated in (False, True)
        if LONG or calibrated == (at % 2 == 0)
    ],
)
def test_every_override_is_llama_cpps(
    models: Models, tmp_path: Path, wanted: str, calibrated: bool
) -> None:
    """An override in the middle of the layers, which shifts llama.cpp's count of the others.

    Only a few types are tried on many layers, unless LONG.
    """
    layers, deep = ("[4-7]", "deep") if LONG or wanted in ("q4_k", "iq4_nl") else ("1", "shallow")
    overrides = [(rf"blk\.{layers}\.", wanted), ("attn_q|token_embd", "q5_0"), ("attn", "q6_k")]
    for name in (deep, "odd"):
        sums, imatrix = models.sums(name), None
        if calibrated:
            imatrix = write_gguf(tmp_path / f"{name}.imatrix", sums)
        used = overrides if name == deep else [("attn_[kv]|ffn", wanted)]
        theirs, ours = tmp_path / f"{name}.theirs", tmp_path / f"{name}.ours"
        importance = means(sums) if calibrated else None
        settings: dict[str, Any] = {"importance": importance, "overrides": used}
        llama_quantize(models.plain(name), theirs, "q4_k_m", **settings)
        convert(
            models.checkpoint(name),
            ours,
            type="q4_k_m",
            imatrix=imatrix,
            tensor_types=[f"{pattern}={kind}" for pattern, kind in used],
        )
        assert differences(ours, theirs) == []


@pytest.mark.parametrize("kind", ["q4_k_m", "q4_k_s", "iq4_xs", "q4_0"] if LONG else ["q4_k_m"])
def test_an_override_of_some_layers_shifts_the_rest_as_in_llama_cpp(
    models: Models, tmp_path: Path, kind: str
) -> None:
    used = [(r"blk\.[0-3]\.(attn_v|ffn_down)", "q8_0")]
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    llama_quantize(models.plain("deep"), theirs, kind, overrides=used)
    convert(models.checkpoint("deep"), ours, type=kind, tensor_types=[f"{used[0][0]}=Q8_0"])
    assert differences(ours, theirs) == []
