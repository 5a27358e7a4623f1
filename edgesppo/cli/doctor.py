"""`edgesppo doctor`: check this machine for problems."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgesppo.cli.completion import complete_files
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say
from edgesppo.system.sanitize import printable

if TYPE_CHECKING:
    from edgesppo.diagnostics.finding import Finding

_WIDTH = 79


@click.command(name="doctor")
@json_option
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    shell_complete=complete_files,
    help="Write what helps to answer a report of yours: versions, processor, memory, measured"
    " rates. It has no names, paths or tokens.",
)
def doctor_command(as_json: bool, report: Path | None) -> None:
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
    if report is not None:
        _write_report(report, found)
    if failed:
        sys.exit(1)


def _write_report(path: Path, found: list[Finding]) -> None:
    """Write the report as JSON. Raises OutputError; a file that is there is not replaced."""
    from edgesppo.diagnostics.report import report
    from edgesppo.errors import OutputError
    from edgesppo.system.fs import write_file

    if path.exists():
        raise OutputError(f"{path} exists; give another name, or remove it first")
    text = json.dumps(report(found), indent=2) + "\n"
    write_file(path, text.encode())
    say(f"Wrote {path}; read it before you pass it on")
