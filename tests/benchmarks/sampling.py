"""Owns what sampling costs: log-probabilities against plain decoding, each stage a token.

    python -m tests.benchmarks.sampling FILE.gguf [--rounds N]

Random weights have flat distributions, which is the worst case for stages that sort.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from edgesppo import SamplingParams, machine
from edgesppo._llama import Context, ContextParams
from edgesppo.batch import Batch
from edgesppo.engine import Engine
from edgesppo.model import Model
from edgesppo.sampler import build_chain
from tests.benchmarks.engine import prompt_ids

THREADS = 2
ANSWER = 48
PLAIN = SamplingParams(temperature=0, max_tokens=ANSWER)
STAGES = {
    "greedy": PLAIN,
    "greedy, penalties": PLAIN.replace(repeat_penalty=1.1),
    "defaults": SamplingParams(seed=1),
    "top_k 40": SamplingParams(seed=1, top_k=40),
    "min_p 0.05": SamplingParams(seed=1, top_p=1.0, min_p=0.05),
    "typical_p 0.9": SamplingParams(seed=1, top_p=1.0, typical_p=0.9),
    "DRY": SamplingParams(temperature=0, dry_multiplier=0.8),
    "mirostat 2": SamplingParams(seed=1, mirostat=2),
}


def decode_rate(engine: Engine, ids: list[int], params: SamplingParams) -> float:
    """Tokens per second behind the first. End tokens do not end it."""
    request = engine.submit(ids, params)
    for _ in engine.stream(request):
        pass
    first, last = request.first_token_at, request.last_token_at
    assert first is not None
    assert last is not None
    return (request.n_generated - 1) / (last - first)


def logprobs(model: Model, rounds: int) -> None:
    """Decode with the top 5 against plain decode, in turns, and what both take of memory."""
    engine = Engine(model, n_ctx=1024, n_threads=THREADS, flash_attention="on", draft_costs=None)
    ids = prompt_ids(model, 64)
    decode_rate(engine, ids, PLAIN)
    kinds = {"plain": PLAIN, "top 5": PLAIN.replace(logprobs=5)}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    memory = {}
    for _ in range(rounds):
        for name, params in kinds.items():
            rates[name].append(decode_rate(engine, ids, params))
            memory[name] = machine.resident_memory()
    engine.close()
    plain, top = (statistics.median(rates[name]) for name in kinds)
    pairs = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    print(f"  plain {plain:.2f} t/s, top 5 {top:.2f} t/s, ratio {top / plain:.3f} ({pairs:.3f})")
    sizes = ", ".join(f"{name} {(size or 0) / 1e6:,.0f} MB" for name, size in memory.items())
    print(f"  resident: {sizes}")


def stages(model: Model) -> None:
    """Milliseconds that a token's choice takes, beside those of its decode step."""
    context = Context(model.weights, ContextParams(n_ctx=512, n_threads=THREADS))
    batch, ids = Batch(64), prompt_ids(model, 48)
    batch.add(0, 0, ids[:32], logits=1)
    context.decode(batch)
    steps = []
    for position, token in enumerate(ids[32:], 32):
        batch.clear()
        row = batch.add(0, position, [token], logits=1)
        steps.append(_seconds(lambda: (context.decode(batch), context.row(0))))
    print(f"  decode step {statistics.median(steps) * 1e3:.1f} ms")
    for name, params in STAGES.items():
        chain = build_chain(params, model.weights, 512)
        chain.recall(ids)
        times = [_seconds(lambda: context.sample(chain, row)) for _ in range(15)]  # noqa: B023
        chain.close()
        print(f"  {name}: {statistics.median(times) * 1e3:.2f} ms")
    context.close()


def _seconds(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    model = Model(options.file, gpu="off")
    print("log-probabilities")
    logprobs(model, options.rounds)
    print("stages")
    stages(model)
    model.close()


if __name__ == "__main__":
    main()
