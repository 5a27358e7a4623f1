"""`BadField`: what is wrong with a field of a request."""

from __future__ import annotations

from edgesppo.errors import UsageError


class BadField(UsageError):
    """A field of a request cannot be followed; `param` is its name, as OpenAI's errors have it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
