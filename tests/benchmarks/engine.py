"""What our engine adds and saves: Python's share of a step, restored chats, cancelled prompts.

    python -m tests.benchmarks.engine FILE.gguf [--only NAME ...]

Ours alone, each against what it would take without: see the functions.
"""

from __future__ import annotations

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
from tests.benchmarks.contestants import prompt_ids
from tests.benchmarks.record import Report, argument_parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.engine.request import Request

PROMPT, ANSWER = 512, 48
THREADS = 2
HISTORY_WORDS = 400
GREEDY = SamplingParams(temperature=0, max_tokens=ANSWER)
# What Python may take of a step of decoding, and a cancelled prompt of a whole one.
PYTHON, CANCEL = 0.03, 0.1


def answer(engine: Engine, ids: list[int], n: int = ANSWER) -> tuple[float, float]:
    """Seconds to the first token, and per later token, of an answer of `n` tokens."""
    request = engine.add(engine.prepare(ids, GREEDY.replace(max_tokens=n)))
    for _ in engine.stream(request):
        pass
    first, last = request.first_token_at, request.last_token_at
    assert first is not None
    assert last is not None
    steps = max(1, request.n_generated - 1)
    return first - request.submitted_at, (last - first) / steps


def _engine(path: Path, **options: Any) -> tuple[Model, Engine]:
    model = Model(path, gpu="off")
    settings = {"n_ctx": 2048, "n_threads": THREADS, "flash_attention": "on", **options}
    return model, Engine(model, **settings)


def python_share(report: Report, path: Path, rounds: int) -> None:
    """The share of decoding that is not spent in llama.cpp."""
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
    outside, whole = list[float](), list[float]()
    for _ in range(rounds):
        native, started = 0.0, time.perf_counter()
        answer(engine, ids, ANSWER)
        whole.append((time.perf_counter() - started) / ANSWER)
        outside.append(whole[-1] - native / ANSWER)
    for name, real in kept.items():
        setattr(Context, name, real)
    report.compare(
        "Python in a step", "s", outside, "the whole step", whole, goal=PYTHON, rival=False
    )
    engine.close()
    model.close()


def restart(report: Report, path: Path, rounds: int) -> None:
    """Restoring a long history from a snapshot, against prefilling it."""
    prefills, restores, notes = list[float](), list[float](), ""
    loading: dict[str, Any] = {"n_ctx": 4096, "n_threads": THREADS, "gpu": "off"}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "chat.json"
            with edgesppo.load(path, **loading) as first:
                chat = first.chat(temperature=0, max_tokens=2)
                text = "word " * HISTORY_WORDS
                started = time.perf_counter()
                chat.ask(text)
                prefills.append(time.perf_counter() - started)
                tokens = chat.last.usage.prompt_tokens
                first.save(chat, saved)
            with edgesppo.load(path, **loading) as again:
                started = time.perf_counter()
                resumed = again.resume(saved, temperature=0, max_tokens=2)
                restores.append(time.perf_counter() - started)
                resumed.ask("x")
                cached = resumed.last.usage.cached_tokens
            size = saved.with_name("chat.json.kv").stat().st_size
        notes = f"{tokens} tokens, of which {cached} were restored from {size / 1e6:,.0f} MB"
    report.compare(
        "restoring a chat", "s", restores, "prefilling it", prefills, rival=False, note=notes
    )


def cancel(report: Report, path: Path, rounds: int) -> None:
    """How soon a cancelled prefill returns, against the whole of it."""
    model, engine = _engine(path, n_ctx=4096 + 64)
    rate = PROMPT / answer(engine, prompt_ids(model, PROMPT, seed=9), 1)[0]
    backs, wholes = list[float](), list[float]()
    for one in range(rounds):
        ids = prompt_ids(model, 4000, seed=one)
        wholes.append(len(ids) / rate)
        request = engine.add(engine.prepare(ids, GREEDY))
        asked: list[float] = []

        def stop(request: Request = request, asked: list[float] = asked) -> None:
            asked.append(time.perf_counter())
            engine.cancel(request)

        timer = threading.Timer(min(5.0, wholes[-1] / 3), stop)
        timer.start()
        for _ in engine.stream(request):
            pass
        backs.append(time.perf_counter() - asked[0])
        timer.join()
    report.compare(
        "a cancelled prompt returns",
        "s",
        backs,
        "the whole prompt",
        wholes,
        goal=CANCEL,
        rival=False,
    )
    engine.close()
    model.close()


BENCHMARKS = {"python_share": python_share, "restart": restart, "cancel": cancel}


def main() -> None:
    """Run all benchmarks, or the named ones."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    options = parser.parse_args()
    report = Report(options)
    for name in options.only:
        BENCHMARKS[name](report, options.file, options.rounds)


if __name__ == "__main__":
    main()
