"""A tokenizer.json gives the vocabulary that its tokenizer.model gives, and wins where they differ.

The file is made here as transformers 5 writes it: the vocabulary, the pairs of pieces that make a
piece, best first, and the added tokens.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import struct
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.llama.model import Model
from edgesppo.system import notices
from edgesppo_convert import convert
from edgesppo_convert.gemma2 import tokenizer_json as reader
from edgesppo_convert.gemma2.sentencepiece import Piece, PieceType, read_pieces
from edgesppo_convert.gemma2.vocab import Vocabulary, read_vocabulary
from edgesppo_convert.source.checkpoint import Checkpoint
from tests.conftest import DEMO
from tests.llama.test_tokenizer import PLAIN, _strings
from tests.support.checkpoints import SHAPES, write_checkpoint, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A directory with Gemma-2's own tokenizer.json and tokenizer_config.json.
GEMMA = os.environ.get("EDGESPPO_GEMMA_TOKENIZER")
SIZE = 2560  # tokens of the demo
MARK = "\u2581"


def tokenizer_json(folder: Path, *, old_merges: bool = False) -> dict[str, Any]:
    """The tokenizer.json that is made of a folder's tokenizer.model and tokenizer_config.json."""
    pieces = read_pieces((folder / "tokenizer.model").read_bytes(), "it")
    vocabulary = {piece.text: index for index, piece in enumerate(pieces)}
    merges = [
        (-piece.score, vocabulary[piece.text[:at]], piece.text[:at], piece.text[at:])
        for piece in pieces
        for at in range(1, len(piece.text))
        if piece.text[:at] in vocabulary and piece.text[at:] in vocabulary
    ]
    merges.sort(key=lambda merge: merge[0])
    pairs = [[left, right] for *_, left, right in merges]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    return {
        "version": "1.0",
        "added_tokens": [
            added(int(index), token["content"], special=token["special"])
            for index, token in config["added_tokens_decoder"].items()
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "ByteFallback"},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": [" ".join(pair) for pair in pairs] if old_merges else pairs,
        },
    }


