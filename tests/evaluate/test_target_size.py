"""A target size: the types are chosen by what they cost, and the file keeps within it."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo.cli import convert_quality
from edgesppo.errors import BadModelFile, UsageError
from edgesppo.evaluate import logits, target_size
from edgesppo.evaluate import quantised as quantised_module
from edgesppo.evaluate.candidate import RunOptions, find_candidate
from edgesppo.evaluate.corpus import Sample, corpus_of
from edgesppo.evaluate.importance import ImportanceSums, rank, read_sums, write_sums
from edgesppo.evaluate.quantised import Matrix, error_of, matrices_of, quantised, restored
from edgesppo.evaluate.sensitivity import TrialModel
from edgesppo.evaluate.source import read_source
from edgesppo.evaluate.target import Target, kinds_of
from edgesppo.gguf import gemma2
from edgesppo.llama.mapped_file import MappedFile
from edgesppo_convert import convert, look_ahead
from tests.support.checkpoints import SHAPES, resized, write_checkpoint
from tests.support.command_line import one_line_error, run
from tests.support.llama_quantizer import tensors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgesppo_convert import Outlook

IDS = [2, *range(200, 231)]


@pytest.fixture(autouse=True)
def _few_weights_tell_the_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised_module, "_SAMPLED", 1 << 12)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = resized(SHAPES["tiny"], layers=1, ffn=256)
    return write_checkpoint(tmp_path_factory.mktemp("target") / "tiny", shape)


@pytest.fixture(scope="module")
def unquantised(checkpoint: Path) -> Path:
    return convert(checkpoint, checkpoint.with_name("tiny-bf16.gguf"), type="bf16").output


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "chats.jsonl"
    lines = [
        [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hello!"}]
        for n in range(6)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def all_matrices(path: Path) -> list[Matrix]:
    return matrices_of(gemma2.load_summary(path), MappedFile(path))


def test_a_file_that_became_shorter_is_refused_and_one_that_was_replaced_is_read_on(
    unquantised: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(unquantised.read_bytes())
    matrix = all_matrices(mine)[-1]
    before = matrix.sample()
    mine.rename(tmp_path / "held.gguf")
    mine.write_bytes(b"another")
    assert np.array_equal(matrix.sample(), before)
    os.truncate(tmp_path / "held.gguf", 1000)
    with pytest.raises(BadModelFile, match="changed in place"):
        next(matrix.chunks())


def test_blocks_are_those_of_the_converter(checkpoint: Path, unquantised: Path) -> None:
    output = convert(checkpoint, checkpoint.with_name("tiny-q4.gguf")).output
    written = tensors(output)
    for matrix in all_matrices(unquantised):
        kind_name, data = written[matrix.name]
        kinds = {kind.name: kind for kind in kinds_of(matrix.row)}
        _, values = next(matrix.chunks())
        assert np.array_equal(quantised(values, kinds[kind_name], None), data)


def test_importance_lowers_the_error_that_it_weighs(unquantised: Path) -> None:
    matrix = all_matrices(unquantised)[1]
    values = matrix.sample()
    importance = np.linspace(0.01, 100, matrix.row, dtype=np.float32)
    kind = next(kind for kind in kinds_of(matrix.row) if kind.name == "Q4_K")
    blind = values - restored(quantised(values, kind, None), kind)
    assert error_of(values, kind, importance) < float((blind**2 @ importance).sum())


def test_a_trial_is_what_the_quantised_file_does_and_leaves_no_trace(
    checkpoint: Path, unquantised: Path
) -> None:
    candidate = find_candidate(unquantised, RunOptions(gpu="off"))
    by_name = {matrix.name: matrix for matrix in all_matrices(candidate.path)}
    whole = convert(checkpoint, checkpoint.with_name("tiny-q3.gguf"), tensor_types=["weight=q3_k"])
    kinds = {m: next(k for k in kinds_of(m.row) if k.name == "Q3_K") for m in by_name.values()}
    with TrialModel(candidate, [Sample(IDS, 0)], {}) as trial:
        assert trial.divergence({}, ()) == 0
        all_of_them = trial.divergence(kinds, ())
        one = by_name["blk.0.ffn_down.weight"]
        assert 0 < trial.divergence({one: kinds[one]}, ()) < all_of_them
        assert trial.divergence({}, ()) == 0
    base, other = (
        find_candidate(path, RunOptions(gpu="off")) for path in (unquantised, whole.output)
    )
    with base.opened(32) as first, other.opened(32) as second:
        sample = Sample(IDS, 0)
        pairs = zip(first.blocks(sample), second.blocks(sample), strict=True)
        klds = [logits.compare(a, b, IDS[1:], ("", ""), 1).kld for (_, a), (_, b) in pairs]
    # A quantised file's products are quantised, too: the activations to 8 bits.
    assert all_of_them == pytest.approx(float(np.concatenate(klds).mean()), rel=0.1)


def test_the_file_keeps_within_its_size_and_says_why(
    checkpoint: Path, dialogues: Path, tmp_path: Path
) -> None:
    plain = convert(checkpoint, tmp_path / "plain.gguf").bytes
    output = tmp_path / "target.gguf"
    words = ("convert", checkpoint, "-o", output, "--dialogues", dialogues)
    result = run(*words, "--target-size", str(plain - 20_000), "--calibrate")
    assert result.exit_code == 0, result.output
    assert plain - 40_000 < output.stat().st_size <= plain - 20_000
    table = [line.split() for line in result.stderr.splitlines() if line.startswith("blk.")]
    types = {tensor.name: tensor.type for tensor in gemma2.load_summary(output).tensors}
    assert {row[0]: row[1].rstrip("*") for row in table}.items() <= types.items()
    assert len(table) == 7
    assert all(row[-1] == "us" for row in table)
    assert "measured" in result.stderr
    left = sorted(file.name for file in tmp_path.iterdir())
    assert {"plain.gguf", "target.gguf", "target.imatrix.gguf"} <= {*left}
    assert not any(name.startswith(".") for name in left)
    weights = {one.weight: one.tokens for one in rank(read_sums(tmp_path / "target.imatrix.gguf"))}
    assert len(weights) == 8
    assert len({*weights.values()}) == 1
    (tokens,) = {*weights.values()}
    assert tokens == sum(map(len, _ids(checkpoint, dialogues)[:3])), "the others are held out"


def _ids(checkpoint: Path, dialogues: Path) -> list[Sequence[int]]:
    path = convert(checkpoint, checkpoint.with_name("vocabulary.gguf")).output
    with closing(find_candidate(path, RunOptions()).vocabulary()) as model:
        samples = corpus_of(model, read_source(dialogues=dialogues)).samples
    return [sample.ids for sample in samples]


def test_the_file_of_the_part_that_is_used_replaces_no_other(
    checkpoint: Path, dialogues: Path, tmp_path: Path
) -> None:
    matrix, used = tmp_path / "w.imatrix.gguf", tmp_path / "x.used.imatrix.gguf"
    sums = ImportanceSums()
    sums.add("blk.0.attn_q.weight", np.ones(256), 5000)
    write_sums(matrix, sums)
    used.write_bytes(matrix.read_bytes())
    words = ("convert", checkpoint, "-o", tmp_path / "x.gguf", "--dialogues", dialogues)
    words = (*words, "--target-bpw", "4.6", "--imatrix")
    for more, said in (
        ((matrix,), "x.used.imatrix.gguf exists already"),
        ((used, "--force"), "give the matrix another name"),
    ):
        assert said in one_line_error(run(*words, *more))
    assert used.read_bytes() == matrix.read_bytes()


def test_of_one_sample_nothing_is_held_out_and_an_importance_that_harms_is_dropped(
    unquantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = find_candidate(unquantised, RunOptions(gpu="off"))
    matrices = all_matrices(candidate.path)
    recipe = {m.name: kinds_of(m.row)[0] for m in matrices}
    ones = {m.name: np.ones(m.row, np.float32) for m in matrices}

    def divergence(_: TrialModel, kinds: dict[Matrix, object], weighted: Sequence[str]) -> float:
        better = bool(weighted) == (len(kinds) == 1)  # alone with it, all together without it
        return 0.1 if better else 0.2

    monkeypatch.setattr(TrialModel, "divergence", divergence)
    allocator = target_size.Allocator(
        candidate, [Sample(IDS, 0)], ones, recipe, tmp_path / "x.gguf"
    )
    found = allocator.allocate(10**9)
    assert (found.measured, found.unweighted, found.weighted) == (0.1, 0.1, frozenset())
    lines = "\n".join(convert_quality.allocation_lines(found, {}))
    assert "without any importance: measured 0.100000, it was taken" in lines
    assert "the only sample, by which" in lines


def test_an_interrupted_measurement_goes_on_with_the_next_matrix(
    checkpoint: Path, dialogues: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    original = TrialModel.divergence

    def counted(self: TrialModel, kinds: dict[object, object], weighted: object) -> float:
        if len(kinds) == 1:
            measured.extend(matrix.name for matrix in kinds)  # type: ignore[attr-defined]
            if len(measured) == 4:
                raise KeyboardInterrupt
        return original(self, kinds, weighted)  # type: ignore[arg-type]

    monkeypatch.setattr(TrialModel, "divergence", counted)
    words = ("convert", checkpoint, "-o", tmp_path / "x.gguf", "--dialogues", dialogues)
    assert run(*words, "--target-bpw", "4.6").exit_code == 130
    assert run(*words, "--target-bpw", "4.6").exit_code == 0
    assert len(measured) == 8 + 1  # the one that was interrupted is measured again
    assert [file.name for file in tmp_path.iterdir()] == ["x.gguf"]


@pytest.mark.parametrize(
    ("target", "said"),
    [("60kB", "the smallest that is possible is"), ("9MB", "more than the matrices take as F16")],
)
def test_an_impossible_target_is_refused_before_anything_is_measured(
    checkpoint: Path, dialogues: Path, tmp_path: Path, target: str, said: str
) -> None:
    words = ("convert", checkpoint, "-o", tmp_path / "x.gguf", "--dialogues", dialogues)
    line = one_line_error(run(*words, "--calibrate", "--target-size", target))
    assert said in line
    assert not [*tmp_path.glob("*imatrix*")]


def test_the_smallest_target_that_is_named_is_possible(checkpoint: Path) -> None:
    outlook = look_ahead(checkpoint)
    for form in ("size", "bpw"):
        with pytest.raises(UsageError) as refused:
            _target(outlook, form, 1).check()
        found = re.search(r"possible is ([\d,.]+) (bytes|bits)", str(refused.value))
        assert found
        least = float(found[1].replace(",", ""))
        smallest = int(least) if form == "size" else least + 0.0001
        _target(outlook, form, smallest).check()


def _target(outlook: Outlook, form: str, value: float) -> Target:
    return Target(outlook, int(value), None) if form == "size" else Target(outlook, None, value)


def test_what_does_not_go_with_a_target_is_a_usage_error(checkpoint: Path, tmp_path: Path) -> None:
    words = ("convert", checkpoint, "-o", tmp_path / "x.gguf", "--target-bpw", "4.5")
    assert run(*words, "--target-size", "1MB").exit_code == 2
    assert run(*words, "--tensor-type", "attn_v=q8_0").exit_code == 2
    assert run(*words, "--type", "bf16").exit_code == 2
    assert run(*words, "--plan").exit_code == 2


def test_the_recipe_is_taken_where_it_proves_better(
    unquantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = find_candidate(unquantised, RunOptions(gpu="off"))
    matrices = all_matrices(candidate.path)
    best = {m.name: kinds_of(m.row)[-2] for m in matrices}  # Q8_0
    allocator = target_size.Allocator(
        candidate, [Sample(IDS, 0)] * 2, {}, best, tmp_path / "x.gguf"
    )
    # A choice that lost its way: the knapsack is made to take the smallest of everything.
    monkeypatch.setattr(target_size, "choose", lambda items, _: [0] * len(items))
    found = allocator.allocate(sum(m.size_as(best[m.name]) for m in matrices))
    assert found.is_recipe
    assert {one.type for one in found.types} == {"Q8_0"}
    lines = "\n".join(convert_quality.allocation_lines(found, {}))
    assert "it was taken" in lines
