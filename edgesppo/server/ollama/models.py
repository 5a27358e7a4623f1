"""What Ollama tells of its models: here of the one that is served. None can be changed."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request

from edgesppo._version import __version__
from edgesppo.server.backend import Backend
from edgesppo.server.errors import ApiError, OllamaErrorBody, bad_request
from edgesppo.server.json_body import JsonRoute
from edgesppo.server.ollama.answer_types import (
    OllamaCard,
    OllamaDetails,
    OllamaLoaded,
    OllamaLoadedModel,
    OllamaModel,
    OllamaModels,
    OllamaVersion,
)
from edgesppo.server.ollama.requests import ModelBody
from edgesppo.server.openapi import got, posted
from edgesppo.server.service import Service

router = APIRouter(route_class=JsonRoute)
# The version of Ollama whose API this is: apps refuse to speak to older ones.
_API_VERSION = "0.12.0"
_NEVER = "9999-12-31T23:59:59Z"


@router.get("/api/version", tags=["ollama"], responses=got(OllamaVersion, body=OllamaErrorBody))
async def version() -> Any:
    """The version of the API, and of this server."""
    found: OllamaVersion = {"version": _API_VERSION, "edgesppo": __version__}
    return found


@router.get("/api/tags", tags=["ollama"], responses=got(OllamaModels, body=OllamaErrorBody))
async def tags(request: Request) -> Any:
    """The models that are served."""
    service: Service = request.app.state.service
    found: OllamaModels = {"models": [await service.run_in_thread(_model, service.backend)]}
    return found


@router.get("/api/ps", tags=["ollama"], responses=got(OllamaLoaded, body=OllamaErrorBody))
async def ps(request: Request) -> Any:
    """The models that are loaded."""
    service: Service = request.app.state.service
    model = await service.run_in_thread(_model, service.backend)
    loaded: OllamaLoadedModel = {
        **model,
        "expires_at": _NEVER,
        "size_vram": 0,
        "context_length": service.backend.n_ctx,
    }
    found: OllamaLoaded = {"models": [loaded]}
    return found


@router.post("/api/show", tags=["ollama"], responses=posted(OllamaCard, body=OllamaErrorBody))
async def show(request: Request, body: ModelBody) -> Any:
    """A model's card."""
    service: Service = request.app.state.service
    name = body.model if body.model is not None else body.name
    if name is None:
        raise bad_request("model is missing", "model")
    service.require_model(name)
    card = await service.run_in_thread(service.backend.card)
    shape = card["model"]
    found: OllamaCard = {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "license": card["license"]["name"] or card["license"]["header"] or "",
        "details": _details(card),
        "model_info": {
            "general.architecture": "gemma2",
            "general.name": card["name"],
            "general.parameter_count": shape["parameters"],
            "gemma2.block_count": shape["layers"],
            "gemma2.context_length": service.backend.n_ctx,
            "gemma2.embedding_length": shape["width"],
            "gemma2.attention.head_count": shape["heads"],
            "gemma2.attention.head_count_kv": shape["kv_heads"],
            "gemma2.attention.sliding_window": shape["window"],
        },
        "capabilities": ["completion", "tools"],
        "modified_at": _time(service.backend),
    }
    return found


def _refuse(what: str) -> Any:
    async def refuse() -> Any:
        raise ApiError(403, f"{what} is not supported: this server has one model and changes none")

    refuse.__doc__ = f"Refused: {what}."
    return refuse


for _method, _path, _what in (
    ("POST", "/api/pull", "pulling a model"),
    ("POST", "/api/push", "pushing a model"),
    ("POST", "/api/create", "creating a model"),
    ("POST", "/api/copy", "copying a model"),
    ("DELETE", "/api/delete", "deleting a model"),
):
    router.add_api_route(_path, _refuse(_what), methods=[_method], include_in_schema=False)


@router.post("/api/embed", include_in_schema=False)
@router.post("/api/embeddings", include_in_schema=False)
async def embed() -> Any:
    """Refused: the model writes text, and makes no embeddings."""
    raise ApiError(501, "this model makes no embeddings: it only writes text")


def _model(backend: Backend) -> OllamaModel:
    card = backend.card()
    return {
        "name": f"{backend.name}:latest",
        "model": f"{backend.name}:latest",
        "modified_at": _time(backend),
        "size": card["bytes"],
        "digest": card["fingerprint"],
        "details": _details(card),
    }


def _details(card: dict[str, Any]) -> OllamaDetails:
    n = card["model"]["parameters"]
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "gemma2",
        "families": ["gemma2"],
        "parameter_size": f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.1f}M",
        "quantization_level": card["file_type"],
    }


def _time(backend: Backend) -> str:
    written = datetime.fromtimestamp(backend.created, timezone.utc)
    return written.isoformat().replace("+00:00", "Z")
