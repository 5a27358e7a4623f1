"""Write the demo checkpoint: config, tokenizer files, and the weights as bf16 safetensors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgesppo.dev.train_demo import tokenizer

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = 512
CONFIG: dict[str, Any] = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "vocab_size": tokenizer.VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-06,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "torch_dtype": "bfloat16",
}
# What differs in each size: `large`, which is not shipped, is to measure quantisation on.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {},
    "large": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}
TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def _added(piece: str) -> dict[str, Any]:
    return {
        "content": piece,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def tokenizer_config() -> dict[str, Any]:
    """The content of tokenizer_config.json: special tokens, chat template, tokenizer settings."""
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(i): _added(p) for i, p in enumerate(tokenizer.SPECIAL)},
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "bos_token": "<bos>",
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "model_max_length": CONTEXT,
        "pad_token": "<pad>",
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def config(size: str) -> dict[str, Any]:
    """The content of config.json of a model of this size."""
    return {**CONFIG, **SIZES[size]}


def write(
    folder: Path,
    model: Any,
    spm_bytes: bytes,
    config: dict[str, Any],
    *,
    torch: Any,
    save_file: Any,
) -> None:
    """Write the checkpoint to `folder`; the output matrix is tied to the embedding and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    documents = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 2, "eos_token_id": [1, 107], "pad_token_id": 0},
        "tokenizer_config.json": tokenizer_config(),
        "special_tokens_map.json": {
            **{key: _added(piece) for key, piece in names.items()},
            "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        },
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(spm_bytes)
    state = {
        name: value.detach().to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
