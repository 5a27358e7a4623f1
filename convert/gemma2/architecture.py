"""Owns the Gemma-2 family: names, shapes, norm offsets, and hyper-parameters as GGUF keys.

Pure: a config and the tensors' names and shapes in, a plan out; nothing is read or written here.
The loader this must agree with is llama.cpp's `src/models/gemma2.cpp`; what a number may be, the
runtime's preflight says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, MODEL_TENSOR, TENSOR_NAMES, GGUFValueType, Keys

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.gguf.gemma2 import NUMBERS
from edgesppo.gguf.reader import MAX_ARRAY
from edgesppo_convert.source.json_reader import JsonObject, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    class Shaped(Protocol):
        """What is looked at of a tensor here."""

        @property
        def shape(self) -> tuple[int, ...]:
            """Sizes, slowest first, as in safetensors."""


ARCHITECTURE = "Gemma2ForCausalLM"
ARCH = MODEL_ARCH_NAMES[MODEL_ARCH.GEMMA2]
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
LAYERS_OF_27B = 46  # the loader tells the 27B by its number of layers


@dataclass(frozen=True)
class HParams:
    """The numbers of a Gemma-2 model."""

    vocabulary: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    window: int
    rms_eps: float
    rope_base: float
    attention_cap: float
    final_cap: float


@dataclass(frozen=True)
class Weight:
    """One tensor of the model: where it comes from and what becomes of it."""

    name: str  # in the GGUF
    source: str  # in the checkpoint
    role: MODEL_TENSOR
    layer: int  # -1 outside the blocks
    shape: tuple[int, ...]  # rows, then row length; a norm has one size only

    @property
    def is_norm(self) -> bool:
        """Gemma's norms multiply by (1 + w); llama.cpp's by w: these get +1, once, in float32."""
        return len(self.shape) == 1

    @property
    def row(self) -> int:
        """The length of a row, the unit of quantisation."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return 1 if self.is_norm else self.shape[0]

    @property
    def size(self) -> int:
        """Elements in all."""
        return self.rows * self.row


def read_hparams(config: JsonObject) -> HParams:
    """The model's numbers, every one checked, and every setting llama.cpp would ignore refused."""
    _check_architecture(config)
    hyper = HParams(
        vocabulary=config.integer("vocab_size", 1, MAX_ARRAY),
        hidden=_whole(config, "hidden_size", Keys.LLM.EMBEDDING_LENGTH),
        ffn=_whole(config, "intermediate_size", Keys.LLM.FEED_FORWARD_LENGTH),
        layers=_whole(config, "num_hidden_layers", Keys.LLM.BLOCK_COUNT),
        heads=_whole(config, "num_attention_heads", Keys.Attention.HEAD_COUNT),
        kv_heads=_whole(config, "num_key_value_heads", Keys.Attention.HEAD_COUNT_KV),
        head_dim=_whole(config, "head_dim", Keys.Attention.KEY_LENGTH),
        context=_whole(config, "max_position_embeddings", Keys.LLM.CONTEXT_LENGTH, 8192),
        window=_whole(config, "sliding_window", Keys.Attention.SLIDING_WINDOW, 4096),
        rms_eps=_real(config, "rms_norm_eps", Keys.Attention.LAYERNORM_RMS_EPS, 1e-6),
        rope_base=_rope_base(config),
        attention_cap=_real(
            config, "attn_logit_softcapping", Keys.LLM.ATTN_LOGIT_SOFTCAPPING, 50.0
        ),
        final_cap=_real(config, "final_logit_softcapping", Keys.LLM.FINAL_LOGIT_SOFTCAPPING, 30.0),
    )
    if hyper.heads % hyper.kv_heads:
        config.refuse("num_key_value_heads", f"a divisor of the {hyper.heads} attention heads")
    if hyper.head_dim % 2:
        config.refuse("head_dim", "an even number, as rotary positions need")
    _check_scale(config, hyper)
    _check_layer_types(config, hyper.layers)
    return hyper


def _whole(config: JsonObject, name: str, key: str, default: int | None = None) -> int:
    """A whole number within the bounds of its GGUF key."""
    low, high = NUMBERS[key.removeprefix("{arch}.")]
    return config.integer(name, int(low), int(high), default)


