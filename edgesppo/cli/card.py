"""`edgesppo card`: write the model card of a GGUF file for those who publish it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cards.header import Sources, header
from edgesppo.cards.readme import readme
from edgesppo.cli.completion import complete_models
from edgesppo.cli.loading import gguf_path
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, say
from edgesppo.errors import BadModelFile, OutputError, UsageError
from edgesppo.gguf import gemma2
from edgesppo.gguf.file_types import file_type
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import REPOSITORY
from edgesppo.store import locate
from edgesppo.store.origin import origin, source_repository
from edgesppo.system.fs import hash_file, write_file
from edgesppo.system.text_input import read_text
from edgesppo.terminal.progress import Meter

if TYPE_CHECKING:
    from edgesppo.gguf.reader import Summary
    from edgesppo.lockfile.entries import PinnedModel


@click.command(name="card")
@click.argument("model", metavar="MODEL|FILE", shell_complete=complete_models)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option(
    "--base-model",
    metavar="OWNER/NAME",
    help="The repository that the file was converted from. [default: what the file says]",
)
@click.option(
    "--measured",
    metavar="JSON",
    multiple=True,
    help="Figures of this file to add, as `bench --json` and `eval --json` print them.",
)
@json_option
def card_command(
    model: str,
    output: Path | None,
    force: bool,
    base_model: str | None,
    measured: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the model card (README.md) for the hub of a GGUF file that you publish.

    Everything in it is from the file, from models.lock or from the measurements that you add. The
    published results of the model that it was made from are marked as that model's.
    """
    if output is not None:
        _check_output(output, force=force)
    figures = [(Path(name).name, _figures(name)) for name in measured]
    sources = _sources(model, base_model, figures)
    if sources.repository is None:
        say(_unknown_source(sources))
    text = readme(sources)
    if output is not None:
        write_file(output, text.encode())
        say(f"Wrote {output}")
    if as_json:
        where = None if output is None else str(output)
        emit_json({"output": where, "header": header(sources), "text": text})
    elif output is None:
        click.echo(text, nl=False)


def _sources(
    model: str, base_model: str | None, figures: list[tuple[str, dict[str, Any]]]
) -> Sources:
    """Read and hash the file, and find the lock's entry of what it was made from."""
    from edgesppo.gguf.metadata import describe

    path = gguf_path(locate.find(model))
    summary = gemma2.load_summary(path)
    card = describe(summary)
    named = source_repository(card)
    if None not in (base_model, named) and base_model != named:
        raise UsageError(
            f"--base-model is {base_model}, but {path} says that it was made of {named}"
        )
    entry = _entry(base_model) if base_model is not None else origin(model, card)
    known = entry.repository if entry is not None else None
    named_type, is_mixed = _type(summary)
    return Sources(
        file=card,
        file_name=path.name,
        type=named_type,
        is_mixed=is_mixed,
        sha256=_sha256(path, summary.file_bytes),
        repository=base_model or named or known,
        entry=entry,
        measurements=figures,
    )


def _type(summary: Summary) -> tuple[str, bool]:
    """The type that the file names; where its tensors do not follow that, theirs, and True."""
    from edgesppo_convert.quant.recipe_match import follows_recipe

    named = file_type(summary)
    if follows_recipe(summary, named) is not False:
        return named, False
    n_bytes: Counter[str] = Counter()
    for tensor in summary.tensors:
        n_bytes[tensor.type] += tensor.n_bytes if len(tensor.dims) > 1 else 0
    return ", ".join(kind for kind, size in n_bytes.most_common() if size), True


def _unknown_source(sources: Sources) -> str:
    """What is missing from the card, and the likely repository by the model's name, if any."""
    names = (model.repository or "" for model in layers.read().models.values())
    likely = (name for name in names if name.rpartition("/")[2] == sources.file["name"])
    repository = next(likely, None)
    if repository is None:
        return "The file does not say what it was converted from; --base-model OWNER/NAME adds it"
    return (
        "The file does not say what it was converted from;"
        f" --base-model {repository} adds it, if that is it"
    )


def _entry(base_model: str) -> PinnedModel | None:
    if not REPOSITORY.fullmatch(base_model):
        raise UsageError(f"--base-model is {base_model!r}, expected OWNER/NAME")
    return layers.read().of_repository(base_model)


def _sha256(path: Path, total: int) -> str:
    found = hashlib.sha256()
    with contextlib.closing(Meter(f"Hashing {path.name}")) as meter:
        try:
            hash_file(path, found, meter.update, total=total)
        except OSError as error:
            raise BadModelFile(f"{path}: cannot be read: {error.strerror or error}") from None
    return found.hexdigest()


def _figures(name: str) -> dict[str, Any]:
    try:
        found = json.loads(read_text(name))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{name}: expected one JSON object, as `bench --json` prints it")
    return found


def _check_output(output: Path, *, force: bool) -> None:
    if output.is_dir():
        raise OutputError(f"{output} is a folder; name a file in it: {output / 'README.md'}")
    if output.exists() and not output.is_file():
        raise OutputError(f"{output} is not a regular file; choose another name")
    if output.exists() and not force:
        raise OutputError(f"{output} exists; --force replaces it, or choose another name")
