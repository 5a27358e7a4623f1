"""The Gemma-2 architecture: tensor names and shapes, and hyper-parameters as GGUF keys.

It must agree with llama.cpp's loader, `src/models/gemma2.cpp`. The bounds of each number are the
ones that the runtime checks before it loads a file (`edgesppo.gguf.gemma2`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, MODEL_TENSOR, TENSOR_NAMES, GGUFValueType, Keys

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.gguf.gemma2 import NUMBERS
from edgesppo.gguf.reader import MAX_ARRAY
from edgesppo_convert.gemma2.numbers import float32_number
from edgesppo_convert.gemma2.rope import read_rope_base
from edgesppo_convert.source.json_reader import JsonObject, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    class Shaped(Protocol):
        """A tensor of a checkpoint, of which only the shape is used."""

        @property
        def shape(self) -> tuple[int, ...]:
            """Sizes, slowest first, as in safetensors."""


ARCHITECTURE = "Gemma2ForCausalLM"
BARE_ARCHITECTURE = "Gemma2Model"  # the same weights, saved without the head, which is tied
MODEL_TYPE = "gemma2"
ARCH = MODEL_ARCH_NAMES[MODEL_ARCH.GEMMA2]
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
LAYERS_OF_27B = 46  # the loader recognises the 27B by its number of layers


@dataclass(frozen=True)
class HParams:
    """The hyper-parameters of a Gemma-2 model."""

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
    """One tensor of the model: its names in the checkpoint and in the GGUF file, and its shape."""

    name: str  # in the GGUF
    source: str  # in the checkpoint
    role: MODEL_TENSOR
    layer: int  # -1 outside the blocks
    shape: tuple[int, ...]  # rows, row length; a norm has only its length

    @property
    def is_norm(self) -> bool:
        """Norms are stored as w + 1 (in float32): Gemma multiplies by 1 + w, llama.cpp by w."""
        return len(self.shape) == 1

    @property
    def row(self) -> int:
        """Elements per row, the unit of quantisation."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return 1 if self.is_norm else self.shape[0]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.rows * self.row


def read_hparams(config: JsonObject) -> HParams:
    """Read and check the hyper-parameters; refuse every setting that llama.cpp would ignore."""
    _check_architecture(config)
    hparams = HParams(
        vocabulary=config.integer("vocab_size", 1, MAX_ARRAY),
        hidden=_integer(config, "hidden_size", Keys.LLM.EMBEDDING_LENGTH),
        ffn=_integer(config, "intermediate_size", Keys.LLM.FEED_FORWARD_LENGTH),
        layers=_integer(config, "num_hidden_layers", Keys.LLM.BLOCK_COUNT),
        heads=_integer(config, "num_attention_heads", Keys.Attention.HEAD_COUNT),
        kv_heads=_integer(config, "num_key_value_heads", Keys.Attention.HEAD_COUNT_KV),
        head_dim=_integer(config, "head_dim", Keys.Attention.KEY_LENGTH, 256),
        context=_integer(config, "max_position_embeddings", Keys.LLM.CONTEXT_LENGTH, 8192),
        window=_integer(config, "sliding_window", Keys.Attention.SLIDING_WINDOW, 4096),
        rms_eps=_float(config, "rms_norm_eps", Keys.Attention.LAYERNORM_RMS_EPS, 1e-6),
        rope_base=read_rope_base(config),
        attention_cap=_float(
            config, "attn_logit_softcapping", Keys.LLM.ATTN_LOGIT_SOFTCAPPING, 50.0
        ),
        final_cap=_float(config, "final_logit_softcapping", Keys.LLM.FINAL_LOGIT_SOFTCAPPING, 30.0),
    )
    if hparams.heads % hparams.kv_heads:
        config.refuse("num_key_value_heads", f"a divisor of the {hparams.heads} attention heads")
    if hparams.head_dim % 2:
        config.refuse("head_dim", "an even number, which rotary positions need")
    _check_scale(config, hparams)
    _check_layer_types(config, hparams.layers)
    return hparams


def _integer(config: JsonObject, name: str, key: str, default: int | None = None) -> int:
    """Read a whole number, within the bounds of its GGUF key."""
    low, high = NUMBERS[key.removeprefix("{arch}.")]
    return config.integer(name, int(low), int(high), default)


