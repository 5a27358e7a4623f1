"""Convert a Hugging Face checkpoint of the Gemma-2 family to a GGUF file.

Importing this package is cheap: numpy and the ggml library are loaded when `convert` is first
looked up. It prints nothing. Each room imports only from those before it:

    gguf_format    the layout of a GGUF file, and the encoding of its head
    progress       what `convert` reports while it runs
    source/        checkpoints: a folder or a repository on the hub; adapters, safetensors, JSON
    gemma2/        the family: tensors, hyper-parameters, vocabulary
    quant/         block types, quantisation, importance matrices
    plan/          which keys and tensors the file will hold, in which order; the dry run
    output/        the file while it is written: part file, journal, final name
    pipeline       convert(): all of these in turn

    source -> gemma2 -> quant -> plan -> output -> pipeline
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesppo.system.conversion_progress import Progress
    from edgesppo_convert.pipeline import ConvertResult, convert
    from edgesppo_convert.plan.dry_run import Outlook, look_ahead

__all__ = ["ConvertResult", "Outlook", "Progress", "convert", "look_ahead"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgesppo.system import conversion_progress
    from edgesppo_convert import pipeline
    from edgesppo_convert.plan import dry_run

    homes = {"Outlook": dry_run, "look_ahead": dry_run, "Progress": conversion_progress}
    return getattr(homes.get(name, pipeline), name)
