"""Read a tokenizer.json: the names, types and scores of the tokens, as SentencePiece has them.

transformers 5 writes nothing else of a tokenizer. The file has a vocabulary, the pairs that BPE
merges, best first, and the added tokens:

    {"added_tokens": [{"id": 2, "content": "<bos>", "special": true}, ...],
     "model": {"type": "BPE", "vocab": {"<bos>": 2, ...}, "merges": [["i", "n"], ...]}, ...}

What SentencePiece knows beside that is inferred, so that a vocabulary that was made from a
tokenizer.model comes out the same, byte for byte:

    type   of a token before the byte pieces: user-defined, as a trainer places them there
    score  0, -1, -2 ... in the order of the merges

A tab stands for `<0x09>`, where there is no piece of that name.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.gguf.gemma2 import BYTE_TOKENS
from edgesppo_convert.gemma2.sentencepiece import MAX_PIECES, Piece, PieceType
from edgesppo_convert.source.json_reader import JsonObject, is_text, parse_json, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgesppo_convert.source.small_files import SmallFiles

TOKENIZER_JSON = "tokenizer.json"
MAX_BYTES = 64 << 20
# Commas and brackets: Python takes some hundred bytes for each. Gemma-2's file has 2.4 million.
MAX_ITEMS = 6_000_000
UNKNOWN = "<unk>"
TAB, TAB_PIECE = "\t", BYTE_TOKENS[9]
_BYTE_SET = frozenset(BYTE_TOKENS)
MARK = "\u2581"  # stands for a space


@dataclass(frozen=True)
class AddedToken:
    """A token that was added to a vocabulary: its text, and whether it is called special."""

    text: str
    special: bool


@dataclass(frozen=True)
class TokenizerJson:
    """A tokenizer.json whose text handling llama.cpp can reproduce."""

    where: str
    names: Mapping[int, str]  # id -> text of every token of the vocabulary
    added: Mapping[int, AddedToken]
    unknown: str
    merges: JsonObject  # of which the key "merges" is read only when scores are needed

    def pieces(self, model: list[Piece] | None) -> list[Piece | None]:
        """The piece of each id, None for an id without a token; `model` is a tokenizer.model's.

        A piece of the same text in `model` is taken from there.
        """
        known = {piece.text: piece for piece in model or ()}
        first_byte = min(id for id, text in self.names.items() if text in _BYTE_SET)
        pieces: list[Piece | None] = [None] * (max(self.names) + 1)
        is_new = False
        for index, text in self.names.items():
            found = known.get(text)
            pieces[index] = found or Piece(text, 0.0, self._type_of(index, text, first_byte))
            is_new |= found is None and index not in self.added
        if is_new:
            self._set_scores(pieces)
        names = set(self.names.values())
        for index, piece in enumerate(model or ()):
            if index < len(pieces) and pieces[index] is None and piece.text not in names:
                pieces[index] = piece
        return pieces

    def _type_of(self, index: int, text: str, first_byte: int) -> PieceType:
        if text == self.unknown:
            return PieceType.UNKNOWN
        if text in _BYTE_SET:
            return PieceType.BYTE
        is_defined = index in self.added or index < first_byte
        return PieceType.USER_DEFINED if is_defined else PieceType.NORMAL

    def _set_scores(self, pieces: list[Piece | None]) -> None:
        """Give every normal piece its score: the rank of the first merge that makes it."""
        normal = {
            piece.text: index
            for index, piece in enumerate(pieces)
            if piece is not None and piece.type is PieceType.NORMAL
        }
        ranks = self._ranks(normal)
        made = [index for text, index in normal.items() if text in ranks]
        order = list(normal.values())
        if any(
            ranks[self.names[one]] > ranks[self.names[two]] for one, two in pairwise(made)
        ):  # not in the order of their ids: best merge first, then what no merge makes
            order.sort(key=lambda index: ranks.get(self.names[index], len(ranks)))
        for rank, index in enumerate(order):
            pieces[index] = Piece(self.names[index], -float(rank), PieceType.NORMAL)

    def _ranks(self, normal: Mapping[str, int]) -> dict[str, int]:
        """Text -> rank, of the normal pieces that merges make.

        Raises UnsupportedCheckpoint if llama.cpp, which merges any two neighbours that make a
        piece, would merge otherwise.
        """
        ranks: dict[str, int] = {}
        ways: Counter[str] = Counter()
        last = None
        for left, right in self._pairs():
            text = left + right
            if text not in normal:
                continue
            ways[text] += left in normal and right in normal
            if text != last and text in ranks:
                raise self._unlike(f"the merges that make {show(text)} do not follow each other")
            ranks.setdefault(text, len(ranks))
            last = text
        for text in normal:
            splits = [at for at in range(1, len(text)) if text[:at] in normal]
            if ways[text] != sum([text[at:] in normal for at in splits]):
                raise self._unlike(f"not every pair of tokens that makes {show(text)} is merged")
        return ranks

    def _unlike(self, fault: str) -> UnsupportedCheckpoint:
        return UnsupportedCheckpoint(
            f"{self.where}: {fault}, as in a SentencePiece model, which llama.cpp follows; copy"
            " tokenizer.model from the model that this one was made from into the folder"
        )

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """The two parts of each merge, checked; older versions write them as one string."""
        if not self.merges.raw("merges"):
            raise BadCheckpoint(
                f"{self.where} has no merges, which say how tokens are put together; copy"
                " tokenizer.model, or a whole tokenizer.json, from the model that this one was"
                " made from into the folder"
            )
        texts = {TAB if t == TAB_PIECE else t for t in self.names.values()} | {TAB_PIECE}
        for merge in self.merges.items("merges"):
            parts = merge.split(" ") if isinstance(merge, str) else merge
            if not isinstance(parts, list) or [type(part) for part in parts] != [str, str]:
                raise BadCheckpoint(
                    f"{self.where}: 'merges' has {show(merge)}; expected two tokens"
                )
            left, right = parts
            if left not in texts or right not in texts or left + right not in texts:
                raise BadCheckpoint(
                    f"{self.where}: 'merges' has {show(merge)}, but its vocabulary lacks the parts"
                    " or what they make; download the file again"
                )
            yield left, right


def read_tokenizer_json(folder: SmallFiles) -> TokenizerJson | None:
    """Read a folder's tokenizer.json; None if it has none. BadCheckpoint if it is damaged."""
    data = folder.read_small(TOKENIZER_JSON, MAX_BYTES)
    if data is None:
        return None
    where = folder.display_name(TOKENIZER_JSON)
    items = sum(data.count(mark) for mark in b",[{")
    if items > MAX_ITEMS:
        raise BadCheckpoint(
            f"{where} has {items:,} items; expected at most {MAX_ITEMS:,}, far more than Gemma-2's"
        )
    root = parse_json(data, where)
    model = root.object("model")
    _check_behaviour(root, model)
    return TokenizerJson(
        where, _read_names(model), _read_added(root), model.raw("unk_token") or UNKNOWN, model
    )


