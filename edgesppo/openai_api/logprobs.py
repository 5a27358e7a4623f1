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


def completion(entries: Sequence[TokenLogprob], offset: int) -> CompletionLogprobs:
    """The log-probabilities of a continued text; its first token's text begins at `offset`."""
    offsets = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for entry in entries:
        offsets.append(offset)
        offset += len(decoder.decode(entry.data))
    return {
        "tokens": [_name(entry) for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{_name(other): other.logprob for other in entry.top} for entry in entries],
        "text_offset": offsets,
    }


def _name(entry: TokenLogprob) -> str:
    """A token's text, or its bytes as OpenAI writes them: "bytes:\\xf0\\x9f"."""
    try:
        return entry.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry.data)


def _entry(entry: TokenLogprob) -> answer_types.TokenLogprob:
    return {"token": entry.text, "logprob": entry.logprob, "bytes": [*entry.data]}
