"""Offline is the default: only pull, lock and convert with a repository open a connection."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from edgesppo.cli import COMMANDS, main
from edgesppo.llama import build_info
from edgesppo.system import paths
from edgesppo.tuning import bench
from tests.conftest import DEMO
from tests.support.fake_hub import REPOSITORY, REVISION, FakeHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

NAME, ABSENT = "sppo-iter3", "gemma-2-2b-it"
LISTENS = {"serve"}  # which opens a socket for others, and is tested in tests/server
GO_ONLINE = {"pull", "lock", "convert"}
# What Python itself reads first in a child process: a socket leaves a mark, and is refused.
CHILD = """
import os, sys
def refuse(event, _):
    if event.startswith("socket.") and event != "socket.gethostname":
        open(os.environ["EDGESPPO_TEST_MARK"], "a").write(event)
        raise OSError("Forbidden")
sys.addaudithook(refuse)
"""


class Forbidden(AssertionError):
    """Code under test tried to open a connection."""


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Forbid sockets here and in child processes; yields the file that a child's attempt writes."""
    mark, folder = tmp_path / "mark", tmp_path / "startup"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CHILD)
    places = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    monkeypatch.setenv("EDGESPPO_TEST_MARK", str(mark))
    build_info._ask.cache_clear()  # so that its process is started

    def refuse(*_: Any, **__: Any) -> None:
        raise Forbidden

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    yield mark
    assert not mark.exists(), f"a child process wanted {mark.read_text()}"


def run(*words: str, code: int = 0, text: str = "") -> Result:
    result = CliRunner().invoke(main, list(words), input=text)
    assert not isinstance(result.exception, Forbidden)
    assert "Forbidden" not in result.output
    assert result.exit_code == code, result.output
    return result


def commands(tmp_path: Path) -> dict[str, list[list[str]]]:
    """Arguments for every command that works without a network."""
    short, out = ["--max-tokens", "1"], str(tmp_path / "out.gguf")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Hi"}\n')
    return {
        "try": [["try", *short]],
        "chat": [["chat", "demo", *short], ["chat", NAME, *short]],
        "run": [["run", "demo", "Hi", *short], ["run", NAME, "Hi", *short]],
        "convert": [["convert", str(DEMO), "-o", out], ["convert", str(DEMO), "--plan"]],
        "pull": [["pull", NAME], ["pull", NAME, "--convert"], ["pull", "demo"]],
        "lock": [["lock", NAME], ["lock", "demo"], ["lock", f"{REPOSITORY}@{REVISION}"]],
        "batch": [["batch", "demo", str(rows), str(tmp_path / "answers.jsonl"), *short]],
        "bench": [["bench", "demo", "--threads", "1", "--tune", "off"]],
        "list": [["list"], ["list", "--json"]],
        "path": [["path", NAME]],
        "import": [["import", str(DEMO), "--name", "mine"], ["import", "--scan"]],
        "verify": [["verify"], ["verify", NAME]],
        "rm": [["rm", "mine"]],
        "gc": [["gc"]],
        "build": [["build", "--dry-run"]],
        "doctor": [["doctor"], ["doctor", "--json"]],
        "plan": [["plan", NAME], ["plan", ABSENT]],
        "show": [["show", NAME], ["show", "demo"], ["show", ABSENT]],
        "card": [["card", NAME], ["card", "demo"]],
        "tokenize": [["tokenize", "demo", "Hi"]],
        "calibrate": [["calibrate", "demo", "-o", f"{out}.i", "--text", __file__, "--chunks", "1"]],
        "help": [["help"], ["help", "chat"], ["help", "pull"]],
        "eval": [["eval", "perplexity", "demo", "--text", __file__, "--chunks", "1"]],
    }


