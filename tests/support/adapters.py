"""LoRA adapters in PEFT's form, and a small numpy merge as the reference."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.support.checkpoints import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[Any]]

PREFIX = "base_model.model."
NAMES = {"float32": "F32", "float16": "F16", "uint16": "BF16"}


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a safetensors file, as float32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found[name] = _floats(entry["dtype"], data[start + begin : start + end]).reshape(
                entry["shape"]
            )
    return found


def _floats(dtype: str, data: bytes) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F16": np.float16, "F32": np.float32}[dtype]).astype(np.float32)


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file; arrays of uint16 are bfloat16."""
    header, end = {}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end := end + array.nbytes],
        }
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def random_factors(
    shapes: Mapping[str, tuple[int, int]], rank: Mapping[str, int] | int, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """lora_A and lora_B of each module, by their names in PEFT's file."""
    random = np.random.default_rng(seed)
    found = {}
    for module, (out, width) in shapes.items():
        r = rank if isinstance(rank, int) else rank[module]
        a = random.standard_normal((r, width), np.float32) * np.float32(0.05)
        b = random.standard_normal((out, r), np.float32) * np.float32(0.05)
        kind = "embedding_" if module.endswith("embed_tokens") else ""
        end = "" if kind else ".weight"
        if kind:
            a, b = b.T.copy(), a.T.copy()  # rank x vocabulary, hidden x rank
        found[f"{PREFIX}{module}.lora_{kind}A{end}"] = a
        found[f"{PREFIX}{module}.lora_{kind}B{end}"] = b
    return found


def write_adapter(folder: Path, tensors: Tensors, **config: Any) -> Path:
    """Write an adapter of rank 4 and alpha 8 unless `config` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "google/gemma-2-9b-it",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "megatron_core": "megatron.core",
    }
    write_json(folder / "adapter_config.json", {**usual, **config})
    write_tensors(folder / "adapter_model.safetensors", tensors)
    return folder


def merged(base: Tensors, adapter: Tensors, scales: Mapping[str, float]) -> dict[str, Any]:
    """The base with each product added, scaled as `scales` says by module, in float32."""
    found = dict(base)
    for module, scale in scales.items():
        kind = "embedding_" if module.endswith("embed_tokens") else ""
        end = "" if kind else ".weight"
        a = adapter[f"{PREFIX}{module}.lora_{kind}A{end}"]
        b = adapter[f"{PREFIX}{module}.lora_{kind}B{end}"]
        product = (b @ a).T if kind else b @ a
        found[f"{module}.weight"] = found[f"{module}.weight"] + product * np.float32(scale)
    return found


def usual_scale(rank: int = 4, alpha: float = 8, *, rslora: bool = False) -> float:
    return alpha / (math.sqrt(rank) if rslora else rank)
