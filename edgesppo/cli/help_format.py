"""Owns how a long --help is laid out: options under the headings that they belong to."""

from __future__ import annotations

from typing import Any

import click


class Headed(click.Option):
    """An option that stands under a heading of its own."""

    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class HeadedCommand(click.Command):
    """A command whose --help has every heading once, in the order of their first options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those without a heading come first."""
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
