"""Log-probabilities as the API writes them."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgesppo.chat.result import TokenLogprob
    from edgesppo.openai_api import answer_types
    from edgesppo.openai_api.answer_types import ChatLogprobs, CompletionLogprobs


def chat(entries: Iterable[TokenLogprob]) -> ChatLogprobs:
    """The log-probabilities of a chat's answer."""
    return {
        "content": [
            {**_entry(entry), "top_logprobs": [_entry(other) for other in entry.top]}
            for entry in entries
        ],
        "refusal": None,
    }


class TextOffsets:
    """Where each token begins in the text of an answer; parts of a character where it does."""

    def __init__(self) -> None:
        self._at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def next(self, entry: TokenLogprob) -> int:
        """The offset of the next token, in characters."""
        offset = self._at
        self._at += len(self._decoder.decode(entry.data))
        return offset


def completion(entries: Sequence[TokenLogprob], offsets: TextOffsets) -> CompletionLogprobs:
    """The log-probabilities of the next tokens of a continued text."""
    return {
        "tokens": [_name(entry) for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{_name(other): other.logprob for other in entry.top} for entry in entries],
        "text_offset": [offsets.next(entry) for entry in entries],
    }


def _name(entry: TokenLogprob) -> str:
    """A token's text, or its bytes as OpenAI writes them: "bytes:\\xf0\\x9f"."""
    try:
        return entry.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry.data)


def _entry(entry: TokenLogprob) -> answer_types.TokenLogprob:
    return {"token": entry.text, "logprob": entry.logprob, "bytes": [*entry.data]}
