"""Converted copies of checkpoint folders: a cache that is filled when a folder is first used.

    HOME/converted/NAME-TYPE-FOLDER-CONTENTS.gguf
                                   .from    the path of the checkpoint folder

                             .NAME...gguf.edgesppo-part, -journal    until it is whole
                                         .busy                       held while it is made

FOLDER is a hash of the folder's path, CONTENTS a hash of what it holds. The converter is imported
only when something has to be converted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.errors import (
    BadModelFile,
    ModelNotFound,
    ModelUnreadable,
    OutputError,
    SourceUnreadable,
)
from edgesppo.gguf import gemma2
from edgesppo.system import filelock, notices
from edgesppo.system.fs import FileSystem, hash_file, read_regular, write_file
from edgesppo.system.in_use import InUse, remove_unused
from edgesppo.system.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.store.locate import Found
    from edgesppo.system.conversion_progress import Progress
    from edgesppo_convert.quant.recipe import RecipeName

# Increase it whenever the converter writes different files for the same checkpoint.
CONVERTER_VERSION = 4
_MAX_NAME = 80  # bytes of the checkpoint's name in the copy's name
_MAX_PATH = 1 << 16  # bytes
# The names of a copy and of what belongs to it. Other files are not ours: the folder may be a link.
_FILE = re.compile(
    r"(?P<hidden>\.)?(?P<copy>.*-[a-z0-9_]+-[0-9a-f]{8}-[0-9a-f]{16})"
    r"(?(hidden)\.gguf\.edgesppo-\w+|\.(?:gguf|from))",
    re.DOTALL,
)


def prepare(
    found: Found,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    type: RecipeName = "q4_k_m",
) -> tuple[Summary, float]:
    """Read the header of a checkpoint's copy of this type, converting first if there is none.

    Returns the header and the seconds that the conversion took. Raises what the conversion raises.
    """
    output = copy_of(found, type)
    summary, seconds = _load_or_remove(output), 0.0
    if summary is not None and origin_of(output) is None:
        remember_origin(output, found.path)
    if summary is None:
        started = time.perf_counter()
        make_folder(output.parent)
        with filelock.hold(output, FileSystem(), on_wait=_waiting):
            summary = _load_or_remove(output)
            if summary is None:
                _convert(found.path, output, type, on_progress)
        seconds = time.perf_counter() - started
    remove_older(output)
    return summary or gemma2.load_summary(output), seconds


def ensure_converted(found: Found, on_progress: Callable[[Progress], None] | None = None) -> Path:
    """Return the Q4_K_M copy of a checkpoint in the cache folder, converting it if it is absent."""
    summary, _ = prepare(found, on_progress)
    return summary.path


def _convert(
    checkpoint: Path,
    output: Path,
    type: RecipeName,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    from edgesppo_convert import convert

    remember_origin(output, checkpoint)
    try:
        convert(checkpoint, output, type=type, on_progress=on_progress)
    except OutputError:
        # `edgesppo convert` may have written the same file meanwhile.
        if not output.exists():
            raise
    finally:
        if files_by_copy().get(output) == [record_of(output)]:  # it failed, and nothing is kept
            with contextlib.suppress(OSError):
                record_of(output).unlink()


def _waiting(held: filelock.LockHeld) -> None:
    notices.notify(f"Waiting for {held.owner}, which is converting the same model", at_once=True)


def _load_or_remove(copy: Path) -> Summary | None:
    """Read the header of a converted copy; None if there is none. Removes a damaged copy."""
    try:
        return gemma2.load_summary(copy)
    except ModelNotFound:
        return None
    except ModelUnreadable:  # such as for lack of descriptors: the copy may well be sound
        raise
    except BadModelFile as error:
        try:
            copy.unlink(missing_ok=True)
        except OSError as fault:
            raise BadModelFile(
                f"{error}; it could not be removed ({fault.strerror}): remove it, then try again"
            ) from None
        return None


def copy_of(found: Found, type: str) -> Path:
    """The path of the converted copy of a checkpoint, whether it exists or not.

    The file's name holds a hash of the folder's path, and a hash of its small files and of the
    names, sizes and modification times of its weights: an edited checkpoint gets a new copy.
    Raises SourceUnreadable.
    """
    checkpoint = found.path
    origin = hashlib.sha256(os.fsencode(checkpoint.resolve())).hexdigest()[:8]
    digest = hashlib.sha256(f"{CONVERTER_VERSION} {type}".encode())
    try:
        for file in sorted(p for p in checkpoint.iterdir() if is_input(p)):
            _add_to(digest, file)
    except OSError as error:
        raise SourceUnreadable(
            f"cannot read {error.filename or checkpoint}: {error.strerror}"
        ) from None
    name = os.fsencode(found.name)[:_MAX_NAME].decode("utf-8", "ignore")
    return _folder() / f"{name}-{type}-{origin}-{digest.hexdigest()[:16]}.gguf"


def _add_to(digest: Any, file: Path) -> None:
    """Hash a file of a checkpoint; of weights only the name, the size and the time."""
    status = file.stat()
    digest.update(b"\0" + os.fsencode(file.name) + f"\0{status.st_size}\0".encode())
    if file.suffix == ".safetensors":
        digest.update(str(status.st_mtime_ns).encode())
    else:
        hash_file(file, digest)


def remember_origin(copy: Path, checkpoint: Path) -> None:
    """Record beside a converted copy which folder it was made from, so that gc can remove it."""
    with contextlib.suppress(OSError):
        record_of(copy).write_bytes(os.fsencode(checkpoint.resolve()))


def origin_of(copy: Path) -> Path | None:
    """The folder that a converted copy was made from; None if that is not recorded."""
    with contextlib.suppress(OSError, ValueError):
        return Path(os.fsdecode(read_regular(record_of(copy), _MAX_PATH)))
    return None


def record_of(copy: Path) -> Path:
    """The file that says what a copy was made from."""
    return copy.with_suffix(".from")


def files_by_copy() -> dict[Path, list[Path]]:
    """The files of every converted copy, whole or begun: itself, its record, what is unfinished."""
    found: dict[Path, list[Path]] = {}
    with contextlib.suppress(OSError):
        for path in sorted(_folder().iterdir()):
            if (match := _FILE.fullmatch(path.name)) and path.is_file():
                found.setdefault(_folder() / f"{match['copy']}.gguf", []).append(path)
    return found


def copies_of(checkpoint: Path) -> dict[Path, list[Path]]:
    """The copies that are recorded as made from this folder, as `files_by_copy`."""
    origin = checkpoint.resolve()
    return {copy: files for copy, files in files_by_copy().items() if origin_of(copy) == origin}


def lock_path(path: Path) -> Path | None:
    """The lock of the copy that a file belongs to; None for another file."""
    match = _FILE.fullmatch(path.name) if path.parent == _folder() else None
    return match and filelock.lock_path(_folder() / f"{match['copy']}.gguf")


def remove_older(copy: Path) -> None:
    """Remove copies made from earlier contents of the same folder."""
    kept = copy.name.rsplit("-", 1)[0]
    for other in copy.parent.glob("*.gguf"):
        if other != copy and other.name.rsplit("-", 1)[0] == kept:
            remove_copy(other)


def use(
    found: Found,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    type: RecipeName = "q4_k_m",
) -> tuple[Summary, InUse]:
    """As `prepare`, and the hold that keeps other processes from removing the copy."""
    while True:
        summary, _ = prepare(found, on_progress, type=type)
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            return summary, InUse(summary.path)


def remove_copy(copy: Path) -> None:
    """Remove a converted copy that no process uses, and the records beside it."""
    with contextlib.suppress(OSError):
        if remove_unused(copy):
            for record in (record_of(copy), _mark(copy)):
                record.unlink(missing_ok=True)


def _mark(copy: Path) -> Path:
    """The file beside a copy that says that its last user is to remove it."""
    return copy.with_name(f".{copy.name}.edgesppo-temporary")


class TemporaryCopy:
    """A copy that is needed for one output only: whichever run completes that removes the copy.

        FOLDER/.OUTPUT.edgesppo-copy    the names of the copies that were made for it

    A copy that was there before, or that another process made, is not in that record, and stays;
    but where another process still uses a copy that is to go, that process removes it.
    """

    def __init__(self, output: Path, copy: Path) -> None:
        self._record = output.with_name(f".{output.name}.edgesppo-copy")
        self._copy = copy
        self._is_recorded = False

    def recording(self, on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """The callback for a conversion that may be this copy's."""

        def progress(done: Progress) -> None:
            if not self._is_recorded:
                names = {*self._recorded(), self._copy.name}
                write_file(self._record, b"\0".join(map(os.fsencode, sorted(names))))
                self._is_recorded = True
            on_progress(done)

        return progress

    def remove(self) -> None:
        """Remove the copies that were made for this output, and the record."""
        copies = {_folder() / name for name in self._recorded()}
        if _mark(self._copy).exists():
            copies.add(self._copy)
        for copy in copies:
            with contextlib.suppress(OSError):
                _mark(copy).touch()
            remove_copy(copy)
        with contextlib.suppress(OSError):
            self._record.unlink()

    def _recorded(self) -> set[str]:
        with contextlib.suppress(OSError, ValueError):
            names = read_regular(self._record, _MAX_PATH).split(b"\0")
            return {Path(os.fsdecode(name)).name for name in names if name}
        return set()


def is_input(file: Path) -> bool:
    """Whether the converter reads this file; other files do not change the copy."""
    kinds = (".json", ".jinja", ".model", ".safetensors")
    return file.suffix in kinds and file.is_file()


def _folder() -> Path:
    return cache_dir() / "converted"


def make_folder(path: Path) -> None:
    """Create a folder and its parents. Raises OutputError, which names it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be created: {error.strerror}; set EDGESPPO_HOME to a folder "
            "that can be written"
        ) from None
