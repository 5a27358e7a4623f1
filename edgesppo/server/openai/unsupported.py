"""The endpoints of OpenAI's API that this server has not: refused by name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edgesppo.server.errors import ApiError

router = APIRouter(include_in_schema=False)
_METHODS = ["GET", "POST", "DELETE"]
_ENDPOINTS = {
    "/v1/responses/{rest:path}": "storing responses is",
    "/v1/conversations": "storing conversations is",
    "/v1/embeddings": "embedding is",
    "/v1/moderations": "moderation is",
    "/v1/images/{rest:path}": "images are",
    "/v1/videos": "video is",
    "/v1/audio/{rest:path}": "audio is",
    "/v1/realtime": "realtime is",
    "/v1/files": "files are",
    "/v1/uploads": "files are",
    "/v1/batches": "batches are",
    "/v1/fine_tuning/{rest:path}": "fine-tuning is",
    "/v1/assistants": "assistants are",
    "/v1/threads": "threads are",
    "/v1/vector_stores": "vector stores are",
}


def _refuse(what: str) -> Any:
    async def refuse() -> Any:
        raise ApiError(404, f"{what} not supported by this server", code="unsupported_endpoint")

    return refuse


for _path, _what in _ENDPOINTS.items():
    router.add_api_route(_path, _refuse(_what), methods=_METHODS)
