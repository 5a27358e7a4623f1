"""The model card (README.md) of a GGUF file that someone publishes.

Every statement is from the file, from its lock's entry, or from a measurement; a section of which
nothing is known is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgesppo.cards.header import Sources, header, render
from edgesppo.cards.published import METHODS, hyper_parameters, prompts_text, result_text
from edgesppo.gguf.metadata import imatrix_text
from edgesppo.system.sanitize import one_line
from edgesppo.system.units import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.lockfile.published import Citation, Training

_HUB = "https://huggingface.co/"
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!&$])")
_MAX_TEXT = 500
_MEASURED = 40  # figures of one measurement


def readme(sources: Sources) -> str:
    """The whole card: the header, then what it is, how it was made, and how to run it."""
    sections = {
        "": _what_it_is(sources),
        "How it was made": _how_it_was_made(sources),
        "Tensor types": _types(sources),
        "Hashes": _hashes(sources),
        "How to run it": _how_to_run(sources),
        "Measurements of this file": _measurements(sources),
        "Published results of the base model": _results(sources),
        "Training of the base model": _training(sources),
        "Licence": _license(sources),
        "Citation": _citation(sources),
    }
    parts = [render(header(sources)), f"# {_text(sources.title)} {sources.type} GGUF\n"]
    for title, lines in sections.items():
        body = "\n".join(lines)
        if body:
            parts.append(f"## {title}\n\n{body}\n" if title else f"{body}\n")
    return "\n".join(parts)


def _what_it_is(sources: Sources) -> Iterator[str]:
    file, model = sources.file, sources.file["model"]
    made_of = f"{_link(sources.repository)} as a" if sources.repository else "A"
    of_type = f"the type {sources.type}"
    if sources.is_mixed:
        of_type = f"mixed types ({sources.type}), chosen tensor by tensor"
    yield (
        f"{made_of} GGUF file of {of_type}, for llama.cpp and the programs that are"
        f" built on it: `{_code(sources.file_name)}`, {size(file['bytes'])}."
    )
    yield ""
    yield f"- Architecture: Gemma-2, {_count(model['parameters'])} parameters" + (
        f", {_count(model['layers'])} layers" if model["layers"] is not None else ""
    )
    if model["context"] is not None:
        yield f"- Context: {_count(model['context'])} tokens" + (
            f", every other layer a window of {_count(model['window'])}" if model["window"] else ""
        )
    if file["bits_per_weight"] is not None:
        yield f"- Bits per weight: {file['bits_per_weight']:.2f}"
    entry, lineage = sources.entry, file["lineage"]
    if entry is not None:
        yield f"- The model: {_text(entry.description)}"
    method = lineage["method"] or (entry.method if entry is not None else None)
    if method:
        rounds = lineage["iteration"] or (entry.iteration if entry is not None else None)
        yield f"- Trained by: {_text(METHODS.get(method, method))}" + (
            f", iteration {rounds}" if rounds else ""
        )
    bases = lineage["base_models"] or ([entry.base_model] if entry and entry.base_model else [])
    if bases:
        yield f"- Trained from: {', '.join(map(_link, bases))}"
    if sources.datasets:
        yield f"- Data: {', '.join(_link(name, 'datasets/') for name in sources.datasets)}"


def _how_it_was_made(sources: Sources) -> Iterator[str]:
    lineage = sources.file["lineage"]
    if lineage["quantized_by"]:
        yield f"- Written by: {_text(lineage['quantized_by'])}"
    if lineage["source"]:
        at = f" at commit `{_code(lineage['revision'])}`" if lineage["revision"] else ""
        yield f"- Converted from: {_address(lineage['source'])}{at}"
    elif sources.repository is not None:
        yield f"- Converted from: {_link(sources.repository)}"
    if calibration := imatrix_text(sources.file["imatrix"]):
        yield f"- Importance matrix: {_text(calibration)}"


def _types(sources: Sources) -> Iterator[str]:
    yield "| type | tensors | bytes |"
    yield "| --- | ---: | ---: |"
    found = sources.file["types"]
    for kind, counts in found.items():
        yield f"| {kind} | {counts['tensors']:,} | {counts['bytes']:,} |"
    total = {key: sum(counts[key] for counts in found.values()) for key in ("tensors", "bytes")}
    yield f"| all | {total['tensors']:,} | {total['bytes']:,} |"


def _hashes(sources: Sources) -> Iterator[str]:
    yield "| file | sha256 |"
    yield "| --- | --- |"
    yield f"| `{_code(sources.file_name)}`, {sources.file['bytes']:,} bytes | `{sources.sha256}` |"
    labels = {"files": "made from", "weight_headers": "header of", "weights": "weights of"}
    for kind, label in labels.items():
        for entry in sources.file["inputs"][kind]:
            name, _, digest = entry.rpartition(" ")
            yield f"| {label} `{_code(name)}` | `{_code(digest)}` |"


def _how_to_run(sources: Sources) -> Iterator[str]:
    name = _code(sources.file_name)
    yield "```sh"
    yield f"edgesppo chat {_quoted(name)}"
    yield f"llama-cli -m {_quoted(name)}"
    yield "```"
    yield ""
    yield "The turns that it was trained with, after one `<bos>`:"
    yield ""
    yield "```"
    yield "<start_of_turn>user"
    yield "TEXT<end_of_turn>"
    yield "<start_of_turn>model"
    yield "```"
    sampling = {
        name: value for name, value in sources.file["sampling"].items() if value is not None
    }
    if sampling:
        listed = ", ".join(f"{name} {value:g}" for name, value in sampling.items())
        yield ""
        yield f"Sampling that the file recommends: {listed}."


def _measurements(sources: Sources) -> Iterator[str]:
    for n, (title, figures) in enumerate(sources.measurements):
        if n:
            yield ""
        yield f"From `{_code(title)}`:"
        yield ""
        yield "| figure | value |"
        yield "| --- | ---: |"
        rows = list(_rows(figures))
        for name, value in rows[:_MEASURED]:
            yield f"| {_text(name)} | {_text(value)} |"
        if len(rows) > _MEASURED:
            yield f"| and {len(rows) - _MEASURED} more | |"


def _rows(figures: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every single value in a JSON object, under the names on the way to it.

    Of lists, those of objects, such as one for each model; lists of texts are notes and advice.
    """
    if isinstance(figures, dict):
        for key, value in figures.items():
            yield from _rows(value, f"{name} {key}".strip())
    elif isinstance(figures, list):
        for number, value in enumerate(figures, 1):
            if isinstance(value, dict):
                yield from _rows(value, f"{name} {value.get('model', number)}".strip())
    elif isinstance(figures, float):
        yield name, f"{figures:.6g}"
    elif isinstance(figures, str | int) and not isinstance(figures, bool):
        yield name, str(figures)


