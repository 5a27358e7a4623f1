"""A real server on 127.0.0.1, in a thread of this process."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx

import edgesppo
from edgesppo.server import listen
from edgesppo.server.serve import Server, build_server
from edgesppo.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHAT = "/v1/chat/completions"
GREEDY = {"temperature": 0, "max_tokens": 32}


@dataclasses.dataclass
class Live:
    """A running server, and a client of it."""

    server: Server
    url: str
    client: httpx.Client

    def chat(self, text: str, **more: Any) -> httpx.Response:
        """Ask one question."""
        body = {"messages": [{"role": "user", "content": text}], **GREEDY, **more}
        return self.client.post(CHAT, json=body)

    @property
    def worker(self) -> Any:
        return self.server.service.worker

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; fails after a generous time."""
        end = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)

    def end(self) -> None:
        """Stop it as a first signal does."""
        self.server.handle_exit(signal.SIGTERM, None)
        self.wait_until(lambda: not self.worker._thread.is_alive())

    def wait_idle(self) -> None:
        self.wait_until(lambda: self.server.service.is_idle)


@contextlib.contextmanager
def live(
    model: Path | Callable[[], Any], *, ready: bool = True, parallel: int = 4, **settings: Any
) -> Iterator[Live]:
    """Serve a model file, or what a function loads, until the end of the block."""
    made = ServerSettings(**{"access_log": False, **settings})

    def load() -> Any:
        return model() if callable(model) else edgesppo.load(model, n_seqs=parallel)

    server = build_server(load, made)
    listener = listen.on_address("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: server.run([listener]))
    thread.start()
    try:
        url = listen.url_of(listener, tls=False)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            found = Live(server, url, client)
            found.wait_until(lambda: server.started)
            if ready:
                found.wait_until(lambda: found.worker.status != "loading")
                assert found.worker.status == "ok", found.worker.failure
            yield found
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
        listener.close()


def events(response: httpx.Response) -> list[Any]:
    """The data of a response's server-sent events."""
    import json

    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
