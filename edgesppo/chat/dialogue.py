"""The inside of a chat: its history, and the answer under way. Private; for sessions and repl."""

from __future__ import annotations

from contextlib import suppress
from operator import is_
from typing import TYPE_CHECKING, Any, Protocol, get_args

from edgesppo.chat import structured
from edgesppo.chat.answer_stream import AnswerStream
from edgesppo.chat.choices import Overflow
from edgesppo.chat.current_answer import CurrentAnswer
from edgesppo.chat.generation import Generation
from edgesppo.chat.messages import Message
from edgesppo.chat.turn import Turn
from edgesppo.errors import ContextOverflow, UsageError
from edgesppo.sampling import options
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgesppo.chat.answer_engine import AnswerEngine
    from edgesppo.chat.history import History
    from edgesppo.chat.result import Result
    from edgesppo.sampling.params import SamplingParams


class Dialogue:
    """A chat's history and settings, and how its next answer comes about.

    Attributes:
        engine: What generates the answers.
        history: The messages and the system text.
        params: The sampling parameters; every answer can override them.
        overflow: What to do when the chat outgrows the context.
        current: The answer that is under way.
    """

    def __init__(
        self, engine: AnswerEngine, params: SamplingParams, history: History, overflow: Overflow
    ) -> None:
        validate.choice("overflow", overflow, get_args(Overflow))
        self.engine = engine
        self.history = history
        self.params = params
        self.overflow: Overflow = overflow
        self.current = CurrentAnswer()
        self._last: Result | None = None
        self._with_answer: Callable[[Result], list[Message]]  # the messages with the latest answer

    def settle(self) -> None:
        """End a stream that was left early, and add its answer to the history, as cancelled.

        Whatever changes or saves the chat does this first. Raises ChatInUse while another thread
        or task is reading an answer.
        """
        self.current.settle()

    def so_far(self) -> list[Message]:
        """The messages, and the answer under way as far as it has come, which goes on.

        Raises ChatInUse while another thread or task is reading it.
        """
        under_way = self.current.left()
        if under_way is not None and under_way.cancelled:
            under_way.close()
        result = None if under_way is None else under_way.result()
        return [*self.history.messages] if result is None else self._with_answer(result)

    def latest(self) -> Result | None:
        """The latest answer, as far as it has come; None before the first."""
        under_way = self.current.get()
        if under_way is not None and not under_way.is_advancing:
            so_far = under_way.result()
            if so_far is not None:
                return so_far
        return self._last

    def last_turn(self, fault: str) -> tuple[Message, Message]:
        """The last question and its answer. Raises UsageError if there is none."""
        messages = self.history.messages
        if not messages:
            raise UsageError(f"this chat has {fault}; ask something first")
        if len(messages) % 2:
            raise UsageError(
                "the last message of this chat has no answer yet: take it out of `messages`, and "
                "pass its text to ask()"
            )
        question, answer = messages[-2:]
        return question, answer

    def encode(self, more: Sequence[Message] = (), *, left_out: int = 0) -> list[int]:
        """The prompt for the history and `more` messages, without the oldest `left_out` turns.

        Returns token ids, ready for the model's answer. Raises UsageError for a message out of
        turn.
        """
        return self.history.encode(more, left_out=left_out)

    def history_ids(self) -> list[int]:
        """The token ids of the turns that the latest prompt did not leave out, as a prompt.

        It ends with an empty message: what comes before that begins the next prompt, too.
        """
        return self.encode([Message("user", "")], left_out=self.history.left_out)

    def n_cached(self) -> int | None:
        """The tokens of the next prompt that are in the KV cache; None if a server has that."""
        if self.engine.is_remote:
            return None
        try:
            ids, _ = self._prompt(self._next_turn(), self.params)
        except ContextOverflow:
            return 0
        return self.engine.count_cached(ids)

    def take_up(self) -> None:
        """Count turns that were left out as part of the prompt again, if they fit by now."""
        if self.history.left_out:
            with suppress(ContextOverflow):
                _, left_out = self._prompt(self._next_turn(), self.params)
                self.history.left_out = left_out

    def _next_turn(self) -> Turn:
        """The next turn, whose question is taken to be short."""
        return Turn(Message("user", ""), len(self.history.messages))

    def draft(self, text: str) -> tuple[int, int]:
        """The tokens of the prompt for a message, and how many of the oldest turns it leaves out.

        Raises ContextOverflow if it is too long for certain.
        """
        turn = Turn(Message("user", text), len(self.history.messages))
        ids, left_out = self._prompt(turn, self.params)
        return len(ids), left_out

    def can_continue(self) -> bool:
        """Whether the context has room for more of the last answer."""
        question, answer = self.last_turn("no answer to continue")
        turn = Turn(question, len(self.history.messages) - 2, answer)
        try:
            ids, _ = self._prompt(turn, self.params)
        except ContextOverflow:
            return False
        return len(ids) < self.engine.n_ctx

    def n_tokens(self) -> int:
        """The tokens that the system text and those turns take in the context."""
        history = self.history
        if len(history.messages) > 2 * history.left_out:
            return len(history.encode(left_out=history.left_out, answering=False))
        system = (history.system or "").strip()
        if not system:  # which a server need not be asked for
            return 0
        return len(self.engine.model.tokenize(system))

    def answer(
        self, turn: Callable[[], Turn], schema: Any, sampling: Mapping[str, Any]
    ) -> AnswerStream:
        """Stream the answer to a turn, which is looked up once no other answer is under way."""
        before: AnswerStream | None = None
        now: Turn | None = None
        history: list[Message] = []  # as it was at the beginning

        def claim(stream: AnswerStream) -> None:
            nonlocal before
            before = self.current.begin(stream)

        def begin() -> Generation:
            nonlocal before, now, history
            if before is not None:
                before.close()
                before = None
            now, history = turn(), [*self.history.messages]
            self._with_answer = with_answer
            return self._begin(now, schema, sampling)

        def with_answer(result: Result) -> list[Message]:
            assert now is not None
            messages = self.history.messages
            is_edited = len(history) != len(messages) or not all(map(is_, history, messages))
            added = [] if is_edited else now.messages(result, self.engine.model)
            return [*messages[: now.after], *added] if added else [*messages]

        def keep(result: Result) -> None:
            assert now is not None
            self._last = result
            self.history.messages[now.after :] = with_answer(result)[now.after :]

        return AnswerStream(claim, begin, keep)

    def _begin(self, turn: Turn, schema: Any, sampling: Mapping[str, Any]) -> Generation:
        """Check everything, build the prompt and queue it. See `answer` for the parameters."""
        validate.text("the message", turn.question.content)
        options.check_names(sampling, ("schema",))
        if schema is not None and turn.partial is not None:
            raise UsageError("an answer cannot be continued with a schema; ask again instead")
        answer_format = None if schema is None else structured.answer_format(schema)
        params = self.params.replace(**sampling)
        if answer_format is not None:
            answer_format.check(params)
        ids, left_out = self._prompt(turn, params)
        grammar = None if answer_format is None else answer_format.grammar
        generation = Generation(self.engine, ids, params, left_out=left_out, grammar=grammar)
        self.history.note(turn.question, left_out)
        return generation

    def _prompt(self, turn: Turn, params: SamplingParams) -> tuple[list[int], int]:
        """A turn's prompt, and how many of the oldest turns it leaves out."""
        trims = self.overflow != "error"
        return turn.prompt(self.history, self.engine, params, trims=trims)


class _Chat(Protocol):
    _dialogue: Dialogue


def dialogue(chat: _Chat) -> Dialogue:
    """What is inside a Chat, for the rooms that save and show it."""
    return chat._dialogue
