"""File names as they are typed: quotes, escapes, several, wildcards, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import UsageError
from edgesppo.repl import attachments, file_names
from edgesppo.repl.attachments import Attachment
from edgesppo.system.text_input import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("a.md", "b.md", "a b.txt", "it's.txt", 'say "hi".txt', "n[1].txt", "n1.txt", "x*y.txt")
posix = pytest.mark.skipif(os.name == "nt", reason="a backslash separates folders there")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "sub.md").mkdir()
    for name in (*NAMES, "home/mine.txt", "sub.md/a.md"):
        if os.name != "nt" or not set(name) & set('"*'):
            (tmp_path / name).write_text(name)
    return tmp_path


@posix
@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("a.md", ["a.md"]),
        ("a b.txt", ["a b.txt"]),
        ('"a b.txt"', ["a b.txt"]),
        ("'a b.txt'", ["a b.txt"]),
        (r"a\ b.txt", ["a b.txt"]),
        ('a" "b.txt   a.md', ["a b.txt", "a.md"]),
        ("it's.txt", ["it's.txt"]),
        (r"it\'s.txt a.md", ["it's.txt", "a.md"]),
        (r'"say \"hi\".txt"', ['say "hi".txt']),
        ("*.md", ["a.md", "b.md"]),
        ("b.md *.md", ["b.md", "a.md"]),
        ("a.md a.md", ["a.md"]),
        ("[ab].md", ["a.md", "b.md"]),
        ("n[1].txt", ["n[1].txt"]),
        ("'n['1].txt", ["n[1].txt"]),
        ("n?.txt", ["n1.txt"]),
        (r"x\*y.txt", ["x*y.txt"]),
        ("**/a.md", ["a.md", "sub.md/a.md"]),
        ('"a "*', ["a b.txt"]),
        ("~/mine.txt", ["~/mine.txt"]),
    ],
)
def test_names_are_quoted_escaped_and_matched_as_in_a_shell(line: str, files: list[str]) -> None:
    assert file_names.existing(line) == (files, [])
    assert len(attachments.read(line)) == len(files)


def test_wildcards_reach_the_home_folder() -> None:
    assert [file.name for file in attachments.read("~/*.txt")] == ["mine.txt"]


@pytest.mark.parametrize(
    ("line", "complaints"),
    [
        ("none.txt", ["none.txt: cannot be read"]),
        ("a.md none.txt no*.txt b.md lost.md", ["none.txt", "no file matches no*.txt", "lost.md"]),
        ('"a b.txt', ['the quote " in', "is not closed"]),
        ("sub.md", ["sub.md is a folder"]),
        ("a.md sub.md", ["sub.md is a folder", "no file was attached"]),
        ("~nosuchuser/a.md", ["~nosuchuser"]),
        ("a\0b", ["a\\x00b"]),
        ("[z-a].md", ["[z-a].md"]),
        ("y" * 300, ["cannot be read"]),
    ],
)
def test_every_name_that_cannot_be_read_is_named(line: str, complaints: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        attachments.read(line)
    for complaint in complaints:
        assert complaint in str(caught.value)


def test_the_files_of_a_message_have_a_total_size_limit(folder: Path) -> None:
    for name in ("big1", "big2"):
        (folder / name).write_text("x" * (MAX_BYTES // 2))
    assert len(attachments.read("big1 big2")) == 2
    with pytest.raises(UsageError, match=r"more than 4,000,000 bytes together.*attach fewer"):
        attachments.read("big1 big2 a.md")
    with pytest.raises(UsageError, match="4,000,000 bytes together"):
        attachments.read("big1", [Attachment("before", "x" * MAX_BYTES)])


def test_a_wildcard_that_matches_too_many_files_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_names, "MOST_FILES", 1)
    with pytest.raises(UsageError, match=r"more than 1 files match \*.md; name fewer"):
        attachments.read("*.md")


def test_files_of_one_name_are_told_apart() -> None:
    names = [file.name for file in attachments.read("a.md sub.md/a.md b.md")]
    assert names == ["a.md", "sub.md/a.md", "b.md"]


def test_one_name_may_be_quoted_and_several_are_refused() -> None:
    for line, name in [('"new chat.md"', "new chat.md"), ("a b.txt", "a b.txt"), ("", "")]:
        assert file_names.single(line, "/export") == name
    for line, complaint in [("x.md y.md", "takes one name, not 2"), ('"x', "is not closed")]:
        with pytest.raises(UsageError, match=complaint):
            file_names.single(line, "/export")


@posix
def test_an_escaped_name_is_read_back_as_it_was() -> None:
    for name in (*NAMES, "back\\slash", "a?b"):
        (word,), quote = file_names.split(file_names.escaped(name))
        assert (word.text, word.wild, quote) == (name, False, "")