def _read_names(model: JsonObject) -> dict[int, str]:
    vocabulary = model.object("vocab")
    names: dict[int, str] = {}
    for text in vocabulary:
        index = vocabulary.integer(text, 0, MAX_PIECES - 1)
        if not is_text(text):
            vocabulary.refuse(text, "a token that is text")
        if names.setdefault(index, text) != text:
            vocabulary.refuse(text, f"another id: {index} is the token {show(names[index])}")
    if TAB in vocabulary and TAB_PIECE not in vocabulary:
        names[vocabulary.raw(TAB)] = TAB_PIECE
    missing = _BYTE_SET.difference(names.values())
    if missing:
        raise BadCheckpoint(
            f"{model.where} has no byte piece {min(missing)}; Gemma's tokenizer has all 256: copy"
            " tokenizer.json from the model that this one was made from"
        )
    return dict(sorted(names.items()))


def _read_added(root: JsonObject) -> dict[int, AddedToken]:
    added: dict[int, AddedToken] = {}
    for number, value in enumerate(root.items("added_tokens") if "added_tokens" in root else ()):
        entry = JsonObject(f"{root.where}: added token {number}", value)
        if not isinstance(value, dict):
            raise BadCheckpoint(f"{entry.where} is {show(value)}; expected an object")
        index = entry.integer("id", 0, MAX_PIECES - 1)
        added[index] = AddedToken(entry.text("content"), entry.flag("special", False))
    return added


def _check_behaviour(root: JsonObject, model: JsonObject) -> None:
    """Refuse a tokenizer whose text handling llama.cpp would silently do differently."""
    requirements = (
        (model.raw("type") in ("BPE", None), model, "type", "'BPE'"),
        (model.flag("byte_fallback", False), model, "byte_fallback", "true"),
        (not model.raw("dropout"), model, "dropout", "null"),
        (not model.flag("ignore_merges", False), model, "ignore_merges", "false"),
        (not model.raw("continuing_subword_prefix"), model, "continuing_subword_prefix", "null"),
        (not model.raw("end_of_word_suffix"), model, "end_of_word_suffix", "null"),
        (_marks_spaces(root.raw("normalizer")), root, "normalizer", f"' ' replaced by '{MARK}'"),
        (_splits_nothing(root.raw("pre_tokenizer")), root, "pre_tokenizer", "null"),
    )
    for is_met, holder, key, expected in requirements:
        if not is_met:
            raise UnsupportedCheckpoint(
                f"{holder.where}: {show(key)} is {show(holder.raw(key))}; expected {expected}, as"
                " in Gemma-2's tokenizer: llama.cpp cannot do it otherwise"
            )


def _marks_spaces(normalizer: Any) -> bool:
    """Whether all that a normaliser does is to write the mark for each space."""
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        steps = normalizer.get("normalizers")
        return isinstance(steps, list) and len(steps) == 1 and _marks_spaces(steps[0])
    return (
        isinstance(normalizer, dict)
        and normalizer.get("type") == "Replace"
        and _matches_a_space(normalizer.get("pattern"))
        and normalizer.get("content") == MARK
    )


def _splits_nothing(splitter: Any) -> bool:
    """Whether a pre-tokenizer leaves a text whole: where it splits there are no spaces left."""
    return splitter is None or (
        isinstance(splitter, dict)
        and splitter.get("type") == "Split"
        and _matches_a_space(splitter.get("pattern"))
    )


def _matches_a_space(pattern: Any) -> bool:
    return pattern in ({"String": " "}, {"Regex": " "})
