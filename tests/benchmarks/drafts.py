"""Owns the measurement of guesses: decode with and without them, on answers that are given.

    python -m tests.benchmarks.drafts FILE.gguf [--rounds N]

Random weights have no sense, so the answer's tokens are put in the place of those that were
sampled (the sampling itself is done, and counts). One answer quotes its prompt with small changes,
one has nothing that was there before, one repeats short runs that go on otherwise each time. The
peer is llama-cpp-python's `Llama`: with its `LlamaPromptLookupDecoding` against without.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo import SamplingParams
from edgesppo._llama import Context
from edgesppo.engine import Engine
from edgesppo.model import Model
from edgesppo.tune import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.tune import Tuning

THREADS = 2
ANSWER = 192


def works(model: Model) -> dict[str, tuple[list[int], list[int]]]:
    """A prompt and an answer each: copied but for a token here and there, and all new."""
    rng = random.Random(5)
    ids = [rng.randrange(300, model.n_vocab) for _ in range(4 * ANSWER)]
    ids = [token for token in ids if not model.is_control(token)]
    text, fresh = ids[:ANSWER], ids[ANSWER : 2 * ANSWER]
    quoted = [token if (n + 1) % 24 else fresh[n] for n, token in enumerate(text)]
    few = ids[:12]
    return {
        "copy-heavy": ([model.bos, *text], quoted),
        "nothing to copy": ([model.bos, *text], fresh),
        "misleading": ([model.bos, *rng.choices(few, k=ANSWER)], rng.choices(few, k=ANSWER)),
    }


def ours(
    model: Model, tuning: Tuning, prompt: list[int], answer: list[int], *, drafts: bool
) -> float:
    """Tokens per second of the answer."""
    engine = Engine(
        model,
        n_ctx=1024,
        n_threads=THREADS,
        flash_attention=tuning.flash_attention,
        draft_costs=tuning.row_costs if drafts else None,
    )
    given: Iterator[int] = iter(answer)
    real = Context.sample

    def forced(self: Context, chain: Any, row: int) -> int:
        real(self, chain, row)
        return next(given)

    Context.sample = forced  # type: ignore[method-assign]
    try:
        request = engine.submit(prompt, SamplingParams(temperature=0, max_tokens=len(answer)))
        for _ in engine.stream(request):
            pass
    finally:
        Context.sample = real  # type: ignore[method-assign]
        engine.close()
    assert request.first_token_at is not None
    assert request.last_token_at is not None
    return (request.n_generated - 1) / (request.last_token_at - request.first_token_at)


_PEER = """
import json, sys, time
import numpy as np
from llama_cpp import Llama, llama_cpp
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding
path, prompt, answer, lookup = sys.argv[1], *(json.loads(word) for word in sys.argv[2:5])
draft = LlamaPromptLookupDecoding(num_pred_tokens=10, max_ngram_size=3) if lookup else None
llama = Llama(path, n_ctx=1024, n_batch=512, n_threads=2, flash_attn=True, draft_model=draft,
              logits_all=False, verbose=False)
given, real = iter(answer), Llama.sample
def forced(self, *args, **kwargs):
    real(self, *args, **kwargs)
    return next(given)
Llama.sample = forced
times = []
try:
    for token in llama.generate(prompt, temp=0.0):
        times.append(time.perf_counter())
except (StopIteration, RuntimeError):
    pass
print(json.dumps((len(times) - 1) / (times[-1] - times[0])))
"""


def peer(path: Path, prompt: list[int], answer: list[int], *, drafts: bool) -> float | None:
    """The same by `Llama`; None where it fails."""
    words = [json.dumps(value) for value in (prompt, answer, drafts)]
    done = subprocess.run([sys.executable, "-c", _PEER, str(path), *words], capture_output=True)
    return None if done.returncode else float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tuning = Measurement(options.file, "turn", lambda _: None).best()
    print(f"{tuning}")
    model = Model(options.file, gpu="off", repack=tuning.repack)
    found: dict[tuple[str, str, bool], list[float]] = {}
    for _ in range(options.rounds):
        for name, (prompt, answer) in works(model).items():
            for drafts in (False, True):
                rate = ours(model, tuning, prompt, answer, drafts=drafts)
                found.setdefault((name, "ours", drafts), []).append(rate)
                started = time.perf_counter()
                other = peer(options.file, prompt, answer, drafts=drafts)
                if other is None:
                    print(f"  Llama failed after {time.perf_counter() - started:.1f} s")
                else:
                    found.setdefault((name, "Llama", drafts), []).append(other)
    middle = {key: statistics.median(rates) for key, rates in found.items()}
    for (name, who, drafts), rate in middle.items():
        if drafts and (name, who, False) in middle:
            plain = middle[name, who, False]
            print(f"  {name}, {who}: {rate:.2f} t/s with, {plain:.2f} without, {rate / plain:.2f}x")
    model.close()


if __name__ == "__main__":
    main()