def _real(config: JsonObject, name: str, key: str, default: float) -> float:
    """A number within the bounds of its GGUF key."""
    return single(config, name, *NUMBERS[key.removeprefix("{arch}.")], default)


def single(
    config: JsonObject, name: str, low: float, high: float, default: float | None = None
) -> float:
    """A number that is still from `low` to `high` when it is stored as float32."""
    expected = f"a number from {low:g} to {high:g}"
    value = config.raw(name) if name in config else default
    if type(value) not in (int, float) or value is None or not -high <= value <= high:
        config.refuse(name, expected)
    if not low <= struct.unpack("<f", struct.pack("<f", value))[0] <= high:
        config.refuse(name, expected)
    return float(value)


def _check_architecture(config: JsonObject) -> None:
    found = config.raw("architectures")
    if found != [ARCHITECTURE]:
        named = ", ".join(map(str, found)) if isinstance(found, list) and found else found
        raise UnsupportedCheckpoint(
            f"{config.where}: the architecture is {show(named)}; only {ARCHITECTURE} is converted"
        )
    if config.raw("quantization_config") is not None:
        raise UnsupportedCheckpoint(
            f"{config.where} has a quantization_config; use the unquantised checkpoint"
        )
    activation = config.raw("hidden_activation")
    if activation not in (None, "gelu_pytorch_tanh"):
        config.refuse("hidden_activation", "'gelu_pytorch_tanh', the only one llama.cpp computes")
    for key in ("attention_bias", "use_bidirectional_attention"):
        if config.flag(key, default=False):
            config.refuse(key, "false: llama.cpp does not compute it for Gemma-2")


def _rope_base(config: JsonObject) -> float:
    """`rope_theta`, which transformers 5 keeps within `rope_parameters`."""
    if config.raw("rope_scaling") is not None:
        config.refuse("rope_scaling", "null: Gemma-2 does not scale its positions")
    if config.raw("rope_parameters") is None:
        return _real(config, "rope_theta", Keys.Rope.FREQ_BASE, 10000.0)
    rope = config.object("rope_parameters")
    if rope.text("rope_type", "default") != "default":
        rope.refuse("rope_type", "'default': Gemma-2 does not scale its positions")
    return _real(rope, "rope_theta", Keys.Rope.FREQ_BASE, 10000.0)


def _check_scale(config: JsonObject, hyper: HParams) -> None:
    """GGUF has no key for the scale of queries: the loader derives it, so they must agree."""
    derived = hyper.hidden // hyper.heads if hyper.layers == LAYERS_OF_27B else hyper.head_dim
    if config.number("query_pre_attn_scalar", 0, 1e6, 256) != derived:
        config.refuse(
            "query_pre_attn_scalar", f"{derived}, which llama.cpp takes for {hyper.layers} layers"
        )


def _check_layer_types(config: JsonObject, layers: int) -> None:
    """Newer configs spell out what older ones imply: every other layer slides, from the first."""
    if config.raw("layer_types") is not None:
        kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
        if config.items("layer_types") != kinds:
            config.refuse("layer_types", f"sliding and full attention in turn, {layers} in all")
    if config.raw("sliding_window_pattern") not in (None, 2):
        config.refuse("sliding_window_pattern", "2: every other layer slides")


def plan_weights(hyper: HParams) -> list[Weight]:
    """Every tensor that a model of these numbers has, in the order of the checkpoint."""
    weights = [_weight(MODEL_TENSOR.TOKEN_EMBD, EMBEDDING, -1, (hyper.vocabulary, hyper.hidden))]
    for layer in range(hyper.layers):
        prefix = f"model.layers.{layer}."
        weights += [
            _weight(role, f"{prefix}{source}.weight", layer, shape)
            for role, source, shape in _block(hyper)
        ]
    return [*weights, _weight(MODEL_TENSOR.OUTPUT_NORM, "model.norm.weight", -1, (hyper.hidden,))]


def _weight(role: MODEL_TENSOR, source: str, layer: int, shape: tuple[int, ...]) -> Weight:
    return Weight(TENSOR_NAMES[role].format(bid=layer) + ".weight", source, role, layer, shape)


