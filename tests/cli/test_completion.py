"""Shells complete commands, options, models, files and chats, by click's protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgesppo.cli import COMMANDS, main
from edgesppo.help.pages import topics
from tests.cli.test_light_commands import HEAVY
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["sppo-iter1", "sppo-iter2", "sppo-iter3"]
BASH = shutil.which("bash")


@pytest.fixture
def folder(fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some files, and a home with two saved chats."""
    work = tmp_path / "work"
    work.mkdir()
    for name in ("mine.gguf", "notes.txt", ".hidden.gguf", "two words.gguf", "$(id).gguf"):
        (work / name).write_bytes(b"")
    (fresh_home / "sessions").mkdir()
    for name in ("rome", "paris"):
        (fresh_home / "sessions" / f"{name}.jsonl").write_bytes(b"")
    monkeypatch.chdir(work)
    return work


def asked(words: tuple[str, ...]) -> dict[str, str]:
    """What the script of bash sets to have the last word completed."""
    return {
        "_EDGESPPO_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["edgesppo", *words]),
        "COMP_CWORD": str(len(words)),
    }


def complete(*words: str) -> list[str]:
    """What is completed for the last word, as lines TYPE,VALUE."""
    done = CliRunner().invoke(main, prog_name="edgesppo", env=asked(words))
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("words", [("run", "--te"), ("chat", "sp"), ("chat", "--session", "")])
def test_completion_loads_neither_llama_cpp_nor_numpy(folder: Path, words: tuple[str, ...]) -> None:
    assert folder.is_dir()
    program = (
        "import sys, atexit; from edgesppo.cli import main\n"
        f"atexit.register(lambda: print('loaded', *sorted({HEAVY} & {{*sys.modules}})))\n"
        "main(prog_name='edgesppo')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **asked(words)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    *found, loaded = done.stdout.splitlines()
    assert loaded == "loaded", "completion must be quick"
    assert found == complete(*words) != []


def plain(*names: str) -> list[str]:
    return [f"plain,{name}" for name in names]


def test_commands_and_options_are_completed(folder: Path) -> None:
    assert folder.is_dir()
    assert complete("") == plain(*COMMANDS)
    assert complete("ru") == plain("run")
    assert complete("run", "--json") == plain("--json", "--json-lines")
    assert complete("run", "--cache-type", "q") == plain("q8_0")
    assert complete("convert", "--type", "q4") == plain("q4_k_m", "q4_k_s", "q4_0")


@pytest.mark.parametrize("command", ["chat", "run", "show", "plan", "bench", "tokenize", "convert"])
def test_models_are_completed_by_name_and_by_file(folder: Path, command: str) -> None:
    assert folder.is_dir()
    assert complete(command, "sp") == plain(*NAMES)
    assert complete(command, "mi") == plain("mine.gguf")
    assert "plain,demo" in complete(command, "")
    assert complete(command, "models/x") == ["file,models/x"]
    assert complete(command, "two") == ["file,two"], "the shell knows how to quote it"


@pytest.mark.parametrize("command", ["pull", "lock", "verify", "rm"])
def test_only_names_are_completed_where_only_names_are_taken(folder: Path, command: str) -> None:
    assert folder.is_dir()
    assert complete(command, "sp") == plain(*NAMES)
    assert complete(command, "mi") == []


def test_other_arguments_are_completed(folder: Path) -> None:
    assert folder.is_dir()
    assert complete("run", "demo", "mi") == [], "a prompt"
    assert complete("chat", "--session", "") == plain("paris", "rome")
    assert complete("import", "x") == ["file,x"]
    assert complete("run", "--schema", "x") == ["file,x"]
    assert complete("convert", "demo", "-o", "x") == ["file,x"]
    assert complete("run", "--draft", "mi") == plain("mine.gguf")
    assert complete("help", "tr") == plain("troubleshooting", "try")
    assert complete("help", "") == plain(*dict.fromkeys([*(t.name for t in topics()), *COMMANDS]))


def test_a_line_with_a_mistake_in_it_completes_in_silence(folder: Path) -> None:
    assert complete("runn", "--tem") == []
    assert complete("run", "--gpu", "5", "sppo-iter1") == plain("sppo-iter1")
    assert complete("run", "--n-ctx", "many", "sppo-iter1") == plain("sppo-iter1")
    (folder / "broken.lock").write_text("no lock")
    assert complete("chat", "--lock", "broken.lock", "sp") == ["file,sp"]
    assert complete("chat", "--lock", "none.lock", "sp") == ["file,sp"]


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_itself_completes_with_the_script(folder: Path) -> None:
    """Runs the function that the script defines, as bash does for the Tab key."""
    assert BASH is not None
    assert folder.is_dir()
    (folder / "edgesppo").write_text(f'#!/bin/sh\nexec {sys.executable} -m edgesppo "$@"\n')
    (folder / "edgesppo").chmod(0o755)
    program = """
        compopt() { :; }
        eval "$(_EDGESPPO_COMPLETE=bash_source edgesppo)"
        COMP_WORDS=(edgesppo chat sp); COMP_CWORD=2
        $(complete -p edgesppo | sed 's/.*-F \\([^ ]*\\).*/\\1/') edgesppo sp chat
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [BASH, "--norc", "-c", program],
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == NAMES, done.stderr
    assert main.name == "main"
