"""The data step of Self-Play Preference Optimization, as its authors run it (arXiv 2405.00675).

OUT/responses.jsonl          the resumable file: a line for each prompt and seed
OUT/responses_0.json, ...    for each seed a JSON list of texts in the prompts' order, as the
                             published ranking script reads them
OUT/prompts/train.jsonl      the prompts of this part, as a data set of the same length
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.batches.input import as_lines
from edgesppo.batches.recipe import Recipe
from edgesppo.batches.request import BadRow, decode
from edgesppo.errors import UsageError
from edgesppo.sampling.params import SamplingParams
from edgesppo.system.fs import cannot_write, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgesppo.batches.batch import Batch
    from edgesppo.batches.output import ResultFile

SEEDS = (0, 50, 100, 150, 200)
RESPONSES = "responses.jsonl"
SCRIPTS = "https://github.com/uclaml/SPPO"
# The prompts as a data set: datasets.load_dataset takes the folder.
_PROMPTS = Path("prompts", "train.jsonl")
# The ranking script chooses its chat template by this name.
_TEMPLATE_OF = "google/gemma-2-9b-it"


def recipe(
    overrides: Mapping[str, Any],
    *,
    seeds: tuple[int, ...] | None = None,
    part: tuple[int, int] | None = None,
) -> Recipe:
    """The recipe, with what the user wants otherwise; the model's own defaults do not count."""
    published = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=2048)
    return Recipe(
        {**vars(published), **overrides},
        name="sppo",
        seeds=seeds or SEEDS,
        apart=True,
        part=part,
        prompt_field="prompt",
    )


def prepare(folder: Path, n_seeds: int) -> Path:
    """Create the output's folder if needed; returns the path of the resumable file in it.

    Raises UsageError for a folder with files of someone else where the output belongs.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, expected a folder to write the responses to")
    path = folder / RESPONSES
    outputs = [*(_responses(folder, n) for n in range(n_seeds)), folder / _PROMPTS]
    if not path.exists() and (found := [str(other) for other in outputs if other.exists()]):
        raise UsageError(
            f"there is no {path} to continue, but {', '.join(found)} would be replaced; use another"
            " folder, or move what is there away"
        )
    _create(folder)
    return path


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None


def check_prompts(job: Batch) -> None:
    """Raise UsageError for an input of another form: none of its rows has a prompt."""
    if not any(_prompts(job)):
        raise UsageError(
            f"{job.rows.name} has no row with a 'prompt', expected lines of JSON with that field, "
            "or a JSON list of texts"
        )


def write_responses(job: Batch, file: ResultFile, n_seeds: int) -> int:
    """Write the lists of texts and the prompts; returns the number of prompts without an answer.

    Their texts are empty, so that the lists stay in step. Raises OutputError.
    """
    folder = file.path.parent
    index = {place.row: n for n, place in enumerate(job.places)}
    texts = [[""] * len(index) for _ in range(n_seeds)]
    unanswered = set()
    for result in file.results():
        row, answer = result.key
        texts[answer][index[row]] = result.text
        if result.error is not None:
            unanswered.add(row)
    for n, responses in enumerate(texts):
        write_file(_responses(folder, n), json.dumps(responses, ensure_ascii=False).encode())
    prompts = b"".join(as_lines({"prompt": prompt} for prompt in _prompts(job)))
    _create(folder / _PROMPTS.parent)
    write_file(folder / _PROMPTS, prompts)
    return len(unanswered)


def _responses(folder: Path, n: int) -> Path:
    """The list of the texts that have the n-th seed."""
    return folder / f"responses_{n}.json"


def _prompts(job: Batch) -> Iterator[str]:
    """The prompt of every row; empty for a row that has none."""
    for place in job.places:
        prompt: object = None
        if not place.is_too_long:
            try:
                prompt = decode(job.rows.read(place)).get("prompt")
            except BadRow:
                prompt = None
        yield prompt if isinstance(prompt, str) else ""


def ranking_command(folder: Path, n_seeds: int) -> str:
    """The shell command that ranks the responses, to be run in a checkout of SCRIPTS."""
    folder = folder.resolve()
    name = shlex.quote(folder.name)
    link = f"mkdir -p generated && ln -sfn {shlex.quote(str(folder))} generated/{name}"
    options = {
        "model": _TEMPLATE_OF,
        "output_dir": folder.name,
        "prompts": str(folder / _PROMPTS.parent),
        "pairs": n_seeds,
        "numgpu": 1,
        "gpu": 0,
        "frac_len": 0,
        "data_frac": 0,
    }
    words = [f"--{key} {shlex.quote(str(value))}" for key, value in options.items()]
    return f"{link} && python3 scripts/rank.py {' '.join(words)}"
