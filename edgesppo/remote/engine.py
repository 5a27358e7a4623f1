"""The server's engine, with the methods of the one here that a chat uses."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, cast

from edgesppo.engine.request import Event, Request
from edgesppo.errors import Cancelled, Closed, ContextOverflow, EdgesppoError, UsageError
from edgesppo.remote import client as remote_client

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator, Iterator, Sequence

    from edgesppo.llama.context import Chain
    from edgesppo.remote.client import Client
    from edgesppo.remote.tokenizer import RemoteTokenizer
    from edgesppo.sampling.params import SamplingParams

# Applied here, to the text as it comes.
_OURS = ("stop", "logprobs")
_CLOSED = "the connection to the server was closed"


class _NoChain:
    """In place of a sampler chain, which the server has: nothing is held here."""

    def close(self) -> None:
        """Free nothing."""


class RemoteEngine:
    """Asks the server for each answer as a continuation of the prompt's token ids."""

    is_remote = True
    n_threads = n_threads_batch = 0
    settings = "remote"

    def __init__(self, client: Client, model: RemoteTokenizer, name: str, n_ctx: int) -> None:
        self.model = model
        self.name = name
        self.n_ctx = n_ctx
        self._client = client
        self._open: dict[int, list[socket.socket]] = {}
        self._closed = False

    def prepare(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        owner: object = None,
        grammar: str | None = None,
        salt: str = "",
    ) -> Request:
        """A request to be passed to `add`. Raises UsageError, ContextOverflow and Closed."""
        del owner, salt
        if self._closed:
            raise Closed(_CLOSED)
        if grammar is not None or params.logprobs is not None:
            raise UsageError("schemas and logprobs cannot be used with a server; load the model")
        n = len(prompt)
        if n >= self.n_ctx:
            raise self.overflow(n)
        limit, ends = min(n + params.max_tokens, self.n_ctx), frozenset[int]()
        chain = cast("Chain", _NoChain())
        return Request([*prompt], n, params, chain, time.perf_counter(), limit, ends)

    def add(self, request: Request) -> Request:
        """The request itself: `stream` is what asks the server."""
        request.submitted_at = time.perf_counter()
        return request

    def overflow(self, n_tokens: int, *, at_least: bool = False) -> ContextOverflow:
        """The error for a prompt of `n_tokens`, to be raised."""
        return ContextOverflow.of_prompt(n_tokens, self.n_ctx, self.n_ctx, at_least=at_least)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of one answer as the server sends them. Leaving early cancels it there."""
        sockets = self._open.setdefault(id(request), [])

        def opened(connected: socket.socket) -> None:
            sockets.append(connected)
            if self._closed:
                raise Closed(_CLOSED)
            if request.cancelled:  # before there was anything to cut
                raise Cancelled("the answer was cancelled")

        request.admitted_at = time.perf_counter()
        try:
            if not request.cancelled:
                for found in self._client.stream("/v1/completions", _body(request), opened):
                    if request.is_unwanted:
                        break
                    yield from self._events(request, found)
        except EdgesppoError:
            if self._closed:
                raise Closed(_CLOSED) from None
            if not request.cancelled:
                raise
        finally:
            self._open.pop(id(request), None)
            remote_client.cut(sockets)
        request.finish_reason = request.finish_reason or "cancelled"
        yield Event(None, request.finish_reason)

    def _events(self, request: Request, found: dict[str, Any]) -> Iterator[Event]:
        """The tokens of one of the server's events."""
        if found.get("usage"):
            request.n_cached = found["usage"]["prompt_tokens_details"]["cached_tokens"]
        for choice in found["choices"]:
            for token in self.model.learn(choice["tokens"]):
                now = time.perf_counter()
                if request.first_token_at is None:
                    request.first_token_at = request.prefilled_at = now
                    request.n_prefilled = request.n_prompt
                request.last_token_at = now
                request.tokens.append(token)
                yield Event(token)
            request.finish_reason = choice["finish_reason"] or request.finish_reason

    def cancel(self, request: Request) -> None:
        """Stop an answer, from any thread."""
        if request.finish_reason is None:
            request.cancelled = True
            remote_client.cut([*self._open.get(id(request), [])])

    def withdraw(self, request: Request, *, at_once: bool = False) -> bool:
        """As `cancel`, which waits for nothing here; no step is."""
        del at_once
        self.cancel(request)
        return False

    def raise_failure(self, request: Request) -> None:
        """Raise Closed for a request that the end of the connection has ended."""
        if self._closed and not request.cancelled:
            raise Closed(_CLOSED)

    def count_cached(self, tokens: Sequence[int]) -> int:
        """None are held here; the server tells with each answer how many it had."""
        del tokens
        return 0

    def state(self, tokens: Sequence[int], limit: int) -> None:
        """The cells stay on the server."""
        del tokens, limit

    def restore(self, ids: Sequence[int], state: object, salt: str = "") -> bool:
        """The cells stay on the server."""
        del ids, state, salt
        return False

    def close(self) -> None:
        """End all answers."""
        self._closed = True
        for sockets in [*self._open.values()]:
            remote_client.cut([*sockets])


def _body(request: Request) -> dict[str, Any]:
    """The request to the server."""
    sampling = {
        name: value
        for name, value in dataclasses.asdict(request.params).items()
        if name not in _OURS and value is not None
    }
    sampling["logit_bias"] = {str(token): bias for token, bias in request.params.logit_bias}
    return {
        **sampling,
        "prompt": request.tokens[: request.n_prompt],
        "max_tokens": request.limit - request.n_prompt,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_tokens": True,
    }
