"""The manual is true: its commands and programs run, its links lead somewhere, its words exist.

The demo stands in for the real model, under its name. The commands of NOT_RUN are not run, COSTLY
ones with EDGESPPO_LONG=1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.cli import COMMANDS
from edgesppo.server import listen
from edgesppo.tuning import bandwidth, bench
from tests.conftest import DEMO
from tests.help.manual_not_run import COSTLY, NOT_RUN
from tests.support import manual, small_shell
from tests.support.adapters import random_factors, write_adapter
from tests.support.command_line import run
from tests.support.live_server import live
from tests.support.paths import ROOT
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.name == "nt", reason="lines for a POSIX shell")
LEFT_OUT = {text for lines in NOT_RUN.values() for text in lines}
URL = "http://127.0.0.1:8080"
# What a line of the manual says, and what stands for it with the demo.
STAND_INS = {"5.76GB": "2.6MB", "--n-ctx 8192": "--n-ctx 512", "--n-ctx 4096": "--n-ctx 512"}
STAND_INS |= {"--n-ctx 2048": "--n-ctx 256"}
TEXT = "The capital of France is Paris. My name is Ada. What is two plus three? " * 60


@pytest.fixture(scope="module")
def home(
    demo_gguf: Path, demo_f32: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A home where the demo has the names of the real models, and a saved chat; quick measuring."""
    folder = tmp_path_factory.mktemp("manual") / "home"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EDGESPPO_HOME", "HOME"):
            patch.setenv(name, str(folder))
        patch.setattr(bandwidth.bandwidth, "__defaults__", (1 << 20,))
        patch.setattr(bench, "READ", 1 << 20)
        patch.setattr(bench, "LENGTHS", (32,))
        assert run("import", demo_gguf, "--name", "stand-in-3").exit_code == 0
        assert run("import", demo_f32, "--name", "stand-in-2").exit_code == 0
        assert run("import", demo_gguf, "--name", "stand-in-2b").exit_code == 0
        lock = folder / "models.lock"
        text = lock.read_text().replace("stand-in-2b", "gemma-2-2b-it")
        lock.write_text(text.replace("stand-in-", "sppo-iter"))
        assert run("chat", "sppo-iter3", "--session", "rome", stdin="Hello").exit_code == 0
        yield folder


