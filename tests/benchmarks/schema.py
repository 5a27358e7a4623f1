"""Measure decoding bound to a schema, against free decoding and against `Llama`.

    python -m tests.benchmarks.schema FILE.gguf

All in one run on the same file with the same grammar. Rounds alternate and medians are taken; only
ratios are comparable between machines. A file of random weights is the hardest case: where the
grammar requires a certain text nearly every free draw is forbidden, and sampling with the defaults
keeps nearly the whole vocabulary.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.model import Model
from edgesppo.schema import grammar
from tests.benchmarks.engine import prompt_ids

PROMPT, ANSWER, THREADS = 32, 40, 2
LIMITS = {"free": 0.9, "Llama": 1.0}
BOOK = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "year": {"type": "integer", "minimum": 1450, "maximum": 2030},
        "kind": {"enum": ["novel", "play", "poem", "essay"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
        "in_print": {"type": "boolean"},
    },
    "required": ["title", "year", "kind", "tags", "in_print"],
}
BOOKS = {"type": "array", "items": BOOK, "minItems": 50}  # longer than the answer
SAMPLINGS = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 0.7, "top_p": 0.9}}

_LLAMA_PROGRAM = """
import json, sys, time
from llama_cpp import Llama, LlamaGrammar
path, work = sys.argv[1], json.loads(sys.argv[2])
llama = Llama(path, n_ctx=2048, n_batch=512, n_threads=work["threads"],
              n_threads_batch=work["threads"], flash_attn=True, verbose=False, seed=1)
grammar = LlamaGrammar.from_string(work["grammar"], verbose=False)
times = []
for token in llama.generate(work["ids"], temp=work["temperature"], top_p=work.get("top_p", 1.0),
                            top_k=0, min_p=0.0, grammar=grammar):
    times.append(time.perf_counter())
    if len(times) == work["n"]:
        break
print(json.dumps((len(times) - 1) / (times[-1] - times[0])))
"""


def ours(engine: Engine, ids: list[int], sampling: dict[str, float], gbnf: str | None) -> float:
    """Tokens per second of an answer by edgesppo; `gbnf` None: not bound."""
    params = SamplingParams(max_tokens=ANSWER, seed=1, **sampling)  # type: ignore[arg-type]
    request = engine.submit(ids, params, grammar=gbnf)
    for _ in engine.stream(request):
        pass
    first, last = request.first_token_at, request.last_token_at
    assert first is not None
    assert last is not None
    return (request.n_generated - 1) / (last - first)


def llama(path: Path, ids: list[int], sampling: dict[str, float], gbnf: str) -> float:
    """Tokens per second of llama-cpp-python's `Llama`, bound to the same grammar."""
    work = {"ids": ids, "grammar": gbnf, "n": ANSWER, "threads": THREADS, **sampling}
    command = [sys.executable, "-c", _LLAMA_PROGRAM, str(path), json.dumps(work)]
    done = subprocess.run(command, check=True, capture_output=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measured(path: Path, sampling: dict[str, float], rounds: int) -> dict[str, float]:
    """Median tokens per second over the rounds: bound, free, and of `Llama`."""
    gbnf = grammar(BOOKS)
    rates: dict[str, list[float]] = {"bound": [], "free": [], "Llama": []}
    for _ in range(rounds):
        model = Model(path, gpu="off")
        # Without drafts, so that every token is decoded by itself.
        engine = Engine(
            model, n_ctx=2048, n_threads=THREADS, flash_attention="on", draft_costs=None
        )
        ids = prompt_ids(model, PROMPT)
        engine.cancel(engine.submit(ids, SamplingParams(), grammar=gbnf))  # reads the vocabulary
        rates["free"].append(ours(engine, ids, sampling, None))
        rates["bound"].append(ours(engine, ids, sampling, gbnf))
        engine.close()
        model.close()
        rates["Llama"].append(llama(path, ids, sampling, gbnf))
    return {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    """Measure greedy and sampled decoding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", choices=SAMPLINGS, default=list(SAMPLINGS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    path = options.file
    started = time.perf_counter()
    gbnf = grammar(BOOKS)
    seconds = time.perf_counter() - started
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, {path.name}")
    print(f"grammar of {len(gbnf)} bytes made in {seconds * 1000:.0f} ms")
    for name in options.only:
        rates = measured(path, SAMPLINGS[name], options.rounds)
        line = f"{name}: bound {rates['bound']:.2f} t/s"
        for peer, limit in LIMITS.items():
            line += f" | {peer} {rates[peer]:.2f} t/s, ratio {rates['bound'] / rates[peer]:.3f}"
            line += f" (limit {limit})"
        print(line)


if __name__ == "__main__":
    main()
