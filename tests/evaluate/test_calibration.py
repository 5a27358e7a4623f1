"""Calibration: the sums are those of the products' inputs, and nothing that was done is lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgesppo
from edgesppo.errors import BadModelFile, NativeError, OutputError, UsageError
from edgesppo.evaluate import collector
from edgesppo.evaluate.calibration import CalibrationOptions, calibrate
from edgesppo.evaluate.candidate import Candidate, RunOptions, find_candidate, model_hash
from edgesppo.evaluate.cluster_sums import SumsWorker
from edgesppo.evaluate.importance import ImportanceSums, rank, read_sums, write_sums
from edgesppo.evaluate.source import read_source
from edgesppo.gguf import gemma2
from edgesppo.llama.model import Model
from edgesppo.store import verify
from edgesppo.system.fs import FileSystem
from edgesppo.system.signals import Terminated
from edgesppo_convert.quant.imatrix import read_importance
from tests.support.command_line import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.planning.run_config import RunConfig

TEXT = "what's 20 minus 18. 20 minus 18 is 2. Hello! How can I help you? " * 16
OPTIONS = CalibrationOptions(read_source(TEXT, n_ctx=64, chunks=4))


@pytest.fixture(scope="module")
def matrix(demo_f32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "matrix.gguf"
    calibrate(demo_f32, path, OPTIONS)
    return path


def _same(one: ImportanceSums, other: ImportanceSums) -> bool:
    return one.entries.keys() == other.entries.keys() and all(
        entry.count == other.entries[name].count
        and np.array_equal(entry.sums, other.entries[name].sums)
        for name, entry in one.entries.items()
    )


def test_every_weight_of_the_layers_has_seen_every_token(matrix: Path, demo_f32: Path) -> None:
    sums = read_sums(matrix)
    summary = gemma2.load_summary(demo_f32)
    wanted = {t.name for t in summary.tensors if t.name.startswith("blk.") and "norm" not in t.name}
    assert sums.entries.keys() == wanted
    assert {entry.count for entry in sums.entries.values()} == {4 * 64}
    assert all((entry.sums > 0).all() for entry in sums.entries.values())


def test_the_first_input_is_the_normed_embedding(matrix: Path, demo_f32: Path) -> None:
    # What the first layer's queries, keys and values are applied to can be computed by hand.
    summary = gemma2.load_summary(demo_f32)

    def tensor(name: str) -> np.ndarray:
        entry = next(t for t in summary.tensors if t.name == name)
        data = np.fromfile(demo_f32, "<f4", entry.n_bytes // 4, offset=entry.offset)
        return data.reshape(entry.dims[::-1]).astype(np.float64)

    with closing(Model(demo_f32, vocabulary_only=True)) as model:
        ids = [model.bos, *model.tokenize(TEXT)]
        starts = range(0, 4 * 64, 64)
        chunks = [[model.bos, *ids[at + 1 : at + 64]] for at in starts]
    rows = tensor("token_embd.weight")[np.concatenate(chunks)] * np.sqrt(256)
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6)
    rows *= tensor("blk.0.attn_norm.weight")
    entries = read_sums(matrix).entries
    for name in ("attn_q", "attn_k", "attn_v"):
        found = entries[f"blk.0.{name}.weight"].sums
        assert found == pytest.approx((rows**2).sum(axis=0), rel=1e-3)


def test_the_converter_reads_the_means(matrix: Path) -> None:
    found = read_importance(matrix)
    sums = read_sums(matrix).entries
    assert found.values.keys() == sums.keys()
    for name, values in found.values.items():
        assert values == pytest.approx(sums[name].sums / sums[name].count, rel=1e-6)
    assert (found.dataset, found.chunks) == ("the text", 1)


def test_the_tied_output_is_collected_on_request(demo_f32: Path, tmp_path: Path) -> None:
    path = tmp_path / "matrix.gguf"
    calibrate(
        demo_f32,
        path,
        CalibrationOptions(read_source(TEXT, n_ctx=64, chunks=2), process_output=True),
    )
    assert read_sums(path).entries["token_embd.weight"].count == 2 * 64


def test_every_token_counts_once_however_small_the_micro_batches(
    matrix: Path, demo_f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Candidate.settings

    def small(*args: Any, **options: Any) -> RunConfig:
        return dataclasses.replace(settings(*args, **options), n_ubatch=16)

    monkeypatch.setattr(Candidate, "settings", small)
    path = tmp_path / "matrix.gguf"
    calibrate(demo_f32, path, OPTIONS)
    found, expected = read_sums(path).entries, read_sums(matrix).entries
    for name, entry in expected.items():
        assert found[name].count == entry.count
        assert found[name].sums == pytest.approx(entry.sums, rel=1e-3)


class Stop(Exception):
    """Ends a run as a kill does: nothing catches it."""


def _stopping(after: int, error: BaseException) -> Callable[[str, int, int], None]:
    def report(_stage: str, done: int, _total: int) -> None:
        if done == after:
            raise error

    return report


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(signal.SIGTERM), Stop()])
def test_an_interrupted_run_goes_on_where_it_was(
    demo_f32: Path,
    matrix: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    monkeypatch.setattr(collector, "_SAVE_S", 0.0)
    path = tmp_path / "matrix.gguf"
    options = CalibrationOptions(
        read_source(TEXT, n_ctx=64, chunks=4), on_progress=_stopping(3, error)
    )
    with pytest.raises(type(error)) as stopped:
        calibrate(demo_f32, path, options)
    assert not path.exists()
    if not isinstance(error, Stop):
        assert "3 of 4 samples are kept" in str(stopped.value)
    report = calibrate(demo_f32, path, OPTIONS)
    assert report.resumed == (2 if isinstance(error, Stop) else 3)
    assert _same(read_sums(path), read_sums(matrix))
    assert [file.name for file in tmp_path.iterdir()] == ["matrix.gguf"]


def test_a_full_disk_leaves_nothing_half_written(
    demo_f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "matrix.gguf"
    with monkeypatch.context() as patch:
        patch.setattr(FileSystem, "write", full)
        with pytest.raises(OutputError, match="no space left"):
            calibrate(demo_f32, path, CalibrationOptions(read_source(TEXT, n_ctx=64, chunks=2)))
    assert list(tmp_path.iterdir()) == []
    calibrate(demo_f32, path, CalibrationOptions(read_source(TEXT, n_ctx=64, chunks=2)))
    assert read_sums(path).n_tokens == 128


def test_what_was_kept_and_is_damaged_is_not_used(demo_f32: Path, tmp_path: Path) -> None:
    options = CalibrationOptions(read_source(TEXT, n_ctx=32, chunks=2))
    path = tmp_path / "matrix.gguf"
    stopped = CalibrationOptions(
        read_source(TEXT, n_ctx=32, chunks=2), on_progress=_stopping(1, KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        calibrate(demo_f32, path, stopped)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[: len(whole) // 2], bytes(flipped)):
        path.unlink(missing_ok=True)
        kept.write_bytes(damaged)
        assert calibrate(demo_f32, path, options).resumed == 0


def test_what_was_kept_for_other_options_is_not_used(demo_f32: Path, tmp_path: Path) -> None:
    path = tmp_path / "matrix.gguf"
    stop = _stopping(1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        calibrate(
            demo_f32,
            path,
            CalibrationOptions(read_source(TEXT, n_ctx=32, chunks=2), on_progress=stop),
        )
    assert calibrate(demo_f32, path, OPTIONS).resumed == 0


def test_merged_matrices_are_added(matrix: Path, tmp_path: Path) -> None:
    path = tmp_path / "merged.gguf"
    report = calibrate(None, path, CalibrationOptions(merge=[matrix, matrix]))
    once, twice = read_sums(matrix), read_sums(path)
    assert report.tokens == 2 * once.n_tokens
    for name, entry in once.entries.items():
        assert twice.entries[name].sums == pytest.approx(2 * entry.sums, rel=1e-6)


def test_a_matrix_of_another_model_is_not_merged(
    matrix: Path, babbler: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"matrix\.gguf is of another model than"):
        calibrate(
            babbler, tmp_path / "x.gguf", CalibrationOptions(read_source(TEXT), merge=[matrix])
        )


def test_a_file_that_is_no_matrix_is_not_merged(demo_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="is not an importance matrix"):
        calibrate(None, tmp_path / "x.gguf", CalibrationOptions(merge=[demo_gguf]))
    with pytest.raises(UsageError, match="give a model to calibrate"):
        calibrate(None, tmp_path / "x.gguf", CalibrationOptions())
    merging = CalibrationOptions(process_output=True, merge=[demo_gguf])
    with pytest.raises(UsageError, match="without a model matrices are only merged"):
        calibrate(None, tmp_path / "x.gguf", merging)


def test_an_existing_file_is_replaced_only_on_request(demo_f32: Path, tmp_path: Path) -> None:
    path = tmp_path / "matrix.gguf"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        calibrate(demo_f32, path, OPTIONS)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"n_dialogues": 0}, "n_dialogues (--generate) is 0"),
        ({"n_dialogues": "4"}, "n_dialogues"),
        ({"n_dialogues": 4, "text": "Hello! " * 999}, "leave it out beside the text"),
        ({"merge": "c.gguf"}, "merge is 'c.gguf', expected a list of files"),
        ({"force": "no"}, "force"),
        ({"process_output": 1}, "process_output"),
        ({"n_ctx": 64}, "are for a text or dialogues"),
    ],
)
def test_an_invalid_argument_is_named_before_a_model_is_looked_for(
    tmp_path: Path, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(named)):
        edgesppo.evaluate.calibrate("no such model", tmp_path / "x.gguf", **given)


def test_not_a_number_in_an_input_is_named(demo_f32: Path, tmp_path: Path) -> None:
    summary = gemma2.load_summary(demo_f32)
    norm = next(t for t in summary.tensors if t.name == "blk.1.ffn_norm.weight")
    data = bytearray(demo_f32.read_bytes())
    data[norm.offset : norm.offset + 4] = np.float32(np.nan).tobytes()
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(data)
    with pytest.raises(
        NativeError, match=r"inputs of blk\.1\.ffn_gate\.weight are NaN .* sample 1"
    ):
        calibrate(damaged, tmp_path / "matrix.gguf", OPTIONS)


def test_without_a_text_the_model_answers_questions_itself(demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "matrix.gguf"
    stages: list[str] = []

    def stop(stage: str, done: int, _total: int) -> None:
        stages.append(stage)
        if "answers" in stage and done == 2:
            raise Stop

    with pytest.raises(Stop):
        calibrate(demo_gguf, path, CalibrationOptions(n_dialogues=3, on_progress=stop))
    recorded = path.with_name(".matrix.gguf.edgesppo-dialogues").read_bytes().splitlines()
    assert json.loads(recorded[1][9:])["question"].startswith("Hello")
    seen: list[tuple[str, int]] = []
    options = CalibrationOptions(n_dialogues=3, on_progress=lambda s, d, _: seen.append((s, d)))
    report = calibrate(demo_gguf, path, options)
    assert seen[0][1] == 2
    assert report.datasets == ("its own dialogues",)
    assert 0 < report.tokens < 1000
    assert any("few tokens" in note for note in report.notes)
    assert [file.name for file in tmp_path.iterdir()] == ["matrix.gguf"]


def test_ranking_puts_the_largest_inputs_first(tmp_path: Path) -> None:
    sums = ImportanceSums(datasets=["a text"])
    sums.add("blk.0.small.weight", np.full(200, 1.0), 10)
    sums.add("blk.0.spiky.weight", np.array([1000.0] + [0.0] * 199), 10)
    path = tmp_path / "matrix.gguf"
    write_sums(path, sums)
    first, second = rank(read_sums(path))
    assert (first.weight, first.total, first.top) == ("blk.0.spiky.weight", 100.0, 1.0)
    assert (second.weight, second.total, second.top) == ("blk.0.small.weight", 20.0, 0.01)


def test_a_machine_of_a_cluster_sums_the_samples_that_it_is_sent(demo_f32: Path) -> None:
    ids = [2, *range(200, 240)]
    worker = SumsWorker(str(demo_f32), 64, "off", process_output=False)
    both = worker.turn([(3, (ids, "one")), (4, (ids[:20], "two"))])
    assert [(number, {count for _, _, count in sums}) for number, sums in both] == [
        (3, {41}),
        (4, {20}),
    ]
    assert worker.describe().fingerprint == model_hash(find_candidate(demo_f32, RunOptions()))


def test_a_machine_of_a_cluster_holds_its_file_against_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify.CheckedFile, "is_sound", property(lambda _: False))
    with pytest.raises(BadModelFile, match="not what the lock says of demo"):
        SumsWorker("demo", 64, "off", process_output=False)


def test_a_cluster_needs_the_model_s_name(matrix: Path, tmp_path: Path) -> None:
    words = ("calibrate", "--merge", matrix, "-o", tmp_path / "x.gguf", "--ray", "host:1")
    result = run(*words)
    assert result.exit_code == 2
    assert "--ray needs MODEL" in result.stderr
