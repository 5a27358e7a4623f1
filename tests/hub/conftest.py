"""A hub that gives one answer to everything."""

from __future__ import annotations

import http.client
import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.answering_hub import TOKEN, Answer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    given = Answer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def do_GET(self) -> None:
            given.asked.append(self.path)
            moved = self.path.startswith("/moved")
            self.send_response(200 if moved else given.status)
            for key, value in ({} if moved else given.headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(given.body)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    given.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("HF_HUB_OFFLINE", "EDGESPPO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", given.url)
    yield given
    server.shutdown()
    server.server_close()
    thread.join()
