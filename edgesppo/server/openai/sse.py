"""Server-sent events: how streams are written, and how they end."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi.sse import EventSourceResponse, format_sse_event

from edgesppo.server.closing_response import ClosingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from edgesppo.server.answers import Answers
    from edgesppo.server.errors import ApiError

LAST = "[DONE]"  # not of /v1/responses
DONE = format_sse_event(data_str=LAST)
_PING = format_sse_event(comment="waiting")
_PING_S = 15.0


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One event as it goes over the wire."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(data_str=text, event=name)


def error_event(error: ApiError) -> bytes:
    """A failure, as a stream of chunks tells it."""
    return event(error.body())


class EventStream(ClosingResponse):
    """A stream of events."""

    media_type = EventSourceResponse.media_type

    def __init__(
        self,
        answers: Answers,
        events: AsyncGenerator[bytes, None],
        tell: Callable[[ApiError], bytes] = error_event,
    ) -> None:
        super().__init__(answers, _with_pings(events), tell)


async def _with_pings(events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The events, and comments while there are none, so that proxies keep the connection."""
    following = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait([following], timeout=_PING_S)
            if not done:
                yield _PING
                continue
            item = following.result()
            if item is None:
                return
            yield item
            following = asyncio.ensure_future(anext(events, None))
    finally:
        if following.cancel():
            with suppress(asyncio.CancelledError, Exception):
                await following
        await events.aclose()
