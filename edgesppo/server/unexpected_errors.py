"""Exceptions that nobody expected: answered with a 500, within the layers that log and count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from edgesppo.server.errors import note

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class UnexpectedErrors:
    """ASGI middleware, for the place next to the routes.

    Starlette's own handler lies outside of all layers: its answer has no id and no CORS headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if scope["type"] != "http":
                raise
            found = note(scope, error)
            if begun:  # the connection is closed in the midst of the answer
                raise
            response = JSONResponse(found.body(scope["path"]), found.status_code, found.headers)
            await response(scope, receive, send)
