"""`edgesppo serve` as a process: what it refuses to begin with, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.command_line import one_line_error, run, started

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


def test_an_address_that_cannot_be_had_is_told(demo_gguf: Path, tmp_path: Path) -> None:
    error = one_line_error(run("serve", demo_gguf, "--unix-socket", tmp_path / "no" / "socket"))
    assert "cannot listen" in error
    (tmp_path / "file").touch()
    error = one_line_error(run("serve", demo_gguf, "--unix-socket", tmp_path / "file"))
    assert "there is a file" in error


def test_a_process_serves_a_unix_socket_and_ends_well_when_told(
    demo_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    words = [sys.executable, "-m", "edgesppo", "serve", str(demo_gguf), "--unix-socket", str(path)]
    environment = {**os.environ, "EDGESPPO_API_KEY": "ada:secret-of-ada"}
    with started(words, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        first = process.stderr.readline().decode()
        assert re.fullmatch(rf"Serving demo-q4_k_m at unix:{re.escape(str(path))} \(.*\)\n", first)
        assert path.stat().st_mode & 0o077 == 0
        transport = httpx.HTTPTransport(uds=str(path), retries=0)
        with httpx.Client(transport=transport, base_url="http://anything") as client:
            while client.get("/health").json()["status"] == "loading":
                time.sleep(0.1)
            assert client.get("/v1/models").status_code == 401
            headers = {"Authorization": "Bearer secret-of-ada"}
            body = {"messages": [{"role": "user", "content": "Hi, my secret is 42"}]}
            answer = client.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        log = process.stderr.read().decode()
        assert process.wait() == 0
    assert not path.exists()
    assert '"key": "ada"' in log
    assert "secret" not in log
    assert "Traceback" not in log


def test_a_model_that_cannot_be_loaded_ends_it_with_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    result = run("serve", bad, "--port", "0")
    assert result.exit_code == 1
    assert "bad.gguf" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
