"""`edgesppo import --scan`: list the models of other programs, and import what is chosen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cli.adoption import adopt, entry_figures, notes_of, report
from edgesppo.cli.output import emit_json, has_terminal, say, tell
from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.lockfile import layers
from edgesppo.store.programs.scan import FoundModel, Scan, choose, free_name, scan
from edgesppo.system.sanitize import one_line
from edgesppo.system.units import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.lockfile.entries import PinnedModel

_ALL = "all"


def import_found(names: Sequence[str], name: str | None, *, everything: bool, as_json: bool) -> int:
    """List what is found, and import what `names` names; on a terminal, asks. The exit code."""
    found = scan()
    if not as_json and not names and not everything:
        _list(found)
        names = _ask(found)
    chosen = [choose(found.models, text) for text in names if text != _ALL]
    if everything or _ALL in names:
        chosen += [model for model in found.models if _is_new(model) and model not in chosen]
    if name is not None and len(chosen) != 1:
        raise UsageError(f"--name is for one model, but {len(chosen)} were chosen")
    imported: list[PinnedModel] = []
    failed: dict[str, str] = {}
    for model in chosen:
        try:
            imported.append(_import(model, name, quiet=as_json))
        except EdgesppoError as error:
            if len(chosen) == 1:
                raise
            failed[model.name] = str(error)
            say(f"edgesppo: {one_line(str(error))}", matters=True)
    if as_json:
        figures = [entry_figures(entry) for entry in imported]
        emit_json({**_values(found), "imported": figures, "failed": failed})
    elif imported:
        say(f"Next: edgesppo chat {imported[-1].name}")
    return 1 if failed else 0


def _import(model: FoundModel, name: str | None, *, quiet: bool) -> PinnedModel:
    if model.fault is not None:
        raise UsageError(f"{model.name} cannot be run: {model.fault}")
    if model.imported_as is not None and name is None:
        say(f"{model.name} is imported already, as {model.imported_as}")
        return layers.read().models[model.imported_as]
    chosen = name or free_name(model, layers.read(may_create=True))
    description = f"{one_line(model.name)} ({model.local.program})"
    entry = adopt(model.local.path, chosen, description)
    if not quiet:
        stays = [] if model.local.note is None else [model.local.note]
        report(entry, [*notes_of(entry), *stays])
    return entry


def _is_new(model: FoundModel) -> bool:
    return model.fault is None and model.imported_as is None


def _list(found: Scan) -> None:
    rows = [
        (str(n), m.local.program, one_line(m.name), m.type, size(m.bytes), _state(m))
        for n, m in enumerate(found.models, 1)
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    for row in rows:
        cells = [f"{row[0]:>{widths[0]}}", *(f"{row[n]:<{widths[n]}}" for n in (1, 2, 3))]
        tell("  ".join([*cells, f"{row[4]:>{widths[4]}}", row[5]]).rstrip())
    if not rows:
        places = ", ".join(str(folder) for _, folder in found.folders)
        tell(f"No Gemma-2 model was found in {places}" if places else _NOWHERE)
    if found.n_others:
        say(f"Not listed: {found.n_others} of other architectures; edgesppo runs Gemma-2 models")
    for folder, why in found.unreadable:
        say(f"{folder} cannot be read: {why}")


_NOWHERE = "Neither Ollama, LM Studio, llama.cpp nor the hub's library has a folder of models here"


def _state(model: FoundModel) -> str:
    if model.fault is not None:
        return f"cannot be run: {one_line(model.fault)}"
    if model.imported_as is not None:
        return f"imported as {model.imported_as}"
    return model.local.note or ""


def _ask(found: Scan) -> list[str]:
    """The numbers or names that a person types; none away from a terminal."""
    new = [model for model in found.models if _is_new(model)]
    if not new:
        return []
    if not (has_terminal(sys.stdin) and has_terminal(sys.stderr)):
        say(f"To import one: edgesppo import --scan {_shell(new[0].name)}; all: --scan --all")
        return []
    answer = click.prompt(
        "Import which? Numbers or names, all, or Enter for none",
        default="",
        show_default=False,
        err=True,
    )
    return str(answer).replace(",", " ").split()


def _shell(name: str) -> str:
    return name if all(c.isalnum() or c in "/:.@_+-" for c in name) else f'"{one_line(name)}"'


def _values(found: Scan) -> dict[str, Any]:
    models = [
        {
            "name": model.name,
            "program": model.local.program,
            "path": str(model.local.path),
            "type": model.type,
            "bytes": model.bytes,
            "runs": model.fault is None,
            "fault": model.fault,
            "note": model.local.note,
            "imported_as": model.imported_as,
        }
        for model in found.models
    ]
    folders = [{"program": program, "path": str(folder)} for program, folder in found.folders]
    unreadable = [{"path": str(folder), "fault": why} for folder, why in found.unreadable]
    others = {"other_architectures": found.n_others, "unreadable": unreadable}
    return {"models": models, "folders": folders, **others}
