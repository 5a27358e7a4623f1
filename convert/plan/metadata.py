"""Collect the GGUF keys of a file, in order: provenance, hyper-parameters, tokenizer.

No key holds a time, a path or a user's name: the same checkpoint gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import GGML_QUANT_VERSION, GGUFValueType, Keys

from edgesppo_convert.gemma2 import architecture
from edgesppo_convert.gemma2.numbers import float32_number
from edgesppo_convert.gguf_format import KeyValue
from edgesppo_convert.plan import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo_convert.gemma2.architecture import HParams, Weight
    from edgesppo_convert.gemma2.vocab import Vocabulary
    from edgesppo_convert.quant.recipe import Recipe
    from edgesppo_convert.source.adapter import Adapter
    from edgesppo_convert.source.checkpoint import Checkpoint
    from edgesppo_convert.source.json_reader import JsonObject

STRING, BOOL = GGUFValueType.STRING, GGUFValueType.BOOL
UINT32, INT32, FLOAT32 = GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.FLOAT32


# GGUF key, its type, the key in generation_config.json, and the bounds of the runtime's sampler
# (which also accepts a temperature of 0).
SAMPLING = (
    (Keys.General.SAMPLING_TOP_K, INT32, "top_k", 0, 2**31 - 1),
    (Keys.General.SAMPLING_TOP_P, FLOAT32, "top_p", 0, 1),
    (Keys.General.SAMPLING_MIN_P, FLOAT32, "min_p", 0, 1),
    (Keys.General.SAMPLING_TEMP, FLOAT32, "temperature", 1e-4, 100),
    (Keys.General.SAMPLING_PENALTY_REPEAT, FLOAT32, "repetition_penalty", 0.01, 100),
)


def collect(
    checkpoint: Checkpoint,
    recipe: Recipe,
    hparams: HParams,
    weights: Sequence[Weight],
    vocabulary: Vocabulary,
    adapters: Sequence[Adapter],
) -> list[KeyValue]:
    """All keys, in order. The last two are last because `llama_model_quantize` puts them there."""
    size = sum(weight.size for weight in weights)
    return [
        KeyValue(Keys.General.ARCHITECTURE, STRING, architecture.ARCH),
        KeyValue(Keys.General.TYPE, STRING, "model"),
        *provenance.collect(checkpoint, size, adapters),
        *_sampling(checkpoint.read_json("generation_config.json")),
        *(KeyValue(key, kind, value) for key, kind, value in architecture.metadata(hparams)),
        *_tokenizer(vocabulary),
        KeyValue(Keys.General.QUANTIZATION_VERSION, UINT32, GGML_QUANT_VERSION),
        KeyValue(Keys.General.FILE_TYPE, UINT32, int(recipe.file_type)),
    ]


def _sampling(config: JsonObject | None) -> list[KeyValue]:
    """The sampling settings that the checkpoint's authors recommend, if any."""
    return [
        KeyValue(key, kind, _sampling_value(config, source, kind, low, high))
        for key, kind, source, low, high in SAMPLING
        if config is not None and config.raw(source) is not None
    ]


def _sampling_value(
    config: JsonObject, key: str, kind: GGUFValueType, low: float, high: int
) -> int | float:
    if kind is INT32:
        return config.integer(key, int(low), high)
    if key == "temperature" and type(config.raw(key)) in (int, float) and config.raw(key) == 0:
        return 0
    return float32_number(config, key, low, high)


def _tokenizer(vocabulary: Vocabulary) -> list[KeyValue]:
    tokens = vocabulary.tokens
    keys = [
        KeyValue(Keys.Tokenizer.MODEL, STRING, "llama"),
        KeyValue(Keys.Tokenizer.PRE, STRING, "default"),
        KeyValue(Keys.Tokenizer.LIST, STRING, [token.text for token in tokens]),
        KeyValue(Keys.Tokenizer.SCORES, FLOAT32, [token.score for token in tokens]),
        KeyValue(Keys.Tokenizer.TOKEN_TYPE, INT32, [int(token.type) for token in tokens]),
        *(KeyValue(key, UINT32, index) for key, index in vocabulary.special_ids.items()),
        KeyValue(Keys.Tokenizer.ADD_BOS, BOOL, True),
        KeyValue(Keys.Tokenizer.ADD_EOS, BOOL, False),
        KeyValue(Keys.Tokenizer.ADD_PREFIX, BOOL, False),
    ]
    if vocabulary.template is not None:
        keys.append(KeyValue(Keys.Tokenizer.CHAT_TEMPLATE, STRING, vocabulary.template))
    return keys
