"""What is wrong with a request's body, from what pydantic says of it: which part, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesppo.server.errors import ApiError
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi.exceptions import RequestValidationError


def from_validation(error: RequestValidationError) -> ApiError:
    """The 400 for a body that is no request."""
    found = _most_telling(error.errors())
    param = ".".join(_place(found["loc"], error.body)) or None
    text = found["msg"].removeprefix("Value error, ")
    code = "missing_required_parameter" if found["type"] == "missing" else "invalid_value"
    return ApiError(400, one_line(f"{param}: {text}" if param else text), code=code, param=param)


def _most_telling(errors: Sequence[Any]) -> Any:
    """The first error; of a field that may have several types, what is wrong within the type."""
    field = errors[0]["loc"][:2]
    of_field = [error for error in errors if error["loc"][:2] == field]
    within = [error for error in of_field if not error["type"].endswith("_type")]
    return (within or of_field)[0]


def _place(loc: Sequence[str | int], body: Any) -> list[str]:
    """The keys and numbers that lead to a value, without pydantic's names of types in between."""
    found: list[str] = []
    value = body
    for n, step in enumerate(loc[1:], 2):  # the first is "body"
        if _has(value, step):
            value = value[step]
        elif n < len(loc) or not isinstance(value, dict) or "[" in str(step):
            continue
        found.append(str(step))
    return found


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value
