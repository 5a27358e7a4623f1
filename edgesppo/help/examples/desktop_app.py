"""A desktop program with `edgesppo serve` as its child, which ends with it.

    python desktop_app.py sppo-iter3

The model has a process of its own: your program stays small, may be written in any language, and
goes on if the model's process crashes. The child ends when its standard input does
(`--until-eof`), so also when the program is killed. A random key keeps other programs of this
machine out.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.request
from typing import IO, Any

SERVING = re.compile(r"^Serving .* at (http://\S+)")
WAIT_S = 600  # for a model to load; the first time, its settings are measured, too


class ServerChild:
    """The server, from `with` to the end of the block, or of this program."""

    def __init__(self, model: str) -> None:
        self.key = secrets.token_urlsafe()
        command = [sys.executable, "-m", "edgesppo", "serve", model, "--port", "0", "--until-eof"]
        self.process = subprocess.Popen(
            [*command, "--no-access-log"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "EDGESPPO_API_KEY": f"app:{self.key}"},
        )
        assert self.process.stderr is not None
        self.messages: list[str] = []
        self.url = self._address(self.process.stderr)
        self.reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self.reader.start()

    def _address(self, stream: IO[str]) -> str:
        """Read what the server says until it tells its address."""
        for line in stream:
            self.messages.append(line.strip())
            if told := SERVING.match(line):
                return told[1]
        raise RuntimeError(self.messages[-1] if self.messages else "the server does not start")

    def _read(self, stream: IO[str]) -> None:
        """Read the rest, so that the server never waits for a reader."""
        with stream:
            for line in stream:
                self.messages.append(line.strip())

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer to a request, as JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def wait(self) -> None:
        """Wait until the model is loaded."""
        end = time.monotonic() + WAIT_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                self.request("/health")
            except OSError:  # 503 while it loads
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(self.messages[-1])

    def ask(self, text: str) -> str:
        """One question and its answer."""
        messages = [{"role": "user", "content": text}]
        answer = self.request("/v1/chat/completions", {"messages": messages})
        return str(answer["choices"][0]["message"]["content"])

    def __enter__(self) -> ServerChild:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()  # lets the answers under way end
        self.process.wait()
        self.reader.join()


if __name__ == "__main__":
    with ServerChild(sys.argv[1] if len(sys.argv) > 1 else "demo") as server:
        server.wait()
        print(server.ask("What is the capital of France?"))
