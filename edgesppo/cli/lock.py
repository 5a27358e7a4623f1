"""`edgesppo lock`: pin a model of the hub to its current commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.completion import complete_names
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, tell
from edgesppo.hub import license_claims
from edgesppo.lockfile import layers
from edgesppo.store import pull
from edgesppo.system.units import size
from edgesppo.terminal.format import labelled
from edgesppo.terminal.progress import retry_notices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.lockfile.entries import PinnedModel


@click.command(name="lock")
@click.argument("model", metavar="NAME|OWNER/NAME[@REVISION]", shell_complete=complete_names)
@click.option("--update", is_flag=True, help="Pin it again: to REVISION, or to the current main.")
@click.option("--name", help="Name of the new entry. [default: the repository's name]")
@click.option("--file", metavar="PATH", help="GGUF file to use, if the repository has several.")
@json_option
def lock_command(
    model: str, update: bool, name: str | None, file: str | None, as_json: bool
) -> None:
    """Pin a model of the hub: its commit, and every file's size and hash.

    A branch or tag is resolved to the commit that it is now, which is written to your own lock, or
    to --lock FILE. A model that is already pinned is left as it is, without asking the hub, unless
    you give --update.
    """
    request = pull.parse_request(model, name, may_create=True)
    before = request.entry
    with retry_notices():
        entry = pull.pin(request, update=update, file=file, in_project=True)
    if as_json:
        emit_json(
            {**described(entry), "before": before.revision, "lock": str(layers.write_target())}
        )
        return
    for line in _pinned_lines(before, entry):
        tell(line)


def _pinned_lines(before: PinnedModel, entry: PinnedModel) -> Iterator[str]:
    """What is pinned now, and what was before."""
    if entry.repository is None:
        files = f"{len(entry.files)} files, {size(entry.size)}"
        yield f"{entry.name} is not a model of the hub ({files}): there is nothing to pin"
        return
    changed = before.is_pinned and before.revision != entry.revision
    yield f"{entry.name}: {entry.repository}"
    if changed:
        yield labelled("was", str(before.revision))
    yield labelled("now" if changed else "commit", str(entry.revision))
    old = {file.path: file for file in before.files} if changed else {}
    for file in entry.files:
        kind = "sha256" if file.sha256 else "git"
        same = " (as before)" if old.get(file.path) == file else ""
        yield f"  {size(file.size):>10}  {file.path}  {kind} {file.digest[:12]}{same}"
    for path in sorted(set(old) - {file.path for file in entry.files}):
        yield f"  {'removed':>10}  {path}"
    yield labelled("licence", license_claims.line(entry))
    yield f"Pinned in {layers.write_target()}"


def described(entry: PinnedModel) -> dict[str, Any]:
    """An entry as JSON."""
    return {
        "name": entry.name,
        "kind": entry.kind,
        "repository": entry.repository,
        "revision": entry.revision,
        "bytes": entry.size,
        "license": entry.license,
        "license_name": entry.license_name,
        "license_in_text": entry.license_in_text,
        "license_in_file": entry.license_in_file,
        "license_link": entry.license_link,
        "files": [
            {"path": file.path, "size": file.size, "sha256": file.sha256, "oid": file.oid}
            for file in entry.files
        ],
    }
