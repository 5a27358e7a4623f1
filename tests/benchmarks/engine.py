"""Measure the runtime against its peers, in one run on the same file, as ratios.

    python -m tests.benchmarks.engine FILE.gguf [--llama-bench PATH] [--only NAME ...]

Peers are llama.cpp's llama-bench (built from the source distribution of llama-cpp-python) and
llama-cpp-python's `Llama`. Because machines are noisy, rounds alternate, medians are taken, and
only ratios are comparable between machines. Every printed figure was measured in this run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgesppo
from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from edgesppo.planning.run_config import RunConfig
from edgesppo.tuning.autotune import Search

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT, ANSWER, ROUNDS = 512, 48, 3
TURN = 128  # tokens of a typical answer
THREADS = 2
DEFAULTS = RunConfig(THREADS, THREADS, flash_attention="on")
GREEDY = SamplingParams(temperature=0, max_tokens=ANSWER)


def prompt_ids(model: Model, n: int, seed: int = 1) -> list[int]:
    """`<bos>` and random ordinary tokens, `n` in total; for timing any text will do."""
    rng = random.Random(seed)
    ids = [model.bos]
    while len(ids) < n:
        token = rng.randrange(300, model.n_vocab)
        if not model.is_control(token):
            ids.append(token)
    return ids


def answer(engine: Engine, ids: list[int], n: int = ANSWER) -> tuple[float, float]:
    """Seconds to the first token, and per later token, of an answer of `n` tokens."""
    request = engine.submit(ids, GREEDY.replace(max_tokens=n))
    for _ in engine.stream(request):
        pass
    first, last = request.first_token_at, request.last_token_at
    assert first is not None
    assert last is not None
    steps = max(1, request.n_generated - 1)
    return first - request.submitted_at, (last - first) / steps


def speed(path: Path, options: argparse.Namespace) -> None:
    """Compare prefill and decode to llama-bench with the same settings, and to `Llama`."""
    ours, bench, llama = _Rates(), _Rates(), _Rates()
    for _ in range(ROUNDS):
        ours.add(_our_rates(path, DEFAULTS, ANSWER))
        if options.llama_bench:
            bench.add(_llama_bench(path, options.llama_bench))
        llama.add(_llama_streaming(path))
    for name in ("prefill", "decode"):
        line = f"  {name}: {ours.median(name):.2f} t/s"
        for peer, rates in (("llama-bench", bench), ("Llama", llama)):
            if rates.found:
                ratio = ours.median(name) / rates.median(name)
                line += f" | {peer} {rates.median(name):.2f} t/s, ratio {ratio:.3f}"
        print(line)


def tuning(path: Path, _options: argparse.Namespace) -> None:
    """Compare a typical turn with autotuned settings to one with llama.cpp's defaults."""
    started = time.perf_counter()
    chosen = Search(path, "turn", lambda _: None).best()
    print(f"  found in {time.perf_counter() - started:.1f} s: {chosen}")
    ours, defaults = _Rates(), _Rates()
    for _ in range(ROUNDS):
        ours.add(_our_rates(path, chosen, TURN))
        defaults.add(_our_rates(path, DEFAULTS, TURN))
    for name in ("prefill", "decode"):
        mine, other = ours.median(name), defaults.median(name)
        print(f"  {name}: {mine:.2f} t/s | defaults {other:.2f} t/s, ratio {mine / other:.3f}")
    print(f"  a turn of {PROMPT} + {TURN}: ratio {defaults.seconds() / ours.seconds():.3f}")


