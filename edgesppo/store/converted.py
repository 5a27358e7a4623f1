"""The converted copies of checkpoint folders: where they are kept, made when first needed.

    HOME/converted/NAME-TYPE-PLACE-FINGERPRINT.gguf
                                   .from    the folder that it was made of

The converter is imported only when something has to be converted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile, ModelNotFound, OutputError
from edgesppo.gguf import gemma2
from edgesppo.system import filelock
from edgesppo.system.fs import FileSystem, cannot_write
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.store.locate import Found
    from edgesppo_convert import Progress

# Raised when a converter of ours makes other files of the same checkpoint.
CONVERSION = 3
_NAMED = 80  # letters of a checkpoint's name, in a copy's


def prepare(
    found: Found, on_progress: Callable[[Progress], None] | None = None
) -> tuple[Summary, float]:
    """The head of a checkpoint's Q4_K_M copy, made now if it is not there, and the seconds of that.

    What it raises is what the conversion raises.
    """
    output = converted_path(found.path, found.name, "q4_k_m")
    summary, seconds = _sound(output), 0.0
    if summary is None:
        started = time.perf_counter()
        make_folder(output.parent)
        with _lock(output):
            summary = _sound(output)
            if summary is None:
                _convert(found.path, output, on_progress)
        seconds = time.perf_counter() - started
    forget_older(output)
    return summary or gemma2.load_summary(output), seconds


def ensure_converted(found: Found, on_progress: Callable[[Progress], None] | None = None) -> Path:
    """The Q4_K_M copy of a checkpoint in the cache folder, made now if it is not there."""
    summary, _ = prepare(found, on_progress)
    return summary.path


def _convert(folder: Path, output: Path, on_progress: Callable[[Progress], None] | None) -> None:
    from edgesppo_convert import convert

    try:
        convert(folder, output, progress=on_progress)
    except OutputError:
        # `edgesppo convert` may have been first: its file is the same.
        if not output.exists():
            raise
    remember_origin(output, folder)


def _sound(copy: Path) -> Summary | None:
    """The head of a converted copy, if there is one; a damaged one is removed, to be made again."""
    try:
        return gemma2.load_summary(copy)
    except ModelNotFound:
        return None
    except BadModelFile:
        copy.unlink(missing_ok=True)
        return None


def _lock(output: Path) -> filelock.FileLock:
    """Let no other process of ours make this copy; however long that takes, it is waited for."""
    try:
        return filelock.acquire(output.with_name(f".{output.name}.busy"), FileSystem())
    except OSError as error:
        raise cannot_write(output, error) from error


def converted_path(checkpoint: Path, name: str, type: str) -> Path:
    """Where the converted copy of this very checkpoint is, or belongs.

    The file's name holds a mark of the folder's place, and a fingerprint of its small files and
    of the names, sizes and times of its weights: an edited checkpoint gets a new copy.
    """
    place = hashlib.sha256(os.fsencode(checkpoint.resolve())).hexdigest()[:8]
    digest = hashlib.sha256(f"{CONVERSION} {type}".encode())
    for file in sorted(p for p in checkpoint.iterdir() if is_read(p)):
        status = file.stat()
        digest.update(b"\0" + os.fsencode(file.name) + f"\0{status.st_size}\0".encode())
        if file.suffix == ".safetensors":
            digest.update(str(status.st_mtime_ns).encode())
        else:
            digest.update(file.read_bytes())
    folder = cache_dir() / "converted"
    return folder / f"{name[:_NAMED]}-{type}-{place}-{digest.hexdigest()[:16]}.gguf"


def remember_origin(copy: Path, checkpoint: Path) -> None:
    """Note beside a converted copy of which folder it is, so that it can go with that."""
    with contextlib.suppress(OSError):
        copy.with_suffix(".from").write_bytes(os.fsencode(checkpoint.resolve()))


def origin_of(copy: Path) -> Path | None:
    """The folder that a converted copy is of, where that was noted."""
    with contextlib.suppress(OSError, ValueError):
        return Path(os.fsdecode(copy.with_suffix(".from").read_bytes()))
    return None


def copies_of(checkpoint: Path) -> list[Path]:
    """The converted copies of a checkpoint folder that were noted."""
    found = sorted((cache_dir() / "converted").glob("*.gguf"))
    return [copy for copy in found if origin_of(copy) == checkpoint.resolve()]


def forget_older(copy: Path) -> None:
    """Remove the copies of what the checkpoint of this copy was before it was edited."""
    kept = copy.name.rsplit("-", 1)[0]
    for other in copy.parent.glob("*.gguf"):
        if other != copy and other.name.rsplit("-", 1)[0] == kept:
            for old in (other, other.with_suffix(".from")):
                with contextlib.suppress(OSError):
                    old.unlink()


def is_read(file: Path) -> bool:
    """Whether the converter looks at a file: another one beside them makes no new model."""
    kinds = (".json", ".jinja", ".model", ".safetensors")
    return file.suffix in kinds and file.is_file()


def make_folder(folder: Path) -> None:
    """Create a folder of ours. Raises OutputError, naming it, when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be created: {error.strerror}; set EDGESPPO_HOME to a folder "
            "that can be written"
        ) from None
