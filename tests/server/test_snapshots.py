"""Snapshots: after a restart a conversation goes on, and what was said is not computed again."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

import edgesppo
from edgesppo.errors import NativeError
from edgesppo.llama.context import Context
from edgesppo.sampling.params import SamplingParams
from edgesppo.server.backend import Backend
from edgesppo.server.settings import Deadlines
from edgesppo.server.snapshots import Snapshots
from edgesppo.sessions import kv_snapshot
from edgesppo.system import hardware
from edgesppo.system.fs import FileSystem
from tests.support.command_line import CAPITAL
from tests.support.live_server import Live, live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgesppo.chat.result import Result

# Longer than the demo's sliding window of 64 tokens.
LONG = f"My name is Ada. {'I live in Rome and like to read. ' * 14}{CAPITAL}"


def test_a_conversation_goes_on_although_its_answer_returns_with_other_tokens(
    demo_gguf: Path, tmp_path: Path
) -> None:
    """The ends of lines that end an answer are trimmed; here it has nothing else."""
    options: dict[str, Any] = {"snapshot_folder": tmp_path / "kv", "snapshot_bytes": 1 << 30}
    messages = [{"role": "user", "content": LONG}]

    def ask(server: Live) -> tuple[str, int, int]:
        body = {"messages": messages, "max_tokens": 12, "logit_bias": {"108": 100}}
        found = server.client.post("/v1/chat/completions", json=body).json()
        usage = found["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return found["choices"][0]["message"]["content"], usage["prompt_tokens"], cached

    with live(demo_gguf, **options) as server:
        answer, n_prompt, cached = ask(server)
        assert n_prompt > 2 * 64
        assert cached == 0
        assert answer.strip() == ""
        server.end()
    messages += [{"role": "assistant", "content": "-"}, {"role": "user", "content": "Hi"}]
    with live(demo_gguf, **options) as server:
        assert ask(server)[2] >= n_prompt


def test_answers_that_do_not_end_in_time_are_cut_off_and_the_cache_is_kept(
    babbler: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"snapshot_folder": tmp_path / "kv", "snapshot_bytes": 1 << 30}
    endless = {"temperature": 0, "max_tokens": 8000, "stream": True}
    with live(babbler, deadlines=Deadlines(drain_s=0.1), **options) as server:
        body = {"messages": [{"role": "user", "content": LONG}], **endless}
        with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            last = [line for line in begun_to_end(server, answer.iter_lines()) if line][-1]
        assert "server_stopped" in last
        server.wait_until(lambda: not server.worker._thread.is_alive())
    assert [path.suffix for path in (tmp_path / "kv").iterdir()] == [kv_snapshot.SUFFIX]


def begun_to_end(server: Live, lines: Iterator[str]) -> Iterator[str]:
    """The lines of a stream, whose server is told to stop once it has computed something."""
    yield next(lines)
    server.wait_until(lambda: server.worker.kv_share() > 0)
    server.server.handle_exit(signal.SIGTERM, None)
    yield from lines


def test_a_second_signal_ends_the_saving(
    babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, begun = tmp_path / "kv", threading.Event()
    write = FileSystem.write

    def write_slowly(files: FileSystem, descriptor: int, data: Any, offset: int) -> int:
        """A byte at a time: to write all of it takes hours."""
        begun.set()
        time.sleep(0.01)
        return write(files, descriptor, data[:1], offset)

    monkeypatch.setattr(FileSystem, "write", write_slowly)
    with live(babbler, snapshot_folder=folder, snapshot_bytes=1 << 30) as server:
        server.chat(LONG, max_tokens=1)
        server.server.handle_exit(signal.SIGTERM, None)
        assert begun.wait(30)
        server.server.handle_exit(signal.SIGTERM, None)
        server.wait_until(lambda: not server.worker._thread.is_alive())
    assert list(folder.iterdir()) == []


def talk(backend: Backend, name: str) -> list[int]:
    """Have the model read what someone says; the ids of it."""
    prompt = backend.text_prompt(f"My name is {name}. {'I live in Rome and like to read. ' * 10}")
    answer(backend, prompt, 1)
    return prompt


def answer(backend: Backend, prompt: list[int], n: int) -> Result:
    """The first `n` tokens of an answer."""
    params = SamplingParams(max_tokens=n, temperature=0)
    generation = backend.prepare(prompt, params, None, "")
    backend.begin(generation)
    list(generation)
    return generation.result()


def cached(backend: Backend, prompts: list[list[int]]) -> list[bool]:
    """Whether each could go on with no prefill of what was said."""
    return [backend._engine.count_cached([*p, p[-1]]) == len(p) for p in prompts]


def test_those_used_last_are_kept_and_after_a_restart_the_last_to_make_room(
    demo_gguf: Path, tmp_path: Path
) -> None:
    with edgesppo.load(demo_gguf, n_seqs=3) as model:
        backend = Backend(model)
        prompts = [talk(backend, name) for name in ("Ada", "Bob", "Cleo")]
        Snapshots(tmp_path, 1 << 30, []).save(backend)
        sizes = [path.stat().st_size for path in tmp_path.iterdir()]
        assert len(sizes) == 3
        assert max(sizes) < min(sizes) + 2048
        cap = 2 * max(sizes) + 2 * kv_snapshot._MAX_HEADER
        Snapshots(tmp_path, cap, []).save(backend)
        assert len(list(tmp_path.iterdir())) == 2
    with edgesppo.load(demo_gguf, n_seqs=2) as model:
        backend = Backend(model)
        assert Snapshots(tmp_path, cap, []).restore(backend) == 2
        assert cached(backend, prompts) == [False, True, True]
        talk(backend, "Dora")
        assert cached(backend, prompts) == [False, False, True]
        # Its oldest cells, which the next token does not see, were overwritten.
        longer = [*prompts[2], *backend.tokenize(" What is the capital of France?")]
        kept = answer(backend, longer, 12)
        while backend._engine._cache.evict_idle():
            pass
        computed = answer(backend, longer, 12)
        assert (kept.usage.cached_tokens, computed.usage.cached_tokens) == (len(prompts[2]), 0)
        assert kept.text == computed.text


def test_older_files_make_room_before_others_are_written(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a disk that is full once would be so at every later stop."""
    with edgesppo.load(demo_gguf, n_seqs=3) as model:
        backend = Backend(model)
        for name in ("Ada", "Bob", "Cleo"):
            talk(backend, name)
        Snapshots(tmp_path, 1 << 30, []).save(backend)
        size = max(path.stat().st_size for path in tmp_path.iterdir())
        write = kv_snapshot.write
        held = []

        def watched(path: Path, *rest: Any) -> None:
            held.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
            write(path, *rest)

        monkeypatch.setattr(kv_snapshot, "write", watched)
        Snapshots(tmp_path, size + kv_snapshot._MAX_HEADER, []).save(backend)
        assert held == [0]


