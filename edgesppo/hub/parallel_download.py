"""Owns how pinned files get from the hub into their folder: in parallel, gone on from, verified.

    FOLDER/.NAME.part       a file on its way; the next run goes on at its end
    FOLDER/NAME             the same once its hash was right and it is on the disk

Knows nothing of locks or of what the files hold.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.hub.client import HubClient
from edgesppo.hub.download import Downloader, part_path
from edgesppo.hub.repository import RemoteFile
from edgesppo.system.fs import FileSystem, cannot_write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgesppo.hub.download import Fetched
    from edgesppo.hub.repository import Repository
    from edgesppo.lockfile.entries import PinnedFile

WORKERS = 4
_POLL = 0.1
_PATIENCE = 2.0


class _Stopped(Exception):
    """Another file has failed, or the person has had enough."""


def download_all(
    repository: Repository,
    wanted: Sequence[PinnedFile],
    folder: Path,
    *,
    fetched: Fetched | None = None,
    files: FileSystem | None = None,
) -> None:
    """Have these files in the folder, each whole and with its hash.

    Raises DownloadError and OutputError; then, and after Ctrl-C, what came is gone on from.
    """
    work = _ParallelDownload(
        repository, folder, fetched or (lambda *_: None), files or FileSystem()
    )
    work.all(wanted)


class _ParallelDownload:
    def __init__(
        self, repository: Repository, folder: Path, fetched: Fetched, files: FileSystem
    ) -> None:
        self._folder = folder
        self._fetched = fetched
        self._files = files
        self._stop = threading.Event()
        self._arrivals = Downloader(
            HubClient(self._sleep),
            repository,
            files,
            self._tell,
            expected="{} is pinned",
            tells_hashing=True,
            syncs=True,
        )
        self._errors: list[BaseException] = []
        self._heard = threading.Lock()

    def all(self, wanted: Sequence[PinnedFile]) -> None:
        """Every file; the largest begin first, so that none is left alone at the end."""
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
                    worker.join(_POLL)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "stopped; what was fetched is kept: the same command goes on there"
            ) from None
        finally:
            self._stop.set()
            for worker in workers:  # one that waits for the network is left to itself
                if worker.ident is not None:
                    worker.join(_PATIENCE)
        if self._errors:
            raise self._errors[0]

    def _run(self, tasks: queue.SimpleQueue[PinnedFile]) -> None:
        with suppress(queue.Empty, _Stopped):
            while True:
                file = tasks.get_nowait()
                try:
                    self._whole(file)
                except _Stopped:
                    raise
                except BaseException as error:
                    self._errors.append(error)
                    self._stop.set()
                    return

    def _sleep(self, seconds: float) -> None:
        wait(self._stop, seconds)
        self._go_on()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _whole(self, pinned: PinnedFile) -> None:
        """One file, under its name once its hash is right."""
        path = self._folder / pinned.path
        part = part_path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._arrivals.bring(RemoteFile(pinned.path, pinned.size, pinned.digest), part)
            self._files.replace(part, path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _tell(self, file: str, at: int, size: int) -> None:
        self._go_on()
        with self._heard:
            self._fetched(file, at, size)


def wait(stop: threading.Event, seconds: float) -> None:
    """Before the next attempt, unless all is over."""
    stop.wait(seconds)
