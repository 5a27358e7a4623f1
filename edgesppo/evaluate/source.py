"""What a model is to be measured on, as it was given: a text or dialogues, read and checked.

text       a text, or a file that has it, UTF-8
dialogues  lists of messages, or a file of JSON Lines, one dialogue a line: a list of messages, or
           an object whose "messages" has it; each ends with an answer

Reading needs no model, so what is wrong is said before one is converted or loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgesppo.chat.messages import MessageLike, as_messages, split_system
from edgesppo.errors import UsageError
from edgesppo.system import validate
from edgesppo.system.text_input import read_text

if TYPE_CHECKING:
    from edgesppo.chat.messages import Message

SMALLEST_CONTEXT = 16  # tokens
DEFAULT_CHUNK = 512
FEWEST_CHUNKS = 2
_GIVEN = "the text"  # the origin of one that was given as such
_LONGEST_NAME = 1_000  # characters of a file's name
_MAX_TEXT = 400_000_000  # bytes
_MAX_INT = 2**31 - 1
# A text itself, or a file that has it.
Text: TypeAlias = str | Path
# Dialogues themselves, each a list of messages, or a file of JSON Lines.
Dialogues: TypeAlias = str | Path | Iterable[Iterable[MessageLike]]


@dataclass(frozen=True)
class Source:
    """A text, or dialogues where that is None, and how much of it to use.

    `origin` is what it was read from, `n_ctx` the tokens of a chunk of a text and the most of a
    dialogue, `chunks` the most chunks or dialogues.
    """

    origin: str
    text: str | None
    dialogues: tuple[list[Message], ...] = ()
    n_ctx: int | None = None
    chunks: int | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides what it is."""
        turns = [[(turn.role, turn.content) for turn in dialogue] for dialogue in self.dialogues]
        parts = (self.text, turns, self.n_ctx, self.chunks)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_source(
    text: Text | None = None,
    dialogues: Dialogues | None = None,
    *,
    n_ctx: int | None = None,
    chunks: int | None = None,
) -> Source:
    """Read a text or dialogues, of which one must be given. Raises UsageError."""
    if n_ctx is not None:
        n_ctx = validate.integer("n_ctx", n_ctx, SMALLEST_CONTEXT, _MAX_INT)
    if chunks is not None:
        chunks = validate.integer("chunks", chunks, 1, _MAX_INT)
    if (text is None) == (dialogues is None):
        raise UsageError("give either text (--text) or dialogues (--dialogues) to measure on")
    if text is not None:
        content, origin = _read_text(text)
        if not content.strip():
            raise UsageError(f"{origin} is empty, expected a text to measure on")
        if n_ctx is None or n_ctx <= DEFAULT_CHUNK:  # others a model may refuse for another reason
            _check_length(content, origin, n_ctx or DEFAULT_CHUNK)
        return Source(origin, content, n_ctx=n_ctx, chunks=chunks)
    assert dialogues is not None
    found, origin = _read_dialogues(dialogues)
    return Source(origin, None, tuple(found), n_ctx, chunks)


def read_optional_source(
    text: Text | None,
    dialogues: Dialogues | None,
    *,
    n_ctx: int | None = None,
    chunks: int | None = None,
) -> Source | None:
    """The same; None without both, where the model makes dialogues itself. Raises UsageError."""
    if text is not None or dialogues is not None:
        return read_source(text, dialogues, n_ctx=n_ctx, chunks=chunks)
    if n_ctx is not None or chunks is not None:
        raise UsageError(
            "n_ctx (--n-ctx) and chunks (--chunks) are for a text or dialogues; the number of the "
            "model's own dialogues is n_dialogues (--generate)"
        )
    return None


def too_short(origin: str, found: str, n_ctx: int) -> UsageError:
    """The error for a text that has too few tokens; `found` says how many."""
    return UsageError(
        f"{origin} has {found}, expected at least {FEWEST_CHUNKS * n_ctx:,} for chunks of "
        f"{n_ctx:,}: give a longer text, or shorter chunks with n_ctx (--n-ctx)"
    )


def names_a_file(text: object) -> bool:
    """Whether a text is too short to be one to measure on, and the name of a file that exists."""
    if not isinstance(text, str) or not text or len(text) > _LONGEST_NAME:
        return False
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _read_text(text: Text) -> tuple[str, str]:
    """The text, and what it was read from."""
    if isinstance(text, Path) or names_a_file(text):
        return read_text(str(text), _MAX_TEXT), str(text)
    validate.text("text", text)
    return text, _GIVEN


def _check_length(text: str, origin: str, n_ctx: int) -> None:
    """Raise UsageError for a text that is too short however it is split: no token is empty."""
    n_bytes = len(text.encode())
    if n_bytes + 1 < FEWEST_CHUNKS * n_ctx:
        is_name = origin == _GIVEN and "\n" not in text
        no_file = " (there is no file of that name)" if is_name else ""
        raise too_short(origin, f"at most {n_bytes + 1:,} tokens{no_file}", n_ctx)


def _read_dialogues(given: Dialogues) -> tuple[list[list[Message]], str]:
    """Dialogues that end with an answer, and what they were read from."""
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
    lines = read_text(str(path), _MAX_TEXT).split("\n")
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
