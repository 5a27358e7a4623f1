"""A fake Hugging Face hub on 127.0.0.1, with the routes of the real one and faults on demand.

It consists of two servers: the hub, and the CDN to which it redirects large files, as the real
one does. `Direct` gives the same responses without sockets, which is much faster.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REVISION = "89abcdef0123456789abcdef0123456789abcdef"
REPOSITORY = "UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3"
LARGE = (".safetensors", ".model")


def cached(source: Path, under: Path) -> Path:
    """Lay out a folder's files as a Hugging Face cache does; return the snapshot folder."""
    cache = under / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = cache / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for file in source.iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, cache / "blobs" / digest)
        (snapshot / file.name).symlink_to(f"../../blobs/{digest}")
    return snapshot


@dataclass
class FakeHub:
    """The state of the hub: its files and commits, the faults to inject, the requests received.

    `faults` maps a file name to the faults of its next responses; see `_Handler._answer`.
    """

    folder: Path
    url: str = ""
    cdn: str = ""
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=lambda: {"main": REVISION})
    card: dict[str, Any] = field(default_factory=lambda: {"license": "gemma"})
    go_on: threading.Event = field(default_factory=threading.Event)  # ends all "stall" faults

    def asked(self, name: str) -> list[dict[str, str]]:
        """The headers of every request for the content of a file."""
        return [headers for kind, path, headers in self.requests if (kind, path) == ("data", name)]

    @property
    def commits(self) -> set[str]:
        """All known commits; each has the files of the folder."""
        return {REVISION, *self.branches.values()}

    def listing(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"type": "directory", "path": "original", "size": 0}]
        for path in sorted(self.folder.iterdir()):
            data = path.read_bytes()
            sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"type": "file", "path": path.name, "size": len(data), "oid": sha1}
            if path.suffix in LARGE:
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 135}
            found.append(entry)
        return found


class _Server(ThreadingHTTPServer):
    """The hub or its CDN."""

    def __init__(self, hub: FakeHub, *, is_cdn: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.is_cdn = is_cdn


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        hub, name = self.server.hub, self.path.rsplit("/", 1)[-1]
        if self.server.is_cdn:
            self._file(name)
        elif self.path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            self._commit(name)
        elif self.path.startswith(f"/api/models/{REPOSITORY}/tree/") and name in hub.commits:
            self._note("tree", "")
            self._answer("tree", json.dumps(hub.listing()).encode())
        elif self.path not in {f"/{REPOSITORY}/resolve/{c}/{name}" for c in hub.commits}:
            self._send(404, b"Entry not found")
        elif name.endswith(LARGE):
            self._note("resolve", name)
            self._send(302, b"", Location=f"{hub.cdn}/cdn/{name}")
        else:
            self._file(name)

    def _commit(self, name: str) -> None:
        hub = self.server.hub
        self._note("revision", name)
        sha = hub.branches.get(name, name if name in hub.commits else None)
        if sha is None:
            self._send(404, b"Invalid rev id")
        else:
            self._answer("revision", json.dumps({"sha": sha, "cardData": hub.card}).encode())

    def _file(self, name: str) -> None:
        path = self.server.hub.folder / name
        self._note("data", name)
        if path.exists():
            self._answer(name, path.read_bytes())
        else:
            self._send(404, b"Entry not found")

    def _note(self, kind: str, name: str) -> None:
        self.server.hub.requests.append((kind, name, dict(self.headers)))

    def _answer(self, name: str, data: bytes) -> None:
        faults = self.server.hub.faults[name]
        fault = faults.pop(0) if faults else ""
        status, _, wait = fault.partition(":")
        if fault == "html":
            self._send(200, b"<html>log in</html>", **{"Content-Type": "text/html; charset=x"})
        elif status.isdigit():
            self._send(int(status), b"no", **({"Retry-After": wait} if wait else {}))
        else:
            spoilt = {
                "wrong": data[:-1] + b"?",
                "short": data[:-10],
                "stub": data[:10],
                "long": data + b"?",
            }
            self._data(spoilt.get(fault, data), fault)

    def _data(self, data: bytes, fault: str) -> None:
        wanted = self.headers.get("Range")
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        status = 200
        if wanted and fault != "ignored":
            start, end = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
            if start >= len(data):
                self._send(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
                return
            end = min(end, len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        self._send(status, data, len(data) // 2 if fault in ("cut", "stall") else None, **headers)
        if fault == "stall":
            self.server.hub.go_on.wait(20)
            with suppress(OSError):  # the client may have disconnected
                self.wfile.write(data[len(data) // 2 :])
        self.close_connection = True

    def _send(self, status: int, body: bytes, cut: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:cut])


@contextmanager
def serve(folder: Path) -> Iterator[FakeHub]:
    """Run the hub while the block runs."""
    hub = FakeHub(folder)
    servers = [_Server(hub, is_cdn=is_cdn) for is_cdn in (False, True)]
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class Direct:
    """A replacement for a urllib opener that gets the servers' responses without sockets."""

    def __init__(self, folder: Path) -> None:
        self.hub = FakeHub(folder, "http://hub.test", "http://cdn.test")
        listing = self.hub.listing()  # hash the files only once
        self.hub.listing = lambda: listing  # type: ignore[method-assign]

    def open(self, request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
        """The response; raises HTTPError for a status of 300 or more, as urllib does."""
        assert timeout > 0
        address = urlsplit(request.full_url)
        lines = [f"GET {address.path} HTTP/1.0", *(f"{k}: {v}" for k, v in request.header_items())]
        handler = _Handler.__new__(_Handler)
        handler.server = SimpleNamespace(hub=self.hub, is_cdn=address.netloc == "cdn.test")  # type: ignore[assignment]
        handler.rfile = io.BytesIO("\r\n".join([*lines, "", ""]).encode())
        handler.wfile = io.BytesIO()
        handler.handle_one_request()
        data = handler.wfile.getvalue()
        answer = SimpleNamespace(makefile=lambda _: io.BufferedReader(io.BytesIO(data)))
        reply = http.client.HTTPResponse(answer)  # type: ignore[arg-type]
        reply.begin()
        if reply.status >= 300:
            url, code = request.full_url, reply.status
            raise urllib.error.HTTPError(url, code, reply.reason, reply.headers, reply)
        return reply