def _results(sources: Sources) -> Iterator[str]:
    entry = sources.entry
    if entry is None or not entry.results:
        return
    yield (
        f"Published by the makers of {_link(entry.repository or entry.name)} for that model as they"
        " trained it. They are not results of this file, which was quantised."
    )
    yield ""
    for result in entry.results:
        yield f"- {_text(result_text(result))}"


def _training(sources: Sources) -> Iterator[str]:
    entry = sources.entry
    if entry is None or entry.training is None:
        return
    yield f"As published for {_link(entry.repository or entry.name)}:"
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    for name, value in _training_rows(entry.training):
        yield f"| {name} | {_text(value)} |"


def _training_rows(training: Training) -> Iterator[tuple[str, str]]:
    texts = {
        "began from": training.started_from,
        "prompts": prompts_text(training),
        "answers": training.responses,
        "ranked by": training.ranked_by,
        "languages": training.languages,
    }
    yield from ((name, text) for name, text in texts.items() if text)
    yield from hyper_parameters(training)


def _license(sources: Sources) -> Iterator[str]:
    claims = sources.license
    said, link, in_text = claims["header"], claims["link"], claims["in_text"]
    if said is None:
        yield "Neither the file nor a lock names a licence."
        return
    named = f" ({_text(claims['name'])})" if claims["name"] else ""
    at = f", {_address(link)}" if link else ""
    yield f"The model's header names the terms `{_code(said)}`{named}{at}."
    if in_text and in_text.lower() != said.lower():
        yield f"The text of its card names `{_code(in_text)}`: follow the stricter of the two."


def _citation(sources: Sources) -> Iterator[str]:
    citation = sources.entry.citation if sources.entry is not None else None
    if citation is not None:
        yield "```bibtex"
        yield from _bibtex(citation)
        yield "```"


def _bibtex(citation: Citation) -> Iterator[str]:
    authors = " and ".join(part.strip() for part in citation.authors.split(","))
    yield f"@misc{{{re.sub(r'[^a-z]', '', authors.split(' and ')[0].lower())}{citation.year},"
    yield f"  title = {{{_bib(citation.title)}}},"
    yield f"  author = {{{_bib(authors)}}},"
    yield f"  year = {{{citation.year}}},"
    if citation.arxiv:
        yield f"  eprint = {{{_bib(citation.arxiv)}}},"
        yield "  archivePrefix = {arXiv},"
    yield "}"


def _bib(text: str) -> str:
    return re.sub(r"[\\{}]", "", _code(text))


def _text(text: str) -> str:
    """A text from a file or a lock as it reads in Markdown: on one line, without markup."""
    return _MARKUP.sub(r"\\\1", one_line(text, _MAX_TEXT))


def _code(text: str) -> str:
    """A text between back-ticks, and in a table: on one line, without what would end either."""
    return re.sub(r"[`|]", "", one_line(text, _MAX_TEXT))


def _quoted(name: str) -> str:
    """A file's name for a shell."""
    return name if re.fullmatch(r"[\w.+@%-]+", name) else "'" + name.replace("'", "'\\''") + "'"


def _link(repository: str, kind: str = "") -> str:
    """A repository of the hub as a link; another name as a text."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        return f"[{_text(repository)}]({_HUB}{kind}{repository})"
    return _text(repository)


def _address(text: str) -> str:
    """An https address as a link that shows itself; anything else as a text."""
    is_plain = re.fullmatch(r"https://[\w.-]+(?:/[\w./%~-]*)?", text, re.ASCII)
    return f"<{text}>" if is_plain else _text(text)


def _count(value: float) -> str:
    return f"{value:,}"
