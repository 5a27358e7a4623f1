"""One turn of a chat: from a question to the prompt, and from the answer to the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.chat import template
from edgesppo.chat.messages import Message
from edgesppo.errors import Closed

if TYPE_CHECKING:
    from edgesppo.chat.answer_engine import AnswerEngine, AnswerModel
    from edgesppo.chat.history import History
    from edgesppo.chat.result import Result
    from edgesppo.sampling.params import SamplingParams

# One part in so many of the context is kept free for the answer.
_ANSWER_SHARE = 4


@dataclass(frozen=True)
class Turn:
    """A question, the number of messages before it, and an answer to continue, if any."""

    question: Message
    after: int
    partial: Message | None = None

    def prompt(
        self, history: History, engine: AnswerEngine, params: SamplingParams, *, trims: bool
    ) -> tuple[list[int], int]:
        """The token ids to answer, and how many of the oldest turns they leave out.

        With `trims`, turns are left out to make room for an answer. Raises ContextOverflow for a
        question that is too long in any case.
        """
        model, partial = engine.model, self._partial_ids(engine.model)
        texts = (history.system or "", self.question.content)
        fewest = template.fewest_tokens(model, texts)
        if fewest >= engine.n_ctx:  # too long for certain: not worth tokenising
            raise engine.overflow(fewest, at_least=True)
        room = engine.n_ctx - min(params.max_tokens, engine.n_ctx // _ANSWER_SHARE) - len(partial)
        ids, left_out = history.fit(self.question, self.after, room, trims=trims)
        return [*ids, *partial], left_out

    def messages(self, result: Result, model: AnswerModel) -> list[Message]:
        """The question and its answer; none if it was interrupted before its first token."""
        partial = self.partial
        if not result.text and (partial is not None or result.finish_reason == "cancelled"):
            return []
        # Sampling can draw a control token, which must not be fed back as one.
        try:
            is_plain = not any(model.is_control(id_) for id_ in result.ids)
        except Closed:  # the text alone is enough
            is_plain = False
        ids = result.ids if is_plain and result.ids else None
        answer = Message("assistant", result.text, ids, result.finish_reason)
        return [self.question, answer if partial is None else _joined(partial, answer, model)]

    def _partial_ids(self, model: AnswerModel) -> list[int]:
        """The token ids of the answer to continue; none if there is none."""
        if self.partial is None:
            return []
        if self.partial.ids is None:
            return model.tokenize(self.partial.content)
        return [*self.partial.ids]


def _joined(first: Message, second: Message, model: AnswerModel) -> Message:
    """One answer of two parts, joined as bytes, as a character may be split between them."""
    if first.ids is None or second.ids is None:
        return Message("assistant", first.content + second.content, None, second.finish_reason)
    ids = (*first.ids, *second.ids)
    text = model.detokenize(ids).decode("utf-8", "replace")
    return Message("assistant", text, ids, second.finish_reason)
