"""Conversions that are stopped when some of their tensors are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgesppo_convert import Progress, convert

if TYPE_CHECKING:
    from pathlib import Path


def stop_after(source: Path, out: Path, bytes_done: int) -> None:
    """Convert until so many bytes are done, then interrupt it."""

    def interrupt(progress: Progress) -> None:
        if progress.done_bytes >= bytes_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"\d+ of 13 tensors are kept in .*: run the same"):
        convert(source, out, on_progress=interrupt)
