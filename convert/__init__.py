"""Owns the road from a Hugging Face checkpoint of the Gemma-2 family to a GGUF file.

Importing this package is cheap: numpy and the ggml library are loaded when `convert` is first
looked up. The road is one-way, and a module imports only from what stands before it:

    untrusted -> safetensors -> checkpoint -> card -> gemma2 -> spm -> vocab -> recipe -> unrolled
              -> packing -> kernels -> quantize -> tied -> target -> fetching -> remote
              -> gguf_file -> layout -> importance -> journal -> progress -> part -> output
              -> verify -> provenance -> metadata -> blueprint -> witness -> pipeline -> outlook
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesppo_convert.pipeline import ConvertResult, convert
    from edgesppo_convert.plan.dry_run import Outlook, look_ahead
    from edgesppo_convert.progress import Progress

__all__ = ["ConvertResult", "Outlook", "Progress", "convert", "look_ahead"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgesppo_convert import pipeline
    from edgesppo_convert.plan import dry_run

    return getattr(dry_run if name in ("Outlook", "look_ahead") else pipeline, name)
