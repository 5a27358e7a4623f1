"""`edgesppo serve` as a command: what it refuses to begin with, and how it ends."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from edgesppo.cli import serve
from edgesppo.server import listen, log_output
from tests.support import certificate
from tests.support.command_line import one_line_error, run
from tests.support.live_server import CHAT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and unix sockets")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_address_demands_a_key(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.delenv("EDGESPPO_API_KEY", raising=False)
    assert "needs API keys" in one_line_error(run("serve", demo_gguf, "--host", host))


def test_half_a_certificate_and_a_missing_one_are_refused(demo_gguf: Path, tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    assert "give both" in one_line_error(run("serve", demo_gguf, "--tls-cert", cert))
    error = one_line_error(run("serve", demo_gguf, "--tls-cert", cert, "--tls-key", cert))
    assert "there is no file" in error
    cert.write_text("no certificate", encoding="utf-8")
    error = one_line_error(run("serve", demo_gguf, "--tls-cert", cert, "--tls-key", cert))
    assert "PEM" in error


def test_ctrl_c_on_a_terminal_leaves_the_shell_a_line_of_its_own(demo_gguf: Path) -> None:
    from tests.support.pty_terminal import Terminal  # not importable on Windows

    words = ["serve", str(demo_gguf), "--port", "0"]
    server = Terminal([sys.executable, "-m", "edgesppo", *words])
    server.expect("Ready: ")
    server.type("\x03")
    server.expect("Stopped")
    assert server.close() == 0
    assert server.rows()[-1] == "Stopped"


def test_an_address_is_listened_on_as_asyncio_expects_it() -> None:
    """It sends small pieces at once only where the socket says that its protocol is TCP."""
    with listen.on_address("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_an_address_that_cannot_be_had_is_told(demo_gguf: Path, tmp_path: Path) -> None:
    error = one_line_error(run("serve", demo_gguf, "--unix-socket", tmp_path / "no" / "socket"))
    assert "cannot listen" in error
    (tmp_path / "file").touch()
    error = one_line_error(run("serve", demo_gguf, "--unix-socket", tmp_path / "file"))
    assert "there is a file" in error


def test_it_ends_with_its_input_where_it_is_told_to(demo_gguf: Path) -> None:
    result = run("serve", demo_gguf, "--port", "0", "--until-eof")
    assert (result.exit_code, result.stdout) == (0, "")


def test_it_serves_a_unix_socket_and_ends_well_when_told(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPPO_API_KEY", "ada:secret-of-ada,bob:secret-of-bob")
    path, statuses = tmp_path / "socket", []

    def use() -> None:
        try:
            statuses.extend(talk(path))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    client = threading.Thread(target=use)
    client.start()
    result = run("serve", demo_gguf, "--unix-socket", path)
    client.join()
    assert (result.exit_code, result.stdout) == (0, "")
    assert statuses == [0, 401, 200]
    assert not path.exists()
    first, *log = result.stderr.splitlines()
    assert first == f"Serving demo-q4_k_m at unix:{path} (Ctrl-C ends it)"
    assert any(re.fullmatch(r"Ready: demo-q4_k_m, 512 tokens .*", line) for line in log)
    assert "secret" not in result.stderr
    last = json.loads(log[-1])
    assert (last["key"], last["path"], last["status"]) == ("ada", CHAT, 200)
    assert last["completion_tokens"] > 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_it_serves_https_with_a_certificate(demo_gguf: Path, tmp_path: Path) -> None:
    cert, key = certificate.make(tmp_path)
    with listen.on_address("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    answers: list[Any] = []

    def use() -> None:
        try:
            trusting = ssl.create_default_context(cafile=cert)
            with httpx.Client(base_url=f"https://localhost:{port}", verify=trusting) as client:
                answers.append(ask_patiently(client, "/health").json()["status"])
                origin = {"Origin": f"https://localhost:{port}"}
                answers.append(client.get("/v1/models", headers=origin).status_code)
            with socket.create_connection(("127.0.0.1", port), timeout=30) as silent:
                with contextlib.suppress(ConnectionError):
                    silent.recv(1)
                answers.append("silent")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    client = threading.Thread(target=use)
    client.start()
    tls = ("--tls-cert", cert, "--tls-key", key, "--header-timeout", "3")
    result = run("serve", demo_gguf, "--port", str(port), *tls)
    client.join()
    assert (result.exit_code, answers) == (0, ["ok", 200, "silent"])
    assert result.stderr.startswith(f"Serving demo-q4_k_m at https://127.0.0.1:{port} ")


def ask_patiently(client: httpx.Client, path: str) -> httpx.Response:
    """The answer, once the server listens and has loaded its model."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.ConnectError):
            response = client.get(path)
            if response.status_code == 200:
                return response
        assert time.monotonic() < end, "it does not listen"
        time.sleep(0.05)


def talk(path: Path) -> list[int]:
    """What others may do with the socket, and the statuses of a request without and with a key."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, "it does not listen"
        time.sleep(0.01)
    found = [path.stat().st_mode & 0o077]
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://anything", timeout=60) as client:
        while client.get("/health").json()["status"] == "loading":
            time.sleep(0.05)
        found.append(client.get("/v1/models").status_code)
        headers = {"Authorization": "Bearer secret-of-ada"}
        body = {"messages": [{"role": "user", "content": "Hi, my secret is 42"}]}
        found.append(client.post(CHAT, json=body, headers=headers).status_code)
    return found


def test_a_log_that_nobody_reads_holds_nobody_up_and_tells_what_it_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_output, "_LAST_LINES_S", 60)
    reader, writer = os.pipe()
    with open(reader) as lines, open(writer, "w") as stream:  # noqa: PTH123
        output = log_output.LogOutput(stream, most_lines=3)
        for _ in range(100):  # each is more than a pipe takes
            output.emit(logging.makeLogRecord({"msg": "x" * 70_000}))
        read: list[str] = []
        person = threading.Thread(target=lambda: read.extend(lines))
        person.start()
        output.flush()
        output.emit(logging.makeLogRecord({"msg": "the last"}))
        output.flush()
        output.close()
        stream.close()
        person.join()
    told = [int(line.split()[0]) for line in read if "were dropped" in line]
    kept = [line for line in read if line.startswith("x")]
    assert (sum(told) + len(kept), read[-1]) == (100, "the last\n")
    assert told


def test_a_name_with_two_addresses_is_listened_on_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    six = (socket.AF_INET6, *stream, ("::1", 0, 0, 0))
    four = (socket.AF_INET, *stream, ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [six, four])
    with listen.on_address("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_keys_that_others_can_read_are_told_but_for_systemds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    path.write_text("ada:secret-of-ada\n")
    path.chmod(0o440)
    for folder, told in ((tmp_path.parent / "other", True), (tmp_path, False)):
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
        assert serve._keys(path)
        assert ("other users can read" in capsys.readouterr().err) == told


def test_a_model_that_cannot_be_loaded_ends_it_with_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    result = run("serve", bad, "--port", "0")
    assert result.exit_code == 1
    assert "bad.gguf" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_without_the_servers_libraries_it_says_how_to_get_them(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    error = one_line_error(run("serve", demo_gguf))
    assert "uvicorn" in error
    assert 'in the clone, pip install ".[server]"' in error
