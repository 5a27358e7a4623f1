"""Measure a turn with one context and with two: long prompts over plain weights, answers repacked.

    python -m tests.benchmarks.turn FILE.gguf [--llama-bench NAME=PATH[=FILE] ...] [--quick]

Each round runs, one after the other and each in a process of its own: our engine with one context
over repacked weights (llama.cpp's default), with one over plain ones, with two; and each
llama-bench that is named (`-pg`), on a FILE of its own if given, such as one in llama.cpp's own
order. Prints medians, with the least and the greatest, of the seconds of a turn, ratios round by
round, and the proportional set size (PSS), which counts a mapped page once. Greedy answers of one
context and of two are compared: how many differ, and how far apart the logits were at the first
difference. Linux only.

Measured on 2 cores of a Xeon with AVX-512 VNNI and FP16, the 2B shape, 512 tokens in and 64 out,
medians of three rounds: one context over repacked weights 15.6 s, over plain ones 14.5 s, two
contexts 13.4 s (prefill 66, 94 and 94, decode 8.1, 7.0 and 8.0 tokens/s); llama-bench of pip's
build with GCC 12 17.1 s, of our own build 16.4 s. So two contexts take 0.78 (0.53 to 0.80) of the
former and 0.84 (0.80 to 1.07) of the latter. Their PSS was 2,883 and 2,875 MB, and that of two
contexts 3,028 MB. It is 2,933 MB since the second one has room for the prompt alone and copies 64
tokens at a time (47 MB less), computes 256 tokens at once (38) and gives back what was freed (10).
What is left over is the second KV cache (55) and Python. Micro-batches of 256 tokens take 0.99 of
the processor time of those of 512 over plain weights (one thread, 511 tokens; of 128 1.02 with a
fifth of the 2B), and copying 512 tokens, of that, 6 instead of 16 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import processes

PROMPT, ANSWER, QUICK_ANSWER = 512, 128, 64
WAYS: dict[str, dict[str, Any]] = {
    "repacked": {"repack": True},
    "plain": {"repack": False},
    "two contexts": {"repack": True, "plain_from": 64},
}
Figures = dict[str, Any]


def main() -> None:
    """Measure all in turn, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--llama-bench", nargs="*", default=[], metavar="NAME=PATH[=FILE]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the first round's prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=PROMPT)
    parser.add_argument("--answer", type=int, default=ANSWER)
    parser.add_argument("--quick", action="store_true", help=f"answers of {QUICK_ANSWER} tokens")
    parser.add_argument("--json", type=Path, help="add each round's figures to this file")
    options = parser.parse_args()
    if options.quick:
        options.answer = QUICK_ANSWER
    peers = dict(text.split("=", 1) for text in options.llama_bench)
    found: dict[str, list[Figures]] = {name: [] for name in [*WAYS, *peers]}
    for number in range(options.rounds):
        for name in found if number % 2 == 0 else reversed(found):
            if name in peers:
                figures = _llama_bench(options, peers[name])
            else:
                figures = _ours(options, {"seed": options.seed + number, **WAYS[name]})
            found[name].append(figures)
            print(name, {**figures, "tokens": None}, file=sys.stderr)
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                line = {name: rounds[-1] for name, rounds in found.items()}
                file.write(json.dumps(line) + "\n")
    _print(found)
    _print_differences(options, found)


