"""The exceptions that edgesppo raises on purpose. This module imports nothing.

    EdgesppoError                 the base of them all; its text is meant for people
    ├── UsageError                an invalid parameter or argument (also a ValueError)
    │   └── BadOverride           a --tensor-type override that is invalid or has no effect
    ├── ModelNotFound             no model of that name, and no such file or folder
    ├── BadModelFile              a file that is damaged, not a Gemma-2 model, or not a GGUF
    │   └── ModelUnreadable       the system could not read it; it may well be sound
    ├── BadCheckpoint             a checkpoint folder that cannot be converted
    │   ├── SourceUnreadable      the system could not read it; it may well be sound
    │   └── UnsupportedCheckpoint a sound checkpoint of a kind that cannot be converted
    ├── BadChat                   a saved chat is damaged or of an unknown version
    ├── ChatNotFound              no saved chat of that name
    ├── ChatInUse                 another process has the saved chat open
    ├── BadLock                   models.lock is invalid
    ├── DownloadError             the hub refused, or the connection to it failed
    ├── OutputError               the output could not be written
    ├── BuildError                llama.cpp cannot be compiled here as things are
    ├── ContextOverflow           the prompt has more tokens than the context holds
    ├── IncompleteAnswer          a structured answer was cut off before it was complete
    ├── Cancelled                 the caller asked to stop
    ├── Closed                    the model or the chat has been closed
    └── NativeError               llama.cpp reported a failure
        └── OutOfMemory           the system did not provide the memory that was needed

A message names what was found, what was expected, and what to do next, on one line.
"""

from __future__ import annotations


class _Kind(type):
    """Leaves what every exception has out of dir() and help() of the classes: they say enough."""

    def __dir__(cls) -> list[str]:
        own = {name for kind in cls.__mro__ if type(kind) is _Kind for name in vars(kind)}
        return sorted(name for name in own if name == "__init__" or not name.startswith("_"))


class EdgesppoError(Exception, metaclass=_Kind):
    """Base of every error that edgesppo raises on purpose."""


class UsageError(EdgesppoError, ValueError):
    """A parameter or an argument is invalid."""


class BadOverride(UsageError):
    """A tensor type override is invalid, or matches no tensor that it could change."""


class ModelNotFound(EdgesppoError):
    """There is no model of that name, and no such file or folder."""


class BadModelFile(EdgesppoError):
    """A GGUF file is damaged, of another architecture, or not a GGUF file at all."""


class ModelUnreadable(BadModelFile):
    """The system failed to read a GGUF file, which may well be sound."""


class BadCheckpoint(EdgesppoError):
    """A checkpoint folder is incomplete, damaged or inconsistent."""


class SourceUnreadable(BadCheckpoint):
    """The system failed to read a checkpoint; what was read of it before that is sound."""


class UnsupportedCheckpoint(BadCheckpoint):
    """A checkpoint is sound, but of a kind that edgesppo cannot convert."""


class BadChat(EdgesppoError):
    """A saved chat is damaged, or was saved in a version that this edgesppo cannot read."""


class ChatNotFound(EdgesppoError):
    """There is no saved chat of that name."""


class ChatInUse(EdgesppoError):
    """The chat is answering in another thread or task, or another process has it open."""


class BadLock(EdgesppoError):
    """A models.lock file is damaged or has an invalid value."""


class DownloadError(EdgesppoError):
    """The hub refused a request, or the connection to it failed.

    `status` is the HTTP status of the refusal, None where the hub did not answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class OutputError(EdgesppoError):
    """The output could not be written; no incomplete file is left under its name."""


class BuildError(EdgesppoError):
    """llama.cpp cannot be compiled here as things are."""


class ContextOverflow(EdgesppoError):
    """A prompt does not fit into the context.

    `needed` and `available` are numbers of tokens: what the prompt and one token of an answer
    take, and what the context holds. With `at_least`, `needed` is only a lower bound: the prompt
    was too long to be worth counting.
    """

    def __init__(
        self, message: str, *, needed: int, available: int, at_least: bool = False
    ) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available
        self.at_least = at_least

    @classmethod
    def of_prompt(
        cls, n_tokens: int, n_ctx: int, n_ctx_train: int, *, at_least: bool = False
    ) -> ContextOverflow:
        """The error for a prompt of `n_tokens` that leaves no room for an answer.

        `at_least` says that counting stopped there, so the prompt may be longer still, and by how
        much to shorten it is not known.
        """
        larger = ", or use a larger n_ctx (--n-ctx)" if n_ctx < n_ctx_train else ""
        count = f"at least {n_tokens:,}" if at_least else f"{n_tokens:,}"
        cut = f"to fewer than {n_ctx:,}" if at_least else f"by {n_tokens - n_ctx + 1:,} or more"
        return cls(
            f"the prompt has {count} tokens, but the context holds {n_ctx:,} and needs room for "
            f"an answer: shorten it {cut}{larger}",
            needed=n_tokens + 1,
            available=n_ctx,
            at_least=at_least,
        )


class IncompleteAnswer(EdgesppoError):
    """A structured answer was cut off before it was a complete value.

    `text` is the answer so far; `finish_reason` says what cut it off: "length" or "cancelled".
    """

    def __init__(self, message: str, *, text: str, finish_reason: str) -> None:
        super().__init__(message)
        self.text = text
        self.finish_reason = finish_reason


class Cancelled(EdgesppoError):
    """The caller asked to stop, and the work was not finished."""


class Closed(EdgesppoError):
    """The model or the chat has been closed and cannot be used any more."""


class NativeError(EdgesppoError):
    """llama.cpp reported a failure."""


class OutOfMemory(NativeError):
    """The system did not provide the memory that llama.cpp needs."""
