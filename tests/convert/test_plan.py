"""The block type of each tensor, and the order of the tensors; few and tiny files."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from gguf import GGUFReader

from edgesppo.errors import UsageError
from edgesppo.system import cgroup
from edgesppo_convert import convert, pipeline
from edgesppo_convert.gemma2.architecture import plan_weights, read_hparams
from edgesppo_convert.quant.recipe import (
    RECIPES,
    Setting,
    block_types,
    find_recipe,
    gets_more_bits,
    parse_override,
    row_bytes,
)
from edgesppo_convert.source.json_reader import JsonObject
from tests.support.checkpoints import (
    SHAPES,
    Shape,
    config,
    resized,
    tensor_shapes,
    write_checkpoint,
)

if TYPE_CHECKING:
    from pathlib import Path


def types_of(shape: Shape, kind: str, *overrides: str) -> dict[str, str]:
    weights = plan_weights(read_hparams(JsonObject("config.json", config(shape))))
    setting = Setting(shape.layers, shape.heads // shape.kv_heads)
    wanted = [parse_override(text) for text in overrides]
    types = block_types(find_recipe(kind), weights, setting, wanted)
    return {name: found.name for name, found in types.items()}


@pytest.mark.parametrize("name", SHAPES)
def test_the_plan_has_exactly_the_tensors_of_the_checkpoint(name: str) -> None:
    weights = plan_weights(read_hparams(JsonObject("config.json", config(SHAPES[name]))))
    assert {w.source: w.shape for w in weights} == dict(tensor_shapes(SHAPES[name]))
    assert len({w.name for w in weights}) == len(weights)


def test_the_9b_takes_as_many_bytes_as_llama_cpps_own() -> None:
    shape = SHAPES["9b"]
    weights = plan_weights(read_hparams(JsonObject("config.json", config(shape))))
    types = block_types(find_recipe("Q4_K_M"), weights, Setting(shape.layers))
    total = sum(w.rows * row_bytes(types[w.name], w.row) for w in weights)
    assert sum(w.size for w in weights) == 9_241_705_984
    assert total == 5_755_000_832


def test_the_layers_of_the_9b_that_get_more_bits() -> None:
    more = [layer for layer in range(42) if gets_more_bits(layer, Setting(42))]
    assert more == [0, 1, 2, 3, 4, *range(7, 36, 3), *range(36, 42)]


def test_q4_k_m_spends_its_bits_on_the_embedding_and_on_sensitive_tensors() -> None:
    types = types_of(SHAPES["9b"], "q4_k_m")
    assert types["token_embd.weight"] == "Q6_K"
    assert types["blk.0.attn_v.weight"] == types["blk.0.ffn_down.weight"] == "Q6_K"
    assert types["blk.5.attn_v.weight"] == types["blk.5.ffn_down.weight"] == "Q4_K"
    assert types["blk.0.attn_q.weight"] == types["blk.0.ffn_gate.weight"] == "Q4_K"
    assert types["blk.0.post_ffw_norm.weight"] == types["output_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("hidden", "kind", "embedding", "plain", "sensitive"),
    [
        (512, "q4_k_m", "Q6_K", "Q4_K", "Q6_K"),
        (288, "q4_k_m", "Q8_0", "Q5_0", "Q8_0"),
        (250, "q4_k_m", "F16", "F16", "F16"),
        (288, "q8_0", "Q8_0", "Q8_0", "Q8_0"),
        (250, "q8_0", "F16", "F16", "F16"),
        (250, "bf16", "BF16", "BF16", "BF16"),
    ],
)
def test_rows_that_no_block_divides_fall_back(
    hidden: int, kind: str, embedding: str, plain: str, sensitive: str
) -> None:
    types = types_of(resized(SHAPES["tiny"], layers=4, hidden=hidden), kind)
    found = [types[f"{name}.weight"] for name in ("token_embd", "blk.0.attn_q", "blk.3.attn_v")]
    assert found == [embedding, plain, sensitive]


def test_an_unknown_type_is_refused_with_the_list() -> None:
    with pytest.raises(
        UsageError, match=f"unknown type 'q3'; expected one of {', '.join(RECIPES)}"
    ):
        find_recipe("q3")


def test_overrides_come_before_the_table_and_the_first_that_fits_counts() -> None:
    overrides = ("blk[.]1[.]=q8_0", "ATTN_Q=Q5_K", "attn_=q3_k", "norm|token=f16")
    types = types_of(SHAPES["tiny"], "q4_k_m", *overrides)
    assert types["blk.1.attn_q.weight"] == types["blk.1.ffn_down.weight"] == "Q8_0"
    assert types["blk.0.attn_q.weight"] == "Q5_K"
    assert types["blk.0.attn_v.weight"] == "Q3_K"
    assert types["token_embd.weight"] == "F16"
    assert types["output_norm.weight"] == types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.0.ffn_up.weight"] == "Q4_K"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("attn_q", "not of the form PATTERN=TYPE"),
        ("=q8_0", "not of the form PATTERN=TYPE"),
        ("attn_q=", "not of the form PATTERN=TYPE"),
        ("attn_q=iq1_s", "unknown tensor type 'iq1_s'"),
        ("attn_(=q8_0", "is not a regular expression"),
        ("attn_z=q8_0", "'attn_z' matches no matrix"),
        ("attn_norm=q8_0", "'attn_norm' matches no matrix"),
    ],
)
def test_an_override_that_would_do_nothing_is_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        types_of(SHAPES["tiny"], "q4_k_m", override)


@pytest.mark.parametrize(
    "overrides",
    [
        ("attn=q8_0", "attn_v=q6_k"),
        ("attn_v=q8_0", "attn_v=q8_0"),
        ("attn_v=q8_0", "attn_[kqo]=q6_k", "attn_.*weight=q5_k"),
    ],
)
def test_an_override_that_those_before_leave_nothing_to_is_refused(
    overrides: tuple[str, ...],
) -> None:
    last = overrides[-1].partition("=")[0]
    before = ", ".join(repr(text.partition("=")[0]) for text in overrides[:-1])
    message = f"{last!r} has no effect: the first pattern that matches a name counts, and {before}"
    with pytest.raises(UsageError, match=re.escape(message)):
        types_of(SHAPES["tiny"], "q4_k_m", *overrides)
    types_of(SHAPES["tiny"], "q4_k_m", *overrides[:-1])


def test_plain_types_take_no_overrides() -> None:
    with pytest.raises(UsageError, match="type bf16 is the same for all matrices"):
        types_of(SHAPES["tiny"], "bf16", "attn_q=q8_0")


def written(folder: Path, layout: str) -> list[tuple[str, str]]:
    shape = resized(SHAPES["tiny"], layers=12)  # more than ten: names sort otherwise
    source = write_checkpoint(folder / "source", shape)
    result = convert(source, folder / "out.gguf", layout=layout)
    return [(t.name, t.tensor_type.name) for t in GGUFReader(result.output).tensors]


def test_edge_layout_puts_what_llama_cpp_repacks_last(tmp_path: Path) -> None:
    tensors = written(tmp_path, "edge")
    kinds = [kind for _, kind in tensors]
    norms = kinds.count("F32")
    assert kinds[:norms] == ["F32"] * norms
    assert tensors[norms] == ("token_embd.weight", "Q6_K")
    blocks = kinds[norms + 1 :]
    assert blocks == sorted(blocks, reverse=True)  # Q6_K, then Q4_K
    assert Counter(blocks).keys() == {"Q6_K", "Q4_K"}


def test_standard_layout_goes_by_layer_and_name(tmp_path: Path) -> None:
    names = [name for name, _ in written(tmp_path, "standard")]
    assert names[:3] == ["output_norm.weight", "token_embd.weight", "blk.0.attn_k.weight"]
    layers = [int(name.split(".")[1]) for name in names[2:]]
    assert layers == sorted(layers)


def test_threads_are_by_default_what_a_containers_quota_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    workers: list[int] = []

    def pool(threads: int, name: str) -> ThreadPoolExecutor:
        workers.append(threads)
        return ThreadPoolExecutor(threads, name)

    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", pool)
    source = write_checkpoint(tmp_path / "source", SHAPES["odder"])
    convert(source, tmp_path / "out.gguf")
    convert(source, tmp_path / "out.gguf", n_threads=2, force=True)
    assert workers == [1, 2]
