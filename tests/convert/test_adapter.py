"""LoRA adapters are merged in one pass, to the tensors that a merge in float32 gives."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gguf import GGUFReader

from edgesppo.cli import main
from edgesppo.errors import (
    BadCheckpoint,
    EdgesppoError,
    ModelNotFound,
    SourceUnreadable,
    UnsupportedCheckpoint,
    UsageError,
)
from edgesppo.system import notices
from edgesppo_convert import convert, look_ahead
from edgesppo_convert.gemma2.architecture import plan_weights, read_hparams
from edgesppo_convert.quant.low_rank import _multiplied
from edgesppo_convert.source.checkpoint import Checkpoint
from tests.support.adapters import (
    PREFIX,
    merged,
    random_factors,
    read_tensors,
    usual_scale,
    write_adapter,
    write_tensors,
)
from tests.support.checkpoints import SHAPES, resized, tensor_shapes, write_checkpoint, write_json
from tests.support.same_model import keys_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = resized(SHAPES["tiny"], layers=1)
Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"
EMBEDDING, NORM = "model.embed_tokens", "model.layers.0.input_layernorm"
SIZES = {
    name.removesuffix(".weight"): (shape[0], shape[1])
    for name, shape in tensor_shapes(SHAPE)
    if len(shape) == 2
}
TWO = {Q: SIZES[Q], DOWN: SIZES[DOWN]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "base", SHAPE)


@pytest.fixture(scope="module")
def weights(base: Path) -> dict[str, NDArray[np.float32]]:
    return read_tensors(base / "model.safetensors")


@pytest.fixture
def factors() -> dict[str, NDArray[np.float32]]:
    return random_factors(TWO, 4)


def check_same(base: Path, out: Path, adapters: list[Any], tensors: dict[str, Any]) -> None:
    """Check that converting with the adapters gives the tensors of the merge.

    On some processors the last bits of a matrix product depend on the number of its rows.
    """
    found = GGUFReader(convert(base, out, type="f32", adapters=adapters).output).tensors
    ours = {tensor.name: tensor.data for tensor in found}
    with Checkpoint(base) as checkpoint:
        weights = plan_weights(read_hparams(checkpoint.config))
    assert len(ours) == len(weights)
    for weight in weights:
        theirs = tensors[weight.source] + np.float32(1 if weight.is_norm else 0)
        atol = 1e-6 * float(np.abs(theirs).max())
        np.testing.assert_allclose(ours[weight.name], theirs, 0, atol, err_msg=weight.name)


def test_an_adapter_of_every_matrix_gives_the_blocks_of_its_merge(
    base: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    every = random_factors(SIZES, 4)
    adapter = write_adapter(tmp_path / "lora", every)
    tensors = merged(weights, every, dict.fromkeys(SIZES, usual_scale()))
    check_same(base, tmp_path / "f32.gguf", [adapter], tensors)
    merge = shutil.copytree(base, tmp_path / "merge")
    write_tensors(merge / "model.safetensors", tensors)
    theirs = GGUFReader(convert(merge, tmp_path / "theirs.gguf").output)
    ours = GGUFReader(convert(base, tmp_path / "ours.gguf", adapters=[adapter]).output)
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (one.name, one.data.tobytes()) == (other.name, other.data.tobytes())


def test_ranks_and_alphas_may_differ_by_module(
    base: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    tensors = random_factors(TWO, {Q: 4, DOWN: 16})
    patterns = {"rank_pattern": {"down_proj": 16}, "alpha_pattern": {r"layers\.0\..*q_proj": 3}}
    adapter = write_adapter(tmp_path / "lora", tensors, **patterns)
    scales = {Q: usual_scale(4, 3), DOWN: usual_scale(16, 8)}
    check_same(base, tmp_path / "out.gguf", [adapter], merged(weights, tensors, scales))


def test_rank_stabilised_adapters_are_scaled_by_the_root(
    base: Path, tmp_path: Path, weights: dict[str, Any], factors: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "lora", factors, use_rslora=True)
    scales = dict.fromkeys(TWO, usual_scale(rslora=True))
    check_same(base, tmp_path / "out.gguf", [adapter], merged(weights, factors, scales))


def test_several_adapters_are_added_in_turn_with_their_weights(
    base: Path, tmp_path: Path, weights: dict[str, Any], factors: dict[str, Any]
) -> None:
    second = random_factors({Q: TWO[Q]}, 4, seed=1)
    one, two = write_adapter(tmp_path / "one", factors), write_adapter(tmp_path / "two", second)
    tensors = merged(weights, factors, dict.fromkeys(TWO, 0.5 * usual_scale()))
    tensors = merged(tensors, second, {Q: -0.25 * usual_scale()})
    check_same(base, tmp_path / "out.gguf", [f"{one}=0.5", f"{two}=-0.25"], tensors)


def test_whole_tensors_replace_those_of_the_model(
    base: Path, tmp_path: Path, weights: dict[str, Any], factors: dict[str, Any]
) -> None:
    norm = np.linspace(-0.1, 0.1, SHAPE.hidden, dtype=np.float32)
    embedding = weights[f"{EMBEDDING}.weight"] * np.float32(1.5)
    saved = {f"{NORM}.weight": norm, f"{EMBEDDING}.weight": embedding}
    whole = {f"{PREFIX}{name}": tensor for name, tensor in saved.items()}
    adapter = write_adapter(
        tmp_path / "lora", {**factors, **whole}, modules_to_save=["embed_tokens"]
    )
    tensors = merged(weights, factors, dict.fromkeys(TWO, usual_scale()))
    check_same(base, tmp_path / "out.gguf", [adapter], {**tensors, **saved})
    write_tensors(  # as PEFT saved them once
        adapter / "adapter_model.safetensors",
        {f"{PREFIX}{NORM}.modules_to_save.default.weight": norm},
    )
    check_same(base, tmp_path / "old.gguf", [adapter], {**weights, f"{NORM}.weight": norm})


def test_an_embedding_with_more_rows_brings_its_tokenizer(
    base: Path, tmp_path: Path, weights: dict[str, Any], factors: dict[str, Any]
) -> None:
    rows = np.concatenate([weights[f"{EMBEDDING}.weight"], np.ones((1, SHAPE.hidden), np.float32)])
    tensors = {**factors, f"{PREFIX}{EMBEDDING}.weight": rows}
    adapter = write_adapter(tmp_path / "lora", tensors)
    shutil.copy(base / "tokenizer.model", adapter)
    config = json.loads((base / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["600"] = {"content": "<tool>", "special": True}
    template = config.pop("chat_template")
    write_json(adapter / "tokenizer_config.json", config)
    found = keys_of(convert(base, tmp_path / "out.gguf", adapters=[adapter]).output)
    assert found["tokenizer.ggml.tokens"][600] == "<tool>"
    assert found["tokenizer.chat_template"] == template, "the checkpoint's, if it brings none"


def test_the_file_says_what_was_merged(base: Path, tmp_path: Path, factors: dict[str, Any]) -> None:
    adapter = write_adapter(tmp_path / "lora", factors)
    keys = keys_of(convert(base, tmp_path / "out.gguf", adapters=[f"{adapter}=0.5"]).output)
    assert keys["general.name"] == "base + lora"
    assert keys["edgesppo.source.adapters"] == [
        f"lora=0.5/{name} {hashlib.sha256((adapter / name).read_bytes()).hexdigest()}"
        for name in ("adapter_config.json", "adapter_model.safetensors")
    ]


def test_the_number_of_threads_changes_nothing(
    base: Path, tmp_path: Path, factors: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "lora", factors)
    one = convert(base, tmp_path / "one.gguf", adapters=[adapter], n_threads=1)
    four = convert(base, tmp_path / "four.gguf", adapters=[adapter], n_threads=4)
    assert one.sha256 == four.sha256


Edit = "Callable[[dict[str, Any], dict[str, Any]], object]"
REFUSED: dict[str, tuple[Edit, str]] = {
    "IA3": (lambda c, _: c.update(peft_type="IA3"), "'peft_type' is 'IA3'"),
    "no type": (lambda c, _: c.pop("peft_type"), "'peft_type' is None"),
    "DoRA": (lambda c, _: c.update(use_dora=True), "'use_dora' is True: DoRA"),
    "unknown": (lambda c, _: c.update(use_new=True), "'use_new' is True: a variant"),
    "PiSSA": (lambda c, _: c.update(init_lora_weights="pissa_niter_4"), "changes the base model"),
    "layers": (lambda c, _: c.update(layer_replication=[[0, 2]]), "'layer_replication'"),
    "tokens": (lambda c, _: c.update(trainable_token_indices=[1]), "'trainable_token_indices'"),
    "magnitude": (
        lambda _, t: t.update({f"{PREFIX}{Q}.lora_magnitude_vector": np.ones(4, np.float32)}),
        "is a DoRA adapter, with the magnitudes",
    ),
    "bias": (
        lambda _, t: t.update({f"{PREFIX}{Q}.lora_B.bias": np.ones(4, np.float32)}),
        "has the bias .*lora_B.bias",
    ),
    "other model": (
        lambda _, t: t.update(random_factors({"model.layers.7.mlp.up_proj": (512, 256)}, 4)),
        "has the tensor .*layers.7.mlp.up_proj",
    ),
    "head": (
        lambda _, t: t.update(random_factors({"lm_head": (600, 256)}, 4)),
        "changes the output head",
    ),
    "whole head": (
        lambda _, t: t.update({f"{PREFIX}lm_head.weight": np.ones((600, 256), np.float32)}),
        "lm_head.weight differs from model.embed_tokens.weight",
    ),
    "half": (lambda _, t: t.pop(f"{PREFIX}{Q}.lora_B.weight"), "has only lora_A for .*q_proj"),
    "rank": (lambda c, _: c.update(r=8), "shape .*; expected .* by its config and the base model"),
    "no rank": (lambda c, _: c.pop("r"), "has no 'r'; expected a whole number"),
    "alpha": (lambda c, _: c.update(lora_alpha="8"), "'lora_alpha' is '8'; expected a number"),
    "pattern": (
        lambda c, _: c.update(alpha_pattern={"(a+)+$": 2}),
        "expected a pattern of at most",
    ),
    "bad pattern": (lambda c, _: c.update(rank_pattern={"[": 2}), "expected a valid regular"),
    "empty": (lambda _, t: t.clear(), "has no tensors"),
    "nan": (
        lambda _, t: t[f"{PREFIX}{Q}.lora_A.weight"].fill(np.nan),
        "lora_A.weight has NaN or Inf; the adapter is damaged",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_plain_lora_is_refused_by_name(
    base: Path, tmp_path: Path, factors: dict[str, Any], name: str
) -> None:
    edit, words = REFUSED[name]
    config: dict[str, Any] = {}
    folder = write_adapter(tmp_path / "lora", factors)
    config = json.loads((folder / "adapter_config.json").read_text())
    edit(config, factors)  # type: ignore[operator]
    write_adapter(folder, factors)
    write_json(folder / "adapter_config.json", config)
    with pytest.raises(BadCheckpoint, match=words):
        convert(base, tmp_path / "out.gguf", adapters=[folder])
    assert not (tmp_path / "out.gguf").exists()


def test_a_whole_tensor_cannot_be_weighted_or_replaced_twice(base: Path, tmp_path: Path) -> None:
    norm = {f"{PREFIX}{NORM}.weight": np.ones(SHAPE.hidden, np.float32)}
    one, two = write_adapter(tmp_path / "one", norm), write_adapter(tmp_path / "two", norm)
    with pytest.raises(UnsupportedCheckpoint, match=r"cannot be merged with the weight 0\.5"):
        look_ahead(base, adapters=[f"{one}=0.5"])
    with pytest.raises(UnsupportedCheckpoint, match="which another adapter changes, too"):
        look_ahead(base, adapters=[one, two])


@pytest.mark.filterwarnings("error")
def test_factors_whose_product_has_no_number_are_refused(base: Path, tmp_path: Path) -> None:
    rows, width = TWO[Q]
    huge = {"lora_A": (4, width), "lora_B": (rows, 4)}
    folder = tmp_path / "huge"
    write_adapter(folder, {})
    tensors = {
        f"{PREFIX}{Q}.{part}.weight": np.full(shape, 3e38, np.float32)
        for part, shape in huge.items()
    }
    write_tensors(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(BadCheckpoint, match="has the value"):
        convert(base, tmp_path / "out.gguf", type="f32", adapters=[folder])
    with pytest.raises(UnsupportedCheckpoint, match="is a pipe or a device; expected a folder"):
        look_ahead(base, adapters=["/dev/null"])


def _mlx(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapters.safetensors")


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (shutil.rmtree, ModelNotFound, "there is no adapter folder"),
        (lambda f: (f / "adapter_config.json").unlink(), BadCheckpoint, "is not an adapter"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), BadCheckpoint, "has no adapter_mo"),
        (_pickle, UnsupportedCheckpoint, "a pickle.*safe_serialization"),
        (_mlx, UnsupportedCheckpoint, "of MLX.*mlx_lm.fuse --model BASE --adapter-path"),
        (
            lambda f: (f / "adapter_config.json").write_text("<!DOCTYPE html><html>"),
            BadCheckpoint,
            "adapter_config.json is a web page",
        ),
    ],
)
def test_a_folder_that_is_no_adapter_is_named(
    base: Path,
    tmp_path: Path,
    factors: dict[str, Any],
    spoil: Callable[[Path], object],
    kind: type[EdgesppoError],
    words: str,
) -> None:
    folder = write_adapter(tmp_path / "lora", factors)
    spoil(folder)
    with pytest.raises(kind, match=words):
        look_ahead(base, adapters=[folder])


def test_a_weight_is_a_number_and_a_folder_may_have_an_equals_sign(
    base: Path, tmp_path: Path, factors: dict[str, Any]
) -> None:
    folder = write_adapter(tmp_path / "rank=4", factors)
    look_ahead(base, adapters=[folder])
    look_ahead(base, adapters=[f"{folder}=0.5"])
    for weight in ("x", "nan", "inf", ""):
        with pytest.raises(UsageError, match=r"expected DIR or DIR=WEIGHT"):
            look_ahead(base, adapters=[f"{folder}={weight}"])


def test_a_name_that_no_file_can_have_is_no_crash(base: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="File name too long"):
        look_ahead(base, adapters=["x" * 5000])
    write_adapter(tmp_path / "lora", {}, base_model_name_or_path="y" * 5000)
    with pytest.raises(UnsupportedCheckpoint, match="edgesppo convert BASE --adapter"):
        look_ahead(tmp_path / "lora")


def test_another_base_than_it_was_trained_on_is_said(
    base: Path, tmp_path: Path, factors: dict[str, Any]
) -> None:
    snapshot = tmp_path / "models--google--gemma-2-2b-it" / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    adapter = write_adapter(tmp_path / "lora", factors)
    with notices.collected():
        look_ahead(snapshot, adapters=[adapter])
        (notice,) = notices.take()
    assert "trained on 'google/gemma-2-9b-it', and is merged into google/gemma-2-2b-it" in notice


def test_an_adapter_that_is_not_merged_into_its_checkpoint_is_said(
    base: Path, tmp_path: Path, factors: dict[str, Any]
) -> None:
    folder = write_adapter(shutil.copytree(base, tmp_path / "both"), factors)
    with notices.collected():
        look_ahead(folder)
        assert "holds an adapter, too" in notices.take()[0]


def test_a_conversion_that_was_stopped_goes_on_only_with_the_same_adapter(
    base: Path, tmp_path: Path, factors: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "lora", factors)
    plain = convert(base, tmp_path / "plain.gguf")
    with_it = convert(base, tmp_path / "merged.gguf", adapters=[adapter])
    assert plain.sha256 != with_it.sha256
    write_adapter(adapter, {name: array * 2 for name, array in factors.items()})
    doubled = convert(base, tmp_path / "merged.gguf", adapters=[adapter], force=True)
    assert doubled.resumed == 0
    assert doubled.sha256 != with_it.sha256


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def test_the_command_line_merges(base: Path, tmp_path: Path, factors: dict[str, Any]) -> None:
    adapter = write_adapter(tmp_path / "lora", factors)
    result = call("convert", base, "--adapter", adapter, "-o", tmp_path / "out.gguf")
    assert result.exit_code == 0, result.stderr
    theirs = convert(base, tmp_path / "theirs.gguf", adapters=[adapter])
    assert f"sha256 {theirs.sha256}" in result.stderr


def test_an_adapters_folder_alone_says_what_it_is_and_what_to_type(
    tmp_path: Path, factors: dict[str, Any], base: Path
) -> None:
    adapter = write_adapter(tmp_path / "lora", factors, base_model_name_or_path=str(base))
    result = call("convert", adapter, "-o", tmp_path / "out.gguf")
    assert result.exit_code == 1
    command = f"edgesppo convert {base} --adapter {adapter} -o OUT.gguf"
    assert f"it is an adapter (LoRA) for {str(base)!r}" in result.stderr
    assert command in result.stderr
    hub = write_adapter(tmp_path / "hub", factors)
    shutil.copy(base / "config.json", hub)
    result = call("chat", hub)
    assert "edgesppo pull gemma-2-9b-it --convert --adapter" in result.stderr


@pytest.mark.parametrize("shape", [(5, 1, 7), (37, 3, 1001), (33, 700, 65), (16, 40_000, 17)])
def test_tiles_make_up_the_whole_product(shape: tuple[int, int, int]) -> None:
    rows, rank, width = shape
    random = np.random.default_rng(0)
    b, a = random.standard_normal((rows, rank)), random.standard_normal((rank, width))
    found = _multiplied(b.astype(np.float32), a.astype(np.float32))
    np.testing.assert_allclose(found, b @ a, rtol=0, atol=1e-6 * rank)
