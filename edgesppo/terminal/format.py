"""Models, answers, figures and times as text for a terminal."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

from edgesppo.interior import interior

if TYPE_CHECKING:
    from edgesppo.chat.result import Result
    from edgesppo.engine.engine import Engine
    from edgesppo.loaded_model import LoadedModel
    from edgesppo.sessions.persistent_chat import Resumed

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LABEL, _COLUMNS = 8, 79
_ENDS = {"stop": "", "length": " | cut off at the limit", "cancelled": " | stopped"}


def speed_line(result: Result) -> str:
    """One line: tokens, time to the first token in seconds, and tokens per second of an answer."""
    usage, timings = result.usage, result.timings
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    parts = [f"{usage.prompt_tokens} tokens in{cached}, {usage.completion_tokens} out"]
    if timings.ttft_s is None:
        parts.append(f"prefill {timings.prefill_tps:,.1f} t/s | stopped before the first token")
    else:
        parts.append(f"first token {timings.ttft_s:.2f} s")
        rates = f"prefill {timings.prefill_tps:,.1f} t/s, decode {timings.decode_tps:,.1f} t/s"
        parts.append(rates + _ENDS[result.finish_reason])
    if result.left_out:
        parts.append(f"{oldest_turns(result.left_out)} left out")
    return f"[{' | '.join(parts)}]"


def one_line(text: str, most: int = 60) -> str:
    """A text on one line, cut to at most so many characters."""
    line = " ".join(text[: 10 * most].split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def n_turns(n: int) -> str:
    """A number of turns: "1 turn", "2 turns"."""
    return "1 turn" if n == 1 else f"{n:,} turns"


def oldest_turns(n: int) -> str:
    """A number of the oldest turns: "the oldest turn", "the oldest 2 turns"."""
    return "the oldest turn" if n == 1 else f"the oldest {n:,} turns"


def n_tokens(n: int) -> str:
    """A number of tokens: "1 token", "1,024 tokens"."""
    return "1 token" if n == 1 else f"{n:,} tokens"


def describe(loaded: LoadedModel) -> str:
    """One line on a loaded model: name, size, context, device, threads, seconds to load."""
    inside = interior(loaded)
    if inside.url is not None:
        return f"{loaded.name} at {inside.url} | context {loaded.n_ctx}"
    model = inside.engine.model
    where = f"{model.n_gpu_layers} layers on the GPU" if model.n_gpu_layers else "CPU"
    return (
        f"{loaded.name} | {_short(model.weights.n_params, 'B')} params, "
        f"{_short(model.summary.file_bytes, 'G')}B | context {loaded.n_ctx} | "
        f"{where}, {_threads(inside.engine)} | loaded in {_seconds(loaded.load_s)} s"
    )


def _seconds(s: float) -> str:
    return f"{s:.1f}" if s >= 10 else f"{s:.2f}"


def _short(n: float, billions: str) -> str:
    """3.8 M; from a billion on 9.2 and `billions`: "B" for parameters, "G" for bytes."""
    return f"{n / 1e9:,.1f} {billions}" if n >= 1e9 else f"{n / 1e6:,.1f} M"


def _threads(engine: Engine) -> str:
    """The number of threads, and that for prompts if it differs."""
    n, n_batch = engine.n_threads, engine.n_threads_batch
    threads = "1 thread" if n == 1 else f"{n} threads"
    return threads if n == n_batch else f"{threads} ({n_batch} for the prompt)"


def resumed_line(name: str, resumed: Resumed) -> str:
    """One line on a resumed chat: turns, tokens restored, and the time that this saved."""
    line = f"Resumed {name!r}: {n_turns(resumed.n_turns)}"
    if resumed.n_tokens:
        line += f", {resumed.n_tokens:,} tokens restored"
        if resumed.saved_s is not None:
            digits = 1 if resumed.saved_s >= 1 else 2
            line += f", {resumed.saved_s:,.{digits}f} s of prefill saved"
    elif resumed.n_turns and resumed.n_tokens is not None:
        line += ", which will be prefilled again"
        line += f": {resumed.why_nothing}" if resumed.why_nothing else ""
    if resumed.other_model is not None and resumed.n_turns:
        line += f" (the last answer was by another model, {resumed.other_model})"
    return line


def saving_line(n_bytes: int) -> str:
    """One line before a long write of a chat's KV state."""
    return f"Saving the KV cache, {n_bytes / 1e6:,.0f} MB (Ctrl-C: skip)"


def ago(when: float) -> str:
    """How long ago a Unix time is: "just now", "5 min ago", "3 days ago"."""
    seconds = max(0.0, time.time() - when)
    if seconds < _MINUTE:
        return "just now"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min ago"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h ago"
    return f"{seconds // _DAY:.0f} days ago"


def labelled(label: str, text: str) -> str:
    """An indented label and a text, wrapped to 79 columns under its own start."""
    start = f"  {label:<{_LABEL}} "
    indent = " " * len(start)
    return textwrap.fill(
        text,
        _COLUMNS,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