def test_no_command_opens_a_connection_for_what_is_here(
    hub: FakeHub, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("pull", NAME, "--accept-license", "--convert")
    asked = len(hub.requests)
    request.getfixturevalue("no_network")
    monkeypatch.setattr(bench, "READ", 1 << 20)
    monkeypatch.setattr(bench, "LENGTHS", (32,))
    everything = commands(tmp_path)
    assert set(everything) >= set(COMMANDS) - LISTENS
    for name, uses in everything.items():
        with monkeypatch.context() as patch:
            if name != "doctor":  # which says whether there is a token
                patch.setitem(sys.modules, "huggingface_hub", None)
            for words in uses:
                run(*words, text="Hello\n" if name == "chat" else "")
    assert len(hub.requests) == asked


def test_a_socket_of_a_child_process_would_be_seen(no_network: Path) -> None:
    ask = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    assert "Forbidden" in done.stderr
    assert no_network.read_text().startswith("socket.")
    no_network.unlink()


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"]).returncode != 0,
    reason="no namespace without a network can be made here",
)
def test_a_cached_model_answers_where_there_is_no_network_at_all(hub: FakeHub) -> None:
    run("pull", NAME, "--accept-license", "--convert")
    words = ["unshare", "-rn", sys.executable, "-m", "edgesppo", "run", NAME, "Hi"]
    done = subprocess.run([*words, "--max-tokens", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hub.url


@pytest.mark.usefixtures("no_network", "fresh_home")
@pytest.mark.parametrize("how", ["--offline", "EDGESPPO_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(
    "words", [["pull", NAME], ["lock", NAME], ["convert", f"{REPOSITORY}@{REVISION}", "--plan"]]
)
def test_what_goes_online_does_not_where_that_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, how: str, words: list[str]
) -> None:
    if how.startswith("--"):
        words = [*words, how]
    else:
        monkeypatch.setenv(how, "1")
    assert "nothing is fetched" in run(*words, code=1).stderr


@pytest.mark.usefixtures("no_network")
def test_an_absent_model_is_not_fetched_silently(fresh_home: Path) -> None:
    import edgesppo

    with pytest.raises(edgesppo.ModelNotFound, match=f"edgesppo pull {NAME} --convert"):
        edgesppo.load(NAME)
    assert not list(fresh_home.iterdir())


def test_doctor_tells_what_is_wrong_and_never_the_token(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_gguf: Path
) -> None:
    token = "hf_aVerySecretToken"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = json.loads(run("doctor", "--json").stdout)["findings"]
    states = {finding["about"]: finding["state"] for finding in found}
    assert {"python", "library", "features", "memory", "cores", "disk", "models"} <= set(states)
    assert "fail" not in states.values()
    text = run("doctor").output
    assert "found (not shown)" in text
    assert "HF_HUB_OFFLINE is set" in text
    assert token not in text
    assert all(len(line) < 80 or " " not in line.strip() for line in text.splitlines())
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(demo_gguf.read_bytes())
    run("import", str(mine))
    mine.unlink()
    assert "edgesppo rm mine" in " ".join(run("doctor", code=1).output.split())
    (fresh_home / "models.lock").write_text("version = 9\n")
    assert "fail" in run("doctor", code=1).output


@pytest.mark.usefixtures("fresh_home")
def test_a_bad_lock_is_one_finding_with_what_to_do(fresh_home: Path) -> None:
    (fresh_home / "models.lock").write_text("version = 1\n[[mod")
    found = json.loads(run("doctor", "--json", code=1).stdout)["findings"]
    (failed,) = [finding for finding in found if finding["state"] == "fail"]
    assert "correct it, or move it away" in failed["text"]


@pytest.mark.parametrize("variable", ["EDGESPPO_HOME", "EDGESPPO_LOCK"])
@pytest.mark.usefixtures("fresh_home")
def test_a_home_of_nobody_is_told(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "~no-such-user/x")
    assert f"{variable} is '~no-such-user/x'" in run("list", code=1).stderr


def test_a_relative_home_is_refused_and_a_relative_base_folder_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGESPPO_HOME", "here")
    assert "EDGESPPO_HOME is 'here', expected an absolute path" in run("list", code=1).stderr
    monkeypatch.setenv("EDGESPPO_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setattr(sys, "platform", "linux")
    assert paths.cache_dir() == Path.home() / ".cache" / "edgesppo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.cache_dir() == tmp_path / "edgesppo"
