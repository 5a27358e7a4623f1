"""A file that several processes use: who may use it, and when it may be removed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.system.fs import FileSystem
from edgesppo.system.in_use import InUse, remove_unused

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be removed there")
def test_a_file_that_is_being_removed_or_was_replaced_counts_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, files = tmp_path / "copy.gguf", FileSystem()
    path.touch()
    remover = files.open(path)
    files.lock(remover)
    with pytest.raises(FileNotFoundError):
        InUse(path)
    files.close(remover)

    def replaced(*_: object) -> None:
        path.rename(tmp_path / "old.gguf")
        path.touch()

    monkeypatch.setattr(FileSystem, "lock", replaced)
    assert not remove_unused(path)
    assert path.exists(), "another process has just made it"
