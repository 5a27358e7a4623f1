"""The samples that a model is measured on: chunks of a text, or dialogues in its own turns.

text       cut into chunks of n_ctx tokens, each begun with <bos> in place of its first token;
           the second half of a chunk is scored (llama-perplexity's way)
dialogues  every token is scored, those of answers apart
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.chat.template import encode
from edgesppo.errors import UsageError
from edgesppo.evaluate.source import DEFAULT_CHUNK, FEWEST_CHUNKS, SMALLEST_CONTEXT, too_short
from edgesppo.planning.memory_plan import trained_context
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.messages import Message
    from edgesppo.evaluate.source import Source
    from edgesppo.llama.model import Model


@dataclass(frozen=True)
class Sample:
    """One sequence of token ids, and which of them are scored.

    The tokens after position `first` are: `answers` says for each whether it is an answer's, and is
    None for a text.
    """

    ids: Sequence[int]
    first: int
    answers: tuple[bool, ...] | None = None

    @property
    def n_scored(self) -> int:
        """The number of tokens that are scored."""
        return len(self.ids) - 1 - self.first


@dataclass(frozen=True)
class Corpus:
    """The samples of one text or of many dialogues.

    `origin` is what it was read from, `left_over` how many tokens at the end of a text fill no
    chunk, `too_long` the numbers of the dialogues that do not fit into the context.
    """

    samples: tuple[Sample, ...]
    origin: str
    left_over: int = 0
    too_long: tuple[int, ...] = ()

    @property
    def note(self) -> str | None:
        """What to say of dialogues that are left out; None if there are none."""
        if not self.too_long:
            return None
        return (
            f"{len(self.too_long)} dialogues of {self.origin} do not fit into the context, and are "
            f"left out; the first is number {self.too_long[0]}"
        )

    @property
    def n_ctx(self) -> int:
        """The tokens of the longest sample, or the smallest context if that is more."""
        return max(SMALLEST_CONTEXT, *(len(sample.ids) for sample in self.samples))

    @property
    def n_tokens(self) -> int:
        """The tokens of all samples."""
        return sum(len(sample.ids) for sample in self.samples)

    @property
    def has_answers(self) -> bool:
        """Whether these are dialogues."""
        return self.samples[0].answers is not None


def corpus_of(model: Model, source: Source) -> Corpus:
    """The samples, tokenised by a model's vocabulary.

    Raises UsageError for a text that is too short, and dialogues of which none fits.
    """
    trained = trained_context(model.summary)
    if source.n_ctx is not None:
        validate.integer("n_ctx", source.n_ctx, SMALLEST_CONTEXT, trained)
    if source.text is not None:
        return _text_corpus(model, source, source.text, source.n_ctx or min(DEFAULT_CHUNK, trained))
    return _dialogue_corpus(model, source, source.n_ctx or trained)


def _text_corpus(model: Model, source: Source, text: str, n_ctx: int) -> Corpus:
    chunks = source.chunks
    needed = None if chunks is None else n_ctx * max(chunks, FEWEST_CHUNKS)
    ids = [model.bos, *model.tokenize(text, enough=needed)]
    if len(ids) < FEWEST_CHUNKS * n_ctx:
        raise too_short(source.origin, f"{len(ids):,} tokens", n_ctx)
    every = range(0, len(ids) - n_ctx + 1, n_ctx)
    samples = [Sample([model.bos, *ids[at + 1 : at + n_ctx]], n_ctx // 2) for at in every[:chunks]]
    is_all = chunks is None or len(every) < chunks
    return Corpus(tuple(samples), source.origin, len(ids) % n_ctx if is_all else 0)


def _dialogue_corpus(model: Model, source: Source, n_ctx: int) -> Corpus:
    """Dialogues in the model's own turns, without those that do not fit."""
    fitting: list[Sample] = []
    too_long: dict[int, int] = {}  # number -> tokens
    for number, messages in enumerate(source.dialogues, 1):
        sample = _dialogue(model, messages)
        if len(sample.ids) <= n_ctx:
            fitting.append(sample)
        else:
            too_long[number] = len(sample.ids)
        if len(fitting) == source.chunks:
            break
    if not fitting:
        raise UsageError(
            f"no dialogue of {source.origin} fits into the context of {n_ctx:,} tokens, the "
            f"shortest has {min(too_long.values()):,}: give shorter ones"
        )
    return Corpus(tuple(fitting), source.origin, too_long=tuple(too_long))


def _dialogue(model: Model, messages: Sequence[Message]) -> Sample:
    """One dialogue; its answers' tokens are their texts and the `<end_of_turn>` after them."""
    ids = encode(model, messages, answering=False)
    head = [model.start_of_turn, *model.answer_head]
    is_answer = [False] * len(ids)
    inside = False
    for at, token in enumerate(ids):
        is_answer[at] = inside
        if token == model.end_of_turn:
            inside = False
        elif ids[max(0, at + 1 - len(head)) : at + 1] == head:
            inside = True
    return Sample(ids, 0, tuple(is_answer[1:]))
