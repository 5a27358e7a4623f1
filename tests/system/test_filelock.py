"""A lock between processes is taken whoever owns its file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgesppo.system.filelock import FileLock, LockHeld
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from pathlib import Path


class _ReadOnly(FileSystem):
    """What another user sees of a file that all may read."""

    def open_or_create(self, path: Path, mode: int = 0o666) -> int:
        raise PermissionError(path, mode)


@pytest.mark.skipif(os.name == "nt", reason="modes of files")
def test_users_who_share_a_folder_wait_for_each_other(tmp_path: Path) -> None:
    path, before = tmp_path / ".x.busy", os.umask(0o022)
    try:
        with FileLock(path, FileSystem()):
            assert path.stat().st_mode & 0o777 == 0o644
            with pytest.raises(LockHeld, match=f"process {os.getpid()} on"):
                FileLock(path, _ReadOnly())
    finally:
        os.umask(before)
    path.touch()  # left by a process that was killed
    with FileLock(path, _ReadOnly()):
        pass
    assert not path.exists()
    with pytest.raises(PermissionError):  # of the folder, where no lock can be made
        FileLock(path, _ReadOnly())
