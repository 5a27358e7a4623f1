"""Single questions to a model, each in a chat of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from typing import Any, TypeVar, overload

from typing_extensions import Unpack

from edgesppo.chat import messages as chat_messages
from edgesppo.chat.chat import Chat
from edgesppo.chat.choices import Overflow
from edgesppo.chat.messages import Message, MessageLike
from edgesppo.chat.result import Chunk
from edgesppo.chat.structured import JsonSchema, Schema, TypeForm
from edgesppo.errors import UsageError
from edgesppo.sampling import options
from edgesppo.sampling.options import SamplingOptions

T = TypeVar("T")


class Questions:
    """What a model answers without a chat to go on with; a base class of `LoadedModel`."""

    def chat(
        self,
        *,
        messages: Iterable[MessageLike] = (),
        system: str | None = None,
        overflow: Overflow = "trim",
        **sampling: Unpack[SamplingOptions],
    ) -> Chat:
        """Start a conversation."""
        raise NotImplementedError

    @overload
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str: ...
    @overload
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: type[T],
        **sampling: Unpack[SamplingOptions],
    ) -> T: ...
    @overload
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: JsonSchema | TypeForm,
        **sampling: Unpack[SamplingOptions],
    ) -> Any: ...
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Any:
        """Ask one question in a new chat, and wait for the whole answer.

        `text` may also be a list of messages, as `chat` takes them, that ends with the question.
        `system` is the system text. The other arguments, the result and the errors are those of
        `Chat.ask`.
        """
        chat, question = _begin(self, text, system, sampling)
        format_: Any = schema
        return chat.ask(question, schema=format_)

    def stream(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Generator[Chunk, None, None]:
        """Ask one question in a new chat, and stream the answer.

        `text` and `system` are those of `ask`; the rest is as with `Chat.stream`.
        """
        chat, question = _begin(self, text, system, sampling)
        return chat.stream(question, schema=schema)

    @overload
    async def aask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str: ...
    @overload
    async def aask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: type[T],
        **sampling: Unpack[SamplingOptions],
    ) -> T: ...
    @overload
    async def aask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: JsonSchema | TypeForm,
        **sampling: Unpack[SamplingOptions],
    ) -> Any: ...
    async def aask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Any:
        """As `ask`, beside the event loop. Cancelling the task stops the model at once."""
        chat, question = _begin(self, text, system, sampling)
        format_: Any = schema
        return await chat.aask(question, schema=format_)

    def astream(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerator[Chunk, None]:
        """As `stream`, with `async for`; see `Chat.astream`."""
        chat, question = _begin(self, text, system, sampling)
        return chat.astream(question, schema=schema)


def _begin(
    model: Questions,
    text: str | Iterable[MessageLike],
    system: str | None,
    sampling: SamplingOptions,
) -> tuple[Chat, str]:
    """A new chat, with the turns before the question, and the question."""
    options.check_names(sampling, ("system", "schema"))
    turns: list[Message] = []
    if isinstance(text, Mapping):
        raise UsageError("expected a text or a list of messages, not one message: [{...}]")
    if isinstance(text, Iterable) and not isinstance(text, str | bytes):
        system, turns, text = chat_messages.question_last(text, system)
    return model.chat(messages=turns, system=system, **sampling), text
