"""The endpoints of OpenAI's API that this server has not: refused by name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edgesppo.server.errors import ApiError

router = APIRouter(include_in_schema=False)
_METHODS = ["GET", "POST", "DELETE"]
# The first that a path begins with, as a whole or followed by a slash, says why.
_ENDPOINTS = {
    "/v1/responses/input_tokens": "counting an input's tokens (/tokenize has a text's) is",
    "/v1/responses/compact": "compacting a conversation is",
    "/v1/responses": "storing responses is",
    "/v1/conversations": "storing conversations is",
    "/v1/embeddings": "embedding is",
    "/v1/moderations": "moderation is",
    "/v1/images": "images are",
    "/v1/videos": "video is",
    "/v1/audio": "audio is",
    "/v1/realtime": "realtime is",
    "/v1/files": "files are",
    "/v1/uploads": "files are",
    "/v1/batches": "batches are",
    "/v1/fine_tuning": "fine-tuning is",
    "/v1/assistants": "assistants are",
    "/v1/threads": "threads are",
    "/v1/vector_stores": "vector stores are",
}


def _refuse(what: str) -> Any:
    async def refuse() -> Any:
        raise ApiError(404, f"{what} not supported by this server", code="unsupported_endpoint")

    return refuse


for _path, _what in _ENDPOINTS.items():
    if _path != "/v1/responses":  # which is there
        router.add_api_route(_path, _refuse(_what), methods=_METHODS)
    router.add_api_route(f"{_path}/{{rest:path}}", _refuse(_what), methods=_METHODS)
