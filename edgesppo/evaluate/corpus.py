"""What a model is measured on: chunks of a text, or dialogues in the model's own turns.

text       cut into chunks of n_ctx tokens, each begun with <bos> in place of its first token;
           the second half of a chunk is scored (llama-perplexity's way)
dialogues  a file of JSON Lines, one dialogue a line: a list of messages, or an object whose
           "messages" has it; every token is scored, those of answers apart
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgesppo.chat.messages import MessageLike, as_messages, split_system
from edgesppo.chat.template import encode
from edgesppo.errors import UsageError
from edgesppo.planning.memory_plan import trained_context
from edgesppo.system import validate
from edgesppo.system.text_input import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.messages import Message
    from edgesppo.llama.model import Model

DEFAULT_CHUNK = 512
_FEWEST_CHUNKS = 2
_SMALLEST = 16  # tokens of a context
_GIVEN = "the text"  # the origin of one that was given as such
_LONGEST_NAME = 1_000  # characters of a file's name
MAX_TEXT = 400_000_000  # bytes
# A text itself, or a file that has it.
Text: TypeAlias = str | Path
# Dialogues themselves, each a list of messages, or a file of JSON Lines.
Dialogues: TypeAlias = str | Path | Iterable[Iterable[MessageLike]]


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
        return max(_SMALLEST, *(len(sample.ids) for sample in self.samples))

    @property
    def n_tokens(self) -> int:
        """The tokens of all samples."""
        return sum(len(sample.ids) for sample in self.samples)

    @property
    def has_answers(self) -> bool:
        """Whether these are dialogues."""
        return self.samples[0].answers is not None


def read_corpus(
    model: Model,
    text: Text | None,
    dialogues: Dialogues | None,
    *,
    n_ctx: int | None = None,
    chunks: int | None = None,
) -> Corpus:
    """Read and tokenise a text or dialogues, of which one must be given. Raises UsageError.

    `chunks` is how many chunks or dialogues to take at most. `n_ctx` is the length of a chunk.
    """
    if (text is None) == (dialogues is None):
        raise UsageError("give either text (--text) or dialogues (--dialogues) to measure on")
    if text is not None:
        if isinstance(text, Path) or names_a_file(text):
            content, origin = read_text(str(text), MAX_TEXT), str(text)
        else:
            validate.text("text", text)
            content, origin = text, _GIVEN
        length = n_ctx or min(DEFAULT_CHUNK, trained_context(model.summary))
        return text_corpus(model, content, origin, length, chunks)
    assert dialogues is not None
    found, origin = read_dialogues(dialogues)
    return dialogue_corpus(model, found[:chunks], origin, n_ctx)


def names_a_file(text: object) -> bool:
    """Whether a text is too short to be one to measure on, and the name of a file that exists."""
    if not isinstance(text, str) or not text or len(text) > _LONGEST_NAME:
        return False
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def text_corpus(model: Model, text: str, origin: str, n_ctx: int, chunks: int | None) -> Corpus:
    """The chunks of a text. Raises UsageError for one that is too short."""
    if not text.strip():
        raise UsageError(f"{origin} is empty, expected a text to measure on")
    needed = None if chunks is None else n_ctx * max(chunks, _FEWEST_CHUNKS)
    ids = [model.bos, *model.tokenize(text, enough=needed)]
    if len(ids) < _FEWEST_CHUNKS * n_ctx:
        is_name = origin == _GIVEN and "\n" not in text
        no_file = " (there is no file of that name)" if is_name else ""
        raise UsageError(
            f"{origin} has {len(ids):,} tokens{no_file}, expected at least "
            f"{_FEWEST_CHUNKS * n_ctx:,} for chunks of {n_ctx:,}: give a longer text, or shorter "
            "chunks with n_ctx (--n-ctx)"
        )
    starts = range(0, len(ids) - n_ctx + 1, n_ctx)[:chunks]
    samples = [Sample([model.bos, *ids[at + 1 : at + n_ctx]], n_ctx // 2) for at in starts]
    left_over = 0 if chunks is not None else len(ids) % n_ctx
    return Corpus(tuple(samples), origin, left_over)


def dialogue_corpus(
    model: Model,
    dialogues: Sequence[Sequence[Message]],
    origin: str,
    n_ctx: int | None = None,
) -> Corpus:
    """Dialogues in the model's own turns, without those that do not fit.

    Raises UsageError if none fits.
    """
    most = n_ctx or trained_context(model.summary)
    samples = [_dialogue(model, messages) for messages in dialogues]
    fitting = [sample for sample in samples if len(sample.ids) <= most]
    if not fitting:
        shortest = min(len(sample.ids) for sample in samples)
        raise UsageError(
            f"no dialogue of {origin} fits into the context of {most:,} tokens, the shortest has "
            f"{shortest:,}: give shorter ones"
        )
    too_long = [n for n, sample in enumerate(samples, 1) if len(sample.ids) > most]
    return Corpus(tuple(fitting), origin, too_long=tuple(too_long))


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


def read_dialogues(given: Dialogues) -> tuple[list[list[Message]], str]:
    """Dialogues that end with an answer, and what they were read from. Raises UsageError."""
    if isinstance(given, str | Path):
        origin, found = str(given), _read_lines(Path(given))
    elif isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise validate.invalid_value("dialogues", given, "a file, or a list of lists of messages")
    else:
        origin = "the list of dialogues"
        found = [(f"dialogue {n}", _messages(dialogue)) for n, dialogue in enumerate(given, 1)]
    if not found:
        raise UsageError(f"{origin} is empty, expected dialogues: lists of messages")
    return [_checked(where, messages) for where, messages in found], origin


def _read_lines(path: Path) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    lines = read_text(str(path), MAX_TEXT).split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}: line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(
                    f"{where} is not JSON ({error}), expected one dialogue: a list of messages"
                ) from None
            found.append((where, _messages(value)))
    return found


def _messages(dialogue: Any) -> Any:
    return dialogue.get("messages") if isinstance(dialogue, Mapping) else dialogue


def _checked(where: str, messages: Any) -> list[Message]:
    """The messages, the system's text included, which end with an answer."""
    if not isinstance(messages, list | tuple):
        raise UsageError(
            f"{where} has no messages, expected a list of them, or an object whose key "
            "'messages' has it"
        )
    try:
        _, turns = split_system(messages)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    if not turns or turns[-1].role != "assistant":
        raise UsageError(f"{where} does not end with an assistant's message, expected an answer")
    return as_messages(messages)
