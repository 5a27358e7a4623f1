"""Measure the cost of sampling: log-probabilities against plain decoding, and each stage.

    python -m tests.benchmarks.sampling FILE.gguf [--tokens N]

Use a file of random weights: their flat distributions are the worst case for stages that sort.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from edgesppo.llama.sampler_chain import build_chain
from edgesppo.planning.run_config import ContextParams
from edgesppo.system import hardware
from tests.benchmarks.contestants import prompt_ids
from tests.benchmarks.record import Record, Report, argument_parser

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 2
PLAIN = SamplingParams(temperature=0)
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


def logprobs(report: Report, model: Model, n_tokens: int) -> None:
    """Compare decoding with the top 5 log-probabilities to plain decoding, alternating by token."""
    engine = Engine(model, n_ctx=1024, n_threads=THREADS, flash_attention="on", draft_costs=None)
    kinds = {"plain": PLAIN, "top 5": PLAIN.replace(logprobs=5)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    memory: dict[str, int] = {}
    request = engine.add(engine.prepare(prompt_ids(model, 64), PLAIN.replace(max_tokens=n_tokens)))
    names, events = itertools.cycle(kinds), engine.stream(request)
    next(events)
    while request.finish_reason is None:
        name = next(names)
        request.params = kinds[name].replace(max_tokens=n_tokens)
        seconds[name].append(_seconds(lambda: next(events)))
        memory[name] = hardware.resident_memory() or 0
    engine.close()
    plain, top = ([1 / one for one in found] for found in seconds.values())
    n = min(len(plain), len(top))
    memory_mb = " and ".join(f"{n / 1e6:,.0f} MB" for n in memory.values())
    report.add(
        Record(
            name="decode with the top 5 log-probabilities",
            unit="tokens/s",
            ours=statistics.median(top),
            peer="without",
            theirs=statistics.median(plain),
            ratio=statistics.median(top) / statistics.median(plain),
            rounds=n,
            more_is_better=True,
            rival=False,
            note=f"alternating by token; resident without and with {memory_mb}",
        )
    )


def stages(report: Report, model: Model) -> None:
    """The time to sample a token with each stage, against a step of decoding."""
    context = Context(model.weights, ContextParams(n_ctx=512, n_threads=THREADS))
    batch, ids = Batch(64), prompt_ids(model, 48)
    batch.add(0, 0, ids[:32], logits=1)
    context.decode(batch)
    decodes = []
    for position, token in enumerate(ids[32:], 32):
        batch.clear()
        row = batch.add(0, position, [token], logits=1)
        decodes.append(_seconds(lambda: _decode(context, batch)))
    step_s = statistics.median(decodes)
    for name, params in STAGES.items():
        chain = build_chain(params, model.weights, 512)
        chain.recall(ids)
        times = [_seconds(lambda: context.sample(chain, row)) for _ in range(15)]  # noqa: B023
        chain.close()
        of_step = [step_s] * len(times)
        report.compare(f"sampling, {name}", "s", times, "a step of decoding", of_step, rival=False)
    context.close()


def _decode(context: Context, batch: Batch) -> None:
    context.decode(batch)
    context.row(0)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Run both measurements."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokens", type=int, default=300)
    options = parser.parse_args()
    report, model = Report(options), Model(options.file, gpu="off")
    logprobs(report, model, options.tokens)
    stages(report, model)
    model.close()


if __name__ == "__main__":
    main()
