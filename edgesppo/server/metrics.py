"""What the server counts, in the form of Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesppo.chat.result import Chunk, Usage
    from edgesppo.server.job import Job

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FIRST_TOKEN_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_BETWEEN_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 5, 30)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._info = Info("edgesppo", "The model and the version", registry=self._registry)
        self.requests = self._counter("requests", "HTTP requests", ("path", "status"))
        self.errors = self._counter(
            "errors", "Requests that ended with an error, also within a stream", ("code",)
        )
        self.key_refusals = self._counter("key_refusals", "API keys not accepted", ("reason",))
        self.refused_connections = self._counter(
            "refused_connections", "Connections that were not served", ("reason",)
        )
        self.unfinished = self._counter(
            "unfinished_answers", "Answers that were ended before they were whole", ("reason",)
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts")
        self.cached_tokens = self._counter("cached_tokens", "Those of them found in the KV cache")
        self.completion_tokens = self._counter("completion_tokens", "Tokens of answers")
        self.drafted_tokens = self._counter("drafted_tokens", "Tokens that were drafted")
        self.accepted_tokens = self._counter("accepted_draft_tokens", "Drafts that were right")
        self.steps = self._counter("steps", "Batches that were computed")
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "From the request to its first token", _FIRST_TOKEN_S
        )
        self.between_tokens = self._histogram(
            "inter_token_seconds", "Between two tokens of an answer", _BETWEEN_S
        )

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read when it is asked for."""
        Gauge(f"edgesppo_{name}", text, registry=self._registry).set_function(read)

    def describe(self, **facts: str) -> None:
        """Tell facts about the server, as labels of `edgesppo_info`."""
        self._info.info(facts)

    def observe(self, job: Job, chunks: Sequence[Chunk]) -> None:
        """Note the tokens of an answer that have come with these chunks."""
        n_tokens = sum(len(chunk.ids) for chunk in chunks)
        if not n_tokens:
            return
        now = time.perf_counter()
        if job.last_token_at is None:
            self.first_token.observe(now - job.arrived_at)
        else:
            for _ in range(n_tokens):
                self.between_tokens.observe((now - job.last_token_at) / n_tokens)
        job.last_token_at = now

    def count(self, usage: Usage, n_drafted: int, n_accepted: int) -> None:
        """Count the tokens of an answer that has ended."""
        self.prompt_tokens.inc(usage.prompt_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.completion_tokens.inc(usage.completion_tokens)
        self.drafted_tokens.inc(n_drafted)
        self.accepted_tokens.inc(n_accepted)

    def render(self) -> bytes:
        """All figures as text."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"edgesppo_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"edgesppo_{name}", text, registry=self._registry, buckets=buckets)
