"""Download the pinned files of a repository into a folder, in parallel.

FOLDER/.NAME.part       a partial download; the next run resumes at its end
FOLDER/NAME             a complete file: verified, and flushed to the disk
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.hub.client import HubClient
from edgesppo.hub.download import Downloader, part_path
from edgesppo.hub.repository import RemoteFile
from edgesppo.system.fs import FileSystem, cannot_write
from edgesppo.system.signals import Terminated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from edgesppo.hub.download import FetchProgress
    from edgesppo.hub.repository import Repository
    from edgesppo.lockfile.entries import PinnedFile

WORKERS = 4
_POLL_INTERVAL = 0.1
_JOIN_TIMEOUT = 0.8  # for all workers together


class _Stopped(Exception):
    """Ends a worker: another file has failed, or the user pressed Ctrl-C."""


def download_all(
    repository: Repository,
    wanted: Sequence[PinnedFile],
    folder: Path,
    *,
    on_fetch: FetchProgress | None = None,
    files: FileSystem | None = None,
) -> None:
    """Download these files into the folder, each verified against its pinned hash.

    Raises DownloadError and OutputError. After these, and after Ctrl-C, partial files are kept and
    the next call resumes them. `on_fetch` may be called from any thread, one call at a time.
    """
    work = _ParallelDownload(
        repository, folder, on_fetch or (lambda *_: None), files or FileSystem()
    )
    work.run(wanted)


class _ParallelDownload:
    def __init__(
        self, repository: Repository, folder: Path, on_fetch: FetchProgress, files: FileSystem
    ) -> None:
        self._folder = folder
        self._on_fetch = on_fetch
        self._files = files
        self._stop = threading.Event()
        self._downloader = Downloader(
            HubClient(self._sleep),
            repository,
            files,
            self._report,
            expected="{} is pinned",
            report_hashing=True,
            fsync=True,
        )
        self._errors: list[BaseException] = []
        self._report_lock = threading.Lock()

    def run(self, wanted: Sequence[PinnedFile]) -> None:
        """Download every file, the largest first, so that no worker ends long after the others."""
        tasks: queue.SimpleQueue[PinnedFile] = queue.SimpleQueue()
        for file in sorted(wanted, key=lambda file: -file.size):
            tasks.put(file)
        workers = [
            threading.Thread(target=self._run, args=(tasks,), daemon=True)
            for _ in range(min(WORKERS, len(wanted)))
        ]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(_POLL_INTERVAL)
        except (KeyboardInterrupt, Terminated) as error:
            error.args = (
                "stopped; the partial download is kept: run the same command to resume it",
            )
            raise
        finally:
            self._stop.set()
            join_all(worker for worker in workers if worker.ident is not None)
        if self._errors:
            raise self._errors[0]

    def _run(self, tasks: queue.SimpleQueue[PinnedFile]) -> None:
        with suppress(queue.Empty, _Stopped):
            while True:
                file = tasks.get_nowait()
                try:
                    self._download(file)
                except _Stopped:
                    raise
                except BaseException as error:
                    self._errors.append(error)
                    self._stop.set()
                    return

    def _sleep(self, seconds: float) -> None:
        wait(self._stop, seconds)
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _download(self, pinned: PinnedFile) -> None:
        """Download one file, and give it its final name once it is verified."""
        path = self._folder / pinned.path
        part = part_path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._downloader.download(RemoteFile(pinned.path, pinned.size, pinned.digest), part)
            self._files.replace(part, path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _report(self, file: str, at: int, size: int) -> None:
        self._raise_if_stopped()
        with self._report_lock:
            self._on_fetch(file, at, size)


def join_all(workers: Iterable[threading.Thread]) -> None:
    """Wait a moment until these end; those that are blocked by the network are abandoned."""
    until = time.monotonic() + _JOIN_TIMEOUT
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))


def wait(stop: threading.Event, seconds: float) -> None:
    """Wait before the next attempt, or until `stop` is set."""
    stop.wait(seconds)
