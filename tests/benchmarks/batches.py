"""Measure batches against one row after another and against llama-batched-bench, in one run.

    python -m tests.benchmarks.batches FILE.gguf [--parallel N] [--rows N] [--tokens N]

llama-batched-bench, compiled as ours is, computes as many prompts of the same length and as many
tokens after them, and its prompts' time counts as ours does; it has no sampling, text or files. So
answers are greedy; what the default sampling costs beside that is told apart, and random weights,
among whose tokens none is likely, make it dearest. In the second part all rows share a
system text of 512 tokens, and one row after another computes it anew. The last part, where Ray is
installed, is its own share: the same batch by one machine of a cluster, and without Ray. The
cluster runs during its own rounds only.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
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
_numbers = itertools.count()
RAW_BATCH = f"llama-batched-bench, {peers.SAME}"
# How many times the tokens per second of each a batch should give.
ONE_BY_ONE, RAW, SHARED, RAY = 1.4, 0.97, 3.0, 0.97
PARTS = ("rows", "shared", "ray")
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


def over_ray(options: argparse.Namespace, loading: dict[str, Any]) -> float:
    """Tokens per second of the same batch by a cluster of this machine, started for it alone."""
    utilities: Any = importlib.import_module("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    ray = utilities.Cluster(initialize_head=True, head_node_args=node)
    try:
        path, parallel = str(options.file.resolve()), options.parallel
        with Cluster(
            ray.address, path, parallel=parallel, loading=loading, say=lambda _: None
        ) as cluster:
            _by_cluster(cluster, prompts(options)[:parallel], 8)  # as the other model, it is warm
            return _by_cluster(cluster, prompts(options), options.tokens)
    finally:
        ray.shutdown()


def _by_cluster(cluster: Cluster, asked: list[str], n_tokens: int) -> float:
    tokens = 0
    started = time.perf_counter()
    with open_rows(asked) as rows, tempfile.TemporaryDirectory() as folder:
        job = Batch(cluster, rows, Recipe({"max_tokens": n_tokens, **GREEDY}))
        with job.open_output(Path(folder) / "out.jsonl") as file:
            for result in job.run(None, file):
                assert result.error is None, result.error
                tokens += result.completion_tokens
    return tokens / (time.perf_counter() - started)


def one_by_one(model: LoadedModel, options: argparse.Namespace, system: str | None = None) -> float:
    """Tokens per second of one row after another, each computed anew.

    So each has another number before the system text, which nothing in memory begins with. A few
    rows do: the rate does not depend on their number.
    """
    tokens = 0
    started = time.perf_counter()
    for prompt in prompts(options)[: options.parallel]:
        model._interior.engine._cache.evict_idle()
        own = None if system is None else f"{next(_numbers)}. {system}"
        chat = model.chat(system=own, max_tokens=options.tokens, **GREEDY)
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
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    options = parser.parse_args()
    report = Report(options)
    files.tuned(options.file)
    loading: dict[str, Any] = {"n_threads": options.threads, "gpu": "off", "drafts": False}
    with edgesppo.load(options.file, n_seqs=options.parallel, **loading) as wide:
        if "rows" in options.only or "shared" in options.only:
            with edgesppo.load(options.file, **loading) as alone:
                if "rows" in options.only:
                    compare_rows(report, options, alone, wide)
                if "shared" in options.only:
                    compare_shared(report, options, alone, wide)
        if "ray" not in options.only:
            return
        if importlib.util.find_spec("ray") is None:
            print('Ray\'s share is left out: it is not installed (pip install ".[ray]")')
            return
        compare_ray(report, options, wide, loading)


def compare_rows(
    report: Report, options: argparse.Namespace, alone: LoadedModel, wide: LoadedModel
) -> None:
    """Compare a batch to one row after another, and to llama-batched-bench."""
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


def compare_shared(
    report: Report, options: argparse.Namespace, alone: LoadedModel, wide: LoadedModel
) -> None:
    """Compare a batch whose rows share a system text to one row after another."""
    text = system_text(wide)
    measures: dict[str, Callable[[], float]] = {
        "ours": lambda: batch(wide, options, system=text),
        "one row after another": lambda: one_by_one(alone, options, text),
    }
    found = in_turn(_rates(measures), options.rounds)
    alone_rates = found["one row after another"]["rate"]
    rows = f"{options.rows} rows, {options.parallel} at once"
    report.compare(
        *(f"{rows}, {SYSTEM_TOKENS} tokens shared", "tokens/s", found["ours"]["rate"]),
        *("one row after another", alone_rates),
        more_is_better=True,
        goal=SHARED,
    )


def compare_ray(
    report: Report, options: argparse.Namespace, wide: LoadedModel, loading: dict[str, Any]
) -> None:
    """Compare a batch by a cluster of one machine to the same without Ray."""
    measures: dict[str, Callable[[], float]] = {
        "over Ray": lambda: over_ray(options, loading),
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
