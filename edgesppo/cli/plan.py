"""Owns `edgesppo plan`: what a model will take here, said before anything is loaded."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import click

from edgesppo import preflight, store
from edgesppo.cli.common import converted, emit_json, json_option, model_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.plan import Plan
    from edgesppo.settle import Wishes
    from edgesppo.tune import Tuning


@click.command(name="plan")
@click.argument("model")
@json_option
@model_options
def plan_command(model: str, as_json: bool, loading: dict[str, Any]) -> None:
    """Show what MODEL will take here: memory, threads, settings. Loads nothing.

    Exits with 1 where it does not fit into memory.
    """
    from edgesppo.settle import settle

    path = converted(store.find(model))
    wishes = replace(wishes_of(loading), force=True)
    tuning, made = settle(preflight.check(path), wishes, measure=False)
    if as_json:
        emit_json(
            {**asdict(made), "total": made.total, "fits": made.fits, "tuning": asdict(tuning)}
        )
    else:
        click.echo(path.name)
        for label, line in _lines(tuning, made):
            click.echo(f"  {label:<9} {line}")
    if not made.fits:
        sys.exit(1)


def wishes_of(loading: dict[str, Any]) -> Wishes:
    """What of the loading options says how to run a model."""
    from edgesppo.settle import Wishes

    kept = {field.name for field in fields(Wishes)}
    return Wishes(**{name: value for name, value in loading.items() if name in kept})


def _lines(tuning: Tuning, made: Plan) -> Iterator[tuple[str, str]]:
    yield "weights", _mb(made.weights)
    yield "KV cache", f"{_mb(made.kv)}, {made.n_ctx:,} tokens in {made.cache_type}"
    yield "compute", _mb(made.compute)
    yield "logits", _mb(made.logits)
    free = "" if made.available is None else f", {made.available / 1e6:,.0f} MB are free"
    yield "in all", f"{_mb(made.total)}{free}"
    yield "threads", f"{made.n_threads} for an answer, {made.n_threads_batch} for a prompt"
    repacked = "repacked" if tuning.repack else "as they are in the file"
    yield (
        "settings",
        (
            f"weights {repacked}, flash attention {tuning.flash_attention}, "
            f"micro-batch {tuning.n_ubatch}"
        ),
    )
    if tuning.prefill_tps is None or tuning.decode_tps is None:
        yield "", "not measured yet: the first chat finds what is fastest here"
    else:
        yield (
            "",
            (
                f"measured here: prefill {tuning.prefill_tps:,.1f} t/s, "
                f"decode {tuning.decode_tps:,.1f} t/s"
            ),
        )
    yield "fits", "yes" if made.fits else f"no: {made.advice()}"


def _mb(size: int) -> str:
    return f"{size / 1e6:9,.1f} MB"
