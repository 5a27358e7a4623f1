"""`edgesppo eval`: measure how good a model's answers are."""

from __future__ import annotations

import click

from edgesppo.cli.eval_alpaca import alpaca_command


@click.group(name="eval")
def eval_command() -> None:
    """Measure how good a model file is."""


eval_command.add_command(alpaca_command)
