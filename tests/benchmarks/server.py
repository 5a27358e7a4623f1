"""Our server beside llama-server and llama_cpp.server: one model file, the same requests.

    python -m tests.benchmarks.server MODEL.gguf --threads 2 \\
        --llama-server PATH/llama-server --llama-cpp PATH/python

For each server and number of streaming clients, with prompts that share their beginning and with
distinct ones: tokens per second in total, and the median and the 99th percentile of the time to the
first token and between two tokens. Then the time to the first token of a long prompt, of the same
one with a little more, and of that after a restart; the longest pause of a running answer while a
long prompt is computed beside it; and the memory after loading. Nothing else should run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WORDS = [
    "river",
    "stone",
    "light",
    "music",
    "garden",
    "window",
    "winter",
    "paper",
    "ocean",
    "silver",
    "forest",
    "morning",
]
LOADING_S = 600


@dataclass
class Answer:
    """When a request was sent, and when each of its tokens came, in seconds."""

    sent: float
    tokens: list[float]

    @property
    def first_s(self) -> float:
        return self.tokens[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.tokens, self.tokens[1:], strict=False)]


@dataclass
class Running:
    """A server process, and its address."""

    process: subprocess.Popen[bytes]
    url: str
    load_s: float

    def ask(self, prompt: str, n_tokens: int, begun: threading.Event | None = None) -> Answer:
        """Stream one answer to its end."""
        body = {
            "model": "x" if "edgesppo" not in str(self.process.args) else None,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": n_tokens,
            "temperature": 0,
            "stream": True,
        }
        answer = Answer(time.perf_counter(), [])
        timeout = httpx.Timeout(LOADING_S)
        with httpx.stream(
            "POST", f"{self.url}/v1/chat/completions", json=body, timeout=timeout, trust_env=False
        ) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data: {") and _has_text(json.loads(line[6:])):
                    answer.tokens.append(time.perf_counter())
                    if begun is not None:
                        begun.set()
        return answer

    def memory(self) -> int:
        """The process's proportional share of memory, in bytes; 0 where it is not told."""
        path = Path(f"/proc/{self.process.pid}/smaps_rollup")
        if not path.exists():
            return 0
        (line,) = [line for line in path.read_text().splitlines() if line.startswith("Pss:")]
        return int(line.split()[1]) * 1024


def _has_text(event: dict[str, list[dict[str, dict[str, str]]]]) -> bool:
    return any(choice["delta"].get("content") for choice in event.get("choices", []))


@contextlib.contextmanager
def started(words: Sequence[str], port: int, **environment: str) -> Iterator[Running]:
    """Start a server and wait until it answers; stop it gently at the end."""
    begin = time.perf_counter()
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, env={**os.environ, **environment}, **options)  # type: ignore[call-overload]
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/v1/models", trust_env=False).status_code == 200:
                    break
            if process.poll() is not None or time.perf_counter() - begin > LOADING_S:
                raise SystemExit(f"it did not start: {' '.join(words)}")
            time.sleep(0.05)
        yield Running(process, url, time.perf_counter() - begin)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def text(n_words: int, seed: int, shared: int = 0) -> str:
    """A prompt of about so many tokens; the first `shared` words are the same for all seeds."""
    same, own = random.Random(0), random.Random(seed)
    words = [same.choice(WORDS) for _ in range(shared)]
    return " ".join([*words, *(own.choice(WORDS) for _ in range(n_words - shared))])


def commands(options: argparse.Namespace) -> dict[str, Callable[[int], list[str]]]:
    """How each server is started, on a port."""
    model, threads = str(options.model), str(options.threads)
    parallel, n_ctx = str(max(options.clients)), str(options.n_ctx)
    found: dict[str, Callable[[int], list[str]]] = {
        "edgesppo": lambda port: [
            *(sys.executable, "-m", "edgesppo", "serve", model, "--port", str(port)),
            *("--threads", threads, "--parallel", parallel, "--n-ctx", n_ctx),
            *("--snapshots", "4GB", "--no-access-log"),
        ]
    }
    if options.llama_server:
        found["llama-server"] = lambda port: [
            *(options.llama_server, "-m", model, "--port", str(port), "-t", threads),
            *("-np", parallel, "-c", n_ctx, "--kv-unified"),
        ]
    if options.llama_cpp:
        found["llama_cpp.server"] = lambda port: [
            *(options.llama_cpp, "-m", "llama_cpp.server", "--model", model, "--port", str(port)),
            *("--n_threads", threads, "--n_ctx", n_ctx),
        ]
    return found


def crowd(server: Running, n: int, options: argparse.Namespace, *, shared: bool) -> str:
    """Figures of `n` clients at the same time."""
    n_words, seed = options.prompt_tokens, random.randrange(10**6)
    same = n_words * 3 // 4 if shared else 0
    prompts = [text(n_words, seed + client, same) for client in range(n)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(n) as pool:
        answers = list(pool.map(lambda p: server.ask(p, options.answer_tokens), prompts))
    seconds = time.perf_counter() - begin
    rate = sum(len(answer.tokens) for answer in answers) / seconds
    first = [answer.first_s for answer in answers]
    gaps = [gap for answer in answers for gap in answer.gaps]
    kind = "shared" if shared else "distinct"
    return f"  {n} clients, {kind:8}  {rate:7.1f} tokens/s  first {_of(first)}  between {_of(gaps)}"


def _of(values: list[float]) -> str:
    """Median and 99th percentile, in seconds."""
    if not values:
        return "-"
    last = sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]
    return f"{statistics.median(values):.3f} / {last:.3f} s"


def pause(server: Running, options: argparse.Namespace) -> float:
    """The longest gap of a running answer while a long prompt is computed beside it."""
    begun = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.ask, text(8, 1), 20 * options.answer_tokens, begun)
        begun.wait(LOADING_S)
        server.ask(text(options.long_tokens, 2), 1)
        return max(running.result().gaps, default=0.0)


def measure(name: str, command: Callable[[int], list[str]], options: argparse.Namespace) -> None:
    """Print the figures of one server."""
    prompt = text(options.prompt_tokens, 99)
    with tempfile.TemporaryDirectory() as home:
        environment = {"EDGESPPO_HOME": options.home or home}
        port = free_port()
        with started(command(port), port, **environment) as server:
            print(f"{name}: ready after {server.load_s:.1f} s, {server.memory() / 1e6:,.0f} MB")
            first, again = server.ask(prompt, 1), server.ask(f"{prompt} and more of it", 1)
            print(f"  first token after {options.prompt_tokens}: {first.first_s:.2f} s, a little")
            print(f"  more of the same: {again.first_s:.2f} s")
            for n in options.clients:
                for shared in (True, False):
                    print(crowd(server, n, options, shared=shared))
            print(f"  longest pause beside a long prompt: {pause(server, options):.2f} s")
            server.ask(prompt, 1)
            print(f"  memory at the end: {server.memory() / 1e6:,.0f} MB", flush=True)
        port = free_port()
        with started(command(port), port, **environment) as server:
            print(f"  after a restart: {server.ask(f'{prompt} and on', 1).first_s:.2f} s")


def main() -> None:
    """Measure all servers that were named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-ctx", type=int, default=8192)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--long-tokens", type=int, default=4000)
    parser.add_argument("--llama-server", help="the program llama-server")
    parser.add_argument("--llama-cpp", help="a Python that has llama_cpp.server")
    parser.add_argument("--home", help="EDGESPPO_HOME with measured settings [default: a new one]")
    options = parser.parse_args()
    for name, command in commands(options).items():
        measure(name, command, options)


if __name__ == "__main__":
    main()
