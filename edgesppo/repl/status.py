"""Owns the words on what goes on: the status line, and how far a prompt is."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from edgesppo.terminal import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.generation import Chunk
    from edgesppo.repl.state import ReplState
    from edgesppo.terminal.screen import Screen

_TICK_S = 0.5
_QUIET_S = 0.4  # what is over sooner needs no words
_SAID_S = 5.0  # between words that stay


def stage(talk: ReplState) -> str:
    """What is being done until the model is there."""
    found = talk.loading.stage if talk.loading is not None else ""
    return found or f"Loading {talk.found.name}"


def status_lines(talk: ReplState, n_tokens: int) -> list[str]:
    """The model, how full the context is, tokens per second, the session; then in fewer words."""
    n_ctx = talk.loaded.engine.n_ctx
    share = f"{min(1.0, n_tokens / n_ctx):.0%}"
    full = f"{n_tokens:,} of {n_ctx:,} tokens, {share}"
    if n_tokens > n_ctx:
        full = f"{n_ctx:,} tokens full, the oldest turns will be left out"
    model, name = talk.loaded.name, talk.name or "not saved"
    rate = talk.chat.last.timings.decode_tps if talk.chat.answered else None
    speed = [f"{rate:,.1f} t/s"] if rate else []
    lines = [
        [model, full, *speed, name],
        [full, *speed, name],
        [share, *speed, name],
        [share, name],
    ]
    return [" | ".join(parts) for parts in lines]


def longest(lines: Sequence[str], columns: int) -> str:
    """The first of the lines that fits; else the last, as far as it does."""
    found = next((line for line in lines if cells.width(line) <= columns), lines[-1])
    return cells.text_of(cells.rows(cells.cells(found), columns)[0])


class Prefill:
    """Says how far the prompt is, until the first token comes; estimates between the steps.

    A context manager around an answer. Where nothing is drawn over, a line is said now and then,
    if `tells`. Of its `total` tokens (0: unknown) `held` are in the KV
    cache; `rate` is the prefill's tokens per second as last measured, 0 where it never was.
    """

    def __init__(
        self, screen: Screen, total: int, held: int, rate: float, *, tells: bool = True
    ) -> None:
        self._screen = screen
        self._tells = tells
        self._rate = rate
        self._began = time.monotonic()
        self._total, self._done = total, held
        self._done_at = self._began
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="edgesppo-progress", daemon=True)

    def __enter__(self) -> Prefill:
        if self._screen.moves or self._tells:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def drawing(self) -> bool:
        """Whether anybody is told."""
        return self._thread.is_alive()

    def heard(self, chunk: Chunk) -> None:
        """A piece of the answer, or of the prompt's way."""
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
        """Take the line away, for good."""
        with self._screen.lock:
            if not self._over.is_set():
                self._over.set()
                self._screen.pass_by("")

    def _draw(self) -> None:
        wait, then = (_QUIET_S, _TICK_S) if self._screen.moves else (_SAID_S, _SAID_S)
        while not self._over.wait(wait):
            wait = then
            with self._screen.lock:
                if not self._over.is_set():
                    self._show()

    def _show(self) -> None:
        if self._screen.moves:
            self._screen.pass_by(longest(self._lines(), self._screen.size.columns - 1))
        else:
            self._screen.say(self._lines()[0])

    def _lines(self) -> list[str]:
        """How far it is, and in fewer words."""
        now = time.monotonic()
        if not self._total:
            line = f"reading the prompt, {now - self._began:.0f} s so far"
            return [f"{line} (Ctrl-C stops)", line]
        done = min(self._total, self._done + self._rate * (now - self._done_at))
        way = f"{done:,.0f} of {self._total:,} tokens"
        left = f", {(self._total - done) / self._rate:.0f} s left" if self._rate else ""
        line = f"reading the prompt: {way}{left}"
        return [f"{line} (Ctrl-C stops)", line, f"{way}{left}"]
