"""The access log: one JSON object a line for each request, without prompts and answers."""

from __future__ import annotations

import json
import logging
import secrets
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.routing import Match

from edgesppo.server.page_route import FILES_ROUTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from edgesppo.server.metrics import Metrics

logger = logging.getLogger("edgesppo.access")
_DISCONNECTED = 499
_FAILED = 500
_REFUSED = 400  # the least status of a refusal
_OTHER = "other"
_LONGEST = 80  # characters of a path that is none of ours


class AccessLog:
    """ASGI middleware that counts requests, gives each an id, and logs them."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: Sequence[Route], *, enabled: bool
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._enabled = enabled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it once it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = _Entry(scope, self._routes)

        async def noting(message: Message) -> None:
            entry.note(message)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            entry.is_broken = True
            raise
        finally:
            self._metrics.requests.labels(entry.label, str(entry.status)).inc()
            if "error" in entry.state:
                self._metrics.errors.labels(entry.state["error"] or _OTHER).inc()
            if self._enabled and not entry.is_page_file:
                logger.info(json.dumps(entry.line()))


class _Entry:
    """What is known of one request."""

    def __init__(self, scope: Scope, routes: Sequence[Route]) -> None:
        self._scope = scope
        self._routes = routes
        self.arrived_at = time.perf_counter()
        self._status: int | None = None
        self._whole = False
        self.is_broken = False  # an exception has ended it
        self.id = f"req-{secrets.token_hex(8)}"

    def note(self, message: Message) -> None:
        """Look at a part of the response, and add the request's id to its head."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            own = [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
            message["headers"] = [*message.get("headers", ()), *own]
        elif not message.get("more_body", False):
            self._whole = True

    @property
    def status(self) -> int:
        """The status; that of a client that went away, if the response is not whole."""
        if self.is_broken:
            return _FAILED
        return self._status if self._status is not None and self._whole else _DISCONNECTED

    @property
    def state(self) -> dict[str, Any]:
        """What the layers below have noted of the request."""
        return self._scope.get("state") or {}

    @cached_property
    def label(self) -> str:
        """The path of the route, not the client's text; there may be any number of those."""
        if "route" in self._scope:
            return getattr(self._scope["route"], "path", _OTHER)
        # It was refused before it came to its route.
        found = (r.path for r in self._routes if r.matches(self._scope)[0] != Match.NONE)
        return next(found, _OTHER)

    @property
    def is_page_file(self) -> bool:
        """Whether a file of the page was given: a visit is one line, that of its first file."""
        return self.label == FILES_ROUTE and self.status < _REFUSED

    @property
    def path(self) -> str:
        """The path as it is logged: of what has no route, the client's own, shortened."""
        own = self._scope["path"]
        shortened = own if len(own) <= _LONGEST else f"{own[:_LONGEST]}..."
        return shortened if self.label == _OTHER else self.label

    def line(self) -> dict[str, Any]:
        """The request and its answer as one object of the log."""
        state = self.state
        asked, answered = state.get("tokens") or (None, None)
        client = self._scope.get("client")
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": self.id,
            "client": client[0] if client else None,
            "key": getattr(state.get("key"), "name", None),
            "method": self._scope["method"][:16],
            "path": self.path,
            "status": self.status,
            "error": state.get("error"),
            "seconds": round(time.perf_counter() - self.arrived_at, 3),
            "prompt_tokens": asked,
            "completion_tokens": answered,
        }
