"""Compare builds of llama.cpp by our own engine: the same model, the same settings, in turn.

    python -m tests.benchmarks.builds FILE.gguf NAME=WHEEL [NAME=WHEEL ...] [--rounds N] [--busy N]

Each wheel is unpacked, and each round starts one process for each wheel and each way to hold the
weights and the threads: repacked or plain, a pool of threads or threads that are started for each
batch. Medians, with the least and the greatest, of tokens per second; a turn is PROMPT tokens in
and ANSWER out. --busy keeps N processors busy meanwhile. Wheels that were compiled before are in
HOME/wheels (`edgesppo build`).

Measured on 2 cores beside other programs, the 2B shape, 192 tokens in and 24 out, four and five
rounds of which the quiet ones are told: link-time optimisation (-flto) prefill 43 to 46 against 39
to 40 tokens/s with repacked weights, 54 to 55 against 53 to 56 with plain ones, decode 3.1 to 3.8
against 3.6 to 3.9; -mprefer-vector-width=512 prefill 36 to 39 and 54 to 55, decode 3.2 to 3.7. Long
prompts are computed over plain weights, so neither is used. CMake's release build has -O3 already.
Huge pages: the kernel of that machine refused to collapse the repacked weights (EINVAL).

On cores that a dozen other programs kept busy, a model of 59 MB on two threads, GCC 12, two rounds:
with threads that yield while they wait (native_build/builds.py) prefill 250 to 390 and decode 2.4
to 3.5 tokens/s, with ggml's own spinning 61 to 92 and 0.7 to 0.8; with the Clang of ziglang 0.17.1,
beside about six, decode 35 to 37 and 8 to 23. Between a pool of threads and threads started anew no
difference could be told there.

Settings of the pool, a fifth of the 2B, repacked, two threads, 128 in and 12 out, five rounds in
turn, on a machine that others used as well, so that only large differences could be told. Beside
one busy program: without polling between batches (as it is) prefill 240 and decode 8.5 (4.5 to
13.8), polling 50: 256 and 13.0 (11.1 to 15.2), both threads pinned: 242 and 9.6 (4.5 to 13.5), one
thread alone: decode 17.7 (10.5 to 18.6), which is what the engine goes over to (engine/pace.py);
llama-bench of pip's build prefill 100 (80 to 306) and decode 14.5 (2.5 to 20.7). Without it the
best rounds decoded 34.6 tokens/s, polling 50 35.4, polling 100 30.0, pinned 28.8. Beside eight busy
programs polling 1 or 50 gave decode 6.1 and 5.5 against 6.2. So none is used. A higher priority is
a real-time one on Linux: users may not have it, and threads that wait would keep others from the
processor.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from tests.benchmarks import processes

PROMPT, ANSWER = 512, 128


def main() -> None:
    """Measure all builds in turn, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("wheels", nargs="+", metavar="NAME=WHEEL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--prompt", type=int, default=PROMPT)
    parser.add_argument("--answer", type=int, default=ANSWER)
    options = parser.parse_args()
    with processes.busy(options.busy), tempfile.TemporaryDirectory() as folder:
        _compare(options, Path(folder))


def _compare(options: argparse.Namespace, folder: Path) -> None:
    builds = dict(text.split("=", 1) for text in options.wheels)
    for name, wheel in builds.items():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / name)
    ways = list(itertools.product(builds, ("repacked", "plain"), ("pool", "anew")))
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            found[way].append(_run(options, folder, way))
            print(*way, found[way][-1], file=sys.stderr)
    for way, rounds in found.items():
        figures = "  ".join(_figure(name, [one[name] for one in rounds]) for name in rounds[0])
        print(f"{' '.join(way):<24} {figures}")


def _figure(name: str, values: list[float]) -> str:
    return f"{name} {statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})"


def _run(options: argparse.Namespace, folder: Path, way: tuple[str, str, str]) -> dict[str, float]:
    """One round of one way, in a process of its own."""
    name, weights, threads = way
    program = "from tests.benchmarks import builds; builds.measure()"
    what = {
        "file": str(options.file),
        "repack": weights == "repacked",
        "pool": threads == "pool",
        **{key: getattr(options, key) for key in ("threads", "prompt", "answer")},
    }
    paths = [str(folder / name), str(Path(__file__).parents[2])]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    figures: dict[str, float] = processes.figures_of(program, what, environment)
    return figures


def measure() -> None:
    """What a process measures: `sys.argv[1]` says of what."""
    from edgesppo import SamplingParams
    from edgesppo.engine.engine import Engine
    from edgesppo.llama import context as contexts
    from edgesppo.llama.model import Model

    what: dict[str, Any] = json.loads(sys.argv[1])
    if not what["pool"]:
        setattr(contexts, "can_keep_threads", lambda _: False)  # noqa: B010
    started = time.perf_counter()
    model = Model(Path(what["file"]), repack=what["repack"])
    engine = Engine(
        model,
        n_ctx=what["prompt"] + what["answer"] + 64,
        n_threads=what["threads"],
        flash_attention="on",
        draft_costs=None,
    )
    loaded = time.perf_counter()
    ids = [model.bos] + [(n * 7919) % (model.n_vocab - 300) + 300 for n in range(what["prompt"])]
    for prompt, answer in ((ids[:33], 4), (ids[: what["prompt"]], what["answer"])):
        # No end token can end it: the figures are of so many tokens.
        params = SamplingParams(temperature=0, max_tokens=answer)
        begun = time.perf_counter()
        request = engine.add(engine.prepare(prompt, params))
        request.end_tokens = frozenset()
        n = sum(1 for event in engine.stream(request) if event.token is not None)
        ended = time.perf_counter()
    assert request.first_token_at is not None
    assert request.last_token_at is not None
    decode_s = request.last_token_at - request.first_token_at
    figures = {
        "prefill": len(prompt) / (ended - begun - decode_s),
        "decode": (n - 1) / decode_s,
        "turn_s": ended - begun,
        "load_s": loaded - started,
    }
    engine.close()
    model.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
