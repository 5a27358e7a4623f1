"""Measure decoding bound to a schema, against free decoding and against `Llama`.

    python -m tests.benchmarks.schema FILE.gguf

On the same file with the same grammar. A file of random weights is the hardest case: where the
grammar requires a certain text nearly every free draw is forbidden, and sampling with the defaults
keeps nearly the whole vocabulary.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.model import Model
from edgesppo.schema import grammar
from tests.benchmarks import peers
from tests.benchmarks.contestants import prompt_ids
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

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
    request = engine.add(engine.prepare(ids, params, grammar=gbnf))
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
    environment = {**os.environ, **peers.pip_build().environment}
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measured(path: Path, sampling: dict[str, float]) -> dict[str, float]:
    """Tokens per second in one round: bound, and free."""
    gbnf = grammar(BOOKS)
    model = Model(path, gpu="off")
    # Without drafts, so that every token is decoded by itself.
    engine = Engine(model, n_ctx=2048, n_threads=THREADS, flash_attention="on", draft_costs=None)
    ids = prompt_ids(model, PROMPT)
    engine.cancel(
        engine.add(engine.prepare(ids, SamplingParams(), grammar=gbnf))
    )  # reads the vocabulary
    rates = {
        "free": ours(engine, ids, sampling, None),
        "bound": ours(engine, ids, sampling, gbnf),
    }
    engine.close()
    model.close()
    return rates


def llama_measured(path: Path, sampling: dict[str, float]) -> dict[str, float]:
    """Tokens per second of `Llama` in one round, bound to the same grammar."""
    model = Model(path, vocabulary_only=True)
    ids = prompt_ids(model, PROMPT)
    model.close()
    return {"bound": llama(path, ids, sampling, grammar(BOOKS))}


def main() -> None:
    """Measure greedy and sampled decoding."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", choices=SAMPLINGS, default=list(SAMPLINGS))
    options = parser.parse_args()
    report = Report(options)
    for name in options.only:
        measures: dict[str, Measure] = {
            "ours": partial(measured, options.file, SAMPLINGS[name]),
            "Llama": partial(llama_measured, options.file, SAMPLINGS[name]),
        }
        found = in_turn(measures, options.rounds)
        bound = found["ours"]["bound"]
        others = {"free": found["ours"]["free"], "Llama": found["Llama"]["bound"]}
        for peer, rates in others.items():
            what = f"decode bound to a schema, {name}"
            told = (what, "tokens/s", bound, "not bound" if peer == "free" else peer, rates)
            rival = peer != "free"
            report.compare(*told, more_is_better=True, goal=LIMITS[peer], rival=rival)


if __name__ == "__main__":
    main()
