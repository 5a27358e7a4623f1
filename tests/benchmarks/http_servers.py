"""Start a server, wait until it answers, stream answers from it, and stop it."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.benchmarks.processes import main_thread_cpu, proportional, with_variables

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence

LOADING_S = 600
_POLL_S = 0.05
# The words of prompts; each is a few tokens.
WORDS = [
    "river",
    "stone",
    "light",
    "music",
    "garden",
    "window",
    "winter",
    "paper",
    "ocean",
    "silver",
    "forest",
    "morning",
]


@dataclass
class Answer:
    """When a request was sent, when each piece of text came, and when it ended, in seconds.

    `n_tokens` are those of the answer, which may have ended before it was as long as it might be.
    """

    sent: float
    tokens: list[float]
    n_tokens: int
    ended: float = 0.0

    @property
    def first_s(self) -> float:
        """Seconds to the first text; to the end if a byte or a control token was all."""
        return (self.tokens[0] if self.tokens else self.ended) - self.sent

    @property
    def gaps(self) -> list[float]:
        """Seconds between two tokens."""
        return [b - a for a, b in zip(self.tokens, self.tokens[1:], strict=False)]


@dataclass
class Running:
    """A server process, and its address."""

    process: subprocess.Popen[bytes]
    url: str
    load_s: float

    def ask(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        n_tokens: int,
        begun: threading.Event | None = None,
    ) -> Answer:
        """Stream one answer to its end; `begun` is set when it has begun."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        body = {
            "messages": messages,
            "max_tokens": n_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = Answer(time.perf_counter(), [], n_tokens)
        url, timeout = f"{self.url}/v1/chat/completions", httpx.Timeout(LOADING_S)
        with httpx.stream("POST", url, json=body, timeout=timeout, trust_env=False) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                event = json.loads(line[6:]) if line.startswith("data: {") else {}
                if usage := event.get("usage"):
                    answer.n_tokens = usage["completion_tokens"]
                if _has_text(event):
                    answer.tokens.append(time.perf_counter())
                    if begun is not None:
                        begun.set()
        answer.ended = time.perf_counter()
        return answer

    def own_cpu(self) -> float:
        """CPU seconds of the thread that serves HTTP, which computes nothing, until now."""
        return main_thread_cpu(self.process.pid)

    def memory(self) -> int:
        """The process's proportional share of memory, in bytes."""
        return proportional(self.process.pid)


def _has_text(event: dict[str, Any]) -> bool:
    return any(choice["delta"].get("content") for choice in event.get("choices", []))


@contextlib.contextmanager
def started(
    words: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Start a server and wait until it answers; stop it gently at the end."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        words,
        env=with_variables(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(url):
            if process.poll() is not None or time.perf_counter() - begin > LOADING_S:
                raise SystemExit(f"it did not start: {' '.join(words)}")
            time.sleep(_POLL_S)
        yield Running(process, url, time.perf_counter() - begin)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    """Whether the model is loaded: before, servers answer with an error or not at all."""
    with contextlib.suppress(httpx.TransportError):
        if httpx.get(f"{url}/v1/models", trust_env=False).status_code != 200:
            return False
        health = httpx.get(f"{url}/health", trust_env=False)
        return health.status_code in (200, 404)
    return False


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def text(n_words: int, seed: int, shared: int = 0) -> str:
    """A prompt of so many words; the first `shared` words are the same for all seeds."""
    same, own = random.Random(0), random.Random(seed)
    words = [same.choice(WORDS) for _ in range(shared)]
    return " ".join([*words, *(own.choice(WORDS) for _ in range(n_words - shared))])
