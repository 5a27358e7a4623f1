"""How cost grows: with the tokens before, and with the number of sequences.

    python -m tests.benchmarks.growth FILE.gguf [--depths N ...] [--sequences N ...]

Prefill of 512 more tokens and decode after so many tokens, beside llama-bench; and decoding so many
sequences at once, beside llama-batched-bench. The peers are as pip compiles them here.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import edgesppo
from edgesppo import SamplingParams
from tests.benchmarks import contestants, files, peers
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from edgesppo.engine.engine import Engine

STEP, ANSWER, SHORT = 512, 8, 16
GREEDY = SamplingParams(temperature=0, max_tokens=ANSWER)
RAW = 0.95  # share of llama.cpp's raw batch that ours should reach


def main() -> None:
    """Measure both."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--depths", type=int, nargs="*", default=[0, 1536, 3584, 7552])
    parser.add_argument("--sequences", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    report = Report(options)
    files.tuned(options.file)
    if options.depths:
        compare_depths(report, options)
    if options.sequences:
        compare_sequences(report, options)


def compare_depths(report: Report, options: argparse.Namespace) -> None:
    """Prefill and decode after so many tokens."""
    work = (options.file, options.threads, options.depths)
    measures: dict[str, Measure] = {
        "ours": partial(our_depths, *work),
        "llama-bench": partial(llama_bench_depths, peers.pip_build(), *work),
    }
    found = in_turn(measures, options.rounds)
    for key, mine in found["ours"].items():
        rates = (mine, f"llama-bench, {peers.PIP}", found["llama-bench"][key])
        report.compare(key, "tokens/s", *rates, more_is_better=True)


def our_depths(file: Path, threads: int, depths: Sequence[int]) -> dict[str, float]:
    """Tokens per second of ours, by depth; each prompt goes on where the one before ended."""
    ids = contestants.random_ids(max(depths) + STEP, contestants.vocabulary_size(file))
    found = {}
    n_ctx = len(ids) + 2 * ANSWER
    with edgesppo.load(file, n_ctx=n_ctx, n_threads=threads, gpu="off", drafts=False) as model:
        engine = model._interior.engine
        _rates(engine, ids[:SHORT], 1)  # warm-up
        for depth in depths:
            _, decode = _rates(engine, ids[: depth or 1], ANSWER)
            prefill, _ = _rates(engine, ids[: depth + STEP], 1)
            found[f"prefill of {STEP} after {depth} tokens"] = prefill
            found[f"decode after {depth} tokens"] = decode
    return found


def _rates(engine: Engine, ids: list[int], n: int) -> tuple[float, float]:
    """Tokens per second of what is new of a prompt, and of an answer of `n` tokens to it."""
    request = engine.add(engine.prepare(ids, GREEDY.replace(max_tokens=n)))
    request.end_tokens = frozenset()
    for _ in engine.stream(request):
        pass
    first, last = request.first_token_at, request.last_token_at
    assert first is not None
    assert last is not None
    new = request.n_prompt - request.n_cached
    return new / (first - request.submitted_at), (n - 1) / max(last - first, 1e-9)


def llama_bench_depths(
    build: peers.Build, file: Path, threads: int, depths: Sequence[int]
) -> dict[str, float]:
    """The same by llama-bench."""
    found = {}
    for depth in depths:
        words = ("-p", STEP, "-n", ANSWER, "-d", depth)
        prefill, decode = contestants.llama_bench(build, file, threads, *words)
        found[f"prefill of {STEP} after {depth} tokens"] = prefill
        found[f"decode after {depth} tokens"] = decode
    return found


def compare_sequences(report: Report, options: argparse.Namespace) -> None:
    """Tokens per second of so many sequences together."""
    work = (options.file, options.threads, options.sequences)
    builds = (peers.pip_build(), peers.same_build())
    measures: dict[str, Measure] = {"ours": partial(our_sequences, *work)}
    for build in builds:
        measures[f"llama-batched-bench, {build.name}"] = partial(raw_sequences, build, *work)
    found = in_turn(measures, options.rounds)
    for key, mine in found["ours"].items():
        for peer in list(measures)[1:]:
            goal = RAW if peer.endswith(peers.SAME) else None
            rates = (mine, peer, found[peer][key])
            report.compare(key, "tokens/s", *rates, more_is_better=True, goal=goal)


def _sequences(n: int) -> str:
    return f"decode of {n} sequences at once" if n > 1 else "decode of one sequence"


def our_sequences(file: Path, threads: int, numbers: Sequence[int]) -> dict[str, float]:
    """Tokens per second of our engine, all sequences together."""
    found = {}
    size = contestants.vocabulary_size(file)
    for n in numbers:
        with edgesppo.load(
            file, n_ctx=256 * n, n_seqs=n, n_threads=threads, gpu="off", drafts=False
        ) as model:
            engine = model._interior.engine
            params = GREEDY.replace(max_tokens=4 * ANSWER)
            requests = [
                engine.add(engine.prepare(contestants.random_ids(SHORT, size, seed), params))
                for seed in range(n)
            ]
            for request in requests:
                request.end_tokens = frozenset()
            while any(request.n_generated == 0 for request in requests):
                engine.step()
            before = sum(request.n_generated for request in requests)
            started = time.perf_counter()
            while all(request.finish_reason is None for request in requests):
                engine.step()
            seconds = time.perf_counter() - started
            n_tokens = sum(request.n_generated for request in requests) - before
            found[_sequences(n)] = n_tokens / seconds
    return found


def raw_sequences(
    build: peers.Build, file: Path, threads: int, numbers: Sequence[int]
) -> dict[str, float]:
    """Tokens per second of llama-batched-bench, all sequences together."""
    rows = contestants.batched_bench(
        *(build, file, threads, numbers),
        prompt=SHORT,
        answer=4 * ANSWER,
        n_ctx=256 * max(numbers),
    )
    return {_sequences(int(row["pl"])): row["speed_tg"] for row in rows}


if __name__ == "__main__":
    main()
