"""The output of a batch after a crash at any moment: every row is there exactly once."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.batches import head as head_module
from edgesppo.batches.head import Head
from edgesppo.batches.output import ResultFile
from edgesppo.batches.result import BatchResult
from edgesppo.errors import EdgesppoError, OutputError, UsageError
from edgesppo.system import jsonl
from tests.support.faulty import Counting, Faulty, Short
from tests.support.sweeps import LONG, places

if TYPE_CHECKING:
    from edgesppo.system.fs import FileSystem

HEAD = Head(
    {"name": "in.jsonl", "sha256": "a" * 64, "rows": 4},
    {"name": "m", "fingerprint": "f" * 64},
    {"recipe": "batch", "temperature": 0.7, "stop": []},
)
ROWS = range(1, 5)


class Killed(BaseException):
    """The process is gone."""


def line(row: int) -> BatchResult:
    return BatchResult((row, -1), {"row": row, "text": f"{row}: {'ä' * row}\n", "error": None})


def append_all(path: Path, files: FileSystem | None = None) -> None:
    with ResultFile(path, HEAD, files) as file:
        for row in ROWS:
            if (row, -1) not in file.done:
                file.append(line(row))
                file.sync()


def rows_of(path: Path) -> list[int]:
    return [json.loads(text)["row"] for text in path.read_text(encoding="utf-8").splitlines()]


def assert_whole(path: Path) -> None:
    append_all(path, Counting())  # which does not wait for the disk
    assert sorted(rows_of(path)) == list(ROWS)
    with ResultFile(path, HEAD) as file:
        assert [dict(result) for result in file.results()] == [
            dict(line(row)) for row in rows_of(path)
        ]


def counted(tmp_path: Path) -> list[str]:
    files = Counting()
    append_all(tmp_path / "counted.jsonl", files)
    return files.done


@pytest.mark.parametrize("error", [Killed(), 5, 28], ids=["killed", "EIO", "ENOSPC"])
def test_an_end_at_any_operation_loses_no_row_and_doubles_none(tmp_path: Path, error: Any) -> None:
    for number in places(counted(tmp_path)):
        path = tmp_path / f"{number}.jsonl"
        with suppress(Killed, OutputError):
            append_all(path, Faulty(number, error))
        assert_whole(path)


def test_a_kill_within_any_write_loses_no_row_and_doubles_none(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    append_all(whole)
    out, journal = whole.read_bytes(), whole.with_name("whole.jsonl.journal").read_bytes()
    step = 1 if LONG else 9
    for kept in range(0, len(out) + 1, step):
        path = tmp_path / "out.jsonl"
        path.write_bytes(out[:kept])
        # The journal has what was noted by then: the lines that end before, or none, or a part.
        n_lines = 1 + sum(end <= kept for end in ends(out))
        noted = b"".join(journal.splitlines(keepends=True)[:n_lines])
        for cut in (0, 1, 7) if n_lines > 1 else (0,):
            path.with_name("out.jsonl.journal").write_bytes(noted[: len(noted) - cut])
            assert_whole(path)
            path.write_bytes(out[:kept])


def ends(data: bytes) -> list[int]:
    return [n + 1 for n, byte in enumerate(data) if byte == 10]


def test_after_a_power_cut_the_rows_that_are_wrong_at_the_end_are_done_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.jsonl"
    append_all(path)
    data = path.read_bytes()
    start = ends(data)[1]
    path.write_bytes(data[:start] + bytes(len(data) - start))  # the journal came first
    with ResultFile(path, HEAD) as file:
        assert file.done == {(1, -1), (2, -1)}
    assert_whole(path)


def test_systems_that_write_a_little_at_a_time_do(tmp_path: Path) -> None:
    append_all(tmp_path / "out.jsonl", Short())
    assert_whole(tmp_path / "out.jsonl")


def refused(path: Path, head: Head = HEAD) -> str:
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        ResultFile(path, head)
    assert path.read_bytes() == before
    return str(caught.value)


def test_an_output_of_another_input_model_or_recipe_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    append_all(path)
    others = {
        "another input, in.jsonl": Head({**HEAD.input, "sha256": "b"}, HEAD.model, HEAD.recipe),
        "another model, m (n now)": Head(
            HEAD.input, {"name": "n", "fingerprint": "0"}, HEAD.recipe
        ),
        "temperature was 0.7 and is 0 now": Head(
            HEAD.input, HEAD.model, {**HEAD.recipe, "temperature": 0}
        ),
    }
    for named, head in others.items():
        message = refused(path, head)
        assert named in message
        assert "use another output, or remove" in message
    assert_whole(path)


def test_an_output_of_an_earlier_form_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    with monkeypatch.context() as earlier:
        earlier.setattr(head_module, "VERSION", 1)
        append_all(path)
    assert "was written by another version of edgesppo; use another output" in refused(path)


def test_a_file_that_is_no_output_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    for _ in range(2):
        assert "out.jsonl.journal beside it does not exist" in refused(path)
    (tmp_path / "out.jsonl.journal").touch()
    assert "out.jsonl.journal beside it is empty" in refused(path)


def test_an_output_that_was_changed_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    append_all(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1: ", b"9: "))
    assert "was changed since it was written: the line of row 1" in refused(path)
    path.write_bytes(data + b"my own notes\n")
    assert "not of this batch" in refused(path)
    path.write_bytes(data)
    journal = tmp_path / "out.jsonl.journal"
    journal.write_bytes(journal.read_bytes().replace(b'"crc"', b'"cRc"', 1))
    assert "journal is damaged" in refused(path)


@pytest.mark.parametrize(
    "wrong", [{"row": 5}, {"row": [1]}, {"end": "x"}, {"end": -5}, {"crc": None}]
)
def test_a_journal_of_another_form_is_called_damaged(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    append_all(path)
    head, first = [line.event for line in jsonl.read_valid(journal.read_bytes())][:2]
    lines, _ = jsonl.encode([head, {**first, **wrong}])
    journal.write_bytes(lines)
    assert "journal is damaged" in refused(path)


def test_an_output_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    append_all(path)
    path.unlink()
    assert_whole(path)


def test_only_one_process_writes_an_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultFile(path, HEAD) as file:
        file.append(line(1))
        with pytest.raises(OutputError, match=r"is being written by process \d+"):
            ResultFile(path, HEAD)
    assert_whole(path)


def test_places_where_no_file_can_be_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "out.jsonl", Path(os.devnull)):
        with pytest.raises(EdgesppoError):
            ResultFile(path, HEAD)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_so_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    n = counted(tmp_path).index("write") + 3  # a row's line
    with pytest.raises(OutputError, match=r"no space left for .*out\.jsonl; free some"):
        append_all(path, Faulty(n, 28))
    assert path.read_bytes() == b"" or path.read_bytes().endswith(b"\n")
    assert_whole(path)
