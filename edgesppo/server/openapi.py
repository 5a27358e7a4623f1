"""What `/openapi.json` says of answers: the bodies and errors of each endpoint, and its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from edgesppo.server.errors import ErrorBody

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

Responses = dict[int | str, dict[str, Any]]

_REF = "#/components/schemas/{model}"
_MEANING = {
    400: "The request is wrong",
    401: "The API key is missing or wrong",
    403: "This Host or Origin may not use the server",
    404: "There is no such model",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "Too many requests, tokens or wrong API keys; Retry-After says when to ask again",
    500: "The server failed",
    503: "The server loads, stops, or has no room; Retry-After says when to ask again",
    504: "The answer took too long",
}
# What any request may meet: who asks, how often, and how the server is.
_ANY = (401, 403, 429, 500, 503)
_BODY = (400, 408, 413, 415)


def errors(*statuses: int, body: type = ErrorBody) -> Responses:
    """The errors that an endpoint may answer with."""
    return {status: {"model": body, "description": _MEANING[status]} for status in statuses}


def got(model: Any, *statuses: int, body: type = ErrorBody) -> Responses:
    """The responses of an endpoint that is asked by GET."""
    return {200: {"model": model}, **errors(*_ANY, *statuses, body=body)}


def posted(model: Any, *statuses: int, body: type = ErrorBody) -> Responses:
    """The responses of an endpoint that is asked by POST, about a model."""
    return got(model, 404, *_BODY, *statuses, body=body)


def answered(model: Any, stream: dict[str, Any], body: type = ErrorBody) -> Responses:
    """The responses of an endpoint that answers, as a whole or as a `stream`."""
    found = posted(model, 504, body=body)
    found[200]["content"] = stream
    return found


def events(piece: str, last: str | None = None) -> dict[str, Any]:
    """A stream of server-sent events whose data are the named pieces, and a `last` text."""
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": _REF.format(model=piece)},
    }
    if last is not None:
        data = {"anyOf": [{"const": last}, data]}
    event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {"text/event-stream": {"itemSchema": event}}


def json_lines(piece: str) -> dict[str, Any]:
    """A stream of the named pieces, one a line."""
    return {"application/x-ndjson": {"itemSchema": {"$ref": _REF.format(model=piece)}}}


def complete(app: FastAPI, pieces: Mapping[str, Any]) -> None:
    """Describe what FastAPI does not know of: API keys, and the pieces of streams, by their names.

    It adds a 422 by itself, which this server never answers: what is wrong with a body is a 400.
    """
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(described(), pieces)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(whole: dict[str, Any], pieces: Mapping[str, Any]) -> None:
    schemas = whole["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in whole["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name, piece in pieces.items():
        own = TypeAdapter(piece).json_schema(ref_template=_REF)
        for other, schema in {**own.pop("$defs", {}), name: own}.items():
            assert schemas.get(other, schema) == schema, f"two types are called {other}"
            schemas[other] = schema
    whole["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    whole["security"] = [{"key": []}, {}]  # a server without keys asks for none
