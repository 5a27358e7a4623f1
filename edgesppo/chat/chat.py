"""`Chat`: a conversation with a model, and the generation of its next answer."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from edgesppo.chat import structured
from edgesppo.chat.answer_stream import AnswerStream, AsyncAnswerStream
from edgesppo.chat.generation import Generation
from edgesppo.chat.history import History
from edgesppo.chat.template import Message
from edgesppo.errors import ChatInUse, UsageError
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence

    from edgesppo.chat.generation import Chunk, Result
    from edgesppo.engine.engine import Engine
    from edgesppo.sampling.params import SamplingParams

T = TypeVar("T")
# A question, the number of messages before it, and an answer to continue.
_Turn: TypeAlias = "tuple[Message, int, Message | None]"
OVERFLOWS = ("trim", "error")
# One part in so many of the context is kept free for the answer.
_ANSWER_SHARE = 4


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
        messages: The messages of an earlier conversation to continue: user and assistant in turn.
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
        overflow: str = "trim",
        messages: Sequence[Message] = (),
        left_out: int = 0,
    ) -> None:
        validate.choice("overflow", overflow, OVERFLOWS)
        self._engine = engine
        self._history = History(engine.model, messages, left_out=left_out)
        self.params = params
        self.system = system
        self.overflow = overflow
        self._last: Result | None = None
        self._open: weakref.ref[AnswerStream] | None = None  # the answer under way, if any
        self._guard = threading.Lock()  # held while an answer takes its turn

    @property
    def messages(self) -> list[Message]:
        """The history, a user's message and its answer in turn. The list may be edited."""
        return self._history.messages

    @messages.setter
    def messages(self, messages: list[Message]) -> None:
        self._history.messages = messages

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
        return self._last is not None

    @property
    def last(self) -> Result:
        """The latest answer: text, finish reason, usage and timings.

        While an answer is under way, or after its stream was left early, what was generated so
        far. Raises UsageError before the first answer.
        """
        under_way = self._under_way()
        if under_way is not None and not under_way.is_advancing:
            so_far = under_way.result()
            if so_far is not None:
                return so_far
        if self._last is None:
            raise UsageError("this chat has no answer yet; call ask() or stream() first")
        return self._last

    def stream(self, text: str, **sampling: Any) -> Generator[Chunk, None, None]:
        """Send a message and stream the answer.

        Nothing happens before the first `next()`. Leaving the loop early cancels the answer and
        keeps what was generated.

        Args:
            text: The user's message.
            **sampling: SamplingParams that override the chat's own for this answer, such as
                temperature=0. Also `schema`: a JSON Schema or a pydantic model class that the
                answer must follow.

        Yields:
            The answer in pieces. The last one has the finish reason, usage and timings.

        Raises:
            ContextOverflow: The prompt leaves no room for an answer.
            UsageError: The text or a sampling parameter is invalid.
            Closed: The model was closed.
            NativeError: llama.cpp failed.
        """
        return self._answer(lambda: self._next_turn(text), sampling)

    def regenerate(
        self, question: str | None = None, **sampling: Any
    ) -> Generator[Chunk, None, None]:
        """Answer the last question again, or `question` in its place.

        The old answer is replaced once the new one has begun. Otherwise like `stream`; also raises
        UsageError if there is no turn yet.
        """

        def turn() -> _Turn:
            asked, _ = self._last_turn("no turn to answer again")
            text = asked.content if question is None else question
            return Message("user", text), len(self.messages) - 2, None

        self.settle()
        turn()
        return self._answer(turn, sampling)

    def continue_(self, **sampling: Any) -> Generator[Chunk, None, None]:
        """Continue the last answer where it ended, after an interruption or a limit.

        The chunks and `last` hold only what is added; `messages[-1]` is the whole answer.
        Otherwise like `stream`; also raises UsageError if there is no answer yet.
        """

        def turn() -> _Turn:
            asked, partial = self._last_turn("no answer to continue")
            return Message("user", asked.content), len(self.messages) - 2, partial

        self.settle()
        turn()
        return self._answer(turn, sampling)

    def _last_turn(self, fault: str) -> tuple[Message, Message]:
        if not self.messages:
            raise UsageError(f"this chat has {fault}; ask something first")
        question, answer = self.messages[-2:]
        return question, answer

    def _answer(self, turn: Callable[[], _Turn], sampling: dict[str, Any]) -> AnswerStream:
        """Stream the answer to a turn, which is looked up once no other answer is under way."""
        before: AnswerStream | None = None
        where: _Turn | None = None

        def claim(stream: AnswerStream) -> None:
            nonlocal before
            with self._guard:
                before = self._left()
                self._open = weakref.ref(stream)

        def begin() -> Generation:
            nonlocal before, where
            if before is not None:
                before.close()
                before = None
            where = turn()
            return self._begin(where[0], where[1], dict(sampling), where[2])

        def keep(result: Result) -> None:
            assert where is not None
            self._keep(*where, result)

        return AnswerStream(claim, begin, keep)

    def astream(self, text: str, **sampling: Any) -> AsyncGenerator[Chunk, None]:
        """Send a message and stream the answer with `async for`; otherwise like `stream`.

        The model computes in a worker thread beside the event loop. Cancelling the task, or
        leaving the loop early, stops the model at once; `contextlib.aclosing` does so where the
        stream is still referred to.
        """
        return AsyncAnswerStream(self._answer(lambda: self._next_turn(text), sampling))

    def _next_turn(self, text: str) -> _Turn:
        return Message("user", text), len(self.messages), None

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._under_way() is not None

    def cancel(self) -> None:
        """Stop the answer that is under way, from any thread or task; keeps what was generated."""
        under_way = self._under_way()
        if under_way is not None:
            under_way.cancel()

    def settle(self) -> None:
        """End a stream that was left early, and add its answer to the history, as cancelled.

        Whatever changes or saves the chat does this first. Raises ChatInUse while another thread
        or task is reading an answer.
        """
        left = self._left()
        if left is not None:
            left.close()

    def _under_way(self) -> AnswerStream | None:
        stream = None if self._open is None else self._open()
        return None if stream is None or stream.over else stream

    def _left(self) -> AnswerStream | None:
        """The stream that was left early, if any. Raises ChatInUse if one is still being read."""
        stream = self._under_way()
        if stream is None or stream.cancelled or stream.is_left:
            return stream
        raise ChatInUse(
            "this chat is answering in another thread or task; wait for it, or call cancel()"
        )

    @overload
    def ask(self, text: str, *, schema: None = None, **sampling: Any) -> str: ...
    @overload
    def ask(self, text: str, *, schema: type[T], **sampling: Any) -> T: ...
    @overload
    def ask(self, text: str, *, schema: Any, **sampling: Any) -> Any: ...
    def ask(self, text: str, *, schema: Any = None, **sampling: Any) -> Any:
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
        if schema is None:
            return "".join(chunk.text for chunk in self.stream(text, **sampling))
        answer_format = structured.answer_format(schema)
        for _ in self.stream(text, schema=answer_format, **sampling):
            pass
        return answer_format.value(self.last)

    @overload
    async def aask(self, text: str, *, schema: None = None, **sampling: Any) -> str: ...
    @overload
    async def aask(self, text: str, *, schema: type[T], **sampling: Any) -> T: ...
    @overload
    async def aask(self, text: str, *, schema: Any, **sampling: Any) -> Any: ...
    async def aask(self, text: str, *, schema: Any = None, **sampling: Any) -> Any:
        """As `ask`, beside the event loop. Cancelling the task stops the model at once."""
        answer_format = None if schema is None else structured.answer_format(schema)
        pieces: list[str] = []
        async with contextlib.aclosing(
            self.astream(text, schema=answer_format, **sampling)
        ) as chunks:
            async for chunk in chunks:
                pieces.append(chunk.text)
        return "".join(pieces) if answer_format is None else answer_format.value(self.last)

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

    def _begin(
        self,
        question: Message,
        after: int,
        sampling: dict[str, Any],
        partial: Message | None = None,
    ) -> Generation:
        """Check everything, build the prompt and submit it. See `_answer` for the parameters."""
        validate.text("the message", question.content)
        schema = sampling.pop("schema", None)
        if schema is not None and partial is not None:
            raise UsageError("an answer cannot be continued with a schema; ask again instead")
        answer_format = None if schema is None else structured.answer_format(schema)
        params = self.params.replace(**sampling)
        if answer_format is not None:
            answer_format.check(params)
        ids, left_out = self._fit(question, after, self._ids_of(partial), params)
        grammar = None if answer_format is None else answer_format.grammar
        generation = Generation(self._engine, ids, params, left_out=left_out, grammar=grammar)
        self.left_out = left_out
        return generation

    def _ids_of(self, partial: Message | None) -> list[int]:
        """The token ids of an answer to continue; none if there is none."""
        if partial is None:
            return []
        if partial.ids is None:
            return self._engine.model.tokenize(partial.content)
        return [*partial.ids]

    def _keep(self, question: Message, after: int, partial: Message | None, result: Result) -> None:
        """Put the turn into the history, unless it was interrupted before its first token."""
        self._last = result
        if not result.text and (partial is not None or result.finish_reason == "cancelled"):
            return
        # Sampling can draw a control token, which must not be fed back as one.
        is_plain = not any(self._engine.model.is_control(id_) for id_ in result.ids)
        ids = result.ids if is_plain and result.ids else None
        answer = Message("assistant", result.text, ids, result.finish_reason)
        if partial is not None:
            answer = self._join(partial, answer)
        self.messages[after:] = [question, answer]

    def _join(self, first: Message, second: Message) -> Message:
        """One answer of two parts, joined as bytes, as a character may be split between them."""
        if first.ids is None or second.ids is None:
            return Message("assistant", first.content + second.content, None, second.finish_reason)
        ids = (*first.ids, *second.ids)
        text = self._engine.model.detokenize(ids).decode("utf-8", "replace")
        return Message("assistant", text, ids, second.finish_reason)

    def _fit(
        self, question: Message, after: int, partial: list[int], params: SamplingParams
    ) -> tuple[list[int], int]:
        """The prompt, and how many of the oldest turns it leaves out to make room for an answer."""
        engine, texts = self._engine, (self.system or "", question.content)
        fewest = sum(engine.model.fewest_tokens(text.strip()) for text in texts)
        if fewest >= engine.n_ctx:  # too long for certain: not worth tokenising
            raise engine.overflow(fewest, at_least=True)
        room = engine.n_ctx - min(params.max_tokens, engine.n_ctx // _ANSWER_SHARE) - len(partial)
        trims = self.overflow != "error"
        ids, left_out = self._history.fit(question, after, room, trims=trims)
        return [*ids, *partial], left_out
