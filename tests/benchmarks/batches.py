"""Measure batches against one row after another and against llama-batched-bench, in one run.

    python -m tests.benchmarks.batches FILE.gguf [--parallel N] [--rows N] [--tokens N]

llama-batched-bench, compiled as ours is, computes as many prompts of the same length and as many
tokens after them, and its prompts' time counts as ours does; it has no sampling, text or files. So
answers are greedy; what the default sampling costs beside that is told apart, and random weights,
among whose tokens none is likely, make it as dear as can be. In the last part all rows share a
system text of 512 tokens, and one row after another computes it anew. With `--ray ADDRESS` of a
cluster with this machine alone, Ray's own share is measured, too.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgesppo
from edgesppo.batches.batch import Batch
from edgesppo.batches.cluster import Cluster
from edgesppo.batches.input import open_rows
from edgesppo.batches.recipe import Recipe
from tests.benchmarks import files, peers
from tests.benchmarks.contestants import batched_bench
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgesppo.loaded_model import LoadedModel

SYSTEM_TOKENS = 512
GREEDY: dict[str, Any] = {"temperature": 0}
RAW_BATCH = f"llama-batched-bench, {peers.SAME}"
# How many times the tokens per second of each a batch should give.
ONE_BY_ONE, RAW, SHARED, RAY = 1.4, 0.97, 3.0, 0.97
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
            model, prompts(options), out, max_tokens=options.tokens, **{**GREEDY, **more}
        ):
            assert result.error is None, result.error
            tokens += result.completion_tokens
    return tokens / (time.perf_counter() - started)


def over_ray(cluster: Cluster, options: argparse.Namespace) -> float:
    """Tokens per second of the same batch by the machines of a cluster."""
    tokens = 0
    started = time.perf_counter()
    with open_rows(prompts(options)) as rows, tempfile.TemporaryDirectory() as folder:
        job = Batch(cluster, rows, Recipe({"max_tokens": options.tokens, **GREEDY}))
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
        chat = model.chat(system=system, max_tokens=options.tokens, **GREEDY)
        chat.ask(prompt)
        tokens += chat.last.usage.completion_tokens
    return tokens / (time.perf_counter() - started)


def raw(model: LoadedModel, options: argparse.Namespace) -> float:
    """Tokens per second of llama-batched-bench with prompts of the same length.

    The first token of each answer comes from its prompt.
    """
    n, n_tokens = options.parallel, options.tokens
    lengths = [len(model.tokenize(prompt, chat=True)) for prompt in prompts(options)]
    (row,) = batched_bench(
        *(peers.same_build(), options.file, options.threads, [n]),
        prompt=round(statistics.mean(lengths)),
        answer=n_tokens - 1,
        n_ctx=model.n_ctx,
    )
    return n * n_tokens / (row["t_pp"] + row["t_tg"])


def system_text(model: LoadedModel) -> str:
    """A text of about 512 tokens, or of half the context where that is smaller."""
    text = ""
    wanted = min(SYSTEM_TOKENS, model.n_ctx // 2)
    while model.count_tokens(text) < wanted:
        text += " ".join(WORDS) + ". "
    return text


def main() -> None:
    """Run the benchmark."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--ray", metavar="ADDRESS")
    options = parser.parse_args()
    report = Report(options)
    files.tuned(options.file)
    loading: dict[str, Any] = {"n_threads": options.threads, "gpu": "off", "drafts": False}
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(edgesppo.load(options.file, **loading))
        wide = stack.enter_context(edgesppo.load(options.file, n_seqs=options.parallel, **loading))
        compare_rows(report, options, alone, wide)
        if options.ray:
            arguments: dict[str, Any] = {"parallel": options.parallel, "loading": loading}
            path = str(options.file.resolve())
            cluster = stack.enter_context(Cluster(options.ray, path, say=print, **arguments))
            compare_ray(report, options, wide, cluster)


def compare_rows(
    report: Report, options: argparse.Namespace, alone: LoadedModel, wide: LoadedModel
) -> None:
    """Compare to one row after another, and to llama-batched-bench; then with a shared text."""
    measures: dict[str, Callable[[], float]] = {
        "ours": lambda: batch(wide, options),
        "one row after another": lambda: one_by_one(alone, options),
        RAW_BATCH: lambda: raw(wide, options),
        "sampled": lambda: batch(wide, options, temperature=0.7, seed=1),
    }
    found = in_turn(_rates(measures), options.rounds)
    goals = {"one row after another": ONE_BY_ONE, RAW_BATCH: RAW}
    rows = f"{options.rows} rows, {options.parallel} at once"
    for other, goal in goals.items():
        rates = (found["ours"]["rate"], other, found[other]["rate"])
        report.compare(rows, "tokens/s", *rates, more_is_better=True, goal=goal)
    rates = (found["sampled"]["rate"], "greedy", found["ours"]["rate"])
    report.compare(f"{rows}, sampled", "tokens/s", *rates, more_is_better=True, rival=False)
    text = system_text(wide)
    measures = {
        "ours": lambda: batch(wide, options, system=text),
        "one row after another": lambda: one_by_one(alone, options, text),
    }
    found = in_turn(_rates(measures), options.rounds)
    alone_rates = found["one row after another"]["rate"]
    report.compare(
        *(f"{rows}, {SYSTEM_TOKENS} tokens shared", "tokens/s", found["ours"]["rate"]),
        *("one row after another", alone_rates),
        more_is_better=True,
        goal=SHARED,
    )


def compare_ray(
    report: Report, options: argparse.Namespace, wide: LoadedModel, cluster: Cluster
) -> None:
    """Compare a batch over Ray to the same without."""
    measures: dict[str, Callable[[], float]] = {
        "over Ray": lambda: over_ray(cluster, options),
        "here": lambda: batch(wide, options),
    }
    found = in_turn(_rates(measures), options.rounds)
    rates = (found["over Ray"]["rate"], "without Ray", found["here"]["rate"])
    report.compare("batch over Ray", "tokens/s", *rates, more_is_better=True, goal=RAY, rival=False)


def _rates(measures: dict[str, Callable[[], float]]) -> dict[str, Measure]:
    return {name: partial(_rate, measure) for name, measure in measures.items()}


def _rate(measure: Callable[[], float]) -> dict[str, float]:
    return {"rate": measure()}


if __name__ == "__main__":
    main()
