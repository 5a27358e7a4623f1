"""Owns how answers and their figures read on a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesppo.generate import Result

# A model must not be able to steer the terminal: C0 and C1 control characters but \t and \n.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ENDS = {"stop": "", "length": " | cut at the limit", "cancelled": " | stopped"}


def speed_line(result: Result) -> str:
    """Tokens, time to the first token, and tokens per second of one answer."""
    usage, timings = result.usage, result.timings
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    parts = [f"{usage.prompt_tokens} tokens in{cached}, {usage.completion_tokens} out"]
    if timings.ttft_s is None:
        parts.append(f"prefill {timings.prefill_tps:,.1f} t/s | stopped before the first token")
    else:
        parts.append(f"first {timings.ttft_s:.2f} s")
        rates = f"prefill {timings.prefill_tps:,.1f} t/s, decode {timings.decode_tps:,.1f} t/s"
        parts.append(rates + _ENDS[result.finish_reason])
    if result.left_out:
        parts.append(f"the oldest {result.left_out} turns no longer fit")
    return f"[{' | '.join(parts)}]"


def printable(text: str) -> str:
    """The text with control characters made visible instead of obeyed."""
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
