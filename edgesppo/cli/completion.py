"""What a shell completes for an argument: names of models, files, and saved chats.

click writes the scripts for bash, zsh and fish, and calls these while they run. Errors are silent:
there is nothing to complete then. Loads neither llama.cpp nor numpy.
"""

from __future__ import annotations

import os
import re
from contextlib import nullcontext, suppress
from itertools import islice
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from edgesppo.cli import environment
from edgesppo.errors import EdgesppoError
from edgesppo.lockfile import layers
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

_MOST = 500  # entries of a folder that are looked at
# Names that mean themselves in every shell; bash takes what it is given without quoting it.
_PLAIN = re.compile(r"[\w.,+@%-]+")


def complete_names(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names in the locks that begin so."""
    return list(_names(ctx, incomplete))


def complete_models(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names and the GGUF files of this folder that begin so; else the shell's own files."""
    found = [*_names(ctx, incomplete), *_gguf_files(incomplete)]
    return found or [_files(incomplete)]


def complete_first_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same for the first of several words; what follows is a prompt."""
    before = ctx.params.get(param.name or "") or ()
    return [] if before else complete_models(ctx, param, incomplete)


def complete_model_then_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same for the first of several words; what follows are files."""
    before = ctx.params.get(param.name or "") or ()
    return [_files(incomplete)] if before else complete_models(ctx, param, incomplete)


def complete_files(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The shell's own completion of files."""
    return [_files(incomplete)]


def complete_sessions(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of saved chats that begin so."""
    from edgesppo.sessions.file import SUFFIX
    from edgesppo.sessions.folder import Sessions

    names = (name.removesuffix(SUFFIX) for name in _listed(Sessions().folder, SUFFIX))
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _names(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    lock = ctx.meta.get(layers.PROJECT)
    with (
        suppress(EdgesppoError, OSError),
        environment(layers.PROJECT, lock) if lock else nullcontext(),
    ):
        for name, entry in layers.read().models.items():
            if name.startswith(incomplete):
                yield CompletionItem(name, help=one_line(entry.description, 60))


def _gguf_files(incomplete: str) -> Iterator[CompletionItem]:
    for name in sorted(_listed(os.curdir, ".gguf")):
        if name.startswith(incomplete):
            yield CompletionItem(name)


def _listed(folder: str | os.PathLike[str], suffix: str) -> list[str]:
    """The names in a folder with this suffix, without hidden ones and those to be quoted."""
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, _MOST)]
        return [n for n in names if n.endswith(suffix) and n[0] != "." and _PLAIN.fullmatch(n)]
    return []


def _files(incomplete: str) -> CompletionItem:
    return CompletionItem(incomplete, type="file")
