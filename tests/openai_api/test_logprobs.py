"""Log-probabilities of a continued text: whose text they are, and where it begins."""

from __future__ import annotations

from edgesppo.chat.result import TokenLogprob
from edgesppo.openai_api import logprobs

HALVES = ("🦆".encode()[:2], "🦆".encode()[2:])


def entry(data: bytes, *others: bytes) -> TokenLogprob:
    return TokenLogprob(1, data, -0.5, tuple(TokenLogprob(2, other, -1.0) for other in others))


def test_a_token_begins_where_its_text_does_also_behind_parts_of_characters() -> None:
    entries = [entry(b"A "), entry(HALVES[0]), entry(HALVES[1]), entry(b" swims"), entry(b"!")]
    found = logprobs.completion(entries, logprobs.TextOffsets())
    assert found["text_offset"] == [0, 2, 2, 3, 9]
    assert found["tokens"] == ["A ", r"bytes:\xf0\x9f", r"bytes:\xa6\x86", " swims", "!"]
    offsets = logprobs.TextOffsets()  # the same in pieces, as a stream has it
    pieces = [logprobs.completion([one], offsets)["text_offset"] for one in entries]
    assert [offset for piece in pieces for offset in piece] == found["text_offset"]


def test_alternatives_that_are_parts_of_characters_do_not_collapse() -> None:
    entries = [entry(b"A", *HALVES, b"A")]
    (top,) = logprobs.completion(entries, logprobs.TextOffsets())["top_logprobs"]
    assert sorted(top) == ["A", r"bytes:\xa6\x86", r"bytes:\xf0\x9f"]
