"""Finding and removing the damaged files of a model, so that they can be had again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import BadModelFile
from edgesppo.hub.client import require_online
from edgesppo.store import commit_lock, layout, remove, verify
from edgesppo.system.fs import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.store.verify import CheckedFile, Hashed


@dataclass(frozen=True)
class Repair:
    """The files that were damaged, and are removed."""

    damaged: tuple[CheckedFile, ...]

    @property
    def refetch(self) -> bool:
        """Whether a file of the hub is to be fetched again."""
        return any(not checked.is_build for checked in self.damaged)

    @property
    def remake(self) -> bool:
        """Whether a converted file is to be made again."""
        return any(checked.is_build for checked in self.damaged)


def check_own(entry: PinnedModel, hashed: Hashed) -> None:
    """Refuse an import that is no longer what was imported: nobody else has it."""
    for checked in _damaged(entry, hashed):
        raise BadModelFile(
            f"{checked.path} has the hash {checked.found or 'of no readable file of its size'}, but"
            f" {checked.expected} was imported as {entry.name}; it is your own: put the file back,"
            f" or edgesppo rm {entry.name} and import it as it is now"
        )


def repair(
    entry: PinnedModel,
    *,
    hashed: Hashed,
    on_wait: Callable[[str], None],
    on_damaged: Callable[[CheckedFile], None],
    before_fetch: Callable[[], None],
) -> Repair:
    """Remove the damaged files of a model of the hub, once it is certain that they can be had.

    `before_fetch` may refuse, where something will have to be fetched; `on_damaged` hears of each
    file before it is removed. Raises DownloadError where the hub cannot be asked, OutputError.
    """
    with commit_lock.hold(str(entry.revision), on_wait, FileSystem()):
        found = Repair(tuple(_damaged(entry, hashed)))
        if found.damaged and (found.refetch or not layout.is_there(entry)):
            require_online()
            before_fetch()
        for checked in found.damaged:
            on_damaged(checked)
        remove.discard(found.damaged)
    return found


def _damaged(entry: PinnedModel, hashed: Hashed) -> list[CheckedFile]:
    return [checked for checked in verify.check(entry, hashed) if not checked.is_sound]
