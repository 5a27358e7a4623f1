"""Layout of long --help texts: options grouped under headings."""

from __future__ import annotations

from typing import Any

import click


class Headed(click.Option):
    """An option that is listed under the given heading."""

    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class HeadedCommand(click.Command):
    """A command whose --help lists options by heading, in the order of their first options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those without a heading first."""
        headings: dict[str, list[tuple[str, str]]] = {"Options": []}
        options = [found for found in self.get_params(ctx) if isinstance(found, click.Option)]
        for option in options:
            record = option.get_help_record(ctx)
            if record is not None:
                heading = option.heading if isinstance(option, Headed) else "Options"
                headings.setdefault(heading, []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)
