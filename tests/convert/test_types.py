"""Every type, with and without an importance matrix, compared with llama.cpp's quantiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.gguf import reader
from edgesppo_convert import convert, look_ahead
from edgesppo_convert.quant.recipe import OVERRIDES, RECIPES
from tests.convert.test_bytes import gguf_name
from tests.support.checkpoints import SHAPES, resized, tensor_shapes, write_checkpoint
from tests.support.imatrix_files import means, random_sums, write_dat, write_gguf
from tests.support.llama_quantizer import FILE_TYPES, differences, llama_quantize, llama_types
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SMALL = {
    # as few layers as every rule on layers needs; four heads to a KV head
    "deep": resized(SHAPES["tiny"], layers=17 if LONG else 8, ffn=256, head_dim=64 if LONG else 16),
    "shared": resized(SHAPES["tiny"], layers=8, ffn=256, kv_heads=1),
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

    def importance(
        self, name: str, calibrated: bool
    ) -> tuple[dict[str, NDArray[np.float32]] | None, Path | None]:
        """An importance matrix for llama.cpp and one for the converter, or none."""
        if not calibrated:
            return None, None
        sums, path = self._sums(name), self.folder / f"{name}.imatrix"
        if not path.exists():
            (write_dat if name == "odd" else write_gguf)(path, sums)
        return means(sums), path

    def _sums(self, name: str) -> dict[str, NDArray[np.float32]]:
        """Importances as llama-imatrix measures them: for the layers' matrices only."""
        shapes = dict(tensor_shapes(SMALL[name]))
        return random_sums(
            {
                gguf_name(tensor): shape[-1]
                for tensor, shape in shapes.items()
                if len(shape) == 2 and "layers" in tensor
            }
        )


def some(kinds: Iterable[str]) -> list[tuple[str, bool]]:
    """Each kind with or without an importance matrix, in turn; with and without it if LONG."""
    return [
        (kind, calibrated)
        for at, kind in enumerate(kinds)
        for calibrated in (False, True)
        if LONG or calibrated == (at % 2 == 0)
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


def test_every_type_is_held_against_llama_cpp() -> None:
    assert set(RECIPES) == set(FILE_TYPES)


def types(models: Models, name: str, **chosen: Any) -> dict[str, str]:
    return {t.name: t.type for t in look_ahead(models.checkpoint(name), **chosen).tensors}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", FILE_TYPES)
def test_every_tensor_gets_the_type_that_llama_cpp_gives_it(
    models: Models, kind: str, name: str
) -> None:
    for calibrated in (False, True):
        importance, imatrix = models.importance(name, calibrated)
        theirs = llama_types(models.plain(name), kind, importance=importance)
        assert types(models, name, type=kind, imatrix=imatrix) == theirs


@pytest.mark.parametrize("name", [*SMALL] if LONG else ["shallow", "odd"])
@pytest.mark.parametrize(("kind", "calibrated"), some(FILE_TYPES))
def test_every_tensor_is_llama_cpps_in_type_and_bytes(
    models: Models, tmp_path: Path, kind: str, calibrated: bool, name: str
) -> None:
    importance, imatrix = models.importance(name, calibrated)
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    llama_quantize(models.plain(name), theirs, kind, importance=importance)
    convert(models.checkpoint(name), ours, type=kind, imatrix=imatrix)
    assert differences(ours, theirs) == []
    found = {reader.read(path).keys["general.file_type"] for path in (ours, theirs)}
    assert found == {FILE_TYPES[kind]}


def overrides(wanted: str, name: str) -> list[tuple[str, str]]:
    """Some in the middle of the layers, which shift llama.cpp's count of the others."""
    if name == "odd":
        return [("attn_[kv]|ffn", wanted)]
    layers = "[3-5]" if name == "deep" else "1"
    return [(rf"blk\.{layers}\.", wanted), ("attn_q|token_embd", "q5_0"), ("attn", "q6_k")]


def spelt(used: list[tuple[str, str]]) -> list[str]:
    return [f"{pattern}={kind}" for pattern, kind in used]


@pytest.mark.parametrize("name", ["deep", "odd"])
@pytest.mark.parametrize("wanted", OVERRIDES)
def test_every_override_gives_the_types_of_llama_cpps(
    models: Models, wanted: str, name: str
) -> None:
    importance, imatrix = models.importance(name, calibrated=True)
    used = overrides(wanted, name)
    theirs = llama_types(models.plain(name), "q4_k_m", importance=importance, overrides=used)
    assert types(models, name, tensor_types=spelt(used), imatrix=imatrix) == theirs


@pytest.mark.parametrize("name", ["deep" if LONG else "shallow", "odd"])
@pytest.mark.parametrize(("wanted", "calibrated"), some(OVERRIDES))
def test_every_override_gives_the_bytes_of_llama_cpps(
    models: Models, tmp_path: Path, wanted: str, calibrated: bool, name: str
) -> None:
    importance, imatrix = models.importance(name, calibrated)
    used = overrides(wanted, name)
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    llama_quantize(models.plain(name), theirs, "q4_k_m", importance=importance, overrides=used)
    convert(models.checkpoint(name), ours, imatrix=imatrix, tensor_types=spelt(used))
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("kind", [kind for kind in FILE_TYPES if "_k" in kind or "iq" in kind])
def test_an_override_of_some_layers_shifts_the_rest_as_in_llama_cpp(
    models: Models, kind: str
) -> None:
    used = [(r"blk\.[0-3]\.(attn_v|ffn_down)", "q8_0")]
    theirs = llama_types(models.plain("deep"), kind, overrides=used)
    assert types(models, "deep", type=kind, tensor_types=spelt(used)) == theirs
