"""`Chat`: a conversation with a model, and the generation of its next answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from operator import is_
from typing import Any, TypeVar, get_args, overload

from typing_extensions import Unpack

from edgesppo.chat import structured
from edgesppo.chat.answer_stream import AnswerStream, AsyncAnswerStream
from edgesppo.chat.choices import Overflow
from edgesppo.chat.current_answer import CurrentAnswer
from edgesppo.chat.generation import Chunk, Generation, Result
from edgesppo.chat.history import History
from edgesppo.chat.messages import Message, MessageLike, MessageList, shortened
from edgesppo.chat.structured import AnswerFormat, JsonSchema, PydanticClass, Schema
from edgesppo.chat.turn import Turn
from edgesppo.engine.engine import Engine
from edgesppo.errors import UsageError
from edgesppo.sampling import options
from edgesppo.sampling.options import SamplingOptions
from edgesppo.sampling.params import SamplingParams
from edgesppo.system import validate

T = TypeVar("T", bound="PydanticClass")
# For the rooms above, which save and show chats; not for programs.
_OURS = ("encode", "history_ids", "settle")


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
        engine: Engine,
        params: SamplingParams,
        *,
        system: str | None = None,
        overflow: Overflow = "trim",
        messages: Iterable[MessageLike] = (),
        left_out: int = 0,
    ) -> None:
        validate.choice("overflow", overflow, get_args(Overflow))
        self._engine = engine
        self._history = History(engine.model, messages, left_out=left_out)
        self.params = params
        self.system = system
        self.overflow = overflow
        self._last: Result | None = None
        self._current = CurrentAnswer()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _OURS]

    def __repr__(self) -> str:
        n = len(self.messages) // 2
        turns = "no turn yet" if n == 0 else "1 turn" if n == 1 else f"{n:,} turns"
        last = f", the last answer {shortened(self.messages[-1].content)}" if n else ""
        return f"<Chat with {self._engine.name}, {turns}{last}>"

    @property
    def messages(self) -> MessageList:
        """The history, a user's message and its answer in turn.

        The list may be edited, with Messages or with dicts such as {"role": "user", "content":
        "Hi"}; `to_dicts()` has it as dicts. A turn is added when its answer ends; until then, also
        if its stream was left and is still referred to, `last` has what was generated. If the list
        was edited meanwhile, the turn is not added.
        """
        return self._history.messages

    @messages.setter
    def messages(self, messages: Iterable[MessageLike]) -> None:
        new = MessageList(messages)
        self.settle()
        self._history.messages = new

    def to_dicts(self) -> list[dict[str, str]]:
        """The system text, if any, and the history as dicts, which `LoadedModel.chat` takes again.

        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
        """
        first = [] if self.system is None else [Message("system", self.system)]
        return [message.to_dict() for message in (*first, *self.messages)]

    @property
    def system(self) -> str | None:
        """The system text, or None. Setting it to anything else raises UsageError."""
        return self._history.system

    @system.setter
    def system(self, system: str | None) -> None:
        if system is not None:
            validate.text("system", system)
        self._history.system = system

    @property
    def left_out(self) -> int:
        """The number of oldest turns that the latest prompt left out."""
        return self._history.left_out

    @left_out.setter
    def left_out(self, turns: int) -> None:
        self._history.left_out = turns

    @property
    def answered(self) -> bool:
        """Whether there is a `last` answer, complete or not."""
        return self._latest() is not None

    @property
    def last(self) -> Result:
        """The latest answer: text, finish reason, usage and timings.

        While an answer is under way, or after its stream was left early, what was generated so
        far. Raises UsageError before the first answer.
        """
        latest = self._latest()
        if latest is None:
            raise UsageError("this chat has no answer yet; call ask() or stream() first")
        return latest

    def _latest(self) -> Result | None:
        under_way = self._current.get()
        if under_way is not None and not under_way.is_advancing:
            so_far = under_way.result()
            if so_far is not None:
                return so_far
        return self._last

    def stream(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Generator[Chunk, None, None]:
        """Send a message and stream the answer.

        Nothing happens before the first `next()`. Leaving the loop early cancels the answer and
        keeps what was generated; so does another question from the same thread or task.

        Args:
            text: The user's message.
            schema: A JSON Schema or a pydantic model class that the answer must follow.
            **sampling: SamplingParams that override the chat's own for this answer, such as
                temperature=0.

        Yields:
            The answer in pieces. The last one has the finish reason, usage and timings.

        Raises:
            ContextOverflow: The prompt leaves no room for an answer.
            UsageError: The text or a sampling parameter is invalid.
            Closed: The model was closed.
            NativeError: llama.cpp failed.
        """
        return self._answer(lambda: self._next_turn(text), schema, sampling)

    def regenerate(
        self,
        question: str | None = None,
        *,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Generator[Chunk, None, None]:
        """Answer the last question again, or `question` in its place.

        The old answer is replaced once the new one has begun. Otherwise like `stream`; also raises
        UsageError if there is no turn yet.
        """

        def turn() -> Turn:
            asked, _ = self._last_turn("no turn to answer again")
            text = asked.content if question is None else question
            return Turn(Message("user", text), len(self.messages) - 2)

        self.settle()
        turn()
        return self._answer(turn, schema, sampling)

    def continue_(
        self, *, schema: None = None, **sampling: Unpack[SamplingOptions]
    ) -> Generator[Chunk, None, None]:
        """Continue the last answer where it ended, after an interruption or a limit.

        The chunks and `last` hold only what is added; `messages[-1]` is the whole answer.
        Otherwise like `stream`; also raises UsageError if there is no answer yet, and for a
        schema, which cannot be taken up in the middle of an answer.
        """

        def turn() -> Turn:
            asked, partial = self._last_turn("no answer to continue")
            return Turn(Message("user", asked.content), len(self.messages) - 2, partial)

        self.settle()
        turn()
        return self._answer(turn, schema, sampling)

    def _last_turn(self, fault: str) -> tuple[Message, Message]:
        if not self.messages:
            raise UsageError(f"this chat has {fault}; ask something first")
        if len(self.messages) % 2:
            raise UsageError(
                "the last message of this chat has no answer yet: take it out of `messages`, and "
                "pass its text to ask()"
            )
        question, answer = self.messages[-2:]
        return question, answer

    def _answer(
        self, turn: Callable[[], Turn], schema: Any, sampling: Mapping[str, Any]
    ) -> AnswerStream:
        """Stream the answer to a turn, which is looked up once no other answer is under way."""
        before: AnswerStream | None = None
        now: Turn | None = None
        history: list[Message] = []  # as it was at the beginning

        def claim(stream: AnswerStream) -> None:
            nonlocal before
            before = self._current.begin(stream)

        def begin() -> Generation:
            nonlocal before, now, history
            if before is not None:
                before.close()
                before = None
            now, history = turn(), [*self.messages]
            return self._begin(now, schema, sampling)

        def keep(result: Result) -> None:
            assert now is not None
            self._last = result
            if len(history) == len(self.messages) and all(map(is_, history, self.messages)):
                added = now.messages(result, self._engine.model)
                if added:
                    self.messages[now.after :] = added

        return AnswerStream(claim, begin, keep)

    def astream(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> AsyncGenerator[Chunk, None]:
        """Send a message and stream the answer with `async for`; otherwise like `stream`.

        The model computes in a worker thread beside the event loop. Cancelling the task, or
        leaving the loop early, stops the model at once; `contextlib.aclosing` does so where the
        stream is still referred to.
        """
        return AsyncAnswerStream(self._answer(lambda: self._next_turn(text), schema, sampling))

    def _next_turn(self, text: str) -> Turn:
        return Turn(Message("user", text), len(self.messages))

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._current.get() is not None

    def cancel(self) -> None:
        """Stop the answer that is under way, from any thread or task; keeps what was generated."""
        self._current.cancel()

    def settle(self) -> None:
        """End a stream that was left early, and add its answer to the history, as cancelled.

        Whatever changes or saves the chat does this first. Raises ChatInUse while another thread
        or task is reading an answer.
        """
        self._current.settle()

    @overload
    def ask(
        self, text: str, *, schema: None = None, **sampling: Unpack[SamplingOptions]
    ) -> str: ...
    @overload
    def ask(self, text: str, *, schema: type[T], **sampling: Unpack[SamplingOptions]) -> T: ...
    @overload
    def ask(self, text: str, *, schema: JsonSchema, **sampling: Unpack[SamplingOptions]) -> Any: ...
    def ask(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Any:
        """Send a message and wait for the whole answer.

        Args:
            text: The user's message.
            schema: A JSON Schema (as a dict or bool), a pydantic model class, or "json_object".
                The answer is constrained to it.
            **sampling: SamplingParams that override the chat's own for this answer.

        Returns:
            The text of the answer. With a schema, its value: parsed JSON, or an instance of the
            pydantic class.

        Raises:
            IncompleteAnswer: `max_tokens` or the context ended the answer before its JSON was
                complete; the error holds the text.
            EdgesppoError: What `stream` raises.
        """
        answer_format = None if schema is None else structured.answer_format(schema)
        chunks = self._answer(lambda: self._next_turn(text), answer_format, sampling)
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
        self, text: str, *, schema: JsonSchema, **sampling: Unpack[SamplingOptions]
    ) -> Any: ...
    async def aask(
        self, text: str, *, schema: Schema | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Any:
        """As `ask`, beside the event loop. Cancelling the task stops the model at once."""
        answer_format = None if schema is None else structured.answer_format(schema)
        stream = self._answer(lambda: self._next_turn(text), answer_format, sampling)
        async with contextlib.aclosing(AsyncAnswerStream(stream)) as chunks:
            async for _ in chunks:
                pass
        return _value(stream, answer_format)

    def fork(self) -> Chat:
        """A second chat with the same turns, system text and settings, which goes its own way."""
        self.settle()
        return Chat(
            self._engine,
            self.params,
            system=self.system,
            overflow=self.overflow,
            messages=self.messages,
            left_out=self.left_out,
        )

    def undo(self) -> str:
        """Remove the last turn and return its question. Raises UsageError if there is none."""
        self.settle()
        question, _ = self._last_turn("no turn to take back")
        del self.messages[-2:]
        return question.content

    def clear(self) -> None:
        """Remove all turns. The system text stays."""
        self.settle()
        self.messages.clear()

    def encode(self, more: Sequence[Message] = (), *, left_out: int = 0) -> list[int]:
        """The prompt for the history and `more` messages, without the oldest `left_out` turns.

        Returns token ids, ready for the model's answer. Raises UsageError for a message out of
        turn.
        """
        return self._history.encode(more, left_out=left_out)

    def history_ids(self) -> list[int]:
        """The token ids of the turns that the latest prompt did not leave out."""
        return self.encode([Message("user", "")], left_out=self.left_out)

    def _begin(self, turn: Turn, schema: Any, sampling: Mapping[str, Any]) -> Generation:
        """Check everything, build the prompt and submit it. See `_answer` for the parameters."""
        validate.text("the message", turn.question.content)
        options.check_names(sampling, ("schema",))
        if schema is not None and turn.partial is not None:
            raise UsageError("an answer cannot be continued with a schema; ask again instead")
        answer_format = None if schema is None else structured.answer_format(schema)
        params = self.params.replace(**sampling)
        if answer_format is not None:
            answer_format.check(params)
        trims = self.overflow != "error"
        ids, left_out = turn.prompt(self._history, self._engine, params, trims=trims)
        grammar = None if answer_format is None else answer_format.grammar
        generation = Generation(self._engine, ids, params, left_out=left_out, grammar=grammar)
        self.left_out = left_out
        return generation


def _value(stream: AnswerStream, answer_format: AnswerFormat | None) -> Any:
    """What a stream that was read to its end answers: the text, or the value that it encodes."""
    result = stream.result()
    assert result is not None, "it has begun"
    return result.text if answer_format is None else answer_format.value(result)
