"""`edgesppo doctor`: check this machine for problems."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import asdict

import click

from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json
from edgesppo.system.sanitize import printable

_WIDTH = 79


@click.command(name="doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Check this machine: Python, llama.cpp, CPU, memory, disk, models, network settings.

    Says how to fix each problem. Opens no network connection. The exit code is 1 if a check fails.
    """
    from edgesppo.diagnostics.doctor import examine
    from edgesppo.diagnostics.finding import FAIL

    found = examine()
    failed = any(finding.state == FAIL for finding in found)
    if as_json:
        emit_json({"ok": not failed, "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            start = f"{finding.state:<4} {finding.about:<9} "
            text = printable(finding.text)
            text += f": {printable(finding.advice)}" if finding.advice else ""
            click.echo(
                textwrap.fill(
                    text,
                    _WIDTH,
                    initial_indent=start,
                    subsequent_indent=" " * len(start),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    if failed:
        sys.exit(1)
