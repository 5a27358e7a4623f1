"""`edgesppo show`: print a model's card from its file, or from models.lock before it is here."""

from __future__ import annotations

import hashlib
import textwrap
from typing import TYPE_CHECKING, Any

import click

from edgesppo.cards.published import (
    METHODS,
    entry_lines,
    entry_values,
    published_lines,
    published_values,
)
from edgesppo.cli.completion import complete_models
from edgesppo.cli.loading import gguf_path
from edgesppo.cli.options import json_option
from edgesppo.cli.output import emit_json, tell
from edgesppo.errors import BadModelFile
from edgesppo.gguf import gemma2
from edgesppo.gguf.metadata import imatrix_text
from edgesppo.store import locate
from edgesppo.store.expected import absent_entry
from edgesppo.store.origin import origin
from edgesppo.system.fs import hash_file
from edgesppo.system.sanitize import one_line
from edgesppo.system.units import size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgesppo.lockfile.entries import PinnedModel

_LABEL = 11
_WIDTH = 80 - _LABEL - 3


@click.command(name="show")
@click.argument("model", shell_complete=complete_models)
@click.option("--hash", "with_hash", is_flag=True, help="Also hash the whole file (sha256).")
@json_option
def show_command(model: str, with_hash: bool, as_json: bool) -> None:
    """Show the metadata of MODEL's file: lineage, tensor types, tokenizer, licence, hashes.

    Of a model that is not on this machine, what models.lock knows of it: shape, training,
    published results, licences. Reads only the file's header; the model is not loaded.
    """
    from edgesppo.gguf.metadata import describe

    entry = absent_entry(model)
    if entry is not None and not with_hash:
        _show_absent(entry, as_json=as_json)
        return
    path = gguf_path(locate.find(model))
    summary = gemma2.load_summary(path)
    card = {**describe(summary), "notes": gemma2.notes(summary)}
    if with_hash:
        card["sha256"] = _sha256(path)
    entry = origin(model, card)
    if as_json:
        emit_json({**card, "here": True, **({} if entry is None else published_values(entry))})
        return
    tell(card["name"] or one_line(path.name))
    _tell_lines(_lines(card))
    if entry is not None:
        _tell_lines(published_lines(entry))
    for label, name, digest in _hashes(card["inputs"]):
        tell(f"  {label:<{_LABEL}} {name}\n  {'':<{_LABEL}} {digest}")


def _show_absent(entry: PinnedModel, *, as_json: bool) -> None:
    if as_json:
        emit_json({**entry_values(entry), **published_values(entry)})
        return
    tell(entry.name)
    _tell_lines(entry_lines(entry))
    _tell_lines(published_lines(entry))


def _tell_lines(lines: Iterable[tuple[str, str]]) -> None:
    for label, line in lines:
        for place, part in enumerate(_wrapped(line)):
            tell(f"  {label if not place else '':<{_LABEL}} {part}")


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    try:
        hash_file(path, found)
    except OSError as error:
        raise BadModelFile(f"{path}: cannot be read: {error.strerror or error}") from None
    return found.hexdigest()


def _lines(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model, lineage = card["model"], card["lineage"]
    yield "file", one_line(card["path"])
    yield "size", size(card["bytes"])
    if "sha256" in card:
        yield "sha256", card["sha256"]
    yield (
        "model",
        (
            f"{model['parameters'] / 1e6:,.1f} M parameters, {_number(model['layers'])} layers,"
            f" {_number(model['width'])} wide, {_number(model['heads'])} heads,"
            f" {_number(model['kv_heads'])} of them for keys and values"
        ),
    )
    yield from _lineage(lineage)
    yield from _types(card)
    yield (
        "context",
        (
            f"{_number(model['context'])} tokens, every other layer a window of"
            f" {_number(model['window'])}"
        ),
    )
    yield (
        "soft-caps",
        (f"attention {_number(model['attention_cap'])}, output {_number(model['final_cap'])}"),
    )
    yield from _tokenizer(card["tokenizer"])
    sampling = [f"{name} {_number(n)}" for name, n in card["sampling"].items() if n is not None]
    if sampling:
        yield "sampling", ", ".join(sampling)
    yield "licence", _licence(card["license"])
    for note in card["notes"]:
        yield "note", note


def _wrapped(line: str) -> list[str]:
    """Wrap a line to fit beside its label in 80 columns."""
    if len(line) <= _WIDTH or line.startswith("  "):
        return [line]
    return textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _hashes(inputs: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """Label, name and sha256 of every file that the model was converted from."""
    labels = {
        "files": "made from",
        "weight_headers": "header of",
        "weights": "weights of",
        "adapters": "adapter",
    }
    for kind, label in labels.items():
        for entry in inputs[kind]:
            name, _, digest = entry.rpartition(" ")
            yield label, name, digest


def _lineage(lineage: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if method := lineage["method"]:
        iteration = lineage["iteration"]
        rounds = f", iteration {_number(iteration)}" if iteration is not None else ""
        yield "training", METHODS.get(method, method) + rounds
    for label, key in (("base model", "base_models"), ("data sets", "datasets")):
        if lineage[key]:
            yield label, ", ".join(lineage[key])
    if lineage["paper"]:
        yield "paper", lineage["paper"]
    if lineage["source"]:
        revision = f" at {lineage['revision']}" if lineage["revision"] else ""
        yield "source", lineage["source"] + revision
    if lineage["quantized_by"]:
        yield "written by", lineage["quantized_by"]


def _types(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if card["bits_per_weight"] is not None:
        yield "weights", f"{card['bits_per_weight']:.2f} bits per weight"
    for kind, found in card["types"].items():
        yield "", f"{kind:<6} {found['tensors']:>4} tensors {size(found['bytes']):>9}"
    if used := imatrix_text(card["imatrix"]):
        yield "imatrix", used


def _tokenizer(tokenizer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in tokenizer["types"].items())
    yield "tokenizer", f"{tokenizer['model']}, {_number(tokenizer['tokens'])} tokens: {counts}"
    stops = " or ".join(map(str, tokenizer["stops"]))
    template = "with" if tokenizer["chat_template"] else "without"
    yield "", f"token {tokenizer['bos']} begins a text, {stops} ends it; {template} a chat template"


def _licence(licence: dict[str, Any]) -> str:
    said = str(licence["header"] or "the file names none")
    if licence["name"]:
        said += f" ({licence['name']})"
    if licence["link"]:
        said += f", {licence['link']}"
    if licence["in_text"]:
        said += f"; its card's text says {licence['in_text']}: follow the stricter"
    return said


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
