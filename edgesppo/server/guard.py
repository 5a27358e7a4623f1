"""Who may ask what: the Host and Origin of a request, and its API key.

A page of another site can make a browser send requests to this machine, and can give its own name
this machine's address (DNS rebinding). Both show in these headers.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from edgesppo.errors import UsageError
from edgesppo.server import api_keys
from edgesppo.server.errors import ApiError
from edgesppo.server.wrong_keys import WrongKeys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from edgesppo.server.api_keys import ApiKey
    from edgesppo.server.budgets import Budgets
    from edgesppo.server.metrics import Metrics
    from edgesppo.server.settings import ServerSettings

LOCAL = "localhost"
# What may be had without a key: the state of the server, and the page, which asks for the key.
_OPEN = ("/health", "/", "/page/")
# Of a connection: whether the last key on it was right. It goes on whoever else has its address.
PROVEN = "proven"
# What requests may name this server, and the page that asks, by.
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
_ORIGIN = re.compile(r"null|(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://[^\s/?#@*A-Z]+")


class Guard:
    """ASGI middleware that answers requests it does not let through with a 401, 403 or 429."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, metrics: Metrics, budgets: Budgets
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._budgets = budgets
        self._wrong_keys = WrongKeys()
        self._allowed = {host.lower() for host in settings.allowed_hosts} | {LOCAL}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and note whose it is."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            try:
                self._check_host(scope, headers)
                self._check_origin(headers)
                self._check_key(scope, headers)
            except ApiError as error:
                scope.setdefault("state", {})["error"] = error.code
                response = JSONResponse(error.body(scope["path"]), error.status_code, error.headers)
                await response(scope, receive, send)
                return
            key: ApiKey | None = scope.get("state", {}).get("key")
            if key is not None:
                send = self._telling_budgets(key, send)
        await self._app(scope, receive, send)

    def _telling_budgets(self, key: ApiKey, send: Send) -> Send:
        """Send with headers that tell what is left of a key's budgets when the answer begins."""

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = self._budgets.headers(key)
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        return telling

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if scope.get("server") is not None and scope["server"][1] is None:
            return  # a unix socket: no web page can reach it
        if name in self._allowed or (name is not None and self._is_address(name)):
            return
        shown = hosts[0][:100] if hosts else ""
        raise ApiError(
            403,
            f"the host {shown!r} is not one of this server's; --allow-host adds names",
            code="host_not_allowed",
        )

    def _is_address(self, name: str) -> bool:
        """Whether it is an address, which cannot be rebound; of this machine, if we serve it."""
        return _is_ip(name) and (is_loopback(name) or not is_loopback(self._settings.host))

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._settings.origins:
            return
        # Its own page: a proxy may make it https, and the Host has been checked.
        scheme, _, place = origin.partition("://")
        if scheme in ("http", "https") and place == headers.get("host"):
            return
        raise ApiError(
            403,
            f"pages of {origin[:100]!r} may not use this server; --allow-origin adds some",
            code="origin_not_allowed",
        )

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        keys, path = self._settings.keys, scope["path"]
        if not keys or path in _OPEN or path.startswith("/page/"):
            return
        given = api_keys.given(headers.get("authorization", ""), headers.get("x-api-key", ""))
        state = scope.setdefault("state", {})
        key = self._find(scope, state.get("connection", {}), given) if given else None
        if key is None:
            self._metrics.key_refusals.labels("wrong" if given else "missing").inc()
            raise ApiError(
                401,
                "the API key is missing or wrong; send Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        state["key"] = key

    def _find(self, scope: Scope, connection: dict[str, bool], given: str) -> ApiKey | None:
        """Whose key it is; None for a wrong one, which is counted. Raises a 429 after many."""
        if not connection.get(PROVEN):
            self._require_few_wrong(scope)
        key = api_keys.find(self._settings.keys, given)
        connection[PROVEN] = key is not None
        if key is None:
            self._wrong_keys.count(scope)
        return key

    def _require_few_wrong(self, scope: Scope) -> None:
        """Raise a 429 after many wrong keys of the address, whatever the one that it sends now."""
        try:
            self._wrong_keys.require_few(scope)
        except ApiError:
            self._metrics.key_refusals.labels("too_many").inc()
            raise


def check_names(hosts: Iterable[str], origins: Iterable[str]) -> None:
    """Raise UsageError for what is no host or origin as requests name it: it would never match."""
    for host in hosts:
        if not _HOST.fullmatch(host) and not _is_ip(host):
            raise UsageError(
                f"--allow-host is {host!r}, expected a name alone, such as pi.local: without "
                "http://, port, path or *"
            )
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"--allow-origin is {origin!r}, expected an origin as browsers send it, such as "
                "https://example.org or http://nas.local:3000: in small letters, without a path, a "
                "slash at the end, the usual port or *"
            )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def host_name(host: str) -> str | None:
    """The name or address in a Host header, without brackets and port; None if it has none."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        return name.lower() if bracket and _is_port(port) else None
    name = host.partition(":")[0]
    return name.lower().rstrip(".") if _is_port(host[len(name) :]) else None


def _is_port(text: str) -> bool:
    return text == "" or (text[0] == ":" and text[1:].isdecimal() and len(text) < 7)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host that we listen on."""
    return host == LOCAL or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)
