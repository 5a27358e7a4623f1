"""Owns every exception that edgesppo raises on purpose. Imports nothing.

    EdgesppoError                 anything we raise on purpose; its text is meant for people
    ├── UsageError                a parameter or an argument that makes no sense (also ValueError)
    │   └── BadOverride           a tensor type was asked for in a way that means or decides nothing
    ├── ModelNotFound             no such name, file or folder
    ├── BadModelFile              a GGUF that is damaged, foreign, or not a GGUF
    ├── BadCheckpoint             a checkpoint folder that cannot be converted
    │   ├── SourceUnreadable      the system could not read it; nothing is known against it
    │   └── UnsupportedCheckpoint a sound checkpoint of a kind we do not convert
    ├── BadChat                   a saved chat is damaged
    ├── ChatNotFound              no saved chat of that name
    ├── ChatInUse                 another process has the saved chat open
    ├── BadLock                   models.lock does not say what it should
    ├── DownloadError             the hub, or the way to it, did not give what was asked for
    ├── OutputError               the output could not be written
    ├── ContextOverflow           more tokens than the context holds
    ├── IncompleteAnswer          an answer was cut before it was the value that was asked for
    ├── Cancelled                 the caller asked to stop
    ├── Closed                    the model or the chat was closed before
    └── NativeError               llama.cpp reported a failure
        └── OutOfMemory           llama.cpp could not get the memory it asked for

A message names what was found, what was expected, and what to do next, on one line.
"""

from __future__ import annotations


class EdgesppoError(Exception):
    """Base of every error that edgesppo raises on purpose."""


class UsageError(EdgesppoError, ValueError):
    """A parameter or an argument makes no sense."""


class BadOverride(UsageError):
    """A tensor type was asked for in a way that means nothing, or decides nothing."""


class ModelNotFound(EdgesppoError):
    """No model of that name, file or folder."""


class BadModelFile(EdgesppoError):
    """A GGUF file is damaged, of a foreign architecture, or no GGUF at all."""


class BadCheckpoint(EdgesppoError):
    """A checkpoint folder is incomplete, damaged or inconsistent."""


class SourceUnreadable(BadCheckpoint):
    """The system failed to read a checkpoint; what has been read of it before is sound."""


class UnsupportedCheckpoint(BadCheckpoint):
    """A checkpoint is sound, but of a kind that is not converted here."""


class BadChat(EdgesppoError):
    """A saved chat is damaged or of a version that is not read here."""


class ChatNotFound(EdgesppoError):
    """No saved chat of that name."""


class ChatInUse(EdgesppoError):
    """Another process has the saved chat open."""


class BadLock(EdgesppoError):
    """models.lock does not say what it should."""


class DownloadError(EdgesppoError):
    """The hub, or the way to it, did not give what was asked for.

    `status` is the hub's, where it refused.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class OutputError(EdgesppoError):
    """The output could not be written; nothing half-written stands under its name."""


class ContextOverflow(EdgesppoError):
    """A prompt needs more tokens than the context holds."""

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available

    @classmethod
    def of_prompt(
        cls, n_tokens: int, n_ctx: int, n_ctx_train: int, *, at_least: bool = False
    ) -> ContextOverflow:
        """For a prompt that leaves no room for an answer; `at_least` where nobody counted on."""
        larger = ", or use a larger n_ctx (--n-ctx)" if n_ctx < n_ctx_train else ""
        count = f"at least {n_tokens:,}" if at_least else f"{n_tokens:,}"
        return cls(
            f"the prompt has {count} tokens, but the context holds {n_ctx:,} and needs room for "
            f"an answer: shorten it by {n_tokens - n_ctx + 1:,} or more{larger}",
            needed=n_tokens + 1,
            available=n_ctx,
        )


class IncompleteAnswer(EdgesppoError):
    """An answer was cut before it was the value that was asked for.

    `text` is what came of it, `finish_reason` says what cut it: "length" or "cancelled".
    """

    def __init__(self, message: str, *, text: str, finish_reason: str) -> None:
        super().__init__(message)
        self.text = text
        self.finish_reason = finish_reason


class Cancelled(EdgesppoError):
    """The caller asked to stop before the work was done."""


class Closed(EdgesppoError):
    """The model or the chat had been closed."""


class NativeError(EdgesppoError):
    """llama.cpp reported a failure."""


class OutOfMemory(NativeError):
    """llama.cpp could not get the memory it asked for."""
