"""Merge adapters of every kind with peft in float32, and compare with our own merge.

Prints the largest difference of each kind. Needs torch, transformers and peft, which the tests do
not: python -m tests.tools.compare_with_peft FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from edgesppo_convert import convert
from edgesppo_convert.gemma2.architecture import plan_weights, read_hparams
from edgesppo_convert.source.checkpoint import Checkpoint
from tests.support.checkpoints import SHAPES, write_checkpoint

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"target_modules": LINEAR, "r": 16, "lora_alpha": 32},
    "patterns": {
        "target_modules": LINEAR,
        "rank_pattern": {"down_proj": 24, r"model.layers.1.self_attn.q_proj": 3},
        "alpha_pattern": {"^model.layers.0.*": 5, "o_proj": 1},
    },
    "rslora": {"target_modules": LINEAR, "r": 12, "use_rslora": True},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "modules-to-save": {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    "fan-in-fan-out": {"target_modules": ["up_proj"], "fan_in_fan_out": True},
    "rank 64": {"target_modules": LINEAR, "r": 64, "lora_alpha": 16},
}


def train(base: Path, folder: Path, config: dict[str, Any], seed: int) -> Path:
    """Write an adapter whose tensors are random; its factors B, too, which begin as zeros."""
    torch.manual_seed(seed)
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(torch.randn_like(value) * 0.05 + ("norm" in name) * 0.01)
    model.save_pretrained(folder)
    return folder


def load(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def merge(base: Path, adapters: dict[Path, float]) -> dict[str, Any]:
    """The tensors after peft has merged the adapters one after the other."""
    model = load(base)
    for folder, weight in adapters.items():
        wrapped = PeftModel.from_pretrained(model, folder)
        if weight != 1:
            for module in wrapped.modules():
                if hasattr(module, "scale_layer"):
                    module.scale_layer(weight)
        model = wrapped.merge_and_unload()
    return {name: value.numpy() for name, value in model.state_dict().items()}


def largest_difference(base: Path, adapters: dict[Path, float], output: Path) -> str:
    """How far our merge is from peft's, and how many values differ at all."""
    named = [f"{folder}={weight}" for folder, weight in adapters.items()]
    convert(base, output, type="f32", adapters=named, force=True)
    ours = {tensor.name: tensor.data for tensor in GGUFReader(output).tensors}
    theirs = merge(base, adapters)
    with Checkpoint(base) as checkpoint:
        weights = plan_weights(read_hparams(checkpoint.config))
    most, differing, total = 0.0, 0, 0
    for weight in weights:
        expected = theirs[weight.source] + np.float32(1 if weight.is_norm else 0)
        apart = np.abs(ours[weight.name].astype(np.float64) - expected)
        most, differing = max(most, float(apart.max())), differing + int((apart > 0).sum())
        total += weight.size
    return f"largest difference {most:.3g}, {differing:,} of {total:,} values differ"


def main() -> None:
    folder = Path(sys.argv[1])
    base = write_checkpoint(folder / "base", SHAPES["tiny"])
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    made = {}
    for seed, (name, settings) in enumerate(KINDS.items()):
        made[name] = train(base, folder / name.replace(" ", "-"), settings, seed)
        found = largest_difference(base, {made[name]: 1.0}, folder / "out.gguf")
        sys.stdout.write(f"{name:16} {found}\n")
    several = {made["plain"]: 0.5, made["all-linear"]: -0.25, made["rslora"]: 1.0}
    found = largest_difference(base, several, folder / "out.gguf")
    sys.stdout.write(f"{'three, weighted':16} {found}\n")


if __name__ == "__main__":
    main()
