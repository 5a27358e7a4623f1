"""An answer as it streams, for `for` and `async for`, whose end goes into its chat exactly once.

A stream may be left at any moment: by `break`, by a cancelled task, or by being forgotten. What had
come is then added to the chat's history, marked as cancelled, before the chat is used again; what
finalises the stream later changes nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgesppo.chat.result import Chunk
from edgesppo.errors import Closed, EdgesppoError
from edgesppo.llama import fork

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from edgesppo.chat.generation import Generation
    from edgesppo.chat.result import Result


class AnswerStream(Generator[Chunk, None, None]):
    """The chunks of one answer. Nothing happens before the first `next()`.

    Then `claim` is called in the caller's own thread and task, and may refuse; `begin` starts the
    generation, on whatever thread. `keep` gets the result once the answer is over, however that
    came about, unless it failed with an EdgesppoError.
    """

    def __init__(
        self,
        claim: Callable[[AnswerStream], None],
        begin: Callable[[], Generation],
        keep: Callable[[Result], None],
    ) -> None:
        self._claim = claim
        self._begin = begin
        self._keep = keep
        self._claimed = False
        self._generation: Generation | None = None
        self._chunks: Iterator[Chunk] = iter(())
        self._step = threading.RLock()  # held while a chunk is computed
        self._thread = threading.current_thread()  # of whoever reads the chunks,
        self._task: asyncio.Task[Any] | None = None  # and the task in it
        self._owner = _current_task()  # may read each chunk in a task of its own, as wait_for does
        self._advancing = False
        self._forked: Closed | None = None  # in a child of the process that began the answer
        self.over = False
        self.cancelled = False
        fork.track(self)

    def __repr__(self) -> str:
        state = "over" if self.over else "under way" if self._generation else "not begun"
        return f"<AnswerStream, {state}; iterate over it for the answer's chunks>"

    def __dir__(self) -> list[str]:
        return ["__iter__", "__next__", "close", "send", "throw"]  # the rest is for the chat

    def after_fork(self, parent: int) -> None:
        """End here, and keep nothing: the thread that computed, and its lock, are gone."""
        self._step = threading.RLock()
        if not self.over:
            self._forked = fork.closed_by_fork(parent)
        self.over = True

    def __next__(self) -> Chunk:
        self.take()
        return self.advance()

    def send(self, value: None) -> Chunk:
        """The next chunk; no value is taken."""
        del value
        return next(self)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Chunk:
        """Stop as `close` does, then raise."""
        self.close()
        error = typ if val is None else val
        if isinstance(error, type):
            error = error()
        raise error if tb is None else error.with_traceback(tb)

    def close(self) -> None:
        """Stop the answer and keep what had come; harmless when repeated."""
        if self.over:
            return
        self.cancel()
        with self._step:  # a chunk that is being computed ends first, and soon
            self._finish()

    def __del__(self) -> None:
        with suppress(EdgesppoError):
            self.close()

    def cancel(self) -> None:
        """Stop computing, from any thread; the consumer gets one more chunk, which says so."""
        self.cancelled = True
        if self._generation is not None:
            self._generation.cancel()

    def take(self) -> None:
        """Note that the caller reads the chunks from now on, whatever thread computes them."""
        if self._forked is not None:
            raise self._forked
        if self._thread.ident != threading.get_ident():
            self._thread = threading.current_thread()
        self._task = _current_task()
        if not self._claimed:
            self._claim(self)
            self._claimed = True

    @property
    def is_advancing(self) -> bool:
        """Whether a chunk is being computed now."""
        if not self._step.acquire(blocking=False):
            return True
        try:
            return self._advancing
        finally:
            self._step.release()

    @property
    def is_left(self) -> bool:
        """Whether the stream has been left unread: nothing advances it, and its last reader is
        gone or is the calling thread or task, which now asks for something else. A task that was
        cancelled is gone, even if it has not run since.
        """
        reader, owner, caller = self._task, self._owner, _current_task()
        if reader is not None and _is_cancelled(reader):
            return True
        if self.is_advancing:
            return False
        if not self._thread.is_alive():
            return True
        if reader is None:
            return self._thread is threading.current_thread()
        if reader is caller:
            return True
        return reader.done() and (owner is None or owner is caller or _is_gone(owner))

    def result(self) -> Result | None:
        """The answer so far; None before it has begun."""
        return None if self._generation is None else self._generation.result()

    def advance(self) -> Chunk:
        """The next chunk, on whatever thread. Raises StopIteration at the end."""
        with self._step:
            if self.over:
                raise StopIteration
            self._advancing = True
            try:
                if self._generation is None:
                    self._start()
                return next(self._chunks)
            except Closed:  # the model, by its user
                self._finish()
                raise
            except EdgesppoError:
                self.over = True
                raise
            except BaseException:  # the end, or an interrupt: what had come is kept
                self._finish()
                raise
            finally:
                self._advancing = False

    def _start(self) -> None:
        generation = self._begin()
        if self.cancelled:
            generation.cancel()
        self._generation, self._chunks = generation, iter(generation)

    def _finish(self) -> None:
        """Tell the chat, once. Interrupted before the last line, it is done again, alike."""
        if self.over:
            return
        if self._generation is not None:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
            self._keep(self._generation.result())
        self.over = True


class AsyncAnswerStream(AsyncGenerator[Chunk, None]):
    """The chunks of one answer for `async for`; they are computed on threads beside the loop."""

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<Async{repr(self._stream)[1:].replace('iterate', 'iterate with async for')}"

    def __del__(self) -> None:
        # Not left to the inner stream: the thread of the last chunk may still refer to it.
        with suppress(EdgesppoError):
            self._stream.close()

    async def asend(self, value: None) -> Chunk:
        """The next chunk; no value is taken. A cancelled task stops the model at once."""
        import asyncio

        del value
        self._stream.take()
        step = asyncio.ensure_future(asyncio.to_thread(_advance_or_none, self._stream))
        try:
            chunk = await asyncio.shield(step)
        except asyncio.CancelledError:
            self._stream.cancel()
            await asyncio.wait([step])
            step.exception()  # whatever it was, the cancellation is what counts
            self._stream.close()
            raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> Chunk:
        """Stop as `aclose` does, then raise."""
        return self._stream.throw(typ, val, tb)

    async def aclose(self) -> None:
        """Stop the answer and keep what had come; harmless when repeated."""
        self._stream.close()


def _advance_or_none(stream: AnswerStream) -> Chunk | None:
    """The next chunk or None: StopIteration cannot leave a thread of asyncio's."""
    try:
        return stream.advance()
    except StopIteration:
        return None


def _is_gone(task: asyncio.Task[Any]) -> bool:
    """Whether a task has ended, or was told to."""
    return task.done() or _is_cancelled(task)


def _is_cancelled(task: asyncio.Task[Any]) -> bool:
    """Whether a task was cancelled. Python 3.10 tells so only once it has ended."""
    cancelling = getattr(task, "cancelling", None)
    return task.cancelled() or (cancelling is not None and cancelling() > 0)


def _current_task() -> asyncio.Task[Any] | None:
    loops = sys.modules.get("asyncio")  # slow to load, and without it there is no task
    try:
        return None if loops is None else loops.current_task()
    except (RuntimeError, AttributeError):  # no loop runs in this thread, or it is being imported
        return None
