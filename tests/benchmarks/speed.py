"""Prefill, decode and a whole turn, beside llama-bench and llama-cpp-python's `Llama`.

    python -m tests.benchmarks.speed FILE.gguf [--prompt N] [--answer N] [--busy N]

Everyone runs the same file on the same number of threads with flash attention, in a process of
its own: ours with the settings that were tuned here, the peers twice, as pip compiles them here
and as ours is compiled. With --busy so many processors are kept busy meanwhile, and ours may take
fewer threads.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.benchmarks import contestants, files, peers, processes
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

PROMPT, ANSWER = 512, 128
BENCH, LLAMA = "llama-bench, {}", "Llama, {}"
# (figure, peer) -> what is wanted of the ratio.
GOALS = {
    ("prefill", BENCH.format(peers.PIP)): 1.6,
    ("decode", BENCH.format(peers.PIP)): 1.0,
    ("decode", BENCH.format(peers.SAME)): 0.99,
    ("turn", LLAMA.format(peers.PIP)): 0.75,
    ("turn", LLAMA.format(peers.SAME)): 0.9,
}
# The same beside a busy program.
BUSY_GOALS = {
    ("prefill", BENCH.format(peers.PIP)): 1.3,
    ("decode", BENCH.format(peers.PIP)): 1.4,
}


def main() -> None:
    """Measure all of them in turn."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--prompt", type=int, default=PROMPT)
    parser.add_argument("--answer", type=int, default=ANSWER)
    parser.add_argument("--busy", type=int, default=0)
    options = parser.parse_args()
    report = Report(options)
    files.tuned(options.file)
    turn = (options.prompt, options.answer)
    work = (options.file, options.threads, *turn)
    own_threads = None if options.busy else options.threads
    measures: dict[str, Measure] = {
        "ours": partial(contestants.ours, options.file, own_threads, *turn)
    }
    builds = {build.name: build for build in (peers.pip_build(), peers.same_build())}
    for name, build in builds.items():
        measures[BENCH.format(name)] = partial(contestants.llama_bench_turn, build, *work)
        measures[LLAMA.format(name)] = partial(contestants.llama, build, *work)
    with processes.busy(options.busy):
        found = in_turn(measures, options.rounds)
    goals = BUSY_GOALS if options.busy else GOALS
    names = {
        "prefill": (f"prefill of {options.prompt}", "tokens/s"),
        "decode": (f"decode of {options.answer}", "tokens/s"),
        "turn": (f"a turn of {options.prompt} in, {options.answer} out", "s"),
    }
    for key, (name, unit) in names.items():
        for peer, figures in found.items():
            if peer == "ours" or key not in figures:
                continue
            report.compare(
                *(name, unit, found["ours"][key], peer, figures[key]),
                more_is_better=key != "turn",
                goal=goals.get((key, peer)),
            )


if __name__ == "__main__":
    main()