@pytest.mark.parametrize("fault", [NativeError("a fault"), MemoryError(), OSError(28, "full")])
def test_what_cannot_be_saved_or_restored_does_not_end_the_server(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object) -> NoReturn:
        raise fault

    with edgesppo.load(demo_gguf) as model:
        backend = Backend(model)
        talk(backend, "Ada")
        Snapshots(tmp_path, 1 << 30, []).save(backend)
        for name in ("state", "restore"):
            monkeypatch.setattr(Context, name, fail)
        assert Snapshots(tmp_path, 1 << 30, []).restore(backend) == 0
        Snapshots(tmp_path, 1 << 30, []).save(backend)


def test_a_snapshot_takes_half_of_the_free_memory_at_most(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edgesppo.load(demo_gguf) as model:
        backend = Backend(model)
        talk(backend, "Ada")
        snapshots = Snapshots(tmp_path, 1 << 30, [])
        with monkeypatch.context() as patch:
            patch.setattr(hardware, "available_memory", lambda: 4096)
            snapshots.save(backend)
            assert not list(tmp_path.iterdir())
        snapshots.save(backend)
        assert snapshots.restore(backend) == 1
        monkeypatch.setattr(hardware, "available_memory", lambda: 4096)
        assert snapshots.restore(backend) == 0