def _float(config: JsonObject, name: str, key: str, default: float) -> float:
    """Read a number, within the bounds of its GGUF key."""
    return float32_number(config, name, *NUMBERS[key.removeprefix("{arch}.")], default)


def _check_architecture(config: JsonObject) -> None:
    found = config.raw("architectures")
    kind = config.raw("model_type")
    is_named = found in ([ARCHITECTURE], [BARE_ARCHITECTURE])
    if not is_named and (found or kind != MODEL_TYPE):
        names = ", ".join(map(str, found)) if isinstance(found, list) and found else found
        raise UnsupportedCheckpoint(
            f"{config.where}: the architecture is {show(names)} and the model_type {show(kind)};"
            f" only {ARCHITECTURE} can be converted"
        )
    if kind not in (None, MODEL_TYPE):
        config.refuse("model_type", f"{MODEL_TYPE!r}, as for {ARCHITECTURE}")
    if config.raw("quantization_config") is not None:
        raise _already_quantised(config)
    activation = config.raw("hidden_activation")
    if activation not in (None, "gelu_pytorch_tanh"):
        config.refuse("hidden_activation", "'gelu_pytorch_tanh', the only one llama.cpp supports")
    for key in ("attention_bias", "use_bidirectional_attention"):
        if config.flag(key, default=False):
            config.refuse(key, "false: llama.cpp does not support it for Gemma-2")