class _Rates:
    """Tokens per second of prefill and decode in each round."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def add(self, rates: dict[str, float]) -> None:
        self.found.append(rates)

    def median(self, name: str) -> float:
        return statistics.median(rates[name] for rates in self.found)

    def seconds(self) -> float:
        """Median seconds of a whole turn."""
        return statistics.median(
            PROMPT / rates["prefill"] + TURN / rates["decode"] for rates in self.found
        )


def _our_rates(path: Path, tuning: RunConfig, n: int) -> dict[str, float]:
    model = Model(path, gpu="off", repack=tuning.repack)
    engine = Engine(
        model,
        n_ctx=2048,
        n_threads=tuning.n_threads,
        n_threads_batch=tuning.n_threads_batch,
        n_ubatch=tuning.n_ubatch,
        flash_attention=tuning.flash_attention,
    )
    wait, step = answer(engine, prompt_ids(model, PROMPT), n)
    engine.close()
    model.close()
    return {"prefill": PROMPT / wait, "decode": 1 / step}


def _engine(path: Path, **options: Any) -> tuple[Model, Engine]:
    model = Model(path, gpu="off")
    settings = {"n_ctx": 2048, "n_threads": THREADS, "flash_attention": "on", **options}
    return model, Engine(model, **settings)


def _llama_bench(path: Path, program: Path) -> dict[str, float]:
    """llama-bench: the prompt alone, and an answer after a prompt of the same length."""
    works = {
        "prefill": ["-p", PROMPT, "-n", 0],
        "decode": ["-p", 0, "-n", ANSWER, "-d", PROMPT],
    }
    rates = {}
    for name, work in works.items():
        command = [program, "-m", path, *work, "-t", THREADS, "-fa", 1, "-r", 1, "-o", "json"]
        words = [str(word) for word in command]
        (row,) = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        rates[name] = float(row["avg_ts"])
    return rates


_LLAMA_PROGRAM = """
import json, sys, time
from llama_cpp import Llama
path, ids, n, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
llama = Llama(path, n_ctx=2048, n_batch=512, n_threads=threads, n_threads_batch=threads,
              flash_attn=True, verbose=False)
started, times = time.perf_counter(), []
for token in llama.generate(ids, temp=0.0):
    times.append(time.perf_counter())
    llama.detokenize([token])
    if len(times) == n:
        break
print(json.dumps({"prefill": len(ids) / (times[0] - started),
                  "decode": (n - 1) / (times[-1] - times[0])}))
