"""Token counts and speeds as the APIs write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.chat.generation import Timings, Usage
    from edgesppo.server.job import Job


def usage_of(usages: Sequence[Usage], n: int) -> dict[str, Any]:
    """The counts of a request's answers, `n` to each prompt, which counts once."""
    prompt = sum(usage.prompt_tokens for usage in usages[::n])
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": sum(usage.cached_tokens for usage in usages[::n])
        },
    }


def timings_of(job: Job, timings: Timings | None) -> dict[str, Any]:
    """The speed of an answer, and how long it waited for a sequence, in seconds."""
    waited = None if job.admitted_at is None else job.admitted_at - job.created_at
    return {
        "queue_s": waited,
        "ttft_s": None if timings is None else timings.ttft_s,
        "prefill_tps": None if timings is None else timings.prefill_tps,
        "decode_tps": None if timings is None else timings.decode_tps,
    }
