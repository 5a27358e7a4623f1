"""Commands load only what they need: those that run no model, neither llama.cpp nor numpy."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.cli import COMMANDS
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_hub import FakeHub

HEAVY = {"numpy", "llama_cpp", "gguf", "numba", "prompt_toolkit", "asyncio"}
# Runs commands one after the other, and prints the heavy modules that are loaded after each.
PROGRAM = f"""
import sys
from edgesppo.cli import main
for line in sys.argv[1:]:
    try:
        main(line.split("|"))
    except SystemExit as ended:
        code = ended.code
    print("loaded", line, code, *sorted({HEAVY} & {{*sys.modules}}), sep="|", file=sys.stderr)
"""


def loaded_by(*commands: list[str]) -> dict[str, list[str]]:
    """For each command its exit code, and the heavy modules that the process has loaded then."""
    lines = ["|".join(words) for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *lines],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    told = [text for text in done.stderr.splitlines() if text.startswith("loaded|")]
    assert len(told) == len(lines), done.stderr
    return {
        line: text.removeprefix(f"loaded|{line}|").split("|")
        for line, text in zip(lines, told, strict=True)
    }


def test_no_help_text_needs_them() -> None:
    found = loaded_by(["--help"], *([name, "--help"] for name in COMMANDS))
    assert all(result == ["0"] for result in found.values()), found


def test_looking_at_what_is_here_needs_neither(fresh_home: Path, demo_gguf: Path) -> None:
    assert fresh_home.is_dir()
    file = str(demo_gguf)
    found = loaded_by(
        ["list"],
        ["list", "--json"],
        ["path", "demo"],
        ["verify", "demo"],
        ["show", file],
        ["show", "sppo-iter3"],
        ["import", "--scan"],
        ["plan", file, "--json"],
        ["plan", file],
        ["import", file, "--name", "mine"],
        ["verify", "mine"],
        ["rm", "mine"],
        ["gc", "--dry-run"],
        ["doctor", "--json"],
    )
    found["doctor|--json"][0] = "0"  # it may have found something on this machine
    assert all(result == ["0"] for result in found.values()), found


def test_a_card_needs_the_names_of_gguf_and_no_llama_cpp(demo_gguf: Path) -> None:
    (result,) = loaded_by(["card", str(demo_gguf)]).values()
    assert result == ["0", "gguf", "numpy"], "it compares the file with the converter's recipes"


def test_a_chat_from_a_pipe_needs_no_line_editor(demo_gguf: Path) -> None:
    (result,) = loaded_by(["chat", str(demo_gguf)]).values()
    assert result == ["0", "llama_cpp"]


def test_getting_a_model_needs_no_llama_cpp(hub: FakeHub, fresh_home: Path) -> None:
    assert hub.url
    assert fresh_home.is_dir()
    found = loaded_by(
        ["lock", "sppo-iter3"],
        ["pull", "sppo-iter3", "--accept-license"],
        ["pull", "sppo-iter3", "--repair"],
        ["rm", "sppo-iter3", "--yes"],
    )
    assert found.pop("lock|sppo-iter3") == ["0"]
    # Which size its file will have is known to the converter.
    assert all(result == ["0", "gguf", "numpy"] for result in found.values()), found


@pytest.mark.parametrize("module", ["edgesppo", "edgesppo_convert"])
def test_importing_a_package_needs_neither(module: str) -> None:
    program = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not HEAVY & set(done.stdout.decode().split())
