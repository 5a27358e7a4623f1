"""The self-test of a new file: the model must generate an answer, from finite logits."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from edgesppo.diagnostics.self_test import TOKENS, try_out
from edgesppo.errors import BadModelFile
from edgesppo.gguf import gemma2

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path, demo_gguf: Path) -> Path:
    return shutil.copy(demo_gguf, tmp_path / "model.gguf")


def fill_norm(path: Path, value: float) -> None:
    """Set every weight of the last norm, on which all logits depend, to one value."""
    [norm] = (t for t in gemma2.load_summary(path).tensors if t.name == "output_norm.weight")
    with path.open("r+b") as file:
        file.seek(norm.offset)
        file.write(struct.pack("<f", value) * norm.dims[0])


def test_a_good_file_writes(model: Path) -> None:
    trial = try_out(model)
    assert 0 < trial.n_tokens <= TOKENS
    assert trial.text.strip()


def test_ten_tokens_are_written_unless_the_answer_ends(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgesppo.llama.model.Model._find_ends", lambda _: frozenset())
    assert try_out(model).n_tokens == TOKENS


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_found(tmp_path: Path, demo_f32: Path, value: float) -> None:
    model = shutil.copy(demo_f32, tmp_path / "model.gguf")
    fill_norm(model, value)
    with pytest.raises(BadModelFile, match="failed its self-test: its logits are not finite"):
        try_out(model)


def test_a_model_that_prefers_nothing_is_found(model: Path) -> None:
    fill_norm(model, 0)
    with pytest.raises(BadModelFile, match="failed its self-test: all its logits are 0"):
        try_out(model)


def test_an_answer_that_ends_before_it_begins_is_found(model: Path) -> None:
    import edgesppo

    with edgesppo.load(model, n_ctx=256, tune="off") as loaded:
        first = loaded.tokenize(try_out(model).text)[0]
    name, data = b"tokenizer.ggml.eos_token_id", model.read_bytes()
    at = data.index(name) + len(name) + 4
    model.write_bytes(data[:at] + struct.pack("<I", first) + data[at + 4 :])
    with pytest.raises(BadModelFile, match="failed its self-test: it ends its answer before"):
        try_out(model)