"""


def _llama_streaming(path: Path) -> dict[str, float]:
    model = Model(path, vocabulary_only=True)
    ids = json.dumps(prompt_ids(model, PROMPT))
    model.close()
    command = [sys.executable, "-c", _LLAMA_PROGRAM, str(path), ids, str(ANSWER), str(THREADS)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1]
    )
    return found


def python_share(path: Path, _options: argparse.Namespace) -> None:
    """Measure the share of a decode step that is not spent in llama.cpp."""
    native = 0.0

    def timed(name: str) -> Callable[..., Any]:
        real = getattr(Context, name)

        def call(*args: Any) -> Any:
            nonlocal native
            started = time.perf_counter()
            try:
                return real(*args)
            finally:
                native += time.perf_counter() - started

        return call

    model, engine = _engine(path)
    ids = prompt_ids(model, 16)
    answer(engine, ids, 4)
    kept = {name: getattr(Context, name) for name in ("decode", "sample")}
    for name in kept:
        setattr(Context, name, timed(name))
    started = time.perf_counter()
    answer(engine, ids, ANSWER)
    total = time.perf_counter() - started
    for name, real in kept.items():
        setattr(Context, name, real)
    print(f"  Python's share of a decode step: {1 - native / total:.2%} of {total / ANSWER:.4f} s")
    engine.close()
    model.close()


def batching(path: Path, _options: argparse.Namespace) -> None:
    """Measure tokens per second of 1, 4 and 8 sequences decoding at once."""
    rates: dict[int, float] = {}
    for n in (1, 4, 8):
        model, engine = _engine(path, n_seqs=n, n_ctx=4096)
        requests = [
            engine.submit(prompt_ids(model, 16, seed), GREEDY.replace(max_tokens=32))
            for seed in range(n)
        ]
        while any(request.n_generated == 0 for request in requests):
            engine.step()
        before = sum(request.n_generated for request in requests)
        started = time.perf_counter()
        while all(request.finish_reason is None for request in requests):
            engine.step()
        seconds = time.perf_counter() - started
        rates[n] = (sum(request.n_generated for request in requests) - before) / seconds
        engine.close()
        model.close()
    base = rates[1]
    print(
        "  " + ", ".join(f"{n}: {rate:.2f} t/s ({rate / base:.2f}x)" for n, rate in rates.items())
    )


def turns(path: Path, _options: argparse.Namespace) -> None:
    """Compare the time to the first token of turn 10 to turn 1, with as many new tokens."""
    model, engine = _engine(path, n_ctx=2048)
    ids: list[int] = [model.bos]
    waits = []
    for turn in range(10):
        ids += prompt_ids(model, 65, seed=turn)[1:]
        request = engine.submit(ids, GREEDY.replace(max_tokens=8))
        for _ in engine.stream(request):
            pass
        assert request.first_token_at is not None
        waits.append(request.first_token_at - request.submitted_at)
        ids = list(request.tokens)
    print(f"  turn 1 {waits[0]:.3f} s, turn 10 {waits[-1]:.3f} s, ratio {waits[-1] / waits[0]:.2f}")
    engine.close()
    model.close()


def restart(path: Path, _options: argparse.Namespace) -> None:
    """Compare restoring 2,000 tokens of history from a snapshot to prefilling them."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "chat.json"
        with edgesppo.load(path, n_ctx=4096, n_threads=THREADS, gpu="off") as first:
            chat = first.chat(temperature=0, max_tokens=2)
            text = "word " * 1000
            started = time.perf_counter()
            chat.ask(text)
            chat.ask(text)
            prefill = time.perf_counter() - started
            tokens = chat.last.usage.prompt_tokens
            first.save(chat, saved)
        with edgesppo.load(path, n_ctx=4096, n_threads=THREADS, gpu="off") as again:
            started = time.perf_counter()
            resumed = again.resume(saved, temperature=0, max_tokens=2)
            seconds = time.perf_counter() - started
            resumed.ask("x")
            cached = resumed.last.usage.cached_tokens
        size = saved.with_name("chat.json.kv").stat().st_size
    print(
        f"  {tokens} tokens prefilled in {prefill:.2f} s, restored in {seconds:.3f} s "
        f"({cached} cached, {size / 1e6:.0f} MB), ratio {seconds / prefill:.4f}"
    )


def cancel(path: Path, _options: argparse.Namespace) -> None:
    """Measure how soon a cancelled prefill returns, as a share of the whole prefill."""
    model, engine = _engine(path, n_ctx=4096 + 64)
    ids = prompt_ids(model, 4000)
    rate = PROMPT / answer(engine, prompt_ids(model, PROMPT, seed=9), 1)[0]
    whole = len(ids) / rate
    request = engine.submit(ids, GREEDY)
    asked: list[float] = []

    def stop() -> None:
        asked.append(time.perf_counter())
        engine.cancel(request)

    timer = threading.Timer(min(5.0, whole / 3), stop)
    timer.start()
    for _ in engine.stream(request):
        pass
    seconds = time.perf_counter() - asked[0]
    print(
        f"  cancelled at {request.n_prefilled} tokens, back after {seconds:.3f} s; the prefill "
        f"takes about {whole:.0f} s, ratio {seconds / whole:.4f}"
    )
    timer.join()
    engine.close()
    model.close()


BENCHMARKS = {
    "speed": speed,
    "tuning": tuning,
    "python_share": python_share,
    "batching": batching,
    "turns": turns,
    "restart": restart,
    "cancel": cancel,
}


def main() -> None:
    """Run all benchmarks, or the named ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, {options.file.name}")
    for name in options.only:
        print(name)
        BENCHMARKS[name](options.file, options)


if __name__ == "__main__":
    main()
