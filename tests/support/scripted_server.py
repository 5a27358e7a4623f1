"""A server for the chat page whose answers, delays and faults a test decides.

It says what a model would never say when asked, such as hostile Markdown, and fails when it should.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from edgesppo.server.page_route import HEADERS, PageFiles, media_type

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = {"object": "chat.completion.chunk", "model": "scripted"}


@dataclass
class ScriptedServer:
    """What the server says next, and what it was asked.

    `drop_after`: it hangs up after so many pieces of an answer. `hold_after`: it waits there until
    `go_on` is set. `hold_counts`: it does so before it says how many tokens something has.
    """

    url: str = ""
    status: str = "ok"
    answer: list[str] = field(default_factory=lambda: ["Hello", ", ", "you."])
    finish: str = "stop"
    key: str | None = None
    n_ctx: int = 8192
    sampling: dict[str, Any] = field(default_factory=dict)
    refusal: tuple[int, str, str] | None = None  # status, code, message
    hides_model: tuple[int, str, str] | None = None  # the same, where the model is asked for
    drop_after: int | None = None
    hold_after: int | None = None
    hold_counts: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def reset(self) -> None:
        """A new script, as if nothing had been asked."""
        vars(self).update(vars(ScriptedServer(url=self.url)))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ScriptedServer
    page = PageFiles()

    def handle(self) -> None:
        """Browsers hang up when they like."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/health":
            self._json({"status": self.state.status}, 200 if self.state.status == "ok" else 503)
        elif path == "/v1/models":
            if self.state.hides_model is not None:
                self._refuse(*self.state.hides_model)
            elif self._has_key():
                meta = {"n_ctx": self.state.n_ctx, "sampling": self.state.sampling}
                self._json({"data": [{"id": "scripted", "meta": meta}]})
        else:
            self._file(path)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._has_key():
            return
        if self.path == "/tokenize":
            self._tokenize(body)
        elif self.state.status != "ok":
            code = f"server_{self.state.status}"
            self._json({"error": {"message": self.state.status, "code": code}}, 503)
        elif self.state.refusal is not None:
            self._refuse(*self.state.refusal)
        else:
            self.state.asked.append(body)
            self._answer()

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._json({"error": {"message": message, "code": code}}, status)

    def _has_key(self) -> bool:
        """Whether the request has the right key; without it, it is refused."""
        key = self.state.key
        if key is None or self.headers["Authorization"] == f"Bearer {key}":
            return True
        self._json({"error": {"message": "wrong key", "code": "invalid_api_key"}}, 401)
        return False

    def _tokenize(self, body: dict[str, Any]) -> None:
        """One token for each word, and two around each message."""
        if self.state.hold_counts:
            self.state.go_on.wait()
        messages = body.get("messages", [])
        text = " ".join([body.get("content", ""), *(m["content"] for m in messages)])
        count = len(text.split()) + 2 * len(messages)
        if messages and count >= self.state.n_ctx:
            error = {"message": "too long", "code": "context_length_exceeded"}
            self._json({"error": error}, 400)
        else:
            self._json({"tokens": [*range(count)]})

    def _file(self, path: str) -> None:
        _, _, version, name = f"{path}//".split("/")[:4]
        if path == "/":
            self._send(200, "text/html; charset=utf-8", self.page.index)
        elif (data := self.page.file(version, name)) is None:
            self._json({"error": {"message": "not found"}}, 404)
        else:
            self._send(200, media_type(name), data)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> None:
        """Stream the answer as OpenAI does; the connection ends with it."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self._pieces()
        except (BrokenPipeError, ConnectionResetError):
            self.state.hung_up.set()

    def _pieces(self) -> None:
        state = self.state
        pieces = list(state.answer)
        for number, piece in enumerate(pieces):
            if number == state.drop_after:
                return
            if number == state.hold_after:
                self._held()
            self._event({"choices": [{"index": 0, "delta": {"content": piece}}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": state.finish}]})
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": len(pieces),
            "total_tokens": 10 + len(pieces),
        }
        self._event({"choices": [], "usage": usage, "timings": {"decode_tps": 12.5}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _held(self) -> None:
        """Wait to go on, and meanwhile notice, as a server does, that nobody listens any more."""
        while not self.state.go_on.wait(0.02):
            self.wfile.write(b": waiting\n\n")

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps({**_CHUNK, **value}).encode() + b"\n\n")


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """The server on a free port of 127.0.0.1."""
    state = ScriptedServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