def _print(found: dict[str, list[Figures]]) -> None:
    two = [figures["turn_s"] for figures in found["two contexts"]]
    for name, rounds in found.items():
        seconds = [figures["turn_s"] for figures in rounds]
        ratios = [ours / other for ours, other in zip(two, seconds, strict=True)]
        rates = "".join(
            f"  {rate} {_spread([figures[rate] for figures in rounds])}"
            for rate in ("prefill", "decode")
            if rate in rounds[0]
        )
        pss = statistics.median(figures["pss"] for figures in rounds)
        print(
            f"{name:<14} turn {_spread(seconds)} s{rates}  PSS {pss / 1e6:,.0f} MB; two contexts "
            f"take {_spread(ratios)} of its time"
        )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _print_differences(options: argparse.Namespace, found: dict[str, list[Figures]]) -> None:
    """Count the greedy answers that differ, with the gap of the logits where they begin to."""
    gaps = []
    for number, (one, two) in enumerate(zip(found["repacked"], found["two contexts"], strict=True)):
        pairs = enumerate(zip(one["tokens"], two["tokens"], strict=True))
        place = next((n for n, (mine, other) in pairs if mine != other), None)
        if place is not None:
            asked = {"seed": options.seed + number, "repack": True, "after": one["tokens"][:place]}
            asked["between"] = [one["tokens"][place], two["tokens"][place]]
            gaps.append(_ours(options, asked)["gap"])
    listed = ", ".join(f"{gap:.3f}" for gap in gaps)
    print(
        f"greedy answers of {options.answer} tokens: {len(gaps)} of {len(found['repacked'])} differ"
        + (f"; the two logits were apart by {listed}" if gaps else "")
    )


def _ours(options: argparse.Namespace, what: dict[str, Any]) -> Figures:
    """One turn of our engine, in a process of its own."""
    what |= {"file": str(options.file)}
    what |= {name: getattr(options, name) for name in ("threads", "prompt", "answer")}
    program = "from tests.benchmarks import turn; turn.measure()"
    figures: Figures = processes.figures_of(program, what)
    return figures


def measure() -> None:
    """What a process measures: `sys.argv[1]` says of what."""
    from edgesppo import SamplingParams
    from edgesppo.engine.engine import Engine
    from edgesppo.llama.model import Model
    from tests.benchmarks.contestants import prompt_ids

    what: dict[str, Any] = json.loads(sys.argv[1])
    model = Model(Path(what["file"]), gpu="off", repack=what["repack"])
    engine = Engine(
        model,
        n_ctx=what["prompt"] + what["answer"] + 64,
        n_threads=what["threads"],
        flash_attention="on",
        draft_costs=None,
        plain_from=what.get("plain_from"),
    )
    ids = prompt_ids(model, what["prompt"], seed=what["seed"])

    def answer(prompt: list[int], n: int, logprobs: int | None = None) -> tuple[Any, float]:
        begun = time.perf_counter()
        params = SamplingParams(temperature=0, max_tokens=n, logprobs=logprobs)
        request = engine.add(engine.prepare(prompt, params))
        request.end_tokens = frozenset()  # so that the figures are of so many tokens
        for _ in engine.stream(request):
            pass
        return request, time.perf_counter() - begun

    if "after" in what:
        request, _ = answer(ids + what["after"], 1, 20)
        top = dict(request.logprobs[0].top)
        least = min(top.values())
        found = [top.get(token, least) for token in what["between"]]
        figures: Figures = {"gap": abs(found[0] - found[1])}
    else:
        answer(prompt_ids(model, 80, seed=99), 4)  # what is made once, and touched once
        request, seconds = answer(ids, what["answer"])
        decode_s = request.last_token_at - request.first_token_at
        figures = {
            "turn_s": seconds,
            "prefill": what["prompt"] / (seconds - decode_s),
            "decode": (request.n_generated - 1) / decode_s,
            "pss": processes.proportional(),
            "tokens": request.tokens[request.n_prompt :],
        }
    engine.close()
    model.close()
    print(json.dumps(figures))


def _llama_bench(options: argparse.Namespace, peer: str) -> Figures:
    """One turn of llama-bench, and the most memory that it has meanwhile."""
    program, _, file = peer.partition("=")
    turn = f"{options.prompt},{options.answer}"
    command = [program, "-m", file or str(options.file), "-p", "0", "-n", "0", "-pg", turn]
    command += ["-t", str(options.threads), "-fa", "1", "-r", "1", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        most = [0]
        watcher = threading.Thread(target=_watch, args=[process, most])
        watcher.start()
        output, _ = process.communicate()
        watcher.join()
    (row,) = json.loads(output)
    return {"turn_s": row["avg_ns"] / 1e9, "pss": most[0]}


def _watch(process: subprocess.Popen[bytes], most: list[int]) -> None:
    while process.poll() is None:
        most[0] = max(most[0], processes.proportional(process.pid))
        time.sleep(0.5)


if __name__ == "__main__":
    main()
