"""`AnswerEngine`: what a chat asks of an engine, whether that is here or another machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgesppo.chat.template import ChatTokenizer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from edgesppo.engine.request import Event, Request
    from edgesppo.errors import ContextOverflow
    from edgesppo.sampling.params import SamplingParams


class TokenTexts(Protocol):
    """The texts of single tokens."""

    def text(self, token: int) -> bytes:
        """The bytes of a token; empty for a control token."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token; a control token's name."""


class AnswerModel(ChatTokenizer, Protocol):
    """The vocabulary of an engine's model."""

    @property
    def tokenizer(self) -> TokenTexts:
        """The texts of its tokens."""

    def detokenize(self, ids: Iterable[int]) -> bytes:
        """The text of ids."""

    def is_control(self, token: int) -> bool:
        """Whether a token stands for no text."""


class AnswerEngine(Protocol):
    """Token ids in, token ids out; `Engine` says more of each method.

    Attributes:
        is_remote: Whether the KV cache is another process's.
        name: The name of the model.
        n_ctx: The size of the context, in tokens.
    """

    is_remote: bool
    name: str
    n_ctx: int

    @property
    def model(self) -> AnswerModel:
        """The vocabulary."""

    def prepare(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        owner: object = None,
        grammar: str | None = None,
        salt: str = "",
    ) -> Request:
        """A request to be passed to `add`."""

    def add(self, request: Request) -> Request:
        """Queue a request that `prepare` made."""

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of one request. Leaving early cancels it."""

    def cancel(self, request: Request) -> None:
        """Stop a request, from any thread."""

    def withdraw(self, request: Request, *, at_once: bool = False) -> bool:
        """As `cancel`, but without waiting; whether a step that is under way is cut short."""

    def raise_failure(self, request: Request) -> None:
        """Raise what ended a request before its time, if anything did."""

    def overflow(self, n_tokens: int, *, at_least: bool = False) -> ContextOverflow:
        """The error for a prompt of so many tokens."""

    def count_cached(self, tokens: Sequence[int]) -> int:
        """The number of a prompt's tokens that are in the KV cache here."""
