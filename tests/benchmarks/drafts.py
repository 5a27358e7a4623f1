"""Measure speculative decoding: with and without drafts, on answers that are given.

    python -m tests.benchmarks.drafts FILE.gguf [--rounds N]
    python -m tests.benchmarks.drafts DEMO.gguf --own [--rounds N]

Random weights give meaningless answers, so the given answer's tokens replace the sampled ones (the
sampling is still done and timed). One answer quotes its prompt with small changes, one contains
only new tokens, one repeats short runs that continue differently each time. The peer is
llama-cpp-python's `Llama`, with and without its `LlamaPromptLookupDecoding`.

With `--own` nothing is forced: the demo answers its own kinds of prompts, and the speed-up and the
tokens per step are printed.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo import SamplingParams
from edgesppo.chat.messages import Message
from edgesppo.chat.template import encode
from edgesppo.engine.engine import Engine
from edgesppo.llama.context import Context
from edgesppo.llama.model import Model
from tests.benchmarks import files, peers
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.planning.run_config import RunConfig

THREADS = 2
ANSWER = 96
LOOKUP = "Llama with its prompt lookup"


def works(model: Model) -> dict[str, tuple[list[int], list[int]]]:
    """(prompt, answer) of each kind, as token ids."""
    rng = random.Random(5)
    ids = [rng.randrange(300, model.n_vocab) for _ in range(4 * ANSWER)]
    ids = [token for token in ids if not model.is_control(token)]
    text, fresh = ids[:ANSWER], ids[ANSWER : 2 * ANSWER]
    quoted = [token if (n + 1) % 24 else fresh[n] for n, token in enumerate(text)]
    few = ids[:12]
    return {
        "copy-heavy": ([model.bos, *text], quoted),
        "nothing to copy": ([model.bos, *text], fresh),
        "misleading": ([model.bos, *rng.choices(few, k=ANSWER)], rng.choices(few, k=ANSWER)),
    }


def ours(
    model: Model, tuning: RunConfig, prompt: list[int], answer: list[int], *, drafts: bool
) -> float:
    """Tokens per second of the answer by edgesppo."""
    engine = Engine(
        model,
        n_ctx=1024,
        n_threads=THREADS,
        flash_attention=tuning.flash_attention,
        draft_costs=tuning.row_costs if drafts else None,
    )
    given: Iterator[int] = iter(answer)
    real = Context.sample

    def forced(self: Context, chain: Any, row: int) -> int:
        real(self, chain, row)
        return next(given)

    Context.sample = forced  # type: ignore[method-assign]
    try:
        request = engine.add(
            engine.prepare(prompt, SamplingParams(temperature=0, max_tokens=len(answer)))
        )
        for _ in engine.stream(request):
            pass
    finally:
        Context.sample = real  # type: ignore[method-assign]
        engine.close()
    assert request.first_token_at is not None
    assert request.last_token_at is not None
    return (request.n_generated - 1) / (request.last_token_at - request.first_token_at)


_PEER = """
import json, sys, time
import numpy as np
from llama_cpp import Llama, llama_cpp
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding
path, prompt, answer, lookup = sys.argv[1], *(json.loads(word) for word in sys.argv[2:5])
draft = LlamaPromptLookupDecoding(num_pred_tokens=10, max_ngram_size=3) if lookup else None
llama = Llama(path, n_ctx=1024, n_batch=512, n_threads=2, flash_attn=True, draft_model=draft,
              logits_all=False, verbose=False)
given, real = iter(answer), Llama.sample
def forced(self, *args, **kwargs):
    real(self, *args, **kwargs)
    return next(given)
Llama.sample = forced
times = []
try:
    for token in llama.generate(prompt, temp=0.0):
        times.append(time.perf_counter())
except (StopIteration, RuntimeError):
    pass
