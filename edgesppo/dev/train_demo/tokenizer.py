"""Train the demo's tokenizer: a small SentencePiece model that begins with Gemma's own pieces.

Ids 0-3 are <pad> <eos> <bos> <unk>; then, all user-defined as in Gemma's own file, <mask>,
<2mass>, [@BOS@], 99 unused pieces, <start_of_turn> (106), <end_of_turn> (107), runs of newlines
(108-138) and of spaces (139-168), HTML tags (169-216); 256 bytes (217-472); learned pieces.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from edgesppo.gguf.gemma2 import BYTE_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable

VOCABULARY = 2560
START, END, NEWLINE = 106, 107, 108
_INLINE = ("strong", "em", "b", "i", "u", "s", "sub", "sup", "code")
_TABLE = ("table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td")
_BLOCK = ("h1", "h2", "h3", "h4", "h5", "h6", "blockquote")
SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<2mass>",
    "[@BOS@]",
    *(f"<unused{i}>" for i in range(99)),
    "<start_of_turn>",
    "<end_of_turn>",
)


def user_defined() -> list[str]:
    """The user-defined pieces, ids 4 to 216, in Gemma's order."""
    tags = [
        f"<{slash}{name}>"
        for group in (_TABLE, _BLOCK, _INLINE)
        for slash in ("", "/")
        for name in group
    ]
    newlines = ["\n" * count for count in range(1, 32)]
    spaces = ["\u2581" * count for count in range(2, 32)]
    return [*SPECIAL[4:], *newlines, *spaces, *tags]


def build(texts: Iterable[str], spm: Any) -> bytes:
    """Train on the texts; the bytes of tokenizer.model. `spm` is the sentencepiece module."""
    lines = (part for text in texts for part in re.split(r"\n+", text) if part)
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=out,
        model_type="bpe",
        vocab_size=VOCABULARY,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=user_defined(),
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        required_chars="".join(chr(code) for code in range(33, 127)),
        num_threads=1,
        allow_whitespace_only_pieces=True,
        minloglevel=1,
    )
    data = out.getvalue()
    _check(data, spm)
    return data


def _check(data: bytes, spm: Any) -> None:
    processor = spm.SentencePieceProcessor(model_proto=data)
    found = [processor.id_to_piece(i) for i in range(217 + 256)]
    expected = [*SPECIAL[:4], *user_defined(), *BYTE_TOKENS]
    if found != expected or processor.get_piece_size() != VOCABULARY:
        wrong = next(
            i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]
        )
        raise ValueError(f"piece {wrong} is {found[wrong]!r}, expected {expected[wrong]!r}")
