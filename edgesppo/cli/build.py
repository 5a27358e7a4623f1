"""`edgesppo build`: compile llama.cpp anew for this machine, into this environment."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import click

from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say, tell
from edgesppo.errors import BuildError
from edgesppo.system.units import duration
from edgesppo.terminal.output import is_quiet

if TYPE_CHECKING:
    from edgesppo.native_build.install import Installed


@click.command(name="build")
@click.option(
    "--compiler",
    metavar="COMPILER",
    help="zig (downloaded for the purpose), system, or a C compiler's command. [env: EDGESPPO_CC]",
)
@click.option(
    "--backend",
    type=click.Choice(["cpu", "cuda", "vulkan", "metal"]),
    help="Kernels for a GPU, too, by the system's tools. [env: EDGESPPO_BACKEND]",
)
@click.option("--force", is_flag=True, help="Compile it even if that was done before.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@click.pass_context
def build_command(
    ctx: click.Context,
    compiler: str | None,
    backend: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compile llama.cpp for this processor and install it into this environment.

    On Linux no compiler is needed: one is downloaded from the package index (90 MB), used, and
    removed. Its kernels are faster than those that pip's build gets from an older GCC. Takes some
    minutes; what was compiled is kept for other environments.
    """
    from edgesppo.cli import environment

    for variable, value in (("EDGESPPO_CC", compiler), ("EDGESPPO_BACKEND", backend)):
        if value is not None:
            ctx.with_resource(environment(variable, value))
    if dry_run:
        _tell_plan(force=force, as_json=as_json)
        return
    found = _build(ctx, force=force)
    if as_json:
        emit_json(dataclasses.asdict(found))
        return
    done = f"compiled in {duration(found.seconds)}" if found.compiled else "compiled before"
    tell(f"llama-cpp-python {found.version} is installed, {done} by {found.compiler}")


def _build(ctx: click.Context, *, force: bool) -> Installed:
    from edgesppo.cli import INTERRUPTED
    from edgesppo.hub.client import offline
    from edgesppo.native_build import builds, child, install
    from edgesppo.native_build.failure import Failed, Interrupted

    _, kept = install.plan(force=force)
    if kept is None and (name := offline()):
        raise BuildError(
            f"{name} is set, and compiling needs files of the package index: run it without that"
        )
    try:
        with child.silence() if is_quiet() else contextlib.nullcontext():
            return install.build_and_install(force=force)
    except Interrupted:
        ctx.exit(INTERRUPTED)
    except Failed as error:
        say(error.tail())
        raise BuildError(f"build failed {error}: {error.summary(builds.wheels_dir())}") from None


def _tell_plan(*, force: bool, as_json: bool) -> None:
    from edgesppo.native_build import install

    builds, kept = install.plan(force=force)
    compilers = [build.compiler.identity for build in builds]
    if as_json:
        what = {"version": builds[0].version, "compilers": compilers, "compile": kept is None}
        emit_json({**what, "backend": builds[0].backend or "default", "kept": kept and str(kept)})
        return
    if kept is not None:
        tell(f"would install {kept}, compiled before by {compilers[0]}")
        return
    others = "".join(f", or if that fails by {other}" for other in compilers[1:])
    tell(f"would compile llama-cpp-python {builds[0].version} by {compilers[0]}{others}")
