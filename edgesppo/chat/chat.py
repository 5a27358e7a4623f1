"""Owns `Chat`: a conversation's history, and how its next answer comes about.

Knows nothing of terminals or HTTP.
"""

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
# What is asked, how many messages stand before it, and an answer that is gone on with.
_Place: TypeAlias = "tuple[Message, int, Message | None]"
OVERFLOWS = ("trim", "error")
# The part of the context that is kept free for an answer.
_ANSWER_SHARE = 4


class Chat:
    """A conversation. What it holds is always a whole number of turns, each answered.

    An answer that was interrupted stays, as far as it came, and `last.finish_reason` says
    "cancelled". A turn that was interrupted before its first token, or failed, leaves the history
    as it was.

    When the chat outgrows the context, `overflow="trim"` leaves its oldest turns out of the
    prompt, never the system text and never a part of a turn; `last.left_out` says how many turns,
    and `messages` still has them all. `overflow="error"` raises ContextOverflow instead.
    `messages` and `left_out` (of an earlier `chat.left_out`) go on with a conversation.
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
        """The turns, each a user's message and its answer; the list may be edited."""
        return self._history.messages

    @messages.setter
    def messages(self, messages: list[Message]) -> None:
        self._history.messages = messages

    @property
    def system(self) -> str | None:
        """The text that stands before the first turn. UsageError for what is no text."""
        return self._history.system

    @system.setter
    def system(self, system: str | None) -> None:
        if system is not None:
            validate.text("system", system)
        self._history.system = system

    @property
    def left_out(self) -> int:
        """How many of the oldest turns the latest prompt left out."""
        return self._history.left_out

    @left_out.setter
    def left_out(self, turns: int) -> None:
        self._history.left_out = turns

    @property
    def answered(self) -> bool:
        """Whether there is a `last` answer, if only a part of one."""
        return self._last is not None

    @property
    def last(self) -> Result:
        """The latest answer: text, finish reason, usage, timings. UsageError before the first.

        Of an answer that is under way, or whose stream was left early, as far as it came.
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
        """Ask, and get the answer piece by piece.

        `sampling` overrides the chat's parameters for this answer (see SamplingParams); `schema`
        among it binds the answer to a JSON Schema or a pydantic model class, as in `ask`. Nothing
        happens before the first `next()`. Leaving the loop early cancels the answer and keeps
        what came. Raises ContextOverflow, UsageError, Closed or NativeError.
        """
        return self._answer(lambda: (Message("user", text), len(self.messages), None), sampling)

    def regenerate(
        self, question: str | None = None, **sampling: Any
    ) -> Generator[Chunk, None, None]:
        """Answer the last question anew, or another in its place.

        The old answer goes once the new one has begun. Raises what `stream` raises.
        """

        def place() -> _Place:
            asked, _ = self._last_turn("no turn to answer anew")
            text = asked.content if question is None else question
            return Message("user", text), len(self.messages) - 2, None

        self.settle()
        place()
        return self._answer(place, sampling)

    def continue_(self, **sampling: Any) -> Generator[Chunk, None, None]:
        """Go on with the last answer where it ended: it was interrupted, or cut at a limit.

        The chunks, and `last`, are what is added; `messages[-1]` is the whole answer. Raises what
        `stream` raises.
        """

        def place() -> _Place:
            asked, begun = self._last_turn("no answer to go on with")
            return Message("user", asked.content), len(self.messages) - 2, begun

        self.settle()
        place()
        return self._answer(place, sampling)

    def _last_turn(self, fault: str) -> tuple[Message, Message]:
        if not self.messages:
            raise UsageError(f"this chat has {fault}")
        asked, answer = self.messages[-2:]
        return asked, answer

    def _answer(self, place: Callable[[], _Place], sampling: dict[str, Any]) -> AnswerStream:
        """Answer a question in its place, which is asked for once the chat is free."""
        before: AnswerStream | None = None
        where: _Place | None = None

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
            where = place()
            return self._begin(where[0], where[1], dict(sampling), where[2])

        def keep(result: Result) -> None:
            assert where is not None
            self._keep(*where, result)

        return AnswerStream(claim, begin, keep)

    def astream(self, text: str, **sampling: Any) -> AsyncGenerator[Chunk, None]:
        """As `stream`, for `async for`. The model computes beside the event loop, on its threads.

        A cancelled task stops the model at once. So does a stream that is left early and no
        longer referred to; `contextlib.aclosing` says where it ends.
        """
        place = lambda: (Message("user", text), len(self.messages), None)  # noqa: E731
        return AsyncAnswerStream(self._answer(place, sampling))

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._under_way() is not None

    def cancel(self) -> None:
        """Stop the answer that is under way, from any thread or task; what came of it is kept."""
        under_way = self._under_way()
        if under_way is not None:
            under_way.cancel()

    def settle(self) -> None:
        """Let an answer whose stream was left early be a part of the history, as it is.

        Whatever changes or saves the chat does so first. Raises ChatInUse while another thread or
        task is reading an answer.
        """
        left = self._left()
        if left is not None:
            left.close()

    def _under_way(self) -> AnswerStream | None:
        stream = None if self._open is None else self._open()
        return None if stream is None or stream.over else stream

    def _left(self) -> AnswerStream | None:
        """The stream that has to end before anything else is done; ChatInUse if it is read."""
        stream = self._under_way()
        if stream is None or stream.cancelled or stream.is_left:
            return stream
        raise ChatInUse(
            "this chat is answering in another thread or task; wait for that, or call its cancel()"
        )

    @overload
    def ask(self, text: str, *, schema: None = None, **sampling: Any) -> str: ...
    @overload
    def ask(self, text: str, *, schema: type[T], **sampling: Any) -> T: ...
    @overload
    def ask(self, text: str, *, schema: Any, **sampling: Any) -> Any: ...
    def ask(self, text: str, *, schema: Any = None, **sampling: Any) -> Any:
        """Ask, and wait for the whole answer. Raises what `stream` raises.

        With a `schema`, a JSON Schema or a pydantic model class, the answer is bound to it, and
        what it says is returned: parsed JSON, or an instance. Raises IncompleteAnswer, which
        holds the text, when max_tokens or the context cut it.
        """
        if schema is None:
            return "".join(chunk.text for chunk in self.stream(text, **sampling))
        wanted = structured.wanted(schema)
        for _ in self.stream(text, schema=wanted, **sampling):
            pass
        return wanted.value(self.last)

    @overload
    async def aask(self, text: str, *, schema: None = None, **sampling: Any) -> str: ...
    @overload
    async def aask(self, text: str, *, schema: type[T], **sampling: Any) -> T: ...
    @overload
    async def aask(self, text: str, *, schema: Any, **sampling: Any) -> Any: ...
    async def aask(self, text: str, *, schema: Any = None, **sampling: Any) -> Any:
        """As `ask`, beside the event loop. A cancelled task stops the model at once."""
        wanted = None if schema is None else structured.wanted(schema)
        pieces: list[str] = []
        async with contextlib.aclosing(self.astream(text, schema=wanted, **sampling)) as chunks:
            async for chunk in chunks:
                pieces.append(chunk.text)
        return "".join(pieces) if wanted is None else wanted.value(self.last)

    def fork(self) -> Chat:
        """Another chat that goes on from here: the same turns, system text and settings."""
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
        """Take back the last turn; returns what had been asked."""
        self.settle()
        asked, _ = self._last_turn("no turn to take back")
        del self.messages[-2:]
        return asked.content

    def clear(self) -> None:
        """Forget every turn; the system text stays."""
        self.settle()
        self.messages.clear()

    def encode(self, more: Sequence[Message] = (), *, left_out: int = 0) -> list[int]:
        """The token ids of the history, but for its oldest turns, and `more` messages."""
        return self._history.encode(more, left_out=left_out)

    def history_ids(self) -> list[int]:
        """The token ids of the turns as they stand in the context."""
        return self.encode([Message("user", "")], left_out=self.left_out)

    def _begin(
        self, asked: Message, after: int, sampling: dict[str, Any], begun: Message | None = None
    ) -> Generation:
        validate.text("the message", asked.content)
        schema = sampling.pop("schema", None)
        if schema is not None and begun is not None:
            raise UsageError("an answer that was bound to a schema cannot go on; ask again")
        wanted = None if schema is None else structured.wanted(schema)
        params = self.params.replace(**sampling)
        if wanted is not None:
            wanted.check(params)
        ids, left_out = self._fit(asked, after, self._ids(begun), params)
        grammar = None if wanted is None else wanted.grammar
        generation = Generation(self._engine, ids, params, left_out=left_out, grammar=grammar)
        self.left_out = left_out
        return generation

    def _ids(self, begun: Message | None) -> list[int]:
        """What of the answer stands already."""
        if begun is None:
            return []
        return self._engine.model.tokenize(begun.content) if begun.ids is None else [*begun.ids]

    def _keep(self, asked: Message, after: int, begun: Message | None, result: Result) -> None:
        self._last = result
        if not result.text and (begun is not None or result.finish_reason == "cancelled"):
            return
        # A control token in the answer (sampling can draw any) is not fed back as one.
        plain = not any(self._engine.model.is_control(id_) for id_ in result.ids)
        ids = result.ids if plain and result.ids else None
        answer = Message("assistant", result.text, ids, result.finish_reason)
        if begun is not None:
            answer = self._joined(begun, answer)
        self.messages[after:] = [asked, answer]

    def _joined(self, begun: Message, more: Message) -> Message:
        """One answer of two parts. A character may have been cut in two: its bytes are joined."""
        if begun.ids is None or more.ids is None:
            return Message("assistant", begun.content + more.content, None, more.finish_reason)
        ids = (*begun.ids, *more.ids)
        text = self._engine.model.detokenize(ids).decode("utf-8", "replace")
        return Message("assistant", text, ids, more.finish_reason)

    def _fit(
        self, asked: Message, after: int, begun: list[int], params: SamplingParams
    ) -> tuple[list[int], int]:
        """The prompt, and how many of the oldest turns it leaves out to make room for an answer."""
        engine, texts = self._engine, (self.system or "", asked.content)
        fewest = sum(engine.model.fewest_tokens(text.strip()) for text in texts)
        if fewest >= engine.n_ctx:  # not even worth tokenising
            raise engine.overflow(fewest, at_least=True)
        room = engine.n_ctx - min(params.max_tokens, engine.n_ctx // _ANSWER_SHARE) - len(begun)
        trims = self.overflow != "error"
        ids, left_out = self._history.fit(asked, after, room, trims=trims)
        return [*ids, *begun], left_out
