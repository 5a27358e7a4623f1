"""One turn of one program in a process of its own: how long it loads, prefills and decodes.

The prompt is random tokens, the same for all, and the answer so many tokens whatever they are.
Ours runs as a user's `edgesppo.load` would, with the settings that were tuned on this machine, but
without drafts, which have a benchmark of their own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from edgesppo.gguf import gemma2
from tests.benchmarks import processes
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgesppo.llama.model import Model
    from tests.benchmarks.peers import Build

N_CTX_ROOM = 64
_FIRST_ID = 300  # below are control tokens and bytes

_OURS = "from tests.benchmarks import contestants; contestants.our_turn()"
_LLAMA = """
import json, sys, time
started = time.perf_counter()
from llama_cpp import Llama
what = json.loads(sys.argv[1])
llama = Llama(what["file"], n_ctx=what["n_ctx"], n_batch=512, n_threads=what["threads"],
              n_threads_batch=what["threads"], flash_attn=True, verbose=False)
loaded = time.perf_counter()
sys.path.insert(0, what["root"])
from tests.benchmarks.processes import proportional
pss = proportional()
begun, times = time.perf_counter(), []
for token in llama.generate(what["ids"], temp=0.0):
    times.append(time.perf_counter())
    llama.detokenize([token])
    if len(times) == what["answer"]:
        break
print(json.dumps({
    "load": loaded - started, "first": times[0] - begun, "turn": times[-1] - begun,
    "prefill": len(what["ids"]) / (times[0] - begun),
    "decode": (len(times) - 1) / (times[-1] - times[0]),
    "memory": pss, "memory after": proportional()}))
"""


def random_ids(n: int, n_vocab: int, seed: int = 1) -> list[int]:
    """`<bos>` and random ordinary tokens, `n` in total."""
    rng = random.Random(seed)
    return [2, *(rng.randrange(_FIRST_ID, n_vocab) for _ in range(n - 1))]


def prompt_ids(model: Model, n: int, seed: int = 1) -> list[int]:
    """The same for a loaded model, of any vocabulary."""
    rng = random.Random(seed)
    ids = [model.bos]
    while len(ids) < n:
        token = rng.randrange(_FIRST_ID, model.n_vocab)
        if not model.is_control(token):
            ids.append(token)
    return ids


def vocabulary_size(file: Path) -> int:
    """The number of tokens of a file's vocabulary."""
    return int(gemma2.load_summary(file).keys["tokenizer.ggml.tokens"])


def ours(file: Path, threads: int | None, prompt: int, answer: int) -> dict[str, float]:
    """One turn of ours; figures as `llama` has them. With `threads` None, on as many as it likes.

    A number that is given is kept, even where fewer would be faster beside other programs.
    """
    return _child([sys.executable, "-c", _OURS], _what(file, threads, prompt, answer))


def llama(
    build: Build, file: Path, threads: int, prompt: int, answer: int, n_ctx: int | None = None
) -> dict[str, float]:
    """One turn of llama-cpp-python's `Llama` over a build of llama.cpp.

    load (with the import), first (to the first token), turn: seconds. prefill, decode: tokens per
    second. memory (after loading), memory after (the turn): bytes of PSS.
    """
    what = _what(file, threads, prompt, answer)
    if n_ctx is not None:
        what["n_ctx"] = n_ctx
    return _child([sys.executable, "-c", _LLAMA], what, build.environment)


def llama_bench(build: Build, file: Path, threads: int, *work: str | int) -> list[float]:
    """Tokens per second of each test that llama-bench is told to make."""
    command = [build.tool("llama-bench"), "-m", file, *work, "-t", threads, "-fa", 1, "-r", 1]
    words = [str(word) for word in (*command, "-o", "json")]
    done = subprocess.run(words, check=True, capture_output=True)
    return [float(row["avg_ts"]) for row in json.loads(done.stdout)]


def batched_bench(
    build: Build,
    file: Path,
    threads: int,
    numbers: Sequence[int],
    *,
    prompt: int,
    answer: int,
    n_ctx: int,
) -> list[dict[str, float]]:
    """What llama-batched-bench finds for each number of sequences, `pl`.

    Among others the seconds of the prompts, t_pp, and of the answers, t_tg, and the answers' tokens
    per second, speed_tg.
    """
    words: list[str | Path | int] = [
        build.tool("llama-batched-bench"),
        "-m",
        file,
        "-npp",
        prompt,
        "-ntg",
        answer,
    ]
    words += ["-npl", ",".join(map(str, numbers)), "-c", n_ctx, "-t", threads, "-tb", threads]
    words += ["-fa", "on", "-kvu", "--output-format", "jsonl"]
    lines = processes.run(words).output.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def llama_bench_turn(
    build: Build, file: Path, threads: int, prompt: int, answer: int
) -> dict[str, float]:
    """Prefill of a prompt alone, and decode of an answer after a prompt of that length."""
    (prefill,) = llama_bench(build, file, threads, "-p", prompt, "-n", 0)
    (decode,) = llama_bench(build, file, threads, "-p", 0, "-n", answer, "-d", prompt)
    return {"prefill": prefill, "decode": decode}


def _what(file: Path, threads: int | None, prompt: int, answer: int) -> dict[str, Any]:
    return {
        "file": str(file),
        "threads": threads,
        "ids": random_ids(prompt, vocabulary_size(file)),
        "answer": answer,
        "n_ctx": prompt + answer + N_CTX_ROOM,
        "root": str(ROOT),
    }


def _child(
    command: Sequence[str], what: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    done = subprocess.run(
        [*command, json.dumps(what)],
        cwd=ROOT,
        env=processes.with_variables(environment),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def our_turn() -> None:
    """What the process of ours runs: `sys.argv[1]` says what."""
    import time

    started = time.perf_counter()
    import edgesppo
    from edgesppo import SamplingParams
    from tests.benchmarks.processes import proportional

    what = json.loads(sys.argv[1])
    model = edgesppo.load(
        what["file"], n_ctx=what["n_ctx"], n_threads=what["threads"], gpu="off", drafts=False
    )
    loaded, pss = time.perf_counter(), proportional()
    engine = model._interior.engine
    begun = time.perf_counter()
    request = engine.add(
        engine.prepare(what["ids"], SamplingParams(temperature=0, max_tokens=what["answer"]))
    )
    request.end_tokens = frozenset()
    for _ in engine.stream(request):
        pass
    ended = time.perf_counter()
    first, last = request.first_token_at, request.last_token_at
    assert first is not None
    assert last is not None
    figures = {
        "load": loaded - started,
        "first": first - request.submitted_at,
        "turn": ended - begun,
        "prefill": len(what["ids"]) / (first - request.submitted_at),
        "decode": (request.n_generated - 1) / (last - first),
        "memory": pss,
        "memory after": proportional(),
    }
    model.close()
    print(json.dumps(figures))
