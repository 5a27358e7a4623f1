"""Measure batches against one row after another and against llama.cpp's raw batch, in one run.

    python -m tests.benchmarks.batches FILE.gguf [--parallel N] [--rows N] [--tokens N]

Rounds alternate and medians are taken; only the ratios are comparable between machines. The raw
batch decodes as many sequences of the same lengths, without sampling, text or files. In the last
part all rows share a system text of 512 tokens, and one row after another computes it anew. With
`--ray ADDRESS` of a cluster with this machine alone, Ray's own share is measured, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgesppo
from edgesppo.batches.batch import Batch
from edgesppo.batches.cluster import Cluster
from edgesppo.batches.input import open_rows
from edgesppo.batches.recipe import Recipe
from edgesppo.llama.batch import Batch as TokenBatch
from edgesppo.llama.context import Context
from edgesppo.planning.run_config import ContextParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.loaded_model import LoadedModel

ROUNDS = 3
SYSTEM_TOKENS = 512
# Words of which prompts are made: for timing any text will do.
WORDS = [
    "the",
    "river",
    "runs",
    "past",
    "old",
    "stone",
    "walls",
    "and",
    "quiet",
    "fields",
    "under",
    "a",
    "wide",
    "grey",
    "sky",
]


def prompts(options: argparse.Namespace) -> list[str]:
    """A prompt of about 20 words for each row, none like another."""
    n = len(WORDS)
    return [
        " ".join([str(r), *(WORDS[(r * 7 + i) % n] for i in range(20))])
        for r in range(options.rows)
    ]


def batch(model: LoadedModel, options: argparse.Namespace, **more: Any) -> float:
    """Tokens per second of a whole batch into a file, its prompts' prefill included."""
    tokens = 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        for result in edgesppo.batch(
            model, prompts(options), out, max_tokens=options.tokens, seed=1, **more
        ):
            assert result.error is None, result.error
            tokens += result.completion_tokens
    return tokens / (time.perf_counter() - started)


def over_ray(cluster: Cluster, options: argparse.Namespace) -> float:
    """Tokens per second of the same batch by the machines of a cluster."""
    tokens = 0
    started = time.perf_counter()
    with open_rows(prompts(options)) as rows, tempfile.TemporaryDirectory() as folder:
        job = Batch(cluster, rows, Recipe({"max_tokens": options.tokens, "seed": 1}))
        with job.open_output(Path(folder) / "out.jsonl") as file:
            for result in job.run(None, file):
                tokens += result.completion_tokens
    return tokens / (time.perf_counter() - started)


def one_by_one(model: LoadedModel, options: argparse.Namespace, system: str | None = None) -> float:
    """Tokens per second of one row after another, each computed anew."""
    tokens = 0
    started = time.perf_counter()
    for prompt in prompts(options):
        model._interior.engine._cache.evict_idle()
        chat = model.chat(system=system, max_tokens=options.tokens, seed=1)
        chat.ask(prompt)
        tokens += chat.last.usage.completion_tokens
    return tokens / (time.perf_counter() - started)


def raw(model: LoadedModel, options: argparse.Namespace) -> float:
    """Tokens per second of llama.cpp's batch: prefill, then a token of each sequence at a time."""
    n = options.parallel
    params = ContextParams(
        model.n_ctx,
        n_seqs=n,
        n_outputs=n,
        n_threads=options.threads,
        n_threads_batch=options.threads,
    )
    context = Context(model._interior.engine.model.weights, params)
    lines = TokenBatch(context.n_batch)
    ids = [model.tokenize(prompt, chat=True) for prompt in prompts(options)]
    tokens = 0
    started = time.perf_counter()
    for first in range(0, len(ids), n):
        group = ids[first : first + n]
        for seq, prompt in enumerate(group):
            context.remove(seq, 0)
            lines.clear()
            lines.add(seq, 0, prompt, logits=1)
            context.decode(lines)
        for step in range(options.tokens - 1):
            lines.clear()
            for seq, prompt in enumerate(group):
                lines.add(seq, len(prompt) + step, [prompt[-1]], logits=1)
            context.decode(lines)
        tokens += options.tokens * len(group)
    seconds = time.perf_counter() - started
    context.close()
    return tokens / seconds


def medians(measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median rate of each, in alternating rounds."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: statistics.median(rates) for name, rates in found.items()}


def system_text(model: LoadedModel) -> str:
    """A text of about 512 tokens, or of half the context where that is smaller."""
    text = ""
    wanted = min(SYSTEM_TOKENS, model.n_ctx // 2)
    while model.count_tokens(text) < wanted:
        text += " ".join(WORDS) + ". "
    return text


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ray", metavar="ADDRESS")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, {options.file.name}")
    loading: dict[str, Any] = {"n_threads": options.threads, "gpu": "off"}
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(edgesppo.load(options.file, **loading))
        wide = stack.enter_context(edgesppo.load(options.file, n_seqs=options.parallel, **loading))
        rates = medians(
            {
                "one by one": lambda: one_by_one(alone, options),
                "batch": lambda: batch(wide, options),
                "raw batch": lambda: raw(wide, options),
            }
        )
        if options.ray:
            arguments: dict[str, Any] = {"parallel": options.parallel, "loading": loading}
            path = str(options.file.resolve())
            cluster = stack.enter_context(Cluster(options.ray, path, say=print, **arguments))
            here = {"batch": lambda: batch(wide, options)}
            both = medians({**here, "over Ray": lambda: over_ray(cluster, options)})
            print(f"Ray's share: {1 - both['over Ray'] / both['batch']:.1%}")
        text = system_text(wide)
        shared = medians(
            {
                "one by one": lambda: one_by_one(alone, options, text),
                "batch": lambda: batch(wide, options, system=text),
            }
        )
    for title, found in (("rows", rates), (f"with {SYSTEM_TOKENS} tokens shared", shared)):
        base = found["one by one"]
        print(title)
        for name, rate in found.items():
            print(f"  {name:<12}{rate:8.1f} tokens/s, {rate / base:.2f} of one by one")
    print(f"the batch reaches {rates['batch'] / rates['raw batch']:.2f} of the raw batch")


if __name__ == "__main__":
    main()
