"""A stream of answers: it is closed however it ends, and says why if that is a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from edgesppo.server.errors import note

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Receive, Scope, Send

    from edgesppo.server.answers import Answers
    from edgesppo.server.errors import ApiError


class ClosingResponse(StreamingResponse):
    """Streams what was made of some answers. No cache or proxy is to hold pieces of it back.

    The status is sent before an answer can fail, so `tell` writes an error as the last piece.
    """

    def __init__(
        self, answers: Answers, content: AsyncIterator[bytes], tell: Callable[[ApiError], bytes]
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._with_error(content), headers=headers)
        self._answers = answers
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        self._scope = scope
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.close()

    async def _with_error(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for item in content:
                yield item
        except Exception as error:
            yield self._tell(note(self._scope, error))
