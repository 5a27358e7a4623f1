"""`create_app`: the ASGI application, from its routes and the layers around them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from typing_extensions import NotRequired, TypedDict

from edgesppo._version import __version__
from edgesppo.errors import EdgesppoError
from edgesppo.server import budgets, metrics, openapi, page_route
from edgesppo.server.access_log import AccessLog
from edgesppo.server.errors import ApiError, ErrorBody, note
from edgesppo.server.guard import Guard
from edgesppo.server.head_requests import HeadRequests
from edgesppo.server.normalize_path import NormalizePath
from edgesppo.server.ollama import answers
from edgesppo.server.ollama import models as ollama_models
from edgesppo.server.openai import chat, completions, models, responses, unsupported
from edgesppo.server.openai.answer_types import ChatCompletionChunk, CompletionChunk
from edgesppo.server.openai.response_types import ResponseEvent
from edgesppo.server.service import Service
from edgesppo.server.unexpected_errors import UnexpectedErrors
from edgesppo.server.validation_errors import from_validation
from edgesppo.server.worker import FAILED, OK
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edgesppo.loaded_model import LoadedModel
    from edgesppo.server.settings import ServerSettings


class Health(TypedDict):
    """How the server is; `last_step_age_s` only while it computes, `error` if it has failed."""

    status: str
    last_step_age_s: float | None
    active: int
    queued: int
    error: NotRequired[str]


_HEALTH: openapi.Responses = {
    200: {"model": Health, "description": "The server answers"},
    503: {"model": Health | ErrorBody, "description": "It loads, stops or has failed"},
    **openapi.errors(403, 500),
}
_METRICS: openapi.Responses = {
    200: {"content": {metrics.CONTENT_TYPE: {"schema": {"type": "string"}}}},
    **openapi.errors(401, 403, 429, 500),
}
_DIALECTS = (chat, completions, responses, models, unsupported, answers, ollama_models)
# A page of the web asks a server at home or on this machine with one more header, which newer
# versions of Starlette answer.
_PRIVATE_NETWORK: dict[str, Any] = {
    name: True
    for name in inspect.signature(CORSMiddleware.__init__).parameters
    if name == "allow_private_network"
}
# What streams are made of, by the names in the description.
_PIECES = {
    "ChatCompletionChunk": ChatCompletionChunk,
    "CompletionChunk": CompletionChunk,
    "ResponseEvent": ResponseEvent,
}


def create_app(load: Callable[[], LoadedModel], settings: ServerSettings) -> FastAPI:
    """The application; the model is loaded on the worker's thread when it starts."""
    service = Service(load, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        await asyncio.to_thread(service.worker.stop)

    app = FastAPI(
        title="edgesppo",
        version=__version__,
        description="Gemma-2-9B-It-SPPO over the APIs of OpenAI and Ollama.",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service, app.state.settings = service, settings
    routers = [*(module.router for module in _DIALECTS), page_route.make_router()]
    for router in routers:
        app.include_router(router)
    _add_status(app, service)
    openapi.complete(app, _PIECES)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(EdgesppoError, _response)
    found = [*app.routes, *(route for router in routers for route in router.routes)]
    routes = [route for route in found if isinstance(route, Route)]
    app.state.paths = {route.path for route in routes}
    _add_layers(app, service, routes)
    return app


def _add_layers(app: FastAPI, service: Service, routes: list[Route]) -> None:
    """The layers around the routes; the last one added is the outermost."""
    settings = service.settings
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(Guard, settings=settings, metrics=service.metrics, budgets=service.budgets)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[*settings.origins],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client in a browser sends a dozen of its own
            **_PRIVATE_NETWORK,
            expose_headers=["Retry-After", "X-Request-Id", *budgets.HEADERS],
        )
    app.add_middleware(
        AccessLog, metrics=service.metrics, routes=routes, enabled=settings.access_log
    )
    app.add_middleware(HeadRequests)
    app.add_middleware(NormalizePath)


def _add_status(app: FastAPI, service: Service) -> None:
    """The routes that tell how the server is."""

    @app.get("/health", tags=["status"], responses=_HEALTH)
    async def health() -> Any:
        """Whether the server can answer: loading, ok, draining or failed."""
        worker = service.worker
        body: Health = {
            "status": worker.status,
            "last_step_age_s": worker.step_age_s(),
            "active": worker.n_running,
            "queued": worker.n_waiting,
        }
        if worker.status == FAILED:
            body["error"] = one_line(str(worker.failure))
        return JSONResponse(body, 200 if worker.status == OK else 503)

    @app.get("/metrics", tags=["status"], response_class=Response, responses=_METRICS)
    async def figures() -> Any:
        """The figures of the server, for Prometheus."""
        return Response(service.metrics.render(), media_type=metrics.CONTENT_TYPE)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return await _response(request, from_validation(error))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, ApiError):
        return await _response(request, error)
    message, path = str(error.detail), request.url.path[:100]
    if error.status_code == 404:
        known = request.app.state.paths
        meant = next((p for p in (f"/v1{path}", f"/api{path}") if p in known), None)
        advice = f"did you mean {meant}?" if meant else "/openapi.json describes what there is"
        message = f"there is no {path!r} here; {advice}"
    elif error.status_code == 405:
        message = f"{request.method[:16]} is not possible on {path!r}"
    headers = dict(error.headers or {})
    return await _response(request, ApiError(error.status_code, message, headers=headers))


async def _response(request: Request, error: Exception) -> JSONResponse:
    found = note(request.scope, error)
    return JSONResponse(found.body(request.url.path), found.status_code, found.headers)
