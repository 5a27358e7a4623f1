"""The status line, and the progress of a prompt."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from edgesppo.system.sanitize import one_line
from edgesppo.terminal import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.result import Chunk
    from edgesppo.repl.state import ReplState
    from edgesppo.terminal.screen import Screen

_TICK_S = 0.5
_QUIET_S = 0.4  # shorter prompts show no progress
_LINE_S = 5.0  # between two progress lines where nothing is redrawn


def status_lines(state: ReplState, n_tokens: int) -> list[str]:
    """Model, context use, tokens per second and session as one line, in ever shorter versions."""
    n_ctx = state.loaded.n_ctx
    share = f"{min(1.0, n_tokens / n_ctx):.0%}"
    full = f"{n_tokens:,} of {n_ctx:,} tokens, {share}"
    if n_tokens > n_ctx:
        full = f"context of {n_ctx:,} full"
        if state.chat.messages:
            full += ", the oldest turns will be left out"
    model, name = state.loaded.name, state.name or "not saved"
    rate = state.chat.last.timings.decode_tps if state.chat.answered else None
    speed = [f"{rate:,.1f} t/s"] if rate else []
    lines = [
        [model, full, *speed, name],
        [full, *speed, name],
        [share, *speed, name],
        [share, name],
    ]
    return [" | ".join(parts) for parts in lines]


def long_message(n_tokens: int, n_ctx: int) -> list[str]:
    """The tokens of a message that is being typed, in ever shorter versions."""
    if n_tokens >= n_ctx:
        line = f"this message is too long: {n_tokens:,} tokens or more, {n_ctx - 1:,} fit"
        return [line, f"{n_tokens:,} of {n_ctx:,} tokens"]
    return [f"this message: {n_tokens:,} of {n_ctx:,} tokens", f"{n_tokens:,} tokens"]


def longest(lines: Sequence[str], columns: int) -> str:
    """The first of several versions of a line that fits; else the last one, cut; safe to show."""
    lines = [*map(one_line, lines)]
    fitting = next((line for line in lines if cells.width(line) <= columns), lines[-1])
    return cells.text_of(cells.wrap(cells.cells(fitting), columns)[0])


class Prefill:
    """Shows the progress of a prompt until the first token of the answer.

    A context manager around an answer. On a screen that redraws it shows a transient line;
    elsewhere, if `shows_progress`, a line every few seconds. Between two chunks the progress is
    estimated, at first by `rate`: prefill tokens per second, as last measured; 0 if unknown.
    """

    def __init__(self, screen: Screen, rate: float, *, shows_progress: bool = True) -> None:
        self._screen = screen
        self._shows_progress = shows_progress
        self._rate = rate
        self._began = time.monotonic()
        self._total = self._done = 0
        self._done_at = self._began
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="edgesppo-progress", daemon=True)

    def __enter__(self) -> Prefill:
        if self._screen.redraws or self._shows_progress:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def expect(self, total: int, held: int) -> None:
        """Take the tokens of the prompt (0: unknown), and how many are in the KV cache already."""
        self._total, self._done = total, held

    def update(self, chunk: Chunk) -> None:
        """Take the progress from a chunk; the first one with text ends the display."""
        if self._over.is_set():
            return
        if chunk.text or chunk.finish_reason is not None:
            self.end()
            return
        now = time.monotonic()
        if chunk.prefilled > self._done:
            self._rate = (chunk.prefilled - self._done) / max(1e-6, now - self._done_at)
        self._done, self._total, self._done_at = chunk.prefilled, chunk.prompt_tokens, now

    def end(self) -> None:
        """Remove the line and show no more."""
        with self._screen.lock:
            if not self._over.is_set():
                self._over.set()
                self._screen.show_transient("")

    def _draw(self) -> None:
        wait, then = (_QUIET_S, _TICK_S) if self._screen.redraws else (_LINE_S, _LINE_S)
        while not self._over.wait(wait):
            wait = then
            with self._screen.lock:
                if not self._over.is_set():
                    self._show()

    def _show(self) -> None:
        if self._screen.redraws:
            self._screen.show_transient(longest(self._lines(), self._screen.size.columns - 1))
        else:
            self._screen.note(self._lines()[0])

    def _lines(self) -> list[str]:
        """The progress line, in ever shorter versions."""
        now = time.monotonic()
        if not self._total:
            line = f"processing the prompt, {now - self._began:.0f} s so far"
            return [f"{line} (Ctrl-C: stop)", line]
        done = min(self._total, self._done + self._rate * (now - self._done_at))
        progress = f"{done:,.0f} of {self._total:,} tokens"
        left = f", {(self._total - done) / self._rate:.0f} s left" if self._rate else ""
        line = f"processing the prompt: {progress}{left}"
        return [f"{line} (Ctrl-C: stop)", line, f"{progress}{left}"]
