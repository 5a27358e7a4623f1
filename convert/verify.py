"""Owns the last look at what was written, through the runtime's own reader.

A file may be what was planned, byte for byte, and still be no good: so this asks the file itself
what the runtime will ask it. Knows nothing of how it was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import Keys

from edgesppo import preflight
from edgesppo.errors import EdgesppoError, OutputError
from edgesppo_convert import gemma2
from edgesppo_convert.spm import PieceType
from edgesppo_convert.vocab import CONTROL_TEXTS

if TYPE_CHECKING:
    from pathlib import Path

BOS = "<bos>"
# Without these llama.cpp falls back on other numbers, or computes another model.
NEEDED = tuple(
    key.format(arch=gemma2.ARCH)
    for key in (
        Keys.LLM.ATTN_LOGIT_SOFTCAPPING,
        Keys.LLM.FINAL_LOGIT_SOFTCAPPING,
        Keys.Attention.SLIDING_WINDOW,
    )
)


def check_written(path: Path, output: Path) -> None:
    """Refuse a file that the runtime could not use, or would use wrongly; `output` names it."""
    try:
        summary = preflight.check(path)
        fault = _fault(summary)
    except (EdgesppoError, OSError) as error:
        fault = str(error)
    if fault is not None:
        raise OutputError(f"{output} reads back wrong, nothing was kept: {fault}")


def _fault(summary: preflight.Summary) -> str | None:
    keys = summary.keys
    for key in NEEDED:
        if not keys.get(key, 0) > 0:
            return f"{key} is {keys.get(key)!r}"
    tokens = preflight.read_array(summary, Keys.Tokenizer.LIST)
    types = preflight.read_array(summary, Keys.Tokenizer.TOKEN_TYPE)
    for token, kind in zip(tokens, types, strict=True):
        if token in CONTROL_TEXTS and kind != PieceType.CONTROL:
            return f"the token {token!r} is of the type {kind}, expected {PieceType.CONTROL:d}"
    places = [index for index, token in enumerate(tokens) if token == BOS]
    if len(places) != 1 or keys.get(Keys.Tokenizer.BOS_ID) != places[0]:
        return f"{BOS} has the ids {places}, and {keys.get(Keys.Tokenizer.BOS_ID)} begins a text"
    if keys.get(Keys.Tokenizer.ADD_BOS) is not True:
        return f"{Keys.Tokenizer.ADD_BOS} is {keys.get(Keys.Tokenizer.ADD_BOS)}"
    return None
