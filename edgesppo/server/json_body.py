"""Reading a request's body: JSON only, within limits of size, time and depth, and unambiguous."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from edgesppo.server.errors import ApiError, bad_request

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Response

    from edgesppo.server.settings import ServerSettings

_LONGEST_NUMBER = 64
_DROPPED = 16 << 20
_MOST_KEYS = 4096  # of one object; each wrong one would be looked at
_LARGE = 64 << 10  # a body that is parsed beside the event loop


class JsonRequest(Request):
    """A request whose body is read and parsed strictly."""

    async def body(self) -> bytes:
        """The body. Raises a 413, 415 or 408."""
        if not hasattr(self, "_checked"):
            settings: ServerSettings = self.app.state.settings
            self._checked = await _read(self, settings)
        return self._checked

    async def json(self) -> Any:
        """The value of the body. Raises a 400."""
        settings: ServerSettings = self.app.state.settings
        data = await self.body()
        if len(data) < _LARGE:
            return parse(data, settings.limits.depth)
        return await anyio.to_thread.run_sync(parse, data, settings.limits.depth)


class JsonRoute(APIRoute):
    """A route whose handler gets a JsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the stricter request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if _may_be_unlabelled(request):
                _label(request)
            return await handler(JsonRequest(request.scope, request.receive))

        return strict


def _may_be_unlabelled(request: Request) -> bool:
    """Whether JSON may come as any content type: on Ollama's routes, from no browser.

    Ollama's clients often name none or another, as `curl -d`. A browser must name it: without
    asking us first, a page of another site can post other types only.
    """
    headers = request.headers
    is_browser = "origin" in headers or "sec-fetch-site" in headers
    return request.url.path.startswith("/api/") and not is_browser


def _label(request: Request) -> None:
    """Let a request say that it is JSON."""
    others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    request.scope["headers"] = [*others, (b"content-type", b"application/json")]


async def _read(request: Request, settings: ServerSettings) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415,
            "the body must be JSON, with Content-Type: application/json (curl: --json), found "
            f"{ascii(kind[:80]) if kind else 'none'}",
            code="not_json",
        )
    if request.headers.get("content-encoding", "").lower() not in ("", "identity"):
        raise ApiError(415, "a compressed body is not accepted; send it as it is", code="encoding")
    try:
        with anyio.fail_after(settings.deadlines.body_s):
            data = await _read_at_most(request, settings.limits.body_bytes)
    except TimeoutError:
        raise ApiError(
            408,
            f"the body did not arrive within {settings.deadlines.body_s:g} s",
            code="body_timeout",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise ApiError(400, "the client went away", code="disconnected") from None
    if not data:
        raise bad_request("the body is empty, expected a JSON object", code="invalid_json")
    return data


async def _read_at_most(request: Request, limit: int) -> bytes:
    """The body. Raises a 413 if it is larger than `limit`.

    Some more of it is taken and dropped: a client that is still sending would miss the answer.
    """
    found, n_bytes = bytearray(), 0
    async for piece in request.stream():
        n_bytes += len(piece)
        if n_bytes <= limit:
            found += piece
        elif n_bytes > limit + _DROPPED:
            break
    if n_bytes <= limit:
        return bytes(found)
    raise ApiError(
        413,
        f"the body is larger than {limit} bytes, the limit of this server (--max-body)",
        code="body_too_large",
        headers={"Connection": "close"},
    )


def parse(data: bytes, max_depth: int) -> Any:
    """The value of JSON text.

    Raises a 400 for what is no JSON, for numbers that are not finite, for an object with a key
    twice or with thousands of keys, for half characters, and for more nesting than `max_depth`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError:
        raise bad_request("the body is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError as error:
        raise bad_request(f"the body is not valid JSON: {error}", code="invalid_json") from None
    _check(value, max_depth)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MOST_KEYS:
        raise bad_request(
            f"an object has {len(pairs)} keys, expected at most {_MOST_KEYS}", code="too_many_keys"
        )
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise bad_request(f"the key {twice[:64]!r} is given twice", code="duplicate_key")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:_LONGEST_NUMBER]} is too large")
    return number


def _int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _check(value: Any, max_depth: int) -> None:
    """Raise a 400 for a value that is nested too deep, or has half a character in a text."""
    level = [value]
    for _ in range(max_depth):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and not _is_whole(item):
                raise bad_request("a text has a lone surrogate, half a character", code="bad_text")
        if not below:
            return
        level = below
    raise _too_deep(max_depth)


def _is_whole(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(max_depth: int) -> ApiError:
    return bad_request(f"the JSON is nested deeper than {max_depth} levels", code="too_deep")
