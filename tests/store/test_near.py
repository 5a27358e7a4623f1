"""A mistyped model is answered with the one that was probably meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo.lockfile import layers
from edgesppo.store import near
from tests.support.command_line import one_line_error, run

if TYPE_CHECKING:
    from pathlib import Path

TYPED = {
    "sppo-iter33": "sppo-iter3",
    "spo-iter2": "sppo-iter2",
    "sppo_iter1": "sppo-iter1",
    "demoo": "demo",
    "Demo": "demo",
    "SPPO-Iter3": "sppo-iter3",
    "Gemma-2-9B-It-SPPO-Iter3": "sppo-iter3",  # the repository's name without its owner
    "gemma-2-9b-it-sppo-iter1": "sppo-iter1",
    "gemma-2-9b-itt": "gemma-2-9b-it",
    "UCLA-AGI/Gemma2-9B-It-SPPO-Iter3": "UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3",
}
COMMANDS = ["path", "show", "plan", "bench", "tokenize", "verify", "rm", "pull", "lock", "convert"]


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("command", [*COMMANDS, "run", "chat"])
def test_a_mistyped_name_is_answered_with_the_one_meant(
    fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGESPPO_OFFLINE", "1")  # an unknown repository would be asked for
    assert fresh_home.is_dir()
    if "/" in typed and command in ("pull", "lock", "convert"):
        return  # any OWNER/NAME may be on the hub
    more = {"run": ["hi"], "tokenize": ["hi"], "convert": ["-o", tmp_path / "x.gguf"]}
    line = one_line_error(run(command, typed, *more.get(command, [])))
    assert f"(did you mean {TYPED[typed]}?)" in line


def test_a_repositorys_name_alone_is_no_prompt(fresh_home: Path) -> None:
    assert fresh_home.is_dir()
    refused = run("run", "Gemma-2-9B-It-SPPO-Iter3")
    assert refused.exit_code == 2
    assert "did you mean sppo-iter3?" in refused.stderr


@pytest.mark.parametrize("command", ["path", "show", "convert", "pull", "lock"])
def test_the_case_of_a_repository_does_not_count(
    fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGESPPO_OFFLINE", "1")
    assert fresh_home.is_dir()
    more = ["-o", tmp_path / "x.gguf"] if command == "convert" else []
    typed = "ucla-agi/gemma-2-9b-it-sppo-iter3"
    right = run(command, "UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3", *more)
    assert run(command, typed, *more).output == right.output
    assert layers.read().of_repository(typed) == layers.read().models["sppo-iter3"]


def test_a_name_that_is_like_no_other_gets_no_suggestion(
    fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fresh_home.is_dir()
    for typed in ("llama-70b", "x" * 100_000, "~nobody/x", "\ud800"):
        assert "did you mean" not in one_line_error(run("path", typed))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("modle.gguf", "model.gguf"),
        ("model.ggfu", "model.gguf"),
        ("model", "model.gguf"),
        ("My-Toy", "my-toys"),
    ],
)
def test_a_mistyped_file_or_folder_is_answered_with_one_beside_it(
    fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    assert fresh_home.is_dir()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "model.txt").write_text("no model")
    (tmp_path / "my-toys").mkdir()
    (tmp_path / "modle.gguf").symlink_to("nowhere")
    said = f"(did you mean {tmp_path / meant}?)"
    assert said in one_line_error(run("show", tmp_path / typed))
    monkeypatch.chdir(tmp_path)
    assert f"(did you mean {meant}?)" in one_line_error(run("show", typed))
    if meant != "my-toys":
        assert said in one_line_error(run("import", tmp_path / typed))


def test_a_suggestion_steers_no_terminal_and_looks_at_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mod\x1b[2Jel.gguf").write_bytes(b"")
    assert "\x1b" not in near.near_file(tmp_path / "modl.gguf")
    assert near.near_file(tmp_path / "modl.gguf")
    monkeypatch.setattr(near, "_MOST", 0)
    assert near.near_file(tmp_path / "modl.gguf") == ""
    assert near.near_file(tmp_path / "no such folder" / "x.gguf") == ""
    assert near.near_model("demmo", layers.read()) == " (did you mean demo?)"
