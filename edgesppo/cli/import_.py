"""`edgesppo import`: give a model file of the user's own, or of another program's, a name."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgesppo.cli.adoption import adopt, entry_figures, notes_of, report
from edgesppo.cli.completion import complete_files
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say


@click.command(name="import")
@click.argument("paths", metavar="[FILE|FOLDER]", nargs=-1, shell_complete=complete_files)
@click.option(
    "--name",
    help="What to call it. [default: the file's name; where that is a hash, as Ollama's are, what"
    " the file says of itself]",
)
@click.option(
    "--scan",
    is_flag=True,
    help="List the Gemma-2 models of Ollama, LM Studio, llama.cpp and the hub's cache; with names"
    " from that list, import these.",
)
@click.option("--all", "everything", is_flag=True, help="With --scan: import all that can be run.")
@json_option
def import_command(
    paths: tuple[str, ...], name: str | None, scan: bool, everything: bool, as_json: bool
) -> None:
    """Give a GGUF file or a checkpoint folder of your own a name.

    The file is checked as a run would check it, and hashed, and your lock records its path: it
    stays where it is, and nothing is copied. If it is moved, or a GGUF file becomes another one
    later, every command that uses it says so; edgesppo verify checks its hash again.

    --scan looks for models that other programs have here, under the names that these use.
    """
    if scan:
        from edgesppo.cli.import_scan import import_found

        sys.exit(import_found(paths, name, everything=everything, as_json=as_json))
    if everything:
        raise click.UsageError("--all is for --scan")
    if len(paths) != 1:
        found = "several" if paths else "none"
        raise click.UsageError(f"expected one FILE or FOLDER, found {found}; or --scan")
    entry = adopt(Path(paths[0]), name)
    notes = notes_of(entry)
    if as_json:
        emit_json({**entry_figures(entry), "notes": notes})
        return
    report(entry, notes)
    say(f"Next: edgesppo chat {entry.name}")
