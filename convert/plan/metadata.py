"""Owns which keys a file carries and in which order: provenance, the family's, the tokenizer's.

Writes no time, no path and no user into the file: the same checkpoint gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import GGML_QUANT_VERSION, GGUFValueType, Keys

from edgesppo_convert.gemma2 import architecture
from edgesppo_convert.gguf_format import KeyValue
from edgesppo_convert.plan import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo_convert.gemma2.architecture import HParams, Weight
    from edgesppo_convert.gemma2.vocab import Vocabulary
    from edgesppo_convert.quant.recipe import Recipe
    from edgesppo_convert.source.checkpoint import Checkpoint
    from edgesppo_convert.source.json_reader import JsonObject

STRING, BOOL = GGUFValueType.STRING, GGUFValueType.BOOL
UINT32, INT32, FLOAT32 = GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.FLOAT32


# GGUF key, its type, the key in generation_config.json, and the bounds of the runtime's sampler,
# which takes a temperature of 0, too.
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
    hyper: HParams,
    weights: Sequence[Weight],
    vocabulary: Vocabulary,
) -> list[KeyValue]:
    """All keys. The last two stand where `llama_model_quantize` puts them, too."""
    size = sum(weight.size for weight in weights)
    return [
        KeyValue(Keys.General.ARCHITECTURE, STRING, architecture.ARCH),
        KeyValue(Keys.General.TYPE, STRING, "model"),
        *provenance.collect(checkpoint, size),
        *_sampling(checkpoint.json("generation_config.json")),
        *(KeyValue(key, kind, value) for key, kind, value in architecture.metadata(hyper)),
        *_tokenizer(vocabulary),
        KeyValue(Keys.General.QUANTIZATION_VERSION, UINT32, GGML_QUANT_VERSION),
        KeyValue(Keys.General.FILE_TYPE, UINT32, int(recipe.file_type)),
    ]


def _sampling(config: JsonObject | None) -> list[KeyValue]:
    """How the checkpoint's authors sample it, where they say so."""
    return [
        KeyValue(key, kind, _amount(config, source, kind, low, high))
        for key, kind, source, low, high in SAMPLING
        if config is not None and config.raw(source) is not None
    ]


def _amount(
    config: JsonObject, key: str, kind: GGUFValueType, low: float, high: int
) -> int | float:
    if kind is INT32:
        return config.integer(key, int(low), high)
    if key == "temperature" and type(config.raw(key)) in (int, float) and config.raw(key) == 0:
        return 0
    return architecture.single(config, key, low, high)


def _tokenizer(vocabulary: Vocabulary) -> list[KeyValue]:
    tokens = vocabulary.tokens
    keys = [
        KeyValue(Keys.Tokenizer.MODEL, STRING, "llama"),
        KeyValue(Keys.Tokenizer.PRE, STRING, "default"),
        KeyValue(Keys.Tokenizer.LIST, STRING, [token.text for token in tokens]),
        KeyValue(Keys.Tokenizer.SCORES, FLOAT32, [token.score for token in tokens]),
        KeyValue(Keys.Tokenizer.TOKEN_TYPE, INT32, [int(token.type) for token in tokens]),
        *(KeyValue(key, UINT32, index) for key, index in vocabulary.duties.items()),
        KeyValue(Keys.Tokenizer.ADD_BOS, BOOL, True),
        KeyValue(Keys.Tokenizer.ADD_EOS, BOOL, False),
        KeyValue(Keys.Tokenizer.ADD_PREFIX, BOOL, False),
    ]
    if vocabulary.template is not None:
        keys.append(KeyValue(Keys.Tokenizer.CHAT_TEMPLATE, STRING, vocabulary.template))
    return keys
