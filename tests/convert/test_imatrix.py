"""Importance matrices: both formats are read alike, bad ones refused, their use recorded."""

from __future__ import annotations

import os
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesppo.cli import main
from edgesppo.errors import BadModelFile, ModelNotFound
from edgesppo_convert import convert
from edgesppo_convert.quant.imatrix import read_importance
from tests.support import gguf_maker as make
from tests.support.checkpoints import SHAPES, resized, write_checkpoint
from tests.support.imatrix_files import CHUNKS, means, random_sums, write_dat, write_gguf
from tests.support.llama_quantizer import differences
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = {"blk.0.attn_q.weight": 256, "blk.0.ffn_down.weight": 512}
WRITERS = pytest.mark.parametrize("write", [write_gguf, write_dat])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    return write_checkpoint(folder, resized(SHAPES["tiny"], layers=1))


@WRITERS
def test_the_values_are_means(tmp_path: Path, write: Callable[..., Path]) -> None:
    sums = random_sums(ROWS)
    found = read_importance(write(tmp_path / "calibration.imatrix", sums))
    assert found.values.keys() == sums.keys()
    for name, values in means(sums).items():
        assert found.values[name].dtype == np.float32
        assert np.array_equal(found.values[name], values)
    assert found.chunks == CHUNKS


def test_the_older_form_may_end_after_its_entries(tmp_path: Path) -> None:
    found = read_importance(write_dat(tmp_path / "old.dat", random_sums(ROWS), trailer=False))
    assert (found.dataset, found.chunks) == ("", 0)


def test_a_matrix_that_was_never_used_counts_evenly(tmp_path: Path) -> None:
    found = read_importance(write_gguf(tmp_path / "i.gguf", random_sums(ROWS), counts=0))
    assert all(np.array_equal(values, np.ones_like(values)) for values in found.values.values())


@WRITERS
def test_the_file_says_what_it_was_calibrated_with_but_no_folder(
    source: Path, tmp_path: Path, write: Callable[..., Path]
) -> None:
    imatrix = write(tmp_path / "mine.imatrix", random_sums(ROWS))
    convert(source, tmp_path / "out.gguf", imatrix=imatrix)
    fields = GGUFReader(tmp_path / "out.gguf").fields
    found = {k.rpartition(".")[2]: f.contents() for k, f in fields.items() if "imatrix" in k}
    assert found == {
        "file": "mine.imatrix",
        "dataset": "calibration.txt",
        "entries_count": 2,
        "chunks_count": CHUNKS,
    }
    assert str(tmp_path).encode() not in (tmp_path / "out.gguf").read_bytes()


@pytest.mark.parametrize("kind", ["q4_k_m", "q5_k_m"])
def test_numbers_that_no_block_can_weigh_by_are_refused(
    source: Path, tmp_path: Path, kind: str
) -> None:
    """llama.cpp's quantiser refuses them, too: sums of their squares overflow."""
    sums = {name: np.full_like(values, 3e38) for name, values in random_sums(ROWS).items()}
    imatrix = write_gguf(tmp_path / "large.imatrix", sums, counts=1)
    wanted = r"importance matrix has values too large for model\.layers\.0.*\[0, \d+\].*--imatrix"
    with pytest.raises(BadModelFile, match=wanted):
        convert(source, tmp_path / "out.gguf", imatrix=imatrix, type=kind)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_it_changes_exactly_the_tensors_that_it_names(source: Path, tmp_path: Path) -> None:
    imatrix = write_gguf(tmp_path / "imatrix", random_sums(ROWS))
    convert(source, tmp_path / "with.gguf", imatrix=imatrix)
    convert(source, tmp_path / "without.gguf")
    assert sorted(differences(tmp_path / "with.gguf", tmp_path / "without.gguf")) == sorted(ROWS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"blk.0.attn_q.weight": 288},
            "has 288 importances for blk.0.attn_q.weight; expected 256, one per column",
        ),
        ({**ROWS, "token_embd.weight": 512}, "has 512 importances for token_embd.weight"),
        (
            {**ROWS, "blk.1.attn_q.weight": 256},
            "'blk.1.attn_q.weight', which this model does not have",
        ),
        ({"output.weight": 256}, "has no importances for any tensor of this model"),
    ],
)
@WRITERS
def test_one_of_another_model_is_refused(
    source: Path, tmp_path: Path, write: Callable[..., Path], rows: dict[str, int], message: str
) -> None:
    imatrix = write(tmp_path / "imatrix", random_sums(rows))
    with pytest.raises(BadModelFile, match=message):
        convert(source, tmp_path / "out.gguf", imatrix=imatrix)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@WRITERS
