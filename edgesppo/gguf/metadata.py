"""A GGUF file's metadata as plain values that can be printed or written as JSON.

No key of the `Summary` is assumed to exist or to have the right type: missing and invalid values
become None, strings are cut and made printable.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from edgesppo.gguf import gemma2
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgesppo.gguf.gemma2 import Summary

MAX_TEXT = 200
MAX_REFERENCES = 16
MAX_INPUTS = 64
_TOKEN_TYPES = {1: "normal", 2: "unknown", 3: "control", 4: "user-defined", 5: "unused", 6: "byte"}
_SAMPLING = ("temp", "top_k", "top_p", "min_p", "penalty_repeat")


def describe(summary: Summary) -> dict[str, Any]:
    """The contents of a model card: name, shape, lineage, types, tokenizer, licence and inputs."""
    keys, model = summary.keys, gemma2.ARCHITECTURE
    return {
        "name": text(keys, "general.name"),
        "path": str(summary.path),
        "bytes": summary.file_bytes,
        "model": {
            "parameters": sum(math.prod(tensor.dims) for tensor in summary.tensors),
            "layers": number(keys, f"{model}.block_count"),
            "width": number(keys, f"{model}.embedding_length"),
            "heads": number(keys, f"{model}.attention.head_count"),
            "kv_heads": number(keys, f"{model}.attention.head_count_kv"),
            "context": number(keys, f"{model}.context_length"),
            "window": number(keys, f"{model}.attention.sliding_window"),
            "attention_cap": number(keys, f"{model}.attn_logit_softcapping"),
            "final_cap": number(keys, f"{model}.final_logit_softcapping"),
        },
        "lineage": _lineage(keys),
        "types": _types(summary),
        "bits_per_weight": _bits(summary),
        "tokenizer": _tokenizer(summary),
        "languages": _texts(summary, "general.languages"),
        "imatrix": _imatrix(keys),
        "sampling": {name: number(keys, f"general.sampling.{name}") for name in _SAMPLING},
        "license": {
            "header": text(keys, "general.license"),
            "name": text(keys, "general.license.name"),
            "link": text(keys, "general.license.link"),
            "in_text": text(keys, "edgesppo.license.in_text"),
        },
        "inputs": {
            kind: _texts(summary, f"edgesppo.source.{kind}")
            for kind in ("files", "weight_headers", "weights", "adapters")
        },
    }


def text(keys: Mapping[str, Any], key: str) -> str | None:
    """The string value of a key, safe for a terminal; None if it is not a string."""
    value = keys.get(key)
    return one_line(value, MAX_TEXT) if isinstance(value, str) else None


def number(keys: Mapping[str, Any], key: str) -> int | float | None:
    """The number of a key; None if it is not a finite number."""
    value = keys.get(key)
    is_finite = (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )
    return value if is_finite else None


def _texts(summary: Summary, key: str) -> list[str]:
    array = summary.arrays.get(key)
    if array is None or array.length > MAX_INPUTS:
        return []
    return [
        one_line(item, MAX_TEXT)
        for item in gemma2.read_array(summary, key)
        if isinstance(item, str)
    ]


def _lineage(keys: Mapping[str, Any]) -> dict[str, Any]:
    lineage: dict[str, Any] = {
        key: text(keys, f"general.{key}")
        for key in ("basename", "finetune", "version", "organization", "quantized_by")
    }
    named = "-".join(text(keys, f"general.{key}") or "" for key in ("name", "finetune", "version"))
    iteration = re.search(r"iter(\d{1,3})(?!\d)", named, re.IGNORECASE)
    sppo = re.search(r"\bsppo\b", named, re.IGNORECASE)
    return {
        **lineage,
        "method": text(keys, "edgesppo.lineage.method") or ("SPPO" if sppo else None),
        "iteration": number(keys, "edgesppo.lineage.iteration")
        or (int(iteration[1]) if sppo and iteration else None),
        "paper": text(keys, "edgesppo.lineage.paper"),
        "base_models": _references(keys, "base_model"),
        "datasets": _references(keys, "dataset"),
        "source": _source(keys),
        "revision": text(keys, "edgesppo.source.revision"),
    }


def _imatrix(keys: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp's tools write of the importance matrix that they used."""
    return {
        "file": text(keys, "quantize.imatrix.file"),
        "dataset": text(keys, "quantize.imatrix.dataset"),
        "entries": number(keys, "quantize.imatrix.entries_count"),
        "chunks": number(keys, "quantize.imatrix.chunks_count"),
    }


def imatrix_text(found: Mapping[str, Any]) -> str:
    """The same as a person reads it; empty if the file says nothing of a matrix."""
    values = (found["file"], found["dataset"], found["entries"], found["chunks"])
    forms = ("{}", "collected on {}", "{:,} weights", "{:,} chunks")
    return ", ".join(
        form.format(value) for form, value in zip(forms, values, strict=True) if value is not None
    )


def _source(keys: Mapping[str, Any]) -> str | None:
    """The address of the repository that it was converted from, under the keys of now and then."""
    older = text(keys, "general.source.huggingface.repository")
    return text(keys, "general.source.repo_url") or (
        f"https://huggingface.co/{older}" if older else text(keys, "general.source.url")
    )


def _references(keys: Mapping[str, Any], kind: str) -> list[str]:
    names = []
    for n in range(MAX_REFERENCES):
        name = text(keys, f"general.{kind}.{n}.name")
        owner = text(keys, f"general.{kind}.{n}.organization")
        if name is not None:
            names.append(f"{owner}/{name}" if owner else name)
    return names


def _types(summary: Summary) -> dict[str, dict[str, int]]:
    """The number of tensors and bytes of each tensor type, most bytes first."""
    types: dict[str, dict[str, int]] = {}
    for tensor in summary.tensors:
        entry = types.setdefault(tensor.type, {"tensors": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["bytes"] += tensor.n_bytes
    return dict(sorted(types.items(), key=lambda item: -item[1]["bytes"]))


def _bits(summary: Summary) -> float | None:
    weights = sum(math.prod(tensor.dims) for tensor in summary.tensors)
    return 8 * summary.data_bytes / weights if weights else None


def _tokenizer(summary: Summary) -> dict[str, Any]:
    keys, prefix = summary.keys, "tokenizer.ggml"
    counts: dict[str, int] = {}
    for kind in gemma2.read_array(summary, f"{prefix}.token_type"):
        name = _TOKEN_TYPES.get(kind, "unknown type") if isinstance(kind, int) else "unknown type"
        counts[name] = counts.get(name, 0) + 1
    return {
        "model": text(keys, f"{prefix}.model"),
        "tokens": number(keys, f"{prefix}.tokens"),
        "types": counts,
        "bos": number(keys, f"{prefix}.bos_token_id"),
        "stops": [
            id_
            for key in ("eos", "eot")
            if (id_ := number(keys, f"{prefix}.{key}_token_id")) is not None
        ],
        "chat_template": isinstance(keys.get("tokenizer.chat_template"), str),
    }
