"""The vocabulary, compared with what SentencePiece and llama.cpp read."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import llama_cpp
import pytest
from sentencepiece import SentencePieceProcessor

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo.system import notices
from edgesppo_convert import convert
from edgesppo_convert.gemma2 import sentencepiece
from edgesppo_convert.gemma2.sentencepiece import Piece, PieceType, read_pieces
from edgesppo_convert.gemma2.vocab import Vocabulary, read_vocabulary
from edgesppo_convert.source.checkpoint import Checkpoint
from tests.support.checkpoints import (
    BYTE,
    END_OF_TURN,
    NORMAL,
    SHAPES,
    START_OF_TURN,
    TEMPLATE,
    pieces,
    tokenizer_config,
    tokenizer_model,
    varint,
    write_checkpoint,
    write_json,
)
from tests.support.llama_quantizer import quiet

if TYPE_CHECKING:
    from pathlib import Path

SIZE = SHAPES["tiny"].vocabulary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SHAPES["tiny"])


def vocabulary(folder: Path, size: int = SIZE) -> Vocabulary:
    with Checkpoint(folder) as checkpoint:
        return read_vocabulary(checkpoint, size)


def test_pieces_are_read_as_sentencepiece_reads_them(folder: Path) -> None:
    theirs = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = read_pieces((folder / "tokenizer.model").read_bytes(), "it")
    assert len(ours) == theirs.vocab_size()
    for index, piece in enumerate(ours):
        assert piece.text == theirs.id_to_piece(index)
        assert piece.score == theirs.get_score(index)
        assert (piece.type is PieceType.UNKNOWN) == theirs.is_unknown(index)
        assert (piece.type is PieceType.CONTROL) == theirs.is_control(index)
        assert (piece.type is PieceType.BYTE) == theirs.is_byte(index)


def test_every_token_has_the_type_that_its_duty_needs(folder: Path) -> None:
    tokens = vocabulary(folder).tokens
    kinds = {token.text: token.type for token in tokens}
    for text in ("<pad>", "<eos>", "<bos>", "<mask>", "<2mass>", "[@BOS@]", "<unused0>"):
        assert kinds[text] is PieceType.CONTROL
    assert kinds["<unused98>"] is PieceType.CONTROL  # not among the added tokens
    assert tokens[START_OF_TURN] == Piece("<start_of_turn>", -1000.0, PieceType.CONTROL)
    assert tokens[END_OF_TURN] == Piece("<end_of_turn>", -1000.0, PieceType.CONTROL)
    assert kinds["<unk>"] is PieceType.UNKNOWN
    assert kinds["<0x0A>"] is PieceType.BYTE
    assert kinds["\n\n"] is kinds["<table>"] is PieceType.USER_DEFINED
    assert kinds["e"] is PieceType.NORMAL


def test_user_defined_spaces_are_matched_as_spaces(folder: Path) -> None:
    texts = {token.text for token in vocabulary(folder).tokens}
    assert {" " * count for count in range(2, 32)} <= texts
    assert "\u2581" in texts  # merging still works on the mark
    assert "\u2581\u2581" not in texts


def test_control_tokens_are_control_even_where_no_list_says_so(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    tokens = vocabulary(folder).tokens
    assert {tokens[index].type for index in (0, 1, 2, 4, 106, 107)} == {PieceType.CONTROL}


def test_rows_beyond_the_vocabulary_are_unused_padding(folder: Path) -> None:
    tokens = vocabulary(folder, SIZE + 3).tokens
    assert tokens[SIZE:] == [
        Piece(f"[PAD{index}]", -10000.0, PieceType.UNUSED) for index in range(SIZE, SIZE + 3)
    ]


def test_added_tokens_fill_the_padding_and_replace_pieces(folder: Path) -> None:
    write_json(folder / "added_tokens.json", {"<tool>": SIZE})
    config = tokenizer_config()
    config["added_tokens_decoder"]["8"] = {"content": "<think>", "special": True}
    config["added_tokens_decoder"]["520"] = {"content": "a\u2581b", "special": False}
    write_json(folder / "tokenizer_config.json", config)
    tokens = vocabulary(folder, SIZE + 1).tokens
    assert tokens[SIZE] == Piece("<tool>", -1000.0, PieceType.USER_DEFINED)
    assert tokens[8] == Piece("<think>", -1000.0, PieceType.CONTROL)
    assert tokens[520] == Piece("a b", -1000.0, PieceType.USER_DEFINED)


def test_a_token_for_padding_alone_needs_no_row(folder: Path) -> None:
    config = tokenizer_config()
    config["added_tokens_decoder"][str(SIZE)] = {"content": "[PAD]", "special": True}
    write_json(folder / "tokenizer_config.json", config)
    with Checkpoint(folder) as checkpoint, notices.collected():
        checkpoint.config._values["pad_token_id"] = SIZE
        found = read_vocabulary(checkpoint, SIZE)
        (notice,) = notices.take()
    assert notice == (
        "tokens left out, because the embedding has only 600 rows: '[PAD]', from id 600 on"
    )
    assert found.special_ids["tokenizer.ggml.padding_token_id"] == 0
    assert len(found.tokens) == SIZE


@pytest.mark.parametrize("value", [-1, 3, "<unk>"])
def test_what_cannot_be_the_token_for_padding_gives_way_to_gemmas(
    folder: Path, value: object
) -> None:
    """As those who train a model set it: `<unk>` (3), or no token at all."""
    with Checkpoint(folder) as checkpoint, notices.collected():
        checkpoint.config._values["pad_token_id"] = value
        found = read_vocabulary(checkpoint, SIZE)
        (notice,) = notices.take()
    assert notice.endswith(
        f"pad_token_id is {value!r}, which is no control token; <pad> (0) is used"
    )
    assert found.special_ids["tokenizer.ggml.padding_token_id"] == 0


def test_llama_cpp_sees_the_tokens_and_their_duties(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "out.gguf")
    settings = llama_cpp.llama_model_default_params()
    with quiet():
        model = llama_cpp.llama_model_load_from_file(bytes(tmp_path / "out.gguf"), settings)
    assert model
    vocab = llama_cpp.llama_model_get_vocab(model)
    assert vocab
    assert llama_cpp.llama_vocab_bos(vocab) == 2
    assert llama_cpp.llama_vocab_eos(vocab) == 1
    assert llama_cpp.llama_vocab_eot(vocab) == END_OF_TURN
    assert llama_cpp.llama_vocab_pad(vocab) == 0
    assert llama_cpp.llama_vocab_get_add_bos(vocab)
    assert not llama_cpp.llama_vocab_get_add_eos(vocab)
    for index, token in enumerate(vocabulary(folder).tokens):
        attribute = llama_cpp.llama_vocab_get_attr(vocab, index)
        assert bool(attribute & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL) == (
            token.type is PieceType.CONTROL
        )
        assert llama_cpp.llama_vocab_get_text(vocab, index).decode() == token.text
    llama_cpp.llama_model_free(model)


def test_the_template_file_goes_before_the_config(folder: Path) -> None:
    assert vocabulary(folder).template == TEMPLATE
    named = [{"name": "tool", "template": "no"}, {"name": "default", "template": "yes"}]
    write_json(folder / "tokenizer_config.json", {"chat_template": named})
    assert vocabulary(folder).template == "yes"
    (folder / "chat_template.jinja").write_text("file", encoding="utf-8")
    assert vocabulary(folder).template == "file"


def test_no_template_is_no_error(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    assert vocabulary(folder).template is None
    write_json(folder / "chat_template.json", {"chat_template": "own file"})
    assert vocabulary(folder).template == "own file"


def test_the_first_of_several_ends_is_the_eos(folder: Path) -> None:
    with Checkpoint(folder) as checkpoint:
        checkpoint.config._values["eos_token_id"] = [1, END_OF_TURN]
        duties = read_vocabulary(checkpoint, SIZE).special_ids
    assert duties["tokenizer.ggml.eos_token_id"] == 1
    assert duties["tokenizer.ggml.eot_token_id"] == END_OF_TURN


Change = "Callable[[list[tuple[str, float, int]]], object]"
BAD_PIECES: dict[str, tuple[Change, str]] = {
    "a byte of another name": (
        lambda p: p.__setitem__(550, ("x550", 0.0, BYTE)),
        "has the type BYTE",
    ),
    "no bytes": (lambda p: p.__setitem__(300, ("x300", 0.0, NORMAL)), "has no byte piece <0x"),
    "twice": (lambda p: p.__setitem__(590, p[591]), "tokens 590 and 591 of .* are both"),
    "empty": (lambda p: p.__setitem__(590, ("", 0.0, NORMAL)), "token 590 of .* is ''; expected"),
    "nul": (lambda p: p.__setitem__(590, ("a\0", 0.0, NORMAL)), r"token 590 of .* is 'a\\x00'"),
    "nan": (lambda p: p.__setitem__(590, ("q9", float("nan"), NORMAL)), "score of piece b'q9'"),
    "type 9": (lambda p: p.__setitem__(590, ("q9", 0.0, 9)), "a malformed piece"),
    "no unk": (lambda p: p.__setitem__(3, ("<u>", 0.0, NORMAL)), "has 0 pieces of type UNKNOWN"),
    "eos": (lambda p: p.__setitem__(1, ("end", 0.0, NORMAL)), "token 1, 'end', is the tokenizer"),
}


@pytest.mark.parametrize("name", BAD_PIECES)
def test_pieces_that_llama_cpp_would_choke_on_are_refused(folder: Path, name: str) -> None:
    change, message = BAD_PIECES[name]
    found = pieces(SIZE)
    change(found)  # type: ignore[operator]
    (folder / "tokenizer.model").write_bytes(tokenizer_model(found))
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(BadCheckpoint, match=message):
        vocabulary(folder)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (b"\x12\x02\x18\x01", "is not a BPE model"),
        (b"\x12\x03\xc0\x01\x01", "treats spaces as suffixes"),
        (b"\x1a\x03\x12\x01x", "rewrites text"),
        (b"\x1a\x02\x18\x01", "adds a space"),
        (b"\x1a\x02\x20\x01", "removes extra spaces"),
        (b"\x1a\x02\x28\x00", "does not mark spaces"),
    ],
)
def test_a_tokeniser_that_llama_cpp_cannot_follow_is_refused(
    folder: Path, field: bytes, message: str
) -> None:
    data = (folder / "tokenizer.model").read_bytes() + field
    with pytest.raises(UnsupportedCheckpoint, match=message):
        read_pieces(data, "it")


def test_the_short_way_through_a_piece_finds_what_the_long_way_does() -> None:
    chance, short = random.Random(5), 0
    for _ in range(20_000):
        text = chance.randbytes(chance.choice((0, 1, 5, 127, 128)))
        data = bytearray(b"\x0a" + varint(len(text)) + text + b"\x15" + chance.randbytes(4))
        data += chance.choice((b"", b"\x18\x03", b"\x18\x83\x01", b"\x20\x03", b"\x18"))
        for _ in range(chance.randrange(3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        piece = bytes(data[: chance.choice((len(data), len(data), chance.randrange(9)))])
        found = sentencepiece._usual_fields(piece)
        if found is not None:
            short += 1
            assert repr({3: 1, **dict(sentencepiece._fields(piece))}) == repr({3: 1, **found})
    assert 1_000 < short < 15_000


def test_no_damage_to_the_tokenizer_escapes_as_another_error() -> None:
    whole = tokenizer_model([("a", 0.0, 1), ("\u2581b", -1.0, 4)])
    chance = random.Random(7)
    read = 0
    for number in range(600):
        damaged = bytearray(whole[: number % (len(whole) + 1)] if number % 2 else whole)
        for _ in range(chance.randrange(4) if damaged else 0):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with suppress(BadCheckpoint):
            read_pieces(bytes(damaged), "it")
            read += 1
    assert 0 < read < 300


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has no pieces"),
        (b"\x0a" + varint(1 << 62), "longer than its message"),
        (b"\xff" * 11, "more than ten bytes"),
        (b"\x0a", "ends in the middle"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x0a\x04\x0a\x02\xc3\x28", "is not UTF-8"),
        (b"<!DOCTYPE html>", "is not a valid SentencePiece model"),
        (b"\x12\x02\x18\x02" * 65, "a message in more than 64 parts"),
    ],
)
def test_what_is_no_sentencepiece_model_is_named_so(data: bytes, message: str) -> None:
    with pytest.raises(BadCheckpoint, match=message):
        read_pieces(data, "it")


@pytest.mark.parametrize(
    ("field", "message"),
    [(b"\x0a\x00", "more than 64 pieces"), (b"\x20\x01", "more than 80 fields")],
)
def test_a_model_of_too_many_parts_is_refused(
    monkeypatch: pytest.MonkeyPatch, field: bytes, message: str
) -> None:
    assert (sentencepiece.MAX_PIECES, sentencepiece.MAX_FIELDS) == (1 << 20, (1 << 20) + 1024)
    monkeypatch.setattr(sentencepiece, "MAX_PIECES", 64)
    monkeypatch.setattr(sentencepiece, "MAX_FIELDS", 80)
    with pytest.raises(BadCheckpoint, match=message):
        read_pieces(field * 81, "it")