def test_numbers_that_no_measurement_gives_are_refused(
    tmp_path: Path, write: Callable[..., Path], value: float
) -> None:
    sums = random_sums(ROWS)
    sums["blk.0.attn_q.weight"][3] = value
    with pytest.raises(BadModelFile, match="negative or non-finite"):
        read_importance(write(tmp_path / "imatrix", sums))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes and devices")
def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(BadModelFile, match="is not a file; expected an importance matrix"):
            read_importance(path)


@WRITERS
def test_one_that_is_too_long_is_not_read(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "imatrix", random_sums(ROWS))
    os.truncate(path, (64 << 20) + 1)
    with pytest.raises(BadModelFile, match="longer than 67,108,864 bytes"):
        read_importance(path)


def test_lists_of_no_use_are_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "lists.gguf"
    lists = [
        make.key(b"list%d" % n, make.ARRAY, make.array(12, [], n=1 << 20) + bytes(8 << 20))
        for n in range(4)
    ]
    path.write_bytes(make.file(lists, []))
    tracemalloc.start()
    with pytest.raises(BadModelFile, match=r"has no imatrix\.datasets"):
        read_importance(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
@WRITERS
def test_a_name_that_is_no_utf8_is_no_obstacle(
    source: Path, tmp_path: Path, write: Callable[..., Path]
) -> None:
    path = write(tmp_path / "imatrix", random_sums(ROWS)).rename(
        os.fsdecode(os.fsencode(tmp_path) + b"/\xff.dat")
    )
    words = ["convert", str(source), "-o", str(tmp_path / "out.gguf"), "--imatrix", str(path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    found = GGUFReader(tmp_path / "out.gguf").fields["quantize.imatrix.file"].contents()
    assert found == "\ufffd.dat"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no importance matrix .*nothing"):
        read_importance(tmp_path / "nothing")


def test_a_gguf_that_is_no_importance_matrix_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", random_sums(ROWS), metadata=False)
    with pytest.raises(BadModelFile, match=r"has no imatrix\.datasets"):
        read_importance(path)


def test_a_tensor_named_twice_is_refused(tmp_path: Path) -> None:
    path = write_dat(tmp_path / "i.dat", random_sums(ROWS))
    data = path.read_bytes().replace(b"ffn_down.weight", b"ffn_down.weighs")
    entry = data[4 : 4 + 4 + 19 + 8 + 4 * 256]
    path.write_bytes(struct.pack("<i", 2) + entry + entry)
    with pytest.raises(BadModelFile, match="twice"):
        read_importance(path)


@WRITERS
def test_every_cut_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    """The older format may end after its entries."""
    path = write(tmp_path / "imatrix", random_sums({"blk.0.attn_q.weight": 32}))
    data = path.read_bytes()
    whole = [len(data)]
    if write is write_dat:
        whole += [4 + 4 + 19 + 8 + 4 * 32, 4 + 4 + 19 + 8 + 4 * 32 + 4]
    for length in set(range(len(data.rstrip(b"\0")) - 4)) - set(whole):
        path.write_bytes(data[:length])
        with pytest.raises(BadModelFile):
            read_importance(path)


@settings(
    max_examples=300 if LONG else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6))
@WRITERS
def test_damage_is_refused_or_harmless(
    tmp_path: Path, write: Callable[..., Path], changes: list[tuple[int, int]]
) -> None:
    path = write(tmp_path / "imatrix", random_sums({"blk.0.attn_q.weight": 32}))
    data = bytearray(path.read_bytes())
    for at, byte in changes:
        data[at % len(data)] = byte
    path.write_bytes(data)
    try:
        found = read_importance(path)
    except BadModelFile:
        return
    assert all(np.isfinite(values).all() for values in found.values.values())
    assert len(found.keys) >= 2
