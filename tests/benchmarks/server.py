"""Our server beside llama-server and llama_cpp.server: one model file, the same requests.

    python -m tests.benchmarks.server MODEL.gguf [--clients N ...] [--only NAME ...]

Of each server, in rounds, started anew in each:

    first      the time to the first token of a long prompt, of the same one with a little more, and
               of that after a restart
    chat       the time to the first token of turns 1 and 10 of a conversation, and of turn 10 after
               a restart
    crowd      tokens per second of so many clients at the same time, with distinct prompts and with
               prompts that share three quarters, and the 50th and 99th percentile of the time to
               the first token and of that between two (of few clients, the 99th is the slowest);
               of ours also the CPU time of the thread that serves HTTP, beside all of it
    pause      the longest pause of a running answer while a long prompt is computed beside it

The peers are as pip compiles them here. Ours runs with the settings that were tuned here, keeps its
KV cache over a restart (`--snapshots`), and guesses no tokens: random weights repeat themselves.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.system.paths import cache_dir
from tests.benchmarks import files, peers
from tests.benchmarks.http_servers import LOADING_S, Running, free_port, started, text
from tests.benchmarks.record import Report, argument_parser, in_turn

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

OURS, SERVER, PYTHON = "edgesppo", "llama-server", "llama_cpp.server"
PARTS = ("first", "chat", "crowd", "pause")
TURNS, TURN_WORDS = 10, 12
FIRST, BETWEEN = "first token", "between tokens"
PERCENTILES = (50, 99)  # of all answers of one round
MOST_AT_ONE_AT_A_TIME = 4  # clients of a server that makes the others wait
NAMES = {
    "first": "first token of a long prompt",
    "again": "first token of the same and a little more",
    "restarted": "first token of that after a restart",
    "turn 1": "first token of turn 1",
    "turn 10": "first token of turn 10",
    "turn 10 restarted": "first token of turn 10 after a restart",
    "pause": "longest pause of a stream beside a long prompt",
}
# Figure -> what its ratio to a peer should be.
GOALS = {
    ("first", SERVER): 0.7,
    ("1 distinct", SERVER): 1.0,
    ("4 distinct", SERVER): 1.2,
    ("4 distinct", PYTHON): 1.6,
}
OWN_SHARE = 0.03  # of a crowd's time, at most, for HTTP


class Contestant:
    """A server that is started as often as is asked."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self._options = name, options
        self._seeds = random.Random(7)  # the same for all; none is asked the same twice

    def start(self, home: Path) -> AbstractContextManager[Running]:
        """Start it; ours keeps its files in `home`."""
        port = free_port()
        environments = {
            OURS: {"EDGESPPO_HOME": str(home)},
            SERVER: {},
            PYTHON: peers.pip_build().environment,
        }
        words = [str(word) for word in self._command(port)]
        return started(words, port, environments[self.name])

    def _command(self, port: int) -> list[str | Path | int]:
        options = self._options
        model, threads, n_ctx = options.model, options.threads, options.n_ctx
        parallel = max(options.clients)
        if self.name == SERVER:
            tool = peers.pip_build().tool("llama-server")
            words = [tool, "-m", model, "--port", port, "-t", threads, "-np", parallel]
            return [*words, "-c", n_ctx, "--kv-unified"]
        module = ["edgesppo", "serve", model] if self.name == OURS else [PYTHON, "--model", model]
        words = [sys.executable, "-m", *module, "--port", port]
        if self.name == PYTHON:
            words += ["--n_threads", threads, "--n_ctx", n_ctx, "--flash_attn", "True"]
            # By default a second request ends the first one.
            return [*words, "--interrupt_requests", "False"]
        words += ["--threads", threads, "--parallel", parallel, "--n-ctx", n_ctx]
        return [*words, "--snapshots", "4GB", "--no-drafts", "--no-access-log"]

    def measure(self) -> dict[str, float]:
        """All figures of one round: seconds, and tokens per second of crowds."""
        options, found = self._options, dict[str, float]()
        seed = self._seeds.randrange(10**6)
        prompt, chat = text(options.prompt_words, seed), conversation(seed)
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            (home / "tuning").symlink_to(cache_dir() / "tuning")
            with self.start(home) as server:
                self._first(server, prompt, chat, found)
                if "crowd" in options.only:
                    for n in options.clients:
                        if self.name != PYTHON or n <= MOST_AT_ONE_AT_A_TIME:
                            self._crowd(server, n, found)
                if "pause" in options.only and self.name != PYTHON:  # there the long one waits
                    found["pause"] = self._pause(server)
                if self.name == OURS:  # which keeps what was asked last; the others keep nothing
                    self._ask_last(server, prompt, chat)
            with self.start(home) as server:
                if "first" in options.only:
                    found["restarted"] = server.ask(f"{prompt} and on", 1).first_s
                if "chat" in options.only:
                    found["turn 10 restarted"] = server.ask(chat, 1).first_s
        return found

    def _ask_last(self, server: Running, prompt: str, chat: list[dict[str, str]]) -> None:
        """Ask again what goes on after the restart: a chat's last turn comes then."""
        if "first" in self._options.only:
            server.ask(prompt, 1)
        if "chat" in self._options.only:
            server.ask(chat[:-2], 1)

    def _first(
        self, server: Running, prompt: str, chat: list[dict[str, str]], found: dict[str, float]
    ) -> None:
        server.ask("hello", 1)
        if "first" in self._options.only:
            found["first"] = server.ask(prompt, 1).first_s
            found["again"] = server.ask(f"{prompt} and more of it", 1).first_s
        if "chat" in self._options.only:
            for turn in range(TURNS):
                seconds = server.ask(chat[: 2 * turn + 1], 1).first_s
                if turn in (0, TURNS - 1):
                    found[f"turn {turn + 1}"] = seconds

    def _crowd(self, server: Running, n: int, found: dict[str, float]) -> None:
        """`n` clients at the same time: their tokens per second, and how long they wait."""
        options = self._options
        n_words, n_tokens = options.crowd_words, options.answer_tokens
        for kind, shared in (("shared", n_words * 3 // 4), ("distinct", 0)):
            seed = self._seeds.randrange(10**6)
            prompts = [text(n_words, seed + client, shared) for client in range(n)]
            begin, own = time.perf_counter(), server.own_cpu()
            with ThreadPoolExecutor(n) as pool:
                answers = list(pool.map(lambda prompt: server.ask(prompt, n_tokens), prompts))
            seconds = time.perf_counter() - begin
            found[f"{n} {kind}"] = sum(one.n_tokens for one in answers) / seconds
            waits = {
                FIRST: [one.first_s for one in answers],
                BETWEEN: [gap for one in answers for gap in one.gaps],
            }
            for what, values in waits.items():
                for share in PERCENTILES:
                    found[f"{n} {kind} {what}, p{share}"] = percentile(values, share)
            if self.name == OURS:
                found[f"{n} {kind} own"] = server.own_cpu() - own
                found[f"{n} {kind} whole"] = seconds

    def _pause(self, server: Running) -> float:
        """The longest gap of a running answer while a long prompt is computed beside it."""
        options, begun = self._options, threading.Event()
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(server.ask, text(8, 1), 8 * options.answer_tokens, begun)
            begun.wait(LOADING_S)
            server.ask(text(options.long_words, self._seeds.randrange(10**6)), 1)
            return max(running.result().gaps, default=0.0)


def percentile(values: Sequence[float], share: int) -> float:
    """The least of the values that so many percent of them do not exceed; 0 of none."""
    rank = math.ceil(len(values) * share / 100)
    return sorted(values)[max(rank, 1) - 1] if values else 0.0


def conversation(seed: int) -> list[dict[str, str]]:
    """Messages of TURNS questions with the answers between them, which are given."""
    messages = []
    for turn in range(2 * TURNS - 1):
        role = "assistant" if turn % 2 else "user"
        messages.append({"role": role, "content": text(TURN_WORDS, seed + turn)})
    return messages


def tell(report: Report, found: dict[str, dict[str, list[float]]]) -> None:
    """Make records of our figures beside each peer's."""
    ours = found.pop(OURS)
    for key in [key for key in ours if key.endswith(" own")]:
        crowd = key.removesuffix(" own")
        own, whole = ours.pop(key), ours.pop(f"{crowd} whole")
        name = f"{_name(crowd)[0]}: CPU time of HTTP"
        report.compare(name, "s", own, "all of it", whole, goal=OWN_SHARE, rival=False)
    for key, mine in ours.items():
        name, is_rate = _name(key)
        for peer, figures in found.items():
            if key in figures:
                report.compare(
                    *(name, "tokens/s" if is_rate else "s", mine, peer, figures[key]),
                    more_is_better=is_rate,
                    goal=GOALS.get((key, peer)),
                )


def _name(key: str) -> tuple[str, bool]:
    """What a figure is called, and whether it is tokens per second."""
    number, _, rest = key.partition(" ")
    if not number.isdecimal():
        return NAMES.get(key, key), False
    kind, _, wait = rest.partition(" ")
    crowd = f"{number} client{'' if number == '1' else 's'}, {kind} prompts"
    return (f"{crowd}: {wait}", False) if wait else (crowd, True)


def main() -> None:
    """Measure all servers in turn."""
    parser = argument_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--peers", nargs="+", choices=(SERVER, PYTHON), default=(SERVER, PYTHON))
    parser.add_argument("--n-ctx", type=int, default=8192)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--prompt-words", type=int, default=160, help="of the long prompt")
    parser.add_argument("--crowd-words", type=int, default=16)
    parser.add_argument("--answer-tokens", type=int, default=24)
    parser.add_argument("--long-words", type=int, default=1790, help="some 4,000 tokens")
    options = parser.parse_args()
    files.tuned(options.model)
    contestants = {name: Contestant(name, options).measure for name in (OURS, *options.peers)}
    tell(Report(options), in_turn(contestants, options.rounds))


if __name__ == "__main__":
    main()