print(json.dumps((len(times) - 1) / (times[-1] - times[0])))
"""


OWN = {
    "repeat": (
        "My cat is called Pinterelli.",
        "What is my cat called?",
        "Say it again, please.",
        "And once more: what is my cat called?",
    ),
    "facts": (
        "What is the capital of France?",
        "What is the capital of Italy?",
        "What is the capital of Spain?",
    ),
    "lists": ("Name the days of the week.", "Name the planets.", "Count from one to ten."),
    "product": (
        "How do I convert a checkpoint?",
        "How do I chat with a model?",
        "How do I convert a checkpoint?",
    ),
    "small talk": ("Hello! Who are you?", "Tell me a joke.", "Goodbye!"),
}


def own(path: Path, tuning: RunConfig, *, drafts: bool) -> dict[str, tuple[float, int, int]]:
    """(seconds, tokens, steps) of the decoding in each dialogue of OWN."""
    model = Model(path, gpu="off", repack=tuning.repack)
    found = {}
    for name, texts in OWN.items():
        costs = tuning.row_costs if drafts else None
        flash = tuning.flash_attention
        engine = Engine(model, n_threads=THREADS, flash_attention=flash, draft_costs=costs)
        seconds, n_tokens, n_steps, messages = 0.0, 0, 0, list[Message]()
        for text in texts:
            messages.append(Message("user", text))
            ids = encode(model, messages)
            request = engine.add(
                engine.prepare(ids, SamplingParams(temperature=0, max_tokens=ANSWER))
            )
            while request.n_generated == 0 and request.finish_reason is None:
                engine.step()  # the prefill gives the first token
            first, started = request.n_generated, time.perf_counter()
            while request.finish_reason is None:
                engine.step()
                n_steps += 1
            seconds += time.perf_counter() - started
            n_tokens += request.n_generated - first + (request.finish_reason == "stop")
            answer = request.tokens[request.n_prompt :]
            messages.append(Message("assistant", model.detokenize(answer).decode()))
        engine.close()
        found[name] = (seconds, n_tokens, n_steps)
    model.close()
    return found


def main_own(path: Path, tuning: RunConfig, rounds: int) -> None:
    """Print the speed-up by drafts for each of the demo's own dialogues."""
    own(path, tuning, drafts=True)  # warm-up
    runs = [[own(path, tuning, drafts=drafts) for drafts in (False, True)] for _ in range(rounds)]
    for name in OWN:
        rates = [
            [one[name][1] / one[name][0] for one in (run[place] for run in runs)]
            for place in (0, 1)
        ]
        plain, quick = map(statistics.median, rates)
        _, n_tokens, n_steps = runs[0][1][name]
        print(
            f"  {name}: {quick:.1f} t/s with, {plain:.1f} without, {quick / plain:.2f}x; "
            f"{n_tokens} tokens in {n_steps} steps, {n_tokens / n_steps:.2f} a step"
        )


def peer(path: Path, prompt: list[int], answer: list[int], *, drafts: bool) -> float:
    """Tokens per second of the answer by `Llama`, with or without its own drafts."""
    words = [json.dumps(value) for value in (prompt, answer, drafts)]
    environment = {**os.environ, **peers.pip_build().environment}
    command = [sys.executable, "-c", _PEER, str(path), *words]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def compare(report: Report, path: Path, tuning: RunConfig, rounds: int) -> None:
    """Compare ours with drafts to ours without, and both to `Llama`."""
    model = Model(path, gpu="off", repack=tuning.repack)
    for name, (prompt, answer) in works(model).items():

        def mine(prompt: list[int], answer: list[int], drafts: bool) -> dict[str, float]:
            return {"rate": ours(model, tuning, prompt, answer, drafts=drafts)}

        def theirs(prompt: list[int], answer: list[int], drafts: bool) -> dict[str, float]:
            return {"rate": peer(path, prompt, answer, drafts=drafts)}

        measures: dict[str, Measure] = {
            "ours": partial(mine, prompt, answer, drafts=True),
            "ours without": partial(mine, prompt, answer, drafts=False),
            "Llama without": partial(theirs, prompt, answer, drafts=False),
            LOOKUP: partial(theirs, prompt, answer, drafts=True),
        }
        try:
            measures[LOOKUP]()
        except subprocess.CalledProcessError:
            print(f"  {name}: {LOOKUP} fails on it, so it is left out")
            del measures[LOOKUP]
        found = in_turn(measures, rounds)
        for other in [who for who in measures if who != "ours"]:
            rates = (found["ours"]["rate"], other, found[other]["rate"])
            report.compare(f"drafts, {name}", "tokens/s", *rates, more_is_better=True)
    model.close()


def main() -> None:
    """Measure given answers, or the demo's own."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--own", action="store_true", help="measure the demo's own answers")
    options = parser.parse_args()
    tuning = files.tuned(options.file)
    print(f"{tuning}")
    if options.own:
        main_own(options.file, tuning, options.rounds)
    else:
        compare(Report(options), options.file, tuning, options.rounds)


if __name__ == "__main__":
    main()
