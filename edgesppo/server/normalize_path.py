"""Paths as clients write them: with a base URL that ends in a slash, /v1/models is //v1/models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile("/{2,}")


class NormalizePath:
    """ASGI middleware that takes repeated slashes as one, and none at the end of a path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            path = normalize_path(scope["path"])
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)


def normalize_path(path: str) -> str:
    """The path without what is too many of its slashes."""
    path = _SLASHES.sub("/", path)
    is_below_page = path == "/page/"
    return path if is_below_page else path.rstrip("/") or "/"
