"""Converted copies of folders: who makes one, what it is called, and from what it was made."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import pytest

from edgesppo.errors import BadCheckpoint
from edgesppo.store import converted, locate
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem
from tests.conftest import DEMO

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def mine(fresh_home: Path, tmp_path: Path) -> Path:
    assert fresh_home.is_dir()
    return shutil.copytree(DEMO, tmp_path / ("\u6a21\u578b" * 40))  # 240 bytes


def test_who_waits_for_another_process_says_for_whom(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = converted.copy_of(locate.find(mine), "q4_k_m")
    converted.make_folder(copy.parent)
    lock = filelock.hold(copy, FileSystem())
    said: list[str] = []

    def emit(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        lock.release()
        return True

    monkeypatch.setattr(logging.getLogger("edgesppo"), "filters", [emit])
    assert converted.ensure_converted(locate.find(mine)) == copy
    assert len(said) == 1
    assert said[0].startswith("Waiting for process ")


def test_a_copy_knows_its_folder_from_the_beginning(mine: Path) -> None:
    copy = converted.copy_of(locate.find(mine), "q4_k_m")
    origins = set[object]()
    converted.ensure_converted(locate.find(mine), lambda _: origins.add(converted.origin_of(copy)))
    assert origins == {mine}
    copy.with_suffix(".from").unlink()  # as an earlier version left it, killed
    converted.ensure_converted(locate.find(mine))
    assert list(converted.copies_of(mine)) == [copy]


def test_a_conversion_that_fails_leaves_nothing(mine: Path, tmp_path: Path) -> None:
    (mine / "config.json").write_text("{")
    with pytest.raises(BadCheckpoint):
        converted.ensure_converted(locate.find(mine))
    assert not list((tmp_path / "home" / "converted").iterdir())
