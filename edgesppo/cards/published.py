"""What models.lock knows of a model, as lines for a person and as values for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgesppo.hub import license_claims
from edgesppo.lockfile.entries import CHECKPOINT
from edgesppo.system.sanitize import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.lockfile.published import Result, Shape, Training

METHODS = {"SPPO": "Self-Play Preference Optimization (SPPO)"}
# Field of Training -> its name in a list of hyper-parameters.
HYPER_PARAMETERS = {
    "learning_rate": "learning rate",
    "eta": "eta",
    "batch_size_per_device": "batch size per device",
    "devices": "devices",
    "gradient_accumulation": "gradient accumulation",
    "distributed": "distributed by",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "warmup_ratio": "warm-up ratio",
    "epochs": "epochs",
    "seed": "seed",
}


def how_to_get(entry: PinnedModel) -> str:
    """The command that gets a model of the hub."""
    return f"edgesppo pull {entry.name}{' --convert' if entry.kind == CHECKPOINT else ''}"


def entry_values(entry: PinnedModel) -> dict[str, Any]:
    """What a card says of a model that is not here: identity, shape, lineage, licence."""
    return {
        "name": entry.name,
        "here": False,
        "get": how_to_get(entry),
        "description": entry.description,
        "repository": entry.repository,
        "revision": entry.revision,
        "kind": entry.kind,
        "bytes": entry.size or None,
        "model": None if entry.shape is None else _shape_values(entry.shape),
        "lineage": {
            "method": entry.method,
            "iteration": entry.iteration,
            "base_models": [entry.base_model] if entry.base_model else [],
            "base_revision": entry.base_revision,
            "datasets": [entry.dataset] if entry.dataset else [],
            "paper": entry.paper,
        },
        "license": {
            "header": entry.license,
            "name": entry.license_name,
            "link": entry.license_link,
            "in_text": entry.license_in_text,
            "in_file": entry.license_in_file,
        },
    }


def _shape_values(shape: Shape) -> dict[str, int | float]:
    return {
        "parameters": shape.parameters,
        "layers": shape.layers,
        "width": shape.hidden_size,
        "feed_forward": shape.feed_forward_size,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_size": shape.head_size,
        "vocabulary": shape.vocabulary,
        "context": shape.context,
        "window": shape.window,
        "attention_cap": shape.attention_softcap,
        "final_cap": shape.output_softcap,
    }


def published_values(entry: PinnedModel) -> dict[str, Any]:
    """What is published of a model's training and results; None where nothing is."""
    return {
        "training": None if entry.training is None else asdict(entry.training),
        "results": [asdict(result) for result in entry.results],
        "citation": None if entry.citation is None else asdict(entry.citation),
    }


def entry_lines(entry: PinnedModel) -> list[tuple[str, str]]:
    """The lines of `entry_values`, each with its label."""
    return [(label, one_line(line)) for label, line in _entry(entry)]


def published_lines(entry: PinnedModel) -> list[tuple[str, str]]:
    """The lines of `published_values`, each with its label."""
    return [(label, one_line(line)) for label, line in _published(entry)]


def _entry(entry: PinnedModel) -> Iterator[tuple[str, str]]:
    yield "model", entry.description
    yield "here", f"no; to get it: {how_to_get(entry)}"
    if entry.repository is not None:
        at = entry.revision if entry.is_pinned else "a commit that is not pinned yet"
        yield "source", f"{entry.repository} at {at}"
    shape = entry.shape
    if shape is not None:
        yield (
            "shape",
            f"{shape.parameters:,} parameters, {shape.layers} layers, {shape.hidden_size:,} wide,"
            f" {shape.heads} heads, {shape.kv_heads} of them for keys and values",
        )
        yield "context", f"{shape.context:,} tokens, every other layer a window of {shape.window:,}"
        yield "soft-caps", f"attention {shape.attention_softcap:g}, output {shape.output_softcap:g}"
        yield "tokenizer", f"{shape.vocabulary:,} tokens"
    if entry.method is not None:
        rounds = f", iteration {entry.iteration}" if entry.iteration is not None else ""
        yield "training", METHODS.get(entry.method, entry.method) + rounds
    if entry.base_model is not None:
        yield "base model", entry.base_model
    if entry.dataset is not None:
        yield "data sets", entry.dataset
    if entry.paper is not None:
        yield "paper", entry.paper
    yield "licence", license_claims.line(entry)


def _published(entry: PinnedModel) -> Iterator[tuple[str, str]]:
    if entry.training is not None:
        yield from _training(entry.training)
    for result in entry.results:
        yield "published", result_text(result)
    if entry.citation is not None:
        cited = entry.citation
        arxiv = "" if cited.arxiv is None else f", arXiv {cited.arxiv}"
        yield "cite", f"{cited.authors}: {cited.title}, {cited.year}{arxiv}"


def _training(training: Training) -> Iterator[tuple[str, str]]:
    if training.started_from is not None:
        yield "began from", training.started_from
    prompts = prompts_text(training)
    if prompts:
        yield "prompts", prompts
    answers = [training.responses, training.ranked_by and f"ranked by {training.ranked_by}"]
    if any(answers):
        yield "answers", "; ".join(filter(None, answers))
    if training.languages is not None:
        yield "languages", training.languages
    numbers = ", ".join(f"{name} {value}" for name, value in hyper_parameters(training))
    if numbers:
        yield "settings", numbers


def prompts_text(training: Training) -> str:
    """The prompts that a model was trained on: the set, its origin, and how that was split."""
    parts = [
        training.prompts,
        training.prompts_from and f"prompts of {training.prompts_from}",
        training.split,
        training.split_by and f"as split by {training.split_by}",
    ]
    return ", ".join(filter(None, parts))


def hyper_parameters(training: Training) -> Iterator[tuple[str, str]]:
    """The published hyper-parameters, each with its name."""
    for field, name in HYPER_PARAMETERS.items():
        value = getattr(training, field)
        if value is not None:
            yield name, f"{value:g}" if isinstance(value, float) else str(value)


def result_text(result: Result) -> str:
    """A published result in one sentence."""
    lengths = result.average_length
    parts = [
        result.length_controlled_win_rate is not None
        and f"{result.length_controlled_win_rate:.2f} % length-controlled win rate",
        result.win_rate is not None and f"{result.win_rate:.2f} % win rate",
        lengths is not None and f"answers of {lengths:,} characters on average",
    ]
    sampling = f" ({result.sampling})" if result.sampling else ""
    return f"{result.benchmark}: {', '.join(part for part in parts if part)}{sampling}"