def _block(hyper: HParams) -> Iterator[tuple[MODEL_TENSOR, str, tuple[int, ...]]]:
    width, queries = hyper.hidden, hyper.heads * hyper.head_dim
    keys = hyper.kv_heads * hyper.head_dim
    yield MODEL_TENSOR.ATTN_NORM, "input_layernorm", (width,)
    yield MODEL_TENSOR.ATTN_Q, "self_attn.q_proj", (queries, width)
    yield MODEL_TENSOR.ATTN_K, "self_attn.k_proj", (keys, width)
    yield MODEL_TENSOR.ATTN_V, "self_attn.v_proj", (keys, width)
    yield MODEL_TENSOR.ATTN_OUT, "self_attn.o_proj", (width, queries)
    yield MODEL_TENSOR.ATTN_POST_NORM, "post_attention_layernorm", (width,)
    yield MODEL_TENSOR.FFN_PRE_NORM, "pre_feedforward_layernorm", (width,)
    yield MODEL_TENSOR.FFN_GATE, "mlp.gate_proj", (hyper.ffn, width)
    yield MODEL_TENSOR.FFN_UP, "mlp.up_proj", (hyper.ffn, width)
    yield MODEL_TENSOR.FFN_DOWN, "mlp.down_proj", (width, hyper.ffn)
    yield MODEL_TENSOR.FFN_POST_NORM, "post_feedforward_layernorm", (width,)


def check_tensors(
    weights: Iterable[Weight], tensors: Mapping[str, Shaped], config: JsonObject
) -> None:
    """Refuse a checkpoint that lacks a tensor, has one too many, or one of another shape.

    That `lm_head.weight`, where there is one, equals the embedding is for the caller to compare.
    """
    expected = {weight.source: weight.shape for weight in weights}
    for name, shape in expected.items():
        if name not in tensors:
            raise BadCheckpoint(f"the checkpoint lacks tensor {name}; is the download complete?")
        _check_shape(name, tensors[name].shape, shape)
    if HEAD in tensors:
        _check_shape(HEAD, tensors[HEAD].shape, expected[EMBEDDING])
    elif not config.flag("tie_word_embeddings", default=True):
        raise BadCheckpoint(
            f"the checkpoint lacks {HEAD}, though its config sets tie_word_embeddings to false"
        )
    for name in tensors:
        if name not in expected and name != HEAD and not name.endswith(".rotary_emb.inv_freq"):
            raise BadCheckpoint(
                f"the checkpoint has tensor {show(name)}, which no {ARCHITECTURE} of its config has"
            )


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise BadCheckpoint(
            f"tensor {name} has shape {list(found)}; its config asks for {list(expected)}"
        )


def metadata(hyper: HParams) -> list[tuple[str, GGUFValueType, int | float]]:
    """The hyper-parameters as GGUF keys."""
    u32, f32 = GGUFValueType.UINT32, GGUFValueType.FLOAT32
    keys: list[tuple[str, GGUFValueType, int | float]] = [
        (Keys.LLM.CONTEXT_LENGTH, u32, hyper.context),
        (Keys.LLM.EMBEDDING_LENGTH, u32, hyper.hidden),
        (Keys.LLM.BLOCK_COUNT, u32, hyper.layers),
        (Keys.LLM.FEED_FORWARD_LENGTH, u32, hyper.ffn),
        (Keys.Attention.HEAD_COUNT, u32, hyper.heads),
        (Keys.Attention.HEAD_COUNT_KV, u32, hyper.kv_heads),
        (Keys.Attention.LAYERNORM_RMS_EPS, f32, hyper.rms_eps),
        (Keys.Attention.KEY_LENGTH, u32, hyper.head_dim),
        (Keys.Attention.VALUE_LENGTH, u32, hyper.head_dim),
        (Keys.Rope.FREQ_BASE, f32, hyper.rope_base),
        (Keys.LLM.ATTN_LOGIT_SOFTCAPPING, f32, hyper.attention_cap),
        (Keys.LLM.FINAL_LOGIT_SOFTCAPPING, f32, hyper.final_cap),
        (Keys.Attention.SLIDING_WINDOW, u32, hyper.window),
    ]
    return [(key.format(arch=ARCH), kind, value) for key, kind, value in keys]
