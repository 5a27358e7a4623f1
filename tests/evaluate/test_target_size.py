"""A target size: the types are chosen by what they cost, and the file keeps within it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo.cli import convert_quality
from edgesppo.evaluate import logits, target_size
from edgesppo.evaluate import quantised as quantised_module
from edgesppo.evaluate.candidate import RunOptions, find_candidate
from edgesppo.evaluate.corpus import Sample
from edgesppo.evaluate.quantised import error_of, matrices_of, quantised, restored
from edgesppo.evaluate.sensitivity import TrialModel
from edgesppo.gguf import gemma2
from edgesppo_convert import convert
from tests.support.checkpoints import SHAPES, resized, write_checkpoint
from tests.support.command_line import one_line_error, run
from tests.support.llama_quantizer import tensors

if TYPE_CHECKING:
    from pathlib import Path

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


def test_blocks_are_those_of_the_converter(checkpoint: Path, unquantised: Path) -> None:
    output = convert(checkpoint, checkpoint.with_name("tiny-q4.gguf")).output
    written = tensors(output)
    for matrix in matrices_of(gemma2.load_summary(unquantised)):
        kind_name, data = written[matrix.name]
        kinds = {kind.name: kind for kind in target_size._kinds(matrix)}
        _, values = next(matrix.chunks())
        assert np.array_equal(quantised(values, kinds[kind_name], None), data)


def test_importance_lowers_the_error_that_it_weighs(unquantised: Path) -> None:
    matrix = matrices_of(gemma2.load_summary(unquantised))[1]
    values = matrix.sample()
    importance = np.linspace(0.01, 100, matrix.row, dtype=np.float32)
    kind = next(kind for kind in target_size._kinds(matrix) if kind.name == "Q4_K")
    blind = values - restored(quantised(values, kind, None), kind)
    assert error_of(values, kind, importance) < float((blind**2 @ importance).sum())


def test_a_trial_is_what_the_quantised_file_does_and_leaves_no_trace(
    checkpoint: Path, unquantised: Path
) -> None:
    candidate = find_candidate(unquantised, RunOptions(gpu="off"))
    by_name = {matrix.name: matrix for matrix in matrices_of(candidate.summary)}
    whole = convert(checkpoint, checkpoint.with_name("tiny-q3.gguf"), tensor_types=["weight=q3_k"])
    kinds = {
        m: next(k for k in target_size._kinds(m) if k.name == "Q3_K") for m in by_name.values()
    }
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
        klds = [logits.compare(a, b, IDS[1:], ("", "")).kld for (_, a), (_, b) in pairs]
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
    [("60kB", "the smallest target that is possible is"), ("9MB", "as F16 they take")],
)
def test_an_impossible_target_is_refused_before_anything_is_measured(
    checkpoint: Path, dialogues: Path, tmp_path: Path, target: str, said: str
) -> None:
    words = ("convert", checkpoint, "-o", tmp_path / "x.gguf", "--dialogues", dialogues)
    line = one_line_error(run(*words, "--target-size", target))
    assert said in line


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
    matrices = matrices_of(candidate.summary)
    best = {m.name: target_size._kinds(m)[-2] for m in matrices}  # Q8_0
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
