"""`edgesppo batch` as a person uses it: progress, --json, an interruption, a kill."""

from __future__ import annotations

import errno
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.system.fs import FileSystem
from edgesppo.terminal.row_progress import RowProgress
from tests.support.command_line import CAPITAL, GREEDY, one_line_error, run, started

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    texts = [CAPITAL, "Who are you?", "Hello"]
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    return path


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_it_answers_every_row_and_says_so(demo_gguf: Path, rows: Path) -> None:
    out = rows.with_name("out.jsonl")
    result = run("batch", demo_gguf, rows, out, *GREEDY, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["rows"], found["resumed"], found["errors"]) == (3, 0, 0)
    lines = written(out)
    assert sorted(line["row"] for line in lines) == [1, 2, 3]
    tokens = sum(line["usage"]["completion_tokens"] for line in lines)
    assert found["usage"]["completion_tokens"] == tokens > 0
    assert found["tokens_per_second"] > 0
    assert "3 rows in" in result.stderr
    assert "tokens/s" in result.stderr


def test_log_probabilities_are_in_the_file(demo_gguf: Path, rows: Path) -> None:
    out = rows.with_name("out.jsonl")
    assert run("batch", demo_gguf, rows, out, *GREEDY, "--logprobs", "1").exit_code == 0
    for line in written(out):
        assert len(line["logprobs"]) == line["usage"]["completion_tokens"]
        assert len(line["logprobs"][0]["top"]) == 1


def test_rows_that_failed_are_counted_and_are_a_failure_also_of_a_second_run(
    demo_gguf: Path, rows: Path
) -> None:
    out = rows.with_name("out.jsonl")
    rows.write_text('"Hello"\n{"promt": "Hi"}\n')
    for _ in range(2):
        result = run("batch", demo_gguf, rows, out, *GREEDY, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["errors"] == 1
        assert "2 rows in" in result.stderr
        assert '1 with an "error" (put their rows into a file of their own' in result.stderr


def test_a_file_of_another_form_is_refused_before_anything_is_written(
    demo_gguf: Path, rows: Path
) -> None:
    out = rows.with_name("out.jsonl")
    rows.write_text("What is the capital of France?\nWho are you?\n")
    result = run("batch", demo_gguf, rows, out, *GREEDY)
    assert result.exit_code == 1
    assert f"{rows} has no row that can be read: in row 1, the row is not JSON" in result.stderr
    assert not out.exists()


def test_a_second_run_has_nothing_to_do(demo_gguf: Path, rows: Path) -> None:
    out = rows.with_name("out.jsonl")
    run("batch", demo_gguf, rows, out, *GREEDY)
    before = out.read_bytes()
    result = run("batch", demo_gguf, rows, out, *GREEDY)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "3 of 3 rows are in" in result.stderr
    assert out.read_bytes() == before


def test_other_options_or_another_input_are_refused(demo_gguf: Path, rows: Path) -> None:
    out = rows.with_name("out.jsonl")
    run("batch", demo_gguf, rows, out, *GREEDY)
    before = out.read_bytes()
    error = one_line_error(run("batch", demo_gguf, rows, out, "--temperature", "1", "--seed", "4"))
    assert "another recipe: temperature was 0.0 and is 1.0 now" in error
    rows.write_text('"Hello"')
    assert "another input" in one_line_error(run("batch", demo_gguf, rows, out, *GREEDY))
    assert out.read_bytes() == before


def test_rows_are_also_read_from_standard_input(demo_gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = run("batch", demo_gguf, "-", out, *GREEDY, stdin=f'"{CAPITAL}"\n')
    assert result.exit_code == 0
    assert written(out)[0]["text"] == "The capital of France is Paris."


def test_what_cannot_work_is_refused(demo_gguf: Path, rows: Path, tmp_path: Path) -> None:
    for words in ([], [rows], [rows, "-"], [demo_gguf, rows, "out", "more"]):
        assert run("batch", *words).exit_code == 2, words
    assert "input itself" in one_line_error(run("batch", demo_gguf, rows, rows))
    assert "is a folder" in one_line_error(run("batch", demo_gguf, rows, tmp_path))
    assert "does not exist" in one_line_error(
        run("batch", demo_gguf, rows, tmp_path / "no" / "out")
    )
    gone = one_line_error(run("batch", demo_gguf, tmp_path / "no.jsonl", tmp_path / "out"))
    assert "cannot be read" in gone


def many(path: Path, n: int) -> None:
    lines = [json.dumps({"custom_id": f"r{i}", "prompt": f"My number is {i}."}) for i in range(n)]
    path.write_text("\n".join(lines))


def words(model: Path, rows: Path, out: Path) -> list[str]:
    options = ["--max-tokens", "12", "--quiet"]
    return [sys.executable, "-m", "edgesppo", "batch", str(model), str(rows), str(out), *options]


def wait_for_lines(out: Path, n: int) -> None:
    for _ in range(6_000):
        if out.exists() and out.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.01)
    raise AssertionError(f"{out} has no {n} lines after a minute")


def test_killed_it_goes_on_with_every_row_once(demo_gguf: Path, tmp_path: Path) -> None:
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    many(rows, 40)
    with started(words(demo_gguf, rows, out)) as process:
        wait_for_lines(out, 3)
        process.kill()
    result = run(*words(demo_gguf, rows, out)[3:])
    assert result.exit_code == 0, result.output
    assert sorted(line["custom_id"] for line in written(out)) == sorted(f"r{i}" for i in range(40))


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    many(rows, 12)

    def press(_self: object, done: int, *_: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RowProgress, "update", press)
        result = run(*words(demo_gguf, rows, out)[3:])
    assert result.exit_code == 130
    n = len(written(out))
    assert 5 <= n < 12
    assert f"stopped; {n} of 12 rows are in {out}, and the same command goes on" in result.stderr
    assert run(*words(demo_gguf, rows, out)[3:]).exit_code == 0
    assert sorted(line["custom_id"] for line in written(out)) == sorted(f"r{i}" for i in range(12))


def test_a_full_disk_ends_it_with_what_is_kept(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    many(rows, 6)
    real = FileSystem.write

    def write(self: FileSystem, descriptor: int, data: bytes, offset: int) -> int:
        if b'"row": 3,' in bytes(data):
            raise OSError(errno.ENOSPC, "full")
        return real(self, descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(FileSystem, "write", write)
        error = one_line_error(run(*words(demo_gguf, rows, out)[3:]))
    assert f"no space left for {out}; free some and try again; " in error
    assert "of 6 rows are in" in error
    assert run(*words(demo_gguf, rows, out)[3:]).exit_code == 0
    assert sorted(line["row"] for line in written(out)) == [1, 2, 3, 4, 5, 6]
