"""Bytes -> text -> text up to a stop string gives the same result however the input is cut."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgesppo.chat.detokenizer import StopFilter, Utf8Decoder


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(p, len(data)) for p in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=30).map(str.encode)),
    st.lists(st.integers(0, 60)),
)
def test_decoding_in_pieces_equals_decoding_at_once(data: bytes, places: list[int]) -> None:
    decoder = Utf8Decoder()
    text = "".join(decoder.decode(piece) for piece in _cut(data, places)) + decoder.flush()
    assert text == data.decode("utf-8", "replace")


def test_an_incomplete_character_is_held_back_until_it_is_whole() -> None:
    decoder = Utf8Decoder()
    emoji = "🙂".encode()
    assert [decoder.decode(emoji[i : i + 1]) for i in range(4)] == ["", "", "", "🙂"]
    assert decoder.flush() == ""


def _first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    hits = [(text.find(s), len(s), s) for s in stops if s in text]
    if not hits:
        return text, None
    at, _, stop = min(hits)
    return text[:at], stop


@given(
    st.text("ab", max_size=14),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 14), max_size=6),
)
def test_text_ends_at_the_first_stop_by_position(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    filter_ = StopFilter(stops)
    pieces = [piece.decode() for piece in _cut(text.encode(), cuts)]
    out = "".join(filter_.decode(piece) for piece in pieces) + filter_.flush()
    assert (out, filter_.found) == _first_stop(text, stops)


def test_text_that_may_begin_a_stop_is_held_back() -> None:
    filter_ = StopFilter(["END"])
    assert filter_.decode("go E") == "go "
    assert filter_.decode("N") == ""
    assert filter_.decode("Z") == "ENZ"
    assert filter_.decode(" EN") == " "
    assert filter_.flush() == "EN"


def test_nothing_comes_out_after_a_stop() -> None:
    filter_ = StopFilter(["x"])
    assert filter_.decode("ax b") == "a"
    assert filter_.decode("more") == ""
    assert filter_.flush() == ""
