"""Run Gemma-2-9B-It-SPPO on a machine you own.

    import edgesppo

    with edgesppo.load("demo") as model:                # a name, a GGUF file, a checkpoint folder
        print(model.ask("What is the capital of France?"))
        chat = model.chat(system="Be brief.", temperature=0)
        for chunk in chat.stream("Why is the sky blue?"):
            print(chunk.text, end="", flush=True)

    load(model, n_ctx=, gpu=, ...)      -> LoadedModel; nothing is downloaded
    model.ask(text, schema=)            -> the answer's text, or a value that follows a JSON Schema;
                                           also model.stream, and for asyncio model.aask, astream
    model.chat(messages=, system=)      -> Chat; messages are dicts with "role" and "content"
    model.save(chat, path)                 and model.resume(path) -> Chat
    model.count_tokens(text)               also of messages; model.tokenize, model.detokenize
    model.score(text)                   -> the log-probability of every token; also of messages
    chat.ask(text), chat.stream(text)      and for asyncio chat.aask, chat.astream
    chat.last                           -> Result: text, finish_reason, usage, timings
    batch(model, rows, out)             -> iterator of BatchResult: many prompts, many at once
    chat.fork(), chat.undo(), chat.regenerate(), chat.continue_(), chat.cancel(), chat.to_dicts()

    evaluate.divergence(reference, model, text=)   and evaluate.perplexity(model, text=)

Sampling is set by keywords of chat, ask and stream, such as temperature=0; `SamplingParams` has
them all. What comes in and out has types of its own, each with a help() page: Message, Chunk,
Result, Usage, Timings, TokenLogprob, BatchResult, SamplingParams, SamplingOptions.

What is refused is an EdgesppoError, with one line of text; `edgesppo.errors` shows them all:
ModelNotFound, BadModelFile, BadCheckpoint, OutOfMemory, ContextOverflow, ChatInUse, UsageError ...
"""

# The public names are imported when they are first used, so that `import edgesppo` alone loads
# neither numpy nor llama.cpp.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgesppo._version import __version__ as __version__

if TYPE_CHECKING:
    from edgesppo import errors as errors
    from edgesppo import evaluate as evaluate
    from edgesppo.api import load
    from edgesppo.batches.batch import batch
    from edgesppo.batches.result import BatchResult
    from edgesppo.chat.chat import Chat
    from edgesppo.chat.messages import Message
    from edgesppo.chat.result import Chunk, Result, Timings, TokenLogprob, Usage
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
    from edgesppo.loaded_model import LoadedModel
    from edgesppo.sampling.options import SamplingOptions
    from edgesppo.sampling.params import SamplingParams

_NAMES_BY_MODULE = {
    "edgesppo.batches.batch": ["batch"],
    "edgesppo.batches.result": ["BatchResult"],
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
    "edgesppo.chat.result": ["Chunk", "Result", "Timings", "TokenLogprob", "Usage"],
    "edgesppo.api": ["load"],
    "edgesppo.loaded_model": ["LoadedModel"],
    "edgesppo.chat.messages": ["Message"],
    "edgesppo.sampling.options": ["SamplingOptions"],
    "edgesppo.sampling.params": ["SamplingParams"],
}
# Rooms whose own names are public.
_ROOMS = ("errors", "evaluate")
# What a program begins with, and so what dir() and help() show: with every type and error, which
# the docstring names, help() would have a thousand lines more.
_FIRST = (
    "Chat",
    "EdgesppoError",
    "LoadedModel",
    "SamplingParams",
    "batch",
    "errors",
    "evaluate",
    "load",
)
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "BadChat",
    "BadCheckpoint",
    "BadLock",
    "BadModelFile",
    "BatchResult",
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
    "SamplingOptions",
    "SamplingParams",
    "SourceUnreadable",
    "Timings",
    "TokenLogprob",
    "UnsupportedCheckpoint",
    "Usage",
    "UsageError",
    "batch",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"edgesppo.{name}")
    module = _MODULE_OF.get(name)
    if module is None:
        from edgesppo.system.suggest import did_you_mean

        near = did_you_mean(name, __all__) if not name.startswith("_") else ""
        raise AttributeError(f"module 'edgesppo' has no attribute {name!r}{near}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*_FIRST, "__version__"]
