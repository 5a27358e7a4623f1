"""The server's tokenizer: what has been asked once is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import EdgesppoError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.remote.client import Client

_MOST_ID = 2**31


class RemoteTokenizer:
    """Text to token ids and back, with the special tokens that the chat template needs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pieces: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}
        self.path = Path(client.url.partition("://")[2])
        self.tokenizer = self
        self.n_vocab = _MOST_ID
        ids = self._ids({"messages": [{"role": "user", "content": "x"}]})
        named = {self._pieces[id_]: id_ for id_ in ids}
        try:
            self.bos = named[b"<bos>"]
            self.start_of_turn = named[b"<start_of_turn>"]
            self.end_of_turn = named[b"<end_of_turn>"]
        except KeyError:
            raise EdgesppoError(f"{client.url} serves no model with Gemma-2's template") from None
        self.newline = self.tokenize("\n")
        self.answer_head = self.tokenize("model\n")

    def tokenize(self, text: str | bytes) -> list[int]:
        """The ids of plain text, never a control token's."""
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        return self._ids({"content": text})

    def fewest_tokens(self, text: str) -> int:
        """A lower bound for a text's number of tokens; the server knows a better one."""
        return min(1, len(text))

    def detokenize(self, ids: Iterable[int]) -> bytes:
        """The text of ids; control tokens stand for none."""
        return b"".join(map(self.text, ids))

    def text(self, token: int) -> bytes:
        """The bytes of a token; empty for a control token."""
        if token not in self._texts:
            (entry,) = self._client.ask("/detokenize", {"tokens": [token], "with_bytes": True})[
                "bytes"
            ]
            self._texts[token] = bytes(entry)
        return self._texts[token]

    def piece(self, token: int) -> bytes:
        """The bytes of a token; a control token's name."""
        return self._pieces[token] if token in self._pieces else self.text(token)

    def is_control(self, token: int) -> bool:
        """Whether a token stands for no text."""
        return not self.text(token)

    def learn(self, tokens: Iterable[dict[str, Any]]) -> list[int]:
        """The ids of tokens that came with their bytes, which are remembered."""
        found = []
        for token in tokens:
            self._texts[token["id"]] = bytes(token["bytes"])
            found.append(token["id"])
        return found

    def close(self) -> None:
        """Free nothing: the vocabulary is the server's."""

    def _ids(self, body: dict[str, Any]) -> list[int]:
        tokens = self._client.ask("/tokenize", {**body, "with_pieces": True})["tokens"]
        for token in tokens:
            piece = token["piece"]
            data = piece.encode() if isinstance(piece, str) else bytes(piece)
            self._pieces[token["id"]] = data
        return [token["id"] for token in tokens]
