"""The fast kernels make ggml's bytes for all values, and are used only where they do."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from gguf import GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgesppo.cli import main
from edgesppo.errors import UsageError
from edgesppo.llama.library import ggml_base
from edgesppo_convert import convert
from edgesppo_convert.quant import kernel_source, kernels, recipe
from edgesppo_convert.quant.kernels import BLOCK, FastKernels, trial_values
from edgesppo_convert.quant.recipe import Q4_K, Q6_K, row_bytes
from tests.support.checkpoints import SHAPES, resized, write_checkpoint
from tests.support.imatrix_files import random_sums, write_gguf
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KINDS = (Q4_K, Q6_K)
LIMIT = 65504.0
makes_ggmls_bytes = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="their check before each use decides, and on Arm it found other bytes",
)


def ggml(kind: GGMLQuantizationType, values: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
    library = ggml_base()
    library.ggml_quantize_init(kind)
    sizes = (values.size // BLOCK, BLOCK)
    library.ggml_quantize_chunk(kind, values.ctypes.data, out.ctypes.data, 0, *sizes, None)


@pytest.fixture(scope="module")
def fast() -> FastKernels:
    pytest.importorskip("numba")
    return FastKernels(ggml, KINDS)


@pytest.fixture
def checked_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks in the check that comes before each use: they are compared at length here."""
    monkeypatch.setattr(kernels, "CHECKED", 32)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = resized(SHAPES["tiny"], layers=1)
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", shape)


def differing(
    fast: FastKernels, kind: GGMLQuantizationType, values: NDArray[np.float32]
) -> list[int]:
    """The indices of the blocks that differ from ggml's."""
    ours, theirs = (np.full(row_bytes(kind, values.size), 0xA5, np.uint8) for _ in range(2))
    fast.blocks(kind, values, ours)
    ggml(kind, values, theirs)
    unlike = (ours != theirs).reshape(-1, row_bytes(kind, BLOCK)).any(axis=1)
    return [int(index) for index in np.flatnonzero(unlike)]


@makes_ggmls_bytes
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_every_sort_are_ggmls(fast: FastKernels, kind: GGMLQuantizationType) -> None:
    assert differing(fast, kind, trial_values()) == []


