"""`Chat`: a conversation with a model, and the generation of its next answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any, NoReturn, TypeVar, get_args, overload

from typing_extensions import Unpack

from edgesppo.chat import structured
from edgesppo.chat.answer_engine import AnswerEngine
from edgesppo.chat.answer_stream import AnswerStream, AsyncAnswerStream
from edgesppo.chat.choices import Overflow
from edgesppo.chat.dialogue import Dialogue
from edgesppo.chat.history import History
from edgesppo.chat.messages import Message, MessageLike, MessageList, shortened
from edgesppo.chat.result import Chunk, Result
from edgesppo.chat.structured import AnswerFormat, JsonSchema, Schema, TypeForm
from edgesppo.chat.turn import Turn
from edgesppo.errors import UsageError
from edgesppo.sampling.options import NAMES, SamplingOptions
from edgesppo.sampling.params import SamplingParams
from edgesppo.system import validate

T = TypeVar("T")


class _NoAnswerYet(UsageError, AttributeError):
    """A chat has no `last` yet, also for `hasattr`."""


class Chat:
    """A conversation with a loaded model; create it with `LoadedModel.chat`.

    The history consists of complete turns: a user's message and its answer. An answer that is
    interrupted is kept as far as it came, and `last.finish_reason` is "cancelled". A turn that
    fails, or is interrupted before its first token, leaves the history unchanged.

    Args:
        engine: The engine that generates the answers.
        params: The sampling parameters; every call can override them. Also an attribute.
        system: The system text. Gemma-2 has no system role, so it is put in front of the first
            user message.
        overflow: What to do when the chat outgrows the context. "trim" leaves the oldest turns out
            of the prompt, but never the system text or a part of a turn; `last.left_out` says how
            many, and `messages` still has them all. "error" raises ContextOverflow.
        messages: The messages of an earlier conversation to continue, as Messages or dicts: user
            and assistant in turn.
        left_out: The `left_out` of that conversation.

    Raises:
        UsageError: `overflow` or `system` is invalid.
    """

    def __init__(
        self,
        engine: AnswerEngine,
        params: SamplingParams,
        *,
        system: str | None = None,
        overflow: Overflow = "trim",
        messages: Iterable[MessageLike] = (),
        left_out: int = 0,
    ) -> None:
        history = History(engine.model, messages, left_out=left_out)
        self._dialogue = Dialogue(engine, params, history, overflow)
        self.system = system

    def __setattr__(self, name: str, value: object) -> None:
        if name in NAMES:
            raise AttributeError(
                f"a chat has no {name}; to change it for all further answers: "
                f"chat.params = chat.params.replace({name}=...)"
            )
        super().__setattr__(name, value)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a chat cannot be copied or pickled: chat.fork() copies it; for another process send"
            " chat.to_dicts(), and there take model.chat(messages=...)"
        )

    def __repr__(self) -> str:
        n = len(self.messages) // 2
        turns = "no turn yet" if n == 0 else "1 turn" if n == 1 else f"{n:,} turns"
        last = f", the last answer {shortened(self.messages[-1].content)}" if n else ""
        return f"<Chat with {self._dialogue.engine.name}, {turns}{last}>"

    @property
    def messages(self) -> MessageList:
        """The history, a user's message and its answer in turn.

        The list may be edited, with Messages or with dicts such as {"role": "user", "content":
        "Hi"}; `to_dicts()` has it as dicts. A turn is added when its answer ends; until then, also
        if its stream was left and is still referred to, `last` has what was generated. If the list
        was edited meanwhile, the turn is not added.
        """
        return self._dialogue.history.messages

    @messages.setter
    def messages(self, messages: Iterable[MessageLike]) -> None:
        new = MessageList(messages)
        self._dialogue.settle()
        self._dialogue.history.messages = new

    def to_dicts(self) -> list[dict[str, str]]:
        """The system text, if any, and the history as dicts, which `LoadedModel.chat` takes again.

        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
        """
        first = [] if self.system is None else [Message("system", self.system)]
        return [message.to_dict() for message in (*first, *self.messages)]

    @property
    def system(self) -> str | None:
        """The system text, or None. Setting it to anything else raises UsageError."""
        return self._dialogue.history.system

    @system.setter
    def system(self, system: str | None) -> None:
        if system is not None:
            validate.text("system", system)
        self._dialogue.history.system = system

    @property
    def params(self) -> SamplingParams:
        """The sampling parameters; every call can override them.

        chat.params = chat.params.replace(temperature=0) changes one for all further answers.
        """
        return self._dialogue.params

    @params.setter
    def params(self, params: SamplingParams) -> None:
        if not isinstance(params, SamplingParams):
            raise UsageError(
                f"chat.params has the type {type(params).__name__}, expected SamplingParams, such"
                " as chat.params.replace(temperature=0)"
            )
        self._dialogue.params = params

    @property
    def overflow(self) -> Overflow:
        """What to do when the chat outgrows the context: "trim" or "error"."""
        return self._dialogue.overflow

    @overflow.setter
    def overflow(self, overflow: Overflow) -> None:
        validate.choice("overflow", overflow, get_args(Overflow))
        self._dialogue.overflow = overflow

    @property
    def left_out(self) -> int:
        """The number of oldest turns that the latest prompt left out."""
        return self._dialogue.history.left_out

    @property
    def answered(self) -> bool:
        """Whether there is a `last` answer, complete or not."""
        return self._dialogue.latest() is not None

    @property
    def last(self) -> Result:
        """The latest answer: text, finish reason, usage and timings.

        While an answer is under way, or after its stream was left early, what was generated so
        far. Raises UsageError before the first answer.
        """
        latest = self._dialogue.latest()
        if latest is None:
            raise _NoAnswerYet("this chat has no answer yet; call ask() or stream() first")
        return latest

    def stream(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Generator[Chunk, None, None]:
        """Send a message and stream the answer.

        Nothing happens before the first `next()`. Leaving the loop early cancels the answer and
        keeps what was generated; so does another question from the same thread or task.

        Args:
            text: The user's message.
            schema: What the answer must follow, as in `ask`.
            **sampling: SamplingParams that override the chat's own for this answer, such as
                temperature=0.

        Yields:
            The answer in pieces. The last one has the finish reason, usage and timings.

        Raises:
            ContextOverflow: The prompt leaves no room for an answer.
            UsageError: The text or a sampling parameter is invalid.
            ChatInUse: The chat is answering in another thread or task.
            Closed: The model was closed.
            NativeError: llama.cpp failed.
        """
        return self._answer(text, schema, sampling)

    def regenerate(
        self,
        question: str | None = None,
        *,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Generator[Chunk, None, None]:
        """Answer the last question again, or `question` in its place.

        The old turn is replaced when the new answer ends, and stays if that is interrupted before
        its first token. Otherwise like `stream`; also raises UsageError if there is no turn yet.
        """

        def turn() -> Turn:
            asked, _ = self._dialogue.last_turn("no turn to answer again")
            text = asked.content if question is None else question
            return Turn(Message("user", text), len(self.messages) - 2)

        self._dialogue.settle()
        turn()
        return self._dialogue.answer(turn, schema, sampling)

    def continue_(
        self, *, schema: None = None, **sampling: Unpack[SamplingOptions]
    ) -> Generator[Chunk, None, None]:
        """Continue the last answer where it ended, after an interruption or a limit.

        The chunks and `last` hold only what is added; `messages[-1]` is the whole answer.
        Otherwise like `stream`; also raises UsageError if there is no answer yet, and for a
        schema, which cannot be taken up in the middle of an answer.
        """

        def turn() -> Turn:
            asked, partial = self._dialogue.last_turn("no answer to continue")
            return Turn(Message("user", asked.content), len(self.messages) - 2, partial)

        self._dialogue.settle()
        turn()
        return self._dialogue.answer(turn, schema, sampling)

    def astream(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> AsyncGenerator[Chunk, None]:
        """Send a message and stream the answer with `async for`; otherwise like `stream`.

        The model computes in a worker thread beside the event loop. Cancelling the task, or
        leaving the loop early, stops the model at once; `contextlib.aclosing` does so where the
        stream is still referred to.
        """
        return AsyncAnswerStream(self._answer(text, schema, sampling))

    def _answer(self, text: str, schema: Any, sampling: SamplingOptions) -> AnswerStream:
        """The answer to a new message."""

        def turn() -> Turn:
            if len(self.messages) % 2:
                raise UsageError(
                    f"chat.messages ends with a message that has no answer (index"
                    f" {len(self.messages) - 1}); ask it: chat.ask(chat.messages.pop().content)"
                )
            return Turn(Message("user", text), len(self.messages))

        return self._dialogue.answer(turn, schema, sampling)

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._dialogue.current.get() is not None

    def cancel(self) -> None:
        """Stop the answer that is under way, from any thread or task; keeps what was generated."""
        self._dialogue.current.cancel()

    @overload
    def ask(
        self, text: str, *, schema: None = None, **sampling: Unpack[SamplingOptions]
    ) -> str: ...
    @overload
    def ask(self, text: str, *, schema: type[T], **sampling: Unpack[SamplingOptions]) -> T: ...
    @overload
    def ask(
        self, text: str, *, schema: JsonSchema | TypeForm, **sampling: Unpack[SamplingOptions]
    ) -> Any: ...
    def ask(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Any:
        """Send a message and wait for the whole answer.

        Args:
            text: The user's message.
            schema: What the answer must follow: a JSON Schema (as a dict or bool), "json_object",
                or a type that pydantic can describe by such a schema: a model class, list[int],
                an Enum, a Literal and the like.
            **sampling: SamplingParams that override the chat's own for this answer.

        Returns:
            The text of the answer. With a schema, its value: parsed JSON, or a value of the
            type.

        Raises:
            IncompleteAnswer: `max_tokens` or the context ended the answer before its JSON was
                complete; the error holds the text.
            EdgesppoError: What `stream` raises.
        """
        answer_format = None if schema is None else structured.answer_format(schema)
        chunks = self._answer(text, answer_format, sampling)
        for _ in chunks:
            pass
        return _value(chunks, answer_format)

    @overload
    async def aask(
        self, text: str, *, schema: None = None, **sampling: Unpack[SamplingOptions]
    ) -> str: ...
    @overload
    async def aask(
        self, text: str, *, schema: type[T], **sampling: Unpack[SamplingOptions]
    ) -> T: ...
    @overload
    async def aask(
        self, text: str, *, schema: JsonSchema | TypeForm, **sampling: Unpack[SamplingOptions]
    ) -> Any: ...
    async def aask(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Any:
        """As `ask`, beside the event loop. Cancelling the task stops the model at once."""
        answer_format = None if schema is None else structured.answer_format(schema)
        stream = self._answer(text, answer_format, sampling)
        async with contextlib.aclosing(AsyncAnswerStream(stream)) as chunks:
            async for _ in chunks:
                pass
        return _value(stream, answer_format)

    def fork(self) -> Chat:
        """A second chat with the same turns, system text and settings, which goes its own way.

        An answer under way goes on here; the second chat has it as far as it has come.
        """
        return Chat(
            self._dialogue.engine,
            self.params,
            system=self.system,
            overflow=self.overflow,
            messages=self._dialogue.so_far(),
            left_out=self.left_out,
        )

    def undo(self) -> str:
        """Remove the last turn and return its question. Raises UsageError if there is none."""
        self._dialogue.settle()
        question, _ = self._dialogue.last_turn("no turn to take back")
        del self.messages[-2:]
        return question.content

    def clear(self) -> None:
        """Remove all turns. The system text stays."""
        self._dialogue.settle()
        self.messages.clear()


def _value(stream: AnswerStream, answer_format: AnswerFormat | None) -> Any:
    """What a stream that was read to its end answers: the text, or the value that it encodes."""
    result = stream.result()
    assert result is not None, "it has begun"
    return result.text if answer_format is None else answer_format.value(result)
