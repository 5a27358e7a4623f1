"""What the server needs of a loaded model: the only file of this room that looks inside of one."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Any

from edgesppo.chat import template
from edgesppo.chat.generation import Generation
from edgesppo.engine.kv_cache import common_prefix
from edgesppo.errors import Closed, OutOfMemory, UsageError
from edgesppo.gguf import metadata
from edgesppo.gguf.file_types import file_type
from edgesppo.interior import interior
from edgesppo.sampling import options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgesppo.chat.messages import Message
    from edgesppo.loaded_model import LoadedModel
    from edgesppo.sampling.params import SamplingParams
    from edgesppo.sessions.kv_snapshot import Binding

# Memory is often short for a moment only: for so many seconds, a step may be tried again.
_TRIED_S = 3.0


class Backend:
    """A loaded model as a server uses it. `step` and `begin` are for the worker thread alone.

    Attributes:
        name: The name of the model.
        n_ctx: The size of the context, in tokens, which all sequences share.
        n_seqs: How many answers can be computed at the same time.
        created: When the model's file was written, in seconds since the epoch.
    """

    def __init__(self, loaded: LoadedModel, most_tokens: int | None = None) -> None:
        """With `most_tokens`, an answer is no longer than that if a client does not say more."""
        self.name = loaded.name
        self.n_ctx = loaded.n_ctx
        self.load_s = loaded.load_s
        self._loaded = loaded
        self._engine = interior(loaded).engine
        self._model = self._engine.model
        self.bos = self._model.bos
        self.n_seqs = self._engine.n_seqs
        self._defaults = interior(loaded).defaults
        if most_tokens is not None:
            longest = min(self._defaults.max_tokens, most_tokens)
            self._defaults = self._defaults.replace(max_tokens=longest)
        self._users = threading.Condition()  # guards these two
        self._n_users = 0  # the threads that prepare an answer
        self._is_closed = False
        self._short_since: float | None = None  # when memory ran short for a step, while it is
        self.created = int(loaded.path.stat().st_mtime)

    def params(self, sampling: dict[str, Any]) -> SamplingParams:
        """The model's default sampling with changes. Raises UsageError."""
        options.check_names(sampling)
        params = self._defaults.replace(**sampling)
        for token, _ in params.logit_bias:
            if token >= self._model.n_vocab:
                raise UsageError(
                    f"logit_bias has the token {token}, expected ids from 0 to "
                    f"{self._model.n_vocab - 1}"
                )
        return params

    def chat_prompt(self, messages: Sequence[Message], partial: str | None) -> list[int]:
        """The ids of a chat whose last message is to be answered, or whose answer is begun.

        Raises UsageError for messages out of turn and ContextOverflow.
        """
        texts = [message.content for message in messages]
        fewest = template.fewest_tokens(self._model, texts)
        self._require_room(fewest + self._model.fewest_tokens(partial or ""), least=True)
        ids = template.encode(self._model, messages)
        if partial is not None:
            ids += self._model.tokenize(partial)
        self._require_room(len(ids))
        return ids

    def text_prompt(self, text: str) -> list[int]:
        """The ids of a text to be continued, after the `<bos>`. Raises ContextOverflow."""
        self._require_room(self._model.fewest_tokens(text), least=True)
        return self.require_room([self._model.bos, *self._model.tokenize(text)])

    def require_room(self, ids: list[int]) -> list[int]:
        """The same ids. Raises ContextOverflow if they leave no room for an answer."""
        self._require_room(len(ids))
        return ids

    def tokenize(self, text: str) -> list[int]:
        """The ids of plain text, without a `<bos>`."""
        return self._model.tokenize(text)

    def piece(self, token: int) -> bytes:
        """The bytes of a token; a control token's name."""
        return self._model.piece(token)

    def text(self, token: int) -> bytes:
        """The bytes of a token; none of a control token."""
        return self._model.tokenizer.text(token)

    def defaults(self) -> dict[str, Any]:
        """The model's default sampling."""
        return dataclasses.asdict(self._defaults)

    def detokenize(self, ids: list[int]) -> str:
        """The text of ids. Raises UsageError for one outside the vocabulary."""
        return self._loaded.detokenize(ids)

    def card(self) -> dict[str, Any]:
        """The model's metadata as plain values, with the type and the fingerprint of its file."""
        return {
            **metadata.describe(self._model.summary),
            "file_type": file_type(self._model.summary),
            "fingerprint": interior(self._loaded).identity.mark.fingerprint,
        }

    def prepare(
        self, prompt: Sequence[int], params: SamplingParams, grammar: str | None, salt: str
    ) -> Generation:
        """An answer, to `begin` later. Any thread may call this; it may take seconds."""
        with self._users:
            if self._is_closed:
                raise Closed("the model was closed")
            self._n_users += 1
        try:
            return Generation(self._engine, prompt, params, grammar=grammar, salt=salt, waits=True)
        finally:
            with self._users:
                self._n_users -= 1
                self._users.notify_all()

    def begin(self, generation: Generation) -> None:
        """Submit an answer to the engine."""
        generation.start()

    def keep_what_returns(self, generation: Generation) -> None:
        """Drop the cells of an answer that has ended where the next turn will have other tokens.

        A client sends the text, which is trimmed and tokenised anew. Saved cells hold the sliding
        window before their end only, so those that end where the next turn differs are of no use.
        """
        request = generation.request
        answer = request.tokens[request.n_prompt :]
        again = self._model.tokenize(generation.result().text.strip())
        same = common_prefix(answer, again)
        if same < len(answer):
            self._engine.shorten(request, request.n_prompt + same)

    def step(self) -> bool:
        """Compute one batch for all answers that were begun.

        Returns whether memory was short for it and it is to be tried again. Raises OutOfMemory or
        MemoryError where it has been so for some seconds.
        """
        now = time.monotonic()
        try:
            self._engine.step()
        except (MemoryError, OutOfMemory):
            if self._short_since is None:
                self._short_since = now
            if now - self._short_since < _TRIED_S:
                return True
            self._short_since = None
            raise
        self._short_since = None
        self._engine.tell()
        return False

    @property
    def n_running(self) -> int:
        """How many answers have a sequence."""
        return self._engine.n_running

    def drafts(self, generation: Generation) -> tuple[int, int]:
        """How many tokens of an answer were drafted, and how many of them were right."""
        drafter = generation.request.drafter
        return (0, 0) if drafter is None else (drafter.n_drafted, drafter.n_accepted)

    def kv_share(self) -> float:
        """The share of the KV cache's cells that hold tokens, from 0 to 1."""
        return self._engine.kv_share()

    def binding(self) -> Binding:
        """What the cells of the KV cache depend on."""
        return interior(self._loaded).identity.binding

    def kv_states(
        self, least: int, limit: int
    ) -> Iterator[tuple[str, list[int], bytearray | memoryview]]:
        """The salt, ids and cells of every sequence of at least `least` tokens."""
        return self._engine.states(least, limit)

    def restore(self, ids: Sequence[int], cells: bytearray | memoryview, salt: str) -> bool:
        """Put cells back; False if there is no room for them."""
        return self._engine.restore(ids, cells, salt)

    def close(self) -> None:
        """Free the model, once no answer is being prepared."""
        with self._users:
            self._is_closed = True
            self._users.wait_for(lambda: not self._n_users)
        self._loaded.close()

    def _require_room(self, n_tokens: int, *, least: bool = False) -> None:
        if n_tokens >= self.n_ctx:
            raise self._engine.overflow(n_tokens, at_least=least)
