"""Read an adapter_config.json of PEFT: rank and scale of a plain LoRA adapter, by module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UnsupportedCheckpoint
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from edgesppo_convert.source.json_reader import JsonObject

# Settings that make another method of it, and its name.
_OTHER_METHODS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow",
    "trainable_token_indices": "trainable tokens",
    "target_parameters": "LoRA of single parameters",
    "layer_replication": "replicated layers",
    "lora_bias": "LoRA with biases",
}
# Ways to begin that change the base model, too, so that what is saved belongs to another base.
_CHANGED_BASES = ("pissa", "olora", "loftq", "corda", "lora_ga")
MAX_PATTERN, MAX_PATTERNS, MAX_REPEATS = 256, 5000, 3
MAX_RANK = 1 << 14


class LoraConfig:
    """The settings of a plain LoRA adapter. Raises UnsupportedCheckpoint for any other."""

    def __init__(self, config: JsonObject) -> None:
        self._config = config
        _check_method(config)
        self.is_rank_stabilised = config.flag("use_rslora", default=False)
        self._ranks = self._patterns("rank_pattern")
        self._alphas = self._patterns("alpha_pattern")

    def rank_and_alpha(self, module: str) -> tuple[int, float]:
        """The rank and alpha of a module, such as model.layers.0.self_attn.q_proj."""
        holder, key = self._find(self._ranks, module, "rank_pattern", "r")
        rank = holder.integer(key, 1, MAX_RANK)
        holder, key = self._find(self._alphas, module, "alpha_pattern", "lora_alpha")
        return rank, holder.number(key, -1e6, 1e6)

    def _find(
        self, patterns: dict[str, re.Pattern[str]], module: str, holder: str, default: str
    ) -> tuple[JsonObject, str]:
        """Where the value for a module is: under the first pattern that matches, or the default."""
        for key, pattern in patterns.items():
            if pattern.fullmatch(module):
                return self._config.object(holder), key
        return self._config, default

    def _patterns(self, key: str) -> dict[str, re.Pattern[str]]:
        if not self._config.raw(key):
            return {}
        holder = self._config.object(key)
        if len(holder) > MAX_PATTERNS:
            self._config.refuse(key, f"at most {MAX_PATTERNS:,} patterns")
        return {text: _compiled(holder, text) for text in holder}


def _check_method(config: JsonObject) -> None:
    kind = config.raw("peft_type")
    if kind != "LORA":
        raise _refusal(config, "peft_type", f"the method {show(kind)}")
    for key, method in _OTHER_METHODS.items():
        if config.raw(key):
            raise _refusal(config, key, method)
    for key in config:
        if key.startswith("use_") and key != "use_rslora" and config.raw(key) is True:
            raise _refusal(config, key, "a variant that edgesppo does not know")
    begin = config.raw("init_lora_weights")
    if isinstance(begin, str) and begin.lower().startswith(_CHANGED_BASES):
        raise UnsupportedCheckpoint(
            f"{config.where}: 'init_lora_weights' is {show(begin)}, which changes the base model,"
            " too, so that the adapter fits only that changed base; save it as plain LoRA:"
            " save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )


def _refusal(config: JsonObject, key: str, method: str) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"{config.where}: {show(key)} is {show(config.raw(key))}: {method}; only plain LoRA can be"
        " merged here; merge it with peft (merge_and_unload()), and convert what that saves"
    )


def _compiled(holder: JsonObject, text: str) -> re.Pattern[str]:
    """A pattern as PEFT uses it; repeated groups are refused, as they can take forever."""
    is_slow = re.search(r"\)[*+{]", text) or len(re.findall(r"[*+{]", text)) > MAX_REPEATS
    if len(text) > MAX_PATTERN or is_slow:
        holder.refuse(
            text, f"a pattern of at most {MAX_PATTERN} characters, without repeated groups"
        )
    try:
        return re.compile(rf"(?:.*\.)?(?:{text})")
    except (re.error, OverflowError, RecursionError):
        holder.refuse(text, "a valid regular expression")


def base_model(config: JsonObject) -> str | None:
    """The model that an adapter says it was trained on, if it does."""
    name: Any = config.raw("base_model_name_or_path")
    return name if isinstance(name, str) and name else None