def _already_quantised(config: JsonObject) -> UnsupportedCheckpoint:
    """The error for a checkpoint of fewer bits, with its method where the config names it."""
    quantization = config.raw("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    by = f" (by {show(method)})" if method else ""
    return UnsupportedCheckpoint(
        f"{config.where} has a quantization_config, so its weights are quantised already{by}; use"
        " the unquantised checkpoint that it was made from, such as: edgesppo pull OWNER/NAME"
        " --convert"
    )


def _check_scale(config: JsonObject, hparams: HParams) -> None:
    """GGUF has no key for the scale of queries: the config must give the one the loader derives."""
    derived = (
        hparams.hidden // hparams.heads if hparams.layers == LAYERS_OF_27B else hparams.head_dim
    )
    if config.number("query_pre_attn_scalar", 0, 1e6, 256) != derived:
        config.refuse(
            "query_pre_attn_scalar", f"{derived}, which llama.cpp uses for {hparams.layers} layers"
        )


def _check_layer_types(config: JsonObject, layers: int) -> None:
    """Newer configs spell out what older ones imply: from the first, every other layer slides."""
    if config.raw("layer_types") is not None:
        kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
        if config.items("layer_types") != kinds:
            config.refuse(
                "layer_types", f"{layers} layers, in turn sliding_attention and full_attention"
            )
    if config.raw("sliding_window_pattern") not in (None, 2):
        config.refuse("sliding_window_pattern", "2: every other layer has sliding attention")


def plan_weights(hparams: HParams) -> list[Weight]:
    """Every tensor that a model with these hyper-parameters has, in the checkpoint's order."""
    weights = [
        _weight(MODEL_TENSOR.TOKEN_EMBD, EMBEDDING, -1, (hparams.vocabulary, hparams.hidden))
    ]
    for layer in range(hparams.layers):
        prefix = f"model.layers.{layer}."
        weights += [
            _weight(role, f"{prefix}{source}.weight", layer, shape)
            for role, source, shape in _layer_tensors(hparams)
        ]
    return [*weights, _weight(MODEL_TENSOR.OUTPUT_NORM, "model.norm.weight", -1, (hparams.hidden,))]


def _weight(role: MODEL_TENSOR, source: str, layer: int, shape: tuple[int, ...]) -> Weight:
    return Weight(TENSOR_NAMES[role].format(bid=layer) + ".weight", source, role, layer, shape)


def _layer_tensors(hparams: HParams) -> Iterator[tuple[MODEL_TENSOR, str, tuple[int, ...]]]:
    width, queries = hparams.hidden, hparams.heads * hparams.head_dim
    keys = hparams.kv_heads * hparams.head_dim
    yield MODEL_TENSOR.ATTN_NORM, "input_layernorm", (width,)
    yield MODEL_TENSOR.ATTN_Q, "self_attn.q_proj", (queries, width)
    yield MODEL_TENSOR.ATTN_K, "self_attn.k_proj", (keys, width)
    yield MODEL_TENSOR.ATTN_V, "self_attn.v_proj", (keys, width)
    yield MODEL_TENSOR.ATTN_OUT, "self_attn.o_proj", (width, queries)
    yield MODEL_TENSOR.ATTN_POST_NORM, "post_attention_layernorm", (width,)
    yield MODEL_TENSOR.FFN_PRE_NORM, "pre_feedforward_layernorm", (width,)
    yield MODEL_TENSOR.FFN_GATE, "mlp.gate_proj", (hparams.ffn, width)
    yield MODEL_TENSOR.FFN_UP, "mlp.up_proj", (hparams.ffn, width)
    yield MODEL_TENSOR.FFN_DOWN, "mlp.down_proj", (width, hparams.ffn)
    yield MODEL_TENSOR.FFN_POST_NORM, "post_feedforward_layernorm", (width,)


def check_tensors(
    weights: Iterable[Weight], tensors: Mapping[str, Shaped], config: JsonObject
) -> None:
    """Refuse a checkpoint with a missing, unexpected or misshapen tensor.

    An `lm_head.weight` passes if its shape is the embedding's; the caller compares the values.
    """
    expected = {weight.source: weight.shape for weight in weights}
    for name, shape in expected.items():
        if name not in tensors:
            raise _missing(name, expected, tensors)
        _check_shape(name, tensors[name].shape, shape)
    if HEAD in tensors:
        _check_shape(HEAD, tensors[HEAD].shape, expected[EMBEDDING])
    elif not config.flag("tie_word_embeddings", default=True):
        raise BadCheckpoint(
            f"the checkpoint has no tensor {HEAD}, but its config sets tie_word_embeddings to"
            " false; is the download complete?"
        )
    for name in tensors:
        if name not in expected and name != HEAD and not name.endswith(".rotary_emb.inv_freq"):
            raise BadCheckpoint(
                f"the checkpoint has an unexpected tensor {show(name)}; a {ARCHITECTURE} with this"
                " config has none of that name"
            )


def _missing(
    name: str, expected: Mapping[str, object], tensors: Mapping[str, object]
) -> BadCheckpoint:
    """The error for a tensor that is missing, with what there is under another name."""
    count = sum(each not in tensors for each in expected)
    of = f" ({count} of {len(expected)} are missing)" if count > 1 else ""
    other = next((each for each in tensors if each not in expected and each != HEAD), None)
    advice = (
        "is the download complete?"
        if other is None
        else f"it has others, such as {show(other)}: is it a {ARCHITECTURE}, saved by transformers?"
    )
    return BadCheckpoint(f"the checkpoint has no tensor {name}{of}; {advice}")


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise BadCheckpoint(
            f"tensor {name} has shape {list(found)}; expected {list(expected)} by its config"
        )


def metadata(hparams: HParams) -> list[tuple[str, GGUFValueType, int | float]]:
    """The hyper-parameters as GGUF keys: name, type and value of each."""
    u32, f32 = GGUFValueType.UINT32, GGUFValueType.FLOAT32
    keys: list[tuple[str, GGUFValueType, int | float]] = [
        (Keys.LLM.CONTEXT_LENGTH, u32, hparams.context),
        (Keys.LLM.EMBEDDING_LENGTH, u32, hparams.hidden),
        (Keys.LLM.BLOCK_COUNT, u32, hparams.layers),
        (Keys.LLM.FEED_FORWARD_LENGTH, u32, hparams.ffn),
        (Keys.Attention.HEAD_COUNT, u32, hparams.heads),
        (Keys.Attention.HEAD_COUNT_KV, u32, hparams.kv_heads),
        (Keys.Attention.LAYERNORM_RMS_EPS, f32, hparams.rms_eps),
        (Keys.Attention.KEY_LENGTH, u32, hparams.head_dim),
        (Keys.Attention.VALUE_LENGTH, u32, hparams.head_dim),
        (Keys.Rope.FREQ_BASE, f32, hparams.rope_base),
        (Keys.LLM.ATTN_LOGIT_SOFTCAPPING, f32, hparams.attention_cap),
        (Keys.LLM.FINAL_LOGIT_SOFTCAPPING, f32, hparams.final_cap),
        (Keys.Attention.SLIDING_WINDOW, u32, hparams.window),
    ]
    return [(key.format(arch=ARCH), kind, value) for key, kind, value in keys]
