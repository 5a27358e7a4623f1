"""Find and remove the damaged files of a model, so that they are downloaded or converted again."""

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
    from edgesppo.store.verify import CheckedFile, HashProgress


@dataclass(frozen=True)
class Repair:
    """The damaged files that were removed."""

    damaged: tuple[CheckedFile, ...]

    @property
    def needs_fetch(self) -> bool:
        """Whether files must be downloaded again."""
        return any(not checked.is_build for checked in self.damaged)

    @property
    def needs_build(self) -> bool:
        """Whether the checkpoint must be converted again, which does not merge adapters again."""
        return any(checked.is_build and not checked.is_merged for checked in self.damaged)


def check_import(entry: PinnedModel, on_hash: HashProgress) -> None:
    """Raise BadModelFile if an imported file has changed: there is no source to repair it from."""
    for checked in _damaged(entry, on_hash):
        raise BadModelFile(
            f"{checked.path} {_fault(checked)}, but {checked.expected} was imported as"
            f" {entry.name}; it is your own file: restore it, or run edgesppo rm {entry.name} and"
            " import it as it is now"
        )


def repair(
    entry: PinnedModel,
    *,
    on_hash: HashProgress,
    on_wait: Callable[[str], None],
    on_damaged: Callable[[CheckedFile], None],
    before_fetch: Callable[[], None],
) -> Repair:
    """Remove the damaged files of a model of the hub, if they can be downloaded again.

    `before_fetch` is called if something must be downloaded, and may raise; `on_damaged` is called
    with each file before it is removed. Raises UsageError when offline, and OutputError.
    """
    with commit_lock.hold(str(entry.revision), on_wait, FileSystem()):
        found = Repair(tuple(_damaged(entry, on_hash)))
        if found.damaged and (found.needs_fetch or not layout.is_present(entry)):
            require_online()
            before_fetch()
        for checked in found.damaged:
            on_damaged(checked)
        remove.remove_damaged(found.damaged)
    return found


def _fault(checked: CheckedFile) -> str:
    if checked.found is None:
        return "cannot be read, or has another size"
    return f"has the hash {checked.found}"


def _damaged(entry: PinnedModel, on_hash: HashProgress) -> list[CheckedFile]:
    return [checked for checked in verify.check(entry, on_hash) if not checked.is_sound]


def merge_again(entry: PinnedModel) -> str:
    """The command that replaces a damaged file that an adapter is merged into."""
    return f"edgesppo pull {entry.name} --convert --adapter DIR --repair"
