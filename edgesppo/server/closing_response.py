"""A streamed response whose answers are closed when it ends, by whatever it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from edgesppo.server.service import Answers


class ClosingResponse(StreamingResponse):
    """Streams what was made of some answers. No cache or proxy is to hold pieces of it back."""

    def __init__(self, answers: Answers, content: AsyncIterator[bytes]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers)
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.close()
