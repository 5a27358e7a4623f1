"""Check with the runtime's own reader that it can use a file: before it is written, and after.

A file may be written as planned, byte for byte, and still be unusable, because the plan was wrong.
So the planned head gets the same checks as the finished file: what would fail then is not begun.
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
from edgesppo.llama.weights import Weights
from edgesppo.system.fs import cannot_write
from edgesppo_convert.gemma2 import architecture
from edgesppo_convert.gemma2.sentencepiece import PieceType
from edgesppo_convert.gemma2.special_ids import BOS
from edgesppo_convert.gemma2.vocab import CONTROL_TEXTS, is_control_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# Without these llama.cpp uses other values, or computes another model.
NEEDED = tuple(
    key.format(arch=architecture.ARCH)
    for key in (
        Keys.LLM.ATTN_LOGIT_SOFTCAPPING,
        Keys.LLM.FINAL_LOGIT_SOFTCAPPING,
        Keys.Attention.SLIDING_WINDOW,
    )
)


def check_planned(head: bytes, size: int, where: str, added: Mapping[int, bool]) -> None:
    """Raise BadCheckpoint if the runtime would refuse the planned file.

    `head` is its head, `size` its bytes, `where` the checkpoint's name in messages; `added` has the
    id of every added token, and whether the checkpoint marks it as special.
    """
    try:
        summary = runtime.check_head(head, size, Path("its file"))
        fault = _fault(summary, added, partial(runtime.read_array, summary, head=head))
    except BadModelFile as error:
        fault = str(error).removesuffix(ADVICE)
    if fault is not None:
        raise BadCheckpoint(
            f"{where} cannot be converted; the runtime would refuse the result: {fault}"
        )


def check_written(path: Path, output: Path, added: Mapping[int, bool]) -> None:
    """Raise OutputError if the runtime cannot use the written file; `output` is its final name.

    llama.cpp loads its vocabulary, too.
    """
    try:
        summary = runtime.load_summary(path)
        fault = _fault(summary, added, partial(runtime.read_array, summary))
        if fault is None:
            Weights(path, vocabulary_only=True).close()
    except BadModelFile as error:
        fault = str(error)
    except OSError as error:
        raise cannot_write(output, error) from error
    if fault is not None:
        raise OutputError(
            f"the file written for {output} cannot be used and was removed: {fault}; this is a bug"
            " in edgesppo: please report it"
        )


def _fault(
    summary: runtime.Summary, added: Mapping[int, bool], items: Callable[[str], list[Any]]
) -> str | None:
    keys = summary.keys
    for key in NEEDED:
        if not keys.get(key, 0) > 0:
            return f"{key} is {keys.get(key)!r}; expected a number above 0"
    tokens, types = items(Keys.Tokenizer.LIST), items(Keys.Tokenizer.TOKEN_TYPE)
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        is_unknown = index == keys.get(Keys.Tokenizer.UNK_ID)
        allowed = _allowed_types(token, added.get(index), is_unknown=is_unknown)
        if allowed and kind not in allowed:
            names = " or ".join(f"{each.name} ({each:d})" for each in allowed)
            return f"the token {token!r} has the type {kind}; expected {names}"
        if kind == PieceType.BYTE and not allowed:
            return (
                f"the token {token!r} has the type {kind}; expected that only of <0x00> to <0xFF>"
            )
    ids = [index for index, token in enumerate(tokens) if token == BOS]
    bos = keys.get(Keys.Tokenizer.BOS_ID)
    if len(ids) != 1 or bos != ids[0]:
        return f"{BOS} has the ids {ids}, and {Keys.Tokenizer.BOS_ID} is {bos}; expected one id"
    if keys.get(Keys.Tokenizer.ADD_BOS) is not True:
        return f"{Keys.Tokenizer.ADD_BOS} is {keys.get(Keys.Tokenizer.ADD_BOS)}; expected True"
    return None


def _allowed_types(token: str, special: bool | None, *, is_unknown: bool) -> tuple[PieceType, ...]:
    """The types that a token may have; empty if any. `special` is None if it was not added."""
    if is_unknown:
        return (PieceType.UNKNOWN,)
    if BYTE.fullmatch(token):
        return (PieceType.BYTE,)
    if special or token in CONTROL_TEXTS:
        return (PieceType.CONTROL,)
    if is_control_text(token):
        return (PieceType.CONTROL, PieceType.UNUSED)
    if special is not None:
        return (PieceType.CONTROL, PieceType.USER_DEFINED)
    return ()
