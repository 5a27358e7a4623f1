"""Errors in OpenAI's form: an HTTP status, a type, a code, and the parameter that is to blame.

{"error": {"message": "...", "type": "invalid_request_error", "param": "n", "code": null}}
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from pydantic import BaseModel

from edgesppo.errors import (
    Cancelled,
    Closed,
    ContextOverflow,
    EdgesppoError,
    OutOfMemory,
    UsageError,
)
from edgesppo.openai_api.errors import BadField
from edgesppo.sampling.options import NAMES
from edgesppo.system import memory_guard
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from starlette.types import Scope

logger = logging.getLogger("edgesppo.server")
_INTERNAL = "internal_error"
RETRY_S = 5  # what Retry-After says where nothing better is known
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI tells it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every refusal."""

    error: ErrorDetail


class OllamaErrorBody(BaseModel):
    """The body of every refusal of Ollama's API."""

    error: str


class ApiError(HTTPException):
    """An answer other than 200. `param` names the request's field, `code` the kind of error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code
        self.param = param

    def body(self, path: str = "") -> dict[str, Any]:
        """The JSON of the error, in the form of the API that the path belongs to."""
        if path.startswith("/api/"):
            return {"error": self.detail}
        kind = "server_error" if self.status_code >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.detail,
                "type": _TYPES.get(self.status_code, kind),
                "param": self.param,
                "code": self.code,
            }
        }


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """The error of a request that is wrong: status 400, and the parameter that is to blame."""
    return ApiError(400, message, param=param, code=code)


def unsupported(what: str, param: str) -> ApiError:
    """The refusal of something that other servers have."""
    return bad_request(f"{what} not supported by this server", param, "unsupported_parameter")


def unavailable(status: str) -> ApiError:
    """The 503 of a server that is loading, draining or stopped."""
    reasons = {
        "loading": "the model is still loading; ask again in a few seconds",
        "draining": "the server is shutting down; ask again later",
        "failed": "the server has failed; its log says why",
    }
    message = reasons.get(status, "the server has stopped")
    return ApiError(503, message, code=f"server_{status}", headers={"Retry-After": str(RETRY_S)})


def overloaded(n_waiting: int) -> ApiError:
    """The 429 of a full queue."""
    return ApiError(
        429,
        f"too many requests are waiting ({n_waiting}); ask again later",
        code="queue_full",
        headers={"Retry-After": str(RETRY_S)},
    )


def took_too_long(limit_s: float) -> ApiError:
    """The 504 of an answer that is not whole in time."""
    text = f"the answer took longer than {limit_s:g} s, the limit of this server (--timeout)"
    return ApiError(504, text, code="timeout")


def from_exception(error: Exception, param: str | None = None) -> ApiError:
    """The HTTP form of any exception; `param` is the field that holds the prompt.

    Of an exception that is not ours, nothing is told.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MemoryError):
        error = OutOfMemory(memory_guard.shortage(error))
    message = one_line(str(error))
    if isinstance(error, ContextOverflow):
        return bad_request(message, param, "context_length_exceeded")
    if isinstance(error, BadField):
        return bad_request(message, error.param)
    if isinstance(error, UsageError):
        word = message.partition(" ")[0]
        return bad_request(message, word if word in NAMES else None)
    if isinstance(error, Closed | Cancelled):
        return unavailable("stopped")
    if isinstance(error, OutOfMemory):
        return ApiError(503, message, code="out_of_memory", headers={"Retry-After": str(RETRY_S)})
    if isinstance(error, EdgesppoError):
        return ApiError(500, message, code="engine_error")
    return ApiError(500, "an internal error; see the server's log", code=_INTERNAL)


def note(scope: Scope, error: Exception) -> ApiError:
    """The HTTP form of what ended a request, for the client; its code goes into the access log.

    What we did not expect goes into the server's log as a whole.
    """
    found = from_exception(error)
    if found.code == _INTERNAL:
        logger.error("unexpected %s", type(error).__name__, exc_info=error)
    scope.setdefault("state", {})["error"] = found.code
    return found