@pytest.fixture
def folder(home: Path, demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the manual speaks of."""
    assert home.is_dir()
    monkeypatch.chdir(tmp_path)
    for name in ("mine.gguf", "sppo.gguf", "other.gguf"):
        shutil.copy(demo_gguf, tmp_path / name)
    (tmp_path / "Gemma-2-9B-It-SPPO-Iter3").symlink_to(DEMO)
    shutil.copy(ROOT / "models.lock", tmp_path)
    _write_texts(tmp_path)
    factors = random_factors({"model.layers.0.self_attn.q_proj": (256, 256)}, 4)
    for name in ("my-lora", "another"):
        write_adapter(tmp_path / name, factors)
    (tmp_path / "hello.py").write_text("print('hello')\n")
    return tmp_path


def _write_texts(folder: Path) -> None:
    (schema,) = [b for b in manual.blocks(manual.PAGES["sampling"]) if b.language == "json"]
    (folder / "rivers.json").write_text(schema.text)
    (folder / "notes.md").write_text("The Seine flows through Paris.\n")
    (folder / "wiki.test.raw").write_text(TEXT)
    (folder / "api-keys").write_text("ada:a-long-secret-of-ada requests=60 tokens=20000\n")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    (folder / "chats.jsonl").write_text((json.dumps(turns) + "\n") * 4)
    rows = [{"prompt": f"What is {n} plus 2?", "max_tokens": 8} for n in range(3)]
    for name in ("questions.jsonl", "prompts.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    question = {"dataset": "koala", "instruction": "What is the capital of France?"}
    (folder / "alpaca_eval.json").write_text(json.dumps([question]))


@pytest.fixture
def server(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server for those that ask one; and one that is started ends as soon as it is ready."""

    from edgesppo.server import serve

    goes_on = serve.run

    def ends(server: serve.Server, listener: socket.socket) -> None:
        async def on_tick(_counter: int) -> bool:
            return server.service.worker.status != "loading"

        monkeypatch.setattr(server, "on_tick", on_tick)
        goes_on(server, listener)

    with live(demo_gguf) as running:
        monkeypatch.setattr(serve, "run", ends)
        on_address = listen.on_address
        monkeypatch.setattr(listen, "on_address", lambda host, _: on_address(host, 0))
        yield running.url


@pytest.mark.parametrize("page", manual.MANUAL)
def test_the_commands_and_programs_of_a_page_run(
    page: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    text = manual.MANUAL[page].read_text(encoding="utf-8")
    if not any(block.language in ("sh", "python") for block in manual.blocks(manual.MANUAL[page])):
        pytest.skip("a page without a command or a program")
    url = request.getfixturevalue("server") if URL in text or "edgesppo serve" in text else URL
    names: dict[str, Any] = {"__name__": "__manual__"}
    for block in manual.blocks(manual.MANUAL[page]):
        if block.language == "python":
            exec(compile(block.text.replace(URL, url), f"{page}:{block.line}", "exec"), names)
        if block.language == "sh":
            for command in manual.commands(block):
                if command.text not in LEFT_OUT and (LONG or command.text not in COSTLY):
                    _run(command.text, url)
    assert folder.is_dir()


def _run(line: str, url: str) -> None:
    for said, used in {**STAND_INS, URL: url}.items():
        line = line.replace(said, used)
    words = manual.Command(line).words
    if "convert" in words and "-o" in words:
        Path(words[words.index("-o") + 1]).unlink(missing_ok=True)
    stdin = b"What is the capital of France?\n" if line.startswith("edgesppo chat") else b""
    small_shell.run(words, stdin)


def test_what_is_left_out_or_costly_is_a_command_of_a_page() -> None:
    lines = {
        command.text
        for path in manual.MANUAL.values()
        for block in manual.blocks(path)
        if block.language == "sh"
        for command in manual.commands(block)
    }
    assert lines >= LEFT_OUT | COSTLY


def test_every_block_says_what_it_is() -> None:
    known = {"sh", "python", "text", "json"}
    for name, path in manual.MANUAL.items():
        found = [block.language for block in manual.blocks(path)]
        assert set(found) <= known, name
        fences = re.findall(r"^```", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(found), f"{name} has a block without a language"


_INLINE = re.compile(r"(?<!`)`(edgesppo [^`\n]+)`")


def test_commands_within_sentences_exist_with_their_options() -> None:
    seen = 0
    for name, path in manual.MANUAL.items():
        for text in _INLINE.findall(path.read_text(encoding="utf-8")):
            command, *others = text.split()[1:]
            if command.isupper() or command.startswith("-"):
                continue
            assert command in COMMANDS, f"{name}: {text}"
            part = [others[0]] if command == "eval" and others else []
            shown = run(command, *part, "--help").output
            for word in others:
                if word.startswith("--"):
                    assert word in shown, f"{name}: {text}"
                    seen += 1
    assert seen > 5


@pytest.mark.parametrize("page", [*manual.MANUAL, "CONTRIBUTING", "SECURITY"])
def test_links_lead_somewhere(page: str) -> None:
    path = manual.MANUAL.get(page, ROOT / ".github" / f"{page}.md")
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"(?<!`)\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            found = path.parent / file
            assert found.exists(), f"{page}: {target}"
            assert not anchor or f"# {anchor}" in found.read_text(encoding="utf-8").lower(), target


def test_the_variables_that_the_program_reads_are_explained() -> None:
    told = manual.PAGES["environment"].read_text(encoding="utf-8")
    folders = (ROOT / "edgesppo", ROOT / "convert")
    sources = [p for f in folders for p in f.rglob("*.py") if not {"dev", "examples"} & {*p.parts}]
    read = {n for p in sources for n in re.findall(r"\bEDGESPPO_[A-Z_]+\b", p.read_text("utf-8"))}
    assert {name for name in read if f"`{name}`" not in told} == set()
    assert {n for n in re.findall(r"EDGESPPO_[A-Z_]+", told) if n not in read} == set()


def test_the_messages_that_it_explains_are_ones_that_the_program_says() -> None:
    text = manual.PAGES["troubleshooting"].read_text(encoding="utf-8")
    messages = [
        m for line in re.findall(r"\*\*(.*?)\*\*", text) for m in re.findall('"(.*?)"', line)
    ]
    assert len(messages) > 30
    folders = (ROOT / "edgesppo", ROOT / "convert")
    paths = (path for folder in folders for path in folder.rglob("*.py"))
    said = " ".join(_messages(path) for path in paths if "dev" not in path.parts)
    for message in messages:
        pattern = r"\{\}".join(map(re.escape, message.split("...")))
        assert re.search(pattern, said), f"no message has {message!r}"


def _messages(path: Path) -> str:
    """The texts of a source, with their parts joined; what is put into them is {}."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'""".*?"""|^ *#.*?$', "", text, flags=re.DOTALL | re.MULTILINE)
    joined = re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)
    return re.sub(r"\{[^{}]*\}", "{}", joined)
