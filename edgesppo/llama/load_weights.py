"""Load the weights of a model file whose header was checked, and see that they are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadModelFile
from edgesppo.llama.weights import Weights
from edgesppo.system import memory_guard

if TYPE_CHECKING:
    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.llama.mapped_file import MappedFile

# Bytes that llama.cpp takes for each entry of the vocabulary, its text included.
_ENTRY_BYTES = 300


def load_weights(
    file: MappedFile, summary: Summary, *, n_entries: int | None = None, **how: Any
) -> Weights:
    """The weights of `file`, whose header is `summary`, and its vocabulary; see Weights.

    Raises OutOfMemory if loading would end the process, BadModelFile if the file is another by now.
    """
    tokens = summary.keys.get("tokenizer.ggml.tokens")
    read = tokens if n_entries is None and isinstance(tokens, int) else 0
    memory_guard.require(
        f"{file.path}: loading it",
        memory=_ENTRY_BYTES * read + memory_guard.LOADING_RESERVE,
        mapped=summary.file_bytes,
        advice="close other programs, or use a smaller model or type",
    )
    weights = Weights(file.path, n_entries=n_entries, **how)
    try:
        file.check_path()
        if file.n_bytes != summary.file_bytes:
            raise BadModelFile(
                f"{file.path}: was replaced while it was being loaded; load it again"
            )
    except BaseException:
        weights.close()
        raise
    return weights
