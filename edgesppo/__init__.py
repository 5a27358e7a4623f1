"""edgesppo: run Gemma-2-9B-It-SPPO on a machine you own.

    import edgesppo

    with edgesppo.load("demo") as model:
        print(model.ask("What is the capital of France?"))

The public names are imported when they are first used, so `import edgesppo` alone loads neither
numpy nor llama.cpp.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgesppo._version import __version__ as __version__

if TYPE_CHECKING:
    from edgesppo.api import LoadedModel, load
    from edgesppo.chat.chat import Chat
    from edgesppo.chat.generation import Chunk, Result, Timings, TokenLogprob, Usage
    from edgesppo.chat.messages import Message
    from edgesppo.errors import (
        BadChat,
        BadCheckpoint,
        BadLock,
        BadModelFile,
        Cancelled,
        ChatInUse,
        ChatNotFound,
        Closed,
        ContextOverflow,
        DownloadError,
        EdgesppoError,
        IncompleteAnswer,
        ModelNotFound,
        NativeError,
        OutOfMemory,
        OutputError,
        SourceUnreadable,
        UnsupportedCheckpoint,
        UsageError,
    )
    from edgesppo.sampling.params import SamplingParams

_NAMES_BY_MODULE = {
    "edgesppo.chat.chat": ["Chat"],
    "edgesppo.errors": [
        "BadChat",
        "BadCheckpoint",
        "BadLock",
        "BadModelFile",
        "Cancelled",
        "ChatInUse",
        "ChatNotFound",
        "Closed",
        "ContextOverflow",
        "DownloadError",
        "EdgesppoError",
        "IncompleteAnswer",
        "ModelNotFound",
        "NativeError",
        "OutOfMemory",
        "OutputError",
        "SourceUnreadable",
        "UnsupportedCheckpoint",
        "UsageError",
    ],
    "edgesppo.chat.generation": ["Chunk", "Result", "Timings", "TokenLogprob", "Usage"],
    "edgesppo.api": ["LoadedModel", "load"],
    "edgesppo.chat.messages": ["Message"],
    "edgesppo.sampling.params": ["SamplingParams"],
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "BadChat",
    "BadCheckpoint",
    "BadLock",
    "BadModelFile",
    "Cancelled",
    "Chat",
    "ChatInUse",
    "ChatNotFound",
    "Chunk",
    "Closed",
    "ContextOverflow",
    "DownloadError",
    "EdgesppoError",
    "IncompleteAnswer",
    "LoadedModel",
    "Message",
    "ModelNotFound",
    "NativeError",
    "OutOfMemory",
    "OutputError",
    "Result",
    "SamplingParams",
    "SourceUnreadable",
    "Timings",
    "TokenLogprob",
    "UnsupportedCheckpoint",
    "Usage",
    "UsageError",
    "load",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'edgesppo' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
