"""What is undamaged of a saved chat goes on, and nothing damaged is thrown away."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadChat
from edgesppo.sessions.folder import Sessions
from edgesppo.sessions.session import Session
from edgesppo.system import jsonl
from tests.support.faulty import Counting
from tests.support.paths import names
from tests.support.saved_states import STATES, found, write
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path


def test_a_torn_last_line_is_mended_and_said(path: Path) -> None:
    whole = write(path)
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        complete = end in (start, len(whole) - 1)  # only a newline lacks
        with Session(path, Counting()) as session:
            assert (session.notices == []) == complete
            assert all("torn last line" in notice for notice in session.notices)
        assert found(path) == STATES[-1 if end == len(whole) - 1 else -2]
        write(path)
        assert found(path) == STATES[-1]
        assert names(path) == {"rome.jsonl"}


def test_whichever_bit_flips_nothing_is_thrown_away(path: Path) -> None:
    """The undamaged part continues; if anything is damaged, a copy of the file is kept."""
    whole = write(path)
    ends = [end for end in range(1, len(whole) + 1) if whole[end - 1 : end] == b"\n"]
    known = [path.write_bytes(whole[:end]) and found(path) for end in ends]
    for at in [*range(0, len(whole), 5 if LONG else 17), len(whole) - 2, len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        with Session(path, Counting()) as session:
            notices = session.notices
        back = found(path)
        lost = sum(at < end for end in ends)
        assert back == [None, *known][-1 - (lost if at < len(whole) - 1 else 0)]
        if at == len(whole) - 1:
            assert back == STATES[-1]
            assert path.read_bytes() == whole
        else:
            kept = path.with_name("rome.jsonl.damaged-1")
            assert kept.read_bytes() == flipped
            assert len(notices) == 1
            assert str(kept) in notices[0]
            kept.unlink()
        write(path)
        assert found(path) == STATES[-1]
        path.unlink()


def test_whichever_bit_flips_in_a_last_line_without_newline_the_file_is_kept(path: Path) -> None:
    whole = write(path)[:-1]
    kept = path.with_name("rome.jsonl.damaged-1")
    for at in range(whole.rindex(b"\n") + 1, len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        with Session(path, Counting()) as session:
            assert "damaged after turn 0" in session.notices[0]
        assert kept.read_bytes() == flipped
        kept.unlink()


@pytest.mark.parametrize(
    "tail", [b"rubbish", b"\0\0\0", b"0123456 {", b"01234567 {]", b'01234567 "']
)
def test_what_was_appended_and_is_no_line_of_ours_is_kept(path: Path, tail: bytes) -> None:
    whole = write(path)
    path.write_bytes(whole + tail)
    with Session(path, Counting()) as session:
        assert "is damaged after turn 1" in session.notices[0]
    assert path.with_name("rome.jsonl.damaged-1").read_bytes() == whole + tail
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", [b"[1]", b"null", b"5", b"no JSON", b"[" * 100_000, b'{"a": 1e}'])
def test_a_line_that_is_no_object_is_damage_wherever_it_stands(path: Path, text: bytes) -> None:
    whole = write(path, STATES[:2])
    crc = [*jsonl.read_valid(whole)][-1].crc
    for before, after, back in ((b"", 0, None), (whole, crc, STATES[1])):
        spoilt = before + b"%08x %s\n" % (zlib.crc32(text, after), text)
        path.write_bytes(spoilt)
        assert len(Sessions(path.parent).entries()) == 1
        with Session(path, Counting()) as session:
            assert "damaged" in session.notices[0]
        assert found(path) == back
        kept = path.with_name("rome.jsonl.damaged-1")
        assert kept.read_bytes() == spoilt
        kept.unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_in_the_place_of_a_chat_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(BadChat, match="not a regular file"):
        Session(path)
    assert names(path) == {"rome.jsonl"}


def test_damaged_files_never_replace_each_other(path: Path) -> None:
    for n in range(3):
        path.write_bytes(b"no chat %d\n" % n)
        write(path, STATES[:1])
    kept = [path.with_name(f"rome.jsonl.damaged-{n}").read_bytes() for n in (1, 2, 3)]
    assert kept == [b"no chat 0\n", b"no chat 1\n", b"no chat 2\n"]
    assert found(path) == STATES[0]


def test_lines_that_are_dropped_doubled_or_moved_are_damage(path: Path) -> None:
    each = write(path).splitlines(keepends=True)
    dropped, doubled = each[:2] + each[3:], each[:3] + each[2:]
    for spoilt in (dropped, doubled, [*each[:2], each[3], each[2]]):
        path.write_bytes(b"".join(spoilt))
        with Session(path, Counting()) as session:
            assert "damaged after turn" in session.notices[0]
