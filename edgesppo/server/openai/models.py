"""/v1/models, /tokenize and /detokenize."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from edgesppo.errors import UsageError
from edgesppo.openai_api.messages import turns
from edgesppo.server.backend import Backend
from edgesppo.server.errors import bad_request
from edgesppo.server.json_body import JsonRoute
from edgesppo.server.openai.answer_types import Model, Models, Text, TokenPiece, Tokens
from edgesppo.server.openai.chat_request import ChatMessage
from edgesppo.server.openai.fields import FIRST_ERROR, RequestModel
from edgesppo.server.openapi import got, posted
from edgesppo.server.service import Service

# The most that one request may have turned into text, or text into.
_MOST_TOKENS = 1 << 17
router = APIRouter(route_class=JsonRoute)


class TokenizeRequest(RequestModel):
    """A text, or the messages of a chat, whose token ids are asked for."""

    model: str | None = None
    content: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1), FIRST_ERROR] | None = None
    add_special: bool = False
    with_pieces: bool = False


class DetokenizeRequest(RequestModel):
    """Token ids whose text is asked for."""

    model: str | None = None
    tokens: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(max_length=_MOST_TOKENS), FIRST_ERROR
    ]
    with_bytes: bool = False


@router.get("/v1/models", tags=["models"], responses=got(Models))
async def list_models(request: Request) -> Any:
    """The models that are served."""
    service: Service = request.app.state.service
    models: Models = {"object": "list", "data": [_model(service.backend)]}
    return models


@router.get("/v1/models/{name:path}", tags=["models"], responses=got(Model, 404))
async def get_model(request: Request, name: str) -> Any:
    """One model."""
    service: Service = request.app.state.service
    service.require_model(name)
    return _model(service.backend)


def _model(backend: Backend) -> Model:
    return {
        "id": backend.name,
        "object": "model",
        "created": backend.created,
        "owned_by": "edgesppo",
        "meta": {"n_ctx": backend.n_ctx, "sampling": backend.defaults()},
    }


@router.post("/tokenize", tags=["tokens"], responses=posted(Tokens))
async def tokenize(request: Request, body: TokenizeRequest) -> Any:
    """The token ids of a text, or of the prompt that messages make."""
    service: Service = request.app.state.service
    service.require_model(body.model)
    backend = service.backend
    if (body.content is None) == (body.messages is None):
        raise bad_request("expected either 'content' or 'messages'", "content")
    n_chars = sum(len(str(message.content)) for message in body.messages or [])
    _spend(request, n_chars + len(body.content or ""))
    return await service.run_in_thread(_tokens, backend, body)


def _spend(request: Request, n: int) -> None:
    """Count `n` tokens or characters as their part of a request. Raises a 429."""
    service: Service = request.app.state.service
    service.budgets.spend_part(getattr(request.state, "key", None), n / _MOST_TOKENS)


def _tokens(backend: Backend, body: TokenizeRequest) -> JSONResponse:
    ids = _ids(backend, body)
    if len(ids) > _MOST_TOKENS:
        raise bad_request(
            f"the text has {len(ids):,} tokens, expected at most {_MOST_TOKENS:,}; ask in parts",
            "content",
        )
    if not body.with_pieces:
        return JSONResponse(Tokens(tokens=ids))
    pieces: list[TokenPiece] = [{"id": id_, "piece": _piece(backend, id_)} for id_ in ids]
    return JSONResponse(Tokens(tokens=pieces))


def _ids(backend: Backend, body: TokenizeRequest) -> list[int]:
    if body.messages is not None:
        return backend.chat_prompt(*turns([message.plain() for message in body.messages]))
    ids = backend.tokenize(body.content or "")
    return [backend.bos, *ids] if body.add_special else ids


def _piece(backend: Backend, token: int) -> str | list[int]:
    """The text of a token, or its bytes where they are no text."""
    data = backend.piece(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return [*data]


@router.post("/detokenize", tags=["tokens"], responses=posted(Text))
async def detokenize(request: Request, body: DetokenizeRequest) -> Any:
    """The text of token ids."""
    service: Service = request.app.state.service
    service.require_model(body.model)
    _spend(request, len(body.tokens))
    try:
        return await service.run_in_thread(_text, service.backend, body)
    except UsageError as error:
        raise bad_request(str(error), "tokens") from None


def _text(backend: Backend, body: DetokenizeRequest) -> JSONResponse:
    found: Text = {"content": backend.detokenize(body.tokens)}
    if body.with_bytes:
        found["bytes"] = [[*backend.text(token)] for token in body.tokens]
    return JSONResponse(found)