def added(index: int, text: str, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": text, "special": special, **flags}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo's tokenizer, as transformers 5 and 4 write it together."""
    folder = tmp_path / "source"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.md"))
    (folder / "tokenizer.json").write_text(_demos(), encoding="utf-8")
    return folder


@functools.cache
def _demos() -> str:
    return json.dumps(tokenizer_json(DEMO))


@functools.cache
def of_the_demo() -> Vocabulary:
    return vocabulary(DEMO)


@pytest.fixture
def alone(folder: Path) -> Path:
    """The demo's tokenizer, as transformers 5 writes it."""
    for name in ("tokenizer.model", "special_tokens_map.json"):
        (folder / name).unlink()
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"})
    return folder


@pytest.fixture
def said() -> Iterator[Callable[[], list[str]]]:
    with notices.collected():
        yield notices.take


def vocabulary(folder: Path, size: int = SIZE) -> Vocabulary:
    with Checkpoint(folder) as checkpoint:
        return read_vocabulary(checkpoint, size)


def bits(tokens: list[Piece]) -> list[tuple[str, bytes, int]]:
    """The tokens with the bytes of their scores: -0.0 is another score than 0.0."""
    return [(token.text, struct.pack("<f", token.score), int(token.type)) for token in tokens]


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads((folder / "tokenizer.json").read_text())
    edit(value)
    write_json(folder / "tokenizer.json", value)


def rename(value: dict[str, Any], old: str, new: str) -> int:
    """Rename a token in the vocabulary and among the added tokens; its id."""
    vocab = value["model"]["vocab"]
    value["model"]["vocab"] = {new if text == old else text: id for text, id in vocab.items()}
    for token in value["added_tokens"]:
        token["content"] = new if token["content"] == old else token["content"]
    return int(vocab[old])


@pytest.mark.parametrize("old_merges", [False, True])
def test_alone_it_gives_the_vocabulary_of_its_tokenizer_model(
    alone: Path, *, old_merges: bool
) -> None:
    write_json(alone / "tokenizer.json", tokenizer_json(DEMO, old_merges=old_merges))
    ours, theirs = vocabulary(alone), of_the_demo()
    assert bits(ours.tokens) == bits(theirs.tokens)
    assert (ours.special_ids, ours.added) == (theirs.special_ids, theirs.added)


def test_pieces_in_another_order_than_a_trainers_keep_their_scores(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "source", SHAPES["tiny"])
    theirs = vocabulary(folder, 600)
    write_json(folder / "tokenizer.json", tokenizer_json(folder))
    (folder / "tokenizer.model").unlink()
    assert bits(vocabulary(folder, 600).tokens) == bits(theirs.tokens)


def test_ids_in_another_order_than_the_merges_are_scored_by_the_merges(alone: Path) -> None:
    def swap(value: dict[str, Any]) -> None:
        vocab = value["model"]["vocab"]
        vocab[MARK + "i"], vocab[MARK + "is"] = vocab[MARK + "is"], vocab[MARK + "i"]

    theirs = {token.text: token.score for token in of_the_demo().tokens}
    change(alone, swap)
    ours = {token.text: token.score for token in vocabulary(alone).tokens}
    assert ours == theirs


def test_a_tab_stands_for_its_byte_piece(alone: Path) -> None:
    change(alone, lambda value: rename(value, "<0x09>", "\t"))
    assert bits(vocabulary(alone).tokens) == bits(of_the_demo().tokens)


def test_both_together_agree_and_nothing_is_said(
    folder: Path, said: Callable[[], list[str]]
) -> None:
    assert bits(vocabulary(folder).tokens) == bits(of_the_demo().tokens)
    assert said() == []


def test_a_token_that_only_it_renames_has_its_name(
    folder: Path, said: Callable[[], list[str]]
) -> None:
    change(folder, lambda value: rename(value, "<unused5>", "<tool>"))
    tokens = vocabulary(folder).tokens
    assert tokens[12] == Piece("<tool>", -1000.0, PieceType.CONTROL)
    assert "<unused5>" not in {token.text for token in tokens}
    (notice,) = said()
    assert "12 is '<tool>' (control) there, '<unused5>' in the others" in notice


def test_a_token_that_only_it_adds_takes_a_row(folder: Path, said: Callable[[], list[str]]) -> None:
    change(folder, lambda v: v["added_tokens"].append(added(SIZE, "<tool>", special=False)))
    tokens = vocabulary(folder, SIZE + 2).tokens
    assert tokens[SIZE] == Piece("<tool>", -1000.0, PieceType.USER_DEFINED)
    assert tokens[SIZE + 1].type is PieceType.UNUSED
    (notice,) = said()
    assert "disagree about a token: 2560 is '<tool>'" in notice


def test_its_types_win(folder: Path, said: Callable[[], list[str]]) -> None:
    change(folder, lambda v: v["added_tokens"].append(added(170, "<caption>", special=True)))
    found = vocabulary(folder)
    assert found.tokens[170].type is PieceType.CONTROL
    assert found.added[170] is True
    assert len(said()) == 1


def test_a_piece_that_only_it_has_is_scored_by_its_merge(folder: Path) -> None:
    def add(value: dict[str, Any]) -> None:
        value["model"]["vocab"]["zz"] = SIZE
        value["model"]["merges"].append(["z", "z"])

    change(folder, add)
    tokens = vocabulary(folder, SIZE + 1).tokens
    assert tokens[SIZE].type is PieceType.NORMAL
    made = [t.score for t in tokens if t.type is PieceType.NORMAL and len(t.text) > 1]
    assert tokens[SIZE].score == min(made)


def test_tokens_without_a_row_are_left_out(alone: Path, said: Callable[[], list[str]]) -> None:
    change(alone, lambda v: v["added_tokens"].append(added(SIZE, "[PAD]", special=True)))
    assert bits(vocabulary(alone).tokens) == bits(of_the_demo().tokens)
    (notice,) = said()
    assert "'[PAD]', from id 2,560 on" in notice


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no model": (lambda v: v.pop("model"), "has no 'model'; expected an object"),
    "unigram": (lambda v: v["model"].update(type="Unigram"), "'type' is 'Unigram'; expected 'BPE'"),
    "no bytes": (lambda v: v["model"].update(byte_fallback=False), "'byte_fallback' is False"),
    "dropout": (lambda v: v["model"].update(dropout=0.1), "'dropout' is 0.1"),
    "ignores": (lambda v: v["model"].update(ignore_merges=True), "'ignore_merges' is True"),
    "suffix": (lambda v: v["model"].update(end_of_word_suffix="</w>"), "'end_of_word_suffix'"),
    "prefix": (
        lambda v: v.update(
            normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend"}, v["normalizer"]]}
        ),
        "'normalizer' is",
    ),
    "no marks": (lambda v: v.update(normalizer=None), "'normalizer' is None"),
    "splits": (lambda v: v.update(pre_tokenizer={"type": "ByteLevel"}), "'pre_tokenizer' is"),
    "no merges": (lambda v: v["model"].update(merges=[]), "has no merges.*copy tokenizer.model"),
    "merge": (lambda v: v["model"]["merges"].append(["a"]), r"has \['a'\]; expected two tokens"),
    "list": (lambda v: v["model"]["merges"].append([[], "a"]), "expected two tokens"),
    "parts": (lambda v: v["model"]["merges"].append(["Q", "qQ"]), "lacks the parts"),
    "fewer": (lambda v: v["model"]["merges"].pop(), "not every pair .*copy tokenizer.model"),
    "order": (
        lambda v: v["model"]["merges"].append(v["model"]["merges"].pop(-40)),
        "do not follow each other|not every pair",
    ),
    "byte": (lambda v: rename(v, "<0x41>", "<oxo>"), "no byte piece <0x41>"),
    "id": (lambda v: v["model"]["vocab"].update(new=-1), "'new' is -1; expected a whole number"),
    "ids": (lambda v: v["model"]["vocab"].update(new=7), "'new' is 7; expected another id: 7"),
    "list of added": (lambda v: v.update(added_tokens={}), "'added_tokens' is {}; expected a list"),
    "added": (lambda v: v["added_tokens"].append([]), "added token 108 is \\[\\]"),
    "far": (lambda v: v["added_tokens"].append(added(1 << 40, "x", special=False)), "'id' is"),
    "twice": (lambda v: v["added_tokens"].append(added(7, "<bos>", special=True)), "are both"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_llama_cpp_cannot_follow_is_refused(alone: Path, name: str) -> None:
    edit, words = BAD[name]
    change(alone, edit)
    with pytest.raises(BadCheckpoint, match=words):
        vocabulary(alone)


def test_an_endless_file_is_refused_before_it_is_parsed(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_ITEMS", 1000)
    with pytest.raises(BadCheckpoint, match="items; expected at most 1,000"):
        vocabulary(alone)


def test_without_any_tokenizer_it_says_what_to_copy(alone: Path) -> None:
    (alone / "tokenizer.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"no tokenizer\.model and no tokenizer\.json; copy"):
        vocabulary(alone)


def test_ids_equal_those_of_hugging_faces_tokenizers(alone: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(alone / "tokenizer.json"))
    output = convert(alone, tmp_path / "out.gguf", type="q8_0").output
    # Two things SentencePiece knows of the demo, and this tokenizer.json does not say, as its added
    # tokens do not list them: tags are one token, and a long run of blanks is cut from the left.
    tags, runs = ("<h", "</h", "<t", "<b", "</"), (" " * 17, " " * 40, "\n" * 9, "\n" * 40)
    plain = [text for text in PLAIN if not text.startswith(tags) and text not in runs]
    with closing(Model(output)) as model:
        for text in _strings(plain, 1000, seed=3):
            ids = theirs.encode(text, add_special_tokens=False).ids
            assert model.tokenize(text) == ids, text


@pytest.mark.skipif(GEMMA is None, reason="needs Gemma-2's tokenizer: EDGESPPO_GEMMA_TOKENIZER")
def test_gemmas_own_tokenizer_gives_the_ids_of_hugging_faces(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    source = write_checkpoint(tmp_path / "source", SHAPES["thin256k"])
    (source / "tokenizer.model").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(str(GEMMA)) / name, source / name)
    found = vocabulary(source, 256_000)
    kinds = {token.text: token.type for token in found.tokens}
    assert kinds["<0x09>"] is PieceType.BYTE
    assert kinds["\t\t"] is kinds["  "] is kinds["<table>"] is PieceType.USER_DEFINED
    assert kinds["<unused99>"] is kinds["<start_of_turn>"] is PieceType.CONTROL
    theirs = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    with closing(Model(convert(source, tmp_path / "out.gguf", type="bf16").output)) as model:
        for text in _strings([text for text in PLAIN if MARK not in text], 3000, seed=4):
            ids = theirs.encode(text, add_special_tokens=False).ids
            assert model.tokenize(text) == ids, text


def test_a_tokenizer_of_another_kind_is_unsupported(alone: Path) -> None:
    change(alone, lambda value: value["model"].update(type="WordPiece"))
    with pytest.raises(UnsupportedCheckpoint):
        vocabulary(alone)