@makes_ggmls_bytes
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4 if LONG else 1))
def test_random_bit_patterns_are_ggmls(
    fast: FastKernels, kind: GGMLQuantizationType, seed: int
) -> None:
    """Every exponent and both signs, within what a checkpoint may hold."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, 512 * BLOCK, np.uint32)
    values = bits.view(np.float32)
    with np.errstate(invalid="ignore"):
        values = np.where(np.abs(values) <= LIMIT, values, np.float32(seed)).astype(np.float32)
    assert differing(fast, kind, values) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 17])
def test_any_number_of_blocks_will_do(
    fast: FastKernels, kind: GGMLQuantizationType, count: int
) -> None:
    values = np.random.default_rng(count).standard_normal(count * BLOCK, np.float32)
    assert differing(fast, kind, values) == []


FEW = st.sampled_from([0.0, -0.0, 1e-45, -1e-38, 1e-15, -1e-6, 6e-8, 0.5, -1.0, 1.0, 3.0, LIMIT])
ANY = st.floats(-LIMIT, LIMIT, width=32)


@makes_ggmls_bytes
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(
    values=arrays(np.float32, (BLOCK,), elements=FEW | ANY, fill=FEW | ANY),
    kind=st.sampled_from(KINDS),
)
def test_no_block_is_found_that_differs(
    fast: FastKernels, kind: GGMLQuantizationType, values: NDArray[np.float32]
) -> None:
    assert differing(fast, kind, values) == []


def test_trained_numbers_are_not_left_to_ggml() -> None:
    """Otherwise the kernels would not be faster."""
    pytest.importorskip("numba")
    values = np.random.default_rng(0).standard_normal(64 * BLOCK, np.float32) * np.float32(0.02)

    def refuse(*_: object) -> None:
        raise AssertionError("left to ggml")

    for kind in KINDS:
        FastKernels(refuse, KINDS).blocks(
            kind, values, np.zeros(row_bytes(kind, values.size), np.uint8)
        )


@makes_ggmls_bytes
@pytest.mark.usefixtures("checked_briefly")
def test_a_file_made_by_either_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(
        recipe, "CHUNK", 4096
    )  # many chunks per tensor, so that they finish out of order
    source = write_checkpoint(tmp_path / "source", SHAPES["tiny"])
    fast, slow = (
        convert(source, tmp_path / f"{name}.gguf", kernels=name, n_threads=threads)
        for name, threads in (("fast", 3), ("ggml", 1))
    )
    assert (fast.kernels, slow.kernels) == ("fast", "ggml")
    assert fast.sha256 == slow.sha256


@makes_ggmls_bytes
@pytest.mark.usefixtures("checked_briefly")
def test_kernels_are_chosen_by_option_or_environment(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    result = CliRunner().invoke(main, ["convert", str(small), "-o", str(one), "--kernels", "fast"])
    assert " s with the fast kernels, " in result.stderr
    words = ["convert", str(small), "-o", str(two)]
    result = CliRunner().invoke(main, words, env={"EDGESPPO_KERNELS": "fast"})
    assert " s with the fast kernels, " in result.stderr


@makes_ggmls_bytes
@pytest.mark.usefixtures("checked_briefly")
def test_fast_kernels_leave_calibrated_tensors_to_ggml(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    imatrix = write_gguf(
        tmp_path / "imatrix",
        random_sums({"blk.0.attn_q.weight": 256, "blk.0.ffn_down.weight": 512}),
    )
    made = [
        convert(small, tmp_path / name, imatrix=imatrix, kernels=name) for name in ("fast", "ggml")
    ]
    assert made[0].sha256 == made[1].sha256


@makes_ggmls_bytes
@pytest.mark.usefixtures("checked_briefly")
def test_they_are_chosen_when_there_is_work_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    assert kernels.choose_kernels("auto", ggml, {Q4_K: 1 << 20}) == (None, None)
    monkeypatch.setattr(kernels, "WORTHWHILE", 1 << 20)
    chosen, doubt = kernels.choose_kernels("auto", ggml, {Q4_K: 1 << 20})
    assert chosen is not None
    assert set(chosen.kinds) == {Q4_K}
    assert doubt is None
    assert kernels.choose_kernels("ggml", ggml, {Q4_K: 1 << 20}) == (None, None)
    assert kernels.choose_kernels("fast", ggml, {GGMLQuantizationType.Q8_0: 1 << 30}) == (
        None,
        None,
    )


def test_without_numba_ggml_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert kernels.choose_kernels("auto", ggml, {Q4_K: 1 << 30}) == (None, None)
    with pytest.raises(UsageError, match=r"install it with: pip install numba"):
        kernels.choose_kernels("fast", ggml, {Q4_K: 1})


def test_a_compiler_that_fails_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")

    def njit(**_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba, "njit", njit)
    chosen, doubt = kernels.choose_kernels("auto", ggml, {Q4_K: 1 << 30})
    assert chosen is None
    assert doubt == "numba failed: [Errno 28] No space left on device"
    with pytest.raises(UsageError, match=r"numba failed: .*No space left"):
        kernels.choose_kernels("fast", ggml, {Q4_K: 1})


@pytest.mark.usefixtures("checked_briefly")
def test_kernels_that_disagree_with_ggml_are_not_used() -> None:
    pytest.importorskip("numba")

    def other(
        kind: GGMLQuantizationType, values: NDArray[np.float32], out: NDArray[np.uint8]
    ) -> None:
        ggml(kind, values, out)
        out[-1] ^= 1  # as contraction to fused multiply-add would give

    doubt = "on this machine they do not make the same bytes as ggml"
    assert kernels.choose_kernels("auto", other, {Q4_K: 1 << 30}) == (None, doubt)
    with pytest.raises(UsageError, match="do not make the same bytes as ggml"):
        kernels.choose_kernels("fast", other, {Q6_K: 1})


def test_kernels_that_were_left_out_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(kernels, "WORTHWHILE", 1)
    monkeypatch.setattr(FastKernels, "matches_ggml", lambda _: False)
    source = write_checkpoint(tmp_path / "source", resized(SHAPES["tiny"], layers=1))
    words = ["convert", str(source), "-o", str(tmp_path / "out.gguf")]
    told = " ".join(CliRunner().invoke(main, words).stderr.split())
    assert "fast kernels were not used: on this machine they do not make the same bytes" in told


def test_compiled_code_is_found_again_only_while_its_constants_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = kernel_source.q6_search()
    names = [kernels._cache_name("search6", source)]
    monkeypatch.setitem(kernels.CONSTANTS, "LIMIT", np.float32(3e6))
    names += [kernels._cache_name("search6", source), kernels._cache_name("search6", source + " ")]
    assert len(set(names)) == 3


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(
        UsageError, match="unknown kernels 'best'; expected one of auto, fast, ggml"
    ):
        kernels.choose_kernels("best", ggml, {})


def test_a_folder_where_nothing_can_be_kept_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numba = pytest.importorskip("numba")
    real = numba.njit

    def njit(**settings: object) -> object:
        if settings.pop("cache", False):
            raise RuntimeError("cannot cache function 'pack4': no locator available")
        return real(cache=True, **settings)  # compiled already: it takes seconds

    monkeypatch.setattr(numba, "njit", njit)
    values = np.random.default_rng(0).standard_normal(BLOCK, np.float32)
    assert differing(FastKernels(ggml, [Q6_K]), Q6_K, values) == []
