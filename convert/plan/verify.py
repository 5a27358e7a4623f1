"""Owns the last look at what was written, through the runtime's own reader; and the first.

A file may be what was planned, byte for byte, and still be no good: so this asks the file itself
what the runtime will ask it. It asks the planned head the same, before anything is written: what
the last look would refuse is not begun. Knows nothing of how a file is made.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf import Keys

from edgesppo.errors import BadCheckpoint, BadModelFile, OutputError
from edgesppo.gguf import gemma2 as runtime
from edgesppo.gguf.reader import ADVICE
from edgesppo.system.fs import cannot_write
from edgesppo_convert.gemma2 import architecture
from edgesppo_convert.gemma2.sentencepiece import PieceType
from edgesppo_convert.gemma2.vocab import BOS, CONTROL_TEXTS, looks_control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# Without these llama.cpp falls back on other numbers, or computes another model.
NEEDED = tuple(
    key.format(arch=architecture.ARCH)
    for key in (
        Keys.LLM.ATTN_LOGIT_SOFTCAPPING,
        Keys.LLM.FINAL_LOGIT_SOFTCAPPING,
        Keys.Attention.SLIDING_WINDOW,
    )
)


def check_planned(head: bytes, size: int, where: str, laid: Mapping[int, bool]) -> None:
    """Refuse a checkpoint, which is `where`, whose file would be refused when it is read back.

    `laid` holds the id of every added token, and whether the checkpoint calls it special.
    """
    try:
        summary = runtime.check_head(head, size, Path("its file"))
        fault = _fault(summary, laid, partial(runtime.read_array, summary, head=head))
    except BadModelFile as error:
        fault = str(error).removesuffix(ADVICE)
    if fault is not None:
        raise BadCheckpoint(f"{where} cannot be converted, the runtime would refuse it: {fault}")


def check_written(path: Path, output: Path, laid: Mapping[int, bool]) -> None:
    """Refuse a file that the runtime could not use, or would use wrongly; `output` names it."""
    try:
        summary = runtime.load_summary(path)
        fault = _fault(summary, laid, partial(runtime.read_array, summary))
    except BadModelFile as error:
        fault = str(error)
    except OSError as error:
        raise cannot_write(output, error) from error
    if fault is not None:
        raise OutputError(f"{output} reads back wrong, nothing was kept: {fault}")


def _fault(
    summary: runtime.Summary, laid: Mapping[int, bool], items: Callable[[str], list[Any]]
) -> str | None:
    keys = summary.keys
    for key in NEEDED:
        if not keys.get(key, 0) > 0:
            return f"{key} is {keys.get(key)!r}"
    tokens, types = items(Keys.Tokenizer.LIST), items(Keys.Tokenizer.TOKEN_TYPE)
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        due = _due(token, laid.get(index), is_unknown=index == keys.get(Keys.Tokenizer.UNK_ID))
        if due and kind not in due:
            names = " or ".join(f"{each.name} ({each:d})" for each in due)
            return f"the token {token!r} is of the type {kind}, expected {names}"
    places = [index for index, token in enumerate(tokens) if token == BOS]
    if len(places) != 1 or keys.get(Keys.Tokenizer.BOS_ID) != places[0]:
        return f"{BOS} has the ids {places}, and {keys.get(Keys.Tokenizer.BOS_ID)} begins a text"
    if keys.get(Keys.Tokenizer.ADD_BOS) is not True:
        return f"{Keys.Tokenizer.ADD_BOS} is {keys.get(Keys.Tokenizer.ADD_BOS)}"
    return None


def _due(token: str, special: bool | None, *, is_unknown: bool) -> tuple[PieceType, ...]:
    """The types that a token may have; none where any will do. `special` is None if not added."""
    if is_unknown:
        return (PieceType.UNKNOWN,)
    if BYTE.fullmatch(token):
        return (PieceType.BYTE,)
    if special or token in CONTROL_TEXTS:
        return (PieceType.CONTROL,)
    if looks_control(token):
        return (PieceType.CONTROL, PieceType.UNUSED)
    if special is not None:
        return (PieceType.CONTROL, PieceType.USER_DEFINED)
    return ()
