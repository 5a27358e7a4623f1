"""`edgesppo path`: print the path of a model."""

from __future__ import annotations

import sys

import click

from edgesppo.cli.completion import complete_models
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, has_terminal
from edgesppo.store import locate
from edgesppo.system.sanitize import printable


@click.command(name="path")
@click.argument("name", shell_complete=complete_models)
@json_option
def path_command(name: str, as_json: bool) -> None:
    """Print the path of the model NAME: its GGUF file, or its checkpoint folder."""
    found = locate.find(name)
    where = found.path.absolute()
    if as_json:
        emit_json({"name": found.name, "path": str(where), "is_checkpoint": found.is_checkpoint})
    else:
        click.echo(printable(str(where)) if has_terminal(sys.stdout) else str(where))
