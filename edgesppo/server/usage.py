"""The speed of an answer as the APIs write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import TypedDict

if TYPE_CHECKING:
    from edgesppo.chat.result import Timings
    from edgesppo.server.job import Job


class TimingsBody(TypedDict):
    """The speed of an answer: seconds until it began and to the first token, tokens per second."""

    queue_s: float | None
    ttft_s: float | None
    prefill_tps: float | None
    decode_tps: float | None


def timings_of(job: Job, timings: Timings | None) -> TimingsBody:
    """The speed of an answer, and how long it waited for a sequence, in seconds."""
    waited = None if job.admitted_at is None else job.admitted_at - job.arrived_at
    return {
        "queue_s": waited,
        "ttft_s": None if timings is None else timings.ttft_s,
        "prefill_tps": None if timings is None else timings.prefill_tps,
        "decode_tps": None if timings is None else timings.decode_tps,
    }
